//! Inner packets from TUN on their way to the links: each is fitted to what the links carry, gets
//! its flow and class, and waits in the queue.
//!
//! Contract: a packet that no link carries is cut where it may be, else dropped, counted, and its
//! sender told ([`sizes`](self)). What the queue drops it counts itself; its counts are taken when
//! it is empty or blocked.
//!
//! It knows links by what they carry, and no schedulers.

mod sizes;

use std::sync::Arc;
use std::time::Duration;

use self::sizes::Sizes;
use super::events::Events;
use super::link_table::{LinkTable, QueueDelays};
use super::meters::{Meters, Name};
use crate::discard::{Discard, DiscardCounts};
use crate::inner::{checksum, fragment, mss, too_big};
use crate::packet::PacketBuf;
use crate::position::StreamId;
use crate::qos::Rule;
use crate::qos::classify::{Class, ClassReason, Classified, Classifier};
use crate::qos::flow::{self, FlowId, InnerHeader};
use crate::qos::queue::{Queue, QueueConfig, Queued, Tier};
use crate::qos::spacing::AckSpacing;
use crate::streams::StreamEnds;
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::{LinkRole, LinkView};

/// IANA's protocol number.
const TCP: u8 = 6;

/// A flow's tier, how long its first packet has waited, and how many bytes wait.
pub(super) type Waits = Option<(Tier, Duration, usize)>;

/// What waits to be sent.
#[derive(Debug)]
pub(super) struct Ingress {
    classes: Classifier,
    acks: AckSpacing,
    pub(super) queue: Queue,
    /// What each flow sends.
    pub(super) meters: Meters,
    sizes: Sizes,
}

impl Ingress {
    /// `mtu`: the largest inner packet; `mss_clamp`: TCP connections are told what the links carry.
    pub(super) fn new(seed: u64, rules: Arc<[Rule]>, mtu: u16, mss_clamp: bool) -> Self {
        Self {
            classes: Classifier::new(seed, rules),
            acks: AckSpacing::default(),
            queue: Queue::new(QueueConfig::default()),
            meters: Meters::default(),
            sizes: Sizes::new(mtu, mss_clamp),
        }
    }

    /// These rules decide about classes from now on.
    pub(super) fn set_rules(&mut self, rules: Arc<[Rule]>) {
        self.classes.set_rules(rules);
    }

    /// Takes one packet whose header the caller has read. What is refused for its size is counted.
    pub(super) fn handle_packet(
        &mut self,
        packet: PacketBuf,
        header: &InnerHeader,
        links: &LinkTable,
        discards: &mut DiscardCounts,
        now: Instant,
    ) -> Result<(), Discard> {
        if !self.sizes.fits(packet.len(), links) {
            return self.cut(packet, header, links, discards, now);
        }
        let packet = if header.protocol == TCP { self.sizes.clamped(packet) } else { packet };
        self.enqueue(header, packet, now)
    }

    /// Takes the packets of a run, all of the flow and class that the header says. What is refused
    /// for its size is counted. Returns how many packets were taken.
    pub(super) fn handle_run(
        &mut self,
        run: impl Iterator<Item = PacketBuf>,
        header: &InnerHeader,
        links: &LinkTable,
        discards: &mut DiscardCounts,
        now: Instant,
    ) -> u64 {
        let clamp_to = self.sizes.tcp().filter(|_| header.protocol == TCP);
        // What is known to fit: packets of a run have one size as a rule.
        let (mut fits_bytes, mut taken) = (0, 0);
        for packet in run {
            debug_assert_eq!(flow::parse(&packet).as_ref(), Ok(header), "a run is of one flow");
            let bytes = packet.len();
            let result = if bytes <= fits_bytes || self.sizes.fits(bytes, links) {
                fits_bytes = fits_bytes.max(bytes);
                let packet = match clamp_to {
                    Some(mtu) => mss::clamp(packet, mtu),
                    None => packet,
                };
                self.enqueue(header, packet, now)
            } else {
                self.cut(packet, header, links, discards, now)
            };
            taken += u64::from(result.is_ok());
        }
        taken
    }

