//! The configuration of sessions: what is common to all of them, and what a client's entry says.

use std::time::Duration;

use crate::config::{ClientConfig, LinkConfig, PlainPeer, Role, Security, Sending, SessionConfig, UdpFlows};
use crate::units::BitRate;
use crate::view::LinkRole;

/// The settings common to all sessions.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) sending: Sending,
    pub(super) heartbeat_interval: Duration,
    pub(super) mtu: u16,
    pub(super) mss_clamp: bool,
    /// Sessions take streams.
    pub(super) streams: bool,
}

/// The ceilings of what is sent to a client, by link number.
pub(super) fn tx_rates(client: &ClientConfig) -> Vec<Option<BitRate>> {
    let mut rates = client.tx_rates.clone();
    for peer in &client.plain {
        let at = peer.link.index();
        rates.resize(rates.len().max(at + 1), None);
        if let Some(rate) = rates.get_mut(at) {
            *rate = peer.tx_rate;
        }
    }
    rates
}

/// The configuration of a client's session on the server.
pub(super) fn session_config(
    settings: &Settings,
    client: &ClientConfig,
    epoch: u64,
    seed: u64,
) -> SessionConfig {
    let links = client.plain.iter().map(|peer| usize::from(peer.link.0) + 1).max().unwrap_or(0);
    let link = |at: usize| client.plain.iter().find(|peer| peer.link.index() == at);
    SessionConfig {
        role: Role::Server,
        links: (0..links)
            .map(|at| link_config(link(at), client.tx_rates.get(at).copied().flatten()))
            .collect(),
        policy: settings.sending.policy,
        heartbeat_interval: settings.heartbeat_interval,
        mtu: settings.mtu,
        mss_clamp: settings.mss_clamp,
        recovery: settings.sending.recovery,
        rules: settings.sending.rules.clone(),
        seed,
        epoch,
        sealing: None,
    }
}

/// A link's configuration. A number without a plain link belongs to a sealed link.
fn link_config(plain: Option<&PlainPeer>, sealed_rate: Option<BitRate>) -> LinkConfig {
    LinkConfig {
        security: if plain.is_some() { Security::Plain } else { Security::Sealed },
        priority: 1,
        role: LinkRole::Primary,
        tx_rate: plain.map_or(sealed_rate, |peer| peer.tx_rate),
        rx_rate: None,
        // The interface towards the client is unknown; the kernel refuses datagrams that are too
        // large for it.
        mtu: u16::MAX,
        path: None,
        flows: UdpFlows::Auto,
        alternatives: Vec::new(),
    }
}
