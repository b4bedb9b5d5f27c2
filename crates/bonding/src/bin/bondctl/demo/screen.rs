//! How the demonstration looks: a picture that is drawn again in place on a terminal, a line a second elsewhere, and the
//! table at the end.
//!
//! [`picture`] and [`table`] only make text; [`Screen`] knows the terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use super::figures::{Latency, Outcome};
use bonding::cli::style::{Colour, Style};
use bonding::cli::table::{Align, Cell, Table};
use bonding::cli::view::state_colour;

/// One link as the picture shows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LinkView {
    pub(crate) name: String,
    pub(crate) mbps: f64,
    pub(crate) capacity_mbps: Option<f64>,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) state: String,
    /// By the demonstration itself.
    pub(crate) cut: bool,
}

/// Everything the picture shows at a moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) elapsed: Duration,
    pub(crate) total: Duration,
    /// Which step this is, of how many.
    pub(crate) number: (usize, usize),
    /// What happens now, in a sentence.
    pub(crate) step: String,
    pub(crate) links: Vec<LinkView>,
    /// The download, as its application sees it.
    pub(crate) mbps: f64,
    /// The fastest link alone, once measured.
    pub(crate) best: Option<(String, f64, Option<f64>)>,
    /// Whether the download runs over a single link.
    pub(crate) alone: Option<String>,
    /// The game's latency over the last second.
    pub(crate) game_ms: Option<f64>,
    /// Requests of the last second without an answer, of how many.
    pub(crate) game_lost: (usize, usize),
    /// The download's rate, one value a second, oldest first.
    pub(crate) history: Vec<f64>,
    /// The largest rate a bar can show.
    pub(crate) scale_mbps: f64,
}

const BAR_CHARS: usize = 32;
/// Seconds of history shown.
const HISTORY_CHARS: usize = 60;

/// A bar of eighths of characters.
fn bar(share: f64, width: usize) -> String {
    const PARTS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let eighths = index(share * width as f64 * 8.0);
    let mut text = "█".repeat(eighths / 8);
    if let Some(part) = PARTS.get(eighths % 8).filter(|part| **part != ' ') {
        text.push(*part);
    }
    text
}

/// A small non-negative number as an index.
fn index(value: f64) -> usize {
    // Digits and nothing else: what is formatted has been clamped by the caller.
    format!("{:.0}", value.clamp(0.0, 10_000.0)).parse().unwrap_or(0)
}

/// Left-aligned in `width` characters, as terminals count these.
fn pad(text: &str, width: usize) -> String {
    let used = text.chars().count();
    format!("{text}{}", " ".repeat(width.saturating_sub(used)))
}

fn sparkline(values: &[f64], scale: f64) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = values.get(values.len().saturating_sub(HISTORY_CHARS)..).unwrap_or(values);
    let level = |value: &f64| {
        let share = if scale > 0.0 { (value / scale).clamp(0.0, 1.0) } else { 0.0 };
        LEVELS.get(index(share * 7.0)).copied().unwrap_or(' ')
    };
    shown.iter().map(level).collect()
}

/// The picture as lines.
pub(crate) fn picture(view: &View, style: Style) -> String {
    let clock = |span: Duration| format!("{}:{:02}", span.as_secs() / 60, span.as_secs() % 60);
    let title = style.paint(Colour::Bold, "UDP Bonding");
    let subtitle = format!("{} links, one download", view.links.len());
    let time = style.paint(Colour::Dim, &format!("{} of {}", clock(view.elapsed), clock(view.total)));
    let mut lines = vec![String::new(), format!("  {title} · {subtitle} · {time}"), String::new()];
    let heading =
        format!("  {:<8}{}{:>15}{:>10}   {}", "LINK", " ".repeat(BAR_CHARS), "Mbit/s", "RTT", "STATE");
    lines.push(style.paint(Colour::Dim, &heading));
    lines.extend(view.links.iter().map(|link| link_line(link, view, style)));
    lines.push(String::new());
    lines.extend(sum_lines(view, style));
    lines.push(String::new());
    let history = sparkline(&view.history, view.scale_mbps);
    lines.push(format!("  {:<12}{}", "each second", style.paint(Colour::Cyan, &history)));
    lines.push(String::new());
    let (number, of) = view.number;
    lines.push(format!("  {} {}", style.paint(Colour::Bold, &format!("▶ {number}/{of}")), view.step));
    lines.push(style.paint(Colour::Dim, "        Ctrl-C ends it; nothing is left behind"));
    lines.join("\n") + "\n"
}

