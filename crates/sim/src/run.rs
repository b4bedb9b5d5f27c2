//! One run: a scenario, a system and a workload, and the result.
//!
//! Every run has a sparse flow (50 packets a second, echoed) beside its load and is sampled every
//! 100 ms. The oracles watch it; their objections are in [`Row::problems`].

use std::fmt::Write as _;
use std::time::Duration;

use bonding_netem::{Direction, Scenario};
use bonding_proto::config::Policy;
use bonding_proto::stats::SessionStats;
use bonding_proto::{Discard, Instant, LinkId};

use crate::bare::Bare;
use crate::bond::Setup;
use crate::competitor::Competitor;
use crate::host::Report;
use crate::host::bulk::{BulkConfig, End};
use crate::host::echo::{EchoClient, EchoServer};
use crate::host::quic::{QuicApp, QuicControl};
use crate::host::stream::StreamApp;
use crate::host::tcp::{CongestionControl, TcpApp};
use crate::outer::{client_path, server_path};
use crate::trace::{Sample, Trace};
use crate::world::{Observed, Stalls, World};

/// A flow found to be realtime changes its slot, and perhaps to a faster link: its packets may then
/// overtake each other.
const CLASS_CHANGES: u64 = 1;

/// How often a run is sampled.
pub const SAMPLE: Duration = Duration::from_millis(100);
/// Time between two packets of the sparse flow.
const ECHO_INTERVAL: Duration = Duration::from_millis(20);
/// When a competitor joins, and how long it is not measured.
const COMPETITOR_AFTER: Duration = Duration::from_secs(2);
const COMPETITOR_OMIT: Duration = Duration::from_secs(3);
/// The most bytes that a session may queue ahead of its links: 8 MB, and one packet more.
const QUEUE_BYTES_MAX: usize = 8_000_000 + 65_536;
/// The most bytes that a session may hold for resequencing.
const HELD_BYTES_MAX: usize = 16 << 20;
/// When the load starts: the bond has had time to connect over most links.
const LOAD_AFTER: Duration = Duration::from_millis(500);
/// Payload whose arrival is timed.
const TRANSFERS_BYTES: [u64; 5] = [100_000, 300_000, 1_000_000, 10_000_000, 50_000_000];
/// Steps of that time.
const TRANSFERS_STEP: Duration = Duration::from_millis(5);
/// Bytes of IPv4 and TCP header without options.
const TCP_HEADERS: u16 = 40;
/// Bytes of IPv4, UDP, QUIC short header, packet number, tag and stream frame header.
const QUIC_HEADERS: u16 = 65;
/// Bytes of a full packet on a link: Ethernet's MTU, which both MTUs of the bond fill.
const OUTER_MTU: u16 = 1_500;

/// The system that carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// No bond: the best single link.
    Single,
    /// The bond.
    Bond(Policy),
}

impl System {
    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Single => "best link alone",
            Self::Bond(Policy::Adaptive) => "adaptive",
            Self::Bond(Policy::Score) => "score",
            Self::Bond(Policy::Redundant) => "redundant",
            Self::Bond(Policy::RoundRobin) => "round_robin",
        }
    }

    /// All systems, the baseline first.
    pub const ALL: [Self; 4] = [
        Self::Single,
        Self::Bond(Policy::RoundRobin),
        Self::Bond(Policy::Score),
        Self::Bond(Policy::Adaptive),
    ];
}

/// The inner transport of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// smoltcp.
    Tcp(CongestionControl),
    /// quinn-proto.
    Quic(QuicControl),
    /// The bond's own streams.
    Streams,
}

/// A bulk transfer beside the sparse flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// The inner transport.
    pub transport: Transport,
    /// The payload's direction.
    pub direction: Direction,
    /// The number of connections.
    pub flows: u16,
}

impl Workload {
    /// The name in tables and on the command line.
    pub fn name(self) -> String {
        if self.flows == 0 {
            return Self::CALL.to_owned();
        }
        let transport = match self.transport {
            Transport::Tcp(CongestionControl::Cubic) => "tcp-cubic",
            Transport::Tcp(CongestionControl::Reno) => "tcp-reno",
            Transport::Tcp(CongestionControl::None) => "tcp-none",
            Transport::Quic(QuicControl::Cubic) => "quic-cubic",
            Transport::Quic(QuicControl::Bbr) => "quic-bbr",
            Transport::Streams => "stream-bond",
        };
        let direction = match self.direction {
            Direction::Up => "up",
            Direction::Down => "down",
        };
        format!("{transport}-{direction}-{}", self.flows)
    }

