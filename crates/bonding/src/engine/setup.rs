//! What client and server set up alike: rights, signals, the journal of changes, the TUN device.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use bonding_os::address::{Cidr, CidrError};
use bonding_os::monitor::{Monitor, MonitorError};
use bonding_os::netlink::{NetlinkError, Requests};
use bonding_os::privileges::{self, Unprivileged};
use bonding_os::signals::Signals;
use bonding_os::tun::{Tun, TunConfig, TunError};
use bonding_os::undo::{Journal, UndoError};
use bonding_proto::config::Prefix;

use super::LoopError;
use super::plan::TunnelPlan;

/// Bytes of IP and UDP header around a datagram.
const IPV4_HEADERS: u16 = 20 + 8;
const IPV6_HEADERS: u16 = 40 + 8;
/// The header of the one frame in a plain datagram.
const FRAME_HEADER: u16 = 11;
/// What a link carries where its interface does not say less.
const LINK_MTU: u16 = 1_500;
/// IPv6 needs this (RFC 8200 §5); no link below it may push the tunnel there.
const TUNNEL_MTU_MIN: u16 = 1_280;

/// Why a client or server does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Rights are missing.
    #[error(transparent)]
    Unprivileged(#[from] Unprivileged),
    /// Signals or random numbers are not to be had.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
    /// Changes cannot be written down or made.
    #[error(transparent)]
    Changes(#[from] UndoError),
    /// The interfaces cannot be watched.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// There is no TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// A route was refused.
    #[error("cannot set up routes: {0}")]
    Route(#[from] NetlinkError),
    /// A prefix is none.
    #[error(transparent)]
    Prefix(#[from] CidrError),
    /// A listener cannot be opened.
    #[error("cannot listen on {address}: {}", explain_listen(.source))]
    Listen {
        /// Its address and port.
        address: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The loop ended.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

fn explain_listen(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::AddrInUse {
        "another process listens there".to_owned()
    } else if error.kind() == io::ErrorKind::AddrNotAvailable {
        "no interface has this address".to_owned()
    } else {
        error.to_string()
    }
}

/// What comes first: fails early and without having changed anything.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) signals: Signals,
    pub(crate) journal: Journal,
    pub(crate) monitor: Monitor,
    pub(crate) seed: u64,
    pub(crate) epoch: u64,
}

impl Ground {
    pub(crate) fn prepare(state_file: &Path) -> Result<Self, RunError> {
        privileges::check()?;
        privileges::raise_priority();
        Ok(Self {
            signals: Signals::install()?,
            journal: Journal::open(state_file)?,
            monitor: Monitor::open()?,
            seed: bonding_os::random()?,
            epoch: bonding_os::random()?,
        })
    }
}

/// The last step of a set-up, before the first packet of a stranger is read: gives up what a running bond does not need.
pub(crate) fn reduce_rights() -> Result<(), RunError> {
    Ok(privileges::reduce()?)
}

/// Makes the TUN device; its MTU is `auto` where the plan leaves it open.
pub(crate) fn tun(plan: &TunnelPlan, auto: u16) -> Result<Tun, RunError> {
    let config = TunConfig {
        name: plan.interface.clone(),
        mtu: plan.mtu.unwrap_or(auto),
        addresses: plan.addresses.iter().map(|prefix| cidr(*prefix)).collect::<Result<_, _>>()?,
        offload: true,
    };
    let tun = Tun::create(&config)?;
    tracing::info!(interface = tun.name(), mtu = tun.mtu(), offload = tun.offload(), "the TUN device is up");
    Ok(tun)
}

/// Routes through the device what its own addresses do not route there already.
pub(crate) fn routes(tun: &Tun, own: &[Prefix], prefixes: &[Prefix]) -> Result<(), RunError> {
    let own = own.iter().map(|prefix| cidr(*prefix)).collect::<Result<Vec<_>, _>>()?;
    let mut requests = Requests::open()?;
    for prefix in prefixes {
        let prefix = cidr(*prefix)?;
        if !own.iter().any(|own| contains(*own, prefix)) {
            requests.add_route(tun.index(), prefix)?;
        }
    }
    Ok(())
}

pub(crate) fn cidr(prefix: Prefix) -> Result<Cidr, CidrError> {
    Cidr::new(prefix.address, prefix.length)
}

fn contains(outer: Cidr, inner: Cidr) -> bool {
    outer.length() <= inner.length()
        && Cidr::new(inner.address(), outer.length()).map(Cidr::network) == Ok(outer.network())
}

/// Bytes of IP and UDP header to reach `remote`.
fn header_bytes(remote: IpAddr) -> u16 {
    if remote.is_ipv4() { IPV4_HEADERS } else { IPV6_HEADERS }
}

/// The largest inner packet that fits one plain datagram to `remote` over an interface with `link_mtu`.
pub(crate) fn inner_mtu(link_mtu: Option<u32>, remote: IpAddr) -> u16 {
    let link = link_mtu.and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(LINK_MTU).min(LINK_MTU);
    link.saturating_sub(header_bytes(remote) + FRAME_HEADER).max(TUNNEL_MTU_MIN)
}

/// The MTU of the interface that has `remote` on its network.
pub(crate) fn neighbour_mtu(monitor: &Monitor, remote: IpAddr) -> Option<u32> {
    let near = |cidr: &Cidr| {
        cidr.length() > 0 && cidr.address().is_ipv4() == remote.is_ipv4() && {
            Cidr::new(remote, cidr.length()).map(Cidr::network) == Ok(cidr.network())
        }
    };
    let found = monitor.interfaces().find(|interface| interface.addresses.iter().any(near));
    found.map(|interface| interface.mtu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_mtu_follows_the_link() {
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        for (link, remote, inner) in [
            (None, v4, 1461),
            (None, v6, 1441),
            (Some(1420), v4, 1381),
            (Some(65_536), v4, 1461),
            (Some(1300), v4, 1280),
        ] {
            assert_eq!(inner_mtu(link, remote), inner);
        }
    }

    #[test]
    fn containment_is_by_prefix() {
        let contains = |outer: &str, inner: &str| contains(outer.parse().unwrap(), inner.parse().unwrap());
        assert!(contains("10.99.0.1/24", "10.99.0.2/32"));
        assert!(contains("fd99::1/64", "fd99::2"));
        assert!(!contains("10.99.0.1/24", "10.99.1.2/32"));
        assert!(!contains("10.99.0.1/24", "10.99.0.0/16"));
        assert!(!contains("0.0.0.0/0", "fd99::2"));
    }
}
