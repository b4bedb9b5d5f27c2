//! Counts of one session that belong to no part.

use crate::discard::{Discard, DiscardCounts};

/// Inner packets, and what was thrown away.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    /// Inner packets taken from TUN while connected.
    pub(super) packets_in: u64,
    /// Inner packets given to TUN.
    pub(super) packets_out: u64,
    /// Bytes of the inner packets given to TUN.
    pub(super) bytes_out: u64,
    /// Links looked at because one of them changed.
    pub(super) touched: u64,
    /// Packets and datagrams thrown away, by reason.
    pub(super) discards: DiscardCounts,
}

impl Counters {
    /// An inner packet of `bytes` is given to TUN.
    pub(super) const fn on_packet_out(&mut self, bytes: usize) {
        self.packets_out += 1;
        self.bytes_out += bytes as u64;
    }

    /// Counts an error.
    pub(super) fn counted<T>(&mut self, result: Result<T, Discard>) -> Result<T, Discard> {
        result.inspect_err(|reason| self.discards.count(*reason))
    }
}
