//! Path MTU of one sealed link, in the direction of sending: a search with probes (RFC 8899).
//!
//! A probe is a padded control datagram that the peer answers over the same link. Data is never
//! larger than what was answered last. Sizes are of whole IP packets.
//!
//! ```text
//!            answered            given up: nothing larger is left
//! Opening ──────────────► Complete ◄───────────────────────── Searching
//!    │  the maximum                │  three in a row of the size in use are lost ▲ ▲
//!    │                             └── back to the base ──────────────────────────┘ │
//!    └──────── the maximum is lost ─────────────────────────────────────────────────┘
//! ```
//! - **Base**: 1,200 bytes, used unasked. Where nothing larger passed it is asked for, and if that
//!   is lost the search goes on from 576.
//!   Measured: docs/decisions/0087-sizes-below-the-base.md.
//! - **Search**: the maximum first and alone; then the middle of the common sizes between what
//!   passed and what was lost, each asked once, up to three at a time as if those under way were
//!   lost; the smallest that was lost is asked twice more before it is given up.
//! - **Lost** is a probe whose answer is overdue while something smaller that was sent later did
//!   arrive: an outage says nothing about sizes. An answer that comes late counts all the same.
//! - **Confirmation**: the size in use is asked for again, for at most 1 % of what is sent, and at
//!   once when the link begins to lose most. Three lost in a row are a black hole (§4.3).
//!   Data of that size which arrives confirms it as well (§4.1).
//!   Measured: docs/decisions/0016-data-confirms-a-size.md.
//! - **Raise**: a search that ended low is repeated after 10 s, later every 600 s. An overrun
//!   link loses probes of any size.
//!
//! Contract: the owner sends what `poll_probe` gives at once, counts it as neither data nor loss,
//! and calls `on_time` when `poll_timeout` is due. An idle link sends no probes after its search.
//! It knows neither headers nor keys.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;

/// RFC 8899 §5.1.2: `BASE_PLPMTU`, bytes.
pub(crate) const BASE_BYTES: u16 = 1_200;
/// What is used where the base does not pass. RFC 791: every host takes it.
pub(crate) const FLOOR_BYTES: u16 = 576;
/// RFC 8899 §5.1.2: `MAX_PROBES`.
const PROBES_MAX: u8 = 3;
/// A search that ended low is repeated after this, doubled each time ... Chosen: a link's rate is
/// known by then.
const RAISE_MIN: Duration = Duration::from_secs(10);
/// ... up to this. RFC 8899 §5.1.1: `PMTU_RAISE_TIMER`.
const RAISE_MAX: Duration = Duration::from_secs(600);

/// What is asked for below the maximum, bytes; what is between two of them costs 1.6 % at most.
/// Chosen: RFC 1191 §7.1's plateaus above Ethernet;
/// then Ethernet, PPPoE, tunnels over IPv4 and IPv6, WireGuard, and steps of 20 down to what IPv6
/// requires. Below the base in steps of 40: a path that carries so little is rare.
const COMMON_BYTES: [u16; 35] = [
    32_000, 17_914, 9_000, 8_166, 4_352, 2_002, 1_500, 1_492, 1_480, 1_460, 1_440, 1_420, 1_400, 1_380,
    1_360, 1_340, 1_320, 1_300, 1_280, BASE_BYTES, 1_160, 1_120, 1_080, 1_040, 1_000, 960, 920, 880, 840,
    800, 760, 720, 680, 640, 600,
];

/// The size in use is confirmed at most this often ... Chosen: a black hole is found in seconds.
const CONFIRM_MIN: Duration = Duration::from_secs(1);
/// ... at least this often while something large is sent ... Chosen: the same on a slow link.
const CONFIRM_MAX: Duration = Duration::from_secs(5);
/// ... and in between when so many times its bytes were sent. Chosen: it costs 1 %.
const CONFIRM_SHARE: u64 = 100;
/// A datagram of this size, bytes, says that sizes matter to this link, or of 7/8 of what is in use
/// if that is less. Chosen: below the base.
const USED_BYTES: u16 = 1_000;
/// Probes under way at a time. Chosen: more would be a burst that slow links feel.
const UNDERWAY_MAX: usize = 3;
/// Probes whose answers are understood. Chosen: twice what a search has under way, and more.
const RECENT_MAX: usize = 8;

/// Where the search is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Searching,
    Complete,
}

/// A probe under way.
#[derive(Debug, Clone, Copy)]
struct Underway {
    id: u32,
    bytes: u16,
    sent_at: Instant,
    timeout: Duration,
    overdue_at: Instant,
}

/// A probe to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::link) struct Probe {
    /// Its name.
    pub(in crate::link) id: u32,
    /// The size of its IP packet.
    pub(in crate::link) bytes: u16,
}

