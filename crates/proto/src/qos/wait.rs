//! The spans of time in which a tier waited on purpose.
//!
//! When the scheduler holds a packet back because a busy faster link will still deliver it first,
//! every packet behind it waits too, although no queue stands. [`WaitLog`] remembers these spans.
//! CoDel subtracts them from a packet's sojourn exactly: only the part of a span in which the
//! packet was there.
//!
//! Spans may be reported before, while or after they pass. Overlaps count once, and a span that was
//! reported ahead ends when a packet is taken earlier. At most [`SPANS_MAX`] spans are kept. A
//! packet older than all of them gets credit for these spans only, so forgetting leads to a signal
//! rather than to none. A driver in real time leaves some microseconds between two spans: spans
//! that almost touch are merged into one of up to [`PIECE`], which knows how long it waited, but
//! not when.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Instant;

/// The most spans remembered. Chosen: 64 spans of some milliseconds reach further back than the
/// sojourns that matter to CoDel.
const SPANS_MAX: usize = 64;
/// Spans closer together than this are merged, unless the merged span would be longer than
/// [`PIECE`] and the new one. Chosen: the time that a driver takes for a batch of datagrams.
/// Measured: docs/decisions/0073-delay-of-the-queue.md.
const GAP_MAX: Duration = Duration::from_micros(500);
/// The longest merged span. Chosen: short beside the sojourns that CoDel signals.
const PIECE: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy)]
struct Span {
    from: Instant,
    until: Instant,
    /// How much of the span was waited.
    waited: Duration,
    /// The total waited in all spans before this one.
    before: Duration,
}

impl Span {
    /// How much was waited before `at`, which is not before the span's begin.
    fn waited_up_to(&self, at: Instant) -> Duration {
        let length = self.until.saturating_since(self.from);
        let passed = at.saturating_since(self.from);
        if passed >= length { self.waited } else { self.waited.mul_f64(passed.div_duration_f64(length)) }
    }
}

/// Spans in order of time, without overlap.
#[derive(Debug, Default)]
pub(super) struct WaitLog {
    spans: VecDeque<Span>,
}

impl WaitLog {
    /// Adds a span; the part before the end of the last one is ignored.
    pub(super) fn add(&mut self, from: Instant, until: Instant) {
        let mut before = Duration::ZERO;
        let mut from = from;
        if let Some(last) = self.spans.back_mut() {
            from = from.max(last.until);
            if until <= from {
                return;
            }
            if from.saturating_since(last.until) <= GAP_MAX && last.until.saturating_since(last.from) <= PIECE
            {
                last.until = until;
                last.waited += until.saturating_since(from);
                return;
            }
            before = last.before + last.waited;
        } else if until <= from {
            return;
        }
        if self.spans.len() == SPANS_MAX {
            self.spans.pop_front();
        }
        self.spans.push_back(Span { from, until, waited: until.saturating_since(from), before });
    }

    /// Handles a packet taken at `now`: a wait reported beyond that is over.
    pub(super) fn end(&mut self, now: Instant) {
        if let Some(last) = self.spans.back_mut()
            && last.until > now
        {
            last.waited = last.waited.saturating_sub(last.until.saturating_since(now.max(last.from)));
            last.until = now.max(last.from);
        }
    }

    /// How much of the time between `start` and `end` was waited on purpose.
    pub(super) fn between(&self, start: Instant, end: Instant) -> Duration {
        match self.spans.back() {
            Some(last) if last.until > start => self.up_to(end).saturating_sub(self.up_to(start)),
            _ => Duration::ZERO,
        }
    }

    /// The total waited in all spans before `at`.
    fn up_to(&self, at: Instant) -> Duration {
        let after = self.spans.partition_point(|span| span.from <= at);
        match after.checked_sub(1).and_then(|index| self.spans.get(index)) {
            Some(span) => span.before + span.waited_up_to(at),
            None => self.spans.front().map_or(Duration::ZERO, |first| first.before),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn only_the_shared_part_counts() {
        let mut log = WaitLog::default();
        log.add(at(10), at(20));
        log.add(at(30), at(50));
        for (start, end, waited) in [
            (0, 5, 0),
            (0, 15, 5),
            (0, 25, 10),
            (12, 18, 6),
            (15, 40, 15),
            (20, 30, 0),
            (0, 100, 30),
            (45, 100, 5),
            (50, 100, 0),
        ] {
            assert_eq!(log.between(at(start), at(end)), ms(waited), "{start}..{end}");
        }
    }

    #[test]
    fn overlaps_and_repeats_count_once() {
        let mut log = WaitLog::default();
        log.add(at(10), at(20));
        log.add(at(12), at(20));
        log.add(at(15), at(25));
        log.add(at(5), at(9));
        log.add(at(40), at(30));
        assert_eq!(log.between(at(0), at(100)), ms(15));
        assert_eq!(log.spans.len(), 1);
    }

    #[test]
    fn a_driver_in_real_time_loses_no_credit() {
        let mut log = WaitLog::default();
        let us = |us| Instant::ZERO + Duration::from_micros(us);
        for index in 0..1_000 {
            log.add(us(index * 250), us(index * 250 + 240));
        }
        assert!(log.spans.len() < SPANS_MAX);
        let waited = log.between(us(150_000), us(250_000));
        assert!(ms(95) < waited && waited < ms(97), "{waited:?}");
        assert_eq!(log.between(us(0), us(250_000)), ms(240));
    }

    #[test]
    fn a_wait_that_ends_early_counts_until_then() {
        let mut log = WaitLog::default();
        log.end(at(5));
        log.add(at(10), at(30));
        log.end(at(18));
        assert_eq!(log.between(at(0), at(25)), ms(8));
        log.end(at(40));
        log.add(at(20), at(30));
        log.end(at(15));
        assert_eq!(log.between(at(0), at(100)), ms(8));
    }

    #[test]
    fn memory_is_bounded_and_forgetting_gives_less_credit() {
        let mut log = WaitLog::default();
        for index in 0..1000 {
            log.add(at(index * 10), at(index * 10 + 4));
        }
        assert_eq!(log.spans.len(), SPANS_MAX);
        assert_eq!(log.between(at(0), at(10_000)), ms(64 * 4));
        assert_eq!(log.between(at(9_500), at(10_000)), ms(50 * 4));
    }
}
