//! Marks an inner IP packet "congestion experienced" instead of dropping it.
//!
//! The queue marks as a router does (RFC 3168 §5): ECT(0) and ECT(1) become CE, CE stays CE,
//! Not-ECT cannot be marked. The IPv4 header checksum is updated incrementally (RFC 1624 eqn. 3),
//! so a wrong checksum stays wrong and its receiver detects it. IPv6 has no header checksum.
//!
//! The inner packet itself carries the mark, so no outer ECN field has to carry it across the
//! tunnel. `link::path::ecn` handles the marks of routers between the tunnel's ends.

use crate::PacketBuf;
use crate::inner::checksum;

/// RFC 3168 §5: the codepoint "congestion experienced".
const CE: u8 = 3;

/// The packet with CE set, or the unchanged packet if it cannot be marked. The bytes are copied if
/// another owner shares them.
pub(super) fn mark_ce(packet: PacketBuf) -> Result<PacketBuf, PacketBuf> {
    match ecn(&packet) {
        None | Some(0) => Err(packet),
        Some(CE) => Ok(packet),
        Some(_) => Ok(packet.edit(set_ce)),
    }
}

/// The ECN field; `None` if this is not a whole IP header.
fn ecn(packet: &[u8]) -> Option<u8> {
    let (&first, &second) = (packet.first()?, packet.get(1)?);
    match first >> 4 {
        4 if packet.len() >= 20 => Some(second & 3),
        6 if packet.len() >= 40 => Some((second >> 4) & 3),
        _ => None,
    }
}

fn set_ce(packet: &mut [u8]) {
    match packet {
        [first, class, ..] if *first >> 4 == 6 => *class |= CE << 4,
        [version, tos, _, _, _, _, _, _, _, _, sum_0, sum_1, ..] => {
            let before = u16::from_be_bytes([*version, *tos]);
            *tos |= CE;
            let after = u16::from_be_bytes([*version, *tos]);
            let sum = checksum::update(u16::from_be_bytes([*sum_0, *sum_1]), before, after);
            [*sum_0, *sum_1] = sum.to_be_bytes();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    /// The one's complement sum over a header; 0xffff if its checksum is right.
    fn header_sum(header: &[u8]) -> u16 {
        header.chunks(2).fold(0, |sum, word| checksum::add(sum, u16::from_be_bytes([word[0], word[1]])))
    }

    fn v4(tos: u8, ident: u16) -> Vec<u8> {
        let mut packet = vec![0x45, tos, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet[4..6].copy_from_slice(&ident.to_be_bytes());
        let sum = !header_sum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    proptest! {
        #[test]
        fn ipv4_mark_keeps_a_right_checksum_right(dscp in 0u8..64, ecn in 1u8..3, ident: u16) {
            let packet = v4((dscp << 2) | ecn, ident);
            let marked = mark_ce(Bytes::from(packet.clone()).into()).unwrap();
            prop_assert_eq!(marked[1], (dscp << 2) | 3);
            prop_assert_eq!(header_sum(&marked), 0xffff);
            // RFC 1624 §3: the result is never the other zero, so it equals a newly computed sum.
            prop_assert_eq!(marked.to_vec(), v4((dscp << 2) | 3, ident));
        }
    }

    #[test]
    fn ipv6_mark_touches_only_the_ecn_field() {
        let mut packet = vec![0u8; 48];
        packet[..4].copy_from_slice(&[0x6b, 0xa5, 0x12, 0x34]); // DSCP 0x2e, ECT(0), flow label 0x51234
        let marked = mark_ce(Bytes::from(packet.clone()).into()).unwrap();
        packet[1] = 0xb5;
        assert_eq!(marked.to_vec(), packet);
    }

    #[test]
    fn a_shared_packet_is_copied_not_changed() {
        let original = Bytes::from(v4(2, 7));
        let kept = original.clone();
        let marked = mark_ce(original.into()).unwrap();
        assert_eq!(kept[1], 2);
        assert_eq!(marked[1], 3);
    }

    #[test]
    fn not_ect_and_what_is_no_header_come_back_unmarked() {
        for packet in [v4(0xb8, 1), vec![0x45, 2], vec![0x60, 0x20, 0, 0], vec![], vec![0x25; 60]] {
            let back = mark_ce(Bytes::from(packet.clone()).into()).unwrap_err();
            assert_eq!(back.to_vec(), packet);
        }
    }

    #[test]
    fn ce_stays_ce() {
        let packet = v4(3, 9);
        assert_eq!(mark_ce(Bytes::from(packet.clone()).into()).unwrap().to_vec(), packet);
    }
}
