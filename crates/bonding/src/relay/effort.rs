//! How much a processor does for compression: the level follows the time that it has to spare.
//!
//! Contract: of each period the share that compression took decides the level of the next one. A
//! processor that is busy with it gets the fastest level, then none. It knows no streams.

use std::time::{Duration, Instant};

/// A level is kept for so long. Chosen: a stream at 20 Mbit/s has some twenty blocks in it.
const PERIOD: Duration = Duration::from_millis(250);
/// The shares of the time, as one of so many, beyond which the level is the fastest, and none.
/// Chosen: the fastest takes two thirds of the usual one's time; sealing and the rest need theirs.
const USUAL_SHARE: u32 = 8;
const FAST_SHARE: u32 = 3;

/// A level of the codec; the greater one shrinks more and takes longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Fast,
    Usual,
}

impl Level {
    /// The level as zstd numbers it. Measured: docs/decisions/0104-compressed-streams.md.
    pub(super) const fn number(self) -> i32 {
        match self {
            Self::Fast => 1,
            Self::Usual => 3,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Effort {
    since: Instant,
    spent: Duration,
    level: Option<Level>,
}

impl Effort {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, spent: Duration::ZERO, level: Some(Level::Usual) }
    }

    /// Compression took so long.
    pub(super) fn on_spent(&mut self, time: Duration) {
        self.spent += time;
    }

    /// The level for now; `None`: there is no time for any.
    pub(super) fn level(&mut self, now: Instant) -> Option<Level> {
        let passed = now.saturating_duration_since(self.since);
        if passed >= PERIOD {
            self.level = if self.spent * USUAL_SHARE <= passed {
                Some(Level::Usual)
            } else if self.spent * FAST_SHARE <= passed {
                Some(Level::Fast)
            } else {
                None
            };
            (self.since, self.spent) = (now, Duration::ZERO);
        }
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_follows_the_share_of_the_last_period() {
        let start = Instant::now();
        let mut effort = Effort::new(start);
        let ms = Duration::from_millis;
        effort.on_spent(ms(100));
        assert_eq!(effort.level(start + ms(249)), Some(Level::Usual), "the period is not over");
        assert_eq!(effort.level(start + ms(250)), None, "two fifths");
        assert_eq!(effort.level(start + ms(400)), None);
        assert_eq!(effort.level(start + ms(500)), Some(Level::Usual), "nothing was spent");
        effort.on_spent(ms(50));
        assert_eq!(effort.level(start + ms(750)), Some(Level::Fast), "a fifth");
        effort.on_spent(ms(25));
        assert_eq!(effort.level(start + ms(1_000)), Some(Level::Usual), "a tenth");
    }
}