fn link_line(link: &LinkView, view: &View, style: Style) -> String {
    // All bars on one scale, the fastest link's: their lengths add up to the download.
    let fastest = view.links.iter().filter_map(|link| link.capacity_mbps).fold(1.0, f64::max);
    let (word, colour) =
        if link.cut { ("CUT", Colour::Red) } else { (link.state.as_str(), state_colour(&link.state)) };
    let drawn = pad(&bar(link.mbps / fastest, BAR_CHARS), BAR_CHARS);
    let rate = match link.capacity_mbps {
        Some(capacity) => format!("{:.1} of {capacity:.0}", link.mbps),
        None => format!("{:.1}", link.mbps),
    };
    let rtt = link.rtt_ms.filter(|_| !link.cut).map_or_else(|| "–".to_owned(), |rtt| format!("{rtt:.0} ms"));
    format!(
        "  {}{}{rate:>15}{rtt:>10}   {}",
        pad(&link.name, 8),
        style.paint(if link.cut { Colour::Red } else { Colour::Green }, &drawn),
        style.paint(colour, word)
    )
}

fn sum_lines(view: &View, style: Style) -> Vec<String> {
    let line = |label: &str, colour: Colour, mbps: f64, note: &str| {
        let drawn = pad(&bar(mbps / view.scale_mbps, BAR_CHARS), BAR_CHARS);
        format!(
            "  {}{}{:>8} Mbit/s   {note}",
            pad(label, 12),
            style.paint(colour, &drawn),
            format!("{mbps:.1}")
        )
    };
    let times = match &view.best {
        Some((_, best, _)) if *best > 0.0 && view.alone.is_none() && view.mbps > 0.0 => {
            style.paint(Colour::Bold, &format!("{:.1} × one link", view.mbps / best))
        }
        Some(_) | None => view.alone.as_ref().map_or_else(String::new, |name| format!("over {name} alone")),
    };
    let mut lines = vec![line("download", Colour::Cyan, view.mbps, &times)];
    match &view.best {
        Some((name, best, _)) => {
            lines.push(line("best link", Colour::Dim, *best, &format!("{name} alone, measured")))
        }
        None => lines.push(String::new()),
    }
    lines.push(game_line(view, style));
    lines
}

fn game_line(view: &View, style: Style) -> String {
    let (lost, of) = view.game_lost;
    let now = view.game_ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0} ms"));
    let colour = match view.game_ms {
        Some(ms) if ms < 40.0 => Colour::Green,
        Some(ms) if ms < 100.0 => Colour::Yellow,
        Some(_) | None => Colour::Red,
    };
    let mut notes = vec!["50 packets/s beside it".to_owned()];
    if let (Some((name, _, Some(alone))), None) = (&view.best, &view.alone) {
        notes.push(format!("{name} alone: {alone:.0} ms"));
    }
    if lost > 0 {
        notes.push(format!("{lost} of {of} lost"));
    }
    format!(
        "  {}{} {}",
        pad("game", 12),
        style.paint(colour, &pad(&now, 8)),
        style.paint(Colour::Dim, &notes.join(" · "))
    )
}

/// The picture in one line, for logs.
pub(crate) fn line(view: &View) -> String {
    let links: Vec<String> = view
        .links
        .iter()
        .map(|link| {
            let rtt = link.rtt_ms.map_or_else(|| "–".to_owned(), |rtt| format!("{rtt:.0} ms"));
            let state = if link.cut { "CUT" } else { &link.state };
            format!("{} {:.1} {rtt} {state}", link.name, link.mbps)
        })
        .collect();
    let game = view.game_ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0} ms"));
    let (number, of) = view.number;
    format!(
        "{:>3} s  {number}/{of}  download {:.1} Mbit/s  game {game}  | {} | {}",
        view.elapsed.as_secs(),
        view.mbps,
        links.join(", "),
        view.step
    )
}

