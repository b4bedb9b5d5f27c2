//! The inputs and outputs of the state machine: inner packets, datagrams, batches to send.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::limits::UDP_FLOWS_MAX;
use crate::modifiers::Modifiers;
use crate::position::{Position, StreamId};
use crate::time::Instant;

/// One inner IP packet, reference counted: the queue, the sender and the store of packets that may
/// be sent again share one memory. They handle pieces of streams in the same way.
///
/// The packet's TCP or UDP checksum may be *partial* (the kernel's term): the field holds no
/// checksum yet. It is computed before the packet leaves to a receiver that checks it. A sealed
/// packet can stay partial on its way, so that its bytes are not summed up at both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketBuf {
    bytes: Bytes,
    form: Form,
}

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A packet with its checksum.
    Complete,
    /// A packet without it.
    Partial,
    /// Bytes of a stream.
    Stream(Position),
    /// A message about a stream.
    Message(StreamId),
}

impl PacketBuf {
    /// A TCP or UDP packet, not a fragment, whose checksum is not computed yet.
    pub const fn partial(bytes: Bytes) -> Self {
        Self { bytes, form: Form::Partial }
    }

    /// Bytes of a stream, of which the first stands at `at`.
    pub(crate) const fn of_stream(at: Position, bytes: Bytes) -> Self {
        Self { bytes, form: Form::Stream(at) }
    }

    /// The payload of a control frame about a stream.
    pub(crate) const fn message(stream: StreamId, bytes: Bytes) -> Self {
        Self { bytes, form: Form::Message(stream) }
    }

    /// Whether the checksum is not computed yet.
    pub const fn is_partial(&self) -> bool {
        matches!(self.form, Form::Partial)
    }

    /// The stream that this is a piece of, or a message about; `None`: it is a packet.
    pub(crate) const fn stream(&self) -> Option<StreamId> {
        match self.form {
            Form::Complete | Form::Partial => None,
            Form::Stream(at) => Some(at.stream()),
            Form::Message(stream) => Some(stream),
        }
    }

    /// Where a piece of a stream stands; `None`: it is none.
    pub(crate) const fn position(&self) -> Option<Position> {
        match self.form {
            Form::Stream(at) => Some(at),
            Form::Complete | Form::Partial | Form::Message(_) => None,
        }
    }

    /// Whether it goes as a control frame.
    pub(crate) const fn is_message(&self) -> bool {
        matches!(self.form, Form::Message(_))
    }

    /// Takes the first `bytes` of a piece of a stream off; `None`: it has no more, or is no piece.
    pub(crate) fn split_to(&mut self, bytes: usize) -> Option<Self> {
        let at = self.position().filter(|_| bytes < self.bytes.len())?;
        let first = Self { bytes: self.bytes.split_to(bytes), form: self.form };
        self.form = Form::Stream(Position::new(at.stream(), at.offset() + bytes as u64));
        Some(first)
    }

    /// The packet with its checksum, written by `complete`; unchanged if it is not partial.
    pub(crate) fn completed_by(self, complete: impl FnOnce(&mut [u8])) -> Self {
        if self.is_partial() { Self { form: Form::Complete, ..self.edit(complete) } } else { self }
    }

    /// The packet after `change`. The bytes are copied first if another owner shares them.
    pub(crate) fn edit(self, change: impl FnOnce(&mut [u8])) -> Self {
        let shared = self.bytes;
        let mut bytes = shared.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        change(&mut bytes);
        Self { bytes: bytes.freeze(), form: self.form }
    }
}

/// A packet whose checksum is final.
impl From<Bytes> for PacketBuf {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, form: Form::Complete }
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

    /// The stream that this is a piece of, or a message about; `None`: it is a packet.
    pub(crate) const fn stream(&self) -> Option<StreamId> {
        self.data.packet.stream()
    }

    /// Takes the first `bytes` of a piece of a stream off, to be sent again apart.
    pub(crate) fn split_to(&mut self, bytes: usize) -> Option<Self> {
        let packet = self.data.packet.split_to(bytes)?;
        let first = Self { data: DataFrame { packet, ..self.data.clone() }, ..self.clone() };
        self.data.seq_num += bytes as u64;
        Some(first)
    }

    /// Counts one more transmission.
    pub(crate) const fn on_try(&mut self) {
        self.tries = self.tries.saturating_add(1);
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

/// Names one of the UDP flows of a link: a source port of the client, and so a 5-tuple. A link has
/// flow 0, and up to seven more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UdpFlow(u8);

impl UdpFlow {
    /// The one that each link has.
    pub const FIRST: Self = Self(0);

    /// The flow with this number; `None`: no link has so many.
    pub const fn new(number: u8) -> Option<Self> {
        if number < UDP_FLOWS_MAX { Some(Self(number)) } else { None }
    }

    /// Its number, below [`UDP_FLOWS_MAX`].
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// Names one of the driver's sockets: on a client one of a link's own, on a server one of its
/// listeners. The lower five bits of a client's are the link, and the upper three the UDP flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u8);

impl SocketId {
    /// A client's socket for a UDP flow of a link, whose number is below 32.
    pub const fn of(link: LinkId, flow: UdpFlow) -> Self {
        Self((link.0 % LINKS_MAX) | (flow.0 << FLOW_SHIFT))
    }

    /// The link of a client's socket.
    pub const fn link(self) -> LinkId {
        LinkId(self.0 % LINKS_MAX)
    }

    /// The UDP flow of a client's socket.
    pub const fn flow(self) -> UdpFlow {
        UdpFlow(self.0 >> FLOW_SHIFT)
    }

    /// The socket's place in the driver's table.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How far a flow's number is above a link's in one byte, and how many links that leaves.
const FLOW_SHIFT: u8 = 5;
const LINKS_MAX: u8 = 1 << FLOW_SHIFT;

/// A set of the driver's sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SocketSet([u64; 4]);

impl SocketSet {
    pub(crate) fn is_empty(self) -> bool {
        self.0 == [0; 4]
    }

    pub(crate) fn contains(self, socket: SocketId) -> bool {
        let word = self.0.get(usize::from(socket.0 / 64));
        word.is_some_and(|word| word & Self::bit(socket) != 0)
    }

    /// Adds the socket, or removes it.
    pub(crate) fn set(&mut self, socket: SocketId, is_in: bool) {
        let bit = Self::bit(socket);
        if let Some(word) = self.0.get_mut(usize::from(socket.0 / 64)) {
            *word = if is_in { *word | bit } else { *word & !bit };
        }
    }

    const fn bit(socket: SocketId) -> u64 {
        1 << (socket.0 % 64)
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

/// Where a datagram of a link goes, and which of the link's UDP flows that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) path: Path,
    pub(crate) flow: UdpFlow,
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
