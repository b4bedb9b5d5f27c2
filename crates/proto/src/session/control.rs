//! [`Session`]: its parts, and the control flow between them.

use std::net::SocketAddr;

use bytes::{Buf as _, Bytes};

use super::counters::Counters;
use super::events::Events;
use super::figures::{self, Parts};
use super::flows::{self, FlowFigures};
use super::inbox::Inbox;
use super::inbox::frames::{self, PlainFrame, SealedFrame};
use super::inbox::quota::Quota;
use super::ingress::Ingress;
use super::link_table::{Impact, LinkTable};
use super::outbox::Outbox;
use super::peer::Peer;
use super::redundancy::Redundancy;
use super::sealing::{OpenedDatagram, Sealing, Shown};
use crate::config::{LinkConfig, Security, Sending, SessionConfig};
use crate::crypto::aead::Cipher;
use crate::crypto::keys::{PresharedKey, PrivateKey};
use crate::discard::Discard;
use crate::event::{Event, StateChange};
use crate::handshake::{Outcome, Refusal, SecretName, SharedSecret, TransportKeys, Welcome};
use crate::inner::header;
use crate::link::Arrival;
use crate::packet::{Datagram, LinkId, PacketBuf, Path, SocketId, SocketSet, UdpFlow};
use crate::position::Position;
use crate::qos::classify::needs_order;
use crate::qos::flow::{FlowId, InnerHeader};
use crate::stats::SessionStats;
use crate::streams::{StreamEvent, Streams};
use crate::time::Instant;
use crate::trace::{KeyChange, ResetCause, Tracer};
use crate::units::BitRate;
use crate::view::{LinkRole, LinkState};
use crate::wire::control::{CloseReason, Control};
use crate::wire::exchange::ExchangeFrame;
use crate::wire::feedback::{self, Feedback};
use crate::wire::heartbeat::Heartbeat;
use crate::wire::sealed::DatagramKind;
use crate::wire::{COUNTER_BITS, FRAME_HEADER_BYTES, Kind, Modifiers};

/// One session.
#[derive(Debug)]
pub struct Session {
    /// Names this run.
    pub(super) epoch: u32,
    pub(super) peer: Peer,
    pub(super) links: LinkTable,
    pub(super) sealing: Sealing,
    pub(super) ingress: Ingress,
    pub(super) outbox: Outbox,
    pub(super) redundancy: Redundancy,
    pub(super) inbox: Inbox,
    pub(super) streams: Streams,
    pub(super) events: Events,
    pub(super) counters: Counters,
    pub(super) tracer: Tracer,
}

impl Session {
    /// A session without proven links. At most 32 links are used.
    pub fn new(config: SessionConfig, now: Instant) -> Self {
        // The wire carries 32 bits.
        let epoch = u32::try_from(config.epoch & u64::from(u32::MAX)).unwrap_or_default();
        let mut session = Self {
            epoch,
            peer: Peer::default(),
            links: LinkTable::new(&config, now),
            sealing: Sealing::new(config.sealing, config.seed, epoch, now),
            ingress: Ingress::new(config.seed, config.rules, config.mtu, config.mss_clamp),
            outbox: Outbox::new(config.policy),
            redundancy: Redundancy::new(&config.recovery),
            inbox: Inbox::new(),
            streams: Streams::new(),
            events: Events::default(),
            counters: Counters::default(),
            tracer: Tracer::default(),
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
        let discards = &mut self.counters.discards;
        if !self.events.is_connected() {
            return run.for_each(|_| discards.count(Discard::NotConnected));
        }
        let taken = self.ingress.handle_run(run, header, &self.links, discards, now);
        self.counters.packets_in += taken;
        if taken > 0 {
            self.outbox.wait.wake(now);
        }
    }

    /// Bytes of packets that wait to be sent, are kept to be sent again or to restore others, or
    /// are held until others come.
    pub fn held_bytes(&self) -> usize {
        let sending = self.ingress.queue.bytes() + self.redundancy.kept_bytes(&self.links);
        sending + self.inbox.held_bytes() + self.streams.held_bytes()
    }

    /// The session holds too much: it gives up what it waits for until no more than `bytes` are
    /// held in order, and what is kept to restore others.
    pub(crate) fn shed(&mut self, bytes: usize, now: Instant) {
        self.inbox.shed(bytes, self.links.delays(), now);
        self.redundancy.protection.forget_received();
        self.streams.shed(bytes);
    }

    /// What the peer's datagrams made this side look at or move so far.
    pub(crate) fn touched(&self) -> u64 {
        let restoring = self.redundancy.protection.touched();
        let exchanging = self.sealing.touched();
        self.counters.touched + self.links.touched() + self.inbox.touched() + restoring + exchanging
    }

    /// Whether it has events, indices that are free again, or packets to give.
    pub(crate) fn has_output(&self) -> bool {
        self.has_events()
            || self.sealing.keyring.has_freed()
            || !self.inbox.is_empty()
            || self.ingress.has_answers()
            || self.streams.has_events()
    }

    /// The next thing worth a log line.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.poll()
    }

