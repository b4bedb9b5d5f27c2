//! Which of the server's addresses each link uses.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use bonding_os::monitor::Monitor;

use super::ResolveError;
use crate::config::Host;
use crate::engine::plan::LinkPlan;

/// All addresses of all hosts, in order of preference. Hosts that cannot be looked up are left out while another one can.
pub(super) fn candidates(hosts: &[Host]) -> Result<Vec<IpAddr>, ResolveError> {
    let mut addresses = Vec::new();
    let mut failed = None;
    for host in hosts {
        match host {
            Host::Address(address) => addresses.push(*address),
            // The port is none of the look-up's business.
            Host::Name(name) => match (name.as_str(), 0).to_socket_addrs() {
                Ok(found) => addresses.extend(found.map(|address| address.ip())),
                Err(source) => failed = Some(ResolveError::Lookup { name: name.clone(), source }),
            },
        }
    }
    match failed {
        Some(error) if addresses.is_empty() => Err(error),
        _ => Ok(addresses),
    }
}

/// The first candidate of a family that the link can do, for each link.
pub(super) fn choose(
    candidates: &[IpAddr],
    links: &[LinkPlan],
    monitor: &Monitor,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let one = |link: &LinkPlan| {
        let families = Families::of(link, monitor);
        let address = candidates.iter().find(|address| families.allow(**address));
        address
            .map(|address| SocketAddr::new(*address, link.port))
            .ok_or_else(|| ResolveError::Family(link.name.clone()))
    };
    links.iter().map(one).collect()
}

/// What a link can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Families {
    ipv4: bool,
    ipv6: bool,
}

impl Families {
    /// By its source address; else by the addresses of its interface, or of all. Both while nothing is known.
    fn of(link: &LinkPlan, monitor: &Monitor) -> Self {
        if let Some(source) = link.source {
            return Self { ipv4: source.is_ipv4(), ipv6: source.is_ipv6() };
        }
        let ours = |name: &str| name != "lo" && link.interface.as_deref().is_none_or(|own| own == name);
        let addresses = monitor.interfaces().filter(|interface| ours(&interface.name));
        Self::among(addresses.flat_map(|interface| &interface.addresses).map(|address| address.address()))
    }

    fn among(addresses: impl Iterator<Item = IpAddr>) -> Self {
        let mut found = Self { ipv4: false, ipv6: false };
        for address in addresses {
            match address {
                IpAddr::V4(_) => found.ipv4 = true,
                IpAddr::V6(v6) => found.ipv6 |= !v6.is_unicast_link_local(),
            }
        }
        if found.ipv4 || found.ipv6 { found } else { Self { ipv4: true, ipv6: true } }
    }

    fn allow(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_follow_the_addresses() {
        let among = |list: &[&str]| {
            let found = Families::among(list.iter().map(|address| address.parse().unwrap()));
            (found.ipv4, found.ipv6)
        };
        assert_eq!(among(&[]), (true, true));
        assert_eq!(among(&["fe80::1"]), (true, true));
        assert_eq!(among(&["10.0.0.1", "fe80::1"]), (true, false));
        assert_eq!(among(&["2001:db8::1", "fe80::1"]), (false, true));
    }

    #[test]
    fn literal_addresses_need_no_look_up() {
        let hosts = [Host::Address("192.0.2.1".parse().unwrap()), Host::Name("no such name".to_owned())];
        assert_eq!(candidates(&hosts).unwrap(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert!(candidates(&hosts[1..]).is_err());
    }
}
