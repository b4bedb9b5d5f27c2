//! One flow slot: its position, its memory of what was handed out, and its hold while a gap is open.
//!
//! Contract: hands out every counter at most once, in ascending order but for late ones. Counters are 48 bits on
//! the wire; here they are widened so that plain comparison orders them ([`Slot::widen`]). Does not know other slots
//! or the bounds over all of them.

use std::collections::VecDeque;
use std::time::Duration;

use super::hold::Hold;
use super::{LinkDelay, Load, ReorderStats};
use crate::discard::Discard;
use crate::packet::{LinkId, PacketBuf};
use crate::time::Instant;

/// Counters below the position of which we know whether they were handed out.
const MEMORY: u64 = 1_024;
const WORDS: usize = (MEMORY / 64) as usize;

/// A first counter below this is taken for the start of a sequence whose beginning is still under way.
const FRESH_START: u64 = 64;

/// So many misplaced packets, each above the one before, make a slot start anew.
const RESTART_PACKETS: u8 = 4;
/// They lie within this distance of the first of them.
const RESTART_SPREAD: u64 = 1_024;
/// A slot goes *back* only after so long without progress: more than the delay of any copy that is still under way
/// on a usable link, so that a slow link's copies of what was handed out are never taken for a new sequence.
const RESTART_QUIET: Duration = Duration::from_secs(2);

/// Bits of a counter on the wire.
const WIRE_BITS: u32 = 48;
const WIRE_MASK: u64 = (1 << WIRE_BITS) - 1;
/// Where widened counters begin: far enough from zero for everything behind a position to be positive.
const WIDE: u64 = 1 << WIRE_BITS;

/// What a slot shares with the others.
#[derive(Debug)]
pub(super) struct Shared {
    pub window: u64,
    pub hold_max: Duration,
    pub stats: ReorderStats,
    /// Empty holds, to save allocations.
    pub spare: Vec<Hold>,
}

/// The spare holds that are worth keeping.
const SPARE_MAX: usize = 4;

impl Shared {
    fn recycle(&mut self, mut hold: Hold) {
        if self.spare.len() < SPARE_MAX {
            hold.clear();
            self.spare.push(hold);
        }
    }
}

/// In which list of the resequencer a slot stands, and at which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filed {
    /// Holds nothing; last progress no earlier than this.
    Idle(Instant),
    /// Holds packets; the gap is lost at this time.
    Holding(Instant),
}

/// Misplaced packets in a row.
#[derive(Debug, Default)]
struct Misplaced {
    first: u64,
    highest: u64,
    count: u8,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slot {
    /// The lowest counter neither handed out nor given up (widened).
    next: u64,
    /// Nothing is known of counters below this.
    memory_from: u64,
    /// Whether a counter in `[next - MEMORY, next)` was handed out, at its index modulo [`MEMORY`].
    delivered: [u64; WORDS],
    misplaced: Misplaced,
    hold: Option<Box<Hold>>,
    /// Last progress: a packet in order or held.
    pub seen: Instant,
    pub filed: Filed,
}

impl Slot {
    /// A slot that nothing is known of; `counter` is its first. `deaf`: what lies below may have been handed out by
    /// a slot since forgotten.
    pub(super) fn fresh(counter: u64, deaf: bool, now: Instant) -> Self {
        let wide = WIDE | (counter & WIRE_MASK);
        let next = if counter < FRESH_START { WIDE } else { wide };
        Self::at(next, if deaf { next } else { next - MEMORY }, now)
    }

    /// A slot of which only the position was kept.
    pub(super) fn awake(next: u64, now: Instant) -> Self {
        Self::at(next, next, now)
    }

