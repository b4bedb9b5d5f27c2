//! The state directory: the files that outlive a run.
//!
//! It is the folder of the private key (`[identity] private_key_file`, by default in
//! `/var/lib/bonding`), made with mode 0700 when it is missing. Beside a key `NAME.key` stand
//! `NAME.run` (a client's run number), `NAME.psk` (what it shares with its server since it joined),
//! `NAME.next` (a key that is to take the key's place), `NAME.usage` (the bytes that its links with
//! a data cap have carried) and `NAME.clients` (a server's register). All are files of mode 0600.
//!
//! Contract: a file is replaced as a whole or not at all, whenever the process or the machine dies.
//! A file that is damaged or that others can read is an error, which names the file and says what
//! to do; it never counts as an empty one. Every call blocks for as long as the disk takes, and is
//! rare: a start, an invitation, an enrolment, a thousandth of a cap.
//!
//! It deliberately does not know sockets, sessions or the configuration's file.

mod atomic;
pub mod keys;
pub mod lease;
pub mod preshared;
pub mod register;
pub mod run;
pub mod usage;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The reason why a file of the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The kernel refuses.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// The step that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read a secret.
    #[error("{} can be read by others (mode {mode:04o}); make it yours alone: chmod 600 {}", .path.display(), .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A secret belongs to another user.
    #[error("{} belongs to user {owner}, who can read and change it; make it yours: chown root {}", .path.display(), .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// A folder, a device, a pipe.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Its content is malformed.
    #[error("{} is damaged: {why}; {remedy}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage.
        why: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// The path names no file.
    #[error("{} does not name a file", .0.display())]
    NoName(PathBuf),
    /// Another process uses it.
    #[error("another process uses {}: is it running already?", .0.display())]
    Busy(PathBuf),
}

impl StateError {
    /// For `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The folder of a state file, made if it is missing.
///
/// # Errors
/// When it cannot be made.
pub fn prepare_folder(file: &Path) -> Result<&Path, StateError> {
    let folder = atomic::folder(file);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(StateError::io("make the folder", folder))?;
    Ok(folder)
}

/// Replaces a file that all users may read, such as a configuration, by `content`; makes its
/// folder.
///
/// # Errors
/// When it cannot be written; the old content stays.
pub fn publish(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let folder = atomic::folder(path);
    std::fs::create_dir_all(folder).map_err(StateError::io("make the folder", folder))?;
    atomic::publish(path, content).map_err(StateError::io("write", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_published_can_be_read_by_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("etc/client.toml");
        for content in ["one", "two"] {
            publish(&file, content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        }
    }

    #[test]
    fn a_missing_folder_is_made_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b/server.key");
        assert_eq!(prepare_folder(&file).unwrap(), folder.path().join("a/b"));
        let mode = std::fs::metadata(folder.path().join("a/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        prepare_folder(&file).expect("twice is once");
        std::fs::write(&file, "").unwrap();
        let error = prepare_folder(&file.join("c")).unwrap_err().to_string();
        assert!(error.starts_with("cannot make the folder "), "{error}");
    }
}
