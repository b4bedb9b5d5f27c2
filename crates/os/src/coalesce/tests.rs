//! Merged packets, cut again by another implementation, give the same packets.

use proptest::prelude::*;
use tun_rs::{VirtioNetHdr, gso_split};

use super::*;

/// A packet as a generator describes it.
#[derive(Debug, Clone)]
struct Spec {
    ipv6: bool,
    udp: bool,
    port: u8,
    size: usize,
    push: bool,
    /// TCP: skips sequence numbers before it.
    gap: bool,
    /// One wrong bit.
    broken: bool,
    /// FIN, or an option that differs.
    odd: bool,
}

/// Sequence number and IPv4 identification of a flow so far.
#[derive(Debug, Default, Clone, Copy)]
struct Flow {
    sequence: u32,
    identification: u16,
}

fn build(spec: &Spec, flow: &mut Flow) -> Vec<u8> {
    if spec.gap {
        flow.sequence = flow.sequence.wrapping_add(1000);
    }
    let mut transport = vec![0x10, 0, spec.port, 80];
    let protocol = if spec.udp { UDP } else { TCP };
    if spec.udp {
        transport.extend((u16::try_from(spec.size).unwrap() + 8).to_be_bytes());
        transport.extend([0, 0]);
    } else {
        transport.extend(flow.sequence.to_be_bytes());
        let flags = TCP_ACK | if spec.push { TCP_PSH } else { 0 } | u8::from(spec.odd);
        transport.extend([0, 0, 0, 9, 0x60, flags, 4, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
    }
    let start = flow.sequence;
    transport
        .extend((0..spec.size).map(|at| start.wrapping_add(u32::try_from(at).unwrap()).to_le_bytes()[0]));
    flow.sequence = flow.sequence.wrapping_add(u32::try_from(spec.size).unwrap());
    let mut packet = if spec.ipv6 {
        let mut ip = vec![0x60, 0, 0, 7];
        ip.extend(u16::try_from(transport.len()).unwrap().to_be_bytes());
        ip.extend([protocol, 64]);
        ip.extend((0..32_u8).collect::<Vec<_>>());
        ip
    } else {
        let mut ip = vec![0x45, 0];
        ip.extend(u16::try_from(transport.len() + 20).unwrap().to_be_bytes());
        ip.extend(flow.identification.to_be_bytes());
        ip.extend([0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = !fold(sum_bytes(&ip));
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        flow.identification = flow.identification.wrapping_add(1);
        ip
    };
    let ip_bytes = packet.len();
    packet.extend(transport);
    let sum = fold(pseudo_sum(&packet, protocol, packet.len() - ip_bytes) + sum_bytes(&packet[ip_bytes..]));
    // RFC 768: a sum of zero is sent as all ones.
    let sum = if spec.udp && !sum == 0 { u16::MAX } else { !sum };
    let at = ip_bytes + if spec.udp { 6 } else { 16 };
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    if spec.broken {
        *packet.last_mut().unwrap() ^= 1;
    }
    packet
}

fn round_trip(packets: &[Vec<u8>], merge_udp: bool) -> (Vec<Vec<u8>>, usize) {
    let packets: Vec<_> = packets.iter().map(|packet| (packet.clone(), false)).collect();
    round_trip_partial(&packets, merge_udp)
}

fn outbound((bytes, is_partial): &(Vec<u8>, bool)) -> Outbound<'_> {
    Outbound { bytes, is_partial: *is_partial }
}

/// Coalesces, and cuts every write again, with all checksums. Also gives the number of writes.
fn round_trip_partial(packets: &[(Vec<u8>, bool)], merge_udp: bool) -> (Vec<Vec<u8>>, usize) {
    let mut writes: Vec<Vec<u8>> = Vec::new();
    let mut total = 0;
    Coalescer::new(merge_udp).coalesce(packets, outbound, |slices, count| {
        assert!(slices.len() <= 65);
        total += count;
        writes.push(slices.iter().flat_map(|slice| slice.iter().copied()).collect());
    });
    assert_eq!(total, packets.len() as u64);
    let count = writes.len();
    let cut = writes.iter().flat_map(|write| {
        let mut header = VirtioNetHdr::decode(write).unwrap();
        let mut packet = write[VIRTIO_BYTES..].to_vec();
        assert!(packet.len() <= SUPER_BYTES_MAX);
        if header.gso_type == 0 {
            if header.flags & NEEDS_CHECKSUM != 0 {
                // As a network card does it: the field holds the start of the sum. RFC 768: zero is
                // sent as all ones.
                let (start, offset) = (usize::from(header.csum_start), usize::from(header.csum_offset));
                let sum = !fold(sum_bytes(&packet[start..]));
                let sum = if offset == 6 && sum == 0 { u16::MAX } else { sum };
                packet[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
            }
            return vec![packet];
        }
        let ipv6 = packet[0] >> 4 == 6;
        header.hdr_len = u16::from_ne_bytes([write[2], write[3]]);
        let mut out = vec![vec![0; 2000]; 64];
        let mut sizes = vec![0; 64];
        let count = gso_split(&mut packet, header, &mut out, &mut sizes, 0, ipv6).unwrap();
        out.truncate(count);
        out.iter_mut().zip(&sizes).for_each(|(packet, size)| packet.truncate(*size));
        out
    });
    (cut.collect(), count)
}

/// Addresses, ports and protocol: packets that share them may not be reordered.
fn flow_of(packet: &[u8]) -> Vec<u8> {
    match parse(packet, false) {
        Some(parsed) => packet[if parsed.ip_bytes == 20 { 9 } else { 6 }..parsed.ip_bytes + 4].to_vec(),
        None => Vec::new(),
    }
}

/// TTL and the header checksum stand between IPv4's protocol and its addresses; equal in these
/// tests but for the checksum.
fn by_flow(packets: &[Vec<u8>]) -> std::collections::BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows = std::collections::BTreeMap::<_, Vec<_>>::new();
    for packet in packets {
        let mut flow = flow_of(packet);
        if flow.len() == 15 {
            flow.drain(1..3);
        }
        flows.entry(flow).or_default().push(packet.clone());
    }
    flows
}

fn spec() -> impl Strategy<Value = Spec> {
    let rare = || prop::bool::weighted(0.08);
    let size = prop_oneof![8 => Just(1400_usize), 1 => 1..1400_usize, 1 => Just(0_usize)];
    (any::<bool>(), rare(), 0..3_u8, size, rare(), rare(), rare(), rare()).prop_map(
        |(ipv6, udp, port, size, push, gap, broken, odd)| Spec {
            ipv6,
            udp,
            port,
            size,
            push,
            gap,
            broken,
            odd,
        },
    )
}

proptest! {
    #[test]
    fn merged_packets_cut_again_are_unchanged(specs in prop::collection::vec(spec(), 0..200), merge_udp: bool, partial in prop::collection::vec(any::<bool>(), 1..9)) {
        let mut flows = std::collections::HashMap::<_, Flow>::new();
        let packets: Vec<_> = specs
            .iter()
            .map(|spec| build(spec, flows.entry((spec.ipv6, spec.udp, spec.port)).or_default()))
            .collect();
        let (again, _) = round_trip(&packets, merge_udp);
        prop_assert_eq!(by_flow(&again), by_flow(&packets));
        // Also with partial checksums on some packets, if these were right.
        let partial = packets.iter().zip(&specs).zip(partial.iter().cycle());
        let partial: Vec<_> = partial
            .map(|((packet, spec), partial)| match checksum_place(packet).filter(|_| *partial && !spec.broken) {
                Some((_, at, _)) => {
                    let mut packet = packet.clone();
                    packet[at..at + 2].fill(0);
                    (packet, true)
                }
                None => (packet.clone(), false),
            })
            .collect();
        let (again, _) = round_trip_partial(&partial, merge_udp);
        prop_assert_eq!(by_flow(&again), by_flow(&packets));
    }

    #[test]
    fn arbitrary_bytes_pass_unchanged(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..50)) {
        let (again, writes) = round_trip(&packets, true);
        prop_assert_eq!(writes, packets.len());
        prop_assert_eq!(again, packets);
    }
}

fn plain(count: usize, size: usize, udp: bool, ipv6: bool) -> Vec<Vec<u8>> {
    let spec = Spec { ipv6, udp, port: 1, size, push: false, gap: false, broken: false, odd: false };
    let mut flow = Flow { sequence: u32::MAX - 5000, identification: 7 };
    (0..count).map(|_| build(&spec, &mut flow)).collect()
}

#[test]
fn a_run_is_one_write_for_each_64_kib() {
    for (udp, ipv6) in [(false, false), (false, true), (true, false), (true, true)] {
        let packets = plain(92, 1400, udp, ipv6);
        let (again, writes) = round_trip(&packets, true);
        assert_eq!(again, packets);
        assert_eq!(writes, 2, "udp {udp} ipv6 {ipv6}");
    }
    let (_, writes) = round_trip(&plain(130, 100, true, false), true);
    assert_eq!(writes, 3, "64 datagrams are the most");
    let (_, writes) = round_trip(&plain(10, 100, true, false), false);
    assert_eq!(writes, 10, "the device takes no UDP super-packets");
}

#[test]
fn interleaved_flows_are_merged_separately() {
    let (a, b) = (plain(20, 1000, false, false), plain(20, 1000, false, true));
    let mixed: Vec<_> = a.into_iter().zip(b).flat_map(|(a, b)| [a, b]).collect();
    assert_eq!(round_trip(&mixed, true).1, 2);
}

#[test]
fn a_wrong_checksum_is_never_hidden() {
    for broken in 0..4 {
        let mut packets = plain(4, 1000, false, false);
        *packets[broken].last_mut().unwrap() ^= 1;
        let (again, _) = round_trip(&packets, true);
        assert_eq!(again, packets);
    }
}
