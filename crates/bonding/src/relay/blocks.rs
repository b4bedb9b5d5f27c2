//! The form of a stream's bytes where some of them are compressed: blocks.
//!
//! ```text
//!  0 kind 1B   0 stored | 1 compressed, a run begins | 2 compressed, the run goes on
//!              3 a run ends | 4 filler
//!  1 length 2B of the body
//!  3 content 2B of the connection, kinds 1 and 2 only: the bytes that the body expands to
//!  . body
//! ```
//! A stored body is the connection's bytes. The bodies of a run's compressed blocks are one zstd
//! frame (RFC 8878) without a checksum, a dictionary or an end, whose window has at most
//! 2^[`WINDOW_LOG`] bytes; each body ends where the encoder was flushed, so each block can be
//! expanded when it has come. A run that ends tells the receiver that it needs the window no more.
//! Filler means nothing.
//!
//! Contract: up to the end of each compressed block, all compressed blocks have expanded to no more
//! than [`EXPANSION_MAX`] times the bytes that came. A sender whose bytes shrink further adds
//! filler, so a receiver's work is bounded by what comes.

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 3;
/// Bytes of a compressed block's header.
pub(super) const COMPRESSED_HEADER_BYTES: usize = 5;
/// The connection's bytes in one block, at most. Chosen: with what zstd adds to bytes that do not
/// shrink (a 256th), the body's length has two bytes.
pub(super) const CONTENT_BYTES_MAX: usize = 63 << 10;
/// The window, as a power of two. Chosen: 349 KiB for each decoder. Twice as much shrinks
/// text by 3 to 7 % and HTML by 18 % more (docs/decisions/0104-compressed-streams.md).
pub(super) const WINDOW_LOG: u32 = 16;
/// Bytes that one received byte stands for at most. Chosen: above what text shrinks by; an
/// expander makes them in the time that a link of 20 Mbit/s takes for it.
pub(super) const EXPANSION_MAX: u64 = 64;
/// Runs that a sender has open in one direction of a session, at most. A receiver lets it have
/// twice as many, since streams overtake each other. Chosen: 5 MiB of decoders.
pub(super) const RUNS_MAX: usize = 16;

const STORED: u8 = 0;
const FIRST: u8 = 1;
const NEXT: u8 = 2;
const RUN_END: u8 = 3;
const FILLER: u8 = 4;

/// The peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer's blocks are malformed")]
pub(super) struct Breach;

/// A block, without what of its body was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    /// So many of the connection's bytes.
    Stored(usize),
    /// A body, and what it expands to.
    Compressed {
        /// A new run: nothing before is referred to.
        is_first: bool,
        /// Bytes of the body.
        body: usize,
        /// The connection's bytes.
        content: usize,
    },
    /// No block of this run follows.
    RunEnd,
    /// So many bytes without a meaning.
    Filler(usize),
}

impl Block {
    /// Appends the header.
    pub(super) fn put(self, buf: &mut Vec<u8>) {
        let (header, bytes) = self.header();
        buf.extend(header.into_iter().take(bytes));
    }

    /// The header, and how many of its bytes count.
    pub(super) fn header(self) -> ([u8; COMPRESSED_HEADER_BYTES], usize) {
        let (kind, length, content) = match self {
            Self::Stored(bytes) => (STORED, bytes, None),
            Self::Compressed { is_first, body, content } => {
                (if is_first { FIRST } else { NEXT }, body, Some(content))
            }
            Self::RunEnd => (RUN_END, 0, None),
            Self::Filler(bytes) => (FILLER, bytes, None),
        };
        let number = |bytes: usize| u16::try_from(bytes).expect("no body is longer").to_be_bytes();
        let ([l0, l1], [c0, c1]) = (number(length), number(content.unwrap_or(0)));
        let bytes = if content.is_some() { COMPRESSED_HEADER_BYTES } else { HEADER_BYTES };
        ([kind, l0, l1, c0, c1], bytes)
    }
}

/// Reads headers, however they are cut.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Header {
    bytes: [u8; COMPRESSED_HEADER_BYTES],
    have: usize,
}

impl Header {
    /// Whether no part of a header has come.
    pub(super) const fn is_empty(self) -> bool {
        self.have == 0
    }

    /// Takes bytes off `input`; the block, once its header is complete.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Result<Option<Block>, Breach> {
        while let Some((byte, rest)) = input.split_first() {
            *input = rest;
            if let Some(place) = self.bytes.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            let [kind, l0, l1, c0, c1] = self.bytes;
            let needed = match kind {
                STORED | RUN_END | FILLER => HEADER_BYTES,
                FIRST | NEXT => COMPRESSED_HEADER_BYTES,
                _ => return Err(Breach),
            };
            if self.have < needed {
                continue;
            }
            *self = Self::default();
            let number = |bytes| usize::from(u16::from_be_bytes(bytes));
            let (length, content) = (number([l0, l1]), number([c0, c1]));
            return match kind {
                STORED if length > 0 => Ok(Some(Block::Stored(length))),
                FILLER if length > 0 => Ok(Some(Block::Filler(length))),
                RUN_END if length == 0 => Ok(Some(Block::RunEnd)),
                FIRST | NEXT if length > 0 && content > 0 => {
                    Ok(Some(Block::Compressed { is_first: kind == FIRST, body: length, content }))
                }
                _ => Err(Breach),
            };
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors() {
        let compressed = |is_first| Block::Compressed { is_first, body: 0x0102, content: 0xfc00 };
        let cases: [(Block, &[u8]); 5] = [
            (Block::Stored(0x0102), &[0, 1, 2]),
            (compressed(true), &[1, 1, 2, 0xfc, 0]),
            (compressed(false), &[2, 1, 2, 0xfc, 0]),
            (Block::RunEnd, &[3, 0, 0]),
            (Block::Filler(0xffff), &[4, 0xff, 0xff]),
        ];
        for (block, bytes) in cases {
            let mut written = Vec::new();
            block.put(&mut written);
            assert_eq!(written, bytes, "{block:?}");
            // In any parts, and no byte more is taken.
            for cut in 0..bytes.len() {
                let (mut header, mut before, behind) = (Header::default(), &bytes[..cut], &bytes[cut..]);
                assert_eq!(header.take(&mut before), Ok(None));
                assert_eq!((before.len(), header.is_empty()), (0, cut == 0));
                let more = [behind, b"more"].concat();
                let mut rest = more.as_slice();
                assert_eq!(header.take(&mut rest), Ok(Some(block)));
                assert_eq!((rest, header.is_empty()), (&b"more"[..], true));
            }
        }
    }

    #[test]
    fn malformed_headers() {
        for bytes in [
            &[0_u8, 0, 0][..],
            &[1, 0, 0, 0, 1],
            &[1, 0, 1, 0, 0],
            &[2, 0, 0, 0, 1],
            &[3, 0, 1],
            &[4, 0, 0],
            &[5],
            &[255],
        ] {
            let mut rest = bytes;
            assert_eq!(Header::default().take(&mut rest), Err(Breach), "{bytes:?}");
        }
    }
}
