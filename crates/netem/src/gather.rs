//! Packets that arrive together: aggregation into bursts, as Wi-Fi and mobile networks do.
//!
//! The first packet to arrive opens a burst, which is released a fixed time later with all that has
//! arrived until then. Arrivals are told in the order of time.

use std::time::Duration;

use crate::time::Time;

#[derive(Debug)]
pub(crate) struct Gather {
    /// The time from a burst's first packet to its release; zero: no bursts.
    span: Duration,
    /// The release of the newest burst.
    release: Option<Time>,
}

impl Gather {
    pub(crate) const fn new(span: Duration) -> Self {
        Self { span, release: None }
    }

    /// The release of a packet that arrives at `due`, later than every packet told so far.
    pub(crate) fn release_of(&self, due: Time) -> Time {
        self.release.filter(|release| due <= *release).unwrap_or(due + self.span)
    }

    /// A packet arrived at `due`: opens a burst if none is open. Returns the packet's release.
    pub(crate) fn arrive(&mut self, due: Time) -> Time {
        let release = self.release_of(due);
        self.release = Some(release).filter(|_| !self.span.is_zero());
        release
    }

    /// Bursts that are opened from now on take this time.
    pub(crate) const fn set(&mut self, span: Duration) {
        self.span = span;
    }
}

/// The first multiple of `grid` at `at` or later; `at` itself if there is no grid.
pub(crate) fn next_grant(at: Time, grid: Duration) -> Time {
    match crate::time::nanos(grid) {
        0 => at,
        step => Time::from_nanos(at.as_nanos().div_ceil(step).saturating_mul(step)),
    }
}
