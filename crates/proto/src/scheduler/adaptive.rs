//! The default policy: the lowest score among the links that have credit, unless waiting for a better one is quicker.
//!
//! Links are ordered by their score without the saturation term (credit says exactly whether a link is full). What counts is the
//! score that a link had when it last changed by more than a tenth, so that links that are alike do not change places by chance; each
//! link's is its own, so the order in which links are listed has no say. (Simulated, two links of 40 ms with 5 ms of jitter, a light
//! load of 20 s: 22 changes of link without that, none with it.) For the head packet they are tried in this order:
//! - a link with credit is asked ECF's question (Lim et al., CoNEXT 2017): would links before it, which are all busy, carry the
//!   whole backlog *sooner* than this link delivers one packet? With `B` bytes waiting, and for the first, the first two,
//!   ... of those links: they are free at `f`, their rates sum to `R` and their largest delay is `d`: `f + B / R + d` against
//!   `now + bytes / rate + delay`. If so for any of them, the packet waits; if not, it goes. (With all of them only, a sparse
//!   packet left the busy 20 ms link for an 80 ms one as soon as a second 80 ms link was busy too.)
//! - so a short burst stays on the best link, and a backlog that it cannot clear within the difference of the delays fills
//!   the next link, then the one after, up to all of them. With 10 Mbit/s at 20 ms before 70 Mbit/s at 80 ms, bursts of up
//!   to 37 kB stay on the first.
//!
//! A link with a lower score is never passed over for a quicker one behind it: priorities are the user's. Nor are roles: links
//! are ordered by role first.
//!
//! Realtime packets have an order of their own: `realtime` says which. So have the packets of a flow that has needed slow links for a while: `spread`; and while
//! somebody else makes a link longer whole flows keep to that: `settle`.
//!
//! # What is left out
//! - A link that loses over half a percent more (15 % where losses are sent again) than others of its role, and not to a queue, when those others carry together
//!   what one loss-based flow would get over this one: such a flow over the bundle gets less with it than without it.
//!   A copy of every 50th bulk packet goes over it all the same, so that it can prove that it has healed; the packet itself takes
//!   another link, so a lost copy harms nobody. (The second condition is for a clean link that is slow: simulated, two links of
//!   50 Mbit/s with 0.5 % loss beside a satellite phone, the load went to the phone at times.)
//! - For bulk, a link that is not in step with the others (`Step`), counted over those that are preferred by role. Where
//!   most is carried by the slow ones, that is the fast ones: sparse traffic still goes over these.
//!
//! What a link that is left out could take is no reason for a wait to count as chosen ([`Decision::Hold`]): the queue behind
//! it is a queue. (Simulated with a satellite phone, 1 Mbit/s at 600 ms, beside two links of 50 Mbit/s at 30 and 40 ms: one
//! TCP flow had 51 % of the attainable, as its queue grew until the phone was worth it, and what the phone carried came too
//! late.)

use std::time::Duration;

use super::realtime::Realtime;
use super::settle::{Settled, Verdict};
use super::spread::Spread;
use super::{Decision, Scheduler, Service, Step, are_full};
use crate::packet::LinkId;
use crate::qos::queue::{Queued, Tier};
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::{LinkRole, LinkSet, LinkState, LinkView, Saturation, score};

/// A score that changes by no more than this is the same.
const SCORE_CHANGE_PERMILLE: u64 = 100;

/// More loss than the best link's by this leaves a link out.
const LOSS_EXCESS_PERMILLE: u16 = 5;
/// The same where losses are sent again: of what is sent three times 0.3 % are lost for good.
const RESENT_LOSS_EXCESS_PERMILLE: u16 = 150;

/// How much more a link may lose than another.
const fn excess_permille(link: &LinkView) -> u16 {
    if link.recovers { RESENT_LOSS_EXCESS_PERMILLE } else { LOSS_EXCESS_PERMILLE }
}

/// A link that has credit goes on for so long with one decision: 17 packets of 1,450 bytes at 1 Gbit/s, one at 70 Mbit/s. Another decision would
/// find the links before it as busy as they were; only the backlog is a little less. (16 links of 1 Gbit/s: 21,600 instructions a
/// packet through both ends without, 19,300 with it.)
const RUN: Duration = Duration::from_micros(200);

/// Of so many bulk packets one is copied over the links that are left out for their loss: 2 %.
const TRICKLE_EVERY_PKTS: u32 = 50;

/// A link in its order: role, score, number and position in the views.
type Ranked = (LinkRole, u32, LinkId, u8);

