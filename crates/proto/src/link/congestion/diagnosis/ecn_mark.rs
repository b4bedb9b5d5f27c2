//! Congestion marks: a queue management on the way says that its queue is too long, even one that
//! cannot be told from noise yet, or one that is counted only.
//!
//! A mark is a sign of a queue: it ends startup and each search. While marks come, pacing is lower
//! by half of the share of datagrams that bear one. Where no queue explains them C is too large: it
//! falls with each round trip that has some, by half of their share over the last rounds (DCTCP,
//! RFC 8257 §3.3). Where a queue stands what is delivered is C, as without marks. A link with a
//! competitor takes a mark for a loss (RFC 3168 §5).
//!
//! Some routers mark everything. Where most is marked and sending half does not help, marks are
//! meaningless, and C is what it was.

use std::time::Duration;

use crate::link::congestion::params::{CONTROL_S, MARK_ROUND_GAIN, MARKED_LOWERED, MARKED_MOST};
use crate::link::path::ecn::Marked;
use crate::time::Instant;

/// The marks that were told lately.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    /// Of the newest observation.
    newest: Marked,
    /// Since the last round ended, and when that was.
    since: Marked,
    answered_at: Instant,
    /// Share of datagrams that are marked, over some rounds.
    usual: f64,
    /// C, and the share, when most began to be marked.
    series: Option<(f64, f64)>,
    is_meaningless: bool,
}

impl Marks {
    fn note(&mut self, told: Marked) {
        self.newest = told;
        self.since.received = self.since.received.saturating_add(told.received);
        self.since.marked = self.since.marked.saturating_add(told.marked);
    }

    /// A round trip is over: the share that `rate_bps` is to answer to, 0 where nothing was marked.
    fn on_round(&mut self, rate_bps: f64, now: Instant) -> f64 {
        let seen = share(self.since);
        match self.series {
            None if seen >= MARKED_MOST => self.series = Some((rate_bps, seen)),
            Some((_, first)) if seen < first * MARKED_LOWERED => self.series = None,
            Some((before_bps, _)) => self.is_meaningless = rate_bps < before_bps / 2.0,
            None => {}
        }
        self.usual += (seen - self.usual) * MARK_ROUND_GAIN;
        (self.since, self.answered_at) = (Marked::default(), now);
        if seen > 0.0 { self.usual } else { 0.0 }
    }
}

fn share(marked: Marked) -> f64 {
    f64::from(marked.marked) / f64::from(marked.received.max(1))
}

/// What marks say of a link without a queue that can be told from noise.
#[derive(Debug, Clone, Copy)]
pub(in crate::link::congestion) struct Finding {
    /// The newest datagrams say that there is a queue.
    pub(in crate::link::congestion) is_marked: bool,
    /// Share of C by which it is too large; 0: it is not, or the round is not over.
    pub(in crate::link::congestion) excess: f64,
}

/// The detector. Most links never have a mark, and keep nothing.
#[derive(Debug, Clone, Default)]
pub(in crate::link::congestion) struct MarkDetector(Option<Box<Marks>>);

impl MarkDetector {
    /// Void: another path may mark otherwise.
    pub(in crate::link::congestion) fn on_restart(&mut self) {
        self.0 = None;
    }

    /// So many datagrams came, and so many of them marked.
    pub(in crate::link::congestion) fn on_observation(&mut self, told: Marked) {
        if told.marked > 0 || self.0.is_some() {
            self.0.get_or_insert_default().note(told);
        }
    }

    /// The newest datagrams say that there is a queue.
    pub(in crate::link::congestion) fn is_marked(&self) -> bool {
        self.0.as_ref().is_some_and(|marks| marks.newest.marked > 0)
    }

    /// The queue that marks count for, seconds.
    pub(in crate::link::congestion) fn queue_s(&self) -> f64 {
        let Some(marks) = &self.0 else { return 0.0 };
        let newest = share(marks.newest);
        newest.min(marks.usual.max(newest * MARK_ROUND_GAIN)) / 2.0 * CONTROL_S
    }

    /// What marks say of a link that carries `rate_bps` without a queue, asked once each `round`.
    pub(in crate::link::congestion) fn check(
        &mut self,
        rate_bps: f64,
        round: Duration,
        now: Instant,
    ) -> Option<Finding> {
        let marks = self.0.as_mut()?;
        let is_marked = marks.newest.marked > 0;
        let is_over = now.saturating_since(marks.answered_at) >= round;
        let share = if is_over { marks.on_round(rate_bps, now) } else { 0.0 };
        Some(Finding { is_marked, excess: share / 2.0 })
    }

    /// Marks turned out to mean nothing: C before they began, 0 if not known. Once only.
    pub(in crate::link::congestion) fn take_meaningless(&mut self) -> Option<f64> {
        let marks = self.0.take_if(|marks| marks.is_meaningless)?;
        Some(marks.series.map_or(0.0, |(before_bps, _)| before_bps))
    }
}
