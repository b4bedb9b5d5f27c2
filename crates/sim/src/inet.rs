//! IPv4 and UDP as far as the simulated hosts need them, and the hosts' addresses.
//!
//! Checksums are computed and verified: they are part of the proof that no packet was corrupted.
//! Sources: RFC 791, RFC 768, RFC 1071.

use std::net::Ipv4Addr;

use smoltcp::wire::{IpProtocol, Ipv4Packet, UdpPacket, checksum};

/// The client's inner address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The inner address of a host behind the server.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The inner address of a second client that attacks.
pub const INTRUDER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 66);
/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Bytes of a UDP header.
pub const UDP_HEADER: usize = 8;

/// One end of an inner UDP exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpEnd {
    /// Address.
    pub address: Ipv4Addr,
    /// Port.
    pub port: u16,
}

impl UdpEnd {
    /// `address` with `port`.
    pub const fn new(address: Ipv4Addr, port: u16) -> Self {
        Self { address, port }
    }
}

/// A received inner UDP datagram with valid checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpView<'a> {
    /// Sender.
    pub from: UdpEnd,
    /// Receiver.
    pub to: UdpEnd,
    /// The two ECN bits of the IP header.
    pub ecn: u8,
    /// The payload.
    pub payload: &'a [u8],
}

/// The fields that name a flow: addresses, protocol and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port; 0 where the protocol has none.
    pub source_port: u16,
    /// Destination port; 0 where the protocol has none.
    pub destination_port: u16,
}

impl FlowKey {
    /// Reads the key of an IPv4 packet; `None` for any other packet.
    pub fn of(packet: &[u8]) -> Option<Self> {
        let view = Ipv4Packet::new_checked(packet).ok()?;
        let (mut source_port, mut destination_port) = (0, 0);
        if matches!(view.next_header(), IpProtocol::Tcp | IpProtocol::Udp) {
            let ports = view.payload();
            (source_port, destination_port) = (be16(ports, 0)?, be16(ports, 2)?);
        }
        Some(Self {
            source: view.src_addr(),
            destination: view.dst_addr(),
            protocol: view.next_header().into(),
            source_port,
            destination_port,
        })
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes(pair.try_into().ok()?))
}

/// Builds an inner UDP datagram.
///
/// # Panics
/// If `payload` does not fit an IPv4 packet: the caller chooses it.
#[expect(clippy::expect_used, reason = "an oversized payload is the caller's bug")]
pub fn udp_packet(from: UdpEnd, to: UdpEnd, ecn: u8, payload: &[u8]) -> Vec<u8> {
    let udp_bytes = UDP_HEADER + payload.len();
    let total = u16::try_from(IPV4_HEADER + udp_bytes).expect("payload fits an IPv4 packet");
    let mut packet = vec![0; usize::from(total)];
    let mut ip = Ipv4Packet::new_unchecked(packet.as_mut_slice());
    ip.set_version(4);
    ip.set_header_len(20);
    ip.set_ecn(ecn & 3);
    ip.set_total_len(total);
    ip.set_dont_frag(true);
    ip.set_hop_limit(64);
    ip.set_next_header(IpProtocol::Udp);
    ip.set_src_addr(from.address);
    ip.set_dst_addr(to.address);
    let mut udp = UdpPacket::new_unchecked(ip.payload_mut());
    udp.set_src_port(from.port);
    udp.set_dst_port(to.port);
    udp.set_len(total - 20);
    udp.payload_mut().copy_from_slice(payload);
    udp.fill_checksum(&from.address.into(), &to.address.into());
    ip.fill_checksum();
    packet
}

/// Reads an inner UDP datagram; `None` for any other packet, or if a checksum is wrong.
pub fn parse_udp(packet: &[u8]) -> Option<UdpView<'_>> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    if ip.next_header() != IpProtocol::Udp || !ip.verify_checksum() {
        return None;
    }
    let header = usize::from(ip.header_len());
    let (source, destination, ecn) = (ip.src_addr(), ip.dst_addr(), ip.ecn());
    let body = packet.get(header..usize::from(ip.total_len()))?;
    let udp = UdpPacket::new_checked(body).ok()?;
    if !udp.verify_checksum(&source.into(), &destination.into()) {
        return None;
    }
    Some(UdpView {
        from: UdpEnd::new(source, udp.src_port()),
        to: UdpEnd::new(destination, udp.dst_port()),
        ecn,
        payload: body.get(UDP_HEADER..usize::from(udp.len()))?,
    })
}

/// Writes `ident` into the header of an IPv4 packet and updates its checksum. Every packet of a
/// host then differs from the 65,535 before it, retransmissions included, as on real hosts.
pub fn stamp_ident(packet: &mut [u8], ident: u16) {
    let mut ip = Ipv4Packet::new_unchecked(packet);
    ip.set_ident(ident);
    ip.fill_checksum();
}

/// Whether the checksums of the IPv4 header and of the TCP segment or UDP datagram are valid.
pub fn checksums_hold(packet: &[u8]) -> bool {
    let Ok(ip) = Ipv4Packet::new_checked(packet) else {
        return false;
    };
    if !ip.verify_checksum() || usize::from(ip.total_len()) != packet.len() {
        return false;
    }
    let protocol = ip.next_header();
    if !matches!(protocol, IpProtocol::Tcp | IpProtocol::Udp) {
        return true;
    }
    let body = ip.payload();
    let Ok(length) = u32::try_from(body.len()) else {
        return false;
    };
    let pseudo = checksum::pseudo_header_v4(&ip.src_addr(), &ip.dst_addr(), protocol, length);
    checksum::combine(&[pseudo, checksum::data(body)]) == !0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: UdpEnd = UdpEnd::new(CLIENT, 4_000);
    const TO: UdpEnd = UdpEnd::new(SERVER, 7);

    #[test]
    fn a_udp_packet_reads_back() {
        let mut packet = udp_packet(FROM, TO, 2, b"hello");
        stamp_ident(&mut packet, 0xbeef);
        assert!(checksums_hold(&packet));
        let view = parse_udp(&packet).expect("valid");
        assert_eq!((view.from, view.to, view.ecn), (FROM, TO, 2));
        assert_eq!(view.payload, b"hello");
        let key = FlowKey::of(&packet).expect("a flow");
        assert_eq!((key.source_port, key.destination_port, key.protocol), (4_000, 7, 17));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let packet = udp_packet(FROM, TO, 0, b"payload");
        for bit in 0..packet.len() * 8 {
            let mut bad = packet.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!checksums_hold(&bad) || parse_udp(&bad).is_none(), "bit {bit}");
        }
    }
}
