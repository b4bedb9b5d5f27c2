//! Sealed links between a client and its server's endpoint.

use super::world::*;
use super::*;

#[test]
fn a_client_gets_in_and_both_directions_deliver() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 3);
    world.idle(200);
    assert_eq!(world.states(), [LinkState::Up; 3]);
    assert_eq!(world.client.lease().unwrap().addresses, [Prefix { address: CLIENT, length: 24 }]);
    assert_eq!(world.client.cipher(), Some(crate::crypto::aead::Cipher::Aes256Gcm));
    let end = world.traffic(500, 0);
    world.idle(200);
    assert!(complete(&world.up, end) && complete(&world.down, end));
    assert_eq!(world.server.discards().iter().map(|(_, count)| count).sum::<u64>(), 0);
}

#[test]
fn the_cipher_is_what_both_do_well() {
    let mut world = World::new(&Who { aes: false, ..HOME }, vec![enrolled(1, None)], 1);
    world.idle(200);
    assert_eq!(world.client.cipher(), Some(crate::crypto::aead::Cipher::ChaCha20Poly1305));
    assert_eq!(world.states(), [LinkState::Up]);
}

#[test]
fn strangers_get_no_answer() {
    for (who, clients) in [
        (Who { key: 2, ..HOME }, vec![enrolled(1, None)]),
        (Who { psk: Some(1), ..HOME }, vec![enrolled(1, None)]),
        (HOME, vec![enrolled(1, Some(3))]),
    ] {
        let mut world = World::new(&who, clients, 2);
        world.idle(20_000);
        assert_eq!(world.states(), [LinkState::Down; 2]);
        assert_eq!(world.client.cipher(), None);
    }
    let mut world = World::new(&Who { key: 2, ..HOME }, vec![enrolled(1, None)], 2);
    world.idle(20_000);
    assert_eq!(world.to.len(), 0);
    assert!(world.server.discards().of(Discard::UnknownClient) > 3);
    let mut world = World::new(&Who { psk: Some(4), ..HOME }, vec![enrolled(1, Some(4))], 2);
    world.idle(200);
    assert_eq!(world.states(), [LinkState::Up; 2]);
}

#[test]
fn rekeys_lose_nothing() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.idle(200);
    let end = world.traffic(400_000, 0);
    world.idle(200);
    // After two minutes each, and once for the secret of the first exchange.
    assert_eq!(world.rekeys(), (4, 4));
    assert_eq!((world.up.len(), world.down.len()), (end as usize, end as usize));
    assert!(complete(&world.up, end) && complete(&world.down, end));
}

#[test]
fn the_handshake_succeeds_with_a_third_of_all_datagrams_lost() {
    for seed in 0..20 {
        let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
        world.lose_every = 3;
        world.order = seed;
        world.idle(5_000);
        assert!(world.states().contains(&LinkState::Up), "{seed}");
    }
}

#[test]
fn a_restarted_server_is_found_within_two_seconds() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.idle(1_000);
    world.server = endpoint(vec![enrolled(1, None)], 8, world.now);
    world.idle(1_500);
    world.up.clear();
    world.traffic(500, 0);
    assert!(world.up.len() > 400, "{}", world.up.len());
    assert!(world.events.contains(&Event::PeerRestarted));
}

#[test]
fn a_goodbye_is_heard() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.idle(1_000);
    StateMachine::close(&mut world.server, world.now);
    world.drain();
    world.idle(25);
    assert!(world.events.contains(&Event::Closed(CloseReason::Shutdown)));
    assert_eq!(world.states(), [LinkState::Down; 2]);
    world.server = endpoint(vec![enrolled(1, None)], 8, world.now);
    world.idle(400);
    assert_eq!(world.states(), [LinkState::Up; 2]);
}

#[test]
fn a_restarted_client_gets_in_again_and_an_older_run_does_not() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    let end = world.traffic(1_000, 0);
    world.client = session(&Who { run: 2, ..HOME }, 2, world.now);
    world.idle(300);
    assert_eq!(world.states(), [LinkState::Up; 2]);
    world.up.clear();
    world.traffic(300, end);
    assert!(world.up.len() > 250);
    world.client = session(&HOME, 2, world.now);
    world.idle(3_000);
    assert_eq!(world.states(), [LinkState::Down; 2]);
    assert!(world.server.discards().of(Discard::HandshakeReplayed) > 0);
}

