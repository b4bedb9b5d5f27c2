//! The client's side: one attempt.
//!
//! The Noise message is made once. Each link's datagram carries the same message with that link's
//! number and macs, so the server recognises the attempt on whichever link it arrives first.
//! Answers and cookies that do not authenticate change nothing: the attempt continues.

use zeroize::Zeroizing;

use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::crypto::rng::SecretRng;
use crate::discard::Discard;
use crate::wire::sealed::DatagramKind;

use super::cookie::{self, Cookie};
use super::mac::{self, MAC_BYTES, Mac1};
use super::message::{CookieReply, Header, MESSAGE_1_BYTES, Response};
use super::noise::Noise;
use super::payload::{ANSWER_BYTES, Answer, Hello, Refusal, Welcome};
use super::secret::{SecretName, SharedSecret};
use super::transport_keys::{Side, TransportKeys};

/// The result of an attempt.
#[derive(Debug)]
pub enum Outcome {
    /// The server accepted the client; the session exists.
    Welcome(Welcome, TransportKeys),
    /// The server refused the client. The answer is authenticated.
    Refused(Refusal),
}

/// One attempt to open or renew a session.
#[derive(Debug)]
pub struct Initiator {
    /// `None`: the server has answered.
    noise: Option<Noise>,
    /// The secret that Hello names, and the pre-shared keys with it and without.
    secret: Option<(SecretName, PresharedKey, Option<PresharedKey>)>,
    local_index: u32,
    message: [u8; MESSAGE_1_BYTES],
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    response_mac1_key: [u8; 32],
}

impl Initiator {
    /// Computes the first message. `local_index` is the client's index for the session; `hello`'s
    /// stamp must be newer than any before it.
    pub fn new(
        identity: &PrivateKey,
        server: &PublicKey,
        psk: Option<&PresharedKey>,
        local_index: u32,
        hello: &Hello,
        rng: &mut SecretRng,
    ) -> Self {
        let public = identity.public();
        let mut noise = Noise::initiator(identity, public, server, psk, local_index, rng);
        let message = noise.write(hello.to_bytes().as_slice());
        Self {
            noise: Some(noise),
            secret: None,
            local_index,
            message,
            mac1_key: mac::mac1_key(server),
            cookie_key: mac::cookie_key(server),
            response_mac1_key: mac::mac1_key(&public),
        }
    }

    /// The secret that `hello` named. A server that does not have it answers without.
    #[must_use]
    pub fn with_secret(mut self, secret: &SharedSecret, psk: Option<&PresharedKey>) -> Self {
        let both = secret.with(psk);
        if let Some(noise) = &mut self.noise {
            noise.set_psk(Some(&both));
        }
        self.secret = Some((secret.name(), both, psk.cloned()));
        self
    }

    /// The client's index for the session, which answers to this attempt carry.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// Appends the datagram for one link. `cookie` is the server's newest valid cookie for this
    /// link. [`Self::read_cookie`] needs the returned mac1.
    pub fn put(&self, link: u8, cookie: Option<&Cookie>, buf: &mut Vec<u8>) -> Mac1 {
        let header = Header { link, index: self.local_index }.to_bytes(DatagramKind::Initiation);
        let mac1 = mac::mac(&self.mac1_key, &[&header, &self.message]);
        let mac2 = cookie
            .map_or([0; MAC_BYTES], |cookie| mac::mac(cookie.0.as_slice(), &[&header, &self.message, &mac1]));
        for part in [header.as_slice(), &self.message, &mac1, &mac2] {
            buf.extend_from_slice(part);
        }
        Mac1(mac1)
    }

    /// Reads a response. After an error the attempt continues, unless the response authenticated
    /// and its content is malformed.
    pub fn read_response(&mut self, datagram: &[u8]) -> Result<Outcome, Discard> {
        let response = Response::parse(datagram)?;
        if response.receiver_index != self.local_index {
            return Err(Discard::UnknownSession);
        }
        response.verify_mac1(&self.response_mac1_key)?;
        let (answer, secret) = self.read(response.message)?;
        let split = self.noise.take().map(Noise::split).ok_or(Discard::UnknownSession)?;
        Ok(match Answer::parse(answer.as_slice())? {
            Answer::Refused(refusal) => Outcome::Refused(refusal),
            Answer::Welcome { index, welcome } => {
                let keys =
                    TransportKeys::new(Side::Initiator, welcome.cipher, &split, self.local_index, index);
                Outcome::Welcome(welcome, TransportKeys { secret, ..keys })
            }
        })
    }

    /// Opens the answer, made with the secret or, by a server that lost it, without. The message of
    /// a third party is neither.
    fn read(
        &mut self,
        message: &[u8],
    ) -> Result<(Zeroizing<[u8; ANSWER_BYTES]>, Option<SecretName>), Discard> {
        let noise = self.noise.as_mut().ok_or(Discard::UnknownSession)?;
        let Some((name, both, psk)) = &self.secret else {
            return Ok((noise.read(message)?, None));
        };
        if let Ok(answer) = noise.read(message) {
            return Ok((answer, Some(*name)));
        }
        noise.set_psk(psk.as_ref());
        let answer = noise.read(message);
        if answer.is_err() {
            noise.set_psk(Some(both));
        }
        Ok((answer?, None))
    }

    /// Reads a cookie reply to the datagram with this mac1.
    pub fn read_cookie(&self, datagram: &[u8], mac1: &Mac1) -> Result<Cookie, Discard> {
        let reply = CookieReply::parse(datagram)?;
        if reply.receiver_index != self.local_index {
            return Err(Discard::UnknownSession);
        }
        cookie::open(&reply, &self.cookie_key, mac1)
    }
}
