//! Whether this machine may be a copy of an earlier state, or slept: its keys are then to go.
//!
//! Two machines that were restored from one image of memory have the same keys and counters. Each
//! would seal other bytes under the same nonces. A machine that slept has keys that are older than
//! its clock says. Both show in the distances of the kernel's clocks:
//!
//! - `CLOCK_BOOTTIME` went on and `CLOCK_MONOTONIC` did not: the machine slept, or hibernated.
//! - `CLOCK_REALTIME` jumped: after a restore something sets it right (the hypervisor's agent, the
//!   NTP client). A time server that corrects a wrong clock looks the same, and costs a handshake.
//!
//! Between two readings that are at most a status interval apart clocks drift by milliseconds.
//!
//! What it cannot see: a restore after which nothing sets the clock, or from an image that is
//! younger than [`JUMP_MIN`]. The kernel may know of such restores (vmgenid), but shows them in no
//! file. SECURITY.md says so. Reasons: docs/decisions/0066-copies-of-a-machine.md.

use std::time::Duration;

use bonding_os::clocks::Reading;

/// The least difference that counts. Chosen: above a leap second.
pub(super) const JUMP_MIN: Duration = Duration::from_secs(2);

/// The reason why keys are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gap {
    /// The machine slept for so long.
    Slept(Duration),
    /// The system's clock went forward by so much.
    Jumped(Duration),
    /// The system's clock went back.
    SetBack(Duration),
}

impl Gap {
    /// Time that passed unseen by `CLOCK_MONOTONIC`.
    pub(super) const fn unseen(self) -> Duration {
        match self {
            Self::Slept(time) | Self::Jumped(time) => time,
            Self::SetBack(_) => Duration::ZERO,
        }
    }
}

/// The last reading.
#[derive(Debug)]
pub(super) struct Watch(Reading);

impl Watch {
    pub(super) const fn new(reading: Reading) -> Self {
        Self(reading)
    }

    /// What happened since the last reading.
    pub(super) fn check(&mut self, reading: Reading) -> Option<Gap> {
        let before = std::mem::replace(&mut self.0, reading);
        let passed = |now: Duration, before: Duration| now.saturating_sub(before);
        let ran = passed(reading.monotonic, before.monotonic);
        let booted = passed(reading.boottime, before.boottime);
        let slept = booted.saturating_sub(ran);
        if slept >= JUMP_MIN {
            return Some(Gap::Slept(slept));
        }
        let forward = passed(reading.realtime, before.realtime).saturating_sub(booted);
        // Where it stood still or went back, the time that it should have gone on counts, too.
        let back = (before.realtime + booted).saturating_sub(reading.realtime);
        if forward >= JUMP_MIN {
            Some(Gap::Jumped(forward))
        } else if back >= JUMP_MIN {
            Some(Gap::SetBack(back))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const fn reading(monotonic: u64, boottime: u64, realtime: u64) -> Reading {
        Reading {
            monotonic: Duration::from_millis(monotonic),
            boottime: Duration::from_millis(boottime),
            realtime: Duration::from_millis(realtime),
        }
    }

    #[test]
    fn clocks_that_go_together_are_no_gap_however_long_the_wait() {
        let mut watch = Watch::new(reading(1_000, 5_000, 1_700_000_000_000));
        assert_eq!(watch.check(reading(1_100, 5_100, 1_700_000_000_100)), None);
        // A process that was stopped for an hour, on a machine whose clock drifts by 500 ppm.
        assert_eq!(watch.check(reading(3_601_100, 3_605_100, 1_700_003_601_900)), None);
        // A leap second, and readings that an interruption parts.
        assert_eq!(watch.check(reading(3_601_200, 3_606_200, 1_700_003_601_100)), None);
        assert_eq!(watch.check(reading(3_602_300, 3_606_300, 1_700_003_602_200)), None);
    }

    #[test]
    fn sleep_is_seen_once_and_for_how_long() {
        let mut watch = Watch::new(reading(1_000, 1_000, 1_700_000_000_000));
        let slept = watch.check(reading(1_100, 601_100, 1_700_000_600_100));
        assert_eq!((slept, slept.unwrap().unseen()), (Some(Gap::Slept(600 * SECOND)), 600 * SECOND));
        assert_eq!(watch.check(reading(1_200, 601_200, 1_700_000_600_200)), None);
        assert_eq!(watch.check(reading(1_300, 603_299, 1_700_000_602_299)), None, "below the least");
        assert!(watch.check(reading(1_400, 605_399, 1_700_000_604_399)).is_some());
    }

    #[test]
    fn a_restore_shows_when_the_clock_is_set() {
        let mut watch = Watch::new(reading(1_000, 1_000, 1_700_000_000_000));
        // The image goes on where it was; then the clock is set.
        assert_eq!(watch.check(reading(1_100, 1_100, 1_700_000_000_100)), None);
        let jumped = watch.check(reading(1_200, 1_200, 1_700_086_400_200));
        assert_eq!((jumped, jumped.unwrap().unseen()), (Some(Gap::Jumped(86_400 * SECOND)), 86_400 * SECOND));
        let back = watch.check(reading(1_300, 1_300, 1_700_000_000_300));
        assert_eq!((back, back.unwrap().unseen()), (Some(Gap::SetBack(86_400 * SECOND)), Duration::ZERO));
        assert_eq!(watch.check(reading(1_400, 1_400, 1_700_000_000_400)), None);
    }
}
