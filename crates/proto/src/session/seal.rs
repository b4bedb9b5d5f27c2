//! What only sealed links have: handshakes in and out, sealed datagrams in, control frames, paths that prove themselves.

use std::time::Duration;

use bytes::{Buf as _, Bytes};

use super::Session;
use super::keyring::{Keyring, Opened, SEALING_BYTES, SealedAs};
use super::receive::is_known;
use crate::config::{LINKS_MAX, LinkConfig, Role, Security};
use crate::crypto::aead::Cipher;
use crate::discard::Discard;
use crate::event::Event;
use crate::handshake::{Outcome, TransportKeys, Welcome};
use crate::link::{Arrival, Link, Outgoing};
use crate::packet::{Datagram, LinkId, Path, Transmit};
use crate::time::Instant;
use crate::view::{LinkRole, LinkState};
use crate::wire::control::{CloseReason, Control};
use crate::wire::feedback::{self, Feedback};
use crate::wire::sealed::{DatagramKind, SEALED_HEADER_BYTES, SealedHeader};
use crate::wire::{self, FRAME_HEADER_BYTES, Kind, Modifiers};

/// Links are looked at for silence so often; after a longer pause anew.
const LOOK_STEP: Duration = Duration::from_millis(5);
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(10);

impl Session {
    /// Takes a datagram that came over one of a client's sealed links, or that a server found to be this session's by its
    /// receiver index. Every error is counted.
    pub fn handle_sealed_datagram(&mut self, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        let result = match DatagramKind::of(&datagram.data) {
            Some(DatagramKind::Sealed) => self.try_sealed(datagram, now),
            Some(DatagramKind::Response) => self.try_response(&datagram, now),
            Some(DatagramKind::Cookie) => self.try_cookie(&datagram, now),
            Some(DatagramKind::Initiation) | None => Err(Discard::KindUnsupported),
        };
        if let Err(reason) = result {
            self.counters.discards.count(reason);
        }
        result
    }

    /// Whether a sealed datagram or a response with this receiver index is for this session.
    pub fn owns(&self, local_index: u32) -> bool {
        self.keyring.owns(local_index) || self.dialer.as_ref().is_some_and(|dialer| dialer.owns(local_index))
    }

    /// Whether one of a client's links accepts its server's datagrams from `path`.
    pub fn accepts_from(&self, path: &Path) -> bool {
        self.links.get(path.socket.index()).is_some_and(|link| link.accepts_from(path))
    }

    /// Whether something happened that [`Session::poll_event`] has not told yet: whenever [`Self::is_connected`] changes, it has.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether a link is usable.
    pub const fn is_connected(&self) -> bool {
        self.connected
    }

    /// A server's handshake with this client is done; its keys serve from the client's first datagram under them on.
    pub fn install(&mut self, keys: TransportKeys, peer_epoch: u32, now: Instant) {
        self.keyring.install_next(keys, peer_epoch, now);
    }

    /// The next local index that names nothing any more.
    pub fn poll_freed_index(&mut self) -> Option<u32> {
        self.keyring.poll_freed()
    }

    /// What a server told its client in the handshake: its addresses and the tunnel's MTU.
    pub const fn lease(&self) -> Option<&Welcome> {
        self.lease.as_ref()
    }

    /// The cipher in use; `None`: nothing is sealed (yet).
    pub fn cipher(&self) -> Option<Cipher> {
        self.keyring.cipher()
    }

    /// How often keys were renewed.
    pub const fn rekeys(&self) -> u64 {
        self.keyring.rekeys()
    }

    /// Ceilings for links that are yet to be met, by number.
    pub fn set_tx_rates(&mut self, rates: Vec<Option<crate::units::BitRate>>) {
        self.tx_rates = rates;
    }

    /// Ends the session: the peer is told over every link. Drain what is to be transmitted; nothing else will come.
    pub fn close(&mut self, reason: CloseReason, now: Instant) {
        self.dialer = None;
        if self.keyring.can_seal(now) {
            for link in self.links.iter_mut().filter(|link| link.security() == Security::Sealed) {
                link.push_control(Control::Close(reason));
            }
        }
    }