#[test]
fn a_link_is_followed_to_its_new_address() {
    for all in [false, true] {
        let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
        world.idle(200);
        let mut end = world.traffic(1_000, 0);
        world.addresses[0] = "192.0.2.77:555".parse().unwrap();
        if all {
            world.addresses[1] = "192.0.2.78:556".parse().unwrap();
        }
        end = world.traffic(1_000, end);
        world.idle(500);
        assert!(complete(&world.up, end), "all {all}");
        assert_eq!(world.states(), [LinkState::Up; 2]);
        // What was on its way to the old address is lost; that is one round trip's packets.
        assert!(world.down.len() > 1_600, "all {all}: {} of {end}", world.down.len());
        assert!(world.to["192.0.2.77:555".parse::<SocketAddr>().as_ref().unwrap()].0 > 10);
    }
}

#[test]
fn replayed_or_forged_datagrams_move_nothing_and_amplify_nothing() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.traffic(500, 0);
    world.seen.clear();
    world.traffic(200, 500);
    let seen = std::mem::take(&mut world.seen);
    world.idle(50);
    let thief: SocketAddr = "198.51.100.66:1".parse().unwrap();
    let before = world.server.discards().of(Discard::UnknownSession);
    for (at, (link, bytes)) in seen.into_iter().enumerate().rev() {
        if bytes[0] != 0x84 {
            continue;
        }
        let old = world.give(true, link, thief, &bytes);
        assert_eq!(old, Err(Discard::Replayed));
        let mut forged = bytes.clone();
        let place = forged.len() - 1 - at % (forged.len() - 16);
        forged[15] ^= 0x40;
        forged[place] ^= 1;
        assert!(world.give(true, link, thief, &forged).is_err());
        let mut elsewhere = bytes;
        elsewhere[4] ^= 0x80;
        assert_eq!(world.give(true, link, thief, &elsewhere), Err(Discard::UnknownSession));
    }
    assert!(world.server.discards().of(Discard::UnknownSession) > before);
    world.idle(300);
    assert_eq!(world.to.get(&thief), None);
    assert_eq!(world.states(), [LinkState::Up; 2]);
}

/// An attacker on one link repeats the first message many times: the other links' copies are still
/// answered. Later the attacker gets no answer at all.
#[test]
fn an_attackers_repeated_first_message_leaves_the_links_up() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.idle(1);
    let (link, bytes) = world.seen.first().cloned().unwrap();
    assert_eq!(bytes[0], 0x81);
    let thief = |port: u16| SocketAddr::from(([198, 51, 100, 66], port));
    for port in 1..200 {
        assert_eq!(world.give(true, link, thief(port), &bytes), Ok(()));
        world.drain();
    }
    world.idle(200);
    assert_eq!(world.states(), [LinkState::Up; 2]);
    let (answers, sent) = world.to[&thief(199)];
    assert_eq!((answers, sent < bytes.len() as u64 + 28), (1, true));
    world.idle(5_000);
    assert_eq!(world.give(true, link, thief(300), &bytes), Err(Discard::HandshakeReplayed));
    world.drain();
    assert_eq!(world.to.get(&thief(300)), None);
}

/// An attacker on the path forwards a fresh datagram from another address, and the copy arrives
/// before the client's own.
#[test]
fn a_hijacked_datagram_buys_three_times_its_size_and_moves_the_link_for_a_moment() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.traffic(500, 0);
    let thief: SocketAddr = "198.51.100.66:1".parse().unwrap();
    world.seen.clear();
    let end = world.traffic(1, 500);
    let (link, bytes) = world.seen.last().cloned().unwrap();
    assert_eq!(world.give(true, link, thief, &bytes), Ok(()));
    world.drain();
    world.traffic(500, end);
    let (_, sent) = world.to[&thief];
    assert!(sent <= 3 * (bytes.len() as u64 + 28), "{sent}");
    assert_eq!(world.states(), [LinkState::Up]);
    let before = world.down.len();
    world.traffic(200, end + 500);
    assert!(world.down.len() > before + 150);
}

