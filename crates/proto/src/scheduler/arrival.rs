//! When does it arrive: the one place that computes it.
//!
//! Bytes leave once their link is free and the pacer has sent them, and are the link's delay under
//! way: `max(now, free_at) + bytes / rate + delay`. Several busy links together are seen as one
//! that is free when the first of them is, has the sum of their rates and the largest of their
//! delays.
//!
//! Delays have an offset that is common to all links, so that only differences of arrivals mean
//! anything. It does not know what the bytes are: one packet, or a whole backlog.
//!
//! Source: `eta` of ECF (Lim et al., CoNEXT 2017).

use std::time::Duration;

use crate::time::Instant;
use crate::units::BitRate;
use crate::view::LinkView;

/// Where bytes leave: a link, or several busy ones together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlet {
    free_at: Instant,
    rate: BitRate,
    delay_us: i64,
}

impl Outlet {
    /// One link.
    pub(super) fn of(link: &LinkView) -> Self {
        Self { free_at: link.free_at, rate: link.rate, delay_us: link.delay_us }
    }

    /// This and one more link.
    pub(super) fn joined(self, link: &LinkView) -> Self {
        Self {
            free_at: self.free_at.min(link.free_at),
            rate: BitRate::from_bps(self.rate.as_bps().saturating_add(link.rate.as_bps())),
            delay_us: self.delay_us.max(link.delay_us),
        }
    }

    /// From when on it is free.
    pub(super) const fn free_at(self) -> Instant {
        self.free_at
    }

    /// When the last of `bytes` has left, headers included.
    fn leaves_at(self, bytes: u64, now: Instant) -> Instant {
        self.free_at.max(now) + self.rate.time_to_send(bytes)
    }

    /// When the last of `bytes` arrives, µs from now.
    pub(super) fn arrival_us(self, bytes: u64, now: Instant) -> i64 {
        // In whole nanoseconds: this is computed several times for each packet.
        let span_us = self.leaves_at(bytes, now).as_nanos().saturating_sub(now.as_nanos()) / 1_000;
        self.delay_us.saturating_add(i64::try_from(span_us).unwrap_or(i64::MAX))
    }
}

/// When a packet of `bytes` arrives over `link`, µs from now.
pub(crate) fn arrival_us(link: &LinkView, bytes: usize, now: Instant) -> i64 {
    Outlet::of(link).arrival_us(bytes as u64 + link.header_bytes, now)
}

/// The same on the clock of delays, so that arrivals of different moments compare.
pub(super) fn arrival_at_us(link: &LinkView, bytes: usize, now: Instant) -> i64 {
    let leaves_at = Outlet::of(link).leaves_at(bytes as u64 + link.header_bytes, now);
    clock_us(leaves_at, link.delay_us)
}

/// When bytes arrive that leave at `leaves_at` and are `delay_us` under way, on the clock of
/// delays.
pub(super) fn clock_us(leaves_at: Instant, delay_us: i64) -> i64 {
    i64::try_from(leaves_at.as_micros()).unwrap_or(i64::MAX).saturating_add(delay_us)
}

/// A span as a difference of arrivals, µs.
pub(crate) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, link};
    use super::*;

    #[test]
    fn a_packet_arrives_after_the_links_wait_its_own_time_and_the_delay() {
        // 10 Mbit/s carry 1,250 bytes in 1 ms; 10 ms away.
        let mut view = link(0, 10, 20);
        let bytes = 1_250 - 28;
        assert_eq!(arrival_us(&view, bytes, NOW), 11_000);
        view.free_at = NOW + Duration::from_millis(3);
        assert_eq!(arrival_us(&view, bytes, NOW), 14_000);
        assert_eq!(arrival_at_us(&view, bytes, NOW), 1_014_000);
        view.free_at = NOW.saturating_sub(Duration::from_millis(3));
        assert_eq!(arrival_us(&view, bytes, NOW), 11_000, "saved credit makes no packet earlier");
    }

    #[test]
    fn links_together_start_with_the_first_and_end_with_the_farthest() {
        let mut near = link(0, 10, 20);
        let mut far = link(1, 30, 80);
        (near.free_at, far.free_at) = (NOW + Duration::from_millis(2), NOW + Duration::from_millis(1));
        let both = Outlet::of(&near).joined(&far);
        assert_eq!(both.free_at(), far.free_at);
        // 40 Mbit/s carry 50,000 bytes in 10 ms.
        assert_eq!(both.arrival_us(50_000, NOW), 1_000 + 10_000 + 40_000);
    }
}
