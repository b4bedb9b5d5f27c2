//! What the classes get of two sessions.

use super::pair::{Pair, config, packet};
use super::*;
use crate::config::Fec;
use crate::inner::samples;
use crate::qos::classify::ClassReason;
use crate::qos::{Class, Rule, RuleProtocol, Tier};
use crate::session::flows::FlowKind;

const LINKS: [(u64, u64); 2] = [(10, 10), (70, 40)];

/// A packet that is marked EF.
fn marked(number: u32, size: usize) -> PacketBuf {
    let mut bytes = packet(1, number, size).to_vec();
    bytes[1] = 46 << 2;
    Bytes::from(bytes).into()
}

fn is_data(segment: &[u8]) -> bool {
    segment[8] & 2 != 0
}

/// 50 packets a second for 10 s; when the server had each after it was sent, in ms.
fn call(pair: &mut Pair, make: impl Fn(u32) -> PacketBuf) -> Vec<Option<u128>> {
    let mut sent_at = Vec::new();
    let mut delays = vec![None; 500];
    let mut step = 0;
    pair.run(10_200, |pair| {
        let server = &pair.delivered[1];
        for packet in server {
            let number = u32::from_be_bytes(packet[28..32].try_into().unwrap()) as usize;
            let delay: &mut Option<u128> = &mut delays[number];
            assert!(delay.is_none(), "{number} came twice");
            let sent: Instant = sent_at[number];
            *delay = Some(pair.now.saturating_since(sent).as_millis());
        }
        pair.delivered[1].clear();
        if step < 10_000 && step % 20 == 0 {
            sent_at.push(pair.now);
            pair.send(make(step / 20)).unwrap();
        }
        step += 1;
    });
    delays
}

#[test]
fn a_realtime_packet_waits_for_nothing_that_was_lost() {
    let mut pair = Pair::new(&LINKS);
    pair.run(500, |_| ());
    let mut count = 0;
    pair.loses = Box::new(move |_, _, segment| {
        count += u32::from(is_data(segment));
        // One in 100: too few for copies.
        is_data(segment) && count.is_multiple_of(100)
    });
    let delays = call(&mut pair, |number| marked(number, 200));
    assert!(delays.iter().flatten().all(|ms| *ms <= 12), "{delays:?}");
    assert!((490..=496).contains(&delays.iter().flatten().count()));
    let now = pair.now;
    let [client, server] = [0, 1].map(|side: usize| pair.sides[side].stats(now));
    assert_eq!((client.flows_realtime, server.flows_realtime), (1, 1), "the answer is realtime, too");
    assert_eq!((server.reorder_held_max, server.released_late, server.reorder_timeouts), (0, 0, 0));
}

#[test]
fn an_unmarked_call_is_classified_as_realtime() {
    let mut pair = Pair::new(&LINKS);
    pair.run(500, |_| ());
    let urgent = std::rc::Rc::new(std::cell::Cell::new(0));
    let seen = urgent.clone();
    pair.loses = Box::new(move |_, _, segment| {
        seen.set(seen.get() + u32::from(segment[8] == 0x42));
        false
    });
    let delays = call(&mut pair, |number| packet(1, number, 200));
    assert!(delays.iter().all(|ms| ms.is_some_and(|ms| ms <= 12)));
    assert!((430..=450).contains(&urgent.get()), "{}", urgent.get());
}

#[test]
fn what_a_rule_doubles_survives_the_end_of_a_link() {
    let mut pair = Pair::new(&LINKS);
    let rule = Rule {
        protocol: Some(RuleProtocol::Udp),
        ports: vec![(1, 1)],
        source: Vec::new(),
        destination: Vec::new(),
        dscp: None,
        class: Some(Class::Realtime),
        duplicate: true,
        split: None,
    };
    let config = SessionConfig { rules: [rule].into(), ..config(Role::Client, 1, &LINKS) };
    pair.sides[0] = Session::new(config, pair.now);
    pair.run(500, |_| ());
    let mut count = 0;
    pair.loses = Box::new(move |side, link, segment| {
        count += u32::from(side == 0 && is_data(segment));
        link == 0 && count > 500
    });
    let delays = call(&mut pair, |number| packet(1, number, 200));
    assert!(delays.iter().all(|ms| ms.is_some_and(|ms| ms <= 42)), "{delays:?}");
    let duplicates = pair.sides[1].stats(pair.now).duplicates;
    assert!((240..=260).contains(&duplicates), "{duplicates}");
}

