//! `cargo xtask model`: the symbolic models of the handshake (`model/*.vp`), checked with Verifpal.
//!
//! A model's file begins with its runs:
//! ```text
//! //run NAME… : VERDICTS : what the run shows
//! ```
//! A line that begins with `//[NAME]` stands in the models of the runs that have the name, one with
//! `//[!NAME]` in those of the others. The verdicts are those of the file's queries, in order, as
//! Verifpal writes them: `c0` is confidentiality without an attack, `c1` with one, `a` stands for
//! authentication and `f` for freshness. A run passes if its verdicts are the expected ones. An
//! expected attack that is not found shows that the model is wrong, as much as one that is found.
//!
//! It does not know what the models mean: docs/handshake-model.md says so.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};

use crate::{process, wants_help};

const HELP: &str = "\
Usage: cargo xtask model [--yes] [FILE...]

Checks the models of the handshake, model/*.vp or the named files, with Verifpal, in each of their runs, and compares
the verdicts with the expected ones. docs/handshake-model.md says what they show and what they leave out.

Options:
  --yes     install Verifpal with cargo without asking (CI=true means the same)

Example:
  cargo xtask model model/cookie.vp
";

/// The version whose verdicts the runs expect. It asks for a newer compiler than ours, and builds
/// with ours.
const VERSION: &str = "1.6.7";
/// Words of `cargo install` ahead of the version.
const INSTALL: [&str; 5] = ["install", "verifpal", "--locked", "--ignore-rust-version", "--version"];

/// Checks the models.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    if wants_help(arguments) {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let (options, files): (Vec<_>, Vec<_>) = arguments.iter().partition(|it| it.starts_with("--"));
    if let Some(option) = options.iter().find(|it| **it != "--yes") {
        return Err(crate::usage(format!("model: unknown option `{option}`")));
    }
    let files = if files.is_empty() { models()? } else { files.into_iter().map(PathBuf::from).collect() };
    let verifpal = verifpal(!options.is_empty() || std::env::var_os("CI").is_some_and(|it| it == "true"))?;
    let texts = files.iter().map(|file| {
        let text = std::fs::read_to_string(process::root().join(file));
        text.with_context(|| format!("cannot read {}", file.display()))
    });
    let texts = texts.collect::<anyhow::Result<Vec<_>>>()?;
    let mut jobs = VecDeque::new();
    for (file, text) in files.iter().zip(&texts) {
        let runs = runs(text).with_context(|| file.display().to_string())?;
        jobs.extend((1..).zip(runs).map(|(number, run)| Job { file, text, number, run }));
    }
    let count = jobs.len();
    let failed = check_all(&verifpal, Mutex::new(jobs))?;
    println!("{count} runs of {} models, {failed} unexpected", files.len());
    Ok(if failed == 0 && count > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A run of a model that is to be checked.
struct Job<'a> {
    file: &'a Path,
    text: &'a str,
    number: usize,
    run: Run<'a>,
}

/// Checks all runs, one on each processor at a time; gives how many were unexpected.
fn check_all(verifpal: &Path, jobs: Mutex<VecDeque<Job<'_>>>) -> anyhow::Result<usize> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut failed = 0;
        while let Some(job) = jobs.lock().ok().and_then(|mut jobs| jobs.pop_front()) {
            failed += usize::from(!job.check(verifpal)?);
        }
        anyhow::Ok(failed)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let failed =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")));
        failed.sum()
    })
}

impl Job<'_> {
    /// Checks the run and prints what was found; whether that was expected.
    fn check(&self, verifpal: &Path) -> anyhow::Result<bool> {
        let Self { file, text, number, run } = self;
        let started = Instant::now();
        let name = file.file_stem().unwrap_or_default().display();
        let path = process::root().join(format!("target/model/{name}-{number}.vp"));
        let found = check(verifpal, &path, &instance(text, run))?;
        let is_expected = found == run.verdicts;
        let verdict = if is_expected { "as expected" } else { "UNEXPECTED" };
        println!("{name}: {} ({:.0} s): {verdict}: {found}", run.shows, started.elapsed().as_secs_f64());
        if !is_expected {
            println!("    expected: {}; the model: {}", run.verdicts, path.display());
        }
        Ok(is_expected)
    }
}

fn models() -> anyhow::Result<Vec<PathBuf>> {
    let folder = process::root().join("model");
    let entries = folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = entries.map(|it| Ok(it?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|it| it == "vp"));
    files.sort();
    Ok(files.iter().map(|it| it.strip_prefix(process::root()).unwrap_or(it).to_owned()).collect())
}

/// The program, installed if it may be.
fn verifpal(may_install: bool) -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let of_cargo = home.map(|home| home.join("bin/verifpal"));
    let present = || {
        let places = [process::find("verifpal"), of_cargo.clone()].into_iter().flatten();
        places.into_iter().find(|program| is_wanted(program))
    };
    if let Some(program) = present() {
        return Ok(program);
    }
    let by_hand = format!("cargo {} {VERSION}", INSTALL.join(" "));
    if !may_install {
        bail!("Verifpal {VERSION} is not on this machine; install it with: {by_hand}");
    }
    println!("$ {by_hand}");
    let mut cargo = process::cargo();
    cargo.args(INSTALL).arg(VERSION);
    // The default, one unit optimised as a whole, takes twice as long to build.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(status.success(), "{by_hand} failed ({status})");
    present().with_context(|| format!("Verifpal {VERSION} is still missing after installing it"))
}

fn is_wanted(program: &Path) -> bool {
    let output = process::command(program).arg("--version").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == format!("verifpal {VERSION}"))
}

/// One run of a model.
#[derive(Debug, PartialEq, Eq)]
struct Run<'a> {
    names: Vec<&'a str>,
    verdicts: String,
    shows: &'a str,
}

fn runs(text: &str) -> anyhow::Result<Vec<Run<'_>>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("//run"));
    let run = |line| {
        let [names, verdicts, shows] = *str::split(line, " : ").map(str::trim).collect::<Vec<_>>() else {
            bail!("`//run{line}`: expected names, verdicts and what the run shows, with ` : ` between them");
        };
        let names: Vec<_> = names.split_whitespace().collect();
        Ok(Run { names, verdicts: verdicts.split_whitespace().collect(), shows })
    };
    let runs: Vec<_> = lines.map(run).collect::<anyhow::Result<_>>()?;
    ensure!(!runs.is_empty(), "no line begins with //run");
    let known: Vec<_> = text.lines().filter_map(|line| condition(line).map(|(name, ..)| name)).collect();
    let mut names = runs.iter().flat_map(|run| &run.names);
    if let Some(name) = names.find(|name| !known.contains(name)) {
        bail!("a run names `{name}`, and no line does");
    }
    Ok(runs)
}

/// Of a line under a condition: the name, whether the run is to have it, and the line itself.
fn condition(line: &str) -> Option<(&str, bool, &str)> {
    let (name, rest) = line.trim_start().strip_prefix("//[")?.split_once("] ")?;
    Some(name.strip_prefix('!').map_or((name, true, rest), |name| (name, false, rest)))
}

/// The model of a run.
fn instance(text: &str, run: &Run<'_>) -> String {
    let chosen = text.lines().filter_map(|line| match condition(line) {
        Some((name, is_wanted, line)) => (run.names.contains(&name) == is_wanted).then_some(line),
        None => Some(line),
    });
    chosen.flat_map(|line| [line, "\n"]).collect()
}

/// The verdicts of a model's queries; the model is left at `path`.
fn check(verifpal: &Path, path: &Path, model: &str) -> anyhow::Result<String> {
    let folder = path.parent().context("a path without a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    std::fs::write(path, model).with_context(|| format!("cannot write {}", path.display()))?;
    let output = process::command(verifpal).args(["verify", "--quiet", "--result-code"]).arg(path).output();
    let output = output.context("cannot start verifpal")?;
    ensure!(
        output.status.success(),
        "{}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().last().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &str = "\
//run a b : c0 a1 : both
//run : c1 a1 : neither
x
\t//[a] knows private p
\t//[!a] knows public p
//[b] y
";

    #[test]
    fn a_run_has_the_lines_that_it_names() {
        let runs = runs(MODEL).unwrap();
        assert_eq!(runs[0], Run { names: vec!["a", "b"], verdicts: "c0a1".into(), shows: "both" });
        let last =
            |at: usize| instance(MODEL, &runs[at]).lines().skip(2).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(last(0), ["x", "knows private p", "y"]);
        assert_eq!(last(1), ["x", "knows public p"]);
    }

    #[test]
    fn runs_that_mean_nothing_are_refused() {
        for wrong in ["x", "//run a : c0", "//run a : c0 : text\n//[b] x"] {
            assert!(runs(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_model_has_runs_with_a_verdict_for_each_query() {
        let models = models().unwrap();
        assert!(!models.is_empty());
        for file in models {
            let text = std::fs::read_to_string(process::root().join(&file)).unwrap();
            let queries = text.lines().filter(|line| line.contains("? ")).count();
            for run in runs(&text).unwrap() {
                assert_eq!(run.verdicts.len(), 2 * queries, "{}: {}", file.display(), run.shows);
            }
        }
    }
}
