//! Runs a client: its TUN device, one socket for each link, one session with each configured
//! server.
//!
//! No state of a link is fatal: the client waits for an interface that is missing, and looks names
//! up again (`resolve`). Links come and go while it runs. Missing rights, a missing key, a taken
//! device and a second instance are fatal, with a message that says so.

mod caps;
mod capturing;
mod choice;
mod comings;
mod diagnosis;
pub(crate) mod discovery;
mod duties;
mod identity;
mod lines;
mod resolve;
mod revival;
pub(crate) mod splitter;
mod tunnel;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, SystemTime};

use bonding_os::monitor::Monitor;
use bonding_os::poll::{Interest, Poller};
use bonding_os::privileges::Rights;
use bonding_os::signals::Signals;
use bonding_os::undo::Journal;
use bonding_proto::client::{Client, Server};
use bonding_proto::config::{LinkConfig, Role, Security, SessionConfig};
use bonding_proto::event::Event;
use bonding_proto::handshake::Refusal;
use bonding_proto::qos::InnerHeader;
use bonding_proto::trace::format::Side;
use bonding_proto::view::LinkRole;
use bonding_proto::wire::control::CloseReason;
use bonding_proto::{Instant, LinkId, Path, SocketId, StateMachine as _, StreamHost as _};

use self::caps::Caps;
use self::capturing::Capturing;
use self::choice::Choice;
use self::comings::{Comings, Parts};
use self::duties::Duties;
use self::identity::Identity;
use self::lines::{Lines, Origin, is_same_line};
use self::resolve::Directory;
use self::revival::Revival;
use self::splitter::{SplitDevice, Splitter};
use self::tunnel::Tunnel;
use crate::config::{Host, role_word};
use crate::engine::clock::Clock;
use crate::engine::command::{Command, FlowsPage, LinkOrder, Ordered, Rekeying, Reloaded, Reply};
use crate::engine::event_loop::{self, Device, Engine, Shell};
use crate::engine::events::{EventLogger, why};
use crate::engine::overhead::Overhead;
use crate::engine::plan::{ClientPlan, LinkPlan};
use crate::engine::reload::{self, NewPlan, Outcome};
use crate::engine::setup::{self, Ground};
use crate::engine::sockets::{SocketSpec, Sockets};
use crate::engine::{RunError, Service};
use crate::events::{Happening, Kind};
use crate::flows::{Namer, Top};
use crate::state::keys;
use crate::status::{self, Io, LinkLabel, SessionSnapshot, Snapshot};

/// The longest wait for a link with an address of the server's family. Chosen: interfaces are
/// watched meanwhile.
const RESOLVE_RETRY: Duration = Duration::from_secs(10);

/// Why a server that revoked the client refuses it.
const REVOKED: &str = "the server no longer knows this client's key, which was revoked there or taken from its file; \
                       with a new invitation `bonding-client join` enrols it again";

/// A client needs these for its whole life.
pub const RIGHTS: Rights = Rights::NetworkAndBoundSockets;

