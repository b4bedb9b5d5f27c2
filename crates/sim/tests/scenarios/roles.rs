//! Links of different worth: roles, and links that are too slow to be of use.

use std::time::Duration;

use bonding_netem::{Change, Direction, Loss, Scenario};
use bonding_proto::config::Policy;
use bonding_proto::view::{LinkRole, LinkState};
use bonding_proto::{Discard, LinkId};
use bonding_sim::bond::{BondWorld, Setup};
use bonding_sim::host::quic::QuicControl;
use bonding_sim::host::tcp::CongestionControl;
use bonding_sim::run::{RunSpec, System, Transport, Workload, run};

use crate::load::{assert_sound, at, built_in, load, made, rates};

/// Links of these rates in Mbit/s, RTTs in ms and losses.
fn links(links: &[(&str, u32, u32, &str)]) -> Scenario {
    let mut text = String::new();
    for (name, mbit, rtt, loss) in links {
        text += &format!(
            "[[link]]\nname = \"{name}\"\nrate = \"{mbit}mbit\"\nrtt = \"{rtt}ms\"\nqueue = \"100ms\"\nloss = \"{loss}\"\n"
        );
    }
    made("8s", &text)
}

const PHONE: (&str, u32, u32, &str) = ("phone", 1, 600, "0%");

/// Mbit/s of one QUIC flow. smoltcp's TCP needs seconds to recover from a queue's signal, and the
/// links' start decides how many signals come.
fn goodput(scenario: &Scenario, direction: Direction) -> f64 {
    let transport = Transport::Quic(QuicControl::Cubic);
    let workload = Workload { transport, direction, flows: 1 };
    let row = run(&RunSpec::new(scenario.clone(), System::Bond(Policy::Adaptive), workload, 1), None);
    assert_eq!(row.problems, Vec::<String>::new());
    row.goodput_mbps
}

#[test]
fn a_satellite_phone_takes_nothing_from_the_links_beside_it() {
    let (a, b) = (("a", 50, 30, "0%"), ("b", 50, 40, "0%"));
    for direction in Direction::BOTH {
        let alone = goodput(&links(&[a, b]), direction);
        assert!(alone > 80.0, "{direction:?}: {alone}");
        for order in [[a, b, PHONE], [PHONE, a, b]] {
            let with = goodput(&links(&order), direction);
            assert!(with > alone * 0.97, "{direction:?}, {order:?}: {with} beside {alone}");
        }
    }
}

#[test]
fn a_satellite_that_carries_most_is_not_held_up_by_a_slow_line() {
    let scenario = links(&[("line", 2, 30, "0%"), ("satellite", 50, 600, "0%")]);
    let mut world = Setup::new(scenario, Policy::Adaptive, 1).with_ceilings().world();
    let load = load(&mut world, 0, 40_000, 6.0);
    let (_, down) = rates(&mut world, &load, 3.0, 6.0);
    assert!(down > 39.5, "{down}");
    world.run_until(at(8.0));
    assert_sound(&world, &load);
    let stats = world.client.machine.stats(world.now());
    assert_eq!((stats.released_late, stats.reorder_timeouts), (0, 0));
}

/// A loss on a good link is known at once: the resequencer does not wait for the phone's link.
#[test]
fn a_gap_is_not_held_for_a_link_that_is_too_slow_to_fill_it() {
    let held_most = |with_phone: bool| {
        let mut all = vec![("a", 50, 30, "0.5%"), ("b", 50, 40, "0.5%")];
        all.extend(with_phone.then_some(PHONE));
        let mut world = Setup::new(links(&all), Policy::Adaptive, 1).with_ceilings().world();
        let load = load(&mut world, 0, 60_000, 8.0);
        world.run_until(at(9.0));
        assert_sound(&world, &load);
        world.client.machine.stats(world.now()).reorder_held_max
    };
    let (without, with) = (held_most(false), held_most(true));
    assert!(without > 0 && with <= without * 3 / 2, "{with} packets held with the phone, {without} without");
}

/// Two links of 50 Mbit/s, with roles.
fn pair(roles: [LinkRole; 2], policy: Policy) -> BondWorld {
    let mut setup = Setup::new(built_in("dual"), policy, 1).with_ceilings();
    setup.roles = roles.to_vec();
    setup.world()
}

fn data_bytes(world: &mut BondWorld, link: usize) -> [u64; 2] {
    [Direction::Up, Direction::Down].map(|direction| world.link_counters(link, direction).delivered_bytes)
}

