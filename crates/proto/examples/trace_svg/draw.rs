//! The panels: one for each link, one for gaps, one for flows, all over the same time.

use std::fmt::Write as _;

use bonding_proto::trace::{Cause, GapEnd, PhaseKind};
use bonding_proto::view::LinkState;

use crate::model::{BINS, Link, Model, causes, ends};
use crate::svg::Svg;

const WIDTH: f64 = 990.0;
const LEFT: f64 = 72.0;
/// Width of a bin.
const BIN: f64 = 2.0;
const RIGHT: f64 = LEFT + BIN * BINS as f64;
const RATE_HEIGHT: f64 = 96.0;
const ROW_HEIGHT: f64 = 16.0;
const GAP_HEIGHT: f64 = 90.0;
/// Between panels.
const SPACE: f64 = 34.0;
const GRID: &str = "#e4e4e4";
const LOST: &str = "#D55E00";
const RESENT: &str = "#0072B2";
const SUSPECT: &str = "#fdf3c0";
const DOWN: &str = "#d9d9d9";
/// Colours that people with a colour deficiency tell apart as well (Okabe and Ito, 2008).
const LINKS: [&str; 7] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];

const PHASES: [(PhaseKind, &str); 3] =
    [(PhaseKind::Startup, "#56B4E9"), (PhaseKind::Steady, "#009E73"), (PhaseKind::Competing, "#CC79A7")];

const fn end_colour(by: GapEnd) -> &'static str {
    match by {
        GapEnd::Arrived => "#009E73",
        GapEnd::Restored => "#56B4E9",
        GapEnd::Known => "#E69F00",
        GapEnd::Time => "#D55E00",
        GapEnd::Overflow | GapEnd::Urgent | GapEnd::Restart => "#000000",
    }
}

/// The letter of a cause.
const fn letter(cause: Cause) -> char {
    match cause {
        Cause::OwnQueue => 'Q',
        Cause::LongerPath => 'L',
        Cause::Competitor => 'C',
        Cause::Policer => 'P',
        Cause::RandomLoss => 'R',
        Cause::Burst => 'B',
        Cause::Stall => 'S',
        Cause::EcnMark => 'E',
        Cause::Ceiling => 'T',
        Cause::Search => '+',
        Cause::CompetitorGone => 'G',
        Cause::Outage => 'O',
        Cause::EcnMeaningless => 'N',
        Cause::Restart => '0',
        _ => '?',
    }
}

fn x(bin: usize) -> f64 {
    LEFT + BIN * bin as f64
}

/// The whole plot.
pub(crate) fn draw(model: &Model, title: &str) -> String {
    let mut svg = Svg::default();
    svg.text((LEFT, 22.0), "start", "title", title);
    let mut y = legend(&mut svg, model, 42.0) + SPACE;
    for link in &model.links {
        y = link_panel(&mut svg, model, link, y) + SPACE;
    }
    if !model.waits.is_empty() || model.late.iter().any(|count| *count > 0) {
        y = gap_panel(&mut svg, model, y) + SPACE;
    }
    if !model.flows.is_empty() {
        y = flow_panel(&mut svg, model, y) + SPACE;
    }
    if model.records_lost > 0 {
        let text = format!("{} records found no room and are missing", model.records_lost);
        svg.text((LEFT, y), "start", "name", &text);
        y += SPACE;
    }
    svg.finish(WIDTH, y)
}

/// Explains colours and marks; gives the lower edge.
fn legend(svg: &mut Svg, model: &Model, y: f64) -> f64 {
    let mut at = LEFT;
    let mut line = y;
    let mut entry = |svg: &mut Svg, key: &dyn Fn(&mut Svg, f64, f64), text: &str| {
        // Six pixels a letter.
        let width = 30.0 + text.len() as f64 * 6.0;
        if at + width > RIGHT {
            (at, line) = (LEFT, line + 18.0);
        }
        key(svg, at, line);
        svg.text((at + 20.0, line + 4.0), "start", "", text);
        at += width;
    };
    for (phase, colour) in PHASES {
        // In the first phase no capacity is known.
        if phase == PhaseKind::Startup {
            let dashes = |svg: &mut Svg, x: f64, y: f64| svg.dashed(&format!("M{x:.0} {y:.0}h16"), colour);
            entry(svg, &dashes, "startup: paced at");
        } else {
            let name = format!("{}: capacity", phase.name());
            entry(svg, &|svg, x, y| svg.path(&format!("M{x:.0} {y:.0}h16"), colour, 3.0), &name);
        }
    }
    for (fill, name) in [(SUSPECT, "link suspect"), (DOWN, "link down")] {
        entry(svg, &|svg, x, y| svg.rect((x, y - 5.0), (16.0, 10.0), fill), name);
    }
    for (colour, name) in [(LOST, "packets lost"), (RESENT, "sent again")] {
        entry(svg, &|svg, x, y| svg.path(&format!("M{:.0} {:.0}v-10", x + 8.0, y + 5.0), colour, 3.0), name);
    }
    for by in ends(model) {
        let name = format!("gap {}", by.name().replace('_', " "));
        let dot = |svg: &mut Svg, x: f64, y: f64| {
            svg.path(&format!("M{:.0} {y:.0}h4", x + 6.0), end_colour(by), 4.0);
        };
        entry(svg, &dot, &name);
    }
    for cause in causes(model) {
        let name = format!("cause {}", cause.name().replace('_', " "));
        entry(svg, &|svg, x, y| svg.mark((x + 8.0, y), letter(cause)), &name);
    }
    line
}

