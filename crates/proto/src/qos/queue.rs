//! The one queue ahead of all links: FQ-CoDel (RFC 8290) with tiers.
//!
//! **Flows.** Each flow has its own FIFO. Within a tier, deficit round robin gives every flow with
//! waiting packets the same number of bytes per round (RFC 8290 §4.1, §4.2).
//!
//! **Tiers.** The caller serves them in this order. Credit bounds the upper two (`credit`).
//! - *Realtime*: flows of that class while their credit lasts.
//! - *Sparse*: flows within their credit, of which at most one burst waits. *Fresh* flows go first:
//!   the waiting packet of a fresh flow is the first since the flow had none.
//! - *Bulk*: all others. A packet beyond credit or burst moves its flow here with all its packets.
//!   The flow returns when its queue has run empty and it has earned half a burst, or after a
//!   second without packets.
//! - *Far*: bulk flows that [`Queue::relocate`] moved, until a second goes by without packets.
//!
//! A flow is in one tier at a time: a change of tier reorders nothing.
//!
//! **Delay.** CoDel (RFC 8289) signals each flow; `delay` has its parameters. An ECT
//! packet is marked CE instead of dropped (RFC 8290 §4.2, RFC 3168); a mark is not a discard.
//!
//! **Memory.** Beyond `bytes_max` the flow that holds most loses its oldest packets. Pieces of
//! streams are not dropped, and not counted: their writer is held back.
//!
//! # Contract
//! [`Queue::head`] shows a packet and [`Queue::pop`] removes the packet that was shown. CoDel
//! judges a packet once, when it becomes the head. After that, the head of a tier changes only
//! through `pop`, or through a push that overflows the queue, makes the head's flow bulk, or makes
//! a flow fresh.
//!
//! The queue knows no links, nor how a flow id is derived.
//!
//! Why fresh flows go first:
//! docs/decisions/0072-tiers-of-the-queue.md.

use std::time::Duration;

use super::ack::{ACK_BYTES_MAX, supersedes};
use super::class::Class;
use super::codel::Verdict;
pub use super::config::QueueConfig;
use super::credit::Pool;
use super::delay::DelayControl;
pub use super::delay::Delays;
use super::ecn;
use super::flow::FlowId;
use super::table::{Flow, FlowTable, Waiting};
use super::tier::Tiers;
pub use super::tier::{Demand, Queued, Tier};
use crate::discard::DiscardCounts;
use crate::position::StreamId;
use crate::units::BitRate;
use crate::{Discard, Instant, PacketBuf};

/// Memory of a waiting packet beside its bytes: 56 for its place in the flow's queue, twice that
/// because a growing queue doubles, and 48 for the reference count and the allocator's headers.
///
/// Packets cut from one larger buffer keep all of it alive until the last of them is gone, which is
/// not counted. They belong to one flow and leave in order, so that is at most one such buffer per
/// flow.
pub const PACKET_OVERHEAD_BYTES: usize = 160;

const _: () = assert!(2 * size_of::<Waiting>() + 48 <= PACKET_OVERHEAD_BYTES);

/// Packets dropped at a time when the queue is full (RFC 8290 §4.1 and Linux's `fq_codel_drop`), so
/// that a flood does not search for the fattest flow once per packet.
const DROP_BATCH_PKTS: usize = 64;

/// The queue. See the module's head for its rules.
#[derive(Debug)]
pub struct Queue {
    config: QueueConfig,
    delay: DelayControl,
    pool: Pool,
    table: FlowTable,
    tiers: Tiers,
    /// Bytes of the sparse tier that belong to fresh flows.
    fresh_bytes: usize,
    count_pkts: usize,
    /// Of what waits, pieces of streams.
    stream_bytes: usize,
    stream_pkts: usize,
    marked_pkts: u64,
    discards: DiscardCounts,
}

impl Queue {
    /// An empty queue that does not know its drain rate yet.
    pub fn new(config: QueueConfig) -> Self {
        let config = QueueConfig { quantum: config.quantum.max(1), ..config };
        Self {
            config,
            delay: DelayControl::new(&config),
            pool: Pool::new(None),
            table: FlowTable::default(),
            tiers: Tiers::default(),
            fresh_bytes: 0,
            count_pkts: 0,
            stream_bytes: 0,
            stream_pkts: 0,
            marked_pkts: 0,
            discards: DiscardCounts::default(),
        }
    }

