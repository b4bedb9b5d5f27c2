//! Links that carry less than their interfaces say, under a sealed client and its server, in
//! virtual time.

use super::world::{HOME, World, complete, enrolled};
use super::*;
use crate::inner::samples::sum;

const DONT_FRAGMENT: u16 = 0x4000;

/// An IPv4 UDP packet of `size` bytes, numbered, from the client or to it.
fn sized(up: bool, number: u32, size: usize, flags: u16) -> PacketBuf {
    let mut bytes = super::world::packet(up, number).to_vec();
    bytes.resize(size, 0);
    bytes[2..4].copy_from_slice(&u16::try_from(size).unwrap().to_be_bytes());
    bytes[6..8].copy_from_slice(&flags.to_be_bytes());
    // Ports: large packets are a flow of their own.
    bytes[20] = if size > 300 { 9 } else { 0 };
    PacketBuf::from(Bytes::from(bytes))
}

fn world(limits: &[usize]) -> World {
    let mut world = World::new(&HOME, vec![enrolled(1, None)], u8::try_from(limits.len()).unwrap());
    world.limits = limits.iter().map(|limit| [*limit; 2]).collect();
    world
}

fn mtus(world: &World) -> [Vec<Option<u16>>; 2] {
    let client = world.client.stats(world.now);
    let server = world.server.session(SessionId(0)).unwrap().stats(world.now);
    [client, server].map(|stats| stats.links.iter().map(|link| link.mtu).collect())
}

fn too_big(world: &World) -> [u64; 2] {
    let server = world.server.session(SessionId(0)).unwrap().stats(world.now);
    [world.client.stats(world.now), server].map(|stats| stats.discards.of(Discard::TooBig))
}

/// The MTU that an ICMP answer tells, its checksums verified.
fn told(answer: &PacketBuf) -> u16 {
    assert_eq!((sum(&[&answer[..20]]), sum(&[&answer[20..]])), (0xffff, 0xffff));
    assert_eq!(answer[20..22], [3, 4]);
    u16::from_be_bytes([answer[26], answer[27]])
}

#[test]
fn both_sides_find_what_each_link_carries() {
    let mut world = world(&[1_500, 1_300, 1_492, 1_200]);
    world.limits[2] = [1_492, 1_400];
    world.idle(3_000);
    assert_eq!(
        mtus(&world),
        [
            vec![Some(1_500), Some(1_300), Some(1_492), Some(1_200)],
            vec![Some(1_500), Some(1_300), Some(1_400), Some(1_200)],
        ]
    );
    assert_eq!(world.client.tunnel_mtu(), 1_421, "1,492 less 71; what is below 1,351 is left out");
    let told = world.events.iter().filter(|event| matches!(event, Event::LinkMtu { .. })).count();
    assert_eq!(told, 4);
    // What was lost in the search is not the links' loss.
    let stats = [world.client.stats(world.now), world.server.session(SessionId(0)).unwrap().stats(world.now)];
    let losses = stats.iter().flat_map(|stats| &stats.links).map(|link| link.loss_permille);
    assert!(losses.into_iter().all(|loss| loss == 0));
    // And an idle bond sends heartbeats only, of which two on each link have figures.
    let before: u64 = world.from.values().sum();
    world.idle(10_000);
    let after: u64 = world.from.values().sum();
    assert_eq!(after - before, 4 * 100 * (60 + 11 + 32 + 28) + 4 * 2 * (14 + 11));
}

#[test]
fn large_packets_go_where_they_fit_and_small_ones_anywhere() {
    let mut world = world(&[1_300, 1_500]);
    world.idle(2_000);
    let mut next = 0;
    let carried = |world: &World| {
        let links = world.client.stats(world.now).links;
        (links[0].tx_bytes, links[1].tx_bytes)
    };
    let start = carried(&world);
    world.run(1_000, |world| {
        for size in [1_429, 1_229, 200] {
            let _ = world.client.handle_packet(sized(true, next, size, DONT_FRAGMENT), world.now);
            let _ = world.server.handle_packet(sized(false, next, size, DONT_FRAGMENT), world.now);
            next += 1;
        }
    });
    world.idle(200);
    assert_eq!((world.up.len(), world.down.len()), (3_000, 3_000));
    assert_eq!(too_big(&world), [0, 0]);
    let end = carried(&world);
    assert!(end.1 - start.1 >= 1_000 * 1_500, "every full packet");
    assert!(end.0 - start.0 >= 1_000 * 200, "the best link carries what fits it");
}

