//! The programs that a command needs besides the Rust toolchain: found, installed, or named.
//!
//! The list is `xtask/prerequisites.txt`. `prerequisites-test.txt` beside it has the programs of
//! the end-to-end tests; `.ci/run` reads both. `prerequisites-bench.txt`, `-cpu.txt` and
//! `-instructions.txt` have those of single benchmarks. On Debian and its descendants root installs
//! a missing package with apt-get: without a question if `CI=true` or `--yes` is given, after a
//! question on a terminal. In every other case the exact command is printed and nothing is changed.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::process;

const LIST: &str = include_str!("../prerequisites.txt");
/// The programs of only the end-to-end tests.
pub(crate) const TEST: &str = include_str!("../prerequisites-test.txt");
/// The programs of only the benchmark over emulated links.
pub(crate) const BENCH: &str = include_str!("../prerequisites-bench.txt");
/// The programs of only the benchmark of instructions.
pub(crate) const INSTRUCTIONS: &str = include_str!("../prerequisites-instructions.txt");
/// The programs that only the benchmark of processor time is compared with.
pub(crate) const CPU: &str = include_str!("../prerequisites-cpu.txt");
const TUN: &str = "/dev/net/tun";

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Prerequisite<'a> {
    program: &'a str,
    package: &'a str,
    purpose: &'a str,
}

/// Reads the list: three columns, `#` starts a comment line.
fn parse(list: &str) -> Vec<Prerequisite<'_>> {
    list.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (program, rest) = line.trim().split_once(char::is_whitespace)?;
            let (package, purpose) = rest.trim_start().split_once(char::is_whitespace)?;
            Some(Prerequisite { program, package, purpose: purpose.trim_start() })
        })
        .collect()
}

fn missing<'a>(list: &[Prerequisite<'a>]) -> Vec<Prerequisite<'a>> {
    list.iter()
        .filter(|entry| process::find(entry.program).is_none())
        .map(|entry| Prerequisite { ..*entry })
        .collect()
}

/// The packages of some entries, each once, as one argument list.
fn packages<'a>(entries: &[Prerequisite<'a>]) -> BTreeSet<&'a str> {
    entries.iter().map(|entry| entry.package).collect()
}

/// Makes sure that every program of the list and the TUN device are there.
///
/// # Errors
/// Names what is missing and the command that brings it.
pub(crate) fn ensure(assume_yes: bool) -> anyhow::Result<()> {
    ensure_with("", assume_yes)
}

/// As [`ensure`], with the programs of another list as well.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_with(more: &str, assume_yes: bool) -> anyhow::Result<()> {
    let list = [parse(LIST), parse(more)].concat();
    let lacking = missing(&list);
    if !lacking.is_empty() {
        println!("This needs programs that are not on this machine:");
        for entry in &lacking {
            println!("  {:8} {} (Debian package {})", entry.program, entry.purpose, entry.package);
        }
        install(&packages(&lacking), assume_yes)?;
        if let Some(entry) = missing(&list).first() {
            bail!("{} is still missing after installing {}", entry.program, entry.package);
        }
    }
    ensure_tun()
}

fn install(names: &BTreeSet<&str>, assume_yes: bool) -> anyhow::Result<()> {
    let names: Vec<&str> = names.iter().copied().collect();
    let by_hand = format!("apt-get update && apt-get install -y {}", names.join(" "));
    let root = process::effective_uid() == Some(0);
    if process::find("apt-get").is_none() {
        bail!("install them with this system's package manager; on Debian: {by_hand}");
    }
    if !root {
        bail!("install them with: sudo sh -c '{by_hand}'");
    }
    if !may_run(&by_hand, assume_yes)? {
        bail!("install them with: {by_hand}");
    }
    for arguments in [vec!["update"], [vec!["install", "-y", "--no-install-recommends"], names].concat()] {
        println!("$ apt-get {}", arguments.join(" "));
        let status = process::command("apt-get")
            .args(&arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status()
            .context("cannot start apt-get")?;
        if !status.success() {
            bail!("apt-get {} failed ({status})", arguments.join(" "));
        }
    }
    Ok(())
}

/// Whether to run `what`, a command that installs packages.
pub(crate) fn may_run(what: &str, assume_yes: bool) -> anyhow::Result<bool> {
    Ok(assume_yes || std::env::var("CI").is_ok_and(|ci| ci == "true") || confirm(what)?)
}

/// Asks on a terminal; without one the answer is no.
fn confirm(what: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("Run `{what}` now? [Y/n] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}

/// Makes sure of the TUN device: root loads the module or makes the node; another user is told how.
fn ensure_tun() -> anyhow::Result<()> {
    if Path::new(TUN).exists() {
        return Ok(());
    }
    if process::effective_uid() == Some(0) {
        let make = format!(
            "modprobe tun 2>/dev/null; [ -e {TUN} ] || {{ mkdir -p /dev/net && mknod {TUN} c 10 200; }}"
        );
        process::command("sh").args(["-c", &make]).status().context("cannot start sh")?;
        if Path::new(TUN).exists() {
            return Ok(());
        }
    }
    bail!(
        "{TUN} is missing: load the kernel's TUN driver with `sudo modprobe tun` (containers: --device {TUN})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_has_three_columns() {
        for text in [LIST, BENCH] {
            let lines = text.lines().filter(|line| !line.starts_with('#')).count();
            assert_eq!(parse(text).len(), lines);
        }
        let list = parse(LIST);
        assert!(list.contains(&Prerequisite {
            program: "nft",
            package: "nftables",
            purpose: "the server's NAT"
        }));
    }

    #[test]
    fn only_what_the_search_path_lacks_is_missing() {
        let list = parse("sh dash the shell\nno-such-program-here some-package nothing\n");
        let lacking = missing(&list);
        assert_eq!(packages(&lacking).into_iter().collect::<Vec<_>>(), ["some-package"]);
    }
}
