//! How large packets may be: what the links carry together, and what becomes of packets that no
//! link carries.
//!
//! Three sizes, from what [`crate::link`] finds out for each link:
//! - *What passes*: the largest packet that some usable link carries. A larger packet is cut where
//!   it may be (IPv4 without "don't fragment"), else dropped, counted, and its sender told once the
//!   search of every usable link is over: a size that is too small would be believed for ten
//!   minutes. While a link's first probe is under way, packets wait for its answer.
//! - *The tunnel's MTU*: what every usable link carries whose search is over. A link that does not
//!   carry the 1,280 bytes of IPv6's minimum is left out and gets packets that fit it; below 1,280
//!   the kernel would take IPv6 away from the device. No other link is left out.
//! - *TCP's*: what every usable link carries, the links left out above included: segments of any
//!   size are fine with TCP, so connections fill the small link too. But a link of under 800 bytes
//!   beside larger ones carries what fits it, and bounds no segments. A link that is still being
//!   searched counts with what is known to pass.
//!
//! Measured: docs/decisions/0050-which-links-bound-the-tunnels-mtu.md.

use std::collections::VecDeque;
use std::time::Duration;

use crate::discard::{Discard, DiscardCounts};
use crate::event::Event;
use crate::inner::{mss, too_big};
use crate::link::{FLOOR_BYTES, Link};
use crate::packet::PacketBuf;
use crate::session::events::Events;
use crate::session::link_table::{LinkTable, is_in_use};
use crate::session::sealing::SEALING_BYTES;
use crate::time::Instant;
use crate::view::LinkState;
use crate::wire::FRAME_HEADER_BYTES;

/// The least that a search finds (`link::mtu`) less the largest overhead, IPv6, UDP, sealing and
/// frame header: every link carries packets of this size.
const SMALL_BYTES: usize = FLOOR_BYTES as usize - 40 - 8 - SEALING_BYTES - FRAME_HEADER_BYTES;
/// A link that carries no packets of this size bounds TCP's segments only where all are so small:
/// the headers would cost the other links more than it brings. Chosen: there headers are a tenth.
const TCP_BYTES_MIN: usize = 800;

/// Answers to packets that are too big: RFC 4443 §2.4 (f) asks for a token bucket. Chosen: a flow
/// needs one answer in ten minutes, so 100 a second serve a burst of new flows.
const ANSWER_INTERVAL: Duration = Duration::from_millis(10);
/// Answers at once after a pause. Chosen as above.
const ANSWER_BURST: u32 = 50;

/// What passes now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passes {
    /// The largest packet that some link carries.
    pub(super) bytes: usize,
    /// A first probe is under way.
    pub(super) opening: bool,
    /// The search of every link is over.
    settled: bool,
}

/// The sizes, and what was told of them.
#[derive(Debug)]
pub(super) struct Sizes {
    /// The configured MTU: the largest inner packet.
    packet_max: usize,
    /// The tunnel's MTU, as told.
    tunnel: u16,
    /// What TCP segments are to fit in, where connections are told, and pieces of streams.
    small: usize,
    clamps: bool,
    /// For TUN.
    answers: VecDeque<PacketBuf>,
    /// When the bucket of answers is full again, less a burst.
    answer_at: Instant,
    /// What was told of each link.
    told: Vec<Option<u16>>,
}

impl Sizes {
    pub(super) fn new(mtu: u16, mss_clamp: bool) -> Self {
        Self {
            packet_max: usize::from(mtu),
            tunnel: mtu,
            small: usize::from(mtu),
            clamps: mss_clamp,
            answers: VecDeque::new(),
            answer_at: Instant::ZERO,
            told: Vec::new(),
        }
    }

    pub(super) const fn packet_max(&self) -> usize {
        self.packet_max
    }

    /// The largest packet that every link in use carries, but for links that are far too small.
    pub(super) const fn tunnel_mtu(&self) -> u16 {
        self.tunnel
    }

    /// The packet as TCP's ends should see it.
    pub(super) fn clamped(&self, packet: PacketBuf) -> PacketBuf {
        if self.clamps { mss::clamp(packet, self.small) } else { packet }
    }

