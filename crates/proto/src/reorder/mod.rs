//! Per-flow resequencing: inner packets leave in the order in which they were sent, whatever the links' delays.
//!
//! # What comes in
//! The sender numbers packets at the moment of sending. A 64-bit sequence number is a *slot* (upper 16 bits: a flow
//! or a group of flows) and a *counter* in that slot (lower 48 bits, wrapping). So within a slot the order of
//! counters is the order of sending across all links. Each link is nearly first-in first-out; links differ in delay.
//! Slots are independent: a gap in one never delays a packet of another. Slot 0, the one sequence of a plain peer,
//! is a slot like any other.
//!
//! # When a packet leaves
//! `next` is a slot's lowest counter that was neither handed out nor given up. A packet with that counter leaves at
//! once. A higher one is held: between `next` and the first held packet is the *gap*. The gap is given up, and the
//! run of packets behind it leaves, as soon as **every usable link has passed it**. Link L has passed it
//!
//! 1. *by knowledge*, when 3 packets of this slot sent later have arrived on L, or when one has and 2 ms have gone
//!    by since: a first-in first-out link does not deliver the missing ones any more;
//! 2. *by time*, from the arrival of the first held packet F plus how much longer L takes than F's link
//!    (`max(0, delay of L − delay of F's link)`) plus 4 × the jitter of L plus 30 ms: had L carried the missing
//!    packets, sent before F, they would be here. This is what decides for a link that carried nothing of this slot
//!    lately. It is also what protects the first packets on a link that has just been added and is slow: fast
//!    links passing them proves nothing.
//!
//! Where the sender sends losses again, a link has not passed a gap before what it may have lost had time to come again:
//! until the arrival of F plus how much longer L takes plus `LinkDelay::resend`, which covers two rounds of loss,
//! feedback and resend. Most gaps are filled long before that.
//!
//! A link that is not usable counts as having passed, so a dead link's gaps wait only for resends over the others. If no link is
//! usable nothing is known, and only the cap counts: **no packet is held longer than `hold_max`**, or 300 ms where losses are sent
//! again, after it arrived
//! (counted from the oldest arrival that is held). After a release the rules are applied to the next gap with the
//! arrivals already noted. Only differences of delays are used: an offset common to all links cancels.
//!
//! # What arrives behind `next`
//! Which of the last 1,024 counters were handed out is remembered. One that had been given up leaves at once, out
//! of order (`released_late`); one that had left is a [`Discard::Duplicate`]; one further back is
//! [`Discard::Stale`].
//!
//! # What is to be delivered at once
//! A packet that its sender marked so leaves when it arrives, unless it left before: the gap below it is given up without being counted,
//! and what was held there goes first. What is missing there and comes after all leaves at once, too (`released_late`). Senders count such packets in slots of their own, where nothing else waits.
//!
//! # Classes
//! What must not wait is delivered at once: what is realtime, and acknowledgements that carry nothing else. All else waits alike. A shorter hold for traffic that is merely light was considered (25 ms): where losses
//! are sent again it would have to wait for them all the same, and light traffic goes over one link, so that nothing else than a loss makes a gap in it.
//!
//! # A slot's states
//! ```text
//!              first packet: counter < 64 → next = 0, else next = counter
//!                                │
//!       10 s without progress    ▼        packet above next
//!  dormant ◄─────────────── in order ───────────────────────► holding
//!     │                        ▲  ▲                              │
//!     └────────────────────────┘  └──────────────────────────────┘
//!             any packet             gaps filled or given up
//! ```
//! A dormant slot is only its position; what comes from behind it is stale. A packet more than the window ahead of
//! all that was seen is [`Discard::OutOfWindow`]. Four misplaced packets without one in place between them, each
//! above the one before and all within 1,024 of the first, are a sender that started anew without saying so: the
//! slot goes to the fourth. It goes back only after 2 s without progress, because until then what looks like a new
//! sequence may be copies that a slow link still carries.
//!
//! # Bounds
//! Held memory (packets, ring places, noted arrivals) stays within `bytes_max`; when it would not, the oldest gaps of
//! the slot that uses most are given up until an eighth is free again. A slot spans at most `slot_packets_max`
//! counters; a packet beyond pushes out the oldest gaps. Of `slots_max` slots the one longest without progress
//! that holds nothing makes room for a new one; what was then forgotten cannot be recognised as a duplicate, so a
//! slot made after that counts everything behind its first packet as stale.
//!
//! # What it does not know
//! Why a packet is late, what is inside it, whether a resend is under way, where delays come from. It reads no clock.
//! Its results do not depend on the order of the links.
//!
//! # Sources
//! RFC 9002 §6.1 (packet and time thresholds: loss is what later arrivals prove), RFC 6298 (4 × variation), RFC 1982
//! (serial numbers), RFC 4303 appendix A2 (windowed duplicate memory); MLVPN issues 61 and 64 for what one global order
//! does to unrelated flows.

mod hold;
mod slot;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::discard::Discard;
use crate::limits::HOLD_MAX;
use crate::packet::{LinkId, PacketBuf};
use crate::time::Instant;
use slot::{Filed, Shared, Slot};

