//! The control against a link with a queue, in virtual time: steps of 5 ms, answers a round trip
//! later.

mod packets;

use std::collections::VecDeque;

use super::diagnosis::competitor;
use super::params::{EMPTY_S, TARGET_MAX_S};
use super::*;
use crate::link::path::ecn::Marked;

const RTT: Duration = Duration::from_millis(40);
const STEP: Duration = Duration::from_millis(5);

fn mbit(rate: u64) -> BitRate {
    BitRate::from_bps(rate * 1_000_000)
}

/// A sender at the control's own rate, a link, and the feedback.
struct Bench {
    control: CongestionControl,
    now: Instant,
    base_us: i64,
    queue_max: Duration,
    /// Share of the sent bytes that is lost at any load, permille.
    lost_permille: u64,
    /// The probability of loss of each datagram, permille.
    lost_by_chance_permille: u64,
    /// Bytes lost in a row.
    row_bytes: u64,
    /// A competing TCP flow: its bytes in flight (0: no such flow), in the queue, and carried.
    competitor_bytes: f64,
    competitor_queue: f64,
    competitor_carried: f64,
    competitor_cut_at: Instant,
    /// Datagrams above this rate are marked, and so are datagrams behind a queue longer than that.
    marked_above: Option<BitRate>,
    marked_behind: Option<Duration>,
    /// The largest jitter.
    jitter: Duration,
    random: u64,
    queue_bytes: f64,
    sent: u64,
    delivered: u64,
    lost: u64,
    idle: Duration,
    under_way: VecDeque<(Instant, Observation)>,
    /// How long the last two answers took.
    rounds: [Duration; 2],
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
fn bytes(value: f64) -> u64 {
    value as u64
}

impl Bench {
    fn new(configured: Option<BitRate>) -> Self {
        Self {
            control: CongestionControl::new(configured),
            now: Instant::from_nanos(10_000_000_000),
            base_us: -5_000_000,
            queue_max: Duration::from_secs(10),
            lost_permille: 0,
            lost_by_chance_permille: 0,
            row_bytes: 1_500,
            competitor_bytes: 0.0,
            competitor_queue: 0.0,
            competitor_carried: 0.0,
            competitor_cut_at: Instant::ZERO,
            marked_above: None,
            marked_behind: None,
            jitter: Duration::ZERO,
            random: 1,
            queue_bytes: 0.0,
            sent: 0,
            delivered: 0,
            lost: 0,
            idle: Duration::ZERO,
            under_way: VecDeque::new(),
            rounds: [RTT; 2],
        }
    }

    /// The bytes that the competitor sends in a step: its window each round trip, which grows by a
    /// datagram with each.
    fn competitor(&mut self, bytes_per_second: f64) -> f64 {
        if self.competitor_bytes == 0.0 {
            return 0.0;
        }
        let waits = (self.queue_bytes + self.competitor_queue) / bytes_per_second;
        let rounds = STEP.as_secs_f64() / (RTT.as_secs_f64() + waits);
        self.competitor_bytes += 1_500.0 * rounds;
        self.competitor_bytes * rounds
    }

