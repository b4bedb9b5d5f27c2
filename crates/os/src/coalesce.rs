//! Merges consecutive packets of one flow, so that the kernel takes them in one write.
//!
//! TCP segments and UDP datagrams of equal size become one super-packet. Its virtio header tells
//! how to split it again, as GRO in a network card's driver does. No payload is copied: a
//! super-packet is new headers and the payloads in place, for one vectored write.
//!
//! Contract: the packets of a flow keep their order. A super-packet that is split again gives the
//! original packets, except for the IPv4 identification where fragmentation is forbidden anyway,
//! and the TCP window of later segments (as in the kernel's own GRO). A packet is merged only after
//! its checksum was verified: merging makes a new checksum, which would hide an error. A packet of
//! unknown form is passed on alone and unchanged. A *partial* checksum is left to the receiving
//! kernel, which computes it if the packet leaves the machine.
//!
//! Sources: net/ipv4/tcp_offload.c `tcp_gro_receive`; virtio 1.2 §5.1.6; RFC 1071; wireguard-go
//! `tun/offload_linux.go`.

use std::io::IoSlice;

use crate::checksum::{fold, pseudo_sum, put, read_u16, short, sum_bytes};
use crate::virtio::{GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CHECKSUM, VIRTIO_BYTES};

/// The header of a packet that is passed on as it is.
const ALONE: [u8; VIRTIO_BYTES] = [0; VIRTIO_BYTES];

/// The most bytes of an IP packet: its length is a u16.
const SUPER_BYTES_MAX: usize = 65_535;
/// The most packets merged: `UDP_MAX_SEGMENTS` of kernels before 6.12, used for TCP too.
const MERGED_MAX: u16 = 64;
/// Flows followed at the same time. Chosen: more than one batch contains; colliding flows only
/// merge less.
const FLOW_SLOTS: usize = 256;
/// The number of a slot without a group.
const FREE: u32 = u32::MAX;
/// Virtio, IPv4 or IPv6 without options, and the largest TCP header.
const HEADERS_MAX: usize = VIRTIO_BYTES + 40 + 60;

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_ACK: u8 = 0x10;
const TCP_PSH: u8 = 0x08;

/// A packet to be written.
#[derive(Debug, Clone, Copy)]
pub struct Outbound<'a> {
    /// The whole packet.
    pub bytes: &'a [u8],
    /// Whether its TCP or UDP checksum is not computed yet.
    pub is_partial: bool,
}

/// The fields of a packet that merging needs.
#[derive(Debug, Clone, Copy)]
struct Parsed {
    protocol: u8,
    ip_bytes: usize,
    /// IP and TCP or UDP header.
    header_bytes: usize,
    payload_bytes: usize,
    /// TCP only.
    sequence: u32,
    push: bool,
    /// Whether the packet may be merged; otherwise it ends its flow's super-packet.
    mergeable: bool,
}

/// The packets of one write.
#[derive(Debug, Clone)]
struct Group {
    first: usize,
    last: usize,
    count: u16,
    parsed: Parsed,
    /// Payload of all packets.
    payload_bytes: usize,
    next_sequence: u32,
    push: bool,
    /// No packet may follow.
    closed: bool,
    /// Whether the first packet's checksum was verified, or is partial.
    verified: bool,
    /// Whether the first packet's checksum is not computed yet.
    is_partial: bool,
}

/// Working memory, kept from batch to batch.
#[derive(Debug)]
pub struct Coalescer {
    groups: Vec<Group>,
    /// The next packet of the same group, by packet; its own number for the last.
    next: Vec<usize>,
    /// The newest group of a flow, by the hash of its addresses and ports. Narrow: all are cleared
    /// for each batch.
    slots: Box<[u32; FLOW_SLOTS]>,
    headers: [u8; HEADERS_MAX],
    merge_udp: bool,
}

impl Coalescer {
    /// `merge_udp`: the device takes UDP super-packets.
    pub fn new(merge_udp: bool) -> Self {
        Self {
            groups: Vec::new(),
            next: Vec::new(),
            slots: Box::new([FREE; FLOW_SLOTS]),
            headers: ALONE_HEADERS,
            merge_udp,
        }
    }

