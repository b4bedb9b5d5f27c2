//! When a link may send next.
//!
//! A virtual finish time: each datagram moves `free_at` on by its time at the pacing rate; a datagram may go when
//! `free_at` is not in the future. An idle link saves up at most [`BURST`], so that a driver that wakes late loses no
//! rate, and what then goes at once stays far below a link's own buffer. Exact: no token arithmetic, no drift.
//!
//! Bulk starts a run only when [`QUANTUM`] has been saved up and then sends until nothing is left: at 70 Mbit/s a batch of
//! six datagrams a millisecond instead of one wake-up for each. A packet that waits for this very link (sparse
//! traffic) goes as soon as one datagram may.

use std::time::Duration;

use crate::time::Instant;
use crate::units::BitRate;

/// The most an idle link saves up. Wake-ups of a loaded machine are up to some milliseconds late.
pub const BURST: Duration = Duration::from_millis(4);

/// What bulk saves up before it starts a run.
pub const QUANTUM: Duration = Duration::from_millis(1);

/// Pacer of one link.
#[derive(Debug, Clone, Default)]
pub(super) struct Pacer {
    free_at: Instant,
}

impl Pacer {
    /// From when on a datagram may go; in the past: at once.
    pub(super) const fn free_at(&self) -> Instant {
        self.free_at
    }

    /// `bytes` went at `now`, on a link paced at `rate`.
    pub(super) fn on_sent(&mut self, bytes: u64, rate: Option<BitRate>, now: Instant) {
        let Some(rate) = rate else {
            self.free_at = Instant::ZERO;
            return;
        };
        let start = self.free_at.max(now.saturating_sub(BURST));
        self.free_at = start + rate.time_to_send(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_rate_exactly_whatever_the_wake_ups() {
        let rate = BitRate::from_bps(10_000_000);
        let mut pacer = Pacer::default();
        let mut now = Instant::from_nanos(1_000_000_000);
        let start = now;
        let mut sent = 0;
        // Late by up to 3 ms, irregularly: nothing is lost, as that is less than the burst.
        for step in 0..10_000u64 {
            while pacer.free_at() <= now {
                pacer.on_sent(1_500, Some(rate), now);
                sent += 1_500;
            }
            now = now.max(pacer.free_at()) + Duration::from_micros(step * 7_919 % 3_000);
        }
        let allowed = rate.bytes_in(now - start + BURST) + 1_500;
        assert!(sent <= allowed, "{sent} > {allowed}");
        assert!(sent * 1_000 >= allowed * 998, "{sent} of {allowed}");
    }

    #[test]
    fn without_a_rate_it_is_always_free() {
        let mut pacer = Pacer::default();
        pacer.on_sent(1_500, Some(BitRate::from_bps(1_000)), Instant::from_nanos(1));
        pacer.on_sent(1_500, None, Instant::from_nanos(2));
        assert_eq!(pacer.free_at(), Instant::ZERO);
    }
}
