//! Heartbeats of one link: when the next one is due, what was sent, the newest one received and its
//! echo, and what an echo tells of the datagrams between two heartbeats.
//!
//! Each side sends a heartbeat every interval, on its own clock, and echoes the newest one it
//! received, so that one heartbeat carries RTT, one-way delay, loss and proof at once
//! ([`crate::wire::heartbeat`]). A heartbeat of a peer that has no proof yet is answered at once: a
//! link is proven on both sides within 1.5 RTT of the first heartbeat. At most one answer goes for
//! a heartbeat, and not closer than [`ANSWER_GAP`] to the last.
//!
//! A sealed link that carries data is told by feedback what arrived. A plain one has heartbeats
//! more often instead, so that its rate can be followed: the next one is due when a hundred times
//! its bytes were carried, either way, but not within [`BUSY_INTERVAL`] of the last, nor for over 1
//! % of what the link is known to carry. Health knows nothing of that: proof is overdue in regular
//! intervals.
//!
//! It knows no path, no keys and no rates.

use std::collections::VecDeque;
use std::time::Duration;

use super::congestion::Observation;
use super::path::ecn::Marked;
use crate::packet::UdpFlow;
use crate::time::Instant;
use crate::units::BitRate;
use crate::wire::FRAME_HEADER_BYTES;
use crate::wire::heartbeat::{Echo, HEARTBEAT_BYTES};

/// A suspect link, and one whose answer is late, is asked this often. Chosen: fifteen questions
/// within the time that a suspect link has at least.
pub(super) const SUSPECT_INTERVAL: Duration = Duration::from_millis(20);

/// A plain link that carries much is measured at most this often. Chosen: a window of its rate
/// holds two.
const BUSY_INTERVAL: Duration = Duration::from_millis(25);
/// Most that these heartbeats cost of what the link carries, permille. Chosen: not noticed.
const COST_PERMILLE: u64 = 10;

/// Answers to heartbeats keep this distance from the last heartbeat. Chosen: two sides without
/// proof do not answer each other's answers in a loop of a short round trip.
const ANSWER_GAP: Duration = Duration::from_millis(5);

/// Heartbeats in flight that are remembered. Chosen: 10 s of those that are closest together.
const LOG_MAX: usize = 400;

/// An answer is not overdue before this. Chosen: what scheduling of a busy host adds is below it.
pub(super) const OVERDUE_SLACK: Duration = Duration::from_millis(15);

/// Echoes closer together than this say too little about loss. Chosen: a few datagrams are between.
const DELIVERY_SPAN: Duration = Duration::from_millis(50);

/// A heartbeat in a plain datagram, IP and UDP headers included, bytes. Source: PROTOCOL.md.
const HEARTBEAT_DATAGRAM_BYTES: u64 = 99;

/// A datagram that was lost on a plain link, bytes. Chosen: data fills datagrams.
const ROW_BYTES: u64 = 1_500;

/// A heartbeat that was sent: the counts when it was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logged {
    pub(super) sent_at: Instant,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) idle: Duration,
    /// It said that it may be marked.
    pub(super) is_ect: bool,
    /// Which of the link's flows it went over.
    pub(super) flow: UdpFlow,
}

/// A sent heartbeat as the peer saw it.
#[derive(Debug, Clone, Copy)]
struct Echoed {
    logged: Logged,
    received: u64,
}

/// What an echo tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct EchoNews {
    /// A heartbeat that said that it may be marked arrived.
    pub(super) is_ect: bool,
    /// The flow that the heartbeat went over, and when.
    pub(super) flow: UdpFlow,
    pub(super) sent_at: Instant,
    /// The time since the echo before that counted, if there was one.
    pub(super) interval: Option<Interval>,
}

/// The time between two sent heartbeats that were echoed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interval {
    from: Echoed,
    to: Echoed,
}

impl Interval {
    /// When it began.
    pub(super) const fn from(&self) -> Instant {
        self.from.logged.sent_at
    }

    /// Datagrams sent.
    pub(super) const fn packets(&self) -> u64 {
        self.to.logged.packets - self.from.logged.packets
    }

