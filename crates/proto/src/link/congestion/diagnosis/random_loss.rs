//! Whether what was lost in a stretch of time is the link's own loss: no queue of the bond or of a
//! competitor stood in the link, and no search for the rate sent more than it carries.

use std::time::Duration;

use crate::link::congestion::params::{CLEAR_QUEUE_S, CLEAR_ROUNDS};
use crate::time::Instant;

/// What may have lost datagrams since it was last asked.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::link::congestion) struct LossOrigin {
    /// The longest queue since it was last asked for.
    queue_s_max: f64,
    /// What was sent up to then may have been lost because it was to find out what the link
    /// carries.
    pushed_until: Instant,
}

impl LossOrigin {
    pub(in crate::link::congestion) const fn on_queue(&mut self, queue_s: f64) {
        self.queue_s_max = self.queue_s_max.max(queue_s);
    }

    /// What is sent up to now may be more than the link carries.
    pub(in crate::link::congestion) const fn on_push(&mut self, now: Instant) {
        self.pushed_until = now;
    }

    /// Whether what was sent from `from` on was lost by the link itself, if it was lost. `queue_s`:
    /// the queue now, where the next stretch begins.
    pub(in crate::link::congestion) fn take_own(
        &mut self,
        from: Instant,
        queue_s: f64,
        rtt_min: Duration,
    ) -> bool {
        let limit = CLEAR_QUEUE_S.max(rtt_min.as_secs_f64() / CLEAR_ROUNDS);
        std::mem::replace(&mut self.queue_s_max, queue_s) <= limit && self.pushed_until <= from
    }
}
