//! The model of the link: C (the rate that the link carries), what is remembered of it, and why it
//! was changed last.
//!
//! Contract: C is written by [`Model::set`] alone, which takes the cause. Before startup ended C is
//! 0. It knows no delays and no phases.

use std::time::Duration;

use super::diagnosis::Cause;
use super::params::{
    BEST_WINDOW_MS, CONTROL_S, DATAGRAM_BYTES, EMPTY_DEVIATIONS, EMPTY_S, LITTLE, NOISE_HEADROOM,
    RATE_MIN_BPS, RETURN_SHARE, ROUND_MAX, ROUND_MIN, TRUST_GAIN, TRUST_MIN, TRUST_WINDOW_MS, USUAL_RATE_S,
    VOLATILE, VOLATILITY_KEPT_S, VOLATILITY_S, WINDOW_DATAGRAMS, WINDOW_DEVIATIONS, WINDOW_MAX_S,
};
use super::params::{SAMPLE_GAP_MAX_S, USUAL_LOSS_MAX};
use crate::link::window::MaxRate;
use crate::time::Instant;
use crate::units::BitRate;

/// Round trip before it is known. Chosen: a usual Internet path's.
const RTT_UNKNOWN: Duration = Duration::from_millis(50);

/// The most that may be sent, as configured here and as the peer asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ceiling {
    configured: Option<BitRate>,
    peer: Option<BitRate>,
}

impl Ceiling {
    fn rate(self) -> Option<BitRate> {
        match (self.configured, self.peer) {
            (Some(own), Some(peer)) => Some(own.min(peer)),
            (own, peer) => own.or(peer),
        }
    }
}

/// How far C is, relative and on average, from its mean of a second.
#[derive(Debug, Clone, Copy, Default)]
struct Volatility {
    mean: f64,
    usual_bps: f64,
    at: Instant,
}

impl Volatility {
    fn on_rate(&mut self, rate_bps: f64, now: Instant) {
        let span = now.saturating_since(self.at).as_secs_f64().min(SAMPLE_GAP_MAX_S);
        self.at = now;
        if self.usual_bps == 0.0 {
            self.usual_bps = rate_bps;
        }
        self.usual_bps += (rate_bps - self.usual_bps) * span / USUAL_RATE_S;
        let off = (rate_bps - self.usual_bps).abs() / rate_bps.max(self.usual_bps);
        self.mean += (off - self.mean) * span / VOLATILITY_S;
    }

