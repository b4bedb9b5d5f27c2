//! The two ends of the bond, configured for a scenario.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bonding_netem::{Direction, LinkSpec, Scenario};
use bonding_proto::config::{
    ClientConfig, ClientSealing, EndpointConfig, LinkConfig, PlainPeer, Policy, Prefix, RecoveryConfig, Role,
    Security, ServerSealing, SessionConfig, UdpFlows,
};
use bonding_proto::crypto::keys::{PrivateKey, PublicKey};
use bonding_proto::qos::Rule;
use bonding_proto::stats::SessionStats;
use bonding_proto::units::BitRate;
use bonding_proto::view::LinkRole;
use bonding_proto::{Endpoint, Instant, LinkId, Session, SocketEvent, SocketId, StateMachine as _};

use crate::outer::{client_address, client_path};
use crate::world::{Observed, World};
use crate::{inet, intruder};

/// The TUN device's MTU over plain links: 1500 less IPv4, UDP and frame header.
pub const MTU: u16 = 1_461;
/// The TUN device's MTU over sealed links: less the sealed header and the tag, too.
pub const SEALED_MTU: u16 = MTU - 32;
/// The heartbeat interval of the default configuration.
const HEARTBEAT: Duration = Duration::from_millis(100);

impl Observed for Session {
    fn session_stats(&self, now: Instant) -> Option<SessionStats> {
        Some(self.stats(now))
    }

    fn handle_carrier(&mut self, link: usize, present: bool, now: Instant) {
        let socket = SocketId(u8::try_from(link).unwrap_or(u8::MAX));
        let event = if present { SocketEvent::CarrierFound } else { SocketEvent::CarrierLost };
        self.handle_socket_event(socket, event, now);
    }
}

impl Observed for Endpoint {
    fn session_stats(&self, now: Instant) -> Option<SessionStats> {
        self.stats(now).into_iter().next().map(|(_, stats)| stats)
    }
}

/// The configuration of a bond over a scenario's links.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The links and their events.
    pub scenario: Scenario,
    /// Each link's priority, in the order of the links.
    pub priorities: Vec<u8>,
    /// Each link's role, in the order of the links.
    pub roles: Vec<LinkRole>,
    /// Link selection, at both ends.
    pub policy: Policy,
    /// Seed of links and sessions.
    pub seed: u64,
    /// How each link is protected, in the order of the links.
    pub security: Vec<Security>,
    /// Whether the links' rates are configured; otherwise the bond finds them.
    pub has_ceilings: bool,
    /// The response to losses, at both ends.
    pub recovery: RecoveryConfig,
    /// The rules for classes, at both ends.
    pub rules: Arc<[Rule]>,
    /// Over how many UDP flows each link goes.
    pub flows: UdpFlows,
    /// A second client is enrolled, which attacks.
    pub has_intruder: bool,
    /// The server takes streams.
    pub takes_streams: bool,
}

/// The world of a bonded client and server.
pub type BondWorld = World<Session, Endpoint>;

fn client_key() -> PrivateKey {
    PrivateKey::from_bytes([1; 32])
}

fn server_key() -> PrivateKey {
    PrivateKey::from_bytes([2; 32])
}

impl Setup {
    /// The first link has priority 1 and every other 2: light traffic uses the first.
    pub fn new(scenario: Scenario, policy: Policy, seed: u64) -> Self {
        let priorities = (0..scenario.links.len()).map(|link| if link == 0 { 1 } else { 2 }).collect();
        let roles = vec![LinkRole::Primary; scenario.links.len()];
        let security = vec![Security::Plain; scenario.links.len()];
        Self {
            scenario,
            priorities,
            roles,
            policy,
            seed,
            security,
            has_ceilings: false,
            recovery: RecoveryConfig::default(),
            rules: [].into(),
            flows: UdpFlows::Auto,
            has_intruder: false,
            takes_streams: false,
        }
    }

    /// The same with the links' rates configured.
    pub fn with_ceilings(mut self) -> Self {
        self.has_ceilings = true;
        self
    }

    /// The rate to configure for one direction of a link: a configured rate is a ceiling, so the
    /// peak of a varying rate.
    fn rate(&self, link: &LinkSpec, direction: Direction) -> Option<BitRate> {
        link.pipe(direction).rate.peak_bps().filter(|_| self.has_ceilings).map(BitRate::from_bps)
    }

    /// The same over sealed links.
    pub fn sealed(mut self) -> Self {
        self.security.fill(Security::Sealed);
        self
    }

    /// Whether any link is sealed.
    fn seals(&self) -> bool {
        self.security.contains(&Security::Sealed)
    }

