//! A flow that is spread over links sees one delay: that of the slowest of them.
//!
//! The receiver puts a flow's packets in order. While the flow needs links of different delay, each of its packets is handed out when the slowest
//! link delivers, whatever link it took. Two things follow. Such a packet gains nothing by waiting for a faster link, as a packet of another flow does.
//! And in a lull a packet over the fast link, with none under way before it, would arrive much earlier than all others and be answered
//! earlier. A sender that takes the least round trip for that of its path then keeps too little under way for the path of its load. BBR
//! does, for ten seconds, and every ten seconds makes a lull of 200 ms to find its least round trip.
//!
//! # The rule
//! - Links are *fast* when they are at most 5 ms slower than the fastest that the packet may take, and *slow* otherwise. A flow *needs* slow links while earliest arrival
//!   gives its bulk packets to them; when it is spread already, while it has bulk packets on them, no fast link has credit, and what was sent over all links
//!   in half a second would fill nine tenths of the fast ones. The slowest link that it needed, of the last second, is its *far* link.
//! - A flow is *spread* when it has needed slow links for 100 ms without a pause of 250 ms, and stays so for a quarter of the time for which it has needed
//!   them, at most a second after it last did. That outlasts BBR's lull and what is under way before it. A page is too short to be spread.
//! - A packet of a spread flow takes the first link in order that has credit and is not early. It does not wait for a better one.
//! - A link is *early* for it if it is over 5 ms faster than the far link, and what was sent of the flow before arrives sooner than the packet would
//!   over the far link, by more than a quarter of the difference between that and the fastest. Otherwise what was sent before holds the packet back, and the fast
//!   link is used as by anybody.
//! - If only early links have credit, the packet waits for another. Where that holds up bulk behind it, such waits take at most half a percent of the time: flows
//!   so many that each has little on slow links leave no fast link idle. (Simulated, three flows over 3 and 1 Mbit/s: 1.3 % of 3.56 Mbit/s were lost to waits of a
//!   ninth of the time, as that much more was sent than could go.)
//!
//! A sparse packet of a spread flow goes by that as well; realtime packets never do. What it costs: the first packets after a lull of up to a second take the
//! far link's delay, as those before the lull did. What it leaves is the fast link for others.
//!
//! Lab, `reference`, one download by the kernel's BBR: without this its own estimate was 69 Mbit/s after four seconds, 25 after ten and 15 to 20 from
//! then on, with a least round trip of 21 ms at first and 23 ms after its lull. With it 236 Mbit/s after a second; 58 when the handshake's round trip of 21 ms was forgotten after ten; then, with 50 ms,
//! 95 % of all links 4 s later. With the early links only, but waiting for fast ones as others do, it fell from 74 to
//! 11 Mbit/s in the first ten seconds, too little to need a slow link, and stayed there.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Decision;
use super::adaptive::wait;
use crate::packet::LinkId;
use crate::qos::flow::FlowId;
use crate::qos::queue::{Queued, Tier};
use crate::time::Instant;
use crate::view::LinkView;

/// Delays that differ by no more are alike. Ours: about what jitter and a batch in a link's queue make.
const ALIKE_US: i64 = 5_000;
/// A flow that has needed slow links for so long, with no longer pauses than that, is spread. (Lab, `reference`, pages of 60 kB: 110 ms with
/// any flow that ever needed one, 104 ms with this and without spread flows.)
const BEGINS: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(250);
/// It stays so for this share of the time for which it has been, and no longer than this.
const STAYS_SHARE: u32 = 4;
const STAYS_MAX: Duration = Duration::from_secs(1);
/// What arrives less than this share of the difference before its time is not early. Ours: BBR has twice its least round trip under way.
const SLACK_SHARE: i64 = 4;
/// After a wait for a link that is not early, with bulk waiting behind it, none for so many times as long: half a percent of what a fast link carries.
const WAIT_REST: u32 = 200;
/// Fast links are full when what is sent over all links would use so much of them.
const FULL_PERMILLE: u64 = 900;
/// Whether a flow needs slow links is looked at so often.
const LOOKS: Duration = Duration::from_millis(5);
/// So many flows are looked at, and those that are over are forgotten this often at most when there are more. Of more than that none alone matters.
const FLOWS_MAX: usize = 64;
const SWEEPS: Duration = Duration::from_millis(50);

