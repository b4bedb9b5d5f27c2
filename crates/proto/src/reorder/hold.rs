//! The held packets of a slot while a gap is open, and the time at which that gap is lost.
//!
//! Links differ in delay, and in what they reorder by ([`LinkDelay::reorders_by`]). A gap is lost
//! as soon as **every usable link has passed it**. Link L has passed a gap
//! 1. *by knowledge*, when one later packet of this slot has arrived on L and 2 ms, or as much as L
//!    reorders by, have gone by since; or when 3 have and L keeps the order (RFC 9002 §6.1);
//! 2. *by time*, from the arrival of the first held packet F plus
//!    `max(0, delay of L − delay of F's link)` plus 4 × the jitter of L, or what L reorders by,
//!    plus 30 ms: packets sent before F over L would have arrived. This decides for a link that
//!    carried no packet of this slot lately, and protects the first ones on a slow, new link.
//!
//! If the sender sends losses again, link L has not passed the gap before the arrival of F plus the
//! difference of delays plus `LinkDelay::resend`: two rounds of loss, feedback and resend.
//!
//! An unusable link counts as having passed. If no link is usable, only the cap counts: **no gap is
//! waited for longer than `hold_max`** after the arrival behind it, or 500 ms if losses are sent
//! again. After a gap is given up, the rules apply to the next gap with the arrivals already noted.
//! A delay offset common to all links cancels.
//!
//! A long hold leaves in portions ([`Hold::grant`]).
//!
//! Contract: the caller owns the position. Every `next` argument is the lowest counter not
//! delivered, the same one until packets are popped; every counter given here is at or above it. A
//! hold does not know limits or other slots.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::delay::LinkDelay;
use super::figures::Load;
use super::places::{Held, Places};
use crate::limits::{DELAY_SLACK, RESEND_HOLD_MAX};
use crate::packet::{LinkId, PacketBuf};
use crate::time::Instant;

/// This many later packets of the slot on a link prove that the link lost the missing ones: RFC
/// 9002 §6.1.1 (`kPacketThreshold`).
const LATER_PACKETS: usize = 3;

/// How far two packets of one link may swap in time. Chosen: two scheduling quanta of a kernel at
/// 1000 Hz.
const SWAP_SLACK: Duration = Duration::from_millis(2);

/// The margin of a deadline, as a multiple of the link's jitter: RFC 6298 §2.3 (K = 4) for a
/// retransmission timer.
const JITTERS: u32 = 4;

/// So many bytes of a hold leave at once. Chosen: a common application's socket has 212,992 bytes,
/// bookkeeping included, which ninety packets fill; this is a quarter of that.
/// Measured: docs/decisions/0017-a-hold-leaves-in-portions.md.
const PORTION_BYTES: u64 = 32 << 10;
/// What follows leaves at so many times the rate at which it came. Chosen: what was held for 50 ms
/// has left after as long, while more comes.
const PORTION_RATE: u64 = 2;
/// ... and at so much at least, bytes in each millisecond. Chosen: 64 Mbit/s, a slow reader's.
const PORTION_MIN_BYTES: u64 = 8 << 10;
/// The time that is credited at most, µs. Chosen: it fills the credit at the least rate.
const PORTION_US_MAX: u64 = 4_000;
/// That rate is a mean over this, at most. Chosen: two rounds of loss and resend over near links.
const CAME_SPAN: Duration = Duration::from_millis(100);
/// Time between two portions. Chosen: as the quantum of bulk.
const PORTION_STEP: Duration = Duration::from_millis(1);

/// A link's arrivals in this slot, as far as they can still decide a gap.
#[derive(Debug, Default)]
struct Arrivals {
    /// The highest counters seen, in descending order; zero if there were fewer.
    top: [u64; LATER_PACKETS],
    /// Counter and time of each arrival that was higher than all before it: both ascend, so the
    /// front one at or above `next` is the link's earliest proof against a gap that starts at
    /// `next`.
    records: VecDeque<(u64, Instant)>,
}

impl Arrivals {
    /// Returns whether this added a record.
    fn note(&mut self, counter: u64, now: Instant) -> bool {
        let mut sinking = counter;
        for place in &mut self.top {
            if sinking == *place {
                break; // a copy of the same packet proves nothing more
            }
            if sinking > *place {
                std::mem::swap(&mut sinking, place);
            }
        }
        if self.records.back().is_some_and(|&(highest, _)| highest >= counter) {
            return false;
        }
        self.records.push_back((counter, now));
        true
    }
}

