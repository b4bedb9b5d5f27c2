//! The input of the congestion control.

use std::time::Duration;

use crate::link::path::ecn::Marked;
use crate::time::Instant;

/// What the peer told of one datagram and all before it.
#[derive(Debug, Clone, Copy)]
pub(in crate::link) struct Observation {
    /// When the newest datagram that arrived was sent.
    pub(in crate::link) sent_at: Instant,
    /// Bytes sent up to then, it included.
    pub(in crate::link) sent: u64,
    /// The pacer's idle time up to then.
    pub(in crate::link) idle: Duration,
    /// Bytes delivered in all, and lost, and in how many rows.
    pub(in crate::link) delivered: u64,
    pub(in crate::link) lost: u64,
    pub(in crate::link) lost_rows: u64,
    /// What came with congestion marks since the last observation.
    pub(in crate::link) marked: Marked,
    /// The least delay since the last observation, µs with an unknown offset, and the size of that
    /// datagram.
    pub(in crate::link) delay_us: i64,
    pub(in crate::link) delay_bytes: u64,
    /// Bytes sent up to now.
    pub(in crate::link) total: u64,
    /// The smallest round trip lately.
    pub(in crate::link) rtt_min: Duration,
}

#[cfg(test)]
impl Observation {
    /// Of a datagram sent at `sent_at`, when `bytes` were; all arrived, over 40 ms there and back.
    pub(super) fn seen(sent_at: Instant, bytes: u64, delay_us: i64) -> Self {
        Self {
            sent_at,
            sent: bytes,
            idle: Duration::ZERO,
            delivered: bytes,
            lost: 0,
            lost_rows: 0,
            marked: Marked::default(),
            delay_us,
            delay_bytes: 1_500,
            total: bytes,
            rtt_min: Duration::from_millis(40),
        }
    }
}
