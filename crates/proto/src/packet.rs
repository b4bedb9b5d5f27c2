//! What goes in and out of the state machine: inner packets, datagrams, batches to send.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;

use bytes::{Bytes, BytesMut};

use crate::wire::Modifiers;

/// One inner IP packet, reference counted: the same memory serves the queue, the sender and whoever keeps it
/// for sending again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketBuf(Bytes);

impl PacketBuf {
    /// The packet as shared bytes.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<Bytes> for PacketBuf {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Deref for PacketBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for PacketBuf {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// One packet as a data frame says it, whichever link it goes over.
#[derive(Debug, Clone)]
pub(crate) struct DataFrame {
    pub(crate) seq_num: u64,
    pub(crate) modifiers: Modifiers,
    pub(crate) packet: PacketBuf,
}

#[cfg(test)]
impl DataFrame {
    /// One of zeros.
    pub(crate) fn zeros(seq_num: u64, bytes: usize) -> Self {
        Self { seq_num, modifiers: Modifiers::NONE, packet: PacketBuf(Bytes::from(vec![0; bytes])) }
    }
}

/// Names a link inside one session; the index of its `[[link]]` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u8);

impl LinkId {
    /// The link's place in per-link tables.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Names one of the driver's sockets: on a client the link's own, on a server one of its listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u8);

impl SocketId {
    /// The socket's place in the driver's table.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a datagram came from or goes to: a socket and the peer's address seen on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The driver's socket.
    pub socket: SocketId,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Our address that the peer talks to, where the driver knows it: answers must leave from it.
    pub local: Option<IpAddr>,
}

/// One received UDP datagram; `data` is its payload, owned so that it can be opened in place and handed on.
#[derive(Debug)]
pub struct Datagram {
    /// Socket and peer.
    pub path: Path,
    /// The UDP payload.
    pub data: BytesMut,
}

/// What to send: `size` bytes were appended to the buffer given to `poll_transmit`, to be sent on `path` as
/// datagrams of `segment_size` bytes, the last one possibly shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// The link that this goes over (for the driver's counters).
    pub link: LinkId,
    /// Socket and peer.
    pub path: Path,
    /// Bytes appended to the buffer.
    pub size: usize,
    /// Bytes of each datagram but the last.
    pub segment_size: usize,
}
