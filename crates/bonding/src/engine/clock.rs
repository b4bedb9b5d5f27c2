//! The driver's clock: the core's [`Instant`]s count from when the engine was made.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bonding_proto::Instant;

/// Monotonic nanoseconds since it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(std::time::Instant);

impl Clock {
    /// Begins an epoch.
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// The system's clock since the Unix epoch, by which the kernel stamps datagrams, and the time.
    ///
    /// In this order: an interruption between the two readings makes a datagram look later than it
    /// was, never earlier. A delay that is too short by the milliseconds of an interruption would
    /// be the least for ten seconds, and every other delay would look like a queue.
    pub(crate) fn system_and_now(self) -> (Duration, Instant) {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (system, self.now())
    }

    /// The time. Never [`Instant::ZERO`], so that "never" and "at the start" differ in a
    /// subtraction.
    pub(crate) fn now(self) -> Instant {
        Instant::ZERO + Duration::from_nanos(1) + self.0.elapsed()
    }
}
