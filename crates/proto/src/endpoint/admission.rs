//! Admission at the server: which initiations are answered, and with what.
//!
//! An initiation is checked in the order of cost: an initiation that came before over another link
//! gets the same answer again; then the responder's budgets and cookies; then the key agreement.
//! The endpoint then checks whether the client is enrolled and its stamp newer than any before. A
//! client that shows an invitation, or a new key in the place of one that is enrolled, becomes an
//! [`Enrolment`] for the driver, which keeps invitations and clients and must store the change
//! before it answers. Any other client gets no answer.
//!
//! Stamps are not kept over a restart. A replayed first message then creates keys that the attacker
//! cannot use, and has no other effect.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{ClientConfig, ServerSealing};
use crate::crypto::aead::Cipher;
use crate::crypto::keys::{PresharedKey, PublicKey};
use crate::crypto::rng::SecretRng;
use crate::discard::Discard;
use crate::handshake::{
    Claim, Hello, Incoming, Initiation, Refusal, Responder, ResponseMessage, TransportKeys, Verdict, Welcome,
};
use crate::packet::{Datagram, LinkId, Path, Transmit};
use crate::time::Instant;

/// The most answers that wait to be sent. Chosen: more than one drain ever leaves.
const OUTBOX_MAX: usize = 256;
/// How long an answered first message is remembered. Chosen: its copies over other links arrive
/// within this time.
const RECENT_LIFE: Duration = Duration::from_secs(5);
/// The most first messages remembered. Chosen: [`RECENT_LIFE`] of both handshake budgets together.
const RECENT_MAX: usize = 4_096;
/// The most enrolments that wait for the driver. Chosen: a person invites few clients at once.
const ENROLMENTS_MAX: usize = 16;

/// A client wants its key to be enrolled. To be answered with
/// [`Endpoint::answer_enrolment`](super::Endpoint::answer_enrolment).
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Names the enrolment in its answer.
    pub id: u64,
    /// The client's static key, which the client has proven to own.
    pub public_key: PublicKey,
    /// Why. The proof of an invitation is to be checked by the driver, which has its key; that of a
    /// rotation is checked.
    pub claim: Claim,
    /// The client's address, unproven.
    pub remote: SocketAddr,
}

/// The driver's decision about an enrolment.
#[derive(Debug)]
pub enum EnrolmentAnswer {
    /// The claim is good, and the client is stored.
    Welcome(ClientConfig),
    /// The claim is proven and refused. The answer is sealed with this pre-shared key too.
    Refuse(Refusal, Option<PresharedKey>),
    /// The invitation never existed: a stranger gets no answer.
    Ignore,
}

/// An initiation whose client has proven its key.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) incoming: Incoming,
    path: Path,
    fingerprint: [u8; 32],
}

