//! Streams: the bytes of TCP connections that end at both sides of the bond.
//!
//! ```text
//! writer ─► pieces ─► queue ─► any link ─► pieces in any order ─► bytes in order ─► reader
//!    ▲                  │ lost: again over another link                                │
//!    └─ room ◄─ credit ◄┴───────────────── credit, as bytes are read ◄─────────────────┘
//! ```
//! A stream is two directions of bytes with one number. The client opens it and names where it
//! goes; the server answers when that connection stands, or says why it does not. What is sent is
//! cut into pieces, each with its offset. A piece is kept until its link's feedback says that it
//! arrived, and goes again, as often as it takes, when it was lost. So are the messages that open,
//! end and reset streams and give credit. Nothing of it has a deadline.
//!
//! # Contract
//! - Bytes in are the bytes out, whatever is lost, doubled, reordered or cut anew, until one side
//!   resets the stream or the session ends.
//! - A writer asks [`Streams::room`] and writes no more than that; a `Writable` event follows once
//!   there is room again. A reader takes what is ready and says how much; the peer gets credit for
//!   that. Where it leaves something, it says so.
//! - A peer that breaks the protocol has its stream reset. Memory of what it sends is bounded by
//!   the credit that it was given, and work by the bytes that came.
//! - What is written and not acknowledged is bounded, over all streams of a session.
//!
//! It knows no links, no sockets, and not when a piece is sent.
//!
//! Source: QUIC's streams (RFC 9000 §2 to §4), MPTCP's data sequence (RFC 8684 §3.3).

mod incoming;
mod params;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use self::incoming::Incoming;
use self::params::{
    BACKLOG_MAX, BACKLOG_MIN, MESSAGES_MAX, OFFSETS_MAX, PIECE_BYTES_MIN, PROMISED_MAX, SHARE_MIN,
    STREAMS_MAX, UNDER_WAY_MAX, WINDOW_FIRST, WINDOW_MAX, WINDOW_MIN, WINDOWS_FIRST, WRITE_MIN,
};
use crate::packet::PacketBuf;
use crate::position::{Position, StreamId};
use crate::stats::StreamStats;
use crate::time::Instant;
use crate::units::BitRate;
use crate::wire::control::Control;
use crate::wire::stream::{StreamForm, StreamMessage, StreamRefusal};

/// Where a stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamTarget {
    /// The destination of its connection.
    pub to: SocketAddr,
    /// The mark of its packets (RFC 2474).
    pub dscp: u8,
}

/// What happened to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEvent {
    /// The peer opens the stream: to be accepted or refused.
    Asked(StreamId, StreamTarget),
    /// The peer accepted it.
    Opened(StreamId),
    /// The peer refused it: it is over.
    Refused(StreamId, StreamRefusal),
    /// There is something to read, or the end.
    Readable(StreamId),
    /// There is room to write again.
    Writable(StreamId),
    /// All that was written has arrived, and both directions have ended: the stream is over.
    Finished(StreamId),
    /// The peer reset it, or broke the protocol: it is over.
    Reset(StreamId),
}

/// The sending half.
#[derive(Debug)]
struct Outgoing {
    /// The offset of the next byte, and up to where the peer gave credit.
    next: u64,
    limit: u64,
    /// Bytes that wait in the queue, and bytes that were not acknowledged, these included.
    waiting: usize,
    under_way: usize,
    /// The writer ends here; and the peer knows.
    has_ended: bool,
    end_arrived: bool,
    /// Since when the writer has no credit; and for how long it had none before that.
    starved_at: Option<Instant>,
    starved: Duration,
}

impl Outgoing {
    /// For how long the writer had no credit.
    fn starved(&self, now: Instant) -> Duration {
        self.starved + self.starved_at.map_or(Duration::ZERO, |at| now.saturating_since(at))
    }

    /// There is credit again.
    fn on_credit(&mut self, now: Instant) {
        self.starved = self.starved(now);
        self.starved_at = None;
    }
}

