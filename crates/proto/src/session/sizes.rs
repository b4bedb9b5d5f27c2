//! How large packets may be: what the links carry together, and what becomes of those that none carries.
//!
//! Three sizes, from what [`crate::link`] finds out for each link:
//! - *What passes*: the largest that some usable link carries. A larger packet is cut where it may be (IPv4 without "don't
//!   fragment"), else dropped, counted, and its sender told, once the search of every usable link is over: a size that is too small
//!   would be believed for ten minutes. While a link's first probe is under way, packets wait for it.
//! - *The tunnel's MTU*: what every usable link carries whose search is over; but a link that does not carry the 1,280 bytes of
//!   IPv6's minimum is left out, and gets packets that fit it. No other link is: full packets of 1,280 bytes cost 0.9 % of goodput
//!   against 1,429 (111 bytes around 1,240 against 111 around 1,389), less than what any link adds that is worth having. Below
//!   1,280 the kernel would take IPv6 away from the device.
//! - *TCP's*: what every usable link carries, those that are left out above as well: segments of any size are fine with TCP, and
//!   1,189 bytes instead of 1,389 cost 1.2 %, so that connections fill the small link, too. A link that is still being searched counts
//!   with what is known to pass.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::Session;
use super::keyring::{Keyring, SEALING_BYTES, SealedAs};
use crate::discard::Discard;
use crate::event::Event;
use crate::inner::{fragment, mss, too_big};
use crate::link::{BASE_BYTES, Link};
use crate::packet::{LinkId, PacketBuf, SocketId, Transmit};
use crate::qos::flow::{self, InnerHeader};
use crate::qos::queue::{Queued, Tier};
use crate::scheduler::Decision;
use crate::time::Instant;
use crate::view::{LinkRole, LinkState, LinkView};
use crate::wire::control::Control;
use crate::wire::{self, FRAME_HEADER_BYTES, Kind, Modifiers};

/// The base of any search less the largest overhead: every link carries packets of this size.
const SMALL_BYTES: usize = BASE_BYTES as usize - 40 - 8 - SEALING_BYTES - FRAME_HEADER_BYTES;

/// Answers to packets that are too big: RFC 4443 §2.4 (f) asks for a token bucket. A flow needs one in ten minutes.
const ANSWER_INTERVAL: Duration = Duration::from_millis(10);
const ANSWER_BURST: u32 = 50;

/// IANA's number.
const TCP: u8 = 6;

/// What of the sizes is remembered.
#[derive(Debug)]
pub(super) struct Sizes {
    /// The tunnel's MTU, as told.
    tunnel: u16,
    /// What TCP segments are to fit in; `None`: connections are left alone.
    tcp: Option<usize>,
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
            tunnel: mtu,
            tcp: mss_clamp.then_some(usize::from(mtu)),
            answers: VecDeque::new(),
            answer_at: Instant::ZERO,
            told: Vec::new(),
        }
    }

    /// The packet as TCP's ends should see it.
    pub(super) fn clamped(&self, packet: PacketBuf) -> PacketBuf {
        match self.tcp {
            Some(mtu) => mss::clamp(packet, mtu),
            None => packet,
        }
    }

    /// The next answer.
    pub(super) fn poll_answer(&mut self) -> Option<PacketBuf> {
        self.answers.pop_front()
    }

    /// Whether [`Self::poll_answer`] has something.
    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
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
}

/// Whether packets may go over the link.
fn is_in_use(link: &Link) -> bool {
    link.state() != LinkState::Down && link.link_role() != LinkRole::Never
}

/// What passes now.
#[derive(Debug, Clone, Copy)]
struct Passes {
    bytes: usize,
    /// A first probe is under way.
    opening: bool,
    /// Nothing more is being asked for.
    settled: bool,
}

impl Session {
    /// What the tunnel's MTU should be: the largest packet that every link in use carries, but for links that are far too small.
    pub const fn tunnel_mtu(&self) -> u16 {
        self.sizes.tunnel
    }

