//! Messages about streams: control frames of the types 16 to 21.
//!
//! ```text
//!  0 type 1B
//!  1 position 8B: bit 63 set | stream 15 bits | offset 48 bits
//! 16 open:    the stream's first offset | credit 4B | DSCP 1B | port 2B | address 4B, 16B | form
//! 17 opened:  the stream's first offset | credit 4B | form
//! 18 refused: the stream's first offset | reason 1B
//! 19 credit:  the peer may send bytes below this offset
//! 20 end:     the sender's bytes end below this offset
//! 21 reset:   the stream's first offset
//! ```
//! The position is also the `seq_num` of the data frames that carry a stream's bytes: there the
//! offset is that of the payload's first byte. A stream's number is used again after its end; its
//! first offset is then above all that were used before, so old frames are told from new ones.
//! Form: 1 byte, absent if zero; bit 0: the bytes of both directions are blocks.

use std::net::{IpAddr, SocketAddr};

use super::{COUNTER_BITS, Reader};
use crate::discard::Discard;
use crate::position::Position;

/// The first of the types.
const OPEN: u8 = 16;

/// The reason why a stream was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamRefusal {
    /// The destination refused the connection.
    Refused = 0,
    /// No way leads to the destination.
    Unreachable = 1,
    /// The destination did not answer.
    TimedOut = 2,
    /// The server's policy forbids the destination to this client.
    Forbidden = 3,
    /// The connection is to go as packets: the server has no room for another stream, or the
    /// packets' own source is of importance.
    AsPackets = 4,
}

/// The meaning of a stream's bytes to the two sides that read and write them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StreamForm {
    /// They are the connection's.
    #[default]
    Plain,
    /// They are blocks, some of which are compressed, in both directions.
    Blocks,
}

/// Bit 0 of the form's byte.
const FORM_BLOCKS: u8 = 0x01;

impl StreamForm {
    /// What stands behind the known fields; nothing: an earlier version, or plain.
    fn of(reader: &mut Reader<'_>) -> Self {
        match reader.take() {
            Ok([form]) if form & FORM_BLOCKS != 0 => Self::Blocks,
            Ok(_) | Err(_) => Self::Plain,
        }
    }

    const fn bytes(self) -> u16 {
        match self {
            Self::Plain => 0,
            Self::Blocks => 1,
        }
    }

    fn put(self, buf: &mut Vec<u8>) {
        if self == Self::Blocks {
            buf.push(FORM_BLOCKS);
        }
    }
}

/// What a control frame says about a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamMessage {
    /// Asks the peer to connect to `to`.
    Open {
        /// The stream, and its first offset in both directions.
        at: Position,
        /// The peer may send so many bytes.
        credit: u32,
        /// The mark of the connection's packets (RFC 2474).
        dscp: u8,
        /// Where the connection goes.
        to: SocketAddr,
        /// The form that the sender reads and writes as well.
        form: StreamForm,
    },
    /// The connection stands.
    Opened {
        /// As in `Open`.
        at: Position,
        /// The peer may send so many bytes.
        credit: u32,
        /// The form of both directions: blocks only if the peer reads and writes them.
        form: StreamForm,
    },
    /// The connection does not stand.
    Refused {
        /// As in `Open`.
        at: Position,
        /// Why.
        reason: StreamRefusal,
    },
    /// The peer may send bytes below this offset.
    Credit(Position),
    /// The sender's bytes end below this offset.
    End(Position),
    /// The sender gave the stream up; the position is its first.
    Reset(Position),
}

