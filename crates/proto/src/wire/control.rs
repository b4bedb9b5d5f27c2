//! Control frames: what sealed peers tell each other about paths and the session.
//!
//! ```text
//!  0 type 1B
//!  1 path challenge: 8 B that only this path has seen      2 path response: the same 8 B
//!  3 close: reason 1B (0 the sender stops, 1 the client was revoked)
//! ```
//! `seq_num` is 0. A longer payload is read as far as this; an unknown type is for later versions and does nothing.

use crate::discard::Discard;

/// Bytes of a challenge.
pub const CHALLENGE_BYTES: usize = 8;

/// Why a peer closes the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseReason {
    /// It stops.
    Shutdown = 0,
    /// The client may not connect any more.
    Revoked = 1,
}

/// A control frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Prove that you receive at the address that you send from.
    Challenge([u8; CHALLENGE_BYTES]),
    /// The proof.
    Response([u8; CHALLENGE_BYTES]),
    /// The session is over.
    Close(CloseReason),
    /// Of a later version.
    Unknown,
}

impl Control {
    /// Reads a payload.
    pub fn parse(payload: &[u8]) -> Result<Self, Discard> {
        let (kind, rest) = payload.split_first().ok_or(Discard::ControlMalformed)?;
        let token = || rest.first_chunk().copied().ok_or(Discard::ControlMalformed);
        match kind {
            1 => Ok(Self::Challenge(token()?)),
            2 => Ok(Self::Response(token()?)),
            3 => match rest.first().ok_or(Discard::ControlMalformed)? {
                1 => Ok(Self::Close(CloseReason::Revoked)),
                _ => Ok(Self::Close(CloseReason::Shutdown)),
            },
            _ => Ok(Self::Unknown),
        }
    }

    /// Bytes of the payload.
    pub const fn payload_bytes(&self) -> u16 {
        match self {
            Self::Challenge(_) | Self::Response(_) => 9,
            Self::Close(_) => 2,
            Self::Unknown => 1,
        }
    }

    /// Appends the payload.
    pub fn put(&self, buf: &mut Vec<u8>) {
        match self {
            Self::Challenge(token) => {
                buf.push(1);
                buf.extend_from_slice(token);
            }
            Self::Response(token) => {
                buf.push(2);
                buf.extend_from_slice(token);
            }
            Self::Close(reason) => buf.extend_from_slice(&[3, *reason as u8]),
            Self::Unknown => buf.push(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn vectors() {
        let token = [1, 2, 3, 4, 5, 6, 7, 8];
        let cases = [
            (Control::Challenge(token), vec![1, 1, 2, 3, 4, 5, 6, 7, 8]),
            (Control::Response(token), vec![2, 1, 2, 3, 4, 5, 6, 7, 8]),
            (Control::Close(CloseReason::Shutdown), vec![3, 0]),
            (Control::Close(CloseReason::Revoked), vec![3, 1]),
        ];
        for (control, expected) in cases {
            let mut bytes = Vec::new();
            control.put(&mut bytes);
            assert_eq!(bytes, expected);
            assert_eq!(usize::from(control.payload_bytes()), bytes.len());
            assert_eq!(Control::parse(&bytes), Ok(control));
            assert_eq!(Control::parse(&bytes[..bytes.len() - 1]), Err(Discard::ControlMalformed));
        }
        assert_eq!(Control::parse(&[]), Err(Discard::ControlMalformed));
        assert_eq!(Control::parse(&[9, 1]), Ok(Control::Unknown));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = Control::parse(&bytes);
        }
    }
}
