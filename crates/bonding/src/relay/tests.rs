//! Both halves of a stream whose bytes are blocks, without sockets: what one packs the other one
//! expands, however it is cut, and what no compressor makes is refused.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::blocks::{Block, Breach, COMPRESSED_HEADER_BYTES, EXPANSION_MAX, RUNS_MAX};
use super::compressor::Compressor;
use super::effort::Level;
use super::expander::{ExpandError, Expander};
use super::share::{Share, Shares};
use super::*;

const BREACH: ExpandError = ExpandError::Breach(Breach);

fn share() -> Share {
    Shares::new(Compression::On).of(0)
}

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

/// Text as this project has it.
pub(super) fn text() -> Vec<u8> {
    let parts = [
        include_str!("mod.rs"),
        include_str!("joint.rs"),
        include_str!("expander.rs"),
        include_str!("tests.rs"),
    ];
    parts.concat().into_bytes()
}

/// Bytes that nothing shrinks.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    // xorshift64, Marsaglia 2003.
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(bytes).collect()
}

/// One read of a socket, packed.
fn pack(compressor: &mut Compressor, bytes: &[u8], level: Option<Level>, share: &Share) -> Vec<u8> {
    let room = 1 << 20;
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(compressor.takes(room, level).min(rest.len()));
        let mut buffer = Compressor::buffer(now.len());
        buffer.extend_from_slice(now);
        let packed = compressor.pack(buffer, level, share, at(1)).unwrap();
        assert!(packed.len() <= now.len() + now.len() / 64 + 64, "{} became {}", now.len(), packed.len());
        out.extend_from_slice(&packed);
        rest = later;
    }
    out
}

/// A stream that comes in pieces, and a socket that takes so many bytes at a time.
struct Reader {
    expander: Expander,
    ready: VecDeque<Vec<u8>>,
    out: Vec<u8>,
    came: usize,
    share: Share,
}

impl Reader {
    fn new(share: &Share) -> Self {
        let (expander, share) = (Expander::default(), share.clone());
        Self { expander, ready: VecDeque::new(), out: Vec::new(), came: 0, share }
    }

    fn consume(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let first = self.ready.front_mut().expect("only what is there is taken");
            if bytes < first.len() {
                first.drain(..bytes);
                return;
            }
            bytes -= first.len();
            self.ready.pop_front();
        }
    }

    /// A piece came; the socket takes `most` at a time.
    fn on_piece(&mut self, piece: &[u8], most: usize) -> Result<(), ExpandError> {
        self.came += piece.len();
        if !piece.is_empty() {
            self.ready.push_back(piece.to_vec());
        }
        loop {
            let ready: Vec<Vec<u8>> = self.ready.iter().cloned().collect();
            let ready = || ready.iter().map(Vec::as_slice);
            let offered = self.expander.slices(ready(), 4).concat();
            let taken = if offered.is_empty() {
                let Some(first) = ready().next() else { return Ok(()) };
                self.expander.advance(first, &self.share)?
            } else {
                let count = offered.len().min(most);
                self.out.extend_from_slice(&offered[..count]);
                self.expander.on_written(count, ready())?
            };
            self.consume(taken);
            assert!(self.out.len() as u64 <= self.came as u64 * EXPANSION_MAX, "expands too far");
        }
    }
}

trait Concat {
    fn concat(&self) -> Vec<u8>;
}

impl Concat for Vec<std::io::IoSlice<'_>> {
    fn concat(&self) -> Vec<u8> {
        self.iter().flat_map(|slice| slice.to_vec()).collect()
    }
}

/// All of it at once.
fn expand(stream: &[u8], share: &Share) -> Result<Vec<u8>, ExpandError> {
    let mut reader = Reader::new(share);
    reader.on_piece(stream, usize::MAX)?;
    reader.expander.finish()?;
    Ok(reader.out)
}