impl StreamMessage {
    /// Reads what follows the type; `None`: the type is no stream's.
    pub(super) fn parse(kind: u8, rest: &[u8]) -> Result<Option<Self>, Discard> {
        let Some(kind) = kind.checked_sub(OPEN).filter(|kind| *kind <= 5) else { return Ok(None) };
        let mut reader = Reader::new(rest, Discard::ControlMalformed);
        let at = u64::from_be_bytes(reader.take()?);
        let at = Position::parse(at).ok_or(Discard::ControlMalformed)?;
        Ok(Some(match kind {
            0 => {
                let credit = u32::from_be_bytes(reader.take()?);
                let [dscp] = reader.take()?;
                let port = u16::from_be_bytes(reader.take()?);
                let address = match reader.take::<16>() {
                    Ok(address) => IpAddr::from(address),
                    Err(_) => IpAddr::from(reader.take::<4>()?),
                };
                let form = StreamForm::of(&mut reader);
                Self::Open { at, credit, dscp, to: SocketAddr::new(address, port), form }
            }
            1 => {
                let credit = u32::from_be_bytes(reader.take()?);
                Self::Opened { at, credit, form: StreamForm::of(&mut reader) }
            }
            2 => {
                let [reason] = reader.take()?;
                Self::Refused { at, reason: refusal(reason) }
            }
            3 => Self::Credit(at),
            4 => Self::End(at),
            _ => Self::Reset(at),
        }))
    }

    /// Bytes of the payload, the type included.
    pub(super) const fn payload_bytes(&self) -> u16 {
        match self {
            Self::Open { to: SocketAddr::V4(_), form, .. } => 20 + form.bytes(),
            Self::Open { to: SocketAddr::V6(_), form, .. } => 32 + form.bytes(),
            Self::Opened { form, .. } => 13 + form.bytes(),
            Self::Refused { .. } => 10,
            Self::Credit(_) | Self::End(_) | Self::Reset(_) => 9,
        }
    }

    /// Appends the payload.
    pub(super) fn put(&self, buf: &mut Vec<u8>) {
        let (kind, at) = match self {
            Self::Open { at, .. } => (0, at),
            Self::Opened { at, .. } => (1, at),
            Self::Refused { at, .. } => (2, at),
            Self::Credit(at) => (3, at),
            Self::End(at) => (4, at),
            Self::Reset(at) => (5, at),
        };
        buf.push(OPEN + kind);
        buf.extend_from_slice(&at.seq_num().to_be_bytes());
        match self {
            Self::Open { credit, dscp, to, form, .. } => {
                buf.extend_from_slice(&credit.to_be_bytes());
                buf.push(*dscp);
                buf.extend_from_slice(&to.port().to_be_bytes());
                match to.ip() {
                    IpAddr::V4(address) => buf.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => buf.extend_from_slice(&address.octets()),
                }
                form.put(buf);
            }
            Self::Opened { credit, form, .. } => {
                buf.extend_from_slice(&credit.to_be_bytes());
                form.put(buf);
            }
            Self::Refused { reason, .. } => buf.push(*reason as u8),
            Self::Credit(_) | Self::End(_) | Self::Reset(_) => {}
        }
    }
}

/// A reason of a later version is the vaguest of this one.
const fn refusal(number: u8) -> StreamRefusal {
    match number {
        0 => StreamRefusal::Refused,
        2 => StreamRefusal::TimedOut,
        3 => StreamRefusal::Forbidden,
        4 => StreamRefusal::AsPackets,
        _ => StreamRefusal::Unreachable,
    }
}

