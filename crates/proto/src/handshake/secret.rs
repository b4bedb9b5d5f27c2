//! The secret that a session's exchange leaves for the next handshake, beside the pre-shared key.
//!
//! Both sides derive it from what ML-KEM gave them, what the exchange showed to observers, and the
//! secret of the handshake before: once one exchange is closed to a quantum computer, so is every
//! later handshake of the chain. A handshake names its secret, so that a side that lost it (after a
//! restart) is found out, and the handshake does without.
//!
//! ```text
//! secret = BLAKE2s-256(key = shared, "UDP Bonding secret v1" ‖ the one before, or zeros
//!                                    ‖ BLAKE2s-256(encapsulation key ‖ ciphertext))
//! name   = BLAKE2s-256(key = secret, "name"), the first 8 bytes
//! psk    = BLAKE2s-256(key = secret, "psk" ‖ pre-shared key, or zeros)
//! ```

use std::fmt;

use zeroize::Zeroizing;

use super::mac;
use crate::crypto::kem::{CIPHERTEXT_BYTES, ENCAPSULATION_KEY_BYTES, Shared};
use crate::crypto::keys::PresharedKey;

/// Bytes of a [`SecretName`].
pub const SECRET_NAME_BYTES: usize = 8;

const LABEL: &[u8] = b"UDP Bonding secret v1";
const NONE: [u8; 32] = [0; 32];

/// What a handshake calls a secret. It tells nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretName(pub [u8; SECRET_NAME_BYTES]);

/// A secret for handshakes.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedSecret {
    name: SecretName,
    secret: Zeroizing<[u8; 32]>,
}

impl SharedSecret {
    /// The secret after `before`, of an exchange under keys that were made with that.
    pub fn new(
        before: Option<&Self>,
        shared: &Shared,
        key: &[u8; ENCAPSULATION_KEY_BYTES],
        ciphertext: &[u8; CIPHERTEXT_BYTES],
    ) -> Self {
        let shown = mac::hash(&[key, ciphertext]);
        let before = before.map_or(&NONE, |before| &before.secret);
        let secret = mac::keyed_hash(shared, &[LABEL, before, &shown]);
        let name = mac::keyed_hash(&secret, &[b"name"]).first_chunk().copied().unwrap_or_default();
        Self { name: SecretName(name), secret }
    }

    /// What a handshake calls it.
    pub const fn name(&self) -> SecretName {
        self.name
    }

    /// The pre-shared key of a handshake with this secret: with each it needs both.
    pub fn with(&self, preshared: Option<&PresharedKey>) -> PresharedKey {
        let preshared = preshared.map_or(&NONE, PresharedKey::bytes);
        PresharedKey::from_bytes(*mac::keyed_hash(&self.secret, &[b"psk", preshared]))
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedSecret({:?}, …)", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::kem::tests::vector;
    use crate::handshake::tests::hex;

    /// The vector of PROTOCOL.md, compared with Python's hashlib.
    #[test]
    fn vectors() {
        let (key, ciphertext, shared) = vector();
        let preshared = PresharedKey::from_bytes(std::array::from_fn(|at| 0x40 + u8::try_from(at).unwrap()));
        let first = SharedSecret::new(None, &shared, &key, &ciphertext);
        let second = SharedSecret::new(Some(&first), &shared, &key, &ciphertext);
        let expected = [
            [
                "26f7095608703b8a9ffaae998d55291bdaff12a4091b719ed32829a145d2b84c",
                "5063f66e71878702",
                "be43920522cfa061c4004aafa169e5f173c56afc5604794b72bdae4d12c87e94",
                "361db60c091ba7e68286c05a756f1370b11f1fddf599aea3ffdf7f3d2e7d3e84",
            ],
            [
                "8d655b92e1896a027e3669a74bce96c6e01f35612623db3acc64fd43d1fb4d0f",
                "de0bc6ca87f73be8",
                "1c92759a516ec827d400706f6e730423fb35bc44d4819336da398cd37b0969cc",
                "517dbea2becc8fad0ec24a3eea320eba56157e2865b9a652c8cb8d8ce64d0478",
            ],
        ];
        for (secret, expected) in [first, second].iter().zip(expected) {
            let [bytes, name, alone, both] = expected.map(hex);
            assert_eq!(secret.secret.to_vec(), bytes);
            assert_eq!(secret.name().0.to_vec(), name);
            assert_eq!(secret.with(None).bytes().to_vec(), alone);
            assert_eq!(secret.with(Some(&preshared)).bytes().to_vec(), both);
            assert!(format!("{secret:?}").ends_with("]), …)"), "only its name is shown");
        }
    }

    #[test]
    fn what_observers_saw_is_part_of_it() {
        let (key, ciphertext, shared) = vector();
        let name = |key: &_, ciphertext: &_| SharedSecret::new(None, &shared, key, ciphertext).name();
        let (mut other_key, mut other_ciphertext) = (key, ciphertext);
        other_key[7] ^= 1;
        other_ciphertext[7] ^= 1;
        assert_ne!(name(&key, &ciphertext), name(&other_key, &ciphertext));
        assert_ne!(name(&key, &ciphertext), name(&key, &other_ciphertext));
    }
}
