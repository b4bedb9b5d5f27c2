//! The set-up that client and server share: rights, signals, the journal of changes, the TUN
//! device.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use bonding_os::address::{Cidr, CidrError};
use bonding_os::monitor::{Monitor, MonitorError};
use bonding_os::netlink::{NetlinkError, Requests};
use bonding_os::privileges::{self, Rights, Unprivileged};
use bonding_os::signals::Signals;
use bonding_os::tun::{Tun, TunConfig, TunError};
use bonding_os::undo::{Journal, UndoError};
use bonding_proto::config::Prefix;
use bonding_proto::trace::format::Side;

use super::LoopError;
use super::clock::Clock;
use super::overhead::Overhead;
use super::plan::{RunPlan, TunnelPlan};
use crate::state::StateError;
use crate::state::register::EnrolError;
use crate::trace::TracePlan;
use crate::trace::file::TraceFile;

/// The MTU of a link whose interface does not say less: Ethernet.
const LINK_MTU: u16 = 1_500;
/// RFC 8200 §5: IPv6 needs this much. A link with less does not lower the tunnel's MTU below it.
pub(crate) const TUNNEL_MTU_MIN: u16 = 1_280;

/// The reason why a client or server does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Rights are missing.
    #[error(transparent)]
    Unprivileged(#[from] Unprivileged),
    /// The kernel gives no signals or no random numbers.
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
    /// A prefix is malformed.
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
    /// A key or another file of the state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A client without a key.
    #[error("{0}; `bonding-client join 'bond://…'` makes a key and enrols it")]
    NoIdentity(StateError),
    /// Clients have no addresses.
    #[error(transparent)]
    Addresses(#[from] EnrolError),
    /// Enrolled, and configured since.
    #[error(
        "[[client]] \"{0}\" has the name of a client that was invited: leave out all but its `allow` and `routes`, \
             which then count for that one, or give it another name, or `bondctl revoke {0}` before it is added"
    )]
    NameTaken(String),
    /// Enrolled, and configured since.
    #[error(
        "a [[client]] has the public key of \"{0}\", a client that was invited: remove the section, or \
             `bondctl revoke {0}` before it is added"
    )]
    KeyTaken(String),
    /// The trace has no file.
    #[error("cannot write a trace to {file}: {source}")]
    Trace {
        /// The file.
        file: String,
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

/// The first part of a set-up. It fails early, without a change to the machine.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) signals: Signals,
    pub(crate) journal: Journal,
    pub(crate) monitor: Monitor,
    pub(crate) seed: u64,
    pub(crate) epoch: u64,
}

impl Ground {
    /// A capture with the first priority `kept` that a crash left stays.
    pub(crate) fn prepare(state_file: &Path, rights: Rights, kept: Option<u32>) -> Result<Self, RunError> {
        privileges::check(rights)?;
        privileges::raise_priority();
        if let Err(error) = privileges::raise_file_limit() {
            tracing::debug!(%error, "the number of open files stays limited");
        }
        // Before any key is read, and after the priority: the memory's secrecy takes /proc/self
        // from an ordinary user.
        privileges::hide_memory()?;
        Ok(Self {
            signals: Signals::install()?,
            journal: Journal::open_capturing(state_file, kept)?,
            monitor: Monitor::open()?,
            seed: bonding_os::random()?,
            epoch: bonding_os::random()?,
        })
    }
}

/// The last step of a set-up, before the first packet from the network is read: gives up the rights
/// that a running bond does not need.
pub(crate) fn reduce_rights(rights: Rights) -> Result<(), RunError> {
    Ok(privileges::reduce(rights)?)
}

/// Makes the file of the trace, if the command line asks for one.
pub(crate) fn trace(plan: &RunPlan, side: Side, clock: Clock) -> Result<Option<TraceFile>, RunError> {
    let create = |trace: &TracePlan| {
        let file = trace.file.display().to_string();
        TraceFile::create(trace, side, clock).map_err(|source| RunError::Trace { file, source })
    };
    plan.trace.as_ref().map(create).transpose()
}

/// Random numbers from the kernel, which cannot be guessed.
pub(crate) fn entropy() -> Result<[u8; 32], RunError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
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

/// Routes the prefixes through the device with this index that its own addresses do not route there
/// already.
pub(crate) fn routes(index: u32, own: &[Prefix], prefixes: &[Prefix]) -> Result<(), RunError> {
    let own = own.iter().map(|prefix| cidr(*prefix)).collect::<Result<Vec<_>, _>>()?;
    let mut requests = Requests::open()?;
    for prefix in prefixes {
        let prefix = cidr(*prefix)?;
        if !own.iter().any(|own| own.contains(prefix)) {
            requests.add_route(index, prefix)?;
        }
    }
    Ok(())
}

/// Removes routes that [`routes`] made.
pub(crate) fn remove_routes(index: u32, prefixes: &[Prefix]) -> Result<(), RunError> {
    let mut requests = Requests::open()?;
    for prefix in prefixes {
        requests.remove_route(index, cidr(*prefix)?)?;
    }
    Ok(())
}

pub(crate) fn cidr(prefix: Prefix) -> Result<Cidr, CidrError> {
    Cidr::new(prefix.address, prefix.length)
}

/// The largest inner packet that fits one datagram over an interface with `link_mtu`.
pub(crate) fn inner_mtu(link_mtu: Option<u32>, overhead: Overhead) -> u16 {
    let link = link_mtu.and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(LINK_MTU).min(LINK_MTU);
    link.saturating_sub(overhead.bytes()).max(TUNNEL_MTU_MIN)
}

/// The MTU of the interface that has `remote` on its network.
pub(crate) fn neighbour_mtu(monitor: &Monitor, remote: IpAddr) -> Option<u32> {
    let near = |cidr: &Cidr| cidr.length() > 0 && cidr.contains(Cidr::host(remote));
    let found = monitor.interfaces().find(|interface| interface.addresses.iter().any(near));
    found.map(|interface| interface.mtu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_mtu_follows_the_link() {
        let of = |sealed, ipv6| Overhead { sealed, ipv6 };
        for (link, overhead, inner) in [
            (None, of(false, false), 1461),
            (None, of(false, true), 1441),
            (None, of(true, false), 1429),
            (None, of(true, true), 1409),
            (Some(1420), of(false, false), 1381),
            (Some(1492), of(true, false), 1421),
            (Some(65_536), of(false, false), 1461),
            (Some(1300), of(false, false), 1280),
        ] {
            assert_eq!(inner_mtu(link, overhead), inner);
        }
    }
}
