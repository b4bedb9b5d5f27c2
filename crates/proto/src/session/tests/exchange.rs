//! The exchange with ML-KEM after a handshake, and the keys that follow from it.

use super::sealed::send_frames;
use super::world::*;
use super::*;
use crate::crypto::kem::KemKey;
use crate::wire::exchange::{ExchangeFrame, PART_BYTES, PARTS};

fn server_is_hybrid(world: &World) -> bool {
    world.server.session(SessionId(0)).unwrap().is_hybrid()
}

fn both_are_hybrid(world: &World) -> (bool, bool) {
    (world.client.is_hybrid(), server_is_hybrid(world))
}

/// UDP payload of the datagrams with a part of the key, and with the ciphertext.
const PART_DATAGRAM: usize = 16 + 11 + 6 + 592 + 16;
const CIPHERTEXT_DATAGRAM: usize = 16 + 11 + 5 + 1_088 + 16;

#[test]
fn keys_are_hybrid_within_the_first_second_and_stay_so() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.idle(30);
    assert_eq!(both_are_hybrid(&world), (false, false));
    world.idle(300);
    assert_eq!(both_are_hybrid(&world), (true, true));
    assert_eq!(world.rekeys(), (1, 1));
    let end = world.traffic(300_000, 0);
    world.idle(100);
    assert_eq!((both_are_hybrid(&world), world.rekeys()), ((true, true), (3, 3)));
    assert!(complete(&world.up, end) && complete(&world.down, end), "no packet waits for it");
}

#[test]
fn no_datagram_of_it_is_larger_than_any_link_carries() {
    const { assert!(CIPHERTEXT_DATAGRAM + 40 + 8 <= 1_200) };
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.limits[0] = [1_200; 2];
    world.idle(300);
    assert_eq!(both_are_hybrid(&world), (true, true));
    let parts = world.seen.iter().filter(|(_, bytes)| bytes.len() == PART_DATAGRAM).count();
    // One exchange under each of both keys.
    assert_eq!(parts, 2 * PARTS);
}

/// A link that loses what is large does not keep the keys as they were where another carries it.
#[test]
fn a_lost_part_goes_again_over_another_link() {
    for lossy in 0..2 {
        let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
        world.limits[lossy] = [500; 2];
        world.idle(1_500);
        assert_eq!(both_are_hybrid(&world), (true, true), "link {lossy}");
    }
    for lose_every in [2, 3, 4, 5] {
        let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
        world.lose_every = lose_every;
        world.idle(30_000);
        assert!(world.client.is_hybrid(), "one of {lose_every} is lost");
    }
}

/// As with a peer that knows no exchange: it does nothing with the frames.
#[test]
fn without_an_answer_the_session_goes_on_and_the_status_says_so() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.limits[0] = [500; 2];
    world.idle(200);
    let end = world.traffic(60_000, 0);
    world.idle(100);
    assert_eq!(both_are_hybrid(&world), (false, false));
    assert!(complete(&world.up, end) && complete(&world.down, end));
    let tries = world.seen.iter().filter(|(_, bytes)| bytes.len() == PART_DATAGRAM).count();
    assert!((10..=24).contains(&tries), "{tries}: more and more rarely");
    // What stood in the way is gone.
    world.limits[0] = [usize::MAX; 2];
    world.idle(11_000);
    assert_eq!(both_are_hybrid(&world), (true, true));
}

#[test]
fn a_restarted_side_begins_a_new_chain() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.idle(1_000);
    world.server = endpoint(vec![enrolled(1, None)], 8, world.now);
    let mut fell_back = false;
    world.run(3_000, |world| fell_back |= world.client.cipher().is_some() && !world.client.is_hybrid());
    assert!(fell_back, "the server knows no secret");
    // It was renewed for a secret's sake a moment ago, and that is not done again at once.
    assert_eq!(both_are_hybrid(&world), (false, false));
    world.idle(57_000);
    assert_eq!(both_are_hybrid(&world), (true, true), "a minute after the last time");

    world.client = session(&Who { run: 2, ..HOME }, 2, world.now);
    world.idle(1_000);
    assert_eq!(both_are_hybrid(&world), (true, true));
    let end = world.traffic(300, 0);
    world.idle(100);
    assert!(complete(&world.up, end) && complete(&world.down, end));
}

