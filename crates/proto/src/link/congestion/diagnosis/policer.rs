//! Loss that no queue explains, on a link that is used to the full: a policer's, or chance.
//!
//! A policer lets its rate pass, whatever is sent; chance takes the same share of whatever is sent.
//! So the two are told apart by changing what is sent, and goodput says which it is.
//!
//! - What a link loses while it carries little is *usual*, and no more than what it loses on
//!   average. Loss beyond the usual and what is allowed on top, summed up, in at least
//!   [`EXCESS_ROWS`] rows, is a *suspicion*. What is lost in fewer rows is a burst, however much.
//! - A bucket is empty as soon as it loses anything. So what was delivered *since the first loss*
//!   is the policer's rate, however large its burst is: C is cut to that.
//! - The cut is tested (Wald 1945): where rows are lost as often as before, C is cut again to what
//!   arrives by now. Where [`CUTS_OF_CHANCE`] cuts in a row changed nothing, goodput fell with
//!   sending: it is chance, the cuts are undone, and what is lost on average is usual.
//! - Otherwise goodput did not fall, and the rate is *known*. More sent on purpose and lost, with
//!   the same rate delivered, confirms it at once: no test, and the longest pause. Any other
//!   rate is a new suspicion. While it is in force less is allowed on top, so that an
//!   overrun of some percent is found, too.
//!
//! Measured: docs/decisions/0019-goodput-tells-a-policer.md.

use std::time::Duration;

use super::Cause;
use crate::link::congestion::history::Span;
use crate::link::congestion::model::{Model, carried_bps};
use crate::link::congestion::observation::Observation;
use crate::link::congestion::params::{
    BUSY_WINDOW_MIN, CHANGE, CUT_ROUNDS, CUT_TEST_MAX, CUTS_OF_CHANCE, DATAGRAM_BYTES, EXCESS_BYTES,
    EXCESS_BYTES_PER_USUAL, EXCESS_ROWS, IDLE_SHARE, KNOWN_LOSS, LIGHT_LOAD, LIGHT_LOSS_MAX, LOSS_MEAN_BYTES,
    OUTAGE_LOSS, POLICED_LOSS, ROUND_MAX, SERIES_WITHIN, START_IDLE_QUARTERS, SURE, USUAL_LOSS_MAX,
    WINDOW_DATAGRAMS,
};
use crate::time::Instant;

/// The counters of an observation.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    at: Instant,
    idle: Duration,
    delivered: u64,
    lost: u64,
    rows: u64,
}

/// What happened between two marks.
#[derive(Debug, Clone, Copy)]
struct Flow {
    time: Duration,
    /// The pacer's idle time.
    idle: Duration,
    delivered: f64,
    lost: f64,
    rows: u64,
}

impl Mark {
    const fn of(seen: &Observation, at: Instant) -> Self {
        let Observation { idle, delivered, lost, lost_rows: rows, .. } = *seen;
        Self { at, idle, delivered, lost, rows }
    }

    fn since(&self, from: &Self) -> Flow {
        Flow {
            time: self.at.saturating_since(from.at),
            idle: self.idle.saturating_sub(from.idle),
            delivered: self.delivered.saturating_sub(from.delivered) as f64,
            lost: self.lost.saturating_sub(from.lost) as f64,
            rows: self.rows.saturating_sub(from.rows),
        }
    }
}

impl Flow {
    fn sent(&self) -> f64 {
        self.delivered + self.lost
    }

    fn loss(&self) -> f64 {
        self.lost / self.sent().max(1.0)
    }

    /// Whether the pacer was used to the full.
    fn is_full(&self) -> bool {
        self.idle.as_secs_f64() <= self.time.as_secs_f64() * IDLE_SHARE
    }

    /// Whether the pacer was idle for as much of the time as makes a load light.
    fn is_light(&self) -> bool {
        self.idle.as_secs_f64() > self.time.as_secs_f64() * (1.0 - LIGHT_LOAD)
    }

    /// Rows lost for each datagram or row: a burst counts once.
    fn row_share(&self) -> f64 {
        self.rows as f64 / (self.rows as f64 + self.delivered / DATAGRAM_BYTES).max(1.0)
    }

