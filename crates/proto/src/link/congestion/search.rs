//! The search for more than C, on a link that is used to the full.
//!
//! A search is a row of *trials*. In each, C and a *step* are sent: 2 %, or what shows beyond noise
//! within a quarter of a second; a quarter of C where the link is likely to carry more. A trial
//! ends when what was sent beyond C would be a queue that can be told from noise. Where half of it
//! stands, C is *proven* and the search ends; on a steady link a second passes until the next.
//! Where it does not, the link carries what was sent: that is C now, and the step doubles. There is
//! no rate that this does not leave: after some trials each doubles C.
//!
//! A search does not begin while a queue stands that is longer than what noise explains: that is
//! the drain test's. Links search each for itself.

use std::time::Duration;

use super::model::{Model, empty_s};
use super::params::{
    CHANGE, CUT_PAUSE_MAX_S, CUT_PAUSE_MIN_S, DRAIN_DEVIATIONS, EMPTY_S, PROBE_MAX, PROBE_MIN, PROBE_PAUSE,
    REGROW_MIN, WINDOW_MAX_S,
};
use crate::time::Instant;

/// A trial that showed nothing for so long is over, seconds.
const GIVEN_UP_S: f64 = 2.0 * WINDOW_MAX_S;

/// What an observation says of a link that is used to the full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// When what it tells of was sent, and the bytes up to then.
    pub(super) sent_at: Instant,
    pub(super) sent: u64,
    /// The queue then, its mean, and the longest that is kept on purpose or explained by noise,
    /// seconds.
    pub(super) queue_s: f64,
    pub(super) mean_s: f64,
    pub(super) limit_s: f64,
    /// What arrived takes so much of what was sent, share: loss beyond the usual does not.
    pub(super) arrived: f64,
}

/// A trial under way.
#[derive(Debug, Clone, Copy)]
struct Trial {
    /// What is sent from here on is more than C.
    from: Instant,
    /// The newest moment of sending before that with its bytes, and the queue then.
    before: Option<(Instant, u64)>,
    queue_s: f64,
    /// C when it began, bit/s.
    rate_bps: f64,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    /// Share of C that is paced at besides.
    step: f64,
    trial: Option<Trial>,
    /// C was never proven by a queue during a search.
    is_fresh: bool,
    /// No search before this.
    resumes_at: Instant,
    /// Pause after the next cut, seconds.
    cut_pause_s: u8,
    /// C before the cuts that nothing confirmed, if it was not found again; else 0.
    before_cut_bps: f64,
}

impl Search {
    pub(super) const fn new() -> Self {
        Self {
            step: 0.0,
            trial: None,
            is_fresh: true,
            resumes_at: Instant::ZERO,
            cut_pause_s: CUT_PAUSE_MIN_S,
            before_cut_bps: 0.0,
        }
    }

    /// Void: the step, and that C was proven. Survive: the pauses after cuts, and C before them.
    pub(super) const fn on_restart(&mut self) {
        self.stop();
        self.is_fresh = true;
    }

    pub(super) const fn step(&self) -> f64 {
        self.step
    }

    /// What is sent may be much more than the link carries.
    pub(super) fn is_large(&self) -> bool {
        self.step >= REGROW_MIN
    }

    /// C is to be proven again.
    pub(super) const fn set_fresh(&mut self) {
        self.is_fresh = true;
    }

    /// What was found out is void: the search may go on at once.
    pub(super) const fn resume(&mut self, now: Instant) {
        self.resumes_at = now;
    }

    /// C was proven.
    pub(super) fn set_proven(&mut self, model: &Model, now: Instant) {
        (self.is_fresh, self.before_cut_bps) = (false, 0.0);
        if model.is_steady(now) {
            self.resumes_at = self.resumes_at.max(now + PROBE_PAUSE);
        }
    }

    /// The link is not used to the full.
    pub(super) const fn stop(&mut self) {
        (self.step, self.trial) = (0.0, None);
    }

    /// There is a queue: no more is to be had.
    pub(super) fn on_queue(&mut self, model: &Model, now: Instant) {
        if self.step > 0.0 {
            self.set_proven(model, now);
        }
        self.stop();
    }

