//! Where a link sends to, and how far that is to be trusted.
//!
//! A client knows its server's addresses (one of each family, perhaps): while a link is unproven it
//! tries them in turn, and the first that answers is the path. It may learn of others later, and of
//! its first one too; a link that is up goes on with the address that answers. A server follows its
//! client: the
//! address of the newest authenticated datagram is the path, at once, but an address that has not
//! answered a challenge gets at most three times what came from it, and no data. Going back to the
//! last address that did answer needs no challenge, so that one forwarded datagram moves nothing
//! for long.
//!
//! On plain links nothing is authenticated: a server follows newer heartbeats, and every path is
//! trusted as it is.
//!
//! Sources: RFC 9000 §8.1, §9.3 (amplification, migration); draft-ietf-quic-multipath.

use std::time::Duration;

use crate::packet::Path;
use crate::time::Instant;
use crate::wire::control::CHALLENGE_BYTES;

/// What an address that has not answered may be sent, in multiples of what came from it (RFC 9000
/// §8.1).
const AMPLIFICATION_MAX: u64 = 3;

/// A challenge without an answer is repeated after this. Chosen: the interval of heartbeats.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(100);

/// A challenge under way.
#[derive(Debug, Clone, Copy)]
struct Challenge {
    token: [u8; CHALLENGE_BYTES],
    next_at: Instant,
    /// Bytes that may still be sent.
    allowance: u64,
}

/// The path of one link.
#[derive(Debug, Clone)]
pub(in crate::link) struct PathState {
    /// A client's choices; the first is tried first.
    candidates: Vec<Path>,
    /// A server's: the path is where the client is heard.
    learns: bool,
    turn: usize,
    current: Option<Path>,
    /// The last path that was proven to receive.
    trusted: Option<Path>,
    challenge: Option<Challenge>,
}

impl PathState {
    /// A client's, with the addresses that are known.
    pub(in crate::link) fn new(candidates: Vec<Path>) -> Self {
        let current = candidates.first().copied();
        Self { candidates, learns: false, turn: 0, current, trusted: None, challenge: None }
    }

    /// A server's: the path is learnt.
    pub(in crate::link) fn learning() -> Self {
        Self { learns: true, ..Self::new(Vec::new()) }
    }

    /// Whether the path is learnt: a server's.
    pub(in crate::link) const fn learns(&self) -> bool {
        self.learns
    }

    /// Where to send now.
    pub(in crate::link) const fn current(&self) -> Option<Path> {
        self.current
    }

    /// The same by reference: a path is large to be copied on the packet path.
    pub(in crate::link) const fn known(&self) -> Option<&Path> {
        self.current.as_ref()
    }

    /// Whether the last path that was proven to receive is another than `path`.
    pub(in crate::link) fn trusts_another(&self, path: &Path) -> bool {
        self.trusted.is_some_and(|trusted| !same(&trusted, path))
    }

    /// All that a client may try.
    pub(in crate::link) fn candidates(&self) -> &[Path] {
        &self.candidates
    }

    /// Whether a client may hear its server from `path`.
    pub(in crate::link) fn knows(&self, path: &Path) -> bool {
        self.candidates.iter().any(|known| same(known, path))
    }

    /// The current path answers, or is not of the kind that is asked.
    pub(in crate::link) const fn is_trusted(&self) -> bool {
        self.challenge.is_none()
    }

    /// A client's link is unproven: the next address has its turn.
    pub(in crate::link) fn rotate(&mut self) {
        if self.candidates.len() > 1 {
            self.turn = (self.turn + 1) % self.candidates.len();
            self.current = self.candidates.get(self.turn).copied();
        }
    }

