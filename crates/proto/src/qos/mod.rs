//! Flows and classes of packets, and the one queue in which all packets wait ahead of all links.
//!
//! Packets are bound to links late: they wait here until a link has credit and the scheduler asks
//! for the next packet. So there is one standing queue, under the tunnel's control, which is kept
//! short and fair.
//!
//! - [`flow`] maps an inner packet's addresses and ports to a [`flow::FlowId`], which names the
//!   flow's queue and its slot in the frame's sequence number.
//! - [`queue`] is FQ-CoDel (RFC 8290) with four tiers instead of new and old lists.
//! - [`classify`] determines a packet's class, from configured rules ([`rule`]) and from the
//!   traffic of its flow.
//!
//! The module knows neither links nor keys. Its inputs are packets, the time, and the links' total
//! rate and delays.

pub(crate) mod ack;
mod class;
pub mod classify;
mod codel;
mod config;
mod credit;
mod delay;
mod ecn;
pub mod flow;
pub mod queue;
pub mod rule;
pub(crate) mod spacing;
mod table;
mod tier;
mod wait;

pub use classify::{Class, Classifier};
pub use flow::{FLOW_IDS, FLOWS, FlowHasher, FlowId, InnerHeader};
pub use queue::{Queue, QueueConfig, Queued, Tier};
pub use rule::{Rule, RuleProtocol};
