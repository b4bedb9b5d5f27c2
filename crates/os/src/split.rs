//! Splits a super-packet of up to 64 KiB from a TUN device into segments, as a network card would.
//!
//! Checksums stay *partial*, as in the kernel: the field is zero, and the checksum is computed
//! before a receiver that checks it gets the packet ([`crate::coalesce`] lets the receiving kernel
//! do so, if at all). For packets that the two ends might understand differently (IP options,
//! extension headers) they are computed here.
//!
//! Contract: total on any bytes. Each segment is a complete packet; the segments' payloads together
//! are the super-packet's. IPv4 identifications count up; FIN and PSH are on the last segment only,
//! CWR on the first only.
//!
//! Sources: virtio 1.2 §5.1.6; net/ipv4/tcp_offload.c `tcp_gso_segment`; net/ipv4/udp_offload.c
//! `__udp_gso_segment`; RFC 3168 §6.1.2.

pub(crate) mod layout;

use std::ops::Range;

use tun_rs::VirtioNetHdr;

use crate::checksum::{fold, put, read_u16, short, sum_bytes, transport_checksum};
use crate::coalesce::is_plain;
use crate::virtio::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CHECKSUM};

const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_HEADER_MIN: usize = 20;
const UDP_HEADER_BYTES: usize = 8;
const TCP_FLAGS_AT: usize = 13;
const TCP_FIN_PSH: u8 = 0x09;
const TCP_CWR: u8 = 0x80;

/// The packet read is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a malformed packet from the TUN device: {0}")]
pub(crate) struct Malformed(&'static str);

impl Malformed {
    pub(crate) const CUT: Self = Self("it is cut");
    pub(crate) const LARGE: Self = Self("it is larger than the device says");
}

/// The plan for splitting a packet that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Bytes of IP and transport header; the whole packet if it is not split.
    header_bytes: usize,
    /// Payload of each segment but the last, in bytes; 0: it is not split.
    segment_bytes: usize,
    /// Offset of the transport header, and the protocol; `None` if no checksum is to be computed.
    transport: Option<(usize, u8)>,
    checksum_at: usize,
    /// Checksums stay partial.
    pub(crate) is_partial: bool,
}

impl Plan {
    /// Reads the header that came with a packet of `total` bytes, which begins with `packet`: at
    /// least its headers.
    pub(crate) fn of(header: &VirtioNetHdr, packet: &[u8], total: usize) -> Result<Self, Malformed> {
        let start = usize::from(header.csum_start);
        let checksum_at = start + usize::from(header.csum_offset);
        let kind = header.gso_type & !GSO_ECN;
        let needs_checksum = header.flags & NEEDS_CHECKSUM != 0;
        if kind == GSO_NONE && !needs_checksum {
            return Ok(Self {
                header_bytes: total,
                segment_bytes: 0,
                transport: None,
                checksum_at,
                is_partial: false,
            });
        }
        if checksum_at + 2 > packet.len() || start < 20 {
            return Err(Malformed("its checksum is outside"));
        }
        if kind == GSO_NONE {
            let is_partial = is_plain(packet, start, checksum_at);
            // Protocol 0: the field already contains the sum of the pseudo header.
            let transport = Some((start, 0));
            return Ok(Self {
                header_bytes: packet.len(),
                segment_bytes: 0,
                transport,
                checksum_at,
                is_partial,
            });
        }
        let ipv6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
        let protocol = match kind {
            GSO_TCPV4 if !ipv6 => TCP,
            GSO_TCPV6 if ipv6 => TCP,
            GSO_UDP_L4 => UDP,
            _ => return Err(Malformed("an unknown kind of super-packet")),
        };
        if ipv6 && start < 40 {
            return Err(Malformed("its IP header is cut"));
        }
        // For forwarded packets the kernel's length of the headers is an estimate.
        let transport_bytes = if protocol == TCP {
            usize::from(packet.get(start + 12).copied().unwrap_or(0) >> 4) * 4
        } else {
            UDP_HEADER_BYTES
        };
        let (least, expected_at) = if protocol == TCP { (TCP_HEADER_MIN, 16) } else { (UDP_HEADER_BYTES, 6) };
        let header_bytes = start + transport_bytes;
        if transport_bytes < least || header_bytes > packet.len() || header_bytes >= total {
            return Err(Malformed("its transport header is cut"));
        }
        if header.gso_size == 0 || checksum_at != start + expected_at {
            return Err(Malformed("a super-packet without a segment size, or with another checksum"));
        }
        Ok(Self {
            header_bytes,
            segment_bytes: usize::from(header.gso_size),
            transport: Some((start, protocol)),
            checksum_at,
            is_partial: is_plain(packet, start, checksum_at),
        })
    }

