//! `bondctl lab` and `bondctl demo`: emulated hosts and links on this machine.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use bonding_lab::addr::{INTERNET_V4, SERVER_V4};
use bonding_lab::{Host, Lab, LabOptions, Scenario, sandbox};
use bonding_netem::scenario;

use crate::demo;
use crate::demo::bond::{Bond, Files};
use bonding::cli::Usage;

/// The folder goes with the sandbox, which has a `/run` of its own.
const FOLDER: &str = "/run/bonding-lab";

/// Options of `bondctl lab`.
#[derive(Debug, clap::Args)]
pub(crate) struct LabArguments {
    /// A built-in scenario or the path of a scenario file [default: lists the built-in ones]
    scenario: Option<String>,
    /// Start the bond's server and client on the hosts
    #[arg(long)]
    bond: bool,
    /// Let the scenario's events (cuts, changes of rate) happen from the start
    #[arg(long)]
    play: bool,
    /// Run this on the client host instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Options of `bondctl demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArguments {
    /// A built-in scenario or the path of a scenario file
    #[arg(default_value = "reference")]
    scenario: String,
}

fn find(name: &str) -> anyhow::Result<Scenario> {
    scenario::find(name).map_err(|error| Usage(error.to_string()).into())
}

/// Runs the demonstration.
pub(crate) fn demo(arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    let scenario = find(&arguments.scenario)?;
    for program in ["client", "server"] {
        demo::bond::sibling(program)?;
    }
    sandbox::enter()?;
    demo::run(&scenario)
}

/// The built-in scenarios, a line each.
pub(crate) fn list() -> anyhow::Result<String> {
    let mut text = String::from("Scenarios (bondctl lab NAME):\n");
    for name in scenario::builtin_names() {
        let scenario = scenario::builtin(name)?;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<10} {}", scenario.description);
    }
    Ok(text)
}

/// Opens a shell between emulated hosts; `None`: there was no scenario to open one for.
pub(crate) fn lab(arguments: &LabArguments) -> anyhow::Result<Option<ExitCode>> {
    let Some(name) = &arguments.scenario else { return Ok(None) };
    let scenario = find(name)?;
    if arguments.bond {
        for program in ["client", "server"] {
            demo::bond::sibling(program)?;
        }
    }
    sandbox::enter()?;
    let lab = Lab::start(&scenario, LabOptions { start_clock: arguments.play, ..LabOptions::default() })?;
    let files = Files::write(Path::new(FOLDER), &scenario)?;
    let _bond = if arguments.bond { Some(Bond::start(&lab, &files, &|| false)?) } else { None };
    let mut command = if let Some((program, rest)) = arguments.command.split_first() {
        let mut command = lab.host(Host::Client).command(program);
        command.args(rest);
        command
    } else {
        eprint!("{}", welcome(&scenario, &files, arguments.bond));
        shell(&lab)
    };
    // So that the shell finds `bondctl`, `client` and `server` by name.
    if let (Some(path), Ok(own)) = (std::env::var_os("PATH"), std::env::current_exe())
        && let Some(folder) = own.parent()
    {
        let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders).context("PATH")?);
    }
    let status = command.status().context("cannot start a shell on the client host")?;
    drop(lab);
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(Some(code.map_or(ExitCode::FAILURE, ExitCode::from)))
}

fn shell(lab: &Lab) -> Command {
    let program = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let mut command = lab.host(Host::Client).command(program);
    // The prompt of plain shells, and the prefix of Debian's bash.
    command.env("PS1", "client# ").env("debian_chroot", "client");
    command
}

fn welcome(scenario: &Scenario, files: &Files, bonded: bool) -> String {
    let links: Vec<&str> = scenario.links.iter().map(|link| link.name.as_str()).collect();
    let (client, server) = (files.client(), files.server());
    let mut text = format!(
        "{}: {}\n\
         This shell is on the client host. Its links are the devices {}.\n\
         \x20 ping -I {} {SERVER_V4}         the server's public address, over one link\n\
         \x20 ip netns exec server bash        a shell on the server host\n\
         \x20 ip netns exec internet bash      and on a host behind it, {INTERNET_V4}\n",
        scenario.name,
        scenario.description,
        links.join(", "),
        links.first().unwrap_or(&"-"),
    );
    // Writing to a string cannot fail.
    let _ = if bonded {
        writeln!(
            text,
            "The bond runs ({INTERNET_V4} is routed into it):\n\
             \x20 bondctl status --socket {} --watch\n\
             \x20 ping {INTERNET_V4}",
            files.socket().display()
        )
    } else {
        writeln!(
            text,
            "Files for a bond between them are ready:\n\
             \x20 ip netns exec server server -c {} &\n\
             \x20 client -c {} &\n\
             \x20 ip route add {INTERNET_V4} dev tun-bond     a second later; then: ping {INTERNET_V4}",
            server.display(),
            client.display()
        )
    };
    text.push_str("`exit` removes everything.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_scenarios_are_listed_with_what_they_are() {
        let text = list().unwrap();
        assert!(text.lines().any(|line| line.starts_with("  reference  One ADSL line")), "{text}");
        assert_eq!(text.lines().count(), 1 + scenario::builtin_names().count());
    }

    #[test]
    fn an_unknown_scenario_is_a_mistake_of_the_command_line() {
        let error = find("refrence").unwrap_err();
        assert!(error.is::<Usage>());
        assert!(error.to_string().contains("reference"), "{error}");
    }
}
