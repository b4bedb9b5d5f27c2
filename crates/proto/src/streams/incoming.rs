//! The receiving half of a stream: pieces in any order become bytes in order, and the peer gets
//! credit as they are read.
//!
//! Contract: each byte is given once, in order, whatever is doubled, cut differently when it is
//! sent again, or reordered. A peer that sends beyond its credit or its own end, or in more pieces
//! than a sender makes, breaks the protocol. Pieces in order that are read at once are kept as they
//! came. What waits for others, or for a reader that left something behind, is copied: a receive
//! buffer is many times as large as the piece that keeps it alive. Crumbs are put together, and an
//! empty half keeps no memory.
//!
//! The window doubles where the credit, and not the links, bounded the sender: half of it was read
//! within two round trips (Linux's receive buffer grows in the same way), or the peer had all but
//! used it up while a piece was missing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::params::{FRAGMENT_BYTES, FRAGMENTS_MIN, JOINED_BYTES_MAX, READY_KEPT, USED_UP_SHARE, WINDOW_MAX};
use crate::time::Instant;

/// The peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation;

/// See the module.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Bytes in order that were not read.
    ready: VecDeque<Bytes>,
    ready_bytes: usize,
    /// The reader left some of it behind: all of it is memory of its own.
    is_left: bool,
    /// Pieces that wait for others, by offset; they do not overlap.
    waiting: BTreeMap<u64, Bytes>,
    waiting_bytes: usize,
    /// The offset of the first byte that is missing.
    next: u64,
    /// The offset that the peer may send up to, and how far that is ahead of what was read.
    limit: u64,
    window: u64,
    granted_at: Instant,
    /// The end of the last byte that came.
    seen: u64,
    /// Where the peer's bytes end, once it said so.
    end: Option<u64>,
}

impl Incoming {
    pub(super) const fn new(first: u64, window: u64, now: Instant) -> Self {
        Self {
            ready: VecDeque::new(),
            ready_bytes: 0,
            is_left: false,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            next: first,
            limit: first + window,
            window,
            granted_at: now,
            seen: first,
            end: None,
        }
    }

    /// The offset that the peer may send up to.
    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    /// The offset of the first byte that is missing.
    #[cfg(test)]
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Memory of what is held.
    pub(super) const fn held_bytes(&self) -> usize {
        self.ready_bytes + self.waiting_bytes
    }

    /// A piece came. Whether there are more bytes to read than before.
    pub(super) fn on_piece(&mut self, offset: u64, mut bytes: Bytes) -> Result<bool, Violation> {
        let end = offset + bytes.len() as u64;
        if end > self.limit || self.end.is_some_and(|last| end > last) {
            return Err(Violation);
        }
        if end <= self.next || bytes.is_empty() {
            return Ok(false);
        }
        self.seen = self.seen.max(end);
        if offset > self.next {
            self.put_aside(offset, bytes)?;
            return Ok(false);
        }
        drop(bytes.split_to(length(self.next - offset)));
        self.push_ready(bytes);
        while let Some((at, mut piece)) = self.waiting.pop_first() {
            if at > self.next {
                self.waiting.insert(at, piece);
                break;
            }
            self.waiting_bytes -= piece.len();
            let known = length(self.next - at);
            if known < piece.len() {
                drop(piece.split_to(known));
                self.push_ready(piece);
            }
        }
        Ok(true)
    }

    fn push_ready(&mut self, bytes: Bytes) {
        self.next += bytes.len() as u64;
        self.ready_bytes += bytes.len();
        if self.is_left {
            self.push_own(Bytes::copy_from_slice(&bytes));
        } else {
            self.ready.push_back(bytes);
        }
    }

    /// Adds memory of its own. A part joins one that is no longer, so each byte is copied a few
    /// times at most, and the parts are few.
    fn push_own(&mut self, mut bytes: Bytes) {
        let joins = |last: &mut Bytes, bytes: &Bytes| {
            last.len() <= bytes.len() && last.len() + bytes.len() <= JOINED_BYTES_MAX
        };
        while let Some(last) = self.ready.pop_back_if(|last| joins(last, &bytes)) {
            bytes = [last, bytes].concat().into();
        }
        self.ready.push_back(bytes);
    }

