//! The Internet checksum: computed (RFC 1071), or updated for one changed word (RFC 1624).

use super::Layout;
use crate::packet::PacketBuf;

/// One's complement addition.
pub(crate) fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // Cannot overflow again: after a carry the sum is at most 0xfffe.
    sum + u16::from(carry)
}

/// The one's complement sum of `bytes` and `start`. A last odd byte is padded with zero.
pub(crate) fn sum(start: u16, bytes: &[u8]) -> u16 {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let sum = pairs.iter().fold(start, |sum, pair| add(sum, u16::from_be_bytes(*pair)));
    odd.first().map_or(sum, |last| add(sum, u16::from_be_bytes([*last, 0])))
}

/// The packet with its final checksum; unchanged if it is not partial.
pub(crate) fn completed(packet: PacketBuf) -> PacketBuf {
    packet.completed_by(complete)
}
/// Computes the checksum of a whole TCP segment or UDP datagram (RFC 9293 §3.1, RFC 768, RFC 8200
/// §8.1). Any other packet stays unchanged.
pub(crate) fn complete(packet: &mut [u8]) {
    let Some(layout) = Layout::of(packet) else { return };
    let (is_udp, at) = match layout.protocol {
        6 => (false, 16),
        17 => (true, 6),
        _ => return,
    };
    let Some((header, segment)) = packet.split_at_mut_checked(layout.header_bytes) else { return };
    let addresses = if layout.version == 4 { header.get(12..20) } else { header.get(8..40) };
    let Ok(length) = u16::try_from(segment.len()) else { return };
    let Some(field) = segment.get_mut(at..at + 2) else { return };
    field.fill(0);
    let pseudo = add(sum(u16::from(layout.protocol), addresses.unwrap_or_default()), length);
    let sum = !sum(pseudo, segment);
    // RFC 768: a transmitted zero means that there is no checksum.
    let sum = if is_udp && sum == 0 { u16::MAX } else { sum };
    if let Some(field) = segment.get_mut(at..at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// The checksum after one word that it covers changed: RFC 1624 eqn. 3. A wrong checksum stays
/// wrong.
pub(crate) fn update(old: u16, before: u16, after: u16) -> u16 {
    !add(add(!old, !before), after)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;

    proptest! {
        #[test]
        fn sums_agree_with_another_way_to_add(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
            // Zero and 0xffff are the same number; `sum` never turns a sum other than zero into
            // zero.
            prop_assert_eq!(sum(0, &bytes), samples::sum(&[&bytes]));
        }

        #[test]
        fn what_is_completed_sums_up(
            ipv6: bool, udp: bool, segment in proptest::collection::vec(any::<u8>(), 20..90), rest in any::<u16>(),
        ) {
            let protocol = if udp { 17 } else { 6 };
            let mut packet = if ipv6 { samples::v6(protocol, &segment) } else { samples::v4(protocol, 0, &segment) };
            let header_bytes = if ipv6 { 40 } else { 20 };
            let at = header_bytes + if udp { 6 } else { 16 };
            // The result must not depend on the field's old value.
            packet[at..at + 2].copy_from_slice(&rest.to_be_bytes());
            let before = packet.clone();
            complete(&mut packet);
            prop_assert_eq!(samples::transport_sum(&packet, protocol, header_bytes), 0xffff);
            prop_assert!(!udp || packet[at..at + 2] != [0, 0]);
            packet[at..at + 2].copy_from_slice(&rest.to_be_bytes());
            prop_assert_eq!(packet, before);
        }

        #[test]
        fn an_update_is_as_good_as_a_new_sum(mut words in proptest::collection::vec(any::<u8>(), 4..60), at: usize, new: [u8; 2]) {
            words.truncate(words.len() / 2 * 2);
            words[0] |= 1;
            let at = (at % (words.len() / 2 - 1) + 1) * 2;
            let before = u16::from_be_bytes([words[at], words[at + 1]]);
            let old = !sum(0, &words);
            words[at..at + 2].copy_from_slice(&new);
            prop_assert_eq!(update(old, before, u16::from_be_bytes(new)), !sum(0, &words));
        }
    }
}
