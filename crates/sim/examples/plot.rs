//! Plots of what happens on each link over time; `cargo xtask bench plot` runs it.
//!
//! Two forms. The default form has one panel each for rate, round-trip time and queue, and one line
//! for each link. The form `--stacked` shows one download as the sum of its links, and the delay of
//! a game beside it.
//!
//! The data is a run of the simulator (the same on every machine) or, for the default form, a file
//! that `cargo xtask bench lab --trace` or `--bin replay` wrote. Columns are found by name:
//! `time_s`, `link`, `link_mbps`, `link_capacity_mbps`, `capacity_mbps`, `rtt_ms`, `link_queue_ms`
//! and, for `--stacked`, `echo_ms_max`.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use bonding_netem::scenario;
use bonding_netem::{Change, Direction, Scenario};
use bonding_proto::config::Policy;
use bonding_sim::run::{RunSpec, System, Workload, run};
use bonding_sim::table;
use bonding_sim::trace::Trace;
use plotters::coord::Shift;
use plotters::prelude::*;

const USAGE: &str = "usage: plot [--out FOLDER] [SCENARIO…]             runs of the simulator, a line for each link
       plot [--out FOLDER] --stacked [SCENARIO…]   one download as the sum of its links, and a game beside it
       plot [--out FOLDER] --from FILE.csv…        what `bench lab --trace` wrote
Writes FOLDER/NAME.svg for each, or FOLDER/NAME-stacked.svg. FOLDER is docs/plots unless named. The scenarios are
reference, varying and step unless named, with --stacked failover-5. Without arguments all of these are written.";

/// The plots that are kept in the repository, each with its load.
const KEPT: [(&str, &str); 3] =
    [("reference", "quic-cubic-down-4"), ("varying", "quic-cubic-down-4"), ("step", "quic-cubic-down-4")];
/// The load of any other scenario.
const LOAD: &str = "quic-cubic-down-4";
/// The stacked plot that is kept, and its load: the README shows it.
const STACKED: &str = "failover-5";
const STACKED_LOAD: &str = "quic-cubic-down-1";
const KEPT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/plots");
const SIZE: (u32, u32) = (900, 780);
/// A colour for each link. Readers with colour blindness can tell them apart (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// One link over time, as points (seconds, value). A value that is not known has no point.
#[derive(Debug, Default)]
struct Link {
    name: String,
    rate: Vec<(f64, f64)>,
    capacity: Vec<(f64, f64)>,
    estimate: Vec<(f64, f64)>,
    rtt: Vec<(f64, f64)>,
    queue: Vec<(f64, f64)>,
}

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A line for each link: runs of the simulator.
    Lines,
    /// A line for each link: files.
    Files,
    /// The links of one download, stacked.
    Stacked,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut out, mut form, mut names) = (PathBuf::from(KEPT_IN), None, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--out" => out = anchored(&arguments.next().context(USAGE)?),
            "--from" => form = Some(Form::Files),
            "--stacked" => form = Some(Form::Stacked),
            option if option.starts_with('-') => bail!("unknown option {option}\n{USAGE}"),
            _ => names.push(argument),
        }
    }
    ensure!(form != Some(Form::Files) || !names.is_empty(), USAGE);
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    if names.is_empty() && form != Some(Form::Files) {
        if form != Some(Form::Stacked) {
            KEPT.iter().try_for_each(|(name, _)| lines(name, Form::Lines, &out))?;
        }
        return stacked(STACKED, &out);
    }
    names.iter().try_for_each(|name| match form.unwrap_or(Form::Lines) {
        Form::Stacked => stacked(name, &out),
        form @ (Form::Lines | Form::Files) => lines(name, form, &out),
    })
}

/// Writes the plot of a scenario or a file, a line for each link.
fn lines(name: &str, form: Form, out: &Path) -> anyhow::Result<()> {
    let (stem, title, csv) = if form == Form::Files { read(&anchored(name))? } else { simulate(name)? };
    let links = parse(&csv).with_context(|| name.to_owned())?;
    let file = out.join(stem).with_extension("svg");
    draw(&file, &title, &links).with_context(|| format!("cannot draw {}", file.display()))?;
    println!("{}", file.display());
    Ok(())
}

