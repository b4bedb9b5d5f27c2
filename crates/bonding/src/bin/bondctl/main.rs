//! `bondctl`: the commands of [`bonding::cli::bondctl`], and those that need the emulator.
//!
//! The emulator (`bonding-lab`) is for `bondctl lab` and `bondctl demo` alone. The library and the
//! programs `client` and `server` do not link it; without the feature `lab`, `bondctl` does not
//! either.
#![cfg_attr(
    feature = "lab",
    expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")
)]

#[cfg(feature = "lab")]
mod demo;
#[cfg(feature = "lab")]
mod lab;
mod top;

use std::process::ExitCode;

use bonding::cli;
use clap::{Parser, Subcommand};

/// The tool beside bonding-client and bonding-server.
///
/// Exit codes: 0 all is well, 1 it is not, 2 the command line or a configuration file is wrong.
#[derive(Debug, Parser)]
#[command(name = "bondctl", version, after_help = format!("{EXAMPLES}{LAB_EXAMPLE}"))]
struct Options {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  bondctl check /etc/bonding/client.toml     what a file says, or every mistake in it
  bondctl status                             the links of what runs here
  bondctl status --json | jq .links          the same for programs
  bondctl top                                the same live, with a key for what to do
  bondctl flows                              what crosses the bond, over which links, and how
  bondctl events --since 8h                  what happened last night, and why
  bondctl invite home                        (on the server) the line that enrols a client
  bondctl genkey | tee private | bondctl pubkey";

const LAB_EXAMPLE: &str = if cfg!(feature = "lab") {
    "\n  bondctl demo                               see the bond at work on this machine alone"
} else {
    ""
};

#[cfg(feature = "lab")]
const LAB_EXAMPLES: &str = "\
Examples:
  bondctl lab                                 list the scenarios
  bondctl lab reference                       a shell on the client host
  bondctl lab dual --bond                     the same with the bond running
  bondctl lab dual --bond -- ping -c 3 198.51.100.2";

#[cfg(feature = "lab")]
const DEMO_EXAMPLES: &str = "\
Examples:
  bondctl demo                                one ADSL line and four Starlink-like links
  bondctl demo dual                           two equal links
  bondctl demo my.toml                        your own links: a scenario file";

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Daemons(cli::bondctl::Command),
    /// Watch the links of the client or server that runs here, until a key ends it
    ///
    /// Rates, delays, losses, events, and whether it bonds. Needs a terminal of 80 columns.
    #[command(after_help = top::EXAMPLES)]
    Top(top::TopArguments),
    /// Open a shell between two emulated hosts with the links of a scenario
    ///
    /// Everything lives in namespaces of its own, which go when the shell ends; root is not needed
    /// where the kernel lets plain users have them.
    #[cfg(feature = "lab")]
    #[command(after_help = LAB_EXAMPLES)]
    Lab(lab::LabArguments),
    /// Show the bond on this machine alone, in about a minute
    ///
    /// Two hosts, emulated links, the real client and server, a real download; one link is cut and
    /// restored. Ends by itself with a table and leaves nothing behind. Exits 0 only if the bond
    /// did its work.
    #[cfg(feature = "lab")]
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(lab::DemoArguments),
}

fn main() -> ExitCode {
    cli::exit_code(run(Options::parse().command))
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Daemons(command) => cli::bondctl::run(command),
        Command::Top(arguments) => top::top(&arguments),
        #[cfg(feature = "lab")]
        Command::Lab(arguments) => {
            if let Some(code) = lab::lab(&arguments)? {
                return Ok(code);
            }
            print!("{}", lab::list()?);
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "lab")]
        Command::Demo(arguments) => lab::demo(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }
}