#[test]
fn an_invitation_enrols_once() {
    let mut world = World::new(&Who { token: Some(5), ..HOME }, Vec::new(), 2);
    let mut asked = Vec::new();
    world.run(300, |world| {
        while let Some(enrolment) = world.server.poll_enrolment() {
            let [server, client] = [99, 1].map(|key| PrivateKey::from_bytes([key; 32]).public());
            assert_eq!(enrolment.claim, invitation(5).claim(&server, &client));
            asked.push(enrolment.public_key);
            let answer = EnrolmentAnswer::Welcome(enrolled_by(5, 1));
            assert!(world.server.answer_enrolment(enrolment.id, answer, world.now).is_some());
        }
    });
    assert_eq!(asked, [PrivateKey::from_bytes([1; 32]).public()]);
    assert_eq!(world.states(), [LinkState::Up; 2]);

    // The pre-shared key that the invitation gave is that of later handshakes, with no claim.
    world.idle(3 * 60 * 1_000);
    assert_eq!((world.states(), world.server.poll_enrolment().is_none()), (vec![LinkState::Up; 2], true));
    assert!(world.client.rekeys() >= 1);

    // The answer names another client: the proven key does not get that client's session.
    let mut world = World::new(&Who { token: Some(5), ..HOME }, Vec::new(), 1);
    world.idle(30);
    let enrolment = world.server.poll_enrolment().unwrap();
    let answer = EnrolmentAnswer::Welcome(enrolled(2, None));
    assert_eq!(world.server.answer_enrolment(enrolment.id, answer, world.now), None);
    assert!(world.server.stats(world.now).is_empty());

    // Another key with the same token, and one with no good token.
    for (answer, expected) in [(Some(Refusal::Used), vec![Event::Refused(Refusal::Used)]), (None, Vec::new())]
    {
        let mut world = World::new(&Who { key: 3, token: Some(5), ..HOME }, Vec::new(), 2);
        world.run(3_000, |world| {
            while let Some(enrolment) = world.server.poll_enrolment() {
                let psk = enrolled_by(5, 3).preshared;
                let answer = answer.map_or(EnrolmentAnswer::Ignore, |why| EnrolmentAnswer::Refuse(why, psk));
                assert_eq!(world.server.answer_enrolment(enrolment.id, answer, world.now), None);
            }
        });
        assert_eq!(world.events, expected);
        assert_eq!(world.to.is_empty(), answer.is_none());
    }
}

#[test]
fn without_an_invitation_no_token_is_looked_up() {
    let mut world = World::new(&Who { token: Some(5), ..HOME }, Vec::new(), 1);
    world.server.set_enrolling(false);
    world.idle(300);
    assert!(world.server.poll_enrolment().is_none());
    assert!(world.server.discards().of(Discard::UnknownClient) > 0);
    assert!(world.to.is_empty(), "a stranger gets no answer");
    world.server.set_enrolling(true);
    world.idle(3_000);
    assert!(world.server.poll_enrolment().is_some());
}

/// A server whose answer has no pre-shared key, or another one, gets no session: nothing falls
/// back.
#[test]
fn a_client_that_was_invited_accepts_no_answer_without_the_tokens_key() {
    for psk in [None, Some(7)] {
        let mut world = World::new(&Who { token: Some(5), ..HOME }, Vec::new(), 1);
        world.run(3_000, |world| {
            while let Some(enrolment) = world.server.poll_enrolment() {
                let answer = EnrolmentAnswer::Welcome(enrolled(1, psk));
                let _ = world.server.answer_enrolment(enrolment.id, answer, world.now);
            }
        });
        assert_eq!(world.states(), [LinkState::Down]);
        assert!(world.client.stats(world.now).discards.of(Discard::Unauthenticated) > 0);
    }
}

/// A known key with a new invitation: the driver decides, and the client gets its pre-shared key.
#[test]
fn a_known_client_may_be_invited_again() {
    let mut world = World::new(&Who { token: Some(5), ..HOME }, vec![enrolled(1, Some(8))], 1);
    world.run(500, |world| {
        while let Some(enrolment) = world.server.poll_enrolment() {
            let answer = EnrolmentAnswer::Welcome(enrolled_by(5, 1));
            assert_eq!(world.server.answer_enrolment(enrolment.id, answer, world.now), Some(SessionId(0)));
        }
    });
    assert_eq!(world.states(), [LinkState::Up]);
}

fn with_key(number: u8) -> ClientConfig {
    let key = PrivateKey::from_bytes([number; 32]).public();
    ClientConfig { public_key: Some(key), ..enrolled(1, Some(6)) }
}

/// Takes each rotation that is asked for; gives how many there were.
fn rotations(world: &mut World, millis: u64, answers_are_lost: bool) -> usize {
    let mut count = 0;
    world.run(millis, |world| {
        while let Some(enrolment) = world.server.poll_enrolment() {
            assert!(matches!(enrolment.claim, Claim::Rotation { .. }));
            count += 1;
            world.cut.fill(answers_are_lost);
            let answer = EnrolmentAnswer::Welcome(with_key(2));
            assert!(world.server.answer_enrolment(enrolment.id, answer, world.now).is_some());
        }
    });
    count
}