/// The search of one link.
#[derive(Debug, Clone)]
pub(in crate::link) struct PathMtu {
    max: u16,
    /// The largest size that is known to pass.
    confirmed: u16,
    /// It is the base, and was not answered yet.
    is_assumed: bool,
    /// The smallest size that was given up; above the maximum: none.
    ceiling: u16,
    phase: Phase,
    /// Sizes that were lost, and how often; fewer than the table has.
    losses: Vec<(u16, u8)>,
    underway: Vec<Underway>,
    recent: VecDeque<(u32, u16)>,
    next_id: u32,
    /// Confirmations lost in a row.
    unconfirmed: u8,
    proven_at: Instant,
    /// Bytes of datagrams above the base since then.
    large_bytes: u64,
    /// The link loses most of what is sent.
    suspected: bool,
    used: bool,
    raise_at: Option<Instant>,
    /// From the end of the next search to the one after.
    raise_after: Duration,
}

impl PathMtu {
    /// Nothing is known but that no more than `max` is to be asked for.
    pub(in crate::link) fn new(max: u16) -> Self {
        let mut mtu = Self {
            max,
            confirmed: BASE_BYTES,
            is_assumed: true,
            ceiling: u16::MAX,
            phase: Phase::Opening,
            losses: Vec::new(),
            underway: Vec::new(),
            recent: VecDeque::new(),
            next_id: 0,
            unconfirmed: 0,
            proven_at: Instant::ZERO,
            large_bytes: 0,
            suspected: false,
            used: false,
            raise_at: None,
            raise_after: RAISE_MIN,
        };
        mtu.restart(max);
        mtu
    }

    /// Another path: what was learnt is void.
    pub(in crate::link) fn restart(&mut self, max: u16) {
        self.max = max;
        self.confirmed = max.clamp(FLOOR_BYTES, BASE_BYTES);
        self.is_assumed = self.confirmed > FLOOR_BYTES;
        self.ceiling = max.saturating_add(1);
        self.phase = match max {
            0..=FLOOR_BYTES => Phase::Complete,
            _ if max <= BASE_BYTES => Phase::Searching,
            _ => Phase::Opening,
        };
        self.losses.clear();
        self.underway.clear();
        self.recent.clear();
        self.unconfirmed = 0;
        self.suspected = false;
        self.raise_at = None;
        self.raise_after = RAISE_MIN;
    }

    /// The size in use.
    pub(in crate::link) const fn bytes(&self) -> u16 {
        self.confirmed
    }

    /// The largest size that is ever asked for.
    pub(in crate::link) const fn max(&self) -> u16 {
        self.max
    }

    /// The first answer is still to come: a packet that is too large now may not be in a moment.
    pub(in crate::link) fn is_opening(&self) -> bool {
        self.phase == Phase::Opening
    }

    /// The size in use is the largest that passes, as far as is known: what else is asked for was
    /// lost before.
    pub(in crate::link) fn is_settled(&self) -> bool {
        match self.phase {
            Phase::Opening => false,
            Phase::Searching => self.least_lost().is_some_and(|lost| self.open().all(|bytes| bytes >= lost)),
            Phase::Complete => true,
        }
    }

    /// What the owner acts upon.
    fn shown(&self) -> (u16, bool, bool) {
        (self.confirmed, self.is_opening(), self.is_settled())
    }

    /// A datagram went out, in an IP packet of `bytes`.
    pub(in crate::link) fn on_sent(&mut self, bytes: u64) {
        self.used |= bytes >= u64::from(USED_BYTES.min(self.confirmed - self.confirmed / 8));
        if bytes > u64::from(BASE_BYTES.min(self.confirmed.saturating_sub(1))) {
            self.large_bytes = self.large_bytes.saturating_add(bytes);
        }
    }

    /// A datagram of `bytes` (its IP packet) is known to have arrived.
    pub(in crate::link) fn on_delivered(&mut self, bytes: u32, now: Instant) {
        if bytes >= u32::from(self.confirmed) && self.phase == Phase::Complete {
            self.on_confirmed(now);
        }
    }

    /// The size in use passes.
    const fn on_confirmed(&mut self, now: Instant) {
        self.proven_at = now;
        self.large_bytes = 0;
        self.unconfirmed = 0;
        self.suspected = false;
    }

    /// The link has begun to lose most of what is sent.
    pub(in crate::link) const fn on_heavy_loss(&mut self) {
        self.suspected = true;
    }

