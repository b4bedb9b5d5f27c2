//! What the peer tells of the link, by echoed heartbeats and by feedback: proof, round trip, delay, loss, and what arrived of what
//! was sent. On sealed links feedback feeds the rate control, on plain ones echoes do.

use std::time::Duration;

use super::congestion::Observation;
use super::ecn::Marked;
use super::feedback::{Arrival, Report};
use super::loss::LossMeter;
use super::sent::Told;
use super::{BUSY_INTERVAL, Link, micros_between};
use crate::config::Security;
use crate::discard::Discard;
use crate::time::Instant;
use crate::wire::feedback::Feedback;
use crate::wire::heartbeat::Echo;

/// What scheduling of a busy host adds to an echo's way is below this.
const OVERDUE_SLACK: Duration = Duration::from_millis(15);

/// More loss than any queue makes for long: perhaps large datagrams do not pass any more.
const HEAVY_LOSS_PERMILLE: u64 = 500;

/// Echoes closer together than this say too little about loss.
const DELIVERY_SPAN: Duration = Duration::from_millis(50);

/// Delays are brought up to date this often by feedback.
const DELAY_STEP: Duration = Duration::from_millis(25);

/// A link that carried so much since has feedback on its way; one that carried less is answered with the next heartbeat.
const FEEDBACK_AFTER_BYTES: u64 = 20_000;

/// Feedback of a link that carries much is not missed before this.
pub(super) const FEEDBACK_GAP_MIN: Duration = Duration::from_millis(25);

/// Of a heartbeat in a plain datagram, IP and UDP headers included.
const HEARTBEAT_DATAGRAM_BYTES: u64 = 99;

/// Of a datagram that was lost on a plain link.
const ROW_BYTES: u64 = 1_500;

/// Bytes of a feedback frame with two ranges, sealed, without IP and UDP headers.
const FEEDBACK_BYTES: u64 = 85;

/// A heartbeat of ours: the counts when it was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logged {
    pub(super) sent_at: Instant,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) idle: Duration,
    /// It said that it may be marked.
    pub(super) is_ect: bool,
}

/// A heartbeat of ours as the peer saw it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Echoed {
    logged: Logged,
    received: u64,
}

impl Link {
    /// What was delivered before says nothing about what will be.
    pub(super) fn forget_delivery(&mut self, now: Instant) {
        self.paced = None;
        self.ecn.restart();
        self.loss = LossMeter::default();
        self.random_loss = LossMeter::default();
        self.log.clear();
        self.echoed = None;
        self.echo_rhythm = None;
        self.rounds = [Duration::ZERO; 2];
        self.congestion.on_restart(now);
    }

