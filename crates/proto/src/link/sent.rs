//! What one sealed link has sent and what became of it, from its peer's feedback.
//!
//! Every datagram is noted in the order of sending. Counters on the wire begin anew with each key; here they go on, so that a
//! rekey loses no knowledge. A datagram is *delivered* when feedback names it, *lost* when one that was sent three later is
//! delivered, or one that was sent later by an eighth of the round trip is (RFC 9002 §6.1; no timer of silence
//! decides: what is silent is for the link's health to judge). One that was taken for lost and arrives after all counts as
//! delivered.
//!
//! Contract: `on_feedback` is given frames whose runs were checked. Memory: at most [`LOG_MAX`] datagrams, and none older than [`WAIT_MAX`];
//! the oldest that waited count as lost. It knows no rates.

use std::collections::VecDeque;
use std::time::Duration;

use crate::discard::Discard;
use crate::time::Instant;
use crate::wire::feedback::Feedback;

/// Datagrams remembered: 0.6 s of 1,400-byte packets at 1 Gbit/s.
const LOG_MAX: usize = 65_536;

/// RFC 9002 §6.1.1.
const PACKET_THRESHOLD: u64 = 3;
/// RFC 9002 §6.1.2: granularity.
const TIME_THRESHOLD_MIN: Duration = Duration::from_millis(1);

/// Datagrams behind the newest delivered one that are remembered although they are settled.
const LATE_MAX: u64 = 1_024;
/// Nothing settled is remembered for longer than this, nor what nobody asked an answer for.
const KEEP_MAX: Duration = Duration::from_millis(400);
/// What has no answer after this has none coming.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// An idle link keeps room for so many.
const IDLE_ROOM: usize = 16;

/// Keys whose feedback may still come.
const KEYS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Underway,
    Delivered,
    Lost,
}

/// One datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// When.
    pub(super) at: Instant,
    /// Its bytes, IP and UDP headers included.
    pub(super) bytes: u32,
    fate: Fate,
    /// The peer answers it with feedback.
    asks: bool,
    /// Bytes sent up to and including this one.
    pub(super) total: u64,
    idle_us: u64,
}

impl Sent {
    /// How long the pacer had nothing to send, up to then.
    pub(super) const fn idle(&self) -> Duration {
        Duration::from_micros(self.idle_us)
    }

    fn waits(&self) -> bool {
        self.asks && self.fate == Fate::Underway
    }
}

/// Numbers of one key: counter + base is our number.
#[derive(Debug, Clone, Copy)]
struct Key {
    index: u32,
    base: u64,
}

/// What a feedback frame told that was not known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    /// The largest datagram named.
    pub(super) largest: Sent,
    /// The one of the least delay.
    pub(super) least: Sent,
    /// Whether the largest is news.
    pub(super) is_newer: bool,
}

/// The log of one link.
#[derive(Debug, Default)]
pub(super) struct SentLog {
    log: VecDeque<Sent>,
    /// The number of the log's front.
    first: u64,
    keys: VecDeque<Key>,
    largest_delivered: Option<u64>,
    total: u64,
    delivered: u64,
    lost: u64,
    /// All below this number are settled, or ask for nothing.
    waiting: u64,
}

