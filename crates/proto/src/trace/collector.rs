//! The records of several sessions in one list, each with its session's number.

use super::event::{Level, Record};
use super::ring::{Ring, sort};

/// Appends a session's records, as `drain` gives them, with the session's number.
pub(crate) fn drain_as(number: u16, drain: impl FnOnce(&mut Vec<Record>), out: &mut Vec<Record>) {
    let from = out.len();
    drain(out);
    out.iter_mut().skip(from).for_each(|record| record.session = number);
}

/// The records of an endpoint's sessions.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    level: Level,
    ring: Ring,
    fresh: Vec<Record>,
}

impl Collector {
    pub(crate) const fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// How much each session records.
    pub(crate) const fn level(&self) -> Level {
        self.level
    }

    /// The outputs of the session of this number are drained: takes its records, too.
    #[inline]
    pub(crate) fn collect(&mut self, number: u16, drain: impl FnOnce(&mut Vec<Record>)) {
        if self.level != Level::Off {
            drain_as(number, drain, &mut self.fresh);
            self.fresh.drain(..).for_each(|record| self.ring.push_record(record));
        }
    }

    pub(crate) fn drain(&mut self, out: &mut Vec<Record>) {
        let from = out.len();
        self.ring.drain(out);
        sort(out, from);
    }
}