    /// No load: the sparse flow alone, which is a call.
    const CALL: &str = "realtime";

    /// The workload with this name.
    pub fn parse(name: &str) -> Option<Self> {
        if name == Self::CALL {
            let transport = Transport::Tcp(CongestionControl::Cubic);
            return Some(Self { transport, direction: Direction::Down, flows: 0 });
        }
        let mut parts = name.rsplitn(3, '-');
        let flows = parts.next()?.parse().ok().filter(|flows| (1..=64).contains(flows))?;
        let direction = match parts.next()? {
            "up" => Direction::Up,
            "down" => Direction::Down,
            _ => return None,
        };
        let transport = match parts.next()? {
            "tcp-cubic" => Transport::Tcp(CongestionControl::Cubic),
            "tcp-reno" => Transport::Tcp(CongestionControl::Reno),
            "quic-cubic" => Transport::Quic(QuicControl::Cubic),
            "quic-bbr" => Transport::Quic(QuicControl::Bbr),
            "stream-bond" => Transport::Streams,
            _ => return None,
        };
        Some(Self { transport, direction, flows })
    }

    /// The share of a full outer packet that is payload, for inner packets of at most `mtu` bytes.
    pub fn payload_share(self, mtu: u16) -> f64 {
        let headers = match self.transport {
            Transport::Tcp(_) => TCP_HEADERS,
            Transport::Quic(_) => QUIC_HEADERS,
            Transport::Streams => 0,
        };
        f64::from(mtu - headers) / f64::from(OUTER_MTU)
    }

    fn apps<C: Observed, S: Observed>(self, world: &mut World<C, S>, mtu: u16, start: Instant, seed: u64) {
        let sends = |end| (end == End::Listener) == (self.direction == Direction::Down);
        let config = |end| BulkConfig { end, sends: sends(end), flows: self.flows, mtu, seed };
        let (client, server) = (config(End::Connector), config(End::Listener));
        match self.transport {
            Transport::Tcp(control) => {
                world.client.host.add(Box::new(TcpApp::new(client, control, start)));
                world.server.host.add(Box::new(TcpApp::new(server, control, start)));
            }
            Transport::Quic(control) => {
                world.client.host.add(Box::new(QuicApp::new(client, control, start)));
                world.server.host.add(Box::new(QuicApp::new(server, control, start)));
            }
            Transport::Streams => {
                world.client.host.add(Box::new(StreamApp::new(client, start)));
                world.server.host.add(Box::new(StreamApp::new(server, start)));
            }
        }
    }
}

/// A load starts `after` the run's start. Each seed starts it a little later, so
/// that results that depend on one packet's luck differ from seed to seed, even where links draw no
/// random numbers.
fn load_start(after: Duration, seed: u64) -> Instant {
    Instant::ZERO + after + Duration::from_micros(seed.saturating_sub(1) % 64 * 1_300)
}

/// Places of the applications on their hosts, in the order in which they are added.
const LOAD: usize = 0;
const ECHO: usize = 1;

/// The description of a run.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// Links, their priorities and events.
    pub setup: Setup,
    /// The system; overrides the set-up's policy.
    pub system: System,
    /// The load.
    pub workload: Workload,
    /// The start of the load.
    pub start: Duration,
    /// The start of the measurement.
    pub warmup: Duration,
    /// End of the run.
    pub duration: Duration,
    /// A competitor joins on the first link, in the load's direction, two seconds after the run's
    /// start.
    pub has_competitor: bool,
    /// The times at which both sides stand still.
    pub stalls: Option<Stalls>,
}

impl RunSpec {
    /// A whole run of a scenario; the measurement starts at 3 s.
    pub fn new(scenario: Scenario, system: System, workload: Workload, seed: u64) -> Self {
        let policy = match system {
            System::Bond(policy) => policy,
            System::Single => Policy::default(),
        };
        let duration = scenario.duration;
        let mut setup = Setup::new(scenario, policy, seed).sealed();
        setup.takes_streams = workload.transport == Transport::Streams;
        Self {
            setup,
            system,
            workload,
            start: LOAD_AFTER,
            warmup: Duration::from_secs(3),
            duration,
            has_competitor: false,
            stalls: None,
        }
    }

