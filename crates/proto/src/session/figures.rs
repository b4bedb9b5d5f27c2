//! Figures of a session, for status and logs.

use super::counters::Counters;
use super::inbox::Inbox;
use super::ingress::Ingress;
use super::link_table::LinkTable;
use super::redundancy::Redundancy;
use crate::packet::LinkId;
use crate::stats::{SessionStats, StreamStats};
use crate::streams::Streams;
use crate::time::Instant;
use crate::trace::Figures;

/// What the figures are taken from.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) is_connected: bool,
    pub(super) links: &'a LinkTable,
    pub(super) ingress: &'a Ingress,
    pub(super) redundancy: &'a Redundancy,
    pub(super) inbox: &'a Inbox,
    pub(super) streams: &'a Streams,
    pub(super) counters: &'a Counters,
    /// [`super::Session::touched`].
    pub(super) touched: u64,
}

/// The figures as of `now`.
pub(super) fn of(session: &Parts<'_>, now: Instant) -> SessionStats {
    let reorder = session.inbox.stats();
    let mut recovery = session.redundancy.resend.stats(session.links);
    recovery.lost = reorder.lost;
    SessionStats {
        connected: session.is_connected,
        links: session.links.iter().map(|link| link.stats(now)).collect(),
        flows_active: session.ingress.queue.flows_active(),
        flows_realtime: session.ingress.realtime_flows(now),
        queue_bytes: session.ingress.queue.bytes(),
        queue_delay: session.ingress.queue.oldest_wait(now),
        reorder_held: reorder.held,
        reorder_held_bytes: reorder.held_bytes,
        reorder_held_max: reorder.held_max,
        reorder_timeouts: reorder.timeouts,
        touched: session.touched,
        released_late: reorder.released_late,
        duplicates: session.inbox.duplicates(),
        copies: session.redundancy.copies.count(),
        recovery,
        fec_sent: session.redundancy.protection.sent,
        fec_recovered: session.redundancy.protection.recovered,
        fec_refused: session.redundancy.protection.refused,
        streams: StreamStats {
            credit_blocked_for: session.streams.credit_blocked_for(now),
            ..session.streams.stats()
        },
        packets_in: session.counters.packets_in,
        packets_out: session.counters.packets_out,
        bytes_out: session.counters.bytes_out,
        discards: session.counters.discards.clone(),
    }
}

/// A link's figures for the trace.
pub(super) fn of_link(
    id: LinkId,
    links: &LinkTable,
    redundancy: &Redundancy,
    now: Instant,
) -> Option<Figures> {
    let link = links.get(id)?;
    let (view, control) = (link.view(now), link.stats(now).control);
    Some(Figures { view, control, recovery: redundancy.resend.stats(links) })
}
