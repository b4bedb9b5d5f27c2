//! All state of one link of a session. It knows nothing of other links, of sessions or of inner
//! packets.
//!
//! A [`Link`] routes each input to the parts that own the state:
//!
//! ```text
//! received ─► heartbeats, deliveries ─► liveness              may the link be used?
//!                                    ─► delays, losses        how far, how lossy?
//!                                    ─► congestion ─► pacer   how fast, and when?
//! received ─► arrivals                                        what is the peer to be told?
//! path: where to, what size, marked or not       traffic: what was carried
//! trial: over how many UDP flows
//! ```
//! Contract: the session asks [`Link::has_due`] or when each kind of datagram is due, sends what is
//! due, and tells what was sent and what arrived. A question about one part goes to that part (the
//! path, the deliveries, ...); what concerns several parts is a method of the link. The pacing rate
//! is computed once for a moment, unless a datagram comes between.

mod congestion;
mod feedback;
mod figures;
mod heartbeat;
mod liveness;
mod pacer;
mod path;
mod profile;
mod traffic;
mod trial;
mod window;

use std::time::Duration;

pub use self::congestion::{Cause, ControlChange, PhaseKind};
pub use self::feedback::acknowledger::{Arrival, Report};
pub use self::feedback::sent_log::{Outgoing, ResendCounts};
pub(crate) use self::path::mtu::FLOOR_BYTES;

use self::congestion::CongestionControl;
use self::feedback::acknowledger::{Acknowledger, cost_bytes};
use self::feedback::delays::{Delays, micros_between};
use self::feedback::sent_log;
use self::feedback::{Deliveries, Losses};
use self::heartbeat::{Heartbeats, Logged, SUSPECT_INTERVAL};
use self::liveness::Liveness;
use self::pacer::Pacer;
use self::path::LinkPath;
use self::profile::Profile;
use self::traffic::Traffic;
use self::trial::Trial;
use crate::config::{LinkConfig, Role, Security, UdpFlows};
use crate::discard::Discard;
use crate::limits::SATURATED_PERMILLE;
use crate::packet::KeptPacket;
use crate::packet::{Destination, LinkId, Path, UdpFlow};
use crate::stats::LinkStats;
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::{LinkRole, LinkState, LinkView, Saturation, score};
use crate::wire::control::{CHALLENGE_BYTES, Control};
use crate::wire::feedback::Feedback;
use crate::wire::figures::SendingFigures;
use crate::wire::heartbeat::{Echo, Heartbeat, WantedFlows};

/// A link that sent data this long and a round trip ago is in use. Chosen: above the distance of
/// two heartbeats.
const START_SLACK: Duration = Duration::from_millis(150);

/// More loss than any queue makes for long, permille: perhaps large datagrams do not pass any more.
/// Chosen: half.
const HEAVY_LOSS_PERMILLE: u64 = 500;

/// A flow's heartbeat comes back echoed within two round trips and this. Chosen: an interval of the
/// peer's heartbeats and what hosts add.
const FLOW_SLACK: Duration = Duration::from_millis(250);

/// One link.
#[derive(Debug)]
pub struct Link {
    profile: Profile,
    path: LinkPath,
    liveness: Liveness,
    heartbeats: Heartbeats,
    /// What was sent on a sealed link, and what became of it.
    deliveries: Deliveries,
    /// What arrived on a sealed link.
    arrivals: Acknowledger,
    delays: Delays,
    losses: Losses,
    congestion: CongestionControl,
    pacer: Pacer,
    traffic: Traffic,
    /// Over how many UDP flows a sealed link sends.
    trial: Trial,
}

impl Link {
    /// A link without proof. Heartbeats start at once where the path is known.
    pub fn new(id: LinkId, role: Role, config: &LinkConfig, interval: Duration, now: Instant) -> Self {
        let profile = Profile::new(id, role, config, interval, now);
        let mut link = Self {
            path: LinkPath::new(role, config),
            liveness: Liveness::new(profile.rhythm()),
            heartbeats: Heartbeats::new(config.path.map(|_| now)),
            deliveries: Deliveries::new(),
            arrivals: Acknowledger::default(),
            delays: Delays::new(),
            losses: Losses::default(),
            congestion: CongestionControl::new(config.tx_rate),
            pacer: Pacer::default(),
            traffic: Traffic::default(),
            trial: Trial::new(if profile.is_sealed() { config.flows } else { UdpFlows::Fixed(1) }),
            profile,
        };
        link.settle_flows(now);
        link
    }

