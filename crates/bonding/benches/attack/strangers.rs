//! The datagrams of an attacker without a key.

use std::net::{Ipv4Addr, SocketAddrV4};

use bonding_lab::addr;
use bonding_proto::crypto::keys::{PrivateKey, PublicKey};
use bonding_proto::crypto::rng::SecretRng;
use bonding_proto::handshake::{Hello, Initiator, Stamp};

use crate::wire::Seen;

/// The server's first port.
pub(crate) const PORT: u16 = 9_001;

/// Bytes of a sealed datagram's header.
const HEADER: usize = 16;

/// A kind of datagram that the server must discard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Garbage,
    Truncated,
    Replayed,
    BitFlipped,
    WrongSession,
    ForgedSource,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Garbage,
        Self::Truncated,
        Self::Replayed,
        Self::BitFlipped,
        Self::WrongSession,
        Self::ForgedSource,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Truncated => "truncated",
            Self::Replayed => "replayed",
            Self::BitFlipped => "bit-flipped",
            Self::WrongSession => "wrong session",
            Self::ForgedSource => "forged source",
        }
    }

    /// One datagram made from `sample`, a datagram of the client: its source, its destination, its
    /// bytes.
    pub(crate) fn make(self, sample: &Seen, rng: &mut SecretRng) -> (SocketAddrV4, SocketAddrV4, Vec<u8>) {
        let mut payload = sample.payload.clone();
        let mut source = stranger(rng);
        let at =
            |rng: &mut SecretRng, length: usize| usize::try_from(rng.next_u64()).unwrap_or(0) % length.max(1);
        match self {
            Self::Garbage => {
                payload.resize(at(rng, 1_400), 0);
                rng.fill(&mut payload);
            }
            Self::Truncated => payload.truncate(at(rng, sample.payload.len())),
            Self::Replayed => {}
            Self::BitFlipped => forge(&mut payload, rng),
            // The receiver index.
            Self::WrongSession => payload.iter_mut().skip(4).take(4).for_each(|byte| *byte ^= 0x5a),
            Self::ForgedSource => {
                source = sample.source;
                forge(&mut payload, rng);
            }
        }
        (source, sample.target, payload)
    }
}

/// A counter that the server has not seen, so that the server must decrypt the datagram, and one
/// flipped bit.
fn forge(payload: &mut [u8], rng: &mut SecretRng) {
    if let Some(byte) = payload.get_mut(11) {
        *byte ^= 1;
    }
    let choice = usize::try_from(rng.next_u32()).unwrap_or(0);
    let length = payload.len().saturating_sub(HEADER).max(1);
    if let Some(byte) = payload.get_mut(HEADER + choice / 8 % length) {
        *byte ^= 1 << (choice % 8);
    }
}

/// A random source address.
pub(crate) fn stranger(rng: &mut SecretRng) -> SocketAddrV4 {
    let [a, b, c, d] = rng.next_u32().to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(100, 64 + a % 64, b, c), 1_024 + u16::from(d))
}

/// First messages of clients that know the server's key and are not enrolled.
pub(crate) fn initiations(server: &PublicKey, count: u8, rng: &mut SecretRng) -> Vec<Vec<u8>> {
    let mut make = |number: u8| {
        let identity = PrivateKey::from_bytes([number; 32]);
        let hello = Hello {
            stamp: Stamp { run: 1, elapsed_us: 0 },
            epoch: 1,
            aes_fast: true,
            claim: None,
            secret: None,
        };
        let mut datagram = Vec::new();
        let index = rng.next_u32();
        Initiator::new(&identity, server, None, index, &hello, rng).put(0, None, &mut datagram);
        datagram
    };
    (1..=count).map(&mut make).collect()
}

/// The server's address on the internet.
pub(crate) fn server() -> SocketAddrV4 {
    SocketAddrV4::new(addr::SERVER_V4, PORT)
}
