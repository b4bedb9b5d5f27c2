//! Links too far away to share a flow with near ones.

use std::time::Duration;

use bonding_netem::Direction;
use bonding_proto::config::Policy;
use bonding_sim::host::quic::QuicControl;
use bonding_sim::host::tcp::CongestionControl;
use bonding_sim::run::{Row, RunSpec, System, Transport, Workload, run};

use crate::load::built_in;

const CUBIC: Transport = Transport::Tcp(CongestionControl::Cubic);
const QUIC: Transport = Transport::Quic(QuicControl::Cubic);

/// Downloads over a line of 6 Mbit/s and a geostationary dish of 40 Mbit/s, from 3 s on.
fn downloads(transport: Transport, flows: u16, system: System) -> Row {
    let workload = Workload { transport, direction: Direction::Down, flows };
    let spec = RunSpec::new(built_in("adsl-dish"), system, workload, 1);
    let start = Duration::from_secs(3);
    let row = run(&RunSpec { start, warmup: start, ..spec }, None);
    assert!(row.problems.is_empty(), "{transport:?}, {flows}: {:?}", row.problems);
    row
}

#[test]
fn whole_flows_go_over_a_faster_link_far_away_and_light_traffic_stays_near() {
    for transport in [CUBIC, QUIC] {
        for flows in [1, 4] {
            let bond = downloads(transport, flows, System::Bond(Policy::Adaptive));
            let dish = downloads(transport, flows, System::Single);
            let case = format!("{transport:?}, {flows}: {} and {}", bond.goodput_mbps, dish.goodput_mbps);
            // The line alone has 5.2.
            assert!(bond.goodput_mbps > 15.0, "{case}");
            // One flow grows over the line first, and into the dish's round trip then.
            let least = if flows == 1 { 0.75 } else { 0.95 };
            assert!(bond.goodput_mbps > dish.goodput_mbps * least, "{case}");
            let echo = bond.echo_p99.expect("answers");
            assert!(echo < Duration::from_millis(90), "{case}: {echo:?}");
        }
    }
}
