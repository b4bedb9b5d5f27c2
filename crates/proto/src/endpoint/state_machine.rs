//! The endpoint as its driver sees it: packets, datagrams and time come in, datagrams and packets
//! go out. Each input goes to one session, which is marked; marked sessions take turns.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::{Endpoint, SessionId, Slot};
use crate::discard::Discard;
use crate::event::SocketEvent;
use crate::packet::{Datagram, PacketBuf, SocketId, Transmit};
use crate::streams::{StreamEvent, Streams};
use crate::time::Instant;
use crate::timer::Timer;
use crate::trace;
use crate::wire::control::CloseReason;
use crate::wire::sealed::{DatagramKind, SealedHeader};
use crate::{StateMachine, StreamHost};

impl StateMachine for Endpoint {
    fn close(&mut self, now: Instant) {
        for number in 0..self.slots.len() {
            let Ok(id) = u16::try_from(number).map(SessionId) else { break };
            if let Some(slot) = self.slot(id) {
                slot.session.close(CloseReason::Shutdown, now);
                self.mark(id);
            }
        }
    }

    fn handle_packet(&mut self, packet: PacketBuf, now: Instant) -> Result<(), Discard> {
        let (id, header) = self.owner(&packet).inspect_err(|reason| self.discards.count(*reason))?;
        let slot = self.slot(id).ok_or(Discard::NoRoute)?;
        let result = slot.session.handle_parsed(packet, &header, now);
        self.count_held(id);
        self.mark(id);
        result
    }

    fn handle_run(&mut self, run: &mut dyn Iterator<Item = PacketBuf>, now: Instant) {
        let (first, id, header) = loop {
            let Some(first) = run.next() else { return };
            match self.owner(&first) {
                Ok((id, header)) => break (first, id, header),
                Err(reason) => self.discards.count(reason),
            }
        };
        if let Some(slot) = self.slot(id) {
            slot.session.handle_parsed_run(std::iter::once(first).chain(run), &header, now);
        }
        self.count_held(id);
        self.mark(id);
    }

    fn handle_datagram(&mut self, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        let (id, result) = match DatagramKind::of(&datagram.data) {
            Some(DatagramKind::Sealed) => {
                let header = match SealedHeader::parse(&datagram.data) {
                    Ok(header) => header,
                    Err(reason) => return self.refuse(reason),
                };
                let id = self.indices.lookup(header.receiver_index);
                let Some(id) = id else { return self.refuse(Discard::UnknownSession) };
                let slot = self.slot(id).ok_or(Discard::UnknownSession)?;
                (id, slot.take(now, |session| session.handle_sealed_datagram(datagram, now)))
            }
            Some(DatagramKind::Initiation) => {
                return self.on_initiation(&datagram, now).or_else(|reason| self.refuse(reason));
            }
            Some(DatagramKind::Response | DatagramKind::Cookie) => {
                return self.refuse(Discard::KindUnsupported);
            }
            None => {
                let peer = self.peer(&datagram.path);
                let Some((id, link)) = peer else { return self.refuse(Discard::UnknownPeer) };
                let slot = self.slot(id).ok_or(Discard::UnknownPeer)?;
                (id, slot.take(now, |session| session.handle_link_datagram(link, datagram, now)))
            }
        };
        let Some(result) = result else { return self.refuse(Discard::Overworked) };
        self.mark(id);
        result
    }

