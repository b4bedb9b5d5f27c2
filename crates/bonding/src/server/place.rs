//! The addresses at which clients find this server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::config::Host;

/// Destinations behind the default routes, from the ranges for documentation (RFC 5737, RFC 3849).
/// Nothing is sent there.
const FAR_AWAY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
/// RFC 863. A datagram socket only looks up the route.
const DISCARD_PORT: u16 = 9;

/// The address that the server listens on. If it listens on any: the addresses that the default
/// routes send from, IPv4 first.
pub(super) fn own_addresses(listen: IpAddr) -> Vec<Host> {
    if !listen.is_unspecified() {
        return vec![Host::Address(listen)];
    }
    let listened = |far: &&IpAddr| far.is_ipv4() || listen.is_ipv6();
    FAR_AWAY.iter().filter(listened).filter_map(|far| source_towards(*far)).map(Host::Address).collect()
}

/// The address that the kernel would send from.
fn source_towards(far: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(far, DISCARD_PORT)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    let usable = match source {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    };
    (usable && !source.is_unspecified() && !source.is_loopback()).then_some(source)
}

/// The host's address if it cannot be reached from the internet.
pub(super) fn private(host: &Host) -> Option<IpAddr> {
    let Host::Address(address) = host else { return None };
    let private = match address {
        IpAddr::V4(v4) => {
            // RFC 6598: addresses of a provider's NAT.
            let [a, b, ..] = v4.octets();
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback(),
    };
    private.then_some(*address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_known() {
        let private = |text: &str| private(&crate::config::host(text).unwrap()).is_some();
        for text in ["10.1.2.3", "192.168.1.1", "172.16.0.1", "100.64.0.1", "127.0.0.1", "fd00::1", "fe80::1"]
        {
            assert!(private(text), "{text}");
        }
        for text in ["203.0.113.7", "100.128.0.1", "2001:db8::1", "172.32.0.1", "vps.example.net"] {
            assert!(!private(text), "{text}");
        }
    }

    #[test]
    fn a_server_on_one_address_is_found_there() {
        let listen: IpAddr = "203.0.113.7".parse().unwrap();
        assert_eq!(own_addresses(listen), [Host::Address(listen)]);
        let found = own_addresses(Ipv4Addr::UNSPECIFIED.into());
        assert!(found.iter().all(|host| matches!(host, Host::Address(IpAddr::V4(_)))), "{found:?}");
    }
}
