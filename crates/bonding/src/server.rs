//! Runs a server: its TUN device, a socket for each port, an endpoint with a session for each
//! client, forwarding and NAT.

mod dialer;
mod expiry;
mod ground;
mod listing;
mod place;
mod roster;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, SystemTime};

use bonding_os::nat::Nat;
use bonding_os::netlink::Requests;
use bonding_os::poll::Poller;
use bonding_os::privileges::Rights;
use bonding_os::throttle::Throttle;
use bonding_proto::config::{EndpointConfig, Prefix, ServerSealing};
use bonding_proto::crypto::keys::PublicKey;
use bonding_proto::endpoint::{Endpoint, Enrolment, EnrolmentAnswer, SessionId};
use bonding_proto::handshake::{Claim, Refusal};
use bonding_proto::stats::SessionStats;
use bonding_proto::trace::format::Side;
use bonding_proto::{Instant, LinkId, Session};

use self::dialer::Dialer;
use self::expiry::Expiries;
use self::ground::{exceptions, forward, identity, sealed_mtu, spec, tunnel_mtu};
use self::listing::{Named, known_client};
pub(crate) use self::roster::check_taken;
use self::roster::{Entry, Refused, Roster};
use crate::engine::clock::Clock;
use crate::engine::command::{
    ClientsPage, Command, Expiring, FlowsPage, ListPlace, NextPage, Reloaded, Reply, Revoked,
};
use crate::engine::event_loop::{Device, Engine, Parts, Shell};
use crate::engine::events::EventLogger;
use crate::engine::plan::{PeerPlan, ServerPlan};
use crate::engine::reload::{self, NewPlan, Outcome};
use crate::engine::setup::{self, Ground};
use crate::engine::sockets::{Homes, Sockets};
use crate::engine::{RunError, Service, cipher};
use crate::events::{Happening, Kind};
use crate::flows::{Top, Wanted};
use crate::state::keys;
use crate::state::register::EnrolError;
use crate::status::{self, Io, LinkLabel, SessionSnapshot, Snapshot};

/// Clients of one page of the list. Chosen: a page takes a fraction of a millisecond.
const PAGE_CLIENTS: usize = 64;
/// Flows after which a page of sessions is full. Chosen: a session has at most twice as many.
const PAGE_FLOWS: u64 = 1_024;

/// A server needs these for its whole life.
pub const RIGHTS: Rights = Rights::Network;

/// Runs until SIGINT or SIGTERM; all changes to the machine are undone when this returns.
pub fn run(plan: &ServerPlan, service: &mut dyn Service) -> Result<(), RunError> {
    let Ground { signals, journal, monitor, seed, epoch } =
        Ground::prepare(&plan.run.state_file, RIGHTS, None)?;
    let identity = identity(&plan.private_key_file)?;
    let public_key = identity.public();
    let (roster, entries) = Roster::open(plan, public_key)?;
    let poller = Poller::new()?;
    let mut sockets = Sockets::new(plan.ports.iter().map(|port| spec(plan, port)));
    sockets.open_all(&poller).map_err(|(address, source)| RunError::Listen { address, source })?;
    let tun = setup::tun(&plan.tunnel, tunnel_mtu(plan, &entries, &monitor))?;
    let enrolled = entries.iter().flat_map(|entry| entry.config.prefixes.iter().copied());
    let prefixes: BTreeSet<Prefix> = enrolled.chain(roster::prefixes(plan)).collect();
    let prefixes: Vec<Prefix> = prefixes.into_iter().collect();
    setup::routes(tun.index(), &plan.tunnel.addresses, &prefixes)?;
    let nat = forward(journal, plan, &entries, monitor)?;
    let clock = Clock::start();
    let config = EndpointConfig {
        clients: Vec::new(),
        policy: plan.run.sending.policy,
        heartbeat_interval: plan.run.heartbeat_interval,
        mtu: tun.mtu(),
        mss_clamp: plan.run.mss_clamp,
        recovery: plan.run.sending.recovery,
        rules: plan.run.sending.rules.clone(),
        seed,
        epoch,
        sealing: Some(ServerSealing {
            identity,
            aes_fast: cipher::aes_is_fast(),
            entropy: setup::entropy()?,
        }),
    };
    let mut endpoint = Endpoint::new(&config, clock.now());
    // Its seed would give every key of this run.
    drop(config);
    let tunnel = Tunnel { index: tun.index(), mtu: tun.mtu(), fixed: plan.tunnel.mtu.is_some() };
    // Without NAT the host's rules say where packets go; a connection of this host passes by them.
    let dialer = plan.nat.is_some().then(|| Dialer::new(plan.run.compression)).transpose()?;
    let mut shell = ServerShell::new(plan, roster, tunnel, (nat, dialer));
    shell.settle_homes(&mut sockets);
    tracing::info!(address = %plan.listen, ports = %plan.ports, clients = entries.len(), "listening");
    for entry in entries {
        shell.admit(&mut endpoint, entry, clock.now());
    }
    endpoint.set_streams(shell.takes_streams(), clock.now());
    shell.tell_invitations(&mut endpoint);
    shell.expire_due(&mut endpoint, clock.now());
    let trace = setup::trace(&plan.run, Side::Server, clock)?;
    setup::reduce_rights(RIGHTS)?;
    shell.roster.warn_if_read_only();
    let parts =
        Parts { machine: endpoint, device: tun, sockets, monitor: None, signals, poller, clock, trace };
    Ok(Engine::new(parts)?.run(&mut shell, service)?)
}

