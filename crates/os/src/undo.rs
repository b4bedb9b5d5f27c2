//! Changes of the machine that outlive the process, and their undoing.
//!
//! Contract: a change is written to a journal file before it is made, and undone, newest first,
//! when the [`Journal`] is dropped. After a crash the next [`Journal::open`] of the same file, or
//! [`cleanup`], undoes it. The file is locked while its owner lives, so that no other process
//! undoes the changes of a running one. A journal of another network namespace is discarded unread:
//! the namespace is gone, and with it the changes.
//!
//! There are four kinds of change only: a setting of forwarding under `/proc/sys/net`, the
//! reverse-path filter of an interface there, one of our nftables tables, and the rules that
//! capture traffic ([`capture`]), which a next start may take over. Devices, addresses and routes
//! through them disappear with the process. A setting stays as it is if another program
//! came to need forwarding since it was changed, or changed the filter itself.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::capture;
use crate::monitor::MonitorError;
use crate::nat;
use crate::netlink::NetlinkError;
use crate::reverse_path;

/// The settings that may be changed.
const SYSCTL_ROOT: &str = "/proc/sys/net/";
/// The most bytes of a journal. Chosen: a journal has a few lines; a larger file is not one.
const JOURNAL_BYTES_MAX: u64 = 64 * 1024;

/// The reason why a change or its undoing failed.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// The journal's owner lives.
    #[error("another process holds `{}`: is it running already?", .0.display())]
    Busy(PathBuf),
    /// The journal cannot be written or read.
    #[error("cannot use the state file `{}`: {source}", .path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// A setting cannot be read or written.
    #[error("cannot set `{path}`: {source}")]
    Sysctl {
        /// The setting.
        path: String,
        /// The error.
        source: io::Error,
    },
    /// nftables refused.
    #[error(transparent)]
    Nat(#[from] nat::NatError),
    /// The interfaces cannot be watched.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// The kernel refused a rule or route.
    #[error("cannot set up routes: {0}")]
    Routes(#[from] NetlinkError),
}

/// One change, with what it takes to undo it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    /// A setting and its value before, and who needed forwarding then.
    Sysctl { path: String, previous: String, claims: BTreeSet<String> },
    /// The reverse-path filter of an interface, and its value before.
    Filter { path: String, previous: String },
    /// An nftables table of family `inet`.
    Table(String),
    /// Rules that capture traffic, by their first priority.
    Capture(u32),
}

impl Change {
    fn line(&self) -> String {
        match self {
            Self::Sysctl { path, previous, claims } => {
                let claims: String = claims.iter().flat_map(|claim| [" ", claim]).collect();
                format!("sysctl {path} {previous}{claims}\n")
            }
            Self::Filter { path, previous } => format!("filter {path} {previous}\n"),
            Self::Table(name) => format!("table {name}\n"),
            Self::Capture(priority) => format!("capture {priority}\n"),
        }
    }

    /// `None` for any line that this module does not write.
    fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "sysctl" => {
                let mut words = rest.split(' ');
                let (path, previous) = (words.next()?, words.next()?);
                let ours = path.starts_with(SYSCTL_ROOT) && !path.contains("..");
                let claims = words.map(str::to_owned).collect();
                ours.then(|| Self::Sysctl { path: path.to_owned(), previous: previous.to_owned(), claims })
            }
            "filter" => {
                let (path, previous) = rest.split_once(' ')?;
                reverse_path::is_setting(path)
                    .then(|| Self::Filter { path: path.to_owned(), previous: previous.to_owned() })
            }
            "capture" => rest.parse().ok().map(Self::Capture),
            "table" => nat::is_own_table(rest).then(|| Self::Table(rest.to_owned())),
            _ => None,
        }
    }

    fn undo(&self) -> Result<(), UndoError> {
        match self {
            Self::Sysctl { path, previous, claims } => {
                let now = nat::claims(nat::Family::of_setting(path));
                let new: Vec<&str> = now.difference(claims).map(String::as_str).collect();
                if !new.is_empty() {
                    tracing::info!(
                        setting = path,
                        needed = new.join(" "),
                        "stays: others need forwarding now"
                    );
                    return Ok(());
                }
                put_back(path, previous)
            }
            Self::Filter { path, previous } => {
                let is_ours = fs::read_to_string(path).is_ok_and(|now| now.trim() == reverse_path::LOOSE);
                if is_ours { put_back(path, previous) } else { Ok(()) }
            }
            Self::Table(name) => Ok(nat::delete_table(name)?),
            Self::Capture(priority) => Ok(capture::undo(*priority)?),
        }
    }
}

