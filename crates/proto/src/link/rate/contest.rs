//! Whether somebody fills the queue of a steady link who does not yield to delay.
//!
//! What arrives of ours falls, and a queue stands: either the link became slower, or it is shared. At any one moment the two look the same, since
//! in a first-in first-out queue everybody's delay follows from what he sends and gets. What tells is what comes of yielding: in the first case
//! the queue drains, in the second somebody takes what is left to him, and C seems to fall further and further.
//!
//! So from the first sign of a queue on a link whose C was steady, then or 2 s before, it is counted by how much the queue should have become
//! shorter. The link is *contested* when that is [`EXPECTED_S`], and as much as the longest queue seen, after [`LEAST`] and a round trip in
//! which the delay never came back, at least a third of the longest queue is still there, and C is less than it was. (A step to a fifth of the rate is over by then.)
//! A delay that is steady for [`QUIET`] at what was taken for the new base is a longer path.
//!
//! On a link that varies nothing is concluded: its queue is kept on purpose, and its C does fall. A queue no longer than what is kept on purpose is nobody else's.
//! (Simulated: without that a link that fell to a fifth of its rate was taken for a shared one 2.6 s later; `varying`, one TCP flow and one seed, had 71 instead of 85 %.)

use std::time::Duration;

use super::DRAINING;
use crate::link::window::MaxRate;
use crate::time::Instant;

const EXPECTED_S: f64 = 0.06;
/// What is left of C on a contested link is less than this.
const FALLEN: f64 = 0.9;
const LEAST: Duration = Duration::from_millis(700);
const QUIET: Duration = Duration::from_millis(300);
/// What the link carried alone is the most that it carried within this time while it was steady and had no queue: somebody who comes and goes, or whose first
/// packets make a short queue, lowers C before he is suspected.
const ALONE_WINDOW: Duration = Duration::from_secs(20);
/// A link that was steady no longer ago than this was so before the queue: somebody's slow start lowers C in lumps.
const STEADY_LATELY: Duration = Duration::from_secs(2);
/// Samples further apart than this say nothing of the time between.
const STEP_MAX_S: f64 = 0.1;

/// What a sample says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) delay_us: i64,
    /// The least delay lately, and the queue above it.
    pub(super) base_us: i64,
    pub(super) queue_s: f64,
    /// What is no queue: noise, and a datagram's own time.
    pub(super) noise_s: f64,
    pub(super) empty_s: f64,
    /// The queue that is kept on purpose.
    pub(super) kept_s: f64,
    /// Share of C that is paced at.
    pub(super) gain: f64,
    /// C.
    pub(super) rate_bps: f64,
    /// C varied little lately.
    pub(super) is_steady: bool,
}

/// A queue that stands.
#[derive(Debug, Clone, Copy)]
struct Standing {
    since: Instant,
    /// The least delay before.
    base_us: i64,
    longest_s: f64,
    /// By how much it should have become shorter.
    expected_s: f64,
    quiet_since: Option<Instant>,
    at: Instant,
}

/// The suspicion.
#[derive(Debug, Clone)]
pub(super) struct Contest {
    standing: Option<Standing>,
    /// C without a queue.
    alone: MaxRate,
    /// When C varied little last.
    steady_at: Option<Instant>,
}

impl Contest {
    pub(super) fn new() -> Self {
        Self { standing: None, alone: MaxRate::new(ALONE_WINDOW), steady_at: None }
    }

    /// What the link carried of ours when nobody was suspected; 0: not known.
    pub(super) fn alone_bps(&self, now: Instant) -> f64 {
        self.alone.bps(now)
    }

    /// The least delay before the queue stood.
    pub(super) fn base_us(&self) -> Option<i64> {
        self.standing.map(|standing| standing.base_us)
    }

    /// The suspicion is over.
    pub(super) const fn end(&mut self) {
        self.standing = None;
    }

    /// Takes a sample. The least delay before the queue stood, if the link is contested.
    pub(super) fn on_sample(&mut self, seen: &Seen, rtt_min: Duration, now: Instant) -> Option<i64> {
        let alone_bps = self.alone_bps(now);
        let drained_s = 2.0 * seen.empty_s + seen.kept_s;
        let Some(standing) = &mut self.standing else {
            if seen.is_steady {
                self.steady_at = Some(now);
            }
            if seen.queue_s <= drained_s {
                if seen.is_steady {
                    self.alone.push(seen.rate_bps, now);
                }
            } else if self.steady_at.is_some_and(|at| now.saturating_since(at) < STEADY_LATELY) {
                self.standing = Some(Standing {
                    since: now,
                    base_us: seen.base_us,
                    longest_s: seen.queue_s,
                    expected_s: 0.0,
                    quiet_since: None,
                    at: now,
                });
            }
            return None;
        };
        let above_s = seen.delay_us.saturating_sub(standing.base_us) as f64 / 1e6 - seen.noise_s;
        standing.longest_s = standing.longest_s.max(above_s);
        let step_s = now.saturating_since(std::mem::replace(&mut standing.at, now)).as_secs_f64();
        if seen.gain < DRAINING {
            standing.expected_s += step_s.min(STEP_MAX_S) * (1.0 - seen.gain);
        }
        standing.quiet_since = (seen.queue_s <= seen.empty_s).then(|| standing.quiet_since.unwrap_or(now));
        let is_quiet = standing.quiet_since.is_some_and(|since| now.saturating_since(since) >= QUIET);
        if above_s <= drained_s || is_quiet {
            self.standing = None;
            return None;
        }
        let is_contested = now.saturating_since(standing.since) >= LEAST + rtt_min
            && standing.expected_s >= EXPECTED_S.max(standing.longest_s)
            && above_s >= standing.longest_s / 3.0
            && seen.rate_bps < alone_bps * FALLEN;
        is_contested.then_some(standing.base_us)
    }
}
