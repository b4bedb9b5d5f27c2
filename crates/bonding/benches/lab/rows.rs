//! What a row is: a scenario, a load, carriers and targets. The list of rows: [`crate::table`].

use std::time::Duration;

use bonding_lab::tools::IperfDirection;
use bonding_lab::{Direction, Scenario};
use bonding_quicperf::Congestion;
use serde::{Deserialize, Serialize};

/// The carrier of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Carrier {
    /// The bond with its defaults.
    Bond,
    /// The bond, with the links listed in the opposite order.
    Reversed,
    /// The bond over plain links.
    Plain,
    /// The bond without resending and repair symbols.
    NoRecovery,
    /// The bond with TCP as packets (`[tcp] split = "off"`).
    Packets,
    /// The bond with the baseline policy.
    RoundRobin,
    /// The kernel over the best link alone.
    Single,
    /// The kernel over all links, one subflow each.
    Mptcp,
}

impl Carrier {
    /// Whether this is the bond with its defaults, in either order of the links.
    pub(crate) const fn is_bond(self) -> bool {
        matches!(self, Self::Bond | Self::Reversed)
    }

    /// The name in tables.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Bond => "bond",
            Self::Reversed => "bond, order reversed",
            Self::Plain => "bond, plain links",
            Self::NoRecovery => "bond, no recovery",
            Self::Packets => "bond, TCP as packets",
            Self::RoundRobin => "round robin",
            Self::Single => "best link alone",
            Self::Mptcp => "kernel MPTCP",
        }
    }
}

/// The transport of a load and its congestion control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The kernel's TCP.
    Tcp(&'static str),
    /// quinn's QUIC.
    Quic(Congestion),
}

/// TCP's default in Linux.
pub(crate) const CUBIC: Protocol = Protocol::Tcp("cubic");
/// TCP with BBR.
pub(crate) const BBR: Protocol = Protocol::Tcp("bbr");
/// QUIC's default in quinn.
pub(crate) const QUIC: Protocol = Protocol::Quic(Congestion::Cubic);

impl Protocol {
    /// The name in tables.
    fn name(self) -> String {
        match self {
            Self::Tcp(congestion) => format!("TCP {congestion}"),
            Self::Quic(Congestion::Cubic) => "QUIC cubic".to_owned(),
            Self::Quic(Congestion::Bbr) => "QUIC BBR".to_owned(),
        }
    }
}

/// A bulk transfer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) direction: IperfDirection,
    pub(crate) flows: u16,
    pub(crate) protocol: Protocol,
}

/// What is fetched over new connections.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// So many bytes over one connection.
    File(u64),
    /// 30 objects of 60 kB over 6 connections, those of each one after the other.
    Page,
}

/// Transfers of a fixed size, each over new connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetch {
    pub(crate) work: Work,
    pub(crate) direction: IperfDirection,
    pub(crate) protocol: Protocol,
}

/// BBR uses the round-trip time of the handshake, over the nearest link, as its minimum for ten
/// seconds (`bbr_min_rtt_win_sec` in Linux's `tcp_bbr.c`). Then BBR measures again and grows to
/// what its path carries, by a quarter every eight round trips. A measurement starts after that.
const BBR_STEADY: Duration = Duration::from_secs(16);
/// BBR measures the minimum again every ten seconds, and sends next to nothing meanwhile: a
/// measurement covers two such periods.
const BBR_PERIODS: Duration = Duration::from_secs(20);

impl Transfer {
    /// Whether the flow's first ten seconds differ from the others.
    pub(crate) fn is_bbr(self) -> bool {
        self.protocol == BBR
    }

    /// The emulator's direction of the transfer.
    pub(crate) const fn way(self) -> Direction {
        way(self.direction)
    }
}

/// The emulator's direction.
const fn way(direction: IperfDirection) -> Direction {
    match direction {
        IperfDirection::Download => Direction::Down,
        IperfDirection::Upload => Direction::Up,
    }
}

/// The traffic over a carrier.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// A bulk transfer beside a sparse echo.
    Transfer(Transfer),
    /// The same while the first link's rate changes by the scenario's events.
    Step(Transfer),
    /// The same beside a competitor, a flow outside the bond, on the first link.
    Competing(Transfer),
    /// The same while links are out by the scenario's events.
    Outage(Transfer),
    /// An echo alone, while links are out by the scenario's events.
    Echo,
    /// A call over lossy links: only an echo, which is realtime by its behaviour.
    Call,
    /// Only pings.
    Idle,
    /// Web pages, one after the other, with pauses.
    Pages,
    /// Transfers of a fixed size, each over new connections.
    Fetch(Fetch),
    /// Short downloads and uploads by turns, one flow each.
    Turns,
    /// Downloads over a wire at full speed, which is limited to the scenario's rate meanwhile.
    Limited,
}

impl Load {
    /// The emulator's direction of most bytes.
    pub(crate) const fn way(self) -> Direction {
        match self {
            Self::Transfer(transfer)
            | Self::Step(transfer)
            | Self::Competing(transfer)
            | Self::Outage(transfer) => transfer.way(),
            Self::Fetch(fetch) => way(fetch.direction),
            Self::Echo | Self::Call | Self::Idle | Self::Pages | Self::Turns | Self::Limited => {
                Direction::Down
            }
        }
    }
}

