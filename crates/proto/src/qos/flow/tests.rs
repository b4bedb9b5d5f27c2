use proptest::prelude::*;

use super::*;
use crate::inner::samples::{fragment, v4, v6};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;

/// Source port 0x1234, destination port 53, and four more bytes.
const TRANSPORT: [u8; 8] = [0x12, 0x34, 0, 53, 0, 8, 0, 0];

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
    /// Right version and length, everything else arbitrary.
    #[test]
    fn a_flow_id_is_never_reserved_nor_realtime(
        is_v6: bool,
        next in prop::sample::select(vec![0u8, 6, 17, 43, 44, 51, 60, 135, 139, 140, 255]),
        payload in prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 17, 43, 44, 51, 60, 255]), 0..120),
    ) {
        let packet = if is_v6 { v6(next, &payload) } else { v4(next, 0, &payload) };
        if let Ok(header) = parse(&packet) {
            let flow = FlowHasher::new(3).flow(&header);
            prop_assert!((1..FLOWS).contains(&flow.0));
        }
    }
}
