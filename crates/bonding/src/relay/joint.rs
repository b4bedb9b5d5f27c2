//! One socket and its stream, whose bytes are the socket's or blocks of them.

use std::io::{self, IoSlice, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bonding_os::poll::{Interest, Poller, Ready};
use bonding_proto::Instant;
use bonding_proto::position::StreamId;
use bonding_proto::streams::Streams;
use bonding_proto::wire::stream::StreamForm;
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use socket2::SockRef;

use super::blocks::Breach;
use super::compressor::{CodecError, Compressor};
use super::effort::Level;
use super::expander::{ExpandError, Expander};
use super::share::Share;

/// Bytes of one read. Chosen: what one batch of a link holds.
const READ_BYTES: usize = 64 << 10;
/// Reads of one turn, and of one that compresses. Chosen: a fast socket leaves the others their
/// turn.
const READS_MAX: usize = 8;
const COMPRESSED_READS_MAX: usize = 2;
/// Bytes that one turn writes of what is expanded. Chosen: some milliseconds.
const EXPANDED_MAX: usize = 4 << 20;
/// A read of less than this does not keep its whole buffer. Chosen: a page of a kernel.
const SMALL_BYTES: usize = 4 << 10;
/// Slices of one write. Linux takes up to 1,024.
const SLICES_MAX: usize = 256;
/// Bytes that the kernel keeps unsent ahead of the application. Chosen: two reads; more would only
/// be late for the application's own multiplexing.
const UNSENT_BYTES: u32 = 128 << 10;

/// What became of a joint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Stays,
    /// The socket broke, and gave all that it had.
    Broken,
    /// The peer broke the protocol.
    Breached,
    /// It needs a decoder, and all are in use.
    Crowded,
}

/// Why a joint does not go on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Blocks(#[from] ExpandError),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Self {
        Self::Socket(error.into())
    }
}

impl From<Breach> for Trouble {
    fn from(breach: Breach) -> Self {
        Self::Blocks(breach.into())
    }
}

/// Both directions of a stream whose bytes are blocks.
#[derive(Debug)]
struct Blocks {
    compressor: Compressor,
    expander: Expander,
    share: Share,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Joint {
    socket: TcpStream,
    token: u64,
    /// What the poller watches; `None`: it does not know the socket.
    watched: Option<Interest>,
    /// The socket may have something to read, and room to be written.
    is_readable: bool,
    is_writable: bool,
    /// The stream had no room: it will tell.
    is_blocked: bool,
    /// The socket's bytes have ended; and the stream's, which the socket was told.
    read_ended: bool,
    write_ended: bool,
    /// It cannot be written any more. What it had received before may still be read.
    is_broken: bool,
    /// `None`: the stream's bytes are the socket's.
    blocks: Option<Box<Blocks>>,
}

impl Joint {
    pub(super) fn new(
        socket: TcpStream,
        token: u64,
        (form, share): (StreamForm, Share),
        poller: &Poller,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        // A peer that vanished without a word is found in the end.
        SockRef::from(&socket).set_keepalive(true)?;
        let mut joint = Self {
            socket,
            token,
            watched: None,
            is_readable: true,
            is_writable: true,
            is_blocked: false,
            read_ended: false,
            write_ended: false,
            is_broken: false,
            blocks: (form == StreamForm::Blocks).then(|| Box::new(Blocks::new(share))),
        };
        let socket = SockRef::from(&joint.socket);
        // Whatever closes it before its stream has finished, even the end of this process, is a
        // RST: the peer must not take a part for the whole.
        socket.set_linger(Some(Duration::ZERO))?;
        // Only a hint: without it the kernel buffers more.
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
        joint.watch(poller)?;
        Ok(joint)
    }

    /// The stream has room again.
    pub(super) const fn on_room(&mut self) {
        self.is_blocked = false;
        self.is_readable = true;
    }

