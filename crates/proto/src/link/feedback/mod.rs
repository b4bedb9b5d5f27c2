//! What the peer tells of one sealed link, and what it is told: the two halves of feedback, the
//! loss and the delays that follow from it.
//!
//! [`Deliveries`] is the sender's half: what was sent, what became of it, and when an answer is
//! overdue. [`acknowledger`] is the receiver's half.

pub(super) mod acknowledger;
pub(super) mod delays;
mod kept;
pub(super) mod loss_meter;
mod marks;
pub(super) mod reordering;
pub(super) mod sent_log;

use std::time::Duration;

use self::acknowledger::END_AFTER;
use self::delays::{RttEstimator, micros_between};
use self::loss_meter::LossMeter;
use self::sent_log::{Outgoing, ResendCounts, Sent, SentLog};
use super::congestion::Observation;
use super::heartbeat::OVERDUE_SLACK;
use super::liveness::params::{OVERDUE_MIN, OVERDUE_SPAN};
use super::path::ecn::Marked;
use crate::packet::KeptPacket;
use crate::time::Instant;

/// A link that carried so many bytes since has feedback on its way; one that carried less is
/// answered with the next heartbeat. Chosen: three times what makes feedback due.
const FEEDBACK_AFTER_BYTES: u64 = 20_000;

/// Feedback of a link that carries much is not missed before this. Chosen: the longest spacing of
/// feedback.
const GAP_MIN: Duration = Duration::from_millis(25);

/// The end of what was sent is overdue after the round trip, four times its variation (at least
/// this), the receiver's wait for more, and ... (RFC 9002 §6.2.1: the probe timeout).
const END_VARIATION_MIN: Duration = Duration::from_millis(5);
/// ... this. Chosen: it covers scheduling on both hosts.
const END_SLACK: Duration = Duration::from_millis(10);
/// So many packets of it are sent again at most. Chosen: feedback about these tells of the others.
const END_PACKETS: usize = 8;

/// A feedback frame, read with the peer's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameReading {
    /// When the largest datagram arrived, and the one of the least delay; µs of the peer's clock.
    pub(super) arrived_us: u64,
    pub(super) least_us: u64,
    pub(super) marked: Marked,
}

/// The sender's half of one link.
#[derive(Debug)]
pub(crate) struct Deliveries {
    pub(super) log: SentLog,
    /// When data was sent last, and when the end of such data was given up last.
    data_at: Option<Instant>,
    end_given_up_at: Instant,
    /// When feedback came last, and how far apart it comes.
    taken_at: Option<Instant>,
    gap: Duration,
    /// How long the last two answers took from when what they answer was sent, the newer first;
    /// zero: not known.
    rounds: [Duration; 2],
}

impl Deliveries {
    pub(super) fn new() -> Self {
        Self {
            log: SentLog::default(),
            data_at: None,
            end_given_up_at: Instant::ZERO,
            taken_at: None,
            gap: GAP_MIN,
            rounds: [Duration::ZERO; 2],
        }
    }

    /// A datagram of `bytes` goes out. `idle`: the pacer's total.
    #[inline]
    pub(super) fn on_sent(&mut self, outgoing: Outgoing, bytes: u64, idle: Duration, now: Instant) {
        if outgoing.asks {
            self.data_at = Some(now);
        }
        if let Some(sealed) = outgoing.sealed {
            self.log.on_sent(sealed, outgoing, bytes, idle, now);
        }
    }

    /// The link's number is another line's: what became of what the line before carried says
    /// nothing about it. Counters, and datagrams' numbers, go on.
    pub(super) fn renew(&mut self) {
        let mut log = std::mem::take(&mut self.log);
        log.clear();
        *self = Self { log, ..Self::new() };
    }

    /// Whether data was sent within `lately`.
    pub(super) fn sent_data(&self, lately: Duration, now: Instant) -> bool {
        self.data_at.is_some_and(|at| now.saturating_since(at) < lately)
    }

    /// How far apart feedback comes.
    pub(super) const fn gap(&self) -> Duration {
        self.gap
    }

    /// Newer feedback came, about a datagram sent at `sent_at`. `interval`: the usual distance of
    /// two heartbeats, which answer as well.
    pub(super) fn on_taken(&mut self, sent_at: Instant, interval: Duration, now: Instant) {
        if let Some(at) = self.taken_at.replace(now) {
            let gap = now.saturating_since(at).min(interval);
            self.gap = ((self.gap * 3 + gap) / 4).max(GAP_MIN);
        }
        let [newer, _] = self.rounds;
        self.rounds = [now.saturating_since(sent_at), newer];
    }

