//! Frames: checked views over bytes, and encoders. Total on any input: no panic, no allocation.
//!
//! A frame carries one packet or one message. PROTOCOL.md draws it and lists the test vectors that
//! the tests assert. A plain datagram is exactly one frame. The parsers know neither time nor
//! state: the session decides whether a kind has a meaning on a link.

pub mod control;
pub mod exchange;
pub mod feedback;
pub mod figures;
pub mod heartbeat;
pub mod sealed;
pub mod stream;

use crate::discard::Discard;
pub use crate::modifiers::Modifiers;

/// Bytes of a frame's header: sequence number 8, flags 1, length 2.
pub const FRAME_HEADER_BYTES: usize = 11;

/// Bits of `seq_num` that count within a flow slot; the upper 16 bits name the slot.
pub const COUNTER_BITS: u32 = 48;

const KIND_MASK: u8 = 0x1f;

const _: () = assert!(KIND_MASK | Modifiers::MASK == 0xff, "every bit of the flags means something");

/// The kind of a frame. Exactly one of these bits is set in the flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Measurement of RTT and link.
    Heartbeat = 0x01,
    /// One IP packet.
    Data = 0x02,
    /// Acknowledgement of the datagrams that this link received.
    Feedback = 0x04,
    /// A forward-error-correction symbol.
    Repair = 0x08,
    /// Path challenge and response, MTU probe, close.
    Control = 0x10,
}

impl Kind {
    /// The kind named by the flags byte.
    fn from_flags(flags: u8) -> Result<Self, Discard> {
        match flags & KIND_MASK {
            0x01 => Ok(Self::Heartbeat),
            0x02 => Ok(Self::Data),
            0x04 => Ok(Self::Feedback),
            0x08 => Ok(Self::Repair),
            0x10 => Ok(Self::Control),
            _ => Err(Discard::KindMalformed),
        }
    }
}

/// One frame inside a received datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Data: flow slot and counter. Heartbeat: the link's own count of heartbeats.
    pub seq_num: u64,
    /// The frame's kind.
    pub kind: Kind,
    /// The frame's modifiers.
    pub modifiers: Modifiers,
    /// The `len` bytes behind the header.
    pub payload: &'a [u8],
}

/// Reads the frame at the start of `bytes` and returns it with the bytes behind it.
pub fn parse_frame(bytes: &[u8]) -> Result<(Frame<'_>, &[u8]), Discard> {
    let (seq_num, rest) = bytes.split_first_chunk::<8>().ok_or(Discard::Truncated)?;
    let (&[flags], rest) = rest.split_first_chunk::<1>().ok_or(Discard::Truncated)?;
    let (len, rest) = rest.split_first_chunk::<2>().ok_or(Discard::Truncated)?;
    let len = usize::from(u16::from_be_bytes(*len));
    let (payload, rest) = rest.split_at_checked(len).ok_or(Discard::LengthBeyondEnd)?;
    let frame = Frame {
        seq_num: u64::from_be_bytes(*seq_num),
        kind: Kind::from_flags(flags)?,
        modifiers: Modifiers::from_flags(flags),
        payload,
    };
    Ok((frame, rest))
}

/// Reads a plain datagram: one frame and nothing else.
pub fn parse_plain(bytes: &[u8]) -> Result<Frame<'_>, Discard> {
    match parse_frame(bytes)? {
        (frame, []) => Ok(frame),
        _ => Err(Discard::TrailingBytes),
    }
}

/// Appends a frame's header. The payload of `len` bytes must follow.
pub fn put_frame_header(buf: &mut Vec<u8>, seq_num: u64, kind: Kind, modifiers: Modifiers, len: u16) {
    buf.extend_from_slice(&seq_num.to_be_bytes());
    buf.push(kind as u8 | modifiers.bits());
    buf.extend_from_slice(&len.to_be_bytes());
}

/// Reads fixed-size fields from the front of a payload.
struct Reader<'a> {
    rest: &'a [u8],
    /// The error if the payload ends too early.
    malformed: Discard,
}

