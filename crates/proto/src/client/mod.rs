//! The client's side: one bond, several servers in order of preference, one session with each that is wanted just now.
//!
//! ```text
//! the active server is silent for 2 s ──► the next one is asked as well, and 2 s later the one after it …
//! another one answers while it is silent ──► that one is active from then on
//! a better one than the active has answered without a break for `hold` ──► back to it; the worse one is told goodbye
//! ```
//! `hold` is 10 s at first and doubles with each failure of that server, up to 10 min, so that a server that comes and goes is not
//! followed. While a worse server is active the better ones go on being asked: a handshake every 5 s, and heartbeats once one answers.
//!
//! All inner packets go over the active session. A switch begins a new session: what was under way in the old one is lost, and the
//! inner addresses are those that the new server leases.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::StateMachine;
use crate::config::SessionConfig;
use crate::crypto::keys::PublicKey;
use crate::crypto::rng::SecretRng;
use crate::discard::{Discard, DiscardCounts};
use crate::event::{Event, SocketEvent};
use crate::packet::{Datagram, LinkId, PacketBuf, Path, SocketId, SocketSet, Transmit};
use crate::session::Session;
use crate::time::Instant;
use crate::timer::Timer;
use crate::view::LinkRole;
use crate::wire::control::CloseReason;
use crate::wire::sealed::{self, DatagramKind};

/// A server that is silent for so long is not waited for alone.
const SILENCE: Duration = Duration::from_secs(2);
/// Another server must answer for so long while the active one is silent: after an outage of all links the old one is to win.
const GRACE: Duration = Duration::from_millis(300);
const HOLD_MIN: Duration = Duration::from_secs(10);
const HOLD_MAX: Duration = Duration::from_secs(600);

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Who it must be; `None`: as the template says, or every link is plain.
    pub public_key: Option<PublicKey>,
    /// Its addresses for each link, the first to be tried first.
    pub paths: Vec<Vec<Path>>,
}

/// One server and what is known of it.
#[derive(Debug)]
struct Seat {
    server: Server,
    session: Option<Session>,
    /// A link has been proven since; `None`: none is.
    connected_since: Option<Instant>,
    /// How long it must answer before it is trusted again.
    hold: Duration,
    /// Goodbye is being said.
    closing: bool,
}

/// The client.
#[derive(Debug)]
pub struct Client {
    template: SessionConfig,
    /// Sessions begun: each is a run of its own to its server.
    opened: u64,
    /// What links carried in sessions that are over.
    past_bytes: Vec<u64>,
    rng: SecretRng,
    seats: Vec<Seat>,
    active: usize,
    /// Since when the active server is silent; `None`: it answers.
    silent_since: Option<Instant>,
    review_at: Option<Instant>,
    events: std::collections::VecDeque<Event>,
    discards: DiscardCounts,
    /// The driver's sockets that take no more.
    full: SocketSet,
}

impl Client {
    /// `template` says everything but the servers' addresses; its links' paths are not used. Without a server nothing ever happens.
    pub fn new(mut template: SessionConfig, servers: Vec<Server>, now: Instant) -> Self {
        let mut entropy = [0; 32];
        if let Some(sealing) = &mut template.sealing {
            // The seed must not outlive its first use.
            entropy = std::mem::take(&mut sealing.entropy);
        }
        let seat =
            |server| Seat { server, session: None, connected_since: None, hold: HOLD_MIN, closing: false };
        let mut client = Self {
            template,
            opened: 0,
            past_bytes: Vec::new(),
            rng: SecretRng::new(entropy),
            seats: servers.into_iter().map(seat).collect(),
            active: 0,
            silent_since: Some(now),
            review_at: None,
            events: std::collections::VecDeque::new(),
            discards: DiscardCounts::default(),
            full: SocketSet::default(),
        };
        client.open(0, now);
        client.review(now);
        client
    }

    /// The session that carries the traffic; `None` without any server.
    pub fn session(&self) -> Option<&Session> {
        self.seats.get(self.active)?.session.as_ref()
    }

    /// The next thing worth a log line; of the active server only.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was thrown away before it reached a session.
    pub const fn discards(&self) -> &DiscardCounts {
        &self.discards
    }

    /// A link is used for something else from now on, with every server.
    pub fn set_link_role(&mut self, link: LinkId, role: LinkRole, now: Instant) {
        if let Some(config) = self.template.links.get_mut(link.index()) {
            config.role = role;
        }
        for session in self.seats.iter_mut().filter_map(|seat| seat.session.as_mut()) {
            session.set_link_role(link, role, now);
        }
        self.review(now);
    }

