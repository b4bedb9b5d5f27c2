//! What the end-to-end tests and the benchmark share: the real binaries, configured and running on the hosts of a lab.

pub(crate) mod bond;
pub(crate) mod wait;
pub(crate) mod web;

pub(crate) use bond::{Bond, Options};

/// Where the files of a test go: in the sandbox this folder is in memory, empty, and nobody else's.
pub(crate) const FOLDER: &str = "/run/bonding-test";
