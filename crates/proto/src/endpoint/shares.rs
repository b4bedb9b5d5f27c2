//! What one session may take of what all sessions share: work and memory.
//!
//! **Work.** The places that a session's datagrams make it touch are paid for at a fixed rate, with
//! some in arrears. A session that owes more has its sealed datagrams discarded (`overworked`)
//! until it has paid; others are served meanwhile. Nothing known makes a session owe that much: its
//! work follows its bytes. The rule bounds what is not known.
//!
//! **Memory.** Once all sessions together hold the most that they may, a session that holds more
//! than an equal share takes no further packet from TUN and gives up what it waits for. So does a
//! session that alone holds the most that one may.
//!
//! Figures: docs/decisions/0057-work-follows-the-bytes-that-came-in.md.

use std::time::Duration;

use crate::time::Instant;

/// What a place that was touched costs. Chosen: four times what the worst datagrams took for each,
/// all that they do besides included: one session has a quarter of a processor.
/// Measured: docs/decisions/0057-work-follows-the-bytes-that-came-in.md.
const PER_PLACE: Duration = Duration::from_nanos(100);
/// Work is done in arrears up to this much. Chosen: what 500,000 places cost, which take some
/// milliseconds: all that restoring saves up, and a look at all flows over all links.
const ARREARS_MAX: Duration = Duration::from_millis(50);

/// The most bytes held in all sessions together. Chosen: a share of a small server's memory.
const ALL_BYTES_MAX: usize = 256 << 20;
/// The most bytes held in one session. Chosen: what is kept to be sent again at 850 Mbit/s, and
/// what is held in order at 700.
const ONE_BYTES_MAX: usize = 48 << 20;
/// Bytes held in one session that are always allowed. Chosen: one batch of a link.
pub(super) const LITTLE_BYTES: usize = 64 << 10;

/// The work of one session.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// What it has touched so far.
    touched: u64,
    /// All of that is paid for at this time.
    paid_at: Option<Instant>,
}

impl Work {
    /// Whether more work may be done now.
    #[inline]
    pub(super) fn may_begin(&self, now: Instant) -> bool {
        self.paid_at.is_none_or(|at| at.saturating_sub(ARREARS_MAX) <= now)
    }

    /// The session has touched `touched` places in all.
    #[inline]
    pub(super) fn note(&mut self, touched: u64, now: Instant) {
        let places = touched.saturating_sub(self.touched);
        self.touched = touched;
        if places > 0 {
            let cost = PER_PLACE.saturating_mul(u32::try_from(places).unwrap_or(u32::MAX));
            self.paid_at = Some(self.paid_at.map_or(now, |at| at.max(now)) + cost);
        }
    }
}

/// The memory of all sessions.
#[derive(Debug)]
pub(super) struct Memory {
    held: usize,
    max: usize,
}

impl Memory {
    pub(super) const fn new() -> Self {
        Self { held: 0, max: ALL_BYTES_MAX }
    }

    #[cfg(test)]
    pub(super) const fn limit(&mut self, max: usize) {
        self.max = max;
    }

    /// A session that held `before` bytes holds `now` bytes.
    pub(super) const fn replace(&mut self, before: usize, now: usize) {
        self.held = (self.held + now).saturating_sub(before);
    }

    /// Whether a session that holds `held`, one of `sessions`, holds more than it may at present.
    pub(super) fn is_over(&self, held: usize, sessions: usize) -> bool {
        held >= ONE_BYTES_MAX || (self.held >= self.max && held >= self.share(sessions))
    }

    /// What each of `sessions` may hold in any case.
    pub(super) fn share(&self, sessions: usize) -> usize {
        (self.max / sessions.max(1)).clamp(LITTLE_BYTES, ONE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + us * 1_000)
    }

    #[test]
    fn work_is_paid_for_by_time_with_some_in_arrears() {
        let mut work = Work::default();
        work.note(10, at(0));
        assert!(work.may_begin(at(0)));
        // 60 ms of work, of which 50 ms may be owed.
        work.note(600_010, at(0));
        assert!(!work.may_begin(at(9_000)));
        assert!(work.may_begin(at(10_001)));
        work.note(600_010, at(1_000_000));
        assert!(work.may_begin(at(1_000_000)), "nothing new was touched");
        work.note(700_010, at(1_000_000));
        assert!(work.may_begin(at(1_000_000)), "the time before is not saved up, nor is it owed");
    }

    #[test]
    fn a_session_under_its_share_is_never_over() {
        let mut memory = Memory::new();
        memory.limit(1_000_000);
        assert!(!memory.is_over(900_000, 1));
        assert!(memory.is_over(ONE_BYTES_MAX, 1));
        memory.replace(0, 900_000);
        memory.replace(0, 200_000);
        assert!(memory.is_over(900_000, 2) && !memory.is_over(200_000, 2));
        // A share of many is still a batch.
        assert!(!memory.is_over(LITTLE_BYTES - 1, 1_000) && memory.is_over(LITTLE_BYTES, 1_000));
        memory.replace(900_000, 100_000);
        assert!(!memory.is_over(900_000, 2), "there is room again");
    }
}
