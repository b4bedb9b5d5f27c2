//! The sending half of a stream whose bytes are blocks: what a socket gave becomes blocks, of which
//! those are compressed that shrink.
//!
//! Contract: what goes in comes out at once, as whole blocks, at most a 64th and 64 bytes larger.
//! The codec's memory exists only while a run is open: from the first bytes that are worth it until
//! the bytes do not shrink any more, the level is another, or the connection is idle.
//!
//! A run is given up if 64 KiB in a row did not shrink by a sixteenth. Then bytes go stored, four
//! times as many after each vain attempt, before another one.

use bonding_proto::Instant;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

use super::blocks::{
    Block, COMPRESSED_HEADER_BYTES, CONTENT_BYTES_MAX, EXPANSION_MAX, HEADER_BYTES, WINDOW_LOG,
};
use super::effort::Level;
use super::share::{Place, Share};

/// A run begins with no less. Chosen: a request in one packet is not worth a codec's memory.
const FIRST_BYTES_MIN: usize = 1_024;
/// The bytes by which a run is judged, and the part that they have to shrink by.
const TRIAL_BYTES: usize = 64 << 10;
const TRIAL_SHARE: usize = 16;
/// The bytes that go stored after a vain attempt, and at most. Chosen: attempts are a sixteenth of
/// what does not shrink at first, and a thousandth in the end.
const PAUSE_FIRST: u64 = 1 << 20;
const PAUSE_MAX: u64 = 64 << 20;
/// The bytes of one compressed block. Chosen: a turn of the event loop takes 0.2 ms for it; what
/// twice as many shrink by is less, since the window holds no more.
const COMPRESSED_BYTES_MAX: usize = 32 << 10;

/// The tables of the encoder, as powers of two: half of what zstd takes for this level and window,
/// for 1 % less.
const HASH_LOG: u32 = 15;
const CHAIN_LOG: u32 = 14;

/// The codec failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the codec failed: {0}")]
pub(super) struct CodecError(&'static str);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Compressor {
    run: Option<Box<Run>>,
    /// Bytes that go stored before the next attempt, and after it if it is in vain.
    rest: u64,
    pause: u64,
    /// Bytes made so far, and what the compressed ones of them stand for.
    sent: u64,
    content: u64,
    used_at: Instant,
}

/// What the encoder keeps of the bytes before.
struct Run {
    encoder: CCtx<'static>,
    level: Level,
    /// Nothing was compressed yet.
    is_new: bool,
    /// Bytes in and out since the run was judged last.
    taken: usize,
    made: usize,
    _place: Place,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Run {
    /// `None`: there is no memory for it.
    fn new(level: Level, place: Place) -> Option<Box<Self>> {
        let mut encoder = CCtx::try_create()?;
        for parameter in [
            CParameter::CompressionLevel(level.number()),
            CParameter::WindowLog(WINDOW_LOG),
            CParameter::HashLog(HASH_LOG),
            CParameter::ChainLog(CHAIN_LOG),
        ] {
            encoder.set_parameter(parameter).ok()?;
        }
        Some(Box::new(Self { encoder, level, is_new: true, taken: 0, made: 0, _place: place }))
    }

    /// A compressed block, header included.
    fn compress(&mut self, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        let error = |code| CodecError(zstd_safe::get_error_name(code));
        let mut out =
            Vec::with_capacity(COMPRESSED_HEADER_BYTES + zstd_safe::compress_bound(bytes.len()) + 64);
        out.resize(COMPRESSED_HEADER_BYTES, 0);
        let mut input = InBuffer::around(bytes);
        let mut output = OutBuffer::around_pos(&mut out, COMPRESSED_HEADER_BYTES);
        while input.pos < bytes.len() {
            let (before, made) = (input.pos, output.pos());
            self.encoder.compress_stream(&mut output, &mut input).map_err(error)?;
            if (input.pos, output.pos()) == (before, made) {
                return Err(CodecError("no progress"));
            }
        }
        if self.encoder.flush_stream(&mut output).map_err(error)? != 0 {
            return Err(CodecError("more than its bound"));
        }
        let body = out.len() - COMPRESSED_HEADER_BYTES;
        let block = Block::Compressed { is_first: self.is_new, body, content: bytes.len() };
        let (header, _) = block.header();
        out.iter_mut().zip(header).for_each(|(place, byte)| *place = byte);
        self.is_new = false;
        self.taken += bytes.len();
        self.made += out.len();
        Ok(out)
    }

    /// Whether the bytes shrink; `None`: that is not known yet.
    const fn is_worth_it(&mut self) -> Option<bool> {
        if self.taken < TRIAL_BYTES {
            return None;
        }
        let is_worth_it = self.made <= self.taken / TRIAL_SHARE * (TRIAL_SHARE - 1);
        (self.taken, self.made) = (0, 0);
        Some(is_worth_it)
    }
}

impl Compressor {
    /// How many bytes [`Self::pack`] takes, so that what it makes is at most `room`. `level` is
    /// that of the same turn.
    pub(super) fn takes(&self, room: usize, level: Option<Level>) -> usize {
        let most = if level.is_some() && self.rest == 0 { COMPRESSED_BYTES_MAX } else { CONTENT_BYTES_MAX };
        room.saturating_sub(room / 64 + 64).min(most)
    }

