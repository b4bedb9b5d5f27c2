//! The figures of all runs: as lines, as JSON and as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bonding_testkit::statistics::median;
use serde::Serialize;

use crate::carrier::Carrier;
use crate::load::{Figures, Load};

/// All figures.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    kernel: String,
    processors: usize,
    /// A set of figures for each run, by load and carrier.
    runs: BTreeMap<Load, BTreeMap<Carrier, Vec<Figures>>>,
}

/// The figures that judge a load: name, heading, decimals. The first is the one that ratios are
/// made of.
const fn columns(load: Load) -> &'static [(&'static str, &'static str, usize)] {
    match load {
        Load::Bulk => &[
            ("gbit_s", "Gbit/s", 2),
            ("cpu_s_per_gb", "CPU s/GB", 2),
            ("client_cpu_s", "client CPU s", 2),
            ("server_cpu_s", "server CPU s", 2),
            ("packets_per_call", "packets per system call", 1),
        ],
        Load::Paced | Load::Reference => &[("cpu_s_per_gb", "CPU s/GB", 2), ("gbit_s", "Gbit/s", 2)],
        Load::Small | Load::Small1000 | Load::SmallBatch => &[
            ("kpps", "1,000 packets/s", 0),
            ("cpu_us_per_packet", "CPU µs/packet", 2),
            ("packets_per_call", "packets per system call", 1),
        ],
        Load::Latency => &[("p50_us", "RTT p50 µs", 0), ("p99_us", "p99 µs", 0)],
        Load::Idle => &[("client_cpu_percent", "client CPU %", 2), ("client_wakeups_s", "wake-ups/s", 0)],
    }
}

/// One measurement as a line.
pub(crate) fn line(carrier: Carrier, load: Load, figures: &Figures) -> String {
    let mut text = format!("{:10} {:12}", load.name(), carrier.name());
    for (name, heading, decimals) in columns(load) {
        if let Some(value) = figures.get(name) {
            // Writing to a string does not fail.
            let _ = write!(text, "  {value:.decimals$} {heading}");
        }
    }
    text
}

impl Report {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        let processors = std::thread::available_parallelism()?.get();
        Ok(Self { kernel, processors, runs: BTreeMap::new() })
    }

    pub(crate) fn add(&mut self, carrier: Carrier, load: Load, figures: Figures) {
        self.runs.entry(load).or_default().entry(carrier).or_default().push(figures);
    }

    /// A table for each load: medians, and the median of each run's ratio to the bond over one
    /// sealed link.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("Linux {}, {} processors.\n", self.kernel, self.processors);
        for (load, carriers) in &self.runs {
            let columns = columns(*load);
            let headings: Vec<&str> = columns.iter().map(|(_, heading, _)| *heading).collect();
            let _ = write!(text, "\n| {} | {} | of `bond`'s |\n", load.name(), headings.join(" | "));
            let _ = writeln!(text, "| --- |{}", " ---: |".repeat(columns.len() + 1));
            for (carrier, runs) in carriers {
                let _ = write!(text, "| `{}` |", carrier.name());
                for (name, _, decimals) in columns {
                    let value = median(runs.iter().filter_map(|figures| figures.get(name).copied()));
                    let shown = value.map_or("–".to_owned(), |value| format!("{value:.decimals$}"));
                    let _ = write!(text, " {shown} |");
                }
                let ratio = columns.first().and_then(|(name, _, _)| {
                    let bond = carriers.get(&Carrier::Bond)?;
                    let pairs = runs.iter().zip(bond);
                    median(pairs.filter_map(|(own, bond)| Some(own.get(name)? / bond.get(name)?)))
                });
                let _ = writeln!(text, " {} |", ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}")));
            }
        }
        text
    }
}
