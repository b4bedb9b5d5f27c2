//! How long packets may wait: CoDel's signals, and their dependence on the links.

use super::*;

/// One flow offered more than the link carries; the times of drops in milliseconds.
fn drop_times(config: QueueConfig, rate: BitRate, until: u64, ecn: Option<u8>) -> (Vec<u64>, Queue) {
    let (mut queue, mut link) = (Queue::new(config), Link::new(rate));
    queue.set_drain_rate(Some(rate), false);
    let mut times = Vec::new();
    let mut marked_before = 0;
    for step in 0..until {
        // 1500 bytes per ms: 12 Mbit/s.
        let packet = ecn.map_or_else(|| packet(step, 1500), |ecn| ecn_packet(step, 1500, ecn));
        queue.push(FlowId(1), None, packet, at(step)).unwrap();
        link.run(&mut queue, at(step), |_, _, _, _| {});
        let discards = queue.take_discards();
        assert_eq!(discards.of(Discard::QueueFull), 0);
        let signals = discards.of(Discard::QueueDelay) + queue.marked_pkts() - marked_before;
        marked_before = queue.marked_pkts();
        times.extend((0..signals).map(|_| step));
    }
    (times, queue)
}

#[test]
fn drops_start_an_interval_above_target_and_follow_the_control_law() {
    // 6 Mbit/s: the sojourn grows by half a millisecond each millisecond, and passes 5 ms after
    // about 10.
    let (times, queue) = drop_times(rfc_8290(), mbps(6), 500, None);
    assert!((110..=116).contains(&times[0]), "{times:?}");
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // 100 ms / √1, √2, √3, …; a packet takes 2 ms.
    for (gap, law) in gaps.iter().zip([100, 71, 58, 50, 45]) {
        assert!(gap.abs_diff(law) <= 4, "{gaps:?}");
    }
    assert!(gaps.len() >= 4);
    assert_eq!(queue.marked_pkts(), 0);
}

#[test]
fn a_queue_below_target_is_left_alone() {
    let (times, _) = drop_times(rfc_8290(), mbps(13), 2_000, None);
    assert_eq!(times, []);
}

#[test]
fn ect_packets_are_marked_at_the_same_times_instead() {
    let config = rfc_8290();
    let (drops, _) = drop_times(config, mbps(6), 150, Some(0));
    assert_eq!(drops.len(), 1);
    for ecn in [1, 2] {
        let (marks, queue) = drop_times(config, mbps(6), 150, Some(ecn));
        assert_eq!(marks, drops);
        assert_eq!(queue.marked_pkts(), 1);
    }
}