/// How fast packets came to a hold lately.
#[derive(Debug, Clone, Copy, Default)]
struct Came {
    bytes: u64,
    /// When the first and the last of them came.
    since: Instant,
    at: Instant,
}

impl Came {
    fn on_packet(&mut self, bytes: usize, now: Instant) {
        if self.bytes == 0 {
            self.since = now;
        } else if now.saturating_since(self.since) >= CAME_SPAN {
            self.bytes /= 2;
            self.since = now.saturating_sub(CAME_SPAN / 2);
        }
        self.bytes += bytes as u64;
        self.at = now;
    }

    fn bytes_per_ms(&self) -> u64 {
        let span_us = self.at.saturating_since(self.since).as_micros();
        self.bytes * 1_000 / u64::try_from(span_us).unwrap_or(u64::MAX).max(1_000)
    }
}

/// The time at which a gap is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loss {
    /// From this time on the gap is lost.
    pub at: Instant,
    /// From this time on every usable link has proven the loss. `None`: some link has not delivered
    /// a later packet.
    pub known_at: Option<Instant>,
}

/// The packets of one slot that wait for a gap, and the arrivals that determine when it is lost.
#[derive(Debug)]
pub(super) struct Hold {
    places: Places,
    payload_bytes: usize,
    /// By link.
    arrivals: Vec<Arrivals>,
    /// Records of all links together.
    records: usize,
    came: Came,
    /// Bytes that may leave, as of a time.
    credit_bytes: u64,
    credit_at: Instant,
    /// When the gap is lost if no packet arrives, or the next portion leaves; as last computed.
    pub deadline: Instant,
}

impl Hold {
    /// An empty hold. The caller sets `deadline`.
    pub(super) fn new() -> Self {
        Self {
            places: Places::default(),
            payload_bytes: 0,
            arrivals: Vec::new(),
            records: 0,
            came: Came::default(),
            credit_bytes: PORTION_BYTES,
            credit_at: Instant::ZERO,
            deadline: Instant::ZERO,
        }
    }

    /// Clears the hold; keeps a moderate amount of memory for the next use.
    pub(super) fn clear(&mut self) {
        /// Chosen: a burst of this many packets needs no new memory, and an idle slot keeps little.
        const RECORDS_KEPT: usize = 1_024;
        self.places.clear();
        for arrivals in &mut self.arrivals {
            arrivals.top = [0; LATER_PACKETS];
            arrivals.records.clear();
            arrivals.records.shrink_to(RECORDS_KEPT);
        }
        self.payload_bytes = 0;
        self.records = 0;
        self.came = Came::default();
        self.credit_bytes = PORTION_BYTES;
        self.credit_at = Instant::ZERO;
    }

    /// Whether the packet of `next` is there: the run behind it is leaving.
    pub(super) fn is_leaving(&self, next: u64) -> bool {
        self.places.first() == Some(next)
    }

    /// Credits the time up to `now` to what leaves: all that a long hold releases is much more than
    /// an application's socket takes at once. Returns when the next portion may leave.
    pub(super) fn grant(&mut self, now: Instant) -> Instant {
        let us = |since: Instant| u64::try_from(now.saturating_since(since).as_micros()).unwrap_or(u64::MAX);
        let rate_bytes = PORTION_MIN_BYTES.max(self.came.bytes_per_ms() * PORTION_RATE);
        let earned = us(self.credit_at).min(PORTION_US_MAX) * rate_bytes / 1_000;
        self.credit_bytes = self.credit_bytes.saturating_add(earned).min(PORTION_BYTES.max(rate_bytes));
        self.credit_at = now;
        now + PORTION_STEP
    }

    /// Takes the packet of `next`, if it is there and there is credit for it.
    pub(super) fn pop_granted(&mut self, next: u64) -> Option<PacketBuf> {
        if self.credit_bytes == 0 {
            return None;
        }
        let packet = self.pop(next)?;
        self.credit_bytes = self.credit_bytes.saturating_sub(packet.len() as u64);
        Some(packet)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.len() == 0
    }

    /// The counter above the highest held one; `next` if nothing is held.
    pub(super) fn end(&self, next: u64) -> u64 {
        self.places.end().unwrap_or(next)
    }

    /// Counters missing before the first held packet.
    pub(super) fn gap(&self, next: u64) -> u64 {
        self.places.first().map_or(0, |first| first.saturating_sub(next))
    }