#[test]
fn what_no_link_carries_is_answered_or_cut() {
    let mut world = world(&[1_300, 1_280]);
    world.idle(3_000);
    assert_eq!(world.client.tunnel_mtu(), 1_280);
    let now = world.now;
    let up = world.client.handle_packet(sized(true, 1, 1_230, DONT_FRAGMENT), now);
    let down = world.server.handle_packet(sized(false, 2, 1_230, DONT_FRAGMENT), now);
    assert_eq!((up, down), (Err(Discard::TooBig), Err(Discard::TooBig)));
    world.idle(100);
    assert_eq!(
        world.others.clone().map(|answers| answers.iter().map(told).collect::<Vec<_>>()),
        [[1_229], [1_229]]
    );
    assert_eq!(
        world.others[1][0][12..20],
        [10, 99, 0, 2, 198, 51, 100, 2],
        "the client's address tells the internet"
    );

    assert_eq!(world.client.handle_packet(sized(true, 3, 1_420, 0), world.now), Ok(()));
    assert_eq!(world.server.handle_packet(sized(false, 4, 1_420, 0), world.now), Ok(()));
    world.idle(100);
    assert_eq!(world.sizes, [vec![20 + 1_208, 20 + 192], vec![20 + 1_208, 20 + 192]]);
    assert_eq!(too_big(&world), [1, 1]);
}

#[test]
fn answers_are_rationed() {
    let mut world = world(&[1_300]);
    world.idle(3_000);
    for number in 0..1_000 {
        let packet = sized(true, number, 1_400, DONT_FRAGMENT);
        assert_eq!(world.client.handle_packet(packet, world.now), Err(Discard::TooBig));
    }
    world.idle(1);
    assert_eq!((world.others[0].len(), too_big(&world)[0]), (50, 1_000));
    world.idle(100);
    for number in 0..1_000 {
        let _ = world.client.handle_packet(sized(true, number, 1_400, DONT_FRAGMENT), world.now);
    }
    world.idle(1);
    assert_eq!(world.others[0].len(), 60);
}

#[test]
fn full_packets_from_the_first_moment_on_wait_for_the_first_probe() {
    let mut world = world(&[1_500]);
    let mut next = 0;
    world.run(1_000, |world| {
        if world.client.handle_packet(sized(true, next, 1_429, DONT_FRAGMENT), world.now).is_ok() {
            next += 1;
        }
    });
    world.idle(200);
    assert!(next > 900, "{next}");
    assert!(complete(&world.up, world.up.last().unwrap() + 1) && world.up.len() == next as usize);
    assert_eq!((too_big(&world)[0], world.others[0].len()), (0, 0));
}

/// One link becomes narrow under load, alone and beside another: small packets and the other link
/// go on all the time, and full packets pass again, or are answered, within 5 s.
#[test]
fn a_black_hole_is_left_within_5_s() {
    for links in [1, 2] {
        let mut world = world(&vec![1_500; links]);
        world.idle(500);
        let load = |world: &mut World, next: &mut u32| {
            for size in [1_429, 200] {
                let _ = world.client.handle_packet(sized(true, *next, size, DONT_FRAGMENT), world.now);
                *next += 1;
            }
        };
        let mut next = 0;
        world.run(2_000, |world| load(world, &mut next));
        world.idle(100);
        assert_eq!(world.up.len(), next as usize);
        world.limits[0] = [1_300; 2];
        let (begin, before) = (world.now, next);
        let mut answered = None;
        world.run(5_000, |world| {
            load(world, &mut next);
            if answered.is_none() && !world.others[0].is_empty() {
                answered = Some(world.now - begin);
            }
        });
        world.idle(100);
        let small = world.up.iter().filter(|number| **number >= before && **number % 2 == 1).count();
        assert_eq!(small, 5_000, "{links} links");
        assert_eq!(mtus(&world)[0][0], Some(1_300));
        if links == 1 {
            assert!(answered.unwrap() < Duration::from_millis(2_500), "{answered:?}");
            assert_eq!(told(world.others[0].last().unwrap()), 1_229);
        } else {
            assert_eq!(answered, None);
            let (from, count) = (world.up.len(), next);
            world.run(1_000, |world| load(world, &mut next));
            world.idle(100);
            assert_eq!(world.up.len() - from, (next - count) as usize);
        }
        assert_eq!(
            world.client.stats(world.now).links[0].loss_permille,
            0,
            "the hole's losses are forgotten"
        );
    }
}

