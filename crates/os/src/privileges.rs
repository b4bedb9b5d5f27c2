//! Whether this process may do what a bond does.
//!
//! Source: capabilities(7); proc(5) `/proc/[pid]/status`.

use std::fs;

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
