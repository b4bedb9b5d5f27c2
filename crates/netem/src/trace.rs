//! Traces of delivery opportunities, as Mahimahi records and replays them.
//!
//! A trace is a list of times in milliseconds, one per line, in order, repeats allowed. At each
//! time the link can take 1,500 bytes: one full packet, several small ones, or a part of one. An
//! opportunity that finds the queue empty is lost. The last time is the period after which the
//! trace repeats.

use std::fmt;

use crate::random::{Random, Stream};
use crate::time::Time;
use crate::time::nanos;
use std::time::Duration;

/// The bytes of one opportunity (Mahimahi's MTU).
pub const OPPORTUNITY_BYTES: u64 = 1_500;

/// The most opportunities of a trace. Chosen: an hour at 50 Mbit/s.
pub const OPPORTUNITIES_MAX: usize = 16_000_000;

const NANOS_PER_MS: u64 = 1_000_000;

/// A checked, repeating list of delivery opportunities.
#[derive(Clone, PartialEq, Eq)]
pub struct Trace {
    /// Milliseconds since the start of a period, in order; never empty, and the last is not zero.
    at_ms: Vec<u32>,
}

/// The reason for refusing a trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// The trace has no opportunity.
    #[error("the trace is empty: give one delivery time in milliseconds per line")]
    Empty,
    /// A line is not a number.
    #[error("line {line}: '{text}' is not a delivery time in whole milliseconds")]
    NotANumber {
        /// Counted from 1.
        line: usize,
        /// The start of the line.
        text: String,
    },
    /// The times are not in order.
    #[error("entry {entry}: {at_ms} ms comes after {before_ms} ms: delivery times must be in order")]
    Unordered {
        /// Counted from 1.
        entry: usize,
        /// The time given.
        at_ms: u32,
        /// The time before it.
        before_ms: u32,
    },
    /// The period has no length.
    #[error("the last delivery time is 0 ms: it is the trace's period and must be positive")]
    NoPeriod,
    /// The trace has more than [`OPPORTUNITIES_MAX`] times.
    #[error("the trace has more than {OPPORTUNITIES_MAX} delivery times")]
    TooLong,
    /// The bounds of a walk contradict each other.
    #[error("a walk needs 0 < min <= max <= 10 Gbit/s, a period and steps of at least 1 ms, at most one day")]
    ImpossibleWalk,
}

impl Trace {
    /// A trace of opportunities at these milliseconds.
    pub fn from_millis(at_ms: Vec<u32>) -> Result<Self, TraceError> {
        if at_ms.len() > OPPORTUNITIES_MAX {
            return Err(TraceError::TooLong);
        }
        for (index, (before, at)) in at_ms.iter().zip(at_ms.iter().skip(1)).enumerate() {
            if at < before {
                return Err(TraceError::Unordered { entry: index + 2, at_ms: *at, before_ms: *before });
            }
        }
        match at_ms.last() {
            None => Err(TraceError::Empty),
            Some(0) => Err(TraceError::NoPeriod),
            Some(_) => Ok(Self { at_ms }),
        }
    }

