//! Loss that no queue explains, on a link that is used to the full: a policer's, or chance.
//!
//! What a link loses while it carries little is *usual*. More than that by [`POLICED_LOSS`] is taken for a policer's: C is what arrives, and the
//! next look for more waits, each time longer. The cut is tested: where it did not lower the loss, it was none of ours, is undone, and
//! that loss is usual from then on (srtla_send's rule).

use super::{RateControl, Span};
use crate::time::Instant;

/// Loss beyond the usual that counts as a policer's; beyond the second the link is out, and nothing is learnt.
const POLICED_LOSS: f64 = 0.05;
pub(super) const OUTAGE_LOSS: f64 = 0.8;
/// What is usual follows each sample without a queue by this.
const USUAL_GAIN: f64 = 0.02;
const LIGHT_LOAD: f64 = 0.7;

/// A cut because of loss, under test.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) at: Instant,
    pub(super) loss: f64,
    pub(super) before_bps: f64,
}

impl RateControl {
    /// What is lost while no queue stands and little is sent is usual.
    pub(super) fn note_usual_loss(&mut self, span: &Span) {
        // Only loss that little traffic meets too is known not to be ours.
        let is_light =
            span.sent_bps < self.rate_bps * LIGHT_LOAD && span.loss < self.usual_loss + POLICED_LOSS;
        if self.queue_s <= self.empty_s() && (is_light || span.loss < self.usual_loss) {
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
        if !span.is_full || span.loss < self.usual_loss + POLICED_LOSS {
            return false;
        }
        self.cut = Some(Cut { at: now, loss: span.loss, before_bps: self.rate_bps });
        self.adopt(span.delivered_bps, now);
        (self.probe, self.is_fresh) = (0.0, false);
        self.probe_after = now + self.probe_pause();
        self.probe_pause_s = (self.probe_pause_s * 2).min(8);
        true
    }
}
