//! Keys, sealing and randomness: thin, typed layers over maintained implementations.
//!
//! This module adds the shape of a nonce, the replay window, and the rule that no key is shown or
//! stays in memory after use. It does not know datagrams, sessions or time.

pub mod aead;
pub mod kem;
pub mod keys;
pub mod replay;
pub mod rng;
