//! Far links: whole flows go there, where that is more than the near ones carry for them.
//!
//! Links further apart than a receiver waits cannot share a flow
//! ([`Bands`](super::band::Bands)), nor can sealed links and plain ones. A flow over far links
//! alone is in order, and sees one step of its round trip.
//!
//! # The rule
//! - A bulk flow begins near. It *goes* far when what waits takes the near links longer than
//!   [`SPILL_AFTER`], its part of the far links would be twice its part of the near ones
//!   ([`FAR_GAIN`]), and it is long. Parts are equal: a
//!   rate by the number of flows.
//! - It is *long* when what came for it takes its part of the near links half of the difference of
//!   delays ([`LONG_SHARE`]). Later is worse: a sender leaves its slow start on the near links'
//!   queue (HyStart, RFC 9406).
//! - Far links whose rate is not known yet count as half of what they are paced at, and for the
//!   first flow as [`FAR_BPS_UNKNOWN`] at least. Of several near flows the first goes in any case:
//!   the others fill the near links meanwhile. The last near flow stays.
//! - It *returns*, for good, once the far links are known to give it less than half of what the
//!   near ones would, and what waits takes them longer than their round trip. After each change the
//!   next return waits for [`FAR_SEEN_ROUNDS`]. While no far link serves, its packets go near.
//!
//! Going far overtakes nothing. A return does: the receiver waits for what is under way.
//!
//! It does not know how flows wait: each far flow is in [`Tier::Far`](crate::qos::queue::Tier::Far)
//! until it has sent nothing for a second.
//!
//! Measured: docs/decisions/0037-whole-flows-over-far-links.md.

use std::time::Duration;

use super::params::{FAR_BPS_UNKNOWN, FAR_GAIN, FAR_SEEN_ROUNDS, LONG_SHARE, SPILL_AFTER};
use crate::qos::queue::{Demand, Queued};
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::LinkView;

/// The rule, for all flows.
#[derive(Debug, Default)]
pub(super) struct Distance {
    /// When a flow went or returned last.
    changed_at: Instant,
}

impl Distance {
    /// Whether the flow of `head`, which is near, goes far.
    pub(super) fn goes<'a>(
        &mut self,
        head: &Queued,
        near: impl Iterator<Item = &'a LinkView> + Clone,
        far: impl Iterator<Item = &'a LinkView> + Clone,
        now: Instant,
    ) -> bool {
        let demand = head.demand;
        let near_bps = carried_bps(near.clone());
        if demand.has_returned || time_to_send(near_bps, head) <= SPILL_AFTER {
            return false;
        }
        let near_bps = near_bps / demand.near_flows.max(1) as u64;
        let rate = FarRate::of(far.clone());
        let is_first = demand.far_flows == 0;
        let far_bps = if is_first { rate.for_first_bps() } else { rate.sure_bps() };
        let gains = far_bps / (demand.far_flows as u64 + 1) >= near_bps.saturating_mul(FAR_GAIN);
        let goes = match (rate.is_known, demand.near_flows > 1) {
            (true, _) => gains,
            (false, true) => gains || is_first,
            (false, false) => gains && is_first,
        };
        let ahead_us = ahead_us(near, far).unwrap_or(i64::MAX) / LONG_SHARE;
        if !goes || !is_long(demand, near_bps, ahead_us) {
            return false;
        }
        self.changed_at = now;
        true
    }

    /// Whether the flow of `head`, which is far, returns.
    pub(super) fn returns<'a>(
        &mut self,
        head: &Queued,
        near: impl Iterator<Item = &'a LinkView> + Clone,
        far: impl Iterator<Item = &'a LinkView> + Clone,
        now: Instant,
    ) -> bool {
        let Some(round) = far.clone().map(|link| link.rtt).max() else { return false };
        if near.clone().next().is_none()
            || far.clone().any(|link| link.capacity.is_none())
            || now.saturating_since(self.changed_at) < round * FAR_SEEN_ROUNDS
        {
            return false;
        }
        let far_bps = carried_bps(far);
        let near_bps = carried_bps(near) / (head.demand.near_flows as u64 + 1);
        let part_bps = far_bps / head.demand.far_flows.max(1) as u64;
        if time_to_send(far_bps, head) <= round || near_bps < part_bps.saturating_mul(FAR_GAIN) {
            return false;
        }
        self.changed_at = now;
        true
    }
}

