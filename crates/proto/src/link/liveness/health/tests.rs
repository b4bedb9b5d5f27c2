use super::*;

const INTERVAL: Duration = Duration::from_millis(100);
const GAP: Duration = Duration::from_millis(25);

fn rtt() -> RttEstimator {
    let mut rtt = RttEstimator::new();
    for _ in 0..400 {
        rtt.on_sample(Duration::from_millis(20), Instant::ZERO);
    }
    rtt
}

fn ms(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

/// A heartbeat sent at `sent` was echoed; it took 20 ms.
fn prove(health: &mut Health, sent: u64) -> bool {
    health.on_proof(ms(sent), None, ms(sent + 20))
}

/// Time goes by in steps of a millisecond, as far as the link asks for it. Gives when its state
/// changed.
fn pass(health: &mut Health, from: u64, to: u64) -> Vec<(u64, LinkState)> {
    let (rtt, mut seen) = (rtt(), Vec::new());
    for now in from..to {
        let before = health.state();
        if health.is_in_doubt() && (now - from).is_multiple_of(50) {
            health.on_try(ms(now));
        }
        if health.poll_timeout(&rtt, GAP).is_some_and(|at| at <= ms(now)) {
            health.on_time(&rtt, GAP, ms(now));
        }
        if health.state() != before {
            seen.push((now, health.state()));
        }
    }
    seen
}

/// The same while data is sent, as long as the link is up.
fn busy(health: &mut Health, from: u64, to: u64) -> Vec<(u64, LinkState)> {
    let mut seen = Vec::new();
    for now in from..to {
        if health.state() == LinkState::Up {
            health.on_asked(ms(now));
        }
        seen.extend(pass(health, now, now + 1));
    }
    seen
}

#[test]
fn up_by_proof_suspect_and_down_without_it() {
    let mut health = Health::new(INTERVAL);
    assert_eq!(pass(&mut health, 0, 9_000), []);
    prove(&mut health, 10_000);
    assert_eq!(health.state(), LinkState::Up);
    // Two intervals, one RTT and one lost heartbeat are regular: 3.5 intervals and what is left of
    // the variance.
    assert_eq!(pass(&mut health, 10_020, 10_371), [(10_370, LinkState::Suspect)]);
    prove(&mut health, 10_360);
    assert_eq!(health.state(), LinkState::Up);
    assert_eq!(pass(&mut health, 10_380, 20_000), [(10_730, LinkState::Suspect), (11_480, LinkState::Down)]);
    assert_eq!(health.poll_timeout(&rtt(), GAP), None);
}

#[test]
fn data_without_an_answer_is_silence_after_a_hundred_milliseconds() {
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 1_000);
    // Then three PTO of 46 ms are less than what probes get.
    assert_eq!(busy(&mut health, 1_100, 3_000), [(1_200, LinkState::Suspect), (1_500, LinkState::Down)]);
}

#[test]
fn a_single_packet_without_an_answer_takes_three_more_questions() {
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 1_000);
    health.on_asked(ms(1_100));
    // In doubt after 60 ms, then asked every 50 ms: `pass` does.
    assert_eq!(pass(&mut health, 1_100, 3_000), [(1_310, LinkState::Suspect), (1_610, LinkState::Down)]);
}

#[test]
fn a_long_link_has_more_time_to_answer() {
    let mut rtt = RttEstimator::new();
    for _ in 0..400 {
        rtt.on_sample(Duration::from_millis(600), Instant::ZERO);
    }
    let mut health = Health::new(INTERVAL);
    health.on_proof(ms(1_640), None, ms(2_240));
    for sent in [1_650, 1_680, 1_710, 1_740] {
        health.on_asked(ms(sent));
    }
    health.on_time(&rtt, GAP, ms(2_500));
    // 1.5 round trips and the peer's delay; the variance is gone.
    let due = health.poll_timeout(&rtt, GAP).unwrap();
    assert_eq!(due, ms(1_650 + 900 + 25));
    health.on_time(&rtt, GAP, due);
    assert_eq!(health.state(), LinkState::Suspect);
    // Three PTO.
    assert_eq!(health.poll_timeout(&rtt, GAP), Some(due + Duration::from_millis(3 * 626)));
}