/// What decides a link's place in the order. When it is free does not, nor what it carries lately. Small: every idle session keeps it.
#[derive(Debug, PartialEq)]
struct Rank {
    id: LinkId,
    usable: bool,
    state: LinkState,
    role: LinkRole,
    priority: u8,
    recovers: bool,
    is_shared: bool,
    loss_permille: u16,
    random_loss_permille: u16,
    rtt_us: u32,
    delay_us: i64,
    rate: BitRate,
}

impl Rank {
    fn of(view: &LinkView) -> Self {
        Self {
            id: view.id,
            usable: view.usable,
            state: view.state,
            role: view.role,
            priority: view.priority,
            recovers: view.recovers,
            is_shared: view.is_shared,
            loss_permille: view.loss_permille,
            random_loss_permille: view.random_loss_permille,
            rtt_us: u32::try_from(view.rtt.as_micros()).unwrap_or(u32::MAX),
            delay_us: view.delay_us,
            rate: view.rate,
        }
    }
}

/// Links in their order, as positions in the views. Roles come first in the order, and primary links first among them.
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

/// Earliest arrival in the order of scores.
#[derive(Debug, Default)]
pub struct Adaptive {
    /// What the order was made of: it stands until one of them is another.
    seen: Vec<Rank>,
    /// The links that may carry something.
    ranked: Vec<Ranked>,
    /// The same as positions.
    usual: Order,
    /// Those of them that are in step, once bulk has asked, and whether one of these is shared.
    in_step: Order,
    is_shared: bool,
    is_stepped: bool,
    /// Kept to be reused: those in step that flows which are settled leave to the others.
    usable: Vec<u8>,
    /// The scores that count, by link; 0: not known yet.
    scores: Vec<u32>,
    /// The link that the present range of delays begins with.
    step: Option<LinkId>,
    /// Left out for their loss.
    lossy: LinkSet,
    realtime: Realtime,
    spread: Spread,
    settled: Settled,
    /// Bulk packets since the last that was copied over those.
    uncopied_pkts: u32,
}

/// The busy links before the one that is looked at.
#[derive(Debug, Clone, Copy)]
struct Better {
    free_at: Instant,
    rate_bps: u64,
    delay_us: i64,
    /// When the first few of them would have delivered the backlog, as µs of delay from now: the least.
    cleared_us: i64,
}

impl Better {
    /// `link` alone, or behind those that were there before.
    fn with(known: Option<Self>, link: &LinkView, head: &Queued, now: Instant) -> Self {
        let rate_bps = link.rate.as_bps();
        let mut better = known.map_or(
            Self { free_at: link.free_at, rate_bps, delay_us: link.delay_us, cleared_us: i64::MAX },
            |known| Self {
                free_at: known.free_at.min(link.free_at),
                rate_bps: known.rate_bps.saturating_add(rate_bps),
                delay_us: known.delay_us.max(link.delay_us),
                ..known
            },
        );
        let busy = better.free_at.saturating_since(now);
        let sending = BitRate::from_bps(better.rate_bps).time_to_send(head.backlog_bytes as u64);
        better.cleared_us = better.cleared_us.min(better.delay_us.saturating_add(micros(busy + sending)));
        better
    }

    /// Whether waiting for them is quicker than `link` now.
    fn beat(&self, link: &LinkView, head: &Queued) -> bool {
        let sending = link.time_to_send(head.bytes as u64 + link.header_bytes);
        self.cleared_us < link.delay_us.saturating_add(micros(sending))
    }
}

