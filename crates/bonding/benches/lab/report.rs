//! The figures of all rows: as lines, beside their targets, as JSON and as the tables of
//! docs/benchmarks.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bonding_testkit::statistics::median;
use serde::{Deserialize, Serialize};

use crate::measure::Figures;
use crate::rows::{Carrier, Row, Target};

/// All figures, as in the JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) kernel: String,
    pub(crate) processors: usize,
    pub(crate) rows: Vec<Measured>,
}

/// A row's runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) scenario: String,
    pub(crate) about: String,
    /// The time of the run, as RFC 3339.
    pub(crate) at: String,
    /// Rates were configured.
    pub(crate) ceilings: bool,
    pub(crate) targets: Vec<Target<String>>,
    /// The carrier that the targets judge.
    #[serde(default = "bond")]
    pub(crate) judged: Carrier,
    pub(crate) runs: Vec<Run>,
}

const fn bond() -> Carrier {
    Carrier::Bond
}

/// One run of a row.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The load of the processors by other programs before the run, in percent.
    pub(crate) busy_before_percent: f64,
    pub(crate) carriers: BTreeMap<Carrier, Figures>,
}

impl Run {
    /// Ratios are of one run: the attainable rate differs between runs.
    pub(crate) fn add_ratios(&mut self) {
        let goodput = |carrier| {
            let figures: &Figures = self.carriers.get(&carrier)?;
            figures.get("goodput_mbps").copied()
        };
        let share = |carrier| {
            let figures: &Figures = self.carriers.get(&carrier)?;
            figures.get("share_percent").copied()
        };
        let sum = self.carriers.get(&Carrier::Single).and_then(|figures| figures.get("sum_mbps").copied());
        let ratio = |over: Option<f64>, under: Option<f64>| over.zip(under).map(|(over, under)| over / under);
        let bond = goodput(Carrier::Bond);
        let difference = bond.zip(goodput(Carrier::Reversed));
        let difference = difference.map(|(one, other)| (one - other).abs() * 1e2 / one.max(other));
        let ratios = [
            ("of_best_link", ratio(bond, goodput(Carrier::Single))),
            ("of_round_robin", ratio(bond, goodput(Carrier::RoundRobin))),
            ("of_mptcp", ratio(bond, goodput(Carrier::Mptcp))),
            ("of_plain", ratio(share(Carrier::Bond), share(Carrier::Plain))),
            ("of_sum_percent", ratio(bond, sum).map(|ratio| ratio * 1e2)),
            ("of_no_recovery", ratio(bond, goodput(Carrier::NoRecovery))),
            ("difference_percent", difference),
        ];
        if let Some(figures) = self.carriers.get_mut(&Carrier::Bond) {
            let known = ratios.into_iter().filter_map(|(name, ratio)| Some((name.to_owned(), ratio?)));
            figures.extend(known);
        }
    }
}

/// Name, unit and decimals of a figure that has a target.
fn describe(figure: &str) -> (&str, &str, usize) {
    match figure {
        "share_percent" => ("of attainable", " %", 1),
        "goodput_mbps" => ("beside mqvpn's best, as published", " Mbit/s", 1),
        "kept_percent" => ("of the slow rate, from 3 s after the fast one", " %", 1),
        "dropped_percent" => ("of the packets that the links were offered, dropped", " %", 2),
        "turns_down_percent" => ("the slowest download beside the first", " %", 1),
        "turns_up_percent" => ("the slowest upload beside the first", " %", 1),
        "of_others_percent" => ("of attainable without the slowest link", " %", 1),
        "of_best_link" => ("beside the best link alone", "", 2),
        "of_mptcp" => ("beside kernel MPTCP", "", 2),
        "time_s" => ("time", " s", 2),
        "of_plain" => ("beside plain links", "", 3),
        "of_no_recovery" => ("beside the bond without recovery", "", 2),
        "difference_percent" => ("difference when links are listed in the opposite order", " %", 1),
        "echo_p50_ms" => ("echo, p50", " ms", 1),
        "echo_p99_ms" => ("echo, p99", " ms", 1),
        "echo_added_p95_ms" => ("echo above its time without load, p95", " ms", 1),
        "echo_added_p99_ms" => ("echo above its time without load, p99", " ms", 1),
        "link_queue_p95_ms" => ("queue of the worst link, p95", " ms", 1),
        "idle_p50_ms" => ("ping, p50", " ms", 1),
        "others_percent" => ("bytes on other links than the nearest", " %", 1),
        "settled_down_s" => ("within 10 % of the lower rate after", " s", 2),
        "settled_up_s" => ("within 10 % of the higher rate after", " s", 2),
        "pause_ms" => ("longest pause in what arrives", " ms", 0),
        "survivor_percent" => ("of what the links carry that stay, from 1 s after the outage", " %", 1),
        "survivor_s" => ("95 % of that after", " s", 2),
        "returned_s" => ("95 % of all links again after", " s", 2),
        "echo_silence_ms" => ("longest time without an answer", " ms", 0),
        "lost_percent" => ("of a call's packets lost, each way", " %", 2),
        "extra_percent" => ("packets sent on top to make losses good", " %", 2),
        "competitor_percent" => ("the other flow's share of the first link", " %", 0),
        other => (other, "", 2),
    }
}