    /// The fastest link in the load's direction and span, losses considered; of equals, the link
    /// with the lower RTT.
    pub fn best_link(&self) -> usize {
        let scenario = &self.setup.scenario;
        let value = |index: &usize| {
            let link = scenario.links.get(*index)?;
            let direction = self.workload.direction;
            let bytes = scenario.capacity_bytes(link, direction, self.warmup, self.duration)?;
            let lossless = u64::from(matches!(link.pipe(direction).loss, bonding_netem::Loss::None));
            Some((bytes * (8 + lossless) / 9, std::cmp::Reverse(link.rtt())))
        };
        (0..scenario.links.len()).rev().max_by_key(value).unwrap_or(0)
    }
}

/// The result of a run.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Goodput in Mbit/s: payload bits per second, in millions.
    pub goodput_mbps: f64,
    /// Goodput as a share of the payload that all links together could carry.
    pub share: f64,
    /// Median round-trip time of the sparse flow during the load.
    pub echo_p50: Option<Duration>,
    /// The 99th percentile of that time.
    pub echo_p99: Option<Duration>,
    /// Loss of the sparse flow's packets sent during the load.
    pub echo_lost: u64,
    /// The sparse flow's packets from the warm-up until a second before the end: sent, and lost.
    pub echo_settled: (u64, u64),
    /// Repair symbols sent by client and server, and packets restored from them.
    pub fec_sent: [u64; 2],
    /// As above.
    pub fec_recovered: [u64; 2],
    /// The most packets that the receiving side held for resequencing.
    pub reorder_max: usize,
    /// Gaps that the receiving side gave up by time.
    pub reorder_timeouts: u64,
    /// Packets that it delivered behind a gap given up too early.
    pub late: u64,
    /// Packets that the sending side's queue dropped.
    pub queue_drops: u64,
    /// How long the first 0.1, 0.3, 1, 10 and 50 MB of payload took, as far as they arrived.
    pub transfers: Vec<Duration>,
    /// Segments that the inner transport sent again.
    pub retransmits: u64,
    /// Bytes that each link delivered in the load's direction, by link name, over the whole run.
    pub link_bytes: Vec<(String, u64)>,
    /// The competitor's share of the first link's rate, from three seconds after it joined.
    pub competitor_share: Option<f64>,
    /// Hash over every datagram.
    pub trace_hash: u64,
    /// The oracles' objections; any objection proves a bug.
    pub problems: Vec<String>,
}

impl Row {
    /// Runs the world to the next sample, and times the payload that arrives.
    fn run_to<C: Observed, S: Observed>(&mut self, world: &mut World<C, S>, spec: &RunSpec, start: Instant) {
        let until = world.now() + SAMPLE;
        while world.now() < until {
            world.run_for(TRANSFERS_STEP);
            let received_bytes = receiver(world, spec).received_bytes;
            while TRANSFERS_BYTES.get(self.transfers.len()).is_some_and(|bytes| *bytes <= received_bytes) {
                self.transfers.push(world.now().saturating_since(start));
            }
        }
    }
}

/// Makes a run; `trace` gets a sample every 100 ms.
pub fn run(spec: &RunSpec, trace: Option<&mut Trace>) -> Row {
    match spec.system {
        System::Single => {
            let link = spec.best_link();
            let id = LinkId(u8::try_from(link).unwrap_or(u8::MAX));
            let (client, server) = (Bare::new(id, client_path(link)), Bare::new(id, server_path(link)));
            drive(World::new(client, server, &spec.setup.scenario, spec.setup.seed), spec, trace)
        }
        System::Bond(_) => drive(spec.setup.world(), spec, trace),
    }
}

