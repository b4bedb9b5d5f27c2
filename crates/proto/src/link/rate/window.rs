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

/// A pause that is longer than each of so many others by this, and by half, is a stall.
const STALL_MIN_US: u64 = 5_000;
const STALL_OTHERS: u32 = 3;

/// One sample; see [`super::Sample`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) arrived_us: u64,
    pub(super) sent_at: Instant,
    pub(super) sent: u64,
    pub(super) delivered: u64,
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
    /// Share of what was sent, and bytes.
    pub(super) loss: f64,
    pub(super) lost_bytes: f64,
    /// In how many rows.
    pub(super) lost_rows: u64,
    /// The pacer was used to the full.
    pub(super) is_full: bool,
    /// The same as `delivered_bps` over the time in which it came regularly: without a pause that is longer than all others.
    pub(super) regular_bps: f64,
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
        Some(between(first, &last, Pauses::default()))
    }

    /// What the newest samples tell that all met a queue of more than `empty_s`, if they reach back at least `least`, and `most` at
    /// most.
    pub(super) fn busy_span(&self, empty_s: f64, least: Duration, most: Duration) -> Option<Span> {
        let last = self.marks.back()?;
        let reach = |mark: &Mark| Duration::from_micros(last.arrived_us.saturating_sub(mark.arrived_us));
        let busy = self.marks.iter().rev().take_while(|mark| mark.queue_s > empty_s);
        let mut pauses = Pauses::default();
        let (mut first, mut next_us) = (last, last.arrived_us);
        for mark in busy.skip(1).take_while(|mark| reach(mark) <= most) {
            pauses.note(next_us.saturating_sub(mark.arrived_us));
            (first, next_us) = (mark, mark.arrived_us);
        }
        (reach(first) >= least).then(|| between(first, last, pauses))
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

    /// By how much the longest exceeds the next, where that is a stall of somebody's; µs.
    fn stall_us(self) -> u64 {
        let excess_us = self.longest_us.saturating_sub(self.second_us);
        let is_stall =
            self.count > STALL_OTHERS && excess_us >= STALL_MIN_US && excess_us >= self.second_us / 2;
        if is_stall { excess_us } else { 0 }
    }
}

/// What happened from `first` to `last`.
fn between(first: &Mark, last: &Mark, pauses: Pauses) -> Span {
    let arriving = last.arrived_us.saturating_sub(first.arrived_us).max(1) as f64 / 1e6;
    let regular = arriving - pauses.stall_us() as f64 / 1e6;
    let sending = last.sent_at.saturating_since(first.sent_at).as_secs_f64().max(1e-6);
    let delivered = last.delivered.saturating_sub(first.delivered) as f64;
    let lost = last.lost.saturating_sub(first.lost) as f64;
    let idle = last.idle_us.saturating_sub(first.idle_us) as f64 / 1e6;
    Span {
        delivered_bps: delivered * 8.0 / arriving,
        regular_bps: delivered * 8.0 / regular.max(1e-6),
        sent_bps: last.sent.saturating_sub(first.sent) as f64 * 8.0 / sending,
        loss: if lost > 0.0 { lost / (lost + delivered) } else { 0.0 },
        lost_bytes: lost,
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
    fn push(marks: &mut Marks, at_ms: u64, delivered: u64) {
        marks.push(Mark {
            arrived_us: at_ms * 1_000,
            sent_at: Instant::from_nanos(at_ms * 1_000_000),
            sent: delivered,
            delivered,
            lost: 0,
            lost_rows: 0,
            idle_us: 0,
            queue_s: QUEUE_S,
        });
    }

    fn busy(marks: &Marks) -> (f64, f64) {
        let span = marks.busy_span(0.001, Duration::from_millis(20), WINDOW).unwrap();
        (span.delivered_bps / 1e6, span.regular_bps / 1e6)
    }

    #[test]
    fn a_pause_is_no_rate_and_a_slower_link_is() {
        let mut marks = Marks::default();
        for step in 0..8 {
            push(&mut marks, step * 10, step * 10_000);
        }
        let (delivered, regular) = busy(&marks);
        assert!(
            (delivered - 8.0).abs() < 0.01 && (regular - delivered).abs() < 0.01,
            "{delivered} {regular}"
        );
        // Nothing for 40 ms, and then as before.
        push(&mut marks, 110, 80_000);
        let (delivered, regular) = busy(&marks);
        assert!(delivered < 5.1 && (regular - 8.0).abs() < 0.1, "{delivered} {regular}");
        // A fifth of the rate, samples five times as far apart.
        for step in 1..=4 {
            push(&mut marks, 110 + step * 50, 80_000 + step * 10_000);
        }
        let (delivered, regular) = busy(&marks);
        assert!((delivered - 1.6).abs() < 0.1 && (regular - 1.6).abs() < 0.1, "{delivered} {regular}");
    }
}
