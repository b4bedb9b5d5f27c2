use proptest::prelude::*;

use super::flows::{ASIDE_MAX, Flow, HELD_MAX};
use super::*;
use crate::coalesce::Coalescer;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

const LISTENER: u16 = 40_000;
const OWN: [&str; 2] = ["10.99.0.2", "fd99::2"];
const STAND_IN: [&str; 2] = ["10.99.0.9", "fd99::9"];
const APPLICATION: [&str; 2] = ["192.168.7.5:5000", "[fd07::5]:5000"];
const DESTINATION: [&str; 2] = ["198.51.100.1:80", "[2001:db8::1]:80"];
/// An MSS, padding, and a window scale.
const OPTIONS: &[u8] = &[2, 4, 5, 0xb4, 1, 3, 3, 7];

/// RFC 1071 §4.1, in another form than the code's.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            total += u64::from(pair[0]) * 256 + pair.get(1).map_or(0, |low| u64::from(*low));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap()
}

/// What a packet is made of.
#[derive(Debug, Clone)]
struct Sample {
    from: SocketAddr,
    to: SocketAddr,
    class: u8,
    hops: u8,
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    options: Vec<u8>,
    payload: Vec<u8>,
    is_partial: bool,
}

impl Sample {
    fn new(from: &str, to: &str, flags: u8) -> Self {
        Self {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            class: 0x28,
            hops: 61,
            sequence: 1_000,
            acknowledged: 77,
            flags,
            options: OPTIONS.to_vec(),
            payload: Vec::new(),
            is_partial: false,
        }
    }

    /// A SYN of family 0 or 1.
    fn syn(family: usize) -> Self {
        Self::new(APPLICATION[family], DESTINATION[family], SYN)
    }

    fn at_port(mut self, port: u16) -> Self {
        self.from.set_port(port);
        self
    }

    fn flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    fn sequence(self, sequence: u32) -> Self {
        Self { sequence, ..self }
    }

    fn acknowledging(self, acknowledged: u32) -> Self {
        Self { acknowledged, ..self }
    }

    /// The same with other addresses.
    fn between(&self, from: SocketAddr, to: SocketAddr) -> Self {
        Self { from, to, ..self.clone() }
    }

    fn packet(&self) -> Inbound {
        let mut tcp = Vec::new();
        tcp.extend_from_slice(&self.from.port().to_be_bytes());
        tcp.extend_from_slice(&self.to.port().to_be_bytes());
        tcp.extend_from_slice(&self.sequence.to_be_bytes());
        tcp.extend_from_slice(&self.acknowledged.to_be_bytes());
        let words = u8::try_from((20 + self.options.len()) / 4).unwrap();
        tcp.extend_from_slice(&[words << 4, self.flags, 0x20, 0, 0, 0, 0, 0]);
        tcp.extend_from_slice(&self.options);
        tcp.extend_from_slice(&self.payload);
        let length = u16::try_from(tcp.len()).unwrap();
        let mut packet = Vec::new();
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                packet.extend_from_slice(&[0x45, self.class]);
                packet.extend_from_slice(&(20 + length).to_be_bytes());
                packet.extend_from_slice(&[0xbe, 0xef, 0x40, 0, self.hops, 6, 0, 0]);
                packet.extend_from_slice(&from.octets());
                packet.extend_from_slice(&to.octets());
                let header = !sum(&[&packet]);
                packet[10..12].copy_from_slice(&header.to_be_bytes());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                packet.extend_from_slice(&[0x60 | self.class >> 4, self.class << 4, 3, 4]);
                packet.extend_from_slice(&length.to_be_bytes());
                packet.extend_from_slice(&[6, self.hops]);
                packet.extend_from_slice(&from.octets());
                packet.extend_from_slice(&to.octets());
            }
            _ => panic!("two families"),
        }
        let start = packet.len();
        packet.extend_from_slice(&tcp);
        if !self.is_partial {
            let checksum = !transport_sum(&packet, 6, start);
            packet[start + 16..start + 18].copy_from_slice(&checksum.to_be_bytes());
        }
        Inbound { bytes: BytesMut::from(&packet[..]), is_partial: self.is_partial, follows: false }
    }
}

/// 0xffff if the checksum is right.
fn transport_sum(packet: &[u8], protocol: u8, start: usize) -> u16 {
    let segment = &packet[start..];
    let length = u32::try_from(segment.len()).unwrap().to_be_bytes();
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    sum(&[addresses, &length, &[0, 0, 0, protocol], segment])
}

fn is_right(packet: &[u8]) -> bool {
    let start = if packet[0] >> 4 == 4 { 20 } else { 40 };
    (start == 40 || sum(&[&packet[..20]]) == 0xffff) && transport_sum(packet, 6, start) == 0xffff
}

/// A hairpin with its owner's clock.
struct World {
    hairpin: Hairpin,
    now: Duration,
    back: Vec<Inbound>,
}

impl World {
    fn untried() -> Self {
        let redirects = Redirects {
            ipv4: Some(Redirect {
                own: OWN[0].parse().unwrap(),
                stand_in: STAND_IN[0].parse().unwrap(),
                port: LISTENER,
            }),
            ipv6: Some(Redirect {
                own: OWN[1].parse().unwrap(),
                stand_in: STAND_IN[1].parse().unwrap(),
                port: LISTENER,
            }),
        };
        Self { hairpin: Hairpin::new(redirects), now: Duration::from_secs(1_000), back: Vec::new() }
    }

    /// One whose listener is known to answer.
    fn new() -> Self {
        let mut world = Self::untried();
        world.hairpin.handle_timeout(world.now, &mut world.back);
        for probe in std::mem::take(&mut world.back) {
            world.answer(&probe);
            let event = world.hairpin.poll_event();
            assert!(matches!(event, Some(Event::Reachable { is_reachable: true, .. })), "{event:?}");
        }
        world.back.clear();
        world
    }

