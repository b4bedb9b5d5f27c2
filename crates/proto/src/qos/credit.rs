//! Sparse credit: how much a flow may send ahead of the bulk flows.
//!
//! The rule, to be checked without the code. A packet is paid for when it arrives:
//! - from what its flow has **earned**: min(1 Mbit/s, drain rate / (2 × active flows)), saved up to
//!   [`BURST_BYTES`];
//! - and, while the flow is new, from its **grant** of [`BURST_BYTES`] (an initial window), which is also
//!   taken out of a pool that all new flows share: it refills at a quarter of the drain rate and holds 100 ms
//!   of that rate's whole, at least four bursts.
//!
//! A packet that cannot be paid ends the grant and makes its flow bulk. So over any time T all sparse flows
//! together send at most `pool + (1/2 + 1/4) × drain × T`: the bulk tier always keeps a quarter, however many
//! sparse or new flows there are. Without the pool, 300 new flows at once would hold a 10 Mbit/s bond for
//! 3.6 s.
//!
//! Where the drain rate is unknown, [`DRAIN_RATE_ASSUMED`] stands in: too low a guess makes a flow bulk too
//! early, which costs it latency; too high a guess starves the others.
//!
//! Credit is counted in 1/2^32 of a byte, so that a refill is one multiplication and loses nothing at small
//! rates and short spans.
//!
//! Deliberately unknown: tiers, packets. Source of the constants: RFC 6928 (initial window of ten segments);
//! the rates are ours.

use std::time::Duration;

use crate::Instant;
use crate::units::BitRate;

/// An initial window: ten full segments (RFC 6928), rounded up.
pub(super) const BURST_BYTES: usize = 15_000;

/// No flow above this is sparse, however fast the links are: a voice call with video stays below, a
/// stream of acknowledgements for a fast download does not.
const SPARSE_RATE_MAX: BitRate = BitRate::from_bps(1_000_000);

/// The drain rate before the links' rates are known: a slow bond.
const DRAIN_RATE_ASSUMED: BitRate = BitRate::from_bps(10_000_000);

/// How much of the drain rate the pool holds.
const POOL_SPAN: Duration = Duration::from_millis(100);

/// The pool holds at least this many bursts.
const POOL_BURSTS_MIN: u64 = 4;

/// Longest span that one refill covers; every bucket is full by then or earns next to nothing.
const REFILL_SPAN_MAX: Duration = Duration::from_secs(10);

const SHIFT: u32 = 32;

/// `bytes` as credit; saturates at 4 GiB.
fn credit(bytes: u64) -> u64 {
    bytes.min(u64::from(u32::MAX)) << SHIFT
}

/// `rate` as credit per nanosecond; saturates far above any link.
fn credit_per_nano(rate: BitRate) -> u64 {
    u64::try_from((u128::from(rate.as_bps()) << SHIFT) / 8_000_000_000).unwrap_or(u64::MAX)
}

/// Adds what `per_nano` earns from `since` to `now`.
fn refill(balance: &mut u64, since: &mut Instant, now: Instant, per_nano: u64, max: u64) {
    let span = now.saturating_since(*since).min(REFILL_SPAN_MAX);
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    *balance = balance.saturating_add(nanos.saturating_mul(per_nano)).min(max);
    *since = (*since).max(now);
}

/// What all flows of a queue have in common: the drain rate, and the new flows' pool.
#[derive(Debug)]
pub(super) struct Pool {
    balance: u64,
    max: u64,
    refilled: Instant,
    drain_per_nano: u64,
    sparse_per_nano_max: u64,
}

impl Pool {
    pub(super) fn new(drain: Option<BitRate>) -> Self {
        let mut pool = Self {
            balance: 0,
            max: 0,
            refilled: Instant::ZERO,
            drain_per_nano: 0,
            sparse_per_nano_max: credit_per_nano(SPARSE_RATE_MAX),
        };
        pool.set_drain_rate(drain);
        pool.balance = pool.max;
        pool
    }

    /// Follows the links' total rate.
    pub(super) fn set_drain_rate(&mut self, drain: Option<BitRate>) {
        let drain = drain.unwrap_or(DRAIN_RATE_ASSUMED);
        self.drain_per_nano = credit_per_nano(drain);
        self.max = credit(drain.bytes_in(POOL_SPAN).max(POOL_BURSTS_MIN * BURST_BYTES as u64));
        self.balance = self.balance.min(self.max);
    }

    /// What one of `flows` active flows earns per nanosecond.
    fn earned_per_nano(&self, flows: usize) -> u64 {
        let flows = u64::try_from(flows).unwrap_or(u64::MAX).max(1);
        (self.drain_per_nano / flows.saturating_mul(2)).min(self.sparse_per_nano_max)
    }
}

/// One flow's credit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credit {
    earned: u64,
    granted: u64,
    refilled: Instant,
}

