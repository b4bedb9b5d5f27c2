//! The drain test: whether a queue drains that should.
//!
//! Where the queue should have drained by [`DRAIN_TEST_S`], or by itself, and did not by half of
//! that, it is not ours. What is measured now is the new base: a longer path. [`DRAIN_TESTS`]
//! times, each within [`DRAIN_TEST_WITHIN`] of the last, is no path: a competitor fills the queue.

use super::Cause;
use crate::link::congestion::observation::Observation;
use crate::link::congestion::params::{
    CONTESTED_FOR, DRAIN_TEST_LONGEST, DRAIN_TEST_S, DRAIN_TEST_WITHIN, DRAIN_TESTS, DRAINING, FLAT,
};
use crate::time::Instant;

/// A test under way.
#[derive(Debug, Clone, Copy)]
struct Test {
    /// Only what was sent from here on met a shorter queue of the bond.
    from: Instant,
    /// The newest send time seen, and bytes sent up to then; `None`: none yet.
    at: Option<(Instant, u64)>,
    queue_s: f64,
    /// How much shorter the queue should have become: by what was held back, or what there was not
    /// to send.
    expected_s: f64,
}

/// A queue that did not drain.
#[derive(Debug, Clone, Copy)]
struct Failure {
    at: Instant,
    /// How often in a row.
    times: u32,
    /// The base before the first.
    base_us: i64,
}

/// What the control did and saw.
#[derive(Debug, Clone, Copy)]
pub(in crate::link::congestion) struct Seen {
    /// The queue, and what counts as none, seconds.
    pub(in crate::link::congestion) queue_s: f64,
    pub(in crate::link::congestion) empty_s: f64,
    /// Share of C that is paced at.
    pub(in crate::link::congestion) gain: f64,
    /// C.
    pub(in crate::link::congestion) rate_bps: f64,
}

/// A queue that is not ours.
#[derive(Debug, Clone, Copy)]
pub(in crate::link::congestion) struct Finding {
    pub(in crate::link::congestion) cause: Cause,
    /// The first of a series: C fell only because of that queue.
    pub(in crate::link::congestion) is_first: bool,
}

/// The detector.
#[derive(Debug, Clone, Default)]
pub(in crate::link::congestion) struct DrainTest {
    test: Option<Test>,
    failure: Option<Failure>,
}

impl DrainTest {
    /// The queue changed by itself: the test says nothing.
    pub(in crate::link::congestion) const fn abandon(&mut self) {
        self.test = None;
    }

    /// The competitor is gone.
    pub(in crate::link::congestion) const fn forget_failures(&mut self) {
        self.failure = None;
    }

    /// The base before a queue lately did not drain, if there was one.
    pub(in crate::link::congestion) fn base_us(&self, now: Instant) -> Option<i64> {
        self.recent(now).map(|failure| failure.base_us)
    }

    /// Whether a queue did not drain so lately that a competitor may be there.
    pub(in crate::link::congestion) fn is_contested(&self, now: Instant) -> bool {
        self.failure.is_some_and(|failure| now.saturating_since(failure.at) < CONTESTED_FOR)
    }

    fn recent(&self, now: Instant) -> Option<Failure> {
        self.failure.filter(|failure| now.saturating_since(failure.at) < DRAIN_TEST_WITHIN)
    }

    /// Takes an observation. When the test began that a queue failed now.
    pub(in crate::link::congestion) fn on_observation(
        &mut self,
        seen: &Observation,
        state: &Seen,
        now: Instant,
    ) -> Option<Instant> {
        // Where the queue is believed to be gone, one that changed may be; one that is as long as
        // ever was not ours. A test asks for any queue that counts as one: else it would lower C
        // and never be found to be another's.
        let is_flat = |test: &Test| (state.queue_s - test.queue_s).abs() <= test.queue_s * FLAT;
        if state.queue_s <= state.empty_s || (state.gain >= 1.0 && !self.test.as_ref().is_some_and(is_flat)) {
            self.test = None;
            return None;
        }
        let start = Test { from: now, at: None, queue_s: state.queue_s, expected_s: 0.0 };
        let test = self.test.get_or_insert(start);
        if seen.sent_at < test.from {
            test.queue_s = state.queue_s;
            return None;
        }
        let Some((at, sent)) = test.at.replace((seen.sent_at, seen.sent)) else {
            test.queue_s = state.queue_s;
            return None;
        };
        let span_s = seen.sent_at.saturating_since(at).as_secs_f64();
        test.expected_s += if state.gain < 1.0 {
            span_s * (1.0 - state.gain)
        } else {
            let sent_s = seen.sent.saturating_sub(sent) as f64 * 8.0 / state.rate_bps;
            (span_s * DRAINING - sent_s).max(0.0)
        };
        let enough = DRAIN_TEST_S.max(test.queue_s.min(DRAIN_TEST_S * DRAIN_TEST_LONGEST));
        if test.expected_s < enough {
            return None;
        }
        let drained = test.queue_s - state.queue_s;
        let (from, half) = (test.from, test.expected_s / 2.0);
        self.test = None;
        if drained > half {
            self.failure = None;
            return None;
        }
        Some(from)
    }

    /// A queue failed the test that began at `from`, on a link of this base. What it is.
    pub(in crate::link::congestion) fn on_failure(
        &mut self,
        from: Instant,
        base_us: i64,
        now: Instant,
    ) -> Finding {
        let times = self.recent(from).map_or(1, |failure| failure.times + 1);
        self.failure = Some(Failure { at: now, times, base_us });
        let cause = if times >= DRAIN_TESTS { Cause::Competitor } else { Cause::LongerPath };
        Finding { cause, is_first: times == 1 }
    }
}
