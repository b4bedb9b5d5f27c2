//! Datagrams out. Heartbeats and feedback that are due go first and never wait behind data. Then data: realtime and sparse packets,
//! what has to be sent again, bulk. Of each tier the most urgent head, the link
//! that the scheduler picks for it, and as many of the packets behind it as go the same way at the same size, up to one
//! GSO batch. Sequence numbers are given here, at the moment of sending: within a flow slot their order is the order of sending
//! over all links, which is what the receiver's resequencer relies on.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::keyring::{Keyring, SEALING_BYTES, SealedAs};
use super::{COUNTERS, Session};
use crate::config::Security;
use crate::link::{Link, Outgoing, Report};
use crate::packet::KeptPacket;
use crate::packet::{BATCH_BYTES_MAX, DataFrame, LinkId, PacketBuf, Path, SocketSet, Transmit};
use crate::qos::ack;
use crate::qos::classify::needs_order;
use crate::qos::flow::FlowId;
use crate::qos::queue::{Queued, Tier};
use crate::scheduler::{self, Decision};
use crate::time::Instant;
use crate::view::{LinkRole, LinkState};
use crate::wire::feedback::{self, Feedback};
use crate::wire::heartbeat::{HEARTBEAT_BYTES, HEARTBEAT_FAILED_BYTES};
use crate::wire::{self, FRAME_HEADER_BYTES, Kind, Modifiers};

/// Datagrams of one GSO send.
pub(super) const BATCH_SEGMENTS_MAX: usize = 64;

impl Session {
    /// What a link has to send besides data. As a rule there is nothing, and one look at each link says so.
    pub(super) fn transmit_due(&mut self, buf: &mut Vec<u8>, now: Instant) -> Option<Transmit> {
        let has_due = self.links.iter().any(|link| link.has_due(self.mtu, now));
        if !has_due && cfg!(not(debug_assertions)) {
            return None;
        }
        let transmit = self.transmit_besides_data(buf, now);
        debug_assert!(has_due || transmit.is_none(), "what is sent was due: {transmit:?}");
        transmit
    }

    /// Apart, so that its locals are none of those that are set up for each packet.
    #[inline(never)]
    fn transmit_besides_data(&mut self, buf: &mut Vec<u8>, now: Instant) -> Option<Transmit> {
        self.transmit_control(buf, now)
            .or_else(|| self.transmit_heartbeat(buf, now))
            .or_else(|| self.transmit_feedback(buf, now))
            .or_else(|| self.transmit_relay(buf, now))
            .or_else(|| self.transmit_probe(buf, now))
    }

    /// One heartbeat that is due.
    fn transmit_heartbeat(&mut self, buf: &mut Vec<u8>, now: Instant) -> Option<Transmit> {
        let sealed = self.keyring.can_seal(now);
        let (epoch, peer_epoch, recovers) = (self.epoch, self.peer_epoch, self.recovers);
        let failed = self.failed_links();
        for link in &mut self.links {
            let due = link.heartbeat_at().is_some_and(|at| at <= now);
            let speaks = sealed || link.security() == Security::Plain;
            let Some(path) = link.path().filter(|_| due && speaks) else { continue };
            let start = buf.len();
            let payload = if failed == 0 { HEARTBEAT_BYTES } else { HEARTBEAT_FAILED_BYTES };
            let size = overhead(link.security()) + usize::from(payload);
            if !link.try_spend(size) {
                link.skip_heartbeat(now);
                continue;
            }
            let (seq_num, mut heartbeat) = link.next_heartbeat(epoch, now);
            let is_ect = link.may_mark_heartbeat();
            heartbeat.resends = recovers && link.security() == Security::Sealed;
            heartbeat.failed = failed;
            heartbeat.echo = peer_epoch.and_then(|epoch| link.echo(epoch, now));
            begin_datagram(link.security(), buf);
            wire::put_frame_header(buf, seq_num, Kind::Heartbeat, Modifiers::NONE, heartbeat.payload_bytes());
            heartbeat.put(buf);
            let mut sealed_as = None;
            if link.security() == Security::Sealed {
                // On a path that is still to prove itself every byte counts.
                if link.has_feedback() && link.is_trusted() {
                    put_feedback(link, &self.keyring, buf, now);
                }
                sealed_as = self.keyring.seal(link.id().0, buf, start, now);
            }
            let size = buf.len() - start;
            link.on_sent(size, Outgoing::control(sealed_as.map(SealedAs::name)), now);
            return Some(Transmit { is_ect, ..Transmit::new(link.id(), path, size, size) });
        }
        None
    }

