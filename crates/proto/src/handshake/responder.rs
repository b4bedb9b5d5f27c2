//! The server's side: whom to work for, and the work.
//!
//! [`Responder::admit`] is cheap and decides; [`Responder::read`] does the Diffie-Hellman work and finds out who asks;
//! [`Incoming`] waits for the endpoint's answer. Nothing is kept between these calls but budgets.
//!
//! Admission, in the order of cost:
//! 1. size, version, mac1: whoever does not know the server's key ends here;
//! 2. [`WORK_BUDGET`] for all who prove nothing about their address, [`SOURCE_RATE`] for each of them. When either is spent:
//! 3. a cookie is asked for; who shows one has [`SOURCE_RATE`] of its own, that nobody who pretends to be there can spend, out of
//!    [`PROVEN_BUDGET`] for all of them.
//!
//! So a flood from false addresses costs at most the budget's work and one small datagram for each of its larger ones, and
//! keeps no client out that answers a cookie.
//!
//! Cost on one core of a 2-core Xeon VM (test `handshake_costs`): a wrong mac1 0.6 µs, admission 0.7 µs, a cookie reply 4.5 µs, reading
//! 85 µs, answering as much again; the client's first message 150 µs, its last step 80 µs. With curve25519-dalek instead of aws-lc it
//! was twice that.

use std::net::SocketAddr;
use std::time::Duration;

use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::crypto::rng::SecretRng;
use crate::discard::Discard;
use crate::time::Instant;
use crate::wire::sealed::DatagramKind;

use super::cookie::CookieJar;
use super::limiter::{Budget, Rate, SourceLimiter};
use super::mac;
use super::message::{COOKIE_BYTES, Header, Initiation, MESSAGE_2_BYTES};
use super::noise::Noise;
use super::payload::{Answer, HELLO_BYTES, Hello, Refusal, Welcome};
use super::{Side, TransportKeys};

/// Handshakes that are worked on for anybody. 100 a second are 2 % of a core, which data does not miss; 200 at once are 40 ms, and
/// let the clients of a server that was started again come back without cookies.
pub const WORK_BUDGET: Rate = Rate { interval: Duration::from_millis(10), burst: 200 };
/// Handshakes that are worked on for all who show cookies: 500 a second are a tenth of a core, whatever number of addresses somebody
/// really has; a thousand clients that come back at once are in after some seconds.
pub const PROVEN_BUDGET: Rate = Rate { interval: Duration::from_millis(2), burst: 500 };
/// For one source: WireGuard's, 20 a second and 5 at once.
pub const SOURCE_RATE: Rate = Rate { interval: Duration::from_millis(50), burst: 5 };
/// Sources that are told apart; 250 ms after its last handshake one is forgotten anyway. A full table has some 0.4 MB.
pub const MAX_SOURCES: usize = 4_096;

/// What to do with an initiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// [`Responder::read`] it.
    Proceed,
    /// Send this back to where it came from, and forget it.
    Cookie([u8; COOKIE_BYTES]),
}

/// A server's key and what it has left for strangers.
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
            identity,
            rng,
        }
    }

    /// Whether to work on an initiation. Cheap, and no memory is kept for an address that could be false beyond the budget.
    pub fn admit(&mut self, datagram: &[u8], source: SocketAddr, now: Instant) -> Result<Admission, Discard> {
        let initiation = Initiation::parse(datagram)?;
        initiation.verify_mac1(&self.mac1_key)?;
        if self.budget.has_one(now) && self.unproven.try_spend(source.ip(), now) {
            self.budget.try_spend(now);
            return Ok(Admission::Proceed);
        }
        if !self.cookies.admits(&initiation, source, &mut self.rng, now) {
            let reply = self.cookies.reply(&initiation, source, &self.cookie_key, &mut self.rng, now);
            return Ok(Admission::Cookie(reply));
        }
        if self.proven_budget.has_one(now) && self.proven.try_spend(source.ip(), now) {
            self.proven_budget.try_spend(now);
            Ok(Admission::Proceed)
        } else {
            Err(Discard::HandshakeLimited)
        }
    }

    /// Finds out who asks, and what. To be called after [`Self::admit`] let it proceed.
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

/// An initiation by somebody who has that key, waiting for an answer. It may be an old one that somebody repeats: the endpoint
/// compares its stamp.
#[derive(Debug)]
pub struct Incoming {
    /// Who asks.
    pub client: PublicKey,
    /// What it says.
    pub hello: Hello,
    /// The client's name for the session.
    pub remote_index: u32,
    /// The link that it says it came over: a hint.
    pub link: u8,
    noise: Noise,
}

impl Incoming {
    /// Opens the session: `local_index` is the server's name for it, `psk` what it shares with this client.
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

    /// Says no. There is no session then.
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

/// A response, to be sent on every link that its initiation came over.
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