/// After so long without progress a slot's memory of duplicates is dropped: no link delivers that late.
const DORMANT_AFTER: Duration = Duration::from_secs(10);
/// Slots fall dormant in batches, so that an idle session wakes rarely.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Bounds of a [`Resequencer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory of everything held, in bytes: payloads and what it takes to keep track of them.
    pub bytes_max: usize,
    /// Counters that one slot may span while it holds, in packets.
    pub slot_packets_max: usize,
    /// Slots remembered.
    pub slots_max: usize,
    /// How long a packet may be held.
    pub hold_max: Duration,
}

impl Default for Limits {
    /// Enough for 700 Mbit/s in 1,400-byte packets with 150 ms of skew.
    fn default() -> Self {
        Self { bytes_max: 16 << 20, slot_packets_max: 16_384, slots_max: 4_096, hold_max: HOLD_MAX }
    }
}

/// What the resequencer needs to know about a link; links are given as a slice by [`LinkId::index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkDelay {
    /// Whether it may still deliver.
    pub usable: bool,
    /// One-way delay in µs with an unknown offset common to all links of the session: only differences matter.
    pub delay_us: i64,
    /// Mean deviation of that delay, in µs.
    pub jitter_us: u32,
    /// How much later than on this link what it lost may come, sent again; zero: it does not come again.
    pub resend: Duration,
}

/// Figures of a [`Resequencer`]. All but the first two are totals since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReorderStats {
    /// Packets held now.
    pub held: usize,
    /// Their payload bytes.
    pub held_bytes: usize,
    /// The most packets ever held.
    pub held_max: usize,
    /// Gaps given up because every usable link had delivered something later.
    pub known_losses: u64,
    /// Gaps given up by time.
    pub timeouts: u64,
    /// Gaps given up for want of room.
    pub overflows: u64,
    /// Packets of gaps that were given up. One that comes after that is in here and in `released_late`.
    pub lost: u64,
    /// Packets handed out after their gap had been given up.
    pub released_late: u64,
    /// Slots that started anew elsewhere in their sequence.
    pub restarts: u64,
    /// Slots forgotten to make room for others.
    pub evictions: u64,
}

/// What a hold takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Load {
    packets: usize,
    payload_bytes: usize,
    memory_bytes: usize,
}

impl Load {
    /// Exchanges one part of the sum for another.
    fn replace(&mut self, before: Self, after: Self) {
        self.packets = self.packets - before.packets + after.packets;
        self.payload_bytes = self.payload_bytes - before.payload_bytes + after.payload_bytes;
        self.memory_bytes = self.memory_bytes - before.memory_bytes + after.memory_bytes;
    }
}

/// All that is kept of a dormant slot. Packed: thousands of them are part of an idle session's memory.
#[derive(Debug, Clone, Copy)]
#[repr(Rust, packed(4))]
struct Dormant {
    next: u64,
    /// Last progress, in whole seconds.
    seen_s: u32,
}

/// The receiver's resequencer of one session. See the module.
#[derive(Debug)]
pub struct Resequencer {
    limits: Limits,
    live: BTreeMap<u16, Slot>,
    dormant: BTreeMap<u16, Dormant>,
    /// The live slots that hold nothing, by a time of progress that may be older than the true one, never newer.
    idle: BTreeSet<(Instant, u16)>,
    /// The slots that hold packets, by when their gap is lost.
    holding: BTreeSet<(Instant, u16)>,
    /// What all slots together hold.
    load: Load,
    shared: Shared,
    /// The last look for slots to put to sleep.
    swept: Instant,
}