/// A target and the measured value.
struct Verdict<'a> {
    row: &'a str,
    what: &'a str,
    wanted: String,
    measured: String,
    /// `None`: not measured.
    met: Option<bool>,
}

impl Measured {
    pub(crate) fn new(row: &Row, at: String, ceilings: bool) -> Self {
        let own = |target: &Target<&str>| Target {
            figure: target.figure.to_owned(),
            at_least: target.at_least,
            at_most: target.at_most,
        };
        Self {
            name: row.name.to_owned(),
            scenario: row.scenario.to_owned(),
            about: row.about(),
            at,
            ceilings,
            targets: row.targets.iter().map(own).collect(),
            judged: row.carriers.first().copied().unwrap_or(Carrier::Bond),
            runs: Vec::new(),
        }
    }

    /// The median of a figure over the runs that have it.
    fn figure(&self, carrier: Carrier, name: &str) -> Option<f64> {
        median(self.runs.iter().filter_map(|run| run.carriers.get(&carrier)?.get(name).copied()))
    }

    fn verdicts(&self) -> impl Iterator<Item = Verdict<'_>> {
        self.targets.iter().map(|target| {
            let (what, unit, decimals) = describe(&target.figure);
            let limit = |value: f64| {
                let text = format!("{value:.2}");
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            };
            let wanted = match (target.at_least, target.at_most) {
                (Some(low), Some(high)) => format!("{}–{}{unit}", limit(low), limit(high)),
                (Some(low), None) => format!("≥ {}{unit}", limit(low)),
                (None, Some(high)) => format!("≤ {}{unit}", limit(high)),
                (None, None) => String::new(),
            };
            let measured = self.figure(self.judged, &target.figure);
            let met = measured.map(|value| {
                // Judged as printed.
                let scale = 10_f64.powi(i32::try_from(decimals).unwrap_or(0));
                let value = (value * scale).round() / scale;
                target.at_least.is_none_or(|low| value >= low)
                    && target.at_most.is_none_or(|high| value <= high)
            });
            let measured = measured.map_or("–".to_owned(), |value| format!("{value:.decimals$}{unit}"));
            Verdict { row: &self.name, what, wanted, measured, met }
        })
    }

    /// A carrier's figures in one line, and the less important ones in a second.
    pub(crate) fn lines(&self, carrier: Carrier) -> String {
        let figure = |name: &str| self.figure(carrier, name);
        let mut text = format!("  {:22}", carrier.title());
        let mut add = |format: &dyn Fn(f64) -> String, name: &str| {
            if let Some(value) = figure(name) {
                text.push_str(&format(value));
            }
        };
        add(&|value| format!(" {value:7.1} Mbit/s"), "goodput_mbps");
        add(&|value| format!(" {value:5.1} % of attainable"), "share_percent");
        add(&|value| format!(" (first 10 s: {value:.1} %)"), "first_percent");
        add(&|value| format!("  95 % after {value:.1} s"), "first95_s");
        add(&|value| format!("  ping {value:.1}"), "idle_p50_ms");
        add(&|value| format!(" / {value:.1} ms"), "idle_p99_ms");
        add(&|value| format!("  page {value:.0}"), "page_p50_ms");
        add(&|value| format!(" / {value:.0} ms"), "page_p95_ms");
        add(&|value| format!("  echo {value:.1} →"), "echo_base_ms");
        add(&|value| format!(" {value:.1}"), "echo_p50_ms");
        add(&|value| format!(" / {value:.1}"), "echo_p95_ms");
        add(&|value| format!(" / {value:.1} ms"), "echo_p99_ms");
        add(&|value| format!("  queue {value:.1} ms"), "link_queue_p95_ms");
        add(&|value| format!("  down {value:.2} s"), "settled_down_s");
        add(&|value| format!(" up {value:.2} s"), "settled_up_s");
        add(&|value| format!("  survivor {value:.1} %"), "survivor_percent");
        add(&|value| format!(" after {value:.2} s"), "survivor_s");
        add(&|value| format!("  back after {value:.2} s"), "returned_s");
        add(&|value| format!("  silent {value:.0} ms"), "echo_silence_ms");
        add(&|value| format!("  competitor {value:.0} %"), "competitor_percent");
        add(&|value| format!("  lost {value:.2} %"), "lost_percent");
        add(&|value| format!("  extra {value:.2} %"), "extra_percent");
        text.push_str(&self.fixed_parts(carrier));
        let links: Vec<String> = self.link_uses(carrier);
        if !links.is_empty() {
            let _ = write!(text, "\n{:25}links: {}", "", links.join(", "));
        }
        if let (Some(rss), Some(client), Some(server)) =
            (figure("rss_mib"), figure("client_cpu"), figure("server_cpu"))
        {
            let (pause, lost) =
                (figure("pause_ms").unwrap_or(0.0), figure("echo_lost_permille").unwrap_or(0.0));
            let dropped = figure("dropped_percent").unwrap_or(0.0);
            let late = figure("emulator_late").unwrap_or(0.0);
            let _ = write!(
                text,
                "; pause {pause:.0} ms, dropped {dropped:.2} %, echo lost {lost:.1} ‰, {rss:.1} MiB, cpu {client:.2} / {server:.2}, \
                 emulator late {late:.0} times"
            );
        }
        text
    }

    /// The figures of loads with an amount or a course of their own, for [`Self::lines`].
    fn fixed_parts(&self, carrier: Carrier) -> String {
        let mut text = String::new();
        let mut add = |format: &dyn Fn(f64) -> String, name: &str| {
            if let Some(value) = self.figure(carrier, name) {
                text.push_str(&format(value));
            }
        };
        add(&|value| format!("  in {value:.2} s"), "time_s");
        add(&|value| format!("  the first {value:.1}"), "first_mbps");
        add(
            &|value| if value > 0.0 { format!("  {value:.0} not finished") } else { String::new() },
            "unfinished",
        );
        add(&|value| format!("  all links alone {value:.1}"), "sum_mbps");
        add(&|value| format!("  down {value:.1} at first"), "first_down_mbps");
        add(&|value| format!(", at least {value:.1} % of it"), "turns_down_percent");
        add(&|value| format!("  up {value:.1} at first"), "first_up_mbps");
        add(&|value| format!(", at least {value:.1} % of it"), "turns_up_percent");
        add(&|value| format!("  {value:.0} Mbit/s"), "fast_mbps");
        add(&|value| format!(", then {value:.1} % of 30"), "kept_percent");
        add(&|value| format!(" for good after {value:.2} s"), "lasting_s");
        add(&|value| format!("  others {value:.1} %"), "others_percent");
        text
    }

    /// The used share of each link's rate.
    fn link_uses(&self, carrier: Carrier) -> Vec<String> {
        let Some(figures) = self.runs.first().and_then(|run| run.carriers.get(&carrier)) else {
            return Vec::new();
        };
        let names = figures.keys().filter_map(|key| key.strip_prefix("use_")?.strip_suffix("_percent"));
        let part = |name: &str| {
            Some(format!("{name} {:.0} %", self.figure(carrier, &format!("use_{name}_percent"))?))
        };
        names.filter_map(part).collect()
    }

    /// The targets, one line each.
    pub(crate) fn print_targets(&self) {
        for verdict in self.verdicts() {
            verdict.print();
        }
    }
}

