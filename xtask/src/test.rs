//! `cargo xtask test`: every test of the project, in steps, with one count at the end.
//!
//! Contract: the last line of standard output is `N passed, N failed` (with `, N skipped` if any),
//! the sum of the test runners' own counts. A step that ended badly without a failed test (a build
//! error, a crash, a step in which no test ran) counts as one failure. The exit code is 0 only if
//! no test failed and some test ran.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::{prerequisites, process, sandbox, wants_help};

const HELP: &str = "\
Usage: cargo xtask test [--yes] [STEP...] [-- OPTIONS OF THE TEST PROGRAMS]

Runs every test, end-to-end ones included, and ends with a count. With steps named, only those:
  unit          unit and property tests beside the code of every crate
  integration   what stands in the crates' tests/ folders: simulator, emulator, end to end
  e2e           of these only the end-to-end tests: the real binaries in network namespaces
  sim           of these only the simulator's
  doc           the examples in the documentation
  fuzz          the fuzz targets over their committed corpora

Options:
  --yes     install missing Debian packages without asking (as root; CI=true means the same)

Examples:
  cargo xtask test
  cargo xtask test unit doc
  cargo xtask test e2e -- restart
";

/// One cargo call that runs tests.
#[derive(Debug)]
struct Step {
    name: &'static str,
    about: &'static str,
    arguments: &'static [&'static str],
    /// Part of a run without named steps; the other steps are selections of these.
    by_default: bool,
}

// Each call covers the whole workspace, so that cargo resolves features alike and builds no crate
// twice.
const STEPS: &[Step] = &[
    Step {
        name: "unit",
        about: "unit and property tests",
        arguments: &["--workspace", "--lib", "--bins"],
        by_default: true,
    },
    Step {
        name: "integration",
        about: "simulator, emulator, end to end",
        arguments: &["--workspace", "--test", "*"],
        by_default: true,
    },
    Step {
        name: "e2e",
        about: "end to end: the real binaries in network namespaces",
        arguments: &["--workspace", "--test", "e2e*"],
        by_default: false,
    },
    Step {
        name: "sim",
        about: "simulator",
        arguments: &["--package", "bonding-sim", "--tests"],
        by_default: false,
    },
    Step {
        name: "doc",
        about: "examples in the documentation",
        arguments: &["--workspace", "--doc"],
        by_default: true,
    },
    Step {
        name: "fuzz",
        about: "fuzz targets over their committed corpora",
        arguments: &["--manifest-path", "fuzz/Cargo.toml", "--no-default-features"],
        by_default: true,
    },
];

/// The counts that a step's test programs reported.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    /// Adds a runner's closing line, `test result: ok. 3 passed; 0 failed; 1 ignored; …`; any other
    /// line is ignored.
    fn add_line(&mut self, line: &str) {
        let Some((_, figures)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for figure in figures.split(';') {
            let mut words = figure.split_whitespace();
            let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// A finished step.
#[derive(Debug)]
struct Outcome {
    name: &'static str,
    counts: Counts,
    took: Duration,
    note: &'static str,
}

/// Runs the tests.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    if wants_help(arguments) {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut yes = false;
    let mut chosen: Vec<&Step> = Vec::new();
    let mut rest = arguments.iter();
    for argument in rest.by_ref() {
        match argument.as_str() {
            "--yes" => yes = true,
            "--" => break,
            name => match STEPS.iter().find(|step| step.name == name) {
                Some(step) => chosen.push(step),
                None => {
                    let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
                    let names = names.join(", ");
                    return Err(crate::usage(format!(
                        "test: unknown step `{name}`: expected one of {names}"
                    )));
                }
            },
        }
    }
    let passed_on: Vec<&String> = rest.collect();
    let everything = chosen.is_empty();
    if everything {
        chosen.extend(STEPS.iter().filter(|step| step.by_default));
    }
    prerequisites::ensure_with(prerequisites::TEST, yes)?;
    sandbox::ensure("cargo xtask test")?;
    let mut outcomes = Vec::new();
    for (index, step) in chosen.iter().enumerate() {
        println!("\n[{}/{}] {}: {}", index + 1, chosen.len(), step.name, step.about);
        let outcome = run_step(step, &passed_on)?;
        println!("[{}/{}] {}: {}{}", index + 1, chosen.len(), step.name, outcome.counts, outcome.note);
        outcomes.push(outcome);
    }
    Ok(summarise(&outcomes))
}

fn run_step(step: &Step, passed_on: &[&String]) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let mut command: Command = process::cargo();
    command.arg("test").arg("--no-fail-fast").args(step.arguments).arg("--").args(passed_on);
    let mut counts = Counts::default();
    let status = process::stream(command, |line| {
        println!("{line}");
        counts.add_line(line);
    })?;
    let mut note = "";
    if !status.success() && counts.failed == 0 {
        note = " (the step did not come to its end: see above)";
        counts.failed = 1;
    } else if counts.passed + counts.failed == 0 {
        note = " (no test ran)";
        counts.failed = 1;
    }
    Ok(Outcome { name: step.name, counts, took: started.elapsed(), note })
}

/// Prints the table and the closing line.
fn summarise(outcomes: &[Outcome]) -> ExitCode {
    let mut total = Counts::default();
    println!("\nSummary");
    for outcome in outcomes {
        total.add(outcome.counts);
        let seconds = outcome.took.as_secs_f64();
        println!("  {:12} {seconds:7.1} s   {}{}", outcome.name, outcome.counts, outcome.note);
    }
    println!("{total}");
    if total.failed == 0 && total.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_the_runners_add_up() {
        let mut counts = Counts::default();
        counts.add_line("running 3 tests");
        counts.add_line(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        counts.add_line("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out");
        counts.add_line("test tests::result ... ok");
        assert_eq!(counts, Counts { passed: 4, failed: 2, skipped: 1 });
        assert_eq!(counts.to_string(), "4 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_run_without_named_steps_covers_every_kind() {
        let names: Vec<&str> = STEPS.iter().filter(|step| step.by_default).map(|step| step.name).collect();
        assert_eq!(names, ["unit", "integration", "doc", "fuzz"]);
    }

    #[test]
    fn failures_decide_the_exit_code() {
        let outcome = |passed, failed| Outcome {
            name: "unit",
            counts: Counts { passed, failed, skipped: 0 },
            took: Duration::ZERO,
            note: "",
        };
        assert_eq!(summarise(&[outcome(2, 0), outcome(1, 0)]), ExitCode::SUCCESS);
        assert_eq!(summarise(&[outcome(2, 0), outcome(5, 1)]), ExitCode::FAILURE);
        assert_eq!(summarise(&[outcome(0, 0)]), ExitCode::FAILURE);
    }
}
