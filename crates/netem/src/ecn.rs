//! Congestion marks in IP headers, as a router between two hosts sets them. The emulator does not
//! use the bond's code, whose queue marks in `qos::ecn`.
//!
//! Sources: RFC 3168 §5 (the codepoints), RFC 1624 (the checksum of a changed header).

const CE: u8 = 3;

/// Marks an IP packet "congestion experienced" if it is ECN-capable. Returns whether the packet
/// carries the mark.
pub fn mark(packet: &mut [u8]) -> bool {
    match packet {
        [first, class, ..] if *first >> 4 == 6 => {
            let can = *class & (CE << 4) != 0;
            if can {
                *class |= CE << 4;
            }
            can
        }
        [first, tos, _, _, _, _, _, _, _, _, sum_0, sum_1, ..] if *first >> 4 == 4 && *tos & CE != 0 => {
            let added = u32::from(CE & !*tos);
            *tos |= CE;
            // The header's sum grew by `added`, so the complement shrinks by as much (one's
            // complement).
            let sum = u32::from(u16::from_be_bytes([*sum_0, *sum_1]));
            let sum = (sum + 0xffff - added) % 0xffff;
            let sum = u16::try_from(sum).unwrap_or_default();
            [*sum_0, *sum_1] = sum.to_be_bytes();
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(tos: u8) -> Vec<u8> {
        let mut packet = vec![0x45, tos, 0, 20, 1, 2, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum = !header_sum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn header_sum(header: &[u8]) -> u16 {
        let sum: u32 = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
    }

    #[test]
    fn capable_packets_are_marked_and_their_checksum_stays_right() {
        for tos in [0b0101_0101_u8, 0b10, 0b11, 0b01] {
            let mut packet = v4(tos);
            assert!(mark(&mut packet));
            assert_eq!((packet[1], header_sum(&packet)), (tos | 3, 0xffff));
        }
        let mut v6 = vec![0x60, 0x10, 0, 0];
        assert!(mark(&mut v6));
        assert_eq!(v6, [0x60, 0x30, 0, 0]);
    }

    #[test]
    fn others_stay_as_they_are() {
        for packet in [v4(0b1010_1000), vec![0x60, 0, 0, 0], vec![0x45, 2], Vec::new()] {
            let mut after = packet.clone();
            assert!(!mark(&mut after));
            assert_eq!(after, packet);
        }
    }
}