    /// Whether [`Self::poll_event`] has something: it has when [`Self::is_connected`] changed.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The streams, to be read, written, opened and ended.
    pub const fn streams_mut(&mut self, now: Instant) -> &mut Streams {
        // What is written may go.
        self.outbox.wait.wake(now);
        self.streams.set_time(now);
        &mut self.streams
    }

    /// Whether the peer takes streams: it says so, and every link keeps what it sends until it is
    /// known to have arrived.
    pub fn takes_streams(&self) -> bool {
        self.is_connected() && self.peer.sealed.takes_streams() && self.links.are_sealed()
    }

    /// The session ends: so do its streams.
    pub(crate) fn end_streams(&mut self, now: Instant) {
        self.streams.clear();
        self.move_pieces(now);
        self.ingress.queue.forget_messages(now);
    }

    /// What happened to a stream.
    pub fn poll_stream_event(&mut self) -> Option<StreamEvent> {
        self.streams.poll_event()
    }

    /// Pieces of streams join the queue, and those of streams that are over leave it.
    pub(super) fn move_pieces(&mut self, now: Instant) {
        while let Some(stream) = self.streams.poll_abandoned() {
            self.ingress.queue.forget_stream(stream, now);
            self.redundancy.resend.forget_stream(stream);
        }
        while let Some(piece) = self.streams.poll_piece() {
            let name = piece.position().and_then(|at| self.streams.name(at.stream()));
            self.ingress.push_piece(piece, name, now);
        }
        self.outbox.wait.wake(now);
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
        self.links.get(path.socket.link()).is_some_and(|link| link.path().accepts_from(path))
    }

    /// The secret that a client's handshake names, if its exchange is known here.
    pub fn secret(&self, name: SecretName) -> Option<&SharedSecret> {
        self.sealing.secret(name)
    }

    /// Whether the keys in use are closed to an observer with a quantum computer.
    pub fn is_hybrid(&self) -> bool {
        self.sealing.keyring.secret().is_some()
    }

    /// A server's handshake is done: its keys serve from the client's first datagram under them on.
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

    /// The largest packet that every link in use carries, but for links that are far too small.
    pub const fn tunnel_mtu(&self) -> u16 {
        self.ingress.tunnel_mtu()
    }

    /// From now on this side sends so. What waits or is under way goes on.
    pub fn set_sending(&mut self, sending: &Sending, now: Instant) {
        self.outbox.set_policy(sending.policy);
        self.redundancy.set_config(&sending.recovery);
        self.links.set_recovers(sending.recovery.resend);
        self.ingress.set_rules(sending.rules.clone());
        self.settle_changes(now);
        self.outbox.wait.wake(now);
    }

    /// A server's ceilings of what it sends, by link number, also for links yet to be added.
    pub fn set_tx_rates(&mut self, rates: Vec<Option<BitRate>>, now: Instant) {
        self.links.set_tx_rates(rates, now);
        self.settle_changes(now);
    }

    /// A client's link has this priority from now on. A server's links follow their client's.
    pub fn set_link_priority(&mut self, link: LinkId, priority: u8, now: Instant) {
        self.links.set_priority(link, priority, now);
        self.settle_changes(now);
    }

    /// A client's link has these ceilings from now on: of what is sent on it, and of what the peer
    /// is to send.
    pub fn set_link_rates(&mut self, link: LinkId, rates: [Option<BitRate>; 2], now: Instant) {
        self.links.set_rates(link, rates, now);
        self.settle_changes(now);
    }

