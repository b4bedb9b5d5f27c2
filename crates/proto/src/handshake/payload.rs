//! The payloads that the two sides exchange inside a handshake's messages, sealed.
//!
//! All sizes are fixed. A sender writes zero to the reserved bytes and a reader ignores them: later
//! versions may use them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zeroize::Zeroizing;

use crate::config::Prefix;
use crate::crypto::aead::Cipher;
use crate::crypto::keys::PublicKey;
use crate::discard::Discard;

use super::claim::{Claim, InvitationId};
use super::mac::MAC_BYTES;
use super::secret::{SECRET_NAME_BYTES, SecretName};

/// Bytes of [`Hello`].
pub const HELLO_BYTES: usize = 80;
/// Bytes of an answer, [`Welcome`] or [`Refusal`].
pub const ANSWER_BYTES: usize = 96;
/// The most addresses and routes of a [`Welcome`].
pub const MAX_ADDRESSES: usize = 4;

const FLAG_AES_FAST: u8 = 0x01;
/// A version before this one: the token itself is in the claim's place.
const FLAG_TOKEN: u8 = 0x02;
const FLAG_INVITATION: u8 = 0x04;
const FLAG_ROTATION: u8 = 0x08;
const FLAG_EXCHANGES: u8 = 0x01;
const STATUS_WELCOME: u8 = 0;
const FAMILY_V4: u8 = 4;
const FAMILY_V6: u8 = 6;

/// Orders the initiations of one client key, so that a replayed initiation is recognised. No
/// synchronised clock is needed: the server compares a stamp only with the newest stamp of the same
/// key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// Greater in each run of the client.
    pub run: u64,
    /// The client's clock, µs. It has to advance within a run only.
    pub elapsed_us: u64,
}

/// The client's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Newer than the stamp of any initiation before it.
    pub stamp: Stamp,
    /// The client's run.
    pub epoch: u32,
    /// Whether the client's processor has instructions for AES.
    pub aes_fast: bool,
    /// Why the server should know the client's key, if it may not know it yet.
    pub claim: Option<Claim>,
    /// The secret that the client wants the handshake to have beside the pre-shared key.
    pub secret: Option<SecretName>,
}

impl Hello {
    /// The bytes on the wire, before they are sealed.
    pub fn to_bytes(&self) -> Zeroizing<[u8; HELLO_BYTES]> {
        let mut bytes = Zeroizing::new([0; HELLO_BYTES]);
        let mut rest = bytes.as_mut_slice();
        let aes_fast = if self.aes_fast { FLAG_AES_FAST } else { 0 };
        let claim = self.claim.as_ref().map_or(0, |claim| match claim {
            Claim::Invitation { .. } => FLAG_INVITATION,
            Claim::Rotation { .. } => FLAG_ROTATION,
        });
        put(&mut rest, &self.stamp.run.to_be_bytes());
        put(&mut rest, &self.stamp.elapsed_us.to_be_bytes());
        put(&mut rest, &self.epoch.to_be_bytes());
        put(&mut rest, &[aes_fast | claim, 0, 0, 0]);
        match &self.claim {
            Some(Claim::Invitation { id, proof }) => {
                put(&mut rest, proof);
                put(&mut rest, &id.0);
            }
            Some(Claim::Rotation { old, proof }) => {
                put(&mut rest, proof);
                put(&mut rest, &old.0);
            }
            None => {}
        }
        if let (Some(name), Some(place)) = (self.secret, bytes.last_chunk_mut()) {
            *place = name.0;
        }
        bytes
    }

    /// Reads the opened payload.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, Discard> {
        let name = bytes.first_chunk::<HELLO_BYTES>().and_then(|bytes| bytes.last_chunk().copied());
        let secret = name.filter(|name| *name != [0; SECRET_NAME_BYTES]).map(SecretName);
        let run = u64::from_be_bytes(take(&mut bytes)?);
        let elapsed_us = u64::from_be_bytes(take(&mut bytes)?);
        let epoch = u32::from_be_bytes(take(&mut bytes)?);
        let [flags, _, _, _] = take(&mut bytes)?;
        let proof = take::<MAC_BYTES>(&mut bytes)?;
        let claim = match flags & (FLAG_TOKEN | FLAG_INVITATION | FLAG_ROTATION) {
            0 => None,
            FLAG_INVITATION => Some(Claim::Invitation { id: InvitationId(take(&mut bytes)?), proof }),
            FLAG_ROTATION => Some(Claim::Rotation { old: PublicKey(take(&mut bytes)?), proof }),
            flags if flags & FLAG_TOKEN != 0 => return Err(Discard::TokenOutdated),
            _ => return Err(Discard::HandshakeMalformed),
        };
        let aes_fast = flags & FLAG_AES_FAST != 0;
        Ok(Self { stamp: Stamp { run, elapsed_us }, epoch, aes_fast, claim, secret })
    }
}

