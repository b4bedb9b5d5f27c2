//! When links are checked for silence: when data arrives, and by a timer while a link that was in
//! steady use may fall silent. What happened while this side did not run tells nothing about links,
//! so checking begins anew after a pause.

use std::time::Duration;

use crate::time::Instant;

/// Time between two checks. Chosen: a fraction of the silence that is reported (`link::indirect`).
const CHECK_STEP: Duration = Duration::from_millis(5);

/// After a longer time without a check, silence counts from the present check on.
const CHECK_PAUSE_MAX: Duration = Duration::from_millis(10);

/// When links were checked.
#[derive(Debug, Default)]
pub(super) struct SilenceChecks {
    /// Since when links are checked without a pause.
    since: Instant,
    /// The last check.
    checked_at: Instant,
}

impl SilenceChecks {
    /// Whether a check is due; if so, since when silence counts.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Instant> {
        let elapsed = now.saturating_since(self.checked_at);
        if elapsed > CHECK_PAUSE_MAX {
            self.since = now;
        }
        if elapsed < CHECK_STEP {
            return None;
        }
        self.checked_at = now;
        Some(self.since)
    }

    /// When the next check is due.
    pub(super) fn next_at(&self) -> Instant {
        self.checked_at + CHECK_STEP
    }
}
