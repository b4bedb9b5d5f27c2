//! Pins: whole flows that keep a link in use which a competitor's queue has made longer.
//!
//! Earliest arrival gives up the bond's share of such a link, as what the flows have waiting
//! arrives sooner over the others. Flows that are striped over all links take the long link's delay
//! and need far more under way. A flow that uses the long link alone needs what fits into that
//! link.
//!
//! # The rule
//! - A link is *far* when it is shared with a competitor and not near ([`Near`]) the links that are
//!   not shared. Without a far link no flow is pinned: links that are long by themselves are filled
//!   by earliest arrival and by striped flows.
//! - While the near links are used to nine tenths and a far one is not, a bulk flow for whose
//!   packet no near link has credit is *pinned* to the far link. It must have had bulk packets for
//!   [`PIN_AFTER`] without a longer pause than [`PAUSE`], and one flow at least stays without a
//!   pin. For the first flow eight tenths are enough, as it frees the others of that link's delay.
//!   After each change a pause of [`PIN_SEEN_AFTER`] and the link's round trip shows its effect.
//! - A pinned flow's packets take that link, up to [`PIN_AHEAD`] before it has credit. What is more
//!   than that goes as any other flow's.
//! - Other flows leave a far link alone while a flow is pinned to it.
//! - When the near links are used to less than eight tenths, one flow after the other is released.
//!   All are when no link is shared or far.
//!
//! A flow that changes its link stays in order: the receiver orders it by its slot's numbers.
//! Measured: docs/decisions/0034-pinned-flows.md.
//!
//! [`PAUSE`]: crate::scheduler::params::PAUSE

use super::flow::{FlowTable, Pin};
use super::near::Near;
use crate::packet::LinkId;
use crate::qos::queue::Queued;
use crate::scheduler::params::{FULL_PERMILLE, IDLE_PERMILLE, PIN_AFTER, PIN_AHEAD, PIN_SEEN_AFTER};
use crate::scheduler::policy::Decision;
use crate::time::Instant;
use crate::view::{LinkSet, LinkView};

/// What becomes of a bulk packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It takes this link.
    Home(LinkId),
    /// It may take all but these.
    Leaves(LinkSet),
}

/// The rule, for all flows.
#[derive(Debug, Default)]
pub(super) struct Pinning {
    /// When a flow was pinned or released last.
    changed_at: Instant,
}

impl Pinning {
    /// What becomes of `head`, which is bulk.
    pub(super) fn verdict<'a>(
        &mut self,
        flows: &mut FlowTable,
        head: &Queued,
        in_order: impl Iterator<Item = &'a LinkView> + Clone,
        now: Instant,
    ) -> Verdict {
        let Some(near) = Near::uncontested(in_order.clone()) else {
            flows.clear_pins();
            return Verdict::Leaves(LinkSet::NONE);
        };
        let far = in_order.clone().filter(|link| !near.includes(link));
        let home = flows.pin(head.flow, now).and_then(|pin| pin.home);
        let Some(home) = home else { return Verdict::Leaves(homes(flows, far, now)) };
        let link = far.clone().find(|link| link.id == home);
        let is_released =
            |link: &&LinkView| self.may_change(link, now) && near.used_permille(in_order) < IDLE_PERMILLE;
        let Some(link) = link.filter(|link| !is_released(link)) else {
            if let Some(pin) = flows.known_pin_mut(head.flow) {
                (pin.home, pin.spell.since) = (None, now);
            }
            self.changed_at = now;
            return Verdict::Leaves(homes(flows, far, now));
        };
        if link.free_at <= now + PIN_AHEAD { Verdict::Home(home) } else { Verdict::Leaves(LinkSet::NONE) }
    }

    /// After a `decision` that gives `head` to no near link now: the link that its flow is pinned
    /// to.
    pub(super) fn try_pin<'a>(
        &mut self,
        flows: &mut FlowTable,
        head: &Queued,
        decision: Decision,
        in_order: impl Iterator<Item = &'a LinkView> + Clone,
        now: Instant,
    ) -> Option<LinkId> {
        let near = Near::uncontested(in_order.clone())?;
        let is_far = |link: &&LinkView| !near.includes(link);
        if let Decision::Send(link) = decision
            && !in_order.clone().filter(is_far).any(|view| view.id == link)
        {
            return None;
        }
        let pin = flows.known_pin(head.flow).filter(|pin| pin.home.is_none())?;
        let stays_free = |(id, pin): (_, &Pin)| id != head.flow && pin.home.is_none() && !pin.is_over(now);
        if now.saturating_since(pin.spell.since) < PIN_AFTER || !flows.pins().any(stays_free) {
            return None;
        }
        let is_unused = |link: &&LinkView| {
            link.has_credit(now)
                && u64::from(link.utilisation_permille) < FULL_PERMILLE
                && self.may_change(link, now)
        };
        let far = in_order.clone().filter(is_far).filter(is_unused);
        let far = far.min_by_key(|link| (link.delay_us, link.id))?;
        // The first flow frees the others of the far link's delay.
        let least = if is_home(flows, far.id, now) { FULL_PERMILLE } else { IDLE_PERMILLE };
        if near.used_permille(in_order) < least {
            return None;
        }
        flows.known_pin_mut(head.flow)?.home = Some(far.id);
        self.changed_at = now;
        Some(far.id)
    }

    fn may_change(&self, link: &LinkView, now: Instant) -> bool {
        now.saturating_since(self.changed_at) >= PIN_SEEN_AFTER + link.rtt
    }
}

