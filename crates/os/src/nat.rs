//! Forwarding between the tunnel and other networks: the kernel's forwarding switches, and an
//! nftables table with masquerading and clamping of the TCP segment size. The bond's own datagrams
//! stay out of connection tracking.
//!
//! Contract: every change goes through a [`Journal`] and is undone with it. The table never changes
//! the host's own rules, and cannot overrule them: if another table drops forwarded packets, it
//! still does.
//!
//! The rules go to nft(8) as text, in one transaction: all of them apply or none. The inserted
//! parts (interface names, prefixes) are checked before.
//!
//! Sources: nft(8); Documentation/networking/ip-sysctl.rst (`forwarding`, `accept_ra`).

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use crate::address::Cidr;
use crate::undo::{Journal, UndoError};

/// The prefix of our tables' names; the name of the tunnel's interface follows.
const TABLE_PREFIX: &str = "bonding-";

/// The kernel's range of ephemeral ports.
const UNRESERVED: &str = "32768-60999";

/// The settings of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatConfig {
    /// The TUN device.
    pub tunnel: String,
    /// Inner prefixes whose packets leave with the host's address.
    pub sources: Vec<Cidr>,
    /// Masquerade only packets that leave by this interface; `None`: by any but the tunnel.
    pub egress: Option<String>,
    /// Our UDP ports, first and last: datagrams to and from them stay out of connection tracking,
    /// which would otherwise keep an entry for every forged address.
    pub listeners: (u16, u16),
}

/// The reason why NAT is not available.
#[derive(Debug, thiserror::Error)]
pub enum NatError {
    /// nft(8) is not installed.
    #[error("NAT needs the program `nft` (Debian: apt-get install nftables): {0}")]
    Missing(io::Error),
    /// nft(8) refused the rules.
    #[error("nftables refused the rules: {0}")]
    Refused(String),
    /// The name is not a possible interface name.
    #[error("`{0}` is not the name of an interface")]
    Interface(String),
}

/// Switches forwarding on, for the given address families.
pub fn enable_forwarding(journal: &mut Journal, ipv4: bool, ipv6: bool) -> Result<(), UndoError> {
    if ipv4 {
        journal.set_sysctl("/proc/sys/net/ipv4/ip_forward", "1")?;
    }
    if ipv6 {
        keep_router_advertisements(journal)?;
        journal.set_sysctl("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// A host that forwards ignores router advertisements unless `accept_ra` is 2: without this, a
/// server that has its default route from one would lose it minutes later (ip-sysctl.rst,
/// `accept_ra`).
fn keep_router_advertisements(journal: &mut Journal) -> Result<(), UndoError> {
    let Ok(interfaces) = fs::read_dir("/proc/sys/net/ipv6/conf") else { return Ok(()) };
    for interface in interfaces.flatten() {
        let name = interface.file_name();
        if name == "all" || name == "default" || name == "lo" {
            continue;
        }
        let path = interface.path().join("accept_ra");
        let accepts = fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1");
        if let Some(path) = path.to_str().filter(|_| accepts) {
            journal.set_sysctl(path, "2")?;
        }
    }
    Ok(())
}

/// Creates the table, and replaces one of the same name.
pub fn install(journal: &mut Journal, config: &NatConfig) -> Result<(), UndoError> {
    let rules = ruleset(config)?;
    journal.record_table(&table_name(&config.tunnel))?;
    Ok(nft(&rules)?)
}

/// Deletes one of our tables; succeeds if it does not exist.
pub(crate) fn delete_table(name: &str) -> Result<(), NatError> {
    // Declaring the table first makes the deletion succeed in any case.
    nft(&format!("table inet {name}\ndelete table inet {name}\n"))
}

/// Whether `name` is a name that this module gives to tables.
pub(crate) fn is_own_table(name: &str) -> bool {
    name.strip_prefix(TABLE_PREFIX).is_some_and(|rest| {
        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    })
}

fn table_name(tunnel: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '_' };
    TABLE_PREFIX.chars().chain(tunnel.chars().map(plain)).collect()
}

/// What may stand between quotes in a rule. Longer than a kernel name: no interface's.
fn interface(name: &str) -> Result<&str, NatError> {
    let fine = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name.chars().all(|c| c.is_ascii_graphic() && !"\"\\*/".contains(c));
    fine.then_some(name).ok_or_else(|| NatError::Interface(name.to_owned()))
}

fn ruleset(config: &NatConfig) -> Result<String, NatError> {
    let tunnel = interface(&config.tunnel)?;
    let name = table_name(tunnel);
    let leaving = match &config.egress {
        Some(egress) => format!("oifname \"{}\"", interface(egress)?),
        None => format!("oifname != \"{tunnel}\""),
    };
    let (first, last) = config.listeners;
    let mut masquerade = String::new();
    for (family, ipv4) in [("ip", true), ("ip6", false)] {
        let mut sources: Vec<String> = config
            .sources
            .iter()
            .filter(|source| source.address().is_ipv4() == ipv4)
            .map(|source| source.network().to_string())
            .collect();
        sources.sort_unstable();
        sources.dedup();
        for source in sources {
            // A flow with a listener's port would lose its answers to the listener.
            let rule = format!("{family} saddr {source} {leaving}");
            let _ = writeln!(masquerade, "    {rule} udp sport {first}-{last} masquerade to :{UNRESERVED}");
            let _ = writeln!(masquerade, "    {rule} masquerade");
        }
    }
    // `rt mtu` is the smaller of the MTUs towards both ends, so that either direction's SYN is
    // clamped to what the tunnel carries.
    Ok(format!(
        r#"table inet {name}
delete table inet {name}
table inet {name} {{
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    udp dport {first}-{last} fib daddr type local notrack
  }}
  chain output {{
    type filter hook output priority raw; policy accept;
    udp sport {first}-{last} notrack
  }}
  chain forward {{
    type filter hook forward priority mangle; policy accept;
    iifname "{tunnel}" tcp flags syn / syn,rst tcp option maxseg size set rt mtu
    oifname "{tunnel}" tcp flags syn / syn,rst tcp option maxseg size set rt mtu
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
{masquerade}  }}
}}
"#
    ))
}

