//! Extremes over a sliding window, in constant memory: the window is cut into ten parts, each keeps
//! its own.

use crate::time::Instant;

/// Parts of a window. Chosen: a value is forgotten a tenth of the window late at most.
const PARTS: usize = 10;

/// The smallest value of the last `SPAN_MS` (give or take a tenth).
#[derive(Debug, Clone)]
pub(super) struct WindowedMin<T, const SPAN_MS: u64> {
    /// Part numbers, counted from 1 and modulo 2^32 (64 bits would take 40 bytes more in each of a
    /// link's windows); 0: nothing is in it.
    numbers: [u32; PARTS],
    /// The smallest value in each part.
    least: [T; PARTS],
}

impl<T: Ord + Copy + Default, const SPAN_MS: u64> WindowedMin<T, SPAN_MS> {
    /// Length of a part, ns.
    const PART_NS: u64 = SPAN_MS * 1_000_000 / PARTS as u64;

    /// An empty window.
    pub(super) fn new() -> Self {
        Self { numbers: [0; PARTS], least: [T::default(); PARTS] }
    }

    /// Adds a value.
    pub(super) fn push(&mut self, value: T, now: Instant) {
        let number = Self::number(now);
        let at = usize::try_from(number).unwrap_or(0) % PARTS;
        let (Some(part), Some(least)) = (self.numbers.get_mut(at), self.least.get_mut(at)) else { return };
        *least = if *part == number { value.min(*least) } else { value };
        *part = number;
    }

    /// The part of a moment.
    #[expect(clippy::cast_possible_truncation, reason = "modulo 2^32")]
    fn number(now: Instant) -> u32 {
        (now.as_nanos() / Self::PART_NS).wrapping_add(1) as u32
    }

    /// The smallest value not older than the window; `None`: there is no value.
    pub(super) fn min(&self, now: Instant) -> Option<T> {
        let number = Self::number(now);
        let is_recent =
            |part: u32| part != 0 && usize::try_from(number.wrapping_sub(part)).is_ok_and(|age| age < PARTS);
        let parts = self.numbers.iter().zip(&self.least);
        parts.filter(|(part, _)| is_recent(**part)).map(|(_, least)| *least).min()
    }
}

/// The largest rate of the last `SPAN_MS`. Kept in kbit/s: 64 bits would take 40 bytes more in each
/// of a link's windows of rates.
#[derive(Debug, Clone)]
pub(super) struct MaxRate<const SPAN_MS: u64>(WindowedMin<i32, SPAN_MS>);

impl<const SPAN_MS: u64> MaxRate<SPAN_MS> {
    /// An empty window.
    pub(super) fn new() -> Self {
        Self(WindowedMin::new())
    }

    /// Adds a rate, bit/s; 2 Tbit/s at most.
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    pub(super) fn push(&mut self, bps: f64, now: Instant) {
        self.0.push(-((bps / 1e3).round() as i32), now);
    }

    /// The largest, bit/s; 0: there is none.
    pub(super) fn bps(&self, now: Instant) -> f64 {
        self.0.min(now).map_or(0.0, |negated| f64::from(negated) * -1e3)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn forgets_what_is_older_than_the_window() {
        let at = |secs| Instant::ZERO + Duration::from_secs(secs);
        let mut window = WindowedMin::<_, 10_000>::new();
        assert_eq!(window.min(at(0)), None);
        window.push(5, at(0));
        window.push(9, at(4));
        assert_eq!(window.min(at(9)), Some(5));
        assert_eq!(window.min(at(10)), Some(9));
        assert_eq!(window.min(at(14)), None);
        let mut rates = MaxRate::<10_000>::new();
        assert!(rates.bps(at(0)).abs() < 1.0);
        rates.push(5e6, at(0));
        rates.push(3e12, at(1));
        rates.push(7e6, at(4));
        assert!((rates.bps(at(5)) - f64::from(i32::MAX) * 1e3).abs() < 1.0);
        assert!((rates.bps(at(12)) - 7e6).abs() < 1.0);
    }
}