    /// A datagram of feedback that is due.
    fn transmit_feedback(&mut self, buf: &mut Vec<u8>, now: Instant) -> Option<Transmit> {
        if !self.keyring.can_seal(now) {
            return None;
        }
        for link in &mut self.links {
            let is_due = link.feedback_at().is_some_and(|at| at <= now) && link.is_trusted();
            let Some(path) = link.path().filter(|_| is_due) else { continue };
            let start = buf.len();
            Keyring::begin(buf);
            if !put_feedback(link, &self.keyring, buf, now) {
                buf.truncate(start);
                continue;
            }
            let sealed_as = self.keyring.seal(link.id().0, buf, start, now);
            let size = buf.len() - start;
            link.on_sent(size, Outgoing::control(sealed_as.map(SealedAs::name)), now);
            return Some(Transmit::new(link.id(), path, size, size));
        }
        None
    }

    /// A datagram of feedback about a link that goes over another, of those that are proven the nearest.
    fn transmit_relay(&mut self, buf: &mut Vec<u8>, now: Instant) -> Option<Transmit> {
        for at in 0..self.links.len() {
            let Some(about) = self.links.get_mut(at) else { break };
            let id = about.id();
            let Some(report) = about.take_relay().filter(|_| self.keyring.can_seal(now)) else { continue };
            let carries = |link: &&mut Link| {
                let is_used = link.link_role() != LinkRole::Never && link.security() == Security::Sealed;
                link.id() != id && link.state() == LinkState::Up && link.is_trusted() && is_used
            };
            let others = self.links.iter_mut().filter(carries);
            let Some(link) = others.min_by_key(|link| (link.link_role(), link.rtt(), link.id())) else {
                continue;
            };
            let Some(path) = link.path() else { continue };
            let Some(feedback) = feedback(&report, id, &self.keyring, now) else { continue };
            let start = buf.len();
            Keyring::begin(buf);
            let seq_num = feedback::seq_num_about(id.0);
            wire::put_frame_header(buf, seq_num, Kind::Feedback, Modifiers::NONE, feedback.payload_bytes());
            feedback.put(buf);
            let sealed_as = self.keyring.seal(link.id().0, buf, start, now);
            let size = buf.len() - start;
            link.on_sent(size, Outgoing::control(sealed_as.map(SealedAs::name)), now);
            return Some(Transmit::new(link.id(), path, size, size));
        }
        None
    }

    /// A batch of data for one link.
    pub(super) fn transmit_data(
        &mut self,
        buf: &mut Vec<u8>,
        max_segments: NonZeroUsize,
        now: Instant,
    ) -> Option<Transmit> {
        self.transmit_at = None;
        self.note_lateness(now);
        if self.queue.is_empty() {
            self.held_from = Default::default();
        }
        if self.queue.is_empty() && self.recovery.queued_bytes() == 0 {
            self.queue.forget_idle(now);
            self.classes.forget_idle(now);
            return None;
        }
        self.refresh_views(now);
        for (index, tier) in Tier::ALL.into_iter().enumerate() {
            if tier == Tier::Bulk
                && let Some(resends) = self.transmit_resends(buf, max_segments, now)
            {
                return Some(resends);
            }
            // Until now, not until when it was to end: no driver is back to the microsecond.
            if let Some(from) = self.held_from.get_mut(index).and_then(Option::take) {
                self.queue.on_deliberate_wait(tier, from, now);
            }
            if tier == Tier::Bulk && now < self.bulk_from {
                self.wait_until(self.bulk_from);
                continue;
            }
            let Some(head) = self.fitting_head(tier, now) else { continue };
            match self.select(&head, now) {
                Decision::Send(link) => {
                    let path = self.links.get(link.index())?.path()?;
                    return Some(self.fill(buf, link, path, head, max_segments, now));
                }
                Decision::Hold(until) => {
                    if let Some(held_from) = self.held_from.get_mut(index) {
                        *held_from = Some(now);
                    }
                    self.wait_until(until);
                }
                Decision::Wait(until) => {
                    // Whatever else wakes the driver until a link has saved up: what one datagram could take meanwhile goes with the run.
                    let mut until = until;
                    if tier == Tier::Bulk {
                        (self.bulk_from, until) = scheduler::bulk_from(&self.views, until);
                    }
                    self.wait_until(until);
                }
                // Links come back by an input.
                Decision::NoLink => {}
            }
        }
        self.counters.discards.merge(&self.queue.take_discards());
        None
    }

