use super::*;
use crate::packet::DataFrame;
use crate::wire::feedback::{Range, Runs};

const KEY: u32 = 9;
const RTT: Duration = Duration::from_millis(40);

fn ms(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(1_000 + ms)
}

/// Datagrams `0..count`, one a millisecond, each with a packet of 1,000 bytes whose sequence number
/// is its counter.
fn sent(count: u64) -> SentLog {
    let mut log = SentLog::default();
    for counter in 0..count {
        let frame = Some(KeptPacket::new(DataFrame::zeros(counter, 1_000), 0, ms(counter)));
        let outgoing = Outgoing { sealed: Some((KEY, counter)), asks: true, frame, flow: None };
        log.on_sent((KEY, counter), outgoing, 1_100, Duration::ZERO, ms(counter));
    }
    log
}

fn feedback(largest: u64, runs: Runs) -> Feedback {
    Feedback {
        marked: 0,
        key: KEY,
        largest,
        arrival_us: 0,
        hold_us: 0,
        least_back: 0,
        least_before: 0,
        received: 0,
        runs,
    }
}

/// Tells of `largest` and the runs below it: pairs of a gap and a run.
fn tell(log: &mut SentLog, largest: u64, first: u16, ranges: &[(u16, u16)], at: u64) -> Vec<u64> {
    let mut runs = Runs::new(first);
    for &(gap, run) in ranges {
        assert!(runs.push(Range { gap, run }));
    }
    log.on_feedback(&feedback(largest, runs), (RTT, Duration::ZERO), ms(at)).unwrap();
    log.take_lost().iter().map(|frame| frame.data().seq_num).collect()
}

#[test]
fn what_three_later_ones_or_an_eighth_of_a_round_trip_passed_is_given_back_once() {
    let mut log = sent(20);
    assert_eq!(tell(&mut log, 5, 2, &[(1, 3)], 45), [0; 0], "3 is missing, 5 came");
    assert_eq!(tell(&mut log, 6, 3, &[(1, 3)], 46), [3]);
    assert_eq!(tell(&mut log, 7, 4, &[(1, 3)], 47), [0; 0]);
    // An eighth of 40 ms is 5 ms, five datagrams: 17 and 18 are young and close.
    assert_eq!(tell(&mut log, 19, 1, &[(2, 1), (8, 4)], 59), [8, 9, 10, 11, 12, 13, 14, 15]);
    assert_eq!((log.lost(), log.delivered()), (9 * 1_100, 9 * 1_100));
    assert_eq!(log.counts(), ResendCounts::default());
}

/// Many small datagrams between two frames of feedback.
#[test]
fn the_datagram_of_the_least_delay_is_known_however_many_came_after_it() {
    let mut log = sent(3_000);
    let told = Feedback { least_back: 2_400, ..feedback(2_999, Runs::new(3_000)) };
    let told = log.on_feedback(&told, (RTT, Duration::ZERO), ms(3_040)).unwrap().unwrap();
    assert_eq!((told.largest.at, told.least.unwrap().at), (ms(2_999), ms(599)));
    let long_gone = Feedback { least_back: 2_400, ..feedback(2_999, Runs::new(1)) };
    assert!(log.on_feedback(&long_gone, (RTT, Duration::ZERO), ms(3_041)).unwrap().unwrap().least.is_none());
}

#[test]
fn memory_is_free_again_when_fates_are_known() {
    let mut log = sent(10);
    assert!(log.kept_bytes() >= 10_000);
    tell(&mut log, 8, 4, &[(2, 3)], 50);
    assert_eq!(log.kept_bytes(), log.take_underway().iter().map(KeptPacket::kept_bytes).sum::<usize>());
    assert_eq!(log.kept_bytes(), 0);
    log.clear();
    assert_eq!((log.kept_bytes(), log.take_lost().len()), (0, 0));
}

