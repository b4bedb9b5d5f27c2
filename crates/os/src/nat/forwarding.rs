//! The kernel's forwarding switches.
//!
//! Packets are forwarded by interface: the switch for all stays as it is, so that it tells whether
//! another program came to need forwarding. Before Linux 6.17 IPv6 has that switch only; there the
//! chains of others alone tell it.
//!
//! Sources: Documentation/networking/ip-sysctl.rst (`forwarding`, `force_forwarding`, `accept_ra`).

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

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

    /// The switch of all interfaces.
    fn common_switch(self) -> String {
        format!("{}/all/forwarding", self.folder())
    }

    /// The name of the switch that each interface has for itself, if there is one.
    fn own_switch(self) -> Option<&'static str> {
        match self {
            Self::V4 => Some("forwarding"),
            Self::V6 => {
                let name = "force_forwarding";
                Path::new(&self.folder()).join("all").join(name).exists().then_some(name)
            }
        }
    }

    /// Whether any interface forwards.
    pub(crate) fn is_forwarded(self) -> bool {
        let is_on = |path: &Path| fs::read_to_string(path).is_ok_and(|value| value.trim() == "1");
        let interfaces = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        interfaces
            .map(|interface| interface.path())
            .any(|path| is_on(&path.join("forwarding")) || is_on(&path.join("force_forwarding")))
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
    // Where interfaces have their own switches, nothing here touches that of all.
    let common = family.own_switch().and_then(|_| fs::read_to_string(family.common_switch()).ok());
    if common.is_some_and(|value| value.trim() == "1") {
        claims.insert(if family == Family::V4 { "ip_forward" } else { "ip6_forward" }.to_owned());
    }
    claims
}

/// Switches forwarding on between `tunnel` and the networks of the host.
pub(crate) fn enable(journal: &mut Journal, tunnel: &str, families: &[Family]) -> Result<(), UndoError> {
    for family in families {
        match family.own_switch() {
            Some(switch) => set(journal, &format!("{}/{tunnel}/{switch}", family.folder()), "1")?,
            None => {
                keep_router_advertisements(journal)?;
                set(journal, &family.common_switch(), "1")?;
            }
        }
    }
    Ok(())
}

/// Lets an interface take part in these families: answers come in by it.
pub(crate) fn enable_interface(
    journal: &mut Journal,
    interface: &Interface,
    families: &[Family],
) -> Result<(), UndoError> {
    let has_address = |family: Family| {
        interface.addresses.iter().any(|one| match one.address() {
            IpAddr::V4(_) => family == Family::V4,
            // Each interface has such an address; nothing beyond its network comes in by it alone.
            IpAddr::V6(address) => family == Family::V6 && !address.is_unicast_link_local(),
        })
    };
    let takes_part = |family: &&Family| interface.name != "lo" && has_address(**family);
    for family in families.iter().filter(takes_part) {
        let Some(switch) = family.own_switch() else { continue };
        match set(journal, &format!("{}/{}/{switch}", family.folder(), interface.name), "1") {
            // It is gone again.
            Err(UndoError::Sysctl { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
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