    fn at(next: u64, memory_from: u64, now: Instant) -> Self {
        Self {
            next,
            memory_from,
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

    /// When the open gap is lost; `None` without one.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.hold.as_ref().map(|hold| hold.deadline)
    }

    /// The counter of which `wire` is the lower 48 bits and that lies nearest to the position (serial number
    /// arithmetic, RFC 1982).
    pub(super) fn widen(&self, wire: u64) -> u64 {
        let ahead = wire.wrapping_sub(self.next) & WIRE_MASK;
        if ahead < WIDE / 2 { self.next + ahead } else { (self.next + ahead).saturating_sub(WIDE) }
    }

    /// The common case: nothing is held and this is the next packet. `false`: it is not, nothing happened.
    #[inline]
    pub(super) fn advance_in_order(&mut self, counter: u64, now: Instant) -> bool {
        if counter != self.next || self.hold.is_some() {
            return false;
        }
        self.advance(now);
        true
    }

    /// Takes one packet, hands out what is now in order. `counter` is widened.
    pub(super) fn accept(
        &mut self,
        counter: u64,
        arrival: (Option<LinkId>, Instant),
        packet: PacketBuf,
        links: &[LinkDelay],
        shared: &mut Shared,
        out: &mut VecDeque<PacketBuf>,
    ) -> Result<(), Discard> {
        let (link, now) = arrival;
        let counter = self.placed(counter, now, shared, out)?;
        if counter < self.next {
            self.mark(counter);
            shared.stats.released_late += 1;
            out.push_back(packet);
            return Ok(());
        }
        // What the window has no room for pushes out the oldest gaps.
        while counter - self.next >= shared.window && self.hold.is_some() {
            self.give_up_gap(shared, out);
            shared.stats.overflows += 1;
        }
        let result = if counter == self.next {
            out.push_back(packet);
            self.advance(now);
            if let Some(hold) = &mut self.hold {
                hold.skip_front();
            }
            self.hand_out_run(shared, out);
            Ok(())
        } else {
            self.keep(counter, link, &packet, now, shared)
        };
        self.settle(links, now, shared, out);
        result
    }

    /// Takes one packet that waits for nothing. `counter` is widened.
    pub(super) fn accept_urgent(
        &mut self,
        counter: u64,
        packet: PacketBuf,
        now: Instant,
        shared: &mut Shared,
        out: &mut VecDeque<PacketBuf>,
    ) -> Result<(), Discard> {
        let counter = self.placed(counter, now, shared, out)?;
        while counter > self.next
            && self.hold.as_ref().is_some_and(|hold| self.next + hold.gap() as u64 <= counter)
        {
            self.give_up_gap(shared, out);
        }
        if counter < self.next {
            // Late, or among what has just been handed out.
            if self.is_marked(counter) {
                return Err(Discard::Duplicate);
            }
            self.mark(counter);
            self.seen = now;
            shared.stats.released_late += 1;
            out.push_back(packet);
            return Ok(());
        }
        let gap = counter - self.next;
        if let Some(hold) = &mut self.hold {
            hold.skip_places(usize::try_from(gap).unwrap_or(usize::MAX).saturating_add(1));
        }
        self.pass_over(gap);
        out.push_back(packet);
        self.advance(now);
        self.hand_out_run(shared, out);
        Ok(())
    }

    /// The counter of a packet that is to be handed out or held, which may be where the slot starts anew.
    fn placed(
        &mut self,
        counter: u64,
        now: Instant,
        shared: &mut Shared,
        out: &mut VecDeque<PacketBuf>,
    ) -> Result<u64, Discard> {
        match self.place(counter, shared.window) {
            Ok(()) => Ok(counter),
            Err(_) if self.starts_anew(counter, now) => Ok(self.restart(counter, shared, out)),
            Err(reason) => Err(reason),
        }
    }

    /// Whether a packet is one to hand out or to hold, and if not, why.
    fn place(&self, counter: u64, window: u64) -> Result<(), Discard> {
        if counter < self.next {
            if counter < self.memory_from || self.next - counter > MEMORY {
                return Err(Discard::Stale);
            }
            return if self.is_marked(counter) { Err(Discard::Duplicate) } else { Ok(()) };
        }
        let end = self.next + self.hold.as_ref().map_or(0, |hold| hold.span() as u64);
        if counter < end + window { Ok(()) } else { Err(Discard::OutOfWindow) }
    }

    /// Copies a packet that must wait. The caller has checked that it fits the window.
    fn keep(
        &mut self,
        counter: u64,
        link: Option<LinkId>,
        packet: &PacketBuf,
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), Discard> {
        let Ok(offset) = usize::try_from(counter - self.next) else { return Err(Discard::OutOfWindow) };
        let hold = self.hold.get_or_insert_with(|| Box::new(shared.spare.pop().unwrap_or_else(Hold::new)));
        if let Some(link) = link {
            hold.note_arrival(link, counter, now);
        }
        if hold.holds(offset) {
            return Err(Discard::Duplicate);
        }
        hold.insert(offset, link, packet, now);
        self.seen = now;
        self.misplaced.count = 0;
        Ok(())
    }

    /// Hands out whatever is known or timed to wait in vain, and sets the deadline of what still waits.
    pub(super) fn settle(
        &mut self,
        links: &[LinkDelay],
        now: Instant,
        shared: &mut Shared,
        out: &mut VecDeque<PacketBuf>,
    ) {
        while let Some(hold) = &mut self.hold {
            let loss = hold.loss(self.next, links, shared.hold_max);
            if now < loss.at {
                hold.deadline = loss.at;
                return;
            }
            if loss.known_at.is_some_and(|known| known <= now) {
                shared.stats.known_losses += 1;
            } else {
                shared.stats.timeouts += 1;
            }
            self.give_up_gap(shared, out);
        }
    }

    /// Gives up the gap at the front and hands out the run behind it.
    pub(super) fn give_up_gap(&mut self, shared: &mut Shared, out: &mut VecDeque<PacketBuf>) {
        if let Some(hold) = &mut self.hold {
            let gap = hold.gap() as u64;
            shared.stats.lost += gap;
            hold.skip_gap();
            self.pass_over(gap);
            self.hand_out_run(shared, out);
        }
    }

    /// Hands out everything held, in order.
    pub(super) fn flush(&mut self, shared: &mut Shared, out: &mut VecDeque<PacketBuf>) {
        while self.hold.is_some() {
            self.give_up_gap(shared, out);
        }
    }

    fn hand_out_run(&mut self, shared: &mut Shared, out: &mut VecDeque<PacketBuf>) {
        let Some(mut hold) = self.hold.take() else { return };
        while let Some(packet) = hold.pop_front() {
            out.push_back(packet);
            self.mark(self.next);
            self.next += 1;
        }
        if hold.is_empty() {
            shared.recycle(*hold);
        } else {
            self.hold = Some(hold);
        }
    }

    fn advance(&mut self, now: Instant) {
        self.mark(self.next);
        self.next += 1;
        self.seen = now;
        self.misplaced.count = 0;
    }

    /// Moves over `count` counters that were not handed out.
    fn pass_over(&mut self, count: u64) {
        if count >= MEMORY {
            self.delivered = [0; WORDS];
        } else {
            for counter in self.next..self.next + count {
                let (word, bit) = place_of(counter);
                if let Some(word) = self.delivered.get_mut(word) {
                    *word &= !bit;
                }
            }
        }
        self.next += count;
    }

    fn mark(&mut self, counter: u64) {
        let (word, bit) = place_of(counter);
        if let Some(word) = self.delivered.get_mut(word) {
            *word |= bit;
        }
    }

    fn is_marked(&self, counter: u64) -> bool {
        let (word, bit) = place_of(counter);
        self.delivered.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Counts a misplaced packet; `true`: enough of them, the sender has started anew here.
    fn starts_anew(&mut self, counter: u64, now: Instant) -> bool {
        let run = &mut self.misplaced;
        if run.count == 0 || run.first.abs_diff(counter) > RESTART_SPREAD {
            *run = Misplaced { first: counter, highest: counter, count: 1 };
        } else if counter > run.highest {
            run.highest = counter;
            run.count = run.count.saturating_add(1);
        }
        // Without any memory nothing was handed out since the slot was made or woken.
        let is_quiet = self.memory_from == self.next || now.saturating_since(self.seen) >= RESTART_QUIET;
        run.count >= RESTART_PACKETS && run.highest == counter && (counter >= self.next || is_quiet)
    }

    /// Hands out what is held and moves to `counter`, which is returned as it is named from now on.
    fn restart(&mut self, counter: u64, shared: &mut Shared, out: &mut VecDeque<PacketBuf>) -> u64 {
        self.flush(shared, out);
        if counter >= self.next {
            // Ahead: all below keeps its meaning, so that nothing can be handed out twice.
            self.pass_over(counter - self.next);
        } else {
            self.delivered = [0; WORDS];
            self.memory_from = counter.saturating_sub(MEMORY);
            self.next = counter;
        }
        // Back to the first range of widened counters, or jumps could add up to leave 64 bits.
        let rebased = WIDE | (self.next & WIRE_MASK);
        self.memory_from = rebased - (self.next - self.memory_from).min(MEMORY);
        self.next = rebased;
        shared.stats.restarts += 1;
        rebased
    }
}

/// Word and bit of a counter in the memory.
#[inline]
fn place_of(counter: u64) -> (usize, u64) {
    (((counter % MEMORY) / 64) as usize, 1 << (counter % 64))
}
