//! The three datagrams of a handshake: checked views and encoders. Total on any input.
//!
//! ```text
//! all       0 kind 1B | 1 link 1B | 2 version 1B: 1 | 3 zero 1B | 4 index 4B
//! initiation  8 Noise message 1: 32 + 48 + 96 | 184 mac1 16 | 200 mac2 16    index: the sender's
//! response    8 Noise message 2: 32 + 112     | 152 mac1 16                  index: the receiver's
//! cookie      8 nonce 24 | 32 sealed cookie 16 + 16                          index: the receiver's
//! ```
//! A response and a cookie reply are smaller than the initiation that they answer, so a server
//! amplifies nothing.

use crate::discard::Discard;
use crate::wire::sealed::DatagramKind;

use super::mac::{MAC_BYTES, hash, verify};
use super::payload::{ANSWER_BYTES, HELLO_BYTES, take};

/// Bytes of an initiation.
pub const INITIATION_BYTES: usize = HEADER_BYTES + MESSAGE_1_BYTES + 2 * MAC_BYTES;
/// Bytes of a response.
pub const RESPONSE_BYTES: usize = HEADER_BYTES + MESSAGE_2_BYTES + MAC_BYTES;
/// Bytes of a cookie reply.
pub const COOKIE_BYTES: usize = HEADER_BYTES + NONCE_BYTES + SEALED_COOKIE_BYTES;

/// The version of the handshake.
pub const VERSION: u8 = 1;

/// Ephemeral key; static key and its tag; payload and its tag (Noise IK).
pub(super) const MESSAGE_1_BYTES: usize = 32 + 48 + HELLO_BYTES + 16;
/// Ephemeral key; payload and its tag (Noise IK).
pub(super) const MESSAGE_2_BYTES: usize = 32 + ANSWER_BYTES + 16;
/// Nonce of XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha §2.1).
pub(super) const NONCE_BYTES: usize = 24;
/// Cookie and tag.
pub(super) const SEALED_COOKIE_BYTES: usize = MAC_BYTES + 16;

const HEADER_BYTES: usize = 8;

/// A client's first message.
#[derive(Debug, Clone, Copy)]
pub struct Initiation<'a> {
    /// The client's number of the link. Any host on the path can change it, so it is a hint until a
    /// sealed datagram arrives over that link.
    pub link: u8,
    /// The client's index for this attempt.
    pub sender_index: u32,
    pub(super) message: &'a [u8; MESSAGE_1_BYTES],
    before_mac1: &'a [u8],
    pub(super) mac1: &'a [u8; MAC_BYTES],
    before_mac2: &'a [u8],
    mac2: &'a [u8; MAC_BYTES],
}

impl<'a> Initiation<'a> {
    /// Splits the datagram into its parts; authenticates nothing.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Discard> {
        let (header, body) = parse_header(datagram, DatagramKind::Initiation, INITIATION_BYTES)?;
        let message = body.first_chunk().ok_or(Discard::HandshakeMalformed)?;
        let (before_mac2, mac2) = datagram.split_last_chunk().ok_or(Discard::HandshakeMalformed)?;
        let (before_mac1, mac1) = before_mac2.split_last_chunk().ok_or(Discard::HandshakeMalformed)?;
        let Header { link, index: sender_index } = header;
        Ok(Self { link, sender_index, message, before_mac1, mac1, before_mac2, mac2 })
    }

    /// Identifies the initiation independently of the link: copies on several links have the same
    /// fingerprint.
    pub fn fingerprint(&self) -> [u8; 32] {
        hash(&[&self.sender_index.to_be_bytes(), self.message])
    }

    pub(super) fn verify_mac1(&self, key: &[u8; 32]) -> Result<(), Discard> {
        verify(key, &[self.before_mac1], self.mac1).then_some(()).ok_or(Discard::Unauthenticated)
    }

    pub(super) fn has_mac2(&self, cookie: &[u8; MAC_BYTES]) -> bool {
        verify(cookie, &[self.before_mac2], self.mac2)
    }
}

/// A server's answer.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// The link of the initiation that this answers.
    pub link: u8,
    /// The client's index of the attempt that this answers.
    pub receiver_index: u32,
    pub(super) message: &'a [u8; MESSAGE_2_BYTES],
    before_mac1: &'a [u8],
    mac1: &'a [u8; MAC_BYTES],
}

