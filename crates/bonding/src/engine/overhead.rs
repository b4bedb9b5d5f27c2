//! The headers that a link puts around an inner packet.

use std::net::IpAddr;

use crate::config::Security;

/// Bytes of IP and UDP header around a datagram.
const IPV4_HEADERS: u16 = 20 + 8;
const IPV6_HEADERS: u16 = 40 + 8;
/// The header of a frame.
const FRAME_HEADER: u16 = 11;
/// Of a sealed datagram: its header and its tag.
const SEALING: u16 = 16 + 16;

/// The properties of a link that decide its overhead; ordered by the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Overhead {
    /// How the datagram is protected.
    pub sealed: bool,
    /// Which IP carries it.
    pub ipv6: bool,
}

impl Overhead {
    /// To `remote`.
    pub fn of(remote: IpAddr, security: Security) -> Self {
        Self { sealed: security == Security::Sealed, ipv6: remote.to_canonical().is_ipv6() }
    }

    /// Bytes around one inner packet that is alone in its datagram.
    pub const fn bytes(self) -> u16 {
        self.header_bytes() + FRAME_HEADER + if self.sealed { SEALING } else { 0 }
    }

    /// The part of it that is IP's and UDP's.
    pub const fn header_bytes(self) -> u16 {
        if self.ipv6 { IPV6_HEADERS } else { IPV4_HEADERS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealing_costs_32_bytes_and_ipv6_20() {
        let bytes = |sealed, ipv6| Overhead { sealed, ipv6 }.bytes();
        assert_eq!(
            [bytes(false, false), bytes(false, true), bytes(true, false), bytes(true, true)],
            [39, 59, 71, 91]
        );
        assert!(Overhead { sealed: true, ipv6: false } > Overhead { sealed: false, ipv6: true });
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(Overhead::of(mapped, Security::Sealed).bytes(), 71);
    }
}
