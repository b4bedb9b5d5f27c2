//! Several UDP flows on a sealed link.

use super::world::*;
use super::*;

/// A client over one link with so many flows.
fn world(flows: UdpFlows) -> World {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.client = session_over(&HOME, 1, flows, world.now);
    world
}

/// How many flows each side sends over, as far as they deliver.
fn flows(world: &World) -> [u8; 2] {
    let server = world.server.session(SessionId(0)).unwrap().stats(world.now);
    [world.client.stats(world.now).links[0].flows, server.links[0].flows]
}

/// Bytes that went over each flow so far, up and down.
fn bytes(world: &World, flow: u8) -> [u64; 2] {
    let address = world.address(0, flow);
    let [up, down] = [world.from.get(&address).copied(), world.to.get(&address).map(|to| to.1)];
    [up.unwrap_or(0), down.unwrap_or(0)]
}

#[test]
fn a_fixed_number_of_flows_is_opened_and_carries_equal_shares_both_ways() {
    let mut world = world(UdpFlows::Fixed(4));
    world.idle(1_000);
    assert_eq!((world.states(), flows(&world)), (vec![LinkState::Up], [4, 4]));
    let before: Vec<_> = (0..4).map(|flow| bytes(&world, flow)).collect();
    let end = world.traffic(4_000, 0);
    world.idle(300);
    assert!(complete(&world.up, end) && complete(&world.down, end));
    for direction in ["up", "down"] {
        let of = |[up, down]: [u64; 2]| if direction == "up" { up } else { down };
        let carried = |(flow, before): (u8, &[u64; 2])| of(bytes(&world, flow)) - of(*before);
        let all: u64 = (0..).zip(&before).map(carried).sum();
        for (flow, before) in (0..).zip(&before) {
            let percent = carried((flow, before)) * 100 / all;
            assert!((23..=27).contains(&percent), "flow {flow} carried {percent} % {direction}");
        }
    }
    assert_eq!(world.server.discards().iter().map(|(_, count)| count).sum::<u64>(), 0);
}

#[test]
fn a_peer_that_knows_only_one_flow_keeps_the_link() {
    // It discards what names another flow, and never sends on one.
    let mut world = world(UdpFlows::Fixed(8));
    world.cut_flows = (1..8).collect();
    world.idle(1_000);
    let end = world.traffic(20_000, 0);
    world.idle(300);
    assert_eq!((world.states(), flows(&world)[0]), (vec![LinkState::Up], 1));
    assert!(complete(&world.up, end) && complete(&world.down, end));
    let changes = world.events.iter().filter(|event| matches!(event, Event::LinkState { .. }));
    assert_eq!(changes.count(), 1, "{:?}", world.events);
}

#[test]
fn a_flow_that_stops_is_left_out_and_the_link_lives_while_one_does() {
    for dead in [vec![2], vec![0], vec![0, 1, 3]] {
        let mut world = world(UdpFlows::Fixed(4));
        world.idle(1_000);
        world.cut_flows.clone_from(&dead);
        let live = 4 - u8::try_from(dead.len()).unwrap();
        let end = world.traffic(4_000, 0);
        assert_eq!((world.states(), flows(&world)), (vec![LinkState::Up], [live, live]), "{dead:?}");
        // Nothing is sent into the void any more.
        world.idle(300);
        world.up.clear();
        world.down.clear();
        let lost = world.client.stats(world.now).recovery.resent;
        let to = world.traffic(2_000, end);
        world.idle(300);
        assert_eq!((world.up.len(), world.down.len()), ((to - end) as usize, (to - end) as usize));
        assert_eq!(world.client.stats(world.now).recovery.resent, lost);
        // It delivers again.
        world.cut_flows.clear();
        world.traffic(15_000, to);
        assert_eq!(flows(&world), [4, 4], "{dead:?}");
    }
}

#[test]
fn the_link_does_not_fail_with_its_first_flow() {
    let mut world = world(UdpFlows::Fixed(4));
    world.idle(1_000);
    world.cut_flows = vec![0];
    world.idle(10_000);
    assert!(!world.events.iter().any(|event| matches!(event, Event::LinkState { to: LinkState::Down, .. })));
}

#[test]
fn flows_move_with_their_nat() {
    let mut world = world(UdpFlows::Fixed(3));
    world.idle(1_000);
    world.traffic(500, 0);
    world.addresses[0].set_port(41_000 + 7);
    world.traffic(3_000, 500);
    assert_eq!((world.states(), flows(&world)), (vec![LinkState::Up], [3, 3]));
    for flow in 0..3 {
        assert!(bytes(&world, flow)[1] > 100_000, "the server sends to the new port of flow {flow}");
    }
}

#[test]
fn a_restarted_server_finds_all_flows_again() {
    let mut world = world(UdpFlows::Fixed(3));
    world.idle(1_000);
    world.server = endpoint(vec![enrolled(1, None)], 8, world.now);
    world.idle(4_000);
    assert_eq!((world.states(), flows(&world)), (vec![LinkState::Up], [3, 3]));
}

