use super::*;
use crate::crypto::keys::PrivateKey;
use crate::packet::SocketId;

fn dialer() -> Dialer {
    let sealing = ClientSealing {
        identity: PrivateKey::from_bytes([1; 32]),
        server: PrivateKey::from_bytes([2; 32]).public(),
        preshared: None,
        aes_fast: true,
        run: 1,
        entropy: [3; 32],
        token: None,
        next: None,
    };
    Dialer::new(sealing, 1, Instant::ZERO)
}

/// When the attempts until `end` began, none of which is answered.
fn attempts(dialer: &mut Dialer, end: Instant) -> Vec<Instant> {
    let remote = SocketAddr::from(([192, 0, 2, 1], 1));
    let target = (LinkId(0), Path { socket: SocketId(0), remote, local: None });
    let mut begun = Vec::new();
    while let Some(due) = dialer.poll_timeout().filter(|due| *due <= end) {
        dialer.on_time(std::iter::once(target), None, due);
        while dialer.poll_transmit(&mut Vec::new()).is_some() {}
        begun.push(due);
    }
    begun
}

fn longest_pause(attempts: &[Instant]) -> Duration {
    attempts.windows(2).map(|two| two[1].saturating_since(two[0])).max().unwrap_or_default()
}

#[test]
fn a_server_that_is_away_for_a_minute_is_asked_every_two_seconds_and_later_more_rarely() {
    let mut dialer = dialer();
    let minute = Instant::ZERO + Duration::from_secs(60);
    let early = attempts(&mut dialer, minute);
    assert!(longest_pause(&early) < Duration::from_millis(2_334), "{early:?}");
    let later = attempts(&mut dialer, minute + Duration::from_secs(600));
    assert!((105..125).contains(&later.len()), "{}", later.len());
}

#[test]
fn a_link_that_is_found_again_is_asked_over_at_once_and_flapping_makes_no_flood() {
    let mut dialer = dialer();
    let hour = Instant::ZERO + Duration::from_secs(3_600);
    attempts(&mut dialer, hour);
    let found = hour + Duration::from_millis(100);
    dialer.on_link_found(false, found);
    let again = attempts(&mut dialer, found + Duration::from_secs(3));
    // The last attempt of the hour may have been within half a second.
    assert!(again.len() >= 3, "{again:?}");
    let mut count = 0;
    for flap in 1..=100 {
        let now = found + Duration::from_secs(3) + Duration::from_millis(10 * flap);
        dialer.on_link_found(false, now);
        count += attempts(&mut dialer, now).len();
    }
    assert!((1..=3).contains(&count), "{count} in a second");
}

#[test]
fn a_replaced_socket_is_asked_over_soon_and_a_server_that_closed_for_good_is_not() {
    let mut dialer = dialer();
    let hour = Instant::ZERO + Duration::from_secs(3_600);
    attempts(&mut dialer, hour);
    // The pause is five seconds by now, and stays so.
    let replaced = hour + Duration::from_secs(1);
    dialer.on_link_moved(replaced);
    let again = attempts(&mut dialer, replaced + Duration::from_secs(20));
    assert!(again[0] <= replaced + FIRST_PAUSE, "{again:?}");
    assert!((4..=5).contains(&again.len()), "{again:?}");
    let end = replaced + Duration::from_secs(21);
    dialer.on_closed(CloseReason::Revoked, end);
    dialer.on_link_moved(end + Duration::from_secs(3));
    assert_eq!(dialer.poll_timeout(), Some(end + REFUSED_PAUSE));
}
