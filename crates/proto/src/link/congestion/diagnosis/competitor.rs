//! Whether a competitor fills the queue of a steady link: a flow that does not yield to delay.
//!
//! The bond's rate falls, and a queue stands: either the link became slower, or a competitor
//! has a part of it. At any one moment the two look the same, since in a first-in first-out queue
//! every flow's delay follows from what it sends and gets. The consequence of yielding tells them
//! apart: in the first case the queue drains; in the second the competitor takes what is left to
//! it, and C seems to fall further and further.
//!
//! So from the first sign of a queue on a link whose C was steady, then or 2 s before, it is
//! counted by how much the queue should have become shorter. The link is *contested* when
//! - that is [`YIELDED_S`], and as much as the longest queue seen,
//! - after [`STANDS_FOR`] and a round trip in which the delay never came back,
//! - at least a third of the longest queue is still there, and C is less than it was.
//!
//! A delay that is steady for [`QUIET`] at what was taken for the new base is a longer path. On a
//! link that varies nothing is concluded: its queue is kept on purpose, and its C does fall. A
//! queue no longer than what is kept on purpose is no competitor's.
//!
//! Measured: docs/decisions/0013-competitor-on-a-steady-link.md.

use std::time::Duration;

use crate::link::congestion::params::{
    ALONE_WINDOW_MS, DRAINING, FALLEN, QUIET, SAMPLE_GAP_MAX_S, STANDS_FOR, STEADY_LATELY, STILL_STANDS,
    YIELDED_S,
};
use crate::link::window::MaxRate;
use crate::time::Instant;

/// What an observation says.
#[derive(Debug, Clone, Copy)]
pub(in crate::link::congestion) struct Seen {
    pub(in crate::link::congestion) delay_us: i64,
    /// The least delay lately, and the queue above it.
    pub(in crate::link::congestion) base_us: i64,
    pub(in crate::link::congestion) queue_s: f64,
    /// What is no queue: noise, and a datagram's own time.
    pub(in crate::link::congestion) noise_s: f64,
    pub(in crate::link::congestion) empty_s: f64,
    /// The queue that is kept on purpose.
    pub(in crate::link::congestion) kept_s: f64,
    /// Share of C that is paced at.
    pub(in crate::link::congestion) gain: f64,
    /// C.
    pub(in crate::link::congestion) rate_bps: f64,
    /// C varied little lately.
    pub(in crate::link::congestion) is_steady: bool,
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

/// The detector.
#[derive(Debug, Clone)]
pub(in crate::link::congestion) struct CompetitorDetector {
    standing: Option<Standing>,
    /// C without a queue.
    alone: MaxRate<ALONE_WINDOW_MS>,
    /// When C varied little last.
    steady_at: Option<Instant>,
}

impl CompetitorDetector {
    pub(in crate::link::congestion) fn new() -> Self {
        Self { standing: None, alone: MaxRate::new(), steady_at: None }
    }

    /// What the link carried for the bond before a competitor was suspected, bit/s; 0: not known.
    pub(in crate::link::congestion) fn alone_bps(&self, now: Instant) -> f64 {
        self.alone.bps(now)
    }

    /// The least delay before the queue stood.
    pub(in crate::link::congestion) fn base_us(&self) -> Option<i64> {
        self.standing.map(|standing| standing.base_us)
    }

    /// The suspicion is over.
    pub(in crate::link::congestion) const fn end(&mut self) {
        self.standing = None;
    }

    /// Takes an observation. The least delay before the queue stood, µs, if the link is contested.
    pub(in crate::link::congestion) fn on_observation(
        &mut self,
        seen: &Seen,
        rtt_min: Duration,
        now: Instant,
    ) -> Option<i64> {
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
            standing.expected_s += step_s.min(SAMPLE_GAP_MAX_S) * (1.0 - seen.gain);
        }
        standing.quiet_since = (seen.queue_s <= drained_s).then(|| standing.quiet_since.unwrap_or(now));
        let is_quiet = standing.quiet_since.is_some_and(|since| now.saturating_since(since) >= QUIET);
        if above_s <= drained_s || is_quiet {
            self.standing = None;
            return None;
        }
        let is_contested = now.saturating_since(standing.since) >= STANDS_FOR + rtt_min
            && standing.expected_s >= YIELDED_S.max(standing.longest_s)
            && above_s >= standing.longest_s / STILL_STANDS
            && seen.rate_bps < alone_bps * FALLEN;
        is_contested.then_some(standing.base_us)
    }
}
