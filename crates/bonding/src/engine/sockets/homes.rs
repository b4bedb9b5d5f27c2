//! Where the datagrams of plain links come in.
//!
//! A plain link is known by its peer's address alone, which anyone can write into a datagram. So it
//! takes datagrams only from the interface that its peer is behind.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bonding_os::Cidr;
use bonding_os::monitor::Monitor;
use bonding_os::udp::Received;

use crate::engine::plan::Home;

/// The interfaces of all plain links' peers, by their index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Homes(BTreeMap<IpAddr, Vec<u32>>);

impl Homes {
    /// As the interfaces are now.
    pub(crate) fn new<'a>(homes: impl IntoIterator<Item = &'a Home>, monitor: &Monitor) -> Self {
        let mut all: BTreeMap<IpAddr, Vec<u32>> = BTreeMap::new();
        for home in homes {
            let found = monitor.interfaces().filter(|interface| match &home.interface {
                Some(name) => interface.name == *name,
                None => interface.addresses.iter().any(|address| is_neighbour(*address, home.remote)),
            });
            all.entry(home.remote).or_default().extend(found.map(|interface| interface.index));
        }
        Self(all)
    }

    /// There are no plain links.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The peers that are behind no interface: nothing can come from them.
    pub(crate) fn lost(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().filter(|(_, interfaces)| interfaces.is_empty()).map(|(remote, _)| *remote)
    }

    /// Whether a datagram came in where its sender is, or is no plain link's.
    pub(super) fn accept(&self, datagram: &Received) -> bool {
        let home = self.0.get(&datagram.remote.ip());
        home.is_none_or(|interfaces| datagram.interface.is_some_and(|one| interfaces.contains(&one)))
    }
}

/// Whether `remote` is on the network of an interface with `address`.
fn is_neighbour(address: Cidr, remote: IpAddr) -> bool {
    address.length() > 0 && address.contains(Cidr::host(remote))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn a_plain_peer_is_heard_on_its_interface_only() {
        let monitor = Monitor::open().unwrap();
        let lo = monitor.interface("lo").unwrap().index;
        let received = |remote: &str, interface| Received {
            remote: format!("{remote}:9").parse().unwrap(),
            local: None,
            interface,
            is_marked: false,
            arrived: None,
            data: BytesMut::new(),
        };
        let home = |remote: &str, interface: Option<&str>| Home {
            remote: remote.parse().unwrap(),
            interface: interface.map(str::to_owned),
        };
        let list = [
            home("127.0.0.9", None),
            home("203.0.113.250", None),
            home("203.0.113.251", Some("lo")),
            home("203.0.113.252", Some("no-such-if")),
        ];
        let homes = Homes::new(&list, &monitor);
        for (remote, accepted) in [
            ("127.0.0.9", true),
            ("203.0.113.250", false),
            ("203.0.113.251", true),
            ("203.0.113.252", false),
            ("192.0.2.1", true),
        ] {
            assert_eq!(homes.accept(&received(remote, Some(lo))), accepted, "{remote}");
        }
        assert!(!homes.accept(&received("127.0.0.9", Some(lo + 1))));
        assert!(!homes.accept(&received("127.0.0.9", None)));
        assert_eq!(homes.lost().count(), 2);
    }
}