    /// What TCP segments are to fit in; `None`: connections are left alone.
    pub(super) const fn tcp(&self) -> Option<usize> {
        if self.clamps { Some(self.small) } else { None }
    }

    /// The largest piece of a stream that each link in use carries.
    pub(super) const fn stream_mtu(&self) -> usize {
        self.small
    }

    pub(super) fn poll_answer(&mut self) -> Option<PacketBuf> {
        self.answers.pop_front()
    }

    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether a packet of `bytes` may be queued: a link carries it, or may do so soon.
    pub(super) fn fits(&self, bytes: usize, links: &LinkTable) -> bool {
        // As a rule the first link says yes.
        let carries = |link: &Link| is_in_use(link) && link.path().packet_max().min(self.packet_max) >= bytes;
        if bytes <= SMALL_BYTES.min(self.packet_max) || links.iter().any(carries) {
            return true;
        }
        let passes = self.passes(links);
        bytes <= passes.bytes || (passes.opening && bytes <= self.packet_max)
    }

    pub(super) fn passes(&self, links: &LinkTable) -> Passes {
        let mut passes = Passes { bytes: 0, opening: false, settled: true };
        for link in links.iter().filter(|link| is_in_use(link)) {
            passes.bytes = passes.bytes.max(link.path().packet_max());
            // A link that is not proven is not probed, and not waited for.
            passes.opening |= link.path().is_opening() && link.state() == LinkState::Up;
            passes.settled &= link.path().is_settled();
        }
        passes.bytes = passes.bytes.min(self.packet_max);
        passes
    }

    /// Counts a packet that is too big, and tells its sender what is not, if that is known.
    pub(super) fn refuse(
        &mut self,
        packet: &[u8],
        passes: Passes,
        discards: &mut DiscardCounts,
        now: Instant,
    ) -> Discard {
        discards.count(Discard::TooBig);
        let limit = if passes.settled { passes.bytes } else { self.packet_max };
        self.answer(packet, limit, now);
        Discard::TooBig
    }

    /// Tells the sender of `packet` that `mtu` bytes pass.
    fn answer(&mut self, packet: &[u8], mtu: usize, now: Instant) {
        if self.answer_at > now {
            return;
        }
        if let Some(answer) = too_big::answer(packet, mtu) {
            let full = now.saturating_sub(ANSWER_INTERVAL * (ANSWER_BURST - 1));
            self.answer_at = self.answer_at.max(full) + ANSWER_INTERVAL;
            self.answers.push_back(answer);
        }
    }

    /// Links, their states or what they carry changed: what is told of them is brought up to date.
    pub(super) fn refresh(&mut self, links: &LinkTable, events: &mut Events) {
        self.told.resize(links.len(), None);
        for (link, told) in links.iter().zip(&mut self.told) {
            let found = link.path().mtu().filter(|_| link.path().is_settled() && is_in_use(link));
            if let Some(bytes) = found.filter(|bytes| *told != Some(*bytes)) {
                *told = Some(bytes);
                events.push(Event::LinkMtu { link: link.id(), bytes });
            }
        }
        let usable = || links.iter().filter(|link| is_in_use(link));
        let known = || usable().filter(|link| !link.path().is_opening()).map(|link| link.path().packet_max());
        let ample = known().filter(|bytes| *bytes >= TCP_BYTES_MIN).min();
        self.small = ample.or_else(|| known().min()).unwrap_or(usize::MAX).min(self.packet_max);
        let settled =
            || usable().filter(|link| link.path().is_settled()).map(|link| link.path().packet_max());
        let Some(largest) = settled().max() else { return };
        let least = too_big::V6_MTU_MIN.min(self.packet_max);
        let large = settled().filter(|bytes| *bytes >= least).min();
        debug_assert!(large.is_some() || largest < least);
        let tunnel = u16::try_from(large.unwrap_or(least).min(self.packet_max)).unwrap_or(u16::MAX);
        if tunnel != self.tunnel {
            self.tunnel = tunnel;
            events.push(Event::TunnelMtu(tunnel));
        }
    }
}
