//! Links that come and go while packets cross the session.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::world::*;
use super::*;

/// The configuration of the client's link with this number.
fn line(id: u8) -> LinkConfig {
    session_config(&HOME, id + 1, UdpFlows::Auto).links.pop().unwrap()
}

/// A client with one link, in a world with room for more.
fn world(links: u8) -> World {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], links);
    world.client = session(&HOME, 1, world.now);
    world.idle(1_000);
    world
}

fn unplug(world: &mut World, id: u8) {
    world.cut[usize::from(id)] = true;
    world.client.retire_link(LinkId(id), world.now);
    world.drain();
}

fn plug(world: &mut World, id: u8) {
    world.cut[usize::from(id)] = false;
    world.client.set_link(LinkId(id), &line(id), world.now);
    world.drain();
}

/// Which numbers have no line, at the client and at its server.
fn retired(world: &World) -> [Vec<u8>; 2] {
    let of = |stats: SessionStats| {
        stats.links.iter().filter(|link| link.is_retired).map(|link| link.id.0).collect()
    };
    let server = world.server.session(SessionId(0)).unwrap().stats(world.now);
    [of(world.client.stats(world.now)), of(server)]
}

/// Bytes that a link carried up.
fn carried(world: &World, id: usize) -> u64 {
    world.client.stats(world.now).links[id].tx_bytes
}

#[test]
fn links_come_and_go_and_no_packet_is_lost() {
    let mut world = world(3);
    let mut next = world.traffic(500, 0);
    plug(&mut world, 1);
    next = world.traffic(200, next);
    assert_eq!(world.states(), [LinkState::Up; 2], "within 200 ms of 40 ms there and back");
    // The one that carries goes, with packets under way.
    unplug(&mut world, 0);
    next = world.traffic(300, next);
    assert_eq!(retired(&world), [vec![0], vec![0]]);
    assert!(world.server_events.contains(&Event::LinkRetired { link: LinkId(0) }));
    plug(&mut world, 2);
    next = world.traffic(100, next);
    unplug(&mut world, 1);
    next = world.traffic(1_000, next);
    world.idle(500);
    let lost = |numbers: &[u32]| (0..next).filter(|number| !numbers.contains(number)).count();
    assert_eq!((lost(&world.up), world.up.len()), (0, next as usize));
    assert_eq!((lost(&world.down), world.down.len()), (0, next as usize));
    assert_eq!(retired(&world), [vec![0, 1], vec![0, 1]]);
    assert!(world.client.is_connected());
}

#[test]
fn a_server_forgets_where_a_retired_link_was_heard() {
    let mut world = world(2);
    plug(&mut world, 1);
    world.traffic(500, 0);
    unplug(&mut world, 1);
    world.idle(300);
    let sent = world.to[&world.addresses[1]];
    world.traffic(2_000, 500);
    assert_eq!(world.to[&world.addresses[1]], sent, "nothing goes there any more");
    let of = |stats: SessionStats| (stats.links[1].state, stats.links[1].path);
    let server = world.server.session(SessionId(0)).unwrap().stats(world.now);
    assert_eq!(of(server), (LinkState::Down, None));
    assert_eq!(of(world.client.stats(world.now)), (LinkState::Down, None));
}

#[test]
fn the_line_comes_back_over_another_address_with_the_number_that_it_had() {
    let mut world = world(2);
    plug(&mut world, 1);
    world.traffic(3_000, 0);
    let before = carried(&world, 1);
    unplug(&mut world, 1);
    // Shorter than the server needs to hear of it, and longer.
    for pause in [0, 10, 500, 5_000] {
        world.idle(pause);
        world.addresses[1] = SocketAddr::from(([198, 51, 100, 9], 1_000 + u16::try_from(pause).unwrap()));
        plug(&mut world, 1);
        world.idle(250);
        assert_eq!(world.states(), [LinkState::Up; 2], "{pause} ms");
        assert_eq!(retired(&world), [vec![], vec![]], "{pause} ms");
        let server = world.server.session(SessionId(0)).unwrap().stats(world.now);
        assert_eq!(server.links[1].state, LinkState::Up, "{pause} ms");
        unplug(&mut world, 1);
    }
    assert!(carried(&world, 1) > before, "totals go on");
}