    /// The number is another line's from now on, which is not proven: what was known of the line
    /// before says nothing about it. What both ends count goes on: datagrams, and the numbers of
    /// heartbeats. To be called when the link is down, and what it carried goes over others.
    pub fn renew(&mut self, config: &LinkConfig, now: Instant) {
        let (id, role, interval) = (self.id(), self.profile.role(), self.profile.interval());
        let Self { mut heartbeats, mut deliveries, traffic, .. } =
            std::mem::replace(self, Self::new(id, role, config, interval, now));
        heartbeats.renew(config.path.map(|_| now));
        deliveries.renew();
        (self.heartbeats, self.deliveries, self.traffic) = (heartbeats, deliveries, traffic);
    }

    /// No line has this number from now on: the link sends nothing.
    pub fn retire(&mut self, config: &LinkConfig, now: Instant) {
        self.renew(config, now);
        self.profile.set_retired(true);
    }

    // What the link is.

    /// No line has this number.
    pub const fn is_retired(&self) -> bool {
        self.profile.is_retired()
    }

    /// A server hears its client on the link again.
    pub const fn on_heard(&mut self) {
        self.profile.set_retired(false);
    }

    /// Which link this is.
    pub const fn id(&self) -> LinkId {
        self.profile.id
    }

    /// Sealed or plain.
    pub const fn security(&self) -> Security {
        self.profile.security()
    }

    /// What the link is used for.
    pub const fn link_role(&self) -> LinkRole {
        self.profile.link_role()
    }

    /// The link is used for something else from now on; the peer is to know at once.
    pub fn set_link_role(&mut self, role: LinkRole, now: Instant) {
        self.profile.set_link_role(role);
        self.liveness.health.set_interval(self.profile.rhythm());
        self.hasten_heartbeat(now);
    }

    /// The link is preferred like this from now on; the peer is to know at once. Whether that is
    /// another priority than before.
    pub const fn set_priority(&mut self, priority: u8, now: Instant) -> bool {
        let changes = self.profile.priority() != priority;
        if changes {
            self.profile.set_priority(priority);
            self.hasten_heartbeat(now);
        }
        changes
    }

    /// At most so much is sent from now on.
    pub fn set_tx_ceiling(&mut self, ceiling: Option<BitRate>, now: Instant) {
        self.congestion.set_ceiling(ceiling, now);
        self.pacer.forget_rate();
    }

    /// At most so much is to be received from now on; the peer is to know at once.
    pub const fn set_rx_ceiling(&mut self, ceiling: Option<BitRate>, now: Instant) {
        self.profile.set_rx_ceiling(ceiling);
        self.hasten_heartbeat(now);
    }

    /// Whether the peer sends again what it learns was lost on the link.
    pub const fn peer_resends(&self) -> bool {
        self.profile.peer_resends()
    }

    // The parts, for what concerns one of them alone.

    /// Where the link sends to, and what goes there.
    pub(crate) const fn path(&self) -> &LinkPath {
        &self.path
    }

    /// See [`Self::path`].
    pub(crate) const fn path_mut(&mut self) -> &mut LinkPath {
        &mut self.path
    }

    /// A client may send to these addresses of its server from now on. Where the link is down and
    /// sends to another one from now on, a heartbeat goes there at once. Whether that is so.
    pub(crate) fn set_candidates(&mut self, candidates: Vec<Path>, now: Instant) -> bool {
        let is_used = self.state() != LinkState::Down;
        let is_moved = self.path.set_candidates(candidates, is_used);
        if is_moved {
            self.heartbeats.set_due(self.path.is_known().then_some(now));
        }
        is_moved
    }

    /// Whether the link delivers.
    pub(crate) const fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    /// See [`Self::liveness`].
    pub(crate) const fn liveness_mut(&mut self) -> &mut Liveness {
        &mut self.liveness
    }

    /// When heartbeats go, and what they echo.
    pub(crate) const fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    /// What became of what was sent.
    pub(crate) const fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    /// See [`Self::deliveries`].
    pub(crate) const fn deliveries_mut(&mut self) -> &mut Deliveries {
        &mut self.deliveries
    }

    /// When the link may send.
    pub(crate) const fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// See [`Self::pacer`].
    pub(crate) const fn pacer_mut(&mut self) -> &mut Pacer {
        &mut self.pacer
    }

    /// What the link carried.
    pub(crate) const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// See [`Self::traffic`].
    pub(crate) const fn traffic_mut(&mut self) -> &mut Traffic {
        &mut self.traffic
    }

