//! Whether a link may be used, from proof of delivery.
//!
//! Proof is a sent datagram that the peer is known to have received: a heartbeat that it echoed,
//! or one that its feedback names. Its age counts from when that datagram was *sent*. Bytes that
//! arrive prove nothing about the other direction.
//!
//! ```text
//!        first proof              silence, or no heartbeat proven for long; a send that failed
//! Down ───────────────► Up ───────────────────────────────────────────► Suspect
//!  ▲ │                   ▲                     newer proof                 │ │
//!  │ │                   └──────────────────────────────────────────────── ┘ │
//!  │ └─ first proof after a failure: Suspect, and Up after three and a wait ┘│
//!  └──────── no proof for longer; carrier lost; the peer says so ────────────┘
//! ```
//! **Silence** is about data in flight (sealed links): nothing that was sent after the newest proof
//! is answered within max(1.5 srtt + 4 rttvar + [`ACK_DELAY`], [`SILENCE_MIN`]), *and* nothing was
//! heard for [`SILENCE_MIN`] and two and a half times the usual distance of two feedbacks: where a
//! queue grows answers come later and later, but they come. Before, when an answer is late by
//! [`DOUBT_SLACK`], the peer is asked with heartbeats, and silence takes [`TRIES`] datagrams that
//! were each answered alone if at all. A stall of this host is no silence either: it counts only if
//! it is still there [`CONFIRM`] after it was noticed. A suspect link is probed every 20 ms; the
//! first answer makes it usable again. Without one it is down after three PTO, or [`DOWN_MIN`] if
//! that is longer.
//!
//! **A quiet link** is judged by heartbeats: in the worst regular case proof is as old as two
//! heartbeat intervals, which run out of step, and one RTT; one lost heartbeat in either direction
//! adds an interval and is forgiven.
//!
//! **The way back**: [`super::damping`]. Measured:
//! docs/decisions/0015-when-a-silent-link-is-down.md.

use std::time::Duration;

use super::damping::Damping;
use super::params::{
    ACK_DELAY, ASK_MAX, CONFIRM, DOUBT_QUIET, DOUBT_SLACK, DOWN_MIN, GRANULARITY, PTOS_TO_DOWN, SILENCE_MIN,
    TRIES, TRY_GAP,
};
use crate::link::feedback::delays::RttEstimator;
use crate::time::Instant;
use crate::view::{LinkState, StateCause};

/// State of one link.
#[derive(Debug, Clone)]
pub(in crate::link) struct Health {
    interval: Duration,
    state: LinkState,
    /// When our newest proven datagram was sent, and when we heard of it.
    proven_at: Option<Instant>,
    heard_at: Instant,
    /// The first data that was sent after the newest proof.
    unproven_at: Option<Instant>,
    /// Datagrams since the newest proof, at most one for each [`TRY_GAP`], and the newest.
    tries: u32,
    tried_at: Instant,
    /// Silence was noticed then.
    noticed_at: Option<Instant>,
    /// While suspect: when it is down.
    down_at: Option<Instant>,
    /// The peer said that it failed, and this side did not find that itself.
    is_told: bool,
    carrier: bool,
    damping: Damping,
    /// Why the state is what it is, and how long an answer had been missing when it changed.
    why: (StateCause, Duration),
}

impl Health {
    /// A link without proof, measured every `interval`.
    pub(in crate::link) const fn new(interval: Duration) -> Self {
        Self {
            interval,
            state: LinkState::Down,
            proven_at: None,
            heard_at: Instant::ZERO,
            unproven_at: None,
            tries: 0,
            tried_at: Instant::ZERO,
            noticed_at: None,
            down_at: None,
            is_told: false,
            carrier: true,
            damping: Damping::new(),
            why: (StateCause::New, Duration::ZERO),
        }
    }

    /// The link is measured every `interval` from now on.
    pub(in crate::link) const fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// The state as of the last call of any `on_*`.
    pub(in crate::link) const fn state(&self) -> LinkState {
        self.state
    }

