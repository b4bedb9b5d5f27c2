//! Makes the scenario table and writes it to `docs/simulation.md`.
//!
//! `table fingerprints` repeats only the fingerprints (seconds instead of minutes): for a change of
//! behaviour whose figures are not needed. Other arguments select runs, in any order, and the
//! result is only printed: names of scenarios, systems (`best`, `adaptive`, `score`, `redundant`,
//! `round_robin`) and workloads (such as `tcp-cubic-down-1`); and
//! - `seeds=N`: the run of median goodput of N;
//! - `ceilings`: with the links' rates configured;
//! - `plain`: over plain links;
//! - `no-resend`: losses are not sent again;
//! - `competitor`: beside another user's TCP flow on the first link, whose share of it ends the
//!   line;
//! - `stalls=10/100`: each side stands still for 10 ms in every 100.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use bonding_proto::config::{Policy, Security};
use bonding_sim::run::{Row, RunSpec, System, Workload, run};
use bonding_sim::table;
use bonding_sim::world::Stalls;

const OUTPUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/simulation.md");

fn system(name: &str) -> Option<System> {
    match name {
        "best" => Some(System::Single),
        "adaptive" => Some(System::Bond(Policy::Adaptive)),
        "score" => Some(System::Bond(Policy::Score)),
        "redundant" => Some(System::Bond(Policy::Redundant)),
        "round_robin" => Some(System::Bond(Policy::RoundRobin)),
        _ => None,
    }
}

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args().skip(1).eq(["fingerprints"]) {
        let document = std::fs::read_to_string(OUTPUT).with_context(|| format!("cannot read {OUTPUT}"))?;
        return write(&table::refresh(&document)).map(|()| ExitCode::SUCCESS);
    }
    let mut scenarios = Vec::new();
    let mut systems = Vec::new();
    let mut workloads = Vec::new();
    let mut seeds = 1;
    let (mut plain, mut ceilings, mut resend, mut competitor) = (false, false, true, false);
    let mut stalls = None;
    for argument in std::env::args().skip(1) {
        if argument == "plain" {
            plain = true;
        } else if argument == "no-resend" {
            resend = false;
        } else if argument == "competitor" {
            competitor = true;
        } else if argument == "ceilings" {
            ceilings = true;
        } else if let Some(spec) = argument.strip_prefix("stalls=") {
            stalls = Some(Stalls::parse(spec).with_context(|| format!("'{spec}' is not like 10/100"))?);
        } else if let Some(count) = argument.strip_prefix("seeds=") {
            seeds = count.parse().with_context(|| format!("'{count}' is no number of seeds"))?;
        } else if let Some(system) = system(&argument) {
            systems.push(system);
        } else if let Some(workload) = Workload::parse(&argument) {
            workloads.push(workload);
        } else {
            let scenario = bonding_netem::scenario::find(&argument)
                .with_context(|| format!("'{argument}' is no system, workload or scenario"))?;
            scenarios.push(scenario);
        }
    }
    let whole = scenarios.is_empty()
        && systems.is_empty()
        && workloads.is_empty()
        && seeds == 1
        && !plain
        && !competitor
        && stalls.is_none()
        && !ceilings
        && resend;
    if scenarios.is_empty() {
        scenarios = table::scenarios();
    }
    if systems.is_empty() {
        systems = System::ALL.to_vec();
    }
    if workloads.is_empty() {
        workloads = table::workloads();
    }
    let mut specs = Vec::new();
    for workload in &workloads {
        for scenario in &scenarios {
            for system in &systems {
                let mut spec = RunSpec::new(scenario.clone(), *system, *workload, table::SEED);
                spec.setup.has_ceilings = ceilings;
                spec.setup.recovery.resend = resend;
                spec.has_competitor = competitor;
                spec.stalls = stalls;
                if plain {
                    spec.setup.security.fill(Security::Plain);
                }
                specs.push(spec);
            }
        }
    }
    let lines = make(&specs, seeds);
    let mut text = String::new();
    let mut problems = 0;
    for (index, (line, objections)) in lines.iter().enumerate() {
        if index % (scenarios.len() * systems.len()) == 0
            && let Some(spec) = specs.get(index)
        {
            text.push_str(&table::head(spec.workload));
        }
        text.push_str(line);
        problems += objections.len();
    }
    std::io::stdout().write_all(text.as_bytes())?;
    for (line, objections) in &lines {
        for objection in objections {
            writeln!(std::io::stderr(), "{}: {objection}", line.trim())?;
        }
    }
    if whole {
        let document = format!("{}{text}{}", table::INTRO, table::fingerprints());
        write(&document)?;
    }
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(document: &str) -> anyhow::Result<()> {
    std::fs::write(OUTPUT, document).with_context(|| format!("cannot write {OUTPUT}"))
}

/// A line for each run and the oracles' objections, on every core: the run of median goodput of
/// `seeds`.
fn make(specs: &[RunSpec], seeds: usize) -> Vec<(String, Vec<String>)> {
    let seeds = seeds.max(1);
    let rows = Mutex::new(vec![Vec::new(); specs.len()]);
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(spec) = specs.get(index / seeds) else { return };
                    let mut spec = spec.clone();
                    spec.setup.seed += (index % seeds) as u64;
                    let row = run(&spec, None);
                    let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(slot) = rows.get_mut(index / seeds) {
                        slot.push(row);
                    }
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.into_iter().zip(specs).map(|(rows, spec)| line(rows, spec)).collect()
}

fn line(mut rows: Vec<Row>, spec: &RunSpec) -> (String, Vec<String>) {
    rows.sort_by(|a, b| a.goodput_mbps.total_cmp(&b.goodput_mbps));
    let problems = rows.iter().flat_map(|row| row.problems.iter().cloned()).collect();
    let median = rows.get(rows.len() / 2);
    let mut line =
        median.map(|row| table::line(&spec.setup.scenario.name, spec.system, row)).unwrap_or_default();
    if let Some(share) = median.and_then(|row| row.competitor_share) {
        line = format!("{} competitor {:.0} % |\n", line.trim_end(), share * 100.0);
    }
    (line, problems)
}
