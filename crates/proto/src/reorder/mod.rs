//! Per-flow resequencing: inner packets leave in the order of sending, whatever the links' delays.
//!
//! The sender numbers packets when it sends them. A sequence number is a *slot* (upper 16 bits: a
//! flow or a group of flows) and a *counter* within the slot (lower 48 bits, wrapping). The
//! counters of a slot therefore have the order of sending across all links. Slots are independent:
//! a gap in one never delays a packet of another. Slot 0, a plain peer's one sequence, is no
//! exception.
//!
//! A packet that is next leaves at once. A later packet is held, until the *gap* before it is
//! filled or given up. `hold` has the rules for giving a gap up, `slot` those for packets behind
//! the position and for a sender that starts anew.
//!
//! A packet that its sender marked for delivery at once leaves when it arrives. The gap below it is
//! given up without being counted, and the packets held there leave first. Senders count such
//! packets in slots of their own. Why no shorter hold for light traffic:
//! docs/decisions/0075-one-hold-for-all-traffic.md.
//!
//! # Bounds
//! Held memory (packets, pages, noted arrivals) stays within `bytes_max`. Above it, the slot that
//! uses most gives up its oldest gaps until an eighth is free again. A slot spans at most
//! `slot_packets_max` counters; a packet beyond pushes out the oldest gaps. Of `slots_max` slots
//! the one longest without progress that holds nothing makes room for a new slot. Work follows the
//! bytes received, not the numbers in them.
//!
//! # Contract
//! The resequencer does not know why a packet is late, packets' contents, whether a resend is
//! under way, or where delays come from. Its results do not depend on the order of the links.
//!
//! Sources: RFC 1982 (serial numbers); MLVPN issues 61 and 64 (one global order delays unrelated
//! flows).

mod delay;
mod figures;
mod hold;
mod places;
mod review;
mod slot;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::discard::Discard;
use crate::limits::HOLD_MAX;
use crate::packet::{LinkId, PacketBuf};
use crate::time::Instant;
use crate::trace::{HoldTracer, Input};
pub use delay::LinkDelay;
use figures::Load;
pub use figures::ReorderStats;
use review::Review;
use slot::{Common, Filed, Slot};

/// After this long without progress a slot's memory of duplicates is dropped. Chosen: no link
/// delivers that late.
const DORMANT_AFTER: Duration = Duration::from_secs(10);
/// Slots become dormant in batches. Chosen: an idle session wakes once a second at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Bounds of a [`Resequencer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory of all held packets, in bytes: payloads and bookkeeping.
    pub bytes_max: usize,
    /// The most counters that one slot may span while it holds packets.
    pub slot_packets_max: usize,
    /// The most slots remembered.
    pub slots_max: usize,
    /// The longest hold of a packet.
    pub hold_max: Duration,
}

impl Default for Limits {
    /// Enough for 700 Mbit/s in 1,400-byte packets with 150 ms of skew.
    fn default() -> Self {
        Self { bytes_max: 16 << 20, slot_packets_max: 16_384, slots_max: 4_096, hold_max: HOLD_MAX }
    }
}

/// The record of a dormant slot. Packed: an idle session keeps thousands of them.
#[derive(Debug, Clone, Copy)]
#[repr(Rust, packed(4))]
struct Dormant {
    next: u64,
    /// Last progress, in whole seconds.
    seen_s: u32,
}

/// The receiver's resequencer of one session.
#[derive(Debug)]
pub struct Resequencer {
    limits: Limits,
    live: BTreeMap<u16, Slot>,
    dormant: BTreeMap<u16, Dormant>,
    /// The dormant slots, by the time of their last progress.
    ages: BTreeSet<(u32, u16)>,
    /// The live slots without held packets, by the time of their progress. The listed time may be
    /// older than the true time, never newer.
    idle: BTreeSet<(Instant, u16)>,
    /// The slots with held packets, by the deadline of their gap.
    holding: BTreeSet<(Instant, u16)>,
    /// The sum over all slots.
    load: Load,
    common: Common,
    review: Review,
    /// Whether a slot was forgotten that its sender goes on counting.
    has_evicted: bool,
    /// The time of the last sweep for slots that become dormant.
    swept: Instant,
    tracer: HoldTracer,
}

