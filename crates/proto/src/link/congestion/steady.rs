//! Steady: pace at C × (1 + (q* − q) / T + a), and follow C.
//!
//! - q is the queue *now*: what the newest observation met, plus what was sent since, less what C
//!   took since (a Smith predictor).
//! - q* is the queue to keep: a little less than none on a steady link, and up to 12 ms on one
//!   whose C varies, since a queue that never runs dry tells C at every observation.
//! - a is the step of the search for more; T is 75 ms on a link without jitter.
//!
//! q is an average over several observations where the link jitters, and so are the moment and the
//! bytes that it belongs to: its lag is part of the dead time. T grows with the noise.
//!
//! Source: O. J. M. Smith, 1957 (control over a dead time).

use super::diagnosis::drain_test::Verdict;
use super::diagnosis::policer::Finding as LossFinding;
use super::diagnosis::{Cause, competitor, drain_test, own_queue};
use super::evidence::Evidence;
use super::history::Span;
use super::model::{Model, carried_bps};
use super::observation::Observation;
use super::params::{
    BUSY_WINDOW_MIN, CERTAIN_LIMITS, DRAIN_PATIENCE, DRAIN_PATIENCE_VOLATILE, GAIN_MAX, GAIN_MIN,
    OUTAGE_LOSS, RISE_GAIN, TARGET_MAX_S, TARGET_MIN_S, TARGET_STEADY_S, TARGET_VOLATILITY_S, VOLATILE,
};
use super::search::{self, Search};
use crate::time::Instant;

/// The state of the phase.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steady {
    /// Share of C to pace at.
    gain: f64,
    search: Search,
    /// What was delivered in the last window, bit/s; `None`: the link was not used to the full.
    delivered_bps: Option<f64>,
}

impl Steady {
    pub(super) const fn new() -> Self {
        Self { gain: 1.0, search: Search::new(), delivered_bps: None }
    }

    /// Void: the gain, and what the search found.
    pub(super) const fn on_restart(&mut self) {
        (self.gain, self.delivered_bps) = (1.0, None);
        self.search.on_restart();
    }

    /// Startup ended with loss.
    pub(super) fn on_start_cut(&mut self, now: Instant) {
        self.search.on_start_cut(now);
    }

    /// C is to be proven again.
    pub(super) const fn set_fresh(&mut self) {
        self.search.set_fresh();
    }

    /// More may be to be had, at once.
    pub(super) const fn search_again(&mut self, now: Instant) {
        self.search.set_fresh();
        self.search.resume(now);
    }

    /// What to pace at, bit/s.
    pub(super) fn paced_bps(&self, model: &Model, now: Instant) -> f64 {
        model.trusted(model.rate_bps() * self.gain, now)
    }

    /// What the last window tells of C.
    pub(super) fn on_span(&mut self, evidence: &mut Evidence, span: &Span, seen: &Observation, now: Instant) {
        let usual = evidence.loss.usual();
        let carried_bps = carried_bps(span.delivered_bps, span.loss, usual);
        self.delivered_bps = span.is_full.then_some(carried_bps);
        let (empty_s, window) = (evidence.model.empty_s(), evidence.model.window());
        let least = BUSY_WINDOW_MIN.max(evidence.model.noise_window() * 3 / 4);
        let busy = evidence.history.busy_span(empty_s, least, window);
        let stands = evidence.queue.queue_s() > limit_s(&evidence.model, now);
        let is_out = span.loss > OUTAGE_LOSS;
        if busy.is_none() && is_out {
            evidence.model.hold(Cause::Outage, now);
            return;
        }
        if !stands && !is_out && self.on_loss(evidence, span, now) {
            return;
        }
        if let Some(busy) = busy {
            let rate_bps = evidence.model.rate_bps();
            let is_certain = evidence.queue.queue_s() > limit_s(&evidence.model, now) * CERTAIN_LIMITS;
            if busy.grows() {
                evidence.drain.abandon();
            }
            if let Some((rate_bps, cause)) = own_queue::check(&busy, rate_bps, usual, is_certain) {
                evidence.model.adopt(rate_bps, cause, now);
            }
            self.search_more(evidence, span, seen, now);
            return;
        }
        if self.on_marks(evidence, now) {
            return;
        }
        let rate_bps = evidence.model.rate_bps();
        // No more than was sent: what waited in a stalled link, or in the peer's socket, comes at
        // once.
        let more_bps = carried_bps.min(span.sent_bps) * (1.0 - 2.0 * evidence.model.window_noise());
        if more_bps > rate_bps && evidence.loss.is_news(more_bps, &evidence.model, now) {
            let gain = if self.search.is_large() { 1.0 } else { RISE_GAIN };
            evidence.model.adopt(rate_bps + (more_bps - rate_bps) * gain, Cause::Search, now);
        }
        self.search_more(evidence, span, seen, now);
    }

