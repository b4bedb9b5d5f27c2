//! A client and two servers, in virtual time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{Bytes, BytesMut};

use super::*;
use crate::config::{
    ClientConfig, ClientSealing, EndpointConfig, LinkConfig, Policy, Prefix, RecoveryConfig, Role, Security,
    ServerSealing, UdpFlows,
};
use crate::crypto::keys::PrivateKey;
use crate::endpoint::Endpoint;
use crate::view::LinkRole;

const SEGMENTS: NonZeroUsize = NonZeroUsize::new(64).unwrap();
const DELAY: Duration = Duration::from_millis(10);

fn server_address(server: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, server], 9_001))
}

fn client_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 40_000))
}

fn server_key(server: u8) -> PrivateKey {
    PrivateKey::from_bytes([100 + server; 32])
}

fn endpoint(server: u8, epoch: u8, now: Instant) -> Endpoint {
    let address = Prefix { address: IpAddr::V4(Ipv4Addr::new(10, 99, server, 2)), length: 24 };
    let client = ClientConfig {
        name: "home".to_owned(),
        prefixes: vec![Prefix { length: 32, ..address }],
        plain: Vec::new(),
        public_key: Some(PrivateKey::from_bytes([1; 32]).public()),
        preshared: None,
        addresses: vec![address],
        tx_rates: Vec::new(),
    };
    let config = EndpointConfig {
        clients: vec![client],
        policy: Policy::Adaptive,
        heartbeat_interval: Duration::from_millis(100),
        mtu: 1_429,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: 2,
        epoch: u64::from(epoch),
        sealing: Some(ServerSealing {
            identity: server_key(server),
            aes_fast: true,
            entropy: [epoch + 50 * server; 32],
        }),
    };
    Endpoint::new(&config, now)
}

fn client(now: Instant) -> Client {
    let link = LinkConfig {
        security: Security::Sealed,
        priority: 1,
        role: LinkRole::Primary,
        tx_rate: None,
        rx_rate: None,
        mtu: 1_500,
        path: None,
        flows: UdpFlows::Auto,
        alternatives: Vec::new(),
    };
    let template = SessionConfig {
        role: Role::Client,
        links: vec![link],
        policy: Policy::Adaptive,
        heartbeat_interval: Duration::from_millis(100),
        mtu: 1_429,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: 1,
        epoch: 1,
        sealing: Some(ClientSealing {
            identity: PrivateKey::from_bytes([1; 32]),
            server: server_key(0).public(),
            preshared: None,
            aes_fast: true,
            run: 1,
            entropy: [1; 32],
            token: None,
            next: None,
        }),
    };
    let server = |server| Server {
        public_key: Some(server_key(server).public()),
        paths: vec![vec![Path { socket: SocketId(0), remote: server_address(server), local: None }]],
    };
    Client::new(template, vec![server(0), server(1)], now)
}

/// A datagram in transit: its destination server (or the client), its source, its bytes.
type Flight = (Option<usize>, SocketAddr, Vec<u8>);

struct World {
    client: Client,
    /// `None`: the server is switched off.
    servers: [Option<Endpoint>; 2],
    now: Instant,
    flying: BTreeMap<(Instant, u64), Flight>,
    order: u64,
    delivered: [usize; 2],
    switches: Vec<(u64, usize)>,
    starts: u8,
}

impl World {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        Self {
            client: client(now),
            servers: [None, None],
            now,
            flying: BTreeMap::new(),
            order: 0,
            delivered: [0, 0],
            switches: Vec::new(),
            starts: 0,
        }
    }

    fn start(&mut self, server: u8) {
        self.starts += 1;
        self.servers[usize::from(server)] = Some(endpoint(server, self.starts, self.now));
    }

    fn drain(&mut self) {
        let mut buf = Vec::new();
        while let Some(transmit) = self.client.poll_transmit(&mut buf, SEGMENTS, self.now) {
            let SocketAddr::V4(remote) = transmit.path.remote else { panic!("IPv4 only") };
            for bytes in buf.chunks(transmit.segment_size) {
                self.order += 1;
                let flight = (Some(usize::from(remote.ip().octets()[3])), client_address(), bytes.to_vec());
                self.flying.insert((self.now + DELAY, self.order), flight);
            }
            buf.clear();
        }
        for (number, server) in (0_u8..).zip(&mut self.servers) {
            let Some(server) = server else { continue };
            while let Some(transmit) = server.poll_transmit(&mut buf, SEGMENTS, self.now) {
                for bytes in buf.chunks(transmit.segment_size) {
                    self.order += 1;
                    let flight = (None, server_address(number), bytes.to_vec());
                    self.flying.insert((self.now + DELAY, self.order), flight);
                }
                buf.clear();
            }
            while server.poll_packet().is_some() {
                self.delivered[usize::from(number)] += 1;
            }
        }
        while let Some(event) = self.client.poll_event() {
            if let Event::ServerChanged { to, .. } = event {
                self.switches.push((self.now.as_nanos() / 1_000_000, to));
            }
        }
    }

    /// Runs for `ms` and sends a packet up every 10 ms.
    fn run(&mut self, ms: u64) {
        for step in 0..ms {
            self.now = self.now + Duration::from_millis(1);
            while let Some(flight) = self.flying.first_entry().filter(|flight| flight.key().0 <= self.now) {
                let (server, remote, bytes) = flight.remove();
                let path = Path { socket: SocketId(0), remote, local: None };
                let datagram = Datagram::new(path, BytesMut::from(bytes.as_slice()));
                let _ = match server {
                    None => self.client.handle_datagram(datagram, self.now),
                    Some(at) => self.servers[at]
                        .as_mut()
                        .map_or(Ok(()), |server| server.handle_datagram(datagram, self.now)),
                };
                self.drain();
            }
            let leased = self.client.session().and_then(|session| session.lease());
            if let Some(Prefix { address: IpAddr::V4(source), .. }) =
                leased.and_then(|lease| lease.addresses.first().copied()).filter(|_| step % 10 == 0)
            {
                let mut packet = vec![0; 40];
                packet[0] = 0x45;
                packet[3] = 40;
                packet[9] = 17;
                packet[12..16].copy_from_slice(&source.octets());
                let _ = self.client.handle_packet(PacketBuf::from(Bytes::from(packet)), self.now);
            }
            self.client.handle_timeout(self.now);
            for server in self.servers.iter_mut().flatten() {
                server.handle_timeout(self.now);
            }
            self.drain();
            if let Some((at, reason)) = self.client.poll_timeout() {
                assert!(at > self.now, "{reason} would spin");
            }
        }
    }
}