    /// A number below 2^24.
    fn draw(&mut self) -> u32 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.random >> 40).unwrap()
    }

    /// The bytes that chance takes from the `served` bytes.
    fn chance(&mut self, served: f64) -> f64 {
        if self.lost_by_chance_permille == 0 {
            return 0.0;
        }
        let is_lost =
            |bench: &mut Self| (u64::from(bench.draw()) * 1_000) >> 24 < bench.lost_by_chance_permille;
        let lost = (0..bytes(served) / 1_500).filter(|_| is_lost(self)).count();
        lost as f64 * 1_500.0
    }

    /// 5 ms on a link of `capacity`; returns the queue's length.
    fn step(&mut self, offered: BitRate, capacity: BitRate) -> Duration {
        self.now = self.now + STEP;
        let round = self.rounds.into_iter().max().unwrap_or(RTT);
        let expected = |sample: &Observation| sample.sent_at + round + Duration::from_millis(40);
        let overdue = self
            .under_way
            .front()
            .map_or(Duration::ZERO, |(_, sample)| self.now.saturating_since(expected(sample)));
        let pace = self.control.pacing_rate(overdue, self.now);
        let rate = pace.min(offered);
        if offered < pace {
            self.idle +=
                STEP * u32::try_from(1_000 - offered.as_bps() * 1_000 / pace.as_bps()).unwrap() / 1_000;
        }
        let new = rate.bytes_in(STEP);
        self.sent += new;
        let served = capacity.bytes_in(STEP) as f64;
        let room = capacity.bytes_in(self.queue_max) as f64;
        let competitor = self.competitor(served / STEP.as_secs_f64());
        let (ours, theirs) = (self.queue_bytes + new as f64, self.competitor_queue + competitor);
        let waiting = (ours + theirs).max(1.0);
        let kept = (waiting - served).max(0.0);
        // Both flows lose and pass the same share of what waits.
        let (gone, dropped) = ((waiting - kept) / waiting, (kept - room).max(0.0) / waiting);
        let lost = ours * gone * self.lost_permille as f64 / 1_000.0 + self.chance(ours * gone);
        self.delivered += bytes(ours * gone - lost);
        self.lost += bytes(ours * dropped + lost);
        self.competitor_carried += theirs * gone;
        if theirs * dropped > 0.0 && self.now.saturating_since(self.competitor_cut_at) > RTT * 3 {
            self.competitor_bytes *= 0.7;
            self.competitor_cut_at = self.now;
        }
        self.queue_bytes = ours * (1.0 - gone - dropped);
        self.competitor_queue = theirs * (1.0 - gone - dropped);
        let queue = capacity.time_to_send(bytes(self.queue_bytes + self.competitor_queue));
        let jitter = self.jitter * self.draw() / (1 << 24);
        let total = queue + jitter;
        let datagrams = u32::try_from(new.div_ceil(1_500)).unwrap();
        let excess =
            self.marked_above.map_or(0, |most| new.saturating_sub(most.bytes_in(STEP)).div_ceil(1_500));
        let is_behind = self.marked_behind.is_some_and(|mark| queue > mark);
        let marked = if is_behind { datagrams } else { u32::try_from(excess).unwrap() };
        // The newest datagram is still behind the queue when this much of the others has arrived.
        let sample = Observation {
            sent_at: self.now,
            sent: self.sent,
            idle: self.idle,
            delivered: self.delivered + bytes(self.queue_bytes),
            lost: self.lost,
            lost_rows: self.lost / self.row_bytes,
            marked: Marked { received: datagrams, marked },
            delay_us: self.base_us + i64::try_from(total.as_micros()).unwrap(),
            delay_bytes: 0,
            total: 0,
            rtt_min: RTT,
        };
        self.under_way.push_back((self.now + RTT + total, sample));
        self.observe();
        queue
    }

    /// Gives the control the observations that have arrived.
    fn observe(&mut self) {
        while self.under_way.front().is_some_and(|(due, _)| *due <= self.now) {
            let (_, sample) = self.under_way.pop_front().unwrap();
            self.rounds = [self.now.saturating_since(sample.sent_at), self.rounds[0]];
            self.control.on_observation(&Observation { total: self.sent, ..sample }, self.now);
        }
    }

    /// That for `ms`; the longest queue.
    fn run(&mut self, ms: u64, offered: BitRate, capacity: BitRate) -> Duration {
        (0..ms / 5).map(|_| self.step(offered, capacity)).max().unwrap()
    }

    /// That for `ms`, and what was delivered of what the link could have carried, in percent.
    fn share(&mut self, ms: u64, offered: BitRate, capacity: BitRate) -> u64 {
        let before = self.delivered;
        self.run(ms, offered, capacity);
        (self.delivered - before) * 100 / capacity.bytes_in(Duration::from_millis(ms))
    }

    fn capacity(&self) -> BitRate {
        self.control.estimate().capacity.unwrap()
    }
}

fn assert_near(rate: BitRate, expected: u64) {
    let (low, high) = (mbit(expected).permille(930), mbit(expected).permille(1_050));
    assert!((low..=high).contains(&rate), "{rate} is not near {expected}");
}

