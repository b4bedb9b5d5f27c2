//! Loss that no queue explains, on a link that is used to the full: a policer's, or chance.
//!
//! What a link loses while it carries little is *usual*. More than that by [`POLICED_LOSS`] is taken for a policer's: C is what arrives, and the
//! next look for more waits, each time longer. The cut is tested: where it did not lower the loss, it was none of ours, is undone, and
//! that loss is usual from then on (srtla_send's rule).
//!
//! What is lost in a few bursts is none of a policer's, however much it is. (Simulated, one QUIC flow over `bursts`, where a burst takes twenty datagrams: what the bursty link carries was
//! taken for a third of what it was after some of them, for 1.5 s each time.) A series of bursts that has passed looks like a cut that helped. So after the first cut what was carried before is looked for in
//! large steps; a policer answers with loss at once, and the next cut within [`SERIES_WITHIN`] is believed.

use std::time::Duration;

use super::{DATAGRAM_BYTES, RateControl, Sample, Span};
use crate::time::Instant;

/// Loss beyond the usual that counts as a policer's; beyond the second the link is out, and nothing is learnt.
pub(super) const POLICED_LOSS: f64 = 0.05;
pub(super) const OUTAGE_LOSS: f64 = 0.8;
/// What is usual follows each sample without a queue by this.
const USUAL_GAIN: f64 = 0.02;
const LIGHT_LOAD: f64 = 0.7;

/// A policer's loss is more than chance: by so many bytes more than usual, whatever the window holds. A window of a slow link holds a dozen datagrams, and
/// one of them lost is a twentieth.
const EXCESS_BYTES: f64 = 4.0 * DATAGRAM_BYTES;
const EXCESS_MAX: f64 = 2.0 * EXCESS_BYTES;

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
    fn is_policed(&self) -> bool {
        self.bytes >= EXCESS_BYTES && self.rows >= EXCESS_ROWS
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        (self.bytes, self.rows) = (0.0, 0);
    }
}

/// A cut because of loss, under test.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) at: Instant,
    pub(super) loss: f64,
    pub(super) before_bps: f64,
}

impl RateControl {
    /// Sums up what was lost beyond the usual and what is allowed on top.
    pub(super) fn note_excess(&mut self, sample: &Sample) {
        let (delivered, lost, rows) = self.excess.before;
        let newly_lost = sample.lost.saturating_sub(lost) as f64;
        let newly_sent = newly_lost + sample.delivered.saturating_sub(delivered) as f64;
        let allowed = newly_sent * (self.usual_loss + POLICED_LOSS);
        let bytes = (self.excess.bytes + newly_lost - allowed).clamp(0.0, EXCESS_MAX);
        let rows = if bytes > 0.0 { self.excess.rows + sample.lost_rows.saturating_sub(rows) } else { 0 };
        self.excess = Excess { bytes, rows, before: (sample.delivered, sample.lost, sample.lost_rows) };
    }

    /// What is lost while no queue stands and little is sent is usual.
    pub(super) fn note_usual_loss(&mut self, span: &Span) {
        // Only loss that little traffic meets too is known not to be ours.
        let is_light =
            span.sent_bps < self.rate_bps * LIGHT_LOAD && span.loss < self.usual_loss + POLICED_LOSS;
        // A queue only adds to it.
        if span.loss < self.usual_loss || (is_light && self.queue_s <= self.empty_s()) {
            self.usual_loss += (span.loss - self.usual_loss) * USUAL_GAIN;
        }
    }

    /// Loss that no queue explains. Whether it was acted upon.
    pub(super) fn on_loss(&mut self, span: &Span, now: Instant) -> bool {
        if let Some(cut) = self.cut {
            if now.saturating_since(cut.at) < self.rtt_min * 2 + self.window() * 2 {
                return false;
            }
            self.cut = None;
            self.excess.clear();
            if span.loss > cut.loss * 0.7 {
                self.usual_loss = span.loss;
                self.rate_bps = self.rate_bps.max(cut.before_bps);
                self.probe_pause_s = 1;
            }
            return false;
        }
        if span.loss > OUTAGE_LOSS {
            return true;
        }
        if !span.is_full || span.loss < self.usual_loss + POLICED_LOSS || !self.excess.is_policed() {
            return false;
        }
        self.excess.clear();
        let is_first = self.cut_at.is_none_or(|at| now.saturating_since(at) > SERIES_WITHIN);
        (self.cut_at, self.before_cut_bps) = (Some(now), if is_first { self.rate_bps } else { 0.0 });
        if is_first {
            self.probe_pause_s = 1;
        }
        self.cut = Some(Cut { at: now, loss: span.loss, before_bps: self.rate_bps });
        self.adopt(span.delivered_bps, now);
        (self.probe, self.is_fresh) = (0.0, false);
        self.probe_after = now + self.probe_pause();
        self.probe_pause_s = (self.probe_pause_s * 2).min(8);
        true
    }
}