    /// Datagrams received, unclamped: what was late in one interval comes in the next.
    pub(super) const fn received(&self) -> u64 {
        self.to.received.saturating_sub(self.from.received)
    }

    /// Datagrams lost.
    pub(super) fn lost(&self) -> u64 {
        self.packets() - self.received().min(self.packets())
    }

    /// Bytes lost. Datagrams are counted, not named: those that are missing had the mean size.
    fn lost_bytes(&self) -> u64 {
        let bytes = u128::from(self.to.logged.bytes - self.from.logged.bytes);
        let lost = (bytes * u128::from(self.lost())).checked_div(u128::from(self.packets()));
        lost.and_then(|lost| u64::try_from(lost).ok()).unwrap_or(0)
    }

    fn is_long(&self) -> bool {
        self.to.logged.sent_at.saturating_since(self.from.logged.sent_at) >= DELIVERY_SPAN
    }
}

/// The newest heartbeat received.
#[derive(Debug, Clone, Copy)]
struct Received {
    seq_num: u64,
    stamp_us: u64,
    at: Instant,
    /// The peer's count of datagrams sent, and ours of those received.
    sent: u64,
    received: u64,
}

/// The heartbeats of one link.
#[derive(Debug, Default)]
pub(crate) struct Heartbeats {
    /// When the next one is due; `None`: there is no path to send it to.
    due_at: Option<Instant>,
    sent_at: Option<Instant>,
    sent: u64,
    /// Bytes both ways since the last one was sent.
    carried_bytes: u64,
    log: VecDeque<Logged>,
    received: Option<Received>,
    echoed: Option<Echoed>,
    /// The newest echo's RTT, and how far apart the peer's last two heartbeats came.
    echo_rhythm: Option<(Duration, Duration)>,
    /// Bytes lost on a plain link.
    lost_bytes: u64,
}

impl Heartbeats {
    /// The first one is due at `due_at`.
    pub(super) fn new(due_at: Option<Instant>) -> Self {
        Self { due_at, ..Self::default() }
    }

    /// When the next one is due; `None` while there is no path to send it to.
    pub(crate) const fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// The next one is due at `at`; `None`: not before there is a path.
    pub(super) const fn set_due(&mut self, at: Option<Instant>) {
        self.due_at = at;
    }

    /// The peer's heartbeat is to be answered.
    pub(super) fn answer(&mut self, now: Instant) {
        let answer_at = self.sent_at.map_or(now, |at| now.max(at + ANSWER_GAP));
        self.due_at = Some(self.due_at.map_or(answer_at, |due| due.min(answer_at)));
    }

    /// Sends one, which `logged` describes, and the next after `interval`. Returns its number.
    pub(super) fn on_sent(&mut self, logged: Logged, interval: Duration) -> u64 {
        self.sent += 1;
        self.due_at = Some(logged.sent_at + interval);
        self.sent_at = Some(logged.sent_at);
        self.carried_bytes = 0;
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(logged);
        self.sent
    }

    /// Whether the one sent last may be marked on its way.
    pub(crate) fn may_mark(&self) -> bool {
        self.log.back().is_some_and(|logged| logged.is_ect)
    }

    /// A plain link carried `bytes`, in datagrams with `header_bytes` of headers. Whether it
    /// carried so much since the last heartbeat that the next may be due sooner.
    pub(super) const fn on_carried(&mut self, bytes: u64, header_bytes: u64) -> bool {
        self.carried_bytes += bytes;
        self.carried_bytes >= heartbeat_bytes(header_bytes) * 1_000 / COST_PERMILLE
    }

    /// The next one is due sooner, on a plain link that carries so much.
    pub(super) fn on_busy(&mut self, header_bytes: u64, capacity: Option<BitRate>) {
        let (Some(due), Some(sent_at)) = (self.due_at, self.sent_at) else { return };
        let share = capacity.map(|rate| rate.permille(COST_PERMILLE));
        let takes = |share: BitRate| share.time_to_send(heartbeat_bytes(header_bytes)).max(BUSY_INTERVAL);
        self.due_at = Some(due.min(sent_at + share.map_or(BUSY_INTERVAL, takes)));
    }