/// The views of the links at these positions.
fn viewed<'a>(at: &'a [u8], links: &'a [LinkView]) -> impl Iterator<Item = &'a LinkView> + Clone {
    at.iter().filter_map(|at| links.get(usize::from(*at)))
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

/// What one loss-based flow gets over the link at most: 1.22 segments per RTT and root of the loss (Mathis et al., CCR 27(3)).
fn loss_based_bps(link: &LinkView) -> u64 {
    const SEGMENT_BITS: u64 = 1_460 * 8;
    // The root of a number of hundred-millionths is one of ten-thousandths.
    let root = (u64::from(link.random_loss_permille) * 100_000).isqrt().max(1);
    let rtt_us = u64::try_from(link.rtt.as_micros()).unwrap_or(u64::MAX).max(1);
    (SEGMENT_BITS * 122 / 100 * 10_000 / root).saturating_mul(1_000_000) / rtt_us
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// Earliest arrival over the links, which come in their order.
fn earliest<'a>(
    head: &Queued,
    in_order: impl Iterator<Item = &'a LinkView> + Clone,
    now: Instant,
) -> Decision {
    let mut better: Option<Better> = None;
    for link in in_order.clone() {
        if link.has_credit(now) {
            return match better {
                Some(better) if better.beat(link, head) => Decision::Hold(better.free_at),
                Some(_) | None => Decision::Send(link.id),
            };
        }
        better = Some(Better::with(better, link, head, now));
    }
    wait(head, in_order)
}

/// Until one of the links is free.
pub(super) fn wait<'a>(head: &Queued, links: impl Iterator<Item = &'a LinkView>) -> Decision {
    // Bulk saves up and then sends a run; sparse traffic goes as soon as it may.
    let at = |link: &LinkView| if head.tier == Tier::Bulk { link.run_at() } else { link.free_at };
    links.map(at).min().map_or(Decision::NoLink, Decision::Wait)
}

impl Adaptive {
    /// Brings the order up to date, and for bulk which of it is in step.
    fn arrange(&mut self, tier: Tier, links: &[LinkView]) {
        if self.seen.len() != links.len()
            || !self.seen.iter().zip(links).all(|(old, new)| *old == Rank::of(new))
        {
            self.rank(links);
            self.usual.fill(self.ranked.iter());
        }
        if tier == Tier::Bulk && !self.is_stepped {
            let step = Step::of(viewed(&self.usual.at, links), self.step);
            self.step = step.map(Step::first).or(self.step);
            let includes = |link: &LinkView| step.is_some_and(|step| step.includes(link));
            let is_in = |(.., at): &&Ranked| links.get(usize::from(*at)).is_some_and(includes);
            self.in_step.fill(self.ranked.iter().filter(is_in));
            self.is_shared = viewed(&self.in_step.at, links).any(|link| link.is_shared);
            self.is_stepped = true;
        }
    }

    /// Makes the order anew.
    fn rank(&mut self, links: &[LinkView]) {
        self.seen.clear();
        self.seen.reserve_exact(links.len());
        self.seen.extend(links.iter().map(Rank::of));
        self.is_stepped = false;
        self.ranked.clear();
        self.ranked.reserve_exact(links.len());
        let Some(service) = Service::among(links) else { return };
        let serving = || (0..=u8::MAX).zip(links).filter(|(_, link)| service.includes_view(link));
        let sound = |link: &LinkView| {
            let is_cleaner = |peer: &&LinkView| {
                peer.role == link.role
                    && peer.random_loss_permille + excess_permille(link) < link.random_loss_permille
            };
            // Most links lose nothing.
            if link.random_loss_permille <= excess_permille(link) {
                return true;
            }
            let cleaner = serving().map(|(_, peer)| peer).filter(is_cleaner);
            let carried_bps = cleaner.map(|peer| peer.rate.as_bps()).fold(0, u64::saturating_add);
            carried_bps == 0 || carried_bps < loss_based_bps(link)
        };
        let lossy = serving().filter(|(_, link)| !sound(link));
        self.lossy = lossy.map(|(_, link)| link.id).collect();
        for (at, link) in serving().filter(|(_, link)| sound(link)) {
            let score = steady(&mut self.scores, link.id, score(link, Saturation::Ignored));
            self.ranked.push((link.role, score, link.id, at));
        }
        self.ranked.sort_unstable();
    }
}