/// The changes made by this process.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    changes: Vec<Change>,
    /// The file stays for the next owner.
    is_left: bool,
}

impl Journal {
    /// Opens the journal at `path`, after undoing what a crash left in it. Its directory is made if
    /// it is missing.
    pub fn open(path: &Path) -> Result<Self, UndoError> {
        Self::open_keeping(path, |_| false)
    }

    /// The same; a capture with the first priority `kept` stays as it is, as a change of this
    /// journal.
    pub fn open_capturing(path: &Path, kept: Option<u32>) -> Result<Self, UndoError> {
        Self::open_keeping(path, |change| matches!(change, Change::Capture(found) if kept == Some(*found)))
    }

    fn open_keeping(path: &Path, is_kept: impl Fn(&Change) -> bool) -> Result<Self, UndoError> {
        let failed = |source| UndoError::Journal { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(failed)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| UndoError::Busy(path.to_owned()))?;
        let mut text = String::new();
        (&mut file).take(JOURNAL_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        let (kept, changes) = leftovers(&text).into_iter().partition(is_kept);
        let mut journal = Self { path: path.to_owned(), file, changes, is_left: false };
        for change in &journal.changes {
            tracing::info!(change = change.line().trim_end(), "undoing what an earlier run left");
        }
        journal.undo_all();
        journal.file.set_len(0).map_err(failed)?;
        journal.file.rewind().map_err(failed)?;
        let kept: Vec<Change> = kept;
        let lines: String = kept.iter().map(Change::line).collect();
        journal.append(&format!("namespace {}\n{lines}", namespace()))?;
        journal.changes = kept;
        Ok(journal)
    }

    /// Changes a setting under `/proc/sys/net` while this journal lives. Does nothing if the
    /// setting has that value already. `claims` are those of this moment, see [`nat::claims`].
    pub(crate) fn set_forwarding(
        &mut self,
        path: &str,
        value: &str,
        claims: &BTreeSet<String>,
    ) -> Result<(), UndoError> {
        let previous =
            fs::read_to_string(path).map_err(|source| UndoError::Sysctl { path: path.to_owned(), source })?;
        let previous = previous.trim();
        if previous == value {
            return Ok(());
        }
        let change =
            Change::Sysctl { path: path.to_owned(), previous: previous.to_owned(), claims: claims.clone() };
        self.record(change)?;
        write_sysctl(path, value)
    }

    /// Lets packets in by the interface whose senders are reached over another, while this journal
    /// lives. Whether that was to be changed. See [`reverse_path`].
    pub fn loosen_filter(&mut self, interface: &str) -> Result<bool, UndoError> {
        if !reverse_path::is_strict(interface) {
            return Ok(false);
        }
        let path = reverse_path::setting(interface);
        let previous =
            fs::read_to_string(&path).map_err(|source| UndoError::Sysctl { path: path.clone(), source })?;
        self.record(Change::Filter { path: path.clone(), previous: previous.trim().to_owned() })?;
        write_sysctl(&path, reverse_path::LOOSE)?;
        Ok(true)
    }

    /// Records that the nftables table `inet NAME` is to be deleted at the end. To be called before
    /// the table is created.
    pub(crate) fn record_table(&mut self, name: &str) -> Result<(), UndoError> {
        self.record(Change::Table(name.to_owned()))
    }

    /// Records that the rules that capture traffic are to be removed at the end. To be called
    /// before they are made.
    pub(crate) fn record_capture(&mut self, priority: u32) -> Result<(), UndoError> {
        self.record(Change::Capture(priority))
    }

    /// The first change of a setting knows its value before. An interface that comes and goes is
    /// written down once.
    fn record(&mut self, change: Change) -> Result<(), UndoError> {
        let is_known = |known: &Change| match (known, &change) {
            (Change::Sysctl { path: known, .. }, Change::Sysctl { path, .. })
            | (Change::Filter { path: known, .. }, Change::Filter { path, .. }) => known == path,
            (known, change) => known == change,
        };
        if self.changes.iter().any(is_known) {
            return Ok(());
        }
        self.append(&change.line())?;
        self.changes.push(change);
        Ok(())
    }

    fn append(&mut self, text: &str) -> Result<(), UndoError> {
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|source| UndoError::Journal { path: self.path.clone(), source })
    }

