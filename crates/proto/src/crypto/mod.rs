//! Keys, sealing and randomness: thin, typed shells around maintained implementations.
//!
//! What is ours here is the shape of a nonce, the replay window and the rule that no key is ever shown or left in memory.
//! Nothing here knows datagrams, sessions or time.

pub mod aead;
pub mod keys;
pub mod replay;
pub mod rng;