/// How far a stream's opening is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The peer was asked.
    Opening,
    /// This side was asked.
    Asked,
    Open,
    /// The writer's connection broke: it is reset once what was written has arrived.
    Broken,
}

/// One stream.
#[derive(Debug)]
struct Stream {
    /// The first offset of both directions.
    first: u64,
    ends: StreamEnds,
    stage: Stage,
    /// What the peer said that it takes, and once the stream is open what both do.
    form: StreamForm,
    outgoing: Outgoing,
    incoming: Incoming,
    /// A `Writable` is owed.
    is_blocked: bool,
    /// A `Readable` was given and nothing was read since.
    is_told: bool,
}

impl Stream {
    fn new((first, to, stage): (u64, SocketAddr, Stage), credit: u64, window: u64, now: Instant) -> Self {
        let outgoing = Outgoing {
            next: first,
            limit: first + credit,
            waiting: 0,
            under_way: 0,
            has_ended: false,
            end_arrived: false,
            starved_at: None,
            starved: Duration::ZERO,
        };
        let incoming = Incoming::new(first, window, now);
        let (ends, form) = (StreamEnds { from: None, to }, StreamForm::Plain);
        Self { first, ends, stage, form, outgoing, incoming, is_blocked: false, is_told: false }
    }

    /// No offset up to this one is used again.
    fn last(&self) -> u64 {
        self.outgoing.limit.max(self.incoming.limit())
    }

    /// One side said which form it takes: blocks are only where the other one said so, too.
    const fn agree(&mut self, form: StreamForm) {
        if matches!(form, StreamForm::Plain) {
            self.form = form;
        }
    }

    fn is_over(&self) -> bool {
        let has_arrived = self.outgoing.end_arrived && self.outgoing.under_way == 0;
        has_arrived && self.incoming.is_over() && self.stage != Stage::Broken
    }

    /// Nothing is left to come before the peer is told that the connection broke.
    fn is_broken_off(&self) -> bool {
        self.stage == Stage::Broken && self.outgoing.under_way == 0
    }
}

/// A place in the table: a stream, or where the next one of this number begins at the earliest.
#[derive(Debug)]
enum Entry {
    Free(u64),
    Used(Box<Stream>),
}

/// The streams of a session. See the module.
#[derive(Debug)]
pub struct Streams {
    /// Whether the peer may open streams.
    is_accepting: bool,
    /// The client's streams have even numbers; the entry's place is half of it.
    entries: Vec<Entry>,
    /// The piece's size, the longest round trip of the links, and how much may wait ahead of these.
    piece_bytes: usize,
    round: Duration,
    backlog_max: usize,
    rate: Option<BitRate>,
    /// Sums over the streams.
    waiting: usize,
    under_way: usize,
    promised: u64,
    /// Messages that the peer is not known to have.
    messages: usize,
    /// Streams that are open, or are being opened.
    used: usize,
    /// Pieces and messages for the queue.
    pieces: VecDeque<PacketBuf>,
    /// Streams that are owed a `Writable`, in turn.
    blocked: VecDeque<StreamId>,
    /// Streams that are over while pieces of them wait in the queue.
    abandoned: Vec<StreamId>,
    events: VecDeque<StreamEvent>,
    stats: StreamStats,
    /// The time of the newest input, for figures.
    seen: Instant,
}

/// The ends of a stream's connection, for figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEnds {
    /// Where it began, if this side knows it.
    pub from: Option<SocketAddr>,
    /// Its destination.
    pub to: SocketAddr,
}

/// Figures of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamFigures {
    /// Bytes written and read so far.
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// For how long the writer had no credit.
    pub(crate) credit_blocked: Duration,
}

