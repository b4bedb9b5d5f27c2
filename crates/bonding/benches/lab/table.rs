//! The rows of the table, and the targets of the bond, as data.

use std::time::Duration;

use bonding_lab::tools::IperfDirection;

use crate::rows::{
    BBR, CUBIC, Carrier, Fetch, Load, Protocol, QUIC, Row, Target, Transfer, Work, at_least, at_most, between,
};

const DOWN: IperfDirection = IperfDirection::Download;
const UP: IperfDirection = IperfDirection::Upload;
const ALL: &[Carrier] = &[Carrier::Bond, Carrier::RoundRobin, Carrier::Single, Carrier::Mptcp];
const NO_TCP: &[Carrier] = &[Carrier::Bond, Carrier::RoundRobin, Carrier::Single];
const ALONE: &[Carrier] = &[Carrier::Bond, Carrier::Single];
const ALONE_MPTCP: &[Carrier] = &[Carrier::Bond, Carrier::Single, Carrier::Mptcp];
const BOND: &[Carrier] = &[Carrier::Bond];
const RECOVERY: &[Carrier] =
    &[Carrier::Bond, Carrier::NoRecovery, Carrier::RoundRobin, Carrier::Single, Carrier::Mptcp];
const RECOVERY_NO_TCP: &[Carrier] =
    &[Carrier::Bond, Carrier::NoRecovery, Carrier::RoundRobin, Carrier::Single];
const CALL: &[Carrier] = &[Carrier::Bond, Carrier::NoRecovery, Carrier::Single];
const OVERHEAD: &[Carrier] = &[Carrier::Bond, Carrier::NoRecovery];
const ORDER: &[Carrier] = &[Carrier::Bond, Carrier::Reversed];
const SPLIT: &[Carrier] = &[Carrier::Bond, Carrier::Packets, Carrier::Single, Carrier::Mptcp];
const SEALING: &[Carrier] = &[Carrier::Bond, Carrier::Plain];

const fn transfer(direction: IperfDirection, flows: u16, protocol: Protocol) -> Load {
    Load::Transfer(Transfer { direction, flows, protocol })
}

fn row(
    name: impl Into<String>,
    scenario: &'static str,
    load: Load,
    carriers: &'static [Carrier],
    targets: &[Target<&'static str>],
) -> Row {
    Row { name: name.into(), scenario, load, carriers, targets: targets.to_vec(), omit: None }
}

const fn share(percent: f64) -> Target<&'static str> {
    at_least("share_percent", percent)
}

const fn cubic(direction: IperfDirection, flows: u16) -> Transfer {
    Transfer { direction, flows, protocol: CUBIC }
}

/// The bond is at least as fast as the best link alone.
const BEST: Target<&str> = at_least("of_best_link", 1.0);

/// All rows, in the table's order.
pub(crate) fn all() -> Vec<Row> {
    [
        reference(),
        short(),
        steady(),
        lossy(),
        varying(),
        order(),
        outages(),
        calls(),
        radio(),
        carriers(),
        sweep(),
        turns(),
    ]
    .concat()
}

/// The reference links.
fn reference() -> Vec<Row> {
    let echo = [at_most("echo_p50_ms", 22.0), at_most("echo_p99_ms", 27.0)];
    let one = [share(95.0), BEST];
    let four = [share(97.0), BEST, echo[0], echo[1]];
    let idle = [at_most("idle_p50_ms", 20.5), at_most("others_percent", 5.0)];
    vec![
        row("reference-1-down", "reference", transfer(DOWN, 1, CUBIC), ALL, &one),
        row("reference-1-up", "reference", transfer(UP, 1, CUBIC), ALL, &one),
        row("reference-4-down", "reference", transfer(DOWN, 4, CUBIC), ALL, &four),
        row("reference-4-up", "reference", transfer(UP, 4, CUBIC), ALL, &four[..2]),
        row("reference-bbr-down", "reference", transfer(DOWN, 1, BBR), ALL, &one),
        row("reference-bbr-up", "reference", transfer(UP, 1, BBR), ALL, &one),
        row("reference-idle", "reference", Load::Idle, NO_TCP, &idle),
        row("reference-pages", "reference", Load::Pages, ALL, &[at_most("others_percent", 5.0)]),
    ]
}