/// The server's payload for a client that it accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The session's cipher.
    pub cipher: Cipher,
    /// The server's run.
    pub epoch: u32,
    /// The server's inner MTU in bytes; `None`: not told.
    pub mtu: Option<u16>,
    /// The client's inner addresses, with the prefix lengths of the tunnel's network. At most
    /// [`MAX_ADDRESSES`]: further ones are not sent.
    pub addresses: Vec<Prefix>,
    /// The networks behind the client that the server routes to it, as many as there is room for
    /// beside the addresses: [`MAX_ADDRESSES`] in all.
    pub routes: Vec<Prefix>,
    /// Whether the server takes part in exchanges with ML-KEM.
    pub exchanges: bool,
}

/// The reason why a server refuses a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The invitation was used already.
    Used = 1,
    /// The invitation has expired.
    Expired = 2,
    /// The server accepts no new clients, or not this key in another's place.
    Refused = 3,
    /// The client's key has expired.
    KeyExpired = 4,
}

/// A server's answer before it is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The server accepted the client.
    Welcome {
        /// The server's index for the session. It is sealed so that no host on the path can change
        /// it.
        index: u32,
        /// The payload.
        welcome: Welcome,
    },
    /// The server refused the client.
    Refused(Refusal),
}

impl Answer {
    /// The bytes on the wire, before they are sealed.
    pub fn to_bytes(&self) -> [u8; ANSWER_BYTES] {
        let mut bytes = [0; ANSWER_BYTES];
        let mut rest = bytes.as_mut_slice();
        match self {
            Self::Refused(refusal) => put(&mut rest, &[*refusal as u8]),
            Self::Welcome { index, welcome } => put_welcome(&mut rest, *index, welcome),
        }
        bytes
    }

    /// Reads the opened payload.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, Discard> {
        let [status, cipher, count, flags] = take(&mut bytes)?;
        match status {
            STATUS_WELCOME => {}
            1 => return Ok(Self::Refused(Refusal::Used)),
            2 => return Ok(Self::Refused(Refusal::Expired)),
            3 => return Ok(Self::Refused(Refusal::Refused)),
            4 => return Ok(Self::Refused(Refusal::KeyExpired)),
            _ => return Err(Discard::HandshakeMalformed),
        }
        let index = u32::from_be_bytes(take(&mut bytes)?);
        let epoch = u32::from_be_bytes(take(&mut bytes)?);
        let mtu = u16::from_be_bytes(take(&mut bytes)?);
        let [route_count, _] = take(&mut bytes)?;
        if usize::from(count) + usize::from(route_count) > MAX_ADDRESSES {
            return Err(Discard::HandshakeMalformed);
        }
        let mut prefixes = |count| (0..count).map(|_| take_prefix(&mut bytes)).collect::<Result<_, _>>();
        let (addresses, routes) = (prefixes(count)?, prefixes(route_count)?);
        let cipher = Cipher::from_number(cipher).ok_or(Discard::HandshakeMalformed)?;
        let exchanges = flags & FLAG_EXCHANGES != 0;
        let welcome = Welcome { cipher, epoch, mtu: (mtu != 0).then_some(mtu), addresses, routes, exchanges };
        Ok(Self::Welcome { index, welcome })
    }
}