#[test]
fn the_first_server_is_used_while_it_answers_and_no_other_is_asked() {
    let mut world = World::new();
    world.start(0);
    world.start(1);
    world.run(30_000);
    assert_eq!(world.switches, []);
    assert_eq!(world.client.round_trip(SocketId(0)), Some(DELAY * 2));
    assert!(world.delivered[0] > 2_900 && world.delivered[1] == 0, "{:?}", world.delivered);
    assert!(world.servers[1].as_ref().unwrap().stats(world.now)[0].1.links.is_empty());
}

#[test]
fn when_the_first_is_silent_the_next_is_used_and_later_the_first_again() {
    let mut world = World::new();
    world.start(1);
    world.run(3_000);
    assert_eq!(world.client.active, 1);
    world.run(1_000);
    assert!(world.delivered[1] > 90, "{:?}", world.delivered);
    // The better server returns, and stays.
    world.start(0);
    world.run(8_000);
    assert_eq!(world.client.active, 1, "not before it has proven itself");
    world.run(10_000);
    assert_eq!(world.client.active, 0);
    // The other session was closed, and that server is not contacted any more.
    world.run(2_000);
    let state = |world: &World| world.servers[1].as_ref().unwrap().stats(world.now)[0].1.connected;
    assert!(!state(&world));
    assert_eq!(world.switches.len(), 2);
}

/// A client that leaves a server and later returns to it opens a new session. The server accepts it
/// as new, however long the old session lasted and whether or not the close message arrived.
#[test]
fn a_server_that_was_left_takes_the_client_back_at_once() {
    for hears_goodbye in [true, false] {
        let mut world = World::new();
        world.start(1);
        world.run(150_000);
        world.start(0);
        let away = if hears_goodbye { None } else { world.servers[1].take() };
        world.run(30_000);
        assert_eq!(world.client.active, 0);
        if let Some(server) = away {
            world.servers[1] = Some(server);
        }
        world.servers[0] = None;
        world.run(6_000);
        assert_eq!(world.client.active, 1, "heard {hears_goodbye}");
        let before = world.delivered[1];
        world.run(1_000);
        assert!(world.delivered[1] > before + 90, "heard {hears_goodbye}");
    }
}

#[test]
fn a_server_that_comes_and_goes_is_not_followed() {
    let mut world = World::new();
    world.start(0);
    world.start(1);
    world.run(1_000);
    // The first server is up for 15 s, down for 15 s, and so on for ten minutes.
    for _ in 0..20 {
        world.servers[0] = None;
        world.run(15_000);
        world.start(0);
        world.run(15_000);
    }
    assert!(world.switches.len() <= 5, "{:?}", world.switches);
    let delivered: usize = world.delivered.iter().sum();
    assert!(delivered > 58_000, "{delivered} of 60,000");
}

#[test]
fn an_outage_of_everything_changes_no_server() {
    let mut world = World::new();
    world.start(0);
    world.start(1);
    world.run(1_000);
    let away = [world.servers[0].take(), world.servers[1].take()];
    world.run(20_000);
    world.servers = away;
    world.run(20_000);
    assert_eq!((world.client.active, world.switches.len()), (0, 0), "{:?}", world.switches);
}

