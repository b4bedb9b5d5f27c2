//! All state of one link of a session. It knows nothing of other links, of sessions or of inner packets.
//!
//! Each side sends a heartbeat every interval, on its own clock, and echoes the newest one it received, so that one
//! heartbeat carries RTT, one-way delay, loss and proof at once ([`crate::wire::heartbeat`]). A heartbeat of a peer that
//! has no proof yet is answered at once: a link is proven on both sides within 1.5 RTT of the first heartbeat.
//! At most one answer for a heartbeat, and not closer than 5 ms to the last.
//! A link that carries much has heartbeats more often, so that its rate can be followed: the next one is due when a hundred
//! times its bytes were carried, either way, but not within 25 ms of the last, nor for over 1 % of what the link is
//! known to carry. Health knows nothing of that: what is overdue as proof counts in regular intervals.

mod health;
mod loss;
mod meter;
mod pacer;
mod path;
mod rate;
mod rtt;
mod window;

use std::collections::VecDeque;
use std::time::Duration;

pub use self::pacer::{BURST, QUANTUM};

use self::health::Health;
use self::loss::LossMeter;
use self::meter::RateMeter;
use self::pacer::Pacer;
use self::path::PathState;
use self::rate::{Delay, Delivery, RateControl};
use self::rtt::{DelayEstimator, RttEstimator};
use crate::config::{LinkConfig, Role, Security};
use crate::discard::Discard;
use crate::event::LinkState;
use crate::packet::{LinkId, Path};
use crate::scheduler::{LinkView, score};
use crate::stats::LinkStats;
use crate::time::Instant;
use crate::units::BitRate;
use crate::wire::FRAME_HEADER_BYTES;
use crate::wire::control::{CHALLENGE_BYTES, Control};
use crate::wire::heartbeat::{Echo, HEARTBEAT_BYTES, Heartbeat};

/// A suspect link is probed this often.
const SUSPECT_INTERVAL: Duration = Duration::from_millis(50);

/// A link that carries much is probed at most this often, and at most for this share of what it carries.
const BUSY_INTERVAL: Duration = Duration::from_millis(25);
const HEARTBEAT_COST_PERMILLE: u64 = 10;

/// What scheduling of a busy host adds to an echo's way is below this.
const OVERDUE_SLACK: Duration = Duration::from_millis(15);

/// Answers to heartbeats keep this distance from the last heartbeat.
const ANSWER_GAP: Duration = Duration::from_millis(5);

/// Utilisation above which a link counts as saturated, permille (the score's 80 %).
pub const SATURATED_PERMILLE: u16 = 800;

/// Bytes of IP and UDP header around a datagram: pacing counts them.
const IPV4_HEADERS: u64 = 20 + 8;
const IPV6_HEADERS: u64 = 40 + 8;

/// Control frames that wait for their turn; more than this nobody asks for.
const CONTROL_MAX: usize = 8;

/// Heartbeats in flight that are remembered: 10 s of them.
const LOG_MAX: usize = 400;

/// Echoes closer together than this say too little about a rate.
const DELIVERY_SPAN: Duration = Duration::from_millis(50);

/// A heartbeat of ours: the counts when it was sent.
#[derive(Debug, Clone, Copy)]
struct Logged {
    sent_at: Instant,
    packets: u64,
    bytes: u64,
}

/// A heartbeat of ours as the peer saw it.
#[derive(Debug, Clone, Copy)]
struct Echoed {
    logged: Logged,
    /// Arrival by the peer's clock, µs.
    arrived_us: u64,
    received: u64,
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

/// One link.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    role: Role,
    security: Security,
    interval: Duration,
    priority: u8,
    rx_ceiling: Option<BitRate>,
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
    rate: RateControl,
    pacer: Pacer,
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
            rx_ceiling: config.rx_rate,
            path: PathState::new(config.path.iter().chain(&config.alternatives).copied().collect()),
            control: VecDeque::new(),
            health: Health::new(interval),
            rtt: RttEstimator::new(),
            tx_delay: DelayEstimator::new(),
            rx_delay: DelayEstimator::new(),
            loss: LossMeter::default(),
            random_loss: LossMeter::default(),
            log: VecDeque::new(),
            echoed: None,
            rate: RateControl::new(config.tx_rate),
            pacer: Pacer::default(),
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

