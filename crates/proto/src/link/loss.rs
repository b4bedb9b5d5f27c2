//! Loss of what we sent on one link, from the two counts that every heartbeat of the peer echoes.
//!
//! A link is nearly FIFO: when a heartbeat arrives, all that was sent before it has arrived or is lost. So the loss
//! between two echoes is 1 − Δreceived / Δsent. Reordering makes single intervals wrong, never the window of 5 s.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;

const WINDOW: Duration = Duration::from_secs(5);
const ENTRIES_MAX: usize = 128;

/// Loss over the last 5 s.
#[derive(Debug, Clone, Default)]
pub(super) struct LossMeter {
    echoes: VecDeque<(Instant, u64, u64)>,
}

impl LossMeter {
    /// The peer told that of the first `sent` datagrams `received` had arrived.
    pub(super) fn on_echo(&mut self, sent: u64, received: u64, now: Instant) {
        while let Some((at, ..)) = self.echoes.front()
            && (self.echoes.len() >= ENTRIES_MAX || now.saturating_since(*at) > WINDOW)
        {
            self.echoes.pop_front();
        }
        self.echoes.push_back((now, sent, received));
    }

    /// Lost share in permille; 0 while nothing is known.
    pub(super) fn permille(&self) -> u16 {
        let (Some(first), Some(last)) = (self.echoes.front(), self.echoes.back()) else {
            return 0;
        };
        let sent = last.1.saturating_sub(first.1);
        if sent == 0 {
            return 0;
        }
        let lost = sent.saturating_sub(last.2.saturating_sub(first.2));
        u16::try_from(u128::from(lost) * 1_000 / u128::from(sent)).unwrap_or(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_over_the_window_only() {
        let mut loss = LossMeter::default();
        assert_eq!(loss.permille(), 0);
        let (mut sent, mut received) = (0, 0);
        for tick in 0..200u64 {
            sent += 100;
            received += if tick < 100 { 98 } else { 100 };
            loss.on_echo(sent, received, Instant::ZERO + Duration::from_millis(tick * 100));
            if tick == 99 {
                assert_eq!(loss.permille(), 20);
            }
        }
        assert_eq!(loss.permille(), 0);
    }

    #[test]
    fn hostile_counts_do_no_harm() {
        let mut loss = LossMeter::default();
        loss.on_echo(u64::MAX, 0, Instant::ZERO);
        loss.on_echo(0, u64::MAX, Instant::ZERO);
        assert_eq!(loss.permille(), 0);
        loss.on_echo(u64::MAX, u64::MAX, Instant::ZERO);
        assert!(loss.permille() <= 1_000);
    }
}
