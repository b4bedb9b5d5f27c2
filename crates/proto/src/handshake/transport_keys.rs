//! The keys that a handshake ends with.

use super::noise::Split;
use super::secret::SecretName;
use crate::crypto::aead::{AeadKey, Cipher};

/// The keys of a session, as one side holds them.
#[derive(Debug)]
pub struct TransportKeys {
    /// The cipher of both directions.
    pub cipher: Cipher,
    /// Seals what we send.
    pub send: AeadKey,
    /// Opens what we receive.
    pub receive: AeadKey,
    /// Our index for the session: the datagrams that we receive carry it.
    pub local_index: u32,
    /// The peer's index for the session: the datagrams that we send carry it.
    pub remote_index: u32,
    /// The secret that the handshake had beside the pre-shared key; `None`: the keys are those of
    /// Diffie-Hellman alone.
    pub secret: Option<SecretName>,
}

/// The side that holds the keys.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Initiator,
    Responder,
}

impl TransportKeys {
    pub(super) fn new(
        side: Side,
        cipher: Cipher,
        split: &Split,
        local_index: u32,
        remote_index: u32,
    ) -> Self {
        let (send, receive) = match side {
            Side::Initiator => (&split.initiator, &split.responder),
            Side::Responder => (&split.responder, &split.initiator),
        };
        let (send, receive) = (AeadKey::new(cipher, send), AeadKey::new(cipher, receive));
        Self { cipher, send, receive, local_index, remote_index, secret: None }
    }
}
