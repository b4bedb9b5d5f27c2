//! Small files that are always whole.
//!
//! The new content goes to a temporary file in the same folder, which is flushed to the disk and
//! then takes the name; the folder is flushed last. Whenever the machine stops, the name has the
//! old or the new content; a new name may be missing. The next writing replaces a temporary file
//! that a crash left.
//!
//! Source: rename(2), link(2), fsync(2).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The mode of a file that only its owner may read.
const SECRET: u32 = 0o600;
/// The mode of a file that all users may read.
const PUBLIC: u32 = 0o644;

/// The steps of a writing, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Make,
    Write,
    Sync,
    Name,
    Settle,
}

/// The fate of a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Replace,
    Keep,
}

/// Replaces the content of `path` by `content`.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, Existing::Replace, SECRET)
}

/// As [`replace`], for all users to read.
pub(super) fn publish(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, Existing::Replace, PUBLIC)
}

/// Makes `path` with `content`; `AlreadyExists` when something has that name.
pub(super) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, Existing::Keep, SECRET)
}

/// Gives the file `from` the name `to`, in the same folder.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    File::open(folder(to))?.sync_all()
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.and_then(|()| File::open(folder(path))?.sync_all()),
    }
}

/// The content of `path`; `None`: there is no such file. More than `bytes_max` is an error.
pub(super) fn read(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    match File::open(path) {
        Ok(file) => read_open(&file, bytes_max).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The content of an open file.
pub(super) fn read_open(file: &File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|length| length <= bytes_max) {
        return Ok(content);
    }
    Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes")))
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write(path: &Path, content: &[u8], existing: Existing, mode: u32) -> io::Result<()> {
    let temporary = temporary(path)?;
    let result = steps(path, &temporary, content, existing, mode, |_| Ok(()));
    if result.is_err() {
        // The temporary file may have filled the disk.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Hidden beside the file: one writer at a time has it.
fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    Ok(path.with_file_name(hidden))
}

/// Root may write into the folder of a service's own user, which could not read a file of root's.
fn belong_to_folder(path: &Path, file: &File) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(folder(path))?;
    if owner.uid() == 0 {
        Ok(())
    } else {
        std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
    }
}

/// `before` is called ahead of each step; an error from it is as if the machine had stopped there.
fn steps(
    path: &Path,
    temporary: &Path,
    content: &[u8],
    existing: Existing,
    mode: u32,
    mut before: impl FnMut(Step) -> io::Result<()>,
) -> io::Result<()> {
    before(Step::Make)?;
    if let Err(error) = fs::remove_file(temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
    // Independent of this process's umask.
    file.set_permissions(Permissions::from_mode(mode))?;
    belong_to_folder(path, &file)?;
    before(Step::Write)?;
    file.write_all(content)?;
    before(Step::Sync)?;
    file.sync_all()?;
    before(Step::Name)?;
    match existing {
        Existing::Replace => fs::rename(temporary, path)?,
        Existing::Keep => {
            fs::hard_link(temporary, path)?;
            fs::remove_file(temporary)?;
        }
    }
    before(Step::Settle)?;
    File::open(folder(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 5] = [Step::Make, Step::Write, Step::Sync, Step::Name, Step::Settle];

    fn crash(path: &Path, content: &[u8], existing: Existing, at: Step) {
        let crash = |step| if step == at { Err(io::Error::other("crash")) } else { Ok(()) };
        let error = steps(path, &temporary(path).unwrap(), content, existing, SECRET, crash).unwrap_err();
        assert_eq!(error.to_string(), "crash");
    }

    #[test]
    fn a_crash_leaves_the_old_or_the_new_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        replace(&path, b"old").unwrap();
        for step in STEPS {
            crash(&path, b"newer", Existing::Replace, step);
            let expected: &[u8] = if step == Step::Settle { b"newer" } else { b"old" };
            assert_eq!(fs::read(&path).unwrap(), expected, "{step:?}");
            replace(&path, b"old").expect("whatever the crash left is no obstacle");
            assert_eq!(fs::read(&path).unwrap(), b"old");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something is left over");
        }
    }

    #[test]
    fn a_crash_before_the_first_content_leaves_none_or_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for step in STEPS {
            crash(&path, b"secret", Existing::Keep, step);
            if step == Step::Settle {
                assert_eq!(fs::read(&path).unwrap(), b"secret");
                let error = create(&path, b"other").unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
                assert_eq!(fs::read(&path).unwrap(), b"secret");
            } else {
                assert!(!path.exists(), "{step:?}");
            }
        }
    }

    #[test]
    fn a_left_over_is_replaced_whatever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, b"untouched").unwrap();
        std::os::unix::fs::symlink(&elsewhere, temporary(&path).unwrap()).unwrap();
        replace(&path, b"one").unwrap();
        fs::write(temporary(&path).unwrap(), b"half a li").unwrap();
        fs::set_permissions(temporary(&path).unwrap(), Permissions::from_mode(0o666)).unwrap();
        assert_eq!(read(&path, 100).unwrap().unwrap(), b"one");
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SECRET);
        assert_eq!(fs::read(&elsewhere).unwrap(), b"untouched");
    }

    #[test]
    fn reading_is_bounded_and_knows_absence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert_eq!(read(&path, 4).unwrap(), None);
        replace(&path, b"four").unwrap();
        assert_eq!(read(&path, 4).unwrap().unwrap(), b"four");
        assert_eq!(read(&path, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_failure_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        // A folder has the name: the last step fails.
        let path = folder.path().join("state");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
