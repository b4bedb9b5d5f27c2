//! Sockets of the driver's that take no more for a while.

use super::pair::{Pair, packet};
use super::world::{HOME, World, enrolled, packet as addressed};
use super::*;

/// Offers both links more than they carry.
fn load(pair: &mut Pair, ms: u64) {
    let mut number = 0;
    pair.run(ms, |pair| {
        for _ in 0..10 {
            let _ = pair.send(packet(1, number, 1_400));
            number += 1;
        }
    });
}

#[test]
fn data_goes_over_other_links_until_a_full_socket_has_room() {
    let mut pair = Pair::new(&[(20, 10), (20, 10)]);
    pair.run(500, |_| ());
    pair.sides[0].handle_socket_event(SocketId(0), SocketEvent::Full, pair.now);
    load(&mut pair, 1_000);
    assert_eq!(pair.data_bytes[0], 0);
    assert!(pair.data_bytes[1] > 2_000_000, "{:?}", pair.data_bytes);
    // Heartbeats went all the same.
    assert_eq!(pair.states(), [LinkState::Up; 2]);
    pair.sides[0].handle_socket_event(SocketId(0), SocketEvent::Writable, pair.now);
    load(&mut pair, 1_000);
    assert!(pair.data_bytes[0] > 2_000_000, "{:?}", pair.data_bytes);
}

#[test]
fn where_all_are_full_data_waits_and_goes_as_soon_as_there_is_room() {
    let mut pair = Pair::new(&[(20, 10), (20, 10)]);
    pair.run(500, |_| ());
    for socket in [0, 1] {
        pair.sides[0].handle_socket_event(SocketId(socket), SocketEvent::Full, pair.now);
    }
    load(&mut pair, 8);
    assert_eq!(pair.data_bytes, [0, 0]);
    pair.sides[0].handle_socket_event(SocketId(1), SocketEvent::Writable, pair.now);
    pair.drain();
    assert_eq!(pair.data_bytes[0], 0);
    assert!(pair.data_bytes[1] > 0, "at once");
    pair.run(500, |_| ());
    assert!(pair.numbers().len() >= 50, "{} of 80 arrived", pair.numbers().len());
}

#[test]
fn a_server_goes_on_with_a_session_that_waited() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.idle(500);
    world.server.handle_socket_event(SocketId(0), SocketEvent::Full, world.now);
    let sent = |world: &World| world.to.get(&world.addresses[0]).map_or(0, |(datagrams, _)| *datagrams);
    let before = sent(&world);
    for number in 0..20 {
        world.server.handle_packet(addressed(false, number), world.now).unwrap();
    }
    world.drain();
    assert_eq!(sent(&world), before);
    // No timer is due: being told is enough.
    world.server.handle_socket_event(SocketId(0), SocketEvent::Writable, world.now);
    world.drain();
    assert!(sent(&world) > before);
    world.idle(100);
    assert_eq!(world.down.len(), 20);
}