#[test]
fn a_client_gets_a_new_key_within_its_session() {
    let mut world = World::new(&Who { psk: Some(6), ..HOME }, vec![enrolled(1, Some(6))], 2);
    world.traffic(500, 0);
    world.client.rotate(PrivateKey::from_bytes([2; 32]), world.now);
    assert_eq!(rotations(&mut world, 500, false), 1);
    assert!(world.events.contains(&Event::KeyReplaced));
    assert_eq!(world.states(), [LinkState::Up; 2]);
    world.traffic(3 * 60 * 1_000, 500);
    assert_eq!(world.states(), [LinkState::Up; 2], "later handshakes show the new key");
    // The old key belongs to no client now.
    let before = world.server.discards().of(Discard::UnknownClient);
    world.client = session(&Who { psk: Some(6), run: 9, ..HOME }, 2, world.now);
    world.idle(2_000);
    assert!(world.server.discards().of(Discard::UnknownClient) > before);
    assert_eq!(world.states(), [LinkState::Down; 2]);
}

/// Each new key is written down by the server: a client that asks without end makes no more work.
#[test]
fn a_client_gets_no_second_new_key_within_a_minute() {
    let mut world = World::new(&Who { psk: Some(6), ..HOME }, vec![enrolled(1, Some(6))], 1);
    world.traffic(500, 0);
    world.client.rotate(PrivateKey::from_bytes([2; 32]), world.now);
    assert_eq!(rotations(&mut world, 500, false), 1);
    world.client.rotate(PrivateKey::from_bytes([3; 32]), world.now);
    assert_eq!(rotations(&mut world, 5_000, false), 0);
    assert!(world.server.discards().of(Discard::HandshakeLimited) > 0);
    assert_eq!(world.states(), [LinkState::Up], "the present key serves on");
    // The next handshake, two minutes later, shows the next key again.
    let mut asked = 0;
    world.run(3 * 60 * 1_000, |world| {
        while let Some(enrolment) = world.server.poll_enrolment() {
            asked += 1;
            let client = ClientConfig { public_key: Some(enrolment.public_key), ..enrolled(1, Some(6)) };
            let answer = EnrolmentAnswer::Welcome(client);
            assert!(world.server.answer_enrolment(enrolment.id, answer, world.now).is_some());
        }
    });
    assert_eq!((asked, world.states()), (1, vec![LinkState::Up]));
}

/// The server wrote the new key down and its answer got lost; the client shows both keys in turn.
#[test]
fn a_lost_answer_to_a_new_key_costs_no_client() {
    let mut world = World::new(&Who { psk: Some(6), ..HOME }, vec![enrolled(1, Some(6))], 1);
    world.traffic(500, 0);
    world.client.rotate(PrivateKey::from_bytes([2; 32]), world.now);
    assert_eq!(rotations(&mut world, 3_000, true), 1);
    assert!(!world.events.contains(&Event::KeyReplaced));
    world.cut.fill(false);
    world.idle(10_000);
    assert!(world.events.contains(&Event::KeyReplaced));
    assert_eq!(world.states(), [LinkState::Up]);
}

/// A server that refuses the new key, or does not know of such claims, keeps the old one.
#[test]
fn a_refused_key_leaves_the_old_one_in_use() {
    for refuses in [true, false] {
        let mut world = World::new(&Who { psk: Some(6), ..HOME }, vec![enrolled(1, Some(6))], 1);
        world.traffic(500, 0);
        world.client.rotate(PrivateKey::from_bytes([2; 32]), world.now);
        world.run(5_000, |world| {
            while let Some(enrolment) = world.server.poll_enrolment() {
                let psk = enrolled(1, Some(6)).preshared;
                let refused = EnrolmentAnswer::Refuse(Refusal::Refused, psk);
                let answer = if refuses { refused } else { EnrolmentAnswer::Ignore };
                assert!(world.server.answer_enrolment(enrolment.id, answer, world.now).is_none());
            }
        });
        assert_eq!(world.events.contains(&Event::KeyRefused(Refusal::Refused)), refuses);
        world.idle(4 * 60 * 1_000);
        assert_eq!(world.states(), [LinkState::Up]);
    }
}

/// A thief with the private key alone cannot move the client to a key of the thief's.
#[test]
fn a_stolen_key_without_the_pre_shared_one_rotates_nothing() {
    let mut world = World::new(&Who { psk: Some(7), ..HOME }, vec![enrolled(1, Some(6))], 1);
    world.client.rotate(PrivateKey::from_bytes([2; 32]), world.now);
    assert_eq!(rotations(&mut world, 3_000, false), 0);
    assert!(world.server.discards().of(Discard::Unauthenticated) > 0);
}

