//! Plays the sweep (one link, always full, over a grid of properties) and prints its table.
//!
//! Arguments select cells, in any order; each may name several values, as `rate=5,40`:
//! - `sigma=MS`: deviation of the delay; 0, 2, 5, 10, 20;
//! - `order`, `reorder`: jitter that keeps the order, or not;
//! - `corr=C`: correlation of the delay from packet to packet; 0, 0.9;
//! - `loss=PERCENT`: loss by chance; 0, 0.5, 2;
//! - `rate=MBPS`: the link's rate; 5, 40, 150.
//!
//! Others change the runs: `up` (the load's direction; default down), `plain`, and `seeds=N` (of N
//! runs of a cell the one of median share). `--write` keeps the result of the whole grid in
//! `docs/sweep.md`.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bonding_netem::Direction;
use bonding_proto::config::Security;
use bonding_sim::sweep::{Cell, Outcome, Variant, table};
use bonding_sim::{parallel, table::SEED};

const OUTPUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sweep.md");

/// The head of the document.
const INTRO: &str = "# Sweep

Written by `cargo run --release -p bonding-sim --bin sweep -- --write`; do not edit. One sealed link of the bond in virtual
time, equal both ways, 30 ms each way with normal jitter, a queue of 100 ms, and nothing configured; a load that reacts to
nothing offers a quarter more than the link carries. `--bin sweep -- sigma=5 reorder rate=40` plays single cells.

- **σ**: standard deviation of the delay. **order**: whether jitter keeps the order of the packets (a packet with a shorter
  delay arrives right behind the one before it) or lets them overtake. **correlation**: of the delay, from packet to packet.
- **share**: bytes that passed the link (headers, resends, and what is lost behind the bottleneck included), of its rate, in
  the second that ends five seconds after the load began.
- **goodput**: bytes that arrived behind the bond in that second, of what the link can deliver of them: its rate less headers
  and loss.
- **queue p95**: the time that a packet would have waited for the link's rate, sampled every ms for two seconds; jitter is
  not part of it.
- **out of order**: packets that arrived behind the bond after a later one of their flow, in the whole run.

";

/// The selected cells, and how they are played.
#[derive(Debug)]
struct Selection {
    deviations_ms: Vec<u64>,
    correlations_permille: Vec<u32>,
    losses_permille: Vec<u32>,
    rates_mbps: Vec<u64>,
    reorders: Option<bool>,
    variant: Variant,
    seeds: u64,
    writes: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            deviations_ms: Vec::new(),
            correlations_permille: Vec::new(),
            losses_permille: Vec::new(),
            rates_mbps: Vec::new(),
            reorders: None,
            variant: Variant { direction: Direction::Down, security: Security::Sealed, seed: SEED },
            seeds: 1,
            writes: false,
        }
    }
}

