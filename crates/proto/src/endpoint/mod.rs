//! The server's side: one endpoint, many sessions. Datagrams find their session by the receiver index they carry, plain ones by
//! where they come from, inner packets by where they go to.
//!
//! A plain datagram is accepted from a configured address only; where one address speaks on several links, the
//! listener tells them apart (link *i* uses the *i*-th port). Anything else is counted and gets no answer. What a client
//! sends must carry one of its own inner addresses. The endpoint looks at nothing inside a frame. Handshakes are `admission`'s.
//!
//! Clients come and go while it runs. A session that is taken away says so to its client first.
//!
//! Work is proportional to the sessions that have something to do, not to those that exist: inputs mark their session, due
//! timers are kept in order.

mod admission;
mod indices;
mod routes;
mod timers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroUsize;

use self::admission::Door;
pub use self::admission::{Enrolment, EnrolmentAnswer};
use self::indices::IndexTable;
use self::routes::RouteTable;
use self::timers::Timers;
use crate::StateMachine;
use crate::config::{ClientConfig, EndpointConfig, LinkConfig, PlainPeer, Role, Security, SessionConfig};
use crate::crypto::keys::PublicKey;
use crate::crypto::rng::SecretRng;
use crate::discard::{Discard, DiscardCounts};
use crate::event::{Event, SocketEvent};
use crate::handshake::Stamp;
use crate::packet::{Datagram, LinkId, PacketBuf, Path, SocketId, SocketSet, Transmit};
use crate::qos::flow::{self, InnerHeader};
use crate::session::Session;
use crate::stats::SessionStats;
use crate::time::Instant;
use crate::timer::Timer;
use crate::units::BitRate;
use crate::view::LinkRole;
use crate::wire::control::CloseReason;
use crate::wire::sealed::{DatagramKind, SealedHeader};

/// Bytes queued ahead of the links, of all sessions together; beyond that only sessions with little queued get more in.
const QUEUED_BYTES_MAX: usize = 256 << 20;
const LITTLE_QUEUED_BYTES: usize = 64 << 10;

/// Names a session for as long as its client is known; after that it may name another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u16);

/// Many sessions behind one set of sockets and one TUN device.
#[derive(Debug)]
pub struct Endpoint {
    settings: Settings,
    /// Seeds of sessions.
    rng: SecretRng,
    slots: Vec<Option<Slot>>,
    by_key: BTreeMap<PublicKey, SessionId>,
    indices: IndexTable,
    /// `None`: only plain clients.
    door: Option<Door>,
    peers: BTreeMap<IpAddr, Vec<(SessionId, LinkId)>>,
    routes: RouteTable,
    /// Sum of the slots' queued bytes, and its limit.
    queued_bytes: usize,
    queued_bytes_max: usize,
    /// Sessions with undrained output, each once.
    pending: VecDeque<SessionId>,
    timers: Timers,
    /// The driver's sockets that take no more, and the sessions whose data waited when one of them was full.
    full: SocketSet,
    held_up: BTreeSet<SessionId>,
    events: VecDeque<(SessionId, Event)>,
    released: VecDeque<PacketBuf>,
    discards: DiscardCounts,
}

/// What every session is told.
#[derive(Debug, Clone)]
struct Settings {
    policy: crate::config::Policy,
    heartbeat_interval: std::time::Duration,
    mtu: u16,
    mss_clamp: bool,
    recovery: crate::config::RecoveryConfig,
    rules: std::sync::Arc<[crate::qos::rule::Rule]>,
}

/// A session and what the endpoint keeps about it.
#[derive(Debug)]
struct Slot {
    client: ClientConfig,
    session: Box<Session>,
    /// Of the newest first message.
    newest_stamp: Option<Stamp>,
    /// To be removed when its last words are sent.
    closing: bool,
    /// Bytes in its queue when it was last looked at.
    queued_bytes: usize,
    pending: bool,
    /// Its entry among the timers, and what for.
    timer: Option<(Instant, Timer)>,
}

