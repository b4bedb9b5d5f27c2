//! The header of an inner packet: its fields that the bond uses, and the walk over extension
//! headers.
//!
//! Contract: [`parse`] is total. It accepts what a router would forward, and refuses (`not_ip`)
//! only packets whose own header contradicts their length, because nothing behind such a header can
//! be trusted.
//!
//! A fragment shows no ports. An atomic IPv6 fragment (RFC 6946: fragment header, but the whole
//! datagram) counts as unfragmented. At most [`EXTENSION_HEADERS_MAX`] extension headers are
//! walked; a packet with more of them shows no ports.
//!
//! Deliberately unknown here: checksums, IP options, the IPv6 flow label.
//!
//! Sources: RFC 791 §3.1; RFC 8200 §3, §4 and §4.5; RFC 4302 §2.2; RFC 6946; RFC 2474; RFC 3168 §5.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::discard::Discard;

/// The most IPv6 extension headers walked in search of the ports. RFC 8200 §4.1 names six that may
/// follow each other, one of them twice; eight leaves room and bounds the work per packet.
pub const EXTENSION_HEADERS_MAX: usize = 8;

/// The fields of an inner packet's header that the bond uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InnerHeader {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IANA number of the protocol behind the IP header and its extension headers. For a fragment,
    /// the protocol that the fragment header names.
    pub protocol: u8,
    /// Source and destination port; `None` for protocols without ports, for fragments, and if the
    /// packet ends before the ports.
    pub ports: Option<(u16, u16)>,
    /// The ECN field: 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE.
    pub ecn: u8,
    /// The DSCP, `0..64`.
    pub dscp: u8,
}

impl InnerHeader {
    /// Whether both headers belong to the same flow.
    pub(crate) fn is_of_the_flow_of(&self, other: &Self) -> bool {
        self.ports == other.ports
            && self.source == other.source
            && self.destination == other.destination
            && self.protocol == other.protocol
    }

    /// The header of a packet in the opposite direction.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            ports: self.ports.map(|(source, destination)| (destination, source)),
            ..*self
        }
    }
}

/// Protocols that carry their two ports in their first four bytes: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// IANA protocol numbers of the IPv6 extension headers (RFC 8200 §4, RFC 7045 §4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;

/// Reads the header of one whole inner packet. `Err(Discard::NotIp)`: neither IPv4 nor IPv6,
/// shorter than its headers, or of another length than its header says.
pub fn parse(packet: &[u8]) -> Result<InnerHeader, Discard> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => parse_v4(packet),
        Some(6) => parse_v6(packet),
        _ => Err(Discard::NotIp),
    }
}

/// The length of the IP packet at the start of `bytes`, by its own header.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? >> 4 {
        4 => bytes.get(2..4).map(|field| usize::from(be16(field))),
        6 => bytes.get(4..6).map(|field| usize::from(be16(field)) + 40),
        _ => None,
    }
}

/// Whether `packet` begins with an IP header that tells its length. Much less work than [`parse`],
/// which refuses some more.
pub(crate) fn is_whole(packet: &[u8]) -> bool {
    packet.len() >= 20 && length(packet) == Some(packet.len())
}

fn parse_v4(packet: &[u8]) -> Result<InnerHeader, Discard> {
    let (fixed, _) = packet.split_first_chunk::<20>().ok_or(Discard::NotIp)?;
    let &[version, tos, length_0, length_1, _, _, fragment_0, fragment_1, _, protocol, _, _, rest @ ..] =
        fixed;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = rest;
    let header_bytes = usize::from(version & 0x0f) * 4;
    if header_bytes < fixed.len() || usize::from(u16::from_be_bytes([length_0, length_1])) != packet.len() {
        return Err(Discard::NotIp);
    }
    let transport = packet.get(header_bytes..).ok_or(Discard::NotIp)?;
    // RFC 791 §3.1: more-fragments is bit 0x2000, the offset the 13 bits below it.
    let is_fragment = u16::from_be_bytes([fragment_0, fragment_1]) & 0x3fff != 0;
    Ok(InnerHeader {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        protocol,
        ports: if is_fragment { None } else { ports(protocol, transport) },
        ecn: tos & 3,
        dscp: tos >> 2,
    })
}