#[test]
fn a_secondary_link_joins_when_the_primary_one_is_full_and_a_backup_does_not() {
    for policy in [Policy::Adaptive, Policy::Score, Policy::RoundRobin] {
        for (role, light, heavy) in [
            (LinkRole::Primary, 20.0..20.5, 79.0..80.5),
            (LinkRole::Secondary, 20.0..20.5, 79.0..80.5),
            (LinkRole::Backup, 20.0..20.5, 46.0..50.0),
        ] {
            // Only heartbeats for the second link: 100 bytes, ten a second.
            let mut world = pair([LinkRole::Primary, role], policy);
            let load = load(&mut world, 20_000, 20_000, 5.0);
            let (up, down) = rates(&mut world, &load, 2.0, 5.0);
            assert!(
                light.contains(&up) && light.contains(&down),
                "{policy:?} {role:?}: {up} up, {down} down"
            );
            let idle = data_bytes(&mut world, 1);
            if role != LinkRole::Primary {
                assert!(idle.iter().all(|bytes| *bytes < 10_000), "{policy:?} {role:?}: {idle:?}");
            }
            assert_sound(&world, &load);
            // The policy `score` fills only links that it has not found full.
            if policy != Policy::Score {
                let mut world = pair([LinkRole::Primary, role], policy);
                let load = self::load(&mut world, 80_000, 80_000, 5.0);
                let (up, down) = rates(&mut world, &load, 2.0, 5.0);
                assert!(
                    heavy.contains(&up) && heavy.contains(&down),
                    "{policy:?} {role:?}: {up} up, {down} down"
                );
                assert_sound(&world, &load);
            }
        }
    }
}

#[test]
fn a_backup_takes_over_and_gives_back() {
    for policy in [Policy::Adaptive, Policy::Score, Policy::RoundRobin] {
        let mut world = pair([LinkRole::Primary, LinkRole::Backup], policy);
        let load = load(&mut world, 10_000, 10_000, 12.0);
        world.run_until(at(3.0));
        let unused = data_bytes(&mut world, 1);
        assert!(unused.iter().all(|bytes| *bytes < 10_000), "{policy:?}: {unused:?}");
        for direction in Direction::BOTH {
            world.change_link(0, direction, Change::Outage(true));
        }
        let (up, down) = rates(&mut world, &load, 4.0, 6.0);
        assert!((9.9..10.1).contains(&up) && (9.9..10.1).contains(&down), "{policy:?}: {up} up, {down} down");
        for direction in Direction::BOTH {
            world.change_link(0, direction, Change::Outage(false));
        }
        world.run_until(at(8.0));
        let before = data_bytes(&mut world, 1);
        let (up, down) = rates(&mut world, &load, 8.0, 10.0);
        let after = data_bytes(&mut world, 1);
        assert!((9.9..10.1).contains(&up) && (9.9..10.1).contains(&down), "{policy:?}: {up} up, {down} down");
        assert!(
            after[0] - before[0] < 6_000 && after[1] - before[1] < 6_000,
            "{policy:?}: {before:?} {after:?}"
        );
        assert_sound(&world, &load);
    }
}

#[test]
fn a_link_for_no_data_is_measured_and_does_not_connect() {
    let mut world = pair([LinkRole::Never, LinkRole::Never], Policy::Adaptive);
    let load = load(&mut world, 1_000, 1_000, 3.0);
    world.run_until(at(4.0));
    assert_eq!((load.up(&world).received, load.down(&world).received), (0, 0));
    let stats = world.client.machine.stats(world.now());
    assert!(!stats.connected);
    for link in &stats.links {
        assert_eq!(link.role, LinkRole::Never);
        assert!(link.rtt.is_some_and(|rtt| rtt < Duration::from_millis(25)), "{link:?}");
    }
    // The link costs little: a heartbeat of 99 bytes every 5 s. The peer does not take the pauses
    // for an outage.
    for step in 4..60 {
        world.run_until(at(f64::from(step)));
        let stats = world.server.machine.stats(world.now()).remove(0).1;
        assert!(stats.links.iter().all(|link| link.state == LinkState::Up), "{stats:?}");
    }
    for link in 0..2 {
        let bytes = data_bytes(&mut world, link);
        assert!(bytes.iter().all(|bytes| *bytes < 1_700), "{bytes:?}");
    }
}

/// As when a link's data cap is used up: the server follows the client's choice within a round
/// trip.
#[test]
fn a_role_changes_while_traffic_flows() {
    let mut world = pair([LinkRole::Primary, LinkRole::Primary], Policy::RoundRobin);
    let load = load(&mut world, 20_000, 20_000, 6.0);
    world.run_until(at(3.0));
    let now = world.now();
    world.client.machine.set_link_role(LinkId(1), LinkRole::Backup, now);
    world.run_until(at(3.05));
    let before = data_bytes(&mut world, 1);
    let (up, down) = rates(&mut world, &load, 3.1, 5.0);
    let after = data_bytes(&mut world, 1);
    assert!((19.9..20.1).contains(&up) && (19.9..20.1).contains(&down), "{up} up, {down} down");
    assert!(before[0] > 1_000_000 && before[1] > 1_000_000, "{before:?}");
    assert!(after[0] - before[0] < 10_000 && after[1] - before[1] < 10_000, "{before:?} {after:?}");
    assert_sound(&world, &load);
}

