//! Beside somebody else's flow on one of the links: what the bond has of that link.

use bonding_netem::Scenario;
use bonding_proto::config::Policy;
use bonding_sim::run::{RunSpec, System, Workload, run};

#[test]
fn a_link_that_somebody_makes_180_ms_longer_is_shared() {
    let text = "name = 'deep'\ndescription = 'x'\nduration = '12s'\n\
        [[link]]\nname = 'a'\nrate = '50mbit'\nrtt = '20ms'\nqueue = '200ms'\n\
        [[link]]\nname = 'b'\nrate = '50mbit'\nrtt = '20ms'\n";
    let scenario = Scenario::parse(text, "deep", None).unwrap();
    for workload in ["quic-cubic-down-4", "tcp-cubic-down-1"] {
        let workload = Workload::parse(workload).unwrap();
        let mut spec = RunSpec::new(scenario.clone(), System::Bond(Policy::Adaptive), workload, 1);
        spec.has_rival = true;
        let row = run(&spec, None);
        let rival = row.rival_share.unwrap();
        assert_eq!((row.problems, row.late), (vec![], 0));
        assert!((0.25..0.75).contains(&rival), "{}: {rival:.2}", workload.name());
    }
}
