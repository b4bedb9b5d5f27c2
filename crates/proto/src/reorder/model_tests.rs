//! Random traffic in virtual time, compared with the rules in their plainest form.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const SWAP_SLACK_US: u64 = 2_000;
const DELAY_SLACK_US: u64 = 30_000;

/// A link of the scenario: its true delays, and the values given to the resequencer.
#[derive(Debug, Clone)]
struct Link {
    delay_us: u64,
    /// Each packet takes up to this much longer: packets of the link may overtake each other.
    spread_us: u64,
    told: LinkDelay,
    /// When the link stops or begins to be usable.
    flip_us: Option<u64>,
}

/// One sent packet.
#[derive(Debug, Clone)]
struct Send {
    slot: u64,
    /// Time since the packet before, of any slot.
    after_us: u64,
    link: u8,
    is_lost: bool,
    /// Sends a copy on this link.
    copy: Option<u8>,
    /// Share of the link's spread.
    spread_permille: u64,
}

#[derive(Debug, Clone)]
struct Scenario {
    links: Vec<Link>,
    sends: Vec<Send>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Arrival {
    at_us: u64,
    seq: u64,
    link: u8,
}

impl Scenario {
    /// The arrivals, by time.
    fn arrivals(&self) -> Vec<Arrival> {
        let mut counters = BTreeMap::new();
        let mut arrivals = Vec::new();
        let mut now_us = 0;
        for send in &self.sends {
            now_us += send.after_us;
            let counter = counters.entry(send.slot).or_insert(0);
            let seq = send.slot << 48 | *counter;
            *counter += 1;
            let first = (!send.is_lost).then_some(send.link);
            for link in first.into_iter().chain(send.copy) {
                let link = link % u8::try_from(self.links.len()).unwrap();
                let Link { delay_us, spread_us, .. } = self.links[usize::from(link)];
                let at_us = now_us + delay_us + spread_us * send.spread_permille / 1_000;
                arrivals.push(Arrival { at_us, seq, link });
            }
        }
        arrivals.sort_by_key(|arrival| arrival.at_us);
        arrivals
    }

    fn told_at(&self, now_us: u64) -> Vec<LinkDelay> {
        let told = self.links.iter().map(|link| {
            let flips = link.flip_us.is_some_and(|flip| flip <= now_us);
            LinkDelay { usable: link.told.usable != flips, ..link.told }
        });
        told.collect()
    }

    /// The same with the links in another order.
    fn reversed(&self) -> Self {
        let count = u8::try_from(self.links.len()).unwrap();
        let mut other = self.clone();
        other.links.reverse();
        for send in &mut other.sends {
            send.link = count - 1 - send.link % count;
            send.copy = send.copy.map(|link| count - 1 - link % count);
        }
        other
    }
}

/// The rules, slow and obvious. The model knows neither windows nor memory.
#[derive(Debug, Default)]
struct Model {
    is_started: bool,
    next: u64,
    held: BTreeMap<u64, (u8, u64)>,
    arrived: Vec<(u64, u8, u64)>,
    delivered: BTreeSet<u64>,
}

impl Model {
    fn arrive(&mut self, counter: u64, link: u8, now_us: u64) -> Vec<u64> {
        if !self.is_started && counter >= 64 {
            self.next = counter;
        }
        self.is_started = true;
        if counter < self.next {
            return if self.delivered.insert(counter) { vec![counter] } else { vec![] };
        }
        self.arrived.push((counter, link, now_us));
        self.held.entry(counter).or_insert((link, now_us));
        self.hand_out()
    }

    fn hand_out(&mut self) -> Vec<u64> {
        let mut out = Vec::new();
        while self.held.remove(&self.next).is_some() {
            self.delivered.insert(self.next);
            out.push(self.next);
            self.next += 1;
        }
        out
    }

    fn release_lost(&mut self, links: &[LinkDelay], now_us: u64) -> Vec<u64> {
        let mut out = Vec::new();
        while let Some((&first, &(first_link, first_us))) = self.held.first_key_value() {
            if !self.is_lost(first, first_link, first_us, links, now_us) {
                break;
            }
            self.next = first;
            out.extend(self.hand_out());
        }
        out
    }