#[test]
fn data_that_a_later_proof_overtook_is_lost_and_no_silence() {
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 1_000);
    health.on_asked(ms(1_010));
    for sent in (1_050..3_000).step_by(100) {
        assert_eq!(pass(&mut health, sent, sent + 20), []);
        prove(&mut health, sent);
    }
    assert_eq!(health.state(), LinkState::Up);
}

/// Answers come 400 ms after what they answer, which is 20 times the round trip, but one comes
/// every 80 ms.
#[test]
fn a_queue_that_grows_is_no_silence() {
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 1_000);
    for heard in (1_020_u64..5_000).step_by(80) {
        let sent = (heard - 20).saturating_sub(400).max(1_001 + heard / 80);
        health.on_proof(ms(sent), Some(ms(sent + 1)), ms(heard));
        assert_eq!(busy(&mut health, heard, heard + 80), [], "{heard}");
    }
    // Until they stop.
    assert_eq!(busy(&mut health, 5_040, 5_200).first().map(|(_, state)| *state), Some(LinkState::Suspect));
}

#[test]
fn feedback_that_usually_comes_rarely_may_miss_once() {
    let slow = INTERVAL;
    let mut health = Health::new(INTERVAL);
    health.on_proof(ms(1_000), Some(ms(1_001)), ms(1_020));
    for sent in [1_021, 1_041, 1_061, 1_081] {
        health.on_asked(ms(sent));
    }
    assert_eq!(health.poll_timeout(&rtt(), slow), Some(ms(1_020 + 125)));
    health.on_time(&rtt(), slow, ms(1_145));
    assert!(health.is_in_doubt());
    assert_eq!(health.poll_timeout(&rtt(), slow), Some(ms(1_020 + 250)));
}

#[test]
fn a_stall_of_our_own_is_no_silence() {
    let mut health = Health::new(INTERVAL);
    health.on_proof(ms(1_000), Some(ms(1_001)), ms(1_020));
    for sent in [1_021, 1_041, 1_061, 1_081] {
        health.on_asked(ms(sent));
    }
    // Nothing ran for 180 ms; what waited in the sockets is read after the timers.
    health.on_time(&rtt(), GAP, ms(1_200));
    assert_eq!(health.state(), LinkState::Up);
    // Long enough to be answered.
    assert_eq!(health.poll_timeout(&rtt(), GAP), Some(ms(1_200 + 25 + 10)));
    health.on_proof(ms(1_180), Some(ms(1_190)), ms(1_201));
    assert_eq!(pass(&mut health, 1_202, 1_290), []);
}

#[test]
fn a_suspect_link_is_up_at_its_first_answer_and_was_no_failure() {
    let mut health = Health::new(INTERVAL);
    health.on_proof(ms(1_000), Some(ms(1_001)), ms(1_020));
    for round in 1..20 {
        let start = round * 1_000;
        assert!(!health.on_proof(ms(start), Some(ms(start + 1)), ms(start + 20)), "not back: never away");
        assert_eq!(health.state(), LinkState::Up);
        assert_eq!(busy(&mut health, start + 20, start + 130), [(start + 120, LinkState::Suspect)]);
        assert!(health.is_urgent());
    }
}

#[test]
fn a_send_that_fails_is_suspicious() {
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 1_000);
    health.on_send_failed(&rtt(), ms(1_030));
    assert_eq!(health.state(), LinkState::Suspect);
    health.on_send_failed(&rtt(), ms(1_100));
    assert_eq!(pass(&mut health, 1_100, 1_400), [(1_330, LinkState::Down)], "the first one counts");
}

#[test]
fn a_failed_link_is_suspect_from_one_proof_and_up_after_three() {
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 100);
    pass(&mut health, 120, 5_000);
    assert_eq!(health.state(), LinkState::Down);
    assert!(health.has_failed());
    for (sent, state, back) in [
        (90, LinkState::Down, false),
        (5_000, LinkState::Suspect, false),
        (5_100, LinkState::Suspect, false),
        (5_100, LinkState::Suspect, false),
        (5_200, LinkState::Up, true),
        (5_300, LinkState::Up, false),
    ] {
        assert_eq!((prove(&mut health, sent), health.state()), (back, state), "{sent}");
    }
}

