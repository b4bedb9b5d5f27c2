//! Replays the committed corpora, so that faults found before stay found.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// One target at a time: what is allocated is counted for the whole process.
static TURN: Mutex<()> = Mutex::new(());

/// Runs every file of a corpus through its target.
fn replay(target: &str, run: fn(&[u8])) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        // Shown only if the target panics.
        println!("{}", file.display());
        run(&std::fs::read(&file).expect("a readable file"));
    }
}

#[test]
fn frame() {
    replay("frame", bonding_fuzz::frame);
}

#[test]
fn session() {
    replay("session", bonding_fuzz::session);
}

#[test]
fn endpoint() {
    replay("endpoint", bonding_fuzz::endpoint);
}

#[test]
fn pair() {
    replay("pair", bonding_fuzz::pair);
}

#[test]
fn handshake() {
    replay("handshake", bonding_fuzz::handshake);
}

#[test]
fn sealed() {
    replay("sealed", bonding_fuzz::sealed);
}

#[test]
fn sealed_pair() {
    replay("sealed_pair", bonding_fuzz::sealed_pair);
}
