//! Flows: packets with the same addresses, protocol and ports, as a carrier's policer tells them
//! apart.

use std::net::{IpAddr, SocketAddr};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A flow in one direction: a hash of its addresses, protocol and ports. All that is not told apart
/// is one flow, the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Flow(u64);

impl Flow {
    /// The flow of UDP datagrams from one address to another.
    pub fn udp(from: SocketAddr, to: SocketAddr) -> Self {
        let mut ports = [0; 4];
        let [from_ports, to_ports] = [from.port().to_be_bytes(), to.port().to_be_bytes()];
        ports.iter_mut().zip(from_ports.into_iter().chain(to_ports)).for_each(|(byte, port)| *byte = port);
        let flow = Self::of_parts(UDP, &ports);
        match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => flow.with(&from.octets()).with(&to.octets()),
            (IpAddr::V6(from), IpAddr::V6(to)) => flow.with(&from.octets()).with(&to.octets()),
            // No datagram has addresses of two kinds.
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Self::default(),
        }
    }

    /// The flow of an IP packet. Fragments and protocols other than TCP and UDP have no ports, and
    /// what is no IP packet is of the default flow.
    pub fn of_packet(packet: &[u8]) -> Self {
        match packet {
            [first, _, _, _, _, _, fragment, offset, _, protocol, _, _, addresses @ ..]
                if *first >> 4 == 4 =>
            {
                // RFC 791 §3.1: "more fragments", and the offset, which is 13 bits.
                let is_whole = u16::from_be_bytes([*fragment, *offset]) & 0x3fff == 0;
                let ports = packet.get(usize::from(*first & 0xf) * 4..).filter(|_| is_whole);
                Self::of_ip(*protocol, ports, addresses.get(..8))
            }
            [first, _, _, _, _, _, next_header, _, addresses @ ..] if *first >> 4 == 6 => {
                Self::of_ip(*next_header, packet.get(40..), addresses.get(..32))
            }
            _ => Self::default(),
        }
    }

    fn of_ip(protocol: u8, payload: Option<&[u8]>, addresses: Option<&[u8]>) -> Self {
        let Some(addresses) = addresses else { return Self::default() };
        let ports = payload.filter(|_| matches!(protocol, TCP | UDP)).and_then(|payload| payload.get(..4));
        Self::of_parts(protocol, ports.unwrap_or_default()).with(addresses)
    }

    fn of_parts(protocol: u8, ports: &[u8]) -> Self {
        // The offset basis of FNV-1a, 64 bits.
        Self(0xCBF2_9CE4_8422_2325).with(&[protocol]).with(ports)
    }

    /// The hash with these bytes added: FNV-1a, 64 bits.
    fn with(self, bytes: &[u8]) -> Self {
        Self(
            bytes
                .iter()
                .fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(flags: u8, from_port: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 1, 2, flags, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend(from_port.to_be_bytes());
        packet.extend(443_u16.to_be_bytes());
        packet.extend([0, 8, 0, 0]);
        packet
    }

    #[test]
    fn a_packet_belongs_to_the_flow_of_its_addresses_and_ports() {
        let flow = Flow::of_packet(&v4(0, 5_000));
        assert_eq!(flow, Flow::udp("10.0.0.1:5000".parse().unwrap(), "10.0.0.2:443".parse().unwrap()));
        assert_ne!(flow, Flow::udp("10.0.0.2:443".parse().unwrap(), "10.0.0.1:5000".parse().unwrap()));
        assert_ne!(flow, Flow::of_packet(&v4(0, 5_001)));
        // "Do not fragment" is no fragment.
        assert_eq!(flow, Flow::of_packet(&v4(0x40, 5_000)));

        let mut v6 = vec![0x60, 0, 0, 0, 0, 8, UDP, 64];
        v6.extend([1; 16].into_iter().chain([2; 16]).chain(5_000_u16.to_be_bytes()));
        v6.extend(443_u16.to_be_bytes());
        let address = |byte: u16| std::net::Ipv6Addr::from([byte * 0x101; 8]);
        let udp = Flow::udp((address(1), 5_000).into(), (address(2), 443).into());
        assert_eq!(Flow::of_packet(&v6), udp);
    }

    #[test]
    fn fragments_and_other_protocols_have_no_ports() {
        assert_eq!(Flow::of_packet(&v4(0x20, 1)), Flow::of_packet(&v4(0x20, 2)));
        let icmp = |identifier| {
            let mut packet = v4(0, identifier);
            packet[9] = 1;
            Flow::of_packet(&packet)
        };
        assert_eq!(icmp(1), icmp(2));
        assert_ne!(icmp(1), Flow::of_packet(&v4(0x20, 1)));
        for garbage in [&[][..], &[0x45; 12], &[0x60; 20], &[0; 40]] {
            assert_eq!(Flow::of_packet(garbage), Flow::default());
        }
    }
}