    /// The probe to send now; its answer is overdue after `timeout`. To be called only while the
    /// link is proven to deliver.
    pub(in crate::link) fn poll_probe(&mut self, timeout: Duration, now: Instant) -> Option<Probe> {
        if self.phase == Phase::Complete && self.is_raise_due(now) {
            self.raise_at = None;
            self.ceiling = self.max.saturating_add(1);
            self.phase = Phase::Searching;
        }
        // The maximum is asked for alone, and so is the first confirmation.
        let alone = match self.phase {
            Phase::Opening => true,
            Phase::Searching => self.losses.is_empty() && self.ceiling > self.max,
            Phase::Complete => self.unconfirmed == 0,
        };
        if self.underway.len() >= if alone { 1 } else { UNDERWAY_MAX } {
            return None;
        }
        let bytes = match self.phase {
            Phase::Opening | Phase::Searching => self.next_size()?,
            Phase::Complete => self.confirmation_due(now).then_some(self.confirmed)?,
        };
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.underway.push(Underway { id, bytes, sent_at: now, timeout, overdue_at: now + timeout });
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((id, bytes));
        Some(Probe { id, bytes })
    }

    /// Whether [`Self::poll_probe`] may have a probe.
    pub(in crate::link) fn may_probe(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Opening => self.underway.is_empty(),
            Phase::Searching => self.underway.len() < UNDERWAY_MAX,
            Phase::Complete => self.is_raise_due(now) || self.confirmation_due(now),
        }
    }

    /// Whether a search that found less than the maximum is to begin anew.
    fn is_raise_due(&self, now: Instant) -> bool {
        self.used && self.raise_at.is_some_and(|at| at <= now)
    }

    /// The peer received probe `id` with `bytes`. Whether the size in use or the search's state
    /// changed.
    pub(in crate::link) fn on_answer(&mut self, id: u32, bytes: u16, now: Instant) -> bool {
        // Of another size than it was sent with, or of before the present path: it says nothing.
        if !self.recent.contains(&(id, bytes)) {
            return false;
        }
        self.underway.retain(|probe| probe.id != id);
        let before = self.shown();
        if bytes < self.confirmed {
            self.conclude(now);
            return before != self.shown();
        }
        self.on_confirmed(now);
        (self.confirmed, self.is_assumed) = (bytes, false);
        self.ceiling = self.ceiling.max(bytes.saturating_add(1));
        self.losses.retain(|(lost, _)| *lost > bytes);
        self.conclude(now);
        before != self.shown()
    }

    /// Time has passed; `delivered_at` is when the newest datagram was sent that is known to have
    /// arrived, and `up` whether the link is proven at all. Whether the size in use or the search's
    /// state changed.
    pub(in crate::link) fn on_time(&mut self, delivered_at: Option<Instant>, up: bool, now: Instant) -> bool {
        let before = self.shown();
        if !up {
            self.underway.retain(|probe| probe.overdue_at > now);
            return false;
        }
        while let Some(at) = self.underway.iter().position(|probe| probe.overdue_at <= now) {
            let Some(probe) = self.underway.get_mut(at) else { break };
            if delivered_at.is_none_or(|at| at <= probe.sent_at) {
                // RFC 8899 §3, item 7: loss of everything is not loss by size.
                probe.overdue_at = now + probe.timeout;
            } else {
                let lost = self.underway.swap_remove(at).bytes;
                self.on_lost(lost, now);
            }
        }
        before != self.shown()
    }

    fn on_lost(&mut self, bytes: u16, now: Instant) {
        if self.phase == Phase::Complete {
            self.unconfirmed += u8::from(bytes == self.confirmed);
            if self.unconfirmed >= PROBES_MAX {
                self.on_black_hole(now);
            }
            return;
        }
        self.phase = Phase::Searching;
        let is_asked = bytes > self.confirmed || (self.is_assumed && bytes == self.confirmed);
        if is_asked && bytes < self.ceiling {
            let count = self.lost_count(bytes) + 1;
            self.losses.retain(|(lost, _)| *lost != bytes);
            self.losses.push((bytes, count));
            if count >= PROBES_MAX {
                self.give_up(bytes);
                self.step_down();
            }
        }
        self.conclude(now);
    }

    /// The size in use passes no more, where it was given up: what is less passes, as far as is
    /// known.
    fn step_down(&mut self) {
        if self.ceiling <= self.confirmed {
            (self.confirmed, self.is_assumed) =
                if self.ceiling > BASE_BYTES { (BASE_BYTES, true) } else { (FLOOR_BYTES, false) };
        }
    }

    /// This machine sends nothing of `bytes` on the link's interface. Whether the size in use or
    /// the search's state changed.
    pub(in crate::link) fn on_refused(&mut self, bytes: u16, now: Instant) -> bool {
        if bytes <= FLOOR_BYTES || bytes >= self.ceiling {
            return false;
        }
        let before = self.shown();
        self.underway.retain(|probe| probe.bytes < bytes);
        self.give_up(bytes);
        if self.confirmed >= bytes {
            self.step_down();
            self.recent.clear();
        } else if self.phase == Phase::Complete {
            return false;
        }
        self.phase = Phase::Searching;
        self.conclude(now);
        before != self.shown()
    }

    /// When [`Self::on_time`] is due.
    pub(in crate::link) fn poll_timeout(&self) -> Option<Instant> {
        self.underway.iter().map(|probe| probe.overdue_at).min()
    }

    fn give_up(&mut self, bytes: u16) {
        self.ceiling = self.ceiling.min(bytes);
        self.losses.retain(|(lost, _)| *lost < bytes);
    }

    /// RFC 8899 §4.3: what was confirmed passes no more.
    fn on_black_hole(&mut self, now: Instant) {
        self.recent.clear();
        self.underway.clear();
        self.give_up(self.confirmed);
        self.step_down();
        self.unconfirmed = 0;
        self.phase = Phase::Searching;
        self.conclude(now);
    }

    /// Ends the search if nothing larger is left to be asked for.
    fn conclude(&mut self, now: Instant) {
        if self.phase == Phase::Complete || !self.underway.is_empty() || self.next_size().is_some() {
            return;
        }
        self.phase = Phase::Complete;
        self.losses.clear();
        self.proven_at = now;
        self.large_bytes = 0;
        self.suspected = false;
        self.used = false;
        self.raise_at = (self.confirmed < self.max).then(|| now + self.raise_after);
        self.raise_after = (self.raise_after * 2).min(RAISE_MAX);
    }

    fn confirmation_due(&self, now: Instant) -> bool {
        if self.confirmed <= FLOOR_BYTES || self.large_bytes == 0 {
            return false;
        }
        let is_older = |than: Duration| now >= self.proven_at + than;
        let worth = self.large_bytes >= CONFIRM_SHARE * u64::from(self.confirmed);
        if self.unconfirmed > 0 {
            let underway = self.underway.iter().filter(|probe| probe.bytes == self.confirmed).count();
            return usize::from(self.unconfirmed) + underway < usize::from(PROBES_MAX);
        }
        self.suspected || (is_older(CONFIRM_MIN) && worth) || is_older(CONFIRM_MAX)
    }

    /// The sizes that may still pass, downwards.
    fn open(&self) -> impl Iterator<Item = u16> + Clone + '_ {
        let common = COMMON_BYTES.into_iter().filter(|bytes| *bytes < self.max);
        std::iter::once(self.max)
            .chain(common)
            .filter(|bytes| *bytes > self.confirmed && *bytes < self.ceiling)
    }

    fn lost_count(&self, bytes: u16) -> u8 {
        self.losses.iter().find(|(lost, _)| *lost == bytes).map_or(0, |(_, count)| *count)
    }

    /// The smallest size that was lost and may still pass.
    fn least_lost(&self) -> Option<u16> {
        self.losses.iter().map(|(bytes, _)| *bytes).filter(|bytes| *bytes > self.confirmed).min()
    }

    /// The size to ask for next; `None`: nothing is left, or what is under way is to be waited for.
    fn next_size(&self) -> Option<u16> {
        self.next_larger().or_else(|| self.next_assumed())
    }

    /// The size in use, once nothing larger is left, if it was never answered.
    fn next_assumed(&self) -> Option<u16> {
        let is_smallest = self.underway.iter().all(|probe| probe.bytes <= self.confirmed);
        let asked = usize::from(self.lost_count(self.confirmed)) + self.underway.len();
        let is_next = self.is_assumed && is_smallest && self.least_lost().is_none();
        (is_next && asked < usize::from(PROBES_MAX)).then_some(self.confirmed)
    }

    /// The larger size to ask for next.
    fn next_larger(&self) -> Option<u16> {
        let underway = self.underway.iter().map(|probe| probe.bytes).filter(|bytes| *bytes > self.confirmed);
        let bound = underway.clone().chain(self.least_lost()).min();
        let below = || self.open().filter(move |bytes| bound.is_none_or(|bound| *bytes < bound));
        if bound.is_none() && self.ceiling > self.max {
            return self.open().next();
        }
        if let Some(bytes) = below().nth(below().count() / 2) {
            return Some(bytes);
        }
        let lost = self.least_lost()?;
        let asked = usize::from(self.lost_count(lost)) + underway.filter(|bytes| *bytes == lost).count();
        // Not before all that is smaller is known.
        (bound == Some(lost) && asked < usize::from(PROBES_MAX)).then_some(lost)
    }
}

#[cfg(test)]
mod tests;
