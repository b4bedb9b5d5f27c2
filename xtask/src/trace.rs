//! `cargo xtask trace`: draws a trace, written by `--trace` of the daemons or by the simulator's
//! `replay`. `crates/proto/examples/trace_svg` does the work: it needs nothing but the core.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::{process, wants_help};

const HELP: &str = "\
Usage: cargo xtask trace FILE [-o OUT.svg] [--session N]

Draws a trace as SVG: for each link its capacity over time with the phases of the rate control and the causes of changes, losses, resends,
and the link's states; the gaps that the receiver waited for; the links that carried each flow. docs/trace.md says how to record a
trace. `bondctl trace FILE` prints the same as text.

Options:
  -o OUT.svg    where the plot goes [default: FILE with the extension svg]
  --session N   the session to draw [default: the one with most records]

Examples:
  cargo xtask trace /tmp/bond.trace
  cargo run --release -p bonding-sim --bin replay -- varying adaptive quic-cubic-down-4 /tmp/run
  cargo xtask trace /tmp/run/server.trace -o sender.svg
";

/// Draws the trace.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    if wants_help(arguments) {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.is_empty() {
        return Err(crate::usage("trace: say which file: `cargo xtask trace FILE`".into()));
    }
    // Relative files are meant from where the caller stands; cargo starts the program elsewhere.
    let folder = std::env::current_dir().context("no working directory")?;
    let status = process::cargo()
        .args(["run", "--quiet", "--package", "bonding-proto", "--example", "trace_svg", "--"])
        .args(arguments)
        .env("TRACE_WORKING_DIRECTORY", folder)
        .status()
        .context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