    /// Calls `write` for each super-packet or lone packet, in the order of their first packets,
    /// with the slices to be written and the number of packets they are.
    pub fn coalesce<P>(
        &mut self,
        packets: &[P],
        view: impl Fn(&P) -> Outbound<'_>,
        mut write: impl FnMut(&[IoSlice<'_>], u64),
    ) {
        self.groups.clear();
        self.next.clear();
        self.slots.fill(FREE);
        for at in 0..packets.len() {
            self.next.push(at);
            self.add(packets, &view, at);
        }
        for group in &self.groups {
            let Some(first) = packets.get(group.first).map(|packet| view(packet).bytes) else { continue };
            if group.count == 1 && !group.is_partial {
                write(&[IoSlice::new(&ALONE), IoSlice::new(first)], 1);
                continue;
            }
            let headers = group.headers(first, &mut self.headers);
            if group.count == 1 {
                let payload = first.get(group.parsed.header_bytes..).unwrap_or_default();
                write(&[IoSlice::new(headers), IoSlice::new(payload)], 1);
                continue;
            }
            let mut slices = [IoSlice::new(&[]); MERGED_MAX as usize + 1];
            let mut places = slices.iter_mut();
            places.next().into_iter().for_each(|place| *place = IoSlice::new(headers));
            let mut at = group.first;
            for place in places.take(usize::from(group.count)) {
                let packet = packets.get(at).map(|packet| view(packet).bytes).unwrap_or_default();
                *place = IoSlice::new(packet.get(group.parsed.header_bytes..).unwrap_or_default());
                at = self.next.get(at).copied().unwrap_or(at);
            }
            write(slices.get(..usize::from(group.count) + 1).unwrap_or_default(), u64::from(group.count));
        }
    }

    /// Appends packet `at` to its flow's group, or begins one.
    fn add<P>(&mut self, packets: &[P], view: &impl Fn(&P) -> Outbound<'_>, at: usize) {
        let packet = |at: usize| packets.get(at).map_or(Outbound { bytes: &[], is_partial: false }, view);
        let Outbound { bytes, is_partial } = packet(at);
        let parsed = parse(bytes, is_partial);
        let takes = |parsed: &Parsed| self.merge_udp || parsed.protocol == TCP;
        // A partial packet needs new headers in any case.
        let parsed = parsed.filter(|parsed| takes(parsed) || is_partial);
        let parsed = parsed.map(|parsed| Parsed { mergeable: parsed.mergeable && takes(&parsed), ..parsed });
        let Some(parsed) = parsed else {
            self.groups.push(Group::alone(at));
            return;
        };
        let slot = flow_slot(bytes, &parsed);
        let open = self.slots.get(slot).and_then(|group| usize::try_from(*group).ok());
        // The number of a free slot is no group's number.
        if let Some(group) = open.and_then(|group| self.groups.get_mut(group)) {
            let first = packet(group.first).bytes;
            if group.try_append(first, packet(at), &parsed, at) {
                let last = std::mem::replace(&mut group.last, at);
                if let Some(next) = self.next.get_mut(last) {
                    *next = at;
                }
                return;
            }
        }
        // From here on the group is its flow's newest, so that no later packet is merged before it.
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = u32::try_from(self.groups.len()).unwrap_or(FREE);
        }
        self.groups.push(Group::new(at, parsed, is_partial));
    }
}

const ALONE_HEADERS: [u8; HEADERS_MAX] = [0; HEADERS_MAX];

impl Group {
    fn new(at: usize, parsed: Parsed, is_partial: bool) -> Self {
        Self {
            first: at,
            last: at,
            count: 1,
            parsed,
            payload_bytes: parsed.payload_bytes,
            next_sequence: sequence_after(&parsed),
            push: parsed.push,
            closed: !parsed.mergeable || parsed.push,
            verified: is_partial,
            is_partial,
        }
    }

    fn alone(at: usize) -> Self {
        let parsed = Parsed {
            protocol: 0,
            ip_bytes: 0,
            header_bytes: 0,
            payload_bytes: 0,
            sequence: 0,
            push: false,
            mergeable: false,
        };
        Self::new(at, parsed, false)
    }