    // The path.

    /// A server's authenticated datagram with `bytes` of UDP payload came on the flow from `path`.
    /// Whether the link's path changed; a changed one, and another flow's, is asked to prove itself
    /// with `token`.
    pub fn follow(
        &mut self,
        (flow, path): (UdpFlow, Path),
        newest: bool,
        bytes: usize,
        token: impl FnOnce() -> [u8; CHALLENGE_BYTES],
        now: Instant,
    ) -> bool {
        let moved = self.path.follow((flow, path), newest, bytes, token, now) && flow == UdpFlow::FIRST;
        if moved {
            self.heartbeats.set_due(Some(now));
        }
        moved
    }

    /// The flows are as many as are wanted now. New ones are asked at once, and the peer learns of
    /// them.
    fn settle_flows(&mut self, now: Instant) {
        if self.path.flows.set_count(self.trial.asked(), self.trial.used(), now) {
            self.hasten_heartbeat(now);
        }
    }

    /// The UDP flows that the peer is asked for.
    pub fn wanted_flows(&self) -> Option<WantedFlows> {
        self.trial.told().filter(|_| self.profile.is_sealed())
    }

    /// Over how many UDP flows the link is known to deliver.
    pub fn live_flows(&self) -> u8 {
        self.path.flows.live()
    }

    // Probes of the sizes that the path carries.

    /// Whether the path is to be probed at present.
    #[inline]
    fn is_probed(&self) -> bool {
        let proven = self.state() == LinkState::Up && self.path.is_trusted();
        proven && self.profile.is_sealed() && !self.profile.is_unused()
    }

    /// The probe to send now, on a link that need not carry inner packets of more than
    /// `packet_max`, and whether the path is another than the one that was known. To be asked
    /// before data is sent.
    pub fn poll_probe(&mut self, packet_max: usize, now: Instant) -> (Option<Control>, bool) {
        if !self.is_probed() {
            return (None, false);
        }
        self.path.poll_probe(packet_max, self.delays.rtt(), now)
    }

    /// A probe of `bytes` of UDP payload goes out. It takes its share of the link's rate, but
    /// heartbeats do not count it as a datagram: its loss says nothing about the link.
    pub fn on_probe_sent(&mut self, bytes: usize, sealed: Option<(u32, u64)>, now: Instant) {
        self.on_sent(bytes, Outgoing::control(sealed), now);
        self.traffic.discount_sent();
    }

    /// An answer may be overdue. Whether what the link carries changed.
    pub fn on_probe_time(&mut self, now: Instant) -> bool {
        let health = &self.liveness.health;
        let search = self.path.sizes.search_mut();
        let before = search.bytes();
        let changed = search.on_time(health.proven_at(), health.state() != LinkState::Down, now);
        if search.bytes() < before {
            // The losses of a black hole would keep the link unused for as long as their window.
            self.losses = Losses::default();
            self.heartbeats.forget_echoes();
        }
        changed
    }

    // Liveness.

    /// Proven, suspect or down.
    pub const fn state(&self) -> LinkState {
        self.liveness.health.state()
    }

    /// Time has passed: the state may change.
    pub fn on_time(&mut self, now: Instant) {
        let before = self.liveness.state();
        self.liveness.health.on_time(self.delays.rtt(), self.deliveries.gap(), now);
        let after = self.liveness.state();
        if before != after && after != (LinkState::Down, false) && !self.profile.is_unused() {
            self.hasten_heartbeat(now);
        }
    }

