//! The figures as lines, as a summary beside the targets, as JSON and as a table in Markdown.

use bonding_lab::Scenario;
use bonding_lab::tools::IperfDirection;
use bonding_proto::config::Security;
use serde_json::{Value, json};

use crate::cell::{BondFigures, Carrier, Cell, Sample, way};

/// One cell of one scenario with its runs.
#[derive(Debug)]
pub(crate) struct Row {
    scenario: String,
    carrier: String,
    cell: Cell,
    samples: Vec<Sample>,
}

/// All rows so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
}

/// The median; the lower of the two in the middle. NaN for none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

impl Row {
    pub(crate) fn new(scenario: &Scenario, cell: Cell, samples: Vec<Sample>) -> Self {
        let carrier = match cell.carrier {
            Carrier::Single(index) => {
                let name = scenario.links.get(index).map_or("?", |link| link.name.as_str());
                format!("{name} alone")
            }
            Carrier::Bond(policy, Security::Sealed) => format!("bond, {policy}"),
            Carrier::Bond(policy, Security::Plain) => format!("bond, {policy}, plain"),
        };
        Self { scenario: scenario.name.clone(), carrier, cell, samples }
    }

    fn goodput_mbps(&self) -> f64 {
        median(self.samples.iter().map(|sample| sample.goodput_mbps))
    }

    /// Goodput of the attainable, run by run: what can be had differs between runs where rates vary.
    fn share(&self) -> f64 {
        median(self.samples.iter().map(|sample| sample.goodput_mbps / sample.attainable_mbps))
    }

    fn figure(&self, pick: impl Fn(&BondFigures) -> f64) -> f64 {
        median(self.samples.iter().filter_map(|sample| sample.bond.as_ref()).map(pick))
    }

    /// The row as a person reads it.
    pub(crate) fn line(&self) -> String {
        let way = way(self.cell.direction);
        let head = format!(
            "  {way:4} {} flow(s)  {:18} {:7.1} Mbit/s {:5.1} %",
            self.cell.flows,
            self.carrier,
            self.goodput_mbps(),
            self.share() * 1e2
        );
        if !matches!(self.cell.carrier, Carrier::Bond(..)) {
            return head;
        }
        format!(
            "{head}  idle {:5.1} ms  echo p50 {:5.1} p99 {:6.1} ms lost {:4.1} ‰  pause {:5.0} ms  rss {:4.1} MiB  \
             cpu client {:.2} server {:.2} emulator {:.2}",
            self.figure(|bond| bond.idle_ms),
            self.figure(|bond| bond.echo_p50_ms),
            self.figure(|bond| bond.echo_p99_ms),
            self.figure(|bond| bond.echo_lost_permille),
            self.figure(|bond| bond.pause_ms),
            self.figure(|bond| bond.rss_mib),
            self.figure(|bond| bond.client_cpu),
            self.figure(|bond| bond.server_cpu),
            median(self.samples.iter().map(|sample| sample.emulator_cpu)),
        )
    }

    /// The row as docs/benchmarks.md shows it.
    fn to_markdown(&self) -> String {
        let head = format!(
            "| {} | {} | {} | {} | {:.1} | {:.1} % |",
            self.scenario,
            way(self.cell.direction),
            self.cell.flows,
            self.carrier,
            self.goodput_mbps(),
            self.share() * 1e2
        );
        if !matches!(self.cell.carrier, Carrier::Bond(..)) {
            return format!("{head} | | | | | |");
        }
        format!(
            "{head} {:.1} | {:.1} / {:.1} | {:.1} % | {:.0} | {:.1} | {:.2} / {:.2} |",
            self.figure(|bond| bond.idle_ms),
            self.figure(|bond| bond.echo_p50_ms),
            self.figure(|bond| bond.echo_p99_ms),
            self.figure(|bond| bond.echo_lost_permille) / 10.0,
            self.figure(|bond| bond.pause_ms),
            self.figure(|bond| bond.rss_mib),
            self.figure(|bond| bond.client_cpu),
            self.figure(|bond| bond.server_cpu),
        )
    }

    fn to_json(&self) -> Value {
        let runs: Vec<Value> = self
            .samples
            .iter()
            .map(|sample| {
                let bond = sample.bond.map(|bond| {
                    json!({
                        "idle_ms": bond.idle_ms, "echo_p50_ms": bond.echo_p50_ms, "echo_p99_ms": bond.echo_p99_ms,
                        "echo_lost_permille": bond.echo_lost_permille, "pause_ms": bond.pause_ms,
                        "rss_mib": bond.rss_mib, "client_cpu": bond.client_cpu, "server_cpu": bond.server_cpu,
                    })
                });
                json!({
                    "goodput_mbps": sample.goodput_mbps, "attainable_mbps": sample.attainable_mbps,
                    "retransmits": sample.retransmits, "bond": bond,
                    "emulator_late": sample.emulator_late, "emulator_cpu": sample.emulator_cpu,
                })
            })
            .collect();
        json!({
            "scenario": self.scenario, "carrier": self.carrier, "way": way(self.cell.direction),
            "flows": self.cell.flows, "seconds": self.cell.duration.as_secs(),
            "goodput_mbps": self.goodput_mbps(), "share": self.share(), "runs": runs,
        })
    }
}