fn put_welcome(rest: &mut &mut [u8], index: u32, welcome: &Welcome) {
    let addresses = || welcome.addresses.iter().take(MAX_ADDRESSES);
    let routes = || welcome.routes.iter().take(MAX_ADDRESSES - addresses().count());
    let count = |prefixes: &mut dyn Iterator<Item = &Prefix>| prefixes.fold(0, |count: u8, _| count + 1);
    let (count, route_count) = (count(&mut addresses()), count(&mut routes()));
    let flags = if welcome.exchanges { FLAG_EXCHANGES } else { 0 };
    put(rest, &[STATUS_WELCOME, welcome.cipher as u8, count, flags]);
    put(rest, &index.to_be_bytes());
    put(rest, &welcome.epoch.to_be_bytes());
    put(rest, &welcome.mtu.unwrap_or(0).to_be_bytes());
    put(rest, &[route_count, 0]);
    for prefix in addresses().chain(routes()) {
        let (family, address) = match prefix.address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                (FAMILY_V4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            IpAddr::V6(address) => (FAMILY_V6, address.octets()),
        };
        put(rest, &[family, prefix.length]);
        put(rest, &address);
    }
}

fn take_prefix(bytes: &mut &[u8]) -> Result<Prefix, Discard> {
    let [family, length] = take(bytes)?;
    let octets = take::<16>(bytes)?;
    let (address, bits) = match family {
        FAMILY_V4 => {
            let [a, b, c, d, ..] = octets;
            (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), 32)
        }
        FAMILY_V6 => (IpAddr::V6(Ipv6Addr::from(octets)), 128),
        _ => return Err(Discard::HandshakeMalformed),
    };
    if length > bits {
        return Err(Discard::HandshakeMalformed);
    }
    Ok(Prefix { address, length })
}

/// Writes `bytes` to the front of `rest`. The fixed layouts never exceed it.
fn put(rest: &mut &mut [u8], bytes: &[u8]) {
    let (place, behind) = std::mem::take(rest).split_at_mut(bytes.len());
    place.copy_from_slice(bytes);
    *rest = behind;
}

pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Discard> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(Discard::HandshakeMalformed)?;
    *bytes = rest;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::handshake::tests::hex;

    /// The vector of PROTOCOL.md.
    #[test]
    fn hello_vector() {
        let hello = Hello {
            stamp: Stamp { run: 1_700_000_000, elapsed_us: 2_000_000 },
            epoch: 0x0102_0304,
            aes_fast: true,
            claim: Some(Claim::Invitation { id: InvitationId([0xcd; 16]), proof: [0xab; 16] }),
            secret: None,
        };
        let head = "000000006553f100 00000000001e8480 01020304";
        let (proof, id) = ("ab".repeat(16), "cd".repeat(16));
        let bytes = hex(&format!("{head} 05 000000 {proof} {id} {}", "00".repeat(24)));
        assert_eq!(hello.to_bytes().as_slice(), bytes);
        assert_eq!(Hello::parse(&bytes), Ok(hello.clone()));
        let mut other = bytes.clone();
        for (flags, result) in [
            (0, Ok(None)),
            (2, Err(Discard::TokenOutdated)),
            (6, Err(Discard::TokenOutdated)),
            (12, Err(Discard::HandshakeMalformed)),
            (0xf0, Ok(None)),
        ] {
            other[20] = flags;
            assert_eq!(Hello::parse(&other).map(|hello| hello.claim), result, "{flags}");
        }
        let old = PublicKey([0xef; 32]);
        let hello = Hello { claim: Some(Claim::Rotation { old, proof: [0xab; 16] }), ..hello };
        let bytes = hex(&format!("{head} 09 000000 {proof} {} {}", "ef".repeat(32), "00".repeat(8)));
        assert_eq!(hello.to_bytes().as_slice(), bytes);
        assert_eq!(Hello::parse(&bytes), Ok(hello.clone()));
        let mut named = bytes.clone();
        named[72..].fill(0xef);
        let secret = Some(SecretName([0xef; 8]));
        assert_eq!(Hello { secret, ..hello.clone() }.to_bytes().as_slice(), named);
        assert_eq!(Hello::parse(&named), Ok(Hello { secret, ..hello }));
    }

    /// The vector of PROTOCOL.md.
    #[test]
    fn welcome_vector() {
        let welcome = Welcome {
            cipher: Cipher::Aes256Gcm,
            epoch: 0x0a0b_0c0d,
            mtu: Some(1_400),
            addresses: vec![
                Prefix { address: "10.9.0.2".parse().unwrap(), length: 24 },
                Prefix { address: "fd00::2".parse().unwrap(), length: 64 },
            ],
            routes: Vec::new(),
            exchanges: false,
        };
        let bytes = hex(&format!(
            "00 01 02 00 05060708 0a0b0c0d 0578 0000 04 18 0a090002{} 06 40 fd{}02 {}",
            "00".repeat(12),
            "00".repeat(14),
            "00".repeat(44)
        ));
        let mut exchanging = bytes.clone();
        exchanging[3] = 1;
        let both = Welcome { exchanges: true, ..welcome.clone() };
        assert_eq!(Answer::Welcome { index: 0x0506_0708, welcome: both }.to_bytes().as_slice(), exchanging);
        let answer = Answer::Welcome { index: 0x0506_0708, welcome };
        assert_eq!(answer.to_bytes().as_slice(), bytes);
        assert_eq!(Answer::parse(&bytes), Ok(answer));
        for (place, value) in [(0, 5), (1, 0), (1, 3), (2, 5), (14, 3), (16, 5), (17, 33), (35, 129)] {
            let mut wrong = bytes.clone();
            wrong[place] = value;
            assert_eq!(Answer::parse(&wrong), Err(Discard::HandshakeMalformed), "{place}: {value}");
        }
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        prop_oneof![
            (any::<[u8; 4]>(), 0u8..=32).prop_map(|(a, length)| Prefix { address: a.into(), length }),
            (any::<[u8; 16]>(), 0u8..=128).prop_map(|(a, length)| Prefix { address: a.into(), length }),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let flags = bytes.get(20).map_or(0, |flags| flags & 0x0e);
            let needed = match flags {
                0 => 40,
                4 => 56,
                8 => 72,
                _ => usize::MAX,
            };
            prop_assert_eq!(Hello::parse(&bytes).is_ok(), bytes.len() >= needed);
            if let Ok(answer) = Answer::parse(&bytes) {
                prop_assert_eq!(Answer::parse(&answer.to_bytes()), Ok(answer));
            }
        }

        #[test]
        fn a_hello_survives(
            run: u64, elapsed_us: u64, epoch: u32, aes_fast: bool, proof: [u8; 16], id: Option<[u8; 16]>, old: Option<[u8; 32]>,
            name: [u8; 8],
        ) {
            let stamp = Stamp { run, elapsed_us };
            let invitation = id.map(|id| Claim::Invitation { id: InvitationId(id), proof });
            let claim = invitation.or(old.map(|old| Claim::Rotation { old: PublicKey(old), proof }));
            let secret = Some(SecretName(name)).filter(|_| name != [0; 8]);
            let hello = Hello { stamp, epoch, aes_fast, claim, secret };
            prop_assert_eq!(Hello::parse(hello.to_bytes().as_slice()), Ok(hello));
        }

        #[test]
        fn an_answer_survives(
            index: u32, aes: bool, exchanges: bool, epoch: u32, mtu in 0u16..3, addresses in proptest::collection::vec(prefix(), 0..6),
            routes in proptest::collection::vec(prefix(), 0..6),
        ) {
            let cipher = if aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
            let mtu = (mtu != 0).then_some(mtu);
            let mut welcome = Welcome { cipher, epoch, mtu, addresses, routes, exchanges };
            let bytes = Answer::Welcome { index, welcome: welcome.clone() }.to_bytes();
            welcome.addresses.truncate(MAX_ADDRESSES);
            welcome.routes.truncate(MAX_ADDRESSES - welcome.addresses.len());
            prop_assert_eq!(Answer::parse(&bytes), Ok(Answer::Welcome { index, welcome }));
        }

        #[test]
        fn stamps_order_by_run_first(a: (u8, u8), b: (u8, u8)) {
            let stamp = |(run, elapsed): (u8, u8)| Stamp { run: run.into(), elapsed_us: elapsed.into() };
            prop_assert_eq!(stamp(a).cmp(&stamp(b)), a.cmp(&b));
        }
    }

    #[test]
    fn refusals_survive() {
        for refusal in [Refusal::Used, Refusal::Expired, Refusal::Refused, Refusal::KeyExpired] {
            let answer = Answer::Refused(refusal);
            assert_eq!(Answer::parse(&answer.to_bytes()), Ok(answer));
        }
    }
}