/// The values of a comma-separated list, times `scale`, as whole numbers.
fn values(list: &str, scale: f64) -> anyhow::Result<Vec<u64>> {
    let value = |text: &str| {
        let value: f64 = text.parse().with_context(|| format!("'{text}' is not a number"))?;
        let scaled = (value * scale).round();
        // The largest value of the grid is far below.
        if !(0.0..1e9).contains(&scaled) {
            bail!("'{text}' is not in the grid");
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1e9")]
        Ok(scaled as u64)
    };
    list.split(',').map(value).collect()
}

fn small(list: &str, scale: f64) -> anyhow::Result<Vec<u32>> {
    values(list, scale)?.into_iter().map(|value| Ok(u32::try_from(value)?)).collect()
}

impl Selection {
    fn add(&mut self, argument: &str) -> anyhow::Result<()> {
        match argument.split_once('=') {
            Some(("sigma", list)) => self.deviations_ms.extend(values(list, 1.0)?),
            Some(("corr", list)) => self.correlations_permille.extend(small(list, 1e3)?),
            Some(("loss", list)) => self.losses_permille.extend(small(list, 10.0)?),
            Some(("rate", list)) => self.rates_mbps.extend(values(list, 1.0)?),
            Some(("seeds", count)) => {
                self.seeds = count.parse().with_context(|| format!("'{count}' is no number of seeds"))?;
            }
            Some(_) => bail!("'{argument}': the keys are sigma, corr, loss, rate and seeds"),
            None => match argument {
                "order" => self.reorders = Some(false),
                "reorder" => self.reorders = Some(true),
                "up" => self.variant.direction = Direction::Up,
                "down" => self.variant.direction = Direction::Down,
                "plain" => self.variant.security = Security::Plain,
                "--write" => self.writes = true,
                _ => bail!("'{argument}' is none of order, reorder, up, down, plain, --write"),
            },
        }
        Ok(())
    }

    /// The cells that no filter excludes. Without jitter, order and correlation exclude no cell.
    fn cells(&self) -> Vec<Cell> {
        let has = |list: &[u64], value: u64| list.is_empty() || list.contains(&value);
        let has_small = |list: &[u32], value: u32| list.is_empty() || list.contains(&value);
        let mut cells = Cell::all();
        cells.retain(|cell| {
            let is_calm = cell.deviation_ms == 0;
            has(&self.deviations_ms, cell.deviation_ms)
                && has(&self.rates_mbps, cell.rate_mbps)
                && has_small(&self.losses_permille, cell.loss_permille)
                && (is_calm || has_small(&self.correlations_permille, cell.correlation_permille))
                && (is_calm || self.reorders.is_none_or(|reorders| reorders == cell.reorders))
        });
        cells
    }
}

/// Of the runs of one cell the one of median share, with the objections of all.
fn median(mut runs: Vec<Outcome>) -> Outcome {
    runs.sort_by(|one, other| one.share.total_cmp(&other.share));
    let problems = runs.iter().flat_map(|run| run.problems.iter().cloned()).collect();
    let median = runs.get(runs.len() / 2).cloned().unwrap_or_default();
    Outcome { problems, ..median }
}

fn main() -> anyhow::Result<ExitCode> {
    let mut selection = Selection::default();
    for argument in std::env::args().skip(1) {
        selection.add(&argument)?;
    }
    let cells = selection.cells();
    if cells.is_empty() {
        bail!("no cell of the grid has these values: see the head of crates/sim/src/bin/sweep.rs");
    }
    if selection.writes && cells != Cell::all() {
        bail!("--write keeps the whole grid: give no filter beside it");
    }
    let seeds = selection.seeds.max(1);
    let runs: Vec<(Cell, Variant)> = cells
        .iter()
        .flat_map(|cell| (0..seeds).map(|more| (*cell, more)))
        .map(|(cell, more)| (cell, Variant { seed: selection.variant.seed + more, ..selection.variant }))
        .collect();
    let mut outcomes = parallel::map(&runs, |(cell, variant)| cell.play(variant)).into_iter();
    let played: Vec<(Cell, Outcome)> = cells
        .iter()
        .map(|cell| (*cell, median((0..seeds).filter_map(|_| outcomes.next()).collect())))
        .collect();
    let text = table(&played);
    std::io::stdout().write_all(text.as_bytes())?;
    let mut is_sound = true;
    for (cell, outcome) in &played {
        for problem in &outcome.problems {
            is_sound = false;
            writeln!(std::io::stderr(), "{cell:?}: {problem}")?;
        }
    }
    if selection.writes {
        std::fs::write(OUTPUT, format!("{INTRO}{text}")).with_context(|| format!("cannot write {OUTPUT}"))?;
    }
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(arguments: &[&str]) -> Vec<Cell> {
        let mut selection = Selection::default();
        arguments.iter().for_each(|argument| selection.add(argument).unwrap());
        selection.cells()
    }

    #[test]
    fn filters_leave_the_cells_that_they_name() {
        assert_eq!(select(&[]), Cell::all());
        let cells = select(&["sigma=5", "loss=0.5", "rate=40", "order", "corr=0.9"]);
        assert_eq!(
            cells,
            [Cell {
                rate_mbps: 40,
                deviation_ms: 5,
                reorders: false,
                correlation_permille: 900,
                loss_permille: 5
            }]
        );
        assert_eq!(select(&["sigma=0,2", "loss=2", "rate=5", "corr=0"]).len(), 3);
        assert_eq!(select(&["sigma=3"]), []);
    }

    #[test]
    fn mistakes_are_named() {
        let mut selection = Selection::default();
        for (argument, wanted) in
            [("sigma=x", "'x' is not a number"), ("jitter=5", "the keys are"), ("sideways", "none of order")]
        {
            let message = selection.add(argument).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }
}
