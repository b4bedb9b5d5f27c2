//! Addresses outside the bond: the addresses, ports and sockets of link *i* at both ends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bonding_proto::{Path, SocketId};

/// Bytes of IPv4 and UDP header around a datagram.
pub const UDP_OVERHEAD: u16 = 28;
/// The server's outer address.
pub const SERVER_OUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The server's first port; link *i* uses this plus *i*.
const SERVER_PORT: u16 = 9_001;

/// The path of a client's link *i*, as its configuration gives it.
pub fn client_path(link: usize) -> Path {
    Path { socket: socket(link), remote: server_address(link), local: None }
}

/// The path on which the server sees link *i* until the client moves.
pub fn server_path(link: usize) -> Path {
    Path { socket: socket(link), remote: client_address(link), local: None }
}

pub(crate) fn byte(link: usize) -> u8 {
    u8::try_from(link).unwrap_or(u8::MAX)
}

pub(crate) fn socket(link: usize) -> SocketId {
    SocketId(byte(link))
}

pub(crate) fn server_address(link: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(SERVER_OUTER), SERVER_PORT + u16::from(byte(link)))
}

/// The client's outer address on link *i*.
pub fn client_address(link: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 200, byte(link), 1)), 50_000)
}
