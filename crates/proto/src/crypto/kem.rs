//! ML-KEM-768 (FIPS 203): two sides that exchange a key and a ciphertext share 32 bytes, which an
//! observer of both does not learn even with a quantum computer.
//!
//! All randomness is drawn from the caller's [`SecretRng`]. A ciphertext that does not belong to
//! the key gives other bytes (implicit rejection), no error.

use std::fmt;

use ml_kem::kem::{Decapsulate as _, KeyExport as _};
use ml_kem::{B32, DecapsulationKey768, EncapsulationKey768, Seed};
use zeroize::{Zeroize as _, Zeroizing};

use super::rng::SecretRng;

/// Bytes of an encapsulation key (FIPS 203, table 3).
pub const ENCAPSULATION_KEY_BYTES: usize = 1_184;
/// Bytes of a ciphertext.
pub const CIPHERTEXT_BYTES: usize = 1_088;

/// The bytes that both sides share.
pub type Shared = Zeroizing<[u8; 32]>;

/// The private half of a key, to be used once.
pub struct KemKey(DecapsulationKey768);

impl KemKey {
    /// Draws a key.
    pub fn generate(rng: &mut SecretRng) -> Self {
        let mut seed = Seed::default();
        rng.fill(&mut seed);
        let key = DecapsulationKey768::from_seed(seed);
        seed.zeroize();
        Self(key)
    }

    /// The public half, for the other side.
    pub fn public(&self) -> [u8; ENCAPSULATION_KEY_BYTES] {
        self.0.encapsulation_key().to_bytes().into()
    }

    /// What the other side made.
    pub fn decapsulate(&self, ciphertext: &[u8; CIPHERTEXT_BYTES]) -> Shared {
        shared(self.0.decapsulate(&(*ciphertext).into()))
    }
}

impl fmt::Debug for KemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KemKey(…)")
    }
}

/// The other side's part; `None`: the bytes are no key.
pub fn encapsulate(
    key: &[u8; ENCAPSULATION_KEY_BYTES],
    rng: &mut SecretRng,
) -> Option<([u8; CIPHERTEXT_BYTES], Shared)> {
    let key = EncapsulationKey768::new(&(*key).into()).ok()?;
    let mut message = B32::default();
    rng.fill(&mut message);
    let (ciphertext, bytes) = key.encapsulate_deterministic(&message);
    message.zeroize();
    Some((ciphertext.into(), shared(bytes)))
}

fn shared(mut bytes: ml_kem::SharedKey) -> Shared {
    let shared = Zeroizing::new(bytes.into());
    bytes.zeroize();
    shared
}

#[cfg(test)]
pub(crate) mod tests {
    use blake2::{Blake2s256, Digest as _};

    use super::*;

    /// The key, ciphertext and shared bytes of PROTOCOL.md's vector, whose randomness is given, not
    /// drawn.
    pub(crate) fn vector() -> ([u8; ENCAPSULATION_KEY_BYTES], [u8; CIPHERTEXT_BYTES], Shared) {
        let seed: [u8; 64] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let message: [u8; 32] = std::array::from_fn(|at| 0x60 + u8::try_from(at).unwrap());
        let key = KemKey(DecapsulationKey768::from_seed(seed.into()));
        let public = EncapsulationKey768::new(&key.public().into()).unwrap();
        let (ciphertext, bytes) = public.encapsulate_deterministic(&message.into());
        let ciphertext = ciphertext.into();
        assert_eq!(key.decapsulate(&ciphertext), shared(bytes));
        (key.public(), ciphertext, key.decapsulate(&ciphertext))
    }

    /// Compared with kyber-py.
    #[test]
    fn vectors() {
        let (key, ciphertext, shared) = vector();
        let shown = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let hash = |bytes: &[u8]| shown(&Blake2s256::digest(bytes));
        assert_eq!(hash(&key), "d17574d4976b05ccfd85cfbeb1c2071fd3bebeddd32c83432fc29256ebfc3530");
        assert_eq!(hash(&ciphertext), "db66098a53ddf50dd102335e9453559c1490e40524fb7aefc7ffda7445a4d13f");
        assert_eq!(
            shown(shared.as_slice()),
            "df667d91b9f200d40195490c960b6b66f14b90853e187ab64d66a4fab18b112e"
        );
    }

    #[test]
    fn both_sides_share_what_no_other_key_gives_and_draws_repeat() {
        let mut rng = SecretRng::new([1; 32]);
        let (ours, other) = (KemKey::generate(&mut rng), KemKey::generate(&mut rng));
        assert_ne!(ours.public(), other.public());
        assert_eq!(ours.public(), KemKey::generate(&mut SecretRng::new([1; 32])).public());
        let (ciphertext, shared) = encapsulate(&ours.public(), &mut rng).unwrap();
        assert_ne!(encapsulate(&ours.public(), &mut rng).unwrap().0, ciphertext);
        assert_eq!(ours.decapsulate(&ciphertext), shared);
        assert_ne!(other.decapsulate(&ciphertext), shared);
        let mut changed = ciphertext;
        changed[100] ^= 1;
        assert_ne!(ours.decapsulate(&changed), shared, "other bytes, no error");
        // A coefficient that is no number modulo 3,329.
        assert!(encapsulate(&[0xff; ENCAPSULATION_KEY_BYTES], &mut rng).is_none());
        assert_eq!(format!("{ours:?}"), "KemKey(…)");
    }
}
