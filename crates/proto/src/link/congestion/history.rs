//! The delivery history: the observations of the last round trips, and what two of them tell of the
//! time between. It knows no estimate of the link's rate.
//!
//! What was sent between two observations arrived in the time between their sending and the change
//! of the delay. Both are averages, so chance at the edges of a window is as small as averages make
//! it, and datagrams that overtake each other change nothing. What is lost did not arrive.

use std::collections::VecDeque;
use std::time::Duration;

use super::observation::Observation;
use super::params::{CHANGE, IDLE_ROOM, IDLE_SHARE, SAMPLE_STEP_US, SAMPLES_MAX, STALL_MIN_US, STALL_OTHERS};
use crate::time::Instant;

/// One observation.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeliveryPoint {
    /// When it arrived, µs of this host's clock with an unknown offset.
    pub(super) arrived_us: i64,
    pub(super) sent_at: Instant,
    pub(super) sent: u64,
    pub(super) lost: u64,
    pub(super) lost_rows: u64,
    pub(super) idle_us: u64,
    pub(super) queue_s: f64,
}

/// The time between two samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Over the time in which it arrived.
    pub(super) delivered_bps: f64,
    /// Over the time in which it was sent.
    pub(super) sent_bps: f64,
    /// Share of what was sent.
    pub(super) loss: f64,
    /// In how many rows.
    pub(super) lost_rows: u64,
    /// The pacer was used to the full.
    pub(super) is_full: bool,
    /// The same as `delivered_bps` over the time without a pause that is longer than all others.
    pub(super) regular_bps: f64,
}

impl Span {
    /// Whether it took longer to arrive than to be sent: the queue grew.
    pub(super) fn grows(&self) -> bool {
        self.delivered_bps < self.sent_bps * (1.0 - self.loss) * (1.0 - CHANGE)
    }
}

/// The samples, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct DeliveryHistory {
    points: VecDeque<DeliveryPoint>,
}

impl DeliveryPoint {
    /// What an observation that met a queue of `queue_s` tells of deliveries.
    pub(super) fn new(seen: &Observation, queue_s: f64) -> Self {
        Self {
            arrived_us: i64::try_from(seen.sent_at.as_micros())
                .unwrap_or(i64::MAX)
                .saturating_add(seen.delay_us),
            sent_at: seen.sent_at,
            sent: seen.sent,
            lost: seen.lost,
            lost_rows: seen.lost_rows,
            idle_us: u64::try_from(seen.idle.as_micros()).unwrap_or(u64::MAX),
            queue_s,
        }
    }
}

