//! What a link can carry in the direction we send, and how fast to send on it.
//!
//! **Ceiling.** What configuration says: our own `up` (a server: `down` of the client's link) and what the peer tells in its
//! heartbeats; the smaller counts. A link with a ceiling is paced just below it from the first packet.
//!
//! **Guard.** A ceiling may be wrong for a while (LTE) or missing. Twice that a heartbeat in a row finds the one-way delay above its
//! base by more than max(15 ms, a quarter of the smallest RTT), or that more than a twentieth of a used link's datagrams
//! were lost, the link is taken to carry 95 % of what was delivered. Until the queue is gone it is paced below that, so that what
//! stands there drains within about 0.4 s. Then 5 % more with every heartbeat for as long as the link is used to the full, up to the
//! ceiling. A link that carries little keeps its rate.
//! Three cuts that do not bring the delay down show that it is no queue of ours: the path became longer, and what is
//! measured now is the base (srtla_send's rule; a satellite's slot change).
//!
//! This is a guard, not an estimator: it finds out what a link carries by filling it.

use std::time::Duration;

use super::window::WindowedMin;
use crate::time::Instant;
use crate::units::BitRate;

/// Pace at this share of the rate, so that rounding and clocks never build a queue in the link.
const PACING_PERMILLE: u64 = 990;

/// Ours: what scheduling of a busy host adds to a delay is below this, and players of games do not notice it.
const STANDING_MIN: Duration = Duration::from_millis(15);

/// Samples in a row before a cut.
const STANDING_SAMPLES: u32 = 2;

/// Cuts in a row that must have lowered the delay by a fifth, else it is not a queue.
const CUTS_IN_VAIN: u32 = 3;

const CUT_PERMILLE: u64 = 950;
const GROWTH_PERMILLE: u64 = 1_050;

/// A queue is to drain in this time, at no less and no more than these shares of the rate.
const DRAIN_SPAN: Duration = Duration::from_millis(400);
const DRAIN_PERMILLE_MIN: u64 = 300;
const DRAIN_PERMILLE_MAX: u64 = 850;

/// Utilisation from which a link counts as used to the full.
const USED_PERMILLE: u64 = 700;

/// Loss of a used link that counts as congestion.
const LOSS_PERMILLE: u64 = 50;

/// No cut goes below this: heartbeats must still find out what the link carries.
const RATE_MIN: BitRate = BitRate::from_bps(200_000);

const BASE_WINDOW: Duration = Duration::from_secs(10);

/// What two heartbeats that the peer echoed tell of the time between them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    /// What we sent.
    pub(super) sent: BitRate,
    /// What of it arrived.
    pub(super) delivered: BitRate,
    /// Datagrams that did not arrive, permille.
    pub(super) lost_permille: u64,
    /// One-way delay at its end, µs with an unknown offset.
    pub(super) delay_us: i64,
    /// The link's smallest RTT.
    pub(super) rtt_min: Duration,
}

/// The rate model of one link and direction.
#[derive(Debug, Clone)]
pub(super) struct RateControl {
    configured: Option<BitRate>,
    peer_ceiling: Option<BitRate>,
    /// The guard's rate while it is below the ceiling.
    guard: Option<BitRate>,
    /// Share of the rate to pace at while a queue drains, and the queueing delay seen last.
    drain: Option<(u64, Duration)>,
    base: WindowedMin,
    /// Samples in a row that showed congestion.
    standing: u32,
    /// Cuts in a row, and the queueing delay at the first of them.
    cuts: (u32, Duration),
}

impl RateControl {
    /// With the ceiling from our own configuration.
    pub(super) fn new(configured: Option<BitRate>) -> Self {
        Self {
            configured,
            peer_ceiling: None,
            guard: None,
            drain: None,
            base: WindowedMin::new(BASE_WINDOW),
            standing: 0,
            cuts: (0, Duration::ZERO),
        }
    }

    /// The peer told what it wants to be sent at most.
    pub(super) const fn on_peer_ceiling(&mut self, ceiling: Option<BitRate>) {
        self.peer_ceiling = ceiling;
    }

