//! Extremes over a sliding window, in constant memory: the window is cut into ten parts, each keeps its own.

use std::time::Duration;

use crate::time::Instant;

const PARTS: usize = 10;

/// The smallest value of the last `span` (give or take a tenth).
#[derive(Debug, Clone)]
pub(super) struct WindowedMin<T = i64> {
    part_ns: u64,
    /// Part numbers, counted from 1 and modulo 2^32, for 64 bits would take 40 bytes more in each of a link's seven windows; 0: nothing is in it.
    numbers: [u32; PARTS],
    /// The smallest value in each part.
    least: [T; PARTS],
}

impl<T: Ord + Copy + Default> WindowedMin<T> {
    /// An empty window of `span`.
    pub(super) fn new(span: Duration) -> Self {
        let part_ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX) / PARTS as u64;
        Self { part_ns: part_ns.max(1), numbers: [0; PARTS], least: [T::default(); PARTS] }
    }

    /// Adds a value.
    pub(super) fn push(&mut self, value: T, now: Instant) {
        let number = self.number(now);
        let at = usize::try_from(number).unwrap_or(0) % PARTS;
        let (Some(part), Some(least)) = (self.numbers.get_mut(at), self.least.get_mut(at)) else { return };
        *least = if *part == number { value.min(*least) } else { value };
        *part = number;
    }

    /// The part of a moment.
    #[expect(clippy::cast_possible_truncation, reason = "modulo 2^32")]
    fn number(&self, now: Instant) -> u32 {
        (now.as_nanos() / self.part_ns).wrapping_add(1) as u32
    }

    /// The smallest value not older than the window; `None` when there is none.
    pub(super) fn min(&self, now: Instant) -> Option<T> {
        let number = self.number(now);
        let is_recent =
            |part: u32| part != 0 && usize::try_from(number.wrapping_sub(part)).is_ok_and(|age| age < PARTS);
        let parts = self.numbers.iter().zip(&self.least);
        parts.filter(|(part, _)| is_recent(**part)).map(|(_, least)| *least).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_is_older_than_the_window() {
        let at = |secs| Instant::ZERO + Duration::from_secs(secs);
        let mut window = WindowedMin::new(Duration::from_secs(10));
        assert_eq!(window.min(at(0)), None);
        window.push(5, at(0));
        window.push(9, at(4));
        assert_eq!(window.min(at(9)), Some(5));
        assert_eq!(window.min(at(10)), Some(9));
        assert_eq!(window.min(at(14)), None);
    }
}
