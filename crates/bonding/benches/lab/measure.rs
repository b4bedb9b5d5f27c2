//! One run of a row with one carrier, on hosts of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bonding_lab::tools::{Echo, EchoServer, Iperf3, Iperf3Server, IperfDirection, Record};
use bonding_lab::{Change, Direction, Host, Lab, LabOptions, Scenario, addr};
use bonding_netem::Rate;
use bonding_testkit::probe::{cpu_time, peak_rss_bytes};

use crate::alone::{self, Candidate};
use crate::carrier::{COMPETITOR_PORT, Running, Shares};
use crate::extra::Sent;
use crate::flows::Flows;
use crate::rows::{Carrier, Load, Timing, Transfer};
use crate::trace::Trace;
use crate::{fetch, light, limited, turns};

/// Figures by name; a figure that could not be measured is missing.
pub(crate) type Figures = BTreeMap<String, f64>;

/// Packets of a game or a call.
const ECHOES_PER_SECOND: u32 = 50;
/// The same of a call: twice as many, to see losses of one in a thousand.
const CALL_PER_SECOND: u32 = 100;
/// The echo runs alone for so long, for its time without load.
const ALONE: Duration = Duration::from_millis(1_500);
/// An answer that takes longer counts as lost.
const LAST_ANSWERS: Duration = Duration::from_millis(1_200);
/// The competitor joins the load after this.
const COMPETITOR_AFTER: Duration = Duration::from_secs(2);
/// The competitor's start, which is not measured.
const COMPETITOR_OMIT: Duration = Duration::from_secs(3);
/// The arrivals are compared with what the other links carry from so long after the outage on.
const SETTLING: Duration = Duration::from_secs(1);
/// BBR uses the round-trip time of its handshake for so long.
const BBR_FIRST: Duration = Duration::from_secs(10);
/// Bytes between two samples above which the transfer runs: a full packet of TCP has more, the echo
/// less.
const TRANSFER_LEAST: u64 = 1_000;
/// Downloads and as many uploads by turns.
const TURNS: u32 = 20;
/// The same in a short measurement.
const QUICK_TURNS: u32 = 4;
/// The share of payload in a full packet of the kernel's TCP.
const KERNEL_SHARE: f64 = 1_448.0 / 1_500.0;

/// A run: a row's scenario and load, with one carrier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) load: Load,
    pub(crate) carrier: Carrier,
    pub(crate) timing: Timing,
    /// Configure the links' rates.
    pub(crate) ceilings: bool,
    /// The seed of the emulator, which decides the lost packets.
    pub(crate) seed: u64,
    /// A short measurement.
    pub(crate) quick: bool,
    /// Write the links' figures to this file, for a plot.
    pub(crate) trace: Option<&'a Path>,
}

