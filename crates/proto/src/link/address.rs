//! Where the link sends to, as its session asks and tells, and the control frames that go there.

use super::Link;
use crate::packet::Path;
use crate::time::Instant;
use crate::wire::control::{CHALLENGE_BYTES, Control};

/// Bytes of IP and UDP header around a datagram: pacing counts them.
const IPV4_HEADERS: u64 = 20 + 8;
const IPV6_HEADERS: u64 = 40 + 8;

/// Control frames that wait for their turn; more than this nobody asks for.
const CONTROL_MAX: usize = 8;

impl Link {
    /// Every address that a client may reach its server at on this link.
    pub fn candidates(&self) -> &[Path] {
        self.path.candidates()
    }

    /// Whether `path` is one that a client may hear its server on.
    pub fn hears(&self, path: &Path) -> bool {
        self.path.knows(path)
    }

    pub(super) fn header_bytes(&self) -> u64 {
        let ipv6 = self.path.known().is_some_and(|path| path.remote.ip().to_canonical().is_ipv6());
        if ipv6 { IPV6_HEADERS } else { IPV4_HEADERS }
    }

    /// A client heard its server on `path`. Whether that is another one than it sent to.
    pub fn adopt(&mut self, path: Path) -> bool {
        self.path.adopt(path)
    }

    /// A server's authenticated datagram with `bytes` of UDP payload came from `path`. Whether the path changed; then it is asked
    /// to prove itself with `token`.
    pub fn follow(
        &mut self,
        path: Path,
        newest: bool,
        bytes: usize,
        token: impl FnOnce() -> [u8; CHALLENGE_BYTES],
        now: Instant,
    ) -> bool {
        let bytes = bytes as u64 + self.header_bytes();
        let moved = self.path.follow(path, newest, bytes, token, now);
        if moved {
            self.heartbeat_at = Some(now);
        }
        moved
    }

    /// The peer answered a challenge from `path`. Whether the path may be used for data from now on.
    pub fn on_response(&mut self, token: &[u8; CHALLENGE_BYTES], path: &Path) -> bool {
        self.path.on_response(token, path)
    }

    /// Sends a control frame as soon as may be.
    pub fn push_control(&mut self, control: Control) {
        if self.control.len() < CONTROL_MAX {
            self.control.push_back(control);
        }
    }

    /// The control frame to send now.
    pub fn poll_control(&mut self, now: Instant) -> Option<Control> {
        self.control.pop_front().or_else(|| self.path.poll_challenge(now).map(Control::Challenge))
    }

    /// When a control frame is due; the past: at once.
    pub fn control_at(&self) -> Option<Instant> {
        if self.control.is_empty() { self.path.challenge_at() } else { Some(Instant::ZERO) }
    }

    /// Whether a datagram with `bytes` of UDP payload may go where the link sends to; if so it counts.
    pub fn try_spend(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64 + self.header_bytes();
        self.path.try_spend(bytes)
    }
}