impl Resequencer {
    /// A resequencer without slots.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            live: BTreeMap::new(),
            dormant: BTreeMap::new(),
            ages: BTreeSet::new(),
            idle: BTreeSet::new(),
            holding: BTreeSet::new(),
            load: Load::default(),
            common: Common {
                window: limits.slot_packets_max.max(1) as u64,
                hold_max: limits.hold_max,
                stats: ReorderStats::default(),
                spare: Vec::new(),
            },
            review: Review::default(),
            has_evicted: false,
            swept: Instant::ZERO,
            tracer: HoldTracer::default(),
        }
    }

    /// The trace of the gaps that are waited for.
    pub(crate) const fn tracer(&mut self) -> &mut HoldTracer {
        &mut self.tracer
    }

    /// Handles a packet that arrived on `link`; appends to `out` the packets that may leave now,
    /// which may include this one.
    ///
    /// `seq` is the whole sequence number. `Err`: the packet is discarded. Others may have been
    /// appended nevertheless, because a copy also shows that its link has passed a gap.
    pub fn on_packet(
        &mut self,
        seq: u64,
        link: LinkId,
        packet: PacketBuf,
        links: &[LinkDelay],
        now: Instant,
        out: &mut VecDeque<PacketBuf>,
    ) -> Result<(), Discard> {
        self.take(seq, packet, Some((Some(link), links)), now, out)
    }

    /// Handles a packet that is to be delivered at once. The packets held before it leave first: a
    /// slot in which all packets are urgent never holds any.
    pub fn on_urgent_packet(
        &mut self,
        seq: u64,
        packet: PacketBuf,
        now: Instant,
        out: &mut VecDeque<PacketBuf>,
    ) -> Result<(), Discard> {
        self.take(seq, packet, None, now, out)
    }

    /// `arrival`: the link that carried the packet, if any, and all links; `None`: the packet is
    /// urgent.
    fn take(
        &mut self,
        seq: u64,
        packet: PacketBuf,
        arrival: Option<(Option<LinkId>, &[LinkDelay])>,
        now: Instant,
        out: &mut VecDeque<PacketBuf>,
    ) -> Result<(), Discard> {
        let (key, wire) = split(seq);
        let slot = match self.live.get_mut(&key) {
            Some(slot) => slot,
            None => {
                let slot = self.open(key, wire, now, out);
                self.live.entry(key).or_insert(slot)
            }
        };
        let counter = slot.widen(wire);
        if slot.advance_in_order(counter, now) {
            out.push_back(packet);
            return Ok(());
        }
        let before = slot.load();
        let traced = self.tracer.before(|| slot.present(&self.common.stats));
        let result = match arrival {
            Some((link, links)) => slot.accept(counter, (link, now), packet, links, &mut self.common, out),
            None => slot.accept_urgent(counter, packet, now, &mut self.common, out),
        };
        self.load.replace(before, slot.load());
        refile(key, slot, &mut self.idle, &mut self.holding);
        let input = arrival.map_or(Input::Urgent(counter), |(link, _)| Input::Packet(link, counter));
        self.tracer.after(traced, key, input, || slot.present(&self.common.stats), now);
        if let Some((_, links)) = arrival
            && self.load.memory_bytes > self.limits.bytes_max
        {
            self.shed_to(self.limits.bytes_max - self.limits.bytes_max / 8, links, now, out);
        }
        self.common.stats.held_max = self.common.stats.held_max.max(self.load.packets);
        result
    }

    /// Handles a packet that was computed from others. No link delivered it, so it shows nothing
    /// about any link.
    pub fn on_restored_packet(
        &mut self,
        seq: u64,
        packet: PacketBuf,
        links: &[LinkDelay],
        now: Instant,
        out: &mut VecDeque<PacketBuf>,
    ) -> Result<(), Discard> {
        // A packet is restored from others of its slot, so the slot exists unless it is too old.
        if !self.live.contains_key(&split(seq).0) {
            return Err(Discard::Stale);
        }
        self.take(seq, packet, Some((None, links)), now, out)
    }

    /// A link became usable or unusable, or its delay changed: a failed link releases its gaps, by
    /// [`Self::review`].
    pub const fn on_links_changed(&mut self) {
        self.review.ask();
    }

    /// To be called after a batch of inputs: looks at all gaps again if links changed since. After
    /// reviews of many slots this may wait for [`Self::on_timeout`].
    pub fn review(&mut self, links: &[LinkDelay], now: Instant, out: &mut VecDeque<PacketBuf>) {
        if !self.review.begin(self.holding.len(), now) {
            return;
        }
        self.common.stats.touched += self.holding.len() as u64;
        let keys: Vec<u16> = self.holding.iter().map(|&(_, key)| key).collect();
        for key in keys {
            self.release_lost(key, links, now, out);
        }
    }

    /// To be called when [`Self::poll_timeout`] is due; early or late calls do no harm.
    pub fn on_timeout(&mut self, links: &[LinkDelay], now: Instant, out: &mut VecDeque<PacketBuf>) {
        self.review(links, now, out);
        while let Some(&(deadline, key)) = self.holding.first() {
            if now < deadline {
                break;
            }
            self.release_lost(key, links, now, out);
        }
        if self.sweep_due().is_some_and(|due| due <= now) {
            self.sweep(now);
        }
    }

    /// When [`Self::on_timeout`] is due. After it was called with `now`, this is later than `now`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lost = self.holding.first().map(|&(deadline, _)| deadline);
        let review = lost.and_then(|_| self.review.due_at());
        lost.into_iter().chain(review).chain(self.sweep_due()).min()
    }

    /// The peer restarted: delivers all held packets, each slot in order, and forgets all slots.
    pub fn reset(&mut self, out: &mut VecDeque<PacketBuf>) {
        for slot in self.live.values_mut() {
            slot.flush(&mut self.common, out);
        }
        self.live.clear();
        self.dormant.clear();
        self.ages.clear();
        self.idle.clear();
        self.holding.clear();
        self.load = Load::default();
        self.has_evicted = false;
        self.common.spare = Vec::new();
        self.tracer.clear();
    }

    /// The current figures.
    pub fn stats(&self) -> ReorderStats {
        ReorderStats { held: self.load.packets, held_bytes: self.load.payload_bytes, ..self.common.stats }
    }

    /// Creates the state of a slot that is not live. The caller adds it to the live slots.
    fn open(&mut self, key: u16, wire: u64, now: Instant, out: &mut VecDeque<PacketBuf>) -> Slot {
        let slot = if let Some(dormant) = self.dormant.remove(&key) {
            self.ages.remove(&(dormant.seen_s, key));
            Slot::awake(dormant.next, now)
        } else {
            if self.live.len() + self.dormant.len() >= self.limits.slots_max.max(1) {
                self.evict(out);
            }
            Slot::fresh(wire, self.has_evicted, now)
        };
        self.idle.insert((now, key));
        slot
    }

    /// Forgets the slot that is longest without progress. If all slots hold packets, the slot with
    /// the earliest deadline.
    fn evict(&mut self, out: &mut VecDeque<PacketBuf>) {
        self.common.stats.evictions += 1;
        self.has_evicted = true;
        if let Some((_, key)) = self.ages.pop_first() {
            self.dormant.remove(&key);
            return;
        }
        while let Some((listed, key)) = self.idle.pop_first() {
            match self.live.get_mut(&key) {
                Some(slot) if slot.seen > listed => relist(key, slot, &mut self.idle),
                Some(_) | None => {
                    self.live.remove(&key);
                    return;
                }
            }
        }
        if let Some((_, key)) = self.holding.pop_first()
            && let Some(mut slot) = self.live.remove(&key)
        {
            self.load.replace(slot.load(), Load::default());
            slot.flush(&mut self.common, out);
        }
    }

    fn release_lost(&mut self, key: u16, links: &[LinkDelay], now: Instant, out: &mut VecDeque<PacketBuf>) {
        let Some(slot) = self.live.get_mut(&key) else { return };
        let before = slot.load();
        let traced = self.tracer.before(|| slot.present(&self.common.stats));
        slot.release_lost(links, now, &mut self.common, out);
        self.load.replace(before, slot.load());
        refile(key, slot, &mut self.idle, &mut self.holding);
        self.tracer.after(traced, key, Input::Time, || slot.present(&self.common.stats), now);
    }

    /// Memory of what is held, bytes.
    pub(crate) const fn memory_bytes(&self) -> usize {
        self.load.memory_bytes
    }

    /// See [`ReorderStats::touched`].
    pub(crate) const fn touched(&self) -> u64 {
        self.common.stats.touched
    }

    /// Gives up the oldest gap of the slot that uses most memory, repeatedly, until no more than
    /// `target` bytes are held. Where the bound was exceeded an eighth of it is free then, and the
    /// packets that fill that eighth again pay for the search for the largest slot.
    pub(crate) fn shed_to(
        &mut self,
        target: usize,
        links: &[LinkDelay],
        now: Instant,
        out: &mut VecDeque<PacketBuf>,
    ) {
        if self.load.memory_bytes <= target {
            return;
        }
        self.common.stats.touched += self.holding.len() as u64;
        let largest = self
            .holding
            .iter()
            .filter_map(|&(_, key)| self.live.get(&key).map(|slot| (slot.load().memory_bytes, key)));
        let mut largest: BinaryHeap<(usize, u16)> = largest.collect();
        while self.load.memory_bytes > target
            && let Some((_, key)) = largest.pop()
            && let Some(slot) = self.live.get_mut(&key)
        {
            let before = slot.load();
            let traced = self.tracer.before(|| slot.present(&self.common.stats));
            slot.give_up_at_once(&mut self.common, out);
            slot.release_lost(links, now, &mut self.common, out);
            self.common.stats.overflows += 1;
            self.tracer.after(traced, key, Input::Time, || slot.present(&self.common.stats), now);
            let after = slot.load();
            self.load.replace(before, after);
            refile(key, slot, &mut self.idle, &mut self.holding);
            if after.packets > 0 {
                largest.push((after.memory_bytes, key));
            }
        }
    }

    fn sweep_due(&self) -> Option<Instant> {
        let &(listed, _) = self.idle.first()?;
        Some((listed + DORMANT_AFTER).max(self.swept + SWEEP_INTERVAL))
    }

    /// Makes slots dormant. Visits a slot at most once for each time that it made progress.
    fn sweep(&mut self, now: Instant) {
        while let Some(&(listed, key)) = self.idle.first()
            && listed + DORMANT_AFTER <= now
        {
            self.idle.pop_first();
            match self.live.get_mut(&key) {
                Some(slot) if slot.seen > listed => relist(key, slot, &mut self.idle),
                Some(slot) => {
                    let seen_s = u32::try_from(slot.seen.as_micros() / 1_000_000).unwrap_or(u32::MAX);
                    self.dormant.insert(key, Dormant { next: slot.next(), seen_s });
                    self.ages.insert((seen_s, key));
                    self.live.remove(&key);
                }
                None => {}
            }
        }
        if self.holding.is_empty() {
            self.common.spare = Vec::new();
        }
        self.swept = now;
    }
}

