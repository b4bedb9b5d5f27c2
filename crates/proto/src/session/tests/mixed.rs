//! Sealed and plain links in one bond: what is not authenticated changes nothing of what is.

use super::world::*;
use super::*;

/// A client whose last link is plain, and its server.
fn mixed_world(links: u8) -> World {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], links);
    let (now, plain) = (world.now, links - 1);
    let mut client = session_config(&HOME, links, UdpFlows::Auto);
    client.links[usize::from(plain)].security = Security::Plain;
    world.client = Session::new(client, now);
    let remote = world.addresses[usize::from(plain)].ip();
    let peer = PlainPeer { link: LinkId(plain), remote, tx_rate: Some(BitRate::from_bps(50_000_000)) };
    world.server = endpoint(vec![ClientConfig { plain: vec![peer], ..enrolled(1, None) }], 7, now);
    world.idle(500);
    assert_eq!(world.states(), vec![LinkState::Up; usize::from(links)]);
    world
}

/// A forged plain heartbeat; it is newer than all that came before.
fn forged(world: &World, number: u64, change: impl FnOnce(&mut Heartbeat)) -> Vec<u8> {
    let later = world.now + Duration::from_secs(1);
    let mut heartbeat =
        Heartbeat { sent: 1_000 + number, partial: true, ..heartbeat(u32::from(HOME.run), later) };
    change(&mut heartbeat);
    let mut bytes = Vec::new();
    let len = heartbeat.payload_bytes();
    wire::put_frame_header(&mut bytes, 1_000_000 + number, Kind::Heartbeat, Modifiers::NONE, len);
    heartbeat.put(&mut bytes);
    bytes
}

fn server_states(world: &World) -> Vec<LinkState> {
    let session = world.server.session(SessionId(0)).unwrap();
    session.links.iter().map(Link::state).collect()
}

fn forge(world: &mut World, link: u8, bytes: &[u8]) {
    let from = world.addresses[usize::from(link)];
    let _ = world.give(true, link, from, bytes);
    world.drain();
}

#[test]
fn a_forged_plain_heartbeat_of_another_run_leaves_sealed_links_as_they_are() {
    let mut world = mixed_world(3);
    world.server_events.clear();
    for number in 0..20_u32 {
        let bytes = forged(&world, number.into(), |heartbeat| heartbeat.epoch = 77 + number);
        forge(&mut world, 2, &bytes);
        assert_eq!(server_states(&world)[..2], [LinkState::Up; 2]);
        world.idle(10);
    }
    let is_of_sealed = |event: &Event| {
        matches!(event, Event::PeerRestarted | Event::Disconnected)
            || matches!(event, Event::LinkState { link, .. } if link.0 < 2)
    };
    let of_sealed: Vec<_> = world.server_events.iter().filter(|event| is_of_sealed(event)).collect();
    assert!(of_sealed.is_empty(), "{of_sealed:?}");
    let end = world.traffic(300, 0);
    world.idle(200);
    assert!(world.up.len() == end as usize && world.down.len() == end as usize);
}

#[test]
fn failed_bits_of_a_plain_heartbeat_count_for_plain_links_alone() {
    let mut world = mixed_world(3);
    for number in 0..5 {
        let bytes =
            forged(&world, number, |heartbeat| heartbeat.failed = if number % 2 == 0 { 7 } else { 0 });
        forge(&mut world, 2, &bytes);
        assert_eq!(server_states(&world)[..2], [LinkState::Up; 2]);
    }
    // A sealed heartbeat counts for all.
    world.server_events.clear();
    world.client.links.on_socket_event(LinkId(2), SocketEvent::CarrierLost, world.now);
    world.idle(60);
    assert_eq!(server_states(&world)[2], LinkState::Down);
}

