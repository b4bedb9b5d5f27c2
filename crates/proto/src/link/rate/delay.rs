//! Delays: what of them is a queue, and what is noise.
//!
//! The queue is the delay, less the datagram's own time at C, above the least in ten seconds (the *base*), and above twice the noise. A queue
//! grows and shrinks steadily and noise does not, so noise is what is left of three delays after two differences. On a link that is used to
//! the full, where our own queue comes and goes, it is at most half more than it was before.
//!
//! The base's own time is taken at the largest C in those ten seconds: the least delay was most likely seen then. Taken at the C of
//! its moment, which a link that varies may just have left behind, the base would be too short by a datagram's time, and for ten seconds
//! afterwards a link without a queue would seem to have one. (Simulated, `varying`: a link that went from 1 to 60 Mbit/s was
//! used at 14 to 23 for 6 s.)

use std::time::Duration;

use super::{RateControl, Sample, rounded};
use crate::link::window::{MaxRate, WindowedMin};
use crate::time::Instant;

const BASE_WINDOW: Duration = Duration::from_secs(10);

/// A delay of so many deviations above the base is no queue, and one outlier counts for at most four deviations and this.
pub(super) const NOISE_HEADROOM: f64 = 2.0;
const NOISE_STEP_S: f64 = 0.000_5;
/// On a link that is used to the full it is at most so many times what it was before, or this.
const NOISE_GROWTH: f64 = 1.5;
const NOISE_FULL_S: f64 = 0.000_7;

/// The least delay of a link without a queue, µs with an unknown offset.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// Delays with the size of the datagram in bytes.
    delays: WindowedMin<(i64, u64)>,
    /// The largest C.
    fastest: MaxRate,
}

impl Base {
    pub(super) fn new() -> Self {
        Self { delays: WindowedMin::new(BASE_WINDOW), fastest: MaxRate::new(BASE_WINDOW) }
    }

    fn push(&mut self, sample: &Sample, rate_bps: f64, now: Instant) {
        self.delays.push((sample.delay_us, sample.delay_bytes), now);
        self.fastest.push(rate_bps, now);
    }

    /// `None`: nothing was seen lately.
    pub(super) fn us(&self, now: Instant) -> Option<i64> {
        let (least_us, bytes) = self.delays.min(now)?;
        Some(least_us.saturating_sub(own_us(bytes, self.fastest.bps(now))))
    }
}

/// How long a datagram takes at a rate; none where that is not known.
pub(super) fn own_us(bytes: u64, rate_bps: f64) -> i64 {
    if rate_bps > 0.0 { rounded(bytes as f64 * 8e6 / rate_bps) } else { 0 }
}

impl RateControl {
    pub(super) fn note_delay(&mut self, sample: &Sample, now: Instant) {
        let rate_bps = self.capacity().map_or(0.0, super::bps);
        self.base.push(sample, rate_bps, now);
        let delay_us = sample.delay_us.saturating_sub(own_us(sample.delay_bytes, rate_bps));
        let base_us = self.base.us(now).unwrap_or(delay_us);
        self.note_noise(delay_us, now);
        let above_s = delay_us.saturating_sub(base_us) as f64 / 1e6;
        self.queue_s = (above_s - self.noise_s * NOISE_HEADROOM).max(0.0);
        self.queue_max_s = self.queue_max_s.max(self.queue_s);
    }

    /// How far delays jump about: a queue grows and shrinks steadily, so what is left after two differences is noise.
    fn note_noise(&mut self, delay_us: i64, now: Instant) {
        let (at, last_us, before_us) = self.noise_from.unwrap_or((now, delay_us, delay_us));
        let bend_us = delay_us.saturating_add(before_us).saturating_sub(last_us.saturating_mul(2));
        // Of independent samples, 1.95 mean deviations.
        let seen = bend_us.unsigned_abs() as f64 / 1e6 / 1.95;
        let seen = seen.min(self.noise_s * 4.0 + NOISE_STEP_S);
        let weight = now.saturating_since(at).as_secs_f64().min(0.1);
        self.noise_s += (seen - self.noise_s) * weight;
        if self.is_full {
            // Our own queue comes and goes too.
            self.noise_s = self.noise_s.min((self.calm_noise_s * NOISE_GROWTH).max(NOISE_FULL_S));
        } else {
            self.calm_noise_s = self.noise_s;
        }
        self.noise_from = Some((now, delay_us, last_us));
    }
}
