//! Many clients of one server. Datagrams take 20 ms and are never lost.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use bonding_proto::config::{
    ClientConfig, ClientSealing, EndpointConfig, LinkConfig, Policy, Prefix, RecoveryConfig, Role, Security,
    ServerSealing, SessionConfig,
};
use bonding_proto::crypto::keys::PrivateKey;
use bonding_proto::units::BitRate;
use bonding_proto::view::LinkRole;
use bonding_proto::{Datagram, Endpoint, Instant, PacketBuf, Path, Session, SocketId, StateMachine};
use bytes::{Bytes, BytesMut};

const DELAY: Duration = Duration::from_millis(20);
/// Time is cut into such steps: a thousand clients have some deadline in each.
const STEP: Duration = Duration::from_millis(5);
const SEGMENTS: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");
fn server_key() -> PrivateKey {
    PrivateKey::from_bytes([0xee; 32])
}

fn client_key(client: u16) -> PrivateKey {
    let [high, low] = client.to_be_bytes();
    PrivateKey::from_bytes(std::array::from_fn(|at| if at % 2 == 0 { high } else { low ^ 0x55 }))
}

/// A client's inner address.
fn inner(client: u16) -> Ipv4Addr {
    let [high, low] = client.to_be_bytes();
    Ipv4Addr::new(10, 99, high, low)
}

/// A client's outer address on a link: every client lives somewhere else.
fn outer(client: u16, link: u8) -> SocketAddr {
    let [high, low] = client.to_be_bytes();
    SocketAddr::from(([100, 64 + link, high, low], 40_000))
}

fn server_address(link: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 1], 9_001 + u16::from(link)))
}

fn client(number: u16, links: u8, now: Instant) -> Session {
    let link = |link: u8| LinkConfig {
        security: Security::Sealed,
        priority: link,
        role: LinkRole::Primary,
        tx_rate: Some(BitRate::from_bps(10_000_000)),
        rx_rate: Some(BitRate::from_bps(10_000_000)),
        mtu: 1_500,
        path: Some(Path { socket: SocketId(link), remote: server_address(link), local: None }),
        alternatives: Vec::new(),
    };
    let entropy = *client_key(number ^ 0x8000).bytes();
    let config = SessionConfig {
        role: Role::Client,
        links: (0..links).map(link).collect(),
        policy: Policy::Adaptive,
        heartbeat_interval: Duration::from_millis(100),
        mtu: 1_429,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: u64::from(number),
        epoch: u64::from(number),
        sealing: Some(ClientSealing {
            identity: client_key(number),
            server: server_key().public(),
            preshared: None,
            aes_fast: true,
            run: 1,
            entropy,
            token: None,
        }),
    };
    Session::new(config, now)
}

/// The server, with all clients enrolled; another `run` is another start of it.
pub(crate) fn server(clients: u16, run: u8, now: Instant) -> Endpoint {
    let enrolled = |number: u16| ClientConfig {
        name: format!("client {number}"),
        prefixes: vec![Prefix { address: IpAddr::V4(inner(number)), length: 32 }],
        plain: Vec::new(),
        public_key: Some(client_key(number).public()),
        preshared: None,
        addresses: vec![Prefix { address: IpAddr::V4(inner(number)), length: 16 }],
        tx_rates: Vec::new(),
    };
    let config = EndpointConfig {
        clients: (0..clients).map(enrolled).collect(),
        policy: Policy::Adaptive,
        heartbeat_interval: Duration::from_millis(100),
        mtu: 1_429,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: 1,
        epoch: u64::from(run),
        sealing: Some(ServerSealing { identity: server_key(), aes_fast: true, entropy: [run; 32] }),
    };
    Endpoint::new(&config, now)
}

/// A UDP packet of 200 bytes between a client and somebody; a flow for every `port`.
fn packet(client: u16, up: bool, port: u8) -> PacketBuf {
    let mut bytes = vec![0; 200];
    let (client, other) = (inner(client).octets(), [198, 51, 100, 2]);
    bytes[0] = 0x45;
    bytes[3] = 200;
    bytes[8] = 64;
    bytes[9] = 17;
    bytes[12..16].copy_from_slice(if up { &client } else { &other });
    bytes[16..20].copy_from_slice(if up { &other } else { &client });
    bytes[21] = port;
    PacketBuf::from(Bytes::from(bytes))
}

/// Which client an address of an inner packet names.
fn number(packet: &[u8], at: usize) -> usize {
    usize::from(packet[at + 2]) << 8 | usize::from(packet[at + 3])
}

/// A datagram on its way: when, in which order, to which client (or to the server), on which link, its bytes; to the server its
/// sender's number stands before them.
type Flight = Reverse<(Instant, u64, Option<u16>, u8, Vec<u8>)>;

pub(crate) struct Crowd {
    pub(crate) server: Endpoint,
    pub(crate) clients: Vec<Session>,
    pub(crate) now: Instant,
    flying: BinaryHeap<Flight>,
    order: u64,
    /// Packets delivered: of each client at the server, and to each client.
    up: Vec<u64>,
    down: Vec<u64>,
    /// Cookies that the server gave.
    pub(crate) cookies: u64,
}

