//! Two sessions over links with a fixed delay, in virtual time.

use std::collections::BTreeMap;

use super::*;

/// An IPv4 UDP packet of `size` bytes between fixed hosts, numbered.
pub(super) fn packet(port: u16, number: u32, size: usize) -> PacketBuf {
    let mut bytes = vec![0; size];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&u16::try_from(size).unwrap().to_be_bytes());
    bytes[8] = 64;
    bytes[9] = 17;
    bytes[12..20].copy_from_slice(&[192, 168, 50, 1, 198, 51, 100, 2]);
    bytes[20..22].copy_from_slice(&port.to_be_bytes());
    bytes[28..32].copy_from_slice(&number.to_be_bytes());
    PacketBuf::from(Bytes::from(bytes))
}

/// Of a side, a link and a datagram.
pub(super) type Loses = Box<dyn FnMut(usize, usize, &[u8]) -> bool>;

/// A pair of sessions; `delay_ms[i]` is link i's one-way delay.
pub(super) struct Pair {
    pub(super) sides: [Session; 2],
    pub(super) delay: Vec<Duration>,
    pub(super) cut: Vec<bool>,
    /// Whether what a side sends over a link is lost.
    pub(super) loses: Loses,
    pub(super) now: Instant,
    /// Arrival time and order, then receiving side, link and bytes.
    pub(super) flying: BTreeMap<(Instant, u64), (usize, u8, Vec<u8>)>,
    pub(super) order: u64,
    pub(super) delivered: [Vec<PacketBuf>; 2],
    pub(super) data_bytes: Vec<usize>,
    pub(super) steps: u64,
}

pub(super) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

pub(super) fn config(role: Role, epoch: u64, links: &[(u64, u64)]) -> SessionConfig {
    SessionConfig {
        role,
        links: (0u8..)
            .zip(links)
            .map(|(id, (mbit, _))| LinkConfig {
                security: Security::Plain,
                priority: 1,
                role: LinkRole::Primary,
                tx_rate: Some(BitRate::from_bps(mbit * 1_000_000)),
                rx_rate: Some(BitRate::from_bps(mbit * 1_000_000)),
                mtu: 1_500,
                path: (role == Role::Client).then(|| path(id)),
                flows: UdpFlows::Auto,
                alternatives: Vec::new(),
            })
            .collect(),
        policy: Policy::Adaptive,
        heartbeat_interval: Duration::from_millis(100),
        mtu: 1_461,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: 1,
        epoch,
        sealing: None,
    }
}

pub(super) fn path(link: u8) -> Path {
    Path { socket: SocketId(link), remote: address(9_001 + u16::from(link)), local: None }
}

impl Pair {
    /// `links`: rate in Mbit/s and one-way delay in ms.
    pub(super) fn new(links: &[(u64, u64)]) -> Self {
        let now = Instant::from_nanos(5_000_000_000);
        Self {
            sides: [
                Session::new(config(Role::Client, 1, links), now),
                Session::new(config(Role::Server, 2, links), now),
            ],
            delay: links.iter().map(|(_, ms)| Duration::from_millis(*ms)).collect(),
            cut: vec![false; links.len()],
            loses: Box::new(|_, _, _| false),
            now,
            flying: BTreeMap::new(),
            order: 0,
            delivered: [Vec::new(), Vec::new()],
            data_bytes: vec![0; links.len()],
            steps: 0,
        }
    }

    pub(super) fn drain(&mut self) {
        for side in 0..2 {
            let mut buf = Vec::new();
            while let Some(transmit) = self.sides[side].poll_transmit(&mut buf, SEGMENTS, self.now) {
                let link = transmit.link.index();
                assert_eq!(transmit.size, buf.len());
                for segment in buf.chunks(transmit.segment_size) {
                    if segment[8] == 2 && side == 0 {
                        self.data_bytes[link] += segment.len();
                    }
                    if self.cut[link] || (self.loses)(side, link, segment) {
                        continue;
                    }
                    self.order += 1;
                    let arrival = (self.now + self.delay[link], self.order);
                    self.flying.insert(arrival, (1 - side, transmit.link.0, segment.to_vec()));
                }
                buf.clear();
            }
            while let Some(packet) = self.sides[side].poll_packet() {
                self.delivered[side].push(packet);
            }
            while self.sides[side].poll_event().is_some() {}
            if let Some((at, reason)) = self.sides[side].poll_timeout() {
                assert!(at > self.now, "{reason} would spin");
            }
        }
    }

    /// Runs for `ms`, calling `each` every millisecond.
    pub(super) fn run(&mut self, ms: u64, mut each: impl FnMut(&mut Self)) {
        let mut tick = self.now;
        let end = self.now + Duration::from_millis(ms);
        self.drain();
        while self.now < end {
            let timeouts = self.sides.iter().filter_map(|side| side.poll_timeout()).map(|(at, _)| at);
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let next = timeouts.chain(arrival).chain([tick]).min().unwrap();
            self.now = self.now.max(next);
            self.steps += 1;
            if tick <= self.now {
                each(self);
                tick = tick + Duration::from_millis(1);
            }
            while let Some(entry) = self.flying.first_entry()
                && entry.key().0 <= self.now
            {
                let (side, link, bytes) = entry.remove();
                let data = BytesMut::from(&bytes[..]);
                let _ = self.sides[side].handle_link_datagram(
                    LinkId(link),
                    Datagram::new(path(link), data),
                    self.now,
                );
            }
            for side in &mut self.sides {
                side.handle_timeout(self.now);
            }
            self.drain();
        }
    }

    pub(super) fn send(&mut self, packet: PacketBuf) -> Result<(), Discard> {
        self.sides[0].handle_packet(packet, self.now)
    }

    /// The numbers of the packets that the server delivered.
    pub(super) fn numbers(&self) -> Vec<u32> {
        self.delivered[1]
            .iter()
            .map(|packet| u32::from_be_bytes(packet[28..32].try_into().unwrap()))
            .collect()
    }

    pub(super) fn states(&self) -> Vec<LinkState> {
        self.sides[0].links.iter().map(Link::state).collect()
    }
}