    /// The peer's heartbeat, sent at `peer_stamp_us` of its clock, echoes one of ours.
    pub(super) fn on_echo(&mut self, echo: &Echo, peer_stamp_us: u64, now: Instant) -> Result<(), Discard> {
        let elapsed_us = now.as_micros().checked_sub(echo.stamp_us).ok_or(Discard::HeartbeatMalformed)?;
        let rtt_us = elapsed_us.checked_sub(u64::from(echo.delay_us)).ok_or(Discard::HeartbeatMalformed)?;
        self.relay.on_answer();
        if self.on_proof(Instant::from_nanos(echo.stamp_us.saturating_mul(1_000)), now) {
            // Three good probes healed it: the outage's losses would keep it unused for as long as their window.
            self.forget_delivery(now);
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

    /// What was sent at `sent_at` arrived. Whether the link is back after a failure.
    fn on_proof(&mut self, sent_at: Instant, now: Instant) -> bool {
        let unproven_at = self.sent.first_asked_after(sent_at);
        self.health.on_proof(sent_at, unproven_at, now)
    }

    /// What was sent between the last heartbeat echoed and this one, and what of it arrived.
    fn on_delivery(&mut self, echo: &Echo, arrived_us: u64, delay_us: i64, now: Instant) {
        while self.log.front().is_some_and(|logged| logged.packets < echo.sent) {
            self.log.pop_front();
        }
        let Some(logged) = self.log.front().copied().filter(|logged| logged.packets == echo.sent) else {
            return;
        };
        if logged.is_ect {
            self.ecn.on_answer();
        }
        let newest = Echoed { logged, received: echo.received };
        let Some(last) = self.echoed else {
            self.echoed = Some(newest);
            return;
        };
        let sending = logged.sent_at.saturating_since(last.logged.sent_at);
        let packets = logged.packets - last.logged.packets;
        if self.security == Security::Plain && packets > 0 {
            // Datagrams are counted, not named: those that are missing had the mean size.
            let arrived = echo.received.saturating_sub(last.received).min(packets);
            let lost = u128::from(logged.bytes - last.logged.bytes) * u128::from(packets - arrived);
            let lost = u64::try_from(lost / u128::from(packets)).unwrap_or(0);
            let sample = Observation {
                sent_at: logged.sent_at,
                sent: logged.bytes,
                idle: logged.idle,
                arrived_us,
                delivered: logged.bytes.saturating_sub(self.plain_lost + lost),
                lost: self.plain_lost + lost,
                // Nothing tells which ones: each may have been lost for itself.
                lost_rows: (self.plain_lost + lost) / ROW_BYTES,
                marked: Marked::default(),
                delay_us,
                delay_bytes: HEARTBEAT_DATAGRAM_BYTES,
                total: self.tx_bytes,
                rtt_min: self.rtt.min(now).unwrap_or_default(),
            };
            self.congestion.on_observation(&sample, now);
            if sending >= DELIVERY_SPAN {
                self.plain_lost += lost;
            }
        }
        if sending < DELIVERY_SPAN {
            return;
        }
        self.echoed = Some(newest);
        let arrived = echo.received.saturating_sub(last.received).min(packets);
        if (packets - arrived) * 1_000 >= packets * HEAVY_LOSS_PERMILLE {
            self.mtu.on_heavy_loss();
        }
        // Unclamped: what was late in one interval comes in the next.
        let received = echo.received.saturating_sub(last.received);
        self.loss.on_interval(packets, received, now);
        if self.congestion.take_own_loss(last.logged.sent_at, now) {
            self.random_loss.on_interval(packets, received, now);
        }
    }

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
        let cost = FEEDBACK_BYTES + self.header_bytes();
        // As a rule this is asked where nothing came, or too little.
        let end_at = self.arrivals.end_at(cost)?;
        Some(self.arrivals.due_at(
            end_at,
            cost,
            self.rtt.srtt().unwrap_or_default(),
            self.congestion.estimate().capacity,
        ))
    }

    /// Whether one is due now.
    pub(super) fn is_feedback_due(&self, now: Instant) -> bool {
        let end_at = self.arrivals.end_at(FEEDBACK_BYTES + self.header_bytes());
        end_at.is_some_and(|at| at <= now) && self.feedback_at().is_some_and(|at| at <= now)
    }

    /// What feedback is to tell now; it counts as told.
    pub fn report(&mut self, now: Instant) -> Option<Report> {
        let report = self.arrivals.report(now)?;
        self.relay.on_report(now);
        if now.saturating_since(self.rx_delay_at) >= DELAY_STEP
            && let Some(received) = self.received
        {
            // The peer's clock now, give or take the delay; the stamp wraps after 6.5 s.
            let near = received.clock_us(now) / 100;
            let near_stamp = u16::try_from(near % (1 << 16)).unwrap_or_default();
            let ahead = i64::from(report.largest_stamp.wrapping_sub(near_stamp).cast_signed());
            let stamp_us = near.saturating_add_signed(ahead).saturating_mul(100);
            self.rx_delay.on_sample(micros_between(report.largest_at.as_micros(), stamp_us), now);
            self.rx_delay_at = now;
        }
        Some(report)
    }

    /// The peer told what arrived: over this link, or (`is_relayed`) over another.
    pub fn on_feedback(
        &mut self,
        feedback: &Feedback,
        is_relayed: bool,
        now: Instant,
    ) -> Result<(), Discard> {
        if is_relayed && !self.health.takes_relayed() {
            return Ok(());
        }
        let told = self.take_feedback(feedback, is_relayed, now)?;
        if let Some(told) = told.filter(|_| is_relayed) {
            self.note_told(told.largest.at, Duration::from_micros(u64::from(feedback.hold_us)), now);
        }
        Ok(())
    }

    fn take_feedback(
        &mut self,
        feedback: &Feedback,
        is_relayed: bool,
        now: Instant,
    ) -> Result<Option<Told>, Discard> {
        let srtt = self.rtt.srtt().unwrap_or_default();
        let told = self.sent.on_feedback(feedback, srtt, now)?;
        self.mtu.on_delivered(self.sent.take_delivered_max(), now);
        if !is_relayed {
            self.relay.on_answer();
        }
        let Some(told) = told.filter(|told| told.is_newer) else { return Ok(told) };
        if is_relayed {
            self.relay.on_relayed();
        }
        if self.on_proof(told.largest.at, now) {
            self.forget_delivery(now);
        }
        let Some(received) = self.received else { return Ok(Some(told)) };
        let near = received.clock_us(now);
        let near_low = u32::try_from(near % (1 << 32)).unwrap_or_default();
        let ahead = i64::from(feedback.arrival_us.wrapping_sub(near_low).cast_signed());
        let arrived_us = near.saturating_add_signed(ahead);
        let least_us = arrived_us.saturating_sub(u64::from(feedback.least_before) * 16);
        let delay_us = micros_between(arrived_us, told.largest.at.as_micros());
        if now.saturating_since(self.tx_delay_at) >= DELAY_STEP {
            self.tx_delay.on_sample(delay_us, now);
            self.tx_delay_at = now;
        }
        if let Some(at) = self.feedback_taken_at.replace(now) {
            let gap = now.saturating_since(at).min(self.interval);
            self.feedback_gap = ((self.feedback_gap * 3 + gap) / 4).max(FEEDBACK_GAP_MIN);
        }
        let [newer, _] = self.rounds;
        self.rounds = [now.saturating_since(told.largest.at), newer];
        let least = told.least.map(|sent| (micros_between(least_us, sent.at.as_micros()), sent.bytes));
        let (least_delay_us, least_bytes) = least.unwrap_or((delay_us, told.largest.bytes));
        let marked = self.ecn.on_feedback(feedback);
        let sample = Observation {
            sent_at: told.largest.at,
            sent: told.largest.total,
            idle: told.largest.idle(),
            arrived_us,
            delivered: self.sent.delivered(),
            lost: self.sent.lost(),
            lost_rows: self.sent.rows(),
            marked,
            delay_us: least_delay_us.min(delay_us),
            delay_bytes: u64::from(least_bytes),
            total: self.sent.total(),
            rtt_min: self.rtt.min(now).unwrap_or(srtt),
        };
        self.congestion.on_observation(&sample, now);
        if self.congestion.take_meaningless_marks(now) {
            self.ecn.refuse();
        }
        Ok(Some(told))
    }

    /// How long an answer is overdue: the queue that waits ahead of what it answers is at least that long. On time is what takes as long as one of the
    /// last two answers did: the smallest round trip of 10 s would slow a link down for as long after either way became longer.
    pub(super) fn overdue(&self, now: Instant) -> Duration {
        if self.security == Security::Sealed {
            let Some(waiting) = self.sent.waiting() else { return Duration::ZERO };
            let round = self.rounds.into_iter().max().filter(|round| !round.is_zero());
            let round = round.or(self.rtt.srtt()).unwrap_or_default();
            let is_much = self.sent.total() - waiting.total > FEEDBACK_AFTER_BYTES;
            let gap = if is_much { self.feedback_gap } else { self.interval };
            return now.saturating_since(waiting.at + round + gap + OVERDUE_SLACK);
        }
        let (Some(next), Some((rtt, gap))) = (self.log.get(1), self.echo_rhythm) else {
            return Duration::ZERO;
        };
        now.saturating_since(next.sent_at + rtt + gap * 2 + OVERDUE_SLACK)
    }
}
