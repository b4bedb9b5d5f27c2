//! Clamps the maximum segment size that TCP connections announce to the size that the tunnel
//! carries. Where ICMP is filtered, nothing else tells a TCP sender.
//!
//! The maximum segment size in a SYN is what the sender of the SYN accepts, so it limits the other
//! direction. It is lowered, never raised. A SYN without the option stays unchanged (RFC 9293
//! §3.7.1: its sender is sent 536 or 1,220 bytes). The checksum is updated, so a wrong checksum
//! stays wrong. The search ends at the first option of impossible length.
//!
//! Sources: RFC 9293 §3.1, §3.7.1; RFC 6691; RFC 1624.

use super::{Layout, checksum};
use crate::packet::PacketBuf;

// RFC 9293 §3.1 and §3.2: the protocol number, the header, its flags and its options.
const TCP: u8 = 6;
const TCP_HEADER_BYTES: usize = 20;
const SYN: u8 = 0x02;
const OPTION_END: u8 = 0;
const OPTION_PADDING: u8 = 1;
const OPTION_MSS: u8 = 2;
/// Offset of the checksum in the header.
const CHECKSUM_AT: usize = 16;

/// The packet. If it is a SYN that announces more than fits packets of `mtu` bytes, the announced
/// size is lowered.
pub(crate) fn clamp(packet: PacketBuf, mtu: usize) -> PacketBuf {
    let Some(at) = syn_at(&packet) else { return packet };
    let header_bytes = if packet.first().is_some_and(|byte| byte >> 4 == 4) { 20 } else { 40 };
    let Ok(most) = u16::try_from(mtu.saturating_sub(header_bytes + TCP_HEADER_BYTES)) else { return packet };
    if packet.get(at..).and_then(|segment| beyond(segment, most)).is_none() {
        return packet;
    }
    packet.edit(|bytes| {
        let Some(segment) = bytes.get_mut(at..) else { return };
        // A second option is unusual; each is lowered in turn.
        while let Some(place) = beyond(segment, most) {
            replace(segment, place, most.to_be_bytes());
        }
    })
}

/// The offset of the TCP header, if the packet contains the start of a SYN. Quick to answer no:
/// this runs for every packet.
fn syn_at(packet: &[u8]) -> Option<usize> {
    let at = match packet.first()? >> 4 {
        4 if *packet.get(9)? == TCP => Layout::of(packet).filter(|layout| !layout.is_rest)?.header_bytes,
        6 if *packet.get(6)? == TCP => 40,
        // Neither TCP nor UDP: extension headers.
        6 if *packet.get(6)? != 17 => {
            let layout = Layout::of(packet).filter(|layout| layout.protocol == TCP && !layout.is_rest)?;
            layout.header_bytes
        }
        _ => return None,
    };
    let flags = packet.get(at + 13)?;
    (flags & SYN != 0).then_some(at)
}

/// The offset of a segment size option that announces more than `most`.
fn beyond(segment: &[u8], most: u16) -> Option<usize> {
    sizes(segment).find(|(_, size)| *size > most).map(|(place, _)| place)
}

/// Every segment size that the options announce, with its offset.
fn sizes(segment: &[u8]) -> impl Iterator<Item = (usize, u16)> + '_ {
    let end = segment.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    let options = segment.get(..end);
    let mut at = TCP_HEADER_BYTES;
    std::iter::from_fn(move || {
        let options = options?;
        loop {
            let length = match *options.get(at)? {
                OPTION_END => return None,
                OPTION_PADDING => 1,
                _ => usize::from(*options.get(at + 1)?),
            };
            let option = options.get(at..at + length).filter(|option| !option.is_empty())?;
            let place = at + 2;
            at += length;
            // An option of another length than 4 is not a segment size.
            if let [OPTION_MSS, _, high, low] = option {
                return Some((place, u16::from_be_bytes([*high, *low])));
            }
        }
    })
}

