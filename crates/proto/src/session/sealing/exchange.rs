//! The exchange with ML-KEM-768 that follows each handshake inside the session, and the secrets
//! that it leaves for the next one.
//!
//! ```text
//! client                                server
//!   handshake done, a link is proven
//!   key part 0, key part 1 ───────────►  both are there: once for these keys, encapsulates
//!          (again until answered)
//!   secret for the next handshake  ◄───  ciphertext (again when a part comes again)
//! ```
//! Keys that were made without a secret are renewed at once when there is one, so that an observer
//! with a quantum computer reads a session's first moments only. Later secrets wait for the next
//! handshake. A side keeps the secret of the keys in use and the one after it: the server cannot
//! know whether its ciphertext arrived.
//!
//! It never holds anything up: without a link, a peer or an answer the session goes on as it is.
//! Reasons: docs/decisions/0067-keys-closed-to-quantum-computers.md.

use std::time::Duration;

use super::keyring::{Keyring, SEALING_BYTES};
use crate::config::Security;
use crate::crypto::kem::{self, CIPHERTEXT_BYTES, ENCAPSULATION_KEY_BYTES, KemKey};
use crate::crypto::rng::SecretRng;
use crate::discard::Discard;
use crate::handshake::{SecretName, SharedSecret};
use crate::link::{Link, Outgoing};
use crate::packet::{Destination, LinkId, Transmit};
use crate::session::link_table::LinkTable;
use crate::time::Instant;
use crate::view::{LinkRole, LinkState};
use crate::wire::exchange::{ExchangeFrame, PART_BYTES, PART_MAX, PARTS};
use crate::wire::{self, FRAME_HEADER_BYTES, Kind, Modifiers};

const _: () = assert!(PART_BYTES * PARTS == ENCAPSULATION_KEY_BYTES, "the parts are the key");

/// Secrets kept: of the keys in use, and the one after it.
const SECRETS_MAX: usize = 2;
/// An unanswered key goes again after this and two round trips; then after twice as long each time.
/// Chosen: above the time in which both sides' links come up.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// Without a link that carries it the client looks again after this.
const NO_LINK_PAUSE: Duration = Duration::from_millis(100);
/// Keys are renewed for a secret's sake no sooner than this after the last time. Chosen: a server
/// that loses its secrets again and again costs a handshake a minute.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);
/// The server answers copies no sooner than this after its last answer.
const ANSWER_PAUSE: Duration = Duration::from_millis(100);
/// What an encapsulation costs in places of 100 ns. Measured: 0067.
const ENCAPSULATION_PLACES: u64 = 1_000;

/// A client's key on its way.
#[derive(Debug)]
struct Offer {
    handshake: u32,
    key: Option<(KemKey, Box<[u8; ENCAPSULATION_KEY_BYTES]>)>,
    /// Parts of this try that were sent, and when the next one is due.
    parts: u8,
    at: Instant,
    pause: Duration,
    /// How often the whole key was sent.
    sent: usize,
}

/// What a server has of one exchange.
#[derive(Debug)]
struct Answer {
    handshake: u32,
    parts: [Option<Box<[u8; PART_BYTES]>>; PARTS],
    /// `None`: not there yet, or the parts were no key.
    ciphertext: Option<Box<[u8; CIPHERTEXT_BYTES]>>,
    /// The parts were looked at.
    is_made: bool,
    /// The link that the ciphertext is to go over, which brought the key.
    due: Option<LinkId>,
    sent_at: Option<Instant>,
}

/// The exchanges of one session, one after the other.
#[derive(Debug, Default)]
pub(in crate::session) struct Exchange {
    /// Newest last.
    secrets: Vec<SharedSecret>,
    /// A client's.
    offer: Option<Offer>,
    /// When a client is to make new keys, which have the newest secret; and when it was to make
    /// those that it has, if for a secret's sake.
    renewal_at: Option<Instant>,
    renewed_at: Option<Instant>,
    /// A server's.
    answer: Option<Answer>,
    touched: u64,
}

impl Exchange {
    /// A client has new keys, of the handshake with this index of its own. `takes_part`: the server
    /// does.
    pub(in crate::session) fn begin(
        &mut self,
        used: Option<SecretName>,
        handshake: u32,
        takes_part: bool,
        now: Instant,
    ) {
        self.keep(used);
        self.renewed_at = self.renewal_at.take().filter(|at| *at <= now).or(self.renewed_at);
        self.offer =
            takes_part.then_some(Offer { handshake, key: None, parts: 0, at: now, pause: AGAIN, sent: 0 });
    }

    /// The keys in use have this secret: neither side uses another that it has by now.
    pub(in crate::session) fn keep(&mut self, used: Option<SecretName>) {
        self.secrets.retain(|secret| Some(secret.name()) == used);
    }

