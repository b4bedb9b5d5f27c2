//! Copies: what goes over one link goes over others too, under the same sequence number. The receiver keeps the first that
//! arrives.
//!
//! Contract: copies wait only from the batch that they belong to until the same drain of `poll_transmit` has sent them; the scheduler
//! asked for them where there was credit, which they are charged for at once.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use super::Session;
use super::transmit::{BATCH_BYTES_MAX, BATCH_SEGMENTS_MAX, overhead};
use crate::config::Security;
use crate::link::BURST;
use crate::packet::{LinkId, PacketBuf, Transmit};
use crate::qos::queue::Queued;
use crate::time::Instant;

/// By link, in the order in which they are to go.
#[derive(Debug, Default)]
pub(super) struct Copies(Vec<VecDeque<(u64, PacketBuf)>>);

impl Copies {
    fn push(&mut self, link: LinkId, seq_num: u64, packet: PacketBuf) {
        if self.0.len() <= link.index() {
            self.0.resize_with(link.index() + 1, VecDeque::new);
        }
        if let Some(queue) = self.0.get_mut(link.index()) {
            queue.push_back((seq_num, packet));
        }
    }

    /// A link that has some.
    fn next(&self) -> Option<LinkId> {
        let at = self.0.iter().position(|queue| !queue.is_empty())?;
        u8::try_from(at).ok().map(LinkId)
    }

    /// The link's next one, if it has no more than `bytes`.
    fn pop(&mut self, link: LinkId, bytes: usize) -> Option<(u64, PacketBuf)> {
        self.0.get_mut(link.index())?.pop_front_if(|(_, packet)| packet.len() <= bytes)
    }
}

impl Session {
    /// `head` goes over `link` as `packet`: the scheduler may want copies.
    pub(super) fn plan_copies(
        &mut self,
        head: &Queued,
        link: LinkId,
        seq_num: u64,
        packet: PacketBuf,
        now: Instant,
    ) {
        let wanted = self.scheduler.copies(head, link, &self.views, now);
        if wanted.is_empty() {
            return;
        }
        for view in self.views.iter_mut().filter(|view| wanted.contains(view.id) && packet.len() <= view.mtu)
        {
            let bytes = packet.len() as u64 + view.header_bytes;
            let start = view.free_at.max(now.saturating_sub(BURST));
            view.free_at = view.rate.map_or(view.free_at, |rate| start + rate.time_to_send(bytes));
            self.copies.push(view.id, seq_num, packet.clone());
        }
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
            while let Some((seq_num, packet)) = self.copies.pop(link, room) {
                let size = self.put_data(buf, link, security, seq_num, &packet, now);
                segments += 1;
                segment_size = segment_size.max(size);
                // GSO: only the last datagram may be shorter.
                if size < segment_size || segments == segments_max {
                    break;
                }
                let left = BATCH_BYTES_MAX.saturating_sub(buf.len() - start);
                room = segment_size.min(left).saturating_sub(overhead(security));
            }
            return Some(Transmit { link, path, size: buf.len() - start, segment_size });
        }
        None
    }
}