#[test]
fn a_lossy_link_has_a_second_beside_it_for_the_call() {
    let mut pair = Pair::new(&LINKS);
    pair.run(500, |_| ());
    let mut count = 0;
    pair.loses = Box::new(move |_, link, _| {
        count += u32::from(link == 0);
        link == 0 && count.is_multiple_of(25)
    });
    // Until the loss is known.
    call(&mut pair, |number| marked(number, 200));
    let delays = call(&mut pair, |number| marked(number, 200));
    assert!(delays.iter().all(|ms| ms.is_some_and(|ms| ms <= 42)), "{delays:?}");
}

#[test]
fn tcp_stays_in_order_whatever_its_class() {
    let mut pair = Pair::new(&LINKS);
    pair.run(500, |_| ());
    let seen = std::rc::Rc::new(std::cell::Cell::new(0));
    let urgent = seen.clone();
    pair.loses = Box::new(move |_, _, segment| {
        seen.set(seen.get() + u32::from(segment[8] == 0x42));
        false
    });
    call(&mut pair, |number| {
        let mut bytes = marked(number, 200).to_vec();
        bytes[9] = 6;
        Bytes::from(bytes).into()
    });
    assert_eq!(urgent.get(), 0);
}

/// A segment of a connection with an acknowledgement, which carries so many bytes.
fn segment(payload: usize) -> PacketBuf {
    let mut tcp = [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 9, 0, 0, 0, 0].to_vec();
    tcp.resize(20 + payload, 0);
    Bytes::from(samples::v4(6, 0, &tcp)).into()
}

#[test]
fn an_acknowledgement_waits_for_no_data() {
    let mut pair = Pair::new(&LINKS);
    pair.run(500, |_| ());
    let mut lost = false;
    pair.loses = Box::new(move |_, _, segment| is_data(segment) && !std::mem::replace(&mut lost, true));
    for payload in [100, 100, 0, 100, 0] {
        pair.send(segment(payload)).unwrap();
    }
    let sizes = |pair: &Pair| pair.delivered[1].iter().map(|packet| packet.len()).collect::<Vec<_>>();
    pair.run(15, |_| ());
    assert_eq!(sizes(&pair), [40, 40], "behind data that is missing");
    pair.run(500, |_| ());
    assert_eq!(sizes(&pair), [40, 40, 140, 140]);
    let stats = pair.sides[1].stats(pair.now);
    assert_eq!(stats.flows_realtime, 0);
}

/// Links that were in steady use are looked at every 5 ms until their silence was told of.
#[test]
fn links_are_not_looked_at_for_silence_for_ever() {
    let mut pair = Pair::new(&LINKS);
    pair.run(500, |_| ());
    for number in 0..200 {
        pair.send(packet(1, number, 1_000)).unwrap();
    }
    pair.run(1_000, |_| ());
    assert_eq!(pair.delivered[1].len(), 200);
    let mut looks = 0;
    pair.run(3_000, |pair| {
        let waits_for =
            |side: &Session| side.poll_timeout().is_some_and(|(_, timer)| timer == Timer::Silence);
        looks += pair.sides.iter().filter(|side| waits_for(side)).count();
    });
    assert_eq!(looks, 0);
}

/// The same packet, its checksum left to the other side.
fn partial(packet: &[u8]) -> PacketBuf {
    PacketBuf::partial(Bytes::copy_from_slice(packet))
}