    /// The link is used to the full. What it carries, bit/s, where a trial shows that it is more
    /// than C.
    pub(super) fn on_full(&mut self, seen: &Seen, model: &Model, now: Instant) -> Option<f64> {
        let Some(trial) = &mut self.trial else {
            // A queue that was there before does not matter where more is likely and none is left.
            let is_gone = self.is_likely(model, now) && seen.queue_s <= model.empty_s();
            let queue_s = if self.is_fresh { seen.queue_s } else { seen.mean_s };
            if now >= self.resumes_at && (is_gone || queue_s <= seen.limit_s) {
                self.begin(model, now);
            }
            return None;
        };
        let (sent_at, sent) = match trial.before {
            Some(before) if seen.sent_at >= trial.from => before,
            Some(_) | None => {
                (trial.before, trial.queue_s) = (Some((seen.sent_at, seen.sent)), seen.queue_s);
                return None;
            }
        };
        let span_s = seen.sent_at.saturating_since(sent_at).as_secs_f64();
        let bits = seen.sent.saturating_sub(sent) as f64 * 8.0 * seen.arrived;
        let expected_s = bits / trial.rate_bps - span_s;
        let grown_s = seen.queue_s - trial.queue_s;
        let (is_late, told_s) = (grown_s > expected_s / 2.0, told_s(model));
        let is_over = span_s >= model.window().as_secs_f64() / 2.0 && expected_s >= told_s;
        if is_late && (is_over || grown_s >= told_s || span_s > GIVEN_UP_S) {
            self.on_queue(model, now);
            return None;
        }
        if !is_over {
            // The pace yields to noise more than the step asks for.
            if span_s > GIVEN_UP_S {
                self.grow(model.rate_bps(), now);
            }
            return None;
        }
        let carried_bps = bits / (span_s + grown_s.max(0.0));
        self.grow(carried_bps.max(model.rate_bps()), now);
        Some(carried_bps)
    }

    /// The next trial, of a link that carries `rate_bps`.
    const fn grow(&mut self, rate_bps: f64, now: Instant) {
        self.step = (self.step * 2.0).min(PROBE_MAX);
        self.trial = Some(Trial::new(rate_bps, now));
    }

    /// Whether the link is likely to carry more than C.
    fn is_likely(&self, model: &Model, now: Instant) -> bool {
        self.is_fresh || model.is_low(now) || model.rate_bps() < self.before_cut_bps * (1.0 - CHANGE)
    }

    fn begin(&mut self, model: &Model, now: Instant) {
        let least = if self.is_likely(model, now) { REGROW_MIN } else { PROBE_MIN };
        self.step = least.max(told_s(model) / WINDOW_MAX_S).min(PROBE_MAX);
        self.trial = Some(Trial::new(model.rate_bps(), now));
    }

    /// Startup ended with loss.
    pub(super) fn on_start_cut(&mut self, now: Instant) {
        self.is_fresh = false;
        self.resumes_at = now + self.cut_pause();
    }

    /// C is cut because of loss. It was `before_bps` before the series (0: that is not to be had).
    pub(super) fn on_cut(&mut self, before_bps: f64, is_first: bool, now: Instant) {
        self.before_cut_bps = before_bps;
        if is_first {
            self.cut_pause_s = CUT_PAUSE_MIN_S;
        }
        self.stop();
        self.is_fresh = false;
        self.resumes_at = now + self.cut_pause();
        self.cut_pause_s = (self.cut_pause_s * 2).min(CUT_PAUSE_MAX_S);
    }

    /// C is cut once more, by the same finding.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.stop();
        self.resumes_at = self.resumes_at.max(now + Duration::from_secs(u64::from(CUT_PAUSE_MIN_S)));
    }

    /// The search met the policer that is known.
    pub(super) fn on_confirmed(&mut self, now: Instant) {
        self.cut_pause_s = CUT_PAUSE_MAX_S;
        self.on_cut(0.0, false, now);
    }

    /// The cut was none of a policer's.
    pub(super) const fn on_cut_undone(&mut self) {
        self.cut_pause_s = CUT_PAUSE_MIN_S;
    }

    fn cut_pause(&self) -> Duration {
        Duration::from_secs(u64::from(self.cut_pause_s))
    }
}

impl Trial {
    const fn new(rate_bps: f64, from: Instant) -> Self {
        Self { from, before: None, queue_s: 0.0, rate_bps }
    }
}

/// The shortest queue whose growth is told from noise, seconds.
fn told_s(model: &Model) -> f64 {
    empty_s(model.rate_bps()).max(2.0 * EMPTY_S).max(model.deviation_s() * DRAIN_DEVIATIONS)
}