    /// The kernel answers a probe.
    fn answer(&mut self, probe: &Inbound) {
        let segment = Segment::of(&probe.bytes).unwrap();
        assert!(segment.is_opening() && is_right(&probe.bytes));
        let (from, to) = segment.tuple(&probe.bytes).sockets(segment.is_ipv6);
        let answer = Sample { from: to, to: from, ..Sample::syn(0) }.flags(SYN | ACK);
        let acknowledged = segment.sequence(&probe.bytes) + 1;
        assert!(self.give(answer.acknowledging(acknowledged).packet()).is_none());
    }

    /// Gives a packet, all connections being wanted.
    fn give(&mut self, packet: Inbound) -> Option<Inbound> {
        self.hairpin.take(packet, self.now, |_| true, &mut self.back)
    }

    /// The only packet that is to be written back.
    fn written(&mut self) -> Inbound {
        assert_eq!(self.back.len(), 1);
        self.back.pop().unwrap()
    }

    fn requested(&mut self) -> (FlowKey, Connection) {
        let event = self.hairpin.poll_event();
        let Some(Event::Requested(key, connection)) = event else { panic!("{event:?}") };
        (key, connection)
    }

    fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        self.hairpin.handle_timeout(self.now, &mut self.back);
    }

    /// Brings a connection to the owner, and gives the listener's view of it: the peer.
    fn open(&mut self, syn: &Sample) -> (FlowKey, SocketAddr) {
        self.back.clear();
        assert!(self.give(syn.packet()).is_none());
        let (key, _) = self.requested();
        self.hairpin.admit(key, self.now, &mut self.back);
        let packet = self.written();
        let segment = Segment::of(&packet.bytes).unwrap();
        let (peer, _) = segment.tuple(&packet.bytes).sockets(segment.is_ipv6);
        assert_eq!(self.hairpin.accept(peer), Some(key));
        (key, peer)
    }
}

