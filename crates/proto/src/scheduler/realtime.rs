//! The realtime class: the link that delivers first, and a second one for copies.
//!
//! Among the links that serve, those of the best role (primary before secondary); a link costs
//! `wait until it is free + sending + one-way delay + 0.3 ms for each permille that it loses`, and the lowest cost wins. Priorities
//! do not count here. A packet that is lost costs its listener some 100 ms at best, until it is repaired or the next ones have gone
//! over it, and rather more where it is not; hence the price of loss: a link that loses 3 % is as good as one that takes 9 ms longer.
//! The link that was chosen last keeps its place unless another is better by 2 ms, so that what belongs together is not spread over
//! links that are alike; what it waits for itself does not count as better.
//!
//! The class is bounded ahead of this (`qos::queue`), so it never fills a link: a link that is busy is busy with others' packets,
//! for a moment, and is worth waiting for as long as that is quicker than another link.

use super::{Decision, Service};
use crate::limits::BURST;
use crate::packet::LinkId;
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::view::{LinkRole, LinkState, LinkView};

/// Ours: see the module's head.
const LOSS_COST_US: i64 = 300;
const KEEP_US: i64 = 2_000;

/// Keeps the choice.
#[derive(Debug, Default)]
pub(super) struct Realtime {
    present: Option<LinkId>,
}

impl Realtime {
    pub(super) fn select(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision {
        let Some(service) = Service::among(links) else { return Decision::NoLink };
        let serving = links.iter().filter(|link| service.includes_view(link));
        let role = serving.clone().map(|link| link.role).min();
        let first = serving.filter(|link| Some(link.role) == role);
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

/// The link for a copy of what goes over `first`: the one of lowest cost among the others that may carry data and are free within
/// what a link may send at once. A backup is for copies only where it serves; a link that is proven is better than one that is not.
pub(crate) fn second(head: &Queued, first: LinkId, links: &[LinkView], now: Instant) -> Option<LinkId> {
    let service = Service::among(links)?;
    let may = |link: &&LinkView| {
        link.id != first
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
    let busy = link.free_at.saturating_since(now);
    let sending = link.time_to_send(head.bytes as u64 + link.header_bytes);
    let span_us = i64::try_from((busy + sending).as_micros()).unwrap_or(i64::MAX / 4);
    link.delay_us.saturating_add(span_us).saturating_add(i64::from(link.loss_permille) * LOSS_COST_US)
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