/// A lossy link is left out, and used again once it has proven that it lost no more.
#[test]
fn a_link_that_has_healed_is_used_again() {
    let mut world = Setup::new(built_in("lossy"), Policy::Adaptive, 1).world();
    let load = load(&mut world, 0, 60_000, 60.0);
    world.run_until(at(15.0));
    let bytes = |world: &mut BondWorld, second: f64| {
        let before = data_bytes(world, 1)[1];
        world.run_until(at(second));
        data_bytes(world, 1)[1] - before
    };
    // 2 % of 50 Mbit/s for 5 s, and heartbeats; with all its data it would be 6 MB and more.
    let left_out = bytes(&mut world, 20.0);
    assert!((500_000..1_000_000).contains(&left_out), "{left_out}");
    for direction in Direction::BOTH {
        world.change_link(1, direction, Change::Loss(Loss::None));
    }
    world.run_until(at(45.0));
    let healed = bytes(&mut world, 50.0);
    assert!(healed > 6_000_000, "{healed}");
    world.run_until(at(62.0));
    assert_sound(&world, &load);
}

#[test]
fn redundant_packets_survive_what_one_link_loses_and_arrive_once() {
    // Copies over the phone's link arrive 285 ms later.
    let scenario = links(&[("a", 50, 30, "5%"), ("b", 50, 40, "5%"), PHONE]);
    let lost = |policy| {
        let mut world = Setup::new(scenario.clone(), policy, 1).world();
        let load = load(&mut world, 300, 10_000, 9.0);
        world.run_until(at(11.0));
        assert_sound(&world, &load);
        let now = world.now();
        let (client, server) = (world.client.machine.stats(now), world.server.machine.stats(now).remove(0).1);
        for stats in [&client, &server] {
            assert_eq!(stats.discards.of(Discard::Duplicate), 0, "{stats:?}");
            // The phone's queue grew for a moment when its rate was found out: a copy that waited
            // in it came later than the flow's last 1,024 packets.
            let stale = stats.discards.of(Discard::Stale);
            assert!(stale <= stats.packets_out / 500, "{stats:?}");
        }
        if policy == Policy::Redundant {
            let received = [client.packets_out, server.packets_out];
            let duplicates = [client.duplicates, server.duplicates];
            assert!(
                duplicates[0] > received[0] / 2 && duplicates[1] > received[1] / 2,
                "{duplicates:?} of {received:?}"
            );
        }
        let sent = [world.client.host.report(0).sent, world.server.host.report(0).sent];
        let received = [load.up(&world).received, load.down(&world).received];
        [0, 1].map(|way| (sent[way] - received[way]) as f64 / sent[way] as f64)
    };
    let [up, down] = lost(Policy::Redundant);
    // 5 % of 5 %; for sparse packets almost never.
    assert!(up < 0.004 && down < 0.005, "{up} up, {down} down");
    let [up, down] = lost(Policy::Adaptive);
    assert!(up > 0.02 && down > 0.02, "{up} up, {down} down");
}

#[test]
fn redundant_is_not_slower_than_the_best_link_alone() {
    let transport = Transport::Tcp(CongestionControl::Cubic);
    let workload = Workload { transport, direction: Direction::Down, flows: 1 };
    for name in ["hetero", "satphone", "reference"] {
        let goodput = |system| {
            let mut spec = RunSpec::new(built_in(name), system, workload, 1);
            spec.duration = Duration::from_secs(10);
            let row = run(&spec, None);
            assert_eq!(row.problems, Vec::<String>::new(), "{name}");
            row.goodput_mbps
        };
        let (alone, all) = (goodput(System::Single), goodput(System::Bond(Policy::Redundant)));
        assert!(all > alone * 0.9, "{name}: {all} beside {alone}");
    }
}

/// Links that differ only by chance: packets of light traffic keep to one of them.
#[test]
fn light_traffic_does_not_alternate_between_links_that_are_alike() {
    let link =
        |name| format!("[[link]]\nname = \"{name}\"\nrate = \"50mbit\"\nrtt = \"40ms\"\njitter = \"5ms\"\n");
    let scenario = made("20s", &(link("a") + &link("b")));
    let mut setup = Setup::new(scenario, Policy::Adaptive, 1).with_ceilings();
    setup.priorities = vec![1, 1];
    let mut world = setup.world();
    world.run_until(at(1.0));
    let now = world.now();
    world.ledger_up.keep_log(now);
    let load = load(&mut world, 300, 300, 20.0);
    world.run_until(at(21.0));
    assert_sound(&world, &load);
    let links: Vec<usize> =
        world.ledger_up.take_log().iter().filter_map(|passage| passage.sent).map(|sent| sent.0).collect();
    let changes = links.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(links.len() > 600 && changes <= 4, "{changes} changes in {} packets", links.len());
}