fn drive<C: Observed, S: Observed>(
    mut world: World<C, S>,
    spec: &RunSpec,
    mut trace: Option<&mut Trace>,
) -> Row {
    let seed = spec.setup.seed;
    let end = Instant::ZERO + spec.duration;
    let start = load_start(spec.start, seed);
    spec.workload.apps(&mut world, spec.setup.mtu(), start, seed);
    world.client.host.add(Box::new(EchoClient::new(ECHO_INTERVAL, start, end, seed)));
    world.server.host.add(Box::new(EchoServer::new()));
    if let Some(trace) = trace.as_deref_mut() {
        trace.begin(&mut world);
    }
    world.set_stalls(spec.stalls);
    let direction = spec.workload.direction;
    if let Some(link) = spec.setup.scenario.links.first().filter(|_| spec.has_competitor) {
        world.set_competitor(0, direction, Competitor::new(link.rtt(), Instant::ZERO + COMPETITOR_AFTER));
    }
    let mut row = Row::default();
    let mut before_warmup = 0;
    let mut before_competitor = 0;
    while world.now() < end {
        row.run_to(&mut world, spec, start);
        let now = world.now();
        if now <= Instant::ZERO + spec.warmup {
            before_warmup = receiver(&world, spec).received_bytes;
        }
        if now <= Instant::ZERO + COMPETITOR_AFTER + COMPETITOR_OMIT {
            before_competitor = world.competitor().map_or(0, Competitor::delivered_bytes);
        }
        let stats = [world.client.machine.session_stats(now), world.server.machine.session_stats(now)];
        check_bounds(&stats, now, &mut row.problems);
        if let Some(trace) = trace.as_deref_mut() {
            let received_bytes = receiver(&world, spec).received_bytes;
            let echo = world.client.host.report(ECHO);
            let sample = Sample { direction: spec.workload.direction, stats, received_bytes, echo };
            trace.take(&mut world, &sample);
        }
    }
    if let Some(trace) = trace {
        trace.end(&mut world, spec.workload.direction);
    }
    finish(&mut world, spec, before_warmup, &mut row);
    if let (Some(link), Some(competitor)) = (spec.setup.scenario.links.first(), world.competitor()) {
        let from = COMPETITOR_AFTER + COMPETITOR_OMIT;
        let carries = spec.setup.scenario.capacity_bytes(link, direction, from, spec.duration);
        let carried = competitor.delivered_bytes() - before_competitor;
        row.competitor_share = carries.map(|carries| carried as f64 / carries as f64);
    }
    row
}

fn receiver<C: Observed, S: Observed>(world: &World<C, S>, spec: &RunSpec) -> Report {
    match spec.workload.direction {
        Direction::Down => world.client.host.report(LOAD),
        Direction::Up => world.server.host.report(LOAD),
    }
}

fn check_bounds(stats: &[Option<SessionStats>; 2], now: Instant, problems: &mut Vec<String>) {
    for (side, stats) in ["client", "server"].into_iter().zip(stats) {
        let Some(stats) = stats else { continue };
        if stats.queue_bytes > QUEUE_BYTES_MAX {
            problems.push(format!("{now:?}: the {side} queues {} bytes", stats.queue_bytes));
        }
        if stats.reorder_held_bytes > HELD_BYTES_MAX {
            problems.push(format!("{now:?}: the {side} holds {} bytes", stats.reorder_held_bytes));
        }
    }
}

fn finish<C: Observed, S: Observed>(
    world: &mut World<C, S>,
    spec: &RunSpec,
    before_warmup: u64,
    row: &mut Row,
) {
    let direction = spec.workload.direction;
    let received = receiver(world, spec);
    let span = spec.duration.saturating_sub(spec.warmup).as_secs_f64();
    row.goodput_mbps = received.received_bytes.saturating_sub(before_warmup) as f64 * 8.0 / 1e6 / span;
    let capacity = spec.setup.scenario.capacity_bps(direction, spec.warmup, spec.duration);
    if let Some(capacity) = capacity {
        row.share =
            row.goodput_mbps * 1e6 / (capacity as f64 * spec.workload.payload_share(spec.setup.mtu()));
    }
    let sender = match direction {
        Direction::Down => world.server.host.report(LOAD),
        Direction::Up => world.client.host.report(LOAD),
    };
    row.retransmits = sender.retransmits.unwrap_or(0);
    let echo = world.client.host.report(ECHO);
    note_echo(&echo, spec, row);
    note_sessions(world, direction, row);
    for link in 0..world.link_count() {
        let bytes = world.link_counters(link, direction).delivered_bytes;
        row.link_bytes.push((world.link_name(link).to_owned(), bytes));
    }
    row.link_bytes.sort();
    row.trace_hash = world.trace_hash();
    judge(world, &[received, sender, echo], &mut row.problems);
    check_counters(world, &mut row.problems);
}

/// The figures of the sparse flow.
fn note_echo(echo: &Report, spec: &RunSpec, row: &mut Row) {
    let mut delays: Vec<Duration> = echo
        .delays
        .iter()
        .filter(|(sent, _)| *sent >= Instant::ZERO + spec.warmup)
        .map(|(_, delay)| *delay)
        .collect();
    delays.sort_unstable();
    row.echo_p50 = quantile(&delays, 50);
    row.echo_p99 = quantile(&delays, 99);
    row.echo_lost = echo.sent - echo.received;
    let settled = |sent: Instant| {
        let end = Instant::ZERO + spec.duration.saturating_sub(Duration::from_secs(1));
        (Instant::ZERO + spec.warmup..end).contains(&sent)
    };
    let starts = (0..echo.sent).map(|at| {
        load_start(spec.start, spec.setup.seed) + ECHO_INTERVAL * u32::try_from(at).unwrap_or(u32::MAX)
    });
    let sent = starts.filter(|at| settled(*at)).count() as u64;
    let answered = echo.delays.iter().filter(|(sent, _)| settled(*sent)).count() as u64;
    row.echo_settled = (sent, sent.saturating_sub(answered));
}

