//! A queue that is not ours: the path became longer, or somebody else fills it.
//!
//! Where the queue should have drained by [`VAIN_S`], or by itself, and did not by half of that, what is measured now is the new base: a longer
//! path. Three times, each within [`VAIN_WITHIN`] of the last, is no path: the link is shared. On a steady link `contest` finds that out sooner,
//! and what the link carried before says how much of it is ours.

use std::time::Duration;

use super::contest::Seen;
use super::delay::{Base, NOISE_HEADROOM};
use super::shared::Shared;
use super::{DRAINING, Phase, RATE_MIN_BPS, RateControl, Sample, VOLATILE};
use crate::time::Instant;

/// A queue that should have drained by this much, or by itself where that is more (at most three times this), and did not by half of it, is none.
const VAIN_S: f64 = 0.01;

/// A queue that changed by no more than this share did not change.
const FLAT: f64 = 0.25;

/// Three queues that did not drain are a rival's when no more than this lies between two.
const VAIN_WITHIN: Duration = Duration::from_secs(2);

/// A link whose queue did not drain within this time may be shared, and what it loses is no chance.
const CONTESTED_FOR: Duration = Duration::from_secs(5);

/// Whether a queue drains that should.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vain {
    /// Only what was sent from here on met less of ours.
    pub(super) from: Instant,
    /// The newest send time looked at, and bytes sent up to then; `None`: none yet.
    pub(super) at: Option<(Instant, u64)>,
    pub(super) queue_s: f64,
    /// How much shorter the queue should have become: by what was held back, or what there was not to send.
    pub(super) expected_s: f64,
}

impl RateControl {
    /// Whether somebody fills the queue of a steady link who does not yield.
    pub(super) fn note_contest(&mut self, sample: &Sample, now: Instant) {
        let seen = Seen {
            delay_us: sample.delay_us,
            base_us: self.base_before(sample, now),
            queue_s: self.queue_s,
            noise_s: self.noise_s * NOISE_HEADROOM,
            empty_s: self.empty_s(),
            kept_s: self.kept_s(now).max(0.0),
            gain: self.gain,
            rate_bps: self.rate_bps,
            is_steady: self.volatility(now) < VOLATILE / 2.0,
        };
        if let Some(base_us) = self.contest.on_sample(&seen, self.rtt_min, now) {
            self.share(sample, base_us, now);
        }
    }

    /// The queue that did not drain lately, if there was one.
    fn recent_vain(&self, now: Instant) -> Option<(u32, i64)> {
        let recent = self.vain_at.filter(|(at, ..)| now.saturating_since(*at) < VAIN_WITHIN);
        recent.map(|(_, times, base_us)| (times, base_us))
    }

    /// The least delay before anything was suspected: what was taken for a longer path since may be a queue.
    fn base_before(&self, sample: &Sample, now: Instant) -> i64 {
        let recent = self.recent_vain(now).map(|(_, base_us)| base_us).or(self.contest.base_us());
        recent.unwrap_or_else(|| self.base.us(now).unwrap_or(sample.delay_us))
    }

    /// Somebody else fills the queue: from now on the link is shared.
    pub(super) fn share(&mut self, sample: &Sample, base_us: i64, now: Instant) {
        let queue_s = sample.delay_us.saturating_sub(base_us).max(0) as f64 / 1e6;
        let rates = (self.contest.alone_bps(now), self.rate_bps);
        self.phase = Phase::Shared;
        self.shared = Some(Box::new(Shared::new(rates, self.rtt_min, queue_s, base_us, now)));
        self.contest.end();
    }

    /// Sees whether a queue drains that should.
    pub(super) fn note_vain(&mut self, sample: &Sample, now: Instant) {
        // The queue is believed to be gone: one that changed may be; one that is as long as ever was none.
        let is_flat = |vain: &Vain| (self.queue_s - vain.queue_s).abs() <= vain.queue_s * FLAT;
        // Whatever counts as a queue is asked: else it would lower C and never be found to be none.
        if self.queue_s <= self.empty_s() || (self.gain >= 1.0 && !self.vain.as_ref().is_some_and(is_flat)) {
            self.vain = None;
            return;
        }
        let start = Vain { from: now, at: None, queue_s: self.queue_s, expected_s: 0.0 };
        let vain = self.vain.get_or_insert(start);
        if sample.sent_at < vain.from {
            vain.queue_s = self.queue_s;
            return;
        }
        let Some((at, sent)) = vain.at.replace((sample.sent_at, sample.sent)) else {
            vain.queue_s = self.queue_s;
            return;
        };
        let span_s = sample.sent_at.saturating_since(at).as_secs_f64();
        vain.expected_s += if self.gain < 1.0 {
            span_s * (1.0 - self.gain)
        } else {
            let sent_s = sample.sent.saturating_sub(sent) as f64 * 8.0 / self.rate_bps;
            (span_s * DRAINING - sent_s).max(0.0)
        };
        let enough = VAIN_S.max(vain.queue_s.min(VAIN_S * 3.0));
        if vain.expected_s < enough {
            return;
        }
        let drained = vain.queue_s - self.queue_s;
        let (from, half) = (vain.from, vain.expected_s / 2.0);
        self.vain = None;
        if drained > half {
            self.vain_at = None;
            return;
        }
        self.on_vain(sample, from, now);
    }

    /// The queue is not ours: the path is longer, or somebody else fills it.
    fn on_vain(&mut self, sample: &Sample, from: Instant, now: Instant) {
        let base_us = self.base_before(sample, from);
        let times = self.recent_vain(from).map_or(1, |(times, _)| times + 1);
        self.vain_at = Some((now, times, base_us));
        if times >= 3 {
            self.share(sample, base_us, now);
            return;
        }
        if times == 1 {
            self.adopt(self.rate_bps.max(self.calm_bps), now);
        }
        self.base = Base::new();
        self.queue_s = 0.0;
        self.note_delay(sample, now);
    }

    pub(super) fn on_shared(&mut self, sample: &Sample, now: Instant) {
        let is_congested = self.marks.newly_lost() > 0 || self.is_marked();
        let Some(span) = self.marks.span(self.window()) else { return };
        let Some(shared) = &mut self.shared else { return };
        let is_gone = shared.on_sample(sample, is_congested, (span.delivered_bps, span.is_full), now);
        self.rate_bps = shared.fair_bps().max(RATE_MIN_BPS);
        if is_gone {
            self.rate_bps = span.delivered_bps.max(RATE_MIN_BPS);
            (self.phase, self.shared) = (Phase::Steady, None);
            self.is_fresh = true;
            self.vain_at = None;
            self.empty_at = now;
        }
    }

    /// Whether nothing stood in the link since this was asked last, and what was sent from `from` on was not more than it is known to carry: what was lost was
    /// not lost to a queue, ours or another's, nor to a policer while the rate was found out.
    pub(in crate::link) fn take_clear(&mut self, from: Instant, now: Instant) -> bool {
        let is_contested = self.phase == Phase::Shared
            || self.vain_at.is_some_and(|(at, ..)| now.saturating_since(at) < CONTESTED_FOR);
        let limit = 0.015_f64.max(self.rtt_min.as_secs_f64() / 4.0);
        std::mem::replace(&mut self.queue_max_s, self.queue_s) <= limit
            && !is_contested
            && self.pushed_until <= from
    }
}