#[test]
fn a_source_port_without_authentic_datagrams_never_is_a_flow() {
    let mut world = world(UdpFlows::Fixed(2));
    world.idle(1_000);
    let stranger: SocketAddr = "198.51.100.9:5000".parse().unwrap();
    world.traffic(100, 0);
    let seen = world.seen.clone();
    // All of it has arrived.
    world.idle(50);
    let mut refused = 0;
    let sealed = seen.iter().filter(|(_, bytes)| bytes[0] == 0x84);
    for (flow, (_, bytes)) in (1..8).cycle().zip(sealed) {
        // Another flow in the header, which the tag covers; and a copy as it is.
        let mut other = bytes.clone();
        other[1] ^= flow << 5;
        // Not one that the server has seen.
        other[8] ^= 0x01;
        for forged in [&other, bytes] {
            assert!(world.give(true, 0, stranger, forged).is_err());
            refused += 1;
        }
        world.drain();
    }
    let discards = world.server.session(SessionId(0)).unwrap().stats(world.now).discards;
    assert!(discards.of(Discard::Unauthenticated) + discards.of(Discard::Replayed) >= refused);
    assert_eq!(world.to.get(&stranger), None, "it got nothing");
    world.traffic(1_000, 100);
    assert_eq!(world.to.get(&stranger), None);
    assert_eq!(flows(&world), [2, 2]);
}

/// An attacker on the path delivers copies of a flow's datagrams sooner than the client's arrive.
#[test]
fn a_flow_whose_datagrams_come_from_elsewhere_gets_a_challenge_and_no_data() {
    let mut world = world(UdpFlows::Fixed(2));
    world.idle(1_000);
    world.traffic(500, 0);
    let stranger: SocketAddr = "198.51.100.9:5000".parse().unwrap();
    let mut copied = 0;
    let mut next = 500;
    world.run(2_000, |world| {
        let _ = world.server.handle_packet(packet(false, next), world.now);
        next += 1;
        // What left just now on the second flow.
        for (_, bytes) in std::mem::take(&mut world.seen) {
            if bytes[0] == 0x84 && bytes[1] == 1 << 5 {
                copied += bytes.len() as u64 + 28;
                let _ = world.give(true, 0, stranger, &bytes);
            }
        }
        world.drain();
    });
    let (_, sent) = world.to.get(&stranger).copied().unwrap_or_default();
    assert!(copied > 0 && sent > 0, "{copied} {sent}");
    assert!(sent <= 3 * copied, "{sent} of {copied}");
    assert_eq!(world.states(), [LinkState::Up]);
    world.idle(3_000);
    assert_eq!(flows(&world), [2, 2], "the client's own datagrams bring the flow back");
    assert!(world.down.len() >= 2_480, "{}", world.down.len());
}

#[test]
fn a_datagram_on_another_flows_socket_is_refused_and_counted() {
    let mut world = world(UdpFlows::Fixed(2));
    world.idle(1_000);
    // One of the server's on the first flow, before the client has it.
    let mut sent = None;
    world.run(300, |world| {
        let flight =
            world.flying.iter().find(|(_, flight)| !flight.0 && flight.1 == 0 && flight.3[0] == 0x84);
        if let (None, Some((_, flight))) = (&sent, flight) {
            sent = Some(flight.3.clone());
            let wrong = SocketId::of(LinkId(0), UdpFlow::new(1).unwrap());
            let refused = world.give(false, wrong.0, server_address(0), &flight.3.clone());
            assert_eq!(refused, Err(Discard::UnknownPeer));
        }
    });
    assert!(sent.is_some());
    assert!(world.client.stats(world.now).discards.of(Discard::UnknownPeer) >= 1);
}

/// A heartbeat may ask for more flows than there are, and a datagram cannot name a ninth.
#[test]
fn a_peer_that_asks_for_too_many_flows_gets_what_there_is() {
    let mut world = world(UdpFlows::Fixed(15));
    world.idle(3_000);
    assert_eq!((world.states(), flows(&world)), (vec![LinkState::Up], [8, 8]));
    let known: Vec<_> = world.to.keys().collect();
    assert_eq!(known.len(), 8, "{known:?}");
}

#[test]
fn the_only_link_is_used_at_once_when_it_is_back_however_often_it_failed() {
    let mut world = world(UdpFlows::Auto);
    world.idle(1_000);
    for _ in 0..4 {
        world.cut[0] = true;
        world.idle(2_500);
        world.cut[0] = false;
        world.run(600, |_| ());
        assert_eq!(world.states(), [LinkState::Up]);
    }
    // Each side fails once for each cut, and at most once more, for what the other tells of it.
    let is_down = |event: &&Event| matches!(event, Event::LinkState { to: LinkState::Down, .. });
    for events in [&world.events, &world.server_events] {
        let times = events.iter().filter(is_down).count();
        assert!((4..=8).contains(&times), "{times}: {events:?}");
    }
}
