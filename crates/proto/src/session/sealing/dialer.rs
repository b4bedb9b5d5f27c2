//! A client's handshakes: when one is begun, what is sent where, whose answer counts.
//!
//! One first message goes over every sealed link to every address of the server at once; the first
//! answer wins. An attempt that is not answered is followed by a new one, with a growing pause; a
//! few stay open, so that a link whose round trip is longer than the pause still gets its answer
//! in.
//!
//! A handshake is due when there are no keys, when they are to be renewed, and when no link is
//! proven any more: the server may have been restarted and know them no longer. It never disturbs
//! keys that still serve.
//!
//! A client may have a next key, which is to take the place of its key. Attempts then show the one
//! and the other in turn, since an answer that got lost leaves open which of them the server knows.
//! The answer says which of them it is.
//!
//! It knows nothing of links beyond number and addresses, and seals nothing.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::ClientSealing;
use crate::crypto::keys::{PresharedKey, PrivateKey};
use crate::crypto::rng::SecretRng;
use crate::discard::Discard;
use crate::handshake::{
    Claim, Cookie, Hello, Initiator, InvitationKey, Mac1, Outcome, Refusal, Response, SharedSecret, Stamp,
};
use crate::packet::{LinkId, Path};
use crate::time::Instant;
use crate::wire::control::CloseReason;

/// A client waits this long for a link to come back before it asks for new keys. Chosen: all links
/// together may be silent for a moment (the peer was stopped, say), and then keys are not what is
/// missing.
const UNPROVEN_PAUSE: Duration = Duration::from_millis(250);

/// Pause after the first attempt. Chosen: above the round trip of a satellite link.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Pauses between attempts; the last one repeats. Chosen: it repeats for as long as a server or a
/// link is usually away, because nothing tells when it is back, and an attempt may be lost even
/// then.
const PAUSES: [Duration; 3] = [FIRST_PAUSE, Duration::from_secs(1), Duration::from_secs(2)];
/// After this many attempts, about a minute, the pause is [`PAUSE_LATER`].
const SOON_TRIES: usize = 30;
/// WireGuard's retry interval (whitepaper §6.1: Rekey-Timeout).
const PAUSE_LATER: Duration = Duration::from_secs(5);
/// Added to each pause at random, µs, so that the clients of a restarted server do not come all at
/// once (WireGuard's jitter, whitepaper §6.1).
const JITTER_MAX_US: u64 = 333_333;
/// Attempts that may still be answered. Chosen: a link's round trip may be longer than a pause.
const ATTEMPTS_MAX: usize = 3;
/// A cookie serves this long (WireGuard's, whitepaper §5.4.7).
const COOKIE_LIFE: Duration = Duration::from_secs(120);
/// Pause after the server ended the session. Chosen: a server that stopped may be about to start
/// again.
const CLOSED_PAUSE: Duration = Duration::from_millis(200);
/// Pause after the server refused the client. Chosen: a person has to change something first.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// What is remembered of the message sent last to one address over one link.
#[derive(Debug, Clone)]
struct Sent {
    mac1: Mac1,
    attempt: u32,
    /// The message had a cookie.
    cookied: bool,
}

/// The key that an attempt shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum Shown {
    /// The client's key.
    Present,
    /// The key that is to take its place.
    Next,
}

/// One attempt.
#[derive(Debug)]
struct Attempt {
    initiator: Initiator,
    shown: Shown,
}

impl Attempt {
    fn local_index(&self) -> u32 {
        self.initiator.local_index()
    }
}