/// Resolves a relative path from the folder in which `cargo xtask` was called.
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
    let (name, description) = (scenario.name.clone(), scenario.description.clone());
    Ok((name, format!("{description}; {load}, simulated"), play(scenario, load)?))
}

/// The figures of a run with this load.
fn play(scenario: Scenario, load: &str) -> anyhow::Result<String> {
    let workload = Workload::parse(load).context("a workload of this program")?;
    let spec = RunSpec::new(scenario, System::Bond(Policy::Adaptive), workload, table::SEED);
    let mut trace = Trace::new();
    run(&spec, Some(&mut trace));
    Ok(trace.into_csv())
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
    // Rendered in memory: a drawing area does not report every failure to write a file.
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

/// The style of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    Thin,
    Pale,
}

type Pick = fn(&Link) -> &Vec<(f64, f64)>;

/// Draws one panel, with a line for each link and series.
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

const STACKED_SIZE: (u32, u32) = (900, 560);
/// Samples of a moving mean: half a second, so that single round trips do not hide the shape.
const MEAN_SAMPLES: usize = 5;
/// The top of the delay's axis, ms: the round trip of the far links and some room.
const DELAY_TOP: f64 = 100.0;
const GREY: RGBColor = RGBColor(110, 110, 110);

/// Writes the stacked plot of a scenario.
fn stacked(name: &str, out: &Path) -> anyhow::Result<()> {
    let scenario = scenario::find(name)?;
    let stem = format!("{}-stacked", scenario.name);
    let cuts = cuts(&scenario);
    let csv = play(scenario, STACKED_LOAD)?;
    let links = parse(&csv).with_context(|| name.to_owned())?;
    let delay = delays(&csv)?;
    let file = out.join(stem).with_extension("svg");
    let svg = draw_stacked(&links, &delay, &cuts);
    let svg = svg.with_context(|| format!("cannot draw {}", file.display()))?;
    std::fs::write(&file, svg).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{}", file.display());
    Ok(())
}

/// When each link is cut, seconds.
fn cuts(scenario: &Scenario) -> Vec<(String, Range<f64>)> {
    let down = scenario.events.iter().filter(|event| event.direction == Direction::Down);
    let mut cuts: Vec<(String, Range<f64>)> = Vec::new();
    for event in down {
        let Change::Outage(begins) = event.change else { continue };
        let at = event.at.as_secs_f64();
        if begins {
            cuts.push((event.link.clone(), at..scenario.duration.as_secs_f64()));
        } else if let Some((_, cut)) = cuts.iter_mut().rfind(|(link, _)| *link == event.link) {
            cut.end = at;
        }
    }
    cuts
}

/// The longest round trip of the sparse flow in each sample, ms.
fn delays(csv: &str) -> anyhow::Result<Vec<(f64, f64)>> {
    let mut lines = csv.lines();
    let head: Vec<&str> = lines.next().context("no head")?.split(',').collect();
    let column = |name: &str| {
        head.iter().position(|column| *column == name).with_context(|| format!("no column {name}"))
    };
    let (time, echo) = (column("time_s")?, column("echo_ms_max")?);
    let mut delays: Vec<(f64, f64)> = Vec::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |column: usize| cells.get(column)?.parse::<f64>().ok();
        if let (Some(at), Some(ms)) = (number(time), number(echo))
            // Each sample has one line for each link.
            && delays.last().is_none_or(|(last, _)| *last < at)
        {
            delays.push((at, ms));
        }
    }
    Ok(delays)
}

/// The mean of each sample and those around it.
fn smoothed(series: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let around = |place: usize| {
        let from = place.saturating_sub(MEAN_SAMPLES / 2);
        let near = series.get(from..(place + MEAN_SAMPLES / 2 + 1).min(series.len())).unwrap_or_default();
        near.iter().map(|(_, value)| value).sum::<f64>() / near.len().max(1) as f64
    };
    series.iter().enumerate().map(|(place, (at, _))| (*at, around(place))).collect()
}

/// Draws the links' rates on top of one another, and the delay below them.
fn draw_stacked(
    links: &[Link],
    delay: &[(f64, f64)],
    cuts: &[(String, Range<f64>)],
) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, STACKED_SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (rates, below) = root.split_vertically(350);
        draw_rates(&rates, links, cuts)?;
        draw_delay(&below, delay, cuts)?;
        root.present()?;
    }
    Ok(svg)
}