/// Other links that do not change and lose only by their queues.
fn steady() -> Vec<Row> {
    vec![
        row("dual-1-down", "dual", transfer(DOWN, 1, CUBIC), ALL, &[share(97.0), BEST]),
        row("dual-1-up", "dual", transfer(UP, 1, CUBIC), ALL, &[share(97.0), BEST]),
        row("hetero-1-down", "hetero", transfer(DOWN, 1, CUBIC), ALL, &[share(95.0), BEST]),
        row("hetero-1-up", "hetero", transfer(UP, 1, CUBIC), ALL, &[share(95.0), BEST]),
        row("asymmetric-1-down", "asymmetric", transfer(DOWN, 1, CUBIC), ALL, &[share(95.0), BEST]),
        row("asymmetric-4-down", "asymmetric", transfer(DOWN, 4, CUBIC), ALL, &[share(95.0), BEST]),
        row("asymmetric-1-up", "asymmetric", transfer(UP, 1, CUBIC), ALL, &[share(95.0), BEST]),
    ]
}

/// Links that lose packets, and one link alone.
fn lossy() -> Vec<Row> {
    // Losses and their resends, at times over two links, take their share.
    let lossy = [share(85.0), BEST];
    let single = [share(97.0), at_most("echo_added_p99_ms", 8.0)];
    vec![
        row("lossy-1-down", "lossy", transfer(DOWN, 1, CUBIC), RECOVERY, &[share(93.0), BEST]),
        row("lossy-1-up", "lossy", transfer(UP, 1, CUBIC), RECOVERY, &[share(93.0), BEST]),
        row("lossy3-1-down", "lossy-3", transfer(DOWN, 1, CUBIC), RECOVERY, &lossy),
        row("lossy3-1-up", "lossy-3", transfer(UP, 1, CUBIC), RECOVERY, &lossy),
        row("bursts-1-down", "bursts", transfer(DOWN, 1, CUBIC), RECOVERY, &[share(90.0), BEST]),
        row("bursts-1-up", "bursts", transfer(UP, 1, CUBIC), RECOVERY, &[share(90.0), BEST]),
        row("single-1-down", "single", transfer(DOWN, 1, CUBIC), NO_TCP, &single),
        row("single-1-up", "single", transfer(UP, 1, CUBIC), NO_TCP, &single),
    ]
}

/// Links whose rate changes, by themselves or by a competitor.
fn varying() -> Vec<Row> {
    let varying = [share(85.0), at_most("echo_added_p95_ms", 60.0), at_most("link_queue_p95_ms", 60.0), BEST];
    let step = [at_most("settled_down_s", 1.0), at_most("settled_up_s", 3.0)];
    let fair = [between("competitor_percent", 25.0, 75.0)];
    vec![
        row("varying-4-down", "varying", transfer(DOWN, 4, CUBIC), ALL, &varying),
        row("varying-4-up", "varying", transfer(UP, 4, CUBIC), ALL, &varying),
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
        row("order-reference", "reference", transfer(DOWN, 1, CUBIC), ORDER, &difference),
        row("order-dual", "dual", transfer(DOWN, 1, CUBIC), ORDER, &difference),
        row("order-hetero", "hetero", transfer(DOWN, 1, CUBIC), ORDER, &difference),
        row("satphone-1-down", "satphone", transfer(DOWN, 1, CUBIC), ALL, &slow),
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
        row("recovery-clean", "reference", transfer(DOWN, 4, CUBIC), OVERHEAD, &clean),
        row("sealing-4-down", "reference", transfer(DOWN, 4, CUBIC), SEALING, &[at_least("of_plain", 0.97)]),
    ]
}

/// Short transfers over new connections: never slower than over the best link alone.
fn short() -> Vec<Row> {
    let protocols = [("bbr", BBR), ("quic", QUIC)];
    let one = |(megabytes, (name, protocol)): (u64, (&str, Protocol))| {
        let load = Load::Fetch(file(megabytes * 1_000, DOWN, protocol));
        row(format!("short-{megabytes}-{name}"), "reference", load, NO_TCP, &[BEST])
    };
    let others = [1, 10, 50].into_iter().flat_map(|size| protocols.map(|protocol| (size, protocol))).map(one);
    short_by_tcp().into_iter().chain(others).collect()
}

const fn file(kilobytes: u64, direction: IperfDirection, protocol: Protocol) -> Fetch {
    Fetch { work: Work::File(kilobytes * 1_000), direction, protocol }
}

