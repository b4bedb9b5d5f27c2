//! The records of a session, by link and in bins of time, so that a plot's size does not grow with
//! the trace.

use std::collections::BTreeMap;

use bonding_proto::trace::format::Entry;
use bonding_proto::trace::{Cause, GapEnd, PhaseKind, RateChanged, Record, TraceEvent};
use bonding_proto::view::LinkState;

/// Bins over the width of a plot.
pub(crate) const BINS: usize = 430;
/// The same cause is marked again only after so many bins: marks stay apart.
const MARK_BINS: usize = 30;
/// Flows that are drawn: those with most changes of links.
const FLOWS: usize = 8;

/// A capacity, or the pacing rate while the capacity is unknown, from a time on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    pub(crate) bin: usize,
    pub(crate) mbps: f64,
    pub(crate) phase: PhaseKind,
}

/// One link over time.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) name: String,
    /// In the order of bins, at most one for each.
    pub(crate) rates: Vec<Rate>,
    pub(crate) causes: Vec<(usize, f64, Cause)>,
    /// From which bin on.
    pub(crate) states: Vec<(usize, LinkState)>,
    /// Packets in each bin.
    pub(crate) lost: Vec<u32>,
    pub(crate) resent: Vec<u32>,
}

impl Link {
    fn new(number: u8, name: Option<&String>) -> Self {
        Self {
            name: name.cloned().unwrap_or_else(|| format!("link{number}")),
            rates: Vec::new(),
            causes: Vec::new(),
            states: vec![(0, LinkState::Down)],
            lost: vec![0; BINS],
            resent: vec![0; BINS],
        }
    }

    fn note_rate(&mut self, bin: usize, change: &RateChanged) {
        let mbps = change.capacity_bps.unwrap_or(change.pacing_bps) as f64 / 1e6;
        let rate = Rate { bin, mbps, phase: change.phase };
        match self.rates.last_mut().filter(|last| last.bin == bin) {
            Some(last) => *last = rate,
            None => self.rates.push(rate),
        }
        let Some(cause) = change.cause else { return };
        let is_marked = self.causes.iter().rev().any(|(at, _, one)| *one == cause && bin < at + MARK_BINS);
        if !is_marked {
            self.causes.push((bin, mbps, cause));
        }
    }

    fn note_state(&mut self, bin: usize, state: LinkState) {
        match self.states.last_mut().filter(|(at, _)| *at == bin) {
            Some(last) => last.1 = state,
            None => self.states.push((bin, state)),
        }
    }
}

/// A session over time.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) peer: String,
    /// The first record's time and the time from there to the last one, s.
    pub(crate) from_s: f64,
    pub(crate) span_s: f64,
    pub(crate) links: Vec<Link>,
    /// By bin and how gaps ended: the longest wait of a gap that ended there, ms.
    pub(crate) waits: BTreeMap<(u8, usize), f64>,
    /// Bins with packets that came after their gap had been given up.
    pub(crate) late: Vec<u32>,
    /// Flows with their links, a bit each, from which bin on.
    pub(crate) flows: Vec<(u16, Vec<(usize, u32)>)>,
    pub(crate) records_lost: u64,
}

