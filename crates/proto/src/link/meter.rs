//! Rate over a sliding window of half a second, in ten parts: quick enough to see a link fill, slow enough not
//! to flicker with every batch.

use std::time::Duration;

use crate::time::Instant;
use crate::units::BitRate;

const PARTS: usize = 10;
const PART_NS: u64 = 50_000_000;

/// Counts bytes and tells their recent rate.
#[derive(Debug, Clone, Default)]
pub(super) struct RateMeter {
    /// Part number and bytes in it.
    parts: [(u64, u64); PARTS],
}

impl RateMeter {
    /// Counts `bytes` now.
    pub(super) fn on_bytes(&mut self, bytes: u64, now: Instant) {
        let number = now.as_nanos() / PART_NS;
        let Some(part) = usize::try_from(number % PARTS as u64).ok().and_then(|at| self.parts.get_mut(at))
        else {
            return;
        };
        if part.0 == number {
            part.1 += bytes;
        } else {
            *part = (number, bytes);
        }
    }

    /// The rate over the nine whole parts before now and the part that has begun.
    pub(super) fn rate(&self, now: Instant) -> BitRate {
        let number = now.as_nanos() / PART_NS;
        let oldest = number.saturating_sub(PARTS as u64 - 1);
        let bytes =
            self.parts.iter().filter(|part| (oldest..=number).contains(&part.0)).map(|part| part.1).sum();
        let span = now.as_nanos().saturating_sub(oldest * PART_NS).max(PART_NS);
        BitRate::from_bytes_over(bytes, Duration::from_nanos(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_read_as_it_is_and_silence_as_zero() {
        let mut meter = RateMeter::default();
        let mut now = Instant::from_nanos(7_000_000_000);
        for _ in 0..2_000 {
            meter.on_bytes(1_250, now); // 10 Mbit/s
            now = now + Duration::from_millis(1);
        }
        let rate = meter.rate(now).as_mbps();
        assert!((9.7..10.3).contains(&rate), "{rate}");
        assert_eq!(meter.rate(now + Duration::from_secs(1)), BitRate::from_bps(0));
    }
}