/// The figures of the two sessions; the load flows in `direction`.
fn note_sessions<C: Observed, S: Observed>(world: &World<C, S>, direction: Direction, row: &mut Row) {
    let now = world.now();
    let receiving = match direction {
        Direction::Down => world.client.machine.session_stats(now),
        Direction::Up => world.server.machine.session_stats(now),
    };
    let both = [world.client.machine.session_stats(now), world.server.machine.session_stats(now)];
    row.fec_sent = both.each_ref().map(|stats| stats.as_ref().map_or(0, |stats| stats.fec_sent));
    row.fec_recovered = both.each_ref().map(|stats| stats.as_ref().map_or(0, |stats| stats.fec_recovered));
    if let Some(stats) = &receiving {
        row.reorder_max = stats.reorder_held_max;
        row.reorder_timeouts = stats.reorder_timeouts;
        row.late = stats.released_late;
    }
    let sending = match direction {
        Direction::Down => world.server.machine.session_stats(now),
        Direction::Up => world.client.machine.session_stats(now),
    };
    if let Some(stats) = &sending {
        row.queue_drops = stats.discards.of(Discard::QueueDelay) + stats.discards.of(Discard::QueueFull);
    }
}

/// The sessions' counts of sent and received bytes equal the links' counts, to the byte.
fn check_counters<C: Observed, S: Observed>(world: &mut World<C, S>, problems: &mut Vec<String>) {
    let now = world.now();
    let client = world.client.machine.session_stats(now);
    let server = world.server.machine.session_stats(now);
    for (name, stats, sends) in [("client", client, Direction::Up), ("server", server, Direction::Down)] {
        let Some(stats) = stats else { continue };
        let receives = if sends == Direction::Up { Direction::Down } else { Direction::Up };
        for (link, figures) in stats.links.iter().enumerate() {
            let taken =
                world.link_counters(link, sends).offered_bytes - world.uncounted_bytes(link, sends).offered;
            let delivered = world.link_counters(link, receives).delivered_bytes
                - world.uncounted_bytes(link, receives).delivered;
            if (figures.tx_bytes, figures.rx_bytes) != (taken, delivered) {
                problems.push(format!(
                    "the {name} counts {} sent and {} received on link {link}, the link {taken} and {delivered}",
                    figures.tx_bytes, figures.rx_bytes
                ));
            }
        }
    }
}

/// The value that `percent` of the sorted `values` do not exceed.
fn quantile(values: &[Duration], percent: usize) -> Option<Duration> {
    values.get((values.len() * percent / 100).min(values.len().checked_sub(1)?)).copied()
}

/// The invariants of every run, whatever the links do.
pub fn judge<C: Observed, S: Observed>(world: &World<C, S>, reports: &[Report], problems: &mut Vec<String>) {
    let now = world.now();
    let receivers = [
        ("up", world.ledger_up.counts(), world.server.machine.session_stats(now)),
        ("down", world.ledger_down.counts(), world.client.machine.session_stats(now)),
    ];
    for (direction, counts, stats) in receivers {
        let mut text = String::new();
        if counts.corrupt > 0 {
            let _ = write!(text, " {} corrupt", counts.corrupt);
        }
        // Links of the built-in scenarios do not duplicate; without a bond no receiver would remove
        // duplicates.
        if counts.duplicates > 0 {
            let _ = write!(text, " {} delivered twice", counts.duplicates);
        }
        // A packet may arrive late, behind a gap that was given up; it is counted as such.
        let late = stats.map_or(u64::MAX, |stats| stats.released_late + CLASS_CHANGES);
        if counts.reordered > late {
            let _ = write!(text, " {} out of order but only {late} known late", counts.reordered);
        }
        if !text.is_empty() {
            problems.push(format!("{direction}:{text}"));
        }
    }
    if world.misrouted() > 0 {
        problems.push(format!("{} datagrams to where no link is", world.misrouted()));
    }
    for report in reports {
        if report.corrupt + report.duplicates > 0 {
            problems
                .push(format!("an application got {} corrupt, {} twice", report.corrupt, report.duplicates));
        }
    }
}
