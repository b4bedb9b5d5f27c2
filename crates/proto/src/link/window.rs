//! Extremes over a sliding window, in constant memory: the window is cut into ten parts, each keeps its own.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::time::Instant;

const PARTS: usize = 10;

/// The smallest value of the last `span` (give or take a tenth).
#[derive(Debug, Clone)]
pub(super) struct WindowedMin<T = i64> {
    part_ns: u64,
    /// Part number, from 1 on so that no part takes no room, and smallest value in it.
    parts: [Option<(NonZeroU64, T)>; PARTS],
}

impl<T: Ord + Copy> WindowedMin<T> {
    /// An empty window of `span`.
    pub(super) fn new(span: Duration) -> Self {
        let part_ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX) / PARTS as u64;
        Self { part_ns: part_ns.max(1), parts: [None; PARTS] }
    }

    /// Adds a value.
    pub(super) fn push(&mut self, value: T, now: Instant) {
        let number = self.number(now);
        let Some(part) =
            usize::try_from(number.get() % PARTS as u64).ok().and_then(|at| self.parts.get_mut(at))
        else {
            return;
        };
        let least = part.filter(|(at, _)| *at == number).map_or(value, |(_, least)| least.min(value));
        *part = Some((number, least));
    }

    /// The part of a moment.
    fn number(&self, now: Instant) -> NonZeroU64 {
        NonZeroU64::MIN.saturating_add(now.as_nanos() / self.part_ns)
    }

    /// The smallest value not older than the window; `None` when there is none.
    pub(super) fn min(&self, now: Instant) -> Option<T> {
        let number = self.number(now);
        let oldest = number.get().saturating_sub(PARTS as u64 - 1);
        self.parts
            .iter()
            .flatten()
            .filter(|(at, _)| (oldest..=number.get()).contains(&at.get()))
            .map(|(_, least)| *least)
            .min()
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
