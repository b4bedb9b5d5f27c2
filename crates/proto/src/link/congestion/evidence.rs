//! What all observations of a link told: the model of the link, the history of deliveries, and one
//! detector for each cause. The phases read it and act on it.

use super::diagnosis::competitor::CompetitorDetector;
use super::diagnosis::drain_test::DrainTest;
use super::diagnosis::ecn_mark::MarkDetector;
use super::diagnosis::policer::LossDetector;
use super::diagnosis::random_loss::LossOrigin;
use super::history::{DeliveryHistory, DeliveryPoint, Span};
use super::model::Model;
use super::observation::Observation;
use super::params::LIGHT_LOAD;
use super::queue_delay::QueueDelay;
use crate::time::Instant;
use crate::units::BitRate;

/// What observations told, whatever the phase.
#[derive(Debug, Clone)]
pub(super) struct Evidence {
    pub(super) model: Model,
    pub(super) history: DeliveryHistory,
    pub(super) queue: QueueDelay,
    pub(super) loss: LossDetector,
    pub(super) marks: MarkDetector,
    pub(super) drain: DrainTest,
    pub(super) competitor: CompetitorDetector,
    pub(super) origin: LossOrigin,
}

impl Evidence {
    pub(super) fn new(configured: Option<BitRate>) -> Self {
        Self {
            model: Model::new(configured),
            history: DeliveryHistory::default(),
            queue: QueueDelay::new(),
            loss: LossDetector::default(),
            marks: MarkDetector::default(),
            drain: DrainTest::default(),
            competitor: CompetitorDetector::new(),
            origin: LossOrigin::default(),
        }
    }

    /// Each part says what of it survives; the history, the drain test and the competitor do not,
    /// and the origin of losses does.
    pub(super) fn on_restart(&mut self, is_known: bool, now: Instant) {
        self.model.on_restart(is_known, now);
        self.history = DeliveryHistory::default();
        self.queue.on_restart();
        self.loss.on_restart();
        self.marks.on_restart();
        self.drain = DrainTest::default();
        self.competitor = CompetitorDetector::new();
    }

    /// Takes an observation of a link that carries `rate_bps` (0: not known). Returns it with
    /// averages in place of its delay and of what was sent.
    pub(super) fn on_observation(&mut self, seen: &Observation, rate_bps: f64, now: Instant) -> Observation {
        self.model.set_rtt_min(seen.rtt_min);
        self.measure_queue(seen, rate_bps, now);
        self.loss.on_observation(seen, rate_bps, now);
        self.marks.on_observation(seen.marked);
        let seen = self.queue.averaged(seen);
        self.history.push(DeliveryPoint::new(&seen, self.queue.queue_s()));
        seen
    }

    pub(super) fn measure_queue(&mut self, seen: &Observation, rate_bps: f64, now: Instant) {
        self.queue.on_observation(seen, rate_bps, now);
        self.model.set_deviation(self.queue.deviation_s());
        self.origin.on_queue(self.queue.queue_s());
    }

    /// What the last window tells, of a link whose C is known.
    pub(super) fn span(&mut self, now: Instant) -> Option<Span> {
        let span = self.history.span(self.model.window())?;
        self.model.note_delivered(span.delivered_bps, now);
        let is_little = span.sent_bps < self.model.rate_bps() * LIGHT_LOAD;
        self.loss.set_light(is_little && self.queue.queue_s() <= self.model.empty_s());
        Some(span)
    }

    /// The least delay before a competitor was suspected, µs: what was taken for a longer path
    /// since may be a queue.
    pub(super) fn base_before(&self, seen: &Observation, now: Instant) -> i64 {
        let recent = self.drain.base_us(now).or(self.competitor.base_us());
        recent.unwrap_or_else(|| self.queue.base_us(now).unwrap_or(seen.delay_us))
    }
}
