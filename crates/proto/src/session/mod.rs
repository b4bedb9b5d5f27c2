//! One client and its server over some links: composes everything below it, and is the only place where
//! control flows between modules.
//!
//! ```text
//! TUN ─► ingress (size, class, queue) ─► outbox (link, number, batch) ─► redundancy (copies, symbols) ─► UDP
//! UDP ─► sealing (open) ─► link_table (links) ─► redundancy (restore) ─► inbox (order) ─► TUN
//! ```
//! - `peer`: the peer's run, and what it takes.
//! - `link_table`: the links, and what is derived from them.
//! - `sealing`: keys, and a client's handshakes.
//! - `ingress`, `outbox`, `inbox`, `redundancy`: the ways of packets.
//!
//! Contract: each part owns its state; [`Session`] calls it with what it needs of the others, and passes
//! on what it returns. What is derived from links is brought up to date by [`Session::settle_changes`]
//! alone: at the end of each input, after each frame of a datagram, and before a part reads it.
//!
//! Client and server run the same session. They differ in how a link's path is known (configured, or
//! learnt from the first heartbeat) and whose priority counts (the client's).

mod counters;
mod events;
mod inbox;
mod ingress;
mod link_table;
mod outbox;
mod peer;
mod redundancy;
mod sealing;
mod state_machine;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use bytes::{Buf as _, Bytes};

use self::counters::Counters;
use self::events::Events;
use self::inbox::Inbox;
use self::inbox::frames::{PlainFrame, is_known};
use self::ingress::Ingress;
use self::link_table::{Impact, LinkTable};
use self::outbox::{DatagramWriter, Outbox, Sources};
use self::peer::Peer;
use self::redundancy::Redundancy;
use self::sealing::{Opened, Sealing};
use crate::config::{Role, Security, SessionConfig};
use crate::crypto::aead::Cipher;
use crate::discard::Discard;
use crate::event::Event;
use crate::handshake::{Outcome, TransportKeys, Welcome};
use crate::link::{Arrival, Link};
use crate::packet::{Datagram, LinkId, PacketBuf, Path, SocketId, SocketSet, Transmit};
use crate::qos::classify::needs_order;
use crate::qos::flow::{self, InnerHeader};
use crate::stats::SessionStats;
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::{LinkRole, LinkState};
use crate::wire::control::{CloseReason, Control};
use crate::wire::feedback::{self, Feedback};
use crate::wire::heartbeat::Heartbeat;
use crate::wire::sealed::{DatagramKind, SEALED_HEADER_BYTES, SealedHeader};
use crate::wire::{self, COUNTER_BITS, FRAME_HEADER_BYTES, Kind, Modifiers};

/// One session.
#[derive(Debug)]
pub struct Session {
    role: Role,
    /// Names this run.
    epoch: u32,
    peer: Peer,
    links: LinkTable,
    sealing: Sealing,
    ingress: Ingress,
    outbox: Outbox,
    redundancy: Redundancy,
    inbox: Inbox,
    events: Events,
    counters: Counters,
}

impl Session {
    /// A session without proven links. At most 255 links are used.
    pub fn new(config: SessionConfig, now: Instant) -> Self {
        // The wire carries 32 bits.
        let epoch = u32::try_from(config.epoch & u64::from(u32::MAX)).unwrap_or_default();
        let mut session = Self {
            role: config.role,
            epoch,
            peer: Peer::default(),
            links: LinkTable::new(&config, now),
            sealing: Sealing::new(config.sealing, config.seed, epoch, now),
            ingress: Ingress::new(config.seed, config.rules, config.mtu, config.mss_clamp),
            outbox: Outbox::new(config.policy),
            redundancy: Redundancy::new(&config.recovery),
            inbox: Inbox::new(),
            events: Events::default(),
            counters: Counters::default(),
        };
        session.settle_changes(now);
        session
    }

