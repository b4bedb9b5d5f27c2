//! The kernel's forwarding switches.
//!
//! IPv4 is forwarded by interface: the switch for all stays as it is, so that it tells whether
//! another program came to need forwarding. IPv6 has one switch for the host (interfaces have their
//! own from Linux 6.17 on only); there the chains of others tell it.
//!
//! Sources: Documentation/networking/ip-sysctl.rst (`forwarding`, `accept_ra`).

use std::collections::BTreeSet;
use std::fs;

use super::Family;
use super::tables::Others;
use crate::netlink::Interface;
use crate::undo::{Journal, UndoError};

const SETTINGS: &str = "/proc/sys/net";

impl Family {
    /// The family that a setting is about.
    pub(crate) fn of_setting(path: &str) -> Self {
        if path.contains("/ipv6/") { Self::V6 } else { Self::V4 }
    }

    fn folder(self) -> String {
        format!("{SETTINGS}/{}/conf", if self == Self::V4 { "ipv4" } else { "ipv6" })
    }

    fn switch(self, interface: &str) -> String {
        format!("{}/{interface}/forwarding", self.folder())
    }

    /// Whether any interface forwards.
    pub(crate) fn is_forwarded(self) -> bool {
        let interfaces = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        interfaces
            .map(|interface| interface.path().join("forwarding"))
            .any(|path| fs::read_to_string(path).is_ok_and(|value| value.trim() == "1"))
    }
}

/// The signs that others on this host need forwarding for `family`. A journal keeps those of the
/// moment before its owner's change: only new ones forbid to undo it.
pub(crate) fn claims(family: Family) -> BTreeSet<String> {
    // Without an answer there is no sign.
    claims_among(family, &Others::read().unwrap_or_default())
}

/// The same, with the tables known.
pub(super) fn claims_among(family: Family, others: &Others) -> BTreeSet<String> {
    let mut claims = others.forward_chains(family);
    let all = fs::read_to_string(Family::V4.switch("all"));
    if family == Family::V4 && all.is_ok_and(|value| value.trim() == "1") {
        claims.insert("ip_forward".to_owned());
    }
    claims
}

/// Switches forwarding on between `tunnel` and the networks of the host.
pub(crate) fn enable(journal: &mut Journal, tunnel: &str, families: &[Family]) -> Result<(), UndoError> {
    if families.contains(&Family::V4) {
        set(journal, &Family::V4.switch(tunnel), "1")?;
    }
    if families.contains(&Family::V6) {
        keep_router_advertisements(journal)?;
        set(journal, &Family::V6.switch("all"), "1")?;
    }
    Ok(())
}

/// Lets an interface take part: answers come in by it.
pub(crate) fn enable_interface(journal: &mut Journal, interface: &Interface) -> Result<(), UndoError> {
    let has_ipv4 = interface.addresses.iter().any(|address| address.address().is_ipv4());
    if !has_ipv4 || interface.name == "lo" {
        return Ok(());
    }
    match set(journal, &Family::V4.switch(&interface.name), "1") {
        // It is gone again.
        Err(UndoError::Sysctl { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn set(journal: &mut Journal, path: &str, value: &str) -> Result<(), UndoError> {
    journal.set_forwarding(path, value, &claims(Family::of_setting(path)))
}

/// A host that forwards ignores router advertisements unless `accept_ra` is 2: without this, a
/// server that has its default route from one would lose it minutes later (ip-sysctl.rst,
/// `accept_ra`).
fn keep_router_advertisements(journal: &mut Journal) -> Result<(), UndoError> {
    let Ok(interfaces) = fs::read_dir(Family::V6.folder()) else { return Ok(()) };
    for interface in interfaces.flatten() {
        let name = interface.file_name();
        if name == "all" || name == "default" || name == "lo" {
            continue;
        }
        let path = interface.path().join("accept_ra");
        let accepts = fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1");
        if let Some(path) = path.to_str().filter(|_| accepts) {
            set(journal, path, "2")?;
        }
    }
    Ok(())
}