impl Endpoint {
    /// Sessions for all of the configuration's clients; at most 65,536.
    pub fn new(config: &EndpointConfig, now: Instant) -> Self {
        let mut seed = [0; 32];
        let mut door = config.sealing.as_ref().map(|sealing| Door::new(sealing, now));
        match &mut door {
            Some(door) => door.rng.fill(&mut seed),
            None => {
                if let Some(head) = seed.first_chunk_mut() {
                    *head = config.seed.to_be_bytes();
                }
            }
        }
        let mut endpoint = Self {
            settings: Settings {
                policy: config.policy,
                heartbeat_interval: config.heartbeat_interval,
                mtu: config.mtu,
                mss_clamp: config.mss_clamp,
                recovery: config.recovery,
                rules: config.rules.clone(),
            },
            rng: SecretRng::new(seed),
            slots: Vec::new(),
            by_key: BTreeMap::new(),
            indices: IndexTable::default(),
            door,
            peers: BTreeMap::new(),
            routes: RouteTable::default(),
            queued_bytes: 0,
            queued_bytes_max: QUEUED_BYTES_MAX,
            pending: VecDeque::new(),
            timers: Timers::default(),
            full: SocketSet::default(),
            held_up: BTreeSet::new(),
            events: VecDeque::new(),
            released: VecDeque::new(),
            discards: DiscardCounts::default(),
        };
        for client in &config.clients {
            endpoint.add_session(client.clone(), config.epoch, now);
        }
        endpoint
    }

    /// One more client. `None`: its key is another's, or there are 65,536.
    pub fn add_client(&mut self, client: ClientConfig, now: Instant) -> Option<SessionId> {
        // A client that was taken away and comes back is to see that this session is not the one that it knew.
        let epoch = self.rng.next_u32();
        self.add_session(client, epoch.into(), now)
    }

    fn add_session(&mut self, client: ClientConfig, epoch: u64, now: Instant) -> Option<SessionId> {
        if client.public_key.is_some_and(|key| self.by_key.contains_key(&key)) {
            return None;
        }
        let free = self.slots.iter().position(Option::is_none);
        let at = free.unwrap_or(self.slots.len());
        let id = SessionId(u16::try_from(at).ok()?);
        for peer in &client.plain {
            self.peers.entry(peer.remote.to_canonical()).or_default().push((id, peer.link));
        }
        for prefix in &client.prefixes {
            self.routes.insert(*prefix, id);
        }
        self.by_key.extend(client.public_key.map(|key| (key, id)));
        let seed = self.rng.next_u64();
        let mut session = Session::new(session_config(&self.settings, &client, epoch, seed), now);
        session.set_tx_rates(client.tx_rates.clone());
        let slot = Slot {
            client,
            session: Box::new(session),
            newest_stamp: None,
            closing: false,
            queued_bytes: 0,
            pending: false,
            timer: None,
        };
        match self.slots.get_mut(at) {
            Some(place) => *place = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        Some(id)
    }

    /// The client may not connect any more: its session ends at once, and it is told.
    pub fn remove_client(&mut self, id: SessionId, now: Instant) {
        let Some(slot) = self.slot(id) else { return };
        slot.closing = true;
        slot.session.close(CloseReason::Revoked, now);
        let key = slot.client.public_key;
        if let Some(key) = key {
            self.by_key.remove(&key);
        }
        self.routes.remove(id);
        self.peers.retain(|_, peers| {
            peers.retain(|(owner, _)| *owner != id);
            !peers.is_empty()
        });
        self.mark(id);
    }

    #[cfg(test)]
    pub(crate) fn limit_queued_bytes(&mut self, max: usize) {
        self.queued_bytes_max = max;
    }

    /// The session of a client, for figures.
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.slots.get(usize::from(id.0))?.as_ref().map(|slot| &*slot.session)
    }

    /// The next thing worth a log line.
    pub fn poll_event(&mut self) -> Option<(SessionId, Event)> {
        self.events.pop_front()
    }

    /// Figures of every session.
    pub fn stats(&self, now: Instant) -> Vec<(SessionId, SessionStats)> {
        let slots =
            (0..=u16::MAX).zip(&self.slots).filter_map(|(number, slot)| Some((number, slot.as_ref()?)));
        slots.map(|(number, slot)| (SessionId(number), slot.session.stats(now))).collect()
    }

    /// What was thrown away before it reached a session.
    pub const fn discards(&self) -> &DiscardCounts {
        &self.discards
    }

    fn refuse(&mut self, reason: Discard) -> Result<(), Discard> {
        self.discards.count(reason);
        Err(reason)
    }

    /// The session and link that a plain datagram on `path` belongs to.
    fn peer(&self, path: &Path) -> Option<(SessionId, LinkId)> {
        let peers = self.peers.get(&path.remote.ip().to_canonical())?;
        match peers.as_slice() {
            [only] => Some(*only),
            several => several.iter().copied().find(|(_, link)| link.0 == path.socket.0),
        }
    }

