//! What the two sides of a link tell each other of their own sending
//! ([`crate::wire::figures`]): when this side tells it, and what the peer told last.
//!
//! Figures ride in heartbeats, so they need no datagram and no timer of their own. They go to peers
//! that ask for them, at most once a second while they change, and every few seconds while they do
//! not, since a frame may be lost. What the peer told is shown, and nothing is decided by it.

use std::time::Duration;

use crate::stats::{PeerStats, PhaseKind};
use crate::time::Instant;
use crate::wire::figures::SendingFigures;

/// At least so long between two frames. Chosen: a person reads no faster.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// Figures that stay are told again after this. Chosen: a lost frame is made up for soon.
const REPEAT_INTERVAL: Duration = Duration::from_secs(5);
/// What was told longer ago is not shown. Chosen: two repetitions were lost.
const SHOWN_FOR: Duration = Duration::from_secs(15);

/// A rate that changed by less is the same. Chosen: above what heartbeats alone carry.
const SAME_RATE_KBPS: u32 = 64;
/// Or by less than this part of it. Chosen: a digit that a person reads.
const SAME_RATE_PART: u32 = 16;
/// A loss that changed by no more is the same, permille.
const SAME_LOSS_PERMILLE: u16 = 5;
/// A queue that changed by no more is the same, units of 100 µs. Chosen: a part of what is noise.
const SAME_QUEUE_UNITS: u16 = 20;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    /// The peer takes figures.
    peer_takes: bool,
    told: Option<(SendingFigures, Instant)>,
    heard: Option<(SendingFigures, Instant)>,
}

impl Figures {
    /// The peer's heartbeat says whether it takes figures.
    pub(super) const fn on_heartbeat(&mut self, peer_takes: bool) {
        self.peer_takes = peer_takes;
    }

    /// The peer told of its sending.
    pub(super) const fn on_heard(&mut self, figures: SendingFigures, now: Instant) {
        self.heard = Some((figures, now));
    }

    /// The peer's run is another.
    pub(super) fn on_peer_restart(&mut self) {
        *self = Self::default();
    }

    /// What the heartbeat that goes now tells, if it tells anything; `make` gives the figures.
    pub(super) fn take(
        &mut self,
        make: impl FnOnce() -> SendingFigures,
        now: Instant,
    ) -> Option<SendingFigures> {
        let since = self.told.map(|(_, at)| now.saturating_since(at));
        if !self.peer_takes || since.is_some_and(|since| since < TELL_INTERVAL) {
            return None;
        }
        let figures = make();
        let is_same = self.told.is_some_and(|(told, _)| is_same(&told, &figures));
        if is_same && since.is_some_and(|since| since < REPEAT_INTERVAL) {
            return None;
        }
        self.told = Some((figures, now));
        Some(figures)
    }

    /// What the peer told, unless that is long ago.
    pub(super) fn peer(&self, now: Instant) -> Option<PeerStats> {
        let (figures, at) = self.heard?;
        let told_ago = now.saturating_since(at);
        (told_ago < SHOWN_FOR).then(|| PeerStats {
            told_ago,
            phase: PhaseKind::of_number(figures.phase),
            loss_permille: figures.loss_permille,
            tx_rate: figures.rate(),
            capacity: figures.capacity(),
            queue: figures.queue(),
        })
    }
}

/// Whether a person would see no difference.
const fn is_same(a: &SendingFigures, b: &SendingFigures) -> bool {
    a.phase == b.phase
        && is_same_rate(a.rate_kbps, b.rate_kbps)
        && (a.capacity_kbps == 0) == (b.capacity_kbps == 0)
        && is_same_rate(a.capacity_kbps, b.capacity_kbps)
        && a.loss_permille.abs_diff(b.loss_permille) <= SAME_LOSS_PERMILLE
        && a.queue_units.abs_diff(b.queue_units) <= SAME_QUEUE_UNITS
}

const fn is_same_rate(a: u32, b: u32) -> bool {
    let differ = a.abs_diff(b);
    differ < SAME_RATE_KBPS || differ < a / SAME_RATE_PART
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::BitRate;

    fn figures(kbps: u32) -> SendingFigures {
        let rate = BitRate::from_bps(u64::from(kbps) * 1_000);
        SendingFigures::new((1, 0), rate, Some(rate), Duration::ZERO)
    }

    /// How many of a minute's heartbeats tell figures, with a rate for each heartbeat.
    fn told(figures_of: impl Fn(u32) -> SendingFigures) -> usize {
        let mut exchange = Figures::default();
        exchange.on_heartbeat(true);
        let mut at = Instant::from_nanos(1);
        (0..600)
            .filter(|number| {
                at = at + Duration::from_millis(100);
                exchange.take(|| figures_of(*number), at).is_some()
            })
            .count()
    }

    #[test]
    fn changes_are_told_once_a_second_and_what_stays_every_five() {
        assert_eq!(told(|number| figures(number / 10 % 2 * 1_000)), 60);
        assert_eq!(told(|_| figures(9_000)), 12);
        // What heartbeats alone carry flickers.
        assert_eq!(told(|number| figures(10 + number % 30)), 12);
    }

    #[test]
    fn a_peer_that_does_not_ask_is_told_nothing() {
        let mut exchange = Figures::default();
        assert_eq!(exchange.take(|| figures(1), Instant::from_nanos(1)), None);
        exchange.on_heartbeat(true);
        assert!(exchange.take(|| figures(1), Instant::from_nanos(2)).is_some());
    }

    #[test]
    fn what_the_peer_told_is_shown_for_a_while() {
        let mut exchange = Figures::default();
        let start = Instant::from_nanos(1);
        exchange.on_heard(SendingFigures { phase: 7, ..figures(52_300) }, start);
        let shown = exchange.peer(start + Duration::from_secs(2)).unwrap();
        assert_eq!((shown.tx_rate.as_bps(), shown.phase), (52_300_000, None));
        assert_eq!(shown.told_ago, Duration::from_secs(2));
        assert_eq!(exchange.peer(start + SHOWN_FOR), None);
    }
}
