//! What goes over links beside each packet once: copies, resends, repair symbols.
//!
//! Contract: the parts are independent; [`Redundancy`] holds what two of them decide together. A
//! packet with a copy needs no symbol. A resend that is likely to be lost again has a copy.

mod copies;
mod protection;
mod resend;
mod slots;

use self::copies::Copies;
use self::protection::{COPIES_FROM_PERMILLE, Protection};
use self::resend::Resend;
use super::link_table::LinkTable;
use super::writer::DatagramWriter;
use crate::config::{RecoveryConfig, Security};
use crate::limits::LOSSY_PERMILLE;
use crate::packet::{DataFrame, LinkId, Transmit};
use crate::qos::queue::{Queued, Tier};
use crate::recovery::{KEPT_BYTES_MAX, Way, is_risky, second_link};
use crate::scheduler;
use crate::time::Instant;
use crate::view::{LinkSet, LinkState};

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
    /// Copies or symbols may wait for the present drain to send them.
    waits: bool,
}

/// What a packet asks for beside its own way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks {
    /// The scheduler wants copies over these links.
    pub(super) wanted: LinkSet,
    /// A rule says that the flow's packets go over two links.
    pub(super) twice: bool,
    /// The peer takes frames that are to be delivered at once.
    pub(super) at_once: bool,
}

impl Redundancy {
    pub(super) fn new(config: &RecoveryConfig) -> Self {
        Self {
            copies: Copies::default(),
            resend: Resend::new(config.resend),
            protection: Protection::new(config.fec, config.resend),
            waits: false,
        }
    }

    /// Losses are answered in this way from now on. What waits to be sent again still is.
    pub(super) const fn set_config(&mut self, config: &RecoveryConfig) {
        self.resend.set_on(config.resend);
        self.protection.set_fec(config.fec, config.resend);
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

    /// Whether symbols may cover what is not realtime.
    pub(super) const fn covers_all(&self) -> bool {
        self.protection.covers_all()
    }

    /// The head went over a link: adds the copies that are asked for, and one over the second-best
    /// link where the first may well lose it. A packet without a copy may be covered by a symbol.
    pub(super) fn protect(
        &mut self,
        head: &Queued,
        (link, frame): (LinkId, &DataFrame),
        Asks { mut wanted, twice, at_once }: Asks,
        links: &mut LinkTable,
        now: Instant,
    ) {
        if twice || self.is_at_risk(head, link, links, at_once) {
            wanted.insert(scheduler::second(head, link, links.views.all(), now));
        }
        let copied = self.copies.add((link, frame), wanted, links, now);
        if !copied && at_once {
            self.protection.protect(head, link, frame, links, now);
        }
        self.waits = true;
    }

    /// A batch of copies, or a symbol. Usually none waits.
    pub(super) fn transmit(&mut self, writer: &mut DatagramWriter<'_>) -> Option<Transmit> {
        if !self.waits {
            return None;
        }
        let transmit = self.copies.transmit(writer).or_else(|| self.protection.transmit(writer));
        self.waits = transmit.is_some();
        transmit
    }

    /// Whether the head is realtime and the link that it goes over may well lose it.
    fn is_at_risk(&self, head: &Queued, id: LinkId, links: &LinkTable, at_once: bool) -> bool {
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
        let to = state.and_then(|link| Some((link.path().data_destination()?, link.security())));
        let Some((to, security)) = to else { return Resends::Idle };
        let mut batch = writer.batch(link, to, security);
        let (mut room, mut is_any) = (usize::MAX, false);
        while let Some(frame) = self.resend.queue.pop(room) {
            is_any = true;
            // What is likely to be lost again, or may not be, goes over a second link too.
            let risky = writer.links.views.get(link).is_some_and(|view| is_risky(&frame, view));
            let second = risky.then(|| second_link(writer.links.views.all(), &frame, link, now)).flatten();
            if let Some(second) = second {
                self.copies.add_one(frame.data(), second, writer.links, now);
                self.waits = true;
                writer.tracer.on_resent(second, &frame, true, now);
            }
            writer.tracer.on_resent(link, &frame, false, now);
            let data = frame.data().clone();
            let Some(left) = writer.put_data(&mut batch, &data, Some(frame)) else { break };
            if self.resend.queue.next(writer.links.views.all(), now) != Some(Way::Now(link)) {
                break;
            }
            room = left;
        }
        if is_any { Resends::Sent(batch.transmit(writer.buf.len())) } else { Resends::Idle }
    }
}
