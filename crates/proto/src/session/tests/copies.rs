//! Machines that slept, or were restored from an image, perhaps twice.

use super::world::*;
use super::*;
use crate::StreamHost as _;
use crate::position::StreamId;
use crate::streams::{StreamEvent, StreamTarget};
use crate::wire::stream::StreamForm;

const HOUR: Duration = Duration::from_secs(3_600);

/// A sealed datagram that is under way.
fn under_way(world: &mut World, to_server: bool) -> Flight {
    let is_it = |flight: &&Flight| flight.0 == to_server && flight.3[0] == 0x84;
    while world.flying.values().find(is_it).is_none() {
        world.idle(1);
    }
    world.flying.values().find(is_it).cloned().unwrap()
}

#[test]
fn a_client_that_forgets_its_keys_has_others_a_round_trip_later() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.idle(500);
    let (_, socket, remote, old) = under_way(&mut world, false);
    world.client.forget_keys(HOUR, world.now);
    assert_eq!(world.client.cipher(), None);
    assert_eq!(world.give(false, socket, remote, &old), Err(Discard::UnknownSession));
    world.seen.clear();
    world.idle(1);
    assert!(!world.seen.is_empty() && world.seen.iter().all(|(_, bytes)| bytes[0] == 0x81));
    world.idle(45);
    assert!(world.client.cipher().is_some());
    world.idle(100);
    let end = world.traffic(300, 0);
    world.idle(100);
    assert!(complete(&world.up, end) && complete(&world.down, end));
}

#[test]
fn a_server_that_forgets_its_keys_seals_nothing_until_its_client_has_others() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.idle(500);
    let (_, socket, remote, old) = under_way(&mut world, true);
    world.server.forget_keys(HOUR, world.now);
    assert_eq!(world.give(true, socket, remote, &old), Err(Discard::UnknownSession));
    world.drain();
    world.flying.clear();
    world.idle(100);
    assert!(!world.flying.values().any(|flight| !flight.0), "the server is silent");
    world.idle(1_500);
    let end = world.traffic(300, 0);
    world.idle(100);
    assert!(complete(&world.up, end) && complete(&world.down, end));
}

/// The first message of a new handshake, of a client restored from an image that all its copies
/// have, and its server's answer. Each is given random numbers of its system, or none.
fn handshake_after_restore(client: Option<u8>, server: Option<u8>) -> (Vec<u8>, Vec<u8>) {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.idle(500);
    world.client.forget_keys(HOUR, world.now);
    assert!(world.client.draws_secrets(None, world.now));
    if let Some(byte) = client {
        world.client.mix_entropy(&[byte; 32]);
    }
    world.flying.clear();
    world.client.handle_timeout(world.now);
    assert!(!world.client.draws_secrets(None, world.now));
    world.drain();
    let (_, socket, remote, first) =
        world.flying.values().find(|flight| flight.3[0] == 0x81).cloned().unwrap();
    let path = Path { socket: SocketId(socket), remote, local: None };
    let datagram = Datagram::new(path, BytesMut::from(first.as_slice()));
    assert!(world.server.draws_secrets(Some(&datagram), world.now));
    assert!(!world.server.draws_secrets(None, world.now));
    if let Some(byte) = server {
        world.server.mix_entropy(&[byte; 32]);
    }
    assert_eq!(world.give(true, socket, remote, &first), Ok(()));
    world.drain();
    let answer = world.flying.values().find(|flight| flight.3[0] == 0x82).cloned().unwrap();
    (first, answer.3)
}

#[test]
fn copies_of_a_machine_draw_keys_of_their_own() {
    // The ephemeral keys stand in the clear.
    let key = |message: &[u8]| message[8..40].to_vec();
    let (first, answer) = handshake_after_restore(None, None);
    assert_eq!((first.clone(), answer.clone()), handshake_after_restore(None, None), "the test repeats");
    assert_ne!(key(&first), key(&handshake_after_restore(Some(1), None).0));
    let (same, other) = handshake_after_restore(None, Some(1));
    assert_eq!(same, first);
    assert_ne!(key(&answer), key(&other));
    assert_ne!(key(&other), key(&handshake_after_restore(None, Some(2)).1));
}

