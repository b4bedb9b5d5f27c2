mod classes;
mod delay;
mod far;

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::qos::credit::BURST_BYTES;

const TIERS: [Tier; 4] = Tier::ALL;

/// The RFC's constants, so that its schedule can be asserted unchanged.
fn rfc_8290() -> QueueConfig {
    QueueConfig { target: Duration::from_millis(5), ..QueueConfig::default() }
}

fn at_us(us: u64) -> Instant {
    Instant::ZERO + Duration::from_micros(us)
}

fn at(ms: u64) -> Instant {
    at_us(ms * 1_000)
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn mbps(rate: u64) -> BitRate {
    BitRate::from_bps(rate * 1_000_000)
}

/// A packet that is not an IP packet, so it cannot be marked; its last eight bytes are `serial`.
fn packet(serial: u64, bytes: usize) -> PacketBuf {
    let mut data = vec![0; bytes.max(8)];
    let tail = data.len() - 8;
    data[tail..].copy_from_slice(&serial.to_be_bytes());
    Bytes::from(data).into()
}

/// An IPv4 packet with this ECN field and no checksum of its own.
fn ecn_packet(serial: u64, bytes: usize, ecn: u8) -> PacketBuf {
    let mut data = packet(serial, bytes.max(28)).to_vec();
    data[0] = 0x45;
    data[1] = ecn;
    Bytes::from(data).into()
}

fn serial(packet: &[u8]) -> u64 {
    u64::from_be_bytes(packet[packet.len() - 8..].try_into().unwrap())
}

fn queue(rate: Option<BitRate>) -> Queue {
    let mut queue = Queue::new(rfc_8290());
    queue.set_drain_rate(rate, false);
    queue
}

/// Takes a packet in the order of a session: the most urgent tier first.
fn pop_any(queue: &mut Queue, now: Instant) -> Option<(Tier, FlowId, PacketBuf)> {
    TIERS.into_iter().find_map(|tier| queue.pop(tier, now).map(|(flow, packet)| (tier, flow, packet)))
}

/// A link of a constant rate that takes the next packet whenever it is free.
struct Link {
    rate: BitRate,
    free: Instant,
}

impl Link {
    fn new(rate: BitRate) -> Self {
        Self { rate, free: Instant::ZERO }
    }

    /// Sends until `now`; each packet is taken at the moment the link is free for it.
    fn run(
        &mut self,
        queue: &mut Queue,
        now: Instant,
        mut sent: impl FnMut(Instant, Tier, FlowId, &PacketBuf),
    ) {
        while self.free <= now {
            let Some((tier, flow, packet)) = pop_any(queue, self.free) else {
                self.free = now + Duration::from_nanos(1);
                return;
            };
            sent(self.free, tier, flow, &packet);
            self.free = self.free + self.rate.time_to_send(packet.len() as u64);
        }
    }
}

/// Recomputes every counter and checks every rule that must hold between calls.
fn audit(queue: &Queue) {
    let mut count_pkts = 0;
    for tier in TIERS {
        let mut bytes = 0;
        for (id, flow) in queue.table.iter(tier) {
            assert_eq!(flow.tier, tier, "{id:?} is on another tier's list");
            assert!(!flow.packets.is_empty(), "{id:?} is listed without packets");
            assert_eq!(flow.bytes, flow.packets.iter().map(|waiting| waiting.packet.len()).sum::<usize>());
            let within = if tier == Tier::Sparse { flow.bytes <= BURST_BYTES } else { true };
            assert!(within, "{id:?} is sparse with a queue");
            assert!(tier == Tier::Bulk || id.is_realtime() == (tier == Tier::Realtime));
            bytes += flow.bytes;
            count_pkts += flow.packets.len();
        }
        assert_eq!(queue.tiers.of(tier).bytes, bytes);
    }
    let fresh = queue.table.iter(Tier::Sparse).filter(|(_, flow)| flow.is_fresh());
    assert_eq!(queue.fresh_bytes, fresh.map(|(_, flow)| flow.packets[0].packet.len()).sum::<usize>());
    assert_eq!(queue.count_pkts, count_pkts);
    assert_eq!(queue.is_empty(), count_pkts == 0);
    assert!(queue.memory_bytes() <= queue.config.bytes_max);
}

#[test]
fn an_empty_queue_shows_nothing() {
    let mut queue = queue(None);
    for tier in TIERS {
        assert_eq!(queue.head(tier, at(1)), None);
        assert!(queue.pop(tier, at(1)).is_none());
    }
    assert!(queue.is_empty());
    assert_eq!((queue.bytes(), queue.flows_active(), queue.oldest_wait(at(5))), (0, 0, Duration::ZERO));
    assert_eq!(queue.take_discards(), DiscardCounts::default());
}

#[test]
fn head_shows_what_pop_removes() {
    let mut queue = queue(Some(mbps(10)));
    queue.push(FlowId(1), None, packet(0, 400), at(0)).unwrap();
    queue.push(FlowId(1), None, packet(1, 300), at(2)).unwrap();
    // Larger than any burst: bulk from its first packet on.
    queue.push(FlowId(2), None, packet(2, 20_000), at(2)).unwrap();
    let sparse = Queued {
        flow: FlowId(1),
        bytes: 400,
        tier: Tier::Sparse,
        backlog_bytes: 400,
        waited: ms(5),
        demand: Demand { near_flows: 1, ..Demand::default() },
    };
    let bulk = Queued {
        flow: FlowId(2),
        bytes: 20_000,
        tier: Tier::Bulk,
        backlog_bytes: 20_700,
        waited: ms(3),
        demand: Demand { bulk_bytes: 20_000, near_flows: 1, ..Demand::default() },
    };
    for _ in 0..3 {
        assert_eq!(queue.head(Tier::Sparse, at(5)), Some(sparse));
        assert_eq!(queue.head(Tier::Bulk, at(5)), Some(bulk));
    }
    assert_eq!(queue.oldest_wait(at(5)), ms(5));
    let (flow, first) = queue.pop(Tier::Sparse, at(6)).unwrap();
    assert_eq!((flow, serial(&first)), (FlowId(1), 0));
    assert_eq!(queue.pop(Tier::Bulk, at(6)).unwrap().0, FlowId(2));
    assert_eq!((queue.bytes(), queue.oldest_wait(at(6))), (300, ms(4)));
    audit(&queue);
}

/// Two flows that always have packets waiting share by bytes, whatever their packets' size.
#[test]
fn bulk_flows_share_by_bytes() {
    for (size_1, size_2) in [(1400, 1400), (1400, 200), (100, 1400), (9_000, 300)] {
        let mut queue = queue(Some(mbps(10)));
        let mut sent_bytes = [0usize; 2];
        let mut next = 0;
        for step in 0..20_000 {
            for (flow, size) in [(1, size_1), (2, size_2)] {
                while queue.table.flow(FlowId(flow)).is_none_or(|flow| flow.bytes < 30_000) {
                    queue.push(FlowId(flow), None, packet(next, size), at_us(step)).unwrap();
                    next += 1;
                }
            }
            let (tier, flow, packet) = pop_any(&mut queue, at_us(step)).unwrap();
            assert!(tier == Tier::Bulk || step < 100);
            sent_bytes[usize::from(flow.0 - 1)] += packet.len();
        }
        let difference = sent_bytes[0].abs_diff(sent_bytes[1]);
        // A quantum and a packet of each flow, and the bursts that they sent as sparse flows.
        let allowed = 2 * (1514 + size_1 + size_2) + BURST_BYTES;
        assert!(difference < allowed, "{size_1}/{size_2}: {sent_bytes:?}");
    }
}

/// RFC 8290 §4.2: a flow that ran empty owes nothing for the large packet that it sent before.
#[test]
fn a_flow_that_ran_empty_starts_a_fresh_round() {
    let mut queue = queue(Some(mbps(100)));
    queue.push(FlowId(1), None, packet(0, 20_000), at(0)).unwrap();
    queue.pop(Tier::Bulk, at(0)).unwrap();
    queue.push(FlowId(1), None, packet(1, 20_000), at(1)).unwrap();
    queue.push(FlowId(2), None, packet(2, 20_000), at(1)).unwrap();
    assert_eq!(queue.head(Tier::Bulk, at(1)).unwrap().flow, FlowId(1));
}

/// An echo of 50 packets/s beside four bulk flows that keep the link busy: it is in the sparse tier
/// and next in line at every single arrival.
#[test]
fn a_sparse_flow_is_next_at_once_under_bulk_load() {
    let rate = mbps(10);
    let (mut queue, mut link) = (queue(Some(rate)), Link::new(rate));
    let echo = FlowId(9);
    let mut next = 0;
    for step in 0..10_000 {
        let now = at(step);
        for flow in 1..=4 {
            while queue.table.flow(FlowId(flow)).is_none_or(|flow| flow.bytes < 20_000) {
                queue.push(FlowId(flow), None, packet(next, 1400), now).unwrap();
                next += 1;
            }
        }
        if step % 20 == 0 {
            queue.push(echo, None, packet(next, 100), now).unwrap();
            next += 1;
            // Only at the start, while the bulk flows spend their bursts, do packets wait before
            // it.
            if step > 100 {
                let head = queue.head(Tier::Sparse, now).unwrap();
                assert_eq!((head.flow, head.bytes, head.backlog_bytes), (echo, 100, 100), "at {step} ms");
            }
        }
        link.run(&mut queue, now, |sent, tier, flow, _| {
            if flow == echo {
                assert_eq!(tier, Tier::Sparse);
                // One packet may be on the wire: 1.12 ms, and a step of 1 ms.
                assert!(sent.saturating_since(at(step / 20 * 20)) < Duration::from_micros(2_200));
            } else {
                assert!(tier == Tier::Bulk || sent < at(100));
            }
        });
    }
}

#[test]
fn a_flow_becomes_bulk_with_all_it_has_and_sparse_again_after_a_rest() {
    let mut queue = queue(Some(mbps(100)));
    let flow = FlowId(5);
    for next in 0..10 {
        queue.push(flow, None, packet(next, 1500), at(0)).unwrap();
    }
    assert_eq!(queue.tiers.of(Tier::Sparse).bytes, 15_000);
    assert_eq!(queue.head(Tier::Bulk, at(0)), None);
    // The eleventh packet exceeds the burst: all eleven are bulk now.
    queue.push(flow, None, packet(10, 1500), at(0)).unwrap();
    assert_eq!(queue.head(Tier::Sparse, at(0)), None);
    assert_eq!(queue.head(Tier::Bulk, at(0)).unwrap().backlog_bytes, 16_500);
    // At 50 ms it has earned 6.2 kB, less than half a burst; at 70 ms 8.7 kB, but packets still
    // wait.
    for next in 0..10 {
        assert_eq!(serial(&queue.pop(Tier::Bulk, at(1)).unwrap().1), next);
    }
    queue.push(flow, None, packet(11, 100), at(70)).unwrap();
    assert_eq!(queue.head(Tier::Sparse, at(70)), None);
    assert_eq!(serial(&queue.pop(Tier::Bulk, at(70)).unwrap().1), 10);
    assert_eq!(serial(&queue.pop(Tier::Bulk, at(70)).unwrap().1), 11);
    // Empty, and 8.6 kB saved up.
    queue.push(flow, None, packet(12, 100), at(71)).unwrap();
    assert_eq!(serial(&queue.pop(Tier::Sparse, at(71)).unwrap().1), 12);
    audit(&queue);
}

#[test]
fn an_empty_queue_alone_does_not_make_a_flow_sparse_again() {
    let mut queue = queue(Some(mbps(100)));
    for next in 0..11 {
        queue.push(FlowId(5), None, packet(next, 1500), at(0)).unwrap();
    }
    while pop_any(&mut queue, at(1)).is_some() {}
    // It has earned 6.2 kB.
    queue.push(FlowId(5), None, packet(11, 100), at(50)).unwrap();
    assert_eq!(pop_any(&mut queue, at(50)).unwrap().0, Tier::Bulk);
    // It has earned 7.5 kB more, less the cost of the packet.
    queue.push(FlowId(5), None, packet(12, 100), at(110)).unwrap();
    assert_eq!(pop_any(&mut queue, at(110)).unwrap().0, Tier::Sparse);
}

/// When the head's flow becomes bulk, the flow behind it becomes first, and CoDel judges its packet
/// first.
#[test]
fn the_head_that_becomes_bulk_leaves_its_place_unjudged() {
    let mut queue = queue(Some(mbps(100)));
    let (standing, leaving) = (FlowId(1), FlowId(2));
    for next in 0..7 {
        queue.push(standing, None, ecn_packet(next, 1000, 2), at(0)).unwrap();
    }
    for next in 7..9 {
        queue.push(leaving, None, packet(next, 1000), at(0)).unwrap();
    }
    // Both flows were fresh.
    for flow in [standing, leaving] {
        assert_eq!(queue.pop(Tier::Sparse, at(0)).unwrap().0, flow);
    }
    // One more packet uses up the first flow's round; the interval above target begins.
    assert_eq!(queue.pop(Tier::Sparse, at(10)).unwrap().1[1], 2);
    assert_eq!(queue.head(Tier::Sparse, at(120)).unwrap().flow, leaving);
    queue.push(leaving, None, packet(9, 20_000), at(120)).unwrap();
    assert_eq!(queue.head(Tier::Sparse, at(120)).unwrap().flow, standing);
    assert_eq!(queue.marked_pkts(), 1);
    assert_eq!(queue.pop(Tier::Sparse, at(120)).unwrap().1[1], 3);
    assert_eq!(serial(&queue.pop(Tier::Bulk, at(120)).unwrap().1), 8);
}

/// Sparse flows with a backlog share by bytes; a flow that had no packet goes before them, once.
#[test]
fn a_fresh_flow_goes_before_sparse_ones_that_have_a_backlog() {
    let mut queue = queue(Some(mbps(100)));
    for flow in 1..=4 {
        for next in 0..20 {
            queue.push(FlowId(flow), None, packet(next, 60), at(0)).unwrap();
        }
    }
    let pop = |queue: &mut Queue| queue.pop(Tier::Sparse, at(1)).unwrap().0;
    // Each flow was fresh; then the first has its round.
    assert_eq!([(); 6].map(|()| pop(&mut queue)), [1, 2, 3, 4, 1, 1].map(FlowId));
    assert_eq!(queue.head(Tier::Sparse, at(1)).unwrap().backlog_bytes, 74 * 60);
    queue.push(FlowId(8), None, packet(0, 100), at(1)).unwrap();
    queue.push(FlowId(9), None, packet(0, 200), at(1)).unwrap();
    queue.push(FlowId(8), None, packet(1, 100), at(1)).unwrap();
    audit(&queue);
    // Packets behind it, or in the backlogs of others, do not count as ahead of it.
    assert_eq!(
        queue.head(Tier::Sparse, at(1)).map(|head| (head.flow, head.backlog_bytes)),
        Some((FlowId(8), 300))
    );
    assert_eq!([(); 3].map(|()| pop(&mut queue)), [8, 9, 1].map(FlowId));
    audit(&queue);
    // A fresh flow that becomes bulk is no longer fresh.
    queue.push(FlowId(7), None, packet(0, 100), at(1)).unwrap();
    queue.push(FlowId(7), None, packet(1, 20_000), at(1)).unwrap();
    audit(&queue);
    assert_eq!(pop(&mut queue), FlowId(1));
    let rest =
        std::iter::from_fn(|| queue.pop(Tier::Sparse, at(1))).map(|(flow, _)| flow).collect::<Vec<_>>();
    assert_eq!(rest.len(), 73);
    // The second packet of the last flow waited for its round.
    assert_eq!(rest.last(), Some(&FlowId(8)));
    audit(&queue);
}

/// A flow within its rate is not sparse while more than a burst of it waits.
#[test]
fn a_flow_that_builds_a_queue_is_bulk_whatever_its_rate() {
    let mut queue = queue(Some(mbps(100)));
    // 800 kbit/s in, and no packet is sent.
    for (step, sent_bytes) in (0..400).zip((100..).step_by(100)) {
        queue.push(FlowId(3), None, packet(step, 100), at(step)).unwrap();
        assert_eq!(
            queue.tiers.of(Tier::Sparse).bytes,
            if sent_bytes <= BURST_BYTES { sent_bytes } else { 0 },
            "at {step} ms"
        );
    }
    audit(&queue);
}

/// However the sparse tier is loaded, the bulk tier keeps a quarter of the drain rate in every
/// second after the first, and a bulk flow gets its share of that.
#[test]
fn sparse_flows_do_not_starve_bulk() {
    let rate = mbps(10);
    // Flows, bits per second of each, and whether each packet is a flow of its own.
    for (flows, bps, always_new) in
        [(300, 16_000, false), (300, 100_000, false), (300, 1_000_000, false), (900, 400_000, true)]
    {
        let (mut queue, mut link) = (queue(Some(rate)), Link::new(rate));
        let bulk = FlowId(1000);
        let mut next = 0u64;
        let mut due = vec![0f64; flows];
        let mut bulk_tier_bytes = vec![0usize; 10];
        let mut bulk_flow_bytes = 0;
        let mut turn = 0u16;
        for step in 0..10_000u64 {
            let now = at(step);
            // Not a loop until it has its 20 kB: in a full queue it may be the flow that holds
            // most.
            for _ in 0..15 {
                if queue.table.flow(bulk).is_none_or(|flow| flow.bytes < 20_000) {
                    queue.push(bulk, None, packet(next, 1400), now).unwrap();
                    next += 1;
                }
            }
            for (index, due_bytes) in due.iter_mut().enumerate() {
                *due_bytes += f64::from(bps) / 8_000.0;
                if *due_bytes >= 200.0 {
                    *due_bytes -= 200.0;
                    turn = (turn + 1) % 990;
                    let id = if always_new { turn } else { u16::try_from(index).unwrap() };
                    queue.push(FlowId(1 + id), None, packet(next, 200), now).unwrap();
                    next += 1;
                }
            }
            link.run(&mut queue, now, |sent, tier, flow, packet| {
                if tier == Tier::Bulk {
                    bulk_tier_bytes[usize::try_from(sent.as_micros() / 1_000_000).unwrap()] += packet.len();
                }
                if flow == bulk {
                    bulk_flow_bytes += packet.len();
                }
            });
        }
        audit(&queue);
        // A quarter of 10 Mbit/s: 312,500 bytes per second.
        assert!(
            bulk_tier_bytes[1..].iter().all(|bytes| *bytes >= 312_500),
            "{flows} × {bps}: bulk tier got {bulk_tier_bytes:?}"
        );
        let fair_bytes = 10 * 312_500 / (flows + 1);
        assert!(bulk_flow_bytes >= fair_bytes, "{flows} × {bps}: {bulk_flow_bytes} of {fair_bytes}");
    }
}

#[test]
fn a_full_queue_drops_the_oldest_of_the_fattest_flow() {
    let config = QueueConfig { bytes_max: 1_000 * (1500 + PACKET_OVERHEAD_BYTES), ..rfc_8290() };
    let mut queue = Queue::new(config);
    for next in 0..300 {
        queue.push(FlowId(1), None, packet(next, 1500), at(0)).unwrap();
    }
    for next in 300..1_000 {
        queue.push(FlowId(2), None, packet(next, 1500), at(0)).unwrap();
    }
    assert_eq!(queue.take_discards(), DiscardCounts::default());
    queue.push(FlowId(3), None, packet(1_000, 100), at(0)).unwrap();
    assert_eq!(queue.take_discards().of(Discard::QueueFull), 64);
    audit(&queue);
    let mut firsts = [None; 4];
    while let Some((_, flow, packet)) = pop_any(&mut queue, at(0)) {
        firsts[usize::from(flow.0)].get_or_insert(serial(&packet));
    }
    assert_eq!(firsts, [None, Some(0), Some(364), Some(1_000)]);
}

#[test]
fn a_batch_takes_at_most_half_of_the_fattest_flow() {
    let config = QueueConfig { bytes_max: 10 * (1000 + PACKET_OVERHEAD_BYTES), ..rfc_8290() };
    let mut queue = Queue::new(config);
    for next in 0..11 {
        queue.push(FlowId(1), None, packet(next, 1000), at(0)).unwrap();
    }
    assert_eq!(queue.take_discards().of(Discard::QueueFull), 6);
    audit(&queue);
}

#[test]
fn a_packet_larger_than_the_queue_is_refused() {
    let config = QueueConfig { bytes_max: 1_000, ..rfc_8290() };
    let mut queue = Queue::new(config);
    assert_eq!(
        queue.push(FlowId(1), None, packet(0, 1_001 - PACKET_OVERHEAD_BYTES), at(0)),
        Err(Discard::QueueFull)
    );
    assert_eq!(queue.take_discards().of(Discard::QueueFull), 1);
    assert_eq!(queue.push(FlowId(1), None, packet(0, 1_000 - PACKET_OVERHEAD_BYTES), at(0)), Ok(()));
    assert_eq!(queue.flows_active(), 1);
}

/// A megabyte of empty packets is still a megabyte.
#[test]
fn empty_packets_cost_memory_too() {
    let mut queue = Queue::new(QueueConfig { bytes_max: 1_000_000, ..rfc_8290() });
    for _ in 0..20_000 {
        queue.push(FlowId(1), None, PacketBuf::from(Bytes::new()), at(0)).unwrap();
    }
    audit(&queue);
    assert!(queue.count_pkts <= 1_000_000 / PACKET_OVERHEAD_BYTES);
}

#[test]
fn idle_flows_cost_nothing() {
    let mut queue = queue(Some(mbps(1_000)));
    assert_eq!(queue.table.capacity(), 0);
    for flow in 1..crate::qos::FLOWS {
        queue.push(FlowId(flow), None, packet(u64::from(flow), 100), at(u64::from(flow))).unwrap();
        assert!(pop_any(&mut queue, at(u64::from(flow))).is_some());
        assert!(queue.flows_active() <= 1_000, "idle for a second, yet active");
    }
    assert_eq!(queue.head(Tier::Sparse, at(1_500)), None);
    assert_eq!(queue.flows_active(), 523);
    assert_eq!(queue.waiting(at(2_023)), [false; 4]);
    assert_eq!((queue.flows_active(), queue.table.capacity()), (0, 0));
}

#[test]
#[should_panic(expected = "a queue's number is below QUEUES")]
fn an_impossible_flow_is_a_broken_invariant() {
    let _ = queue(None).push(FlowId(4 * crate::qos::FLOWS), None, packet(0, 100), at(0));
}

#[derive(Debug, Clone)]
enum Step {
    Push { flow: u16, bytes: usize, ecn: Option<u8>, count: u8 },
    Head(Tier),
    Pop { tier: Tier, count: u8 },
    Advance { us: u32 },
    Wait { tier: Tier, us: u32 },
    Rate(Option<u32>),
}

fn step() -> impl Strategy<Value = Step> {
    let tier = || prop::sample::select(TIERS.to_vec());
    let bytes = prop_oneof![4 => 28usize..200, 4 => 1_000usize..1_515, 1 => 1_515usize..30_000];
    prop_oneof![
        6 => (0u16..12, bytes, prop::option::of(0u8..4), 1u8..40)
            .prop_map(|(flow, bytes, ecn, count)| Step::Push { flow, bytes, ecn, count }),
        2 => tier().prop_map(Step::Head),
        5 => (tier(), 1u8..30).prop_map(|(tier, count)| Step::Pop { tier, count }),
        4 => (0u32..60_000).prop_map(|us| Step::Advance { us }),
        1 => (500_000u32..1_500_000).prop_map(|us| Step::Advance { us }),
        1 => (tier(), 0u32..50_000).prop_map(|(tier, us)| Step::Wait { tier, us }),
        1 => prop::option::of(0u32..1_000_000_000).prop_map(Step::Rate),
    ]
}

/// The model of a queue: per flow, the packets that went in and have not come out.
#[derive(Default)]
struct Model {
    waiting: Vec<VecDeque<(u64, usize)>>,
    pushed: u64,
    popped: u64,
    skipped: u64,
    discarded: u64,
}

impl Model {
    /// Takes a popped packet: it must be one that waits, and the packets before it must have been
    /// dropped.
    fn pop(&mut self, flow: FlowId, packet: &[u8]) {
        let waiting = &mut self.waiting[usize::from(flow.0)];
        while let Some((expected, bytes)) = waiting.pop_front() {
            if expected == serial(packet) {
                assert_eq!(bytes, packet.len());
                self.popped += 1;
                return;
            }
            assert!(expected < serial(packet), "{flow:?} out of order");
            self.skipped += 1;
        }
        panic!("{flow:?}: packet {} was not waiting", serial(packet));
    }
}

fn apply(queue: &mut Queue, model: &mut Model, now: &mut Instant, step: &Step) {
    match *step {
        Step::Push { flow, bytes, ecn, count } => {
            for _ in 0..count {
                let serial = model.pushed;
                let packet = ecn.map_or_else(|| packet(serial, bytes), |ecn| ecn_packet(serial, bytes, ecn));
                queue.push(FlowId(flow), None, packet, *now).unwrap();
                model.pushed += 1;
                model.waiting[usize::from(flow)].push_back((serial, bytes));
            }
        }
        Step::Head(tier) => {
            let shown = queue.head(tier, *now);
            assert_eq!(queue.head(tier, *now), shown);
        }
        Step::Pop { tier, count } => {
            for _ in 0..count {
                let shown = queue.head(tier, *now);
                let popped = queue.pop(tier, *now);
                assert_eq!(
                    shown.map(|shown| (shown.flow, shown.bytes)),
                    popped.as_ref().map(|(flow, packet)| (*flow, packet.len()))
                );
                if let Some((flow, packet)) = popped {
                    model.pop(flow, &packet);
                }
            }
        }
        Step::Advance { us } => *now = *now + Duration::from_micros(u64::from(us)),
        Step::Wait { tier, us } => {
            let until = *now + Duration::from_micros(u64::from(us));
            queue.on_deliberate_wait(tier, *now, until);
        }
        Step::Rate(rate) => queue.set_drain_rate(rate.map(|rate| BitRate::from_bps(u64::from(rate))), false),
    }
    let discards = queue.take_discards();
    model.discarded += discards.of(Discard::QueueFull) + discards.of(Discard::QueueDelay);
    assert_eq!(discards.iter().map(|(_, count)| count).sum::<u64>(), {
        discards.of(Discard::QueueFull) + discards.of(Discard::QueueDelay)
    });
    assert_eq!(model.pushed, model.popped + model.discarded + queue.count_pkts as u64);
    audit(queue);
}

proptest! {
    /// Arbitrary traffic: bounded memory, right counters, order within each flow, nothing lost but
    /// what is counted, head and pop agree.
    #[test]
    fn nothing_is_lost_or_reordered(
        bytes_max in 40_000usize..400_000,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut queue = Queue::new(QueueConfig { bytes_max, ..rfc_8290() });
        let mut model = Model { waiting: vec![VecDeque::new(); 12], ..Model::default() };
        let mut now = Instant::ZERO;
        for step in &steps {
            apply(&mut queue, &mut model, &mut now, step);
        }
        while let Some((_, flow, packet)) = pop_any(&mut queue, now) {
            model.pop(flow, &packet);
        }
        let discards = queue.take_discards();
        model.discarded += discards.of(Discard::QueueDelay);
        let left: u64 = model.waiting.iter().map(|waiting| waiting.len() as u64).sum();
        prop_assert_eq!(model.skipped + left, model.discarded);
        prop_assert!(queue.is_empty());
        queue.head(Tier::Sparse, now + ms(1_000));
        prop_assert_eq!(queue.flows_active(), 0);
    }

    /// Without pressure on memory or time nothing is dropped at all.
    #[test]
    fn what_fits_and_does_not_stand_comes_out_whole(
        pushes in prop::collection::vec((0u16..1024, 28usize..1_515), 1..300),
    ) {
        let mut queue = queue(None);
        for (next, (flow, bytes)) in pushes.iter().enumerate() {
            queue.push(FlowId(*flow), None, packet(next as u64, *bytes), at(0)).unwrap();
        }
        let mut popped: Vec<u64> =
            std::iter::from_fn(|| pop_any(&mut queue, at(4))).map(|(_, _, packet)| serial(&packet)).collect();
        popped.sort_unstable();
        prop_assert_eq!(popped, (0..pushes.len() as u64).collect::<Vec<_>>());
    }
}
