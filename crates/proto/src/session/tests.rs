//! Two sessions over links with a fixed delay, in virtual time.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::config::{LinkConfig, Policy, RecoveryConfig};
use crate::packet::{Path, SocketId};
use crate::view::LinkRole;

const SEGMENTS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

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
type Loses = Box<dyn FnMut(usize, usize, &[u8]) -> bool>;

/// A pair of sessions; `delay_ms[i]` is link i's one-way delay.
pub(super) struct Pair {
    pub(super) sides: [Session; 2],
    delay: Vec<Duration>,
    pub(super) cut: Vec<bool>,
    /// Whether what a side sends over a link is lost.
    pub(super) loses: Loses,
    pub(super) now: Instant,
    /// Arrival time and order, then receiving side, link and bytes.
    flying: BTreeMap<(Instant, u64), (usize, u8, Vec<u8>)>,
    order: u64,
    pub(super) delivered: [Vec<PacketBuf>; 2],
    pub(super) data_bytes: Vec<usize>,
    steps: u64,
}

fn address(port: u16) -> SocketAddr {
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

fn path(link: u8) -> Path {
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

#[test]
fn links_are_proven_within_two_round_trips_and_measured() {
    let mut pair = Pair::new(&[(10, 10), (70, 40)]);
    assert_eq!(pair.send(packet(1, 0, 100)), Err(Discard::NotConnected));
    let round_trips = |pair: &Pair| [0, 1, 2].map(|socket| pair.sides[0].round_trip(SocketId(socket)));
    assert_eq!(round_trips(&pair), [None; 3]);
    pair.run(35, |_| ());
    assert_eq!(pair.states(), [LinkState::Up, LinkState::Down]);
    pair.run(1_000, |_| ());
    for side in &pair.sides {
        let stats = side.stats(pair.now);
        assert_eq!(stats.links.iter().map(|link| link.state).collect::<Vec<_>>(), [LinkState::Up; 2]);
        assert_eq!(stats.links[0].rtt, Some(Duration::from_millis(20)));
        assert_eq!(stats.links[1].rtt_min, Some(Duration::from_millis(80)));
        assert_eq!(stats.links[1].loss_permille, 0);
        assert_eq!(stats.links[0].score, 1_200);
    }
    let ms = |ms| Some(Duration::from_millis(ms));
    assert_eq!(round_trips(&pair), [ms(20), ms(80), None]);
    // Ten heartbeats a second and link, each way, and no answer to an answer.
    assert!(pair.sides[0].stats(pair.now).links[0].tx_packets <= 13);
}

#[test]
fn light_traffic_stays_on_the_best_link_and_a_load_fills_all_in_order() {
    let links = [(10, 10), (70, 40), (70, 40), (70, 40), (70, 40)];
    let mut pair = Pair::new(&links);
    pair.run(500, |_| ());
    let mut sent = 0u32;
    pair.run(1_000, |pair| {
        if sent.is_multiple_of(4) {
            pair.send(packet(1, sent / 4, 400)).unwrap();
        }
        sent += 1;
    });
    pair.run(100, |_| ());
    assert_eq!(pair.data_bytes[1..], [0; 4], "light traffic left link 0");
    assert_eq!(pair.delivered[1].len(), usize::try_from(sent.div_ceil(4)).unwrap());

    // 25 packets a millisecond are 290 Mbit/s.
    pair.delivered[1].clear();
    let mut sent = 0;
    pair.run(2_000, |pair| {
        for _ in 0..24 {
            pair.send(packet(2, sent, 1_400)).unwrap();
            sent += 1;
        }
    });
    pair.run(300, |_| ());
    let numbers = pair.numbers();
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>(), "lost or out of order");
    for (link, (mbit, _)) in links.iter().enumerate() {
        let share = pair.data_bytes[link] as f64 * 8.0 / 2e6 / *mbit as f64;
        assert!((0.8..1.05).contains(&share), "link {link}: {share}");
    }
    let stats = pair.sides[1].stats(pair.now);
    assert_eq!((stats.reorder_timeouts, stats.released_late), (0, 0));
}

#[test]
fn a_dead_link_is_left_and_comes_back() {
    let mut pair = Pair::new(&[(10, 10), (70, 40)]);
    pair.run(500, |_| ());
    pair.cut[0] = true;
    pair.run(500, |_| ());
    assert_eq!(pair.states(), [LinkState::Suspect, LinkState::Up]);
    pair.send(packet(1, 7, 100)).unwrap();
    pair.run(100, |_| ());
    assert_eq!(pair.delivered[1].len(), 1);
    pair.run(1_000, |_| ());
    assert_eq!(pair.states(), [LinkState::Down, LinkState::Up]);
    pair.cut[0] = false;
    pair.run(600, |_| ());
    assert_eq!(pair.states(), [LinkState::Up; 2]);
}

#[test]
fn a_restarted_peer_is_noticed_and_traffic_flows_again() {
    for restarted in 0..2 {
        let links = [(10, 10), (70, 40)];
        let mut pair = Pair::new(&links);
        pair.run(500, |_| ());
        for number in 0..200 {
            pair.send(packet(1, number, 500)).unwrap();
            pair.run(1, |_| ());
        }
        let role = if restarted == 0 { Role::Client } else { Role::Server };
        pair.sides[restarted] = Session::new(config(role, 99, &links), pair.now);
        pair.run(1_000, |_| ());
        assert_eq!(pair.states(), [LinkState::Up; 2], "side {restarted}");
        pair.delivered[1].clear();
        for number in 0..200 {
            pair.send(packet(1, number, 500)).unwrap();
            pair.run(1, |_| ());
        }
        pair.run(300, |_| ());
        assert_eq!(pair.numbers(), (0..200).collect::<Vec<_>>(), "side {restarted}");
    }
}

#[test]
fn a_late_heartbeat_of_a_dead_run_does_not_shut_out_the_living_one() {
    let links = [(10, 10)];
    let mut dead = Session::new(config(Role::Client, 98, &links), Instant::from_nanos(1_000_000));
    let mut late = Vec::new();
    dead.poll_transmit(&mut late, NonZeroUsize::MIN, Instant::from_nanos(1_000_000)).unwrap();
    // Both sides were restarted: the server has never heard of the run that is over.
    let mut pair = Pair::new(&links);
    pair.run(500, |_| ());
    let datagram = Datagram::new(path(0), BytesMut::from(&late[..]));
    pair.sides[1].handle_link_datagram(LinkId(0), datagram, pair.now).unwrap();
    pair.run(1_500, |_| ());
    assert_eq!(pair.states(), [LinkState::Up]);
    pair.send(packet(1, 7, 1_400)).unwrap();
    pair.run(100, |_| ());
    assert_eq!(pair.numbers(), [7]);
}

#[test]
fn idle_sessions_wake_for_heartbeats_only() {
    let mut pair = Pair::new(&[(10, 10)]);
    pair.run(1_000, |_| ());
    let before = pair.steps;
    pair.run(1_000, |_| ());
    // A tick a millisecond of our own, ten heartbeats of each side sent and received.
    assert!(pair.steps - before < 1_000 + 60, "{}", pair.steps - before);
}

/// Pages of 60 kB over connections of their own, as bursty as slow start can be: a window of 10 segments at once, then of 20, then the
/// rest, a round trip apart. They stay on the best link, although it needs 48 ms for one.
#[test]
fn pages_stay_on_the_best_link() {
    let mut pair = Pair::new(&[(10, 10), (70, 40), (70, 40), (70, 40), (70, 40)]);
    pair.run(500, |_| {});
    let mut sent = 0;
    for page in 0..30 {
        let mut at = 0;
        pair.run(500, |pair| {
            let segments = match at {
                0 => 10,
                25 => 20,
                50 => 11,
                _ => 0,
            };
            at += 1;
            for _ in 0..segments {
                pair.sides[0].handle_packet(packet(2_000 + page, sent, 1_461), pair.now).unwrap();
                sent += 1;
            }
        });
    }
    assert_eq!(pair.delivered[1].len(), 30 * 41);
    let all: usize = pair.data_bytes.iter().sum();
    assert!(pair.data_bytes[0] * 100 >= all * 95, "{:?}", pair.data_bytes);
}

/// A driver that is woken every 100 µs by something else: bulk goes in runs of what a link takes in a millisecond all the same, and at
/// the link's rate.
#[test]
fn bulk_waits_for_its_quantum_whatever_wakes_the_driver() {
    let mut pair = Pair::new(&[(70, 20), (70, 20)]);
    pair.run(500, |_| {});
    let side = &mut pair.sides[0];
    let mut now = pair.now;
    for number in 0..1_200 {
        side.handle_packet(packet(5_000, number, 1_400), now).unwrap();
    }
    let (mut runs, mut packets, mut buf) = (0, 0, Vec::new());
    let end = now + Duration::from_millis(80);
    while now < end {
        while let Some(transmit) = side.poll_transmit(&mut buf, SEGMENTS, now) {
            if buf[8] == 2 {
                runs += 1;
                packets += transmit.size.div_ceil(transmit.segment_size);
            }
            buf.clear();
        }
        now = now + Duration::from_micros(100);
        side.handle_timeout(now);
    }
    // 1,439 bytes each, over both links; what had been saved up goes first.
    let carried = 140_000_000 / 8 * 84 / 1_000 / 1_439;
    assert!(
        (carried * 97 / 100..=carried * 102 / 100).contains(&packets),
        "{packets} packets, {carried} carried"
    );
    assert!(packets >= runs * 5, "{packets} packets in {runs} runs");
}
