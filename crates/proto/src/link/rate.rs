//! What a link can carry in the direction we send, and how fast to send on it.
//!
//! **Ceiling.** What configuration says: our own `up` (a server: `down` of the client's link) and what the peer tells in its
//! heartbeats; the smaller counts. A link with a ceiling is paced just below it from the first packet.
//!
//! **Guard.** A ceiling may be wrong for a while (LTE) or missing. When two samples in a row find that more than a twentieth of a
//! used link's datagrams were lost, or a queue (one-way delay above its base) of more than max(15 ms, a quarter of the
//! smallest RTT) on a link that is used to the full or delivers less than it is sent (at four times the limit one sample is
//! enough), the guard takes what was delivered for what the link carries. From then on, until it is back at the ceiling, a short
//! queue is kept in the link, two thirds of that limit: a link that is never idle delivers what it carries, so that each
//! sample tells its rate, up or down.
//! - The queue as of now is what the newest echoed heartbeat met, plus what was sent since, less what the link took since. The
//!   pacing rate leaves the guard's by what brings that queue to its target in 75 ms.
//! - An echo that is overdue slows the link before it tells why.
//! - Every 5 s the queue is drained until the delay falls no more: else it would become the base.
//! - A queue that should drain and neither does nor grows is none of ours: the path became longer, and what is measured
//!   now is the base (a satellite's slot change). Until that is decided such samples do not lower the rate.
//! - A link that varies is trusted, after a pause, with a quarter of what it carried, and then with twice what it delivers.
//!
//! A link that carries little keeps its rate. Contract: a link that was never found below its ceiling is paced as if there were no
//! guard. This is no estimator of idle links: it finds out what a link carries by filling it.
//!
//! Source: the model of the queue is that of a Smith predictor; overdue echoes are RACK's idea (RFC 8985) for a rate.
//!
//! # Explored and removed
//! Simulated, one flow over `varying`, up; share of the attainable, ceilings at the walk's peak. Cuts to 95 % of what was delivered,
//! a drain of up to 0.4 s and 5 % more with each heartbeat of 100 ms: 16 % (QUIC), 13 % (smoltcp), against 62 and 33 % of this
//! control; the best single link has 50 and 24 %.

use std::time::Duration;

use super::window::WindowedMin;
use crate::time::Instant;
use crate::units::BitRate;

/// Pace at this share of the ceiling, so that rounding and clocks never build a queue in the link.
const PACING_PERMILLE: u64 = 990;

/// Ours: what scheduling of a busy host adds to a delay is below this, and players of games do not notice it.
const STANDING_MIN: Duration = Duration::from_millis(15);

/// Samples in a row before the guard steps in.
const STANDING_SAMPLES: u32 = 2;

/// A growing queue of so many times the limit needs no second sample.
const SUDDEN_THRESHOLDS: u32 = 4;

/// The queue is brought to its target within this time.
const CONTROL_SPAN: Duration = Duration::from_millis(75);

/// Bounds of the share of the guard's rate that is paced at.
const SHARE_PERMILLE_MIN: u64 = 100;
const SHARE_PERMILLE_MAX: u64 = 1_250;

/// A queue below this is none.
const EMPTY: Duration = Duration::from_millis(3);

/// So often the queue is drained until the delay falls no more: else it would become the base.
const DRAIN_EVERY: Duration = Duration::from_secs(5);

/// A queue that we sent this much too little for and that is as long as before is none: the path is longer.
const VAIN: Duration = Duration::from_millis(30);

/// Delivered more or less than sent by this: the queue changed.
const CHANGE_PERMILLE: u64 = 80;

/// Utilisation from which a link counts as used to the full.
const USED_PERMILLE: u64 = 700;

/// Loss of a used link that counts as congestion.
const LOSS_PERMILLE: u64 = 50;
const LOSS_CUT_PERMILLE: u64 = 950;

/// No cut goes below this: heartbeats must still find out what the link carries.
const RATE_MIN: BitRate = BitRate::from_bps(200_000);

/// A link that was below its ceiling this lately is trusted with twice what it delivered within the window, and at least with
/// this share of what it is taken to carry.
const DISTRUST: Duration = Duration::from_secs(30);
const TRUST_WINDOW: Duration = Duration::from_secs(1);
const TRUST_PERMILLE_MIN: u64 = 250;

