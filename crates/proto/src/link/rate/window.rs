//! Samples of the last round trips, and what two of them tell of the time between.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;

/// Samples closer together than this are one.
const STEP_US: u64 = 2_000;
const MARKS_MAX: usize = 256;
/// An idle link keeps room for so many.
const IDLE_ROOM: usize = 8;

/// The pacer counts as used to the full if it was idle for less than this share of the time.
const IDLE_SHARE: f64 = 0.05;

/// One sample; see [`super::Sample`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) arrived_us: u64,
    pub(super) sent_at: Instant,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) idle: Duration,
    pub(super) queue_s: f64,
}

/// The time between two samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Over the time in which it arrived.
    pub(super) delivered_bps: f64,
    /// Over the time in which it was sent.
    pub(super) sent_bps: f64,
    /// Share of what was sent, and bytes.
    pub(super) loss: f64,
    pub(super) lost_bytes: f64,
    /// The pacer was used to the full.
    pub(super) is_full: bool,
}

/// The samples, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    marks: VecDeque<Mark>,
}

impl Marks {
    /// Adds a sample. One that arrived earlier than the last is no news.
    pub(super) fn push(&mut self, mark: Mark) {
        if let Some(last) = self.marks.back_mut() {
            if mark.arrived_us <= last.arrived_us || mark.sent_at <= last.sent_at {
                last.delivered = last.delivered.max(mark.delivered);
                return;
            }
            let previous_us = self.marks.len().checked_sub(2).and_then(|at| self.marks.get(at));
            if let (Some(previous), Some(last)) = (previous_us.copied(), self.marks.back_mut())
                && last.arrived_us < previous.arrived_us + STEP_US
            {
                *last = Mark { queue_s: mark.queue_s.min(last.queue_s), ..mark };
                return;
            }
        }
        if self.marks.capacity() > IDLE_ROOM && self.marks.len() < IDLE_ROOM / 2 {
            self.marks.shrink_to(IDLE_ROOM);
        }
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back(mark);
    }

    /// How far back they reach.
    pub(super) fn reach(&self) -> Duration {
        let (Some(first), Some(last)) = (self.marks.front(), self.marks.back()) else {
            return Duration::ZERO;
        };
        Duration::from_micros(last.arrived_us.saturating_sub(first.arrived_us))
    }

    /// What the last `window` tells; `None`: there are no samples that far apart.
    pub(super) fn span(&mut self, window: Duration) -> Option<Span> {
        let last = *self.marks.back()?;
        let window_us = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        let from = last.arrived_us.checked_sub(window_us)?;
        while self.marks.get(1).is_some_and(|next| next.arrived_us <= from) {
            self.marks.pop_front();
        }
        let first = self.marks.front().filter(|first| first.arrived_us <= from)?;
        Some(between(first, &last))
    }

    /// What the newest samples tell that all met a queue of more than `empty_s`, if they reach back at least `least`, and `most` at
    /// most.
    pub(super) fn busy_span(&self, empty_s: f64, least: Duration, most: Duration) -> Option<Span> {
        let last = self.marks.back()?;
        let reach = |mark: &Mark| Duration::from_micros(last.arrived_us.saturating_sub(mark.arrived_us));
        let busy = self.marks.iter().rev().take_while(|mark| mark.queue_s > empty_s);
        let first = busy.take_while(|mark| reach(mark) <= most).last()?;
        (reach(first) >= least).then(|| between(first, last))
    }

    /// Bytes found lost by the newest sample.
    pub(super) fn newly_lost(&self) -> u64 {
        let before = self.marks.len().checked_sub(2).and_then(|at| self.marks.get(at));
        match (before, self.marks.back()) {
            (Some(before), Some(last)) => last.lost.saturating_sub(before.lost),
            _ => 0,
        }
    }
}

/// What happened from `first` to `last`.
fn between(first: &Mark, last: &Mark) -> Span {
    let arriving = last.arrived_us.saturating_sub(first.arrived_us).max(1) as f64 / 1e6;
    let sending = last.sent_at.saturating_since(first.sent_at).as_secs_f64().max(1e-6);
    let delivered = last.delivered.saturating_sub(first.delivered) as f64;
    let lost = last.lost.saturating_sub(first.lost) as f64;
    let idle = last.idle.saturating_sub(first.idle).as_secs_f64();
    Span {
        delivered_bps: delivered * 8.0 / arriving,
        sent_bps: last.sent.saturating_sub(first.sent) as f64 * 8.0 / sending,
        loss: if lost > 0.0 { lost / (lost + delivered) } else { 0.0 },
        lost_bytes: lost,
        is_full: idle <= sending * IDLE_SHARE,
    }
}
