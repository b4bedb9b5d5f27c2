//! The connections of [`crate::pair`]: streams that the client opens, and that both sides fill,
//! read, end and reset as the input says.
//!
//! Asserted: a stream is asked for once. The bytes that are read are those that were written, in
//! order and once each. An end is seen behind the last byte, and a stream finishes with both ends.
//! In a network that is calm again, whatever was written arrives, unless its stream was reset.

use std::collections::BTreeMap;

use bonding_proto::position::StreamId;
use bonding_proto::streams::{StreamEvent, StreamTarget, Streams};
use bonding_proto::wire::stream::{StreamForm, StreamRefusal};
use bonding_proto::{Instant, StreamHost};

use crate::input::Input;

/// Bytes that all streams of one input carry. Chosen: the slowest link takes 3 s for them.
const BYTES_MAX: usize = 384 << 10;
/// Streams of one side at a time.
const OPEN_MAX: usize = 8;

/// The sides, as indices.
const CLIENT: usize = 0;
const SERVER: usize = 1;

/// One connection, by what both sides did.
#[derive(Debug, Clone, Copy, Default)]
struct Connection {
    was_asked: bool,
    /// The client knows that it stands.
    is_open: bool,
    /// One side reset or refused it, or lost its session.
    is_reset: bool,
    /// By side: bytes written and read, the writer's end, and the reader's.
    written: [u64; 2],
    read: [u64; 2],
    has_ended: [bool; 2],
    has_finished: [bool; 2],
}

/// All connections of an input.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// By the port of their destination, which tells both sides which one it is.
    all: Vec<Connection>,
    /// By side: the sessions and numbers of streams, and which connections they are.
    open: [BTreeMap<(u16, u16), u16>; 2],
    /// By side: it reads nothing.
    is_stalled: [bool; 2],
    bytes: usize,
}

/// The byte of a direction at a place.
fn byte_at(connection: u16, from: usize, place: u64) -> u8 {
    let [low, high] = connection.to_be_bytes();
    let turn = place.wrapping_mul(0x9e37_79b9).to_be_bytes();
    turn.iter().fold(low ^ high.rotate_left(3) ^ (from == SERVER) as u8, |sum, byte| sum ^ byte)
}

impl Connections {
    /// What the input does to the streams of one side.
    pub(crate) fn step(
        &mut self,
        input: &mut Input<'_>,
        client: &mut impl StreamHost,
        server: &mut impl StreamHost,
        now: Instant,
    ) -> Option<()> {
        let (choice, which) = (input.byte()?, input.byte()?);
        let side = usize::from(choice >> 7);
        match choice % 8 {
            0 => self.open(which, client, now),
            1..=3 => {
                let bytes = usize::from(input.number()?);
                if side == CLIENT {
                    self.write(CLIENT, which, bytes, client, now)
                } else {
                    self.write(SERVER, which, bytes, server, now)
                }
            }
            4 => {
                if side == CLIENT {
                    self.end(CLIENT, which, client, now)
                } else {
                    self.end(SERVER, which, server, now)
                }
            }
            5 => {
                if side == CLIENT {
                    self.reset(CLIENT, which, client, now)
                } else {
                    self.reset(SERVER, which, server, now)
                }
            }
            6 => self.is_stalled[side] = true,
            _ => {
                self.is_stalled[side] = false;
                if side == CLIENT {
                    self.read_all(CLIENT, client, now)
                } else {
                    self.read_all(SERVER, server, now)
                }
            }
        }
        Some(())
    }

    fn open(&mut self, choice: u8, client: &mut impl StreamHost, now: Instant) {
        let Some(session) = client.stream_session().filter(|_| self.open[CLIENT].len() < OPEN_MAX) else {
            return;
        };
        let Ok(port) = u16::try_from(self.all.len()) else { return };
        let target = StreamTarget { to: ([198, 51, 100, 7], port).into(), dscp: choice % 64 };
        let form = if choice & 64 == 0 { StreamForm::Plain } else { StreamForm::Blocks };
        let id = client.streams_mut(session, now).and_then(|streams| streams.open(target, form, now));
        if let Some(id) = id {
            self.all.push(Connection::default());
            let before = self.open[CLIENT].insert((session, id.number()), port);
            assert_eq!(before, None, "the number of a stream that is open");
        }
    }

    /// One of a side's streams.
    fn one(&self, side: usize, which: u8) -> Option<((u16, StreamId), u16)> {
        let at = usize::from(which) % self.open[side].len().max(1);
        let (&(session, number), &connection) = self.open[side].iter().nth(at)?;
        Some(((session, StreamId::new(number)?), connection))
    }

    fn write(&mut self, side: usize, which: u8, bytes: usize, host: &mut impl StreamHost, now: Instant) {
        let Some(((session, id), name)) = self.one(side, which) else { return };
        let Some(streams) = host.streams_mut(session, now) else { return };
        let count = bytes.min(streams.room(id)).min(BYTES_MAX.saturating_sub(self.bytes));
        let connection = &mut self.all[usize::from(name)];
        let first = connection.written[side];
        let bytes: Vec<u8> = (first..first + count as u64).map(|place| byte_at(name, side, place)).collect();
        connection.written[side] += count as u64;
        self.bytes += count;
        if count > 0 {
            streams.write(id, bytes.into());
        }
    }

