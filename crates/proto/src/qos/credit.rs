//! Sparse credit: how much a flow may send ahead of the bulk flows.
//!
//! A packet is paid for when it arrives:
//! - from its flow's **earnings**: min(1 Mbit/s, drain rate / (2 × active flows)), saved up to
//!   [`BURST_BYTES`];
//! - and, while the flow is new, from its **grant** of [`BURST_BYTES`] (an initial window). The
//!   grant is also taken from a pool that all new flows share. The pool refills at a quarter of the
//!   drain rate and holds 100 ms of the drain rate, at least four bursts.
//!
//! A packet that cannot be paid ends the grant and makes its flow bulk. Over any time T all sparse
//! flows together send at most `pool + (1/2 + 1/4) × drain × T`. The bulk tier therefore always
//! keeps a quarter, however many sparse or new flows there are. Without the pool, 300 new flows at
//! once would hold a 10 Mbit/s bond for 3.6 s.
//!
//! A *realtime* flow earns an equal share of half of the drain rate among the realtime flows, saved
//! up for 100 ms and at least a burst. Their mean use over the last second is subtracted
//! from the drain rate of sparse flows and pool. While realtime flows use half of the rate, sparse
//! flows have 3/4 of the other half, and an eighth of the total remains for bulk.
//!
//! An *interactive* packet earns without the limit of 1 Mbit/s: the acknowledgements of a fast
//! download stay sparse.
//!
//! While the drain rate is unknown, [`DRAIN_RATE_ASSUMED`] replaces it. Too low a value makes a
//! flow bulk too early, which costs it latency; too high a value starves the other flows.
//!
//! Credit is counted in 1/2^32 of a byte, so that a refill is one multiplication and exact at low
//! rates and short spans. The module does not know tiers or packets.

use std::time::Duration;

use crate::Instant;
use crate::units::BitRate;

/// A burst in bytes: an initial window of ten full segments (RFC 6928), rounded up.
pub(super) const BURST_BYTES: usize = 15_000;

/// No flow above this rate is sparse, however fast the links are. Chosen: a voice call with video
/// is below it, a fast download's acknowledgements are above it.
const SPARSE_RATE_MAX: BitRate = BitRate::from_bps(1_000_000);

/// The drain rate before the links' rates are known. Chosen: that of a slow bond.
const DRAIN_RATE_ASSUMED: BitRate = BitRate::from_bps(10_000_000);

/// The pool holds the drain rate of this time. Chosen: the delay that a burst of new flows may
/// cause.
const POOL_SPAN: Duration = Duration::from_millis(100);

/// The pool holds at least this many bursts. Chosen: a page load opens a few connections at once.
const POOL_BURSTS_MIN: u64 = 4;

/// The time over which the use of realtime flows is averaged, in µs. Chosen: as long as the
/// classifier's evidence by traffic.
const REALTIME_SPAN_US: u64 = 1_000_000;

/// The longest span that one refill covers. Every bucket is full by then, or earns next to nothing.
const REFILL_SPAN_MAX: Duration = Duration::from_secs(10);

/// Bits of a credit's fraction of a byte.
const SHIFT: u32 = 32;

/// `bytes` as credit; saturates at 4 GiB.
fn credit(bytes: u64) -> u64 {
    bytes.min(u64::from(u32::MAX)) << SHIFT
}

/// `rate` as credit per nanosecond; saturates far above the rate of any link.
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

/// The state that all flows of a queue share: the drain rate, and the new flows' pool.
#[derive(Debug)]
pub(super) struct Pool {
    balance: u64,
    max: u64,
    refilled: Instant,
    drain_per_nano: u64,
    sparse_per_nano_max: u64,
    /// Bytes of realtime flows over the last [`REALTIME_SPAN_US`], as credit.
    realtime_used: u64,
    realtime_at: Instant,
}

/// A flow's earnings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Earning {
    per_nano: u64,
    /// The most that it may save up, in credit.
    max: u64,
}

impl Earning {
    /// The most bytes that the flow may save up, and have waiting.
    pub(super) fn burst_bytes(&self) -> usize {
        usize::try_from(self.max >> SHIFT).unwrap_or(usize::MAX)
    }
}

impl Pool {
    pub(super) fn new(drain: Option<BitRate>) -> Self {
        let mut pool = Self {
            balance: 0,
            max: 0,
            refilled: Instant::ZERO,
            drain_per_nano: 0,
            sparse_per_nano_max: credit_per_nano(SPARSE_RATE_MAX),
            realtime_used: 0,
            realtime_at: Instant::ZERO,
        };
        pool.set_drain_rate(drain);
        pool.balance = pool.max;
        pool
    }

    /// Sets the links' total rate.
    pub(super) fn set_drain_rate(&mut self, drain: Option<BitRate>) {
        let drain = drain.unwrap_or(DRAIN_RATE_ASSUMED);
        self.drain_per_nano = credit_per_nano(drain);
        self.max = credit(drain.bytes_in(POOL_SPAN).max(POOL_BURSTS_MIN * BURST_BYTES as u64));
        self.balance = self.balance.min(self.max);
    }

    /// The earnings of one of `flows` active flows.
    pub(super) fn sparse(&self, flows: usize, now: Instant) -> Earning {
        let all = self.interactive(flows, now);
        Earning { per_nano: all.per_nano.min(self.sparse_per_nano_max), ..all }
    }

