//! The lines over which the server may be reached: every interface that could carry packets there.
//!
//! What is asked costs a datagram, so that all are asked, also those that are no links later. The
//! bond's own device is left out, and other tunnels that lead into a user's program: what goes
//! there may end in the bond.

use std::net::IpAddr;

use bonding_os::netlink::Interface;

use crate::config::LINKS_MAX;

/// A line, and the families of the addresses that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) interface: String,
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
}

/// The lines among these interfaces; those without an address that leads out are none.
pub(super) fn among<'a>(interfaces: impl Iterator<Item = &'a Interface>) -> Vec<Line> {
    let line = |interface: &Interface| Line {
        interface: interface.name.clone(),
        ipv4: interface.addresses.iter().any(|one| one.address().is_ipv4() && leads_out(one.address())),
        ipv6: interface.addresses.iter().any(|one| one.address().is_ipv6() && leads_out(one.address())),
    };
    let usable = interfaces.filter(|interface| interface.usable && !interface.name.starts_with("tun"));
    usable.map(line).filter(|line| line.ipv4 || line.ipv6).take(LINKS_MAX).collect()
}

fn leads_out(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_with_an_address_that_leads_out_is_a_line() {
        let interface = |index, name: &str, addresses: &[&str]| Interface {
            index,
            name: name.to_owned(),
            usable: true,
            mtu: 1_500,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ..Interface::default()
        };
        let interfaces = [
            interface(1, "lo", &["127.0.0.1/8", "::1/128"]),
            interface(2, "dsl", &["192.168.1.5/24", "fe80::1/64"]),
            interface(3, "lte", &["2001:db8::7/64", "10.0.0.1/8"]),
            interface(4, "tun-bond", &["10.99.0.2/24"]),
            interface(5, "empty", &["fe80::2/64", "169.254.1.1/16"]),
            Interface { usable: false, ..interface(6, "dead", &["10.2.0.1/24"]) },
        ];
        let line = |name: &str, ipv4, ipv6| Line { interface: name.to_owned(), ipv4, ipv6 };
        assert_eq!(among(interfaces.iter()), [line("dsl", true, false), line("lte", true, true)]);
    }
}
