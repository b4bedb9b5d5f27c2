//! Waiting for what has to happen, without measuring how long it takes.

use std::time::{Duration, Instant};

/// How long anything may take that has to happen at all. Generous: it bounds a hang, it measures nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Waits until `attempt` gives a value; fails with its last error when patience is at its end.
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("{what}: not within {} s", PATIENCE.as_secs())));
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}
