//! Scenarios: links and their events, as data.
//!
//! A scenario is a TOML file. Properties apply to both directions of a link unless `up` or `down`
//! (seen from the client) overrides them. Unknown keys and links and impossible values are errors
//! that name the place.
//!
//! ```toml
//! name = "failover"
//! description = "Two equal links; one goes silent and comes back"
//! duration = "20s"            # of a run that shows all of it; default 20s
//!
//! [[link]]
//! name = "a"                  # at most 15 of a-z, 0-9 and '-': also a network device's name
//! rate = "50mbit"             # or "unlimited", { trace = "lte.down" }, { walk = { min, max } }
//! rtt = "30ms"                # split evenly; or delay = "15ms" for one way
//! jitter = "2ms"              # added to the delay; or { deviation = "5ms", correlation = 0.9 }:
//!                             # normal around it
//! reorder = false             # jitter may change the order
//! loss = "1%"                 # or { ratio = "1%", burst = 5 },
//!                             # or { enter, leave, loss_good, loss_bad }
//! queue = "100ms"             # or "64kB"; drop-tail; default 100ms
//! mtu = 1500                  # larger packets vanish
//! police = { rate = "20mbit", burst = "64kB" } # excess is dropped; per = "flow": a bucket each
//! grid = "5ms"                # packets leave at multiples of it
//! gather = "4ms"              # packets arrive in bursts, this long after the first
//! duplicate = "0%"
//! mark = "5ms"                # mark ECN-capable packets that find more waiting
//! up = { rate = "5mbit" }     # one direction only: any of the above but name and rtt
//!
//! [[event]]
//! at = "8s"
//! every = "15s"               # again and again
//! until = "60s"               # not from then on; default the scenario's duration
//! link = "a"
//! direction = "both"          # both | up | down
//! carrier = "lost"            # or "found": an outage, and the client's interface is down
//! outage = "begin"            # or "end"; and any of a link's properties but name and rtt;
//!                             # police = "none" removes a policer
//! ```
//!
//! A trace file ([`crate::trace`]) is found beside the scenario file, otherwise in the folder that
//! [`TRACES_VARIABLE`] names. Scenarios of recorded traces are built in ([`recorded_names`]), the
//! recordings are not: they are their authors'.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::pipe::{Change, Pipe, PipeConfig};
use crate::time::Time;
use crate::trace::TraceError;

mod file;
mod values;

/// The longest name of a link in bytes: the name of a Linux network device (`IFNAMSIZ` less 1).
pub const LINK_NAME_BYTES_MAX: usize = 15;

/// The most links of a scenario: the bond's limit.
pub const LINKS_MAX: usize = 32;

/// The environment variable with the folder of recorded traces.
pub const TRACES_VARIABLE: &str = "BONDING_TRACES";

/// A direction of a link, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Direction {
    /// Both, up first.
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];
}

/// A set of links and their events.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// The purpose, in one line.
    pub description: String,
    /// How long a run takes that shows the whole scenario.
    pub duration: Duration,
    /// The links, at least one; their names differ.
    pub links: Vec<LinkSpec>,
    /// The events, in the order of time.
    pub events: Vec<Event>,
    /// Changes of the client's interfaces, in the order of time. The outage of each is among the
    /// events.
    pub carriers: Vec<CarrierEvent>,
}

/// One link.
#[derive(Debug, Clone)]
pub struct LinkSpec {
    /// The link's name: also the name of a network device.
    pub name: String,
    /// From the client to the server.
    pub up: PipeConfig,
    /// From the server to the client.
    pub down: PipeConfig,
}

impl LinkSpec {
    /// The pipe of one direction.
    pub const fn pipe(&self, direction: Direction) -> &PipeConfig {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// The round-trip time of a small packet on the idle link.
    pub fn rtt(&self) -> Duration {
        self.up.delay + self.down.delay
    }
}

/// A change of one direction of a link at a time since the start.
#[derive(Debug, Clone)]
pub struct Event {
    /// Time since the start.
    pub at: Duration,
    /// The link's name.
    pub link: String,
    /// The direction.
    pub direction: Direction,
    /// The change.
    pub change: Change,
}

/// The client's end of a link loses or regains its carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarrierEvent {
    /// Time since the start.
    pub at: Duration,
    /// The link's name.
    pub link: String,
    /// True: the carrier is back.
    pub present: bool,
}

/// The reason for refusing a scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind. The message names line and column.
    #[error("{origin}: {message}")]
    Syntax {
        /// The origin of the text.
        origin: String,
        /// The error.
        message: String,
    },
    /// The file is well-formed, but its values contradict each other.
    #[error("{origin}: {message}")]
    Invalid {
        /// The origin of the text.
        origin: String,
        /// The error.
        message: String,
    },
    /// A trace is refused.
    #[error("{origin}: {trace}: {source}")]
    Trace {
        /// The origin of the text.
        origin: String,
        /// The trace's file, or `walk`.
        trace: String,
        /// The error.
        source: TraceError,
    },
    /// No built-in scenario of this name, and no such file.
    #[error("no scenario '{name}': give the path of a scenario file, or one of {}", names())]
    Unknown {
        /// The name asked for.
        name: String,
    },
}

