//! Link selection, packet by packet and as late as possible: a link is chosen when the packet can leave.
//!
//! A policy sees the packet at the head of the queue and a read-only view of each link, and answers with a link or with
//! the time until which waiting is better. It knows no keys, no sockets, no IP headers. Its answer does not depend on the
//! order of the links but for ties, which the lower [`LinkId`] wins.
//!
//! Only proven links are candidates; where there is none, suspect ones are: the least bad link, always.

pub mod adaptive;
pub mod round_robin;
pub mod score;

use std::time::Duration;

use crate::config::Policy;
use crate::event::LinkState;
use crate::packet::LinkId;
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::units::BitRate;

/// What a policy may know about a link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkView {
    /// Which.
    pub id: LinkId,
    /// Proven, suspect or down.
    pub state: LinkState,
    /// Lower is preferred.
    pub priority: u8,
    /// Smoothed.
    pub rtt: Duration,
    /// Share of what we sent lately that did not arrive.
    pub loss_permille: u16,
    /// The same without what a standing queue lost.
    pub random_loss_permille: u16,
    /// Share of the capacity in use lately.
    pub utilisation_permille: u16,
    /// Pacing rate; `None`: not paced.
    pub rate: Option<BitRate>,
    /// One-way delay of what we send, µs with an offset common to all links: only differences mean anything.
    pub delay_us: i64,
    /// From when on a datagram may go.
    pub free_at: Instant,
    /// IP and UDP header bytes of a datagram.
    pub header_bytes: u64,
}

impl LinkView {
    /// How long `bytes` in datagrams like the head's occupy the link.
    fn time_to_send(&self, bytes: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| rate.time_to_send(bytes))
    }
}

/// Where the head packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Over this link, now.
    Send(LinkId),
    /// Nowhere before this time, unless something changes.
    Wait(Instant),
    /// No link is usable.
    NoLink,
}

/// A policy.
pub trait Scheduler: std::fmt::Debug + Send {
    /// Picks the link for `head`.
    fn select(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision;
}

/// The scheduler of a policy.
pub fn of(policy: Policy) -> Box<dyn Scheduler> {
    match policy {
        Policy::Adaptive => Box::new(adaptive::Adaptive::default()),
        Policy::Score => Box::new(score::Score),
        Policy::RoundRobin => Box::new(round_robin::RoundRobin::default()),
    }
}

/// The state that candidates have: proven, or suspect while none is proven; `None` when no link is usable.
fn candidate_state(links: &[LinkView]) -> Option<LinkState> {
    [LinkState::Up, LinkState::Suspect]
        .into_iter()
        .find(|state| links.iter().any(|link| link.state == *state))
}

/// The links that may carry data now.
fn candidates(links: &[LinkView]) -> impl Iterator<Item = &LinkView> {
    let state = candidate_state(links);
    links.iter().filter(move |link| Some(link.state) == state)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::qos::flow::FlowId;
    use crate::qos::queue::Tier;

    pub(crate) const NOW: Instant = Instant::from_nanos(1_000_000_000);

    /// A proven, idle link of `mbit` and an RTT of `rtt_ms`.
    pub(crate) fn link(id: u8, mbit: u64, rtt_ms: u64) -> LinkView {
        LinkView {
            id: LinkId(id),
            state: LinkState::Up,
            priority: 1,
            rtt: Duration::from_millis(rtt_ms),
            loss_permille: 0,
            random_loss_permille: 0,
            utilisation_permille: 0,
            rate: Some(BitRate::from_bps(mbit * 1_000_000)),
            delay_us: i64::try_from(rtt_ms).unwrap() * 500,
            free_at: NOW,
            header_bytes: 28,
        }
    }

    pub(crate) fn head(backlog_bytes: usize) -> Queued {
        Queued { flow: FlowId(1), bytes: 1_400, tier: Tier::Bulk, backlog_bytes, waited: Duration::ZERO }
    }

    #[test]
    fn suspect_links_carry_only_when_nothing_better_is_there() {
        for policy in [Policy::Adaptive, Policy::Score, Policy::RoundRobin] {
            let mut scheduler = of(policy);
            let mut links = [link(0, 10, 20), link(1, 70, 80)];
            links[0].state = LinkState::Suspect;
            assert_eq!(scheduler.select(&head(1_400), &links, NOW), Decision::Send(LinkId(1)));
            links[1].state = LinkState::Down;
            assert_eq!(scheduler.select(&head(1_400), &links, NOW), Decision::Send(LinkId(0)));
            links[0].state = LinkState::Down;
            assert_eq!(scheduler.select(&head(1_400), &links, NOW), Decision::NoLink);
        }
    }
}