fn parse_v6(packet: &[u8]) -> Result<InnerHeader, Discard> {
    let (fixed, payload) = packet.split_first_chunk::<40>().ok_or(Discard::NotIp)?;
    let &[version, class, _, _, length_0, length_1, next, _, addresses @ ..] = fixed;
    let (source, destination) = addresses.split_first_chunk::<16>().ok_or(Discard::NotIp)?;
    let destination = destination.first_chunk::<16>().ok_or(Discard::NotIp)?;
    if usize::from(u16::from_be_bytes([length_0, length_1])) != payload.len() {
        return Err(Discard::NotIp);
    }
    let Behind { protocol, rest, is_fragment, .. } = walk_extensions(next, payload)?;
    let ports = if is_fragment { None } else { ports(protocol, rest) };
    let traffic_class = (version << 4) | (class >> 4);
    Ok(InnerHeader {
        source: Ipv6Addr::from(*source).into(),
        destination: Ipv6Addr::from(*destination).into(),
        protocol,
        ports,
        ecn: traffic_class & 3,
        dscp: traffic_class >> 2,
    })
}

/// The packet behind its extension headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind<'a> {
    /// The protocol of `rest`; if there are too many extension headers, the number of the next one.
    pub(crate) protocol: u8,
    /// The bytes behind the extension headers.
    pub(crate) rest: &'a [u8],
    /// Whether the packet is a fragment.
    pub(crate) is_fragment: bool,
    /// Whether the packet is a fragment other than the first.
    pub(crate) is_rest: bool,
}

/// Walks over the extension headers. A header longer than the packet is an error.
pub(crate) fn walk_extensions(mut protocol: u8, mut rest: &[u8]) -> Result<Behind<'_>, Discard> {
    for _ in 0..EXTENSION_HEADERS_MAX {
        let header_bytes = match protocol {
            // RFC 8200 §4.3, §4.4, §4.6; RFC 6275, 7401 and 5533 use the same form: the length
            // counts units of 8 bytes beyond the first.
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HOST_IDENTITY | SHIM6 => {
                (usize::from(*rest.get(1).ok_or(Discard::NotIp)?) + 1) * 8
            }
            // RFC 4302 §2.2: units of 4 bytes, minus 2.
            AUTHENTICATION => (usize::from(*rest.get(1).ok_or(Discard::NotIp)?) + 2) * 4,
            FRAGMENT => 8,
            _ => return Ok(Behind { protocol, rest, is_fragment: false, is_rest: false }),
        };
        let (header, behind) = rest.split_at_checked(header_bytes).ok_or(Discard::NotIp)?;
        let next = *header.first().ok_or(Discard::NotIp)?;
        if protocol == FRAGMENT {
            // RFC 8200 §4.5: offset in the upper 13 bits, more-fragments in the lowest.
            let offset_and_more = header.get(2..4).map_or(0, |field| be16(field) & 0xfff9);
            if offset_and_more != 0 {
                let is_rest = offset_and_more & 0xfff8 != 0;
                return Ok(Behind { protocol: next, rest: behind, is_fragment: true, is_rest });
            }
        }
        protocol = next;
        rest = behind;
    }
    Ok(Behind { protocol, rest, is_fragment: false, is_rest: false })
}

/// Both ports, if `protocol` has ports and `transport` is long enough.
fn ports(protocol: u8, transport: &[u8]) -> Option<(u16, u16)> {
    if !WITH_PORTS.contains(&protocol) {
        return None;
    }
    let &[s0, s1, d0, d1] = transport.first_chunk::<4>()?;
    Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}

fn be16(field: &[u8]) -> u16 {
    field.iter().fold(0, |value, byte| (value << 8) | u16::from(*byte))
}

#[cfg(test)]
mod tests;