#[test]
fn a_link_that_reorders_is_given_more_time_in_packets() {
    let mut log = sent(60);
    assert_eq!(tell(&mut log, 8, 4, &[(1, 4)], 50), [4]);
    // 4 came after all, behind 8: that many are allowed from now on.
    assert_eq!(tell(&mut log, 9, 10, &[], 51), [0; 0]);
    assert_eq!((log.counts().spurious, log.lost()), (1, 0));
    // 14 is no later than that, also by time: 4 was 4 ms late, and an eighth of 40 ms is 5.
    assert_eq!(tell(&mut log, 18, 4, &[(1, 4)], 58), [0; 0]);
    assert_eq!(tell(&mut log, 19, 5, &[(1, 4)], 59), [14]);
    // Ten seconds later it is a link like others.
    tell(&mut log, 30, 16, &[(1, 4)], 6_000);
    tell(&mut log, 40, 26, &[(1, 4)], 11_500);
    assert_eq!(tell(&mut log, 54, 4, &[(1, 9)], 11_550), [50]);
}

/// Nothing of it was given up: that later ones came before it is enough.
#[test]
fn a_link_is_known_to_reorder_before_anything_is_given_up() {
    let mut log = sent(300);
    for number in (0..300).step_by(3) {
        // Every third datagram comes behind the next two.
        let before = u16::try_from(number).unwrap();
        let ranges: &[(u16, u16)] = if before > 0 { &[(1, before)] } else { &[] };
        tell(&mut log, number + 2, 2, ranges, 50 + number);
        tell(&mut log, number + 2, 3 + before, &[], 51 + number);
    }
    assert_eq!((log.counts().spurious, log.lost()), (0, 0));
    assert!(log.reorders_by() >= Duration::from_millis(1), "{:?}", log.reorders_by());
}

/// Its heartbeats say by how much delays vary.
#[test]
fn the_first_packets_over_a_link_that_jitters_are_not_given_up() {
    let guess = Duration::from_millis(60);
    let mut runs = Runs::new(20);
    assert!(runs.push(Range { gap: 30, run: 1 }));
    let mut log = sent(100);
    log.on_feedback(&feedback(50, runs), (RTT, guess), ms(90)).unwrap();
    assert_eq!(log.take_lost().len(), 0);
    let mut log = sent(100);
    log.on_feedback(&feedback(50, runs), (RTT, Duration::from_millis(1)), ms(90)).unwrap();
    assert_eq!(log.take_lost().len(), 30);
}

#[test]
fn what_is_under_way_on_a_dead_link_is_given_back_and_spurious_if_it_arrives() {
    let mut log = sent(6);
    tell(&mut log, 2, 3, &[], 42);
    let underway = log.take_underway();
    assert_eq!(underway.iter().map(|frame| frame.data().seq_num).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!((log.take_underway().len(), log.counts()), (0, ResendCounts::default()));
    tell(&mut log, 4, 5, &[], 300);
    assert_eq!(log.counts(), ResendCounts { recovered: 0, spurious: 2 });
}

#[test]
fn a_resend_that_arrives_has_recovered_its_packet() {
    let mut recovery = crate::recovery::Recovery::default();
    let mut log = sent(10);
    recovery.on_lost([KeptPacket::new(DataFrame::zeros(1, 9), 0, ms(0))]);
    let again = Outgoing { sealed: Some((KEY, 10)), asks: true, frame: recovery.pop(9), flow: None };
    log.on_sent((KEY, 10), again, 100, Duration::ZERO, ms(50));
    tell(&mut log, 10, 1, &[], 60);
    assert_eq!(log.counts().recovered, 1);
}

/// A peer that names all that was sent in every frame, but for one that it never names: what is
/// known is not looked at one by one.
#[test]
fn frames_that_name_what_is_known_cost_few_words() {
    let mut log = sent(20_000);
    tell(&mut log, 19_990, 19_000, &[(900, 91)], 20_000);
    let before = log.touched();
    for _ in 0..100 {
        tell(&mut log, 19_995, 5, &[(3, 18_000)], 20_000);
    }
    let touched = log.touched() - before;
    assert!(touched < 100 * (20_000 / 64) / 8, "{touched}");
}
