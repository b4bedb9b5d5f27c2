//! Whether this machine may be a copy of an earlier state, or slept: its keys are then to go.
//!
//! Two machines that were restored from one image of memory have the same keys and counters. Each
//! would seal other bytes under the same nonces. A machine that slept has keys that are older than
//! its clock says. Both show in the distances of the kernel's clocks, and a copy in the virtual
//! machine's generation where the kernel tells of it:
//!
//! - `CLOCK_BOOTTIME` went on and `CLOCK_MONOTONIC` did not: the machine slept, or hibernated.
//! - `CLOCK_REALTIME` jumped: after a restore something sets it right (the hypervisor's agent, the
//!   NTP client). A time server that corrects a wrong clock looks the same, and costs a handshake.
//!
//! Between two readings that are at most a status interval apart clocks drift by milliseconds.
//!
//! What it cannot see without a generation: a restore after which nothing sets the clock, or from
//! an image that is younger than [`JUMP_MIN`]. SECURITY.md says so. Reasons:
//! docs/decisions/0066-copies-of-a-machine.md.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use bonding_os::clocks::Reading;
use bonding_os::generation::Generation;

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
    /// The hypervisor says that it is a copy.
    Copied,
}

impl Gap {
    /// Time that passed unseen by `CLOCK_MONOTONIC`.
    pub(super) const fn unseen(self) -> Duration {
        match self {
            Self::Slept(time) | Self::Jumped(time) => time,
            // If clocks stood still for a copy, they have not been set yet.
            Self::SetBack(_) | Self::Copied => Duration::ZERO,
        }
    }
}

/// What was read last of the clocks, and what tells of generations.
#[derive(Debug)]
pub(super) struct Watch {
    before: Reading,
    /// `None`: there is no socket for it.
    generation: Option<Generation>,
    is_copied: bool,
}

impl Watch {
    pub(super) fn open() -> Self {
        let generation = Generation::open()
            .inspect_err(|error| tracing::debug!(%error, "the machine's generation is not watched"));
        Self { generation: generation.ok(), ..Self::new(Reading::now()) }
    }

    const fn new(before: Reading) -> Self {
        Self { before, generation: None, is_copied: false }
    }

    /// Readable when there is work for [`Self::handle_ready`].
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.generation.as_ref().map(Generation::as_fd)
    }

    /// Takes what the kernel tells of devices.
    pub(super) fn handle_ready(&mut self) {
        let Some(generation) = &mut self.generation else { return };
        match generation.has_changed() {
            Ok(changed) => self.is_copied |= changed,
            Err(error) => {
                tracing::warn!(%error, "the machine's generation is watched no longer");
                self.generation = None;
            }
        }
    }

    /// What happened since the last reading.
    pub(super) fn check(&mut self, reading: Reading) -> Option<Gap> {
        let before = std::mem::replace(&mut self.before, reading);
        let is_copied = std::mem::take(&mut self.is_copied);
        between(before, reading).or_else(|| is_copied.then_some(Gap::Copied))
    }
}

/// What the clocks tell.
fn between(before: Reading, reading: Reading) -> Option<Gap> {
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

    #[test]
    fn another_generation_counts_once_and_the_clocks_say_more() {
        let mut watch = Watch { is_copied: true, ..Watch::new(reading(1_000, 1_000, 1_700_000_000_000)) };
        let copied = watch.check(reading(1_100, 1_100, 1_700_000_000_100));
        assert_eq!((copied, copied.unwrap().unseen()), (Some(Gap::Copied), Duration::ZERO));
        assert_eq!(watch.check(reading(1_200, 1_200, 1_700_000_000_200)), None);
        watch.is_copied = true;
        let jumped = watch.check(reading(1_300, 1_300, 1_700_086_400_300));
        assert_eq!(jumped, Some(Gap::Jumped(86_400 * SECOND)));
        assert_eq!(watch.check(reading(1_400, 1_400, 1_700_086_400_400)), None);
    }
}
