//! Sealing and opening in place with an AEAD: AES-256-GCM or ChaCha20-Poly1305 by aws-lc. aws-lc
//! uses the processor's instructions and clears a key's memory when the key is freed.
//!
//! A nonce is the link's number (4 bytes) and the counter on that link (8 bytes), as in
//! draft-ietf-quic-multipath. The caller must never use a pair twice under one key;
//! [`crate::session`] counts per link, and obeys [`Usage`].

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

/// How much one key may be used: docs/decisions/0065-limits-of-a-key.md. An attacker's advantage
/// stays below 2^-57 at each bound, the target of RFC 9001, for datagrams of any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// [Blocks](blocks) sealed after which new keys are to be made.
    pub renew_blocks: u64,
    /// [Blocks](blocks) sealed after which the key seals no more.
    pub refuse_blocks: u64,
    /// Datagrams that did not authenticate, after which the key opens no more.
    pub forgeries: u64,
}

impl Usage {
    /// The bounds for a cipher.
    pub const fn of(cipher: Cipher) -> Self {
        match cipher {
            // draft-irtf-cfrg-aead-limits §5.1.1: the advantage of seeing a difference from random
            // is at most blocks² / 2^129. RFC 9001 §6.6: 2^52 forgeries, datagrams of 2^16 bytes.
            Cipher::Aes256Gcm => Self { renew_blocks: 1 << 35, refuse_blocks: 1 << 36, forgeries: 1 << 52 },
            // The same draft, §5.2: no bound but the nonces', of which there is no end here; the
            // number is WireGuard's (whitepaper §6). Forgeries: the advantage is at most v × (l +
            // 1) / 2^103, with l = 4,096 blocks in a datagram of 2^16 bytes.
            Cipher::ChaCha20Poly1305 => {
                Self { renew_blocks: 1 << 60, refuse_blocks: (1 << 60) + (1 << 50), forgeries: 1 << 33 }
            }
        }
    }
}

/// Blocks of a cipher that sealing so many bytes takes: one for each 16 bytes, and the tag's.
pub const fn blocks(bytes: usize) -> u64 {
    bytes.div_ceil(16) as u64 + 1
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

    /// The formulas of draft-irtf-cfrg-aead-limits, in powers of two. RFC 9001 has the target.
    #[test]
    fn limits_keep_the_advantage_below_the_target() {
        let target = -57.0;
        let largest = 4_096.0_f64;
        let gcm = Usage::of(Cipher::Aes256Gcm);
        assert!(2.0 * (gcm.refuse_blocks as f64).log2() - 129.0 <= target);
        assert!(1.0 + (gcm.forgeries as f64 * (largest + 1.0)).log2() - 128.0 <= target);
        let chacha = Usage::of(Cipher::ChaCha20Poly1305);
        assert!((chacha.forgeries as f64 * (largest + 1.0)).log2() - 103.0 <= target);
    }

    /// New keys take a few seconds at worst. At 10 Gbit/s, in datagrams of whatever size, they are
    /// not asked for too often nor too late.
    #[test]
    fn limits_leave_time_for_new_keys() {
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            let usage = Usage::of(cipher);
            for bytes in [40, 100, 576, 1_424, 8_960, 65_450] {
                let a_second = 10_000_000_000 / 8 / bytes as u64 * blocks(bytes);
                assert!(usage.renew_blocks / a_second > 120, "{cipher:?}, {bytes}");
                assert!((usage.refuse_blocks - usage.renew_blocks) / a_second > 120, "{cipher:?}, {bytes}");
            }
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