impl Plan<'_> {
    /// Runs the load and measures it.
    pub(crate) fn run(&self) -> anyhow::Result<Figures> {
        let mut scenario = self.scenario.clone();
        if self.carrier == Carrier::Reversed {
            scenario.links.reverse();
        }
        let alone = if self.carrier == Carrier::Single {
            alone::candidates(&scenario, self.load, self.timing)
        } else {
            vec![Candidate { index: 0, alike: 1 }]
        };
        let goodput = |figures: &Figures| figures.get("goodput_mbps").copied().unwrap_or(0.0);
        let (mut best, mut sum) = (Figures::new(), 0.0);
        let of_all = alone.iter().map(|one| one.alike).sum::<usize>() == scenario.links.len();
        for Candidate { index, alike } in alone {
            let figures = self.run_over(&scenario, index)?;
            sum += goodput(&figures) * alike as f64;
            if best.is_empty() || goodput(&figures) > goodput(&best) {
                best = figures;
            }
        }
        if self.carrier == Carrier::Single && of_all {
            best.insert("sum_mbps".to_owned(), sum);
        }
        Ok(best)
    }

    /// Runs the load on hosts of its own; a carrier of one link uses `link`.
    fn run_over(&self, scenario: &Scenario, link: usize) -> anyhow::Result<Figures> {
        let lab = if matches!(self.load, Load::Limited) {
            Lab::start_switched(1)?
        } else {
            Lab::start(scenario, LabOptions { seed: self.seed, ..LabOptions::default() })?
        };
        let running = Running::start(&lab, self.carrier, self.ceilings, link)?;
        let figures = match self.load {
            Load::Transfer(transfer)
            | Load::Step(transfer)
            | Load::Competing(transfer)
            | Load::Outage(transfer) => self.transfer(&running, transfer),
            Load::Echo => self.echo(&running),
            Load::Call => self.call(&running),
            Load::Idle => light::idle(&running),
            Load::Pages => light::light_pages(&running),
            Load::Fetch(load) => fetch::measure(&running, load),
            Load::Turns => turns::measure(&running, if self.quick { QUICK_TURNS } else { TURNS }),
            Load::Limited => limited::measure(&running),
        };
        if let Some(bond) = &running.bond {
            bond.alive()?;
        }
        let figures = figures?;
        running.stop()?;
        Ok(figures)
    }

    fn transfer(&self, running: &Running<'_>, transfer: Transfer) -> anyhow::Result<Figures> {
        let lab = running.lab;
        let flows = Flows::start(running, transfer.protocol)?;
        let echo = EchoPair::start(running, ECHOES_PER_SECOND)?;
        if echo.is_some() {
            std::thread::sleep(ALONE);
        }
        std::thread::sleep(self.timing.start.saturating_sub(lab.elapsed()));
        let cpu = Processor::start(running)?;
        let sent = Sent::so_far(running)?;
        let (host, devices) = running.receiving(transfer.direction);
        let stop = AtomicBool::new(false);
        lab.start_clock();
        let start = lab.elapsed();
        let echo_start = echo.as_ref().map(|echo| echo.echo.elapsed());
        let (goodput_bps, competitor, record, trace) = std::thread::scope(|scope| {
            let watching = scope.spawn(|| Record::watch(lab, lab.host(host), &devices, &stop));
            let tracing = scope.spawn(|| self.trace.map(|_| Trace::record(running, transfer.way(), &stop)));
            let competitor = scope.spawn(|| self.competitor(lab, transfer.direction));
            let goodput_bps = flows.run(running, transfer, self.timing);
            let competitor = competitor.join();
            stop.store(true, Ordering::Relaxed);
            (goodput_bps, competitor, watching.join(), tracing.join())
        });
        let panicked = |_| anyhow::anyhow!("a watching thread panicked");
        let (record, trace) = (record.map_err(panicked)??, trace.map_err(panicked)?);
        let goodput_bps = goodput_bps?;
        if let (Some(file), Some(trace)) = (self.trace, trace) {
            std::fs::write(file, trace?.to_csv())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let window = (start + self.timing.omit, start + self.timing.omit + self.timing.measured);
        let seen = Seen { running, transfer, direction: transfer.way(), record: &record, start, window };
        let mut figures = seen.figures(goodput_bps)?;
        if transfer.is_bbr() {
            seen.first(&mut figures)?;
        }
        if let Some(competitor) = competitor.map_err(panicked)?? {
            figures.insert("competitor_percent".to_owned(), competitor);
        }
        if matches!(self.load, Load::Step(_)) {
            seen.steps(&mut figures);
        }
        if matches!(self.load, Load::Outage(_)) {
            seen.outages(&mut figures)?;
        }
        if let (Some(echo), Some(echo_start)) = (echo, echo_start) {
            echo.figures(echo_start, self.timing, &mut figures);
        }
        cpu.figures(running, &mut figures)?;
        Sent::put_extra(running, sent, &mut figures)?;
        Ok(figures)
    }

    /// An echo alone, from before the scenario's first event to its end.
    fn echo(&self, running: &Running<'_>) -> anyhow::Result<Figures> {
        let echo = EchoPair::start(running, ECHOES_PER_SECOND)?.context("no way for an echo")?;
        std::thread::sleep(ALONE);
        running.lab.start_clock();
        let start = echo.echo.elapsed();
        std::thread::sleep(self.scenario.duration);
        let mut figures = Figures::new();
        let timing = Timing { start: Duration::ZERO, omit: Duration::ZERO, measured: self.scenario.duration };
        echo.figures(start, timing, &mut figures);
        Ok(figures)
    }

    /// An echo of the realtime class: the packets lost each way, and the packets sent to repair
    /// losses.
    fn call(&self, running: &Running<'_>) -> anyhow::Result<Figures> {
        let echo = EchoPair::start(running, CALL_PER_SECOND)?.context("no way for an echo")?;
        std::thread::sleep(self.timing.omit);
        let (start, before) = (echo.echo.elapsed(), Sent::so_far(running)?);
        let measured = self.timing.measured;
        std::thread::sleep(measured);
        let mut figures = Figures::new();
        Sent::put_extra(running, before, &mut figures)?;
        // Packets in flight may still be answered.
        std::thread::sleep(LAST_ANSWERS);
        let timing = Timing { start: Duration::ZERO, omit: Duration::ZERO, measured };
        echo.figures(start, timing, &mut figures);
        let answered = 1.0 - figures.get("echo_lost_permille").copied().unwrap_or(1e3) / 1e3;
        figures.insert("lost_percent".to_owned(), (1.0 - answered.sqrt()) * 1e2);
        Ok(figures)
    }

    /// Runs the competitor, a flow outside the bond over the first link; gives its share of that
    /// link in percent.
    fn competitor(&self, lab: &Lab, direction: IperfDirection) -> anyhow::Result<Option<f64>> {
        if !matches!(self.load, Load::Competing(_)) {
            return Ok(None);
        }
        let _server = Iperf3Server::start(lab, lab.host(Host::Server), COMPETITOR_PORT)?;
        std::thread::sleep(COMPETITOR_AFTER);
        let link = lab.scenario().links.first().context("no link")?;
        let mut iperf3 = Iperf3::new(addr::SERVER_V4.into(), direction);
        iperf3.port = COMPETITOR_PORT;
        iperf3.congestion = Some("cubic".to_owned());
        iperf3.device = Some(link.name.clone());
        iperf3.omit = COMPETITOR_OMIT;
        // The competitor ends with the load.
        let whole = self.timing.omit + self.timing.measured;
        iperf3.duration =
            whole.saturating_sub(COMPETITOR_AFTER + COMPETITOR_OMIT).max(Duration::from_secs(2));
        let way = if direction == IperfDirection::Download { Direction::Down } else { Direction::Up };
        let rate = link.pipe(way).rate.mean_bps().context("an unlimited link")?;
        let report = iperf3.run(lab, lab.host(Host::Client))?;
        Ok(Some(report.goodput_bps * 1e2 / (rate as f64 * KERNEL_SHARE)))
    }
}

