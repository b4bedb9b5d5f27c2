//! `cargo xtask fuzz`: each fuzz target with new inputs for a while, beginning with its corpus.
//!
//! The engine is libFuzzer, which mutates inputs and keeps those that reach new code. The switches
//! that count what code is reached are LLVM's and the stable compiler takes them, so neither
//! cargo-fuzz nor another toolchain is needed. No address sanitizer is built in: it needs a nightly
//! compiler, and the core has no unsafe code.
//!
//! Contract: the committed corpora are read and never written. New inputs go to
//! `target/fuzz/TARGET`, and the next run on the machine begins with them as well. An input that
//! fails is printed with the commands that replay it. A target that did not run fails too.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use toml::{Table, Value};

use crate::{process, wants_help};

const HELP: &str = "\
Usage: cargo xtask fuzz [--seconds N] [TARGET...]

Runs the fuzz targets with new inputs, N seconds each [default: 60], as many at once as there are processors. They
begin with the committed corpora (fuzz/corpus) and with what earlier runs found (target/fuzz). An input that fails is
printed with the commands that replay it. `cargo xtask test fuzz` runs the committed inputs alone.

Examples:
  cargo xtask fuzz
  cargo xtask fuzz --seconds 3600 handshake sealed
";

/// Makes LLVM count what code an input reaches and which values it compares, as cargo-fuzz does.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions --cfg fuzzing";
/// Bytes of an input. Chosen: room for a handshake and what follows it.
const INPUT_BYTES_MAX: usize = 4_096;
/// Seconds for one input. Chosen: a hundred times what the slowest of the corpora takes.
const INPUT_SECONDS_MAX: u64 = 20;

