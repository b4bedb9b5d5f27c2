//! A link that is shared with somebody who fills its queue and does not yield to delay: behave as one TCP flow would.
//!
//! What is in flight grows by a datagram with each round trip, and falls to 70 % at a loss, once in a round trip (RFC 5681, RFC 9438: beside a cubic
//! flow on a short path that is its share). Every [`TEST_EVERY`] half of it is withheld for two round trips. As soon as the delay
//! comes down to where it was before the queue stood, the other one is gone.

use std::time::Duration;

use super::{DATAGRAM_BYTES, Sample};
use crate::time::Instant;

const INFLIGHT_MIN: f64 = 4.0 * DATAGRAM_BYTES;
const DECREASE: f64 = 0.7;
const TEST_EVERY: Duration = Duration::from_secs(5);
/// A queue below this is that of nobody who fills it.
const GONE_S: f64 = 0.005;

/// The control in this phase.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared {
    inflight_bytes: f64,
    /// The least delay when it began, and the round trip without a queue.
    base_us: i64,
    rtt_min_s: f64,
    queue_s: f64,
    decreased_at: Instant,
    grown_at: Instant,
    test_at: Instant,
    test_until: Option<Instant>,
    /// The least delay seen in the test.
    least_us: i64,
}

impl Shared {
    /// From what was carried at a queue of `queue_s`.
    pub(super) fn new(rate_bps: f64, rtt_min: Duration, queue_s: f64, base_us: i64, now: Instant) -> Self {
        let rtt_min_s = rtt_min.as_secs_f64();
        Self {
            inflight_bytes: (rate_bps / 8.0 * (rtt_min_s + queue_s)).max(INFLIGHT_MIN),
            base_us,
            rtt_min_s,
            queue_s,
            decreased_at: now,
            grown_at: now,
            test_at: now + TEST_EVERY,
            test_until: None,
            least_us: i64::MAX,
        }
    }

    fn rtt_s(&self) -> f64 {
        (self.rtt_min_s + self.queue_s).max(1e-3)
    }

    /// What to send at.
    pub(super) fn rate_bps(&self) -> f64 {
        let share = if self.test_until.is_some() { 0.5 } else { 1.0 };
        share * self.inflight_bytes * 8.0 / self.rtt_s()
    }

    /// Takes a sample with what it told to be `lost`. `true`: nobody else fills the queue any more.
    pub(super) fn on_sample(&mut self, sample: &Sample, lost: u64, queue_s: f64, now: Instant) -> bool {
        self.queue_s = queue_s.max((sample.delay_us.saturating_sub(self.base_us)).max(0) as f64 / 1e6);
        let round = Duration::from_secs_f64(self.rtt_s());
        if lost > 0 && now.saturating_since(self.decreased_at) >= round {
            self.inflight_bytes = (self.inflight_bytes * DECREASE).max(INFLIGHT_MIN);
            self.decreased_at = now;
        }
        let rounds = now.saturating_since(self.grown_at).as_secs_f64() / self.rtt_s();
        self.grown_at = now;
        self.inflight_bytes += rounds.min(1.0) * DATAGRAM_BYTES;
        if self.test_until.is_none() && now >= self.test_at {
            self.test_until = Some(now + round * 2);
            self.least_us = i64::MAX;
        }
        self.least_us = self.least_us.min(sample.delay_us);
        let gone = self.least_us.saturating_sub(self.base_us) as f64 / 1e6 < GONE_S;
        if self.test_until.is_some_and(|until| now >= until) {
            self.test_until = None;
            self.test_at = now + TEST_EVERY;
            self.least_us = i64::MAX;
        }
        gone && self.least_us != i64::MAX
    }
}
