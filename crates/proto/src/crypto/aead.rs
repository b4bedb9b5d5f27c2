//! Sealing and opening in place with an AEAD: AES-256-GCM or ChaCha20-Poly1305 by aws-lc. aws-lc
//! uses the processor's instructions and clears a key's memory when the key is freed.
//!
//! A nonce is the link's number (4 bytes) and the counter on that link (8 bytes), as in
//! draft-ietf-quic-multipath. The caller must never use a pair twice under one key;
//! [`crate::session`] counts per link.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::discard::Discard;

/// Bytes of a key of either cipher (RFC 5116 §5.2, RFC 8439 §2.8).
pub const KEY_BYTES: usize = 32;
/// Bytes of the tag behind the sealed bytes (the same sections).
pub const TAG_BYTES: usize = 16;

/// The AEAD of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cipher {
    /// The faster cipher if the processor has instructions for it.
    Aes256Gcm = 1,
    /// The faster cipher otherwise.
    ChaCha20Poly1305 = 2,
}

impl Cipher {
    /// The cipher with this number in the handshake.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// The name in status and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        }
    }
}

/// A key of one direction.
pub struct AeadKey(LessSafeKey);

impl AeadKey {
    /// The caller clears `bytes`.
    pub fn new(cipher: Cipher, bytes: &[u8; KEY_BYTES]) -> Self {
        let algorithm = match cipher {
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        // Fails for a wrong length only; both ciphers take 32 bytes.
        let key = UnboundKey::new(algorithm, bytes).expect("a key of 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Encrypts `in_out` where it lies and returns the tag over it and `aad`.
    pub fn seal(&self, link: u8, counter: u64, aad: &[u8], in_out: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = self.0.seal_in_place_separate_tag(nonce(link, counter), Aad::from(aad), in_out);
        // Fails beyond the cipher's limit of 64 GiB only; a datagram has at most 64 KiB.
        let tag = tag.expect("a datagram can be sealed");
        let mut bytes = [0; TAG_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// Decrypts `in_out`, which ends with the tag, in place. Returns the number of plain bytes at
    /// its start. After an error the contents of `in_out` are undefined.
    pub fn open(&self, link: u8, counter: u64, aad: &[u8], in_out: &mut [u8]) -> Result<usize, Discard> {
        let plain = self.0.open_in_place(nonce(link, counter), Aad::from(aad), in_out);
        plain.map(|plain| plain.len()).map_err(|_| Discard::Unauthenticated)
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AeadKey(…)")
    }
}

fn nonce(link: u8, counter: u64) -> Nonce {
    let [a, b, c, d, e, f, g, h] = counter.to_be_bytes();
    Nonce::assume_unique_for_key([0, 0, 0, link, a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AAD: [u8; 16] = [0x84, 3, 0x12, 0x34, 0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 0, 0, 0, 0, 42];
    const FRAME: [u8; 15] = [0, 3, 0, 0, 0, 0, 0, 42, 2, 0, 4, 0x45, 0, 0, 4];

    fn key(cipher: Cipher) -> AeadKey {
        AeadKey::new(cipher, &std::array::from_fn(|at| u8::try_from(at).unwrap()))
    }

    /// The vectors of PROTOCOL.md, made with OpenSSL.
    #[test]
    fn vectors() {
        let cases = [
            (Cipher::Aes256Gcm, "2b4eec6fd720df050b1cf2fa16c330bac352a5f6dc0a21216f724f7447aa59"),
            (Cipher::ChaCha20Poly1305, "3d675c04604d995eb20aff5b6f704e5a92f2769ddb10a8901e187fb751f834"),
        ];
        for (cipher, expected) in cases {
            let mut bytes = FRAME.to_vec();
            let tag = key(cipher).seal(3, 42, &AAD, &mut bytes);
            bytes.extend_from_slice(&tag);
            let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(shown, expected, "{cipher:?}");
            assert_eq!(key(cipher).open(3, 42, &AAD, &mut bytes), Ok(FRAME.len()));
            assert_eq!(bytes[..FRAME.len()], FRAME);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_changed_is_refused(
            aes: bool, counter: u64, link: u8, plain in proptest::collection::vec(any::<u8>(), 0..200), place: prop::sample::Index,
            flip in 1u8..,
        ) {
            let key = key(if aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 });
            let mut sealed = plain.clone();
            let tag = key.seal(link, counter, &AAD, &mut sealed);
            sealed.extend_from_slice(&tag);

            let refused = Err(Discard::Unauthenticated);
            prop_assert_eq!(key.open(link, counter.wrapping_add(1), &AAD, &mut sealed.clone()), refused);
            prop_assert_eq!(key.open(link.wrapping_add(1), counter, &AAD, &mut sealed.clone()), refused);
            prop_assert_eq!(key.open(link, counter, &AAD[1..], &mut sealed.clone()), refused);
            let mut flipped = sealed.clone();
            let place = place.index(flipped.len());
            flipped[place] ^= flip;
            prop_assert_eq!(key.open(link, counter, &AAD, &mut flipped), refused);
            for short in [0, TAG_BYTES - 1] {
                prop_assert_eq!(key.open(link, counter, &AAD, &mut sealed.clone()[..short]), refused);
            }
            let size = key.open(link, counter, &AAD, &mut sealed).unwrap();
            prop_assert_eq!(&sealed[..size], &plain);
        }
    }
}
