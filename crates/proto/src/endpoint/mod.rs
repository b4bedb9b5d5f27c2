//! The server's side: one endpoint with many sessions. A sealed datagram is routed to its session
//! by its receiver index, a plain datagram by its source address, an inner packet by its
//! destination.
//!
//! A plain datagram is accepted from a configured address only. Where one address sends on several
//! links, the listener tells the links apart (link *i* uses the *i*-th port). Any other datagram is
//! counted and gets no answer. An inner packet from a client must have one of that client's inner
//! addresses as its source. The endpoint reads nothing inside a frame. `admission` handles
//! handshakes.
//!
//! Clients are added and removed at run time. A removed session tells its client before it ends.
//!
//! The work is proportional to the sessions with pending work, not to all sessions: an input marks
//! its session, and deadlines are kept in order.

mod admission;
mod indices;
mod routes;
mod session_id;
mod settings;
mod shares;
mod state_machine;
mod timers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use self::admission::{Admission, Admitted};
pub use self::admission::{Enrolment, EnrolmentAnswer};
use self::indices::IndexTable;
use self::routes::RouteTable;
pub use self::session_id::SessionId;
use self::settings::{Settings, session_config, tx_rates};
use self::shares::{Memory, Work};
use self::timers::Timers;
use crate::StateMachine as _;
use crate::config::{ClientConfig, EndpointConfig, Sending};
use crate::crypto::keys::PublicKey;
use crate::crypto::rng::SecretRng;
use crate::discard::{Discard, DiscardCounts};
use crate::event::Event;
use crate::handshake::{Claim, Refusal, SharedSecret, Stamp, TransportKeys, Welcome};
use crate::packet::{Datagram, LinkId, PacketBuf, Path, SocketSet};
use crate::qos::flow::{self, InnerHeader};
use crate::session::Session;
use crate::stats::SessionStats;
use crate::streams::StreamEvent;
use crate::time::Instant;
use crate::timer::Timer;
use crate::trace;
use crate::units::BitRate;
use crate::wire::control::CloseReason;

/// A client's key is not replaced again before this. Chosen: the driver writes each change down,
/// which takes the longer the more clients there are, and no client changes its key so often.
const ROTATION_PAUSE: Duration = Duration::from_secs(60);

/// Many sessions behind one set of sockets and one TUN device.
#[derive(Debug)]
pub struct Endpoint {
    settings: Settings,
    /// Draws the seeds of the sessions.
    rng: SecretRng,
    slots: Vec<Option<Slot>>,
    /// The places in `slots` that are empty.
    free: BTreeSet<SessionId>,
    by_key: BTreeMap<PublicKey, SessionId>,
    indices: IndexTable,
    /// `None`: every client has plain links only.
    admission: Option<Admission>,
    peers: BTreeMap<IpAddr, Vec<(SessionId, LinkId)>>,
    routes: RouteTable,
    /// What all sessions hold.
    memory: Memory,
    /// Sessions with output that is not drained yet, each once.
    pending: VecDeque<SessionId>,
    timers: Timers,
    /// The driver's full sockets, and the sessions that held data back because of one.
    full: SocketSet,
    held_up: BTreeSet<SessionId>,
    events: VecDeque<(SessionId, Event)>,
    stream_events: VecDeque<(u16, StreamEvent)>,
    released: VecDeque<PacketBuf>,
    discards: DiscardCounts,
    trace: trace::Collector,
}

/// A session and the endpoint's own records about it.
#[derive(Debug)]
struct Slot {
    client: ClientConfig,
    session: Box<Session>,
    /// The stamp of the client's newest first message.
    newest_stamp: Option<Stamp>,
    /// The session ends when its close message is sent.
    closing: bool,
    /// Another session takes its place then: the client stays.
    stays: bool,
    /// The client's key has expired: handshakes are refused.
    expired: bool,
    /// When the client got its present key from its last one.
    rotated_at: Option<Instant>,
    /// Bytes that the session held at the last count.
    held_bytes: usize,
    work: Work,
    pending: bool,
    /// The session's deadline in the timers, with its reason.
    timer: Option<(Instant, Timer)>,
}

impl Slot {
    /// Refuses an initiation that is no newer than one before it.
    fn check_stamp(&self, stamp: Stamp) -> Result<(), Discard> {
        let is_old = self.newest_stamp.is_some_and(|newest| stamp <= newest);
        if is_old { Err(Discard::HandshakeReplayed) } else { Ok(()) }
    }

