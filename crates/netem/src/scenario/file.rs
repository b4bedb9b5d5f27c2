//! The scenario file, and its conversion to a checked [`Scenario`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::{
    CarrierEvent, Direction, Event, LINK_NAME_BYTES_MAX, LINKS_MAX, LinkSpec, Scenario, ScenarioError,
};
use crate::jitter::{Jitter, Spread};
use crate::loss::Loss;
use crate::pipe::{Change, Limit, PipeConfig};
use crate::rate::Rate;
use crate::trace::{Trace, Walk};
use crate::units::{UnitError, parse_duration, parse_rate_bps, parse_ratio, parse_size_bytes};

/// Bounds of repeated events. Chosen: all events of a file must fit into memory.
const EVERY_MIN: Duration = Duration::from_millis(10);
const UNTIL_MAX: Duration = Duration::from_secs(3_600);

/// A quantity in text form, checked while reading, so that the error names the line.
macro_rules! quantity {
    ($name:ident, $value:ty, $parse:expr) => {
        #[derive(Debug, Clone, Copy, Deserialize)]
        #[serde(try_from = "String")]
        struct $name($value);

        impl TryFrom<String> for $name {
            type Error = UnitError;

            fn try_from(text: String) -> Result<Self, UnitError> {
                $parse(text.as_str()).map(Self)
            }
        }
    };
}

quantity!(Span, Duration, parse_duration);
quantity!(Bps, u64, parse_rate_bps);
quantity!(Ratio, f64, parse_ratio);

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

#[derive(Deserialize)]
#[serde(try_from = "toml::Value")]
enum RateValue {
    Unlimited,
    Constant(u64),
    TraceFile(String),
    Walk(Walk),
}

impl TryFrom<toml::Value> for RateValue {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        if let toml::Value::String(text) = value {
            if text == "unlimited" {
                return Ok(Self::Unlimited);
            }
            return parse_rate_bps(&text).map(Self::Constant).map_err(|error| error.to_string());
        }
        let table: RateTable =
            value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        match table {
            RateTable { trace: Some(file), walk: None } => Ok(Self::TraceFile(file)),
            RateTable { trace: None, walk: Some(walk) } => Ok(Self::Walk(Walk {
                min_bps: walk.min.0,
                max_bps: walk.max.0,
                step: walk.step.0,
                factor_max: walk.factor,
                period: walk.period.0,
                seed: walk.seed,
            })),
            _ => Err("a rate table needs either trace or walk".to_owned()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateTable {
    trace: Option<String>,
    walk: Option<WalkTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WalkTable {
    min: Bps,
    max: Bps,
    #[serde(default = "default_step")]
    step: Span,
    #[serde(default = "default_factor")]
    factor: f64,
    #[serde(default = "default_period")]
    period: Span,
    seed: u64,
}

fn default_step() -> Span {
    Span(Duration::from_millis(200))
}

fn default_factor() -> f64 {
    1.5
}

fn default_period() -> Span {
    Span(Duration::from_secs(60))
}

#[derive(Deserialize)]
#[serde(try_from = "toml::Value")]
struct LossValue(Loss);

impl TryFrom<toml::Value> for LossValue {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        if let toml::Value::String(text) = value {
            let ratio = parse_ratio(&text).map_err(|error| error.to_string())?;
            return Ok(Self(if ratio > 0.0 { Loss::Random { ratio } } else { Loss::None }));
        }
        let table: LossTable =
            value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        match table {
            LossTable {
                ratio: Some(ratio),
                burst: Some(burst),
                enter: None,
                leave: None,
                loss_good: None,
                loss_bad: None,
            } if burst >= 1.0 && ratio.0 < 1.0 => Ok(Self(Loss::bursts(ratio.0, burst))),
            LossTable {
                ratio: None,
                burst: None,
                enter: Some(enter),
                leave: Some(leave),
                loss_good,
                loss_bad,
            } => Ok(Self(Loss::GilbertElliott {
                enter: enter.0,
                leave: leave.0,
                loss_good: loss_good.map_or(0.0, |ratio| ratio.0),
                loss_bad: loss_bad.map_or(1.0, |ratio| ratio.0),
            })),
            _ => Err(
                "a loss table needs ratio (below 1) with burst (packets, at least 1), or enter with leave"
                    .to_owned(),
            ),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LossTable {
    ratio: Option<Ratio>,
    burst: Option<f64>,
    enter: Option<Ratio>,
    leave: Option<Ratio>,
    loss_good: Option<Ratio>,
    loss_bad: Option<Ratio>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(try_from = "toml::Value")]
struct JitterValue(Spread);

impl TryFrom<toml::Value> for JitterValue {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        if let toml::Value::String(text) = value {
            let span = parse_duration(&text).map_err(|error| error.to_string())?;
            return Ok(Self(if span.is_zero() { Spread::None } else { Spread::Uniform { span } }));
        }
        let table: JitterTable =
            value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        if !(0.0..1.0).contains(&table.correlation) {
            return Err("the correlation of jitter is a number from 0 to 1, less than 1".to_owned());
        }
        Ok(Self(Spread::Normal { deviation: table.deviation.0, correlation: table.correlation }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JitterTable {
    deviation: Span,
    #[serde(default)]
    correlation: f64,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(try_from = "String")]
struct QueueValue(Limit);

impl TryFrom<String> for QueueValue {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.ends_with('B') {
            return parse_size_bytes(&text)
                .map(|bytes| Self(Limit::Bytes(bytes)))
                .map_err(|error| error.to_string());
        }
        parse_duration(&text).map(|span| Self(Limit::Time(span))).map_err(|_| {
            format!("'{text}' is not a queue limit: a size such as \"64kB\" or a duration such as \"100ms\"")
        })
    }
}

/// The context of errors and trace files.
struct Context<'a> {
    origin: &'a str,
    folder: Option<&'a Path>,
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
                let folder = self.folder.ok_or_else(|| {
                    self.invalid(format!(
                        "trace '{file}': only a scenario read from a file can name trace files"
                    ))
                })?;
                let path = folder.join(file);
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
        let both = PipeTable { rate, delay, jitter, reorder, loss, queue, mtu, duplicate, mark };
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

pub(super) fn parse(text: &str, origin: &str, folder: Option<&Path>) -> Result<Scenario, ScenarioError> {
    let file: ScenarioFile = toml::from_str(text)
        .map_err(|error| ScenarioError::Syntax { origin: origin.to_owned(), message: error.to_string() })?;
    let context = Context { origin, folder };
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