#[test]
fn the_number_serves_another_line_though_the_server_was_never_told() {
    let mut world = world(1);
    world.traffic(2_000, 0);
    // The only link: nothing tells the server.
    unplug(&mut world, 0);
    world.idle(3_000);
    assert!(!world.client.is_connected());
    world.addresses[0] = SocketAddr::from(([198, 51, 100, 9], 2_000));
    plug(&mut world, 0);
    world.idle(1_500);
    let (up, down) = (world.up.len(), world.down.len());
    world.traffic(500, 2_000);
    world.idle(200);
    assert_eq!((world.up.len() - up, world.down.len() - down), (500, 500));
}

#[test]
fn a_restarted_server_learns_which_numbers_have_no_line() {
    let mut world = world(2);
    plug(&mut world, 1);
    world.traffic(500, 0);
    unplug(&mut world, 0);
    world.idle(500);
    world.server = endpoint(vec![enrolled(1, None)], 8, world.now);
    world.idle(5_000);
    assert!(world.client.is_connected());
    assert_eq!(retired(&world), [vec![0], vec![0]]);
}

#[test]
fn an_answer_of_the_line_before_proves_nothing() {
    let mut world = world(2);
    plug(&mut world, 1);
    world.idle(500);
    // The line before answers over the same address, and then nothing does.
    world.client.retire_link(LinkId(1), world.now);
    world.client.set_link(LinkId(1), &line(1), world.now);
    world.cut[1] = true;
    world.idle(30);
    assert_eq!(world.states()[1], LinkState::Down);
    world.cut[1] = false;
    world.idle(500);
    assert_eq!(world.states()[1], LinkState::Up);
}

#[test]
fn at_most_32_links_are_used_and_numbers_have_no_gaps() {
    let mut session = session(&HOME, 1, Instant::ZERO);
    session.set_link(LinkId(5), &line(5), Instant::ZERO);
    assert_eq!(session.stats(Instant::ZERO).links.len(), 1, "the next one is 1");
    for id in 1..40 {
        session.set_link(LinkId(id), &line(id), Instant::ZERO);
    }
    assert_eq!(session.stats(Instant::ZERO).links.len(), 32);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_comes_and_goes_the_session_is_whole_afterwards(
        steps in proptest::collection::vec((0..4_u8, any::<bool>(), 0..300_u64), 1..20)
    ) {
        let mut world = world(4);
        let mut next = 0;
        let is_there = |world: &World, id: u8| {
            let links = world.client.stats(world.now).links;
            links.get(usize::from(id)).map(|link| !link.is_retired)
        };
        for (id, comes, ms) in steps {
            match is_there(&world, id) {
                Some(true) if !comes => unplug(&mut world, id),
                Some(false) if comes => plug(&mut world, id),
                None if comes => {
                    // Numbers have no gaps.
                    let count = world.client.stats(world.now).links.len();
                    plug(&mut world, u8::try_from(count).unwrap());
                }
                _ => {}
            }
            next = world.traffic(ms, next);
        }
        for id in 0..4 {
            if is_there(&world, id) != Some(true) {
                plug(&mut world, id);
            }
        }
        world.idle(5_000);
        prop_assert_eq!(world.states(), [LinkState::Up; 4]);
        prop_assert_eq!(retired(&world), [vec![], vec![]]);
        let before = (world.up.len(), world.down.len());
        next = world.traffic(300, next);
        world.idle(300);
        prop_assert_eq!((world.up.len() - before.0, world.down.len() - before.1), (300, 300));
        for numbers in [&world.up, &world.down] {
            let distinct: BTreeSet<u32> = numbers.iter().copied().collect();
            prop_assert_eq!(distinct.len(), numbers.len(), "none twice");
            prop_assert!(distinct.iter().all(|number| *number < next));
        }
    }
}