#[test]
fn the_smaller_ceiling_counts() {
    let paced = |rate: &CongestionControl| rate.pacing_rate(Duration::ZERO, Instant::ZERO);
    let mut rate = CongestionControl::new(None);
    assert_eq!(rate.estimate().capacity, None);
    rate.on_peer_ceiling(Some(mbit(10)), Instant::ZERO);
    assert_eq!(rate.estimate().capacity, Some(mbit(10)));
    let mut rate = CongestionControl::new(Some(mbit(20)));
    rate.on_peer_ceiling(Some(mbit(10)), Instant::ZERO);
    assert_eq!(paced(&rate), BitRate::from_bps(9_900_000));
    rate.on_peer_ceiling(Some(mbit(30)), Instant::ZERO);
    assert_eq!(paced(&rate), BitRate::from_bps(19_800_000));
}

#[test]
fn a_right_ceiling_is_never_exceeded_and_used_from_the_start() {
    let mut bench = Bench::new(Some(mbit(20)));
    let worst = bench.run(4_000, mbit(100), mbit(20));
    assert!(worst < Duration::from_millis(1), "{worst:?}");
    assert!(bench.share(1_000, mbit(100), mbit(20)) >= 98);
}

#[test]
fn an_unknown_link_is_found_out_within_a_second_and_then_filled_without_a_queue() {
    for rate in [1, 10, 70, 400, 2_000] {
        let mut bench = Bench::new(None);
        bench.run(100, BitRate::from_bps(100_000), mbit(rate));
        let worst = bench.run(1_500, mbit(rate * 10), mbit(rate));
        assert!(worst < Duration::from_millis(if rate == 1 { 2_000 } else { 120 }), "{rate}: {worst:?}");
        assert_near(bench.capacity(), rate);
        assert!(bench.share(5_000, mbit(rate * 10), mbit(rate)) >= 97, "{rate}");
        let worst = bench.run(10_000, mbit(rate * 10), mbit(rate));
        assert!(worst < Duration::from_millis(if rate == 1 { 40 } else { 6 }), "{rate}: {worst:?}");
    }
}

#[test]
fn little_traffic_neither_raises_nor_lowers() {
    let mut bench = Bench::new(None);
    bench.run(3_000, mbit(100), mbit(20));
    let known = bench.capacity();
    bench.run(10_000, mbit(1), mbit(20));
    assert_eq!(bench.capacity(), known);
    assert!(bench.share(1_000, mbit(100), mbit(20)) >= 95);
}

#[test]
fn a_step_down_is_followed_within_a_second_and_up_within_three() {
    let mut bench = Bench::new(None);
    bench.run(4_000, mbit(200), mbit(50));
    bench.run(1_000, mbit(200), mbit(10));
    assert_near(bench.capacity(), 10);
    let worst = bench.run(10_000, mbit(200), mbit(10));
    assert!(worst < Duration::from_millis(150), "{worst:?}");
    bench.run(3_000, mbit(200), mbit(50));
    assert_near(bench.capacity(), 50);
}

#[test]
fn a_rate_that_walks_is_followed_both_ways_with_a_short_queue() {
    let mut bench = Bench::new(None);
    bench.run(2_000, mbit(100), mbit(40));
    let (mut carried, mut long) = (0, 0);
    let rates = [30, 20, 14, 10, 14, 20, 30, 40, 30, 40, 50, 40, 30, 20, 30];
    for rate in rates {
        let before = bench.delivered;
        let queues = (0..40).map(|_| bench.step(mbit(100), mbit(rate)));
        long += queues.filter(|queue| *queue > Duration::from_millis(60)).count();
        carried += (bench.delivered - before) * 8_000 / (rate * 1_000_000);
    }
    assert!(carried > 15 * 200 * 85 / 100, "{carried}");
    assert!(long <= rates.len() * 40 / 20, "{long}");
}

#[test]
fn a_longer_path_is_not_congestion() {
    let mut bench = Bench::new(None);
    bench.run(4_000, mbit(100), mbit(20));
    for shift in [40_000, -40_000, 8_000] {
        bench.base_us += shift;
        bench.run(1_000, mbit(100), mbit(20));
        assert_near(bench.capacity(), 20);
        assert!(bench.share(1_000, mbit(100), mbit(20)) >= 96, "{shift}");
        let worst = bench.run(8_000, mbit(100), mbit(20));
        assert!(worst < Duration::from_millis(30), "{shift}: {worst:?}");
    }
}

