//! Records as bytes, for files. `docs/trace.md` describes the format; all numbers are
//! little-endian.
//!
//! A file is a header and entries. Each entry begins with its kind and the length of what follows,
//! so that a reader passes over kinds that it does not know. [`Decoder`] takes a file in pieces of
//! any size and says at which byte it is damaged. It never panics, whatever the bytes are.

use super::event::{
    Cause, GapEnd, KeyChange, LossTrigger, PhaseKind, RateChanged, Record, ResetCause, TraceEvent,
};
use crate::packet::LinkId;
use crate::time::Instant;
use crate::view::LinkState;

/// The first bytes of every file.
pub const MAGIC: [u8; 8] = *b"bondtrc\x1a";
/// The version of the format. A new kind or field needs no new one; a new value of an enumeration
/// does.
pub const VERSION: u16 = 1;
/// Bytes of this version's header.
pub const HEADER_BYTES: usize = 24;
/// The longest name of a label, bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 200;

/// Kind and length ahead of an entry's body.
const PREFIX_BYTES: usize = 2;
/// A label's kind: it names a link or a peer and is no event.
const LABEL: u8 = 255;
/// "No link" where a link is optional.
const NO_LINK: u8 = u8::MAX;

/// Which side wrote a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A client.
    Client,
    /// A server.
    Server,
}

impl Side {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// A file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which side wrote it.
    pub side: Side,
    /// The time of day at which the records' time is zero, µs since 1970; 0: not known.
    pub zero_unix_us: u64,
}

/// One entry of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A record.
    Record(Record),
    /// The name of a link or, without a link, of a session's peer.
    Label {
        /// The session.
        session: u16,
        /// The link.
        link: Option<LinkId>,
        /// The name.
        name: String,
    },
}

/// An error in a file, and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {problem}")]
pub struct FormatError {
    /// The byte at which the header or entry begins.
    pub offset: u64,
    /// The error.
    pub problem: Problem,
}

/// An error in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Another kind of file.
    #[error("this is no trace of the bond")]
    NotATrace,
    /// Written by a newer version.
    #[error("version {0} of the format is newer than this program")]
    Version(u16),
    /// The file ends within a header or an entry.
    #[error("the file ends within an entry")]
    Truncated,
    /// The header or an entry is shorter than its fields.
    #[error("an entry of kind {0} is too short")]
    Short(u8),
    /// A field has a value that does not exist.
    #[error("an entry of kind {0} has a field without a meaning")]
    Value(u8),
}

/// Appends a header.
pub fn put_header(buf: &mut Vec<u8>, header: &Header) {
    buf.extend_from_slice(&MAGIC);
    buf.extend_from_slice(&VERSION.to_le_bytes());
    buf.extend_from_slice(&24_u16.to_le_bytes());
    let side = match header.side {
        Side::Client => 1_u8,
        Side::Server => 2,
    };
    buf.extend_from_slice(&[side, 0, 0, 0]);
    buf.extend_from_slice(&header.zero_unix_us.to_le_bytes());
}

/// Appends a record.
pub fn put_record(buf: &mut Vec<u8>, record: &Record) {
    put_entry(buf, kind_of(&record.event), |buf| {
        buf.extend_from_slice(&record.at.as_micros().to_le_bytes());
        buf.extend_from_slice(&record.session.to_le_bytes());
        put_event(buf, &record.event);
    });
}

/// Appends a label; a name that is too long is cut.
pub fn put_label(buf: &mut Vec<u8>, session: u16, link: Option<LinkId>, name: &str) {
    let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    put_entry(buf, LABEL, |buf| {
        buf.extend_from_slice(&session.to_le_bytes());
        buf.push(link.map_or(NO_LINK, |link| link.0));
        buf.extend_from_slice(name.get(..end.unwrap_or(0)).unwrap_or_default().as_bytes());
    });
}

fn put_entry(buf: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = buf.len();
    buf.extend_from_slice(&[kind, 0]);
    body(buf);
    let len = u8::try_from(buf.len() - start - PREFIX_BYTES).unwrap_or(u8::MAX);
    if let Some(place) = buf.get_mut(start + 1) {
        *place = len;
    }
}

