//! The handshake: how a client and a server find out that they are who they say and agree on keys. Messages and keys only: when
//! to ask, what to answer and where sessions live is the session's and the endpoint's business. PROTOCOL.md has the bytes.
//!
//! Noise IK with a pre-shared key: the client knows the server's static key and says who it is under it, in the first message;
//! two messages are all. One message goes over every link at once, so each is made in two layers:
//! - the Noise message, made once. It binds both indices, both keys and everything that the sides say; whoever changes a bit of
//!   it on one link makes that copy void and leaves the copies on other links alone;
//! - around it each link's own number and macs. The number of the link is bound by nothing but mac1, which whoever knows the
//!   receiver's public key can make: a hint, until something sealed came over that link.
//!
//! Replays: the responder cannot tell an old initiation from a new one. The endpoint compares [`Stamp`]s, and answers an
//! initiation that came before over another link ([`Initiation::fingerprint`]) with the same response.
//!
//! Sans-IO: randomness is a [`SecretRng`](crate::crypto::rng::SecretRng), time an argument. No input makes it panic.
//!
//! | module | does |
//! | --- | --- |
//! | `message` | the datagrams |
//! | `payload` | what is sealed in them |
//! | `mac`, `cookie`, `limiter` | what keeps strangers from costing work |
//! | `noise`, `primitives` | the Noise state, what it computes with |
//! | `initiator`, `responder` | the two sides |
//!
//! Sources: The Noise Protocol Framework, revision 34; Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", §5.4.

pub mod cookie;
pub mod initiator;
pub mod limiter;
pub mod mac;
pub mod message;
pub mod noise;
pub mod payload;
mod primitives;
pub mod responder;

#[cfg(test)]
mod tests;

pub use cookie::Cookie;
pub use initiator::{Initiator, Outcome};
pub use mac::Mac1;
pub use message::{COOKIE_BYTES, CookieReply, INITIATION_BYTES, Initiation, RESPONSE_BYTES, Response};
pub use payload::{Hello, Refusal, Stamp, Welcome};
pub use responder::{Admission, Incoming, Responder, ResponseMessage};

use crate::crypto::aead::{AeadKey, Cipher};
use noise::Split;

/// The keys of a session, as one side holds them.
#[derive(Debug)]
pub struct TransportKeys {
    /// What both seal with.
    pub cipher: Cipher,
    /// Seals what we send.
    pub send: AeadKey,
    /// Opens what we receive.
    pub receive: AeadKey,
    /// Our name for the session: what we receive carries it.
    pub local_index: u32,
    /// The other side's name for it: what we send carries it.
    pub remote_index: u32,
}

#[derive(Clone, Copy)]
enum Side {
    Initiator,
    Responder,
}

impl TransportKeys {
    fn new(side: Side, cipher: Cipher, split: &Split, local_index: u32, remote_index: u32) -> Self {
        let (send, receive) = match side {
            Side::Initiator => (&split.initiator, &split.responder),
            Side::Responder => (&split.responder, &split.initiator),
        };
        let (send, receive) = (AeadKey::new(cipher, send), AeadKey::new(cipher, receive));
        Self { cipher, send, receive, local_index, remote_index }
    }
}