/// Runs until SIGINT or SIGTERM; all changes to the machine are undone when this returns.
pub fn run(plan: &ClientPlan, service: &mut dyn Service) -> Result<(), RunError> {
    let kept = plan.capture.as_ref().map(|capture| capture.priority);
    let Ground { mut signals, journal, mut monitor, seed, epoch } =
        Ground::prepare(&plan.run.state_file, RIGHTS, kept)?;
    // Also where links are found only after a reload.
    monitor.watch_routes()?;
    let mut capturing = Capturing::hold(plan, journal, &monitor)?;
    let (identity, sealing) = plan.sealing.as_ref().map(Identity::load).transpose()?.unzip();
    let Some(directory) = directory(plan, &mut monitor, &mut signals)? else { return Ok(()) };
    let paths = directory.paths(&plan.links, &|at| plan.links.get(at).map_or(0, |link| link.port), 0);
    let mtu = tunnel_mtu(plan, &paths, &monitor);
    let tun = setup::tun(&plan.tunnel, mtu)?;
    capturing.start(tun.index(), &plan.tunnel.addresses)?;
    let clock = Clock::start();
    let caps = Caps::load(&plan.links, plan.usage_file.clone(), SystemTime::now(), clock.now());
    let links = (0..u8::MAX).zip(&plan.links).map(|(number, link)| LinkConfig {
        role: Duties::default().role(LinkId(number), link, caps.is_used_up(LinkId(number))),
        ..link_config(link, &monitor)
    });
    let config = SessionConfig {
        role: Role::Client,
        links: links.collect(),
        policy: plan.run.sending.policy,
        heartbeat_interval: plan.run.heartbeat_interval,
        mtu: tun.mtu(),
        mss_clamp: plan.run.mss_clamp,
        recovery: plan.run.sending.recovery,
        rules: plan.run.sending.rules.clone(),
        seed,
        epoch,
        sealing,
    };
    let mut sockets = Sockets::new(plan.links.iter().map(|link| spec(link, &plan.hosts)));
    let servers = paths.into_iter().map(|paths| Server { public_key: None, paths }).collect();
    let mut machine = Client::new(config, servers, clock.now());
    let poller = Poller::new()?;
    let tunnel = Tunnel::new(&plan.tunnel, tun.index(), tun.mtu());
    let choice = Choice::new(plan.split, plan.run.sending.rules.clone());
    let splitter = Splitter::new(choice, plan.run.compression, &tun)?;
    let mut shell = ClientShell::new(plan, tunnel, (caps, splitter, capturing), directory, clock.now())?;
    shell.identity = identity;
    for (socket, event) in sockets.refresh(&monitor, &poller) {
        machine.handle_socket_event(socket, event, clock.now());
    }
    let trace = setup::trace(&plan.run, Side::Client, clock)?;
    plan.links.iter().for_each(|link| loosen_filter(link, shell.capturing.journal()));
    // Those that are found, before the first packet.
    shell.settle_links(&mut machine, &mut sockets, (&monitor, &poller), clock.now());
    setup::reduce_rights(RIGHTS)?;
    shell.renew_lookups()?;
    let parts = event_loop::Parts {
        machine,
        device: SplitDevice::new(tun),
        sockets,
        monitor: Some(monitor),
        signals,
        poller,
        clock,
        trace,
    };
    let result = Engine::new(parts)?.run(&mut shell, service);
    shell.caps.save();
    Ok(result?)
}

/// Lets the server's answers in by the link's interface, also where the way to the server is
/// another one: strict reverse-path filtering would drop them. Undone with the journal.
fn loosen_filter(link: &LinkPlan, journal: &mut Journal) {
    let Some(interface) = link.interface.as_deref() else { return };
    match journal.loosen_filter(interface) {
        Ok(true) => tracing::info!(
            interface,
            "strict reverse-path filtering would drop the server's answers: loose until this ends"
        ),
        Ok(false) => {}
        Err(error) => tracing::warn!(
            interface, %error,
            "strict reverse-path filtering drops the server's answers where its default route is elsewhere"
        ),
    }
}

/// The servers. Looks names up until a link has an address to send to; `None`: a signal came first.
fn directory(
    plan: &ClientPlan,
    monitor: &mut Monitor,
    signals: &mut Signals,
) -> Result<Option<Directory>, RunError> {
    let mut directory = Directory::new(&plan.hosts, &plan.links, monitor)?;
    let mut poller = Poller::new()?;
    poller.add(&*signals, 0, Interest::Readable)?;
    poller.add(&directory, 0, Interest::Readable)?;
    poller.add(&*monitor, 0, Interest::Readable)?;
    let (mut ready, clock) = (Vec::new(), Clock::start());
    let mut is_said = false;
    loop {
        let is_found = |paths: &Vec<Vec<Path>>| paths.iter().any(|paths| !paths.is_empty());
        let finds = plan.discovery.is_some() && !directory.addresses().is_empty();
        if finds || directory.paths(&plan.links, &|_| 0, 0).iter().any(is_found) {
            return Ok(Some(directory));
        }
        let now = clock.now();
        let due = directory.due();
        if due.is_some_and(|due| due <= now) {
            directory.ask(now);
        } else if !is_said && directory.is_answered() {
            is_said = true;
            tracing::warn!("no link has an address of the server to send to yet; waiting");
        }
        let wait = directory.due().map_or(RESOLVE_RETRY, |due| due.saturating_since(now));
        poller.wait(&mut ready, Some(wait))?;
        signals.poll_signal();
        if signals.terminating() {
            return Ok(None);
        }
        monitor.handle_ready()?;
        directory.handle_interfaces(&plan.links, monitor);
        directory.handle_ready();
        directory.take_change();
    }
}

