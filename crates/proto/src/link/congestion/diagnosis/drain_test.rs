//! The drain test: whether a queue that stands drains when less is sent.
//!
//! A link that is used to the full is paced at [`DRAIN_SHARE`] below *what it delivered*, and not
//! below C: C may be too large, and then a queue of the bond would not drain either. A test begins
//! - [`DRAIN_EVERY`] after the link was empty last, so that no standing queue becomes the base;
//! - sooner where the mean queue is longer than what is kept on purpose and what noise explains.
//!
//! It ends when what was sent since should have shortened the queue by more than noise. Where half
//! of that is gone, the queue was the bond's, and what was delivered before is C. Where it is not,
//! the queue is not ours: what is measured now is the new base, a *longer path*, and C comes back.
//! [`FAILURES`] times, each within [`FAILURES_WITHIN`] of the last, is no path: a competitor fills
//! the queue. Where C falls during the test the link became slower, and the test says nothing.
//! It says nothing either, and ends at once, where the queue was gone before less was sent.
//!
//! So delay that is taken for a queue by mistake costs one test, and no belief in C.

use std::time::Duration;

use super::Cause;
use crate::link::congestion::params::{
    CONTESTED_FOR, DRAIN_DEVIATIONS, DRAIN_EVERY, DRAIN_LEAST_S, DRAIN_MEAN_S, DRAIN_SHARE, FAILURES,
    FAILURES_WITHIN, SAMPLE_GAP_MAX_S,
};
use crate::time::Instant;

/// A test under way.
#[derive(Debug, Clone, Copy)]
struct Test {
    /// Only what was sent from here on met a shorter queue of the bond.
    from: Instant,
    /// The newest send time seen since then; `None`: none yet.
    at: Option<Instant>,
    /// It began since a queue stood.
    stood: bool,
    /// What was delivered before, bit/s.
    delivered_bps: f64,
    /// The queue before, and by how much it should have become shorter, seconds.
    before_s: f64,
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

/// What an observation of a steady link says.
#[derive(Debug, Clone, Copy)]
pub(in crate::link::congestion) struct Seen {
    /// When the datagram was sent that it tells of.
    pub(in crate::link::congestion) sent_at: Instant,
    /// The queue, the longest that is kept on purpose or explained by noise, and the deviation of
    /// noise, seconds.
    pub(in crate::link::congestion) queue_s: f64,
    pub(in crate::link::congestion) limit_s: f64,
    pub(in crate::link::congestion) deviation_s: f64,
    /// What was delivered in the last window; `None`: the link was not used to the full.
    pub(in crate::link::congestion) delivered_bps: Option<f64>,
    /// C.
    pub(in crate::link::congestion) rate_bps: f64,
    /// More than C is sent to find out what the link carries: no time for a test.
    pub(in crate::link::congestion) is_searching: bool,
    /// A queue longer than the limit is tested no sooner than this after the last test.
    pub(in crate::link::congestion) patience: Duration,
}

/// What a test found of a queue that stood.
#[derive(Debug, Clone, Copy)]
pub(in crate::link::congestion) enum Verdict {
    /// It did not drain. The test began at `from`.
    NotOurs {
        /// Since when less was sent.
        from: Instant,
    },
    /// It drained: the link carries what it delivered before.
    Ours {
        /// That rate, bit/s.
        delivered_bps: f64,
    },
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
    /// When the queue was empty last for certain.
    empty_at: Instant,
    test: Option<Test>,
    /// The mean queue, seconds, and when it was brought up to date.
    mean_s: f64,
    at: Instant,
    failure: Option<Failure>,
}

impl DrainTest {
    /// The link is empty, or now and then: it is not used to the full.
    pub(in crate::link::congestion) const fn on_empty(&mut self, now: Instant) {
        self.empty_at = now;
    }

    /// The mean queue, seconds.
    pub(in crate::link::congestion) const fn mean_s(&self) -> f64 {
        self.mean_s
    }

    /// The most to pace at while a test goes on, bit/s.
    pub(in crate::link::congestion) fn most_bps(&self) -> Option<f64> {
        self.test.map(|test| test.delivered_bps * (1.0 - DRAIN_SHARE))
    }