    /// Whether the link may send at all: it needs somewhere to send to, and a sealed one keys.
    pub(super) fn speaks(&self, link: &Link) -> bool {
        link.has_path()
            && match link.security() {
                Security::Plain => true,
                Security::Sealed => self.keyring.serves(),
            }
    }

    /// The due handshake message, if any.
    pub(super) fn transmit_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Transmit> {
        let dialer = self.dialer.as_mut().filter(|dialer| dialer.has_output())?;
        let start = buf.len();
        let (link, path) = dialer.poll_transmit(buf)?;
        let size = buf.len() - start;
        Some(Transmit::new(link, path, size, size))
    }

    /// A control frame that is due. What an unproven address may not be sent yet is dropped: challenges are repeated.
    pub(super) fn transmit_control(&mut self, buf: &mut Vec<u8>, now: Instant) -> Option<Transmit> {
        if !self.keyring.can_seal(now) {
            return None;
        }
        for link in &mut self.links {
            let Some(path) = link.path().filter(|_| link.security() == Security::Sealed) else { continue };
            while let Some(control) = link.poll_control(now) {
                let len = control.payload_bytes();
                let size = SEALING_BYTES + FRAME_HEADER_BYTES + usize::from(len);
                if !link.try_spend(size) {
                    continue;
                }
                let start = buf.len();
                Keyring::begin(buf);
                wire::put_frame_header(buf, 0, Kind::Control, Modifiers::NONE, len);
                control.put(buf);
                let sealed_as = self.keyring.seal(link.id().0, buf, start, now);
                link.on_sent(size, Outgoing::control(sealed_as.map(SealedAs::name)), now);
                return Some(Transmit::new(link.id(), path, size, size));
            }
        }
        None
    }

    /// Time has passed: keys and handshakes.
    pub(super) fn on_sealing_time(&mut self, now: Instant) {
        let gone = self.keyring.on_time(now);
        let Some(dialer) = &mut self.dialer else { return };
        if gone || self.keyring.is_used_up() {
            dialer.on_keys_gone(now);
        }
        let sealed = self.links.iter().filter(|link| link.security() == Security::Sealed);
        let targets = sealed.flat_map(|link| link.candidates().iter().map(|path| (link.id(), *path)));
        dialer.on_time(targets, now);
    }

    /// A link's state changed: a client may need new keys, or have what it needs.
    pub(super) fn note_proof(&mut self, before: LinkState, after: LinkState, now: Instant) {
        let Some(dialer) = &mut self.dialer else { return };
        let mut sealed = self.links.iter().filter(|link| link.security() == Security::Sealed);
        if after == LinkState::Up {
            dialer.on_proven(self.keyring.rekey_at());
        } else if before == LinkState::Up && !sealed.any(|link| link.state() == LinkState::Up) {
            dialer.on_unproven(now);
        }
    }

    /// A link's interface has its carrier: where no link is proven it is asked over at once what a pause may long be waited for.
    pub(super) fn note_found(&mut self, id: LinkId, now: Instant) {
        let Some(dialer) = &mut self.dialer else { return };
        let mut sealed = self.links.iter().filter(|link| link.security() == Security::Sealed);
        let is_sealed = sealed.clone().any(|link| link.id() == id);
        if is_sealed && !sealed.any(|link| link.state() == LinkState::Up) {
            dialer.on_link_found(self.keyring.can_seal(now), now);
        }
    }

    fn try_sealed(&mut self, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        let Datagram { path, mut data, waited, is_marked } = datagram;
        let datagram_bytes = data.len();
        let header = SealedHeader::parse(&data)?;
        let id = LinkId(header.link);
        match self.role {
            Role::Client => {
                let link = self.links.get(id.index()).ok_or(Discard::UnknownPeer)?;
                // The link's own socket, and an address that we send to.
                if path.socket.0 != id.0 || link.security() != Security::Sealed || !link.accepts_from(&path) {
                    return Err(Discard::UnknownPeer);
                }
            }
            Role::Server => {
                let plain = self.links.get(id.index()).is_some_and(|link| link.security() == Security::Plain);
                if plain || id.index() >= LINKS_MAX {
                    return Err(Discard::UnknownPeer);
                }
            }
        }
        let opened = self.keyring.open(&header, &mut data, now)?;
        // From here on the peer itself speaks.
        if let Some(epoch) = opened.confirmed {
            self.on_confirmed(epoch, now);
        }
        self.on_authenticated(id, path, &opened, datagram_bytes, now)?;
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
        if let Some(link) = self.links.get_mut(id.index()) {
            link.on_arrival(&arrival, now);
        }
        if arrival.asks {
            self.note_silence(now);
        }
        result
    }

