//! Competing: the link has a competitor that fills its queue and does not yield to delay, so the
//! control behaves as one TCP flow would.
//!
//! What is in flight follows CUBIC (RFC 9438): it falls to 70 % at a loss, once a round trip, and
//! comes back along a cubic, or as Reno would where that is more. It does not grow while less is
//! sent than it allows.
//!
//! CUBIC alone begins with what is left after yielding, and late, and does not find its share. But
//! what the link carried before is known: half of that is the *fair share* beside one flow. Up to
//! it
//! - the rate is kept: what is in flight follows the round trip, so only a loss, and no delay,
//!   makes it less;
//! - the way back is an exponential with half the time in which CUBIC makes good one decrease
//!   there: 1.6 s on a link of 10 Mbit/s with a round trip of 100 ms, 2.7 s with 50 Mbit/s. It
//!   begins with what is left, so a link without a competitor after all is found out before much
//!   waits in it.
//!
//! Where what was carried before is not known (a link that varies), it is CUBIC alone.
//!
//! Every [`TEST_EVERY`] only half of what arrived is sent for as long as a queue of the bond alone
//! would take to drain. The competitor is gone as soon as the delay comes down to where it was
//! before the queue stood, or as nine tenths of what the link carried before arrive of the bond's.
//!
//! Measured: docs/decisions/0014-share-beside-a-competitor.md.

use std::time::Duration;

use super::diagnosis::Cause;
use super::evidence::Evidence;
use super::history::Span;
use super::observation::Observation;
use super::params::{
    ALL, COME_BACK, CUBIC_BETA, CUBIC_C, DATAGRAM_BYTES, FAIR, GONE_S, RATE_MIN_BPS, TEST_EVERY, WINDOW_MIN,
};
use super::steady::Steady;
use crate::time::Instant;

/// What may be in flight, as CUBIC says (RFC 9438); datagrams.
#[derive(Debug, Clone, Copy)]
struct Cubic {
    window: f64,
    /// When growth began after the last decrease, the window to come back to, and after how many
    /// seconds (W_max and K).
    epoch: Option<(Instant, f64, f64)>,
    window_max: f64,
    /// What Reno would have in flight.
    reno: f64,
}

impl Cubic {
    const fn new(window: f64) -> Self {
        Self { window, epoch: None, window_max: window, reno: window }
    }

    /// Grows for `span_s` on a link with this round trip.
    fn grow(&mut self, span_s: f64, rtt_s: f64, now: Instant) {
        let window = self.window;
        let (begun, origin, back_s) = *self.epoch.get_or_insert_with(|| {
            let origin = self.window_max.max(window);
            (now, origin, ((origin - window) / CUBIC_C).cbrt())
        });
        let rounds = span_s / rtt_s;
        // RFC 9438 §4.3: so much a round trip gives a Reno flow with this decrease the same mean.
        self.reno += 3.0 * (1.0 - CUBIC_BETA) / (1.0 + CUBIC_BETA) * rounds;
        let time_s = now.saturating_since(begun).as_secs_f64();
        let wanted = (origin + CUBIC_C * (time_s - back_s).powi(3)).max(self.reno);
        // RFC 9438 §4.4: at most half more in a round trip.
        self.window += (wanted - window).clamp(0.0, window / 2.0 * rounds);
    }

    /// RFC 9438 §5.8: time in which the window was not used does not count.
    fn pause(&mut self, span_s: f64) {
        if let Some((begun, ..)) = &mut self.epoch {
            *begun = *begun + Duration::from_secs_f64(span_s);
        }
    }

    fn decrease(&mut self) {
        // RFC 9438 §4.7: a flow whose maximum falls makes room for those that came later.
        let is_less = self.window < self.window_max;
        self.window_max = if is_less { self.window * (1.0 + CUBIC_BETA) / 2.0 } else { self.window };
        self.window = (self.window * CUBIC_BETA).max(WINDOW_MIN);
        self.reno = self.window;
        self.epoch = None;
    }
}

/// The test whether the competitor is gone.
#[derive(Debug, Clone, Copy)]
struct GoneTest {
    next_at: Instant,
    /// A test under way: until when, and what is sent meanwhile, bit/s.
    running: Option<(Instant, f64)>,
    /// The least delay seen since the last test began or ended, µs.
    least_us: i64,
}

impl GoneTest {
    fn new(now: Instant) -> Self {
        Self { next_at: now + TEST_EVERY, running: None, least_us: i64::MAX }
    }

    /// Takes a delay. A test that begins now takes `length_s`, and sends half of what is delivered.
    fn on_delay(&mut self, delay_us: i64, length_s: f64, delivered_bps: f64, now: Instant) {
        self.least_us = self.least_us.min(delay_us);
        match self.running {
            None if now >= self.next_at => {
                let until = now + Duration::from_secs_f64(length_s);
                self.running = Some((until, delivered_bps / 2.0));
                self.least_us = i64::MAX;
            }
            Some((until, _)) if now >= until => *self = Self::new(now),
            Some(_) | None => {}
        }
    }

    /// Whether the delay came down to `base_us`.
    fn has_drained(&self, base_us: i64) -> bool {
        self.least_us != i64::MAX && (self.least_us.saturating_sub(base_us) as f64) / 1e6 < GONE_S
    }
}