    /// Names this run of the session.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Takes one inner packet whose header the caller has read already.
    pub fn handle_parsed(
        &mut self,
        packet: PacketBuf,
        header: &InnerHeader,
        now: Instant,
    ) -> Result<(), Discard> {
        if !self.events.is_connected() {
            return self.counters.counted(Err(Discard::NotConnected));
        }
        let discards = &mut self.counters.discards;
        self.ingress.handle_packet(packet, header, &self.links, discards, now)?;
        self.counters.packets_in += 1;
        // Whatever is waited for, this packet may not have to wait for it.
        self.outbox.wait.wake(now);
        Ok(())
    }

    /// The same for packets of a run: all are of the flow and class that the header says.
    pub(crate) fn handle_parsed_run(
        &mut self,
        run: impl Iterator<Item = PacketBuf>,
        header: &InnerHeader,
        now: Instant,
    ) {
        for packet in run {
            debug_assert_eq!(flow::parse(&packet).as_ref(), Ok(header), "a run is of one flow");
            let _ = self.handle_parsed(packet, header, now);
        }
    }

    /// Bytes of packets that wait to be sent, or are kept to be sent again or to restore others.
    pub fn queued_bytes(&self) -> usize {
        self.ingress.queue.bytes() + self.redundancy.kept_bytes(&self.links)
    }

    /// Whether it has events, indices that are free again, or packets to give.
    pub(crate) fn has_output(&self) -> bool {
        self.has_events()
            || self.sealing.keyring.has_freed()
            || !self.inbox.is_empty()
            || self.ingress.has_answers()
    }