/// Runs one transaction.
fn nft(rules: &str) -> Result<(), NatError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NatError::Missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A refusal shows in the exit status.
        let _ = stdin.write_all(rules.as_bytes());
    }
    let output = child.wait_with_output().map_err(NatError::Missing)?;
    if output.status.success() {
        return Ok(());
    }
    Err(NatError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NatConfig {
        NatConfig {
            tunnel: "tun-bond".to_owned(),
            sources: ["10.99.0.1/24", "fd99::1/64", "192.168.1.0/24", "10.99.0.7/24"]
                .map(|source| source.parse().unwrap())
                .to_vec(),
            egress: None,
            listeners: (9_001, 9_005),
        }
    }

    #[test]
    fn masquerades_networks_once_and_clamps() {
        let rules = ruleset(&config()).unwrap();
        assert!(rules.starts_with("table inet bonding-tun-bond\ndelete table inet bonding-tun-bond\n"));
        for line in [
            "ip saddr 10.99.0.0/24 oifname != \"tun-bond\" masquerade",
            "ip saddr 192.168.1.0/24 oifname != \"tun-bond\" masquerade",
            "ip6 saddr fd99::/64 oifname != \"tun-bond\" masquerade",
            "udp dport 9001-9005 fib daddr type local notrack",
            "udp sport 9001-9005 notrack",
            "ip saddr 10.99.0.0/24 oifname != \"tun-bond\" udp sport 9001-9005 masquerade to :32768-60999",
            "iifname \"tun-bond\" tcp flags syn / syn,rst tcp option maxseg size set rt mtu",
        ] {
            assert_eq!(rules.matches(line).count(), 1, "{line}");
        }
    }

    #[test]
    fn nothing_but_an_interface_gets_into_a_rule() {
        let rules = ruleset(&NatConfig { egress: Some("eth0.7".to_owned()), ..config() }).unwrap();
        assert!(rules.contains("oifname \"eth0.7\" masquerade"));
        for name in ["", "a\" accept\n", "eth*", "sixteen-letters-", "a b", "a/b"] {
            assert!(ruleset(&NatConfig { egress: Some(name.to_owned()), ..config() }).is_err(), "{name}");
            assert!(ruleset(&NatConfig { tunnel: name.to_owned(), ..config() }).is_err(), "{name}");
        }
    }

    #[test]
    fn a_table_is_named_by_its_tunnel() {
        assert_eq!(table_name("tun.bond@7"), "bonding-tun_bond_7");
        assert!(is_own_table(&table_name("tun.bond@7")));
        assert!(!is_own_table("filter") && !is_own_table("bonding-"));
    }
}
