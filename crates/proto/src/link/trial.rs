//! Over how many UDP flows a link sends: trials of more where the carrier may police each for
//! itself.
//!
//! ```text
//!            a ceiling without a queue, under load             all are live
//! Settled ──────────────────────────────────────────► Opening ──────────────► Trying
//!    ▲                                                   │                      │
//!    ├────────────── not more flows within 2 s ──────────┘                      │
//!    └── after 2 s of load: kept where clearly more arrives; else fewer again ──────────┤
//!                           Opening ◄── sooner, where it rises as the flows do ─┘
//! ```
//! A trial doubles the flows, up to eight. The reason is a policer that the congestion control
//! found twice within some seconds or goes on to find, or loss without a queue in half of the last
//! two seconds. While a trial runs the control searches as it always does, so that the trial costs
//! no more than a search. It is judged by what arrives: the best half second of the trial against
//! the best of the ten seconds before. Time in which the link is not used to the full, and loses
//! nothing, says nothing and does not count: a TCP connection takes seconds to find what is there.
//! A failed trial is repeated after 30 s, and then after twice as long each time, up to 16 min; a
//! load that ends makes it void.
//!
//! It knows no addresses: [`crate::link::path::flows`] says which flows deliver. A fixed number is
//! never tried; the side that it is configured on tells the other.

use std::time::Duration;

use crate::config::UdpFlows;
use crate::limits::UDP_FLOWS_MAX;
use crate::time::Instant;
use crate::units::BitRate;
use crate::wire::heartbeat::WantedFlows;

/// More flows are waited for this long. Chosen: some heartbeats on each.
const OPENING: Duration = Duration::from_secs(2);
/// A trial takes so many parts in which the link is used, two seconds. Chosen: a search doubles a
/// rate within half of it.
const TRIAL_PARTS: u8 = 8;
/// A trial takes no longer than this. Chosen: TCP's growth over far links.
const TRIAL_MAX: Duration = Duration::from_secs(20);
/// Flows pay where so many times as much arrives. Chosen: a bucket that filled up meanwhile, of 64
/// kB at 8 Mbit/s, is an eighth of half a second.
const PAYS: f64 = 1.25;
/// Of the rise in proportion to the flows, this share asks for more flows at once. Chosen: the link
/// itself is near where less comes.
const PROPORTIONAL: f64 = 0.7;
/// Pauses after a failed trial: the first, and the longest. Chosen: a trial costs a search's loss.
const PAUSE_MIN: Duration = Duration::from_secs(30);
/// See [`PAUSE_MIN`].
const PAUSE_MAX: Duration = Duration::from_secs(960);
/// After flows were kept, or the load ended, the next trial waits for this. Chosen: the control
/// settles within it.
const SETTLE: Duration = Duration::from_secs(10);

/// Two findings of a policer no further apart than this are one policer's, and a finding counts for
/// as long. Chosen: the control searches every 8 s at least.
const SERIES: Duration = Duration::from_secs(12);
/// A finding that stands for this long is not one of chance. Chosen: a cut is tested within it.
const STANDS: Duration = Duration::from_secs(2);
/// A finding counts for this long. Chosen: above the distance of two parts' ends.
const FRESH: Duration = Duration::from_secs(2);

/// What arrives is measured in parts of this length. Chosen: some feedback of a slow link.
const PART: Duration = Duration::from_millis(250);
/// So many parts are remembered.
const PARTS: usize = 8;
/// The best of as many spans of so many parts is remembered. Chosen: ten seconds.
const PEAKS: usize = 5;
/// So many lossy parts of those that are remembered are loss for a reason. Chosen: half of them.
const LOSSY_PARTS: usize = 4;
/// The least loss of a lossy part, permille ... Chosen: what the control takes for a policer's.
const LOSSY_PERMILLE: u64 = 50;
/// ... and bytes. Chosen: less than four datagrams are chance.
const LOSSY_BYTES: u64 = 6_000;

/// What the peer told of a link, and what the congestion control makes of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Bytes delivered and lost in all.
    pub(super) delivered: u64,
    pub(super) lost: u64,
    /// A queue stands.
    pub(super) has_queue: bool,
    /// The link is used to what it is taken to carry.
    pub(super) is_busy: bool,
    /// When loss without a queue last said what the link carries, if nothing else did since.
    pub(super) policed_at: Option<Instant>,
}

/// A part of the course.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    kbps: u32,
    has_queue: bool,
    /// The link was used to what it is taken to carry.
    is_busy: bool,
    /// Much was lost, without a queue.
    is_lossy: bool,
}

impl Part {
    /// It tells what the link carries.
    const fn counts(self) -> bool {
        self.is_busy || self.is_lossy
    }
}