    /// The session takes a datagram; `None`: it owes too much for earlier ones.
    fn take<T>(&mut self, now: Instant, handle: impl FnOnce(&mut Session) -> T) -> Option<T> {
        if !self.work.may_begin(now) {
            return None;
        }
        let result = handle(&mut self.session);
        self.work.note(self.session.touched(), now);
        Some(result)
    }
}

impl Endpoint {
    /// An endpoint with a session for each configured client; at most 65,536.
    pub fn new(config: &EndpointConfig, now: Instant) -> Self {
        let mut seed = [0; 32];
        let mut admission = config.sealing.as_ref().map(|sealing| Admission::new(sealing, now));
        match &mut admission {
            Some(admission) => admission.fill(&mut seed),
            None => {
                if let Some(head) = seed.first_chunk_mut() {
                    *head = config.seed.to_be_bytes();
                }
            }
        }
        let mut endpoint = Self {
            settings: Settings {
                sending: Sending {
                    policy: config.policy,
                    recovery: config.recovery,
                    rules: config.rules.clone(),
                },
                heartbeat_interval: config.heartbeat_interval,
                mtu: config.mtu,
                mss_clamp: config.mss_clamp,
                streams: false,
            },
            rng: SecretRng::new(seed),
            slots: Vec::new(),
            free: BTreeSet::new(),
            by_key: BTreeMap::new(),
            indices: IndexTable::default(),
            admission,
            peers: BTreeMap::new(),
            routes: RouteTable::default(),
            memory: Memory::new(),
            pending: VecDeque::new(),
            timers: Timers::default(),
            full: SocketSet::default(),
            held_up: BTreeSet::new(),
            events: VecDeque::new(),
            stream_events: VecDeque::new(),
            released: VecDeque::new(),
            discards: DiscardCounts::default(),
            trace: trace::Collector::default(),
        };
        for client in &config.clients {
            endpoint.add_session(client.clone(), config.epoch, now);
        }
        endpoint
    }

    /// From now on clients may open streams, or not any more.
    pub fn set_streams(&mut self, are_taken: bool, now: Instant) {
        self.settings.streams = are_taken;
        for slot in self.slots.iter_mut().flatten() {
            slot.session.streams_mut(now).set_accepting(are_taken);
        }
    }

    /// Changes how this side sends, to every client.
    pub fn set_sending(&mut self, sending: &Sending, now: Instant) {
        self.settings.sending = sending.clone();
        for number in 0..self.slots.len() {
            let Ok(id) = u16::try_from(number).map(SessionId) else { break };
            if let Some(slot) = self.slot(id) {
                slot.session.set_sending(sending, now);
                self.mark(id);
            }
        }
    }

    /// Changes the ceilings of what is sent to a client: on its links by number, plain ones
    /// included.
    pub fn set_client_rates(&mut self, id: SessionId, rates: &[Option<BitRate>], now: Instant) {
        let Some(slot) = self.slot(id) else { return };
        for peer in &mut slot.client.plain {
            peer.tx_rate = rates.get(peer.link.index()).copied().flatten();
        }
        slot.client.tx_rates = rates.to_vec();
        slot.session.set_tx_rates(tx_rates(&slot.client), now);
        self.mark(id);
    }

    /// Adds a client. `None`: another client has the same key, or there are 65,536 clients.
    pub fn add_client(&mut self, client: ClientConfig, now: Instant) -> Option<SessionId> {
        // A client that was removed and returns must notice that this is a new session.
        let epoch = self.rng.next_u32();
        self.add_session(client, epoch.into(), now)
    }

