//! The flows of a session, for figures: joined from the meters of both directions, the queue, the
//! classifier and the streams.
//!
//! A flow is named as this side sends it. What it is known by in more than one place (its ordinary
//! and its realtime queue, the peer's slots, both directions) is one flow here.

use std::collections::BTreeMap;
use std::collections::btree_map::IntoValues;
use std::net::IpAddr;
use std::time::Duration;

use super::ingress::Ingress;
pub use super::meters::Carried;
use super::meters::{Meter, Meters, Name};
use crate::position::StreamId;
use crate::qos::classify::ClassReason;
use crate::qos::flow::InnerHeader;
use crate::qos::{Class, Tier};
use crate::streams::{StreamEnds, Streams};
use crate::time::Instant;

/// A flow that had packets in the last 10 s.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowFigures {
    /// What it is.
    pub kind: FlowKind,
    /// Its class, and why it has that; `None`: its traffic decides its tier.
    pub class: Option<(Class, ClassReason)>,
    /// The tier that it waits in on this side; `None`: nothing of it waited in the last second.
    pub tier: Option<Tier>,
    /// How long the first of its packets has waited on this side.
    pub queue_delay: Duration,
    /// Bytes that wait on this side.
    pub queue_bytes: usize,
    /// What this side sent of it.
    pub sent: Carried,
    /// What this side received of it.
    pub received: Carried,
    /// How long ago its last packet was.
    pub idle: Duration,
}

/// What a flow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowKind {
    /// Packets with this header.
    Packets(InnerHeader),
    /// A connection that ends at the bond.
    Stream {
        /// Its stream.
        id: StreamId,
        /// Where it began, and where it goes.
        ends: StreamEnds,
        /// For how long its writer on this side had no credit.
        credit_blocked: Duration,
    },
}

/// What tells a flow from others.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Packets(IpAddr, IpAddr, u8, Option<(u16, u16)>),
    Stream(StreamId, u64),
}

/// The two directions of one flow.
#[derive(Debug)]
struct Joined {
    name: Name,
    sent: Carried,
    received: Carried,
    idle: Duration,
}

impl Key {
    const fn of(name: &Name) -> Self {
        match *name {
            Name::Packets(InnerHeader { source, destination, protocol, ports, .. }) => {
                Self::Packets(source, destination, protocol, ports)
            }
            Name::Stream { id, first, .. } => Self::Stream(id, first),
        }
    }
}

/// The flows that were active lately: at most as many as there are meters.
pub(super) fn each(
    ingress: &Ingress,
    received: &Meters,
    streams: &Streams,
    now: Instant,
) -> impl Iterator<Item = FlowFigures> {
    join(ingress.meters.iter(now), received.iter(now), now).map(move |joined| {
        let Joined { name, mut sent, mut received, idle } = joined;
        let (kind, class, waits) = match name {
            Name::Packets(header) => {
                let (class, waits) = ingress.explain(&header, now);
                (FlowKind::Packets(header), class, waits)
            }
            Name::Stream { id, first, ends } => {
                let figures = streams.figures(id, first, now);
                if let Some(figures) = figures {
                    (sent.bytes, received.bytes) = (figures.sent_bytes, figures.received_bytes);
                }
                let credit_blocked = figures.map(|figures| figures.credit_blocked).unwrap_or_default();
                let kind = FlowKind::Stream { id, ends, credit_blocked };
                (kind, None, figures.and_then(|_| ingress.waits_of(id, now)))
            }
        };
        let (tier, queue_delay, queue_bytes) = match waits {
            Some((tier, waited, bytes)) => (Some(tier), waited, bytes),
            None => Default::default(),
        };
        FlowFigures { kind, class, tier, queue_delay, queue_bytes, sent, received, idle }
    })
}

/// Joins what is known of each flow.
fn join<'a>(
    sent: impl Iterator<Item = &'a Meter>,
    received: impl Iterator<Item = &'a Meter>,
    now: Instant,
) -> IntoValues<Key, Joined> {
    let mut flows: BTreeMap<Key, Joined> = BTreeMap::new();
    let mut note = |name: Name, meter: &Meter, is_sent: bool| {
        let idle = meter.idle(now);
        let empty = || Joined { name, sent: Carried::default(), received: Carried::default(), idle };
        let joined = flows.entry(Key::of(&name)).or_insert_with(empty);
        let to = if is_sent { &mut joined.sent } else { &mut joined.received };
        add(to, meter.carried(now));
        joined.idle = joined.idle.min(idle);
    };
    for meter in sent {
        note(*meter.name(), meter, true);
    }
    for meter in received {
        let name = match *meter.name() {
            Name::Packets(header) => Name::Packets(header.reversed()),
            name @ Name::Stream { .. } => name,
        };
        note(name, meter, false);
    }
    flows.into_values()
}

fn add(to: &mut Carried, more: Carried) {
    to.bytes += more.bytes;
    to.rate = to.rate.saturating_add(more.rate);
    for (link, bytes) in more.links {
        match to.links.iter_mut().find(|(known, _)| *known == link) {
            Some((_, known)) => *known += bytes,
            None => to.links.push((link, bytes)),
        }
    }
}