    fn delivered_bps(&self) -> f64 {
        self.delivered * 8.0 / self.time.as_secs_f64().max(1e-6)
    }

    /// What was carried, where so much is lost as usual.
    fn carried_bps(&self, usual: f64) -> f64 {
        carried_bps(self.delivered_bps(), self.loss(), usual)
    }

    /// Whether it is long enough for a rate: chance in delays is a part of what is lost, or small.
    fn is_long(&self, model: &Model) -> bool {
        let noise_s = model.noise_window().as_secs_f64() * (LIGHT_LOSS_MAX / self.loss()).min(1.0);
        let is_long = self.time >= BUSY_WINDOW_MIN.max(Duration::from_secs_f64(noise_s));
        is_long && self.delivered >= WINDOW_DATAGRAMS * DATAGRAM_BYTES
    }

    /// No larger share is lost by chance, but once in twenty (the rule of three).
    fn share_max(&self) -> f64 {
        let datagrams = self.rows as f64 + self.delivered / DATAGRAM_BYTES;
        (self.rows as f64 + 3.0) / datagrams.max(3.0)
    }

    fn sent_bps(&self) -> f64 {
        self.sent() * 8.0 / self.time.as_secs_f64().max(1e-6)
    }
}

/// What was lost beyond what is allowed, summed up and never below nothing (Page 1954: the sooner
/// the larger the loss, and chance comes to nothing).
#[derive(Debug, Clone, Copy, Default)]
struct Excess {
    bytes: f64,
    /// When the sum was nothing last, and when it was that or the pacer was idle.
    began: Mark,
    from: Mark,
    /// The last observation.
    last: Mark,
}

impl Excess {
    /// Takes what was lost since the last observation, of which this share is allowed.
    fn on_observation(&mut self, newest: Mark, allowed: f64, most: f64) -> Flow {
        let last = std::mem::replace(&mut self.last, newest);
        if self.bytes <= 0.0 {
            (self.began, self.from) = (last, last);
        }
        let flow = self.last.since(&last);
        if !flow.is_full() {
            self.from = self.last;
        }
        self.bytes = (self.bytes + flow.lost - flow.sent() * allowed).clamp(0.0, most);
        flow
    }

    /// What arrived and was lost while the pacer was full. In startup the pace is ahead of most
    /// senders, so the pacer is seldom full for long. There all that happened since the losses
    /// began counts: a bucket that is empty at both ends lets its rate pass, pauses included.
    fn flow(&self, model: &Model) -> Flow {
        let flow = self.last.since(&self.from);
        if model.rate_bps() > 0.0 || flow.is_long(model) {
            return flow;
        }
        let whole = self.last.since(&self.began);
        if whole.time >= ROUND_MAX && whole.idle <= whole.time * START_IDLE_QUARTERS / 4 {
            whole
        } else {
            flow
        }
    }

    /// Begins anew.
    const fn clear(&mut self) {
        self.bytes = 0.0;
    }
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
    /// C before the first of the series, bit/s.
    before_bps: f64,
    /// How many cuts the series has.
    count: u32,
    /// The share that is lost if it is chance.
    share: f64,
    /// Counters when what is sent after it arrives.
    from: Option<Mark>,
}

impl Cut {
    /// The logarithm of how much likelier what was lost is with the loss from before than with half
    /// of it; `None`: nothing is known yet.
    fn evidence(&self, last: &Mark) -> Option<f64> {
        let flow = last.since(&self.from?);
        let delivered = flow.delivered / DATAGRAM_BYTES;
        let by_delivered = ((1.0 - self.share) / (1.0 - self.share / 2.0)).ln();
        Some(flow.rows as f64 * 2f64.ln() + delivered * by_delivered)
    }
}

