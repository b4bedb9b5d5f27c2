//! The sender's window: the last packets of one slot, which the next symbol covers.
//!
//! Contract: the window shares the packets' memory with the sender and copies nothing. It keeps at
//! most [`COVER_MAX`] packets of consecutive counters; a gap in the counters clears it.

use std::collections::VecDeque;

use super::cover::{COVER_MAX, Cover, coefficient};
use super::gf;
use crate::Instant;
use crate::packet::PacketBuf;

/// One slot's window.
#[derive(Debug, Default)]
pub struct Encoder {
    packets: VecDeque<(PacketBuf, Instant)>,
    /// The counter of the window's front.
    first: u64,
    number: u8,
    bytes: usize,
}

impl Encoder {
    /// Adds the packet that was sent as `counter`.
    pub fn push(&mut self, counter: u64, packet: PacketBuf, now: Instant) {
        if counter != self.first + self.packets.len() as u64 {
            self.packets.clear();
            self.bytes = 0;
            self.first = counter;
        }
        self.bytes += packet.len();
        self.packets.push_back((packet, now));
        self.keep(COVER_MAX, Instant::ZERO);
    }

    /// Drops all packets but the last `count`, and all packets sent before `since`.
    pub fn keep(&mut self, count: usize, since: Instant) {
        while self.packets.front().is_some_and(|(_, at)| self.packets.len() > count || *at < since) {
            if let Some((packet, _)) = self.packets.pop_front() {
                self.bytes -= packet.len();
                self.first += 1;
            }
        }
    }

    /// Packets in the window.
    pub fn count(&self) -> usize {
        self.packets.len()
    }

    /// Bytes of the packets in the window.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next symbol, over the whole window. `None` if the window has fewer than two packets: a
    /// copy protects a single packet equally well.
    pub fn symbol(&mut self) -> Option<(Cover, Vec<u8>)> {
        let count = u8::try_from(self.packets.len()).ok().filter(|count| *count >= 2)?;
        let cover = Cover { first: self.first, count, number: self.number };
        self.number = self.number.wrapping_add(1);
        let longest = self.packets.iter().map(|(packet, _)| packet.len()).max().unwrap_or(0);
        let mut symbol = Vec::with_capacity(longest);
        for (counter, (packet, _)) in cover.counters().zip(&self.packets) {
            gf::add_multiple(&mut symbol, packet, coefficient(cover.number, counter));
        }
        Some((cover, symbol))
    }
}
