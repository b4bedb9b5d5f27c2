//! The deadlines of all sessions. Every packet moves its session's deadline, so a change costs a
//! few comparisons only. Deadlines are the leaves of a binary tree; each other node holds the
//! earlier of the two nodes below it.

use super::session_id::SessionId;
use crate::time::Instant;

/// No deadline.
const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// The deadlines, by session.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// The root is node 1; nodes `2 n` and `2 n + 1` are below node `n`; the second half are the
    /// leaves.
    nodes: Vec<Instant>,
}

impl Timers {
    /// Sets the session's deadline.
    pub(super) fn set(&mut self, id: SessionId, at: Option<Instant>) {
        let leaf = usize::from(id.0);
        if leaf >= self.nodes.len() / 2 {
            self.grow(leaf + 1);
        }
        let mut node = self.nodes.len() / 2 + leaf;
        let mut earliest = at.unwrap_or(NEVER);
        while let Some(known) = self.nodes.get_mut(node).filter(|known| **known != earliest) {
            *known = earliest;
            let beside = self.nodes.get(node ^ 1).copied().unwrap_or(NEVER);
            earliest = earliest.min(beside);
            node /= 2;
            if node == 0 {
                break;
            }
        }
    }

    /// The earliest deadline and its session; of two equal deadlines the lower session number.
    pub(super) fn first(&self) -> Option<(Instant, SessionId)> {
        let first = self.nodes.get(1).copied().filter(|at| *at != NEVER)?;
        let leaves = self.nodes.len() / 2;
        let mut node = 1;
        while node < leaves {
            node *= 2;
            node += usize::from(self.nodes.get(node) != Some(&first));
        }
        u16::try_from(node - leaves).ok().map(|number| (first, SessionId(number)))
    }

    /// Makes room for `count` sessions.
    fn grow(&mut self, count: usize) {
        let (before, leaves) = (self.nodes.len() / 2, count.next_power_of_two());
        let mut nodes = vec![NEVER; 2 * leaves];
        for (node, at) in nodes.iter_mut().skip(leaves).zip(self.nodes.iter().skip(before)) {
            *node = *at;
        }
        self.nodes = nodes;
        for node in (1..leaves).rev() {
            let below = self.nodes.get(2 * node..2 * node + 2).and_then(|both| both.iter().min().copied());
            if let (Some(node), Some(below)) = (self.nodes.get_mut(node), below) {
                *node = below;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_is_the_one_of_an_ordered_set(
            changes in proptest::collection::vec((0u16..70, proptest::option::of(0u64..20)), 1..300),
        ) {
            let mut timers = Timers::default();
            let mut set = BTreeSet::new();
            for (number, at) in changes {
                let at = at.map(Instant::from_nanos);
                set.retain(|(_, known)| *known != SessionId(number));
                set.extend(at.map(|at| (at, SessionId(number))));
                timers.set(SessionId(number), at);
                prop_assert_eq!(timers.first(), set.first().copied());
            }
        }
    }

    #[test]
    fn the_last_of_all_sessions_has_room() {
        let mut timers = Timers::default();
        timers.set(SessionId(u16::MAX), Some(Instant::from_nanos(5)));
        timers.set(SessionId(3), Some(Instant::from_nanos(5)));
        assert_eq!(timers.first(), Some((Instant::from_nanos(5), SessionId(3))));
        timers.set(SessionId(3), None);
        assert_eq!(timers.first(), Some((Instant::from_nanos(5), SessionId(u16::MAX))));
    }
}
