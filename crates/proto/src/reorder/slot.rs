//! One flow slot: its position, its memory of delivered packets, and its hold while a gap is open.
//!
//! `next` is the lowest counter that was neither delivered nor given up.
//! ```text
//!              first packet: counter < 64 → next = 0, else next = counter
//!                                │
//!       10 s without progress    ▼        packet above next
//!  dormant ◄─────────────── in order ───────────────────────► holding
//!     │                        ▲  ▲                              │
//!     └────────────────────────┘  └──────────────────────────────┘
//!             any packet             gaps filled or given up
//! ```
//! **Behind `next`.** The slot remembers which of the last 1,024 counters were delivered. A packet
//! whose counter was given up leaves at once, out of order (`released_late`). A packet that was
//! delivered is a [`Discard::Duplicate`], one further back is [`Discard::Stale`]. A dormant slot
//! keeps its position only: every packet from behind it is stale.
//!
//! **Restart.** A packet more than the window ahead is [`Discard::OutOfWindow`]. Four misplaced
//! packets without a packet in place between them, each above the one before and all within 1,024
//! of the first, show that the sender started anew: the slot moves to the fourth. It moves back
//! only after 2 s without progress, and only below every counter that it delivered: others may be
//! copies on a slow link. (A new epoch resets all slots; packets of the old run may come after it.)
//!
//! Contract: delivers every counter at most once, in ascending order except late ones. Counters
//! have 48 bits on the wire; here they are widened so that plain comparison orders them
//! ([`Slot::widen`]). A slot does not know other slots or the bounds over all of them.
//!
//! Sources: RFC 1982; RFC 4303 appendix A2 (windowed duplicate memory).

use std::collections::VecDeque;
use std::time::Duration;

use super::delay::LinkDelay;
use super::figures::{Load, ReorderStats};
use super::hold::Hold;
use crate::discard::Discard;
use crate::packet::{LinkId, PacketBuf};
use crate::time::Instant;
use crate::trace::{HoldCounts, Present};

/// Counters below the position whose delivery is remembered. Chosen: 15 ms of 1,400-byte packets at
/// 700 Mbit/s, 1 s at 11 Mbit/s.
const MEMORY: u64 = 1_024;
const WORDS: usize = (MEMORY / 64) as usize;

/// A first counter below this is taken for the start of a sequence whose first packets are still in
/// flight. Chosen: one batch of a link.
const FRESH_START: u64 = 64;

/// This many misplaced packets, each above the one before, make a slot restart. Chosen: more than a
/// few stray copies.
const RESTART_PACKETS: u8 = 4;
/// The most counters from the first of them to the last. Chosen: as many as the slot remembers.
const RESTART_SPREAD: u64 = 1_024;
/// A slot moves *back* only after this long without progress. Chosen: above the delay of any copy
/// that is in flight on a usable link, so that a slow link's copies are never taken for a new
/// sequence.
const RESTART_QUIET: Duration = Duration::from_secs(2);

/// Bits of a counter on the wire.
const WIRE_BITS: u32 = 48;
const WIRE_MASK: u64 = (1 << WIRE_BITS) - 1;
/// Where widened counters begin: far enough from zero that all counters behind a position are
/// positive.
const WIDE: u64 = 1 << WIRE_BITS;

/// The limits and figures that all slots share.
#[derive(Debug)]
pub(super) struct Common {
    pub window: u64,
    pub hold_max: Duration,
    pub stats: ReorderStats,
    /// Empty holds, kept to save allocations.
    pub spare: Vec<Hold>,
}

/// The most spare holds kept. Chosen: flows with an open gap at the same time are few.
const SPARE_MAX: usize = 4;

impl Common {
    fn recycle(&mut self, mut hold: Hold) {
        if self.spare.len() < SPARE_MAX {
            hold.clear();
            self.spare.push(hold);
        }
    }
}

/// The list of the resequencer that a slot is on, with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filed {
    /// The slot holds no packets; its last progress is not before this.
    Idle(Instant),
    /// The slot holds packets; its gap is lost at this time.
    Holding(Instant),
}

/// A series of misplaced packets.
#[derive(Debug, Default)]
struct Misplaced {
    first: u64,
    highest: u64,
    count: u8,
}