impl Streams {
    pub(crate) fn new() -> Self {
        Self {
            is_accepting: false,
            entries: Vec::new(),
            piece_bytes: PIECE_BYTES_MIN,
            round: Duration::ZERO,
            backlog_max: BACKLOG_MIN,
            rate: None,
            waiting: 0,
            under_way: 0,
            promised: 0,
            messages: 0,
            used: 0,
            pieces: VecDeque::new(),
            blocked: VecDeque::new(),
            abandoned: Vec::new(),
            events: VecDeque::new(),
            stats: StreamStats::default(),
            seen: Instant::ZERO,
        }
    }

    /// The time of what follows.
    pub(crate) const fn set_time(&mut self, now: Instant) {
        self.seen = now;
    }

    /// This side takes streams that the peer opens, or not any more.
    pub const fn set_accepting(&mut self, is_accepting: bool) {
        self.is_accepting = is_accepting;
    }

    /// Whether this side takes streams.
    pub(crate) const fn is_accepting(&self) -> bool {
        self.is_accepting
    }

    /// The links changed: the largest piece that each of them carries, their longest round trip,
    /// how many bytes keep all of them busy, and what they carry together.
    pub(crate) fn set_links(
        &mut self,
        piece_bytes: usize,
        (round, backlog): (Duration, usize),
        rate: Option<BitRate>,
    ) {
        self.piece_bytes = piece_bytes.max(PIECE_BYTES_MIN);
        self.round = round;
        self.backlog_max = backlog.clamp(BACKLOG_MIN, BACKLOG_MAX);
        self.rate = rate;
        self.wake();
    }

    /// What the links in use carry together towards the peer, as far as that is known.
    pub const fn rate(&self) -> Option<BitRate> {
        self.rate
    }

    /// Asks the peer to open a stream, whose bytes have this form if the peer takes it. `None`:
    /// there are too many.
    pub fn open(&mut self, target: StreamTarget, form: StreamForm, now: Instant) -> Option<StreamId> {
        let is_free = |entry: &Entry| matches!(entry, Entry::Free(last) if *last < OFFSETS_MAX);
        let at = self.entries.iter().position(is_free).unwrap_or(self.entries.len());
        let id = u16::try_from(at * 2).ok().and_then(StreamId::new).filter(|_| at < STREAMS_MAX)?;
        // Credit that the peer gave may not have come yet: the next stream begins above that, too.
        let first = match self.entry(id).map_or(0, Entry::last) {
            0 => 1,
            last => last + WINDOW_MAX + 1,
        };
        let window = self.first_window();
        let stream = Stream::new((first, target.to, Stage::Opening), 0, window, now);
        self.put(id, Stream { form, ..stream });
        self.say(
            id,
            StreamMessage::Open {
                at: Position::new(id, first),
                credit: wire_credit(window),
                dscp: target.dscp,
                to: target.to,
                form,
            },
        );
        Some(id)
    }

    /// The connection that the peer asked for stands. The stream's bytes have this form if the peer
    /// takes it.
    pub fn accept(&mut self, id: StreamId, form: StreamForm) {
        let Some(stream) = self.stream_mut(id).filter(|stream| stream.stage == Stage::Asked) else { return };
        stream.stage = Stage::Open;
        stream.agree(form);
        let (at, form) = (Position::new(id, stream.first), stream.form);
        let credit = wire_credit(stream.incoming.limit() - stream.first);
        self.say(id, StreamMessage::Opened { at, credit, form });
    }

    /// The form of an open stream's bytes, which both sides agreed upon.
    pub fn form(&self, id: StreamId) -> StreamForm {
        self.stream(id).map_or(StreamForm::Plain, |stream| stream.form)
    }

    /// The connection that the peer asked for does not stand: the stream is over.
    pub fn refuse(&mut self, id: StreamId, reason: StreamRefusal) {
        let Some(first) = self.stream(id).map(|stream| stream.first) else { return };
        self.say(id, StreamMessage::Refused { at: Position::new(id, first), reason });
        self.stats.refused += 1;
        self.free(id);
    }