/// The TUN device, as far as it changes while the server runs.
#[derive(Debug)]
struct Tunnel {
    index: u32,
    mtu: u16,
    /// The configuration sets the MTU.
    fixed: bool,
}

/// A client while the server runs.
#[derive(Debug)]
struct Member {
    entry: Entry,
    logger: EventLogger,
    /// Its key has expired: it may not connect.
    expired: bool,
}

/// A server, as the event loop drives it.
#[derive(Debug)]
struct ServerShell {
    /// What it runs on now.
    plan: ServerPlan,
    roster: Roster,
    tunnel: Tunnel,
    nat: Nat,
    /// Where clients' streams go; `None`: the host's rules say where packets go, and streams would
    /// pass by them.
    dialer: Option<Dialer>,
    homes: Homes,
    members: BTreeMap<SessionId, Member>,
    /// The members in the order of the list: configured ones first, then by their enrolment.
    list: BTreeSet<ListPlace>,
    expiries: Expiries,
    refusal_log: Throttle,
    changes_log: Throttle,
    /// What happened, to be told.
    happened: VecDeque<Happening>,
}

impl ServerShell {
    fn new(plan: &ServerPlan, roster: Roster, tunnel: Tunnel, (nat, dialer): (Nat, Option<Dialer>)) -> Self {
        let log = || Throttle::new(Duration::from_secs(10));
        Self {
            plan: plan.clone(),
            roster,
            tunnel,
            nat,
            dialer,
            homes: Homes::default(),
            members: BTreeMap::new(),
            list: BTreeSet::new(),
            expiries: Expiries::default(),
            refusal_log: log(),
            changes_log: log(),
            happened: VecDeque::new(),
        }
    }

    /// Finds the interfaces of plain links' peers, and tells of peers that have none.
    fn settle_homes(&mut self, sockets: &mut Sockets) {
        let list = self.plan.clients.iter().flat_map(|client| &client.homes);
        let homes = Homes::new(list, self.nat.monitor());
        if homes == self.homes {
            return;
        }
        for remote in homes.lost() {
            tracing::warn!(
                %remote,
                "no interface here has this plain link's peer on its network: name the interface by which its \
                 datagrams come in, `interface` in [[client.link]]"
            );
        }
        self.homes = homes.clone();
        sockets.set_homes(homes);
    }

