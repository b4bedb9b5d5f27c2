//! Writes datagrams into the driver's buffer: header, frames, seal, and the link's note that it was
//! sent.

use std::num::NonZeroUsize;

use crate::config::Security;
use crate::link::{Link, Outgoing};
use crate::packet::{BATCH_BYTES_MAX, DataFrame, Destination, KeptPacket, LinkId, Transmit, UdpFlow};
use crate::session::link_table::{LinkTable, may_send};
use crate::session::sealing::{Keyring, SEALING_BYTES, SealedAs};
use crate::time::Instant;
use crate::trace::Tracer;
use crate::wire::{self, FRAME_HEADER_BYTES, Kind};

/// Datagrams of one GSO send. Linux takes at most 64 (`UDP_MAX_SEGMENTS`).
const BATCH_SEGMENTS_MAX: usize = 64;

/// Bytes around a frame's payload.
pub(in crate::session) const fn overhead(security: Security) -> usize {
    match security {
        Security::Plain => FRAME_HEADER_BYTES,
        Security::Sealed => FRAME_HEADER_BYTES + SEALING_BYTES,
    }
}

/// Makes room for what goes ahead of the frames.
pub(super) fn begin_datagram(security: Security, buf: &mut Vec<u8>) {
    if security == Security::Sealed {
        buf.extend_from_slice(&Keyring::HEADER_ROOM);
    }
}

/// Seals the datagram without data that begins at `start` of `buf` for a flow of the link, and
/// notes it as sent.
pub(super) fn finish_control(
    link: &mut Link,
    keyring: &mut Keyring,
    buf: &mut Vec<u8>,
    (start, flow): (usize, UdpFlow),
    now: Instant,
) -> usize {
    let sealed_as = match link.security() {
        Security::Sealed => keyring.seal((link.id(), flow), buf, start, now),
        Security::Plain => None,
    };
    let size = buf.len() - start;
    link.on_sent(size, Outgoing::control(sealed_as.map(SealedAs::name)), now);
    size
}

/// Where datagrams are written to, and what that takes.
#[derive(Debug)]
pub(in crate::session) struct DatagramWriter<'a> {
    pub(in crate::session) buf: &'a mut Vec<u8>,
    pub(in crate::session) links: &'a mut LinkTable,
    pub(in crate::session) keyring: &'a mut Keyring,
    pub(in crate::session) tracer: &'a mut Tracer,
    pub(in crate::session) max_segments: NonZeroUsize,
    pub(in crate::session) now: Instant,
}

impl DatagramWriter<'_> {
    /// Whether there are keys to seal with.
    pub(in crate::session) fn can_seal(&self) -> bool {
        self.keyring.can_seal(self.now)
    }

    /// Where a packet on the link goes to, if the link may send at all.
    pub(in crate::session) fn destination(&self, link: LinkId) -> Option<(Destination, Security)> {
        let link = self.links.get(link).filter(|link| may_send(link, self.keyring.serves()))?;
        let to = link.path().data_destination()?;
        let has_keys = link.security() == Security::Plain || self.can_seal();
        has_keys.then(|| (to, link.security()))
    }

    /// Begins a batch of data on the link.
    pub(in crate::session) fn batch(&self, link: LinkId, to: Destination, security: Security) -> Batch {
        Batch {
            link,
            to,
            security,
            start: self.buf.len(),
            segments_left: self.max_segments.get().min(BATCH_SEGMENTS_MAX),
            segment_size: 0,
        }
    }

    /// Appends one packet to the batch as a datagram, which counts as sent. With the packet: its
    /// sequence number, and what is kept to send it again. Returns the largest packet that may
    /// follow; `None`: the batch is over.
    pub(in crate::session) fn put_data(
        &mut self,
        batch: &mut Batch,
        frame: &DataFrame,
        kept: Option<KeptPacket>,
    ) -> Option<usize> {
        let (link, security) = (batch.link, batch.security);
        let start = self.buf.len();
        begin_datagram(security, self.buf);
        // The queue holds no packet over the MTU, which is a u16, and the link carries the packet.
        let len = u16::try_from(frame.packet.len()).unwrap_or(u16::MAX);
        let kind = if frame.packet.is_message() { Kind::Control } else { Kind::Data };
        wire::put_frame_header(self.buf, frame.seq_num, kind, frame.modifiers, len);
        self.buf.extend_from_slice(&frame.packet);
        let sealed_as = match security {
            Security::Sealed => self.keyring.seal((link, batch.to.flow), self.buf, start, self.now),
            Security::Plain => None,
        };
        let size = self.buf.len() - start;
        let (sealed, flow) = (sealed_as.map(SealedAs::name), Some(batch.to.flow));
        let outgoing = Outgoing { sealed, asks: true, frame: kept, flow };
        self.links.on_data_sent(link, size, outgoing, self.now);
        self.tracer.on_data(batch.link, frame.seq_num, size, self.now);
        batch.add(size).then(|| batch.room(self.buf.len()))
    }
}

/// Datagrams for one link that go out with one GSO send: all but the last have one size.
#[derive(Debug)]
pub(in crate::session) struct Batch {
    link: LinkId,
    security: Security,
    to: Destination,
    start: usize,
    segments_left: usize,
    segment_size: usize,
}

impl Batch {
    /// Whether the batch is over with a packet of `bytes`: only the last datagram may be shorter.
    pub(in crate::session) const fn ends_with(&self, bytes: usize) -> bool {
        self.is_last(bytes + overhead(self.security))
    }

    const fn is_last(&self, size: usize) -> bool {
        size < self.segment_size || self.segments_left <= 1
    }

    /// A datagram of `size` was appended. Whether another one may follow.
    fn add(&mut self, size: usize) -> bool {
        let is_last = self.is_last(size);
        self.segment_size = self.segment_size.max(size);
        self.segments_left -= 1;
        !is_last
    }

    /// The largest packet that may follow, the buffer being `buffered` bytes long.
    fn room(&self, buffered: usize) -> usize {
        let left = BATCH_BYTES_MAX.saturating_sub(buffered - self.start);
        self.segment_size.min(left).saturating_sub(overhead(self.security))
    }

    /// The batch as the driver sends it.
    pub(in crate::session) const fn transmit(&self, buffered: usize) -> Transmit {
        Transmit::new(self.link, self.to.path, buffered - self.start, self.segment_size)
    }
}