impl Scheduler for Adaptive {
    fn select(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision {
        if head.tier == Tier::Realtime {
            return self.realtime.select(head, links, now);
        }
        self.arrange(head.tier, links);
        if head.tier != Tier::Bulk {
            let in_order = viewed(self.usual.candidates(head, links, now), links);
            let spread = self.spread.select(head, in_order.clone(), now);
            return spread.unwrap_or_else(|| earliest(head, in_order, now));
        }
        let candidates = self.in_step.candidates(head, links, now);
        let mut usable = candidates;
        // As a rule nobody shares a link.
        if self.is_shared {
            match self.settled.verdict(head, viewed(candidates, links), now) {
                Verdict::Home(link) => return Decision::Send(link),
                Verdict::Leaves(left) => {
                    let may_use =
                        |at: &&u8| links.get(usize::from(**at)).is_some_and(|link| !left.contains(link.id));
                    self.usable.clear();
                    self.usable.extend(candidates.iter().filter(may_use));
                    usable = &self.usable;
                }
            }
        } else {
            self.settled.clear();
        }
        let usable = viewed(usable, links);
        let spread = self.spread.select(head, usable.clone(), now);
        let decision = spread.unwrap_or_else(|| earliest(head, usable.clone(), now));
        if self.is_shared
            && let Some(link) = self.settled.settle(head, decision, viewed(candidates, links), now)
        {
            return Decision::Send(link);
        }
        if let (Decision::Send(link), None) = (decision, spread) {
            self.spread.begin(head, link, usable, now);
        }
        decision
    }

    fn run(&self) -> Duration {
        RUN
    }

    fn copies(&mut self, head: &Queued, _link: LinkId, links: &[LinkView], now: Instant) -> LinkSet {
        if self.lossy.is_empty() || head.tier != Tier::Bulk {
            return LinkSet::NONE;
        }
        self.uncopied_pkts += 1;
        if self.uncopied_pkts < TRICKLE_EVERY_PKTS {
            return LinkSet::NONE;
        }
        self.uncopied_pkts = 0;
        let lossy = links.iter().filter(|link| self.lossy.contains(link.id) && link.has_credit(now));
        lossy.map(|link| link.id).collect()
    }
}

// # Explored and removed
// Sending 2 % of the bulk packets themselves over a link that is left out, instead of copies. Simulated, `lossy`, one download
// (tcp-cubic-down-1, median of 5 seeds): 19.0 Mbit/s, against 45.3 with copies and 45.3 without either. A link that stops losing
// is used again after 11.5 s with packets, 12.4 s with copies, and not within 50 s by heartbeats alone.
//
// A copy of each bulk packet of a full load over a link that is out of step while it is not known what it carries, so that a load on a slow near
// line finds a fast far one. Simulated, 2 Mbit/s at 30 ms beside 50 Mbit/s at 600 ms, one QUIC flow: 0.7 Mbit/s against 1.7 without. The far
// link is found, but what one flow sends over it at first is less than bulk is, so it goes back to the near line each time, and what
// is then between the two comes too late.

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{NOW, head, link};
    use super::*;
    use crate::limits::QUANTUM;

    fn reference() -> Vec<LinkView> {
        (0..5).map(|id| if id == 0 { link(0, 10, 20) } else { link(id, 70, 80) }).collect()
    }

    fn select(links: &[LinkView], head: &Queued) -> Decision {
        Adaptive::default().select(head, links, NOW)
    }

    #[test]
    fn an_idle_best_link_takes_everything() {
        assert_eq!(select(&reference(), &head(1_000_000)), Decision::Send(LinkId(0)));
    }

    #[test]
    fn a_short_backlog_waits_for_the_busy_best_link_a_long_one_spills_over() {
        let mut links = reference();
        links[0].free_at = NOW + Duration::from_micros(500);
        assert_eq!(select(&links, &head(20_000)), Decision::Hold(links[0].free_at));
        assert_eq!(select(&links, &head(50_000)), Decision::Send(LinkId(1)));
        links[1].free_at = NOW + Duration::from_micros(100);
        assert_eq!(select(&links, &head(50_000)), Decision::Send(LinkId(2)));
        // The busy second link changes nothing for what the first can carry.
        assert_eq!(select(&links, &head(20_000)), Decision::Hold(links[1].free_at));
    }

    #[test]
    fn when_all_are_busy_bulk_waits_for_a_quantum_and_sparse_traffic_does_not() {
        let mut links = reference();
        for (link, us) in links.iter_mut().zip([2_000, 300, 400, 500, 600]) {
            link.free_at = NOW + Duration::from_micros(us);
        }
        let first = NOW + Duration::from_micros(300);
        assert_eq!(select(&links, &head(1_000_000)), Decision::Wait(first + QUANTUM));
        let sparse = Queued { tier: Tier::Sparse, ..head(100) };
        assert_eq!(select(&links, &sparse), Decision::Wait(first));
        // Where one datagram takes as long there is nothing to save up.
        links[0].free_at = NOW + Duration::from_micros(900);
        assert_eq!(select(&links, &head(1_000_000)), Decision::Wait(links[0].free_at));
    }

    #[test]
    fn a_fast_link_saves_up_no_more_than_one_send_takes() {
        let mut links = [link(0, 10_000, 20)];
        links[0].free_at = NOW + Duration::from_micros(10);
        let wait = select(&links, &head(1_000_000));
        assert_eq!(wait, Decision::Wait(links[0].free_at + links[0].rate.time_to_send(65_507)));
    }

