//! The order in which links are tried: by role, then by score.
//!
//! The score is taken without its saturation term, as credit says exactly whether a link is full.
//! What counts is the score that a link had when it last changed by more than a tenth, so that
//! links that are alike do not change places by chance. Each link's score is its own, so the order
//! in which links are listed has no say. A link with a lower score is never passed over for a
//! quicker one behind it: priorities are the user's. Nor are roles.
//!
//! Left out, but for streams, are links that lose too much ([`loses_too_much`]) and, for bulk,
//! links outside its band: near flows take the near one of the [`Bands`], far flows the other. All
//! but far flows leave out links that are apart. A link that is left out gives no reason for a wait
//! to count as chosen ([`Decision::Hold`](super::Decision::Hold)): the queue behind it is a queue.
//!
//! The order stands until a figure that decides it changes: when a link is free does not, nor its
//! load. Measured: docs/decisions/0030-order-of-the-links.md.

use std::time::Duration;

use super::band::Bands;
use super::eligible::{Service, are_full, loses_too_much};
use super::params::{SCORE_CHANGE_PERMILLE, TRIAL_BPS};
use crate::packet::LinkId;
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::{LinkRole, LinkSet, LinkView, Saturation, score};

/// A link in its order: role, score, number and position in the views.
type Ranked = (LinkRole, u32, LinkId, u8);

/// What decides a link's place in the order. Small: every idle session keeps it. What is small in
/// it stands in one word, as a packet compares it for each link.
#[derive(Debug, PartialEq)]
struct Rank {
    id: LinkId,
    /// State (0: the link is not usable), role, priority, and what is true of the link, a bit each.
    marks: u32,
    loss_permille: u16,
    random_loss_permille: u16,
    rtt: Duration,
    delay_us: i64,
    rate: BitRate,
}

impl Rank {
    #[inline]
    fn of(view: &LinkView) -> Self {
        let state = if view.usable { view.state as u8 + 1 } else { 0 };
        let is = [view.recovers, view.is_competing, view.is_apart].map(u8::from);
        let [recovers, is_competing, is_apart] = is;
        let bits = recovers | is_competing << 1 | is_apart << 2;
        Self {
            id: view.id,
            marks: u32::from_le_bytes([state, view.role as u8, view.priority, bits]),
            loss_permille: view.loss_permille,
            random_loss_permille: view.random_loss_permille,
            rtt: view.rtt,
            delay_us: view.delay_us,
            rate: view.rate,
        }
    }
}

/// Links in their order, as positions in the views. Roles come first in the order, and primary
/// links first among them.
#[derive(Debug, Default)]
struct Order {
    at: Vec<u8>,
    primaries: usize,
}

impl Order {
    fn fill<'a>(&mut self, ranked: impl Iterator<Item = &'a Ranked>) {
        self.at.clear();
        self.primaries = 0;
        for (role, .., at) in ranked {
            self.at.push(*at);
            self.primaries += usize::from(*role == LinkRole::Primary);
        }
    }

    /// Those that may carry the head now, as far as roles decide.
    fn candidates(&self, head: &Queued, links: &[LinkView], now: Instant) -> &[u8] {
        match self.at.split_at_checked(self.primaries) {
            Some((primaries, [_, ..])) if !are_full(viewed(primaries, links), head, now) => primaries,
            _ => &self.at,
        }
    }
}

/// The views of the links at these positions.
fn viewed<'a>(at: &'a [u8], links: &'a [LinkView]) -> impl Iterator<Item = &'a LinkView> + Clone {
    at.iter().filter_map(|at| links.get(usize::from(*at)))
}

/// The links of a band in their order, and whether a competitor fills one of these.
#[derive(Debug, Default)]
struct Banded {
    order: Order,
    is_competing: bool,
}

impl Banded {
    fn fill(&mut self, ranked: &[Ranked], links: &[LinkView], includes: impl Fn(&LinkView) -> bool) {
        let is_in = |(.., at): &&Ranked| links.get(usize::from(*at)).is_some_and(&includes);
        self.order.fill(ranked.iter().filter(is_in));
        self.is_competing = viewed(&self.order.at, links).any(|link| link.is_competing);
    }
}

/// A band as a scheduler asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The links of shorter delay.
    Near,
    /// The links of longer delay.
    Far,
}

/// The order of the links, kept from packet to packet.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    /// What the order was made of: it stands until one of them is another.
    seen: Vec<Rank>,
    /// The links that may carry something.
    ranked: Vec<Ranked>,
    /// The same as positions, without those that are apart.
    usual: Order,
    /// Those that are left out for their loss included.
    every: Order,
    /// Those of them in the near band and in the far one, once bulk has asked.
    near: Banded,
    far: Banded,
    is_banded: bool,
    /// The link that the present main band begins with.
    band_first: Option<LinkId>,
    /// The scores that count, by link; 0: not known yet.
    scores: Vec<u32>,
    /// Left out for their loss.
    lossy: LinkSet,
    /// One of the links is so slow that it may be tried.
    has_slow: bool,
}