/// A round number that divides `most` into some four steps.
fn step_of(most: f64) -> f64 {
    let rough = (most / 4.0).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= rough).unwrap_or(rough)
}

/// A number without needless digits.
fn number(value: f64, step: f64) -> String {
    let digits = [1.0, 0.1, 0.01].iter().position(|unit| step >= *unit * 0.999).unwrap_or(3);
    format!("{value:.digits$}")
}

/// Lines for round times through a panel, with their labels below it.
fn time_axis(svg: &mut Svg, model: &Model, (top, bottom): (f64, f64), has_labels: bool) {
    let step = step_of(model.span_s * 4.0 / 10.0);
    let mut grid = String::new();
    let mut at = (model.from_s / step).ceil() * step;
    while at <= model.from_s + model.span_s {
        let x = LEFT + (at - model.from_s) / model.span_s * (RIGHT - LEFT);
        let _ = write!(grid, "M{x:.0} {top:.0}V{bottom:.0}");
        if has_labels {
            svg.text((x, bottom + 12.0), "middle", "small", &format!("{} s", number(at, step)));
        }
        at += step;
    }
    svg.path(&grid, GRID, 1.0);
}

/// Lines for round values across a panel, with their labels; gives the value at its upper edge.
fn value_axis(svg: &mut Svg, most: f64, (top, bottom): (f64, f64), unit: &str) -> f64 {
    let step = step_of(most);
    let top_value = (most / step).ceil().max(1.0) * step;
    let mut grid = String::new();
    let mut value = 0.0;
    while value <= top_value * 1.001 {
        let y = bottom - value / top_value * (bottom - top);
        let _ = write!(grid, "M{LEFT:.0} {y:.0}H{RIGHT:.0}");
        svg.text((LEFT - 6.0, y + 4.0), "end", "small", &number(value, step));
        value += step;
    }
    svg.path(&grid, GRID, 1.0);
    svg.text((LEFT - 6.0, top - 8.0), "end", "small", unit);
    top_value
}

fn link_panel(svg: &mut Svg, model: &Model, link: &Link, top: f64) -> f64 {
    let bottom = top + RATE_HEIGHT;
    let lower = bottom + 2.0 * ROW_HEIGHT + 4.0;
    for (at, (from, state)) in link.states.iter().enumerate() {
        let to = link.states.get(at + 1).map_or(BINS, |(bin, _)| *bin);
        let fill = match state {
            LinkState::Up => continue,
            LinkState::Suspect => SUSPECT,
            LinkState::Down => DOWN,
        };
        // A state that passed within a bin is seen all the same.
        svg.rect((x(*from), top), ((x(to) - x(*from)).max(1.0), RATE_HEIGHT), fill);
    }
    time_axis(svg, model, (top, lower), true);
    let most = link.rates.iter().map(|rate| rate.mbps).fold(0.1, f64::max);
    let top_value = value_axis(svg, most, (top, bottom), "Mbit/s");
    svg.text((LEFT + 4.0, top - 6.0), "start", "name", &link.name);
    let y = |mbps: f64| bottom - mbps / top_value * RATE_HEIGHT;
    for (phase, colour) in PHASES {
        let mut data = String::new();
        for (at, rate) in link.rates.iter().enumerate().filter(|(_, rate)| rate.phase == phase) {
            let next = link.rates.get(at + 1);
            let _ = write!(
                data,
                "M{:.0} {:.1}H{:.0}",
                x(rate.bin),
                y(rate.mbps),
                x(next.map_or(BINS, |next| next.bin))
            );
            if let Some(next) = next {
                let _ = write!(data, "V{:.1}", y(next.mbps));
            }
        }
        if phase == PhaseKind::Startup { svg.dashed(&data, colour) } else { svg.path(&data, colour, 2.0) }
    }
    for (bin, mbps, cause) in &link.causes {
        svg.mark((x(*bin), y(*mbps)), letter(*cause));
    }
    bars(svg, model, &link.lost, bottom + ROW_HEIGHT, ("lost", LOST));
    bars(svg, model, &link.resent, bottom + 2.0 * ROW_HEIGHT + 2.0, ("sent again", RESENT));
    lower
}