/// Whether the far links carry, or may carry, so much more than the near ones that a flow goes
/// there.
pub(super) fn is_worth_it<'a>(
    near: impl Iterator<Item = &'a LinkView>,
    far: impl Iterator<Item = &'a LinkView> + Clone,
) -> bool {
    FarRate::of(far).for_first_bps() >= carried_bps(near).saturating_mul(FAR_GAIN)
}

/// What far links carry together.
#[derive(Debug, Clone, Copy)]
struct FarRate {
    bps: u64,
    /// The rate of each is known; of those where it is not, what they are paced at counts.
    is_known: bool,
}

impl FarRate {
    fn of<'a>(far: impl Iterator<Item = &'a LinkView> + Clone) -> Self {
        Self { is_known: far.clone().all(|link| link.capacity.is_some()), bps: carried_bps(far) }
    }

    /// What may be counted on.
    const fn sure_bps(self) -> u64 {
        if self.is_known { self.bps } else { self.bps / FAR_GAIN }
    }

    /// What the first flow may hope for.
    fn for_first_bps(self) -> u64 {
        if self.is_known { self.bps } else { self.sure_bps().max(FAR_BPS_UNKNOWN) }
    }
}

/// Whether what came for a flow takes `near_bps` longer than `span_us`.
fn is_long(demand: Demand, near_bps: u64, span_us: i64) -> bool {
    let taken = BitRate::from_bps(near_bps).time_to_send(demand.bulk_bytes);
    taken.as_micros() >= u128::try_from(span_us).unwrap_or(0)
}

/// How long what waits takes at a rate.
fn time_to_send(bps: u64, head: &Queued) -> Duration {
    BitRate::from_bps(bps).time_to_send(head.backlog_bytes as u64)
}

/// How much longer the fastest far link takes than the fastest near one, µs. `None`: there are no
/// links of one kind.
fn ahead_us<'a>(
    near: impl Iterator<Item = &'a LinkView>,
    far: impl Iterator<Item = &'a LinkView>,
) -> Option<i64> {
    let near_us = near.map(|link| link.delay_us).min()?;
    Some(far.map(|link| link.delay_us).min()?.saturating_sub(near_us))
}

