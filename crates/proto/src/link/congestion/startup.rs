//! Startup: C is unknown. Pacing is 2.2 times what was delivered, at least 16 datagrams a round
//! trip (and at most 20 Mbit/s of that). It ends with a queue on a link that was used, or with a
//! policer's loss; then C is what is delivered. A link with a ceiling has no startup.
//! Measured: docs/decisions/0019-goodput-tells-a-policer.md (its addition).

use super::diagnosis::Cause;
use super::diagnosis::policer::Finding as LossFinding;
use super::evidence::Evidence;
use super::model::{Model, datagram_s, empty_s};
use super::params::{
    DATAGRAM_BYTES, DRAIN_DEVIATIONS, INITIAL_BPS_MAX, INITIAL_DATAGRAMS, INITIAL_ROUND_MAX_S, LIGHT_LOAD,
    RATE_MIN_BPS, START_BEYOND, START_GAIN, START_QUEUE_DATAGRAMS, START_QUEUE_ROUNDS, START_QUEUE_S,
    START_STANDING, START_WINDOW_MIN,
};
use super::steady::Steady;
use crate::time::Instant;

/// The state of the phase.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Startup {
    /// The most that was delivered, bit/s.
    most_bps: f64,
    /// Observations in a row with a queue that ends the phase.
    standing: u32,
}

impl Startup {
    /// Void: the queue. Survives: what was delivered.
    pub(super) const fn on_restart(&mut self) {
        self.standing = 0;
    }

    /// Takes the newest observation. The next phase, where this one is over.
    pub(super) fn on_observation(&mut self, evidence: &mut Evidence, now: Instant) -> Option<Steady> {
        let model = &evidence.model;
        let queue_s = evidence.queue.queue_s();
        let limit = START_QUEUE_S.max(model.rtt_min().as_secs_f64() / START_QUEUE_ROUNDS)
            + START_QUEUE_DATAGRAMS * datagram_s(self.most_bps)
            + DRAIN_DEVIATIONS * evidence.queue.deviation_s();
        let is_marked = evidence.marks.is_marked();
        self.standing = if queue_s > limit || is_marked { self.standing + 1 } else { 0 };
        let is_standing = self.standing >= START_STANDING;
        // A queue ends it at once, with what little is known of the rate.
        let round = model.round();
        let window = if is_standing { round.min(evidence.history.reach()) } else { round };
        let window = window.max(START_WINDOW_MIN);
        let span = evidence.history.span(window)?;
        let is_little = span.sent_bps < self.most_bps * LIGHT_LOAD;
        evidence.loss.set_light(is_little && queue_s <= empty_s(self.most_bps));
        if span.is_full || span.sent_bps > self.most_bps * START_BEYOND {
            evidence.origin.on_push(now);
        }
        self.most_bps = self.most_bps.max(span.delivered_bps);
        evidence.model.note_best(self.most_bps, now);
        // What a few datagrams between pauses meet is no queue of theirs, and no rate.
        let (cause, rate_bps, is_policed) = if is_standing && !is_little {
            let cause = if is_marked { Cause::EcnMark } else { Cause::OwnQueue };
            (cause, span.delivered_bps, false)
        } else {
            let finding = evidence.loss.check(&span, &evidence.model, span.sent_bps, now);
            let Some(LossFinding::Policer { rate_bps, .. }) = finding else { return None };
            (Cause::Policer, rate_bps, true)
        };
        evidence.model.set(rate_bps.max(RATE_MIN_BPS), cause, now);
        evidence.drain.on_empty(now);
        let mut steady = Steady::new();
        if is_policed {
            steady.on_start_cut(now);
        }
        Some(steady)
    }

    /// What to pace at, bit/s.
    pub(super) fn paced_bps(&self, model: &Model) -> f64 {
        let round = model.rtt_min().as_secs_f64().clamp(1e-3, INITIAL_ROUND_MAX_S);
        let initial = INITIAL_DATAGRAMS * DATAGRAM_BYTES * 8.0 / round;
        (self.most_bps * START_GAIN).max(initial.min(INITIAL_BPS_MAX))
    }
}