impl Verdict<'_> {
    fn word(&self) -> &'static str {
        match self.met {
            Some(true) => "ok",
            Some(false) => "MISS",
            None => "–",
        }
    }

    fn print(&self) {
        let Self { row, what, wanted, measured, .. } = self;
        println!("  {:5} {row:18} {what:55} {wanted:>10}  {measured:>10}", self.word());
    }
}

impl Report {
    /// All targets of some rows.
    pub(crate) fn print_targets(&self, chosen: &[Row]) {
        println!("\nTargets");
        let is_chosen = |row: &&Measured| chosen.iter().any(|other| other.name == row.name);
        for row in self.rows.iter().filter(is_chosen) {
            row.print_targets();
        }
        let verdicts: Vec<_> = self.rows.iter().filter(is_chosen).flat_map(Measured::verdicts).collect();
        let missed = verdicts.iter().filter(|verdict| verdict.met == Some(false)).count();
        let unknown = verdicts.iter().filter(|verdict| verdict.met.is_none()).count();
        println!("  {} targets, {missed} missed, {unknown} not measured", verdicts.len());
    }

    /// A description of the machine.
    fn machine(&self) -> String {
        let busy: Vec<f64> =
            self.rows.iter().flat_map(|row| &row.runs).map(|run| run.busy_before_percent).collect();
        let late = |row: &Measured| row.figure(Carrier::Bond, "emulator_late");
        let late = self.rows.iter().filter_map(late).fold(0.0, f64::max);
        let runs = self.rows.iter().map(|row| row.runs.len()).min().unwrap_or(0);
        let is_shorter = |row: &Measured| {
            row.runs.iter().map(|run| run.carriers.len()).min()
                < row.runs.first().map(|run| run.carriers.len())
        };
        let others =
            if self.rows.iter().any(is_shorter) { ", of what the bond is compared with one" } else { "" };
        let times = || self.rows.iter().map(|row| row.at.as_str());
        let configured = self.rows.iter().filter(|row| row.ceilings).count();
        format!(
            "Medians of {runs} run{}{others}, made from {} to {} on Linux {} with {} processors; rates of links configured in {configured} of {} \
             rows. Before each run other work took {:.0} % of the processors (median; at most {:.0} %). The emulator was over a \
             millisecond late at most {late:.0} times in a row's transfer.",
            if runs == 1 { "" } else { "s" },
            times().min().unwrap_or("?"),
            times().max().unwrap_or("?"),
            self.kernel,
            self.processors,
            self.rows.len(),
            median(busy.iter().copied()).unwrap_or(0.0),
            busy.iter().copied().fold(0.0, f64::max),
        )
    }