impl Report {
    fn of<'a>(&'a self, scenario: &'a str, direction: IperfDirection) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.scenario == scenario && row.cell.direction == direction)
    }

    fn best_single<'a>(&'a self, scenario: &'a str, direction: IperfDirection) -> Option<&'a Row> {
        self.of(scenario, direction)
            .filter(|row| matches!(row.cell.carrier, Carrier::Single(_)))
            .max_by(|a, b| a.goodput_mbps().total_cmp(&b.goodput_mbps()))
    }

    fn bond<'a>(&'a self, scenario: &'a str, direction: IperfDirection, flows: u16) -> Option<&'a Row> {
        self.bond_over(scenario, direction, flows, Security::Sealed)
    }

    fn bond_over<'a>(
        &'a self,
        scenario: &'a str,
        direction: IperfDirection,
        flows: u16,
        security: Security,
    ) -> Option<&'a Row> {
        let carrier = Carrier::Bond("adaptive", security);
        self.of(scenario, direction).find(|row| row.cell.carrier == carrier && row.cell.flows == flows)
    }

    /// Each at its own overhead: a sealed bond's share of what it can attain beside a plain one's.
    fn print_cost_of_sealing(&self, scenario: &str, line: &dyn Fn(&str, String, String, bool)) {
        for direction in [IperfDirection::Download, IperfDirection::Upload] {
            for flows in [1, 4] {
                let sealed = self.bond(scenario, direction, flows);
                let plain = self.bond_over(scenario, direction, flows, Security::Plain);
                let (Some(sealed), Some(plain)) = (sealed, plain) else { continue };
                let ratio = sealed.share() / plain.share();
                let what = format!("{scenario} {}, {flows} flow(s), sealed beside plain", way(direction));
                line(&what, "≥ 0.97".into(), format!("{ratio:.3}"), ratio >= 0.97);
            }
        }
    }

    /// The bond beside the best single link.
    pub(crate) fn print_summary(&self, scenario: &str) {
        for direction in [IperfDirection::Download, IperfDirection::Upload] {
            let best = self.best_single(scenario, direction);
            let (Some(best), Some(bond)) = (best, self.bond(scenario, direction, 1)) else { continue };
            let (alone, ours) = (best.goodput_mbps(), bond.goodput_mbps());
            println!(
                "  {:4} one flow: {:.2} times the best link ({})",
                way(direction),
                ours / alone,
                best.carrier
            );
        }
        let late: u64 = self
            .rows
            .iter()
            .filter(|row| row.scenario == scenario)
            .flat_map(|row| &row.samples)
            .map(|sample| sample.emulator_late)
            .sum();
        if late > 0 {
            println!("  the emulator was over 1 ms late {late} times: the machine was busy");
        }
    }

    /// The targets that the measured scenarios have, and what was measured.
    pub(crate) fn print_targets(&self) {
        println!("\nTargets");
        let line = |what: &str, target: String, measured: String, met: bool| {
            println!("  {:6} {what:58} {target:>12} {measured:>12}", if met { "met" } else { "MISSED" });
        };
        for direction in [IperfDirection::Download, IperfDirection::Upload] {
            let way = way(direction);
            for (scenario, flows, least) in
                [("reference", 1, 0.80), ("reference", 4, 0.85), ("dual", 1, 0.90), ("single", 1, 0.97)]
            {
                let Some(row) = self.bond(scenario, direction, flows) else { continue };
                let what = format!("{scenario} {way}, {flows} flow(s): share of the attainable");
                let share = row.share();
                line(
                    &what,
                    format!("≥ {:.0} %", least * 1e2),
                    format!("{:.1} %", share * 1e2),
                    share >= least,
                );
            }
        }
        if let Some(row) = self.bond("reference", IperfDirection::Download, 1) {
            let (idle, echo) = (row.figure(|bond| bond.idle_ms), row.figure(|bond| bond.echo_p50_ms));
            line("reference: idle ping", "≤ 21 ms".into(), format!("{idle:.1} ms"), idle <= 21.0);
            line(
                "reference: echo during a download, p50",
                "≤ 30 ms".into(),
                format!("{echo:.1} ms"),
                echo <= 30.0,
            );
        }
        let mut scenarios: Vec<&str> = self.rows.iter().map(|row| row.scenario.as_str()).collect();
        scenarios.dedup();
        for scenario in scenarios {
            self.print_cost_of_sealing(scenario, &line);
            for direction in [IperfDirection::Download, IperfDirection::Upload] {
                let best = self.best_single(scenario, direction);
                let (Some(best), Some(bond)) = (best, self.bond(scenario, direction, 1)) else { continue };
                let ratio = bond.goodput_mbps() / best.goodput_mbps();
                let what = format!("{scenario} {}, one flow beside the best link alone", way(direction));
                line(&what, "≥ 1.00".into(), format!("{ratio:.2}"), ratio >= 1.0);
            }
        }
        let rss = self.rows.iter().map(|row| row.figure(|bond| bond.rss_mib)).filter(|rss| rss.is_finite());
        let rss = rss.fold(0.0, f64::max);
        line(
            "memory of the larger process under load",
            "< 64 MiB".into(),
            format!("{rss:.1} MiB"),
            rss < 64.0,
        );
    }

    /// A table in Markdown.
    pub(crate) fn to_markdown(&self) -> String {
        let mut text = String::from(
            "| scenario | way | flows | over | Mbit/s | of attainable | idle ping ms | echo p50 / p99 ms | echo lost \
             | longest pause ms | memory MiB | CPU client / server |\n",
        );
        text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
        for row in &self.rows {
            text.push_str(&row.to_markdown());
            text.push('\n');
        }
        text
    }

    pub(crate) fn to_json(&self) -> String {
        let rows: Vec<Value> = self.rows.iter().map(Row::to_json).collect();
        format!("{:#}\n", json!({ "rows": rows }))
    }
}
