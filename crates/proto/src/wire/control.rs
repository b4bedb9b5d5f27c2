//! Control frames: messages of sealed peers about paths and the session.
//!
//! ```text
//!  0 type 1B
//!  1 path challenge: 8 B that were sent over this path only
//!  2 path response:  the same 8 B
//!  3 close:          reason 1B (0: the sender stops, 1: the client was revoked,
//!                   2: its key has expired)
//!  4 MTU probe:      id 4B | padding of zeros
//!  5 its answer:     the same id 4B | bytes of UDP payload received 2B
//! 6, 7: see [`super::exchange`]; 8: see [`super::figures`]; 16 to 21: see [`super::stream`]
//! ```
//! `seq_num` is 0. A reader ignores bytes behind the fields that it knows, and ignores frames of
//! unknown type: both are for later versions. A probe has the size of its datagram; the padding
//! sets that size.

use super::figures::{FIGURES_BYTES, SendingFigures};
use super::stream::StreamMessage;
use crate::discard::Discard;

/// Bytes of a challenge.
pub const CHALLENGE_BYTES: usize = 8;

/// Bytes of a probe's payload without padding.
pub const PROBE_BYTES: u16 = 5;

/// The reason for closing the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseReason {
    /// The sender stops.
    Shutdown = 0,
    /// The client is no longer allowed to connect.
    Revoked = 1,
    /// The client's key has expired.
    Expired = 2,
}

/// A control frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Asks the peer to prove that it receives at the address that it sends from.
    Challenge([u8; CHALLENGE_BYTES]),
    /// The proof: the bytes of the challenge.
    Response([u8; CHALLENGE_BYTES]),
    /// The sender ends the session.
    Close(CloseReason),
    /// Asks whether a datagram of this size arrives.
    Probe {
        /// The probe's number.
        id: u32,
        /// Bytes of zeros behind it.
        padding: u16,
    },
    /// The answer to a probe that arrived.
    ProbeReceived {
        /// The probe's number.
        id: u32,
        /// UDP payload of the datagram that carried the probe, in bytes.
        bytes: u16,
    },
    /// What the sender knows of what it sends over the link.
    Figures(SendingFigures),
    /// About a stream.
    Stream(StreamMessage),
    /// A type of a later version.
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
                2 => Ok(Self::Close(CloseReason::Expired)),
                _ => Ok(Self::Close(CloseReason::Shutdown)),
            },
            4 => {
                let (id, padding) = rest.split_first_chunk().ok_or(Discard::ControlMalformed)?;
                let padding = u16::try_from(padding.len()).map_err(|_| Discard::ControlMalformed)?;
                Ok(Self::Probe { id: u32::from_be_bytes(*id), padding })
            }
            5 => {
                let (id, rest) = rest.split_first_chunk().ok_or(Discard::ControlMalformed)?;
                let bytes = rest.first_chunk().ok_or(Discard::ControlMalformed)?;
                Ok(Self::ProbeReceived { id: u32::from_be_bytes(*id), bytes: u16::from_be_bytes(*bytes) })
            }
            _ => match SendingFigures::parse(*kind, rest)? {
                Some(figures) => Ok(Self::Figures(figures)),
                None => Ok(StreamMessage::parse(*kind, rest)?.map_or(Self::Unknown, Self::Stream)),
            },
        }
    }

    /// Bytes of the payload.
    pub const fn payload_bytes(&self) -> u16 {
        match self {
            Self::Challenge(_) | Self::Response(_) => 9,
            Self::Close(_) => 2,
            Self::Probe { padding, .. } => PROBE_BYTES.saturating_add(*padding),
            Self::ProbeReceived { .. } => 7,
            Self::Figures(_) => FIGURES_BYTES,
            Self::Stream(message) => message.payload_bytes(),
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
            Self::Probe { id, .. } => {
                let end = buf.len() + usize::from(self.payload_bytes());
                buf.push(4);
                buf.extend_from_slice(&id.to_be_bytes());
                buf.resize(end, 0);
            }
            Self::ProbeReceived { id, bytes } => {
                buf.push(5);
                buf.extend_from_slice(&id.to_be_bytes());
                buf.extend_from_slice(&bytes.to_be_bytes());
            }
            Self::Figures(figures) => figures.put(buf),
            Self::Stream(message) => message.put(buf),
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
            (Control::Close(CloseReason::Expired), vec![3, 2]),
            (Control::Probe { id: 0x0102_0304, padding: 0 }, vec![4, 1, 2, 3, 4]),
            (Control::ProbeReceived { id: 0x0102_0304, bytes: 1_472 }, vec![5, 1, 2, 3, 4, 5, 0xc0]),
        ];
        for (control, expected) in cases {
            let mut bytes = Vec::new();
            control.put(&mut bytes);
            assert_eq!(bytes, expected);
            assert_eq!(usize::from(control.payload_bytes()), bytes.len());
            assert_eq!(Control::parse(&bytes), Ok(control));
            assert_eq!(Control::parse(&bytes[..bytes.len() - 1]), Err(Discard::ControlMalformed));
        }
        let padded = Control::Probe { id: 0x0102_0304, padding: 3 };
        let mut bytes = Vec::new();
        padded.put(&mut bytes);
        assert_eq!(bytes, [4, 1, 2, 3, 4, 0, 0, 0]);
        assert_eq!(Control::parse(&bytes), Ok(padded));
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