    fn is_lost(&self, first: u64, first_link: u8, first_us: u64, links: &[LinkDelay], now_us: u64) -> bool {
        if self.held.values().any(|&(_, at_us)| at_us + 150_000 <= now_us) {
            return true;
        }
        let passed = |index: usize, link: &LinkDelay| {
            let later =
                self.arrived.iter().filter(|&&(counter, on, _)| counter >= first && usize::from(on) == index);
            let counters: BTreeSet<u64> = later.clone().map(|&(counter, _, _)| counter).collect();
            let skew_us = (link.delay_us - links[usize::from(first_link)].delay_us).max(0).unsigned_abs();
            let reorders_us = u64::try_from(link.reorders_by.as_micros()).unwrap();
            let margin_us = reorders_us.max(4 * u64::from(link.jitter_us));
            counters.len() >= 3 && reorders_us == 0
                || later.clone().any(|&(_, _, at_us)| at_us + SWAP_SLACK_US.max(reorders_us) <= now_us)
                || first_us + skew_us + margin_us + DELAY_SLACK_US <= now_us
        };
        links.iter().any(|link| link.usable)
            && links.iter().enumerate().all(|(index, link)| !link.usable || passed(index, link))
    }
}

/// Counter and time (µs) of each delivery, by slot.
type Log = BTreeMap<u64, Vec<(u64, u64)>>;

#[derive(Debug, Default)]
struct Run {
    log: Log,
    stats: ReorderStats,
    /// When each packet was accepted, by sequence number.
    accepted_us: BTreeMap<u64, u64>,
    refused: BTreeMap<&'static str, u64>,
}

fn instant(us: u64) -> Instant {
    Instant::from_nanos(us * 1_000)
}

/// Every instant at which an event other than the resequencer's own timeouts can happen.
fn instants(scenario: &Scenario, arrivals: &[Arrival]) -> BTreeSet<u64> {
    let end_us = arrivals.last().map_or(0, |last| last.at_us) + 400_000;
    let ticks = (0..end_us).step_by(1_000);
    let flips = scenario.links.iter().filter_map(|link| link.flip_us);
    ticks.chain(flips).chain(arrivals.iter().map(|arrival| arrival.at_us)).collect()
}

/// Drives a resequencer with arrivals, changes of links and its own timeouts only.
fn run(scenario: &Scenario, limits: Limits) -> Run {
    let arrivals = scenario.arrivals();
    let mut instants = instants(scenario, &arrivals);
    let mut coming = arrivals.iter().peekable();
    let mut reorder = Resequencer::new(limits);
    let mut out = VecDeque::new();
    let mut run = Run::default();
    let mut links = scenario.told_at(0);
    while let Some(now_us) = instants.pop_first() {
        let now = instant(now_us);
        let told = scenario.told_at(now_us);
        if told != links {
            links = told;
            reorder.on_links_changed();
            reorder.review(&links, now, &mut out);
        }
        while let Some(arrival) = coming.next_if(|arrival| arrival.at_us == now_us) {
            let packet = PacketBuf::from(Bytes::copy_from_slice(&arrival.seq.to_be_bytes().repeat(8)));
            match reorder.on_packet(arrival.seq, LinkId(arrival.link), packet, &links, now, &mut out) {
                Ok(()) => drop(run.accepted_us.insert(arrival.seq, now_us)),
                Err(reason) => *run.refused.entry(reason.key()).or_default() += 1,
            }
            assert!(reorder.load.memory_bytes <= limits.bytes_max);
            for slot in reorder.live.values() {
                assert!(slot.load().packets <= limits.slot_packets_max);
            }
        }
        if reorder.poll_timeout().is_some_and(|due| due <= now) {
            reorder.on_timeout(&links, now, &mut out);
        }
        for packet in out.drain(..) {
            let seq = u64::from_be_bytes(packet[..8].try_into().unwrap());
            assert_eq!(&packet[..], seq.to_be_bytes().repeat(8), "the packet is whole");
            run.log.entry(seq >> 48).or_default().push((seq & ((1 << 48) - 1), now_us));
        }
        if let Some(due) = reorder.poll_timeout() {
            assert!(due > now);
            assert_eq!(due.as_nanos() % 1_000, 0, "all times of the scenario are whole microseconds");
            if reorder.stats().held > 0 {
                instants.insert(due.as_micros());
            }
        }
    }
    run.stats = reorder.stats();
    assert_eq!((run.stats.held, run.stats.held_bytes), (0, 0), "nothing is left behind");
    run
}

/// The model's deliveries at the same instants and at each millisecond.
fn run_model(scenario: &Scenario, extra_us: &BTreeSet<u64>) -> Log {
    let arrivals = scenario.arrivals();
    let mut instants = instants(scenario, &arrivals);
    instants.extend(extra_us);
    let mut coming = arrivals.iter().peekable();
    let mut slots: BTreeMap<u64, Model> = BTreeMap::new();
    let mut log = Log::new();
    for now_us in instants {
        let links = scenario.told_at(now_us);
        let mut deliver = |slot: u64, counters: Vec<u64>| {
            if !counters.is_empty() {
                let stamped = counters.into_iter().map(|counter| (counter, now_us));
                log.entry(slot).or_default().extend(stamped);
            }
        };
        for (&slot, model) in &mut slots {
            // A change of the links takes effect before the arrivals of the same instant.
            let changed = scenario.links.iter().any(|link| link.flip_us == Some(now_us));
            if changed {
                deliver(slot, model.release_lost(&links, now_us));
            }
        }
        while let Some(arrival) = coming.next_if(|arrival| arrival.at_us == now_us) {
            let slot = arrival.seq >> 48;
            let model = slots.entry(slot).or_default();
            deliver(slot, model.arrive(arrival.seq & ((1 << 48) - 1), arrival.link, now_us));
            deliver(slot, model.release_lost(&links, now_us));
        }
        for (&slot, model) in &mut slots {
            deliver(slot, model.release_lost(&links, now_us));
        }
    }
    log
}

/// Each packet at most once; in order except those counted as late; none held beyond the cap; none
/// lost inside.
fn check_invariants(scenario: &Scenario, run: &Run) -> Result<(), TestCaseError> {
    let (mut late, mut delivered) = (0, 0);
    for (slot, log) in &run.log {
        let mut highest = None;
        let mut seen = BTreeSet::new();
        for &(counter, at_us) in log {
            prop_assert!(seen.insert(counter), "slot {slot} counter {counter} twice");
            late += u64::from(highest > Some(counter));
            highest = highest.max(Some(counter));
            let wait_us = at_us - run.accepted_us[&(slot << 48 | counter)];
            prop_assert!(wait_us <= 150_000, "held {wait_us} µs");
        }
        delivered += log.len() as u64;
    }
    prop_assert_eq!(late, run.stats.released_late);
    let refused: u64 = run.refused.values().sum();
    prop_assert_eq!(delivered + refused, scenario.arrivals().len() as u64, "{:?}", &run.refused);
    Ok(())
}

fn link(told_right: bool) -> impl Strategy<Value = Link> {
    let error_us = if told_right { 0..=0_i64 } else { -20_000..=20_000 };
    // What a link delays and reorders by is less than the longest hold.
    let delay_us = if told_right { 0..60_000_u64 } else { 0..120_000 };
    let spread_us = if told_right { 0..=80_000_u64 } else { 0..=5_000 };
    let reorders = prop::bool::weighted(0.5);
    let usable = if told_right { 1.0 } else { 0.9 };
    let flip_us =
        if told_right { Just(None).boxed() } else { prop::option::weighted(0.2, 0..200_000_u64).boxed() };
    (delay_us, spread_us, error_us, 0..2_000_u32, prop::bool::weighted(usable), flip_us, reorders).prop_map(
        move |(delay_us, spread_us, error_us, jitter_us, usable, flip_us, reorders)| Link {
            delay_us,
            spread_us: if told_right && !reorders { 0 } else { spread_us },
            told: LinkDelay {
                usable,
                delay_us: delay_us as i64 + error_us - 1_000_000,
                jitter_us,
                reorders_by: Duration::from_micros(if reorders { spread_us } else { 0 }),
                resend: Duration::ZERO,
            },
            flip_us,
        },
    )
}

fn send(lossless: bool) -> impl Strategy<Value = Send> {
    let loss = if lossless { 0.0 } else { 0.05 };
    let copy = prop::option::weighted(0.05, any::<u8>());
    let after_us = prop_oneof![8 => 0..600_u64, 1 => 0..20_000_u64];
    (0..3_u64, after_us, any::<u8>(), prop::bool::weighted(loss), copy, 0..=1_000_u64).prop_map(
        |(slot, after_us, link, is_lost, copy, spread_permille)| Send {
            slot,
            after_us,
            link,
            is_lost,
            copy,
            spread_permille,
        },
    )
}

fn scenario(clean: bool) -> impl Strategy<Value = Scenario> {
    let links = prop::collection::vec(link(clean), 1..=5);
    let sends = prop::collection::vec(send(clean), 1..400);
    (links, sends).prop_map(|(links, sends)| Scenario { links, sends })
}

/// Every instant of a delivery.
fn times(log: &Log) -> BTreeSet<u64> {
    log.values().flatten().map(|&(_, at_us)| at_us).collect()
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(scenario in scenario(false)) {
        let run = run(&scenario, Limits::default());
        check_invariants(&scenario, &run)?;
        // The model is evaluated at each millisecond too, so a late release is noticed as well.
        prop_assert_eq!(&run.log, &run_model(&scenario, &times(&run.log)));
    }

    #[test]
    fn clean_links_give_perfect_order_without_giving_up(scenario in scenario(true)) {
        // A slot whose first counter is 64 or more is taken for one under way.
        let mut seen = BTreeSet::new();
        prop_assume!(scenario.arrivals().iter().all(|arrival| {
            !seen.insert(arrival.seq >> 48) || arrival.seq & ((1 << 48) - 1) < 64
        }));
        let run = run(&scenario, Limits::default());
        check_invariants(&scenario, &run)?;
        let given_up = run.stats.timeouts + run.stats.known_losses + run.stats.overflows;
        prop_assert_eq!((given_up, run.stats.released_late), (0, 0));
        for log in run.log.values() {
            prop_assert!(log.iter().map(|&(counter, _)| counter).eq(0..log.len() as u64));
        }
    }

    #[test]
    fn the_order_of_the_links_does_not_matter(scenario in scenario(false)) {
        let (one, other) = (run(&scenario, Limits::default()), run(&scenario.reversed(), Limits::default()));
        prop_assert_eq!((one.log, one.stats), (other.log, other.stats));
    }

    #[test]
    fn a_slot_behaves_as_if_it_were_alone(scenario in scenario(false)) {
        let together = run(&scenario, Limits::default()).log;
        for slot in 0..3 {
            let mut alone = scenario.clone();
            // The other packets are still sent, but not delivered, so that the times stay the same.
            for send in alone.sends.iter_mut().filter(|send| send.slot != slot) {
                (send.is_lost, send.copy) = (true, None);
            }
            let alone = run(&alone, Limits::default()).log;
            prop_assert_eq!(together.get(&slot), alone.get(&slot));
        }
    }

    #[test]
    fn small_bounds_hold_and_break_no_promise(
        scenario in scenario(false),
        bytes_max in 1_000..20_000_usize,
        slot_packets_max in 4..64_usize,
    ) {
        let limits = Limits { bytes_max, slot_packets_max, ..Limits::default() };
        check_invariants(&scenario, &run(&scenario, limits))?;
    }

    #[test]
    fn no_input_panics_or_exceeds_the_bounds(
        packets in prop::collection::vec(
            (any::<u8>(), prop_oneof![any::<u64>(), 0..64_u64, (1_u64 << 48) - 64..1 << 48], any::<u8>(), any::<u64>()),
            1..300,
        ),
        links in prop::collection::vec((any::<bool>(), any::<i64>(), any::<u32>(), 0..500_u64, 0..300_u64), 0..4),
        (bytes_max, slot_packets_max, slots_max) in (0..50_000_usize, 0..5_000_usize, 0..5_usize),
        steps_us in prop::collection::vec(0..3_000_000_u64, 300),
    ) {
        let links: Vec<LinkDelay> = links
            .into_iter()
            .map(|(usable, delay_us, jitter_us, resend_ms, reorders_ms)| LinkDelay {
                usable,
                delay_us,
                jitter_us,
                reorders_by: Duration::from_millis(reorders_ms),
                resend: Duration::from_millis(resend_ms),
            })
            .collect();
        let limits = Limits { bytes_max, slot_packets_max, slots_max, ..Limits::default() };
        let mut reorder = Resequencer::new(limits);
        let mut out = VecDeque::new();
        let mut now_us = 0;
        let (mut taken, total) = (0, packets.len());
        for ((slot, counter, link, step), step_us) in packets.into_iter().zip(steps_us) {
            now_us += if step % 4 == 0 { step_us } else { 0 };
            let seq = u64::from(slot % 8) << 48 | (counter & ((1 << 48) - 1));
            let packet = PacketBuf::from(Bytes::from(vec![0; usize::from(slot)]));
            let now = instant(now_us);
            taken += usize::from(reorder.on_packet(seq, LinkId(link), packet, &links, now, &mut out).is_ok());
            prop_assert!(reorder.load.memory_bytes <= bytes_max);
            prop_assert!(reorder.live.len() + reorder.dormant.len() <= slots_max.max(1));
            prop_assert_eq!(reorder.idle.len() + reorder.holding.len(), reorder.live.len());
            reorder.on_timeout(&links, now, &mut out);
            prop_assert!(reorder.poll_timeout().is_none_or(|due| due > now));
        }
        reorder.reset(&mut out);
        prop_assert_eq!(out.len(), taken, "of {} packets", total);
    }
}
