//! Clients and their server with sealed links that lose nothing, driven as the event loop drives them, without allocating on
//! the way: what the core itself does per packet can be counted.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::VecDeque;
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

/// One way, on every link.
const DELAY: Duration = Duration::from_millis(5);
const STEP: Duration = Duration::from_micros(500);
const SEGMENTS: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");
const MTU: u16 = 1_429;
const RATE: Option<BitRate> = Some(BitRate::from_bps(1_000_000_000));
/// The first client's inner address, and its port outside; the others' follow.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const CLIENT_PORT: u16 = 40_000;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Datagrams on their way are in buffers that are used again.
const BUFFER_BYTES: usize = 2_048;

/// Watches calls of the core: `false` before, `true` after each.
pub(crate) type Watch = fn(bool);

pub(crate) struct Pump {
    clients: Vec<Client>,
    pub(crate) server: Endpoint,
    pub(crate) now: Instant,
    watch: Watch,
    /// When, whose, over which link, what.
    up: VecDeque<(Instant, usize, u8, BytesMut)>,
    down: VecDeque<(Instant, usize, u8, BytesMut)>,
    spare: Vec<BytesMut>,
    batch: Vec<u8>,
    /// By flow, and within it by client; all zeros behind the headers.
    packets: Vec<Bytes>,
    next: usize,
    /// What the server sends each client, and which is next.
    segments: Vec<Bytes>,
    next_run: usize,
    /// Packets handed out at the server.
    pub(crate) delivered: u64,
    /// And at the client.
    pub(crate) returned: u64,
}

/// A client: its session, its next deadline, and whether something came in since it was drained.
struct Client {
    session: Session,
    due: Option<Instant>,
    is_busy: bool,
}

fn server_key() -> PrivateKey {
    PrivateKey::from_bytes([7; 32])
}

fn client_key(client: u16) -> PrivateKey {
    let [high, low] = client.to_be_bytes();
    PrivateKey::from_bytes(std::array::from_fn(|at| 8 ^ if at % 2 == 0 { high } else { low }))
}

/// A client's inner address.
fn inner(client: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(CLIENT.to_bits() + u32::from(client))
}

fn server_address(link: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 1], 9_001 + u16::from(link)))
}

fn client_address(client: u16, link: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1 + link], CLIENT_PORT + client))
}

/// A UDP packet of a client's flow.
fn packet(client: u16, flow: u16, bytes: u16) -> Bytes {
    let mut packet = vec![0; usize::from(bytes)];
    let mut put = |at: usize, part: &[u8]| packet[at..at + part.len()].copy_from_slice(part);
    put(0, &[0x45, 0]);
    put(2, &bytes.to_be_bytes());
    put(8, &[64, 17]);
    put(12, &inner(client).octets());
    put(16, &SERVER.octets());
    put(20, &[0x30, 0x39]);
    put(22, &flow.to_be_bytes());
    put(24, &(bytes - 20).to_be_bytes());
    Bytes::from(packet)
}

/// A segment of a TCP flow from the server's side to a client.
fn segment(client: u16, bytes: u16) -> Bytes {
    let mut packet = vec![0; usize::from(bytes)];
    let mut put = |at: usize, part: &[u8]| packet[at..at + part.len()].copy_from_slice(part);
    put(0, &[0x45, 0]);
    put(2, &bytes.to_be_bytes());
    put(6, &[0x40, 0, 64, 6]);
    put(12, &SERVER.octets());
    put(16, &inner(client).octets());
    put(20, &[0, 80, 0x30, 0x39]);
    put(32, &[0x50, 0x10, 4, 0]);
    Bytes::from(packet)
}

/// One over `links` of 1 Gbit/s each.
fn client_config(client: u16, links: u8) -> SessionConfig {
    let link = |link: u8| LinkConfig {
        security: Security::Sealed,
        priority: 1,
        role: LinkRole::Primary,
        tx_rate: RATE,
        rx_rate: RATE,
        mtu: 1_500,
        path: Some(Path { socket: SocketId(link), remote: server_address(link), local: None }),
        alternatives: Vec::new(),
    };
    SessionConfig {
        role: Role::Client,
        links: (0..links).map(link).collect(),
        policy: Policy::Adaptive,
        heartbeat_interval: Duration::from_millis(100),
        mtu: MTU,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: 1,
        epoch: 1,
        sealing: Some(ClientSealing {
            identity: client_key(client),
            server: server_key().public(),
            preshared: None,
            aes_fast: true,
            run: 1,
            entropy: *client_key(!client).bytes(),
            token: None,
        }),
    }
}

fn server_config(clients: u16, links: u8) -> EndpointConfig {
    let client = |client: u16| ClientConfig {
        name: client.to_string(),
        prefixes: vec![Prefix { address: IpAddr::V4(inner(client)), length: 32 }],
        plain: Vec::new(),
        public_key: Some(client_key(client).public()),
        preshared: None,
        addresses: vec![Prefix { address: IpAddr::V4(inner(client)), length: 24 }],
        tx_rates: vec![RATE; usize::from(links)],
    };
    EndpointConfig {
        clients: (0..clients).map(client).collect(),
        policy: Policy::Adaptive,
        heartbeat_interval: Duration::from_millis(100),
        mtu: MTU,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: 1,
        epoch: 2,
        sealing: Some(ServerSealing { identity: server_key(), aes_fast: true, entropy: [2; 32] }),
    }
}

impl Pump {
    /// One client, connected over `links` of 1 Gbit/s each.
    pub(crate) fn new(links: u8, flows: u16, packet_bytes: u16, watch: Watch) -> Self {
        Self::crowd(1, links, flows, packet_bytes, watch)
    }

    /// So many clients, each with `flows`.
    pub(crate) fn crowd(clients: u16, links: u8, flows: u16, packet_bytes: u16, watch: Watch) -> Self {
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
        // A second; of many clients that come at once the last are let in later.
        let mut steps = 0;
        while steps < 2_000 || !pump.clients.iter().all(|client| client.session.is_connected()) {
            pump.step(0);
            steps += 1;
            assert!(steps < 20_000, "not all clients were let in");
        }
        pump.watch = watch;
        pump
    }

    /// Half a millisecond in which the clients send `packets`, of their flows in turn.
    pub(crate) fn step(&mut self, packets: usize) {
        self.step_both(packets, 0);
    }

    /// The same, while the server sends a super-packet of `segments`, to each client in turn.
    pub(crate) fn step_both(&mut self, packets: usize, segments: usize) {
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
            let path = Path { socket: SocketId(link), remote: server_address(link), local: None };
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

    /// Everything that all have to send.
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

/// Lets all fly that `machine` has to send: where to, when it arrives, its bytes.
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

/// A buffer with these bytes: cut from a larger one, as datagrams are.
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
