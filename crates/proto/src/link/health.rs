//! Whether a link may be used, from proof of delivery.
//!
//! Proof is a heartbeat of ours that the peer echoed in a heartbeat that reached us: both directions delivered. Its
//! age counts from when that heartbeat of ours was *sent*. Bytes that arrive prove nothing about the other direction.
//!
//! ```text
//!        first proof                       proof overdue
//! Down ───────────────► Up ──────────────────────────────────────► Suspect
//!  ▲  (after a failure: ◄────────────────────────────────────────── │ │
//!  │   three in a row)              newer proof                       │
//!  └──────────── proof older than a second, or carrier lost ◄────────┘
//! ```
//! Overdue: in the worst regular case proof is as old as two heartbeat intervals (ours and the peer's, which run
//! out of step) and one RTT; one lost heartbeat in either direction adds an interval and is forgiven.

use std::time::Duration;

use super::rtt::RttEstimator;
use crate::event::LinkState;
use crate::time::Instant;

/// Proofs in a row that bring a failed link back.
const PROOFS_AFTER_FAILURE: u32 = 3;

/// State of one link.
#[derive(Debug, Clone)]
pub(super) struct Health {
    interval: Duration,
    state: LinkState,
    /// When our newest proven heartbeat was sent.
    proven_at: Option<Instant>,
    /// Proofs since the link went down.
    proofs: u32,
    failed: bool,
    carrier: bool,
}

impl Health {
    /// A link without proof, measured every `interval`.
    pub(super) const fn new(interval: Duration) -> Self {
        Self { interval, state: LinkState::Down, proven_at: None, proofs: 0, failed: false, carrier: true }
    }

    /// The link is measured every `interval` from now on.
    pub(super) const fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// The state as of the last call of any `on_*`.
    pub(super) const fn state(&self) -> LinkState {
        self.state
    }

    /// When the newest heartbeat of ours was sent that is known to have arrived.
    pub(super) const fn proven_at(&self) -> Option<Instant> {
        self.proven_at
    }

    /// Our heartbeat sent at `sent_at` came back echoed. Older than what is known: no news.
    pub(super) fn on_proof(&mut self, sent_at: Instant) {
        if self.proven_at.is_some_and(|known| sent_at <= known) {
            return;
        }
        self.proven_at = Some(sent_at);
        self.proofs = self.proofs.saturating_add(1);
        if self.carrier
            && (self.state != LinkState::Down || !self.failed || self.proofs >= PROOFS_AFTER_FAILURE)
        {
            self.state = LinkState::Up;
        }
    }

    /// Time has passed.
    pub(super) fn on_time(&mut self, rtt: &RttEstimator, now: Instant) {
        let Some(proven_at) = self.proven_at else { return };
        let age = now.saturating_since(proven_at);
        if age >= self.down_after(rtt) {
            self.fail();
        } else if age >= self.suspect_after(rtt) && self.state == LinkState::Up {
            self.state = LinkState::Suspect;
        }
    }

    /// The interface lost its carrier or has it again.
    pub(super) fn on_carrier(&mut self, carrier: bool) {
        self.carrier = carrier;
        if !carrier {
            self.fail();
        }
    }

    /// The peer was restarted: what was proven is void, but nothing failed.
    pub(super) fn on_peer_restart(&mut self) {
        self.state = LinkState::Down;
        self.proven_at = None;
        self.proofs = 0;
        self.failed = false;
    }

    /// When [`Self::on_time`] has something to do next.
    pub(super) fn poll_timeout(&self, rtt: &RttEstimator) -> Option<Instant> {
        let proven_at = self.proven_at?;
        match self.state {
            LinkState::Up => Some(proven_at + self.suspect_after(rtt)),
            LinkState::Suspect => Some(proven_at + self.down_after(rtt)),
            LinkState::Down => None,
        }
    }

    fn fail(&mut self) {
        if self.state != LinkState::Down {
            self.failed = true;
        }
        self.state = LinkState::Down;
        self.proofs = 0;
    }

    /// 3.5 intervals + srtt + 4 × rttvar.
    fn suspect_after(&self, rtt: &RttEstimator) -> Duration {
        self.interval * 7 / 2 + rtt.srtt().unwrap_or_default() + rtt.rttvar() * 4
    }

    /// 10 intervals later than suspect would be without variance: a second and one RTT.
    fn down_after(&self, rtt: &RttEstimator) -> Duration {
        self.suspect_after(rtt).max(self.interval * 10 + rtt.srtt().unwrap_or_default()) + self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn rtt() -> RttEstimator {
        let mut rtt = RttEstimator::new();
        for _ in 0..50 {
            rtt.on_sample(Duration::from_millis(20), Instant::ZERO);
        }
        rtt
    }

    fn ms(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn up_by_proof_suspect_and_down_without_it() {
        let rtt = rtt();
        let mut health = Health::new(INTERVAL);
        health.on_time(&rtt, ms(10_000));
        assert_eq!((health.state(), health.poll_timeout(&rtt)), (LinkState::Down, None));
        health.on_proof(ms(10_000));
        assert_eq!(health.state(), LinkState::Up);
        // Two intervals, one RTT and one lost heartbeat are regular.
        health.on_time(&rtt, ms(10_320));
        assert_eq!(health.state(), LinkState::Up);
        let due = health.poll_timeout(&rtt).unwrap();
        health.on_time(&rtt, due);
        assert_eq!(health.state(), LinkState::Suspect);
        health.on_proof(ms(10_300));
        assert_eq!(health.state(), LinkState::Up);
        health.on_time(&rtt, ms(10_800));
        assert_eq!(health.state(), LinkState::Suspect);
        let due = health.poll_timeout(&rtt).unwrap();
        health.on_time(&rtt, due);
        assert_eq!((health.state(), health.poll_timeout(&rtt)), (LinkState::Down, None));
    }

    #[test]
    fn a_failed_link_needs_three_proofs_and_old_ones_do_not_count() {
        let rtt = rtt();
        let mut health = Health::new(INTERVAL);
        health.on_proof(ms(100));
        health.on_time(&rtt, ms(5_000));
        assert_eq!(health.state(), LinkState::Down);
        for (sent, state) in [
            (90, LinkState::Down),
            (5_000, LinkState::Down),
            (5_100, LinkState::Down),
            (5_100, LinkState::Down),
            (5_200, LinkState::Up),
        ] {
            health.on_proof(ms(sent));
            assert_eq!(health.state(), state, "{sent}");
        }
    }

    #[test]
    fn a_lost_carrier_is_down_at_once_and_proof_does_not_help() {
        let mut health = Health::new(INTERVAL);
        health.on_proof(ms(100));
        health.on_carrier(false);
        assert_eq!(health.state(), LinkState::Down);
        for sent in 2..9 {
            health.on_proof(ms(sent * 100));
        }
        assert_eq!(health.state(), LinkState::Down);
        health.on_carrier(true);
        health.on_proof(ms(1_000));
        assert_eq!(health.state(), LinkState::Up);
    }

    #[test]
    fn a_restarted_peer_is_up_at_its_first_proof() {
        let mut health = Health::new(INTERVAL);
        health.on_proof(ms(100));
        health.on_peer_restart();
        assert_eq!(health.state(), LinkState::Down);
        health.on_proof(ms(200));
        assert_eq!(health.state(), LinkState::Up);
    }
}
