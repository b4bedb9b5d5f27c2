//! What a server makes from its plan before it serves: its key, sockets, the tunnel's MTU, and the
//! table that says where clients' packets go.
//!
//! It knows no sessions.

use std::net::SocketAddr;
use std::path::Path;

use bonding_os::Cidr;
use bonding_os::monitor::Monitor;
use bonding_os::nat::{Family, Masquerade, Nat, NatConfig, Reach};
use bonding_os::undo::Journal;
use bonding_proto::config::{Prefix, Security};
use bonding_proto::crypto::keys::PrivateKey;

use super::roster::Entry;
use crate::engine::RunError;
use crate::engine::overhead::Overhead;
use crate::engine::plan::ServerPlan;
use crate::engine::setup;
use crate::engine::sockets::SocketSpec;
use crate::state::keys;

/// The server's key, made at the first start.
pub(super) fn identity(file: &Path) -> Result<PrivateKey, RunError> {
    let (identity, new) = keys::load_or_make(file)?;
    tracing::info!(
        public_key = keys::show(&identity.public()),
        file = %file.display(),
        "{}",
        if new { "made a key for this server" } else { "this server's key" }
    );
    Ok(identity)
}

pub(super) fn spec(plan: &ServerPlan, port: u16) -> SocketSpec {
    let bind = SocketAddr::new(plan.listen, port);
    SocketSpec { label: bind.to_string(), bind, interface: None }
}

/// The MTU that fits every link that is known: that of the plain ones, and of the worst sealed link
/// if a client has a key, or if there is no client yet.
pub(super) fn tunnel_mtu(plan: &ServerPlan, entries: &[Entry], monitor: &Monitor) -> u16 {
    let remotes = entries.iter().flat_map(|entry| &entry.config.plain).map(|peer| peer.remote);
    let plain = remotes.map(|remote| {
        setup::inner_mtu(setup::neighbour_mtu(monitor, remote), Overhead::of(remote, Security::Plain))
    });
    let sealed = entries.is_empty() || entries.iter().any(|entry| entry.config.public_key.is_some());
    plain.chain(sealed.then(|| sealed_mtu(plan))).min().unwrap_or_else(|| sealed_mtu(plan))
}

/// The MTU that fits the sealed link of any client that may come.
pub(super) fn sealed_mtu(plan: &ServerPlan) -> u16 {
    setup::inner_mtu(None, Overhead::of(plan.listen, Security::Sealed))
}

/// The table that says what clients may reach, and forwarding and NAT if they are on.
pub(super) fn forward(
    journal: Journal,
    plan: &ServerPlan,
    entries: &[Entry],
    monitor: Monitor,
) -> Result<Nat, RunError> {
    let cidrs =
        |prefixes: &[Prefix]| prefixes.iter().map(|one| setup::cidr(*one)).collect::<Result<Vec<Cidr>, _>>();
    let addresses = cidrs(&plan.tunnel.addresses)?;
    let config = NatConfig {
        tunnel: plan.tunnel.interface.clone(),
        addresses,
        reach: plan.reach,
        exceptions: exceptions(entries.iter())?,
        masquerade: plan.nat.as_ref().map(|nat| Masquerade { egress: nat.egress.clone() }),
        listeners: plan.ports.range(),
    };
    let nat = Nat::install(journal, config, monitor)?;
    if let Some(plan) = &plan.nat {
        let (ipv4, ipv6) = (nat.has(Family::V4), nat.has(Family::V6));
        let egress = plan.egress.as_deref().unwrap_or("auto");
        tracing::info!(egress, ipv4, ipv6, "forwarding and NAT are on");
    }
    Ok(nat)
}

/// Clients that may reach something else than clients usually may, by their prefixes.
pub(super) fn exceptions<'a>(
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<Vec<(Cidr, Reach)>, RunError> {
    let each = entries.filter_map(|entry| Some((&entry.config.prefixes, entry.reach?)));
    let each = each.flat_map(|(prefixes, reach)| prefixes.iter().map(move |prefix| (*prefix, reach)));
    each.map(|(prefix, reach)| Ok((setup::cidr(prefix)?, reach))).collect()
}
