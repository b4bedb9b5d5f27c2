//! All state of one link of a session. It knows nothing of other links, of sessions or of inner packets.
//!
//! Each side sends a heartbeat every interval, on its own clock, and echoes the newest one it received, so that one
//! heartbeat carries RTT, one-way delay, loss and proof at once ([`crate::wire::heartbeat`]). A heartbeat of a peer that
//! has no proof yet is answered at once: a link is proven on both sides within 1.5 RTT of the first heartbeat.
//! At most one answer for a heartbeat, and not closer than 5 ms to the last.
//! A sealed link that carries data is told by feedback ([`crate::wire::feedback`]) what arrived. A plain one has heartbeats more
//! often instead, so that its rate can be followed: the next one is due when a hundred times its bytes were carried,
//! either way, but not within 25 ms of the last, nor for over 1 % of what the link is known to carry. Health knows nothing of
//! that: what is overdue as proof counts in regular intervals.

mod address;
mod congestion;
mod delivery;
mod ecn;
mod feedback;
mod figures;
mod health;
mod loss;
mod meter;
mod mtu;
mod pacer;
mod path;
mod probe;
mod relay;
mod rtt;
mod sent;
mod window;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

pub use self::congestion::{Cause, ControlChange, PhaseKind};
pub use self::feedback::{Arrival, Report};
pub(crate) use self::mtu::BASE_BYTES;
pub use self::sent::{Outgoing, ResendCounts};

use self::congestion::CongestionControl;
use self::delivery::{Echoed, FEEDBACK_GAP_MIN, Logged};
use self::ecn::Ecn;
use self::feedback::{Acknowledger, END_AFTER};
use self::health::Health;
use self::loss::LossMeter;
use self::meter::RateMeter;
use self::mtu::PathMtu;
use self::pacer::Pacer;
use self::path::PathState;
use self::relay::Relay;
use self::rtt::{DelayEstimator, RttEstimator};
use self::sent::SentLog;
use crate::config::{LinkConfig, Role, Security};
use crate::discard::Discard;
use crate::packet::KeptPacket;
use crate::packet::{LinkId, Path};
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::{LinkRole, LinkState};
use crate::wire::FRAME_HEADER_BYTES;
use crate::wire::control::Control;
use crate::wire::heartbeat::{Echo, HEARTBEAT_BYTES, Heartbeat};

/// A suspect link, and one whose answer is late, is asked this often.
const SUSPECT_INTERVAL: Duration = Duration::from_millis(20);

/// A link that carries much is probed at most this often, and at most for this share of what it carries.
const BUSY_INTERVAL: Duration = Duration::from_millis(25);
const HEARTBEAT_COST_PERMILLE: u64 = 10;

/// A link that is for no data is measured this many times more rarely: what is metered costs 100 MB a month then, not 5 GB.
const UNUSED_INTERVALS: u32 = 50;

/// The end of what was sent is overdue after the round trip, four times its variation (at least the first), the receiver's wait for more, and the
/// second, which covers scheduling on both hosts (RFC 9002 §6.2.1: the probe timeout).
const END_VARIATION_MIN: Duration = Duration::from_millis(5);
const END_SLACK: Duration = Duration::from_millis(10);
/// So many packets of it are sent again at most: feedback about these tells of the others.
const END_PACKETS: usize = 8;

/// Answers to heartbeats keep this distance from the last heartbeat.
const ANSWER_GAP: Duration = Duration::from_millis(5);

/// Heartbeats in flight that are remembered: 10 s of them.
const LOG_MAX: usize = 400;

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

impl Received {
    /// The peer's clock now, µs, less the link's delay.
    fn clock_us(&self, now: Instant) -> u64 {
        self.stamp_us.saturating_add(now.as_micros().saturating_sub(self.at.as_micros()))
    }
}

