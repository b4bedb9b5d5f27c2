//! Lets small packets gather, as a network card moderates its interrupts.
//!
//! What a small packet costs most is being waited for: its sender wakes this process, which sends it on and wakes the next. Where wake-ups
//! follow each other closely and bring little, the loop pauses for 50 µs before each wait; who sends meanwhile wakes nobody. As
//! soon as a pause has gathered too little the loop waits at once again, so a lone packet, or a question and its answer over
//! any real distance, never meets one. Bulk does not either: its wake-ups bring much.
//!
//! (100-byte packets through both ends, two cores, two alternating runs: 206,000 and 339,000 a second without, 334,000 and 449,000
//! with it; in 1,000 flows 74,000 and 116,000, 209,000 and 159,000.)
//!
//! # Explored and removed
//! Counting a wake-up as close by the wait alone, without the work before it: in 1,000 flows 140,000 to 195,000 packets a second without, 119,000
//! to 184,000 with it (four alternating runs).

use std::time::Duration;

use bonding_proto::Instant;

/// How long they gather.
const PAUSE: Duration = Duration::from_micros(50);
/// What has to be there then for that to go on: 80,000 packets a second.
const GATHERED_MIN: usize = 4;
/// A wake-up with so many was worth it.
const MANY: usize = 64;
/// So many wake-ups in a row, each sooner than a pause after the last, begin it.
const QUICK_MAX: u32 = 16;

/// An input is busy when it has something again after less than this.
const BUSY_GAP: Duration = Duration::from_micros(100);

/// When an input had something last.
#[derive(Debug, Default)]
pub(super) struct Recency(Instant);

impl Recency {
    /// It has something now: whether it is busy.
    pub(super) fn note(&mut self, now: Instant) -> bool {
        now.saturating_since(std::mem::replace(&mut self.0, now)) < BUSY_GAP
    }
}

/// What the wake-ups were like lately.
#[derive(Debug, Default)]
pub(super) struct Moderation {
    /// Wake-ups in a row that came soon after another and had little.
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
        // What a pause gathers keeps it on, however long it takes.
        assert_eq!(pauses(&mut moderation, 1_000, 4, 70), 1_000);
        assert_eq!(pauses(&mut moderation, 1, 3, 70), 0);
        assert_eq!(pauses(&mut moderation, 15, 1, 20), 0, "and it begins anew");
    }
}
