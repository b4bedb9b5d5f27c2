//! The Noise state of one handshake: a thin layer over `snow`, which knows the pattern.
//! `primitives` does the arithmetic and clears its keys.
//!
//! snow's own secrets (chaining key, pre-shared key) are overwritten when the state is dropped.
//! Temporary copies made by snow and aws-lc-rs (stack, the shared secret's buffer) cannot be
//! reached.
//!
//! A failed read leaves the state unchanged. snow restores its hashes. In this pattern every
//! message begins with an ephemeral key, and the next message replaces all else that the failed
//! read changed: the cipher's key and the remote ephemeral key.
//!
//! Source: The Noise Protocol Framework, revision 34.

use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::crypto::rng::SecretRng;
use crate::discard::Discard;

use super::primitives::Resolver;

/// The protocol's name in Noise's terms.
pub const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// Both sides hash this and then the client's index (4 bytes), so that no host on the path can
/// change that index.
pub const PROLOGUE: &[u8; 14] = b"UDP Bonding v1";

/// The place of the pre-shared key in the pattern's name.
const PSK: usize = 2;
/// A pattern without keys.
const BLANK: &str = "Noise_NN_25519_ChaChaPoly_BLAKE2s";
const NO_PSK: [u8; 32] = [0; 32];

/// Both keys of a finished handshake: what the initiator sends with, what the responder sends with.
pub(super) struct Split {
    pub(super) initiator: Zeroizing<[u8; 32]>,
    pub(super) responder: Zeroizing<[u8; 32]>,
}

/// One side of one handshake.
#[derive(Debug)]
pub(super) struct Noise(Box<HandshakeState>);

impl Noise {
    /// The side that writes first. `public` belongs to `identity`.
    pub(super) fn initiator(
        identity: &PrivateKey,
        public: PublicKey,
        server: &PublicKey,
        psk: Option<&PresharedKey>,
        index: u32,
        rng: &mut SecretRng,
    ) -> Self {
        let resolver = Resolver::new(public, false, rng);
        let prologue = prologue(index);
        let psk = psk.map_or(&NO_PSK, PresharedKey::bytes);
        let state = builder(PATTERN, resolver)
            .local_private_key(identity.bytes())
            .and_then(|builder| builder.remote_public_key(&server.0))
            .and_then(|builder| builder.psk(2, psk))
            .and_then(|builder| builder.prologue(&prologue))
            .and_then(Builder::build_initiator);
        Self(Box::new(state.expect("IKpsk2 has all that its initiator needs")))
    }

    /// The side that reads first. The pre-shared key is set when the client is known.
    pub(super) fn responder(
        identity: &PrivateKey,
        public: PublicKey,
        index: u32,
        rng: &mut SecretRng,
    ) -> Self {
        let resolver = Resolver::new(public, true, rng);
        let prologue = prologue(index);
        let state = builder(PATTERN, resolver)
            .local_private_key(identity.bytes())
            .and_then(|builder| builder.prologue(&prologue))
            .and_then(Builder::build_responder);
        Self(Box::new(state.expect("IKpsk2 has all that its responder needs")))
    }

    /// Sets the key shared with this client. To be called before the answer is written.
    pub(super) fn set_psk(&mut self, psk: Option<&PresharedKey>) {
        let psk = psk.map_or(&NO_PSK, PresharedKey::bytes);
        self.0.set_psk(PSK, psk).expect("a key of 32 bytes at place 2");
    }

    /// The next message, of `N` bytes. Writes and reads must alternate.
    pub(super) fn write<const N: usize>(&mut self, payload: &[u8]) -> [u8; N] {
        let mut message = [0; N];
        let written = self.0.write_message(payload, &mut message);
        assert_eq!(written, Ok(N), "a write in turn, of a payload of fixed size");
        message
    }

    /// Reads the next message. After an error another message may be tried.
    pub(super) fn read<const N: usize>(&mut self, message: &[u8]) -> Result<Zeroizing<[u8; N]>, Discard> {
        let mut payload = Zeroizing::new([0; N]);
        match self.0.read_message(message, payload.as_mut_slice()) {
            Ok(read) if read == N => Ok(payload),
            _ => Err(Discard::Unauthenticated),
        }
    }

    /// The other side's static key, once known.
    pub(super) fn remote(&self) -> Option<PublicKey> {
        self.0.get_remote_static()?.try_into().ok().map(PublicKey)
    }

    /// The keys. To be called after the last message only.
    pub(super) fn split(mut self) -> Split {
        let (initiator, responder) = self.0.dangerously_get_raw_split();
        Split { initiator: Zeroizing::new(initiator), responder: Zeroizing::new(responder) }
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        // snow clears nothing: replace its state by one without secrets.
        let cleared = self.0.set_psk(PSK, &NO_PSK);
        debug_assert!(cleared.is_ok());
        if let Ok(blank) = builder(BLANK, Resolver::blank()).build_responder() {
            *self.0 = blank;
            // Keeps the compiler from removing a write that is never read.
            std::hint::black_box(&mut self.0);
        }
    }
}

fn prologue(index: u32) -> [u8; PROLOGUE.len() + 4] {
    let mut prologue = [0; PROLOGUE.len() + 4];
    let (name, place) = prologue.split_at_mut(PROLOGUE.len());
    name.copy_from_slice(PROLOGUE);
    place.copy_from_slice(&index.to_be_bytes());
    prologue
}

fn builder<'a>(pattern: &str, resolver: Resolver) -> Builder<'a> {
    Builder::with_resolver(pattern.parse().expect("a pattern that snow knows"), Box::new(resolver))
}