    /// Lets a client connect.
    fn admit(&mut self, endpoint: &mut Endpoint, entry: Entry, now: Instant) {
        match endpoint.add_client(entry.config.clone(), now) {
            Some(id) => self.note(id, entry),
            None => {
                tracing::error!(client = entry.config.name, "the client cannot connect: too many sessions")
            }
        }
    }

    fn note(&mut self, id: SessionId, entry: Entry) {
        let known = self.forget(id);
        self.list.insert((entry.enrolled, id));
        self.expiries.replace(id, None, entry.expires);
        let logger = || EventLogger::new(entry.config.name.clone(), entry.links.clone());
        let (mut logger, expired) =
            known.map_or_else(|| (logger(), false), |member| (member.logger, member.expired));
        logger.links.clone_from(&entry.links);
        self.members.insert(id, Member { entry, logger, expired });
    }

    fn forget(&mut self, id: SessionId) -> Option<Member> {
        let member = self.members.remove(&id)?;
        self.list.remove(&(member.entry.enrolled, id));
        self.expiries.replace(id, member.entry.expires, None);
        Some(member)
    }

    /// Clients came or went: the table lets each one reach what it may.
    fn settle_reach(&mut self) {
        let exceptions = exceptions(self.members.values().map(|member| &member.entry));
        let set = exceptions.map_err(|error| error.to_string()).and_then(|exceptions| {
            self.nat.set_reach((self.plan.reach, exceptions)).map_err(|error| error.to_string())
        });
        if let Err(error) = set {
            tracing::error!(error, "clients reach what others may: the rules cannot be changed");
        }
    }

    fn find(&self, is_wanted: impl Fn(&Entry) -> bool) -> Option<SessionId> {
        self.members.iter().find(|(_, member)| is_wanted(&member.entry)).map(|(id, _)| *id)
    }

    /// A client shows an invitation, or a new key. The register is on the disk before the answer
    /// leaves.
    fn decide(&mut self, endpoint: &mut Endpoint, enrolment: &Enrolment, now: Instant) {
        let Enrolment { id, public_key, claim, remote } = enrolment;
        let (granted, done) = match claim {
            Claim::Invitation { id, proof } => {
                (self.roster.enrol(*public_key, (*id, *proof), SystemTime::now()), "enrolled a client")
            }
            Claim::Rotation { old, .. } => (self.rotate(*old, *public_key), "a client has a new key"),
        };
        let entry = match granted {
            Ok(entry) => entry,
            Err(refused) => {
                let error = &refused.error;
                if let Some(more) = self.refusal_log.pass() {
                    tracing::warn!(%remote, %error, more, "did not enrol a client's key");
                    let text = format!("did not enrol a key from {remote}: {error}");
                    self.happened.push_back(Happening::new(Kind::ClientRefused, text));
                }
                endpoint.answer_enrolment(*id, refusal(refused), now);
                return;
            }
        };
        let answer = EnrolmentAnswer::Welcome(entry.config.clone());
        if let Some(session) = endpoint.answer_enrolment(*id, answer, now) {
            let name = &entry.config.name;
            tracing::info!(client = name, %remote, public_key = keys::show(public_key), "{done}");
            tracing::debug!(client = name, addresses = ?entry.addresses, "its addresses in the tunnel");
            let text = format!("{done}: {name}, from {remote}");
            let is_new = matches!(claim, Claim::Invitation { .. });
            let kind = if is_new { Kind::ClientJoined } else { Kind::KeyReplaced };
            self.happened.push_back(Happening::new(kind, text).of_client(name));
            self.note(session, entry);
            self.settle_reach();
            self.make_room_for_sealing();
        }
    }

    /// A client wants a new key in the place of its old one, and has proven the old one.
    fn rotate(&mut self, old: PublicKey, new: PublicKey) -> Result<Entry, Refused> {
        self.roster.rotate(old, new, SystemTime::now()).map_err(|error| {
            let id = self.find(|entry| entry.config.public_key == Some(old));
            let entry = id.and_then(|id| self.members.get(&id)).map(|member| &member.entry);
            let preshared = entry.and_then(|entry| entry.config.preshared.clone());
            let configured = entry.filter(|entry| entry.enrolled.is_none());
            let error = configured.map_or(error, |entry| EnrolError::Configured(entry.config.name.clone()));
            Refused { error, preshared }
        })
    }

