//! One client and its server with sealed links that lose nothing, driven as the event loop drives them, without allocating on
//! the way: what the core itself does per packet can be counted.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use bonding_proto::config::{
    ClientConfig, ClientSealing, EndpointConfig, LinkConfig, LinkRole, Policy, Prefix, RecoveryConfig, Role,
    Security, ServerSealing, SessionConfig,
};
use bonding_proto::crypto::keys::PrivateKey;
use bonding_proto::units::BitRate;
use bonding_proto::{Datagram, Endpoint, Instant, PacketBuf, Path, Session, SocketId, StateMachine};
use bytes::{Bytes, BytesMut};

/// One way, on every link.
const DELAY: Duration = Duration::from_millis(5);
const STEP: Duration = Duration::from_micros(500);
const SEGMENTS: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");
const MTU: u16 = 1_429;
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Datagrams on their way are in buffers that are used again.
const BUFFER_BYTES: usize = 2_048;

/// Watches calls of the core: `false` before, `true` after each.
pub(crate) type Watch = fn(bool);

pub(crate) struct Pump {
    pub(crate) client: Session,
    pub(crate) server: Endpoint,
    pub(crate) now: Instant,
    watch: Watch,
    up: VecDeque<(Instant, u8, BytesMut)>,
    down: VecDeque<(Instant, u8, BytesMut)>,
    spare: Vec<BytesMut>,
    batch: Vec<u8>,
    /// By flow and size, all zeros behind the headers.
    packets: Vec<Bytes>,
    next: usize,
    /// What the server sends.
    segment: Bytes,
    /// Packets handed out at the server.
    pub(crate) delivered: u64,
    /// And at the client.
    pub(crate) returned: u64,
}

fn server_key() -> PrivateKey {
    PrivateKey::from_bytes([7; 32])
}

fn client_key() -> PrivateKey {
    PrivateKey::from_bytes([8; 32])
}

fn server_address(link: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 1], 9_001 + u16::from(link)))
}

fn client_address(link: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1 + link], 40_000))
}

/// A UDP packet of a flow.
fn packet(flow: u16, bytes: u16) -> Bytes {
    let mut packet = vec![0; usize::from(bytes)];
    let mut put = |at: usize, part: &[u8]| packet[at..at + part.len()].copy_from_slice(part);
    put(0, &[0x45, 0]);
    put(2, &bytes.to_be_bytes());
    put(8, &[64, 17]);
    put(12, &CLIENT.octets());
    put(16, &SERVER.octets());
    put(20, &[0x30, 0x39]);
    put(22, &flow.to_be_bytes());
    put(24, &(bytes - 20).to_be_bytes());
    Bytes::from(packet)
}

/// A segment of a TCP flow from the server's side.
fn segment(bytes: u16) -> Bytes {
    let mut packet = vec![0; usize::from(bytes)];
    let mut put = |at: usize, part: &[u8]| packet[at..at + part.len()].copy_from_slice(part);
    put(0, &[0x45, 0]);
    put(2, &bytes.to_be_bytes());
    put(6, &[0x40, 0, 64, 6]);
    put(12, &SERVER.octets());
    put(16, &CLIENT.octets());
    put(20, &[0, 80, 0x30, 0x39]);
    put(32, &[0x50, 0x10, 4, 0]);
    Bytes::from(packet)
}

