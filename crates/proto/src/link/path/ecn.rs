//! Congestion marks on what one sealed link sends: whether its datagrams may be marked, and what
//! the peer tells of marks.
//!
//! A router with a queue management (CoDel, PIE, CAKE, RED) marks a datagram that says it may be
//! marked (ECT), and drops another. A mark costs nothing, a drop costs a resend. But there are
//! networks that drop what says so, and some that mark everything. So
//!
//! ```text
//!            a heartbeat that said so was answered        marks that less sending does not lower
//!  testing ──────────────────────────────────► capable ───────────────────────────────► refused
//! ```
//! While testing every second heartbeat says so, and nothing else; after [`TRIES`] without an
//! answer no heartbeat does, until the link begins anew.
//!
//! The tunnel answers to marks itself (`congestion`), as to any queue in its links: its own queue,
//! ahead of the links, then grows and tells the senders inside. So marks are not copied to inner
//! packets; RFC 6040's normal mode, where the outer header has what the inner one had and marks
//! come back in at the exit, is for tunnels that leave all control to what they carry. Here each
//! mark would be answered twice, and by senders that share other links.
//!
//! It knows no rates and no clock. Sources: RFC 3168, RFC 9000 §13.4.2 (validation), RFC 6040, RFC
//! 8311.

use crate::wire::feedback::Feedback;

/// Heartbeats that try whether such datagrams pass. Chosen: all are lost by chance on no link that
/// is of use.
const TRIES: u8 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many tries are left; the next heartbeat is one.
    Testing(u8, bool),
    Capable,
    Refused,
}

/// Datagrams that the peer received, and those of them that came marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::link) struct Marked {
    pub(in crate::link) received: u32,
    pub(in crate::link) marked: u32,
}

/// The state of one link.
#[derive(Debug, Clone)]
pub(in crate::link) struct Ecn {
    state: State,
    /// The key that was told of last, and what of it.
    told: Option<(u32, u32, u16)>,
    marked_total: u64,
}

impl Default for Ecn {
    fn default() -> Self {
        Self { state: State::Testing(TRIES, true), told: None, marked_total: 0 }
    }
}

impl Ecn {
    /// What was found out is void; counts go on.
    pub(in crate::link) fn restart(&mut self) {
        self.state = Self::default().state;
    }

    /// No datagram is answered any more: perhaps what may be marked does not pass.
    pub(in crate::link) fn on_down(&mut self) {
        if self.may_be_marked() {
            self.restart();
        }
    }

    /// Whether what is sent may be marked.
    pub(in crate::link) fn may_be_marked(&self) -> bool {
        self.state == State::Capable
    }

    /// Whether the heartbeat that is sent now is to say so.
    pub(in crate::link) fn on_heartbeat(&mut self) -> bool {
        let State::Testing(tries, is_next) = self.state else { return self.may_be_marked() };
        let is_try = is_next && tries > 0;
        self.state = State::Testing(tries - u8::from(is_try), !is_next);
        is_try
    }

    /// A heartbeat that said so was answered.
    pub(in crate::link) fn on_answer(&mut self) {
        if matches!(self.state, State::Testing(..)) {
            self.state = State::Capable;
        }
    }

    /// The peer told what arrived: gives what of it is news.
    pub(in crate::link) fn on_feedback(&mut self, feedback: &Feedback) -> Marked {
        let (before, marked_before) = match self.told {
            Some((key, received, marked)) if key == feedback.key => (received, marked),
            Some(_) | None => (0, 0),
        };
        let received = feedback.received.wrapping_sub(before);
        // One that was overtaken by a later one.
        if received > u32::MAX / 2 {
            return Marked::default();
        }
        self.told = Some((feedback.key, feedback.received, feedback.marked));
        // What the peer says is bounded by what it received.
        let marked = u32::from(feedback.marked.wrapping_sub(marked_before)).min(received);
        if !self.may_be_marked() {
            return Marked { received, marked: 0 };
        }
        self.marked_total += u64::from(marked);
        Marked { received, marked }
    }

    /// Datagrams that came marked, in all.
    pub(in crate::link) const fn marked_total(&self) -> u64 {
        self.marked_total
    }

    /// Marks turned out to mean nothing.
    pub(in crate::link) fn refuse(&mut self) {
        self.state = State::Refused;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::feedback::Runs;

    fn feedback(key: u32, received: u32, marked: u16) -> Feedback {
        Feedback {
            marked,
            key,
            largest: 0,
            arrival_us: 0,
            hold_us: 0,
            least_back: 0,
            least_before: 0,
            received,
            runs: Runs::new(1),
        }
    }

    fn capable() -> Ecn {
        let mut ecn = Ecn::default();
        assert!(ecn.on_heartbeat());
        ecn.on_answer();
        assert!(ecn.may_be_marked());
        ecn
    }

    #[test]
    fn every_second_heartbeat_tries_until_one_is_answered() {
        let mut ecn = Ecn::default();
        let tries: Vec<bool> = (0..4).map(|_| ecn.on_heartbeat()).collect();
        assert_eq!(tries, [true, false, true, false]);
        assert!(!ecn.may_be_marked());
        ecn.on_answer();
        assert!(ecn.may_be_marked() && ecn.on_heartbeat() && ecn.on_heartbeat());
    }

    #[test]
    fn a_link_that_drops_them_is_left_alone_until_it_begins_anew() {
        let mut ecn = Ecn::default();
        assert_eq!((0..100).filter(|_| ecn.on_heartbeat()).count(), usize::from(TRIES));
        ecn.restart();
        assert!(ecn.on_heartbeat());
        // It began to while such datagrams were sent.
        let mut ecn = capable();
        ecn.on_down();
        assert_eq!((0..100).filter(|_| ecn.on_heartbeat()).count(), usize::from(TRIES));
        ecn.on_down();
        assert!(!ecn.on_heartbeat());
    }

    #[test]
    fn marks_are_told_as_news_whatever_wraps_and_is_overtaken() {
        let mut ecn = capable();
        assert_eq!(ecn.on_feedback(&feedback(1, 100, 3)), Marked { received: 100, marked: 3 });
        assert_eq!(ecn.on_feedback(&feedback(1, 90, 2)), Marked::default());
        assert_eq!(ecn.on_feedback(&feedback(1, 110, 3)), Marked { received: 10, marked: 0 });
        // A new key begins anew.
        assert_eq!(ecn.on_feedback(&feedback(2, 5, 1)), Marked { received: 5, marked: 1 });
        ecn.on_feedback(&feedback(2, u32::MAX, u16::MAX));
        let mut ecn = capable();
        ecn.told = Some((1, u32::MAX, u16::MAX));
        assert_eq!(ecn.on_feedback(&feedback(1, 9, 1)), Marked { received: 10, marked: 2 });
        assert_eq!(ecn.on_feedback(&feedback(1, 10, 500)), Marked { received: 1, marked: 1 }, "at most");
        assert_eq!(ecn.marked_total(), 3);
    }

    #[test]
    fn refused_ones_are_neither_sent_nor_believed() {
        let mut ecn = capable();
        ecn.refuse();
        assert!(!ecn.may_be_marked() && !ecn.on_heartbeat());
        assert_eq!(ecn.on_feedback(&feedback(1, 10, 5)), Marked { received: 10, marked: 0 });
    }
}