impl Resequencer {
    /// Holds nothing, knows no slot.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            live: BTreeMap::new(),
            dormant: BTreeMap::new(),
            idle: BTreeSet::new(),
            holding: BTreeSet::new(),
            load: Load::default(),
            shared: Shared {
                window: limits.slot_packets_max.max(1) as u64,
                hold_max: limits.hold_max,
                stats: ReorderStats::default(),
                spare: Vec::new(),
            },
            swept: Instant::ZERO,
        }
    }

    /// Takes one packet that arrived on `link`; appends to `out` what may leave now, this packet among it or not.
    ///
    /// `seq` is the whole sequence number. `Err`: the packet is not wanted; others may have been appended all the same,
    /// because a copy too tells that its link has passed a gap.
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

    /// Takes one packet that is to be delivered at once. What was held for those before it goes first: a slot in which all packets are
    /// urgent never holds any.
    pub fn on_urgent_packet(
        &mut self,
        seq: u64,
        packet: PacketBuf,
        now: Instant,
        out: &mut VecDeque<PacketBuf>,
    ) -> Result<(), Discard> {
        self.take(seq, packet, None, now, out)
    }

    /// `arrival`: the link it came on, if any, and all links; `None`: it waits for nothing.
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
        let result = match arrival {
            Some((link, links)) => slot.accept(counter, (link, now), packet, links, &mut self.shared, out),
            None => slot.accept_urgent(counter, packet, now, &mut self.shared, out),
        };
        self.load.replace(before, slot.load());
        refile(key, slot, &mut self.idle, &mut self.holding);
        if let Some((_, links)) = arrival
            && self.load.memory_bytes > self.limits.bytes_max
        {
            self.shed(links, now, out);
        }
        self.shared.stats.held_max = self.shared.stats.held_max.max(self.load.packets);
        result
    }

    /// Takes a packet that was computed from others: no link delivered it, so it tells nothing about any.
    pub fn on_restored_packet(
        &mut self,
        seq: u64,
        packet: PacketBuf,
        links: &[LinkDelay],
        now: Instant,
        out: &mut VecDeque<PacketBuf>,
    ) -> Result<(), Discard> {
        // Others of the slot came before.
        if !self.live.contains_key(&split(seq).0) {
            return Err(Discard::Stale);
        }
        self.take(seq, packet, Some((None, links)), now, out)
    }

    /// To be called when a link became usable or not, or its delay changed: a dead link releases its gaps.
    pub fn on_links_changed(&mut self, links: &[LinkDelay], now: Instant, out: &mut VecDeque<PacketBuf>) {
        let keys: Vec<u16> = self.holding.iter().map(|&(_, key)| key).collect();
        for key in keys {
            self.settle(key, links, now, out);
        }
    }

    /// To be called when [`Self::poll_timeout`] is due; early or late calls do no harm.
    pub fn on_timeout(&mut self, links: &[LinkDelay], now: Instant, out: &mut VecDeque<PacketBuf>) {
        while let Some(&(deadline, key)) = self.holding.first() {
            if now < deadline {
                break;
            }
            self.settle(key, links, now, out);
        }
        if self.sweep_due().is_some_and(|due| due <= now) {
            self.sweep(now);
        }
    }

    /// When [`Self::on_timeout`] is due. After it was called with `now`, this is later than `now`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lost = self.holding.first().map(|&(deadline, _)| deadline);
        lost.into_iter().chain(self.sweep_due()).min()
    }

    /// The peer restarted: hands out everything held, each slot in order, and forgets all slots.
    pub fn reset(&mut self, out: &mut VecDeque<PacketBuf>) {
        for slot in self.live.values_mut() {
            slot.flush(&mut self.shared, out);
        }
        self.live.clear();
        self.dormant.clear();
        self.idle.clear();
        self.holding.clear();
        self.load = Load::default();
        self.shared.spare = Vec::new();
    }

    /// The figures now.
    pub fn stats(&self) -> ReorderStats {
        ReorderStats { held: self.load.packets, held_bytes: self.load.payload_bytes, ..self.shared.stats }
    }

    /// The state of a slot that is not live, for the caller to put among the live ones.
    fn open(&mut self, key: u16, wire: u64, now: Instant, out: &mut VecDeque<PacketBuf>) -> Slot {
        let slot = if let Some(dormant) = self.dormant.remove(&key) {
            Slot::awake(dormant.next, now)
        } else {
            if self.live.len() + self.dormant.len() >= self.limits.slots_max.max(1) {
                self.evict(out);
            }
            Slot::fresh(wire, self.shared.stats.evictions > 0, now)
        };
        self.idle.insert((now, key));
        slot
    }

    /// Forgets the slot that is longest without progress. If all slots hold, the one whose gap is lost first.
    fn evict(&mut self, out: &mut VecDeque<PacketBuf>) {
        self.shared.stats.evictions += 1;
        // A scan, but rare: each slot here has cost its sender 10 s of silence.
        let longest = self.dormant.iter().min_by_key(|(_, dormant)| dormant.seen_s).map(|(&key, _)| key);
        if let Some(key) = longest {
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
            slot.flush(&mut self.shared, out);
        }
    }

    fn settle(&mut self, key: u16, links: &[LinkDelay], now: Instant, out: &mut VecDeque<PacketBuf>) {
        let Some(slot) = self.live.get_mut(&key) else { return };
        let before = slot.load();
        slot.settle(links, now, &mut self.shared, out);
        self.load.replace(before, slot.load());
        refile(key, slot, &mut self.idle, &mut self.holding);
    }

    /// Gives up the oldest gap of whoever uses most memory, again and again, until an eighth of the bound is free:
    /// the search for the largest is then paid for by the packets that fill it again.
    fn shed(&mut self, links: &[LinkDelay], now: Instant, out: &mut VecDeque<PacketBuf>) {
        let target = self.limits.bytes_max - self.limits.bytes_max / 8;
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
            slot.give_up_gap(&mut self.shared, out);
            slot.settle(links, now, &mut self.shared, out);
            self.shared.stats.overflows += 1;
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

    /// Puts slots to sleep. Looks at a slot at most once for each time that it made progress.
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
                    self.live.remove(&key);
                }
                None => {}
            }
        }
        if self.holding.is_empty() {
            self.shared.spare = Vec::new();
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

/// Puts a slot into the list that it belongs to. An idle slot that stays idle is not moved: see
/// [`Resequencer::idle`].
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
