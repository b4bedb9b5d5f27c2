//! The receiving half of a stream whose bytes are blocks: they become the connection's bytes again.
//!
//! Contract: bytes are taken off the stream when what they stand for was written, so the stream
//! gives credit, and ends, as if they were the connection's. One block is expanded at a time, into
//! at most 64 KiB, and the next one after the socket took these. A decoder exists while its run is
//! open. Blocks that are malformed, end within a block, hold other than their header says, or
//! expand too far are a [`Breach`].

use std::io::IoSlice;

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::blocks::{Block, Breach, EXPANSION_MAX, Header, WINDOW_LOG};
use super::share::{Place, Share};

/// Why a block was not expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpandError {
    /// See [`Breach`].
    #[error(transparent)]
    Breach(#[from] Breach),
    /// There is no memory for another decoder, or all that may be are in use.
    #[error("too many streams are compressed")]
    Crowded,
}

/// Where in the blocks a reader is.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    header: Header,
    /// What is left of the block; `None`: between two blocks, or in a header.
    block: Option<Block>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Expander {
    at: Cursor,
    decoder: Option<Box<Decoder>>,
    /// What a compressed block expanded to, how much of that was written, and the bytes of the
    /// stream that are to be taken off it with the last of them.
    out: Vec<u8>,
    written: usize,
    owed: usize,
    /// Bytes that came so far, and what the compressed ones of them expand to.
    came: u64,
    content: u64,
}

/// What a decoder keeps of the bytes before.
struct Decoder {
    context: DCtx<'static>,
    _place: Place,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    fn new(place: Place) -> Result<Self, ExpandError> {
        let mut context = DCtx::try_create().ok_or(ExpandError::Crowded)?;
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map_err(|_| ExpandError::Crowded)?;
        Ok(Self { context, _place: place })
    }

    /// Expands `input` to at most `most` bytes more in `out`. Whether anything came of it, and how
    /// many bytes were taken.
    fn expand(&mut self, input: &[u8], out: &mut Vec<u8>, most: usize) -> Result<(usize, usize), Breach> {
        let start = out.len();
        // Where no more may come, a byte tells that more would.
        let mut scrap = [0; 1];
        let mut input = InBuffer::around(input);
        let made = if most == 0 {
            let mut output = OutBuffer::around(&mut scrap[..]);
            self.step(&mut output, &mut input)?;
            output.pos()
        } else {
            out.resize(start + most, 0);
            let mut output = OutBuffer::around(out.get_mut(start..).unwrap_or_default());
            self.step(&mut output, &mut input)?;
            let made = output.pos();
            out.truncate(start + made);
            made
        };
        if made > most { Err(Breach) } else { Ok((input.pos, made)) }
    }

    fn step(&mut self, output: &mut OutBuffer<'_, [u8]>, input: &mut InBuffer<'_>) -> Result<(), Breach> {
        match self.context.decompress_stream(output, input) {
            // The frame has ended, which no sender does.
            Ok(0) | Err(_) => Err(Breach),
            Ok(_) => Ok(()),
        }
    }
}

