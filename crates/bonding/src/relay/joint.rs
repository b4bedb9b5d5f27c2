//! One socket and its stream.

use std::io::{self, IoSlice, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bonding_os::poll::{Interest, Poller, Ready};
use bonding_proto::Instant;
use bonding_proto::position::StreamId;
use bonding_proto::streams::Streams;
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use socket2::SockRef;

/// Bytes of one read. Chosen: what one batch of a link holds.
const READ_BYTES: usize = 64 << 10;
/// Reads of one turn. Chosen: a fast socket leaves the others their turn.
const READS_MAX: usize = 8;
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
    /// The socket broke.
    Broken,
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
}

impl Joint {
    pub(super) fn new(socket: TcpStream, token: u64, poller: &Poller) -> io::Result<Self> {
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
        let result = self.drain(id, streams, now).and_then(|()| self.fill(id, streams));
        match result.and_then(|()| self.watch(poller)) {
            Ok(()) => Verdict::Stays,
            Err(error) => {
                tracing::trace!(%error, "a connection broke");
                Verdict::Broken
            }
        }
    }

    /// From the stream to the socket.
    fn drain(&mut self, id: StreamId, streams: &mut Streams, now: Instant) -> io::Result<()> {
        while self.is_writable && !self.write_ended {
            let written = {
                let slices: Vec<IoSlice<'_>> =
                    streams.ready(id).take(SLICES_MAX).map(|bytes| IoSlice::new(bytes)).collect();
                if slices.is_empty() {
                    break;
                }
                (&self.socket).write_vectored(&slices)
            };
            match written {
                Ok(count) => streams.consume(id, count, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !self.write_ended && streams.has_ended(id) {
            self.write_ended = true;
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

    /// From the socket to the stream.
    fn fill(&mut self, id: StreamId, streams: &mut Streams) -> io::Result<()> {
        for _ in 0..READS_MAX {
            if !self.is_readable || self.read_ended {
                break;
            }
            let room = streams.room(id);
            if room == 0 {
                self.is_blocked = true;
                self.is_readable = false;
                break;
            }
            let mut buffer = Vec::with_capacity(room.min(READ_BYTES));
            match rustix::io::read(&self.socket, spare_capacity(&mut buffer)) {
                Ok(0) => {
                    self.read_ended = true;
                    streams.finish(id);
                }
                Ok(count) if count < SMALL_BYTES => streams.write(id, Bytes::copy_from_slice(&buffer)),
                Ok(_) => streams.write(id, Bytes::from(buffer)),
                Err(Errno::AGAIN) => self.is_readable = false,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Has the poller watch for what is waited for. A socket without anything to wait for is not
    /// watched: a hang-up would be told for ever.
    fn watch(&mut self, poller: &Poller) -> io::Result<()> {
        let reads = !self.read_ended && !self.is_blocked;
        let writes = !self.write_ended && !self.is_writable;
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
