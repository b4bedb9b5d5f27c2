//! Which links may carry a packet: by what is proven of them, by their role, and by what they lose.
//!
//! # Service and roles
//! Of four kinds of links the first that has any serves ([`Service`]): proven primary and secondary
//! links; proven backups; suspect primary and secondary links; suspect backups. So the least bad
//! link always serves, and a proven backup is better than a primary link that may be dead. A link
//! whose role is `never` carries no data.
//!
//! A secondary link is a candidate only while the primary links are *full*: no primary link has
//! credit, and all of them together need longer than [`SPILL_AFTER`] for what waits behind the
//! head. Where no primary link serves, the condition holds.
//!
//! # Loss
//! A link is left out when it loses more than others of its role, by more than an excess and not to
//! a queue, and those others carry together what one loss-based flow would get over it. Such a flow
//! over the bundle gets less with that link than without it. The second condition is for a clean
//! link that is slow: docs/decisions/0032-links-left-out-for-their-loss.md.
//!
//! It does not know which of the eligible links is best, nor anything of flows.

use super::params::{
    LOSS_EXCESS_PERMILLE, MATHIS_HUNDREDTHS, RESENT_LOSS_EXCESS_PERMILLE, SEGMENT_BITS, SPILL_AFTER,
};
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::{LinkRole, LinkState, LinkView};

/// Which links serve at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Service {
    state: LinkState,
    backups: bool,
}

impl Service {
    /// In the order of preference.
    const KINDS: [Self; 4] = [
        Self { state: LinkState::Up, backups: false },
        Self { state: LinkState::Up, backups: true },
        Self { state: LinkState::Suspect, backups: false },
        Self { state: LinkState::Suspect, backups: true },
    ];

    /// The first kind that any of the links is of; `None`: no link is usable.
    pub(crate) fn of(links: impl Iterator<Item = (LinkState, LinkRole)> + Clone) -> Option<Self> {
        Self::KINDS.into_iter().find(|kind| links.clone().any(|(state, role)| kind.includes(state, role)))
    }

    /// The same of views.
    pub(crate) fn among(links: &[LinkView]) -> Option<Self> {
        Self::of(links.iter().filter(|link| link.usable).map(|link| (link.state, link.role)))
    }

    /// Whether a link is usable and of this kind.
    pub(crate) fn includes_view(self, link: &LinkView) -> bool {
        link.usable && self.includes(link.state, link.role)
    }

    /// Whether a link is of this kind.
    pub(crate) fn includes(self, state: LinkState, role: LinkRole) -> bool {
        state == self.state
            && match role {
                LinkRole::Primary | LinkRole::Secondary => !self.backups,
                LinkRole::Backup => self.backups,
                LinkRole::Never => false,
            }
    }
}

/// The links that serve.
pub(crate) fn serving(links: &[LinkView]) -> impl Iterator<Item = &LinkView> + Clone {
    let service = Service::among(links);
    links.iter().filter(move |link| service.is_some_and(|kind| kind.includes_view(link)))
}

/// The links that serve, without those that are apart. A flow may use all of these. Where a packet
/// fits only links that are apart, these.
pub(super) fn together(links: &[LinkView]) -> impl Iterator<Item = &LinkView> + Clone {
    let serving = serving(links);
    let is_any = serving.clone().any(|link| !link.is_apart);
    serving.filter(move |link| !(is_any && link.is_apart))
}

/// Those of `links` that have the first role that any of them has.
pub(crate) fn of_first_role<'a>(
    links: impl Iterator<Item = &'a LinkView> + Clone,
) -> impl Iterator<Item = &'a LinkView> + Clone {
    let first = links.clone().map(|link| link.role).min();
    links.filter(move |link| Some(link.role) == first)
}

/// Whether these primary links leave work for secondary links.
pub(super) fn are_full<'a>(
    primaries: impl Iterator<Item = &'a LinkView> + Clone,
    head: &Queued,
    now: Instant,
) -> bool {
    if primaries.clone().next().is_none() {
        return true;
    }
    if primaries.clone().any(|link| link.has_credit(now)) {
        return false;
    }
    let rate: u64 = primaries.map(|link| link.rate.as_bps()).fold(0, u64::saturating_add);
    let behind_bytes = head.backlog_bytes.saturating_sub(head.bytes) as u64;
    BitRate::from_bps(rate).time_to_send(behind_bytes) > SPILL_AFTER
}

/// The links that may carry the head now, as far as roles decide.
pub(super) fn candidates<'a>(
    links: &'a [LinkView],
    head: &Queued,
    now: Instant,
) -> impl Iterator<Item = &'a LinkView> + Clone {
    let serving = together(links);
    let full = are_full(serving.clone().filter(|link| link.role == LinkRole::Primary), head, now);
    serving.filter(move |link| full || link.role != LinkRole::Secondary)
}

/// Whether `link` is to be left out for its loss, beside the links that serve.
pub(super) fn loses_too_much<'a>(link: &LinkView, serving: impl Iterator<Item = &'a LinkView>) -> bool {
    // Most links lose nothing.
    if link.random_loss_permille <= excess_permille(link) {
        return false;
    }
    let is_cleaner = |peer: &&LinkView| {
        peer.role == link.role
            && peer.random_loss_permille + excess_permille(link) < link.random_loss_permille
    };
    let cleaner = serving.filter(is_cleaner);
    let carried_bps = cleaner.map(|peer| peer.rate.as_bps()).fold(0, u64::saturating_add);
    carried_bps != 0 && carried_bps >= loss_based_bps(link)
}

/// How much more `link` may lose than another.
const fn excess_permille(link: &LinkView) -> u16 {
    if link.recovers { RESENT_LOSS_EXCESS_PERMILLE } else { LOSS_EXCESS_PERMILLE }
}

/// The most that one loss-based flow gets over `link` (Mathis et al., CCR 27(3)), bits per second.
pub(super) fn loss_based_bps(link: &LinkView) -> u64 {
    // The root of a number of hundred-millionths is one of ten-thousandths.
    let root = (u64::from(link.random_loss_permille) * 100_000).isqrt().max(1);
    let rtt_us = u64::try_from(link.rtt.as_micros()).unwrap_or(u64::MAX).max(1);
    (SEGMENT_BITS * MATHIS_HUNDREDTHS / 100 * 10_000 / root).saturating_mul(1_000_000) / rtt_us
}
