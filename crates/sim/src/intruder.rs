//! A second client of the server that attacks: it has keys of its own, and sends the worst
//! datagrams that it can build ([`bonding_testkit::hostile`]), each kind for a while.
//!
//! Its datagrams reach the server at once, over no link, and so do the server's answers reach it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bonding_proto::crypto::keys::{PrivateKey, PublicKey};
use bonding_proto::units::BitRate;
use bonding_proto::{Datagram, Instant, Path};
use bonding_testkit::hostile::{Attack, Hit, Hostile};
use bytes::BytesMut;

use crate::inet;
use crate::outer::{SERVER_OUTER, UDP_OVERHEAD, socket};

/// Its outer address; it uses two ports from here on.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
const PORT: u16 = 40_000;
/// Between two times at which it sends.
const STEP: Duration = Duration::from_millis(1);
/// It attacks in another way after this.
const TURN: Duration = Duration::from_millis(300);

/// See the module.
#[derive(Debug)]
pub struct Intruder {
    hostile: Hostile,
    rate: BitRate,
    /// The attack that it began with.
    first: usize,
    next_at: Instant,
    /// Bytes that it may send now.
    credit: u64,
    /// Bytes of UDP payload that it sent.
    bytes: u64,
}

/// Its key.
pub fn key() -> PrivateKey {
    PrivateKey::from_bytes([66; 32])
}

impl Intruder {
    /// Attacks the server with this key at `rate`, over so many links; `first`: with which kind it
    /// begins.
    pub fn new(server: PublicKey, rate: BitRate, links: u8, first: usize) -> Self {
        Self {
            hostile: Hostile::new(key(), server, inet::INTRUDER, links),
            rate,
            first,
            next_at: Instant::ZERO,
            credit: 0,
            bytes: 0,
        }
    }

    /// Bytes of UDP payload that it sent.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the address is one of its own.
    pub(crate) fn is_at(&self, remote: SocketAddr) -> bool {
        remote.ip() == IpAddr::V4(ADDRESS)
    }

    /// Takes a datagram of the server.
    pub(crate) fn handle(&mut self, datagram: &[u8], now: Instant) {
        self.hostile.handle(datagram, now);
    }

    /// When [`Self::poll`] has something.
    pub(crate) const fn poll_timeout(&self) -> Instant {
        self.next_at
    }

    /// The next datagram for the server.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Datagram> {
        if now < self.next_at {
            return None;
        }
        if self.credit == 0 {
            self.credit = self.rate.as_bps() * u64::try_from(STEP.as_micros()).unwrap_or(0) / 8_000_000;
        }
        let hit = self.hostile.upkeep(now).or_else(|| self.hostile.attack(self.attack_now(now), now));
        let Some(Hit { port, data }) = hit else {
            (self.next_at, self.credit) = (now + STEP, 0);
            return None;
        };
        self.bytes += data.len() as u64;
        self.credit = self.credit.saturating_sub(data.len() as u64 + u64::from(UDP_OVERHEAD));
        if self.credit == 0 {
            self.next_at = now + STEP;
        }
        let remote = SocketAddr::from((ADDRESS, PORT + u16::from(port)));
        let path = Path { socket: socket(0), remote, local: Some(IpAddr::V4(SERVER_OUTER)) };
        Some(Datagram::new(path, BytesMut::from(data.as_slice())))
    }

    fn attack_now(&self, now: Instant) -> Attack {
        let turn_us = u64::try_from(TURN.as_micros()).unwrap_or(1);
        let turn = usize::try_from(now.as_micros() / turn_us).unwrap_or(0);
        let at = (self.first + turn) % Attack::ALL.len();
        Attack::ALL.get(at).copied().unwrap_or(Attack::Empty)
    }
}
