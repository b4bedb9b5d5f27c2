//! Feedback about this link that goes over another one.
//!
//! Feedback takes the way back of the link that it describes. Where that way loses for a while and the way out does not, the sender would take a
//! link for silent that delivers all. So a side that has doubts (its heartbeat says that it has no proof of both directions) is
//! told over another link too: at once, and with each feedback for [`RELAYED_FOR`]. As long as it knows of its datagrams' arrival only by that
//! way, its heartbeats go on saying so.
//!
//! What is relayed keeps a link that is up or suspect, and brings none back: one that failed needs both directions. Nor does it keep a link whose way
//! back is dead: the other side has no proof of it then, counts it as failed after 11 intervals, and says so.
//!
//! Both sides have both halves of this. It does not know which other link is taken.

use std::time::Duration;

use super::feedback::Report;
use super::{Link, LinkState, Security};
use crate::time::Instant;
use crate::wire::heartbeat::Heartbeat;

/// Two heartbeats of a sender that still has doubts, one of which may be lost.
const RELAYED_FOR: Duration = Duration::from_millis(250);

/// What is told over another link, and what is heard so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relay {
    /// The peer is told over another link too, until then; and now.
    until: Instant,
    is_due: bool,
    /// The newest that we know of what we sent came over another link.
    is_relayed: bool,
}

impl Default for Relay {
    fn default() -> Self {
        Self { until: Instant::ZERO, is_due: false, is_relayed: false }
    }
}

impl Relay {
    /// The peer is told over this link.
    pub(super) fn on_report(&mut self, now: Instant) {
        self.is_due |= now < self.until;
    }

    /// The link itself answered.
    pub(super) const fn on_answer(&mut self) {
        self.is_relayed = false;
    }

    /// News came over another link.
    pub(super) const fn on_relayed(&mut self) {
        self.is_relayed = true;
    }
}

impl Link {
    /// Whether both directions are known to deliver.
    pub(super) fn is_proven(&self) -> bool {
        self.state() == LinkState::Up && !self.health.is_in_doubt() && !self.relay.is_relayed
    }

    /// The peer's heartbeat says whether it has doubts.
    pub(super) fn note_doubt(&mut self, heartbeat: &Heartbeat, now: Instant) {
        if heartbeat.relayed
            && !heartbeat.proven
            && self.security == Security::Sealed
            && self.health.takes_relayed()
        {
            self.relay.until = now + RELAYED_FOR;
            self.relay.is_due = true;
        }
    }

    /// Whether feedback is due over another link.
    pub const fn has_relay(&self) -> bool {
        self.relay.is_due
    }

    /// What is to be told over another link now.
    pub const fn take_relay(&mut self) -> Option<Report> {
        if !std::mem::replace(&mut self.relay.is_due, false) {
            return None;
        }
        self.arrivals.repeat()
    }
}
