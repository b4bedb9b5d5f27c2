//! For what waiting data waits, and until when.

use std::time::Duration;

use crate::qos::queue::Tier;
use crate::time::Instant;

/// The times that hold data back.
#[derive(Debug, Default)]
pub(in crate::session) struct WaitTimes {
    /// When waiting data may go; `None`: nothing waits, or only an input can help.
    transmit_at: Option<Instant>,
    /// While packets wait for links: when the first link has credit again.
    due_at: Option<Instant>,
    /// How late the driver was for `due_at` the last time.
    late: Duration,
    /// Until then all links save up credit for a run of bulk packets.
    bulk_from: Instant,
    /// By tier: since when its head is held back for a better link.
    held_from: [Option<Instant>; Tier::ALL.len()],
}

impl WaitTimes {
    pub(in crate::session) const fn transmit_at(&self) -> Option<Instant> {
        self.transmit_at
    }

    /// Something changed: what waits may go now.
    pub(in crate::session) const fn wake(&mut self, now: Instant) {
        self.transmit_at = Some(now);
    }

    /// The driver's full sockets are others than before.
    pub(in crate::session) const fn forget_saving(&mut self) {
        self.bulk_from = Instant::ZERO;
    }

    /// Data is looked at again. A batch that was due and goes later shows the driver's lateness,
    /// until what waited is gone or waits again. Returns the lateness if it is another one than
    /// before.
    pub(super) fn begin(&mut self, queue_is_empty: bool, now: Instant) -> Option<Duration> {
        self.transmit_at = None;
        if queue_is_empty {
            self.held_from = Default::default();
        }
        let late = match self.due_at.take() {
            Some(due) => now.saturating_since(due),
            None if queue_is_empty => Duration::ZERO,
            None => return None,
        };
        let changed = late != self.late;
        self.late = late;
        changed.then_some(late)
    }

    /// Resends wait for credit until then.
    pub(super) fn wake_at(&mut self, at: Instant) {
        self.transmit_at = Some(self.transmit_at.map_or(at, |known| known.min(at)));
    }

    /// Packets wait for links until then.
    pub(super) fn wait_until(&mut self, until: Instant) {
        self.wake_at(until);
        self.due_at = self.transmit_at;
    }

    /// While links save up credit: until when.
    pub(super) fn saves_until(&self, now: Instant) -> Option<Instant> {
        (now < self.bulk_from).then_some(self.bulk_from)
    }

    pub(super) const fn set_bulk_from(&mut self, from: Instant) {
        self.bulk_from = from;
    }

    /// The head of the tier with this index is held back from now on.
    pub(super) fn hold(&mut self, tier_index: usize, now: Instant) {
        if let Some(held_from) = self.held_from.get_mut(tier_index) {
            *held_from = Some(now);
        }
    }

    /// Since when the head of the tier was held back; it is not any more.
    pub(super) fn release(&mut self, tier_index: usize) -> Option<Instant> {
        self.held_from.get_mut(tier_index).and_then(Option::take)
    }
}