fn socket(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn samples() -> impl Strategy<Value = Sample> {
    let addresses = prop_oneof![
        (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        (any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
    ];
    let fields = (any::<[u16; 2]>(), any::<[u8; 3]>(), any::<u32>(), any::<bool>());
    let payload = prop::collection::vec(any::<u8>(), 0..100);
    (addresses, fields, payload).prop_map(
        |((from, to), (ports, [class, hops, flags], sequence, is_partial), payload)| Sample {
            from: SocketAddr::new(from, ports[0]),
            to: SocketAddr::new(to, ports[1]),
            class,
            hops,
            sequence,
            acknowledged: 77,
            flags,
            options: OPTIONS.to_vec(),
            payload,
            is_partial,
        },
    )
}

proptest! {
    /// Both ways, each packet is what it would be had it been made with the other addresses.
    #[test]
    fn only_addresses_and_ports_change(sample in samples(), answer in samples()) {
        let mut world = World::new();
        let family = usize::from(sample.from.is_ipv6());
        let syn = sample.clone().flags(SYN);
        prop_assume!(is_host(syn.from.ip()) && is_host(syn.to.ip()));
        let (_, peer) = world.open(&syn);
        let own = socket(OWN[family], LISTENER);
        prop_assert_eq!(peer.ip(), STAND_IN[family].parse::<IpAddr>().unwrap());
        let data = Sample { flags: ACK | PSH, ..syn.clone() };
        prop_assert!(world.give(data.packet()).is_none());
        let redirected = world.written();
        prop_assert_eq!(&redirected.bytes, &data.between(peer, own).packet().bytes);
        prop_assert_eq!(redirected.is_partial, data.is_partial);
        prop_assert!(redirected.is_partial || is_right(&redirected.bytes));
        let answer = Sample { flags: answer.flags, ..answer.between(own, peer) };
        prop_assert!(world.give(answer.packet()).is_none());
        let returned = world.written();
        prop_assert_eq!(&returned.bytes, &answer.between(syn.to, syn.from).packet().bytes);
        prop_assert!(returned.is_partial || is_right(&returned.bytes));
    }

    /// An error in the packet is still one for the receiver.
    #[test]
    fn a_wrong_checksum_stays_wrong(sample in samples(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let syn = Sample { is_partial: false, ..sample.flags(SYN) };
        prop_assume!(is_host(syn.from.ip()) && is_host(syn.to.ip()));
        let mut world = World::new();
        world.open(&syn);
        let mut packet = Sample { payload: vec![7; 64], ..syn.flags(ACK) }.packet();
        let length = packet.bytes.len();
        packet.bytes[length - 64 + at.index(64)] ^= 1_u8 << bit;
        prop_assert!(world.give(packet).is_none());
        prop_assert!(!is_right(&world.written().bytes));
    }
}

#[test]
fn a_held_connection_is_told_once_with_its_addresses() {
    for family in [0, 1] {
        let mut world = World::new();
        let syn = Sample::syn(family);
        assert!(world.give(syn.packet()).is_none());
        let (key, connection) = world.requested();
        let (source, destination) = (syn.from, syn.to);
        assert_eq!(connection, Connection { source, destination, dscp: 10 });
        for _ in 0..3 {
            world.wait(1.0);
            assert!(world.give(syn.packet()).is_none());
        }
        assert!(world.give(syn.clone().flags(ACK).packet()).is_none());
        assert_eq!((world.hairpin.poll_event(), world.back.len()), (None, 0));
        world.hairpin.admit(key, world.now, &mut world.back);
        let admitted = world.written();
        assert!(is_right(&admitted.bytes));
        // A copy that comes later goes the same way.
        assert!(world.give(syn.packet()).is_none());
        assert_eq!(world.written().bytes, admitted.bytes);
        // The owner decides once.
        world.hairpin.admit(key, world.now, &mut world.back);
        world.hairpin.refuse(key, Refusal::Reset, world.now, &mut world.back);
        assert!(world.hairpin.release(key, world.now).is_none() && world.back.is_empty());
    }
}

#[test]
fn a_run_stays_a_run_and_is_merged_again() {
    let mut world = World::new();
    let syn = Sample { is_partial: true, ..Sample::syn(0) };
    world.open(&syn);
    for index in 0..10_u32 {
        let data =
            Sample { payload: vec![1; 1_000], ..syn.clone().flags(ACK).sequence(1_001 + index * 1_000) };
        assert!(world.give(Inbound { follows: index > 0, ..data.packet() }).is_none());
    }
    assert!(
        world.back.iter().enumerate().all(|(at, packet)| packet.follows == (at > 0) && packet.is_partial)
    );
    let mut writes = Vec::new();
    Coalescer::new(true).coalesce(&world.back, Inbound::outbound, |_, count| writes.push(count));
    assert_eq!(writes, [10]);
}

/// The packet before this one is no guide once its flow is gone.
#[test]
fn a_flow_that_is_gone_is_not_remembered() {
    let mut world = World::new();
    let syn = Sample::syn(0);
    assert!(world.give(syn.packet()).is_none());
    let (key, _) = world.requested();
    assert!(world.give(syn.clone().flags(ACK).packet()).is_none());
    world.hairpin.forget(key, world.now);
    assert!(world.give(syn.clone().flags(ACK).packet()).is_some());
    world.open(&syn);
    assert!(world.give(syn.flags(ACK).packet()).is_none());
    assert_eq!(world.back.len(), 1);
}

#[test]
fn a_syn_bound_to_its_addresses_passes() {
    let passes = |options: &[u8]| {
        let mut world = World::new();
        let syn = Sample { options: options.to_vec(), ..Sample::syn(0) };
        let passes = world.give(syn.packet()).is_some();
        assert_eq!(world.hairpin.poll_event().is_none(), passes);
        assert_eq!(world.give(syn.flags(ACK).packet()).is_some(), passes, "its flow goes the same way");
        passes
    };
    let mut md5 = [0; 20];
    md5[..3].copy_from_slice(&[1, 19, 18]);
    let mut ao = [0; 16];
    ao[..2].copy_from_slice(&[29, 16]);
    assert!(passes(&md5) && passes(&ao));
    assert!(passes(&[2, 4, 5, 0xb4, 30, 12, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    // Fast Open, the end of the list with anything behind, and no options at all.
    assert!(!passes(&[34, 2, 1, 1]) && !passes(&[0, 30, 1, 1]) && !passes(&[]));
    // Options that cannot be read.
    assert!(passes(&[1, 1, 1, 2]) && passes(&[2, 0, 0, 0]) && passes(&[2, 1, 0, 0]) && passes(&[2, 5, 0, 0]));
}

#[test]
fn what_is_no_plain_segment_passes_and_never_to_the_stand_in() {
    let plain = Sample::syn(0).packet();
    let mut others = vec![plain.clone(), plain.clone(), plain.clone(), plain.clone(), plain];
    others[0].bytes[6] |= 0x20; // more fragments follow
    others[1].bytes[7] = 1; // a later fragment
    others[2].bytes[9] = 17; // UDP
    others[3].bytes[0] = 0x46; // IP options
    others[4].bytes.truncate(39);
    let mut extended = Sample::syn(1).packet();
    extended.bytes[6] = 0;
    others.push(extended);
    let mut world = World::new();
    for mut packet in others {
        let bytes = packet.bytes.clone();
        assert_eq!(world.give(packet.clone()).unwrap().bytes, bytes);
        let (at, to) = if bytes[0] >> 4 == 4 { (16, STAND_IN[0]) } else { (24, STAND_IN[1]) };
        let to = octets(to.parse().unwrap());
        let length = if at == 16 { 4 } else { 16 };
        packet.bytes[at..at + length].copy_from_slice(&to[..length]);
        assert!(world.give(packet).is_none());
    }
    assert_eq!((world.hairpin.poll_event(), world.back.len(), world.hairpin.flows()), (None, 0, 0));
}

#[test]
fn what_is_not_ours_passes_unchanged() {
    let mut world = World::new();
    let syn = Sample::syn(0);
    for flags in [ACK, SYN | ACK, FIN | ACK, RST, SYN | FIN, SYN | RST, 0] {
        let packet = syn.clone().flags(flags).packet();
        assert_eq!(world.give(packet.clone()).unwrap().bytes, packet.bytes);
    }
    // Not wanted; and addresses of no single host.
    let packet = syn.packet();
    let passed = world.hairpin.take(packet.clone(), world.now, |_| false, &mut world.back);
    assert_eq!(passed.unwrap().bytes, packet.bytes);
    for to in ["224.0.0.1:80", "255.255.255.255:80", "0.0.0.0:80", "127.0.0.1:80"] {
        assert!(world.give(Sample::new(APPLICATION[0], to, SYN).packet()).is_some());
    }
    assert!(world.give(Sample::new(APPLICATION[1], "[ff02::1]:80", SYN).packet()).is_some());
    let mut off = Hairpin::new(Redirects::default());
    assert!(off.take(syn.packet(), world.now, |_| true, &mut world.back).is_some());
    assert!(off.may_enter(&syn.packet().bytes));
    assert_eq!((world.hairpin.poll_event(), world.back.len(), world.hairpin.flows()), (None, 0, 0));
}

#[test]
fn the_listener_speaks_to_its_flows_only() {
    let mut world = World::new();
    let (_, peer) = world.open(&Sample::syn(0));
    let own = socket(OWN[0], LISTENER);
    let stranger = socket("198.51.100.7", 4_000);
    let from = |from, to| Sample { from, to, ..Sample::syn(0) }.flags(SYN | ACK).packet();
    assert!(world.give(from(own, stranger)).is_none());
    assert!(world.give(from(own, SocketAddr::new(peer.ip(), peer.port() + 1))).is_none());
    assert!(world.give(from(socket(OWN[0], LISTENER + 1), peer)).is_none());
    assert!(world.give(from(socket("10.99.0.3", LISTENER), peer)).is_none());
    assert!(world.give(from(own, SocketAddr::new(peer.ip(), 1))).is_none());
    assert!(world.back.is_empty());
    assert!(world.give(from(own, peer)).is_none());
    assert_eq!(world.back.len(), 1);
    // A host behind this one may have been given the listener's port by address translation.
    assert!(world.give(Sample { from: own, to: stranger, ..Sample::syn(0) }.flags(ACK).packet()).is_some());
}

#[test]
fn the_far_end_reaches_neither_the_listener_nor_a_flow() {
    for family in [0, 1] {
        let world = World::new();
        let own = socket(OWN[family], LISTENER);
        let stranger = socket(&Sample::syn(family).from.ip().to_string(), 4_000);
        let stand_in = socket(STAND_IN[family], 1024);
        let enters = |from: SocketAddr, to: SocketAddr, flags| {
            let sample = Sample { from, to, ..Sample::syn(family) }.flags(flags);
            world.hairpin.may_enter(&sample.packet().bytes)
        };
        assert!(
            !enters(stranger, own, SYN) && !enters(stand_in, own, ACK) && !enters(stand_in, stranger, RST)
        );
        assert!(enters(stranger, own, ACK) && enters(stranger, socket(OWN[family], 22), SYN));
        assert!(enters(stranger, socket(["10.1.1.1", "fd01::1"][family], LISTENER), SYN));
        let mut fragment = Sample { from: stand_in, to: own, ..Sample::syn(family) }.packet();
        fragment.bytes[6] ^= 0x21;
        assert!(!world.hairpin.may_enter(&fragment.bytes));
    }
}

#[test]
fn another_sequence_number_is_another_connection_unless_the_old_one_lives() {
    let mut world = World::new();
    let syn = Sample::syn(0);
    // Held: the application began anew.
    assert!(world.give(syn.packet()).is_none());
    let (first, _) = world.requested();
    let syn = syn.sequence(2_000);
    assert!(world.give(syn.packet()).is_none());
    assert_eq!(world.hairpin.poll_event(), Some(Event::Abandoned(first)));
    let (second, _) = world.requested();
    // Admitted, not accepted: the same.
    world.hairpin.admit(second, world.now, &mut world.back);
    let peer = world.written();
    let syn = syn.sequence(3_000);
    assert!(world.give(syn.packet()).is_none());
    assert_eq!(world.hairpin.poll_event(), Some(Event::Abandoned(second)));
    let (third, _) = world.requested();
    world.hairpin.admit(third, world.now, &mut world.back);
    let third_peer = world.written();
    let port = |packet: &Inbound| Segment::of(&packet.bytes).unwrap().ports(&packet.bytes).0;
    assert_ne!(port(&peer), port(&third_peer));
    // What the listener still says to the second would confuse the third.
    let own = socket(OWN[0], LISTENER);
    let to = |port| Sample { from: own, to: socket(STAND_IN[0], port), ..Sample::syn(0) }.flags(SYN | ACK);
    assert!(world.give(to(port(&peer)).packet()).is_none() && world.back.is_empty());
    assert_eq!(world.hairpin.accept(socket(STAND_IN[0], port(&peer))), None);
    // Open: the listener's kernel decides.
    assert_eq!(world.hairpin.accept(socket(STAND_IN[0], port(&third_peer))), Some(third));
    let syn = syn.sequence(4_000);
    assert!(world.give(syn.packet()).is_none());
    assert_eq!(port(&world.written()), port(&third_peer));
    assert_eq!(world.hairpin.poll_event(), None);
    // Over, by both FINs: a new one, even before the owner has forgotten the old.
    assert!(world.give(syn.clone().flags(FIN | ACK).packet()).is_none());
    assert!(world.give(to(port(&third_peer)).flags(FIN | ACK).packet()).is_none());
    world.back.clear();
    let syn = syn.sequence(5_000);
    assert!(world.give(syn.packet()).is_none());
    let (fourth, _) = world.requested();
    world.hairpin.forget(third, world.now);
    world.wait(LINGER.as_secs_f64());
    world.hairpin.forget(fourth, world.now);
    assert_eq!(world.hairpin.flows(), 0);
}

/// What an older connection of the tuple still sends does not end the new one.
#[test]
fn a_fin_before_the_handshake_ends_nothing() {
    let mut world = World::new();
    let syn = Sample::syn(0);
    assert!(world.give(syn.packet()).is_none());
    let (key, _) = world.requested();
    assert!(world.give(syn.clone().flags(FIN | ACK).packet()).is_none());
    world.hairpin.admit(key, world.now, &mut world.back);
    let port = Segment::of(&world.back[0].bytes).unwrap().ports(&world.written().bytes).0;
    let peer = socket(STAND_IN[0], port);
    assert_eq!(world.hairpin.accept(peer), Some(key));
    let answer = syn.between(socket(OWN[0], LISTENER), peer).flags(FIN | ACK);
    assert!(world.give(answer.packet()).is_none());
    // One direction is open, so another SYN is for the listener's kernel.
    assert!(world.give(syn.sequence(7).packet()).is_none());
    assert_eq!((world.hairpin.poll_event(), world.back.len()), (None, 2));
}

#[test]
fn a_reset_ends_what_waits() {
    let mut world = World::new();
    let syn = Sample::syn(0);
    assert!(world.give(syn.packet()).is_none());
    let (key, _) = world.requested();
    assert!(world.give(syn.clone().flags(RST).packet()).is_none());
    assert_eq!((world.hairpin.poll_event(), world.back.len()), (Some(Event::Abandoned(key)), 0));
    world.hairpin.admit(key, world.now, &mut world.back);
    assert!(world.back.is_empty() && world.hairpin.flows() == 0);
    // Admitted: the kernel learns of it as well, and its socket is not ours any more.
    assert!(world.give(syn.packet()).is_none());
    let (key, _) = world.requested();
    world.hairpin.admit(key, world.now, &mut world.back);
    let packet = world.written();
    let port = Segment::of(&packet.bytes).unwrap().ports(&packet.bytes).0;
    assert!(world.give(syn.clone().flags(RST).packet()).is_none());
    assert_eq!((world.hairpin.poll_event(), world.back.len()), (Some(Event::Abandoned(key)), 1));
    assert_eq!(world.hairpin.accept(socket(STAND_IN[0], port)), None);
    // Open: only the kernels are told, and the tuple may be used at once.
    let (key, _) = world.open(&syn.clone().sequence(9).at_port(7));
    assert!(world.give(syn.clone().at_port(7).flags(RST).packet()).is_none());
    assert_eq!(world.hairpin.poll_event(), None);
    let (next, _) = world.open(&syn.at_port(7).sequence(10));
    assert_ne!(key, next);
}

#[test]
fn a_syn_that_is_not_sent_again_is_abandoned() {
    let mut world = World::new();
    let syn = Sample::syn(0);
    assert!(world.give(syn.packet()).is_none());
    let (key, _) = world.requested();
    // As Linux does: after 1, 2, 4, 8, 16, 32 s.
    for interval in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0] {
        world.wait(interval);
        assert!(world.give(syn.packet()).is_none());
        assert_eq!(world.hairpin.poll_event(), None, "after {interval} s");
    }
    world.wait(66.0);
    assert_eq!(world.hairpin.poll_event(), None);
    world.wait(2.0);
    assert_eq!((world.hairpin.poll_event(), world.hairpin.flows()), (Some(Event::Abandoned(key)), 0));
    // One that was given up at once.
    assert!(world.give(syn.packet()).is_none());
    let (key, _) = world.requested();
    assert_eq!(world.hairpin.poll_timeout(), Some(world.now + FIRST_COPY_MAX));
    world.wait(4.0);
    assert_eq!(world.hairpin.poll_event(), Some(Event::Abandoned(key)));
    // One that the listener never gave to its owner.
    assert!(world.give(syn.packet()).is_none());
    let (key, _) = world.requested();
    world.hairpin.admit(key, world.now, &mut world.back);
    world.wait(ACCEPTED_WITHIN.as_secs_f64());
    assert_eq!(world.hairpin.poll_event(), Some(Event::Abandoned(key)));
    world.wait(SILENCE_MAX.as_secs_f64());
    world.wait(SILENCE_MAX.as_secs_f64());
    assert_eq!((world.hairpin.flows(), world.hairpin.poll_timeout()), (0, None));
}

#[test]
fn a_forgotten_flow_is_rewritten_while_its_kernels_speak() {
    let mut world = World::new();
    let syn = Sample::syn(0);
    let (key, peer) = world.open(&syn);
    let own = socket(OWN[0], LISTENER);
    world.hairpin.forget(key, world.now);
    // The application reads slowly: the kernel's probes are two minutes apart.
    for _ in 0..5 {
        world.wait(120.0);
        assert!(world.give(syn.between(own, peer).flags(ACK).packet()).is_none());
        assert_eq!(world.back.len(), 1);
        world.back.clear();
    }
    assert!(world.give(syn.between(own, peer).flags(FIN | ACK).packet()).is_none());
    assert!(world.give(syn.clone().flags(FIN | ACK).packet()).is_none());
    assert_eq!(world.back.len(), 2);
    // The deadline that was set before the end passes first.
    world.wait(LINGER.as_secs_f64() - 1.0);
    assert!(world.give(syn.clone().flags(ACK).packet()).is_none(), "a last acknowledgement");
    world.wait(SILENCE_MAX.as_secs_f64());
    assert_eq!((world.hairpin.flows(), world.hairpin.poll_timeout()), (0, None));
    assert!(world.give(syn.flags(ACK).packet()).is_some());
}

#[test]
fn a_released_flow_goes_as_packets_and_a_silent_one_nowhere() {
    let mut world = World::new();
    let syn = Sample { is_partial: true, ..Sample::syn(0) };
    assert!(world.give(syn.packet()).is_none());
    let (key, _) = world.requested();
    let released = world.hairpin.release(key, world.now).unwrap();
    assert_eq!((&released.bytes, released.is_partial), (&syn.packet().bytes, true));
    assert!(world.give(syn.packet()).is_some() && world.give(syn.clone().flags(ACK).packet()).is_some());
    assert_eq!(world.hairpin.poll_event(), None);
    let other = syn.clone().at_port(6);
    assert!(world.give(other.packet()).is_none());
    let (key, _) = world.requested();
    world.hairpin.refuse(key, Refusal::Silent, world.now, &mut world.back);
    assert!(world.give(other.packet()).is_none() && world.give(other.clone().flags(ACK).packet()).is_none());
    assert_eq!((world.hairpin.poll_event(), world.back.len()), (None, 0));
    // Another connection of the same addresses is asked for again; and a copy after a minute.
    assert!(world.give(other.clone().sequence(7).packet()).is_none());
    let (key, _) = world.requested();
    world.hairpin.refuse(key, Refusal::Silent, world.now, &mut world.back);
    world.wait(SET_ASIDE.as_secs_f64());
    assert_eq!((world.hairpin.flows(), world.hairpin.poll_timeout()), (0, None));
    assert!(world.give(other.sequence(7).packet()).is_none());
    world.requested();
}

#[test]
fn a_refusal_by_reset_is_the_destinations() {
    for family in [0, 1] {
        for payload in [0_u8, 10] {
            let mut world = World::new();
            let syn = Sample { payload: vec![5; payload.into()], ..Sample::syn(family) }.sequence(u32::MAX);
            assert!(world.give(syn.packet()).is_none());
            let (key, _) = world.requested();
            world.hairpin.refuse(key, Refusal::Reset, world.now, &mut world.back);
            let answer = world.written();
            assert!(is_right(&answer.bytes) && !answer.is_partial);
            let segment = Segment::of(&answer.bytes).unwrap();
            let (from, to) = segment.tuple(&answer.bytes).sockets(segment.is_ipv6);
            assert_eq!((from, to, segment.flags), (syn.to, syn.from, RST | ACK));
            let tcp = &answer.bytes[segment.ip_bytes..];
            assert_eq!((tcp.len(), &tcp[4..8], &tcp[8..12]), (20, &[0; 4][..], &[0, 0, 0, payload][..]));
            assert_eq!(world.hairpin.flows(), 0);
        }
    }
}

#[test]
fn a_refusal_by_icmp_quotes_the_syn() {
    let kinds = [Unreachable::Network, Unreachable::Host, Unreachable::Prohibited];
    for (why, [v4, v6]) in kinds.into_iter().zip([[0, 0], [1, 3], [13, 1]]) {
        for (family, is_partial) in [(0, false), (0, true), (1, false), (1, true)] {
            let mut world = World::new();
            let syn = Sample { is_partial, payload: vec![3; 1_400], ..Sample::syn(family) };
            assert!(world.give(syn.packet()).is_none());
            let (key, _) = world.requested();
            world.hairpin.refuse(key, Refusal::Unreachable(why), world.now, &mut world.back);
            let answer = world.written();
            assert!(!answer.is_partial);
            let answer = answer.bytes;
            let whole = Sample { is_partial: false, ..syn.clone() }.packet().bytes;
            let (stand_in, to) = (octets(STAND_IN[family].parse().unwrap()), octets(syn.from.ip()));
            if family == 0 {
                assert_eq!((sum(&[&answer[..20]]), sum(&[&answer[20..]])), (0xffff, 0xffff));
                assert_eq!((answer.len(), answer[9], &answer[20..22]), (576, 1, &[3, v4][..]));
                assert_eq!((&answer[12..16], &answer[16..20]), (&stand_in[..4], &to[..4]));
                assert_eq!(answer[28..], whole[..548]);
            } else {
                assert_eq!(transport_sum(&answer, 58, 40), 0xffff);
                assert_eq!((answer.len(), answer[6], &answer[40..42]), (1_280, 58, &[1, v6][..]));
                assert_eq!((&answer[8..24], &answer[24..40]), (&stand_in[..], &to[..]));
                assert_eq!(answer[48..], whole[..1_232]);
            }
            assert_eq!(world.hairpin.flows(), 0);
        }
    }
}

/// An ICMP error of `router` about a packet, which it quotes up to `length` bytes.
fn error_about(packet: &[u8], router: &str, kind: [u8; 2], length: usize) -> Inbound {
    let quoted = &packet[..packet.len().min(length)];
    let total = u16::try_from(8 + quoted.len()).unwrap();
    let mut bytes = Vec::new();
    let router = octets(router.parse().unwrap());
    let is_ipv6 = packet[0] >> 4 == 6;
    if is_ipv6 {
        bytes.extend_from_slice(&[0x60, 0, 0, 0]);
        bytes.extend_from_slice(&total.to_be_bytes());
        bytes.extend_from_slice(&[58, 64]);
        bytes.extend_from_slice(&router);
        bytes.extend_from_slice(&packet[8..24]);
    } else {
        bytes.extend_from_slice(&[0x45, 0xc0]);
        bytes.extend_from_slice(&(20 + total).to_be_bytes());
        bytes.extend_from_slice(&[1, 2, 0, 0, 64, 1, 0, 0]);
        bytes.extend_from_slice(&router[..4]);
        bytes.extend_from_slice(&packet[12..16]);
        let header = !sum(&[&bytes]);
        bytes[10..12].copy_from_slice(&header.to_be_bytes());
    }
    let start = bytes.len();
    bytes.extend_from_slice(&[kind[0], kind[1], 0, 0, 0, 0, 4, 0]);
    bytes.extend_from_slice(quoted);
    let checksum = !if is_ipv6 { transport_sum(&bytes, 58, start) } else { sum(&[&bytes[start..]]) };
    bytes[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
    Inbound { bytes: BytesMut::from(&bytes[..]), is_partial: false, follows: false }
}

/// The message is what it would be had the stand-in sent it about the listener's packet.
#[test]
fn an_icmp_error_reaches_the_listener() {
    for (family, router) in [(0, "192.168.7.1"), (1, "fd07::1")] {
        for (kinds, length) in [([[3, 4], [2, 0]], 548), ([[11, 0], [3, 0]], 48)] {
            let mut world = World::new();
            let syn = Sample::syn(family);
            let (_, peer) = world.open(&syn);
            let own = socket(OWN[family], LISTENER);
            let sent = Sample { payload: vec![4; 700], ..syn.between(own, peer).flags(ACK) };
            let seen = sent.between(syn.to, syn.from).packet();
            let (kind, length) = (kinds[family], length + family * 20);
            let message = error_about(&seen.bytes, router, kind, length);
            assert!(world.give(message.clone()).is_none());
            let expected = error_about(&sent.packet().bytes, STAND_IN[family], kind, length);
            assert_eq!(world.written().bytes, expected.bytes);
            // About other packets it passes: of the application, of an unknown flow, cut too short.
            for (packet, length) in
                [(syn.packet(), 548), (sent.packet(), 548), (seen.clone(), 27 + family * 20)]
            {
                assert!(world.give(error_about(&packet.bytes, router, kind, length)).is_some());
            }
            // And what is no error.
            assert!(world.give(error_about(&seen.bytes, router, [128, 0], length)).is_some());
        }
    }
}

/// A SYN of one of very many applications.
fn numbered(index: u32) -> Sample {
    let [_, a, b, c] = index.to_be_bytes();
    let mut syn = Sample::syn(0);
    syn.from.set_ip(IpAddr::from([172, a, b, c]));
    syn
}

#[test]
fn held_flows_are_bounded_and_the_oldest_give_way() {
    let mut world = World::new();
    let mut keys = Vec::new();
    for index in 0..u32::try_from(2 * HELD_MAX).unwrap() {
        assert!(world.give(numbered(index).packet()).is_none());
        keys.push(world.requested().0);
        if let Some(event) = world.hairpin.poll_event() {
            assert_eq!(event, Event::Abandoned(keys[keys.len() - 1 - HELD_MAX]));
        }
        assert!(world.hairpin.flows() <= HELD_MAX);
    }
    assert_eq!(world.hairpin.flows(), HELD_MAX);
    // Those set aside as well.
    for key in keys.split_off(HELD_MAX) {
        world.hairpin.refuse(key, Refusal::Silent, world.now, &mut world.back);
    }
    for index in 0..u32::try_from(HELD_MAX).unwrap() {
        assert!(world.give(numbered(index).packet()).is_none());
        let (key, _) = world.requested();
        assert!(world.hairpin.release(key, world.now).is_some());
    }
    assert_eq!(world.hairpin.flows(), ASIDE_MAX);
}

#[test]
fn ports_are_bounded_and_used_again_as_late_as_possible() {
    const PORTS: u32 = 65_536 - 1_025;
    let mut world = World::new();
    let (_, first) = world.open(&numbered(0));
    let (aside, _) = {
        assert!(world.give(numbered(1).packet()).is_none());
        world.requested()
    };
    world.hairpin.refuse(aside, Refusal::Silent, world.now, &mut world.back);
    let mut keys = Vec::new();
    for index in 2..PORTS {
        keys.push(world.open(&numbered(index)));
    }
    // One more: what only remembers a refusal gives its port.
    keys.push(world.open(&numbered(PORTS)));
    assert!(world.give(numbered(PORTS + 1).packet()).is_some(), "no port is free");
    assert_eq!(world.hairpin.poll_event(), None);
    // The other family has ports of its own.
    world.open(&Sample::syn(1));
    let (key, port) = keys[7];
    world.hairpin.forget(key, world.now);
    assert!(world.give(numbered(PORTS + 1).packet()).is_some(), "it lingers");
    world.wait(LINGER.as_secs_f64());
    world.wait(SILENCE_MAX.as_secs_f64());
    let (new, peer) = world.open(&numbered(PORTS + 1));
    assert_eq!(peer, port);
    assert_ne!(new, key);
    // The old key means nothing any more.
    world.hairpin.forget(key, world.now);
    assert_eq!(world.hairpin.poll_timeout(), None);
    assert_eq!(first.port(), 1_025);
}

/// With the index and a deadline, a flow stays below 200 bytes.
#[test]
fn a_flow_is_small() {
    let index = (size_of::<(Tuple, u16)>() + 1) * 8 / 7;
    let flow = size_of::<Option<Flow>>() + index + size_of::<u16>();
    assert!(flow + size_of::<(Duration, FlowKey)>() <= 200, "{flow} bytes");
}

/// What an owner and a network may do.
#[derive(Debug, Clone)]
enum Step {
    Bytes(Vec<u8>, bool, bool),
    Packet { port: u16, flags: u8, sequence: u32, flip: Option<(usize, u8)>, follows: bool },
    Answer { port: u16, flags: u8 },
    Error { port: u16, kind: u8, length: usize, flip: Option<(usize, u8)> },
    Admit(usize),
    Refuse(usize, Refusal),
    Release(usize),
    Accept(u16),
    Forget(usize),
    Wait(u8),
}

fn steps() -> impl Strategy<Value = Step> {
    let flags = || prop_oneof![Just(SYN), Just(ACK), Just(RST), Just(FIN | ACK), any::<u8>()];
    let refusal = prop_oneof![
        Just(Refusal::Reset),
        Just(Refusal::Silent),
        Just(Refusal::Unreachable(Unreachable::Host)),
    ];
    let flip = || prop::option::weighted(0.2, (0..80_usize, any::<u8>()));
    prop_oneof![
        1 => (prop::collection::vec(any::<u8>(), 0..90), any::<bool>(), any::<bool>())
            .prop_map(|(bytes, partial, follows)| Step::Bytes(bytes, partial, follows)),
        8 => (0..4_u16, flags(), 0..3_u32, flip(), any::<bool>()).prop_map(
            |(port, flags, sequence, flip, follows)| Step::Packet { port, flags, sequence, flip, follows }
        ),
        3 => (1024..1032_u16, flags()).prop_map(|(port, flags)| Step::Answer { port, flags }),
        2 => (0..4_u16, 0..13_u8, 0..100_usize, flip())
            .prop_map(|(port, kind, length, flip)| Step::Error { port, kind, length, flip }),
        4 => (0..6_usize).prop_map(Step::Admit),
        1 => (0..6_usize, refusal).prop_map(|(key, refusal)| Step::Refuse(key, refusal)),
        1 => (0..6_usize).prop_map(Step::Release),
        3 => (1020..1032_u16).prop_map(Step::Accept),
        2 => (0..6_usize).prop_map(Step::Forget),
        2 => any::<u8>().prop_map(Step::Wait),
    ]
}

proptest! {
    /// Nothing panics, whatever comes in whatever order; no rewritten packet is wrong; each request
    /// has one end; and once all is forgotten, nothing is left.
    #[test]
    fn any_steps(steps in prop::collection::vec(steps(), 0..80)) {
        let mut world = World::new();
        let mut keys: Vec<FlowKey> = Vec::new();
        let mut waiting = std::collections::BTreeSet::new();
        for step in steps {
            let recent = |back: usize| keys.len().checked_sub(back + 1).map(|at| keys[at]);
            let now = world.now;
            match step {
                Step::Bytes(bytes, is_partial, follows) => {
                    world.hairpin.may_enter(&bytes);
                    world.give(Inbound { bytes: BytesMut::from(&bytes[..]), is_partial, follows });
                }
                Step::Packet { port, flags, sequence, flip, follows } => {
                    let sample = Sample::syn(usize::from(port & 1)).at_port(port).flags(flags);
                    let mut packet = Inbound { follows, ..sample.sequence(sequence).packet() };
                    if let Some((at, byte)) = flip {
                        // Its checksum may be wrong from the start.
                        packet.is_partial = true;
                        packet.bytes.get_mut(at).into_iter().for_each(|place| *place ^= byte);
                    }
                    world.hairpin.may_enter(&packet.bytes);
                    world.give(packet);
                }
                Step::Answer { port, flags } => {
                    let (own, peer) = (socket(OWN[0], LISTENER), socket(STAND_IN[0], port));
                    world.give(Sample { from: own, to: peer, ..Sample::syn(0) }.flags(flags).packet());
                }
                Step::Error { port, kind, length, flip } => {
                    let syn = Sample::syn(usize::from(port & 1)).at_port(port);
                    let seen = syn.between(syn.to, syn.from).packet();
                    let router = STAND_IN[usize::from(port & 1)];
                    let mut packet = error_about(&seen.bytes, router, [kind, 0], length);
                    if let Some((at, byte)) = flip {
                        packet.bytes.get_mut(at).into_iter().for_each(|place| *place ^= byte);
                    }
                    world.give(packet);
                }
                Step::Admit(back) => if let Some(key) = recent(back) {
                    world.hairpin.admit(key, now, &mut world.back);
                },
                Step::Refuse(back, refusal) => if let Some(key) = recent(back) {
                    world.hairpin.refuse(key, refusal, now, &mut world.back);
                },
                Step::Release(back) => if let Some(key) = recent(back) {
                    world.hairpin.release(key, now);
                },
                Step::Accept(port) => {
                    if let Some(key) = world.hairpin.accept(socket(STAND_IN[usize::from(port & 1)], port)) {
                        prop_assert!(waiting.remove(&key), "accepted twice, or after its end");
                    }
                }
                Step::Forget(back) => if let Some(key) = recent(back) {
                    world.hairpin.forget(key, now);
                },
                Step::Wait(seconds) => world.wait(f64::from(seconds)),
            }
            while let Some(event) = world.hairpin.poll_event() {
                match event {
                    Event::Requested(key, _) => {
                        keys.push(key);
                        prop_assert!(waiting.insert(key));
                    }
                    Event::Abandoned(key) => prop_assert!(waiting.remove(&key), "abandoned twice"),
                    Event::Reachable { .. } => {}
                }
            }
            for packet in world.back.drain(..) {
                let is_tcp = packet.bytes[if packet.bytes[0] >> 4 == 4 { 9 } else { 6 }] == 6;
                prop_assert!(!is_tcp || packet.is_partial || is_right(&packet.bytes));
            }
        }
        for key in keys {
            world.hairpin.forget(key, world.now);
        }
        for _ in 0..3 {
            world.wait(SILENCE_MAX.as_secs_f64());
        }
        prop_assert_eq!(world.hairpin.flows(), 0);
        // A listener that seems not to answer is tried again and again.
        let next = world.hairpin.poll_timeout();
        prop_assert!(next.is_none_or(|next| next > world.now), "{next:?}");
    }
}

#[test]
fn connections_pass_until_the_listener_has_answered() {
    let mut world = World::untried();
    assert!(world.give(Sample::syn(0).packet()).is_some());
    world.hairpin.handle_timeout(world.now, &mut world.back);
    assert!(world.give(Sample::syn(1).packet()).is_some());
    let probes = std::mem::take(&mut world.back);
    assert_eq!(probes.len(), 2, "one of each family");
    world.answer(&probes[0]);
    // The kernel's half of a connection ends.
    let reset = world.written();
    let segment = Segment::of(&reset.bytes).unwrap();
    assert!(segment.is_reset() && is_right(&reset.bytes));
    let event = world.hairpin.poll_event();
    assert_eq!(event, Some(Event::Reachable { is_ipv6: false, is_reachable: true }));
    assert!(world.give(Sample::syn(0).at_port(7).packet()).is_none(), "held");
    assert!(world.give(Sample::syn(1).at_port(7).packet()).is_some(), "the other family is not known yet");
}

#[test]
fn only_the_answer_to_a_probe_shows_that_the_listener_answers() {
    let mut world = World::untried();
    world.hairpin.handle_timeout(world.now, &mut world.back);
    let probe = world.back.swap_remove(0);
    let segment = Segment::of(&probe.bytes).unwrap();
    let (from, to) = segment.tuple(&probe.bytes).sockets(false);
    let next = segment.sequence(&probe.bytes) + 1;
    let answer = Sample { from: to, to: from, ..Sample::syn(0) }.flags(SYN | ACK);
    for wrong in [
        answer.clone().flags(RST | ACK).acknowledging(next),
        answer.clone().flags(ACK).acknowledging(next),
        answer.clone().acknowledging(next + 1),
        Sample { from: socket(OWN[0], LISTENER + 1), ..answer.clone().acknowledging(next) },
    ] {
        assert!(world.give(wrong.packet()).is_none());
        assert_eq!(world.hairpin.poll_event(), None);
    }
    assert!(world.give(answer.acknowledging(next).packet()).is_none());
    assert!(world.hairpin.poll_event().is_some());
}

#[test]
fn a_listener_behind_a_firewall_is_tried_again() {
    let mut world = World::untried();
    world.hairpin.handle_timeout(world.now, &mut world.back);
    world.wait(0.5);
    for is_ipv6 in [false, true] {
        let event = world.hairpin.poll_event();
        assert_eq!(event, Some(Event::Reachable { is_ipv6, is_reachable: false }));
    }
    assert!(world.give(Sample::syn(0).packet()).is_some());
    world.back.clear();
    world.wait(9.9);
    assert!(world.back.is_empty());
    world.wait(0.1);
    let probes = std::mem::take(&mut world.back);
    world.wait(0.5);
    assert_eq!(world.hairpin.poll_event(), None, "it is told once");
    world.wait(10.0);
    world.answer(&probes[0]);
    assert!(world.hairpin.poll_event().is_some());
    assert!(world.give(Sample::syn(0).at_port(7).packet()).is_none());
}

/// A firewall was shut while the client ran.
#[test]
fn a_connection_that_the_listener_does_not_answer_goes_as_packets() {
    let mut world = World::new();
    let syn = Sample::syn(0);
    assert!(world.give(syn.packet()).is_none());
    let (key, _) = world.requested();
    world.hairpin.admit(key, world.now, &mut world.back);
    world.written();
    world.wait(1.0);
    assert!(world.give(syn.packet()).is_none(), "it goes to the listener once more");
    world.written();
    world.wait(0.0);
    assert_eq!(world.back.len(), 1, "a probe");
    world.wait(0.5);
    world.back.clear();
    let event = world.hairpin.poll_event();
    assert_eq!(event, Some(Event::Reachable { is_ipv6: false, is_reachable: false }));
    world.wait(1.5);
    assert_eq!(world.give(syn.packet()).unwrap().bytes, syn.packet().bytes);
    assert_eq!(world.hairpin.poll_event(), Some(Event::Abandoned(key)));
    assert!(world.give(syn.flags(ACK).packet()).is_some());
    assert_eq!(world.hairpin.poll_event(), None);
}
