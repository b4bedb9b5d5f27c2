//! The answer to a packet that the tunnel does not carry: ICMP "fragmentation needed" (RFC 792, RFC
//! 1191 §4), ICMPv6 "packet too big" (RFC 4443 §3.2).
//!
//! The answer's source is the destination of the packet. The core knows no address of its own. This
//! one is routed through the tunnel, so no reverse path filter drops the answer, and the server's
//! NAT translates it like any packet of that client.
//!
//! Packets that get no answer: ICMP errors and redirects, packets to multicast and broadcast
//! addresses, fragments other than the first, and packets from or to addresses that name no single
//! host (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use super::header::{self, InnerHeader};
use super::{Layout, checksum};
use crate::packet::PacketBuf;

// Protocol numbers (RFC 792, RFC 4443).
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// RFC 1812 §4.3.2.3: an ICMP error is 576 bytes at most.
const V4_ANSWER_MAX: usize = 576;
/// RFC 4443 §2.4 (c): an ICMPv6 error fits the minimum IPv6 MTU.
const V6_ANSWER_MAX: usize = 1_280;
/// RFC 8200 §5: every IPv6 link carries packets of this size.
pub(crate) const V6_MTU_MIN: usize = 1_280;
/// The hop limit of an answer: the recommended default TTL (RFC 1700, "IP parameters").
const HOPS: u8 = 64;

/// The message that tells the sender of `packet` that `mtu` bytes pass; `None`: no answer is
/// allowed or needed.
pub(crate) fn answer(packet: &[u8], mtu: usize) -> Option<PacketBuf> {
    let header = header::parse(packet).ok()?;
    let layout = Layout::of(packet)?;
    if layout.is_rest || is_error(packet, &layout) || packet.len() <= mtu {
        return None;
    }
    match (header.source, header.destination) {
        (IpAddr::V4(to), IpAddr::V4(from)) if is_host_v4(to) && is_host_v4(from) => {
            Some(answer_v4(packet, from, to, mtu))
        }
        (IpAddr::V6(to), IpAddr::V6(from)) if is_host_v6(to) && is_host_v6(from) => {
            let mtu = mtu.max(V6_MTU_MIN);
            (packet.len() > mtu).then(|| answer_v6(packet, from, to, mtu))
        }
        _ => None,
    }
}

/// Whether the packet must not be fragmented.
pub(crate) fn forbids_fragments(packet: &[u8], header: &InnerHeader) -> bool {
    // RFC 791 §3.1; IPv6 is never cut on the way (RFC 8200 §4.5).
    header.source.is_ipv6() || packet.get(6).is_some_and(|flags| flags & 0x40 != 0)
}

/// Whether the packet is an ICMP message other than a query or its reply.
fn is_error(packet: &[u8], layout: &Layout) -> bool {
    let kind = packet.get(layout.header_bytes).copied();
    match (layout.version, layout.protocol) {
        // The queries and replies: echo, timestamp, information, mask and extended echo, router
        // advertisement and solicitation.
        (4, ICMP) => !matches!(kind, Some(0 | 8..=10 | 13..=18 | 42 | 43)),
        // RFC 4443 §2.1: errors are below 128; 137 is a redirect.
        (6, ICMPV6) => kind.is_none_or(|kind| kind < 128 || kind == 137),
        _ => false,
    }
}

fn is_host_v4(address: Ipv4Addr) -> bool {
    // Not hosts: "this network", loopback, and from 224.0.0.0 on multicast, reserved addresses,
    // broadcast.
    let [first, ..] = address.octets();
    !matches!(first, 0 | 127 | 224..)
}

