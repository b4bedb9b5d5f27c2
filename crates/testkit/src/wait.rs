//! Waiting for an outcome that must come, without measuring how long it takes.

use std::time::{Duration, Instant};

/// How long an outcome may take. Chosen: far above every right outcome, so it only bounds a hang.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two attempts. Chosen: short beside every outcome that tests wait for.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `attempt` gives a value; fails with its last error after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
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