    /// The kernel refused a datagram of `bytes` from `socket` to `remote` as too large. Whether one of
    /// this session's links has that path.
    pub(crate) fn handle_too_big(
        &mut self,
        socket: SocketId,
        remote: SocketAddr,
        bytes: usize,
        now: Instant,
    ) -> bool {
        let on = |link: &&mut Link| {
            link.path().is_some_and(|known| known.socket == socket && known.remote == remote)
        };
        let Some(link) = self.links.iter_mut().find(on) else { return false };
        if link.on_refused(bytes, now) {
            self.on_sizes_changed(now);
        }
        true
    }

    /// A probe that is due.
    pub(super) fn transmit_probe(&mut self, buf: &mut Vec<u8>, now: Instant) -> Option<Transmit> {
        if !self.keyring.can_seal(now) {
            return None;
        }
        let (mut moved, mut transmit) = (false, None);
        for link in &mut self.links {
            let (probe, other_path) = link.poll_probe(self.mtu, now);
            moved |= other_path;
            let (Some(probe), Some(path)) = (probe, link.path()) else { continue };
            let start = buf.len();
            Keyring::begin(buf);
            wire::put_frame_header(buf, 0, Kind::Control, Modifiers::NONE, probe.payload_bytes());
            probe.put(buf);
            let sealed_as = self.keyring.seal(link.id().0, buf, start, now);
            let size = buf.len() - start;
            link.on_probe_sent(size, sealed_as.map(SealedAs::name), now);
            transmit = Some(Transmit::new(link.id(), path, size, size));
            break;
        }
        if moved {
            self.on_sizes_changed(now);
        }
        transmit
    }

    /// A probe arrived in `bytes` of UDP payload: that is what it asked.
    pub(super) fn on_probe(&mut self, id: LinkId, probe: u32, bytes: usize) {
        let Some(link) = self.links.get_mut(id.index()) else { return };
        link.on_probe_received();
        link.push_control(Control::ProbeReceived {
            id: probe,
            bytes: u16::try_from(bytes).unwrap_or(u16::MAX),
        });
    }

    /// A probe of ours arrived.
    pub(super) fn on_probe_answer(&mut self, id: LinkId, probe: u32, bytes: u16, now: Instant) {
        let Some(link) = self.links.get_mut(id.index()) else { return };
        if link.on_probe_answer(probe, bytes, now) {
            self.on_sizes_changed(now);
        }
    }

    /// Answers to probes may be overdue.
    pub(super) fn on_probe_time(&mut self, now: Instant) {
        let mut changed = false;
        for link in &mut self.links {
            changed |= link.on_probe_time(now);
        }
        if changed {
            self.on_sizes_changed(now);
        }
    }

    /// What some link carries changed.
    fn on_sizes_changed(&mut self, now: Instant) {
        self.refresh_sizes();
        // What waited for a size may go, or may not any more.
        self.transmit_at = Some(now);
    }

    /// Links, their states or what they carry changed.
    pub(super) fn refresh_sizes(&mut self) {
        self.sizes.told.resize(self.links.len(), None);
        for (link, told) in self.links.iter().zip(&mut self.sizes.told) {
            let found = link.path_mtu().filter(|_| link.is_settled() && is_in_use(link));
            if let Some(bytes) = found.filter(|bytes| *told != Some(*bytes)) {
                *told = Some(bytes);
                self.events.push_back(Event::LinkMtu { link: link.id(), bytes });
            }
        }
        let usable = || self.links.iter().filter(|link| is_in_use(link));
        if let Some(tcp) = &mut self.sizes.tcp {
            let known = usable().filter(|link| !link.is_opening());
            *tcp = known.map(Link::packet_max).fold(self.mtu, usize::min);
        }
        let settled = || usable().filter(|link| link.is_settled()).map(Link::packet_max);
        let Some(largest) = settled().max() else { return };
        let least = too_big::V6_MTU_MIN.min(self.mtu);
        let large = settled().filter(|bytes| *bytes >= least).min();
        debug_assert!(large.is_some() || largest < least);
        let tunnel = u16::try_from(large.unwrap_or(least).min(self.mtu)).unwrap_or(u16::MAX);
        if tunnel != self.sizes.tunnel {
            self.sizes.tunnel = tunnel;
            self.events.push_back(Event::TunnelMtu(tunnel));
        }
    }

