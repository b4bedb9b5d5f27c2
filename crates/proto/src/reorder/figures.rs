//! Figures of the resequencer: totals, and what holds take now.

/// Figures of a [`Resequencer`](super::Resequencer). All but the first two are totals since its
/// creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReorderStats {
    /// Packets held now.
    pub held: usize,
    /// The payload bytes of those packets.
    pub held_bytes: usize,
    /// The most packets ever held.
    pub held_max: usize,
    /// Gaps given up because every usable link had delivered a later packet.
    pub known_losses: u64,
    /// Gaps given up at their deadline.
    pub timeouts: u64,
    /// Gaps given up for lack of memory.
    pub overflows: u64,
    /// Missing packets of the gaps given up. A packet that arrives after that counts here and in
    /// `released_late`.
    pub lost: u64,
    /// Packets delivered after their gap had been given up.
    pub released_late: u64,
    /// Slots that restarted at another place of their sequence.
    pub restarts: u64,
    /// Slots forgotten to make room for others.
    pub evictions: u64,
    /// What was looked at or moved beyond the packet in hand: places, words of memory, links,
    /// slots. It follows the bytes that came in (docs/decisions/0057).
    pub touched: u64,
}

impl std::ops::Add for ReorderStats {
    type Output = Self;

    /// The figures of two resequencers together.
    fn add(self, other: Self) -> Self {
        Self {
            held: self.held + other.held,
            held_bytes: self.held_bytes + other.held_bytes,
            held_max: self.held_max.max(other.held_max),
            known_losses: self.known_losses + other.known_losses,
            timeouts: self.timeouts + other.timeouts,
            overflows: self.overflows + other.overflows,
            lost: self.lost + other.lost,
            released_late: self.released_late + other.released_late,
            restarts: self.restarts + other.restarts,
            evictions: self.evictions + other.evictions,
            touched: self.touched + other.touched,
        }
    }
}

/// The memory and content of holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Load {
    pub(super) packets: usize,
    pub(super) payload_bytes: usize,
    pub(super) memory_bytes: usize,
}

impl Load {
    /// Replaces one part of the sum by another.
    pub(super) fn replace(&mut self, before: Self, after: Self) {
        self.packets = self.packets - before.packets + after.packets;
        self.payload_bytes = self.payload_bytes - before.payload_bytes + after.payload_bytes;
        self.memory_bytes = self.memory_bytes - before.memory_bytes + after.memory_bytes;
    }
}
