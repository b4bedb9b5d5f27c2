//! The server's side of streams: connects to where a client's streams go, and joins the
//! connections to them.
//!
//! Contract: a connection goes nowhere that a packet of that client would not be let through to;
//! that is decided on the address that is connected to, before it is. What goes to another client
//! goes as packets, which have its own source. The answer to the client is
//! that of the destination: it stands, was refused, is unreachable, or is silent. A connection has
//! [`PATIENCE`] to stand. A server has [`CONNECTING_MAX`] that do not stand yet, and a client has
//! [`CONNECTING_OF_CLIENT_MAX`] of them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bonding_os::nat::Permit;
use bonding_os::poll::{Interest, Poller, Ready};
use bonding_proto::streams::{StreamEvent, StreamTarget};
use bonding_proto::wire::stream::StreamRefusal;
use bonding_proto::{Endpoint, Instant, StreamHost as _};
use socket2::{Domain, Protocol, Socket, Type};

use crate::engine::plan::Compression;
use crate::relay::{Relay, StreamKey, key_of, token};
use crate::status::{self, AsPackets};

/// A destination that is silent for this long does not answer. Chosen: programs give up by then.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that do not stand yet. Chosen: file descriptors; a scan of ports gets no further.
const CONNECTING_MAX: usize = 1_024;
/// Those of one client. Chosen: three clients that scan leave room for the others.
const CONNECTING_OF_CLIENT_MAX: usize = 256;

/// The poller's tokens: which of the two is ready.
const RELAY: u64 = 0;
const CONNECTING: u64 = 1;

/// A connection that does not stand yet.
#[derive(Debug)]
struct Attempt {
    socket: TcpStream,
    until: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Dialer {
    relay: Relay,
    connecting: BTreeMap<StreamKey, Attempt>,
    attempts: Poller,
    both: Poller,
    ready: Vec<Ready>,
    as_packets: AsPackets,
}

impl Dialer {
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        let (relay, attempts, both) = (Relay::new(compression)?, Poller::new()?, Poller::new()?);
        both.add(relay.descriptor(), RELAY, Interest::Readable)?;
        both.add(&attempts, CONNECTING, Interest::Readable)?;
        let (connecting, as_packets) = (BTreeMap::new(), AsPackets::default());
        Ok(Self { relay, connecting, attempts, both, ready: Vec::new(), as_packets })
    }

    /// Connections that clients were told to have as packets.
    pub(super) const fn as_packets(&self) -> AsPackets {
        self.as_packets
    }