/// A row of bars, as high as there are packets in a bin beside the fullest bin, whose rate is told.
fn bars(svg: &mut Svg, model: &Model, counts: &[u32], bottom: f64, (name, colour): (&str, &str)) {
    svg.text((LEFT - 6.0, bottom), "end", "small", name);
    let most = counts.iter().copied().max().unwrap_or(0);
    let mut data = String::new();
    for (bin, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = (f64::from(*count) / f64::from(most) * (ROW_HEIGHT - 4.0)).max(1.0);
        let _ = write!(data, "M{:.0} {bottom:.0}v-{height:.1}", x(bin) + 1.0);
    }
    svg.path(&data, colour, BIN);
    if most > 0 {
        let rate = f64::from(most) * BINS as f64 / model.span_s;
        svg.text((RIGHT + 4.0, bottom), "start", "small", &format!("≤{rate:.0}/s"));
    }
}

fn gap_panel(svg: &mut Svg, model: &Model, top: f64) -> f64 {
    let bottom = top + GAP_HEIGHT;
    let lower = bottom + ROW_HEIGHT + 2.0;
    time_axis(svg, model, (top, lower), true);
    let most = model.waits.values().copied().fold(1.0, f64::max);
    let top_value = value_axis(svg, most, (top, bottom), "ms");
    let name = "gaps in what is received: the longest wait of those that ended";
    svg.text((LEFT + 4.0, top - 6.0), "start", "name", name);
    for by in ends(model) {
        let mut data = String::new();
        for ((_, bin), wait) in model.waits.range((by.id(), 0)..(by.id() + 1, 0)) {
            let y = bottom - wait / top_value * GAP_HEIGHT;
            let _ = write!(data, "M{:.0} {y:.0}h3", x(*bin));
        }
        svg.path(&data, end_colour(by), 3.0);
    }
    bars(svg, model, &model.late, bottom + ROW_HEIGHT, ("came late", "#000000"));
    lower
}

/// A row for each flow, in it a line for each link that carries it.
fn flow_panel(svg: &mut Svg, model: &Model, top: f64) -> f64 {
    let height = 4.0 * model.links.len() as f64 + 6.0;
    let lower = top + height * model.flows.len() as f64;
    time_axis(svg, model, (top, lower), true);
    svg.text(
        (LEFT + 4.0, top - 6.0),
        "start",
        "name",
        "flows that changed links most: the links that carry them",
    );
    let mut at = RIGHT;
    let keys: Vec<_> = model.links.iter().zip(LINKS.iter().cycle()).collect();
    for (link, colour) in keys.into_iter().rev() {
        at -= 30.0 + link.name.len() as f64 * 6.0;
        svg.path(&format!("M{at:.0} {:.0}h16", top - 10.0), colour, 3.0);
        svg.text((at + 20.0, top - 6.0), "start", "", &link.name);
    }
    for ((flow, changes), row) in model.flows.iter().zip(0_u8..) {
        let upper = top + height * f64::from(row);
        svg.text((LEFT - 6.0, upper + height / 2.0 + 4.0), "end", "small", &format!("flow {flow}"));
        for (link, colour) in (0_u8..).zip(LINKS.iter().cycle()).take(model.links.len()) {
            let y = upper + 5.0 + 4.0 * f64::from(link);
            let mut data = String::new();
            for (at, (from, links)) in changes.iter().enumerate() {
                let to = changes.get(at + 1).map_or(BINS, |(bin, _)| *bin);
                if links >> link & 1 == 1 && to > *from {
                    let _ = write!(data, "M{:.0} {y:.0}H{:.0}", x(*from), x(to));
                }
            }
            svg.path(&data, colour, 3.0);
        }
    }
    lower
}
