//! Handshakes at the server: who is let in.
//!
//! An initiation is checked in the order of cost: seen before over another link (the same answer again); the responder's
//! budgets and cookies; the key agreement; then whether the client is enrolled and its stamp newer than any before. Who is not
//! enrolled but shows an invitation's token becomes an [`Enrolment`] for the shell, which keeps the invitations and must write the
//! client down before it answers. Everybody else gets no answer.
//!
//! Stamps are not kept over a restart: a first message repeated then makes keys that nobody can use, and nothing more.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::{Endpoint, SessionId};
use crate::config::{ClientConfig, ServerSealing};
use crate::crypto::aead::Cipher;
use crate::crypto::keys::{PublicKey, Token};
use crate::crypto::rng::SecretRng;
use crate::discard::Discard;
use crate::handshake::{Admission, Incoming, Initiation, Refusal, Responder, ResponseMessage, Welcome};
use crate::packet::{Datagram, LinkId, Path, Transmit};
use crate::time::Instant;

/// Answers that wait to be sent; more than a drain ever leaves.
const OUTBOX_MAX: usize = 256;
/// The copies of a first message over other links arrive within this.
const RECENT_LIFE: Duration = Duration::from_secs(5);
/// First messages that are remembered.
const RECENT_MAX: usize = 4_096;
/// Enrolments that wait for the shell.
const ENROLMENTS_MAX: usize = 16;

/// Somebody with an unknown key shows a token. To be answered with [`Endpoint::answer_enrolment`].
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// For the answer.
    pub id: u64,
    /// Who it will be.
    pub public_key: PublicKey,
    /// What it shows.
    pub token: Token,
    /// Where it comes from, unproven.
    pub remote: SocketAddr,
}

/// What the shell makes of an enrolment.
#[derive(Debug)]
pub enum EnrolmentAnswer {
    /// The invitation is good, and the client is written down.
    Welcome(ClientConfig),
    /// It was good once.
    Refuse(Refusal),
    /// Nobody made such an invitation: strangers get no answer.
    Ignore,
}

/// An enrolment without an answer yet.
#[derive(Debug)]
struct Waiting {
    id: u64,
    incoming: Incoming,
    path: Path,
    fingerprint: [u8; 32],
}

/// A first message that was answered.
#[derive(Debug)]
struct Recent {
    response: ResponseMessage,
    at: Instant,
}

impl Recent {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_since(self.at) >= RECENT_LIFE
    }
}

/// What a server with sealed clients keeps for handshakes.
#[derive(Debug)]
pub(super) struct Door {
    responder: Responder,
    pub(super) rng: SecretRng,
    aes_fast: bool,
    recent: BTreeMap<[u8; 32], Recent>,
    /// Its keys, oldest first.
    recent_order: VecDeque<[u8; 32]>,
    waiting: VecDeque<Waiting>,
    asked: VecDeque<Enrolment>,
    next_enrolment: u64,
    outbox: VecDeque<(LinkId, Path, Vec<u8>)>,
}

impl Door {
    pub(super) fn new(sealing: &ServerSealing, now: Instant) -> Self {
        let mut rng = SecretRng::new(sealing.entropy);
        let mut entropy = [0; 32];
        rng.fill(&mut entropy);
        Self {
            responder: Responder::new(sealing.identity.clone(), entropy, now),
            rng,
            aes_fast: sealing.aes_fast,
            recent: BTreeMap::new(),
            recent_order: VecDeque::new(),
            waiting: VecDeque::new(),
            asked: VecDeque::new(),
            next_enrolment: 0,
            outbox: VecDeque::new(),
        }
    }

    /// The next answer to send.
    pub(super) fn poll_transmit(&mut self, buf: &mut Vec<u8>) -> Option<Transmit> {
        let (link, path, bytes) = self.outbox.pop_front()?;
        buf.extend_from_slice(&bytes);
        Some(Transmit::new(link, path, bytes.len(), bytes.len()))
    }