const fn kind_of(event: &TraceEvent) -> u8 {
    match event {
        TraceEvent::LinkState { .. } => 1,
        TraceEvent::RateChanged(_) => 2,
        TraceEvent::FlowLinks { .. } => 3,
        TraceEvent::PacketsLost { .. } => 4,
        TraceEvent::PacketResent { .. } => 5,
        TraceEvent::ResendsGivenUp { .. } => 6,
        TraceEvent::GapOpened { .. } => 7,
        TraceEvent::GapClosed { .. } => 8,
        TraceEvent::PacketLate { .. } => 9,
        TraceEvent::KeysChanged { .. } => 10,
        TraceEvent::SessionReset { .. } => 11,
        TraceEvent::PacketSent { .. } => 12,
        TraceEvent::RecordsLost { .. } => 13,
    }
}

const fn state_id(state: LinkState) -> u8 {
    match state {
        LinkState::Down => 0,
        LinkState::Suspect => 1,
        LinkState::Up => 2,
    }
}

/// Declares the numbers in files of an enumeration of another module.
macro_rules! numbered {
    ($type:ident: $to_id:ident, $from_id:ident { $($variant:ident = $id:literal,)* }) => {
        const fn $to_id(value: $type) -> u8 {
            match value { $($type::$variant => $id,)* }
        }

        pub(super) const fn $from_id(id: u8) -> Option<$type> {
            match id { $($id => Some($type::$variant),)* _ => None }
        }
    };
}

numbered! {
    PhaseKind: phase_id, phase_from_id { Startup = 1, Steady = 2, Competing = 3, }
}

// 0 means "not known".
numbered! {
    Cause: cause_id, cause_from_id {
        OwnQueue = 1, LongerPath = 2, Competitor = 3, Policer = 4, RandomLoss = 5, Burst = 6, Stall = 7,
        EcnMark = 8, Ceiling = 9, Search = 10, CompetitorGone = 11, Outage = 12, EcnMeaningless = 13,
        Restart = 14,
    }
}

/// Unknown numbers of microseconds are written as the largest one.
fn or_max(us: Option<u32>) -> [u8; 4] {
    us.unwrap_or(u32::MAX).to_le_bytes()
}

fn put_event(buf: &mut Vec<u8>, event: &TraceEvent) {
    let link_or_none = |link: Option<LinkId>| link.map_or(NO_LINK, |link| link.0);
    match *event {
        TraceEvent::LinkState { link, from, to } => {
            buf.extend_from_slice(&[link.0, state_id(from), state_id(to)]);
        }
        TraceEvent::RateChanged(ref change) => put_rate(buf, change),
        TraceEvent::FlowLinks { flow, before, links } => {
            buf.extend_from_slice(&flow.to_le_bytes());
            buf.extend_from_slice(&before.to_le_bytes());
            buf.extend_from_slice(&links.to_le_bytes());
        }
        TraceEvent::PacketsLost { link, trigger, tries, first, count } => {
            buf.extend_from_slice(&[link.0, trigger.id(), tries]);
            buf.extend_from_slice(&first.to_le_bytes());
            buf.extend_from_slice(&count.to_le_bytes());
        }
        TraceEvent::PacketResent { link, trigger, tries, is_second, seq_num, bytes } => {
            let trigger = trigger.map_or(0, LossTrigger::id);
            buf.extend_from_slice(&[link.0, trigger, tries, is_second.into()]);
            buf.extend_from_slice(&seq_num.to_le_bytes());
            buf.extend_from_slice(&bytes.to_le_bytes());
        }
        TraceEvent::ResendsGivenUp { packets } => buf.extend_from_slice(&packets.to_le_bytes()),
        TraceEvent::GapOpened { link, first, count } => {
            buf.push(link_or_none(link));
            buf.extend_from_slice(&first.to_le_bytes());
            buf.extend_from_slice(&count.to_le_bytes());
        }
        TraceEvent::GapClosed { by, link, first, count, waited_us, held } => {
            buf.extend_from_slice(&[by.id(), link_or_none(link)]);
            buf.extend_from_slice(&first.to_le_bytes());
            buf.extend_from_slice(&count.to_le_bytes());
            buf.extend_from_slice(&waited_us.to_le_bytes());
            buf.extend_from_slice(&held.to_le_bytes());
        }
        TraceEvent::PacketLate { link, seq_num } => {
            buf.push(link_or_none(link));
            buf.extend_from_slice(&seq_num.to_le_bytes());
        }
        TraceEvent::KeysChanged { change, rekeys } => {
            buf.push(change.id());
            buf.extend_from_slice(&rekeys.to_le_bytes());
        }
        TraceEvent::SessionReset { cause } => buf.push(cause.id()),
        TraceEvent::PacketSent { link, seq_num, bytes } => {
            buf.push(link.0);
            buf.extend_from_slice(&seq_num.to_le_bytes());
            buf.extend_from_slice(&bytes.to_le_bytes());
        }
        TraceEvent::RecordsLost { records } => buf.extend_from_slice(&records.to_le_bytes()),
    }
}

