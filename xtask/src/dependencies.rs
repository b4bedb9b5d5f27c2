//! `cargo xtask dependencies`: licences, second versions, sources and unused dependencies.
//!
//! It reads `deny.toml`, which cargo-deny reads too, asks `cargo tree` for the packages of both
//! workspaces (this one and `fuzz`, with all features, for the targets of `deny.toml`), and reads
//! both `Cargo.lock` and every manifest. The rules:
//! - a package's licence is one that `[licenses] allow` permits;
//! - a package has one version, but for those that `[bans] skip` lists;
//! - a package comes from the registries of `[sources] allow-registry`, with a checksum, or lies in
//!   this repository;
//! - a dependency is named by the code that may name it: one of `[dependencies]` outside of tests,
//!   benchmarks and examples;
//! - an entry of `deny.toml` and of `[workspace.dependencies]` is of use.
//!
//! It does not know advisories: their database is a git repository, which cargo-deny fetches
//! (docs/decisions/0080-dependencies-are-checked-by-our-own-command.md).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use toml::Table;

use crate::{process, wants_help};

mod licence;
mod unused;

const HELP: &str = "\
Usage: cargo xtask dependencies

Checks the dependencies of this workspace and of fuzz/ by deny.toml: licences, second versions, sources; and that
the code names each dependency of every manifest. Prints each offence and ends with their count; exit code 1 if it is
not 0. Advisories are not checked: `cargo deny --all-features check advisories` does, where cargo-deny is installed
and reaches the advisory database.

Example:
  cargo xtask dependencies
";

/// The workspaces' folders below the root.
const WORKSPACES: [&str; 2] = ["", "fuzz"];

/// Checks the dependencies.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    if wants_help(arguments) {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(argument) = arguments.first() {
        return Err(crate::usage(format!("dependencies: unknown argument `{argument}`")));
    }
    let rules = Rules::parse(&read(&process::root().join("deny.toml"))?).context("deny.toml")?;
    let mut offences = Vec::new();
    let mut used = Used::default();
    let mut count = 0;
    for folder in WORKSPACES {
        let packages = packages(folder, &rules.targets)?;
        let locked = read(&process::root().join(folder).join("Cargo.lock"))?;
        offences.extend(rules.check(&packages, &mut used));
        offences.extend(rules.foreign(&locked, &packages, process::root())?);
        offences.extend(unused::check(process::root(), folder, &packages)?);
        count += packages.len();
    }
    offences.extend(rules.stale(&used));
    for offence in &offences {
        println!("{offence}");
    }
    println!(
        "advisories: not checked here; `cargo deny --all-features check advisories` needs their repository"
    );
    println!("{} offences in {count} packages", offences.len());
    Ok(if offences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// One version of a package in the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
    /// Where it lies, unless it comes from a registry.
    folder: Option<PathBuf>,
}

impl Package {
    /// Reads a line of `cargo tree`: `NAME vVERSION (NOTE)…`, a tab, the licence.
    fn parse(line: &str) -> Option<Self> {
        let (package, licence) = line.split_once('\t')?;
        let (name, rest) = package.split_once(" v")?;
        let version = rest.split_whitespace().next()?;
        let folder = rest.split_once(" (/").and_then(|(_, path)| path.split_once(')'));
        Some(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            licence: licence.to_owned(),
            folder: folder.map(|(path, _)| PathBuf::from(format!("/{path}"))),
        })
    }
}

/// All packages of the workspace in `folder`.
fn packages(folder: &str, targets: &[String]) -> anyhow::Result<BTreeSet<Package>> {
    let mut cargo = process::cargo();
    cargo.args(["tree", "--locked", "--workspace", "--all-features", "--prefix", "none", "--no-dedupe"]);
    cargo.args(["--format", "{p}\t{l}", "--manifest-path"]).arg(Path::new(folder).join("Cargo.toml"));
    for target in targets {
        cargo.args(["--target", target]);
    }
    let output = cargo.output().context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8(output.stdout).context("a package's name is not UTF-8")?;
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| Package::parse(line).with_context(|| format!("cargo tree: `{line}`"))).collect()
}

/// What of `deny.toml` something made use of.
#[derive(Debug, Default)]
struct Used {
    licences: BTreeSet<String>,
    skips: BTreeSet<String>,
}