/// A finished transfer.
struct Seen<'a> {
    running: &'a Running<'a>,
    transfer: Transfer,
    direction: Direction,
    record: &'a Record,
    start: Duration,
    /// The figures.
    window: (Duration, Duration),
}

impl Seen<'_> {
    fn figures(&self, goodput_bps: f64) -> anyhow::Result<Figures> {
        let (lab, direction, (from, to)) = (self.running.lab, self.direction, self.window);
        let mut figures = Figures::new();
        let mut put = |name: &str, value: f64| figures.insert(name.to_owned(), value);
        let rate = lab.capacity_bps(direction, from, to).context("an unlimited link")? as f64;
        let Shares { link: share, device } = self.running.shares(self.transfer.protocol)?;
        put("goodput_mbps", goodput_bps / 1e6);
        put("attainable_mbps", rate * share / 1e6);
        put("share_percent", goodput_bps * 1e2 / (rate * share));
        let links = lab.scenario().links.len();
        let rates: Vec<f64> = (0..links)
            .filter_map(|index| lab.link_capacity_bps(index, direction, from, to))
            .map(|bps| bps as f64)
            .collect();
        let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
        if links > 1 {
            put("of_others_percent", goodput_bps * 1e2 / ((rate - slowest) * share));
        }
        let wanted = |from: Duration, to: Duration| {
            let rate = lab.capacity_bps(direction, from, to).unwrap_or(u64::MAX) as f64;
            let bytes = rate / 8.0 * (to - from).as_secs_f64() * share;
            // Packets on the device have headers of their own.
            0.95 * bytes / device
        };
        if let Some(after) = self.record.first_reached(self.start, wanted) {
            put("first95_s", after.as_secs_f64());
        }
        put("pause_ms", millis(self.record.longest_pause(from, to, TRANSFER_LEAST)));
        let queues =
            (0..links).filter_map(|index| self.record.queue_percentile(index, direction, from, to, 950));
        if let Some(worst) = queues.max() {
            put("link_queue_p95_ms", millis(worst));
        }
        let (mut offered, mut dropped) = (0, 0);
        for (index, (link, rate)) in lab.scenario().links.iter().zip(rates).enumerate() {
            if let Some(bytes) = self.record.link_bytes(index, direction, from, to) {
                offered += bytes.offered_pkts;
                dropped += bytes.dropped_pkts;
                put(&format!("use_{}_percent", link.name), bytes.delivered_bps() * 1e2 / rate);
            }
        }
        put("dropped_percent", dropped as f64 * 1e2 / offered.max(1) as f64);
        let stats = lab.driver_stats();
        put("emulator_late", stats.late_wakeups as f64);
        put("emulator_cpu", stats.cpu.as_secs_f64() / lab.elapsed().as_secs_f64());
        Ok(figures)
    }

    /// The share of the attainable rate that a BBR flow had in its first ten seconds.
    fn first(&self, figures: &mut Figures) -> anyhow::Result<()> {
        let (lab, from, to) = (self.running.lab, self.start, self.start + BBR_FIRST);
        let rate = lab.capacity_bps(self.direction, from, to).context("an unlimited link")? as f64;
        let Shares { link, device } = self.running.shares(self.transfer.protocol)?;
        if let Some(bps) = self.record.received_bps(from, to) {
            // Packets on the device have headers of their own.
            figures.insert("first_percent".to_owned(), bps * device * 1e2 / (rate * link));
        }
        Ok(())
    }

    /// The arrivals during an outage, in relation to what the links without an outage carry; and
    /// the time until all links were used again.
    fn outages(&self, figures: &mut Figures) -> anyhow::Result<()> {
        let (lab, (_, end)) = (self.running.lab, self.window);
        let scenario = lab.scenario();
        let goes_out = |name: &str, begins: bool| {
            let mut times = scenario.events_of(name, self.direction).filter_map(move |event| {
                matches!(event.change, Change::Outage(out) if out == begins).then_some(event.at)
            });
            (times.next(), times.last())
        };
        let names = || scenario.links.iter().map(|link| link.name.as_str());
        let first = names().filter_map(|name| goes_out(name, true).0).min();
        let last = names().filter_map(|name| {
            let (first, last) = goes_out(name, false);
            last.or(first)
        });
        let Some(first) = first else { return Ok(()) };
        let last = last.max().unwrap_or(end.saturating_sub(self.start));
        let (first, last) = (self.start + first, self.start + last);
        let Shares { link: share, device } = self.running.shares(self.transfer.protocol)?;
        // Packets on the device have headers of their own.
        let share = share / device;
        let survivors = |from: Duration, to: Duration| {
            let stays = |(_, name): &(usize, &str)| goes_out(name, true).0.is_none();
            let stay = names().enumerate().filter(stays);
            stay.filter_map(|(index, _)| lab.link_capacity_bps(index, self.direction, from, to))
                .fold(0.0, |sum, bps| sum + bps as f64)
        };
        let enough =
            |bps: f64, from: Duration, to: Duration| 0.95 * bps / 8.0 * (to - from).as_secs_f64() * share;
        let settled = first + SETTLING;
        if let Some(bps) = self.record.received_bps(settled, last) {
            figures.insert("survivor_percent".to_owned(), bps * 1e2 / (survivors(settled, last) * share));
        }
        let wanted = |from, to| enough(survivors(from, to), from, to);
        if let Some(after) = self.record.first_reached(first, wanted) {
            // The half second that is averaged is not counted.
            let after = after.saturating_sub(Record::REACHED_SPAN);
            figures.insert("survivor_s".to_owned(), after.as_secs_f64());
        }
        let all = |from, to| lab.capacity_bps(self.direction, from, to).unwrap_or(u64::MAX) as f64;
        let wanted = |from, to| enough(all(from, to), from, to);
        // Never: count more than the time that was left.
        let after = self.record.first_reached(last, wanted).unwrap_or(end.saturating_sub(last));
        figures.insert("returned_s".to_owned(), after.saturating_sub(Record::REACHED_SPAN).as_secs_f64());
        Ok(())
    }

    /// The time until the first link's changes of rate showed in the goodput.
    fn steps(&self, figures: &mut Figures) {
        let scenario = self.running.lab.scenario();
        let Some(link) = scenario.links.first() else { return };
        if self.running.device().is_some_and(|device| device != link.name) {
            return;
        }
        let events: Vec<(Duration, f64)> = scenario
            .events_of(&link.name, self.direction)
            .filter_map(|event| {
                let Change::Rate(Rate::Constant { bps }) = event.change else { return None };
                Some((self.start + event.at, bps as f64))
            })
            .collect();
        let mut before = link.pipe(self.direction).rate.mean_bps().unwrap_or(0) as f64;
        for (number, (at, bps)) in events.iter().enumerate() {
            let end = events.get(number + 1).map_or(self.window.1, |(next, _)| *next);
            let name = if *bps < before { "settled_down_s" } else { "settled_up_s" };
            before = *bps;
            // Never: count more than the time that was left.
            let after = self.record.settled(0, self.direction, *at, end, *bps);
            figures.insert(name.to_owned(), after.unwrap_or(end - *at).as_secs_f64());
        }
    }
}

