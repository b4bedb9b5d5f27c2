//! A link emulator as a state machine: rate, queue, policer, loss, delay, jitter, reordering,
//! duplication, bursts, outages.
//!
//! [`Pipe`] is one direction of one link. It does no I/O, reads no clock and draws from its own
//! seeded generators only. The same inputs therefore give the same outputs to the nanosecond,
//! whether its driver runs on virtual time or moves real packets. The payload has any type: the
//! pipe uses only a packet's size, and its [`Flow`] where a policer tells flows apart. A driver
//! whose packets can carry congestion marks asks [`Pipe::marks`] before it offers a packet.
//!
//! ```text
//! enqueue ─► [MTU, outage] ─► [policer] ─► [drop-tail queue] ─► [rate: constant or trace]
//!         ─► [loss] ─► [grid] ─► [delay, jitter] ─► [bursts] ─► poll_deliver
//! ```
//!
//! The stages are separate as on a real link: a packet first waits, then takes the time that its
//! bytes need at the link's rate, and then travels. A packet lost on the way has used the link's
//! capacity. Bytes are those of the IP packet, headers included; the link layer's overhead is not
//! modelled.
//!
//! [`Scenario`] is a set of links and timed events as data: a TOML file, several of which are built
//! in.
//!
//! Sources: Mahimahi (Netravali et al., USENIX ATC 2015) for traces of delivery opportunities;
//! Gilbert (1960) and Elliott (1963) for bursty loss; Linux `tc-netem(8)` for the vocabulary.
//!
//! ```
//! use std::time::Duration;
//! use bonding_netem::{Pipe, PipeConfig, Rate, Time};
//!
//! let delay = Duration::from_millis(20);
//! let config = PipeConfig { rate: Rate::from_mbps(10), delay, ..PipeConfig::default() };
//! let mut pipe = Pipe::new(config, 1);
//! assert!(pipe.enqueue("hello", 1500, Time::ZERO).is_queued());
//! // 1500 bytes take 1.2 ms at 10 Mbit/s, then travel for 20 ms.
//! let due = pipe.poll_timeout().expect("a packet is under way");
//! assert_eq!(due, Time::from_micros(21_200));
//! assert_eq!(pipe.poll_deliver(due), Some("hello"));
//! ```

mod counters;
pub mod ecn;
mod flow;
mod gather;
mod jitter;
mod loss;
mod pipe;
mod police;
mod random;
mod rate;
pub mod scenario;
mod shaper;
mod time;
pub mod trace;
pub mod units;

pub use counters::{Counters, Drops};
pub use flow::Flow;
pub use jitter::{Jitter, Spread};
pub use loss::Loss;
pub use pipe::{Change, DropReason, Limit, Outcome, Pipe, PipeConfig};
pub use police::Police;
pub use rate::Rate;
pub use scenario::{CarrierEvent, Direction, Event, LinkSpec, Scenario, ScenarioError};
pub use time::Time;
pub use trace::{Trace, TraceError, Walk};

#[cfg(test)]
mod tests;
