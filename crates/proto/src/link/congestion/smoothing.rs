//! How much delays vary by chance, and what is left of them on average.
//!
//! A link's jitter is not a queue, and one delay is no evidence. Two values are kept of the delays
//! that observations bring (each the least of one report, some 5 to 80 datagrams):
//! - the [`Deviation`], of single delays and of averages 100 ms apart. A queue grows and shrinks
//!   steadily and chance does not, so it is what is left of three delays after two differences. At
//!   most [`LEAST_GAIN`] times its least of some seconds counts: where C varies, the bond's own
//!   queue bends now and then, and jitter does all the time;
//! - the [`Average`] over so many of them that its deviation is near [`EMPTY_S`], at most
//!   [`AVERAGE_MAX`] and a window's time. The send time and the bytes sent are averaged with the
//!   same weights, so that delays, rates and the dead time of the control stay consistent, whatever
//!   the lag.
//!
//! Chance makes no delay that is lower than the average by five deviations and [`FALL_S`]: an
//! outage is over, and the average begins anew. Measured:
//! docs/decisions/0020-what-an-outage-leaves.md.
//!
//! Without jitter the average is the newest delay, and nothing lags.

use std::time::Duration;

use super::observation::Observation;
use super::params::{
    AVERAGE_MAX, BEND, BEND_OUTLIER, BEND_STEP_S, DEVIATION_GAIN, DRAIN_DEVIATIONS, EMPTY_S, FALL_S,
    KNOWN_AFTER, LEAST_COUNT, LEAST_GAIN, LEAST_WINDOW, SAMPLE_GAP_MAX_S, WINDOW_MAX_S,
};
use crate::time::Instant;

/// The averages whose deviation counts are at least this far apart. Chosen: a window of rates.
const SLOW: Duration = Duration::from_millis(100);

/// The least value of the last one to two [`LEAST_WINDOW`]s, in little memory.
#[derive(Debug, Clone, Copy, Default)]
struct Least {
    since: Instant,
    before: Option<f32>,
    now: Option<f32>,
}

impl Least {
    #[expect(clippy::cast_possible_truncation, reason = "a deviation needs no more")]
    fn push(&mut self, value: f64, now: Instant) {
        if now.saturating_since(self.since) >= LEAST_WINDOW {
            (self.since, self.before, self.now) = (now, self.now, None);
        }
        let value = value as f32;
        self.now = Some(self.now.map_or(value, |least| least.min(value)));
    }

    fn value(self) -> Option<f64> {
        let least = self.before.into_iter().chain(self.now).reduce(f32::min);
        least.map(f64::from)
    }
}

/// How far the values of a series of delays are from each other by chance.
#[derive(Debug, Clone, Copy, Default)]
struct Deviation {
    s: f64,
    least: Least,
    count: u32,
    /// When the newest value came, and the last two, seconds.
    last: Option<(Instant, f64, f64)>,
}

impl Deviation {
    /// Takes a value that is at least `apart` from the last.
    fn on_value(&mut self, value_s: f64, apart: Duration, now: Instant) {
        let (at, last_s, before_s) = self.last.unwrap_or((now, value_s, value_s));
        let span = now.saturating_since(at);
        if span < apart {
            return;
        }
        self.count = self.count.saturating_add(1);
        let bend_s = (value_s + before_s - last_s * 2.0).abs() / BEND;
        let bend_s = if self.is_sure() { bend_s.min(self.s * BEND_OUTLIER + BEND_STEP_S) } else { bend_s };
        let first = if self.count > 2 { 1.0 / f64::from(self.count) } else { 0.0 };
        let gain = span.as_secs_f64().min(SAMPLE_GAP_MAX_S) * DEVIATION_GAIN;
        self.s += (bend_s - self.s) * gain.max(first);
        // Of few values the mean may be small by chance.
        if self.count > LEAST_COUNT && first <= gain {
            self.least.push(self.s, now);
        }
        self.last = Some((now, value_s, last_s));
    }

    /// What of it counts, seconds.
    fn value_s(&self) -> f64 {
        self.least.value().map_or(self.s, |least_s| self.s.min(least_s * LEAST_GAIN))
    }

    /// Whether it was taken over enough values.
    const fn is_sure(&self) -> bool {
        self.count > 2 * KNOWN_AFTER
    }
}

/// Observations averaged, as if of one datagram.
#[derive(Debug, Clone, Copy, Default)]
struct Average {
    /// Over so many.
    count: f64,
    sent_at_s: f64,
    sent: f64,
    delay_s: f64,
    at: Instant,
}