    /// The queue grows by itself: the test says nothing.
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
        self.failure.filter(|failure| now.saturating_since(failure.at) < FAILURES_WITHIN)
    }

    /// Takes an observation. What a test found that ends with it, if a queue stood.
    pub(in crate::link::congestion) fn on_observation(
        &mut self,
        seen: &Seen,
        now: Instant,
    ) -> Option<Verdict> {
        let span_s = now.saturating_since(std::mem::replace(&mut self.at, now)).as_secs_f64();
        self.mean_s += (seen.queue_s - self.mean_s) * (span_s / DRAIN_MEAN_S).min(1.0);
        let Some(test) = &mut self.test else {
            self.begin(seen, now);
            return None;
        };
        if seen.rate_bps < test.delivered_bps * (1.0 - DRAIN_SHARE) {
            // The link became slower meanwhile.
            self.test = None;
            return None;
        }
        if seen.sent_at < test.from {
            test.before_s = seen.queue_s;
            return None;
        }
        let before = test.at.replace(seen.sent_at).unwrap_or(test.from);
        let sent_s = seen.sent_at.saturating_since(before).as_secs_f64();
        test.expected_s += sent_s.min(SAMPLE_GAP_MAX_S) * DRAIN_SHARE;
        let told_s = DRAIN_LEAST_S.max(seen.deviation_s * DRAIN_DEVIATIONS);
        if test.stood && test.before_s <= seen.limit_s {
            // It was gone before less was sent.
            (self.test, self.empty_at, self.mean_s) = (None, now, 0.0);
            return None;
        }
        if test.expected_s < told_s {
            return None;
        }
        let ended = *test;
        (self.test, self.empty_at, self.mean_s) = (None, now, 0.0);
        if ended.before_s <= seen.limit_s {
            return None;
        }
        let drained_s = ended.before_s - seen.queue_s;
        Some(if drained_s < ended.before_s.min(ended.expected_s) / 2.0 {
            Verdict::NotOurs { from: ended.from }
        } else {
            Verdict::Ours { delivered_bps: ended.delivered_bps }
        })
    }

    /// Begins a test where one is due.
    fn begin(&mut self, seen: &Seen, now: Instant) {
        let Some(delivered_bps) = seen.delivered_bps else { return };
        let since = now.saturating_since(self.empty_at);
        let stands = self.mean_s > seen.limit_s && since >= seen.patience;
        if !seen.is_searching && (stands || since >= DRAIN_EVERY) {
            let delivered_bps = delivered_bps.min(seen.rate_bps);
            let (from, before_s) = (now, seen.queue_s);
            let test = Test { from, at: None, stood: stands, delivered_bps, before_s, expected_s: 0.0 };
            self.test = Some(test);
        }
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
        let cause = if times >= FAILURES { Cause::Competitor } else { Cause::LongerPath };
        Finding { cause, is_first: times == 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_was_gone_before_less_was_sent_ends_the_test() {
        let at = |ms| Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms);
        let seen = |sent_ms, queue_s| Seen {
            sent_at: at(sent_ms),
            queue_s,
            limit_s: 0.02,
            deviation_s: 0.02,
            delivered_bps: Some(1e6),
            rate_bps: 2e6,
            is_searching: false,
            patience: Duration::from_millis(700),
        };
        let mut drain = DrainTest::default();
        drain.on_empty(at(0));
        for ms in (0..2_000).step_by(20) {
            if drain.most_bps().is_none() {
                assert!(drain.on_observation(&seen(ms, 0.5), at(ms + 20)).is_none());
            }
        }
        assert!(drain.most_bps().is_some(), "a queue that stands is tested");
        // Sent before the test began, it met no queue any more. Then the first that was sent since.
        assert!(drain.on_observation(&seen(0, 0.0), at(2_020)).is_none());
        assert!(drain.most_bps().is_some());
        assert!(drain.on_observation(&seen(2_030, 0.0), at(2_060)).is_none());
        assert_eq!(drain.most_bps(), None, "nothing is held back for a queue that is gone");
    }
}
