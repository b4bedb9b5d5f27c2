//! `cargo xtask chaos`: builds the simulator and hands over to its program `chaos`.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::{process, wants_help};

const HELP: &str = "\
Usage: cargo xtask chaos [--hours N] [--seed S]
       cargo xtask chaos --only SEED

Plays the bond through random faults, in virtual time and for as long as wanted: outages, loss, steps of rate and delay, flapping, reordering,
new keys, restarts, damaged and repeated datagrams. Afterwards nothing may be corrupted or delivered twice, and traffic must flow.
Prints its progress; a failure prints its seed and what happened, and ends it with exit code 1.

Options:
  --hours N     simulated time, in hours (default 1; about a minute on two processors)
  --seed S      the first run's seed; the next ones follow it (default 0)
  --only SEED   only the run of this seed

Examples:
  cargo xtask chaos --hours 24 --seed 1000000
";

/// Runs the simulator; returns only if it could not be started.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    if wants_help(arguments) {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let error = process::cargo()
        .args(["run", "--release", "--package", "bonding-sim", "--bin", "chaos", "--"])
        .args(arguments)
        .exec();
    Err(error).context("cannot start the simulator")
}
