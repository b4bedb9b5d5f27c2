//! Congestion control of one link, in the direction of sending: what the link carries, and how fast
//! to send on it, with a queue that is all but empty. Nothing is configured; a configured rate is a
//! ceiling and a first guess.
//!
//! **Contract.** An [`Observation`] goes in for each answer of the peer. A [`RateEstimate`], the
//! rate to pace at and the reasons ([`ControlStats`], [`ControlChange`]) come out of
//! [`CongestionControl`]. Nothing else of this module is seen outside, so another law can take its
//! place. It knows no packets, no other links and no clock.
//!
//! **Model.** A link is a queue that is served at a rate C, and a delay that varies by chance. The
//! *queue* is the average delay above the usual one without a queue ([`queue_delay`]); chance is
//! measured ([`smoothing`]), and all windows and thresholds follow it ([`model`]). A link whose
//! queue was never empty between two observations delivered C ([`diagnosis::own_queue`]); one
//! without a queue delivered what was sent, so C is no less. C falls where at least C was sent, or
//! the queue grew; a queue that does not drain when less is sent is not ours
//! ([`diagnosis::drain_test`]). C is written in one place, with its cause. What this guarantees,
//! and why: docs/congestion.md.
//!
//! ```text
//!          a queue stands, or loss            the queue does not drain
//! Startup ─────────────────────────► Steady ───────────────────────────► Competing
//!                                       ▲         the competitor is gone     │
//!                                       └────────────────────────────────────┘
//! ```
//! A link that carries little keeps its C. A link whose C varied lately is trusted, after a pause,
//! with a quarter of it, and then with twice what it delivers.
//!
//! **Sources.** draft-cheng-iccrg-delivery-rate-estimation and draft-ietf-ccwg-bbr (delivery rates,
//! application-limited samples); Copa (NSDI 2018: a competitor by a queue that does not drain);
//! RACK, RFC 8985 (overdue answers); RFC 9438 (CUBIC); RFC 8257 (marks); srtla_send (loss that cuts
//! do not lower). Tried and removed: docs/decisions/0010-a-queue-that-is-all-but-empty.md.

mod competing;
mod diagnosis;
mod evidence;
mod history;
mod model;
mod observation;
mod params;
mod queue_delay;
mod search;
mod smoothing;
mod startup;
mod steady;

use std::time::Duration;

pub use crate::stats::{Cause, PhaseKind};

use self::competing::Competing;
use self::evidence::Evidence;
use self::model::{Model, bps, rate};
pub(super) use self::observation::Observation;
use self::params::{CONTROL_S, GAIN_MIN, PACING_PERMILLE, RATE_MIN_BPS};
use self::startup::Startup;
use self::steady::Steady;
use crate::stats::ControlStats;
use crate::time::Instant;
use crate::units::BitRate;

/// A capacity that differs by more than this share from the one that was told is told.
/// Chosen: an eighth is more than a steady link's estimate varies by.
const TOLD_CHANGE: f64 = 0.125;

/// What the link is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateEstimate {
    /// What the link carries, IP headers included; `None` when unknown.
    pub(super) capacity: Option<BitRate>,
    /// Another flow fills the link's queue.
    pub(super) is_competing: bool,
    /// The capacity is what the configuration allows.
    pub(super) is_at_ceiling: bool,
}

/// A change of phase, or of what a link is taken to carry by more than an eighth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlChange {
    /// The phase that was told before.
    pub from: PhaseKind,
    /// The phase now.
    pub to: PhaseKind,
    /// Why C was changed or kept last.
    pub cause: Option<Cause>,
    /// The capacity that was told before; `None`: it was not known.
    pub before: Option<BitRate>,
    /// The capacity now; `None`: it is not known.
    pub now: Option<BitRate>,
}

/// The state of the phase that the control is in.
#[derive(Debug, Clone)]
enum Phase {
    Startup(Startup),
    Steady(Steady),
    Competing(Box<Competing>),
}

impl Phase {
    const fn kind(&self) -> PhaseKind {
        match self {
            Self::Startup(_) => PhaseKind::Startup,
            Self::Steady(_) => PhaseKind::Steady,
            Self::Competing(_) => PhaseKind::Competing,
        }
    }
}

/// What was told of the control last.
#[derive(Debug, Clone, Copy)]
struct Told {
    rate_bps: f64,
    phase: PhaseKind,
}

/// The control of one link and direction.
#[derive(Debug, Clone)]
pub(super) struct CongestionControl {
    phase: Phase,
    evidence: Evidence,
    told: Told,
}

