//! What the link carries, as its session asks: the search of [`super::mtu`] with the headers of the path that it is on.
//!
//! A plain link is not searched: it carries whatever the session takes, which is what both sides were told.

use std::net::IpAddr;
use std::time::Duration;

use super::loss::LossMeter;
use super::{Link, Outgoing};
use crate::config::Security;
use crate::crypto::aead::TAG_BYTES;
use crate::time::Instant;
use crate::view::{LinkRole, LinkState};
use crate::wire::FRAME_HEADER_BYTES;
use crate::wire::control::{Control, PROBE_BYTES};
use crate::wire::sealed::SEALED_HEADER_BYTES;

/// Around the payload of a frame that is alone in a sealed datagram.
const SEALED_FRAME_BYTES: usize = SEALED_HEADER_BYTES + TAG_BYTES + FRAME_HEADER_BYTES;

/// Bounds of the time that a probe's answer may take.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(3);
/// On top of what the round trip was lately, for the peer's and our wake-ups.
const TIMEOUT_SLACK: Duration = Duration::from_millis(50);

impl Link {
    /// The largest inner packet that one datagram carries.
    pub fn packet_max(&self) -> usize {
        match self.security {
            Security::Plain => usize::MAX,
            Security::Sealed => usize::from(self.mtu.bytes()).saturating_sub(self.overhead()),
        }
    }

    /// A first probe is under way: soon the link may carry more.
    pub fn is_opening(&self) -> bool {
        self.security == Security::Sealed && self.mtu.is_opening()
    }

    /// [`Self::packet_max`] is as far as the search goes.
    pub fn is_settled(&self) -> bool {
        self.security == Security::Plain || self.mtu.is_settled()
    }

    /// The largest IP packet that is known to pass; `None`: not asked for.
    pub fn path_mtu(&self) -> Option<u16> {
        (self.security == Security::Sealed).then(|| self.mtu.bytes())
    }

    /// The probe to send now, on a link that need not carry inner packets of more than `packet_max`, and whether the path is another
    /// than the one that was known. To be asked before data is sent.
    pub fn poll_probe(&mut self, packet_max: usize, now: Instant) -> (Option<Control>, bool) {
        let Some((to, max)) = self.probed_path(packet_max) else {
            return (None, false);
        };
        let moved = self.mtu_of != Some(to) || self.mtu.max() != max;
        if moved {
            self.mtu_of = Some(to);
            self.mtu.restart(max);
        }
        let usual = self.rtt.srtt().unwrap_or_default() * 3 / 2 + self.rtt.rttvar() * 4 + TIMEOUT_SLACK;
        let probe = self.mtu.poll_probe(usual.clamp(TIMEOUT_MIN, TIMEOUT_MAX), now);
        let control = probe.map(|probe| {
            let around = self.header_bytes() + SEALED_FRAME_BYTES as u64 + u64::from(PROBE_BYTES);
            let around = u16::try_from(around).unwrap_or(u16::MAX);
            Control::Probe { id: probe.id, padding: probe.bytes.saturating_sub(around) }
        });
        (control, moved)
    }

    /// Whether [`Self::poll_probe`] may have something to say.
    pub(super) fn may_probe(&self, packet_max: usize, now: Instant) -> bool {
        self.probed_path(packet_max).is_some_and(|(to, max)| {
            self.mtu_of != Some(to) || self.mtu.max() != max || self.mtu.may_probe(now)
        })
    }

    /// Where probes go, and the largest size that they ask for; `None`: there are to be none at present.
    #[inline]
    fn probed_path(&self, packet_max: usize) -> Option<(IpAddr, u16)> {
        let proven = self.health.state() == LinkState::Up && self.path.is_trusted();
        let wanted = self.security == Security::Sealed && self.link_role != LinkRole::Never;
        let path = self.path.known().filter(|_| proven && wanted)?;
        let wanted = u16::try_from(packet_max.saturating_add(self.overhead())).unwrap_or(u16::MAX);
        Some((path.remote.ip(), self.mtu_max.min(wanted)))
    }

    /// A probe of `bytes` of UDP payload goes out. It takes its share of the link's rate, but heartbeats do not count it as a
    /// datagram: its loss says nothing about the link.
    pub fn on_probe_sent(&mut self, bytes: usize, sealed: Option<(u32, u64)>, now: Instant) {
        self.on_sent(bytes, Outgoing::control(sealed), now);
        self.tx_packets = self.tx_packets.saturating_sub(1);
    }

    /// A probe arrived, in a datagram that was counted.
    pub const fn on_probe_received(&mut self) {
        self.rx_run_packets = self.rx_run_packets.saturating_sub(1);
    }

    /// The peer received a probe in `bytes` of UDP payload. Whether what the link carries changed.
    pub fn on_probe_answer(&mut self, id: u32, bytes: u16, now: Instant) -> bool {
        let bytes = u16::try_from(u64::from(bytes) + self.header_bytes()).unwrap_or(u16::MAX);
        self.mtu.on_answer(id, bytes, now)
    }

    /// The kernel refused a datagram with `bytes` of UDP payload as too large. Whether what the link carries changed.
    pub fn on_refused(&mut self, bytes: usize, now: Instant) -> bool {
        let bytes = u16::try_from(bytes as u64 + self.header_bytes()).unwrap_or(u16::MAX);
        self.security == Security::Sealed && self.mtu.on_refused(bytes, now)
    }

    /// An answer may be overdue. Whether what the link carries changed.
    pub fn on_probe_time(&mut self, now: Instant) -> bool {
        let before = self.mtu.bytes();
        let up = self.health.state() != LinkState::Down;
        let changed = self.mtu.on_time(self.health.proven_at(), up, now);
        if self.mtu.bytes() < before {
            // What the black hole swallowed would keep the link unused for as long as its window.
            self.loss = LossMeter::default();
            self.random_loss = LossMeter::default();
            self.log.clear();
            self.echoed = None;
        }
        changed
    }

    /// When an answer is overdue.
    pub fn probe_timeout(&self) -> Option<Instant> {
        self.mtu.poll_timeout()
    }

    fn overhead(&self) -> usize {
        SEALED_FRAME_BYTES + usize::try_from(self.header_bytes()).unwrap_or(usize::MAX)
    }
}
