//! `cargo xtask tidy`: rules of this project's style that neither rustfmt nor clippy checks.
//!
//! It reads every Rust file that git tracks, as text. The rules:
//! - a comment line has at most 100 columns, its indentation included;
//! - a module's head (`//!`) has at most 300 words;
//! - in the core's control code every constant has a comment directly above it or above its group:
//!   consecutive constants without a blank line between them. Tests are left out;
//! - no `#[path]`: shared test code belongs into `crates/testkit`.
//!
//! There is no list of exceptions. The length of functions is clippy's (`too_many_lines`,
//! clippy.toml).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};

use crate::{process, wants_help};

const HELP: &str = "\
Usage: cargo xtask tidy [FOLDER...]

Checks the style of every Rust file that git tracks, or of those below the folders: comment lines of at most
100 columns, module heads of at most 300 words, a comment for every constant of the core's control code, no #[path].
Prints each offence as FILE:LINE, then their number by folder, and ends with their count; exit code 1 if it is not 0.

Examples:
  cargo xtask tidy
  cargo xtask tidy crates/sim xtask
";

/// Columns of a comment line. Chosen: a comment stays readable beside a second file.
const COMMENT_COLUMNS_MAX: usize = 100;
/// Words of a module's head. Chosen: what fits on one screen; longer texts belong into docs/.
const HEAD_WORDS_MAX: usize = 300;
/// Where every constant needs a comment, below the core's sources: the code whose behaviour its
/// figures decide.
const DOCUMENTED: [&str; 7] = ["limits", "scheduler", "recovery", "link", "session", "reorder", "qos"];
const CORE: &str = "crates/proto/src/";

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Offence {
    /// From 1 on.
    line: usize,
    rule: String,
}

/// Checks the files.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    if wants_help(arguments) {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(option) = arguments.iter().find(|argument| argument.starts_with('-')) {
        return Err(crate::usage(format!("tidy: unknown option `{option}`")));
    }
    let files = files()?;
    let is_chosen = |path: &str| {
        arguments.is_empty() || arguments.iter().any(|folder| Path::new(path).starts_with(folder))
    };
    // A module's declaration, which says whether it is a test, may stand in a file that is not
    // chosen.
    let tests: BTreeSet<String> = files.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let chosen: Vec<_> = files.iter().filter(|(path, _)| is_chosen(path)).collect();
    ensure!(!chosen.is_empty(), "no tracked Rust file in {}", arguments.join(", "));
    let mut by_folder = BTreeMap::new();
    for (path, text) in &chosen {
        let offences = check(path, text, is_test(path, &tests));
        for Offence { line, rule } in &offences {
            println!("{path}:{line}: {rule}");
        }
        let folder = path.rsplit_once('/').map_or(".", |(folder, _)| folder);
        *by_folder.entry(folder).or_insert(0) += offences.len();
    }
    print!("{}", summary(&by_folder, chosen.len()));
    let is_clean = by_folder.values().all(|count| *count == 0);
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The tracked Rust files, each with its text.
fn files() -> anyhow::Result<BTreeMap<String, String>> {
    let mut git = process::command("git");
    // The checkout may belong to another user, as in a container: listing runs no file of it.
    git.args(["-c", "safe.directory=*", "ls-files", "-z", "--", "*.rs"]);
    let output = git.output().context("cannot start git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    let list = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    let read = |path: &str| {
        let text = std::fs::read_to_string(process::root().join(path));
        Ok((path.to_owned(), text.with_context(|| format!("cannot read {path}"))?))
    };
    list.split('\0').filter(|path| !path.is_empty()).map(read).collect()
}

/// The offences by folder, and the closing line.
fn summary(by_folder: &BTreeMap<&str, usize>, files: usize) -> String {
    let mut text = String::new();
    for (folder, count) in by_folder.iter().filter(|(_, count)| **count > 0) {
        let _ = writeln!(text, "{count:6}  {folder}");
    }
    let total: usize = by_folder.values().sum();
    let _ = writeln!(text, "{total} offences in {files} files");
    text
}

