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
