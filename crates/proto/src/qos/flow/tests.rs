use proptest::prelude::*;

use super::*;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ESP: u8 = 50;
const NO_NEXT: u8 = 59;

/// 20 bytes of header and `payload`, with a right length.
fn v4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0xb9, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2];
    packet.extend_from_slice(payload);
    let length = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet
}

/// 40 bytes of header and `payload`, with a right length.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6b, 0x95, 0x12, 0x34, 0, 0, next, 64];
    packet.extend_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend_from_slice(&"2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend_from_slice(payload);
    packet[4..6].copy_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet
}

/// Source port 0x1234, destination port 53, and four more bytes.
const TRANSPORT: [u8; 8] = [0x12, 0x34, 0, 53, 0, 8, 0, 0];
const PORTS: Option<(u16, u16)> = Some((0x1234, 53));

/// An extension header of `units` × 8 bytes with `next` behind it, then `behind`.
fn extension(next: u8, units: u8, behind: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(units) * 8];
    bytes[0] = next;
    bytes[1] = units - 1;
    bytes.extend_from_slice(behind);
    bytes
}

/// A fragment header with this offset-and-flags field.
fn fragment(next: u8, field: u16, behind: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next, 0, 0, 0, 0, 0, 0, 7];
    bytes[2..4].copy_from_slice(&field.to_be_bytes());
    bytes.extend_from_slice(behind);
    bytes
}

#[test]
fn ipv4_header() {
    assert_eq!(
        parse(&v4(UDP, 0x4000, &TRANSPORT)),
        Ok(InnerHeader {
            source: "192.0.2.1".parse().unwrap(),
            destination: "198.51.100.2".parse().unwrap(),
            protocol: UDP,
            ports: PORTS,
            ecn: 1,
            dscp: 0x2e,
        })
    );
}

#[test]
fn ipv6_header() {
    assert_eq!(
        parse(&v6(TCP, &TRANSPORT)),
        Ok(InnerHeader {
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8::2".parse().unwrap(),
            protocol: TCP,
            ports: PORTS,
            ecn: 1,
            dscp: 0x2e,
        })
    );
}

#[test]
fn ipv4_options_are_skipped() {
    let mut packet = v4(UDP, 0, &[1; 8]);
    packet.extend_from_slice(&TRANSPORT);
    packet[0] = 0x47;
    packet[3] = 36;
    assert_eq!(parse(&packet).unwrap().ports, PORTS);
}

#[test]
fn ports_only_where_the_protocol_and_the_packet_have_them() {
    for protocol in 0..=u8::MAX {
        let expected = if [6, 17, 33, 132, 136].contains(&protocol) { PORTS } else { None };
        assert_eq!(parse(&v4(protocol, 0, &TRANSPORT)).unwrap().ports, expected, "protocol {protocol}");
    }
    assert_eq!(parse(&v4(UDP, 0, &TRANSPORT[..3])).unwrap().ports, None);
    assert_eq!(parse(&v6(UDP, &TRANSPORT[..3])).unwrap().ports, None);
    assert_eq!(parse(&v4(ICMP, 0, &[])).unwrap().ports, None);
    assert_eq!(parse(&v6(NO_NEXT, &[])).unwrap().protocol, NO_NEXT);
}

#[test]
fn all_fragments_of_a_datagram_are_one_flow() {
    let hasher = FlowHasher::new(1);
    let flow = |packet: &[u8]| hasher.flow(&parse(packet).unwrap());

    let first = v4(UDP, 0x2000, &TRANSPORT);
    assert_eq!(parse(&first).unwrap().ports, None);
    assert_eq!(flow(&first), flow(&v4(UDP, 0x2000 | 185, &[0xff; 8])));
    assert_eq!(flow(&first), flow(&v4(UDP, 370, &[0xee; 3])));

    let first = v6(FRAGMENT, &fragment(UDP, 1, &TRANSPORT));
    assert_eq!(parse(&first).unwrap().ports, None);
    assert_eq!(parse(&first).unwrap().protocol, UDP);
    assert_eq!(flow(&first), flow(&v6(FRAGMENT, &fragment(UDP, (185 << 3) | 1, &[0xff; 8]))));
    assert_eq!(flow(&first), flow(&v6(FRAGMENT, &fragment(UDP, 370 << 3, &[0xee; 3]))));
    // What follows a fragment header is not walked: in a later fragment it is payload.
    assert!(parse(&v6(FRAGMENT, &fragment(ROUTING, 370 << 3, &[0xff; 3]))).is_ok());
}