    pub(super) fn load(&self) -> Load {
        Load {
            packets: self.places.len(),
            payload_bytes: self.payload_bytes,
            memory_bytes: self.payload_bytes
                + self.places.memory_bytes()
                + self.records * size_of::<(u64, Instant)>(),
        }
    }

    /// Copies the packet of `counter`, and gives how many pages were moved; `None`: it is held
    /// already.
    pub(super) fn insert(
        &mut self,
        counter: u64,
        link: Option<LinkId>,
        packet: &PacketBuf,
        now: Instant,
    ) -> Option<usize> {
        let (data, is_partial) = (|| Box::from(&**packet), packet.is_partial());
        let make = || Held { data: data(), is_partial, link, at: now };
        let moved = self.places.insert(counter, make)?;
        self.payload_bytes += packet.len();
        self.came.on_packet(packet.len(), now);
        Some(moved)
    }

    /// Notes that `counter`, above `next`, arrived on `link`, whether it is held or not.
    pub(super) fn note_arrival(&mut self, link: LinkId, counter: u64, now: Instant) {
        if self.arrivals.len() <= link.index() {
            self.arrivals.resize_with(link.index() + 1, Arrivals::default);
        }
        let added = self.arrivals.get_mut(link.index()).is_some_and(|arrivals| arrivals.note(counter, now));
        self.records += usize::from(added);
    }

    /// Takes the packet of `next`, if it is there.
    pub(super) fn pop(&mut self, next: u64) -> Option<PacketBuf> {
        if !self.is_leaving(next) {
            return None;
        }
        let held = self.places.pop_first()?;
        self.payload_bytes -= held.data.len();
        let bytes = Bytes::from(held.data);
        Some(if held.is_partial { PacketBuf::partial(bytes) } else { PacketBuf::from(bytes) })
    }

    /// When the gap from `next` to the first held packet is lost, by the rules in the module's
    /// head.
    ///
    /// The result is a maximum over links and a minimum with the cap: the order of the links cannot
    /// matter.
    pub(super) fn loss(&mut self, next: u64, links: &[LinkDelay], mut hold_max: Duration) -> Loss {
        self.forget_below(next);
        let Some(first) = self.places.first_held() else {
            return Loss { at: Instant::ZERO, known_at: Some(Instant::ZERO) };
        };
        let oldest = self.arrivals.iter().filter_map(|link| link.records.front()).map(|&(_, at)| at).min();
        let oldest = oldest.unwrap_or(first.at).min(first.at);

        let first_link = first.link.and_then(|link| links.get(link.index()));
        let first_delay_us = first_link.map(|link| link.delay_us);
        let mut at = None;
        let mut known_at = Some(Instant::ZERO);
        for (index, link) in links.iter().enumerate().filter(|(_, link)| link.usable) {
            let proof = self.arrivals.get(index).and_then(|arrivals| proof(arrivals, next, link.reorders_by));
            let skew_us = link.delay_us.saturating_sub(first_delay_us.unwrap_or(link.delay_us));
            let skew = Duration::from_micros(u64::try_from(skew_us).unwrap_or(0));
            let jitter = Duration::from_micros(u64::from(link.jitter_us)) * JITTERS;
            let in_time = first.at + skew + jitter.max(link.reorders_by) + DELAY_SLACK;
            let passed = proof.map_or(in_time, |proof| proof.min(in_time));
            let passed = if link.resend.is_zero() {
                passed
            } else {
                hold_max = hold_max.max(RESEND_HOLD_MAX);
                passed.max(first.at + skew + link.resend)
            };
            at = at.max(Some(passed));
            known_at = known_at.zip(proof).map(|(all, one)| all.max(one));
        }
        let cap = oldest + hold_max;
        match at {
            Some(at) => Loss { at: at.min(cap), known_at },
            None => Loss { at: cap, known_at: None },
        }
    }

    fn forget_below(&mut self, next: u64) {
        for arrivals in &mut self.arrivals {
            while arrivals.records.front().is_some_and(|&(counter, _)| counter < next) {
                arrivals.records.pop_front();
                self.records -= 1;
            }
        }
    }
}

/// The time from which the link's arrivals prove that it does not carry the packet missing at
/// `next`. All noted arrivals are above the gap, since no packet arrived in it.
fn proof(arrivals: &Arrivals, next: u64, reorders_by: Duration) -> Option<Instant> {
    if reorders_by.is_zero() && arrivals.top.last().is_some_and(|&third| third >= next) {
        return Some(Instant::ZERO);
    }
    arrivals.records.front().map(|&(_, at)| at + SWAP_SLACK.max(reorders_by))
}
