//! Where bytes stand in a stream: the stream's number and an offset. Frames on the wire have it,
//! and so have the pieces of streams that wait to be sent or are kept to be sent again.

/// Names a stream inside one session. Streams that the client opens have even numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u16);

impl StreamId {
    /// The number of names.
    pub(crate) const COUNT: u16 = 0x8000;

    /// The stream with this number; `None`: it is not below 2^15.
    pub const fn new(number: u16) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// Whether the client opens streams of this number.
    pub(crate) const fn is_of_client(self) -> bool {
        self.0 & 1 == 0
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// A stream and an offset, as a frame's `seq_num` has them: bit 63 set, the stream in 15 bits, the
/// offset in 48.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position(u64);

impl Position {
    /// Bits of the offset.
    pub(crate) const OFFSET_BITS: u32 = 48;
    const OFFSET_MASK: u64 = (1 << Self::OFFSET_BITS) - 1;
    const MARK: u64 = 1 << 63;

    /// This offset of the stream, modulo 2^48.
    pub const fn new(stream: StreamId, offset: u64) -> Self {
        Self(Self::MARK | ((stream.0 as u64) << Self::OFFSET_BITS) | (offset & Self::OFFSET_MASK))
    }

    /// The position in a `seq_num`; `None`: it is a packet's.
    pub const fn parse(seq_num: u64) -> Option<Self> {
        if seq_num & Self::MARK == 0 { None } else { Some(Self(seq_num)) }
    }

    /// As `seq_num` on the wire.
    pub const fn seq_num(self) -> u64 {
        self.0
    }

    /// The stream.
    pub const fn stream(self) -> StreamId {
        // Fifteen bits.
        StreamId(((self.0 & !Self::MARK) >> Self::OFFSET_BITS) as u16)
    }

    /// The offset.
    pub const fn offset(self) -> u64 {
        self.0 & Self::OFFSET_MASK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_a_seq_num_above_all_of_packets() {
        let stream = StreamId::new(0x1234).unwrap();
        let position = Position::new(stream, 0xffff_ffff_fffe);
        assert_eq!(position.seq_num(), 0x9234_ffff_ffff_fffe);
        assert_eq!((position.stream(), position.offset()), (stream, 0xffff_ffff_fffe));
        assert_eq!(Position::parse(position.seq_num()), Some(position));
        assert_eq!(Position::parse(0x7fff_0000_0000_0000), None);
        assert_eq!(StreamId::new(0x8000), None);
    }
}
