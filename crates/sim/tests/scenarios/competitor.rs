//! A competitor on one of the links, a flow outside the bond: the link is shared.

use bonding_proto::config::Policy;
use bonding_sim::run::{RunSpec, System, Workload, run};

use crate::load::made;

#[test]
fn a_link_is_shared_with_a_competitor_that_queues_180_ms() {
    let links = "[[link]]\nname = 'a'\nrate = '50mbit'\nrtt = '20ms'\nqueue = '200ms'\n\
        [[link]]\nname = 'b'\nrate = '50mbit'\nrtt = '20ms'\n";
    let scenario = made("12s", links);
    for workload in ["quic-cubic-down-4", "tcp-cubic-down-1"] {
        let workload = Workload::parse(workload).unwrap();
        let mut spec = RunSpec::new(scenario.clone(), System::Bond(Policy::Adaptive), workload, 1);
        spec.has_competitor = true;
        let row = run(&spec, None);
        let competitor = row.competitor_share.unwrap();
        assert_eq!((row.problems, row.late), (vec![], 0));
        assert!((0.25..0.75).contains(&competitor), "{}: {competitor:.2}", workload.name());
    }
}