/// The server took stamps of an hour that a client restored from an older image knows nothing of.
#[test]
fn a_client_set_back_to_an_earlier_state_gets_in_once_its_clock_is_right() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    world.client.forget_keys(HOUR, world.now);
    world.traffic(500, 0);
    assert_eq!(world.states(), [LinkState::Up; 2]);
    world.client = session(&HOME, 2, world.now);
    world.idle(3_000);
    assert_eq!(world.states(), [LinkState::Down; 2]);
    assert!(world.server.discards().of(Discard::HandshakeReplayed) > 0);
    world.client.mix_entropy(&[1; 32]);
    world.client.forget_keys(HOUR + Duration::from_secs(5), world.now);
    world.idle(500);
    assert_eq!(world.states(), [LinkState::Up; 2]);
    let before = world.up.len();
    world.traffic(300, 0);
    world.idle(100);
    assert!(world.up.len() > before + 290, "its counters are those of another run");
}

/// What happened to streams at the client, and at the server.
fn stream_events(world: &mut World) -> [Vec<StreamEvent>; 2] {
    let ours = std::iter::from_fn(|| world.client.poll_stream_event()).collect();
    let theirs = std::iter::from_fn(|| world.server.poll_stream_event()).map(|(_, event)| event).collect();
    [ours, theirs]
}

/// Opens a stream at the client; the server is asked for it.
fn open_stream(world: &mut World) -> StreamId {
    let target = StreamTarget { to: "198.51.100.1:80".parse().unwrap(), dscp: 0 };
    let id = world.client.streams_mut(world.now).open(target, StreamForm::Plain, world.now).unwrap();
    world.idle(100);
    assert_eq!(stream_events(world), [vec![], vec![StreamEvent::Asked(id, target)]]);
    world.server.streams_mut(0, world.now).unwrap().accept(id, StreamForm::Plain);
    world.idle(100);
    assert_eq!(stream_events(world), [vec![StreamEvent::Opened(id)], vec![]]);
    id
}

/// To the other side this one begins anew: neither keeps a stream that the other does not know.
#[test]
fn streams_end_at_both_sides_with_the_keys() {
    let forget: [fn(&mut World); 3] = [
        |world| world.client.forget_keys(HOUR, world.now),
        |world| world.server.forget_keys(HOUR, world.now),
        // Restored from its first moments.
        |world| {
            world.client = session(&HOME, 2, world.now);
            world.client.mix_entropy(&[1; 32]);
            world.client.forget_keys(HOUR + Duration::from_secs(5), world.now);
        },
    ];
    for (case, forget) in forget.into_iter().enumerate() {
        let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
        world.server.set_streams(true, world.now);
        world.idle(500);
        let id = open_stream(&mut world);
        let old = Bytes::from_static(b"of the run before");
        world.client.streams_mut(world.now).write(id, old.clone());
        world.server.streams_mut(0, world.now).unwrap().write(id, old);
        world.idle(1);
        forget(&mut world);
        world.idle(3_000);
        let kept = if case == 2 { vec![] } else { vec![StreamEvent::Reset(id)] };
        // What came under the old keys may have been readable.
        let ends = stream_events(&mut world).map(|mut events| {
            events.retain(|event| *event != StreamEvent::Readable(id));
            events
        });
        assert_eq!(ends, [kept, vec![StreamEvent::Reset(id)]], "case {case}");
        open_stream(&mut world);
        world.idle(3_000);
        assert_eq!(stream_events(&mut world), [vec![], vec![]], "case {case}: no byte of another stream");
    }
}

/// Messages that begin a handshake of the client are new at this moment only if the driver was told
/// to give entropy for them before.
#[test]
fn no_handshake_begins_that_the_driver_was_not_told_of() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 2);
    let mut known = std::collections::BTreeSet::new();
    let (mut begun, mut told) = (0, true);
    let mut watch = |world: &mut World| {
        let firsts = world.seen.drain(..).filter(|(_, bytes)| bytes[0] == 0x81);
        let new = firsts.filter(|(_, bytes)| known.insert(bytes[8..40].to_vec())).count();
        assert!(new == 0 || told, "at {:?}", world.now);
        begun += new;
        told = world.client.draws_secrets(None, world.now);
    };
    world.run(130_000, &mut watch);
    // The server is silent until the keys are over, and later.
    world.cut = vec![true; 2];
    world.run(200_000, &mut watch);
    assert_eq!(world.client.cipher(), None);
    world.cut = vec![false; 2];
    world.run(20_000, &mut watch);
    assert!(world.client.is_hybrid());
    // The last keys are over between attempts, which are a minute apart: the server refuses them.
    world.server = endpoint(vec![enrolled(1, None)], 8, world.now);
    world.server.expire_client(SessionId(0), world.now);
    world.run(200_000, &mut watch);
    assert_eq!(world.client.cipher(), None);
    assert!(begun > 10, "{begun}");
}
