//! The default policy: the lowest score among the links that have credit, unless waiting for a better one is quicker.
//!
//! Links are ordered by their score without the saturation term (credit says exactly whether a link is full). For the
//! head packet they are tried in this order:
//! - a link with credit is asked ECF's question (Lim et al., CoNEXT 2017): would links before it, which are all busy, carry the
//!   whole backlog *sooner* than this link delivers one packet? With `B` bytes waiting, and for the first, the first two,
//!   ... of those links: they are free at `f`, their rates sum to `R` and their largest delay is `d`: `f + B / R + d` against
//!   `now + bytes / rate + delay`. If so for any of them, the packet waits; if not, it goes. (With all of them only, a sparse
//!   packet left the busy 20 ms link for an 80 ms one as soon as a second 80 ms link was busy too.)
//! - so a short burst stays on the best link, and a backlog that it cannot clear within the difference of the delays fills
//!   the next link, then the one after, up to all of them. With 10 Mbit/s at 20 ms before 70 Mbit/s at 80 ms, bursts of up
//!   to 37 kB stay on the first.
//!
//! A link that loses over half a percent more than the best one, and not to a queue, is left out while a better one is usable: a
//! loss-based flow over the bundle gets less with it than without it. Heartbeats go on measuring it.
//!
//! A link with a lower score is never passed over for a quicker one behind it: priorities are the user's.

use std::time::Duration;

use super::score::{Saturation, score};
use super::{Decision, LinkView, Scheduler};
use crate::link::QUANTUM;
use crate::qos::queue::{Queued, Tier};
use crate::time::Instant;
use crate::units::BitRate;

/// More loss than the best link's by this leaves a link out.
const LOSS_EXCESS_PERMILLE: u16 = 5;

/// Earliest arrival in the order of scores.
#[derive(Debug, Default)]
pub struct Adaptive {
    /// Kept to be reused: positions in the views, by score.
    order: Vec<(u32, usize)>,
}

/// The busy links before the one that is looked at.
#[derive(Debug, Clone, Copy)]
struct Better {
    free_at: Instant,
    rate_bps: u64,
    delay_us: i64,
    /// When the first few of them would have delivered the backlog, as µs of delay from now: the least.
    cleared_us: i64,
}

impl Better {
    /// `link` alone, or behind those that were there before.
    fn with(known: Option<Self>, link: &LinkView, head: &Queued, now: Instant) -> Self {
        let rate_bps = link.rate.map_or(0, |rate| rate.as_bps());
        let mut better = known.map_or(
            Self { free_at: link.free_at, rate_bps, delay_us: link.delay_us, cleared_us: i64::MAX },
            |known| Self {
                free_at: known.free_at.min(link.free_at),
                rate_bps: known.rate_bps.saturating_add(rate_bps),
                delay_us: known.delay_us.max(link.delay_us),
                ..known
            },
        );
        let busy = better.free_at.saturating_since(now);
        let sending = BitRate::from_bps(better.rate_bps).time_to_send(head.backlog_bytes as u64);
        better.cleared_us = better.cleared_us.min(better.delay_us.saturating_add(micros(busy + sending)));
        better
    }

