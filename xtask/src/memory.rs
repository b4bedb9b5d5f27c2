//! `cargo xtask memory`: the unit tests beside the project's unsafe code, watched.
//!
//! Only `crates/os` has unsafe code (elsewhere the lint `unsafe_code` forbids it). docs/unsafe.md
//! lists each block with its invariant and its tests; a test here compares that list with the code.
//!
//! valgrind runs the tests of all these modules: it sees uninitialised memory that a system call or
//! a branch reads, and accesses outside of an allocation. Miri sees more (aliasing, provenance) but
//! makes no such system calls: it runs the tests of `slab`. It is part of a nightly toolchain. If
//! that is missing, the command says so and goes on.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;

use crate::{prerequisites, process, wants_help};

const HELP: &str = "\
Usage: cargo xtask memory [--yes]

Runs the unit tests of the modules with unsafe code under valgrind, and those without system calls under Miri where a
nightly toolchain has it (rustup +nightly component add miri rust-src). docs/unsafe.md lists the unsafe code.

Options:
  --yes     install missing Debian packages without asking (as root; CI=true means the same)
";

/// The tests that run unsafe code. valgrind knows no `epoll_pwait2`, by which other tests of `udp`
/// wait.
const TESTS: [&str; 3] =
    ["slab::", "privileges::", "udp::tests::errors_are_told_only_while_they_are_asked_for"];
/// Those that Miri can run, and of these the one that takes it most of a minute.
const WITHOUT_SYSTEM_CALLS: [&str; 3] = ["slab::", "--skip", "what_a_round_trip_holds"];
/// How the tests are started: every fault is an error, and children are not followed.
const VALGRIND: &str = "valgrind --quiet --error-exitcode=99 --leak-check=no";

/// Runs the tests.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    if wants_help(arguments) {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(argument) = arguments.iter().find(|it| **it != "--yes") {
        return Err(crate::usage(format!("memory: unknown argument `{argument}`")));
    }
    prerequisites::ensure_with(prerequisites::INSTRUCTIONS, !arguments.is_empty())?;
    println!("valgrind: {}", TESTS.join(" "));
    let mut cargo = process::cargo();
    cargo.args(["test", "--package", "bonding-os", "--lib", "--"]).args(TESTS);
    cargo.args(["--test-threads", "1"]).env(runner_variable()?, VALGRIND);
    let mut ok = passed(cargo)?;
    let mut probe = nightly();
    probe.args(["miri", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        println!("Miri: {}", WITHOUT_SYSTEM_CALLS.join(" "));
        let mut cargo = nightly();
        cargo.args(["miri", "test", "--package", "bonding-os", "--lib", "--"]).args(WITHOUT_SYSTEM_CALLS);
        cargo.env("CARGO_TARGET_DIR", process::root().join("target/miri"));
        ok &= passed(cargo)?;
    } else {
        println!(
            "Miri: not on this machine, so not run; `rustup +nightly component add miri rust-src` brings it"
        );
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The cargo of the nightly toolchain: rustup's program, not the one that started this one.
fn nightly() -> Command {
    let mut cargo = process::command("cargo");
    cargo.arg("+nightly").env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC");
    cargo
}

/// The variable that names the program that cargo starts tests with.
fn runner_variable() -> anyhow::Result<String> {
    let output = process::command("rustc").args(["--print", "host-tuple"]).output();
    let machine = String::from_utf8(output.context("cannot start rustc")?.stdout)?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", machine.trim().to_uppercase().replace('-', "_")))
}

/// Whether the tests passed, and some ran.
fn passed(cargo: Command) -> anyhow::Result<bool> {
    let mut ran = false;
    let status = process::stream(cargo, |line| {
        println!("{line}");
        ran |= line.starts_with("test ") && line.ends_with(" ok");
    })?;
    Ok(status.success() && ran)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The number of unsafe blocks by file, below `folder`.
    fn blocks(folder: &Path, found: &mut Vec<(String, usize)>) {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                blocks(&path, found);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let opening = concat!("unsafe", " ");
                let count = code.filter(|line| line.contains(&format!("{opening}{{"))).count();
                if count > 0 {
                    let path = path.strip_prefix(process::root()).unwrap();
                    found.push((path.to_str().unwrap().to_owned(), count));
                }
            }
        }
    }

    #[test]
    fn the_list_names_every_unsafe_block_and_its_module_is_watched() {
        let list = std::fs::read_to_string(process::root().join("docs/unsafe.md")).unwrap();
        let mut found = Vec::new();
        for folder in ["crates", "xtask", "fuzz/src", "fuzz/tests"] {
            blocks(&process::root().join(folder), &mut found);
        }
        assert!(!found.is_empty());
        for (path, count) in found {
            let rows = list.lines().filter(|line| line.starts_with(&format!("| `{path}`"))).count();
            assert_eq!(rows, count, "{path}: rows of docs/unsafe.md, unsafe blocks");
            let module = path.trim_start_matches("crates/os/src/").replace(".rs", "::");
            assert!(TESTS.iter().any(|test| test.starts_with(&module)), "{path} is not watched");
        }
    }
}
