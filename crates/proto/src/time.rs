//! Points in time, which the driver passes as arguments: the core reads no clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time: nanoseconds since an epoch that the driver chose. It has no `now()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The driver's epoch.
    pub const ZERO: Self = Self(0);

    /// The point `nanos` nanoseconds after the driver's epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the driver's epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole microseconds since the driver's epoch.
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Time passed since `earlier`; zero when `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This point moved back by `span`, not beyond the epoch.
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }
}

/// A span in nanoseconds; saturates after 584 years.
fn nanos(span: Duration) -> u64 {
    // Not `Duration::as_nanos`: it computes in 128 bits, and this runs several times per packet.
    span.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(span.subsec_nanos()))
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_added_to_the_nanosecond_and_saturate() {
        let at = Instant::from_nanos(7);
        assert_eq!(at + Duration::new(3, 999_999_999), Instant::from_nanos(4_000_000_006));
        let longest = Duration::from_nanos(u64::MAX);
        assert_eq!(Instant::ZERO + longest, Instant::from_nanos(u64::MAX));
        assert_eq!(Instant::ZERO + (longest + Duration::from_nanos(1)), Instant::from_nanos(u64::MAX));
        assert_eq!(at + Duration::MAX, Instant::from_nanos(u64::MAX));
        assert_eq!(at.saturating_sub(Duration::MAX), Instant::ZERO);
    }
}