/// What the loss of a link tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::link::congestion) enum Finding {
    /// Goodput fell as less was sent, and the same share is lost, which is usual from now on: C is
    /// what it was before.
    RandomLoss {
        /// C before the cuts, bit/s.
        before_bps: f64,
    },
    /// Much is lost in a few rows.
    Burst,
    /// More was sent than arrives.
    Policer {
        /// What arrives, bit/s.
        rate_bps: f64,
        /// C before the first cut of the series that this one belongs to, bit/s; 0: the policer was
        /// confirmed since.
        before_bps: f64,
        /// No other cut came shortly before.
        is_first: bool,
    },
    /// The cut changed nothing so far: C is cut to what arrives now.
    Again {
        /// That rate, bit/s.
        rate_bps: f64,
    },
    /// More was sent than arrives, and it was known what does.
    Confirmed {
        /// What arrives, bit/s.
        rate_bps: f64,
    },
    /// The cut lowered the loss: it was a policer.
    Policed {
        /// What it lets pass, with what is lost as usual; bit/s.
        rate_bps: f64,
    },
}

impl Finding {
    /// The cause that it stands for.
    pub(in crate::link::congestion) const fn cause(self) -> Cause {
        match self {
            Self::RandomLoss { .. } => Cause::RandomLoss,
            Self::Burst => Cause::Burst,
            Self::Policer { .. } | Self::Again { .. } | Self::Confirmed { .. } | Self::Policed { .. } => {
                Cause::Policer
            }
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
    /// C before the first cut of a series that nothing confirmed, bit/s.
    series_bps: f64,
    /// What the last policer lets pass, bit/s; 0: none is known.
    policed_bps: f64,
}

impl LossDetector {
    /// Void: the test of a cut, and the excess. Survive: what the link loses, the policer, and when
    /// the link was cut.
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

    /// No cut came for so long that another would be the first of a series.
    fn is_first(&self, now: Instant) -> bool {
        self.cut_at.is_none_or(|at| now.saturating_since(at) > SERIES_WITHIN)
    }

    /// Whether a link of this C is held down by a policer that was met lately.
    pub(in crate::link::congestion) fn is_policed(&self, rate_bps: f64, now: Instant) -> bool {
        rate_bps < self.policed_bps * (1.0 + CHANGE) && !self.is_first(now)
    }

    /// What may be lost on a link of this C: the share of what is sent, and bytes beyond that.
    fn allowed(&self, rate_bps: f64, now: Instant) -> (f64, f64) {
        let above = if self.is_policed(rate_bps, now) { KNOWN_LOSS } else { POLICED_LOSS };
        let usual = self.usual();
        (usual + above, EXCESS_BYTES + EXCESS_BYTES_PER_USUAL * usual * POLICED_LOSS / above)
    }

    /// Takes what was lost since the last observation of a link of this C: to the mean, the usual,
    /// and the sum of what is beyond what is allowed.
    pub(in crate::link::congestion) fn on_observation(
        &mut self,
        seen: &Observation,
        rate_bps: f64,
        now: Instant,
    ) {
        let (share, bytes) = self.allowed(rate_bps, now);
        let flow = self.excess.on_observation(Mark::of(seen, now), share, 2.0 * bytes);
        self.losses.note(flow.loss(), flow.sent(), self.is_light && flow.is_light());
    }

    /// Loss that no queue explains, of a link of the model's C, or in startup of one that was sent
    /// `rate_bps`.
    pub(in crate::link::congestion) fn check(
        &mut self,
        span: &Span,
        model: &Model,
        rate_bps: f64,
        now: Instant,
    ) -> Option<Finding> {
        if self.is_settling(model, now) {
            self.excess.clear();
            return None;
        }
        if self.cut.is_some() {
            return self.test_cut(model, now);
        }
        let (share, bytes) = self.allowed(rate_bps, now);
        let flow = self.excess.flow(model);
        if flow.loss() < share || self.excess.bytes < bytes {
            return None;
        }
        if flow.rows < EXCESS_ROWS {
            return span.is_full.then_some(Finding::Burst);
        }
        if !flow.is_long(model) {
            return None;
        }
        if self.is_confirmed(&flow) {
            self.excess.clear();
            (self.cut_at, self.series_bps) = (Some(now), 0.0);
            self.policed_bps = (self.policed_bps + flow.carried_bps(self.usual())) / 2.0;
            return Some(Finding::Confirmed { rate_bps: self.policed_bps });
        }
        if self.policed_bps > 0.0 && flow.time < model.window() {
            return None;
        }
        let is_first = self.is_first(now);
        if is_first {
            self.series_bps = model.rate_bps().max(rate_bps);
        }
        let before_bps = self.series_bps;
        let rate_bps = self.begin_cut(&flow, (rate_bps, 1), now);
        Some(Finding::Policer { rate_bps, before_bps, is_first })
    }

    /// Whether more than the known policer's rate was sent, and that rate arrived.
    fn is_confirmed(&self, flow: &Flow) -> bool {
        let off = flow.carried_bps(self.usual()) / self.policed_bps.max(1.0) - 1.0;
        off.abs() <= CHANGE && flow.sent_bps() > self.policed_bps * (1.0 + 2.0 * CHANGE)
    }

    /// C, which was `before_bps` before `count` cuts in a row, is cut to what arrived in `flow`.
    fn begin_cut(&mut self, flow: &Flow, (before_bps, count): (f64, u32), now: Instant) -> f64 {
        let share =
            (flow.row_share() * (1.0 - 1.0 / (flow.rows as f64).sqrt())).clamp(KNOWN_LOSS, OUTAGE_LOSS);
        let cut = Cut { before_bps, count, share, from: None };
        self.cut = Some(Box::new(cut));
        (self.cut_at, self.policed_bps) = (Some(now), flow.delivered_bps());
        self.excess.clear();
        self.policed_bps
    }

    /// The test of the last cut: what follows where it changed nothing; `None` while the test goes
    /// on, and where the cut lowered the loss.
    fn test_cut(&mut self, model: &Model, now: Instant) -> Option<Finding> {
        let cut = self.cut.as_mut()?;
        let last = self.excess.last;
        let from = *cut.from.get_or_insert(last);
        let (evidence, flow) = (cut.evidence(&last)?, last.since(&from));
        let is_clear = evidence.abs() >= SURE && (evidence < 0.0 || flow.is_long(model));
        if !is_clear && flow.time < CUT_TEST_MAX {
            return None;
        }
        let cut = **cut;
        self.cut = None;
        self.excess.clear();
        if evidence > 0.0 && !flow.is_long(model) {
            // Next to nothing arrives: that tells nothing.
            return None;
        }
        if evidence <= 0.0 {
            // What is lost now is lost by chance.
            self.losses.usual.value = self.usual().min(flow.share_max());
            self.policed_bps /= 1.0 - self.usual().min(USUAL_LOSS_MAX);
            return Some(Finding::Policed { rate_bps: self.policed_bps });
        }
        if cut.count < CUTS_OF_CHANCE {
            let rate_bps = self.begin_cut(&flow, (cut.before_bps, cut.count + 1), now);
            return Some(Finding::Again { rate_bps });
        }
        self.losses.usual = Share { value: self.losses.mean.value, bytes: LOSS_MEAN_BYTES };
        (self.policed_bps, self.cut_at) = (0.0, None);
        Some(Finding::RandomLoss { before_bps: cut.before_bps.max(self.series_bps) })
    }

    /// Whether the last window may tell of what was sent before a cut.
    fn is_settling(&self, model: &Model, now: Instant) -> bool {
        let takes = model.rtt_min() * CUT_ROUNDS + model.window() + model.noise_window();
        self.cut_at.is_some_and(|at| now.saturating_since(at) < takes)
    }

    /// Whether it is news that the link carries `rate_bps`: not what was sent before a cut, nor
    /// what a bucket lets pass for a while.
    pub(in crate::link::congestion) fn is_news(&self, rate_bps: f64, model: &Model, now: Instant) -> bool {
        !self.is_settling(model, now) && !self.is_policed(rate_bps, now)
    }

    /// Whether a policer may be overrun now: C is being found out, or more is sent on purpose
    /// (`is_searching`).
    pub(in crate::link::congestion) fn is_overrun(
        &self,
        is_searching: bool,
        model: &Model,
        now: Instant,
    ) -> bool {
        let is_policed = self.is_policed(model.rate_bps(), now);
        self.cut.is_some() || self.is_settling(model, now) || (is_searching && is_policed)
    }

    /// Whether the link was cut ever.
    #[cfg(test)]
    pub(in crate::link::congestion) const fn has_cut(&self) -> bool {
        self.cut_at.is_some()
    }
}
