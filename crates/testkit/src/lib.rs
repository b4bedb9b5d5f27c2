//! What tests and benchmarks of several crates share. Only dev-dependencies and the simulator name
//! this crate.
//!
//! Without features it needs the core alone:
//! - [`fixture`]: configurations of a server with many clients, and inner packets,
//! - [`pump`]: their sessions, driven as the event loop drives them, without an allocation outside
//!   the core,
//! - [`crowd`]: their sessions in steps of 5 ms, for a thousand of them at once,
//! - [`hostile`]: a client with keys that sends the worst datagrams that it can build.
//!
//! The feature `lab` adds the real programs on the hosts of a `bonding_lab::Lab`:
//! - `bond`: client and server, configured and running,
//! - `programs`: the files of the programs under test,
//! - `wait`: waiting for an outcome, without measuring how long it takes,
//! - `web`: a web server that keeps its requests,
//! - `probe`: memory and processor time of a process,
//! - `statistics`: the median.
//!
//! The crate does not depend on `bonding` or on the simulator, whose tests use it: the programs'
//! paths come in as an argument. A helper panics or fails as a test does.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[cfg(feature = "lab")]
pub mod bond;
pub mod crowd;
pub mod fixture;
pub mod hostile;
#[cfg(feature = "lab")]
pub mod probe;
#[cfg(feature = "lab")]
pub mod programs;
pub mod pump;
#[cfg(feature = "lab")]
pub mod statistics;
#[cfg(feature = "lab")]
pub mod wait;
#[cfg(feature = "lab")]
pub mod web;
