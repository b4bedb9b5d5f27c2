//! The receiver's half of feedback: what arrived on one sealed link, and when its sender is to be
//! told.
//!
//! Feedback is due when so much data came that it costs at most [`COST_PERMILLE`] of it, but not
//! within [`SPACING_MIN`], an eighth of the round trip (at most [`SPACING_MAX`]; neither counts
//! after [`TOLD_BYTES`]), or more often than [`RETURN_PERMILLE`] of what the link carries the other
//! way allow. A missing datagram is told at once, and so are the three after it, by which the
//! sender knows it for lost. Not so on a link that reorders: there a missing datagram is as a rule
//! on its way, and its sender waits for longer. How late datagrams come is learned from their
//! counters and stamps ([`super::reordering`]).
//!
//! What little traffic brings is told with the next heartbeat, in the same datagram, or when
//! nothing has followed it for [`END_AFTER`]: its sender waits to know whether the end of what it
//! sent arrived; and after [`ACK_DELAY_MAX`] in any case: silence is how a sender notices that a
//! link died, so it must not be the rule. Only data asks for feedback, so that two sides never
//! answer each other's answers.
//!
//! When the peer changes to a new key, the old one's last datagrams are told first, or they would
//! count as lost. It does not know everything that is missing: the replay window does.

use std::time::Duration;

use super::reordering::{Patience, Reordering};
use crate::time::Instant;
use crate::units::BitRate;
use crate::wire::sealed;

/// Share of what is received that feedback may cost, permille. Chosen: with the default of two
/// ranges every 6,500 bytes.
const COST_PERMILLE: u64 = 13;
/// Share of what the link is known to carry the other way, permille. Chosen: a slow way back.
const RETURN_PERMILLE: u64 = 30;
/// A feedback frame with two ranges, sealed, without IP and UDP headers, bytes. Source:
/// PROTOCOL.md.
const FRAME_BYTES: u64 = 85;
/// Bounds of the distance of two reports; between them it is an eighth of the round trip. Chosen:
/// QUIC senders ask for four to eight answers a round trip.
const SPACING_MIN: Duration = Duration::from_millis(5);
/// See [`SPACING_MIN`].
const SPACING_MAX: Duration = Duration::from_millis(25);
/// So many bytes are told without regard to the spacing. Chosen: the sender keeps them until then,
/// and what is kept is to stay in a processor's cache.
const TOLD_BYTES: u64 = 512 << 10;
/// Data after which nothing comes for this long is the end of something. Chosen: a pause of a
/// loaded sender is shorter.
pub(super) const END_AFTER: Duration = Duration::from_millis(10);
/// The sender knows a missing datagram for lost by so many later ones (RFC 9002 §6.1.1).
const LATER_DATAGRAMS: u8 = 3;

/// A link is in steady use on which datagrams came without a longer pause than this ... Chosen:
/// below the silence that is told of.
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// ... for this long. Chosen: a short exchange is no steady use.
const STEADY_MIN: Duration = Duration::from_millis(250);

/// Data is not left without an answer for longer, where the way back is not slow (RFC 9000 §18.2's
/// default for `max_ack_delay`).
pub(in crate::link) const ACK_DELAY_MAX: Duration = Duration::from_millis(25);

/// A sealed datagram that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The receiver index it bears.
    pub key: u32,
    /// Whether that key is the newest in use.
    pub is_current: bool,
    /// Its counter.
    pub counter: u64,
    /// Its stamp.
    pub stamp: u16,
    /// When it reached this host.
    pub at: Instant,
    /// Its bytes of UDP payload.
    pub bytes: usize,
    /// Whether it carries what is to be answered.
    pub asks: bool,
    /// Whether it bears a congestion mark.
    pub is_marked: bool,
}

/// What to tell of one key; the session adds what is missing.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// The receiver index.
    pub key: u32,
    /// The largest counter.
    pub largest: u64,
    /// When it came.
    pub largest_at: Instant,
    /// Its stamp.
    pub largest_stamp: u16,
    /// The datagram of the least delay since the last report.
    pub least: u64,
    /// When it came.
    pub least_at: Instant,
    /// Its delay, 100 µs, modulo 2^16 with an unknown offset.
    least_delay: u16,
    /// Datagrams received, modulo 2^32.
    pub received: u32,
    /// Those of them with a congestion mark, modulo 2^16.
    pub marked: u16,
}

