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
use crate::config::LinkConfig;
use crate::packet::Path;
use crate::time::Instant;
use crate::wire::control::Control;

/// Bytes of IP and UDP header around a datagram (RFC 791, RFC 8200, RFC 768): pacing counts them.
const IPV4_HEADERS: u64 = 20 + 8;
/// See [`IPV4_HEADERS`].
const IPV6_HEADERS: u64 = 40 + 8;

/// Most control frames that wait for their turn. Chosen: more than the session ever asks for.
const CONTROL_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct LinkPath {
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
            sizes: Sizes::new(config.mtu),
            ecn: Ecn::default(),
            control: VecDeque::new(),
        }
    }

    /// Whether there is somewhere to send to.
    pub(super) const fn is_known(&self) -> bool {
        self.address.known().is_some()
    }

    /// Bytes of IP and UDP header around a datagram.
    pub(super) fn header_bytes(&self) -> u64 {
        let is_ipv6 = |path: &Path| path.remote.ip().to_canonical().is_ipv6();
        if self.address.known().is_some_and(is_ipv6) { IPV6_HEADERS } else { IPV4_HEADERS }
    }

    /// Sends a control frame as soon as may be.
    pub(super) fn push_control(&mut self, control: Control) {
        if self.control.len() < CONTROL_MAX {
            self.control.push_back(control);
        }
    }

    /// The control frame to send now.
    pub(super) fn poll_control(&mut self, now: Instant) -> Option<Control> {
        self.control.pop_front().or_else(|| self.address.poll_challenge(now).map(Control::Challenge))
    }

    /// When a control frame is due; the past: at once.
    pub(super) fn control_at(&self) -> Option<Instant> {
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