fn is_host_v6(address: Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

fn answer_v4(packet: &[u8], from: Ipv4Addr, to: Ipv4Addr, mtu: usize) -> PacketBuf {
    let quoted = packet.get(..V4_ANSWER_MAX - 28).unwrap_or(packet);
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    let total = u16::try_from(28 + quoted.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(28 + quoted.len());
    // RFC 1812 §4.3.2.5: precedence 6, internetwork control.
    bytes.extend_from_slice(&[0x45, 0xc0]);
    bytes.extend_from_slice(&total.to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 0, HOPS, ICMP, 0, 0]);
    bytes.extend_from_slice(&from.octets());
    bytes.extend_from_slice(&to.octets());
    set_checksum(&mut bytes, 0, 10, 0);
    // Type 3, code 4; RFC 1191 §4: the MTU in the second half of the unused field.
    bytes.extend_from_slice(&[3, 4, 0, 0, 0, 0]);
    bytes.extend_from_slice(&mtu.to_be_bytes());
    bytes.extend_from_slice(quoted);
    set_checksum(&mut bytes, 20, 2, 0);
    Bytes::from(bytes).into()
}

fn answer_v6(packet: &[u8], from: Ipv6Addr, to: Ipv6Addr, mtu: usize) -> PacketBuf {
    let quoted = packet.get(..V6_ANSWER_MAX - 48).unwrap_or(packet);
    let length = u16::try_from(8 + quoted.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(48 + quoted.len());
    bytes.extend_from_slice(&[0x60, 0, 0, 0]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[ICMPV6, HOPS]);
    bytes.extend_from_slice(&from.octets());
    bytes.extend_from_slice(&to.octets());
    // RFC 8200 §8.1: the pseudo header.
    let pseudo = checksum::sum(length, bytes.get(8..).unwrap_or_default());
    let pseudo = checksum::add(pseudo, u16::from(ICMPV6));
    bytes.extend_from_slice(&[2, 0, 0, 0]);
    bytes.extend_from_slice(&u32::try_from(mtu).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(quoted);
    set_checksum(&mut bytes, 40, 2, pseudo);
    Bytes::from(bytes).into()
}

/// Writes the checksum of everything from `start` on into its field, which holds zero.
fn set_checksum(bytes: &mut [u8], start: usize, at: usize, pseudo: u16) {
    let Some(covered) = bytes.get_mut(start..) else { return };
    let sum = !checksum::sum(pseudo, covered);
    if let Some(field) = covered.get_mut(at..at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{sum, transport_sum, v4, v6};
    use super::*;

    #[test]
    fn ipv4_is_told_the_mtu_with_the_packets_head() {
        let packet = v4(17, 0x4000, &[7; 1_400]);
        let told = answer(&packet, 1_229).unwrap();
        assert_eq!(told.len(), 576);
        assert_eq!((sum(&[&told[..20]]), sum(&[&told[20..]])), (0xffff, 0xffff));
        assert_eq!(told[12..20], [198, 51, 100, 2, 10, 99, 0, 2]);
        assert_eq!((told[9], &told[20..22], &told[24..28]), (1, &[3, 4][..], &[0, 0, 0x04, 0xcd][..]));
        assert_eq!(told[28..], packet[..548]);
        assert_eq!(header::parse(&told).unwrap().protocol, 1);
    }

    #[test]
    fn ipv6_is_told_the_mtu_but_never_less_than_it_must_have() {
        let packet = v6(17, &[7; 1_400]);
        for (mtu, expected) in [(1_409, 1_409u32), (1_229, 1_280)] {
            let told = answer(&packet, mtu).unwrap();
            assert_eq!(told.len(), 1_280);
            assert_eq!(transport_sum(&told, 58, 40), 0xffff);
            assert_eq!((&told[8..24], &told[24..40]), (&packet[24..40], &packet[8..24]));
            assert_eq!(told[40..42], [2, 0]);
            assert_eq!(told[44..48], expected.to_be_bytes());
            assert_eq!(told[48..], packet[..1_232]);
        }
        assert_eq!(answer(&v6(17, &[7; 1_240]), 1_229), None, "1,280 bytes must pass anyway");
    }

    #[test]
    fn errors_multicast_and_fragments_are_not_answered() {
        let with = |at: usize, bytes: &[u8]| {
            let mut packet = v4(17, 0x4000, &[7; 1_400]);
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            packet
        };
        assert!(answer(&with(0, &[]), 1_229).is_some());
        for packet in [
            with(12, &[0, 0, 0, 0]),
            with(12, &[224, 0, 0, 1]),
            with(12, &[127, 0, 0, 1]),
            with(12, &[255; 4]),
            with(16, &[239, 1, 1, 1]),
            with(16, &[255; 4]),
            with(6, &[0x00, 0x10]),
            with(0, &[0x35]),
        ] {
            assert_eq!(answer(&packet, 1_229), None, "{:?}", &packet[..20]);
        }
        for (kind, answered) in
            [(3, false), (4, false), (5, false), (11, false), (12, false), (8, true), (0, true)]
        {
            let mut icmp = v4(1, 0x4000, &[0; 1_400]);
            icmp[20] = kind;
            assert_eq!(answer(&icmp, 1_229).is_some(), answered, "ICMP {kind}");
        }
        for (kind, answered) in [(1, false), (2, false), (127, false), (137, false), (128, true), (129, true)]
        {
            let mut body = vec![0; 1_400];
            body[0] = kind;
            assert_eq!(answer(&v6(58, &body), 1_409).is_some(), answered, "ICMPv6 {kind}");
            let behind: Vec<u8> = [58, 0, 1, 4, 0, 0, 0, 0].into_iter().chain(body).collect();
            assert_eq!(answer(&v6(60, &behind), 1_409).is_some(), answered, "ICMPv6 {kind} behind options");
        }
        let mut multicast = v6(17, &[7; 1_400]);
        multicast[24] = 0xff;
        assert_eq!(answer(&multicast, 1_409), None);
        let rest: Vec<u8> = [17, 0, 0, 8, 0, 0, 0, 1].into_iter().chain([7; 1_400]).collect();
        assert_eq!(answer(&v6(44, &rest), 1_409), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_sound_answer_or_none(
            head in prop::sample::select(vec![0x45u8, 0x4a, 0x60, 0x6f, 0x10]), bytes in proptest::collection::vec(any::<u8>(), 0..900),
            mtu in 0usize..1_500,
        ) {
            let mut bytes = bytes;
            let length = bytes.len();
            if let Some(first) = bytes.first_mut() { *first = head; }
            if length >= 40 {
                let (at, says) = if head >> 4 == 4 { (2, length) } else { (4, length - 40) };
                bytes[at..at + 2].copy_from_slice(&u16::try_from(says).unwrap().to_be_bytes());
            }
            if let Some(told) = answer(&bytes, mtu) {
                let header = header::parse(&told).unwrap();
                let packet = header::parse(&bytes).unwrap();
                prop_assert_eq!((header.source, header.destination), (packet.destination, packet.source));
                prop_assert!(told.len() <= 1_280 && bytes.len() > mtu);
                let sums = match header.protocol {
                    1 => (sum(&[&told[..20]]), sum(&[&told[20..]])),
                    _ => (0xffff, transport_sum(&told, 58, 40)),
                };
                prop_assert_eq!(sums, (0xffff, 0xffff));
                prop_assert_eq!(answer(&told, 0), None, "an error about an error");
            }
        }
    }
}