const BASE_WINDOW: Duration = Duration::from_secs(10);

/// What one heartbeat that the peer echoed tells of the queue it met.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delay {
    /// One-way delay, µs with an unknown offset.
    pub(super) delay_us: i64,
    /// The link's smallest RTT.
    pub(super) rtt_min: Duration,
    /// How long ago it was sent.
    pub(super) age: Duration,
    /// What we sent since.
    pub(super) since_bytes: u64,
}

/// What two heartbeats that the peer echoed tell of the time between them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    /// What we sent.
    pub(super) sent: BitRate,
    /// What of it arrived, over the time in which it arrived.
    pub(super) delivered: BitRate,
    /// Datagrams that did not arrive, permille.
    pub(super) lost_permille: u64,
}

/// Whether a queue drains that should.
#[derive(Debug, Clone, Copy)]
struct Vain {
    /// Only what was sent from here on met less of ours.
    from: Instant,
    /// When the newest heartbeat that was looked at was sent.
    at: Instant,
    queue: Duration,
    /// How much shorter the queue should have become.
    expected: Duration,
}

/// The rate model of one link and direction.
#[derive(Debug, Clone)]
pub(super) struct RateControl {
    configured: Option<BitRate>,
    peer_ceiling: Option<BitRate>,
    /// What the link carries while that is below the ceiling.
    guard: Option<BitRate>,
    /// Share of the guard's rate to pace at.
    share_permille: u64,
    base: WindowedMin,
    /// The queue that the newest heartbeat met, and above which one stands.
    queue: Duration,
    threshold: Duration,
    /// The smallest and the largest queue since the last delivery sample, its own included.
    queue_min: Duration,
    queue_max: Duration,
    /// When the link's queue was emptied last.
    drained_at: Instant,
    /// Until when it is being emptied, and the least delay seen meanwhile.
    draining: Option<(Instant, i64)>,
    /// Samples in a row that showed congestion.
    standing: u32,
    vain: Option<Vain>,
    /// The most that was delivered lately, bit/s, negated.
    delivered: WindowedMin,
    /// When the link was found below its ceiling last.
    guarded_at: Option<Instant>,
}

impl RateControl {
    /// With the ceiling from our own configuration.
    pub(super) fn new(configured: Option<BitRate>) -> Self {
        Self {
            configured,
            peer_ceiling: None,
            guard: None,
            share_permille: 1_000,
            base: WindowedMin::new(BASE_WINDOW),
            queue: Duration::ZERO,
            threshold: STANDING_MIN,
            queue_min: Duration::MAX,
            queue_max: Duration::ZERO,
            drained_at: Instant::ZERO,
            draining: None,
            standing: 0,
            vain: None,
            delivered: WindowedMin::new(TRUST_WINDOW),
            guarded_at: None,
        }
    }

    /// The peer told what it wants to be sent at most.
    pub(super) const fn on_peer_ceiling(&mut self, ceiling: Option<BitRate>) {
        self.peer_ceiling = ceiling;
    }

    /// The peer was restarted or the link was down: delays begin anew, the rate is kept.
    pub(super) fn on_restart(&mut self) {
        self.base = WindowedMin::new(BASE_WINDOW);
        self.queue = Duration::ZERO;
        self.share_permille = 1_000;
        self.standing = 0;
        self.vain = None;
    }

    /// Takes the delay that a heartbeat met.
    pub(super) fn on_delay(&mut self, sample: &Delay, now: Instant) {
        self.base.push(sample.delay_us, now);
        let base_us = self.base.min(now).unwrap_or(sample.delay_us);
        self.queue =
            Duration::from_micros(u64::try_from(sample.delay_us.saturating_sub(base_us)).unwrap_or(0));
        self.threshold = STANDING_MIN.max(sample.rtt_min / 4);
        self.queue_min = self.queue_min.min(self.queue);
        self.queue_max = self.queue_max.max(self.queue);
        let Some(guard) = self.guard else { return };
        self.note_vain(sample, now);
        let target_us = self.target_us(sample, now);
        // What stood there when the heartbeat arrived at its end, what came since, what went since.
        let expected = (self.queue + guard.time_to_send(sample.since_bytes)).saturating_sub(sample.age);
        let span = i64::try_from(CONTROL_SPAN.as_micros()).unwrap_or(i64::MAX);
        let excess = target_us.saturating_sub(micros(expected)).saturating_mul(1_000) / span;
        let share = u64::try_from(excess.saturating_add(1_000)).unwrap_or(0);
        self.share_permille = share.clamp(SHARE_PERMILLE_MIN, SHARE_PERMILLE_MAX);
    }

