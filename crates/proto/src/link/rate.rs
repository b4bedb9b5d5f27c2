//! What a link can carry in the direction we send.
//!
//! Today the capacity is what configuration says: our own `up` (a server: `down` of the client's link), and the ceiling
//! that the peer tells in its heartbeats; the smaller counts. Without either the link is not paced and its saturation
//! unknown. Measuring it takes the place of [`RateControl::capacity`]'s body, fed by [`RateControl::on_peer_ceiling`] and
//! by what the peer acknowledges; nobody else needs to know.

use crate::units::BitRate;

/// Pace at this share of the configured rate, so that rounding and clocks never build a queue in the link.
const PACING_PERMILLE: u64 = 990;

/// The rate model of one link and direction.
#[derive(Debug, Clone)]
pub(super) struct RateControl {
    configured: Option<BitRate>,
    peer_ceiling: Option<BitRate>,
}

impl RateControl {
    /// With the ceiling from our own configuration.
    pub(super) const fn new(configured: Option<BitRate>) -> Self {
        Self { configured, peer_ceiling: None }
    }

    /// The peer told what it wants to be sent at most.
    pub(super) const fn on_peer_ceiling(&mut self, ceiling: Option<BitRate>) {
        self.peer_ceiling = ceiling;
    }

    /// What the link carries, IP headers included; `None` when unknown.
    pub(super) fn capacity(&self) -> Option<BitRate> {
        match (self.configured, self.peer_ceiling) {
            (Some(own), Some(peer)) => Some(own.min(peer)),
            (own, peer) => own.or(peer),
        }
    }

    /// The rate to pace at; `None`: not paced.
    pub(super) fn pacing_rate(&self) -> Option<BitRate> {
        self.capacity().map(|rate| rate.permille(PACING_PERMILLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_ceiling_counts() {
        let mbit = |rate: u64| Some(BitRate::from_bps(rate * 1_000_000));
        let mut rate = RateControl::new(None);
        assert_eq!((rate.capacity(), rate.pacing_rate()), (None, None));
        rate.on_peer_ceiling(mbit(10));
        assert_eq!(rate.capacity(), mbit(10));
        let mut rate = RateControl::new(mbit(20));
        rate.on_peer_ceiling(mbit(10));
        assert_eq!(rate.capacity(), mbit(10));
        rate.on_peer_ceiling(mbit(30));
        assert_eq!(rate.capacity(), mbit(20));
        assert_eq!(rate.pacing_rate(), Some(BitRate::from_bps(19_800_000)));
    }
}
