//! A link as the rest of the core sees it: state, role, and the read-only view that policies get.
//!
//! The session makes the views and alone says which links are usable. Schedulers and the recovery
//! read them. The score of a link is computed here, as the policies and the logs show the same one.
//! A view knows no keys, no sockets and no packets.

use std::time::Duration;

use crate::limits::{BURST, LINKS_MAX, LOSSY_PERMILLE, QUANTUM, SATURATED_PERMILLE};
use crate::packet::{BATCH_BYTES_MAX, LinkId};
use crate::time::Instant;
use crate::units::BitRate;

/// A full socket is tried again after this at the latest. Chosen: above the time slice of a loaded
/// host's scheduler, below what a person notices.
const ROOM_AFTER_MAX: Duration = Duration::from_millis(10);

/// A full datagram on an Ethernet path, bytes.
const DATAGRAM_BYTES: u64 = 1_500;

/// The state of a link as its user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkState {
    /// No proof that both directions deliver, for long.
    #[default]
    Down,
    /// Proof is overdue, or the link failed and is on its way back: carries no data while an `Up`
    /// link does.
    Suspect,
    /// Both directions are proven.
    Up,
}

/// Why a link is in the state that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StateCause {
    /// Nothing was proven yet: the link, or the peer, is new.
    #[default]
    New,
    /// What was sent is known to have arrived.
    Answered,
    /// Data was sent, and no answer to any of it came.
    DataUnanswered,
    /// Heartbeats were not answered.
    HeartbeatsUnanswered,
    /// The peer says over another link that nothing arrives.
    NothingArrives,
    /// The system refused to send.
    SendRefused,
    /// The interface lost its carrier, or is gone.
    CarrierLost,
    /// The peer says that the link failed.
    PeerGaveUp,
}

/// What a link is used for; in the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LinkRole {
    /// Always used.
    #[default]
    Primary,
    /// Used when the primary links are full.
    Secondary,
    /// Used when no other link is proven.
    Backup,
    /// Carries no data. Its heartbeats go on, so that its figures are known.
    Never,
}

/// What a policy may know about a link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkView {
    /// The link.
    pub id: LinkId,
    /// Whether data may go over it. False for a link that is down, that has no keys, whose path is
    /// not proven, or that is too small for the packet at hand.
    pub usable: bool,
    /// What the link's health says: proven, suspect or down.
    pub state: LinkState,
    /// Lower is preferred.
    pub priority: u8,
    /// What the link is used for.
    pub role: LinkRole,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Share of the datagrams sent lately that did not arrive.
    pub loss_permille: u16,
    /// The same without the losses of a standing queue.
    pub random_loss_permille: u16,
    /// Whether its datagrams are sealed.
    pub is_sealed: bool,
    /// Whether its packets have other numbers than those of the links that are preferred, so that
    /// no flow may use both.
    pub is_apart: bool,
    /// Whether packets that the link loses are sent again.
    pub recovers: bool,
    /// Mean number of datagrams lost in a row, tenths; 10 where nothing is known.
    pub burst_tenths: u16,
    /// Whether a competitor fills the link's queue, so that its delay is longer than its own.
    pub is_competing: bool,
    /// Whether the capacity is what the configuration allows, so that no more is to be found.
    pub is_at_ceiling: bool,
    /// Share of the capacity in use lately.
    pub utilisation_permille: u16,
    /// Pacing rate.
    pub rate: BitRate,
    /// What the link carries; the pacing rate is less for moments. `None`: not known, and the
    /// pacing rate grows with what arrives.
    pub capacity: Option<BitRate>,
    /// One-way delay of what this side sends, µs with an offset common to all links: only
    /// differences mean anything.
    pub delay_us: i64,
    /// From when on the pacer lets a datagram go.
    pub free_at: Instant,
    /// IP and UDP header bytes of a datagram.
    pub header_bytes: u64,
    /// The largest inner packet that the link carries, bytes. A policy need not check it: a link
    /// that is too small for the head is not usable.
    pub mtu: usize,
}

