//! A client's run number: grows from start to start, even if its clock goes back.
//!
//! The run number is the greater half of the stamp on a client's first messages. By the stamp, a
//! server tells a new message from a replayed one. A clock that was set back, or that begins at
//! 1970 on every start as on a small router, does no harm as long as the file exists. If the file
//! is lost, a right clock stands in.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{StateError, atomic, prepare_folder};

/// The longest file: a number and a newline.
const BYTES_MAX: u64 = 64;

/// The run number's file, beside the client's key.
pub fn file(private_key: &Path) -> PathBuf {
    private_key.with_extension("run")
}

/// The number of this run: larger than the last, and than the seconds since 1970. It is written
/// down before it is given. Where that cannot be, or the last one cannot be read, the log says so
/// and the clock alone stands in, which is as good while it is right.
pub fn next(path: &Path, now: SystemTime) -> u64 {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let last = last(path).unwrap_or_else(|error| {
        tracing::warn!(%error, "the number of this client's last run is lost: the clock stands in");
        None
    });
    let next = last.map_or(0, |last| last.saturating_add(1)).max(seconds);
    if let Err(error) = write(path, next) {
        tracing::warn!(
            %error,
            "the number of this run cannot be written down: a server may take no handshake of this client after its \
             next start, unless the clock is right then"
        );
    }
    next
}

fn write(path: &Path, run: u64) -> Result<(), StateError> {
    prepare_folder(path)?;
    atomic::replace(path, format!("{run}\n").as_bytes()).map_err(StateError::io("write", path))
}

/// The last run's number; `None`: there was none.
fn last(path: &Path) -> Result<Option<u64>, StateError> {
    let content = atomic::read(path, BYTES_MAX).map_err(StateError::io("read", path))?;
    content.map(|content| parse(&content).ok_or_else(|| damaged(path))).transpose()
}

fn parse(content: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(content).ok()?.strip_suffix('\n')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn damaged(path: &Path) -> StateError {
    let why = "it holds no number".to_owned();
    StateError::Damaged { path: path.to_owned(), why, remedy: "it is written anew" }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn grows_with_the_clock_and_against_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder.path().join("state/client.key"));
        assert_eq!(path, folder.path().join("state/client.run"));
        let clock = [1_000, 1_000, 5_000, 0, 4_999, 6_000];
        let runs: Vec<u64> = clock.iter().map(|seconds| next(&path, at(*seconds))).collect();
        assert_eq!(runs, [1_000, 1_001, 5_000, 5_001, 5_002, 6_000]);
        let before_1970 = UNIX_EPOCH - Duration::from_secs(9);
        assert_eq!(next(&path, before_1970), 6_001);
    }

    /// As a power cut may leave it.
    #[test]
    fn a_damaged_file_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.run");
        for content in ["", "12", "x\n", "-1\n", "+1\n", "99999999999999999999\n", "\n"] {
            std::fs::write(&path, content).unwrap();
            assert!(last(&path).unwrap_err().to_string().contains("client.run is damaged"), "{content:?}");
            assert_eq!(next(&path, at(77)), 77, "{content:?}");
            assert_eq!(last(&path).unwrap(), Some(77));
        }
    }

    /// No folder can be made there.
    #[test]
    fn without_a_file_the_clock_stands_in() {
        let path = Path::new("/proc/none/client.run");
        assert_eq!([next(path, at(5)), next(path, at(6))], [5, 6]);
    }
}
