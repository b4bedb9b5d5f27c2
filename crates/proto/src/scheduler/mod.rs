//! Link selection, packet by packet and as late as possible: a link is chosen when the packet can
//! leave.
//!
//! A policy sees the packet at the head of the queue and a read-only view of each link, and answers
//! with a link or with the time until which waiting is better ([`Decision`]). Its answer does not
//! depend on the order in which links are listed but for ties, which the lower
//! [`LinkId`](crate::packet::LinkId) wins.
//!
//! Each question has one file:
//! - `eligible`: which links may carry the packet (state, role, loss)?
//! - `band`: which links carry one flow in order, and which are far from these?
//! - `arrival`: when does it arrive?
//! - `earliest`: is it quicker to wait for a better link (ECF)?
//! - `ranking`: in which order are the links tried?
//! - `placement`: what of the packet's flow changes that (stripes and pins)?
//! - `trials`: which links are believed to be slow, and looked at again?
//! - `distance`: does a whole flow move to far links, or back?
//! - `params`: the constants.
//!
//! The policies compose these: `adaptive` (with `realtime` for that class), `score`, `redundant`,
//! `round_robin`.
//!
//! It knows no keys, no sockets, no IP headers, and nothing of a link but its view.
//!
//! Sources: ECF (Lim et al., CoNEXT 2017); Mathis et al., CCR 27(3).

mod adaptive;
mod arrival;
mod band;
mod distance;
mod earliest;
mod eligible;
mod params;
mod placement;
mod policy;
mod ranking;
mod realtime;
mod redundant;
mod round_robin;
mod score;
mod trials;

use std::time::Duration;

pub(crate) use self::arrival::{arrival_us, micros};
use self::band::Bands;
pub(crate) use self::eligible::{Service, of_first_role, serving};
pub use self::policy::{Decision, Scheduler};
pub(crate) use self::realtime::second;
use crate::config::Policy;
use crate::limits::QUANTUM;
use crate::qos::queue::Delays;
use crate::time::Instant;
use crate::view::LinkView;

/// The scheduler of a policy.
pub fn of(policy: Policy) -> Box<dyn Scheduler> {
    match policy {
        Policy::Adaptive => Box::new(adaptive::Adaptive::default()),
        Policy::Score => Box::new(score::Score),
        Policy::Redundant => Box::new(redundant::Redundant::default()),
        Policy::RoundRobin => Box::new(round_robin::RoundRobin::default()),
    }
}

/// From when on bulk may go again while its head waits `until` then, and until when to wait: the
/// first link's run. Where the head waits for that very run: a little later, when a slow link is
/// free, so that both go together.
pub(crate) fn bulk_from(links: &[LinkView], until: Instant) -> (Instant, Instant) {
    let used = links.iter().filter(|link| link.usable);
    let first = used.clone().map(LinkView::run_at).fold(until, Instant::min);
    if first < until {
        return (first, until);
    }
    let slow = used.filter(|link| link.is_slow()).map(|link| link.free_at);
    let together = slow.filter(|at| (until..=until + QUANTUM / 2).contains(at)).min().unwrap_or(until);
    (together, together)
}

/// How much longer the slowest link that may carry bulk takes than the fastest, and the longest
/// round trip of these links; of the near ones and of the far ones.
pub(crate) fn bulk_delays(links: &[LinkView]) -> [Delays; 2] {
    let serving = serving(links);
    let Some(bands) = Bands::of(serving.clone(), None) else { return Default::default() };
    let near = serving.clone().filter(|link| bands.is_near(link));
    let far = serving.filter(|link| bands.is_far(link));
    [delays(near), delays(far)]
}

/// The least and the longest round trip of the links that a flow may grow to: of the near ones, and
/// of the far ones where a flow would go there.
pub(crate) fn rounds(links: &[LinkView]) -> (Duration, Duration) {
    let serving = serving(links);
    let Some(bands) = Bands::of(serving.clone(), None) else { return Default::default() };
    let near = serving.clone().filter(|link| bands.is_near(link));
    let far = serving.filter(|link| bands.is_far(link));
    let goes_far = distance::is_worth_it(near.clone(), far.clone());
    let rounds = near.chain(far.filter(|_| goes_far)).map(|link| link.rtt);
    (rounds.clone().min().unwrap_or_default(), rounds.max().unwrap_or_default())
}