#[test]
fn a_path_longer_by_little_more_than_no_queue_is_not_congestion() {
    for (rate, shift_us) in [(20, 1_200), (20, 1_600), (20, 1_900), (2, 3_500), (2, 4_500), (2, 5_700)] {
        let mut bench = Bench::new(None);
        bench.run(8_000, mbit(100), mbit(rate));
        bench.base_us += shift_us;
        bench.run(1_000, mbit(100), mbit(rate));
        let share = bench.share(4_000, mbit(100), mbit(rate));
        assert!(share >= 96, "{rate} Mbit/s, {shift_us} us: {share} %");
    }
}

#[test]
fn the_queue_does_not_become_the_base() {
    let mut bench = Bench::new(None);
    let mut last = Duration::ZERO;
    for _ in 0..6 {
        last = bench.run(10_000, mbit(100), mbit(20));
    }
    assert!(last < Duration::from_millis(8), "{last:?}");
}

#[test]
fn random_loss_costs_no_rate() {
    for permille in [20, 100] {
        let mut bench = Bench::new(None);
        bench.lost_permille = permille;
        bench.run(6_000, mbit(100), mbit(20));
        let share = bench.share(6_000, mbit(100), mbit(20));
        assert!(share >= (1_000 - permille) * 96 / 1_000, "{permille}: {share}");
    }
}

/// A satellite's change of slot: half is lost for 100 ms, and the path is longer or shorter
/// afterwards.
#[test]
fn after_a_burst_of_loss_what_was_carried_is_carried_again() {
    for shift in [0, 20_000, -20_000, 40_000] {
        let mut bench = Bench::new(None);
        bench.run(4_000, mbit(100), mbit(50));
        (bench.lost_permille, bench.base_us) = (500, bench.base_us + shift);
        bench.run(100, mbit(100), mbit(50));
        bench.lost_permille = 0;
        bench.run(2_500, mbit(100), mbit(50));
        assert_near(bench.capacity(), 50);
        let worst = bench.run(8_000, mbit(100), mbit(50));
        assert!(worst < Duration::from_millis(30), "{shift}: {worst:?}");
        assert_near(bench.capacity(), 50);
    }
}

/// From the first datagram on, and through a minute at full load.
#[test]
fn chance_is_no_policer() {
    for (seed, permille) in [(1, 20), (2, 50), (3, 50), (4, 100)] {
        let mut bench = Bench::new(None);
        (bench.random, bench.lost_by_chance_permille) = (seed, permille);
        bench.run(4_000, BitRate::from_bps(300_000), mbit(30));
        bench.run(1_000, mbit(100), mbit(30));
        let mut low = 0;
        for _ in 0..12_000 {
            bench.step(mbit(100), mbit(30));
            low += u32::from(bench.capacity() < mbit(28));
        }
        assert!(low < 720, "{permille} permille: low in {low} of 12,000 steps, now {}", bench.capacity());
    }
}

/// A queue of 2 ms, which never counts as one: what is lost in it while the rate is found out says
/// nothing about the link.
#[test]
fn what_is_lost_by_the_search_for_the_rate_is_not_the_links_own_loss() {
    let mut bench = Bench::new(None);
    bench.queue_max = Duration::from_millis(2);
    let (mut ours, mut its) = (0, 0);
    for _ in 0..10 {
        let (from, before) = (bench.now, bench.lost);
        bench.run(60, mbit(1_000), mbit(50));
        let lost = bench.lost - before;
        // What was sent meanwhile is known a round trip later.
        bench.run(40, mbit(1_000), mbit(50));
        let is_clear = bench.control.take_own_loss(from, true, bench.now);
        *(if is_clear { &mut its } else { &mut ours }) += lost;
    }
    assert!(ours > 50_000 && its * 20 < ours, "{ours} and {its} bytes lost");
    assert!(bench.control.take_own_loss(bench.now, true, bench.now), "it is over");
}

#[test]
fn a_few_datagrams_lost_on_a_slow_link_are_no_policer() {
    let mut bench = Bench::new(None);
    bench.run(4_000, mbit(100), mbit(1));
    for _ in 0..20 {
        bench.lost += 1_500;
        bench.delivered -= 1_500;
        bench.run(1_000, mbit(100), mbit(1));
        assert!(!bench.control.evidence.loss.has_cut(), "{}", bench.capacity());
    }
}

