//! What goes over links beside each packet once: copies, resends, repair symbols.
//!
//! Contract: the parts are independent; [`Redundancy`] holds what two of them decide together. A
//! packet with a copy needs no symbol. A resend that is likely to be lost again has a copy.

mod copies;
mod protection;
mod resend;

use self::copies::Copies;
use self::protection::{COPIES_FROM_PERMILLE, Protection};
use self::resend::Resend;
use super::link_table::LinkTable;
use super::outbox::DatagramWriter;
use crate::config::{RecoveryConfig, Security};
use crate::limits::LOSSY_PERMILLE;
use crate::packet::{LinkId, Transmit};
use crate::qos::queue::{Queued, Tier};
use crate::recovery::{KEPT_BYTES_MAX, Way, is_risky, second_link};
use crate::time::Instant;
use crate::view::LinkState;

/// What became of the packets that wait to be sent again.
#[derive(Debug)]
pub(super) enum Resends {
    /// A batch of them was written.
    Sent(Transmit),
    /// Their link has no credit before this.
    At(Instant),
    /// There are none, or no link is usable.
    Idle,
}

/// Copies, resends and repair symbols.
#[derive(Debug)]
pub(super) struct Redundancy {
    pub(super) copies: Copies,
    pub(super) resend: Resend,
    pub(super) protection: Protection,
}

impl Redundancy {
    pub(super) fn new(config: &RecoveryConfig) -> Self {
        Self {
            copies: Copies::default(),
            resend: Resend::new(config.resend),
            protection: Protection::new(config.fec, config.resend),
        }
    }

    /// The peer knows nothing of what was sent.
    pub(super) fn clear(&mut self) {
        self.resend.clear();
        self.protection.clear();
    }

    /// Bytes of packets kept to be sent again or to restore others, those that links keep included.
    pub(super) fn kept_bytes(&self, links: &LinkTable) -> usize {
        links.kept_bytes() + self.resend.queued_bytes() + self.protection.bytes()
    }

    /// Whether what goes out over links of this kind now is kept.
    pub(super) fn may_keep(&self, links: &LinkTable, security: Security) -> bool {
        self.resend.is_on()
            && security == Security::Sealed
            && links.kept_bytes() + self.resend.queued_bytes() < KEPT_BYTES_MAX
    }

    /// Whether the head is realtime and the link that it goes over may well lose it.
    pub(super) fn is_at_risk(&self, head: &Queued, id: LinkId, links: &LinkTable, at_once: bool) -> bool {
        head.tier == Tier::Realtime
            && links.views.get(id).is_some_and(|view| {
                let repairs = self.protection.is_on() && at_once && links.is_sealed(id);
                let most = if repairs { COPIES_FROM_PERMILLE } else { LOSSY_PERMILLE };
                !view.usable || view.state != LinkState::Up || view.loss_permille >= most
            })
    }

    /// A batch of packets that are sent again, over one link.
    pub(super) fn transmit_resends(&mut self, writer: &mut DatagramWriter<'_>) -> Resends {
        let now = writer.now;
        let link = match self.resend.queue.next(writer.links.views.all(), now) {
            Some(Way::Now(link)) => link,
            Some(Way::At(free_at)) => return Resends::At(free_at),
            None => return Resends::Idle,
        };
        let state = writer.links.get(link);
        let Some((path, security)) = state.and_then(|link| Some((link.path()?, link.security()))) else {
            return Resends::Idle;
        };
        let mut batch = writer.batch(link, path, security);
        let (mut room, mut is_any) = (usize::MAX, false);
        while let Some(frame) = self.resend.queue.pop(room) {
            is_any = true;
            // What is likely to be lost again, or may not be, goes over a second link too.
            let risky = writer.links.views.get(link).is_some_and(|view| is_risky(&frame, view));
            let second = risky.then(|| second_link(writer.links.views.all(), &frame, link, now)).flatten();
            if let Some(second) = second {
                self.copies.add_one(frame.data(), second, writer.links, now);
            }
            let data = frame.data().clone();
            let size = writer.put_data(link, security, &data, Some(frame));
            if !batch.add(size)
                || self.resend.queue.next(writer.links.views.all(), now) != Some(Way::Now(link))
            {
                break;
            }
            room = batch.room(writer.buf.len());
        }
        if is_any { Resends::Sent(batch.transmit(writer.buf.len())) } else { Resends::Idle }
    }
}