    /// The peer was restarted or the link was down: delays begin anew, the rate is kept.
    pub(super) fn on_restart(&mut self) {
        self.base = WindowedMin::new(BASE_WINDOW);
        self.drain = None;
        self.standing = 0;
        self.cuts = (0, Duration::ZERO);
    }

    /// Takes a sample; tells whether the link was free of a standing queue, so that what was lost was not lost to one.
    pub(super) fn on_delivery(&mut self, sample: &Delivery, now: Instant) -> bool {
        self.base.push(sample.delay_us, now);
        let base_us = self.base.min(now).unwrap_or(sample.delay_us);
        let queue =
            Duration::from_micros(u64::try_from(sample.delay_us.saturating_sub(base_us)).unwrap_or(0));
        let threshold = STANDING_MIN.max(sample.rtt_min / 4);
        let used = self.is_used(sample.sent);
        if let Some((_, before)) = &mut self.drain {
            let drains = queue < *before;
            *before = queue;
            if queue <= threshold / 2 {
                self.drain = None;
            } else if drains {
                return false;
            }
        }
        if queue > threshold || (used && sample.lost_permille > LOSS_PERMILLE) {
            self.standing += 1;
            if self.standing >= STANDING_SAMPLES {
                self.standing = 0;
                self.cut(sample, queue, now);
            }
        } else {
            self.standing = 0;
            self.cuts.0 = 0;
            if used {
                self.grow();
            }
        }
        queue <= threshold / 2
    }

    fn cut(&mut self, sample: &Delivery, queue: Duration, now: Instant) {
        if self.cuts.0 == 0 {
            self.cuts.1 = queue;
        }
        self.cuts.0 += 1;
        if self.cuts.0 > CUTS_IN_VAIN && queue * 5 > self.cuts.1 * 4 {
            self.base = WindowedMin::new(BASE_WINDOW);
            self.base.push(sample.delay_us, now);
            self.drain = None;
            self.cuts.0 = 0;
            return;
        }
        // What little traffic delivers says nothing about the link.
        let delivered = if self.is_used(sample.sent) { sample.delivered } else { return };
        let rate = delivered.permille(CUT_PERMILLE).max(RATE_MIN);
        self.guard = Some(self.capacity().map_or(rate, |capacity| capacity.min(rate)));
        let excess = queue.as_millis() * 1_000 / DRAIN_SPAN.as_millis();
        let share = 1_000u64.saturating_sub(u64::try_from(excess).unwrap_or(u64::MAX));
        self.drain = Some((share.clamp(DRAIN_PERMILLE_MIN, DRAIN_PERMILLE_MAX), queue));
    }

    fn grow(&mut self) {
        let Some(rate) = self.guard else { return };
        let rate = rate.permille(GROWTH_PERMILLE);
        self.guard = self.ceiling().is_none_or(|ceiling| rate < ceiling).then_some(rate);
    }

