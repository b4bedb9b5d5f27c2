//! Several UDP flows on a link whose carrier polices each, and one flow everywhere else.

use std::time::Duration;

use bonding_proto::config::{Policy, UdpFlows};
use bonding_sim::bond::{BondWorld, Setup};
use bonding_sim::world::Observed;

use crate::load::{at, built_in, load};

/// A load of more than the links carry, each way, in kbit/s of packets of 1,000 bytes.
const MUCH: u64 = 60_000;

fn setup(scenario: &str, flows: UdpFlows) -> Setup {
    let mut setup = Setup::new(built_in(scenario), Policy::Adaptive, 1).sealed();
    setup.flows = flows;
    setup
}

/// The UDP flows of each link at the client and at the server.
fn flows(world: &BondWorld) -> [Vec<u8>; 2] {
    let client = world.client.machine.session_stats(world.now()).expect("a session");
    let server = world.server.machine.session_stats(world.now()).expect("a session");
    [client, server].map(|stats| stats.links.iter().map(|link| link.flows).collect())
}

/// 60 Mbit/s, of which each flow gets 8.
#[test]
fn a_link_whose_flows_are_policed_is_filled_both_ways() {
    let mut world = setup("policed-flow", UdpFlows::Auto).world();
    let load = load(&mut world, MUCH, MUCH, 20.0);
    world.run_until(at(15.0));
    assert_eq!(flows(&world), [vec![8], vec![8]]);
    let before = (load.up(&world).received_bytes, load.down(&world).received_bytes);
    world.run_until(at(20.0));
    let after = (load.up(&world).received_bytes, load.down(&world).received_bytes);
    // Of 1,071 bytes on the link 972 are payload.
    let most = 5.0 * 60e6 / 8.0 * 972.0 / 1_071.0;
    for (direction, arrived) in [("up", after.0 - before.0), ("down", after.1 - before.1)] {
        let percent = arrived as f64 / most * 100.0;
        assert!(percent >= 85.0, "{direction}: {percent:.1} %");
    }
    assert_eq!(world.misrouted(), 0);
    assert_eq!(world.client.refused_datagrams + world.server.refused_datagrams, 0);
    // The NAT gives every flow another port.
    world.rebind(0);
    world.run_for(Duration::from_secs(2));
    assert_eq!(flows(&world), [vec![8], vec![8]]);
}

#[test]
fn one_flow_stays_where_all_are_policed_together_or_more_are_not_allowed() {
    for (scenario, allowed) in [("policed", UdpFlows::Auto), ("policed-flow", UdpFlows::Fixed(1))] {
        let mut world = setup(scenario, allowed).world();
        let load = load(&mut world, MUCH, MUCH, 25.0);
        world.run_until(at(25.0));
        let of_client = world.client.machine.session_stats(world.now()).expect("a session");
        assert!(load.down(&world).received_bytes > 0 && of_client.connected);
        // The second one was tried where that is allowed, and not kept.
        let opened = if allowed == UdpFlows::Auto { 2 } else { 1 };
        assert_eq!(world.flows_opened(0), opened, "{scenario}");
        assert!(flows(&world).iter().flatten().all(|flows| *flows == 1), "{scenario}: {:?}", flows(&world));
        assert_eq!(world.misrouted(), 0, "{scenario}");
    }
}

#[test]
fn other_links_are_never_tried() {
    for scenario in ["reference", "lossy", "starlink"] {
        let mut world = setup(scenario, UdpFlows::Auto).world();
        load(&mut world, MUCH, MUCH, 8.0);
        world.run_until(at(8.0));
        let opened: Vec<u32> = (0..world.link_count()).map(|link| world.flows_opened(link)).collect();
        assert!(opened.iter().all(|opened| *opened == 1), "{scenario}: {opened:?}");
    }
}
