//! Three clocks of the kernel at one moment. What their distances tell is for others to say.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What the clocks show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// `CLOCK_MONOTONIC`: since the start of the system, without the time in which it slept.
    pub monotonic: Duration,
    /// `CLOCK_BOOTTIME`: with that time.
    pub boottime: Duration,
    /// `CLOCK_REALTIME`: since the Unix epoch, as it was set.
    pub realtime: Duration,
}

impl Reading {
    /// As of now. No system call is made where the kernel offers none for it (vDSO).
    pub fn now() -> Self {
        Self {
            monotonic: read(ClockId::Monotonic),
            boottime: read(ClockId::Boottime),
            realtime: read(ClockId::Realtime),
        }
    }
}

fn read(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_go() {
        let before = Reading::now();
        std::thread::sleep(Duration::from_millis(5));
        let after = Reading::now();
        let passed = after.monotonic - before.monotonic;
        assert!(passed >= Duration::from_millis(5) && after.boottime - before.boottime >= passed / 2);
        assert!(after.boottime >= after.monotonic && after.realtime > before.realtime);
    }
}