#[test]
fn a_link_counts_over_all_servers_and_keeps_its_role_with_each() {
    let mut world = World::new();
    world.start(0);
    world.start(1);
    world.run(500);
    world.client.set_link_role(LinkId(0), LinkRole::Backup, world.now);
    let role = |world: &World| {
        let session = world.client.session().expect("one is active");
        session.stats(world.now).links[0].role
    };
    assert_eq!(role(&world), LinkRole::Backup);
    let mut bytes = world.client.link_bytes(LinkId(0));
    assert!(bytes > 1_000, "{bytes}");
    world.servers[0] = None;
    world.run(6_000);
    world.start(0);
    for _ in 0..300 {
        world.run(100);
        // Independent of the sessions that end meanwhile.
        let more = world.client.link_bytes(LinkId(0));
        assert!(more > bytes, "{more} after {bytes}");
        bytes = more;
    }
    let switches: Vec<usize> = world.switches.iter().map(|(_, to)| *to).collect();
    assert_eq!(switches, [1, 0]);
    assert_eq!(role(&world), LinkRole::Backup);
    assert_eq!(world.client.link_bytes(LinkId(7)), 0);
}

fn paths_to(server: u8) -> Vec<Vec<Path>> {
    vec![vec![Path { socket: SocketId(0), remote: server_address(server), local: None }]]
}

/// A name without an address holds up no other server, and is asked as soon as it has one.
#[test]
fn a_server_whose_address_is_not_known_is_passed_over_until_it_is() {
    let mut world = World::new();
    world.client.set_paths(0, vec![Vec::new()], world.now);
    world.start(0);
    world.start(1);
    world.run(800);
    assert_eq!(world.switches.iter().map(|(_, to)| *to).collect::<Vec<_>>(), [1]);
    assert!(world.delivered[1] > 20, "{:?}", world.delivered);
    world.client.set_paths(0, paths_to(0), world.now);
    world.run(15_000);
    assert_eq!(world.client.active, 0, "{:?}", world.switches);
}

/// No handshake waits for a pause that was made for an address that was not known.
#[test]
fn a_client_without_an_address_begins_when_it_has_one() {
    let mut world = World::new();
    world.client = client(world.now);
    world.client.servers.truncate(1);
    world.client.set_paths(0, vec![Vec::new()], world.now);
    world.start(0);
    world.run(20_000);
    assert!(!world.client.session().is_some_and(Session::is_connected));
    world.client.set_paths(0, paths_to(0), world.now);
    world.run(200);
    assert!(world.client.session().is_some_and(Session::is_connected));
}

/// The server is at another address now. The client sends there as soon as it knows that, and not
/// before the old address is silent.
#[test]
fn a_server_that_moved_is_found_at_its_new_address() {
    let mut world = World::new();
    world.client.servers.truncate(1);
    world.client.set_paths(0, paths_to(1), world.now);
    world.servers[1] = Some(endpoint(0, 1, world.now));
    world.run(1_000);
    assert!(world.client.session().is_some_and(Session::is_connected));
    world.client.set_paths(0, paths_to(0), world.now);
    world.run(2_000);
    assert!(world.client.session().is_some_and(Session::is_connected), "the old address answers");
    world.servers[1] = None;
    world.start(0);
    world.run(2_000);
    assert!(!world.client.session().is_some_and(Session::is_connected), "as long as it was up");
    world.client.set_paths(0, Vec::from([Vec::new()]), world.now);
    world.client.set_paths(0, paths_to(0), world.now);
    world.run(1_500);
    assert!(world.client.session().is_some_and(Session::is_connected));
    assert_eq!(world.switches, []);
}

#[test]
fn a_number_rests_before_it_is_another_lines_and_32_are_all() {
    let start = Instant::from_nanos(1_000_000_000);
    let mut client = client(start);
    let config = client.template.links[0].clone();
    let add = |client: &mut Client, now| {
        let id = client.free_number(now)?;
        let path = Path { socket: SocketId(id.0), remote: server_address(0), local: None };
        client.set_link(id, config.clone(), vec![vec![path], Vec::new()], now);
        Some(id.0)
    };
    assert_eq!(add(&mut client, start), Some(1));
    client.retire_link(LinkId(1), start);
    assert!(!client.has_path(LinkId(1)));
    for id in 2..32 {
        assert_eq!(add(&mut client, start), Some(id), "a fresh number before one that was used");
    }
    let rested = start + NUMBER_REST;
    assert_eq!(add(&mut client, start + Duration::from_secs(179)), None);
    assert_eq!(add(&mut client, rested), Some(1));
    assert!(client.has_path(LinkId(1)));
    assert_eq!(add(&mut client, rested + NUMBER_REST), None, "32 are in use");
    // A session with another server begins with the same numbers.
    client.retire_link(LinkId(4), rested);
    client.open(1, rested);
    let other = client.servers[1].session.as_ref().unwrap().stats(rested);
    let retired: Vec<u8> = other.links.iter().filter(|link| link.is_retired).map(|link| link.id.0).collect();
    assert_eq!((other.links.len(), retired), (32, vec![4]));
}
