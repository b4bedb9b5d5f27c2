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

impl Class {
    /// The word for configuration, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }
}