    /// The queue to keep; less than none while it is found out how short the delay can be.
    fn target_us(&mut self, sample: &Delay, now: Instant) -> i64 {
        let regular = micros(self.threshold * 2 / 3);
        if now.saturating_since(self.drained_at) < DRAIN_EVERY {
            return regular;
        }
        let (until, least) = self.draining.get_or_insert((now + sample.age + CONTROL_SPAN, sample.delay_us));
        if sample.delay_us < *least - micros(EMPTY) {
            (*until, *least) = ((*until).max(now + CONTROL_SPAN), sample.delay_us);
        }
        if now < *until {
            return -micros(self.threshold);
        }
        self.draining = None;
        self.drained_at = now;
        regular
    }

    /// Sees whether a queue that should drain does.
    fn note_vain(&mut self, sample: &Delay, now: Instant) {
        if self.queue <= self.threshold || self.share_permille >= 950 {
            self.vain = None;
            return;
        }
        let sent_at = now.saturating_sub(sample.age);
        let vain =
            self.vain.get_or_insert(Vain { from: now, at: now, queue: self.queue, expected: Duration::ZERO });
        if sent_at < vain.from || vain.at == vain.from {
            (vain.at, vain.queue) = (sent_at.max(vain.from), self.queue);
            return;
        }
        let passed = sent_at.saturating_since(vain.at);
        vain.at = sent_at;
        vain.expected += passed * u32::try_from(1_000 - self.share_permille).unwrap_or(0) / 1_000;
        if vain.expected < VAIN {
            return;
        }
        let flat = vain.queue.abs_diff(self.queue) < vain.expected / 2;
        self.vain = None;
        if flat {
            self.base = WindowedMin::new(BASE_WINDOW);
            self.base.push(sample.delay_us, now);
            self.queue = Duration::ZERO;
        }
    }

    /// Takes a sample; tells whether the link was free of a standing queue, so that what was lost was not lost to one.
    pub(super) fn on_delivery(&mut self, sample: &Delivery, now: Instant) -> bool {
        let used = self.is_used(sample.sent);
        let queue_min = std::mem::replace(&mut self.queue_min, self.queue).min(self.queue);
        let queue_max = std::mem::replace(&mut self.queue_max, self.queue).max(self.queue);
        let grew = sample.delivered < sample.sent.permille(1_000 - CHANGE_PERMILLE);
        let shrank = sample.delivered > sample.sent.permille(1_000 + CHANGE_PERMILLE);
        let lossy = used && sample.lost_permille > LOSS_PERMILLE;
        let standing = self.queue > self.threshold && (used || grew);
        self.standing = if lossy || standing { self.standing + 1 } else { 0 };
        let sudden = grew && self.queue > self.threshold * SUDDEN_THRESHOLDS;
        match self.guard {
            None if sudden || self.standing >= STANDING_SAMPLES => self.set_guard(now, sample.delivered),
            None => {}
            Some(guard) if lossy && self.standing >= STANDING_SAMPLES => {
                self.standing = 0;
                self.set_guard(now, guard.min(sample.delivered.permille(LOSS_CUT_PERMILLE)));
            }
            // What little traffic delivers says nothing about the link.
            Some(_) if !(used || grew) => {}
            Some(guard) if queue_min <= EMPTY => self.set_guard(now, guard.max(sample.delivered)),
            // The link was busy all the time: it delivered what it carries. But nothing is known from a queue
            // that should drain and does neither that nor grow: it may be none.
            Some(guard) => {
                let drains = self.share_permille < 950;
                if !drains || grew || shrank {
                    if drains {
                        self.vain = None;
                    }
                    self.set_guard(
                        now,
                        BitRate::from_bps(guard.as_bps().midpoint(sample.delivered.as_bps())),
                    );
                }
            }
        }
        self.delivered
            .push(i64::try_from(sample.delivered.as_bps()).unwrap_or(i64::MAX).saturating_neg(), now);
        queue_max <= self.threshold
    }