impl Crowd {
    /// None is connected yet.
    pub(crate) fn new(clients: u16, links: u8) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        Self {
            server: server(clients, 1, now),
            clients: (0..clients).map(|number| client(number, links, now)).collect(),
            now,
            flying: BinaryHeap::new(),
            order: 0,
            up: vec![0; usize::from(clients)],
            down: vec![0; usize::from(clients)],
            cookies: 0,
        }
    }

    fn count(&self) -> u16 {
        u16::try_from(self.clients.len()).unwrap()
    }

    fn fly(&mut self, to: Option<u16>, link: u8, bytes: Vec<u8>) {
        self.order += 1;
        self.flying.push(Reverse((self.now + DELAY, self.order, to, link, bytes)));
    }

    fn drain_client(&mut self, number: u16) {
        let mut buf = Vec::new();
        loop {
            let client = &mut self.clients[usize::from(number)];
            let Some(transmit) = client.poll_transmit(&mut buf, SEGMENTS, self.now) else { break };
            for bytes in buf.chunks(transmit.segment_size) {
                self.fly(None, transmit.path.socket.0, [&number.to_be_bytes(), bytes].concat());
            }
            buf.clear();
        }
        while let Some(packet) = self.clients[usize::from(number)].poll_packet() {
            assert_eq!(self::number(&packet, 16), usize::from(number));
            self.down[usize::from(number)] += 1;
        }
        while self.clients[usize::from(number)].poll_event().is_some() {}
    }

    fn drain_server(&mut self) {
        let mut buf = Vec::new();
        while let Some(transmit) = self.server.poll_transmit(&mut buf, SEGMENTS, self.now) {
            let IpAddr::V4(address) = transmit.path.remote.ip() else { panic!("IPv4 only") };
            let [_, _, high, low] = address.octets();
            let to = u16::from_be_bytes([high, low]);
            for bytes in buf.chunks(transmit.segment_size) {
                self.cookies += u64::from(bytes[0] == 0x83);
                self.fly(Some(to), transmit.path.socket.0, bytes.to_vec());
            }
            buf.clear();
        }
        while let Some(packet) = self.server.poll_packet() {
            self.up[self::number(&packet, 12)] += 1;
        }
        while self.server.poll_event().is_some() {}
    }

    fn deliver(&mut self) {
        while let Some(Reverse((at, ..))) = self.flying.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, to, link, bytes))) = self.flying.pop() else { break };
            match to {
                Some(to) => {
                    let path = Path { socket: SocketId(link), remote: server_address(link), local: None };
                    let datagram = Datagram::new(path, BytesMut::from(bytes.as_slice()));
                    let _ = self.clients[usize::from(to)].handle_datagram(datagram, self.now);
                    self.drain_client(to);
                }
                None => {
                    let (from, bytes) = bytes.split_at(2);
                    let from = u16::from_be_bytes(from.try_into().unwrap());
                    let path = Path { socket: SocketId(link), remote: outer(from, link), local: None };
                    let _ = self.server.handle_datagram(Datagram::new(path, BytesMut::from(bytes)), self.now);
                    self.drain_server();
                }
            }
        }
    }

    /// Runs for `ms`; with traffic every client sends and gets ten packets a second, of twenty flows in turn.
    pub(crate) fn run(&mut self, ms: u64, traffic: bool) {
        let end = self.now + Duration::from_millis(ms);
        let mut port = 0;
        while self.now < end {
            self.now = self.now + STEP;
            self.deliver();
            // One in twenty of the clients at each step.
            port = (port + 1) % 20;
            for number in (0..self.count()).filter(|number| traffic && number % 20 == u16::from(port)) {
                let _ = self.clients[usize::from(number)].handle_packet(packet(number, true, port), self.now);
                let _ = self.server.handle_packet(packet(number, false, port), self.now);
                self.drain_client(number);
            }
            self.drain_server();
            self.server.handle_timeout(self.now);
            self.drain_server();
            for number in 0..self.count() {
                let Some(client) = self.clients.get_mut(usize::from(number)) else { break };
                if client.poll_timeout().is_some_and(|(due, _)| due <= self.now) {
                    client.handle_timeout(self.now);
                    self.drain_client(number);
                }
            }
        }
    }

    /// Clients that are connected at both ends.
    pub(crate) fn connected(&self) -> usize {
        let stats = self.server.stats(self.now);
        let served = stats.iter().filter(|(_, stats)| stats.connected).count();
        served.min(self.clients.iter().filter(|client| client.is_connected()).count())
    }

    /// Traffic for two seconds: everybody's arrives, both ways.
    pub(crate) fn assert_served(&mut self) {
        self.up.fill(0);
        self.down.fill(0);
        self.run(2_000, true);
        self.run(100, false);
        for delivered in [&self.up, &self.down] {
            let (least, most) = (delivered.iter().min(), delivered.iter().max());
            assert_eq!((least, most), (Some(&20), Some(&20)));
        }
    }
}