    /// Loss that no queue explains. Whether it says all there is to say.
    fn on_loss(&mut self, evidence: &mut Evidence, span: &Span, now: Instant) -> bool {
        let model = &mut evidence.model;
        let before_bps = model.rate_bps();
        let Some(finding) = evidence.loss.check(span, model, before_bps, now) else { return false };
        let cause = finding.cause();
        match finding {
            LossFinding::RandomLoss { before_bps: first_bps } => {
                model.set(first_bps.max(before_bps), cause, now);
                self.search.on_cut_undone();
                false
            }
            LossFinding::Burst => {
                model.hold(cause, now);
                false
            }
            LossFinding::Confirmed { rate_bps } => {
                model.forget_best();
                model.adopt(rate_bps, cause, now);
                self.search.on_confirmed(now);
                true
            }
            LossFinding::Policed { rate_bps } => {
                model.adopt(rate_bps, cause, now);
                false
            }
            LossFinding::Policer { rate_bps, before_bps, is_first } => {
                if before_bps <= 0.0 {
                    model.forget_best();
                }
                model.adopt(rate_bps, cause, now);
                self.search.on_cut(before_bps, is_first, now);
                true
            }
            LossFinding::Again { rate_bps } => {
                model.adopt(rate_bps, cause, now);
                self.search.put_off(now);
                true
            }
        }
    }

    /// No queue stands that can be told from noise: what marks say of C. Whether they say that
    /// there is a queue.
    fn on_marks(&mut self, evidence: &mut Evidence, now: Instant) -> bool {
        let model = &mut evidence.model;
        let (round, rate_bps) = (model.rtt_min() + model.window(), model.rate_bps());
        let Some(finding) = evidence.marks.check(rate_bps, round, now) else { return false };
        if finding.is_marked {
            self.search.on_queue(model, now);
            self.search.set_proven(model, now);
        }
        if finding.excess > 0.0 {
            model.forget_best();
            model.adopt(rate_bps * (1.0 - finding.excess), Cause::EcnMark, now);
        }
        finding.is_marked
    }

    /// Searches for more where the link is used to the full.
    fn search_more(&mut self, evidence: &mut Evidence, span: &Span, seen: &Observation, now: Instant) {
        if !span.is_full {
            // A link that is not used to the full is empty now and then.
            self.search.stop();
            evidence.drain.on_empty(now);
            return;
        }
        let (model, usual) = (&mut evidence.model, evidence.loss.usual());
        let seen = search::Seen {
            sent_at: seen.sent_at,
            sent: seen.sent,
            queue_s: evidence.queue.queue_s(),
            mean_s: evidence.drain.mean_s(),
            limit_s: limit_s(model, now),
            arrived: (1.0 - span.loss) / (1.0 - span.loss.min(usual)),
        };
        if let Some(carried_bps) = self.search.on_full(&seen, model, now)
            && carried_bps > model.rate_bps()
        {
            model.adopt(carried_bps, Cause::Search, now);
        }
    }

    /// Sets the pace by the newest observation. The least delay before a competitor came, µs, where
    /// there is one.
    pub(super) fn control(
        &mut self,
        evidence: &mut Evidence,
        seen: &Observation,
        now: Instant,
    ) -> Option<i64> {
        if evidence.queue.queue_s() <= evidence.model.empty_s() {
            evidence.model.note_calm();
        }
        evidence.model.note_volatility(now);
        let contested = self.test_drain(evidence, seen, now);
        self.set_gain(evidence, seen, now);
        contested.or_else(|| self.check_competitor(evidence, seen, now))
    }

