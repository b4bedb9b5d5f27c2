//! The server's side: admission of initiations, and the work for them.
//!
//! [`Responder::admit`] is cheap and decides. [`Responder::read`] does the Diffie-Hellman work and
//! learns the client's key. [`Incoming`] waits for the endpoint's answer. Only budgets are kept
//! between these calls.
//!
//! Verdict, in the order of cost:
//! 1. size, version and mac1 reject a sender that does not know the server's public key;
//! 2. an address without a cookie spends one token of [`WORK_BUDGET`], which all such addresses
//!    share, and one of its own [`SOURCE_RATE`];
//! 3. when either is spent, the server asks for a cookie. An address that shows one has another
//!    [`SOURCE_RATE`], which no forged source can spend, and shares [`PROVEN_BUDGET`] with all such
//!    addresses.
//!
//! A claim ([`super::claim`]) costs a look-up or a key agreement more, and has budgets of its own
//! for that ([`Responder::admit_claim`]), without and with a cookie in the same way.
//!
//! A flood from forged addresses therefore costs at most the budget's work and one small reply to
//! each larger datagram. It keeps out no client that answers a cookie.
//!
//! Measured: docs/decisions/0070-handshake-budgets.md.

use std::net::SocketAddr;
use std::time::Duration;

use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::crypto::rng::SecretRng;
use crate::discard::Discard;
use crate::time::Instant;
use crate::wire::sealed::DatagramKind;

use super::claim::Rotation;
use super::cookie::CookieJar;
use super::limiter::{Budget, Rate, SourceLimiter};
use super::mac;
use super::message::{COOKIE_BYTES, Header, Initiation, MESSAGE_2_BYTES};
use super::noise::Noise;
use super::payload::{Answer, HELLO_BYTES, Hello, Refusal, Welcome};
use super::transport_keys::{Side, TransportKeys};

/// Handshakes per second for all addresses without a cookie. Chosen: 100 a second are 2 % of a
/// core. A burst of 200 takes 40 ms and lets the clients of a restarted server return without
/// cookies.
pub const WORK_BUDGET: Rate = Rate { interval: Duration::from_millis(10), burst: 200 };
/// Handshakes per second for all addresses with a cookie. Chosen: 500 a second are a tenth of a
/// core, however many addresses an attacker really has. A thousand clients that return at once are
/// connected after some seconds.
pub const PROVEN_BUDGET: Rate = Rate { interval: Duration::from_millis(2), burst: 500 };
/// Claims looked at per second for all addresses without a cookie. Chosen: a person invites few
/// clients at once, and a client asks five times.
pub const CLAIM_BUDGET: Rate = Rate { interval: Duration::from_millis(50), burst: 50 };
/// Claims looked at per second for all addresses with a cookie. Chosen: as [`PROVEN_BUDGET`],
/// so that a client behind a cookie gets through whatever forged addresses show.
pub const PROVEN_CLAIM_BUDGET: Rate = PROVEN_BUDGET;
/// Handshakes per source: 20 a second and 5 at once, as in WireGuard's implementation.
pub const SOURCE_RATE: Rate = Rate { interval: Duration::from_millis(50), burst: 5 };
/// The most sources remembered. Chosen: a full table takes about 0.4 MB. A source is forgotten
/// anyway 250 ms after its last handshake.
pub const MAX_SOURCES: usize = 4_096;

/// The decision about an initiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Process it: call [`Responder::read`].
    Proceed,
    /// Send this cookie reply to the source and keep nothing.
    Cookie([u8; COOKIE_BYTES]),
}

/// A server's key and its budgets for handshakes.
#[derive(Debug)]
pub struct Responder {
    identity: PrivateKey,
    public: PublicKey,
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    cookies: CookieJar,
    budget: Budget,
    unproven: SourceLimiter,
    proven: SourceLimiter,
    proven_budget: Budget,
    claims: Budget,
    proven_claims: Budget,
    rng: SecretRng,
}

impl Responder {
    /// `entropy` must come from the system's random numbers.
    pub fn new(identity: PrivateKey, entropy: [u8; 32], now: Instant) -> Self {
        let public = identity.public();
        let mut rng = SecretRng::new(entropy);
        Self {
            public,
            mac1_key: mac::mac1_key(&public),
            cookie_key: mac::cookie_key(&public),
            cookies: CookieJar::new(&mut rng, now),
            budget: Budget::new(WORK_BUDGET),
            unproven: SourceLimiter::new(SOURCE_RATE, MAX_SOURCES),
            proven: SourceLimiter::new(SOURCE_RATE, MAX_SOURCES),
            proven_budget: Budget::new(PROVEN_BUDGET),
            claims: Budget::new(CLAIM_BUDGET),
            proven_claims: Budget::new(PROVEN_CLAIM_BUDGET),
            identity,
            rng,
        }
    }

    /// What is drawn depends on `entropy` as well.
    pub fn mix_entropy(&mut self, entropy: &[u8; 32]) {
        self.rng.mix(entropy);
    }