/// A compressed block as its sender would make it, with any body.
fn block(is_first: bool, body: &[u8], content: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    Block::Compressed { is_first, body: body.len(), content }.put(&mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

/// A frame of zstd that is flushed, and not ended.
fn frame(bytes: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = zstd_safe::CCtx::create();
    encoder.set_parameter(zstd_safe::CParameter::WindowLog(window_log)).unwrap();
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    let mut output = zstd_safe::OutBuffer::around(&mut out);
    encoder.compress_stream(&mut output, &mut zstd_safe::InBuffer::around(bytes)).unwrap();
    assert_eq!(encoder.flush_stream(&mut output), Ok(0));
    out
}

/// The example of PROTOCOL.md.
#[test]
fn vectors() {
    let text = "00 0003 616263 01 0013 000a 28b52ffd 0030 500000 6162636465666768696a \
                02 0004 0258 c21200 61 04 0002 0000 03 0000";
    let digits: String = text.split_whitespace().collect();
    let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
    let expanded = expand(&bytes.collect::<Vec<u8>>(), &share()).unwrap();
    assert_eq!(expanded, [&b"abcabcdefghij"[..], &[b'a'; 600]].concat());
}

#[test]
fn text_shrinks_and_each_read_can_be_expanded_at_once() {
    let (share, mut compressor, text) = (share(), Compressor::default(), text());
    let mut reader = Reader::new(&share);
    let (mut sent, mut given) = (0, 0);
    for read in text.chunks(8_000) {
        let packed = pack(&mut compressor, read, Some(Level::Usual), &share);
        sent += packed.len();
        given += read.len();
        reader.on_piece(&packed, usize::MAX).unwrap();
        assert_eq!(reader.out, text[..given], "a byte waits");
    }
    assert!(sent * 5 < text.len() * 2, "{} bytes became {sent}", text.len());
    assert_eq!(reader.expander.finish(), Ok(()));
}

#[test]
fn what_does_not_shrink_is_given_up_within_64_kib_and_costs_less_than_a_hundredth() {
    for read in [1_448, 16_000, 200_000] {
        let (share, mut compressor, noise) = (share(), Compressor::default(), noise(4 << 20, 7));
        let (mut sent, mut tried) = (Vec::new(), 0);
        for bytes in noise.chunks(read) {
            sent.extend(pack(&mut compressor, bytes, Some(Level::Usual), &share));
            tried += if compressor.has_run() { bytes.len() } else { 0 };
        }
        assert!(sent.len() * 100 <= noise.len() * 101, "{} bytes became {}", noise.len(), sent.len());
        // An attempt at the beginning, and one after 1 MiB; the next one is after 4 MiB more.
        assert!(tried <= 2 * (64 << 10), "reads of {read}: {tried} bytes met a codec");
        assert_eq!(expand(&sent, &share).unwrap(), noise);
    }
}

#[test]
fn a_stream_that_shrinks_later_is_tried_again() {
    let (share, mut compressor) = (share(), Compressor::default());
    pack(&mut compressor, &noise(1 << 20, 3), Some(Level::Usual), &share);
    assert!(!compressor.has_run());
    let later = text().repeat(12);
    let sent = pack(&mut compressor, &later, Some(Level::Usual), &share);
    assert!(compressor.has_run());
    assert!(sent.len() < later.len() * 2 / 3, "{} bytes became {}", later.len(), sent.len());
}

#[test]
fn bytes_that_shrink_without_bound_get_filler() {
    let (share, mut compressor) = (share(), Compressor::default());
    let zeros = vec![0; 8 << 20];
    let sent = pack(&mut compressor, &zeros, Some(Level::Usual), &share);
    let least = zeros.len() / usize::try_from(EXPANSION_MAX).unwrap();
    assert!((least..least + 64).contains(&sent.len()), "{} bytes", sent.len());
    assert!(expand(&sent, &share).unwrap() == zeros);
}

#[test]
fn a_level_that_is_lower_or_none_ends_the_run() {
    let (share, mut compressor, text) = (share(), Compressor::default(), text());
    let mut sent = Vec::new();
    let levels = [Some(Level::Usual), Some(Level::Fast), Some(Level::Usual), None, Some(Level::Fast)];
    for (level, has_run) in levels.into_iter().zip([true, true, true, false, true]) {
        sent.extend(pack(&mut compressor, &text, level, &share));
        assert_eq!(compressor.has_run(), has_run, "{level:?}");
    }
    assert_eq!(expand(&sent, &share).unwrap(), text.repeat(5));
}

#[test]
fn an_idle_connection_keeps_no_codec_at_either_side() {
    let (share, mut compressor, text) = (share(), Compressor::default(), text());
    let mut reader = Reader::new(&share);
    reader.on_piece(&pack(&mut compressor, &text, Some(Level::Usual), &share), usize::MAX).unwrap();
    assert!(compressor.has_run() && reader.expander.has_decoder());
    assert_eq!(compressor.retire(at(0)), None, "it had bytes since");
    let end = compressor.retire(at(1)).unwrap();
    reader.on_piece(&end, usize::MAX).unwrap();
    assert!(!compressor.has_run() && !reader.expander.has_decoder());
    reader.on_piece(&pack(&mut compressor, &text, Some(Level::Usual), &share), usize::MAX).unwrap();
    assert_eq!(reader.out, text.repeat(2));
}

#[test]
fn a_request_in_one_packet_gets_no_codec() {
    let (share, mut compressor) = (share(), Compressor::default());
    let request = &text()[..600];
    let sent = pack(&mut compressor, request, Some(Level::Usual), &share);
    assert_eq!((sent.len(), compressor.has_run()), (603, false));
    assert_eq!(sent[..3], [0, 2, 88]);
}

#[test]
fn a_stream_that_ends_within_a_block_is_a_breach() {
    let (share, mut compressor, text) = (share(), Compressor::default(), text());
    let mut sent = pack(&mut compressor, &text[..3_000], Some(Level::Usual), &share);
    let first = sent.len();
    sent.extend(pack(&mut compressor, &text[3_000..3_500], None, &share));
    let ends = [0, first, first + 3, sent.len()];
    for length in 0..=sent.len() {
        let result = expand(&sent[..length], &share);
        assert_eq!(result.is_ok(), ends.contains(&length), "{length} bytes: {result:?}");
    }
}

#[test]
fn blocks_that_no_sender_makes_are_breaches() {
    let share = share();
    let text = &text()[..5_000];
    let (body, wide) = (frame(text, 16), frame(&text.repeat(60), 18));
    assert_eq!(expand(&block(true, &body, 5_000), &share).as_deref(), Ok(text));
    let ended = {
        let mut out = Vec::with_capacity(6_000);
        zstd_safe::compress(&mut out, text, 3).unwrap();
        out
    };
    let cases = [
        ("a run that did not begin", block(false, &body, 5_000)),
        ("more than the header says", block(true, &body, 4_999)),
        ("less than the header says", block(true, &body, 5_001)),
        ("a window that is too large", block(true, &wide[..60_000.min(wide.len())], 60_000)),
        ("a frame that ends", block(true, &ended, 5_000)),
        ("no frame", block(true, &noise(500, 1), 5_000)),
        ("a skippable frame", block(true, &[0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0x7f, 0, 0], 500)),
        (
            "a body that is cut",
            [block(true, &body[..900], 5_000), block(false, &body[900..], 5_000)].concat(),
        ),
        (
            "a run that was ended",
            [block(true, &body, 5_000), vec![3, 0, 0], block(false, &body, 5_000)].concat(),
        ),
        ("an unknown block", vec![5, 0, 0]),
    ];
    for (name, bytes) in cases {
        assert!(expand(&bytes, &share) == Err(BREACH), "{name}");
    }
}

#[test]
fn a_bomb_expands_no_further_than_what_came() {
    let share = share();
    let zeros = vec![0; 60_000];
    let body = frame(&zeros, 16);
    assert!(body.len() < 64, "{} bytes", body.len());
    assert_eq!(expand(&block(true, &body, zeros.len()), &share), Err(BREACH));
    // With as much filler as a sender owes it is what it says.
    let owed = zeros.len() / usize::try_from(EXPANSION_MAX).unwrap() - body.len() - COMPRESSED_HEADER_BYTES;
    for (filler, is_enough) in [(owed - 3, false), (owed - 2, true)] {
        let mut bytes = Vec::new();
        Block::Filler(filler).put(&mut bytes);
        bytes.resize(bytes.len() + filler, 0);
        bytes.extend(block(true, &body, zeros.len()));
        assert_eq!(expand(&bytes, &share).is_ok(), is_enough, "{filler} bytes of filler");
    }
}

#[test]
fn nothing_more_is_expanded_until_the_socket_took_what_was() {
    let (share, mut compressor) = (share(), Compressor::default());
    let text = text().repeat(4);
    let sent = pack(&mut compressor, &text, Some(Level::Usual), &share);
    let mut expander = Expander::default();
    let mut offset = 0;
    while expander.slices(std::iter::once(&sent[offset..]), 4).is_empty() {
        offset += expander.advance(&sent[offset..], &share).unwrap();
    }
    // The socket takes nothing: what is offered stays the same, and no more of the stream is taken.
    let offered = expander.slices(std::iter::once(&sent[offset..]), 4).concat();
    assert!(offered.len() <= 32 << 10 && offset < 100, "{} bytes, {offset} taken", offered.len());
    assert_eq!(expander.on_written(offered.len() - 1, std::iter::once(&sent[offset..])), Ok(0));
    assert_eq!(expander.slices(std::iter::once(&sent[offset..]), 4).concat().len(), 1);
    assert_ne!(expander.on_written(1, std::iter::once(&sent[offset..])), Ok(0));
}

#[test]
fn codecs_are_bounded_for_each_session_and_for_the_process() {
    let mut shares = Shares::new(Compression::On);
    let text = text();
    let share = shares.of(0);
    let mut compressors: Vec<Compressor> = (0..=RUNS_MAX).map(|_| Compressor::default()).collect();
    let streams: Vec<Vec<u8>> = compressors
        .iter_mut()
        .map(|compressor| pack(compressor, &text, Some(Level::Usual), &share))
        .collect();
    let runs = compressors.iter().filter(|compressor| compressor.has_run()).count();
    assert_eq!(runs, RUNS_MAX, "one more goes stored");
    assert_eq!(streams.last().unwrap().len(), text.len() + text.len().div_ceil(32 << 10) * 3);
    compressors.remove(0);
    let last = compressors.last_mut().unwrap();
    pack(last, &text, Some(Level::Usual), &share);
    assert!(last.has_run(), "a place is free again");

    // A peer may have twice as many, and the process has as many as eight such sessions.
    let first = &streams[0];
    let open = |share: &Share| {
        let mut reader = Reader::new(share);
        reader.on_piece(first, usize::MAX).map(|()| reader)
    };
    let mut readers: Vec<Reader> = (0..2 * RUNS_MAX).map(|_| open(&share).unwrap()).collect();
    assert_eq!(open(&share).err(), Some(BREACH));
    for session in 1..8 {
        assert_eq!(
            shares.form(),
            if session <= 4 { StreamForm::Blocks } else { StreamForm::Plain },
            "{session}"
        );
        let share = shares.of(session);
        readers.extend((session..32).map(|_| open(&share).unwrap()));
    }
    let share = shares.of(9);
    readers.extend((0..28).map(|_| open(&share).unwrap()));
    let mut reader = Reader::new(&share);
    assert_eq!(reader.on_piece(first, usize::MAX), Err(ExpandError::Crowded));
    assert_eq!(shares.fullest(), Some(0));
    // As soon as there is a place it goes on where it was.
    readers.remove(0);
    reader.on_piece(&[], usize::MAX).unwrap();
    assert_eq!(reader.out, text);
}

#[test]
fn links_that_are_fast_together_are_not_worth_it() {
    use bonding_proto::units::BitRate;
    let rate = |mbps: u64| Some(BitRate::from_bps(mbps * 1_000_000));
    let is_worth_it = |mode, rate, has_run| Shares::new(mode).of(0).level(rate, has_run).is_some();
    for (rate, fresh, running) in [
        (rate(4), true, true),
        (rate(19), true, true),
        (rate(21), false, true),
        (rate(25), false, false),
        (None, false, false),
    ] {
        assert_eq!(is_worth_it(Compression::Auto, rate, false), fresh, "{rate:?}");
        assert_eq!(is_worth_it(Compression::Auto, rate, true), running, "{rate:?}");
        assert!(is_worth_it(Compression::On, rate, false));
        assert!(!is_worth_it(Compression::Off, rate, true));
    }
    let form = |mode| Shares::new(mode).form();
    assert_eq!(form(Compression::Off), StreamForm::Plain);
    assert_eq!((form(Compression::Auto), form(Compression::On)), (StreamForm::Blocks, StreamForm::Blocks));
}

/// A read: its length, what it is of, and the level of its turn.
fn any_read() -> impl Strategy<Value = (usize, u8, Option<Level>)> {
    let level = prop_oneof![1 => Just(None), 2 => Just(Some(Level::Fast)), 6 => Just(Some(Level::Usual))];
    (1..40_000_usize, 0..4_u8, level)
}

fn content(reads: &[(usize, u8, Option<Level>)]) -> Vec<Vec<u8>> {
    let text = text().repeat(2);
    let of = |(at, (length, kind, _)): (usize, &(usize, u8, Option<Level>))| match kind {
        0 => noise(*length, at as u64 + 1),
        1 => vec![0; *length],
        _ => text.iter().cycle().skip(at * 777).take(*length).copied().collect(),
    };
    reads.iter().enumerate().map(of).collect()
}

fn packed(reads: &[(usize, u8, Option<Level>)], share: &Share) -> (Vec<u8>, Vec<u8>) {
    let (mut compressor, contents) = (Compressor::default(), content(reads));
    let parts = contents.iter().zip(reads);
    let sent = parts.flat_map(|(bytes, (_, _, level))| pack(&mut compressor, bytes, *level, share)).collect();
    (sent, contents.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_reads_arrive_however_the_stream_is_cut(
        reads in proptest::collection::vec(any_read(), 1..12),
        cuts in proptest::collection::vec(1..3_000_usize, 1..8),
        takes in proptest::collection::vec(1..70_000_usize, 1..8),
    ) {
        let share = share();
        let (sent, wanted) = packed(&reads, &share);
        let mut reader = Reader::new(&share);
        let (mut rest, mut turns) = (sent.as_slice(), cuts.iter().zip(takes.iter().cycle()).cycle());
        while let Some((cut, take)) = turns.next().filter(|_| !rest.is_empty()) {
            let (piece, later) = rest.split_at((*cut).min(rest.len()));
            reader.on_piece(piece, *take).unwrap();
            rest = later;
        }
        prop_assert!(reader.out == wanted);
        prop_assert_eq!(reader.expander.finish(), Ok(()));
        prop_assert!(reader.ready.is_empty());
    }

    #[test]
    fn streams_that_are_spoilt_end_or_expand_within_bounds(
        reads in proptest::collection::vec(any_read(), 1..4),
        spoils in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in 1..3_000_usize,
    ) {
        let share = share();
        let (mut sent, _) = packed(&reads, &share);
        for (place, byte) in spoils {
            *place.get_mut(&mut sent) = byte;
        }
        let mut reader = Reader::new(&share);
        // `on_piece` asserts the bound.
        let _ = sent.chunks(cut).try_for_each(|piece| reader.on_piece(piece, usize::MAX));
    }

    #[test]
    fn any_bytes_end_or_expand_within_bounds(
        blocks in proptest::collection::vec((0..6_u8, proptest::collection::vec(any::<u8>(), 0..200), any::<u16>()), 1..20),
    ) {
        let share = share();
        let mut reader = Reader::new(&share);
        for (kind, body, content) in blocks {
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            let mut bytes = [&[kind][..], &length].concat();
            if kind == 1 || kind == 2 {
                bytes.extend(content.to_be_bytes());
            }
            bytes.extend(body);
            if reader.on_piece(&bytes, usize::MAX).is_err() {
                break;
            }
        }
    }
}
