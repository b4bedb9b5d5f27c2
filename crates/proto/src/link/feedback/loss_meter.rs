//! Loss of what was sent on one link, from the two counts that every heartbeat of the peer echoes.
//!
//! A link is nearly FIFO: when a heartbeat arrives, all that was sent before it has arrived or is
//! lost. So the loss between two echoes is 1 − Δreceived / Δsent. Reordering makes single intervals
//! wrong, never a window.
//!
//! The window is 5 s, longer on a quiet link: until it spans 2,000 datagrams, at most a minute. Ten
//! heartbeats a second would else forget a link's 2 % within seconds. What is older than 5 s is
//! kept in steps of 2 s: every idle link of every session has a minute of it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;

/// Window of a busy link. Chosen: a person's idea of "now".
const WINDOW: Duration = Duration::from_secs(5);
/// Longest window. Chosen: 600 heartbeats, of which 2 % are twelve.
const WINDOW_MAX: Duration = Duration::from_secs(60);
/// Datagrams that a window spans if it may. Chosen: 2 % of them are forty.
const DATAGRAMS: u64 = 2_000;

/// Echoes closer together than this are one. Chosen: below the interval of heartbeats.
const STEP: Duration = Duration::from_millis(80);

/// Beyond [`WINDOW`] points keep this distance. Chosen: memory of idle sessions.
const OLD_STEP: Duration = Duration::from_secs(2);

/// Time, and sums of what was sent and received.
type Point = (Instant, u64, u64);

/// Loss over the window.
#[derive(Debug, Clone, Default)]
pub(in crate::link) struct LossMeter {
    /// Beyond [`WINDOW`].
    old: VecDeque<Point>,
    /// At most one for each step.
    recent: VecDeque<Point>,
}

impl LossMeter {
    /// Of `sent` more datagrams, `received` arrived. More than were sent: some of those before were
    /// only late.
    pub(in crate::link) fn on_interval(&mut self, sent: u64, received: u64, now: Instant) {
        let (sum_sent, sum_received) = self.recent.back().map_or((0, 0), |point| (point.1, point.2));
        let point = (now, sum_sent.saturating_add(sent), sum_received.saturating_add(received));
        match self.recent.back_mut() {
            Some(last) if is_same_step(last.0, now) => (last.1, last.2) = (point.1, point.2),
            Some(_) | None => self.recent.push_back(point),
        }
        while let Some(next) = self.recent.get(1)
            && now.saturating_since(next.0) >= WINDOW
            && let Some(over) = self.recent.pop_front()
        {
            let last = self.old.back();
            if last.is_none_or(|last| over.0.saturating_since(last.0) >= OLD_STEP) {
                self.old.push_back(over);
            }
        }
        let is_enough = |next: &Point| {
            let (age, since) = (now.saturating_since(next.0), point.1.saturating_sub(next.1));
            age >= WINDOW_MAX || (age >= WINDOW && since >= DATAGRAMS)
        };
        while !self.old.is_empty() && self.old.get(1).or(self.recent.front()).is_some_and(is_enough) {
            self.old.pop_front();
        }
    }

    /// Lost share in permille; 0 while nothing is known.
    pub(in crate::link) fn permille(&self) -> u16 {
        let (Some(first), Some(last)) = (self.old.front().or(self.recent.front()), self.recent.back()) else {
            return 0;
        };
        let sent = last.1.saturating_sub(first.1);
        if sent == 0 {
            return 0;
        }
        let lost = sent.saturating_sub(last.2.saturating_sub(first.2));
        // The usual case.
        if lost == 0 {
            return 0;
        }
        u16::try_from(u128::from(lost) * 1_000 / u128::from(sent)).unwrap_or(1_000)
    }
}

/// Whether an echo at `now` belongs to the point made at `last`.
fn is_same_step(last: Instant, now: Instant) -> bool {
    now.saturating_since(last) < STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(tick: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(tick * 100)
    }

    #[test]
    fn a_busy_link_is_judged_by_five_seconds() {
        let mut loss = LossMeter::default();
        assert_eq!(loss.permille(), 0);
        for tick in 0..200u64 {
            loss.on_interval(100, if tick < 100 { 98 } else { 100 }, at(tick));
            if tick == 99 {
                assert_eq!(loss.permille(), 20);
            }
        }
        assert_eq!(loss.permille(), 0);
    }

    #[test]
    fn a_quiet_link_is_judged_by_a_minute() {
        let mut loss = LossMeter::default();
        for tick in 0..600u64 {
            loss.on_interval(1, u64::from(tick % 50 != 7), at(tick));
        }
        assert!((18..=22).contains(&loss.permille()), "{}", loss.permille());
        for tick in 600..1_300 {
            loss.on_interval(1, 1, at(tick));
        }
        assert_eq!(loss.permille(), 0);
    }

    #[test]
    fn hostile_counts_do_no_harm() {
        let mut loss = LossMeter::default();
        for tick in 0..100_000 {
            loss.on_interval(u64::MAX, 0, at(tick));
            loss.on_interval(0, u64::MAX, at(tick));
            assert!(loss.permille() <= 1_000 && loss.recent.len() <= 64 && loss.old.len() <= 32);
        }
    }
}
