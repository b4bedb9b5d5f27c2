//! Extremes over a sliding window, in constant memory: the window is cut into ten parts, each keeps its own.

use std::time::Duration;

use crate::time::Instant;

const PARTS: usize = 10;

/// The smallest value of the last `span` (give or take a tenth).
#[derive(Debug, Clone)]
pub(super) struct WindowedMin {
    part_ns: u64,
    /// Part number and smallest value in it.
    parts: [(u64, i64); PARTS],
}

impl WindowedMin {
    /// An empty window of `span`.
    pub(super) fn new(span: Duration) -> Self {
        let part_ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX) / PARTS as u64;
        Self { part_ns: part_ns.max(1), parts: [(u64::MAX, i64::MAX); PARTS] }
    }

    /// Adds a value.
    pub(super) fn push(&mut self, value: i64, now: Instant) {
        let number = now.as_nanos() / self.part_ns;
        let Some(part) = usize::try_from(number % PARTS as u64).ok().and_then(|at| self.parts.get_mut(at))
        else {
            return;
        };
        if part.0 == number {
            part.1 = part.1.min(value);
        } else {
            *part = (number, value);
        }
    }

    /// The smallest value not older than the window; `None` when there is none.
    pub(super) fn min(&self, now: Instant) -> Option<i64> {
        let number = now.as_nanos() / self.part_ns;
        let oldest = number.saturating_sub(PARTS as u64 - 1);
        self.parts.iter().filter(|part| (oldest..=number).contains(&part.0)).map(|part| part.1).min()
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
