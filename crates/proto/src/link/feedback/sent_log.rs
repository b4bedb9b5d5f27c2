//! What one sealed link has sent and what became of it, from its peer's feedback.
//!
//! Every datagram is noted in the order of sending. Counters on the wire begin anew with each key;
//! here they go on, so that a rekey loses no knowledge. A datagram is *delivered* when feedback
//! names it, *lost* when one that was sent three later is delivered, or one that was sent later by
//! an eighth of the round trip is (RFC 9002 §6.1; no timer of silence decides: that is the health's
//! to judge). On a link that reorders both are as much as [`super::reordering`] learned from all
//! datagrams that feedback named after later ones (RFC 8985 §6.2). One that was taken for lost and
//! arrives after all counts as delivered, and as *spurious* where its packet had been given back to
//! be sent again.
//!
//! A datagram can bear the packet that it carries. The log keeps it while its fate is open, and
//! gives it back once it is lost ([`SentLog::take_lost`]), or when the link is given up
//! ([`SentLog::take_underway`]).
//!
//! Contract: `on_feedback` is given frames whose runs were checked. Memory: at most [`LOG_MAX`]
//! datagrams, and none older than [`WAIT_MAX`]; the oldest that waited count as lost. The caller
//! bounds how many bytes of packets it keeps ([`SentLog::kept_bytes`]). It knows no rates.

use std::collections::VecDeque;
use std::time::Duration;

use super::kept::Kept;
use super::marks::Marks;
use super::reordering::{Patience, Reordering};
use crate::discard::Discard;
use crate::packet::{KeptPacket, UdpFlow};
use crate::time::Instant;
use crate::wire::feedback::Feedback;

/// Datagrams remembered. Chosen: 0.6 s of 1,400-byte packets at 1 Gbit/s.
const LOG_MAX: usize = 65_536;

/// RFC 9002 §6.1.1: `kPacketThreshold`.
const PACKET_THRESHOLD: u64 = 3;
/// Where a link reorders, so many times the datagrams that were late count, of what was sent longer
/// ago than ... Chosen: the rate may double within a round trip of slow start.
const PACKETS_MARGIN: u64 = 2;
/// ... this part of the time. Chosen: when the rate jumps by more, as many datagrams as were ever
/// late follow within a moment (RFC 8985 §6.2 then counts none at all).
const PACKETS_AFTER: u32 = 2;
/// RFC 9002 §6.1.2: `kGranularity`.
const TIME_THRESHOLD_MIN: Duration = Duration::from_millis(1);

/// Datagrams behind the newest delivered one that are remembered although their fate is known, or
/// [`PACKETS_MARGIN`] times as many as may be late. Chosen: 10 ms at 1 Gbit/s.
const LATE_MAX: u64 = 1_024;
/// A datagram whose fate is known, or that asks for no answer, is remembered for this. Chosen:
/// feedback of a far link that was lost once.
const KEEP_MAX: Duration = Duration::from_millis(400);
/// A datagram without an answer after this has none coming. Chosen: above any queue.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// An idle link keeps room for so many datagrams. Chosen: memory of idle sessions.
const IDLE_ROOM: usize = 8;

/// Losses that the mean of a burst is over, at most. Chosen: some bursts of twenty.
const LOST_KEPT: u32 = 256;

/// Keys whose feedback may still come. Chosen: the one before, the one in use, the next.
const KEYS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Underway,
    Delivered,
    Lost,
}

/// One datagram.
#[derive(Debug, Clone, Copy)]
pub(in crate::link) struct Sent {
    /// When.
    pub(in crate::link) at: Instant,
    /// Its bytes, IP and UDP headers included.
    pub(in crate::link) bytes: u32,
    fate: Fate,
    /// The peer answers it with feedback.
    asks: bool,
    /// Its packet was given back to be sent again.
    is_resent: bool,
    /// Bytes sent up to and including this one.
    pub(in crate::link) total: u64,
    idle_us: u64,
}

/// A datagram as it is about to be sent.
#[derive(Debug)]
pub struct Outgoing {
    /// The receiver index of the key that sealed it, and its counter; `None`: it is plain.
    pub sealed: Option<(u32, u64)>,
    /// It carries data, so the peer answers it with feedback.
    pub asks: bool,
    /// What is to be had back if it is lost.
    pub frame: Option<KeptPacket>,
    /// The flow of data.
    pub(crate) flow: Option<UdpFlow>,
}

impl Outgoing {
    /// A datagram whose fate the session does not ask for.
    pub const fn control(sealed: Option<(u32, u64)>) -> Self {
        Self { sealed, asks: false, frame: None, flow: None }
    }
}

