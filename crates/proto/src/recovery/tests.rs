use super::*;
use crate::limits::LOSSY_PERMILLE;
use crate::packet::DataFrame;
use crate::scheduler::tests::{NOW, link};
use crate::view::{LinkRole, LinkState};

fn frame(bytes: usize, sent: Instant, delay_us: i64) -> KeptPacket {
    KeptPacket::new(DataFrame::zeros(7, bytes), delay_us, sent)
}

fn lost(frame: KeptPacket) -> Recovery {
    let mut recovery = Recovery::default();
    recovery.on_lost([frame]);
    recovery
}

fn ago(ms: u64) -> Instant {
    NOW.saturating_sub(Duration::from_millis(ms))
}

#[test]
fn the_link_that_delivers_first_carries_it() {
    // 10 ms and 40 ms away.
    let mut links = [link(0, 10, 20), link(1, 70, 80)];
    let way = |links: &[LinkView]| lost(frame(1_400, ago(30), 10_000)).next(links, NOW);
    assert_eq!(way(&links), Some(Way::Now(LinkId(0))));
    let soon = NOW + Duration::from_millis(20);
    links[0].free_at = soon;
    assert_eq!(way(&links), Some(Way::At(soon)), "even so it is there before the other");
    links[0].free_at = NOW + Duration::from_millis(40);
    assert_eq!(way(&links), Some(Way::Now(LinkId(1))));
    links[1].mtu = 1_300;
    assert_eq!(way(&links), Some(Way::At(links[0].free_at)), "it does not fit the other");
    links[0].usable = false;
    assert_eq!(way(&links), None, "nor is it kept for links that are too small");
    links[1].usable = false;
    let mut kept = lost(frame(1_400, ago(30), 10_000));
    assert_eq!((kept.next(&links, NOW), kept.queued_bytes() > 0), (None, true), "links may come back");
}

#[test]
fn what_is_more_than_the_nearest_link_carries_in_time_goes_over_all() {
    let mut links = [link(0, 10, 20), link(1, 70, 80)];
    links[0].free_at = NOW + Duration::from_millis(1);
    let mut recovery = Recovery::default();
    // 1.1 ms each on the first link, which is 30 ms nearer.
    for (count, way) in [(20, Way::At(links[0].free_at)), (20, Way::Now(LinkId(1)))] {
        recovery.on_link_lost((0..count).map(|_| frame(1_400, ago(30), 10_000)));
        assert_eq!(recovery.next(&links, NOW), Some(way), "{count} more");
    }
    links[1].free_at = NOW + Duration::from_micros(500);
    assert_eq!(recovery.next(&links, NOW), Some(Way::At(links[1].free_at)));
    links[0].free_at = NOW;
    assert_eq!(recovery.next(&links, NOW), Some(Way::Now(LinkId(0))));
}

#[test]
fn secondary_links_are_for_when_no_primary_one_serves() {
    let mut links = [link(0, 10, 80), link(1, 70, 20)];
    links[1].role = LinkRole::Secondary;
    assert_eq!(lost(frame(1_400, NOW, 0)).next(&links, NOW), Some(Way::Now(LinkId(0))));
    links[0].state = LinkState::Suspect;
    assert_eq!(lost(frame(1_400, NOW, 0)).next(&links, NOW), Some(Way::Now(LinkId(1))));
}

#[test]
fn what_would_come_too_late_is_given_up() {
    let links = [link(0, 10, 20)];
    let sending = links[0].time_to_send(1_428);
    let age = |late: Duration| NOW.saturating_sub(RESENT_WITHIN - sending + late);
    let mut recovery = lost(frame(1_400, age(Duration::ZERO), 10_000));
    assert_eq!(recovery.next(&links, NOW), Some(Way::Now(LinkId(0))));
    let mut recovery = lost(frame(1_400, age(Duration::from_millis(1)), 10_000));
    assert_eq!((recovery.next(&links, NOW), recovery.stats().given_up), (None, 1));
    assert_eq!(recovery.queued_bytes(), 0);
    // It went over a link that would have taken 100 ms more.
    let mut recovery = lost(frame(1_400, age(Duration::from_millis(99)), 110_000));
    assert_eq!(recovery.next(&links, NOW), Some(Way::Now(LinkId(0))));
}

#[test]
fn two_tries_and_the_second_over_two_links() {
    let links = [link(0, 10, 20), link(1, 70, 80)];
    let mut recovery = lost(frame(1_400, NOW, 10_000));
    assert_eq!(recovery.pop(1_300).map(|frame| frame.tries()), None, "the batch has no room for it");
    let first = recovery.pop(1_400).unwrap();
    assert_eq!((first.tries(), recovery.queued_bytes()), (1, 0));
    let lossy = LinkView { loss_permille: LOSSY_PERMILLE, ..links[0] };
    assert_eq!((is_risky(&first, &links[0]), is_risky(&first, &lossy)), (false, true));
    recovery.on_link_lost([first]);
    let second = recovery.pop(1_400).unwrap();
    assert_eq!(second.tries(), TRIES_MAX);
    assert!(is_risky(&second, &links[0]));
    assert_eq!(second_link(&links, &second, LinkId(0), NOW), Some(LinkId(1)));
    assert_eq!(second_link(&links[..1], &second, LinkId(0), NOW), None);
    let mut busy = links;
    busy[1].free_at = NOW + SECOND_WITHIN;
    assert_eq!(second_link(&busy, &second, LinkId(0), NOW), Some(LinkId(1)), "it owes a little");
    busy[1].free_at = NOW + SECOND_WITHIN + Duration::from_millis(1);
    assert_eq!(second_link(&busy, &second, LinkId(0), NOW), None);
    recovery.on_lost([second]);
    assert_eq!(recovery.pop(1_400).map(|frame| frame.tries()), None);
    assert_eq!(
        recovery.stats(),
        RecoveryStats { resent: 2, reinjected: 1, given_up: 1, ..RecoveryStats::default() }
    );
}

#[test]
fn a_lossy_link_in_use_stops_flows_for_its_round_trip() {
    let mut links = [link(0, 10, 20), link(1, 70, 80)];
    assert_eq!(longest_stop(&links), Duration::ZERO);
    links[1].loss_permille = STOPPING_PERMILLE;
    assert_eq!(longest_stop(&links), Duration::ZERO, "its losses are not sent again");
    links[1].recovers = true;
    assert_eq!(longest_stop(&links), Duration::from_millis(80));
    links[1].state = LinkState::Suspect;
    assert_eq!(longest_stop(&links), Duration::ZERO, "nothing goes there");
}
