//! Inner packets from the peer: data frames go to a resequencer, and what it releases waits for
//! TUN. [`frames`] reads the frames of datagrams, [`quota`] says how many of them count.
//!
//! Sealed links and plain ones have a resequencer each. What a plain link brings may be forged, so
//! it shares no slot, no gap and no memory with what sealed links bring.

pub(super) mod frames;
pub(super) mod quota;

use std::collections::VecDeque;

use super::link_table::ReceiveDelays;
use super::meters::Meters;
use crate::config::Security;
use crate::discard::Discard;
use crate::packet::{LinkId, PacketBuf};
use crate::qos::flow::FlowId;
use crate::reorder::{Limits, ReorderStats, Resequencer};
use crate::time::Instant;
use crate::trace::HoldTracer;
use crate::wire::{self, Modifiers};

/// What arrived and was not given to TUN yet.
#[derive(Debug)]
pub(super) struct Inbox {
    sealed: Resequencer,
    plain: Resequencer,
    released: VecDeque<PacketBuf>,
    /// Packets that had come over another link before.
    duplicates: u64,
    /// What each flow brings.
    pub(super) meters: Meters,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let [sealed, plain] = [(); 2].map(|()| Resequencer::new(Limits::default()));
        Self { sealed, plain, released: VecDeque::new(), duplicates: 0, meters: Meters::default() }
    }

    /// A data frame's packet arrived over the link. `Err(Discard::Duplicate)`: another copy of it
    /// came before ([`Self::without_duplicates`]).
    pub(super) fn on_packet(
        &mut self,
        (seq_num, modifiers): (u64, Modifiers),
        (link, security): (LinkId, Security),
        packet: PacketBuf,
        delays: &ReceiveDelays,
        now: Instant,
    ) -> Result<(), Discard> {
        let (slot, bytes) = (FlowId(wire::flow_slot(seq_num)), packet.len());
        self.meters.check(slot, &packet, now);
        let reorder = match security {
            Security::Sealed => &mut self.sealed,
            Security::Plain => &mut self.plain,
        };
        let result = if modifiers.has(Modifiers::AT_ONCE) {
            reorder.on_urgent_packet(seq_num, packet, now, &mut self.released)
        } else {
            reorder.on_packet(seq_num, link, packet, delays.of(security), now, &mut self.released)
        };
        if result.is_ok() {
            self.meters.count(slot, link, bytes, now);
        }
        result
    }

    /// A packet of sealed links was restored from others.
    pub(super) fn on_restored(
        &mut self,
        (seq_num, modifiers): (u64, Modifiers),
        packet: PacketBuf,
        delays: &ReceiveDelays,
        now: Instant,
    ) -> Result<(), Discard> {
        if modifiers.has(Modifiers::AT_ONCE) {
            self.sealed.on_urgent_packet(seq_num, packet, now, &mut self.released)
        } else {
            let delays = delays.of(Security::Sealed);
            self.sealed.on_restored_packet(seq_num, packet, delays, now, &mut self.released)
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
        self.sealed.reset(&mut self.released);
        self.reset_plain();
    }

    /// The peer began anew, as far as plain links tell.
    pub(super) fn reset_plain(&mut self) {
        self.plain.reset(&mut self.released);
    }

    /// Links became usable or not, or their delays changed.
    pub(super) const fn on_links_changed(&mut self) {
        self.sealed.on_links_changed();
        self.plain.on_links_changed();
    }

    /// A batch of inputs is over: changes of links may release packets.
    pub(super) fn on_drained(&mut self, delays: &ReceiveDelays, now: Instant) {
        self.sealed.review(delays.of(Security::Sealed), now, &mut self.released);
        self.plain.review(delays.of(Security::Plain), now, &mut self.released);
        self.meters.forget_idle(now);
    }

    /// Time has passed: gaps may be given up.
    pub(super) fn on_time(&mut self, delays: &ReceiveDelays, now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.sealed.on_timeout(delays.of(Security::Sealed), now, &mut self.released);
            self.plain.on_timeout(delays.of(Security::Plain), now, &mut self.released);
        }
    }

    /// Gives up gaps until no more than `bytes` are held: first those of plain links.
    pub(super) fn shed(&mut self, bytes: usize, delays: &ReceiveDelays, now: Instant) {
        let left = bytes.saturating_sub(self.sealed.memory_bytes());
        self.plain.shed_to(left, delays.of(Security::Plain), now, &mut self.released);
        self.sealed.shed_to(bytes, delays.of(Security::Sealed), now, &mut self.released);
    }

    /// Memory of what is held until others come.
    pub(super) const fn held_bytes(&self) -> usize {
        self.sealed.memory_bytes() + self.plain.memory_bytes()
    }

    /// What the resequencers looked at or moved.
    pub(super) const fn touched(&self) -> u64 {
        self.sealed.touched() + self.plain.touched()
    }

    /// When [`Self::on_time`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sealed.poll_timeout().into_iter().chain(self.plain.poll_timeout()).min()
    }

    /// The next packet for TUN.
    pub(super) fn poll(&mut self) -> Option<PacketBuf> {
        self.released.pop_front()
    }

    /// Whether no packet waits for TUN.
    pub(super) fn is_empty(&self) -> bool {
        self.released.is_empty()
    }

    /// The traces of the resequencers' gaps.
    pub(super) const fn tracers(&mut self) -> [&mut HoldTracer; 2] {
        [self.sealed.tracer(), self.plain.tracer()]
    }

    pub(super) fn stats(&self) -> ReorderStats {
        self.sealed.stats() + self.plain.stats()
    }
}