/// A flow that needs slow links, or did lately.
#[derive(Debug, Clone, Copy)]
struct Flow {
    /// Since when, and when last.
    since: Instant,
    last: Instant,
    far: LinkId,
    /// When it last needed that one.
    far_at: Instant,
    /// When all that was sent of it will have arrived, on the clock of delays.
    arrives_us: i64,
    /// Until when it is to see one delay; `None`: it needed no slow link for long enough.
    until: Option<Instant>,
}

impl Flow {
    /// For how long after its last need for a slow link it stays spread.
    fn stays(&self) -> Duration {
        let spread = self.last.saturating_since(self.since);
        if spread < BEGINS { Duration::ZERO } else { (spread / STAYS_SHARE).min(STAYS_MAX) }
    }

    /// Whether it is to see one delay.
    fn is_spread(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now <= until)
    }

    /// Whether that is past.
    fn is_over(&self, now: Instant) -> bool {
        now > self.last + self.stays().max(PAUSE)
    }

    /// It needs `link`, which is slow. `far_us`: the delay of the far link.
    fn go_on(&mut self, link: &LinkView, far_us: i64, now: Instant) {
        self.last = now;
        self.until = Some(self.stays()).filter(|stays| !stays.is_zero()).map(|stays| now + stays);
        if link.delay_us >= far_us || now.saturating_since(self.far_at) > STAYS_MAX {
            self.far = link.id;
        }
        if self.far == link.id {
            self.far_at = now;
        }
    }
}

/// The flows that are spread, and those that may become so.
#[derive(Debug, Default)]
pub(super) struct Spread {
    flows: BTreeMap<FlowId, Flow>,
    /// When those that are over were last forgotten.
    swept_at: Option<Instant>,
    waits: Waits,
}

/// Waits for a link that is not early while one that is has credit.
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

/// When what goes over a link of this delay now arrives, on the clock of delays.
fn arrival_us(now: Instant, delay_us: i64) -> i64 {
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX).saturating_add(delay_us)
}

/// When a packet arrives that is given to a link now. Its own time counts: over slow links that is what lies between it and the next.
fn sent_arrives_us(head: &Queued, link: &LinkView, now: Instant) -> i64 {
    arrival_us(now + link.time_to_send(head.bytes as u64 + link.header_bytes), link.delay_us)
}

/// The fast ones among a packet's links, by the least delay.
#[derive(Debug, Clone, Copy)]
struct Fast {
    least_us: i64,
}

impl Fast {
    fn among<'a>(links: impl Iterator<Item = &'a LinkView>) -> Option<Self> {
        links.map(|link| link.delay_us).min().map(|least_us| Self { least_us })
    }

    fn includes(self, link: &LinkView) -> bool {
        link.delay_us.saturating_sub(self.least_us) <= ALIKE_US
    }

    /// Whether none of them has credit, and what is sent over all links would fill them.
    fn are_full<'a>(self, links: impl Iterator<Item = &'a LinkView>, now: Instant) -> bool {
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
}

