//! Both sides' view of a link, and its delay: a link that goes silent, that loses its carrier, or
//! that only seems to.

use bonding_netem::Scenario;
use bonding_proto::config::Policy;
use bonding_proto::view::LinkState;
use bonding_sim::bond::{BondWorld, Setup};
use bonding_sim::host::bulk::{BulkConfig, End};
use bonding_sim::host::tcp::{CongestionControl, TcpApp};
use bonding_sim::world::Observed;

use crate::load::{assert_sound, at, built_in, load, made, rates};

/// A change of a link's state: ms, side, link, state.
type Seen = (u64, &'static str, u8, LinkState);

fn states(world: &BondWorld) -> Vec<(&'static str, u8, LinkState)> {
    let now = world.now();
    let sides = [
        ("client", world.client.machine.session_stats(now)),
        ("server", world.server.machine.session_stats(now)),
    ];
    let of = |(side, stats): (_, Option<bonding_proto::stats::SessionStats>)| {
        let links = stats.map_or_else(Vec::new, |stats| stats.links);
        links.into_iter().map(move |link| (side, link.id.0, link.state)).collect::<Vec<_>>()
    };
    sides.into_iter().flat_map(of).collect()
}

/// Runs from `from` to `to` (ms); gives the changes, with the resolution of a millisecond.
fn watch(world: &mut BondWorld, from: u64, to: u64) -> Vec<Seen> {
    let time = |ms: u64| at(ms as f64 / 1e3);
    world.run_until(time(from));
    let (mut before, mut seen) = (states(world), Vec::new());
    for ms in from + 1..=to {
        world.run_until(time(ms));
        let now = states(world);
        let changed = now.iter().zip(&before).filter(|(now, before)| now != before);
        seen.extend(changed.map(|((side, link, state), _)| (ms, *side, *link, *state)));
        before = now;
    }
    seen
}

fn of(seen: &[Seen], side: &str, link: u8) -> Vec<(u64, LinkState)> {
    let own = seen.iter().filter(|(_, at, id, _)| (*at, *id) == (side, link));
    own.map(|(ms, .., state)| (*ms, *state)).collect()
}

fn setup(scenario: Scenario) -> Setup {
    Setup::new(scenario, Policy::Adaptive, 1).sealed()
}

#[test]
fn a_silent_link_is_suspect_by_what_its_peer_tells_and_back_after_three_proofs() {
    let mut world = setup(built_in("failover")).world();
    let load = load(&mut world, 60_000, 60_000, 19.0);
    let cut = watch(&mut world, 7_000, 13_900);
    for side in ["client", "server"] {
        let [(suspect, LinkState::Suspect), (down, LinkState::Down)] = of(&cut, side, 0)[..] else {
            panic!("{side}: {cut:?}");
        };
        // Packets in flight at 8 s are lost: 40 ms of silence, 15 ms for the report.
        assert!((8_050..=8_075).contains(&suspect), "{side}: {suspect}");
        assert!((suspect + 100..=suspect + 310).contains(&down), "{side}: {down}");
        assert_eq!(of(&cut, side, 1), [], "the other link has nothing to do with it");
    }
    let back = watch(&mut world, 13_900, 18_000);
    for side in ["client", "server"] {
        let [(suspect, LinkState::Suspect), (up, LinkState::Up)] = of(&back, side, 0)[..] else {
            panic!("{side}: {back:?}");
        };
        assert!((14_030..14_200).contains(&suspect) && up < 14_500, "{side}: {back:?}");
    }
    assert_sound(&world, &load);
}

#[test]
fn a_lost_carrier_is_known_at_once_here_and_a_way_later_there() {
    let mut world = setup(built_in("carrier")).world();
    load(&mut world, 20_000, 20_000, 19.0);
    let cut = watch(&mut world, 7_000, 9_000);
    // 15 ms one way, and the resolution is 1 ms.
    assert_eq!(of(&cut, "client", 0), [(8_000, LinkState::Down)]);
    let [(told, LinkState::Down)] = of(&cut, "server", 0)[..] else { panic!("{cut:?}") };
    assert!((8_015..=8_017).contains(&told), "{told}");
    assert!(cut.iter().all(|(_, _, link, _)| *link == 0), "{cut:?}");
    let back = watch(&mut world, 13_900, 15_000);
    for side in ["client", "server"] {
        let last = of(&back, side, 0).last().copied();
        assert!(last.is_some_and(|(ms, state)| state == LinkState::Up && ms < 14_500), "{side}: {back:?}");
    }
}

fn two_links(first: &str, events: &str) -> Scenario {
    let links = format!(
        "[[link]]\nname='a'\nrate='50mbit'\n{first}\n\
         [[link]]\nname='b'\nrate='10mbit'\nrtt='60ms'\n{events}"
    );
    made("20s", &links)
}

#[test]
fn what_is_no_outage_raises_no_alarm() {
    let event = |text: &str| format!("[[event]]\nat='5s'\nlink='a'\n{text}\n");
    let cases = [
        ("a fifth of the rate", two_links("rtt='30ms'", &event("rate='10mbit'"))),
        ("a tenth of the rate", two_links("rtt='30ms'", &event("rate='5mbit'"))),
        ("jitter", two_links("rtt='30ms'\njitter='40ms'", "")),
        ("jitter that reorders", two_links("rtt='30ms'\njitter='10ms'\nreorder=true", "")),
        ("a lossy way back", two_links("rtt='30ms'\nup={loss='10%'}", "")),
        ("loss both ways", two_links("rtt='30ms'\nloss='5%'", "")),
        ("a longer way", two_links("rtt='30ms'", &event("delay='35ms'"))),
        ("a satellite's slots", built_in("starlink")),
        ("a long link", two_links("rtt='600ms'", "")),
        ("stalls of 35 ms", two_links("rtt='30ms'", &event("jitter='35ms'"))),
    ];
    for (name, scenario) in cases {
        let mut world = setup(scenario).world();
        load(&mut world, 8_000, 30_000, 12.0);
        let seen = watch(&mut world, 3_000, 11_500);
        assert_eq!(of(&seen, "server", 0), [], "{name}");
        assert_eq!(of(&seen, "client", 0), [], "{name}");
    }
}

#[test]
fn light_traffic_finds_out_as_fast() {
    let mut world = setup(built_in("failover")).world();
    // A packet every 27 ms, only up; traffic uses the first link.
    load(&mut world, 300, 0, 19.0);
    let cut = watch(&mut world, 7_000, 10_000);
    let [(suspect, LinkState::Suspect), (_, LinkState::Down)] = of(&cut, "client", 0)[..] else {
        panic!("{cut:?}");
    };
    assert!(suspect <= 8_180, "{suspect}");
    // The server has sent nothing, so it misses no answer: the client tells it.
    let told = of(&cut, "server", 0).into_iter().find(|(_, state)| *state == LinkState::Down);
    assert!(told.is_some_and(|(ms, _)| ms < 8_450), "{cut:?}");
}

/// One second without the link, one second with it: the other link carries its full rate.
#[test]
fn a_flapping_link_costs_the_other_nothing() {
    let mut world = setup(built_in("flapping")).world();
    let load = load(&mut world, 0, 45_000, 38.0);
    world.run_until(at(9.0));
    let (_, down) = rates(&mut world, &load, 9.0, 36.0);
    assert!(down > 44.0, "{down}");
    assert_sound(&world, &load);
}

/// One flow has as much in flight as fills both links, for some time: its own queue holds it.
#[test]
fn a_download_uses_a_link_that_is_back_at_once() {
    let setup = setup(built_in("failover"));
    let config = |end, sends| BulkConfig { end, sends, flows: 1, mtu: setup.mtu(), seed: 1 };
    let app = |config| Box::new(TcpApp::new(config, CongestionControl::Cubic, at(1.0)));
    let mut world = setup.world();
    world.client.host.add(app(config(End::Connector, false)));
    world.server.host.add(app(config(End::Listener, true)));
    let mut mbps = |from, to| {
        world.run_until(at(from));
        let before = world.client.host.report(0).received_bytes;
        world.run_until(at(to));
        (world.client.host.report(0).received_bytes - before) as f64 * 8e-6 / (to - from)
    };
    let (one, both) = (mbps(9.0, 13.9), mbps(14.7, 16.0));
    assert!(one > 40.0 && both > 80.0, "{one} over one link, {both} right after");
}

#[test]
fn when_all_links_were_silent_the_session_goes_on_without_a_handshake() {
    let silent = |link: &str| {
        format!(
            "[[event]]\nat='5s'\nlink='{link}'\noutage='begin'\n[[event]]\nat='8s'\nlink='{link}'\noutage='end'\n"
        )
    };
    let mut world = setup(two_links("rtt='30ms'", &format!("{}{}", silent("a"), silent("b")))).world();
    let load = load(&mut world, 5_000, 5_000, 12.0);
    world.run_until(at(7.9));
    let (up, down) = rates(&mut world, &load, 8.5, 11.0);
    assert!(up > 4.9 && down > 4.9, "{up} up, {down} down");
    assert_sound(&world, &load);
}
