//! What links are made from that come while the session runs: a server's, which it learns of from
//! what authenticates, and a client's, which its driver adds.

use std::time::Duration;

use crate::config::{LinkConfig, Role, Security, SessionConfig, UdpFlows};
use crate::link::Link;
use crate::packet::LinkId;
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::LinkRole;

/// What links are made from.
#[derive(Debug)]
pub(super) struct NewLinks {
    pub(super) role: Role,
    heartbeat_interval: Duration,
    /// Ceilings, by link number.
    pub(super) tx_rates: Vec<Option<BitRate>>,
}

impl NewLinks {
    pub(super) fn new(config: &SessionConfig) -> Self {
        let SessionConfig { role, heartbeat_interval, .. } = *config;
        Self { role, heartbeat_interval, tx_rates: Vec::new() }
    }

    /// The ceiling of what is sent on the link with this number.
    pub(super) fn tx_rate(&self, number: usize) -> Option<BitRate> {
        self.tx_rates.get(number).copied().flatten()
    }

    /// The sealed link with this number.
    pub(super) fn make(&self, number: usize, now: Instant) -> Link {
        self.make_as(number, &self.blank(number), now)
    }

    /// The link with this number, as configured.
    pub(super) fn make_as(&self, number: usize, config: &LinkConfig, now: Instant) -> Link {
        let id = LinkId(u8::try_from(number).unwrap_or(u8::MAX));
        Link::new(id, self.role, config, self.heartbeat_interval, now)
    }

    /// A sealed link of which nothing is known.
    pub(super) fn blank(&self, number: usize) -> LinkConfig {
        LinkConfig {
            security: Security::Sealed,
            priority: 1,
            role: LinkRole::Primary,
            tx_rate: self.tx_rate(number),
            rx_rate: None,
            mtu: u16::MAX,
            path: None,
            flows: UdpFlows::Auto,
            alternatives: Vec::new(),
        }
    }
}