    /// Bytes that a link sent and received so far, with all servers; handshakes are not counted.
    pub fn link_bytes(&self, link: LinkId) -> u64 {
        let sessions = self.seats.iter().filter_map(|seat| seat.session.as_ref());
        let present: u64 = sessions.filter_map(|session| session.links_bytes().nth(link.index())).sum();
        self.past_bytes.get(link.index()).copied().unwrap_or(0) + present
    }

    fn open(&mut self, at: usize, now: Instant) {
        let Some(seat) = self.seats.get_mut(at) else { return };
        let mut config = self.template.clone();
        // Its counters begin anew: under the epoch of an earlier session with that server they would be stale.
        config.epoch = config.epoch.wrapping_add(self.opened);
        self.opened += 1;
        for (number, link) in config.links.iter_mut().enumerate() {
            let mut paths = seat.server.paths.get(number).into_iter().flatten().copied();
            link.path = paths.next();
            link.alternatives = paths.collect();
        }
        if let Some(sealing) = &mut config.sealing {
            self.rng.fill(&mut sealing.entropy);
            sealing.server = seat.server.public_key.unwrap_or(sealing.server);
        }
        let mut session = Session::new(config, now);
        // Its first handshake is due at once.
        session.handle_timeout(now);
        if let Some(over) = seat.session.replace(session) {
            retire(&mut self.past_bytes, &over);
        }
        seat.connected_since = None;
        seat.closing = false;
    }

    /// Something may have changed: who is active, who is asked.
    fn review(&mut self, now: Instant) {
        for (at, seat) in self.seats.iter_mut().enumerate() {
            let Some(session) = &mut seat.session else { continue };
            while let Some(event) = session.poll_event() {
                if at == self.active {
                    self.events.push_back(event);
                }
            }
            let connected = session.is_connected() && !seat.closing;
            seat.connected_since = connected.then(|| seat.connected_since.unwrap_or(now));
        }
        let answers = self.seats.get(self.active).is_some_and(|seat| seat.connected_since.is_some());
        match (answers, self.silent_since) {
            (true, _) => self.silent_since = None,
            (false, None) => self.on_silence(now),
            (false, Some(_)) => {}
        }
        self.choose(now);
        self.ask(now);
        self.review_at = self.next_review(now);
    }

    /// The active server has just become silent.
    fn on_silence(&mut self, now: Instant) {
        self.silent_since = Some(now);
        if let Some(seat) = self.seats.get_mut(self.active) {
            seat.hold = (seat.hold * 2).min(HOLD_MAX);
        }
    }

    /// Since when a seat could take over, and after how long it should.
    fn claim(&self, at: usize) -> Option<(Instant, Duration)> {
        let seat = self.seats.get(at)?;
        let since = seat.connected_since?;
        if self.silent_since.is_some() {
            Some((since, GRACE))
        } else {
            (at < self.active).then_some((since, seat.hold))
        }
    }

    fn choose(&mut self, now: Instant) {
        let claims = |at: &usize| {
            *at != self.active
                && self.claim(*at).is_some_and(|(since, after)| now.saturating_since(since) >= after)
        };
        let Some(next) = (0..self.seats.len()).find(claims) else { return };
        let before = std::mem::replace(&mut self.active, next);
        self.silent_since = None;
        // A better server goes on being asked; a worse one is done with.
        for (at, seat) in self.seats.iter_mut().enumerate() {
            if let Some(session) = seat.session.as_mut().filter(|_| at > next && !seat.closing) {
                session.close(CloseReason::Shutdown, now);
                seat.closing = true;
                seat.connected_since = None;
            }
        }
        self.events.push_back(Event::ServerChanged { from: before, to: next });
        self.events.push_back(Event::Leased);
    }

    /// Asks more servers, the longer the active one is silent.
    fn ask(&mut self, now: Instant) {
        let Some(since) = self.silent_since else { return };
        let silent = now.saturating_since(since);
        let wanted = usize::try_from(silent.as_nanos() / SILENCE.as_nanos()).unwrap_or(usize::MAX);
        let missing = |seat: &Seat| seat.session.is_none() || seat.closing;
        // In order of preference; the active one is asked anyway.
        let others: Vec<usize> = (0..self.seats.len()).filter(|at| *at != self.active).take(wanted).collect();
        for at in others {
            if self.seats.get(at).is_some_and(missing) {
                self.open(at, now);
            }
        }
    }

