//! Random links and random faults, in random order ([`bonding_sim::chaos`]): over plain links, over
//! sealed links, beside a client that attacks, for minutes, so that keys are replaced and expire,
//! and for an hour in all of denser faults. `cargo xtask chaos` runs for as long as wanted.
//!
//! A failure names its seed; `CHAOS_SEED=n` repeats that seed alone.

use std::ops::Range;

use bonding_sim::chaos::{Course, DENSE, HOSTILE, LONG, PLAIN, SEALED, play_all};

fn run(course: &'static Course, seeds: u64) {
    let chosen = std::env::var("CHAOS_SEED").ok().map(|seed| seed.parse().expect("CHAOS_SEED is a number"));
    play(course, chosen.map_or(0..seeds, |seed: u64| seed..seed + 1));
}

fn play(course: &'static Course, seeds: Range<u64>) {
    if let Err(why) = play_all(|_| course, seeds, |_| ()) {
        panic!("{why}");
    }
}

#[test]
fn faults_in_any_order_corrupt_nothing_and_pass() {
    run(&PLAIN, 40);
}

#[test]
fn sealed_links_recover_from_faults_in_any_order() {
    run(&SEALED, 20);
}

#[test]
fn keys_outlive_faults_in_any_order() {
    run(&LONG, 12);
}

/// An hour: 200 seeds of 18 s.
#[test]
fn an_hour_of_dense_faults_passes() {
    run(&DENSE, 200);
}

/// Links that had healed were used too late or too little. There were no keys until the pause
/// between two attempts was over, once (447, 136) or twice since an attempt was lost (483); a path
/// that became a little longer was taken for a queue (433).
#[test]
fn links_that_heal_are_used_again() {
    for seed in [447, 136, 483, 433] {
        play(&DENSE, seed..seed + 1);
    }
}

/// A client with keys that attacks the server harms no other.
#[test]
fn a_hostile_client_harms_no_other() {
    run(&HOSTILE, 12);
}
