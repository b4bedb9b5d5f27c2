//! The entry points for newcomers and developers: `cargo xtask demo`, `test`, `tidy`,
//! `dependencies`, `fuzz`, `memory`, `model`, `chaos`, `bench` and `trace`.
//!
//! A command checks which programs the machine lacks, installs or names them, builds with cargo's
//! own progress on the terminal, and hands over to the program that does the work. Only `tidy` and
//! `dependencies` do their work here. This crate knows neither the protocol nor the emulator: it
//! must build in seconds, since every `cargo xtask` builds it.
//!
//! Exit codes: 0 all is well, 1 something failed, 2 the command line was wrong.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]

mod bench;
mod chaos;
mod demo;
mod dependencies;
mod fuzz;
mod memory;
mod model;
mod prerequisites;
mod process;
mod sandbox;
mod test;
mod tidy;
mod trace;

use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask COMMAND [OPTIONS]

Commands:
  demo         build the bond and show it: two hosts and five shaped links on this machine, a real download
  test         run every test, end-to-end ones included
  tidy         check the style rules that rustfmt and clippy do not know
  dependencies check licences, second versions and sources of the dependencies, and that each is used
  fuzz         run the fuzz targets with new inputs
  memory       run the tests beside the unsafe code under valgrind and Miri
  model        check the symbolic models of the handshake
  chaos        play the bond through random faults in virtual time, for as long as wanted
  bench lab    measure the bond over emulated links with kernel TCP, beside others, and judge it
  bench cpu    measure the cost of packets, beside WireGuard implementations and OpenVPN
  bench instructions
               count the instructions of each step of a packet's path, beside a committed baseline
  bench handshake
               measure the time of each step of a handshake
  bench plot   draw rate, round-trip time and queue of each link over time
  bench attack measure a loaded tunnel under attack, and many sessions on one server
  trace        draw a trace of the bond's decisions, as written with --trace
  help         this text

Each command says what the machine lacks and how to get it; `cargo xtask COMMAND --help` has its options.

Examples:
  cargo xtask demo
  cargo xtask test
  cargo xtask bench lab --quick
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = arguments.split_first() else {
        print!("{HELP}");
        return ExitCode::from(2);
    };
    let outcome = match command.as_str() {
        "demo" => demo::run(rest),
        "test" => test::run(rest),
        "bench" => bench::run(rest),
        "chaos" => chaos::run(rest),
        "tidy" => tidy::run(rest),
        "dependencies" => dependencies::run(rest),
        "fuzz" => fuzz::run(rest),
        "memory" => memory::run(rest),
        "model" => model::run(rest),
        "trace" => trace::run(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => Err(usage(format!(
            "unknown command `{other}`: expected demo, test, tidy, dependencies, fuzz, memory, model, chaos, bench or trace"
        ))),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// A wrong command line, told apart from a failed run by its exit code.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}; `cargo xtask help` lists the commands, `cargo xtask COMMAND --help` the options",
            self.0
        )
    }
}

impl std::error::Error for Usage {}

fn usage(message: String) -> anyhow::Error {
    anyhow::Error::new(Usage(message))
}

/// Whether the arguments ask for help; arguments after `--` are another program's.
fn wants_help(arguments: &[String]) -> bool {
    arguments.iter().take_while(|a| *a != "--").any(|a| a == "--help" || a == "-h")
}
