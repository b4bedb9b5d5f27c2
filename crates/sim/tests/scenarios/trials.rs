//! Links that are believed to be slow: while bulk waits anywhere in the bond, they are looked at
//! again.

use bonding_netem::{Direction, Rate};
use bonding_proto::Instant;
use bonding_proto::config::Policy;
use bonding_sim::bond::{BondWorld, Setup};
use bonding_sim::host::bulk::{BulkConfig, End};
use bonding_sim::host::quic::{QuicApp, QuicControl};
use bonding_sim::world::{Observed as _, World};

use crate::load::{at, made};

/// The least rate that is believed of a link, bit/s.
const FLOOR_BPS: u64 = 200_000;

/// Links of these rates, Mbit/s, all 30 ms away.
fn links(rates: &[u64]) -> String {
    let link = |(index, rate): (usize, &u64)| {
        format!("[[link]]\nname = \"link{index}\"\nrate = \"{rate}mbit\"\nrtt = \"30ms\"\n")
    };
    rates.iter().enumerate().map(link).collect()
}

/// A bond whose server believes of `slow` that it carries no more than the floor, and of the other
/// links what they carry: so a client said that was restarted since, and says nothing.
fn believing(rates: &[u64], slow: usize, is_sealed: bool) -> BondWorld {
    let plain = Setup::new(made("20s", &links(rates)), Policy::Adaptive, 1);
    let setup = if is_sealed { plain.sealed() } else { plain };
    let mut before = setup.clone().with_ceilings();
    for link in before.scenario.links.iter_mut().skip(slow).take(1) {
        link.down.rate = Rate::Constant { bps: FLOOR_BPS };
    }
    let (client, server) = (before.client(1, Instant::ZERO), setup.server(2, Instant::ZERO));
    let mut world = World::new(client, server, &setup.scenario, 1);
    world.run_until(at(0.7));
    assert_eq!(believed_bps(&world, slow), Some(FLOOR_BPS));
    let now = world.now();
    world.restart_client(setup.client(77, now));
    for (end, host) in [(End::Connector, &mut world.client.host), (End::Listener, &mut world.server.host)] {
        let bulk = BulkConfig { end, sends: end == End::Listener, flows: 4, mtu: setup.mtu(), seed: 1 };
        host.add(Box::new(QuicApp::new(bulk, QuicControl::Cubic, at(1.0))));
    }
    world
}

/// What the server takes a link to carry.
fn believed_bps(world: &BondWorld, link: usize) -> Option<u64> {
    let stats = world.server.machine.session_stats(world.now())?;
    Some(stats.links.get(link)?.capacity?.as_bps())
}

#[test]
fn a_link_believed_to_be_slow_is_found_out_beside_others_that_could_carry_all() {
    for (rates, slow, is_sealed) in
        [(&[40, 40][..], 1, true), (&[40, 40], 1, false), (&[10, 70, 70], 1, true), (&[10, 70, 70], 0, false)]
    {
        let mut world = believing(rates, slow, is_sealed);
        let case = format!("{rates:?}, link {slow}, sealed: {is_sealed}");
        world.run_until(at(1.1));
        let early = believed_bps(&world, slow).unwrap_or(0);
        assert!(early <= FLOOR_BPS * 2, "{case}: {early} bit/s");
        // Bulk has waited for three seconds, and the flows have grown over the link.
        world.run_until(at(5.0));
        let true_bps = rates[slow] * 1_000_000;
        let found_bps = believed_bps(&world, slow).unwrap_or(0);
        assert!(found_bps * 100 >= true_bps * 95, "{case}: {found_bps} bit/s");
        let before = world.link_counters(slow, Direction::Down).delivered_bytes;
        world.run_until(at(6.0));
        let carried = (world.link_counters(slow, Direction::Down).delivered_bytes - before) * 8;
        assert!(carried * 100 >= true_bps * 85, "{case}: {carried} bit/s");
        // Of all that was sent few are copies, and no packet waited for these.
        let now = world.now();
        let copies = world.server.machine.session_stats(now).map_or(0, |stats| stats.copies);
        let sent: u64 =
            (0..rates.len()).map(|link| world.link_counters(link, Direction::Down).delivered_bytes).sum();
        assert!(copies * 1_500 * 100 <= sent, "{case}: {copies} copies of {sent} bytes");
        let timeouts = world.client.machine.session_stats(now).map_or(0, |stats| stats.reorder_timeouts);
        assert_eq!(timeouts, 0, "{case}");
    }
}