fn put_rate(buf: &mut Vec<u8>, change: &RateChanged) {
    buf.extend_from_slice(&[change.link.0, phase_id(change.phase), change.cause.map_or(0, cause_id)]);
    buf.extend_from_slice(&change.loss_permille.to_le_bytes());
    buf.extend_from_slice(&change.capacity_bps.unwrap_or(0).to_le_bytes());
    buf.extend_from_slice(&change.pacing_bps.to_le_bytes());
    buf.extend_from_slice(&or_max(change.rtt_us));
    buf.extend_from_slice(&change.queue_us.to_le_bytes());
    buf.extend_from_slice(&change.base_delay_us.unwrap_or(i64::MAX).to_le_bytes());
    buf.extend_from_slice(&change.noise_us.to_le_bytes());
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Short,
    Value,
}

/// Takes fields off the front of a body.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Fault::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    /// The largest one is unknown.
    fn known_u32(&mut self) -> Result<Option<u32>, Fault> {
        Ok(Some(self.u32()?).filter(|us| *us != u32::MAX))
    }

    fn link(&mut self) -> Result<LinkId, Fault> {
        self.u8().map(LinkId)
    }

    fn link_or_none(&mut self) -> Result<Option<LinkId>, Fault> {
        Ok(Some(self.u8()?).filter(|link| *link != NO_LINK).map(LinkId))
    }

    /// One of the values that `from_id` knows.
    fn named<T>(&mut self, from_id: impl Fn(u8) -> Option<T>) -> Result<T, Fault> {
        from_id(self.u8()?).ok_or(Fault::Value)
    }

    /// The same; 0: no value.
    fn named_or_none<T>(&mut self, from_id: impl Fn(u8) -> Option<T>) -> Result<Option<T>, Fault> {
        self.named(|id| if id == 0 { Some(None) } else { from_id(id).map(Some) })
    }

    fn state(&mut self) -> Result<LinkState, Fault> {
        self.named(|id| [LinkState::Down, LinkState::Suspect, LinkState::Up].get(usize::from(id)).copied())
    }
}

/// The event of a kind; `None`: the kind is not known.
fn parse_event(kind: u8, fields: &mut Fields<'_>) -> Result<Option<TraceEvent>, Fault> {
    Ok(Some(match kind {
        1 => TraceEvent::LinkState { link: fields.link()?, from: fields.state()?, to: fields.state()? },
        2 => TraceEvent::RateChanged(parse_rate(fields)?),
        3 => TraceEvent::FlowLinks { flow: fields.u16()?, before: fields.u32()?, links: fields.u32()? },
        4 => TraceEvent::PacketsLost {
            link: fields.link()?,
            trigger: fields.named(LossTrigger::from_id)?,
            tries: fields.u8()?,
            first: fields.u64()?,
            count: fields.u32()?,
        },
        5 => TraceEvent::PacketResent {
            link: fields.link()?,
            trigger: fields.named_or_none(LossTrigger::from_id)?,
            tries: fields.u8()?,
            is_second: fields.u8()? != 0,
            seq_num: fields.u64()?,
            bytes: fields.u16()?,
        },
        6 => TraceEvent::ResendsGivenUp { packets: fields.u32()? },
        7 => {
            TraceEvent::GapOpened { link: fields.link_or_none()?, first: fields.u64()?, count: fields.u32()? }
        }
        8 => TraceEvent::GapClosed {
            by: fields.named(GapEnd::from_id)?,
            link: fields.link_or_none()?,
            first: fields.u64()?,
            count: fields.u32()?,
            waited_us: fields.u32()?,
            held: fields.u32()?,
        },
        9 => TraceEvent::PacketLate { link: fields.link_or_none()?, seq_num: fields.u64()? },
        10 => TraceEvent::KeysChanged { change: fields.named(KeyChange::from_id)?, rekeys: fields.u32()? },
        11 => TraceEvent::SessionReset { cause: fields.named(ResetCause::from_id)? },
        12 => TraceEvent::PacketSent { link: fields.link()?, seq_num: fields.u64()?, bytes: fields.u16()? },
        13 => TraceEvent::RecordsLost { records: fields.u32()? },
        _ => return Ok(None),
    }))
}

