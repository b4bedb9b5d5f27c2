//! Plots of what happens on each link over time: rate, round-trip time and queue; `cargo xtask bench plot` runs it.
//!
//! The data is either a run of the simulator, and then the same on every machine, or a file that `cargo xtask bench lab
//! --trace` or `--bin replay` wrote: columns `time_s`, `link`, `link_mbps`, `link_capacity_mbps`, `capacity_mbps`, `rtt_ms` and
//! `link_queue_ms` are looked for by name.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use bonding_netem::scenario;
use bonding_proto::config::Policy;
use bonding_sim::run::{RunSpec, System, Workload, run};
use bonding_sim::table;
use bonding_sim::trace::Trace;
use plotters::coord::Shift;
use plotters::prelude::*;

const USAGE: &str = "usage: plot [--out FOLDER] [SCENARIO…]       runs of the simulator
       plot [--out FOLDER] --from FILE.csv…   what `bench lab --trace` wrote
Writes FOLDER/NAME.svg for each; FOLDER is docs/plots unless named, the scenarios reference, varying and step.";

/// The plots that are kept in the repository, each with its load.
const KEPT: [(&str, &str); 3] =
    [("reference", "quic-cubic-down-4"), ("varying", "quic-cubic-down-4"), ("step", "quic-cubic-down-4")];
