//! Link selection, packet by packet and as late as possible: a link is chosen when the packet can leave.
//!
//! A policy sees the packet at the head of the queue and a read-only view of each link, and answers with a link or with
//! the time until which waiting is better. It knows no keys, no sockets, no IP headers. Its answer does not depend on the
//! order of the links but for ties, which the lower [`LinkId`] wins.
//!
//! # Roles
//! Every policy keeps to the links' roles ([`LinkRole`]), as `Service` and `are_full` say:
//! - Of four kinds of links the first that has any serves: proven primary and secondary ones; proven backups; suspect
//!   primary and secondary ones; suspect backups. (The least bad link, always: but a backup that is proven is better than
//!   a primary that may be dead.) A link whose role is `never` carries no data, whatever happens to the others.
//! - A secondary link is a candidate only while the primary ones are *full*: none of them has credit, and what waits behind
//!   the head packet would take all of them together longer than 10 ms. Where no primary link serves, that is so.
//!
//! # In step
//! Packets of one flow that take links of very different delay arrive further apart than the receiver waits
//! (`SPREAD_MAX`), and what it gives up its sender takes for lost. So `Step` picks the links for bulk: of all
//! ranges of delay that are no wider than that, the one whose links carry most together. A link that somebody else's queue has made longer may be
//! further away (`RESEND_SPREAD_MAX`) where losses are sent again, as the receiver waits longer there: left alone it would stay as long as it is, with all of
//! it another's.

pub mod adaptive;
mod realtime;
pub mod redundant;
pub mod round_robin;
pub mod score;
mod settle;
mod spread;

pub(crate) use self::realtime::second;

use std::cmp::Reverse;
use std::time::Duration;

use crate::config::Policy;
use crate::limits::{QUANTUM, RESEND_SPREAD_MAX, SPREAD_MAX};
use crate::packet::LinkId;
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::{LinkRole, LinkSet, LinkState, LinkView};

/// A backlog that the primary links clear within this is not worth a secondary one. Ours: below the delay that the queue
/// accepts for good (15 ms), so that what one flow adds to it shows here before the flow is told to slow down.
const SPILL_AFTER: Duration = Duration::from_millis(10);

/// Another range of delays must carry so much more than the present one to replace it, permille.
const STEP_GAIN_PERMILLE: u64 = 1_100;

/// Where the head packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Over this link, now.
    Send(LinkId),
    /// Nowhere before this time, unless something changes: no link that it may take has credit.
    Wait(Instant),
    /// The same by choice: a link has credit, and a better one will still deliver sooner.
    Hold(Instant),
    /// No link is usable.
    NoLink,
}

/// A policy.
pub trait Scheduler: std::fmt::Debug + Send {
    /// Picks the link for `head`.
    fn select(&mut self, head: &Queued, links: &[LinkView], now: Instant) -> Decision;

    /// For how long a link that was selected for a bulk packet may go on with the packets behind it, as long as it has credit, without being
    /// selected anew. Where a packet takes longer than that each is decided alone.
    fn run(&self) -> Duration {
        Duration::ZERO
    }

    /// The other links that are to carry a copy of `head`, which goes over `link` as just selected. Each has credit.
    fn copies(&mut self, head: &Queued, link: LinkId, links: &[LinkView], now: Instant) -> LinkSet {
        let _ = (head, link, links, now);
        LinkSet::NONE
    }
}

/// From when on bulk may go again while its head waits `until` then, and until when to wait: the first link's run, or, where the head's is that, a
/// little later, when a slow link is free, so that both go together.
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

/// The scheduler of a policy.
pub fn of(policy: Policy) -> Box<dyn Scheduler> {
    match policy {
        Policy::Adaptive => Box::new(adaptive::Adaptive::default()),
        Policy::Score => Box::new(score::Score),
        Policy::Redundant => Box::new(redundant::Redundant::default()),
        Policy::RoundRobin => Box::new(round_robin::RoundRobin::default()),
    }
}

