//! Clients and their server with sealed links that lose nothing, driven as the event loop drives
//! them.
//!
//! The pump allocates nothing while it runs: datagrams in flight are in buffers that it uses again,
//! and inner packets are made beforehand. So what the core itself does per packet can be counted,
//! with the [`Watch`] or under callgrind.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use bonding_proto::config::{EndpointConfig, SessionConfig};
use bonding_proto::crypto::keys::PrivateKey;
use bonding_proto::units::BitRate;
use bonding_proto::{Datagram, Endpoint, Instant, PacketBuf, Path, Session, SocketId, StateMachine};
use bytes::{Bytes, BytesMut};

use crate::fixture;

/// One way, on every link.
const DELAY: Duration = Duration::from_millis(5);
/// Virtual time passes in such steps.
const STEP: Duration = Duration::from_micros(500);
/// Datagrams that a machine may give at once.
const SEGMENTS: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");
/// The ceiling of every link, both ways.
const RATE: Option<BitRate> = Some(BitRate::from_bps(1_000_000_000));
/// The first client's inner address; the others' follow.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The first client's outer port; the others' follow.
const CLIENT_PORT: u16 = 40_000;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Room for a datagram in flight.
const BUFFER_BYTES: usize = 2_048;
/// The client's port of every inner flow.
const INNER_PORT: u16 = 12_345;

/// Watches calls of the core: `false` before, `true` after each.
pub type Watch = fn(bool);

/// Clients and their server, connected, in virtual time.
#[derive(Debug)]
pub struct Pump {
    clients: Vec<Client>,
    server: Endpoint,
    now: Instant,
    watch: Watch,
    /// Datagrams in flight to the server: arrival, client, link, bytes.
    up: VecDeque<(Instant, usize, u8, BytesMut)>,
    /// The same to the clients.
    down: VecDeque<(Instant, usize, u8, BytesMut)>,
    /// Buffers to cut datagrams from.
    spare: Vec<BytesMut>,
    batch: Vec<u8>,
    /// Inner packets of the clients, by flow and within a flow by client; all zeros behind the
    /// headers.
    packets: Vec<Bytes>,
    next: usize,
    /// The segment that the server sends to each client.
    segments: Vec<Bytes>,
    next_run: usize,
    /// Packets that the server handed out.
    pub delivered: u64,
    /// Packets that the clients handed out.
    pub returned: u64,
}

/// A client and its timer.
#[derive(Debug)]
struct Client {
    session: Session,
    /// The session's next deadline.
    due: Option<Instant>,
    /// Whether input came in since its output was last taken.
    is_busy: bool,
}

fn client_key(client: u16) -> PrivateKey {
    let [high, low] = client.to_be_bytes();
    PrivateKey::from_bytes(std::array::from_fn(|at| 8 ^ if at % 2 == 0 { high } else { low }))
}

/// A client's inner address.
fn inner(client: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(CLIENT.to_bits() + u32::from(client))
}

fn client_address(client: u16, link: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1 + link], CLIENT_PORT + client))
}

/// A UDP packet of a client's flow.
fn packet(client: u16, flow: u16, bytes: u16) -> Bytes {
    fixture::udp_packet((inner(client), INNER_PORT), (SERVER, flow), bytes)
}

/// A segment of a TCP flow from the server's side to a client.
fn segment(client: u16, bytes: u16) -> Bytes {
    fixture::tcp_segment((SERVER, 80), (inner(client), INNER_PORT), bytes)
}

fn client_config(client: u16, links: u8) -> SessionConfig {
    let links = (0..links).map(|link| fixture::client_link(link, 1, RATE)).collect();
    fixture::client_config(links, client_key(client), *client_key(!client).bytes(), 1)
}

fn server_config(clients: u16, links: u8) -> EndpointConfig {
    let tx_rates = vec![RATE; usize::from(links)];
    let enrolled = |client: u16| {
        let key = client_key(client).public();
        fixture::enrolled(client.to_string(), key, inner(client), tx_rates.clone())
    };
    fixture::server_config((0..clients).map(enrolled).collect(), 2)
}

impl Pump {
    /// One client, connected over `links` of 1 Gbit/s each.
    pub fn new(links: u8, flows: u16, packet_bytes: u16, watch: Watch) -> Self {
        Self::crowd(1, links, flows, packet_bytes, watch)
    }

