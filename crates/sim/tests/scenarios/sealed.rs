//! Sealed sessions over emulated links: handshakes, rekeys, moves and restarts under load, and
//! attackers on the path.

use std::time::Duration;

use bonding_netem::{Change, Direction, Jitter, Loss, Rate, Scenario};
use bonding_proto::config::{Policy, Security};
use bonding_proto::view::LinkState;
use bonding_proto::{Discard, Instant};
use bonding_sim::bond::{BondWorld, MTU, SEALED_MTU, Setup};
use bonding_sim::host::tcp::CongestionControl;
use bonding_sim::mangle::{Mangler, Mangling};
use bonding_sim::run::{RunSpec, System, Transport, Workload, run};
use bonding_sim::world::Observed;

use crate::load::{Load, Side, assert_restarts, assert_sound, at, built_in, load, rates};

fn sealed(scenario: Scenario, seed: u64) -> Setup {
    Setup::new(scenario, Policy::Adaptive, seed).sealed()
}

/// Packets that the sources sent: up, down.
fn sent(world: &BondWorld) -> (u64, u64) {
    (world.client.host.report(0).sent, world.server.host.report(0).sent)
}

/// Packets that were sent and have not arrived: up, down.
fn missing(world: &BondWorld, load: &Load) -> (u64, u64) {
    let sent = sent(world);
    (sent.0 - load.up(world).received, sent.1 - load.down(world).received)
}

fn states(world: &BondWorld) -> Vec<LinkState> {
    let stats = world.client.machine.session_stats(world.now());
    stats.map_or_else(Vec::new, |stats| stats.links.iter().map(|link| link.state).collect())
}

/// Both sides have a usable link.
fn is_connected(world: &BondWorld) -> bool {
    let now = world.now();
    let sides = [world.client.machine.session_stats(now), world.server.machine.session_stats(now)];
    sides.into_iter().all(|stats| stats.is_some_and(|stats| stats.connected))
}

/// The rekeys of client and server.
fn rekeys(world: &BondWorld) -> [u64; 2] {
    let server = world.server.machine.session(bonding_proto::endpoint::SessionId(0));
    [world.client.machine.rekeys(), server.map_or(0, bonding_proto::Session::rekeys)]
}

/// A handshake succeeds over links that lose, double and reorder packets, in most cases at once.
#[test]
fn handshakes_get_through_a_third_of_everything_lost() {
    let mut times = Vec::new();
    for seed in 0..60 {
        let mut scenario = built_in("dual");
        for link in &mut scenario.links {
            for pipe in [&mut link.up, &mut link.down] {
                pipe.loss = Loss::Random { ratio: 0.3 };
                pipe.jitter = Jitter::uniform(Duration::from_millis(30), true);
            }
        }
        let mut world = sealed(scenario, seed).world();
        let mangling = Mangling { double: 200, replay: 100, ..Mangling::default() };
        world.set_mangler(Some(Mangler::new(mangling, seed)));
        while !is_connected(&world) {
            world.run_for(Duration::from_millis(20));
            assert!(world.now() < at(20.0), "seed {seed}: not connected after 20 s");
        }
        times.push(world.now().saturating_since(Instant::ZERO));
    }
    times.sort_unstable();
    let (half, most) = (times[times.len() / 2], times[times.len() * 9 / 10]);
    assert!(half < Duration::from_millis(300) && most < Duration::from_secs(3), "{half:?} {most:?}");
}