#[test]
fn a_partial_checksum_stays_so_even_where_packets_are_held() {
    let mut pair = Pair::new(&LINKS);
    pair.run(500, |_| ());
    for number in 0..200 {
        pair.send(partial(&packet(1, number, 1_000))).unwrap();
    }
    pair.run(1_000, |_| ());
    let came = &pair.delivered[1];
    assert_eq!(came.len(), 200);
    assert!(came.iter().all(PacketBuf::is_partial));
    assert!(pair.sides[1].stats(pair.now).reorder_held_max > 0, "some were held");
    pair.delivered[1].clear();
    pair.send(packet(1, 0, 1_000)).unwrap();
    pair.run(100, |_| ());
    assert!(!pair.delivered[1][0].is_partial());
}

#[test]
fn what_may_be_restored_is_sent_with_its_checksum() {
    let mut pair = Pair::new(&LINKS);
    for (fec, packet) in [(Fec::Auto, marked(0, 200)), (Fec::Fixed(200), packet(1, 0, 200))] {
        let mut config = config(Role::Client, 1, &LINKS);
        config.recovery.fec = fec;
        pair.sides[0] = Session::new(config, pair.now);
        pair.run(500, |_| ());
        pair.send(partial(&packet)).unwrap();
        pair.run(100, |_| ());
        let came = pair.delivered[1].pop().unwrap();
        assert!(!came.is_partial());
        assert_eq!(samples::transport_sum(&came, 17, 20), 0xffff);
    }
}

/// Both sides show a call as one flow, each with its own reason and what came back.
#[test]
fn a_call_is_one_flow_on_both_sides_with_its_reason() {
    let mut pair = Pair::new(&LINKS);
    pair.run(500, |_| ());
    let mut step = 0;
    pair.run(5_000, |pair| {
        if step % 20 == 0 {
            pair.send(packet(1, step, 200)).unwrap();
        }
        // A word in return now and then.
        if step % 200 == 0 {
            let bytes = packet(0, step, 100).to_vec();
            let mut back = bytes.clone();
            (back[12..16]).copy_from_slice(&bytes[16..20]);
            (back[16..20]).copy_from_slice(&bytes[12..16]);
            (back[20..24]).copy_from_slice(&[0, 0, 0, 1]);
            pair.sides[1].handle_packet(Bytes::from(back).into(), pair.now).unwrap();
        }
        step += 1;
    });
    let now = pair.now;
    let shown = [0, 1].map(|side: usize| {
        let mut flows = Vec::new();
        pair.sides[side].each_flow(now, &mut |flow| flows.push(flow));
        let [flow] = <[_; 1]>::try_from(flows).unwrap();
        flow
    });
    let [client, server] = &shown;
    let FlowKind::Packets(header) = client.kind else { panic!("{client:?}") };
    assert_eq!((header.ports, server.kind), (Some((1, 0)), FlowKind::Packets(header.reversed())));
    assert_eq!(client.class, Some((Class::Realtime, ClassReason::Traffic)));
    assert_eq!(server.class, Some((Class::Realtime, ClassReason::Peer)));
    assert_eq!((client.tier, server.tier), (Some(Tier::Realtime), Some(Tier::Realtime)));
    assert_eq!((client.sent.bytes, server.sent.bytes), (50_200, 2_600));
    // The rest is on its way.
    assert!(server.received.bytes > 49_000 && client.received.bytes >= 2_500, "{shown:?}");
    assert!((75..85).contains(&(client.sent.rate.as_bps() / 1_000)), "{client:?}");
    let links: Vec<LinkId> = client.sent.links.iter().map(|(link, _)| *link).collect();
    assert_eq!(links, [LinkId(0)], "the one that delivers first");
    assert_eq!(server.received.links.len(), 1);

    pair.run(11_000, |_| ());
    let mut count = 0;
    pair.sides[0].each_flow(pair.now, &mut |_| count += 1);
    assert_eq!(count, 0, "nothing for 10 s");
}