    /// `clients` clients, connected, each with `flows` flows over `links` links.
    pub fn crowd(clients: u16, links: u8, flows: u16, packet_bytes: u16, watch: Watch) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let client = |client| {
            let session = Session::new(client_config(client, links), now);
            Client { session, due: None, is_busy: true }
        };
        let of_flow = |flow| (0..clients).map(move |client| packet(client, flow, packet_bytes));
        let mut pump = Self {
            clients: (0..clients).map(client).collect(),
            server: Endpoint::new(&server_config(clients, links), now),
            now,
            watch: |_| (),
            up: VecDeque::new(),
            down: VecDeque::new(),
            spare: Vec::new(),
            batch: Vec::with_capacity(65_536),
            packets: (0..flows).flat_map(of_flow).collect(),
            next: 0,
            segments: (0..clients).map(|client| segment(client, packet_bytes)).collect(),
            next_run: 0,
            delivered: 0,
            returned: 0,
        };
        // One second; when many clients come at once, the server admits the last of them later.
        let mut steps = 0;
        while steps < 2_000 || !pump.clients.iter().all(|client| client.session.is_connected()) {
            pump.step(0);
            steps += 1;
            assert!(steps < 20_000, "not all clients were admitted");
        }
        pump.watch = watch;
        pump
    }

    /// Half a millisecond in which the clients send `packets` packets, of their flows in turn.
    pub fn step(&mut self, packets: usize) {
        self.step_both(packets, 0);
    }

    /// As [`Self::step`]; the server also sends a super-packet of `segments` segments, to the
    /// clients in turn.
    pub fn step_both(&mut self, packets: usize, segments: usize) {
        self.now = self.now + STEP;
        let (now, watch) = (self.now, self.watch);
        while let Some((_, client, link, data)) = self.up.pop_front_if(|(at, ..)| *at <= now) {
            let remote = client_address(u16::try_from(client).unwrap(), link);
            let path = Path { socket: SocketId(link), remote, local: None };
            watch(false);
            let _ = self.server.handle_datagram(Datagram::new(path, data), now);
            watch(true);
            self.take_server();
        }
        while let Some((_, client, link, data)) = self.down.pop_front_if(|(at, ..)| *at <= now) {
            let path = fixture::client_path(link);
            let client = &mut self.clients[client];
            client.is_busy = true;
            watch(false);
            let _ = client.session.handle_datagram(Datagram::new(path, data), now);
            watch(true);
        }
        for _ in 0..packets {
            let at = self.next % self.packets.len();
            let packet = PacketBuf::from(self.packets[at].clone());
            let client = at % self.clients.len();
            let client = &mut self.clients[client];
            self.next += 1;
            client.is_busy = true;
            watch(false);
            let _ = client.session.handle_packet(packet, now);
            watch(true);
        }
        if segments > 0 {
            let segment = &self.segments[self.next_run % self.segments.len()];
            self.next_run += 1;
            let mut run = (0..segments).map(|_| PacketBuf::from(segment.clone()));
            watch(false);
            self.server.handle_run(&mut run, now);
            watch(true);
        }
        watch(false);
        for client in self.clients.iter_mut().filter(|client| client.due.is_some_and(|due| due <= now)) {
            client.session.handle_timeout(now);
            client.is_busy = true;
        }
        if self.server.poll_timeout().is_some_and(|(due, _)| due <= now) {
            self.server.handle_timeout(now);
        }
        watch(true);
        self.drain();
    }

    /// Takes the output of all machines that have some.
    fn drain(&mut self) {
        let (now, watch) = (self.now, self.watch);
        let Self { clients, server, up, down, spare, batch, .. } = self;
        for (number, client) in clients.iter_mut().enumerate().filter(|(_, client)| client.is_busy) {
            client.is_busy = false;
            send(&mut client.session, now, watch, batch, spare, |path, at, data| {
                up.push_back((at, number, path.socket.0, data));
            });
            while client.session.poll_packet().is_some() {
                self.returned += 1;
            }
            while client.session.poll_event().is_some() {}
            watch(false);
            client.due = client.session.poll_timeout().map(|(at, _)| at);
            watch(true);
        }
        send(server, now, watch, batch, spare, |path, at, data| {
            down.push_back((at, usize::from(path.remote.port() - CLIENT_PORT), path.socket.0, data));
        });
        self.take_server();
        while self.server.poll_event().is_some() {}
    }

    fn take_server(&mut self) {
        loop {
            (self.watch)(false);
            let packet = self.server.poll_packet();
            (self.watch)(true);
            let Some(packet) = packet else { break };
            self.delivered += 1;
            drop(packet);
        }
    }
}

/// Hands each datagram that `machine` has to send to `fly`: its path, arrival and bytes.
fn send(
    machine: &mut impl StateMachine,
    now: Instant,
    watch: Watch,
    batch: &mut Vec<u8>,
    spare: &mut Vec<BytesMut>,
    mut fly: impl FnMut(Path, Instant, BytesMut),
) {
    loop {
        batch.clear();
        watch(false);
        let transmit = machine.poll_transmit(batch, SEGMENTS, now);
        watch(true);
        let Some(transmit) = transmit else { return };
        for bytes in batch.chunks(transmit.segment_size) {
            fly(transmit.path, now + DELAY, buffer(spare, bytes));
        }
    }
}

/// A buffer with these bytes, cut from a larger one as the event loop does.
fn buffer(spare: &mut Vec<BytesMut>, bytes: &[u8]) -> BytesMut {
    let mut slab = spare.pop().unwrap_or_default();
    if slab.capacity() < BUFFER_BYTES {
        slab = BytesMut::with_capacity(64 * BUFFER_BYTES);
    }
    slab.extend_from_slice(bytes);
    let data = slab.split();
    spare.push(slab);
    data
}