    /// Links over full sockets have no credit. Apart, as it is rare.
    #[inline(never)]
    pub(super) fn wait_for_room(&mut self, now: Instant) {
        let is_full = |link: &Link| link.path().is_some_and(|path| self.full.contains(path.socket));
        for (view, _) in self.views.iter_mut().zip(&self.links).filter(|(_, link)| is_full(link)) {
            view.wait_for_room(now);
        }
    }

    /// These of the driver's sockets take no more.
    pub(crate) fn set_full(&mut self, full: SocketSet) {
        if self.full != full {
            self.full = full;
            self.bulk_from = Instant::ZERO;
        }
    }

    /// Whether data waits for links.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.transmit_at.is_some()
    }

    /// Packets wait for links until then.
    fn wait_until(&mut self, until: Instant) {
        self.transmit_at = Some(self.transmit_at.map_or(until, |at| at.min(until)));
        self.due_at = self.transmit_at;
    }

    /// What was due and comes later is the driver's lateness, until what waited is gone or waits again.
    fn note_lateness(&mut self, now: Instant) {
        let late = match self.due_at.take() {
            Some(due) => now.saturating_since(due),
            None if self.queue.is_empty() => Duration::ZERO,
            None => return,
        };
        if late != self.late {
            self.late = late;
            self.links.iter_mut().for_each(|link| link.set_late(late));
        }
    }

    /// Fills one batch for `link`, beginning with `head`, for which `link` was selected.
    fn fill(
        &mut self,
        buf: &mut Vec<u8>,
        link: LinkId,
        path: Path,
        mut head: Queued,
        max_segments: NonZeroUsize,
        now: Instant,
    ) -> Transmit {
        let start = buf.len();
        let mut security = Security::default();
        if let (Some(state), Some(view)) = (self.links.get_mut(link.index()), self.views.get(link.index())) {
            state.set_paced(view.rate, now);
            security = state.security();
        }
        let overhead = overhead(security);
        let segment_size = overhead + head.bytes;
        let segments_max = max_segments.get().min(BATCH_SEGMENTS_MAX);
        let keeps = self.may_keep(security);
        // Where the present run begins: at the packet that was decided last.
        let mut run_from = start;
        let mut segments = 0;
        while let Some((flow, packet)) = self.queue.pop(head.tier, now) {
            let frame = self.data_frame(head.tier, flow, packet);
            let kept = if keeps { self.kept(link, &frame, now) } else { None };
            let size = self.put_data(buf, link, security, &frame, kept, now);
            segments += 1;
            if !self.plan_copies(&head, link, &frame, now) {
                self.protect(&head, link, &frame, now);
            }
            // GSO: only the last datagram may be shorter.
            if size < segment_size || segments == segments_max {
                break;
            }
            let Some(next) = self.queue.head(head.tier, now) else { break };
            if overhead + next.bytes > segment_size
                || buf.len() - start + overhead + next.bytes > BATCH_BYTES_MAX
            {
                break;
            }
            if !self.continues(&next, link, buf.len() - run_from, now) {
                if self.select(&next, now) != Decision::Send(link) {
                    break;
                }
                run_from = buf.len();
            }
            head = next;
        }
        Transmit::new(link, path, buf.len() - start, segment_size)
    }

    /// Whether `next` may follow `bytes` over `link` since the last decision without another one: on fast links one decision serves a run.
    fn continues(&self, next: &Queued, link: LinkId, bytes: usize, now: Instant) -> bool {
        let run = self.scheduler.run();
        let view = self.views.get(link.index()).filter(|_| next.tier == Tier::Bulk && !run.is_zero());
        view.is_some_and(|view| {
            view.free_at <= now && view.rate.time_to_send((bytes + next.bytes) as u64) <= run
        })
    }

    /// Appends one packet as a datagram, which counts as sent, and returns its size. With the packet: its sequence number, and what is
    /// kept to send it again.
    pub(super) fn put_data(
        &mut self,
        buf: &mut Vec<u8>,
        link: LinkId,
        security: Security,
        frame: &DataFrame,
        kept: Option<KeptPacket>,
        now: Instant,
    ) -> usize {
        let start = buf.len();
        begin_datagram(security, buf);
        // The queue holds no packet over the MTU, which is a u16, and the link was chosen among those that carry it.
        let len = u16::try_from(frame.packet.len()).unwrap_or(u16::MAX);
        wire::put_frame_header(buf, frame.seq_num, Kind::Data, frame.modifiers, len);
        buf.extend_from_slice(&frame.packet);
        let sealed_as = match security {
            Security::Sealed => self.keyring.seal(link.0, buf, start, now),
            Security::Plain => None,
        };
        let size = buf.len() - start;
        let outgoing = Outgoing { sealed: sealed_as.map(SealedAs::name), asks: true, frame: kept };
        self.on_data_sent(link, size, outgoing, now);
        size
    }

    fn on_data_sent(&mut self, link: LinkId, size: usize, outgoing: Outgoing, now: Instant) {
        let Some(state) = self.links.get_mut(link.index()) else { return };
        let was_starting = state.is_starting(now);
        state.on_sent(size, outgoing, now);
        if was_starting != state.is_starting(now) {
            self.on_rates_changed(now);
        }
        let Some(state) = self.links.get(link.index()) else { return };
        if let Some(view) = self.views.get_mut(link.index()) {
            view.free_at = state.free_at();
        }
    }

    /// The packet with its number. What is realtime is to be delivered at once, if it may overtake others and the peer knows how, and so are
    /// acknowledgements. Where it may be restored from others' its checksum is complete.
    fn data_frame(&mut self, tier: Tier, flow: FlowId, packet: PacketBuf) -> DataFrame {
        let is_ack = self.peer_at_once && ack::is_pure(&packet);
        let flow = if is_ack { flow.acks() } else { flow };
        let at_once = is_ack || (tier == Tier::Realtime && self.peer_at_once && !needs_order(&packet));
        let mut modifiers = if at_once { Modifiers::AT_ONCE } else { Modifiers::NONE };
        let may_be_partial =
            self.peer_partial && !at_once && tier != Tier::Realtime && !self.protection.covers_all();
        let packet = if may_be_partial { packet } else { packet.completed() };
        if packet.is_partial() {
            modifiers = modifiers.with(Modifiers::PARTIAL);
        }
        DataFrame { seq_num: self.next_seq_num(flow), modifiers, packet }
    }

    /// Counts the flow's slot on.
    fn next_seq_num(&mut self, flow: FlowId) -> u64 {
        let (at, within) = (flow.index() / COUNTERS, flow.index() % COUNTERS);
        if at >= self.slot_counters.len() {
            self.slot_counters.resize_with(at + 1, || None);
        }
        let counters = self.slot_counters.get_mut(at).map(|some| some.get_or_insert_default());
        let Some(counter) = counters.and_then(|some| some.get_mut(within)) else { return 0 };
        let seq_num = wire::data_seq_num(flow.0, *counter);
        *counter += 1;
        seq_num
    }
}

