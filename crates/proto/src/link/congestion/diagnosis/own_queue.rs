//! A link whose queue was never empty between two samples was busy: what it delivered is C.
//!
//! What was lost meanwhile as usual took its time on the link. What chance or a burst took beyond
//! that may have been carried first, and lost later on, so C stays where it is between the two. A
//! fall is taken without the time of a stall, which is a host that stood still.

use super::Cause;
use crate::link::congestion::history::Span;
use crate::link::congestion::model::carried_bps;
use crate::link::congestion::params::{
    BELIEVED_RISE, CHANGE, CHANGE_LIGHT, DRAINING, ESTIMATE_GAIN, EXCESS_ROWS, JUMP, LIGHT, OUTAGE_LOSS,
    POLICED_LOSS,
};

/// What a busy link tells.
#[derive(Debug, Clone, Copy)]
pub(in crate::link::congestion) struct Finding {
    /// The queue neither grew nor shrank.
    pub(in crate::link::congestion) is_flat: bool,
    /// C from now on, and why; `None`: nothing is learnt.
    pub(in crate::link::congestion) rate: Option<(f64, Cause)>,
}

/// What `span`, in which the queue was never empty, tells of a link that is believed to carry
/// `rate_bps` and loses `usual` of what it carries.
pub(in crate::link::congestion) fn check(span: &Span, rate_bps: f64, usual: f64) -> Finding {
    let least_bps = carried_bps(span.delivered_bps, span.loss, usual);
    let carried_bps = rate_bps.clamp(least_bps, carried_most_bps(span, least_bps, usual));
    let ratio = carried_bps / span.sent_bps.max(1.0);
    // Of little traffic a few datagrams are all that is known.
    let is_light = !span.is_full && span.sent_bps < rate_bps * LIGHT;
    let change = if is_light { CHANGE_LIGHT } else { CHANGE };
    let is_flat = (1.0 - change..=1.0 + CHANGE).contains(&ratio);
    // A queue that should drain, and of which nothing else is known, may not be ours.
    if span.sent_bps < rate_bps * DRAINING && is_flat {
        return Finding { is_flat, rate: None };
    }
    // What drains came quicker than it was sent, and so does what a stalled link lets go.
    let is_draining = ratio > 1.0 + CHANGE;
    let seen = if is_draining { carried_bps.min(rate_bps * BELIEVED_RISE) } else { carried_bps };
    let regular_bps = (carried_bps * span.regular_bps / span.delivered_bps.max(1.0)).min(rate_bps);
    let cause = if regular_bps > seen { Cause::Stall } else { Cause::OwnQueue };
    let seen = seen.max(regular_bps);
    let error = seen / rate_bps - 1.0;
    let gain = if error.abs() > JUMP { 1.0 } else { ESTIMATE_GAIN };
    Finding { is_flat, rate: Some((rate_bps + (seen - rate_bps) * gain, cause)) }
}

/// What the link carried at most: it may have carried what chance or a burst of loss took.
fn carried_most_bps(span: &Span, least_bps: f64, usual: f64) -> f64 {
    let chance = if span.lost_rows < EXCESS_ROWS { OUTAGE_LOSS } else { usual + POLICED_LOSS };
    least_bps.max(span.delivered_bps / (1.0 - span.loss.min(chance).min(OUTAGE_LOSS)))
}
