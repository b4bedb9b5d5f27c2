//! Cookies. A server under load asks an address for a cookie before it does any expensive work for
//! that address. A client that returns the cookie has proven that it receives there.
//!
//! A cookie is a MAC of the source under a secret of the server, so the server keeps no state per
//! cookie. The secret changes every [`SECRET_LIFE`]; the previous secret stays valid for as long
//! again. The reply is sealed under the server's public key and bound to the mac1 of the initiation
//! that it answers: an attacker off the path can neither make nor use one. Source: WireGuard
//! §5.4.7.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{KeyInit as _, Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::crypto::rng::SecretRng;
use crate::discard::Discard;
use crate::time::Instant;
use crate::wire::sealed::DatagramKind;

use super::mac::{MAC_BYTES, Mac1, mac};
use super::message::{COOKIE_BYTES, CookieReply, Header, Initiation, NONCE_BYTES};

/// How long a server makes cookies from one secret (WireGuard §5.4.7). A cookie is valid for at
/// least this long.
pub const SECRET_LIFE: Duration = Duration::from_secs(120);

/// Proof to the server that the client receives at its source address: for one link, valid for at
/// least [`SECRET_LIFE`].
#[derive(Clone)]
pub struct Cookie(pub(super) Zeroizing<[u8; MAC_BYTES]>);

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(…)")
    }
}

/// Opens a cookie reply to the initiation with this `mac1`. `key` is the server's, see
/// [`super::mac::cookie_key`].
pub(super) fn open(reply: &CookieReply<'_>, key: &[u8; 32], mac1: &Mac1) -> Result<Cookie, Discard> {
    let (sealed, tag) = reply.sealed.split_last_chunk::<16>().ok_or(Discard::HandshakeMalformed)?;
    let mut cookie = Zeroizing::new([0; MAC_BYTES]);
    cookie.copy_from_slice(sealed);
    let nonce = XNonce::from_slice(reply.nonce);
    let opened = XChaCha20Poly1305::new(key.into()).decrypt_in_place_detached(
        nonce,
        &mac1.0,
        cookie.as_mut_slice(),
        Tag::from_slice(tag),
    );
    opened.map(|()| Cookie(cookie)).map_err(|_| Discard::Unauthenticated)
}

/// The server's cookies.
pub(super) struct CookieJar {
    secret: Zeroizing<[u8; 32]>,
    made: Instant,
    /// The previous secret, and the end of its validity.
    previous: Option<(Zeroizing<[u8; 32]>, Instant)>,
}

impl CookieJar {
    pub(super) fn new(rng: &mut SecretRng, now: Instant) -> Self {
        Self { secret: draw(rng), made: now, previous: None }
    }

    /// Whether the initiation carries a valid cookie of `source`.
    pub(super) fn admits(
        &mut self,
        initiation: &Initiation<'_>,
        source: SocketAddr,
        rng: &mut SecretRng,
        now: Instant,
    ) -> bool {
        self.rotate(rng, now);
        let has = |secret: &Zeroizing<[u8; 32]>| initiation.has_mac2(&cookie(secret, source).0);
        has(&self.secret) || self.previous.as_ref().is_some_and(|(secret, _)| has(secret))
    }

    /// The reply that gives `source` its cookie.
    pub(super) fn reply(
        &mut self,
        initiation: &Initiation<'_>,
        source: SocketAddr,
        key: &[u8; 32],
        rng: &mut SecretRng,
        now: Instant,
    ) -> [u8; COOKIE_BYTES] {
        self.rotate(rng, now);
        let mut nonce = [0; NONCE_BYTES];
        rng.fill(&mut nonce);
        let mut sealed = cookie(&self.secret, source).0;
        let tag = XChaCha20Poly1305::new(key.into()).encrypt_in_place_detached(
            &nonce.into(),
            initiation.mac1,
            sealed.as_mut_slice(),
        );
        let tag = tag.expect("16 bytes can be sealed");
        let header = Header { link: initiation.link, index: initiation.sender_index };
        let header = header.to_bytes(DatagramKind::Cookie);
        let parts = [header.as_slice(), &nonce, sealed.as_slice(), &tag];
        let mut reply = [0; COOKIE_BYTES];
        reply.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        reply
    }

