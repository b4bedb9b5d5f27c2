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
//! - `flows=N`: each link goes over N UDP flows, and no others are tried;
//! - `competitor`: beside another user's TCP flow on the first link, whose share of it ends the
//!   line;
//! - `traces=FOLDER`: where the recorded traces of scenarios such as `lte-pair` are (default: the
//!   folder that `BONDING_TRACES` names);
//! - `start=N`: the load starts N seconds after the run's start, and is measured from there on;
//! - `transfers`: how long the first 0.1, 0.3, 1, 10 and 50 MB take ends each line;
//! - `stalls=10/100`: each side stands still for 10 ms in every 100.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bonding_netem::{Scenario, scenario};
use bonding_proto::config::{Policy, Security, UdpFlows};
use bonding_proto::limits::UDP_FLOWS_MAX;
use bonding_sim::parallel;
use bonding_sim::run::{Row, RunSpec, System, Workload, run};
use bonding_sim::table;
use bonding_sim::world::Stalls;

const OUTPUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/simulation.md");

/// The argument that names the folder of recorded traces.
const TRACES: &str = "traces=";

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

/// The runs that the arguments select, and how they differ from the table's own.
#[derive(Debug, Default)]
struct Selection {
    scenarios: Vec<Scenario>,
    systems: Vec<System>,
    workloads: Vec<Workload>,
    /// Runs for each line, of which the median counts; `None`: one.
    seeds: Option<usize>,
    is_plain: bool,
    has_ceilings: bool,
    without_resend: bool,
    flows: UdpFlows,
    has_competitor: bool,
    has_transfers: bool,
    start: Option<Duration>,
    stalls: Option<Stalls>,
}

impl Selection {
    fn parse(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let (folders, others): (Vec<_>, Vec<_>) =
            arguments.partition(|argument| argument.starts_with(TRACES));
        let folder = folders.last().and_then(|folder| folder.strip_prefix(TRACES)).map(PathBuf::from);
        let traces = folder.or_else(scenario::traces_folder);
        let mut selection = Self::default();
        for argument in others {
            selection.add(&argument, traces.as_deref())?;
        }
        Ok(selection)
    }

    fn add(&mut self, argument: &str, traces: Option<&Path>) -> anyhow::Result<()> {
        match argument {
            "plain" => self.is_plain = true,
            "no-resend" => self.without_resend = true,
            "competitor" => self.has_competitor = true,
            "ceilings" => self.has_ceilings = true,
            "transfers" => self.has_transfers = true,
            _ => {
                if let Some(spec) = argument.strip_prefix("stalls=") {
                    let stalls = Stalls::parse(spec);
                    self.stalls = Some(stalls.with_context(|| format!("'{spec}' is not like 10/100"))?);
                } else if let Some(count) = argument.strip_prefix("flows=") {
                    let count = count.parse().ok().filter(|count| (1..=UDP_FLOWS_MAX).contains(count));
                    self.flows = UdpFlows::Fixed(count.context("flows=N: a number from 1 to 8")?);
                } else if let Some(count) = argument.strip_prefix("start=") {
                    let seconds =
                        count.parse().with_context(|| format!("'{count}' is no number of seconds"))?;
                    self.start = Some(Duration::from_secs(seconds));
                } else if let Some(count) = argument.strip_prefix("seeds=") {
                    let seeds = count.parse().with_context(|| format!("'{count}' is no number of seeds"))?;
                    self.seeds = Some(seeds).filter(|seeds| *seeds != 1);
                } else if let Some(system) = system(argument) {
                    self.systems.push(system);
                } else if let Some(workload) = Workload::parse(argument) {
                    self.workloads.push(workload);
                } else {
                    let scenario = scenario::find_with(argument, traces)
                        .with_context(|| format!("'{argument}' is no system, workload or scenario"))?;
                    self.scenarios.push(scenario);
                }
            }
        }
        Ok(())
    }

    /// Whether it selects the table of the document.
    fn is_whole(&self) -> bool {
        self.scenarios.is_empty()
            && self.systems.is_empty()
            && self.workloads.is_empty()
            && self.seeds.is_none()
            && self.stalls.is_none()
            && self.start.is_none()
            && !(self.is_plain
                || self.has_ceilings
                || self.without_resend
                || self.flows != UdpFlows::Auto
                || self.has_competitor
                || self.has_transfers)
    }