    /// Makes `packet` (number `at`) the last of this group, if that is allowed.
    fn try_append(&mut self, first: &[u8], next: Outbound<'_>, parsed: &Parsed, at: usize) -> bool {
        let packet = next.bytes;
        let segment_bytes = self.parsed.payload_bytes;
        let fits = !self.closed
            && parsed.mergeable
            && self.count < MERGED_MAX
            && at != self.first
            && parsed.payload_bytes <= segment_bytes
            && self.parsed.header_bytes + self.payload_bytes + parsed.payload_bytes <= SUPER_BYTES_MAX
            && (parsed.protocol != TCP || parsed.sequence == self.next_sequence)
            && same_headers(first, &self.parsed, packet, parsed);
        if !fits {
            return false;
        }
        if !self.verified {
            self.verified = checksum_right(first, &self.parsed);
            self.closed = !self.verified;
        }
        if self.closed || !(next.is_partial || checksum_right(packet, parsed)) {
            return false;
        }
        self.count += 1;
        self.payload_bytes += parsed.payload_bytes;
        self.next_sequence = sequence_after(parsed);
        self.push = parsed.push;
        // Only the last segment may be shorter or carry PSH.
        self.closed = parsed.push || parsed.payload_bytes < segment_bytes;
        true
    }

    /// The headers of the super-packet, made from those of its `first` packet.
    fn headers<'h>(&self, first: &[u8], buffer: &'h mut [u8; HEADERS_MAX]) -> &'h [u8] {
        let Parsed { protocol, ip_bytes, header_bytes, payload_bytes: segment_bytes, .. } = self.parsed;
        let ipv4 = ip_bytes == IPV4_BYTES;
        let length = header_bytes + self.payload_bytes;
        let transport_bytes = length - ip_bytes;
        let checksum_at = if protocol == TCP { 16 } else { 6 };
        let gso_type = match (protocol, ipv4) {
            _ if self.count == 1 => GSO_NONE,
            (TCP, true) => GSO_TCPV4,
            (TCP, false) => GSO_TCPV6,
            _ => GSO_UDP_L4,
        };
        // The kernel reads these in its own byte order.
        put(buffer, 0, &[NEEDS_CHECKSUM, gso_type]);
        put(buffer, 2, &short(header_bytes).to_ne_bytes());
        put(buffer, 4, &short(segment_bytes).to_ne_bytes());
        put(buffer, 6, &short(ip_bytes).to_ne_bytes());
        put(buffer, 8, &short(checksum_at).to_ne_bytes());
        put(buffer, VIRTIO_BYTES, first.get(..header_bytes).unwrap_or_default());
        let packet = buffer.get_mut(VIRTIO_BYTES..).unwrap_or_default();
        if ipv4 {
            put(packet, 2, &short(length).to_be_bytes());
            put(packet, 10, &[0, 0]);
            let sum = !fold(sum_bytes(packet.get(..IPV4_BYTES).unwrap_or_default()));
            put(packet, 10, &sum.to_be_bytes());
        } else {
            put(packet, 4, &short(transport_bytes).to_be_bytes());
        }
        if protocol == UDP {
            put(packet, ip_bytes + 4, &short(transport_bytes).to_be_bytes());
        } else if self.push
            && let Some(flags) = packet.get_mut(ip_bytes + 13)
        {
            *flags |= TCP_PSH;
        }
        let pseudo = fold(pseudo_sum(packet, protocol, transport_bytes));
        put(packet, ip_bytes + checksum_at, &pseudo.to_be_bytes());
        buffer.get(..VIRTIO_BYTES + header_bytes).unwrap_or_default()
    }
}

fn sequence_after(parsed: &Parsed) -> u32 {
    // A payload is shorter than 65,536 bytes.
    parsed.sequence.wrapping_add(u32::from(short(parsed.payload_bytes)))
}

/// Whether the transport header at `start` and its checksum at `checksum_at` are at the offsets of
/// TCP or UDP without IP options or extensions: the form of a partial checksum that is supported.
pub(crate) fn is_plain(packet: &[u8], start: usize, checksum_at: usize) -> bool {
    let expected = |protocol| start + if protocol == TCP { 16 } else { 6 };
    match *packet {
        [0x45, _, _, _, _, _, more, offset, _, protocol @ (TCP | UDP), ..] => {
            start == IPV4_BYTES && more & 0x3f == 0 && offset == 0 && checksum_at == expected(protocol)
        }
        [0x60..=0x6f, _, _, _, _, _, protocol @ (TCP | UDP), ..] => {
            start == IPV6_BYTES && checksum_at == expected(protocol)
        }
        _ => false,
    }
}

