//! The queue of a link: its average delay, less the datagram's own time at C, above the *base*.
//!
//! The base is the usual delay without a queue: the least of ten seconds of average delays, each
//! with what chance explains on top. Like is compared with like: the least of hundreds of averages
//! is some three of their deviations below the mean, so that much is added to each. A delay seen
//! while little was known of chance counts with more on top, and a better one replaces it.
//!
//! The base's own time is taken at the largest C in those ten seconds, since the least delay was
//! most likely seen then. Taken at the C of its moment, the base would be too short by a datagram's
//! time on a link that becomes faster. Measured:
//! docs/decisions/0011-base-delay-at-the-largest-rate.md.

use super::observation::Observation;
use super::params::{BASE_WINDOW_MS, NOISE_HEADROOM};
use super::smoothing::Smoothing;
use crate::link::window::{MaxRate, WindowedMin};
use crate::time::Instant;

/// The delay of a link without a queue, µs with an unknown offset.
#[derive(Debug, Clone)]
struct Base {
    /// Delays with the size of the datagram in bytes.
    delays: WindowedMin<(i64, u64), BASE_WINDOW_MS>,
    /// The largest C.
    fastest: MaxRate<BASE_WINDOW_MS>,
}

impl Base {
    fn new() -> Self {
        Self { delays: WindowedMin::new(), fastest: MaxRate::new() }
    }

    fn push(&mut self, delay_us: i64, bytes: u64, rate_bps: f64, now: Instant) {
        self.delays.push((delay_us, bytes), now);
        self.fastest.push(rate_bps, now);
    }

    /// `None`: nothing was seen lately.
    fn us(&self, now: Instant) -> Option<i64> {
        let (least_us, bytes) = self.delays.min(now)?;
        Some(least_us.saturating_sub(own_us(bytes, self.fastest.bps(now))))
    }
}

/// How long a datagram takes at a rate; none where that is not known.
fn own_us(bytes: u64, rate_bps: f64) -> i64 {
    if rate_bps > 0.0 { rounded(bytes as f64 * 8e6 / rate_bps) } else { 0 }
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn rounded(value: f64) -> i64 {
    value.round() as i64
}

/// The queue of one link, as its delays tell.
#[derive(Debug, Clone)]
pub(super) struct QueueDelay {
    base: Base,
    smoothing: Smoothing,
    queue_s: f64,
}

impl QueueDelay {
    pub(super) fn new() -> Self {
        Self { base: Base::new(), smoothing: Smoothing::default(), queue_s: 0.0 }
    }

    /// Void: the base, the queue and the delays before. Survives: how noisy the link is.
    pub(super) fn on_restart(&mut self) {
        self.forget_base();
        self.smoothing.on_restart();
    }

    fn forget_base(&mut self) {
        self.base = Base::new();
        self.queue_s = 0.0;
    }

    /// Takes an observation of a link that carries `rate_bps` (0: not known).
    pub(super) fn on_observation(&mut self, seen: &Observation, rate_bps: f64, now: Instant) {
        let own_us = own_us(seen.delay_bytes, rate_bps);
        self.smoothing.on_observation(seen, seen.delay_us.saturating_sub(own_us), now);
        if self.smoothing.is_known() {
            self.push_base(self.noise_s(), seen.delay_bytes, rate_bps, now);
        }
        self.measure(own_us, now);
    }

    /// The path became longer: what is measured now, of a link that carries `rate_bps`, is the
    /// base.
    pub(super) fn rebase(&mut self, seen: &Observation, rate_bps: f64, now: Instant) {
        self.forget_base();
        self.push_base(self.noise_s() / 2.0, seen.delay_bytes, rate_bps, now);
        self.measure(own_us(seen.delay_bytes, rate_bps), now);
    }

    fn push_base(&mut self, above_s: f64, bytes: u64, rate_bps: f64, now: Instant) {
        let delay_us = self.smoothing.delay_us().saturating_add(rounded(above_s * 1e6));
        self.base.push(delay_us, bytes, rate_bps, now);
    }

    fn measure(&mut self, own_us: i64, now: Instant) {
        let delay_us = self.smoothing.delay_us().saturating_sub(own_us);
        let base_us = self.base.us(now).unwrap_or(delay_us);
        self.queue_s = (delay_us.saturating_sub(base_us) as f64 / 1e6).max(0.0);
    }

    /// `seen`, with averages in place of its delay, send time and bytes sent.
    pub(super) fn averaged(&self, seen: &Observation) -> Observation {
        self.smoothing.averaged(seen)
    }

    /// The queue that the newest observations met, seconds.
    pub(super) const fn queue_s(&self) -> f64 {
        self.queue_s
    }

    /// The deviation of the queue by chance, seconds.
    pub(super) fn deviation_s(&self) -> f64 {
        self.smoothing.deviation_s()
    }

    /// How far above the least average delay the usual one is by chance, seconds.
    pub(super) fn noise_s(&self) -> f64 {
        self.deviation_s() * NOISE_HEADROOM
    }

    /// The usual delay of a link without a queue, µs with an unknown offset.
    pub(super) fn base_us(&self, now: Instant) -> Option<i64> {
        self.base.us(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_own_time_of_a_datagram_on_a_slow_link_is_no_queue_once_it_is_fast() {
        let at = |ms| Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms);
        let mut queue = QueueDelay::new();
        let sample = |ms, delay_us| Observation::seen(at(ms), ms * 1_500, delay_us);
        // It carries 1 Mbit/s, 12 ms a datagram, and is believed to carry a little less.
        queue.on_observation(&sample(0, 32_000), 700_000.0, at(0));
        assert!(queue.queue_s().abs() < f64::EPSILON);
        for ms in 100..200 {
            queue.on_observation(&sample(ms, 20_200), 60e6, at(ms));
            assert!(queue.queue_s() < 0.000_1, "{}", queue.queue_s());
        }
        // What stands there then is seen.
        queue.on_observation(&sample(200, 30_200), 60e6, at(200));
        assert!(queue.queue_s() > 0.005, "{}", queue.queue_s());
    }
}
