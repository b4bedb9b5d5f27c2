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
//! - *Slow* is a link on which a datagram takes [`TRIAL_FROM`] at its pace. A faster one is passed
//!   over only where next to nothing waits.
//! - It is *passed over* when it had credit for [`TRIAL_AFTER`] while bulk went elsewhere and more
//!   waits. A trial ends with the first packet of its own.
//! - Copies are at most one part in [`TRIAL_SHARE`] of what the links carry together, and
//!   [`TRIAL_BYTES`] more.
//!
//! It does not know what the congestion control finds out, and sees it in the link's pace only.
//!
//! Measured: docs/decisions/0039-links-believed-to-be-slow-carry-copies.md.

use super::params::{TRIAL_AFTER, TRIAL_BYTES, TRIAL_FROM, TRIAL_GAP_MAX, TRIAL_SHARE};
use super::policy::Decision;
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::{LinkSet, LinkView};

/// A datagram of this size takes [`TRIAL_FROM`] on a slow link, bytes: a full one on Ethernet.
const DATAGRAM_BYTES: u64 = 1_500;

/// A link of this rate or less is slow, bit/s.
const SLOW_BPS: u64 = DATAGRAM_BYTES * 8 * 1_000_000 / TRIAL_FROM.as_micros() as u64;

/// The links that are tried.
#[derive(Debug, Default)]
pub(super) struct Trials {
    /// Links that carried a copy since their last own packet.
    tried: LinkSet,
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
        self.tried.remove(chosen);
        if head.backlog_bytes <= head.bytes || !links.clone().any(is_slow) {
            return;
        }
        self.pay_back(links.clone(), now);
        let is_passed_over = |link: &&LinkView| {
            let had_credit = now.saturating_since(link.free_at) >= TRIAL_AFTER;
            link.id != chosen && is_slow(link) && (had_credit || self.tried.contains(link.id))
        };
        self.due =
            links.filter(is_passed_over).filter(|link| link.has_credit(now)).map(|link| link.id).collect();
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
                self.tried.insert(Some(link.id));
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

/// Whether a datagram takes long enough for the link to be passed over while much waits.
fn is_slow(link: &LinkView) -> bool {
    link.rate.as_bps() <= SLOW_BPS
}