const _: () = assert!(COUNTER_BITS == Position::OFFSET_BITS);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::control::Control;
    use super::super::{Kind, Modifiers, parse_plain, put_frame_header};
    use super::*;
    use crate::position::StreamId;

    fn position(stream: u16, offset: u64) -> Position {
        Position::new(StreamId::new(stream).unwrap(), offset)
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    fn written(message: StreamMessage) -> Vec<u8> {
        let mut bytes = Vec::new();
        Control::Stream(message).put(&mut bytes);
        bytes
    }

    #[test]
    fn vectors() {
        let at = position(0x102, 0x0304_0506_0708);
        let open = |to: &str, form| StreamMessage::Open {
            at,
            credit: 0x20_0000,
            dscp: 46,
            to: to.parse().unwrap(),
            form,
        };
        let (plain, blocks) = (StreamForm::Plain, StreamForm::Blocks);
        let refused = |reason| StreamMessage::Refused { at, reason };
        let cases = [
            (open("192.0.2.1:443", plain), "10 8102030405060708 00200000 2e 01bb c0000201"),
            (open("192.0.2.1:443", blocks), "10 8102030405060708 00200000 2e 01bb c0000201 01"),
            (
                open("[2001:db8::1]:443", plain),
                "10 8102030405060708 00200000 2e 01bb 20010db8000000000000000000000001",
            ),
            (
                open("[2001:db8::1]:443", blocks),
                "10 8102030405060708 00200000 2e 01bb 20010db8000000000000000000000001 01",
            ),
            (StreamMessage::Opened { at, credit: 0x1_0000, form: plain }, "11 8102030405060708 00010000"),
            (StreamMessage::Opened { at, credit: 0x1_0000, form: blocks }, "11 8102030405060708 00010000 01"),
            (refused(StreamRefusal::Refused), "12 8102030405060708 00"),
            (refused(StreamRefusal::Unreachable), "12 8102030405060708 01"),
            (refused(StreamRefusal::TimedOut), "12 8102030405060708 02"),
            (refused(StreamRefusal::Forbidden), "12 8102030405060708 03"),
            (refused(StreamRefusal::AsPackets), "12 8102030405060708 04"),
            (StreamMessage::Credit(at), "13 8102030405060708"),
            (StreamMessage::End(at), "14 8102030405060708"),
            (StreamMessage::Reset(at), "15 8102030405060708"),
        ];
        for (message, expected) in cases {
            let expected = hex(expected);
            assert_eq!(written(message), expected, "{message:?}");
            assert_eq!(usize::from(message.payload_bytes()), expected.len(), "{message:?}");
            assert_eq!(Control::parse(&expected), Ok(Control::Stream(message)));
            for length in 1..expected.len() {
                let result = Control::parse(&expected[..length]);
                // An IPv6 address that is cut is an IPv4 address with something behind it, and a
                // form that is cut is plain.
                match (message, result) {
                    (message, Ok(Control::Stream(read)))
                        if length == expected.len() - 1 && is_blocks(message) =>
                    {
                        assert_eq!(written(read), expected[..length], "{message:?}");
                    }
                    (StreamMessage::Open { to, .. }, Ok(Control::Stream(read))) if to.is_ipv6() => {
                        assert!((20..32).contains(&length), "{length} bytes");
                        let address = "32.1.13.184:443".parse().unwrap();
                        let StreamMessage::Open { to, .. } = read else { panic!("{read:?}") };
                        assert_eq!(to, address);
                    }
                    (_, result) => {
                        assert_eq!(result, Err(Discard::ControlMalformed), "{message:?}, {length} bytes");
                    }
                }
            }
        }
    }

    const fn is_blocks(message: StreamMessage) -> bool {
        matches!(
            message,
            StreamMessage::Open { form: StreamForm::Blocks, .. }
                | StreamMessage::Opened { form: StreamForm::Blocks, .. }
        )
    }

    #[test]
    fn a_piece_is_a_data_frame_whose_number_is_a_position() {
        let at = position(0x102, 0x0304_0506_0708);
        let bytes = hex("8102 0304 0506 0708 02 0005 68656c6c6f");
        let frame = parse_plain(&bytes).unwrap();
        assert_eq!(
            (frame.kind, frame.modifiers, frame.payload),
            (Kind::Data, Modifiers::NONE, &b"hello"[..])
        );
        assert_eq!(Position::parse(frame.seq_num), Some(at));
        let mut again = Vec::new();
        put_frame_header(&mut again, at.seq_num(), Kind::Data, Modifiers::NONE, 5);
        again.extend_from_slice(b"hello");
        assert_eq!(again, bytes);
    }

    #[test]
    fn malformed_vectors() {
        let malformed = [
            // No position.
            "10",
            "13 81020304050607",
            // The position of a packet: bit 63 is clear.
            "10 0102030405060708 00200000 2e 01bb c0000201",
            "13 0102030405060708",
            "15 7fffffffffffffff",
            // Without all of the address, the credit, the reason.
            "10 8102030405060708 00200000 2e 01bb c00002",
            "11 8102030405060708 000100",
            "12 8102030405060708",
        ];
        for bytes in malformed {
            assert_eq!(Control::parse(&hex(bytes)), Err(Discard::ControlMalformed), "{bytes}");
        }
        // Types beside those of streams.
        for bytes in ["0f 8102030405060708", "16 8102030405060708"] {
            assert_eq!(Control::parse(&hex(bytes)), Ok(Control::Unknown), "{bytes}");
        }
    }

    #[test]
    fn what_a_later_version_says_is_read_as_far_as_this() {
        let at = position(0x102, 0x0304_0506_0708);
        let later = [
            ("12 8102030405060708 05", StreamMessage::Refused { at, reason: StreamRefusal::Unreachable }),
            ("12 8102030405060708 ff", StreamMessage::Refused { at, reason: StreamRefusal::Unreachable }),
            (
                "11 8102030405060708 00010000 fe",
                StreamMessage::Opened { at, credit: 0x1_0000, form: StreamForm::Plain },
            ),
            (
                "11 8102030405060708 00010000 ff ff",
                StreamMessage::Opened { at, credit: 0x1_0000, form: StreamForm::Blocks },
            ),
            ("14 8102030405060708 ffff", StreamMessage::End(at)),
        ];
        for (bytes, expected) in later {
            assert_eq!(Control::parse(&hex(bytes)), Ok(Control::Stream(expected)), "{bytes}");
        }
    }

    prop_compose! {
        fn any_position()(stream in 0..StreamId::COUNT, offset: u64) -> Position { position(stream, offset) }
    }

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        let ipv4 = (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from);
        let ipv6 = (any::<[u8; 16]>(), any::<u16>()).prop_map(SocketAddr::from);
        prop_oneof![ipv4, ipv6]
    }

    fn any_message() -> impl Strategy<Value = StreamMessage> {
        let form = || prop_oneof![Just(StreamForm::Plain), Just(StreamForm::Blocks)];
        let open = (any_position(), any::<u32>(), any::<u8>(), any_address(), form())
            .prop_map(|(at, credit, dscp, to, form)| StreamMessage::Open { at, credit, dscp, to, form });
        let opened = (any_position(), any::<u32>(), form())
            .prop_map(|(at, credit, form)| StreamMessage::Opened { at, credit, form });
        let refused = (any_position(), any::<u8>())
            .prop_map(|(at, number)| StreamMessage::Refused { at, reason: refusal(number % 5) });
        let others = (any_position(), 0..3).prop_map(|(at, kind)| match kind {
            0 => StreamMessage::Credit(at),
            1 => StreamMessage::End(at),
            _ => StreamMessage::Reset(at),
        });
        prop_oneof![open, opened, refused, others]
    }

    proptest! {
        #[test]
        fn a_message_that_is_written_is_read_again(message in any_message()) {
            let bytes = written(message);
            prop_assert_eq!(bytes.len(), usize::from(message.payload_bytes()));
            prop_assert_eq!(Control::parse(&bytes), Ok(Control::Stream(message)));
        }

        #[test]
        fn any_bytes_behind_a_type_are_read_or_refused(
            kind in OPEN..OPEN + 6, rest in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            match Control::parse(&bytes) {
                // Written again it is the same: reasons of later versions became one of this.
                Ok(Control::Stream(message)) => {
                    let again = written(message);
                    prop_assert_eq!(Control::parse(&again), Ok(Control::Stream(message)));
                    prop_assert_eq!(&again[..9], &bytes[..9]);
                }
                result => prop_assert_eq!(result, Err(Discard::ControlMalformed)),
            }
        }
    }
}
