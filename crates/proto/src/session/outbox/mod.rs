//! Data on its way to a link: realtime and sparse packets, then what has to be sent again, then
//! bulk, near and far. Of each tier the most urgent head gets the link that the scheduler picks for
//! it, and as many of the packets behind it as go the same way at the same size follow, up to one
//! GSO batch.
//!
//! Sequence numbers are given here, at the moment of sending: within a flow slot their order is the
//! order of sending over all links, which the receiver's resequencer relies on. Sealed links and
//! plain ones count apart, and a flow goes over one kind at a time ([`LinkView::is_apart`]).
//!
//! Contract: [`Outbox::transmit`] is called again until it gives nothing; then [`WaitTimes`] says
//! when to come back. Other parts are arguments: the writer with links and keys, the queue, the
//! redundancy.

mod due;

use std::time::Duration;

pub(super) use self::due::{Greeting, transmit as transmit_due};
use super::ingress::Ingress;
use super::peer::Peer;
use super::redundancy::{Asks, Redundancy, Resends};
use super::writer::DatagramWriter;
use crate::config::{Policy, Security};
use crate::discard::DiscardCounts;
use crate::inner::checksum;
use crate::packet::{DataFrame, Destination, KeptPacket, LinkId, PacketBuf, Transmit};
use crate::position::Position;
use crate::qos::ack;
use crate::qos::classify::needs_order;
use crate::qos::flow::FlowId;
use crate::qos::queue::{Queued, Tier};
use crate::scheduler::{self, Decision, Scheduler};
use crate::streams::Streams;
use crate::time::Instant;
use crate::view::LinkView;
use crate::wire::{self, Modifiers};

/// Counters of flow slots in one allocation. Chosen: most sessions have few flows, and their slots
/// are spread over all numbers.
const COUNTERS: usize = 32;

/// Where data gets its link and its number.
#[derive(Debug)]
pub(super) struct Outbox {
    policy: Policy,
    scheduler: Box<dyn Scheduler>,
    /// Of what goes over sealed links, and over plain ones.
    sealed_numbers: FlowNumbers,
    plain_numbers: FlowNumbers,
    pub(super) wait: WaitTimes,
}

/// The next counter of each flow slot; made on demand.
#[derive(Debug, Default)]
struct FlowNumbers(Vec<Option<Box<[u64; COUNTERS]>>>);

impl FlowNumbers {
    /// Counts the flow's slot on.
    fn next(&mut self, flow: FlowId) -> u64 {
        let (at, within) = (flow.index() / COUNTERS, flow.index() % COUNTERS);
        if at >= self.0.len() {
            self.0.resize_with(at + 1, || None);
        }
        let counters = self.0.get_mut(at).map(|some| some.get_or_insert_default());
        let Some(counter) = counters.and_then(|some| some.get_mut(within)) else { return 0 };
        let seq_num = wire::data_seq_num(flow.0, *counter);
        *counter += 1;
        seq_num
    }
}

/// The times that hold data back.
#[derive(Debug, Default)]
pub(in crate::session) struct WaitTimes {
    /// When waiting data may go; `None`: nothing waits, or only an input can help.
    transmit_at: Option<Instant>,
    /// While packets wait for links: when the first link has credit again.
    due_at: Option<Instant>,
    /// How late the driver was for `due_at` the last time.
    late: Duration,
    /// By tier: until then all links save up credit for a run of bulk packets.
    bulk_from: [Instant; Tier::ALL.len()],
    /// By tier: since when its head is held back for a better link.
    held_from: [Option<Instant>; Tier::ALL.len()],
}

impl WaitTimes {
    pub(in crate::session) const fn transmit_at(&self) -> Option<Instant> {
        self.transmit_at
    }

    /// Something changed: what waits may go now.
    pub(in crate::session) const fn wake(&mut self, now: Instant) {
        self.transmit_at = Some(now);
    }

    /// The driver's full sockets are others than before.
    pub(in crate::session) fn forget_saving(&mut self) {
        self.bulk_from = Default::default();
    }

