//! Sending again: packets that links lost, or still carried when they were given up, go out over
//! another way. [`crate::recovery`] says which packets, and over which link.

use crate::packet::{KeptPacket, LinkId};
use crate::position::StreamId;
use crate::recovery::Recovery;
use crate::session::link_table::{LinkTable, Transition};
use crate::stats::RecoveryStats;
use crate::streams::Streams;
use crate::time::Instant;
use crate::trace::{LossTrigger, Tracer};
use crate::view::LinkState;

/// Leaves out what of streams need not be sent again.
fn wanted(frames: &mut Vec<KeptPacket>, streams: &mut Streams) {
    frames.retain(|frame| frame.stream().is_none() || streams.wants(&frame.data().packet));
}

/// The packets that are sent again.
#[derive(Debug)]
pub(in crate::session) struct Resend {
    /// Whether losses are sent again.
    is_on: bool,
    pub(super) queue: Recovery,
}

impl Resend {
    pub(super) fn new(is_on: bool) -> Self {
        Self { is_on, queue: Recovery::default() }
    }

    /// Losses are sent again from now on, or not any more.
    pub(super) const fn set_on(&mut self, is_on: bool) {
        self.is_on = is_on;
    }

    /// Whether losses are sent again.
    pub(in crate::session) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Bytes that wait.
    pub(in crate::session) const fn queued_bytes(&self) -> usize {
        self.queue.queued_bytes()
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    /// Feedback came about the link. Whether it told of losses.
    pub(in crate::session) fn on_feedback(
        &mut self,
        id: LinkId,
        links: &mut LinkTable,
        streams: &mut Streams,
        tracer: &mut Tracer,
        now: Instant,
    ) -> bool {
        let Some(link) = links.get_mut(id) else { return false };
        for piece in link.deliveries_mut().take_arrived() {
            streams.on_arrived(&piece.data().packet);
        }
        let mut lost = link.deliveries_mut().take_lost();
        wanted(&mut lost, streams);
        let is_any = !lost.is_empty();
        tracer.on_lost(id, LossTrigger::Passed, &lost, now);
        self.queue.on_lost(lost);
        is_any
    }

    /// Time has passed: what ended a burst may be overdue. Whether it is.
    pub(in crate::session) fn on_time(
        &mut self,
        links: &mut LinkTable,
        streams: &mut Streams,
        tracer: &mut Tracer,
        now: Instant,
    ) -> bool {
        let mut is_any = false;
        for link in links.iter_mut() {
            let mut overdue = link.deliveries_mut().take_lost();
            overdue.extend(link.take_end(now));
            wanted(&mut overdue, streams);
            is_any |= !overdue.is_empty();
            tracer.on_lost(link.id(), LossTrigger::EndOverdue, &overdue, now);
            self.queue.on_lost(overdue);
        }
        is_any
    }

    /// A link is not proven any more: what it still carries may never arrive. How many packets are
    /// sent again for that.
    pub(in crate::session) fn on_transition(
        &mut self,
        transition: Transition,
        links: &mut LinkTable,
        streams: &mut Streams,
        tracer: &mut Tracer,
        now: Instant,
    ) -> usize {
        if transition.after == LinkState::Up || transition.before == LinkState::Down {
            return 0;
        }
        let Some(link) = links.get_mut(transition.link) else { return 0 };
        let deliveries = link.deliveries_mut();
        let mut underway = deliveries.take_lost();
        underway.extend(deliveries.take_underway());
        wanted(&mut underway, streams);
        tracer.on_lost(link.id(), LossTrigger::LinkLost, &underway, now);
        let count = underway.len();
        self.queue.on_link_lost(underway);
        count
    }

    /// A stream is over: what waits of it is not sent again.
    pub(in crate::session) fn forget_stream(&mut self, stream: StreamId) {
        self.queue.forget_stream(stream);
    }

    /// What became of losses on these links.
    pub(in crate::session) fn stats(&self, links: &LinkTable) -> RecoveryStats {
        let mut stats = self.queue.stats();
        for counts in links.iter().map(|link| link.deliveries().resend_counts()) {
            stats.recovered += counts.recovered;
            stats.spurious += counts.spurious;
        }
        stats
    }
}