/// Twenty datagrams in a row, twice a second; of those that come one by one as many are a
/// policer's.
#[test]
fn a_burst_of_loss_is_no_policer() {
    for (row_bytes, is_cut) in [(30_000, false), (1_500, true)] {
        let mut bench = Bench::new(None);
        bench.run(4_000, mbit(100), mbit(50));
        bench.row_bytes = row_bytes;
        for _ in 0..10 {
            bench.lost_permille = 1_000;
            bench.run(5, mbit(100), mbit(50));
            bench.lost_permille = 0;
            bench.run(495, mbit(100), mbit(50));
        }
        assert_eq!(bench.control.evidence.loss.has_cut(), is_cut, "{row_bytes}");
    }
}

/// What a competitor has of the link in `ms`, percent.
fn taken(bench: &mut Bench, ms: u64, capacity: BitRate) -> u64 {
    let (ours, theirs) = (bench.delivered, bench.competitor_carried);
    bench.run(ms, mbit(200), capacity);
    let (ours, theirs) = (bench.delivered - ours, bytes(bench.competitor_carried - theirs));
    theirs * 100 / (ours + theirs)
}

#[test]
fn a_flow_that_fills_the_queue_has_a_fair_share() {
    for (rate, queue_ms) in [(10, 50), (10, 100), (50, 50), (50, 100)] {
        let mut bench = Bench::new(None);
        bench.queue_max = Duration::from_millis(queue_ms);
        bench.run(3_000, mbit(200), mbit(rate));
        bench.competitor_bytes = 15_000.0;
        bench.run(10_000, mbit(200), mbit(rate));
        let share = taken(&mut bench, 20_000, mbit(rate));
        assert!((25..=65).contains(&share), "{rate}, {queue_ms} ms: {share}");
    }
}

#[test]
fn a_competitor_that_starts_in_lumps_and_grows_quickly_has_no_more_than_its_share() {
    for (rate, queue_ms) in [(10, 100), (50, 100), (50, 300)] {
        let mut bench = Bench::new(None);
        bench.queue_max = Duration::from_millis(queue_ms);
        bench.run(3_000, mbit(200), mbit(rate));
        // Slow start: much for a moment, then little, and then ever more until the queue is full.
        for lump in [2, 4] {
            bench.competitor_bytes = rate as f64 * 2_500.0 * f64::from(lump);
            bench.run(100, mbit(200), mbit(rate));
            bench.competitor_bytes = 1.0;
            bench.run(200, mbit(200), mbit(rate));
        }
        bench.competitor_bytes = rate as f64 * 1_000.0;
        bench.competitor_cut_at = Instant::ZERO;
        for _ in 0..40 {
            if bench.competitor_cut_at == Instant::ZERO {
                bench.competitor_bytes *= 1.15;
            }
            bench.run(200, mbit(200), mbit(rate));
        }
        let share = taken(&mut bench, 10_000, mbit(rate));
        assert!((30..=65).contains(&share), "{rate}, {queue_ms} ms: {share}");
    }
}

#[test]
fn a_queue_that_is_kept_on_purpose_is_no_competitors() {
    let is_contested = |kept_s| {
        let mut detector = competitor::CompetitorDetector::new();
        let mut now = Instant::from_nanos(1_000_000_000);
        // A link of 50 Mbit/s; then of 10, with 40 ms of our own queue at first and 13 ms, on
        // purpose or not, from then on.
        let mut run = |ms: u64, queue_us: i64, gain: f64, rate_bps: f64| {
            (0..ms / 5).any(|_| {
                now = now + STEP;
                let seen = competitor::Seen {
                    delay_us: queue_us,
                    base_us: 0,
                    queue_s: queue_us as f64 / 1e6,
                    noise_s: 0.0,
                    empty_s: EMPTY_S,
                    kept_s,
                    gain,
                    rate_bps,
                    is_steady: rate_bps > 4e7,
                };
                detector.on_observation(&seen, RTT, now).is_some()
            })
        };
        run(1_000, 0, 1.0, 5e7)
            || run(5, 40_000, 0.5, 4.9e7)
            || run(100, 38_000, 0.5, 1e7)
            || run(3_000, 13_400, 0.94, 1e7)
    };
    assert!(!is_contested(TARGET_MAX_S));
    assert!(is_contested(0.0));
}

