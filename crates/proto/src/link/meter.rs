//! Rate over a sliding window of half a second, in ten parts: quick enough to see a link fill, slow enough not
//! to flicker with every batch.

use std::time::Duration;

use crate::time::Instant;
use crate::units::BitRate;

const PARTS: u32 = 10;
const PART_NS: u64 = 50_000_000;

/// Counts bytes and tells their recent rate.
#[derive(Debug, Clone, Default)]
pub(super) struct RateMeter {
    /// Part number and bytes in it. Narrow, because every link of every session has two of these.
    parts: [(u32, u32); PARTS as usize],
}

impl RateMeter {
    /// Counts `bytes` now.
    pub(super) fn on_bytes(&mut self, bytes: u64, now: Instant) {
        let number = part_number(now);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Some(part) = self.parts.get_mut((number % PARTS) as usize) else { return };
        if part.0 == number {
            part.1 = part.1.saturating_add(bytes);
        } else {
            *part = (number, bytes);
        }
    }

    /// The rate over the nine whole parts before now and the part that has begun.
    pub(super) fn rate(&self, now: Instant) -> BitRate {
        let number = part_number(now);
        let oldest = number.saturating_sub(PARTS - 1);
        // Of parts that come later the difference is large.
        let recent = self.parts.iter().filter(|part| number.wrapping_sub(part.0) < PARTS);
        let bytes = recent.map(|part| u64::from(part.1)).sum();
        let span = now.as_nanos().saturating_sub(u64::from(oldest) * PART_NS).max(PART_NS);
        BitRate::from_bytes_over(bytes, Duration::from_nanos(span))
    }
}

/// Which part a moment is in; good for six years.
fn part_number(now: Instant) -> u32 {
    u32::try_from(now.as_nanos() / PART_NS).unwrap_or(u32::MAX)
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
