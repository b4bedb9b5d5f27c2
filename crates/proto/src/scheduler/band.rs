//! Bands of delay: which links carry one flow in order.
//!
//! Packets of one flow that take links of very different delay arrive further apart than the
//! receiver waits ([`SPREAD_MAX`]), and the flow's sender takes for lost what the receiver gives
//! up. So bulk keeps to a band: of all ranges of delay that are no wider than that, the one whose
//! links carry most together.
//!
//! A link that a competitor's queue has made longer may be further away ([`RESEND_SPREAD_MAX`])
//! where losses are sent again, as the receiver waits longer there. A link that is left alone would
//! stay as long as it is, and the competitor would keep all of it.
//!
//! Of the links outside that band those that carry most together are a second one ([`Bands`]).
//! Where links are apart ([`LinkView::is_apart`]) these are the second one, whatever their delay. A
//! flow keeps to one of the two.

use std::cmp::Reverse;
use std::time::Duration;

use super::params::BAND_GAIN_PERMILLE;
use crate::limits::{RESEND_SPREAD_MAX, SPREAD_MAX};
use crate::packet::LinkId;
use crate::view::{LinkRole, LinkView};

/// A range of delays no wider than [`SPREAD_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DelayBand {
    least_us: i64,
    /// The link with that delay.
    first: LinkId,
}

impl DelayBand {
    /// The range whose links carry most, counted first over those of the first role among `links`;
    /// of those that carry the same, the range of shorter delays. The range that begins with
    /// `present` is kept unless another carries a tenth more. `None`: there are no links.
    pub(super) fn of<'a>(
        links: impl Iterator<Item = &'a LinkView> + Clone,
        present: Option<LinkId>,
    ) -> Option<Self> {
        let bands = links.clone().map(|link| Self { least_us: link.delay_us, first: link.id });
        let fastest = bands.clone().min_by_key(|band| (band.least_us, band.first))?;
        if links.clone().all(|link| fastest.includes(link)) {
            return Some(fastest);
        }
        let leading = links.clone().map(|link| link.role).min();
        let carried = |band: &Self, role: Option<LinkRole>| -> u64 {
            let counts = |link: &&LinkView| band.includes(link) && role.is_none_or(|role| link.role == role);
            let rates = links.clone().filter(counts).map(|link| link.rate.as_bps());
            let bps = rates.fold(0, u64::saturating_add);
            if Some(band.first) == present { bps.saturating_mul(BAND_GAIN_PERMILLE) / 1_000 } else { bps }
        };
        bands.min_by_key(|band| {
            (Reverse(carried(band, leading)), Reverse(carried(band, None)), band.least_us, band.first)
        })
    }

    /// The link that the range begins with.
    pub(super) const fn first(self) -> LinkId {
        self.first
    }

    /// Whether a link's delay lies in the range.
    pub(super) fn includes(self, link: &LinkView) -> bool {
        let above_us = link.delay_us.saturating_sub(self.least_us);
        let most = if link.is_competing && link.recovers { RESEND_SPREAD_MAX } else { SPREAD_MAX };
        u64::try_from(above_us).is_ok_and(|above_us| Duration::from_micros(above_us) <= most)
    }
}

/// The two bands that bulk may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bands {
    /// The band that carries most.
    main: DelayBand,
    /// Of the other links of the first role, the band that carries most.
    other: Option<DelayBand>,
    /// The other band is that of the links that are apart.
    is_apart: bool,
}

impl Bands {
    /// The bands of `links`, of which the main one began with `present` so far. `None`: there are
    /// no links.
    pub(super) fn of<'a>(
        links: impl Iterator<Item = &'a LinkView> + Clone,
        present: Option<LinkId>,
    ) -> Option<Self> {
        let leading = links.clone().map(|link| link.role).min();
        let is_apart = links.clone().any(|link| link.is_apart) && !links.clone().all(|link| link.is_apart);
        if is_apart {
            let main = DelayBand::of(links.clone().filter(|link| !link.is_apart), present)?;
            let others = links.filter(|link| link.is_apart && Some(link.role) == leading);
            return Some(Self { main, other: DelayBand::of(others, None), is_apart });
        }
        let main = DelayBand::of(links.clone(), present)?;
        let others = links.filter(|link| !main.includes(link) && Some(link.role) == leading);
        Some(Self { main, other: DelayBand::of(others, None), is_apart })
    }

    /// The link that the main band begins with.
    pub(super) const fn first(self) -> LinkId {
        self.main.first()
    }

    /// Whether `link` is in the band of shorter delays, and not apart.
    pub(super) fn is_near(self, link: &LinkView) -> bool {
        if self.is_main_far() { self.is_other(link) } else { self.is_main(link) }
    }

    /// Whether `link` is in the band of longer delays, or of the links that are apart.
    pub(super) fn is_far(self, link: &LinkView) -> bool {
        if self.is_main_far() { self.is_main(link) } else { self.is_other(link) }
    }

    fn is_main_far(self) -> bool {
        !self.is_apart && self.other.is_some_and(|other| other.least_us < self.main.least_us)
    }

    fn is_main(self, link: &LinkView) -> bool {
        self.main.includes(link) && !(self.is_apart && link.is_apart)
    }

    fn is_other(self, link: &LinkView) -> bool {
        let is_outside = if self.is_apart { link.is_apart } else { !self.main.includes(link) };
        is_outside && self.other.is_some_and(|other| other.includes(link))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::link;
    use super::*;
    use crate::units::BitRate;

    #[test]
    fn of_links_too_far_apart_those_that_carry_most_together_are_in_the_band() {
        let mut links = [link(0, 1, 600), link(1, 50, 30), link(2, 50, 40)];
        let band = |links: &[LinkView], present| {
            let band = DelayBand::of(links.iter(), present).unwrap();
            links.iter().filter(|link| band.includes(link)).map(|link| link.id.0).collect::<Vec<_>>()
        };
        assert_eq!(band(&links, None), [1, 2]);
        // A satellite that carries more than the lines beside it, and by how much it must to take
        // over.
        links[0].rate = BitRate::from_bps(105_000_000);
        assert_eq!(band(&links, None), [0]);
        assert_eq!(band(&links, Some(LinkId(1))), [1, 2]);
        links[0].rate = BitRate::from_bps(111_000_000);
        assert_eq!(band(&links, Some(LinkId(1))), [0]);
        // Links as far apart as the receiver waits are in one band.
        links[0].delay_us = links[1].delay_us + 120_000;
        assert_eq!(band(&links, None), [0, 1, 2]);
        links[0].delay_us += 1;
        assert_eq!(band(&links, None), [0, 2]);
        // The link with the better role decides, however little it carries.
        links[1].role = LinkRole::Secondary;
        links[2].role = LinkRole::Secondary;
        links[0] = LinkView { role: LinkRole::Primary, ..link(0, 1, 600) };
        assert_eq!(band(&links, None), [0]);
        links[2].delay_us = 200_000;
        assert_eq!(band(&links, None), [0, 2]);
        assert_eq!(DelayBand::of([].iter(), None), None);
    }
}