    /// The poller says what the socket is ready for.
    pub(super) const fn on_ready(&mut self, ready: Ready) {
        self.is_readable |= ready.readable;
        self.is_writable |= ready.writable || ready.error;
    }

    /// Moves bytes both ways, as far as socket and stream allow.
    pub(super) fn serve(
        &mut self,
        id: StreamId,
        streams: &mut Streams,
        poller: &Poller,
        now: Instant,
    ) -> Verdict {
        let drained = match self.drain(id, streams, now) {
            Err(Trouble::Socket(error)) => {
                tracing::trace!(%error, "a connection broke");
                self.is_broken = true;
                Ok(())
            }
            other => other,
        };
        streams.leave(id);
        let result = drained.and_then(|()| self.fill(id, streams, now));
        match result.and_then(|()| Ok(self.watch(poller)?)) {
            Ok(()) if self.is_broken && self.read_ended => Verdict::Broken,
            Ok(()) => Verdict::Stays,
            Err(Trouble::Blocks(ExpandError::Crowded)) => Verdict::Crowded,
            Err(Trouble::Socket(error)) => {
                tracing::trace!(%error, "a connection broke");
                Verdict::Broken
            }
            Err(error @ (Trouble::Blocks(_) | Trouble::Codec(_))) => {
                tracing::trace!(%error, "a connection is reset");
                Verdict::Breached
            }
        }
    }