#[test]
fn a_server_that_loses_its_secrets_often_costs_a_handshake_a_minute() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    for epoch in 8..18 {
        world.idle(10_000);
        world.server = endpoint(vec![enrolled(1, None)], epoch, world.now);
    }
    world.idle(5_000);
    let first_messages = |world: &World| {
        let firsts = world.seen.iter().filter(|(link, bytes)| *link == 0 && bytes[0] == 0x81);
        firsts.map(|(_, bytes)| bytes[8..40].to_vec()).collect::<std::collections::BTreeSet<_>>().len()
    };
    // One for each server and one for secrets, since the second meets a new server; and what goes
    // out before an answer is there.
    let count = first_messages(&world);
    assert!((12..=24).contains(&count), "{count}");
}

#[test]
fn with_a_pre_shared_key_keys_are_hybrid_as_well() {
    let mut world = World::new(&Who { psk: Some(4), ..HOME }, vec![enrolled(1, Some(4))], 2);
    world.idle(500);
    assert_eq!(both_are_hybrid(&world), (true, true));
}

/// Frames of a key, as a client sends them that follows no rule.
fn key_frames(world: &mut World, key: &[u8], handshake: u32) {
    for (part, bytes) in (0..).zip(key.chunks(PART_BYTES)) {
        let frame = ExchangeFrame::KeyPart { handshake, part, bytes: bytes.try_into().unwrap() };
        let mut frames = Vec::new();
        wire::put_frame_header(&mut frames, 0, Kind::Control, Modifiers::NONE, frame.payload_bytes());
        frame.put(&mut frames);
        send_frames(world, &frames);
    }
}

#[test]
fn a_client_gets_one_encapsulation_for_a_handshake_and_no_answer_to_each_copy() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.idle(500);
    let (handshake, _) = world.client.sealing.keyring.indices().unwrap();
    let mut rng = SecretRng::new([5; 32]);
    let touched = |world: &World| world.server.session(SessionId(0)).unwrap().touched();
    let sent = |world: &World| world.to[&world.addresses[0]];
    let (before, (_, bytes_before)) = (touched(&world), sent(&world));
    for _ in 0..20 {
        let key = KemKey::generate(&mut rng).public();
        key_frames(&mut world, &key, handshake);
        key_frames(&mut world, &key, handshake ^ 1);
    }
    // The client itself had its one already.
    assert!(touched(&world) - before < 500, "{}", touched(&world) - before);
    let answered = sent(&world).1 - bytes_before;
    assert!(answered < 2 * 1_200, "{answered} bytes for 80 parts");
    world.idle(1_000);
    assert_eq!(both_are_hybrid(&world), (true, true));
}

#[test]
fn what_is_no_key_is_refused_and_disturbs_nothing() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    // The client's own parts do not arrive.
    world.limits[0] = [500, usize::MAX];
    world.idle(500);
    let (handshake, _) = world.client.sealing.keyring.indices().unwrap();
    let malformed = |world: &World| {
        world.server.session(SessionId(0)).unwrap().stats(world.now).discards.of(Discard::ControlMalformed)
    };
    key_frames(&mut world, &[0xff; 1_184], handshake);
    assert_eq!(malformed(&world), 1);
    key_frames(&mut world, &[0xff; 1_184], handshake);
    assert_eq!(malformed(&world), 1, "it is looked at once");
    let end = world.traffic(300, 0);
    world.idle(100);
    assert!(complete(&world.up, end) && complete(&world.down, end));
}

/// A client that ends its session has not paid for its exchange by that.
#[test]
fn the_cost_of_an_exchange_outlives_the_session() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.idle(500);
    let touched = |world: &World| world.server.session(SessionId(0)).unwrap().touched();
    let before = touched(&world);
    assert!(before > 2_000, "{before}");
    world.client.close(CloseReason::Shutdown, world.now);
    world.idle(100);
    assert!(world.server_events.contains(&Event::Closed(CloseReason::Shutdown)));
    assert!(touched(&world) >= before, "{} {before}", touched(&world));
}