    /// The reader takes no more for now: what is left keeps no receive buffer.
    pub(super) fn leave(&mut self) {
        if self.is_left || self.ready.is_empty() {
            return;
        }
        self.is_left = true;
        for bytes in std::mem::take(&mut self.ready) {
            self.push_own(Bytes::copy_from_slice(&bytes));
        }
    }

    /// Keeps what is new of a piece that others are missing before.
    fn put_aside(&mut self, mut offset: u64, mut bytes: Bytes) -> Result<(), Violation> {
        let before = self.waiting.range(..=offset).next_back();
        if let Some((at, piece)) = before {
            let known = (at + piece.len() as u64).saturating_sub(offset);
            if known >= bytes.len() as u64 {
                return Ok(());
            }
            drop(bytes.split_to(length(known)));
            offset += known;
        }
        // What lies within the new piece goes; what reaches beyond it keeps its part.
        while let Some((at, piece)) = self.waiting.range(offset..).next() {
            let (at, piece_bytes) = (*at, piece.len());
            let end = offset + bytes.len() as u64;
            if at >= end {
                break;
            }
            if at + piece_bytes as u64 > end {
                bytes.truncate(length(at - offset));
                break;
            }
            self.waiting.remove(&at);
            self.waiting_bytes -= piece_bytes;
        }
        let most = FRAGMENTS_MIN + length(self.window / FRAGMENT_BYTES);
        if self.waiting.len() >= most {
            return Err(Violation);
        }
        self.waiting_bytes += bytes.len();
        self.waiting.insert(offset, Bytes::copy_from_slice(&bytes));
        Ok(())
    }

    /// The peer's bytes end at this offset.
    pub(super) fn on_end(&mut self, end: u64) -> Result<(), Violation> {
        if end < self.seen || end > self.limit || self.end.is_some_and(|known| known != end) {
            return Err(Violation);
        }
        self.end = Some(end);
        Ok(())
    }

    /// Nothing of what came, or comes, is read.
    pub(super) fn discard(&mut self) {
        (self.ready, self.ready_bytes, self.is_left) = (VecDeque::new(), 0, false);
        (self.waiting, self.waiting_bytes) = (BTreeMap::new(), 0);
    }

    /// The bytes that can be read, in order.
    pub(super) fn ready(&self) -> impl Iterator<Item = &Bytes> {
        self.ready.iter()
    }

    /// Whether all bytes were read and the peer sends no more.
    pub(super) fn is_over(&self) -> bool {
        self.ready_bytes == 0 && self.end == Some(self.next)
    }

    /// What the peer may send ahead of what was read, of which some may have come.
    pub(super) const fn promised(&self) -> u64 {
        self.limit - self.read()
    }

    /// The offset of the first byte that was not read.
    pub(super) const fn read(&self) -> u64 {
        self.next - self.ready_bytes as u64
    }

    /// The reader took the first `bytes`. The new limit, where the peer is to be told. `round`: the
    /// longest round trip of the links. The window grows by `growth` at most.
    pub(super) fn consume(
        &mut self,
        mut bytes: usize,
        (round, growth): (Duration, u64),
        now: Instant,
    ) -> Option<u64> {
        debug_assert!(bytes <= self.ready_bytes, "only what was there is read");
        self.ready_bytes = self.ready_bytes.saturating_sub(bytes);
        while let Some(first) = self.ready.front_mut() {
            if bytes < first.len() {
                drop(first.split_to(bytes));
                break;
            }
            bytes -= first.len();
            self.ready.pop_front();
        }
        if self.ready.is_empty() {
            self.is_left = false;
            if self.ready.capacity() > READY_KEPT {
                self.ready = VecDeque::new();
            }
        }
        if self.end.is_some() {
            return None;
        }
        let read = self.read();
        if self.promised() > self.window / 2 {
            return None;
        }
        let is_used_up = self.limit - self.seen < self.window / USED_UP_SHARE;
        if is_used_up || now.saturating_since(self.granted_at) < round * 2 {
            self.window = (self.window * 2).min(WINDOW_MAX).min(self.window + growth);
        }
        self.granted_at = now;
        self.limit = read + self.window;
        Some(self.limit)
    }
}

/// A distance between two offsets within a window.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
