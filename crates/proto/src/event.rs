//! What happened, for whoever logs it, and what the world tells a session.

use crate::handshake::Refusal;
use crate::link::ControlChange;
use crate::packet::{LinkId, Path};
use crate::view::LinkState;
use crate::wire::control::CloseReason;

/// Something worth a log line.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The first link became usable.
    Connected,
    /// The last usable link went.
    Disconnected,
    /// A link changed its state.
    LinkState {
        /// Which.
        link: LinkId,
        /// From.
        from: LinkState,
        /// To.
        to: LinkState,
    },
    /// The peer speaks from another address on a link.
    PathChanged {
        /// Which.
        link: LinkId,
        /// The new path.
        path: Path,
    },
    /// The peer was restarted; both directions start anew.
    PeerRestarted,
    /// The peer ended the session.
    Closed(CloseReason),
    /// The server takes this client not.
    Refused(Refusal),
    /// Another server is used.
    ServerChanged {
        /// The one used before, by its place in the list.
        from: usize,
        /// The one used now.
        to: usize,
    },
    /// What a link carries is known, or another size than before.
    LinkMtu {
        /// Which.
        link: LinkId,
        /// The largest IP packet that passes, in bytes.
        bytes: u16,
    },
    /// A link's congestion control changed its phase, or what it takes the link to carry by more than
    /// an eighth.
    ControlChanged {
        /// Which.
        link: LinkId,
        /// From, to, and why.
        change: ControlChange,
    },
    /// The tunnel's MTU should be this: every link in use carries it, but for those that are far too small.
    TunnelMtu(u16),
    /// The server leased addresses, or others than before.
    Leased,
}

/// What the driver knows about a link beyond what arrives on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEvent {
    /// The interface lost its carrier or vanished.
    CarrierLost,
    /// The system refused to send on it: no route, no device, not permitted.
    SendFailed,
    /// The interface is there (again); `path` replaces the old one where it changed.
    CarrierFound,
}
