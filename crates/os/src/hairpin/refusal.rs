//! The answers to a SYN that is refused: a RST as the destination would have sent it, or an ICMP
//! message as a router on the way would have.
//!
//! Contract: each answer is a whole packet with complete checksums. The source of an ICMP message
//! is the stand-in address: a router of the tunnel, which no reverse-path filter minds, since the
//! tunnel is its route.
//!
//! Sources: RFC 9293 §3.10.7.1 (RST), RFC 792 and RFC 1812 §5.2.7.1 (ICMP), RFC 4443 §3.1 (ICMPv6).

use super::made::{bare_segment, finish, ip_header};
use super::segment::{ACK, RST, Segment, Tuple};
use crate::checksum::{put, transport_checksum};
use crate::coalesce::checksum_place;
use crate::tun::Inbound;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// RFC 1812 §4.3.2.3: an ICMP error is 576 bytes at most.
const ICMP_QUOTED_MAX: usize = 576 - 28;
/// RFC 4443 §2.4 (c): an ICMPv6 error fits the minimum IPv6 MTU.
const ICMPV6_QUOTED_MAX: usize = 1_280 - 48;

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
    // RFC 9293 §3.10.7.1: without an acknowledgement to go by, the sequence number is zero.
    let acknowledged = segment.sequence(syn).wrapping_add(segment.sequence_length(syn));
    bare_segment(segment.is_ipv6, &tuple.reversed(), (0, acknowledged), RST | ACK)
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