    /// Data arrived, or a link in use was not looked at for a while: is a link silent? Only what happened while we looked counts, not a stall of our own.
    pub(super) fn note_silence(&mut self, now: Instant) {
        let since_look = now.saturating_since(self.looked_at);
        if since_look > LOOK_PAUSE_MAX {
            self.looking_since = now;
        }
        if since_look >= LOOK_STEP {
            self.looked_at = now;
            self.links.iter_mut().for_each(|link| link.note_silence(self.looking_since, now));
        }
    }

    /// When links are to be looked at for silence though nothing arrives.
    pub(super) fn silence_timeout(&self) -> Option<Instant> {
        let looks = self.links.len() > 1 && self.links.iter().any(Link::may_fall_silent);
        looks.then(|| self.looked_at + LOOK_STEP)
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
            // As a rule a datagram has one frame: what is left of it then is the payload, without another reference.
            let payload = if left == 0 { std::mem::take(&mut frames) } else { frames.split_to(len) };
            match kind {
                Kind::Heartbeat => self.on_sealed_heartbeat(id, seq_num, &payload, path, now)?,
                Kind::Data => {
                    arrival.asks = true;
                    self.on_data(id, seq_num, modifiers, payload, now)?;
                }
                Kind::Feedback => self.on_feedback(id, seq_num, &payload, now)?,
                Kind::Control => self.on_control(id, Control::parse(&payload)?, &path, arrival.bytes, now),
                Kind::Repair => self.on_repair(seq_num, modifiers, &payload, now)?,
            }
        }
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
        let link = self.links.get_mut(id.index()).ok_or(Discard::UnknownPeer)?;
        let before = link.state();
        link.on_feedback(&feedback, id != came_over, now)?;
        let after = link.state();
        self.events
            .extend(link.take_control_change().map(|change| Event::ControlChanged { link: id, change }));
        self.note_state(id, before, after, now);
        self.collect_lost(id, now);
        self.on_rates_changed(now);
        Ok(())
    }

    /// The client has used new keys.
    fn on_confirmed(&mut self, peer_epoch: u32, now: Instant) {
        if self.peer_epoch != Some(peer_epoch) {
            // A client that was restarted may come with other links over other ways.
            self.keyring.drop_previous();
        }
        // An epoch that was retired speaks under new keys: it is the present one.
        self.retired_epochs.retain(|retired| *retired != peer_epoch);
        // Never refused, since it is not retired.
        let _ = self.note_epoch(peer_epoch, now);
    }

    /// A datagram of the link authenticated: its path may follow.
    fn on_authenticated(
        &mut self,
        id: LinkId,
        path: Path,
        opened: &Opened,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Discard> {
        self.meet(id, now);
        let rng = &mut self.rng;
        let link = self.links.get_mut(id.index()).ok_or(Discard::UnknownPeer)?;
        let known = link.path().is_some();
        let moved = match self.role {
            // A proven link has its path.
            Role::Client => link.state() == LinkState::Down && opened.newest && link.adopt(path),
            Role::Server => {
                let token = || rng.next_u64().to_be_bytes();
                link.follow(path, opened.newest, bytes, token, now)
            }
        };
        link.on_datagram(bytes, now);
        if moved && known && self.role == Role::Server {
            self.events.push_back(Event::PathChanged { link: id, path });
            self.on_links_changed(now);
        }
        Ok(())
    }

    /// A server learns of its client's links from what authenticates.
    fn meet(&mut self, id: LinkId, now: Instant) {
        while self.role == Role::Server && self.links.len() <= id.index() && self.links.len() < LINKS_MAX {
            let at = self.links.len();
            let config = LinkConfig {
                security: Security::Sealed,
                priority: 1,
                role: LinkRole::Primary,
                tx_rate: self.tx_rates.get(at).copied().flatten(),
                rx_rate: None,
                mtu: u16::MAX,
                path: None,
                alternatives: Vec::new(),
            };
            let number = LinkId(u8::try_from(at).unwrap_or(u8::MAX));
            // Links are few, and large.
            self.links.reserve_exact(1);
            self.links.push(Link::new(number, self.role, &config, self.heartbeat_interval, now));
        }
    }

    /// A control frame came over the link, in a datagram of `bytes`.
    fn on_control(&mut self, id: LinkId, control: Control, path: &Path, bytes: usize, now: Instant) {
        match control {
            Control::Challenge(token) => {
                if let Some(link) = self.links.get_mut(id.index()) {
                    link.push_control(Control::Response(token));
                }
            }
            Control::Response(token) => {
                let link = self.links.get_mut(id.index());
                if link.is_some_and(|link| link.on_response(&token, path)) {
                    self.on_links_changed(now);
                }
            }
            Control::Close(reason) => self.on_close(reason, now),
            Control::Probe { id: probe, .. } => self.on_probe(id, probe, bytes),
            Control::ProbeReceived { id: probe, bytes } => self.on_probe_answer(id, probe, bytes, now),
            Control::Unknown => {}
        }
    }

    /// The peer ended the session: the next one begins anew, perhaps with what names the same run (a client that was removed and
    /// added again, say).
    fn on_close(&mut self, reason: CloseReason, now: Instant) {
        self.events.push_back(Event::Closed(reason));
        self.keyring.clear();
        self.reorder.reset(&mut self.released);
        self.recovery.clear();
        self.protection.clear();
        for at in 0..self.links.len() {
            let Some(link) = self.links.get_mut(at).filter(|link| link.security() == Security::Sealed) else {
                continue;
            };
            let (id, before) = (link.id(), link.state());
            link.on_peer_restart(now);
            self.note_state(id, before, LinkState::Down, now);
        }
        if let Some(dialer) = &mut self.dialer {
            dialer.on_closed(reason, now);
        }
    }

    fn try_response(&mut self, datagram: &Datagram, now: Instant) -> Result<(), Discard> {
        let id = LinkId(datagram.path.socket.0);
        let link = self.links.get(id.index()).filter(|link| link.accepts_from(&datagram.path));
        link.ok_or(Discard::UnknownPeer)?;
        let dialer = self.dialer.as_mut().ok_or(Discard::KindUnsupported)?;
        match dialer.on_response(&datagram.data, now)? {
            Outcome::Refused(refusal) => self.events.push_back(Event::Refused(refusal)),
            Outcome::Welcome(welcome, keys) => self.on_welcome(id, datagram.path, welcome, keys, now),
        }
        Ok(())
    }

    /// The first answer wins: its keys serve from now on, and every link says so to the server at once.
    fn on_welcome(&mut self, id: LinkId, path: Path, welcome: Welcome, keys: TransportKeys, now: Instant) {
        if self.peer_epoch != Some(welcome.epoch) {
            self.keyring.drop_previous();
        }
        self.keyring.install(keys, welcome.epoch, now);
        self.retired_epochs.retain(|retired| *retired != welcome.epoch);
        // Never refused, since it is not retired.
        let _ = self.note_epoch(welcome.epoch, now);
        for link in self.links.iter_mut().filter(|link| link.security() == Security::Sealed) {
            if link.id() == id && link.state() == LinkState::Down {
                link.adopt(path);
            }
            link.hasten_heartbeat(now);
        }
        let proven = self
            .links
            .iter()
            .any(|link| link.security() == Security::Sealed && link.state() == LinkState::Up);
        if let Some(dialer) = self.dialer.as_mut().filter(|_| proven) {
            dialer.on_proven(self.keyring.rekey_at());
        }
        if self.lease.as_ref() != Some(&welcome) {
            self.lease = Some(welcome);
            self.events.push_back(Event::Leased);
        }
    }

    fn try_cookie(&mut self, datagram: &Datagram, now: Instant) -> Result<(), Discard> {
        let path = datagram.path;
        let id = LinkId(path.socket.0);
        let link =
            self.links.get(id.index()).filter(|link| link.accepts_from(&path)).ok_or(Discard::UnknownPeer)?;
        let known = link.candidates().iter().find(|known| known.remote == path.remote).copied();
        let dialer = self.dialer.as_mut().ok_or(Discard::KindUnsupported)?;
        dialer.on_cookie(&datagram.data, id, known.unwrap_or(path), now)
    }
}
