//! The Noise state of one handshake: a shell around `snow`, with our primitives where secrets lie in memory.
//!
//! - Randomness: the ephemeral key is drawn by the caller; nothing else in this pattern is random.
//! - X25519 and ChaCha20-Poly1305 come from the same maintained crates that snow takes, but clear their keys when dropped, and the
//!   public half of the own static key is given, not computed each time. The hash is snow's.
//! - What snow itself holds (chaining key, pre-shared key) is overwritten when the state is dropped. Copies that it leaves on the
//!   stack while it works are beyond reach.
//!
//! A failed read leaves the state as it was: snow restores its hashes, and in this pattern every message begins with an ephemeral
//! key, which replaces the only other things that the read could have changed (the cipher's key, the remote ephemeral).
//!
//! Source: The Noise Protocol Framework, revision 34.

use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce, Tag};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::crypto::rng::SecretRng;
use crate::discard::Discard;

/// The protocol's name in Noise's terms.
pub const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// Both sides hash this and then the client's index (4 bytes), so that nobody on a link can change that index.
pub const PROLOGUE: &[u8; 14] = b"UDP Bonding v1";

/// The place of the pre-shared key in the pattern's name.
const PSK: usize = 2;
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
    /// Who writes first. `public` belongs to `identity`.
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
        let state = builder(resolver)
            .local_private_key(identity.bytes())
            .and_then(|builder| builder.remote_public_key(&server.0))
            .and_then(|builder| builder.psk(2, psk))
            .and_then(|builder| builder.prologue(&prologue))
            .and_then(Builder::build_initiator);
        Self(Box::new(state.expect("IKpsk2 has all that its initiator needs")))
    }

    /// Who reads first. The pre-shared key is set when the client is known.
    pub(super) fn responder(
        identity: &PrivateKey,
        public: PublicKey,
        index: u32,
        rng: &mut SecretRng,
    ) -> Self {
        let resolver = Resolver::new(public, true, rng);
        let prologue = prologue(index);
        let state = builder(resolver)
            .local_private_key(identity.bytes())
            .and_then(|builder| builder.prologue(&prologue))
            .and_then(Builder::build_responder);
        Self(Box::new(state.expect("IKpsk2 has all that its responder needs")))
    }

    /// The key that is shared with this client, before the answer is written.
    pub(super) fn set_psk(&mut self, psk: Option<&PresharedKey>) {
        let psk = psk.map_or(&NO_PSK, PresharedKey::bytes);
        self.0.set_psk(PSK, psk).expect("a key of 32 bytes at place 2");
    }

    /// The next message, which has `N` bytes. To be called in turn.
    pub(super) fn write<const N: usize>(&mut self, payload: &[u8]) -> [u8; N] {
        let mut message = [0; N];
        let written = self.0.write_message(payload, &mut message);
        assert_eq!(written, Ok(N), "whose turn it is and what is written are ours");
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

    /// The other side's static key, once it is known.
    pub(super) fn remote(&self) -> Option<PublicKey> {
        self.0.get_remote_static()?.try_into().ok().map(PublicKey)
    }

    /// The keys. Only after the last message.
    pub(super) fn split(mut self) -> Split {
        let (initiator, responder) = self.0.dangerously_get_raw_split();
        Split { initiator: Zeroizing::new(initiator), responder: Zeroizing::new(responder) }
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        // snow clears nothing: put a state without secrets in its place.
        let cleared = self.0.set_psk(PSK, &NO_PSK);
        debug_assert!(cleared.is_ok());
        let blank =
            Resolver { public: PublicKey([0; 32]), strict: false, ephemeral: Zeroizing::new([0; 32]) };
        if let Ok(blank) = builder(blank).local_private_key(&[0; 32]).and_then(Builder::build_responder) {
            *self.0 = blank;
            // Or the compiler would see that nobody reads it again.
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

fn builder<'a>(resolver: Resolver) -> Builder<'a> {
    Builder::with_resolver(PATTERN.parse().expect("a pattern that snow knows"), Box::new(resolver))
}

/// Where snow takes its primitives from, for one handshake.
struct Resolver {
    /// Of the own static key.
    public: PublicKey,
    /// Whether keys that make every shared secret zero are refused.
    strict: bool,
    /// The private ephemeral key.
    ephemeral: Zeroizing<[u8; 32]>,
}

impl Resolver {
    fn new(public: PublicKey, strict: bool, rng: &mut SecretRng) -> Self {
        let mut ephemeral = Zeroizing::new([0; 32]);
        rng.fill(ephemeral.as_mut_slice());
        Self { public, strict, ephemeral }
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Ephemeral(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let Self { public, strict, .. } = *self;
        let secret = StaticSecret::from([0; 32]);
        (*choice == DHChoice::Curve25519).then(|| Box::new(X25519 { secret, public, strict }) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let key = Zeroizing::new([0; 32]);
        (*choice == CipherChoice::ChaChaPoly).then(|| Box::new(ChaChaPoly { key }) as Box<dyn Cipher>)
    }
}

/// The one draw of a handshake.
struct Ephemeral(Option<Zeroizing<[u8; 32]>>);

impl Random for Ephemeral {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        let drawn = self.0.take().filter(|drawn| drawn.len() == bytes.len()).ok_or(Error::Rng)?;
        bytes.copy_from_slice(drawn.as_slice());
        Ok(())
    }
}

/// snow makes two of these: one is set to the static key, one generates the ephemeral key.
struct X25519 {
    secret: StaticSecret,
    public: PublicKey,
    strict: bool,
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    /// The static key, whose public half is known.
    fn set(&mut self, private: &[u8]) {
        let private: [u8; 32] = private.try_into().expect("a key of 32 bytes");
        self.secret = StaticSecret::from(private);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut private = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(private.as_mut_slice())?;
        self.secret = StaticSecret::from(*private);
        self.public = PublicKey(x25519_dalek::PublicKey::from(&self.secret).to_bytes());
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public.0
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public = public.first_chunk::<32>().ok_or(Error::Dh)?;
        let shared = self.secret.diffie_hellman(&x25519_dalek::PublicKey::from(*public));
        // RFC 7748 §6.1. A client with such a key could be anybody. (A server with one is a wrong server like any other.)
        if self.strict && !shared.was_contributory() {
            return Err(Error::Dh);
        }
        out.first_chunk_mut::<32>().ok_or(Error::Dh)?.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

struct ChaChaPoly {
    key: Zeroizing<[u8; 32]>,
}

impl ChaChaPoly {
    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(self.key.as_slice().into())
    }

    /// Noise §12.3: 4 bytes of zeros, then the number, little-endian.
    fn nonce(number: u64) -> Nonce {
        let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
        Nonce::from([0, 0, 0, 0, a, b, c, d, e, f, g, h])
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        *self.key = *key;
    }

    fn encrypt(&self, number: u64, aad: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        let (sealed, rest) = out.split_at_mut(plain.len());
        let (place, _) = rest.split_at_mut(16);
        sealed.copy_from_slice(plain);
        let tag = self.cipher().encrypt_in_place_detached(&Self::nonce(number), aad, sealed);
        place.copy_from_slice(&tag.expect("a message of less than 64 KiB can be sealed"));
        plain.len() + place.len()
    }

    fn decrypt(&self, number: u64, aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let (sealed, tag) = sealed.split_last_chunk::<16>().ok_or(Error::Decrypt)?;
        let out = out.get_mut(..sealed.len()).ok_or(Error::Decrypt)?;
        out.copy_from_slice(sealed);
        let opened =
            self.cipher().decrypt_in_place_detached(&Self::nonce(number), aad, out, Tag::from_slice(tag));
        opened.map(|()| sealed.len()).map_err(|_| Error::Decrypt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of small order: every secret shared with one is zero.
    #[test]
    fn a_server_takes_no_key_that_is_none() {
        let shared = |strict, public: &[u8; 32]| {
            let x25519 = X25519 { secret: StaticSecret::from([7; 32]), public: PublicKey([0; 32]), strict };
            let mut shared = [0xff; 56];
            x25519.dh(public, &mut shared).map(|()| shared)
        };
        for public in [[0; 32], std::array::from_fn(|at| u8::from(at == 0))] {
            assert_eq!(shared(true, &public), Err(Error::Dh));
            assert_eq!(shared(false, &public).unwrap()[..32], [0; 32]);
        }
        assert_ne!(shared(true, &[9; 32]).unwrap()[..32], [0; 32]);
    }

    /// One handshake, one draw.
    #[test]
    fn an_ephemeral_key_is_drawn_once() {
        let mut ephemeral = Ephemeral(Some(Zeroizing::new([5; 32])));
        let mut bytes = [0; 32];
        ephemeral.try_fill_bytes(&mut bytes).unwrap();
        assert_eq!(bytes, [5; 32]);
        assert_eq!(ephemeral.try_fill_bytes(&mut bytes), Err(Error::Rng));
    }
}