impl Ranking {
    /// Brings the order up to date.
    pub(super) fn refresh(&mut self, links: &[LinkView]) {
        if self.seen.len() != links.len()
            || !self.seen.iter().zip(links).all(|(old, new)| *old == Rank::of(new))
        {
            self.rank(links);
            self.every.fill(self.ranked.iter());
            let lossy = self.lossy;
            self.ranked.retain(|(.., id, _)| !lossy.contains(*id));
            let is_apart = |(.., at): &Ranked| links.get(usize::from(*at)).is_some_and(|link| link.is_apart);
            let any_together = !self.ranked.iter().all(is_apart);
            self.usual.fill(self.ranked.iter().filter(|ranked| !(any_together && is_apart(ranked))));
        }
    }

    /// The same, and which links of it are in the band.
    pub(super) fn refresh_band(&mut self, links: &[LinkView]) {
        self.refresh(links);
        if self.is_banded {
            return;
        }
        let ranked = self.ranked.iter().filter_map(|(.., at)| links.get(usize::from(*at)));
        let bands = Bands::of(ranked, self.band_first);
        self.band_first = bands.map(Bands::first).or(self.band_first);
        self.near.fill(&self.ranked, links, |link| bands.is_some_and(|bands| bands.is_near(link)));
        self.far.fill(&self.ranked, links, |link| bands.is_some_and(|bands| bands.is_far(link)));
        self.is_banded = true;
    }

    /// The links that may carry sparse traffic now, in order.
    pub(super) fn usual<'a>(
        &'a self,
        head: &Queued,
        links: &'a [LinkView],
        now: Instant,
    ) -> impl Iterator<Item = &'a LinkView> + Clone {
        viewed(self.usual.candidates(head, links, now), links)
    }

    /// The links that may carry what has no deadline now, in order: loss and distance leave none
    /// out.
    pub(super) fn every<'a>(
        &'a self,
        head: &Queued,
        links: &'a [LinkView],
        now: Instant,
    ) -> impl Iterator<Item = &'a LinkView> + Clone {
        viewed(self.every.candidates(head, links, now), links)
    }

    /// The links that may carry bulk of this reach now, in order.
    pub(super) fn in_band<'a>(
        &'a self,
        reach: Reach,
        head: &Queued,
        links: &'a [LinkView],
        now: Instant,
    ) -> impl Iterator<Item = &'a LinkView> + Clone {
        viewed(self.banded(reach).order.candidates(head, links, now), links)
    }

    /// Whether a competitor fills a link of the band.
    pub(super) const fn is_competing(&self, reach: Reach) -> bool {
        self.banded(reach).is_competing
    }

    /// Whether there are far links.
    pub(super) const fn has_far(&self) -> bool {
        !self.far.order.at.is_empty()
    }

    const fn banded(&self, reach: Reach) -> &Banded {
        match reach {
            Reach::Near => &self.near,
            Reach::Far => &self.far,
        }
    }

    /// The links that are left out for their loss.
    pub(super) const fn lossy(&self) -> LinkSet {
        self.lossy
    }

    /// Whether a link is so slow that it may be tried.
    pub(super) const fn has_slow(&self) -> bool {
        self.has_slow
    }

    /// Makes the order anew.
    fn rank(&mut self, links: &[LinkView]) {
        self.seen.clear();
        self.seen.reserve_exact(links.len());
        self.seen.extend(links.iter().map(Rank::of));
        self.is_banded = false;
        self.ranked.clear();
        self.ranked.reserve_exact(links.len());
        self.has_slow = false;
        let Some(service) = Service::among(links) else { return };
        let serving = || (0..=u8::MAX).zip(links).filter(|(_, link)| service.includes_view(link));
        let is_lossy = |link: &LinkView| loses_too_much(link, serving().map(|(_, peer)| peer));
        let lossy = serving().filter(|(_, link)| is_lossy(link));
        self.lossy = lossy.map(|(_, link)| link.id).collect();
        self.has_slow = serving().any(|(_, link)| link.rate.as_bps() <= TRIAL_BPS);
        for (at, link) in serving() {
            let score = steady(&mut self.scores, link.id, score(link, Saturation::Ignored));
            self.ranked.push((link.role, score, link.id, at));
        }
        self.ranked.sort_unstable();
    }

    /// The next packet finds an order made anew.
    #[cfg(test)]
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }
}

/// The score that counts for a link whose score is `now`.
fn steady(scores: &mut Vec<u32>, link: LinkId, now: u32) -> u32 {
    if scores.len() <= link.index() {
        scores.resize(link.index() + 1, 0);
    }
    let Some(held) = scores.get_mut(link.index()) else { return now };
    if u64::from(now.abs_diff(*held)) * 1_000 > u64::from(*held) * SCORE_CHANGE_PERMILLE {
        *held = now;
    }
    *held
}