impl Expander {
    /// What is to be written to the socket now. `ready`: the stream's bytes.
    pub(super) fn slices<'a>(
        &'a self,
        ready: impl Iterator<Item = &'a [u8]>,
        most: usize,
    ) -> Vec<IoSlice<'a>> {
        if let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            return vec![IoSlice::new(rest)];
        }
        let (mut at, mut slices) = (self.at, Vec::new());
        for bytes in ready {
            let mut rest = bytes;
            while !rest.is_empty() {
                if slices.len() == most {
                    return slices;
                }
                match at.stored(&mut rest) {
                    Ok(Some(stored)) => slices.extend((!stored.is_empty()).then(|| IoSlice::new(stored))),
                    // Told when the bytes before are written.
                    Ok(None) | Err(Breach) => return slices,
                }
            }
        }
        slices
    }

    /// The socket took `count` bytes of [`Self::slices`]. How many bytes are to be taken off the
    /// stream.
    pub(super) fn on_written<'a>(
        &mut self,
        mut count: usize,
        ready: impl Iterator<Item = &'a [u8]>,
    ) -> Result<usize, Breach> {
        if !self.out.is_empty() {
            self.written += count;
            if self.written < self.out.len() {
                return Ok(0);
            }
            self.out = Vec::new();
            self.written = 0;
            return Ok(std::mem::take(&mut self.owed));
        }
        let mut taken = 0;
        for bytes in ready {
            if count == 0 {
                break;
            }
            let mut rest = bytes;
            while !rest.is_empty() && count > 0 {
                let before = rest.len();
                let mut within = rest;
                if let Some(Block::Stored(_)) = self.at.block {
                    within = rest.get(..count).unwrap_or(rest);
                }
                let length = within.len();
                let stored = self.at.stored(&mut within)?.ok_or(Breach)?;
                count -= stored.len();
                rest = rest.get(length - within.len()..).unwrap_or_default();
                taken += before - rest.len();
            }
        }
        self.came += taken as u64;
        Ok(taken)
    }

    /// Goes on with the stream's next bytes where [`Self::slices`] has nothing. How many are to be
    /// taken off the stream at once; 0: none can be.
    pub(super) fn advance(&mut self, bytes: &[u8], share: &Share) -> Result<usize, ExpandError> {
        let mut rest = bytes;
        match self.at.block {
            None => {
                let mut header = self.at.header;
                if let Some(block) = header.take(&mut rest)? {
                    self.begin(block, (bytes.len() - rest.len()) as u64, share)?;
                }
                self.at.header = header;
            }
            Some(Block::Filler(left)) => {
                let skipped = left.min(rest.len());
                rest = rest.get(skipped..).unwrap_or_default();
                self.at.block = (left > skipped).then_some(Block::Filler(left - skipped));
            }
            Some(Block::Compressed { body, content, .. }) => {
                let taken = self.expand(rest, body, content)?;
                rest = rest.get(taken..).unwrap_or_default();
            }
            Some(Block::Stored(_) | Block::RunEnd) => {}
        }
        let taken = bytes.len() - rest.len();
        self.came += taken as u64;
        if self.out.is_empty() {
            return Ok(taken);
        }
        self.owed = taken;
        Ok(0)
    }

    /// A header is complete, whose last part had so many bytes.
    fn begin(&mut self, block: Block, header: u64, share: &Share) -> Result<(), ExpandError> {
        match block {
            Block::Compressed { is_first, body, content } => {
                let expanded = self.content + content as u64;
                if expanded > (self.came + header + body as u64) * EXPANSION_MAX {
                    return Err(Breach.into());
                }
                if is_first {
                    // The place of the run before is free for this one.
                    self.decoder = None;
                    self.decoder = Some(Box::new(Decoder::new(share.place_for_decoder()?)?));
                } else if self.decoder.is_none() {
                    return Err(Breach.into());
                }
                self.content = expanded;
                share.count_in(content, body + super::blocks::COMPRESSED_HEADER_BYTES);
            }
            Block::RunEnd => {
                self.decoder = None;
                return Ok(());
            }
            Block::Stored(_) | Block::Filler(_) => {}
        }
        self.at.block = Some(block);
        Ok(())
    }

    /// Expands more of a block. How many bytes of its body were taken.
    fn expand(&mut self, bytes: &[u8], mut body: usize, mut content: usize) -> Result<usize, Breach> {
        let decoder = self.decoder.as_deref_mut().ok_or(Breach)?;
        let mut rest = bytes.get(..body).unwrap_or(bytes);
        let given = rest.len();
        loop {
            let (taken, made) = decoder.expand(rest, &mut self.out, content)?;
            rest = rest.get(taken..).unwrap_or_default();
            body -= taken;
            content -= made;
            if taken > 0 || made > 0 {
                continue;
            }
            if body == 0 && content == 0 {
                self.at.block = None;
            } else if body == 0 || !rest.is_empty() {
                // All of the body is there and says other than the header.
                return Err(Breach);
            }
            break;
        }
        if let Some(Block::Compressed { body: left, content: promised, .. }) = &mut self.at.block {
            (*left, *promised) = (body, content);
        }
        Ok(given - rest.len())
    }

    /// All bytes of the stream came and were taken. Whether it ended between two blocks.
    pub(super) const fn finish(&self) -> Result<(), Breach> {
        if self.at.block.is_none() && self.at.header.is_empty() && self.out.is_empty() {
            Ok(())
        } else {
            Err(Breach)
        }
    }

    /// Whether a decoder works for this stream.
    pub(super) const fn has_decoder(&self) -> bool {
        self.decoder.is_some()
    }

    /// The connection takes no more: nothing is kept of it.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }
}

impl Cursor {
    /// Takes bytes off `input` up to the end of a header or of a stored block: those that are
    /// stored, maybe none. `None`: another block comes, and nothing was taken.
    fn stored<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Breach> {
        match self.block {
            None => {
                let (mut header, mut rest) = (self.header, *input);
                match header.take(&mut rest)? {
                    Some(block @ Block::Stored(_)) => self.block = Some(block),
                    Some(Block::Compressed { .. } | Block::RunEnd | Block::Filler(_)) => return Ok(None),
                    None => {}
                }
                (self.header, *input) = (header, rest);
                Ok(Some(&[]))
            }
            Some(Block::Stored(left)) => {
                let count = left.min(input.len());
                let (stored, rest) = input.split_at(count);
                *input = rest;
                self.block = (left > count).then_some(Block::Stored(left - count));
                Ok(Some(stored))
            }
            Some(Block::Compressed { .. } | Block::RunEnd | Block::Filler(_)) => Ok(None),
        }
    }
}
