//! Loss that no queue explains, on a link that is used to the full: a policer's, or chance.
//!
//! What a link loses while it carries little is *usual*, and no more than what it loses on average.
//! Both are taken over some hundred datagrams. More than that by [`POLICED_LOSS`], in at least
//! [`EXCESS_ROWS`] rows, is taken for a policer's: C is what arrives, and the next search waits,
//! each time longer. What is lost in fewer rows is a burst, however much it is.
//!
//! A cut is tested. Where it did not lower the mean loss, the loss was not ours: the cut is undone,
//! and that loss is usual from then on (srtla_send's rule). A series of bursts that has passed
//! looks like a cut that helped. So after the first cut what was carried before is searched in
//! large steps; a policer answers with loss at once, and the next cut within [`SERIES_WITHIN`] is
//! believed.
//!
//! Measured: docs/decisions/0012-loss-of-a-policer-and-of-chance.md.

use std::time::Duration;

use super::Cause;
use crate::link::congestion::history::Span;
use crate::link::congestion::observation::Observation;
use crate::link::congestion::params::{
    CUT_ROUNDS, CUT_TEST_BYTES, CUT_TEST_MAX, EXCESS_BYTES, EXCESS_BYTES_PER_USUAL, EXCESS_ROWS,
    LIGHT_LOSS_MAX, LOSS_MEAN_BYTES, NOT_LOWERED, OUTAGE_LOSS, POLICED_LOSS, SERIES_WITHIN,
};
use crate::time::Instant;

/// What was lost beyond what is allowed, summed up and never below nothing (Page 1954: the sooner
/// the larger the loss, and chance comes to nothing).
#[derive(Debug, Clone, Copy, Default)]
struct Excess {
    bytes: f64,
    /// Rows since the sum was nothing last.
    rows: u64,
    /// Delivered, lost and rows up to the last observation.
    before: (u64, u64, u64),
}

impl Excess {
    fn is_policed(&self, usual_loss: f64) -> bool {
        self.bytes >= excess_bytes(usual_loss) && self.rows >= EXCESS_ROWS
    }

    fn is_burst(&self, usual_loss: f64) -> bool {
        self.bytes >= excess_bytes(usual_loss) && self.rows < EXCESS_ROWS
    }

    /// Begins anew.
    fn clear(&mut self) {
        (self.bytes, self.rows) = (0.0, 0);
    }
}

fn excess_bytes(usual_loss: f64) -> f64 {
    EXCESS_BYTES + EXCESS_BYTES_PER_USUAL * usual_loss
}

/// What is lost, as a share of what was sent.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    value: f64,
    /// It was taken over so many.
    bytes: f64,
}

impl Share {
    fn note(&mut self, loss: f64, bytes: f64) {
        self.bytes += bytes;
        self.value += (loss - self.value) * bytes / self.bytes.max(1.0);
        self.bytes = self.bytes.min(LOSS_MEAN_BYTES);
    }
}

/// What a link loses, of everything and while it carries little.
#[derive(Debug, Clone, Copy, Default)]
struct Losses {
    mean: Share,
    usual: Share,
}

impl Losses {
    /// Bytes of which this share was lost, while the link carried little or not.
    fn note(&mut self, loss: f64, bytes: f64, is_light: bool) {
        self.mean.note(loss, bytes);
        if is_light && self.mean.value <= LIGHT_LOSS_MAX {
            self.usual.note(loss, bytes);
        } else if self.mean.value < self.usual.value {
            // A queue only adds to it.
            self.usual.note(self.mean.value, bytes);
        }
    }
}

/// A cut because of loss, under test.
#[derive(Debug, Clone, Copy)]
struct Cut {
    at: Instant,
    /// The mean loss then.
    loss: f64,
    before_bps: f64,
    /// Delivered and lost up to when what is sent after it arrives.
    from: Option<(u64, u64)>,
}

/// What the loss of a link tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::link::congestion) enum Finding {
    /// A cut did not lower the loss, which is usual from now on: C is what it was before.
    RandomLoss {
        /// C before the cut, bit/s.
        before_bps: f64,
    },
    /// Nearly everything is lost.
    Outage,
    /// Much is lost in a few rows.
    Burst,
    /// C is what arrives.
    Policer {
        /// No other cut came shortly before.
        is_first: bool,
    },
}

impl Finding {
    /// The cause that it stands for.
    pub(in crate::link::congestion) const fn cause(self) -> Cause {
        match self {
            Self::RandomLoss { .. } => Cause::RandomLoss,
            Self::Outage => Cause::Outage,
            Self::Burst => Cause::Burst,
            Self::Policer { .. } => Cause::Policer,
        }
    }
}