/// One link.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    role: Role,
    security: Security,
    interval: Duration,
    priority: u8,
    link_role: LinkRole,
    rx_ceiling: Option<BitRate>,
    /// Whether the peer sends again what is lost on it.
    peer_resends: bool,
    path: PathState,
    control: VecDeque<Control>,
    health: Health,
    rtt: RttEstimator,
    /// One-way delays: of what we send, of what we receive.
    tx_delay: DelayEstimator,
    rx_delay: DelayEstimator,
    loss: LossMeter,
    /// Loss while no queue stood in the link: what the link loses whatever we send.
    random_loss: LossMeter,
    log: VecDeque<Logged>,
    echoed: Option<Echoed>,
    /// What a sealed link sent.
    sent: SentLog,
    /// Whether what it sends may be marked.
    ecn: Ecn,
    /// What arrived on a sealed link.
    arrivals: Acknowledger,
    relay: Relay,
    /// When the delays were last brought up to date by feedback: of what we send, of what we receive.
    tx_delay_at: Instant,
    rx_delay_at: Instant,
    /// When feedback came last, and how far apart it comes.
    feedback_taken_at: Option<Instant>,
    feedback_gap: Duration,
    /// How long the last two answers took from when what they answer was sent, the newer first; zero: not known.
    rounds: [Duration; 2],
    /// When data was sent last, and when the end of such data was given up last.
    data_sent_at: Option<Instant>,
    end_given_up_at: Instant,
    /// Bytes lost on a plain link.
    plain_lost: u64,
    congestion: CongestionControl,
    /// What is paced at, as it was computed for this moment.
    paced: Option<(Instant, BitRate)>,
    pacer: Pacer,
    mtu: PathMtu,
    /// What the interface takes, and the peer's address that `mtu` was found for.
    mtu_max: u16,
    mtu_of: Option<IpAddr>,
    tx_meter: RateMeter,
    rx_meter: RateMeter,
    heartbeat_at: Option<Instant>,
    heartbeat_sent_at: Option<Instant>,
    heartbeats_sent: u64,
    /// Both ways since the last heartbeat of ours.
    carried_bytes: u64,
    /// The newest echo's RTT, and how far apart the peer's last two heartbeats came.
    echo_rhythm: Option<(Duration, Duration)>,
    received: Option<Received>,
    tx_packets: u64,
    tx_bytes: u64,
    rx_packets: u64,
    rx_bytes: u64,
    /// Datagrams received since the peer's run began.
    rx_run_packets: u64,
    last_seq: u64,
    /// When the newest data frame arrived.
    data_at: Option<Instant>,
}

impl Link {
    /// A link without proof. Heartbeats start at once where the path is known.
    pub fn new(id: LinkId, role: Role, config: &LinkConfig, interval: Duration, now: Instant) -> Self {
        Self {
            id,
            role,
            interval,
            security: config.security,
            priority: config.priority,
            link_role: config.role,
            rx_ceiling: config.rx_rate,
            peer_resends: false,
            path: PathState::new(config.path.iter().chain(&config.alternatives).copied().collect()),
            control: VecDeque::new(),
            health: Health::new(rhythm(interval, config.role)),
            rtt: RttEstimator::new(),
            tx_delay: DelayEstimator::new(),
            rx_delay: DelayEstimator::new(),
            loss: LossMeter::default(),
            random_loss: LossMeter::default(),
            log: VecDeque::new(),
            echoed: None,
            sent: SentLog::default(),
            ecn: Ecn::default(),
            arrivals: Acknowledger::default(),
            relay: Relay::default(),
            tx_delay_at: Instant::ZERO,
            rx_delay_at: Instant::ZERO,
            feedback_taken_at: None,
            feedback_gap: FEEDBACK_GAP_MIN,
            rounds: [Duration::ZERO; 2],
            data_sent_at: None,
            end_given_up_at: Instant::ZERO,
            plain_lost: 0,
            congestion: CongestionControl::new(config.tx_rate),
            paced: None,
            pacer: Pacer::default(),
            mtu: PathMtu::new(config.mtu),
            mtu_max: config.mtu,
            mtu_of: None,
            tx_meter: RateMeter::default(),
            rx_meter: RateMeter::default(),
            heartbeat_at: config.path.map(|_| now),
            heartbeat_sent_at: None,
            heartbeats_sent: 0,
            carried_bytes: 0,
            echo_rhythm: None,
            received: None,
            tx_packets: 0,
            tx_bytes: 0,
            rx_packets: 0,
            rx_bytes: 0,
            rx_run_packets: 0,
            last_seq: 0,
            data_at: None,
        }
    }

    /// Which link this is.
    pub const fn id(&self) -> LinkId {
        self.id
    }

    /// Where the link sends to; `None` until a server has heard the client.
    pub const fn path(&self) -> Option<Path> {
        self.path.current()
    }

    /// Whether it has somewhere to send to.
    pub const fn has_path(&self) -> bool {
        self.path.known().is_some()
    }

    /// Sealed or plain.
    pub const fn security(&self) -> Security {
        self.security
    }

    /// The heartbeat that is due may not go yet.
    pub fn skip_heartbeat(&mut self, now: Instant) {
        self.heartbeat_at = Some(now + rhythm(self.interval, self.link_role));
    }

    /// A heartbeat at once.
    pub const fn hasten_heartbeat(&mut self, now: Instant) {
        if self.path.current().is_some() {
            self.heartbeat_at = Some(now);
        }
    }