/// Name and text of each built-in scenario.
const BUILTIN: [(&str, &str); 44] = [
    ("reference", include_str!("../../../scenarios/reference.toml")),
    ("dual", include_str!("../../../scenarios/dual.toml")),
    ("hetero", include_str!("../../../scenarios/hetero.toml")),
    ("asymmetric", include_str!("../../../scenarios/asymmetric.toml")),
    ("lossy", include_str!("../../../scenarios/lossy.toml")),
    ("failover", include_str!("../../../scenarios/failover.toml")),
    ("failover-5", include_str!("../../../scenarios/failover-5.toml")),
    ("varying", include_str!("../../../scenarios/varying.toml")),
    ("single", include_str!("../../../scenarios/single.toml")),
    ("step", include_str!("../../../scenarios/step.toml")),
    ("satphone", include_str!("../../../scenarios/satphone.toml")),
    ("carrier", include_str!("../../../scenarios/carrier.toml")),
    ("flapping", include_str!("../../../scenarios/flapping.toml")),
    ("turns", include_str!("../../../scenarios/turns.toml")),
    ("turns-carrier", include_str!("../../../scenarios/turns-carrier.toml")),
    ("starlink", include_str!("../../../scenarios/starlink.toml")),
    ("lossy-3", include_str!("../../../scenarios/lossy-3.toml")),
    ("bursts", include_str!("../../../scenarios/bursts.toml")),
    ("call", include_str!("../../../scenarios/call.toml")),
    ("sweep-01", include_str!("../../../scenarios/sweep-01.toml")),
    ("sweep-02", include_str!("../../../scenarios/sweep-02.toml")),
    ("sweep-03", include_str!("../../../scenarios/sweep-03.toml")),
    ("sweep-04", include_str!("../../../scenarios/sweep-04.toml")),
    ("sweep-05", include_str!("../../../scenarios/sweep-05.toml")),
    ("sweep-06", include_str!("../../../scenarios/sweep-06.toml")),
    ("sweep-07", include_str!("../../../scenarios/sweep-07.toml")),
    ("sweep-08", include_str!("../../../scenarios/sweep-08.toml")),
    ("sweep-09", include_str!("../../../scenarios/sweep-09.toml")),
    ("sweep-10", include_str!("../../../scenarios/sweep-10.toml")),
    ("sweep-11", include_str!("../../../scenarios/sweep-11.toml")),
    ("sweep-12", include_str!("../../../scenarios/sweep-12.toml")),
    ("sweep-13", include_str!("../../../scenarios/sweep-13.toml")),
    ("sweep-14", include_str!("../../../scenarios/sweep-14.toml")),
    ("sweep-15", include_str!("../../../scenarios/sweep-15.toml")),
    ("sweep-16", include_str!("../../../scenarios/sweep-16.toml")),
    ("vdsl-5g", include_str!("../../../scenarios/vdsl-5g.toml")),
    ("vdsl-5g-dies", include_str!("../../../scenarios/vdsl-5g-dies.toml")),
    ("policed", include_str!("../../../scenarios/policed.toml")),
    ("policed-flow", include_str!("../../../scenarios/policed-flow.toml")),
    ("grid", include_str!("../../../scenarios/grid.toml")),
    ("jitter-correlated", include_str!("../../../scenarios/jitter-correlated.toml")),
    ("adsl-dish", include_str!("../../../scenarios/adsl-dish.toml")),
    ("starlink-jitter", include_str!("../../../scenarios/starlink-jitter.toml")),
    ("step-jitter", include_str!("../../../scenarios/step-jitter.toml")),
];

/// Name and text of each built-in scenario whose links are recorded: as [`BUILTIN`], but they need
/// the folder of traces.
const RECORDED: [(&str, &str); 3] = [
    ("lte-verizon", include_str!("../../../scenarios/lte-verizon.toml")),
    ("lte-att", include_str!("../../../scenarios/lte-att.toml")),
    ("lte-pair", include_str!("../../../scenarios/lte-pair.toml")),
];

/// The names of the built-in scenarios that need no other file, in the order of the tables.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    BUILTIN.iter().map(|(name, _)| *name)
}

/// The names of the built-in scenarios that need recorded traces.
pub fn recorded_names() -> impl Iterator<Item = &'static str> {
    RECORDED.iter().map(|(name, _)| *name)
}

fn names() -> String {
    builtin_names().chain(recorded_names()).collect::<Vec<_>>().join(", ")
}

