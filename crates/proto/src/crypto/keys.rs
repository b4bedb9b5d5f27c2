//! Key types. Private keys are zeroed when dropped and never shown.

use std::fmt;

use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

/// An X25519 public key: the identity of a client or server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "PublicKey({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

/// An X25519 private key.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Zeroizing<[u8; 32]>);

impl PrivateKey {
    /// Any 32 bytes are a key: X25519 clears and sets the bits named in RFC 7748 §5 when the key is
    /// used.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the handshake and for its file.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public key of this private key.
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_dalek::PublicKey::from(&StaticSecret::from(*self.0)).to_bytes())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// A secret that two sides share beforehand, in addition to their keys.
#[derive(Clone, PartialEq, Eq)]
pub struct PresharedKey(Zeroizing<[u8; 32]>);

impl PresharedKey {
    /// Any 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(…)")
    }
}

/// The secret of an invitation: a client that shows it may enrol one key.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<[u8; 16]>);

impl Token {
    /// Any 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against OpenSSL.
    #[test]
    fn a_public_key_is_x25519_of_the_private_one() {
        let public = PrivateKey::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap())).public();
        let shown: String = public.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, "8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f");
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!(
            "{:?} {:?} {:?}",
            PrivateKey::from_bytes([0x41; 32]),
            PresharedKey::from_bytes([0x41; 32]),
            Token::from_bytes([0x41; 16])
        );
        assert_eq!(shown, "PrivateKey(…) PresharedKey(…) Token(…)");
    }
}