    /// Whether `sent` uses what we may send; a link that nothing limits is used by anything that fills a queue in it.
    fn is_used(&self, sent: BitRate) -> bool {
        self.pacing_rate().is_none_or(|rate| sent >= rate.permille(USED_PERMILLE))
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

    /// The rate to pace at; `None`: not paced.
    pub(super) fn pacing_rate(&self) -> Option<BitRate> {
        let share = self.drain.map_or(PACING_PERMILLE, |(share, _)| share);
        self.capacity().map(|rate| rate.permille(share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mbit(rate: u64) -> BitRate {
        BitRate::from_bps(rate * 1_000_000)
    }

    /// A link of `capacity` with a deep queue: what a sender at the control's own rate sees, sample by sample.
    struct Bench {
        control: RateControl,
        queue: Duration,
        base_us: i64,
        now: Instant,
    }

    impl Bench {
        fn new(configured: Option<BitRate>) -> Self {
            Self {
                control: RateControl::new(configured),
                queue: Duration::ZERO,
                base_us: -5_000_000,
                now: Instant::from_nanos(1_000_000_000),
            }
        }

        fn step(&mut self, offered: BitRate, capacity: BitRate) {
            const INTERVAL: Duration = Duration::from_millis(100);
            self.now = self.now + INTERVAL;
            let sent = self.control.pacing_rate().map_or(offered, |rate| rate.min(offered));
            let waiting = capacity.bytes_in(self.queue) + sent.bytes_in(INTERVAL);
            let delivered = waiting.min(capacity.bytes_in(INTERVAL));
            self.queue = capacity.time_to_send(waiting - delivered);
            let sample = Delivery {
                sent,
                delivered: BitRate::from_bytes_over(delivered, INTERVAL),
                lost_permille: 0,
                delay_us: self.base_us + i64::try_from(self.queue.as_micros()).unwrap(),
                rtt_min: Duration::from_millis(40),
            };
            self.control.on_delivery(&sample, self.now);
        }
    }

    #[test]
    fn the_smaller_ceiling_counts() {
        let mut rate = RateControl::new(None);
        assert_eq!((rate.capacity(), rate.pacing_rate()), (None, None));
        rate.on_peer_ceiling(Some(mbit(10)));
        assert_eq!(rate.capacity(), Some(mbit(10)));
        let mut rate = RateControl::new(Some(mbit(20)));
        rate.on_peer_ceiling(Some(mbit(10)));
        assert_eq!(rate.capacity(), Some(mbit(10)));
        rate.on_peer_ceiling(Some(mbit(30)));
        assert_eq!(rate.capacity(), Some(mbit(20)));
        assert_eq!(rate.pacing_rate(), Some(BitRate::from_bps(19_800_000)));
    }

    #[test]
    fn a_right_ceiling_is_never_touched() {
        let mut bench = Bench::new(Some(mbit(20)));
        for _ in 0..200 {
            bench.step(mbit(100), mbit(20));
            assert_eq!(bench.control.capacity(), Some(mbit(20)));
        }
    }

    #[test]
    fn a_link_that_became_slower_is_followed_and_its_return_too() {
        let mut bench = Bench::new(Some(mbit(50)));
        let mut carried = |capacity: BitRate, steps: u32| {
            let mut worst = Duration::ZERO;
            for step in 0..steps {
                bench.step(mbit(100), capacity);
                if step > steps / 2 {
                    worst = worst.max(bench.queue);
                }
            }
            (bench.control.capacity().unwrap(), worst)
        };
        carried(mbit(50), 20);
        let (rate, worst) = carried(mbit(10), 100);
        assert!((mbit(8)..mbit(13)).contains(&rate), "{rate}");
        assert!(worst < Duration::from_millis(60), "{worst:?}");
        let (rate, _) = carried(mbit(50), 50);
        assert_eq!(rate, mbit(50));
    }

    #[test]
    fn without_a_ceiling_the_queue_tells_the_rate() {
        let mut bench = Bench::new(None);
        for _ in 0..100 {
            bench.step(mbit(40), mbit(10));
        }
        let rate = bench.control.capacity().unwrap();
        assert!((mbit(8)..mbit(13)).contains(&rate), "{rate}");
        let mut idle = Bench::new(None);
        for _ in 0..100 {
            idle.step(mbit(5), mbit(10));
        }
        assert_eq!(idle.control.capacity(), None);
    }

    #[test]
    fn a_longer_path_is_not_congestion() {
        let mut bench = Bench::new(Some(mbit(20)));
        for _ in 0..20 {
            bench.step(mbit(100), mbit(20));
        }
        bench.base_us += 40_000;
        for _ in 0..60 {
            bench.step(mbit(100), mbit(20));
        }
        assert_eq!(bench.control.capacity(), Some(mbit(20)));
    }

    #[test]
    fn light_traffic_never_cuts() {
        let mut bench = Bench::new(Some(mbit(20)));
        bench.step(mbit(1), mbit(20));
        bench.base_us += 100_000;
        for _ in 0..20 {
            bench.step(mbit(1), mbit(20));
            assert_eq!(bench.control.capacity(), Some(mbit(20)));
        }
    }
}
