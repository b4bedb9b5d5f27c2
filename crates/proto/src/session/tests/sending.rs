//! What a running session is told to do otherwise: nothing under way is lost.

use super::pair::{Pair, packet};
use super::*;
use crate::config::{Fec, Sending};
use crate::qos::{Class, Rule, RuleProtocol};

const LINKS: [(u64, u64); 2] = [(10, 10), (10, 25)];

fn sending(policy: Policy) -> Sending {
    Sending { policy, recovery: RecoveryConfig::default(), rules: [].into() }
}

fn mbit(rate: u64) -> BitRate {
    BitRate::from_bps(rate * 1_000_000)
}

/// What the client's link may send, and what the server's may, in bit/s.
fn capacities(pair: &Pair) -> [u64; 2] {
    let of = |side: &Session| side.stats(pair.now).links[0].capacity.map_or(0, BitRate::as_bps);
    [of(&pair.sides[0]), of(&pair.sides[1])]
}

/// A rule that sends each packet of UDP twice.
fn doubled() -> Rule {
    Rule {
        protocol: Some(RuleProtocol::Udp),
        ports: Vec::new(),
        source: Vec::new(),
        destination: Vec::new(),
        dscp: None,
        class: Some(Class::Bulk),
        duplicate: true,
        split: None,
    }
}

#[test]
fn no_change_of_sending_loses_or_reorders_a_packet() {
    let mut pair = Pair::new(&LINKS);
    pair.run(500, |_| ());
    let recovery = RecoveryConfig { resend: false, fec: Fec::Fixed(100) };
    let changes = [
        sending(Policy::RoundRobin),
        sending(Policy::Redundant),
        Sending { rules: [doubled()].into(), ..sending(Policy::Score) },
        Sending { recovery, ..sending(Policy::Adaptive) },
        sending(Policy::Adaptive),
    ];
    let (mut step, mut sent) = (0, 0);
    pair.run(3_000, |pair| {
        step += 1;
        if step % 500 == 0
            && let Some(change) = changes.get(step / 500 - 1)
        {
            let now = pair.now;
            pair.sides.iter_mut().for_each(|side| side.set_sending(change, now));
        }
        // 9.6 Mbit/s: both links are needed.
        if step <= 2_800 {
            pair.send(packet(1, sent, 1_200)).unwrap();
            sent += 1;
        }
    });
    assert_eq!(pair.numbers(), (0..sent).collect::<Vec<u32>>());
}

#[test]
fn a_rule_that_is_gone_duplicates_nothing_more() {
    let mut pair = Pair::new(&LINKS);
    pair.run(500, |_| ());
    let mut copies = Vec::new();
    for rules in [vec![doubled()], Vec::new()] {
        let change = Sending { rules: rules.into(), ..sending(Policy::Adaptive) };
        let now = pair.now;
        pair.sides[0].set_sending(&change, now);
        let before = pair.sides[0].stats(now).copies;
        for number in 0..20 {
            pair.send(packet(1, number, 400)).unwrap();
            pair.run(20, |_| ());
        }
        copies.push(pair.sides[0].stats(pair.now).copies - before);
    }
    assert_eq!(copies, [20, 0]);
}

#[test]
fn a_lower_ceiling_holds_at_once_and_a_higher_one_is_searched() {
    let mut pair = Pair::new(&LINKS);
    pair.run(500, |_| ());
    assert_eq!(capacities(&pair), [10_000_000; 2]);
    let set = |pair: &mut Pair, rate: u64| {
        let now = pair.now;
        // The server was configured with a ceiling of its own.
        pair.sides[1].set_tx_rates(vec![Some(mbit(90)); 2], now);
        pair.sides[0].set_link_rates(LinkId(0), [Some(mbit(rate)); 2], now);
        pair.run(50, |_| ());
    };
    set(&mut pair, 2);
    assert_eq!(capacities(&pair), [2_000_000; 2], "the server was told at once");
    set(&mut pair, 8);
    let mut number = 0;
    pair.run(4_000, |pair| {
        pair.send(packet(1, number, 1_200)).unwrap();
        number += 1;
    });
    let [up, _] = capacities(&pair);
    assert!((4_000_000..=8_000_000).contains(&up), "{up}");
}

#[test]
fn a_priority_moves_light_traffic_and_the_peer_knows_it() {
    let mut pair = Pair::new(&[(10, 10), (10, 10)]);
    pair.run(500, |_| ());
    let mut first = pair.data_bytes.clone();
    for (priority, link) in [(9, 1), (0, 0)] {
        let now = pair.now;
        pair.sides[0].set_link_priority(LinkId(0), priority, now);
        pair.run(100, |_| ());
        // A flow of its own each: a steady one would be a call, which goes where it is fastest.
        for number in 0..50 {
            pair.send(packet(1_000 + 100 * u16::from(priority) + number, 0, 200)).unwrap();
            pair.run(20, |_| ());
        }
        let carried: Vec<usize> =
            pair.data_bytes.iter().zip(&first).map(|(now, before)| now - before).collect();
        assert!(carried[link] > 10 * carried[1 - link], "priority {priority}: {carried:?}");
        assert_eq!(pair.sides[1].stats(pair.now).links[0].priority, priority);
        first = pair.data_bytes.clone();
    }
}
