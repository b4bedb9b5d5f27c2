//! The classes of packets.

/// The urgency of a flow. Rules name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Calls and games.
    Realtime,
    /// A user waits for the answer.
    Interactive,
    /// Never urgent.
    Bulk,
}
