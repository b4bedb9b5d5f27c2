//! Limits on handshakes: a budget for all sources together, and one for each source.
//!
//! A budget is a token bucket, stored as the instant at which it is full again (GCRA, ITU-T I.371):
//! the tokens spent correspond to the time from now to that instant. A source whose budget is full
//! again is forgotten, so the table holds only the sources of the last moments. The table is
//! bounded. When it is full, the source whose budget is full first is forgotten, which forgets the
//! fewest spent tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::time::Instant;

/// A token rate: `burst` tokens at once, and one more each `interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The time that earns one token.
    pub interval: Duration,
    /// Tokens that may be spent at once; at least 1.
    pub burst: u32,
}

impl Rate {
    /// Whether a bucket that is full at `full_at` holds a token now.
    fn has_one(self, full_at: Instant, now: Instant) -> bool {
        full_at.saturating_since(now) <= self.interval * self.burst.saturating_sub(1)
    }

    /// When that bucket is full after one more token is spent.
    fn spend(self, full_at: Instant, now: Instant) -> Instant {
        full_at.max(now) + self.interval
    }
}

/// One token bucket.
#[derive(Debug, Clone)]
pub struct Budget {
    rate: Rate,
    full_at: Instant,
}

impl Budget {
    /// A full bucket.
    pub const fn new(rate: Rate) -> Self {
        Self { rate, full_at: Instant::ZERO }
    }

    /// Whether the bucket holds a token now.
    pub fn has_one(&self, now: Instant) -> bool {
        self.rate.has_one(self.full_at, now)
    }

    /// Spends a token; `false` if the bucket holds no token.
    pub fn try_spend(&mut self, now: Instant) -> bool {
        let has_one = self.has_one(now);
        if has_one {
            self.full_at = self.rate.spend(self.full_at, now);
        }
        has_one
    }
}

/// A bucket for each source. A source is an IPv4 address or an IPv6 /64, the usual size of one
/// subscriber's network.
#[derive(Debug, Clone)]
pub struct SourceLimiter {
    rate: Rate,
    capacity: usize,
    full_at: BTreeMap<IpAddr, Instant>,
    /// The same pairs, ordered: the bucket that is full first is in front.
    order: BTreeSet<(Instant, IpAddr)>,
}

impl SourceLimiter {
    /// Remembers at most `capacity` sources, at least one.
    pub const fn new(rate: Rate, capacity: usize) -> Self {
        Self { rate, capacity, full_at: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Spends a token of the source of `address`; `false` if its bucket holds no token.
    pub fn try_spend(&mut self, address: IpAddr, now: Instant) -> bool {
        while self.order.first().is_some_and(|(full_at, _)| *full_at <= now) {
            self.forget_first();
        }
        let source = source(address);
        let known = self.full_at.get(&source).copied();
        let full_at = known.unwrap_or(now);
        if !self.rate.has_one(full_at, now) {
            return false;
        }
        if known.is_some() {
            self.order.remove(&(full_at, source));
        } else if self.full_at.len() >= self.capacity {
            self.forget_first();
        }
        let full_at = self.rate.spend(full_at, now);
        self.full_at.insert(source, full_at);
        self.order.insert((full_at, source));
        true
    }

    fn forget_first(&mut self) {
        if let Some((_, source)) = self.order.pop_first() {
            self.full_at.remove(&source);
        }
    }
}

/// The addresses that share one bucket, named by their first address.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { interval: Duration::from_millis(50), burst: 5 };

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    /// How many of ten requests at `now` are granted.
    fn granted(limiter: &mut SourceLimiter, address: &str, now: Instant) -> usize {
        (0..10).filter(|_| limiter.try_spend(address.parse().unwrap(), now)).count()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut limiter = SourceLimiter::new(RATE, 16);
        assert_eq!(granted(&mut limiter, "192.0.2.1", at(1_000)), 5);
        assert_eq!(granted(&mut limiter, "192.0.2.1", at(1_049)), 0);
        assert_eq!(granted(&mut limiter, "192.0.2.1", at(1_050)), 1);
        assert_eq!(granted(&mut limiter, "192.0.2.1", at(1_150)), 2);
        assert_eq!(granted(&mut limiter, "192.0.2.2", at(1_150)), 5);
        assert_eq!(granted(&mut limiter, "192.0.2.1", at(9_000)), 5);
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_64_bits() {
        let mut limiter = SourceLimiter::new(RATE, 16);
        assert_eq!(granted(&mut limiter, "2001:db8:1:2::1", at(0)), 5);
        assert_eq!(granted(&mut limiter, "2001:db8:1:2:ffff::9", at(0)), 0);
        assert_eq!(granted(&mut limiter, "2001:db8:1:3::1", at(0)), 5);
        assert_eq!(granted(&mut limiter, "::ffff:192.0.2.1", at(0)), 5);
        assert_eq!(granted(&mut limiter, "192.0.2.1", at(0)), 0);
        assert_eq!(granted(&mut limiter, "192.0.2.2", at(0)), 5);
    }

    #[test]
    fn a_full_table_forgets_the_source_that_spent_least() {
        let mut limiter = SourceLimiter::new(RATE, 2);
        assert_eq!(granted(&mut limiter, "192.0.2.1", at(0)), 5);
        assert!(limiter.try_spend("192.0.2.2".parse().unwrap(), at(0)));
        assert!(limiter.try_spend("192.0.2.3".parse().unwrap(), at(0)));
        assert_eq!(limiter.full_at.len(), 2);
        assert_eq!(granted(&mut limiter, "192.0.2.1", at(0)), 0);
        assert_eq!(granted(&mut limiter, "192.0.2.2", at(0)), 5);
    }

    /// A plain token bucket as the model: tokens in nanoseconds that fill up with time.
    struct Model {
        level: u64,
        last: u64,
    }

    impl Model {
        fn try_spend(&mut self, now: u64) -> bool {
            let interval = u64::try_from(RATE.interval.as_nanos()).unwrap();
            self.level = (self.level + now - self.last).min(interval * u64::from(RATE.burst));
            self.last = now;
            let granted = self.level >= interval;
            if granted {
                self.level -= interval;
            }
            granted
        }
    }

    proptest! {
        #[test]
        fn as_the_model(steps in proptest::collection::vec((0usize..4, 0u64..90_000_000), 1..300)) {
            let mut limiter = SourceLimiter::new(RATE, 4);
            let mut budget = Budget::new(RATE);
            let full = || Model { level: u64::MAX / 2, last: 0 };
            let (mut models, mut model) = ([full(), full(), full(), full()], full());
            let mut now = 0;
            for (source, pause) in steps {
                now += pause / 4;
                let time = Instant::from_nanos(now);
                let address = IpAddr::from([192, 0, 2, u8::try_from(source).unwrap()]);
                prop_assert_eq!(limiter.try_spend(address, time), models[source].try_spend(now));
                prop_assert_eq!(budget.has_one(time), budget.clone().try_spend(time));
                prop_assert_eq!(budget.try_spend(time), model.try_spend(now));
                prop_assert_eq!(limiter.full_at.len(), limiter.order.len());
            }
        }

        #[test]
        fn never_more_sources_than_said(sources in proptest::collection::vec(any::<u8>(), 1..200)) {
            let mut limiter = SourceLimiter::new(RATE, 8);
            for source in sources {
                limiter.try_spend(IpAddr::from([192, 0, 2, source]), at(0));
                prop_assert!(limiter.full_at.len() <= 8);
                prop_assert_eq!(limiter.full_at.len(), limiter.order.len());
            }
        }
    }
}