/// One slot.
#[derive(Debug)]
pub(super) struct Slot {
    /// The lowest counter neither delivered nor given up (widened).
    next: u64,
    /// Counters below this are not remembered.
    memory_from: u64,
    /// No counter below this was delivered; 0 where that is not known.
    lowest: u64,
    /// Whether a counter in `[next - MEMORY, next)` was delivered, at its index modulo [`MEMORY`].
    delivered: [u64; WORDS],
    misplaced: Misplaced,
    hold: Option<Box<Hold>>,
    /// Last progress: a packet in order or held.
    pub seen: Instant,
    pub filed: Filed,
}

impl Slot {
    /// A new slot whose first counter is `counter`. `below_is_stale`: the counters below may have
    /// been delivered by a slot since forgotten. Their duplicates cannot be recognised.
    pub(super) fn fresh(counter: u64, below_is_stale: bool, now: Instant) -> Self {
        let wide = WIDE | (counter & WIRE_MASK);
        let next = if counter < FRESH_START { WIDE } else { wide };
        if below_is_stale { Self::awake(next, now) } else { Self::at(next, (next - MEMORY, next), now) }
    }

    /// A slot that was dormant: only its position is known.
    pub(super) fn awake(next: u64, now: Instant) -> Self {
        Self::at(next, (next, 0), now)
    }

    fn at(next: u64, (memory_from, lowest): (u64, u64), now: Instant) -> Self {
        Self {
            next,
            memory_from,
            lowest,
            delivered: [0; WORDS],
            misplaced: Misplaced::default(),
            hold: None,
            seen: now,
            filed: Filed::Idle(now),
        }
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn load(&self) -> Load {
        self.hold.as_ref().map_or(Load::default(), |hold| hold.load())
    }

    /// The open gap and the totals, for the trace.
    pub(super) fn present(&self, stats: &ReorderStats) -> Present {
        let counts = HoldCounts {
            lost: stats.lost,
            late: stats.released_late,
            known: stats.known_losses,
            timeouts: stats.timeouts,
            overflows: stats.overflows,
            restarts: stats.restarts,
        };
        let gap = self.hold.as_ref().map(|hold| (self.next, hold.gap(self.next))).filter(|(_, gap)| *gap > 0);
        Present { gap, held: self.load().packets, counts }
    }

    /// When the open gap is lost or the next portion leaves; `None` if nothing is held.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.hold.as_ref().map(|hold| hold.deadline)
    }

    /// The counter with the lower 48 bits `wire` that is nearest to the position (serial number
    /// arithmetic, RFC 1982).
    pub(super) fn widen(&self, wire: u64) -> u64 {
        let ahead = wire.wrapping_sub(self.next) & WIRE_MASK;
        if ahead < WIDE / 2 { self.next + ahead } else { (self.next + ahead).saturating_sub(WIDE) }
    }

    /// The common case: no packet is held and this is the next one. `false`: otherwise; nothing has
    /// changed.
    #[inline]
    pub(super) fn advance_in_order(&mut self, counter: u64, now: Instant) -> bool {
        if counter != self.next || self.hold.is_some() {
            return false;
        }
        self.advance(now);
        true
    }

    /// Handles one packet and delivers the packets that are now in order. `counter` is widened.
    pub(super) fn accept(
        &mut self,
        counter: u64,
        arrival: (Option<LinkId>, Instant),
        packet: PacketBuf,
        links: &[LinkDelay],
        common: &mut Common,
        out: &mut VecDeque<PacketBuf>,
    ) -> Result<(), Discard> {
        let (link, now) = arrival;
        let counter = self.placed(counter, now, common, out)?;
        if counter < self.next {
            self.release_late(counter, packet, now, common, out);
            return Ok(());
        }
        // A packet beyond the window pushes out the oldest gaps.
        while counter - self.next >= common.window && self.hold.is_some() {
            self.give_up_at_once(common, out);
            common.stats.overflows += 1;
        }
        let result = if counter == self.next && !self.is_leaving() {
            out.push_back(packet);
            self.advance(now);
            Ok(())
        } else {
            self.keep(counter, link, &packet, now, common)
        };
        self.release_lost(links, now, common, out);
        result
    }

