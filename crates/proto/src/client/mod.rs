//! The client's side: one bond, several servers in order of preference, and a session with each
//! server in use.
//!
//! ```text
//! the active server is silent for 2 s     ──► the client contacts the next server as well,
//!                                             2 s later the one after it, and so on
//! another server answers during that time ──► that server becomes active
//! a better server than the active one has
//! answered without a break for `hold`     ──► it becomes active; the worse sessions are closed
//! ```
//! `hold` is 10 s at first and doubles with each failure of that server, up to 10 min, so that the
//! client does not follow a server that comes and goes. While a worse server is active, the client
//! keeps contacting the better servers: a handshake every 5 s, and heartbeats once a server
//! answers.
//!
//! Links come and go while sessions run: each has the same number with every server, and that
//! number rests before it is another line's.
//!
//! All inner packets go over the active session. A switch begins a new session: packets in flight
//! in the old session are lost, and the inner addresses are those that the new server leases.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::config::{LINKS_MAX, LinkConfig, Sending, SessionConfig};
use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::crypto::rng::SecretRng;
use crate::discard::{Discard, DiscardCounts};
use crate::event::{Event, SocketEvent};
use crate::packet::{Datagram, LinkId, PacketBuf, Path, SocketId, SocketSet, Transmit};
use crate::session::Session;
use crate::streams::{StreamEvent, Streams};
use crate::time::Instant;
use crate::timer::Timer;
use crate::trace;
use crate::units::BitRate;
use crate::view::LinkRole;
use crate::wire::control::CloseReason;
use crate::wire::sealed::{self, DatagramKind};
use crate::{StateMachine, StreamHost};

/// A server that is silent for this long is no longer contacted alone. Chosen: above the time in
/// which a session's links fail and recover over one another.
const SILENCE: Duration = Duration::from_secs(2);
/// How long another server must answer while the active one is silent, before it becomes active.
/// Chosen: after an outage of all links the old server should win.
const GRACE: Duration = Duration::from_millis(300);
/// The bounds of `hold`. Chosen: a second failure within 10 s is likely, after 10 min it is not.
const HOLD_MIN: Duration = Duration::from_secs(10);
const HOLD_MAX: Duration = Duration::from_secs(600);
/// A number is for another line this long after its line was retired: nothing that was sealed for
/// that one opens any more. Source: the time after which keys are refused
/// (`session/sealing/keyring.rs`).
const NUMBER_REST: Duration = Duration::from_secs(180);

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The server's static key; `None`: the template's key, or every link is plain.
    pub public_key: Option<PublicKey>,
    /// The server's addresses on each link, in the order in which they are tried; none while its
    /// name has none, say ([`Client::set_paths`]).
    pub paths: Vec<Vec<Path>>,
}

/// One server with its session and its history.
#[derive(Debug)]
struct ServerEntry {
    server: Server,
    session: Option<Session>,
    /// Since when a link of the session is proven; `None`: no link is proven.
    connected_since: Option<Instant>,
    /// How long the server must answer before it may become active again.
    hold: Duration,
    /// The session sends its close message and then ends.
    closing: bool,
}

impl ServerEntry {
    /// Whether a link has an address of the server.
    fn has_paths(&self) -> bool {
        self.server.paths.iter().any(|paths| !paths.is_empty())
    }
}

/// The client.
#[derive(Debug)]
pub struct Client {
    template: SessionConfig,
    /// The number of sessions begun. Each session is a new run to its server.
    opened: u64,
    /// Bytes that each link carried in sessions that have ended.
    past_bytes: Vec<u64>,
    /// Numbers of links without a line, and since when.
    retired: BTreeMap<LinkId, Instant>,
    rng: SecretRng,
    /// Time that passed without passing in `now`.
    unseen: Duration,
    servers: Vec<ServerEntry>,
    active: usize,
    /// Since when the active server is silent; `None`: the server answers.
    silent_since: Option<Instant>,
    review_at: Option<Instant>,
    events: std::collections::VecDeque<Event>,
    stream_events: std::collections::VecDeque<(u16, StreamEvent)>,
    discards: DiscardCounts,
    /// The driver's full sockets, for sessions that begin.
    full: SocketSet,
    /// How much each session records.
    trace: trace::Level,
}