impl Sent {
    /// How long the pacer had nothing to send, up to then.
    pub(in crate::link) const fn idle(&self) -> Duration {
        Duration::from_micros(self.idle_us)
    }

    fn waits(&self) -> bool {
        self.asks && self.is_underway()
    }

    fn is_underway(&self) -> bool {
        self.fate == Fate::Underway
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
pub(in crate::link) struct Told {
    /// The largest datagram named.
    pub(in crate::link) largest: Sent,
    /// The one of the least delay, if it is remembered.
    pub(in crate::link) least: Option<Sent>,
    /// Whether the largest is news.
    pub(in crate::link) is_newer: bool,
}

/// What became of packets that were sent again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResendCounts {
    /// Arrived by being sent again.
    pub recovered: u64,
    /// Sent again although the first one arrived.
    pub spurious: u64,
}

/// Rows of datagrams lost.
#[derive(Debug, Default)]
struct Bursts {
    /// In all.
    rows: u64,
    /// Datagrams lost lately, and in how many rows.
    lately_pkts: u32,
    lately_rows: u32,
}

impl Bursts {
    /// A datagram is lost; `follows`: so is the one before it.
    fn on_lost(&mut self, follows: bool) {
        self.lately_pkts += 1;
        self.lately_rows += u32::from(!follows);
        self.rows += u64::from(!follows);
    }

    /// Forgets what is older than the last few hundred.
    const fn forget_old(&mut self) {
        if self.lately_pkts >= LOST_KEPT {
            self.lately_pkts /= 2;
            self.lately_rows /= 2;
        }
    }

    /// The mean length of a row, in tenths; 10 where nothing is known.
    fn tenths(&self) -> u16 {
        let rows = self.lately_rows.max(1);
        u16::try_from(self.lately_pkts.saturating_mul(10) / rows).unwrap_or(u16::MAX).max(10)
    }
}

/// The log of one link.
#[derive(Debug, Default)]
pub(in crate::link) struct SentLog {
    log: VecDeque<Sent>,
    /// The number of the log's front.
    first: u64,
    /// An index of the log, by fate.
    marks: Marks,
    /// Datagrams and words of the index that feedback made this look at.
    touched: u64,
    keys: VecDeque<Key>,
    largest_delivered: Option<u64>,
    total: u64,
    delivered: u64,
    lost: u64,
    /// The fate of all below this number is known.
    underway: u64,
    reordering: Reordering,
    lost_frames: Vec<KeptPacket>,
    /// Pieces of streams, and messages about them, known to have arrived since they were last asked
    /// for.
    arrived_pieces: Vec<KeptPacket>,
    kept: Kept,
    counts: ResendCounts,
    bursts: Bursts,
    /// The largest datagram that was delivered since it was last asked for.
    delivered_max: u32,
}

impl SentLog {
    /// A datagram of `bytes` goes out now, sealed as `key` and `counter` say. `idle`: the pacer's
    /// total.
    #[inline]
    pub(in crate::link) fn on_sent(
        &mut self,
        (key, counter): (u32, u64),
        outgoing: Outgoing,
        bytes: u64,
        idle: Duration,
        now: Instant,
    ) {
        let number = self.end();
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
        if self.log.capacity() > IDLE_ROOM && self.log.len() + 1 < IDLE_ROOM {
            self.log.shrink_to(IDLE_ROOM);
            self.marks.shrink();
        }
        self.marks.push(number, outgoing.asks);
        if let Some(frame) = outgoing.frame {
            self.kept.put(number, frame);
        }
        self.log.push_back(Sent {
            at: now,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            fate: Fate::Underway,
            asks: outgoing.asks,
            is_resent: false,
            total: self.total,
            idle_us: u64::try_from(idle.as_micros()).unwrap_or(u64::MAX),
        });
    }