    /// Reads Mahimahi's format: a time in milliseconds per line; empty lines and lines that start
    /// with `#` are skipped.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut at_ms = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if at_ms.len() == OPPORTUNITIES_MAX {
                return Err(TraceError::TooLong);
            }
            at_ms.push(line.parse().map_err(|_| TraceError::NotANumber {
                line: index + 1,
                text: line.chars().take(40).collect(),
            })?);
        }
        Self::from_millis(at_ms)
    }

    /// The period, in milliseconds.
    pub fn period_ms(&self) -> u32 {
        self.at_ms.last().copied().unwrap_or(1)
    }

    /// Opportunities per period.
    pub fn opportunities(&self) -> usize {
        self.at_ms.len()
    }

    /// Bits per second over a whole period.
    pub fn mean_bps(&self) -> u64 {
        let bits = u128::from(self.len()) * u128::from(OPPORTUNITY_BYTES) * 8;
        u64::try_from(bits * 1_000 / u128::from(self.period_ms())).unwrap_or(u64::MAX)
    }

    /// Bits per second of the best second.
    pub fn peak_bps(&self) -> u64 {
        const SPAN_MS: u64 = 1_000;
        let most = (0..u64::from(self.period_ms()))
            .map(|start| self.bytes_between(Time::from_millis(start), Time::from_millis(start + SPAN_MS)))
            .max();
        most.unwrap_or(0).saturating_mul(8)
    }

    /// The bytes that all opportunities in `from..to` carry.
    pub fn bytes_between(&self, from: Time, to: Time) -> u64 {
        let count = self.first_at_or_after(to).saturating_sub(self.first_at_or_after(from));
        count.saturating_mul(OPPORTUNITY_BYTES)
    }

    /// When opportunity `index` comes. Opportunities are counted from the epoch and never end.
    pub(crate) fn time_of(&self, index: u64) -> Time {
        let len = self.len();
        let within =
            usize::try_from(index % len).ok().and_then(|at| self.at_ms.get(at)).copied().unwrap_or(0);
        let millis =
            (index / len).saturating_mul(u64::from(self.period_ms())).saturating_add(u64::from(within));
        Time::from_millis(millis)
    }

    /// The first opportunity at `at` or later.
    pub(crate) fn first_at_or_after(&self, at: Time) -> u64 {
        let millis = at.as_nanos().div_ceil(NANOS_PER_MS);
        if millis == 0 {
            return 0;
        }
        // The end of one period is the start of the next, so the search begins in the period that
        // ends here.
        let period = u64::from(self.period_ms());
        let lap = (millis - 1) / period;
        let within = millis - lap * period;
        let skipped = self.at_ms.partition_point(|at_ms| u64::from(*at_ms) < within);
        lap.saturating_mul(self.len()).saturating_add(skipped as u64)
    }

    fn len(&self) -> u64 {
        self.at_ms.len() as u64
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({} opportunities in {} ms)", self.at_ms.len(), self.period_ms())
    }
}

/// A generated trace: a rate that wanders between two bounds, as a mobile link's capacity does.
///
/// At each step the rate is multiplied or divided by a factor drawn between 1 and `factor_max`, and
/// kept within the bounds. Only basic arithmetic is used, so a seed gives the same trace on every
/// machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Walk {
    /// Lower bound in bits per second.
    pub min_bps: u64,
    /// Upper bound in bits per second.
    pub max_bps: u64,
    /// How long the rate stays constant.
    pub step: Duration,
    /// The largest change of one step, as a factor above 1.
    pub factor_max: f64,
    /// The period of the trace.
    pub period: Duration,
    /// The seed of the walk.
    pub seed: u64,
}

impl Walk {
    /// The trace of this walk.
    pub fn trace(&self) -> Result<Trace, TraceError> {
        let period_ms = nanos(self.period) / NANOS_PER_MS;
        let step_ms = nanos(self.step) / NANOS_PER_MS;
        let possible = self.min_bps > 0
            && self.min_bps <= self.max_bps
            && self.max_bps <= 10_000_000_000
            && step_ms > 0
            && (1..=86_400_000).contains(&period_ms)
            && self.factor_max >= 1.0;
        if !possible {
            return Err(TraceError::ImpossibleWalk);
        }
        let (min, max) = (self.min_bps as f64, self.max_bps as f64);
        let mut random = Random::new(self.seed, Stream::Walk);
        // The start is anywhere between the bounds.
        let mut bps = min + (max - min) * random.unit();
        let mut credit_bytes = 0.0;
        let mut at_ms = Vec::new();
        for ms in 1..=u32::try_from(period_ms).map_err(|_| TraceError::ImpossibleWalk)? {
            if u64::from(ms) % step_ms == 0 {
                let factor = 1.0 + (self.factor_max - 1.0) * random.unit();
                bps = if random.chance(0.5) { bps * factor } else { bps / factor };
                bps = bps.clamp(min, max);
            }
            credit_bytes += bps / 8_000.0;
            while credit_bytes >= OPPORTUNITY_BYTES as f64 {
                credit_bytes -= OPPORTUNITY_BYTES as f64;
                at_ms.push(ms);
            }
            if at_ms.len() > OPPORTUNITIES_MAX {
                return Err(TraceError::TooLong);
            }
        }
        // The last entry is the period.
        let end = u32::try_from(period_ms).map_err(|_| TraceError::ImpossibleWalk)?;
        if at_ms.last() != Some(&end) {
            at_ms.push(end);
        }
        Trace::from_millis(at_ms)
    }
}