    /// The next thing worth a log line.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.poll()
    }

    /// Whether something happened that [`Session::poll_event`] has not told yet: whenever
    /// [`Self::is_connected`] changes, it has.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether a link is usable.
    pub const fn is_connected(&self) -> bool {
        self.events.is_connected()
    }

    /// Whether data waits for links.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.outbox.wait.transmit_at().is_some()
    }

    /// Whether a sealed datagram or a response with this receiver index is for this session.
    pub fn owns(&self, local_index: u32) -> bool {
        self.sealing.owns(local_index)
    }

    /// Whether one of a client's links accepts its server's datagrams from `path`.
    pub fn accepts_from(&self, path: &Path) -> bool {
        self.links.get(LinkId(path.socket.0)).is_some_and(|link| link.accepts_from(path))
    }

    /// A server's handshake with this client is done; its keys serve from the client's first datagram
    /// under them on.
    pub fn install(&mut self, keys: TransportKeys, peer_epoch: u32, now: Instant) {
        self.sealing.keyring.install_next(keys, peer_epoch, now);
    }

    /// The next local index that names nothing any more.
    pub fn poll_freed_index(&mut self) -> Option<u32> {
        self.sealing.keyring.poll_freed()
    }

    /// What a server told its client in the handshake: its addresses and the tunnel's MTU.
    pub const fn lease(&self) -> Option<&Welcome> {
        self.sealing.lease()
    }

    /// The cipher in use; `None`: nothing is sealed (yet).
    pub fn cipher(&self) -> Option<Cipher> {
        self.sealing.keyring.cipher()
    }

    /// How often keys were renewed.
    pub const fn rekeys(&self) -> u64 {
        self.sealing.keyring.rekeys()
    }

    /// What the tunnel's MTU should be: the largest packet that every link in use carries, but for links
    /// that are far too small.
    pub const fn tunnel_mtu(&self) -> u16 {
        self.ingress.tunnel_mtu()
    }

    /// Ceilings for links that are yet to be added, by number.
    pub fn set_tx_rates(&mut self, rates: Vec<Option<BitRate>>) {
        self.links.set_tx_rates(rates);
    }

    /// A link is used for something else from now on. A server's links follow their client's.
    pub fn set_link_role(&mut self, link: LinkId, role: LinkRole, now: Instant) {
        self.links.set_role(link, role, now);
        self.settle_changes(now);
    }

    /// These of the driver's sockets take no more.
    pub(crate) fn set_full(&mut self, full: SocketSet) {
        if self.links.set_full(full) {
            self.outbox.wait.forget_saving();
        }
    }

    /// The kernel refused a datagram of `bytes` from `socket` to `remote` as too large. Whether one of
    /// this session's links has that path.
    pub(crate) fn handle_too_big(
        &mut self,
        socket: SocketId,
        remote: SocketAddr,
        bytes: usize,
        now: Instant,
    ) -> bool {
        let is_own = self.links.on_too_big(socket, remote, bytes, now);
        self.settle_changes(now);
        is_own
    }

    /// Bytes that a link sent and received so far, IP and UDP headers included; handshakes are not
    /// counted.
    pub fn link_bytes(&self, link: LinkId) -> u64 {
        self.links.get(link).map_or(0, Link::carried_total_bytes)
    }

    /// The same of all links, by number.
    pub fn links_bytes(&self) -> impl Iterator<Item = u64> + '_ {
        self.links.iter().map(Link::carried_total_bytes)
    }

    /// Ends the session: the peer is told over every link. Drain what is to be transmitted; nothing else
    /// will come.
    pub fn close(&mut self, reason: CloseReason, now: Instant) {
        self.sealing.hang_up();
        if self.sealing.keyring.can_seal(now) {
            let sealed = self.links.iter_mut().filter(|link| link.security() == Security::Sealed);
            sealed.for_each(|link| link.push_control(Control::Close(reason)));
        }
    }

    /// The figures as of `now`.
    pub fn stats(&self, now: Instant) -> SessionStats {
        let reorder = self.inbox.stats();
        let mut recovery = self.redundancy.resend.stats(&self.links);
        recovery.lost = reorder.lost;
        SessionStats {
            connected: self.is_connected(),
            links: self.links.iter().map(|link| link.stats(now)).collect(),
            flows_active: self.ingress.queue.flows_active(),
            flows_realtime: self.ingress.realtime_flows(now),
            queue_bytes: self.ingress.queue.bytes(),
            queue_delay: self.ingress.queue.oldest_wait(now),
            reorder_held: reorder.held,
            reorder_held_bytes: reorder.held_bytes,
            reorder_held_max: reorder.held_max,
            reorder_timeouts: reorder.timeouts,
            released_late: reorder.released_late,
            duplicates: self.inbox.duplicates(),
            copies: self.redundancy.copies.count(),
            recovery,
            fec_sent: self.redundancy.protection.sent,
            fec_recovered: self.redundancy.protection.recovered,
            fec_refused: self.redundancy.protection.refused,
            packets_in: self.counters.packets_in,
            packets_out: self.counters.packets_out,
            bytes_out: self.counters.bytes_out,
            discards: self.counters.discards.clone(),
        }
    }

    /// Brings up to date what is derived from links, if a link changed.
    fn settle_changes(&mut self, now: Instant) {
        if self.links.has_changes() {
            self.settle(now);
        }
    }

    /// Everything that follows from a change of a link, in this order.
    fn settle(&mut self, now: Instant) {
        let mut transitions = Vec::new();
        let impact = self.links.take_changes(&mut transitions);
        for transition in &transitions {
            let (link, from, to) = (transition.link, transition.before, transition.after);
            self.events.push(Event::LinkState { link, from, to });
            self.sealing.on_transition(*transition, &self.links, now);
            self.redundancy.resend.on_transition(*transition, &mut self.links);
        }
        self.links.give_back(transitions);
        if impact.has(Impact::USE) {
            self.events.set_connected(self.links.is_connected());
        }
        if impact.has(Impact::RATES) {
            self.ingress.set_drain_rate(self.links.drain_rate(now));
            self.outbox.wait.wake(now);
        }
        if impact.has(Impact::DELAYS) {
            let has_keys = self.sealing.keyring.can_seal(now);
            self.ingress.set_delays(self.links.refresh_delays(has_keys, now));
        }
        if impact.has(Impact::SIZES) {
            self.ingress.refresh_sizes(&self.links, &mut self.events);
            // What waited for a size may go, or may not any more.
            self.outbox.wait.wake(now);
        }
        if impact.has(Impact::HOLDS) {
            self.inbox.on_links_changed(self.links.delays(), now);
        }
    }

    /// Takes a datagram of a plain link; the caller has found out which. Every error is counted.
    pub fn handle_link_datagram(
        &mut self,
        link: LinkId,
        datagram: Datagram,
        now: Instant,
    ) -> Result<(), Discard> {
        let result = self.try_plain(link, datagram, now);
        self.settle_changes(now);
        self.counters.counted(result)
    }

    fn try_plain(&mut self, id: LinkId, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        let Datagram { path, mut data, .. } = datagram;
        let link = self.links.get_mut(id).filter(|link| link.security() == Security::Plain);
        let link = link.ok_or(Discard::UnknownPeer)?;
        // A client talks to the address it was told; a server's caller has matched address and link.
        if self.role == Role::Client && link.path().is_none_or(|known| known.remote != path.remote) {
            return Err(Discard::UnknownPeer);
        }
        let frame = PlainFrame::parse(&data)?;
        link.on_datagram(data.len(), now);
        match frame {
            PlainFrame::Heartbeat(seq_num, heartbeat) => {
                self.on_heartbeat(id, (seq_num, &heartbeat), path, now)
            }
            PlainFrame::Data(seq_num, modifiers) => {
                data.advance(FRAME_HEADER_BYTES);
                self.on_data(id, (seq_num, modifiers), data.freeze(), now)
            }
        }
    }

    /// Takes a datagram that came over one of a client's sealed links, or that a server found to be this
    /// session's by its receiver index. Every error is counted.
    pub fn handle_sealed_datagram(&mut self, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        let result = match DatagramKind::of(&datagram.data) {
            Some(DatagramKind::Sealed) => self.try_sealed(datagram, now),
            Some(DatagramKind::Response) => self.try_response(&datagram, now),
            Some(DatagramKind::Cookie) => self.sealing.on_cookie(&datagram, &self.links, now),
            Some(DatagramKind::Initiation) | None => Err(Discard::KindUnsupported),
        };
        self.settle_changes(now);
        self.counters.counted(result)
    }

    fn try_sealed(&mut self, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        let Datagram { path, mut data, waited, is_marked } = datagram;
        let datagram_bytes = data.len();
        let header = SealedHeader::parse(&data)?;
        let id = LinkId(header.link);
        if !self.links.accepts_sealed(id, &path) {
            return Err(Discard::UnknownPeer);
        }
        let opened = self.sealing.keyring.open(&header, &mut data, now)?;
        // From here on the datagram is known to come from the peer.
        self.on_opened(id, path, &opened, datagram_bytes, now)?;
        data.truncate(SEALED_HEADER_BYTES + opened.size);
        data.advance(SEALED_HEADER_BYTES);
        let mut arrival = Arrival {
            key: header.receiver_index,
            is_current: opened.is_current,
            counter: header.counter,
            stamp: header.stamp,
            at: now.saturating_sub(waited),
            bytes: datagram_bytes,
            asks: false,
            is_marked,
        };
        let result = self.on_frames(id, data.freeze(), path, &mut arrival, now);
        if let Some(link) = self.links.get_mut(id) {
            link.on_arrival(&arrival, now);
        }
        if arrival.asks {
            self.links.check_silence(now);
        }
        result
    }

    /// A datagram of the link authenticated: the peer may use new keys, and another path.
    fn on_opened(
        &mut self,
        id: LinkId,
        path: Path,
        opened: &Opened,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Discard> {
        if let Some(epoch) = opened.confirmed {
            if self.peer.epoch() != Some(epoch) {
                // A client that was restarted may come with other links over other ways.
                self.sealing.keyring.drop_previous();
            }
            self.on_proven_epoch(epoch, now);
        }
        let Self { links, sealing, .. } = self;
        if links.on_authenticated(id, path, (opened.newest, bytes), || sealing.token(), now)? {
            self.events.push(Event::PathChanged { link: id, path });
        }
        self.settle_changes(now);
        Ok(())
    }

    /// The frames of a datagram. `arrival` asks for feedback if one of them does.
    fn on_frames(
        &mut self,
        id: LinkId,
        mut frames: Bytes,
        path: Path,
        arrival: &mut Arrival,
        now: Instant,
    ) -> Result<(), Discard> {
        while !frames.is_empty() {
            let (frame, rest) = wire::parse_frame(&frames)?;
            let (seq_num, kind, modifiers) = (frame.seq_num, frame.kind, frame.modifiers);
            let (len, left) = (frame.payload.len(), rest.len());
            if !is_known(&frame) {
                return Err(Discard::KindUnsupported);
            }
            frames.advance(frames.len() - left - len);
            // As a rule a datagram has one frame: what is left of it then is the payload, without
            // another reference.
            let payload = if left == 0 { std::mem::take(&mut frames) } else { frames.split_to(len) };
            match kind {
                Kind::Heartbeat => {
                    let heartbeat = Heartbeat::parse(&payload)?;
                    self.on_heartbeat(id, (seq_num, &heartbeat), path, now)?;
                }
                Kind::Data => {
                    arrival.asks = true;
                    self.on_data(id, (seq_num, modifiers), payload, now)?;
                }
                Kind::Feedback => self.on_feedback(id, seq_num, &payload, now)?,
                Kind::Control => self.on_control(id, Control::parse(&payload)?, &path, arrival.bytes, now),
                Kind::Repair => {
                    let protection = &mut self.redundancy.protection;
                    let (inbox, links) = (&mut self.inbox, &self.links);
                    protection.on_repair((seq_num, modifiers), &payload, inbox, links, now)?;
                }
            }
            self.settle_changes(now);
        }
        Ok(())
    }

    fn on_heartbeat(
        &mut self,
        id: LinkId,
        (seq_num, heartbeat): (u64, &Heartbeat),
        path: Path,
        now: Instant,
    ) -> Result<(), Discard> {
        self.note_epoch(heartbeat.epoch, now)?;
        self.peer.on_heartbeat(heartbeat);
        let moved = self.links.on_heartbeat(id, (seq_num, heartbeat), path, self.epoch, now)?;
        if let Some(path) = moved {
            self.events.push(Event::PathChanged { link: id, path });
        }
        self.note_control(id);
        self.links.on_peer_failures(self.peer.newly_failed(heartbeat), now);
        Ok(())
    }

    fn on_data(
        &mut self,
        id: LinkId,
        frame: (u64, Modifiers),
        payload: Bytes,
        now: Instant,
    ) -> Result<(), Discard> {
        let (seq_num, modifiers) = frame;
        let is_partial = modifiers.has(Modifiers::PARTIAL);
        let packet = if is_partial { PacketBuf::partial(payload) } else { PacketBuf::from(payload) };
        self.links.on_data(id, seq_num & ((1 << COUNTER_BITS) - 1), now)?;
        // The resequencer reads what is derived from links.
        self.settle_changes(now);
        let restores = self.redundancy.protection.restores(seq_num).then(|| packet.clone());
        // TCP's acknowledgements come at once, too.
        if modifiers.has(Modifiers::AT_ONCE) && !needs_order(&packet) {
            self.ingress.on_realtime_received(&packet, now);
        }
        let result = self.inbox.on_packet(frame, id, packet, self.links.delays(), now);
        if let Some(packet) = restores {
            let (inbox, links) = (&mut self.inbox, &self.links);
            self.redundancy.protection.restore_with(frame, &packet, inbox, links, now);
        }
        self.inbox.without_duplicates(result)
    }

    /// The peer tells what arrived, over the link that it is about or over another.
    fn on_feedback(
        &mut self,
        came_over: LinkId,
        seq_num: u64,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Discard> {
        let id = feedback::parse_about(seq_num)?.map_or(came_over, LinkId);
        let feedback = Feedback::parse(payload)?;
        self.links.on_feedback(id, &feedback, id != came_over, now)?;
        self.note_control(id);
        self.settle_changes(now);
        if self.redundancy.resend.on_feedback(id, &mut self.links) {
            self.outbox.wait.wake(now);
        }
        Ok(())
    }

    /// The peer told of the link: its congestion control may have changed.
    fn note_control(&mut self, id: LinkId) {
        let change = self.links.get_mut(id).and_then(Link::take_control_change);
        self.events.extend(change.map(|change| Event::ControlChanged { link: id, change }));
    }

    /// A control frame came over the link, in a datagram of `bytes`.
    fn on_control(&mut self, id: LinkId, control: Control, path: &Path, bytes: usize, now: Instant) {
        match control {
            Control::Challenge(token) => {
                if let Some(link) = self.links.get_mut(id) {
                    link.push_control(Control::Response(token));
                }
            }
            Control::Response(token) => self.links.on_path_response(id, &token, path),
            Control::Close(reason) => self.on_close(reason, now),
            Control::Probe { id: probe, .. } => {
                if let Some(link) = self.links.get_mut(id) {
                    link.on_probe_received();
                    let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
                    link.push_control(Control::ProbeReceived { id: probe, bytes });
                }
            }
            Control::ProbeReceived { id: probe, bytes } => {
                self.links.on_probe_answer(id, probe, bytes, now);
            }
            Control::Unknown => {}
        }
    }

    /// The peer ended the session: the next one begins anew, perhaps with what names the same run (a
    /// client that was removed and added again, say).
    fn on_close(&mut self, reason: CloseReason, now: Instant) {
        self.events.push(Event::Closed(reason));
        self.sealing.keyring.clear();
        self.inbox.reset();
        self.redundancy.clear();
        self.links.on_close(now);
        // The dialer is told last: what it knows of links must not delay what the reason asks for.
        self.settle_changes(now);
        self.sealing.on_closed(reason, now);
    }

    /// A server's response to a client's handshake.
    fn try_response(&mut self, datagram: &Datagram, now: Instant) -> Result<(), Discard> {
        if !self.accepts_from(&datagram.path) {
            return Err(Discard::UnknownPeer);
        }
        let id = LinkId(datagram.path.socket.0);
        match self.sealing.on_response(&datagram.data, now)? {
            Outcome::Refused(refusal) => self.events.push(Event::Refused(refusal)),
            Outcome::Welcome(welcome, keys) => self.on_welcome(id, datagram.path, welcome, keys, now),
        }
        Ok(())
    }

    /// The first answer wins: its keys serve from now on, and every link says so to the server at once.
    fn on_welcome(&mut self, id: LinkId, path: Path, welcome: Welcome, keys: TransportKeys, now: Instant) {
        let is_same_run = self.peer.epoch() == Some(welcome.epoch);
        self.sealing.install(keys, welcome.epoch, is_same_run, now);
        self.on_proven_epoch(welcome.epoch, now);
        for link in self.links.iter_mut().filter(|link| link.security() == Security::Sealed) {
            if link.id() == id && link.state() == LinkState::Down {
                link.adopt(path);
            }
            link.hasten_heartbeat(now);
        }
        if self.links.has_proven() {
            self.sealing.on_proven();
        }
        if self.sealing.set_lease(welcome) {
            self.events.push(Event::Leased);
        }
    }

    /// A handshake proved the peer's run: it is the present one, even if it was retired.
    fn on_proven_epoch(&mut self, epoch: u32, now: Instant) {
        self.peer.on_proven_epoch(epoch);
        // Never refused, since it is not retired.
        let _ = self.note_epoch(epoch, now);
    }

    /// The peer's run is `epoch`; `Err` when that run is over.
    fn note_epoch(&mut self, epoch: u32, now: Instant) -> Result<(), Discard> {
        if self.peer.on_epoch(epoch)? {
            self.inbox.reset();
            self.redundancy.clear();
            self.links.on_peer_restart(now);
            self.settle_changes(now);
            self.events.push(Event::PeerRestarted);
        }
        Ok(())
    }

    /// A batch of data, or of what goes with it.
    fn transmit_data(
        &mut self,
        buf: &mut Vec<u8>,
        max_segments: NonZeroUsize,
        now: Instant,
    ) -> Option<Transmit> {
        let Self { peer, links, sealing, ingress, outbox, redundancy, counters, .. } = self;
        let keyring = &mut sealing.keyring;
        let mut writer = DatagramWriter { buf, links, keyring, max_segments, now };
        if let Some(copies) = redundancy.copies.transmit(&mut writer) {
            return Some(copies);
        }
        if let Some(repair) = redundancy.protection.transmit(&mut writer) {
            return Some(repair);
        }
        let discards = &mut counters.discards;
        outbox.transmit(&mut writer, &mut Sources { ingress, redundancy, peer, discards })
    }
}
