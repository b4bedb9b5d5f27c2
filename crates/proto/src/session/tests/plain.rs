//! Plain links between two sessions.

use super::pair::*;
use super::*;

#[test]
fn links_are_proven_within_two_round_trips_and_measured() {
    let mut pair = Pair::new(&[(10, 10), (70, 40)]);
    assert_eq!(pair.send(packet(1, 0, 100)), Err(Discard::NotConnected));
    let round_trips = |pair: &Pair| [0, 1, 2].map(|socket| pair.sides[0].round_trip(SocketId(socket)));
    assert_eq!(round_trips(&pair), [None; 3]);
    pair.run(35, |_| ());
    assert_eq!(pair.states(), [LinkState::Up, LinkState::Down]);
    pair.run(1_000, |_| ());
    for side in &pair.sides {
        let stats = side.stats(pair.now);
        assert_eq!(stats.links.iter().map(|link| link.state).collect::<Vec<_>>(), [LinkState::Up; 2]);
        assert_eq!(stats.links[0].rtt, Some(Duration::from_millis(20)));
        assert_eq!(stats.links[1].rtt_min, Some(Duration::from_millis(80)));
        assert_eq!(stats.links[1].loss_permille, 0);
        assert_eq!(stats.links[0].score, 1_200);
    }
    let ms = |ms| Some(Duration::from_millis(ms));
    assert_eq!(round_trips(&pair), [ms(20), ms(80), None]);
    // Ten heartbeats a second and link, each way, and no answer to an answer.
    assert!(pair.sides[0].stats(pair.now).links[0].tx_packets <= 13);
}

#[test]
fn light_traffic_stays_on_the_best_link_and_a_load_fills_all_in_order() {
    let links = [(10, 10), (70, 40), (70, 40), (70, 40), (70, 40)];
    let mut pair = Pair::new(&links);
    pair.run(500, |_| ());
    let mut sent = 0u32;
    pair.run(1_000, |pair| {
        if sent.is_multiple_of(4) {
            pair.send(packet(1, sent / 4, 400)).unwrap();
        }
        sent += 1;
    });
    pair.run(100, |_| ());
    assert_eq!(pair.data_bytes[1..], [0; 4], "light traffic left link 0");
    assert_eq!(pair.delivered[1].len(), usize::try_from(sent.div_ceil(4)).unwrap());

    // 25 packets a millisecond are 290 Mbit/s.
    pair.delivered[1].clear();
    let mut sent = 0;
    pair.run(2_000, |pair| {
        for _ in 0..24 {
            pair.send(packet(2, sent, 1_400)).unwrap();
            sent += 1;
        }
    });
    pair.run(300, |_| ());
    let numbers = pair.numbers();
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>(), "lost or out of order");
    for (link, (mbit, _)) in links.iter().enumerate() {
        let share = pair.data_bytes[link] as f64 * 8.0 / 2e6 / *mbit as f64;
        assert!((0.8..1.05).contains(&share), "link {link}: {share}");
    }
    let stats = pair.sides[1].stats(pair.now);
    assert_eq!((stats.reorder_timeouts, stats.released_late), (0, 0));
}

#[test]
fn a_dead_link_is_left_and_comes_back() {
    let mut pair = Pair::new(&[(10, 10), (70, 40)]);
    pair.run(500, |_| ());
    pair.cut[0] = true;
    pair.run(500, |_| ());
    assert_eq!(pair.states(), [LinkState::Suspect, LinkState::Up]);
    pair.send(packet(1, 7, 100)).unwrap();
    pair.run(100, |_| ());
    assert_eq!(pair.delivered[1].len(), 1);
    pair.run(1_000, |_| ());
    assert_eq!(pair.states(), [LinkState::Down, LinkState::Up]);
    pair.cut[0] = false;
    pair.run(600, |_| ());
    assert_eq!(pair.states(), [LinkState::Up; 2]);
}