    /// The number of packets, and the bytes of the largest, for a packet of `total` bytes.
    pub(crate) fn extent(&self, total: usize) -> (usize, usize) {
        if self.segment_bytes == 0 {
            return (1, total);
        }
        let payload = total.saturating_sub(self.header_bytes);
        (payload.div_ceil(self.segment_bytes), self.header_bytes + payload.min(self.segment_bytes))
    }

    /// Writes packet number `index` to the front of `out`, which has room for the largest. Returns
    /// its length.
    pub(crate) fn cut(&self, packet: &[u8], index: usize, out: &mut [u8]) -> usize {
        if self.segment_bytes == 0 {
            let Some(out) = out.get_mut(..packet.len()) else { return 0 };
            out.copy_from_slice(packet);
            self.finish_lone(out);
            return packet.len();
        }
        let Range { start: from, end } = self.payload(packet, index);
        let (Some(head), Some(payload)) = (packet.get(..self.header_bytes), packet.get(from..end)) else {
            return 0;
        };
        let total = head.len() + payload.len();
        let Some(out) = out.get_mut(..total) else { return 0 };
        put(out, 0, head);
        put(out, head.len(), payload);
        self.finish(index, end == packet.len(), out);
        total
    }

    /// Turns the super-packet's header at the front of `out` into that of packet number `index`,
    /// whose payload already follows it.
    pub(crate) fn finish(&self, index: usize, is_last: bool, out: &mut [u8]) {
        let Some((start, protocol)) = self.transport else { return };
        let total = out.len();
        address(out, start, index);
        if protocol == TCP {
            let skipped = u32::try_from(index * self.segment_bytes).unwrap_or(u32::MAX);
            let first = out.get(start + 4..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
            put(out, start + 4, &u32::from_be_bytes(first).wrapping_add(skipped).to_be_bytes());
            if let Some(flags) = out.get_mut(start + TCP_FLAGS_AT) {
                *flags &= if is_last { u8::MAX } else { !TCP_FIN_PSH };
                *flags &= if index == 0 { u8::MAX } else { !TCP_CWR };
            }
        } else {
            put(out, start + 4, &short(total - start).to_be_bytes());
        }
        put(out, self.checksum_at, &[0, 0]);
        if !self.is_partial {
            let sum = transport_checksum(out, start, protocol);
            put(out, self.checksum_at, &sum.to_be_bytes());
        }
    }

    /// Bytes ahead of the payload, and of the payload of each packet, of a super-packet.
    pub(crate) fn shape(&self) -> Option<(usize, usize)> {
        (self.segment_bytes > 0).then_some((self.header_bytes, self.segment_bytes))
    }

    /// A packet that is not split, in place.
    pub(crate) fn finish_lone(&self, packet: &mut [u8]) {
        let Some((start, _)) = self.transport else { return };
        if self.is_partial {
            put(packet, self.checksum_at, &[0, 0]);
            return;
        }
        // The field holds the sum of the pseudo header.
        let sum = !fold(sum_bytes(packet.get(start..).unwrap_or_default()));
        put(packet, self.checksum_at, &sum.to_be_bytes());
    }

    /// The place of packet number `index`'s payload.
    fn payload(&self, packet: &[u8], index: usize) -> Range<usize> {
        let start = (self.header_bytes + index * self.segment_bytes).min(packet.len());
        start..(start + self.segment_bytes).min(packet.len())
    }
}

/// Makes the IP header, of `header_bytes`, that of segment number `index`.
fn address(packet: &mut [u8], header_bytes: usize, index: usize) {
    let total = packet.len();
    if packet.first().is_some_and(|byte| byte >> 4 == 6) {
        put(packet, 4, &short(total.saturating_sub(40)).to_be_bytes());
        return;
    }
    put(packet, 2, &short(total).to_be_bytes());
    let identification = short(read_u16(packet, 4).unwrap_or(0)).wrapping_add(short(index));
    put(packet, 4, &identification.to_be_bytes());
    put(packet, 10, &[0, 0]);
    let sum = !fold(sum_bytes(packet.get(..header_bytes).unwrap_or_default()));
    put(packet, 10, &sum.to_be_bytes());
}

#[cfg(test)]
mod tests;
