//! The handshake: a client and a server authenticate each other and agree on keys. The modules
//! handle messages and keys only. The session and the endpoint decide when to start a handshake,
//! what to answer, and where sessions live. PROTOCOL.md has the bytes.
//!
//! Noise IK with a pre-shared key, in two messages: the client knows the server's static key, and
//! the first message authenticates the client. The client sends the first message over every link
//! at once, so each datagram has two layers:
//! - the Noise message, made once. It binds both indices, both keys and both payloads. A bit
//!   changed on one link voids that copy only; the copies on other links stay valid;
//! - the link's own number and macs around it. Only mac1 covers the link's number, and every host
//!   that knows the receiver's public key can compute mac1. The number is therefore a hint until a
//!   sealed datagram arrives over that link.
//!
//! Replays: the responder cannot tell an old initiation from a new one. The endpoint compares
//! [`Stamp`]s. It answers a copy of an initiation that came over another link
//! ([`Initiation::fingerprint`]) with the same response.
//!
//! Sans-IO: randomness is a [`SecretRng`](crate::crypto::rng::SecretRng), time an argument. No
//! input makes it panic.
//!
//! | module | does |
//! | --- | --- |
//! | `message` | the datagrams |
//! | `payload` | the sealed payloads in them |
//! | `claim` | why a server should know a key: an invitation, or an older key |
//! | `mac`, `cookie`, `limiter` | limits on the work that unauthenticated senders can cause |
//! | `noise`, `primitives` | the Noise state, and its cryptographic primitives |
//! | `initiator`, `responder` | the two sides |
//! | `secret` | what an exchange with ML-KEM inside a session leaves for the next handshake |
//! | `transport_keys` | the keys that both sides end with |
//!
//! Sources: The Noise Protocol Framework, revision 34; Donenfeld, "WireGuard: Next Generation
//! Kernel Network Tunnel", §5.4.

pub mod claim;
pub mod cookie;
pub mod initiator;
pub mod limiter;
pub mod mac;
pub mod message;
pub mod noise;
pub mod payload;
mod primitives;
pub mod responder;
pub mod secret;
mod transport_keys;

#[cfg(test)]
mod tests;

pub use claim::{Claim, InvitationId, InvitationKey};
pub use cookie::Cookie;
pub use initiator::{Initiator, Outcome};
pub use mac::Mac1;
pub use message::{COOKIE_BYTES, CookieReply, INITIATION_BYTES, Initiation, RESPONSE_BYTES, Response};
pub use payload::{Hello, Refusal, Stamp, Welcome};
pub use responder::{Incoming, Responder, ResponseMessage, Verdict};
pub use secret::{SecretName, SharedSecret};
pub use transport_keys::TransportKeys;
