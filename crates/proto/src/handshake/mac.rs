//! The keyed hashes of handshake messages: BLAKE2s with 16 bytes of output, as in WireGuard §5.4.4.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput as _, Mac as _};
use blake2::{Blake2s256, Blake2sMac, Blake2sMac256, Digest as _};
use zeroize::Zeroizing;

use crate::crypto::keys::PublicKey;

/// Bytes of a mac, and of a cookie.
pub const MAC_BYTES: usize = 16;

/// The mac1 of an initiation that was sent. A cookie reply to that initiation is bound to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac1(pub [u8; MAC_BYTES]);

/// The key of mac1 in messages to the owner of `public`. The key is not secret: it only rejects
/// senders that do not know the receiver's public key.
pub(super) fn mac1_key(public: &PublicKey) -> [u8; 32] {
    hash(&[b"mac1----", &public.0])
}

/// The key that seals the cookies of the owner of `public`. It is not secret either.
pub(super) fn cookie_key(public: &PublicKey) -> [u8; 32] {
    hash(&[b"cookie--", &public.0])
}

/// BLAKE2s-256 of the concatenated parts.
pub(super) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Blake2s256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

/// Keyed BLAKE2s with 32 bytes of output, over the concatenated parts.
pub(super) fn keyed_hash(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut state = Blake2sMac256::new_from_slice(key).expect("a key of 32 bytes");
    parts.iter().for_each(|part| state.update(part));
    let mut bytes = Zeroizing::new([0; 32]);
    state.finalize_into(bytes.as_mut_slice().into());
    bytes
}

/// The MAC of the concatenated parts. `key` has at most 32 bytes.
pub(super) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; MAC_BYTES] {
    state(key, parts).finalize_fixed().into()
}

/// Whether `expected` is that MAC, compared in constant time.
pub(super) fn verify(key: &[u8], parts: &[&[u8]], expected: &[u8; MAC_BYTES]) -> bool {
    state(key, parts).verify(expected.into()).is_ok()
}

fn state(key: &[u8], parts: &[&[u8]]) -> Blake2sMac<U16> {
    let mut state = Blake2sMac::new_from_slice(key).expect("a key of 32 bytes at most");
    parts.iter().for_each(|part| state.update(part));
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::tests::hex;

    /// Compared with Python's hashlib.
    #[test]
    fn vectors() {
        let key: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(mac(&key, &[b"ab", b"c"]).as_slice(), hex("61ba5f165c194692e09d12520cc4c74a"));
        assert_eq!(mac(&key[..16], &[b"abc"]).as_slice(), hex("75296c2d2c0f51210b383f386bc8b1ff"));
        assert_eq!(
            mac1_key(&PublicKey(key)).as_slice(),
            hex("4fb2527ac956001553dc1ad9b55171b7d9daa3de1cdbcd71451830170c7e6cac")
        );
        assert_eq!(
            cookie_key(&PublicKey(key)).as_slice(),
            hex("3dd5869c5202e45146936d1644f76ff697061661c181f3fd450eae43932eacec")
        );
        assert!(verify(&key, &[b"abc"], &mac(&key, &[b"abc"])));
        assert!(!verify(&key, &[b"abd"], &mac(&key, &[b"abc"])));
    }
}
