//! Each rule of the resequencer separately.

use super::*;

const FAST: LinkId = LinkId(0);
const SLOW: LinkId = LinkId(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

fn link(delay_ms: i64) -> LinkDelay {
    LinkDelay {
        usable: true,
        delay_us: delay_ms * 1_000,
        jitter_us: 0,
        reorders_by: Duration::ZERO,
        resend: Duration::ZERO,
    }
}

/// A resequencer with its links and a clock; a packet's content is its sequence number.
struct Bench {
    reorder: Resequencer,
    links: Vec<LinkDelay>,
    now: Instant,
    out: VecDeque<PacketBuf>,
}

impl Bench {
    /// Two links, 10 and 40 ms.
    fn new(limits: Limits) -> Self {
        Self {
            reorder: Resequencer::new(limits),
            links: vec![link(10), link(40)],
            now: Instant::ZERO + ms(1_000),
            out: VecDeque::new(),
        }
    }

    fn wait(&mut self, span: Duration) -> Vec<u64> {
        self.now = self.now + span;
        self.reorder.on_timeout(&self.links, self.now, &mut self.out);
        assert!(self.reorder.poll_timeout().is_none_or(|next| next > self.now));
        self.taken()
    }

    fn give(&mut self, seq: u64, link: LinkId) -> Result<Vec<u64>, Discard> {
        let packet = PacketBuf::from(bytes::Bytes::copy_from_slice(&seq.to_be_bytes()));
        self.reorder.on_packet(seq, link, packet, &self.links, self.now, &mut self.out)?;
        Ok(self.taken())
    }

    fn links_changed(&mut self) -> Vec<u64> {
        self.reorder.on_links_changed();
        self.reorder.review(&self.links, self.now, &mut self.out);
        self.taken()
    }

    fn reset(&mut self) -> Vec<u64> {
        self.reorder.reset(&mut self.out);
        self.taken()
    }

    fn taken(&mut self) -> Vec<u64> {
        self.out.drain(..).map(|packet| u64::from_be_bytes((*packet).try_into().unwrap())).collect()
    }

    fn stats(&self) -> ReorderStats {
        self.reorder.stats()
    }
}

fn bench() -> Bench {
    Bench::new(Limits::default())
}

/// A bench whose slot 0 has delivered counter 0.
fn started() -> Bench {
    let mut bench = bench();
    assert_eq!(bench.give(0, FAST), Ok(vec![0]));
    bench
}

#[test]
fn in_order_packets_pass_without_a_copy() {
    let mut bench = bench();
    for seq in 0..5 {
        let bytes = bytes::Bytes::from(vec![7; 100]);
        let address = bytes.as_ptr();
        let packet = PacketBuf::from(bytes);
        bench.reorder.on_packet(seq, FAST, packet, &bench.links, bench.now, &mut bench.out).unwrap();
        assert_eq!(bench.out.pop_front().unwrap().as_ptr(), address);
    }
    assert_eq!(bench.stats(), ReorderStats::default());
}

#[test]
fn a_held_packet_does_not_pin_the_buffer_it_came_in() {
    let mut bench = bench();
    let buffer = bytes::Bytes::from(vec![7; 65_536]);
    let packet = PacketBuf::from(buffer.slice(100..200));
    bench.reorder.on_packet(1, FAST, packet, &bench.links, bench.now, &mut bench.out).unwrap();
    assert_eq!((bench.stats().held, bench.stats().held_bytes), (1, 100));
    assert!(buffer.is_unique(), "the held packet shares the receive buffer");
    assert!(bench.out.is_empty());
}

#[test]
fn a_gap_that_is_filled_releases_the_run_behind_it() {
    let mut bench = started();
    assert_eq!(bench.give(2, FAST), Ok(vec![]));
    assert_eq!(bench.give(3, FAST), Ok(vec![]));
    assert_eq!(bench.give(5, FAST), Ok(vec![]));
    assert_eq!(bench.stats().held, 3);
    assert_eq!(bench.give(1, SLOW), Ok(vec![1, 2, 3]));
    assert_eq!(bench.give(4, SLOW), Ok(vec![4, 5]));
    let ReorderStats { held, held_bytes, held_max, known_losses, timeouts, .. } = bench.stats();
    assert_eq!((held, held_bytes, held_max, known_losses, timeouts), (0, 0, 3, 0, 0));
}

#[test]
fn a_slot_that_begins_low_begins_at_zero() {
    let mut bench = bench();
    assert_eq!(bench.give(1, FAST), Ok(vec![]));
    assert_eq!(bench.give(0, SLOW), Ok(vec![0, 1]));
}

#[test]
fn a_slot_that_begins_high_begins_there() {
    let mut bench = bench();
    assert_eq!(bench.give(64, FAST), Ok(vec![64]));
    assert_eq!(bench.give(63, SLOW), Ok(vec![63]), "sent before, but never handed out");
    assert_eq!(bench.stats().released_late, 1);
    assert_eq!(bench.give(63, FAST), Err(Discard::Duplicate));
}

#[test]
fn three_later_packets_on_every_link_prove_a_loss() {
    let mut bench = started();
    for seq in [2, 3, 4, 5] {
        assert_eq!(bench.give(seq, FAST), Ok(vec![]), "the slow link may still carry it");
    }
    assert_eq!(bench.give(6, SLOW), Ok(vec![]));
    assert_eq!(bench.give(7, SLOW), Ok(vec![]));
    assert_eq!(bench.give(8, SLOW), Ok(vec![2, 3, 4, 5, 6, 7, 8]));
    assert_eq!((bench.stats().known_losses, bench.stats().timeouts), (1, 0));
}

#[test]
fn one_later_packet_proves_a_loss_after_two_milliseconds() {
    let mut bench = started();
    bench.give(2, FAST).unwrap();
    bench.wait(ms(1));
    bench.give(3, SLOW).unwrap();
    assert_eq!(bench.wait(us(1_999)), vec![]);
    assert_eq!(bench.wait(us(1)), vec![2, 3]);
    assert_eq!((bench.stats().known_losses, bench.stats().timeouts), (1, 0));
}

#[test]
fn a_link_that_reorders_proves_a_loss_only_after_as_long() {
    let mut bench = started();
    bench.links = vec![LinkDelay { reorders_by: ms(25), ..link(10) }];
    for seq in [2, 3, 4, 5] {
        assert_eq!(bench.give(seq, FAST), Ok(vec![]));
    }
    assert_eq!(bench.wait(ms(24)), [0; 0]);
    assert_eq!(bench.give(1, FAST), Ok(vec![1, 2, 3, 4, 5]));
    for seq in [7, 8, 9, 10] {
        assert_eq!(bench.give(seq, FAST), Ok(vec![]));
    }
    assert_eq!(bench.wait(ms(25)), [7, 8, 9, 10]);
}

/// An application's socket has room for some ninety packets, and more come in the same moment.
#[test]
fn a_long_hold_leaves_in_portions_in_order_and_whole() {
    let mut bench = started();
    let large =
        |seq: u64| PacketBuf::from(bytes::Bytes::from([&seq.to_be_bytes()[..], &[0; 1_242]].concat()));
    let taken = |bench: &mut Bench| -> Vec<u64> {
        let number = |packet: PacketBuf| u64::from_be_bytes(packet[..8].try_into().unwrap());
        bench.out.drain(..).map(number).collect()
    };
    let give = |bench: &mut Bench, seq: u64| {
        bench.reorder.on_packet(seq, FAST, large(seq), &bench.links, bench.now, &mut bench.out)?;
        Ok(taken(bench))
    };
    // 80 Mbit/s for 50 ms.
    for seq in 2..402 {
        assert_eq!(give(&mut bench, seq), Ok(vec![]));
        bench.now = bench.now + us(125);
    }
    let mut left = give(&mut bench, 1).unwrap();
    assert_eq!(left.len(), 1 + 27, "the one that was missing, and 32 KiB");
    for step in 0..25 {
        // What comes meanwhile waits behind, and a copy of what waits is one.
        if step == 1 {
            assert_eq!(give(&mut bench, 402), Ok(vec![]));
            assert_eq!(give(&mut bench, *left.last().unwrap() + 1), Err(Discard::Duplicate));
        }
        bench.now = bench.now + ms(1);
        bench.reorder.on_timeout(&bench.links, bench.now, &mut bench.out);
        assert!(bench.reorder.poll_timeout().is_none_or(|next| next > bench.now));
        let portion = taken(&mut bench);
        assert!(portion.len() <= 20, "{step}: {}", portion.len());
        left.extend(portion);
    }
    assert_eq!(left, (1..403).collect::<Vec<_>>());
    assert_eq!((bench.reorder.stats().held, bench.reorder.stats().lost), (0, 0));
    assert_eq!(give(&mut bench, 403), Ok(vec![403]), "the next one passes at once");
}

#[test]
fn a_copy_tells_that_its_link_has_passed() {
    let mut bench = started();
    bench.give(2, FAST).unwrap();
    assert_eq!(bench.give(2, SLOW), Err(Discard::Duplicate));
    assert_eq!(bench.wait(ms(2)), vec![2]);
    assert_eq!(bench.stats().known_losses, 1);
}

#[test]
fn copies_of_one_packet_are_not_three_packets() {
    let mut bench = started();
    bench.links.truncate(1);
    bench.give(2, FAST).unwrap();
    for _ in 0..5 {
        assert_eq!(bench.give(2, FAST), Err(Discard::Duplicate));
    }
    assert_eq!(bench.stats().held, 1);
}

#[test]
fn a_silent_link_is_waited_for_as_long_as_it_could_take() {
    let mut bench = started();
    bench.links[1].jitter_us = 500;
    for seq in 2..20 {
        assert_eq!(bench.give(seq, FAST), Ok(vec![]));
    }
    // 30 ms of skew + 4 × 0.5 ms + 30 ms.
    assert_eq!(bench.reorder.poll_timeout(), Some(bench.now + ms(62)));
    assert_eq!(bench.wait(us(61_999)), vec![]);
    assert_eq!(bench.wait(us(1)), (2..20).collect::<Vec<_>>());
    assert_eq!((bench.stats().known_losses, bench.stats().timeouts), (0, 1));
}

#[test]
fn a_faster_link_is_not_waited_for_beyond_the_slack() {
    let mut bench = started();
    bench.give(2, SLOW).unwrap();
    assert_eq!(bench.wait(us(29_999)), vec![]);
    assert_eq!(bench.wait(us(1)), vec![2]);
}

#[test]
fn an_offset_common_to_all_delays_changes_nothing() {
    let mut bench = started();
    for link in &mut bench.links {
        link.delay_us -= 3_600_000_000;
    }
    bench.give(2, FAST).unwrap();
    assert_eq!(bench.reorder.poll_timeout(), Some(bench.now + ms(60)));
}

#[test]
fn no_wait_exceeds_the_cap_however_the_gap_moves() {
    let mut bench = started();
    bench.links[1].delay_us = 10_000_000;
    bench.give(10, FAST).unwrap();
    bench.wait(ms(100));
    // A new first packet; the cap still counts from the oldest arrival.
    bench.give(5, FAST).unwrap();
    assert_eq!(bench.wait(us(49_999)), vec![]);
    assert_eq!(bench.wait(us(1)), vec![5, 10]);
    assert_eq!(bench.stats().timeouts, 2);
}

#[test]
fn each_gap_is_judged_by_what_arrived_above_it() {
    let mut bench = started();
    bench.links.truncate(1);
    bench.give(2, FAST).unwrap();
    bench.give(3, FAST).unwrap();
    // Three packets are above the gap at 1, one is above the gap at 4.
    assert_eq!(bench.give(5, FAST), Ok(vec![2, 3]));
    assert_eq!(bench.wait(ms(2)), vec![5]);
    assert_eq!(bench.stats().known_losses, 2);
}

#[test]
fn a_link_that_dies_releases_its_gaps_at_once() {
    let mut bench = started();
    for seq in 2..6 {
        bench.give(seq, FAST).unwrap();
    }
    assert_eq!(bench.links_changed(), vec![]);
    bench.links[1].usable = false;
    assert_eq!(bench.links_changed(), vec![2, 3, 4, 5]);
    assert_eq!((bench.stats().known_losses, bench.stats().timeouts), (1, 0));
}

#[test]
fn with_all_links_dead_only_the_cap_counts() {
    let mut bench = started();
    for link in &mut bench.links {
        link.usable = false;
    }
    for seq in 2..9 {
        bench.give(seq, FAST).unwrap();
    }
    assert_eq!(bench.wait(us(149_999)), vec![]);
    assert_eq!(bench.wait(us(1)), (2..9).collect::<Vec<_>>());
    assert_eq!(bench.stats().timeouts, 1);
}

#[test]
fn a_link_without_a_described_delay_does_no_harm() {
    let mut bench = started();
    bench.give(2, LinkId(200)).unwrap();
    assert_eq!(bench.wait(ms(30)), vec![2]);
}

#[test]
fn a_gap_in_one_slot_never_delays_another() {
    let mut bench = started();
    bench.give(2, FAST).unwrap();
    for slot in 1..50_u64 {
        for counter in 0..3 {
            let seq = slot << 48 | counter;
            assert_eq!(bench.give(seq, FAST), Ok(vec![seq]));
        }
    }
    assert_eq!(bench.stats().held, 1);
}

#[test]
fn behind_the_position_memory_decides() {
    let mut bench = started();
    bench.links.truncate(1);
    for seq in 2..5 {
        bench.give(seq, FAST).unwrap();
    }
    assert_eq!(bench.give(3, FAST), Err(Discard::Duplicate));
    assert_eq!(bench.give(1, FAST), Ok(vec![1]), "given up, so handed out late");
    assert_eq!(bench.give(1, FAST), Err(Discard::Duplicate));
    assert_eq!(bench.stats().released_late, 1);
    for seq in 5..1_025 {
        assert_eq!(bench.give(seq, FAST), Ok(vec![seq]));
    }
    assert_eq!(bench.give(1, FAST), Err(Discard::Duplicate));
    assert_eq!(bench.give(0, FAST), Err(Discard::Stale));
}

#[test]
fn a_given_up_counter_is_not_mistaken_for_an_older_one() {
    let mut bench = started();
    bench.links.truncate(1);
    for seq in 1..1_100 {
        bench.give(seq, FAST).unwrap();
    }
    bench.give(1_101, FAST).unwrap();
    assert_eq!(bench.wait(ms(2)), vec![1_101]);
    // Its place in the memory was that of 76, which was delivered.
    assert_eq!(bench.give(1_100, FAST), Ok(vec![1_100]));
}

#[test]
fn a_long_gap_given_up_is_remembered_as_missing() {
    let mut bench = started();
    bench.give(5_000, FAST).unwrap();
    assert_eq!(bench.wait(ms(60)), vec![5_000]);
    assert_eq!(bench.give(4_999, SLOW), Ok(vec![4_999]));
    assert_eq!(bench.give(3_977, SLOW), Ok(vec![3_977]));
    assert_eq!(bench.give(3_976, SLOW), Err(Discard::Stale));
}

#[test]
fn counters_wrap() {
    const TOP: u64 = (1 << 48) - 1;
    let mut bench = bench();
    assert_eq!(bench.give(TOP - 1, FAST), Ok(vec![TOP - 1]));
    assert_eq!(bench.give(1, FAST), Ok(vec![]));
    assert_eq!(bench.give(0, FAST), Ok(vec![]));
    assert_eq!(bench.give(TOP, SLOW), Ok(vec![TOP, 0, 1]));
    assert_eq!(bench.give(TOP, SLOW), Err(Discard::Duplicate));
    assert_eq!(bench.give(2, SLOW), Ok(vec![2]));
}

#[test]
fn far_ahead_is_out_of_window() {
    let mut bench = started();
    assert_eq!(bench.give(1 + 16_384, FAST), Err(Discard::OutOfWindow));
    assert_eq!(bench.give(1 + 16_383, FAST), Ok(vec![]));
    assert_eq!(bench.give(1, FAST), Ok(vec![1]));
}

#[test]
fn what_the_window_has_no_room_for_pushes_out_the_oldest_gap() {
    let mut bench = Bench::new(Limits { slot_packets_max: 8, ..Limits::default() });
    bench.give(1, FAST).unwrap();
    bench.give(4, FAST).unwrap();
    assert_eq!(bench.give(8, FAST), Ok(vec![1]), "room for 8 from the gap at 2 on");
    assert_eq!(bench.give(16, FAST), Ok(vec![4, 8]));
    assert_eq!(bench.give(17, FAST), Ok(vec![16, 17]), "room for 8 from 17 on");
    assert_eq!(bench.stats().overflows, 4);
}

#[test]
fn four_misplaced_packets_ahead_are_a_new_sequence() {
    let mut bench = started();
    for seq in [900_001, 900_000, 900_003, 900_004] {
        assert_eq!(bench.give(seq, FAST), Err(Discard::OutOfWindow));
    }
    assert_eq!(bench.give(900_005, FAST), Ok(vec![900_005]));
    assert_eq!(bench.give(900_006, FAST), Ok(vec![900_006]));
    assert_eq!(bench.give(900_002, SLOW), Ok(vec![900_002]), "not handed out yet");
    assert_eq!(bench.stats().restarts, 1);
}

#[test]
fn a_jump_ahead_hands_out_what_was_held_and_nothing_twice() {
    let mut bench = started();
    bench.give(16_384, FAST).unwrap();
    for seq in [33_000, 33_001, 33_002] {
        assert_eq!(bench.give(seq, FAST), Err(Discard::OutOfWindow));
    }
    assert_eq!(bench.give(33_003, FAST), Ok(vec![16_384, 33_003]));
    assert_eq!(bench.give(33_003, FAST), Err(Discard::Duplicate));
    assert_eq!(bench.give(16_384, FAST), Err(Discard::Stale));
}

#[test]
fn misplaced_packets_far_from_each_other_or_the_same_one_change_nothing() {
    let mut bench = started();
    for seq in [100_000, 200_000, 300_000, 400_000, 500_000] {
        assert_eq!(bench.give(seq, FAST), Err(Discard::OutOfWindow));
    }
    for _ in 0..9 {
        assert_eq!(bench.give(600_000, FAST), Err(Discard::OutOfWindow));
    }
    for seq in [600_001, 600_002] {
        assert_eq!(bench.give(seq, FAST), Err(Discard::OutOfWindow));
    }
    assert_eq!(bench.give(1, FAST), Ok(vec![1]), "one in its place ends the row");
    assert_eq!(bench.give(600_003, FAST), Err(Discard::OutOfWindow));
}

#[test]
fn a_sequence_from_the_start_is_taken_up_once_the_old_one_is_silent() {
    let mut bench = bench();
    // Late packets of the peer's run before.
    for seq in 5_000..5_050 {
        bench.give(seq, FAST).unwrap();
    }
    bench.wait(ms(1_999));
    for seq in 0..10 {
        assert_eq!(bench.give(seq, FAST), Err(Discard::Stale));
    }
    bench.wait(ms(1));
    assert_eq!(bench.give(10, FAST), Ok(vec![10]));
    assert_eq!(bench.give(11, FAST), Ok(vec![11]));
    assert_eq!(bench.stats().restarts, 1);
}

#[test]
fn copies_on_a_slow_link_never_move_a_slot_back() {
    let mut bench = bench();
    for seq in (0..50).chain(60..2_000) {
        bench.give(seq, FAST).unwrap();
        bench.wait(ms(1));
    }
    bench.wait(ms(5_000));
    for seq in 0..40 {
        assert_eq!(bench.give(seq, FAST), Err(Discard::Stale));
    }
    for seq in 1_900..1_950 {
        assert_eq!(bench.give(seq, FAST), Err(Discard::Duplicate));
    }
    assert_eq!(bench.stats().restarts, 0);
}

#[test]
fn a_late_packet_shows_that_its_sequence_goes_on() {
    let mut bench = bench();
    for seq in (0..20).chain(30..60) {
        bench.give(seq, FAST).unwrap();
    }
    bench.wait(ms(3_000));
    for seq in 0..20 {
        assert_eq!(bench.give(seq, FAST), Err(Discard::Duplicate));
    }
    assert_eq!(bench.give(20, FAST), Ok(vec![20]), "it was given up, not delivered");
    for seq in 0..=20 {
        assert_eq!(bench.give(seq, FAST), Err(Discard::Duplicate));
    }
}

#[test]
fn jumps_without_end_stay_within_the_arithmetic() {
    let mut bench = started();
    let mut base = 0_u64;
    for round in 0..300_000_u64 {
        base = (base + (1 << 46) + round) & ((1 << 48) - 2_048);
        for step in 0..3 {
            assert_eq!(bench.give(base + step, FAST), Err(Discard::OutOfWindow));
        }
        assert_eq!(bench.give(base + 3, FAST), Ok(vec![base + 3]));
    }
    assert_eq!(bench.give(base + 4, FAST), Ok(vec![base + 4]));
}

#[test]
fn memory_is_bounded_and_the_largest_holder_pays() {
    let bytes_max = 100_000;
    let mut bench = Bench::new(Limits { bytes_max, ..Limits::default() });
    let small = 1 << 48;
    bench.give(small | 1, FAST).unwrap();
    let mut released = 0;
    for counter in 0..1_000_u64 {
        // Every other packet is missing.
        let packet = PacketBuf::from(bytes::Bytes::from(vec![0; 1_000]));
        let seq = 2 * counter + 1;
        bench
            .reorder
            .on_packet(seq, FAST, packet, &[link(10), link(140)], bench.now, &mut bench.out)
            .unwrap();
        released += bench.out.drain(..).len();
        assert!(bench.reorder.load.memory_bytes <= bytes_max);
    }
    let ReorderStats { held, held_bytes, overflows, timeouts, known_losses, .. } = bench.stats();
    assert_eq!(released as u64, overflows, "one packet behind each gap");
    assert_eq!(held + released, 1_001);
    assert_eq!(held_bytes, (held - 1) * 1_000 + 8);
    assert!(held > 70, "{held} packets of 1,000 bytes in 100,000");
    assert_eq!((timeouts, known_losses), (0, 0));
    assert_eq!(bench.give(small, FAST), Ok(vec![small, small | 1]), "the small holder was left alone");
}

#[test]
fn a_packet_far_ahead_takes_no_more_memory_than_a_near_one() {
    let memory_bytes = |counter: u64| {
        let mut bench = started();
        assert_eq!(bench.give(counter, FAST), Ok(vec![]));
        bench.reorder.load.memory_bytes
    };
    assert_eq!(memory_bytes(2), memory_bytes(16_384));
    assert!(memory_bytes(2) < 1_024, "{}", memory_bytes(2));
}

#[test]
fn packets_that_are_strewn_over_the_window_leave_in_order() {
    let mut bench = started();
    bench.links = vec![link(10), link(10_000)];
    // Every place of each 37th page, from both ends inwards.
    let mut counters: Vec<u64> = (1..16_000).filter(|counter| counter / 16 % 37 == 5).collect();
    let sorted = counters.clone();
    let half = counters.split_off(counters.len() / 2);
    for (near, far) in counters.iter().zip(half.iter().rev()) {
        assert_eq!((bench.give(*far, FAST), bench.give(*near, FAST)), (Ok(vec![]), Ok(vec![])));
        assert_eq!(bench.give(*near, FAST), Err(Discard::Duplicate));
    }
    assert_eq!(bench.reset(), sorted);
    assert_eq!(bench.reorder.load, Load::default());
}

#[test]
fn a_gap_of_any_length_is_forgotten_place_by_place() {
    for gap in [1, 2, 62, 63, 64, 65, 127, 500, 1_023, 1_024, 1_025] {
        for start in [70, 127, 128, 1_000] {
            let mut bench = bench();
            bench.links.truncate(1);
            for seq in 0..start {
                bench.give(seq, FAST).unwrap();
            }
            bench.give(start + gap, FAST).unwrap();
            assert_eq!(bench.wait(ms(2)), vec![start + gap]);
            let first = (start + gap + 1).saturating_sub(1_024);
            for seq in first..start + gap {
                let late = if seq < start { Err(Discard::Duplicate) } else { Ok(vec![seq]) };
                assert_eq!(bench.give(seq, FAST), late, "{seq} after {gap} missing from {start} on");
            }
        }
    }
}

#[test]
fn the_slot_longest_without_progress_makes_room() {
    let mut bench = Bench::new(Limits { slots_max: 4, ..Limits::default() });
    let seq = |slot: u64, counter: u64| slot << 48 | counter;
    for slot in 0..4 {
        assert_eq!(bench.give(seq(slot, 0), FAST), Ok(vec![seq(slot, 0)]));
        bench.wait(us(10));
    }
    bench.give(seq(0, 1), FAST).unwrap();
    bench.give(seq(1, 2), FAST).unwrap();
    bench.wait(us(10));
    bench.give(seq(4, 0), FAST).unwrap();
    assert_eq!(bench.reorder.live.keys().copied().collect::<Vec<_>>(), [0, 1, 3, 4], "2 was idle longest");
    assert_eq!(bench.stats().evictions, 1);
    bench.give(seq(5, 100), FAST).unwrap();
    bench.give(seq(6, 0), FAST).unwrap();
    assert_eq!(bench.reorder.live.keys().copied().collect::<Vec<_>>(), [1, 4, 5, 6], "1 holds");
    assert_eq!(bench.give(seq(5, 99), FAST), Err(Discard::Stale), "may have been handed out before");
}

#[test]
fn when_all_slots_hold_the_first_due_makes_room() {
    let mut bench = Bench::new(Limits { slots_max: 2, ..Limits::default() });
    bench.give(1, FAST).unwrap();
    bench.wait(us(1));
    bench.give(1 << 48 | 1, FAST).unwrap();
    assert_eq!(bench.give(2 << 48, FAST), Ok(vec![1, 2 << 48]));
    assert_eq!(bench.stats().held, 1);
    assert_eq!(bench.wait(ms(60)), vec![1 << 48 | 1]);
}

#[test]
fn an_idle_slot_keeps_only_its_position() {
    let mut bench = bench();
    for slot in 0..1_000_u64 {
        for counter in 0..200 {
            bench.give(slot << 48 | counter, FAST).unwrap();
        }
        bench.wait(us(100));
    }
    let mut wakes = 0;
    while let Some(next) = bench.reorder.poll_timeout() {
        bench.wait(next - bench.now);
        wakes += 1;
    }
    assert!(wakes <= 2, "{wakes} wake-ups to put 1,000 slots to sleep");
    assert!(bench.reorder.live.is_empty() && bench.reorder.idle.is_empty());
    assert_eq!(bench.reorder.dormant.len(), 1_000);
    assert_eq!(size_of::<Dormant>(), 12);
    // The slot wakes at its position, and knows nothing of the counters behind it.
    assert_eq!(bench.give(199, FAST), Err(Discard::Stale));
    assert_eq!(bench.give(201, FAST), Ok(vec![]));
    assert_eq!(bench.give(200, FAST), Ok(vec![200, 201]));
}

#[test]
fn a_dormant_slot_never_moves_back() {
    let mut bench = bench();
    for seq in 0..50 {
        bench.give(seq, FAST).unwrap();
    }
    bench.wait(ms(20_000));
    for seq in 0..50 {
        assert_eq!(bench.give(seq, FAST), Err(Discard::Stale), "it may have been delivered");
    }
    assert_eq!(bench.give(50, FAST), Ok(vec![50]));
}

#[test]
fn a_slot_in_use_does_not_fall_asleep() {
    let mut bench = bench();
    for seq in 0..100 {
        assert_eq!(bench.give(seq, FAST), Ok(vec![seq]));
        bench.wait(ms(500));
    }
    assert_eq!(bench.give(50, FAST), Err(Discard::Duplicate), "it still has its memory");
}

#[test]
fn a_reset_hands_out_everything_in_order_and_forgets() {
    let mut bench = started();
    bench.give(5, FAST).unwrap();
    bench.give(3, FAST).unwrap();
    bench.give(1 << 48 | 7, FAST).unwrap();
    assert_eq!(bench.reset(), vec![3, 5, 1 << 48 | 7]);
    assert_eq!((bench.stats().held, bench.stats().held_bytes), (0, 0));
    assert_eq!(bench.reorder.poll_timeout(), None);
    assert_eq!(bench.give(0, FAST), Ok(vec![0]), "a new sequence");
}
