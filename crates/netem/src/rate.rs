//! The rate of a link.

use std::sync::Arc;

use crate::time::Time;
use crate::trace::Trace;

/// The rate of a pipe, in bytes of IP packets.
#[derive(Debug, Clone, Default)]
pub enum Rate {
    /// Serialisation takes no time; the queue is never used.
    #[default]
    Unlimited,
    /// Bits per second. Zero stalls the link: packets wait (an outage drops them).
    Constant {
        /// Bits per second.
        bps: u64,
    },
    /// Recorded or generated delivery opportunities, repeated for ever and counted from the
    /// driver's epoch.
    Trace(Arc<Trace>),
}

impl Rate {
    /// A constant rate of `bps` bits per second.
    pub const fn from_bps(bps: u64) -> Self {
        Self::Constant { bps }
    }

    /// A constant rate of `mbps` megabits (10^6) per second.
    pub const fn from_mbps(mbps: u64) -> Self {
        Self::Constant { bps: mbps.saturating_mul(1_000_000) }
    }

    /// Bits per second in the long run; `None` if unlimited.
    pub fn mean_bps(&self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::Constant { bps } => Some(*bps),
            Self::Trace(trace) => Some(trace.mean_bps()),
        }
    }

    /// Bits per second of the best second: the rate that a provider names and a user configures.
    /// `None` if unlimited.
    pub fn peak_bps(&self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::Constant { bps } => Some(*bps),
            Self::Trace(trace) => Some(trace.peak_bps()),
        }
    }

    /// The bytes that pass in `from..to`; `None` if unlimited.
    pub fn bytes_between(&self, from: Time, to: Time) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::Constant { bps } => {
                let bytes = u128::from(*bps) * (to - from).as_nanos() / 8_000_000_000;
                Some(u64::try_from(bytes).unwrap_or(u64::MAX))
            }
            Self::Trace(trace) => Some(trace.bytes_between(from, to)),
        }
    }
}
