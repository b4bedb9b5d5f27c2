//! A striped flow sees one delay: that of the slowest link that it needs.
//!
//! The receiver hands a flow's packets out in order, so each packet of a flow that needs slow links
//! waits for the slowest. A packet over the fast link in a lull would be answered much earlier, and
//! a sender that takes the least round trip for that of its path then keeps too little under way
//! (BBR, after its lull of 200 ms).
//!
//! # The rule
//! - A link is *slow* when it is not near ([`Near`]). A flow *needs* slow links while earliest
//!   arrival gives its bulk packets to them; a striped flow, while it has bulk packets on them, no
//!   near link has credit, and the load of all links would fill nine tenths of the near ones. The
//!   slowest link that it needed in the last second is its *far* link.
//! - A flow is *striped* when it has needed slow links for [`STRIPE_AFTER`] without a longer pause
//!   than [`PAUSE`]. It stays so for a quarter of that time, at most [`STAYS_MAX`] after the last
//!   need.
//! - Its packets, but for realtime ones, take the first link in order that has credit and is not
//!   early.
//! - A link is *early* when it is faster than the far link by over [`ALIKE_US`], and what was sent
//!   of the flow before arrives sooner than the packet would over the far link, by more than a
//!   quarter of the difference.
//! - When only early links have credit, the packet waits for another link. Where bulk waits behind
//!   it, such waits take at most half a percent of the time.
//!
//! The cost: after a lull of up to a second the first packets take the far link's delay. Measured:
//! docs/decisions/0033-striped-flows-see-one-delay.md.
//!
//! [`PAUSE`]: crate::scheduler::params::PAUSE
//! [`STAYS_MAX`]: crate::scheduler::params::STAYS_MAX
//! [`STRIPE_AFTER`]: crate::scheduler::params::STRIPE_AFTER

use super::flow::{FlowTable, Stripe};
use super::near::Near;
use crate::packet::LinkId;
use crate::qos::queue::Queued;
use crate::scheduler::arrival::{arrival_at_us, clock_us};
use crate::scheduler::earliest::wait_for_credit;
use crate::scheduler::params::{ALIKE_US, NEED_CHECK_INTERVAL, SLACK_SHARE, WAIT_REST};
use crate::scheduler::policy::Decision;
use crate::time::Instant;
use crate::view::LinkView;

/// Waits for a link that is not early while an early one has credit.
#[derive(Debug, Default)]
struct Waits {
    /// When the last ends, and from when on there may be another.
    until: Instant,
    rest_until: Instant,
}

impl Waits {
    /// Whether to wait until `free_at`.
    fn may_begin(&mut self, free_at: Instant, now: Instant) -> bool {
        if now < self.until {
            return true;
        }
        if now < self.rest_until {
            return false;
        }
        self.until = free_at;
        self.rest_until = free_at + free_at.saturating_since(now) * WAIT_REST;
        true
    }
}

/// The rule, for all flows.
#[derive(Debug, Default)]
pub(super) struct Striping {
    waits: Waits,
}