const fn refused(path: &Path, bytes: usize) -> SocketEvent {
    SocketEvent::TooBig { remote: path.remote, bytes }
}

#[test]
fn what_the_kernel_refuses_is_told_and_followed() {
    let mut world = world(&[1_500]);
    world.idle(1_000);
    let path = world.client.stats(world.now).links[0].path.unwrap();
    // The interface carries 1,420 bytes now: the kernel refuses, and would drop, what is larger.
    world.limits[0] = [1_420; 2];
    world.client.handle_socket_event(path.socket, refused(&path, 1_472), world.now);
    world.idle(1_500);
    assert_eq!(mtus(&world)[0], [Some(1_420)]);
    let path = world.server.session(SessionId(0)).unwrap().stats(world.now).links[0].path.unwrap();
    world.server.handle_socket_event(path.socket, refused(&path, 1_472), world.now);
    world.idle(1_500);
    assert_eq!(mtus(&world)[1], [Some(1_420)]);
    let other = Path { remote: "192.0.2.99:1".parse().unwrap(), ..path };
    world.server.handle_socket_event(other.socket, refused(&other, 1_300), world.now);
    assert_eq!(mtus(&world)[1], [Some(1_420)]);
}

#[test]
fn connections_are_told_segments_that_every_link_carries() {
    let mut world = world(&[1_500, 1_300]);
    world.idle(2_000);
    let syn = |up: bool| {
        let mut bytes = sized(up, 0, 44, DONT_FRAGMENT).to_vec();
        bytes[9] = 6;
        bytes[20..44].copy_from_slice(&[
            0x9c, 0x40, 0x14, 0x51, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 0x12, 0, 0, 0, 0, 0, 0, 2, 4, 5, 0x6d,
        ]);
        PacketBuf::from(Bytes::from(bytes))
    };
    world.client.handle_packet(syn(true), world.now).unwrap();
    world.server.handle_packet(syn(false), world.now).unwrap();
    world.idle(100);
    let says = |packet: &PacketBuf| u16::from_be_bytes([packet[42], packet[43]]);
    assert_eq!(
        world.others.clone().map(|packets| packets.iter().map(says).collect::<Vec<_>>()),
        [[1_189], [1_189]]
    );
}

/// Much or little traffic, quick or satellite: 5 s after a path became narrow, the sender of what
/// it does not carry is told.
#[test]
fn a_narrow_path_is_known_within_5_s_whatever_its_delay() {
    for (delay_ms, every_ms) in [(10, 1), (10, 1_000), (150, 10), (150, 1_000), (300, 1), (300, 1_000)] {
        let mut world = world(&[1_500]);
        world.delay = Duration::from_millis(delay_ms);
        world.idle(5_000);
        let mut next = 0;
        let mut load = |world: &mut World| {
            next += 1;
            if next % every_ms == 0 {
                let packet = sized(true, next, 1_429, DONT_FRAGMENT);
                let _ = world.client.handle_packet(packet, world.now);
            }
        };
        world.run(5_000, &mut load);
        assert_eq!(mtus(&world)[0], [Some(1_500)]);
        world.limits[0] = [1_300; 2];
        world.run(5_000, &mut load);
        assert_eq!(mtus(&world)[0], [Some(1_300)], "{delay_ms} ms, a packet every {every_ms} ms");
        assert_eq!(world.others[0].iter().map(told).max(), Some(1_229));
    }
}