/// The state of the phase.
#[derive(Debug, Clone)]
pub(super) struct Competing {
    cubic: Cubic,
    /// What the link carried for the bond without a competitor, bit/s; 0: not known.
    alone_bps: f64,
    /// The least delay when it began, µs, and the round trip without a queue.
    base_us: i64,
    rtt_min_s: f64,
    queue_s: f64,
    /// Losses of what was sent before are answered.
    decreased_at: Instant,
    grown_at: Instant,
    test: GoneTest,
    /// The phase before, which goes on when the competitor is gone.
    resumes: Steady,
}

impl Competing {
    /// On a link that carried `alone_bps` for the bond (0: not known) before a competitor filled
    /// its queue, now of `queue_s`, and carries `rate_bps` for the bond since.
    pub(super) fn new(
        resumes: Steady,
        (alone_bps, rate_bps): (f64, f64),
        rtt_min: Duration,
        queue_s: f64,
        base_us: i64,
        now: Instant,
    ) -> Self {
        let rtt_min_s = rtt_min.as_secs_f64();
        let datagrams = rate_bps / 8.0 * (rtt_min_s + queue_s) / DATAGRAM_BYTES;
        Self {
            cubic: Cubic::new(datagrams.max(WINDOW_MIN)),
            alone_bps,
            base_us,
            rtt_min_s,
            queue_s,
            decreased_at: now,
            grown_at: now,
            test: GoneTest::new(now),
            resumes,
        }
    }

    /// The phase before.
    pub(super) const fn steady(&self) -> Steady {
        self.resumes
    }

    fn rtt_s(&self) -> f64 {
        (self.rtt_min_s + self.queue_s).max(1e-3)
    }

    /// What the share allows, bit/s.
    fn fair_bps(&self) -> f64 {
        self.cubic.window * DATAGRAM_BYTES * 8.0 / self.rtt_s()
    }

    /// What to pace at, bit/s.
    pub(super) fn paced_bps(&self) -> f64 {
        self.test.running.map_or_else(|| self.fair_bps(), |(_, rate_bps)| rate_bps)
    }

    /// Takes an observation, which `evidence` has. The phase before, where the competitor is gone.
    pub(super) fn on_observation(
        &mut self,
        evidence: &mut Evidence,
        seen: &Observation,
        now: Instant,
    ) -> Option<Steady> {
        let span = evidence.span(now)?;
        let is_congested = evidence.history.newly_lost() > 0 || evidence.marks.is_marked();
        let is_gone = self.follow(seen, &span, is_congested, now);
        evidence.model.set(self.fair_bps().max(RATE_MIN_BPS), Cause::Competitor, now);
        if !is_gone {
            return None;
        }
        evidence.model.set(span.delivered_bps.max(RATE_MIN_BPS), Cause::CompetitorGone, now);
        evidence.drain.forget_failures();
        let mut steady = self.resumes;
        steady.set_fresh();
        evidence.drain.on_empty(now);
        Some(steady)
    }

    /// Takes an observation, which told of a loss or a mark (`is_congested`) or not. `true`: the
    /// competitor is gone.
    fn follow(&mut self, seen: &Observation, span: &Span, is_congested: bool, now: Instant) -> bool {
        self.note_queue(seen.delay_us.saturating_sub(self.base_us).max(0) as f64 / 1e6);
        if is_congested && seen.sent_at >= self.decreased_at {
            self.cubic.decrease();
            self.decreased_at = now;
        }
        let span_s = now.saturating_since(self.grown_at).as_secs_f64().min(self.rtt_s());
        self.grown_at = now;
        let is_testing = self.test.running.is_some();
        if span.is_full && !is_testing {
            self.cubic.grow(span_s, self.rtt_s(), now);
        } else {
            self.cubic.pause(span_s);
        }
        if !is_testing {
            self.come_back(span_s);
        }
        let length_s = self.queue_s * 2.0 + self.rtt_s();
        self.test.on_delay(seen.delay_us, length_s, span.delivered_bps, now);
        let carries_all = self.alone_bps > 0.0 && span.delivered_bps >= self.alone_bps * ALL;
        carries_all || self.test.has_drained(self.base_us)
    }

    /// What is in flight at the fair share, datagrams; 0: not known.
    fn fair(&self) -> f64 {
        self.alone_bps * FAIR / 8.0 * self.rtt_s() / DATAGRAM_BYTES
    }

    /// The queue is this long. No more than the fair share follows no delay: the rate is kept.
    fn note_queue(&mut self, queue_s: f64) {
        let (is_fair, before_s) = (self.cubic.window <= self.fair(), self.rtt_s());
        self.queue_s = queue_s;
        if is_fair {
            self.cubic.window *= self.rtt_s() / before_s;
        }
    }

    /// Comes nearer to the fair share for `span_s`.
    fn come_back(&mut self, span_s: f64) {
        let (fair, window) = (self.fair(), self.cubic.window);
        if window < fair {
            let back_s = (fair * (1.0 - CUBIC_BETA) / CUBIC_C).cbrt() * COME_BACK;
            let most = window / 2.0 * span_s / self.rtt_s();
            self.cubic.window += ((fair - window) * span_s / back_s).min(most);
        }
    }
}