impl<'a> Response<'a> {
    /// Splits the datagram into its parts; authenticates nothing.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Discard> {
        let (header, body) = parse_header(datagram, DatagramKind::Response, RESPONSE_BYTES)?;
        let message = body.first_chunk().ok_or(Discard::HandshakeMalformed)?;
        let (before_mac1, mac1) = datagram.split_last_chunk().ok_or(Discard::HandshakeMalformed)?;
        let Header { link, index: receiver_index } = header;
        Ok(Self { link, receiver_index, message, before_mac1, mac1 })
    }

    pub(super) fn verify_mac1(&self, key: &[u8; 32]) -> Result<(), Discard> {
        verify(key, &[self.before_mac1], self.mac1).then_some(()).ok_or(Discard::Unauthenticated)
    }
}

/// A server under load asks the client to repeat its initiation with a cookie.
#[derive(Debug, Clone, Copy)]
pub struct CookieReply<'a> {
    /// The link of the initiation that this answers.
    pub link: u8,
    /// The client's index of the attempt that this answers.
    pub receiver_index: u32,
    pub(super) nonce: &'a [u8; NONCE_BYTES],
    pub(super) sealed: &'a [u8; SEALED_COOKIE_BYTES],
}

impl<'a> CookieReply<'a> {
    /// Splits the datagram into its parts; authenticates nothing.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Discard> {
        let (header, body) = parse_header(datagram, DatagramKind::Cookie, COOKIE_BYTES)?;
        let (nonce, sealed) = body.split_first_chunk().ok_or(Discard::HandshakeMalformed)?;
        let sealed = sealed.first_chunk().ok_or(Discard::HandshakeMalformed)?;
        let Header { link, index: receiver_index } = header;
        Ok(Self { link, receiver_index, nonce, sealed })
    }
}

/// The common start of all three datagrams.
pub(super) struct Header {
    pub(super) link: u8,
    pub(super) index: u32,
}

impl Header {
    pub(super) const fn to_bytes(&self, kind: DatagramKind) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = self.index.to_be_bytes();
        [kind as u8, self.link, VERSION, 0, a, b, c, d]
    }
}

fn parse_header(datagram: &[u8], expected: DatagramKind, size: usize) -> Result<(Header, &[u8]), Discard> {
    let mut rest = datagram;
    let [kind, link, version, zero] = take(&mut rest)?;
    let index = u32::from_be_bytes(take(&mut rest)?);
    if datagram.len() != size || kind != expected as u8 || version != VERSION || zero != 0 {
        return Err(Discard::HandshakeMalformed);
    }
    Ok((Header { link, index }, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_those_of_the_protocol() {
        assert_eq!((INITIATION_BYTES, RESPONSE_BYTES, COOKIE_BYTES), (216, 168, 64));
    }

    proptest! {
        /// Any bytes behind a header that is right except at one place.
        #[test]
        fn any_bytes_are_read_or_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 8..260), fit in 0usize..4, kind in 0x80u8..0x85, version in 0u8..3,
            zero in 0u8..2,
        ) {
            let size = [INITIATION_BYTES, RESPONSE_BYTES, COOKIE_BYTES, bytes.len()][fit];
            bytes.resize(size, 0x55);
            (bytes[0], bytes[2], bytes[3]) = (kind, version, zero);
            let sane = |of: DatagramKind, of_bytes| kind == of as u8 && size == of_bytes && (version, zero) == (1, 0);
            prop_assert_eq!(Initiation::parse(&bytes).is_ok(), sane(DatagramKind::Initiation, INITIATION_BYTES));
            prop_assert_eq!(Response::parse(&bytes).is_ok(), sane(DatagramKind::Response, RESPONSE_BYTES));
            prop_assert_eq!(CookieReply::parse(&bytes).is_ok(), sane(DatagramKind::Cookie, COOKIE_BYTES));
        }

        #[test]
        fn short_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            prop_assert_eq!(Initiation::parse(&bytes).err(), Some(Discard::HandshakeMalformed));
            prop_assert_eq!(Response::parse(&bytes).err(), Some(Discard::HandshakeMalformed));
            prop_assert_eq!(CookieReply::parse(&bytes).err(), Some(Discard::HandshakeMalformed));
        }
    }
}