/// An echo over the carrier beside its load.
struct EchoPair {
    echo: Echo,
    _server: EchoServer,
}

impl EchoPair {
    fn start(running: &Running<'_>, per_second: u32) -> anyhow::Result<Option<Self>> {
        let Some(address) = running.echo_address() else { return Ok(None) };
        let server = EchoServer::start(running.lab.host(Host::Server), address)?;
        let client = running.lab.host(Host::Client);
        let echo = Echo::start(client, address, per_second, running.device())?;
        Ok(Some(Self { echo, _server: server }))
    }

    /// `start`: when the load began.
    fn figures(self, start: Duration, timing: Timing, figures: &mut Figures) {
        let report = self.echo.report();
        let base = report.between(Duration::from_millis(200), start).percentile(500);
        let load = report.between(start + timing.omit, start + timing.omit + timing.measured);
        let mut put = |name: &str, value: Option<Duration>| {
            value.and_then(|value| figures.insert(name.to_owned(), millis(value)));
        };
        put("echo_base_ms", base);
        for (permille, name) in [(500, "p50"), (950, "p95"), (990, "p99")] {
            let rtt = load.percentile(permille);
            put(&format!("echo_{name}_ms"), rtt);
            let added = rtt.zip(base).map(|(rtt, base)| rtt.saturating_sub(base));
            put(&format!("echo_added_{name}_ms"), added);
        }
        figures.insert("echo_silence_ms".to_owned(), millis(load.longest_silence()));
        figures.insert("echo_lost_permille".to_owned(), load.loss_ratio() * 1e3);
    }
}

