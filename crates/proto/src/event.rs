//! What happened, for logs, and what a driver's sockets tell a state machine.

use std::net::SocketAddr;
use std::time::Duration;

use crate::handshake::Refusal;
use crate::link::ControlChange;
use crate::packet::{LinkId, Path};
use crate::view::{LinkState, StateCause};
use crate::wire::control::CloseReason;

/// A change that is worth a log line.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The first link became usable.
    Connected,
    /// The last usable link failed.
    Disconnected,
    /// A link changed its state.
    LinkState {
        /// The link.
        link: LinkId,
        /// Its state before.
        from: LinkState,
        /// Its state now.
        to: LinkState,
        /// Why.
        why: StateChange,
    },
    /// The peer sends from another address on a link. On a sealed link that address has answered.
    PathChanged {
        /// The link.
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
    /// The client's next key has taken the place of its present one: the server knows no other.
    KeyReplaced,
    /// The server refused the client's next key. The present one serves on.
    KeyRefused(Refusal),
    /// The client uses another server.
    ServerChanged {
        /// The server used before, as an index into the configured list.
        from: usize,
        /// The server used now.
        to: usize,
    },
    /// The path MTU of a link was found, or changed.
    LinkMtu {
        /// The link.
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
    /// A link sends over another number of UDP flows, as it was found to pay.
    FlowsChanged {
        /// Which.
        link: LinkId,
        /// How many before.
        from: u8,
        /// How many now.
        to: u8,
    },
    /// A server's client retired a link.
    LinkRetired {
        /// Which.
        link: LinkId,
    },
    /// The tunnel's MTU should be this: every link in use carries it, except those that are far too
    /// small.
    TunnelMtu(u16),
    /// The server leased inner addresses to the client, or changed them.
    Leased,
}

/// Why a link changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateChange {
    /// The cause.
    pub cause: StateCause,
    /// How long an answer had been missing by then.
    pub silent: Duration,
    /// Packets that were under way on the link, and are sent again.
    pub resent: usize,
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
    /// The socket was replaced by one with another port of its own, because its link was down.
    Replaced,
}
