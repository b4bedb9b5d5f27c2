//! The score that users see in the logs, and the policy that follows it alone.
//!
//! ```text
//! score = priority × 1000 + rtt_ms × 10 + (utilisation > 80 % ? 10000 : 0) + loss_ratio × 5000        lower is better
//! ```
//! Priority 1 and 22.5 ms give 1225; priority 2 and 78.3 ms give 2783. The policy sends each packet over the link with the
//! lowest score; where that link's pacer is busy, the packet waits for it: the formula alone decides.

use super::{Decision, Scheduler, candidates};
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::view::{LinkView, Saturation, score};

/// The formula alone.
#[derive(Debug, Clone, Copy)]
pub struct Score;

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
    fn the_formula() {
        let mut view = link(0, 10, 0);
        view.rtt = Duration::from_micros(22_500);
        assert_eq!(score(&view, Saturation::Counted), 1_225);
        view.priority = 2;
        view.rtt = Duration::from_micros(78_300);
        assert_eq!(score(&view, Saturation::Counted), 2_783);
        view.utilisation_permille = 800;
        assert_eq!(score(&view, Saturation::Counted), 2_783);
        view.utilisation_permille = 801;
        assert_eq!(score(&view, Saturation::Counted), 12_783);
        assert_eq!(score(&view, Saturation::Ignored), 2_783);
        view.loss_permille = 20;
        assert_eq!(score(&view, Saturation::Counted), 12_883);
        view.rtt = Duration::MAX;
        assert_eq!(score(&view, Saturation::Counted), u32::MAX);
    }

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
