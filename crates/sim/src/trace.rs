//! The course of one run, to explain a figure: every 100 ms as comma-separated values, and the
//! decisions of both ends in the form of the daemons' `--trace` (`docs/trace.md`).

use std::fmt::Write as _;
use std::time::Duration;

use bonding_netem::{Counters, Direction};
use bonding_proto::stats::{LinkStats, SessionStats};
use bonding_proto::trace::format::{self, Header, Side};
use bonding_proto::trace::{Level, Record};
use bonding_proto::{Instant, LinkId};

use crate::host::Report;
use crate::ledger::Passage;
use crate::world::{Observed, World};

/// The columns.
pub const HEADER: &str = "time_s,link,state,link_mbps,link_queue_bytes,link_drops,rtt_ms,rtt_min_ms,loss_permille,\
score,capacity_mbps,goodput_mbps,session_queue_bytes,session_queue_ms,flows_active,reorder_held,reorder_timeouts,\
released_late,echo_ms_max,link_queue_ms,link_capacity_mbps";

/// One sample of a run.
#[derive(Debug)]
pub struct Sample {
    /// Figures of the load.
    pub direction: Direction,
    /// Figures of the client and the server.
    pub stats: [Option<SessionStats>; 2],
    /// Payload received by the load's receiver since the start.
    pub received_bytes: u64,
    /// Figures of the sparse flow.
    pub echo: Report,
}

/// The columns of [`packets`].
pub const PACKETS_HEADER: &str = "entered_ms,protocol,source_port,number,queued_ms,link,link_ms,held_ms,late";

/// One line per packet that entered the bond in one direction. Empty `link`: dropped ahead of the
/// links; empty `link_ms`: lost on the link, or still in flight; empty `held_ms`: never delivered.
pub fn packets(log: &[Passage]) -> String {
    let mut csv = format!("{PACKETS_HEADER}\n");
    let ms = |from: Instant, to: Instant| format!("{:.3}", (to - from).as_secs_f64() * 1e3);
    for passage in log {
        let queued = passage.sent.map_or(String::new(), |(_, sent)| ms(passage.entered, sent));
        let link = passage.sent.map_or(String::new(), |(link, _)| link.to_string());
        let travelled = passage.sent.zip(passage.arrived);
        let travelled = travelled.map_or(String::new(), |((_, sent), arrived)| ms(sent, arrived));
        let held = passage.arrived.zip(passage.left);
        let held = held.map_or(String::new(), |(arrived, left)| ms(arrived, left));
        let _ = writeln!(
            csv,
            "{},{},{},{},{queued},{link},{travelled},{held},{}",
            ms(Instant::ZERO, passage.entered),
            passage.flow.protocol,
            passage.flow.source_port,
            passage.number,
            u8::from(passage.late)
        );
    }
    csv
}

/// Collects samples; one line per link and sample.
#[derive(Debug, Default)]
pub struct Trace {
    csv: String,
    received_bytes: u64,
    echoes: usize,
    links: Vec<Counters>,
    at: Duration,
    packets: Vec<Passage>,
    figures: Vec<(&'static str, SessionStats)>,
    link_names: Vec<String>,
    client: Vec<Record>,
    server: Vec<Record>,
}

impl Trace {
    /// An empty trace.
    pub fn new() -> Self {
        Self { csv: format!("{HEADER}\n"), ..Self::default() }
    }

    /// The lines so far, with a header.
    pub fn into_csv(self) -> String {
        self.csv
    }

    /// The packets that entered the bond in the load's direction; see [`packets`].
    pub fn packets(&self) -> &[Passage] {
        &self.packets
    }

