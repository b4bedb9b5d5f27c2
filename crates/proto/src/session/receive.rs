//! Datagrams in: which link, is it well formed, what does it carry.

use bytes::{Buf, Bytes};

use super::Session;
use crate::config::{Role, Security};
use crate::discard::Discard;
use crate::event::Event;
use crate::packet::{Datagram, LinkId, PacketBuf, Path};
use crate::qos::classify::needs_order;
use crate::qos::flow;
use crate::time::Instant;
use crate::view::LinkState;
use crate::wire::heartbeat::Heartbeat;
use crate::wire::{self, COUNTER_BITS, FRAME_HEADER_BYTES, Frame, Kind, Modifiers};

/// What a frame asks for, free of the datagram's bytes.
enum Action {
    Heartbeat(u64, Heartbeat),
    Data(u64, Modifiers),
}

impl Session {
    /// Takes a datagram of a plain link; the caller has found out which. Every error is counted.
    pub fn handle_link_datagram(
        &mut self,
        link: LinkId,
        datagram: Datagram,
        now: Instant,
    ) -> Result<(), Discard> {
        let result = self.try_datagram(link, datagram, now);
        if let Err(reason) = result {
            self.counters.discards.count(reason);
        }
        result
    }

    fn try_datagram(&mut self, id: LinkId, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        let Datagram { path, mut data, .. } = datagram;
        let link = self.links.get_mut(id.index()).filter(|link| link.security() == Security::Plain);
        let link = link.ok_or(Discard::UnknownPeer)?;
        // A client talks to the address it was told; a server's caller has matched the address to the link.
        if self.role == Role::Client && link.path().is_none_or(|known| known.remote != path.remote) {
            return Err(Discard::UnknownPeer);
        }
        let action = read_plain(&data)?;
        link.on_datagram(data.len(), now);
        match action {
            Action::Heartbeat(seq_num, heartbeat) => self.on_heartbeat(id, seq_num, &heartbeat, path, now),
            Action::Data(seq_num, modifiers) => {
                data.advance(FRAME_HEADER_BYTES);
                self.on_data(id, seq_num, modifiers, data.freeze(), now)
            }
        }
    }

    /// A sealed link's heartbeat.
    pub(super) fn on_sealed_heartbeat(
        &mut self,
        id: LinkId,
        seq_num: u64,
        payload: &[u8],
        path: Path,
        now: Instant,
    ) -> Result<(), Discard> {
        let heartbeat = Heartbeat::parse(payload)?;
        self.on_heartbeat(id, seq_num, &heartbeat, path, now)
    }

    fn on_heartbeat(
        &mut self,
        id: LinkId,
        seq_num: u64,
        heartbeat: &Heartbeat,
        path: Path,
        now: Instant,
    ) -> Result<(), Discard> {
        self.note_epoch(heartbeat.epoch, now)?;
        self.peer_at_once = heartbeat.at_once;
        self.peer_partial = heartbeat.partial;
        let epoch = self.epoch;
        let link = self.links.get_mut(id.index()).ok_or(Discard::UnknownPeer)?;
        let (before, role_before) = (link.state(), link.link_role());
        let known = link.path().is_some();
        let moved = link.on_heartbeat(seq_num, heartbeat, path, epoch, now)?;
        let (after, role) = (link.state(), link.link_role());
        if let Some(path) = moved
            && known
        {
            self.events.push_back(Event::PathChanged { link: id, path });
        }
        if before == after && role_before != role {
            self.note_connected();
            self.on_links_changed(now);
        }
        self.note_state(id, before, after, now);
        self.note_peer_failures(heartbeat, now);
        self.on_rates_changed(now);
        self.refresh_delays(now);
        Ok(())
    }

    /// The peer sends this as realtime: what goes back is so too.
    fn on_realtime(&mut self, packet: &[u8], now: Instant) {
        if let Ok(header) = flow::parse(packet) {
            self.classes.on_realtime_received(&header, now);
        }
    }

    pub(super) fn on_data(
        &mut self,
        id: LinkId,
        seq_num: u64,
        modifiers: Modifiers,
        payload: Bytes,
        now: Instant,
    ) -> Result<(), Discard> {
        let is_partial = modifiers.has(Modifiers::PARTIAL);
        let packet = if is_partial { PacketBuf::partial(payload) } else { PacketBuf::from(payload) };
        let link = self.links.get_mut(id.index()).ok_or(Discard::UnknownPeer)?;
        link.on_data(seq_num & ((1 << COUNTER_BITS) - 1), now);
        let waited_for = self.delays.get(id.index()).is_some_and(|delay| delay.usable);
        if !waited_for && link.state() != LinkState::Down {
            // It carries again, so it may be what others wait for.
            self.refresh_delays(now);
        }
        let restores = self.restores(seq_num).then(|| packet.clone());
        let result = if modifiers.has(Modifiers::AT_ONCE) {
            // TCP's acknowledgements come so, too.
            if !needs_order(&packet) {
                self.on_realtime(&packet, now);
            }
            self.reorder.on_urgent_packet(seq_num, packet, now, &mut self.released)
        } else {
            self.reorder.on_packet(seq_num, id, packet, &self.delays, now, &mut self.released)
        };
        if let Some(packet) = restores {
            self.restore_with(seq_num, modifiers, &packet, now);
        }
        // A datagram that is replayed does not get here: this is a copy that the peer sent over several links.
        if result == Err(Discard::Duplicate) {
            self.counters.duplicates += 1;
            return Ok(());
        }
        result
    }
}

/// Whether a frame's modifiers mean something on its kind.
pub(super) fn is_known(frame: &Frame<'_>) -> bool {
    let means = match frame.kind {
        Kind::Data => Modifiers::AT_ONCE.with(Modifiers::PARTIAL),
        Kind::Repair => Modifiers::AT_ONCE,
        Kind::Heartbeat | Kind::Feedback | Kind::Control => Modifiers::NONE,
    };
    means.has(frame.modifiers)
}

/// A plain datagram carries one heartbeat, or one data frame that is to be delivered in order or at once.
fn read_plain(datagram: &[u8]) -> Result<Action, Discard> {
    let frame = wire::parse_plain(datagram)?;
    if !is_known(&frame) {
        return Err(Discard::KindUnsupported);
    }
    match frame.kind {
        Kind::Heartbeat => Ok(Action::Heartbeat(frame.seq_num, Heartbeat::parse(frame.payload)?)),
        Kind::Data => Ok(Action::Data(frame.seq_num, frame.modifiers)),
        Kind::Feedback | Kind::Repair | Kind::Control => Err(Discard::KindUnsupported),
    }
}
