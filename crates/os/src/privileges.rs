//! Whether this process may do what a bond does, and that it may do no more once it is set up.
//!
//! [`reduce`] gives up for good what a running bond does not need. What is left carries the rest of a life: sockets bound to
//! a device (CAP_NET_RAW), addresses and routes of the tunnel, the settings that are put back and nft(8) at the end
//! (CAP_NET_ADMIN). Files are then those that this user may write, even for root.
//!
//! Sources: capabilities(7); prctl(2); proc(5) `/proc/[pid]/status`; user_namespaces(7).

use std::fs;
use std::io;

use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// Which capabilities are missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is needed for TUN devices, routes and bound sockets; run as root", .missing.join(" and "))]
pub struct Unprivileged {
    /// Their names, as capabilities(7) has them.
    pub missing: Vec<&'static str>,
}

/// The bits of capabilities(7).
const NEEDED: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13)];

/// Checks for what is needed: CAP_NET_ADMIN (devices, routes, nftables) and CAP_NET_RAW (SO_BINDTODEVICE).
pub fn check() -> Result<(), Unprivileged> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing(&status);
    if missing.is_empty() { Ok(()) } else { Err(Unprivileged { missing }) }
}

/// How far above ordinary programs a bond runs: as far as a sound server, say.
const NICE: i32 = -10;

/// Runs this process before ordinary ones: packets of everybody wait while it waits. Without the right to (a user
/// namespace, say) it stays as it is, which costs latency on a busy machine and nothing else.
pub fn raise_priority() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "runs at ordinary priority");
    }
}

/// What a bond keeps.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);

/// Gives up every capability but CAP_NET_ADMIN and CAP_NET_RAW, for this process and what it starts, and all ways to get
/// one back. Inside a user namespace as well: what is given up is what the namespace gave.
///
/// Capabilities belong to threads: to be called while there is only one.
///
/// # Errors
/// When the kernel refuses; what was given up until then stays so.
pub fn reduce() -> io::Result<()> {
    // The bounding set first: it takes CAP_SETPCAP, which goes with the next step. A service manager that keeps us without
    // that capability has set the bounds itself.
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if KEPT.contains(capability) {
            continue;
        }
        // EINVAL: a capability that this kernel does not know.
        let bounded = thread::capability_is_in_bounding_set(capability).unwrap_or(false);
        if bounded && let Err(error) = thread::remove_capability_from_bounding_set(capability) {
            tracing::debug!(%error, "the bounding set stays as it is");
            break;
        }
    }
    if rustix::process::geteuid().is_root() {
        thread::clear_ambient_capability_set()?;
    }
    let now = thread::capabilities(None)?;
    let kept = now.permitted.intersection(KEPT);
    // Inheritable, because the ambient set is a part of it: an ordinary user's nft(8) has its rights from there.
    thread::set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: kept })?;
    thread::set_no_new_privs(true)?;
    Ok(())
}

fn missing(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // Without a proc file system nothing can be told: then let the kernel refuse.
    let Some(effective) = effective else { return Vec::new() };
    NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_set() {
        assert_eq!(missing("CapPrm:\t0\nCapEff:\t000001ffffffffff\n"), [""; 0]);
        assert_eq!(missing("CapEff:\t0000000000000000\n"), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(missing("CapEff:\t0000000000001000\n"), ["CAP_NET_RAW"]);
        assert_eq!(
            Unprivileged { missing: vec!["CAP_NET_RAW"] }.to_string(),
            "CAP_NET_RAW is needed for TUN devices, routes and bound sockets; run as root"
        );
    }
}
