//! What the resequencer is told about each link: its delay, and whether a missing packet may still
//! come over it. A link that carries nothing is waited for only where it could carry the next
//! packet: not a backup link beside others, and not a link so slow that the wait ends before its
//! packet arrives.

use std::time::Duration;

use crate::config::Security;
use crate::limits::{HOLD_MAX, RESEND_HOLD_MAX};
use crate::link::Link;
use crate::packet::LinkId;
use crate::recovery::TRIES_MAX;
use crate::reorder::LinkDelay;
use crate::scheduler::Service;
use crate::time::Instant;
use crate::view::{LinkRole, LinkState};

/// What a loss takes to be known to the sender and sent again, beside the round trip. Chosen: three
/// later packets, feedback's spacing, a turn in the other link's credit, and jitter.
const RESEND_SLACK: Duration = Duration::from_millis(40);

/// A link that delivered data this lately carries data. Chosen: longer than any pause of a flow
/// that a person takes for one flow.
const CARRIES: Duration = Duration::from_secs(1);

/// What the resequencers are told about the links.
#[derive(Debug, Default)]
pub(in crate::session) struct ReceiveDelays {
    all: Vec<LinkDelay>,
    /// Where links of both kinds are: the same with those of the other kind not usable, for sealed
    /// links and for plain ones.
    apart: Option<(Vec<LinkDelay>, Vec<LinkDelay>)>,
}

impl ReceiveDelays {
    /// One for each link, for the resequencer of links of this kind.
    pub(in crate::session) fn of(&self, security: Security) -> &[LinkDelay] {
        match (&self.apart, security) {
            (None, _) => &self.all,
            (Some((sealed, _)), Security::Sealed) => sealed,
            (Some((_, plain)), Security::Plain) => plain,
        }
    }

    /// Whether a resequencer may wait for what comes over the link.
    pub(super) fn waits_for(&self, id: LinkId) -> bool {
        self.all.get(id.index()).is_some_and(|delay| delay.usable)
    }

    /// Brings them up to date.
    pub(super) fn refresh(&mut self, links: &[Link], now: Instant) {
        refresh(&mut self.all, links, now);
        let is_sealed = |link: &Link| link.security() == Security::Sealed;
        if !links.iter().any(is_sealed) || links.iter().all(is_sealed) {
            self.apart = None;
            return;
        }
        let (sealed, plain) = self.apart.get_or_insert_default();
        for (delays, sealed) in [(sealed, true), (plain, false)] {
            delays.clone_from(&self.all);
            let others = delays.iter_mut().zip(links).filter(|(_, link)| is_sealed(link) != sealed);
            others.for_each(|(delay, _)| delay.usable = false);
        }
    }
}

/// Fills `delays`, one for each link.
fn refresh(delays: &mut Vec<LinkDelay>, links: &[Link], now: Instant) {
    delays.clear();
    delays.extend(links.iter().map(|link| {
        let (delay_us, jitter_us) = link.rx_delay_us(now);
        let usable = link.state() != LinkState::Down;
        let reorders_by = link.rx_reordering(now).map_or(Duration::ZERO, |(_, time)| time);
        LinkDelay { usable, delay_us, jitter_us, reorders_by, resend: Duration::ZERO }
    }));
    let carries = |link: &Link| link.traffic().data_at().is_some_and(|at| now.saturating_since(at) < CARRIES);
    let service = Service::of(links.iter().map(|link| (link.state(), link.link_role())));
    let serves = |link: &Link| {
        service.is_some_and(|kind| match link.link_role() {
            LinkRole::Primary | LinkRole::Secondary => true,
            role @ (LinkRole::Backup | LinkRole::Never) => kind.includes(link.state(), role),
        })
    };
    let known = links.iter().zip(&*delays).filter(|(_, delay)| delay.usable);
    let fastest = known.filter(|(link, _)| serves(link) || carries(link)).map(|(_, delay)| delay.delay_us);
    let latest_us =
        fastest.min().unwrap_or(0).saturating_add(i64::try_from(HOLD_MAX.as_micros()).unwrap_or(i64::MAX));
    for (link, delay) in links.iter().zip(&mut *delays) {
        delay.usable &= carries(link) || (serves(link) && delay.delay_us <= latest_us);
    }
    // The sender of a link that reorders waits for as long before it takes a packet for lost.
    let usable = links.iter().zip(&*delays).filter(|(_, delay)| delay.usable);
    let round = usable.map(|(link, delay)| link.rtt() + delay.reorders_by).max().unwrap_or_default();
    let round = round + RESEND_SLACK;
    let resend = (round * u32::from(TRIES_MAX)).min(RESEND_HOLD_MAX);
    for (link, delay) in links.iter().zip(&mut *delays) {
        delay.resend = if link.peer_resends() { resend } else { Duration::ZERO };
    }
}
