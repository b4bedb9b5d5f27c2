//! Many clients of one server. Datagrams take 20 ms and are never lost.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use bonding_proto::crypto::keys::PrivateKey;
use bonding_proto::units::BitRate;
use bonding_proto::{Datagram, Endpoint, Instant, PacketBuf, Path, Session, SocketId, StateMachine};
use bytes::BytesMut;

use crate::fixture;

const DELAY: Duration = Duration::from_millis(20);
/// The step of time: a thousand clients have some deadline in each.
const STEP: Duration = Duration::from_millis(5);
/// Datagrams that a machine may give at once.
const SEGMENTS: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");
/// The ceiling of every link, both ways.
const RATE: Option<BitRate> = Some(BitRate::from_bps(10_000_000));
/// Each client's peer behind the server.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const PACKET_BYTES: u16 = 200;
/// The first byte of a handshake's cookie reply.
const COOKIE_REPLY: u8 = 0x83;

fn client_key(client: u16) -> PrivateKey {
    let [high, low] = client.to_be_bytes();
    PrivateKey::from_bytes(std::array::from_fn(|at| if at % 2 == 0 { high } else { low ^ 0x55 }))
}

/// A client's inner address.
fn inner(client: u16) -> Ipv4Addr {
    let [high, low] = client.to_be_bytes();
    Ipv4Addr::new(10, 99, high, low)
}

/// A client's outer address on a link: every client has its own.
fn outer(client: u16, link: u8) -> SocketAddr {
    let [high, low] = client.to_be_bytes();
    SocketAddr::from(([100, 64 + link, high, low], 40_000))
}

fn client(number: u16, links: u8, now: Instant) -> Session {
    let links = (0..links).map(|link| fixture::client_link(link, link, RATE)).collect();
    let entropy = *client_key(number ^ 0x8000).bytes();
    Session::new(fixture::client_config(links, client_key(number), entropy, u64::from(number)), now)
}

/// The server, with all clients enrolled; another `run` is another start of it.
pub fn server(clients: u16, run: u8, now: Instant) -> Endpoint {
    let enrolled = |number: u16| {
        let key = client_key(number).public();
        fixture::enrolled(format!("client {number}"), key, inner(number), Vec::new())
    };
    Endpoint::new(&fixture::server_config((0..clients).map(enrolled).collect(), run), now)
}

/// A UDP packet from a client, or to it; a flow for every `port`.
fn packet(client: u16, up: bool, port: u8) -> PacketBuf {
    let (client, other) = ((inner(client), port.into()), (OTHER, 0));
    let (from, to) = if up { (client, other) } else { (other, client) };
    PacketBuf::from(fixture::udp_packet(from, to, PACKET_BYTES))
}

/// The client whose address stands at `at` in an inner packet.
fn number(packet: &[u8], at: usize) -> usize {
    usize::from(packet[at + 2]) << 8 | usize::from(packet[at + 3])
}

/// A datagram in flight: its arrival, a number that keeps the order, its client (`None`: to the
/// server), its link, its bytes. To the server the client's number stands before the bytes.
type Flight = Reverse<(Instant, u64, Option<u16>, u8, Vec<u8>)>;

/// Clients and their server in virtual time.
#[derive(Debug)]
pub struct Crowd {
    /// The server; a test may put another in its place.
    pub server: Endpoint,
    /// The clients, by number.
    pub clients: Vec<Session>,
    /// Virtual time.
    pub now: Instant,
    flying: BinaryHeap<Flight>,
    order: u64,
    /// Packets delivered: from each client at the server, and to each client.
    up: Vec<u64>,
    down: Vec<u64>,
    /// Cookies that the server sent.
    pub cookies: u64,
}

impl Crowd {
    /// A server and `clients` clients over `links` links each; not connected yet.
    pub fn new(clients: u16, links: u8) -> Self {
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
                self.cookies += u64::from(bytes[0] == COOKIE_REPLY);
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
                    let path = fixture::client_path(link);
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

    /// Runs for `ms`; with traffic every client sends and gets ten packets a second, of twenty
    /// flows in turn.
    pub fn run(&mut self, ms: u64, traffic: bool) {
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
    pub fn connected(&self) -> usize {
        let stats = self.server.stats(self.now);
        let served = stats.iter().filter(|(_, stats)| stats.connected).count();
        served.min(self.clients.iter().filter(|client| client.is_connected()).count())
    }

    /// Sends traffic for two seconds; every packet of every client must arrive, both ways.
    pub fn assert_served(&mut self) {
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
