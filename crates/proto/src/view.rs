//! A link as the rest of the core sees it: state, role, and the read-only view that policies get.
//!
//! The session makes the views and is the only one that says which links are usable. Schedulers and
//! the recovery read them. A view knows no keys, no sockets and no packets.

use std::time::Duration;

use crate::config::LINKS_MAX;
use crate::limits::{BURST, LOSSY_PERMILLE, QUANTUM, SATURATED_PERMILLE};
use crate::packet::{BATCH_BYTES_MAX, LinkId};
use crate::time::Instant;
use crate::units::BitRate;

/// A full socket is tried again after this at the latest. Chosen: above a scheduler's turn of a
/// loaded host, below what a person notices.
const ROOM_AFTER_MAX: Duration = Duration::from_millis(10);

/// A full datagram on an Ethernet path, bytes.
const DATAGRAM_BYTES: u64 = 1_500;

/// The state of a link as its user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkState {
    /// No proof that both directions deliver, for long.
    #[default]
    Down,
    /// Proof is overdue, or the link failed and is on its way back: not used while another link is usable.
    Suspect,
    /// Both directions are proven.
    Up,
}

/// What a link is used for; the earlier ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LinkRole {
    /// Always.
    #[default]
    Primary,
    /// When the primary links are full.
    Secondary,
    /// When no other link is usable.
    Backup,
    /// Not for data: its heartbeats go on, so that its figures are known.
    Never,
}

/// What a policy may know about a link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkView {
    /// Which.
    pub id: LinkId,
    /// Whether data may go over it. False for a link that is down, that has no keys, whose path is
    /// not proven, or that is too small for the packet at hand.
    pub usable: bool,
    /// What its health says: proven, suspect or down.
    pub state: LinkState,
    /// Lower is preferred.
    pub priority: u8,
    /// What it is used for.
    pub role: LinkRole,
    /// Smoothed.
    pub rtt: Duration,
    /// Share of what we sent lately that did not arrive.
    pub loss_permille: u16,
    /// The same without what a standing queue lost.
    pub random_loss_permille: u16,
    /// Whether what it loses is sent again.
    pub recovers: bool,
    /// Datagrams that it lost in a row, in the mean, in tenths; 10 where nothing is known.
    pub burst_tenths: u16,
    /// Whether somebody else fills its queue, so that it is longer than by itself.
    pub is_shared: bool,
    /// Share of the capacity in use lately.
    pub utilisation_permille: u16,
    /// Pacing rate.
    pub rate: BitRate,
    /// One-way delay of what we send, µs with an offset common to all links: only differences mean anything.
    pub delay_us: i64,
    /// From when on a datagram may go.
    pub free_at: Instant,
    /// IP and UDP header bytes of a datagram.
    pub header_bytes: u64,
    /// The largest inner packet that it carries, in bytes. A policy need not look: a link that is
    /// too small for the head is not usable.
    pub mtu: usize,
}

impl LinkView {
    /// How long `bytes` in datagrams like the head's occupy the link.
    pub(crate) fn time_to_send(&self, bytes: u64) -> Duration {
        self.rate.time_to_send(bytes)
    }

    /// Whether what matters is not to go over it alone.
    pub(crate) const fn is_lossy(&self) -> bool {
        self.loss_permille >= LOSSY_PERMILLE
    }

    /// A packet of `bytes` will go over it.
    pub(crate) fn charge(&mut self, bytes: usize, now: Instant) {
        let start = self.free_at.max(now.saturating_sub(BURST));
        let bytes = bytes as u64 + self.header_bytes;
        self.free_at = start + self.rate.time_to_send(bytes);
    }

    /// Its socket is full: it has no credit until the driver says that there is room. Until when is not known; likely a batch or two leave first.
    pub(crate) fn wait_for_room(&mut self, now: Instant) {
        let likely = self.time_to_send(2 * BATCH_BYTES_MAX as u64).min(ROOM_AFTER_MAX);
        self.free_at = self.free_at.max(now + likely);
    }

    /// From when on a run of bulk may go: a quantum is saved up first, or, on a fast link, what one send holds. On one that is slow there is nothing to
    /// save up: a datagram that waits for the others' runs is late, and what is late stands in the link's queue.
    pub(crate) fn run_at(&self) -> Instant {
        if self.is_slow() {
            return self.free_at;
        }
        self.free_at + self.rate.time_to_send(BATCH_BYTES_MAX as u64).min(QUANTUM)
    }

    /// One datagram takes a quantum.
    pub(crate) fn is_slow(&self) -> bool {
        self.rate.time_to_send(DATAGRAM_BYTES) >= QUANTUM
    }

    pub(crate) fn has_credit(&self, now: Instant) -> bool {
        self.free_at <= now
    }
}

/// Some of a session's links. One whose number is not below [`LINKS_MAX`] is never among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkSet(u32);

const _: () = assert!(LINKS_MAX <= 32);

impl LinkSet {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `link` is among them.
    pub fn contains(self, link: LinkId) -> bool {
        self.0 & Self::bit(link) != 0
    }

    /// Adds a link, if there is one.
    pub(crate) fn insert(&mut self, link: Option<LinkId>) {
        self.0 |= link.map_or(0, Self::bit);
    }

    fn bit(link: LinkId) -> u32 {
        1_u32.checked_shl(u32::from(link.0)).unwrap_or(0)
    }
}

impl FromIterator<LinkId> for LinkSet {
    fn from_iter<T: IntoIterator<Item = LinkId>>(links: T) -> Self {
        Self(links.into_iter().fold(0, |set, link| set | Self::bit(link)))
    }
}

/// Whether saturation adds to the score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saturation {
    /// As the policy counts.
    Counted,
    /// As logs print it: the state says `SATURATED` beside it.
    Ignored,
}

/// The score, rounded; lower is better.
pub fn score(link: &LinkView, saturation: Saturation) -> u32 {
    let rtt_us = u64::try_from(link.rtt.as_micros()).unwrap_or(u64::MAX);
    let saturated = saturation == Saturation::Counted && link.utilisation_permille > SATURATED_PERMILLE;
    let score = u64::from(link.priority) * 1_000
        + rtt_us.saturating_add(50) / 100
        + if saturated { 10_000 } else { 0 }
        + u64::from(link.loss_permille) * 5;
    u32::try_from(score).unwrap_or(u32::MAX)
}