    /// A client may send to these addresses from now on. The path in use stays while `is_used`, and
    /// else where it is among them. Whether the path is another one.
    pub(in crate::link) fn set_candidates(&mut self, candidates: Vec<Path>, is_used: bool) -> bool {
        let before = self.current;
        self.candidates = candidates;
        if let Some(used) = before.filter(|used| is_used && !self.knows(used)) {
            self.candidates.push(used);
        }
        let known = |used: Path| self.candidates.iter().position(|path| same(path, &used));
        self.turn = before.and_then(known).unwrap_or(0);
        self.current = self.candidates.get(self.turn).copied();
        match (before, self.current) {
            (Some(before), Some(current)) => !same(&before, &current),
            (before, current) => before.is_some() != current.is_some(),
        }
    }

    /// A client's link is down: its server may answer on another port.
    pub(in crate::link) fn set_port(&mut self, port: u16) {
        self.candidates.iter_mut().for_each(|path| path.remote.set_port(port));
        self.current = self.candidates.get(self.turn).copied();
    }

    /// Takes `path` without asking: plain links, and a client that hears its server. Whether it is
    /// another one.
    pub(in crate::link) fn adopt(&mut self, path: Path) -> bool {
        let moved = self.current.is_none_or(|known| !same(&known, &path));
        if moved {
            self.current = Some(path);
            self.turn = self.candidates.iter().position(|known| same(known, &path)).unwrap_or(self.turn);
        }
        moved
    }

    /// A server's authenticated datagram of `bytes` came from `path`; `newest`: none newer was seen
    /// on the link. `token` makes a challenge where one is needed. Whether the path changed.
    pub(in crate::link) fn follow(
        &mut self,
        path: Path,
        newest: bool,
        bytes: u64,
        token: impl FnOnce() -> [u8; CHALLENGE_BYTES],
        now: Instant,
    ) -> bool {
        let known = self.current.is_some_and(|known| same(&known, &path));
        if known {
            if let Some(challenge) = &mut self.challenge {
                challenge.allowance += AMPLIFICATION_MAX * bytes;
            }
            return false;
        }
        // Any address is better than none: the first datagram of a link may be sealed under keys
        // that were just replaced.
        if !newest && self.current.is_some() {
            return false;
        }
        self.current = Some(path);
        let back = self.trusted.is_some_and(|trusted| same(&trusted, &path));
        self.challenge =
            (!back).then(|| Challenge { token: token(), next_at: now, allowance: AMPLIFICATION_MAX * bytes });
        true
    }

    /// An answer to a challenge came from `path`. Whether it made the current path trusted.
    pub(in crate::link) fn on_response(&mut self, token: &[u8; CHALLENGE_BYTES], path: &Path) -> bool {
        let current = self.current.filter(|current| same(current, path));
        let answered = self.challenge.as_ref().is_some_and(|challenge| challenge.token == *token);
        if answered && current.is_some() {
            self.challenge = None;
            self.trusted = current;
        }
        answered && current.is_some()
    }

    /// The challenge to send now, if one is due.
    pub(in crate::link) fn poll_challenge(&mut self, now: Instant) -> Option<[u8; CHALLENGE_BYTES]> {
        let challenge = self.challenge.as_mut().filter(|challenge| challenge.next_at <= now)?;
        challenge.next_at = now + CHALLENGE_INTERVAL;
        Some(challenge.token)
    }

    /// When a challenge is due.
    pub(in crate::link) fn challenge_at(&self) -> Option<Instant> {
        self.challenge.as_ref().map(|challenge| challenge.next_at)
    }

    /// Whether `bytes` may be sent to the current path now; if so, they count as sent.
    pub(in crate::link) fn try_spend(&mut self, bytes: u64) -> bool {
        match &mut self.challenge {
            None => true,
            Some(challenge) => {
                let left = challenge.allowance.checked_sub(bytes);
                if let Some(left) = left {
                    challenge.allowance = left;
                }
                left.is_some()
            }
        }
    }

    /// The peer was restarted: a server learns its paths anew.
    pub(in crate::link) fn forget(&mut self) {
        if self.learns {
            *self = Self::learning();
        }
    }
}

