//! The bond in the simulator: client, server and links in virtual time, on scenarios that a test
//! makes or takes from `scenarios/`.
//!
//! One program holds all these tests: every further one would link the simulator and its transports
//! once more. Programs of their own are the tests that count allocations of the whole process
//! (`allocations`, `footprint`), the committed fingerprints (`table`) and random faults (`chaos`).
//!
//! `cargo test -p bonding-sim --test scenarios outage` runs the tests of one module.

mod bond;
mod competitor;
mod far;
mod flows;
mod load;
mod marks;
mod mtu;
mod outage;
mod realtime;
mod roles;
mod sealed;
mod streams;
mod thousand;
mod trace;
mod trials;
mod world;
