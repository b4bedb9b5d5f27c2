//! Whole flows that keep a link in use which somebody else's queue has made longer.
//!
//! On a link in the rate control's *shared* phase somebody else fills the queue, and the bond is to have its share all the same. Earliest arrival gives it
//! up: the link has become 60 to 100 ms longer, so what the flows have waiting arrives sooner over the others. Nor does it come back
//! later: who leaves room has it taken, and the queue stays as long as it is. While all flows are spread over all links (`spread`) each of their packets takes that link's delay, and to fill 25 Mbit/s at 110 ms and 50 Mbit/s at 20 ms
//! they need 690 datagrams under way. A flow of cubic that had 42 of 170 takes ten seconds to grow to its part of that. A flow that uses the long link alone needs what fits into it, and the others what fits into theirs:
//! 310 in all.
//!
//! # The rule
//! - A link is *far* when it is shared and over 5 ms slower than the fastest link that is not, of those that the packet may take. Where there is none, nothing of this
//!   applies: links that are long by themselves are filled by earliest arrival and by flows that are spread.
//! - While the near links (those that are not far) are used to nine tenths and a far one is not, a bulk flow for whose packet no near link has credit
//!   is *settled* on the far one. It must have had bulk packets for a second without a pause of 250 ms, so that a page is not; and never all flows are. For the first
//!   eight tenths are enough: it frees the others of that link's delay. After each flow comes a pause of half a second and that
//!   link's round trip, in which its effect is seen.
//! - Its packets take that link, up to 10 ms before it has credit: the flow's windows come in bursts, and behind them in the one queue are other flows' packets that are not to wait for this link.
//!   The link has a queue in any case. What is more than that goes as any other flow's.
//! - Other flows leave a far link alone while a flow is settled on it, so that they do not take its delay.
//! - When the near links are used to less than eight tenths, one flow after the other goes back to them. All do when the link is shared no longer, or no longer slower.
//!
//! A single flow is never settled: it is spread.
//!
//! Lab, `competing-50`: the other flow had 52, 52, 52, 52, 52, 53 and 58 % of the link, the four downloads 64 to 67 Mbit/s; of 15 runs without it, three had 75, 75 and 95 %, and 56, 56 and 47 Mbit/s.
//!
//! A flow that changes its link is in order: its slot's numbers are given at sending, and the receiver holds what comes early.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Decision;
use crate::packet::LinkId;
use crate::qos::flow::FlowId;
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::view::{LinkSet, LinkView};

/// Delays that differ by no more are alike: about what jitter and a batch in a link's queue make.
const ALIKE_US: i64 = 5_000;
/// A flow that had bulk packets for so long, with no longer pauses than that, may be settled.
const LASTS: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(250);
/// Links are used to the full from this on, and not below the other.
const FULL_PERMILLE: u64 = 900;
const IDLE_PERMILLE: u64 = 800;
/// What use is taken over; only after so long is the effect of a change seen.
const SEEN_AFTER: Duration = Duration::from_millis(500);
/// A settled flow's packets go so long before their link has credit.
const AHEAD: Duration = Duration::from_millis(10);
/// So many flows are looked at. Of more than that none alone matters.
const FLOWS_MAX: usize = 64;

/// A flow with bulk packets.
#[derive(Debug, Clone, Copy)]
struct Flow {
    since: Instant,
    last: Instant,
    home: Option<LinkId>,
}

impl Flow {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_since(self.last) > PAUSE
    }
}

/// The flows with bulk packets while a link is far.
#[derive(Debug, Default)]
pub(super) struct Settled {
    flows: BTreeMap<FlowId, Flow>,
    /// When a flow was settled or went back last.
    changed_at: Instant,
}

/// The near ones among a packet's links.
#[derive(Debug, Clone, Copy)]
struct Near {
    least_us: i64,
}

