//! Starts other programs from the workspace's root, with a search path that also holds the system
//! directories that Debian leaves out of an ordinary user's (`nft` is in `/usr/sbin`).

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::Context as _;

/// The workspace's root: the folder above this crate.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The search path given to every program started here.
fn search_path() -> OsString {
    let own = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&own).collect();
    for system in ["/usr/sbin", "/sbin"] {
        if !folders.iter().any(|folder| folder == Path::new(system)) {
            folders.push(PathBuf::from(system));
        }
    }
    env::join_paths(folders).unwrap_or(own)
}

/// The file that running `program` would start, if there is one.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    env::split_paths(&search_path()).map(|folder| folder.join(program)).find(|file| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// A command in the workspace's root.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).env("PATH", search_path());
    command
}

/// The cargo that started this program.
pub(crate) fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs `command` and hands every line of its standard output to `on_line`; standard error stays
/// the terminal's.
pub(crate) fn stream(mut command: Command, mut on_line: impl FnMut(&str)) -> anyhow::Result<ExitStatus> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {name}"))?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        // Bytes, not `lines()`: output that is not UTF-8 must not end the run.
        while reader.read_until(b'\n', &mut line).with_context(|| format!("cannot read from {name}"))? > 0 {
            on_line(String::from_utf8_lossy(&line).trim_end_matches('\n'));
            line.clear();
        }
    }
    child.wait().with_context(|| format!("cannot wait for {name}"))
}

/// The effective user id of this process: `/proc/self` belongs to it.
pub(crate) fn effective_uid() -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").ok().map(|meta| meta.uid())
}
