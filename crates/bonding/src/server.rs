//! Runs a server: its TUN device, a socket for each port, an endpoint with a session for each client, forwarding and NAT.

use std::net::SocketAddr;

use bonding_os::monitor::Monitor;
use bonding_os::nat::{self, NatConfig};
use bonding_os::poll::Poller;
use bonding_os::undo::Journal;
use bonding_proto::config::{EndpointConfig, Prefix};
use bonding_proto::endpoint::{Endpoint, SessionId};
use bonding_proto::event::LinkEvent;
use bonding_proto::stats::SessionStats;
use bonding_proto::{Instant, SocketId};

use crate::engine::clock::Clock;
use crate::engine::event_loop::{Engine, Parts, Shell};
use crate::engine::events::Journalist;
use crate::engine::plan::{NatPlan, ServerPlan};
use crate::engine::setup::{self, Ground};
use crate::engine::sockets::{SocketSpec, Sockets};
use crate::engine::{RunError, Service};
use crate::status::{self, LinkLabel, SessionSnapshot, Snapshot};

/// Runs until SIGINT or SIGTERM; whatever was changed on the machine is undone when this returns.
pub fn run(plan: &ServerPlan, service: &mut dyn Service) -> Result<(), RunError> {
    let Ground { signals, mut journal, monitor, seed, epoch } = Ground::prepare(&plan.run.state_file)?;
    let poller = Poller::new()?;
    let mut sockets = Sockets::new(plan.ports.iter().map(|port| spec(plan, *port)));
    sockets.open_all(&poller).map_err(|(address, source)| RunError::Listen { address, source })?;
    let tun = setup::tun(&plan.tunnel, tunnel_mtu(plan, &monitor))?;
    let prefixes: Vec<Prefix> =
        plan.clients.iter().flat_map(|client| client.config.prefixes.iter().copied()).collect();
    setup::routes(&tun, &plan.tunnel.addresses, &prefixes)?;
    if let Some(nat) = &plan.nat {
        forward(&mut journal, plan, nat, &prefixes)?;
    }
    let clock = Clock::start();
    let config = EndpointConfig {
        clients: plan.clients.iter().map(|client| client.config.clone()).collect(),
        policy: plan.run.policy,
        heartbeat_interval: plan.run.heartbeat_interval,
        mtu: tun.mtu(),
        seed,
        epoch,
        sealing: None,
    };
    tracing::info!(address = %plan.listen, ports = ?plan.ports, clients = plan.clients.len(), "listening");
    let mut shell = ServerShell::new(plan, tun.mtu());
    setup::reduce_rights()?;
    let parts = Parts {
        machine: Endpoint::new(&config, clock.now()),
        device: tun,
        sockets,
        monitor: None,
        signals,
        poller,
        clock,
        status_interval: plan.run.status_interval,
    };
    Ok(Engine::new(parts)?.run(&mut shell, service)?)
}

fn spec(plan: &ServerPlan, port: u16) -> SocketSpec {
    let bind = SocketAddr::new(plan.listen, port);
    SocketSpec { label: bind.to_string(), bind, interface: None }
}

fn tunnel_mtu(plan: &ServerPlan, monitor: &Monitor) -> u16 {
    let remotes = plan.clients.iter().flat_map(|client| &client.config.plain).map(|peer| peer.remote);
    remotes
        .map(|remote| setup::inner_mtu(setup::neighbour_mtu(monitor, remote), remote))
        .min()
        .unwrap_or_else(|| setup::inner_mtu(None, plan.listen))
}

/// Forwards for the families that the tunnel has, and masquerades what comes out of it.
fn forward(
    journal: &mut Journal,
    plan: &ServerPlan,
    nat: &NatPlan,
    prefixes: &[Prefix],
) -> Result<(), RunError> {
    let mut sources = Vec::new();
    for prefix in plan.tunnel.addresses.iter().chain(prefixes) {
        sources.push(setup::cidr(*prefix)?);
    }
    let ipv4 = sources.iter().any(|source| source.address().is_ipv4());
    let ipv6 = sources.iter().any(|source| source.address().is_ipv6());
    nat::enable_forwarding(journal, ipv4, ipv6)?;
    let config = NatConfig { tunnel: plan.tunnel.interface.clone(), sources, egress: nat.egress.clone() };
    nat::install(journal, &config)?;
    tracing::info!(egress = nat.egress.as_deref().unwrap_or("auto"), ipv4, ipv6, "forwarding and NAT are on");
    Ok(())
}

/// What the loop asks of a server.
#[derive(Debug)]
struct ServerShell<'a> {
    plan: &'a ServerPlan,
    mtu: u16,
    /// By [`SessionId`].
    journalists: Vec<Journalist>,
}

impl<'a> ServerShell<'a> {
    fn new(plan: &'a ServerPlan, mtu: u16) -> Self {
        let journalists =
            plan.clients.iter().map(|peer| Journalist::new(peer.config.name.clone(), peer.links.clone()));
        Self { plan, mtu, journalists: journalists.collect() }
    }

    fn session(&self, id: SessionId, stats: SessionStats) -> Option<SessionSnapshot> {
        let journalist = self.journalists.get(usize::from(id.0))?;
        let label = |name: &String| LinkLabel { name: name.clone(), interface: None, local: None };
        Some(SessionSnapshot {
            name: journalist.peer.clone(),
            since: journalist.since,
            links: journalist.links.iter().map(label).collect(),
            stats,
        })
    }
}

impl Shell<Endpoint> for ServerShell<'_> {
    fn on_socket_event(&mut self, _: &mut Endpoint, _: SocketId, _: LinkEvent, _: Instant) {
        // A server's listeners are on no interface in particular.
    }

    fn log_events(&mut self, endpoint: &mut Endpoint) {
        while let Some((id, event)) = endpoint.poll_event() {
            if let Some(journalist) = self.journalists.get_mut(usize::from(id.0)) {
                journalist.on_event(&event);
            }
        }
    }

    fn snapshot(&self, endpoint: &Endpoint, sockets: &Sockets, now: Instant) -> Snapshot {
        let sessions = endpoint.stats(now).into_iter();
        let mut discards = endpoint.discards().clone();
        sockets.add_discards(&mut discards);
        Snapshot {
            role: status::Role::Server,
            interface: self.plan.tunnel.interface.clone(),
            addresses: self.plan.tunnel.addresses.clone(),
            mtu: self.mtu,
            sessions: sessions.filter_map(|(id, stats)| self.session(id, stats)).collect(),
            discards,
        }
    }
}
