//! Every packet over every link that can take it; the receiver keeps the first copy. For traffic
//! that is worth more than what it costs: a loss or an outage on one link then costs neither a
//! packet nor time.
//!
//! Of the links that serve, those of the first role are used. The link that carries most sets the
//! pace: a packet leaves when that link has credit, so that bulk is never slower than over the best
//! link alone, and copies go at the same time over all other links that have credit just then. A
//! slower link carries as many copies as it can and holds nothing up. A copy of a bulk packet goes
//! only where all the credit that it takes has been saved up: then sparse traffic finds credit
//! there right after it. Measured: docs/decisions/0035-redundant-bulk-copies-spend-saved-credit.md.
//!
//! Bulk is copied only over links in one [`DelayBand`] with the link that sets the pace: a copy
//! that comes much earlier would be held in vain, and one that comes much later is of no use.
//! Sparse traffic has copies everywhere, as it leaves no gaps.

use std::cmp::Reverse;

use super::band::DelayBand;
use super::eligible::{of_first_role, together};
use super::policy::{Decision, Scheduler};
use crate::packet::LinkId;
use crate::qos::queue::{Queued, Tier};
use crate::time::Instant;
use crate::view::{LinkSet, LinkView, Saturation, score};

/// All at once.
#[derive(Debug, Default)]
pub(super) struct Redundant {
    /// The links for the head that was selected last.
    used: LinkSet,
    /// The link that the present band begins with.
    band_first: Option<LinkId>,
}

impl Scheduler for Redundant {
    fn select(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision {
        let first = of_first_role(together(links));
        let band = DelayBand::of(first.clone(), self.band_first).filter(|_| head.tier.is_bulk());
        if let Some(band) = band {
            self.band_first = Some(band.first());
        }
        let used = first.filter(|link| band.is_none_or(|band| band.includes(link)));
        self.used = used.clone().map(|link| link.id).collect();
        let pace = used.min_by_key(|link| (Reverse(link.rate), score(link, Saturation::Ignored), link.id));
        match pace {
            Some(link) if link.has_credit(now) => Decision::Send(link.id),
            Some(link) if head.tier.is_bulk() => Decision::Wait(link.run_at()),
            Some(link) => Decision::Wait(link.free_at),
            None => Decision::NoLink,
        }
    }

    fn may_copy(&self) -> bool {
        true
    }

    fn copies(&mut self, head: &Queued, link: LinkId, links: &[LinkView], now: Instant) -> LinkSet {
        let others = links.iter().filter(|other| other.id != link && self.used.contains(other.id));
        let ready = |other: &&LinkView| match head.tier {
            Tier::Realtime | Tier::Sparse => other.has_credit(now),
            Tier::Bulk | Tier::Far => {
                other.free_at + other.time_to_send(head.bytes as u64 + other.header_bytes) <= now
            }
        };
        others.filter(ready).map(|other| other.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{NOW, head, link};
    use super::*;
    use crate::limits::QUANTUM;
    use crate::view::{LinkRole, LinkState};

    fn plan(links: &[LinkView], head: &Queued) -> (Decision, Vec<u8>) {
        let mut scheduler = Redundant::default();
        let decision = scheduler.select(head, links, NOW);
        let Decision::Send(link) = decision else { return (decision, Vec::new()) };
        let copies = scheduler.copies(head, link, links, NOW);
        (
            decision,
            links.iter().map(|link| link.id).filter(|id| copies.contains(*id)).map(|id| id.0).collect(),
        )
    }

    #[test]
    fn all_links_with_credit_carry_the_packet_at_the_fastest_ones_pace() {
        let ago = |us| NOW.saturating_sub(Duration::from_micros(us));
        let mut links = [link(0, 10, 20), link(1, 70, 80), link(2, 20, 40)];
        let sparse = Queued { tier: Tier::Sparse, ..head(100) };
        // 1,428 bytes take 1.142 ms of the first one.
        links[0].free_at = ago(1_143);
        links[2].free_at = ago(4_000);
        assert_eq!(plan(&links, &head(100_000)), (Decision::Send(LinkId(1)), vec![0, 2]));
        links[0].free_at = ago(1_142);
        let skipped = (Decision::Send(LinkId(1)), vec![2]);
        assert_eq!(plan(&links, &head(100_000)), skipped, "and not waited for");
        assert_eq!(plan(&links, &sparse), (Decision::Send(LinkId(1)), vec![0, 2]));
        links[0].free_at = NOW + Duration::from_micros(1);
        assert_eq!(plan(&links, &sparse), skipped);
        links[1].free_at = NOW + Duration::from_millis(1);
        assert_eq!(plan(&links, &head(100_000)).0, Decision::Wait(links[1].free_at + QUANTUM));
        assert_eq!(plan(&links, &sparse).0, Decision::Wait(links[1].free_at));
    }

    #[test]
    fn only_proven_links_of_the_first_role_are_used() {
        let mut links = [link(0, 10, 20), link(1, 70, 80), link(2, 20, 40), link(3, 90, 20)];
        links[1].state = LinkState::Suspect;
        links[2].role = LinkRole::Secondary;
        links[3].role = LinkRole::Backup;
        assert_eq!(plan(&links, &head(100_000)), (Decision::Send(LinkId(0)), vec![]));
        links[0].usable = false;
        assert_eq!(plan(&links, &head(100_000)), (Decision::Send(LinkId(2)), vec![]));
    }

    #[test]
    fn bulk_has_no_copies_outside_the_band_and_sparse_traffic_has() {
        let mut links = [link(0, 50, 30), link(1, 50, 40), link(2, 20, 600)];
        for link in &mut links {
            link.free_at = NOW.saturating_sub(Duration::from_millis(4));
        }
        assert_eq!(plan(&links, &head(100_000)), (Decision::Send(LinkId(0)), vec![1]));
        let sparse = Queued { tier: Tier::Sparse, ..head(100) };
        assert_eq!(plan(&links, &sparse), (Decision::Send(LinkId(0)), vec![1, 2]));
    }
}