impl Spread {
    /// Where a packet goes whose flow is spread; `None`: it is not.
    pub(super) fn select<'a>(
        &mut self,
        head: &Queued,
        in_order: impl Iterator<Item = &'a LinkView> + Clone,
        now: Instant,
    ) -> Option<Decision> {
        let flow = self.flows.get_mut(&head.flow).filter(|flow| flow.is_spread(now))?;
        let (mut far_us, mut least_us) = (None, i64::MAX);
        for link in in_order.clone() {
            least_us = least_us.min(link.delay_us);
            if link.id == flow.far {
                far_us = Some(link.delay_us);
            }
        }
        let (far_us, fast) = (far_us?, Fast { least_us });
        let ahead_us = far_us.saturating_sub(fast.least_us);
        if ahead_us <= ALIKE_US {
            return None;
        }
        let is_held_back = flow.arrives_us >= arrival_us(now, far_us - ahead_us / SLACK_SHARE);
        let is_early = |link: &LinkView| !is_held_back && link.delay_us < far_us - ALIKE_US;
        let others = in_order.clone().filter(|link| !is_early(link));
        let Some(link) = others.clone().find(|link| link.has_credit(now)).or_else(|| {
            let early = in_order.clone().find(|link| link.has_credit(now))?;
            let free_at = others.clone().map(|link| link.free_at).min()?;
            // Nobody else could have the early link.
            let is_alone = head.tier != Tier::Bulk || head.backlog_bytes <= head.bytes;
            (!is_alone && !self.waits.may_begin(free_at, now)).then_some(early)
        }) else {
            return Some(wait(head, others));
        };
        flow.arrives_us = flow.arrives_us.max(sent_arrives_us(head, link, now));
        if head.tier == Tier::Bulk
            && !fast.includes(link)
            && now.saturating_since(flow.last) >= LOOKS
            && fast.are_full(in_order, now)
        {
            flow.go_on(link, far_us, now);
        }
        Some(Decision::Send(link.id))
    }

    /// Whether `flow` is known, or there is room for it.
    fn has_room(&mut self, flow: FlowId, now: Instant) -> bool {
        if self.flows.len() < FLOWS_MAX || self.flows.contains_key(&flow) {
            return true;
        }
        if self.swept_at.is_some_and(|at| now.saturating_since(at) < SWEEPS) {
            return false;
        }
        self.swept_at = Some(now);
        self.flows.retain(|_, flow| !flow.is_over(now));
        self.flows.len() < FLOWS_MAX
    }

    /// A bulk packet goes over `link`: its flow is spread if that is not one of the fast links.
    pub(super) fn begin<'a>(
        &mut self,
        head: &Queued,
        link: LinkId,
        mut in_order: impl Iterator<Item = &'a LinkView> + Clone,
        now: Instant,
    ) {
        let Some(fast) = Fast::among(in_order.clone()) else { return };
        let Some(link) = in_order.find(|view| view.id == link).filter(|link| !fast.includes(link)) else {
            return;
        };
        if !self.has_room(head.flow, now) {
            return;
        }
        let arrives_us = sent_arrives_us(head, link, now);
        let fresh = Flow { since: now, last: now, far: link.id, far_at: now, arrives_us, until: None };
        let flow = self.flows.entry(head.flow).or_insert(fresh);
        if flow.is_over(now) {
            *flow = fresh;
        }
        // Until it is spread, its far link is the last slow one.
        flow.go_on(link, i64::MIN, now);
        flow.arrives_us = flow.arrives_us.max(arrives_us);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scheduler as _;
    use super::super::adaptive::Adaptive;
    use super::super::tests::{NOW, head, link};
    use super::*;
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
                    Decision::NoLink => panic!("links are up"),
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
    fn in_a_lull_a_flow_that_was_spread_stays_off_the_fast_link() {
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
            // One that comes right after another goes as quickly over the fast link: it has to wait for that one.
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
        let arrives =
            |links: &Links, link: u8| arrival_us(links.now, links.views[usize::from(link)].delay_us);
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
    fn a_spread_flow_does_not_wait_for_the_fast_link_while_it_needs_more_than_that() {
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

    #[test]
    fn the_flows_that_are_looked_at_are_bounded_and_those_that_are_over_make_room() {
        let views = [link(0, 10, 20), link(1, 70, 80)];
        let mut spread = Spread::default();
        for flow in 1..=1_000 {
            spread.begin(&Queued { flow: FlowId(flow), ..head(FULL) }, LinkId(1), views.iter(), NOW);
        }
        assert_eq!(spread.flows.len(), FLOWS_MAX);
        let late = Queued { flow: FlowId(2_000), ..head(FULL) };
        spread.begin(&late, LinkId(1), views.iter(), NOW + MS * 1_000);
        assert!(spread.flows.contains_key(&FlowId(2_000)) && spread.flows.len() == 1);
    }
}
