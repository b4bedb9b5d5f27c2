//! The sweep: one link, always full, over a grid of jitter, order, correlation, loss and rate.
//!
//! Each cell is a whole bond over a single link that is equal both ways. A load that reacts to
//! nothing offers a quarter more than the link carries, so what the link carries is decided by the
//! rate control alone. The cell's figures come from the emulator, which knows the link's queue and
//! what passed it, and from the application behind the bond.

use std::fmt::Write as _;
use std::time::Duration;

use bonding_netem::{Direction, Jitter, LinkSpec, Loss, PipeConfig, Rate, Scenario};
use bonding_proto::Instant;
use bonding_proto::config::{Policy, Security};
use bonding_proto::units::BitRate;

use crate::bond::{BondWorld, Setup};
use crate::host::raw::{RawConfig, RawSink, RawSource};
use crate::inet;
use crate::run::judge;

/// The standard deviations of the delay, in ms.
pub const DEVIATIONS_MS: [u64; 5] = [0, 2, 5, 10, 20];
/// The correlations of the delay from packet to packet, in permille.
pub const CORRELATIONS_PERMILLE: [u32; 2] = [0, 900];
/// The shares of packets lost by chance, in permille.
pub const LOSSES_PERMILLE: [u32; 3] = [0, 5, 20];
/// The link's rates in Mbit/s.
pub const RATES_MBPS: [u64; 3] = [5, 40, 150];

/// One-way delay. Chosen: a mobile link's; a deviation of 20 ms seldom reaches zero.
const DELAY: Duration = Duration::from_millis(30);
/// When the load begins. Chosen: the bond has connected, also after a lost handshake.
const DEMAND_AT: Duration = Duration::from_secs(3);
/// The run's length from the start of the load. The figures are of its end.
const SPAN: Duration = Duration::from_secs(5);
/// The span at the end in which the link's share is measured.
const SHARE_WINDOW: Duration = Duration::from_secs(1);
/// The span at the end in which the queue is sampled. Chosen: longer than the rate control's probes
/// are apart.
const QUEUE_WINDOW: Duration = Duration::from_secs(2);
/// How often the queue is sampled.
const QUEUE_SAMPLE: Duration = Duration::from_millis(1);
/// The load, in percent of the link's rate.
const LOAD_PERCENT: u64 = 125;
/// The load's flows.
const FLOWS: u16 = 4;
/// Bytes of a full packet on a link.
const OUTER_MTU: u16 = 1_500;

/// The targets: the least share in percent, the least share with a deviation of at most
/// [`CALM_MS`], and the most queue.
const SHARE_PERCENT_MIN: f64 = 92.0;
const CALM_SHARE_PERCENT_MIN: f64 = 97.0;
const CALM_MS: u64 = 5;
const QUEUE_MAX: Duration = Duration::from_millis(15);

/// One cell: the properties of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// The rate in Mbit/s.
    pub rate_mbps: u64,
    /// The standard deviation of the delay in ms.
    pub deviation_ms: u64,
    /// Whether packets overtake each other.
    pub reorders: bool,
    /// The correlation of the delay from packet to packet, in permille.
    pub correlation_permille: u32,
    /// The share of packets lost by chance, in permille.
    pub loss_permille: u32,
}

/// The variant of the bond under test, common to all cells.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    /// The direction of the load.
    pub direction: Direction,
    /// How the link is protected.
    pub security: Security,
    /// Seed of links and sessions.
    pub seed: u64,
}

/// The figures of one cell.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What passed the link, bytes lost on the way included, as a share of its rate.
    pub share: f64,
    /// What arrived behind the bond, as a share of what the link can deliver of it: its rate less
    /// headers and loss.
    pub goodput: f64,
    /// The time that a packet waited for the link's rate: 95 of 100 samples are not longer.
    pub queue_p95: Duration,
    /// The share of packets that arrived behind the bond after a later one of their flow.
    pub out_of_order: f64,
    /// The oracles' objections; any objection proves a bug.
    pub problems: Vec<String>,
}

