//! The realtime class: the link that delivers first, and a second one for copies.
//!
//! Among the links that serve, those of the first role are compared (primary before secondary). A
//! link costs its packet's arrival and [`LOSS_COST_US`] for each permille that it loses; the lowest
//! cost wins. Priorities do not count here. A lost packet costs its listener some 100 ms at best,
//! until it is repaired or the next packets have gone over it, and more where it is not repaired.
//! Hence the price of loss: a link that loses 3 % is as good as one that takes 9 ms longer. The
//! link that was chosen last keeps its place unless another is better by [`KEEP_US`], so that
//! packets that belong together are not spread over links that are alike.
//!
//! The class is bounded ahead of this (`qos::queue`), so it never fills a link. A busy link is busy
//! with other packets, for a moment, and is waited for as long as that is quicker than another
//! link.

use super::arrival::arrival_us;
use super::eligible::{Service, of_first_role, together};
use super::params::{KEEP_US, LOSS_COST_US};
use super::policy::Decision;
use crate::limits::BURST;
use crate::packet::LinkId;
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::view::{LinkRole, LinkState, LinkView};

/// Keeps the choice.
#[derive(Debug, Default)]
pub(super) struct Realtime {
    present: Option<LinkId>,
}

impl Realtime {
    pub(super) fn select(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision {
        let first = of_first_role(together(links));
        let bonus = |link: &LinkView| if Some(link.id) == self.present { KEEP_US } else { 0 };
        let best = first.clone().min_by_key(|link| (cost_us(link, head, now) - bonus(link), link.id));
        let Some(best) = best else { return Decision::NoLink };
        self.present = Some(best.id);
        if best.has_credit(now) {
            return Decision::Send(best.id);
        }
        if first.clone().any(|link| link.has_credit(now)) {
            return Decision::Hold(best.free_at);
        }
        Decision::Wait(best.free_at)
    }
}

/// The link for a copy of what goes over `first`: the link of lowest cost among the others that may
/// carry data and are free within what a link may send at once. A backup takes copies only where it
/// serves; a proven link is better than one that is not.
pub(crate) fn second(head: &Queued, first: LinkId, links: &[LinkView], now: Instant) -> Option<LinkId> {
    let service = Service::among(links)?;
    let is_apart = links.get(first.index()).is_some_and(|link| link.is_apart);
    let may = |link: &&LinkView| {
        link.id != first
            && link.is_apart == is_apart
            && link.usable
            && link.free_at <= now + BURST
            && match link.role {
                LinkRole::Primary | LinkRole::Secondary => true,
                LinkRole::Backup | LinkRole::Never => service.includes_view(link),
            }
    };
    let others = links.iter().filter(may);
    others
        .min_by_key(|link| (link.state != LinkState::Up, cost_us(link, head, now), link.id))
        .map(|link| link.id)
}

fn cost_us(link: &LinkView, head: &Queued, now: Instant) -> i64 {
    let loss_us = i64::from(link.loss_permille) * LOSS_COST_US;
    arrival_us(link, head.bytes, now).saturating_add(loss_us)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{NOW, head, link};
    use super::*;
    use crate::qos::queue::Tier;

    fn packet() -> Queued {
        Queued { tier: Tier::Realtime, bytes: 100, ..head(100) }
    }

    fn select(links: &[LinkView]) -> Decision {
        Realtime::default().select(&packet(), links, NOW)
    }

    #[test]
    fn the_link_that_delivers_first_whatever_its_priority() {
        let mut links = [link(0, 10, 80), link(1, 70, 20)];
        links[1].priority = 9;
        assert_eq!(select(&links), Decision::Send(LinkId(1)));
        // 30 ms apart: loss is worth that from 10 % on.
        links[1].loss_permille = 99;
        assert_eq!(select(&links), Decision::Send(LinkId(1)));
        links[1].loss_permille = 101;
        assert_eq!(select(&links), Decision::Send(LinkId(0)));
        links[0].state = LinkState::Suspect;
        assert_eq!(select(&links), Decision::Send(LinkId(1)));
        links[1].role = LinkRole::Backup;
        links[0].state = LinkState::Up;
        assert_eq!(select(&links), Decision::Send(LinkId(0)));
    }

    #[test]
    fn a_busy_link_is_waited_for_while_that_is_quicker() {
        let mut links = [link(0, 10, 20), link(1, 70, 80)];
        links[0].free_at = NOW + Duration::from_millis(5);
        assert_eq!(select(&links), Decision::Hold(links[0].free_at));
        links[1].free_at = NOW + Duration::from_millis(1);
        assert_eq!(select(&links), Decision::Wait(links[0].free_at));
        links[0].free_at = NOW + Duration::from_millis(40);
        assert_eq!(select(&links), Decision::Wait(links[1].free_at));
    }

    #[test]
    fn links_that_are_alike_do_not_take_turns() {
        let mut links = [link(0, 50, 40), link(1, 50, 40)];
        let mut realtime = Realtime::default();
        let mut choice = |links: &[LinkView]| realtime.select(&packet(), links, NOW);
        assert_eq!(choice(&links), Decision::Send(LinkId(0)));
        links[1].delay_us -= KEEP_US - 10;
        assert_eq!(choice(&links), Decision::Send(LinkId(0)));
        links[1].delay_us -= 20;
        assert_eq!(choice(&links), Decision::Send(LinkId(1)));
        links[0].delay_us -= KEEP_US;
        assert_eq!(choice(&links), Decision::Send(LinkId(1)));
    }

    #[test]
    fn a_copy_takes_the_next_best_link() {
        let mut links = [link(0, 50, 20), link(1, 50, 60), link(2, 50, 40), link(3, 50, 10)];
        links[3].role = LinkRole::Backup;
        let copy = |links: &[LinkView]| second(&packet(), LinkId(0), links, NOW);
        assert_eq!(copy(&links), Some(LinkId(2)));
        links[2].free_at = NOW + BURST + Duration::from_micros(1);
        assert_eq!(copy(&links), Some(LinkId(1)));
        links[2].free_at = NOW;
        links[2].state = LinkState::Suspect;
        assert_eq!(copy(&links), Some(LinkId(1)));
        links[1].usable = false;
        assert_eq!(copy(&links), Some(LinkId(2)));
        links[2].role = LinkRole::Never;
        assert_eq!(copy(&links), None);
    }
}
