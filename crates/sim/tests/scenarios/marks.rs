//! Links with a router that marks packets (ECN) while it has a queue.

use std::time::Duration;

use bonding_proto::config::Policy;
use bonding_sim::run::{Row, RunSpec, System, Workload, run};

use crate::load::made;

/// A run over two links with jitter of 10 ms.
fn over(mark: &str, workload: Workload) -> Row {
    let links = format!(
        "[[link]]\nname = 'a'\nrate = '50mbit'\nrtt = '30ms'\njitter = '10ms'\n{mark}\n\
        [[link]]\nname = 'b'\nrate = '20mbit'\nrtt = '50ms'\njitter = '10ms'\n{mark}\n"
    );
    let spec = RunSpec::new(made("15s", &links), System::Bond(Policy::Adaptive), workload, 1);
    run(&spec, None)
}

#[test]
fn marks_shorten_queues_and_cost_little() {
    for name in ["quic-cubic-down-4", "tcp-cubic-up-4"] {
        let workload = Workload::parse(name).unwrap();
        let (without, with) = (over("", workload), over("mark = '2ms'", workload));
        for row in [&without, &with] {
            assert!(
                row.problems.is_empty() && row.late <= 2,
                "{name}: {:?}, {} late",
                row.problems,
                row.late
            );
        }
        let (alone, marked) = (without.echo_p99.unwrap(), with.echo_p99.unwrap());
        // Where jitter hides the queue anyway there is little to shorten.
        assert!(marked < alone + Duration::from_millis(2), "{name}: {marked:?} {alone:?}");
        let (alone, marked) = (without.share, with.share);
        // This seed has 0.922 without marks and 0.840 with them, by a TCP without selective
        // acknowledgements.
        assert!(marked > alone * 0.9, "{name}: {marked:.3} {alone:.3}");
    }
}