impl Pump {
    /// Connected over `links` of 1 Gbit/s each.
    pub(crate) fn new(links: u8, flows: u16, packet_bytes: u16, watch: Watch) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let rate = Some(BitRate::from_bps(1_000_000_000));
        let link = |link: u8| LinkConfig {
            security: Security::Sealed,
            priority: 1,
            role: LinkRole::Primary,
            tx_rate: rate,
            rx_rate: rate,
            mtu: 1_500,
            path: Some(Path { socket: SocketId(link), remote: server_address(link), local: None }),
            alternatives: Vec::new(),
        };
        let client = SessionConfig {
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
                identity: client_key(),
                server: server_key().public(),
                preshared: None,
                aes_fast: true,
                run: 1,
                entropy: [1; 32],
                token: None,
            }),
        };
        let server = EndpointConfig {
            clients: vec![ClientConfig {
                name: "home".to_owned(),
                prefixes: vec![Prefix { address: IpAddr::V4(CLIENT), length: 32 }],
                plain: Vec::new(),
                public_key: Some(client_key().public()),
                preshared: None,
                addresses: vec![Prefix { address: IpAddr::V4(CLIENT), length: 24 }],
                tx_rates: vec![rate; usize::from(links)],
            }],
            policy: Policy::Adaptive,
            heartbeat_interval: Duration::from_millis(100),
            mtu: MTU,
            mss_clamp: true,
            recovery: RecoveryConfig::default(),
            rules: [].into(),
            seed: 1,
            epoch: 2,
            sealing: Some(ServerSealing { identity: server_key(), aes_fast: true, entropy: [2; 32] }),
        };
        let mut pump = Self {
            client: Session::new(client, now),
            server: Endpoint::new(&server, now),
            now,
            watch: |_| (),
            up: VecDeque::new(),
            down: VecDeque::new(),
            spare: Vec::new(),
            batch: Vec::with_capacity(65_536),
            packets: (0..flows).map(|flow| packet(flow, packet_bytes)).collect(),
            next: 0,
            segment: segment(packet_bytes),
            delivered: 0,
            returned: 0,
        };
        for _ in 0..2_000 {
            pump.step(0);
        }
        assert!(pump.client.is_connected());
        pump.watch = watch;
        pump
    }

    /// Half a millisecond in which the client sends `packets`, of its flows in turn.
    pub(crate) fn step(&mut self, packets: usize) {
        self.step_both(packets, 0);
    }

    /// The same, while the server sends a super-packet of `segments`.
    pub(crate) fn step_both(&mut self, packets: usize, segments: usize) {
        self.now = self.now + STEP;
        let (now, watch) = (self.now, self.watch);
        while let Some((_, link, data)) = self.up.pop_front_if(|(at, ..)| *at <= now) {
            let path = Path { socket: SocketId(link), remote: client_address(link), local: None };
            watch(false);
            let _ = self.server.handle_datagram(Datagram::new(path, data), now);
            watch(true);
            self.take_server();
        }
        while let Some((_, link, data)) = self.down.pop_front_if(|(at, ..)| *at <= now) {
            let path = Path { socket: SocketId(link), remote: server_address(link), local: None };
            watch(false);
            let _ = self.client.handle_datagram(Datagram::new(path, data), now);
            watch(true);
        }
        for _ in 0..packets {
            let packet = PacketBuf::from(self.packets.get(self.next % self.packets.len()).unwrap().clone());
            self.next += 1;
            watch(false);
            let _ = self.client.handle_packet(packet, now);
            watch(true);
        }
        let segment = &self.segment;
        let mut run = (0..segments).map(|_| PacketBuf::from(segment.clone()));
        watch(false);
        self.server.handle_run(&mut run, now);
        watch(true);
        watch(false);
        if self.client.poll_timeout().is_some_and(|(due, _)| due <= now) {
            self.client.handle_timeout(now);
        }
        if self.server.poll_timeout().is_some_and(|(due, _)| due <= now) {
            self.server.handle_timeout(now);
        }
        watch(true);
        self.drain();
    }

    /// Everything that both have to send.
    fn drain(&mut self) {
        let Self { client, server, now, watch, up, down, spare, batch, .. } = self;
        send(client, *now, *watch, batch, spare, up);
        send(server, *now, *watch, batch, spare, down);
        self.take_server();
        while self.client.poll_packet().is_some() {
            self.returned += 1;
        }
        while self.client.poll_event().is_some() {}
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

/// Sends all that `machine` has to send.
fn send(
    machine: &mut impl StateMachine,
    now: Instant,
    watch: Watch,
    batch: &mut Vec<u8>,
    spare: &mut Vec<BytesMut>,
    flying: &mut VecDeque<(Instant, u8, BytesMut)>,
) {
    loop {
        batch.clear();
        watch(false);
        let transmit = machine.poll_transmit(batch, SEGMENTS, now);
        watch(true);
        let Some(transmit) = transmit else { return };
        for bytes in batch.chunks(transmit.segment_size) {
            flying.push_back((now + DELAY, transmit.path.socket.0, buffer(spare, bytes)));
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
