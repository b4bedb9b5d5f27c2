//! A router's treatment of oversized packets: it answers packets that are too big, fragments
//! packets that may be fragmented, and lowers the segment size that TCP connections announce.
//!
//! Contract: total on any bytes. Packets are whole, as [`header::parse`] accepts them;
//! anything else stays unchanged. The modules know neither links nor time.

pub(crate) mod checksum;
pub(crate) mod fragment;
pub(crate) mod header;
pub(crate) mod mss;
pub(crate) mod too_big;

/// The layout of an inner packet, as far as these modules need it beyond the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The IP version, 4 or 6.
    pub(crate) version: u8,
    /// Bytes ahead of the transport header: IP header and extension headers.
    pub(crate) header_bytes: usize,
    /// The protocol behind those headers.
    pub(crate) protocol: u8,
    /// Whether the packet is a fragment other than the first.
    pub(crate) is_rest: bool,
}

impl Layout {
    /// Reads the layout; `None`: not a packet that [`header::parse`] accepts.
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let fixed = packet.first_chunk::<20>()?;
                let header_bytes = usize::from(fixed[0] & 0x0f) * 4;
                // RFC 791 §3.1: the lower 13 bits are the fragment's offset.
                let offset = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff;
                let whole = header_bytes >= fixed.len() && header_bytes <= packet.len();
                let layout = Self { version: 4, header_bytes, protocol: fixed[9], is_rest: offset != 0 };
                whole.then_some(layout)
            }
            6 => {
                let (fixed, payload) = packet.split_first_chunk::<40>()?;
                let found = header::walk_extensions(fixed[6], payload).ok()?;
                Some(Self {
                    version: 6,
                    header_bytes: packet.len() - found.rest.len(),
                    protocol: found.protocol,
                    is_rest: found.is_rest,
                })
            }
            _ => None,
        }
    }
}

/// Packets for tests. Their checksums are correct by a sum written independently of the code.
#[cfg(test)]
pub(crate) mod samples {
    /// The one's complement sum of RFC 1071 §4.1, in another form than the code's: words added in
    /// 64 bits, folded at the end.
    pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
        let mut total = 0u64;
        for part in parts {
            for pair in part.chunks(2) {
                total += u64::from(pair[0]) * 256 + pair.get(1).map_or(0, |low| u64::from(*low));
            }
        }
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).unwrap()
    }

    /// An IPv4 packet without options.
    pub(crate) fn v4(protocol: u8, flags: u16, payload: &[u8]) -> Vec<u8> {
        let total = u16::try_from(20 + payload.len()).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&total.to_be_bytes());
        packet.extend_from_slice(&[0xbe, 0xef]);
        packet.extend_from_slice(&flags.to_be_bytes());
        packet.extend_from_slice(&[64, protocol, 0, 0, 10, 99, 0, 2, 198, 51, 100, 2]);
        let header = !sum(&[&packet]);
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        packet.extend_from_slice(payload);
        packet
    }

    /// An IPv6 packet.
    pub(crate) fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        packet.extend_from_slice(&[next, 64]);
        packet.extend_from_slice(&[0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        packet.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        packet.extend_from_slice(payload);
        packet
    }

    /// An IPv6 fragment header with this offset-and-flags field, then `behind`.
    pub(crate) fn fragment(next: u8, field: u16, behind: &[u8]) -> Vec<u8> {
        let mut bytes = vec![next, 0, 0, 0, 0, 0, 0, 7];
        bytes[2..4].copy_from_slice(&field.to_be_bytes());
        bytes.extend_from_slice(behind);
        bytes
    }

    /// The sum over a TCP segment or ICMPv6 message with its pseudo header; 0xffff if the checksum
    /// is right.
    pub(crate) fn transport_sum(packet: &[u8], protocol: u8, header_bytes: usize) -> u16 {
        let segment = &packet[header_bytes..];
        let length = u32::try_from(segment.len()).unwrap().to_be_bytes();
        let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
        sum(&[addresses, &length, &[0, 0, 0, protocol], segment])
    }
}