    /// The session's keys are gone, and what is under way under them.
    pub(in crate::session) fn abandon(&mut self) {
        self.offer = None;
        self.answer = None;
    }

    /// The session is over, and its secrets with it.
    pub(in crate::session) fn forget(&mut self) {
        *self = Self { touched: self.touched, ..Self::default() };
    }

    /// The newest secret, for the next handshake.
    pub(in crate::session) fn newest(&self) -> Option<&SharedSecret> {
        self.secrets.last()
    }

    /// The secret of this name.
    pub(in crate::session) fn secret(&self, name: SecretName) -> Option<&SharedSecret> {
        self.secrets.iter().find(|secret| secret.name() == name)
    }

    /// Whether a client is to make new keys now.
    pub(in crate::session) fn renews(&self, now: Instant) -> bool {
        self.renewal_at.is_some_and(|at| at <= now)
    }

    /// When that is so.
    pub(in crate::session) const fn renewal_at(&self) -> Option<Instant> {
        self.renewal_at
    }

    /// The server has many clients to answer: those that have keys already wait for `pause`.
    pub(in crate::session) fn postpone_renewal(&mut self, pause: Duration) {
        self.renewal_at = self.renewal_at.map(|at| at + pause);
    }

    /// The server refuses to make new keys.
    pub(in crate::session) const fn cancel_renewal(&mut self) {
        self.renewal_at = None;
    }

    /// What the peer's frames cost, in places of 100 ns.
    pub(in crate::session) const fn touched(&self) -> u64 {
        self.touched
    }

    /// Takes a frame that came over the link under some keys of the session.
    pub(in crate::session) fn on_frame(
        &mut self,
        link: LinkId,
        frame: &ExchangeFrame<'_>,
        keyring: &Keyring,
        rng: &mut SecretRng,
        now: Instant,
    ) -> Result<(), Discard> {
        let (ours, theirs) = keyring.indices().ok_or(Discard::Stale)?;
        match *frame {
            ExchangeFrame::KeyPart { handshake, part, bytes } if handshake == theirs => {
                self.on_key_part(link, (handshake, part), bytes, keyring.secret(), rng, now)
            }
            ExchangeFrame::Ciphertext { handshake, bytes } if handshake == ours => {
                self.on_ciphertext(handshake, bytes, keyring.secret(), now)
            }
            ExchangeFrame::KeyPart { .. } | ExchangeFrame::Ciphertext { .. } => Err(Discard::Stale),
        }
    }

    fn on_key_part(
        &mut self,
        link: LinkId,
        (handshake, part): (u32, u8),
        bytes: &[u8; PART_BYTES],
        used: Option<SecretName>,
        rng: &mut SecretRng,
        now: Instant,
    ) -> Result<(), Discard> {
        let answer = self.answer.take_if(|answer| answer.handshake == handshake);
        let answer = self.answer.insert(answer.unwrap_or_else(|| Answer::new(handshake)));
        if answer.is_made {
            // Once for each handshake, whatever key comes. The client misses the ciphertext.
            let is_late = answer.sent_at.is_none_or(|at| now.saturating_since(at) >= ANSWER_PAUSE);
            if answer.ciphertext.is_some() && is_late {
                answer.due = Some(link);
            }
            return Ok(());
        }
        if let Some(place) = answer.parts.get_mut(usize::from(part)) {
            *place = Some(Box::new(*bytes));
        }
        let Some(key) = answer.key() else { return Ok(()) };
        answer.is_made = true;
        self.touched += ENCAPSULATION_PLACES;
        let (ciphertext, shared) = kem::encapsulate(&key, rng).ok_or(Discard::ControlMalformed)?;
        answer.due = Some(link);
        answer.ciphertext = Some(Box::new(ciphertext));
        self.keep(used);
        self.push(SharedSecret::new(self.secrets.last(), &shared, &key, &ciphertext));
        Ok(())
    }

    fn on_ciphertext(
        &mut self,
        handshake: u32,
        ciphertext: &[u8; CIPHERTEXT_BYTES],
        used: Option<SecretName>,
        now: Instant,
    ) -> Result<(), Discard> {
        let offer = self.offer.take_if(|offer| offer.handshake == handshake && offer.key.is_some());
        let (kem, key) = offer.and_then(|offer| offer.key).ok_or(Discard::Stale)?;
        let shared = kem.decapsulate(ciphertext);
        self.keep(used);
        self.push(SharedSecret::new(self.secrets.last(), &shared, &key, ciphertext));
        if used.is_none() {
            let soonest = self.renewed_at.map_or(now, |at| at + RENEWAL_PAUSE);
            self.renewal_at = Some(soonest.max(now));
        }
        Ok(())
    }

    fn push(&mut self, secret: SharedSecret) {
        debug_assert!(self.secrets.len() < SECRETS_MAX, "those not in use were dropped");
        self.secrets.push(secret);
    }

