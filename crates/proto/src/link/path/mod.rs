//! The path of one link: where it sends to, the control frames that go there, the sizes that it
//! carries, whether its datagrams may be marked, and over which of its UDP flows they go. It knows
//! no rates and no keys.

pub(super) mod address;
pub(super) mod ecn;
pub(crate) mod flows;
pub(super) mod mtu;
pub(super) mod probe;

use std::collections::VecDeque;

use self::address::PathState;
use self::ecn::Ecn;
use self::flows::Flows;
use self::probe::Sizes;
use crate::config::{LinkConfig, Role, Security};
use crate::link::feedback::delays::RttEstimator;
use crate::packet::{Destination, Path, SocketId, UdpFlow};
use crate::time::Instant;
use crate::wire::control::{CHALLENGE_BYTES, Control};
use std::net::SocketAddr;

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
    pub(super) flows: Flows,
    control: VecDeque<(UdpFlow, Control)>,
}

impl LinkPath {
    pub(super) fn new(role: Role, config: &LinkConfig) -> Self {
        let candidates: Vec<Path> = config.path.iter().chain(&config.alternatives).copied().collect();
        let learns = role == Role::Server && candidates.is_empty();
        Self {
            flows: Flows::new(learns),
            address: if learns { PathState::learning() } else { PathState::new(candidates) },
            sizes: Sizes::new(config.mtu, config.security == Security::Sealed),
            ecn: Ecn::default(),
            control: VecDeque::new(),
        }
    }

    /// Whether there is somewhere to send to.
    pub(crate) const fn is_known(&self) -> bool {
        self.address.known().is_some()
    }

    /// Where the first flow sends to; `None` until a server has heard the client.
    pub(crate) const fn current(&self) -> Option<Path> {
        self.address.current()
    }

    /// Whether the path of a flow is known to receive.
    pub(crate) fn is_trusted(&self) -> bool {
        self.address.is_trusted() || self.flows.other_live().is_some()
    }

    /// Whether the first flow may carry what waits for no answer.
    fn is_first_good(&self) -> bool {
        self.address.is_trusted() && self.flows.is_first_live()
    }

    /// Whether the flow is known to reach the peer's address.
    pub(crate) fn trusts(&self, flow: UdpFlow) -> bool {
        if flow == UdpFlow::FIRST { self.address.is_trusted() } else { self.flows.trusts(flow) }
    }

    /// Where the flow sends to.
    pub(super) fn of_flow(&self, flow: UdpFlow) -> Option<Destination> {
        let current = self.address.current()?;
        let path = if flow == UdpFlow::FIRST {
            current
        } else if self.address.learns() {
            self.flows.path(flow)?
        } else {
            Path { socket: SocketId::of(current.socket.link(), flow), ..current }
        };
        Some(Destination { path, flow })
    }

    /// Where goes what is not data; `None` until a server has heard the client.
    pub(crate) fn destination(&self) -> Option<Destination> {
        let other = if self.is_first_good() { None } else { self.flows.other_live() };
        self.of_flow(other.unwrap_or(UdpFlow::FIRST))
    }

    /// Where data goes next.
    pub(crate) fn data_destination(&self) -> Option<Destination> {
        match self.flows.next() {
            UdpFlow::FIRST => self.destination(),
            flow => self.of_flow(flow),
        }
    }

    /// Whether it sends from this socket, to `remote` if that is given.
    pub(crate) fn sends_to(&self, socket: SocketId, remote: Option<SocketAddr>) -> bool {
        let Some(known) = self.address.known() else { return false };
        let is_client = !self.address.learns();
        let socket_of =
            |path: &Path| if is_client { socket.link() == path.socket.link() } else { socket == path.socket };
        (socket_of(known) && remote.is_none_or(|remote| known.remote == remote))
            || self.flows.sends_to(socket, remote)
    }

    /// Whether the last path that was proven to receive is another than `path`.
    pub(crate) fn trusts_another(&self, path: &Path) -> bool {
        self.address.trusts_another(path)
    }

    /// Every address that a client may reach its server at on this link.
    pub(crate) fn candidates(&self) -> &[Path] {
        self.address.candidates()
    }

    /// Whether a client may hear its server from `path`.
    pub(crate) fn accepts_from(&self, path: &Path) -> bool {
        self.address.knows(&first_of(*path))
    }

    /// A client may send to these addresses of its server from now on; the one in use stays while
    /// `is_used`. Whether it sends elsewhere from now on.
    pub(super) fn set_candidates(&mut self, candidates: Vec<Path>, is_used: bool) -> bool {
        self.address.set_candidates(candidates, is_used)
    }

