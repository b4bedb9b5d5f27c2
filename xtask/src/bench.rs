//! `cargo xtask bench lab` and `attack`: build with the release profile and hand over to `crates/bonding/benches`.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::{prerequisites, process, sandbox, wants_help};

const HELP: &str = "\
Usage: cargo xtask bench lab [--yes] [OPTIONS]
       cargo xtask bench attack [--yes] [--quick] [--flood]

attack measures a loaded tunnel under attack: forged and repeated datagrams, a flood of handshakes; then 100 sessions
on one server. --quick sends a tenth, --flood measures only the handshakes.

lab measures the bond with the kernel's TCP (cubic) over emulated links in network namespaces on this machine, beside
the best single link alone and the round-robin baseline in the same run. Prints a table of medians and writes the
figures as JSON.

Options of lab:
  --yes             install missing Debian packages without asking (as root)
  --scenario NAME   only this scenario; may be repeated (`--list` names them)
  --quick           one short run of each cell instead of the median of several
  --runs N          runs of each cell (default 3)
  --seconds N       length of one transfer (default 10)
  --json FILE       where the figures go (default target/bench/lab.json); a table goes beside it, ending in .md
  --list            name the scenarios and end

Examples:
  cargo xtask bench lab
  cargo xtask bench attack
  cargo xtask bench lab --quick --scenario reference
  cargo xtask bench lab --scenario dual --scenario single --runs 5 --json /tmp/lab.json
";

/// Runs the benchmark named by the first argument.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    if wants_help(arguments) {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let Some((which, rest)) = arguments.split_first() else {
        return Err(crate::usage("bench: say which: `cargo xtask bench lab` or `attack`".into()));
    };
    if !["attack", "lab"].contains(&which.as_str()) {
        return Err(crate::usage(format!("bench: unknown benchmark `{which}`: expected lab or attack")));
    }
    let (yes, options): (Vec<&String>, Vec<&String>) = rest.iter().partition(|option| *option == "--yes");
    prerequisites::ensure(!yes.is_empty())?;
    sandbox::ensure(&format!("cargo xtask bench {which}"))?;
    let status = process::cargo()
        .args(["bench", "--package", "bonding", "--bench", which, "--"])
        .args(options)
        // Relative files on the command line are meant from where the caller stands; cargo starts a benchmark elsewhere.
        .env("BENCH_WORKING_DIRECTORY", std::env::current_dir().context("no working directory")?)
        .status()
        .context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