    /// A link is used for something else from now on. A server's links follow their client's.
    pub fn set_link_role(&mut self, link: LinkId, role: LinkRole, now: Instant) {
        self.links.set_role(link, role, now);
        self.settle_changes(now);
    }

    /// A client's link with this number is this line from now on: a number that had none, or the
    /// next one, or one whose line is retired. At most [`crate::config::LINKS_MAX`].
    pub fn set_link(&mut self, id: LinkId, config: &LinkConfig, now: Instant) {
        self.links.set(id, config, now);
        self.settle_changes(now);
        // Where no other link is proven a handshake goes over it at once.
        self.sealing.on_carrier_found(id, &self.links, now);
    }

    /// No line has this number any more: what the link carried goes over others, and the peer
    /// forgets it. A number is for another line only when no datagram that was sealed for this one
    /// opens any more ([`crate::client::Client::free_number`]).
    pub fn retire_link(&mut self, id: LinkId, now: Instant) {
        self.links.give_up(id, now);
        // Before it is forgotten what the link carried.
        self.settle_changes(now);
        self.links.retire(id, now);
        self.settle_changes(now);
    }

    /// The client retired these links, a bit each.
    fn on_peer_retired(&mut self, retired: u32, now: Instant) {
        while let Some(link) = self.links.newly_retired(retired) {
            self.retire_link(link, now);
            self.events.push(Event::LinkRetired { link });
        }
    }

    /// These of the driver's sockets take no more.
    pub(crate) fn set_full(&mut self, full: SocketSet) {
        if self.links.views.set_full(full) {
            self.outbox.wait.forget_saving();
        }
    }

    /// The kernel refused a datagram of `bytes` as too large. Whether a link has that path.
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

    /// A client's link may send to these addresses of its server from now on, the first preferred.
    pub(crate) fn set_candidates(&mut self, id: LinkId, candidates: Vec<Path>, now: Instant) {
        if self.links.set_candidates(id, candidates, now) {
            self.settle_changes(now);
            self.sealing.on_link_moved(id, &self.links, now);
        }
    }

    /// A client's link sends to this port of its server from now on.
    pub(crate) fn set_port(&mut self, id: LinkId, port: u16) {
        self.links.set_port(id, port);
    }

    /// Whether the link is down.
    pub(crate) fn is_link_down(&self, id: LinkId) -> bool {
        self.links.get(id).is_none_or(|link| link.state() == LinkState::Down)
    }

