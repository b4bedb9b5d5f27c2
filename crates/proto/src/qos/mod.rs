//! Which flow a packet belongs to, and the one queue in which all packets wait ahead of all links.
//!
//! Packets are bound to links late: they wait here, and only when a link has credit does the scheduler ask
//! for the next one. So there is one standing queue, it is ours, and it can be kept short and fair:
//!
//! - [`flow`] turns an inner packet's addresses and ports into a [`flow::FlowId`], which names both the
//!   flow's queue and its slot in the frame's sequence number.
//! - [`queue`] is FQ-CoDel (RFC 8290) with two tiers instead of its new and old lists.
//!
//! This module knows neither links nor keys. It is given time and the links' total rate, and gives out
//! packets.

mod codel;
mod credit;
mod ecn;
pub mod flow;
pub mod queue;
mod table;
mod wait;

pub use flow::{FLOWS, FlowHasher, FlowId, InnerHeader};
pub use queue::{Queue, QueueConfig, Queued, Tier};