    /// Data is looked at again. A batch that was due and goes later shows the driver's lateness,
    /// until what waited is gone or waits again. Returns the lateness if it is another one than
    /// before.
    fn begin(&mut self, queue_is_empty: bool, now: Instant) -> Option<Duration> {
        self.transmit_at = None;
        if queue_is_empty {
            self.held_from = Default::default();
        }
        let late = match self.due_at.take() {
            Some(due) => now.saturating_since(due),
            None if queue_is_empty => Duration::ZERO,
            None => return None,
        };
        let changed = late != self.late;
        self.late = late;
        changed.then_some(late)
    }

    /// Resends wait for credit until then.
    fn wake_at(&mut self, at: Instant) {
        self.transmit_at = Some(self.transmit_at.map_or(at, |known| known.min(at)));
    }

    /// Packets wait for links until then.
    fn wait_until(&mut self, until: Instant) {
        self.wake_at(until);
        self.due_at = self.transmit_at;
    }

    /// While links save up credit for the tier with this index: until when.
    fn saves_until(&self, tier_index: usize, now: Instant) -> Option<Instant> {
        self.bulk_from.get(tier_index).copied().filter(|from| now < *from)
    }

    fn set_bulk_from(&mut self, tier_index: usize, from: Instant) {
        if let Some(bulk_from) = self.bulk_from.get_mut(tier_index) {
            *bulk_from = from;
        }
    }

    /// The head of the tier with this index is held back from now on.
    fn hold(&mut self, tier_index: usize, now: Instant) {
        if let Some(held_from) = self.held_from.get_mut(tier_index) {
            *held_from = Some(now);
        }
    }

    /// Since when the head of the tier was held back; it is not any more.
    fn release(&mut self, tier_index: usize) -> Option<Instant> {
        self.held_from.get_mut(tier_index).and_then(Option::take)
    }
}

/// What a batch of data is made from.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    pub(super) ingress: &'a mut Ingress,
    pub(super) redundancy: &'a mut Redundancy,
    pub(super) streams: &'a mut Streams,
    pub(super) peer: &'a Peer,
    pub(super) discards: &'a mut DiscardCounts,
}

/// Which frames may go to the peer: the same for all packets of a batch.
#[derive(Debug, Clone, Copy)]
struct Accepted {
    /// The peer takes frames that are to be delivered at once.
    at_once: bool,
    /// The peer takes packets whose checksum is yet to be computed, and no symbol covers them.
    partial: bool,
}

impl Accepted {
    /// Over links of this kind.
    fn of(from: &Sources<'_>, security: Security) -> Self {
        let peer = from.peer.over(security);
        Self { at_once: peer.takes_at_once(), partial: peer.takes_partial() && !from.redundancy.covers_all() }
    }
}