impl<'a> Reader<'a> {
    const fn new(payload: &'a [u8], malformed: Discard) -> Self {
        Self { rest: payload, malformed }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Discard> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or(self.malformed)?;
        self.rest = rest;
        Ok(*field)
    }
}

/// The `seq_num` of a data frame.
pub const fn data_seq_num(slot: u16, counter: u64) -> u64 {
    ((slot as u64) << COUNTER_BITS) | (counter & ((1 << COUNTER_BITS) - 1))
}

/// The slot of such a number.
pub const fn flow_slot(seq_num: u64) -> u16 {
    (seq_num >> COUNTER_BITS) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The vectors of PROTOCOL.md.
    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn data_frame_vector() {
        let bytes = hex("0003 0000 0000 002a 02 0004 45000004");
        let frame = parse_plain(&bytes).unwrap();
        assert_eq!(frame.seq_num, data_seq_num(3, 42));
        assert_eq!((frame.kind, frame.modifiers), (Kind::Data, Modifiers::NONE));
        assert_eq!(frame.payload, [0x45, 0, 0, 4]);

        let mut buf = Vec::new();
        put_frame_header(&mut buf, data_seq_num(3, 42), Kind::Data, Modifiers::NONE, 4);
        buf.extend_from_slice(&[0x45, 0, 0, 4]);
        assert_eq!(buf, bytes);
    }

    #[test]
    fn modifiers_are_kept_apart_from_the_kind() {
        let at_once = hex("0000 0000 0000 0001 42 0000");
        assert_eq!(parse_plain(&at_once).unwrap().modifiers, Modifiers::AT_ONCE);
        let both = hex("0000 0000 0000 0001 c2 0000");
        assert_eq!(parse_plain(&both).unwrap().modifiers, Modifiers::AT_ONCE.with(Modifiers::PARTIAL));
        let compressed = hex("0000 0000 0000 0001 22 0000");
        assert_eq!(parse_plain(&compressed).unwrap().modifiers, Modifiers::COMPRESSED);
    }

    #[test]
    fn malformed_vectors() {
        let cases = [
            ("", Discard::Truncated),
            ("0000 0000 0000 0001 02 00", Discard::Truncated),
            ("0000 0000 0000 0001 02 0001", Discard::LengthBeyondEnd),
            ("0000 0000 0000 0001 02 0000 ff", Discard::TrailingBytes),
            ("0000 0000 0000 0001 00 0000", Discard::KindMalformed),
            ("0000 0000 0000 0001 03 0000", Discard::KindMalformed),
            ("0000 0000 0000 0001 40 0000", Discard::KindMalformed),
            ("0000 0000 0000 0001 80 0000", Discard::KindMalformed),
        ];
        for (bytes, discard) in cases {
            assert_eq!(parse_plain(&hex(bytes)), Err(discard), "{bytes}");
        }
    }

    #[test]
    fn several_frames_follow_one_another() {
        let bytes = hex("0000 0000 0000 0001 02 0001 aa 0000 0000 0000 0002 04 0000");
        let (first, rest) = parse_frame(&bytes).unwrap();
        let (second, rest) = parse_frame(rest).unwrap();
        assert_eq!((first.seq_num, second.seq_num, rest.len()), (1, 2, 0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok((frame, rest)) = parse_frame(&bytes) {
                let mut again = Vec::new();
                let len = u16::try_from(frame.payload.len()).unwrap();
                put_frame_header(&mut again, frame.seq_num, frame.kind, frame.modifiers, len);
                again.extend_from_slice(frame.payload);
                again.extend_from_slice(rest);
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn a_frame_with_a_sane_head_is_read(
            seq_num: u64, flags: u8, payload in proptest::collection::vec(any::<u8>(), 0..40), cut in 0usize..60,
        ) {
            let mut bytes = seq_num.to_be_bytes().to_vec();
            bytes.push(flags);
            bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(&payload);
            let one_kind = (flags & KIND_MASK).count_ones() == 1;
            prop_assert_eq!(parse_plain(&bytes).is_ok(), one_kind);
            let cut = cut.min(bytes.len());
            prop_assert_eq!(parse_plain(&bytes[..cut]).is_ok(), one_kind && cut == bytes.len());
        }
    }
}
