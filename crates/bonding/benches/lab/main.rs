//! `cargo xtask bench lab`: the bond over emulated links, beside the best single link, the
//! round-robin baseline and the kernel's Multipath TCP in the same run.
//!
//! Real processes and the kernel's TCP run in network namespaces of one machine. A row of the table
//! ([`table`]) is a scenario, a load and targets; each carrier of a row gets new hosts, links and
//! processes. Only the links' names and the peer are configured (`--ceilings` configures the rates,
//! for comparison).
//!
//! *Attainable* is the sum of the link rates over the measured time, times the share of payload in
//! a full packet. 1500 bytes on a link carry a TCP segment of 1500 − 71 (IPv4, UDP, sealing, frame)
//! − 52 (IPv4, TCP, timestamps) = 1377 bytes; over plain links the bond takes 39 instead of 71. The
//! bond's status says the real MTU of the tunnel.
//!
//! The report holds the verdicts. The exit code says only whether the measurement was completed.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]

mod alone;
mod carrier;
mod extra;
mod fetch;
mod flows;
mod light;
mod limited;
mod measure;
mod pages;
mod report;
mod rows;
mod sockets;
mod table;
mod trace;
mod turns;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use bonding_lab::{Lab, sandbox};
use bonding_netem::scenario;
use bonding_testkit::programs::Programs;
use clap::Parser;

use crate::measure::Plan;
use crate::report::{Measured, Report, Run};
use crate::rows::{Carrier, Load, Row, Timing};

/// The programs under test.
const PROGRAMS: Programs = bonding_testkit::programs!();

/// Measures the bond over emulated links.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench lab")]
struct Arguments {
    /// Only this row, or all whose names begin with this, or are this with one `*` for any text;
    /// may be repeated
    #[arg(long)]
    row: Vec<String>,
    /// Only rows of this scenario; may be repeated
    #[arg(long)]
    scenario: Vec<String>,
    /// Only this carrier: bond, round_robin, single, mptcp, reversed, plain or no_recovery; may be
    /// repeated
    #[arg(long, value_enum)]
    only: Vec<Carrier>,
    /// Configure the links' rates, as ceilings
    #[arg(long)]
    ceilings: bool,
    /// One short run of each row
    #[arg(long)]
    quick: bool,
    /// Runs of each row; medians are printed
    #[arg(long, default_value_t = 3)]
    runs: u64,
    /// Run the other carriers in the first run only
    #[arg(long)]
    others_once: bool,
    /// Measured length of one transfer; scenarios with events take their own time
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Write the figures to this file, and tables beside it, with the ending .md
    #[arg(long, default_value = "target/bench/lab.json")]
    json: PathBuf,
    /// Keep the figures of other rows in that file
    #[arg(long)]
    keep: bool,
    /// Also write the links' figures in the bond's first run to ROW.csv in this folder
    #[arg(long, value_name = "FOLDER")]
    trace: Option<PathBuf>,
    /// Measure nothing: put the tables of the figures in --json into this document
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// The folder of recorded traces; without it, rows of recorded links are left out
    /// [default: the one that BONDING_TRACES names]
    #[arg(long, value_name = "FOLDER")]
    traces: Option<PathBuf>,
    /// Name the rows and end
    #[arg(long)]
    list: bool,
    /// Cargo passes this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = if arguments.list {
        for row in table::all() {
            println!("{:20} {}: {}", row.name, row.scenario, row.about());
        }
        Ok(())
    } else if let Some(document) = &arguments.document {
        write_document(&anchored(&arguments.json), &anchored(document))
    } else {
        sandbox::enter().map_err(anyhow::Error::from).and_then(|()| measure(&arguments))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Relative files are relative to the caller's folder; cargo starts a benchmark in another.
fn anchored(file: &Path) -> PathBuf {
    match std::env::var_os("BENCH_WORKING_DIRECTORY") {
        Some(folder) => PathBuf::from(folder).join(file),
        None => file.to_owned(),
    }
}

/// The folder of recorded traces, if one is named.
fn traces(arguments: &Arguments) -> Option<PathBuf> {
    let named = arguments.traces.clone().or_else(scenario::traces_folder);
    named.map(|folder| anchored(&folder))
}

/// The rows that the command line asks for.
fn chosen(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let mut rows = table::all();
    for name in &arguments.row {
        ensure!(rows.iter().any(|row| row.is_named(name)), "no row '{name}' (--list names them)");
    }
    for name in &arguments.scenario {
        ensure!(
            rows.iter().any(|row| row.scenario == name),
            "no row of scenario '{name}' (--list names them)"
        );
    }
    rows.retain(|row| {
        let named = arguments.row.iter().any(|name| row.is_named(name));
        let plays = arguments.scenario.iter().any(|name| row.scenario == name);
        (arguments.row.is_empty() && arguments.scenario.is_empty()) || named || plays
    });
    Ok(rows)
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let mut missing = bonding_lab::requirements();
    if arguments.only.is_empty() || arguments.only.contains(&Carrier::Mptcp) {
        missing.extend(bonding_lab::mptcp_requirement());
    }
    ensure!(missing.is_empty(), "programs are missing: {missing:?}");
    let runs = if arguments.quick { 1 } else { arguments.runs.max(1) };
    let mut report = Report {
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        rows: Vec::new(),
    };
    let json = anchored(&arguments.json);
    if arguments.keep && json.exists() {
        report.rows = read_report(&json)?.rows;
    }
    let mut chosen = chosen(arguments)?;
    if !arguments.only.is_empty() {
        chosen.retain(|row| row.carriers.iter().any(|carrier| arguments.only.contains(carrier)));
    }
    if traces(arguments).is_none() {
        let (known, recorded): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|row| !row.is_recorded());
        for row in &recorded {
            println!("{} is left out: it needs recorded traces (--traces FOLDER)", row.name);
        }
        chosen = known;
    }
    for row in &chosen {
        println!("\n{} ({}): {}", row.name, row.scenario, row.about());
        let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let mut measured = Measured::new(row, at, arguments.ceilings);
        for seed in 1..=runs {
            measured.runs.push(run(row, arguments, seed).with_context(|| row.name.clone())?);
        }
        for carrier in row.carriers {
            if measured.runs.iter().any(|run| run.carriers.contains_key(carrier)) {
                println!("{}", measured.lines(*carrier));
            }
        }
        measured.print_targets();
        report.put(measured);
        // The report keeps this row even if a later one fails.
        save(&report, &json)?;
    }
    if chosen.len() > 1 {
        report.print_targets(&chosen);
    }
    println!("\nFigures: {}, {}", json.display(), json.with_extension("md").display());
    Ok(())
}

