//! Inner packets from the peer: data frames go to the resequencer, and what it releases waits for
//! TUN. [`frames`] reads the frames of datagrams, [`quota`] says how many of them count.

pub(super) mod frames;
pub(super) mod quota;

use std::collections::VecDeque;

use super::meters::Meters;
use crate::discard::Discard;
use crate::packet::PacketBuf;
use crate::qos::flow::FlowId;
use crate::reorder::{Limits, LinkDelay, Origin, ReorderStats, Resequencer, Trust};
use crate::time::Instant;
use crate::trace::HoldTracer;
use crate::wire::{self, Modifiers};

/// What arrived and was not given to TUN yet.
#[derive(Debug)]
pub(super) struct Inbox {
    reorder: Resequencer,
    released: VecDeque<PacketBuf>,
    /// Packets that had come over another link before.
    duplicates: u64,
    /// What each flow brings.
    pub(super) meters: Meters,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let (reorder, meters) = (Resequencer::new(Limits::default()), Meters::default());
        Self { reorder, released: VecDeque::new(), duplicates: 0, meters }
    }

    /// A data frame's packet arrived over the link. `Err(Discard::Duplicate)`: another copy of it
    /// came before ([`Self::without_duplicates`]).
    pub(super) fn on_packet(
        &mut self,
        (seq_num, modifiers): (u64, Modifiers),
        origin: Origin,
        packet: PacketBuf,
        delays: &[LinkDelay],
        now: Instant,
    ) -> Result<(), Discard> {
        let (slot, bytes) = (FlowId(wire::flow_slot(seq_num)), packet.len());
        self.meters.check(slot, &packet, now);
        let result = if modifiers.has(Modifiers::AT_ONCE) {
            self.reorder.on_urgent_packet(seq_num, origin.trust, packet, now, &mut self.released)
        } else {
            self.reorder.on_packet(seq_num, origin, packet, delays, now, &mut self.released)
        };
        if result.is_ok() {
            self.meters.count(slot, origin.link, bytes, now);
        }
        result
    }

    /// A packet was restored from others.
    pub(super) fn on_restored(
        &mut self,
        (seq_num, modifiers): (u64, Modifiers),
        packet: PacketBuf,
        delays: &[LinkDelay],
        now: Instant,
    ) -> Result<(), Discard> {
        if modifiers.has(Modifiers::AT_ONCE) {
            self.reorder.on_urgent_packet(seq_num, Trust::Alike, packet, now, &mut self.released)
        } else {
            self.reorder.on_restored_packet(seq_num, packet, delays, now, &mut self.released)
        }
    }

    /// Counts a copy that the peer sent over several links; a replayed datagram does not get here.
    pub(super) fn without_duplicates(&mut self, result: Result<(), Discard>) -> Result<(), Discard> {
        if result == Err(Discard::Duplicate) {
            self.duplicates += 1;
            return Ok(());
        }
        result
    }

    /// Packets that had come over another link before.
    pub(super) const fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The peer began anew: what is held is released.
    pub(super) fn reset(&mut self) {
        self.reorder.reset(&mut self.released);
    }

    /// Links became usable or not, or their delays changed.
    pub(super) const fn on_links_changed(&mut self) {
        self.reorder.on_links_changed();
    }

    /// A batch of inputs is over: changes of links may release packets.
    pub(super) fn on_drained(&mut self, delays: &[LinkDelay], now: Instant) {
        self.reorder.review(delays, now, &mut self.released);
        self.meters.forget_idle(now);
    }

    /// Time has passed: gaps may be given up.
    pub(super) fn on_time(&mut self, delays: &[LinkDelay], now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.reorder.on_timeout(delays, now, &mut self.released);
        }
    }

    /// Gives up gaps until no more than `bytes` are held.
    pub(super) fn shed(&mut self, bytes: usize, delays: &[LinkDelay], now: Instant) {
        self.reorder.shed_to(bytes, delays, now, &mut self.released);
    }

    /// Memory of what is held until others come.
    pub(super) const fn held_bytes(&self) -> usize {
        self.reorder.memory_bytes()
    }

    /// What the resequencer looked at or moved.
    pub(super) const fn touched(&self) -> u64 {
        self.reorder.touched()
    }

    /// When [`Self::on_time`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.reorder.poll_timeout()
    }

    /// The next packet for TUN.
    pub(super) fn poll(&mut self) -> Option<PacketBuf> {
        self.released.pop_front()
    }

    /// Whether no packet waits for TUN.
    pub(super) fn is_empty(&self) -> bool {
        self.released.is_empty()
    }

    /// The trace of the resequencer's gaps.
    pub(super) const fn tracer(&mut self) -> &mut HoldTracer {
        self.reorder.tracer()
    }

    pub(super) fn stats(&self) -> ReorderStats {
        self.reorder.stats()
    }
}