impl LinkView {
    /// How long `bytes` occupy the link, headers included.
    pub(crate) fn time_to_send(&self, bytes: u64) -> Duration {
        self.rate.time_to_send(bytes)
    }

    /// Whether packets that matter need a second link beside this one.
    pub(crate) const fn is_lossy(&self) -> bool {
        self.loss_permille >= LOSSY_PERMILLE
    }

    /// Spends the credit of a packet of `bytes`.
    pub(crate) fn charge(&mut self, bytes: usize, now: Instant) {
        let start = self.free_at.max(now.saturating_sub(BURST));
        let bytes = bytes as u64 + self.header_bytes;
        self.free_at = start + self.rate.time_to_send(bytes);
    }

    /// The link's socket is full: no credit until the driver says that there is room. When that is,
    /// is not known; likely a batch or two leave first.
    pub(crate) fn wait_for_room(&mut self, now: Instant) {
        let likely = self.time_to_send(2 * BATCH_BYTES_MAX as u64).min(ROOM_AFTER_MAX);
        self.free_at = self.free_at.max(now + likely);
    }

    /// From when on a run of bulk may go: the link saves up a quantum first, or, where it is fast,
    /// what one send holds. A slow link saves up nothing: a datagram that waits for the other
    /// links' runs is late, and late datagrams stand in the link's queue.
    pub(crate) fn run_at(&self) -> Instant {
        if self.is_slow() {
            return self.free_at;
        }
        self.free_at + self.rate.time_to_send(BATCH_BYTES_MAX as u64).min(QUANTUM)
    }

    /// Whether one datagram takes a quantum.
    pub(crate) fn is_slow(&self) -> bool {
        self.rate.time_to_send(DATAGRAM_BYTES) >= QUANTUM
    }

    /// Whether the pacer lets a datagram go now.
    pub(crate) fn has_credit(&self, now: Instant) -> bool {
        self.free_at <= now
    }
}

/// A set of a session's links. A link whose number is not below [`LINKS_MAX`] is never in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkSet(u32);

const _: () = assert!(LINKS_MAX <= 32);

impl LinkSet {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// Whether no link is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `link` is in it.
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
    /// It does, as the policies count.
    Counted,
    /// It does not, as logs print the score: the state says `SATURATED` beside it.
    Ignored,
}

/// The score of a link as users see it in the logs, rounded; lower is better.
///
/// ```text
/// score = priority × 1000 + rtt_ms × 10 + (utilisation > 80 % ? 10000 : 0) + loss_ratio × 5000
/// ```
/// Priority 1 and 22.5 ms give 1225; priority 2 and 78.3 ms give 2783.
pub fn score(link: &LinkView, saturation: Saturation) -> u32 {
    let rtt_us = u64::try_from(link.rtt.as_micros()).unwrap_or(u64::MAX);
    let saturated = saturation == Saturation::Counted && link.utilisation_permille > SATURATED_PERMILLE;
    let score = u64::from(link.priority) * 1_000
        + rtt_us.saturating_add(50) / 100
        + if saturated { 10_000 } else { 0 }
        + u64::from(link.loss_permille) * 5;
    u32::try_from(score).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::tests::link;

    #[test]
    fn the_formula() {
        let mut view = link(0, 10, 0);
        view.rtt = Duration::from_micros(22_500);
        assert_eq!(score(&view, Saturation::Counted), 1_225);
        view.priority = 2;
        view.rtt = Duration::from_micros(78_300);
        assert_eq!(score(&view, Saturation::Counted), 2_783);
        view.utilisation_permille = 800;
        assert_eq!(score(&view, Saturation::Counted), 2_783);
        view.utilisation_permille = 801;
        assert_eq!(score(&view, Saturation::Counted), 12_783);
        assert_eq!(score(&view, Saturation::Ignored), 2_783);
        view.loss_permille = 20;
        assert_eq!(score(&view, Saturation::Counted), 12_883);
        view.rtt = Duration::MAX;
        assert_eq!(score(&view, Saturation::Counted), u32::MAX);
    }
}