    fn set_guard(&mut self, now: Instant, rate: BitRate) {
        let rate = rate.max(RATE_MIN);
        if self.guard.is_none() {
            self.share_permille = 1_000;
            self.vain = None;
            (self.drained_at, self.draining) = (now, None);
        }
        self.guard = self.ceiling().is_none_or(|ceiling| rate < ceiling).then_some(rate);
        self.guarded_at = Some(now);
    }

    /// What a link that was found below its ceiling lately may be trusted with: it may have changed since it carried that much.
    fn trusted(&self, now: Instant) -> Option<BitRate> {
        self.guarded_at.filter(|at| now.saturating_since(*at) < DISTRUST)?;
        let delivered = self.delivered.min(now).map_or(0, |bps| bps.unsigned_abs());
        let known = self.capacity()?.permille(TRUST_PERMILLE_MIN);
        Some(BitRate::from_bps(delivered.saturating_mul(2)).max(known))
    }

    /// Whether `sent` uses what we may send; a link that nothing limits is used by anything that fills a queue in it.
    fn is_used(&self, sent: BitRate) -> bool {
        self.own_rate().is_none_or(|rate| sent >= rate.permille(USED_PERMILLE))
    }

    fn ceiling(&self) -> Option<BitRate> {
        match (self.configured, self.peer_ceiling) {
            (Some(own), Some(peer)) => Some(own.min(peer)),
            (own, peer) => own.or(peer),
        }
    }

    /// What the link carries, IP headers included; `None` when unknown.
    pub(super) fn capacity(&self) -> Option<BitRate> {
        match (self.guard, self.ceiling()) {
            (Some(guard), Some(ceiling)) => Some(guard.min(ceiling)),
            (guard, ceiling) => guard.or(ceiling),
        }
    }

    /// What ceiling and guard allow.
    fn own_rate(&self) -> Option<BitRate> {
        let ceiling = self.ceiling().map(|rate| rate.permille(PACING_PERMILLE));
        let guarded = self.guard.map(|rate| rate.permille(self.share_permille));
        match (ceiling, guarded) {
            (Some(ceiling), Some(guarded)) => Some(ceiling.min(guarded)),
            (ceiling, guarded) => ceiling.or(guarded),
        }
    }