    /// Why the state is what it is, and how long an answer had been missing when it changed.
    pub(in crate::link) const fn why(&self) -> (StateCause, Duration) {
        self.why
    }

    /// When the newest datagram was sent that is known to have arrived.
    pub(in crate::link) const fn proven_at(&self) -> Option<Instant> {
        self.proven_at
    }

    /// It was up once, and is down for a reason that this side found. What the peer told is not
    /// told back: the peer would take it for another failure.
    pub(in crate::link) fn has_failed(&self) -> bool {
        self.damping.has_failed() && self.state == LinkState::Down && !self.is_told
    }

    /// It failed and is proven again, but must wait, for it flaps.
    pub(in crate::link) fn only_waits(&self) -> bool {
        self.state == LinkState::Suspect && self.damping.only_waits()
    }

    /// It need not wait any longer.
    pub(in crate::link) fn end_wait(&mut self, now: Instant) {
        self.damping.end_wait(now);
        self.state = LinkState::Up;
    }

    /// Whether news of what arrived counts that came over another link: it keeps a link, and brings
    /// no link back.
    pub(in crate::link) fn takes_indirect(&self) -> bool {
        !self.damping.has_failed() && self.state != LinkState::Down
    }

    /// Whether the link is to be asked more often than usual.
    pub(in crate::link) const fn is_urgent(&self) -> bool {
        match self.state {
            LinkState::Up => self.is_in_doubt(),
            // One that is proven, and only has to wait, is in no hurry.
            LinkState::Suspect => self.damping.wants_proof(),
            LinkState::Down => false,
        }
    }

    /// An answer is late: the peer is to be asked.
    pub(in crate::link) const fn is_in_doubt(&self) -> bool {
        self.noticed_at.is_some()
    }

    /// Data that the peer is to answer goes out.
    pub(in crate::link) fn on_asked(&mut self, now: Instant) {
        self.unproven_at.get_or_insert(now);
        self.on_try(now);
    }

    /// A datagram goes out that the peer is to answer, data or not.
    pub(in crate::link) fn on_try(&mut self, now: Instant) {
        if self.tries < TRIES && now.saturating_since(self.tried_at) >= TRY_GAP {
            self.tries += 1;
            self.tried_at = now;
        }
    }

    /// Our datagram sent at `sent_at` is known to have arrived. `unproven_at`: the first data that
    /// was sent later. Older than what is known: no news. Whether the link is back after a failure.
    pub(in crate::link) fn on_proof(
        &mut self,
        sent_at: Instant,
        unproven_at: Option<Instant>,
        now: Instant,
    ) -> bool {
        if self.proven_at.is_some_and(|known| sent_at <= known) {
            return false;
        }
        let was_up = self.state == LinkState::Up;
        let heard_ago = now.saturating_since(self.heard_at);
        self.proven_at = Some(sent_at);
        self.heard_at = now;
        self.unproven_at = unproven_at;
        self.tries = 0;
        self.noticed_at = None;
        self.damping.on_proof();
        if !self.carrier {
            return false;
        }
        if !was_up {
            self.why = (StateCause::Answered, heard_ago);
        }
        self.down_at = None;
        let is_down = self.state == LinkState::Down;
        if !self.damping.has_failed() {
            if is_down {
                self.damping.on_up(now);
            }
            self.state = LinkState::Up;
            return false;
        }
        if is_down {
            self.state = LinkState::Suspect;
            self.is_told = false;
        }
        let is_back = self.damping.try_return(is_down, now);
        if is_back {
            self.state = LinkState::Up;
        }
        is_back
    }

    /// Time has passed. `gap`: how far apart feedback usually comes.
    pub(in crate::link) fn on_time(&mut self, rtt: &RttEstimator, gap: Duration, now: Instant) {
        // After a long time several changes may be due.
        loop {
            let before = (self.state, self.noticed_at);
            self.step(rtt, gap, now);
            if before == (self.state, self.noticed_at) {
                return;
            }
        }
    }