    /// Ends the sessions of clients whose keys have expired.
    fn expire_due(&mut self, endpoint: &mut Endpoint, now: Instant) -> bool {
        let expired = self.expiries.take_expired(SystemTime::now(), now);
        for id in &expired {
            let Some(member) = self.members.get_mut(id) else { continue };
            member.expired = true;
            let name = &member.entry.config.name;
            tracing::warn!(client = name, "the client's key has expired");
            let text = format!("{name}'s key has expired");
            self.happened.push_back(Happening::new(Kind::ClientExpired, text).of_client(name));
            endpoint.expire_client(*id, now);
        }
        !expired.is_empty()
    }

    /// Sets when a client's key expires.
    fn expire(
        &mut self,
        endpoint: &mut Endpoint,
        name: &str,
        after: Option<Duration>,
        now: Instant,
    ) -> Result<Expiring, String> {
        let entry = self.roster.expire(name, after, SystemTime::now()).map_err(|error| error.to_string())?;
        let expires = entry.expires.map(roster::time);
        tracing::info!(client = name, expires, "the client's key expires then");
        if let Some(id) = self.find(|entry| entry.enrolled.is_some() && entry.config.name == name) {
            if let Some(member) = self.members.get_mut(&id) {
                member.expired = false;
            }
            endpoint.renew_client(id);
            self.note(id, entry);
            self.expire_due(endpoint, now);
        }
        Ok(Expiring { name: name.to_owned(), expires })
    }

    /// Without any invitation a token need not be looked up.
    fn tell_invitations(&self, endpoint: &mut Endpoint) {
        endpoint.set_enrolling(self.roster.has_invitations(SystemTime::now()));
    }

    /// A tunnel that was made for plain links only becomes narrower when the first sealed client
    /// comes.
    fn make_room_for_sealing(&mut self) {
        let mtu = sealed_mtu(&self.plan);
        if self.tunnel.fixed || self.tunnel.mtu <= mtu {
            return;
        }
        let set =
            Requests::open().and_then(|mut requests| requests.set_mtu(self.tunnel.index, u32::from(mtu)));
        match set {
            Ok(()) => self.tunnel.mtu = mtu,
            Err(error) => {
                tracing::warn!(%error, "the tunnel keeps an MTU that is too large for sealed links")
            }
        }
    }

    fn revoke(&mut self, endpoint: &mut Endpoint, name: String, now: Instant) -> Result<Revoked, String> {
        let key = self.roster.revoke(&name, SystemTime::now()).map_err(|error| error.to_string())?;
        if let Some(key) = key {
            if let Some(id) = self.find(|entry| entry.config.public_key == Some(key)) {
                endpoint.remove_client(id, now);
                self.forget(id);
                self.settle_reach();
            }
            tracing::info!(client = name, "revoked a client");
            let text = format!("{name} was revoked");
            self.happened.push_back(Happening::new(Kind::ClientRevoked, text).of_client(&name));
        }
        Ok(Revoked { name, enrolled: key.is_some() })
    }

    /// Whether clients may open streams.
    fn takes_streams(&self) -> bool {
        self.dialer.is_some() && self.plan.takes_streams
    }