    /// Undoes all changes, newest first, and continues after a failure.
    fn undo_all(&mut self) {
        for change in self.changes.drain(..).rev() {
            if let Err(error) = change.undo() {
                tracing::warn!(%error, change = change.line().trim_end(), "cannot undo a change");
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.undo_all();
        if self.is_left {
            return;
        }
        // While the lock is held, no other process can be using this file.
        let _ = fs::remove_file(&self.path);
    }
}

/// Undoes the changes that a crash left in the journal at `path`. `false`: there was no journal. An
/// error if its owner lives.
pub fn cleanup(path: &Path) -> Result<bool, UndoError> {
    if !path.exists() {
        return Ok(false);
    }
    Journal::open(path).map(|_| true)
}

/// As [`cleanup`]; but what a crash captured stays captured, and in the journal, for the next
/// start.
pub fn cleanup_holding(path: &Path) -> Result<bool, UndoError> {
    if !path.exists() {
        return Ok(false);
    }
    let mut journal = Journal::open_keeping(path, |change| matches!(change, Change::Capture(_)))?;
    if !journal.changes.is_empty() {
        // The file stays.
        journal.changes.clear();
        journal.is_left = true;
    }
    Ok(true)
}

/// The changes in a journal, if they were made in this network namespace.
fn leftovers(text: &str) -> Vec<Change> {
    let mut lines = text.lines();
    if lines.next() != Some(&format!("namespace {}", namespace())) {
        return Vec::new();
    }
    lines.filter_map(Change::parse).collect()
}

/// Identifies the network namespace; 0 if that is not possible.
fn namespace() -> u64 {
    fs::metadata("/proc/self/ns/net").map_or(0, |metadata| metadata.ino())
}

/// Gives a setting the value that it had before.
fn put_back(path: &str, previous: &str) -> Result<(), UndoError> {
    match write_sysctl(path, previous) {
        // The setting's interface is gone.
        Err(UndoError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn write_sysctl(path: &str, value: &str) -> Result<(), UndoError> {
    fs::write(path, value).map_err(|source| UndoError::Sysctl { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_changes_are_believed() {
        let sysctl = |claims: &[&str]| Change::Sysctl {
            path: "/proc/sys/net/ipv4/conf/eth0/forwarding".to_owned(),
            previous: "0".to_owned(),
            claims: claims.iter().map(|claim| (*claim).to_owned()).collect(),
        };
        let table = Change::Table("bonding-tun-bond".to_owned());
        let filter = Change::Filter { path: reverse_path::setting("eth0"), previous: "1".to_owned() };
        for change in [sysctl(&[]), sysctl(&["2/filter/FORWARD", "ip_forward"]), filter, table] {
            assert_eq!(Change::parse(change.line().trim_end()), Some(change));
        }
        for line in [
            "",
            "sysctl",
            "sysctl /etc/passwd x",
            "sysctl /proc/sys/net/../kernel/panic 1",
            "filter /proc/sys/net/ipv4/conf/../../../kernel/rp_filter 1",
            "filter /proc/sys/net/ipv4/conf/eth0/rp_filter",
            "table filter",
            "table bonding-x; flush ruleset",
            "table bonding-x\tflush",
        ] {
            assert_eq!(Change::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_journal_of_another_namespace_is_ignored() {
        let text = |namespace| format!("namespace {namespace}\ntable bonding-a\n");
        assert_eq!(leftovers(&text(namespace())).len(), 1);
        assert_eq!(leftovers(&text(namespace() ^ 1)), []);
        assert_eq!(leftovers("table bonding-a\n"), []);
    }

    #[test]
    fn a_capture_stays_for_the_next_start() {
        let directory = std::env::temp_dir().join(format!("bonding-undo-capture-{}", std::process::id()));
        let path = directory.join("a.state");
        fs::create_dir_all(&directory).unwrap();
        let text = format!("namespace {}\ncapture 20000\n", namespace());
        fs::write(&path, &text).unwrap();
        assert!(cleanup_holding(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let mut journal = Journal::open_capturing(&path, Some(20_000)).unwrap();
        assert_eq!(journal.changes, [Change::Capture(20_000)]);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        // The routing of this host is not the test's to change.
        journal.changes.clear();
        drop(journal);
        fs::remove_dir(directory).unwrap();
    }

    #[test]
    fn a_journal_is_held_by_one() {
        let directory = std::env::temp_dir().join(format!("bonding-undo-{}", std::process::id()));
        let path = directory.join("a.state");
        let journal = Journal::open(&path).unwrap();
        assert!(matches!(Journal::open(&path), Err(UndoError::Busy(_))));
        assert!(matches!(cleanup(&path), Err(UndoError::Busy(_))));
        drop(journal);
        assert!(!path.exists());
        assert!(!cleanup(&path).unwrap());
        fs::remove_dir(directory).unwrap();
    }
}
