//! Tests of the pipe's contract, through its public interface.

use std::sync::Arc;
use std::time::Duration;

use crate::{
    Change, Counters, DropReason, Flow, Jitter, Limit, Loss, Outcome, Pipe, PipeConfig, Police, Rate, Time,
    Trace, Walk,
};
use proptest::prelude::*;

fn at_ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// All packets that leave after `now` and by `until`, with their times, driven by `poll_timeout`
/// alone. A busy loop fails.
fn drain_from<T: Clone>(pipe: &mut Pipe<T>, mut now: Time, until: Time) -> Vec<(Time, T)> {
    let mut out = Vec::new();
    loop {
        while let Some(payload) = pipe.poll_deliver(now) {
            out.push((now, payload));
        }
        match pipe.poll_timeout() {
            Some(next) if next <= until => {
                assert!(next > now, "a timeout that does not lie ahead: {next:?} at {now:?}");
                now = next;
            }
            _ => return out,
        }
    }
}

fn drain<T: Clone>(pipe: &mut Pipe<T>, until: Time) -> Vec<(Time, T)> {
    drain_from(pipe, Time::ZERO, until)
}

/// Offers packets of these sizes at these times and waits for all; returns the arrivals as (time,
/// number).
fn replay(pipe: &mut Pipe<usize>, packets: &[(u32, Time)]) -> Vec<(Time, usize)> {
    let (mut now, mut out) = (Time::ZERO, Vec::new());
    for (i, (bytes, at)) in packets.iter().enumerate() {
        out.extend(drain_from(pipe, now, *at));
        now = *at;
        pipe.enqueue(i, *bytes, now);
    }
    out.extend(drain_from(pipe, now, at_ms(100_000_000)));
    out
}

fn assert_conserved(counters: &Counters) {
    assert_eq!(
        counters.offered_pkts + counters.duplicated_pkts,
        counters.delivered_pkts + counters.drops.total_pkts() + counters.queue_pkts + counters.in_flight_pkts,
        "{counters:?}"
    );
}

fn constant(bps: u64) -> PipeConfig {
    PipeConfig { rate: Rate::from_bps(bps), limit: Limit::Bytes(u64::MAX), ..PipeConfig::default() }
}

#[test]
fn a_rate_does_not_drift() {
    // 1500 bytes at 7 Mbit/s take 1,714,285.714… ns: rounding each up would end 285 µs late after
    // 1,000 packets.
    let mut pipe = Pipe::new(constant(7_000_000), 1);
    for i in 0..1_000_000_u64 {
        pipe.enqueue(i, 1_500, Time::ZERO);
    }
    let out = drain(&mut pipe, at_ms(10_000_000));
    let expected = (1_000_000_u128 * 12_000 * 1_000_000_000).div_ceil(7_000_000);
    assert_eq!(u128::from(out.last().unwrap().0.as_nanos()), expected);
}

#[test]
fn queue_rate_and_delay_add_up() {
    let config = PipeConfig { delay: Duration::from_millis(30), ..constant(12_000_000) };
    let mut pipe = Pipe::new(config, 1);
    // One packet takes 1 ms; the second waits for the first.
    pipe.enqueue('a', 1_500, at_ms(5));
    pipe.enqueue('b', 750, at_ms(5));
    assert_eq!(drain(&mut pipe, at_ms(100)), [(at_ms(36), 'a'), (Time::from_micros(36_500), 'b')]);
    assert_eq!(pipe.poll_timeout(), None);
}

#[test]
fn a_queue_is_as_long_as_it_takes_to_empty() {
    let mut pipe = Pipe::new(constant(12_000_000), 1);
    assert_eq!(pipe.queue_delay(), Some(Duration::ZERO));
    for i in 0..4 {
        pipe.enqueue(i, 1_500, Time::ZERO);
    }
    assert_eq!(pipe.queue_delay(), Some(Duration::from_millis(4)));
    // Half of the second is done.
    pipe.advance(Time::from_micros(1_500));
    assert_eq!(pipe.queue_delay(), Some(Duration::from_micros(2_500)));
    pipe.apply(Change::Rate(Rate::from_bps(6_000_000)), Time::from_micros(1_500));
    assert_eq!(pipe.queue_delay(), Some(Duration::from_millis(5)));
    pipe.apply(Change::Rate(Rate::from_bps(0)), Time::from_micros(1_500));
    assert_eq!(pipe.queue_delay(), None);
    // Of a trace, future opportunities count: two packets take those at 10 and 20 ms.
    let rate = Rate::Trace(std::sync::Arc::new(crate::Trace::from_millis(vec![10]).unwrap()));
    let mut pipe = Pipe::new(PipeConfig { rate, ..PipeConfig::default() }, 1);
    pipe.apply(Change::Limit(Limit::Bytes(10_000)), at_ms(1));
    pipe.enqueue(0, 1_500, at_ms(1));
    pipe.enqueue(1, 1_500, at_ms(1));
    assert_eq!(pipe.queue_delay(), Some(Duration::from_millis(19)));
}