    /// How many bytes may be written now. If there are none, a `Writable` follows when there are.
    pub fn room(&mut self, id: StreamId) -> usize {
        let (backlog, under_way) = (self.backlog_max, UNDER_WAY_MAX.saturating_sub(self.under_way));
        let (waiting, seen) = (self.waiting, self.seen);
        let Some(stream) = self.stream_mut(id) else { return 0 };
        let Outgoing { next, limit, waiting: own, has_ended, .. } = stream.outgoing;
        if has_ended || stream.stage != Stage::Open {
            return 0;
        }
        let credit = usize::try_from(limit.saturating_sub(next)).unwrap_or(usize::MAX);
        let share = backlog.saturating_sub(waiting).max(SHARE_MIN.saturating_sub(own));
        let room = credit.min(share).min(under_way);
        if room >= WRITE_MIN {
            return room;
        }
        let was_blocked = std::mem::replace(&mut stream.is_blocked, true);
        if credit < WRITE_MIN {
            stream.outgoing.starved_at.get_or_insert(seen);
            self.stats.credit_blocked += u64::from(!was_blocked);
        } else if !was_blocked {
            self.blocked.push_back(id);
        }
        0
    }

    /// Takes bytes to be sent, no more than there is [`Self::room`] for.
    pub fn write(&mut self, id: StreamId, mut bytes: Bytes) {
        let piece_bytes = self.piece_bytes;
        let Some(stream) = self.stream_mut(id) else { return };
        let count = bytes.len();
        let mut offset = stream.outgoing.next;
        debug_assert!(offset + count as u64 <= stream.outgoing.limit, "the writer keeps to the room");
        stream.outgoing.next += count as u64;
        stream.outgoing.waiting += count;
        stream.outgoing.under_way += count;
        while !bytes.is_empty() {
            let piece = bytes.split_to(piece_bytes.min(bytes.len()));
            let at = Position::new(id, offset);
            offset += piece.len() as u64;
            self.pieces.push_back(PacketBuf::of_stream(at, piece));
        }
        self.waiting += count;
        self.under_way += count;
        self.stats.bytes_out += count as u64;
    }

    /// The writer has no more bytes.
    pub fn finish(&mut self, id: StreamId) {
        let Some(stream) = self.stream_mut(id).filter(|stream| !stream.outgoing.has_ended) else { return };
        stream.outgoing.has_ended = true;
        let end = stream.outgoing.next;
        self.say(id, StreamMessage::End(Position::new(id, end)));
    }

    /// The writer's connection broke, and nothing more is read. The peer is told behind what was
    /// written: between two kernels, bytes that were sent come before the RST that follows them.
    pub fn break_off(&mut self, id: StreamId) {
        let Some(stream) = self.stream_mut(id).filter(|stream| stream.stage == Stage::Open) else {
            return self.reset(id);
        };
        stream.stage = Stage::Broken;
        stream.is_blocked = false;
        let (held, promised) = (stream.incoming.held_bytes(), stream.incoming.promised());
        stream.incoming.discard();
        let promises = stream.incoming.promised();
        self.promised = self.promised - promised + promises;
        self.stats.unread_bytes -= held;
        self.reset_if_broken_off(id);
    }

    /// Gives the stream up: the peer is told, and what was not delivered is lost.
    pub fn reset(&mut self, id: StreamId) {
        let Some(first) = self.stream(id).map(|stream| stream.first) else { return };
        self.say(id, StreamMessage::Reset(Position::new(id, first)));
        self.stats.reset += 1;
        self.free(id);
    }

    /// The bytes that can be read, in order.
    pub fn ready(&self, id: StreamId) -> impl Iterator<Item = &Bytes> {
        self.stream(id).into_iter().flat_map(|stream| stream.incoming.ready())
    }

    /// Whether all of the peer's bytes were read, and it sends no more.
    pub fn has_ended(&self, id: StreamId) -> bool {
        self.stream(id).is_some_and(|stream| stream.incoming.is_over())
    }

