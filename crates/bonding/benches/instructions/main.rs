//! `cargo xtask bench instructions`: the instructions of each step of a packet's path, counted by
//! callgrind, beside a committed baseline. The run fails if a step costs over 5 % more than its
//! baseline.
//!
//! Counts do not depend on the load of the machine. Each step runs twice, with N and 2 N packets;
//! the difference over N is the cost of one packet, without the set-up. valgrind does not know
//! AVX-512: sealing costs more here than in use. Counts hold for one compiler and one processor
//! family; compare them only with a baseline of the same.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]

mod steps;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;

use crate::steps::Step;

/// The committed counts, relative to the package.
const BASELINE: &str = "benches/instructions/baseline.txt";
/// Packets of the shorter run.
const PACKETS: usize = 20_000;
/// A step fails if it costs more than its baseline by this much, in thousandths.
const MARGIN_PERMILLE: u64 = 50;

/// Counts instructions.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench instructions")]
struct Arguments {
    /// Only these steps
    steps: Vec<String>,
    /// Write the counts to the baseline
    #[arg(long)]
    update: bool,
    /// Run one step with this number of packets
    #[arg(long, hide = true, num_args = 2, value_names = ["STEP", "PACKETS"])]
    run: Option<Vec<String>>,
    /// Cargo passes this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.run.as_deref() {
        Some([step, packets]) => run_one(step, packets).map(|()| true),
        _ => measure(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn find(name: &str) -> anyhow::Result<&'static Step> {
    let names = || steps::ALL.iter().map(|step| step.name).collect::<Vec<_>>().join(", ");
    steps::ALL
        .iter()
        .find(|step| step.name == name)
        .with_context(|| format!("no step `{name}`: expected one of {}", names()))
}

fn run_one(name: &str, packets: &str) -> anyhow::Result<()> {
    (find(name)?.run)(packets.parse().context("not a number of packets")?);
    Ok(())
}

/// Measures the chosen steps; `true` if all are within the margin.
fn measure(arguments: &Arguments) -> anyhow::Result<bool> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(BASELINE);
    let mut baseline = read_baseline(&std::fs::read_to_string(&file).unwrap_or_default())?;
    let chosen: Vec<&Step> = if arguments.steps.is_empty() {
        steps::ALL.iter().collect()
    } else {
        arguments.steps.iter().map(|name| find(name)).collect::<Result<_, _>>()?
    };
    let mut within = true;
    for step in chosen {
        let count = per_packet(step)?;
        let known = baseline.get(step.name).copied();
        let too_much =
            !arguments.update && known.is_some_and(|known| count * 1_000 > known * (1_000 + MARGIN_PERMILLE));
        within &= !too_much;
        let change = known.map_or("new".to_owned(), |known| {
            format!("{:+.1} %", (count as f64 / known.max(1) as f64 - 1.0) * 1e2)
        });
        let verdict = if too_much { "  TOO MUCH" } else { "" };
        println!("{:14} {count:>7} instructions a packet  {change:>8}{verdict}  {}", step.name, step.about);
        if arguments.update {
            baseline.insert(step.name.to_owned(), count);
        }
    }
    if arguments.update {
        let text: String = baseline.iter().map(|(name, count)| format!("{name} {count}\n")).collect();
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("written: {BASELINE}");
    }
    Ok(within)
}

fn read_baseline(text: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let line = |line: &str| {
        let (name, count) = line.split_once(' ').with_context(|| format!("{BASELINE}: `{line}`"))?;
        Ok((name.to_owned(), count.parse().with_context(|| format!("{BASELINE}: `{line}`"))?))
    };
    text.lines().map(line).collect()
}

fn per_packet(step: &Step) -> anyhow::Result<u64> {
    let packets = PACKETS / step.scale;
    let (short, long) = (instructions(step, packets)?, instructions(step, 2 * packets)?);
    ensure!(long > short, "{}: more packets took no more instructions", step.name);
    Ok((long - short) / packets as u64)
}

/// Instructions of a run under callgrind.
fn instructions(step: &Step, packets: usize) -> anyhow::Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe()?).args(["--run", step.name, &packets.to_string()]);
    let output = command.output().context("cannot start valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{} under valgrind ({}):\n{said}", step.name, output.status);
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count);
    Ok(collected.with_context(|| format!("valgrind gave no count:\n{said}"))?.trim().parse()?)
}