/// How much longer the slowest link that may carry bulk takes than the fastest, and the longest round trip of them.
pub(crate) fn bulk_delays(links: &[LinkView]) -> (Duration, Duration) {
    let Some(service) = Service::among(links) else { return Default::default() };
    let serving = links.iter().filter(|link| service.includes_view(link));
    let Some(step) = Step::of(serving.clone(), None) else { return Default::default() };
    let bulk = serving.filter(|link| step.includes(link));
    let slowest_us = bulk.clone().map(|link| link.delay_us).max().unwrap_or(step.from_us);
    let spread_us = slowest_us.saturating_sub(step.from_us);
    let round = bulk.map(|link| link.rtt).max().unwrap_or_default();
    (Duration::from_micros(u64::try_from(spread_us).unwrap_or(0)), round)
}

/// Which links serve at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Service {
    state: LinkState,
    backups: bool,
}

impl Service {
    /// In the order of preference.
    const KINDS: [Self; 4] = [
        Self { state: LinkState::Up, backups: false },
        Self { state: LinkState::Up, backups: true },
        Self { state: LinkState::Suspect, backups: false },
        Self { state: LinkState::Suspect, backups: true },
    ];

    /// The first kind that any of the links is of; `None`: no link is usable.
    pub(crate) fn of(links: impl Iterator<Item = (LinkState, LinkRole)> + Clone) -> Option<Self> {
        Self::KINDS.into_iter().find(|kind| links.clone().any(|(state, role)| kind.includes(state, role)))
    }

    /// The same of views.
    pub(crate) fn among(links: &[LinkView]) -> Option<Self> {
        Self::of(links.iter().filter(|link| link.usable).map(|link| (link.state, link.role)))
    }

    /// Whether a link may be used and is of this kind.
    pub(crate) fn includes_view(self, link: &LinkView) -> bool {
        link.usable && self.includes(link.state, link.role)
    }

    /// Whether a link is of this kind.
    pub(crate) fn includes(self, state: LinkState, role: LinkRole) -> bool {
        state == self.state
            && match role {
                LinkRole::Primary | LinkRole::Secondary => !self.backups,
                LinkRole::Backup => self.backups,
                LinkRole::Never => false,
            }
    }
}

/// Whether these primary links leave work for secondary ones: none has credit, and what waits behind the head would take
/// them too long.
fn are_full<'a>(primaries: impl Iterator<Item = &'a LinkView> + Clone, head: &Queued, now: Instant) -> bool {
    if primaries.clone().next().is_none() {
        return true;
    }
    if primaries.clone().any(|link| link.has_credit(now)) {
        return false;
    }
    let rate: u64 = primaries.map(|link| link.rate.as_bps()).fold(0, u64::saturating_add);
    let behind_bytes = head.backlog_bytes.saturating_sub(head.bytes) as u64;
    BitRate::from_bps(rate).time_to_send(behind_bytes) > SPILL_AFTER
}

/// The links that may carry the head now, as far as roles decide.
fn candidates<'a>(
    links: &'a [LinkView],
    head: &Queued,
    now: Instant,
) -> impl Iterator<Item = &'a LinkView> + Clone {
    let service = Service::among(links);
    let serves = move |link: &&LinkView| service.is_some_and(|kind| kind.includes_view(link));
    let serving = links.iter().filter(serves);
    let full = are_full(serving.clone().filter(|link| link.role == LinkRole::Primary), head, now);
    serving.filter(move |link| full || link.role != LinkRole::Secondary)
}

/// A range of delays no wider than `SPREAD_MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    from_us: i64,
    /// The link with that delay.
    first: LinkId,
}