#[test]
fn an_atomic_fragment_keeps_its_ports() {
    // The two reserved bits are not part of the offset.
    for field in [0, 2, 4, 6] {
        assert_eq!(parse(&v6(FRAGMENT, &fragment(UDP, field, &TRANSPORT))).unwrap().ports, PORTS);
    }
}

#[test]
fn ipv6_extension_headers_are_walked() {
    for kind in [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, MOBILITY, HOST_IDENTITY, SHIM6] {
        for units in [1, 3, 255] {
            let header = parse(&v6(kind, &extension(UDP, units, &TRANSPORT))).unwrap();
            assert_eq!((header.protocol, header.ports), (UDP, PORTS), "kind {kind}");
        }
    }
    // RFC 4302: 4 × (4 + 2) = 24 bytes.
    let mut authentication = vec![0; 24];
    authentication[0] = TCP;
    authentication[1] = 4;
    authentication.extend_from_slice(&TRANSPORT);
    let header = parse(&v6(AUTHENTICATION, &authentication)).unwrap();
    assert_eq!((header.protocol, header.ports), (TCP, PORTS));

    let chain = extension(ROUTING, 1, &extension(FRAGMENT, 2, &fragment(ESP, 0, &TRANSPORT)));
    let header = parse(&v6(HOP_BY_HOP, &chain)).unwrap();
    assert_eq!((header.protocol, header.ports), (ESP, None));
}

#[test]
fn the_walk_is_bounded() {
    let chain = |count: usize| {
        (1..count).fold(extension(UDP, 1, &TRANSPORT), |behind, _| extension(DESTINATION_OPTIONS, 1, &behind))
    };
    let header = parse(&v6(DESTINATION_OPTIONS, &chain(EXTENSION_HEADERS_MAX - 1))).unwrap();
    assert_eq!((header.protocol, header.ports), (UDP, PORTS));
    let header = parse(&v6(DESTINATION_OPTIONS, &chain(EXTENSION_HEADERS_MAX + 1))).unwrap();
    assert_eq!((header.protocol, header.ports), (DESTINATION_OPTIONS, None));
}

#[test]
fn what_contradicts_its_length_is_refused() {
    let with = |mut packet: Vec<u8>, index: usize, value: u8| {
        packet[index] = value;
        packet
    };
    let longer = |mut packet: Vec<u8>| {
        packet.push(0);
        packet
    };
    let shorter = |mut packet: Vec<u8>| {
        packet.pop();
        packet
    };
    let good_v4 = || v4(UDP, 0, &TRANSPORT);
    let good_v6 = || v6(UDP, &TRANSPORT);
    let malformed = [
        ("empty", vec![]),
        ("version 0", with(good_v4(), 0, 0x05)),
        ("version 5", with(good_v4(), 0, 0x55)),
        ("version 15", vec![0xff; 40]),
        ("IPv4: only the version", vec![0x45]),
        ("IPv4: header cut", good_v4()[..19].to_vec()),
        ("IPv4: IHL below 5", with(good_v4(), 0, 0x44)),
        ("IPv4: IHL beyond the end", with(good_v4(), 0, 0x48)),
        ("IPv4: total length below the packet's", longer(good_v4())),
        ("IPv4: total length beyond the packet's", shorter(good_v4())),
        ("IPv4: total length 0", with(good_v4(), 3, 0)),
        ("IPv6: only the version", vec![0x60]),
        ("IPv6: header cut", good_v6()[..39].to_vec()),
        ("IPv6: payload length below the packet's", longer(good_v6())),
        ("IPv6: payload length beyond the packet's", shorter(good_v6())),
        ("IPv6: payload length 0, as a jumbogram", with(good_v6(), 5, 0)),
        ("IPv6: extension header missing", v6(HOP_BY_HOP, &[])),
        ("IPv6: extension header of one byte", v6(HOP_BY_HOP, &[UDP])),
        ("IPv6: extension header beyond the end", v6(ROUTING, &extension(UDP, 2, &[])[..15])),
        ("IPv6: second extension header missing", v6(ROUTING, &extension(ROUTING, 1, &[]))),
        ("IPv6: fragment header cut", v6(FRAGMENT, &fragment(UDP, 1, &[])[..7])),
        ("IPv6: authentication header missing", v6(AUTHENTICATION, &[UDP])),
        ("IPv6: authentication header beyond the end", v6(AUTHENTICATION, &[UDP, 4, 0, 0, 0, 0, 0, 0])),
    ];
    assert!(parse(&good_v4()).is_ok() && parse(&good_v6()).is_ok());
    for (what, packet) in malformed {
        assert_eq!(parse(&packet), Err(Discard::NotIp), "{what}");
    }
}