impl SentLog {
    /// A datagram of `bytes` was sealed as `counter` under `key` and goes out now. `idle`: the pacer's total.
    pub(super) fn on_sent(
        &mut self,
        key: u32,
        counter: u64,
        bytes: u64,
        asks: bool,
        idle: Duration,
        now: Instant,
    ) {
        let number = self.first + self.log.len() as u64;
        let base = number.wrapping_sub(counter);
        if self.keys.back().is_none_or(|known| (known.index, known.base) != (key, base)) {
            if self.keys.len() == KEYS {
                self.keys.pop_front();
            }
            self.keys.push_back(Key { index: key, base });
        }
        while let Some(front) = self.log.front() {
            let age_max = if front.waits() { WAIT_MAX } else { KEEP_MAX };
            if self.log.len() < LOG_MAX && now.saturating_since(front.at) < age_max {
                break;
            }
            self.give_up_front();
        }
        self.total += bytes;
        if self.log.capacity() > IDLE_ROOM && self.log.len() < IDLE_ROOM / 2 {
            self.log.shrink_to(IDLE_ROOM);
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let idle_us = u64::try_from(idle.as_micros()).unwrap_or(u64::MAX);
        self.log.push_back(Sent { at: now, bytes, fate: Fate::Underway, asks, total: self.total, idle_us });
    }

    /// Takes a frame. `rtt`: the smoothed round trip.
    pub(super) fn on_feedback(
        &mut self,
        feedback: &Feedback,
        rtt: Duration,
    ) -> Result<Option<Told>, Discard> {
        let key = self.keys.iter().rev().find(|key| key.index == feedback.key);
        let base = key.ok_or(Discard::Stale)?.base;
        let number = base.wrapping_add(feedback.largest);
        let end = self.first + self.log.len() as u64;
        if number >= end {
            return Err(Discard::FeedbackMalformed);
        }
        let Some(largest) = self.get(number) else { return Ok(None) };
        for (low, high) in feedback.runs.counters(feedback.largest) {
            let (low, high) = (base.wrapping_add(low), base.wrapping_add(high));
            if high < self.first {
                break;
            }
            self.deliver(low.max(self.first), high);
        }
        let is_newer = self.largest_delivered.is_none_or(|known| number > known);
        if is_newer {
            self.largest_delivered = Some(number);
        }
        self.find_lost(largest.at, rtt);
        self.forget_settled();
        let least = number.checked_sub(u64::from(feedback.least_back)).and_then(|number| self.get(number));
        Ok(Some(Told { largest, least: least.unwrap_or(largest), is_newer }))
    }

    /// Bytes sent.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Bytes known to have arrived.
    pub(super) const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Bytes taken for lost.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// The oldest datagram that waits for feedback.
    pub(super) fn waiting(&self) -> Option<Sent> {
        let from = usize::try_from(self.waiting.saturating_sub(self.first)).ok()?;
        self.log.iter().skip(from).find(|sent| sent.waits()).copied()
    }

    /// The peer was restarted: it knows nothing of what was sent.
    pub(super) fn clear(&mut self) {
        self.first += self.log.len() as u64;
        self.log.clear();
        self.keys.clear();
        self.largest_delivered = None;
    }

    fn get(&self, number: u64) -> Option<Sent> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.log.get(at).copied()
    }

    /// Numbers `low` to `high`, both in the log or `low` at its front.
    fn deliver(&mut self, low: u64, high: u64) {
        let Ok(from) = usize::try_from(low.saturating_sub(self.first)) else { return };
        let Ok(count) = usize::try_from((high + 1).saturating_sub(low)) else { return };
        for sent in self.log.iter_mut().skip(from).take(count) {
            let bytes = u64::from(sent.bytes);
            match std::mem::replace(&mut sent.fate, Fate::Delivered) {
                Fate::Delivered => {}
                Fate::Underway => self.delivered += bytes,
                Fate::Lost => {
                    self.delivered += bytes;
                    self.lost = self.lost.saturating_sub(if sent.asks { bytes } else { 0 });
                }
            }
        }
    }

    /// What the newest delivered datagram, sent at `newest_at`, shows to be lost.
    fn find_lost(&mut self, newest_at: Instant, rtt: Duration) {
        let Some(largest) = self.largest_delivered else { return };
        let slack = (rtt / 8).max(TIME_THRESHOLD_MIN);
        let Ok(count) = usize::try_from(largest.saturating_sub(self.first)) else { return };
        for (number, sent) in (self.first..).zip(self.log.iter_mut().take(count)) {
            if sent.fate != Fate::Underway {
                continue;
            }
            if number + PACKET_THRESHOLD > largest && sent.at + slack > newest_at {
                continue;
            }
            sent.fate = Fate::Lost;
            // A probe of the path's MTU is no loss of ours.
            if sent.asks {
                self.lost += u64::from(sent.bytes);
            }
        }
    }

    /// Drops what is settled from the front, but for the last ones: lost ones may still arrive, and the least delay is
    /// that of any datagram since the last feedback.
    fn forget_settled(&mut self) {
        let Some(largest) = self.largest_delivered else { return };
        self.waiting = self.waiting.max(self.first);
        while self.get(self.waiting).is_some_and(|sent| !sent.waits()) {
            self.waiting += 1;
        }
        while self.first + LATE_MAX <= largest
            && self.log.front().is_some_and(|front| front.fate != Fate::Underway)
        {
            self.log.pop_front();
            self.first += 1;
        }
    }

    fn give_up_front(&mut self) {
        let Some(front) = self.log.pop_front() else { return };
        self.first += 1;
        if front.waits() {
            self.lost += u64::from(front.bytes);
        }
    }
}
