//! Figures of a session, for status and logs.

use super::Session;
use crate::stats::SessionStats;
use crate::time::Instant;

impl Session {
    /// The figures as of `now`.
    pub fn stats(&self, now: Instant) -> SessionStats {
        let reorder = self.reorder.stats();
        SessionStats {
            connected: self.connected,
            links: self.links.iter().map(|link| link.stats(now)).collect(),
            flows_active: self.queue.flows_active(),
            flows_realtime: self.classes.realtime_flows(now),
            queue_bytes: self.queue.bytes(),
            queue_delay: self.queue.oldest_wait(now),
            reorder_held: reorder.held,
            reorder_held_bytes: reorder.held_bytes,
            reorder_held_max: reorder.held_max,
            reorder_timeouts: reorder.timeouts,
            released_late: reorder.released_late,
            duplicates: self.counters.duplicates,
            packets_in: self.counters.packets_in,
            packets_out: self.counters.packets_out,
            bytes_out: self.counters.bytes_out,
            discards: self.counters.discards.clone(),
        }
    }
}
