use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::inner::samples;
use crate::qos::flow;
use crate::qos::rule::RuleProtocol;

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(10_000 + ms)
}

fn udp(port: u16, dscp: u8) -> InnerHeader {
    InnerHeader {
        source: IpAddr::from([10, 0, 0, 1]),
        destination: IpAddr::from([10, 0, 0, 2]),
        protocol: UDP,
        ports: Some((port, 4_000)),
        ecn: 0,
        dscp,
    }
}

fn classifier(rules: Vec<Rule>) -> Classifier {
    Classifier::new(1, rules.into())
}

fn rule(class: Class) -> Rule {
    Rule {
        protocol: Some(RuleProtocol::Udp),
        ports: vec![(4_000, 4_000)],
        source: Vec::new(),
        destination: Vec::new(),
        dscp: None,
        class: Some(class),
        duplicate: false,
        split: None,
    }
}

/// Packets of `bytes` every `gap_ms` from `from` until `until`; returns when they were realtime.
fn stream(
    classifier: &mut Classifier,
    header: &InnerHeader,
    bytes: usize,
    gap_ms: u64,
    (from, until): (u64, u64),
) -> Vec<u64> {
    let packet = vec![0; bytes];
    let mut realtime = Vec::new();
    for ms in (from..until).step_by(usize::try_from(gap_ms).unwrap()) {
        let said = classifier.classify(header, &packet, at(ms));
        assert_eq!(said.flow.is_realtime(), said.class == Some(Class::Realtime));
        if said.flow.is_realtime() {
            realtime.push(ms);
        }
    }
    realtime
}

#[test]
fn a_call_is_found_within_a_second_and_a_quarter() {
    for gap in [8, 20, 30, 60, 99] {
        let mut classifier = classifier(Vec::new());
        let realtime = stream(&mut classifier, &udp(1, 0), 200, gap, (0, 10_000));
        assert!((900..=1_300).contains(&realtime[0]), "every {gap} ms: from {} on", realtime[0]);
        assert_eq!(realtime.last().unwrap() / gap, 9_999 / gap);
        assert_eq!(classifier.realtime_flows(at(10_000)), 1);
        assert_eq!(classifier.realtime_flows(at(12_300)), 0);
    }
}

#[test]
fn rare_dense_large_or_uneven_traffic_is_not_a_call() {
    // 8 and 142 packets a second; 608 bytes; 1.0 Mbit/s.
    for (bytes, gap) in [(200, 125), (200, 7), (608, 20), (1_300, 10)] {
        let realtime = stream(&mut classifier(Vec::new()), &udp(1, 0), bytes, gap, (0, 5_000));
        assert_eq!(realtime, [], "{bytes} bytes every {gap} ms");
    }
    let mut classifier = classifier(Vec::new());
    for second in 0..5 {
        let burst = (second * 1_000, second * 1_000 + 500);
        assert_eq!(stream(&mut classifier, &udp(1, 0), 100, 10, burst), []);
    }
}

#[test]
fn a_call_that_becomes_a_download_leaves_at_once_and_stays_out() {
    let mut classifier = classifier(Vec::new());
    assert!(!stream(&mut classifier, &udp(1, 0), 200, 20, (0, 2_000)).is_empty());
    // 2.8 Mbit/s: 62,500 bytes in a quarter of a second.
    let download = stream(&mut classifier, &udp(1, 0), 1_400, 4, (2_000, 3_000));
    assert!(*download.last().unwrap() < 2_250, "{download:?}");
    let again = stream(&mut classifier, &udp(1, 0), 200, 20, (3_000, 12_000));
    assert!((7_000..7_500).contains(&again[0]), "{}", again[0]);
    assert_eq!(again.last(), Some(&11_980));
}

#[test]
fn a_call_that_pauses_stays_for_two_seconds() {
    let mut classifier = classifier(Vec::new());
    stream(&mut classifier, &udp(1, 0), 200, 20, (0, 2_000));
    assert_eq!(stream(&mut classifier, &udp(1, 0), 200, 20, (3_500, 3_520)), [3_500]);
    assert_eq!(stream(&mut classifier, &udp(1, 0), 200, 20, (6_000, 6_020)), []);
}

#[test]
fn marks_count_at_once_and_for_two_seconds() {
    for dscp in REALTIME_DSCPS {
        let mut classifier = classifier(Vec::new());
        let mut says = |dscp, ms| classifier.classify(&udp(1, dscp), &[0; 100], at(ms)).class;
        assert_eq!(says(dscp, 0), Some(Class::Realtime));
        assert_eq!(says(0, 1_990), Some(Class::Realtime));
        assert_eq!(says(0, 2_010), None);
    }
    for dscp in [0, 8, 10, 18, 26, 48, 56, 63] {
        assert_eq!(classifier(Vec::new()).classify(&udp(1, dscp), &[0; 100], at(0)).class, None);
    }
}

#[test]
fn a_marked_stream_of_any_rate_keeps_its_class() {
    let realtime = stream(&mut classifier(Vec::new()), &udp(1, 46), 1_400, 1, (0, 3_000));
    assert_eq!(realtime.len(), 3_000);
}