    /// Every address that a client may reach its server at on this link.
    pub fn candidates(&self) -> &[Path] {
        self.path.candidates()
    }

    /// Sealed or plain.
    pub const fn security(&self) -> Security {
        self.security
    }

    /// Whether `path` is one that a client may hear its server on.
    pub fn hears(&self, path: &Path) -> bool {
        self.path.knows(path)
    }

    fn header_bytes(&self) -> u64 {
        let ipv6 = self.path.current().is_some_and(|path| path.remote.ip().to_canonical().is_ipv6());
        if ipv6 { IPV6_HEADERS } else { IPV4_HEADERS }
    }

    /// A client heard its server on `path`. Whether that is another one than it sent to.
    pub fn adopt(&mut self, path: Path) -> bool {
        self.path.adopt(path)
    }

    /// A server's authenticated datagram with `bytes` of UDP payload came from `path`. Whether the path changed; then it is asked
    /// to prove itself with `token`.
    pub fn follow(
        &mut self,
        path: Path,
        newest: bool,
        bytes: usize,
        token: impl FnOnce() -> [u8; CHALLENGE_BYTES],
        now: Instant,
    ) -> bool {
        let bytes = bytes as u64 + self.header_bytes();
        let moved = self.path.follow(path, newest, bytes, token, now);
        if moved {
            self.heartbeat_at = Some(now);
        }
        moved
    }

    /// The peer answered a challenge from `path`. Whether the path may be used for data from now on.
    pub fn on_response(&mut self, token: &[u8; CHALLENGE_BYTES], path: &Path) -> bool {
        self.path.on_response(token, path)
    }

    /// Sends a control frame as soon as may be.
    pub fn push_control(&mut self, control: Control) {
        if self.control.len() < CONTROL_MAX {
            self.control.push_back(control);
        }
    }

    /// The control frame to send now.
    pub fn poll_control(&mut self, now: Instant) -> Option<Control> {
        self.control.pop_front().or_else(|| self.path.poll_challenge(now).map(Control::Challenge))
    }

    /// When a control frame is due; the past: at once.
    pub fn control_at(&self) -> Option<Instant> {
        if self.control.is_empty() { self.path.challenge_at() } else { Some(Instant::ZERO) }
    }

    /// Whether a datagram with `bytes` of UDP payload may go where the link sends to; if so it counts.
    pub fn try_spend(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64 + self.header_bytes();
        self.path.try_spend(bytes)
    }

    /// The heartbeat that is due may not go yet.
    pub fn skip_heartbeat(&mut self, now: Instant) {
        self.heartbeat_at = Some(now + self.interval);
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
        self.rate.capacity()
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
        self.rx_packets += 1;
        self.rx_run_packets += 1;
        self.rx_bytes += bytes;
        self.rx_meter.on_bytes(bytes, now);
        self.note_carried(bytes);
    }

    /// A data frame with this counter arrived.
    pub const fn on_data(&mut self, counter: u64) {
        self.last_seq = counter;
    }

    /// The peer was restarted, or ended the session: all that its clock and counters told is void.
    pub fn on_peer_restart(&mut self) {
        self.health.on_peer_restart();
        self.rtt = RttEstimator::new();
        self.tx_delay = DelayEstimator::new();
        self.rx_delay = DelayEstimator::new();
        self.received = None;
        self.rx_run_packets = 0;
        if self.security == Security::Sealed {
            self.path.forget();
            if self.path.current().is_none() {
                self.heartbeat_at = None;
                self.control.clear();
            }
        }
        self.forget_delivery();
    }

    /// What was delivered before says nothing about what will be.
    fn forget_delivery(&mut self) {
        self.loss = LossMeter::default();
        self.random_loss = LossMeter::default();
        self.log.clear();
        self.echoed = None;
        self.echo_rhythm = None;
        self.rate.on_restart();
    }