    /// Bytes that each link sent and received so far, with IP and UDP headers, without handshakes.
    pub fn links_bytes(&self) -> impl Iterator<Item = u64> + '_ {
        self.links.iter().map(|link| link.traffic().total_bytes())
    }

    /// Client: `next` is to take the place of this client's key. The server is told by the
    /// handshakes that show it; until one is answered the present key serves
    /// ([`Event::KeyReplaced`]).
    pub fn rotate(&mut self, next: PrivateKey, now: Instant) {
        self.sealing.rotate(next, now);
    }

    /// Client: it was enrolled anew.
    pub(crate) fn enrol_anew(&mut self, preshared: PresharedKey, run: u64, now: Instant) {
        self.sealing.enrol_anew(preshared, run, now);
    }

    /// Client: the server knows the next key from another session.
    pub(crate) fn adopt_next(&mut self) {
        self.sealing.adopt_next();
    }

    /// Ends the session: the peer is told over every link. Drain it, and use it no more.
    pub fn close(&mut self, reason: CloseReason, now: Instant) {
        self.end_streams(now);
        self.sealing.hang_up();
        if self.sealing.keyring.can_seal(now) {
            self.links.push_close(reason);
        }
    }

    /// The figures as of `now`.
    pub fn stats(&self, now: Instant) -> SessionStats {
        let parts = Parts {
            is_connected: self.is_connected(),
            links: &self.links,
            ingress: &self.ingress,
            redundancy: &self.redundancy,
            inbox: &self.inbox,
            streams: &self.streams,
            counters: &self.counters,
            touched: self.touched(),
        };
        figures::of(&parts, now)
    }

    /// Shows each flow that had packets in the last 10 s.
    pub fn each_flow(&self, now: Instant, show: &mut dyn FnMut(FlowFigures)) {
        let Self { ingress, inbox, streams, .. } = self;
        flows::each(ingress, &inbox.meters, streams, now).for_each(show);
    }

    /// Brings up to date what is derived from links, if a link changed.
    pub(super) fn settle_changes(&mut self, now: Instant) {
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
            self.tracer.on_link_state(link, from, to, now);
            self.sealing.on_transition(*transition, &self.links, now);
            let Self { redundancy, links, streams, tracer, .. } = self;
            let resent = redundancy.resend.on_transition(*transition, links, streams, tracer, now);
            let (cause, silent) = transition.why;
            let why = StateChange { cause, silent, resent };
            self.events.push(Event::LinkState { link, from, to, why });
        }
        self.links.give_back(transitions);
        if impact.has(Impact::USE) {
            self.events.set_connected(self.links.is_connected());
        }
        if impact.has(Impact::RATES) {
            self.ingress.set_drain_rate(self.links.drain_rate(now));
            self.outbox.wait.wake(now);
        }
        // Each of them looks at all links.
        self.counters.touched += u64::from(impact.parts()) * self.links.len() as u64;
        if impact.has(Impact::DELAYS) {
            let has_keys = self.sealing.keyring.can_seal(now);
            let delays = self.links.refresh_delays(has_keys, now);
            self.ingress.set_delays(delays, self.outbox.stripes_flows());
        }
        if impact.has(Impact::RATES) || impact.has(Impact::DELAYS) || impact.has(Impact::SIZES) {
            let (backlog, rate) = (self.links.stream_backlog(now), self.links.drain_rate(now).0);
            self.streams.set_links(self.ingress.stream_mtu(), backlog, rate);
        }
        if impact.has(Impact::SIZES) {
            self.ingress.refresh_sizes(&self.links, &mut self.events);
            // What waited for a size may go, or may not any more.
            self.outbox.wait.wake(now);
        }
        if impact.has(Impact::HOLDS) {
            self.inbox.on_links_changed();
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
        self.links.accepts_plain(id, &path)?;
        let frame = PlainFrame::parse(&data)?;
        self.links.on_plain_datagram(id, data.len(), now);
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

    /// Takes a datagram that came over one of a client's sealed links, or that a server found to be
    /// this session's by its receiver index. Every error is counted.
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
        let path = datagram.path;
        let (id, opened, frames) = self.sealing.open(datagram, &self.links, now)?;
        // From here on the datagram is known to come from the peer.
        self.on_opened(id, path, &opened, now)?;
        let mut arrival = opened.arrival;
        let result = self.on_frames(id, frames, (opened.flow, path), &mut arrival, now);
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
        opened: &OpenedDatagram,
        now: Instant,
    ) -> Result<(), Discard> {
        if let Some(epoch) = opened.confirmed {
            self.tracer.on_keys(KeyChange::Confirmed, self.rekeys(), now);
            self.sealing.on_confirmed(self.peer.sealed.epoch() == Some(epoch));
            self.on_proven_epoch(epoch, now);
        }
        let Self { links, sealing, .. } = self;
        let from = (opened.flow, path);
        links.on_authenticated(id, from, (opened.newest, opened.arrival.bytes), || sealing.token(), now)?;
        self.settle_changes(now);
        Ok(())
    }

    /// The frames of a datagram. `arrival` asks for feedback if one of them does.
    fn on_frames(
        &mut self,
        id: LinkId,
        mut frames: Bytes,
        (flow, path): (UdpFlow, Path),
        arrival: &mut Arrival,
        now: Instant,
    ) -> Result<(), Discard> {
        let mut quota = Quota::default();
        while let Some(SealedFrame { seq_num, kind, modifiers, payload }) = SealedFrame::take(&mut frames)? {
            if let Err(reason) = quota.take(kind) {
                self.counters.discards.count(reason);
                continue;
            }
            match kind {
                Kind::Heartbeat => {
                    let heartbeat = Heartbeat::parse(&payload)?;
                    self.on_heartbeat(id, (seq_num, &heartbeat), path, now)?;
                }
                Kind::Data if Position::parse(seq_num).is_some() => {
                    arrival.asks = true;
                    self.on_piece(id, seq_num, modifiers, payload, now)?;
                }
                Kind::Data => {
                    arrival.asks = true;
                    self.on_data(id, (seq_num, modifiers), payload, now)?;
                }
                Kind::Feedback => self.on_feedback(id, seq_num, &payload, now)?,
                Kind::Control => {
                    if let Some(frame) = ExchangeFrame::parse(&payload)? {
                        self.sealing.on_exchange(id, &frame, now)?;
                        continue;
                    }
                    let control = Control::parse(&payload)?;
                    match control {
                        Control::Close(reason) => self.on_close(reason, now),
                        Control::Stream(message) => {
                            arrival.asks = true;
                            self.streams.on_message(&message, now);
                        }
                        Control::Challenge(_)
                        | Control::Response(_)
                        | Control::Probe { .. }
                        | Control::ProbeReceived { .. }
                        | Control::Figures(_)
                        | Control::Unknown => {}
                    }
                    let from = (flow, &path);
                    if let Some(path) = self.links.on_control(id, &control, from, arrival.bytes, now) {
                        self.events.push(Event::PathChanged { link: id, path });
                    }
                }
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
        let security = self.links.security(id).ok_or(Discard::UnknownPeer)?;
        match security {
            Security::Plain => self.note_plain_epoch(heartbeat.epoch, now)?,
            // A handshake proved the epoch, and every heartbeat under its keys has it.
            Security::Sealed if self.peer.sealed.epoch() != Some(heartbeat.epoch) => {
                return Err(Discard::HeartbeatMalformed);
            }
            Security::Sealed => {}
        }
        let peer = self.peer.over_mut(security);
        peer.on_heartbeat(heartbeat);
        let told = peer.told(heartbeat);
        if let Some(path) = self.links.on_heartbeat(id, (seq_num, heartbeat), path, self.epoch, now)? {
            self.events.push(Event::PathChanged { link: id, path });
        }
        self.events.extend(self.links.take_control_change(id));
        self.links.on_peer_failures(told.newly_failed, security, now);
        if told.retired != 0 && security == Security::Sealed {
            self.on_peer_retired(told.retired, now);
        }
        self.trace_figures(id, now);
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
        let packet = frames::packet(payload, modifiers);
        // Nothing else is worth a place in the resequencer.
        if !header::is_whole(&packet) {
            return Err(Discard::NotIp);
        }
        self.links.on_data(id, seq_num & ((1 << COUNTER_BITS) - 1), now)?;
        // The resequencer reads what is derived from links.
        self.settle_changes(now);
        let security = self.links.security(id).ok_or(Discard::UnknownPeer)?;
        let is_sealed = security == Security::Sealed;
        // What a plain link brings restores nothing and, beside sealed links, teaches no class.
        let restores = is_sealed && self.redundancy.protection.restores(seq_num);
        let restores = restores.then(|| packet.clone());
        let teaches = is_sealed || self.peer.sealed.epoch().is_none();
        // TCP's acknowledgements come at once, too.
        if teaches && modifiers.has(Modifiers::AT_ONCE) && !needs_order(&packet) {
            self.ingress.on_realtime_received(&packet, now);
        }
        let result = self.inbox.on_packet(frame, (id, security), packet, self.links.delays(), now);
        if let Some(packet) = restores {
            let (inbox, links) = (&mut self.inbox, &self.links);
            self.redundancy.protection.restore_with(frame, &packet, inbox, links, now);
        }
        self.inbox.without_duplicates(result)
    }

    /// Bytes of a stream came.
    fn on_piece(
        &mut self,
        id: LinkId,
        seq_num: u64,
        modifiers: Modifiers,
        payload: Bytes,
        now: Instant,
    ) -> Result<(), Discard> {
        let at = Position::parse(seq_num).filter(|_| modifiers.is_none());
        let at = at.ok_or(Discard::KindUnsupported)?;
        self.links.on_data(id, at.offset(), now)?;
        let meters = &mut self.inbox.meters;
        meters.note_stream(at.stream(), self.streams.name(at.stream()), now);
        meters.count(FlowId::of_stream(at.stream()), id, payload.len(), now);
        self.streams.on_piece(at, payload);
        Ok(())
    }

    /// The peer tells what arrived, over the link that it is about or over another.
    pub(super) fn on_feedback(
        &mut self,
        came_over: LinkId,
        seq_num: u64,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Discard> {
        let id = feedback::parse_about(seq_num)?.map_or(came_over, LinkId);
        let feedback = Feedback::parse(payload)?;
        self.links.on_feedback(id, &feedback, id != came_over, now)?;
        self.events.extend(self.links.take_control_change(id));
        self.events.extend(self.links.take_flows_change(id));
        self.settle_changes(now);
        let Self { redundancy, links, streams, tracer, .. } = self;
        if redundancy.resend.on_feedback(id, links, streams, tracer, now) {
            self.outbox.wait.wake(now);
        }
        self.trace_figures(id, now);
        Ok(())
    }

    /// The link's figures may have changed.
    fn trace_figures(&mut self, id: LinkId, now: Instant) {
        let Self { redundancy, links, tracer, .. } = self;
        tracer.on_figures(|| figures::of_link(id, links, redundancy, now), now);
    }

    /// The peer ended the session. The next one begins anew, even if it names the same run.
    fn on_close(&mut self, reason: CloseReason, now: Instant) {
        self.events.push(Event::Closed(reason));
        self.tracer.on_reset(ResetCause::PeerClosed, now);
        self.sealing.keyring.clear();
        self.inbox.reset();
        self.redundancy.clear();
        self.end_streams(now);
        self.links.on_close(now);
        // The dialer is told last: what it knows of links must not delay what the reason asks for.
        self.settle_changes(now);
        self.sealing.on_closed(reason, now);
    }

    /// A server's response to a client's handshake.
    fn try_response(&mut self, datagram: &Datagram, now: Instant) -> Result<(), Discard> {
        let (outcome, shown) = self.sealing.on_response(datagram, &self.links, now)?;
        match (outcome, shown) {
            (Outcome::Refused(refusal), Shown::Next) if refusal != Refusal::KeyExpired => {
                self.events.push(Event::KeyRefused(refusal));
            }
            (Outcome::Refused(refusal), _) => self.events.push(Event::Refused(refusal)),
            (Outcome::Welcome(welcome, keys), shown) => {
                if shown == Shown::Next {
                    self.events.push(Event::KeyReplaced);
                }
                self.on_welcome(datagram.path, welcome, keys, now);
            }
        }
        Ok(())
    }

    /// The first answer wins: its keys serve from now on, and every link tells the server at once.
    fn on_welcome(&mut self, path: Path, welcome: Welcome, keys: TransportKeys, now: Instant) {
        let is_same_run = self.peer.sealed.epoch() == Some(welcome.epoch);
        self.sealing.install(keys, &welcome, is_same_run, now);
        self.tracer.on_keys(KeyChange::Installed, self.rekeys(), now);
        self.on_proven_epoch(welcome.epoch, now);
        self.links.on_welcome(path, now);
        self.sealing.note_proven(&self.links);
        if self.sealing.set_lease(welcome) {
            self.events.push(Event::Leased);
        }
    }

    /// A handshake proved the peer's run: it is the present one, even if it was retired.
    fn on_proven_epoch(&mut self, epoch: u32, now: Instant) {
        let Peer { sealed, plain } = &mut self.peer;
        sealed.on_proven_epoch(epoch);
        plain.on_proven_epoch(epoch);
        // Never refused, since it is not retired.
        let is_other = sealed.on_epoch(epoch).unwrap_or_default();
        let is_other_plain = plain.epoch().is_some() && plain.on_epoch(epoch).unwrap_or_default();
        if is_other || is_other_plain {
            self.on_peer_restart(now);
        }
    }

    /// A plain link's heartbeat says that the peer's run is `epoch`; `Err` when that run is over.
    /// Beside sealed links that concerns the plain ones alone.
    fn note_plain_epoch(&mut self, epoch: u32, now: Instant) -> Result<(), Discard> {
        let is_other = self.peer.plain.on_epoch(epoch)?;
        if is_other && self.peer.sealed.epoch().is_none() {
            self.on_peer_restart(now);
        } else if is_other {
            self.inbox.reset_plain();
            self.links.on_peer_restart(&[Security::Plain], now);
            self.settle_changes(now);
        }
        Ok(())
    }

    /// The peer began anew.
    fn on_peer_restart(&mut self, now: Instant) {
        self.inbox.reset();
        self.redundancy.clear();
        self.end_streams(now);
        self.links.on_peer_restart(&[Security::Sealed, Security::Plain], now);
        self.settle_changes(now);
        self.events.push(Event::PeerRestarted);
        self.tracer.on_reset(ResetCause::PeerRestarted, now);
    }
}
