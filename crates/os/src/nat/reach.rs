//! What a destination is to a client: the internet, a service of this host, a private network, or
//! another client. The table's rules and connections that the server makes itself go by the same
//! lists.
//!
//! Sources: RFC 1918, RFC 3927, RFC 4193, RFC 4291, RFC 6598 for the address ranges.

use std::net::IpAddr;

use super::Reach;
use crate::address::Cidr;

/// Where machines in a cloud ask for their credentials: link-local, and the addresses beyond it
/// that the providers document (Azure, Alibaba; Amazon and Google over IPv6). IPv4 first.
pub(super) const METADATA: [&[&str]; 2] = [
    &["169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32"],
    &["fd00:ec2::254/128", "fd20:ce::254/128"],
];
/// RFC 1918 and RFC 6598; RFC 4193 and RFC 4291 §2.5.6.
pub(super) const PRIVATE: [&[&str]; 2] =
    [&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"], &["fc00::/7", "fe80::/10"]];
/// Reaches no one machine beyond this host: this network, loopback, multicast and what is reserved;
/// addresses that contain IPv4 addresses.
const NOWHERE: [&[&str]; 2] = [
    &["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"],
    &["::/96", "::ffff:0:0/96", "64:ff9b:1::/48", "2002::/16", "ff00::/8"],
];

/// Something that clients may or may not reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Internet,
    Server,
    Private,
    Clients,
}

impl Target {
    pub(super) const ALL: [Self; 4] = [Self::Internet, Self::Server, Self::Private, Self::Clients];

    /// What the address is; `None`: what no client may reach. `own`: this host's addresses;
    /// `tunnel`: the tunnel's networks.
    pub(super) fn of(
        address: IpAddr,
        own: impl Iterator<Item = Cidr>,
        tunnel: impl Iterator<Item = Cidr>,
    ) -> Option<Self> {
        let host = Cidr::host(address);
        let is_in = |lists: [&[&str]; 2]| {
            let [ipv4, ipv6] = lists;
            let list = if address.is_ipv4() { ipv4 } else { ipv6 };
            list.iter().filter_map(|prefix| prefix.parse::<Cidr>().ok()).any(|prefix| prefix.contains(host))
        };
        if is_in(NOWHERE) || is_in(METADATA) {
            None
        } else if own.map(Cidr::address).any(|own| own == address) {
            Some(Self::Server)
        } else if tunnel.map(Cidr::network).any(|network| network.contains(host)) {
            Some(Self::Clients)
        } else if is_in(PRIVATE) {
            Some(Self::Private)
        } else {
            Some(Self::Internet)
        }
    }

    pub(super) const fn is_in(self, reach: Reach) -> bool {
        match self {
            Self::Internet => reach.internet,
            Self::Server => reach.server,
            Self::Private => reach.private,
            Self::Clients => reach.clients,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Option<Target> {
        let cidrs = |list: &[&str]| list.iter().map(|one| one.parse().unwrap()).collect::<Vec<Cidr>>();
        let own = cidrs(&["203.0.113.9/24", "10.99.0.1/24", "127.0.0.1/8", "2001:db8::9/64"]);
        let tunnel = cidrs(&["10.99.0.1/24", "fd99::1/64"]);
        Target::of(address.parse().unwrap(), own.into_iter(), tunnel.into_iter())
    }

    #[test]
    fn a_destination_is_one_of_four_or_nothing() {
        for address in ["198.51.100.1", "8.8.8.8", "203.0.113.10", "2001:db8::10", "64:ff9b::808:808"] {
            assert_eq!(target(address), Some(Target::Internet), "{address}");
        }
        for address in ["203.0.113.9", "10.99.0.1", "2001:db8::9"] {
            assert_eq!(target(address), Some(Target::Server), "{address}");
        }
        for address in ["10.99.0.2", "fd99::2"] {
            assert_eq!(target(address), Some(Target::Clients), "{address}");
        }
        for address in ["10.0.0.1", "192.168.1.1", "172.31.0.1", "100.64.0.1", "fd00::1", "fe80::1"] {
            assert_eq!(target(address), Some(Target::Private), "{address}");
        }
        let never = [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "ff02::1",
            "2002:7f00:1::",
        ];
        for address in never {
            assert_eq!(target(address), None, "{address}");
        }
    }
}