    /// Handles one urgent packet. `counter` is widened.
    pub(super) fn accept_urgent(
        &mut self,
        counter: u64,
        packet: PacketBuf,
        now: Instant,
        common: &mut Common,
        out: &mut VecDeque<PacketBuf>,
    ) -> Result<(), Discard> {
        let counter = self.placed(counter, now, common, out)?;
        while counter > self.next
            && self.hold.as_ref().is_some_and(|hold| self.next + hold.gap(self.next) <= counter)
        {
            self.give_up_at_once(common, out);
        }
        if counter < self.next {
            // The packet is late, or was just delivered with its hold.
            if self.is_marked(counter) {
                return Err(Discard::Duplicate);
            }
            self.release_late(counter, packet, now, common, out);
            return Ok(());
        }
        self.pass_over(counter - self.next, common);
        out.push_back(packet);
        self.advance(now);
        self.hand_out_run(common, out, Hold::pop);
        Ok(())
    }

    /// Delivers a packet whose counter was given up. It shows that the sender goes on counting.
    fn release_late(
        &mut self,
        counter: u64,
        packet: PacketBuf,
        now: Instant,
        common: &mut Common,
        out: &mut VecDeque<PacketBuf>,
    ) {
        self.remember(counter);
        self.lowest = self.lowest.min(counter);
        self.seen = now;
        self.misplaced.count = 0;
        common.stats.released_late += 1;
        out.push_back(packet);
    }

    /// The counter of a packet that is to be delivered or held. The slot may restart there.
    fn placed(
        &mut self,
        counter: u64,
        now: Instant,
        common: &mut Common,
        out: &mut VecDeque<PacketBuf>,
    ) -> Result<u64, Discard> {
        match self.place(counter, common.window) {
            Ok(()) => Ok(counter),
            Err(_) if self.starts_anew(counter, now) => Ok(self.restart(counter, common, out)),
            Err(reason) => Err(reason),
        }
    }

    /// Whether a packet is to be delivered or held; otherwise the reason for its discard.
    fn place(&self, counter: u64, window: u64) -> Result<(), Discard> {
        if counter < self.next {
            if counter < self.memory_from || self.next - counter > MEMORY {
                return Err(Discard::Stale);
            }
            return if self.is_marked(counter) { Err(Discard::Duplicate) } else { Ok(()) };
        }
        let end = self.hold.as_ref().map_or(self.next, |hold| hold.end(self.next));
        if counter < end + window { Ok(()) } else { Err(Discard::OutOfWindow) }
    }

    /// Copies a packet that must wait. The caller has checked that it fits the window.
    fn keep(
        &mut self,
        counter: u64,
        link: Option<LinkId>,
        packet: &PacketBuf,
        now: Instant,
        common: &mut Common,
    ) -> Result<(), Discard> {
        let hold = self.hold.get_or_insert_with(|| Box::new(common.spare.pop().unwrap_or_else(Hold::new)));
        if let Some(link) = link {
            hold.note_arrival(link, counter, now);
        }
        let moved = hold.insert(counter, link, packet, now).ok_or(Discard::Duplicate)?;
        common.stats.touched += moved as u64;
        self.seen = now;
        self.misplaced.count = 0;
        Ok(())
    }

    /// Delivers a portion of what is in order, gives up the gaps that are lost by now, and sets the
    /// deadline of the next portion or gap.
    pub(super) fn release_lost(
        &mut self,
        links: &[LinkDelay],
        now: Instant,
        common: &mut Common,
        out: &mut VecDeque<PacketBuf>,
    ) {
        while let Some(hold) = &mut self.hold {
            if hold.is_leaving(self.next) {
                let next_at = hold.grant(now);
                self.hand_out_run(common, out, Hold::pop_granted);
                let next = self.next;
                if let Some(hold) = self.hold.as_mut().filter(|hold| hold.is_leaving(next)) {
                    hold.deadline = next_at;
                    return;
                }
                continue;
            }
            let loss = hold.loss(self.next, links, common.hold_max);
            common.stats.touched += links.len() as u64;
            if now < loss.at {
                hold.deadline = loss.at;
                return;
            }
            if loss.known_at.is_some_and(|known| known <= now) {
                common.stats.known_losses += 1;
            } else {
                common.stats.timeouts += 1;
            }
            self.give_up_gap(common);
        }
    }

    /// Gives up the gap at the front. The run behind it is in order then.
    fn give_up_gap(&mut self, common: &mut Common) {
        if let Some(hold) = &self.hold {
            let gap = hold.gap(self.next);
            common.stats.lost += gap;
            self.pass_over(gap, common);
        }
    }

