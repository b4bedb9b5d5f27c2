//! The link as the scheduler and as people see it.

use std::time::Duration;

use super::{ControlChange, Link};
use crate::limits::SATURATED_PERMILLE;
use crate::stats::LinkStats;
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::{LinkState, LinkView, Saturation, score};

/// A link that sent data this long and a round trip ago is in use.
const START_SLACK: Duration = Duration::from_millis(150);

impl Link {
    /// What the scheduler sees.
    pub fn view(&self, now: Instant) -> LinkView {
        let estimate = self.congestion.estimate();
        LinkView {
            id: self.id,
            // No data for an address that has not proven that it wants it.
            usable: self.path.is_trusted() && self.health.state() != LinkState::Down,
            state: self.health.state(),
            priority: self.priority,
            role: self.link_role,
            rtt: self.rtt.srtt().unwrap_or_default(),
            loss_permille: self.loss.permille(),
            random_loss_permille: self.random_loss.permille(),
            recovers: false,
            burst_tenths: self.sent.burst_tenths(),
            is_shared: estimate.is_competing,
            utilisation_permille: self.utilisation_permille(estimate.capacity, now),
            rate: self.pacing_rate(now),
            delay_us: self.tx_delay.delay_us().unwrap_or(0),
            free_at: self.pacer.free_at(),
            header_bytes: self.header_bytes(),
            mtu: self.packet_max(),
        }
    }

    /// What may be sent, or is taken for it until that is known.
    pub fn likely_capacity(&self, now: Instant) -> BitRate {
        self.congestion
            .estimate()
            .capacity
            .unwrap_or_else(|| self.congestion.pacing_rate(Duration::ZERO, now))
    }

    /// How far, relative and on average, what the link carries is lately from its mean of a second.
    pub fn volatility(&self, now: Instant) -> f64 {
        self.congestion.volatility(now)
    }

    /// How many bits are under way on it when it is used to the full, if it carried data within `lately`.
    pub fn full_bits(&self, lately: Duration, now: Instant) -> f64 {
        let is_used = self.data_sent_at.is_some_and(|at| now.saturating_since(at) < lately);
        let capacity =
            self.congestion.estimate().capacity.filter(|_| is_used).map_or(0.0, |rate| rate.as_bps() as f64);
        capacity * self.rtt.srtt().unwrap_or_default().as_secs_f64()
    }

    /// Whether data uses the link while what it carries is being found out.
    pub fn is_starting(&self, now: Instant) -> bool {
        let recent = || self.rtt.srtt().unwrap_or_default() + START_SLACK;
        self.congestion.estimate().capacity.is_none()
            && self.data_sent_at.is_some_and(|at| now.saturating_since(at) < recent())
    }

    /// What its view says is paced at now: it need not be computed again for what is sent at once.
    pub const fn set_paced(&mut self, rate: BitRate, now: Instant) {
        self.paced = Some((now, rate));
    }

    /// What is paced at now: computed once for a moment, unless a datagram comes between.
    pub(super) fn pacing_rate(&self, now: Instant) -> BitRate {
        let known = self.paced.filter(|(at, _)| *at == now);
        known.map_or_else(|| self.congestion.pacing_rate(self.overdue(now), now), |(_, rate)| rate)
    }

    fn utilisation_permille(&self, capacity: Option<BitRate>, now: Instant) -> u16 {
        let Some(capacity) = capacity.map(BitRate::as_bps).filter(|bps| *bps > 0) else { return 0 };
        let used = self.tx_meter.rate(now).as_bps();
        u16::try_from(used.saturating_mul(1_000) / capacity).unwrap_or(u16::MAX)
    }

    /// Figures for people.
    pub fn stats(&self, now: Instant) -> LinkStats {
        let view = self.view(now);
        LinkStats {
            id: self.id,
            state: if view.usable { view.state } else { LinkState::Down },
            path: self.path.current(),
            priority: self.priority,
            role: self.link_role,
            score: score(&view, Saturation::Ignored),
            saturated: view.utilisation_permille > SATURATED_PERMILLE,
            rtt: self.rtt.srtt(),
            rtt_min: self.rtt.min(now),
            loss_permille: view.loss_permille,
            tx_rate: self.tx_meter.rate(now),
            rx_rate: self.rx_meter.rate(now),
            capacity: self.congestion.estimate().capacity,
            utilisation_permille: view.utilisation_permille,
            tx_packets: self.tx_packets,
            tx_bytes: self.tx_bytes,
            tx_marked: self.ecn.marked_total(),
            rx_packets: self.rx_packets,
            rx_bytes: self.rx_bytes,
            last_seq: self.last_seq,
            mtu: self.path_mtu(),
            control: self.congestion.stats(now),
        }
    }

    /// The change of the control since this was asked last, if it is worth telling.
    pub fn take_control_change(&mut self) -> Option<ControlChange> {
        self.congestion.take_change()
    }
}
