//! The rows of the table, and the targets of the bond, as data.

use std::time::Duration;

use bonding_lab::tools::IperfDirection;
use bonding_lab::{Direction, Scenario};
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
            Self::RoundRobin => "round robin",
            Self::Single => "best link alone",
            Self::Mptcp => "kernel MPTCP",
        }
    }
}

/// A bulk transfer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) direction: IperfDirection,
    pub(crate) flows: u16,
    pub(crate) congestion: &'static str,
}

const BBR: &str = "bbr";
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
        self.congestion == BBR
    }

    /// The emulator's direction of the transfer.
    pub(crate) const fn way(self) -> Direction {
        match self.direction {
            IperfDirection::Download => Direction::Down,
            IperfDirection::Upload => Direction::Up,
        }
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

const fn at_least(figure: &'static str, value: f64) -> Target<&'static str> {
    Target { figure, at_least: Some(value), at_most: None }
}

const fn at_most(figure: &'static str, value: f64) -> Target<&'static str> {
    Target { figure, at_least: None, at_most: Some(value) }
}

const fn between(figure: &'static str, low: f64, high: f64) -> Target<&'static str> {
    Target { figure, at_least: Some(low), at_most: Some(high) }
}

/// A row of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) scenario: &'static str,
    pub(crate) load: Load,
    pub(crate) carriers: &'static [Carrier],
    pub(crate) targets: Vec<Target<&'static str>>,
}

const DOWN: IperfDirection = IperfDirection::Download;
const UP: IperfDirection = IperfDirection::Upload;
const ALL: &[Carrier] = &[Carrier::Bond, Carrier::RoundRobin, Carrier::Single, Carrier::Mptcp];
const NO_TCP: &[Carrier] = &[Carrier::Bond, Carrier::RoundRobin, Carrier::Single];
const BOND: &[Carrier] = &[Carrier::Bond];
const RECOVERY: &[Carrier] =
    &[Carrier::Bond, Carrier::NoRecovery, Carrier::RoundRobin, Carrier::Single, Carrier::Mptcp];
const RECOVERY_NO_TCP: &[Carrier] =
    &[Carrier::Bond, Carrier::NoRecovery, Carrier::RoundRobin, Carrier::Single];
const CALL: &[Carrier] = &[Carrier::Bond, Carrier::NoRecovery, Carrier::Single];
const OVERHEAD: &[Carrier] = &[Carrier::Bond, Carrier::NoRecovery];
const ORDER: &[Carrier] = &[Carrier::Bond, Carrier::Reversed];
const SEALING: &[Carrier] = &[Carrier::Bond, Carrier::Plain];

const fn transfer(direction: IperfDirection, flows: u16, congestion: &'static str) -> Load {
    Load::Transfer(Transfer { direction, flows, congestion })
}

fn row(
    name: &'static str,
    scenario: &'static str,
    load: Load,
    carriers: &'static [Carrier],
    targets: &[Target<&'static str>],
) -> Row {
    Row { name, scenario, load, carriers, targets: targets.to_vec() }
}

const fn share(percent: f64) -> Target<&'static str> {
    at_least("share_percent", percent)
}

const fn cubic(direction: IperfDirection, flows: u16) -> Transfer {
    Transfer { direction, flows, congestion: "cubic" }
}

/// The bond is at least as fast as the best link alone.
const BEST: Target<&str> = at_least("of_best_link", 1.0);

/// All rows, in the table's order.
pub(crate) fn all() -> Vec<Row> {
    [reference(), steady(), lossy(), varying(), order(), outages(), calls()].concat()
}

/// The reference links.
fn reference() -> Vec<Row> {
    let echo = [at_most("echo_p50_ms", 22.0), at_most("echo_p99_ms", 27.0)];
    let one = [share(95.0), BEST];
    let four = [share(97.0), BEST, echo[0], echo[1]];
    let idle = [at_most("idle_p50_ms", 20.5), at_most("others_percent", 5.0)];
    vec![
        row("reference-1-down", "reference", transfer(DOWN, 1, "cubic"), ALL, &one),
        row("reference-1-up", "reference", transfer(UP, 1, "cubic"), ALL, &one),
        row("reference-4-down", "reference", transfer(DOWN, 4, "cubic"), ALL, &four),
        row("reference-4-up", "reference", transfer(UP, 4, "cubic"), ALL, &four[..2]),
        row("reference-bbr-down", "reference", transfer(DOWN, 1, BBR), ALL, &one),
        row("reference-bbr-up", "reference", transfer(UP, 1, BBR), ALL, &one),
        row("reference-idle", "reference", Load::Idle, NO_TCP, &idle),
        row("reference-pages", "reference", Load::Pages, ALL, &[at_most("others_percent", 5.0)]),
    ]
}

/// Other links that do not change and lose only by their queues.
fn steady() -> Vec<Row> {
    vec![
        row("dual-1-down", "dual", transfer(DOWN, 1, "cubic"), ALL, &[share(97.0), BEST]),
        row("dual-1-up", "dual", transfer(UP, 1, "cubic"), ALL, &[share(97.0), BEST]),
        row("hetero-1-down", "hetero", transfer(DOWN, 1, "cubic"), ALL, &[share(95.0), BEST]),
        row("hetero-1-up", "hetero", transfer(UP, 1, "cubic"), ALL, &[share(95.0), BEST]),
        row("asymmetric-1-down", "asymmetric", transfer(DOWN, 1, "cubic"), ALL, &[share(95.0), BEST]),
        row("asymmetric-4-down", "asymmetric", transfer(DOWN, 4, "cubic"), ALL, &[share(95.0), BEST]),
        row("asymmetric-1-up", "asymmetric", transfer(UP, 1, "cubic"), ALL, &[share(95.0), BEST]),
    ]
}

/// Links that lose packets, and one link alone.
fn lossy() -> Vec<Row> {
    // Losses and their resends, at times over two links, take their share.
    let lossy = [share(85.0), BEST];
    let single = [share(97.0), at_most("echo_added_p99_ms", 8.0)];
    vec![
        row("lossy-1-down", "lossy", transfer(DOWN, 1, "cubic"), RECOVERY, &[share(93.0), BEST]),
        row("lossy-1-up", "lossy", transfer(UP, 1, "cubic"), RECOVERY, &[share(93.0), BEST]),
        row("lossy3-1-down", "lossy-3", transfer(DOWN, 1, "cubic"), RECOVERY, &lossy),
        row("lossy3-1-up", "lossy-3", transfer(UP, 1, "cubic"), RECOVERY, &lossy),
        row("bursts-1-down", "bursts", transfer(DOWN, 1, "cubic"), RECOVERY, &[share(90.0), BEST]),
        row("bursts-1-up", "bursts", transfer(UP, 1, "cubic"), RECOVERY, &[share(90.0), BEST]),
        row("single-1-down", "single", transfer(DOWN, 1, "cubic"), NO_TCP, &single),
        row("single-1-up", "single", transfer(UP, 1, "cubic"), NO_TCP, &single),
    ]
}

/// Links whose rate changes, by themselves or by a competitor.
fn varying() -> Vec<Row> {
    let varying = [share(85.0), at_most("echo_added_p95_ms", 60.0), at_most("link_queue_p95_ms", 60.0), BEST];
    let step = [at_most("settled_down_s", 1.0), at_most("settled_up_s", 3.0)];
    let fair = [between("competitor_percent", 25.0, 75.0)];
    vec![
        row("varying-4-down", "varying", transfer(DOWN, 4, "cubic"), ALL, &varying),
        row("varying-4-up", "varying", transfer(UP, 4, "cubic"), ALL, &varying),
        row("step-down", "step", Load::Step(cubic(DOWN, 4)), ALL, &step),
        row("step-up", "step", Load::Step(cubic(UP, 4)), ALL, &step),
        row("competing-10", "reference", Load::Competing(cubic(DOWN, 4)), ALL, &fair),
        row("competing-50", "dual", Load::Competing(cubic(DOWN, 4)), ALL, &fair),
    ]
}

/// The order of the links in the configuration, and a link that is too slow to be of use.
fn order() -> Vec<Row> {
    let difference = [at_most("difference_percent", 3.0)];
    let slow = [at_least("of_others_percent", 95.0), BEST];
    vec![
        row("order-reference", "reference", transfer(DOWN, 1, "cubic"), ORDER, &difference),
        row("order-dual", "dual", transfer(DOWN, 1, "cubic"), ORDER, &difference),
        row("order-hetero", "hetero", transfer(DOWN, 1, "cubic"), ORDER, &difference),
        row("satphone-1-down", "satphone", transfer(DOWN, 1, "cubic"), ALL, &slow),
    ]
}

/// Links that go silent or lose their carrier.
fn outages() -> Vec<Row> {
    let outage = |direction| Load::Outage(cubic(direction, 1));
    let pause = |most| at_most("pause_ms", most);
    let silence = |most| at_most("echo_silence_ms", most);
    let survives = at_least("survivor_percent", 95.0);
    let after = [survives, at_most("survivor_s", 1.0), at_most("returned_s", 5.0), BEST];
    let failover = [&[pause(150.0)], after.as_slice()].concat();
    let carrier = [&[pause(60.0)], after.as_slice()].concat();
    let starlink = [share(90.0), pause(200.0), BEST];
    vec![
        row("failover-1-down", "failover", outage(DOWN), RECOVERY, &failover),
        row("failover-1-up", "failover", outage(UP), RECOVERY, &failover),
        row("failover-5-down", "failover-5", outage(DOWN), RECOVERY, &failover),
        row("failover-5-up", "failover-5", outage(UP), RECOVERY, &failover),
        row("failover-carrier-down", "carrier", outage(DOWN), RECOVERY_NO_TCP, &carrier),
        row("failover-carrier-up", "carrier", outage(UP), RECOVERY_NO_TCP, &carrier),
        row("failover-echo", "turns", Load::Echo, BOND, &[silence(150.0)]),
        row("failover-echo-carrier", "turns-carrier", Load::Echo, BOND, &[silence(60.0)]),
        row("failover-flapping", "flapping", outage(DOWN), RECOVERY_NO_TCP, &[survives, pause(150.0)]),
        row("failover-starlink", "starlink", outage(DOWN), RECOVERY_NO_TCP, &starlink),
    ]
}

/// Calls, and what recovery and sealing cost.
fn calls() -> Vec<Row> {
    let call = [at_most("lost_percent", 0.1), at_most("extra_percent", 25.0)];
    let clean = [at_most("extra_percent", 0.5)];
    vec![
        row("call-lossy", "call", Load::Call, CALL, &call),
        row("call-clean", "dual", Load::Call, OVERHEAD, &clean),
        row("recovery-clean", "reference", transfer(DOWN, 4, "cubic"), OVERHEAD, &clean),
        row(
            "sealing-4-down",
            "reference",
            transfer(DOWN, 4, "cubic"),
            SEALING,
            &[at_least("of_plain", 0.97)],
        ),
    ]
}

impl Row {
    /// A description, in one line.
    pub(crate) fn about(&self) -> String {
        let transfer = |transfer: Transfer| {
            let way = if transfer.direction == DOWN { "download" } else { "upload" };
            let plural = if transfer.flows == 1 { "" } else { "s" };
            format!("{} {way}{plural} by TCP {}", transfer.flows, transfer.congestion)
        };
        match self.load {
            Load::Transfer(load) if self.carriers == ORDER => {
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
        }
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
    pub(crate) fn new(scenario: &Scenario, load: Load, carrier: Carrier, seconds: u64, quick: bool) -> Self {
        if let Load::Transfer(transfer) = load
            && transfer.is_bbr()
        {
            return Self { start: Duration::ZERO, omit: BBR_STEADY, measured: BBR_PERIODS };
        }
        let varies =
            scenario.links.iter().any(|link| matches!(link.down.rate, bonding_netem::Rate::Trace(_)));
        let omit = Duration::from_secs(if quick { 3 } else { 5 });
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