    /// The earnings of an interactive packet's flow.
    pub(super) fn interactive(&self, flows: usize, now: Instant) -> Earning {
        let per_nano = self.left_per_nano(now) / count(flows).saturating_mul(2);
        Earning { per_nano, max: credit(BURST_BYTES as u64) }
    }

    /// The earnings of one of `flows` realtime flows.
    pub(super) fn realtime(&self, flows: usize) -> Earning {
        let per_nano = self.drain_per_nano / 2 / count(flows);
        let nanos = u64::try_from(POOL_SPAN.as_nanos()).unwrap_or(u64::MAX);
        Earning { per_nano, max: per_nano.saturating_mul(nanos).max(credit(BURST_BYTES as u64)) }
    }

    /// Notes a packet accepted from a realtime flow.
    pub(super) fn on_realtime(&mut self, bytes: usize, now: Instant) {
        self.realtime_used = self.realtime_lately(now).saturating_add(credit(bytes as u64));
        self.realtime_at = self.realtime_at.max(now);
    }

    /// The recent use of realtime flows, which falls linearly.
    fn realtime_lately(&self, now: Instant) -> u64 {
        if self.realtime_used == 0 {
            return 0;
        }
        let span = u64::try_from(now.saturating_since(self.realtime_at).as_micros()).unwrap_or(u64::MAX);
        let left = REALTIME_SPAN_US.saturating_sub(span);
        u64::try_from(u128::from(self.realtime_used) * u128::from(left) / u128::from(REALTIME_SPAN_US))
            .unwrap_or(u64::MAX)
    }

    /// The drain rate without the use of realtime flows; at least half of it.
    fn left_per_nano(&self, now: Instant) -> u64 {
        let used = self.realtime_lately(now) / (REALTIME_SPAN_US * 1_000);
        self.drain_per_nano - used.min(self.drain_per_nano / 2)
    }
}

fn count(flows: usize) -> u64 {
    u64::try_from(flows).unwrap_or(u64::MAX).max(1)
}

/// One flow's credit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credit {
    earned: u64,
    granted: u64,
    refilled: Instant,
}

impl Credit {
    /// The credit of a new flow: nothing earned, the whole grant.
    pub(super) fn new(now: Instant) -> Self {
        Self { earned: 0, granted: credit(BURST_BYTES as u64), refilled: now }
    }

    /// Adds the earnings since the last call.
    pub(super) fn earn(&mut self, now: Instant, earning: &Earning) {
        refill(&mut self.earned, &mut self.refilled, now, earning.per_nano, earning.max);
    }

    /// Whether there are no earnings to add at `now`.
    pub(super) fn has_earned(&self, now: Instant) -> bool {
        now <= self.refilled
    }

    /// Whether half a burst is saved up: enough for a bulk flow to become sparse again.
    pub(super) fn has_recovered(&self, earning: &Earning) -> bool {
        self.earned >= earning.max / 2
    }

    /// Pays for a packet. `false`: the credit does not cover it, and is used up.
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
        let quarter = pool.left_per_nano(now) / 4;
        refill(&mut pool.balance, &mut pool.refilled, now, quarter, pool.max);
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
        credit.earn(at(40), &pool.sparse(1, at(40)));
        // 1 Mbit/s for 40 ms: 5000 bytes, less what rounding the rate down takes away.
        assert_eq!(spend_all(&mut credit, &mut pool, at(40)), 4_900);
        credit.earn(at(100_000), &pool.sparse(1, at(100_000)));
        assert_eq!(spend_all(&mut credit, &mut pool, at(100_000)), BURST_BYTES);
    }

    #[test]
    fn earnings_are_half_the_fair_share() {
        let mut pool = Pool::new(mbps(10));
        let mut credit = Credit::new(at(0));
        spend_all(&mut credit, &mut pool, at(0));
        credit.earn(at(1_000), &pool.sparse(100, at(1_000)));
        // 10 Mbit/s / (2 × 100) for 1 s: 6250 bytes.
        assert!(!credit.has_recovered(&pool.sparse(100, at(1_000))));
        assert_eq!(spend_all(&mut credit, &mut pool, at(1_000)), 6_200);
        credit.earn(at(2_300), &pool.sparse(100, at(2_300)));
        assert!(credit.has_recovered(&pool.sparse(100, at(2_300))));
    }

    #[test]
    fn many_short_refills_earn_as_much_as_one_long() {
        let mut pool = Pool::new(mbps(10));
        let mut credit = Credit::new(at(0));
        spend_all(&mut credit, &mut pool, at(0));
        for micros in 0..1_000_000 {
            let now = Instant::from_nanos(micros * 1_000);
            credit.earn(now, &pool.sparse(1_000, now));
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
        let end = Instant::from_nanos(u64::MAX);
        credit.earn(end, &pool.sparse(0, end));
        credit.earn(end, &pool.realtime(0));
        pool.on_realtime(usize::MAX, end);
        assert!(!credit.try_spend(usize::MAX, &mut pool, Instant::from_nanos(u64::MAX)));
        pool.set_drain_rate(Some(BitRate::from_bps(0)));
        credit.earn(at(0), &pool.sparse(usize::MAX, at(0)));
        assert!(!credit.try_spend(100, &mut pool, at(0)));
    }
}