/// Whether a flow that is pinned to `link` has packets at present.
fn is_home(flows: &FlowTable, link: LinkId, now: Instant) -> bool {
    flows.pins().any(|(_, pin)| pin.home == Some(link) && !pin.is_over(now))
}

/// The far links that flows are pinned to.
fn homes<'a>(flows: &FlowTable, far: impl Iterator<Item = &'a LinkView>, now: Instant) -> LinkSet {
    far.map(|link| link.id).filter(|link| is_home(flows, *link, now)).collect()
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

    const MS: Duration = Duration::from_millis(1);
    const WAITING: usize = 20_000;

    /// Two links of 50 Mbit/s, of which a competitor has made the first 90 ms longer and left half
    /// of it.
    fn links(now: Instant) -> [LinkView; 2] {
        let mut links = [link(0, 25, 20), link(1, 50, 20)];
        links[0].is_competing = true;
        links[0].delay_us += 90_000;
        links[0].rtt = MS * 110;
        links[0].free_at = now;
        links[1].free_at = now + MS / 4;
        links[1].utilisation_permille = 990;
        links
    }

    /// Flows under a scheduler, each with a packet in turn, as time goes by.
    struct Flows {
        policy: Adaptive,
        now: Instant,
        count: u16,
    }

    impl Flows {
        fn new(count: u16) -> Self {
            Self { policy: Adaptive::default(), now: NOW, count }
        }

        /// What became of each flow's last packet.
        fn run(&mut self, span: Duration, change: impl Fn(&mut [LinkView; 2])) -> Vec<Decision> {
            let until = self.now + span;
            let mut last = Vec::new();
            while self.now < until {
                self.now = self.now + MS * 10;
                last.clear();
                for flow in 1..=self.count {
                    let mut links = links(self.now);
                    change(&mut links);
                    let packet = Queued { flow: FlowId(flow), ..head(WAITING) };
                    last.push(self.policy.select(&packet, &links, self.now));
                }
            }
            last
        }

        /// How many go over the long link.
        fn far(&mut self, span: Duration, change: impl Fn(&mut [LinkView; 2])) -> usize {
            let last = self.run(span, change);
            last.iter().filter(|decision| **decision == Decision::Send(LinkId(0))).count()
        }
    }

    #[test]
    fn flows_move_one_by_one_to_a_shared_link_that_is_not_used_and_the_last_one_stays() {
        let mut flows = Flows::new(4);
        assert_eq!(flows.far(MS * 950, |_| ()), 0, "not yet");
        assert_eq!(flows.far(MS * 300, |_| ()), 1);
        assert_eq!(flows.far(MS * 700, |_| ()), 2);
        assert_eq!(flows.far(MS * 5_000, |_| ()), 3);
    }

    #[test]
    fn no_more_move_than_the_shared_link_needs() {
        let mut flows = Flows::new(4);
        assert_eq!(flows.far(MS * 1_250, |_| ()), 1);
        assert_eq!(flows.far(MS * 5_000, |links| links[0].utilisation_permille = 950), 1);
    }

    #[test]
    fn flows_come_back_when_the_near_link_has_room_and_when_no_competitor_is_there() {
        let mut flows = Flows::new(4);
        assert_eq!(flows.far(MS * 5_000, |_| ()), 3);
        let idle = |links: &mut [LinkView; 2]| links[1].utilisation_permille = 700;
        assert_eq!(flows.far(MS * 400, idle), 2);
        assert_eq!(flows.far(MS * 5_000, idle), 0);
        assert_eq!(flows.far(MS * 5_000, |_| ()), 3);
        assert_eq!(flows.far(MS * 10, |links| links[0].is_competing = false), 0);
    }

    #[test]
    fn one_flow_and_short_ones_and_links_that_are_long_by_themselves_are_as_ever() {
        assert_eq!(Flows::new(1).far(MS * 5_000, |_| ()), 0);
        assert_eq!(Flows::new(4).far(MS * 5_000, |links| links[0].is_competing = false), 0);
        let mut flows = Flows::new(4);
        for _ in 0..10 {
            assert_eq!(flows.far(MS * 500, |_| ()), 0);
            flows.now = flows.now + MS * 300;
        }
    }

    #[test]
    fn a_burst_of_a_pinned_flow_goes_ahead_of_its_link_and_what_is_too_much_goes_as_any() {
        let mut flows = Flows::new(2);
        flows.run(MS * 1_250, |_| ());
        let one = |flows: &mut Flows, flow, ahead, tier| {
            let mut links = links(flows.now);
            links[0].free_at = flows.now + ahead;
            links[1].free_at = flows.now;
            flows.policy.select(&Queued { flow: FlowId(flow), tier, ..head(WAITING) }, &links, flows.now)
        };
        let home = (1..=2).find(|flow| one(&mut flows, *flow, MS, Tier::Bulk) == Decision::Send(LinkId(0)));
        let home = home.expect("one of them is pinned");
        assert_eq!(one(&mut flows, home, MS * 10, Tier::Bulk), Decision::Send(LinkId(0)));
        assert_eq!(one(&mut flows, home, MS * 11, Tier::Bulk), Decision::Send(LinkId(1)));
        assert_eq!(one(&mut flows, 3 - home, Duration::ZERO, Tier::Bulk), Decision::Send(LinkId(1)));
        assert_eq!(one(&mut flows, home, Duration::ZERO, Tier::Sparse), Decision::Send(LinkId(1)));
    }
}
