//! Sending again: what links lose, or still carried when they were given up, goes out over another way.
//! [`crate::recovery`] says which.

use std::num::NonZeroUsize;

use super::Session;
use super::transmit::{BATCH_SEGMENTS_MAX, overhead};
use crate::config::Security;
use crate::link::Link;
use crate::packet::KeptPacket;
use crate::packet::{BATCH_BYTES_MAX, DataFrame, LinkId, Transmit};
use crate::recovery::{KEPT_BYTES_MAX, Way, is_risky, second_link};
use crate::time::Instant;
use crate::view::LinkState;

impl Session {
    /// What has to be kept to send this packet again.
    pub(super) fn kept(&self, link: LinkId, data: &DataFrame, now: Instant) -> Option<KeptPacket> {
        let view = self.views.get(link.index())?;
        Some(KeptPacket::new(data.clone(), view.delay_us, now))
    }

    /// Whether what goes out over links of this kind now is kept.
    pub(super) fn may_keep(&self, security: Security) -> bool {
        self.recovers && security == Security::Sealed && self.kept_bytes() < KEPT_BYTES_MAX
    }

    /// Bytes of packets kept to be sent again.
    pub(super) fn kept_bytes(&self) -> usize {
        self.links.iter().map(Link::kept_bytes).sum::<usize>() + self.recovery.queued_bytes()
    }

    /// Feedback came on the link.
    pub(super) fn collect_lost(&mut self, link: LinkId, now: Instant) {
        let Some(link) = self.links.get_mut(link.index()) else { return };
        let lost = link.take_lost();
        if !lost.is_empty() {
            self.recovery.on_lost(lost);
            self.transmit_at = Some(now);
        }
    }

    /// Time has passed: what ended a burst may be overdue.
    pub(super) fn on_resend_time(&mut self, now: Instant) {
        for link in &mut self.links {
            let overdue = link.take_end(now);
            if !overdue.is_empty() {
                self.recovery.on_lost(overdue);
                self.transmit_at = Some(now);
            }
        }
    }

    /// The link is not proven any more: what it still carries may never arrive.
    pub(super) fn reinject(&mut self, link: LinkId, before: LinkState, after: LinkState, now: Instant) {
        if after == LinkState::Up || before == LinkState::Down {
            return;
        }
        let Some(link) = self.links.get_mut(link.index()) else { return };
        let underway = link.take_underway();
        if !underway.is_empty() {
            self.recovery.on_link_lost(underway);
            self.transmit_at = Some(now);
        }
    }

    /// A batch of packets that are sent again, over one link.
    pub(super) fn transmit_resends(
        &mut self,
        buf: &mut Vec<u8>,
        max_segments: NonZeroUsize,
        now: Instant,
    ) -> Option<Transmit> {
        let link = match self.recovery.next(&self.views, now)? {
            Way::Now(link) => link,
            Way::At(free_at) => {
                self.transmit_at = Some(self.transmit_at.map_or(free_at, |at| at.min(free_at)));
                return None;
            }
        };
        let state = self.links.get(link.index())?;
        let (path, security) = (state.path()?, state.security());
        let start = buf.len();
        let segments_max = max_segments.get().min(BATCH_SEGMENTS_MAX);
        let (mut segments, mut segment_size, mut room) = (0, 0, usize::MAX);
        while let Some(frame) = self.recovery.pop(room) {
            self.copy_risky(&frame, link, now);
            let data = frame.data().clone();
            let size = self.put_data(buf, link, security, &data, Some(frame), now);
            segments += 1;
            segment_size = segment_size.max(size);
            // GSO: only the last datagram may be shorter.
            if size < segment_size || segments == segments_max {
                break;
            }
            if self.recovery.next(&self.views, now) != Some(Way::Now(link)) {
                break;
            }
            let left = BATCH_BYTES_MAX.saturating_sub(buf.len() - start);
            room = segment_size.min(left).saturating_sub(overhead(security));
        }
        (segments > 0).then(|| Transmit::new(link, path, buf.len() - start, segment_size))
    }

    /// What is likely to be lost again, or may not be, goes over a second link too.
    fn copy_risky(&mut self, frame: &KeptPacket, link: LinkId, now: Instant) {
        let view = self.views.get(link.index()).filter(|view| is_risky(frame, view));
        if let Some(second) = view.and_then(|_| second_link(&self.views, frame, link, now)) {
            self.copy_to(second, frame.data().clone(), now);
        }
    }
}
