//! The default policy: the lowest score among the links that have credit, unless waiting for a better one is quicker.
//!
//! Links are ordered by their score without the saturation term (credit says exactly whether a link is full). For the
//! head packet they are tried in this order:
//! - a link with credit is asked ECF's question (Lim et al., CoNEXT 2017): would the links before it, which are all busy,
//!   carry the whole backlog *sooner* than this link delivers one packet? With `B` bytes waiting, the better links free at
//!   `f`, their rates summed to `R` and their largest delay `d`: `f + B / R + d` against `now + bytes / rate + delay`.
//!   If so, the packet waits; if not, it goes.
//! - so a short burst stays on the best link, and a backlog that it cannot clear within the difference of the delays fills
//!   the next link, then the one after, up to all of them. With 10 Mbit/s at 20 ms before 70 Mbit/s at 80 ms, bursts of up
//!   to 37 kB stay on the first.
//!
//! A link with a lower score is never passed over for a quicker one behind it: priorities are the user's.

use std::time::Duration;

use super::score::{Saturation, score};
use super::{Decision, LinkView, Scheduler, candidates};
use crate::link::QUANTUM;
use crate::qos::queue::{Queued, Tier};
use crate::time::Instant;

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
}

impl Scheduler for Adaptive {
    fn select(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision {
        self.order.clear();
        let state = super::candidate_state(links);
        let usable = links.iter().enumerate().filter(|(_, link)| Some(link.state) == state);
        self.order.extend(usable.map(|(at, link)| (score(link, Saturation::Ignored), at)));
        self.order.sort_unstable();
        let mut better: Option<Better> = None;
        for link in self.order.iter().filter_map(|(_, at)| links.get(*at)) {
            if link.free_at <= now {
                match better.and_then(|better| better_wait(&better, head, link, now)) {
                    None => return Decision::Send(link.id),
                    Some(until) => return Decision::Wait(until),
                }
            }
            let rate_bps = link.rate.map_or(0, |rate| rate.as_bps());
            better = Some(match better {
                None => Better { free_at: link.free_at, rate_bps, delay_us: link.delay_us },
                Some(known) => Better {
                    free_at: known.free_at.min(link.free_at),
                    rate_bps: known.rate_bps.saturating_add(rate_bps),
                    delay_us: known.delay_us.max(link.delay_us),
                },
            });
        }
        match candidates(links).map(|link| link.free_at).min() {
            // Bulk saves up a quantum and then sends a run; sparse traffic goes as soon as it may.
            Some(free_at) if head.tier == Tier::Bulk => Decision::Wait(free_at + QUANTUM),
            Some(free_at) => Decision::Wait(free_at),
            None => Decision::NoLink,
        }
    }
}

/// Until when waiting for the `better` links is quicker than `link` now; `None` when it is not.
fn better_wait(better: &Better, head: &Queued, link: &LinkView, now: Instant) -> Option<Instant> {
    let lead_us = link.delay_us.saturating_sub(better.delay_us);
    let lead = Duration::from_micros(u64::try_from(lead_us).ok()?);
    let bytes = head.bytes as u64 + link.header_bytes;
    let deadline = now + link.time_to_send(bytes) + lead;
    let backlog_ns = (head.backlog_bytes as u128 * 8_000_000_000).checked_div(u128::from(better.rate_bps))?;
    let cleared = better.free_at + Duration::from_nanos(u64::try_from(backlog_ns).unwrap_or(u64::MAX));
    (cleared < deadline).then_some(better.free_at)
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
