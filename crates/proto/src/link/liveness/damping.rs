//! The way back of a link that failed.
//!
//! Such a link is suspect from its first proof, so it carries where no other can, and up after
//! three. One that failed again within [`STABLE`] of coming up must besides be proven for a second,
//! then two, four, up to [`DAMPING_MAX`]: what flaps is left alone, and each [`STABLE`] that it
//! stays up halves that. A bond without another link does not wait: it would wait with its only
//! link.

use std::time::Duration;

use super::params::{DAMPING_MAX, DAMPING_MIN, DOUBLINGS_MAX, PROOFS_AFTER_FAILURE, STABLE};
use crate::time::Instant;

/// Failures and returns of one link.
#[derive(Debug, Clone, Copy)]
pub(super) struct Damping {
    /// It failed, and is not back.
    has_failed: bool,
    /// Proofs since the link went down, and when the first one came.
    proofs: u32,
    returned_at: Instant,
    /// Failures in a row; since when it has been up or down.
    failures: u32,
    since: Instant,
}

impl Damping {
    pub(super) const fn new() -> Self {
        Self { has_failed: false, proofs: 0, returned_at: Instant::ZERO, failures: 0, since: Instant::ZERO }
    }

    /// It failed, and is not back.
    pub(super) const fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// It is proven as a failed link must be, and has to wait.
    pub(super) const fn only_waits(&self) -> bool {
        self.has_failed && self.proofs >= PROOFS_AFTER_FAILURE
    }

    /// The link is to be asked: more proof may bring it back, not only time.
    pub(super) const fn wants_proof(&self) -> bool {
        !self.has_failed || self.proofs < PROOFS_AFTER_FAILURE
    }

    /// The link is proven.
    pub(super) fn on_proof(&mut self) {
        self.proofs = self.proofs.saturating_add(1);
    }

    /// The link is up for the first time.
    pub(super) const fn on_up(&mut self, now: Instant) {
        self.since = now;
    }

    /// A link that failed is proven; `is_first`: for the first time since. Whether it is back.
    pub(super) fn try_return(&mut self, is_first: bool, now: Instant) -> bool {
        if is_first {
            self.returned_at = now;
        }
        let waited = now.saturating_since(self.returned_at) >= self.wait();
        let is_back = waited && self.only_waits();
        if is_back {
            self.end_wait(now);
        }
        is_back
    }

    /// The link is back.
    pub(super) const fn end_wait(&mut self, now: Instant) {
        self.has_failed = false;
        self.since = now;
    }

    /// The link fails; `was_down`: it was down before.
    pub(super) fn on_failure(&mut self, was_down: bool, now: Instant) {
        self.proofs = 0;
        if was_down {
            return;
        }
        // On its way back it was not used, and what it did not carry is no second failure.
        if !self.has_failed {
            let stable = now.saturating_since(self.since).as_secs() / STABLE.as_secs();
            self.failures =
                self.failures.checked_shr(u32::try_from(stable).unwrap_or(u32::MAX)).unwrap_or(0) + 1;
            self.has_failed = true;
        }
        self.since = now;
    }

    /// How long a failed link must be proven before it is up.
    fn wait(&self) -> Duration {
        match self.failures.checked_sub(2) {
            None => Duration::ZERO,
            Some(more) => (DAMPING_MIN * 2_u32.saturating_pow(more.min(DOUBLINGS_MAX))).min(DAMPING_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damping_is_bounded() {
        let mut damping = Damping::new();
        for _ in 0..100 {
            damping.failures += 1;
            assert!(damping.wait() <= DAMPING_MAX);
        }
        damping.failures = u32::MAX;
        assert_eq!(damping.wait(), DAMPING_MAX);
    }
}