    fn step(&mut self, rtt: &RttEstimator, gap: Duration, now: Instant) {
        match self.state {
            LinkState::Up => {
                if self.overdue_at(rtt).is_some_and(|at| now >= at) {
                    let down_at = self.proven_at.unwrap_or(now) + self.down_after(rtt);
                    self.suspect(down_at, StateCause::HeartbeatsUnanswered, now);
                } else if let Some(noticed_at) = self.noticed_at {
                    if self.silent_at(rtt, gap, noticed_at).is_some_and(|at| now >= at) {
                        self.suspect(now + down_after_silence(rtt), StateCause::DataUnanswered, now);
                    }
                } else if self.doubt_at(rtt, gap).is_some_and(|at| now >= at) {
                    self.noticed_at = Some(now);
                }
            }
            LinkState::Suspect => {
                if self.lost_at(rtt).is_some_and(|at| now >= at) {
                    self.fail(self.still_missing(), now);
                }
            }
            LinkState::Down => {}
        }
    }

    /// The peer says that nothing comes over the link.
    pub(in crate::link) fn on_told_silence(&mut self, rtt: &RttEstimator, now: Instant) {
        if self.state == LinkState::Up {
            self.suspect(now + down_after_silence(rtt), StateCause::NothingArrives, now);
        }
    }

    /// The system refused to send on the link.
    pub(in crate::link) fn on_send_failed(&mut self, rtt: &RttEstimator, now: Instant) {
        if self.state == LinkState::Up {
            self.suspect(now + down_after_silence(rtt), StateCause::SendRefused, now);
        }
    }

    /// The interface lost its carrier or has it again.
    pub(in crate::link) fn on_carrier(&mut self, carrier: bool, now: Instant) {
        self.carrier = carrier;
        if !carrier {
            self.fail(StateCause::CarrierLost, now);
        }
    }

    /// The peer says that the link failed.
    pub(in crate::link) fn on_peer_failure(&mut self, now: Instant) {
        let was_down = self.state == LinkState::Down;
        let was_told = self.is_told;
        self.fail(StateCause::PeerGaveUp, now);
        self.is_told = was_told || !was_down;
    }

    /// The peer was restarted: what was proven is void, but nothing failed.
    pub(in crate::link) fn on_peer_restart(&mut self) {
        *self = Self { carrier: self.carrier, ..Self::new(self.interval) };
    }

    /// When [`Self::on_time`] has something to do next.
    pub(in crate::link) fn poll_timeout(&self, rtt: &RttEstimator, gap: Duration) -> Option<Instant> {
        match self.state {
            LinkState::Up => {
                let silence = match self.noticed_at {
                    Some(noticed_at) => self.silent_at(rtt, gap, noticed_at),
                    None => self.doubt_at(rtt, gap),
                };
                [self.overdue_at(rtt), silence].into_iter().flatten().min()
            }
            LinkState::Suspect => self.lost_at(rtt),
            LinkState::Down => None,
        }
    }

    /// Before this [`Self::on_time`] has nothing to do.
    pub(in crate::link) fn unchanged_until(&self) -> Instant {
        match (self.state, self.noticed_at) {
            // Less than `overdue_at` and `doubt_at` say.
            (LinkState::Up, None) => {
                let overdue_at = self.heard_at + self.interval + self.interval;
                self.unproven_at.map_or(overdue_at, |at| {
                    overdue_at.min((at + ACK_DELAY + DOUBT_SLACK).max(self.heard_at + DOUBT_QUIET))
                })
            }
            (LinkState::Up | LinkState::Suspect | LinkState::Down, _) => Instant::ZERO,
        }
    }

    /// Why a suspect link is down now: what made it suspect goes on.
    const fn still_missing(&self) -> StateCause {
        if matches!(self.why.0, StateCause::New | StateCause::Answered) {
            return StateCause::HeartbeatsUnanswered;
        }
        self.why.0
    }