    fn send(&mut self, link: u8, path: Path, bytes: Vec<u8>) {
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back((LinkId(link), path, bytes));
        }
    }

    fn respond(&mut self, response: &ResponseMessage, link: u8, path: Path) {
        let mut bytes = Vec::new();
        response.put(link, &mut bytes);
        self.send(link, path, bytes);
    }

    /// The same message was answered before: the same answer goes the way it came this time. Or it waits for the shell, and one
    /// answer is enough. `false`: it is new, or too old for that. However often: an answer is smaller than what it answers and
    /// cheaper than a cookie, and a limit could be used up by whoever sits on one link, to the harm of all others.
    fn repeat(&mut self, fingerprint: &[u8; 32], link: u8, path: Path, now: Instant) -> bool {
        if self.waiting.iter().any(|waiting| waiting.fingerprint == *fingerprint) {
            return true;
        }
        let Some(recent) = self.recent.get(fingerprint).filter(|recent| !recent.is_over(now)) else {
            return false;
        };
        let response = recent.response.clone();
        self.respond(&response, link, path);
        true
    }

    fn remember(&mut self, fingerprint: [u8; 32], response: ResponseMessage, now: Instant) {
        while let Some(oldest) = self.recent_order.front() {
            if self.recent.len() < RECENT_MAX && !self.recent.get(oldest).is_none_or(|one| one.is_over(now)) {
                break;
            }
            self.recent.remove(oldest);
            self.recent_order.pop_front();
        }
        self.recent.insert(fingerprint, Recent { response, at: now });
        self.recent_order.push_back(fingerprint);
    }

    fn enrol(&mut self, incoming: Incoming, path: Path, fingerprint: [u8; 32]) -> Result<(), Discard> {
        let token = incoming.hello.token.clone().ok_or(Discard::UnknownClient)?;
        if self.waiting.len() >= ENROLMENTS_MAX {
            return Err(Discard::HandshakeLimited);
        }
        let id = self.next_enrolment;
        self.next_enrolment += 1;
        let asked = Enrolment { id, public_key: incoming.client, token, remote: path.remote };
        self.asked.push_back(asked);
        self.waiting.push_back(Waiting { id, incoming, path, fingerprint });
        Ok(())
    }
}

impl Endpoint {
    /// The next enrolment to be decided. Each must be answered.
    pub fn poll_enrolment(&mut self) -> Option<Enrolment> {
        self.door.as_mut()?.asked.pop_front()
    }

    /// Decides an enrolment; a client that is welcome is added. Gives its session; `None` also where the answer names another key
    /// than the one that was proven.
    pub fn answer_enrolment(&mut self, id: u64, answer: EnrolmentAnswer, now: Instant) -> Option<SessionId> {
        let door = self.door.as_mut()?;
        let at = door.waiting.iter().position(|waiting| waiting.id == id)?;
        let Waiting { incoming, path, fingerprint, .. } = door.waiting.remove(at)?;
        match answer {
            EnrolmentAnswer::Welcome(client) if client.public_key != Some(incoming.client) => None,
            EnrolmentAnswer::Welcome(client) => {
                let known = client.public_key.and_then(|key| self.by_key.get(&key).copied());
                let session = known.or_else(|| self.add_client(client, now))?;
                // Its first stamp: never refused.
                let _ = self.welcome(session, incoming, path, fingerprint, now);
                Some(session)
            }
            EnrolmentAnswer::Refuse(refusal) => {
                let link = incoming.link;
                let response = incoming.refuse(refusal, None);
                door.respond(&response, link, path);
                door.remember(fingerprint, response, now);
                None
            }
            EnrolmentAnswer::Ignore => {
                self.discards.count(Discard::UnknownClient);
                None
            }
        }
    }

    pub(super) fn on_initiation(&mut self, datagram: &Datagram, now: Instant) -> Result<(), Discard> {
        let (path, data) = (datagram.path, datagram.data.as_ref());
        let door = self.door.as_mut().ok_or(Discard::UnknownPeer)?;
        let initiation = Initiation::parse(data)?;
        let (fingerprint, link) = (initiation.fingerprint(), initiation.link);
        if door.repeat(&fingerprint, link, path, now) {
            return Ok(());
        }
        match door.responder.admit(data, path.remote, now)? {
            Admission::Proceed => {}
            Admission::Cookie(reply) => {
                door.send(link, path, reply.to_vec());
                return Err(Discard::HandshakeLimited);
            }
        }
        let incoming = door.responder.read(data)?;
        match self.by_key.get(&incoming.client).copied() {
            Some(id) => self.welcome(id, incoming, path, fingerprint, now),
            None => door.enrol(incoming, path, fingerprint),
        }
    }

    fn welcome(
        &mut self,
        id: SessionId,
        incoming: Incoming,
        path: Path,
        fingerprint: [u8; 32],
        now: Instant,
    ) -> Result<(), Discard> {
        let mtu = self.settings.mtu;
        let door = self.door.as_mut().ok_or(Discard::UnknownPeer)?;
        let slot =
            self.slots.get_mut(usize::from(id.0)).and_then(Option::as_mut).ok_or(Discard::UnknownClient)?;
        let stamp = incoming.hello.stamp;
        if slot.newest_stamp.is_some_and(|newest| stamp <= newest) {
            return Err(Discard::HandshakeReplayed);
        }
        let index = self.indices.insert(id, door.rng.next_u32()).ok_or(Discard::HandshakeLimited)?;
        slot.newest_stamp = Some(stamp);
        let aes = door.aes_fast && incoming.hello.aes_fast;
        let welcome = Welcome {
            cipher: if aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 },
            epoch: slot.session.epoch(),
            mtu: Some(mtu),
            addresses: slot.client.addresses.clone(),
        };
        let (link, peer_epoch) = (incoming.link, incoming.hello.epoch);
        let (keys, response) = incoming.welcome(&welcome, slot.client.preshared.as_ref(), index);
        slot.session.install(keys, peer_epoch, now);
        door.respond(&response, link, path);
        door.remember(fingerprint, response, now);
        self.mark(id);
        Ok(())
    }
}
