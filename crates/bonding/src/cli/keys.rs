//! `bondctl genkey` and `bondctl pubkey`: X25519 keys in base64, interchangeable with WireGuard's.

use std::io::Read as _;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bonding_proto::crypto::keys::PrivateKey;
use zeroize::Zeroizing;

use crate::state::keys;

/// A key has 44 characters. Longer input is not a key.
const INPUT_MAX_BYTES: u64 = 1_024;

/// A new private key.
pub(super) fn generate() -> anyhow::Result<String> {
    let key = keys::generate().context("the kernel gives no random numbers")?;
    Ok(keys::encode(key.bytes()))
}

/// The public key of the private key that `input` holds.
pub(super) fn public(input: impl std::io::Read) -> anyhow::Result<String> {
    let mut text = Zeroizing::new(String::new());
    input.take(INPUT_MAX_BYTES).read_to_string(&mut text).context("standard input is not a private key")?;
    let bytes = STANDARD.decode(text.trim()).context("standard input is not a private key in base64")?;
    let bytes = Zeroizing::new(bytes);
    let Ok(bytes) = <[u8; 32]>::try_from(bytes.as_slice()) else {
        bail!("standard input is not a private key: those have 32 bytes, 44 characters in base64");
    };
    Ok(keys::show(&PrivateKey::from_bytes(bytes).public()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748 §6.1: Alice's and Bob's keys.
    const VECTORS: [(&str, &str); 2] = [
        (
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        ),
        (
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        ),
    ];

    fn base64(hex: &str) -> String {
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        STANDARD.encode(bytes)
    }

    #[test]
    fn public_keys_are_those_of_the_rfc() {
        for (private, expected) in VECTORS {
            let with_newline = format!("{}\n", base64(private));
            assert_eq!(public(with_newline.as_bytes()).unwrap(), base64(expected));
        }
    }

    #[test]
    fn generated_keys_differ_and_are_clamped() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, other);
        let bytes = STANDARD.decode(&one).unwrap();
        assert_eq!((bytes[0] & 7, bytes[31] & 192), (0, 64));
        assert_eq!(public(one.as_bytes()).unwrap().len(), 44);
    }

    #[test]
    fn a_malformed_key_is_refused() {
        for input in ["", "hello!", "AAAA", &"A".repeat(4_096)] {
            let error = public(input.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("standard input is not a private key"), "{error}");
        }
    }
}