/// A scenario, the end of its rows' names, and the seconds that are wanted at most for 100 kB, 1,
/// 10, 50 MB and a page.
const SHORT: [(&str, &str, [Option<f64>; 5]); 7] = [
    ("reference", "", [Some(0.17), Some(0.25), Some(0.55), Some(1.7), Some(0.45)]),
    ("dual", "-dual", [None, Some(0.19), Some(0.93), Some(4.3), None]),
    ("hetero", "-hetero", [None, None, Some(1.35), Some(6.1), None]),
    ("lossy", "-lossy", [None; 5]),
    ("lossy-3", "-lossy3", [None; 5]),
    ("satphone", "-satphone", [None; 5]),
    ("adsl-dish", "-dish", [None; 5]),
];

/// By the kernel's cubic. No slower than the best link alone by more than 5 %, nor than Multipath
/// TCP.
fn short_by_tcp() -> Vec<Row> {
    let targets = |wanted: Option<f64>| {
        let wanted = wanted.map(|seconds| at_most("time_s", seconds));
        wanted
            .into_iter()
            .chain([at_least("of_best_link", 0.952), at_least("of_mptcp", 1.0)])
            .collect::<Vec<_>>()
    };
    let mut rows = Vec::new();
    for (scenario, suffix, wanted) in SHORT {
        let works = [
            ("100k", file(100, DOWN, CUBIC)),
            ("1", file(1_000, DOWN, CUBIC)),
            ("10", file(10_000, DOWN, CUBIC)),
            ("50", file(50_000, DOWN, CUBIC)),
            ("page", Fetch { work: Work::Page, ..file(0, DOWN, CUBIC) }),
        ];
        for ((name, fetch), wanted) in works.into_iter().zip(wanted) {
            let name = format!("short-{name}-cubic{suffix}");
            rows.push(row(name, scenario, Load::Fetch(fetch), SPLIT, &targets(wanted)));
        }
        for (name, kilobytes) in [("1", 1_000), ("10", 10_000)] {
            let load = Load::Fetch(file(kilobytes, UP, CUBIC));
            rows.push(row(format!("short-{name}-up{suffix}"), scenario, load, SPLIT, &targets(None)));
        }
    }
    rows
}

/// Links as radio and carriers have them.
fn radio() -> Vec<Row> {
    let down = [share(92.0), BEST];
    let up = [share(90.0), BEST];
    let dies = [at_least("survivor_percent", 90.0), at_most("pause_ms", 150.0)];
    let starlink = [share(90.0), at_most("pause_ms", 200.0), BEST];
    let step = [at_most("settled_down_s", 1.0), at_most("settled_up_s", 3.0)];
    let four = Transfer { direction: DOWN, flows: 4, protocol: CUBIC };
    vec![
        row("vdsl-5g-1-down", "vdsl-5g", transfer(DOWN, 1, CUBIC), ALONE_MPTCP, &down),
        row("vdsl-5g-4-down", "vdsl-5g", transfer(DOWN, 4, CUBIC), ALONE_MPTCP, &down),
        row("vdsl-5g-1-up", "vdsl-5g", transfer(UP, 1, CUBIC), ALONE_MPTCP, &up),
        row("vdsl-5g-4-up", "vdsl-5g", transfer(UP, 4, CUBIC), ALONE_MPTCP, &up),
        row("vdsl-5g-quic-4-down", "vdsl-5g", transfer(DOWN, 4, QUIC), ALONE, &down),
        row("vdsl-5g-dies", "vdsl-5g-dies", Load::Outage(four), ALONE_MPTCP, &dies),
        row("jitter-correlated-1-down", "jitter-correlated", transfer(DOWN, 1, CUBIC), ALONE_MPTCP, &down),
        row("jitter-correlated-4-down", "jitter-correlated", transfer(DOWN, 4, CUBIC), ALONE_MPTCP, &down),
        row("grid-1-down", "grid", transfer(DOWN, 1, CUBIC), ALONE_MPTCP, &down),
        row("grid-4-down", "grid", transfer(DOWN, 4, CUBIC), ALONE_MPTCP, &down),
        row("grid-4-up", "grid", transfer(UP, 4, CUBIC), ALONE_MPTCP, &up),
        row("starlink-jitter", "starlink-jitter", Load::Outage(cubic(DOWN, 1)), ALONE_MPTCP, &starlink),
        row("step-jitter-down", "step-jitter", Load::Step(four), ALONE_MPTCP, &step),
    ]
}

