//! Records of the core's decisions: rates and their causes, links of flows, losses, resends, gaps,
//! link states, keys.
//!
//! Off by default. While it is off a hook is one branch; while it is on, each decision becomes a
//! [`Record`] in a bounded ring that the driver empties with
//! [`StateMachine::drain_trace`](crate::StateMachine::drain_trace). A record that finds the ring
//! full is counted, and the count is a record too ([`TraceEvent::RecordsLost`]).
//!
//! - `event`: the records. `ring`: the bounded list that they wait in.
//! - `tracer`: the session's ring, and the methods that the session's hooks call.
//! - `holds`: the same for the resequencer, which is derived from a slot before and after an input.
//! - `collector`: the records of several sessions in one list.
//! - `format`: records as bytes, for files. `docs/trace.md` describes them.
//!
//! # Contract
//! A trace changes nothing: no decision reads it, and the same inputs give the same outputs with it
//! and without it. Records of one drain are in the order of their time. A session keeps at most
//! [`RING_MAX`] records, so the driver drains often.
//!
//! # Not known here
//! Sessions, links and slots: their values are passed in. Names of links and peers, the time of
//! day, files.

mod collector;
mod event;
pub mod format;
mod holds;
mod ring;
mod tracer;

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod tests;

pub(crate) use self::collector::{Collector, drain_as};
pub use self::event::{
    Cause, GapEnd, KeyChange, Level, LossTrigger, PhaseKind, RateChanged, Record, ResetCause, TraceEvent,
    counter_of, flow_of,
};
pub(crate) use self::holds::{HoldCounts, HoldTracer, Input, Present};
pub use self::ring::RING_MAX;
pub(crate) use self::ring::sort;
pub(crate) use self::tracer::{Figures, Tracer};
