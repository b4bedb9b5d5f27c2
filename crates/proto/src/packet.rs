//! The inputs and outputs of the state machine: inner packets, datagrams, batches to send.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::modifiers::Modifiers;
use crate::time::Instant;

/// One inner IP packet, reference counted: the queue, the sender and the store of packets that may
/// be sent again share one memory.
///
/// The packet's TCP or UDP checksum may be *partial* (the kernel's term): the field holds no
/// checksum yet. It is computed before the packet leaves to a receiver that checks it. A sealed
/// packet can stay partial on its way, so that its bytes are not summed up at both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketBuf {
    bytes: Bytes,
    is_partial: bool,
}

impl PacketBuf {
    /// A TCP or UDP packet, not a fragment, whose checksum is not computed yet.
    pub const fn partial(bytes: Bytes) -> Self {
        Self { bytes, is_partial: true }
    }

    /// Whether the checksum is not computed yet.
    pub const fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// The packet with its checksum, written by `complete`; unchanged if it is not partial.
    pub(crate) fn completed_by(self, complete: impl FnOnce(&mut [u8])) -> Self {
        if self.is_partial { Self { is_partial: false, ..self.edit(complete) } } else { self }
    }

    /// The packet after `change`. The bytes are copied first if another owner shares them.
    pub(crate) fn edit(self, change: impl FnOnce(&mut [u8])) -> Self {
        let shared = self.bytes;
        let mut bytes = shared.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        change(&mut bytes);
        Self { bytes: bytes.freeze(), is_partial: self.is_partial }
    }
}

/// A packet whose checksum is final.
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

/// A packet with the header fields of its data frame. These do not depend on the link.
#[derive(Debug, Clone)]
pub(crate) struct DataFrame {
    pub(crate) seq_num: u64,
    pub(crate) modifiers: Modifiers,
    pub(crate) packet: PacketBuf,
}

#[cfg(test)]
impl DataFrame {
    /// A packet of zeros.
    pub(crate) fn zeros(seq_num: u64, bytes: usize) -> Self {
        Self { seq_num, modifiers: Modifiers::NONE, packet: PacketBuf::from(Bytes::from(vec![0; bytes])) }
    }
}

/// Memory of a kept packet beside its bytes: its own record and its place in a queue, in bytes.
/// Chosen: above the record's size, with room for a queue's spare places.
const KEEPING_BYTES: usize = 128;

/// A packet that was sent, for as long as it may be sent again.
#[derive(Debug, Clone)]
pub struct KeptPacket {
    data: DataFrame,
    /// The time of the first transmission, and the one-way delay of the link that carried it.
    first_at: Instant,
    delay_us: i64,
    tries: u8,
}

impl KeptPacket {
    /// A packet that is sent for the first time now, over a link with this one-way delay (µs,
    /// including the clock offset common to all links).
    pub(crate) const fn new(data: DataFrame, delay_us: i64, now: Instant) -> Self {
        Self { data, first_at: now, delay_us, tries: 0 }
    }

    /// The packet with its sequence number.
    pub(crate) const fn data(&self) -> &DataFrame {
        &self.data
    }

    /// Expected arrival of the first transmission, in µs from now, including the clock offset
    /// common to all links.
    pub(crate) fn first_arrival_us(&self, now: Instant) -> i64 {
        let ago = now.saturating_since(self.first_at).as_micros();
        self.delay_us.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX))
    }

    /// How many times the packet was sent again.
    pub(crate) const fn tries(&self) -> u8 {
        self.tries
    }

    /// Counts one more transmission.
    pub(crate) const fn on_try(&mut self) {
        self.tries += 1;
    }

    /// Memory that the kept packet takes, in bytes.
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

/// Names one of the driver's sockets: on a client the link's own socket, on a server one of its
/// listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u8);

impl SocketId {
    /// The socket's place in the driver's table.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of the driver's sockets with numbers below 32; a socket with a higher number is never in
/// it. No side has more links or listeners.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SocketSet(u32);

impl SocketSet {
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn contains(self, socket: SocketId) -> bool {
        self.0 & Self::bit(socket) != 0
    }

    /// Adds the socket, or removes it.
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
    /// The local address that the peer sends to, where the driver knows it: answers must leave from
    /// it.
    pub local: Option<IpAddr>,
}

/// One received UDP datagram. It owns its payload, so that the payload can be opened in place and
/// passed on.
#[derive(Debug)]
pub struct Datagram {
    /// Socket and peer.
    pub path: Path,
    /// The UDP payload.
    pub data: BytesMut,
    /// Time since the datagram reached this host, where the driver knows it. Waiting for a busy
    /// process does not count as delay of the link.
    pub waited: Duration,
    /// Whether the datagram carries a congestion mark (CE).
    pub is_marked: bool,
}

impl Datagram {
    /// A datagram that has just arrived.
    pub const fn new(path: Path, data: BytesMut) -> Self {
        Self { path, data, waited: Duration::ZERO, is_marked: false }
    }
}

/// The most bytes of one GSO send: the largest payload of a UDP datagram over IPv4 (65,535 bytes
/// less 28 bytes of headers).
pub(crate) const BATCH_BYTES_MAX: usize = 65_507;

/// A batch of datagrams: `size` bytes were appended to the buffer given to `poll_transmit`. They
/// are sent on `path` as datagrams of `segment_size` bytes; the last one may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// The link that carries the batch, for the driver's counters.
    pub link: LinkId,
    /// Socket and peer.
    pub path: Path,
    /// Bytes appended to the buffer.
    pub size: usize,
    /// Bytes of each datagram but the last.
    pub segment_size: usize,
    /// Whether routers may mark the datagrams instead of dropping them (ECT(0), RFC 3168).
    pub is_ect: bool,
}

impl Transmit {
    /// A batch that routers may not mark.
    pub const fn new(link: LinkId, path: Path, size: usize, segment_size: usize) -> Self {
        Self { link, path, size, segment_size, is_ect: false }
    }
}
