//! A link packet by packet, in virtual time: a policer, a first-in first-out queue of limited
//! length, jitter that keeps the order or does not, loss by chance, and a peer that answers as the
//! acknowledger does.

#![expect(clippy::cast_possible_truncation, reason = "microseconds and bytes of a simulation")]

mod policed;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::super::*;
use crate::link::path::ecn::Marked;

/// What the link is; times in µs.
#[derive(Debug, Clone, Copy)]
struct Spec {
    rate_bps: f64,
    /// One way.
    delay_us: f64,
    sigma_us: f64,
    /// From one packet to the next.
    correlation: f64,
    in_order: bool,
    loss: f64,
    /// Longest queue.
    queue_us: f64,
    /// A token bucket: its rate, bit/s, and burst, bytes.
    police: Option<(f64, f64)>,
}

impl Spec {
    const fn new(mbps: f64) -> Self {
        Self {
            rate_bps: mbps * 1e6,
            delay_us: 20_000.0,
            sigma_us: 0.0,
            correlation: 0.0,
            in_order: false,
            loss: 0.0,
            queue_us: 100_000.0,
            police: None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at_us: u64,
    total: u64,
    idle: Duration,
    bytes: u64,
    is_lost: bool,
    is_settled: bool,
}

/// The sender, the link and the peer.
struct Net {
    control: CongestionControl,
    spec: Spec,
    now_us: u64,
    free_us: f64,
    log: VecDeque<Sent>,
    first: u64,
    total: u64,
    idle_us: f64,
    busy_until_us: f64,
    last_due_us: f64,
    /// In the policer's bucket, bytes, and since when.
    tokens: (f64, f64),
    ar: f64,
    random: u64,
    /// Arrivals to come: due, number.
    arrivals: BinaryHeap<Reverse<(u64, u64)>>,
    /// Reports on their way: due, observation.
    reports: VecDeque<(u64, Observation)>,
    // The peer.
    pending_bytes: u64,
    pending_since: u64,
    told_us: u64,
    largest: u64,
    largest_arrived_us: u64,
    least: Option<(i64, u64)>,
    // Counters.
    delivered: u64,
    lost: u64,
    lost_rows: u64,
    rounds: [u64; 2],
    /// Queues met, µs.
    queues: Vec<u32>,
}

impl Net {
    fn new(spec: Spec, seed: u64) -> Self {
        Self {
            control: CongestionControl::new(None),
            spec,
            now_us: 10_000_000,
            free_us: 0.0,
            log: VecDeque::new(),
            first: 0,
            total: 0,
            idle_us: 0.0,
            busy_until_us: 0.0,
            last_due_us: 0.0,
            tokens: (f64::INFINITY, 0.0),
            ar: 0.0,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            arrivals: BinaryHeap::new(),
            reports: VecDeque::new(),
            pending_bytes: 0,
            pending_since: 0,
            told_us: 0,
            largest: 0,
            largest_arrived_us: 0,
            least: None,
            delivered: 0,
            lost: 0,
            lost_rows: 0,
            rounds: [0; 2],
            queues: Vec::new(),
        }
    }

    fn uniform(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let (a, b) = (self.uniform().max(1e-12), self.uniform());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.now_us * 1_000)
    }

    /// Whether the policer lets a datagram pass now.
    fn passes(&mut self, bytes: f64) -> bool {
        let Some((rate_bps, burst)) = self.spec.police else { return true };
        let (tokens, since_us) = self.tokens;
        let now_us = self.now_us as f64;
        let tokens = (tokens + (now_us - since_us) * rate_bps / 8e6).min(burst);
        let passes = tokens >= bytes;
        self.tokens = (if passes { tokens - bytes } else { tokens }, now_us);
        passes
    }

    fn send(&mut self, bytes: u64) {
        let now = self.now_us as f64;
        let rho = self.spec.correlation;
        self.ar = rho * self.ar + (1.0 - rho * rho).sqrt() * self.normal();
        self.total += bytes;
        let is_policed = !self.passes(bytes as f64);
        let mut is_lost = self.uniform() < self.spec.loss || is_policed;
        let serial_us = bytes as f64 * 8e6 / self.spec.rate_bps;
        let wait_us = (self.busy_until_us - now).max(0.0);
        let mut due_us = 0.0;
        if wait_us > self.spec.queue_us.max(serial_us * 1.5) {
            is_lost = true;
        } else if !is_policed {
            self.busy_until_us = now + wait_us + serial_us;
            self.queues.push(wait_us as u32);
            let delay = (self.spec.delay_us + self.spec.sigma_us * self.ar).max(0.0);
            due_us = self.busy_until_us + delay;
            if self.spec.in_order && !is_lost {
                due_us = due_us.max(self.last_due_us);
                self.last_due_us = due_us;
            }
        }
        let number = self.first + self.log.len() as u64;
        self.log.push_back(Sent {
            at_us: self.now_us,
            total: self.total,
            idle: Duration::from_micros(self.idle_us as u64),
            bytes,
            is_lost,
            is_settled: false,
        });
        if !is_lost {
            self.arrivals.push(Reverse((due_us as u64, number)));
        }
    }

    fn arrive(&mut self, number: u64) {
        let Some(at) = number.checked_sub(self.first) else { return };
        let Some(sent) = self.log.get_mut(at as usize) else { return };
        let (bytes, sent_us) = (sent.bytes, sent.at_us);
        sent.is_settled = true;
        if self.pending_bytes == 0 {
            self.pending_since = self.now_us;
        }
        self.pending_bytes += bytes;
        self.delivered += bytes;
        let delay = self.now_us as i64 - sent_us as i64;
        if self.least.is_none_or(|(least, _)| delay < least) {
            self.least = Some((delay, bytes));
        }
        if number >= self.largest {
            self.largest = number;
            self.largest_arrived_us = self.now_us;
        }
        self.maybe_report();
    }

    fn maybe_report(&mut self) {
        let spacing = ((self.spec.delay_us * 2.0 / 8.0) as u64).clamp(5_000, 25_000);
        let is_due = (self.pending_bytes >= 6_500 && self.now_us >= self.told_us + spacing)
            || (self.pending_bytes > 0 && self.now_us >= self.pending_since + 25_000)
            || self.pending_bytes > 512 << 10;
        if !is_due {
            return;
        }
        self.pending_bytes = 0;
        self.told_us = self.now_us;
        // What was sent 64 datagrams or 120 ms before the largest and did not come is lost.
        let Some(at) = self.largest.checked_sub(self.first) else { return };
        let Some(largest) = self.log.get(at as usize).copied() else { return };
        let mut follows = false;
        for (offset, sent) in self.log.iter_mut().enumerate() {
            if offset as u64 >= at {
                break;
            }
            let is_old = sent.at_us + (self.spec.sigma_us * 6.0) as u64 + 1_000 <= largest.at_us;
            if !sent.is_settled && sent.is_lost && is_old {
                sent.is_settled = true;
                self.lost += sent.bytes;
                self.lost_rows += u64::from(!follows);
                follows = true;
            } else if sent.is_settled && !sent.is_lost {
                follows = false;
            }
        }
        let (least, least_bytes) = self
            .least
            .take()
            .unwrap_or((self.largest_arrived_us as i64 - largest.at_us as i64, largest.bytes));
        let delay = self.largest_arrived_us as i64 - largest.at_us as i64;
        let seen = Observation {
            sent_at: Instant::from_nanos(largest.at_us * 1_000),
            sent: largest.total,
            idle: largest.idle,
            delivered: self.delivered,
            lost: self.lost,
            lost_rows: self.lost_rows,
            marked: Marked::default(),
            delay_us: least.min(delay) - 7_000_000,
            delay_bytes: least_bytes,
            total: 0,
            rtt_min: Duration::from_micros((self.spec.delay_us * 2.0) as u64),
        };
        self.reports.push_back((self.now_us + self.spec.delay_us as u64, seen));
        while self.log.len() > 1 && self.first + 4_096 < self.largest && self.log[0].is_settled {
            self.log.pop_front();
            self.first += 1;
        }
    }

    /// Runs for `ms` with so much demand.
    fn run(&mut self, ms: u64, demand_bps: f64) {
        let end = self.now_us + ms * 1_000;
        let mut demand_free = self.now_us as f64;
        while self.now_us < end {
            let pace = self.pace_bps();
            // Fast links in lumps of at most 0.2 ms.
            let lump = ((self.spec.rate_bps * 0.0002 / 8.0) as u64).clamp(1_500, 256_000);
            let bytes = if pace * 0.0002 / 8.0 < lump as f64 { (pace * 0.0002 / 8.0) as u64 } else { lump };
            let bytes = bytes.clamp(1_500, lump);
            let may_send = self.free_us.max(demand_free);
            let next_arrival = self.arrivals.peek().map_or(u64::MAX, |Reverse((due, _))| *due);
            let next_report = self.reports.front().map_or(u64::MAX, |(due, _)| *due);
            let next_timer = if self.pending_bytes > 0 {
                (self.pending_since + 25_000).max(self.now_us + 1)
            } else {
                u64::MAX
            };
            let next_send = (may_send.ceil() as u64).max(self.now_us);
            let next = next_send.min(next_arrival).min(next_report).min(next_timer);
            if next >= end {
                self.now_us = end;
                break;
            }
            self.now_us = self.now_us.max(next);
            if next == next_report {
                let Some((_, seen)) = self.reports.pop_front() else { break };
                self.rounds = [self.now_us - seen.sent_at.as_nanos() / 1_000, self.rounds[0]];
                let seen = Observation { total: self.total, ..seen };
                let now = self.now();
                self.control.on_observation(&seen, now);
            } else if next == next_arrival {
                let Some(Reverse((_, number))) = self.arrivals.pop() else { break };
                self.arrive(number);
            } else if next == next_timer {
                self.maybe_report();
            } else {
                let saved_from = self.now_us as f64 - 3_000.0;
                self.idle_us += (saved_from - self.free_us).max(0.0);
                self.free_us = self.free_us.max(saved_from) + bytes as f64 * 8e6 / pace;
                demand_free = demand_free.max(self.now_us as f64 - 3_000.0) + bytes as f64 * 8e6 / demand_bps;
                self.send(bytes);
            }
        }
    }

    fn pace_bps(&self) -> f64 {
        let oldest = self.log.iter().find(|sent| !sent.is_settled);
        let round = self.rounds.iter().max().copied().filter(|round| *round > 0);
        let overdue = oldest.zip(round).map_or(0, |(sent, round)| {
            let round = round + (self.spec.sigma_us * 6.0) as u64;
            self.now_us.saturating_sub(sent.at_us + round + 40_000)
        });
        self.control.pacing_rate(Duration::from_micros(overdue), self.now()).as_bps() as f64
    }

    /// Share of the link's capacity that was delivered in `ms`, and the queue's 95th percentile in
    /// ms.
    fn measure(&mut self, ms: u64, demand_bps: f64) -> (f64, f64) {
        self.queues.clear();
        let before = self.delivered;
        self.run(ms, demand_bps);
        let most = self.spec.rate_bps * ms as f64 / 8e3 * (1.0 - self.spec.loss);
        self.queues.sort_unstable();
        let at = self.queues.len() * 95 / 100;
        let queue = self.queues.get(at).copied().unwrap_or(0);
        ((self.delivered - before) as f64 / most, f64::from(queue) / 1e3)
    }
}

/// The share of a link of `mbps` that is delivered in the third second of demand, from a belief of
/// `belief_mbps`.
fn found_again(mbps: f64, belief_mbps: f64, sigma_us: f64) -> f64 {
    let spec = Spec { sigma_us, ..Spec::new(mbps) };
    let mut net = Net::new(spec, 3);
    let now = net.now();
    net.control.evidence.model.set(belief_mbps * 1e6, Cause::OwnQueue, now);
    net.control.phase = Phase::Steady(Steady::new());
    net.run(1_000, 20_000.0);
    net.run(2_500, 1e11);
    net.measure(500, 1e11).0
}

/// No belief is absorbing: any link is found again within three seconds of demand.
#[test]
fn from_any_belief_the_rate_is_found_within_three_seconds() {
    let rates = [0.2, 2.0, 40.0, 2_000.0];
    for mbps in rates {
        for belief_mbps in rates {
            let share = found_again(mbps, belief_mbps, 0.0);
            // A thousand times too much overflows the queue for a second, and that loss is taken
            // for a policer's.
            let least = if belief_mbps >= mbps * 1e3 { 0.8 } else { 0.95 };
            assert!(share >= least, "{mbps} Mbit/s, believed {belief_mbps}: {share:.3}");
        }
    }
    for belief_mbps in [2.0, 2_000.0] {
        let share = found_again(40.0, belief_mbps, 5_000.0);
        assert!(share >= 0.85, "40 Mbit/s with jitter, believed {belief_mbps}: {share:.3}");
    }
}

/// Jitter costs neither the rate nor the belief, whatever its kind.
#[test]
fn a_link_that_jitters_keeps_its_rate() {
    for (in_order, correlation) in [(false, 0.0), (false, 0.9), (true, 0.0), (true, 0.9)] {
        let spec = Spec { sigma_us: 5_000.0, correlation, in_order, loss: 0.005, ..Spec::new(40.0) };
        let mut net = Net::new(spec, 7);
        net.run(1_000, 50_000.0);
        net.run(4_000, 1e10);
        let (share, queue_ms) = net.measure(2_000, 1e10);
        let kind = format!("in order: {in_order}, correlation {correlation}");
        assert!(share >= 0.92, "{kind}: {share:.3}");
        assert!(queue_ms <= 60.0, "{kind}: {queue_ms} ms");
    }
}