    /// The TUN device's MTU: the largest that fits every link.
    pub fn mtu(&self) -> u16 {
        if self.seals() { SEALED_MTU } else { MTU }
    }

    /// A seed for keys that differs from any other run's.
    fn entropy(&self, side: u8, epoch: u64) -> [u8; 32] {
        let mut entropy = [side; 32];
        let numbers = self.seed.to_be_bytes().into_iter().chain(epoch.to_be_bytes());
        entropy.iter_mut().zip(numbers).for_each(|(byte, number)| *byte = number);
        entropy
    }

    /// The same links with the same priorities, in reverse order.
    pub fn reversed(mut self) -> Self {
        self.scenario.links.reverse();
        self.priorities.reverse();
        self.roles.reverse();
        self.security.reverse();
        self
    }

    /// The client; another `epoch` is another start of it.
    pub fn client(&self, epoch: u64, now: Instant) -> Session {
        let links = self.scenario.links.iter().zip(&self.priorities).zip(&self.security).enumerate();
        let links = links.map(|(index, ((link, priority), security))| LinkConfig {
            security: *security,
            priority: *priority,
            role: self.roles.get(index).copied().unwrap_or_default(),
            tx_rate: self.rate(link, Direction::Up),
            rx_rate: self.rate(link, Direction::Down),
            mtu: 1_500,
            path: Some(client_path(index)),
            flows: self.flows,
            alternatives: Vec::new(),
        });
        let config = SessionConfig {
            role: Role::Client,
            links: links.collect(),
            policy: self.policy,
            heartbeat_interval: HEARTBEAT,
            mtu: self.mtu(),
            mss_clamp: true,
            recovery: self.recovery,
            rules: self.rules.clone(),
            seed: self.seed,
            epoch,
            sealing: self.seals().then(|| ClientSealing {
                identity: client_key(),
                server: server_key().public(),
                preshared: None,
                aes_fast: true,
                run: epoch,
                entropy: self.entropy(1, epoch),
                token: None,
                next: None,
            }),
        };
        Session::new(config, now)
    }

    /// The client's configuration on the server.
    pub fn enrolled(&self) -> ClientConfig {
        let links = self.scenario.links.iter().zip(&self.security).enumerate();
        let plain = links.filter(|(_, (_, security))| **security == Security::Plain);
        let plain = plain.map(|(index, (link, _))| PlainPeer {
            link: LinkId(u8::try_from(index).unwrap_or(u8::MAX)),
            remote: client_address(index).ip(),
            tx_rate: self.rate(link, Direction::Down),
        });
        ClientConfig {
            name: "simulated".to_owned(),
            prefixes: vec![Prefix { address: IpAddr::V4(inet::CLIENT), length: 32 }],
            plain: plain.collect(),
            public_key: self.seals().then(|| client_key().public()),
            preshared: None,
            addresses: vec![Prefix { address: IpAddr::V4(inet::CLIENT), length: 24 }],
            tx_rates: self.scenario.links.iter().map(|link| self.rate(link, Direction::Down)).collect(),
        }
    }

    /// The second client's configuration on the server.
    fn intruder(&self) -> Option<ClientConfig> {
        let prefix = |length| vec![Prefix { address: IpAddr::V4(inet::INTRUDER), length }];
        self.has_intruder.then(|| ClientConfig {
            name: "intruder".to_owned(),
            prefixes: prefix(32),
            plain: Vec::new(),
            public_key: Some(intruder::key().public()),
            preshared: None,
            addresses: prefix(24),
            tx_rates: Vec::new(),
        })
    }

    /// The server's public key.
    pub fn server_public() -> PublicKey {
        server_key().public()
    }

    /// The server; another `epoch` is another start of it.
    pub fn server(&self, epoch: u64, now: Instant) -> Endpoint {
        let config = EndpointConfig {
            clients: std::iter::once(self.enrolled()).chain(self.intruder()).collect(),
            policy: self.policy,
            heartbeat_interval: HEARTBEAT,
            mtu: self.mtu(),
            mss_clamp: true,
            recovery: self.recovery,
            rules: self.rules.clone(),
            seed: self.seed ^ 1,
            epoch,
            sealing: self.seals().then(|| ServerSealing {
                identity: server_key(),
                aes_fast: true,
                entropy: self.entropy(2, epoch),
            }),
        };
        let mut endpoint = Endpoint::new(&config, now);
        endpoint.set_streams(self.takes_streams, now);
        endpoint
    }

    /// Client and server over the links, at the scenario's start.
    pub fn world(&self) -> BondWorld {
        let start = Instant::ZERO;
        World::new(self.client(1, start), self.server(2, start), &self.scenario, self.seed)
    }
}
