//! Fragments an IPv4 packet that may be fragmented (RFC 791 §3.2).
//!
//! A packet that is a fragment already is fragmented again in the same way. Each later fragment
//! carries only the options with the "copied" flag (RFC 791 §3.1).

use bytes::{Bytes, BytesMut};

use super::checksum;
use crate::packet::PacketBuf;

// RFC 791 §3.1: the word of flags and offset.
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// The fragments of at most `mtu` bytes, in order; empty where the packet cannot be fragmented.
pub(crate) fn fragments(packet: &[u8], mtu: usize) -> Vec<PacketBuf> {
    try_fragments(packet, mtu).unwrap_or_default()
}

fn try_fragments(packet: &[u8], mtu: usize) -> Option<Vec<PacketBuf>> {
    let fixed = packet.first_chunk::<20>()?;
    let (header, payload) = packet.split_at_checked(usize::from(fixed[0] & 0x0f) * 4)?;
    if fixed[0] >> 4 != 4 || header.len() < fixed.len() {
        return None;
    }
    // Offsets count in units of 8 bytes.
    let room = mtu.checked_sub(header.len())? / 8 * 8;
    if room == 0 {
        return None;
    }
    let word = u16::from_be_bytes([fixed[6], fixed[7]]);
    let later = later_header(header);
    let mut offset = word & OFFSET;
    let mut rest = payload;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(room.min(rest.len()));
        let more = if behind.is_empty() { word & MORE } else { MORE };
        // RFC 791 §3.1: the offset has 13 bits, and no packet ends beyond them.
        let place = Some(offset).filter(|offset| *offset <= OFFSET)?;
        let head = if pieces.is_empty() { header } else { later.as_slice() };
        pieces.push(piece(head, part, place | more)?);
        offset = place + u16::try_from(part.len() / 8).ok()?;
        rest = behind;
    }
    Some(pieces)
}

/// The header of every fragment but the first. Options without the "copied" flag become padding, so
/// that all later headers have the same length.
fn later_header(header: &[u8]) -> Vec<u8> {
    let mut header = header.to_vec();
    let mut at = 20;
    while let Some(kind) = header.get(at).copied() {
        let length = match kind {
            0 => break,
            1 => 1,
            _ => header.get(at + 1).map_or(0, |length| usize::from(*length)),
        };
        let Some(option) = header.get_mut(at..at + length).filter(|option| !option.is_empty()) else { break };
        if kind & 0x80 == 0 {
            option.fill(1);
        }
        at += length;
    }
    header
}

fn piece(header: &[u8], part: &[u8], word: u16) -> Option<PacketBuf> {
    let total = u16::try_from(header.len() + part.len()).ok()?;
    let mut bytes = BytesMut::with_capacity(usize::from(total));
    bytes.extend_from_slice(header);
    bytes.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
    bytes.get_mut(6..8)?.copy_from_slice(&word.to_be_bytes());
    bytes.get_mut(10..12)?.fill(0);
    let sum = !checksum::sum(0, &bytes);
    bytes.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    bytes.extend_from_slice(part);
    Some(Bytes::from(bytes).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{sum, v4};
    use super::*;
    use crate::inner::header;

    /// Reassembles the fragments: the payload, and whether it is complete.
    fn joined(pieces: &[PacketBuf]) -> (Vec<u8>, bool) {
        let mut payload = Vec::new();
        let mut ended = false;
        for piece in pieces {
            let word = u16::from_be_bytes([piece[6], piece[7]]);
            assert_eq!(usize::from(word & OFFSET) * 8, payload.len());
            assert!(!ended);
            ended = word & MORE == 0;
            payload.extend_from_slice(&piece[usize::from(piece[0] & 15) * 4..]);
        }
        (payload, ended)
    }

    #[test]
    fn pieces_make_up_the_packet() {
        let payload: Vec<u8> = (0..1_400u16).map(|n| n.to_be_bytes()[1]).collect();
        let packet = v4(17, 0, &payload);
        let pieces = fragments(&packet, 1_229);
        assert_eq!(pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>(), [20 + 1_208, 20 + 192]);
        assert_eq!(joined(&pieces), (payload, true));
        // All fragments belong to one flow, whatever ports they show.
        let flows = pieces.iter().map(|piece| header::parse(piece).unwrap());
        assert!(flows.into_iter().all(|header| header.ports.is_none() && header.protocol == 17));
    }

    #[test]
    fn a_piece_is_cut_again_and_says_that_more_follows() {
        let first = fragments(&v4(17, 0, &[9; 4_000]), 1_500);
        assert_eq!(first.len(), 3);
        let again = fragments(&first[1], 700);
        let words: Vec<u16> = again.iter().map(|p| u16::from_be_bytes([p[6], p[7]])).collect();
        assert_eq!(words, [185 | MORE, (185 + 85) | MORE, (185 + 170) | MORE]);
    }

    #[test]
    fn options_are_copied_only_where_they_ask_for_it() {
        let mut packet = v4(17, 0, &[9; 1_400]);
        packet[0] = 0x47;
        // Record route (not copied), then router alert (copied).
        packet[20..28].copy_from_slice(&[7, 3, 4, 0x94, 4, 0, 0, 1]);
        let pieces = fragments(&packet, 700);
        assert_eq!(pieces[0][20..28], [7, 3, 4, 0x94, 4, 0, 0, 1]);
        assert_eq!(pieces[1][20..28], [1, 1, 1, 0x94, 4, 0, 0, 1]);
    }

    proptest! {
        #[test]
        fn any_bytes_give_whole_pieces_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..2_000), word: u16, ihl in 0u8..16, mtu in 0usize..1_500,
        ) {
            let mut bytes = bytes;
            if bytes.len() >= 20 {
                let length = u16::try_from(bytes.len()).unwrap();
                bytes[0] = 0x40 | ihl;
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                bytes[6..8].copy_from_slice(&(word & 0x3fff).to_be_bytes());
            }
            let pieces = fragments(&bytes, mtu);
            let mut payload = Vec::new();
            for piece in &pieces {
                prop_assert!(piece.len() <= mtu && header::parse(piece).is_ok());
                let header = usize::from(piece[0] & 15) * 4;
                prop_assert_eq!(sum(&[&piece[..header]]), 0xffff);
                payload.extend_from_slice(&piece[header..]);
            }
            if !pieces.is_empty() {
                prop_assert_eq!(&payload[..], &bytes[usize::from(ihl) * 4..]);
            }
        }
    }
}