    fn handle_socket_event(&mut self, socket: SocketId, event: SocketEvent, now: Instant) {
        match event {
            SocketEvent::Full => self.full.set(socket, true),
            SocketEvent::Writable => {
                self.full.set(socket, false);
                for id in std::mem::take(&mut self.held_up) {
                    self.mark(id);
                }
            }
            SocketEvent::TooBig { remote, bytes } => {
                // Rare: afterwards the session sends nothing as large there.
                let is_its_own = |slot: &mut Option<Slot>| {
                    slot.as_mut().is_some_and(|slot| slot.session.handle_too_big(socket, remote, bytes, now))
                };
                let found = self.slots.iter_mut().position(is_its_own);
                if let Some(id) = found.and_then(|at| u16::try_from(at).ok()).map(SessionId) {
                    self.mark(id);
                }
            }
            // A server's sockets belong to no link, and to no interface in particular.
            SocketEvent::NoRoute
            | SocketEvent::CarrierLost
            | SocketEvent::CarrierFound
            | SocketEvent::Replaced => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first()
            && at <= now
        {
            self.timers.set(id, None);
            if let Some(slot) = self.slot(id) {
                slot.timer = None;
                slot.session.handle_timeout(now);
                slot.work.note(slot.session.touched(), now);
            }
            self.mark(id);
        }
    }

    fn poll_transmit(
        &mut self,
        buf: &mut Vec<u8>,
        max_segments: NonZeroUsize,
        now: Instant,
    ) -> Option<Transmit> {
        if let Some(transmit) = self.admission.as_mut().and_then(|admission| admission.poll_transmit(buf)) {
            return Some(transmit);
        }
        while let Some(id) = self.pending.front().copied() {
            let full = self.full;
            let transmit = self.slot(id).and_then(|slot| {
                // Not by each event: all sessions use a listener, and few have anything to send.
                slot.session.set_full(full);
                slot.session.poll_transmit(buf, max_segments, now)
            });
            if let Some(transmit) = transmit {
                // Sessions take turns, one batch each.
                self.pending.rotate_left(1);
                return Some(transmit);
            }
            self.pending.pop_front();
            if !full.is_empty() {
                self.note_held_up(id);
            }
            self.bound_memory(id, now);
            // Sending may have revealed packets that are too big.
            self.collect(id);
            self.on_drained(id, now);
        }
        None
    }

    fn draws_secrets(&self, datagram: Option<&Datagram>, _now: Instant) -> bool {
        let kind = datagram.and_then(|datagram| DatagramKind::of(&datagram.data));
        kind == Some(DatagramKind::Initiation) && self.admission.is_some()
    }

    fn mix_entropy(&mut self, entropy: &[u8; 32]) {
        self.rng.mix(entropy);
        if let Some(admission) = &mut self.admission {
            admission.mix_entropy(entropy);
        }
    }

    fn forget_keys(&mut self, unseen: Duration, now: Instant) {
        for number in 0..self.slots.len() {
            let Ok(id) = u16::try_from(number).map(SessionId) else { break };
            let mut entropy = [0; 32];
            self.rng.fill(&mut entropy);
            if let Some(slot) = self.slot(id) {
                slot.session.mix_entropy(&entropy);
                slot.session.forget_keys(unseen, now);
                self.mark(id);
            }
        }
    }

    fn poll_packet(&mut self) -> Option<PacketBuf> {
        self.released.pop_front()
    }

    fn set_trace(&mut self, level: trace::Level) {
        self.trace.set_level(level);
        self.slots.iter_mut().flatten().for_each(|slot| slot.session.set_trace(level));
    }

    /// Each record has its session's number.
    fn drain_trace(&mut self, out: &mut Vec<trace::Record>) {
        self.trace.drain(out);
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let (at, id) = self.timers.first()?;
        let slot = self.slots.get(usize::from(id.0))?.as_ref()?;
        Some((at, slot.timer.map_or(Timer::Session, |(_, timer)| timer)))
    }
}

impl StreamHost for Endpoint {
    fn streams_mut(&mut self, session: u16, now: Instant) -> Option<&mut Streams> {
        self.mark(SessionId(session));
        self.slot(SessionId(session)).map(|slot| slot.session.streams_mut(now))
    }

    fn poll_stream_event(&mut self) -> Option<(u16, StreamEvent)> {
        self.stream_events.pop_front()
    }
}
