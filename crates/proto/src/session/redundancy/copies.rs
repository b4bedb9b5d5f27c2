//! Copies: what goes over one link goes over others too, under the same sequence number. The
//! receiver keeps the first that arrives. The scheduler asks for copies; so does a rule that says
//! `duplicate`, and the realtime class on a link that is suspect or lossy: then one copy goes over
//! the second-best link.
//!
//! Contract: copies wait only from the batch that they belong to until the same drain of
//! `poll_transmit` has sent them. The scheduler asked for them where there was credit, which they
//! are charged for at once.

use std::collections::VecDeque;

use crate::packet::{DataFrame, LinkId, Transmit};
use crate::session::link_table::LinkTable;
use crate::session::writer::DatagramWriter;
use crate::time::Instant;
use crate::view::{LinkSet, LinkView};

/// Copies that wait for the present drain to send them.
#[derive(Debug, Default)]
pub(in crate::session) struct Copies {
    /// By link, in the order in which they are to go.
    queues: Vec<VecDeque<DataFrame>>,
    /// Copies made so far.
    count: u64,
}

impl Copies {
    /// Copies made so far.
    pub(in crate::session) const fn count(&self) -> u64 {
        self.count
    }

    /// The packet, which went over `first`, goes over each of the wanted links that carries it,
    /// too. Whether there are any. All are of one kind: a plain copy is not known for one beside a
    /// sealed packet.
    pub(in crate::session) fn add(
        &mut self,
        (first, frame): (LinkId, &DataFrame),
        wanted: LinkSet,
        links: &mut LinkTable,
        now: Instant,
    ) -> bool {
        if wanted.is_empty() {
            return false;
        }
        let mut any = false;
        for at in 0..links.views.all().len() {
            let view = links.views.all().get(at);
            let is_alike = |view: &&LinkView| links.security(view.id) == links.security(first);
            let view = view.filter(|view| wanted.contains(view.id) && frame.packet.len() <= view.mtu);
            let view = view.filter(is_alike);
            if let Some(link) = view.map(|view| view.id) {
                self.add_one(frame, link, links, now);
                any = true;
            }
        }
        any
    }

    /// The packet goes over this link too.
    pub(in crate::session) fn add_one(
        &mut self,
        frame: &DataFrame,
        link: LinkId,
        links: &mut LinkTable,
        now: Instant,
    ) {
        if links.views.get(link).is_none() {
            return;
        }
        links.views.charge(link, frame.packet.len(), now);
        self.count += 1;
        if self.queues.len() <= link.index() {
            self.queues.resize_with(link.index() + 1, VecDeque::new);
        }
        if let Some(queue) = self.queues.get_mut(link.index()) {
            queue.push_back(frame.clone());
        }
    }

    /// A batch of copies for one link.
    pub(in crate::session) fn transmit(&mut self, writer: &mut DatagramWriter<'_>) -> Option<Transmit> {
        while let Some(link) = self.next() {
            let Some((to, security)) = writer.destination(link) else {
                while self.pop(link, usize::MAX).is_some() {}
                continue;
            };
            let mut batch = writer.batch(link, to, security);
            let mut room = usize::MAX;
            while let Some(frame) = self.pop(link, room) {
                let Some(left) = writer.put_data(&mut batch, &frame, None) else { break };
                room = left;
            }
            return Some(batch.transmit(writer.buf.len()));
        }
        None
    }

    /// A link that has some.
    fn next(&self) -> Option<LinkId> {
        let at = self.queues.iter().position(|queue| !queue.is_empty())?;
        u8::try_from(at).ok().map(LinkId)
    }

    /// The link's next one, if it has no more than `bytes`.
    fn pop(&mut self, link: LinkId, bytes: usize) -> Option<DataFrame> {
        self.queues.get_mut(link.index())?.pop_front_if(|frame| frame.packet.len() <= bytes)
    }
}