    /// The sessions' last figures.
    pub fn figures(&self) -> &[(&'static str, SessionStats)] {
        &self.figures
    }

    /// The decisions of one end.
    pub fn decisions(&self, side: Side) -> &[Record] {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// The same as a file.
    pub fn decisions_file(&self, side: Side) -> Vec<u8> {
        let mut file = Vec::new();
        format::put_header(&mut file, &Header { side, zero_unix_us: 0 });
        let peer = match side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        format::put_label(&mut file, 0, None, peer.name());
        for (link, name) in (0..u8::MAX).zip(&self.link_names) {
            format::put_label(&mut file, 0, Some(LinkId(link)), name);
        }
        self.decisions(side).iter().for_each(|record| format::put_record(&mut file, record));
        file
    }

    /// The run begins: from now on both ends record their decisions.
    pub fn begin<C: Observed, S: Observed>(&mut self, world: &mut World<C, S>) {
        self.link_names = (0..world.link_count()).map(|link| world.link_name(link).to_owned()).collect();
        world.client.machine.set_trace(Level::Decisions);
        world.server.machine.set_trace(Level::Decisions);
        world.ledger_up.keep_log(Instant::ZERO);
        world.ledger_down.keep_log(Instant::ZERO);
    }

    /// Stores the figures at the end of a run.
    pub fn end<C: Observed, S: Observed>(&mut self, world: &mut World<C, S>, direction: Direction) {
        let now = world.now();
        self.packets = match direction {
            Direction::Up => world.ledger_up.take_log(),
            Direction::Down => world.ledger_down.take_log(),
        };
        let client = world.client.machine.session_stats(now).map(|stats| ("client", stats));
        let server = world.server.machine.session_stats(now).map(|stats| ("server", stats));
        self.figures.extend(client.into_iter().chain(server));
    }

    /// Adds a sample of the world's present state.
    pub fn take<C: Observed, S: Observed>(&mut self, world: &mut World<C, S>, sample: &Sample) {
        world.client.machine.drain_trace(&mut self.client);
        world.server.machine.drain_trace(&mut self.server);
        let now = Duration::from_nanos(world.now().as_nanos());
        let span = now.saturating_sub(self.at).as_secs_f64().max(1e-9);
        self.at = now;
        let mbps = |bytes: u64| bytes as f64 * 8e-6 / span;
        let goodput = mbps(sample.received_bytes - self.received_bytes);
        self.received_bytes = sample.received_bytes;
        let fresh = sample.echo.delays.get(self.echoes..).unwrap_or(&[]);
        let echo_max = fresh.iter().map(|(_, delay)| *delay).max();
        self.echoes = sample.echo.delays.len();
        let [client, server] = &sample.stats;
        let (sender, receiver) = match sample.direction {
            Direction::Up => (client, server),
            Direction::Down => (server, client),
        };
        self.links.resize(world.link_count(), Counters::default());
        for link in 0..world.link_count() {
            let counters = world.link_counters(link, sample.direction);
            let last = self.links.get_mut(link).map(|last| std::mem::replace(last, counters));
            let last = last.unwrap_or_default();
            let rate = mbps(counters.delivered_bytes - last.delivered_bytes);
            let drops = counters.drops.total_pkts() - last.drops.total_pkts();
            let figures = sender.as_ref().and_then(|stats| stats.links.get(link));
            let state = figures.map_or(String::new(), |figures| format!("{:?}", figures.state));
            let name = world.link_name(link);
            let _ = write!(self.csv, "{:.1},{name},{state}", now.as_secs_f64());
            let _ = write!(self.csv, ",{rate:.2},{},{drops}", counters.queue_bytes);
            self.csv.push_str(&figures.map_or(",,,,,".to_owned(), link_columns));
            let _ = write!(self.csv, ",{goodput:.2}");
            self.csv.push_str(&sender.as_ref().map_or(",,,".to_owned(), sender_columns));
            self.csv.push_str(&receiver.as_ref().map_or(",,,".to_owned(), receiver_columns));
            let (carries, queue) = world.link_present(link, sample.direction, Duration::from_secs_f64(span));
            let carries = carries.map_or(String::new(), |bytes| format!("{:.2}", mbps(bytes)));
            let queue = queue.map_or(String::new(), |queue| format!("{:.2}", queue.as_secs_f64() * 1e3));
            let _ = writeln!(self.csv, ",{},{queue},{carries}", ms(echo_max));
        }
    }
}

/// Milliseconds; empty for `None`.
fn ms(span: Option<Duration>) -> String {
    span.map_or(String::new(), |span| format!("{:.1}", span.as_secs_f64() * 1e3))
}

fn link_columns(figures: &LinkStats) -> String {
    let capacity = figures.capacity.map_or(0.0, |rate| rate.as_mbps());
    let (rtt, rtt_min) = (ms(figures.rtt), ms(figures.rtt_min));
    format!(",{rtt},{rtt_min},{},{},{capacity:.2}", figures.loss_permille, figures.score)
}

fn sender_columns(stats: &SessionStats) -> String {
    format!(",{},{},{}", stats.queue_bytes, ms(Some(stats.queue_delay)), stats.flows_active)
}

fn receiver_columns(stats: &SessionStats) -> String {
    format!(",{},{},{}", stats.reorder_held, stats.reorder_timeouts, stats.released_late)
}
