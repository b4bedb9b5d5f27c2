//! A TCP segment inside a packet: its addresses, its flags, and how they are replaced.
//!
//! Contract: total on any bytes. Only whole, unfragmented TCP packets without IP options or
//! extension headers are segments. A rewrite replaces addresses and ports and nothing else. A
//! complete checksum is updated by the difference, so that an error in the packet stays visible; a
//! partial one is left alone, since its field does not count.
//!
//! Sources: RFC 791, RFC 8200, RFC 9293 §3.1; RFC 1624 (the checksum's difference).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::checksum::{fold, put, read_u16, sum_bytes};
use crate::coalesce::checksum_place;
use crate::tun::Inbound;

pub(crate) const TCP: u8 = 6;
const IPV4_BYTES: usize = 20;
pub(crate) const IPV4_CHECKSUM_AT: usize = 10;
/// Behind the IP header.
pub(crate) const TCP_CHECKSUM_AT: usize = 16;
const TCP_HEADER_MIN: usize = 20;
/// RFC 9293 §3.1.
const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;
/// Kinds of options (IANA): the signature of RFC 2385, RFC 5925, and multipath TCP (RFC 8684).
const BOUND_TO_ADDRESSES: [u8; 3] = [19, 29, 30];

/// The addresses and ports of a segment, either family. An IPv4 address is in the first four bytes,
/// and zeroes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Tuple {
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
}

/// An address in the form of [`Tuple`].
pub(crate) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn address(octets: [u8; 16], is_ipv6: bool) -> IpAddr {
    let [a, b, c, d, ..] = octets;
    if is_ipv6 { Ipv6Addr::from(octets).into() } else { Ipv4Addr::new(a, b, c, d).into() }
}

impl Tuple {
    pub(crate) fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }

    /// Source and destination.
    pub(crate) fn sockets(&self, is_ipv6: bool) -> (SocketAddr, SocketAddr) {
        let socket = |octets, port| SocketAddr::new(address(octets, is_ipv6), port);
        (socket(self.source, self.source_port), socket(self.destination, self.destination_port))
    }

    /// The sum of what both of a packet's checksums cover, and of the ports.
    fn sums(&self) -> (u64, u64) {
        let ports = u64::from(self.source_port) + u64::from(self.destination_port);
        (sum_bytes(&self.source) + sum_bytes(&self.destination), ports)
    }
}

/// What a rewrite adds to the sums that the checksums are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) addresses: u16,
    pub(crate) with_ports: u16,
}

impl Difference {
    /// Of replacing one tuple by another.
    pub(crate) fn between(old: &Tuple, new: &Tuple) -> Self {
        let ((old, old_ports), (new, new_ports)) = (old.sums(), new.sums());
        // RFC 1624: the complement of a sum is its negative.
        let difference = |old: u64, new: u64| fold(u64::from(!fold(old)) + new);
        Self { addresses: difference(old, new), with_ports: difference(old + old_ports, new + new_ports) }
    }

    /// Of the replacement the other way.
    pub(crate) fn reversed(self) -> Self {
        Self { addresses: !self.addresses, with_ports: !self.with_ports }
    }
}

/// What the hairpin needs to know of a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) is_ipv6: bool,
    pub(crate) ip_bytes: usize,
    pub(crate) flags: u8,
}

