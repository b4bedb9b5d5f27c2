//! Feedback about this link that goes over another one.
//!
//! Feedback takes the way back of the link that it describes. Where that way loses for a while and the way out does not, the sender would take a
//! link for silent that delivers all. So a side that has doubts (its heartbeat says that it has no proof of both directions) is
//! told over another link too: at once, and with each feedback for [`RELAYED_FOR`]. As long as it knows of its datagrams' arrival only by that
//! way, its heartbeats go on saying so.
//!
//! What is relayed keeps a link that is up or suspect, and brings none back: one that failed needs both directions. Nor does it keep a link whose way
//! back is dead: the other side has no proof of it then, counts it as failed after 11 intervals, and says so.
//!
//! **Silence.** The receiver of a link's data knows first that nothing comes any more. Where a link was in steady use and then is silent for
//! [`SILENT_MIN`], it tells so over another one: feedback as ever, whose hold says for how long nothing
//! has followed the largest datagram; again after each [`SILENT_STEP`], [`SILENT_TIMES`] in all. The sender knows what it sent after
//! that datagram and when. If data, over a span of [`OVERDUE_SPAN`] at least, should have been there for [`OVERDUE_MIN`] (or four deviations of
//! the round trip), the link is suspect: half a round trip and its own patience sooner than by waiting for an answer. A link whose
//! sender left it, or one that pauses often, raises no alarm. One that stands still for 60 ms, or whose way becomes so much longer, does; that costs what is sent twice, for the next
//! answer brings the link back.
//!
//! Both sides have both halves of this. It does not know which other link is taken.

use std::time::Duration;

use super::feedback::Report;
use super::{Link, LinkState, Security};
use crate::time::Instant;
use crate::wire::heartbeat::Heartbeat;

/// Two heartbeats of a sender that still has doubts, one of which may be lost.
const RELAYED_FOR: Duration = Duration::from_millis(250);

/// A receiver tells of silence after so long, and again so often.
const SILENT_MIN: Duration = Duration::from_millis(40);
const SILENT_STEP: Duration = Duration::from_millis(20);
const SILENT_TIMES: u8 = 3;
/// Its sender believes it of data that should have been there for so long, sent over so long.
const OVERDUE_MIN: Duration = Duration::from_millis(30);
const OVERDUE_SPAN: Duration = Duration::from_millis(5);

/// What is told over another link, and what is heard so.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Relay {
    /// The peer is told over another link too, until then; and now.
    until: Instant,
    is_due: bool,
    /// The newest that we know of what we sent came over another link.
    is_relayed: bool,
    /// The peer takes what is told over another link.
    peer_takes: bool,
    /// So often was told that nothing came after this.
    silent: (Instant, u8),
}

impl Relay {
    /// The peer is told over this link.
    pub(super) fn on_report(&mut self, now: Instant) {
        self.is_due |= now < self.until;
    }

    /// The link itself answered.
    pub(super) const fn on_answer(&mut self) {
        self.is_relayed = false;
    }

    /// News came over another link.
    pub(super) const fn on_relayed(&mut self) {
        self.is_relayed = true;
    }
}

impl Link {
    /// Whether both directions are known to deliver.
    pub(super) fn is_proven(&self) -> bool {
        self.state() == LinkState::Up && !self.health.is_in_doubt() && !self.relay.is_relayed
    }

    /// The peer's heartbeat says whether it has doubts.
    pub(super) fn note_doubt(&mut self, heartbeat: &Heartbeat, now: Instant) {
        self.relay.peer_takes = heartbeat.relayed && self.security == Security::Sealed;
        if self.relay.peer_takes && !heartbeat.proven && self.health.takes_relayed() {
            self.relay.until = now + RELAYED_FOR;
            self.relay.is_due = true;
        }
    }

    /// Whether it was in steady use, and its silence since is not told of as often as it may be: a tenth of a second later it is.
    pub fn may_fall_silent(&self) -> bool {
        let (told_of, times) = self.relay.silent;
        let steady_until = self.arrivals.steady_until().filter(|_| self.relay.peer_takes);
        steady_until.is_some_and(|last_at| told_of != last_at || times < SILENT_TIMES)
    }

    /// Is this link silent? What happened before `looking_since` is not known.
    pub fn note_silence(&mut self, looking_since: Instant, now: Instant) {
        let Some(last_at) = self.arrivals.steady_until().filter(|_| self.relay.peer_takes) else { return };
        let (told_of, times) = self.relay.silent;
        let times = if told_of == last_at { times } else { 0 };
        let silent = now.saturating_since(last_at.max(looking_since));
        if times < SILENT_TIMES && silent >= SILENT_MIN + SILENT_STEP * u32::from(times) {
            self.relay.silent = (last_at, times + 1);
            self.relay.is_due = true;
        }
    }

    /// The peer tells over another link that nothing followed our datagram sent at `largest_at` for `hold`.
    pub(super) fn note_told(&mut self, largest_at: Instant, hold: Duration, now: Instant) {
        let patience = OVERDUE_MIN.max(self.rtt.rttvar() * 4);
        let due_before = (largest_at + hold).saturating_sub(patience);
        let is_silent = self.sent.first_asked_after(largest_at).is_some_and(|first_at| {
            let later = self.sent.first_asked_after(first_at + OVERDUE_SPAN);
            later.is_some_and(|later_at| later_at <= due_before)
        });
        if is_silent {
            self.health.on_told_silence(&self.rtt, now);
        }
    }

    /// Whether feedback is due over another link.
    pub const fn has_relay(&self) -> bool {
        self.relay.is_due
    }

    /// What is to be told over another link now.
    pub const fn take_relay(&mut self) -> Option<Report> {
        if !std::mem::replace(&mut self.relay.is_due, false) {
            return None;
        }
        self.arrivals.repeat()
    }
}