    /// Whether a heartbeat of the peer with this number is older than one that came before.
    pub(super) fn is_stale(&self, seq_num: u64) -> bool {
        self.received.is_some_and(|newest| seq_num <= newest.seq_num)
    }

    /// A newer heartbeat of the peer arrived, when it had sent `sent` datagrams and this side had
    /// received `received`.
    pub(super) fn on_received(
        &mut self,
        seq_num: u64,
        stamp_us: u64,
        sent: u64,
        received: u64,
        now: Instant,
    ) {
        self.received = Some(Received { seq_num, stamp_us, at: now, sent, received });
    }

    /// The moment of the peer's clock, µs, whose lower 32 bits are `low_us`; `None` before its
    /// first heartbeat.
    pub(super) fn peer_time_us(&self, low_us: u32, now: Instant) -> Option<u64> {
        let near = self.peer_clock_us(now)?;
        let near_low = u32::try_from(near % (1 << 32)).unwrap_or_default();
        Some(near.saturating_add_signed(i64::from(low_us.wrapping_sub(near_low).cast_signed())))
    }

    /// The moment of the peer's clock, µs, that a stamp of 100 µs stands for: it wraps after 6.5 s.
    pub(super) fn peer_stamp_us(&self, stamp: u16, now: Instant) -> Option<u64> {
        let near = self.peer_clock_us(now)? / 100;
        let near_stamp = u16::try_from(near % (1 << 16)).unwrap_or_default();
        let ahead = i64::from(stamp.wrapping_sub(near_stamp).cast_signed());
        Some(near.saturating_add_signed(ahead).saturating_mul(100))
    }

    /// The peer's clock now, µs, less the link's delay.
    fn peer_clock_us(&self, now: Instant) -> Option<u64> {
        let newest = self.received.as_ref()?;
        Some(newest.stamp_us.saturating_add(now.as_micros().saturating_sub(newest.at.as_micros())))
    }

    /// The echo for a heartbeat to a peer in its run `peer_epoch`.
    pub(crate) fn echo(&self, peer_epoch: u32, now: Instant) -> Option<Echo> {
        self.received.map(|newest| Echo {
            epoch: peer_epoch,
            stamp_us: newest.stamp_us,
            delay_us: u32::try_from(now.as_micros().saturating_sub(newest.at.as_micros()))
                .unwrap_or(u32::MAX),
            sent: newest.sent,
            received: newest.received,
        })
    }

    /// An echo took `rtt`. Called before the heartbeat that bears it counts as received;
    /// `interval`: the usual distance of two.
    pub(super) fn on_round_trip(&mut self, rtt: Duration, interval: Duration, now: Instant) {
        let gap = self.received.map_or(interval, |last| now.saturating_since(last.at).min(interval));
        self.echo_rhythm = Some((rtt, gap.max(BUSY_INTERVAL)));
    }

    /// What was sent between the last heartbeat echoed and this one. `None`: it is not remembered.
    pub(super) fn on_echo(&mut self, echo: &Echo) -> Option<EchoNews> {
        while self.log.front().is_some_and(|logged| logged.packets < echo.sent) {
            self.log.pop_front();
        }
        let logged = self.log.front().copied().filter(|logged| logged.packets == echo.sent)?;
        let to = Echoed { logged, received: echo.received };
        let from = self.echoed;
        if from.is_none() {
            self.echoed = Some(to);
        }
        Some(EchoNews {
            is_ect: logged.is_ect,
            flow: logged.flow,
            sent_at: logged.sent_at,
            interval: from.map(|from| Interval { from, to }),
        })
    }

    /// What an interval tells of a plain link, whose echo says how long its end took. `total`:
    /// bytes sent up to now.
    pub(super) fn observation(
        &self,
        interval: &Interval,
        delay_us: i64,
        total: u64,
        rtt_min: Duration,
    ) -> Observation {
        let (logged, lost) = (interval.to.logged, self.lost_bytes + interval.lost_bytes());
        Observation {
            sent_at: logged.sent_at,
            sent: logged.bytes,
            idle: logged.idle,
            delivered: logged.bytes.saturating_sub(lost),
            lost,
            // Datagrams are not named: each may have been lost for itself.
            lost_rows: lost / ROW_BYTES,
            marked: Marked::default(),
            delay_us,
            delay_bytes: HEARTBEAT_DATAGRAM_BYTES,
            total,
            rtt_min,
        }
    }