impl Cell {
    /// All cells, in the table's order. Order and correlation mean nothing without jitter.
    pub fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for rate_mbps in RATES_MBPS {
            for deviation_ms in DEVIATIONS_MS {
                for reorders in [false, true] {
                    for correlation_permille in CORRELATIONS_PERMILLE {
                        for loss_permille in LOSSES_PERMILLE {
                            if deviation_ms == 0 && (reorders || correlation_permille > 0) {
                                continue;
                            }
                            cells.push(Self {
                                rate_mbps,
                                deviation_ms,
                                reorders,
                                correlation_permille,
                                loss_permille,
                            });
                        }
                    }
                }
            }
        }
        cells
    }

    /// The link as a scenario.
    fn scenario(&self) -> Scenario {
        let deviation = Duration::from_millis(self.deviation_ms);
        let correlation = f64::from(self.correlation_permille) / 1e3;
        let pipe = PipeConfig {
            rate: Rate::from_mbps(self.rate_mbps),
            delay: DELAY,
            jitter: if self.deviation_ms > 0 {
                Jitter::normal(deviation, correlation, self.reorders)
            } else {
                Jitter::default()
            },
            loss: if self.loss_permille > 0 {
                Loss::Random { ratio: f64::from(self.loss_permille) / 1e3 }
            } else {
                Loss::None
            },
            ..PipeConfig::default()
        };
        Scenario {
            name: "sweep".to_owned(),
            description: "one link of the sweep".to_owned(),
            duration: DEMAND_AT + SPAN,
            links: vec![LinkSpec { name: "a".to_owned(), up: pipe.clone(), down: pipe }],
            events: Vec::new(),
            carriers: Vec::new(),
        }
    }

    /// Plays the cell.
    pub fn play(&self, variant: &Variant) -> Outcome {
        let Variant { direction, security, seed } = *variant;
        let mut setup = Setup::new(self.scenario(), Policy::default(), seed);
        setup.security.fill(security);
        let mut world = setup.world();
        self.load(&mut world, direction, setup.mtu(), seed);
        let end = Instant::ZERO + DEMAND_AT + SPAN;
        let share_from = Instant::ZERO + DEMAND_AT + (SPAN - SHARE_WINDOW);
        world.run_until(Instant::ZERO + DEMAND_AT + (SPAN - QUEUE_WINDOW));
        let mut queues = Vec::new();
        let (mut carried_before, mut received_before) = (0, 0);
        while world.now() < end {
            world.run_for(QUEUE_SAMPLE);
            queues.extend(world.link_present(0, direction, Duration::ZERO).1);
            if world.now() <= share_from {
                carried_before = world.link_counters(0, direction).carried_bytes;
                received_before = sink(&world, direction).received_bytes;
            }
        }
        let carried = world.link_counters(0, direction).carried_bytes - carried_before;
        let received = sink(&world, direction);
        let rate_bits = self.rate_mbps as f64 * 1e6 * SHARE_WINDOW.as_secs_f64();
        let share_of_rate = |bytes: u64| bytes as f64 * 8.0 / rate_bits;
        let payload = f64::from(setup.mtu()) / f64::from(OUTER_MTU);
        let arrives = 1.0 - f64::from(self.loss_permille) / 1e3;
        queues.sort_unstable();
        let mut outcome = Outcome {
            share: share_of_rate(carried),
            goodput: share_of_rate(received.received_bytes - received_before) / (payload * arrives),
            queue_p95: queues.get(queues.len() * 95 / 100).copied().unwrap_or_default(),
            out_of_order: received.reordered as f64 / received.received.max(1) as f64,
            problems: Vec::new(),
        };
        judge(&world, &[received], &mut outcome.problems);
        outcome
    }

    /// Adds the load: the source at the sending side, the sink at the receiving side.
    fn load(&self, world: &mut BondWorld, direction: Direction, mtu: u16, seed: u64) {
        let (from, to) = match direction {
            Direction::Up => (inet::CLIENT, inet::SERVER),
            Direction::Down => (inet::SERVER, inet::CLIENT),
        };
        let config = RawConfig {
            from,
            to,
            flows: FLOWS,
            rate: BitRate::from_bps(self.rate_mbps * 1_000_000 * LOAD_PERCENT / 100),
            packet_bytes: mtu,
            start: Instant::ZERO + DEMAND_AT,
            stop: Instant::ZERO + DEMAND_AT + SPAN,
            seed,
        };
        let (source, sink) = (Box::new(RawSource::new(config)), Box::new(RawSink::new(config)));
        match direction {
            Direction::Up => (world.client.host.add(source), world.server.host.add(sink)),
            Direction::Down => (world.server.host.add(source), world.client.host.add(sink)),
        };
    }

    /// The least share of the link in percent that is aimed at.
    const fn share_percent_min(&self) -> f64 {
        if self.deviation_ms <= CALM_MS { CALM_SHARE_PERCENT_MIN } else { SHARE_PERCENT_MIN }
    }
}

fn sink(world: &BondWorld, direction: Direction) -> crate::host::Report {
    match direction {
        Direction::Up => world.server.host.report(0),
        Direction::Down => world.client.host.report(0),
    }
}