/// The load of any other scenario.
const LOAD: &str = "quic-cubic-down-4";
const KEPT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/plots");
const SIZE: (u32, u32) = (900, 780);
/// A colour for each link, told apart also by those who see few (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// One link over time; what is not known at a time is left out.
#[derive(Debug, Default)]
struct Link {
    name: String,
    rate: Vec<(f64, f64)>,
    capacity: Vec<(f64, f64)>,
    estimate: Vec<(f64, f64)>,
    rtt: Vec<(f64, f64)>,
    queue: Vec<(f64, f64)>,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut out, mut from, mut names) = (PathBuf::from(KEPT_IN), false, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--out" => out = anchored(&arguments.next().context(USAGE)?),
            "--from" => from = true,
            option if option.starts_with('-') => bail!("unknown option {option}\n{USAGE}"),
            _ => names.push(argument),
        }
    }
    ensure!(!from || !names.is_empty(), USAGE);
    if names.is_empty() {
        names = KEPT.iter().map(|(name, _)| (*name).to_owned()).collect();
    }
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    for name in names {
        let (stem, title, csv) = if from { read(&anchored(&name))? } else { simulate(&name)? };
        let links = parse(&csv).with_context(|| name.clone())?;
        let file = out.join(stem).with_extension("svg");
        draw(&file, &title, &links).with_context(|| format!("cannot draw {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

/// Relative files are meant from where the caller of `cargo xtask` stands.
fn anchored(file: &str) -> PathBuf {
    std::env::var_os("BENCH_WORKING_DIRECTORY").map_or_else(PathBuf::new, PathBuf::from).join(file)
}

/// Name, title and figures of a file.
fn read(file: &Path) -> anyhow::Result<(String, String, String)> {
    let csv = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let stem = file.file_stem().context("a file without a name")?.to_string_lossy().into_owned();
    let title = format!("{stem}: kernel TCP over emulated links");
    Ok((stem, title, csv))
}

/// Name, title and figures of a run in virtual time.
fn simulate(name: &str) -> anyhow::Result<(String, String, String)> {
    let scenario = scenario::find(name)?;
    let load = KEPT.iter().find(|(kept, _)| *kept == scenario.name).map_or(LOAD, |(_, load)| load);
    let workload = Workload::parse(load).context("a workload of this program")?;
    let (name, description) = (scenario.name.clone(), scenario.description.clone());
    let spec = RunSpec::new(scenario, System::Bond(Policy::Adaptive), workload, table::SEED);
    let mut trace = Trace::new();
    run(&spec, Some(&mut trace));
    Ok((name, format!("{description}; {load}, simulated"), trace.into_csv()))
}

/// The links of a file in the order of their first lines.
fn parse(csv: &str) -> anyhow::Result<Vec<Link>> {
    let mut lines = csv.lines();
    let head: Vec<&str> = lines.next().context("the file is empty")?.split(',').collect();
    let column = |name: &str| {
        head.iter().position(|column| *column == name).with_context(|| format!("no column {name}"))
    };
    let (time, link) = (column("time_s")?, column("link")?);
    let columns = ["link_mbps", "link_capacity_mbps", "capacity_mbps", "rtt_ms", "link_queue_ms"].map(column);
    let mut links: Vec<Link> = Vec::new();
    let columns: Vec<usize> = columns.into_iter().collect::<Result<_, _>>()?;
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |column: usize| cells.get(column)?.parse::<f64>().ok().filter(|value| value.is_finite());
        let (Some(at), Some(name)) = (number(time), cells.get(link)) else {
            bail!("no time or link: {line}")
        };
        if !links.iter().any(|link| link.name == *name) {
            links.push(Link { name: (*name).to_owned(), ..Link::default() });
        }
        let Some(link) = links.iter_mut().find(|link| link.name == *name) else { continue };
        let series = [&mut link.rate, &mut link.capacity, &mut link.estimate, &mut link.rtt, &mut link.queue];
        for (series, column) in series.into_iter().zip(&columns) {
            series.extend(number(*column).map(|value| (at, value)));
        }
    }
    Ok(links)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(file: &Path, title: &str, links: &[Link]) -> anyhow::Result<()> {
    // Rendered in memory: a drawing area reports what went wrong with a file only sometimes.
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let panels = root.titled(title, ("sans-serif", 14))?.split_evenly((3, 1));
        let [rate, rtt, queue] = panels.as_slice() else { bail!("three panels were asked for") };
        let rates = "Mbit/s: delivered, the link's own (pale), believed (thin)";
        panel(
            rate,
            rates,
            links,
            &[
                (|link| &link.capacity, Look::Pale),
                (|link| &link.estimate, Look::Thin),
                (|link| &link.rate, Look::Plain),
            ],
        )?;
        panel(rtt, "round-trip time, ms", links, &[(|link| &link.rtt, Look::Plain)])?;
        panel(queue, "the link's queue, ms (over time in s)", links, &[(|link| &link.queue, Look::Plain)])?;
        root.present()?;
    }
    Ok(std::fs::write(file, svg)?)
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    Thin,
    Pale,
}

type Pick = fn(&Link) -> &Vec<(f64, f64)>;

/// One of the three, with a line for each link and series.
fn panel(area: &Area<'_>, caption: &str, links: &[Link], series: &[(Pick, Look)]) -> anyhow::Result<()> {
    let points = || links.iter().flat_map(|link| series.iter().flat_map(move |(pick, _)| pick(link)));
    let end = points().map(|(at, _)| *at).fold(1.0, f64::max);
    let top = points().map(|(_, value)| *value).fold(1.0, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 13))
        .margin(6)
        .x_label_area_size(22)
        .y_label_area_size(48)
        // Room for the key, beside the lines.
        .build_cartesian_2d(0.0..end * 1.1, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(12)
        .y_labels(6)
        .x_label_formatter(&|at| format!("{at:.0}"))
        .draw()?;
    for (pick, look) in series {
        for (link, colour) in links.iter().zip(COLOURS.iter().cycle()) {
            let style = match look {
                Look::Plain => colour.stroke_width(2),
                Look::Thin => colour.mix(0.8).stroke_width(1),
                Look::Pale => colour.mix(0.25).stroke_width(4),
            };
            let drawn = chart.draw_series(LineSeries::new(pick(link).iter().copied(), style))?;
            if *look == Look::Plain {
                let key = *colour;
                drawn
                    .label(&link.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], key.stroke_width(2)));
            }
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}
