use proptest::prelude::*;

use super::*;
use crate::inner::samples::fragment;

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
        prop_assert!(is_v6 || parse(&packet).is_ok());
    }
}