/// Bytes around a frame's payload.
pub(super) const fn overhead(security: Security) -> usize {
    match security {
        Security::Plain => FRAME_HEADER_BYTES,
        Security::Sealed => FRAME_HEADER_BYTES + SEALING_BYTES,
    }
}

/// Appends a feedback frame; `false`: there is nothing to tell.
fn put_feedback(link: &mut Link, keyring: &Keyring, buf: &mut Vec<u8>, now: Instant) -> bool {
    let Some(report) = link.report(now) else { return false };
    let Some(feedback) = feedback(&report, link.id(), keyring, now) else { return false };
    wire::put_frame_header(buf, 0, Kind::Feedback, Modifiers::NONE, feedback.payload_bytes());
    feedback.put(buf);
    true
}

/// What the report says, with what is missing; `None`: its key is over.
fn feedback(report: &Report, link: LinkId, keyring: &Keyring, now: Instant) -> Option<Feedback> {
    let runs = keyring.runs(report.key, link.0, report.largest)?;
    let hold = now.saturating_since(report.largest_at).as_micros();
    let before = report.largest_at.saturating_since(report.least_at).as_micros() / 16;
    Some(Feedback {
        marked: report.marked,
        key: report.key,
        largest: report.largest,
        arrival_us: u32::try_from(report.largest_at.as_micros() % (1 << 32)).unwrap_or_default(),
        hold_us: u32::try_from(hold).unwrap_or(u32::MAX),
        least_back: u16::try_from(report.largest.saturating_sub(report.least)).unwrap_or(0),
        least_before: u16::try_from(before).unwrap_or(u16::MAX),
        received: report.received,
        runs,
    })
}

/// Makes room for what goes ahead of the frames.
pub(super) fn begin_datagram(security: Security, buf: &mut Vec<u8>) {
    if security == Security::Sealed {
        Keyring::begin(buf);
    }
}