/// The table of these cells and the summary.
pub fn table(cells: &[(Cell, Outcome)]) -> String {
    let mut text = "| Mbit/s | σ ms | order | correlation | loss % | share % | goodput % | queue p95 ms | out of order % |\n\
                    |--:|--:|---|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for (cell, outcome) in cells {
        let order = match (cell.deviation_ms, cell.reorders) {
            (0, _) => "–",
            (_, false) => "kept",
            (_, true) => "not kept",
        };
        let correlation = match cell.deviation_ms {
            0 => "–".to_owned(),
            _ => format!("{:.1}", f64::from(cell.correlation_permille) / 1e3),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {order} | {correlation} | {:.1} | {:.1} | {:.1} | {:.1} | {:.3} |",
            cell.rate_mbps,
            cell.deviation_ms,
            f64::from(cell.loss_permille) / 10.0,
            outcome.share * 100.0,
            outcome.goodput * 100.0,
            outcome.queue_p95.as_secs_f64() * 1e3,
            outcome.out_of_order * 100.0,
        );
    }
    text.push_str(&summary(cells));
    text
}

/// How many cells miss each target, and the worst of each figure.
fn summary(cells: &[(Cell, Outcome)]) -> String {
    let below = |percent: f64, deviation_max_ms: u64| {
        let cells = cells.iter().filter(|(cell, _)| cell.deviation_ms <= deviation_max_ms);
        cells.filter(|(_, outcome)| outcome.share * 100.0 < percent).count()
    };
    let queued = cells.iter().filter(|(_, outcome)| outcome.queue_p95 > QUEUE_MAX).count();
    let short =
        cells.iter().filter(|(cell, outcome)| outcome.share * 100.0 < cell.share_percent_min()).count();
    let least = cells.iter().map(|(_, outcome)| outcome.share * 100.0).fold(f64::INFINITY, f64::min);
    let longest = cells.iter().map(|(_, outcome)| outcome.queue_p95).max().unwrap_or_default();
    format!(
        "\nOf {} cells, {} have a share under {SHARE_PERCENT_MIN:.0} % (the least: {least:.1} %); of those up to \
         σ = {CALM_MS} ms, {} have one under {CALM_SHARE_PERCENT_MIN:.0} %; {short} miss the target for their share. \
         In {queued} the queue is over {} ms (the longest: {:.1} ms).\n",
        cells.len(),
        below(SHARE_PERCENT_MIN, u64::MAX),
        below(CALM_SHARE_PERCENT_MIN, CALM_MS),
        QUEUE_MAX.as_millis(),
        longest.as_secs_f64() * 1e3,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cell_occurs_once_in_the_tables_order() {
        let cells = Cell::all();
        // Without jitter neither order nor correlation distinguishes cells.
        assert_eq!(cells.len(), 3 * 3 * (1 + 4 * 4));
        assert!(cells.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn the_summary_counts_what_misses_a_target() {
        let cell = |deviation_ms| Cell {
            rate_mbps: 40,
            deviation_ms,
            reorders: true,
            correlation_permille: 0,
            loss_permille: 0,
        };
        let outcome = |share, queue_ms| Outcome {
            share,
            queue_p95: Duration::from_millis(queue_ms),
            ..Outcome::default()
        };
        let cells = [
            (cell(5), outcome(0.95, 15)),
            (cell(5), outcome(0.5, 16)),
            (cell(10), outcome(0.95, 3)),
            (cell(20), outcome(0.91, 40)),
        ];
        let text = summary(&cells);
        for part in [
            "Of 4 cells, 2 have a share under 92 % (the least: 50.0 %)",
            "2 have one under 97 %; 3 miss",
            "In 2 the queue",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_calm_slow_link_carries_what_is_measured() {
        let cell = Cell {
            rate_mbps: 5,
            deviation_ms: 0,
            reorders: false,
            correlation_permille: 0,
            loss_permille: 0,
        };
        let variant = Variant { direction: Direction::Down, security: Security::Sealed, seed: 1 };
        let outcome = cell.play(&variant);
        assert_eq!(outcome.problems, Vec::<String>::new());
        assert!(outcome.share > 0.5 && outcome.share < 1.01, "{outcome:?}");
        // What arrives behind the bond has passed the link.
        assert!(outcome.goodput > 0.5 && outcome.goodput < outcome.share + 0.02, "{outcome:?}");
        assert!(outcome.queue_p95 < Duration::from_millis(100), "{outcome:?}");
    }
}