    /// Adds a row; it replaces an earlier one of that name.
    pub(crate) fn put(&mut self, row: Measured) {
        match self.rows.iter_mut().find(|other| other.name == row.name) {
            Some(other) => *other = row,
            None => self.rows.push(row),
        }
        let rows = crate::table::all();
        let order: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        let place = |row: &Measured| order.iter().position(|name| *name == row.name);
        self.rows.sort_by_key(|row| place(row).unwrap_or(order.len()));
    }

    /// The short table of the README: one download without configured rates, beside the other
    /// carriers.
    pub(crate) fn to_summary(&self) -> String {
        let mut text = String::from(
            "| links | best link alone | round robin | kernel MPTCP | bond | of attainable | echo, alone → during it |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for row in self.rows.iter().filter(|row| SUMMARY.contains(&row.name.as_str())) {
            let bond = |name: &str| cell(row.figure(Carrier::Bond, name), 1);
            let goodput = |carrier: Carrier| cell(row.figure(carrier, "goodput_mbps"), 1);
            let scenario = bonding_netem::scenario::find(&row.scenario);
            let about = scenario.map_or(row.scenario.clone(), |scenario| scenario.description);
            let load = if row.about == SUMMARY_LOAD { String::new() } else { format!("; {}", row.about) };
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {about}{load} | {} | {} | {} | {} | {} % | {} → {} ms |",
                goodput(Carrier::Single),
                goodput(Carrier::RoundRobin),
                goodput(Carrier::Mptcp),
                goodput(Carrier::Bond),
                bond("share_percent"),
                bond("echo_base_ms"),
                bond("echo_p50_ms"),
            );
        }
        text
    }

    /// The tables of docs/benchmarks.md.
    pub(crate) fn to_markdown(&self) -> String {
        let mut text = format!("{}\n\n### Targets\n", self.machine());
        text.push_str("| row | what | target | measured | |\n| --- | --- | --- | --- | --- |\n");
        for verdict in self.rows.iter().flat_map(Measured::verdicts) {
            let Verdict { row, what, wanted, measured, .. } = &verdict;
            let word = if verdict.met == Some(false) { "**MISS**" } else { verdict.word() };
            let _ = writeln!(text, "| {row} | {what} | {wanted} | {measured} | {word} |");
        }
        text.push_str("\n### Transfers\n");
        text.push_str(
            "| row | load | best link alone | round robin | kernel MPTCP | bond without recovery | bond, Mbit/s | of attainable | 95 % after \
             | echo: alone → p50 / p95 / p99 ms | worst queue ms | pause ms | MiB | CPU client / server |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for row in &self.rows {
            if let Some(line) = row.transfer_line() {
                text.push_str(&line);
            }
        }
        text.push_str("\n### New connections\n");
        text.push_str(
            "| row | load | best link alone | all links alone | round robin | kernel MPTCP | TCP as packets | bond, Mbit/s | the first | seconds | of attainable | not finished |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for row in &self.rows {
            if let Some(line) = row.fetch_line() {
                text.push_str(&line);
            }
        }
        text.push_str("\n### Light traffic\n");
        text.push_str(
            "| row | over | p50 / p99 (page: p95) ms | bytes on other links | without traffic, kbit/s |\n\
             | --- | --- | --- | --- | --- |\n",
        );
        for row in &self.rows {
            text.push_str(&row.light_lines());
        }
        text
    }

    pub(crate) fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