/// What arrived on one link.
#[derive(Debug)]
pub(in crate::link) struct Acknowledger {
    now: Option<Report>,
    /// The key before, while its last datagrams are untold.
    before: Option<Report>,
    /// Bytes that ask, since the last report.
    asking_bytes: u64,
    /// When the first and the last datagram came since then that ask.
    first_asked_at: Instant,
    asked_at: Instant,
    /// Since when such datagrams came without a pause of [`PAUSE_MAX`].
    run_from: Instant,
    /// So many more datagrams are told at once, because one before them is missing.
    urgent: u8,
    told_at: Option<Instant>,
    reordering: Reordering,
}

impl Default for Acknowledger {
    fn default() -> Self {
        Self {
            now: None,
            before: None,
            asking_bytes: 0,
            first_asked_at: Instant::ZERO,
            asked_at: Instant::ZERO,
            run_from: Instant::ZERO,
            urgent: 0,
            told_at: None,
            reordering: Reordering::default(),
        }
    }
}

impl Acknowledger {
    /// A datagram came, and is handled now.
    pub(in crate::link) fn on_arrival(&mut self, arrival: &Arrival, now: Instant) {
        let delay = sealed::stamp(arrival.at).wrapping_sub(arrival.stamp);
        self.reordering.on_arrived(1, now);
        match &mut self.now {
            Some(report) if report.key == arrival.key => {
                report.received = report.received.wrapping_add(1);
                report.marked = report.marked.wrapping_add(arrival.is_marked.into());
                if arrival.counter > report.largest + 1 && !self.reordering.is_any_late() {
                    self.urgent = LATER_DATAGRAMS;
                } else {
                    self.urgent = self.urgent.saturating_sub(1);
                }
                if arrival.counter < report.largest {
                    // By how much longer it took than the one that overtook it: where little is
                    // sent, that is more than the time between their sendings.
                    let sent_later = sealed::span(report.largest_stamp.wrapping_sub(arrival.stamp));
                    let later = arrival.at.saturating_since(report.largest_at) + sent_later;
                    self.reordering.on_late(report.largest - arrival.counter, later);
                }
                if self.asking_bytes == 0 || is_less(delay, report.least_delay) {
                    (report.least, report.least_at, report.least_delay) =
                        (arrival.counter, arrival.at, delay);
                }
                if arrival.counter > report.largest {
                    (report.largest, report.largest_at) = (arrival.counter, arrival.at);
                    report.largest_stamp = arrival.stamp;
                }
            }
            // Late ones of the key before are few, and told by count only.
            Some(_) if !arrival.is_current => return,
            other => {
                let over = other.replace(Report {
                    key: arrival.key,
                    largest: arrival.counter,
                    largest_at: arrival.at,
                    largest_stamp: arrival.stamp,
                    least: arrival.counter,
                    least_at: arrival.at,
                    least_delay: delay,
                    received: 1,
                    marked: arrival.is_marked.into(),
                });
                self.before = over.filter(|_| self.asking_bytes > 0);
            }
        }
        if arrival.asks {
            if self.asking_bytes == 0 {
                self.first_asked_at = now;
            }
            self.asking_bytes += arrival.bytes as u64;
            if now.saturating_since(self.asked_at) > PAUSE_MAX {
                self.run_from = now;
            }
            self.asked_at = now;
        }
    }

    /// Whether there is something to tell.
    pub(in crate::link) const fn has_news(&self) -> bool {
        self.asking_bytes > 0 || self.before.is_some()
    }

    /// When a datagram of `cost_bytes` of feedback alone is worth it; `None`: not before more data
    /// comes. The past: what came is enough.
    pub(in crate::link) fn end_at(&self, cost_bytes: u64) -> Option<Instant> {
        if self.before.is_some() {
            return Some(Instant::ZERO);
        }
        if self.asking_bytes == 0 {
            return None;
        }
        let is_worth_it = self.asking_bytes * COST_PERMILLE >= cost_bytes * 1_000;
        let at_end = (self.asked_at + END_AFTER).min(self.first_asked_at + ACK_DELAY_MAX);
        Some(if self.urgent > 0 || is_worth_it { Instant::ZERO } else { at_end })
    }

    /// When that, which is worth it from `end_at` on, is due on a link of this round trip and rate.
    pub(in crate::link) fn due_at(
        &self,
        end_at: Instant,
        cost_bytes: u64,
        rtt: Duration,
        rate: Option<BitRate>,
    ) -> Instant {
        let Some(told_at) = self.told_at.filter(|_| self.before.is_none()) else { return end_at };
        let affordable =
            rate.map_or(Duration::ZERO, |rate| rate.permille(RETURN_PERMILLE).time_to_send(cost_bytes));
        let usual = if self.asking_bytes >= TOLD_BYTES {
            Duration::ZERO
        } else if self.urgent > 0 {
            SPACING_MIN
        } else {
            (rtt / 8).clamp(SPACING_MIN, SPACING_MAX)
        };
        end_at.max(told_at + usual.max(affordable.min(SPACING_MAX * 4)))
    }