/// Fuzzes.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    if wants_help(arguments) {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let (seconds, targets) = parse(arguments, targets()?)?;
    let programs = build(&targets)?;
    let queue = Mutex::new(targets.iter());
    let failed = Mutex::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(targets.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = queue.lock().ok().and_then(|mut queue| queue.next()) {
                    let outcome = fuzz(&programs, target, seconds);
                    let is_good = matches!(outcome, Ok(Outcome::Clean(_)));
                    println!("{}", report(target, &outcome));
                    if let (false, Ok(mut failed)) = (is_good, failed.lock()) {
                        *failed += 1;
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or(targets.len());
    println!("{} targets for {seconds} s each, {failed} failed", targets.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The seconds and the chosen targets.
fn parse(arguments: &[String], known: Vec<String>) -> anyhow::Result<(u64, Vec<String>)> {
    let mut seconds = 60;
    let mut chosen = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--seconds" {
            let number = rest.next().and_then(|it| it.parse().ok()).filter(|it| *it > 0);
            seconds = number.ok_or_else(|| crate::usage("fuzz: --seconds: a number is expected".into()))?;
        } else if known.contains(argument) {
            chosen.push(argument.clone());
        } else {
            let known = known.join(", ");
            return Err(crate::usage(format!("fuzz: unknown target `{argument}`: expected some of {known}")));
        }
    }
    Ok((seconds, if chosen.is_empty() { known } else { chosen }))
}

/// The programs that `fuzz/Cargo.toml` names.
fn targets() -> anyhow::Result<Vec<String>> {
    let path = folder().join("Cargo.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: Table = text.parse().context("fuzz/Cargo.toml")?;
    let programs = manifest.get("bin").and_then(Value::as_array).context("fuzz/Cargo.toml: no targets")?;
    let names = programs.iter().map(|it| it.get("name").and_then(Value::as_str).map(str::to_owned));
    names.collect::<Option<_>>().context("fuzz/Cargo.toml: a target without a name")
}

fn folder() -> PathBuf {
    process::root().join("fuzz")
}

/// Where the programs are built and new inputs are kept.
fn scratch() -> PathBuf {
    process::root().join("target/fuzz")
}

/// Builds the targets; returns the folder of their programs.
fn build(targets: &[String]) -> anyhow::Result<PathBuf> {
    // A build for a named machine, even this one, gives the switches to no build script.
    let rustc = process::command("rustc").args(["--print", "host-tuple"]).output();
    let machine = String::from_utf8(rustc.context("cannot start rustc")?.stdout)?;
    let (machine, build) = (machine.trim(), scratch().join("build"));
    let mut cargo = process::cargo();
    cargo.args(["build", "--release", "--locked", "--manifest-path", "fuzz/Cargo.toml", "--target", machine]);
    cargo.args(targets.iter().flat_map(|target| ["--bin", target]));
    cargo.env("RUSTFLAGS", COVERAGE).env("CARGO_TARGET_DIR", &build);
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(status.success(), "the fuzz targets do not build");
    Ok(build.join(machine).join("release"))
}

/// How a target ended.
#[derive(Debug)]
enum Outcome {
    /// No input failed; how many there were, and the seconds.
    Clean((u64, u64)),
    /// The engine's output, and the inputs that failed.
    Failed(String, Vec<PathBuf>),
}

fn fuzz(programs: &Path, target: &str, seconds: u64) -> anyhow::Result<Outcome> {
    let (found, failing) = (scratch().join(target), folder().join("artifacts").join(target));
    for folder in [&found, &failing] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let before = inputs(&failing)?;
    let mut program = Command::new(programs.join(target));
    program.args([&found, &folder().join("corpus").join(target)]);
    program.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={INPUT_BYTES_MAX}"));
    program.arg(format!("-timeout={INPUT_SECONDS_MAX}")).arg("-print_final_stats=1");
    program.arg(format!("-artifact_prefix={}/", failing.display())).stdin(Stdio::null());
    let started = Instant::now();
    let output = program.output().with_context(|| format!("cannot start the target {target}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    match (output.status.success(), executed(&text)) {
        (true, Some(count)) if count > 0 => Ok(Outcome::Clean((count, started.elapsed().as_secs()))),
        _ => {
            let mut new = inputs(&failing)?;
            new.retain(|path| !before.contains(path));
            Ok(Outcome::Failed(text.into_owned(), new))
        }
    }
}

fn inputs(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?;
    entries.map(|entry| Ok(entry.context("cannot read a folder")?.path())).collect()
}

/// The inputs that ran, as the engine says at its end.
fn executed(output: &str) -> Option<u64> {
    let figure = |line: &str| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok();
    output.lines().find_map(figure)
}

/// What is said of a target.
fn report(target: &str, outcome: &anyhow::Result<Outcome>) -> String {
    match outcome {
        Ok(Outcome::Clean((count, seconds))) => format!("{target:12} {count:9} inputs in {seconds} s"),
        Err(error) => format!("{target}: FAILED: {error:#}"),
        Ok(Outcome::Failed(output, inputs)) => {
            // The panic's message and the engine's verdict stand in the last lines.
            let lines: Vec<&str> = output.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n");
            let replays: Vec<String> = inputs.iter().map(|path| replay(target, path)).collect();
            format!("{tail}\n{target}: FAILED\n{}", replays.join("\n"))
        }
    }
}

/// The commands that run a failing input again, on any machine.
fn replay(target: &str, input: &Path) -> String {
    let name = input.file_name().unwrap_or_default().display();
    match std::fs::read(input) {
        Err(error) => format!("cannot read {}: {error}", input.display()),
        Ok(bytes) => format!(
            "To replay it ({} bytes), in the project's folder:\n  printf '{}' > fuzz/corpus/{target}/{name}\n  \
             cargo xtask test fuzz -- {target}",
            bytes.len(),
            escaped(&bytes),
        ),
    }
}

/// The bytes for the shell's `printf`, which knows octal escapes.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:03o}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_corpus() {
        let targets = targets().unwrap();
        assert!(targets.len() > 5);
        for target in targets {
            assert!(!inputs(&folder().join("corpus").join(&target)).unwrap().is_empty(), "{target}");
        }
    }

    #[test]
    fn the_command_line_chooses_targets_and_seconds() {
        let known = || vec!["a".to_owned(), "b".to_owned()];
        let parse =
            |words: &[&str]| parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>(), known());
        assert_eq!(parse(&[]).unwrap(), (60, known()));
        assert_eq!(parse(&["b", "--seconds", "9"]).unwrap(), (9, vec!["b".to_owned()]));
        for wrong in [&["c"][..], &["--seconds"], &["--seconds", "0"], &["--seconds", "x"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_failing_input_is_printed_so_that_a_shell_makes_it_again() {
        let bytes: Vec<u8> = (0..=255).collect();
        let made =
            Command::new("sh").arg("-c").arg(format!("printf '{}'", escaped(&bytes))).output().unwrap();
        assert_eq!(made.stdout, bytes);
    }

    #[test]
    fn a_run_without_inputs_is_no_success() {
        assert_eq!(executed("Done\nstat::number_of_executed_units: 70\nstat::x: 1"), Some(70));
        assert_eq!(executed("nothing"), None);
    }
}
