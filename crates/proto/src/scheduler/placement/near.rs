//! Near and far links: the one idea of it that stripes and pins share.
//!
//! A link is near when its delay is at most [`ALIKE_US`] above the least. Stripes take the least of
//! all links. Pins take the least of the links that no competitor fills, and count all of these as
//! near.

use crate::scheduler::params::{ALIKE_US, FULL_PERMILLE};
use crate::time::Instant;
use crate::view::LinkView;

/// The near links among a packet's links.
#[derive(Debug, Clone, Copy)]
pub(super) struct Near {
    least_us: i64,
    /// Whether each link that no competitor fills is near, whatever its delay.
    with_uncontested: bool,
}

impl Near {
    /// Those near the least delay; `least_us` is that delay.
    pub(super) const fn at(least_us: i64) -> Self {
        Self { least_us, with_uncontested: false }
    }

    /// The same of `links`. `None`: there are no links.
    pub(super) fn among<'a>(links: impl Iterator<Item = &'a LinkView>) -> Option<Self> {
        links.map(|link| link.delay_us).min().map(Self::at)
    }

    /// The links that no competitor fills, and those as near. `None`: a competitor fills all
    /// links, or no link.
    pub(super) fn uncontested<'a>(links: impl Iterator<Item = &'a LinkView> + Clone) -> Option<Self> {
        if !links.clone().any(|link| link.is_competing) {
            return None;
        }
        let least_us = links.filter(|link| !link.is_competing).map(|link| link.delay_us).min()?;
        Some(Self { least_us, with_uncontested: true })
    }

    /// The least delay, µs with the offset common to all delays.
    pub(super) const fn least_us(self) -> i64 {
        self.least_us
    }

    /// Whether a link is near.
    pub(super) fn includes(self, link: &LinkView) -> bool {
        (self.with_uncontested && !link.is_competing)
            || link.delay_us.saturating_sub(self.least_us) <= ALIKE_US
    }

    /// Whether no near link has credit, and the load of all links would fill the near ones.
    pub(super) fn are_full<'a>(self, links: impl Iterator<Item = &'a LinkView>, now: Instant) -> bool {
        let (mut sent_bps, mut carried_bps) = (0_u64, 0_u64);
        for link in links {
            let bps = link.rate.as_bps();
            sent_bps = sent_bps.saturating_add(bps / 1_000 * u64::from(link.utilisation_permille));
            if self.includes(link) {
                if link.has_credit(now) {
                    return false;
                }
                carried_bps = carried_bps.saturating_add(bps / 1_000 * FULL_PERMILLE);
            }
        }
        sent_bps >= carried_bps
    }

    /// The load of the near links, as a share of what they carry.
    pub(super) fn used_permille<'a>(self, links: impl Iterator<Item = &'a LinkView>) -> u64 {
        let near = links.filter(|link| self.includes(link));
        let (used, carried) = near.fold((0_u64, 0_u64), |(used, carried), link| {
            let kbps = link.rate.as_bps() / 1_000;
            (used + kbps * u64::from(link.utilisation_permille.min(1_000)), carried + kbps)
        });
        used / carried.max(1)
    }
}