    /// Queues a packet. `class` `None`: the flow's traffic decides its tier. A flow of the realtime
    /// class shows that by its id. When the queue is full, the flow that holds most loses its
    /// oldest packets, which may include this one; those are counted, and the result is still `Ok`.
    ///
    /// # Errors
    /// [`Discard::QueueFull`], already counted here: the packet alone is larger than the queue.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn push(
        &mut self,
        flow: FlowId,
        class: Option<Class>,
        packet: PacketBuf,
        now: Instant,
    ) -> Result<(), Discard> {
        let bytes = packet.len();
        if packet.stream().is_some() {
            self.stream_bytes += bytes;
            self.stream_pkts += 1;
        } else if bytes.saturating_add(PACKET_OVERHEAD_BYTES) > self.config.bytes_max {
            self.discards.count(Discard::QueueFull);
            return Err(Discard::QueueFull);
        }
        if let Some(packet) = self.follow(flow, class, packet, now) {
            self.table.forget_idle(now);
            if let Some(packet) = self.replace_ack(flow, packet, now) {
                let tier = self.admit(flow, class, bytes, now);
                let queue = self.table.listed_mut(flow);
                queue.packets.push_back(Waiting { packet, arrived: now });
                queue.bytes += bytes;
                self.tiers.of_mut(tier).bytes += bytes;
                self.count_pkts += 1;
            }
        }
        while self.memory_bytes() > self.config.bytes_max {
            self.drop_from_fattest(now);
        }
        Ok(())
    }

    /// The short way for the next packet cut from one super-packet: its flow is bulk, has packets
    /// waiting, and has earned its credit at this moment already. [`Self::admit`] would only spend
    /// what credit is left. Returns the packet if it cannot take the short way.
    fn follow(
        &mut self,
        id: FlowId,
        class: Option<Class>,
        packet: PacketBuf,
        now: Instant,
    ) -> Option<PacketBuf> {
        // A realtime flow's burst changes with the number of flows; an acknowledgement may replace
        // another.
        let is_apart = id.is_realtime() || packet.len() <= ACK_BYTES_MAX;
        let follows = |flow: &&mut Flow| {
            matches!(flow.tier, Tier::Bulk | Tier::Far)
                && !flow.packets.is_empty()
                && flow.credit.has_earned(now)
        };
        let Some(flow) = self.table.flow_mut(id).filter(|_| !is_apart).filter(follows) else {
            return Some(packet);
        };
        let bytes = packet.len();
        if class != Some(Class::Bulk) {
            // The result does not matter: the flow is bulk already.
            let _ = flow.credit.try_spend(bytes, &mut self.pool, now);
        }
        if class != Some(Class::Interactive) {
            flow.bulk_bytes = flow.bulk_bytes.saturating_add(bytes as u64);
        }
        flow.packets.push_back(Waiting { packet, arrived: now });
        flow.bytes += bytes;
        let tier = flow.tier;
        self.tiers.of_mut(tier).bytes += bytes;
        self.count_pkts += 1;
        None
    }

    /// Replaces the last packet of a flow by an acknowledgement that makes it needless
    /// ([`super::ack`]), unless it is the flow's first. At most two acknowledgements of a flow wait
    /// then, however slow the preferred link is. Returns the packet if it replaces none. Measured:
    /// docs/decisions/0074-acknowledgements.md.
    fn replace_ack(&mut self, id: FlowId, packet: PacketBuf, now: Instant) -> Option<PacketBuf> {
        // The bytes of a stream may look like a packet.
        let is_short = packet.len() <= ACK_BYTES_MAX && packet.stream().is_none();
        let flow = self.table.flow_mut(id).filter(|flow| flow.packets.len() > 1 && is_short);
        let Some(flow) = flow else { return Some(packet) };
        let last = flow.packets.back_mut().filter(|last| supersedes(&packet, &last.packet));
        let Some(last) = last else { return Some(packet) };
        let (bytes, less_bytes, tier) = (packet.len(), last.packet.len(), flow.tier);
        *last = Waiting { packet, arrived: now };
        flow.bytes = flow.bytes - less_bytes + bytes;
        let state = self.tiers.of_mut(tier);
        state.bytes = state.bytes - less_bytes + bytes;
        self.discards.count(Discard::AckSuperseded);
        None
    }

    /// The next packet of `tier`. Does not remove it: the same packet is shown again until then
    /// (the module's head names the exceptions). May drop or mark packets ahead of it.
    pub fn head(&mut self, tier: Tier, now: Instant) -> Option<Queued> {
        self.table.forget_idle(now);
        let id = self.choose_head(tier, now)?;
        let flow = self.table.flow(id)?;
        let waiting = flow.packets.front()?;
        let backlog_bytes = match tier {
            Tier::Realtime => self.tiers.of(Tier::Realtime).bytes,
            Tier::Sparse if flow.is_fresh() => self.tiers.of(Tier::Realtime).bytes + self.fresh_bytes,
            Tier::Sparse => self.tiers.of(Tier::Realtime).bytes + self.tiers.of(Tier::Sparse).bytes,
            Tier::Bulk => self.tiers.bytes() - self.tiers.of(Tier::Far).bytes,
            Tier::Far => self.tiers.of(Tier::Far).bytes,
        };
        let demand = Demand {
            bulk_bytes: flow.bulk_bytes,
            has_returned: flow.has_returned,
            near_flows: self.table.waiting_count(Tier::Bulk),
            far_flows: self.table.far_count(),
        };
        Some(Queued {
            flow: id,
            bytes: waiting.packet.len(),
            tier,
            backlog_bytes,
            waited: now.saturating_since(waiting.arrived),
            demand,
        })
    }

    /// Removes the packet that [`Self::head`] shows.
    pub fn pop(&mut self, tier: Tier, now: Instant) -> Option<(FlowId, PacketBuf)> {
        let id = self.choose_head(tier, now)?;
        let packet = self.remove_first(id, now)?;
        self.tiers.of_mut(tier).waits.end(now);
        // A flow that ran empty starts its next round with a fresh quantum anyway.
        let flow = self.table.listed_mut(id);
        flow.deficit_bytes = flow.deficit_bytes.saturating_sub(signed(packet.len()));
        Some((id, packet))
    }

    /// Moves a bulk flow that has packets waiting to far links (`to` [`Tier::Far`]) or back
    /// ([`Tier::Bulk`], for good). Any other flow stays.
    pub fn relocate(&mut self, id: FlowId, to: Tier) {
        let Some(flow) = self.table.flow_mut(id).filter(|flow| !flow.packets.is_empty()) else { return };
        match (flow.tier, to) {
            (Tier::Bulk, Tier::Far) => {}
            (Tier::Far, Tier::Bulk) => flow.has_returned = true,
            _ => return,
        }
        self.change_tier(id, to);
    }

    /// Whether a flow was moved to far links, and had packets in the last second.
    pub fn is_far(&self, id: FlowId) -> bool {
        self.table.far_count() != 0 && self.table.flow(id).is_some_and(|flow| flow.tier == Tier::Far)
    }

    /// Cuts the piece of a stream at the head of `tier` so that its first part has `bytes`.
    pub(crate) fn cut_head(&mut self, tier: Tier, bytes: usize, now: Instant) {
        let Some(id) = self.choose_head(tier, now) else { return };
        let flow = self.table.listed_mut(id);
        let is_fresh = flow.is_fresh();
        let Some(head) = flow.packets.front_mut() else { return };
        let Some(first) = head.packet.split_to(bytes) else { return };
        let arrived = head.arrived;
        if is_fresh {
            self.fresh_bytes -= head.packet.len();
        }
        flow.packets.push_front(Waiting { packet: first, arrived });
        self.count_pkts += 1;
        self.stream_pkts += 1;
    }

    /// Drops what waits of a stream.
    pub(crate) fn forget_stream(&mut self, stream: StreamId, now: Instant) {
        let id = FlowId::of_stream(stream);
        let Some(flow) = self.table.flow_mut(id).filter(|flow| !flow.packets.is_empty()) else { return };
        let waiting = flow.packets.len();
        // In turn each: the order of the others stays.
        for _ in 0..waiting {
            let front = self.table.flow(id).and_then(|flow| flow.packets.front());
            if front.is_some_and(|front| front.packet.stream() == Some(stream)) {
                self.remove_first(id, now);
            } else if let Some(flow) = self.table.flow_mut(id) {
                flow.packets.rotate_left(1);
            }
        }
    }

    /// Drops the messages about streams that wait.
    pub(crate) fn forget_messages(&mut self, now: Instant) {
        while self.table.flow(FlowId::MESSAGES).is_some_and(|flow| !flow.packets.is_empty()) {
            self.remove_first(FlowId::MESSAGES, now);
        }
    }

    /// [`Self::pop`], then [`Self::head`] of the same tier if `shows_next`.
    pub fn advance(
        &mut self,
        tier: Tier,
        shows_next: bool,
        now: Instant,
    ) -> Option<(FlowId, PacketBuf, Option<Queued>)> {
        let (flow, packet) = self.pop(tier, now)?;
        let next = if shows_next { self.head(tier, now) } else { None };
        Some((flow, packet, next))
    }

    /// Notes that `tier` waits on purpose for a faster link from `from` until `until`: CoDel does
    /// not count that time. The wait may be reported ahead, in pieces, repeatedly and with
    /// overlaps, but in the order of time. A `pop` ends a wait that was reported ahead.
    pub fn on_deliberate_wait(&mut self, tier: Tier, from: Instant, until: Instant) {
        self.tiers.of_mut(tier).waits.add(from, until);
    }

    /// Sets the sum of the links' rates; `None` or zero while it is not known. `is_starting`: at
    /// least one link is in use and its rate estimate still grows.
    pub fn set_drain_rate(&mut self, rate: Option<BitRate>, is_starting: bool) {
        let rate = rate.filter(|rate| rate.as_bps() > 0);
        self.delay.set_drain_rate(&self.config, rate, is_starting);
        self.pool.set_drain_rate(rate);
    }

    /// Sets the links' delays: the backlog that is worth keeping for slower, varying or failed
    /// links, as a time, and the round-trip time of the slowest link in use; of near links, and of
    /// far ones.
    pub fn set_delays(&mut self, near: Delays, far: Delays) {
        self.delay.set_delays(&self.config, near, far);
    }

    /// Which tiers have packets waiting, in the order of [`Tier::ALL`]. Forgets the flows that have
    /// been idle for a second, as [`Self::push`] and [`Self::head`] do: to be called now and then
    /// while the queue is empty.
    pub fn waiting(&mut self, now: Instant) -> [bool; Tier::ALL.len()] {
        self.table.forget_idle(now);
        Tier::ALL.map(|tier| self.tiers.of(tier).bytes > 0)
    }

    /// Whether no packet waits.
    pub fn is_empty(&self) -> bool {
        self.count_pkts == 0
    }

    /// Bytes of waiting packets, without overhead.
    pub fn bytes(&self) -> usize {
        self.tiers.bytes()
    }

    /// Flows that have packets waiting, or had some in the second before the last
    /// [`Self::waiting`].
    pub fn flows_active(&self) -> usize {
        self.table.count()
    }

    /// How long the oldest packet has waited. Walks over all flows with packets: for statistics,
    /// not for every packet.
    pub fn oldest_wait(&self, now: Instant) -> Duration {
        Tier::ALL
            .into_iter()
            .flat_map(|tier| self.table.iter(tier))
            .filter_map(|(_, flow)| flow.packets.front())
            .map(|waiting| now.saturating_since(waiting.arrived))
            .max()
            .unwrap_or_default()
    }

    /// A flow's tier, how long its first packet has waited, and how many bytes wait; `None`: it has
    /// had none for a second. For figures.
    pub(crate) fn waiting_of(&self, id: FlowId, now: Instant) -> Option<(Tier, Duration, usize)> {
        let flow = self.table.flow(id)?;
        let waited = flow.packets.front().map(|first| now.saturating_since(first.arrived));
        Some((flow.tier, waited.unwrap_or_default(), flow.bytes))
    }

    /// Packets marked CE so far.
    pub fn marked_pkts(&self) -> u64 {
        self.marked_pkts
    }

    /// Packets dropped since the last call: [`Discard::QueueFull`], [`Discard::QueueDelay`] and
    /// [`Discard::AckSuperseded`].
    pub fn take_discards(&mut self) -> DiscardCounts {
        std::mem::take(&mut self.discards)
    }

    /// The memory that counts towards the bound.
    fn memory_bytes(&self) -> usize {
        let (bytes, pkts) = (self.bytes() - self.stream_bytes, self.count_pkts - self.stream_pkts);
        bytes + pkts * PACKET_OVERHEAD_BYTES
    }

    /// Pays for a packet that is about to join `id`, and puts the flow on its list. Returns the
    /// packet's tier.
    fn admit(&mut self, id: FlowId, class: Option<Class>, bytes: usize, now: Instant) -> Tier {
        self.table.flow_or_new(id, now);
        let (flows, realtime) = (self.table.count(), self.table.realtime_count());
        let flow = self.table.listed_mut(id);
        let was_idle = flow.packets.is_empty();
        let earning = if id.is_realtime() {
            self.pool.realtime(realtime)
        } else if class == Some(Class::Interactive) {
            self.pool.interactive(flows, now)
        } else {
            self.pool.sparse(flows, now)
        };
        flow.credit.earn(now, &earning);
        let tier_before = flow.tier;
        let mut tier = tier_before;
        // What is under way over far links would be overtaken.
        let is_far = tier_before == Tier::Far;
        if was_idle && flow.credit.has_recovered(&earning) && !is_far {
            tier = Tier::best(id);
        }
        let is_covered = class != Some(Class::Bulk) && flow.credit.try_spend(bytes, &mut self.pool, now);
        if (!is_covered || flow.bytes + bytes > earning.burst_bytes()) && !is_far {
            tier = Tier::Bulk;
        }
        if tier == Tier::Sparse {
            flow.bulk_bytes = 0;
        } else if class != Some(Class::Interactive) {
            flow.bulk_bytes = flow.bulk_bytes.saturating_add(bytes as u64);
        }
        if tier == Tier::Realtime {
            self.pool.on_realtime(bytes, now);
        }
        if was_idle {
            flow.deficit_bytes = signed(self.config.quantum);
            match tier {
                Tier::Sparse => {
                    self.fresh_bytes += bytes;
                    self.table.move_to_fresh(id);
                }
                Tier::Realtime | Tier::Bulk | Tier::Far => self.table.move_to_tier(id, tier),
            }
        } else if tier != tier_before {
            self.change_tier(id, tier);
        }
        tier
    }

    /// Moves a flow with packets to another tier.
    fn change_tier(&mut self, id: FlowId, tier: Tier) {
        let flow = self.table.listed_mut(id);
        let (before, moved_bytes) = (flow.tier, flow.bytes);
        if flow.is_fresh() {
            self.fresh_bytes -= flow.packets.front().map_or(0, |first| first.packet.len());
        }
        if self.table.first(before) == Some(id) {
            self.tiers.of_mut(before).has_head = false;
        }
        self.table.move_to_tier(id, tier);
        self.tiers.of_mut(before).bytes -= moved_bytes;
        self.tiers.of_mut(tier).bytes += moved_bytes;
    }

    /// Chooses the flow whose first packet is the tier's next: deficit round robin, then CoDel. A
    /// fresh flow's packet is next without either: no queue of its own waits before it.
    #[inline]
    fn choose_head(&mut self, tier: Tier, now: Instant) -> Option<FlowId> {
        if tier == Tier::Sparse
            && let Some(fresh) = self.table.first_fresh()
        {
            return Some(fresh);
        }
        let first = self.table.first(tier)?;
        if self.tiers.of(tier).has_head { Some(first) } else { self.choose_new_head(tier, now) }
    }

    /// The same for a tier whose head is not chosen.
    #[inline(never)]
    fn choose_new_head(&mut self, tier: Tier, now: Instant) -> Option<FlowId> {
        let quantum = signed(self.config.quantum);
        let id = loop {
            let id = self.table.first(tier)?;
            let flow = self.table.listed_mut(id);
            if flow.deficit_bytes > 0 {
                break id;
            }
            flow.deficit_bytes = flow.deficit_bytes.saturating_add(quantum);
            if flow.is_alone() {
                continue;
            }
            self.table.move_to_tier(id, tier);
        };
        while !self.has_passed_codel(id, tier, now) {}
        self.tiers.of_mut(tier).has_head = true;
        Some(id)
    }

    /// Judges the first packet of `id`. `false`: the packet was dropped, and the next packet is
    /// first. CoDel never drops a flow's last packet, so there is a next one.
    fn has_passed_codel(&mut self, id: FlowId, tier: Tier, now: Instant) -> bool {
        let params = self.delay.params(tier);
        let flow = self.table.listed_mut(id);
        let Some(waiting) = flow.packets.front() else { return true };
        if waiting.packet.stream().is_some() {
            return true;
        }
        let waited = now.saturating_since(waiting.arrived);
        // Below the target the deliberate part of the wait does not matter.
        let on_purpose = if waited < params.target {
            Duration::ZERO
        } else {
            self.tiers.of(tier).waits.between(waiting.arrived, now)
        };
        let sojourn = waited.saturating_sub(on_purpose);
        let behind_bytes = flow.bytes - waiting.packet.len();
        if flow.codel.judge(now, sojourn, behind_bytes, params) == Verdict::Pass {
            return true;
        }
        let Some(Waiting { packet, arrived }) = flow.packets.pop_front() else { return true };
        match ecn::mark_ce(packet) {
            Ok(packet) => {
                flow.packets.push_front(Waiting { packet, arrived });
                self.marked_pkts += 1;
                true
            }
            Err(packet) => {
                flow.packets.push_front(Waiting { packet, arrived });
                self.remove_first(id, now);
                self.discards.count(Discard::QueueDelay);
                false
            }
        }
    }

    /// Removes the first packet of a flow, and updates counters and lists.
    fn remove_first(&mut self, id: FlowId, now: Instant) -> Option<PacketBuf> {
        let flow = self.table.listed_mut(id);
        let packet = flow.packets.pop_front()?.packet;
        flow.bytes -= packet.len();
        if packet.stream().is_some() {
            self.stream_bytes -= packet.len();
            self.stream_pkts -= 1;
        }
        let (tier, was_fresh, is_last) = (flow.tier, flow.is_fresh(), flow.packets.is_empty());
        let is_first = self.table.first(tier) == Some(id);
        let state = self.tiers.of_mut(tier);
        state.bytes -= packet.len();
        state.has_head &= !is_first;
        self.count_pkts -= 1;
        if was_fresh {
            self.fresh_bytes -= packet.len();
        }
        if is_last {
            self.table.move_to_idle(id, now);
        } else if was_fresh {
            self.table.move_to_tier(id, Tier::Sparse);
        }
        Some(packet)
    }

    /// Drops a batch from the head of the flow that holds the most memory: at most half of what it
    /// holds. Of equals, the first in line. The search is the only walk over all flows on the
    /// packet path.
    fn drop_from_fattest(&mut self, now: Instant) {
        let mut fattest = None;
        let mut most_bytes = 0;
        let flows = Tier::ALL.into_iter().rev().flat_map(|tier| self.table.iter(tier));
        for (id, flow) in flows.filter(|(id, _)| !id.is_stream()) {
            let held_bytes = flow.bytes + flow.packets.len() * PACKET_OVERHEAD_BYTES;
            if held_bytes > most_bytes {
                (fattest, most_bytes) = (Some(id), held_bytes);
            }
        }
        let id = fattest.expect("a full queue has a flow with packets");
        let mut freed_bytes = 0;
        let mut dropped_pkts = 0;
        while dropped_pkts < DROP_BATCH_PKTS && freed_bytes < most_bytes / 2 {
            let Some(packet) = self.remove_first(id, now) else { break };
            freed_bytes += packet.len() + PACKET_OVERHEAD_BYTES;
            dropped_pkts += 1;
            self.discards.count(Discard::QueueFull);
        }
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