/// Keys are replaced under the links' full rate in both directions: no packet is lost, late or
/// doubled.
#[test]
fn rekeys_at_full_rate_lose_nothing() {
    let mut scenario = built_in("hetero");
    for (link, mbps) in scenario.links.iter_mut().zip([3, 1]) {
        for pipe in [&mut link.up, &mut link.down] {
            pipe.rate = Rate::from_mbps(mbps);
        }
    }
    let mut world = sealed(scenario, 1).with_ceilings().world();
    // 4 Mbit/s of datagrams carry 3.72 Mbit/s of packets of 1,000 bytes, less 1 % for pacing and
    // 4 % for feedback, heartbeats and the figures that each side tells.
    let load = load(&mut world, 3_520, 3_520, 372.0);
    world.run_until(at(373.0));
    // Every two minutes, and once for the first secret.
    assert_eq!(rekeys(&world), [4, 4]);
    assert!(sent(&world).0 > 162_000, "{:?}", sent(&world));
    assert_eq!(missing(&world, &load), (0, 0));
    assert_eq!((load.up(&world).reordered, load.down(&world).reordered), (0, 0));
    // Five handshakes; each was answered over both links.
    assert_eq!((world.client.refused_datagrams, world.server.refused_datagrams), (5, 0));
    assert_sound(&world, &load);
}

/// Up no packet is lost. Down the packets to the old address are lost: those of a round trip, and
/// of the time to the next datagram up.
#[test]
fn one_link_or_all_move_under_load_and_traffic_goes_on() {
    for moved in [vec![0], vec![0, 1]] {
        let mut world = sealed(built_in("dual"), 1).world();
        let load = load(&mut world, 20_000, 20_000, 8.0);
        world.run_until(at(3.0));
        for link in &moved {
            world.rebind(*link);
        }
        let (up, down) = rates(&mut world, &load, 3.2, 8.0);
        assert!(up > 19.8 && down > 19.8, "{moved:?}: {up} up, {down} down");
        assert_eq!(states(&world), [LinkState::Up; 2]);
        world.run_until(at(9.0));
        let (lost_up, lost_down) = missing(&world, &load);
        // 20 Mbit/s are 2,500 packets a second; the round trip is 20 ms.
        assert!(lost_up == 0 && lost_down < 2_500 / 20, "{moved:?}: lost {lost_up} up, {lost_down} down");
        for report in [load.up(&world), load.down(&world)] {
            assert_eq!((report.corrupt, report.duplicates), (0, 0), "{moved:?}");
        }
    }
}

#[test]
fn a_restarted_client_or_server_carries_traffic_within_two_seconds() {
    for side in [Side::Client, Side::Server] {
        assert_restarts(&sealed(built_in("hetero"), 1), side);
    }
}

/// A session begins over the last link alone; it finds the others later and uses them like any.
#[test]
fn links_that_come_later_are_used() {
    let mut world = sealed(built_in("reference"), 1).world();
    let outage = |world: &mut BondWorld, links: std::ops::Range<usize>, begins| {
        for link in links {
            for direction in Direction::BOTH {
                world.change_link(link, direction, Change::Outage(begins));
            }
        }
    };
    outage(&mut world, 0..4, true);
    let load = load(&mut world, 100_000, 100_000, 12.0);
    let (up, down) = rates(&mut world, &load, 2.0, 4.0);
    // The link carries 70 Mbit/s.
    assert!((55.0..70.0).contains(&up) && (55.0..70.0).contains(&down), "one link: {up} up, {down} down");
    outage(&mut world, 2..4, false);
    let (up, down) = rates(&mut world, &load, 6.0, 8.0);
    assert!(up > 98.0 && down > 98.0, "three links: {up} up, {down} down");
    outage(&mut world, 0..2, false);
    let (up, down) = rates(&mut world, &load, 10.0, 12.0);
    assert!(up > 98.0 && down > 98.0, "all links: {up} up, {down} down");
    assert_eq!(states(&world), [LinkState::Up; 5]);
    assert_sound(&world, &load);
}