/// The table at the end.
pub(crate) fn table(outcome: &Outcome, style: Style) -> String {
    let mut table = Table::new(&[
        ("", Align::Left),
        ("DOWNLOAD", Align::Right),
        ("GAME p50", Align::Right),
        ("p99", Align::Right),
        ("LOST", Align::Right),
        ("LONGEST PAUSE", Align::Right),
    ]);
    let mut row = |name: String, mbps: Option<f64>, game: Option<Latency>, bold: bool| {
        let rate = mbps.map_or_else(|| "–".to_owned(), |mbps| format!("{mbps:.1} Mbit/s"));
        let cell = |text: String| if bold { Cell::coloured(text, Colour::Bold) } else { text.into() };
        let of = |show: &dyn Fn(Latency) -> String| game.map_or_else(|| "–".to_owned(), show);
        table.push(vec![
            cell(name),
            cell(rate),
            cell(of(&|game| format!("{:.1} ms", game.median_ms))),
            cell(of(&|game| format!("{:.1} ms", game.p99_ms))),
            cell(of(&|game| format!("{:.1} %", game.lost_percent))),
            cell(of(&|game| format!("{} ms", game.longest_gap.as_millis()))),
        ]);
    };
    row(format!("{} alone", outcome.best_link), Some(outcome.best_mbps), outcome.best_game, false);
    row("the bond, idle".to_owned(), None, outcome.idle_game, false);
    row("the bond".to_owned(), Some(outcome.bond_mbps), outcome.bond_game, true);
    row(format!("… while {} is cut", outcome.cut_link), Some(outcome.cut_mbps), outcome.cut_game, false);
    row(format!("… and after {} is back", outcome.cut_link), Some(outcome.restored_mbps), None, false);
    let mut text = table.render(style);
    text.push_str("  (game: 50 small packets a second, there and back)\n\n");
    for sentence in sentences(outcome) {
        text.push_str(&format!("  {sentence}\n"));
    }
    for failure in outcome.failures() {
        text.push_str(&format!("  {}\n", style.paint(Colour::Red, &format!("FAILED: {failure}"))));
    }
    text
}

fn sentences(outcome: &Outcome) -> Vec<String> {
    let mut sentences = Vec::new();
    if outcome.best_mbps > 0.0 {
        let of = outcome.sum_mbps.filter(|sum| *sum > 0.0).map_or_else(String::new, |sum| {
            format!(":\n  {:.0} % of what all links can carry together", outcome.bond_mbps / sum * 100.0)
        });
        let times = outcome.bond_mbps / outcome.best_mbps;
        sentences.push(format!("One download ran {times:.1} times as fast as over the best link alone{of}."));
    }
    let cut = &outcome.cut_link;
    if outcome.cut_slowest_mbps > 0.0 {
        sentences.push(format!(
            "When {cut} was cut, the download went on: its slowest half second had {:.1} Mbit/s.",
            outcome.cut_slowest_mbps
        ));
    }
    if let [Some(client), Some(server)] = outcome.memory_bytes {
        let mib = |bytes: u64| bytes >> 20;
        sentences.push(format!("Memory: client {} MiB, server {} MiB.", mib(client), mib(server)));
    }
    sentences
}

/// Where the picture goes.
#[derive(Debug)]
pub(crate) struct Screen {
    style: Style,
    terminal: bool,
    /// Lines of the picture that stands there.
    drawn: usize,
    last_second: Option<u64>,
}

impl Screen {
    /// Draws on standard output.
    pub(crate) fn new() -> Self {
        Self { style: Style::of_stdout(), terminal: io::stdout().is_terminal(), drawn: 0, last_second: None }
    }