    /// Cuts a packet that no link carries, where that may be done.
    #[inline(never)]
    fn cut(
        &mut self,
        packet: PacketBuf,
        header: &InnerHeader,
        links: &LinkTable,
        discards: &mut DiscardCounts,
        now: Instant,
    ) -> Result<(), Discard> {
        let passes = self.sizes.passes(links);
        if too_big::forbids_fragments(&packet, header) {
            return Err(self.sizes.refuse(&packet, passes, discards, now));
        }
        let packet = checksum::completed(packet);
        let pieces = fragment::fragments(&packet, passes.bytes);
        if pieces.is_empty() {
            return Err(self.sizes.refuse(&packet, passes, discards, now));
        }
        for piece in pieces {
            let header = flow::parse(&piece)?;
            self.enqueue(&header, piece, now)?;
        }
        Ok(())
    }

    /// Puts a packet that some link carries into the queue of its flow and class.
    fn enqueue(&mut self, header: &InnerHeader, packet: PacketBuf, now: Instant) -> Result<(), Discard> {
        let Classified { flow, class } = self.classes.classify(header, &packet, now);
        self.meters.note(flow, self.classes.latest_hash(), || Name::Packets(*header), now);
        let [waiting, packet] = self.acks.pass(flow, packet, now);
        if let Some(waiting) = waiting {
            self.queue.push(flow, Some(Class::Interactive), waiting, now)?;
        }
        let Some(packet) = packet else { return Ok(()) };
        // A flow in slow start over far links sends as little as a call. Its next packets would
        // overtake what is under way there.
        if flow.is_realtime() && self.queue.is_far(flow.ordinary()) {
            return self.queue.push(flow.ordinary(), None, packet, now);
        }
        self.queue.push(flow, class, packet, now)
    }

    /// Takes a piece of a stream, or a message about one.
    /// `name`: as [`crate::streams::Streams::name`] has it.
    pub(super) fn push_piece(&mut self, piece: PacketBuf, name: Option<(u64, StreamEnds)>, now: Instant) {
        let (flow, class) = match piece.position() {
            Some(at) => {
                self.meters.note_stream(at.stream(), name, now);
                (FlowId::of_stream(at.stream()), None)
            }
            None => (FlowId::MESSAGES, Some(Class::Interactive)),
        };
        // Nothing of a stream is refused.
        let _ = self.queue.push(flow, class, piece, now);
    }

    /// Acknowledgements that were held at a distance and are due go into the queue. When the next
    /// one is due.
    pub(super) fn release_acks(&mut self, discards: &mut DiscardCounts, now: Instant) -> Option<Instant> {
        while let Some((flow, packet)) = self.acks.poll(now) {
            // What the queue refuses it counts itself.
            let _ = self.queue.push(flow, Some(Class::Interactive), packet, now);
        }
        discards.add(Discard::AckSuperseded, self.acks.take_superseded());
        self.acks.due()
    }

    /// The packet that is next in `tier`, if some link carries it or soon may.
    pub(super) fn head(
        &mut self,
        tier: Tier,
        links: &LinkTable,
        discards: &mut DiscardCounts,
        now: Instant,
    ) -> Option<Queued> {
        loop {
            let head = self.queue.head(tier, now)?;
            let is_used = |view: &&LinkView| view.usable && view.role != LinkRole::Never;
            let used = links.views.all().iter().filter(is_used);
            let Some(most) = used.map(|view| view.mtu).max() else { return Some(head) };
            if head.bytes <= most {
                return Some(head);
            }
            let passes = self.sizes.passes(links);
            if passes.opening {
                return None;
            }
            // It came in before a link went or its path became narrower.
            if head.flow.is_stream() {
                self.queue.cut_head(tier, most, now);
                continue;
            }
            let (_, packet) = self.queue.pop(tier, now)?;
            self.sizes.refuse(&packet, passes, discards, now);
        }
    }

