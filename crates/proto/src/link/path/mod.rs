//! The path of one link: where it sends to, the control frames that go there, the sizes that it
//! carries, and whether its datagrams may be marked. It knows no rates and no keys.

pub(super) mod address;
pub(super) mod ecn;
pub(super) mod mtu;
pub(super) mod probe;

use std::collections::VecDeque;

use self::address::PathState;
use self::ecn::Ecn;
use self::probe::Sizes;
use crate::config::{LinkConfig, Security};
use crate::link::feedback::delays::RttEstimator;
use crate::packet::Path;
use crate::time::Instant;
use crate::wire::control::{CHALLENGE_BYTES, Control};

/// Bytes of IP and UDP header around a datagram (RFC 791, RFC 8200, RFC 768): pacing counts them.
const IPV4_HEADERS: u64 = 20 + 8;
/// See [`IPV4_HEADERS`].
const IPV6_HEADERS: u64 = 40 + 8;

/// Most control frames that wait for their turn. Chosen: more than the session ever asks for.
const CONTROL_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct LinkPath {
    pub(super) address: PathState,
    pub(super) sizes: Sizes,
    pub(super) ecn: Ecn,
    control: VecDeque<Control>,
}

impl LinkPath {
    pub(super) fn new(config: &LinkConfig) -> Self {
        let candidates = config.path.iter().chain(&config.alternatives).copied().collect();
        Self {
            address: PathState::new(candidates),
            sizes: Sizes::new(config.mtu, config.security == Security::Sealed),
            ecn: Ecn::default(),
            control: VecDeque::new(),
        }
    }

    /// Whether there is somewhere to send to.
    pub(crate) const fn is_known(&self) -> bool {
        self.address.known().is_some()
    }

    /// Where the link sends to; `None` until a server has heard the client.
    pub(crate) const fn current(&self) -> Option<Path> {
        self.address.current()
    }

    /// Whether the path is known to receive.
    pub(crate) const fn is_trusted(&self) -> bool {
        self.address.is_trusted()
    }

    /// Every address that a client may reach its server at on this link.
    pub(crate) fn candidates(&self) -> &[Path] {
        self.address.candidates()
    }

    /// Whether a client may hear its server from `path`.
    pub(crate) fn accepts_from(&self, path: &Path) -> bool {
        self.address.knows(path)
    }

    /// A client heard its server on `path`. Whether that is another one than it sent to.
    pub(crate) fn adopt(&mut self, path: Path) -> bool {
        self.address.adopt(path)
    }

    /// The peer answered a challenge from `path`. Whether the path may be used for data from now
    /// on.
    pub(crate) fn on_response(&mut self, token: &[u8; CHALLENGE_BYTES], path: &Path) -> bool {
        self.address.on_response(token, path)
    }

    /// Whether a datagram with `bytes` of UDP payload may go where the link sends to; if so it
    /// counts.
    pub(crate) fn try_spend(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64 + self.header_bytes();
        self.address.try_spend(bytes)
    }

    /// Whether what is sent, heartbeats apart, may be marked on its way.
    pub(crate) fn may_be_marked(&self) -> bool {
        self.ecn.may_be_marked()
    }

    /// The largest inner packet that one datagram carries.
    pub(crate) fn packet_max(&self) -> usize {
        if self.sizes.is_searched() { self.sizes.packet_max(self.header_bytes()) } else { usize::MAX }
    }

    /// A first probe is under way: soon the link may carry more.
    pub(crate) fn is_opening(&self) -> bool {
        self.sizes.is_searched() && self.sizes.search().is_opening()
    }

    /// [`Self::packet_max`] is as far as the search goes.
    pub(crate) fn is_settled(&self) -> bool {
        !self.sizes.is_searched() || self.sizes.search().is_settled()
    }

    /// The largest IP packet that is known to pass; `None`: not asked for.
    pub(crate) fn mtu(&self) -> Option<u16> {
        self.sizes.is_searched().then(|| self.sizes.search().bytes())
    }

    /// The peer received a probe in `bytes` of UDP payload. Whether what the link carries changed.
    pub(crate) fn on_probe_answer(&mut self, id: u32, bytes: u16, now: Instant) -> bool {
        let bytes = u16::try_from(u64::from(bytes) + self.header_bytes()).unwrap_or(u16::MAX);
        self.sizes.search_mut().on_answer(id, bytes, now)
    }

    /// The kernel refused a datagram with `bytes` of UDP payload as too large. Whether what the
    /// link carries changed.
    pub(crate) fn on_refused(&mut self, bytes: usize, now: Instant) -> bool {
        let bytes = u16::try_from(bytes as u64 + self.header_bytes()).unwrap_or(u16::MAX);
        self.sizes.is_searched() && self.sizes.search_mut().on_refused(bytes, now)
    }

    /// A datagram with `bytes` of UDP payload goes out. Returns its size with headers.
    pub(super) fn on_sent(&mut self, bytes: usize) -> u64 {
        let bytes = bytes as u64 + self.header_bytes();
        self.sizes.search_mut().on_sent(bytes);
        bytes
    }

    /// The probe to send now, where inner packets need not be larger than `packet_max`, and whether
    /// the path is another than the one that was known.
    pub(super) fn poll_probe(
        &mut self,
        packet_max: usize,
        rtt: &RttEstimator,
        now: Instant,
    ) -> (Option<Control>, bool) {
        let Some(to) = self.address.known().map(|path| path.remote.ip()) else { return (None, false) };
        self.sizes.poll((to, packet_max), rtt, self.header_bytes(), now)
    }

    /// Whether [`Self::poll_probe`] may have something to say.
    #[inline]
    pub(super) fn may_probe(&self, packet_max: usize, now: Instant) -> bool {
        let to = self.address.known().map(|path| path.remote.ip());
        to.is_some_and(|to| self.sizes.may_probe((to, packet_max), self.header_bytes(), now))
    }

    /// When an answer to a probe is overdue.
    pub(crate) fn probe_timeout(&self) -> Option<Instant> {
        self.sizes.search().poll_timeout()
    }

    /// Bytes of IP and UDP header around a datagram.
    pub(super) fn header_bytes(&self) -> u64 {
        let is_ipv6 = |path: &Path| path.remote.ip().to_canonical().is_ipv6();
        if self.address.known().is_some_and(is_ipv6) { IPV6_HEADERS } else { IPV4_HEADERS }
    }

    /// Sends a control frame as soon as may be.
    pub(crate) fn push_control(&mut self, control: Control) {
        if self.control.len() < CONTROL_MAX {
            self.control.push_back(control);
        }
    }

    /// The control frame to send now.
    pub(crate) fn poll_control(&mut self, now: Instant) -> Option<Control> {
        self.control.pop_front().or_else(|| self.address.poll_challenge(now).map(Control::Challenge))
    }

    /// When a control frame is due; the past: at once.
    pub(crate) fn control_at(&self) -> Option<Instant> {
        if self.control.is_empty() { self.address.challenge_at() } else { Some(Instant::ZERO) }
    }

    /// The peer was restarted: a server learns its paths anew. Whether there is no path any more.
    pub(super) fn forget(&mut self) -> bool {
        self.address.forget();
        let is_gone = !self.is_known();
        if is_gone {
            self.control.clear();
        }
        is_gone
    }
}
