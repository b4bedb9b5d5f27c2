//! Loss that no queue explains, on a link that is used to the full: a policer's, or chance.
//!
//! What a link loses while it carries little is *usual*, and no more than what it loses on average. Both are taken over some hundred datagrams: of a window's few, one in
//! ten is lost or none, and the least of many windows is far below the mean. (Lab, `lossy-3`, one download: what was usual fell to 1 % while 5 % were lost, so that chance was taken
//! for a policer every second or two, and links of 30 Mbit/s for 20 to 26 for seconds.) More than that by [`POLICED_LOSS`] is taken for a policer's: C is what arrives, and the
//! next look for more waits, each time longer. The cut is tested: where it did not lower the mean, the loss was none of ours, the cut is undone, and
//! that loss is usual from then on (srtla_send's rule). With the loss of the window that led to the cut the test would compare the worst of many windows with any.
//!
//! What is lost in a few bursts is none of a policer's, however much it is. (Simulated, one QUIC flow over `bursts`, where a burst takes twenty datagrams: what the bursty link carries was
//! taken for a third of what it was after some of them, for 1.5 s each time.) A series of bursts that has passed looks like a cut that helped. So after the first cut what was carried before is looked for in
//! large steps; a policer answers with loss at once, and the next cut within [`SERIES_WITHIN`] is believed.

use std::time::Duration;

use super::{DATAGRAM_BYTES, Phase, RateControl, Sample, Span};
use crate::time::Instant;

/// Loss beyond the usual that counts as a policer's; beyond the second the link is out, and nothing is learnt.
pub(super) const POLICED_LOSS: f64 = 0.05;
pub(super) const OUTAGE_LOSS: f64 = 0.8;
/// What is usual, and the mean, are taken over so much.
const MEAN_BYTES: f64 = 300.0 * DATAGRAM_BYTES;
const LIGHT_LOAD: f64 = 0.7;
/// What is more than this on average is learnt to be usual by the test of a cut alone: a policer of a few Mbit/s takes as much of what is little elsewhere.
const LIGHT_LOSS_MAX: f64 = 0.2;

/// The test of a cut takes so much, and no longer than that.
const TEST_BYTES: f64 = MEAN_BYTES;
const TEST_MAX: Duration = Duration::from_secs(1);
/// A cut that leaves more than this of the mean did not lower it.
const NOT_LOWERED: f64 = 0.7;

/// A policer's loss is more than chance: by so many bytes more than usual, whatever the window holds. A window of a slow link holds a dozen datagrams, and
/// one of them lost is a twentieth. Where loss is usual, chance is more: a sum of what is lost less the share p + 0.05 of what is sent, of which p is lost, comes to h datagrams
/// with a probability of exp(−θh), p (exp θ − 1) = θ (p + 0.05): with these, once in 360,000, 80,000 and 40,000 losses for p = 2, 5 and 10 %.
const EXCESS_BYTES: f64 = 4.0 * DATAGRAM_BYTES;
const EXCESS_BYTES_PER_USUAL: f64 = 100.0 * DATAGRAM_BYTES;

/// Cuts no further apart than this are one policer's: a look for more comes 8 s after a cut at the latest.
const SERIES_WITHIN: Duration = Duration::from_secs(12);

/// ... and lost in so many rows: a policer lets something pass again and again, while one burst of loss (a fade, a handover) takes all for its time.
pub(super) const EXCESS_ROWS: u64 = 4;

/// What was lost beyond what is allowed, summed up and never below nothing (Page 1954: the sooner the larger the loss, and chance comes to nothing).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Excess {
    bytes: f64,
    /// Rows since the sum was nothing last.
    rows: u64,
    /// Delivered, lost and rows up to the last sample.
    before: (u64, u64, u64),
}

impl Excess {
    fn is_policed(&self, usual_loss: f64) -> bool {
        self.bytes >= excess_bytes(usual_loss) && self.rows >= EXCESS_ROWS
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        (self.bytes, self.rows) = (0.0, 0);
    }
}

/// What is lost, as a share of what was sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    value: f64,
    /// It was taken over so many.
    bytes: f64,
}

impl Share {
    fn note(&mut self, loss: f64, bytes: f64) {
        self.bytes += bytes;
        self.value += (loss - self.value) * bytes / self.bytes.max(1.0);
        self.bytes = self.bytes.min(MEAN_BYTES);
    }
}

/// What a link loses, of the whole and while it carries little.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Losses {
    mean: Share,
    usual: Share,
}