/// All that one file breaks, in the order of its lines.
fn check(path: &str, text: &str, is_test: bool) -> Vec<Offence> {
    let mut offences = head_too_long(text);
    offences.extend(lines_too_wide(text));
    offences.extend(included_by_path(text));
    if !is_test && needs_documented_constants(path) {
        offences.extend(bare_constants(text));
    }
    offences.sort_by_key(|offence| offence.line);
    offences
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn lines_too_wide(text: &str) -> impl Iterator<Item = Offence> {
    let columns = |line: &str| line.chars().count();
    numbered(text).filter(move |(_, line)| is_comment(line) && columns(line) > COMMENT_COLUMNS_MAX).map(
        move |(number, line)| Offence {
            line: number,
            rule: format!("comment of {} columns: at most {COMMENT_COLUMNS_MAX}", columns(line)),
        },
    )
}

/// The first `//!` lines; a word is what holds a letter or a digit.
fn head_too_long(text: &str) -> Vec<Offence> {
    let head = text.lines().map_while(|line| line.strip_prefix("//!"));
    let is_word = |word: &&str| word.contains(char::is_alphanumeric);
    let words = head.flat_map(str::split_whitespace).filter(is_word).count();
    let rule = format!("module head of {words} words: at most {HEAD_WORDS_MAX}");
    if words > HEAD_WORDS_MAX { vec![Offence { line: 1, rule }] } else { Vec::new() }
}

fn included_by_path(text: &str) -> impl Iterator<Item = Offence> {
    numbered(text)
        .filter(|(_, line)| line.trim_start().starts_with("#[path"))
        .map(|(line, _)| Offence { line, rule: "#[path]: put shared code into a crate".into() })
}

fn needs_documented_constants(path: &str) -> bool {
    let Some(module) = path.strip_prefix(CORE) else { return false };
    DOCUMENTED
        .iter()
        .any(|name| module.strip_prefix(name).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
}

/// Constants with neither a comment nor a constant with one directly above; without inline test
/// modules.
fn bare_constants(text: &str) -> Vec<Offence> {
    let mut offences = Vec::new();
    let mut is_covered = false;
    let mut lines = numbered(text);
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim();
        if is_comment(line) {
            is_covered = true;
        } else if trimmed == "#[cfg(test)]" {
            skip_inline_module(&mut lines);
            is_covered = false;
        } else if let Some(name) = constant(trimmed) {
            if !is_covered {
                offences.push(Offence { line: number, rule: format!("{name} has no comment") });
            }
            let mut end = trimmed;
            while !end.ends_with(';') {
                let Some((_, next)) = lines.next() else { return offences };
                end = next.trim();
            }
        } else if !trimmed.starts_with("#[") {
            is_covered = false;
        }
    }
    offences
}

/// The name of the constant that a line begins; `None` for a check at compile time (`const _`).
fn constant(line: &str) -> Option<&str> {
    let (name, _) = without_visibility(line).strip_prefix("const ")?.split_once(':')?;
    let is_name = name != "_" && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_');
    is_name.then_some(name)
}

/// A declaration without `pub` or `pub(…)` ahead of it.
fn without_visibility(line: &str) -> &str {
    let rest = line.strip_prefix("pub").unwrap_or(line);
    let scope = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    scope.map_or(rest, |(_, declaration)| declaration).trim_start()
}

/// Behind `#[cfg(test)]`: passes over `mod NAME { … }`, public or not, as rustfmt lays it out.
fn skip_inline_module<'a>(lines: &mut impl Iterator<Item = (usize, &'a str)>) {
    let Some((_, first)) = lines.find(|(_, line)| !line.trim_start().starts_with("#[")) else { return };
    let trimmed = first.trim_start();
    if without_visibility(trimmed).starts_with("mod ") && trimmed.ends_with('{') {
        let end = format!("{}}}", &" ".repeat(first.len() - trimmed.len()));
        lines.find(|(_, line)| *line == end);
    }
}

/// The modules that a file declares behind `#[cfg(test)]`: their paths without `.rs`.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let own = match file {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    };
    let mut modules = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while lines.any(|line| line == "#[cfg(test)]") {
        let declared = lines.clone().find(|line| !line.starts_with("#["));
        let name = declared.and_then(|line| line.split_once("mod ")).and_then(|(_, it)| it.strip_suffix(';'));
        modules.extend(name.map(|name| format!("{own}/{name}")));
    }
    modules
}

/// Whether a file is one of these modules, or lies in one.
fn is_test(path: &str, modules: &BTreeSet<String>) -> bool {
    let path = path.trim_end_matches(".rs");
    modules.iter().any(|module| {
        path.strip_prefix(module.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests;
