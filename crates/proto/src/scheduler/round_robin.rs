//! The baseline of comparisons: usable links in turn, blind to delay. A link without credit loses
//! its turn.

use super::eligible::candidates;
use super::policy::{Decision, Scheduler};
use crate::packet::LinkId;
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::view::LinkView;

/// In turn.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RoundRobin {
    /// Selected last.
    last: Option<LinkId>,
}

impl Scheduler for RoundRobin {
    fn select(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision {
        let candidates = candidates(links, head, now);
        let free = || candidates.clone().filter(|link| link.has_credit(now));
        let next = free().find(|link| Some(link.id) > self.last).or_else(|| free().next());
        if let Some(link) = next {
            self.last = Some(link.id);
            return Decision::Send(link.id);
        }
        match candidates.map(|link| link.free_at).min() {
            Some(free_at) => Decision::Wait(free_at),
            None => Decision::NoLink,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{NOW, head, link};
    use super::*;

    #[test]
    fn takes_turns_and_skips_busy_links() {
        let mut links = [link(0, 10, 20), link(1, 70, 80), link(2, 70, 80)];
        let mut scheduler = RoundRobin::default();
        let mut picks = |links: &[LinkView]| {
            let decision = scheduler.select(&head(1_400), links, NOW);
            let Decision::Send(id) = decision else { panic!("{decision:?}") };
            id.0
        };
        assert_eq!([(); 4].map(|()| picks(&links)), [0, 1, 2, 0]);
        links[1].free_at = NOW + Duration::from_millis(1);
        assert_eq!([(); 3].map(|()| picks(&links)), [2, 0, 2]);
        for link in &mut links {
            link.free_at = NOW + Duration::from_millis(2);
        }
        let wait = scheduler.select(&head(1_400), &links, NOW);
        assert_eq!(wait, Decision::Wait(NOW + Duration::from_millis(2)));
    }
}