/// The folder of recorded traces, if the environment names one.
pub fn traces_folder() -> Option<PathBuf> {
    std::env::var_os(TRACES_VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// The built-in scenario `name`, with recorded traces from [`traces_folder`].
pub fn builtin(name: &str) -> Result<Scenario, ScenarioError> {
    builtin_with(name, traces_folder().as_deref())
}

/// The built-in scenario `name`, with recorded traces from the folder `traces`.
pub fn builtin_with(name: &str, traces: Option<&Path>) -> Result<Scenario, ScenarioError> {
    let found = BUILTIN.iter().chain(&RECORDED).find(|(builtin, _)| *builtin == name);
    let (name, text) = found.ok_or_else(|| ScenarioError::Unknown { name: name.to_owned() })?;
    Scenario::parse(text, &format!("scenarios/{name}.toml"), traces)
}

/// The built-in scenario with this name, otherwise the scenario file at this path; recorded traces
/// from [`traces_folder`].
pub fn find(name_or_path: &str) -> Result<Scenario, ScenarioError> {
    find_with(name_or_path, traces_folder().as_deref())
}

/// As [`find`], with recorded traces from the folder `traces`.
pub fn find_with(name_or_path: &str, traces: Option<&Path>) -> Result<Scenario, ScenarioError> {
    if builtin_names().chain(recorded_names()).any(|name| name == name_or_path) {
        return builtin_with(name_or_path, traces);
    }
    let path = Path::new(name_or_path);
    if path.exists() {
        return Scenario::load_with(path, traces);
    }
    Err(ScenarioError::Unknown { name: name_or_path.to_owned() })
}

impl Scenario {
    /// Reads a scenario file. Its trace files are in the same folder or in [`traces_folder`].
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        Self::load_with(path, traces_folder().as_deref())
    }

    /// As [`Scenario::load`], with recorded traces from the folder `traces`.
    pub fn load_with(path: &Path, traces: Option<&Path>) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
        let beside = path.parent().unwrap_or(Path::new("."));
        let folders: Vec<_> = std::iter::once(beside).chain(traces).collect();
        file::parse(&text, &path.display().to_string(), &folders)
    }

    /// Reads a scenario from its text. `origin` names it in errors. Trace files are read from
    /// `folder`, and refused if there is none.
    pub fn parse(text: &str, origin: &str, folder: Option<&Path>) -> Result<Self, ScenarioError> {
        file::parse(text, origin, &folder.into_iter().collect::<Vec<_>>())
    }

    /// The position of the link called `name`.
    pub fn link_index(&self, name: &str) -> Option<usize> {
        self.links.iter().position(|link| link.name == name)
    }

    /// The events of one direction of a link, in the order of time.
    pub fn events_of(&self, link: &str, direction: Direction) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.link == link && event.direction == direction)
    }

    /// A pipe with the properties of this direction of `link`, without the scenario's events.
    ///
    /// The seed is mixed with the link's name and the direction, not with its position: the order
    /// of links changes nothing.
    pub fn pipe<T: Clone>(&self, link: &LinkSpec, direction: Direction, seed: u64) -> Pipe<T> {
        let salt = match direction {
            Direction::Up => 1,
            Direction::Down => 2,
        };
        // FNV-1a, 64 bits.
        let mixed = link.name.bytes().chain([salt]).fold(seed ^ 0xCBF2_9CE4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Pipe::new(link.pipe(direction).clone(), mixed)
    }

    /// As [`Scenario::pipe`], with the scenario's events scheduled from `start` on.
    pub fn pipe_with_events<T: Clone>(
        &self,
        link: &LinkSpec,
        direction: Direction,
        seed: u64,
        start: Time,
    ) -> Pipe<T> {
        let mut pipe = self.pipe(link, direction, seed);
        for event in self.events_of(&link.name, direction) {
            pipe.schedule(start + event.at, event.change.clone());
        }
        pipe
    }

    /// The bytes that `link` can carry in one direction in `from..to` of the scenario's time, with
    /// its events (rates, policers and outages, not loss). `None` if nothing limits it.
    pub fn capacity_bytes(
        &self,
        link: &LinkSpec,
        direction: Direction,
        from: Duration,
        to: Duration,
    ) -> Option<u64> {
        let mut pipe = link.pipe(direction).clone();
        let (mut outage, mut since, mut bytes) = (false, from, 0_u64);
        for event in self.events_of(&link.name, direction).filter(|event| event.at < to) {
            let at = event.at.max(from);
            if !outage {
                bytes = bytes.saturating_add(pipe.bytes_between(Time::from(since), Time::from(at))?);
            }
            since = at;
            if let Change::Rate(rate) = &event.change {
                pipe.rate = rate.clone();
            }
            if let Change::Police(police) = event.change {
                pipe.police = police;
            }
            if let Change::Outage(begins) = event.change {
                outage = begins;
            }
        }
        if !outage {
            bytes = bytes.saturating_add(pipe.bytes_between(Time::from(since), Time::from(to))?);
        }
        Some(bytes)
    }

    /// The mean rate in bits per second of all links together in one direction in `from..to`, with
    /// events; see [`Scenario::capacity_bytes`].
    pub fn capacity_bps(&self, direction: Direction, from: Duration, to: Duration) -> Option<u64> {
        let mut bytes = 0_u64;
        for link in &self.links {
            bytes = bytes.saturating_add(self.capacity_bytes(link, direction, from, to)?);
        }
        let nanos = to.saturating_sub(from).as_nanos().max(1);
        Some(u64::try_from(u128::from(bytes) * 8_000_000_000 / nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests;