    /// Runs on another plan, as far as that can be while it runs.
    fn reload(
        &mut self,
        endpoint: &mut Endpoint,
        sockets: &mut Sockets,
        next: ServerPlan,
        now: Instant,
    ) -> Result<Reloaded, String> {
        let Outcome { plan, changed, at_next_start } = reload::server(&self.plan, next);
        // First what may fail, so that nothing is changed then.
        let roster = self.roster.next(&plan)?;
        let exceptions = exceptions(roster.entries.iter().chain(&roster.enrolled));
        let exceptions = exceptions.map_err(|error| error.to_string())?;
        let prefixes = |plan| roster::prefixes(plan).collect::<BTreeSet<_>>();
        let (next, known) = (prefixes(&plan), prefixes(&self.plan));
        let new: Vec<Prefix> = next.difference(&known).copied().collect();
        let gone: Vec<Prefix> = known.difference(&next).copied().collect();
        setup::routes(self.tunnel.index, &plan.tunnel.addresses, &new).map_err(|error| error.to_string())?;
        self.nat.set_reach((plan.reach, exceptions)).map_err(|error| error.to_string())?;
        let (entries, enrolled) = self.roster.adopt(roster);
        let before = std::mem::replace(&mut self.plan, plan);
        if self.plan.run.sending != before.run.sending {
            endpoint.set_sending(&self.plan.run.sending, now);
        }
        endpoint.set_streams(self.takes_streams(), now);
        self.replace_clients(endpoint, &before.clients, entries, now);
        self.replace_enrolled(endpoint, enrolled, now);
        self.settle_homes(sockets);
        if let Err(error) = setup::remove_routes(self.tunnel.index, &gone) {
            tracing::warn!(%error, "a route to what was behind a client stays");
        }
        self.happened.push_back(reload::happening(&changed));
        Ok(Reloaded { changed, at_next_start, warnings: Vec::new() })
    }

    /// The configuration has these clients from now on, and had those `before`.
    fn replace_clients(
        &mut self,
        endpoint: &mut Endpoint,
        before: &[PeerPlan],
        entries: Vec<Entry>,
        now: Instant,
    ) {
        let id_of = |shell: &Self, name: &str| {
            shell.find(|entry| entry.enrolled.is_none() && entry.config.name == name)
        };
        let goes_on = |shell: &Self, old: &PeerPlan| {
            let next = shell.plan.clients.iter().find(|next| next.config.name == old.config.name);
            next.filter(|next| reload::keeps_session(old, next)).cloned()
        };
        for old in before {
            let Some(id) = id_of(self, &old.config.name) else { continue };
            match goes_on(self, old) {
                None => {
                    let key = old.config.public_key;
                    if self.plan.clients.iter().any(|next| next.config.public_key == key) {
                        endpoint.dismiss_client(id, now);
                    } else {
                        endpoint.remove_client(id, now);
                    }
                    self.forget(id);
                }
                Some(next) if reload::rates(old) != reload::rates(&next) => {
                    endpoint.set_client_rates(id, &reload::rates(&next), now);
                }
                Some(_) => {}
            }
        }
        for entry in entries {
            match id_of(self, &entry.config.name) {
                Some(id) => self.note(id, entry),
                None => {
                    self.admit(endpoint, entry, now);
                    self.make_room_for_sealing();
                }
            }
        }
    }

    /// The configuration says something else of these enrolled clients. A session goes on if its
    /// routes do.
    fn replace_enrolled(&mut self, endpoint: &mut Endpoint, entries: Vec<Entry>, now: Instant) {
        for entry in entries {
            let (name, prefixes) = (&entry.config.name, &entry.config.prefixes);
            let id = self.find(|known| known.enrolled.is_some() && known.config.name == *name);
            let known = id.and_then(|id| Some((id, self.members.get(&id)?)));
            match known {
                Some((id, member)) if member.entry.config.prefixes != *prefixes => {
                    endpoint.dismiss_client(id, now);
                    self.forget(id);
                    self.admit(endpoint, entry, now);
                }
                Some((id, _)) => self.note(id, entry),
                None => {}
            }
        }
        self.expire_due(endpoint, now);
    }

    /// The clients behind a place of the list.
    fn page(&self, endpoint: &Endpoint, after: Option<ListPlace>, now: Instant) -> ClientsPage {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let places = || self.list.range((start, Bound::Unbounded)).take(PAGE_CLIENTS);
        let usual = self.plan.reach;
        let known =
            |(_, id): &ListPlace| Some(known_client(self.members.get(id)?, usual, endpoint, *id, now));
        let next = match places().last() {
            Some(last) => NextPage::After(*last),
            None => NextPage::End(self.roster.open_invitations(SystemTime::now())),
        };
        ClientsPage { clients: places().filter_map(known).collect(), next }
    }