    /// The interface lost its carrier (`false`) or has it again.
    pub fn on_carrier(&mut self, carrier: bool, now: Instant) {
        self.health.on_carrier(carrier);
        if carrier && self.path.current().is_some() {
            self.heartbeat_at = Some(now);
        }
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
        self.rate.on_peer_ceiling(heartbeat.rx_ceiling);
        if self.role == Role::Server {
            self.priority = heartbeat.priority;
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

    /// The peer's heartbeat, sent at `peer_stamp_us` of its clock, echoes one of ours.
    fn on_echo(&mut self, echo: &Echo, peer_stamp_us: u64, now: Instant) -> Result<(), Discard> {
        let elapsed_us = now.as_micros().checked_sub(echo.stamp_us).ok_or(Discard::HeartbeatMalformed)?;
        let rtt_us = elapsed_us.checked_sub(u64::from(echo.delay_us)).ok_or(Discard::HeartbeatMalformed)?;
        let was_down = self.health.state() == LinkState::Down;
        self.health.on_proof(Instant::from_nanos(echo.stamp_us.saturating_mul(1_000)));
        if was_down && self.health.state() == LinkState::Up {
            // Three good probes healed it: the outage's losses would keep it unused for as long as their window.
            self.forget_delivery();
        }
        self.rtt.on_sample(Duration::from_micros(rtt_us), now);
        let gap =
            self.received.map_or(self.interval, |last| now.saturating_since(last.at).min(self.interval));
        self.echo_rhythm = Some((Duration::from_micros(rtt_us), gap.max(BUSY_INTERVAL)));
        let arrived_us = peer_stamp_us.saturating_sub(u64::from(echo.delay_us));
        let delay_us = micros_between(arrived_us, echo.stamp_us);
        self.tx_delay.on_sample(delay_us, now);
        self.on_delivery(echo, arrived_us, delay_us, now);
        Ok(())
    }

    /// What was sent between the last heartbeat echoed and this one, and what of it arrived.
    fn on_delivery(&mut self, echo: &Echo, arrived_us: u64, delay_us: i64, now: Instant) {
        while self.log.front().is_some_and(|logged| logged.packets < echo.sent) {
            self.log.pop_front();
        }
        let Some(logged) = self.log.front().copied().filter(|logged| logged.packets == echo.sent) else {
            return;
        };
        let newest = Echoed { logged, arrived_us, received: echo.received };
        let delay = Delay {
            delay_us,
            rtt_min: self.rtt.min(now).unwrap_or_default(),
            age: now.saturating_since(logged.sent_at),
            since_bytes: self.tx_bytes.saturating_sub(logged.bytes),
        };
        self.rate.on_delay(&delay, now);
        let Some(last) = self.echoed else {
            self.echoed = Some(newest);
            return;
        };
        let sending = logged.sent_at.saturating_since(last.logged.sent_at);
        if sending < DELIVERY_SPAN {
            return;
        }
        self.echoed = Some(newest);
        // Never much quicker than sent: what a stalled link lets go at once says nothing about its rate.
        let arriving = Duration::from_micros(arrived_us.saturating_sub(last.arrived_us)).max(sending / 2);
        let (packets, bytes) = (logged.packets - last.logged.packets, logged.bytes - last.logged.bytes);
        let arrived = echo.received.saturating_sub(last.received).min(packets);
        let arrived_bytes = u128::from(bytes) * u128::from(arrived) / u128::from(packets.max(1));
        let sample = Delivery {
            sent: BitRate::from_bytes_over(bytes, sending),
            delivered: BitRate::from_bytes_over(u64::try_from(arrived_bytes).unwrap_or(bytes), arriving),
            lost_permille: (packets - arrived) * 1_000 / packets.max(1),
        };
        let clear = self.rate.on_delivery(&sample, now);
        // Unclamped: what was late in one interval comes in the next.
        let received = echo.received.saturating_sub(last.received);
        self.loss.on_interval(packets, received, now);
        if clear {
            self.random_loss.on_interval(packets, received, now);
        }
    }

    /// Time has passed: the state may change.
    pub fn on_time(&mut self, now: Instant) {
        self.health.on_time(&self.rtt, now);
    }

    /// When the state may change by time alone.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.health.poll_timeout(&self.rtt)
    }

    /// The heartbeat to send now, with its sequence number, and the next one's time set.
    pub fn next_heartbeat(&mut self, epoch: u32, now: Instant) -> (u64, Heartbeat) {
        self.heartbeats_sent += 1;
        let interval = match self.health.state() {
            LinkState::Suspect => self.interval.min(SUSPECT_INTERVAL),
            LinkState::Up | LinkState::Down => self.interval,
        };
        if self.health.state() == LinkState::Down {
            self.path.rotate();
        }
        self.heartbeat_at = Some(now + interval);
        self.heartbeat_sent_at = Some(now);
        self.carried_bytes = 0;
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(Logged { sent_at: now, packets: self.tx_packets + 1, bytes: self.tx_bytes });
        (
            self.heartbeats_sent,
            Heartbeat {
                epoch,
                stamp_us: now.as_micros(),
                sent: self.tx_packets + 1,
                echo: None,
                proven: self.health.state() == LinkState::Up,
                priority: self.priority,
                rx_ceiling: self.rx_ceiling,
            },
        )
    }

    /// Bytes went out or came in: heartbeats of a link that carries much are closer together.
    fn note_carried(&mut self, bytes: u64) {
        let heartbeat_bytes = FRAME_HEADER_BYTES as u64 + u64::from(HEARTBEAT_BYTES) + self.header_bytes();
        self.carried_bytes += bytes;
        if self.carried_bytes < heartbeat_bytes * 1_000 / HEARTBEAT_COST_PERMILLE
            || self.health.state() == LinkState::Down
        {
            return;
        }
        let (Some(due), Some(sent_at)) = (self.heartbeat_at, self.heartbeat_sent_at) else { return };
        let share = self.rate.capacity().map(|rate| rate.permille(HEARTBEAT_COST_PERMILLE));
        let gap = share.map_or(BUSY_INTERVAL, |share| share.time_to_send(heartbeat_bytes).max(BUSY_INTERVAL));
        self.heartbeat_at = Some(due.min(sent_at + gap));
    }

    /// How long an echo of ours is overdue: the queue that its heartbeat waits in is at least that long.
    fn overdue(&self, now: Instant) -> Duration {
        let (Some(next), Some((rtt, gap))) = (self.log.get(1), self.echo_rhythm) else {
            return Duration::ZERO;
        };
        now.saturating_since(next.sent_at + rtt + gap * 2 + OVERDUE_SLACK)
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
    pub fn on_sent(&mut self, bytes: usize, now: Instant) {
        let bytes = bytes as u64 + self.header_bytes();
        self.tx_packets += 1;
        self.tx_bytes += bytes;
        self.tx_meter.on_bytes(bytes, now);
        self.pacer.on_sent(bytes, self.rate.pacing_rate(self.overdue(now), now), now);
        self.note_carried(bytes);
    }

    /// From when on a datagram may go.
    pub const fn free_at(&self) -> Instant {
        self.pacer.free_at()
    }

    /// What the scheduler sees.
    pub fn view(&self, now: Instant) -> LinkView {
        let capacity = self.rate.capacity();
        LinkView {
            id: self.id,
            // No data for an address that has not proven that it wants it.
            state: if self.path.is_trusted() { self.health.state() } else { LinkState::Down },
            priority: self.priority,
            rtt: self.rtt.srtt().unwrap_or_default(),
            loss_permille: self.loss.permille(),
            random_loss_permille: self.random_loss.permille(),
            utilisation_permille: self.utilisation_permille(capacity, now),
            rate: self.rate.pacing_rate(self.overdue(now), now),
            delay_us: self.tx_delay.delay_us().unwrap_or(0),
            free_at: self.pacer.free_at(),
            header_bytes: self.header_bytes(),
        }
    }

    fn utilisation_permille(&self, capacity: Option<BitRate>, now: Instant) -> u16 {
        let Some(capacity) = capacity.map(BitRate::as_bps).filter(|bps| *bps > 0) else { return 0 };
        let used = u128::from(self.tx_meter.rate(now).as_bps());
        u16::try_from(used * 1_000 / u128::from(capacity)).unwrap_or(u16::MAX)
    }

    /// Figures for people.
    pub fn stats(&self, now: Instant) -> LinkStats {
        let view = self.view(now);
        LinkStats {
            id: self.id,
            state: view.state,
            path: self.path.current(),
            priority: self.priority,
            score: score::score(&view, score::Saturation::Ignored),
            saturated: view.utilisation_permille > SATURATED_PERMILLE,
            rtt: self.rtt.srtt(),
            rtt_min: self.rtt.min(now),
            loss_permille: view.loss_permille,
            tx_rate: self.tx_meter.rate(now),
            rx_rate: self.rx_meter.rate(now),
            capacity: self.rate.capacity(),
            utilisation_permille: view.utilisation_permille,
            tx_packets: self.tx_packets,
            tx_bytes: self.tx_bytes,
            rx_packets: self.rx_packets,
            rx_bytes: self.rx_bytes,
            last_seq: self.last_seq,
        }
    }
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
mod tests {
    use super::*;
    use crate::packet::SocketId;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn ms(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(1_000 + ms)
    }

    /// When the next heartbeat is due after `datagrams` of 1,400 bytes in 20 ms on a proven link of `mbit`.
    fn due_after(datagrams: u64, mbit: u64, receive: bool) -> Instant {
        let config = LinkConfig {
            security: Security::Plain,
            priority: 1,
            tx_rate: Some(BitRate::from_bps(mbit * 1_000_000)),
            rx_rate: None,
            path: Some(Path { socket: SocketId(0), local: None, remote: "192.0.2.1:9000".parse().unwrap() }),
            alternatives: Vec::new(),
        };
        let mut link = Link::new(LinkId(0), Role::Client, &config, INTERVAL, ms(0));
        link.next_heartbeat(1, ms(0));
        link.health.on_proof(ms(0));
        for datagram in 0..datagrams {
            let at = ms(20 * datagram / datagrams);
            if receive {
                link.on_datagram(1_400, at);
            } else {
                link.on_sent(1_400, at);
            }
        }
        link.heartbeat_at().unwrap()
    }

    #[test]
    fn a_link_that_carries_much_has_heartbeats_more_often() {
        for receive in [false, true] {
            assert_eq!(due_after(6, 50, receive), ms(100));
            assert_eq!(due_after(60, 50, receive), ms(25));
            // 96 bytes and a little are 1 % of 1 Mbit/s in some 80 ms.
            let due = due_after(60, 1, receive);
            assert!((ms(70)..ms(90)).contains(&due), "{due:?}");
        }
    }

    /// The heartbeat that announces a new run takes the path with it: what came before says nothing about it.
    #[test]
    fn a_sealed_link_without_a_path_waits_for_one() {
        let config = LinkConfig {
            security: Security::Sealed,
            priority: 1,
            tx_rate: None,
            rx_rate: None,
            path: None,
            alternatives: Vec::new(),
        };
        let mut link = Link::new(LinkId(0), Role::Server, &config, INTERVAL, ms(0));
        let path = Path { socket: SocketId(0), local: None, remote: "192.0.2.1:9000".parse().unwrap() };
        let heartbeat = Heartbeat {
            epoch: 2,
            stamp_us: 1,
            sent: 1,
            echo: None,
            proven: false,
            priority: 1,
            rx_ceiling: None,
        };
        link.follow(path, true, 100, || [1; CHALLENGE_BYTES], ms(0));
        link.on_peer_restart();
        assert_eq!(link.on_heartbeat(1, &heartbeat, path, 1, ms(0)), Ok(None));
        assert_eq!(link.heartbeat_at(), None);
        link.follow(path, true, 100, || [1; CHALLENGE_BYTES], ms(1));
        assert_eq!(link.heartbeat_at(), Some(ms(1)));
    }
}