#[test]
fn the_first_rule_that_matches_decides() {
    let mut classifier = classifier(vec![
        Rule { dscp: Some(46), ..rule(Class::Bulk) },
        Rule { duplicate: true, ..rule(Class::Realtime) },
        rule(Class::Interactive),
    ]);
    let said = classifier.classify(&udp(1, 46), &[0; 100], at(0));
    assert_eq!((said.class, said.flow.is_realtime()), (Some(Class::Bulk), false));
    assert!(!classifier.goes_twice(said.flow));
    let said = classifier.classify(&udp(2, 0), &[0; 100], at(0));
    assert_eq!((said.class, said.flow.is_realtime()), (Some(Class::Realtime), true));
    assert!(classifier.goes_twice(said.flow));
    assert_eq!(stream(&mut classifier, &udp(1, 46), 200, 20, (0, 3_000)), [], "nor is it looked for");
}

#[test]
fn a_rule_without_a_class_leaves_it_to_mark_and_traffic() {
    let about_split = Rule { class: None, split: Some(false), ..rule(Class::Bulk) };
    let rules = vec![about_split, rule(Class::Interactive)];
    let mut classifier = classifier(rules);
    let said = classifier.classify(&udp(1, 46), &[0; 100], at(0));
    assert_eq!((said.class, said.flow.is_realtime()), (Some(Class::Realtime), true));
    assert_ne!(stream(&mut classifier, &udp(2, 0), 200, 20, (0, 3_000)), [], "it is looked for");
    let answer = udp(3, 0);
    classifier.on_realtime_received(&answer.reversed(), at(0));
    assert!(classifier.classify(&answer, &[0; 100], at(1)).flow.is_realtime(), "and inherited");
}

#[test]
fn the_reply_direction_inherits() {
    let mut there = classifier(Vec::new());
    let header = udp(1, 0).reversed();
    let answer = |classifier: &mut Classifier, ms| classifier.classify(&header, &[0; 1_000], at(ms)).class;
    assert_eq!(answer(&mut there, 0), None);
    there.on_realtime_received(&udp(1, 46), at(10));
    assert_eq!(answer(&mut there, 20), Some(Class::Realtime));
    assert_eq!(answer(&mut there, 2_020), None);
    // A download whose requests resemble a call: the traffic in this direction decides.
    for ms in 3_000..4_000 {
        there.on_realtime_received(&udp(1, 46), at(ms));
        if ms >= 3_100 {
            assert_eq!(answer(&mut there, ms), None);
        } else {
            answer(&mut there, ms);
        }
    }
}

#[test]
fn packets_that_a_user_waits_for_are_interactive() {
    let class = |packet: &[u8]| {
        let header = flow::parse(packet).unwrap();
        classifier(Vec::new()).classify(&header, packet, at(0)).class
    };
    let tcp = |flags: u8, payload: usize| {
        let mut segment = vec![0; 20 + payload];
        segment[12] = 0x50;
        segment[13] = flags;
        segment
    };
    let (ack, push_ack, syn, fin) = (0x10, 0x18, 0x02, 0x11);
    for v4 in [true, false] {
        let whole =
            |segment: &[u8]| if v4 { samples::v4(TCP, 0, segment) } else { samples::v6(TCP, segment) };
        assert_eq!(class(&whole(&tcp(ack, 0))), Some(Class::Interactive));
        assert_eq!(class(&whole(&tcp(syn, 0))), Some(Class::Interactive));
        assert_eq!(class(&whole(&tcp(fin, 0))), None);
        assert_eq!(class(&whole(&tcp(push_ack, 1))), None);
        assert_eq!(class(&whole(&tcp(ack, 0)[..12])), None, "cut short");
    }
    let mut dns = vec![0; 40];
    dns[2..4].copy_from_slice(&53u16.to_be_bytes());
    assert_eq!(class(&samples::v4(UDP, 0, &dns)), Some(Class::Interactive));
    assert_eq!(class(&samples::v4(1, 0, &[8, 0])), Some(Class::Interactive));
    assert_eq!(class(&samples::v6(58, &[128, 0])), Some(Class::Interactive));
    assert_eq!(class(&samples::v4(47, 0, &[0; 8])), None);
    assert!(needs_order(&samples::v4(TCP, 0, &tcp(ack, 0))) && !needs_order(&samples::v6(UDP, &dns)));
}

#[test]
fn records_are_forgotten() {
    let mut classifier = classifier(Vec::new());
    for port in 1..500 {
        classifier.classify(&udp(port, 0), &[0; 100], at(u64::from(port)));
    }
    assert!((300..500).contains(&classifier.watched));
    classifier.forget_idle(at(5_250));
    assert!((100..300).contains(&classifier.watched), "{}", classifier.watched);
    classifier.forget_idle(at(11_000));
    assert_eq!((classifier.watched, classifier.watches.capacity()), (0, 0));
}

proptest! {
    #[test]
    fn counts_stay_right_and_ids_in_range(
        steps in proptest::collection::vec((0u16..40, 0u8..64, 0usize..70_000, 0u64..3_000, any::<bool>()), 0..300),
    ) {
        let mut classifier = classifier(vec![Rule { dscp: Some(5), duplicate: true, ..rule(Class::Realtime) }]);
        let mut now = 0;
        for (port, dscp, bytes, gap, reply) in steps {
            now += gap;
            if reply {
                classifier.on_realtime_received(&udp(port, dscp), at(now));
            }
            let said = classifier.classify(&udp(port, dscp), &vec![0; bytes], at(now));
            prop_assert!(said.flow.0 < FLOW_IDS && !said.flow.0.is_multiple_of(FLOWS));
            prop_assert_eq!(classifier.watched, classifier.watches.iter().flatten().count());
            prop_assert!(classifier.realtime_flows(at(now)) <= classifier.watched);
        }
    }
}
