//! The search for more than C, on a link that is used to the full.
//!
//! A step is a share of C that is paced at besides. It starts with 2 %, or with what can be told
//! from noise, and doubles with each round in which what was sent arrived and no queue grew; where
//! the link is likely to carry more it starts with a quarter. There is no rate that it does not
//! leave: after some rounds it doubles C with each. A search ends
//! - with a queue longer than the usual one by more than noise explains; on a steady link a second
//!   passes until the next;
//! - where less arrives than half of the step would bring.
//!
//! It does not begin while a queue stands that is longer than what noise explains: that is the
//! drain test's. Links search each for itself.

use std::time::Duration;

use super::model::Model;
use super::params::{
    CHANGE, CUT_PAUSE_MAX_S, CUT_PAUSE_MIN_S, EMPTY_DEVIATIONS, PROBE_MAX, PROBE_MIN, PROBE_PAUSE, REGROW_MIN,
};
use crate::time::Instant;

/// What the last window says of a link that is used to the full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The queue now, its mean, and the longest that is kept on purpose or explained by noise,
    /// seconds.
    pub(super) queue_s: f64,
    pub(super) mean_s: f64,
    pub(super) limit_s: f64,
    /// By how much longer it took to arrive than to be sent, share.
    pub(super) stretch: f64,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    /// Share of C that is paced at besides.
    step: f64,
    /// The mean queue when the search began; without a search, now; seconds.
    usual_s: f64,
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
            usual_s: 0.0,
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
        (self.step, self.quiet_since) = (0.0, None);
    }

    /// There is a queue: no more is to be had.
    pub(super) fn on_queue(&mut self, model: &Model, now: Instant) {
        if self.step > 0.0 {
            self.set_proven(model, now);
        }
        self.stop();
    }

    /// The link is used to the full.
    pub(super) fn on_full(&mut self, seen: &Seen, model: &Model, now: Instant) {
        if self.step == 0.0 {
            self.usual_s = seen.mean_s;
            if seen.mean_s > seen.limit_s {
                self.stop();
                return;
            }
        }
        let above_s = seen.queue_s - self.usual_s;
        let noise = model.window_noise();
        let arrives_late = self.step > 0.0 && seen.stretch > self.step / 2.0;
        let is_long = above_s > model.empty_s().max(model.deviation_s() * 2.0 * EMPTY_DEVIATIONS);
        if is_long || (arrives_late && noise * 4.0 <= self.step) {
            self.on_queue(model, now);
        } else if arrives_late && noise <= self.step {
            // It may be chance.
            self.stop();
        } else if above_s <= model.empty_s() {
            self.on_quiet(model, now);
        }
    }

    /// No queue grows.
    fn on_quiet(&mut self, model: &Model, now: Instant) {
        let since = *self.quiet_since.get_or_insert(now);
        if now.saturating_since(since) >= model.search_round() && now >= self.resumes_at {
            let is_likely =
                self.is_fresh || model.is_low(now) || model.rate_bps() < self.before_cut_bps * (1.0 - CHANGE);
            let least = if is_likely { REGROW_MIN } else { PROBE_MIN.max(model.window_noise()) };
            self.step = (self.step * 2.0).max(least).min(PROBE_MAX);
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
