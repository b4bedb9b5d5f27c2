//! CoDel's parameters, which follow the links.
//!
//! ```text
//! target   = max(configured, 1.5 × MTU / drain rate) + spread
//! interval = max(configured, 2 × target, 2 × round + target)
//! ```
//! - **Slow links.** At a low rate a queue of two packets is not congestion. The floors of `target`
//!   and `interval` are those of Linux's CAKE.
//! - **Spread.** The caller gives the backlog that is worth keeping, as a time: the difference of
//!   the links' delays, or what links that vary or have just failed need when they can send again.
//!   A packet loses nothing by waiting that long: over the fastest link it still arrives before a
//!   packet that leaves now over the slowest. Flows in the sparse tier do not wait behind that
//!   backlog.
//! - **Round.** After two round trips of the slowest link and one `target` the queue shows the
//!   effect of a signal. A second signal before that cuts the flow for nothing.
//! - **Far.** Flows over far links have the same with the delays of those.
//! - **Starting.** While the estimate of a link's rate still grows, the drain rate doubles with
//!   each round trip. The queue that a flow in slow start builds meanwhile drains by itself, and a
//!   signal would end its slow start far below the links' rate.
//!
//! Sparse flows are signalled too: when links stall or shrink, a queue stands there as well, and
//! its senders must slow down. CoDel never drops a flow's last packet, so a thin flow loses
//! nothing.
//!
//! Measured: docs/decisions/0073-delay-of-the-queue.md. Sources: RFC 8289; RFC 8290; `sch_cake.c`.

use std::time::Duration;

use super::codel::Params;
use super::config::QueueConfig;
use super::tier::Tier;
use crate::units::BitRate;

/// The most backlog kept for other links. Chosen: beyond it, every flow would pay for a slow link
/// with delay.
const SPREAD_MAX: Duration = Duration::from_millis(60);

/// The longest round-trip time that counts. Chosen: a path that takes longer is controlled as if it
/// took this long, so that a queue on it does not stand for seconds.
const ROUND_MAX: Duration = Duration::from_millis(300);

/// The least target while rates double. Chosen: the queue that a slow start builds over common
/// paths.
const STARTING_TARGET: Duration = Duration::from_millis(250);

/// What the links say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delays {
    /// The backlog that is worth keeping, as a time.
    pub spread: Duration,
    /// The round trip of the slowest link in use.
    pub round: Duration,
}

impl Delays {
    /// As far as they count.
    fn bounded(self) -> Self {
        Self { spread: self.spread.min(SPREAD_MAX), round: self.round.min(ROUND_MAX) }
    }
}

/// The inputs from the links, and the parameters that follow from them.
#[derive(Debug)]
pub(super) struct DelayControl {
    drain_rate: Option<BitRate>,
    is_starting: bool,
    near: (Delays, Params),
    far: (Delays, Params),
}

impl DelayControl {
    /// Nothing is known of the links yet.
    pub(super) fn new(config: &QueueConfig) -> Self {
        let params = Params { target: config.target, interval: config.interval, mtu_bytes: config.quantum };
        let unknown = (Delays::default(), params);
        let mut control = Self { drain_rate: None, is_starting: false, near: unknown, far: unknown };
        control.update(config);
        control
    }

    /// The parameters for all flows of a tier.
    pub(super) const fn params(&self, tier: Tier) -> &Params {
        match tier {
            Tier::Realtime | Tier::Sparse | Tier::Bulk => &self.near.1,
            Tier::Far => &self.far.1,
        }
    }

    /// Sets the links' total rate, and whether the estimate of one of them still grows.
    pub(super) fn set_drain_rate(&mut self, config: &QueueConfig, rate: Option<BitRate>, is_starting: bool) {
        self.drain_rate = rate;
        self.is_starting = is_starting;
        self.update(config);
    }

    /// Sets the delays of near links, and of far ones.
    pub(super) fn set_delays(&mut self, config: &QueueConfig, near: Delays, far: Delays) {
        (self.near.0, self.far.0) = (near.bounded(), far.bounded());
        self.update(config);
    }

    fn update(&mut self, config: &QueueConfig) {
        let mtu_bytes = u64::try_from(config.quantum).unwrap_or(u64::MAX);
        let mtu_time = self.drain_rate.map_or(Duration::ZERO, |rate| rate.time_to_send(mtu_bytes));
        for (delays, params) in [&mut self.near, &mut self.far] {
            let mut target = config.target.max(mtu_time.saturating_mul(3) / 2) + delays.spread;
            if self.is_starting {
                target = target.max(STARTING_TARGET);
            }
            let interval = config.interval.max(target.saturating_mul(2)).max(delays.round * 2 + target);
            *params = Params { target, interval, mtu_bytes: config.quantum };
        }
    }
}
