//! The scenario table: every scenario and system with several loads, as Markdown in the repository.
//!
//! It has two parts. The fingerprints are short runs with smoltcp that repeat bit for bit; a test
//! repeats and compares them, so that no change of behaviour goes unnoticed. The figures are whole
//! runs, made by the `table` binary.

use std::fmt::Write as _;
use std::time::Duration;

use bonding_netem::{Direction, Scenario, scenario};
use bonding_proto::config::Policy;

use crate::host::quic::QuicControl;
use crate::host::tcp::CongestionControl;
use crate::run::{Row, RunSpec, System, Transport, Workload, run};

/// Seed of every run in the table.
pub const SEED: u64 = 1;
/// Length of a fingerprint run.
const FINGERPRINT_DURATION: Duration = Duration::from_secs(3);
/// The start of a fingerprint run's measurement.
const FINGERPRINT_WARMUP: Duration = Duration::from_secs(1);
/// The heading of the fingerprints, which occurs only there.
pub const FINGERPRINTS: &str = "## Fingerprints";

/// The head of the document.
pub const INTRO: &str = "# Simulation

Written by `cargo run --release -p bonding-sim --bin table`; do not edit. The bond's own state machines, client and server,
over emulated links in virtual time, with real transports inside: smoltcp (a pessimistic TCP: no selective
acknowledgement) and quinn-proto (QUIC with cubic or BBR). The scenarios are the files in `scenarios/`; links
are sealed, nothing is configured but that the first link has priority 1, all others 2. A change of behaviour shows
as a change of this file: run the command and commit the result with its reason (`--bin table fingerprints` makes only
the last part again, in seconds). `cargo run --release -p bonding-sim --bin replay -- SCENARIO POLICY WORKLOAD FOLDER`
writes what happened in one run, per link every 100 ms and per packet.

Every run carries, beside its load, a sparse flow: 50 UDP packets a second of 100 bytes, echoed. Figures count from 3 s to the
end of the scenario.

- **system**: *best link alone* is a tunnel over the scenario's best link without the bond; the others are policies.
- **Mbit/s**: payload that arrived. **share**: of what all links together carry of such payload at their rates.
- **echo p50, p99**: round-trip time of the sparse flow in ms during the load. **lost**: of its packets.
- **held**: the most packets that the receiver held for resequencing; **timeouts**: gaps it gave up by time;
  **late**: packets that came after their gap had been given up.
- **dropped**: by the sender's queue ahead of the links.
- **resent**: segments or packets that the inner transport sent again or held for lost.
- **MB per link**: megabytes delivered in the load's direction, over the whole run.
";

const FINGERPRINTS_INTRO: &str = "
Three seconds of one TCP download with smoltcp, and a hash over every datagram sent and delivered with its time. A test
makes these runs again and compares them with this list.
";

/// One run's line of the table.
pub fn line(scenario: &str, system: System, row: &Row) -> String {
    let ms = |span: Option<Duration>| {
        span.map_or("–".to_owned(), |span| format!("{:.1}", span.as_secs_f64() * 1e3))
    };
    let links: Vec<String> =
        row.link_bytes.iter().map(|(name, bytes)| format!("{name} {:.1}", *bytes as f64 / 1e6)).collect();
    format!(
        "| {scenario} | {} | {:.1} | {:.1} % | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        system.name(),
        row.goodput_mbps,
        row.share * 100.0,
        ms(row.echo_p50),
        ms(row.echo_p99),
        row.echo_lost,
        row.reorder_max,
        row.reorder_timeouts,
        row.late,
        row.queue_drops,
        row.retransmits,
        links.join(", ")
    )
}

/// The head of one workload's table.
pub fn head(workload: Workload) -> String {
    format!(
        "\n## {}\n\n| scenario | system | Mbit/s | share | echo p50 | echo p99 | lost | held | timeouts | late | \
         dropped | resent | MB per link |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n",
        workload.name()
    )
}

/// The workloads of the table, in its order.
pub fn workloads() -> Vec<Workload> {
    let cubic = Transport::Tcp(CongestionControl::Cubic);
    let quic = Transport::Quic(QuicControl::Cubic);
    let bbr = Transport::Quic(QuicControl::Bbr);
    [
        (cubic, Direction::Down, 1),
        (cubic, Direction::Up, 1),
        (cubic, Direction::Down, 4),
        (quic, Direction::Down, 1),
        (quic, Direction::Up, 4),
        (bbr, Direction::Down, 1),
    ]
    .map(|(transport, direction, flows)| Workload { transport, direction, flows })
    .to_vec()
}

/// The scenarios left out: each begins like one of the others.
const SCENARIOS: [&str; 9] =
    ["reference", "dual", "hetero", "lossy", "failover", "varying", "single", "step", "satphone"];

/// The built-in scenarios in the table, in its order.
///
/// # Panics
/// If a built-in scenario is malformed; `netem`'s tests exclude that.
#[expect(clippy::expect_used, reason = "built-in data")]
pub fn scenarios() -> Vec<Scenario> {
    SCENARIOS.map(|name| scenario::builtin(name).expect("a valid scenario")).to_vec()
}

/// `document` with new head and fingerprints, and the figures unchanged.
pub fn refresh(document: &str) -> String {
    let (before, _) = document.split_once(FINGERPRINTS).unwrap_or((document, ""));
    let figures = before.find("\n## ").and_then(|place| before.get(place..)).unwrap_or("");
    format!("{INTRO}{}\n{}", figures.trim_end(), fingerprints())
}

/// The fingerprints' part of the document. An oracle's objection replaces the hash.
pub fn fingerprints() -> String {
    let workload = Workload {
        transport: Transport::Tcp(CongestionControl::Cubic),
        direction: Direction::Down,
        flows: 1,
    };
    let mut text = format!(
        "\n{FINGERPRINTS}\n{FINGERPRINTS_INTRO}\n| scenario | policy | Mbit/s | trace |\n|---|---|--:|---|\n"
    );
    for scenario in scenarios() {
        for policy in [Policy::RoundRobin, Policy::Score, Policy::Adaptive] {
            let system = System::Bond(policy);
            let spec = RunSpec {
                warmup: FINGERPRINT_WARMUP,
                duration: FINGERPRINT_DURATION,
                ..RunSpec::new(scenario.clone(), system, workload, SEED)
            };
            let row = run(&spec, None);
            let trace = if row.problems.is_empty() {
                format!("{:016x}", row.trace_hash)
            } else {
                row.problems.join("; ")
            };
            let _ = writeln!(
                text,
                "| {} | {} | {:.3} | {trace} |",
                scenario.name,
                system.name(),
                row.goodput_mbps
            );
        }
    }
    text
}