#[test]
fn an_expired_client_is_told_and_stays_out_until_it_is_renewed() {
    let mut world = World::new(&Who { psk: Some(6), ..HOME }, vec![enrolled(1, Some(6))], 2);
    world.idle(500);
    world.server.expire_client(SessionId(0), world.now);
    world.drain();
    world.idle(1_000);
    assert!(world.events.contains(&Event::Closed(CloseReason::Expired)));
    assert_eq!(world.states(), [LinkState::Down; 2]);
    // A client that starts again is told at once, by an answer that only it can read.
    world.client = session(&Who { psk: Some(6), run: 2, ..HOME }, 2, world.now);
    world.idle(500);
    assert_eq!(world.events.last(), Some(&Event::Refused(Refusal::KeyExpired)));
    assert_eq!(world.states(), [LinkState::Down; 2]);
    // Nor may its old key choose a new one.
    world.client.rotate(PrivateKey::from_bytes([2; 32]), world.now);
    assert_eq!(rotations(&mut world, 500, false), 0);

    // Renewed, expired and renewed before a message leaves.
    world.server.renew_client(SessionId(0));
    world.server.expire_client(SessionId(0), world.now);
    world.server.renew_client(SessionId(0));
    world.client = session(&Who { psk: Some(6), run: 3, ..HOME }, 2, world.now);
    world.idle(500);
    assert_eq!(world.states(), [LinkState::Up; 2]);
}

#[test]
fn a_revoked_client_is_told_and_stays_out() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.idle(500);
    world.server.remove_client(SessionId(0), world.now);
    world.drain();
    world.idle(5_000);
    assert!(world.events.contains(&Event::Closed(CloseReason::Revoked)));
    assert_eq!(world.states(), [LinkState::Down; 2]);
    assert!(world.server.stats(world.now).is_empty());
    // Its place serves another.
    world.server.add_client(enrolled(2, None), world.now).unwrap();
    world.client = session(&Who { key: 2, ..HOME }, 2, world.now);
    world.idle(500);
    assert_eq!(world.states(), [LinkState::Up; 2]);
}

/// The client was never told, and the server has not been restarted since.
#[test]
fn a_client_that_was_revoked_unheard_and_enrolled_again_gets_in() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    let end = world.traffic(3_000, 0);
    world.cut = vec![true; 2];
    world.server.remove_client(SessionId(0), world.now);
    world.idle(2_000);
    world.cut = vec![false; 2];
    world.server.add_client(enrolled(1, None), world.now).unwrap();
    world.idle(6_000);
    assert_eq!(world.states(), [LinkState::Up; 2]);
    (world.up, world.down) = (Vec::new(), Vec::new());
    let end = world.traffic(500, end) - end;
    world.idle(200);
    assert_eq!((world.up.len(), world.down.len()), (end as usize, end as usize));
}

#[test]
fn a_client_that_was_removed_and_added_again_goes_on() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    let end = world.traffic(20_000, 0);
    world.server.remove_client(SessionId(0), world.now);
    world.drain();
    world.idle(100);
    world.server.add_client(enrolled(1, None), world.now).unwrap();
    // It was told that it may not, and asks again a minute later.
    world.idle(61_000);
    assert_eq!(world.states(), [LinkState::Up; 2]);
    world.up.clear();
    world.down.clear();
    world.traffic(300, end);
    assert!(world.up.len() > 250 && world.down.len() > 250, "{} {}", world.up.len(), world.down.len());
}

#[test]
fn all_links_dead_for_a_while_need_no_new_handshake() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.idle(500);
    world.cut = vec![true; 2];
    world.idle(20_000);
    assert_eq!(world.states(), [LinkState::Down; 2]);
    world.cut = vec![false; 2];
    world.idle(800);
    assert_eq!(world.states(), [LinkState::Up; 2]);
}

#[test]
fn what_all_sessions_queue_is_bounded() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.idle(300);
    world.server.limit_held_bytes(100_000);
    // All at once: nothing is sent in between.
    let refused = (0..2_000).filter(|number| {
        world.server.handle_packet(packet(false, *number), world.now) == Err(Discard::QueueFull)
    });
    let refused = refused.count();
    assert!((1_400..1_600).contains(&refused), "{refused}");
    world.idle(2_000);
    assert_eq!(world.down.len(), 2_000 - refused);
    assert_eq!(world.server.handle_packet(packet(false, 0), world.now), Ok(()), "there is room again");
}