    /// Gives up the gap at the front and delivers the whole run behind it: room is needed, or what
    /// follows must not wait.
    pub(super) fn give_up_at_once(&mut self, common: &mut Common, out: &mut VecDeque<PacketBuf>) {
        self.give_up_gap(common);
        self.hand_out_run(common, out, Hold::pop);
    }

    /// Whether what is held is in order at the front.
    fn is_leaving(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.is_leaving(self.next))
    }

    /// Delivers all held packets, in order.
    pub(super) fn flush(&mut self, common: &mut Common, out: &mut VecDeque<PacketBuf>) {
        while self.hold.is_some() {
            self.give_up_at_once(common, out);
        }
    }

    /// Delivers what `pop` takes, one counter after the other.
    fn hand_out_run(
        &mut self,
        common: &mut Common,
        out: &mut VecDeque<PacketBuf>,
        mut pop: impl FnMut(&mut Hold, u64) -> Option<PacketBuf>,
    ) {
        let Some(mut hold) = self.hold.take() else { return };
        while let Some(packet) = pop(&mut hold, self.next) {
            out.push_back(packet);
            self.remember(self.next);
            self.next += 1;
            common.stats.touched += 1;
        }
        if hold.is_empty() {
            common.recycle(*hold);
        } else {
            self.hold = Some(hold);
        }
    }

    fn advance(&mut self, now: Instant) {
        self.remember(self.next);
        self.next += 1;
        self.seen = now;
        self.misplaced.count = 0;
    }

    /// Moves over `count` counters that were not delivered: a word at a time.
    fn pass_over(&mut self, count: u64, common: &mut Common) {
        let end = self.next + count;
        if count >= MEMORY {
            self.delivered = [0; WORDS];
            self.next = end;
            common.stats.touched += WORDS as u64;
        }
        while self.next < end {
            let (word, first) = place_of(self.next);
            let bits = (end - self.next).min(u64::from(first.leading_zeros()) + 1);
            let kept = !(u64::MAX >> (64 - bits) << first.trailing_zeros());
            if let Some(word) = self.delivered.get_mut(word) {
                *word &= kept;
            }
            self.next += bits;
            common.stats.touched += 1;
        }
    }

    /// The counter was delivered.
    #[inline]
    fn remember(&mut self, counter: u64) {
        let (word, bit) = place_of(counter);
        if let Some(delivered) = self.delivered.get_mut(word) {
            *delivered |= bit;
        }
    }

    fn is_marked(&self, counter: u64) -> bool {
        let (word, bit) = place_of(counter);
        self.delivered.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Counts a misplaced packet; `true`: there are enough of them, the sender restarted here.
    fn starts_anew(&mut self, counter: u64, now: Instant) -> bool {
        let run = &mut self.misplaced;
        if run.count == 0 || run.first.abs_diff(counter) > RESTART_SPREAD {
            *run = Misplaced { first: counter, highest: counter, count: 1 };
        } else if counter > run.highest {
            run.highest = counter;
            run.count = run.count.saturating_add(1);
        }
        let is_quiet = now.saturating_since(self.seen) >= RESTART_QUIET;
        let may_move = counter >= self.next || (is_quiet && counter < self.lowest);
        run.count >= RESTART_PACKETS && run.highest == counter && may_move
    }

    /// Delivers all held packets and moves to `counter`. Returns the counter's new widened form.
    fn restart(&mut self, counter: u64, common: &mut Common, out: &mut VecDeque<PacketBuf>) -> u64 {
        self.flush(common, out);
        if counter >= self.next {
            // Forwards: all counters below keep their meaning, so no packet can be delivered twice.
            self.pass_over(counter - self.next, common);
        } else {
            self.delivered = [0; WORDS];
            self.memory_from = counter.saturating_sub(MEMORY);
            self.lowest = self.lowest.min(counter);
            self.next = counter;
        }
        // Backwards: returns to the first range of widened counters, so that jumps cannot add up
        // beyond 64 bits.
        let rebased = WIDE | (self.next & WIRE_MASK);
        self.memory_from = rebased - (self.next - self.memory_from).min(MEMORY);
        self.lowest = rebased.saturating_sub(self.next - self.lowest);
        self.next = rebased;
        common.stats.restarts += 1;
        rebased
    }
}

/// Word and bit of a counter in the memory.
#[inline]
fn place_of(counter: u64) -> (usize, u64) {
    (((counter % MEMORY) / 64) as usize, 1 << (counter % 64))
}