    /// A buffer for so many bytes, which are to be appended to what is in it.
    pub(super) fn buffer(bytes: usize) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(HEADER_BYTES + bytes);
        buffer.resize(HEADER_BYTES, 0);
        buffer
    }

    /// Whether a codec works for this stream.
    pub(super) const fn has_run(&self) -> bool {
        self.run.is_some()
    }

    /// Makes blocks of the bytes that were appended to a buffer of [`Self::buffer`], compressed
    /// with this level if they shrink.
    pub(super) fn pack(
        &mut self,
        buffer: Vec<u8>,
        level: Option<Level>,
        share: &Share,
        now: Instant,
    ) -> Result<Vec<u8>, CodecError> {
        self.used_at = now;
        let count = buffer.len() - HEADER_BYTES;
        let is_other = |run: &Run| level.is_none_or(|level| level < run.level);
        let mut out = Vec::new();
        if self.run.as_deref().is_some_and(is_other) {
            self.end_run(&mut out);
        }
        if self.rest > 0 {
            self.rest = self.rest.saturating_sub(count as u64);
        } else if let Some(level) = level
            && self.run.is_none()
            && count >= FIRST_BYTES_MIN
        {
            self.run = share.place_for_run().and_then(|place| Run::new(level, place));
        }
        if self.run.is_none() {
            self.store(buffer, &mut out);
        } else {
            self.compress(buffer.get(HEADER_BYTES..).unwrap_or_default(), share, &mut out)?;
        }
        self.sent += out.len() as u64;
        Ok(out)
    }

    fn store(&self, mut buffer: Vec<u8>, out: &mut Vec<u8>) {
        let (header, bytes) = Block::Stored(buffer.len() - HEADER_BYTES).header();
        buffer.iter_mut().zip(header.into_iter().take(bytes)).for_each(|(place, byte)| *place = byte);
        if out.is_empty() {
            *out = buffer;
        } else {
            out.extend_from_slice(&buffer);
        }
    }

    fn compress(&mut self, bytes: &[u8], share: &Share, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let block = share.timed(|| run.compress(bytes))?;
        share.count_out(bytes.len(), block.len());
        self.content += bytes.len() as u64;
        let due = self.content.div_ceil(EXPANSION_MAX);
        let missing = due.saturating_sub(self.sent + (out.len() + block.len()) as u64);
        if missing > 0 {
            let filler = usize::try_from(missing).unwrap_or_default().saturating_sub(HEADER_BYTES).max(1);
            Block::Filler(filler).put(out);
            out.resize(out.len() + filler, 0);
        }
        if out.is_empty() {
            *out = block;
        } else {
            out.extend_from_slice(&block);
        }
        match run.is_worth_it() {
            Some(true) => self.pause = PAUSE_FIRST,
            Some(false) => {
                self.end_run(out);
                self.rest = self.pause.max(PAUSE_FIRST);
                self.pause = (self.rest * 4).min(PAUSE_MAX);
            }
            None => {}
        }
        Ok(())
    }

    /// Ends the run of a connection that has had no bytes since `since`: the block that tells so.
    pub(super) fn retire(&mut self, since: Instant) -> Option<Vec<u8>> {
        if self.run.is_none() || self.used_at > since {
            return None;
        }
        let mut out = Vec::new();
        self.end_run(&mut out);
        self.sent += out.len() as u64;
        Some(out)
    }

    /// The connection has no more bytes.
    pub(super) fn finish(&mut self) {
        self.run = None;
    }

    fn end_run(&mut self, out: &mut Vec<u8>) {
        // The peer knows of no run without a block.
        if self.run.take().is_some_and(|run| !run.is_new) {
            Block::RunEnd.put(out);
        }
    }
}