    /// Proven, suspect or down.
    pub const fn state(&self) -> LinkState {
        self.health.state()
    }

    /// What may be sent, where known.
    pub fn capacity(&self) -> Option<BitRate> {
        self.congestion.estimate().capacity
    }

    /// Whether the path is known to receive.
    pub const fn is_trusted(&self) -> bool {
        self.path.is_trusted()
    }

    /// The delay of what arrives on this link, µs with an offset common to all links, and its deviation.
    pub fn rx_delay_us(&self, now: Instant) -> (i64, u32) {
        (self.rx_delay.delay_us().unwrap_or(0), self.rx_delay.jitter_us(now))
    }

    /// The delay of what we send, µs with an offset common to all links; `None` before it was measured.
    pub fn tx_delay_us(&self) -> Option<i64> {
        self.tx_delay.delay_us()
    }

    /// When the next heartbeat is due; `None` while nobody is there to send to.
    pub const fn heartbeat_at(&self) -> Option<Instant> {
        self.heartbeat_at
    }

    /// A datagram with `bytes` of UDP payload arrived.
    pub fn on_datagram(&mut self, bytes: usize, now: Instant) {
        let bytes = bytes as u64 + self.header_bytes();
        // What it tells may change the rate.
        self.paced = None;
        self.rx_packets += 1;
        self.rx_run_packets += 1;
        self.rx_bytes += bytes;
        self.rx_meter.on_bytes(bytes, now);
        self.note_carried(bytes);
    }

    /// A data frame with this counter arrived.
    pub const fn on_data(&mut self, counter: u64, now: Instant) {
        self.last_seq = counter;
        self.data_at = Some(now);
    }

    /// When the newest data frame arrived.
    pub const fn data_at(&self) -> Option<Instant> {
        self.data_at
    }

    /// Bytes sent and received so far, IP and UDP headers included.
    pub const fn carried_total_bytes(&self) -> u64 {
        self.tx_bytes + self.rx_bytes
    }

    /// What the link is used for.
    pub const fn link_role(&self) -> LinkRole {
        self.link_role
    }

    fn take_role(&mut self, role: LinkRole) {
        self.link_role = role;
        self.health.set_interval(rhythm(self.interval, role));
    }

    /// The link is used for something else from now on; the peer is to know at once.
    pub fn set_link_role(&mut self, role: LinkRole, now: Instant) {
        self.take_role(role);
        self.hasten_heartbeat(now);
    }

    /// The peer was restarted, or ended the session: all that its clock and counters told is void.
    pub fn on_peer_restart(&mut self, now: Instant) {
        self.health.on_peer_restart();
        self.rtt = RttEstimator::new();
        self.tx_delay = DelayEstimator::new();
        self.rx_delay = DelayEstimator::new();
        self.received = None;
        self.rx_run_packets = 0;
        self.sent.clear();
        self.arrivals.clear();
        self.relay = Relay::default();
        if self.security == Security::Sealed {
            self.path.forget();
            if self.path.current().is_none() {
                self.heartbeat_at = None;
                self.control.clear();
            }
        }
        self.forget_delivery(now);
    }

    /// The interface lost its carrier (`false`) or has it again.
    pub fn on_carrier(&mut self, carrier: bool, now: Instant) {
        self.health.on_carrier(carrier, now);
        if carrier && self.path.current().is_some() {
            self.heartbeat_at = Some(now);
        }
    }

    /// The system refused to send on the link: it is asked at once whether it still delivers.
    pub fn on_send_failed(&mut self, now: Instant) {
        let before = self.health.state();
        self.health.on_send_failed(&self.rtt, now);
        if before != self.health.state() {
            self.hasten_heartbeat(now);
        }
    }

    /// The peer says that the link failed.
    pub fn on_peer_failure(&mut self, now: Instant) {
        self.health.on_peer_failure(now);
    }

    /// It was up, is down, and not yet on its way back.
    pub fn has_failed(&self) -> bool {
        self.health.has_failed()
    }