#[test]
fn capabilities_in_a_plain_heartbeat_count_for_plain_links_alone() {
    let mut world = mixed_world(2);
    let bytes = forged(&world, 0, |heartbeat| (heartbeat.at_once, heartbeat.partial) = (false, false));
    forge(&mut world, 1, &bytes);
    let peer = &world.server.session(SessionId(0)).unwrap().peer;
    let takes = |security| (peer.over(security).takes_at_once(), peer.over(security).takes_partial());
    assert_eq!(takes(Security::Sealed), (true, true));
    assert_eq!(takes(Security::Plain), (false, false));
}

/// A forged plain datagram with a packet of this number in that slot.
fn forged_data(slot: u16, counter: u64, number: u32) -> Vec<u8> {
    let (mut bytes, packet) = (Vec::new(), packet(true, number));
    let len = u16::try_from(packet.len()).unwrap();
    wire::put_frame_header(&mut bytes, wire::data_seq_num(slot, counter), Kind::Data, Modifiers::NONE, len);
    bytes.extend_from_slice(&packet);
    bytes
}

/// Takes the datagram with data that is on its way to the server.
fn take_data(world: &mut World) -> Flight {
    let is_data = |(_, flight): &(&(Instant, u64), &Flight)| flight.0 && flight.3.len() > 200;
    let key = *world.flying.iter().find(is_data).unwrap().0;
    world.flying.remove(&key).unwrap()
}

/// The forged packets have every number that fills the gap, and more slots than a receiver knows.
#[test]
fn forged_plain_data_changes_no_slot_of_sealed_links() {
    const FORGED: u32 = u32::MAX;
    let mut world = mixed_world(2);
    world.client.handle_packet(packet(true, 0), world.now).unwrap();
    world.drain();
    let (_, socket, from, first) = take_data(&mut world);
    world.client.handle_packet(packet(true, 1), world.now).unwrap();
    world.drain();
    world.idle(21);
    assert_eq!(world.up, [], "the second packet is held");
    for slot in 1..6_000 {
        for counter in 0..2 {
            forge(&mut world, 1, &forged_data(slot, counter, FORGED));
        }
    }
    world.up.retain(|number| *number != FORGED);
    assert_eq!(world.up, [], "what is forged fills no gap");
    world.give(true, socket, from, &first).unwrap();
    world.drain();
    assert_eq!(world.up, [0, 1]);
    assert_eq!(world.server.session(SessionId(0)).unwrap().stats(world.now).released_late, 0);
}

/// A packet of one of some bulk flows.
fn bulk(flow: u8, number: u32) -> PacketBuf {
    let mut bytes = packet(true, number).to_vec();
    bytes.resize(1_200, 0);
    bytes[2..4].copy_from_slice(&1_200_u16.to_be_bytes());
    bytes[21] = flow;
    bytes[24..26].copy_from_slice(&1_180_u16.to_be_bytes());
    bytes[28] = flow;
    PacketBuf::from(Bytes::from(bytes))
}

/// Whole flows go over the plain link, which is another 30 ms away: each keeps its order.
#[test]
fn several_flows_use_both_kinds_of_links_in_order() {
    let mut world = mixed_world(2);
    world.extra[1] = Duration::from_millis(30);
    let mut next = 0;
    world.run(3_000, |world| {
        for flow in (1..=4).flat_map(|flow| [flow; 4]) {
            world.client.handle_packet(bulk(flow, next), world.now).unwrap();
            next += 1;
        }
    });
    world.idle(300);
    let bytes: Vec<u64> = world.addresses.iter().map(|address| world.from[address]).collect();
    assert!(bytes.iter().all(|bytes| *bytes > 9_000_000), "three seconds of 50 Mbit/s are 18 MB: {bytes:?}");
    for flow in 1..=4 {
        let of_flow = world.up.iter().filter(|number| *number >> 24 == flow);
        assert!(of_flow.clone().count() > 1_000);
        assert!(of_flow.is_sorted(), "flow {flow}");
    }
    assert_eq!(world.server.session(SessionId(0)).unwrap().stats(world.now).released_late, 0);
}

