//! The packets that a link's datagrams bear while their fate is open, by the datagrams' numbers.
//!
//! Apart from the log, because most sessions are idle: a log of heartbeats keeps nothing here.

use std::collections::VecDeque;

use crate::packet::KeptPacket;

/// Room that stays when nothing is kept. Chosen: memory of idle sessions.
const IDLE_ROOM: usize = 1;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The front is a packet, never a gap; or the queue is empty.
    frames: VecDeque<Option<KeptPacket>>,
    /// The number of the front.
    first: u64,
    bytes: usize,
}

impl Kept {
    /// The datagram of this number, above all before it, bears `frame`.
    #[inline]
    pub(super) fn put(&mut self, number: u64, frame: KeptPacket) {
        if self.frames.is_empty() {
            self.first = number;
        }
        let missing = number.saturating_sub(self.first + self.frames.len() as u64);
        if missing > 0 {
            self.frames.extend((0..missing).map(|_| None));
        }
        self.bytes += frame.kept_bytes();
        self.frames.push_back(Some(frame));
    }

    /// What the datagram of this number bears, which is not kept any more.
    pub(super) fn take(&mut self, number: u64) -> Option<KeptPacket> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let frame = if at == 0 {
            // As a rule: what was sent first arrives first.
            self.first += 1;
            self.frames.pop_front()??
        } else {
            self.frames.get_mut(at)?.take()?
        };
        self.bytes = self.bytes.saturating_sub(frame.kept_bytes());
        while self.frames.pop_front_if(|front| front.is_none()).is_some() {
            self.first += 1;
        }
        if self.frames.is_empty() {
            self.frames.shrink_to(IDLE_ROOM);
        }
        Some(frame)
    }

    /// The number of the oldest datagram that bears something.
    pub(super) fn first(&self) -> Option<u64> {
        (!self.frames.is_empty()).then_some(self.first)
    }

    /// Bytes of everything kept.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
