//! Streams of the bond: whole transfers over links that lose, jitter, reorder and die, and their
//! share of what the links carry.

use std::time::Duration;

use bonding_netem::Direction;
use bonding_proto::Instant;
use bonding_proto::config::Policy;
use bonding_sim::bond::Setup;
use bonding_sim::host::bulk::{BulkConfig, End};
use bonding_sim::host::stream::StreamApp;
use bonding_sim::run::{RunSpec, System, Transport, Workload, run};

use crate::load::built_in;

/// Transfers of `bytes`, one in each of three streams, both ways; gives how long they took.
fn transfers(scenario: &str, bytes: u64, seed: u64) -> Duration {
    let mut setup = Setup::new(built_in(scenario), Policy::Adaptive, seed).sealed();
    setup.takes_streams = true;
    let mut world = setup.world();
    let start = Instant::ZERO + Duration::from_secs(1);
    for end in [End::Connector, End::Listener] {
        let config = BulkConfig { end, sends: true, flows: 3, mtu: setup.mtu(), seed };
        let app = Box::new(StreamApp::new(config, start).with_size(bytes));
        match end {
            End::Connector => world.client.host.add(app),
            End::Listener => world.server.host.add(app),
        };
    }
    loop {
        world.run_for(Duration::from_millis(100));
        let reports = [world.client.host.report(0), world.server.host.report(0)];
        assert!(reports.iter().all(|report| report.corrupt == 0), "{scenario}, {seed}: {reports:?}");
        if reports.iter().all(|report| report.finished == 3) {
            assert!(reports.iter().all(|report| report.flow_bytes == [bytes; 3]), "{scenario}: {reports:?}");
            return world.now().saturating_since(start);
        }
        assert!(world.now() < Instant::ZERO + Duration::from_secs(60), "{scenario}, {seed}: {reports:?}");
    }
}

/// No byte is missing, doubled or another one, and each transfer ends, also where the last pieces
/// are lost and nothing follows them.
#[test]
fn whole_transfers_arrive_whatever_the_links_do() {
    let scenarios =
        ["reference", "lossy-3", "sweep-13", "sweep-16", "failover", "flapping", "bursts", "adsl-dish"];
    for scenario in scenarios {
        for seed in 1..=3 {
            transfers(scenario, 1_000_000, seed);
        }
        transfers(scenario, 1_000, 1);
    }
}

/// Where packets of one flow have a part of what the links carry, a stream has it all: far apart,
/// with loss, with jitter. The median of three runs: what is lost, and when, differs between them.
#[test]
fn one_stream_has_all_that_the_links_carry() {
    let least = [
        ("reference", 0.97),
        ("sweep-09", 0.95),
        ("sweep-13", 0.92),
        ("sweep-14", 0.95),
        ("sweep-16", 0.88),
        ("adsl-dish", 0.88),
        ("policed", 0.95),
        ("failover", 0.95),
    ];
    for (scenario, least) in least {
        let workload = Workload { transport: Transport::Streams, direction: Direction::Down, flows: 1 };
        let system = System::Bond(Policy::Adaptive);
        let mut shares = [1, 2, 3].map(|seed| {
            let row = run(&RunSpec::new(built_in(scenario), system, workload, seed), None);
            assert!(row.problems.is_empty(), "{scenario}: {:?}", row.problems);
            row.share
        });
        shares.sort_by(f64::total_cmp);
        assert!(shares[1] >= least, "{scenario}: {shares:?} of what the links carry");
    }
}