    /// A heartbeat of the peer's present run arrived, answering a run `epoch` of ours or none. Returns the new path where
    /// the peer speaks from another address than before.
    pub fn on_heartbeat(
        &mut self,
        seq_num: u64,
        heartbeat: &Heartbeat,
        path: Path,
        epoch: u32,
        now: Instant,
    ) -> Result<Option<Path>, Discard> {
        if self.received.is_some_and(|newest| seq_num <= newest.seq_num) {
            return Err(Discard::Stale);
        }
        if let Some(echo) = heartbeat.echo.filter(|echo| echo.epoch == epoch) {
            self.on_echo(&echo, heartbeat.stamp_us, now)?;
        }
        self.rx_delay.on_sample(micros_between(now.as_micros(), heartbeat.stamp_us), now);
        self.received = Some(Received {
            seq_num,
            stamp_us: heartbeat.stamp_us,
            at: now,
            sent: heartbeat.sent,
            received: self.rx_run_packets,
        });
        self.congestion.on_peer_ceiling(heartbeat.rx_ceiling, now);
        self.peer_resends = heartbeat.resends && self.security == Security::Sealed;
        self.note_doubt(heartbeat, now);
        if self.role == Role::Server {
            self.priority = heartbeat.priority;
            self.take_role(heartbeat.role);
        }
        // On a sealed link the datagram itself has moved the path.
        let moved = self.security == Security::Plain && self.path.adopt(path);
        let answer_at = self.heartbeat_sent_at.map_or(now, |at| now.max(at + ANSWER_GAP));
        // A sealed link whose peer has just begun a new run has no path until its next datagram.
        if (!heartbeat.proven || moved) && self.path.current().is_some() {
            self.heartbeat_at = Some(self.heartbeat_at.map_or(answer_at, |due| due.min(answer_at)));
        }
        Ok(moved.then_some(path))
    }

    /// Time has passed: the state may change.
    pub fn on_time(&mut self, now: Instant) {
        let before = (self.health.state(), self.health.is_in_doubt());
        self.health.on_time(&self.rtt, self.feedback_gap, now);
        let after = (self.health.state(), self.health.is_in_doubt());
        if before != after && after != (LinkState::Down, false) && self.link_role != LinkRole::Never {
            self.hasten_heartbeat(now);
        }
    }

    /// Whether it may have something of its own to send now, on a link that need not carry inner packets of more than `packet_max`: if
    /// not, it has no heartbeat, no control frame, no feedback and no probe.
    pub fn has_due(&self, packet_max: usize, now: Instant) -> bool {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        is_due(self.heartbeat_at())
            || is_due(self.control_at())
            || self.has_relay()
            || self.is_feedback_due(now)
            || self.may_probe(packet_max, now)
    }

    /// Before this the state does not change by time alone: sooner found than [`Self::poll_timeout`].
    pub fn unchanged_until(&self) -> Instant {
        self.health.unchanged_until()
    }