impl Losses {
    /// What is none of ours.
    pub(super) const fn usual(&self) -> f64 {
        self.usual.value
    }

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

/// Less than that beyond the usual is chance.
fn excess_bytes(usual_loss: f64) -> f64 {
    EXCESS_BYTES + EXCESS_BYTES_PER_USUAL * usual_loss
}

/// A cut because of loss, under test.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    at: Instant,
    /// The mean loss then.
    loss: f64,
    before_bps: f64,
    /// Delivered and lost up to when what is sent after it arrives.
    from: Option<(u64, u64)>,
}

impl RateControl {
    /// C was this before it is cut now.
    pub(super) fn begin_cut(&mut self, before_bps: f64, now: Instant) {
        self.cut = Some(Box::new(Cut { at: now, loss: self.losses.mean.value, before_bps, from: None }));
    }

    /// Takes what was lost since the last sample: to the mean, the usual, and the sum of what is beyond the usual and what is allowed on top.
    pub(super) fn note_losses(&mut self, sample: &Sample) {
        let (delivered, lost, rows) = self.excess.before;
        let newly_lost = sample.lost.saturating_sub(lost) as f64;
        let newly_sent = newly_lost + sample.delivered.saturating_sub(delivered) as f64;
        let allowed = newly_sent * (self.losses.usual() + POLICED_LOSS);
        let most = 2.0 * excess_bytes(self.losses.usual());
        let bytes = (self.excess.bytes + newly_lost - allowed).clamp(0.0, most);
        let rows = if bytes > 0.0 { self.excess.rows + sample.lost_rows.saturating_sub(rows) } else { 0 };
        self.excess = Excess { bytes, rows, before: (sample.delivered, sample.lost, sample.lost_rows) };
        let loss = newly_lost / newly_sent.max(1.0);
        if loss <= OUTAGE_LOSS || newly_sent < MEAN_BYTES {
            self.losses.note(loss, newly_sent, self.is_light);
        }
    }

    /// Whether loss that the link has now would be met by little traffic, too, and so is none of ours.
    pub(super) fn note_load(&mut self, span: &Span) {
        let is_little = match self.phase {
            Phase::Start => !span.is_full,
            Phase::Steady | Phase::Shared => span.sent_bps < self.rate_bps * LIGHT_LOAD,
        };
        self.is_light = is_little && self.queue_s <= self.empty_s();
    }

    /// The test of the last cut, if there is one: whether it goes on.
    fn test_cut(&mut self, sample: &Sample, now: Instant) -> bool {
        let Some(cut) = &mut self.cut else { return false };
        let age = now.saturating_since(cut.at);
        if age < self.rtt_min * 2 {
            return true;
        }
        let (delivered, lost) = *cut.from.get_or_insert((sample.delivered, sample.lost));
        let lost = sample.lost.saturating_sub(lost) as f64;
        let sent = lost + sample.delivered.saturating_sub(delivered) as f64;
        if sent < TEST_BYTES && age < self.rtt_min * 2 + TEST_MAX {
            return true;
        }
        let (loss, cut) = (lost / sent.max(1.0), **cut);
        self.cut = None;
        self.excess.clear();
        if loss > cut.loss * NOT_LOWERED {
            self.losses.usual = Share { value: loss, bytes: MEAN_BYTES };
            self.rate_bps = self.rate_bps.max(cut.before_bps);
            self.probe_pause_s = 1;
        }
        true
    }

    /// Loss that no queue explains. Whether it was acted upon.
    pub(super) fn on_loss(&mut self, span: &Span, sample: &Sample, now: Instant) -> bool {
        if self.test_cut(sample, now) {
            return false;
        }
        if span.loss > OUTAGE_LOSS {
            return true;
        }
        if !span.is_full
            || span.loss < self.losses.usual() + POLICED_LOSS
            || !self.excess.is_policed(self.losses.usual())
        {
            return false;
        }
        self.excess.clear();
        let is_first = self.cut_at.is_none_or(|at| now.saturating_since(at) > SERIES_WITHIN);
        (self.cut_at, self.before_cut_bps) = (Some(now), if is_first { self.rate_bps } else { 0.0 });
        if is_first {
            self.probe_pause_s = 1;
        }
        self.begin_cut(self.rate_bps, now);
        self.adopt(span.delivered_bps, now);
        (self.probe, self.is_fresh) = (0.0, false);
        self.probe_after = now + self.probe_pause();
        self.probe_pause_s = (self.probe_pause_s * 2).min(8);
        true
    }
}
