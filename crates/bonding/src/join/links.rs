//! The interfaces of this machine that are links: up, with an address that leads out, and either
//! named like a line or with a default route.

use std::net::IpAddr;

use bonding_os::netlink::{DefaultRoute, Interface};

use crate::config::LINKS_MAX;

/// Names of interfaces that carry a line.
const INCLUDE: [&str; 8] = ["wg*", "eth*", "en*", "wlan*", "wl*", "wwan*", "usb*", "ppp*"];
/// Names of interfaces that never do, even if a route leads there.
const EXCLUDE: [&str; 5] = ["tun*", "docker*", "veth*", "br-*", "lo"];

/// The links' interfaces, those with the preferred default route first.
pub(super) fn choose<'a>(
    interfaces: impl Iterator<Item = &'a Interface>,
    routes: &[DefaultRoute],
) -> Vec<String> {
    let mut found = Vec::new();
    for interface in interfaces {
        let metric =
            routes.iter().filter(|route| route.index == interface.index).map(|route| route.metric).min();
        let like = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, &interface.name));
        let leads_out = interface.addresses.iter().any(|address| usable(address.address()));
        if interface.usable && leads_out && !like(&EXCLUDE) && (like(&INCLUDE) || metric.is_some()) {
            found.push((metric.unwrap_or(u32::MAX), interface.name.clone()));
        }
    }
    found.sort();
    found.into_iter().map(|(_, name)| name).take(LINKS_MAX).collect()
}

fn usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

/// `*` stands for any characters, `?` for one.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = pattern.as_str();
            (0..=name.len()).filter_map(|at| name.get(at..)).any(|tail| matches(rest, tail))
        }
        Some(wanted) => {
            let mut name = name.chars();
            name.next().is_some_and(|found| wanted == '?' || wanted == found)
                && matches(pattern.as_str(), name.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str, address: &str) -> Interface {
        let addresses = if address.is_empty() { Vec::new() } else { vec![address.parse().unwrap()] };
        let name = name.to_owned();
        Interface { index, name, usable: true, mtu: 1_500, addresses, ..Interface::default() }
    }

    #[test]
    fn links_come_in_the_order_of_their_routes() {
        let interfaces = [
            interface(1, "lo", "127.0.0.1/8"),
            interface(2, "eth0", "192.168.1.5/24"),
            interface(3, "wwan0", "100.64.3.4/30"),
            interface(4, "eth1", "fe80::1/64"),
            interface(5, "docker0", "172.17.0.1/16"),
            interface(6, "wg0", "fd10::2/64"),
            interface(7, "line", "10.0.0.2/24"),
            interface(8, "lan0", "192.168.9.1/24"),
            interface(9, "tun-bond", "10.99.0.2/24"),
            interface(10, "enp3s0", ""),
            Interface { usable: false, ..interface(11, "eth2", "10.1.1.1/24") },
        ];
        let route = |index, metric, ipv4| DefaultRoute { index, metric, ipv4 };
        let routes = [
            route(2, 600, true),
            route(2, 1_024, false),
            route(3, 100, true),
            route(7, 700, true),
            route(5, 1, true),
            route(9, 0, true),
        ];
        assert_eq!(choose(interfaces.iter(), &routes), ["wwan0", "eth0", "line", "wg0"]);
        assert_eq!(choose(interfaces.iter(), &[]), ["eth0", "wg0", "wwan0"]);
    }

    #[test]
    fn patterns_are_whole_names() {
        for (pattern, name, expected) in [
            ("wg*", "wg0", true),
            ("wg*", "wg", true),
            ("wg*", "xwg0", false),
            ("*0", "eth0", true),
            ("e?h*", "eth12", true),
            ("e?h", "eh", false),
            ("lo", "lo0", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