impl Client {
    /// A client. `template` is the configuration without the servers' addresses: its links' paths
    /// are not used. Without servers the client does nothing.
    pub fn new(mut template: SessionConfig, servers: Vec<Server>, now: Instant) -> Self {
        let mut entropy = [0; 32];
        if let Some(sealing) = &mut template.sealing {
            // The seed must not outlive its first use.
            entropy = std::mem::take(&mut sealing.entropy);
        }
        let new_entry = |server| ServerEntry {
            server,
            session: None,
            connected_since: None,
            hold: HOLD_MIN,
            closing: false,
        };
        let mut client = Self {
            template,
            opened: 0,
            past_bytes: Vec::new(),
            retired: BTreeMap::new(),
            rng: SecretRng::new(entropy),
            unseen: Duration::ZERO,
            servers: servers.into_iter().map(new_entry).collect(),
            active: 0,
            silent_since: Some(now),
            review_at: None,
            events: std::collections::VecDeque::new(),
            stream_events: std::collections::VecDeque::new(),
            discards: DiscardCounts::default(),
            full: SocketSet::default(),
            trace: trace::Level::Off,
        };
        client.open(0, now);
        client.review(now);
        client
    }

    /// The session that carries the traffic; `None` if there is no server.
    pub fn session(&self) -> Option<&Session> {
        self.servers.get(self.active)?.session.as_ref()
    }

    /// The place of the server that carries the traffic, or is first asked.
    pub const fn active(&self) -> usize {
        self.active
    }

    /// The next event to log, of the active server's session.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Datagrams discarded before they reached a session, by reason.
    pub const fn discards(&self) -> &DiscardCounts {
        &self.discards
    }

    /// Changes a link's role, with every server.
    pub fn set_link_role(&mut self, link: LinkId, role: LinkRole, now: Instant) {
        if let Some(config) = self.template.links.get_mut(link.index()) {
            config.role = role;
        }
        for session in self.servers.iter_mut().filter_map(|entry| entry.session.as_mut()) {
            session.set_link_role(link, role, now);
        }
        self.review(now);
    }

    /// Changes how this side sends, with every server.
    pub fn set_sending(&mut self, sending: &Sending, now: Instant) {
        let Sending { policy, recovery, rules } = sending.clone();
        (self.template.policy, self.template.recovery, self.template.rules) = (policy, recovery, rules);
        for session in self.servers.iter_mut().filter_map(|entry| entry.session.as_mut()) {
            session.set_sending(sending, now);
        }
    }

    /// Changes a link's priority, with every server.
    pub fn set_link_priority(&mut self, link: LinkId, priority: u8, now: Instant) {
        if let Some(config) = self.template.links.get_mut(link.index()) {
            config.priority = priority;
        }
        for session in self.servers.iter_mut().filter_map(|entry| entry.session.as_mut()) {
            session.set_link_priority(link, priority, now);
        }
    }

    /// Changes a link's ceilings, with every server: of what is sent on it, and of what each server
    /// is to send.
    pub fn set_link_rates(&mut self, link: LinkId, rates: [Option<BitRate>; 2], now: Instant) {
        if let Some(config) = self.template.links.get_mut(link.index()) {
            [config.tx_rate, config.rx_rate] = rates;
        }
        for session in self.servers.iter_mut().filter_map(|entry| entry.session.as_mut()) {
            session.set_link_rates(link, rates, now);
        }
    }

    /// A number for a line that comes; `None`: all are in use, or were lately.
    pub fn free_number(&self, now: Instant) -> Option<LinkId> {
        let next = u8::try_from(self.template.links.len()).ok().map(LinkId);
        let rested =
            |(id, since): (&LinkId, &Instant)| (now.saturating_since(*since) >= NUMBER_REST).then_some(*id);
        next.filter(|next| next.index() < LINKS_MAX).or_else(|| self.retired.iter().find_map(rested))
    }