    /// The flows of the sessions behind one.
    fn flows(
        &self,
        endpoint: &Endpoint,
        (after, wanted): (Option<SessionId>, Wanted),
        now: Instant,
    ) -> FlowsPage {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut top = Top::new(wanted);
        let mut last = None;
        for (number, (id, member)) in self.members.range((start, Bound::Unbounded)).enumerate() {
            if number == PAGE_CLIENTS || top.active() >= PAGE_FLOWS {
                return FlowsPage { top, next: last };
            }
            let namer = Named { logger: &member.logger, takes_streams: self.takes_streams() };
            if let Some(session) = endpoint.session(*id) {
                session.each_flow(now, &mut |figures| top.offer(&figures, &namer));
            }
            last = Some(*id);
        }
        FlowsPage { top, next: None }
    }

    fn session(&self, endpoint: &Endpoint, id: SessionId, stats: SessionStats) -> Option<SessionSnapshot> {
        let logger = &self.members.get(&id)?.logger;
        let label = |at| LinkLabel {
            name: logger.link_name(at),
            trouble: logger.trouble(at),
            ..LinkLabel::default()
        };
        Some(SessionSnapshot {
            name: logger.peer.clone(),
            since: logger.since,
            links: (0..stats.links.len()).map(label).collect(),
            cipher: endpoint.session(id).and_then(|session| session.cipher()),
            hybrid: endpoint.session(id).is_some_and(Session::is_hybrid),
            rekeys: endpoint.session(id).map_or(0, |session| session.rekeys()),
            refused: None,
            stats,
        })
    }
}

/// The answer to a client whose key is not enrolled.
fn refusal(refused: Refused) -> EnrolmentAnswer {
    let refusal = match refused.error {
        EnrolError::Unknown => return EnrolmentAnswer::Ignore,
        EnrolError::Used(_) => Refusal::Used,
        EnrolError::Expired(_) => Refusal::Expired,
        EnrolError::KeyExpired(_) => Refusal::KeyExpired,
        EnrolError::Enrolled(_)
        | EnrolError::NameTaken(_)
        | EnrolError::Configured(_)
        | EnrolError::KeyTaken(_)
        | EnrolError::Exhausted(_)
        | EnrolError::TooMany
        | EnrolError::State(_) => Refusal::Refused,
    };
    EnrolmentAnswer::Refuse(refusal, refused.preshared)
}

impl Shell<Endpoint> for ServerShell {
    fn handle_events(&mut self, endpoint: &mut Endpoint, now: Instant) -> bool {
        let mut given = false;
        while let Some(enrolment) = endpoint.poll_enrolment() {
            self.decide(endpoint, &enrolment, now);
            self.tell_invitations(endpoint);
            given = true;
        }
        while let Some((id, event)) = endpoint.poll_event() {
            if let Some(member) = self.members.get_mut(&id)
                && let Some(happening) = member.logger.on_event(&event)
            {
                self.happened.push_back(happening.of_client(&member.logger.peer));
            }
        }
        given
    }

