//! The server's addresses, as each link uses them.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use bonding_os::monitor::Monitor;
use bonding_proto::client::Server;
use bonding_proto::config::Security;
use bonding_proto::{Path, SocketId};

use super::ResolveError;
use crate::config::Host;
use crate::engine::plan::LinkPlan;

/// A name with more addresses than this for one link is not one server's. Chosen: far more than a
/// server has.
const PATHS_MAX: usize = 8;

/// Each server with its addresses, in order of preference. A name is one server, and so are an IPv4
/// and an IPv6 address that stand side by side, as in an invitation. A name without an address is
/// left out while another host has one.
pub(super) fn candidates(hosts: &[Host]) -> Result<Vec<(Host, Vec<IpAddr>)>, ResolveError> {
    let mut found: Vec<(Host, Vec<IpAddr>)> = Vec::new();
    let mut failed = None;
    for host in hosts {
        match host {
            Host::Address(address) => match found.last_mut() {
                Some((Host::Address(_), addresses)) if completes(addresses, *address) => {
                    addresses.push(*address)
                }
                Some(_) | None => found.push((host.clone(), vec![*address])),
            },
            // A look-up needs a port and does not use it.
            Host::Name(name) => match (name.as_str(), 0).to_socket_addrs() {
                Ok(addresses) => found.push((host.clone(), distinct(addresses.map(|address| address.ip())))),
                Err(source) => {
                    let error = ResolveError::Lookup { name: name.clone(), source };
                    if hosts.len() > 1 {
                        tracing::debug!(%error, "a server's name");
                    }
                    failed = Some(error);
                }
            },
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// Whether the server has a single address, and this one is of the other family.
fn completes(addresses: &[IpAddr], other: IpAddr) -> bool {
    matches!(addresses, [only] if only.is_ipv4() != other.is_ipv4())
}

fn distinct(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for address in addresses.map(|address| address.to_canonical()) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// Each server with the addresses that each link can try: those of the families that the link can
/// use. A plain link has the first only, since the server knows a plain link by its address.
pub(super) fn servers(
    candidates: Vec<(Host, Vec<IpAddr>)>,
    links: &[LinkPlan],
    monitor: &Monitor,
) -> Result<Vec<(Host, Server)>, ResolveError> {
    let families: Vec<Families> = links.iter().map(|link| Families::of(link, monitor)).collect();
    let server = |(host, addresses): (Host, Vec<IpAddr>)| {
        let paths = (0..=u8::MAX).zip(links).zip(&families);
        let paths = paths.map(|((id, link), families)| {
            let fitting = addresses.iter().filter(|address| families.allow(**address));
            let most = if link.security == Security::Plain { 1 } else { PATHS_MAX };
            let path = |address: &IpAddr| {
                let remote = SocketAddr::new(*address, link.port);
                Path { socket: SocketId(id), remote, local: None }
            };
            fitting.take(most).map(path).collect()
        });
        (host, Server { public_key: None, paths: paths.collect() })
    };
    let servers: Vec<(Host, Server)> = candidates.into_iter().map(server).collect();
    for (at, link) in links.iter().enumerate() {
        let reaches =
            |(_, server): &(Host, Server)| server.paths.get(at).is_some_and(|paths| !paths.is_empty());
        if !servers.iter().any(reaches) {
            tracing::warn!(
                link = link.name,
                "the link can reach none of the server's addresses: their families differ"
            );
        }
    }
    if servers.iter().all(|(_, server)| server.paths.iter().all(Vec::is_empty)) {
        return Err(ResolveError::Family);
    }
    Ok(servers)
}

/// The families that a link can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Families {
    ipv4: bool,
    ipv6: bool,
}

impl Families {
    /// Told by its source address, else by the addresses of its interface, or of all interfaces.
    /// Both families while no address is known.
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
    use bonding_proto::config::UdpFlows;

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

    fn link(source: &str, security: Security) -> LinkPlan {
        LinkPlan {
            name: source.to_owned(),
            interface: None,
            source: Some(source.parse().unwrap()),
            security,
            port: 9_001,
            priority: 1,
            role: bonding_proto::view::LinkRole::Primary,
            tx_rate: None,
            rx_rate: None,
            cap: None,
            flows: UdpFlows::Auto,
        }
    }

    #[test]
    fn a_link_tries_the_addresses_of_its_family() {
        let both =
            ["2001:db8::7", "203.0.113.7", "203.0.113.8"].map(|address| address.parse::<IpAddr>().unwrap());
        let hosts = vec![(Host::Name("vps".to_owned()), both.to_vec())];
        let links = [
            link("10.0.0.1", Security::Sealed),
            link("fd00::1", Security::Sealed),
            link("10.0.0.2", Security::Plain),
        ];
        let monitor = Monitor::open().unwrap();
        let servers = servers(hosts.clone(), &links, &monitor).unwrap();
        let remotes: Vec<Vec<String>> = servers[0]
            .1
            .paths
            .iter()
            .map(|paths| paths.iter().map(|path| path.remote.to_string()).collect())
            .collect();
        assert_eq!(remotes[0], ["203.0.113.7:9001", "203.0.113.8:9001"]);
        assert_eq!(remotes[1], ["[2001:db8::7]:9001"]);
        assert_eq!(remotes[2], ["203.0.113.7:9001"]);
        assert_eq!(servers[0].1.paths[1][0].socket, SocketId(1));

        let only_v6 = vec![(Host::Name("vps".to_owned()), both[..1].to_vec())];
        assert!(matches!(super::servers(only_v6, &links[..1], &monitor), Err(ResolveError::Family)));
    }

    #[test]
    fn literal_addresses_need_no_look_up() {
        let hosts = [Host::Address("192.0.2.1".parse().unwrap()), Host::Name("no such name".to_owned())];
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(candidates(&hosts).unwrap(), [(hosts[0].clone(), vec![address])]);
        assert!(candidates(&hosts[1..]).is_err());
    }

    #[test]
    fn two_families_side_by_side_are_one_server() {
        let texts = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3", "2001:db8::3", "2001:db8::4"];
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let hosts = texts.map(|text| Host::Address(address(text)));
        let servers: Vec<Vec<IpAddr>> =
            candidates(&hosts).unwrap().into_iter().map(|(_, addresses)| addresses).collect();
        let expected: [&[&str]; 4] =
            [&texts[..2], &["192.0.2.2"], &["192.0.2.3", "2001:db8::3"], &["2001:db8::4"]];
        let expected = expected.map(|server| server.iter().map(|text| address(text)).collect::<Vec<_>>());
        assert_eq!(servers, expected);
    }
}