impl Near {
    /// `None`: all links are shared, or none is.
    fn among<'a>(links: impl Iterator<Item = &'a LinkView> + Clone) -> Option<Self> {
        if !links.clone().any(|link| link.is_shared) {
            return None;
        }
        let least_us = links.filter(|link| !link.is_shared).map(|link| link.delay_us).min()?;
        Some(Self { least_us })
    }

    fn includes(self, link: &LinkView) -> bool {
        !link.is_shared || link.delay_us.saturating_sub(self.least_us) <= ALIKE_US
    }

    /// What is sent over them, as a share of what they carry.
    fn used_permille<'a>(self, links: impl Iterator<Item = &'a LinkView>) -> u64 {
        let near = links.filter(|link| self.includes(link));
        let (used, carried) = near.fold((0_u64, 0_u64), |(used, carried), link| {
            let kbps = link.rate.as_bps() / 1_000;
            (used + kbps * u64::from(link.utilisation_permille.min(1_000)), carried + kbps)
        });
        used / carried.max(1)
    }
}

/// What is to become of a bulk packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It takes this link.
    Home(LinkId),
    /// It may take all but these.
    Leaves(LinkSet),
}

impl Settled {
    /// No link is shared: no flow is settled any more.
    pub(super) fn clear(&mut self) {
        if !self.flows.is_empty() {
            self.flows.clear();
        }
    }

