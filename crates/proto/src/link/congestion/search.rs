//! The search for more than C, on a link that is used to the full and has no queue.
//!
//! A step is a share of C that is paced at besides. It starts with 2 % and doubles with each round
//! trip and half a window without a queue, up to a quarter; where the link is likely to carry more
//! it starts with a quarter and goes up to all of C. The first sign of a queue ends the search, and
//! on a steady link a second passes until the next. Links search each for itself.

use std::time::Duration;

use super::model::Model;
use super::params::{
    CHANGE, CUT_PAUSE_MAX_S, CUT_PAUSE_MIN_S, PROBE_MAX, PROBE_MIN, PROBE_PAUSE, REGROW_MAX, REGROW_MIN,
};
use crate::time::Instant;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    /// Share of C that is paced at besides.
    step: f64,
    /// C was never proven by a queue during a search.
    is_fresh: bool,
    /// Since when no queue was seen and the pacer was used to the full.
    quiet_since: Option<Instant>,
    /// No search before this.
    resumes_at: Instant,
    /// Pause after the next cut, seconds.
    cut_pause_s: u8,
    /// C before the last cut, if that was the first of its series and C was not found again; else
    /// 0.
    before_cut_bps: f64,
}

impl Search {
    pub(super) const fn new() -> Self {
        Self {
            step: 0.0,
            is_fresh: true,
            quiet_since: None,
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

    /// C was proven.
    pub(super) const fn set_proven(&mut self) {
        self.is_fresh = false;
    }

    /// The link is not used to the full.
    pub(super) const fn stop(&mut self) {
        (self.step, self.quiet_since) = (0.0, None);
    }

    /// There is a queue: no more is to be had.
    pub(super) fn on_queue(&mut self, model: &Model, now: Instant) {
        if self.step > 0.0 {
            (self.is_fresh, self.before_cut_bps) = (false, 0.0);
            if model.is_steady(now) {
                self.resumes_at = self.resumes_at.max(now + PROBE_PAUSE);
            }
        }
        self.stop();
    }

    /// The link is used to the full and has no queue.
    pub(super) fn on_quiet(&mut self, model: &Model, round: Duration, now: Instant) {
        let since = *self.quiet_since.get_or_insert(now);
        if now.saturating_since(since) >= round && now >= self.resumes_at {
            let is_likely =
                self.is_fresh || model.is_low(now) || model.rate_bps() < self.before_cut_bps * (1.0 - CHANGE);
            let (least, most) = if is_likely { (REGROW_MIN, REGROW_MAX) } else { (PROBE_MIN, PROBE_MAX) };
            self.step = (self.step * 2.0).clamp(least, most);
            self.quiet_since = Some(now);
        }
    }

    /// Startup ended with loss.
    pub(super) fn on_start_cut(&mut self, now: Instant) {
        self.is_fresh = false;
        self.resumes_at = now + self.cut_pause();
    }

    /// C, which was `before_bps`, is cut because of loss.
    pub(super) fn on_cut(&mut self, before_bps: f64, is_first: bool, now: Instant) {
        self.before_cut_bps = if is_first { before_bps } else { 0.0 };
        if is_first {
            self.cut_pause_s = CUT_PAUSE_MIN_S;
        }
        (self.step, self.is_fresh) = (0.0, false);
        self.resumes_at = now + self.cut_pause();
        self.cut_pause_s = (self.cut_pause_s * 2).min(CUT_PAUSE_MAX_S);
    }

    /// The cut was none of a policer's.
    pub(super) const fn on_cut_undone(&mut self) {
        self.cut_pause_s = CUT_PAUSE_MIN_S;
    }

    fn cut_pause(&self) -> Duration {
        Duration::from_secs(u64::from(self.cut_pause_s))
    }
}