/// Ahead of the run: bytes that are no IP packet, and a packet without a route.
#[test]
fn a_run_is_the_same_as_its_packets_one_by_one() {
    let sent = |as_run: bool| {
        let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
        world.idle(300);
        let foreign = packet(true, 0);
        let bad = PacketBuf::from(Bytes::from_static(&[0x45; 30]));
        for first in 0..20 {
            let packets = (first * 100..first * 100 + 100).map(|number| packet(false, number));
            let mut run = [bad.clone(), foreign.clone()].into_iter().chain(packets);
            if as_run {
                world.server.handle_run(&mut run, world.now);
            } else {
                let taken =
                    run.filter(|packet| world.server.handle_packet(packet.clone(), world.now).is_ok());
                assert_eq!(taken.count(), 100);
            }
            world.idle(10);
        }
        world.idle(1_000);
        let discards = [Discard::NotIp, Discard::NoRoute].map(|reason| world.server.discards().of(reason));
        (world.down, world.to, discards)
    };
    let run = sent(true);
    assert_eq!((run.0.len(), run.2), (2_000, [20; 2]));
    assert_eq!(run, sent(false));
}

/// A client with true keys that says in one datagram that it was restarted, and asks for an answer.
#[test]
fn a_server_neither_spins_nor_forgets_a_path_for_a_heartbeat_of_another_run() {
    let (now, path) = (
        Instant::from_nanos(5_000_000_000),
        Path { socket: SocketId(0), remote: "192.0.2.1:1".parse().unwrap(), local: None },
    );
    let mut server = endpoint(vec![enrolled(1, None)], 7, now);
    let (identity, public) = (PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([99; 32]).public());
    let hello =
        Hello { stamp: Stamp { run: 1, elapsed_us: 1 }, epoch: 5, aes_fast: true, claim: None, secret: None };
    let mut attempt = Initiator::new(&identity, &public, None, 3, &hello, &mut SecretRng::new([3; 32]));
    let mut buf = Vec::new();
    attempt.put(0, None, &mut buf);
    server.handle_datagram(Datagram::new(path, BytesMut::from(buf.as_slice())), now).unwrap();
    buf.clear();
    server.poll_transmit(&mut buf, SEGMENTS, now).unwrap();
    let Outcome::Welcome(_, keys) = attempt.read_response(&buf).unwrap() else { panic!("a welcome") };

    let header =
        SealedHeader { link: 0, flow: 0, stamp: 0, receiver_index: keys.remote_index, counter: 0 }.to_bytes();
    let mut frames = Vec::new();
    let heartbeat = Heartbeat {
        epoch: 6,
        stamp_us: 1,
        sent: 1,
        echo: None,
        proven: false,
        resends: false,
        partial: false,
        indirect_feedback: false,
        streams: false,
        figures: false,
        at_once: true,
        priority: 1,
        role: LinkRole::Primary,
        rx_ceiling: None,
        failed: 0,
        flows: None,
        retired: 0,
    };
    wire::put_frame_header(&mut frames, 1, Kind::Heartbeat, Modifiers::NONE, HEARTBEAT_BYTES);
    heartbeat.put(&mut frames);
    wire::put_frame_header(&mut frames, 0, Kind::Control, Modifiers::NONE, 9);
    Control::Challenge([1; 8]).put(&mut frames);
    let tag = keys.send.seal(0, 0, &header, &mut frames);
    let data = BytesMut::from([header.as_slice(), &frames, &tag].concat().as_slice());
    assert_eq!(server.handle_datagram(Datagram::new(path, data), now), Err(Discard::HeartbeatMalformed));
    while server.poll_transmit(&mut buf, SEGMENTS, now).is_some() {}
    server.handle_timeout(now);
    while server.poll_transmit(&mut buf, SEGMENTS, now).is_some() {}
    let link = &server.session(SessionId(0)).unwrap().links;
    assert_eq!(link.get(LinkId(0)).unwrap().path().current(), Some(path));
    assert!(server.poll_timeout().is_none_or(|(due, _)| due > now), "{:?}", server.poll_timeout());
}

/// The way back of the first link loses everything for 600 ms, and later for good. The way out
/// never does.
#[test]
fn a_link_is_kept_by_what_its_peer_tells_over_another() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.idle(1_000);
    let (next, unlike) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let load = |world: &mut World| {
        let _ = world.client.handle_packet(packet(true, next.get()), world.now);
        next.set(next.get() + 1);
        unlike.set(unlike.get() + u32::from(world.states() != [LinkState::Up; 2]));
    };
    // Datagrams that the server sends over the second link.
    let sent = |world: &World| world.to[&world.addresses[1]].0;
    world.run(500, load);
    let before = sent(&world);
    world.run(500, load);
    let regular = sent(&world) - before;
    world.limits[0][1] = 0;
    world.run(500, load);
    let indirect = sent(&world) - before - regular;
    assert!(indirect > regular * 5 / 4, "{indirect}, {regular} before");
    world.run(100, load);
    world.limits[0][1] = usize::MAX;
    world.run(1_000, load);
    assert_eq!(unlike.get(), 0);
    let before = sent(&world);
    world.run(500, load);
    assert!(sent(&world) - before <= regular * 11 / 10, "there are no doubts any more");
    // The server has no proof, and says so.
    world.limits[0][1] = 0;
    world.run(2_200, load);
    assert_eq!(world.states(), [LinkState::Down, LinkState::Up]);
    world.idle(200);
    assert!(complete(&world.up, next.get()));
}

