//! Copies: what goes over one link goes over others too, under the same sequence number. The receiver keeps the first that
//! arrives. The scheduler asks for copies; so does a rule that says `duplicate`, and the realtime class on a link that is suspect or
//! lossy: then one copy goes over the second-best link.
//!
//! Contract: copies wait only from the batch that they belong to until the same drain of `poll_transmit` has sent them; the scheduler
//! asked for them where there was credit, which they are charged for at once.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use super::Session;
use super::protect::COPIES_FROM_PERMILLE;
use super::transmit::{BATCH_SEGMENTS_MAX, overhead};
use crate::config::Security;
use crate::limits::LOSSY_PERMILLE;
use crate::packet::{BATCH_BYTES_MAX, DataFrame, LinkId, Transmit};
use crate::qos::queue::{Queued, Tier};
use crate::scheduler;
use crate::time::Instant;
use crate::view::LinkState;

/// By link, in the order in which they are to go.
#[derive(Debug, Default)]
pub(super) struct Copies(Vec<VecDeque<DataFrame>>);

impl Copies {
    fn push(&mut self, link: LinkId, frame: DataFrame) {
        if self.0.len() <= link.index() {
            self.0.resize_with(link.index() + 1, VecDeque::new);
        }
        if let Some(queue) = self.0.get_mut(link.index()) {
            queue.push_back(frame);
        }
    }

    /// A link that has some.
    fn next(&self) -> Option<LinkId> {
        let at = self.0.iter().position(|queue| !queue.is_empty())?;
        u8::try_from(at).ok().map(LinkId)
    }

    /// The link's next one, if it has no more than `bytes`.
    fn pop(&mut self, link: LinkId, bytes: usize) -> Option<DataFrame> {
        self.0.get_mut(link.index())?.pop_front_if(|frame| frame.packet.len() <= bytes)
    }
}

impl Session {
    /// `head` goes over `link` as `frame`: the scheduler may want copies, and so may its class. Whether there are any.
    pub(super) fn plan_copies(
        &mut self,
        head: &Queued,
        link: LinkId,
        frame: &DataFrame,
        now: Instant,
    ) -> bool {
        let mut wanted = self.scheduler.copies(head, link, &self.views, now);
        if self.goes_twice(head, link) {
            wanted.insert(scheduler::second(head, link, &self.views, now));
        }
        if wanted.is_empty() {
            return false;
        }
        let mut any = false;
        for at in 0..self.views.len() {
            let view =
                self.views.get(at).filter(|view| wanted.contains(view.id) && frame.packet.len() <= view.mtu);
            if let Some(link) = view.map(|view| view.id) {
                self.copy_to(link, frame.clone(), now);
                any = true;
            }
        }
        any
    }

    /// `frame` goes over `link` too.
    pub(super) fn copy_to(&mut self, link: LinkId, frame: DataFrame, now: Instant) {
        let Some(view) = self.views.get_mut(link.index()) else { return };
        view.charge(frame.packet.len(), now);
        self.counters.copies += 1;
        self.copies.push(link, frame);
    }

    /// Whether the head, which goes over `link`, is to go over a second link too: a rule says so, or it is realtime and the link may
    /// well lose it.
    fn goes_twice(&self, head: &Queued, link: LinkId) -> bool {
        self.classes.goes_twice(head.flow)
            || (head.tier == Tier::Realtime
                && self.views.get(link.index()).is_some_and(|view| {
                    let most = if self.repairs(link) { COPIES_FROM_PERMILLE } else { LOSSY_PERMILLE };
                    !view.usable || view.state != LinkState::Up || view.loss_permille >= most
                }))
    }

    /// A batch of copies for one link.
    pub(super) fn transmit_copies(
        &mut self,
        buf: &mut Vec<u8>,
        max_segments: NonZeroUsize,
        now: Instant,
    ) -> Option<Transmit> {
        while let Some(link) = self.copies.next() {
            let state = self.links.get(link.index()).filter(|link| self.speaks(link));
            let to = state.and_then(|state| Some((state.path()?, state.security())));
            let to = to.filter(|(_, security)| *security == Security::Plain || self.keyring.can_seal(now));
            let Some((path, security)) = to else {
                while self.copies.pop(link, usize::MAX).is_some() {}
                continue;
            };
            let start = buf.len();
            let segments_max = max_segments.get().min(BATCH_SEGMENTS_MAX);
            let (mut segments, mut segment_size, mut room) = (0, 0, usize::MAX);
            while let Some(frame) = self.copies.pop(link, room) {
                let size = self.put_data(buf, link, security, &frame, None, now);
                segments += 1;
                segment_size = segment_size.max(size);
                // GSO: only the last datagram may be shorter.
                if size < segment_size || segments == segments_max {
                    break;
                }
                let left = BATCH_BYTES_MAX.saturating_sub(buf.len() - start);
                room = segment_size.min(left).saturating_sub(overhead(security));
            }
            return Some(Transmit::new(link, path, buf.len() - start, segment_size));
        }
        None
    }
}
