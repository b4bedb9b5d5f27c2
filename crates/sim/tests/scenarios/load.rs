//! What the tests of this program share: scenarios, points in time, a load both ways and what
//! became of it.

use std::time::Duration;

use bonding_netem::{Scenario, scenario};
use bonding_proto::Instant;
use bonding_proto::units::BitRate;
use bonding_sim::bond::Setup;
use bonding_sim::host::Report;
use bonding_sim::host::raw::{RawConfig, RawSink, RawSource};
use bonding_sim::inet;
use bonding_sim::world::{Observed, World};

/// A point in time.
pub(crate) fn at(seconds: f64) -> Instant {
    Instant::ZERO + Duration::from_secs_f64(seconds)
}

/// A scenario by name.
pub(crate) fn built_in(name: &str) -> Scenario {
    scenario::builtin(name).expect("a built-in scenario")
}

/// A scenario of links that a test makes, in the form of the files in `scenarios/`.
pub(crate) fn made(duration: &str, links: &str) -> Scenario {
    let head = format!("name = \"made\"\ndescription = \"made\"\nduration = \"{duration}\"\n");
    Scenario::parse(&(head + links), "made", None).expect("a scenario")
}

/// The indices of the loads' sinks at their hosts.
pub(crate) struct Load {
    up: usize,
    down: usize,
}

/// Constant-rate UDP both ways from 1 s on, in packets of 1,000 bytes and three flows each way;
/// `up` and `down` in kbit/s.
pub(crate) fn load<C: Observed, S: Observed>(world: &mut World<C, S>, up: u64, down: u64, stop: f64) -> Load {
    let config = |from, to, kbps: u64, seed| RawConfig {
        from,
        to,
        flows: 3,
        rate: BitRate::from_bps(kbps * 1_000),
        packet_bytes: 1_000,
        start: at(1.0),
        stop: at(stop),
        seed,
    };
    let upward = config(inet::CLIENT, inet::SERVER, up, 1);
    let downward = config(inet::SERVER, inet::CLIENT, down, 2);
    world.client.host.add(Box::new(RawSource::new(upward)));
    world.server.host.add(Box::new(RawSource::new(downward)));
    Load {
        up: world.server.host.add(Box::new(RawSink::new(upward))),
        down: world.client.host.add(Box::new(RawSink::new(downward))),
    }
}

impl Load {
    /// The packets that arrived at the server.
    pub(crate) fn up<C: Observed, S: Observed>(&self, world: &World<C, S>) -> Report {
        world.server.host.report(self.up)
    }

    /// The packets that arrived at the client.
    pub(crate) fn down<C: Observed, S: Observed>(&self, world: &World<C, S>) -> Report {
        world.client.host.report(self.down)
    }
}

/// Asserts that no oracle of the simulator found a problem.
pub(crate) fn assert_sound<C: Observed, S: Observed>(world: &World<C, S>, load: &Load) {
    let mut problems = Vec::new();
    bonding_sim::run::judge(world, &[load.up(world), load.down(world)], &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
}

/// Mbit/s received in each direction from `from` to `to`; runs the world to `to`.
pub(crate) fn rates<C: Observed, S: Observed>(
    world: &mut World<C, S>,
    load: &Load,
    from: f64,
    to: f64,
) -> (f64, f64) {
    world.run_until(at(from));
    let before = (load.up(world).received_bytes, load.down(world).received_bytes);
    world.run_until(at(to));
    let mbps = |bytes: u64| bytes as f64 * 8e-6 / (to - from);
    (mbps(load.up(world).received_bytes - before.0), mbps(load.down(world).received_bytes - before.1))
}

/// A side of the bond.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Asserts that traffic flows again two seconds after a side was restarted.
pub(crate) fn assert_restarts(setup: &Setup, side: Side) {
    let mut world = setup.world();
    let load = load(&mut world, 10_000, 10_000, 8.0);
    let (up, down) = rates(&mut world, &load, 2.0, 3.0);
    assert!(up > 9.8 && down > 9.8, "{side:?} before: {up} up, {down} down");
    match side {
        Side::Client => world.restart_client(setup.client(77, world.now())),
        Side::Server => world.restart_server(setup.server(77, world.now())),
    }
    let (up, down) = rates(&mut world, &load, 5.0, 8.0);
    assert!(up > 9.8 && down > 9.8, "{side:?} after: {up} up, {down} down");
    assert_sound(&world, &load);
}