#[test]
fn a_restarted_peer_is_noticed_and_traffic_flows_again() {
    for restarted in 0..2 {
        let links = [(10, 10), (70, 40)];
        let mut pair = Pair::new(&links);
        pair.run(500, |_| ());
        for number in 0..200 {
            pair.send(packet(1, number, 500)).unwrap();
            pair.run(1, |_| ());
        }
        let role = if restarted == 0 { Role::Client } else { Role::Server };
        pair.sides[restarted] = Session::new(config(role, 99, &links), pair.now);
        pair.run(1_000, |_| ());
        assert_eq!(pair.states(), [LinkState::Up; 2], "side {restarted}");
        pair.delivered[1].clear();
        for number in 0..200 {
            pair.send(packet(1, number, 500)).unwrap();
            pair.run(1, |_| ());
        }
        pair.run(300, |_| ());
        assert_eq!(pair.numbers(), (0..200).collect::<Vec<_>>(), "side {restarted}");
    }
}

#[test]
fn a_late_heartbeat_of_a_dead_run_does_not_shut_out_the_living_one() {
    let links = [(10, 10)];
    let mut dead = Session::new(config(Role::Client, 98, &links), Instant::from_nanos(1_000_000));
    let mut late = Vec::new();
    dead.poll_transmit(&mut late, NonZeroUsize::MIN, Instant::from_nanos(1_000_000)).unwrap();
    // Both sides were restarted: the server has never heard of the run that is over.
    let mut pair = Pair::new(&links);
    pair.run(500, |_| ());
    let datagram = Datagram::new(path(0), BytesMut::from(&late[..]));
    pair.sides[1].handle_link_datagram(LinkId(0), datagram, pair.now).unwrap();
    pair.run(1_500, |_| ());
    assert_eq!(pair.states(), [LinkState::Up]);
    pair.send(packet(1, 7, 1_400)).unwrap();
    pair.run(100, |_| ());
    assert_eq!(pair.numbers(), [7]);
}

#[test]
fn idle_sessions_wake_for_heartbeats_only() {
    let mut pair = Pair::new(&[(10, 10)]);
    pair.run(1_000, |_| ());
    let before = pair.steps;
    pair.run(1_000, |_| ());
    // A tick a millisecond of our own, ten heartbeats of each side sent and received.
    assert!(pair.steps - before < 1_000 + 60, "{}", pair.steps - before);
}

/// Pages of 60 kB over connections of their own, as bursty as slow start can be: a window of 10
/// segments at once, then of 20, then the rest, a round trip apart. They stay on the best link,
/// although it needs 48 ms for one.
#[test]
fn pages_stay_on_the_best_link() {
    let mut pair = Pair::new(&[(10, 10), (70, 40), (70, 40), (70, 40), (70, 40)]);
    pair.run(500, |_| {});
    let mut sent = 0;
    for page in 0..30 {
        let mut at = 0;
        pair.run(500, |pair| {
            let segments = match at {
                0 => 10,
                25 => 20,
                50 => 11,
                _ => 0,
            };
            at += 1;
            for _ in 0..segments {
                pair.sides[0].handle_packet(packet(2_000 + page, sent, 1_461), pair.now).unwrap();
                sent += 1;
            }
        });
    }
    assert_eq!(pair.delivered[1].len(), 30 * 41);
    let all: usize = pair.data_bytes.iter().sum();
    assert!(pair.data_bytes[0] * 100 >= all * 95, "{:?}", pair.data_bytes);
}

/// A driver that is woken every 100 µs by something else: bulk goes in runs of what a link takes in
/// a millisecond all the same, and at the link's rate.
#[test]
fn bulk_waits_for_its_quantum_whatever_wakes_the_driver() {
    let mut pair = Pair::new(&[(70, 20), (70, 20)]);
    pair.run(500, |_| {});
    let side = &mut pair.sides[0];
    let mut now = pair.now;
    for number in 0..1_200 {
        side.handle_packet(packet(5_000, number, 1_400), now).unwrap();
    }
    let (mut runs, mut packets, mut buf) = (0, 0, Vec::new());
    let end = now + Duration::from_millis(80);
    while now < end {
        while let Some(transmit) = side.poll_transmit(&mut buf, SEGMENTS, now) {
            if buf[8] == 2 {
                runs += 1;
                packets += transmit.size.div_ceil(transmit.segment_size);
            }
            buf.clear();
        }
        now = now + Duration::from_micros(100);
        side.handle_timeout(now);
    }
    // 1,439 bytes each, over both links; what had been saved up goes first.
    let carried = 140_000_000 / 8 * 84 / 1_000 / 1_439;
    assert!(
        (carried * 97 / 100..=carried * 102 / 100).contains(&packets),
        "{packets} packets, {carried} carried"
    );
    assert!(packets >= runs * 5, "{packets} packets in {runs} runs");
}
