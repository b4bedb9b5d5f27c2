//! What a state machine waits for: the reason of a timeout, for logs and for checks of busy loops.

use std::fmt;

/// Why [`crate::StateMachine::handle_timeout`] is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Timer {
    /// A link's heartbeat is due.
    Heartbeat,
    /// A link has control frames to send.
    Control,
    /// Feedback about what a link received is due.
    Feedback,
    /// Feedback about one link is to go over another link.
    IndirectFeedback,
    /// A link's state may change by time alone.
    LinkState,
    /// The last packets that a link sent are overdue.
    Resend,
    /// A probe of a path's MTU, or its answer, is due.
    MtuProbe,
    /// A client's next handshake is due.
    Handshake,
    /// Keys expire.
    Keys,
    /// Data waits for a link's credit.
    Pacing,
    /// A gap in front of received packets is given up.
    Reorder,
    /// Links are to be checked for silence.
    Silence,
    /// A client is to choose among its servers again.
    Servers,
    /// A server's session is due.
    Session,
}

impl Timer {
    /// The word that logs print.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Control => "control",
            Self::Feedback => "feedback",
            Self::IndirectFeedback => "indirect feedback",
            Self::LinkState => "link state",
            Self::Resend => "resend",
            Self::MtuProbe => "MTU probe",
            Self::Handshake => "handshake",
            Self::Keys => "keys",
            Self::Pacing => "pacing",
            Self::Reorder => "reorder",
            Self::Silence => "silence",
            Self::Servers => "servers",
            Self::Session => "session",
        }
    }
}

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