fn parse_rate(fields: &mut Fields<'_>) -> Result<RateChanged, Fault> {
    Ok(RateChanged {
        link: fields.link()?,
        phase: fields.named(phase_from_id)?,
        cause: fields.named_or_none(cause_from_id)?,
        loss_permille: fields.u16()?,
        capacity_bps: Some(fields.u64()?).filter(|bps| *bps > 0),
        pacing_bps: fields.u64()?,
        rtt_us: fields.known_u32()?,
        queue_us: fields.u32()?,
        base_delay_us: Some(fields.array().map(i64::from_le_bytes)?).filter(|us| *us != i64::MAX),
        noise_us: fields.u32()?,
    })
}

/// The entry of a kind; `None`: the kind is not known.
fn parse_entry(kind: u8, body: &[u8]) -> Result<Option<Entry>, Fault> {
    let mut fields = Fields(body);
    if kind == LABEL {
        let (session, link) = (fields.u16()?, fields.link_or_none()?);
        let name = std::str::from_utf8(fields.0).map_err(|_| Fault::Value)?.to_owned();
        return Ok(Some(Entry::Label { session, link, name }));
    }
    if !(1..=13).contains(&kind) {
        return Ok(None);
    }
    let at = Instant::from_nanos(fields.u64()?.saturating_mul(1_000));
    let session = fields.u16()?;
    let event = parse_event(kind, &mut fields)?;
    Ok(event.map(|event| Entry::Record(Record { at, session, event })))
}

/// Reads a file in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    buf: Vec<u8>,
    /// Bytes of `buf` that have been read.
    read: usize,
    /// Bytes of the file ahead of `buf`.
    before: u64,
    header: Option<Header>,
}

impl Decoder {
    /// The next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.drain(..self.read);
        self.before += self.read as u64;
        self.read = 0;
        self.buf.extend_from_slice(bytes);
    }

    /// The header, once [`Self::poll`] has read it.
    pub const fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// The next entry; `None`: more bytes are needed, or the file is at its end.
    ///
    /// # Errors
    /// The file is damaged. Nothing can be read after that.
    pub fn poll(&mut self) -> Result<Option<Entry>, FormatError> {
        if self.header.is_none() && !self.poll_header()? {
            return Ok(None);
        }
        loop {
            let rest = self.buf.get(self.read..).unwrap_or_default();
            let Some((&[kind, len], rest)) = rest.split_first_chunk() else { return Ok(None) };
            let Some(body) = rest.get(..usize::from(len)) else { return Ok(None) };
            let entry = parse_entry(kind, body).map_err(|fault| match fault {
                Fault::Short => self.error(Problem::Short(kind)),
                Fault::Value => self.error(Problem::Value(kind)),
            })?;
            self.read += PREFIX_BYTES + usize::from(len);
            if entry.is_some() {
                return Ok(entry);
            }
        }
    }

    /// To be called at the end of the file.
    ///
    /// # Errors
    /// The file ends where it must not.
    pub fn finish(&self) -> Result<(), FormatError> {
        let is_whole = self.header.is_some() && self.read == self.buf.len();
        if is_whole { Ok(()) } else { Err(self.error(Problem::Truncated)) }
    }

    /// Whether the header is read.
    fn poll_header(&mut self) -> Result<bool, FormatError> {
        let known = self.buf.len().min(MAGIC.len());
        if self.buf.get(..known) != MAGIC.get(..known) {
            return Err(self.error(Problem::NotATrace));
        }
        let mut fields = Fields(self.buf.get(MAGIC.len()..).unwrap_or_default());
        let (Ok(version), Ok(header_bytes)) = (fields.u16(), fields.u16()) else { return Ok(false) };
        if version > VERSION {
            return Err(self.error(Problem::Version(version)));
        }
        let header_bytes = usize::from(header_bytes);
        if header_bytes < HEADER_BYTES {
            return Err(self.error(Problem::Short(0)));
        }
        if self.buf.len() < header_bytes {
            return Ok(false);
        }
        let (Ok([side, ..]), Ok(zero_unix_us)) = (fields.array::<4>(), fields.u64()) else {
            return Ok(false);
        };
        let side = match side {
            1 => Side::Client,
            2 => Side::Server,
            _ => return Err(self.error(Problem::Value(0))),
        };
        self.header = Some(Header { side, zero_unix_us });
        self.read = header_bytes;
        Ok(true)
    }

    const fn error(&self, problem: Problem) -> FormatError {
        FormatError { offset: self.before + self.read as u64, problem }
    }
}