#[test]
fn a_link_on_its_way_back_that_goes_silent_is_down_again() {
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 100);
    pass(&mut health, 120, 5_000);
    prove(&mut health, 5_000);
    assert_eq!(pass(&mut health, 5_020, 6_000), [(5_420, LinkState::Down)]);
    // The proofs are counted anew.
    prove(&mut health, 6_000);
    prove(&mut health, 6_100);
    assert_eq!(health.state(), LinkState::Suspect);
    prove(&mut health, 6_200);
    assert_eq!(health.state(), LinkState::Up);
}

/// Delivers in the spans of `up` ms that follow spans of as many ms without, from `from` on; gives
/// how long it was up.
fn flap(health: &mut Health, from: u64, up: u64, times: u64) -> u64 {
    let mut used = 0;
    for now in from..from + times * 2 * up {
        let delivers = (now - from) % (2 * up) >= up;
        if delivers && now.is_multiple_of(50) {
            health.on_proof(ms(now - 20), None, ms(now));
        }
        if health.state() == LinkState::Up {
            health.on_asked(ms(now));
        }
        pass(health, now, now + 1);
        used += u64::from(health.state() == LinkState::Up && delivers);
    }
    used
}

#[test]
fn a_link_that_flaps_is_used_less_and_less() {
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 900);
    let used = flap(&mut health, 1_000, 1_000, 15);
    assert!((700..1_000).contains(&used), "{used}: once, and then a second of proof is asked for");
    // With three seconds each it passes, until four are asked for.
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 900);
    let used = flap(&mut health, 1_000, 3_000, 10);
    assert!((5_000..7_000).contains(&used), "{used}: 2.9 s, 2 s, 1 s");
}

#[test]
fn a_link_that_flaps_need_not_wait_once_three_proofs_are_there() {
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 900);
    flap(&mut health, 1_000, 1_000, 4);
    pass(&mut health, 9_000, 12_000);
    for (sent, waits) in [(12_000, false), (12_050, false), (12_100, true)] {
        prove(&mut health, sent);
        assert_eq!((health.state(), health.only_waits()), (LinkState::Suspect, waits), "{sent}");
    }
    health.end_wait(ms(12_120));
    assert_eq!((health.state(), health.only_waits()), (LinkState::Up, false));
    // It is a link like others again.
    assert_eq!(pass(&mut health, 12_120, 12_300), []);
}

#[test]
fn what_flapped_is_forgiven_when_it_stays() {
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 900);
    flap(&mut health, 1_000, 1_000, 4);
    // A second of proof, then 20 s.
    for sent in (9_000..30_000).step_by(100) {
        prove(&mut health, sent);
        pass(&mut health, sent + 20, sent + 120);
    }
    assert_eq!(health.state(), LinkState::Up);
    pass(&mut health, 30_000, 32_000);
    assert_eq!(health.state(), LinkState::Down);
    for sent in [32_000, 32_050, 32_100] {
        prove(&mut health, sent);
    }
    assert_eq!(health.state(), LinkState::Up, "a first failure again");
}

#[test]
fn a_lost_carrier_is_down_at_once_and_proof_does_not_help() {
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 100);
    health.on_carrier(false, ms(130));
    assert_eq!(health.state(), LinkState::Down);
    for sent in 2..9 {
        prove(&mut health, sent * 100);
    }
    assert_eq!(health.state(), LinkState::Down);
    health.on_carrier(true, ms(950));
    prove(&mut health, 1_000);
    assert_eq!(health.state(), LinkState::Up, "what was proven meanwhile counts");
}

#[test]
fn what_the_peer_gave_up_is_down() {
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 100);
    health.on_peer_failure(ms(130));
    assert_eq!(health.state(), LinkState::Down);
    assert!(!health.has_failed(), "told back, it would be another failure there");
    // What this side finds itself is told.
    health.on_carrier(false, ms(140));
    assert!(health.has_failed());
    // One that was never up has not failed: its peer is no wiser.
    let mut fresh = Health::new(INTERVAL);
    fresh.on_peer_failure(ms(130));
    assert!(!fresh.has_failed());
}

#[test]
fn a_restarted_peer_is_up_at_its_first_proof() {
    let mut health = Health::new(INTERVAL);
    prove(&mut health, 100);
    health.on_peer_restart();
    assert_eq!(health.state(), LinkState::Down);
    prove(&mut health, 200);
    assert_eq!(health.state(), LinkState::Up);
}