impl Striping {
    /// Where a packet of a striped flow goes; `None`: its flow is not striped.
    pub(super) fn select<'a>(
        &mut self,
        flows: &mut FlowTable,
        head: &Queued,
        in_order: impl Iterator<Item = &'a LinkView> + Clone,
        now: Instant,
    ) -> Option<Decision> {
        let stripe = flows.active_stripe(head.flow, now)?;
        let (mut far_us, mut least_us) = (None, i64::MAX);
        for link in in_order.clone() {
            least_us = least_us.min(link.delay_us);
            if link.id == stripe.far {
                far_us = Some(link.delay_us);
            }
        }
        let (far_us, near) = (far_us?, Near::at(least_us));
        let ahead_us = far_us.saturating_sub(near.least_us());
        if ahead_us <= ALIKE_US {
            return None;
        }
        let is_held_back = stripe.arrives_us >= clock_us(now, far_us - ahead_us / SLACK_SHARE);
        let is_early = |link: &LinkView| !is_held_back && link.delay_us < far_us - ALIKE_US;
        let others = in_order.clone().filter(|link| !is_early(link));
        let Some(link) = others.clone().find(|link| link.has_credit(now)).or_else(|| {
            let early = in_order.clone().find(|link| link.has_credit(now))?;
            let free_at = others.clone().map(|link| link.free_at).min()?;
            // No other packet could have the early link.
            let is_alone = !head.tier.is_bulk() || head.backlog_bytes <= head.bytes;
            (!is_alone && !self.waits.may_begin(free_at, now)).then_some(early)
        }) else {
            return Some(wait_for_credit(head, others));
        };
        stripe.arrives_us = stripe.arrives_us.max(arrival_at_us(link, head.bytes, now));
        if head.tier.is_bulk()
            && !near.includes(link)
            && now.saturating_since(stripe.spell.last) >= NEED_CHECK_INTERVAL
            && near.are_full(in_order, now)
        {
            stripe.go_on(link, far_us, now);
        }
        Some(Decision::Send(link.id))
    }

    /// A bulk packet goes over `link` by earliest arrival: its flow needs slow links if that is
    /// one.
    pub(super) fn on_sent<'a>(
        flows: &mut FlowTable,
        head: &Queued,
        link: LinkId,
        mut in_order: impl Iterator<Item = &'a LinkView> + Clone,
        now: Instant,
    ) {
        let Some(near) = Near::among(in_order.clone()) else { return };
        let Some(link) = in_order.find(|view| view.id == link).filter(|link| !near.includes(link)) else {
            return;
        };
        // Its own time counts: over a slow link that is what lies between it and the next packet.
        let arrives_us = arrival_at_us(link, head.bytes, now);
        let fresh = Stripe::begin(link.id, arrives_us, now);
        let Some(stripe) = flows.stripe(head.flow, fresh, now) else { return };
        // Until the flow is striped, its far link is the last slow one.
        stripe.go_on(link, i64::MIN, now);
        stripe.arrives_us = stripe.arrives_us.max(arrives_us);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::qos::flow::FlowId;
    use crate::qos::queue::Tier;
    use crate::scheduler::Scheduler as _;
    use crate::scheduler::adaptive::Adaptive;
    use crate::scheduler::tests::{NOW, head, link};
    use crate::units::BitRate;

    const FULL: usize = 1_000_000;
    const MS: Duration = Duration::from_millis(1);

    /// Links under a scheduler, as time goes by.
    struct Links {
        policy: Adaptive,
        views: Vec<LinkView>,
        now: Instant,
        /// Bytes given to each.
        sent: Vec<u64>,
    }

    impl Links {
        fn new(views: Vec<LinkView>) -> Self {
            Self { policy: Adaptive::default(), sent: vec![0; views.len()], views, now: NOW }
        }

        fn reference() -> Self {
            Self::new((0..5).map(|id| if id == 0 { link(0, 10, 20) } else { link(id, 70, 80) }).collect())
        }

        /// Sends a packet as soon as it may go; the link, and how long it waited.
        fn send(&mut self, head: Queued) -> (u8, Duration) {
            let from = self.now;
            loop {
                match self.policy.select(&head, &self.views, self.now) {
                    Decision::Send(link) => {
                        self.views[link.index()].charge(head.bytes, self.now);
                        self.sent[link.index()] += head.bytes as u64;
                        return (link.0, self.now - from);
                    }
                    Decision::Wait(at) | Decision::Hold(at) => {
                        self.now = at.max(self.now + Duration::from_micros(1))
                    }
                    decision @ (Decision::MoveFar | Decision::MoveNear | Decision::NoLink) => {
                        panic!("links are up and near: {decision:?}")
                    }
                }
            }
        }

        /// All links are used to the full, by `flows` in turn.
        fn fill(&mut self, flows: u16, span: Duration) {
            self.views.iter_mut().for_each(|view| view.utilisation_permille = 970);
            let until = self.now + span;
            while self.now < until {
                for flow in 1..=flows {
                    self.send(Queued { flow: FlowId(flow), ..head(FULL) });
                }
            }
        }

        fn pause(&mut self, span: Duration) {
            self.views.iter_mut().for_each(|view| view.utilisation_permille = 0);
            self.now = self.now + span;
        }
    }

    #[test]
    fn in_a_lull_a_flow_that_was_striped_stays_off_the_fast_link() {
        for tier in [Tier::Bulk, Tier::Sparse] {
            let mut links = Links::reference();
            links.fill(1, MS * 4_000);
            assert!(links.sent.iter().all(|bytes| *bytes > 3_000_000), "{:?}", links.sent);
            let packet = Queued { tier, ..head(1_400) };
            // BBR's four packets a round trip.
            for _ in 0..16 {
                links.pause(MS * 50);
                for _ in 0..4 {
                    let (link, waited) = links.send(packet);
                    assert!(link != 0 || waited.is_zero());
                }
            }
            // One that comes right after another goes as quickly over the fast link: it has to wait
            // for that one.
            links.pause(MS * 50);
            assert_eq!(links.send(packet), (1, Duration::ZERO));
            assert_eq!(links.send(packet), (0, Duration::ZERO));
            // Others have the fast link meanwhile.
            links.pause(MS * 50);
            assert_eq!(links.send(Queued { flow: FlowId(2), ..packet }), (0, Duration::ZERO));
            // After a second it is like others.
            links.pause(MS * 200);
            assert_eq!(links.send(packet), (0, Duration::ZERO));
        }
    }

    #[test]
    fn no_packet_of_a_lull_arrives_early() {
        let mut links = Links::reference();
        links.fill(1, MS * 4_000);
        let arrives = |links: &Links, link: u8| clock_us(links.now, links.views[usize::from(link)].delay_us);
        let mut last_us = i64::MIN;
        for gap_us in (0..900).map(|number| number * 37 % 2_000) {
            links.pause(Duration::from_micros(gap_us));
            let far_us = arrives(&links, 1);
            let (link, _) = links.send(head(1_400));
            // In order, not before those that went before it.
            last_us = last_us.max(arrives(&links, link));
            // A quarter of 30 ms, and a packet's own time.
            assert!(last_us >= far_us - 7_700, "{} us early", far_us - last_us);
        }
    }

    #[test]
    fn a_short_burst_leaves_a_flow_as_it_was() {
        let mut links = Links::reference();
        links.fill(1, MS * 90);
        assert!(links.sent[4] > 100_000, "{:?}", links.sent);
        links.pause(MS * 5);
        assert_eq!(links.send(head(1_400)), (0, Duration::ZERO));
    }

    #[test]
    fn a_striped_flow_does_not_wait_for_the_fast_link_while_it_needs_more_than_that() {
        let mut links = Links::reference();
        links.fill(1, MS * 2_000);
        // 40 Mbit/s with nothing waiting, for long.
        for _ in 0..20_000 {
            links.views.iter_mut().for_each(|view| view.utilisation_permille = 138);
            links.now = links.now + Duration::from_micros(280);
            let (_, waited) = links.send(head(1_400));
            assert_eq!(waited, Duration::ZERO);
        }
        // 5 Mbit/s in bursts are for the fast link alone, after a second.
        links.sent.fill(0);
        for round in 0..200 {
            if round == 60 {
                links.sent.fill(0);
            }
            links.views.iter_mut().for_each(|view| view.utilisation_permille = 17);
            links.now = links.now + MS * 22;
            for left in (1..=10).rev() {
                links.send(head(1_400 * left));
            }
        }
        assert_eq!(links.sent[1..], [0; 4], "{:?}", links.sent);
    }

    #[test]
    fn many_flows_leave_no_fast_link_idle() {
        let mut links = Links::new(vec![link(0, 50, 20), link(1, 20, 100)]);
        links.fill(100, MS * 2_000);
        links.sent.fill(0);
        let from = links.now;
        links.fill(100, MS * 4_000);
        let span = links.now - from;
        for (view, sent) in links.views.iter().zip(&links.sent) {
            let used = BitRate::from_bytes_over(*sent, span).as_mbps() / view.rate.as_mbps();
            assert!(used > 0.95, "{:?}: {used}", view.id);
        }
    }
}