/// Writes `new` at `at` and updates the segment's checksum. The checksum covers pairs of bytes from
/// the segment's start.
fn replace(segment: &mut [u8], at: usize, new: [u8; 2]) {
    let word = |segment: &[u8], at: usize| {
        let byte = |at: usize| segment.get(at).copied().unwrap_or(0);
        u16::from_be_bytes([byte(at), byte(at + 1)])
    };
    let first = at & !1;
    let words = [first, first + 2];
    let before = words.map(|at| word(segment, at));
    let Some(field) = segment.get_mut(at..at + 2) else { return };
    field.copy_from_slice(&new);
    let after = words.map(|at| word(segment, at));
    let old = word(segment, CHECKSUM_AT);
    let sum = before.into_iter().zip(after).fold(old, |sum, (was, is)| checksum::update(sum, was, is));
    if let Some(field) = segment.get_mut(CHECKSUM_AT..CHECKSUM_AT + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::samples::{transport_sum, v4, v6};
    use super::*;

    fn segment(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut options = options.to_vec();
        options.resize(options.len().div_ceil(4) * 4, 0);
        let mut segment = vec![0x9c, 0x40, 0x14, 0x51, 1, 2, 3, 4, 0, 0, 0, 0];
        segment.push(u8::try_from((20 + options.len()) / 4).unwrap() << 4);
        segment.extend_from_slice(&[flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend_from_slice(&options);
        segment.extend_from_slice(payload);
        segment
    }

    /// A packet of either family around a segment with a right checksum.
    fn packet(ipv6: bool, segment: &[u8]) -> Vec<u8> {
        let (mut packet, at) = if ipv6 { (v6(6, segment), 40) } else { (v4(6, 0x4000, segment), 20) };
        let sum = !transport_sum(&packet, 6, at);
        packet[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn clamped(packet: &[u8], mtu: usize) -> Vec<u8> {
        clamp(Bytes::copy_from_slice(packet).into(), mtu).to_vec()
    }

    fn says(packet: &[u8], ipv6: bool) -> Vec<u16> {
        sizes(&packet[if ipv6 { 40 } else { 20 }..]).map(|(_, size)| size).collect()
    }

    #[test]
    fn syn_and_syn_ack_of_both_families_are_clamped() {
        for (ipv6, expected) in [(false, 1_229 - 40), (true, 1_229 - 60)] {
            for flags in [0x02, 0x12, 0xc2] {
                let syn = packet(ipv6, &segment(flags, &[2, 4, 5, 0xb4, 1, 3, 3, 7], b""));
                let changed = clamped(&syn, 1_229);
                assert_eq!(says(&changed, ipv6), [expected]);
                assert_eq!(transport_sum(&changed, 6, if ipv6 { 40 } else { 20 }), 0xffff);
                assert_eq!(clamped(&changed, 1_400), changed, "never larger");
            }
        }
    }

    #[test]
    fn what_is_no_syn_or_says_nothing_is_left_alone() {
        let ack = packet(false, &segment(0x10, &[2, 4, 5, 0xb4], b"x"));
        let silent = packet(false, &segment(0x02, &[1, 1, 4, 2], b""));
        let small = packet(true, &segment(0x02, &[2, 4, 2, 0], b""));
        let udp = v4(17, 0x4000, &segment(0x02, &[2, 4, 5, 0xb4], b""));
        let mut rest = packet(false, &segment(0x02, &[2, 4, 5, 0xb4], b""));
        rest[7] = 9;
        for packet in [ack, silent, small, udp, rest] {
            assert_eq!(clamped(&packet, 1_229), packet);
        }
    }

    #[test]
    fn an_odd_place_extension_headers_and_doubles_are_found() {
        let odd = packet(false, &segment(0x02, &[1, 2, 4, 5, 0xb4, 1, 1], b"abc"));
        let changed = clamped(&odd, 1_229);
        assert_eq!((says(&changed, false), transport_sum(&changed, 6, 20)), (vec![1_189], 0xffff));

        let double = packet(false, &segment(0x02, &[2, 4, 0xff, 0xff, 2, 4, 5, 0xb4], b""));
        let changed = clamped(&double, 1_229);
        assert_eq!((says(&changed, false), transport_sum(&changed, 6, 20)), (vec![1_189, 1_189], 0xffff));

        let inner = packet(true, &segment(0x02, &[2, 4, 5, 0xb4], b""));
        let mut options = vec![6, 0, 1, 4, 0, 0, 0, 0];
        options.extend_from_slice(&inner[40..]);
        let behind = v6(60, &options);
        let changed = clamped(&behind, 1_229);
        assert_eq!(sizes(&changed[48..]).map(|(_, size)| size).collect::<Vec<_>>(), [1_169]);
        assert_eq!(changed[48 + 16..48 + 18], clamped(&inner, 1_229)[40 + 16..40 + 18]);
    }

    #[test]
    fn options_that_do_not_add_up_are_harmless() {
        for options in [
            &[2u8][..],
            &[2, 0, 5, 0xb4],
            &[2, 1, 5, 0xb4],
            &[2, 3, 5, 0xb4],
            &[2, 5, 5, 0xb4, 0],
            &[8, 40, 2, 4],
            &[1, 1, 1, 2],
            &[0, 2, 4, 5, 0xb4],
        ] {
            let syn = packet(false, &segment(0x02, options, b"payload"));
            assert_eq!(clamped(&syn, 1_229), syn, "{options:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_stay_or_differ_in_size_and_checksum_only(
            head in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60, 0x00]), bytes in proptest::collection::vec(any::<u8>(), 0..120),
            mtu in 0usize..3_000,
        ) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() { *first = head; }
            if bytes.len() > 9 { bytes[if head == 0x60 { 6 } else { 9 }] = 6; }
            let after = clamped(&bytes, mtu);
            prop_assert_eq!(after.len(), bytes.len());
        }

        #[test]
        fn any_options_keep_a_right_checksum_right_and_a_wrong_one_wrong(
            ipv6: bool, options in proptest::collection::vec(0u8..9, 0..40), mss: u16, at in 0usize..40,
            payload in proptest::collection::vec(any::<u8>(), 0..5), mtu in 576usize..1_500, damage: u16,
        ) {
            let mut options = options;
            let place = at.min(options.len());
            options.splice(place..place, [2, 4].into_iter().chain(mss.to_be_bytes()));
            options.truncate(40);
            let mut syn = packet(ipv6, &segment(0x02, &options, &payload));
            let header = if ipv6 { 40 } else { 20 };
            let sum_at = header + 16;
            let sum = u16::from_be_bytes([syn[sum_at], syn[sum_at + 1]]);
            syn[sum_at..sum_at + 2].copy_from_slice(&(sum ^ damage).to_be_bytes());
            let right = transport_sum(&syn, 6, header) == 0xffff;
            let before = says(&syn, ipv6);
            let changed = clamped(&syn, mtu);
            prop_assert_eq!(transport_sum(&changed, 6, header) == 0xffff, right);
            let most = u16::try_from(mtu - header - 20).unwrap();
            let expected: Vec<u16> = before.iter().map(|size| (*size).min(most)).collect();
            prop_assert_eq!(says(&changed, ipv6), expected);
            prop_assert_eq!(&changed[..header], &syn[..header]);
        }
    }
}