    fn slot(&mut self, id: SessionId) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(id.0))?.as_mut()
    }

    /// The session that a packet from TUN goes to, if that may queue more.
    fn owner(&mut self, packet: &[u8]) -> Result<(SessionId, InnerHeader), Discard> {
        let header = flow::parse(packet)?;
        let id = self.routes.lookup(header.destination).ok_or(Discard::NoRoute)?;
        let full = self.queued_bytes >= self.queued_bytes_max;
        let slot = self.slot(id).ok_or(Discard::NoRoute)?;
        if full && slot.queued_bytes >= LITTLE_QUEUED_BYTES {
            Err(Discard::QueueFull)
        } else {
            Ok((id, header))
        }
    }

    /// The session has been given something to do: takes what it has for TUN and logs, and lets it transmit.
    fn mark(&mut self, id: SessionId) {
        let Some(slot) = self.slots.get_mut(usize::from(id.0)).and_then(Option::as_mut) else { return };
        if !slot.pending {
            slot.pending = true;
            self.pending.push_back(id);
        }
        self.collect(id);
    }

    /// Collects what the session has for TUN and logs.
    fn collect(&mut self, id: SessionId) {
        let Some(slot) = self.slots.get_mut(usize::from(id.0)).and_then(Option::as_mut) else { return };
        if !slot.session.has_output() {
            return;
        }
        while let Some(event) = slot.session.poll_event() {
            self.events.push_back((id, event));
        }
        while let Some(index) = slot.session.poll_freed_index() {
            self.indices.remove(index);
        }
        while let Some(packet) = slot.session.poll_packet() {
            let source = flow::parse(&packet).map(|header| header.source);
            if source.ok().and_then(|source| self.routes.lookup(source)) == Some(id) {
                self.released.push_back(packet);
            } else {
                self.discards.count(Discard::ForeignSource);
            }
        }
    }

    /// The session's queue has changed.
    fn count_queued(&mut self, id: SessionId) {
        let Some(slot) = self.slot(id) else { return };
        let now_queued = if slot.closing { 0 } else { slot.session.queued_bytes() };
        let before = std::mem::replace(&mut slot.queued_bytes, now_queued);
        self.queued_bytes = (self.queued_bytes + now_queued).saturating_sub(before);
    }

    /// The session sends nothing more while a socket is full: perhaps because of that. Apart, as it is rare.
    #[inline(never)]
    fn note_held_up(&mut self, id: SessionId) {
        if self.session(id).is_some_and(Session::is_waiting) {
            self.held_up.insert(id);
        }
    }

    /// The session's outputs are drained: its next deadline stands.
    fn settle(&mut self, id: SessionId) {
        self.count_queued(id);
        let Some(slot) = self.slot(id) else { return };
        slot.pending = false;
        let timeout = slot.session.poll_timeout().filter(|_| !slot.closing);
        let closing = slot.closing;
        slot.timer = timeout;
        self.timers.set(id, timeout.map(|(at, _)| at));
        if closing {
            self.indices.remove_session(id);
            if let Some(place) = self.slots.get_mut(usize::from(id.0)) {
                *place = None;
            }
        }
    }
}

impl StateMachine for Endpoint {
    fn close(&mut self, now: Instant) {
        for number in 0..self.slots.len() {
            let Ok(id) = u16::try_from(number).map(SessionId) else { break };
            if let Some(slot) = self.slot(id) {
                slot.session.close(CloseReason::Shutdown, now);
                self.mark(id);
            }
        }
    }

    fn handle_packet(&mut self, packet: PacketBuf, now: Instant) -> Result<(), Discard> {
        let (id, header) = self.owner(&packet).inspect_err(|reason| self.discards.count(*reason))?;
        let slot = self.slot(id).ok_or(Discard::NoRoute)?;
        let result = slot.session.handle_parsed(packet, &header, now);
        self.count_queued(id);
        self.mark(id);
        result
    }

    fn handle_run(&mut self, run: &mut dyn Iterator<Item = PacketBuf>, now: Instant) {
        let (first, id, header) = loop {
            let Some(first) = run.next() else { return };
            match self.owner(&first) {
                Ok((id, header)) => break (first, id, header),
                Err(reason) => self.discards.count(reason),
            }
        };
        if let Some(slot) = self.slot(id) {
            slot.session.handle_parsed_run(std::iter::once(first).chain(run), &header, now);
        }
        self.count_queued(id);
        self.mark(id);
    }