/// Slot and 48-bit counter of a sequence number.
fn split(seq: u64) -> (u16, u64) {
    ((seq >> 48) as u16, seq & ((1 << 48) - 1))
}

/// Lists an idle slot under its true time of progress.
fn relist(key: u16, slot: &mut Slot, idle: &mut BTreeSet<(Instant, u16)>) {
    slot.filed = Filed::Idle(slot.seen);
    idle.insert((slot.seen, key));
}

/// Puts a slot into its list. An idle slot that stays idle is not moved: see [`Resequencer::idle`].
fn refile(
    key: u16,
    slot: &mut Slot,
    idle: &mut BTreeSet<(Instant, u16)>,
    holding: &mut BTreeSet<(Instant, u16)>,
) {
    let filed = match (slot.deadline(), slot.filed) {
        (Some(deadline), _) => Filed::Holding(deadline),
        (None, Filed::Idle(_)) => return,
        (None, Filed::Holding(_)) => Filed::Idle(slot.seen),
    };
    if filed == slot.filed {
        return;
    }
    match slot.filed {
        Filed::Idle(at) => idle.remove(&(at, key)),
        Filed::Holding(at) => holding.remove(&(at, key)),
    };
    match filed {
        Filed::Idle(at) => idle.insert((at, key)),
        Filed::Holding(at) => holding.insert((at, key)),
    };
    slot.filed = filed;
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod work_tests;
