//! Joins kernel sockets to streams of the bond: what a socket gives goes into its stream, what the
//! stream gives goes into the socket, and both ends of both directions are passed on. Where the
//! peer takes it, what shrinks is compressed in between.
//!
//! ```text
//! socket ─► read, as far as the stream has room ─► (compressor) ─► stream ═══ peer
//! socket ◄─ written, as far as the socket takes ◄─ (expander) ◄─── stream ═══
//! ```
//! Contract: a joint lives from [`Relay::join`] until its stream is over, or its socket breaks.
//! Backpressure goes both ways: a socket is read only while its stream has room, and bytes of a
//! stream that the socket does not take stay in the stream, which gives its peer no credit for
//! them. A FIN ends one direction. A RST ends the whole stream, behind the bytes that the socket
//! received before it. A joint that ends before its stream has
//! finished, with this process if need be, ends with a RST. No call waits, and no byte waits to be
//! compressed.
//!
//! It knows neither the links nor how a connection came here: [`crate::client`] and
//! [`crate::server`] do.

mod blocks;
mod compressor;
mod effort;
mod expander;
mod joint;
mod share;

use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bonding_os::poll::{Poller, Ready};
use bonding_proto::position::StreamId;
use bonding_proto::streams::StreamEvent;
use bonding_proto::wire::stream::StreamForm;
use bonding_proto::{Instant, StreamHost};

use self::joint::{Joint, Verdict};
use self::share::Shares;
use crate::engine::plan::Compression;
use crate::status;

/// A stream, and the session that carries it.
pub(crate) type StreamKey = (u16, StreamId);

/// Turns of readiness that one call serves. Chosen: the event loop's other inputs wait no longer.
const TURNS_MAX: usize = 4;
/// A codec whose connection gives nothing for so long, and at most twice as long, is dropped.
/// Chosen: pauses between the answers of one connection.
const IDLE: Duration = Duration::from_secs(5);

/// The joints. See the module.
#[derive(Debug)]
pub(crate) struct Relay {
    poller: Poller,
    joints: BTreeMap<StreamKey, Joint>,
    ready: Vec<Ready>,
    /// Streams whose joints ended since they were last asked for.
    ended: Vec<StreamKey>,
    shares: Shares,
    /// When codecs that are idle are dropped; `None`: there are none.
    retire_at: Option<Instant>,
}

impl Relay {
    pub(crate) fn new(compression: Compression) -> io::Result<Self> {
        Ok(Self {
            poller: Poller::new()?,
            joints: BTreeMap::new(),
            ready: Vec::new(),
            ended: Vec::new(),
            shares: Shares::new(compression),
            retire_at: None,
        })
    }

    /// The form that a new stream may have.
    pub(crate) fn form(&self) -> StreamForm {
        self.shares.form()
    }

    /// What was compressed and expanded so far.
    pub(crate) fn figures(&self) -> status::Compression {
        self.shares.figures()
    }