    /// The reader took the first `bytes` of those that are ready, and saw the end if there was one.
    pub fn consume(&mut self, id: StreamId, bytes: usize, now: Instant) {
        let may = (self.round, PROMISED_MAX.saturating_sub(self.promised));
        let Some(stream) = self.stream_mut(id) else { return };
        stream.is_told = false;
        let (held, promised) = (stream.incoming.held_bytes(), stream.incoming.promised());
        let limit = stream.incoming.consume(bytes, may, now);
        let freed = held - stream.incoming.held_bytes();
        let promises = stream.incoming.promised();
        self.promised = self.promised - promised + promises;
        self.stats.unread_bytes -= freed;
        self.stats.bytes_in += freed as u64;
        if let Some(limit) = limit {
            self.say(id, StreamMessage::Credit(Position::new(id, limit)));
        }
        self.end_if_over(id);
    }

    /// The reader takes no more of what is ready for now. What it leaves is copied out of the
    /// buffers that it came in.
    pub fn leave(&mut self, id: StreamId) {
        if let Some(stream) = self.stream_mut(id) {
            stream.incoming.leave();
        }
    }

    /// A piece came from the peer.
    pub(crate) fn on_piece(&mut self, at: Position, bytes: Bytes) {
        let id = at.stream();
        let Some(stream) = self.owner(at).filter(|stream| stream.stage != Stage::Broken) else { return };
        let held = stream.incoming.held_bytes();
        let result = stream.incoming.on_piece(at.offset(), bytes);
        if stream.stage != Stage::Open {
            // No reader is there yet: what waits for one keeps no receive buffer.
            stream.incoming.leave();
        }
        self.stats.unread_bytes += self.stream(id).map_or(0, |stream| stream.incoming.held_bytes()) - held;
        match result {
            Ok(true) => self.tell_readable(id),
            Ok(false) => {}
            Err(_) => self.on_breach(id),
        }
    }

    /// A message came from the peer.
    pub(crate) fn on_message(&mut self, message: &StreamMessage, now: Instant) {
        self.seen = now;
        match *message {
            StreamMessage::Open { at, credit, dscp, to, form } => {
                self.on_open(at, (credit, form), StreamTarget { to, dscp }, now);
            }
            StreamMessage::Opened { at, credit, form } => {
                let Some(stream) = self.named(at).filter(|stream| stream.stage == Stage::Opening) else {
                    return;
                };
                stream.stage = Stage::Open;
                stream.outgoing.limit = stream.first + u64::from(credit);
                stream.agree(form);
                self.stats.opened += 1;
                self.events.push_back(StreamEvent::Opened(at.stream()));
            }
            StreamMessage::Refused { at, reason } => {
                if self.named(at).is_some_and(|stream| stream.stage == Stage::Opening) {
                    self.stats.refused += 1;
                    self.free(at.stream());
                    self.events.push_back(StreamEvent::Refused(at.stream(), reason));
                }
            }
            StreamMessage::Credit(at) => self.on_credit(at),
            StreamMessage::End(at) => self.on_end(at),
            StreamMessage::Reset(at) => {
                if self.named(at).is_some() {
                    self.stats.reset += 1;
                    self.free(at.stream());
                    self.events.push_back(StreamEvent::Reset(at.stream()));
                } else if let Some(Entry::Free(last)) = self.entry_mut(at.stream()) {
                    // It overtook what would have opened it.
                    *last = (*last).max(at.offset());
                }
            }
        }
    }

    fn on_open(
        &mut self,
        at: Position,
        (credit, form): (u32, StreamForm),
        target: StreamTarget,
        now: Instant,
    ) {
        let id = at.stream();
        // A peer that asks and takes no answers is asked for nothing more.
        if !self.is_accepting || self.messages >= MESSAGES_MAX {
            return;
        }
        let is_news = match self.entry_mut(id) {
            Some(Entry::Free(last)) => *last < at.offset(),
            // The peer ended it; what tells so was overtaken.
            Some(Entry::Used(stream)) if stream.first < at.offset() => {
                self.free(id);
                self.events.push_back(StreamEvent::Reset(id));
                true
            }
            Some(Entry::Used(_)) | None => false,
        };
        if is_news {
            let window = self.first_window();
            let begin = (at.offset(), target.to, Stage::Asked);
            let stream = Stream::new(begin, credit.into(), window, now);
            self.put(id, Stream { form, ..stream });
            self.stats.opened += 1;
            self.events.push_back(StreamEvent::Asked(id, target));
        }
    }

