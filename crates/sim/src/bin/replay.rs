//! Repeats one run of the table and writes its course every 100 ms, to explain a figure.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bonding_proto::config::Policy;
use bonding_proto::stats::SessionStats;
use bonding_proto::trace::format::Side;
use bonding_sim::run::{RunSpec, System, Workload, run};
use bonding_sim::table;
use bonding_sim::trace::{Trace, packets};
use bonding_sim::world::Stalls;

const USAGE: &str = "usage: replay SCENARIO POLICY WORKLOAD FOLDER [SEED] [competitor] [stalls=10/100] [start=3]
Writes FOLDER/links.csv, a line per link and 100 ms, FOLDER/packets.csv, a line per packet of the load's direction,
and FOLDER/client.trace and FOLDER/server.trace, the decisions of both ends (docs/trace.md): `bondctl trace`
prints such a file, `cargo xtask trace` draws it.
POLICY: best, adaptive, score, redundant or round_robin; WORKLOAD: such as tcp-cubic-down-1 or quic-bbr-up-4;
competitor: another user's TCP flow joins on the first link after two seconds; stalls=10/100: both sides stand still for 10 ms in every 100;
start=3: the load starts after three seconds";

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scenario, policy, workload, folder, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!(USAGE);
    };
    let scenario = bonding_netem::scenario::find(scenario)?;
    let system = match policy.as_str() {
        "best" => System::Single,
        "adaptive" => System::Bond(Policy::Adaptive),
        "score" => System::Bond(Policy::Score),
        "redundant" => System::Bond(Policy::Redundant),
        "round_robin" => System::Bond(Policy::RoundRobin),
        other => anyhow::bail!("no policy '{other}'\n{USAGE}"),
    };
    let workload = Workload::parse(workload).with_context(|| format!("no workload '{workload}'\n{USAGE}"))?;
    let has_competitor = rest.iter().any(|argument| argument == "competitor");
    let stalls = match rest.iter().find_map(|argument| argument.strip_prefix("stalls=")) {
        None => None,
        Some(spec) => Some(Stalls::parse(spec).with_context(|| format!("'{spec}' is not like 10/100"))?),
    };
    let seed = match rest.iter().find(|argument| *argument != "competitor" && !argument.contains('=')) {
        None => table::SEED,
        Some(seed) => seed.parse().with_context(|| format!("'{seed}' is no seed"))?,
    };
    let name = scenario.name.clone();
    let mut spec = RunSpec { has_competitor, stalls, ..RunSpec::new(scenario, system, workload, seed) };
    if let Some(seconds) = rest.iter().find_map(|argument| argument.strip_prefix("start=")) {
        let seconds = seconds.parse().with_context(|| format!("'{seconds}' is no number of seconds"))?;
        spec.start = Duration::from_secs(seconds);
    }
    let mut trace = Trace::new();
    let row = run(&spec, Some(&mut trace));
    let folder = Path::new(folder);
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let figures = trace.figures().to_vec();
    let files = [
        ("client.trace", trace.decisions_file(Side::Client)),
        ("server.trace", trace.decisions_file(Side::Server)),
        ("packets.csv", packets(trace.packets()).into_bytes()),
        ("links.csv", trace.into_csv().into_bytes()),
    ];
    for (name, bytes) in files {
        let file = folder.join(name);
        std::fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let mut out = std::io::stdout();
    write!(out, "{}{}", table::head(workload), table::line(&name, system, &row))?;
    writeln!(out, "trace {:016x}", row.trace_hash)?;
    if let Some(share) = row.competitor_share {
        writeln!(out, "competitor: {:.1} % of the first link", share * 100.0)?;
    }
    print_figures(&mut out, &figures)?;
    for objection in &row.problems {
        writeln!(std::io::stderr(), "{objection}")?;
    }
    Ok(if row.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints each side's losses and their recovery.
fn print_figures(out: &mut impl Write, figures: &[(&'static str, SessionStats)]) -> std::io::Result<()> {
    for (side, stats) in figures {
        let discards: Vec<String> = stats
            .discards
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| format!("{} {count}", reason.key()))
            .collect();
        writeln!(
            out,
            "{side}: {} timeouts, {} late, held at most {}; discards: {}",
            stats.reorder_timeouts,
            stats.released_late,
            stats.reorder_held_max,
            discards.join(", ")
        )?;
        let of = stats.recovery;
        writeln!(
            out,
            "{side}: {} sent again, of these {} arrived, {} in vain, {} given up; {} copies",
            of.resent, of.recovered, of.spurious, of.given_up, stats.copies
        )?;
    }
    Ok(())
}
