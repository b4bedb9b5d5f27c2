//! The transport keys of one session, from their handshake to their end, so that a rekey loses no
//! packet.
//!
//! ```text
//!                                    first datagram
//! handshake done ─► next (server only) ───────────► current ─────────► previous ─────────► gone
//!        └──────────────── client ────────────────────►┘      replaced           180 s old
//! ```
//! Everything is sealed under `current`; everything that verifies under any of them is opened. A
//! server does not use keys before the client has, since it cannot know whether its answer arrived;
//! it keeps a few handshakes' keys until one is used. Counters and replay windows belong to a key
//! and a link.
//!
//! It knows nothing of links beyond their numbers, and nothing of handshakes.
//!
//! Sources: WireGuard's timers (whitepaper §6); RFC 6479; draft-ietf-quic-multipath (nonces).

use std::time::Duration;

use crate::crypto::aead::{self, AeadKey, Cipher, TAG_BYTES, Usage};
use crate::crypto::replay::ReplayWindow;
use crate::discard::Discard;
use crate::handshake::{SecretName, TransportKeys};
use crate::packet::{LinkId, UdpFlow};
use crate::time::Instant;
use crate::wire::feedback::{Range, Runs};
use crate::wire::sealed::{self, SEALED_HEADER_BYTES, SealedHeader};

/// Bytes that sealing adds to frames.
pub(in crate::session) const SEALING_BYTES: usize = SEALED_HEADER_BYTES + TAG_BYTES;

/// Handshakes of a server whose answers may still be under way. Chosen: as many as a client keeps
/// open.
const NEXT_MAX: usize = 3;

/// How long keys serve.
#[derive(Debug, Clone, Copy)]
pub(in crate::session) struct KeyLimits {
    /// After this the client makes new keys.
    pub(in crate::session) rekey_after: Duration,
    /// After this the keys are refused.
    pub(in crate::session) refuse_after: Duration,
    /// How much they may be used on all links, which their cipher says.
    pub(in crate::session) usage: fn(Cipher) -> Usage,
}

impl KeyLimits {
    /// The times are WireGuard's (whitepaper §6).
    pub(in crate::session) const DEFAULT: Self = Self {
        rekey_after: Duration::from_secs(120),
        refuse_after: Duration::from_secs(180),
        usage: Usage::of,
    };
}

/// One link under one key.
#[derive(Debug, Default)]
struct Lane {
    next_counter: u64,
    window: ReplayWindow,
}

/// One handshake's keys.
#[derive(Debug)]
struct KeySet {
    local_index: u32,
    remote_index: u32,
    cipher: Cipher,
    send: AeadKey,
    receive: AeadKey,
    made_at: Instant,
    secret: Option<SecretName>,
    /// The peer's run that made them with us.
    peer_epoch: u32,
    usage: Usage,
    sealed_blocks: u64,
    opened_blocks: u64,
    /// Datagrams that did not authenticate.
    forgeries: u64,
    lanes: Vec<Lane>,
}

impl KeySet {
    fn new(keys: TransportKeys, usage: Usage, peer_epoch: u32, now: Instant) -> Self {
        Self {
            local_index: keys.local_index,
            remote_index: keys.remote_index,
            cipher: keys.cipher,
            send: keys.send,
            receive: keys.receive,
            made_at: now,
            secret: keys.secret,
            peer_epoch,
            usage,
            sealed_blocks: 0,
            opened_blocks: 0,
            forgeries: 0,
            lanes: Vec::new(),
        }
    }

    /// Whether it may seal as far as its use goes.
    const fn may_seal(&self) -> bool {
        self.sealed_blocks < self.usage.refuse_blocks
    }

    /// Whether new keys are to be made because of its use. The peer counts what it seals as this
    /// side does, and asks for nothing: what arrived of it stands for it.
    const fn is_used_up(&self) -> bool {
        let Usage { renew_blocks, forgeries, .. } = self.usage;
        self.sealed_blocks >= renew_blocks
            || self.opened_blocks >= renew_blocks
            || self.forgeries >= forgeries / 2
    }

