//! What the resequencer is told about each link: its delay, and whether a missing packet may still
//! come over it. A link that carries nothing is waited for only where it could carry the next
//! packet: not a backup link beside others, and not a link so slow that the wait ends before its
//! packet arrives.

use std::time::Duration;

use crate::limits::{HOLD_MAX, RESEND_HOLD_MAX};
use crate::link::Link;
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

/// Fills `delays`, one for each link.
pub(super) fn refresh(delays: &mut Vec<LinkDelay>, links: &[Link], now: Instant) {
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