    /// Readable when there is work for [`Self::handle_ready`].
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.both.as_fd()
    }

    /// Takes what happened to the streams. `permits`: whether this session may connect there.
    /// Whether anything did.
    pub(super) fn handle_events(
        &mut self,
        endpoint: &mut Endpoint,
        permits: impl Fn(u16, IpAddr) -> Permit,
        now: Instant,
    ) -> bool {
        let mut any = false;
        while let Some((session, event)) = endpoint.poll_stream_event() {
            any = true;
            if self.relay.on_event(session, event, endpoint, now) {
                continue;
            }
            match event {
                StreamEvent::Asked(id, target) => {
                    let address = target.to.ip();
                    let permit = match permits(session, address) {
                        // Also a client whose addresses are not of the tunnel's networks.
                        Permit::Allowed if endpoint.client_of(address).is_some() => Permit::AsPackets,
                        permit @ (Permit::Allowed | Permit::AsPackets | Permit::Forbidden) => permit,
                    };
                    self.connect((session, id), target, permit, endpoint, now);
                }
                StreamEvent::Reset(id) => {
                    self.connecting.remove(&(session, id));
                }
                StreamEvent::Opened(_)
                | StreamEvent::Refused(..)
                | StreamEvent::Readable(_)
                | StreamEvent::Writable(_)
                | StreamEvent::Finished(_) => {}
            }
        }
        while self.relay.poll_ended().is_some() {}
        any
    }

    /// Whether no further connection of this session is begun.
    fn is_full(&self, session: u16) -> bool {
        let mut own = self.connecting.keys().filter(|key| key.0 == session);
        self.connecting.len() >= CONNECTING_MAX || own.nth(CONNECTING_OF_CLIENT_MAX - 1).is_some()
    }

    fn connect(
        &mut self,
        key: StreamKey,
        target: StreamTarget,
        permit: Permit,
        endpoint: &mut Endpoint,
        now: Instant,
    ) {
        let result = match permit {
            Permit::Forbidden => Err(StreamRefusal::Forbidden),
            Permit::AsPackets => {
                self.as_packets.server += 1;
                Err(StreamRefusal::AsPackets)
            }
            Permit::Allowed if self.is_full(key.0) => {
                self.as_packets.full += 1;
                Err(StreamRefusal::AsPackets)
            }
            Permit::Allowed => begin(target).map_err(|error| refusal(&error)),
        };
        let watched = result.and_then(|socket| {
            let token = token(key);
            self.attempts.add(&socket, token, Interest::Writable).map_err(|error| refusal(&error))?;
            Ok(socket)
        });
        match watched {
            Ok(socket) => {
                self.connecting.insert(key, Attempt { socket, until: now + PATIENCE });
            }
            Err(reason) => refuse(key, reason, endpoint, now),
        }
    }

    /// Sockets are ready. Whether the endpoint was given an input.
    pub(super) fn handle_ready(&mut self, endpoint: &mut Endpoint, now: Instant) -> bool {
        let mut ready = std::mem::take(&mut self.ready);
        if self.attempts.wait(&mut ready, Some(Duration::ZERO)).is_err() {
            ready.clear();
        }
        for ready in &ready {
            let found = key_of(ready.token).and_then(|key| Some((key, self.connecting.remove(&key)?)));
            let Some((key, attempt)) = found else { continue };
            let _ = self.attempts.remove(&attempt.socket);
            match attempt.socket.take_error() {
                Ok(None) => {
                    if let Some(streams) = endpoint.streams_mut(key.0, now) {
                        streams.accept(key.1, self.relay.form());
                    }
                    self.relay.join(key, attempt.socket, endpoint, now);
                }
                Ok(Some(error)) | Err(error) => refuse(key, refusal(&error), endpoint, now),
            }
        }
        let any = !ready.is_empty();
        self.ready = ready;
        self.relay.handle_ready(endpoint, now) || any
    }

    /// What was compressed and expanded so far.
    pub(super) fn figures(&self) -> status::Compression {
        self.relay.figures()
    }

    /// When the first connection has been waited for long enough, or codecs are idle.
    pub(super) fn due(&self) -> Option<Instant> {
        let attempts = self.connecting.values().map(|attempt| attempt.until);
        attempts.chain(self.relay.due()).min()
    }

    /// Gives up what is overdue. Whether anything was.
    pub(super) fn handle_due(&mut self, endpoint: &mut Endpoint, now: Instant) -> bool {
        let overdue = self.connecting.iter().filter(|(_, attempt)| attempt.until <= now);
        let overdue: Vec<StreamKey> = overdue.map(|(key, _)| *key).collect();
        for key in &overdue {
            self.connecting.remove(key);
            refuse(*key, StreamRefusal::TimedOut, endpoint, now);
        }
        self.relay.handle_due(endpoint, now) || !overdue.is_empty()
    }
}

fn refuse(key: StreamKey, reason: StreamRefusal, endpoint: &mut Endpoint, now: Instant) {
    if let Some(streams) = endpoint.streams_mut(key.0, now) {
        streams.refuse(key.1, reason);
    }
}

/// Begins to connect.
fn begin(target: StreamTarget) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target.to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let mark = u32::from(target.dscp) << 2;
    // A mark that the host does not allow is no reason not to connect.
    let _ = match target.to {
        SocketAddr::V4(_) => socket.set_tos_v4(mark),
        SocketAddr::V6(_) => socket.set_tclass_v6(mark),
    };
    match socket.connect(&target.to.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Err(error)
        }
        Ok(()) | Err(_) => Ok(socket.into()),
    }
}

/// What the client is told.
fn refusal(error: &io::Error) -> StreamRefusal {
    use io::ErrorKind;
    // Few kinds say more than that there is no way.
    #[expect(clippy::wildcard_enum_match_arm)]
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => StreamRefusal::Refused,
        ErrorKind::TimedOut => StreamRefusal::TimedOut,
        ErrorKind::PermissionDenied => StreamRefusal::Forbidden,
        _ => StreamRefusal::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use bonding_proto::position::StreamId;

    use super::*;

    #[test]
    fn a_client_that_scans_leaves_room_for_others() {
        let mut dialer = Dialer::new(Compression::Off).unwrap();
        for number in (0..).step_by(2).take(CONNECTING_OF_CLIENT_MAX) {
            assert!(!dialer.is_full(5));
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap().into();
            let key = (5, StreamId::new(number).unwrap());
            dialer.connecting.insert(key, Attempt { socket, until: Instant::ZERO });
        }
        assert!(dialer.is_full(5));
        assert!(!dialer.is_full(4) && !dialer.is_full(6), "sessions have shares of their own");
        let _ = dialer.connecting.pop_last();
        assert!(!dialer.is_full(5));
    }
}