    fn on_credit(&mut self, at: Position) {
        let (id, seen) = (at.stream(), self.seen);
        let Some(stream) = self.stream_mut(id) else { return };
        // Credit for a stream that had the number before is below this one's.
        if at.offset() > stream.outgoing.limit {
            stream.outgoing.limit = at.offset();
            stream.outgoing.on_credit(seen);
            if std::mem::take(&mut stream.is_blocked) {
                self.events.push_back(StreamEvent::Writable(id));
            }
        }
    }

    fn on_end(&mut self, at: Position) {
        let id = at.stream();
        let Some(stream) = self.owner(at).filter(|stream| stream.stage != Stage::Broken) else { return };
        let result = stream.incoming.on_end(at.offset());
        let is_over = stream.incoming.is_over();
        if result.is_err() {
            return self.on_breach(id);
        }
        // Otherwise the bytes that are missing tell, and nothing could be read yet.
        if is_over {
            self.tell_readable(id);
        }
    }

    /// The next piece or message for the queue.
    pub(crate) fn poll_piece(&mut self) -> Option<PacketBuf> {
        self.pieces.pop_front()
    }

    /// The next stream whose pieces in the queue are to be dropped.
    pub(crate) fn poll_abandoned(&mut self) -> Option<StreamId> {
        self.abandoned.pop()
    }

    /// Whether something is to be moved to the queue, or out of it.
    pub(crate) fn has_work(&self) -> bool {
        !self.pieces.is_empty() || !self.abandoned.is_empty()
    }

    /// What happened next.
    pub(crate) fn poll_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    /// Whether [`Self::poll_event`] has something.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// A piece left the queue.
    pub(crate) fn on_sent(&mut self, piece: &PacketBuf) {
        let Some(at) = piece.position() else { return };
        let Some(stream) = self.owner(at) else { return };
        stream.outgoing.waiting -= piece.len();
        let is_low = stream.outgoing.waiting < SHARE_MIN / 2;
        if is_low && stream.outgoing.next < stream.outgoing.limit && std::mem::take(&mut stream.is_blocked) {
            self.events.push_back(StreamEvent::Writable(at.stream()));
        }
        self.waiting -= piece.len();
        self.wake();
    }

    /// A piece or message arrived at the peer.
    pub(crate) fn on_arrived(&mut self, piece: &PacketBuf) {
        if let Some(at) = piece.position() {
            let Some(stream) = self.owner(at) else { return };
            stream.outgoing.under_way -= piece.len();
            self.under_way -= piece.len();
            self.wake();
            self.end_if_over(at.stream());
            self.reset_if_broken_off(at.stream());
            return;
        }
        self.messages = self.messages.saturating_sub(1);
        if let Ok(Control::Stream(StreamMessage::End(at))) = Control::parse(piece)
            && let Some(stream) = self.owner(at)
        {
            stream.outgoing.end_arrived = true;
            self.end_if_over(at.stream());
        }
    }

    /// Whether a piece or message that was lost is to be sent again.
    pub(crate) fn wants(&mut self, piece: &PacketBuf) -> bool {
        if let Some(at) = piece.position() {
            return self.owner(at).is_some();
        }
        let is_wanted = self.wants_message(piece);
        self.messages = self.messages.saturating_sub(usize::from(!is_wanted));
        is_wanted
    }

