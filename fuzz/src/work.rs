//! The bound on work and memory: what a machine touches and allocates follows the bytes that came
//! in, whatever they say (docs/decisions/0057-work-follows-the-bytes-that-came-in.md).

use std::alloc::System;
use std::time::Duration;

use bonding_proto::client::Client;
use bonding_proto::stats::SessionStats;
use bonding_proto::{Endpoint, Instant, Session};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Places touched for each byte received. Chosen: one frame of eleven bytes makes a session look at
/// all of 32 links for five reasons, or moves half of a window's pages.
const TOUCHED_PER_BYTE: u64 = 48;
/// Places for each datagram sent and each packet from TUN: it is found again when its fate is told.
const TOUCHED_PER_SENT: u64 = 16;
/// Places for each call with the time: links may change then, each for several reasons.
const TOUCHED_PER_TICK: u64 = 1_000;
/// Places that restoring saves up: 4 MiB of arithmetic, for each session.
const TOUCHED_SAVED_UP: u64 = 262_144 * 3;
/// Looks at a slot in 10 µs, each of which looks at all links.
const TOUCHED_PER_REVIEW: u64 = 34;

/// Bytes allocated for each byte received. Chosen: a page of held packets and a record for the
/// least frame, twice.
const ALLOCATED_PER_BYTE: u64 = 96;
/// Bytes allocated for a datagram in any case: what its session, links and keys begin with.
const ALLOCATED_PER_SESSION: u64 = 8 << 20;

/// A machine whose work is counted.
pub(crate) trait Weighed {
    /// The figures of its sessions.
    fn figures(&self, now: Instant) -> Vec<SessionStats>;

    /// Places touched so far.
    fn touched(&self, now: Instant) -> u64 {
        self.figures(now).iter().map(|stats| stats.touched).sum()
    }

    /// Packets held now.
    fn held(&self, now: Instant) -> usize {
        self.figures(now).iter().map(|stats| stats.reorder_held).sum()
    }
}

impl Weighed for Session {
    fn figures(&self, now: Instant) -> Vec<SessionStats> {
        vec![self.stats(now)]
    }
}

impl Weighed for Endpoint {
    fn figures(&self, now: Instant) -> Vec<SessionStats> {
        self.stats(now).into_iter().map(|(_, stats)| stats).collect()
    }
}

impl Weighed for Client {
    fn figures(&self, now: Instant) -> Vec<SessionStats> {
        self.session().map(|session| session.stats(now)).into_iter().collect()
    }
}

/// Counts what came in and what it took.
#[derive(Debug)]
pub(crate) struct Meter {
    began: Instant,
    bytes: u64,
    sent: u64,
    ticks: u64,
    /// Slots that may have been due, over all ticks.
    due: u64,
    allocated: u64,
}

impl Meter {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { began: now, bytes: 0, sent: 0, ticks: 0, due: 0, allocated: 0 }
    }

    /// Runs what takes a datagram of `bytes`.
    pub(crate) fn take<T>(&mut self, bytes: usize, handle: impl FnOnce() -> T) -> T {
        let before = ALLOCATOR.stats().bytes_allocated;
        let result = handle();
        self.allocated += (ALLOCATOR.stats().bytes_allocated - before) as u64;
        self.bytes += bytes as u64;
        result
    }

    /// Bytes that came.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A datagram was sent, or a packet taken from TUN.
    pub(crate) const fn on_sent(&mut self) {
        self.sent += 1;
    }

    /// The machine was given the time while it held packets of at most `held` slots.
    pub(crate) const fn on_tick(&mut self, held: usize) {
        self.ticks += 1;
        self.due += held as u64;
    }

    /// # Panics
    /// If the machine touched `touched` places, or allocated, more than what came in pays for.
    pub(crate) fn check(&self, touched: u64, now: Instant) {
        let elapsed = now.saturating_since(self.began).min(Duration::from_secs(3_600)).as_micros();
        let looks = u64::try_from(elapsed / 10).unwrap_or(u64::MAX).min(self.bytes) + self.due;
        let paid = self.bytes * TOUCHED_PER_BYTE
            + self.sent * TOUCHED_PER_SENT
            + self.ticks * TOUCHED_PER_TICK
            + looks * TOUCHED_PER_REVIEW
            + TOUCHED_SAVED_UP;
        assert!(touched <= paid, "{touched} places touched, {paid} paid for: {self:?}");
        let paid = self.bytes * ALLOCATED_PER_BYTE + ALLOCATED_PER_SESSION;
        assert!(self.allocated <= paid, "{} bytes allocated, {paid} paid for: {self:?}", self.allocated);
    }
}
