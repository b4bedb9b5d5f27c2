//! What a link is: its number, its side, and its settings, a server's as its client tells them.

use std::time::Duration;

use crate::config::{LinkConfig, Role, Security};
use crate::packet::LinkId;
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::LinkRole;
use crate::wire::heartbeat::Heartbeat;

/// A link that is for no data is measured this many times more rarely. Chosen: a metered link costs
/// 100 MB a month then, not 5 GB.
const UNUSED_INTERVALS: u32 = 50;

/// A peer changes a link's role this often at most, on average. Chosen: the interval of heartbeats,
/// the next of which says it again.
const ROLE_INTERVAL: Duration = Duration::from_millis(100);
/// And so much sooner after a pause. Chosen: four changes at once, more than a person makes.
const ROLE_ARREARS: Duration = Duration::from_millis(300);

/// See the module.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) id: LinkId,
    role: Role,
    security: Security,
    interval: Duration,
    priority: u8,
    link_role: LinkRole,
    rx_ceiling: Option<BitRate>,
    peer_resends: bool,
    /// No line has this number.
    is_retired: bool,
    /// Since when the number is this line's.
    since: Instant,
    /// The changes of role so far would have come by this time at their usual distance.
    role_paid_at: Instant,
}

impl Profile {
    /// `interval`: the usual distance of two heartbeats.
    pub(super) const fn new(
        id: LinkId,
        role: Role,
        config: &LinkConfig,
        interval: Duration,
        now: Instant,
    ) -> Self {
        Self {
            id,
            role,
            security: config.security,
            interval,
            priority: config.priority,
            link_role: config.role,
            rx_ceiling: config.rx_rate,
            peer_resends: false,
            is_retired: false,
            since: now,
            role_paid_at: Instant::ZERO,
        }
    }

    pub(super) const fn role(&self) -> Role {
        self.role
    }

    /// No line has this number.
    pub(super) const fn is_retired(&self) -> bool {
        self.is_retired
    }

    pub(super) const fn set_retired(&mut self, is_retired: bool) {
        self.is_retired = is_retired;
    }

    /// Since when the number is this line's.
    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    pub(super) const fn security(&self) -> Security {
        self.security
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.security == Security::Sealed
    }

    /// The usual distance of two heartbeats of a link that is for data.
    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    /// How often the link is measured as it is used.
    pub(super) fn rhythm(&self) -> Duration {
        if self.is_unused() { self.interval * UNUSED_INTERVALS } else { self.interval }
    }

    pub(super) const fn priority(&self) -> u8 {
        self.priority
    }

    pub(super) const fn set_priority(&mut self, priority: u8) {
        self.priority = priority;
    }

    /// What the link is used for.
    pub(super) const fn link_role(&self) -> LinkRole {
        self.link_role
    }

    pub(super) const fn set_link_role(&mut self, role: LinkRole) {
        self.link_role = role;
    }

    /// The link is for no data.
    pub(super) fn is_unused(&self) -> bool {
        self.link_role == LinkRole::Never
    }

    /// What the peer is to send at most.
    pub(super) const fn rx_ceiling(&self) -> Option<BitRate> {
        self.rx_ceiling
    }

    pub(super) const fn set_rx_ceiling(&mut self, ceiling: Option<BitRate>) {
        self.rx_ceiling = ceiling;
    }

    /// Whether the peer sends again what it learns was lost on the link.
    pub(super) const fn peer_resends(&self) -> bool {
        self.peer_resends
    }

    /// Takes what the peer's heartbeat says of the link. Whether the link's role may be another.
    pub(super) fn on_heartbeat(&mut self, heartbeat: &Heartbeat, now: Instant) -> bool {
        self.peer_resends = heartbeat.resends && self.is_sealed();
        if self.role != Role::Server {
            return false;
        }
        self.priority = heartbeat.priority;
        let changes =
            self.link_role != heartbeat.role && self.role_paid_at.saturating_sub(ROLE_ARREARS) <= now;
        if changes {
            self.role_paid_at = self.role_paid_at.max(now) + ROLE_INTERVAL;
            self.link_role = heartbeat.role;
        }
        changes
    }
}