    fn handle_datagram(&mut self, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        let (id, result) = match DatagramKind::of(&datagram.data) {
            Some(DatagramKind::Sealed) => {
                let header = match SealedHeader::parse(&datagram.data) {
                    Ok(header) => header,
                    Err(reason) => return self.refuse(reason),
                };
                let id = self.indices.lookup(header.receiver_index);
                let Some(id) = id else { return self.refuse(Discard::UnknownSession) };
                let slot = self.slot(id).ok_or(Discard::UnknownSession)?;
                (id, slot.session.handle_sealed_datagram(datagram, now))
            }
            Some(DatagramKind::Initiation) => {
                return self.on_initiation(&datagram, now).or_else(|reason| self.refuse(reason));
            }
            Some(DatagramKind::Response | DatagramKind::Cookie) => {
                return self.refuse(Discard::KindUnsupported);
            }
            None => {
                let peer = self.peer(&datagram.path);
                let Some((id, link)) = peer else { return self.refuse(Discard::UnknownPeer) };
                let slot = self.slot(id).ok_or(Discard::UnknownPeer)?;
                (id, slot.session.handle_link_datagram(link, datagram, now))
            }
        };
        self.mark(id);
        result
    }

    fn handle_socket_event(&mut self, socket: SocketId, event: SocketEvent, now: Instant) {
        match event {
            SocketEvent::Full => self.full.set(socket, true),
            SocketEvent::Writable => {
                self.full.set(socket, false);
                for id in std::mem::take(&mut self.held_up) {
                    self.mark(id);
                }
            }
            SocketEvent::TooBig { remote, bytes } => {
                // Rare: afterwards the session sends nothing as large there.
                let is_its_own = |slot: &mut Option<Slot>| {
                    slot.as_mut().is_some_and(|slot| slot.session.handle_too_big(socket, remote, bytes, now))
                };
                let found = self.slots.iter_mut().position(is_its_own);
                if let Some(id) = found.and_then(|at| u16::try_from(at).ok()).map(SessionId) {
                    self.mark(id);
                }
            }
            // A server's sockets belong to no link, and to no interface in particular.
            SocketEvent::NoRoute | SocketEvent::CarrierLost | SocketEvent::CarrierFound => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first()
            && at <= now
        {
            self.timers.set(id, None);
            if let Some(slot) = self.slot(id) {
                slot.timer = None;
                slot.session.handle_timeout(now);
            }
            self.mark(id);
        }
    }

    fn poll_transmit(
        &mut self,
        buf: &mut Vec<u8>,
        max_segments: NonZeroUsize,
        now: Instant,
    ) -> Option<Transmit> {
        if let Some(transmit) = self.door.as_mut().and_then(|door| door.poll_transmit(buf)) {
            return Some(transmit);
        }
        while let Some(id) = self.pending.front().copied() {
            let full = self.full;
            let transmit = self.slot(id).and_then(|slot| {
                slot.session.set_full(full);
                slot.session.poll_transmit(buf, max_segments, now)
            });
            if let Some(transmit) = transmit {
                // Sessions take turns, batch by batch.
                self.pending.rotate_left(1);
                return Some(transmit);
            }
            self.pending.pop_front();
            if !full.is_empty() {
                self.note_held_up(id);
            }
            // Sending may have found packets that are too big.
            self.collect(id);
            self.settle(id);
        }
        None
    }

    fn poll_packet(&mut self) -> Option<PacketBuf> {
        self.released.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let (at, id) = self.timers.first()?;
        let slot = self.slots.get(usize::from(id.0))?.as_ref()?;
        Some((at, slot.timer.map_or(Timer::Session, |(_, timer)| timer)))
    }
}

/// A client's session as its server runs it.
fn session_config(settings: &Settings, client: &ClientConfig, epoch: u64, seed: u64) -> SessionConfig {
    let links = client.plain.iter().map(|peer| usize::from(peer.link.0) + 1).max().unwrap_or(0);
    let link = |at: usize| client.plain.iter().find(|peer| peer.link.index() == at);
    SessionConfig {
        role: Role::Server,
        links: (0..links)
            .map(|at| link_config(link(at), client.tx_rates.get(at).copied().flatten()))
            .collect(),
        policy: settings.policy,
        heartbeat_interval: settings.heartbeat_interval,
        mtu: settings.mtu,
        mss_clamp: settings.mss_clamp,
        recovery: settings.recovery,
        rules: settings.rules.clone(),
        seed,
        epoch,
        sealing: None,
    }
}

/// A number between plain links that is none of them is a sealed link's.
fn link_config(plain: Option<&PlainPeer>, sealed_rate: Option<BitRate>) -> LinkConfig {
    LinkConfig {
        security: if plain.is_some() { Security::Plain } else { Security::Sealed },
        priority: 1,
        role: LinkRole::Primary,
        tx_rate: plain.map_or(sealed_rate, |peer| peer.tx_rate),
        rx_rate: None,
        // Which interface leads to the client is not known; the kernel refuses what is too large for it.
        mtu: u16::MAX,
        path: None,
        alternatives: Vec::new(),
    }
}