/// An enrolment that the driver has not answered yet.
#[derive(Debug)]
struct Waiting {
    id: u64,
    admitted: Admitted,
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

/// The handshakes of a server with sealed clients.
#[derive(Debug)]
pub(super) struct Admission {
    responder: Responder,
    rng: SecretRng,
    aes_fast: bool,
    /// The driver has invitations.
    enrolling: bool,
    recent: BTreeMap<[u8; 32], Recent>,
    /// The keys of `recent`, oldest first.
    recent_order: VecDeque<[u8; 32]>,
    waiting: VecDeque<Waiting>,
    /// Enrolments that the driver has not fetched yet.
    enrolments: VecDeque<Enrolment>,
    next_enrolment: u64,
    outbox: VecDeque<(LinkId, Path, Vec<u8>)>,
}

impl Admission {
    pub(super) fn new(sealing: &ServerSealing, now: Instant) -> Self {
        let mut rng = SecretRng::new(sealing.entropy);
        let mut entropy = [0; 32];
        rng.fill(&mut entropy);
        Self {
            responder: Responder::new(sealing.identity.clone(), entropy, now),
            rng,
            aes_fast: sealing.aes_fast,
            enrolling: false,
            recent: BTreeMap::new(),
            recent_order: VecDeque::new(),
            waiting: VecDeque::new(),
            enrolments: VecDeque::new(),
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

    /// Answers a message that was answered before: the same answer goes to the path that the
    /// message took this time. A message that waits for the driver gets one answer later. `false`:
    /// the message is new, or too old to be remembered. Repeats are not limited: an answer is
    /// smaller than the initiation and cheaper than a cookie, and an attacker on one link could use
    /// up a limit and so block the client's other links.
    fn repeat(&mut self, fingerprint: &[u8; 32], link: u8, path: Path, now: Instant) -> bool {
        if self.waiting.iter().any(|waiting| waiting.admitted.fingerprint == *fingerprint) {
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

    /// Fills a seed from the system's random numbers.
    pub(super) fn fill(&mut self, seed: &mut [u8]) {
        self.rng.fill(seed);
    }

    /// What is drawn depends on `entropy` as well.
    pub(super) fn mix_entropy(&mut self, entropy: &[u8; 32]) {
        self.rng.mix(entropy);
        self.responder.mix_entropy(entropy);
    }

    /// A random number for a new receiver index.
    pub(super) fn next_u32(&mut self) -> u32 {
        self.rng.next_u32()
    }

    /// Checks an initiation. `None`: a repeated one, which needs nothing further.
    pub(super) fn admit(&mut self, datagram: &Datagram, now: Instant) -> Result<Option<Admitted>, Discard> {
        let (path, data) = (datagram.path, datagram.data.as_ref());
        let initiation = Initiation::parse(data)?;
        let (fingerprint, link) = (initiation.fingerprint(), initiation.link);
        if self.repeat(&fingerprint, link, path, now) {
            return Ok(None);
        }
        match self.responder.admit(data, path.remote, now)? {
            Verdict::Proceed => {}
            Verdict::Cookie(reply) => {
                self.send(link, path, reply.to_vec());
                return Err(Discard::HandshakeLimited);
            }
        }
        let incoming = self.responder.read(data)?;
        Ok(Some(Admitted { incoming, path, fingerprint }))
    }

    /// Whether the driver has invitations. If not, no token is looked up.
    pub(super) const fn set_enrolling(&mut self, enrolling: bool) {
        self.enrolling = enrolling;
    }

    /// Whether an invitation would be looked up.
    pub(super) const fn is_enrolling(&self) -> bool {
        self.enrolling
    }

    /// Spends from the budget of claims for a client that came with `datagram`.
    pub(super) fn spend_claim(&mut self, link: u8, datagram: &Datagram, now: Instant) -> Result<(), Discard> {
        if self.waiting.len() >= ENROLMENTS_MAX {
            return Err(Discard::HandshakeLimited);
        }
        let path = datagram.path;
        match self.responder.admit_claim(&datagram.data, path.remote, now)? {
            Verdict::Proceed => Ok(()),
            Verdict::Cookie(reply) => {
                self.send(link, path, reply.to_vec());
                Err(Discard::HandshakeLimited)
            }
        }
    }

    /// Checks the proof that the owner of the client key `old` wants this client's key in its
    /// place.
    pub(super) fn verify_rotation(
        &self,
        admitted: &Admitted,
        old: &PublicKey,
        proof: &[u8; 16],
        psk: Option<&PresharedKey>,
    ) -> Result<(), Discard> {
        self.responder.verify_rotation(&admitted.incoming, old, proof, psk)
    }

    /// Lets the driver decide about a claim.
    pub(super) fn wait(&mut self, admitted: Admitted, claim: Claim) {
        let id = self.next_enrolment;
        self.next_enrolment += 1;
        let public_key = admitted.incoming.client;
        self.enrolments.push_back(Enrolment { id, public_key, claim, remote: admitted.path.remote });
        self.waiting.push_back(Waiting { id, admitted });
    }

    /// The next enrolment for the driver.
    pub(super) fn poll_enrolment(&mut self) -> Option<Enrolment> {
        self.enrolments.pop_front()
    }

    /// Takes the initiation of an enrolment that the driver has decided.
    pub(super) fn take_waiting(&mut self, id: u64) -> Option<Admitted> {
        let at = self.waiting.iter().position(|waiting| waiting.id == id)?;
        Some(self.waiting.remove(at)?.admitted)
    }

    /// Answers with a refusal.
    pub(super) fn refuse(
        &mut self,
        admitted: Admitted,
        refusal: Refusal,
        psk: Option<&PresharedKey>,
        now: Instant,
    ) {
        let Admitted { incoming, path, fingerprint } = admitted;
        let link = incoming.link;
        let response = incoming.refuse(refusal, psk);
        self.answer(fingerprint, response, link, path, now);
    }

    /// Answers with a session's parameters; `index` is the server's index for the session.
    pub(super) fn welcome(
        &mut self,
        admitted: Admitted,
        welcome: &Welcome,
        preshared: Option<&PresharedKey>,
        index: u32,
        now: Instant,
    ) -> TransportKeys {
        let Admitted { incoming, path, fingerprint } = admitted;
        let link = incoming.link;
        let (keys, response) = incoming.welcome(welcome, preshared, index);
        self.answer(fingerprint, response, link, path, now);
        keys
    }

    /// The cipher for a client: AES only if it is fast on both sides.
    pub(super) const fn cipher(&self, hello: &Hello) -> Cipher {
        if self.aes_fast && hello.aes_fast { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 }
    }

    fn answer(
        &mut self,
        fingerprint: [u8; 32],
        response: ResponseMessage,
        link: u8,
        path: Path,
        now: Instant,
    ) {
        self.respond(&response, link, path);
        self.remember(fingerprint, response, now);
    }
}