    /// A client sends to this port of its server from now on.
    pub(crate) fn set_port(&mut self, port: u16) {
        self.address.set_port(port);
    }

    /// A client heard its server on `path`. Whether that is another one than it sent to.
    pub(crate) fn adopt(&mut self, path: Path) -> bool {
        self.address.adopt(first_of(path))
    }

    /// A server's authenticated datagram with `bytes` of UDP payload came on the flow from `path`;
    /// `newest`: none newer was seen on the link. Whether the flow's address is another one.
    pub(super) fn follow(
        &mut self,
        (flow, path): (UdpFlow, Path),
        newest: bool,
        bytes: usize,
        token: impl FnOnce() -> [u8; CHALLENGE_BYTES],
        now: Instant,
    ) -> bool {
        let bytes = bytes as u64 + self.header_bytes();
        match flow {
            UdpFlow::FIRST => self.address.follow(path, newest, bytes, token, now),
            flow => self.flows.follow((flow, path), newest, bytes, token, now),
        }
    }

    /// The peer answered a challenge on the flow from `path`. Whether the path may be used for data
    /// from now on.
    pub(crate) fn on_response(
        &mut self,
        token: &[u8; CHALLENGE_BYTES],
        (flow, path): (UdpFlow, &Path),
        now: Instant,
    ) -> bool {
        match flow {
            UdpFlow::FIRST => self.address.on_response(token, path),
            flow => self.flows.on_response(flow, token, path, now),
        }
    }

    /// Whether a datagram with `bytes` of UDP payload may go on the flow; if so it counts.
    pub(crate) fn try_spend(&mut self, flow: UdpFlow, bytes: usize) -> bool {
        let bytes = bytes as u64 + self.header_bytes();
        match flow {
            UdpFlow::FIRST => self.address.try_spend(bytes),
            flow if self.address.learns() => self.flows.try_spend(flow, bytes),
            _ => true,
        }
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

    /// A datagram with `bytes` of UDP payload goes out, with data if it is for a `flow`. Returns
    /// its size with headers.
    pub(super) fn on_sent(&mut self, bytes: usize, flow: Option<UdpFlow>) -> u64 {
        let bytes = bytes as u64 + self.header_bytes();
        self.sizes.search_mut().on_sent(bytes);
        if let Some(flow) = flow {
            self.flows.on_data_sent(flow, bytes);
        }
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

    /// Sends a control frame on the flow as soon as may be.
    pub(crate) fn push_control(&mut self, flow: UdpFlow, control: Control) {
        if self.control.len() < CONTROL_MAX {
            self.control.push_back((flow, control));
        }
    }

    /// The peer is told that the session ends.
    pub(crate) fn push_close(&mut self, close: Control) {
        let flow = self.destination().map_or(UdpFlow::FIRST, |destination| destination.flow);
        self.push_control(flow, close);
    }

    /// The control frame to send now, and where to.
    pub(crate) fn poll_control(&mut self, now: Instant) -> Option<(Destination, Control)> {
        loop {
            let (flow, control) = match self.control.pop_front() {
                Some(waiting) => waiting,
                None => self.poll_challenge(now)?,
            };
            // A flow may be gone meanwhile.
            if let Some(destination) = self.of_flow(flow) {
                return Some((destination, control));
            }
        }
    }

    fn poll_challenge(&mut self, now: Instant) -> Option<(UdpFlow, Control)> {
        let first = self.address.poll_challenge(now).map(|token| (UdpFlow::FIRST, token));
        let (flow, token) = first.or_else(|| self.flows.poll_challenge(now))?;
        Some((flow, Control::Challenge(token)))
    }

    /// When a control frame is due; the past: at once.
    pub(crate) fn control_at(&self) -> Option<Instant> {
        if !self.control.is_empty() {
            return Some(Instant::ZERO);
        }
        [self.address.challenge_at(), self.flows.challenge_at()].into_iter().flatten().min()
    }

    /// The peer was restarted: a server learns its paths anew. Whether there is no path any more.
    pub(super) fn forget(&mut self) -> bool {
        self.address.forget();
        self.flows.forget();
        let is_gone = !self.is_known();
        if is_gone {
            self.control.clear();
        }
        is_gone
    }
}

/// A client's path as the link's first flow has it.
const fn first_of(path: Path) -> Path {
    Path { socket: SocketId(path.socket.link().0), ..path }
}
