//! The client's links by number: those of the file, and those that were found.
//!
//! A number whose line is gone stays here with its last plan: the line of that name gets it back.

use bonding_proto::LinkId;

use crate::engine::plan::LinkPlan;

/// Where a link is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A `[[link]]` of the file.
    File,
    /// Its interface was found.
    Found,
}

/// One number.
#[derive(Debug)]
struct Line {
    plan: LinkPlan,
    origin: Origin,
    is_present: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lines(Vec<Line>);

impl Lines {
    /// Those of the file.
    pub(super) fn new(links: &[LinkPlan]) -> Self {
        let line = |plan: &LinkPlan| Line { plan: plan.clone(), origin: Origin::File, is_present: true };
        Self(links.iter().map(line).collect())
    }

    /// Every number with its last plan.
    pub(super) fn all(&self) -> impl Iterator<Item = (LinkId, &LinkPlan)> {
        (0..u8::MAX).map(LinkId).zip(self.0.iter().map(|line| &line.plan))
    }

    /// Every number's last plan, by number.
    pub(super) fn plans(&self) -> Vec<LinkPlan> {
        self.0.iter().map(|line| line.plan.clone()).collect()
    }

    /// The links that there are.
    pub(super) fn present(&self) -> impl Iterator<Item = (LinkId, &LinkPlan)> {
        self.all().zip(&self.0).filter(|(_, line)| line.is_present).map(|(link, _)| link)
    }

    /// The links of that origin.
    pub(super) fn of(&self, origin: Origin) -> impl Iterator<Item = (LinkId, &LinkPlan)> {
        let is_so = move |line: &Line| line.is_present && line.origin == origin;
        self.all().zip(&self.0).filter(move |(_, line)| is_so(line)).map(|(link, _)| link)
    }

    /// The number that a line of this name had before it went.
    pub(super) fn former(&self, name: &str) -> Option<LinkId> {
        let gone = self.all().zip(&self.0).filter(|(_, line)| !line.is_present);
        gone.map(|(link, _)| link).find(|(_, plan)| plan.name == name).map(|(id, _)| id)
    }

    /// A line comes: with the next number, or one whose line is gone.
    pub(super) fn set(&mut self, id: LinkId, plan: LinkPlan, origin: Origin) {
        let line = Line { plan, origin, is_present: true };
        match self.0.get_mut(id.index()) {
            Some(place) => *place = line,
            None => self.0.push(line),
        }
    }

    /// The line of this number is gone.
    pub(super) fn retire(&mut self, id: LinkId) {
        if let Some(line) = self.0.get_mut(id.index()) {
            line.is_present = false;
        }
    }

    /// The file says something else of a link, which stays the same one.
    pub(super) fn change(&mut self, id: LinkId, plan: &LinkPlan) {
        if let Some(line) = self.0.get_mut(id.index()) {
            line.plan.clone_from(plan);
        }
    }
}

/// Whether both are the same line: bound and protected in the same way, over as many UDP flows.
pub(super) fn is_same_line(one: &LinkPlan, other: &LinkPlan) -> bool {
    let key = |plan: &LinkPlan| (plan.interface.clone(), plan.source, plan.security, plan.flows);
    one.name == other.name && key(one) == key(other)
}