impl Outbox {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            scheduler: scheduler::of(policy),
            sealed_numbers: FlowNumbers::default(),
            plain_numbers: FlowNumbers::default(),
            wait: WaitTimes::default(),
        }
    }

    /// Links are picked by this rule from now on. The numbers of flows go on.
    pub(super) fn set_policy(&mut self, policy: Policy) {
        if policy != self.policy {
            self.policy = policy;
            self.scheduler = scheduler::of(policy);
            self.wait.forget_saving();
        }
    }

    /// Whether a flow grows from link to link.
    pub(super) const fn stripes_flows(&self) -> bool {
        matches!(self.policy, Policy::Adaptive)
    }

    /// A batch of data for one link.
    pub(super) fn transmit(
        &mut self,
        writer: &mut DatagramWriter<'_>,
        from: &mut Sources<'_>,
    ) -> Option<Transmit> {
        let now = writer.now;
        let acks_due = from.ingress.release_acks(from.discards, now);
        let waiting = from.ingress.queue.waiting(now);
        let is_empty = waiting == [false; Tier::ALL.len()];
        if let Some(late) = self.wait.begin(is_empty, now) {
            writer.links.iter_mut().for_each(|link| link.pacer_mut().set_late(late));
        }
        if let Some(due) = acks_due {
            self.wait.wake_at(due);
        }
        let has_resends = from.redundancy.resend.queued_bytes() != 0;
        if is_empty && !has_resends {
            from.ingress.on_idle(now);
            return None;
        }
        let has_keys = writer.can_seal();
        writer.links.refresh_views(has_keys, now);
        for (index, (tier, waits)) in Tier::ALL.into_iter().zip(waiting).enumerate() {
            if tier == Tier::Bulk && has_resends {
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
            if let Some(until) = self.wait.saves_until(index, now) {
                self.wait.wait_until(until);
                continue;
            }
            // A flow may have moved to far links just now.
            if !waits && tier != Tier::Far {
                continue;
            }
            let Some((head, decision)) = self.decide(tier, writer, from) else { continue };
            match decision {
                Decision::Send(link) => {
                    let state = writer.links.get(link)?;
                    let (to, security) = (state.path().data_destination()?, state.security());
                    return Some(self.fill(writer, from, (link, to, security), head));
                }
                Decision::Hold(until) => {
                    self.wait.hold(index, now);
                    self.wait.wait_until(until);
                }
                Decision::Wait(until) => {
                    self.wait_for_credit((tier, index), writer.links.views.all(), until);
                }
                // The near tiers come first; a flow that is near again stays.
                Decision::MoveNear => return self.transmit(writer, from),
                // Links come back by an input.
                Decision::NoLink | Decision::MoveFar => {}
            }
        }
        from.discards.merge(&from.ingress.queue.take_discards());
        None
    }

    /// The decision for the head of a tier. Flows that go far leave the tier before that.
    fn decide(
        &mut self,
        tier: Tier,
        writer: &mut DatagramWriter<'_>,
        from: &mut Sources<'_>,
    ) -> Option<(Queued, Decision)> {
        let now = writer.now;
        loop {
            let head = from.ingress.head(tier, writer.links, from.discards, now)?;
            // Another policy knew far links, and moved the flow there.
            let decision = if tier == Tier::Far && !self.stripes_flows() {
                Decision::MoveNear
            } else {
                self.scheduler.select(&head, writer.links.views.fitting(head.bytes), now)
            };
            match decision {
                Decision::MoveFar => from.ingress.queue.relocate(head.flow, Tier::Far),
                Decision::MoveNear => {
                    from.ingress.queue.relocate(head.flow, Tier::Bulk);
                    return Some((head, decision));
                }
                Decision::Send(_) | Decision::Wait(_) | Decision::Hold(_) | Decision::NoLink => {
                    return Some((head, decision));
                }
            }
        }
    }

    /// The head's link has no credit before `until`. Until a link has saved up credit for a run,
    /// bulk waits, whatever else wakes the driver: what one datagram could take meanwhile goes with
    /// the run.
    fn wait_for_credit(&mut self, (tier, index): (Tier, usize), views: &[LinkView], until: Instant) {
        let mut until = until;
        match tier {
            Tier::Realtime | Tier::Sparse => {}
            Tier::Bulk => {
                let (from, together) = scheduler::bulk_from(views, until);
                self.wait.set_bulk_from(index, from);
                until = together;
            }
            Tier::Far => self.wait.set_bulk_from(index, until),
        }
        self.wait.wait_until(until);
    }

    /// Fills one batch for a link, beginning with `head`, for which the link was selected.
    fn fill(
        &mut self,
        writer: &mut DatagramWriter<'_>,
        from: &mut Sources<'_>,
        (link, to, security): (LinkId, Destination, Security),
        mut head: Queued,
    ) -> Transmit {
        let now = writer.now;
        let view = writer.links.views.get(link).map(|view| (view.rate, view.delay_us));
        if let Some((rate, _)) = view
            && let Some(state) = writer.links.get_mut(link)
        {
            state.pacer_mut().set_rate(rate, now);
        }
        let keeps = from.redundancy.may_keep(writer.links, security);
        let sent_delay_us = view.map(|(_, delay_us)| delay_us);
        let kept_delay_us = sent_delay_us.filter(|_| keeps);
        let accepted = Accepted::of(from, security);
        let mut is_alone = self.goes_alone(head.tier, from);
        let mut batch = writer.batch(link, to, security);
        // Where the present run begins: at the packet that was decided last.
        let mut run_from = writer.buf.len();
        // Bytes of one flow, counted together.
        let mut metered = (head.flow, 0);
        loop {
            let shows_next = !batch.ends_with(head.bytes);
            let Some(taken) = from.ingress.queue.advance(head.tier, shows_next, now) else { break };
            let (flow, packet, next) = taken;
            if flow != metered.0 {
                from.ingress.meters.count(metered.0, link, metered.1, now);
                metered = (flow, 0);
            }
            metered.1 += packet.len();
            let is_stream = packet.stream().is_some();
            let frame = if is_stream {
                from.streams.on_sent(&packet);
                stream_frame(packet)
            } else {
                self.data_frame((head.tier, security), flow, packet, accepted)
            };
            let delay_us = kept_delay_us.or(sent_delay_us.filter(|_| is_stream));
            let kept = delay_us.map(|delay_us| KeptPacket::new(frame.clone(), delay_us, now));
            let room = writer.put_data(&mut batch, &frame, kept);
            if !is_alone {
                self.protect(writer, from, &head, (link, &frame), accepted.at_once);
            }
            let (Some(next), Some(room)) = (next, room) else { break };
            if next.bytes > room {
                break;
            }
            let run_bytes = writer.buf.len() - run_from;
            if !self.continues(&next, writer.links.views.get(link), run_bytes, now) {
                let views = writer.links.views.fitting(next.bytes);
                if self.scheduler.select(&next, views, now) != Decision::Send(link) {
                    break;
                }
                is_alone = self.goes_alone(next.tier, from);
                run_from = writer.buf.len();
            }
            head = next;
        }
        from.ingress.meters.count(metered.0, link, metered.1, now);
        batch.transmit(writer.buf.len())
    }

    /// Whether nothing goes beside the packets of this tier until the next decision: no copy and no
    /// symbol. Usually so for bulk.
    fn goes_alone(&self, tier: Tier, from: &Sources<'_>) -> bool {
        tier.is_bulk()
            && !self.scheduler.may_copy()
            && !from.ingress.may_go_twice()
            && !from.redundancy.covers_all()
    }

    /// Whether `next` may follow `bytes` over the link since the last decision without another one:
    /// on fast links one decision serves a run.
    fn continues(&self, next: &Queued, view: Option<&LinkView>, bytes: usize, now: Instant) -> bool {
        let run = self.scheduler.run();
        let view = view.filter(|_| next.tier.is_bulk() && !run.is_zero());
        view.is_some_and(|view| {
            view.free_at <= now && view.rate.time_to_send((bytes + next.bytes) as u64) <= run
        })
    }

    /// The packet with its number. A realtime packet is to be delivered at once if it may overtake
    /// others and the peer knows how, and so are acknowledgements. The checksum of a packet that
    /// may be restored from others is complete.
    fn data_frame(
        &mut self,
        (tier, security): (Tier, Security),
        flow: FlowId,
        packet: PacketBuf,
        accepted: Accepted,
    ) -> DataFrame {
        let is_ack = accepted.at_once && ack::is_pure(&packet);
        let flow = if is_ack { flow.acks() } else { flow };
        let at_once = is_ack || (tier == Tier::Realtime && accepted.at_once && !needs_order(&packet));
        let mut modifiers = if at_once { Modifiers::AT_ONCE } else { Modifiers::NONE };
        let may_be_partial = accepted.partial && !at_once && tier != Tier::Realtime;
        let packet = if may_be_partial { packet } else { checksum::completed(packet) };
        if packet.is_partial() {
            modifiers = modifiers.with(Modifiers::PARTIAL);
        }
        let numbers = match security {
            Security::Sealed => &mut self.sealed_numbers,
            Security::Plain => &mut self.plain_numbers,
        };
        DataFrame { seq_num: numbers.next(flow), modifiers, packet }
    }

    /// The head went over a link: the scheduler, a rule or its class may ask for copies; a packet
    /// without a copy may be covered by a repair symbol.
    fn protect(
        &mut self,
        writer: &mut DatagramWriter<'_>,
        from: &mut Sources<'_>,
        head: &Queued,
        sent: (LinkId, &DataFrame),
        at_once: bool,
    ) {
        let now = writer.now;
        let wanted = self.scheduler.copies(head, sent.0, writer.links.views.all(), now);
        let asks = Asks { wanted, twice: from.ingress.goes_twice(head.flow), at_once };
        from.redundancy.protect(head, sent, asks, writer.links, now);
    }
}

/// A piece of a stream has its own number; a message has none.
fn stream_frame(piece: PacketBuf) -> DataFrame {
    let seq_num = piece.position().map_or(0, Position::seq_num);
    DataFrame { seq_num, modifiers: Modifiers::NONE, packet: piece }
}
