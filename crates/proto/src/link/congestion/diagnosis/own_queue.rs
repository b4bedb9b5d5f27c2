//! A link whose queue was never empty between two samples was busy: what it delivered is C.
//!
//! C falls only where at least C was offered, or where the queue grew with less: what the bond held
//! down itself is no evidence of capacity. Delay that is taken for a queue by mistake then tells
//! nothing, since as much arrives as is sent.
//!
//! What was lost meanwhile as usual took its time on the link. What chance or a burst took beyond
//! that may have been carried first, and lost later on, so C stays where it is between the two. A
//! fall is taken without the time of a stall, which is a host that stood still.

use super::Cause;
use crate::link::congestion::history::Span;
use crate::link::congestion::model::carried_bps;
use crate::link::congestion::params::{
    BELIEVED_RISE, CHANGE, ESTIMATE_GAIN, EXCESS_ROWS, JUMP, OUTAGE_LOSS, POLICED_LOSS,
};

/// What `span`, in which the queue was never empty, tells of a link that is believed to carry
/// `rate_bps` and loses `usual` of what it carries: C from now on, and why; `None`:
/// nothing. `is_certain`: the queue is much longer than chance explains.
pub(in crate::link::congestion) fn check(
    span: &Span,
    rate_bps: f64,
    usual: f64,
    is_certain: bool,
) -> Option<(f64, Cause)> {
    let least_bps = carried_bps(span.delivered_bps, span.loss, usual);
    let carried_bps = rate_bps.clamp(least_bps, carried_most_bps(span, least_bps, usual));
    // What drains came quicker than it was sent, and so does what a stalled link lets go.
    let is_draining = carried_bps > span.sent_bps * (1.0 + CHANGE);
    let seen = if is_draining { carried_bps.min(rate_bps * BELIEVED_RISE) } else { carried_bps };
    let regular_bps = (carried_bps * span.regular_bps / span.delivered_bps.max(1.0)).min(rate_bps);
    let cause = if regular_bps > seen { Cause::Stall } else { Cause::OwnQueue };
    let seen = seen.max(regular_bps);
    // A queue that is longer than any mistake is one, and tells of C as it drains.
    let is_told = is_certain && is_draining;
    if seen < rate_bps && span.sent_bps < rate_bps && !span.grows() && !is_told {
        return None;
    }
    let error = seen / rate_bps - 1.0;
    let gain = if error.abs() > JUMP { 1.0 } else { ESTIMATE_GAIN };
    Some((rate_bps + (seen - rate_bps) * gain, cause))
}

/// What the link carried at most: it may have carried what chance or a burst of loss took.
fn carried_most_bps(span: &Span, least_bps: f64, usual: f64) -> f64 {
    let chance = if span.lost_rows < EXCESS_ROWS { OUTAGE_LOSS } else { usual + POLICED_LOSS };
    least_bps.max(span.delivered_bps / (1.0 - span.loss.min(chance).min(OUTAGE_LOSS)))
}