/// Where the transport header of such a packet begins, where its checksum is, and the protocol.
pub(crate) fn checksum_place(packet: &[u8]) -> Option<(usize, usize, u8)> {
    let parsed = parse(packet, true)?;
    let field = if parsed.protocol == TCP { 16 } else { 6 };
    Some((parsed.ip_bytes, parsed.ip_bytes + field, parsed.protocol))
}

/// `None` for anything but unfragmented TCP and UDP without IP options or extensions.
fn parse(packet: &[u8], is_partial: bool) -> Option<Parsed> {
    let (ip_bytes, protocol) = match packet.first()? {
        0x45 => {
            // RFC 791: no more fragments, offset zero; and the length is the whole packet.
            let whole = read_u16(packet, 6)? & 0x3fff == 0 && read_u16(packet, 2)? == packet.len();
            (IPV4_BYTES, *packet.get(9).filter(|_| whole)?)
        }
        0x60..=0x6f => {
            let whole = read_u16(packet, 4)? + IPV6_BYTES == packet.len();
            (IPV6_BYTES, *packet.get(6).filter(|_| whole)?)
        }
        _ => return None,
    };
    let transport = packet.get(ip_bytes..)?;
    match protocol {
        TCP => {
            let header_bytes = ip_bytes + usize::from(transport.get(12)? >> 4) * 4;
            let payload_bytes = packet.len().checked_sub(header_bytes)?;
            let flags = *transport.get(13)?;
            (header_bytes >= ip_bytes + 20).then(|| Parsed {
                protocol,
                ip_bytes,
                header_bytes,
                payload_bytes,
                sequence: transport
                    .get(4..)
                    .and_then(<[u8]>::first_chunk)
                    .map_or(0, |four| u32::from_be_bytes(*four)),
                push: flags & TCP_PSH != 0,
                mergeable: payload_bytes > 0 && flags & !TCP_PSH == TCP_ACK,
            })
        }
        UDP => {
            let payload_bytes = transport.len().checked_sub(UDP_BYTES)?;
            let checksummed = is_partial || read_u16(transport, 6)? != 0;
            (read_u16(transport, 4)? == transport.len()).then_some(Parsed {
                protocol,
                ip_bytes,
                header_bytes: ip_bytes + UDP_BYTES,
                payload_bytes,
                sequence: 0,
                push: false,
                mergeable: payload_bytes > 0 && checksummed,
            })
        }
        _ => None,
    }
}

/// Whether all fields that a super-packet has only once are the same in both packets.
fn same_headers(a: &[u8], a_parsed: &Parsed, b: &[u8], b_parsed: &Parsed) -> bool {
    let Parsed { protocol, ip_bytes, header_bytes, .. } = *a_parsed;
    let same = |range: std::ops::Range<usize>| a.get(range.clone()) == b.get(range);
    let ip = if ip_bytes == IPV4_BYTES {
        // Version and type of service; flags; time to live and protocol; addresses.
        same(0..2) && same(6..10) && same(12..20)
    } else {
        // Version, class and flow label; next header and hop limit; addresses.
        same(0..4) && same(6..40)
    };
    // Ports; for TCP also the acknowledgement and the options.
    let transport = same(ip_bytes..ip_bytes + 4)
        && (protocol == UDP || same(ip_bytes + 8..ip_bytes + 13) && same(ip_bytes + 20..header_bytes));
    ip_bytes == b_parsed.ip_bytes && header_bytes == b_parsed.header_bytes && ip && transport
}

/// By addresses and ports.
fn flow_slot(packet: &[u8], parsed: &Parsed) -> usize {
    let from = if parsed.ip_bytes == IPV4_BYTES { 12 } else { 8 };
    let key = packet.get(from..parsed.ip_bytes + 4).unwrap_or_default();
    // Multiplication by the golden ratio's fraction: a sender that makes its flows collide only
    // prevents their merging.
    let (words, _) = key.as_chunks();
    let hash = words.iter().fold(0_u64, |hash, word| {
        (hash ^ u64::from(u32::from_ne_bytes(*word))).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    usize::from(u8::try_from(hash >> 56).unwrap_or_default())
}

fn checksum_right(packet: &[u8], parsed: &Parsed) -> bool {
    let transport = packet.get(parsed.ip_bytes..).unwrap_or_default();
    fold(pseudo_sum(packet, parsed.protocol, transport.len()) + sum_bytes(transport)) == u16::MAX
}

#[cfg(test)]
mod tests;