#[test]
fn feedback_about_no_link_or_no_datagram_of_it_is_refused() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.traffic(500, 0);
    let mut payload = Vec::new();
    let feedback = Feedback {
        marked: 0,
        key: 1,
        largest: 7,
        arrival_us: 0,
        hold_us: 0,
        least_back: 0,
        least_before: 0,
        received: 1,
        runs: Runs::new(1),
    };
    feedback.put(&mut payload);
    let now = world.now;
    let mut about = |seq_num| world.client.on_feedback(LinkId(0), seq_num, &payload, now);
    assert_eq!(about(0), Err(Discard::Stale), "no key of ours");
    assert_eq!(about(2), Err(Discard::Stale));
    assert_eq!(about(3), Err(Discard::UnknownPeer), "there are two links");
    assert_eq!(about(257), Err(Discard::FeedbackMalformed));
    assert_eq!(about(u64::MAX), Err(Discard::FeedbackMalformed));
}

/// What a client with true keys says on its first link.
fn say(world: &mut World, from: SocketAddr, frames: &[u8]) -> Result<(), Discard> {
    let mut datagram = vec![0; SEALED_HEADER_BYTES];
    datagram.extend_from_slice(frames);
    world.client.sealing.keyring.seal((LinkId(0), UdpFlow::FIRST), &mut datagram, 0, world.now).unwrap();
    world.give(true, 0, from, &datagram)
}

fn server_stats(world: &World) -> crate::stats::SessionStats {
    world.server.session(SessionId(0)).unwrap().stats(world.now)
}

#[test]
fn one_heartbeat_of_a_datagram_counts() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.idle(200);
    let from = world.addresses[0];
    let heartbeat = Heartbeat { resends: true, ..heartbeat(world.client.epoch(), world.now) };
    let mut frames = Vec::new();
    for number in 0..19 {
        let role = if number % 2 == 0 { LinkRole::Backup } else { LinkRole::Never };
        let len = HEARTBEAT_BYTES;
        wire::put_frame_header(&mut frames, 1_000 + number, Kind::Heartbeat, Modifiers::NONE, len);
        Heartbeat { role, ..heartbeat }.put(&mut frames);
    }
    assert_eq!(say(&mut world, from, &frames), Ok(()));
    let stats = server_stats(&world);
    assert_eq!(stats.discards.of(Discard::HeartbeatRepeated), 18);
    assert_eq!(stats.links[0].role, LinkRole::Backup, "that of the first");
    // Of many changes of role the first four count, and then one in 100 ms.
    let mut changes = 0;
    for number in 0..40 {
        let before = server_stats(&world).links[0].role;
        let role = if before == LinkRole::Backup { LinkRole::Never } else { LinkRole::Backup };
        let mut frames = Vec::new();
        let len = HEARTBEAT_BYTES;
        wire::put_frame_header(&mut frames, 2_000 + number, Kind::Heartbeat, Modifiers::NONE, len);
        Heartbeat { role, ..heartbeat }.put(&mut frames);
        assert_eq!(say(&mut world, from, &frames), Ok(()));
        changes += usize::from(server_stats(&world).links[0].role != before);
        world.now = world.now + Duration::from_millis(10);
    }
    assert!((6..=7).contains(&changes), "{changes}");
}

#[test]
fn what_is_no_packet_takes_no_place() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.idle(200);
    let from = world.addresses[0];
    let whole = packet(true, 1);
    let mut long = whole.to_vec();
    long.push(0);
    for (payload, result) in [
        (&[][..], Err(Discard::NotIp)),
        (&[0x45; 19], Err(Discard::NotIp)),
        (&[0; 40], Err(Discard::NotIp)),
        (&long, Err(Discard::NotIp)),
        (&whole, Ok(())),
    ] {
        let mut frames = Vec::new();
        let len = u16::try_from(payload.len()).unwrap();
        wire::put_frame_header(&mut frames, wire::data_seq_num(9, 1), Kind::Data, Modifiers::NONE, len);
        frames.extend_from_slice(payload);
        assert_eq!(say(&mut world, from, &frames), result);
    }
    let stats = server_stats(&world);
    assert_eq!((stats.reorder_held, stats.discards.of(Discard::NotIp)), (1, 4));
}

