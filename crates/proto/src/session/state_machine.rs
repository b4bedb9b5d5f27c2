//! [`Session`] as a driver drives it: its inputs in order, what it sends first, when it is due.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::Session;
use super::link_table::may_send;
use super::outbox::{Greeting, Sources, transmit_due};
use super::writer::DatagramWriter;
use crate::config::Security;
use crate::discard::Discard;
use crate::event::SocketEvent;
use crate::link::Link;
use crate::packet::{Datagram, PacketBuf, SocketId, Transmit};
use crate::qos::flow;
use crate::streams::{StreamEvent, Streams};
use crate::time::Instant;
use crate::timer::Timer;
use crate::trace::{self, KeyChange};
use crate::wire::control::CloseReason;
use crate::{StateMachine, StreamHost};

impl StateMachine for Session {
    fn handle_packet(&mut self, packet: PacketBuf, now: Instant) -> Result<(), Discard> {
        let header = self.counters.counted(flow::parse(&packet))?;
        self.handle_parsed(packet, &header, now)
    }

    fn handle_run(&mut self, run: &mut dyn Iterator<Item = PacketBuf>, now: Instant) {
        let (first, header) = loop {
            let Some(first) = run.next() else { return };
            if let Ok(header) = self.counters.counted(flow::parse(&first)) {
                break (first, header);
            }
        };
        self.handle_parsed_run(std::iter::once(first).chain(run), &header, now);
    }

    fn handle_datagram(&mut self, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        // A client's sockets are its links'.
        let link = datagram.path.socket.link();
        match self.links.get(link).map(Link::security) {
            Some(Security::Sealed) => self.handle_sealed_datagram(datagram, now),
            Some(Security::Plain) | None => self.handle_link_datagram(link, datagram, now),
        }
    }