    /// What is to become of `head`, which is bulk.
    pub(super) fn verdict<'a>(
        &mut self,
        head: &Queued,
        in_order: impl Iterator<Item = &'a LinkView> + Clone,
        now: Instant,
    ) -> Verdict {
        let Some(near) = Near::among(in_order.clone()) else {
            self.flows.clear();
            return Verdict::Leaves(LinkSet::NONE);
        };
        let far = in_order.clone().filter(|link| !near.includes(link));
        if self.flows.len() >= FLOWS_MAX {
            self.flows.retain(|_, flow| !flow.is_over(now));
        }
        let is_known = self.flows.contains_key(&head.flow);
        if self.flows.len() >= FLOWS_MAX && !is_known {
            return Verdict::Leaves(self.homes(far, now));
        }
        let fresh = Flow { since: now, last: now, home: None };
        let flow = self.flows.entry(head.flow).or_insert(fresh);
        if flow.is_over(now) {
            *flow = fresh;
        }
        flow.last = now;
        let Some(home) = flow.home else { return Verdict::Leaves(self.homes(far, now)) };
        let link = far.clone().find(|link| link.id == home);
        let goes_back =
            |link: &&LinkView| self.may_change(link, now) && near.used_permille(in_order) < IDLE_PERMILLE;
        let Some(link) = link.filter(|link| !goes_back(link)) else {
            if let Some(flow) = self.flows.get_mut(&head.flow) {
                (flow.home, flow.since) = (None, now);
            }
            self.changed_at = now;
            return Verdict::Leaves(self.homes(far, now));
        };
        if link.free_at <= now + AHEAD { Verdict::Home(home) } else { Verdict::Leaves(LinkSet::NONE) }
    }

    /// After a `decision` that gives `head` to none of the near links now: the link that its flow is settled on.
    pub(super) fn settle<'a>(
        &mut self,
        head: &Queued,
        decision: Decision,
        in_order: impl Iterator<Item = &'a LinkView> + Clone,
        now: Instant,
    ) -> Option<LinkId> {
        let near = Near::among(in_order.clone())?;
        let is_far = |link: &&LinkView| !near.includes(link);
        if let Decision::Send(link) = decision
            && !in_order.clone().filter(is_far).any(|view| view.id == link)
        {
            return None;
        }
        let flow = self.flows.get(&head.flow).filter(|flow| flow.home.is_none())?;
        let stays =
            |(id, flow): (&FlowId, &Flow)| *id != head.flow && flow.home.is_none() && !flow.is_over(now);
        if now.saturating_since(flow.since) < LASTS || !self.flows.iter().any(stays) {
            return None;
        }
        let unused = |link: &&LinkView| {
            link.has_credit(now)
                && u64::from(link.utilisation_permille) < FULL_PERMILLE
                && self.may_change(link, now)
        };
        let far =
            in_order.clone().filter(is_far).filter(unused).min_by_key(|link| (link.delay_us, link.id))?;
        // The first frees the others of the far link's delay.
        let is_first = !self.is_home(far.id, now);
        let least = if is_first { IDLE_PERMILLE } else { FULL_PERMILLE };
        if near.used_permille(in_order) < least {
            return None;
        }
        self.flows.get_mut(&head.flow)?.home = Some(far.id);
        self.changed_at = now;
        Some(far.id)
    }

    /// Whether a flow that is settled on `link` now has packets.
    fn is_home(&self, link: LinkId, now: Instant) -> bool {
        self.flows.values().any(|flow| flow.home == Some(link) && !flow.is_over(now))
    }

    /// The links that flows are settled on.
    fn homes<'a>(&self, far: impl Iterator<Item = &'a LinkView>, now: Instant) -> LinkSet {
        far.map(|link| link.id).filter(|link| self.is_home(*link, now)).collect()
    }

    fn may_change(&self, link: &LinkView, now: Instant) -> bool {
        now.saturating_since(self.changed_at) >= SEEN_AFTER + link.rtt
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scheduler as _;
    use super::super::adaptive::Adaptive;
    use super::super::tests::{NOW, head, link};
    use super::*;
    use crate::qos::queue::Tier;

    const MS: Duration = Duration::from_millis(1);
    const WAITING: usize = 20_000;

    /// Two links of 50 Mbit/s, of which somebody else has made the first 90 ms longer and left half of it.
    fn links(now: Instant) -> [LinkView; 2] {
        let mut links = [link(0, 25, 20), link(1, 50, 20)];
        links[0].is_shared = true;
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
    fn flows_come_back_when_the_near_link_has_room_and_when_nobody_else_is_there() {
        let mut flows = Flows::new(4);
        assert_eq!(flows.far(MS * 5_000, |_| ()), 3);
        let idle = |links: &mut [LinkView; 2]| links[1].utilisation_permille = 700;
        assert_eq!(flows.far(MS * 400, idle), 2);
        assert_eq!(flows.far(MS * 5_000, idle), 0);
        assert_eq!(flows.far(MS * 5_000, |_| ()), 3);
        assert_eq!(flows.far(MS * 10, |links| links[0].is_shared = false), 0);
    }

    #[test]
    fn one_flow_and_short_ones_and_links_that_are_long_by_themselves_are_as_ever() {
        assert_eq!(Flows::new(1).far(MS * 5_000, |_| ()), 0);
        assert_eq!(Flows::new(4).far(MS * 5_000, |links| links[0].is_shared = false), 0);
        let mut flows = Flows::new(4);
        for _ in 0..10 {
            assert_eq!(flows.far(MS * 500, |_| ()), 0);
            flows.now = flows.now + MS * 300;
        }
    }

    #[test]
    fn a_burst_of_a_settled_flow_goes_ahead_of_its_link_and_what_is_too_much_goes_as_any() {
        let mut flows = Flows::new(2);
        flows.run(MS * 1_250, |_| ());
        let one = |flows: &mut Flows, flow, ahead, tier| {
            let mut links = links(flows.now);
            links[0].free_at = flows.now + ahead;
            links[1].free_at = flows.now;
            flows.policy.select(&Queued { flow: FlowId(flow), tier, ..head(WAITING) }, &links, flows.now)
        };
        let home = (1..=2).find(|flow| one(&mut flows, *flow, MS, Tier::Bulk) == Decision::Send(LinkId(0)));
        let home = home.expect("one of them is settled");
        assert_eq!(one(&mut flows, home, MS * 10, Tier::Bulk), Decision::Send(LinkId(0)));
        assert_eq!(one(&mut flows, home, MS * 11, Tier::Bulk), Decision::Send(LinkId(1)));
        assert_eq!(one(&mut flows, 3 - home, Duration::ZERO, Tier::Bulk), Decision::Send(LinkId(1)));
        assert_eq!(one(&mut flows, home, Duration::ZERO, Tier::Sparse), Decision::Send(LinkId(1)));
    }

    #[test]
    fn the_flows_that_are_looked_at_are_bounded() {
        let mut settled = Settled::default();
        for flow in 1..=1_000 {
            let packet = Queued { flow: FlowId(flow), ..head(WAITING) };
            settled.verdict(&packet, links(NOW).iter(), NOW);
        }
        assert_eq!(settled.flows.len(), FLOWS_MAX);
        let late = Queued { flow: FlowId(2_000), ..head(WAITING) };
        settled.verdict(&late, links(NOW).iter(), NOW + MS * 1_000);
        assert!(settled.flows.contains_key(&FlowId(2_000)) && settled.flows.len() == 1);
    }
}
