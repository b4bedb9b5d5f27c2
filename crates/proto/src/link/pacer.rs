//! When a link may send next.
//!
//! A virtual finish time: each datagram moves `free_at` on by its time at the pacing rate; a
//! datagram may go when `free_at` is not in the future. An idle link saves up at most [`BURST`],
//! and what then goes at once stays far below a link's own buffer. Where packets waited for a link
//! and the driver came back late for them, the link was not idle: that time, up to [`LATE_MAX`], is
//! saved up besides. So a machine that is busy, or whose host takes its processors away for a
//! while, loses less. Exact: no token arithmetic, no drift.
//!
//! Bulk starts a run only when [`crate::limits::QUANTUM`] has been saved up, whatever wakes the
//! driver meanwhile, and then sends until nothing is left: at 70 Mbit/s a batch of six datagrams a
//! millisecond instead of one wake-up or one system call for each. On a link so slow that one
//! datagram takes as long there is nothing to save up. A packet that waits for this very link
//! (sparse traffic) goes as soon as one datagram may.

use std::time::Duration;

use crate::limits::BURST;
use crate::time::Instant;
use crate::units::BitRate;

/// The most that is saved up besides, of the time by which a driver was late. Chosen: below the
/// buffers of links, which hold 50 ms and more; other values were not tried.
const LATE_MAX: Duration = Duration::from_millis(20);

/// Pacer of one link.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pacer {
    free_at: Instant,
    idle: Duration,
    late: Duration,
    /// The pacing rate, as it was computed for this moment.
    rate: Option<(Instant, BitRate)>,
}

impl Pacer {
    /// From when on a datagram may go; in the past: at once.
    pub(crate) const fn free_at(&self) -> Instant {
        self.free_at
    }

    /// For how long, in all, there was nothing to send that it could have been saved up for.
    pub(super) const fn idle(&self) -> Duration {
        self.idle
    }

    /// The driver, not the links, kept waiting for so long what waited to be sent from now on.
    pub(crate) fn set_late(&mut self, late: Duration) {
        self.late = late.min(LATE_MAX);
    }

    /// The pacing rate of this moment, if it is known.
    pub(super) fn rate(&self, now: Instant) -> Option<BitRate> {
        self.rate.filter(|(at, _)| *at == now).map(|(_, rate)| rate)
    }

    /// The pacing rate of this moment, for what is sent at once.
    pub(crate) const fn set_rate(&mut self, rate: BitRate, now: Instant) {
        self.rate = Some((now, rate));
    }

    /// What arrived may change the pacing rate.
    pub(super) const fn forget_rate(&mut self) {
        self.rate = None;
    }

    /// `bytes` went at `now`, on a link paced at `rate`.
    #[inline]
    pub(super) fn on_sent(&mut self, bytes: u64, rate: BitRate, now: Instant) {
        let saved_from = now.saturating_sub(BURST + self.late);
        self.idle += saved_from.saturating_since(self.free_at);
        self.free_at = self.free_at.max(saved_from) + rate.time_to_send(bytes);
        self.set_rate(rate, now);
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
                pacer.on_sent(1_500, rate, now);
                sent += 1_500;
            }
            now = now.max(pacer.free_at()) + Duration::from_micros(step * 7_919 % 3_000);
        }
        let allowed = rate.bytes_in(now - start + BURST) + 1_500;
        assert!(sent <= allowed, "{sent} > {allowed}");
        assert!(sent * 1_000 >= allowed * 998, "{sent} of {allowed}");
    }

    #[test]
    fn a_driver_that_is_late_loses_no_rate() {
        let rate = BitRate::from_bps(10_000_000);
        // Late by 15 ms each time; by 60 ms, which is more than is saved up.
        for (late_ms, permille) in [(15, 998..=1_000), (60, 380..=420)] {
            let mut pacer = Pacer::default();
            let start = Instant::from_nanos(1_000_000_000);
            let (mut now, mut sent) = (start, 0);
            pacer.on_sent(1_500, rate, now);
            for _ in 0..1_000 {
                let due = pacer.free_at().max(now);
                now = due + Duration::from_millis(late_ms);
                pacer.set_late(now - due);
                while pacer.free_at() <= now {
                    pacer.on_sent(1_500, rate, now);
                    sent += 1_500;
                }
            }
            let share = sent * 1_000 / rate.bytes_in(now - start);
            assert!(permille.contains(&share), "late by {late_ms} ms: {share} permille");
        }
    }

    #[test]
    fn idle_time_is_what_could_not_be_saved_up() {
        let rate = BitRate::from_bps(10_000_000);
        let mut pacer = Pacer::default();
        let at = |ms| Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms);
        pacer.on_sent(1_250, rate, at(0));
        let idle = pacer.idle();
        // Free at -3 ms: nothing is lost until 1 ms.
        pacer.on_sent(1_250, rate, at(1));
        assert_eq!(pacer.idle(), idle);
        pacer.on_sent(1_250, rate, at(10));
        assert_eq!(pacer.idle(), idle + Duration::from_millis(8));
    }

    #[test]
    fn a_rate_is_remembered_for_its_moment_and_until_something_arrives() {
        let rate = BitRate::from_bps(10_000_000);
        let at = |ms| Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms);
        let mut pacer = Pacer::default();
        pacer.on_sent(1_500, rate, at(0));
        assert_eq!((pacer.rate(at(0)), pacer.rate(at(1))), (Some(rate), None));
        pacer.forget_rate();
        assert_eq!(pacer.rate(at(0)), None);
    }
}