#[test]
fn a_new_path_is_told_when_it_has_answered() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    let mut end = world.traffic(500, 0);
    world.server_events.clear();
    let thief: SocketAddr = "198.51.100.66:1".parse().unwrap();
    let home = world.addresses[0];
    // A port that alternates: nothing of it is told, and nothing looked at for it.
    for step in 0..20 {
        let from = if step % 2 == 0 { thief } else { home };
        assert_eq!(say(&mut world, from, &[]), Ok(()));
        world.drain();
    }
    end = world.traffic(200, end);
    assert_eq!(world.server_events, []);
    world.addresses[0] = "192.0.2.77:555".parse().unwrap();
    world.traffic(200, end);
    let path = Path { socket: SocketId(0), remote: world.addresses[0], local: None };
    assert_eq!(world.server_events, [Event::PathChanged { link: LinkId(0), path }]);
}

/// Sends these frames of the client in one datagram.
pub(super) fn send_frames(world: &mut World, frames: &[u8]) {
    let mut bytes = vec![0; SEALED_HEADER_BYTES];
    bytes.extend_from_slice(frames);
    let keyring = &mut world.client.sealing.keyring;
    keyring.seal((LinkId(0), UdpFlow::FIRST), &mut bytes, 0, world.now).unwrap();
    let from = world.addresses[0];
    let _ = world.give(true, 0, from, &bytes);
    world.drain();
}

#[test]
fn a_datagram_is_answered_once_whatever_it_asks() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.traffic(300, 0);
    let discards = |world: &World| world.server.session(SessionId(0)).unwrap().stats(world.now).discards;
    let sent = |world: &World| world.to[&world.addresses[0]].0;
    let mut frames = Vec::new();
    for number in 0..50 {
        wire::put_frame_header(&mut frames, 0, Kind::Control, Modifiers::NONE, 9);
        Control::Challenge([number; 8]).put(&mut frames);
    }
    let before = sent(&world);
    send_frames(&mut world, &frames);
    // Feedback or a heartbeat may be due, too.
    assert!((1..=3).contains(&(sent(&world) - before)), "{}", sent(&world) - before);
    assert_eq!(discards(&world).of(Discard::ControlRepeated), 49);
}

/// Packets whose first one never comes: what waits for it is bounded over all sessions.
#[test]
fn what_all_sessions_hold_for_gaps_is_bounded() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.idle(300);
    world.server.limit_held_bytes(100_000);
    let mut held_max = 0;
    for number in 1..2_001_u32 {
        let packet = packet(true, number);
        let mut frames = Vec::new();
        let seq_num = wire::data_seq_num(5, u64::from(number));
        wire::put_frame_header(&mut frames, seq_num, Kind::Data, Modifiers::NONE, 200);
        frames.extend_from_slice(&packet);
        send_frames(&mut world, &frames);
        held_max = held_max.max(world.server.session(SessionId(0)).unwrap().held_bytes());
    }
    assert!((50_000..=100_000).contains(&held_max), "{held_max}");
    world.idle(500);
    assert!(world.up.iter().copied().eq(1..2_001), "all were delivered, in order");
}

/// An attacker on a link tries forgeries until the client's key ends: the client has new keys after
/// a round trip, and does not wait until it finds its links silent.
#[test]
fn a_key_that_forgeries_ended_is_replaced_at_once() {
    use crate::crypto::aead::Usage;
    use crate::session::sealing::{KeyLimits, Keyring};

    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    let usage = |_| Usage { renew_blocks: 1 << 35, refuse_blocks: 1 << 36, forgeries: 100 };
    world.client.sealing.keyring = Keyring::new(KeyLimits { usage, ..KeyLimits::DEFAULT });
    world.idle(500);
    let to_client = |flight: &Flight| !flight.0 && flight.3[0] == 0x84;
    while !world.flying.values().any(to_client) {
        world.idle(1);
    }
    let (_, socket, remote, mut forged) =
        world.flying.values().find(|flight| to_client(flight)).cloned().unwrap();
    *forged.last_mut().unwrap() ^= 1;
    for _ in 0..100 {
        assert_eq!(world.give(false, socket, remote, &forged), Err(Discard::Unauthenticated));
    }
    assert_eq!(world.client.cipher(), None);
    assert_eq!(world.give(false, socket, remote, &forged), Err(Discard::UnknownSession));
    world.idle(50);
    assert!(world.client.cipher().is_some());
    let end = world.traffic(300, 0);
    world.idle(100);
    assert!(complete(&world.up, end) && complete(&world.down, end));
}