    /// When the state may change by time alone.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.health.poll_timeout(&self.rtt, self.feedback_gap)
    }

    /// The heartbeat to send now, with its sequence number, and the next one's time set.
    pub fn next_heartbeat(&mut self, epoch: u32, now: Instant) -> (u64, Heartbeat) {
        self.heartbeats_sent += 1;
        let interval = if self.health.is_urgent() && self.link_role != LinkRole::Never {
            self.interval.min(SUSPECT_INTERVAL)
        } else {
            rhythm(self.interval, self.link_role)
        };
        if self.health.state() == LinkState::Down {
            self.path.rotate();
            self.ecn.on_down();
        }
        self.heartbeat_at = Some(now + interval);
        self.heartbeat_sent_at = Some(now);
        self.health.on_try(now);
        self.carried_bytes = 0;
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        let idle = self.pacer.idle();
        let is_ect = self.security == Security::Sealed && self.ecn.on_heartbeat();
        let (packets, bytes) = (self.tx_packets + 1, self.tx_bytes);
        self.log.push_back(Logged { sent_at: now, packets, bytes, idle, is_ect });
        (
            self.heartbeats_sent,
            Heartbeat {
                epoch,
                stamp_us: now.as_micros(),
                sent: self.tx_packets + 1,
                echo: None,
                proven: self.is_proven(),
                at_once: true,
                priority: self.priority,
                role: self.link_role,
                rx_ceiling: self.rx_ceiling,
                resends: false,
                partial: true,
                relayed: true,
                failed: 0,
            },
        )
    }

    /// Whether the heartbeat made last may be marked on its way.
    pub fn may_mark_heartbeat(&self) -> bool {
        self.log.back().is_some_and(|logged| logged.is_ect)
    }

    /// Whether what else is sent may be marked on its way.
    pub fn may_be_marked(&self) -> bool {
        self.ecn.may_be_marked()
    }

    /// Bytes went out or came in: heartbeats of a plain link that carries much are closer together.
    fn note_carried(&mut self, bytes: u64) {
        if self.security == Security::Sealed {
            return;
        }
        let heartbeat_bytes = FRAME_HEADER_BYTES as u64 + u64::from(HEARTBEAT_BYTES) + self.header_bytes();
        self.carried_bytes += bytes;
        if self.carried_bytes < heartbeat_bytes * 1_000 / HEARTBEAT_COST_PERMILLE
            || self.health.state() == LinkState::Down
        {
            return;
        }
        let (Some(due), Some(sent_at)) = (self.heartbeat_at, self.heartbeat_sent_at) else { return };
        let share = self.congestion.estimate().capacity.map(|rate| rate.permille(HEARTBEAT_COST_PERMILLE));
        let gap = share.map_or(BUSY_INTERVAL, |share| share.time_to_send(heartbeat_bytes).max(BUSY_INTERVAL));
        self.heartbeat_at = Some(due.min(sent_at + gap));
    }

    /// The echo for a heartbeat to a peer in its run `peer_epoch`.
    pub fn echo(&self, peer_epoch: u32, now: Instant) -> Option<Echo> {
        self.received.map(|newest| Echo {
            epoch: peer_epoch,
            stamp_us: newest.stamp_us,
            delay_us: u32::try_from(now.as_micros().saturating_sub(newest.at.as_micros()))
                .unwrap_or(u32::MAX),
            sent: newest.sent,
            received: newest.received,
        })
    }

    /// A datagram with `bytes` of UDP payload goes out.
    pub fn on_sent(&mut self, bytes: usize, outgoing: Outgoing, now: Instant) {
        let bytes = bytes as u64 + self.header_bytes();
        self.tx_packets += 1;
        self.tx_bytes += bytes;
        self.tx_meter.on_bytes(bytes, now);
        self.mtu.on_sent(bytes);
        let rate = self.pacing_rate(now);
        self.paced = Some((now, rate));
        self.pacer.on_sent(bytes, rate, now);
        if outgoing.asks {
            self.data_sent_at = Some(now);
            if outgoing.sealed.is_some() {
                self.health.on_asked(now);
            }
        }
        if let Some(sealed) = outgoing.sealed {
            self.sent.on_sent(sealed, outgoing, bytes, self.pacer.idle(), now);
        }
        self.note_carried(bytes);
    }

    /// What waits to be sent from now on was kept waiting for so long by its driver, not by its links.
    pub fn set_late(&mut self, late: Duration) {
        self.pacer.set_late(late);
    }

    /// The packets found lost since the last call, oldest first.
    pub fn take_lost(&mut self) -> Vec<KeptPacket> {
        self.sent.take_lost()
    }

    /// When packets that end what was sent are overdue: nothing was sent after them that could tell of their loss.
    pub fn end_overdue_at(&self) -> Option<Instant> {
        let sent_at = self.data_sent_at.filter(|_| self.sent.kept_bytes() > 0)?;
        let rtt = self.rtt.srtt()? + (self.rtt.rttvar() * 4).max(END_VARIATION_MIN);
        Some(sent_at + rtt + END_AFTER + END_SLACK).filter(|at| self.end_given_up_at < *at)
    }

    /// Those packets, where they are overdue.
    pub fn take_end(&mut self, now: Instant) -> Vec<KeptPacket> {
        if self.end_overdue_at().is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.end_given_up_at = now;
        self.sent.take_end(END_PACKETS)
    }

    /// The packets whose fate is open, oldest first: the link is given up.
    pub fn take_underway(&mut self) -> Vec<KeptPacket> {
        self.sent.take_underway()
    }

    /// Bytes of packets kept until their fate is known.
    pub const fn kept_bytes(&self) -> usize {
        self.sent.kept_bytes()
    }

    /// What became of packets that were sent again.
    pub const fn resend_counts(&self) -> ResendCounts {
        self.sent.counts()
    }

    /// The smoothed round trip; zero before it is known.
    pub fn rtt(&self) -> Duration {
        self.rtt.srtt().unwrap_or_default()
    }

    /// Whether the peer sends again what it learns was lost on the link.
    pub const fn peer_resends(&self) -> bool {
        self.peer_resends
    }

    /// From when on a datagram may go.
    pub const fn free_at(&self) -> Instant {
        self.pacer.free_at()
    }
}

/// How often a link of this role is measured.
fn rhythm(interval: Duration, role: LinkRole) -> Duration {
    if role == LinkRole::Never { interval * UNUSED_INTERVALS } else { interval }
}

/// `later` − `earlier` of two different clocks, saturating.
fn micros_between(later: u64, earlier: u64) -> i64 {
    i64::try_from(i128::from(later) - i128::from(earlier)).unwrap_or(if later > earlier {
        i64::MAX / 4
    } else {
        i64::MIN / 4
    })
}

#[cfg(test)]
mod tests;