    /// When [`Self::transmit`] has something to do.
    pub(in crate::session) fn poll_timeout(&self) -> Option<Instant> {
        let answer = self.answer.as_ref().and_then(|answer| answer.due).map(|_| Instant::ZERO);
        answer.or_else(|| self.offer.as_ref().map(|offer| offer.at))
    }

    /// The due frame, if there is a link for it.
    pub(in crate::session) fn transmit(
        &mut self,
        buf: &mut Vec<u8>,
        (links, keyring): (&mut LinkTable, &mut Keyring),
        rng: &mut SecretRng,
        now: Instant,
    ) -> Option<Transmit> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return None;
        }
        let can_seal = keyring.can_seal(now);
        if let Some(answer) = &mut self.answer
            && let Some(id) = answer.due.take()
        {
            // What may not go yet is not kept: the client, which has no answer, comes again.
            let link = links.get_mut(id).filter(|link| can_seal && link.path().is_trusted())?;
            answer.sent_at = Some(now);
            let bytes = answer.ciphertext.as_deref()?;
            let frame = ExchangeFrame::Ciphertext { handshake: answer.handshake, bytes };
            return put(&frame, link, keyring, buf, now);
        }
        let offer = self.offer.as_mut()?;
        let is_theirs = keyring.indices().is_some_and(|(ours, _)| ours == offer.handshake);
        let Some(link) = pick(links, offer.sent).filter(|_| can_seal && is_theirs) else {
            offer.at = now + NO_LINK_PAUSE;
            return None;
        };
        let rtt = link.rtt();
        let (_, key) = offer.key.get_or_insert_with(|| {
            let key = KemKey::generate(rng);
            let public = Box::new(key.public());
            (key, public)
        });
        // Every second try the other way round: a pattern in the losses need not fit both.
        let part = if offer.sent.is_multiple_of(2) { offer.parts } else { PART_MAX - offer.parts };
        let bytes = part_of(key, part)?;
        let frame = ExchangeFrame::KeyPart { handshake: offer.handshake, part, bytes };
        let transmit = put(&frame, link, keyring, buf, now);
        offer.parts += 1;
        if offer.parts > PART_MAX {
            offer.parts = 0;
            offer.sent += 1;
            offer.at = now + offer.pause + 2 * rtt;
            offer.pause = (2 * offer.pause).min(AGAIN_MAX);
        }
        transmit
    }
}

impl Answer {
    const fn new(handshake: u32) -> Self {
        Self { handshake, parts: [None, None], ciphertext: None, is_made: false, due: None, sent_at: None }
    }

    /// The key, once all parts are there; they are then needed no more.
    fn key(&mut self) -> Option<Box<[u8; ENCAPSULATION_KEY_BYTES]>> {
        if self.parts.iter().any(Option::is_none) {
            return None;
        }
        let mut key = Box::new([0; ENCAPSULATION_KEY_BYTES]);
        for (place, part) in key.chunks_exact_mut(PART_BYTES).zip(&mut self.parts) {
            place.copy_from_slice(part.take()?.as_slice());
        }
        Some(key)
    }
}

fn part_of(key: &[u8; ENCAPSULATION_KEY_BYTES], part: u8) -> Option<&[u8; PART_BYTES]> {
    key.get(usize::from(part) * PART_BYTES..)?.first_chunk()
}

/// A client's link for the key: another one for each try, the nearest first.
fn pick(links: &mut LinkTable, tries: usize) -> Option<&mut Link> {
    let carries = |link: &&mut Link| {
        let is_used = link.link_role() != LinkRole::Never && link.security() == Security::Sealed;
        is_used && link.state() == LinkState::Up
    };
    let mut usable: Vec<&mut Link> = links.iter_mut().filter(carries).collect();
    usable.sort_by_key(|link| (link.rtt(), link.id()));
    let at = tries.checked_rem(usable.len())?;
    Some(usable.swap_remove(at))
}

/// Seals a frame for the link.
fn put(
    frame: &ExchangeFrame<'_>,
    link: &mut Link,
    keyring: &mut Keyring,
    buf: &mut Vec<u8>,
    now: Instant,
) -> Option<Transmit> {
    let Destination { path, flow } = link.path().destination()?;
    let len = frame.payload_bytes();
    if !link.path_mut().try_spend(flow, SEALING_BYTES + FRAME_HEADER_BYTES + usize::from(len)) {
        return None;
    }
    let start = buf.len();
    buf.extend_from_slice(&Keyring::HEADER_ROOM);
    wire::put_frame_header(buf, 0, Kind::Control, Modifiers::NONE, len);
    frame.put(buf);
    let sealed_as = keyring.seal((link.id(), flow), buf, start, now);
    let size = buf.len() - start;
    link.on_sent(size, Outgoing::control(sealed_as.map(super::keyring::SealedAs::name)), now);
    Some(Transmit::new(link.id(), path, size, size))
}
