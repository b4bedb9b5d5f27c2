//! Records of the gaps that the resequencer waits for, derived from a flow slot before and after an
//! input: the slots themselves know nothing of the trace.

use std::collections::BTreeMap;

use super::event::{GapEnd, Level, Record, TraceEvent, counter_of};
use super::ring::Ring;
use crate::packet::LinkId;
use crate::time::Instant;
use crate::wire;

/// The input of a slot.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input {
    /// A packet with this counter; `None`: no link brought it, it was restored.
    Packet(Option<LinkId>, u64),
    /// A packet that is to be delivered at once.
    Urgent(u64),
    /// Time, or news about links.
    Time,
}

/// Totals of the resequencer: what increased during an input tells what the input did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HoldCounts {
    /// Missing packets of the gaps given up.
    pub(crate) lost: u64,
    /// Packets delivered after their gap had been given up.
    pub(crate) late: u64,
    /// Gaps given up because every usable link had passed them.
    pub(crate) known: u64,
    /// Gaps given up at their deadline.
    pub(crate) timeouts: u64,
    /// Gaps given up for lack of memory.
    pub(crate) overflows: u64,
    /// Slots that restarted at another place of their sequence.
    pub(crate) restarts: u64,
}

/// A slot and the totals at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Present {
    /// The first missing counter and how many are missing.
    pub(crate) gap: Option<(u64, u64)>,
    /// Packets that the slot holds.
    pub(crate) held: usize,
    pub(crate) counts: HoldCounts,
}

/// The gap that was recorded as open.
#[derive(Debug, Clone, Copy)]
struct Open {
    first: u64,
    count: u64,
    at: Instant,
}

#[derive(Debug, Default)]
struct Holds {
    ring: Ring,
    /// By slot.
    open: BTreeMap<u16, Open>,
}

/// A resequencer's trace; empty while tracing is off.
#[derive(Debug, Default)]
pub(crate) struct HoldTracer(Option<Box<Holds>>);

impl HoldTracer {
    pub(crate) fn set_level(&mut self, level: Level) {
        self.0 = (level != Level::Off).then(Box::default);
    }

    pub(super) fn drain(&mut self, out: &mut Vec<Record>) {
        if let Some(holds) = &mut self.0 {
            holds.ring.drain(out);
        }
    }

    /// The slot as it is, ahead of an input; `None` while tracing is off.
    #[inline]
    pub(crate) fn before(&self, slot: impl FnOnce() -> Present) -> Option<Present> {
        self.0.as_ref().map(|_| slot())
    }

    /// The slot has taken `input`.
    #[inline]
    pub(crate) fn after(
        &mut self,
        before: Option<Present>,
        key: u16,
        input: Input,
        slot: impl FnOnce() -> Present,
        now: Instant,
    ) {
        if let (Some(holds), Some(before)) = (&mut self.0, before) {
            holds.note(key, input, (before, slot()), now);
        }
    }

    /// All slots are forgotten.
    pub(crate) fn clear(&mut self) {
        if let Some(holds) = &mut self.0 {
            holds.open.clear();
        }
    }
}

impl Holds {
    #[inline(never)]
    fn note(&mut self, key: u16, input: Input, (before, slot): (Present, Present), now: Instant) {
        let (counts_before, counts) = (before.counts, slot.counts);
        let (link, counter) = match input {
            Input::Packet(link, counter) => (link, Some(counter)),
            Input::Urgent(counter) => (None, Some(counter)),
            Input::Time => (None, None),
        };
        if let Some(counter) = counter.filter(|_| counts.late > counts_before.late) {
            self.ring.push(TraceEvent::PacketLate { link, seq_num: seq_num(key, counter) }, now);
        }
        let lost = counts.lost - counts_before.lost;
        let filled = matches!((before.gap, counter), (Some((first, 1)), Some(counter)) if first == counter);
        let passed = before.gap.is_some_and(|(first, count)| {
            slot.gap.is_none_or(|(next, _)| next >= first + count) || counts.restarts > counts_before.restarts
        });
        let mut close = |count: u64, by: GapEnd, held: usize| {
            let open = self.open.remove(&key);
            let (first, at) = match (open, before.gap, counter) {
                (Some(open), ..) => (open.first, open.at),
                // Behind the gap that has just been filled.
                (None, Some((first, _)), _) => (first + u64::from(filled), now),
                (None, None, counter) => (counter.unwrap_or(0).saturating_sub(count), now),
            };
            let count = if count > 0 { count } else { open.map_or(1, |open| open.count) };
            let event = TraceEvent::GapClosed {
                by,
                link,
                first: seq_num(key, first),
                count: u32::try_from(count).unwrap_or(u32::MAX),
                waited_us: u32::try_from(now.saturating_since(at).as_micros()).unwrap_or(u32::MAX),
                held: u32::try_from(held).unwrap_or(u32::MAX),
            };
            self.ring.push(event, now);
        };
        let came = match input {
            Input::Packet(None, _) => GapEnd::Restored,
            Input::Packet(Some(_), _) | Input::Urgent(_) | Input::Time => GapEnd::Arrived,
        };
        if (passed && lost == 0) || filled {
            close(0, came, slot.held);
        }
        if lost > 0 {
            close(lost, given_up(&counts_before, &counts), slot.held);
        }
        if let Some((first, count)) = slot.gap
            && !self.open.contains_key(&key)
        {
            self.open.insert(key, Open { first, count, at: now });
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.ring.push(TraceEvent::GapOpened { link, first: seq_num(key, first), count }, now);
        }
    }
}

/// Why gaps were given up between the two counts.
fn given_up(before: &HoldCounts, after: &HoldCounts) -> GapEnd {
    if after.restarts > before.restarts {
        GapEnd::Restart
    } else if after.overflows > before.overflows {
        GapEnd::Overflow
    } else if after.timeouts > before.timeouts {
        GapEnd::Time
    } else if after.known > before.known {
        GapEnd::Known
    } else {
        GapEnd::Urgent
    }
}

/// Slots count on beyond the 48 bits of the wire.
fn seq_num(key: u16, counter: u64) -> u64 {
    wire::data_seq_num(key, counter_of(counter))
}