    /// The link with this number is this line from now on: a number from [`Self::free_number`], or
    /// that which the same line had before it was retired. `paths`: each server's addresses on it.
    pub fn set_link(&mut self, id: LinkId, config: LinkConfig, paths: Vec<Vec<Path>>, now: Instant) {
        let (at, count) = (id.index(), self.template.links.len());
        match self.template.links.get_mut(at) {
            Some(known) => known.clone_from(&config),
            None if at == count && count < LINKS_MAX => self.template.links.push(config.clone()),
            None => return,
        }
        self.retired.remove(&id);
        let mut paths = paths.into_iter();
        for entry in &mut self.servers {
            let paths = paths.next().unwrap_or_default();
            if let Some(session) = &mut entry.session {
                let mut known = paths.iter().copied();
                let (path, alternatives) = (known.next(), known.collect());
                session.set_link(id, &LinkConfig { path, alternatives, ..config.clone() }, now);
            }
            if entry.server.paths.len() <= id.index() {
                entry.server.paths.resize(id.index() + 1, Vec::new());
            }
            if let Some(place) = entry.server.paths.get_mut(id.index()) {
                *place = paths;
            }
        }
        self.review(now);
    }

    /// No line has this number any more, with any server. What the link carried goes over others.
    pub fn retire_link(&mut self, id: LinkId, now: Instant) {
        if id.index() >= self.template.links.len() {
            return;
        }
        self.retired.insert(id, now);
        for entry in &mut self.servers {
            entry.server.paths.get_mut(id.index()).into_iter().for_each(Vec::clear);
            if let Some(session) = &mut entry.session {
                session.retire_link(id, now);
            }
        }
        self.review(now);
    }

    /// A link that is down sends to this port of each server from now on, whatever the old one
    /// still answers. Its socket is to be replaced as well ([`SocketEvent::Replaced`]), which sends
    /// something there.
    pub fn set_port(&mut self, link: LinkId, port: u16) {
        for entry in &mut self.servers {
            let paths = entry.server.paths.get_mut(link.index());
            paths.into_iter().flatten().for_each(|path| path.remote.set_port(port));
            if let Some(session) = &mut entry.session {
                session.set_port(link, port);
            }
        }
    }

    /// The addresses of the server at this place, as [`Server::paths`], which may have become known
    /// only now, or be others than before. A link that is up goes on with the address that answers.
    pub fn set_paths(&mut self, server: usize, mut paths: Vec<Vec<Path>>, now: Instant) {
        for id in self.retired.keys() {
            paths.get_mut(id.index()).into_iter().for_each(Vec::clear);
        }
        let Some(entry) = self.servers.get_mut(server) else { return };
        if entry.server.paths == paths {
            return;
        }
        entry.server.paths = paths;
        if let Some(session) = entry.session.as_mut().filter(|_| !entry.closing) {
            for (number, paths) in (0..u8::MAX).zip(&entry.server.paths) {
                session.set_candidates(LinkId(number), paths.clone(), now);
            }
        }
        self.review(now);
    }

    /// Bytes that a link sent and received with all servers so far; handshakes are not counted.
    pub fn link_bytes(&self, link: LinkId) -> u64 {
        let sessions = self.servers.iter().filter_map(|entry| entry.session.as_ref());
        let present: u64 = sessions.filter_map(|session| session.links_bytes().nth(link.index())).sum();
        self.past_bytes.get(link.index()).copied().unwrap_or(0) + present
    }

    /// The first address of the active server that the link can send to, if there is one.
    pub fn remote(&self, link: LinkId) -> Option<SocketAddr> {
        let paths = self.servers.get(self.active)?.server.paths.get(link.index())?;
        paths.first().map(|path| path.remote)
    }

    /// Whether the active server has an address that the link can send to.
    pub fn has_path(&self, link: LinkId) -> bool {
        self.remote(link).is_some()
    }

    /// Whether no server answers on the link.
    pub fn is_link_down(&self, link: LinkId) -> bool {
        let mut sessions = self.servers.iter().filter_map(|entry| entry.session.as_ref());
        sessions.all(|session| session.is_link_down(link))
    }