/// One session over a sealed and a plain link: each carries its share, and each alone carries the
/// traffic on.
#[test]
fn plain_and_sealed_links_make_one_session() {
    for plain in [0, 1] {
        let mut setup = sealed(built_in("dual"), 1);
        setup.security[plain] = Security::Plain;
        let mut world = setup.world();
        let load = load(&mut world, 80_000, 80_000, 9.0);
        let (up, down) = rates(&mut world, &load, 2.0, 3.0);
        // Whole flows go over either kind of links, so these are not used to the full.
        assert!(up > 70.0 && down > 70.0, "link {plain} plain: {up} up, {down} down");
        let mut last = 0;
        for (dead, from) in [(0, 3.0), (1, 6.0)] {
            for (link, begins) in [(last, false), (dead, true)] {
                for direction in Direction::BOTH {
                    world.change_link(link, direction, Change::Outage(begins));
                }
            }
            last = dead;
            let (up, down) = rates(&mut world, &load, from + 1.5, from + 3.0);
            assert!(up > 44.0 && down > 44.0, "link {plain} plain, {dead} dead: {up} up, {down} down");
        }
        assert_sound(&world, &load);
    }
}

/// Every datagram that an attacker on the path repeats or forges is refused, and no other; traffic
/// does not suffer.
#[test]
fn everything_forged_or_repeated_is_refused() {
    for seed in 0..4 {
        let mut world = sealed(built_in("hetero"), seed).world();
        let load = load(&mut world, 40_000, 40_000, 6.0);
        world.run_until(at(1.0));
        // The handshake's response over the other link is refused, too.
        let before = world.client.refused_datagrams + world.server.refused_datagrams;
        let mangling = Mangling { double: 30, hold: 30, replay: 30, cut: 30, flip: 30, rubbish: 30 };
        world.set_mangler(Some(Mangler::new(mangling, seed)));
        let (up, down) = rates(&mut world, &load, 2.0, 6.0);
        assert!(up > 39.2 && down > 39.2, "seed {seed}: {up} up, {down} down");
        let mangler = world.mangler().unwrap();
        let (copied, forged) = (mangler.copied(), mangler.forged());
        assert!(copied > 1_500 && forged > 3_000, "seed {seed}: {copied} copied, {forged} forged");
        let now = world.now();
        let sessions = [world.client.machine.session_stats(now), world.server.machine.session_stats(now)];
        let of = |reason| sessions.iter().flatten().map(|stats| stats.discards.of(reason)).sum::<u64>();
        // A heartbeat that was held back is authentic, but stale.
        let refused = world.client.refused_datagrams + world.server.refused_datagrams;
        assert_eq!(refused - before - of(Discard::Stale), copied + forged, "seed {seed}");
        // A flipped counter may be one that the receiver has seen.
        assert!(
            (copied..copied + 60).contains(&of(Discard::Replayed)),
            "seed {seed}: {}",
            of(Discard::Replayed)
        );
        assert!(of(Discard::Unauthenticated) > 1_500, "seed {seed}: {}", of(Discard::Unauthenticated));
        assert_sound(&world, &load);
    }
}

fn goodput(setup: Setup) -> f64 {
    let transport = Transport::Tcp(CongestionControl::Cubic);
    let workload = Workload { transport, direction: Direction::Down, flows: 4 };
    let mut spec = RunSpec::new(setup.scenario.clone(), System::Bond(setup.policy), workload, setup.seed);
    spec.setup = setup;
    spec.duration = Duration::from_secs(10);
    let row = run(&spec, None);
    assert!(row.problems.is_empty(), "{:?}", row.problems);
    row.goodput_mbps
}

/// Sealing costs TCP only the bytes of header and tag; seeds differ by 2 %. Without resending,
/// which plain links do not have.
#[test]
fn sealing_costs_its_bytes() {
    let mut sums = [0.0, 0.0];
    for seed in 1..=8 {
        let mut plain = Setup::new(built_in("hetero"), Policy::Adaptive, seed);
        plain.recovery.resend = false;
        sums[0] += goodput(plain.clone().sealed());
        sums[1] += goodput(plain);
    }
    let bytes = f64::from(SEALED_MTU) / f64::from(MTU);
    assert!(sums[0] > sums[1] * bytes * 0.97, "{sums:?} Mbit/s");
}