/// Memory and processor time of the bond's processes.
struct Processor {
    start: Instant,
    before: Option<(Duration, Duration)>,
}

impl Processor {
    fn start(running: &Running<'_>) -> anyhow::Result<Self> {
        Ok(Self { start: Instant::now(), before: Self::used(running)? })
    }

    fn used(running: &Running<'_>) -> anyhow::Result<Option<(Duration, Duration)>> {
        let Some(bond) = &running.bond else { return Ok(None) };
        let of = |host| cpu_time(bond.process(host)?.id());
        Ok(Some((of(Host::Client)?, of(Host::Server)?)))
    }

    fn figures(&self, running: &Running<'_>, figures: &mut Figures) -> anyhow::Result<()> {
        let wall = self.start.elapsed().as_secs_f64();
        if let (Some(before), Some(after), Some(bond)) = (self.before, Self::used(running)?, &running.bond) {
            let mut put = |name: &str, value: f64| figures.insert(name.to_owned(), value);
            put("client_cpu", after.0.saturating_sub(before.0).as_secs_f64() / wall);
            put("server_cpu", after.1.saturating_sub(before.1).as_secs_f64() / wall);
            let rss = |host| peak_rss_bytes(bond.process(host)?.id());
            let bytes = rss(Host::Client)?.max(rss(Host::Server)?);
            put("rss_mib", bytes as f64 / f64::from(1 << 20));
        }
        Ok(())
    }
}

pub(crate) fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
