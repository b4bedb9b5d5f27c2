//! Earliest arrival over links in an order of preference: ECF's question (Lim et al., CoNEXT 2017).
//!
//! The first link with credit is asked: would the links before it, which are all busy, carry the
//! whole backlog *sooner* than this link delivers one packet? The question is put for the first of
//! those links, for the first two, and so on, each group seen as one [`Outlet`]. If any group is
//! sooner, the packet waits; otherwise it goes. So a short burst stays on the best link, and a
//! backlog that the best link cannot clear within the difference of the delays fills the next link,
//! then the one after it, up to all of them. With 10 Mbit/s at 20 ms before 70 Mbit/s at 80 ms,
//! bursts of up to 37 kB stay on the first link.
//!
//! Why each group is asked and not all links alone: docs/decisions/0031-earliest-arrival.md.

use super::arrival::{Outlet, arrival_us};
use super::policy::Decision;
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::view::LinkView;

/// The busy links before the one that is checked.
#[derive(Debug, Clone, Copy)]
struct Busy {
    together: Outlet,
    /// When the first few of them would have delivered the backlog, µs from now: the least.
    cleared_us: i64,
}

impl Busy {
    /// `link` alone, or behind those that were there before.
    fn with(known: Option<Self>, link: &LinkView, head: &Queued, now: Instant) -> Self {
        let (together, cleared_us) = match known {
            Some(known) => (known.together.joined(link), known.cleared_us),
            None => (Outlet::of(link), i64::MAX),
        };
        let arrival_us = together.arrival_us(head.backlog_bytes as u64, now);
        Self { together, cleared_us: cleared_us.min(arrival_us) }
    }
}

/// The decision for `head` over links in their order.
pub(super) fn earliest<'a>(
    head: &Queued,
    in_order: impl Iterator<Item = &'a LinkView> + Clone,
    now: Instant,
) -> Decision {
    let mut busy: Option<Busy> = None;
    for link in in_order.clone() {
        if link.has_credit(now) {
            return match busy {
                Some(busy) if busy.cleared_us < arrival_us(link, head.bytes, now) => {
                    Decision::Hold(busy.together.free_at())
                }
                Some(_) | None => Decision::Send(link.id),
            };
        }
        busy = Some(Busy::with(busy, link, head, now));
    }
    wait_for_credit(head, in_order)
}

/// Until one of the links is free. Bulk saves up credit and then sends a run; sparse traffic goes
/// as soon as it may.
pub(super) fn wait_for_credit<'a>(head: &Queued, links: impl Iterator<Item = &'a LinkView>) -> Decision {
    let at = |link: &LinkView| if head.tier.is_bulk() { link.run_at() } else { link.free_at };
    links.map(at).min().map_or(Decision::NoLink, Decision::Wait)
}