#[test]
fn every_part_of_the_header_that_makes_a_flow_counts() {
    let hasher = FlowHasher::new(7);
    let base = parse(&v4(UDP, 0, &TRANSPORT)).unwrap();
    let others = [
        InnerHeader { source: "192.0.2.9".parse().unwrap(), ..base },
        InnerHeader { destination: "192.0.2.9".parse().unwrap(), ..base },
        InnerHeader { source: base.destination, destination: base.source, ..base },
        InnerHeader { protocol: TCP, ..base },
        InnerHeader { ports: Some((53, 0x1234)), ..base },
        InnerHeader { ports: None, ..base },
        InnerHeader { source: "::ffff:192.0.2.1".parse().unwrap(), ..base },
    ];
    for other in others {
        assert_ne!(hasher.flow(&base), hasher.flow(&other), "{other:?}");
    }
    // Fields that may change within a connection do not move its flow.
    assert_eq!(hasher.flow(&base), hasher.flow(&InnerHeader { ecn: 3, dscp: 0, ..base }));
}

#[test]
fn flows_spread_evenly_over_all_ids_but_the_reserved_one() {
    let hasher = FlowHasher::new(42);
    let base = parse(&v6(UDP, &TRANSPORT)).unwrap();
    let mut counts = vec![0u32; usize::from(FLOWS)];
    for port in 0..51_150 {
        counts[hasher.flow(&InnerHeader { ports: Some((port, 443)), ..base }).index()] += 1;
    }
    assert_eq!(counts[0], 0);
    // 50 expected for each id; Poisson's standard deviation is 7.
    assert!(counts[1..].iter().all(|count| (15..100).contains(count)), "{counts:?}");
}

#[test]
fn the_mapping_depends_on_the_key_only() {
    let base = parse(&v4(UDP, 0, &TRANSPORT)).unwrap();
    let flows = |seed: u64| -> Vec<FlowId> {
        let header = |port| InnerHeader { ports: Some((port, 443)), ..base };
        (0..64).map(|port| FlowHasher::new(seed).flow(&header(port))).collect()
    };
    assert_eq!(flows(1), flows(1));
    let same = flows(1).iter().zip(flows(2)).filter(|(a, b)| **a == *b).count();
    assert!(same < 5, "{same} of 64 flows kept their id under another key");
    assert!(!format!("{:?}", FlowHasher::new(0xdead_beef)).contains("3735928559"));
}

proptest! {
    #[test]
    fn parse_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    /// Right version and length, everything else arbitrary, so that the walk is reached.
    #[test]
    fn parse_never_panics_behind_the_fixed_header(
        is_v6: bool,
        next in prop::sample::select(vec![0u8, 6, 17, 43, 44, 51, 60, 135, 139, 140, 255]),
        payload in prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 17, 43, 44, 51, 60, 255]), 0..120),
    ) {
        let packet = if is_v6 { v6(next, &payload) } else { v4(next, 0, &payload) };
        if let Ok(header) = parse(&packet) {
            let flow = FlowHasher::new(3).flow(&header);
            prop_assert!((1..FLOWS).contains(&flow.0));
        } else {
            prop_assert!(is_v6);
        }
    }
}