impl CongestionControl {
    /// With the ceiling from our own configuration.
    pub(super) fn new(configured: Option<BitRate>) -> Self {
        let mut control = Self {
            phase: Phase::Startup(Startup::default()),
            evidence: Evidence::new(configured),
            told: Told { rate_bps: 0.0, phase: PhaseKind::Startup },
        };
        control.take_hint(Instant::ZERO);
        control
    }

    /// The peer told what it wants to be sent at most.
    pub(super) fn on_peer_ceiling(&mut self, ceiling: Option<BitRate>, now: Instant) {
        self.change_ceiling(|model| model.set_peer_ceiling(ceiling), now);
    }

    /// This side's configuration allows another rate from now on.
    pub(super) fn set_ceiling(&mut self, ceiling: Option<BitRate>, now: Instant) {
        self.change_ceiling(|model| model.set_own_ceiling(ceiling), now);
    }

    /// A link that the ceiling held back may carry more under a higher one: that is searched at
    /// once.
    fn change_ceiling(&mut self, change: impl FnOnce(&mut Model), now: Instant) {
        let was_held = self.estimate().is_at_ceiling;
        let before = self.evidence.model.ceiling();
        change(&mut self.evidence.model);
        let after = self.evidence.model.ceiling();
        let is_higher = after.is_none_or(|after| before.is_some_and(|before| after > before));
        if was_held && is_higher {
            self.search_again(now);
        }
        self.take_hint(now);
    }

    /// A ceiling is the first guess.
    fn take_hint(&mut self, now: Instant) {
        if let (Phase::Startup(_), Some(ceiling)) = (&self.phase, self.evidence.model.ceiling()) {
            self.evidence.model.set(bps(ceiling), Cause::Ceiling, now);
            self.phase = Phase::Steady(Steady::new());
        }
    }

    /// The peer was restarted or the link was down: delays begin anew, the rate is kept as far as
    /// it is likely. Every part says what of it survives.
    pub(super) fn on_restart(&mut self, now: Instant) {
        self.evidence.on_restart(self.phase.kind() != PhaseKind::Startup, now);
        match &mut self.phase {
            Phase::Startup(startup) => startup.on_restart(),
            Phase::Steady(steady) => steady.on_restart(),
            Phase::Competing(competing) => {
                let mut steady = competing.steady();
                steady.on_restart();
                self.phase = Phase::Steady(steady);
            }
        }
    }

    /// Takes an observation.
    pub(super) fn on_observation(&mut self, seen: &Observation, now: Instant) {
        let seen = &self.evidence.on_observation(seen, self.known_bps(), now);
        let evidence = &mut self.evidence;
        // All transitions that observations cause, and in `control` the one to `Competing`.
        match &mut self.phase {
            Phase::Startup(startup) => {
                let Some(steady) = startup.on_observation(evidence, now) else { return };
                self.phase = Phase::Steady(steady);
                self.control(seen, now);
            }
            Phase::Steady(steady) => {
                if let Some(span) = evidence.span(now) {
                    steady.on_span(evidence, &span, seen, now);
                }
                self.control(seen, now);
            }
            Phase::Competing(competing) => {
                if let Some(steady) = competing.on_observation(evidence, seen, now) {
                    self.phase = Phase::Steady(steady);
                }
            }
        }
    }

    /// The pace of a steady link; a competitor that is found ends that phase.
    fn control(&mut self, seen: &Observation, now: Instant) {
        let Phase::Steady(steady) = &mut self.phase else { return };
        if let Some(base_us) = steady.control(&mut self.evidence, seen, now) {
            self.compete(seen, base_us, now);
        }
    }

    /// A competitor fills the queue, which did not stand while delays were `base_us`.
    fn compete(&mut self, seen: &Observation, base_us: i64, now: Instant) {
        let Phase::Steady(steady) = self.phase else { return };
        let Evidence { model, competitor, .. } = &mut self.evidence;
        let queue_s = seen.delay_us.saturating_sub(base_us).max(0) as f64 / 1e6;
        let rates = (competitor.alone_bps(now), model.rate_bps());
        let competing = Competing::new(steady, rates, model.rtt_min(), queue_s, base_us, now);
        self.phase = Phase::Competing(Box::new(competing));
        model.hold(Cause::Competitor, now);
        competitor.end();
    }

    /// C in whole bit/s; 0: not known.
    fn known_bps(&self) -> f64 {
        self.estimate().capacity.map_or(0.0, bps)
    }

    /// What the link is taken for.
    pub(super) fn estimate(&self) -> RateEstimate {
        let ceiling = self.evidence.model.ceiling();
        let capacity = match self.phase {
            Phase::Startup(_) => None,
            Phase::Steady(_) | Phase::Competing(_) => {
                // C may be from before the ceiling.
                let found = rate(self.evidence.model.rate_bps());
                Some(ceiling.map_or(found, |ceiling| found.min(ceiling)))
            }
        };
        RateEstimate {
            capacity,
            is_competing: matches!(self.phase, Phase::Competing(_)),
            is_at_ceiling: ceiling.is_some_and(|ceiling| capacity.is_some_and(|rate| rate >= ceiling)),
        }
    }