    /// Nothing waits: flows that have been idle are forgotten. The queue forgets its own.
    pub(super) fn on_idle(&mut self, now: Instant) {
        self.classes.forget_idle(now);
        self.meters.forget_idle(now);
    }

    /// Figures of what waits of a flow with this header: its class and why, and its tier, wait and
    /// bytes.
    pub(super) fn explain(
        &self,
        header: &InnerHeader,
        now: Instant,
    ) -> (Option<(Class, ClassReason)>, Waits) {
        let (flow, class) = self.classes.explain(header, now);
        // It may have packets in both queues when its class changes.
        let queues = [flow, flow.realtime()].map(|flow| self.queue.waiting_of(flow, now));
        (class, queues.into_iter().flatten().max_by_key(|(_, waited, _)| *waited))
    }

    /// The same of a stream.
    pub(super) fn waits_of(&self, stream: StreamId, now: Instant) -> Waits {
        self.queue.waiting_of(FlowId::of_stream(stream), now)
    }

    /// The peer sent this packet as realtime: what goes back is realtime too.
    pub(super) fn on_realtime_received(&mut self, packet: &[u8], now: Instant) {
        if let Ok(header) = flow::parse(packet) {
            self.classes.on_realtime_received(&header, now);
        }
    }

    /// Whether [`Self::goes_twice`] is true of some flow.
    pub(super) fn may_go_twice(&self) -> bool {
        self.classes.duplicates_any()
    }

    /// Whether a rule says that the flow's packets go over two links.
    pub(super) fn goes_twice(&self, flow: FlowId) -> bool {
        self.classes.goes_twice(flow)
    }

    /// Realtime flows, for figures.
    pub(super) fn realtime_flows(&self, now: Instant) -> usize {
        self.classes.realtime_flows(now)
    }

    /// What the links carry together, and whether one of them is still finding out.
    pub(super) fn set_drain_rate(&mut self, (rate, is_starting): (Option<BitRate>, bool)) {
        self.queue.set_drain_rate(rate, is_starting);
    }

    /// How long the queue may stand. Where flows are not striped (`is_striped`), no flow sees more
    /// than one link's round trip, and acknowledgements go as they come.
    pub(super) fn set_delays(&mut self, delays: QueueDelays, is_striped: bool) {
        self.queue.set_delays(delays.near, delays.far);
        let (least, longest) = if is_striped { delays.rounds } else { Default::default() };
        self.acks.set_rounds(least, longest);
    }

    /// Links, their states or what they carry changed.
    pub(super) fn refresh_sizes(&mut self, links: &LinkTable, events: &mut Events) {
        self.sizes.refresh(links, events);
    }

    /// The largest inner packet that the tunnel was configured for.
    pub(super) const fn packet_max(&self) -> usize {
        self.sizes.packet_max()
    }

    /// The largest piece of a stream that each link in use carries.
    pub(super) fn stream_mtu(&self) -> usize {
        self.sizes.stream_mtu()
    }

    /// What the tunnel's MTU should be.
    pub(super) const fn tunnel_mtu(&self) -> u16 {
        self.sizes.tunnel_mtu()
    }

    /// A packet for TUN as TCP's ends should see it.
    pub(super) fn clamped(&self, packet: PacketBuf) -> PacketBuf {
        self.sizes.clamped(packet)
    }

    /// The next answer to a packet that was too big, for TUN.
    pub(super) fn poll_answer(&mut self) -> Option<PacketBuf> {
        self.sizes.poll_answer()
    }

    /// Whether [`Self::poll_answer`] has something.
    pub(super) fn has_answers(&self) -> bool {
        self.sizes.has_answers()
    }
}
