//! What changed about links since it was settled last, and what follows from it.
//!
//! Each method of the link table that changes a link adds an [`Impact`]. [`super::super::Session`]
//! settles it at the end of each input, and before anything reads what is derived. No other code
//! recomputes derived state.
//!
//! | impact | what follows, in this order |
//! | --- | --- |
//! | `USE` | whether the session is connected |
//! | `RATES` | the queue's drain rate; waiting data is tried again |
//! | `DELAYS` | the views, the queue's delays, the receive delays |
//! | `SIZES` | the tunnel's MTU, TCP's segment size; waiting data is tried again |
//! | `HOLDS` | gaps that the resequencer holds for links, looked at when the drain is over |

use std::time::Duration;

use crate::packet::LinkId;
use crate::view::{LinkState, StateCause};

/// A set of derived values that are out of date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::session) struct Impact(u8);

impl Impact {
    /// Nothing is out of date.
    pub(in crate::session) const NONE: Self = Self(0);
    /// Whether a link carries data.
    pub(in crate::session) const USE: Self = Self(1);
    /// What the links carry.
    pub(in crate::session) const RATES: Self = Self(2);
    /// What the scheduler and the resequencer see of links.
    pub(in crate::session) const DELAYS: Self = Self(4);
    /// How large packets may be.
    pub(in crate::session) const SIZES: Self = Self(8);
    /// What the resequencer waits for.
    pub(in crate::session) const HOLDS: Self = Self(16);
    /// A heartbeat told of rates and delays.
    pub(in crate::session) const MEASURED: Self = Self(Self::RATES.0 | Self::DELAYS.0);
    /// A link's state, role or path changed: everything is out of date.
    pub(in crate::session) const ALL: Self =
        Self(Self::USE.0 | Self::MEASURED.0 | Self::SIZES.0 | Self::HOLDS.0);

    /// Whether all of `other` is out of date.
    pub(in crate::session) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// How many derived values are out of date.
    pub(in crate::session) const fn parts(self) -> u32 {
        self.0.count_ones()
    }

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A link went from one state to another.
#[derive(Debug, Clone, Copy)]
pub(in crate::session) struct Transition {
    pub(in crate::session) link: LinkId,
    pub(in crate::session) before: LinkState,
    pub(in crate::session) after: LinkState,
    /// Why, and how long an answer had been missing.
    pub(in crate::session) why: (StateCause, Duration),
}

/// Changes that are not settled yet.
#[derive(Debug, Default)]
pub(super) struct Changes {
    impact: Impact,
    /// In order. Kept to be reused: a change of state is no reason to allocate.
    transitions: Vec<Transition>,
}

impl Changes {
    pub(super) const fn add(&mut self, impact: Impact) {
        self.impact = self.impact.with(impact);
    }

    pub(super) fn add_transition(&mut self, transition: Transition) {
        self.transitions.push(transition);
        self.add(Impact::ALL);
    }

    pub(super) fn has_any(&self) -> bool {
        self.impact != Impact::NONE
    }

    /// Takes all of them; `transitions` receives the links' changes of state.
    pub(super) fn take(&mut self, transitions: &mut Vec<Transition>) -> Impact {
        std::mem::swap(&mut self.transitions, transitions);
        std::mem::take(&mut self.impact)
    }

    /// Takes back an emptied list for reuse.
    pub(super) fn give_back(&mut self, mut transitions: Vec<Transition>) {
        transitions.clear();
        if self.transitions.is_empty() {
            self.transitions = transitions;
        }
    }
}