    fn rotate(&mut self, rng: &mut SecretRng, now: Instant) {
        if now >= self.made + SECRET_LIFE {
            let secret = std::mem::replace(&mut self.secret, draw(rng));
            self.previous = Some((secret, self.made + SECRET_LIFE * 2));
            self.made = now;
        }
        self.previous.take_if(|(_, until)| *until <= now);
    }
}

impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieJar").field("made", &self.made).finish_non_exhaustive()
    }
}

fn draw(rng: &mut SecretRng) -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill(secret.as_mut_slice());
    secret
}

/// The cookie of a source: its port, and its address in one form for IPv4 and IPv4-mapped IPv6.
fn cookie(secret: &[u8; 32], source: SocketAddr) -> Cookie {
    let address = match source.ip().to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    Cookie(Zeroizing::new(mac(secret, &[&address.octets(), &source.port().to_be_bytes()])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::tests::{at, client, hex, server_key};

    const SOURCE: &str = "192.0.2.1:40000";

    /// Whether a cookie made at `made_s` for `SOURCE` is valid at `shown_s` from `source`.
    fn is_good(made_s: u64, shown_s: u64, source: &str) -> bool {
        let mut rng = SecretRng::new([9; 32]);
        let mut jar = CookieJar::new(&mut rng, at(1));
        let key = super::super::mac::cookie_key(&server_key().public());
        let initiator = client(1);
        let mut datagram = Vec::new();
        let mac1 = initiator.put(0, None, &mut datagram);
        let initiation = Initiation::parse(&datagram).unwrap();
        assert!(!jar.admits(&initiation, SOURCE.parse().unwrap(), &mut rng, at(made_s)));
        let reply = jar.reply(&initiation, SOURCE.parse().unwrap(), &key, &mut rng, at(made_s));
        let cookie = initiator.read_cookie(&reply, &mac1).unwrap();
        let mut again = Vec::new();
        initiator.put(0, Some(&cookie), &mut again);
        jar.admits(&Initiation::parse(&again).unwrap(), source.parse().unwrap(), &mut rng, at(shown_s))
    }

    /// The vectors of PROTOCOL.md, from another implementation (Python, by the specifications).
    #[test]
    fn vectors() {
        let mut rng = SecretRng::new([9; 32]);
        let mut jar = CookieJar::new(&mut rng, at(1));
        let key = super::super::mac::cookie_key(&server_key().public());
        let initiator = client(1);
        let mut datagram = Vec::new();
        let mac1 = initiator.put(3, None, &mut datagram);
        let initiation = Initiation::parse(&datagram).unwrap();
        let reply = jar.reply(&initiation, SOURCE.parse().unwrap(), &key, &mut rng, at(1));
        let expected = "83030100010203048fb138161b11ce33c1fb04b9efb1af70fd51f15b83f7c038
            7587912c3ddc0cc1edeffe2469856359f6835bfba05c4ee8cfa696e5c6d0c06a";
        assert_eq!(reply.as_slice(), hex(expected));
        let cookie = initiator.read_cookie(&reply, &mac1).unwrap();
        assert_eq!(cookie.0.as_slice(), hex("331751cb2b6f35b5dc5339e7596d3326"));
        let mut again = Vec::new();
        initiator.put(3, Some(&cookie), &mut again);
        assert_eq!(again[..200], datagram[..200]);
        assert_eq!(again[200..], hex("c7f9f10b4eab53a50ca24b8ba03e6cf3"));
    }

    #[test]
    fn a_cookie_is_for_one_source() {
        assert!(is_good(1, 1, SOURCE));
        assert!(is_good(1, 1, "[::ffff:192.0.2.1]:40000"));
        assert!(!is_good(1, 1, "192.0.2.1:40001"));
        assert!(!is_good(1, 1, "192.0.2.2:40000"));
        assert!(!is_good(1, 1, "[2001:db8::1]:40000"));
    }

    #[test]
    fn a_cookie_outlives_one_change_of_the_secret() {
        // Made with the first secret, of second 1: valid through the secret's life and as long
        // again.
        assert!(is_good(1, 120, SOURCE));
        assert!(is_good(120, 121, SOURCE));
        assert!(is_good(120, 240, SOURCE));
        assert!(!is_good(120, 241, SOURCE));
        assert!(!is_good(1, 1_000, SOURCE));
        // Made with the second secret, which was drawn for a request in second 200.
        assert!(is_good(200, 439, SOURCE));
        assert!(!is_good(200, 440, SOURCE));
    }
}