impl Credit {
    /// A new flow's: nothing earned, the whole grant.
    pub(super) fn new(now: Instant) -> Self {
        Self { earned: 0, granted: credit(BURST_BYTES as u64), refilled: now }
    }

    /// Earns what is due; `flows` are active, this one included.
    pub(super) fn earn(&mut self, now: Instant, pool: &Pool, flows: usize) {
        let max = credit(BURST_BYTES as u64);
        refill(&mut self.earned, &mut self.refilled, now, pool.earned_per_nano(flows), max);
    }

    /// Whether half a burst has been saved up: enough for a flow that was bulk to be sparse again.
    pub(super) fn has_recovered(&self) -> bool {
        self.earned >= credit(BURST_BYTES as u64 / 2)
    }

    /// Pays for a packet. `false`: the credit does not cover it, and all of it is gone.
    pub(super) fn try_spend(&mut self, bytes: usize, pool: &mut Pool, now: Instant) -> bool {
        let cost = credit(u64::try_from(bytes).unwrap_or(u64::MAX));
        if let Some(left) = self.earned.checked_sub(cost) {
            self.earned = left;
            return true;
        }
        let rest = cost - self.earned;
        self.earned = 0;
        if self.granted < rest {
            self.granted = 0;
            return false;
        }
        refill(&mut pool.balance, &mut pool.refilled, now, pool.drain_per_nano / 4, pool.max);
        if pool.balance < rest {
            self.granted = 0;
            return false;
        }
        pool.balance -= rest;
        self.granted -= rest;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn mbps(rate: u64) -> Option<BitRate> {
        Some(BitRate::from_bps(rate * 1_000_000))
    }

    /// Bytes that a flow can spend at `now` in packets of 100 bytes.
    fn spend_all(credit: &mut Credit, pool: &mut Pool, now: Instant) -> usize {
        let mut spent = 0;
        while credit.try_spend(100, pool, now) {
            spent += 100;
        }
        spent
    }

    #[test]
    fn a_new_flow_has_one_burst_and_then_earns_a_megabit() {
        let mut pool = Pool::new(mbps(100));
        let mut credit = Credit::new(at(0));
        assert_eq!(spend_all(&mut credit, &mut pool, at(0)), BURST_BYTES);
        credit.earn(at(40), &pool, 1);
        // 1 Mbit/s for 40 ms: 5000 bytes, less what rounding the rate down takes away.
        assert_eq!(spend_all(&mut credit, &mut pool, at(40)), 4_900);
        credit.earn(at(100_000), &pool, 1);
        assert_eq!(spend_all(&mut credit, &mut pool, at(100_000)), BURST_BYTES);
    }

    #[test]
    fn earnings_are_half_the_fair_share() {
        let mut pool = Pool::new(mbps(10));
        let mut credit = Credit::new(at(0));
        spend_all(&mut credit, &mut pool, at(0));
        credit.earn(at(1_000), &pool, 100);
        // 10 Mbit/s / (2 × 100) for 1 s: 6250 bytes.
        assert!(!credit.has_recovered());
        assert_eq!(spend_all(&mut credit, &mut pool, at(1_000)), 6_200);
        credit.earn(at(2_300), &pool, 100);
        assert!(credit.has_recovered());
    }

    #[test]
    fn many_short_refills_earn_as_much_as_one_long() {
        let mut pool = Pool::new(mbps(10));
        let mut credit = Credit::new(at(0));
        spend_all(&mut credit, &mut pool, at(0));
        for micros in 0..1_000_000 {
            credit.earn(Instant::from_nanos(micros * 1_000), &pool, 1_000);
        }
        assert_eq!(spend_all(&mut credit, &mut pool, at(1_000)), 600);
    }

    #[test]
    fn new_flows_together_get_the_pool_and_a_quarter_of_the_rate() {
        let mut pool = Pool::new(mbps(10));
        let mut storm = |ms: u64| -> usize {
            (0..300).map(|_| spend_all(&mut Credit::new(at(ms)), &mut pool, at(ms))).sum()
        };
        assert_eq!(storm(0), 125_000);
        // A quarter of 10 Mbit/s for 100 ms: 31,250 bytes.
        let later: usize = storm(100);
        assert!((30_000..=31_250).contains(&later), "{later}");
    }

    #[test]
    fn extreme_rates_and_times_saturate() {
        let mut pool = Pool::new(Some(BitRate::from_bps(u64::MAX)));
        let mut credit = Credit::new(at(0));
        credit.earn(Instant::from_nanos(u64::MAX), &pool, 0);
        assert!(!credit.try_spend(usize::MAX, &mut pool, Instant::from_nanos(u64::MAX)));
        pool.set_drain_rate(Some(BitRate::from_bps(0)));
        credit.earn(at(0), &pool, usize::MAX);
        assert!(!credit.try_spend(100, &mut pool, at(0)));
    }
}
