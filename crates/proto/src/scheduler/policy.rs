//! What a policy answers, and what it is asked.

use std::time::Duration;

use crate::packet::LinkId;
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::view::{LinkSet, LinkView};

/// Where the head packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Over this link, now.
    Send(LinkId),
    /// Not before this time, unless something changes: no link that the packet may take has credit.
    Wait(Instant),
    /// The same by choice: a link has credit, and a better link will still deliver sooner.
    Hold(Instant),
    /// Not over near links: the head's flow moves to far ones, and its packets wait in
    /// [`Tier::Far`](crate::qos::queue::Tier::Far) from now on.
    MoveFar,
    /// Not over far links: the head's flow moves back to near ones, for good.
    MoveNear,
    /// No link is usable.
    NoLink,
}

/// A policy.
pub trait Scheduler: std::fmt::Debug + Send {
    /// Picks the link for `head`.
    fn select(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision;

    /// For how long a link that was selected for a bulk packet may go on with the packets behind it
    /// without a new decision, as long as it has credit. A packet that takes longer is decided
    /// alone.
    fn run(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether [`Self::copies`] may name links for packets that follow the last decision.
    fn may_copy(&self) -> bool {
        false
    }

    /// The other links that carry a copy of `head`, which goes over `link` as just selected. Each
    /// has credit.
    fn copies(&mut self, head: &Queued, link: LinkId, links: &[LinkView], now: Instant) -> LinkSet {
        let _ = (head, link, links, now);
        LinkSet::NONE
    }
}