    /// The state is about to change for this cause.
    fn note(&mut self, cause: StateCause, now: Instant) {
        let unproven_at = self.unproven_at.filter(|_| cause == StateCause::DataUnanswered);
        let since = unproven_at.unwrap_or(self.heard_at);
        self.why = (cause, now.saturating_since(since));
    }

    fn suspect(&mut self, down_at: Instant, cause: StateCause, now: Instant) {
        self.note(cause, now);
        self.state = LinkState::Suspect;
        self.down_at = Some(down_at);
        self.noticed_at = None;
    }

    fn fail(&mut self, cause: StateCause, now: Instant) {
        if self.state != LinkState::Down {
            self.note(cause, now);
        }
        self.down_at = None;
        self.noticed_at = None;
        self.unproven_at = None;
        self.damping.on_failure(self.state == LinkState::Down, now);
        self.state = LinkState::Down;
        self.is_told = false;
    }

    /// When an answer is late enough to ask for one.
    fn doubt_at(&self, rtt: &RttEstimator, gap: Duration) -> Option<Instant> {
        let answered_at = self.unproven_at? + rtt.srtt()? + rtt.rttvar() * 4 + ACK_DELAY + DOUBT_SLACK;
        Some(answered_at.max(self.heard_at + DOUBT_QUIET.max(gap * 5 / 4)))
    }

    /// When a link that is up has been silent for too long, which was noticed at `noticed_at`.
    fn silent_at(&self, rtt: &RttEstimator, gap: Duration, noticed_at: Instant) -> Option<Instant> {
        let patience = rtt.srtt()? * 3 / 2 + rtt.rttvar() * 4 + ACK_DELAY;
        let answered_at = self.unproven_at? + patience.max(SILENCE_MIN);
        if self.tries < TRIES {
            return None;
        }
        let asked = rtt.srtt()? * 5 / 4 + CONFIRM;
        let confirmed_at = noticed_at + if asked <= ASK_MAX { asked } else { CONFIRM };
        let confirmed_at = confirmed_at.max(self.tried_at + CONFIRM);
        Some(answered_at.max(self.heard_at + SILENCE_MIN.max(gap * 5 / 2)).max(confirmed_at))
    }

    /// When a link that is up has been without proof for too long.
    fn overdue_at(&self, rtt: &RttEstimator) -> Option<Instant> {
        // Where answers come late but come, a queue grows.
        let quiet_at = self.heard_at + self.interval * 5 / 2;
        Some((self.proven_at? + self.suspect_after(rtt)).max(quiet_at))
    }

    /// When a suspect link is down.
    fn lost_at(&self, rtt: &RttEstimator) -> Option<Instant> {
        // On its way back each proof gives it more time.
        self.down_at.or_else(|| Some(self.heard_at + self.interval + down_after_silence(rtt)))
    }

    /// 3.5 intervals + srtt + 4 × rttvar.
    fn suspect_after(&self, rtt: &RttEstimator) -> Duration {
        self.interval * 7 / 2 + rtt.srtt().unwrap_or_default() + rtt.rttvar() * 4
    }

    /// 10 intervals later than suspect would be without variance: a second and one RTT.
    fn down_after(&self, rtt: &RttEstimator) -> Duration {
        self.suspect_after(rtt).max(self.interval * 10 + rtt.srtt().unwrap_or_default()) + self.interval
    }
}

/// How long a silent link has to answer probes.
fn down_after_silence(rtt: &RttEstimator) -> Duration {
    // RFC 9002 §6.2.1.
    let pto = rtt.srtt().unwrap_or_default() + (rtt.rttvar() * 4).max(GRANULARITY) + ACK_DELAY;
    (pto * PTOS_TO_DOWN).max(DOWN_MIN)
}

#[cfg(test)]
mod tests;
