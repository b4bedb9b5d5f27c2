//! Loss on the way: independent, or in bursts.
//!
//! The Gilbert–Elliott model is a chain of two states, good and bad, that moves once per packet;
//! each state loses packets with a probability of its own. With `loss_good = 0` and `loss_bad = 1`
//! (Gilbert's original) bursts last `1 / leave` packets on average and the share of packets lost is
//! `enter / (enter + leave)`.

use crate::random::{Random, Stream};

/// How packets are lost. All numbers are probabilities, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Loss {
    /// No loss.
    #[default]
    None,
    /// Independent loss of each packet.
    Random {
        /// Share of packets lost.
        ratio: f64,
    },
    /// Loss in bursts, by a chain of two states that starts in the good state.
    GilbertElliott {
        /// Probability of a change from good to bad, per packet.
        enter: f64,
        /// Probability of a change from bad to good, per packet.
        leave: f64,
        /// Loss in the good state.
        loss_good: f64,
        /// Loss in the bad state.
        loss_bad: f64,
    },
}

impl Loss {
    /// Bursts of `burst_pkts` lost packets on average (at least 1) that lose `ratio` (0 to 1,
    /// exclusive) of all packets.
    pub fn bursts(ratio: f64, burst_pkts: f64) -> Self {
        let leave = 1.0 / burst_pkts.max(1.0);
        let enter = (leave * ratio / (1.0 - ratio)).clamp(0.0, 1.0);
        Self::GilbertElliott { enter, leave, loss_good: 0.0, loss_bad: 1.0 }
    }

    /// The share of packets lost in the long run.
    pub fn mean_ratio(&self) -> f64 {
        match *self {
            Self::None => 0.0,
            Self::Random { ratio } => ratio.clamp(0.0, 1.0),
            Self::GilbertElliott { enter, leave, loss_good, loss_bad } => {
                let bad = if enter + leave > 0.0 { enter / (enter + leave) } else { 0.0 };
                (1.0 - bad) * loss_good + bad * loss_bad
            }
        }
    }
}

/// The running loss process of a pipe.
#[derive(Debug)]
pub(crate) struct LossProcess {
    model: Loss,
    bad: bool,
    random: Random,
}

impl LossProcess {
    pub(crate) fn new(model: Loss, seed: u64) -> Self {
        Self { model, bad: false, random: Random::new(seed, Stream::Loss) }
    }

    pub(crate) fn set(&mut self, model: Loss) {
        self.model = model;
        self.bad = false;
    }

    /// Whether the next packet is lost.
    pub(crate) fn draw(&mut self) -> bool {
        match self.model {
            Loss::None => false,
            Loss::Random { ratio } => self.random.chance(ratio),
            Loss::GilbertElliott { enter, leave, loss_good, loss_bad } => {
                let lost = self.random.chance(if self.bad { loss_bad } else { loss_good });
                if self.random.chance(if self.bad { leave } else { enter }) {
                    self.bad = !self.bad;
                }
                lost
            }
        }
    }
}
