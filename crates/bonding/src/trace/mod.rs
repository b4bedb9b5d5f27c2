//! Traces of the core's decisions in files: `--trace` of the daemons writes them, `bondctl trace`
//! prints them. `docs/trace.md` describes both.
//!
//! - `options`: the daemons' options.
//! - `file`: the writer, which never waits for the disk.
//! - `line`: an entry as a line of JSON.
//! - `print`: `bondctl trace`.

pub(crate) mod file;
mod line;
pub(crate) mod options;
pub(crate) mod print;

use std::path::PathBuf;

use bonding_proto::trace::Level;

/// The trace of a daemon: its file, size and level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracePlan {
    /// The file; an older half stands beside it, ending in `.1`.
    pub file: PathBuf,
    /// Bytes of both together.
    pub bytes_max: u64,
    /// How much is recorded.
    pub level: Level,
}
