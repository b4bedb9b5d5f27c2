//! Runs a client: its TUN device, one socket for each link, one session.
//!
//! Nothing about a link is fatal: an interface that is not there is waited for, a name that cannot be looked up is asked
//! for again. Missing rights, a taken device and a second instance are fatal, with a message that says so.

mod resolve;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bonding_os::monitor::Monitor;
use bonding_os::poll::{Interest, Poller};
use bonding_os::signals::Signals;
use bonding_proto::config::{LinkConfig, Role, Security, SessionConfig};
use bonding_proto::discard::DiscardCounts;
use bonding_proto::event::LinkEvent;
use bonding_proto::{Instant, LinkId, Path, Session, SocketId};

use crate::engine::clock::Clock;
use crate::engine::event_loop::{Engine, Parts, Shell};
use crate::engine::events::Journalist;
use crate::engine::plan::{ClientPlan, LinkPlan};
use crate::engine::setup::{self, Ground};
use crate::engine::sockets::{SocketSpec, Sockets};
use crate::engine::{RunError, Service};
use crate::status::{self, LinkLabel, SessionSnapshot, Snapshot};

/// How long to wait before names are looked up again.
const RESOLVE_RETRY: Duration = Duration::from_secs(2);

/// Runs until SIGINT or SIGTERM; whatever was changed on the machine is undone when this returns.
pub fn run(plan: &ClientPlan, service: &mut dyn Service) -> Result<(), RunError> {
    let Ground { mut signals, journal: _journal, monitor, seed, epoch } =
        Ground::prepare(&plan.run.state_file)?;
    let Some(remotes) = remotes(plan, &monitor, &mut signals)? else { return Ok(()) };
    let mtu = tunnel_mtu(plan, &remotes, &monitor);
    let tun = setup::tun(&plan.tunnel, mtu)?;
    let clock = Clock::start();
    let config = SessionConfig {
        role: Role::Client,
        links: link_configs(&plan.links, &remotes),
        policy: plan.run.policy,
        heartbeat_interval: plan.run.heartbeat_interval,
        mtu: tun.mtu(),
        seed,
        epoch,
        sealing: None,
    };
    let machine = Session::new(config, clock.now());
    let poller = Poller::new()?;
    let mut sockets = Sockets::new(plan.links.iter().zip(&remotes).map(|(link, remote)| spec(link, *remote)));
    let mut shell = ClientShell::new(plan, tun.mtu());
    let mut machine = machine;
    for (socket, event) in sockets.refresh(&monitor, &poller) {
        shell.on_socket_event(&mut machine, socket, event, clock.now());
    }
    setup::reduce_rights()?;
    let parts = Parts {
        machine,
        device: tun,
        sockets,
        monitor: Some(monitor),
        signals,
        poller,
        clock,
        status_interval: plan.run.status_interval,
    };
    Ok(Engine::new(parts)?.run(&mut shell, service)?)
}

/// The server's address for each link. Asks until there is one; `None`: a signal came first.
fn remotes(
    plan: &ClientPlan,
    monitor: &Monitor,
    signals: &mut Signals,
) -> Result<Option<Vec<SocketAddr>>, RunError> {
    let mut poller = Poller::new()?;
    poller.add(&*signals, 0, Interest::Readable)?;
    let mut ready = Vec::new();
    let mut complained = false;
    loop {
        let remotes = resolve::candidates(&plan.hosts)
            .and_then(|candidates| resolve::choose(&candidates, &plan.links, monitor));
        match remotes {
            Ok(remotes) => return Ok(Some(remotes)),
            Err(error) if !complained => {
                tracing::warn!(%error, "cannot find the server yet; trying again");
                complained = true;
            }
            Err(_) => {}
        }
        poller.wait(&mut ready, Some(RESOLVE_RETRY))?;
        signals.poll_signal();
        if signals.terminating() {
            return Ok(None);
        }
    }
}

fn tunnel_mtu(plan: &ClientPlan, remotes: &[SocketAddr], monitor: &Monitor) -> u16 {
    let links = plan.links.iter().zip(remotes).map(|(link, remote)| {
        let interface = link.interface.as_deref().and_then(|name| monitor.interface(name));
        setup::inner_mtu(interface.map(|interface| interface.mtu), remote.ip())
    });
    links.min().unwrap_or_else(|| setup::inner_mtu(None, Ipv4Addr::LOCALHOST.into()))
}

fn link_configs(links: &[LinkPlan], remotes: &[SocketAddr]) -> Vec<LinkConfig> {
    let one = |((id, link), remote): ((u8, &LinkPlan), &SocketAddr)| LinkConfig {
        security: Security::Plain,
        priority: link.priority,
        tx_rate: link.tx_rate,
        rx_rate: link.rx_rate,
        path: Some(Path { socket: SocketId(id), remote: *remote, local: None }),
        alternatives: Vec::new(),
    };
    (0..u8::MAX).zip(links).zip(remotes).map(one).collect()
}

/// Bound to the link's source, or to any address of the family of its remote.
fn spec(link: &LinkPlan, remote: SocketAddr) -> SocketSpec {
    let any: IpAddr =
        if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketSpec {
        label: link.name.clone(),
        bind: SocketAddr::new(link.source.unwrap_or(any), 0),
        interface: link.interface.clone(),
    }
}

/// What the loop asks of a client.
#[derive(Debug)]
struct ClientShell<'a> {
    plan: &'a ClientPlan,
    mtu: u16,
    journalist: Journalist,
}

impl<'a> ClientShell<'a> {
    fn new(plan: &'a ClientPlan, mtu: u16) -> Self {
        let peer = plan.hosts.first().map(ToString::to_string).unwrap_or_default();
        let links = plan.links.iter().map(|link| link.name.clone()).collect();
        Self { plan, mtu, journalist: Journalist::new(peer, links) }
    }
}

impl Shell<Session> for ClientShell<'_> {
    fn on_socket_event(&mut self, session: &mut Session, socket: SocketId, event: LinkEvent, now: Instant) {
        // A client's sockets are its links', one each.
        session.handle_link_event(LinkId(socket.0), event, now);
    }

    fn log_events(&mut self, session: &mut Session) {
        while let Some(event) = session.poll_event() {
            self.journalist.on_event(&event);
        }
    }

    fn snapshot(&self, session: &Session, sockets: &Sockets, now: Instant) -> Snapshot {
        let label = |(id, link): (u8, &LinkPlan)| LinkLabel {
            name: link.name.clone(),
            interface: link.interface.clone(),
            local: sockets.address(SocketId(id)),
        };
        let mut stats = session.stats(now);
        sockets.add_discards(&mut stats.discards);
        Snapshot {
            role: status::Role::Client,
            interface: self.plan.tunnel.interface.clone(),
            addresses: self.plan.tunnel.addresses.clone(),
            mtu: self.mtu,
            sessions: vec![SessionSnapshot {
                name: self.journalist.peer.clone(),
                since: self.journalist.since,
                links: (0..u8::MAX).zip(&self.plan.links).map(label).collect(),
                stats,
            }],
            discards: DiscardCounts::default(),
        }
    }
}

/// Why the server has no address.
#[derive(Debug, thiserror::Error)]
enum ResolveError {
    /// A name could not be looked up.
    #[error("looking up `{name}`: {source}")]
    Lookup {
        /// The name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// No address is of a family that the link can do.
    #[error("link `{0}` can reach none of the server's addresses: their families differ")]
    Family(String),
}