#[test]
fn a_link_that_carries_what_it_did_alone_has_no_competitor() {
    let mut bench = Bench::new(None);
    bench.queue_max = Duration::from_millis(200);
    bench.run(4_000, mbit(200), mbit(10));
    let (_, sample) = *bench.under_way.back().unwrap();
    let base_us = bench.base_us - 20_000;
    bench.control.compete(&sample, base_us, bench.now);
    let queue = bench.run(4_500, mbit(200), mbit(10));
    assert_eq!(bench.control.phase.kind(), PhaseKind::Steady);
    assert!(queue < Duration::from_millis(30), "{queue:?}");
}

#[test]
fn a_flow_that_fills_the_queue_is_told_from_a_slower_link_and_from_a_longer_path() {
    let mut bench = Bench::new(None);
    bench.queue_max = Duration::from_millis(100);
    bench.run(10_000, mbit(200), mbit(50));
    bench.competitor_bytes = 150_000.0;
    bench.run(2_000, mbit(200), mbit(50));
    assert_eq!(bench.control.phase.kind(), PhaseKind::Competing);
    assert!(bench.capacity() > mbit(15), "{}", bench.capacity());
    bench.competitor_bytes = 0.0;
    bench.run(8_000, mbit(200), mbit(50));
    assert_eq!(bench.control.phase.kind(), PhaseKind::Steady, "it is gone");
    for to in [40, 20, 5] {
        let mut bench = Bench::new(None);
        bench.queue_max = Duration::from_millis(100);
        bench.run(4_000, mbit(200), mbit(50));
        for _ in 0..600 {
            bench.step(mbit(200), mbit(to));
            assert_ne!(bench.control.phase.kind(), PhaseKind::Competing, "{to}");
        }
    }
    let mut bench = Bench::new(None);
    bench.run(4_000, mbit(100), mbit(20));
    for shift in [100_000, -30_000, 20_000, 60_000] {
        bench.base_us += shift;
        for _ in 0..400 {
            bench.step(mbit(100), mbit(20));
            assert_ne!(bench.control.phase.kind(), PhaseKind::Competing, "{shift}");
        }
    }
}

#[test]
fn jitter_is_no_queue() {
    for ms in [2, 8, 20] {
        let mut bench = Bench::new(None);
        bench.jitter = Duration::from_millis(ms);
        bench.run(2_000, BitRate::from_bps(100_000), mbit(20));
        bench.run(4_000, mbit(100), mbit(20));
        let share = bench.share(10_000, mbit(100), mbit(20));
        assert!(share >= 94, "{ms}: {share}");
        let worst = bench.run(5_000, mbit(100), mbit(20));
        assert!(worst < Duration::from_millis(10 + 5 * ms), "{ms}: {worst:?}");
    }
}

#[test]
fn a_policer_is_not_overrun() {
    let mut bench = Bench::new(None);
    bench.queue_max = Duration::from_micros(500);
    bench.run(4_000, mbit(100), mbit(20));
    let (lost, delivered) = (bench.lost, bench.delivered);
    bench.run(10_000, mbit(100), mbit(20));
    let (lost, delivered) = (bench.lost - lost, bench.delivered - delivered);
    assert!(lost * 100 < delivered * 4, "{lost} of {delivered}");
    assert!(delivered * 8 > 20_000_000 * 10 * 93 / 100, "{delivered}");
}

#[test]
fn an_answer_that_is_overdue_slows_the_link() {
    let bench = Bench::new(Some(mbit(20)));
    let rate = |overdue| bench.control.pacing_rate(Duration::from_millis(overdue), bench.now);
    assert_eq!(rate(0), BitRate::from_bps(19_800_000));
    assert_eq!(rate(15), mbit(16));
    assert_eq!(rate(500), mbit(2));
}