impl DeliveryHistory {
    /// Adds a sample. One that arrived earlier than the last is no news.
    pub(super) fn push(&mut self, point: DeliveryPoint) {
        if let Some(last) = self.points.back() {
            if point.arrived_us <= last.arrived_us || point.sent_at <= last.sent_at {
                return;
            }
            let previous_us = self.points.len().checked_sub(2).and_then(|at| self.points.get(at));
            if let (Some(previous), Some(last)) = (previous_us.copied(), self.points.back_mut())
                && last.arrived_us < previous.arrived_us + SAMPLE_STEP_US
            {
                *last = DeliveryPoint { queue_s: point.queue_s.min(last.queue_s), ..point };
                return;
            }
        }
        if self.points.capacity() > IDLE_ROOM && self.points.len() < IDLE_ROOM / 2 {
            self.points.shrink_to(IDLE_ROOM);
        }
        if self.points.len() == SAMPLES_MAX {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// How far back they reach.
    pub(super) fn reach(&self) -> Duration {
        let (Some(first), Some(last)) = (self.points.front(), self.points.back()) else {
            return Duration::ZERO;
        };
        micros(last.arrived_us.saturating_sub(first.arrived_us))
    }

    /// What the last `window` tells; `None`: there are no samples that far apart.
    pub(super) fn span(&mut self, window: Duration) -> Option<Span> {
        let last = *self.points.back()?;
        let from = last.arrived_us.checked_sub(i64::try_from(window.as_micros()).ok()?)?;
        while self.points.get(1).is_some_and(|next| next.arrived_us <= from) {
            self.points.pop_front();
        }
        let first = self.points.front().filter(|first| first.arrived_us <= from)?;
        Some(between(first, &last, Pauses::default()))
    }

    /// What the newest samples tell that all met a queue of more than `empty_s`, if they reach back
    /// at least `least`; at most `most` counts.
    pub(super) fn busy_span(&self, empty_s: f64, least: Duration, most: Duration) -> Option<Span> {
        let last = self.points.back()?;
        let reach = |point: &DeliveryPoint| micros(last.arrived_us.saturating_sub(point.arrived_us));
        let busy = self.points.iter().rev().take_while(|point| point.queue_s > empty_s);
        let mut pauses = Pauses::default();
        let (mut first, mut next_us) = (last, last.arrived_us);
        for point in busy.skip(1).take_while(|point| reach(point) <= most) {
            pauses.note(next_us.saturating_sub(point.arrived_us).unsigned_abs());
            (first, next_us) = (point, point.arrived_us);
        }
        (reach(first) >= least).then(|| between(first, last, pauses))
    }

    /// Bytes found lost by the newest sample.
    pub(super) fn newly_lost(&self) -> u64 {
        let before = self.points.len().checked_sub(2).and_then(|at| self.points.get(at));
        match (before, self.points.back()) {
            (Some(before), Some(last)) => last.lost.saturating_sub(before.lost),
            _ => 0,
        }
    }
}

/// How far apart samples arrived.
#[derive(Debug, Clone, Copy, Default)]
struct Pauses {
    count: u32,
    longest_us: u64,
    second_us: u64,
}

impl Pauses {
    fn note(&mut self, pause_us: u64) {
        self.count += 1;
        if pause_us > self.longest_us {
            (self.longest_us, self.second_us) = (pause_us, self.longest_us);
        } else {
            self.second_us = self.second_us.max(pause_us);
        }
    }

    /// By how much the longest exceeds the next, where that is the stall of a host; µs.
    fn stall_us(self) -> u64 {
        let excess_us = self.longest_us.saturating_sub(self.second_us);
        let is_stall =
            self.count > STALL_OTHERS && excess_us >= STALL_MIN_US && excess_us >= self.second_us / 2;
        if is_stall { excess_us } else { 0 }
    }
}

/// A time that is not negative.
fn micros(us: i64) -> Duration {
    Duration::from_micros(us.max(0).unsigned_abs())
}

/// What happened from `first` to `last`.
fn between(first: &DeliveryPoint, last: &DeliveryPoint, pauses: Pauses) -> Span {
    let sending = last.sent_at.saturating_since(first.sent_at).as_secs_f64().max(1e-6);
    let arriving = last.arrived_us.saturating_sub(first.arrived_us).max(1) as f64 / 1e6;
    let regular = arriving - pauses.stall_us() as f64 / 1e6;
    let sent = last.sent.saturating_sub(first.sent) as f64;
    let lost = last.lost.saturating_sub(first.lost) as f64;
    let delivered = (sent - lost).max(0.0);
    let idle = last.idle_us.saturating_sub(first.idle_us) as f64 / 1e6;
    Span {
        delivered_bps: delivered * 8.0 / arriving,
        regular_bps: delivered * 8.0 / regular.max(1e-6),
        sent_bps: sent * 8.0 / sending,
        loss: if lost > 0.0 { lost / (lost + delivered) } else { 0.0 },
        lost_rows: last.lost_rows.saturating_sub(first.lost_rows),
        is_full: idle <= sending * IDLE_SHARE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE_S: f64 = 0.005;
    const WINDOW: Duration = Duration::from_millis(80);

    /// Samples of a busy link, 10 ms apart, each `bytes` more.
    fn push(history: &mut DeliveryHistory, at_ms: u64, delivered: u64) {
        history.push(DeliveryPoint {
            arrived_us: i64::try_from(at_ms * 1_000).unwrap(),
            sent_at: Instant::from_nanos(at_ms * 1_000_000),
            sent: delivered,
            lost: 0,
            lost_rows: 0,
            idle_us: 0,
            queue_s: QUEUE_S,
        });
    }

    fn busy(history: &DeliveryHistory) -> (f64, f64) {
        let span = history.busy_span(0.001, Duration::from_millis(20), WINDOW).unwrap();
        (span.delivered_bps / 1e6, span.regular_bps / 1e6)
    }

    #[test]
    fn a_pause_is_no_rate_and_a_slower_link_is() {
        let mut history = DeliveryHistory::default();
        for step in 0..8 {
            push(&mut history, step * 10, step * 10_000);
        }
        let (delivered, regular) = busy(&history);
        assert!(
            (delivered - 8.0).abs() < 0.01 && (regular - delivered).abs() < 0.01,
            "{delivered} {regular}"
        );
        // Nothing for 40 ms, and then as before.
        push(&mut history, 110, 80_000);
        let (delivered, regular) = busy(&history);
        assert!(delivered < 5.1 && (regular - 8.0).abs() < 0.1, "{delivered} {regular}");
        // A fifth of the rate, samples five times as far apart.
        for step in 1..=4 {
            push(&mut history, 110 + step * 50, 80_000 + step * 10_000);
        }
        let (delivered, regular) = busy(&history);
        assert!((delivered - 1.6).abs() < 0.1 && (regular - 1.6).abs() < 0.1, "{delivered} {regular}");
    }
}
