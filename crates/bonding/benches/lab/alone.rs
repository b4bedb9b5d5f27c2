//! Which link alone the bond is compared with.
//!
//! Where rates and losses tell which link is the best, that one is measured. Where they do not (the
//! delay varies, a policer drops, a download is short), each link is, and the best counts.

use bonding_lab::{Direction, Scenario};
use bonding_netem::{Jitter, LinkSpec, Loss, Rate};

use crate::rows::{Load, Timing};

/// A link to measure alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// Its place in the scenario.
    pub(crate) index: usize,
    /// Links like it, itself included: each would have the same figures.
    pub(crate) alike: usize,
}

/// The links to measure alone under a load.
pub(crate) fn candidates(scenario: &Scenario, load: Load, timing: Timing) -> Vec<Candidate> {
    let only = |index| vec![Candidate { index, alike: 1 }];
    match load {
        // Light traffic does not need rates; a competitor is on the first link.
        Load::Echo | Load::Call | Load::Idle | Load::Pages => only(nearest(scenario)),
        Load::Competing(_) | Load::Turns | Load::Limited => only(0),
        Load::Fetch(_) => distinct(scenario),
        Load::Transfer(_) | Load::Step(_) | Load::Outage(_) => {
            if scenario.links.iter().any(is_unpredictable) {
                distinct(scenario)
            } else {
                only(fastest(scenario, load.way(), timing))
            }
        }
    }
}

/// Whether a link's rate and loss do not tell what a flow has over it.
fn is_unpredictable(link: &LinkSpec) -> bool {
    Direction::BOTH.iter().any(|direction| {
        let pipe = link.pipe(*direction);
        pipe.jitter != Jitter::default() || pipe.police.is_some() || !(pipe.grid + pipe.gather).is_zero()
    })
}

/// The links, of those that are alike only the first.
fn distinct(scenario: &Scenario) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    for (index, link) in scenario.links.iter().enumerate() {
        let same = |other: &&mut Candidate| {
            scenario.links.get(other.index).is_some_and(|other| are_alike(other, link))
        };
        match found.iter_mut().find(same) {
            Some(candidate) => candidate.alike += 1,
            None => found.push(Candidate { index, alike: 1 }),
        }
    }
    found
}

fn are_alike(one: &LinkSpec, other: &LinkSpec) -> bool {
    Direction::BOTH.iter().all(|direction| {
        let (one, other) = (one.pipe(*direction), other.pipe(*direction));
        let constant = |rate: &Rate| match rate {
            Rate::Constant { bps } => Some(*bps),
            // Two traces are two links, even if their mean is one.
            Rate::Trace(_) | Rate::Unlimited => None,
        };
        constant(&one.rate).is_some_and(|rate| constant(&other.rate) == Some(rate))
            && one.delay == other.delay
            && one.jitter == other.jitter
            && one.loss == other.loss
            && one.limit == other.limit
            && one.police == other.police
            && (one.grid, one.gather) == (other.grid, other.gather)
    })
}

/// The link with the shortest round trip; the first listed of equals.
pub(crate) fn nearest(scenario: &Scenario) -> usize {
    let rtt = |index: &usize| scenario.links.get(*index).map(LinkSpec::rtt);
    (0..scenario.links.len()).min_by_key(rtt).unwrap_or(0)
}

/// The best single link in one direction: the fastest; a link that loses packets only if no other
/// is nearly as fast; among equals the one with the shorter round trip.
fn fastest(scenario: &Scenario, direction: Direction, timing: Timing) -> usize {
    let value = |index: usize| {
        let link = scenario.links.get(index)?;
        let from = timing.start + timing.omit;
        let bytes = scenario.capacity_bytes(link, direction, from, from + timing.measured)?;
        let share = if matches!(link.pipe(direction).loss, Loss::None) { 10 } else { 1 };
        Some((bytes * share, std::cmp::Reverse(link.rtt())))
    };
    // `max_by` takes the last of equals: reversed, that is the first in the list.
    (0..scenario.links.len()).rev().max_by_key(|index| value(*index)).unwrap_or(0)
}
