//! ICMP errors about packets of a redirected flow: a router behind the application's host tells the
//! destination that its packets are too large, or do not arrive.
//!
//! The destination never sent them. The listener's kernel did, and has to know, above all for path
//! MTU discovery. The message becomes one from the stand-in about the packet as the listener sent
//! it.
//!
//! Contract: total on any bytes. Messages about anything but TCP are not understood. The quoted
//! sequence number, by which a kernel believes a message, stays.
//!
//! Sources: RFC 792, RFC 1191, RFC 4443 §3, RFC 8201; RFC 5508 §4.2 (what a translator rewrites).

use super::segment::{Difference, IPV4_CHECKSUM_AT, Segment, TCP, TCP_CHECKSUM_AT, Tuple, update};
use crate::checksum::{fold, put, read_u16, sum_bytes, transport_checksum};
use crate::tun::Inbound;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// RFC 792, RFC 4443 §2.1: ahead of the quoted packet.
const ICMP_BYTES: usize = 8;

/// An error message about a TCP segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quote {
    pub(crate) is_ipv6: bool,
    /// Where the message begins.
    start: usize,
    /// Bytes of the quoted packet's IP header.
    ip_bytes: usize,
}

impl Quote {
    /// `None`: the packet is not such a message.
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        let (start, is_error) = match *packet.first_chunk::<21>()? {
            // Neither fragmented nor with options.
            [0x45, _, _, _, _, _, more, 0, _, ICMP, .., kind] if more & 0x3f == 0 => {
                (20, read_u16(packet, 2)? == packet.len() && matches!(kind, 3 | 11 | 12))
            }
            [0x60..=0x6f, _, _, _, _, _, ICMPV6, ..] => {
                (40, read_u16(packet, 4)? + 40 == packet.len() && matches!(packet.get(40)?, 1..=4))
            }
            _ => return None,
        };
        let quoted = packet.get(start + ICMP_BYTES..)?;
        let is_ipv6 = start == 40;
        let ip_bytes = match *quoted.first_chunk::<20>()? {
            [first @ 0x45..=0x4f, _, _, _, _, _, more, 0, _, TCP, ..] if more & 0x1f == 0 && !is_ipv6 => {
                usize::from(first & 0x0f) * 4
            }
            [0x60..=0x6f, _, _, _, _, _, TCP, ..] if is_ipv6 => 40,
            _ => return None,
        };
        // Ports and sequence number.
        (is_error && quoted.len() >= ip_bytes + 8).then_some(Self { is_ipv6, start, ip_bytes })
    }

    /// Of the packet that the message is about.
    pub(crate) fn tuple(&self, packet: &[u8]) -> Tuple {
        let quoted = packet.get(self.start + ICMP_BYTES..).unwrap_or_default();
        self.segment().tuple(quoted)
    }

    /// Makes the message one of `from` about a packet of the tuple `about`. `difference`: between
    /// the tuple that it names and that one.
    pub(crate) fn rewrite(
        &self,
        packet: &mut Inbound,
        from: [u8; 16],
        about: &Tuple,
        difference: Difference,
    ) {
        let Self { is_ipv6, start, ip_bytes } = *self;
        packet.is_partial = false;
        let bytes = &mut packet.bytes;
        let (at, length) = if is_ipv6 { (8, 16) } else { (12, 4) };
        put(bytes, at, from.get(..length).unwrap_or_default());
        // The message goes to the sender of the packet that it is about.
        put(bytes, at + length, about.source.get(..length).unwrap_or_default());
        if !is_ipv6 {
            put(bytes, IPV4_CHECKSUM_AT, &[0, 0]);
            let sum = !fold(sum_bytes(bytes.get(..start).unwrap_or_default()));
            put(bytes, IPV4_CHECKSUM_AT, &sum.to_be_bytes());
        }
        let quoted = bytes.get_mut(start + ICMP_BYTES..).unwrap_or_default();
        self.segment().readdress(quoted, about);
        if !is_ipv6 {
            update(quoted, IPV4_CHECKSUM_AT, difference.addresses);
        }
        update(quoted, ip_bytes + TCP_CHECKSUM_AT, difference.with_ports);
        put(bytes, start + 2, &[0, 0]);
        let sum = if is_ipv6 {
            transport_checksum(bytes, start, ICMPV6)
        } else {
            !fold(sum_bytes(bytes.get(start..).unwrap_or_default()))
        };
        put(bytes, start + 2, &sum.to_be_bytes());
    }

    fn segment(&self) -> Segment {
        Segment { is_ipv6: self.is_ipv6, ip_bytes: self.ip_bytes, flags: 0 }
    }
}
