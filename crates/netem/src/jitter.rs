//! The variation of the delay, packet by packet.
//!
//! Uniform jitter is added to the delay. Normal jitter lies around it, as with Linux netem's
//! `delay D J distribution normal`; a delay below zero counts as zero. Its correlation is that of
//! an autoregressive series of the first order (AR(1)) from packet to packet, which keeps the
//! deviation. Measured against netem's own filter:
//! docs/decisions/0099-correlated-jitter-keeps-its-deviation.md.

use std::time::Duration;

use crate::random::{Random, Stream};
use crate::time::{Time, nanos};

/// Without reordering, uniform jitter is a curve with a new random height at each multiple of this
/// time, in ns, and straight lines in between: a packet's jitter does not depend on the number of
/// other packets. Chosen: a busy radio cell's delay changes within tens of ms.
const STEP_NS: u64 = 20_000_000;

/// Delay variation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Jitter {
    /// The distribution of the delays.
    pub spread: Spread,
    /// True: packets overtake each other as their delays say. False: order is kept. A packet with a
    /// shorter delay than one before it arrives right behind that one.
    pub reorder: bool,
}

/// How delays are spread.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Spread {
    /// Every packet has the same delay.
    #[default]
    None,
    /// A time between zero and `span` is added. With reordering each packet has its own. Without,
    /// the delay moves from one random height to the next every 20 ms, as a busy radio cell's does.
    Uniform {
        /// The most that is added.
        span: Duration,
    },
    /// A normal distribution around the delay, cut off at zero.
    Normal {
        /// The standard deviation.
        deviation: Duration,
        /// The correlation of a packet's deviation with the one before, 0 up to 1 (exclusive).
        correlation: f64,
    },
}

impl Jitter {
    /// A time between zero and `span`, added to the delay.
    pub const fn uniform(span: Duration, reorder: bool) -> Self {
        Self { spread: Spread::Uniform { span }, reorder }
    }

    /// A normal distribution around the delay.
    pub const fn normal(deviation: Duration, correlation: f64, reorder: bool) -> Self {
        Self { spread: Spread::Normal { deviation, correlation }, reorder }
    }

    /// The least delay of a packet whose delay without jitter is `delay`.
    pub(crate) const fn delay_min(&self, delay: Duration) -> Duration {
        match self.spread {
            Spread::None | Spread::Uniform { .. } => delay,
            Spread::Normal { .. } => Duration::ZERO,
        }
    }
}

/// The running jitter of a pipe.
#[derive(Debug)]
pub(crate) struct JitterProcess {
    seed: u64,
    random: Random,
    /// The newest packet's place in the normal distribution, in standard deviations; `None` before
    /// the first packet.
    place: Option<f64>,
}

impl JitterProcess {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, random: Random::new(seed, Stream::Jitter), place: None }
    }

    /// The delay of a packet that starts to travel at `at`, on a link with this delay and jitter.
    pub(crate) fn draw(&mut self, delay: Duration, jitter: Jitter, at: Time) -> Duration {
        match jitter.spread {
            Spread::None => delay,
            Spread::Uniform { span } if span.is_zero() => delay,
            Spread::Uniform { span } if jitter.reorder => delay + span.mul_f64(self.random.unit()),
            Spread::Uniform { span } => delay + self.height(span, at),
            Spread::Normal { deviation, correlation } => {
                let off = deviation.mul_f64(self.next_place(correlation).abs());
                let is_early = self.place.is_some_and(|place| place < 0.0);
                if is_early { delay.saturating_sub(off) } else { delay + off }
            }
        }
    }

    /// The next value of the series: standard normal, and correlated with the value before.
    fn next_place(&mut self, correlation: f64) -> f64 {
        let fresh = self.random.normal();
        let place = match self.place {
            Some(before) => correlation * before + (1.0 - correlation * correlation).max(0.0).sqrt() * fresh,
            None => fresh,
        };
        self.place = Some(place);
        place
    }

    /// The height of the curve at `at`.
    fn height(&self, span: Duration, at: Time) -> Duration {
        let step = at.as_nanos() / STEP_NS;
        let height = |step: u64| Random::new(self.seed.wrapping_add(step), Stream::Jitter).unit();
        let (from, to) = (height(step), height(step.wrapping_add(1)));
        let part = (at.as_nanos() % STEP_NS) as f64 / STEP_NS as f64;
        Duration::from_nanos(nanos(span.mul_f64(from + (to - from) * part)))
    }
}