/// A bound for a figure of the bond.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Target<F> {
    pub(crate) figure: F,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) at_least: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) at_most: Option<f64>,
}

pub(crate) const fn at_least(figure: &'static str, value: f64) -> Target<&'static str> {
    Target { figure, at_least: Some(value), at_most: None }
}

pub(crate) const fn at_most(figure: &'static str, value: f64) -> Target<&'static str> {
    Target { figure, at_least: None, at_most: Some(value) }
}

pub(crate) const fn between(figure: &'static str, low: f64, high: f64) -> Target<&'static str> {
    Target { figure, at_least: Some(low), at_most: Some(high) }
}

/// A row of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) scenario: &'static str,
    pub(crate) load: Load,
    /// The first is judged by the targets.
    pub(crate) carriers: &'static [Carrier],
    pub(crate) targets: Vec<Target<&'static str>>,
    /// What is not measured at a transfer's start, if it is not the usual time.
    pub(crate) omit: Option<Duration>,
}

impl Row {
    /// Whether a name on the command line means this row: its beginning, or a pattern with one `*`.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        match name.split_once('*') {
            Some((begin, end)) => self.name.strip_prefix(begin).is_some_and(|rest| rest.ends_with(end)),
            None => self.name.starts_with(name),
        }
    }

    /// Whether its links are recorded ones, which are not part of the project.
    pub(crate) fn is_recorded(&self) -> bool {
        bonding_netem::scenario::recorded_names().any(|name| name == self.scenario)
    }

    /// A description, in one line.
    pub(crate) fn about(&self) -> String {
        let transfer = |transfer: Transfer| {
            let way = if transfer.direction == IperfDirection::Download { "download" } else { "upload" };
            let plural = if transfer.flows == 1 { "" } else { "s" };
            format!("{} {way}{plural} by {}", transfer.flows, transfer.protocol.name())
        };
        match self.load {
            Load::Transfer(load) if self.carriers.contains(&Carrier::Reversed) => {
                format!("{}, links listed in the opposite order", transfer(load))
            }
            Load::Transfer(load) => transfer(load),
            Load::Step(load) => format!("{} while the first link changes its rate", transfer(load)),
            Load::Outage(load) => format!("{} while links are out", transfer(load)),
            Load::Call => "a call of 100 packets a second each way and nothing else".to_owned(),
            Load::Echo => "50 echoes a second and nothing else while links are out".to_owned(),
            Load::Competing(load) => {
                format!("{} beside a flow outside the bond on its first link", transfer(load))
            }
            Load::Idle => "pings and nothing else".to_owned(),
            Load::Pages => "web pages, one after the other".to_owned(),
            Load::Fetch(Fetch { work, direction, protocol }) => {
                let what = match work {
                    Work::File(bytes) => format!("{} over a new connection", size(bytes)),
                    Work::Page => "a page of 30 × 60 kB over 6 new connections".to_owned(),
                };
                let up = if direction == IperfDirection::Upload { ", up," } else { "" };
                format!("{what}{up} by {}", protocol.name())
            }
            Load::Turns => "downloads and uploads of 5 s by turns, 1 flow by TCP cubic".to_owned(),
            Load::Limited => "4 downloads by TCP cubic over a wire that is limited meanwhile".to_owned(),
        }
    }
}

/// A number of bytes in the unit in which it is round.
fn size(bytes: u64) -> String {
    const MEBI: u64 = 1 << 20;
    if bytes.is_multiple_of(MEBI) {
        format!("{} MiB", bytes / MEBI)
    } else if bytes.is_multiple_of(1_000_000) {
        format!("{} MB", bytes / 1_000_000)
    } else {
        format!("{} kB", bytes / 1_000)
    }
}

/// After this every carrier is up and the echo has been alone for long enough.
const READY: Duration = Duration::from_secs(4);

/// The parts of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// The earliest start of the load after the links' start: every carrier sees the same part of a
    /// rate that varies.
    pub(crate) start: Duration,
    /// Not measured: the transfer becomes steady.
    pub(crate) omit: Duration,
    /// The measured time.
    pub(crate) measured: Duration,
}

impl Timing {
    /// A scenario with events runs to its end, so that every carrier sees all of them. In the
    /// others every second is like the last, and the baselines need fewer.
    pub(crate) fn new(scenario: &Scenario, row: &Row, carrier: Carrier, seconds: u64, quick: bool) -> Self {
        let load = row.load;
        if let Load::Transfer(transfer) = load
            && transfer.is_bbr()
        {
            return Self { start: Duration::ZERO, omit: BBR_STEADY, measured: BBR_PERIODS };
        }
        let varies =
            scenario.links.iter().any(|link| matches!(link.down.rate, bonding_netem::Rate::Trace(_)));
        let omit = row.omit.unwrap_or(Duration::from_secs(if quick { 3 } else { 5 }));
        let whole = if !scenario.events.is_empty() {
            scenario.duration.saturating_sub(omit)
        } else if varies {
            Duration::from_secs(if quick { 10 } else { 20 })
        } else {
            let baseline = matches!(carrier, Carrier::RoundRobin | Carrier::Single | Carrier::Mptcp);
            let seconds = if quick { 4 } else { seconds };
            Duration::from_secs(if baseline { seconds.min(5) } else { seconds })
        };
        let start = if varies { READY } else { Duration::ZERO };
        Self { start, omit, measured: whole }
    }
}
