//! The committed fingerprints are those of the code.

use bonding_sim::table::{FINGERPRINTS, INTRO, fingerprints};

const COMMITTED: &str = include_str!("../../../docs/simulation.md");

#[test]
fn the_committed_fingerprints_are_what_the_code_gives() {
    let made = fingerprints();
    let place = COMMITTED.find(FINGERPRINTS).expect("docs/simulation.md has its fingerprints");
    assert_eq!(
        made.trim(),
        COMMITTED[place..].trim(),
        "behaviour changed: if that was meant, run `cargo run --release -p bonding-sim --bin table` (or, for the \
         fingerprints alone, `… --bin table fingerprints`) and commit docs/simulation.md with the reason"
    );
    assert!(
        COMMITTED.starts_with(INTRO),
        "the head of docs/simulation.md is not the one in the code: make it again"
    );
}