/// Runs all carriers of a row once.
fn run(row: &Row, arguments: &Arguments, seed: u64) -> anyhow::Result<Run> {
    let scenario = if matches!(row.load, Load::Limited) {
        Lab::wires(1)
    } else {
        scenario::find_with(row.scenario, traces(arguments).as_deref())?
    };
    let mut run = Run { busy_before_percent: bonding_testkit::probe::busy_percent()?, ..Run::default() };
    for carrier in row.carriers {
        if !arguments.only.is_empty() && !arguments.only.contains(carrier) {
            continue;
        }
        if arguments.others_once && seed > 1 && !carrier.is_bond() {
            continue;
        }
        let traced = *carrier == Carrier::Bond && seed == 1;
        let trace = arguments.trace.as_ref().filter(|_| traced).map(|folder| anchored(folder));
        let trace = trace.map(|folder| folder.join(format!("{}.csv", row.name)));
        if let Some(folder) = trace.as_deref().and_then(Path::parent) {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let terminal = std::io::stderr().is_terminal();
        if terminal {
            eprint!("\r\x1b[K  run {seed}: {}", carrier.title());
        }
        let timing = Timing::new(&scenario, row, *carrier, arguments.seconds.max(1), arguments.quick);
        let plan = Plan {
            scenario: &scenario,
            load: row.load,
            carrier: *carrier,
            timing,
            ceilings: arguments.ceilings,
            seed,
            quick: arguments.quick,
            trace: trace.as_deref(),
        };
        let figures = plan.run().with_context(|| carrier.title());
        if terminal {
            eprint!("\r\x1b[K");
        }
        run.carriers.insert(*carrier, figures?);
    }
    run.add_ratios();
    Ok(run)
}

fn save(report: &Report, json: &Path) -> anyhow::Result<()> {
    if let Some(folder) = json.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    for (file, text) in [(json, report.to_json()?), (&json.with_extension("md"), report.to_markdown())] {
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn read_report(json: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read_to_string(json).with_context(|| format!("cannot read {}", json.display()))?;
    serde_json::from_str(&text).with_context(|| json.display().to_string())
}

/// Puts the tables between a document's marks for them: all tables (`table`), the short one
/// (`figures`), or both.
fn write_document(json: &Path, document: &Path) -> anyhow::Result<()> {
    let report = read_report(json)?;
    let name = document.display();
    let mut text = std::fs::read_to_string(document).with_context(|| format!("cannot read {name}"))?;
    let mut written = false;
    for (mark, table) in [("table", report.to_markdown()), ("figures", report.to_summary())] {
        let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->"));
        let Some((before, rest)) = text.split_once(&begin) else { continue };
        let (_, after) = rest.split_once(&end).with_context(|| format!("{name} has no {end}"))?;
        text = format!("{before}{begin}{table}{end}{after}");
        written = true;
    }
    ensure!(written, "{name} has neither a line <!-- table --> nor <!-- figures -->");
    std::fs::write(document, text).with_context(|| format!("cannot write {name}"))
}