fn draw_rates(area: &Area<'_>, links: &[Link], cuts: &[(String, Range<f64>)]) -> anyhow::Result<()> {
    let series: Vec<Vec<(f64, f64)>> = links.iter().map(|link| smoothed(&link.rate)).collect();
    let end = series.iter().flatten().map(|(at, _)| *at).fold(1.0, f64::max);
    let capacity = |link: &Link| link.capacity.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let best = links.iter().map(capacity).fold(0.0, f64::max);
    let top = links.iter().map(capacity).sum::<f64>() * 1.15;
    let caption = format!(
        "One download over {} links: Mbit/s over each, stacked (means of half a second)",
        links.len()
    );
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 17))
        .margin(8)
        .x_label_area_size(20)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..end * 1.1, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .disable_x_mesh()
        .x_labels(12)
        .y_labels(7)
        .label_style(("sans-serif", 13))
        .x_label_formatter(&|at| if *at > end { String::new() } else { format!("{at:.0} s") })
        .y_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    let mut floor: Vec<(f64, f64)> =
        series.first().map_or_else(Vec::new, |first| first.iter().map(|(at, _)| (*at, 0.0)).collect());
    for ((link, rates), colour) in links.iter().zip(&series).zip(COLOURS) {
        let ceiling: Vec<(f64, f64)> =
            floor.iter().zip(rates).map(|((at, below), (_, rate))| (*at, below + rate)).collect();
        let outline: Vec<(f64, f64)> = ceiling.iter().copied().chain(floor.into_iter().rev()).collect();
        chart.draw_series([Polygon::new(outline, colour.mix(0.75))])?;
        if let Some((at, _)) = ceiling.last() {
            let place = (at + end * 0.01, label_height(&ceiling, rates).max(top * 0.045));
            let style = ("sans-serif", 14).into_font().color(&colour);
            chart.draw_series([Text::new(link.name.clone(), place, style)])?;
        }
        floor = ceiling;
    }
    let alone = format!("the best link alone: {best:.0} at most");
    chart.draw_series([PathElement::new([(0.0, best), (end, best)], BLACK.stroke_width(2))])?;
    chart.draw_series([Text::new(alone, (end * 0.12, best + top * 0.055), ("sans-serif", 14))])?;
    for (link, span) in cuts {
        let frame = [(span.start, 0.0), (span.start, top), (span.end, top), (span.end, 0.0)];
        chart.draw_series([PathElement::new(frame, GREY.stroke_width(2))])?;
        let text = format!("{link} is cut without a word");
        let place = (span.start + end * 0.01, top * 0.975);
        chart.draw_series([Text::new(text, place, ("sans-serif", 14).into_font().color(&GREY))])?;
    }
    Ok(())
}

/// The height of a link's name: the middle of its last share.
fn label_height(ceiling: &[(f64, f64)], rates: &[(f64, f64)]) -> f64 {
    let last = |series: &[(f64, f64)]| series.last().map_or(0.0, |(_, value)| *value);
    last(ceiling) - last(rates) / 2.0
}

fn draw_delay(area: &Area<'_>, delay: &[(f64, f64)], cuts: &[(String, Range<f64>)]) -> anyhow::Result<()> {
    let end = delay.iter().map(|(at, _)| *at).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("A game beside it: its longest round trip in each tenth of a second, ms", ("sans-serif", 17))
        .margin(8)
        .x_label_area_size(20)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..end * 1.1, 0.0..DELAY_TOP)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .disable_x_mesh()
        .x_labels(12)
        .y_labels(5)
        .label_style(("sans-serif", 13))
        .x_label_formatter(&|at| if *at > end { String::new() } else { format!("{at:.0} s") })
        .y_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    for (_, span) in cuts {
        for at in [span.start, span.end] {
            chart.draw_series([PathElement::new([(at, 0.0), (at, DELAY_TOP)], GREY.stroke_width(2))])?;
        }
    }
    chart.draw_series(LineSeries::new(delay.iter().copied(), BLACK.stroke_width(2)))?;
    Ok(())
}