/// What `deny.toml` says.
#[derive(Debug)]
struct Rules {
    targets: Vec<String>,
    licences: BTreeSet<String>,
    /// `NAME@VERSION`.
    skips: BTreeSet<String>,
    registries: Vec<String>,
}

impl Rules {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let table: Table = text.parse()?;
        let list = |section: &str, key: &str| {
            let list = table.get(section).and_then(|it| it.get(key)).and_then(toml::Value::as_array);
            list.with_context(|| format!("no list `{key}` in [{section}]"))
        };
        let strings = |section: &str, key: &str| {
            let string = |it: &toml::Value| it.as_str().map(str::to_owned);
            let strings: Option<Vec<_>> = list(section, key)?.iter().map(string).collect();
            strings.with_context(|| format!("[{section}] {key}: a list of strings is expected"))
        };
        let mut skips = BTreeSet::new();
        for skip in list("bans", "skip")? {
            let text = |key: &str| skip.get(key).and_then(toml::Value::as_str);
            let (Some(package), Some(_)) = (text("crate"), text("reason")) else {
                bail!("[bans] skip: {skip}: `crate` and `reason` are expected");
            };
            skips.insert(package.to_owned());
        }
        Ok(Self {
            targets: strings("graph", "targets")?,
            licences: strings("licenses", "allow")?.into_iter().collect(),
            skips,
            registries: strings("sources", "allow-registry")?,
        })
    }

    /// Licences and second versions.
    fn check(&self, packages: &BTreeSet<Package>, used: &mut Used) -> Vec<String> {
        let mut offences = Vec::new();
        let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for Package { name, version, licence, .. } in packages {
            match licence::permitted(licence, &self.licences) {
                Some(needed) => used.licences.extend(needed),
                None => offences.push(format!("licence: {name} {version}: `{licence}` is not allowed")),
            }
            versions.entry(name).or_default().push(version);
        }
        for (name, mut versions) in versions {
            versions.dedup();
            let all = versions.join(", ");
            if versions.len() > 1 {
                versions.retain(|version| {
                    let skip = format!("{name}@{version}");
                    let is_skipped = self.skips.contains(&skip);
                    used.skips.extend(is_skipped.then_some(skip));
                    !is_skipped
                });
            }
            if versions.len() > 1 {
                offences.push(format!("versions: {name} has {all}; `cargo tree -i {name}@VERSION` says why"));
            }
        }
        offences
    }

    /// Packages from elsewhere than a known registry or this repository.
    fn foreign(
        &self,
        locked: &str,
        packages: &BTreeSet<Package>,
        root: &Path,
    ) -> anyhow::Result<Vec<String>> {
        let table: Table = locked.parse().context("Cargo.lock")?;
        let list = table.get("package").and_then(toml::Value::as_array).context("Cargo.lock: no packages")?;
        let mut offences = Vec::new();
        for package in list {
            let text = |key: &str| package.get(key).and_then(toml::Value::as_str);
            let name = text("name").context("Cargo.lock: a package without a name")?;
            let Some(source) = text("source") else { continue };
            let registry = source.strip_prefix("registry+").unwrap_or_default();
            if !self.registries.iter().any(|known| known == registry) {
                offences.push(format!("source: {name} comes from {source}"));
            } else if text("checksum").is_none() {
                offences.push(format!("source: {name} has no checksum"));
            }
        }
        let folders = packages.iter().filter_map(|package| package.folder.as_deref().map(|it| (package, it)));
        let outside = folders.filter(|(_, folder)| !folder.starts_with(root));
        offences.extend(
            outside.map(|(package, folder)| format!("source: {} lies in {}", package.name, folder.display())),
        );
        Ok(offences)
    }

    /// Entries that nothing needs any more.
    fn stale(&self, used: &Used) -> Vec<String> {
        let licences = self.licences.difference(&used.licences).map(|it| ("licence", it));
        let skips = self.skips.difference(&used.skips).map(|it| ("skip", it));
        licences
            .chain(skips)
            .map(|(kind, entry)| format!("deny.toml: no package needs the {kind} {entry}"))
            .collect()
    }
}

#[cfg(test)]
mod tests;
