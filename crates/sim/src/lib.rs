//! Client, server, links and real inner transports in virtual time.
//!
//! A [`world::World`] runs the two state machines of the bond between emulated links, with hosts
//! behind both ends that speak real TCP (smoltcp) and real QUIC (quinn-proto). Time jumps from
//! event to event, so a minute of a slow network takes a second of a fast machine, and the same
//! seed gives the same run.

pub mod bare;
pub mod bond;
pub mod chaos;
pub mod competitor;
pub mod host;
pub mod inet;
pub mod intruder;
pub mod ledger;
pub mod mangle;
pub mod outer;
pub mod parallel;
pub mod pattern;
pub mod rng;
pub mod run;
pub mod sweep;
pub mod table;
pub mod trace;
pub mod world;