    fn end(&mut self, side: usize, which: u8, host: &mut impl StreamHost, now: Instant) {
        let Some(((session, id), name)) = self.one(side, which) else { return };
        let connection = &mut self.all[usize::from(name)];
        if let Some(streams) = host.streams_mut(session, now).filter(|_| side == SERVER || connection.is_open)
        {
            streams.finish(id);
            connection.has_ended[side] = true;
        }
    }

    fn reset(&mut self, side: usize, which: u8, host: &mut impl StreamHost, now: Instant) {
        let Some(((session, id), _)) = self.one(side, which) else { return };
        if let Some(streams) = host.streams_mut(session, now) {
            streams.reset(id);
        }
        self.forget(side, (session, id));
    }

    /// The stream is over without its ends.
    fn forget(&mut self, side: usize, (session, id): (u16, StreamId)) {
        if let Some(name) = self.open[side].remove(&(session, id.number())) {
            self.all[usize::from(name)].is_reset = true;
        }
    }

    fn read_all(&mut self, side: usize, host: &mut impl StreamHost, now: Instant) {
        let open: Vec<(u16, u16)> = self.open[side].keys().copied().collect();
        for (session, number) in open {
            let id = StreamId::new(number).expect("a number of a stream");
            if let Some(streams) = host.streams_mut(session, now) {
                self.read(side, (session, id), streams, now);
            }
        }
    }

    /// Reads what is there.
    fn read(&mut self, side: usize, (session, id): (u16, StreamId), streams: &mut Streams, now: Instant) {
        let Some(name) = self.open[side].get(&(session, id.number())).copied() else { return };
        let (from, connection) = (1 - side, &mut self.all[usize::from(name)]);
        let mut count = 0;
        for byte in streams.ready(id).flat_map(|bytes| bytes.iter()) {
            let place = connection.read[side];
            assert!(place < connection.written[from], "more bytes than were written");
            assert_eq!(*byte, byte_at(name, from, place), "another byte than the one that was written");
            connection.read[side] += 1;
            count += 1;
        }
        streams.consume(id, count, now);
        if streams.has_ended(id) {
            assert!(connection.has_ended[from], "an end that the writer did not make");
            assert_eq!(connection.read[side], connection.written[from], "an end before the last byte");
        }
    }

    /// Takes what happened to the streams of a side. Whether anything did.
    pub(crate) fn serve(&mut self, is_server: bool, host: &mut impl StreamHost, now: Instant) -> bool {
        let side = usize::from(is_server);
        let mut any = false;
        while let Some((session, event)) = host.poll_stream_event() {
            any = true;
            let Some(streams) = host.streams_mut(session, now) else { continue };
            match event {
                StreamEvent::Asked(id, target) => {
                    let name = target.to.port();
                    let connection = self.all.get_mut(usize::from(name)).expect("a stream that was opened");
                    assert!(!std::mem::replace(&mut connection.was_asked, true), "asked for twice");
                    if target.dscp == 63 {
                        streams.refuse(id, StreamRefusal::Refused);
                        connection.is_reset = true;
                    } else {
                        streams.accept(id, StreamForm::Plain);
                        self.open[side].insert((session, id.number()), name);
                    }
                }
                StreamEvent::Readable(id) if !self.is_stalled[side] => {
                    self.read(side, (session, id), streams, now);
                }
                StreamEvent::Finished(id) => {
                    let name =
                        self.open[side].remove(&(session, id.number())).expect("a stream that is open");
                    let connection = &mut self.all[usize::from(name)];
                    assert_eq!(connection.has_ended, [true; 2], "it finished without its ends");
                    assert_eq!(connection.read[side], connection.written[1 - side], "bytes are missing");
                    connection.has_finished[side] = true;
                }
                StreamEvent::Refused(id, _) | StreamEvent::Reset(id) => self.forget(side, (session, id)),
                StreamEvent::Opened(id) => {
                    let name = self.open[side].get(&(session, id.number())).copied();
                    let name = name.expect("a stream that was opened");
                    self.all[usize::from(name)].is_open = true;
                }
                // What a reader leaves keeps no receive buffer.
                StreamEvent::Readable(id) => streams.leave(id),
                StreamEvent::Writable(_) => {}
            }
        }
        any
    }

    /// Nothing more is written, and everything is read.
    pub(crate) fn wind_up(
        &mut self,
        client: &mut impl StreamHost,
        server: &mut impl StreamHost,
        now: Instant,
    ) {
        self.is_stalled = [false; 2];
        self.read_all(CLIENT, client, now);
        self.read_all(SERVER, server, now);
        for which in 0..OPEN_MAX as u8 {
            self.end(CLIENT, which, client, now);
            self.end(SERVER, which, server, now);
        }
    }

    /// Whether all streams are over.
    pub(crate) fn are_over(&self) -> bool {
        self.open.iter().all(BTreeMap::is_empty)
    }

    /// # Panics
    /// If bytes of a stream that was not reset have not arrived.
    pub(crate) fn check_arrivals(&self) {
        for connection in self.all.iter().filter(|connection| !connection.is_reset) {
            assert_eq!(connection.has_finished, [true; 2], "a stream does not end: {connection:?}");
        }
    }

    /// Streams that finished at both sides, and bytes that they carried.
    #[cfg(test)]
    pub(crate) fn finished(&self) -> (usize, u64) {
        let finished = self.all.iter().filter(|connection| connection.has_finished == [true; 2]);
        finished.fold((0, 0), |(count, bytes), one| (count + 1, bytes + one.read.iter().sum::<u64>()))
    }
}