impl Step {
    /// The range whose links carry most, counted first over those of the first role among `links`; of those that carry
    /// the same, the one of shorter delays. The range that begins with `present` is kept unless another carries a tenth
    /// more. `None`: there are no links.
    pub(crate) fn of<'a>(
        links: impl Iterator<Item = &'a LinkView> + Clone,
        present: Option<LinkId>,
    ) -> Option<Self> {
        let steps = links.clone().map(|link| Self { from_us: link.delay_us, first: link.id });
        let fastest = steps.clone().min_by_key(|step| (step.from_us, step.first))?;
        if links.clone().all(|link| fastest.includes(link)) {
            return Some(fastest);
        }
        let leading = links.clone().map(|link| link.role).min();
        let carried = |step: &Self, role: Option<LinkRole>| -> u64 {
            let counts = |link: &&LinkView| step.includes(link) && role.is_none_or(|role| link.role == role);
            let rates = links.clone().filter(counts).map(|link| link.rate.as_bps());
            let bps = rates.fold(0, u64::saturating_add);
            if Some(step.first) == present { bps.saturating_mul(STEP_GAIN_PERMILLE) / 1_000 } else { bps }
        };
        steps.min_by_key(|step| {
            (Reverse(carried(step, leading)), Reverse(carried(step, None)), step.from_us, step.first)
        })
    }

    /// The link that the range begins with.
    pub(crate) const fn first(self) -> LinkId {
        self.first
    }

    /// Whether a link's delay lies in it.
    pub(crate) fn includes(self, link: &LinkView) -> bool {
        let above_us = link.delay_us.saturating_sub(self.from_us);
        let most = if link.is_shared && link.recovers { RESEND_SPREAD_MAX } else { SPREAD_MAX };
        u64::try_from(above_us).is_ok_and(|above_us| Duration::from_micros(above_us) <= most)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::qos::flow::FlowId;
    use crate::qos::queue::Tier;

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
            recovers: false,
            burst_tenths: 10,
            is_shared: false,
            utilisation_permille: 0,
            rate: BitRate::from_bps(mbit * 1_000_000),
            delay_us: i64::try_from(rtt_ms).unwrap() * 500,
            free_at: NOW,
            header_bytes: 28,
            mtu: 1_500,
        }
    }

    pub(crate) fn head(backlog_bytes: usize) -> Queued {
        Queued { flow: FlowId(1), bytes: 1_400, tier: Tier::Bulk, backlog_bytes, waited: Duration::ZERO }
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
    fn of_links_too_far_apart_those_that_carry_most_together_are_in_step() {
        let mut links = [link(0, 1, 600), link(1, 50, 30), link(2, 50, 40)];
        let step = |links: &[LinkView], present| {
            let step = Step::of(links.iter(), present).unwrap();
            links.iter().filter(|link| step.includes(link)).map(|link| link.id.0).collect::<Vec<_>>()
        };
        assert_eq!(step(&links, None), [1, 2]);
        // A satellite that carries more than the lines beside it, and by how much it must to take over.
        links[0].rate = BitRate::from_bps(105_000_000);
        assert_eq!(step(&links, None), [0]);
        assert_eq!(step(&links, Some(LinkId(1))), [1, 2]);
        links[0].rate = BitRate::from_bps(111_000_000);
        assert_eq!(step(&links, Some(LinkId(1))), [0]);
        // What is as far apart as the receiver waits is in step.
        links[0].delay_us = links[1].delay_us + 120_000;
        assert_eq!(step(&links, None), [0, 1, 2]);
        links[0].delay_us += 1;
        assert_eq!(step(&links, None), [0, 2]);
        // The link with the better role decides, however little it carries.
        links[1].role = LinkRole::Secondary;
        links[2].role = LinkRole::Secondary;
        links[0] = LinkView { role: LinkRole::Primary, ..link(0, 1, 600) };
        assert_eq!(step(&links, None), [0]);
        links[2].delay_us = 200_000;
        assert_eq!(step(&links, None), [0, 2]);
        assert_eq!(Step::of([].iter(), None), None);
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
