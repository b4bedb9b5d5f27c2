//! The cryptographic primitives for snow: X25519 of aws-lc, and RustCrypto's ChaCha20-Poly1305 and
//! BLAKE2s. aws-lc is twice as fast as curve25519-dalek, snow's default. Keys are cleared when
//! dropped; snow's own wrappers do not clear theirs.
//!
//! Randomness: the caller draws the ephemeral key; nothing else in the pattern is random. The
//! caller also gives the public half of its static key, so that it is not computed for each
//! handshake.
//! key is given too, not computed for each handshake.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use blake2::{Blake2s256, Digest as _};
use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce, Tag};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroizing;

use crate::crypto::keys::PublicKey;
use crate::crypto::rng::SecretRng;

/// The source of snow's primitives, for one handshake.
pub(super) struct Resolver {
    /// The public half of this side's static key.
    public: PublicKey,
    /// Whether to refuse public keys that make every shared secret zero.
    strict: bool,
    /// The private ephemeral key.
    ephemeral: Zeroizing<[u8; 32]>,
}

impl Resolver {
    /// For the side whose static key is `public`.
    pub(super) fn new(public: PublicKey, strict: bool, rng: &mut SecretRng) -> Self {
        let mut ephemeral = Zeroizing::new([0; 32]);
        rng.fill(ephemeral.as_mut_slice());
        Self { public, strict, ephemeral }
    }

    /// For a state that will compute nothing.
    pub(super) fn blank() -> Self {
        Self { public: PublicKey([0; 32]), strict: true, ephemeral: Zeroizing::new([0; 32]) }
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Ephemeral(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let Self { public, strict, .. } = *self;
        (*choice == DHChoice::Curve25519)
            .then(|| Box::new(X25519 { secret: None, public, strict }) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        (*choice == HashChoice::Blake2s).then(|| Box::new(Blake2s(Blake2s256::new())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let key = Zeroizing::new([0; 32]);
        (*choice == CipherChoice::ChaChaPoly).then(|| Box::new(ChaChaPoly { key }) as Box<dyn Cipher>)
    }
}

/// The one random draw of a handshake.
struct Ephemeral(Option<Zeroizing<[u8; 32]>>);

impl Random for Ephemeral {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        let drawn = self.0.take().filter(|drawn| drawn.len() == bytes.len()).ok_or(Error::Rng)?;
        bytes.copy_from_slice(drawn.as_slice());
        Ok(())
    }
}

/// snow makes two of these: one for the static key, one for the ephemeral key.
struct X25519 {
    secret: Option<PrivateKey>,
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

    /// Sets the static key. Its public half is known already.
    fn set(&mut self, private: &[u8]) {
        self.secret = PrivateKey::from_private_key(&agreement::X25519, private).ok();
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut private = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(private.as_mut_slice())?;
        let secret = PrivateKey::from_private_key(&agreement::X25519, private.as_slice());
        let secret = self.secret.insert(secret.map_err(|_| Error::Dh)?);
        let public = secret.compute_public_key().map_err(|_| Error::Dh)?;
        self.public = PublicKey(public.as_ref().try_into().map_err(|_| Error::Dh)?);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public.0
    }

    /// Only snow's key pair generator calls this, and it is not used.
    fn privkey(&self) -> &[u8] {
        &[]
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public = public.first_chunk::<32>().ok_or(Error::Dh)?;
        let secret = self.secret.as_ref().ok_or(Error::Dh)?;
        let out = out.first_chunk_mut::<32>().ok_or(Error::Dh)?;
        let agreed = agreement::agree(
            secret,
            UnparsedPublicKey::new(&agreement::X25519, public),
            Error::Dh,
            |shared| {
                *out = *shared.first_chunk().ok_or(Error::Dh)?;
                Ok(())
            },
        );
        // RFC 7748 §6.1: the only failure is a shared secret of zeros. A server must refuse it,
        // because any host can impersonate a client with such a key. A client may continue: a
        // server with such a key fails the handshake like any wrong server.
        match agreed {
            Err(_) if !self.strict => *out = [0; 32],
            agreed => agreed?,
        }
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

struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Blake2s256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = std::mem::take(&mut self.0).finalize();
        out.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of small order: every shared secret with such a point is zero.
    #[test]
    fn a_server_refuses_a_malformed_key() {
        let shared = |strict, public: &[u8; 32]| {
            let mut x25519 = X25519 { secret: None, public: PublicKey([0; 32]), strict };
            x25519.set(&[7; 32]);
            let mut shared = [0xff; 56];
            x25519.dh(public, &mut shared).map(|()| shared)
        };
        for public in [[0; 32], std::array::from_fn(|at| u8::from(at == 0))] {
            assert_eq!(shared(true, &public), Err(Error::Dh));
            assert_eq!(shared(false, &public).unwrap()[..32], [0; 32]);
        }
        assert_ne!(shared(true, &[9; 32]).unwrap()[..32], [0; 32]);
    }

    /// One handshake makes one draw.
    #[test]
    fn an_ephemeral_key_is_drawn_once() {
        let mut ephemeral = Ephemeral(Some(Zeroizing::new([5; 32])));
        let mut bytes = [0; 32];
        ephemeral.try_fill_bytes(&mut bytes).unwrap();
        assert_eq!(bytes, [5; 32]);
        assert_eq!(ephemeral.try_fill_bytes(&mut bytes), Err(Error::Rng));
    }
}