#[test]
fn a_late_driver_gets_the_same_packets() {
    let mut pipe = Pipe::new(constant(12_000_000), 1);
    for i in 0..10 {
        pipe.enqueue(i, 1_500, Time::ZERO);
    }
    let out: Vec<_> = std::iter::from_fn(|| pipe.poll_deliver(at_ms(1_000))).collect();
    assert_eq!(out, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_changed_rate_counts_for_the_packet_in_service() {
    let mut pipe = Pipe::new(constant(12_000_000), 1);
    pipe.enqueue((), 1_500, Time::ZERO);
    // Half is done after 0.5 ms; the other half takes 5 ms at a tenth of the rate.
    pipe.apply(Change::Rate(Rate::from_bps(1_200_000)), Time::from_micros(500));
    assert_eq!(pipe.poll_timeout(), Some(Time::from_micros(5_500)));
    // Stalled: the packet never ends; later it continues.
    pipe.apply(Change::Rate(Rate::from_bps(0)), Time::from_micros(3_000));
    assert_eq!(pipe.poll_timeout(), None);
    pipe.apply(Change::Rate(Rate::Unlimited), at_ms(50));
    assert_eq!(pipe.poll_deliver(at_ms(50)), Some(()));
}

#[test]
fn scheduled_changes_happen_at_their_time() {
    let mut pipe = Pipe::new(constant(0), 1);
    pipe.schedule(at_ms(20), Change::Rate(Rate::from_bps(12_000_000)));
    pipe.schedule(at_ms(10), Change::Delay(Duration::from_millis(3)));
    pipe.enqueue((), 1_500, Time::ZERO);
    assert_eq!(drain(&mut pipe, at_ms(100)), [(at_ms(24), ())]);
}

#[test]
fn an_outage_loses_what_is_inside_and_what_is_offered() {
    let config = PipeConfig { delay: Duration::from_millis(10), ..constant(12_000_000) };
    let mut pipe = Pipe::new(config, 1);
    for i in 0..30 {
        pipe.enqueue(i, 1_500, Time::ZERO);
    }
    // By 15 ms five packets have arrived (1 ms each, 10 ms of delay), though none was fetched yet.
    pipe.schedule(at_ms(15), Change::Outage(true));
    pipe.schedule(at_ms(40), Change::Outage(false));
    assert_eq!(pipe.enqueue(99, 1_500, at_ms(39)), Outcome::Dropped(DropReason::Outage));
    let out: Vec<_> = std::iter::from_fn(|| pipe.poll_deliver(at_ms(39))).collect();
    assert_eq!(out, [0, 1, 2, 3, 4]);
    assert_eq!(pipe.counters().drops.outage_pkts, 26);
    pipe.enqueue(100, 1_500, at_ms(40));
    assert_eq!(pipe.poll_deliver(at_ms(51)), Some(100));
    assert_conserved(&pipe.counters());
}

#[test]
fn a_packet_beyond_the_mtu_vanishes() {
    let mut pipe = Pipe::new(PipeConfig { mtu: Some(1_400), ..PipeConfig::default() }, 1);
    assert_eq!(pipe.enqueue((), 1_401, Time::ZERO), Outcome::Dropped(DropReason::Mtu));
    assert_eq!(pipe.enqueue((), 1_400, Time::ZERO), Outcome::Queued);
    assert_eq!(pipe.counters().drops.mtu_pkts, 1);
}

#[test]
fn the_queue_holds_its_time_and_no_more() {
    // 100 ms at 12 Mbit/s are 100 full packets.
    let mut pipe =
        Pipe::new(PipeConfig { limit: Limit::Time(Duration::from_millis(100)), ..constant(12_000_000) }, 1);
    let queued = (0..200).filter(|i| pipe.enqueue(*i, 1_500, Time::ZERO).is_queued()).count();
    assert_eq!(queued, 100);
    assert_eq!(pipe.counters().queue_bytes_max, 150_000);
    assert_eq!(drain(&mut pipe, at_ms(1_000)).last().unwrap().0, at_ms(100));
    // One packet always fits.
    let mut pipe = Pipe::new(PipeConfig { limit: Limit::Bytes(10), ..constant(12_000_000) }, 1);
    assert!(pipe.enqueue(0, 1_500, Time::ZERO).is_queued());
    assert!(!pipe.enqueue(1, 1_500, Time::ZERO).is_queued());
}

#[test]
fn an_opportunity_carries_small_packets_together_and_large_ones_in_parts() {
    let trace = Arc::new(Trace::from_millis(vec![2, 5, 5, 10]).unwrap());
    let config =
        PipeConfig { rate: Rate::Trace(trace), limit: Limit::Bytes(u64::MAX), ..PipeConfig::default() };
    let mut pipe = Pipe::new(config, 1);
    for (name, bytes) in [("a", 500), ("b", 500), ("c", 1_000), ("d", 3_000)] {
        pipe.enqueue(name, bytes, Time::ZERO);
    }
    // At 2: a, b and half of c. At 5 (twice): the rest of c, 2,500 of d. At 10: the rest of d.
    let out = drain(&mut pipe, at_ms(100));
    assert_eq!(out, [(at_ms(2), "a"), (at_ms(2), "b"), (at_ms(5), "c"), (at_ms(10), "d")]);
    // The trace repeats every 10 ms; opportunities that found an empty queue are lost.
    pipe.enqueue("e", 1_500, at_ms(23));
    pipe.enqueue("f", 1_500, at_ms(23));
    pipe.enqueue("g", 1_500, at_ms(23));
    let out: Vec<_> = std::iter::from_fn(|| pipe.poll_deliver(at_ms(25))).collect();
    assert_eq!(out, ["e", "f"]);
    assert_eq!(pipe.poll_timeout(), Some(at_ms(30)));
}

#[test]
fn a_trace_counts_its_bytes() {
    let trace = Trace::parse("# comment\n2\n5\n5\n\n10\n").unwrap();
    assert_eq!((trace.period_ms(), trace.opportunities(), trace.mean_bps()), (10, 4, 4_800_000));
    assert_eq!(trace.bytes_between(Time::ZERO, at_ms(1_000)), 400 * 1_500 - 1_500);
    assert_eq!(trace.bytes_between(at_ms(5), at_ms(6)), 3_000);
    for (text, wanted) in
        [("", "empty"), ("0\n0\n", "period"), ("3\n2\n", "entry 2"), ("1\nx\n", "line 2: 'x'"), ("-1", "-1")]
    {
        let message = Trace::parse(text).unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
    }
}

#[test]
fn a_walk_repeats_by_seed_and_differs_between_seeds() {
    let walk = |seed| {
        Walk {
            min_bps: 1_000_000,
            max_bps: 60_000_000,
            step: Duration::from_millis(200),
            factor_max: 1.5,
            period: Duration::from_secs(10),
            seed,
        }
        .trace()
        .unwrap()
    };
    assert_eq!(walk(1), walk(1));
    assert_ne!(walk(1), walk(2));
}

#[test]
fn the_peak_is_the_best_second() {
    // Ten opportunities in the first half second, one in the other three.
    let mut at_ms: Vec<u32> = (1..=10).map(|part| part * 50).collect();
    at_ms.push(2_000);
    let trace = Trace::from_millis(at_ms).unwrap();
    assert_eq!(trace.peak_bps(), 11 * 1_500 * 8);
    assert_eq!(trace.mean_bps(), 11 * 1_500 * 8 / 2);
    assert_eq!(Rate::Trace(trace.into()).peak_bps(), Some(132_000));
    assert_eq!(Rate::from_mbps(3).peak_bps(), Some(3_000_000));
}

#[test]
fn duplicates_arrive_right_behind() {
    let mut pipe = Pipe::new(PipeConfig { duplicate: 1.0, ..PipeConfig::default() }, 1);
    pipe.enqueue('a', 100, Time::ZERO);
    pipe.enqueue('b', 100, Time::ZERO);
    let out: Vec<_> = std::iter::from_fn(|| pipe.poll_deliver(Time::ZERO)).collect();
    assert_eq!(out, ['a', 'a', 'b', 'b']);
    assert_conserved(&pipe.counters());
}

#[test]
fn a_shorter_delay_lets_no_packet_overtake() {
    let mut pipe = Pipe::new(PipeConfig { delay: Duration::from_millis(50), ..PipeConfig::default() }, 1);
    pipe.enqueue('a', 100, Time::ZERO);
    pipe.apply(Change::Delay(Duration::from_millis(10)), at_ms(1));
    pipe.enqueue('b', 100, at_ms(2));
    assert_eq!(drain_from(&mut pipe, at_ms(2), at_ms(60)), [(at_ms(50), 'a'), (at_ms(50), 'b')]);
    pipe.enqueue('c', 100, at_ms(60));
    assert_eq!(drain_from(&mut pipe, at_ms(60), at_ms(100)), [(at_ms(70), 'c')]);
}

/// The delays of packets sent every `gap_us`, in the order of sending, and how many arrived behind
/// a later one.
fn jittered(reorder: bool, gap_us: u64) -> (Vec<Duration>, usize) {
    let jitter = Jitter::uniform(Duration::from_millis(10), reorder);
    let mut pipe =
        Pipe::new(PipeConfig { delay: Duration::from_millis(20), jitter, ..PipeConfig::default() }, 1);
    let packets: Vec<_> = (0..5_000).map(|i| (100, Time::from_micros(i * gap_us))).collect();
    let mut out = replay(&mut pipe, &packets);
    assert_eq!(out.len(), packets.len());
    let overtaken = out.windows(2).filter(|pair| pair[0].1 > pair[1].1).count();
    out.sort_by_key(|(_, i)| *i);
    (out.iter().map(|(at, i)| *at - packets[*i].1).collect(), overtaken)
}

#[test]
fn jitter_stays_within_its_span_and_uses_it() {
    for (reorder, gap_us) in [(false, 1_000), (false, 10), (true, 1_000), (true, 10)] {
        let (delays, overtaken) = jittered(reorder, gap_us);
        let (min, max) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        assert!(*min >= Duration::from_millis(20) && *max <= Duration::from_millis(30), "{min:?} to {max:?}");
        // Ten microseconds apart they are all sent within three of the 20 ms steps.
        if gap_us == 1_000 {
            assert!(*max - *min > Duration::from_millis(9), "{min:?} to {max:?}");
        }
        assert_eq!(overtaken > 0, reorder);
    }
}

#[test]
fn ordered_jitter_wanders_rather_than_jumps() {
    // The delay of a packet does not depend on the number of other packets: every hundredth packet
    // of the dense series is sent at the time of a sparse one, and takes as long.
    let (sparse, _) = jittered(false, 1_000);
    let (dense, _) = jittered(false, 10);
    for (delay, other) in sparse.iter().zip(dense.iter().step_by(100)) {
        assert_eq!(delay, other);
    }
    // From one packet to the next, 1 ms later, at most a twentieth of the span (a step of 20 ms)
    // more or less.
    let largest = sparse.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max().unwrap();
    assert!(largest <= Duration::from_micros(501), "{largest:?}");
}

/// The delays of packets sent every millisecond over a link with normal jitter of 5 ms, in the
/// order of sending, and how many arrived behind a later one.
fn normal_delays(delay_ms: u64, correlation: f64, reorder: bool) -> (Vec<f64>, usize) {
    let jitter = Jitter::normal(Duration::from_millis(5), correlation, reorder);
    let delay = Duration::from_millis(delay_ms);
    let mut pipe = Pipe::new(PipeConfig { delay, jitter, ..PipeConfig::default() }, 1);
    let packets: Vec<_> = (0..100_000).map(|i| (100, Time::from_millis(i))).collect();
    let mut out = replay(&mut pipe, &packets);
    assert_eq!(out.len(), packets.len());
    let overtaken = out.windows(2).filter(|pair| pair[0].1 > pair[1].1).count();
    out.sort_by_key(|(_, i)| *i);
    (out.iter().map(|(at, i)| (*at - packets[*i].1).as_secs_f64() * 1e3).collect(), overtaken)
}

/// Mean, standard deviation and the correlation of neighbours.
fn moments(values: &[f64]) -> (f64, f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
    let both = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum::<f64>() / count;
    (mean, variance.sqrt(), both / variance)
}

#[test]
fn normal_jitter_lies_around_the_delay_whatever_its_correlation() {
    for correlation in [0.0, 0.5, 0.9] {
        let (delays, overtaken) = normal_delays(50, correlation, true);
        let (mean, deviation, measured) = moments(&delays);
        // With correlation 0.9 a nineteenth of the samples count as independent: the mean's
        // deviation is 0.07 ms.
        assert!((mean - 50.0).abs() < 0.3, "{correlation}: mean {mean}");
        assert!((deviation - 5.0).abs() < 0.2, "{correlation}: deviation {deviation}");
        assert!((measured - correlation).abs() < 0.02, "{correlation}: {measured}");
        assert!(overtaken > 10_000, "{overtaken}");
    }
}

#[test]
fn a_delay_never_falls_below_zero() {
    let (delays, _) = normal_delays(5, 0.0, true);
    // A sixth of a normal distribution lies more than one deviation below its mean.
    let at_once = delays.iter().filter(|delay| **delay == 0.0).count() as f64 / delays.len() as f64;
    assert!((at_once - 0.158_7).abs() < 0.006, "{at_once}");
}

#[test]
fn normal_jitter_in_order_is_the_latest_of_the_packets_so_far() {
    let (free, _) = normal_delays(50, 0.9, true);
    let (ordered, overtaken) = normal_delays(50, 0.9, false);
    assert_eq!(overtaken, 0);
    let mut due_last = 0.0_f64;
    for (sent_ms, (free, ordered)) in (0_u32..).zip(free.iter().zip(&ordered)) {
        due_last = due_last.max(f64::from(sent_ms) + free);
        assert!((f64::from(sent_ms) + ordered - due_last).abs() < 1e-6, "{sent_ms}");
    }
}

#[test]
fn a_change_of_jitter_holds_for_the_packets_behind_it() {
    let mut pipe = Pipe::new(PipeConfig { delay: Duration::from_millis(50), ..PipeConfig::default() }, 1);
    let wobbles = Jitter::normal(Duration::from_millis(5), 0.0, true);
    pipe.schedule(at_ms(10), Change::Jitter(wobbles));
    pipe.schedule(at_ms(20), Change::Jitter(Jitter::default()));
    let packets: Vec<_> = (0..30).map(|i| (100, at_ms(i))).collect();
    let out = replay(&mut pipe, &packets);
    let steady = |from: usize, to: usize| {
        out.iter()
            .filter(|(at, i)| (from..to).contains(i) && *at - packets[*i].1 == Duration::from_millis(50))
            .count()
    };
    assert_eq!((steady(0, 10), steady(10, 20), steady(20, 30)), (10, 0, 10));
}

#[test]
fn lost_packets_have_used_the_rate() {
    let config = PipeConfig { loss: Loss::Random { ratio: 0.5 }, ..constant(12_000_000) };
    let mut pipe = Pipe::new(config, 1);
    for _ in 0..20 {
        pipe.enqueue((), 1_500, Time::ZERO);
    }
    pipe.advance(at_ms(10));
    let counters = pipe.counters();
    assert_eq!((counters.carried_pkts, counters.carried_bytes), (10, 15_000));
    assert!(counters.drops.loss_pkts > 0 && counters.in_flight_pkts < 10);
}

fn policed(rate_bps: u64, burst_bytes: u64, per_flow: bool) -> PipeConfig {
    PipeConfig { police: Some(Police { rate_bps, burst_bytes, per_flow }), ..constant(100_000_000) }
}

#[test]
fn a_policer_passes_its_burst_and_then_its_rate_without_a_queue() {
    let mut pipe = Pipe::new(policed(8_000_000, 15_000, false), 1);
    // 10 packets are the burst; then a packet of 1,500 bytes passes each 1.5 ms.
    let packets: Vec<_> = (0..2_000).map(|i| (1_500, Time::from_micros(i * 150))).collect();
    let out = replay(&mut pipe, &packets);
    // At 100 Mbit/s.
    let served = Duration::from_micros(120);
    // What passes finds no queue: it takes the time of its own bytes.
    assert!(out.iter().all(|(at, i)| *at - packets[*i].1 == served));
    // The burst and the rate: 15,000 bytes and 1,000 a millisecond.
    for (passed, (at, _)) in out.iter().enumerate() {
        let sent = (passed as u64 + 1) * 1_500;
        assert!(sent <= 15_000 + (at.as_nanos() - 120_000) / 1_000, "{sent} bytes by {at:?}");
    }
    let counters = pipe.counters();
    assert_eq!((out.len(), counters.drops.police_pkts), (209, 2_000 - 209));
    assert_eq!(counters.drops.total_pkts(), counters.drops.police_pkts);
    assert_conserved(&counters);
    assert_eq!(pipe.enqueue(0, 15_001, at_ms(5_000)), Outcome::Dropped(DropReason::Policed));
}

#[test]
fn a_policer_of_flows_has_a_bucket_for_each() {
    for (per_flow, passed) in [(true, 40), (false, 10)] {
        let mut pipe = Pipe::new(policed(8_000, 15_000, per_flow), 1);
        pipe.apply(Change::Limit(Limit::Bytes(u64::MAX)), Time::ZERO);
        let flows =
            [1, 2, 3, 4].map(|port| Flow::udp(([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], 9).into()));
        for _ in 0..20 {
            for flow in flows {
                pipe.enqueue_flow((), 1_500, flow, Time::ZERO);
            }
        }
        assert_eq!(drain(&mut pipe, at_ms(1_000)).len(), passed);
    }
}

#[test]
fn packets_leave_at_the_grants() {
    let config = PipeConfig {
        grid: Duration::from_millis(5),
        delay: Duration::from_millis(20),
        ..constant(12_000_000)
    };
    // A packet takes a millisecond, so a grant carries five.
    let mut pipe = Pipe::new(config, 1);
    let packets: Vec<_> = (0..12).map(|_| (1_500, at_ms(2))).collect();
    let arrivals: Vec<_> =
        replay(&mut pipe, &packets).iter().map(|(at, _)| at.as_nanos() / 1_000_000).collect();
    assert_eq!(arrivals, [25, 25, 25, 30, 30, 30, 30, 30, 35, 35, 35, 35]);
    pipe.apply(Change::Grid(Duration::ZERO), at_ms(200_000_000));
    pipe.enqueue(12, 1_500, at_ms(200_000_000));
    assert_eq!(pipe.poll_timeout(), Some(at_ms(200_000_021)));
}

#[test]
fn bursts_hold_what_arrives_within_their_time() {
    let config = PipeConfig { gather: Duration::from_millis(4), ..PipeConfig::default() };
    let mut pipe = Pipe::new(config.clone(), 1);
    let packets: Vec<_> = [0, 1, 4, 5, 8, 20, 24, 25].map(|ms| (100, at_ms(ms))).to_vec();
    let arrivals: Vec<_> =
        replay(&mut pipe, &packets).iter().map(|(at, _)| at.as_nanos() / 1_000_000).collect();
    assert_eq!(arrivals, [4, 4, 4, 9, 9, 24, 24, 29]);
    // Packets that overtake others are in the burst of the time at which they arrive.
    let jitter = Jitter::normal(Duration::from_millis(5), 0.0, true);
    let delay = Duration::from_millis(50);
    let mut free = Pipe::new(PipeConfig { jitter, delay, ..PipeConfig::default() }, 1);
    let mut bursty = Pipe::new(PipeConfig { jitter, delay, ..config }, 1);
    let packets: Vec<_> = (0..1_000).map(|i| (100, Time::from_micros(i * 700))).collect();
    let (free, bursty) = (replay(&mut free, &packets), replay(&mut bursty, &packets));
    assert_eq!(
        free.iter().map(|(_, i)| i).collect::<Vec<_>>(),
        bursty.iter().map(|(_, i)| i).collect::<Vec<_>>()
    );
    let mut release = Time::ZERO;
    for ((due, _), (at, _)) in free.iter().zip(&bursty) {
        if *due > release {
            release = *due + Duration::from_millis(4);
        }
        assert_eq!(*at, release);
    }
}

#[test]
fn bursts_are_the_same_for_a_late_driver() {
    let config = PipeConfig {
        gather: Duration::from_millis(4),
        delay: Duration::from_millis(30),
        jitter: Jitter::normal(Duration::from_millis(5), 0.5, true),
        ..constant(12_000_000)
    };
    let offer = |pipe: &mut Pipe<usize>| {
        for i in 0..60 {
            pipe.enqueue(i, 1_500, Time::ZERO);
        }
    };
    let mut prompt = Pipe::new(config.clone(), 1);
    offer(&mut prompt);
    let wanted: Vec<_> = drain(&mut prompt, at_ms(1_000)).into_iter().map(|(_, i)| i).collect();
    let mut late = Pipe::new(config, 1);
    offer(&mut late);
    let mut got = Vec::new();
    for ms in (0..1_000).step_by(37) {
        got.extend(std::iter::from_fn(|| late.poll_deliver(at_ms(ms))));
    }
    assert_eq!(got, wanted);
}

/// The loss ratio and mean burst length of `count` packets.
fn loss_pattern(loss: Loss, seed: u64, count: u64) -> (f64, f64) {
    let mut pipe = Pipe::new(PipeConfig { loss, ..PipeConfig::default() }, seed);
    let mut arrived = vec![false; usize::try_from(count).unwrap()];
    for i in 0..count {
        pipe.enqueue(usize::try_from(i).unwrap(), 100, Time::from_micros(i));
        while let Some(i) = pipe.poll_deliver(Time::from_micros(i)) {
            arrived[i] = true;
        }
    }
    let lost = arrived.iter().filter(|arrived| !**arrived).count();
    assert_eq!(pipe.counters().drops.loss_pkts, lost as u64);
    let bursts =
        arrived.iter().zip(std::iter::once(&true).chain(&arrived)).filter(|(now, before)| !**now && **before);
    (lost as f64 / count as f64, lost as f64 / bursts.count() as f64)
}

#[test]
fn random_loss_has_its_ratio() {
    for seed in 0..5 {
        let (ratio, burst) = loss_pattern(Loss::Random { ratio: 0.02 }, seed, 200_000);
        // Five standard deviations: sqrt(0.02 × 0.98 / 200,000) = 0.00031.
        assert!((ratio - 0.02).abs() < 0.0016, "{ratio}");
        // Independent losses of probability p have bursts of 1 / (1 - p).
        assert!((burst - 1.0 / 0.98).abs() < 0.02, "{burst}");
    }
    assert_eq!(loss_pattern(Loss::Random { ratio: 1.0 }, 1, 100).0, 1.0);
}

#[test]
fn gilbert_elliott_has_its_ratio_and_burst_length() {
    for seed in 0..5 {
        let loss = Loss::bursts(0.03, 8.0);
        assert!((loss.mean_ratio() - 0.03).abs() < 1e-12);
        let (ratio, burst) = loss_pattern(loss, seed, 500_000);
        // About 1,875 bursts of geometric length: the mean's deviation is 7.5 / sqrt(1,875) = 0.17.
        assert!((burst - 8.0).abs() < 0.9, "{burst}");
        assert!((ratio - 0.03).abs() < 0.005, "{ratio}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Enqueue { bytes: u32 },
    Wait { micros: u64 },
    Poll,
    Rate(u64),
    Outage(bool),
    Delay(u64),
}

fn steps(changes: bool) -> impl Strategy<Value = Vec<Step>> {
    let traffic = prop_oneof![
        4 => (20_u32..9_000).prop_map(|bytes| Step::Enqueue { bytes }),
        3 => (0_u64..5_000).prop_map(|micros| Step::Wait { micros }),
        1 => Just(Step::Poll),
    ];
    let change = prop_oneof![
        (0_u64..100).prop_map(|mbps| Step::Rate(mbps * 1_000_000)),
        any::<bool>().prop_map(Step::Outage),
        (0_u64..50).prop_map(Step::Delay),
    ];
    let weight = if changes { 1 } else { 0 };
    prop::collection::vec(prop_oneof![8 => traffic, weight => change], 1..300)
}

fn rates() -> impl Strategy<Value = Rate> {
    prop_oneof![
        1 => Just(Rate::Unlimited),
        3 => (100_000_u64..1_000_000_000).prop_map(Rate::from_bps),
        3 => prop::collection::vec(1_u32..200, 1..100).prop_map(|mut at_ms| {
            at_ms.sort_unstable();
            Rate::Trace(Arc::new(Trace::from_millis(at_ms).unwrap()))
        }),
    ]
}

fn configs() -> impl Strategy<Value = PipeConfig> {
    let jitter = (0_u64..20, 0.0..1.0, any::<bool>(), any::<bool>()).prop_map(
        |(millis, correlation, is_normal, reorder)| {
            let size = Duration::from_millis(millis);
            if is_normal {
                Jitter::normal(size, correlation, reorder)
            } else {
                Jitter::uniform(size, reorder)
            }
        },
    );
    let loss = prop_oneof![
        Just(Loss::None),
        (0.0..1.0).prop_map(|ratio| Loss::Random { ratio }),
        (0.0..1.0, 0.0..1.0).prop_map(|(enter, leave)| Loss::GilbertElliott {
            enter,
            leave,
            loss_good: 0.0,
            loss_bad: 1.0
        }),
    ];
    let limit = prop_oneof![
        (0_u64..200_000).prop_map(Limit::Bytes),
        (0_u64..200).prop_map(|millis| Limit::Time(Duration::from_millis(millis))),
    ];
    let police = prop_oneof![
        2 => Just(None),
        1 => (100_000_u64..100_000_000, 1_500_u64..100_000).prop_map(|(rate_bps, burst_bytes)| {
            Some(Police { rate_bps, burst_bytes, per_flow: false })
        }),
    ];
    let times = (0_u64..20, 0_u64..20).prop_map(|(grid, gather)| {
        (Duration::from_millis(grid / 2), Duration::from_millis(gather.saturating_sub(10)))
    });
    (rates(), 0_u64..100, jitter, loss, limit, 0.0..0.5, police, times).prop_map(
        |(rate, delay, jitter, loss, limit, duplicate, police, (grid, gather))| PipeConfig {
            police,
            grid,
            gather,
            rate,
            delay: Duration::from_millis(delay),
            jitter,
            loss,
            limit,
            duplicate,
            ..PipeConfig::default()
        },
    )
}

/// Runs the steps and checks conservation after each; returns the arrivals as (time, number), and
/// the final counters.
fn run(config: &PipeConfig, seed: u64, steps: &[Step]) -> (Vec<(Time, usize)>, Counters) {
    let mut pipe = Pipe::new(config.clone(), seed);
    let (mut now, mut sent, mut out) = (Time::ZERO, 0, Vec::new());
    for step in steps {
        match *step {
            Step::Enqueue { bytes } => {
                pipe.enqueue(sent, bytes, now);
                sent += 1;
            }
            Step::Wait { micros } => {
                // As a driver should: it wakes at each timeout on the way.
                let until = now + Duration::from_micros(micros);
                while let Some(next) = pipe.poll_timeout().filter(|next| *next <= until) {
                    now = now.max(next);
                    out.extend(std::iter::from_fn(|| pipe.poll_deliver(now)).map(|payload| (now, payload)));
                    assert!(pipe.poll_timeout().is_none_or(|next| next > now), "busy loop");
                }
                now = until;
            }
            Step::Poll => {
                out.extend(std::iter::from_fn(|| pipe.poll_deliver(now)).map(|payload| (now, payload)))
            }
            Step::Rate(bps) => pipe.apply(Change::Rate(Rate::from_bps(bps)), now),
            Step::Outage(outage) => pipe.apply(Change::Outage(outage), now),
            Step::Delay(millis) => pipe.apply(Change::Delay(Duration::from_millis(millis)), now),
        }
        assert_conserved(&pipe.counters());
    }
    (out, pipe.counters())
}

proptest! {
    #[test]
    fn everything_is_conserved_and_repeats(config in configs(), seed: u64, steps in steps(true)) {
        let first = run(&config, seed, &steps);
        prop_assert_eq!(&first, &run(&config, seed, &steps));
        if !config.jitter.reorder {
            prop_assert!(first.0.windows(2).all(|pair| pair[0].1 <= pair[1].1), "out of order");
        }
        prop_assert!(first.0.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }

    #[test]
    fn the_queue_stays_within_its_limit(bps in 100_000_u64..1_000_000_000, limit in 0_u64..200_000, steps in steps(false)) {
        let config = PipeConfig { limit: Limit::Bytes(limit), ..constant(bps) };
        let (_, counters) = run(&config, 1, &steps);
        // One packet always fits, the largest here has 9,000 bytes.
        prop_assert!(counters.queue_bytes_max <= limit.max(9_000));
    }

    #[test]
    fn a_constant_rate_is_never_exceeded(bps in 100_000_u64..1_000_000_000, sizes in prop::collection::vec(20_u32..2_000, 2..200)) {
        let packets: Vec<_> = sizes.iter().zip(0..).map(|(bytes, i)| (*bytes, Time::from_micros(i * 100))).collect();
        let out = replay(&mut Pipe::new(constant(bps), 1), &packets);
        prop_assert_eq!(out.len(), sizes.len());
        for (first, (from, _)) in out.iter().enumerate() {
            let mut bits = 0_u128;
            for (to, i) in &out[first + 1..] {
                bits += u128::from(sizes[*i]) * 8;
                // Between the ends of two packets no more bytes pass than the rate allows in that
                // time; both ends are whole nanoseconds.
                let nanos = u128::from(to.as_nanos() - from.as_nanos()) + 1;
                prop_assert!(bits * 1_000_000_000 <= nanos * u128::from(bps), "{} bits in {} ns", bits, nanos);
            }
        }
    }

    #[test]
    fn a_trace_is_never_exceeded(
        mut times in prop::collection::vec(1_u32..300, 1..80),
        arrivals in prop::collection::vec((20_u32..4_000, 0_u64..20_000), 2..100),
    ) {
        times.sort_unstable();
        let trace = Arc::new(Trace::from_millis(times).unwrap());
        let config = PipeConfig { rate: Rate::Trace(Arc::clone(&trace)), limit: Limit::Bytes(u64::MAX), ..PipeConfig::default() };
        let mut now = Time::ZERO;
        let packets: Vec<_> = arrivals
            .iter()
            .map(|(bytes, gap)| {
                now = now + Duration::from_micros(*gap);
                (*bytes, now)
            })
            .collect();
        let out = replay(&mut Pipe::new(config, 1), &packets);
        prop_assert_eq!(out.len(), arrivals.len());
        for (first, (from, _)) in out.iter().enumerate() {
            let mut bytes = 0;
            for (to, i) in &out[first + 1..] {
                bytes += u64::from(arrivals[*i].0);
                let offered = trace.bytes_between(*from, *to + Duration::from_nanos(1));
                prop_assert!(bytes <= offered, "{} bytes where {} were offered", bytes, offered);
            }
        }
    }
}

#[test]
fn what_finds_a_queue_is_to_be_marked() {
    // 1500 bytes take 1 ms.
    let mut pipe = Pipe::new(PipeConfig { mark: Some(Duration::from_millis(2)), ..constant(12_000_000) }, 1);
    let marks: Vec<bool> = (0..4)
        .map(|packet| {
            let marks = pipe.marks(Time::ZERO);
            pipe.enqueue(packet, 1_500, Time::ZERO);
            marks
        })
        .collect();
    assert_eq!(marks, [false, false, false, true]);
    assert!(!pipe.marks(Time::from_micros(2_000)));
    pipe.apply(Change::Mark(Duration::ZERO), Time::from_micros(2_000));
    assert!(pipe.marks(Time::from_micros(2_000)));
    assert!(!Pipe::<u8>::new(constant(1), 1).marks(Time::ZERO));
}