    /// How text may look here.
    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// Shows the view: on a terminal at once, elsewhere once a second.
    pub(crate) fn show(&mut self, view: &View) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !self.terminal {
            let second = view.elapsed.as_secs();
            if self.last_second.replace(second) != Some(second) {
                writeln!(out, "{}", line(view))?;
            }
            return out.flush();
        }
        let picture = picture(view, self.style);
        // ECMA-48: cursor off; up over the old picture; each line erased to its end; what is below, too.
        let mut frame = String::from("\x1b[?25l");
        if self.drawn > 0 {
            frame.push_str(&format!("\x1b[{}A", self.drawn));
        }
        frame.push('\r');
        // Without wrapping, a line that is too long for the terminal is cut off instead of tearing the picture.
        frame.push_str("\x1b[?7l");
        frame.push_str(&picture.replace('\n', "\x1b[K\n"));
        frame.push_str("\x1b[?7h\x1b[J");
        self.drawn = picture.lines().count();
        out.write_all(frame.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal {
            // A terminal that is gone needs no cursor.
            let _ = io::stdout().write_all(b"\x1b[?25h");
            let _ = io::stdout().flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::outcome;
    use super::*;

    fn view() -> View {
        let link = |name: &str, mbps, capacity, rtt, state: &str, cut| LinkView {
            name: name.to_owned(),
            mbps,
            capacity_mbps: Some(capacity),
            rtt_ms: Some(rtt),
            state: state.to_owned(),
            cut,
        };
        View {
            elapsed: Duration::from_secs(23),
            total: Duration::from_secs(65),
            number: (4, 5),
            step: "sat1 is cut".to_owned(),
            links: vec![
                link("adsl", 9.6, 10.0, 22.4, "SATURATED", false),
                link("sat1", 0.0, 70.0, 90.0, "OK", true),
            ],
            mbps: 198.0,
            best: Some(("sat1".to_owned(), 66.0, Some(175.0))),
            alone: None,
            game_ms: Some(22.2),
            game_lost: (1, 50),
            history: vec![0.0, 100.0, 290.0],
            scale_mbps: 290.0,
        }
    }

    #[test]
    fn the_picture_shows_links_sum_and_game() {
        let text = picture(&view(), Style::PLAIN);
        let has = |part: &str| assert!(text.contains(part), "{part} is missing in\n{text}");
        has("  UDP Bonding · 2 links, one download · 0:23 of 1:05\n");
        has("  adsl    ████▍                                 9.6 of 10     22 ms   SATURATED\n");
        has("  sat1                                          0.0 of 70         –   CUT\n");
        has("   198.0 Mbit/s   3.0 × one link\n");
        has("    66.0 Mbit/s   sat1 alone, measured\n");
        has("  game        22 ms    50 packets/s beside it · sat1 alone: 175 ms · 1 of 50 lost\n");
        has("  each second ▁▃█\n");
        has("  ▶ 4/5 sat1 is cut\n");
    }

    #[test]
    fn the_picture_fits_a_terminal_of_usual_size() {
        let mut view = view();
        view.links = vec![view.links[0].clone(); 5];
        view.history = vec![100.0; 500];
        let text = picture(&view, Style::PLAIN);
        assert!(text.lines().count() <= 23, "{}", text.lines().count());
        let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= 90, "{longest} columns");
        // Colours change no character.
        let coloured = picture(&view, Style::COLOURED);
        assert_eq!(coloured.lines().count(), text.lines().count());
    }

    #[test]
    fn a_line_for_logs_has_the_same_figures() {
        assert_eq!(
            line(&view()),
            " 23 s  4/5  download 198.0 Mbit/s  game 22 ms  | adsl 9.6 22 ms SATURATED, sat1 0.0 90 ms CUT | sat1 is cut"
        );
    }

    #[test]
    fn bars_stay_in_their_bounds() {
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(7.0, 4), "████");
        assert_eq!(bar(f64::NAN, 4), "");
        assert_eq!(bar(1.0 / 32.0, 4), "▏");
    }

    #[test]
    fn the_table_says_what_was_achieved() {
        let text = table(&outcome(), Style::PLAIN);
        let has = |part: &str| assert!(text.contains(part), "{part} is missing in\n{text}");
        has("DOWNLOAD");
        has("  sat1 alone                 66.0 Mbit/s  175.0 ms  182.0 ms  0.0 %         120 ms\n");
        has("  the bond                  264.0 Mbit/s   22.5 ms   31.0 ms");
        has("over the best link alone:\n  91 % of what all links can carry together.\n");
        has("When sat1 was cut, the download went on: its slowest half second had 150.0 Mbit/s.");
        has("Memory: client 14 MiB, server 13 MiB.");
        assert!(!text.contains("FAILED"));
        let slow = Outcome { bond_mbps: 10.0, ..outcome() };
        assert!(table(&slow, Style::PLAIN).contains("FAILED: the bond (10.0 Mbit/s) was not faster"));
    }
}