/// The MTU that fits every plain link and the largest sealed one, at whichever of its addresses a
/// server is reached. The MTU of sealed links is found out later, and the tunnel's MTU follows it.
fn tunnel_mtu(plan: &ClientPlan, paths: &[Vec<Vec<Path>>], monitor: &Monitor) -> u16 {
    let one = |(link, at): (&LinkPlan, usize)| {
        let remotes = paths.iter().filter_map(|server| server.get(at)).flatten();
        let remotes = remotes.map(|path| Overhead::of(path.remote.ip(), link.security));
        let fits = |overhead| setup::inner_mtu(link_mtu(link, monitor), overhead);
        remotes.max().map(|overhead| (link.security, fits(overhead)))
    };
    // A link that carries no data does not lower the MTU.
    let used = |(link, _): &(&LinkPlan, usize)| link.role != LinkRole::Never;
    let each = || plan.links.iter().zip(0..).filter(used).filter_map(one);
    let of = |wanted| each().filter(move |(security, _)| *security == wanted).map(|(_, mtu)| mtu);
    let sealed = plan.sealing.is_some();
    // Links that are found may reach a server by IPv6 where it may have such an address.
    let ipv6 = plan.discovery.is_some() && may_have_ipv6(&plan.hosts);
    let fallback = || setup::inner_mtu(None, Overhead { sealed, ipv6 });
    of(Security::Plain).min().into_iter().chain(of(Security::Sealed).max()).min().unwrap_or_else(fallback)
}

/// The MTU of the link's interface, if the interface exists.
fn link_mtu(link: &LinkPlan, monitor: &Monitor) -> Option<u32> {
    link.interface.as_deref().and_then(|name| monitor.interface(name)).map(|interface| interface.mtu)
}

fn link_config(link: &LinkPlan, monitor: &Monitor) -> LinkConfig {
    LinkConfig {
        security: link.security,
        priority: link.priority,
        role: link.role,
        tx_rate: link.tx_rate,
        rx_rate: link.rx_rate,
        // If it is not known, the kernel refuses larger datagrams, and so tells it.
        mtu: link_mtu(link, monitor).and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(u16::MAX),
        path: None,
        flows: link.flows,
        alternatives: Vec::new(),
    }
}

/// Whether a server may have an IPv6 address.
fn may_have_ipv6(hosts: &[Host]) -> bool {
    hosts.iter().any(|host| !matches!(host, Host::Address(IpAddr::V4(_))))
}

/// Bound to the link's source, or to any address of the families that the server may have.
fn spec(link: &LinkPlan, hosts: &[Host]) -> SocketSpec {
    let ipv6 = may_have_ipv6(hosts);
    let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    SocketSpec {
        label: link.name.clone(),
        bind: SocketAddr::new(link.source.unwrap_or(any), 0),
        interface: link.interface.clone(),
    }
}

/// A client, as the event loop drives it.
#[derive(Debug)]
struct ClientShell {
    /// What it runs on now.
    plan: ClientPlan,
    lines: Lines,
    comings: Comings,
    tunnel: Tunnel,
    caps: Caps,
    duties: Duties,
    /// The servers' names, as configured.
    hosts: Vec<String>,
    /// Where the servers are.
    directory: Directory,
    /// What [`Shell::descriptor`] is readable for.
    inputs: Poller,
    logger: EventLogger,
    /// `None`: all links are plain.
    identity: Option<Identity>,
    /// Why the server in use refused this client, if it did.
    refused: Option<&'static str>,
    revival: Revival,
    splitter: Splitter,
    capturing: Capturing,
    /// What happened, to be told.
    happened: VecDeque<Happening>,
}

impl ClientShell {
    fn new(
        plan: &ClientPlan,
        tunnel: Tunnel,
        (caps, splitter, capturing): (Caps, Splitter, Capturing),
        directory: Directory,
        now: Instant,
    ) -> Result<Self, RunError> {
        let hosts = directory.names();
        let inputs = Poller::new()?;
        if let Some(descriptor) = capturing.descriptor() {
            inputs.add(descriptor, 0, Interest::Readable)?;
        }
        let peer = hosts.first().cloned().unwrap_or_default();
        let links = plan.links.iter().map(|link| link.name.clone()).collect();
        let device = (tunnel.index(), plan.tunnel.interface.clone());
        let revival = Revival::new(&plan.links, plan.ports, device, now);
        let logger = EventLogger::new(peer, links);
        let (identity, refused) = (None, None);
        let (plan, lines, duties) = (plan.clone(), Lines::new(&plan.links), Duties::default());
        Ok(Self {
            plan,
            lines,
            comings: Comings::new(now),
            tunnel,
            caps,
            duties,
            hosts,
            directory,
            inputs,
            logger,
            identity,
            refused,
            revival,
            splitter,
            capturing,
            happened: VecDeque::new(),
        })
    }

