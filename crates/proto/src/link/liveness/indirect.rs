//! Indirect feedback: feedback about this link that goes over another one.
//!
//! Feedback takes the way back of the link that it describes. Where that way loses for a while and
//! the way out does not, the sender would take a link for silent that delivers everything. So a
//! side that has doubts (its heartbeat says that it has no proof of both directions) is told over
//! another link too: at once, and with each feedback for [`INDIRECT_FOR`]. As long as it knows of
//! its datagrams' arrival only by that way, its heartbeats go on saying so.
//!
//! Indirect feedback keeps a link that is up or suspect, and brings no link back: one that failed
//! needs both directions. Nor does it keep a link whose way back is dead: the other side has no
//! proof of it then, counts it as failed after 11 intervals, and says so.
//!
//! **Silence.** The receiver of a link's data knows first that nothing comes any more. Where a link
//! was in steady use and then is silent for [`SILENT_MIN`], the receiver tells so over another one:
//! feedback whose hold says for how long nothing has followed the largest datagram; again after
//! each [`SILENT_STEP`], [`SILENT_TIMES`] in all. If data that was sent later, over a span of
//! `OVERDUE_SPAN` at least, should have been there for `OVERDUE_MIN` (or four deviations of the
//! round trip) and for what it reorders by, the link is suspect. A link that its sender left, or
//! that pauses often, raises no alarm. One that stands still for 60 ms, or whose way becomes so
//! much longer, does; that costs what is sent twice, for the next answer brings the link back.
//!
//! Both sides have both halves of this. It does not know which other link is taken.

use super::params::{INDIRECT_FOR, SILENT_MIN, SILENT_STEP, SILENT_TIMES};
use crate::time::Instant;

/// What is told over another link, and what is heard so.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::link) struct Indirect {
    /// The peer is told over another link too, until then; and now.
    until: Instant,
    is_due: bool,
    /// The newest that is known of what was sent came over another link.
    is_indirect: bool,
    /// The peer takes what is told over another link.
    peer_takes: bool,
    /// So often was told that nothing came after this.
    silent: (Instant, u8),
}

impl Indirect {
    /// The peer is told over this link.
    pub(in crate::link) fn on_report(&mut self, now: Instant) {
        self.is_due |= now < self.until;
    }

    /// The link itself answered.
    pub(in crate::link) const fn on_answer(&mut self) {
        self.is_indirect = false;
    }

    /// News came over another link.
    pub(in crate::link) const fn on_indirect_news(&mut self) {
        self.is_indirect = true;
    }

    /// Deliveries are known from another link only.
    pub(super) const fn knows_only_indirectly(&self) -> bool {
        self.is_indirect
    }

    /// The peer's heartbeat says whether it takes indirect feedback, and whether it has proof of
    /// both directions. `is_takable`: the link is one that indirect feedback keeps.
    pub(super) fn on_heartbeat(&mut self, takes: bool, is_proven: bool, is_takable: bool, now: Instant) {
        self.peer_takes = takes;
        if takes && !is_proven && is_takable {
            self.until = now + INDIRECT_FOR;
            self.is_due = true;
        }
    }

    /// Whether the link, in steady use until `steady_until`, may fall silent without being told of
    /// as often as it may be: a tenth of a second later it is.
    pub(in crate::link) fn may_fall_silent(&self, steady_until: Option<Instant>) -> bool {
        let (told_of, times) = self.silent;
        let steady_until = steady_until.filter(|_| self.peer_takes);
        steady_until.is_some_and(|last_at| told_of != last_at || times < SILENT_TIMES)
    }

    /// Tells the peer if the link is silent. What happened before `checking_since` is not known.
    pub(in crate::link) fn on_time(
        &mut self,
        steady_until: Option<Instant>,
        checking_since: Instant,
        now: Instant,
    ) {
        let Some(last_at) = steady_until.filter(|_| self.peer_takes) else { return };
        let (told_of, times) = self.silent;
        let times = if told_of == last_at { times } else { 0 };
        let silent = now.saturating_since(last_at.max(checking_since));
        if times < SILENT_TIMES && silent >= SILENT_MIN + SILENT_STEP * u32::from(times) {
            self.silent = (last_at, times + 1);
            self.is_due = true;
        }
    }

    /// Whether feedback is due over another link.
    pub(in crate::link) const fn is_due(&self) -> bool {
        self.is_due
    }

    /// The same; it counts as told.
    pub(in crate::link) const fn take_due(&mut self) -> bool {
        std::mem::replace(&mut self.is_due, false)
    }
}