    /// What feedback about `largest`, and the datagram of the least delay, tells the control.
    pub(super) fn observation(
        &self,
        largest: &Sent,
        least: Option<&Sent>,
        reading: &FrameReading,
        rtt_min: Duration,
    ) -> Observation {
        let delay_us = micros_between(reading.arrived_us, largest.at.as_micros());
        let least = least.map(|sent| (micros_between(reading.least_us, sent.at.as_micros()), sent.bytes));
        let (least_delay_us, least_bytes) = least.unwrap_or((delay_us, largest.bytes));
        Observation {
            sent_at: largest.at,
            sent: largest.total,
            idle: largest.idle(),
            delivered: self.log.delivered(),
            lost: self.log.lost(),
            lost_rows: self.log.rows(),
            marked: reading.marked,
            delay_us: least_delay_us.min(delay_us),
            delay_bytes: u64::from(least_bytes),
            total: self.log.total(),
            rtt_min,
        }
    }

    /// How long an answer is overdue: the queue that waits ahead of what it answers is at least
    /// that long. On time is what takes as long as one of the last two answers did: the smallest
    /// round trip of 10 s would slow a link down for as long after either way became longer.
    pub(super) fn overdue(&self, rtt: &RttEstimator, interval: Duration, now: Instant) -> Duration {
        let Some(waiting) = self.log.waiting() else { return Duration::ZERO };
        let round = self.rounds.into_iter().max().filter(|round| !round.is_zero());
        let round = round.or(rtt.srtt()).unwrap_or_default();
        let is_much = self.log.total() - waiting.total > FEEDBACK_AFTER_BYTES;
        let gap = if is_much { self.gap } else { interval };
        now.saturating_since(waiting.at + round + gap + OVERDUE_SLACK)
    }

    /// When packets that end what was sent are overdue: nothing was sent after them that could tell
    /// of their loss.
    pub(super) fn end_overdue_at(&self, rtt: &RttEstimator) -> Option<Instant> {
        let sent_at = self.data_at.filter(|_| self.log.kept_bytes() > 0)?;
        let round = rtt.srtt()? + (rtt.rttvar() * 4).max(END_VARIATION_MIN);
        // What was given up may go over another link: nothing tells of the rest of this one's.
        Some(sent_at.max(self.end_given_up_at) + round + END_AFTER + END_SLACK)
    }

    /// Those packets, where they are overdue.
    pub(super) fn take_end(&mut self, rtt: &RttEstimator, now: Instant) -> Vec<KeptPacket> {
        if self.end_overdue_at(rtt).is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.end_given_up_at = now;
        self.log.take_end(END_PACKETS)
    }

    /// Whether the peer, which says that nothing followed the datagram sent at `largest_at` for
    /// `hold`, should have received data since. On a link that reorders that may be what is late.
    pub(super) fn is_silent(&self, largest_at: Instant, hold: Duration, rtt: &RttEstimator) -> bool {
        let patience = OVERDUE_MIN.max(rtt.rttvar() * 4) + self.log.reorders_by();
        let due_before = (largest_at + hold).saturating_sub(patience);
        self.log.first_asked_after(largest_at).is_some_and(|first_at| {
            let later = self.log.first_asked_after(first_at + OVERDUE_SPAN);
            later.is_some_and(|later_at| later_at <= due_before)
        })
    }

    /// The packets found lost since the last call, oldest first.
    pub(crate) fn take_lost(&mut self) -> Vec<KeptPacket> {
        self.log.take_lost()
    }

    /// The pieces of streams, and messages about them, that arrived since the last call.
    pub(crate) fn take_arrived(&mut self) -> Vec<KeptPacket> {
        self.log.take_arrived()
    }

    /// The packets whose fate is open, oldest first: the link is given up.
    pub(crate) fn take_underway(&mut self) -> Vec<KeptPacket> {
        self.log.take_underway()
    }

    /// Bytes of packets kept until their fate is known.
    pub(crate) const fn kept_bytes(&self) -> usize {
        self.log.kept_bytes()
    }

    /// What feedback made this look at.
    pub(crate) const fn touched(&self) -> u64 {
        self.log.touched()
    }

    /// What became of packets that were sent again.
    pub(crate) const fn resend_counts(&self) -> ResendCounts {
        self.log.counts()
    }

    /// What was delivered before says nothing about what will be.
    pub(super) const fn forget_delivery(&mut self) {
        self.rounds = [Duration::ZERO; 2];
    }
}

/// What a link loses of what is sent.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Of everything.
    all: LossMeter,
    /// While no queue stood in the link: what the link loses whatever is sent.
    random: LossMeter,
}

impl Losses {
    /// Of `sent` more datagrams, `received` arrived; `is_own`: the link itself lost the others.
    pub(super) fn on_interval(&mut self, sent: u64, received: u64, is_own: bool, now: Instant) {
        self.all.on_interval(sent, received, now);
        if is_own {
            self.random.on_interval(sent, received, now);
        }
    }

    /// Lost share, permille.
    pub(super) fn permille(&self) -> u16 {
        self.all.permille()
    }

    /// The same without what a queue lost.
    pub(super) fn random_permille(&self) -> u16 {
        self.random.permille()
    }
}