impl Model {
    /// The session that is asked for, or the one with most records; `None`: no records.
    pub(crate) fn new(entries: &[Entry], session: Option<u16>) -> Option<Self> {
        let records = || {
            entries.iter().filter_map(|entry| match entry {
                Entry::Record(record) => Some(record),
                Entry::Label { .. } => None,
            })
        };
        let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
        records().for_each(|record| *counts.entry(record.session).or_default() += 1);
        let session =
            session.or_else(|| counts.iter().max_by_key(|(_, count)| **count).map(|(id, _)| *id))?;
        let of: Vec<&Record> = records().filter(|record| record.session == session).collect();
        let seconds = |record: &Record| record.at.as_nanos() as f64 / 1e9;
        let (from_s, to_s) = (seconds(of.first()?), seconds(of.last()?));
        let names: BTreeMap<Option<u8>, &String> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Label { session: id, link, name } => {
                    Some((link.map(|link| link.0), name)).filter(|_| *id == session)
                }
                Entry::Record(_) => None,
            })
            .collect();
        let numbers = of.iter().filter_map(|record| record.event.link()).map(|link| link.0);
        let links = numbers.max().map_or(0, |most| most + 1);
        let mut model = Self {
            peer: names.get(&None).map_or_else(|| session.to_string(), |name| (*name).clone()),
            from_s,
            span_s: (to_s - from_s).max(1e-3),
            links: (0..links).map(|link| Link::new(link, names.get(&Some(link)).copied())).collect(),
            waits: BTreeMap::new(),
            late: vec![0; BINS],
            flows: Vec::new(),
            records_lost: 0,
        };
        let mut flows: BTreeMap<u16, Vec<(usize, u32)>> = BTreeMap::new();
        for record in of {
            let bin = model.bin(seconds(record));
            model.note(bin, &record.event, &mut flows);
        }
        let mut flows: Vec<_> = flows.into_iter().collect();
        flows.sort_by_key(|(_, changes)| std::cmp::Reverse(changes.len()));
        flows.truncate(FLOWS);
        flows.sort_by_key(|(flow, _)| *flow);
        model.flows = flows;
        Some(model)
    }

    /// The bin of a time. Counted up, because a cast may truncate.
    fn bin(&self, at_s: f64) -> usize {
        let share = (at_s - self.from_s) / self.span_s;
        let bins = BINS as f64;
        let mut bin = 0;
        let mut step = BINS.next_power_of_two();
        while step > 0 {
            if (bin + step) as f64 <= share * bins {
                bin += step;
            }
            step /= 2;
        }
        bin.min(BINS - 1)
    }

    fn link(&mut self, link: bonding_proto::LinkId) -> Option<&mut Link> {
        self.links.get_mut(link.index())
    }

    fn note(&mut self, bin: usize, event: &TraceEvent, flows: &mut BTreeMap<u16, Vec<(usize, u32)>>) {
        let add = |bins: &mut Vec<u32>, count: u32| {
            if let Some(place) = bins.get_mut(bin) {
                *place = place.saturating_add(count);
            }
        };
        match *event {
            TraceEvent::LinkState { link, to, .. } => {
                self.link(link).into_iter().for_each(|link| link.note_state(bin, to));
            }
            TraceEvent::RateChanged(change) => {
                self.link(change.link).into_iter().for_each(|link| link.note_rate(bin, &change));
            }
            TraceEvent::PacketsLost { link, count, .. } => {
                self.link(link).into_iter().for_each(|link| add(&mut link.lost, count));
            }
            TraceEvent::PacketResent { link, .. } => {
                self.link(link).into_iter().for_each(|link| add(&mut link.resent, 1));
            }
            TraceEvent::GapClosed { by, waited_us, .. } => {
                let longest = self.waits.entry((by.id(), bin)).or_default();
                *longest = longest.max(f64::from(waited_us) / 1e3);
            }
            TraceEvent::PacketLate { .. } => {
                add(&mut self.late, 1);
            }
            TraceEvent::FlowLinks { flow, links, .. } => flows.entry(flow).or_default().push((bin, links)),
            TraceEvent::RecordsLost { records } => self.records_lost += u64::from(records),
            TraceEvent::GapOpened { .. }
            | TraceEvent::ResendsGivenUp { .. }
            | TraceEvent::KeysChanged { .. }
            | TraceEvent::SessionReset { .. }
            | TraceEvent::PacketSent { .. } => {}
        }
    }
}

/// The causes that are marked, each once, by their names.
pub(crate) fn causes(model: &Model) -> Vec<Cause> {
    let marked = model.links.iter().flat_map(|link| &link.causes);
    let by_name: BTreeMap<&str, Cause> = marked.map(|(.., cause)| (cause.name(), *cause)).collect();
    by_name.into_values().collect()
}

/// The ways in which gaps ended.
pub(crate) fn ends(model: &Model) -> Vec<GapEnd> {
    let used = |by: &GapEnd| model.waits.keys().any(|(id, _)| *id == by.id());
    GapEnd::ALL.iter().copied().filter(used).collect()
}