    fn next_review(&self, now: Instant) -> Option<Instant> {
        let claims = (0..self.seats.len()).filter(|at| *at != self.active);
        let claims = claims.filter_map(|at| self.claim(at)).map(|(since, after)| since + after);
        let unasked = self.seats.iter().any(|seat| seat.session.is_none() || seat.closing);
        let ask = self.silent_since.filter(|_| unasked).map(|since| {
            let steps = now.saturating_since(since).as_nanos() / SILENCE.as_nanos() + 1;
            since + SILENCE * u32::try_from(steps).unwrap_or(u32::MAX)
        });
        claims.chain(ask).min()
    }

    /// The session that a datagram is for.
    fn owner(&mut self, datagram: &Datagram) -> Option<&mut Session> {
        let sessions = self.seats.iter_mut().filter_map(|seat| seat.session.as_mut());
        let index = match DatagramKind::of(&datagram.data) {
            Some(_) => Some(sealed::receiver_index(&datagram.data)?),
            None => None,
        };
        let mut owners = sessions.filter(|session| match index {
            Some(index) => session.owns(index),
            None => session.accepts_from(&datagram.path),
        });
        owners.next()
    }
}

/// A session is over: what its links carried goes on counting.
fn retire(past_bytes: &mut Vec<u64>, session: &Session) {
    for (number, bytes) in session.links_bytes().enumerate() {
        match past_bytes.get_mut(number) {
            Some(past) => *past += bytes,
            None => past_bytes.push(bytes),
        }
    }
}

impl StateMachine for Client {
    fn handle_packet(&mut self, packet: PacketBuf, now: Instant) -> Result<(), Discard> {
        let session = self.seats.get_mut(self.active).and_then(|seat| seat.session.as_mut());
        session.ok_or(Discard::NotConnected)?.handle_packet(packet, now)
    }

    fn handle_run(&mut self, run: &mut dyn Iterator<Item = PacketBuf>, now: Instant) {
        if let Some(session) = self.seats.get_mut(self.active).and_then(|seat| seat.session.as_mut()) {
            session.handle_run(run, now);
        }
    }

    fn handle_datagram(&mut self, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        let Some(session) = self.owner(&datagram) else {
            self.discards.count(Discard::UnknownSession);
            return Err(Discard::UnknownSession);
        };
        let result = session.handle_datagram(datagram, now);
        // Most datagrams change nothing about who is active.
        if session.has_events() {
            self.review(now);
        }
        result
    }

    fn handle_socket_event(&mut self, socket: SocketId, event: SocketEvent, now: Instant) {
        let mut sessions = self.seats.iter_mut().filter_map(|seat| seat.session.as_mut());
        match event {
            SocketEvent::Full => return self.full.set(socket, true),
            SocketEvent::Writable => return self.full.set(socket, false),
            SocketEvent::TooBig { remote, bytes } => {
                sessions.any(|session| session.handle_too_big(socket, remote, bytes, now));
            }
            SocketEvent::NoRoute | SocketEvent::CarrierLost | SocketEvent::CarrierFound => {
                sessions.for_each(|session| session.handle_socket_event(socket, event, now));
            }
        }
        self.review(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        for session in self.seats.iter_mut().filter_map(|seat| seat.session.as_mut()) {
            session.handle_timeout(now);
        }
        self.review(now);
    }

    fn poll_transmit(
        &mut self,
        buf: &mut Vec<u8>,
        max_segments: NonZeroUsize,
        now: Instant,
    ) -> Option<Transmit> {
        for seat in &mut self.seats {
            let Some(session) = &mut seat.session else { continue };
            session.set_full(self.full);
            if let Some(transmit) = session.poll_transmit(buf, max_segments, now) {
                return Some(transmit);
            }
            if seat.closing {
                if let Some(over) = seat.session.take() {
                    retire(&mut self.past_bytes, &over);
                }
                seat.closing = false;
            }
        }
        None
    }

    fn poll_packet(&mut self) -> Option<PacketBuf> {
        self.seats.iter_mut().filter_map(|seat| seat.session.as_mut()).find_map(Session::poll_packet)
    }

    fn close(&mut self, now: Instant) {
        for session in self.seats.iter_mut().filter_map(|seat| seat.session.as_mut()) {
            session.close(CloseReason::Shutdown, now);
        }
    }

    fn round_trip(&self, socket: SocketId) -> Option<Duration> {
        let sessions = self.seats.iter().filter_map(|seat| seat.session.as_ref());
        sessions.filter_map(|session| session.round_trip(socket)).min()
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let sessions = self.seats.iter().filter_map(|seat| seat.session.as_ref());
        let own = self.review_at.map(|at| (at, Timer::Servers));
        sessions.filter_map(Session::poll_timeout).chain(own).min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests;
