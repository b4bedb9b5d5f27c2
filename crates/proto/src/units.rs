//! Quantities with their unit in the type.

use std::fmt;
use std::time::Duration;

/// A rate in bits per second, of IP packets as a link carries them (headers included).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BitRate(u64);

impl BitRate {
    /// `bps` bits per second.
    pub const fn from_bps(bps: u64) -> Self {
        Self(bps)
    }

    /// Bits per second.
    pub const fn as_bps(self) -> u64 {
        self.0
    }

    /// Megabits (10^6 bits) per second.
    pub fn as_mbps(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// The rate at which `bytes` pass in `span`; zero for an empty span.
    pub fn from_bytes_over(bytes: u64, span: Duration) -> Self {
        let nanos = span.as_nanos();
        if nanos == 0 {
            return Self(0);
        }
        Self(quotient(bytes, 8_000_000_000, nanos))
    }

    /// How long `bytes` take at this rate; an hour when the rate is zero.
    pub fn time_to_send(self, bytes: u64) -> Duration {
        if self.0 == 0 {
            return Duration::from_secs(3_600);
        }
        Duration::from_nanos(quotient(bytes, 8_000_000_000, u128::from(self.0)))
    }

    /// How many bytes pass in `span`.
    pub fn bytes_in(self, span: Duration) -> u64 {
        u64::try_from(u128::from(self.0) * span.as_nanos() / 8_000_000_000).unwrap_or(u64::MAX)
    }

    /// Both rates together.
    #[must_use]
    pub const fn saturating_add(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }

    /// This rate times `permille` / 1000.
    pub fn permille(self, permille: u64) -> Self {
        Self(quotient(self.0, permille, 1_000))
    }
}

/// `value` times `factor` by `divisor`, which is above zero; saturates. Computed in 64 bits where
/// they suffice, as for every packet: a division of 128 bits takes five times as long.
fn quotient(value: u64, factor: u64, divisor: u128) -> u64 {
    match (value.checked_mul(factor), u64::try_from(divisor)) {
        (Some(product), Ok(divisor)) => product.checked_div(divisor).unwrap_or(u64::MAX),
        _ => u64::try_from(u128::from(value) * u128::from(factor) / divisor).unwrap_or(u64::MAX),
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} Mbit/s", self.as_mbps())
    }
}