/// The rows of the short table: eight, so that it has ten lines with its head.
const SUMMARY: [&str; 8] = [
    "reference-1-down",
    "reference-4-down",
    "dual-1-down",
    "hetero-1-down",
    "lossy-1-down",
    "failover-1-down",
    "varying-4-down",
    "satphone-1-down",
];

/// The load that the short table's rows have unless they say otherwise.
const SUMMARY_LOAD: &str = "1 download by TCP cubic";

/// A figure in a cell of a table.
fn cell(value: Option<f64>, decimals: usize) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.decimals$}"))
}

impl Measured {
    fn transfer_line(&self) -> Option<String> {
        let bond = |name: &str| self.figure(Carrier::Bond, name);
        let goodput = |carrier: Carrier| cell(self.figure(carrier, "goodput_mbps"), 1);
        bond("goodput_mbps")?;
        if bond("time_s").is_some() {
            return None;
        }
        Some(format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} % | {} s | {} → {} / {} / {} | {} | {} | {} | {} / {} |\n",
            self.name,
            self.about,
            goodput(Carrier::Single),
            goodput(Carrier::RoundRobin),
            goodput(Carrier::Mptcp),
            goodput(Carrier::NoRecovery),
            goodput(Carrier::Bond),
            cell(bond("share_percent"), 1),
            cell(bond("first95_s"), 1),
            cell(bond("echo_base_ms"), 1),
            cell(bond("echo_p50_ms"), 1),
            cell(bond("echo_p95_ms"), 1),
            cell(bond("echo_p99_ms"), 1),
            cell(bond("link_queue_p95_ms"), 1),
            cell(bond("pause_ms"), 0),
            cell(bond("rss_mib"), 1),
            cell(bond("client_cpu"), 2),
            cell(bond("server_cpu"), 2),
        ))
    }

    fn fetch_line(&self) -> Option<String> {
        let bond = |name: &str| self.figure(Carrier::Bond, name);
        let goodput = |carrier: Carrier| cell(self.figure(carrier, "goodput_mbps"), 1);
        bond("time_s")?;
        Some(format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} % | {} |\n",
            self.name,
            self.about,
            goodput(Carrier::Single),
            cell(self.figure(Carrier::Single, "sum_mbps"), 1),
            goodput(Carrier::RoundRobin),
            goodput(Carrier::Mptcp),
            goodput(Carrier::Packets),
            goodput(Carrier::Bond),
            cell(bond("first_mbps"), 1),
            cell(bond("time_s"), 2),
            cell(bond("share_percent"), 1),
            cell(bond("unfinished"), 0),
        ))
    }

    fn light_lines(&self) -> String {
        let mut text = String::new();
        let carriers = [Carrier::Single, Carrier::RoundRobin, Carrier::Mptcp, Carrier::Bond];
        for carrier in carriers {
            let figure = |name: &str| self.figure(carrier, name);
            let Some(others) = figure("others_percent") else { continue };
            let (low, high) = (
                figure("idle_p50_ms").or(figure("page_p50_ms")),
                figure("idle_p99_ms").or(figure("page_p95_ms")),
            );
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} / {} | {others:.1} % | {} |",
                self.name,
                carrier.title(),
                cell(low, 1),
                cell(high, 1),
                cell(figure("background_kbps"), 0),
            );
        }
        text
    }
}