    /// Later look-ups have no more rights than the process has now.
    fn renew_lookups(&mut self) -> io::Result<()> {
        self.directory.renew()?;
        self.inputs.add(&self.directory, 0, Interest::Readable)
    }

    /// Asks for names that are due, and tells the core of addresses that are new. Whether it did.
    fn tend_directory(&mut self, client: &mut Client, now: Instant) -> bool {
        let is_changed = self.directory.take_change();
        if self.directory.due().is_some_and(|due| due <= now) {
            self.directory.ask(now);
        }
        self.revival.set_unknown(self.directory.failure());
        if is_changed {
            // An interface may lead to the new addresses.
            self.comings.note(now);
            let plans = self.lines.plans();
            let paths = self.directory.paths(&plans, &|at| self.revival.port(at), client.active());
            paths.into_iter().enumerate().for_each(|(server, paths)| client.set_paths(server, paths, now));
        }
        is_changed
    }

    /// Brings what links are for to the core, which ignores what it knows.
    fn settle_duties(&self, client: &mut Client, now: Instant) {
        for (id, link) in self.lines.present() {
            client.set_link_role(id, self.duties.role(id, link, self.caps.is_used_up(id)), now);
            client.set_link_priority(id, self.duties.priority(id, link), now);
        }
    }

    /// Runs on another plan, as far as that can be while it runs.
    fn reload(&mut self, client: &mut Client, next: ClientPlan, now: Instant) -> Reloaded {
        let Outcome { plan, mut changed, at_next_start } = reload::client(&self.plan, next);
        let stays = |(id, before): (LinkId, &LinkPlan)| {
            let next = plan.links.iter().find(|link| is_same_line(link, before))?;
            Some((id, before.clone(), next.clone()))
        };
        let stay: Vec<_> = self.lines.of(Origin::File).filter_map(stays).collect();
        for (id, _, link) in stay.iter().filter(|(_, before, link)| link.cap != before.cap) {
            let carried = client.link_bytes(*id);
            self.caps.set((*id, &link.name), link.cap, carried);
        }
        let before = std::mem::replace(&mut self.plan, plan);
        if self.plan.run.sending != before.run.sending {
            client.set_sending(&self.plan.run.sending, now);
        }
        for (id, before, link) in &stay {
            let rates = |link: &LinkPlan| [link.tx_rate, link.rx_rate];
            if rates(link) != rates(before) {
                client.set_link_rates(*id, rates(link), now);
            }
            self.lines.change(*id, link);
        }
        // The others come and go.
        self.comings.note(now);
        self.splitter.set_choice(Choice::new(self.plan.split, self.plan.run.sending.rules.clone()));
        for id in self.duties.forget() {
            let name = self.logger.link_name(id.index());
            changed.push(format!("[[link]] \"{name}\": as the file says, no longer as set by hand"));
        }
        self.settle_duties(client, now);
        self.happened.push_back(reload::happening(&changed));
        Reloaded { changed, at_next_start, warnings: Vec::new() }
    }

    /// Makes a new key, which the server is shown from now on.
    fn rekey(&mut self, client: &mut Client, now: Instant) -> Result<Rekeying, String> {
        let identity = self.identity.as_mut().ok_or("all links are plain: there is no key")?;
        let next = identity.make_next().map_err(|error| error.to_string())?;
        let public_key = keys::show(&next.public());
        tracing::info!(public_key, "this client is to have a new key");
        client.rotate(next, now);
        Ok(Rekeying { public_key })
    }