    /// When [`Self::handle_due`] is due.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.retire_at
    }

    /// Drops codecs that are idle. Whether a stream was written.
    pub(crate) fn handle_due<H: StreamHost>(&mut self, host: &mut H, now: Instant) -> bool {
        if self.retire_at.is_none_or(|at| now < at) {
            return false;
        }
        let since = now.saturating_sub(IDLE);
        let mut is_any_left = false;
        for (key, joint) in self.joints.iter_mut().filter(|(_, joint)| joint.has_run()) {
            if let Some(streams) = host.streams_mut(key.0, now) {
                joint.retire(key.1, streams, since);
            }
            is_any_left |= joint.has_run();
        }
        self.retire_at = is_any_left.then(|| now + IDLE);
        true
    }

    /// Readable when a socket is ready.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }

    /// Joins a connected socket to an open stream.
    pub(crate) fn join<H: StreamHost>(
        &mut self,
        key: StreamKey,
        socket: TcpStream,
        host: &mut H,
        now: Instant,
    ) {
        let form = host.streams_mut(key.0, now).map_or(StreamForm::Plain, |streams| streams.form(key.1));
        let share = self.shares.of(key.0);
        match Joint::new(socket, token(key), (form, share), &self.poller) {
            Ok(joint) => {
                self.joints.insert(key, joint);
                self.serve(key, host, now);
            }
            Err(error) => {
                tracing::debug!(%error, "cannot watch a connection");
                self.give_up(key, host, now);
            }
        }
    }

    /// A stream's peer did something. `true`: the stream is joined, so that is the relay's concern.
    pub(crate) fn on_event<H: StreamHost>(
        &mut self,
        session: u16,
        event: StreamEvent,
        host: &mut H,
        now: Instant,
    ) -> bool {
        let key = |id: StreamId| (session, id);
        match event {
            StreamEvent::Readable(id) | StreamEvent::Writable(id) if self.joints.contains_key(&key(id)) => {
                if let (Some(joint), StreamEvent::Writable(_)) = (self.joints.get_mut(&key(id)), event) {
                    joint.on_room();
                }
                self.serve(key(id), host, now);
                true
            }
            StreamEvent::Finished(id) => self.remove(key(id)).map(Joint::finish).is_some(),
            StreamEvent::Reset(id) => self.remove(key(id)).is_some(),
            StreamEvent::Readable(_)
            | StreamEvent::Writable(_)
            | StreamEvent::Asked(..)
            | StreamEvent::Opened(_)
            | StreamEvent::Refused(..) => false,
        }
    }

    /// Serves the sockets that are ready. Whether there were any.
    pub(crate) fn handle_ready<H: StreamHost>(&mut self, host: &mut H, now: Instant) -> bool {
        let mut any = false;
        for _ in 0..TURNS_MAX {
            let mut ready = std::mem::take(&mut self.ready);
            let waited = self.poller.wait(&mut ready, Some(Duration::ZERO));
            if waited.is_err() || ready.is_empty() {
                self.ready = ready;
                break;
            }
            any = true;
            for ready in &ready {
                let Some(key) = key_of(ready.token) else { continue };
                if let Some(joint) = self.joints.get_mut(&key) {
                    joint.on_ready(*ready);
                }
                self.serve(key, host, now);
            }
            self.ready = ready;
        }
        any
    }

    /// Ends all connections.
    pub(crate) fn clear<H: StreamHost>(&mut self, host: &mut H, now: Instant) {
        while let Some((key, joint)) = self.joints.pop_first() {
            joint.forget(&self.poller);
            if let Some(streams) = host.streams_mut(key.0, now) {
                streams.reset(key.1);
            }
        }
    }

    /// The next stream whose joint ended.
    pub(crate) fn poll_ended(&mut self) -> Option<StreamKey> {
        self.ended.pop()
    }

    /// Moves what can be moved.
    fn serve<H: StreamHost>(&mut self, key: StreamKey, host: &mut H, now: Instant) {
        let Some(joint) = self.joints.get_mut(&key) else { return };
        let Some(streams) = host.streams_mut(key.0, now) else {
            self.remove(key);
            return;
        };
        match joint.serve(key.1, streams, &self.poller, now) {
            Verdict::Stays if joint.has_run() && self.retire_at.is_none() => {
                self.retire_at = Some(now + IDLE)
            }
            Verdict::Stays => {}
            Verdict::Broken => {
                self.remove(key);
                if let Some(streams) = host.streams_mut(key.0, now) {
                    streams.break_off(key.1);
                }
            }
            Verdict::Breached => self.give_up(key, host, now),
            Verdict::Crowded => self.make_room(key, host, now),
        }
    }

    /// A stream needs a decoder, and all are in use: of the session that has most, one stream is
    /// given up.
    fn make_room<H: StreamHost>(&mut self, key: StreamKey, host: &mut H, now: Instant) {
        let fullest = self.shares.fullest();
        let decodes = |(one, joint): &(&StreamKey, &Joint)| Some(one.0) == fullest && joint.has_decoder();
        match self.joints.iter().find(decodes).map(|(one, _)| *one).filter(|one| *one != key) {
            Some(one) => {
                self.give_up(one, host, now);
                self.serve(key, host, now);
            }
            None => self.give_up(key, host, now),
        }
    }

    /// The stream is reset, whatever is under way.
    fn give_up<H: StreamHost>(&mut self, key: StreamKey, host: &mut H, now: Instant) {
        self.remove(key);
        if let Some(streams) = host.streams_mut(key.0, now) {
            streams.reset(key.1);
        }
    }

    fn remove(&mut self, key: StreamKey) -> Option<Joint> {
        let joint = self.joints.remove(&key)?;
        joint.forget(&self.poller);
        self.ended.push(key);
        Some(joint)
    }
}

/// A stream as a poller names it.
pub(crate) fn token((session, stream): StreamKey) -> u64 {
    u64::from(session) << 16 | u64::from(stream.number())
}

/// The stream that a poller names.
pub(crate) fn key_of(token: u64) -> Option<StreamKey> {
    let session = u16::try_from(token >> 16).ok()?;
    let number = u16::try_from(token & 0xffff).ok()?;
    Some((session, StreamId::new(number)?))
}

#[cfg(test)]
mod socket_tests;
#[cfg(test)]
mod tests;
