//! The cut segments equal those of another implementation.

use proptest::prelude::*;
use tun_rs::gso_split;

use super::layout::{Layout, WINDOW_BYTES};
use super::*;

fn super_packet(ipv6: bool, udp: bool, payload: usize, flags: u8) -> Vec<u8> {
    let mut transport = vec![0x10, 0, 0x20, 0];
    if udp {
        transport.extend(short(payload + 8).to_be_bytes());
        transport.extend([0xab, 0xcd]);
    } else {
        transport.extend([0xff, 0xff, 0xf0, 0, 0, 0, 0, 9, 0x60, flags, 4, 0, 0xab, 0xcd, 0, 0, 1, 1, 1, 1]);
    }
    transport.extend((0..payload).map(|at| at.to_le_bytes()[0]));
    let protocol = if udp { UDP } else { TCP };
    let mut packet = if ipv6 {
        let mut ip = vec![0x60, 0, 0, 7];
        ip.extend(short(transport.len()).to_be_bytes());
        ip.extend([protocol, 64]);
        ip.extend((0..32_u8).collect::<Vec<_>>());
        ip
    } else {
        let mut ip = vec![0x45, 0];
        ip.extend(short(transport.len() + 20).to_be_bytes());
        ip.extend([0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        ip
    };
    packet.extend(transport);
    packet
}

fn header(ipv6: bool, udp: bool, gso_size: u16) -> VirtioNetHdr {
    let start = if ipv6 { 40 } else { 20 };
    VirtioNetHdr {
        flags: NEEDS_CHECKSUM,
        gso_type: match (udp, ipv6) {
            _ if gso_size == 0 => GSO_NONE,
            (true, _) => GSO_UDP_L4,
            (false, true) => GSO_TCPV6 | GSO_ECN,
            (false, false) => GSO_TCPV4,
        },
        hdr_len: start + if udp { 8 } else { 24 },
        gso_size,
        csum_start: start,
        csum_offset: if udp { 6 } else { 16 },
    }
}

fn cut(header: &VirtioNetHdr, packet: &[u8]) -> (bool, Vec<Vec<u8>>) {
    let plan = Plan::of(header, packet, packet.len()).unwrap();
    let (count, largest) = plan.extent(packet.len());
    let packets = (0..count).map(|index| {
        let mut out = vec![0x77; largest];
        let size = plan.cut(packet, index, &mut out);
        out.truncate(size);
        out
    });
    (plan.is_partial, packets.collect())
}

proptest! {
    /// Except for the checksums that are left out.
    #[test]
    fn segments_are_those_of_another_implementation(
        ipv6: bool, udp: bool, payload in 1usize..9_000, gso_size in 100u16..1_500, flags: u8,
    ) {
        let packet = super_packet(ipv6, udp, payload, flags);
        let mut header = header(ipv6, udp, gso_size);
        let (is_partial, ours) = cut(&header, &packet);
        prop_assert!(is_partial);
        let mut buffers = vec![vec![0; 1_600]; 128];
        let mut sizes = [0; 128];
        header.gso_type &= !GSO_ECN;
        let count = gso_split(&mut packet.clone(), header, &mut buffers, &mut sizes, 0, ipv6).unwrap();
        prop_assert_eq!(ours.len(), count);
        let start = usize::from(header.csum_start);
        let at = start + usize::from(header.csum_offset);
        for ((mut ours, theirs), size) in ours.into_iter().zip(&buffers).zip(sizes) {
            prop_assert_eq!(&ours[at..at + 2], &[0, 0]);
            let sum = transport_checksum(&ours, start, if udp { UDP } else { TCP });
            put(&mut ours, at, &sum.to_be_bytes());
            prop_assert_eq!(&ours, &theirs[..size]);
        }
    }

    /// The cut is the same whether the packet was read into the expected layout or another.
    #[test]
    fn a_scattered_packet_is_cut_like_a_contiguous_one(
        ipv6: bool, udp: bool, payload in 1usize..65_000, gso_size in 520u16..1_500, other in 520usize..1_500, flags: u8,
    ) {
        let packet = super_packet(ipv6, udp, payload, flags);
        let header = header(ipv6, udp, gso_size);
        let plan = Plan::of(&header, &packet, packet.len()).unwrap();
        let (header_bytes, payload_bytes) = plan.shape().unwrap();
        for payload_bytes in [payload_bytes, other] {
            let layout = Layout::of(header_bytes, payload_bytes).unwrap();
            let mut window = vec![0x55; WINDOW_BYTES];
            // The kernel.
            layout.scatter(&mut [], &mut window, |slices| {
                let mut rest = packet.as_slice();
                for slice in slices {
                    let (now, later) = rest.split_at(slice.len().min(rest.len()));
                    slice[..now.len()].copy_from_slice(now);
                    rest = later;
                }
                assert!(rest.is_empty());
            });
            let mut gathered = vec![0; packet.len()];
            layout.gather(&window, &mut gathered);
            prop_assert_eq!(&gathered, &packet);
            if layout.is_of(&plan) {
                let used = layout.finish(&plan, packet.len(), &mut window);
                let (_, stride) = plan.extent(packet.len());
                let packets: Vec<_> = window[..used].chunks(stride).map(<[u8]>::to_vec).collect();
                prop_assert_eq!(packets, cut(&header, &packet).1);
            }
        }
    }

    #[test]
    fn nothing_panics(header: [u8; 10], mut packet in proptest::collection::vec(any::<u8>(), 0..300), sane: bool) {
        let mut header = VirtioNetHdr::decode(&header).unwrap();
        if sane {
            header.gso_type %= 6;
            header.csum_start %= 64;
            header.csum_offset %= 20;
            header.gso_size %= 200;
            if let Some(first) = packet.first_mut() {
                *first = if *first & 1 == 0 { 0x45 } else { 0x60 };
            }
        }
        if let Ok(plan) = Plan::of(&header, &packet, packet.len()) {
            let (count, largest) = plan.extent(packet.len());
            for index in 0..count {
                let mut out = vec![0; largest];
                prop_assert!(plan.cut(&packet, index, &mut out) <= largest);
            }
        }
    }
}

#[test]
fn options_and_lone_packets_get_what_they_need() {
    // Without NEEDS_CSUM nothing is touched.
    let packet = super_packet(false, true, 40, 0);
    let whole = VirtioNetHdr { flags: 0, gso_type: 0, ..header(false, true, 0) };
    assert_eq!(cut(&whole, &packet), (false, vec![packet.clone()]));
    // A packet without segments stays partial, and its checksum field is zero.
    let (is_partial, packets) = cut(&header(false, true, 0), &packet);
    assert!(is_partial);
    assert_eq!(packets[0][26..28], [0, 0]);
    // With IP options the checksum is computed, here on top of the field's content.
    let mut options = packet.clone();
    options[0] = 0x46;
    options.splice(20..20, [1, 1, 1, 1]);
    let odd = VirtioNetHdr { csum_start: 24, ..header(false, true, 0) };
    let (is_partial, packets) = cut(&odd, &options);
    assert!(!is_partial);
    let field = [0xab, 0xcd];
    assert_eq!(fold(sum_bytes(&packets[0][24..]) + sum_bytes(&field)), u16::MAX);
}
