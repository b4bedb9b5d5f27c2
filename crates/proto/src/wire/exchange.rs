//! Control frames of an exchange with ML-KEM-768, from which the next handshake's secret comes.
//!
//! ```text
//!  0 type 1B
//!  6 key part:   handshake 4B | part 1B (0 or 1) | half of the client's encapsulation key 592B
//!  7 ciphertext: handshake 4B | the server's ciphertext 1,088B
//! ```
//! The handshake is the client's index of the keys that the frame is sealed under: it names the
//! exchange. A key does not fit one datagram of 1,200 bytes. A reader ignores bytes behind the
//! fields.

use crate::discard::Discard;

/// Bytes of a part of the key.
pub const PART_BYTES: usize = 592;
/// Parts of a key, and the last one's number.
pub const PARTS: usize = 2;
/// As above.
pub const PART_MAX: u8 = 1;
/// Bytes of the ciphertext.
pub const CIPHERTEXT_BYTES: usize = 1_088;

const KEY_PART: u8 = 6;
const CIPHERTEXT: u8 = 7;

/// A frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeFrame<'a> {
    /// Half of the client's key.
    KeyPart {
        /// The client's index of the keys.
        handshake: u32,
        /// Which half: at most [`PART_MAX`].
        part: u8,
        /// Its bytes.
        bytes: &'a [u8; PART_BYTES],
    },
    /// The server's answer to both halves.
    Ciphertext {
        /// The client's index of the keys.
        handshake: u32,
        /// Its bytes.
        bytes: &'a [u8; CIPHERTEXT_BYTES],
    },
}

impl<'a> ExchangeFrame<'a> {
    /// Reads a control frame's payload; `None`: it is another control frame.
    pub fn parse(payload: &'a [u8]) -> Result<Option<Self>, Discard> {
        let malformed = Discard::ControlMalformed;
        let Some((kind @ (&KEY_PART | &CIPHERTEXT), rest)) = payload.split_first() else { return Ok(None) };
        let (handshake, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let handshake = u32::from_be_bytes(*handshake);
        if *kind == CIPHERTEXT {
            let bytes = rest.first_chunk().ok_or(malformed)?;
            return Ok(Some(Self::Ciphertext { handshake, bytes }));
        }
        let (part, rest) = rest.split_first().ok_or(malformed)?;
        let bytes = rest.first_chunk().ok_or(malformed)?;
        if *part > PART_MAX {
            return Err(malformed);
        }
        Ok(Some(Self::KeyPart { handshake, part: *part, bytes }))
    }

    /// Bytes of the payload.
    pub const fn payload_bytes(&self) -> u16 {
        match self {
            Self::KeyPart { .. } => 598,
            Self::Ciphertext { .. } => 1_093,
        }
    }

    /// Appends the payload.
    pub fn put(&self, buf: &mut Vec<u8>) {
        match self {
            Self::KeyPart { handshake, part, bytes } => {
                buf.push(KEY_PART);
                buf.extend_from_slice(&handshake.to_be_bytes());
                buf.push(*part);
                buf.extend_from_slice(*bytes);
            }
            Self::Ciphertext { handshake, bytes } => {
                buf.push(CIPHERTEXT);
                buf.extend_from_slice(&handshake.to_be_bytes());
                buf.extend_from_slice(*bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::control::Control;

    /// The heads are those of PROTOCOL.md.
    #[test]
    fn vectors() {
        let (half, ciphertext) = ([0xab; PART_BYTES], [0xcd; CIPHERTEXT_BYTES]);
        let cases = [
            (
                ExchangeFrame::KeyPart { handshake: 0x0102_0304, part: 1, bytes: &half },
                [&[6, 1, 2, 3, 4, 1][..], &half].concat(),
            ),
            (
                ExchangeFrame::Ciphertext { handshake: 0x0102_0304, bytes: &ciphertext },
                [&[7, 1, 2, 3, 4][..], &ciphertext].concat(),
            ),
        ];
        for (frame, expected) in cases {
            let mut bytes = Vec::new();
            frame.put(&mut bytes);
            assert_eq!(bytes, expected);
            assert_eq!(usize::from(frame.payload_bytes()), bytes.len());
            assert_eq!(ExchangeFrame::parse(&bytes), Ok(Some(frame)));
            assert_eq!(Control::parse(&bytes), Ok(Control::Unknown), "to an older version it does nothing");
            for short in 1..bytes.len() {
                assert_eq!(ExchangeFrame::parse(&bytes[..short]), Err(Discard::ControlMalformed));
            }
            bytes.push(1);
            assert_eq!(ExchangeFrame::parse(&bytes), Ok(Some(frame)));
        }
        let mut bytes = Vec::new();
        ExchangeFrame::KeyPart { handshake: 1, part: 2, bytes: &half }.put(&mut bytes);
        assert_eq!(ExchangeFrame::parse(&bytes), Err(Discard::ControlMalformed));
        assert_eq!(ExchangeFrame::parse(&[1, 2, 3]), Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1_200), kind in 5..9_u8) {
            let _ = ExchangeFrame::parse(&bytes);
            let _ = ExchangeFrame::parse(&[&[kind][..], &bytes].concat());
        }
    }
}
