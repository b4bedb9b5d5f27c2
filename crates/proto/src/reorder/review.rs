//! When all slots that hold packets are looked at again because links changed.
//!
//! A review costs work for each slot that holds packets, and a peer makes links change with a few
//! bytes. So changes are noted, one review answers all that came since the last, and a review of
//! many slots is followed by a pause that is as long as they are many. Until then each gap keeps
//! the time at which it is lost.

use std::time::Duration;

use crate::time::Instant;

/// The pause for each slot that was looked at. Chosen: a look takes 0.2 to 0.4 µs, so reviews take
/// at most 4 % of a processor.
const PAUSE_PER_SLOT: Duration = Duration::from_micros(10);
/// Reviews need no pause up to this much of it in arrears. Chosen: a few flows that hold packets
/// while several links change at once are all released at once.
const ARREARS_MAX: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Review {
    is_asked: bool,
    /// All pauses are over at this time.
    paid_at: Instant,
}

impl Review {
    /// Links changed.
    pub(super) const fn ask(&mut self) {
        self.is_asked = true;
    }

    /// When the review that was asked for may begin.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.is_asked.then(|| self.paid_at.saturating_sub(ARREARS_MAX))
    }

    /// Whether `slots` slots are to be looked at now; if so they are paid for.
    pub(super) fn begin(&mut self, slots: usize, now: Instant) -> bool {
        let begins = self.due_at().is_some_and(|due| due <= now);
        if begins {
            self.is_asked = false;
            let slots = u32::try_from(slots).unwrap_or(u32::MAX);
            self.paid_at = self.paid_at.max(now) + PAUSE_PER_SLOT * slots;
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + us * 1_000)
    }

    #[test]
    fn few_slots_are_looked_at_at_once_and_many_after_a_pause() {
        let mut review = Review::default();
        assert!(!review.begin(3, at(0)), "nobody asked");
        for us in 0..50 {
            review.ask();
            assert!(review.begin(3, at(us)), "{us}");
            assert_eq!(review.due_at(), None);
        }
        review.ask();
        assert!(review.begin(4_000, at(50)));
        review.ask();
        // 50 × 30 µs and 40 ms, less 2 ms.
        assert!(!review.begin(4_000, at(39_499)));
        assert_eq!(review.due_at(), Some(at(39_500)));
        assert!(review.begin(4_000, at(39_500)));
    }
}