/// Policers, recorded links, and a link far away.
fn carriers() -> Vec<Row> {
    let policed = [share(92.0), at_most("dropped_percent", 2.0), BEST];
    let each = Row {
        omit: Some(FLOWS_FOUND),
        ..row("policed-flow-down", "policed-flow", transfer(DOWN, 4, CUBIC), ALONE, &[share(85.0), BEST])
    };
    let recorded = [share(88.0), at_most("echo_added_p99_ms", 60.0), BEST];
    let lte = |scenario| {
        row(format!("{scenario}-4-down"), scenario, transfer(DOWN, 4, CUBIC), ALONE_MPTCP, &recorded)
    };
    vec![
        row("policed-1-down", "policed", transfer(DOWN, 1, CUBIC), ALONE_MPTCP, &policed),
        row("policed-4-down", "policed", transfer(DOWN, 4, CUBIC), ALONE_MPTCP, &policed),
        row("policed-4-up", "policed", transfer(UP, 4, CUBIC), ALONE_MPTCP, &policed),
        each,
        row("adsl-dish-4-down", "adsl-dish", transfer(DOWN, 4, CUBIC), ALONE_MPTCP, &[BEST]),
        lte("lte-verizon"),
        lte("lte-att"),
        lte("lte-pair"),
    ]
}

/// How long a link may take to find out that its carrier polices each flow.
const FLOWS_FOUND: Duration = Duration::from_secs(15);

/// Pairs of links for which mqvpn publishes what it carries.
struct Pair {
    scenario: &'static str,
    /// mqvpn's best of its schedulers, Mbit/s of a download of 20 MiB, as it publishes them: on its
    /// own machine, with BBR inside.
    mqvpn_mbps: f64,
    /// Whether a download of that size is long enough to fill both links.
    fills: bool,
}

const fn pair(scenario: &'static str, mqvpn_mbps: f64) -> Pair {
    Pair { scenario, mqvpn_mbps, fills: true }
}

/// A pair with a link of 320 ms: the download is over before that link's second round trip.
const fn far(scenario: &'static str, mqvpn_mbps: f64) -> Pair {
    Pair { scenario, mqvpn_mbps, fills: false }
}

const PAIRS: [Pair; 16] = [
    pair("sweep-01", 73.9),
    pair("sweep-02", 39.9),
    pair("sweep-03", 70.1),
    pair("sweep-04", 49.0),
    pair("sweep-05", 40.2),
    pair("sweep-06", 40.6),
    far("sweep-07", 40.1),
    pair("sweep-08", 61.4),
    pair("sweep-09", 37.6),
    pair("sweep-10", 70.7),
    pair("sweep-11", 29.0),
    pair("sweep-12", 29.6),
    pair("sweep-13", 27.2),
    pair("sweep-14", 212.0),
    far("sweep-15", 31.5),
    pair("sweep-16", 6.4),
];

/// Each pair: 20 MiB over new connections, and four flows for long.
fn sweep() -> Vec<Row> {
    const BYTES: u64 = 20 << 20;
    let rows = |pair: &Pair| {
        let Pair { scenario, mqvpn_mbps, fills } = *pair;
        let mut fetched = vec![at_least("goodput_mbps", mqvpn_mbps), BEST];
        if fills {
            fetched.push(share(85.0));
        }
        let long = [share(92.0), BEST];
        let fetch = |protocol| Load::Fetch(Fetch { work: Work::File(BYTES), direction: DOWN, protocol });
        let name = |kind: &str| format!("{scenario}-{kind}");
        [
            row(name("tcp"), scenario, fetch(CUBIC), ALONE_MPTCP, &fetched),
            row(name("quic"), scenario, fetch(QUIC), ALONE, &fetched),
            row(name("4-tcp"), scenario, transfer(DOWN, 4, CUBIC), ALONE_MPTCP, &long),
            row(name("4-quic"), scenario, transfer(DOWN, 4, QUIC), ALONE, &long),
        ]
    };
    PAIRS.iter().flat_map(rows).collect()
}

/// Rates that were right once: a load that changes its direction, a link that becomes slow.
fn turns() -> Vec<Row> {
    let turns = [at_least("turns_down_percent", 92.0), at_least("turns_up_percent", 92.0)];
    vec![
        row("turns-plain", "reference", Load::Turns, &[Carrier::Plain], &turns),
        row("turns-sealed", "reference", Load::Turns, BOND, &turns),
        row(
            "gigabit-then-30",
            crate::limited::SCENARIO,
            Load::Limited,
            BOND,
            &[at_least("kept_percent", 95.0)],
        ),
    ]
}