impl Average {
    fn push(&mut self, seen: &Observation, most: f64, now: Instant) {
        let span_s = now.saturating_since(std::mem::replace(&mut self.at, now)).as_secs_f64();
        let room = (WINDOW_MAX_S / span_s.max(1e-6)).max(1.0);
        self.count = (self.count + 1.0).min(most).min(room);
        let gain = 1.0 / self.count;
        self.sent_at_s += (seen.sent_at.as_nanos() as f64 / 1e9 - self.sent_at_s) * gain;
        self.sent += (seen.sent as f64 - self.sent) * gain;
        self.delay_s += (seen.delay_us as f64 / 1e6 - self.delay_s) * gain;
    }
}

/// The delays of one link, as they vary.
#[derive(Debug, Clone, Default)]
pub(super) struct Smoothing {
    single: Deviation,
    slow: Deviation,
    average: Average,
}

impl Smoothing {
    /// Void: the delays before. Survives: how much they vary.
    pub(super) fn on_restart(&mut self) {
        (self.single.last, self.slow.last) = (None, None);
        self.average = Average::default();
    }

    /// Takes an observation; `delay_us` is its delay less the datagram's own time.
    pub(super) fn on_observation(&mut self, seen: &Observation, delay_us: i64, now: Instant) {
        self.single.on_value(delay_us as f64 / 1e6, Duration::ZERO, now);
        let single_s = self.single.value_s();
        let most = (single_s / EMPTY_S).powi(2).clamp(1.0, AVERAGE_MAX);
        let fallen_s = self.average.delay_s - seen.delay_us as f64 / 1e6;
        if fallen_s > FALL_S.max(single_s * DRAIN_DEVIATIONS) {
            self.average = Average { at: self.average.at, ..Average::default() };
        }
        self.average.push(seen, most, now);
        self.slow.on_value(self.average.delay_s, SLOW, now);
    }

    /// Whether enough was seen to tell chance from a queue.
    pub(super) const fn is_known(&self) -> bool {
        self.single.count > KNOWN_AFTER
    }

    /// The deviation of the average, seconds: what was measured of it, but no more than that of a
    /// single delay, and no less than if all were independent.
    pub(super) fn deviation_s(&self) -> f64 {
        let single_s = self.single.value_s();
        let least_s = single_s / (2.0 * self.average.count - 1.0).max(1.0).sqrt();
        if self.slow.is_sure() { self.slow.value_s().clamp(least_s, single_s) } else { single_s }
    }

    /// The average delay, µs.
    pub(super) fn delay_us(&self) -> i64 {
        rounded(self.average.delay_s * 1e6)
    }

    /// `seen`, with the averages in place of its send time, bytes sent and delay.
    pub(super) fn averaged(&self, seen: &Observation) -> Observation {
        let nanos = u64::try_from(rounded(self.average.sent_at_s * 1e9)).unwrap_or(0);
        let sent = u64::try_from(rounded(self.average.sent)).unwrap_or(0);
        Observation { sent_at: Instant::from_nanos(nanos), sent, delay_us: self.delay_us(), ..*seen }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn rounded(value: f64) -> i64 {
    value.round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(smoothing: &mut Smoothing, ms: u64, delay_us: i64) {
        let now = Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms);
        smoothing.on_observation(&Observation::seen(now, ms * 1_500, delay_us), delay_us, now);
    }

    #[test]
    fn an_outage_leaves_none_of_its_delays() {
        let mut smoothing = Smoothing::default();
        for (number, ms) in (0..).zip((0..6_000).step_by(60)) {
            see(&mut smoothing, ms, [800_000, 842_000, 815_000, 870_000][number % 4]);
        }
        assert!(smoothing.average.count > 3.0 && smoothing.delay_us() > 800_000);
        see(&mut smoothing, 6_020, 30_400);
        assert!(smoothing.delay_us() < 31_000, "{}", smoothing.delay_us());
    }

    #[test]
    fn jitter_that_begins_is_learned() {
        let mut smoothing = Smoothing::default();
        for ms in (0..3_000).step_by(10) {
            see(&mut smoothing, ms, 30_000);
        }
        for (number, ms) in (0..).zip((3_000..6_000).step_by(10)) {
            see(&mut smoothing, ms, [30_000, 75_000, 20_000, 60_000, 90_000][number % 5]);
        }
        assert!(smoothing.single.value_s() > 0.01, "{}", smoothing.single.value_s());
    }
}
