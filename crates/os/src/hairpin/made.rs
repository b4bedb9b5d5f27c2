//! Packets that the hairpin makes itself: whole ones, with complete checksums.
//!
//! Sources: RFC 791, RFC 8200, RFC 9293 §3.1, RFC 792.

use bytes::BytesMut;

use super::segment::{TCP, TCP_CHECKSUM_AT, Tuple};
use crate::checksum::{fold, put, short, sum_bytes, transport_checksum};
use crate::tun::Inbound;

const ICMP: u8 = 1;
/// A TCP header without options.
const TCP_BYTES: usize = 20;
/// RFC 1700, "IP parameters": the recommended default.
const HOPS: u8 = 64;
/// The window of a segment that nothing follows. Chosen: any that is not closed.
const WINDOW: u16 = 1_024;

/// A segment without options or payload, with these sequence and acknowledgement numbers.
pub(crate) fn bare_segment(
    is_ipv6: bool,
    tuple: &Tuple,
    (sequence, acknowledged): (u32, u32),
    flags: u8,
) -> Inbound {
    let mut packet = ip_header(is_ipv6, TCP, TCP_BYTES, tuple.source, tuple.destination);
    let start = packet.len();
    packet.extend_from_slice(&tuple.source_port.to_be_bytes());
    packet.extend_from_slice(&tuple.destination_port.to_be_bytes());
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&acknowledged.to_be_bytes());
    packet.extend_from_slice(&[5 << 4, flags]);
    packet.extend_from_slice(&WINDOW.to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    finish(packet, start, start + TCP_CHECKSUM_AT, TCP)
}

/// The IP header of `length` bytes of `protocol`.
pub(crate) fn ip_header(
    is_ipv6: bool,
    protocol: u8,
    length: usize,
    from: [u8; 16],
    to: [u8; 16],
) -> BytesMut {
    let mut packet = BytesMut::with_capacity(40 + length);
    if is_ipv6 {
        packet.extend_from_slice(&[0x60, 0, 0, 0]);
        packet.extend_from_slice(&short(length).to_be_bytes());
        packet.extend_from_slice(&[protocol, HOPS]);
        packet.extend_from_slice(&from);
        packet.extend_from_slice(&to);
        return packet;
    }
    packet.extend_from_slice(&[0x45, 0]);
    packet.extend_from_slice(&short(20 + length).to_be_bytes());
    // It is not to be fragmented, and so needs no identification (RFC 6864 §4.1).
    packet.extend_from_slice(&[0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
    packet.extend_from_slice(from.get(..4).unwrap_or_default());
    packet.extend_from_slice(to.get(..4).unwrap_or_default());
    let sum = !fold(sum_bytes(&packet));
    put(&mut packet, 10, &sum.to_be_bytes());
    packet
}

/// Fills in the checksum at `at` of what begins at `start`.
pub(crate) fn finish(mut packet: BytesMut, start: usize, at: usize, protocol: u8) -> Inbound {
    let sum = if protocol == ICMP {
        // RFC 792: without a pseudo header.
        !fold(sum_bytes(packet.get(start..).unwrap_or_default()))
    } else {
        transport_checksum(&packet, start, protocol)
    };
    put(&mut packet, at, &sum.to_be_bytes());
    Inbound { bytes: packet, is_partial: false, follows: false }
}
