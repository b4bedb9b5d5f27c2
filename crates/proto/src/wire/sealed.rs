//! Sealed datagrams: a clear header that the tag authenticates, sealed frames, and the tag.
//!
//! ```text
//! 0 kind 1B | 1 link 1B | 2 stamp 2B | 4 receiver index 4B | 8 counter 8B | 16 frames | tag 16B
//! ```
//! The lower five bits of the byte "link" are the link, and the upper three the UDP flow. A link's
//! flows share its counters.
//!
//! The first byte of a datagram tells its kind: below 0x80 it is a plain frame, otherwise one of
//! [`DatagramKind`].

use std::time::Duration;

use crate::discard::Discard;
use crate::time::Instant;

/// How far the flow is above the link in its byte.
const FLOW_SHIFT: u8 = 5;

/// Bytes of the header.
pub const SEALED_HEADER_BYTES: usize = 16;

/// The kind of a datagram other than a plain frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DatagramKind {
    /// The first message of a handshake, from the client to the server.
    Initiation = 0x81,
    /// The server's answer to it.
    Response = 0x82,
    /// A cookie: the server asks the client to repeat the initiation with it.
    Cookie = 0x83,
    /// Sealed frames.
    Sealed = 0x84,
}

impl DatagramKind {
    /// The kind by the datagram's first byte; `None`: a plain frame, or an unknown kind.
    pub fn of(datagram: &[u8]) -> Option<Self> {
        match datagram.first()? {
            0x81 => Some(Self::Initiation),
            0x82 => Some(Self::Response),
            0x83 => Some(Self::Cookie),
            0x84 => Some(Self::Sealed),
            _ => None,
        }
    }
}

/// The header of a sealed datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedHeader {
    /// The client's number of the link, below 32.
    pub link: u8,
    /// The UDP flow of the link, below 8.
    pub flow: u8,
    /// The sender's clock in units of 100 µs, modulo 2^16.
    pub stamp: u16,
    /// The number that the receiver gave the key.
    pub receiver_index: u32,
    /// Number of the datagram on this link under this key.
    pub counter: u64,
}

impl SealedHeader {
    /// Reads the header of a sealed datagram; the bytes behind it are sealed.
    pub fn parse(datagram: &[u8]) -> Result<Self, Discard> {
        let (header, _) = datagram.split_first_chunk::<SEALED_HEADER_BYTES>().ok_or(Discard::Truncated)?;
        let [kind, way, s0, s1, i0, i1, i2, i3, counter @ ..] = *header;
        if kind != DatagramKind::Sealed as u8 {
            return Err(Discard::KindMalformed);
        }
        Ok(Self {
            link: way % (1 << FLOW_SHIFT),
            flow: way >> FLOW_SHIFT,
            stamp: u16::from_be_bytes([s0, s1]),
            receiver_index: u32::from_be_bytes([i0, i1, i2, i3]),
            counter: u64::from_be_bytes(counter),
        })
    }

    /// The bytes on the wire.
    pub const fn to_bytes(self) -> [u8; SEALED_HEADER_BYTES] {
        let [s0, s1] = self.stamp.to_be_bytes();
        let [i0, i1, i2, i3] = self.receiver_index.to_be_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.counter.to_be_bytes();
        let kind = DatagramKind::Sealed as u8;
        let way = self.link | self.flow << FLOW_SHIFT;
        [kind, way, s0, s1, i0, i1, i2, i3, c0, c1, c2, c3, c4, c5, c6, c7]
    }
}

/// The receiver index of a sealed datagram, a response or a cookie.
pub fn receiver_index(datagram: &[u8]) -> Option<u32> {
    let index = datagram.get(4..)?.first_chunk()?;
    Some(u32::from_be_bytes(*index))
}

/// The stamp of a point in time.
pub fn stamp(now: Instant) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "modulo 2^16 is what the stamp is")]
    let stamp = (now.as_micros() / 100) as u16;
    stamp
}

/// The time between two stamps of this difference.
pub fn span(difference: u16) -> Duration {
    Duration::from_micros(u64::from(difference) * 100)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The vector of PROTOCOL.md.
    #[test]
    fn vector() {
        let header =
            SealedHeader { link: 3, flow: 0, stamp: 0x1234, receiver_index: 0xaabb_ccdd, counter: 42 };
        let mut bytes = [0x84, 3, 0x12, 0x34, 0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 0, 0, 0, 0, 42];
        assert_eq!(header.to_bytes(), bytes);
        assert_eq!(SealedHeader::parse(&bytes), Ok(header));
        let header = SealedHeader { flow: 6, ..header };
        bytes[1] = 0xc3;
        assert_eq!(header.to_bytes(), bytes);
        assert_eq!(SealedHeader::parse(&bytes), Ok(header));
        assert_eq!(SealedHeader::parse(&bytes[..15]), Err(Discard::Truncated));
        assert_eq!(stamp(Instant::from_nanos(100_000 * 65_537)), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let kind = DatagramKind::of(&bytes);
            if let Ok(header) = SealedHeader::parse(&bytes) {
                prop_assert_eq!(kind, Some(DatagramKind::Sealed));
                prop_assert_eq!(&header.to_bytes()[..], &bytes[..SEALED_HEADER_BYTES]);
            }
        }
    }
}