/// What arrived lately.
#[derive(Debug, Clone, Copy, Default)]
struct Course {
    /// The newest first; so many ended.
    parts: [Part; PARTS],
    ended: usize,
    /// The most in two parts in a row, kbit/s, of each of the last spans of [`PARTS`] parts; the
    /// newest first.
    peaks_kbps: [u32; PEAKS],
    /// Where the present part began: when, and delivered and lost up to then.
    from: Option<(Instant, u64, u64)>,
    had_queue: bool,
}

impl Course {
    /// Takes an observation. The part that ended with it.
    fn on_observation(&mut self, seen: &Seen, now: Instant) -> Option<Part> {
        let &mut (from, delivered, lost) = self.from.get_or_insert((now, seen.delivered, seen.lost));
        self.had_queue |= seen.has_queue;
        let span = now.saturating_since(from);
        if span < PART {
            return None;
        }
        let arrived = seen.delivered.saturating_sub(delivered);
        let lost = seen.lost.saturating_sub(lost);
        let rate = BitRate::from_bytes_over(arrived, span).as_bps() / 1_000;
        let is_much = lost >= LOSSY_BYTES && lost * 1_000 >= (arrived + lost) * LOSSY_PERMILLE;
        let part = Part {
            kbps: u32::try_from(rate).unwrap_or(u32::MAX),
            has_queue: self.had_queue,
            // After a pause, what was used before it says nothing.
            is_busy: seen.is_busy && span < PART * 2,
            is_lossy: is_much && !self.had_queue,
        };
        (self.from, self.had_queue) = (Some((now, seen.delivered, seen.lost)), false);
        self.push(part);
        Some(part)
    }

    fn push(&mut self, part: Part) {
        if self.ended.is_multiple_of(PARTS) {
            self.peaks_kbps.rotate_right(1);
            self.peaks_kbps[0] = 0;
        }
        let before_kbps = if self.ended > 0 { self.parts[0].kbps } else { 0 };
        self.parts.rotate_right(1);
        self.parts[0] = part;
        self.peaks_kbps[0] = self.peaks_kbps[0].max(before_kbps / 2 + part.kbps / 2);
        self.ended += 1;
    }

    /// The most that arrived in two parts in a row, kbit/s.
    fn best_kbps(&self) -> u32 {
        self.peaks_kbps.into_iter().max().unwrap_or(0)
    }

    /// Whether the newest part tells what the link carries.
    const fn counts(&self) -> bool {
        self.parts[0].counts()
    }

    fn is_lossy(&self) -> bool {
        self.parts.iter().filter(|part| part.is_lossy).count() >= LOSSY_PARTS
            && self.parts.iter().all(|part| !part.has_queue)
    }
}

/// The findings of a policer.
#[derive(Debug, Clone, Copy, Default)]
struct Findings {
    last_at: Option<Instant>,
    /// When there was reason for a trial.
    sure_at: Option<Instant>,
}

impl Findings {
    fn on_observation(&mut self, seen: &Seen, now: Instant) {
        let Some(at) = seen.policed_at else { return };
        let before = self.last_at.replace(at);
        let is_series = before.is_some_and(|before| before < at && at.saturating_since(before) <= SERIES);
        if is_series || (seen.is_busy && now.saturating_since(at) >= STANDS) {
            self.sure_at = Some(now);
        }
    }

    fn is_sure(&self, now: Instant) -> bool {
        self.sure_at.is_some_and(|at| now.saturating_since(at) <= FRESH)
    }
}

/// More flows carry data.
#[derive(Debug, Clone, Copy)]
struct Trying {
    since: Instant,
    /// So many do.
    live: u8,
    /// The most that arrived before, and since, kbit/s.
    before_kbps: u32,
    best_kbps: u32,
    /// Parts in which the link was used.
    parts: u8,
}