/// The packet that comes out carries the mark, and its checksum is still right.
#[test]
fn a_marked_packet_has_ce_and_a_right_checksum() {
    let mut queue = queue(Some(mbps(10)));
    let header_sum = |packet: &[u8]| {
        let sum: u32 =
            packet[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        (sum & 0xffff) + (sum >> 16)
    };
    let mut data = ecn_packet(0, 1500, 2).to_vec();
    let sum = !u16::try_from(header_sum(&data)).unwrap();
    data[10..12].copy_from_slice(&sum.to_be_bytes());
    let shared = Bytes::from(data);
    for _ in 0..40 {
        queue.push(FlowId(1), None, shared.clone().into(), at(0)).unwrap();
    }
    assert_eq!(queue.pop(Tier::Bulk, at(10)).unwrap().1[1], 2);
    let (_, marked) = queue.pop(Tier::Bulk, at(111)).unwrap();
    assert_eq!((marked[1], header_sum(&marked)), (3, 0xffff));
    // The next is untouched, though it shares its memory with the marked one's original.
    assert_eq!(queue.pop(Tier::Bulk, at(111)).unwrap().1[1], 2);
    assert_eq!(queue.marked_pkts(), 1);
    assert_eq!(queue.take_discards(), DiscardCounts::default());
}

/// On a slow link two packets are not a queue: 1514 bytes at 1 Mbit/s are 12 ms, so the target is
/// 18 ms.
#[test]
fn the_target_follows_the_drain_rate() {
    let params = |rate| {
        let mut delay = DelayControl::new(&rfc_8290());
        delay.set_drain_rate(&rfc_8290(), rate, false);
        *delay.params(Tier::Bulk)
    };
    assert_eq!((params(None).target, params(None).interval), (ms(5), ms(100)));
    assert_eq!(params(Some(mbps(100))).target, ms(5));
    assert_eq!(params(Some(mbps(1))).target, Duration::from_micros(18_168));
    let slow = params(Some(BitRate::from_bps(64_000)));
    assert_eq!(
        (slow.target, slow.interval),
        (Duration::from_micros(283_875), Duration::from_micros(567_750))
    );

    let mut queue = queue(Some(mbps(1)));
    for next in 0..20 {
        queue.push(FlowId(1), None, packet(next, 1500), at(0)).unwrap();
    }
    queue.set_drain_rate(Some(BitRate::from_bps(0)), false);
    assert_eq!(queue.delay.params(Tier::Bulk).target, ms(5));
}

/// Every 10 ms, ten packets arrive and ten leave at once; 15 stand all the time, so each waits 15
/// to 25 ms. What of that is reported as deliberate decides whether CoDel sees a queue.
#[test]
fn a_deliberate_wait_is_not_queueing_delay() {
    // Milliseconds of each 10 that are deliberate, and whether that is said before or after.
    for (wait, is_ahead, has_drops) in [
        (0, false, true),
        (4, false, true),
        (4, true, true),
        (9, false, false),
        (9, true, false),
        (10, true, false),
    ] {
        let mut queue = queue(Some(mbps(100)));
        for next in 0..15 {
            queue.push(FlowId(1), None, packet(next, 1500), at(0)).unwrap();
        }
        for round in 0..100 {
            let start = round * 10;
            if is_ahead {
                queue.on_deliberate_wait(Tier::Bulk, at(start), at(start + wait));
            }
            for step in 0..10 {
                queue.push(FlowId(1), None, packet(15 + start + step, 1500), at(start + step)).unwrap();
            }
            if !is_ahead {
                queue.on_deliberate_wait(Tier::Bulk, at(start), at(start + wait));
            }
            while queue.bytes() > 15 * 1500 {
                queue.pop(Tier::Bulk, at(start + 10)).unwrap();
            }
        }
        let dropped = queue.take_discards().of(Discard::QueueDelay);
        assert_eq!(dropped > 0, has_drops, "{wait} of 10 ms, ahead: {is_ahead}: {dropped} dropped");
    }
}

/// A packet that leaves earlier than was said ends the wait: what stands after it is a queue again.
#[test]
fn a_wait_cut_short_counts_until_then() {
    let mut queue = queue(Some(mbps(100)));
    queue.on_deliberate_wait(Tier::Bulk, at(0), at(10_000));
    for next in 0..60 {
        queue.push(FlowId(1), None, packet(next, 1500), at(0)).unwrap();
    }
    for step in 0..30 {
        queue.pop(Tier::Bulk, at(10 + step * 10)).unwrap();
    }
    assert!(queue.take_discards().of(Discard::QueueDelay) > 0);
}

/// Nothing is signalled twice before the first signal can show.
#[test]
fn the_interval_is_no_shorter_than_a_signal_takes_to_show() {
    let mut queue = queue(Some(mbps(100)));
    queue.set_delays(Delays { spread: ms(30), round: ms(80) }, Delays::default());
    let expected = ms(5) + ms(30) + ms(160);
    assert_eq!(
        (queue.delay.params(Tier::Bulk).target, queue.delay.params(Tier::Bulk).interval),
        (ms(35), expected)
    );
    queue.set_delays(Delays { spread: Duration::ZERO, round: ms(20) }, Delays::default());
    assert_eq!(
        (queue.delay.params(Tier::Bulk).target, queue.delay.params(Tier::Bulk).interval),
        (ms(5), ms(100))
    );
    queue.set_delays(Delays { spread: Duration::ZERO, round: Duration::MAX }, Delays::default());
    assert_eq!(queue.delay.params(Tier::Bulk).interval, ms(605), "a path to the moon");
}
