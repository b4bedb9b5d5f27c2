//! The tools that measure a lab: `ping`, `iperf3`, an echo of its own, and a record of the links
//! while they are in use.
//!
//! Each is a plain description with sensible defaults and one call that runs it.

mod echo;
mod iperf3;
mod ping;
mod rtts;
mod watch;

pub use echo::{Echo, EchoReport, EchoSample, EchoServer};
pub use iperf3::{Iperf3, Iperf3Report, Iperf3Run, Iperf3Server, IperfDirection};
pub use ping::{Ping, PingReport};
pub use rtts::percentile;
pub use watch::{LinkBytes, Moment, Record};