    /// Takes a frame. `rtt`: the smoothed round trip. `guess`: how late datagrams are taken to be
    /// where that is not learned yet.
    pub(in crate::link) fn on_feedback(
        &mut self,
        feedback: &Feedback,
        (rtt, guess): (Duration, Duration),
        now: Instant,
    ) -> Result<Option<Told>, Discard> {
        let key = self.keys.iter().rev().find(|key| key.index == feedback.key);
        let base = key.ok_or(Discard::Stale)?.base;
        let number = base.wrapping_add(feedback.largest);
        if number >= self.end() {
            return Err(Discard::FeedbackMalformed);
        }
        let Some(largest) = self.get(number) else { return Ok(None) };
        // Before what is known is forgotten.
        let least = number.checked_sub(u64::from(feedback.least_back)).and_then(|number| self.get(number));
        let is_newer = self.largest_delivered.is_none_or(|known| number > known);
        for (low, high) in feedback.runs.counters(feedback.largest) {
            let (low, high) = (base.wrapping_add(low), base.wrapping_add(high));
            if high < self.first {
                break;
            }
            self.deliver(low.max(self.first), high, now);
        }
        if is_newer {
            self.largest_delivered = Some(number);
        }
        let patience = self.patience(rtt, guess);
        self.find_lost(patience);
        self.forget_known(patience);
        Ok(Some(Told { largest, least, is_newer }))
    }

    /// Bytes sent.
    pub(in crate::link) const fn total(&self) -> u64 {
        self.total
    }

    /// Bytes known to have arrived.
    pub(in crate::link) const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Bytes taken for lost.
    pub(in crate::link) const fn lost(&self) -> u64 {
        self.lost
    }

    /// The size of the largest datagram known to have arrived since the last call.
    pub(in crate::link) fn take_delivered_max(&mut self) -> u32 {
        std::mem::take(&mut self.delivered_max)
    }

    /// Datagrams and words of the index that feedback made this look at, in all.
    pub(in crate::link) const fn touched(&self) -> u64 {
        self.touched
    }

    /// In how many rows datagrams were taken for lost.
    pub(in crate::link) const fn rows(&self) -> u64 {
        self.bursts.rows
    }

    /// Bytes of packets that are kept.
    pub(in crate::link) const fn kept_bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// What became of packets that were sent again.
    pub(in crate::link) const fn counts(&self) -> ResendCounts {
        self.counts
    }

    /// By how much the link is known to reorder.
    pub(in crate::link) fn reorders_by(&self) -> Duration {
        self.reordering.patience(Duration::ZERO).map_or(Duration::ZERO, |patience| patience.time)
    }

    /// The oldest datagram that waits for feedback, and was sent after all that are known to have
    /// arrived: what waits longer is lost or was overtaken, and no queue is ahead of it.
    pub(in crate::link) fn waiting(&self) -> Option<Sent> {
        let after = self.largest_delivered.map_or(self.first, |largest| largest + 1);
        self.get(self.marks.waiting(after)?)
    }

    /// The packets found lost since the last call, oldest first.
    pub(in crate::link) fn take_lost(&mut self) -> Vec<KeptPacket> {
        std::mem::take(&mut self.lost_frames)
    }

    /// The pieces of streams, and messages about them, that arrived since the last call.
    pub(in crate::link) fn take_arrived(&mut self) -> Vec<KeptPacket> {
        std::mem::take(&mut self.arrived_pieces)
    }

    /// The oldest packets whose fate is open, at most `count`: their end was not heard of.
    pub(in crate::link) fn take_end(&mut self, count: usize) -> Vec<KeptPacket> {
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some(number) = self.kept.first()
        {
            taken.extend(self.kept.take(number));
            if let Some(sent) = self.get_mut(number) {
                sent.is_resent = true;
            }
        }
        taken
    }

    /// The packets whose fate is open: the caller does not expect them to arrive.
    pub(in crate::link) fn take_underway(&mut self) -> Vec<KeptPacket> {
        self.take_end(usize::MAX)
    }

    /// When the first datagram that asks for an answer was sent after `at`.
    pub(in crate::link) fn first_asked_after(&self, at: Instant) -> Option<Instant> {
        let from = self.log.partition_point(|sent| sent.at <= at);
        self.get(self.marks.asking(self.first + from as u64)?).map(|sent| sent.at)
    }

    /// The peer was restarted: it knows nothing of what was sent.
    pub(in crate::link) fn clear(&mut self) {
        self.first = self.end();
        self.log.clear();
        self.marks.clear();
        self.keys.clear();
        self.lost_frames.clear();
        self.arrived_pieces.clear();
        self.kept.clear();
        self.largest_delivered = None;
    }

    /// The number of the next datagram.
    fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// How many datagrams were lost in a row, in the mean over the last few hundred, in tenths; 10
    /// where nothing is known.
    pub(in crate::link) fn burst_tenths(&self) -> u16 {
        self.bursts.tenths()
    }

    fn get(&self, number: u64) -> Option<Sent> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.log.get(at).copied()
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Sent> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.log.get_mut(at)
    }

