//! No bond: every inner packet goes as one datagram over one link, in order, without a queue or
//! pacing of its own.
//!
//! This is a user's best link without the bond, tunnel overhead included. The world's own tests run
//! on it. Its frame has only the size of the bond's frame.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use bonding_proto::{
    Datagram, Discard, Instant, LinkId, PacketBuf, Path, StateMachine, StreamHost, Timer, Transmit,
};
use bytes::Bytes;

use crate::world::Observed;
use bonding_proto::stats::SessionStats;

/// Bytes of a frame header.
const FRAME_HEADER: usize = 11;

/// One end of a tunnel over one link.
#[derive(Debug)]
pub struct Bare {
    link: LinkId,
    path: Path,
    to_send: VecDeque<PacketBuf>,
    arrived: VecDeque<PacketBuf>,
}

impl Bare {
    /// An end that sends over `link` to `path`.
    pub fn new(link: LinkId, path: Path) -> Self {
        Self { link, path, to_send: VecDeque::new(), arrived: VecDeque::new() }
    }
}

impl StateMachine for Bare {
    fn close(&mut self, _: Instant) {}

    fn handle_packet(&mut self, packet: PacketBuf, _now: Instant) -> Result<(), Discard> {
        self.to_send.push_back(packet);
        Ok(())
    }

    fn handle_datagram(&mut self, datagram: Datagram, _now: Instant) -> Result<(), Discard> {
        let packet = datagram.data.get(FRAME_HEADER..).ok_or(Discard::Truncated)?;
        self.arrived.push_back(PacketBuf::from(Bytes::copy_from_slice(packet)));
        Ok(())
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(
        &mut self,
        buf: &mut Vec<u8>,
        _max_segments: NonZeroUsize,
        _now: Instant,
    ) -> Option<Transmit> {
        let packet = self.to_send.pop_front()?;
        let size = FRAME_HEADER + packet.len();
        buf.extend_from_slice(&[0; FRAME_HEADER]);
        buf.extend_from_slice(&packet);
        Some(Transmit::new(self.link, self.path, size, size))
    }

    fn poll_packet(&mut self) -> Option<PacketBuf> {
        self.arrived.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        None
    }
}

impl StreamHost for Bare {}

impl Observed for Bare {
    fn session_stats(&self, _now: Instant) -> Option<SessionStats> {
        None
    }
}
