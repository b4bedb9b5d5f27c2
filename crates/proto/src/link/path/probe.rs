//! The sizes that a sealed link carries: the search of [`super::mtu`] with the headers of the path
//! that the link is on, and the control frames that ask.
//!
//! A plain link is not searched: it carries whatever the session takes, which is what both sides
//! were told.

use std::net::IpAddr;
use std::time::Duration;

use super::mtu::PathMtu;
use crate::crypto::aead::TAG_BYTES;
use crate::link::feedback::delays::RttEstimator;
use crate::time::Instant;
use crate::wire::FRAME_HEADER_BYTES;
use crate::wire::control::{Control, PROBE_BYTES};
use crate::wire::sealed::SEALED_HEADER_BYTES;

/// Around the payload of a frame that is alone in a sealed datagram, bytes. Source: PROTOCOL.md.
const SEALED_FRAME_BYTES: usize = SEALED_HEADER_BYTES + TAG_BYTES + FRAME_HEADER_BYTES;

/// Bounds of the time that a probe's answer may take. Chosen: above the scheduling of hosts.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// See [`TIMEOUT_MIN`]. Chosen: a search of four rounds ends within some seconds.
const TIMEOUT_MAX: Duration = Duration::from_secs(3);
/// On top of what the round trip was lately. Chosen: the wake-ups of both hosts.
const TIMEOUT_SLACK: Duration = Duration::from_millis(50);

/// The target of probes: the peer's address, and the largest size that is asked for.
type Target = (IpAddr, u16);

/// The peer's address, and how large an inner packet needs to be at most.
type Wanted = (IpAddr, usize);

/// The sizes of one link.
#[derive(Debug)]
pub(in crate::link) struct Sizes {
    search: PathMtu,
    /// What the interface takes.
    interface_max: u16,
    /// The link is sealed.
    is_searched: bool,
    /// The peer's address that the search is about.
    of: Option<IpAddr>,
}

impl Sizes {
    /// On an interface that takes packets of `interface_max` bytes.
    pub(in crate::link) fn new(interface_max: u16, is_searched: bool) -> Self {
        Self { search: PathMtu::new(interface_max), interface_max, is_searched, of: None }
    }

    /// Whether the path is searched: a plain link is not.
    pub(in crate::link) const fn is_searched(&self) -> bool {
        self.is_searched
    }

    /// The search, with sizes of IP packets.
    pub(in crate::link) const fn search(&self) -> &PathMtu {
        &self.search
    }

    /// The same, to be told of what was sent and what arrived.
    pub(in crate::link) const fn search_mut(&mut self) -> &mut PathMtu {
        &mut self.search
    }

    /// The largest inner packet that one sealed datagram carries.
    pub(in crate::link) fn packet_max(&self, header_bytes: u64) -> usize {
        usize::from(self.search.bytes()).saturating_sub(overhead(header_bytes))
    }

    /// What probes ask for.
    #[inline]
    fn target(&self, (to, packet_max): Wanted, header_bytes: u64) -> Target {
        let wanted = packet_max.saturating_add(overhead(header_bytes));
        (to, self.interface_max.min(u16::try_from(wanted).unwrap_or(u16::MAX)))
    }

    fn is_moved(&self, (to, max): Target) -> bool {
        self.of != Some(to) || self.search.max() != max
    }

    /// The probe to send now, and whether the path is another than the one that was known.
    pub(in crate::link) fn poll(
        &mut self,
        wanted: Wanted,
        rtt: &RttEstimator,
        header_bytes: u64,
        now: Instant,
    ) -> (Option<Control>, bool) {
        let target = self.target(wanted, header_bytes);
        let moved = self.is_moved(target);
        if moved {
            self.of = Some(target.0);
            self.search.restart(target.1);
        }
        let usual = rtt.srtt().unwrap_or_default() * 3 / 2 + rtt.rttvar() * 4 + TIMEOUT_SLACK;
        let probe = self.search.poll_probe(usual.clamp(TIMEOUT_MIN, TIMEOUT_MAX), now);
        let control = probe.map(|probe| {
            let around = header_bytes + SEALED_FRAME_BYTES as u64 + u64::from(PROBE_BYTES);
            let around = u16::try_from(around).unwrap_or(u16::MAX);
            Control::Probe { id: probe.id, padding: probe.bytes.saturating_sub(around) }
        });
        (control, moved)
    }

    /// Whether [`Self::poll`] may have something to say.
    #[inline]
    pub(in crate::link) fn may_probe(&self, wanted: Wanted, header_bytes: u64, now: Instant) -> bool {
        self.is_moved(self.target(wanted, header_bytes)) || self.search.may_probe(now)
    }
}

fn overhead(header_bytes: u64) -> usize {
    SEALED_FRAME_BYTES + usize::try_from(header_bytes).unwrap_or(usize::MAX)
}