impl Trying {
    fn rise(&self) -> f64 {
        f64::from(self.best_kbps) / f64::from(self.before_kbps.max(1))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.parts >= TRIAL_PARTS || now.saturating_since(self.since) > TRIAL_MAX
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Settled,
    /// More flows are asked for. What arrived before, at best, kbit/s.
    Opening {
        since: Instant,
        before_kbps: u32,
    },
    Trying(Trying),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Trial {
    configured: UdpFlows,
    /// What the peer asks for.
    peer: Option<WantedFlows>,
    /// Flows that paid, and as many as were told of.
    count: u8,
    told_count: u8,
    state: State,
    course: Course,
    findings: Findings,
    pause: Duration,
    /// No trial before this.
    resumes_at: Instant,
}

impl Trial {
    pub(super) fn new(configured: UdpFlows) -> Self {
        Self {
            configured,
            peer: None,
            count: 1,
            told_count: 1,
            state: State::Settled,
            course: Course::default(),
            findings: Findings::default(),
            pause: PAUSE_MIN,
            resumes_at: Instant::ZERO,
        }
    }

    /// The most flows that the link may have.
    const fn most(&self) -> u8 {
        match self.configured {
            UdpFlows::Auto => UDP_FLOWS_MAX,
            UdpFlows::Fixed(count) => count,
        }
    }

    /// The number that is not tried, if there is one.
    fn fixed(&self) -> Option<u8> {
        match (self.configured, self.peer) {
            (UdpFlows::Fixed(count), _) => Some(count),
            (UdpFlows::Auto, Some(WantedFlows { count, is_fixed: true })) => Some(count.min(UDP_FLOWS_MAX)),
            (UdpFlows::Auto, _) => None,
        }
    }

    /// Over how many flows this side sends data, as far as they are live.
    pub(super) fn used(&self) -> u8 {
        let tried = match self.state {
            State::Settled => self.count,
            State::Opening { .. } | State::Trying(_) => (self.count * 2).min(self.most()),
        };
        self.fixed().unwrap_or(tried)
    }

    /// How many flows this side keeps alive.
    pub(super) fn asked(&self) -> u8 {
        let peer = self.peer.map_or(1, |peer| peer.count.min(self.most()));
        self.used().max(peer)
    }

    /// What the peer is told.
    pub(super) fn told(&self) -> Option<WantedFlows> {
        match self.configured {
            UdpFlows::Fixed(count) => Some(WantedFlows { count, is_fixed: true }),
            UdpFlows::Auto => {
                let count = self.used();
                let is_asking = count > 1 && self.fixed().is_none();
                is_asking.then_some(WantedFlows { count, is_fixed: false })
            }
        }
    }

    /// From how many flows to how many it went, if that was not told yet.
    pub(super) fn take_change(&mut self) -> Option<(u8, u8)> {
        let before = std::mem::replace(&mut self.told_count, self.count);
        (before != self.count).then_some((before, self.count))
    }

    /// The peer's heartbeat asks for so many.
    pub(super) const fn on_peer(&mut self, wanted: Option<WantedFlows>) {
        self.peer = wanted;
    }

    /// What was delivered before says nothing about what will be. What paid is kept.
    pub(super) fn on_restart(&mut self) {
        self.state = State::Settled;
        (self.course, self.findings) = (Course::default(), Findings::default());
    }

    /// Time has passed, perhaps without an answer.
    pub(super) fn on_time(&mut self, now: Instant) {
        match self.state {
            State::Opening { since, .. } if now.saturating_since(since) > OPENING => self.fail(now),
            State::Trying(trying) => self.judge(&trying, now),
            State::Settled | State::Opening { .. } => {}
        }
    }

    /// Takes an observation of a link of whose flows `live` carry data. Whether the control is to
    /// search for more.
    pub(super) fn on_observation(&mut self, seen: &Seen, live: u8, now: Instant) -> bool {
        if self.fixed().is_some() {
            return false;
        }
        let part = self.course.on_observation(seen, now);
        self.findings.on_observation(seen, now);
        match (self.state, part) {
            (State::Settled, Some(_)) if self.has_reason(now) => {
                self.state = State::Opening { since: now, before_kbps: self.course.best_kbps() };
            }
            (State::Opening { since, before_kbps }, _) => {
                let is_late = now.saturating_since(since) >= OPENING;
                if live >= self.used() || (is_late && live > self.count) {
                    self.course = Course::default();
                    let trying = Trying { since: now, live, before_kbps, best_kbps: 0, parts: 0 };
                    self.state = State::Trying(trying);
                    return true;
                }
                self.on_time(now);
            }
            (State::Trying(mut trying), Some(part)) => {
                trying.best_kbps = trying.best_kbps.max(self.course.best_kbps());
                trying.parts += u8::from(part.counts());
                self.state = State::Trying(trying);
                self.judge(&trying, now);
            }
            (State::Settled, _) | (State::Trying(_), None) => {}
        }
        false
    }

    fn has_reason(&self, now: Instant) -> bool {
        now >= self.resumes_at
            && self.count < self.most()
            && self.course.counts()
            && (self.findings.is_sure(now) || self.course.is_lossy())
    }

    /// Judges a trial by what it brought so far.
    fn judge(&mut self, trying: &Trying, now: Instant) {
        let flows = f64::from(trying.live) / f64::from(self.count);
        if trying.live >= self.used() && trying.rise() >= 1.0 + (flows - 1.0) * PROPORTIONAL {
            self.keep(now);
            if self.count < self.most() {
                self.state = State::Opening { since: now, before_kbps: trying.best_kbps };
            }
        } else if !trying.is_over(now) {
            // It goes on.
        } else if trying.rise() >= PAYS {
            self.keep(now);
        } else if trying.parts >= TRIAL_PARTS / 2 {
            self.fail(now);
        } else {
            self.on_restart();
            self.resumes_at = now + SETTLE;
        }
    }

    /// As many flows as are used now pay.
    fn keep(&mut self, now: Instant) {
        self.count = self.used();
        self.on_restart();
        self.pause = PAUSE_MIN;
        self.resumes_at = now + SETTLE;
    }

    fn fail(&mut self, now: Instant) {
        self.on_restart();
        self.resumes_at = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests;
