//! The policy that follows the score alone ([`score`]).
//!
//! Each packet goes over the link with the lowest score. Where that link's pacer is busy, the
//! packet waits for it: the formula alone decides.

use super::eligible::candidates;
use super::policy::{Decision, Scheduler};
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::view::{LinkView, Saturation, score};

/// The formula alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Score;

impl Scheduler for Score {
    fn select(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision {
        match candidates(links, head, now).min_by_key(|link| score(link, Saturation::Counted)) {
            Some(link) if link.has_credit(now) => Decision::Send(link.id),
            Some(link) if candidates(links, head, now).any(|link| link.has_credit(now)) => {
                Decision::Hold(link.free_at)
            }
            Some(link) => Decision::Wait(link.free_at),
            None => Decision::NoLink,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{NOW, head, link};
    use super::*;
    use crate::packet::LinkId;

    #[test]
    fn the_lowest_wins_and_is_waited_for() {
        let mut links = [link(0, 10, 20), link(1, 70, 80)];
        assert_eq!(Score.select(&head(1_400), &links, NOW), Decision::Send(LinkId(0)));
        let free_at = NOW + Duration::from_millis(1);
        links[0].free_at = free_at;
        assert_eq!(Score.select(&head(1_400), &links, NOW), Decision::Hold(free_at));
        links[0].utilisation_permille = 900;
        assert_eq!(Score.select(&head(1_400), &links, NOW), Decision::Send(LinkId(1)));
    }
}