impl Segment {
    /// `None`: the packet is not a segment as this module understands it.
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        let (ip_bytes, _, protocol) = checksum_place(packet)?;
        let flags = *packet.get(ip_bytes + 13)?;
        (protocol == TCP).then_some(Self { is_ipv6: ip_bytes > IPV4_BYTES, ip_bytes, flags })
    }

    pub(crate) fn tuple(&self, packet: &[u8]) -> Tuple {
        let mut tuple = Tuple::default();
        let (at, length) = self.addresses();
        let field = |at: usize| packet.get(at..at + length).unwrap_or_default();
        put(&mut tuple.source, 0, field(at));
        put(&mut tuple.destination, 0, field(at + length));
        (tuple.source_port, tuple.destination_port) = self.ports(packet);
        tuple
    }

    /// Source and destination port.
    pub(crate) fn ports(&self, packet: &[u8]) -> (u16, u16) {
        let port = |at| read_u16(packet, at).and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        (port(self.ip_bytes), port(self.ip_bytes + 2))
    }

    /// Whether it begins a connection.
    pub(crate) fn is_opening(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// Whether it answers such a segment.
    pub(crate) fn is_accepting(&self) -> bool {
        self.flags & (SYN | ACK) == SYN | ACK
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.flags & RST != 0
    }

    pub(crate) fn is_end(&self) -> bool {
        self.flags & FIN != 0
    }

    pub(crate) fn sequence(&self, packet: &[u8]) -> u32 {
        self.number(packet, 4)
    }

    /// The sequence number that it expects next, if [`ACK`] is set.
    pub(crate) fn acknowledged(&self, packet: &[u8]) -> u32 {
        self.number(packet, 8)
    }

    fn number(&self, packet: &[u8], at: usize) -> u32 {
        let field = packet.get(self.ip_bytes + at..).and_then(<[u8]>::first_chunk);
        field.map_or(0, |four| u32::from_be_bytes(*four))
    }

    /// The numbers that the segment takes of the sequence, as RFC 9293 §3.4 counts them.
    pub(crate) fn sequence_length(&self, packet: &[u8]) -> u32 {
        let payload = packet.len().saturating_sub(self.ip_bytes + self.header_bytes(packet));
        let counted = u32::from(self.flags & SYN != 0) + u32::from(self.is_end());
        counted.wrapping_add(u32::try_from(payload).unwrap_or(u32::MAX))
    }

    /// The differentiated services code point.
    pub(crate) fn dscp(&self, packet: &[u8]) -> u8 {
        let word = read_u16(packet, 0).unwrap_or(0);
        let class = if self.is_ipv6 { word >> 4 } else { word };
        u8::try_from(class & 0xff).unwrap_or(0) >> 2
    }

    /// Whether an option of the header means these very addresses or other paths, or the options
    /// cannot be read.
    pub(crate) fn is_bound_to_addresses(&self, packet: &[u8]) -> bool {
        let header = self.ip_bytes + TCP_HEADER_MIN..self.ip_bytes + self.header_bytes(packet);
        let mut options = packet.get(header).unwrap_or_default();
        while let [kind, rest @ ..] = options {
            // RFC 9293 §3.2: the end of the list, and padding, are without a length.
            options = match (kind, rest.first()) {
                (0, _) => return false,
                (1, _) => rest,
                (kind, _) if BOUND_TO_ADDRESSES.contains(kind) => return true,
                (_, Some(length @ 2..)) if usize::from(*length) <= options.len() => {
                    options.get(usize::from(*length)..).unwrap_or_default()
                }
                _ => return true,
            };
        }
        false
    }

    /// Gives the packet the addresses and ports `to`. `difference`: between its own and those.
    pub(crate) fn rewrite(&self, packet: &mut Inbound, to: &Tuple, difference: Difference) {
        let Inbound { bytes, is_partial, .. } = packet;
        self.readdress(bytes, to);
        if !self.is_ipv6 {
            update(bytes, IPV4_CHECKSUM_AT, difference.addresses);
        }
        if !*is_partial {
            update(bytes, self.ip_bytes + TCP_CHECKSUM_AT, difference.with_ports);
        }
    }

    /// Writes addresses and ports without regard to the checksums.
    pub(crate) fn readdress(&self, packet: &mut [u8], to: &Tuple) {
        let (at, length) = self.addresses();
        put(packet, at, to.source.get(..length).unwrap_or_default());
        put(packet, at + length, to.destination.get(..length).unwrap_or_default());
        put(packet, self.ip_bytes, &to.source_port.to_be_bytes());
        put(packet, self.ip_bytes + 2, &to.destination_port.to_be_bytes());
    }

    fn header_bytes(&self, packet: &[u8]) -> usize {
        packet.get(self.ip_bytes + 12).map_or(0, |offset| usize::from(offset >> 4) * 4)
    }

    /// Where the source address is, and the length of each of the two.
    fn addresses(&self) -> (usize, usize) {
        if self.is_ipv6 { (8, 16) } else { (12, 4) }
    }
}

/// RFC 1624, equation 3.
pub(crate) fn update(packet: &mut [u8], at: usize, difference: u16) {
    let Some(field) = packet.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) else { return };
    let sum = u64::from(!u16::from_be_bytes(*field)) + u64::from(difference);
    *field = (!fold(sum)).to_be_bytes();
}
