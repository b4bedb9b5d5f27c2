//! Data on its way to a link: realtime and sparse packets, then what has to be sent again, then
//! bulk. Of each tier the most urgent head gets the link that the scheduler picks for it, and as
//! many of the packets behind it as go the same way at the same size follow, up to one GSO batch.
//!
//! Sequence numbers are given here, at the moment of sending: within a flow slot their order is the
//! order of sending over all links, which the receiver's resequencer relies on.
//!
//! Contract: [`Outbox::transmit`] is called again until it gives nothing; then [`WaitTimes`] says
//! when to come back. Other parts are arguments: the writer with links and keys, the queue, the
//! redundancy.

mod due;
mod numbers;
mod wait;
mod writer;

pub(super) use self::due::{Greeting, transmit as transmit_due};
use self::numbers::FlowNumbers;
pub(super) use self::wait::WaitTimes;
pub(super) use self::writer::{DatagramWriter, overhead};
use super::ingress::Ingress;
use super::peer::Peer;
use super::redundancy::{Redundancy, Resends};
use crate::config::{Policy, Security};
use crate::discard::DiscardCounts;
use crate::inner::checksum;
use crate::packet::{DataFrame, LinkId, PacketBuf, Path, Transmit};
use crate::qos::ack;
use crate::qos::classify::needs_order;
use crate::qos::flow::FlowId;
use crate::qos::queue::{Queued, Tier};
use crate::scheduler::{self, Decision, Scheduler};
use crate::time::Instant;
use crate::view::LinkView;
use crate::wire::Modifiers;

/// Where data gets its link and its number.
#[derive(Debug)]
pub(super) struct Outbox {
    scheduler: Box<dyn Scheduler>,
    numbers: FlowNumbers,
    pub(super) wait: WaitTimes,
}

/// What a batch of data is made from.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    pub(super) ingress: &'a mut Ingress,
    pub(super) redundancy: &'a mut Redundancy,
    pub(super) peer: &'a Peer,
    pub(super) discards: &'a mut DiscardCounts,
}

impl Outbox {
    pub(super) fn new(policy: Policy) -> Self {
        Self { scheduler: scheduler::of(policy), numbers: FlowNumbers::default(), wait: WaitTimes::default() }
    }

    /// A batch of data for one link.
    pub(super) fn transmit(
        &mut self,
        writer: &mut DatagramWriter<'_>,
        from: &mut Sources<'_>,
    ) -> Option<Transmit> {
        let now = writer.now;
        let is_empty = from.ingress.queue.is_empty();
        if let Some(late) = self.wait.begin(is_empty, now) {
            writer.links.iter_mut().for_each(|link| link.set_late(late));
        }
        if is_empty && from.redundancy.resend.queued_bytes() == 0 {
            from.ingress.on_idle(now);
            return None;
        }
        let has_keys = writer.can_seal();
        writer.links.refresh_views(has_keys, now);
        for (index, tier) in Tier::ALL.into_iter().enumerate() {
            if tier == Tier::Bulk {
                match from.redundancy.transmit_resends(writer) {
                    Resends::Sent(transmit) => return Some(transmit),
                    Resends::At(free_at) => self.wait.wake_at(free_at),
                    Resends::Idle => {}
                }
            }
            // Credit the wait up to `now`: drivers wake late.
            if let Some(held_from) = self.wait.release(index) {
                from.ingress.queue.on_deliberate_wait(tier, held_from, now);
            }
            if tier == Tier::Bulk
                && let Some(until) = self.wait.saves_until(now)
            {
                self.wait.wait_until(until);
                continue;
            }
            let Some(head) = from.ingress.head(tier, writer.links, from.discards, now) else { continue };
            match self.scheduler.select(&head, writer.links.views.fitting(head.bytes), now) {
                Decision::Send(link) => {
                    let state = writer.links.get(link)?;
                    let (path, security) = (state.path()?, state.security());
                    return Some(self.fill(writer, from, (link, path, security), head));
                }
                Decision::Hold(until) => {
                    self.wait.hold(index, now);
                    self.wait.wait_until(until);
                }
                Decision::Wait(until) => self.wait_for_credit(tier, writer.links.views.all(), until),
                // Links come back by an input.
                Decision::NoLink => {}
            }
        }
        from.discards.merge(&from.ingress.queue.take_discards());
        None
    }

    /// The head's link has no credit before `until`. Until a link has saved up credit for a run,
    /// bulk waits, whatever else wakes the driver: what one datagram could take meanwhile goes with
    /// the run.
    fn wait_for_credit(&mut self, tier: Tier, views: &[LinkView], until: Instant) {
        let mut until = until;
        if tier == Tier::Bulk {
            let (from, together) = scheduler::bulk_from(views, until);
            self.wait.set_bulk_from(from);
            until = together;
        }
        self.wait.wait_until(until);
    }