    /// Replaces each empty list by the document's.
    fn complete(&mut self) {
        if self.scenarios.is_empty() {
            self.scenarios = table::scenarios();
        }
        if self.systems.is_empty() {
            self.systems = System::ALL.to_vec();
        }
        if self.workloads.is_empty() {
            self.workloads = table::workloads();
        }
    }

    fn specs(&self) -> Vec<RunSpec> {
        let mut specs = Vec::new();
        for workload in &self.workloads {
            for scenario in &self.scenarios {
                for system in &self.systems {
                    specs.push(self.spec(scenario, *system, *workload));
                }
            }
        }
        specs
    }

    fn spec(&self, scenario: &Scenario, system: System, workload: Workload) -> RunSpec {
        let mut spec = RunSpec::new(scenario.clone(), system, workload, table::SEED);
        spec.setup.has_ceilings = self.has_ceilings;
        spec.setup.recovery.resend = !self.without_resend;
        spec.setup.flows = self.flows;
        spec.has_competitor = self.has_competitor;
        spec.stalls = self.stalls;
        if let Some(start) = self.start {
            (spec.start, spec.warmup) = (start, start);
        }
        if self.is_plain {
            spec.setup.security.fill(Security::Plain);
        }
        spec
    }
}

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args().skip(1).eq(["fingerprints"]) {
        let document = std::fs::read_to_string(OUTPUT).with_context(|| format!("cannot read {OUTPUT}"))?;
        return write(&table::refresh(&document)).map(|()| ExitCode::SUCCESS);
    }
    let mut selection = Selection::parse(std::env::args().skip(1))?;
    let is_whole = selection.is_whole();
    selection.complete();
    let specs = selection.specs();
    let lines = make(&specs, &selection);
    let mut text = String::new();
    let mut problems = 0;
    for (index, (line, objections)) in lines.iter().enumerate() {
        if index % (selection.scenarios.len() * selection.systems.len()) == 0
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
    if is_whole {
        let document = format!("{}{text}{}", table::INTRO, table::fingerprints());
        write(&document)?;
    }
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(document: &str) -> anyhow::Result<()> {
    std::fs::write(OUTPUT, document).with_context(|| format!("cannot write {OUTPUT}"))
}

/// A line for each run and the oracles' objections, on every core: the run of median goodput of
/// the seeds.
fn make(specs: &[RunSpec], selection: &Selection) -> Vec<(String, Vec<String>)> {
    let seeds = selection.seeds.unwrap_or(1).max(1);
    let runs: Vec<RunSpec> = specs
        .iter()
        .flat_map(|spec| (0..seeds).map(move |more| (spec, more)))
        .map(|(spec, more)| {
            let mut spec = spec.clone();
            spec.setup.seed += more as u64;
            spec
        })
        .collect();
    let mut rows = parallel::map(&runs, |spec| run(spec, None)).into_iter();
    specs.iter().map(|spec| line((0..seeds).filter_map(|_| rows.next()).collect(), spec, selection)).collect()
}

fn line(mut rows: Vec<Row>, spec: &RunSpec, selection: &Selection) -> (String, Vec<String>) {
    rows.sort_by(|a, b| a.goodput_mbps.total_cmp(&b.goodput_mbps));
    let problems = rows.iter().flat_map(|row| row.problems.iter().cloned()).collect();
    let median = rows.get(rows.len() / 2);
    let mut line =
        median.map(|row| table::line(&spec.setup.scenario.name, spec.system, row)).unwrap_or_default();
    if let Some(share) = median.and_then(|row| row.competitor_share) {
        line = format!("{} competitor {:.0} % |\n", line.trim_end(), share * 100.0);
    }
    if let Some(row) = median.filter(|_| selection.has_transfers) {
        let seconds: Vec<String> =
            row.transfers.iter().map(|span| format!("{:.2}", span.as_secs_f64())).collect();
        line = format!("{} {} s |\n", line.trim_end(), seconds.join(", "));
    }
    (line, problems)
}
