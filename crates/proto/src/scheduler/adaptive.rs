//! The default policy: the lowest score among the links that have credit, unless waiting for a
//! better link is quicker.
//!
//! It composes: the order of the links ([`ranking`](super::ranking)), earliest arrival in that
//! order ([`earliest`](super::earliest)), the rules that look at whole flows
//! ([`placement`](super::placement)), links too far away to share a flow with near ones
//! ([`distance`](super::distance)), and for the realtime class a choice of its own
//! ([`realtime`](super::realtime)).
//!
//! A link that is believed to be slow is tried with copies ([`trials`](super::trials)).
//!
//! A copy of one bulk packet of [`TRICKLE_EVERY_PKTS`] goes over the links that are left out for
//! their loss, so that such a link can prove that it has healed. The packet itself takes another
//! link, so a lost copy does no harm. Why copies, and not the packets:
//! docs/decisions/0032-links-left-out-for-their-loss.md.

use std::time::Duration;

use super::distance::Distance;
use super::earliest::earliest;
use super::params::{RUN, TRICKLE_EVERY_PKTS};
use super::placement::Placement;
use super::policy::{Decision, Scheduler};
use super::ranking::{Ranking, Reach};
use super::realtime::Realtime;
use super::trials::Trials;
use crate::packet::LinkId;
use crate::qos::queue::{Queued, Tier};
use crate::time::Instant;
use crate::view::{LinkSet, LinkView};

/// Earliest arrival in the order of scores.
#[derive(Debug, Default)]
pub(super) struct Adaptive {
    ranking: Ranking,
    placement: Placement,
    realtime: Realtime,
    /// Which flows are far, and where their packets go.
    distance: Distance,
    far: Placement,
    /// Links that are believed to be slow.
    trials: Trials,
    /// Bulk packets since the last that was copied over links that are left out.
    uncopied_pkts: u32,
}

impl Scheduler for Adaptive {
    fn select(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision {
        if head.flow.is_stream() {
            return self.select_for_stream(head, links, now);
        }
        match head.tier {
            Tier::Realtime => self.realtime.select(head, links, now),
            Tier::Sparse => {
                self.ranking.refresh(links);
                self.placement.place_sparse(head, self.ranking.usual(head, links, now), now)
            }
            Tier::Bulk | Tier::Far => {
                let decision = self.select_bulk(head, links, now);
                self.note_decision(head, decision, links, now);
                decision
            }
        }
    }

    fn run(&self) -> Duration {
        RUN
    }

    fn may_copy(&self) -> bool {
        self.trials.is_due() || !self.ranking.lossy().is_empty()
    }

    fn copies(&mut self, head: &Queued, _link: LinkId, links: &[LinkView], now: Instant) -> LinkSet {
        if !head.tier.is_bulk() {
            return LinkSet::NONE;
        }
        let mut copies = self.trials.copies(head, links, now);
        let lossy = self.ranking.lossy();
        if lossy.is_empty() {
            return copies;
        }
        self.uncopied_pkts += 1;
        if self.uncopied_pkts >= TRICKLE_EVERY_PKTS {
            self.uncopied_pkts = 0;
            let lossy = links.iter().filter(|link| lossy.contains(link.id) && link.has_credit(now));
            lossy.for_each(|link| copies.insert(Some(link.id)));
        }
        copies
    }
}

impl Adaptive {
    /// The decision for a piece of a stream: earliest arrival of all that waits, over any link. The
    /// receiver waits for what is missing without a deadline, so neither distance nor loss leaves a
    /// link out.
    fn select_for_stream(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision {
        self.ranking.refresh(links);
        let decision = earliest(head, self.ranking.every(head, links, now), now);
        if head.tier.is_bulk() {
            self.note_decision(head, decision, links, now);
        }
        decision
    }

    /// A link that is passed over may be tried. As a rule none is slow enough for that.
    fn note_decision(&mut self, head: &Queued, decision: Decision, links: &[LinkView], now: Instant) {
        if self.ranking.has_slow() {
            self.trials.on_decision(head, decision, self.ranking.usual(head, links, now), now);
        } else {
            self.trials.rest();
        }
    }

    /// The decision for a bulk packet, near or far.
    fn select_bulk(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision {
        self.ranking.refresh_band(links);
        let near = self.ranking.in_band(Reach::Near, head, links, now);
        let is_competing = self.ranking.is_competing(Reach::Near);
        if !self.ranking.has_far() {
            // A far flow stays what it is for as long as no far link serves.
            return self.placement.place_bulk(head, near, is_competing, now);
        }
        let far = self.ranking.in_band(Reach::Far, head, links, now);
        if head.tier == Tier::Far {
            if self.distance.returns(head, near, far.clone(), now) {
                return Decision::MoveNear;
            }
            return self.far.place_bulk(head, far, self.ranking.is_competing(Reach::Far), now);
        }
        if self.distance.goes(head, near.clone(), far, now) {
            return Decision::MoveFar;
        }
        self.placement.place_bulk(head, near, is_competing, now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::eligible::loss_based_bps;
    use super::super::tests::{NOW, head, link};
    use super::*;
    use crate::limits::QUANTUM;
    use crate::units::BitRate;
    use crate::view::{LinkRole, LinkState, Saturation, score};

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
    fn bulk_keeps_to_the_links_of_its_band_and_sparse_traffic_to_the_order() {
        // Too far apart for one flow.
        let mut links = [link(0, 2, 30), link(1, 50, 600)];
        links[0].priority = 2;
        let far = Queued { tier: Tier::Far, ..head(1_000_000) };
        let sparse = Queued { tier: Tier::Sparse, ..head(1_400) };
        assert_eq!(select(&links, &head(1_000_000)), Decision::Send(LinkId(0)), "not long yet");
        assert_eq!(select(&links, &far), Decision::Send(LinkId(1)));
        assert_eq!(select(&links, &sparse), Decision::Send(LinkId(0)));
        links[1].free_at = NOW + Duration::from_millis(1);
        let wait = select(&links, &far);
        assert_eq!(wait, Decision::Wait(links[1].free_at + QUANTUM), "the line's credit does not count");
        assert_eq!(select(&links, &head(1_000_000)), Decision::Send(LinkId(0)));
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
                    9 => view.is_competing = !view.is_competing,
                    _ => view.free_at = NOW + Duration::from_micros(value.into()),
                }
                let tier = if is_bulk { Tier::Bulk } else { Tier::Sparse };
                let head = Queued { tier, ..head(backlog) };
                forgets.ranking.forget();
                prop_assert_eq!(keeps.select(&head, &links, NOW), forgets.select(&head, &links, NOW));
                prop_assert_eq!(keeps.ranking.lossy(), forgets.ranking.lossy());
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