    /// Cheap checks first: nothing that was seen before costs an opening.
    fn open(
        &mut self,
        header: &SealedHeader,
        datagram: &mut [u8],
        limits: KeyLimits,
        now: Instant,
    ) -> Result<(usize, bool), Discard> {
        if now.saturating_since(self.made_at) >= limits.refuse_after {
            return Err(Discard::Expired);
        }
        let lane = self.lanes.get(usize::from(header.link));
        lane.map_or(Ok(()), |lane| lane.window.check(header.counter))?;
        let (aad, sealed) =
            datagram.split_first_chunk_mut::<SEALED_HEADER_BYTES>().ok_or(Discard::Truncated)?;
        let opened = self.receive.open(header.link, header.counter, aad, sealed);
        let size = opened.inspect_err(|_| self.forgeries += 1)?;
        self.opened_blocks += aead::blocks(size);
        let newest = self.lane(header.link).is_some_and(|lane| lane.window.accept(header.counter));
        Ok((size, newest))
    }

    fn lane(&mut self, link: u8) -> Option<&mut Lane> {
        let at = usize::from(link);
        if at >= self.lanes.len() {
            self.lanes.resize_with(at + 1, Lane::default);
        }
        self.lanes.get_mut(at)
    }
}

/// What a sealed datagram is called: the peer's index of the key, and its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) struct SealedAs {
    pub(in crate::session) key: u32,
    pub(in crate::session) counter: u64,
}

impl SealedAs {
    /// Key and counter.
    pub(in crate::session) const fn name(self) -> (u32, u64) {
        (self.key, self.counter)
    }
}

/// What opening a datagram told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) struct Opened {
    /// Bytes of frames behind the header.
    pub(in crate::session) size: usize,
    /// No newer datagram of this link was seen.
    pub(in crate::session) newest: bool,
    /// It came under the keys in use, not under those before.
    pub(in crate::session) is_current: bool,
    /// These keys were used by the client for the first time: the peer's run that they belong to.
    pub(in crate::session) confirmed: Option<u32>,
}

/// All keys of a session.
#[derive(Debug)]
pub(in crate::session) struct Keyring {
    limits: KeyLimits,
    current: Option<KeySet>,
    previous: Option<KeySet>,
    /// Oldest first.
    next: Vec<KeySet>,
    /// Local indices that are no longer in use.
    freed: Vec<u32>,
    rekeys: u64,
}

impl Keyring {
    /// Room for a header, which goes ahead of the frames. Then [`Self::seal`] writes the header.
    pub(in crate::session) const HEADER_ROOM: [u8; SEALED_HEADER_BYTES] = [0; SEALED_HEADER_BYTES];

    pub(in crate::session) const fn new(limits: KeyLimits) -> Self {
        Self { limits, current: None, previous: None, next: Vec::new(), freed: Vec::new(), rekeys: 0 }
    }

    /// A client's handshake is done: its keys are used from now on.
    pub(in crate::session) fn install(&mut self, keys: TransportKeys, peer_epoch: u32, now: Instant) {
        let usage = (self.limits.usage)(keys.cipher);
        self.promote(KeySet::new(keys, usage, peer_epoch, now));
    }

    /// A server's handshake is done: its keys are used when the client has used them.
    pub(in crate::session) fn install_next(&mut self, keys: TransportKeys, peer_epoch: u32, now: Instant) {
        if self.next.len() == NEXT_MAX {
            let oldest = self.next.remove(0);
            self.freed.push(oldest.local_index);
        }
        let usage = (self.limits.usage)(keys.cipher);
        self.next.push(KeySet::new(keys, usage, peer_epoch, now));
    }

    fn promote(&mut self, keys: KeySet) {
        if let Some(over) = self.current.replace(keys) {
            self.rekeys += 1;
            if let Some(gone) = self.previous.replace(over) {
                self.freed.push(gone.local_index);
            }
        }
    }

    /// The peer was restarted: what an earlier run of it sealed is of no use.
    pub(in crate::session) fn drop_previous(&mut self) {
        self.freed.extend(self.previous.take().map(|keys| keys.local_index));
    }

    /// Forgets every key.
    pub(in crate::session) fn clear(&mut self) {
        let all = self.current.take().into_iter().chain(self.previous.take()).chain(self.next.drain(..));
        self.freed.extend(all.map(|keys| keys.local_index));
    }

    /// The next local index that names no key any more.
    pub(in crate::session) fn poll_freed(&mut self) -> Option<u32> {
        self.freed.pop()
    }