    fn passes(&self) -> Passes {
        let mut passes = Passes { bytes: 0, opening: false, settled: true };
        for link in self.links.iter().filter(|link| is_in_use(link)) {
            passes.bytes = passes.bytes.max(link.packet_max());
            // A link that is not proven is not asked, and not waited for.
            passes.opening |= link.is_opening() && link.state() == LinkState::Up;
            passes.settled &= link.is_settled();
        }
        passes.bytes = passes.bytes.min(self.mtu);
        passes
    }

    /// Whether a packet may be queued; if not, what there is to be done about it is done. `Ok(None)`: it went in in pieces.
    pub(super) fn fitted(
        &mut self,
        packet: PacketBuf,
        header: &InnerHeader,
        now: Instant,
    ) -> Result<Option<PacketBuf>, Discard> {
        // As a rule the first link says yes.
        let carries = |link: &Link| is_in_use(link) && link.packet_max().min(self.mtu) >= packet.len();
        if packet.len() > SMALL_BYTES.min(self.mtu) && !self.links.iter().any(carries) {
            let passes = self.passes();
            let soon = passes.opening && packet.len() <= self.mtu;
            if packet.len() > passes.bytes && !soon {
                if too_big::forbids_fragments(&packet, header) {
                    return Err(self.refuse_size(&packet, passes, now));
                }
                let packet = packet.completed();
                let pieces = fragment::fragments(&packet, passes.bytes);
                if pieces.is_empty() {
                    return Err(self.refuse_size(&packet, passes, now));
                }
                for piece in pieces {
                    let header = flow::parse(&piece)?;
                    self.enqueue(&header, piece, now)?;
                }
                return Ok(None);
            }
        }
        Ok(Some(if header.protocol == TCP { self.sizes.clamped(packet) } else { packet }))
    }

    /// Drops a packet that is too big, and tells its sender what is not if that is known.
    fn refuse_size(&mut self, packet: &[u8], passes: Passes, now: Instant) -> Discard {
        self.counters.discards.count(Discard::TooBig);
        let limit = if passes.settled { passes.bytes } else { self.mtu };
        self.sizes.answer(packet, limit, now);
        Discard::TooBig
    }

    /// The packet that is next in `tier`, if some link carries it or soon may.
    pub(super) fn fitting_head(&mut self, tier: Tier, now: Instant) -> Option<Queued> {
        loop {
            let head = self.queue.head(tier, now)?;
            let unused = |view: &&LinkView| !view.usable || view.role == LinkRole::Never;
            let usable = self.views.iter().filter(|view| !unused(view));
            let Some(most) = usable.map(|view| view.mtu).max() else { return Some(head) };
            if head.bytes <= most {
                return Some(head);
            }
            let passes = self.passes();
            if passes.opening {
                return None;
            }
            // It came in before a link went or its path became narrower.
            let (_, packet) = self.queue.pop(tier, now)?;
            self.refuse_size(&packet, passes, now);
        }
    }

    /// The scheduler's choice among the links that carry `head`.
    pub(super) fn select(&mut self, head: &Queued, now: Instant) -> Decision {
        let least = self.views.iter().map(|view| view.mtu).min().unwrap_or(0);
        if head.bytes <= least {
            return self.scheduler.select(head, &self.views, now);
        }
        self.fitting.clear();
        self.fitting.extend(self.views.iter().map(|view| {
            let mut view = *view;
            if view.mtu < head.bytes {
                view.usable = false;
            }
            view
        }));
        self.scheduler.select(head, &self.fitting, now)
    }
}