#[test]
fn a_link_that_varies_is_trusted_step_by_step_after_a_pause() {
    let mut bench = Bench::new(None);
    for rate in [40, 10, 40, 8, 30] {
        bench.run(600, mbit(100), mbit(rate));
    }
    bench.run(1_500, BitRate::from_bps(10_000), mbit(30));
    let paced = bench.control.pacing_rate(Duration::ZERO, bench.now);
    assert!(paced < bench.capacity().permille(300), "{paced}");
    bench.run(1_000, mbit(100), mbit(30));
    assert_near(bench.capacity(), 30);
}

/// Marks without a queue, as a router makes them that counts.
#[test]
fn marks_say_what_a_link_carries_where_no_queue_does() {
    let mut bench = Bench::new(None);
    bench.run(3_000, mbit(200), mbit(100));
    assert_near(bench.capacity(), 100);
    bench.marked_above = Some(mbit(50));
    bench.run(3_000, mbit(200), mbit(100));
    let before = bench.delivered;
    bench.run(5_000, mbit(200), mbit(100));
    let carried = (bench.delivered - before) * 8 / 5_000_000;
    assert!((45..=54).contains(&carried), "{carried} Mbit/s");
    // Marks end: what the link carries is searched again.
    bench.marked_above = None;
    bench.run(12_000, mbit(200), mbit(100));
    assert_near(bench.capacity(), 100);
}

#[test]
fn marks_tell_of_a_queue_that_noise_hides() {
    let queue = |marked_behind: Option<Duration>| {
        let mut bench = Bench::new(None);
        (bench.jitter, bench.marked_behind) = (Duration::from_millis(10), marked_behind);
        bench.run(1_000, BitRate::from_bps(100_000), mbit(50));
        bench.run(5_000, mbit(200), mbit(50));
        let queues: Duration = (0..2_000).map(|_| bench.step(mbit(200), mbit(50))).sum();
        let share = bench.share(5_000, mbit(200), mbit(50));
        (queues / 2_000, share)
    };
    let (without, with) = (queue(None), queue(Some(Duration::from_millis(2))));
    assert!(with.0 < without.0 / 2, "{with:?} {without:?}");
    assert!(with.1 >= 90, "{with:?} {without:?}");
}

#[test]
fn a_change_of_phase_and_a_large_one_of_the_rate_are_told_once_with_their_cause() {
    let mut bench = Bench::new(None);
    bench.queue_max = Duration::from_millis(100);
    assert_eq!(bench.control.take_change(), None);
    bench.run(3_000, mbit(200), mbit(50));
    let change = bench.control.take_change().unwrap();
    assert_eq!((change.from, change.to, change.before), (PhaseKind::Startup, PhaseKind::Steady, None));
    assert_near(change.now.unwrap(), 50);
    assert_eq!(bench.control.take_change(), None);
    bench.run(2_000, mbit(200), mbit(20));
    let change = bench.control.take_change().unwrap();
    assert_eq!((change.from, change.to), (PhaseKind::Steady, PhaseKind::Steady));
    assert_eq!((change.before.unwrap() > mbit(46), change.cause), (true, Some(Cause::OwnQueue)));
    assert_near(change.now.unwrap(), 20);
    let mut bench = Bench::new(None);
    bench.queue_max = Duration::from_millis(100);
    bench.run(10_000, mbit(200), mbit(50));
    bench.control.take_change();
    bench.competitor_bytes = 150_000.0;
    bench.run(2_000, mbit(200), mbit(50));
    let change = bench.control.take_change().unwrap();
    assert_eq!((change.to, change.cause), (PhaseKind::Competing, Some(Cause::Competitor)));
}

#[test]
fn the_figures_show_what_the_control_sees() {
    let mut bench = Bench::new(None);
    assert_eq!(bench.control.stats(bench.now), ControlStats::default());
    bench.run(5_000, mbit(200), mbit(20));
    let stats = bench.control.stats(bench.now);
    assert_eq!((stats.phase, stats.capacity), (PhaseKind::Steady, bench.control.estimate().capacity));
    let base_us = stats.base_delay_us.unwrap();
    assert!((bench.base_us..bench.base_us + 2_000).contains(&base_us), "{base_us}");
    assert!(stats.caused_ago.unwrap() < Duration::from_secs(5), "{stats:?}");
    bench.run(50, mbit(200), mbit(10));
    bench.step(mbit(200), mbit(10));
    assert!(bench.control.stats(bench.now).queue > Duration::from_millis(2), "{stats:?}");
}