    /// The rate to pace at while an answer is `overdue`: the queue now is at least that long.
    pub(super) fn pacing_rate(&self, overdue: Duration, now: Instant) -> BitRate {
        let paced_bps = match &self.phase {
            Phase::Startup(startup) => startup.paced_bps(&self.evidence.model),
            Phase::Steady(steady) => steady.paced_bps(&self.evidence.model, now),
            Phase::Competing(competing) => competing.paced_bps(),
        };
        let late = 1.0 - overdue.as_secs_f64() / CONTROL_S;
        let paced = rate((paced_bps * late.max(GAIN_MIN)).max(RATE_MIN_BPS));
        self.evidence.model.ceiling().map_or(paced, |ceiling| paced.min(ceiling.permille(PACING_PERMILLE)))
    }

    /// When loss without a queue last said what C is, if nothing else did since.
    pub(super) fn policed_at(&self) -> Option<Instant> {
        let cause = self.evidence.model.cause();
        cause.filter(|(cause, _)| *cause == Cause::Policer).map(|(_, at)| at)
    }

    /// Whether a queue stands.
    pub(super) fn has_queue(&self) -> bool {
        self.evidence.queue.queue_s() > self.evidence.model.empty_s()
    }

    /// The link may carry more from now on: that is searched at once, in large steps.
    pub(super) fn search_again(&mut self, now: Instant) {
        if let Phase::Steady(steady) = &mut self.phase {
            steady.search_again(now);
        }
    }

    /// How far, relative and on average, C is lately from its mean of a second.
    pub(super) fn volatility(&self, now: Instant) -> f64 {
        self.evidence.model.volatility(now)
    }

    /// Whether what was lost, if it was sent from `from` on, was not lost to a queue, ours or
    /// another's, nor to a policer while the rate was found out. Asked once for each stretch of
    /// time. In startup that is not known; `recovers`: losses are sent again, so they harm no
    /// flow meanwhile.
    pub(super) fn take_own_loss(&mut self, from: Instant, recovers: bool, now: Instant) -> bool {
        let Evidence { model, queue, drain, origin, .. } = &mut self.evidence;
        let is_open = match self.phase {
            Phase::Startup(_) => recovers,
            Phase::Competing(_) => true,
            Phase::Steady(_) => drain.is_contested(now),
        };
        origin.take_own(from, queue.queue_s(), model.rtt_min()) && !is_open
    }

    /// Whether congestion marks turned out to mean nothing, the first time that it is asked: C is
    /// what it was before they began.
    pub(super) fn take_meaningless_marks(&mut self, now: Instant) -> bool {
        let Some(before_bps) = self.evidence.marks.take_meaningless() else { return false };
        let model = &mut self.evidence.model;
        model.set(before_bps.max(model.rate_bps()), Cause::EcnMeaningless, now);
        if let Phase::Steady(steady) = &mut self.phase {
            steady.set_fresh();
        }
        true
    }

    /// The change since this was asked last, if it is worth telling.
    pub(super) fn take_change(&mut self) -> Option<ControlChange> {
        let (phase, before) = (self.phase.kind(), self.told);
        let rate_bps = self.known_bps();
        let is_large = (rate_bps - before.rate_bps).abs() > before.rate_bps * TOLD_CHANGE;
        if phase == before.phase && !is_large {
            return None;
        }
        self.told = Told { rate_bps, phase };
        Some(ControlChange {
            from: before.phase,
            to: phase,
            cause: self.evidence.model.cause().map(|(cause, _)| cause),
            before: (before.rate_bps > 0.0).then(|| rate(before.rate_bps)),
            now: self.estimate().capacity,
        })
    }

    /// Figures for people.
    pub(super) fn stats(&self, now: Instant) -> ControlStats {
        let Evidence { model, queue, .. } = &self.evidence;
        let cause = model.cause();
        ControlStats {
            phase: self.phase.kind(),
            cause: cause.map(|(cause, _)| cause),
            caused_ago: cause.map(|(_, at)| now.saturating_since(at)),
            queue: seconds(queue.queue_s()),
            base_delay_us: queue.base_us(now),
            noise: seconds(queue.noise_s()),
            volatility_permille: permille(model.volatility(now)),
            capacity: self.estimate().capacity,
        }
    }
}

/// A span from a number of seconds; none where it is no number.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn permille(share: f64) -> u16 {
    (share * 1_000.0).round() as u16
}

#[cfg(test)]
mod tests;
