//! What links carry together, and how far that varies.

use std::time::Duration;

use crate::link::Link;
use crate::scheduler::Service;
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::LinkState;

/// The queue may stand for this time, times how far the links' rate is from its mean, relative.
/// Chosen: it is all that the queue grants for delays (60 ms) at a deviation of 12 %, and next to
/// nothing on steady links.
const CAPACITY_DIP: Duration = Duration::from_millis(500);

/// A link that failed may be back within this time; meanwhile the queue of the remaining links may
/// stand for as long as they need to carry what would fill the failed one. Chosen: radios and
/// handovers are out for seconds.
const OUTAGE: Duration = Duration::from_secs(30);

/// What the links in use carry together, and whether one of them is still finding out.
pub(super) fn drain_rate(links: &[Link], now: Instant) -> (Option<BitRate>, bool) {
    let service = service(links);
    let serves = |link: &&Link| service.is_some_and(|kind| kind.includes(link.state(), link.link_role()));
    let serving = || links.iter().filter(serves);
    let bps: u64 = serving().map(|link| link.likely_capacity(now).as_bps()).sum();
    let is_starting = serving().any(|link| link.is_starting(now));
    (Some(bps).filter(|bps| *bps > 0).map(BitRate::from_bps), is_starting)
}

/// How long the queue may stand because the links' rate varies, and because some links are out.
pub(super) fn dip(links: &[Link], now: Instant) -> Duration {
    let service = service(links);
    let (mut carried, mut varying, mut missing_bits) = (0.0, 0.0, 0.0);
    for link in links {
        if service.is_some_and(|kind| kind.includes(link.state(), link.link_role())) {
            let rate = link.likely_capacity(now).as_bps() as f64;
            carried += rate;
            varying += rate * link.volatility(now);
        } else if link.state() != LinkState::Up {
            missing_bits += link.full_bits(OUTAGE, now);
        }
    }
    if carried <= 0.0 {
        return Duration::ZERO;
    }
    CAPACITY_DIP.mul_f64((varying / carried).min(1.0))
        + Duration::from_secs_f64((missing_bits / carried).min(1.0))
}

/// What streams keep waiting, beside the difference of the links' delays. Chosen: a few turns of
/// the event loop, and of the sockets that the bytes come from.
const BACKLOG: Duration = Duration::from_millis(20);

/// The longest round trip of the links in use, and how many bytes keep all of them busy: a far link
/// is worth its delay only where so much waits that the nearer ones would take longer.
pub(super) fn stream_backlog(links: &[Link], now: Instant) -> (Duration, usize) {
    let service = service(links);
    let serves = |link: &&Link| service.is_some_and(|kind| kind.includes(link.state(), link.link_role()));
    let rounds = links.iter().filter(serves).map(Link::rtt).filter(|rtt| !rtt.is_zero());
    let (least, longest) = (rounds.clone().min().unwrap_or_default(), rounds.max().unwrap_or_default());
    let span = BACKLOG + (longest - least) / 2;
    let bps = drain_rate(links, now).0.map_or(0, BitRate::as_bps);
    let bytes = u128::from(bps) / 8 * span.as_micros() / 1_000_000;
    (longest, usize::try_from(bytes).unwrap_or(usize::MAX))
}

fn service(links: &[Link]) -> Option<Service> {
    Service::of(links.iter().map(|link| (link.state(), link.link_role())))
}
