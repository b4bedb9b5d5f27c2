//! `cargo xtask demo`: builds the binaries and hands over to `bondctl demo`.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::{prerequisites, process, sandbox, wants_help};

const HELP: &str = "\
Usage: cargo xtask demo [--yes] [-- OPTIONS OF bondctl demo]

Builds the bond, then shows it on this machine alone: two hosts and five shaped links in network namespaces, the bond
between them, a real download through it, a link that is cut. Ends by itself with a table; nothing is left behind.

Options:
  --yes     install missing Debian packages without asking (as root)

Examples:
  cargo xtask demo
  cargo xtask demo -- --help
";

/// Runs the demonstration; returns only if it could not be started.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    if wants_help(arguments) {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut yes = false;
    let mut rest = arguments.iter();
    for argument in rest.by_ref() {
        match argument.as_str() {
            "--yes" => yes = true,
            "--" => break,
            other => return Err(crate::usage(format!("demo: unknown option `{other}`"))),
        }
    }
    prerequisites::ensure(yes)?;
    sandbox::ensure("cargo xtask demo")?;
    println!("Building the release binaries (a few minutes the first time)");
    let status = process::cargo()
        .args(["build", "--release", "--package", "bonding", "--bins"])
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the build failed ({status})");
    }
    let error = process::cargo()
        .args(["run", "--quiet", "--release", "--package", "bonding", "--bin", "bondctl", "--", "demo"])
        .args(rest)
        .exec();
    Err(error).context("cannot start bondctl demo")
}