    /// A link without traffic forgets it slowly.
    fn kept(&self, now: Instant) -> f64 {
        let age = now.saturating_since(self.at).as_secs_f64();
        self.mean * (1.0 - age / VOLATILITY_KEPT_S).clamp(0.0, 1.0)
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Model {
    ceiling: Ceiling,
    /// C, bit/s.
    rate_bps: f64,
    /// C when there was no queue last, bit/s.
    calm_bps: f64,
    rtt_min: Duration,
    /// Deviation of the delays that the queue is taken from, seconds.
    deviation_s: f64,
    volatility: Volatility,
    /// The largest C in a longer while.
    best: MaxRate<BEST_WINDOW_MS>,
    /// The most that was delivered lately.
    delivered: MaxRate<TRUST_WINDOW_MS>,
    /// Why C is what it is, and since when.
    cause: Option<Cause>,
    caused_at: Instant,
}

impl Model {
    pub(super) fn new(configured: Option<BitRate>) -> Self {
        Self {
            ceiling: Ceiling { configured, peer: None },
            rate_bps: 0.0,
            calm_bps: 0.0,
            rtt_min: RTT_UNKNOWN,
            deviation_s: 0.0,
            volatility: Volatility::default(),
            best: MaxRate::new(),
            delivered: MaxRate::new(),
            cause: None,
            caused_at: Instant::ZERO,
        }
    }

    /// Survive: the ceilings, the best C, what was delivered lately, the volatility, the round
    /// trip; C where startup is over (`is_known`), raised to what the link likely carries still.
    /// Void: C of a link without a queue, since queues are measured anew.
    pub(super) fn on_restart(&mut self, is_known: bool, now: Instant) {
        self.calm_bps = 0.0;
        if is_known {
            self.set(self.rate_bps.max(self.best.bps(now) * RETURN_SHARE), Cause::Restart, now);
        }
    }

    /// The only write of C.
    pub(super) fn set(&mut self, rate_bps: f64, cause: Cause, now: Instant) {
        if rate_bps.to_bits() != self.rate_bps.to_bits() {
            self.hold(cause, now);
        }
        self.rate_bps = rate_bps;
    }

    /// C stays what it is, because of `cause`.
    pub(super) const fn hold(&mut self, cause: Cause, now: Instant) {
        (self.cause, self.caused_at) = (Some(cause), now);
    }

    /// The link was found to carry `rate_bps`, as far as the ceiling and the least estimate allow.
    pub(super) fn adopt(&mut self, rate_bps: f64, cause: Cause, now: Instant) {
        let rate_bps = rate_bps.max(RATE_MIN_BPS);
        self.note_best(rate_bps, now);
        let allowed = self.ceiling().map_or(rate_bps, |ceiling| rate_bps.min(bps(ceiling)));
        self.set(allowed, cause, now);
    }

    pub(super) const fn set_own_ceiling(&mut self, ceiling: Option<BitRate>) {
        self.ceiling.configured = ceiling;
    }

    pub(super) const fn set_peer_ceiling(&mut self, ceiling: Option<BitRate>) {
        self.ceiling.peer = ceiling;
    }

    pub(super) fn ceiling(&self) -> Option<BitRate> {
        self.ceiling.rate()
    }

    pub(super) const fn set_rtt_min(&mut self, rtt_min: Duration) {
        self.rtt_min = rtt_min;
    }

    /// The queue is measured with this deviation, seconds.
    pub(super) const fn set_deviation(&mut self, deviation_s: f64) {
        self.deviation_s = deviation_s;
    }

    pub(super) const fn rtt_min(&self) -> Duration {
        self.rtt_min
    }

    /// C, bit/s.
    pub(super) const fn rate_bps(&self) -> f64 {
        self.rate_bps
    }

    /// The same in whole bit/s, as it is told to others.
    pub(super) fn capacity_bps(&self) -> f64 {
        bps(rate(self.rate_bps))
    }

    pub(super) const fn calm_bps(&self) -> f64 {
        self.calm_bps
    }

    /// There is no queue now.
    pub(super) const fn note_calm(&mut self) {
        self.calm_bps = self.rate_bps;
    }

    pub(super) fn note_delivered(&mut self, delivered_bps: f64, now: Instant) {
        self.delivered.push(delivered_bps, now);
    }

    pub(super) fn note_best(&mut self, rate_bps: f64, now: Instant) {
        self.best.push(rate_bps, now);
    }

    /// What was carried before is not to be had again: the path says so.
    pub(super) fn forget_best(&mut self) {
        self.best = MaxRate::new();
    }

    pub(super) fn note_volatility(&mut self, now: Instant) {
        self.volatility.on_rate(self.rate_bps, now);
    }

    /// How far, relative and on average, C is lately from its mean of a second.
    pub(super) fn volatility(&self, now: Instant) -> f64 {
        self.volatility.kept(now)
    }

    /// Whether C varied little lately.
    pub(super) fn is_steady(&self, now: Instant) -> bool {
        self.volatility(now) < VOLATILE / 2.0
    }

    /// Whether the link carried far more lately, or carries next to nothing.
    pub(super) fn is_low(&self, now: Instant) -> bool {
        self.rate_bps < RATE_MIN_BPS * LITTLE || self.rate_bps < self.best.bps(now) / 2.0
    }

    /// What a link that varies may be trusted with: it may have changed since it carried that much.
    pub(super) fn trusted(&self, paced_bps: f64, now: Instant) -> f64 {
        if self.volatility(now) < VOLATILE {
            return paced_bps;
        }
        paced_bps.min((self.delivered.bps(now) * TRUST_GAIN).max(self.rate_bps * TRUST_MIN))
    }

    // How chance is answered.

    /// The deviation of the queue, seconds.
    pub(super) const fn deviation_s(&self) -> f64 {
        self.deviation_s
    }

    /// How far above the least average delay the usual one is by chance, seconds.
    pub(super) fn noise_s(&self) -> f64 {
        self.deviation_s * NOISE_HEADROOM
    }

    /// Chance is small in a rate over this; zero where there is none.
    pub(super) fn noise_window(&self) -> Duration {
        Duration::from_secs_f64((self.deviation_s * WINDOW_DEVIATIONS).min(WINDOW_MAX_S))
    }

    /// The deviation of a rate over a window, share: of two delays.
    pub(super) fn window_noise(&self) -> f64 {
        2.0 * self.deviation_s / self.window().as_secs_f64()
    }

    /// The queue is brought to its target within this time, seconds.
    pub(super) fn control_s(&self) -> f64 {
        CONTROL_S.max(self.noise_window().as_secs_f64())
    }

    /// Rates are taken over this.
    pub(super) fn window(&self) -> Duration {
        let datagrams_s = (WINDOW_DATAGRAMS * datagram_s(self.rate_bps)).min(WINDOW_MAX_S);
        self.round().max(Duration::from_secs_f64(datagrams_s)).max(self.noise_window())
    }

    /// The same while C is not known.
    pub(super) fn round(&self) -> Duration {
        self.rtt_min.clamp(ROUND_MIN, ROUND_MAX)
    }

    /// A queue shorter than this counts as empty: it may be chance. Seconds.
    pub(super) fn empty_s(&self) -> f64 {
        empty_s(self.rate_bps).max(self.deviation_s * EMPTY_DEVIATIONS)
    }

    /// Why C is what it is, and since when.
    pub(super) fn cause(&self) -> Option<(Cause, Instant)> {
        self.cause.map(|cause| (cause, self.caused_at))
    }
}

/// How long a full datagram takes at a rate; 0 where that is not known.
pub(super) fn datagram_s(rate_bps: f64) -> f64 {
    if rate_bps > 0.0 { DATAGRAM_BYTES * 8.0 / rate_bps } else { 0.0 }
}

/// On a link of this rate a queue shorter than this counts as empty, seconds.
pub(super) fn empty_s(rate_bps: f64) -> f64 {
    EMPTY_S.max(datagram_s(rate_bps) / 2.0)
}

/// The rate that was carried, where `delivered_bps` arrived: what was lost as usual took its time.
pub(super) fn carried_bps(delivered_bps: f64, loss: f64, usual: f64) -> f64 {
    delivered_bps / (1.0 - loss.min(usual).min(USUAL_LOSS_MAX))
}

pub(super) fn bps(rate: BitRate) -> f64 {
    rate.as_bps() as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
pub(super) fn rate(bps: f64) -> BitRate {
    BitRate::from_bps(bps as u64)
}