    fn handle_socket_event(&mut self, socket: SocketId, event: SocketEvent, now: Instant) {
        match event {
            SocketEvent::Full | SocketEvent::Writable => {
                if self.links.views.set_socket_full(socket, event == SocketEvent::Full) {
                    self.outbox.wait.forget_saving();
                }
            }
            SocketEvent::TooBig { remote, bytes } => {
                self.handle_too_big(socket, remote, bytes, now);
            }
            SocketEvent::NoRoute
            | SocketEvent::CarrierLost
            | SocketEvent::CarrierFound
            | SocketEvent::Replaced => {
                let link = socket.link();
                self.links.on_socket_event(link, event, now);
                self.settle_changes(now);
                if event == SocketEvent::CarrierFound {
                    self.sealing.on_carrier_found(link, &self.links, now);
                } else if event == SocketEvent::Replaced {
                    self.sealing.on_link_moved(link, &self.links, now);
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        let may_draw = self.sealing.draws_secrets(now);
        self.links.on_time(now);
        self.settle_changes(now);
        if self.links.silence_timeout().is_some_and(|due| due <= now) {
            self.links.check_silence(now);
        }
        if self.sealing.on_time(&self.links, may_draw, now) {
            self.tracer.on_keys(KeyChange::Expired, self.rekeys(), now);
        }
        self.links.on_probe_time(now);
        self.settle_changes(now);
        let Self { redundancy, links, streams, tracer, .. } = self;
        if redundancy.resend.on_time(links, streams, tracer, now) {
            self.outbox.wait.wake(now);
        }
        self.redundancy.protection.sweep(now);
        self.inbox.on_time(self.links.delays(), now);
    }

    fn poll_transmit(
        &mut self,
        buf: &mut Vec<u8>,
        max_segments: NonZeroUsize,
        now: Instant,
    ) -> Option<Transmit> {
        if self.streams.has_work() {
            self.move_pieces(now);
        }
        // As a rule only data is to go, if anything.
        if let Some(handshake) = self.sealing.transmit_handshake(buf, &mut self.links, now) {
            return Some(handshake);
        }
        let greeting = Greeting {
            epoch: self.epoch,
            sealed_epoch: self.peer.sealed.epoch(),
            plain_epoch: self.peer.plain.epoch(),
            resends: self.redundancy.resend.is_on(),
            streams: self.streams.is_accepting(),
        };
        let Self { links, tracer, sealing, .. } = self;
        let keyring = &mut sealing.keyring;
        let mut writer = DatagramWriter { buf, links, keyring, tracer, max_segments, now };
        let due = transmit_due(&mut writer, &greeting, self.ingress.packet_max());
        // A probe may go over a new path: what waits is looked at with the sizes of that path.
        self.settle_changes(now);
        let transmit = due.or_else(|| {
            let Self { peer, links, sealing, ingress, outbox, redundancy, .. } = self;
            let (streams, counters, tracer) = (&mut self.streams, &mut self.counters, &mut self.tracer);
            let (keyring, discards) = (&mut sealing.keyring, &mut counters.discards);
            let mut writer = DatagramWriter { buf, links, keyring, tracer, max_segments, now };
            redundancy.transmit(&mut writer).or_else(|| {
                outbox.transmit(&mut writer, &mut Sources { ingress, redundancy, streams, peer, discards })
            })
        });
        // The first data on a link starts the search for its rate.
        self.settle_changes(now);
        let Some(transmit) = transmit else {
            self.inbox.on_drained(self.links.delays(), now);
            return None;
        };
        let may_be_marked = self.links.get(transmit.link).is_some_and(|link| link.path().may_be_marked());
        Some(Transmit { is_ect: transmit.is_ect || may_be_marked, ..transmit })
    }

    fn close(&mut self, now: Instant) {
        Self::close(self, CloseReason::Shutdown, now);
    }

    fn draws_secrets(&self, datagram: Option<&Datagram>, now: Instant) -> bool {
        datagram.is_none() && self.sealing.draws_secrets(now)
    }

    fn mix_entropy(&mut self, entropy: &[u8; 32]) {
        self.sealing.mix_entropy(entropy);
    }

    fn forget_keys(&mut self, unseen: Duration, now: Instant) {
        // The peer drops its ends of streams, and tells no more what arrived.
        self.redundancy.clear();
        self.streams.clear();
        self.links.on_close(now);
        self.settle_changes(now);
        self.epoch = self.sealing.forget_keys(unseen, now);
        self.tracer.on_keys(KeyChange::Expired, self.rekeys(), now);
    }

    fn poll_packet(&mut self) -> Option<PacketBuf> {
        if let Some(answer) = self.ingress.poll_answer() {
            return Some(answer);
        }
        let packet = self.ingress.clamped(self.inbox.poll()?);
        self.counters.on_packet_out(packet.len());
        Some(packet)
    }

    fn round_trip(&self, socket: SocketId) -> Option<Duration> {
        let over = |link: &&Link| link.path().sends_to(socket, None);
        self.links.iter().filter(over).map(Link::rtt).filter(|rtt| !rtt.is_zero()).min()
    }

    fn set_trace(&mut self, level: trace::Level) {
        self.tracer.set_level(level);
        self.inbox.tracers().into_iter().for_each(|tracer| tracer.set_level(level));
    }

    fn drain_trace(&mut self, out: &mut Vec<trace::Record>) {
        self.tracer.drain(self.inbox.tracers(), out);
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let mut first = First::default();
        let keys_serve = self.sealing.keyring.serves();
        for link in self.links.iter() {
            if may_send(link, keys_serve) {
                first.offer(link.heartbeats().due_at(), Timer::Heartbeat);
                first.offer(link.path().control_at(), Timer::Control);
                if link.path().is_trusted() {
                    first.offer(link.feedback_at(), Timer::Feedback);
                }
            }
            if link.liveness().is_indirect_due() {
                first.offer(Some(Instant::ZERO), Timer::IndirectFeedback);
            }
            debug_assert!(
                link.poll_timeout().is_none_or(|at| at >= link.liveness().unchanged_until()),
                "that is a bound"
            );
            if !first.is_by(link.liveness().unchanged_until()) {
                first.offer(link.poll_timeout(), Timer::LinkState);
            }
            first.offer(link.end_overdue_at(), Timer::Resend);
            first.offer(link.path().probe_timeout(), Timer::MtuProbe);
        }
        first.offer(self.sealing.handshake_timeout(), Timer::Handshake);
        first.offer(self.sealing.keyring.poll_timeout(), Timer::Keys);
        first.offer(self.outbox.wait.transmit_at(), Timer::Pacing);
        first.offer(self.inbox.poll_timeout(), Timer::Reorder);
        first.offer(self.links.silence_timeout(), Timer::Silence);
        first.0
    }
}

impl StreamHost for Session {
    fn streams_mut(&mut self, _session: u16, now: Instant) -> Option<&mut Streams> {
        Some(Self::streams_mut(self, now))
    }

    fn stream_session(&self) -> Option<u16> {
        self.takes_streams().then_some(0)
    }

    fn poll_stream_event(&mut self) -> Option<(u16, StreamEvent)> {
        Some((0, Self::poll_stream_event(self)?))
    }
}

/// The first of what is due; of two at the same time, the one that was offered first.
#[derive(Debug, Default)]
struct First(Option<(Instant, Timer)>);

impl First {
    fn offer(&mut self, at: Option<Instant>, timer: Timer) {
        if let Some(at) = at
            && !self.is_by(at)
        {
            self.0 = Some((at, timer));
        }
    }

    /// Whether something is due by then.
    fn is_by(&self, at: Instant) -> bool {
        self.0.is_some_and(|(first, _)| first <= at)
    }
}