fn delays<'a>(links: impl Iterator<Item = &'a LinkView> + Clone) -> Delays {
    let delays_us = links.clone().map(|link| link.delay_us);
    let (least_us, most_us) = (delays_us.clone().min().unwrap_or(0), delays_us.max().unwrap_or(0));
    let spread_us = u64::try_from(most_us.saturating_sub(least_us)).unwrap_or(0);
    let round = links.map(|link| link.rtt).max().unwrap_or_default();
    Delays { spread: Duration::from_micros(spread_us), round }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::packet::LinkId;
    use crate::qos::flow::FlowId;
    use crate::qos::queue::{Demand, Queued, Tier};
    use crate::units::BitRate;
    use crate::view::{LinkRole, LinkState};

    pub(crate) const NOW: Instant = Instant::from_nanos(1_000_000_000);

    /// A proven, idle link of `mbit` and an RTT of `rtt_ms`.
    pub(crate) fn link(id: u8, mbit: u64, rtt_ms: u64) -> LinkView {
        LinkView {
            id: LinkId(id),
            usable: true,
            state: LinkState::Up,
            priority: 1,
            role: LinkRole::Primary,
            rtt: Duration::from_millis(rtt_ms),
            loss_permille: 0,
            random_loss_permille: 0,
            is_sealed: true,
            is_apart: false,
            recovers: false,
            burst_tenths: 10,
            is_competing: false,
            is_at_ceiling: false,
            utilisation_permille: 0,
            rate: BitRate::from_bps(mbit * 1_000_000),
            capacity: Some(BitRate::from_bps(mbit * 1_000_000)),
            delay_us: i64::try_from(rtt_ms).unwrap() * 500,
            free_at: NOW,
            header_bytes: 28,
            mtu: 1_500,
        }
    }

    pub(crate) fn head(backlog_bytes: usize) -> Queued {
        Queued {
            flow: FlowId(1),
            bytes: 1_400,
            tier: Tier::Bulk,
            backlog_bytes,
            waited: Duration::ZERO,
            demand: Demand::default(),
        }
    }

    const POLICIES: [Policy; 3] = [Policy::Adaptive, Policy::Score, Policy::RoundRobin];

    #[test]
    fn suspect_links_carry_only_when_nothing_better_is_there() {
        for policy in POLICIES {
            let mut scheduler = of(policy);
            let mut links = [link(0, 10, 20), link(1, 70, 80)];
            links[0].state = LinkState::Suspect;
            assert_eq!(scheduler.select(&head(1_400), &links, NOW), Decision::Send(LinkId(1)));
            links[1].usable = false;
            assert_eq!(scheduler.select(&head(1_400), &links, NOW), Decision::Send(LinkId(0)));
            links[0].usable = false;
            assert_eq!(scheduler.select(&head(1_400), &links, NOW), Decision::NoLink);
        }
    }

    /// The primary link is the worse one in every other respect.
    fn with_roles(second: LinkRole) -> [LinkView; 2] {
        let mut links = [link(0, 10, 80), link(1, 70, 20)];
        links[0].priority = 3;
        links[1].role = second;
        links
    }

    #[test]
    fn a_secondary_link_is_used_when_the_primary_one_is_full() {
        for policy in POLICIES {
            let mut links = with_roles(LinkRole::Secondary);
            let select = |links: &[LinkView], backlog| of(policy).select(&head(backlog), links, NOW);
            assert_eq!(select(&links, 1_000_000), Decision::Send(LinkId(0)), "{policy:?}: it has credit");
            links[0].free_at = NOW + Duration::from_millis(1);
            links[0].utilisation_permille = 990;
            // 10 Mbit/s carry 12,500 bytes in 10 ms.
            let wait = select(&links, 1_400 + 12_500);
            assert!(matches!(wait, Decision::Wait(_)), "{policy:?}: {wait:?}");
            assert_eq!(select(&links, 1_400 + 12_600), Decision::Send(LinkId(1)), "{policy:?}");
            links[0].state = LinkState::Suspect;
            assert_eq!(select(&links, 1_400), Decision::Send(LinkId(1)), "{policy:?}: it is suspect");
        }
    }

    #[test]
    fn a_backup_carries_when_no_other_link_is_proven_and_an_unused_link_never() {
        for policy in POLICIES {
            let mut links = with_roles(LinkRole::Backup);
            let select = |links: &[LinkView]| of(policy).select(&head(1_000_000), links, NOW);
            links[0].free_at = NOW + Duration::from_millis(1);
            assert!(matches!(select(&links), Decision::Wait(_)), "{policy:?}: full is not down");
            links[0].state = LinkState::Suspect;
            assert_eq!(select(&links), Decision::Send(LinkId(1)), "{policy:?}");
            links[0].free_at = NOW;
            links[1].state = LinkState::Suspect;
            assert_eq!(select(&links), Decision::Send(LinkId(0)), "{policy:?}: of two suspects the primary");
            links[0].usable = false;
            assert_eq!(select(&links), Decision::Send(LinkId(1)), "{policy:?}: the last one");
            links[1].role = LinkRole::Never;
            links[1].state = LinkState::Up;
            assert_eq!(select(&links), Decision::NoLink, "{policy:?}: never");
        }
    }

    #[test]
    fn only_far_flows_use_links_that_are_apart() {
        let mut links = [link(0, 10, 80), link(1, 70, 20)];
        links[1].is_apart = true;
        links[0].free_at = NOW + Duration::from_millis(1);
        for policy in [Policy::Adaptive, Policy::Score, Policy::RoundRobin, Policy::Redundant] {
            for tier in [Tier::Realtime, Tier::Sparse, Tier::Bulk] {
                // 10 Mbit/s carry it within the time after which a flow may go far.
                let head = Queued { tier, ..head(12_000) };
                let decision = of(policy).select(&head, &links, NOW);
                assert!(matches!(decision, Decision::Wait(_)), "{policy:?}, {tier:?}: {decision:?}");
            }
        }
        let far = Queued { tier: Tier::Far, ..head(20_000) };
        assert_eq!(of(Policy::Adaptive).select(&far, &links, NOW), Decision::Send(LinkId(1)));
        let demand = Demand { bulk_bytes: 1_000_000, near_flows: 2, ..Demand::default() };
        let bulk = Queued { demand, ..head(100_000) };
        assert_eq!(of(Policy::Adaptive).select(&bulk, &links, NOW), Decision::MoveFar);
        assert_eq!(second(&bulk, LinkId(0), &links, NOW), None, "no copy");
        // A packet that fits no other link takes them.
        links[0].usable = false;
        for policy in [Policy::Adaptive, Policy::Score, Policy::RoundRobin, Policy::Redundant] {
            assert_eq!(of(policy).select(&head(1_400), &links, NOW), Decision::Send(LinkId(1)));
        }
    }

    #[test]
    fn runs_go_together_with_a_slow_links_datagrams() {
        let us = Duration::from_micros;
        let mut links = [link(0, 10, 20), link(1, 70, 80)];
        let run = NOW + us(100) + QUANTUM;
        links[1].free_at = NOW + us(100);
        // The line is free first; shortly after the run; too long after it.
        for (free, from) in [(us(300), NOW + us(300)), (us(1_500), NOW + us(1_500)), (us(1_700), run)] {
            links[0].free_at = NOW + free;
            let until = links[0].run_at().min(links[1].run_at());
            assert_eq!(bulk_from(&links, until), (from, from), "{free:?}");
        }
        // What another head waits for does not keep bulk from the line, and is waited for.
        links[0].free_at = NOW;
        assert_eq!(bulk_from(&links, run), (NOW, run));
        links[0].usable = false;
        assert_eq!(bulk_from(&links, run), (run, run));
    }
}