    /// Whether [`Self::poll_freed`] has something.
    pub(in crate::session) const fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// Whether a datagram with this receiver index is for one of these keys.
    pub(in crate::session) fn owns(&self, local_index: u32) -> bool {
        self.all().any(|keys| keys.local_index == local_index)
    }

    fn all(&self) -> impl Iterator<Item = &KeySet> {
        self.current.iter().chain(&self.previous).chain(&self.next)
    }

    /// Checks and opens a sealed datagram where it lies. Keys that too many forgeries were tried on
    /// are forgotten.
    pub(in crate::session) fn open(
        &mut self,
        header: &SealedHeader,
        datagram: &mut [u8],
        now: Instant,
    ) -> Result<Opened, Discard> {
        let opened = self.open_with(header, datagram, now);
        if opened == Err(Discard::Unauthenticated) {
            self.drop_if(|keys| keys.forgeries >= keys.usage.forgeries);
        }
        opened
    }

    fn open_with(
        &mut self,
        header: &SealedHeader,
        datagram: &mut [u8],
        now: Instant,
    ) -> Result<Opened, Discard> {
        let index = header.receiver_index;
        if let Some(at) = self.next.iter().position(|keys| keys.local_index == index) {
            return self.open_next(at, header, datagram, now);
        }
        let is_current = self.current.as_ref().is_some_and(|keys| keys.local_index == index);
        let keys = if is_current { &mut self.current } else { &mut self.previous };
        let keys = keys.as_mut().filter(|keys| keys.local_index == index).ok_or(Discard::UnknownSession)?;
        let (size, newest) = keys.open(header, datagram, self.limits, now)?;
        Ok(Opened { size, newest: newest && is_current, is_current, confirmed: None })
    }

    /// The first datagram under keys that no datagram came under yet.
    fn open_next(
        &mut self,
        at: usize,
        header: &SealedHeader,
        datagram: &mut [u8],
        now: Instant,
    ) -> Result<Opened, Discard> {
        let keys = self.next.get_mut(at).ok_or(Discard::UnknownSession)?;
        let (size, newest) = keys.open(header, datagram, self.limits, now)?;
        let keys = self.next.remove(at);
        let peer_epoch = keys.peer_epoch;
        // Handshakes begun before this one are over; the client may still come to use a later one.
        self.freed.extend(self.next.drain(..at).map(|over| over.local_index));
        self.promote(keys);
        Ok(Opened { size, newest, is_current: true, confirmed: Some(peer_epoch) })
    }

    /// Whether there are keys to seal with.
    pub(in crate::session) fn can_seal(&self, now: Instant) -> bool {
        self.current.as_ref().is_some_and(|keys| {
            now.saturating_since(keys.made_at) < self.limits.refuse_after && keys.may_seal()
        })
    }

    /// Whether there are keys that may seal more, unless their time is over.
    pub(in crate::session) fn serves(&self) -> bool {
        self.current.as_ref().is_some_and(KeySet::may_seal)
    }

    /// Whether the keys in use were used so much that a client is to make new ones.
    pub(in crate::session) fn is_used_up(&self) -> bool {
        self.current.as_ref().is_some_and(KeySet::is_used_up)
    }

    /// Seals the datagram that begins at `start` of `buf` and ends with it. To be called only when
    /// [`Self::can_seal`]: without keys what was to be sealed is overwritten, since nothing of it
    /// may leave in the clear. Returns what it is called on the wire.
    pub(in crate::session) fn seal(
        &mut self,
        (link, flow): (LinkId, UdpFlow),
        buf: &mut Vec<u8>,
        start: usize,
        now: Instant,
    ) -> Option<SealedAs> {
        let datagram = buf.get_mut(start..)?;
        match self.seal_in_place((link.0, flow.number()), datagram, now) {
            Some((tag, name)) => {
                buf.extend_from_slice(&tag);
                Some(name)
            }
            None => {
                datagram.fill(0);
                None
            }
        }
    }

