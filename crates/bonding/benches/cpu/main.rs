//! `cargo xtask bench cpu`: the processor time and throughput of a packet. The bond runs over wires
//! (veth pairs) at full speed, in alternating runs with the bare wire, with a bare tunnel that has
//! the same offloads and AEAD, and with other projects' tunnels.
//!
//! Client, server, their load and the kernel share the processors of one machine. So a tunnel's
//! throughput is what the machine does at both ends at once, and is comparable only with figures of
//! the same run. Processor time is that of the two tunnel processes, system calls included. The
//! loads:
//!
//! - `bulk`: one TCP flow, download, at full speed;
//! - `paced`: the same limited to 300 Mbit/s;
//! - `reference`: one TCP flow, download, over emulated links: the bond over those of the scenario
//!   `reference`, every other carrier over one link that carries as much. The emulator delivers
//!   each datagram by itself and at its time, as a line does and a wire does not;
//! - `small`, `small-1000`: UDP packets of 100 bytes in one flow, and in 1,000, one `send` each, as
//!   many as get through;
//! - `small-batch`: the same in one flow, 64 packets to a `send` (`UDP_SEGMENT`), so that the
//!   sender costs little: what the tunnel does where its user is no bottleneck;
//! - `latency`: pings on an otherwise unused tunnel;
//! - `idle`: only the tunnel's own traffic.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]

mod bare;
mod carrier;
mod load;
mod peers;
mod report;
mod small;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use bonding_lab::{Host, sandbox};
use bonding_testkit::programs::Programs;
use clap::Parser;

use crate::carrier::Carrier;
use crate::load::{Load, Plan};
use crate::report::Report;

/// The programs under test.
const PROGRAMS: Programs = bonding_testkit::programs!();

/// Measures the cost of a packet.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench cpu")]
struct Arguments {
    /// Only this carrier; may be repeated
    #[arg(long, value_enum)]
    only: Vec<Carrier>,
    /// Only this load; may be repeated
    #[arg(long, value_enum)]
    load: Vec<Load>,
    /// Alternating runs; medians are printed
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Measured length of one transfer
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Write the figures to this file, and a table beside it, with the ending .md
    #[arg(long, default_value = "target/bench/cpu.json")]
    json: PathBuf,
    /// The folder of boringtun-cli, if not in the PATH
    #[arg(long, value_name = "FOLDER")]
    peers: Option<PathBuf>,
    /// Cargo passes this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
    /// Be one end of the bare tunnel
    #[arg(long, hide = true, value_name = "LOCAL REMOTE ADDRESS", num_args = 3)]
    bare: Option<Vec<String>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.bare {
        Some(end) => bare::run(end),
        None => sandbox::enter().map_err(anyhow::Error::from).and_then(|()| measure(&arguments)),
    };
    match result {
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
    let chosen = |carrier: &Carrier| arguments.only.is_empty() || arguments.only.contains(carrier);
    let mut carriers: Vec<Carrier> = Carrier::ALL.into_iter().filter(chosen).collect();
    carriers.retain(|carrier| {
        let missing = carrier.missing(arguments.peers.as_deref());
        if let Some(missing) = &missing {
            println!("{}: {missing} is missing, so it is left out", carrier.name());
        }
        missing.is_none()
    });
    let asked = |load: &Load| arguments.load.is_empty() || arguments.load.contains(load);
    let loads: Vec<Load> = Load::ALL.into_iter().filter(asked).collect();
    let plan = Plan { seconds: arguments.seconds, peers: arguments.peers.clone() };
    let mut report = Report::new()?;
    for run in 1..=arguments.runs.max(1) {
        for carrier in &carriers {
            for load in loads.iter().filter(|load| load.is_for(*carrier)) {
                let figures = plan.run(*carrier, *load);
                let figures = figures.with_context(|| format!("{}, {}", carrier.name(), load.name()))?;
                println!("run {run}  {}", report::line(*carrier, *load, &figures));
                report.add(*carrier, *load, figures);
            }
        }
    }
    let table = report.table();
    println!("\n{table}");
    let folder = std::env::var_os("BENCH_WORKING_DIRECTORY").map(PathBuf::from).unwrap_or_default();
    let json = folder.join(&arguments.json);
    if let Some(parent) = json.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    std::fs::write(&json, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", json.display()))?;
    std::fs::write(json.with_extension("md"), table)?;
    println!("figures: {}", json.display());
    Ok(())
}

/// Both ends of a tunnel.
const ENDS: [Host; 2] = [Host::Client, Host::Server];
