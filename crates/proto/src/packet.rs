//! What goes in and out of the state machine: inner packets, datagrams, batches to send.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::inner::checksum;
use crate::time::Instant;
use crate::wire::Modifiers;

/// One inner IP packet, reference counted: the same memory serves the queue, the sender and whoever keeps it
/// for sending again.
///
/// Its TCP or UDP checksum may be *partial*, as the kernel calls it: the field is of no use, and whoever hands the packet to somebody who
/// looks at it computes it. What is sealed need not be summed up by each end as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketBuf {
    bytes: Bytes,
    is_partial: bool,
}

impl PacketBuf {
    /// A packet of TCP or UDP, not a fragment, whose checksum is yet to be computed.
    pub const fn partial(bytes: Bytes) -> Self {
        Self { bytes, is_partial: true }
    }

    /// Whether its checksum is yet to be computed.
    pub const fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// The packet with its checksum. One that is not partial is given back untouched.
    pub fn completed(self) -> Self {
        if self.is_partial { Self { is_partial: false, ..self.edit(checksum::complete) } } else { self }
    }

    /// The packet after `change`; copied first when others hold its memory too.
    pub(crate) fn edit(self, change: impl FnOnce(&mut [u8])) -> Self {
        let shared = self.bytes;
        let mut bytes = shared.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        change(&mut bytes);
        Self { bytes: bytes.freeze(), is_partial: self.is_partial }
    }
}

/// One whose checksum is as it is.
impl From<Bytes> for PacketBuf {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, is_partial: false }
    }
}

impl Deref for PacketBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for PacketBuf {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
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
        Self { seq_num, modifiers: Modifiers::NONE, packet: PacketBuf::from(Bytes::from(vec![0; bytes])) }
    }
}

/// What a kept packet takes beside its bytes: the packet's own record and its place in a queue.
const KEEPING_BYTES: usize = 128;

/// A packet that was sent, for as long as it may be sent again.
#[derive(Debug, Clone)]
pub struct KeptPacket {
    data: DataFrame,
    /// When it was sent first, and the one-way delay of the link that it took.
    first_at: Instant,
    delay_us: i64,
    tries: u8,
}

impl KeptPacket {
    /// A packet that goes out for the first time now, over a link of this one-way delay (µs, with
    /// the offset common to all links).
    pub(crate) const fn new(data: DataFrame, delay_us: i64, now: Instant) -> Self {
        Self { data, first_at: now, delay_us, tries: 0 }
    }

    /// The packet with its number.
    pub(crate) const fn data(&self) -> &DataFrame {
        &self.data
    }

    /// When its first transmission arrives, as µs from now with the offset common to all links.
    pub(crate) fn first_arrival_us(&self, now: Instant) -> i64 {
        let ago = now.saturating_since(self.first_at).as_micros();
        self.delay_us.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX))
    }

    /// How often it was sent again.
    pub(crate) const fn tries(&self) -> u8 {
        self.tries
    }

    /// It is sent again.
    pub(crate) const fn on_try(&mut self) {
        self.tries += 1;
    }

    /// Memory that it takes, bytes.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.data.packet.len() + KEEPING_BYTES
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

/// Some of the driver's sockets. One whose number is not below 32 is never among them: no side has more links or listeners.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SocketSet(u32);

impl SocketSet {
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn contains(self, socket: SocketId) -> bool {
        self.0 & Self::bit(socket) != 0
    }

    /// Adds a socket, or takes it away.
    pub(crate) fn set(&mut self, socket: SocketId, is_in: bool) {
        let bit = Self::bit(socket);
        self.0 = if is_in { self.0 | bit } else { self.0 & !bit };
    }

    fn bit(socket: SocketId) -> u32 {
        1_u32.checked_shl(socket.0.into()).unwrap_or(0)
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
    /// How long ago it reached this host, where the driver knows it: what it waited for a busy process is no delay of its link.
    pub waited: Duration,
    /// It bears a congestion mark (CE).
    pub is_marked: bool,
}

impl Datagram {
    /// One that has just come.
    pub const fn new(path: Path, data: BytesMut) -> Self {
        Self { path, data, waited: Duration::ZERO, is_marked: false }
    }
}

/// What one GSO send can hold: the largest payload of a UDP datagram over IPv4.
pub(crate) const BATCH_BYTES_MAX: usize = 65_507;

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
    /// Routers on the way may mark them instead of dropping them (ECT(0), RFC 3168).
    pub is_ect: bool,
}

impl Transmit {
    /// Datagrams that routers may not mark.
    pub const fn new(link: LinkId, path: Path, size: usize, segment_size: usize) -> Self {
        Self { link, path, size, segment_size, is_ect: false }
    }
}