    /// Fills one batch for a link, beginning with `head`, for which the link was selected.
    fn fill(
        &mut self,
        writer: &mut DatagramWriter<'_>,
        from: &mut Sources<'_>,
        (link, path, security): (LinkId, Path, Security),
        mut head: Queued,
    ) -> Transmit {
        let now = writer.now;
        if let Some(rate) = writer.links.views.get(link).map(|view| view.rate)
            && let Some(state) = writer.links.get_mut(link)
        {
            state.set_paced(rate, now);
        }
        let keeps = from.redundancy.may_keep(writer.links, security);
        let mut batch = writer.batch(link, path, security);
        // Where the present run begins: at the packet that was decided last.
        let mut run_from = writer.buf.len();
        while let Some((flow, packet)) = from.ingress.queue.pop(head.tier, now) {
            let frame = self.data_frame(head.tier, flow, packet, from);
            let view = writer.links.views.get(link).filter(|_| keeps);
            let kept = view.map(|view| from.redundancy.resend.kept(&frame, view, now));
            let size = writer.put_data(link, security, &frame, kept);
            let more = batch.add(size);
            self.protect(writer, from, &head, (link, &frame));
            if !more {
                break;
            }
            let Some(next) = from.ingress.queue.head(head.tier, now) else { break };
            if next.bytes > batch.room(writer.buf.len()) {
                break;
            }
            let run_bytes = writer.buf.len() - run_from;
            if !self.continues(&next, writer.links.views.get(link), run_bytes, now) {
                let views = writer.links.views.fitting(next.bytes);
                if self.scheduler.select(&next, views, now) != Decision::Send(link) {
                    break;
                }
                run_from = writer.buf.len();
            }
            head = next;
        }
        batch.transmit(writer.buf.len())
    }

    /// Whether `next` may follow `bytes` over the link since the last decision without another one:
    /// on fast links one decision serves a run.
    fn continues(&self, next: &Queued, view: Option<&LinkView>, bytes: usize, now: Instant) -> bool {
        let run = self.scheduler.run();
        let view = view.filter(|_| next.tier == Tier::Bulk && !run.is_zero());
        view.is_some_and(|view| {
            view.free_at <= now && view.rate.time_to_send((bytes + next.bytes) as u64) <= run
        })
    }

    /// The packet with its number. A realtime packet is to be delivered at once if it may overtake
    /// others and the peer knows how, and so are acknowledgements. The checksum of a packet that
    /// may be restored from others is complete.
    fn data_frame(&mut self, tier: Tier, flow: FlowId, packet: PacketBuf, from: &Sources<'_>) -> DataFrame {
        let takes_at_once = from.peer.takes_at_once();
        let is_ack = takes_at_once && ack::is_pure(&packet);
        let flow = if is_ack { flow.acks() } else { flow };
        let at_once = is_ack || (tier == Tier::Realtime && takes_at_once && !needs_order(&packet));
        let mut modifiers = if at_once { Modifiers::AT_ONCE } else { Modifiers::NONE };
        let may_be_partial = from.peer.takes_partial()
            && !at_once
            && tier != Tier::Realtime
            && !from.redundancy.protection.covers_all();
        let packet = if may_be_partial { packet } else { checksum::completed(packet) };
        if packet.is_partial() {
            modifiers = modifiers.with(Modifiers::PARTIAL);
        }
        DataFrame { seq_num: self.numbers.next(flow), modifiers, packet }
    }

    /// The head went over a link: the scheduler, a rule or its class may ask for copies; a packet
    /// without a copy may be covered by a repair symbol.
    fn protect(
        &mut self,
        writer: &mut DatagramWriter<'_>,
        from: &mut Sources<'_>,
        head: &Queued,
        (link, frame): (LinkId, &DataFrame),
    ) {
        let now = writer.now;
        let at_once = from.peer.takes_at_once();
        let mut wanted = self.scheduler.copies(head, link, writer.links.views.all(), now);
        if from.ingress.goes_twice(head.flow) || from.redundancy.is_at_risk(head, link, writer.links, at_once)
        {
            wanted.insert(scheduler::second(head, link, writer.links.views.all(), now));
        }
        let copied = from.redundancy.copies.add(frame, wanted, writer.links, now);
        if !copied && at_once {
            from.redundancy.protection.protect(head, link, frame, writer.links, now);
        }
    }
}