/// The sealed link has gone for good.
#[test]
fn plain_links_go_on_alone_once_sealed_ones_are_dead() {
    let mut world = mixed_world(2);
    let end = world.traffic(300, 0);
    world.cut[0] = true;
    world.idle(3_000);
    let end = world.traffic(300, end);
    world.idle(300);
    assert_eq!((world.up.len(), world.down.len()), (end as usize, end as usize));
    assert_eq!(world.server.session(SessionId(0)).unwrap().stats(world.now).reorder_held, 0);
}

#[test]
fn a_restarted_client_is_found_over_both_kinds_of_links() {
    let mut world = mixed_world(2);
    let mut client = session_config(&Who { run: 2, ..HOME }, 2, UdpFlows::Auto);
    client.links[1].security = Security::Plain;
    world.client = Session::new(client, world.now);
    world.idle(2_500);
    assert_eq!(world.states(), [LinkState::Up; 2]);
    assert_eq!(server_states(&world), [LinkState::Up; 2]);
    world.up.clear();
    let end = world.traffic(300, 0);
    world.idle(200);
    assert_eq!(world.up.len(), end as usize);
}

/// Keys of one run, heartbeats of another: no true peer does that.
#[test]
fn a_sealed_heartbeat_of_another_run_than_its_keys_is_malformed() {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], 1);
    world.idle(300);
    world.server_events.clear();
    world.client.epoch ^= 5;
    world.idle(250);
    let session = world.server.session(SessionId(0)).unwrap();
    assert!(session.stats(world.now).discards.of(Discard::HeartbeatMalformed) >= 2);
    assert_eq!(session.peer.sealed.epoch(), Some(u32::from(HOME.run)));
    assert!(!world.server_events.contains(&Event::PeerRestarted));
}

/// What each side knows of the other's sending, by link.
fn told(world: &World) -> [Vec<Option<PeerStats>>; 2] {
    let server = world.server.session(SessionId(0)).unwrap();
    [&world.client, server]
        .map(|session| session.stats(world.now).links.into_iter().map(|link| link.peer).collect())
}

#[test]
fn sides_tell_each_other_of_their_sending_over_sealed_links_only() {
    let mut world = mixed_world(3);
    for number in 0..20 {
        let bytes = forged(&world, number, |heartbeat| heartbeat.figures = true);
        forge(&mut world, 2, &bytes);
    }
    world.traffic(3_000, 0);
    let client = world.client.stats(world.now);
    let sides = told(&world);
    for side in &sides {
        assert!(side[0].is_some() && side[1].is_some() && side[2].is_none(), "{side:?}");
        let newest = side.iter().flatten().map(|peer| peer.told_ago).min().unwrap();
        assert!(newest < Duration::from_millis(5_500), "{newest:?}");
    }
    // The server was told of what the client sends, a second ago at most.
    let (sent, heard) = (client.links[0].tx_rate.as_bps(), sides[1][0].unwrap().tx_rate.as_bps());
    assert!(heard > 0 && heard.abs_diff(sent) < sent.max(heard) / 2, "{heard} of {sent}");
    // Nothing is told any more, and nothing is shown.
    world.cut = vec![true; 3];
    world.idle(16_000);
    assert_eq!(told(&world), [vec![None; 3], vec![None; 3]]);
}

/// A peer of before does not ask for figures: no frame goes there that it does not know.
#[test]
fn a_peer_that_does_not_ask_is_told_nothing() {
    let mut link = Link::new(
        LinkId(0),
        Role::Client,
        &session_config(&HOME, 1, UdpFlows::Auto).links[0],
        Duration::from_millis(100),
        Instant::ZERO,
    );
    let path = Path { socket: SocketId(0), remote: server_address(0), local: None };
    let mut now = Instant::from_nanos(1_000_000_000);
    for (number, figures) in [(1, false), (2, true), (3, false)] {
        now = now + Duration::from_secs(10);
        link.on_heartbeat(number, &Heartbeat { figures, ..heartbeat(9, now) }, path, 7, now).unwrap();
        assert_eq!(link.take_figures(now).is_some(), figures);
    }
}
