//! The addresses of a lab, from the ranges for documentation and private use: IPv4 by RFC 5737 and
//! RFC 1918, IPv6 by RFC 3849 and RFC 4193.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The server's public address, on its loopback: reachable over every link.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// The server's public address.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
/// The server's end of the wire to the internet host.
pub const SERVER_EGRESS_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The server's end of the wire to the internet host.
pub const SERVER_EGRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 1);
/// The internet host.
pub const INTERNET_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The internet host.
pub const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 2);
/// The device of the server and of the internet host that connects them.
pub const EGRESS_DEVICE: &str = "eth0";

/// The client's address on link `index` (of a /24).
pub const fn client_v4(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, index, 1)
}

/// The server's address on link `index` (of a /24); peers use [`SERVER_V4`].
pub const fn server_v4(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, index, 2)
}

/// The client's address on link `index` (of a /64).
pub const fn client_v6(index: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x200, index as u16, 0, 0, 0, 0, 1)
}

/// The server's address on link `index` (of a /64); peers use [`SERVER_V6`].
pub const fn server_v6(index: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x200, index as u16, 0, 0, 0, 0, 2)
}

/// The network of link `index`, a /24.
pub const fn network_v4(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, index, 0)
}

/// The network of link `index`, a /64.
pub const fn network_v6(index: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x200, index as u16, 0, 0, 0, 0, 0)
}