/// What links carry together; where that is not known, what they are paced at.
fn carried_bps<'a>(links: impl Iterator<Item = &'a LinkView>) -> u64 {
    links.map(|link| link.capacity.unwrap_or(link.rate).as_bps()).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, head, link};
    use super::*;
    use crate::packet::LinkId;
    use crate::qos::queue::Tier;
    use crate::scheduler::adaptive::Adaptive;
    use crate::scheduler::{Decision, Scheduler as _};

    const MS: Duration = Duration::from_millis(1);

    /// A line of 6 Mbit/s at 25 ms and a dish of 40 Mbit/s at 600 ms.
    fn links() -> [LinkView; 2] {
        [link(0, 6, 25), link(1, 40, 600)]
    }

    /// A bulk flow among others, with 100 ms of the line waiting.
    fn flow(bulk_bytes: u64, near_flows: usize, far_flows: usize) -> Queued {
        Queued { demand: Demand { bulk_bytes, has_returned: false, near_flows, far_flows }, ..head(75_000) }
    }

    /// A decision after a second.
    fn select(links: &[LinkView], head: &Queued) -> Decision {
        Adaptive::default().select(head, links, NOW)
    }

    #[test]
    fn a_long_flow_goes_far_and_a_short_one_stays() {
        // 6 Mbit/s carry 107,812 bytes in half of 287.5 ms.
        assert_eq!(select(&links(), &flow(107_000, 1, 0)), Decision::Send(LinkId(0)));
        assert_eq!(select(&links(), &flow(108_000, 1, 0)), Decision::MoveFar);
        assert_eq!(
            select(&links(), &flow(28_000, 4, 0)),
            Decision::MoveFar,
            "a quarter is enough of a quarter"
        );
        let light = Queued { backlog_bytes: 7_000, ..flow(1_000_000, 1, 0) };
        assert_eq!(select(&links(), &light), Decision::Send(LinkId(0)), "the line has room");
        let sparse = Queued { tier: Tier::Sparse, ..flow(1_000_000, 1, 0) };
        assert_eq!(select(&links(), &sparse), Decision::Send(LinkId(0)));
    }

    #[test]
    fn flows_go_while_their_part_of_the_far_links_is_twice_the_near_one() {
        let goes = |near, far| select(&links(), &flow(10_000_000, near, far)) == Decision::MoveFar;
        assert_eq!([goes(4, 0), goes(3, 1), goes(2, 2), goes(1, 3)], [true, true, true, false]);
        // As much as near is no reason to go for one flow, and one for several.
        let alike = [link(0, 50, 40), link(1, 50, 640)];
        let one = flow(10_000_000, 1, 0);
        assert_eq!(select(&alike, &Queued { backlog_bytes: 1_000_000, ..one }), Decision::Send(LinkId(0)));
        let of_two = flow(10_000_000, 2, 0);
        assert_eq!(select(&alike, &Queued { backlog_bytes: 1_000_000, ..of_two }), Decision::MoveFar);
        assert_eq!(select(&links()[..1], &flow(10_000_000, 4, 0)), Decision::Send(LinkId(0)));
    }

    #[test]
    fn a_far_link_that_is_not_known_is_tried_by_one_of_several_flows() {
        let mut links = [link(0, 50, 40), link(1, 1, 640)];
        links[1].capacity = None;
        let goes = |links: &[LinkView], near, far| {
            let flow = Queued { backlog_bytes: 1_000_000, ..flow(10_000_000, near, far) };
            select(links, &flow) == Decision::MoveFar
        };
        assert_eq!([goes(&links, 4, 0), goes(&links, 3, 1), goes(&links, 1, 0)], [true, false, false]);
        // A slow line is reason enough, and keeps its last flow.
        links[0] = link(0, 6, 40);
        assert_eq!([goes(&links, 1, 0), goes(&links, 1, 1), goes(&links, 2, 1)], [true, false, false]);
    }

    #[test]
    fn a_flow_returns_from_links_that_are_too_slow_and_not_while_none_is_there() {
        let mut links = links();
        links[1] = link(1, 1, 600);
        let far = Queued { tier: Tier::Far, ..flow(10_000_000, 0, 1) };
        let mut policy = Adaptive::default();
        let seen = NOW + MS * 3_600;
        assert_eq!(policy.select(&far, &links, seen), Decision::Send(LinkId(1)), "it has nothing waiting");
        let waiting = Queued { backlog_bytes: 76_000, ..far };
        assert_eq!(policy.select(&waiting, &links, seen), Decision::MoveNear);
        assert_eq!(policy.select(&waiting, &links, seen), Decision::Send(LinkId(1)), "one at a time");
        links[1].capacity = None;
        assert_eq!(select(&links, &waiting), Decision::Send(LinkId(1)), "not known yet");
        links[1].usable = false;
        assert_eq!(policy.select(&waiting, &links, seen + MS * 9_000), Decision::Send(LinkId(0)));
        let returned = Demand { has_returned: true, ..flow(1_000_000, 1, 0).demand };
        assert_eq!(
            select(&super::tests::links(), &Queued { demand: returned, ..waiting }),
            Decision::Send(LinkId(1))
        );
    }
}