    #[test]
    fn a_lossy_link_is_left_out_unless_all_are() {
        let mut links = [link(0, 10, 20), link(1, 70, 80)];
        links[1].random_loss_permille = 20;
        links[0].free_at = NOW + Duration::from_millis(1);
        assert_eq!(select(&links, &head(500_000)), Decision::Wait(links[0].free_at));
        links[0].random_loss_permille = 15;
        assert_eq!(select(&links, &head(500_000)), Decision::Send(LinkId(1)));
        links[0].random_loss_permille = 100;
        assert_eq!(select(&links, &head(500_000)), Decision::Send(LinkId(1)));
    }

    #[test]
    fn a_lossy_link_stays_where_the_clean_ones_carry_less_than_a_flow_gets_over_it() {
        // 20 ms and 1 %: 7.1 Mbit/s.
        let mut links = [link(0, 7, 40), link(1, 50, 20)];
        links[1].random_loss_permille = 10;
        assert_eq!(loss_based_bps(&links[1]) / 100_000, 71);
        links[0].free_at = NOW + Duration::from_millis(1);
        assert_eq!(select(&links, &head(500_000)), Decision::Send(LinkId(1)));
        links[0].rate = BitRate::from_bps(8_000_000);
        assert_eq!(select(&links, &head(500_000)), Decision::Wait(links[0].free_at));
        // A link of another role is no reason.
        links[0].role = LinkRole::Secondary;
        links[0].free_at = NOW;
        assert_eq!(select(&links, &head(500_000)), Decision::Send(LinkId(1)));
    }

    #[test]
    fn a_link_left_out_for_its_loss_gets_two_percent_of_the_bulk_as_copies() {
        let mut links = [link(0, 10, 20), link(1, 70, 80)];
        links[1].random_loss_permille = 20;
        let mut adaptive = Adaptive::default();
        let mut copies = |links: &[LinkView], tier| {
            let mut count = 0;
            for _ in 0..500 {
                let head = Queued { tier, ..head(100_000) };
                assert_eq!(adaptive.select(&head, links, NOW), Decision::Send(LinkId(0)));
                let copies = adaptive.copies(&head, LinkId(0), links, NOW);
                assert!(!copies.contains(LinkId(0)));
                count += u32::from(copies.contains(LinkId(1)));
            }
            count
        };
        assert_eq!(copies(&links, Tier::Bulk), 10);
        assert_eq!(copies(&links, Tier::Sparse), 0);
        links[1].free_at = NOW + Duration::from_millis(1);
        assert_eq!(copies(&links, Tier::Bulk), 0, "without credit");
        links[1].random_loss_permille = 0;
        links[1].free_at = NOW;
        assert_eq!(copies(&links, Tier::Bulk), 0, "it is not left out");
    }

    #[test]
    fn bulk_keeps_to_links_in_step_and_sparse_traffic_to_the_order() {
        // Preferred, and 50 of 52 Mbit/s are elsewhere.
        let mut links = [link(0, 2, 30), link(1, 50, 600)];
        links[1].priority = 2;
        assert_eq!(select(&links, &head(1_000_000)), Decision::Send(LinkId(1)));
        assert_eq!(select(&links, &Queued { tier: Tier::Sparse, ..head(1_400) }), Decision::Send(LinkId(0)));
        links[1].free_at = NOW + Duration::from_millis(1);
        let wait = select(&links, &head(1_000_000));
        assert_eq!(wait, Decision::Wait(links[1].free_at + QUANTUM), "the line's credit does not count");
    }

    #[test]
    fn a_tenth_of_a_score_changes_no_order() {
        let mut links = [link(0, 50, 30), link(1, 50, 31)];
        let mut adaptive = Adaptive::default();
        let mut choice = |links: &[LinkView]| adaptive.select(&head(1_400), links, NOW);
        assert_eq!(choice(&links), Decision::Send(LinkId(0)));
        // 1,300 + 130; the other has 1,310.
        links[0].rtt = Duration::from_millis(43);
        assert_eq!(choice(&links), Decision::Send(LinkId(0)));
        links[0].rtt = Duration::from_micros(43_100);
        assert_eq!(choice(&links), Decision::Send(LinkId(1)));
        // And not back before that is a tenth.
        links[0].rtt = Duration::from_micros(28_800);
        assert_eq!(choice(&links), Decision::Send(LinkId(1)));
        links[0].rtt = Duration::from_micros(28_700);
        assert_eq!(choice(&links), Decision::Send(LinkId(0)));
    }