    fn add_session(&mut self, client: ClientConfig, epoch: u64, now: Instant) -> Option<SessionId> {
        if client.public_key.is_some_and(|key| self.by_key.contains_key(&key)) {
            return None;
        }
        let next = u16::try_from(self.slots.len()).ok().map(SessionId);
        let id = self.free.pop_first().or(next)?;
        for peer in &client.plain {
            self.peers.entry(peer.remote.to_canonical()).or_default().push((id, peer.link));
        }
        for prefix in &client.prefixes {
            self.routes.insert(*prefix, id);
        }
        self.by_key.extend(client.public_key.map(|key| (key, id)));
        let session = Box::new(self.new_session(&client, epoch, now));
        let slot = Slot {
            client,
            session,
            newest_stamp: None,
            closing: false,
            stays: true,
            expired: false,
            rotated_at: None,
            held_bytes: 0,
            work: Work::default(),
            pending: false,
            timer: None,
        };
        match self.slots.get_mut(usize::from(id.0)) {
            Some(place) => *place = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        Some(id)
    }

    fn new_session(&mut self, client: &ClientConfig, epoch: u64, now: Instant) -> Session {
        let seed = self.rng.next_u64();
        let mut session = Session::new(session_config(&self.settings, client, epoch, seed), now);
        session.set_tx_rates(tx_rates(client), now);
        session.set_trace(self.trace.level());
        session.streams_mut(now).set_accepting(self.settings.streams);
        session
    }

    /// Ends the session of a client whose key has expired, and refuses its handshakes from now on.
    /// The client is told.
    pub fn expire_client(&mut self, id: SessionId, now: Instant) {
        let Some(slot) = self.slot(id).filter(|slot| slot.stays) else { return };
        slot.expired = true;
        if !slot.closing {
            slot.closing = true;
            slot.session.close(CloseReason::Expired, now);
            self.mark(id);
        }
    }

    /// Lets a client connect again whose key had expired.
    pub fn renew_client(&mut self, id: SessionId) {
        if let Some(slot) = self.slot(id) {
            slot.expired = false;
        }
    }

    /// Removes a client that may no longer connect: its session ends at once, and the client is
    /// told.
    pub fn remove_client(&mut self, id: SessionId, now: Instant) {
        self.remove(id, CloseReason::Revoked, now);
    }

    /// Removes a client that is added again with other settings: it is told to come back soon.
    pub fn dismiss_client(&mut self, id: SessionId, now: Instant) {
        self.remove(id, CloseReason::Shutdown, now);
    }

    fn remove(&mut self, id: SessionId, reason: CloseReason, now: Instant) {
        let Some(slot) = self.slot(id) else { return };
        (slot.closing, slot.stays) = (true, false);
        slot.session.close(reason, now);
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

    /// The client that packets to this inner address go to.
    pub fn client_of(&mut self, address: IpAddr) -> Option<SessionId> {
        self.routes.lookup(address)
    }

    #[cfg(test)]
    pub(crate) fn limit_held_bytes(&mut self, max: usize) {
        self.memory.limit(max);
    }

    /// The session of a client, for figures.
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.slots.get(usize::from(id.0))?.as_ref().map(|slot| &*slot.session)
    }

    /// The next event to log.
    pub fn poll_event(&mut self) -> Option<(SessionId, Event)> {
        self.events.pop_front()
    }

    /// Figures of every session.
    pub fn stats(&self, now: Instant) -> Vec<(SessionId, SessionStats)> {
        let slots =
            (0..=u16::MAX).zip(&self.slots).filter_map(|(number, slot)| Some((number, slot.as_ref()?)));
        slots.map(|(number, slot)| (SessionId(number), slot.session.stats(now))).collect()
    }

    /// Datagrams and packets discarded before they reached a session, by reason.
    pub const fn discards(&self) -> &DiscardCounts {
        &self.discards
    }

    /// Whether the driver has any invitation. Until it says so, no client can enrol and no
    /// invitation is looked up.
    pub fn set_enrolling(&mut self, enrolling: bool) {
        if let Some(admission) = &mut self.admission {
            admission.set_enrolling(enrolling);
        }
    }

    /// The next enrolment to be decided. Each must be answered.
    pub fn poll_enrolment(&mut self) -> Option<Enrolment> {
        self.admission.as_mut()?.poll_enrolment()
    }

    /// Decides an enrolment. An accepted client is added, or has its key replaced. Returns its
    /// session; `None` if the client was not accepted, or if the answer names another key than the
    /// client has proven.
    pub fn answer_enrolment(&mut self, id: u64, answer: EnrolmentAnswer, now: Instant) -> Option<SessionId> {
        let admission = self.admission.as_mut()?;
        let admitted = admission.take_waiting(id)?;
        match answer {
            EnrolmentAnswer::Welcome(client) if client.public_key != Some(admitted.incoming.client) => None,
            EnrolmentAnswer::Welcome(client) => {
                let session = self.place(client, admitted.incoming.hello.claim, now)?;
                if let Err(reason) = self.welcome(session, admitted, now) {
                    self.discards.count(reason);
                }
                Some(session)
            }
            EnrolmentAnswer::Refuse(refusal, psk) => {
                admission.refuse(admitted, refusal, psk.as_ref(), now);
                None
            }
            EnrolmentAnswer::Ignore => {
                self.discards.count(Discard::UnknownClient);
                None
            }
        }
    }

    fn on_initiation(&mut self, datagram: &Datagram, now: Instant) -> Result<(), Discard> {
        let admission = self.admission.as_mut().ok_or(Discard::UnknownPeer)?;
        let Some(admitted) = admission.admit(datagram, now)? else { return Ok(()) };
        let (link, claim) = (admitted.incoming.link, admitted.incoming.hello.claim);
        let known = self.by_key.get(&admitted.incoming.client).copied();
        match (claim, known) {
            // A key whose claim was granted may still claim: its answer got lost.
            (None | Some(Claim::Rotation { .. }), Some(id)) => self.welcome(id, admitted, now),
            (Some(claim @ Claim::Invitation { .. }), _) if admission.is_enrolling() => {
                admission.spend_claim(link, datagram, now)?;
                admission.wait(admitted, claim);
                Ok(())
            }
            (Some(claim @ Claim::Rotation { old, proof }), None) => {
                let id = self.by_key.get(&old).copied().ok_or(Discard::UnknownClient)?;
                admission.spend_claim(link, datagram, now)?;
                self.rotate(id, claim, (&old, &proof), admitted, now)
            }
            (None, None) | (Some(Claim::Invitation { .. }), _) => Err(Discard::UnknownClient),
        }
    }

    /// A client shows that it wants a new key in the place of its old one.
    fn rotate(
        &mut self,
        id: SessionId,
        claim: Claim,
        (old, proof): (&PublicKey, &[u8; 16]),
        admitted: Admitted,
        now: Instant,
    ) -> Result<(), Discard> {
        let admission = self.admission.as_mut().ok_or(Discard::UnknownPeer)?;
        let slot =
            self.slots.get_mut(usize::from(id.0)).and_then(Option::as_mut).ok_or(Discard::UnknownClient)?;
        if slot.rotated_at.is_some_and(|at| now.saturating_since(at) < ROTATION_PAUSE) {
            return Err(Discard::HandshakeLimited);
        }
        let psk = slot.client.preshared.as_ref();
        admission.verify_rotation(&admitted, old, proof, psk)?;
        slot.check_stamp(admitted.incoming.hello.stamp)?;
        if slot.expired {
            slot.newest_stamp = Some(admitted.incoming.hello.stamp);
            admission.refuse(admitted, Refusal::KeyExpired, psk, now);
        } else {
            admission.wait(admitted, claim);
        }
        Ok(())
    }

    /// The session of a client whose claim was granted. `None`: there are too many, or the key is
    /// another client's.
    fn place(&mut self, client: ClientConfig, claim: Option<Claim>, now: Instant) -> Option<SessionId> {
        let key = client.public_key?;
        let old = match claim {
            Some(Claim::Rotation { old, .. }) => old,
            Some(Claim::Invitation { .. }) | None => key,
        };
        let Some(id) = self.by_key.get(&old).copied() else { return self.add_client(client, now) };
        if key != old && self.by_key.contains_key(&key) {
            return None;
        }
        self.by_key.remove(&old);
        self.by_key.insert(key, id);
        let slot = self.slot(id)?;
        if key != old {
            slot.rotated_at = Some(now);
        }
        (slot.client.public_key, slot.client.preshared) = (Some(key), client.preshared);
        Some(id)
    }

    /// Gives a client keys and an answer.
    fn welcome(&mut self, id: SessionId, admitted: Admitted, now: Instant) -> Result<(), Discard> {
        let admission = self.admission.as_mut().ok_or(Discard::UnknownPeer)?;
        let slot =
            self.slots.get_mut(usize::from(id.0)).and_then(Option::as_mut).ok_or(Discard::UnknownClient)?;
        let stamp = admitted.incoming.hello.stamp;
        slot.check_stamp(stamp)?;
        if slot.expired {
            slot.newest_stamp = Some(stamp);
            admission.refuse(admitted, Refusal::KeyExpired, slot.client.preshared.as_ref(), now);
            return Ok(());
        }
        let index = self.indices.insert(id, admission.next_u32()).ok_or(Discard::HandshakeLimited)?;
        slot.newest_stamp = Some(stamp);
        let welcome = Welcome {
            cipher: admission.cipher(&admitted.incoming.hello),
            epoch: slot.session.epoch(),
            mtu: Some(self.settings.mtu),
            addresses: slot.client.addresses.clone(),
            routes: slot.client.routes_behind().copied().collect(),
            exchanges: true,
        };
        let peer_epoch = admitted.incoming.hello.epoch;
        // A secret that is not known here, after a restart, is done without.
        let secret = admitted.incoming.hello.secret.and_then(|name| slot.session.secret(name));
        let (name, preshared) = (secret.map(SharedSecret::name), slot.client.preshared.as_ref());
        let both = secret.map(|secret| secret.with(preshared));
        let keys = admission.welcome(admitted, &welcome, both.as_ref().or(preshared), index, now);
        // What the session draws for the exchange after this handshake.
        let mut entropy = Zeroizing::new([0; 32]);
        admission.fill(entropy.as_mut_slice());
        slot.session.mix_entropy(&entropy);
        slot.session.install(TransportKeys { secret: name, ..keys }, peer_epoch, now);
        self.mark(id);
        Ok(())
    }

    fn refuse(&mut self, reason: Discard) -> Result<(), Discard> {
        self.discards.count(reason);
        Err(reason)
    }

    /// The session and link of a plain datagram on `path`.
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

    /// The session of a packet from TUN, if that session may hold more.
    fn owner(&mut self, packet: &[u8]) -> Result<(SessionId, InnerHeader), Discard> {
        let header = flow::parse(packet)?;
        let id = self.routes.lookup(header.destination).ok_or(Discard::NoRoute)?;
        if self.is_over(id) { Err(Discard::QueueFull) } else { Ok((id, header)) }
    }

    /// Handles a session that received an input: collects its packets and events, and lets it
    /// transmit.
    fn mark(&mut self, id: SessionId) {
        let Some(slot) = self.slots.get_mut(usize::from(id.0)).and_then(Option::as_mut) else { return };
        if !slot.pending {
            slot.pending = true;
            self.pending.push_back(id);
        }
        self.collect(id);
    }

    /// Collects the session's packets for TUN and its events.
    fn collect(&mut self, id: SessionId) {
        let Some(slot) = self.slots.get_mut(usize::from(id.0)).and_then(Option::as_mut) else { return };
        if !slot.session.has_output() {
            return;
        }
        while let Some(event) = slot.session.poll_event() {
            self.events.push_back((id, event));
        }
        while let Some(event) = slot.session.poll_stream_event() {
            self.stream_events.push_back((id.0, event));
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

    /// Counts what the session holds again after a change.
    fn count_held(&mut self, id: SessionId) {
        let Some(slot) = self.slot(id) else { return };
        let held = if slot.closing { 0 } else { slot.session.held_bytes() };
        let before = std::mem::replace(&mut slot.held_bytes, held);
        self.memory.replace(before, held);
    }

    /// Whether the session holds more than it may at present.
    fn is_over(&self, id: SessionId) -> bool {
        let slot = self.slots.get(usize::from(id.0)).and_then(Option::as_ref);
        slot.is_some_and(|slot| self.memory.is_over(slot.held_bytes, self.slots.len()))
    }

    /// A session that holds too much gives up what it waits for, down to its share.
    fn bound_memory(&mut self, id: SessionId, now: Instant) {
        self.count_held(id);
        if self.is_over(id) {
            let share = self.memory.share(self.slots.len());
            if let Some(slot) = self.slot(id) {
                slot.session.shed(share, now);
            }
            self.count_held(id);
        }
    }

    /// Notes a session that has data but sends nothing while a socket is full: that socket may be
    /// the reason. A function of its own, as the case is rare.
    #[inline(never)]
    fn note_held_up(&mut self, id: SessionId) {
        if self.session(id).is_some_and(Session::is_waiting) {
            self.held_up.insert(id);
        }
    }

    /// Sets the session's next deadline after its outputs are drained.
    fn on_drained(&mut self, id: SessionId, now: Instant) {
        let Some(slot) = self.slots.get_mut(usize::from(id.0)).and_then(Option::as_mut) else { return };
        self.trace.collect(id.0, |out| slot.session.drain_trace(out));
        slot.pending = false;
        let timeout = slot.session.poll_timeout().filter(|_| !slot.closing);
        let closing = slot.closing;
        slot.timer = timeout;
        self.timers.set(id, timeout.map(|(at, _)| at));
        if closing {
            self.indices.remove_session(id);
            self.end_session(id, now);
        }
    }

    /// The close message is sent: the session's place is empty, or is that of the next one.
    fn end_session(&mut self, id: SessionId, now: Instant) {
        let kept = self.slot(id).filter(|slot| slot.stays).map(|slot| slot.client.clone());
        let session = kept.map(|client| {
            let epoch = self.rng.next_u32();
            Box::new(self.new_session(&client, epoch.into(), now))
        });
        let Some(place) = self.slots.get_mut(usize::from(id.0)) else { return };
        match (session, place) {
            (Some(session), Some(slot)) => (slot.session, slot.closing) = (session, false),
            (_, place) => {
                *place = None;
                self.free.insert(id);
            }
        }
    }
}