    /// Decides whether to process an initiation. Cheap; keeps no memory for an unproven address
    /// beyond its budget.
    pub fn admit(&mut self, datagram: &[u8], source: SocketAddr, now: Instant) -> Result<Verdict, Discard> {
        let initiation = Initiation::parse(datagram)?;
        initiation.verify_mac1(&self.mac1_key)?;
        if self.budget.has_one(now) && self.unproven.try_spend(source.ip(), now) {
            self.budget.try_spend(now);
            return Ok(Verdict::Proceed);
        }
        if !self.cookies.admits(&initiation, source, &mut self.rng, now) {
            let reply = self.cookies.reply(&initiation, source, &self.cookie_key, &mut self.rng, now);
            return Ok(Verdict::Cookie(reply));
        }
        if self.proven_budget.has_one(now) && self.proven.try_spend(source.ip(), now) {
            self.proven_budget.try_spend(now);
            Ok(Verdict::Proceed)
        } else {
            Err(Discard::HandshakeLimited)
        }
    }

    /// Decides whether the claim of an admitted initiation is looked at.
    pub fn admit_claim(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        now: Instant,
    ) -> Result<Verdict, Discard> {
        if self.claims.try_spend(now) {
            return Ok(Verdict::Proceed);
        }
        let initiation = Initiation::parse(datagram)?;
        if !self.cookies.admits(&initiation, source, &mut self.rng, now) {
            let reply = self.cookies.reply(&initiation, source, &self.cookie_key, &mut self.rng, now);
            return Ok(Verdict::Cookie(reply));
        }
        if self.proven_claims.try_spend(now) { Ok(Verdict::Proceed) } else { Err(Discard::HandshakeLimited) }
    }

    /// Checks that the owner of a client's key `old`, who shares `psk`, claims that the key of
    /// `incoming` takes its place.
    pub fn verify_rotation(
        &self,
        incoming: &Incoming,
        old: &PublicKey,
        proof: &[u8; 16],
        psk: Option<&PresharedKey>,
    ) -> Result<(), Discard> {
        let rotation = Rotation { server: &self.public, old, new: &incoming.client };
        rotation.verify(&self.identity, psk, proof)
    }

    /// Authenticates the client and reads its payload. To be called after [`Self::admit`] let the
    /// initiation proceed.
    pub fn read(&mut self, datagram: &[u8]) -> Result<Incoming, Discard> {
        let initiation = Initiation::parse(datagram)?;
        let index = initiation.sender_index;
        let mut noise = Noise::responder(&self.identity, self.public, index, &mut self.rng);
        let hello = noise.read::<HELLO_BYTES>(initiation.message)?;
        let hello = Hello::parse(hello.as_slice())?;
        let client = noise.remote().ok_or(Discard::Unauthenticated)?;
        Ok(Incoming { client, hello, remote_index: index, link: initiation.link, noise })
    }
}

/// An authenticated initiation that waits for its answer. It may be a replay: the endpoint compares
/// its stamp.
#[derive(Debug)]
pub struct Incoming {
    /// The client's static key.
    pub client: PublicKey,
    /// The client's payload.
    pub hello: Hello,
    /// The client's index for the session.
    pub remote_index: u32,
    /// The link that it names as its own: a hint.
    pub link: u8,
    noise: Noise,
}

impl Incoming {
    /// Accepts the client: `local_index` is the server's index for the session, `psk` the key
    /// shared with this client.
    pub fn welcome(
        self,
        welcome: &Welcome,
        psk: Option<&PresharedKey>,
        local_index: u32,
    ) -> (TransportKeys, ResponseMessage) {
        let (cipher, remote_index) = (welcome.cipher, self.remote_index);
        let answer = Answer::Welcome { index: local_index, welcome: welcome.clone() };
        let (noise, response) = self.answer(&answer, psk);
        let keys = TransportKeys::new(Side::Responder, cipher, &noise.split(), local_index, remote_index);
        (keys, response)
    }

    /// Refuses the client. No session exists then.
    pub fn refuse(self, refusal: Refusal, psk: Option<&PresharedKey>) -> ResponseMessage {
        self.answer(&Answer::Refused(refusal), psk).1
    }

    fn answer(mut self, answer: &Answer, psk: Option<&PresharedKey>) -> (Noise, ResponseMessage) {
        self.noise.set_psk(psk);
        let message = self.noise.write(&answer.to_bytes());
        let mac1_key = mac::mac1_key(&self.client);
        (self.noise, ResponseMessage { message, receiver_index: self.remote_index, mac1_key })
    }
}

/// A response, to be sent on every link that carried its initiation.
#[derive(Debug, Clone)]
pub struct ResponseMessage {
    message: [u8; MESSAGE_2_BYTES],
    receiver_index: u32,
    mac1_key: [u8; 32],
}

impl ResponseMessage {
    /// Appends the datagram for one link.
    pub fn put(&self, link: u8, buf: &mut Vec<u8>) {
        let header = Header { link, index: self.receiver_index }.to_bytes(DatagramKind::Response);
        let mac1 = mac::mac(&self.mac1_key, &[&header, &self.message]);
        for part in [header.as_slice(), &self.message, &mac1] {
            buf.extend_from_slice(part);
        }
    }
}
