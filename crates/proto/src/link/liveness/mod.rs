//! Whether a link delivers: its health from proof of delivery, and what is told of it over another
//! link.

mod damping;
pub(super) mod health;
pub(super) mod indirect;
pub(super) mod params;

use std::time::Duration;

use self::health::Health;
use self::indirect::Indirect;
use crate::time::Instant;
use crate::view::{LinkState, StateCause};
use crate::wire::heartbeat::Heartbeat;

/// See the module.
#[derive(Debug)]
pub(crate) struct Liveness {
    pub(super) health: Health,
    pub(super) indirect: Indirect,
}

impl Liveness {
    /// A link without proof, measured every `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Self { health: Health::new(interval), indirect: Indirect::default() }
    }

    /// Whether both directions are known to deliver.
    pub(super) fn is_proven(&self) -> bool {
        self.health.state() == LinkState::Up
            && !self.health.is_in_doubt()
            && !self.indirect.knows_only_indirectly()
    }

    /// The link was up, is down, and is not yet on its way back.
    pub(crate) fn has_failed(&self) -> bool {
        self.health.has_failed()
    }

    /// Why the link's state is what it is, and how long an answer had been missing when it changed.
    pub(crate) const fn why(&self) -> (StateCause, Duration) {
        self.health.why()
    }

    /// Before this the state does not change by time alone: sooner found than the link's
    /// `poll_timeout`.
    pub(crate) fn unchanged_until(&self) -> Instant {
        self.health.unchanged_until()
    }

    /// The peer says that the link failed.
    pub(crate) fn on_peer_failure(&mut self, now: Instant) {
        self.health.on_peer_failure(now);
    }

    /// Whether feedback is due over another link.
    pub(crate) const fn is_indirect_due(&self) -> bool {
        self.indirect.is_due()
    }

    /// The peer's heartbeat says whether it has doubts.
    pub(super) fn on_heartbeat(&mut self, heartbeat: &Heartbeat, is_sealed: bool, now: Instant) {
        let is_takable = self.health.takes_indirect();
        self.indirect.on_heartbeat(
            heartbeat.indirect_feedback && is_sealed,
            heartbeat.proven,
            is_takable,
            now,
        );
    }

    /// The peer was restarted: what was proven is void.
    pub(super) fn on_peer_restart(&mut self) {
        self.health.on_peer_restart();
        self.indirect = Indirect::default();
    }

    /// The state, and whether an answer is late.
    pub(super) const fn state(&self) -> (LinkState, bool) {
        (self.health.state(), self.health.is_in_doubt())
    }
}