    /// From the stream to the socket.
    fn drain(&mut self, id: StreamId, streams: &mut Streams, now: Instant) -> Result<(), Trouble> {
        let mut expanded = 0;
        while self.is_writable && !self.write_ended && !self.is_broken {
            match self.write(id, streams) {
                None => {
                    let Some(blocks) = &mut self.blocks else { break };
                    let Some(bytes) = streams.ready(id).next() else { break };
                    let taken = blocks.expander.advance(bytes, &blocks.share)?;
                    streams.consume(id, taken, now);
                }
                Some(Ok(count)) => {
                    let taken = match &mut self.blocks {
                        None => count,
                        Some(blocks) => {
                            expanded += count;
                            blocks.expander.on_written(count, slices(streams, id))?
                        }
                    };
                    streams.consume(id, taken, now);
                    // The poller tells at once of the room that is left.
                    self.is_writable = expanded < EXPANDED_MAX;
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
        if !self.write_ended && !self.is_broken && streams.has_ended(id) {
            self.write_ended = true;
            if let Some(blocks) = &mut self.blocks {
                blocks.expander.finish()?;
                blocks.expander.close();
            }
            match self.socket.shutdown(Shutdown::Write) {
                // The peer reset it a moment ago, which reading tells.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                other => other?,
            }
            // The stream may be over with this.
            streams.consume(id, 0, now);
        }
        Ok(())
    }

    /// Writes what can be written as it is; `None`: there is nothing like that.
    fn write(&self, id: StreamId, streams: &Streams) -> Option<io::Result<usize>> {
        let ready = slices(streams, id);
        let slices: Vec<IoSlice<'_>> = match &self.blocks {
            None => ready.take(SLICES_MAX).map(IoSlice::new).collect(),
            Some(blocks) => blocks.expander.slices(ready, SLICES_MAX),
        };
        (!slices.is_empty()).then(|| (&self.socket).write_vectored(&slices))
    }

    /// From the socket to the stream.
    fn fill(&mut self, id: StreamId, streams: &mut Streams, now: Instant) -> Result<(), Trouble> {
        for turn in 0..READS_MAX {
            let is_compressing = self.blocks.as_ref().is_some_and(|blocks| blocks.compressor.has_run());
            let is_late = is_compressing && turn >= COMPRESSED_READS_MAX;
            if !self.is_readable || self.read_ended || is_late {
                break;
            }
            let room = streams.room(id);
            if room == 0 {
                self.is_blocked = true;
                self.is_readable = false;
                break;
            }
            let level = self.blocks.as_ref().and_then(|blocks| blocks.level(streams));
            let mut buffer = match &self.blocks {
                None => Vec::with_capacity(room.min(READ_BYTES)),
                Some(blocks) => Compressor::buffer(blocks.compressor.takes(room, level)),
            };
            match rustix::io::read(&self.socket, spare_capacity(&mut buffer)) {
                // The error was told to the writer: this is no end.
                Ok(0) if self.is_broken => self.read_ended = true,
                Ok(0) => {
                    self.read_ended = true;
                    streams.finish(id);
                    if let Some(blocks) = &mut self.blocks {
                        blocks.compressor.finish();
                    }
                }
                Ok(_) => {
                    if let Some(Blocks { compressor, share, .. }) = self.blocks.as_deref_mut() {
                        buffer = compressor.pack(buffer, level, share, now)?;
                    }
                    let is_small = buffer.len() < SMALL_BYTES.max(buffer.capacity() / 2);
                    let bytes = if is_small { Bytes::copy_from_slice(&buffer) } else { buffer.into() };
                    streams.write(id, bytes);
                }
                Err(Errno::AGAIN) => self.is_readable = false,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether a codec compresses what the socket gives.
    pub(super) fn has_run(&self) -> bool {
        self.blocks.as_ref().is_some_and(|blocks| blocks.compressor.has_run())
    }

    /// Whether a codec expands what the stream gives.
    pub(super) fn has_decoder(&self) -> bool {
        self.blocks.as_ref().is_some_and(|blocks| blocks.expander.has_decoder())
    }

    /// A socket that gave nothing since then needs no codec.
    pub(super) fn retire(&mut self, id: StreamId, streams: &mut Streams, since: Instant) {
        let Some(blocks) = self.blocks.as_deref_mut().filter(|blocks| blocks.compressor.has_run()) else {
            return;
        };
        if streams.room(id) > 0
            && let Some(bytes) = blocks.compressor.retire(since)
        {
            streams.write(id, bytes.into());
        }
    }

    /// Has the poller watch for what is waited for. A socket without anything to wait for is not
    /// watched: a hang-up would be told for ever.
    fn watch(&mut self, poller: &Poller) -> io::Result<()> {
        let reads = !self.read_ended && !self.is_blocked;
        let writes = !self.write_ended && !self.is_writable && !self.is_broken;
        let wanted = match (reads, writes) {
            (true, true) => Some(Interest::ReadableWritable),
            (true, false) => Some(Interest::Readable),
            (false, true) => Some(Interest::Writable),
            (false, false) => None,
        };
        if wanted == self.watched {
            return Ok(());
        }
        match (self.watched, wanted) {
            (None, Some(interest)) => poller.add(&self.socket, self.token, interest)?,
            (Some(_), Some(interest)) => poller.modify(&self.socket, self.token, interest)?,
            (_, None) => poller.remove(&self.socket)?,
        }
        self.watched = wanted;
        Ok(())
    }

    /// The joint is over: the poller knows it no more.
    pub(super) fn forget(&self, poller: &Poller) {
        if self.watched.is_some() {
            // It is closed right after.
            let _ = poller.remove(&self.socket);
        }
    }

    /// The stream has finished: what the kernel still has to send is sent.
    pub(super) fn finish(self) {
        let _ = SockRef::from(&self.socket).set_linger(None);
    }
}

/// The bytes that the stream gives, in order.
fn slices(streams: &Streams, id: StreamId) -> impl Iterator<Item = &[u8]> {
    streams.ready(id).map(|bytes| &bytes[..])
}

impl Blocks {
    fn new(share: Share) -> Self {
        Self { compressor: Compressor::default(), expander: Expander::default(), share }
    }

    /// The level for what is read now.
    fn level(&self, streams: &Streams) -> Option<Level> {
        self.share.level(streams.rate(), self.compressor.has_run())
    }
}
