//! Lets small packets gather, as a network card moderates its interrupts.
//!
//! The wake-up is the largest cost of a small packet: its sender wakes this process, which sends
//! the packet on and wakes the next process. Where wake-ups follow each other closely and bring few
//! packets, the loop pauses for 50 µs before each wait; a packet that comes meanwhile wakes
//! nothing. The loop waits at once again as soon as a pause has gathered too few packets. So a lone
//! packet, or a question and its answer over any real distance, is never delayed. Bulk is not
//! either: its wake-ups bring many packets.
//!
//! Measured: docs/decisions/0091-pauses-of-the-event-loop.md.

use std::time::Duration;

use bonding_proto::Instant;

/// The length of a pause. Chosen: no more than the time in which a busy sender makes four packets.
const PAUSE: Duration = Duration::from_micros(50);
/// Packets that a pause must gather for the next pause to follow: 80,000 a second.
const GATHERED_MIN: usize = 4;
/// A wake-up with so many packets is worth its cost. Chosen: one batch of the loop.
const MANY: usize = 64;
/// So many wake-ups in a row, each sooner than a pause after the last, begin the pauses. Chosen: a
/// lone exchange of packets does not come to so many.
const QUICK_MAX: u32 = 16;

/// An input is busy when it has a packet again after less than this. Chosen: two pauses.
const BUSY_GAP: Duration = Duration::from_micros(100);

/// When an input had a packet last.
#[derive(Debug, Default)]
pub(super) struct Recency(Instant);

impl Recency {
    /// The input has a packet now: whether it is busy.
    pub(super) fn note(&mut self, now: Instant) -> bool {
        now.saturating_since(std::mem::replace(&mut self.0, now)) < BUSY_GAP
    }
}

/// The latest wake-ups, and whether the loop pauses.
#[derive(Debug, Default)]
pub(super) struct Moderation {
    /// Wake-ups in a row that came soon after another and brought few packets.
    quick: u32,
    is_on: bool,
    woke_at: Instant,
}

impl Moderation {
    /// How long to pause before the next wait.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.is_on.then_some(PAUSE)
    }

    /// A wake-up at `now` took so many packets.
    pub(super) fn on_wake_up(&mut self, packets: usize, now: Instant) {
        let gap = now.saturating_since(self.woke_at);
        self.woke_at = now;
        if self.is_on {
            self.is_on = packets >= GATHERED_MIN;
        } else if gap < PAUSE && packets < MANY {
            self.quick += 1;
            self.is_on = self.quick >= QUICK_MAX;
        } else {
            self.quick = 0;
        }
        if self.is_on {
            self.quick = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wake-ups of so many packets, so many µs apart: how many pauses follow.
    fn pauses(moderation: &mut Moderation, wake_ups: usize, packets: usize, apart_us: u64) -> usize {
        let paused = (0..wake_ups).filter(|_| {
            let now = moderation.woke_at + Duration::from_micros(apart_us);
            moderation.on_wake_up(packets, now);
            moderation.pause().is_some()
        });
        paused.count()
    }

    #[test]
    fn only_a_storm_of_small_wake_ups_is_moderated() {
        let mut moderation = Moderation { woke_at: Instant::from_nanos(1_000), ..Moderation::default() };
        assert_eq!(pauses(&mut moderation, 1_000, 1, 60), 0, "a question and its answer, 100 µs apart");
        assert_eq!(pauses(&mut moderation, 1_000, 64, 20), 0, "bulk");
        assert_eq!(pauses(&mut moderation, 15, 1, 20), 0);
        assert_eq!(pauses(&mut moderation, 1, 1, 20), 1);
        // Pauses go on while they gather enough, however long a wake-up takes.
        assert_eq!(pauses(&mut moderation, 1_000, 4, 70), 1_000);
        assert_eq!(pauses(&mut moderation, 1, 3, 70), 0);
        assert_eq!(pauses(&mut moderation, 15, 1, 20), 0, "and the count begins anew");
    }
}