    /// What is to be told now; it counts as told.
    pub(in crate::link) fn report(&mut self, now: Instant) -> Option<Report> {
        if let Some(before) = self.before.take() {
            return Some(before);
        }
        self.asking_bytes = 0;
        self.told_at = Some(now);
        self.now
    }

    /// What was told last, and what came since, to be told once more; it does not count as told.
    pub(in crate::link) const fn repeat(&self) -> Option<Report> {
        self.now
    }

    /// How late datagrams of the link may be; `None`: it keeps the order. `guess`: how late they
    /// are taken to be where that is not learned yet.
    pub(in crate::link) fn patience(&self, guess: Duration) -> Option<Patience> {
        self.reordering.patience(guess)
    }

    /// When the last datagram came that asks, on a link that was in steady use until then.
    pub(in crate::link) fn steady_until(&self) -> Option<Instant> {
        let is_steady = self.asked_at.saturating_since(self.run_from) >= STEADY_MIN;
        is_steady.then_some(self.asked_at)
    }

    /// The peer was restarted.
    pub(in crate::link) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What a datagram of feedback alone costs, with `header_bytes` of IP and UDP headers.
pub(in crate::link) const fn cost_bytes(header_bytes: u64) -> u64 {
    FRAME_BYTES + header_bytes
}

fn is_less(one: u16, other: u16) -> bool {
    one.wrapping_sub(other) > u16::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_when_it_reached_this_host() {
        let at = |ms| Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms);
        let mut arrivals = Acknowledger::default();
        // Sent every 10 ms, 5 ms under way, and handled together after a pause of the process.
        for counter in 0..3 {
            let sent_at = at(counter * 10);
            let arrival = Arrival {
                key: 1,
                is_current: true,
                counter,
                stamp: sealed::stamp(sent_at),
                at: sent_at + Duration::from_millis(5),
                bytes: 1_000,
                asks: true,
                is_marked: counter == 1,
            };
            arrivals.on_arrival(&arrival, at(60));
        }
        let report = arrivals.report(at(60)).unwrap();
        assert_eq!((report.largest, report.largest_at), (2, at(25)));
        assert_eq!((report.received, report.marked), (3, 1));
        assert_eq!((report.least_at.saturating_since(at(0)).as_millis() % 10, report.least_delay), (5, 50));
        // Not a pause of the link.
        assert_eq!(arrivals.steady_until(), None);
    }

    fn arrival(counter: u64, sent_at: Instant, at: Instant) -> Arrival {
        let stamp = sealed::stamp(sent_at);
        Arrival { key: 1, is_current: true, counter, stamp, at, bytes: 100, asks: true, is_marked: false }
    }

    #[test]
    fn how_late_datagrams_come_is_learned_from_counters_and_stamps() {
        let at = |ms| Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms);
        let mut arrivals = Acknowledger::default();
        // Sent every millisecond; every tenth takes 30 ms, the others 5.
        let took = |counter: u64| if counter.is_multiple_of(10) { 30 } else { 5 };
        let mut order: Vec<u64> = (0..2_000).collect();
        order.sort_by_key(|counter| counter + took(*counter));
        for counter in order {
            let now = at(counter + took(counter));
            arrivals.on_arrival(&arrival(counter, at(counter), now), now);
        }
        let patience = arrivals.patience(Duration::ZERO).unwrap();
        assert!((25..32).contains(&patience.time.as_millis()), "{patience:?}");
        assert!((25..32).contains(&patience.packets), "{patience:?}");
    }

    /// Little is sent: the next datagram was sent right after the late one, and came long before.
    #[test]
    fn what_is_late_by_more_than_it_was_sent_earlier_counts_as_such() {
        let at = |ms| Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms);
        let mut arrivals = Acknowledger::default();
        for (counter, sent_ms, at_ms) in [(0, 0, 5), (2, 101, 106), (1, 100, 146)] {
            arrivals.on_arrival(&arrival(counter, at(sent_ms), at(at_ms)), at(at_ms));
        }
        let patience = arrivals.patience(Duration::ZERO).unwrap();
        assert!((41..52).contains(&patience.time.as_millis()), "{patience:?}");
    }
}