fn same(one: &Path, other: &Path) -> bool {
    (one.socket, one.remote) == (other.socket, other.remote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::SocketId;

    fn path(port: u16) -> Path {
        Path { socket: SocketId(0), remote: std::net::SocketAddr::from(([192, 0, 2, 1], port)), local: None }
    }

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    #[test]
    fn a_new_address_is_challenged_and_gets_three_times_what_it_sent() {
        let mut state = PathState::learning();
        assert!(state.follow(path(1), true, 100, || [7; 8], NOW));
        assert!(!state.is_trusted());
        assert_eq!(state.poll_challenge(NOW), Some([7; 8]));
        assert_eq!(state.poll_challenge(NOW), None, "not again at once");
        assert!(state.try_spend(299) && !state.try_spend(2) && state.try_spend(1));
        assert!(!state.follow(path(1), true, 10, || unreachable!(), NOW));
        assert!(state.try_spend(30) && !state.try_spend(1));
        assert!(!state.on_response(&[8; 8], &path(1)), "another's token");
        assert!(!state.on_response(&[7; 8], &path(2)), "from elsewhere");
        assert!(state.on_response(&[7; 8], &path(1)));
        assert!(state.is_trusted() && state.try_spend(u64::MAX));
    }

    #[test]
    fn only_the_newest_moves_a_path_and_the_way_back_is_free() {
        let mut state = PathState::learning();
        state.follow(path(1), true, 100, || [1; 8], NOW);
        state.on_response(&[1; 8], &path(1));
        assert!(!state.follow(path(2), false, 100, || unreachable!(), NOW));
        assert_eq!(state.current(), Some(path(1)));
        assert!(state.follow(path(2), true, 100, || [2; 8], NOW));
        assert_eq!(state.current(), Some(path(2)));
        assert!(state.follow(path(1), true, 100, || unreachable!(), NOW));
        assert!(state.is_trusted());
    }

    #[test]
    fn without_a_path_any_authenticated_datagram_brings_one() {
        let mut state = PathState::learning();
        assert!(state.follow(path(1), false, 100, || [1; 8], NOW));
        assert_eq!(state.current(), Some(path(1)));
        assert!(!state.is_trusted());
        assert!(!state.follow(path(2), false, 100, || unreachable!(), NOW));
    }

    #[test]
    fn a_client_tries_its_addresses_in_turn_and_stays_where_it_is_heard() {
        let mut state = PathState::new(vec![path(1), path(2)]);
        assert!(state.is_trusted());
        state.rotate();
        assert_eq!(state.current(), Some(path(2)));
        state.rotate();
        assert!(state.adopt(path(2)));
        state.rotate();
        assert_eq!(state.current(), Some(path(1)));
        assert!(state.knows(&path(2)) && !state.knows(&path(3)));
        state.set_port(3);
        assert_eq!(state.current(), Some(path(3)));
        assert!(state.knows(&path(3)) && !state.knows(&path(1)));
    }

    #[test]
    fn a_client_learns_of_other_addresses_and_leaves_none_that_answers() {
        let mut state = PathState::new(Vec::new());
        assert!(!state.learns() && state.current().is_none());
        state.forget();
        assert!(state.set_candidates(vec![path(1), path(2)], false));
        assert_eq!(state.current(), Some(path(1)));
        state.adopt(path(2));
        assert!(!state.set_candidates(vec![path(2), path(3)], true));
        assert_eq!(state.current(), Some(path(2)));
        assert!(!state.set_candidates(vec![path(4)], true), "it answers");
        assert!(state.knows(&path(2)) && state.knows(&path(4)) && !state.knows(&path(3)));
        assert!(state.set_candidates(vec![path(4)], false), "it does not");
        assert_eq!((state.current(), state.knows(&path(2))), (Some(path(4)), false));
        assert!(state.set_candidates(Vec::new(), false));
        assert_eq!(state.current(), None);
    }
}