    /// Uses a link for something else.
    fn order(
        &mut self,
        client: &mut Client,
        (name, order): (String, LinkOrder),
        now: Instant,
    ) -> Result<Ordered, String> {
        let Some((id, link)) = self.lines.present().find(|(_, link)| link.name == name) else {
            let names: Vec<&str> = self.lines.present().map(|(_, link)| link.name.as_str()).collect();
            return Err(format!("there is no link \"{name}\"; known: {}", names.join(", ")));
        };
        self.duties.order(id, link, order);
        let role = role_word(self.duties.role(id, link, self.caps.is_used_up(id)));
        let (priority, by_hand) = (self.duties.priority(id, link), self.duties.is_by_hand(id));
        tracing::info!(link = name, role, priority, by_hand, "set by hand");
        let text = format!("{name} is {role}, priority {priority}, by hand");
        self.happened.push_back(Happening::new(Kind::LinkByHand, text).of_link(&name));
        self.settle_duties(client, now);
        Ok(Ordered { name, role: role.to_owned(), priority, by_hand })
    }

    fn on_event(&mut self, event: &Event) {
        if let Event::ServerChanged { to, .. } = event
            && let Some(host) = self.hosts.get(*to)
        {
            self.logger.peer.clone_from(host);
            self.refused = None;
        }
        if let Event::Refused(refusal) = event {
            self.refused = Some(why(*refusal));
        } else if *event == Event::Closed(CloseReason::Expired) {
            self.refused = Some(why(Refusal::KeyExpired));
        } else if *event == Event::Closed(CloseReason::Revoked) {
            self.refused = Some(REVOKED);
        } else if *event == Event::Connected {
            self.refused = None;
        }
        if let Some(identity) = &mut self.identity {
            identity.on_event(event);
        }
        self.happened.extend(self.logger.on_event(event));
    }
}

impl Shell<Client> for ClientShell {
    fn handle_events(&mut self, client: &mut Client, now: Instant) -> bool {
        while let Some(event) = client.poll_event() {
            self.on_event(&event);
            self.revival.on_event(&event, client, now);
            let Some(session) = client.session() else { continue };
            if event == Event::Leased
                && let Some(lease) = session.lease()
            {
                self.tunnel.lease(lease);
                self.capturing.route(&lease.routes);
            }
            if matches!(event, Event::Leased | Event::TunnelMtu(_)) {
                self.tunnel.resize(session.lease().and_then(|lease| lease.mtu), session.tunnel_mtu());
            }
        }
        let is_up = client.session().is_some_and(bonding_proto::Session::is_connected);
        self.capturing.follow(is_up, self.tunnel.addresses());
        self.directory.follow(is_up, self.revival.links_down());
        if let Some(identity) = &mut self.identity {
            identity.follow(is_up, now);
        }
        let changed = self.caps.review(client, now);
        self.happened.extend(self.caps.take_happened());
        if changed {
            self.settle_duties(client, now);
        }
        changed
    }

    fn handle_command(
        &mut self,
        client: &mut Client,
        _: &mut Sockets,
        command: Command,
        now: Instant,
    ) -> Result<Reply, String> {
        match command {
            Command::Flows { wanted, .. } => {
                let mut top = Top::new(wanted);
                let namer = Named { shell: self, takes_streams: client.stream_session().is_some() };
                if let Some(session) = client.session() {
                    session.each_flow(now, &mut |figures| top.offer(&figures, &namer));
                }
                Ok(Reply::Flows(FlowsPage { top, next: None }))
            }
            Command::Rekey => self.rekey(client, now).map(Reply::Rekeying),
            Command::Reload(NewPlan::Client(plan)) => Ok(Reply::Reloaded(self.reload(client, *plan, now))),
            Command::Reload(NewPlan::Server(_)) => Err("that is a server's plan".to_owned()),
            Command::Link { name, order } => self.order(client, (name, order), now).map(Reply::Ordered),
            Command::Invite { .. } | Command::Clients { .. } | Command::Expire { .. } | Command::Revoke { .. } => {
                Err("this is the client's socket; invitations and clients are the server's: name its socket with \
                     --socket PATH"
                    .to_owned())
            }
        }
    }

    fn poll_happening(&mut self) -> Option<Happening> {
        self.happened.pop_front()
    }

