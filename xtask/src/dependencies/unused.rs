//! Dependencies that no code names.
//!
//! A dependency is named where a path begins with it (`name::`), or where `use` or `extern crate`
//! name it alone. Comments do not count. Renamed dependencies are looked for by their new name.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use toml::{Table, Value};

use super::{Package, read};

/// Where a crate's code for tests lies; what stands there is built with `[dev-dependencies]`.
const TEST_FOLDERS: [&str; 3] = ["tests", "benches", "examples"];

/// The unused dependencies of the workspace in `folder`.
pub(super) fn check(root: &Path, folder: &str, packages: &BTreeSet<Package>) -> anyhow::Result<Vec<String>> {
    let workspace = root.join(folder);
    let mut offences = Vec::new();
    let mut inherited = BTreeSet::new();
    let own = packages.iter().filter_map(|package| package.folder.as_deref());
    for member in own.filter(|path| path.starts_with(&workspace)) {
        let manifest: Table = read(&member.join("Cargo.toml"))?.parse().context("Cargo.toml")?;
        let (mut code, mut tests) = (String::new(), String::new());
        gather(member, &mut code, &mut tests)?;
        let found = of_manifest(&manifest, &code, &tests);
        let place = member.strip_prefix(root).unwrap_or(member).display();
        offences.extend(found.into_iter().map(|name| format!("unused: {place}/Cargo.toml: {name}")));
        inherited.extend(tables(&manifest).flat_map(|(_, table)| table.keys().cloned()));
    }
    let manifest: Table = read(&workspace.join("Cargo.toml"))?.parse().context("Cargo.toml")?;
    let shared = manifest.get("workspace").and_then(|it| it.get("dependencies")).and_then(Value::as_table);
    let unused = shared.into_iter().flat_map(Table::keys).filter(|name| !inherited.contains(*name));
    offences.extend(unused.map(|name| format!("unused: Cargo.toml: [workspace.dependencies] {name}")));
    Ok(offences)
}

/// The dependencies of `manifest` that neither `code` nor, where they are for tests, `tests` names.
pub(super) fn of_manifest(manifest: &Table, code: &str, tests: &str) -> Vec<String> {
    let mut unused = Vec::new();
    for (kind, table) in tables(manifest) {
        for name in table.keys() {
            let word = name.replace('-', "_");
            let is_named = is_named(code, &word) || (kind == "dev-dependencies" && is_named(tests, &word));
            if !is_named {
                unused.push(format!("[{kind}] {name}"));
            }
        }
    }
    unused
}

/// The manifest's tables of dependencies, each with its kind; also those of single targets.
fn tables(manifest: &Table) -> impl Iterator<Item = (&'static str, &Table)> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let scopes = targets.filter_map(Value::as_table).chain([manifest]);
    scopes.flat_map(|scope| {
        ["dependencies", "dev-dependencies", "build-dependencies"]
            .into_iter()
            .filter_map(|kind| scope.get(kind).and_then(Value::as_table).map(|table| (kind, table)))
    })
}

/// Appends all Rust code below `folder`, without comment lines.
fn gather(folder: &Path, code: &mut String, tests: &mut String) -> anyhow::Result<()> {
    for entry in folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_rust = path.extension().is_some_and(|it| it == "rs");
        if path.is_dir() && TEST_FOLDERS.contains(&name) && folder.join("Cargo.toml").exists() {
            gather(&path, tests, &mut String::new())?;
        } else if path.is_dir() && name != "target" && name != "corpus" {
            gather(&path, code, tests)?;
        } else if is_rust {
            let text = read(&path)?;
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            code.extend(lines.flat_map(|line| [line, "\n"]));
        }
    }
    Ok(())
}

/// Whether `code` names the crate `word`.
fn is_named(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let (before, behind) =
            (code.get(..at).unwrap_or_default(), code.get(at + word.len()..).unwrap_or_default());
        let is_whole = !before.ends_with(|it: char| it.is_alphanumeric() || it == '_' || it == ':');
        let is_alone = ["use ", "extern crate "].iter().any(|it| before.ends_with(it))
            && (behind.starts_with(';') || behind.starts_with(" as "));
        is_whole && (is_alone || behind.starts_with("::"))
    })
}
