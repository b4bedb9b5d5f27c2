//! What the peer's echoes tell of the link: proof, round trip, delay, loss, and what arrived of what was sent.

use std::time::Duration;

use super::loss::LossMeter;
use super::rate::{Delay, Delivery};
use super::{BUSY_INTERVAL, Link, micros_between};
use crate::discard::Discard;
use crate::event::LinkState;
use crate::time::Instant;
use crate::units::BitRate;
use crate::wire::heartbeat::Echo;

/// What scheduling of a busy host adds to an echo's way is below this.
const OVERDUE_SLACK: Duration = Duration::from_millis(15);

/// More loss than any queue makes for long: perhaps large datagrams do not pass any more.
const HEAVY_LOSS_PERMILLE: u64 = 500;

/// Echoes closer together than this say too little about a rate.
const DELIVERY_SPAN: Duration = Duration::from_millis(50);

/// A heartbeat of ours: the counts when it was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logged {
    pub(super) sent_at: Instant,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// A heartbeat of ours as the peer saw it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Echoed {
    logged: Logged,
    /// Arrival by the peer's clock, µs.
    arrived_us: u64,
    received: u64,
}

impl Link {
    /// What was delivered before says nothing about what will be.
    pub(super) fn forget_delivery(&mut self) {
        self.loss = LossMeter::default();
        self.random_loss = LossMeter::default();
        self.log.clear();
        self.echoed = None;
        self.echo_rhythm = None;
        self.rate.on_restart();
    }

    /// The peer's heartbeat, sent at `peer_stamp_us` of its clock, echoes one of ours.
    pub(super) fn on_echo(&mut self, echo: &Echo, peer_stamp_us: u64, now: Instant) -> Result<(), Discard> {
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
        if sample.lost_permille >= HEAVY_LOSS_PERMILLE {
            self.mtu.on_heavy_loss();
        }
        let clear = self.rate.on_delivery(&sample, now);
        // Unclamped: what was late in one interval comes in the next.
        let received = echo.received.saturating_sub(last.received);
        self.loss.on_interval(packets, received, now);
        if clear {
            self.random_loss.on_interval(packets, received, now);
        }
    }

    /// How long an echo of ours is overdue: the queue that its heartbeat waits in is at least that long.
    pub(super) fn overdue(&self, now: Instant) -> Duration {
        let (Some(next), Some((rtt, gap))) = (self.log.get(1), self.echo_rhythm) else {
            return Duration::ZERO;
        };
        now.saturating_since(next.sent_at + rtt + gap * 2 + OVERDUE_SLACK)
    }
}