    fn seal_in_place(
        &mut self,
        (link, flow): (u8, u8),
        datagram: &mut [u8],
        now: Instant,
    ) -> Option<([u8; TAG_BYTES], SealedAs)> {
        let keys = self.current.as_mut()?;
        let receiver_index = keys.remote_index;
        let lane = keys.lane(link)?;
        let counter = lane.next_counter;
        lane.next_counter += 1;
        let header =
            SealedHeader { link, flow, stamp: sealed::stamp(now), receiver_index, counter }.to_bytes();
        let (head, frames) = datagram.split_first_chunk_mut::<SEALED_HEADER_BYTES>()?;
        *head = header;
        keys.sealed_blocks += aead::blocks(frames.len());
        Some((keys.send.seal(link, counter, &header, frames), SealedAs { key: receiver_index, counter }))
    }

    /// Which counters arrived on a link under the key of this index, from `below` downwards, with
    /// the largest of them.
    pub(in crate::session) fn runs(&self, local_index: u32, link: u8, below: u64) -> Option<(u64, Runs)> {
        let keys = self.all().find(|keys| keys.local_index == local_index)?;
        let window = &keys.lanes.get(usize::from(link))?.window;
        let counts = |counter: u64, seen: bool| u16::try_from(window.run(counter, seen)).unwrap_or(u16::MAX);
        let largest = below.checked_sub(u64::from(counts(below, false)))?;
        let first = counts(largest, true);
        if first == 0 {
            return None;
        }
        let mut runs = Runs::new(first);
        let mut at = largest.checked_sub(u64::from(runs.first));
        while let Some(highest_missing) = at {
            let gap = counts(highest_missing, false);
            let Some(high) = highest_missing.checked_sub(u64::from(gap)) else { break };
            let run = counts(high, true);
            if gap == 0 || run == 0 || !runs.push(Range { gap, run }) {
                break;
            }
            at = high.checked_sub(u64::from(run));
        }
        Some((largest, runs))
    }

    /// When a client is to make new keys because of their age; `None`: there are none.
    pub(in crate::session) fn rekey_at(&self) -> Option<Instant> {
        self.current.as_ref().map(|keys| keys.made_at + self.limits.rekey_after)
    }

    /// Whether [`Self::on_time`] forgets the keys in use.
    pub(in crate::session) fn is_over(&self, now: Instant) -> bool {
        let age = self.current.as_ref().map(|keys| now.saturating_since(keys.made_at));
        age.is_some_and(|age| age >= self.limits.refuse_after)
    }

    /// Forgets keys that are too old. Whether those in use are gone.
    pub(in crate::session) fn on_time(&mut self, now: Instant) -> bool {
        let refuse_after = self.limits.refuse_after;
        self.drop_if(|keys| now.saturating_since(keys.made_at) >= refuse_after)
    }

    /// Forgets some keys. Whether those in use are gone.
    fn drop_if(&mut self, is_over: impl Fn(&KeySet) -> bool) -> bool {
        let current = self.current.take_if(|keys| is_over(keys));
        let previous = self.previous.take_if(|keys| is_over(keys));
        let next = self.next.extract_if(.., |keys| is_over(keys));
        let gone = current.is_some();
        self.freed.extend(current.into_iter().chain(previous).chain(next).map(|keys| keys.local_index));
        gone
    }

    /// When [`Self::on_time`] has something to do.
    pub(in crate::session) fn poll_timeout(&self) -> Option<Instant> {
        // The order in which they were made is not always that of their use.
        let mut oldest = self.current.as_ref().map(|keys| keys.made_at);
        for keys in self.previous.iter().chain(&self.next) {
            oldest = Some(oldest.map_or(keys.made_at, |at| at.min(keys.made_at)));
        }
        Some(oldest? + self.limits.refuse_after)
    }

    /// This side's and the peer's index of the keys in use.
    pub(in crate::session) fn indices(&self) -> Option<(u32, u32)> {
        self.current.as_ref().map(|keys| (keys.local_index, keys.remote_index))
    }

    /// The secret that the keys in use have beside Diffie-Hellman.
    pub(in crate::session) fn secret(&self) -> Option<SecretName> {
        self.current.as_ref().and_then(|keys| keys.secret)
    }

    /// What seals now.
    pub(in crate::session) fn cipher(&self) -> Option<Cipher> {
        self.current.as_ref().map(|keys| keys.cipher)
    }

    /// How often keys were replaced while in use.
    pub(in crate::session) const fn rekeys(&self) -> u64 {
        self.rekeys
    }
}

#[cfg(test)]
mod tests;