    fn status_interval(&self) -> Duration {
        self.plan.run.status_interval
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.inputs.as_fd())
    }

    fn handle_ready(&mut self, _: &mut Sockets) {
        self.capturing.handle_ready();
        self.directory.handle_ready();
    }

    fn handle_interfaces(&mut self, monitor: &Monitor, now: Instant) {
        self.tunnel.follow(monitor, now);
        self.directory.handle_interfaces(&self.lines.plans(), monitor);
    }

    fn due_in(&self) -> Option<Duration> {
        self.capturing.due_in()
    }

    fn handle_due(&mut self) {
        self.capturing.handle_due();
    }

    fn streams_descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.splitter.descriptor())
    }

    fn attend(&mut self, client: &mut Client, device: &mut dyn Device, ready: bool, now: Instant) -> bool {
        self.splitter.attend(client, device, self.tunnel.addresses(), ready, now)
    }

    fn tend_at(&self) -> Option<Instant> {
        let identity = self.identity.as_ref().and_then(Identity::due);
        let own = [identity, self.tunnel.due(), self.directory.due()];
        [self.revival.due(), self.splitter.due()].into_iter().chain(own).flatten().min()
    }

    fn tend(&mut self, client: &mut Client, sockets: &mut Sockets, poller: &Poller, now: Instant) -> bool {
        self.tunnel.mend(now);
        let mut is_changed = self.tend_directory(client, now);
        if let Some((preshared, run)) = self.identity.as_mut().and_then(|identity| identity.look(now)) {
            client.enrol_anew(&preshared, run, now);
            is_changed = true;
        }
        self.revival.tend(client, sockets, poller, now) || is_changed
    }

    fn note_interfaces(&mut self, now: Instant) {
        self.comings.note(now);
    }

    fn links_due(&self) -> Option<Instant> {
        self.comings.due()
    }

    fn settle_links(
        &mut self,
        client: &mut Client,
        sockets: &mut Sockets,
        (monitor, poller): (&Monitor, &Poller),
        now: Instant,
    ) -> bool {
        let mut parts = Parts {
            client,
            sockets,
            monitor,
            poller,
            lines: &mut self.lines,
            directory: &mut self.directory,
            caps: &mut self.caps,
            duties: &mut self.duties,
            revival: &mut self.revival,
            logger: &mut self.logger,
            capturing: &mut self.capturing,
        };
        self.comings.settle(&self.plan, &mut parts, now)
    }

    fn tell_names(&self, name: &mut dyn FnMut(u16, Option<LinkId>, &str)) {
        for (session, host) in (0..).zip(&self.hosts) {
            name(session, None, host);
            for (id, link) in self.lines.all() {
                name(session, Some(id), &link.name);
            }
        }
    }

    fn snapshot(&self, client: &Client, sockets: &Sockets, now: Instant) -> Snapshot {
        let mut sessions = Vec::new();
        if let Some(session) = client.session() {
            let mut stats = session.stats(now);
            sockets.add_discards(&mut stats.discards);
            let remote =
                |id: u8| stats.links.get(usize::from(id)).and_then(|link| link.path).map(|path| path.remote);
            let label = |(id, link): (LinkId, &LinkPlan)| LinkLabel {
                name: link.name.clone(),
                interface: link.interface.clone(),
                local: sockets.address(SocketId(id.0), remote(id.0)),
                cap: self.caps.of(id),
                by_hand: self.duties.is_by_hand(id),
                trouble: self.revival.sentence(id, client.has_path(id), sockets, now),
            };
            sessions.push(SessionSnapshot {
                name: self.logger.peer.clone(),
                since: self.logger.since,
                links: self.lines.all().map(label).collect(),
                cipher: session.cipher(),
                hybrid: session.is_hybrid(),
                rekeys: session.rekeys(),
                refused: self.refused,
                stats,
            });
        }
        Snapshot {
            role: status::Role::Client,
            policy: self.plan.run.sending.policy,
            key: self.identity.as_ref().map(Identity::status),
            routing: self.capturing.status(),
            discovery: self.comings.status(&self.plan),
            interface: self.plan.tunnel.interface.clone(),
            addresses: self.tunnel.addresses().to_vec(),
            mtu: self.tunnel.mtu(),
            sessions,
            discards: client.discards().clone(),
            as_packets: self.splitter.as_packets(),
            compression: self.splitter.figures(),
            io: Io::default(),
        }
    }
}

/// What a client adds to the figures of its flows.
#[derive(Debug)]
struct Named<'a> {
    shell: &'a ClientShell,
    takes_streams: bool,
}

impl Namer for Named<'_> {
    fn role(&self) -> status::Role {
        status::Role::Client
    }

    fn client(&self) -> Option<&str> {
        None
    }

    fn link(&self, link: LinkId) -> String {
        self.shell.logger.link_name(link.index())
    }

    fn packets_by(&self, header: &InnerHeader) -> String {
        self.shell.splitter.packets_by(header, self.takes_streams)
    }
}
