//! TCP over links that silently drop packets above a size.

use bonding_netem::{Change, Direction, Scenario};
use bonding_proto::Discard;
use bonding_proto::config::Policy;
use bonding_sim::bond::{BondWorld, SEALED_MTU, Setup};
use bonding_sim::host::bulk::{BulkConfig, End};
use bonding_sim::host::tcp::{CongestionControl, TcpApp};
use bonding_sim::world::Observed;

use crate::load::{at, built_in};

/// The outer MTU of the narrow link.
const NARROW: u32 = 1_300;
/// The inner packet that fits into it.
const NARROW_PACKET: f64 = 1_229.0;
/// IPv4 and TCP header.
const TCP_HEADERS: f64 = 40.0;

/// The reference's two kinds of link: 10 Mbit/s at 20 ms, 70 Mbit/s at 80 ms.
fn two_links() -> Scenario {
    let mut scenario = built_in("reference");
    scenario.links.truncate(2);
    scenario
}

/// Starts a download over four connections at `start`.
fn download(world: &mut BondWorld, start: f64) -> usize {
    let config = |end, sends| BulkConfig { end, sends, flows: 4, mtu: SEALED_MTU, seed: 1 };
    let app = |config| Box::new(TcpApp::new(config, CongestionControl::Cubic, at(start)));
    world.server.host.add(app(config(End::Listener, true)));
    world.client.host.add(app(config(End::Connector, false)))
}

/// Mbit/s of payload over all connections in each second from `from` to `to`.
fn seconds(world: &mut BondWorld, app: usize, from: u32, to: u32) -> Vec<f64> {
    let received = |world: &BondWorld| world.client.host.report(app).received_bytes;
    world.run_until(at(from.into()));
    let mut before = received(world);
    let mut second = |end: u32| {
        world.run_until(at(end.into()));
        let now = received(world);
        (now - std::mem::replace(&mut before, now)) as f64 * 8e-6
    };
    (from + 1..=to).map(&mut second).collect()
}

/// Mbit/s of payload that links of `mbps` carry in segments of the narrow link's size, each link at
/// its own overhead.
fn attainable(mbps: f64) -> f64 {
    mbps * (NARROW_PACKET - TCP_HEADERS) / f64::from(NARROW)
}

fn mean(rates: &[f64]) -> f64 {
    rates.iter().sum::<f64>() / rates.len() as f64
}

fn assert_sound(world: &BondWorld) {
    for counts in [world.ledger_up.counts(), world.ledger_down.counts()] {
        assert_eq!((counts.corrupt, counts.duplicates), (0, 0), "{counts:?}");
    }
}

/// Connections that begin a second after the bond fill both links, whichever is narrow.
#[test]
fn connections_fill_a_narrow_link_beside_a_wide_one() {
    for narrow in [0, 1] {
        let mut scenario = two_links();
        let link = &mut scenario.links[narrow];
        (link.up.mtu, link.down.mtu) = (Some(NARROW), Some(NARROW));
        let mut world = Setup::new(scenario, Policy::Adaptive, 1).sealed().world();
        let app = download(&mut world, 1.0);
        let rates = seconds(&mut world, app, 5, 25);
        let stats = world.server.machine.session_stats(world.now()).unwrap();
        assert_eq!(stats.links[narrow].mtu, Some(1_300));
        assert_eq!(stats.links[1 - narrow].mtu, Some(1_500));
        assert_eq!(stats.discards.of(Discard::TooBig), 0);
        let share = mean(&rates) / attainable(80.0);
        assert!((0.85..1.0).contains(&share), "link {narrow}: {share:.3} of what both carry; {rates:.1?}");
        assert_sound(&world);
    }
}

/// A link becomes narrow under connections with segments that are too large for it: the other link
/// carries them without a second of silence.
#[test]
fn a_link_that_becomes_narrow_stalls_nothing() {
    let mut world = Setup::new(two_links(), Policy::Adaptive, 1).sealed().world();
    let app = download(&mut world, 1.0);
    let before = seconds(&mut world, app, 8, 12);
    assert!(mean(&before) > 60.0, "{before:.1?}");
    for direction in [Direction::Up, Direction::Down] {
        world.change_link(0, direction, Change::Mtu(Some(NARROW)));
    }
    let after = seconds(&mut world, app, 12, 32);
    assert!(after.iter().all(|rate| *rate > 1.0), "a silent second: {after:.1?}");
    let alone = mean(&after[5..]) / (70.0 * f64::from(SEALED_MTU - 40) / 1_500.0);
    assert!(alone > 0.85, "{alone:.3} of the wide link; {after:.1?}");
    let stats = world.server.machine.session_stats(world.now()).unwrap();
    assert_eq!(stats.links[0].mtu, Some(1_300));
    assert_sound(&world);
}
