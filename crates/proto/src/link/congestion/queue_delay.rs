//! Delays: what of them is a queue, and what is noise.
//!
//! The queue is the delay, less the datagram's own time at C, above the least in ten seconds (the
//! *base*), and above twice the noise. A queue grows and shrinks steadily and noise does not, so
//! noise is what is left of three delays after two differences. On a link that is used to the full,
//! where our own queue comes and goes, it is at most half more than it was before.
//!
//! The base's own time is taken at the largest C in those ten seconds, since the least delay was
//! most likely seen then. Taken at the C of its moment, the base would be too short by a datagram's
//! time on a link that becomes faster. Measured:
//! docs/decisions/0011-base-delay-at-the-largest-rate.md.

use super::observation::Observation;
use super::params::{
    BASE_WINDOW_MS, NOISE_BEND, NOISE_FULL_S, NOISE_GROWTH, NOISE_HEADROOM, NOISE_OUTLIER, NOISE_STEP_S,
    SAMPLE_GAP_MAX_S,
};
use crate::link::window::{MaxRate, WindowedMin};
use crate::time::Instant;

/// The least delay of a link without a queue, µs with an unknown offset.
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

    fn push(&mut self, seen: &Observation, rate_bps: f64, now: Instant) {
        self.delays.push((seen.delay_us, seen.delay_bytes), now);
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

/// The deviation of delays that no queue explains.
#[derive(Debug, Clone, Copy, Default)]
struct Noise {
    s: f64,
    /// The same while the link was not used to the full.
    calm_s: f64,
    /// The last two delays, µs, and when the newer came.
    from: Option<(Instant, i64, i64)>,
}

impl Noise {
    /// A queue grows and shrinks steadily, so what is left after two differences is noise.
    fn on_delay(&mut self, delay_us: i64, is_full: bool, now: Instant) {
        let (at, last_us, before_us) = self.from.unwrap_or((now, delay_us, delay_us));
        let bend_us = delay_us.saturating_add(before_us).saturating_sub(last_us.saturating_mul(2));
        let seen = bend_us.unsigned_abs() as f64 / 1e6 / NOISE_BEND;
        let seen = seen.min(self.s * NOISE_OUTLIER + NOISE_STEP_S);
        let weight = now.saturating_since(at).as_secs_f64().min(SAMPLE_GAP_MAX_S);
        self.s += (seen - self.s) * weight;
        if is_full {
            // Our own queue comes and goes too.
            self.s = self.s.min((self.calm_s * NOISE_GROWTH).max(NOISE_FULL_S));
        } else {
            self.calm_s = self.s;
        }
        self.from = Some((now, delay_us, last_us));
    }
}

/// The queue of one link, as its delays tell.
#[derive(Debug, Clone)]
pub(super) struct QueueDelay {
    base: Base,
    queue_s: f64,
    noise: Noise,
    /// Whether the pacer was used to the full lately.
    is_full: bool,
}

impl QueueDelay {
    pub(super) fn new() -> Self {
        Self { base: Base::new(), queue_s: 0.0, noise: Noise::default(), is_full: false }
    }

    /// Void: the base, the queue and the delays before. Survive: how noisy the link is, and how
    /// much it was used.
    pub(super) fn on_restart(&mut self) {
        self.forget_base();
        self.noise.from = None;
    }

    /// The path became longer: what comes from here on is the base.
    pub(super) fn forget_base(&mut self) {
        self.base = Base::new();
        self.queue_s = 0.0;
    }

    /// Takes an observation of a link that carries `rate_bps` (0: not known).
    pub(super) fn on_observation(&mut self, seen: &Observation, rate_bps: f64, now: Instant) {
        self.base.push(seen, rate_bps, now);
        let delay_us = seen.delay_us.saturating_sub(own_us(seen.delay_bytes, rate_bps));
        let base_us = self.base.us(now).unwrap_or(delay_us);
        self.noise.on_delay(delay_us, self.is_full, now);
        let above_s = delay_us.saturating_sub(base_us) as f64 / 1e6;
        self.queue_s = (above_s - self.noise.s * NOISE_HEADROOM).max(0.0);
    }

    /// Whether the pacer is used to the full.
    pub(super) const fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// The queue that the newest observation met, seconds.
    pub(super) const fn queue_s(&self) -> f64 {
        self.queue_s
    }

    /// What of a delay is no queue, seconds.
    pub(super) fn noise_s(&self) -> f64 {
        self.noise.s * NOISE_HEADROOM
    }

    /// The least delay of a link without a queue, µs with an unknown offset.
    pub(super) fn base_us(&self, now: Instant) -> Option<i64> {
        self.base.us(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::link::path::ecn::Marked;

    #[test]
    fn the_own_time_of_a_datagram_on_a_slow_link_is_no_queue_once_it_is_fast() {
        let at = |ms| Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms);
        let mut queue = QueueDelay::new();
        let sample = |ms, delay_us| Observation {
            sent_at: at(ms),
            sent: ms * 1_500,
            idle: Duration::ZERO,
            arrived_us: ms * 1_000 + 20_000,
            delivered: ms * 1_500,
            lost: 0,
            lost_rows: 0,
            marked: Marked::default(),
            delay_us,
            delay_bytes: 1_500,
            total: ms * 1_500,
            rtt_min: Duration::from_millis(40),
        };
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
