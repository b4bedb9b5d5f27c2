//! What happened, for logs, and what a driver's sockets tell a state machine.

use std::net::SocketAddr;

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
    /// The peer sends from another address on a link.
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
    /// The server refused this client.
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
    /// A link's congestion control changed its phase, or what it takes the link to carry by more
    /// than an eighth.
    ControlChanged {
        /// Which.
        link: LinkId,
        /// From, to, and why.
        change: ControlChange,
    },
    /// The tunnel's MTU should be this: every link in use carries it, except those that are far too
    /// small.
    TunnelMtu(u16),
    /// The server leased addresses, or others than before.
    Leased,
}

/// What a driver's socket tells besides datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketEvent {
    /// The send buffer is full. Data does not go over a full socket; heartbeats and control frames
    /// that go there all the same are kept by the driver, or dropped and counted.
    Full,
    /// The send buffer has room again.
    Writable,
    /// The kernel refused a datagram as larger than the interface carries. The driver counted it.
    TooBig {
        /// The datagram's destination.
        remote: SocketAddr,
        /// UDP payload of the datagram, in bytes.
        bytes: usize,
    },
    /// The kernel refused to send: no route, no device, or not permitted.
    NoRoute,
    /// The interface lost its carrier or vanished.
    CarrierLost,
    /// The interface is there, for the first time or again.
    CarrierFound,
}
