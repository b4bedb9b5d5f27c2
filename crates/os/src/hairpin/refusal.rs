//! The answers to a SYN that is refused: a RST as the destination would have sent it, or an ICMP
//! message as a router on the way would have.
//!
//! Contract: each answer is a whole packet with complete checksums. The source of an ICMP message
//! is the stand-in address: a router of the tunnel, which no reverse-path filter minds, since the
//! tunnel is its route.
//!
//! Sources: RFC 9293 §3.10.7.1 (RST), RFC 792 and RFC 1812 §5.2.7.1 (ICMP), RFC 4443 §3.1 (ICMPv6).

use bytes::BytesMut;

use super::segment::{Segment, Tuple};
use crate::checksum::{fold, put, short, sum_bytes, transport_checksum};
use crate::coalesce::checksum_place;
use crate::tun::Inbound;

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// RFC 9293 §3.1.
const RST_ACK: u8 = 0x14;
/// A TCP header without options.
const RESET_BYTES: usize = 20;
/// RFC 1812 §4.3.2.3: an ICMP error is 576 bytes at most.
const ICMP_QUOTED_MAX: usize = 576 - 28;
/// RFC 4443 §2.4 (c): an ICMPv6 error fits the minimum IPv6 MTU.
const ICMPV6_QUOTED_MAX: usize = 1_280 - 48;
/// RFC 1700, "IP parameters": the recommended default.
const HOPS: u8 = 64;

/// The reason that an ICMP message gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// There is no route to the destination's network.
    Network,
    /// The destination does not answer.
    Host,
    /// The way is administratively prohibited.
    Prohibited,
}

impl Unreachable {
    /// Type and code: RFC 792 and RFC 1812 §5.2.7.1; RFC 4443 §3.1.
    fn kind(self, is_ipv6: bool) -> [u8; 2] {
        match (self, is_ipv6) {
            (Self::Network, false) => [3, 0],
            (Self::Host, false) => [3, 1],
            (Self::Prohibited, false) => [3, 13],
            (Self::Network, true) => [1, 0],
            (Self::Host, true) => [1, 3],
            (Self::Prohibited, true) => [1, 1],
        }
    }
}

/// The RST of the destination of `syn`, whose addresses are `tuple`.
pub(crate) fn reset(syn: &[u8], segment: &Segment, tuple: &Tuple) -> Inbound {
    let mut packet = ip_header(segment.is_ipv6, TCP, RESET_BYTES, tuple.destination, tuple.source);
    let start = packet.len();
    // RFC 9293 §3.10.7.1: without an acknowledgement to go by, the sequence number is zero.
    let acknowledged = segment.sequence(syn).wrapping_add(segment.sequence_length(syn));
    packet.extend_from_slice(&tuple.destination_port.to_be_bytes());
    packet.extend_from_slice(&tuple.source_port.to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(&acknowledged.to_be_bytes());
    packet.extend_from_slice(&[5 << 4, RST_ACK, 0, 0, 0, 0, 0, 0]);
    finish(packet, start, start + 16, TCP)
}

/// The message of a router at `router` on the way of `syn`.
pub(crate) fn unreachable(
    syn: &Inbound,
    segment: &Segment,
    tuple: &Tuple,
    router: [u8; 16],
    why: Unreachable,
) -> Inbound {
    let mut quoted = syn.bytes.clone();
    if syn.is_partial
        && let Some((start, at, protocol)) = checksum_place(&quoted)
    {
        put(&mut quoted, at, &[0, 0]);
        let sum = transport_checksum(&quoted, start, protocol);
        put(&mut quoted, at, &sum.to_be_bytes());
    }
    quoted.truncate(if segment.is_ipv6 { ICMPV6_QUOTED_MAX } else { ICMP_QUOTED_MAX });
    let protocol = if segment.is_ipv6 { ICMPV6 } else { ICMP };
    let mut packet = ip_header(segment.is_ipv6, protocol, 8 + quoted.len(), router, tuple.source);
    let start = packet.len();
    packet.extend_from_slice(&why.kind(segment.is_ipv6));
    packet.extend_from_slice(&[0; 6]);
    packet.extend_from_slice(&quoted);
    finish(packet, start, start + 2, protocol)
}

fn ip_header(is_ipv6: bool, protocol: u8, length: usize, from: [u8; 16], to: [u8; 16]) -> BytesMut {
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
fn finish(mut packet: BytesMut, start: usize, at: usize, protocol: u8) -> Inbound {
    let sum = if protocol == ICMP {
        // RFC 792: without a pseudo header.
        !fold(sum_bytes(packet.get(start..).unwrap_or_default()))
    } else {
        transport_checksum(&packet, start, protocol)
    };
    put(&mut packet, at, &sum.to_be_bytes());
    Inbound { bytes: packet, is_partial: false, follows: false }
}