    /// Sees whether a queue drains that should. The least delay before a competitor came.
    fn test_drain(&mut self, evidence: &mut Evidence, seen: &Observation, now: Instant) -> Option<i64> {
        let model = &mut evidence.model;
        let is_volatile = model.volatility(now) >= VOLATILE;
        let met = drain_test::Seen {
            sent_at: seen.sent_at,
            queue_s: evidence.queue.queue_s(),
            limit_s: limit_s(model, now),
            deviation_s: evidence.queue.deviation_s(),
            delivered_bps: self.delivered_bps,
            rate_bps: model.rate_bps(),
            is_searching: self.search.step() > 0.0,
            patience: if is_volatile { DRAIN_PATIENCE_VOLATILE } else { DRAIN_PATIENCE },
        };
        match evidence.drain.on_observation(&met, now)? {
            Verdict::Ours { delivered_bps } => {
                if delivered_bps < model.rate_bps() {
                    model.adopt(delivered_bps, Cause::OwnQueue, now);
                }
                None
            }
            Verdict::NotOurs { from } => {
                self.search.resume(now);
                Self::on_not_ours(evidence, seen, (from, is_volatile), now)
            }
        }
    }

    /// A queue did not drain that should have since `from`. Once is no proof where C varies
    /// (`is_volatile`): the link may have become slower by as much as was held back.
    fn on_not_ours(
        evidence: &mut Evidence,
        seen: &Observation,
        (from, is_volatile): (Instant, bool),
        now: Instant,
    ) -> Option<i64> {
        let base_us = evidence.base_before(seen, from);
        let finding = evidence.drain.on_failure(from, base_us, now);
        if finding.cause == Cause::Competitor {
            return Some(base_us);
        }
        if finding.is_first && is_volatile {
            return None;
        }
        let model = &mut evidence.model;
        if finding.is_first {
            model.adopt(model.rate_bps().max(model.calm_bps()), finding.cause, now);
        } else {
            model.hold(finding.cause, now);
        }
        evidence.queue.rebase(seen, evidence.model.capacity_bps(), now);
        None
    }

    /// Sees whether a competitor fills the queue.
    fn check_competitor(&self, evidence: &mut Evidence, seen: &Observation, now: Instant) -> Option<i64> {
        let model = &evidence.model;
        let seen = competitor::Seen {
            delay_us: seen.delay_us,
            base_us: evidence.base_before(seen, now),
            queue_s: evidence.queue.queue_s(),
            noise_s: evidence.queue.noise_s(),
            empty_s: model.empty_s(),
            kept_s: self.kept_s(evidence, now).max(0.0),
            gain: self.gain,
            rate_bps: model.rate_bps(),
            is_steady: model.is_steady(now),
        };
        evidence.competitor.on_observation(&seen, model.rtt_min(), now)
    }

    fn set_gain(&mut self, evidence: &mut Evidence, seen: &Observation, now: Instant) {
        let (model, queue_s) = (&evidence.model, evidence.queue.queue_s());
        let age = now.saturating_since(seen.sent_at);
        let since_bytes = seen.total.saturating_sub(seen.sent);
        let since_s = since_bytes as f64 * 8.0 / model.rate_bps();
        let expected_s = (queue_s + since_s - age.as_secs_f64()).max(0.0);
        let expected_s = expected_s.max(evidence.marks.queue_s());
        let step = self.search.step();
        let gain = 1.0 + (self.kept_s(evidence, now) - expected_s) / model.control_s() + step;
        self.gain = gain.clamp(GAIN_MIN, GAIN_MAX.max(1.0 + step));
        if let Some(most_bps) = evidence.drain.most_bps() {
            self.gain = self.gain.min(most_bps / model.rate_bps());
        }
        let is_pushed = evidence.loss.is_overrun(self.search.step() > 0.0, &evidence.model, now);
        if self.search.is_large() || is_pushed {
            evidence.origin.on_push(now);
        }
    }

    /// The queue to keep, seconds. A policer has none.
    fn kept_s(&self, evidence: &Evidence, now: Instant) -> f64 {
        let model = &evidence.model;
        let is_policed = evidence.loss.is_policed(model.rate_bps(), now);
        if !is_policed && (self.search.step() > 0.0 || !model.is_steady(now)) {
            volatile_s(model, now).clamp(TARGET_MIN_S, TARGET_MAX_S)
        } else {
            TARGET_STEADY_S
        }
    }
}

/// The longest queue that is kept on purpose or explained by noise, seconds.
fn limit_s(model: &Model, now: Instant) -> f64 {
    volatile_s(model, now).clamp(0.0, TARGET_MAX_S) + model.empty_s()
}

/// The queue that a link is worth whose C varies so much, beyond what noise hides, seconds.
fn volatile_s(model: &Model, now: Instant) -> f64 {
    TARGET_VOLATILITY_S * model.volatility(now) - model.noise_s()
}