    fn open(&mut self, at: usize, now: Instant) {
        let Some(entry) = self.servers.get_mut(at) else { return };
        let mut config = self.template.clone();
        // The new session's counters start at zero; under the epoch of an earlier session with the
        // same server they would be stale.
        config.epoch = config.epoch.wrapping_add(self.opened);
        self.opened += 1;
        for (number, link) in config.links.iter_mut().enumerate() {
            let mut paths = entry.server.paths.get(number).into_iter().flatten().copied();
            link.path = paths.next();
            link.alternatives = paths.collect();
        }
        if let Some(sealing) = &mut config.sealing {
            self.rng.fill(&mut sealing.entropy);
            sealing.server = entry.server.public_key.unwrap_or(sealing.server);
        }
        let mut session = Session::new(config, now);
        for id in self.retired.keys() {
            session.retire_link(*id, now);
        }
        session.set_full(self.full);
        session.set_trace(self.trace);
        if !self.unseen.is_zero() {
            session.forget_keys(self.unseen, now);
        }
        // The first handshake is due at once.
        session.handle_timeout(now);
        if let Some(mut over) = entry.session.replace(session) {
            retire(&mut self.past_bytes, &over);
            over.end_streams(now);
            collect_streams(at, &mut over, &mut self.stream_events);
        }
        entry.connected_since = None;
        entry.closing = false;
    }

    /// `next` is to take the place of this client's key, with every server: all are reached by the
    /// same key. [`Event::KeyReplaced`] tells when it has.
    pub fn rotate(&mut self, next: PrivateKey, now: Instant) {
        if let Some(sealing) = &mut self.template.sealing {
            sealing.next = Some(next.clone());
        }
        for session in self.servers.iter_mut().filter_map(|entry| entry.session.as_mut()) {
            session.rotate(next.clone(), now);
        }
    }

    /// This client was enrolled anew while it runs: `preshared` is what it shares with its servers
    /// from now on, and `run` names its handshakes, since the enrolment was a run of its own. A
    /// handshake is due at once.
    pub fn enrol_anew(&mut self, preshared: &PresharedKey, run: u64, now: Instant) {
        let Some(sealing) = &mut self.template.sealing else { return };
        (sealing.preshared, sealing.token, sealing.run) = (Some(preshared.clone()), None, run);
        sealing.next = None;
        for session in self.servers.iter_mut().filter_map(|entry| entry.session.as_mut()) {
            session.enrol_anew(preshared.clone(), run, now);
        }
    }

    fn adopt_next(&mut self) {
        if let Some(sealing) = &mut self.template.sealing
            && let Some(next) = sealing.next.take()
        {
            sealing.identity = next;
        }
        self.servers.iter_mut().filter_map(|entry| entry.session.as_mut()).for_each(Session::adopt_next);
    }

    /// Decides again which server is active and which servers are contacted.
    fn review(&mut self, now: Instant) {
        let mut is_replaced = false;
        for (at, entry) in self.servers.iter_mut().enumerate() {
            let Some(session) = &mut entry.session else { continue };
            while let Some(event) = session.poll_event() {
                let of_key = matches!(event, Event::KeyReplaced | Event::KeyRefused(_));
                is_replaced |= event == Event::KeyReplaced;
                if let (Event::KeyRefused(_), Some(sealing)) = (&event, &mut self.template.sealing) {
                    sealing.next = None;
                }
                if at == self.active || of_key {
                    self.events.push_back(event);
                }
            }
            let connected = session.is_connected() && !entry.closing;
            entry.connected_since = connected.then(|| entry.connected_since.unwrap_or(now));
        }
        if is_replaced {
            self.adopt_next();
        }
        let answers = self.servers.get(self.active).is_some_and(|entry| entry.connected_since.is_some());
        match (answers, self.silent_since) {
            (true, _) => self.silent_since = None,
            (false, None) => self.on_silence(now),
            (false, Some(_)) => {}
        }
        self.choose(now);
        self.ask(now);
        self.review_at = self.next_review(now);
    }

    /// Handles the start of the active server's silence.
    fn on_silence(&mut self, now: Instant) {
        self.silent_since = Some(now);
        if let Some(entry) = self.servers.get_mut(self.active) {
            entry.hold = (entry.hold * 2).min(HOLD_MAX);
        }
    }

    /// Since when a server could become active, and after which time it should.
    fn claim(&self, at: usize) -> Option<(Instant, Duration)> {
        let entry = self.servers.get(at)?;
        let since = entry.connected_since?;
        if self.silent_since.is_some() {
            Some((since, GRACE))
        } else {
            (at < self.active).then_some((since, entry.hold))
        }
    }

