//! Which flow a packet belongs to, and the one queue in which all packets wait ahead of all links.
//!
//! Packets are bound to links late: they wait here, and only when a link has credit does the scheduler ask
//! for the next one. So there is one standing queue, it is ours, and it can be kept short and fair:
//!
//! - [`flow`] turns an inner packet's addresses and ports into a [`flow::FlowId`], which names both the
//!   flow's queue and its slot in the frame's sequence number.
//! - [`queue`] is FQ-CoDel (RFC 8290) with three tiers instead of its new and old lists.
//! - [`classify`] says how urgent a packet is, by configured rules ([`rule`]) and by what it looks like.
//!
//! This module knows neither links nor keys. It is given time and the links' total rate, and gives out
//! packets.

pub(crate) mod ack;
pub mod classify;
mod codel;
mod credit;
mod ecn;
pub mod flow;
pub mod queue;
pub mod rule;
mod table;
mod wait;

pub use classify::{Class, Classifier};
pub use flow::{FLOW_IDS, FLOWS, FlowHasher, FlowId, InnerHeader};
pub use queue::{Queue, QueueConfig, Queued, Tier};
pub use rule::{Rule, RuleProtocol};
