//! Steady: pace at C × (1 + (q* − q) / T + a), and follow C.
//!
//! - q is the queue *now*: what the newest observation met, plus what was sent since, less what C
//!   took since (a Smith predictor).
//! - q* is the queue to keep: a little less than none on a steady link, and up to 12 ms on one
//!   whose C varies, since a queue that never runs dry tells C at every observation.
//! - a is the step of the search for more; T is 75 ms.
//!
//! A link that was used to the full for 5 s is emptied until the delay falls no more: else a queue
//! too short to be told from noise would become the base.
//!
//! Source: O. J. M. Smith, 1957 (control over a dead time).

use std::time::Duration;

use super::diagnosis::policer::Finding as LossFinding;
use super::diagnosis::{Cause, competitor, drain_test, own_queue};
use super::evidence::Evidence;
use super::history::Span;
use super::model::{Model, carried_bps};
use super::observation::Observation;
use super::params::{
    BUSY_WINDOW_MIN, CONTROL_S, EMPTY_EVERY, EMPTY_S, EMPTY_TARGET_S, GAIN_MAX, GAIN_MIN, RISE_GAIN,
    TARGET_MAX_S, TARGET_MIN_S, TARGET_STEADY_S, TARGET_VOLATILITY_S, VOLATILE,
};
use super::search::Search;
use crate::time::Instant;

/// When the link was empty last, and the emptying under way.
#[derive(Debug, Clone, Copy)]
struct Emptying {
    /// When the queue was last empty for certain.
    empty_at: Instant,
    /// Until when it is being emptied, with the least queue seen meanwhile, seconds.
    until: Option<(Instant, f64)>,
}

impl Emptying {
    /// Whether less than no queue is the target now, where the newest observation met `queue_s`.
    fn is_due(&mut self, queue_s: f64, age: Duration, now: Instant) -> bool {
        if now.saturating_since(self.empty_at) < EMPTY_EVERY {
            self.until = None;
            return false;
        }
        let span = Duration::from_secs_f64(CONTROL_S);
        let (until, least) = self.until.get_or_insert((now + age + span, queue_s));
        if queue_s < *least - EMPTY_S {
            (*until, *least) = ((*until).max(now + span), queue_s);
        }
        if now < *until {
            return true;
        }
        self.until = None;
        self.empty_at = now;
        false
    }
}

/// The state of the phase.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steady {
    /// Share of C to pace at.
    gain: f64,
    search: Search,
    emptying: Emptying,
}

impl Steady {
    /// A link that was empty at `empty_at`.
    pub(super) const fn new(empty_at: Instant) -> Self {
        Self { gain: 1.0, search: Search::new(), emptying: Emptying { empty_at, until: None } }
    }

    /// Void: the gain, and what the search found. Survives: when the link was empty.
    pub(super) const fn on_restart(&mut self) {
        self.gain = 1.0;
        self.search.on_restart();
    }

    /// Startup ended with loss.
    pub(super) fn on_start_cut(&mut self, now: Instant) {
        self.search.on_start_cut(now);
    }

    /// The competitor is gone.
    pub(super) const fn on_resume(&mut self, now: Instant) {
        self.search.set_fresh();
        self.emptying.empty_at = now;
    }

    /// C is to be proven again.
    pub(super) const fn set_fresh(&mut self) {
        self.search.set_fresh();
    }

    /// What to pace at, bit/s.
    pub(super) fn paced_bps(&self, model: &Model, now: Instant) -> f64 {
        model.trusted(model.rate_bps() * self.gain, now)
    }

    /// What the last window tells of C.
    pub(super) fn on_span(&mut self, evidence: &mut Evidence, span: &Span, seen: &Observation, now: Instant) {
        let (rate_bps, usual) = (evidence.model.rate_bps(), evidence.loss.usual());
        let (empty_s, window) = (evidence.model.empty_s(), evidence.model.window());
        if let Some(busy) = evidence.history.busy_span(empty_s, BUSY_WINDOW_MIN, window) {
            self.search.on_queue(&evidence.model, now);
            let finding = own_queue::check(&busy, rate_bps, usual);
            if !finding.is_flat {
                evidence.drain.abandon();
            }
            if let Some((rate_bps, cause)) = finding.rate {
                evidence.model.adopt(rate_bps, cause, now);
            }
            return;
        }
        if self.on_loss(evidence, span, seen, now) || self.on_marks(evidence, now) {
            return;
        }
        let rate_bps = evidence.model.rate_bps();
        let carried_bps = carried_bps(span.delivered_bps, span.loss, evidence.loss.usual());
        // No more than was sent: what waited in a stalled link, or in the peer's socket, comes at
        // once.
        let more_bps = carried_bps.min(span.sent_bps);
        if carried_bps > rate_bps && more_bps > rate_bps {
            let gain = if self.search.is_large() { 1.0 } else { RISE_GAIN };
            evidence.model.adopt(rate_bps + (more_bps - rate_bps) * gain, Cause::Search, now);
        }
        self.search_more(evidence, span, now);
    }