/// The detector.
#[derive(Debug, Clone, Default)]
pub(in crate::link::congestion) struct LossDetector {
    losses: Losses,
    excess: Excess,
    /// Whether the link carries so little that what is lost is not the load's.
    is_light: bool,
    cut: Option<Box<Cut>>,
    cut_at: Option<Instant>,
}

impl LossDetector {
    /// Void: the test of a cut, and the excess. Survive: what the link loses, and when it was cut.
    pub(in crate::link::congestion) fn on_restart(&mut self) {
        self.cut = None;
        self.excess.clear();
    }

    /// What the link loses whatever it carries, share.
    pub(in crate::link::congestion) const fn usual(&self) -> f64 {
        self.losses.usual.value
    }

    /// Whether loss that the link has now would be met by little traffic, too.
    pub(in crate::link::congestion) const fn set_light(&mut self, is_light: bool) {
        self.is_light = is_light;
    }

    /// C was this before it is cut now.
    pub(in crate::link::congestion) fn begin_cut(&mut self, before_bps: f64, now: Instant) {
        self.cut = Some(Box::new(Cut { at: now, loss: self.losses.mean.value, before_bps, from: None }));
    }

    /// Takes what was lost since the last observation: to the mean, the usual, and the sum of what
    /// is beyond the usual and what is allowed on top.
    pub(in crate::link::congestion) fn on_observation(&mut self, seen: &Observation) {
        let (delivered, lost, rows) = self.excess.before;
        let newly_lost = seen.lost.saturating_sub(lost) as f64;
        let newly_sent = newly_lost + seen.delivered.saturating_sub(delivered) as f64;
        let allowed = newly_sent * (self.usual() + POLICED_LOSS);
        let most = 2.0 * excess_bytes(self.usual());
        let bytes = (self.excess.bytes + newly_lost - allowed).clamp(0.0, most);
        let rows = if bytes > 0.0 { self.excess.rows + seen.lost_rows.saturating_sub(rows) } else { 0 };
        self.excess = Excess { bytes, rows, before: (seen.delivered, seen.lost, seen.lost_rows) };
        let loss = newly_lost / newly_sent.max(1.0);
        if loss <= OUTAGE_LOSS || newly_sent < LOSS_MEAN_BYTES {
            self.losses.note(loss, newly_sent, self.is_light);
        }
    }

    /// The test of the last cut: C before it where it did not lower the loss, `None` while the test
    /// goes on or where it did.
    fn test_cut(&mut self, seen: &Observation, rtt_min: Duration, now: Instant) -> Option<f64> {
        let cut = self.cut.as_mut()?;
        let age = now.saturating_since(cut.at);
        if age < rtt_min * CUT_ROUNDS {
            return None;
        }
        let (delivered, lost) = *cut.from.get_or_insert((seen.delivered, seen.lost));
        let lost = seen.lost.saturating_sub(lost) as f64;
        let sent = lost + seen.delivered.saturating_sub(delivered) as f64;
        if sent < CUT_TEST_BYTES && age < rtt_min * CUT_ROUNDS + CUT_TEST_MAX {
            return None;
        }
        let (loss, cut) = (lost / sent.max(1.0), **cut);
        self.cut = None;
        self.excess.clear();
        (loss > cut.loss * NOT_LOWERED).then(|| {
            self.losses.usual = Share { value: loss, bytes: LOSS_MEAN_BYTES };
            cut.before_bps
        })
    }

    /// Loss that no queue explains.
    pub(in crate::link::congestion) fn check(
        &mut self,
        span: &Span,
        seen: &Observation,
        rtt_min: Duration,
        now: Instant,
    ) -> Option<Finding> {
        if self.cut.is_some() {
            let before_bps = self.test_cut(seen, rtt_min, now)?;
            return Some(Finding::RandomLoss { before_bps });
        }
        if span.loss > OUTAGE_LOSS {
            return Some(Finding::Outage);
        }
        if !span.is_full || span.loss < self.usual() + POLICED_LOSS {
            return None;
        }
        if !self.excess.is_policed(self.usual()) {
            return self.excess.is_burst(self.usual()).then_some(Finding::Burst);
        }
        self.excess.clear();
        let is_first = self.cut_at.is_none_or(|at| now.saturating_since(at) > SERIES_WITHIN);
        self.cut_at = Some(now);
        Some(Finding::Policer { is_first })
    }

    /// Whether the link was cut ever.
    #[cfg(test)]
    pub(in crate::link::congestion) const fn has_cut(&self) -> bool {
        self.cut_at.is_some()
    }
}