    fn choose(&mut self, now: Instant) {
        let claims = |at: &usize| {
            *at != self.active
                && self.claim(*at).is_some_and(|(since, after)| now.saturating_since(since) >= after)
        };
        let Some(next) = (0..self.servers.len()).find(claims) else { return };
        let before = std::mem::replace(&mut self.active, next);
        self.silent_since = None;
        // Better servers stay in contact; worse ones are closed.
        for (at, entry) in self.servers.iter_mut().enumerate() {
            if let Some(session) = entry.session.as_mut().filter(|_| at > next && !entry.closing) {
                session.close(CloseReason::Shutdown, now);
                entry.closing = true;
                entry.connected_since = None;
            }
        }
        self.events.push_back(Event::ServerChanged { from: before, to: next });
        self.events.push_back(Event::Leased);
    }

    /// Contacts more servers the longer the active one is silent.
    fn ask(&mut self, now: Instant) {
        let Some(since) = self.silent_since else { return };
        let silent = now.saturating_since(since);
        let wanted = usize::try_from(silent.as_nanos() / SILENCE.as_nanos()).unwrap_or(usize::MAX);
        let missing = |entry: &ServerEntry| entry.session.is_none() || entry.closing;
        // A server without an address cannot answer: the next one takes its place.
        let can_answer = |at: &usize| self.servers.get(*at).is_some_and(ServerEntry::has_paths);
        let wanted = wanted.saturating_add(usize::from(!can_answer(&self.active)));
        // In order of preference. The active server is contacted anyway.
        let others = (0..self.servers.len()).filter(|at| *at != self.active).filter(can_answer);
        let others: Vec<usize> = others.take(wanted).collect();
        for at in others {
            if self.servers.get(at).is_some_and(missing) {
                self.open(at, now);
            }
        }
    }

    fn next_review(&self, now: Instant) -> Option<Instant> {
        let claims = (0..self.servers.len()).filter(|at| *at != self.active);
        let claims = claims.filter_map(|at| self.claim(at)).map(|(since, after)| since + after);
        let missing = |entry: &ServerEntry| entry.session.is_none() || entry.closing;
        let unasked = self.servers.iter().any(|entry| missing(entry) && entry.has_paths());
        let ask = self.silent_since.filter(|_| unasked).map(|since| {
            let steps = now.saturating_since(since).as_nanos() / SILENCE.as_nanos() + 1;
            since + SILENCE * u32::try_from(steps).unwrap_or(u32::MAX)
        });
        claims.chain(ask).min()
    }

