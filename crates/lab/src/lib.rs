//! Network namespaces and the link emulator in real time: real kernels, real TCP, real binaries, on
//! one machine.
//!
//! A [`Lab`] turns a [`Scenario`] into three hosts:
//!
//! ```text
//! ┌─────── client ───────┐   netem    ┌───────── server ─────────┐      ┌── internet ──┐
//! │ adsl 10.200.0.1/24 ──┼─ up, down ─┼── adsl 10.200.0.2/24     │      │              │
//! │ sat1 10.200.1.1/24 ──┼────────────┼── sat1 10.200.1.2/24     │ veth │              │
//! │ …                    │            │ …   eth0 198.51.100.1/24 ┼──────┼ 198.51.100.2 │
//! │ route to 203.0.113.7 │            │ lo  203.0.113.7/32       │      │ eth0         │
//! │ over every link      │            │ default route: eth0      │      │              │
//! └──────────────────────┘            └──────────────────────────┘      └──────────────┘
//! ```
//!
//! Each end of a link is a TUN device (MTU 1500, no offloads: packets are what a wire would carry).
//! One thread at real-time priority moves packets between the two ends through a
//! [`bonding_netem::Pipe`] per direction. The client routes 203.0.113.7 over every link with
//! metrics 100, 101, …, so that a socket bound to a link's device reaches the server over that
//! link. The internet host has a route to its own network only: packets of a tunnel's user need
//! their source translated. IPv6 has the same shape: see [`addr`]. The program under test on the
//! server does the forwarding and translation.
//!
//! The lab lives in a [`sandbox`]: namespaces of the process, which end with it, also when it is
//! killed.
//!
//! ```no_run
//! use bonding_lab::{Host, Lab, LabOptions, sandbox};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! sandbox::enter()?; // the first thing a program does
//! let scenario = bonding_netem::scenario::builtin("dual")?;
//! let lab = Lab::start(&scenario, LabOptions::default())?;
//! let status = lab.host(Host::Client).command("ping").args(["-c1", "203.0.113.7"]).status()?;
//! lab.cut(0);
//! # Ok(())
//! # }
//! ```
//!
//! This crate does not know the bonding protocol. [`tools`] wraps the programs that measure it.

pub mod addr;
mod driver;
mod error;
mod host;
mod lab;
mod process;
mod requirements;
pub mod sandbox;
pub mod tools;
mod topology;

pub use bonding_netem::{Change, Counters, Direction, Scenario};
pub use driver::{DriverStats, PipeSnapshot, Snapshot};
pub use error::LabError;
pub use host::{Host, HostRef};
pub use lab::{Lab, LabOptions};
pub use process::Process;
pub use requirements::{Requirement, find, mptcp_requirement, requirements};