    fn wants_message(&mut self, message: &PacketBuf) -> bool {
        let Ok(Control::Stream(message)) = Control::parse(message) else { return false };
        match message {
            StreamMessage::Open { at, .. } => {
                self.named(at).is_some_and(|stream| stream.stage == Stage::Opening)
            }
            StreamMessage::Opened { at, .. } => self.named(at).is_some(),
            StreamMessage::Credit(at) => {
                self.stream(at.stream()).is_some_and(|stream| stream.incoming.limit() == at.offset())
            }
            StreamMessage::End(at) => self.owner(at).is_some(),
            StreamMessage::Refused { .. } | StreamMessage::Reset(_) => true,
        }
    }

    /// The peer knows nothing of these streams any more: all are over. Nor does it know which
    /// offsets were used: numbers begin anew on both sides.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.messages = 0;
        self.blocked.clear();
        for at in 0..self.entries.len() {
            let Some(id) = u16::try_from(at * 2).ok().and_then(StreamId::new) else { break };
            if self.stream(id).is_some() {
                self.stats.reset += 1;
                self.free(id);
                self.events.push_back(StreamEvent::Reset(id));
            }
            // Of those that ended before, messages may wait.
            self.abandoned.push(id);
        }
        self.entries.clear();
    }

    /// Resets the streams that hold most, until no more than `bytes` are held.
    pub(crate) fn shed(&mut self, bytes: usize) {
        while self.stats.unread_bytes > bytes {
            let held = |id: &StreamId| self.stream(*id).map_or(0, |stream| stream.incoming.held_bytes());
            let Some(id) = self.ids().max_by_key(held) else { break };
            self.on_breach(id);
        }
    }

    /// Bytes that came and were not read. What is sent is held by the queue and the links.
    pub(crate) const fn held_bytes(&self) -> usize {
        self.stats.unread_bytes
    }

    pub(crate) fn stats(&self) -> StreamStats {
        StreamStats {
            open: self.used,
            waiting_bytes: self.waiting,
            under_way_bytes: self.under_way,
            ..self.stats
        }
    }

    /// For how long writers had no credit, summed up over streams.
    pub(crate) fn credit_blocked_for(&self, now: Instant) -> Duration {
        let open = self.ids().filter_map(|id| self.stream(id));
        open.map(|stream| stream.outgoing.starved(now))
            .fold(self.stats.credit_blocked_for, |sum, of| sum + of)
    }

    /// Notes where the connection of a stream began.
    pub fn set_source(&mut self, id: StreamId, from: SocketAddr) {
        if let Some(stream) = self.stream_mut(id) {
            stream.ends.from = Some(from);
        }
    }

    /// What tells a stream from others of its number, and its ends.
    pub(crate) fn name(&self, id: StreamId) -> Option<(u64, StreamEnds)> {
        self.stream(id).map(|stream| (stream.first, stream.ends))
    }

    /// Figures of the stream of this number that begins there, while it is open.
    pub(crate) fn figures(&self, id: StreamId, first: u64, now: Instant) -> Option<StreamFigures> {
        let stream = self.stream(id).filter(|stream| stream.first == first)?;
        Some(StreamFigures {
            sent_bytes: stream.outgoing.next - first,
            received_bytes: stream.incoming.read() - first,
            credit_blocked: stream.outgoing.starved(now),
        })
    }

    /// A `Writable` for the streams that wait for room, in turn, while there is some.
    fn wake(&mut self) {
        let has_room = self.waiting < self.backlog_max / 4 * 3 && self.under_way < UNDER_WAY_MAX / 4 * 3;
        if !has_room {
            return;
        }
        while let Some(id) = self.blocked.pop_front() {
            if self.stream_mut(id).is_some_and(|stream| std::mem::take(&mut stream.is_blocked)) {
                self.events.push_back(StreamEvent::Writable(id));
            }
        }
    }

    fn tell_readable(&mut self, id: StreamId) {
        if self.stream_mut(id).is_some_and(|stream| !std::mem::replace(&mut stream.is_told, true)) {
            self.events.push_back(StreamEvent::Readable(id));
        }
    }

    fn reset_if_broken_off(&mut self, id: StreamId) {
        if self.stream(id).is_some_and(Stream::is_broken_off) {
            self.reset(id);
        }
    }

    /// The peer broke the protocol, or holds too much.
    fn on_breach(&mut self, id: StreamId) {
        self.reset(id);
        self.events.push_back(StreamEvent::Reset(id));
    }

    fn end_if_over(&mut self, id: StreamId) {
        if self.stream(id).is_some_and(Stream::is_over) {
            self.free(id);
            self.events.push_back(StreamEvent::Finished(id));
        }
    }

    fn first_window(&self) -> u64 {
        (WINDOWS_FIRST / (self.used as u64 + 1)).clamp(WINDOW_MIN, WINDOW_FIRST)
    }

    fn say(&mut self, id: StreamId, message: StreamMessage) {
        let mut payload = Vec::new();
        Control::Stream(message).put(&mut payload);
        self.messages += 1;
        self.pieces.push_back(PacketBuf::message(id, payload.into()));
    }

    fn ids(&self) -> impl Iterator<Item = StreamId> + use<> {
        let count = u16::try_from(self.entries.len()).unwrap_or(u16::MAX);
        (0..count).filter_map(|at| StreamId::new(at * 2))
    }

    fn entry(&self, id: StreamId) -> Option<&Entry> {
        self.entries.get(usize::from(id.number() / 2))
    }

    /// The entry, which is made where there is none; `None`: no stream has this number.
    fn entry_mut(&mut self, id: StreamId) -> Option<&mut Entry> {
        let at = usize::from(id.number() / 2);
        if !id.is_of_client() || at >= STREAMS_MAX {
            return None;
        }
        if at >= self.entries.len() {
            self.entries.resize_with(at + 1, || Entry::Free(0));
        }
        self.entries.get_mut(at)
    }

    fn stream(&self, id: StreamId) -> Option<&Stream> {
        match self.entry(id)? {
            Entry::Used(stream) if id.is_of_client() => Some(stream),
            Entry::Used(_) | Entry::Free(_) => None,
        }
    }

    fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        match self.entries.get_mut(usize::from(id.number() / 2))? {
            Entry::Used(stream) if id.is_of_client() => Some(stream),
            Entry::Used(_) | Entry::Free(_) => None,
        }
    }

    /// The stream that begins at this position.
    fn named(&mut self, at: Position) -> Option<&mut Stream> {
        self.stream_mut(at.stream()).filter(|stream| stream.first == at.offset())
    }

    /// The stream of a byte at this position; `None`: it was one that had the number before.
    fn owner(&mut self, at: Position) -> Option<&mut Stream> {
        self.stream_mut(at.stream()).filter(|stream| stream.first <= at.offset())
    }

    fn put(&mut self, id: StreamId, stream: Stream) {
        let promised = stream.incoming.promised();
        if let Some(entry) = self.entry_mut(id) {
            *entry = Entry::Used(Box::new(stream));
            self.promised += promised;
            self.used += 1;
        }
    }

    fn free(&mut self, id: StreamId) {
        let Some(entry) = self.entry_mut(id) else { return };
        let last = entry.last();
        if let Entry::Used(stream) = std::mem::replace(entry, Entry::Free(last)) {
            self.waiting -= stream.outgoing.waiting;
            self.under_way -= stream.outgoing.under_way;
            self.promised -= stream.incoming.promised();
            self.used -= 1;
            self.stats.unread_bytes -= stream.incoming.held_bytes();
            self.stats.credit_blocked_for += stream.outgoing.starved(self.seen);
            if stream.outgoing.waiting > 0 {
                self.pieces.retain(|piece| piece.position().is_none_or(|at| at.stream() != id));
                self.abandoned.push(id);
            }
            self.wake();
        }
    }
}

impl Entry {
    /// No offset up to this one is used again.
    fn last(&self) -> u64 {
        match self {
            Self::Free(last) => *last,
            Self::Used(stream) => stream.last(),
        }
    }
}

/// A first window as the wire has it.
fn wire_credit(window: u64) -> u32 {
    u32::try_from(window).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
