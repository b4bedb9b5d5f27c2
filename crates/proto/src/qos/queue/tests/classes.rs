//! The service of each class, and the treatment of acknowledgements.

use super::*;

/// `rates`: flows that send packets of 1,250 bytes evenly, in kbit/s, with their ids and classes.
/// Returns each flow's share of a link of 10 Mbit/s in the second half of 4 s, in kbit/s, and the
/// longest wait of its packets.
fn shares(flows: &[(FlowId, Option<Class>, u64)]) -> Vec<(u64, Duration)> {
    let rate = mbps(10);
    let mut queue = queue(Some(rate));
    let mut link = Link::new(rate);
    let mut got = vec![(0, Duration::ZERO); flows.len()];
    let mut sent_at: Vec<VecDeque<Instant>> = vec![VecDeque::new(); flows.len()];
    for us in (0..4_000_000).step_by(100) {
        let now = at_us(us);
        for (place, (flow, class, kbit)) in flows.iter().enumerate() {
            // 10,000 bits each.
            let due = us * kbit / 10_000_000 > (us.max(100) - 100) * kbit / 10_000_000;
            if due {
                queue.push(*flow, *class, packet(place as u64, 1_250), now).unwrap();
                sent_at[place].push_back(now);
            }
        }
        link.run(&mut queue, now, |at, _, _, packet| {
            let place = usize::try_from(serial(packet)).unwrap();
            let waited = at.saturating_since(sent_at[place].pop_front().unwrap());
            if at >= at_us(2_000_000) {
                got[place] = (got[place].0 + 5, got[place].1.max(waited));
            }
        });
        audit(&queue);
    }
    got
}

#[test]
fn a_realtime_flow_goes_ahead_of_everything_up_to_its_share() {
    let call = (FlowId(5).realtime(), Some(Class::Realtime), 2_000);
    let got = shares(&[call, (FlowId(6), None, 900), (FlowId(7), None, 20_000)]);
    assert!(got[0].0 >= 1_990 && got[0].1 <= ms(2), "{got:?}");
    assert!(got[1].0 >= 890 && got[1].1 <= ms(4), "{got:?}");
}

#[test]
fn marking_everything_realtime_gains_nothing() {
    let greedy = (FlowId(5).realtime(), Some(Class::Realtime), 20_000);
    let call = (FlowId(8).realtime(), Some(Class::Realtime), 100);
    let got = shares(&[greedy, call, (FlowId(7), None, 20_000)]);
    assert!((4_000..=6_000).contains(&got[2].0), "a fair share: {got:?}");
    assert!(got[1].0 >= 90 && got[1].1 <= ms(3), "a call is not hurt by it: {got:?}");
}

#[test]
fn an_eighth_is_left_whatever_claims_to_be_urgent() {
    let mut flows: Vec<_> =
        (0..8).map(|id| (FlowId(100 + id).realtime(), Some(Class::Realtime), 620)).collect();
    flows.extend((0..8).map(|id| (FlowId(200 + id), Some(Class::Interactive), 300)));
    flows.push((FlowId(7), None, 20_000));
    let got = shares(&flows);
    let bulk = got.last().unwrap().0;
    assert!(bulk >= 10_000 / 8, "{got:?}");
    assert!(got[..8].iter().all(|(kbit, waited)| *kbit >= 610 && *waited <= ms(12)), "{got:?}");
}

#[test]
fn a_rule_decides_which_flow_is_sparse() {
    let rate = mbps(100);
    let mut queue = queue(Some(rate));
    let tier_of = |queue: &mut Queue, now| pop_any(queue, now).unwrap().0;
    queue.push(FlowId(1), Some(Class::Bulk), packet(0, 100), at(0)).unwrap();
    assert_eq!(tier_of(&mut queue, at(0)), Tier::Bulk);
    // 5 Mbit/s: above the limit of a sparse flow, and within half of a fair share.
    for (flow, class, last) in [(2, Some(Class::Interactive), Tier::Sparse), (3, None, Tier::Bulk)] {
        let mut tier = Tier::Sparse;
        for step in 0..1_000 {
            let now = at(u64::from(flow) * 10_000 + step * 2);
            queue.push(FlowId(flow), class, packet(step, 1_250), now).unwrap();
            tier = tier_of(&mut queue, now);
        }
        assert_eq!(tier, last);
    }
}

/// An acknowledgement of TCP by IPv4, without options.
fn ack_packet(ack: u32) -> PacketBuf {
    let mut segment = vec![0x14, 0x51, 0xc0, 0x01, 0, 0, 0, 7];
    segment.extend_from_slice(&ack.to_be_bytes());
    segment.extend_from_slice(&[0x50, 0x10, 1, 0, 0xab, 0xcd, 0, 0]);
    Bytes::from(crate::inner::samples::v4(6, 0, &segment)).into()
}

fn acked(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[28..32].try_into().unwrap())
}

#[test]
fn of_acknowledgements_that_wait_the_first_and_the_newest_stay() {
    let mut queue = queue(Some(mbps(1)));
    let (flow, other) = (FlowId(5), FlowId(6));
    for count in 1..=100 {
        queue.push(flow, Some(Class::Interactive), ack_packet(count * 1_000), at(1)).unwrap();
        // A packet that is not an acknowledgement stays where it is.
        queue.push(other, None, packet(u64::from(count), 40), at(1)).unwrap();
    }
    assert_eq!(queue.take_discards().of(Discard::AckSuperseded), 98);
    assert_eq!(queue.bytes(), 2 * 40 + 100 * 40);
    let mut seen = Vec::new();
    while let Some((_, id, packet)) = pop_any(&mut queue, at(2)) {
        if id == flow {
            seen.push(acked(&packet));
        }
    }
    assert_eq!(seen, [1_000, 100_000]);
    assert!(queue.is_empty() && queue.bytes() == 0);
    assert_eq!(queue.take_discards(), DiscardCounts::default());
}

#[test]
fn an_acknowledgement_stays_behind_data_of_its_flow() {
    let mut queue = queue(Some(mbps(1)));
    let flow = FlowId(5);
    for data in 0..3 {
        queue.push(flow, None, ack_packet(1_000 + data), at(1)).unwrap();
        queue.push(flow, None, packet(u64::from(data), 1_000), at(1)).unwrap();
    }
    queue.push(flow, None, ack_packet(9_000), at(1)).unwrap();
    assert_eq!(queue.take_discards().of(Discard::AckSuperseded), 0);
    let order: Vec<usize> =
        std::iter::from_fn(|| pop_any(&mut queue, at(2))).map(|(_, _, p)| p.len()).collect();
    assert_eq!(order, [40, 1_000, 40, 1_000, 40, 1_000, 40]);
}
