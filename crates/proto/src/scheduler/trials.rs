//! Trials: a link that is believed to be slow is looked at again while bulk waits.
//!
//! Earliest arrival ([`earliest`](super::earliest)) passes over a link on which one datagram takes
//! longer than the other links need for all that waits. Then nothing goes there, and the link's
//! congestion control, which searches for more only while the link is used to the full, has nothing
//! to find out with. The belief may be wrong, and would stay.
//!
//! So such a link carries copies of bulk packets that go over other links, as many as its pace
//! allows, until what it is found to carry is enough for packets of its own. A copy that is late or
//! lost does no harm: the receiver has the packet, and does not wait for copies.
//!
//! - *Slow* is a link whose pace is at most [`TRIAL_BPS`], and not what is configured. A faster one
//!   is passed over only where next to nothing waits.
//! - It is *passed over* when it had credit for [`TRIAL_AFTER`] while bulk went elsewhere and more
//!   waits. So packets of its own come first, and no credit is lost between these and copies.
//! - Copies are at most one part in [`TRIAL_SHARE`] of what the links carry together, and
//!   [`TRIAL_BYTES`] more.
//!
//! It does not know what the congestion control finds out, and sees it in the link's pace only.
//!
//! Measured: docs/decisions/0039-links-believed-to-be-slow-carry-copies.md.

use super::params::{TRIAL_AFTER, TRIAL_BPS, TRIAL_BYTES, TRIAL_GAP_MAX, TRIAL_SHARE};
use super::policy::Decision;
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::{LinkSet, LinkView};

/// The links that are tried.
#[derive(Debug, Default)]
pub(super) struct Trials {
    /// Links that the packet that was decided last is to be copied over.
    due: LinkSet,
    /// Bytes copied beyond the share, at most [`TRIAL_BYTES`].
    owed_bytes: u64,
    /// When that was brought up to date.
    at: Instant,
}

impl Trials {
    /// `decision` was made for `head`, which is bulk, where `links` may carry it.
    pub(super) fn on_decision<'a>(
        &mut self,
        head: &Queued,
        decision: Decision,
        links: impl Iterator<Item = &'a LinkView> + Clone,
        now: Instant,
    ) {
        self.due = LinkSet::NONE;
        let Decision::Send(chosen) = decision else { return };
        if head.backlog_bytes <= head.bytes || !links.clone().any(is_slow) {
            return;
        }
        self.pay_back(links.clone(), now);
        let is_passed_over = |link: &&LinkView| {
            link.id != chosen && is_slow(link) && now.saturating_since(link.free_at) >= TRIAL_AFTER
        };
        self.due = links.filter(is_passed_over).map(|link| link.id).collect();
    }

    /// No link is slow.
    pub(super) const fn rest(&mut self) {
        self.due = LinkSet::NONE;
    }

    /// Whether the packets of the last decision are to be copied.
    pub(super) const fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The links that carry a copy of `head`.
    pub(super) fn copies(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> LinkSet {
        let mut copies = LinkSet::NONE;
        for link in links.iter().filter(|link| self.due.contains(link.id) && link.has_credit(now)) {
            let bytes = head.bytes as u64 + link.header_bytes;
            if self.owed_bytes + bytes <= TRIAL_BYTES {
                self.owed_bytes += bytes;
                copies.insert(Some(link.id));
            }
        }
        copies
    }

    /// Time has passed in which the links carried bulk.
    fn pay_back<'a>(&mut self, links: impl Iterator<Item = &'a LinkView>, now: Instant) {
        let span = now.saturating_since(std::mem::replace(&mut self.at, now)).min(TRIAL_GAP_MAX);
        let bps = links.map(|link| link.rate.as_bps()).fold(0, u64::saturating_add);
        let share = BitRate::from_bps(bps / TRIAL_SHARE).bytes_in(span);
        self.owed_bytes = self.owed_bytes.saturating_sub(share);
    }
}

/// Whether a datagram takes long enough for the link to be passed over while much waits, and the
/// link may carry more than is believed.
fn is_slow(link: &LinkView) -> bool {
    link.rate.as_bps() <= TRIAL_BPS && !link.is_at_ceiling
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::adaptive::Adaptive;
    use super::super::policy::Scheduler as _;
    use super::super::tests::{NOW, head, link};
    use super::*;
    use crate::packet::LinkId;

    /// A fast link and one that is believed to carry 0.2 Mbit/s, which has had credit for a while.
    fn links() -> [LinkView; 2] {
        let mut links = [link(0, 40, 30), link(1, 40, 30)];
        links[1].rate = BitRate::from_bps(200_000);
        links[1].free_at = NOW.saturating_sub(TRIAL_AFTER);
        links
    }

    fn copied(policy: &mut Adaptive, backlog_bytes: usize, links: &[LinkView], now: Instant) -> LinkSet {
        let head = head(backlog_bytes);
        assert_eq!(policy.select(&head, links, now), Decision::Send(LinkId(0)));
        policy.copies(&head, LinkId(0), links, now)
    }

    #[test]
    fn a_slow_link_with_credit_carries_copies_of_bulk_while_more_waits() {
        let (mut policy, mut links) = (Adaptive::default(), links());
        assert!(copied(&mut policy, 20_000, &links, NOW).contains(LinkId(1)));
        assert!(copied(&mut policy, 1_400, &links, NOW).is_empty(), "nothing waits");
        links[1].free_at = NOW.saturating_sub(TRIAL_AFTER / 2);
        assert!(copied(&mut policy, 20_000, &links, NOW).is_empty(), "its own packets come first");
        links[1] = link(1, 40, 30);
        links[1].free_at = NOW.saturating_sub(TRIAL_AFTER);
        assert!(copied(&mut policy, 20_000, &links, NOW).is_empty(), "it is not slow");
        links[1].rate = BitRate::from_bps(200_000);
        links[1].is_at_ceiling = true;
        assert!(copied(&mut policy, 20_000, &links, NOW).is_empty(), "that is all it may carry");
    }

    #[test]
    fn copies_are_a_small_part_of_what_the_links_carry() {
        let (mut policy, mut links) = (Adaptive::default(), links());
        links[1].rate = BitRate::from_bps(TRIAL_BPS);
        let mut copied_bytes = 0;
        let steps = 10_000;
        for step in 0..steps {
            let now = NOW + Duration::from_millis(1) * step;
            links[0].free_at = now;
            links[1].free_at = now.saturating_sub(TRIAL_AFTER);
            if copied(&mut policy, 20_000, &links, now).contains(LinkId(1)) {
                copied_bytes += 1_428;
            }
        }
        let carried = BitRate::from_bps(40_000_000 + TRIAL_BPS).bytes_in(Duration::from_millis(1) * steps);
        assert!(copied_bytes <= carried / TRIAL_SHARE + TRIAL_BYTES, "{copied_bytes} of {carried}");
        assert!(copied_bytes >= carried / TRIAL_SHARE, "{copied_bytes} of {carried}");
    }
}