    /// The session that a datagram is for.
    fn owner(&mut self, datagram: &Datagram) -> Option<&mut Session> {
        let sessions = self.servers.iter_mut().filter_map(|entry| entry.session.as_mut());
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

/// Takes what happened to the streams of the session with the server at this place.
fn collect_streams(
    at: usize,
    session: &mut Session,
    into: &mut std::collections::VecDeque<(u16, StreamEvent)>,
) {
    let number = u16::try_from(at).unwrap_or(u16::MAX);
    into.extend(std::iter::from_fn(|| session.poll_stream_event()).map(|event| (number, event)));
}

/// Keeps the byte counts of a session that has ended.
fn retire(past_bytes: &mut Vec<u64>, session: &Session) {
    for (number, bytes) in session.links_bytes().enumerate() {
        match past_bytes.get_mut(number) {
            Some(past) => *past += bytes,
            None => past_bytes.push(bytes),
        }
    }
}

impl StreamHost for Client {
    fn streams_mut(&mut self, session: u16, now: Instant) -> Option<&mut Streams> {
        let session = self.servers.get_mut(usize::from(session))?.session.as_mut()?;
        Some(session.streams_mut(now))
    }

    fn stream_session(&self) -> Option<u16> {
        let takes = self.session().is_some_and(Session::takes_streams);
        u16::try_from(self.active).ok().filter(|_| takes)
    }

    fn poll_stream_event(&mut self) -> Option<(u16, StreamEvent)> {
        if self.stream_events.is_empty() {
            for (at, entry) in self.servers.iter_mut().enumerate() {
                if let Some(session) = &mut entry.session {
                    collect_streams(at, session, &mut self.stream_events);
                }
            }
        }
        self.stream_events.pop_front()
    }
}

impl StateMachine for Client {
    fn handle_packet(&mut self, packet: PacketBuf, now: Instant) -> Result<(), Discard> {
        let session = self.servers.get_mut(self.active).and_then(|entry| entry.session.as_mut());
        session.ok_or(Discard::NotConnected)?.handle_packet(packet, now)
    }

    fn handle_run(&mut self, run: &mut dyn Iterator<Item = PacketBuf>, now: Instant) {
        if let Some(session) = self.servers.get_mut(self.active).and_then(|entry| entry.session.as_mut()) {
            session.handle_run(run, now);
        }
    }

    fn handle_datagram(&mut self, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        let Some(session) = self.owner(&datagram) else {
            self.discards.count(Discard::UnknownSession);
            return Err(Discard::UnknownSession);
        };
        let result = session.handle_datagram(datagram, now);
        // Most datagrams cannot change which server is active.
        if session.has_events() {
            self.review(now);
        }
        result
    }

    fn handle_socket_event(&mut self, socket: SocketId, event: SocketEvent, now: Instant) {
        let mut sessions = self.servers.iter_mut().filter_map(|entry| entry.session.as_mut());
        match event {
            SocketEvent::Full | SocketEvent::Writable => {
                self.full.set(socket, event == SocketEvent::Full);
                return sessions.for_each(|session| session.handle_socket_event(socket, event, now));
            }
            SocketEvent::TooBig { remote, bytes } => {
                sessions.any(|session| session.handle_too_big(socket, remote, bytes, now));
            }
            SocketEvent::NoRoute
            | SocketEvent::CarrierLost
            | SocketEvent::CarrierFound
            | SocketEvent::Replaced => {
                sessions.for_each(|session| session.handle_socket_event(socket, event, now));
            }
        }
        self.review(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        for session in self.servers.iter_mut().filter_map(|entry| entry.session.as_mut()) {
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
        for entry in &mut self.servers {
            let Some(session) = &mut entry.session else { continue };
            if let Some(transmit) = session.poll_transmit(buf, max_segments, now) {
                return Some(transmit);
            }
            if entry.closing {
                if let Some(over) = entry.session.take() {
                    retire(&mut self.past_bytes, &over);
                }
                entry.closing = false;
            }
        }
        None
    }

    fn poll_packet(&mut self) -> Option<PacketBuf> {
        self.servers.iter_mut().filter_map(|entry| entry.session.as_mut()).find_map(Session::poll_packet)
    }

    fn close(&mut self, now: Instant) {
        for session in self.servers.iter_mut().filter_map(|entry| entry.session.as_mut()) {
            session.close(CloseReason::Shutdown, now);
        }
    }

    fn draws_secrets(&self, datagram: Option<&Datagram>, now: Instant) -> bool {
        // A review may begin a session, and a datagram may bring it about.
        let reviews = self.review_at.is_some_and(|at| at <= now);
        let mut sessions = self.servers.iter().filter_map(|entry| entry.session.as_ref());
        reviews || (datagram.is_none() && sessions.any(|session| session.draws_secrets(None, now)))
    }

    fn mix_entropy(&mut self, entropy: &[u8; 32]) {
        self.rng.mix(entropy);
        for session in self.servers.iter_mut().filter_map(|entry| entry.session.as_mut()) {
            session.mix_entropy(entropy);
        }
    }

    fn forget_keys(&mut self, unseen: Duration, now: Instant) {
        self.unseen += unseen;
        self.template.epoch = self.rng.next_u64();
        for session in self.servers.iter_mut().filter_map(|entry| entry.session.as_mut()) {
            session.forget_keys(unseen, now);
        }
    }

    fn round_trip(&self, socket: SocketId) -> Option<Duration> {
        let sessions = self.servers.iter().filter_map(|entry| entry.session.as_ref());
        sessions.filter_map(|session| session.round_trip(socket)).min()
    }

    fn set_trace(&mut self, level: trace::Level) {
        self.trace = level;
        for session in self.servers.iter_mut().filter_map(|entry| entry.session.as_mut()) {
            session.set_trace(level);
        }
    }

    /// Each record has the server's place in the list.
    fn drain_trace(&mut self, out: &mut Vec<trace::Record>) {
        let from = out.len();
        for (number, entry) in (0..).zip(&mut self.servers) {
            if let Some(session) = &mut entry.session {
                trace::drain_as(number, |out| session.drain_trace(out), out);
            }
        }
        trace::sort(out, from);
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let sessions = self.servers.iter().filter_map(|entry| entry.session.as_ref());
        let own = self.review_at.map(|at| (at, Timer::Servers));
        sessions.filter_map(Session::poll_timeout).chain(own).min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests;