    /// The rate to pace at while an echo is `overdue`; `None`: not paced.
    pub(super) fn pacing_rate(&self, overdue: Duration, now: Instant) -> Option<BitRate> {
        let mut rate = self.own_rate()?;
        if let Some(trusted) = self.trusted(now) {
            rate = rate.min(trusted);
        }
        if overdue.is_zero() {
            return Some(rate);
        }
        let excess = micros(overdue).saturating_mul(1_000) / micros(CONTROL_SPAN);
        let share = 1_000u64.saturating_sub(u64::try_from(excess).unwrap_or(0)).max(SHARE_PERMILLE_MIN);
        Some(rate.permille(share))
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn mbit(rate: u64) -> BitRate {
        BitRate::from_bps(rate * 1_000_000)
    }

    const RTT: Duration = Duration::from_millis(40);

    /// A heartbeat under way and back.
    struct Pending {
        sent_at: Instant,
        due: Instant,
        delay_us: i64,
        total_bytes: u64,
        delivery: Delivery,
    }

    /// A link with a deep queue, what a sender at the control's own rate sees of it, and how late.
    struct Bench {
        control: RateControl,
        queue: Duration,
        base_us: i64,
        now: Instant,
        sent_bytes: u64,
        lost_permille: u64,
        pending: VecDeque<Pending>,
    }

    impl Bench {
        fn new(configured: Option<BitRate>) -> Self {
            Self {
                control: RateControl::new(configured),
                queue: Duration::ZERO,
                base_us: -5_000_000,
                now: Instant::from_nanos(1_000_000_000),
                sent_bytes: 0,
                lost_permille: 0,
                pending: VecDeque::new(),
            }
        }

        /// After a second of little traffic: the base is known.
        fn rested(configured: BitRate) -> Self {
            let mut bench = Self::new(Some(configured));
            bench.run(1_000, BitRate::from_bps(10_000), configured);
            bench
        }

        /// 25 ms on a link of `capacity`; returns the queue's length.
        fn step(&mut self, offered: BitRate, capacity: BitRate) -> Duration {
            const INTERVAL: Duration = Duration::from_millis(25);
            self.now = self.now + INTERVAL;
            let echo_due = |first: &Pending| first.sent_at + RTT + self.control.queue + INTERVAL * 2;
            let overdue = self
                .pending
                .front()
                .map_or(Duration::ZERO, |first| self.now.saturating_since(echo_due(first)));
            let rate = self.control.pacing_rate(overdue, self.now);
            let sent = rate.map_or(offered, |rate| rate.min(offered));
            self.sent_bytes += sent.bytes_in(INTERVAL);
            let busy = self.queue + capacity.time_to_send(sent.bytes_in(INTERVAL));
            let queue = busy.saturating_sub(INTERVAL);
            let arriving = (INTERVAL + queue).saturating_sub(self.queue).max(INTERVAL / 2);
            self.queue = queue;
            self.pending.push_back(Pending {
                sent_at: self.now,
                due: self.now + RTT + queue,
                delay_us: self.base_us + i64::try_from(queue.as_micros()).unwrap(),
                total_bytes: self.sent_bytes,
                delivery: Delivery {
                    sent,
                    delivered: BitRate::from_bytes_over(sent.bytes_in(INTERVAL), arriving),
                    lost_permille: self.lost_permille,
                },
            });
            while self.pending.front().is_some_and(|first| first.due <= self.now) {
                let first = self.pending.pop_front().unwrap();
                let delay = Delay {
                    delay_us: first.delay_us,
                    rtt_min: RTT,
                    age: self.now - first.sent_at,
                    since_bytes: self.sent_bytes - first.total_bytes,
                };
                self.control.on_delay(&delay, self.now);
                self.control.on_delivery(&first.delivery, self.now);
            }
            self.queue
        }

        /// That for `ms`; the longest queue.
        fn run(&mut self, ms: u64, offered: BitRate, capacity: BitRate) -> Duration {
            (0..ms / 25).map(|_| self.step(offered, capacity)).max().unwrap()
        }
    }

    #[test]
    fn the_smaller_ceiling_counts() {
        let paced = |rate: &RateControl| rate.pacing_rate(Duration::ZERO, Instant::ZERO);
        let mut rate = RateControl::new(None);
        assert_eq!((rate.capacity(), paced(&rate)), (None, None));
        rate.on_peer_ceiling(Some(mbit(10)));
        assert_eq!(rate.capacity(), Some(mbit(10)));
        let mut rate = RateControl::new(Some(mbit(20)));
        rate.on_peer_ceiling(Some(mbit(10)));
        assert_eq!(rate.capacity(), Some(mbit(10)));
        rate.on_peer_ceiling(Some(mbit(30)));
        assert_eq!(rate.capacity(), Some(mbit(20)));
        assert_eq!(paced(&rate), Some(BitRate::from_bps(19_800_000)));
    }

    #[test]
    fn a_right_ceiling_is_never_touched() {
        let mut bench = Bench::rested(mbit(20));
        for _ in 0..800 {
            bench.step(mbit(100), mbit(20));
            assert_eq!(bench.control.capacity(), Some(mbit(20)));
        }
    }

    #[test]
    fn a_link_that_became_slower_is_followed_and_its_return_too() {
        let mut bench = Bench::rested(mbit(50));
        bench.run(2_000, mbit(100), mbit(50));
        bench.run(1_000, mbit(100), mbit(10));
        let worst = bench.run(20_000, mbit(100), mbit(10));
        let rate = bench.control.capacity().unwrap();
        assert!((mbit(9)..mbit(11)).contains(&rate), "{rate}");
        assert!(worst < Duration::from_millis(25), "{worst:?}");
        bench.run(3_000, mbit(100), mbit(50));
        assert!(bench.control.capacity().unwrap() >= mbit(49));
    }

    #[test]
    fn a_rate_that_walks_is_followed_both_ways_with_a_short_queue() {
        let mut bench = Bench::rested(mbit(60));
        bench.run(2_000, mbit(100), mbit(40));
        let (mut carried, mut worst) = (0, Duration::ZERO);
        for kbit in [30, 20, 14, 10, 14, 20, 30, 40, 30, 40, 50, 40, 30, 20, 30] {
            let before = bench.sent_bytes;
            worst = worst.max(bench.run(200, mbit(100), mbit(kbit)));
            carried += (bench.sent_bytes - before) * 8_000 / (kbit * 1_000_000);
        }
        assert!(carried > 15 * 200 * 85 / 100, "{carried}");
        assert!(worst < Duration::from_millis(80), "{worst:?}");
    }

    #[test]
    fn without_a_ceiling_the_queue_tells_the_rate() {
        let mut bench = Bench::new(None);
        bench.run(10_000, mbit(40), mbit(10));
        let rate = bench.control.capacity().unwrap();
        assert!((mbit(9)..mbit(11)).contains(&rate), "{rate}");
        let mut idle = Bench::new(None);
        idle.run(10_000, mbit(5), mbit(10));
        assert_eq!(idle.control.capacity(), None);
    }

    #[test]
    fn a_queue_from_the_start_does_not_become_the_base() {
        let mut bench = Bench::new(Some(mbit(50)));
        bench.run(60_000, mbit(100), mbit(20));
        let worst = bench.run(20_000, mbit(100), mbit(20));
        assert!(worst < Duration::from_millis(25), "{worst:?}");
    }

    #[test]
    fn a_longer_path_is_not_congestion() {
        for ceiling in [mbit(20), mbit(40)] {
            let mut bench = Bench::rested(ceiling);
            bench.run(2_000, mbit(100), mbit(20));
            bench.base_us += 40_000;
            bench.run(1_500, mbit(100), mbit(20));
            let rate = bench.control.capacity().unwrap();
            assert!(rate >= mbit(19), "{rate}");
            bench.base_us -= 40_000;
            let worst = bench.run(1_500, mbit(100), mbit(20));
            assert!(bench.control.capacity().unwrap() >= mbit(19));
            assert!(worst < Duration::from_millis(80), "{worst:?}");
        }
    }

    #[test]
    fn light_traffic_never_cuts() {
        let mut bench = Bench::rested(mbit(20));
        bench.step(mbit(1), mbit(20));
        bench.base_us += 100_000;
        for _ in 0..80 {
            bench.step(mbit(1), mbit(20));
            assert_eq!(bench.control.capacity(), Some(mbit(20)));
        }
    }

    #[test]
    fn light_traffic_that_the_link_cannot_carry_cuts() {
        let mut bench = Bench::rested(mbit(60));
        bench.run(1_000, mbit(4), mbit(60));
        bench.run(1_000, mbit(4), mbit(1));
        let rate = bench.control.capacity().unwrap();
        assert!(rate < mbit(2), "{rate}");
    }

    #[test]
    fn random_loss_costs_no_rate() {
        let mut bench = Bench::rested(mbit(20));
        bench.lost_permille = 30;
        bench.run(10_000, mbit(100), mbit(20));
        assert_eq!(bench.control.capacity(), Some(mbit(20)));
    }

    #[test]
    fn an_overdue_echo_slows_the_link() {
        let bench = Bench::rested(mbit(20));
        let rate = |overdue| bench.control.pacing_rate(Duration::from_millis(overdue), bench.now).unwrap();
        assert_eq!(rate(0), BitRate::from_bps(19_800_000));
        assert!(rate(15) < mbit(16) && rate(15) > mbit(15), "{}", rate(15));
        assert_eq!(rate(500), rate(0).permille(SHARE_PERMILLE_MIN));
    }

    #[test]
    fn a_link_that_varies_is_trusted_step_by_step_after_a_pause() {
        let mut bench = Bench::rested(mbit(60));
        bench.run(2_000, mbit(100), mbit(20));
        let paced = |bench: &Bench| bench.control.pacing_rate(Duration::ZERO, bench.now).unwrap();
        assert!(paced(&bench) > mbit(18), "{}", paced(&bench));
        bench.run(2_000, BitRate::from_bps(10_000), mbit(20));
        assert!(paced(&bench) < mbit(6), "{}", paced(&bench));
        let worst = bench.run(400, mbit(100), mbit(2));
        assert!(worst < Duration::from_millis(450), "{worst:?}");
        bench.run(3_000, mbit(100), mbit(20));
        assert!(paced(&bench) > mbit(18), "{}", paced(&bench));
    }
}
