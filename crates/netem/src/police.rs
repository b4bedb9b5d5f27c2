//! A policer: a token bucket that drops what exceeds a rate, and queues nothing.
//!
//! Tokens come at the rate and are kept up to the burst. A packet that finds its size in tokens
//! takes them and passes; any other is dropped. A bucket is full at first. (RFC 2697 describes such
//! meters; this is one with a single rate and a single burst.)

use std::collections::BTreeMap;

use crate::flow::Flow;
use crate::time::{Time, nanos};

/// A policer's rate, burst and scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Police {
    /// Bits per second.
    pub rate_bps: u64,
    /// The most bytes that pass at once. A larger packet never passes.
    pub burst_bytes: u64,
    /// True: a bucket for each flow (by addresses, protocol and ports). False: one for the link.
    pub per_flow: bool,
}

impl Police {
    /// The bytes that pass a bucket in `from..to` at its rate; the burst is not among them.
    pub(crate) fn bytes_between(&self, from: Time, to: Time) -> u64 {
        let bytes = u128::from(self.rate_bps) * u128::from(nanos(to - from)) / 8_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// Tokens are counted as the shaper counts work, in bits × 10^9: a rate of `r` bit/s brings `r`
/// each nanosecond, without rounding.
const TOKENS_PER_BYTE: u128 = 8 * 1_000_000_000;

/// Buckets beyond which the full ones are looked for. Chosen: some kB.
const BUCKETS_MIN: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u128,
    since: Time,
}

impl Bucket {
    fn tokens_at(&self, now: Time, police: &Police) -> u128 {
        let fresh = u128::from(police.rate_bps) * u128::from(nanos(now - self.since));
        (self.tokens + fresh).min(full(police))
    }
}

const fn full(police: &Police) -> u128 {
    police.burst_bytes as u128 * TOKENS_PER_BYTE
}

/// The running policer of a pipe.
#[derive(Debug, Default)]
pub(crate) struct Policer {
    police: Option<Police>,
    /// A flow without a bucket has a full one. So only flows that sent within the time in which a
    /// bucket fills need one.
    buckets: BTreeMap<Flow, Bucket>,
    /// The number of buckets at which the full ones are removed.
    prune_at: usize,
}

impl Policer {
    pub(crate) fn new(police: Option<Police>) -> Self {
        Self { police, buckets: BTreeMap::new(), prune_at: BUCKETS_MIN }
    }

    /// Sets rate and burst; buckets keep their tokens as far as they have room.
    pub(crate) fn set(&mut self, police: Option<Police>, now: Time) {
        if let Some(old) = self.police {
            for bucket in self.buckets.values_mut() {
                *bucket = Bucket { tokens: bucket.tokens_at(now, &old), since: now };
            }
        }
        if police.is_none_or(|new| self.police.is_none_or(|old| old.per_flow != new.per_flow)) {
            self.buckets.clear();
        }
        self.police = police;
    }

    /// Whether a packet of this flow passes at `now`.
    pub(crate) fn passes(&mut self, flow: Flow, bytes: u64, now: Time) -> bool {
        let Some(police) = self.police else { return true };
        let flow = if police.per_flow { flow } else { Flow::default() };
        if self.buckets.len() >= self.prune_at {
            self.buckets.retain(|_, bucket| bucket.tokens_at(now, &police) < full(&police));
            self.prune_at = BUCKETS_MIN.max(self.buckets.len() * 2);
        }
        let bucket = self.buckets.entry(flow).or_insert(Bucket { tokens: full(&police), since: now });
        let tokens = bucket.tokens_at(now, &police);
        let rest = tokens.checked_sub(u128::from(bytes) * TOKENS_PER_BYTE);
        *bucket = Bucket { tokens: rest.unwrap_or(tokens), since: now };
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const POLICE: Police = Police { rate_bps: 8_000_000, burst_bytes: 3_000, per_flow: true };

    fn flow(port: u16) -> Flow {
        Flow::udp(([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], 443).into())
    }

    #[test]
    fn flows_that_rest_cost_no_memory() {
        let mut policer = Policer::new(Some(POLICE));
        for port in 0..20_000 {
            // 3,000 bytes at 8 Mbit/s take 3 ms: the flow before has not filled its bucket yet.
            assert!(policer.passes(flow(port), 3_000, Time::from_millis(u64::from(port) * 2)));
        }
        assert!(policer.buckets.len() <= BUCKETS_MIN, "{}", policer.buckets.len());
        // While no bucket fills, each is kept.
        for port in 0..1_000 {
            assert!(policer.passes(flow(port), 3_000, Time::from_millis(100_000)));
        }
        for port in 0..1_000 {
            assert!(!policer.passes(flow(port), 1, Time::from_millis(100_000)));
        }
    }

    #[test]
    fn a_change_of_rate_keeps_the_tokens() {
        let mut policer = Policer::new(Some(POLICE));
        assert!(policer.passes(flow(1), 3_000, Time::ZERO));
        // A millisecond at 8 Mbit/s is 1,000 bytes, one at 80 Mbit/s 10,000.
        policer.set(
            Some(Police { rate_bps: 80_000_000, burst_bytes: 20_000, per_flow: true }),
            Time::from_millis(1),
        );
        let at = Time::from_millis(1) + Duration::from_millis(1);
        assert!(!policer.passes(flow(1), 11_001, at));
        assert!(policer.passes(flow(1), 11_000, at));
        policer.set(None, at);
        assert!(policer.passes(flow(1), 1_000_000, at));
    }
}