    /// Whether waiting for them is quicker than `link` now.
    fn beat(&self, link: &LinkView, head: &Queued) -> bool {
        let sending = link.time_to_send(head.bytes as u64 + link.header_bytes);
        self.cleared_us < link.delay_us.saturating_add(micros(sending))
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

impl Scheduler for Adaptive {
    fn select(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision {
        self.order.clear();
        let state = super::candidate_state(links);
        let usable = || links.iter().enumerate().filter(|(_, link)| Some(link.state) == state);
        let loss = usable().map(|(_, link)| link.random_loss_permille).min().unwrap_or(0);
        let good = usable().filter(|(_, link)| link.random_loss_permille <= loss + LOSS_EXCESS_PERMILLE);
        self.order.extend(good.map(|(at, link)| (score(link, Saturation::Ignored), at)));
        self.order.sort_unstable();
        let mut better: Option<Better> = None;
        for link in self.order.iter().filter_map(|(_, at)| links.get(*at)) {
            if link.free_at <= now {
                return match better {
                    Some(better) if better.beat(link, head) => Decision::Wait(better.free_at),
                    Some(_) | None => Decision::Send(link.id),
                };
            }
            better = Some(Better::with(better, link, head, now));
        }
        let free_at = self.order.iter().filter_map(|(_, at)| links.get(*at)).map(|link| link.free_at).min();
        match free_at {
            // Bulk saves up a quantum and then sends a run; sparse traffic goes as soon as it may.
            Some(free_at) if head.tier == Tier::Bulk => Decision::Wait(free_at + QUANTUM),
            Some(free_at) => Decision::Wait(free_at),
            None => Decision::NoLink,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{NOW, head, link};
    use super::*;
    use crate::packet::LinkId;

    fn reference() -> Vec<LinkView> {
        (0..5).map(|id| if id == 0 { link(0, 10, 20) } else { link(id, 70, 80) }).collect()
    }

    fn select(links: &[LinkView], head: &Queued) -> Decision {
        Adaptive::default().select(head, links, NOW)
    }

    #[test]
    fn an_idle_best_link_takes_everything() {
        assert_eq!(select(&reference(), &head(1_000_000)), Decision::Send(LinkId(0)));
    }

    #[test]
    fn a_short_backlog_waits_for_the_busy_best_link_a_long_one_spills_over() {
        let mut links = reference();
        links[0].free_at = NOW + Duration::from_micros(500);
        assert_eq!(select(&links, &head(20_000)), Decision::Wait(links[0].free_at));
        assert_eq!(select(&links, &head(50_000)), Decision::Send(LinkId(1)));
        links[1].free_at = NOW + Duration::from_micros(100);
        assert_eq!(select(&links, &head(50_000)), Decision::Send(LinkId(2)));
        // The busy second link changes nothing for what the first can carry.
        assert_eq!(select(&links, &head(20_000)), Decision::Wait(links[1].free_at));
    }

    #[test]
    fn when_all_are_busy_bulk_waits_for_a_quantum_and_sparse_traffic_does_not() {
        let mut links = reference();
        for (link, us) in links.iter_mut().zip([900, 300, 400, 500, 600]) {
            link.free_at = NOW + Duration::from_micros(us);
        }
        let first = NOW + Duration::from_micros(300);
        assert_eq!(select(&links, &head(1_000_000)), Decision::Wait(first + QUANTUM));
        let sparse = Queued { tier: Tier::Sparse, ..head(100) };
        assert_eq!(select(&links, &sparse), Decision::Wait(first));
    }

    #[test]
    fn a_lossy_link_is_left_out_unless_all_are() {
        let mut links = [link(0, 10, 20), link(1, 70, 80)];
        links[1].random_loss_permille = 20;
        links[0].free_at = NOW + Duration::from_millis(1);
        assert_eq!(select(&links, &head(500_000)), Decision::Wait(links[0].free_at + QUANTUM));
        links[0].random_loss_permille = 15;
        assert_eq!(select(&links, &head(500_000)), Decision::Send(LinkId(1)));
        links[0].random_loss_permille = 100;
        assert_eq!(select(&links, &head(500_000)), Decision::Send(LinkId(1)));
    }

    #[test]
    fn a_preferred_slow_link_is_not_passed_over() {
        let mut links = [link(0, 10, 80), link(1, 70, 20)];
        links[1].priority = 2;
        assert_eq!(select(&links, &head(1_400)), Decision::Send(LinkId(0)));
        links[0].free_at = NOW + Duration::from_millis(1);
        assert_eq!(select(&links, &head(1_400)), Decision::Send(LinkId(1)));
    }

    proptest! {
        #[test]
        fn the_choice_does_not_depend_on_the_order_of_the_links(
            specs in proptest::collection::vec((1u64..200, 1u64..600, 0u64..3_000, 1u8..4), 1..8),
            backlog in 1_400usize..2_000_000, rotate in 0usize..8,
        ) {
            // Distinct scores: ties are what the order may decide.
            let links: Vec<LinkView> = specs.iter().enumerate().map(|(id, (mbit, rtt, busy_us, priority))| {
                let mut view = link(u8::try_from(id).unwrap(), *mbit, *rtt * 8 + id as u64);
                view.free_at = NOW + Duration::from_micros(*busy_us);
                view.priority = *priority;
                view
            }).collect();
            let scores: std::collections::BTreeSet<u32> =
                links.iter().map(|link| score(link, Saturation::Ignored)).collect();
            prop_assume!(scores.len() == links.len());
            let mut rotated = links.clone();
            let by = rotate % links.len();
            rotated.rotate_left(by);
            let decision = select(&links, &head(backlog));
            prop_assert_eq!(select(&rotated, &head(backlog)), decision);
            if let Decision::Wait(until) = decision {
                prop_assert!(until > NOW);
            }
        }
    }
}
