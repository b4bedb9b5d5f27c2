//! `cargo xtask bench lab`: the bond over emulated links, with the kernel's TCP (cubic), beside the best single link.
//!
//! For each scenario and way: kernel TCP over each link alone, the bond with the round-robin baseline, and the bond as
//! it is by default, in the same run; once beside a bond over plain links. Every cell gets new hosts, links and processes.
//! Printed are medians of the runs.
//!
//! *Attainable* is the sum of the link rates over the measured time times the share of payload in a full packet: 1500 bytes on
//! the link carry a TCP segment of 1500 − 71 (IPv4, UDP, sealing, frame) − 52 (IPv4, TCP, timestamps) = 1377 bytes. Over plain links
//! the bond takes 39 instead of 71.
//!
//! It measures and judges nothing: the exit code says only whether the measurement came to its end.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]

mod cell;
#[expect(dead_code, reason = "shared with the end-to-end tests, which use more of it")]
#[path = "../../tests/harness/mod.rs"]
mod harness;
mod probe;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bonding_lab::tools::IperfDirection;
use bonding_lab::{Scenario, sandbox};
use bonding_netem::scenario;
use bonding_proto::config::Security;
use clap::Parser;

use crate::cell::{Carrier, Cell, Sample};
use crate::report::{Report, Row};

/// Measures the bond over emulated links.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench lab")]
struct Arguments {
    /// Only this scenario; may be repeated
    #[arg(long)]
    scenario: Vec<String>,
    /// One short run of each cell
    #[arg(long)]
    quick: bool,
    /// Runs of each cell
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Length of one transfer; scenarios in which something happens take their own time
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where the figures go; a table goes beside it, with the ending .md
    #[arg(long, default_value = "target/bench/lab.json")]
    json: PathBuf,
    /// Name the scenarios and end
    #[arg(long)]
    list: bool,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for name in scenario::builtin_names() {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    match sandbox::enter().map_err(anyhow::Error::from).and_then(|()| measure(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let missing = bonding_lab::requirements();
    ensure!(missing.is_empty(), "programs are missing: {missing:?}");
    let json = match std::env::var_os("BENCH_WORKING_DIRECTORY") {
        Some(folder) => PathBuf::from(folder).join(&arguments.json),
        None => arguments.json.clone(),
    };
    let names: Vec<String> = if arguments.scenario.is_empty() {
        scenario::builtin_names().map(str::to_owned).collect()
    } else {
        arguments.scenario.clone()
    };
    let scenarios: Vec<Scenario> = names.iter().map(|name| scenario::find(name)).collect::<Result<_, _>>()?;
    let runs = if arguments.quick { 1 } else { arguments.runs.max(1) };
    let mut report = Report::default();
    for scenario in &scenarios {
        println!("\n{}: {}", scenario.name, scenario.description);
        let duration = duration(scenario, arguments);
        for cell in cells(scenario, duration) {
            let mut samples: Vec<Sample> = Vec::new();
            for run in 1..=runs {
                eprint!("\r\x1b[K  {} run {run}/{runs}", cell.title());
                let seed = u64::try_from(run)?;
                samples.push(cell.run(scenario, seed).with_context(|| cell.title())?);
            }
            eprint!("\r\x1b[K");
            let row = Row::new(scenario, cell, samples);
            println!("{}", row.line());
            report.rows.push(row);
        }
        report.print_summary(&scenario.name);
    }
    report.print_targets();
    if let Some(folder) = json.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let table = json.with_extension("md");
    for (file, text) in [(&json, report.to_json()), (&table, report.to_markdown())] {
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!("\nFigures: {}, {}", json.display(), table.display());
    Ok(())
}

/// A scenario in which something happens needs its time; in the others every second is like the last.
fn duration(scenario: &Scenario, arguments: &Arguments) -> Duration {
    let varies = scenario.links.iter().any(|link| {
        [&link.up, &link.down]
            .into_iter()
            .any(|pipe| !matches!(pipe.rate, bonding_netem::Rate::Constant { .. }))
    });
    if !scenario.events.is_empty() || (varies && !arguments.quick) {
        scenario.duration
    } else if arguments.quick {
        Duration::from_secs(5)
    } else {
        Duration::from_secs(arguments.seconds.max(1))
    }
}

/// What is measured in a scenario: each kind of link alone, the baseline, the bond.
fn cells(scenario: &Scenario, duration: Duration) -> Vec<Cell> {
    let mut cells = Vec::new();
    for direction in [IperfDirection::Download, IperfDirection::Upload] {
        let mut add = |carrier, flows| cells.push(Cell { carrier, direction, flows, duration });
        for index in distinct_links(scenario) {
            add(Carrier::Single(index), 1);
        }
        add(Carrier::Bond("round_robin", Security::Sealed), 1);
        for flows in [1, 4] {
            add(Carrier::Bond("adaptive", Security::Sealed), flows);
            if scenario.name == "reference" {
                add(Carrier::Bond("adaptive", Security::Plain), flows);
            }
        }
    }
    cells
}

/// The first of each set of links that behave alike: the others would give the same figures.
fn distinct_links(scenario: &Scenario) -> Vec<usize> {
    let behaviour = |index: &usize| {
        let link = scenario.links.get(*index)?;
        let happens = scenario.events.iter().filter(|event| event.link == link.name).count();
        Some(format!("{:?} {:?} {happens}", link.up, link.down))
    };
    let mut distinct: Vec<usize> = Vec::new();
    for index in 0..scenario.links.len() {
        if !distinct.iter().any(|other| behaviour(other) == behaviour(&index)) {
            distinct.push(index);
        }
    }
    distinct
}
