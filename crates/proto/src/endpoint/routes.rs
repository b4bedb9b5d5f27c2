//! Routes from inner addresses to clients: longest-prefix match, with one binary search for each
//! prefix length in use. The last answer is remembered, because packets come in runs and both
//! directions look up the client's address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::session_id::SessionId;
use crate::config::Prefix;

/// The table.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    ipv4: Family<u32>,
    ipv6: Family<u128>,
    latest: Option<(IpAddr, SessionId)>,
}

/// The routes of one address family: for each prefix length in use, longest first, the masked
/// addresses in order.
#[derive(Debug, Default)]
struct Family<Bits>(Vec<(u8, Vec<(Bits, SessionId)>)>);

impl<Bits: Copy + Ord> Family<Bits> {
    fn insert(&mut self, length: u8, masked: Bits, id: SessionId) {
        let at = self.0.partition_point(|(known, _)| *known > length);
        if self.0.get(at).is_none_or(|(known, _)| *known != length) {
            self.0.insert(at, (length, Vec::new()));
        }
        if let Some((_, entries)) = self.0.get_mut(at) {
            // The first client with a prefix keeps it; the configuration refuses overlaps.
            if let Err(at) = entries.binary_search_by_key(&masked, |(known, _)| *known) {
                entries.insert(at, (masked, id));
            }
        }
    }

    fn remove(&mut self, id: SessionId) {
        self.0.retain_mut(|(_, entries)| {
            entries.retain(|(_, owner)| *owner != id);
            !entries.is_empty()
        });
    }

    fn lookup(&self, masked: impl Fn(u8) -> Bits) -> Option<SessionId> {
        self.0.iter().find_map(|(length, entries)| {
            let masked = masked(*length);
            let at = entries.binary_search_by_key(&masked, |(known, _)| *known).ok()?;
            entries.get(at).map(|(_, id)| *id)
        })
    }
}

impl RouteTable {
    /// Gives a prefix to a session.
    pub(super) fn insert(&mut self, prefix: Prefix, id: SessionId) {
        self.latest = None;
        match prefix.address {
            IpAddr::V4(ipv4) => {
                let length = prefix.length.min(32);
                self.ipv4.insert(length, masked_ipv4(ipv4, length), id);
            }
            IpAddr::V6(ipv6) => {
                let length = prefix.length.min(128);
                self.ipv6.insert(length, masked_ipv6(ipv6, length), id);
            }
        }
    }

    /// Removes all routes of a session.
    pub(super) fn remove(&mut self, id: SessionId) {
        self.latest = None;
        self.ipv4.remove(id);
        self.ipv6.remove(id);
    }

    /// The session that owns `address`.
    pub(super) fn lookup(&mut self, address: IpAddr) -> Option<SessionId> {
        if let Some((_, id)) = self.latest.filter(|(known, _)| *known == address) {
            return Some(id);
        }
        let id = match address {
            IpAddr::V4(ipv4) => self.ipv4.lookup(|length| masked_ipv4(ipv4, length)),
            IpAddr::V6(ipv6) => self.ipv6.lookup(|length| masked_ipv6(ipv6, length)),
        }?;
        self.latest = Some((address, id));
        Some(id)
    }
}

/// The address with all but the first `length` bits cleared.
fn masked_ipv4(address: Ipv4Addr, length: u8) -> u32 {
    address.to_bits() & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn masked_ipv6(address: Ipv6Addr, length: u8) -> u128 {
    address.to_bits() & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
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