    /// When the state may change by time alone.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.liveness.health.poll_timeout(self.delays.rtt(), self.deliveries.gap())
    }

    /// The interface lost its carrier (`false`) or has it again.
    pub fn on_carrier(&mut self, carrier: bool, now: Instant) {
        self.liveness.health.on_carrier(carrier, now);
        if carrier {
            self.hasten_heartbeat(now);
        }
    }

    /// The system refused to send on the link: it is asked at once whether it still delivers.
    pub fn on_send_failed(&mut self, now: Instant) {
        let before = self.state();
        self.liveness.health.on_send_failed(self.delays.rtt(), now);
        if before != self.state() {
            self.hasten_heartbeat(now);
        }
    }

    /// The peer was restarted, or ended the session: all that its clock and counters told is void.
    pub fn on_peer_restart(&mut self, now: Instant) {
        self.liveness.on_peer_restart();
        self.delays.on_peer_restart();
        self.heartbeats.on_peer_restart();
        self.traffic.on_peer_restart();
        self.deliveries.log.clear();
        self.arrivals.clear();
        if self.profile.is_sealed() && self.path.forget() {
            self.heartbeats.set_due(None);
        }
        self.forget_delivery(now);
    }

    /// What was delivered before says nothing about what will be.
    fn forget_delivery(&mut self, now: Instant) {
        self.pacer.forget_rate();
        self.path.ecn.restart();
        self.losses = Losses::default();
        self.heartbeats.forget_delivery();
        self.deliveries.forget_delivery();
        self.congestion.on_restart(now);
        self.trial.on_restart();
        self.path.flows.ask_again(now);
        self.settle_flows(now);
    }

    /// What was sent at `sent_at` arrived.
    fn on_proof(&mut self, sent_at: Instant, now: Instant) {
        let unproven_at = self.deliveries.log.first_asked_after(sent_at);
        if self.liveness.health.on_proof(sent_at, unproven_at, now) {
            // The link is back after a failure, whose losses would keep it unused for as long as
            // their window.
            self.forget_delivery(now);
        }
    }

    /// It failed and is proven again, but must wait, for it flaps.
    pub fn only_waits(&self) -> bool {
        self.liveness.health.only_waits()
    }

    /// It need not wait any longer.
    pub fn end_wait(&mut self, now: Instant) {
        self.liveness.health.end_wait(now);
        self.forget_delivery(now);
    }

    // Heartbeats.

    /// The heartbeat that is due may not go yet.
    pub fn skip_heartbeat(&mut self, now: Instant) {
        self.heartbeats.set_due(Some(now + self.profile.rhythm()));
    }

    /// A heartbeat at once.
    pub const fn hasten_heartbeat(&mut self, now: Instant) {
        if self.path.is_known() {
            self.heartbeats.set_due(Some(now));
        }
    }

    /// Where the heartbeat goes that is due; `None`: there is no path.
    pub(crate) fn heartbeat_destination(&mut self, now: Instant) -> Option<Destination> {
        self.trial.on_time(now);
        self.settle_flows(now);
        let round = self.delays.srtt() * 2 + FLOW_SLACK;
        let flow = self.path.flows.take_turn(self.profile.rhythm(), round, now);
        self.path.of_flow(flow).or_else(|| self.path.destination())
    }

    /// The heartbeat to send on the flow now, with its sequence number, and the next one's time
    /// set.
    pub fn next_heartbeat(&mut self, epoch: u32, flow: UdpFlow, now: Instant) -> (u64, Heartbeat) {
        let is_urgent = self.liveness.health.is_urgent() || self.path.flows.has_ask(now);
        let interval = if is_urgent && !self.profile.is_unused() {
            self.profile.interval().min(SUSPECT_INTERVAL)
        } else {
            self.profile.rhythm()
        };
        if self.state() == LinkState::Down {
            self.path.address.rotate();
            self.path.ecn.on_down();
        }
        self.liveness.health.on_try(now);
        let logged = Logged {
            sent_at: now,
            packets: self.traffic.tx_packets() + 1,
            bytes: self.traffic.tx_bytes(),
            idle: self.pacer.idle(),
            is_ect: self.profile.is_sealed() && self.path.ecn.on_heartbeat(),
            flow,
        };
        let heartbeat = Heartbeat {
            epoch,
            stamp_us: now.as_micros(),
            sent: logged.packets,
            echo: None,
            proven: self.liveness.is_proven(),
            at_once: true,
            priority: self.profile.priority(),
            role: self.profile.link_role(),
            rx_ceiling: self.profile.rx_ceiling(),
            resends: false,
            partial: true,
            indirect_feedback: true,
            streams: false,
            figures: self.profile.is_sealed(),
            failed: 0,
            flows: self.wanted_flows(),
            retired: 0,
        };
        (self.heartbeats.on_sent(logged, interval), heartbeat)
    }

    /// A heartbeat of the peer's present run arrived, answering this side's run `epoch` or no run.
    /// Returns the new path where the peer sends from another address than before.
    pub fn on_heartbeat(
        &mut self,
        seq_num: u64,
        heartbeat: &Heartbeat,
        path: Path,
        epoch: u32,
        now: Instant,
    ) -> Result<Option<Path>, Discard> {
        if self.heartbeats.is_stale(seq_num) {
            return Err(Discard::Stale);
        }
        if let Some(echo) = heartbeat.echo.filter(|echo| echo.epoch == epoch) {
            self.on_echo(&echo, heartbeat.stamp_us, now)?;
        }
        self.delays.on_heartbeat(micros_between(now.as_micros(), heartbeat.stamp_us), now);
        let received = self.traffic.rx_run_packets();
        self.heartbeats.on_received(seq_num, heartbeat.stamp_us, heartbeat.sent, received, now);
        self.congestion.on_peer_ceiling(heartbeat.rx_ceiling, now);
        self.liveness.on_heartbeat(heartbeat, self.profile.is_sealed(), now);
        if self.profile.on_heartbeat(heartbeat, now) {
            self.liveness.health.set_interval(self.profile.rhythm());
        }
        self.traffic.figures.on_heartbeat(heartbeat.figures && self.profile.is_sealed());
        self.trial.on_peer(heartbeat.flows.filter(|_| self.profile.is_sealed()));
        self.settle_flows(now);
        // On a sealed link the datagram itself has moved the path.
        let moved = !self.profile.is_sealed() && self.path.address.adopt(path);
        // A sealed link whose peer has just begun a new run has no path until its next datagram.
        if (!heartbeat.proven || moved) && self.path.is_known() {
            self.heartbeats.answer(now);
        }
        Ok(moved.then_some(path))
    }

    /// The peer's heartbeat, sent at `peer_stamp_us` of its clock, echoes a sent heartbeat.
    fn on_echo(&mut self, echo: &Echo, peer_stamp_us: u64, now: Instant) -> Result<(), Discard> {
        let elapsed_us = now.as_micros().checked_sub(echo.stamp_us).ok_or(Discard::HeartbeatMalformed)?;
        let rtt_us = elapsed_us.checked_sub(u64::from(echo.delay_us)).ok_or(Discard::HeartbeatMalformed)?;
        if echo.stamp_us < self.profile.since().as_micros() {
            // It went over the line that had this number before.
            return Ok(());
        }
        self.liveness.indirect.on_answer();
        self.on_proof(Instant::from_nanos(echo.stamp_us.saturating_mul(1_000)), now);
        let arrived_us = peer_stamp_us.saturating_sub(u64::from(echo.delay_us));
        let delay_us = micros_between(arrived_us, echo.stamp_us);
        let rtt = Duration::from_micros(rtt_us);
        self.delays.on_echo(rtt, delay_us, now);
        self.heartbeats.on_round_trip(rtt, self.profile.interval(), now);
        self.on_delivery(echo, delay_us, now);
        Ok(())
    }

    /// What was sent between the last heartbeat echoed and this one, and what of it arrived.
    fn on_delivery(&mut self, echo: &Echo, delay_us: i64, now: Instant) {
        let Some(told) = self.heartbeats.on_echo(echo) else { return };
        self.path.flows.on_proof(told.flow, told.sent_at);
        if told.is_ect {
            self.path.ecn.on_answer();
        }
        let Some(interval) = told.interval else { return };
        if !self.profile.is_sealed() && interval.packets() > 0 {
            let (total, rtt_min) = (self.traffic.tx_bytes(), self.delays.rtt().min(now).unwrap_or_default());
            let seen = self.heartbeats.observation(&interval, delay_us, total, rtt_min);
            self.congestion.on_observation(&seen, now);
        }
        if !self.heartbeats.try_conclude(&interval) {
            return;
        }
        if interval.lost() * 1_000 >= interval.packets() * HEAVY_LOSS_PERMILLE {
            self.path.sizes.search_mut().on_heavy_loss();
        }
        let is_own = self.congestion.take_own_loss(interval.from(), self.profile.is_sealed(), now);
        self.losses.on_interval(interval.packets(), interval.received(), is_own, now);
    }

    /// What the heartbeat that goes now tells of this side's sending, if it tells anything.
    pub fn take_figures(&mut self, now: Instant) -> Option<Control> {
        let Self { traffic, congestion, losses, .. } = self;
        let rate = traffic.tx_rate(now);
        let make = || {
            let control = congestion.stats(now);
            let capacity = congestion.estimate().capacity;
            SendingFigures::new((control.phase.number(), losses.permille()), rate, capacity, control.queue)
        };
        traffic.figures.take(make, now).map(Control::Figures)
    }

    /// The peer told of its own sending over the link.
    pub const fn on_peer_figures(&mut self, figures: SendingFigures, now: Instant) {
        self.traffic.figures.on_heard(figures, now);
    }

    // Feedback.

    /// A sealed datagram arrived.
    pub fn on_arrival(&mut self, arrival: &Arrival, now: Instant) {
        self.arrivals.on_arrival(arrival, now);
    }

    /// Whether feedback may ride in a heartbeat that goes now.
    pub const fn has_feedback(&self) -> bool {
        self.arrivals.has_news()
    }

    /// When a datagram of feedback is due.
    pub fn feedback_at(&self) -> Option<Instant> {
        let cost_bytes = cost_bytes(self.path.header_bytes());
        // Usually this is asked where nothing came, or too little.
        let end_at = self.arrivals.end_at(cost_bytes)?;
        let capacity = self.congestion.estimate().capacity;
        Some(self.arrivals.due_at(end_at, cost_bytes, self.delays.srtt(), capacity))
    }

    /// Whether one is due now.
    fn is_feedback_due(&self, now: Instant) -> bool {
        let end_at = self.arrivals.end_at(cost_bytes(self.path.header_bytes()));
        end_at.is_some_and(|at| at <= now) && self.feedback_at().is_some_and(|at| at <= now)
    }

    /// What feedback is to tell now; it counts as told.
    pub fn report(&mut self, now: Instant) -> Option<Report> {
        let report = self.arrivals.report(now)?;
        self.liveness.indirect.on_report(now);
        let delay_us = || {
            let stamp_us = self.heartbeats.peer_stamp_us(report.largest_stamp, now)?;
            Some(micros_between(report.largest_at.as_micros(), stamp_us))
        };
        self.delays.on_report(delay_us, now);
        Some(report)
    }

    /// The peer told what arrived: over this link, or (`is_indirect`) over another.
    pub fn on_feedback(&mut self, frame: &Feedback, is_indirect: bool, now: Instant) -> Result<(), Discard> {
        if is_indirect && !self.liveness.health.takes_indirect() {
            return Ok(());
        }
        let told = self.deliveries.log.on_feedback(
            frame,
            (self.delays.srtt(), self.delays.tx().reorders_by(now)),
            now,
        )?;
        let delivered_bytes = self.deliveries.log.take_delivered_max();
        self.path.sizes.search_mut().on_delivered(delivered_bytes, now);
        if !is_indirect {
            self.liveness.indirect.on_answer();
        }
        let Some(told) = told else { return Ok(()) };
        if told.is_newer {
            if is_indirect {
                self.liveness.indirect.on_indirect_news();
            }
            self.on_proof(told.largest.at, now);
            self.on_newer_feedback(frame, &told, now);
        }
        let hold = Duration::from_micros(u64::from(frame.hold_us));
        if is_indirect && self.deliveries.is_silent(told.largest.at, hold, self.delays.rtt()) {
            self.liveness.health.on_told_silence(self.delays.rtt(), now);
        }
        Ok(())
    }

    /// Feedback told of a datagram that is newer than all known to have arrived.
    fn on_newer_feedback(&mut self, frame: &Feedback, told: &sent_log::Told, now: Instant) {
        let Some(arrived_us) = self.heartbeats.peer_time_us(frame.arrival_us, now) else { return };
        let reading = feedback::FrameReading {
            arrived_us,
            least_us: arrived_us.saturating_sub(u64::from(frame.least_before) * 16),
            marked: self.path.ecn.on_feedback(frame),
        };
        self.delays.on_feedback(micros_between(arrived_us, told.largest.at.as_micros()), now);
        self.deliveries.on_taken(told.largest.at, self.profile.interval(), now);
        let rtt_min = self.delays.rtt().min(now).unwrap_or(self.delays.srtt());
        let seen = self.deliveries.observation(&told.largest, told.least.as_ref(), &reading, rtt_min);
        self.congestion.on_observation(&seen, now);
        if self.congestion.take_meaningless_marks(now) {
            self.path.ecn.refuse();
        }
        self.try_flows(seen.delivered, seen.lost, now);
    }

    /// So many bytes arrived and were lost: more flows may be tried, or were.
    fn try_flows(&mut self, delivered: u64, lost: u64, now: Instant) {
        let capacity = self.congestion.estimate().capacity;
        let seen = trial::Seen {
            delivered,
            lost,
            has_queue: self.congestion.has_queue(),
            is_busy: self.traffic.utilisation_permille(capacity, now) > SATURATED_PERMILLE,
            policed_at: self.congestion.policed_at(),
        };
        if self.trial.on_observation(&seen, self.path.flows.used_live(), now) {
            self.congestion.search_again(now);
        }
        self.settle_flows(now);
    }

    /// Whether it was in steady use, and its silence since is not told of as often as it may be: a
    /// tenth of a second later it is.
    pub fn may_fall_silent(&self) -> bool {
        self.liveness.indirect.may_fall_silent(self.arrivals.steady_until())
    }

    /// Is this link silent? What happened before `checking_since` is not known.
    pub fn check_silence(&mut self, checking_since: Instant, now: Instant) {
        self.liveness.indirect.on_time(self.arrivals.steady_until(), checking_since, now);
    }

    /// What is to be told over another link now.
    pub const fn take_indirect_feedback(&mut self) -> Option<Report> {
        if self.liveness.indirect.take_due() { self.arrivals.repeat() } else { None }
    }

    // What is sent and received.

    /// A datagram with `bytes` of UDP payload arrived.
    pub fn on_datagram(&mut self, bytes: usize, now: Instant) {
        let bytes = bytes as u64 + self.path.header_bytes();
        // What it tells may change the rate.
        self.pacer.forget_rate();
        self.traffic.on_received(bytes, now);
        self.on_carried(bytes);
    }

    /// A datagram with `bytes` of UDP payload goes out.
    pub fn on_sent(&mut self, bytes: usize, outgoing: Outgoing, now: Instant) {
        let bytes = self.path.on_sent(bytes, outgoing.flow);
        self.traffic.on_sent(bytes, now);
        self.pacer.on_sent(bytes, self.pacing_rate(now), now);
        if outgoing.asks && outgoing.sealed.is_some() {
            self.liveness.health.on_asked(now);
        }
        self.deliveries.on_sent(outgoing, bytes, self.pacer.idle(), now);
        self.on_carried(bytes);
    }

    /// The same for data. Whether that changes [`Self::is_starting`].
    pub fn on_data_sent(&mut self, bytes: usize, outgoing: Outgoing, now: Instant) -> bool {
        let was_starting = self.is_starting(now);
        self.on_sent(bytes, outgoing, now);
        was_starting != self.is_starting(now)
    }

    /// Bytes went out or came in: heartbeats of a plain link that carries much are closer together.
    fn on_carried(&mut self, bytes: u64) {
        if self.profile.is_sealed() {
            return;
        }
        let header_bytes = self.path.header_bytes();
        if self.heartbeats.on_carried(bytes, header_bytes) && self.state() != LinkState::Down {
            self.heartbeats.on_busy(header_bytes, self.congestion.estimate().capacity);
        }
    }

    /// Whether it may have something of its own to send now, on a link that need not carry inner
    /// packets of more than `packet_max`: if not, it has no heartbeat, no control frame, no
    /// feedback and no probe.
    pub fn has_due(&self, packet_max: usize, now: Instant) -> bool {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        is_due(self.heartbeats.due_at())
            || is_due(self.path.control_at())
            || self.liveness.is_indirect_due()
            || self.is_feedback_due(now)
            || (self.is_probed() && self.path.may_probe(packet_max, now))
    }

    /// When packets that end what was sent are overdue: nothing was sent after them that could tell
    /// of their loss.
    pub fn end_overdue_at(&self) -> Option<Instant> {
        self.deliveries.end_overdue_at(self.delays.rtt())
    }

    /// Those packets, where they are overdue.
    pub fn take_end(&mut self, now: Instant) -> Vec<KeptPacket> {
        self.deliveries.take_end(self.delays.rtt(), now)
    }

    // Pace and figures.

    /// The pacing rate now.
    fn pacing_rate(&self, now: Instant) -> BitRate {
        self.pacer.rate(now).unwrap_or_else(|| self.congestion.pacing_rate(self.overdue(now), now))
    }

    /// How long an answer is overdue.
    fn overdue(&self, now: Instant) -> Duration {
        match self.profile.security() {
            Security::Sealed => self.deliveries.overdue(self.delays.rtt(), self.profile.interval(), now),
            Security::Plain => self.heartbeats.overdue(now),
        }
    }

    /// The smoothed round trip; zero before it is known.
    pub fn rtt(&self) -> Duration {
        self.delays.srtt()
    }

    /// The delay of what arrives on this link, µs with an offset common to all links, and its
    /// deviation.
    pub fn rx_delay_us(&self, now: Instant) -> (i64, u32) {
        (self.delays.rx().delay_us().unwrap_or(0), self.delays.rx().jitter_us(now))
    }

    /// How much later than one that was sent after it a datagram of this link may arrive, and how
    /// many datagrams were sent in that time. `None`: the link keeps the order, or is plain, and
    /// nothing tells.
    pub fn rx_reordering(&self, now: Instant) -> Option<(u64, Duration)> {
        let guess = if self.profile.is_sealed() { self.delays.rx().reorders_by(now) } else { Duration::ZERO };
        self.arrivals.patience(guess).map(|patience| (patience.packets, patience.time))
    }

    /// What the link carries, or is taken to carry until that is known.
    pub fn likely_capacity(&self, now: Instant) -> BitRate {
        let capacity = self.congestion.estimate().capacity;
        capacity.unwrap_or_else(|| self.congestion.pacing_rate(Duration::ZERO, now))
    }

    /// How far, relative and on average, what the link carries is lately from its mean of a second.
    pub fn volatility(&self, now: Instant) -> f64 {
        self.congestion.volatility(now)
    }

    /// How many bits are under way on it when it is used to the full, if it carried data within
    /// `lately`.
    pub fn full_bits(&self, lately: Duration, now: Instant) -> f64 {
        let is_used = self.deliveries.sent_data(lately, now);
        let capacity = self.congestion.estimate().capacity.filter(|_| is_used);
        capacity.map_or(0.0, |rate| rate.as_bps() as f64) * self.delays.srtt().as_secs_f64()
    }

    /// Whether data uses the link while what it carries is being found out.
    pub fn is_starting(&self, now: Instant) -> bool {
        self.congestion.estimate().capacity.is_none()
            && self.deliveries.sent_data(self.delays.srtt() + START_SLACK, now)
    }

    /// What the scheduler sees of the link itself. Whether it is usable or apart, and whether its
    /// losses are sent again, is for the session to set: no is the answer here.
    pub fn view(&self, now: Instant) -> LinkView {
        let estimate = self.congestion.estimate();
        LinkView {
            id: self.profile.id,
            usable: false,
            state: self.state(),
            priority: self.profile.priority(),
            role: self.profile.link_role(),
            rtt: self.delays.srtt(),
            loss_permille: self.losses.permille(),
            random_loss_permille: self.losses.random_permille(),
            is_sealed: self.security() == Security::Sealed,
            is_apart: false,
            recovers: false,
            burst_tenths: self.deliveries.log.burst_tenths(),
            is_competing: estimate.is_competing,
            is_at_ceiling: estimate.is_at_ceiling,
            utilisation_permille: self.traffic.utilisation_permille(estimate.capacity, now),
            rate: self.pacing_rate(now),
            capacity: estimate.capacity,
            delay_us: self.delays.tx().delay_us().unwrap_or(0),
            free_at: self.pacer.free_at(),
            header_bytes: self.path.header_bytes(),
            mtu: self.path.packet_max(),
        }
    }

    /// Figures for people.
    pub fn stats(&self, now: Instant) -> LinkStats {
        let view = self.view(now);
        LinkStats {
            id: view.id,
            // No data for an address that has not proven that it wants it.
            state: if self.path.is_trusted() { view.state } else { LinkState::Down },
            path: self.path.current(),
            priority: view.priority,
            role: view.role,
            score: score(&view, Saturation::Ignored),
            saturated: view.utilisation_permille > SATURATED_PERMILLE,
            rtt: self.delays.rtt().srtt(),
            rtt_min: self.delays.rtt().min(now),
            loss_permille: view.loss_permille,
            tx_rate: self.traffic.tx_rate(now),
            rx_rate: self.traffic.rx_rate(now),
            capacity: self.congestion.estimate().capacity,
            utilisation_permille: view.utilisation_permille,
            tx_packets: self.traffic.tx_packets(),
            tx_bytes: self.traffic.tx_bytes(),
            tx_marked: self.path.ecn.marked_total(),
            rx_packets: self.traffic.rx_packets(),
            rx_bytes: self.traffic.rx_bytes(),
            last_seq: self.traffic.last_seq(),
            mtu: self.path.mtu(),
            flows: self.live_flows(),
            control: self.congestion.stats(now),
            is_retired: self.is_retired(),
            peer: self.traffic.figures.peer(now),
        }
    }

    /// From how many UDP flows to how many the link went since this was asked last, if it did.
    pub fn take_flows_change(&mut self) -> Option<(u8, u8)> {
        self.trial.take_change()
    }

    /// The change of the congestion control since this was asked last, if it is worth telling.
    pub fn take_control_change(&mut self) -> Option<ControlChange> {
        self.congestion.take_change()
    }
}

#[cfg(test)]
mod tests;