    /// The interval is over, and the next begins with its end; `false`: it is too short, and goes
    /// on.
    pub(super) fn try_conclude(&mut self, interval: &Interval) -> bool {
        let is_long = interval.is_long();
        if is_long {
            self.lost_bytes += interval.lost_bytes();
            self.echoed = Some(interval.to);
        }
        is_long
    }

    /// How long an echo is overdue on a plain link.
    pub(super) fn overdue(&self, now: Instant) -> Duration {
        let (Some(next), Some((rtt, gap))) = (self.log.get(1), self.echo_rhythm) else {
            return Duration::ZERO;
        };
        now.saturating_since(next.sent_at + rtt + gap * 2 + OVERDUE_SLACK)
    }

    /// The link's number is another line's: nothing that was heard counts for it. The numbers of
    /// what is sent go on.
    pub(super) fn renew(&mut self, due_at: Option<Instant>) {
        *self = Self { sent: self.sent, ..Self::new(due_at) };
    }

    /// The peer's counters and its clock begin anew.
    pub(super) const fn on_peer_restart(&mut self) {
        self.received = None;
    }

    /// What was delivered before says nothing about what will be.
    pub(super) fn forget_delivery(&mut self) {
        self.forget_echoes();
        self.echo_rhythm = None;
    }

    /// What was lost before says nothing about what will be.
    pub(super) fn forget_echoes(&mut self) {
        self.log.clear();
        self.echoed = None;
    }
}

/// A heartbeat in a plain datagram with `header_bytes` of IP and UDP headers.
const fn heartbeat_bytes(header_bytes: u64) -> u64 {
    FRAME_HEADER_BYTES as u64 + HEARTBEAT_BYTES as u64 + header_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms)
    }

    fn logged(packets: u64, ms: u64) -> Logged {
        let (bytes, flow) = (packets * 1_000, UdpFlow::FIRST);
        Logged { sent_at: at(ms), packets, bytes, idle: Duration::ZERO, is_ect: false, flow }
    }

    #[test]
    fn the_peers_moments_are_known_by_their_lower_bits_around_a_wrap() {
        let mut heartbeats = Heartbeats::default();
        assert_eq!(heartbeats.peer_time_us(1, at(0)), None);
        let wrap = 1 << 32;
        heartbeats.on_received(1, wrap - 1_000, 1, 1, at(0));
        assert_eq!(heartbeats.peer_time_us(500, at(1)), Some(wrap + 500));
        assert_eq!(heartbeats.peer_time_us(u32::MAX - 99, at(2)), Some(wrap - 100));
        let (moment, stamp) = (3 * 6_553_600 + 200, 2);
        heartbeats.on_received(2, moment - 1_000, 1, 1, at(0));
        assert_eq!(heartbeats.peer_stamp_us(stamp, at(0)), Some(moment));
        assert_eq!(heartbeats.peer_stamp_us(stamp, at(4)), Some(moment));
    }

    #[test]
    fn an_interval_goes_on_until_it_is_long_enough_and_the_missing_have_the_mean_size() {
        let mut heartbeats = Heartbeats::default();
        let echo = |sent, received| Echo { epoch: 1, stamp_us: 0, delay_us: 0, sent, received };
        for (packets, ms) in [(1, 0), (11, 40), (21, 80)] {
            heartbeats.on_sent(logged(packets, ms), Duration::from_millis(40));
        }
        assert!(heartbeats.on_echo(&echo(1, 1)).unwrap().interval.is_none());
        let short = heartbeats.on_echo(&echo(11, 10)).unwrap().interval.unwrap();
        assert_eq!((short.packets(), short.lost()), (10, 1));
        assert!(!heartbeats.try_conclude(&short));
        let long = heartbeats.on_echo(&echo(21, 19)).unwrap().interval.unwrap();
        assert_eq!((long.packets(), long.lost(), long.lost_bytes()), (20, 2, 2_000));
        assert!(heartbeats.try_conclude(&long));
        assert!(heartbeats.on_echo(&echo(22, 20)).is_none(), "not one of those sent");
    }
}