    /// Numbers `low` to `high`, both in the log or `low` at its front. Called before the frame's
    /// largest counts as delivered: what was given up then comes late.
    fn deliver(&mut self, low: u64, high: u64, now: Instant) {
        let newest = self.largest_delivered.and_then(|number| Some((number, self.get(number)?.at)));
        let mut arrived = 0;
        let mut from = low;
        while let Some(number) = self.marks.undelivered(from..high.saturating_add(1), &mut self.touched) {
            from = number + 1;
            self.marks.on_delivered(number);
            let Some(sent) = self.get_mut(number) else { break };
            let bytes = u64::from(sent.bytes);
            let (sent_at, asks) = (sent.at, sent.asks);
            let is_resent = std::mem::take(&mut sent.is_resent);
            if std::mem::replace(&mut sent.fate, Fate::Delivered) == Fate::Lost && asks {
                self.lost = self.lost.saturating_sub(bytes);
            }
            self.delivered += bytes;
            arrived += 1;
            if let Some((newest, newest_at)) = newest.filter(|(newest, _)| *newest > number) {
                self.reordering.on_late(newest - number, newest_at.saturating_since(sent_at));
            }
            self.delivered_max = self.delivered_max.max(u32::try_from(bytes).unwrap_or(u32::MAX));
            self.counts.spurious += u64::from(is_resent);
            if let Some(frame) = self.kept.take(number) {
                self.counts.recovered += u64::from(frame.tries() > 0);
                if frame.stream().is_some() {
                    self.arrived_pieces.push(frame);
                }
            }
        }
        self.reordering.on_arrived(arrived, now);
    }

    /// How much later than a delivered datagram another one may still arrive.
    fn patience(&self, rtt: Duration, guess: Duration) -> Patience {
        let time = (rtt / 8).max(TIME_THRESHOLD_MIN);
        let learned = self.reordering.patience(if guess > time { guess } else { Duration::ZERO });
        learned.map_or(Patience { packets: PACKET_THRESHOLD, time }, |learned| Patience {
            packets: (learned.packets * PACKETS_MARGIN).max(PACKET_THRESHOLD),
            time: learned.time.max(time),
        })
    }

    /// What the newest delivered datagram shows to be lost.
    fn find_lost(&mut self, patience: Patience) {
        let reorders = patience.packets > PACKET_THRESHOLD;
        let packets_after = if reorders { patience.time / PACKETS_AFTER } else { Duration::ZERO };
        let Some(largest) = self.largest_delivered else { return };
        let Some(newest_at) = self.get(largest).map(|newest| newest.at) else { return };
        let from = self.underway.max(self.first);
        let mut at = from;
        while let Some(number) = self.marks.underway(at..largest, &mut self.touched) {
            at = number + 1;
            let follows = number.checked_sub(1).and_then(|before| self.get(before));
            let follows = follows.is_some_and(|before| before.fate == Fate::Lost);
            let Some(sent) = self.get_mut(number) else { break };
            let is_young = sent.at + patience.time > newest_at;
            if is_young && (number + patience.packets > largest || sent.at + packets_after > newest_at) {
                // So are all that were sent later.
                break;
            }
            sent.fate = Fate::Lost;
            let (asks, bytes) = (sent.asks, u64::from(sent.bytes));
            self.marks.on_lost(number);
            self.bursts.on_lost(follows);
            // The loss of a probe of the path's MTU says nothing of the link's loss.
            if asks {
                self.lost += bytes;
            }
            if let Some(frame) = self.kept.take(number) {
                self.lost_frames.push(frame);
                if let Some(sent) = self.get_mut(number) {
                    sent.is_resent = true;
                }
            }
        }
        self.underway = self.marks.underway(from..self.end(), &mut self.touched).unwrap_or(self.end());
        self.bursts.forget_old();
    }

    /// Drops datagrams of known fate from the front, but for the last ones: lost ones may still
    /// arrive.
    fn forget_known(&mut self, patience: Patience) {
        let Some(largest) = self.largest_delivered else { return };
        let late_max = LATE_MAX.max(patience.packets);
        while self.first + late_max <= largest && self.log.front().is_some_and(|front| !front.is_underway()) {
            self.log.pop_front();
            self.first += 1;
        }
        self.marks.forget_below(self.first);
    }

    fn give_up_front(&mut self) {
        let Some(front) = self.log.pop_front() else { return };
        self.lost_frames.extend(self.kept.take(self.first));
        self.first += 1;
        self.marks.forget_below(self.first);
        if front.waits() {
            self.lost += u64::from(front.bytes);
        }
    }
}

#[cfg(test)]
mod tests;