    fn handle_command(
        &mut self,
        endpoint: &mut Endpoint,
        sockets: &mut Sockets,
        command: Command,
        now: Instant,
    ) -> Result<Reply, String> {
        match command {
            Command::Reload(NewPlan::Server(plan)) => {
                self.reload(endpoint, sockets, *plan, now).map(Reply::Reloaded)
            }
            Command::Reload(NewPlan::Client(_)) => Err("that is a client's plan".to_owned()),
            Command::Link { .. } => {
                Err("this is the server's socket; links are the client's: name its socket with --socket PATH"
                    .to_owned())
            }
            Command::Invite { name, hosts, ports } => {
                let invited = self.roster.invite(&name, hosts, ports, SystemTime::now());
                self.tell_invitations(endpoint);
                invited.map(Reply::Invited)
            }
            Command::Clients { after } => Ok(Reply::Clients(self.page(endpoint, after, now))),
            Command::Flows { after, wanted } => Ok(Reply::Flows(self.flows(endpoint, (after, wanted), now))),
            Command::Revoke { name } => self.revoke(endpoint, name, now).map(Reply::Revoked),
            Command::Expire { name, after } => self.expire(endpoint, &name, after, now).map(Reply::Expiring),
            Command::Rekey => Err(
                "this is the server's socket; a client makes a new key: name its socket with --socket PATH"
                    .to_owned(),
            ),
        }
    }

    fn poll_happening(&mut self) -> Option<Happening> {
        self.happened.pop_front()
    }

    fn status_interval(&self) -> Duration {
        self.plan.run.status_interval
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.nat.as_fd())
    }

    fn handle_ready(&mut self, sockets: &mut Sockets) {
        if let Err(error) = self.nat.handle_ready()
            && let Some(more) = self.changes_log.pass()
        {
            tracing::warn!(%error, more, "cannot follow the changes of interfaces and firewall");
        }
        self.settle_homes(sockets);
    }

    fn due_in(&self) -> Option<Duration> {
        self.nat.due_in()
    }

    fn streams_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.dialer.as_ref().map(Dialer::descriptor)
    }

    fn attend(
        &mut self,
        endpoint: &mut Endpoint,
        _device: &mut dyn Device,
        ready: bool,
        now: Instant,
    ) -> bool {
        let Some(dialer) = &mut self.dialer else { return false };
        let (nat, members, usual) = (&self.nat, &self.members, self.plan.reach);
        let permits = |session: u16, address| {
            let member = members.get(&SessionId(session));
            let reach = member.map(|member| member.entry.reach.unwrap_or(usual)).unwrap_or_default();
            nat.permits(address, reach)
        };
        let any = dialer.handle_events(endpoint, permits, now);
        // After the events: what is overdue may be over by now.
        let given_up = dialer.handle_due(endpoint, now);
        (ready && dialer.handle_ready(endpoint, now)) || any || given_up
    }

    fn tend_at(&self) -> Option<Instant> {
        let connecting = self.dialer.as_ref().and_then(Dialer::due);
        [self.expiries.look_at(), connecting].into_iter().flatten().min()
    }

    fn tend(&mut self, endpoint: &mut Endpoint, _: &mut Sockets, _: &Poller, now: Instant) -> bool {
        self.expire_due(endpoint, now)
    }

    fn handle_due(&mut self) {
        self.nat.look();
    }

    fn tell_names(&self, name: &mut dyn FnMut(u16, Option<LinkId>, &str)) {
        for (id, member) in &self.members {
            name(id.0, None, &member.logger.peer);
            for (number, link) in (0..u8::MAX).zip(&member.logger.links) {
                name(id.0, Some(LinkId(number)), link);
            }
        }
    }

    fn snapshot(&self, endpoint: &Endpoint, sockets: &Sockets, now: Instant) -> Snapshot {
        let sessions = endpoint.stats(now).into_iter();
        let mut discards = endpoint.discards().clone();
        sockets.add_discards(&mut discards);
        Snapshot {
            role: status::Role::Server,
            policy: self.plan.run.sending.policy,
            key: None,
            routing: None,
            discovery: None,
            interface: self.plan.tunnel.interface.clone(),
            addresses: self.plan.tunnel.addresses.clone(),
            mtu: self.tunnel.mtu,
            sessions: sessions.filter_map(|(id, stats)| self.session(endpoint, id, stats)).collect(),
            discards,
            as_packets: self.dialer.as_ref().map(Dialer::as_packets).unwrap_or_default(),
            compression: self.dialer.as_ref().map(Dialer::figures).unwrap_or_default(),
            io: Io::default(),
        }
    }
}
