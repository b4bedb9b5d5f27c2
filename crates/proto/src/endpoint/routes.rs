//! Which client an inner address belongs to: longest-prefix match, one ordered look-up for each prefix length in use. The last answer is
//! remembered: packets come in runs, and both directions ask for the client's address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::SessionId;
use crate::config::Prefix;

/// The table.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    entries: BTreeMap<Prefix, SessionId>,
    /// Lengths in use, longest first; IPv4 and IPv6.
    lengths: [Vec<u8>; 2],
    latest: Option<(IpAddr, SessionId)>,
}

impl RouteTable {
    /// Gives a prefix to a session.
    pub(super) fn insert(&mut self, prefix: Prefix, id: SessionId) {
        self.latest = None;
        let prefix = masked(prefix.address, prefix.length);
        // The first client to name a prefix has it; configuration refuses overlaps before.
        self.entries.entry(prefix).or_insert(id);
        let [ipv4, ipv6] = &mut self.lengths;
        let lengths = if prefix.address.is_ipv4() { ipv4 } else { ipv6 };
        if !lengths.contains(&prefix.length) {
            lengths.push(prefix.length);
            lengths.sort_unstable_by(|a, b| b.cmp(a));
        }
    }

    /// Takes everything from a session.
    pub(super) fn remove(&mut self, id: SessionId) {
        self.latest = None;
        self.entries.retain(|_, owner| *owner != id);
        for (ipv6, lengths) in [false, true].into_iter().zip(&mut self.lengths) {
            let entries = &self.entries;
            lengths.retain(|length| {
                entries.keys().any(|prefix| prefix.length == *length && prefix.address.is_ipv6() == ipv6)
            });
        }
    }

    /// Whose address it is.
    pub(super) fn lookup(&mut self, address: IpAddr) -> Option<SessionId> {
        if let Some((_, id)) = self.latest.filter(|(known, _)| *known == address) {
            return Some(id);
        }
        let [ipv4, ipv6] = &self.lengths;
        let lengths = if address.is_ipv4() { ipv4 } else { ipv6 };
        let id = lengths.iter().find_map(|length| self.entries.get(&masked(address, *length)).copied())?;
        self.latest = Some((address, id));
        Some(id)
    }
}

/// The prefix with the bits that do not count cleared, and a length that its family allows.
fn masked(address: IpAddr, length: u8) -> Prefix {
    match address {
        IpAddr::V4(ipv4) => {
            let length = length.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Prefix { address: IpAddr::V4((ipv4.to_bits() & mask).into()), length }
        }
        IpAddr::V6(ipv6) => {
            let length = length.min(128);
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            Prefix { address: IpAddr::V6((ipv6.to_bits() & mask).into()), length }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let mut routes = RouteTable::default();
        let prefix = |text: &str, length| Prefix { address: text.parse().unwrap(), length };
        routes.insert(prefix("10.99.0.2", 32), SessionId(1));
        routes.insert(prefix("10.99.0.0", 16), SessionId(2));
        routes.insert(prefix("0.0.0.0", 0), SessionId(3));
        routes.insert(prefix("fd99::2", 128), SessionId(4));
        let mut lookup = |text: &str| routes.lookup(text.parse().unwrap()).map(|id| id.0);
        assert_eq!(lookup("10.99.0.2"), Some(1));
        assert_eq!(lookup("10.99.0.3"), Some(2));
        assert_eq!(lookup("8.8.8.8"), Some(3));
        assert_eq!(lookup("fd99::2"), Some(4));
        assert_eq!(lookup("fd99::3"), None);
        routes.remove(SessionId(1));
        let mut lookup = |text: &str| routes.lookup(text.parse().unwrap()).map(|id| id.0);
        assert_eq!((lookup("10.99.0.2"), lookup("fd99::2")), (Some(2), Some(4)));
    }
}
