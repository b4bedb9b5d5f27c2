//! Figures of a session, for status and logs.

use super::Session;
use crate::link::Link;
use crate::stats::{RecoveryStats, SessionStats};
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
            copies: self.counters.copies,
            recovery: self.recovery_stats(),
            fec_sent: self.protection.sent,
            fec_recovered: self.protection.recovered,
            fec_refused: self.protection.refused,
            packets_in: self.counters.packets_in,
            packets_out: self.counters.packets_out,
            bytes_out: self.counters.bytes_out,
            discards: self.counters.discards.clone(),
        }
    }

    fn recovery_stats(&self) -> RecoveryStats {
        let mut stats = self.recovery.stats();
        for counts in self.links.iter().map(Link::resend_counts) {
            stats.recovered += counts.recovered;
            stats.spurious += counts.spurious;
        }
        stats.lost = self.reorder.stats().lost;
        stats
    }
}
