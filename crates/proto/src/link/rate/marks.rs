//! Congestion marks: a queue management on the way says that its queue is too long, be it one that cannot be told from noise yet, or one that is counted only.
//!
//! A mark is a sign of a queue: it ends the start and each look for more. While marks come, what is paced at is less by half of the share of
//! datagrams that bear one. Where no queue explains them C is too large: it falls with each round trip that has some, by half of their share over the last
//! rounds (DCTCP, RFC 8257 §3.3). Where a queue stands what is delivered is C, as without marks. A link that is shared
//! takes a mark for a loss (RFC 3168 §5).
//!
//! There are routers that mark whatever comes. Where most is marked and it does not help to send half, marks mean nothing: C is what it was.

use super::{BEST_WINDOW, CONTROL_S, RateControl};
use crate::link::ecn::Marked;
use crate::link::window::MaxRate;
use crate::time::Instant;

/// Each round counts so much (RFC 8257's has a 16th, for round trips of a data centre).
const ROUND_GAIN: f64 = 0.125;

/// Where at least the first share is marked, and half as much is sent without lowering it to the second of itself, no queue of ours is what marks.
const MOST: f64 = 0.5;
const LOWERED: f64 = 0.7;

/// The marks that were told lately.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Congestion {
    /// Of the newest sample.
    newest: Marked,
    /// Since the last round ended, and when that was.
    since: Marked,
    answered_at: Instant,
    /// Share of datagrams that are marked, over some rounds.
    usual: f64,
    /// C, and the share, when most began to be marked.
    series: Option<(f64, f64)>,
    is_vain: bool,
}

impl Congestion {
    fn note(&mut self, told: Marked) {
        self.newest = told;
        self.since.received = self.since.received.saturating_add(told.received);
        self.since.marked = self.since.marked.saturating_add(told.marked);
    }

    /// A round trip is over: the share that `rate_bps` is to answer to, none where nothing was marked.
    fn on_round(&mut self, rate_bps: f64, now: Instant) -> f64 {
        let seen = share(self.since);
        match self.series {
            None if seen >= MOST => self.series = Some((rate_bps, seen)),
            Some((_, first)) if seen < first * LOWERED => self.series = None,
            Some((before_bps, _)) => self.is_vain = rate_bps < before_bps / 2.0,
            None => {}
        }
        self.usual += (seen - self.usual) * ROUND_GAIN;
        (self.since, self.answered_at) = (Marked::default(), now);
        if seen > 0.0 { self.usual } else { 0.0 }
    }

    /// The queue that it counts for.
    pub(super) fn queue_s(&self) -> f64 {
        let newest = share(self.newest);
        newest.min(self.usual.max(newest * ROUND_GAIN)) / 2.0 * CONTROL_S
    }
}

fn share(marked: Marked) -> f64 {
    f64::from(marked.marked) / f64::from(marked.received.max(1))
}

impl RateControl {
    /// So many came, and so many of them marked.
    pub(super) fn note_marked(&mut self, told: Marked) {
        if told.marked > 0 || self.congestion.is_some() {
            self.congestion.get_or_insert_default().note(told);
        }
    }

    /// The newest datagrams say that there is a queue.
    pub(super) fn is_marked(&self) -> bool {
        self.congestion.as_ref().is_some_and(|marks| marks.newest.marked > 0)
    }

    /// No queue stands that can be told from noise: what marks say of C. Whether they say that there is a queue.
    pub(super) fn on_marks(&mut self, now: Instant) -> bool {
        let (round, rate_bps) = (self.rtt_min + self.window(), self.rate_bps);
        let Some(marks) = &mut self.congestion else { return false };
        let is_told = marks.newest.marked > 0;
        let is_over = now.saturating_since(marks.answered_at) >= round;
        let share = if is_over { marks.on_round(rate_bps, now) } else { 0.0 };
        if is_told {
            self.end_probe(now);
            self.is_fresh = false;
        }
        if share > 0.0 {
            // What was carried before is not to be had again: somebody says so.
            self.best = MaxRate::new(BEST_WINDOW);
            self.adopt(rate_bps * (1.0 - share / 2.0), now);
        }
        is_told
    }

    /// Whether marks turned out to mean nothing, the first time that it is asked.
    pub(in crate::link) fn take_vain_marks(&mut self) -> bool {
        let Some(marks) = self.congestion.take_if(|marks| marks.is_vain) else { return false };
        self.rate_bps = marks.series.map_or(0.0, |(before_bps, _)| before_bps).max(self.rate_bps);
        self.is_fresh = true;
        true
    }
}