/// The handshakes of one session.
#[derive(Debug)]
pub(in crate::session) struct Dialer {
    sealing: ClientSealing,
    rng: SecretRng,
    epoch: u32,
    attempts: VecDeque<Attempt>,
    /// Attempts since a link was proven.
    tries: usize,
    /// When to begin the next attempt, and when the last one began, if there was one.
    due: Option<Instant>,
    begun_at: Instant,
    /// Time that passed without passing in `now`.
    unseen: Duration,
    /// Where the newest attempt is still to be sent.
    outbox: VecDeque<(LinkId, Path)>,
    sent: BTreeMap<(LinkId, SocketAddr), Sent>,
    cookies: BTreeMap<(LinkId, SocketAddr), (Cookie, Instant)>,
}

impl Dialer {
    /// The first attempt is due at once.
    pub(in crate::session) fn new(mut sealing: ClientSealing, epoch: u32, now: Instant) -> Self {
        // The seed must not outlive its first use: what it drew could be drawn again.
        let rng = SecretRng::new(std::mem::take(&mut sealing.entropy));
        Self {
            rng,
            sealing,
            epoch,
            attempts: VecDeque::new(),
            tries: 0,
            due: Some(now),
            begun_at: Instant::ZERO,
            unseen: Duration::ZERO,
            outbox: VecDeque::new(),
            sent: BTreeMap::new(),
            cookies: BTreeMap::new(),
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(in crate::session) fn poll_timeout(&self) -> Option<Instant> {
        if self.outbox.is_empty() { self.due } else { Some(Instant::ZERO) }
    }

    /// Whether [`Self::on_time`] begins an attempt.
    pub(in crate::session) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Whether an attempt may still be answered.
    pub(in crate::session) fn is_open(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// Whether the server asked for a cookie lately: it has many handshakes to answer.
    pub(in crate::session) fn has_cookie(&self) -> bool {
        !self.cookies.is_empty()
    }

    /// What is drawn depends on `entropy` as well.
    pub(in crate::session) fn mix_entropy(&mut self, entropy: &[u8; 32]) {
        self.rng.mix(entropy);
    }

    /// Whether a response with this receiver index answers an attempt of ours.
    pub(in crate::session) fn owns(&self, local_index: u32) -> bool {
        self.attempts.iter().any(|attempt| attempt.local_index() == local_index)
    }

    /// No link is proven any more: new keys may be what is missing, if none comes back soon.
    pub(in crate::session) fn on_unproven(&mut self, now: Instant) {
        self.tries = 0;
        if self.attempts.is_empty() {
            self.due = Some(now + UNPROVEN_PAUSE);
        }
    }

    /// A link may carry again while none is proven: its attempts begin anew. With keys, `has_keys`,
    /// it may need none.
    pub(in crate::session) fn on_link_found(&mut self, has_keys: bool, now: Instant) {
        let soonest = now.max(self.begun_at + FIRST_PAUSE);
        let due = if has_keys { soonest.max(now + UNPROVEN_PAUSE) } else { soonest };
        self.tries = 0;
        self.due = Some(self.due.map_or(due, |known| known.min(due)));
    }

    /// A link that is down has another socket, or sends to another address, while none is proven. A
    /// refusal is waited out.
    pub(in crate::session) fn on_link_moved(&mut self, now: Instant) {
        // The pause after an attempt is at most this; longer ones are for other reasons.
        let is_attempting = |due: &Instant| *due <= now + PAUSE_LATER + Duration::from_micros(JITTER_MAX_US);
        if let Some(due) = self.due.filter(is_attempting) {
            self.due = Some(due.min(now.max(self.begun_at + FIRST_PAUSE)));
        }
    }

    /// A link is proven under keys that are to be renewed at `rekey_at`.
    pub(in crate::session) fn on_proven(&mut self, rekey_at: Option<Instant>) {
        if self.attempts.is_empty() {
            self.tries = 0;
            self.due = rekey_at;
        }
    }

    /// There are no keys any more, or soon will be none.
    pub(in crate::session) fn on_keys_gone(&mut self, now: Instant) {
        self.hasten(now);
    }

    /// Keys and what was drawn for others may be those of a copy of this machine, which may have
    /// used up the stamps of the time that this one did not see.
    pub(in crate::session) fn on_keys_forgotten(&mut self, epoch: u32, unseen: Duration, now: Instant) {
        self.epoch = epoch;
        self.unseen += unseen;
        self.attempts.clear();
        self.outbox.clear();
        self.tries = 0;
        self.due = Some(now);
    }

    /// The server ended the session.
    pub(in crate::session) fn on_closed(&mut self, reason: CloseReason, now: Instant) {
        self.attempts.clear();
        self.outbox.clear();
        self.tries = 0;
        self.due = Some(match reason {
            CloseReason::Shutdown => now + CLOSED_PAUSE,
            CloseReason::Revoked | CloseReason::Expired => now + REFUSED_PAUSE,
        });
    }

    /// An attempt at once, unless one has just been sent.
    fn hasten(&mut self, now: Instant) {
        if self.attempts.is_empty() {
            self.due = Some(now);
        }
    }

    /// Begins an attempt if one is due, to be sent to `targets`, with the secret that the last
    /// exchange left. Without a target it waits for one.
    pub(in crate::session) fn on_time(
        &mut self,
        targets: impl Iterator<Item = (LinkId, Path)>,
        secret: Option<&SharedSecret>,
        now: Instant,
    ) {
        if !self.is_due(now) {
            return;
        }
        let mut targets = targets.peekable();
        if targets.peek().is_none() {
            self.due = Some(now + FIRST_PAUSE);
            return;
        }
        let attempt = self.attempt(secret, now);
        if self.attempts.len() == ATTEMPTS_MAX {
            self.attempts.pop_front();
        }
        self.attempts.push_back(attempt);
        self.outbox = targets.collect();
        let early = PAUSES.get(self.tries).or(PAUSES.last()).filter(|_| self.tries < SOON_TRIES);
        let pause = early.copied().unwrap_or(PAUSE_LATER);
        let jitter = Duration::from_micros(self.rng.next_u64() % JITTER_MAX_US);
        self.due = Some(now + pause + jitter);
        self.begun_at = now;
        self.tries += 1;
        self.cookies.retain(|_, (_, since)| now.saturating_since(*since) < COOKIE_LIFE);
    }

    fn attempt(&mut self, secret: Option<&SharedSecret>, now: Instant) -> Attempt {
        let ClientSealing { identity, server, preshared, token, next, .. } = &self.sealing;
        let invitation = token.as_ref().map(InvitationKey::new);
        let next = next.as_ref().filter(|_| self.tries.is_multiple_of(2)).and_then(|next| {
            let claim = Claim::rotation(identity, &next.public(), server, preshared.as_ref());
            Some((next, claim.ok()?))
        });
        let public = identity.public();
        let (identity, claim, shown) = match next {
            Some((next, claim)) => (next, Some(claim), Shown::Next),
            None => (identity, invitation.as_ref().map(|one| one.claim(server, &public)), Shown::Present),
        };
        let invited = invitation.as_ref().map(|one| one.preshared(server, &public));
        let psk = invited.as_ref().or(preshared.as_ref());
        let hello = Hello {
            // The driver's clock, not this session's age: a later session with the same server must
            // be newer as well.
            stamp: Stamp { run: self.sealing.run, elapsed_us: (now + self.unseen).as_micros() },
            epoch: self.epoch,
            aes_fast: self.sealing.aes_fast,
            claim,
            secret: secret.map(SharedSecret::name),
        };
        let index = self.rng.next_u32();
        let mut initiator = Initiator::new(identity, server, psk, index, &hello, &mut self.rng);
        if let Some(secret) = secret {
            initiator = initiator.with_secret(secret, psk);
        }
        Attempt { initiator, shown }
    }

    /// Shows a key that is to take the place of the client's key, from now on.
    pub(in crate::session) fn rotate(&mut self, next: PrivateKey, now: Instant) {
        self.sealing.next = Some(next);
        self.tries = 0;
        self.due = Some(now);
    }

    /// The client was enrolled anew: this is what it shares with the server, and `run` is greater
    /// than that of the enrolment.
    pub(in crate::session) fn enrol_anew(&mut self, preshared: PresharedKey, run: u64, now: Instant) {
        (self.sealing.preshared, self.sealing.token, self.sealing.run) = (Some(preshared), None, run);
        // The enrolment removed its file.
        self.sealing.next = None;
        self.attempts.clear();
        self.outbox.clear();
        self.tries = 0;
        self.due = Some(now);
    }

    /// The server knows the next key, and no other.
    pub(in crate::session) fn adopt_next(&mut self) {
        if let Some(next) = self.sealing.next.take() {
            self.sealing.identity = next;
        }
    }

    /// Whether there is a first message to send.
    pub(in crate::session) fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The next first message: appends it and tells where it goes.
    pub(in crate::session) fn poll_transmit(&mut self, buf: &mut Vec<u8>) -> Option<(LinkId, Path)> {
        let (link, path) = self.outbox.pop_front()?;
        let attempt = self.attempts.back()?;
        let place = (link, path.remote);
        let cookie = self.cookies.get(&place).map(|(cookie, _)| cookie);
        let mac1 = attempt.initiator.put(link.0, cookie, buf);
        self.sent.insert(place, Sent { mac1, attempt: attempt.local_index(), cookied: cookie.is_some() });
        Some((link, path))
    }

    /// A response, and the key that it answers. After an error the attempts go on.
    pub(in crate::session) fn on_response(
        &mut self,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(Outcome, Shown), Discard> {
        let index = Response::parse(datagram)?.receiver_index;
        let attempt = self.attempts.iter_mut().find(|attempt| attempt.local_index() == index);
        let attempt = attempt.ok_or(Discard::UnknownSession)?;
        let (outcome, shown) = (attempt.initiator.read_response(datagram)?, attempt.shown);
        self.attempts.clear();
        self.outbox.clear();
        self.sent.clear();
        match (&outcome, shown) {
            (Outcome::Welcome(..), Shown::Next) => self.adopt_next(),
            (Outcome::Welcome(..), Shown::Present) => self.enrolled(),
            // The next key is refused, not the client.
            (Outcome::Refused(refusal), Shown::Next) if *refusal != Refusal::KeyExpired => {
                self.sealing.next = None;
                self.due = Some(now);
            }
            (Outcome::Refused(_), _) => self.due = Some(now + REFUSED_PAUSE),
        }
        // Else it stands: until a link is proven under the new keys, another attempt may be needed.
        Ok((outcome, shown))
    }

    /// The invitation is used: its key is the pre-shared one of later handshakes.
    fn enrolled(&mut self) {
        let ClientSealing { identity, server, .. } = &self.sealing;
        let (server, client) = (*server, identity.public());
        if let Some(token) = self.sealing.token.take() {
            self.sealing.preshared = Some(InvitationKey::new(&token).preshared(&server, &client));
        }
    }

    /// A server under load wants the newest attempt again, with a cookie.
    pub(in crate::session) fn on_cookie(
        &mut self,
        datagram: &[u8],
        link: LinkId,
        path: Path,
        now: Instant,
    ) -> Result<(), Discard> {
        let place = (link, path.remote);
        let sent = self.sent.get(&place).ok_or(Discard::UnknownSession)?;
        let attempt = self.attempts.iter().find(|attempt| attempt.local_index() == sent.attempt);
        let cookie = attempt.ok_or(Discard::UnknownSession)?.initiator.read_cookie(datagram, &sent.mac1)?;
        self.cookies.insert(place, (cookie, now));
        // Once per attempt, so that a repeated cookie makes this side send nothing. Where an old
        // cookie was no good the next attempt has this.
        if !sent.cookied {
            self.outbox.push_back((link, path));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
