//! The scenario file, and its conversion to a checked [`Scenario`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::values::{JitterValue, LossValue, PoliceValue, QueueValue, RateValue, Ratio, Span};
use super::{
    CarrierEvent, Direction, Event, LINK_NAME_BYTES_MAX, LINKS_MAX, LinkSpec, Scenario, ScenarioError,
    TRACES_VARIABLE,
};
use crate::jitter::Jitter;
use crate::pipe::{Change, PipeConfig};
use crate::rate::Rate;
use crate::trace::Trace;

/// Bounds of repeated events. Chosen: all events of a file must fit into memory.
const EVERY_MIN: Duration = Duration::from_millis(10);
const UNTIL_MAX: Duration = Duration::from_secs(3_600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioFile {
    name: String,
    description: String,
    #[serde(default = "default_duration")]
    duration: Span,
    link: Vec<LinkTable>,
    #[serde(default)]
    event: Vec<EventTable>,
}

fn default_duration() -> Span {
    Span(Duration::from_secs(20))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkTable {
    name: String,
    rtt: Option<Span>,
    rate: Option<RateValue>,
    delay: Option<Span>,
    jitter: Option<JitterValue>,
    reorder: Option<bool>,
    loss: Option<LossValue>,
    queue: Option<QueueValue>,
    mtu: Option<u32>,
    police: Option<PoliceValue>,
    grid: Option<Span>,
    gather: Option<Span>,
    duplicate: Option<Ratio>,
    mark: Option<Span>,
    #[serde(default)]
    up: PipeTable,
    #[serde(default)]
    down: PipeTable,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct PipeTable {
    rate: Option<RateValue>,
    delay: Option<Span>,
    jitter: Option<JitterValue>,
    reorder: Option<bool>,
    loss: Option<LossValue>,
    queue: Option<QueueValue>,
    mtu: Option<u32>,
    police: Option<PoliceValue>,
    grid: Option<Span>,
    gather: Option<Span>,
    duplicate: Option<Ratio>,
    mark: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventTable {
    at: Span,
    every: Option<Span>,
    until: Option<Span>,
    link: String,
    #[serde(default)]
    direction: DirectionValue,
    outage: Option<OutageValue>,
    carrier: Option<CarrierValue>,
    rate: Option<RateValue>,
    delay: Option<Span>,
    jitter: Option<JitterValue>,
    reorder: Option<bool>,
    loss: Option<LossValue>,
    queue: Option<QueueValue>,
    mtu: Option<u32>,
    police: Option<PoliceValue>,
    grid: Option<Span>,
    gather: Option<Span>,
    duplicate: Option<Ratio>,
    mark: Option<Span>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum DirectionValue {
    #[default]
    Both,
    Up,
    Down,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum OutageValue {
    Begin,
    End,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum CarrierValue {
    Lost,
    Found,
}

/// The context of errors and trace files.
struct Context<'a> {
    origin: &'a str,
    /// Where trace files are looked for, in this order.
    folders: &'a [&'a Path],
}

impl Context<'_> {
    fn invalid(&self, message: String) -> ScenarioError {
        ScenarioError::Invalid { origin: self.origin.to_owned(), message }
    }

    fn trace_error(&self, trace: &str, source: crate::TraceError) -> ScenarioError {
        ScenarioError::Trace { origin: self.origin.to_owned(), trace: trace.to_owned(), source }
    }

    fn rate(&self, value: &RateValue) -> Result<Rate, ScenarioError> {
        match value {
            RateValue::Unlimited => Ok(Rate::Unlimited),
            RateValue::Constant(bps) => Ok(Rate::from_bps(*bps)),
            RateValue::Walk(walk) => {
                let trace = walk.trace().map_err(|source| self.trace_error("walk", source))?;
                Ok(Rate::Trace(Arc::new(trace)))
            }
            RateValue::TraceFile(file) => {
                if self.folders.is_empty() {
                    return Err(self.invalid(format!(
                        "trace '{file}': a scenario from a file finds it beside the file, any scenario in the folder \
                         that {TRACES_VARIABLE} names"
                    )));
                }
                let paths = self.folders.iter().map(|folder| folder.join(file));
                let path = paths.into_iter().find(|path| path.is_file()).ok_or_else(|| {
                    let folders: Vec<_> =
                        self.folders.iter().map(|folder| folder.display().to_string()).collect();
                    self.invalid(format!("no trace '{file}' in {}", folders.join(" or ")))
                })?;
                let text = std::fs::read_to_string(&path)
                    .map_err(|source| ScenarioError::Read { path: path.clone(), source })?;
                let trace = Trace::parse(&text).map_err(|source| self.trace_error(file, source))?;
                Ok(Rate::Trace(Arc::new(trace)))
            }
        }
    }

    /// `base` with the changes in `table`.
    fn overlay(&self, base: &PipeConfig, table: &PipeTable) -> Result<PipeConfig, ScenarioError> {
        let mut pipe = base.clone();
        if let Some(rate) = &table.rate {
            pipe.rate = self.rate(rate)?;
        }
        if let Some(delay) = table.delay {
            pipe.delay = delay.0;
        }
        if let Some(jitter) = table.jitter {
            pipe.jitter.spread = jitter.0;
        }
        if let Some(reorder) = table.reorder {
            pipe.jitter.reorder = reorder;
        }
        if let Some(loss) = &table.loss {
            pipe.loss = loss.0;
        }
        if let Some(queue) = table.queue {
            pipe.limit = queue.0;
        }
        if table.mtu.is_some() {
            pipe.mtu = table.mtu;
        }
        if let Some(police) = table.police {
            pipe.police = police.0;
        }
        if let Some(grid) = table.grid {
            pipe.grid = grid.0;
        }
        if let Some(gather) = table.gather {
            pipe.gather = gather.0;
        }
        if let Some(duplicate) = table.duplicate {
            pipe.duplicate = duplicate.0;
        }
        if let Some(mark) = table.mark {
            pipe.mark = Some(mark.0);
        }
        Ok(pipe)
    }

    fn link(&self, table: LinkTable) -> Result<LinkSpec, ScenarioError> {
        let LinkTable {
            name,
            rtt,
            rate,
            delay,
            jitter,
            reorder,
            loss,
            queue,
            mtu,
            police,
            grid,
            gather,
            duplicate,
            mark,
            up,
            down,
        } = table;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > LINK_NAME_BYTES_MAX || !name.chars().all(allowed) {
            return Err(self.invalid(format!(
                "link name '{name}': 1 to {LINK_NAME_BYTES_MAX} characters of a-z, 0-9 and '-' (it names a network device)"
            )));
        }
        if rtt.is_some() && (delay.is_some() || up.delay.is_some() || down.delay.is_some()) {
            return Err(self.invalid(format!("link '{name}': give rtt or delay, not both")));
        }
        if rate.is_none() && (up.rate.is_none() || down.rate.is_none()) {
            return Err(self.invalid(format!("link '{name}': rate is missing (\"unlimited\" is one)")));
        }
        let delay = rtt.map(|rtt| Span(rtt.0 / 2)).or(delay);
        let both = PipeTable {
            rate,
            delay,
            jitter,
            reorder,
            loss,
            queue,
            mtu,
            police,
            grid,
            gather,
            duplicate,
            mark,
        };
        let base = self.overlay(&PipeConfig::default(), &both)?;
        Ok(LinkSpec { up: self.overlay(&base, &up)?, down: self.overlay(&base, &down)?, name })
    }

    /// One event table makes an event per direction, thing changed and time.
    fn events(
        &self,
        table: &EventTable,
        links: &[LinkSpec],
        end: Duration,
    ) -> Result<Happenings, ScenarioError> {
        let (at, link) = (table.at.0, &table.link);
        let Some(spec) = links.iter().find(|spec| spec.name == *link) else {
            let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
            return Err(
                self.invalid(format!("event at {at:?}: no link '{link}'; there are {}", names.join(", ")))
            );
        };
        let directions: &[Direction] = match table.direction {
            DirectionValue::Both => &Direction::BOTH,
            DirectionValue::Up => &[Direction::Up],
            DirectionValue::Down => &[Direction::Down],
        };
        if table.carrier.is_some() && (directions.len() != 2 || table.outage.is_some()) {
            return Err(self.invalid(format!(
                "event at {at:?} of link '{link}': a carrier is lost or found in both directions, and that is the outage"
            )));
        }
        let times = self.times(table, end)?;
        let mut happenings = Happenings::default();
        for direction in directions {
            for change in self.changes(table, spec.pipe(*direction).jitter)? {
                let event = |at: &Duration| Event {
                    at: *at,
                    link: link.clone(),
                    direction: *direction,
                    change: change.clone(),
                };
                happenings.events.extend(times.iter().map(event));
            }
        }
        if let Some(carrier) = table.carrier {
            let present = matches!(carrier, CarrierValue::Found);
            let event = |at: &Duration| CarrierEvent { at: *at, link: link.clone(), present };
            happenings.carriers.extend(times.iter().map(event));
        }
        if happenings.events.is_empty() {
            return Err(self.invalid(format!("event at {at:?} of link '{link}' changes nothing")));
        }
        Ok(happenings)
    }

    /// The times of an event: once, or repeated until before the end.
    fn times(&self, table: &EventTable, end: Duration) -> Result<Vec<Duration>, ScenarioError> {
        let at = table.at.0;
        let Some(Span(every)) = table.every else {
            if table.until.is_some() {
                return Err(self.invalid(format!("event at {at:?}: until needs every")));
            }
            return Ok(vec![at]);
        };
        let until = table.until.map_or(end, |until| until.0);
        if every < EVERY_MIN || until > UNTIL_MAX {
            return Err(self.invalid(format!(
                "event at {at:?}: it can happen every {EVERY_MIN:?} at most, and until {UNTIL_MAX:?}"
            )));
        }
        let times = std::iter::successors(Some(at), |at| at.checked_add(every));
        Ok(times.take_while(|at| *at < until).collect())
    }

    /// The changes of an event in a direction with this jitter.
    fn changes(&self, table: &EventTable, old: Jitter) -> Result<Vec<Change>, ScenarioError> {
        let outage = table.outage.map(|outage| matches!(outage, OutageValue::Begin));
        let outage = outage.or(table.carrier.map(|carrier| matches!(carrier, CarrierValue::Lost)));
        let jitter = (table.jitter.is_some() || table.reorder.is_some()).then(|| Jitter {
            spread: table.jitter.map_or(old.spread, |jitter| jitter.0),
            reorder: table.reorder.unwrap_or(old.reorder),
        });
        let changes = [
            outage.map(Change::Outage),
            table.rate.as_ref().map(|rate| self.rate(rate)).transpose()?.map(Change::Rate),
            table.delay.map(|delay| Change::Delay(delay.0)),
            jitter.map(Change::Jitter),
            table.loss.as_ref().map(|loss| Change::Loss(loss.0)),
            table.queue.map(|queue| Change::Limit(queue.0)),
            table.mtu.map(|mtu| Change::Mtu(Some(mtu))),
            table.police.map(|police| Change::Police(police.0)),
            table.grid.map(|grid| Change::Grid(grid.0)),
            table.gather.map(|gather| Change::Gather(gather.0)),
            table.duplicate.map(|ratio| Change::Duplicate(ratio.0)),
            table.mark.map(|queue| Change::Mark(queue.0)),
        ];
        Ok(changes.into_iter().flatten().collect())
    }
}

/// The result of the event tables.
#[derive(Default)]
struct Happenings {
    events: Vec<Event>,
    carriers: Vec<CarrierEvent>,
}

pub(super) fn parse(text: &str, origin: &str, folders: &[&Path]) -> Result<Scenario, ScenarioError> {
    let file: ScenarioFile = toml::from_str(text)
        .map_err(|error| ScenarioError::Syntax { origin: origin.to_owned(), message: error.to_string() })?;
    let context = Context { origin, folders };
    if file.link.is_empty() || file.link.len() > LINKS_MAX {
        return Err(context.invalid(format!("a scenario has 1 to {LINKS_MAX} links")));
    }
    let mut links: Vec<LinkSpec> = Vec::new();
    for table in file.link {
        let link = context.link(table)?;
        if links.iter().any(|other| other.name == link.name) {
            return Err(context.invalid(format!("two links are called '{}'", link.name)));
        }
        links.push(link);
    }
    let Happenings { mut events, mut carriers } = Happenings::default();
    for table in &file.event {
        let more = context.events(table, &links, file.duration.0)?;
        events.extend(more.events);
        carriers.extend(more.carriers);
    }
    // The sort is stable: events of the same time stay in the order of the file.
    events.sort_by_key(|event| event.at);
    carriers.sort_by_key(|event| event.at);
    let ScenarioFile { name, description, duration: Span(duration), .. } = file;
    Ok(Scenario { name, description, duration, links, events, carriers })
}