    /// Loss that no queue explains. Whether it says all there is to say.
    fn on_loss(&mut self, evidence: &mut Evidence, span: &Span, seen: &Observation, now: Instant) -> bool {
        let model = &mut evidence.model;
        let Some(finding) = evidence.loss.check(span, seen, model.rtt_min(), now) else { return false };
        let (cause, rate_bps) = (finding.cause(), model.rate_bps());
        match finding {
            LossFinding::RandomLoss { before_bps } => {
                model.set(rate_bps.max(before_bps), cause, now);
                self.search.on_cut_undone();
                false
            }
            LossFinding::Burst => {
                model.hold(cause, now);
                false
            }
            LossFinding::Outage => {
                model.hold(cause, now);
                true
            }
            LossFinding::Policer { is_first } => {
                evidence.loss.begin_cut(rate_bps, now);
                model.adopt(span.delivered_bps, cause, now);
                self.search.on_cut(rate_bps, is_first, now);
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
            self.search.set_proven();
        }
        if finding.excess > 0.0 {
            model.forget_best();
            model.adopt(rate_bps * (1.0 - finding.excess), Cause::EcnMark, now);
        }
        finding.is_marked
    }

    fn search_more(&mut self, evidence: &Evidence, span: &Span, now: Instant) {
        let model = &evidence.model;
        if evidence.queue.queue_s() > model.empty_s() {
            self.search.on_queue(model, now);
        } else if span.is_full {
            self.search.on_quiet(model, model.rtt_min() + model.window() / 2, now);
        } else {
            // A link that is not used to the full is empty now and then.
            self.search.stop();
            self.emptying.empty_at = now;
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

    /// Sees whether a queue drains that should.
    fn test_drain(&self, evidence: &mut Evidence, seen: &Observation, now: Instant) -> Option<i64> {
        let state = drain_test::Seen {
            queue_s: evidence.queue.queue_s(),
            empty_s: evidence.model.empty_s(),
            gain: self.gain,
            rate_bps: evidence.model.rate_bps(),
        };
        let from = evidence.drain.on_observation(seen, &state, now)?;
        let base_us = evidence.base_before(seen, from);
        let finding = evidence.drain.on_failure(from, base_us, now);
        if finding.cause == Cause::Competitor {
            return Some(base_us);
        }
        let model = &mut evidence.model;
        if finding.is_first {
            model.adopt(model.rate_bps().max(model.calm_bps()), finding.cause, now);
        } else {
            model.hold(finding.cause, now);
        }
        evidence.queue.forget_base();
        evidence.measure_queue(seen, evidence.model.capacity_bps(), now);
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
            kept_s: self.kept_s(model, now).max(0.0),
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
        let is_emptying = self.emptying.is_due(queue_s, age, now);
        let target_s = if is_emptying { EMPTY_TARGET_S } else { self.kept_s(model, now) };
        let gain = 1.0 + (target_s - expected_s) / CONTROL_S + self.search.step();
        self.gain = gain.clamp(GAIN_MIN, GAIN_MAX.max(1.0 + self.search.step()));
        if self.search.is_large() {
            evidence.origin.on_push(now);
        }
    }

    /// The queue to keep, seconds.
    fn kept_s(&self, model: &Model, now: Instant) -> f64 {
        let volatility = model.volatility(now);
        if self.search.step() > 0.0 || volatility >= VOLATILE / 2.0 {
            (TARGET_VOLATILITY_S * volatility).clamp(TARGET_MIN_S, TARGET_MAX_S)
        } else {
            TARGET_STEADY_S
        }
    }
}