    #[test]
    fn a_preferred_slow_link_is_not_passed_over() {
        let mut links = [link(0, 10, 80), link(1, 70, 20)];
        links[1].priority = 2;
        assert_eq!(select(&links, &head(1_400)), Decision::Send(LinkId(0)));
        links[0].free_at = NOW + Duration::from_millis(1);
        assert_eq!(select(&links, &head(1_400)), Decision::Send(LinkId(1)));
    }

    proptest! {
        /// One scheduler that keeps its order beside one that forgets it before each choice.
        #[test]
        fn the_order_that_is_kept_is_the_one_that_would_be_made_anew(
            roles in proptest::collection::vec(0u8..3, 1..6),
            steps in proptest::collection::vec(
                (0usize..6, 0u8..11, 1u16..600, any::<bool>(), 1_400usize..200_000), 1..60),
        ) {
            let kinds = [LinkRole::Primary, LinkRole::Secondary, LinkRole::Backup];
            let mut links: Vec<LinkView> = roles.iter().enumerate().map(|(id, role)| {
                LinkView { role: kinds[usize::from(*role)], ..link(u8::try_from(id).unwrap(), 50, 40) }
            }).collect();
            let (mut keeps, mut forgets) = (Adaptive::default(), Adaptive::default());
            for (at, field, value, is_bulk, backlog) in steps {
                let at = at % links.len();
                let view = &mut links[at];
                match field {
                    0 => {
                        view.state = [LinkState::Up, LinkState::Suspect, LinkState::Down][usize::from(value % 3)];
                        view.usable = view.state != LinkState::Down;
                    }
                    1 => view.priority = u8::try_from(value % 3).unwrap(),
                    2 => view.role = kinds[usize::from(value % 3)],
                    3 => view.rtt = Duration::from_millis(value.into()),
                    4 => view.loss_permille = value,
                    5 => view.random_loss_permille = value,
                    6 => view.recovers = !view.recovers,
                    7 => view.rate = BitRate::from_bps(u64::from(value) * 1_000_000),
                    8 => view.delay_us = i64::from(value) * 1_000,
                    9 => view.is_shared = !view.is_shared,
                    _ => view.free_at = NOW + Duration::from_micros(value.into()),
                }
                let tier = if is_bulk { Tier::Bulk } else { Tier::Sparse };
                let head = Queued { tier, ..head(backlog) };
                forgets.seen.clear();
                prop_assert_eq!(keeps.select(&head, &links, NOW), forgets.select(&head, &links, NOW));
                prop_assert_eq!(keeps.lossy, forgets.lossy);
            }
        }

        #[test]
        fn the_choice_does_not_depend_on_the_order_of_the_links(
            specs in proptest::collection::vec((1u64..200, 1u64..600, 0u64..3_000, 1u8..4), 1..8),
            backlog in 1_400usize..2_000_000, rotate in 0usize..8,
            changes in proptest::collection::vec((0usize..8, 1u64..600), 0..20),
        ) {
            // Distinct scores: ties are what the order may decide.
            let mut links: Vec<LinkView> = specs.iter().enumerate().map(|(id, (mbit, rtt, busy_us, priority))| {
                let mut view = link(u8::try_from(id).unwrap(), *mbit, *rtt * 8 + id as u64);
                view.free_at = NOW + Duration::from_micros(*busy_us);
                view.priority = *priority;
                view
            }).collect();
            let scores: std::collections::BTreeSet<u32> =
                links.iter().map(|link| score(link, Saturation::Ignored)).collect();
            prop_assume!(scores.len() == links.len());
            let mut rotated = links.clone();
            let by = rotate % links.len();
            rotated.rotate_left(by);
            let (mut forward, mut shifted) = (Adaptive::default(), Adaptive::default());
            let mut decision = forward.select(&head(backlog), &links, NOW);
            prop_assert_eq!(shifted.select(&head(backlog), &rotated, NOW), decision);
            for (at, rtt_us) in changes {
                let id = links[at % links.len()].id;
                for link in links.iter_mut().chain(&mut rotated).filter(|link| link.id == id) {
                    // Odd: no two links have the same.
                    link.rtt = Duration::from_micros(rtt_us * 1_000 + 100 * u64::from(id.0));
                }
                decision = forward.select(&head(backlog), &links, NOW);
                prop_assert_eq!(shifted.select(&head(backlog), &rotated, NOW), decision);
            }
            if let Decision::Wait(until) | Decision::Hold(until) = decision {
                prop_assert!(until > NOW);
            }
        }
    }
}
