//! How the demonstration looks while it runs: a picture that is drawn again in place on a terminal,
//! elsewhere a line a second. Both fit 80 columns.
//!
//! [`picture`] and [`line()`] only make text; [`Screen`] knows the terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use bonding::cli::layout::{narrow, wrap};
use bonding::cli::style::{Colour, Style};
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
    /// The present step, in a sentence.
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

/// Before each bar: the name of a link, or of a figure.
const LABEL_CHARS: usize = 11;
/// Chosen: the lines fit 80 columns.
const BAR_CHARS: usize = 28;
/// A link's name in a sentence beside others.
const NAME_CHARS: usize = 10;
/// Seconds of history shown: the whole demonstration.
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
    // The value was clamped, so its text has digits only.
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
        format!("  {}{}{:>15}{:>10}   STATE", pad("LINK", LABEL_CHARS), pad("", BAR_CHARS), "Mbit/s", "RTT");
    lines.push(style.paint(Colour::Dim, &heading));
    lines.extend(view.links.iter().map(|link| link_line(link, view, style)));
    lines.push(String::new());
    lines.extend(sum_lines(view, style));
    lines.push(String::new());
    let history = sparkline(&view.history, view.scale_mbps);
    lines.push(format!("  {}{}", pad("each second", LABEL_CHARS + 1), style.paint(Colour::Cyan, &history)));
    lines.push(String::new());
    let (number, of) = view.number;
    let step = format!("{} {}", style.paint(Colour::Bold, &format!("▶ {number}/{of}")), view.step);
    lines.extend(wrap(&[step], "", 2).lines().map(str::to_owned));
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
        pad(&narrow(&link.name, LABEL_CHARS - 1), LABEL_CHARS),
        style.paint(if link.cut { Colour::Red } else { Colour::Green }, &drawn),
        style.paint(colour, word)
    )
}

fn sum_lines(view: &View, style: Style) -> Vec<String> {
    let line = |label: &str, colour: Colour, mbps: f64, note: &str| {
        let drawn = pad(&bar(mbps / view.scale_mbps, BAR_CHARS), BAR_CHARS);
        format!(
            "  {}{}{:>8} Mbit/s   {note}",
            pad(label, LABEL_CHARS),
            style.paint(colour, &drawn),
            format!("{mbps:.1}")
        )
    };
    let times = match &view.best {
        Some((_, best, _)) if *best > 0.0 && view.alone.is_none() && view.mbps > 0.0 => {
            style.paint(Colour::Bold, &format!("{:.1} × one link", view.mbps / best))
        }
        Some(_) | None => view
            .alone
            .as_ref()
            .map_or_else(String::new, |name| format!("over {} alone", narrow(name, NAME_CHARS))),
    };
    let mut lines = vec![line("download", Colour::Cyan, view.mbps, &times)];
    match &view.best {
        Some((name, best, _)) => {
            lines.push(line("best link", Colour::Dim, *best, &format!("{} alone", narrow(name, NAME_CHARS))))
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
    let mut notes = vec!["50 packets/s".to_owned()];
    if let (Some((name, _, Some(alone))), None) = (&view.best, &view.alone) {
        notes.push(format!("{} alone: {alone:.0} ms", narrow(name, NAME_CHARS)));
    }
    if lost > 0 {
        notes.push(format!("{lost} of {of} lost"));
    }
    format!(
        "  {}{} {}",
        pad("game", LABEL_CHARS),
        style.paint(colour, &pad(&now, 8)),
        style.paint(Colour::Dim, &notes.join(" · "))
    )
}

/// The step in one line, for logs.
pub(crate) fn step_line(view: &View) -> String {
    let (number, of) = view.number;
    wrap(&[format!("▶ {number}/{of} {}", view.step)], "", 0)
}

/// A second of the picture, for logs: time, download, game, each link's rate in Mbit/s or why it
/// has none.
pub(crate) fn line(view: &View) -> String {
    let game = view.game_ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0}"));
    let mut parts = vec![
        format!("{:>2} s", view.elapsed.as_secs()),
        format!("{:>5.1} Mbit/s", view.mbps),
        format!("game {game:>3} ms"),
    ];
    for link in &view.links {
        let does = match link.state.as_str() {
            _ if link.cut => "CUT".to_owned(),
            word @ ("DOWN" | "SUSPECT") => word.to_owned(),
            _ => format!("{:.0}", link.mbps),
        };
        parts.push(format!("{} {does}", link.name));
    }
    wrap(&parts, "  ", 2)
}

/// Standard output, on which the picture stands.
#[derive(Debug)]
pub(crate) struct Screen {
    style: Style,
    terminal: bool,
    /// Lines of the picture that stands there.
    drawn: usize,
    /// The step and the second that the last line told of.
    step: Option<String>,
    second: Option<u64>,
}

impl Screen {
    /// Draws on standard output.
    pub(crate) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        Self { style: Style::of_stdout(), terminal, drawn: 0, step: None, second: None }
    }

    /// The style of text on it.
    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// Shows the view: on a terminal at once, elsewhere once a second.
    pub(crate) fn show(&mut self, view: &View) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !self.terminal {
            if self.step.as_ref() != Some(&view.step) {
                self.step = Some(view.step.clone());
                write!(out, "{}", step_line(view))?;
            }
            let second = view.elapsed.as_secs();
            if self.second.replace(second) != Some(second) {
                write!(out, "{}", line(view))?;
            }
            return out.flush();
        }
        let picture = picture(view, self.style);
        // ECMA-48: cursor off; up over the old picture; each line erased to its end, and so are the
        // lines below.
        let mut frame = String::from("\x1b[?25l");
        if self.drawn > 0 {
            frame.push_str(&format!("\x1b[{}A", self.drawn));
        }
        frame.push('\r');
        // Without wrapping, a line that is too long for the terminal is cut off instead of tearing
        // the picture.
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
            // A terminal that is closed needs no cursor.
            let _ = io::stdout().write_all(b"\x1b[?25h");
            let _ = io::stdout().flush();
        }
    }
}

#[cfg(test)]
mod tests {
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
        has("  adsl       ███▉                              9.6 of 10     22 ms   SATURATED\n");
        has("  sat1                                         0.0 of 70         –   CUT\n");
        has("   198.0 Mbit/s   3.0 × one link\n");
        has("    66.0 Mbit/s   sat1 alone\n");
        has("  game       22 ms    50 packets/s · sat1 alone: 175 ms · 1 of 50 lost\n");
        has("  each second ▁▃█\n");
        has("  ▶ 4/5 sat1 is cut\n");
    }

    /// As large as a view gets: long names, large figures.
    fn large_view() -> View {
        let mut view = view();
        view.links = vec![view.links[0].clone(); 5];
        view.links[4].cut = true;
        for link in &mut view.links {
            link.name = "interface-of-15".to_owned();
            (link.mbps, link.capacity_mbps, link.rtt_ms) = (9_999.9, Some(10_000.0), Some(12_345.0));
        }
        view.history = vec![100.0; 500];
        view.mbps = 99_999.9;
        view.best = Some(("interface-of-15".to_owned(), 9_999.9, Some(1_234.0)));
        view.game_lost = (50, 50);
        view.step = "interface-of-15, which carries the game, is CUT: every packet on it is lost".to_owned();
        view
    }

    #[test]
    fn the_picture_fits_a_terminal_of_80_columns() {
        let mut view = large_view();
        for alone in [None, Some("interface-of-15".to_owned())] {
            view.alone = alone;
            let text = picture(&view, Style::PLAIN);
            assert!(text.lines().count() <= 24, "{text}");
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
            // Colours change no character.
            let coloured = picture(&view, Style::COLOURED);
            assert_eq!(coloured.lines().count(), text.lines().count());
        }
    }

    #[test]
    fn lines_for_logs_have_the_same_figures_and_fit_too() {
        assert_eq!(line(&view()), "  23 s  198.0 Mbit/s  game  22 ms  adsl 10  sat1 CUT\n");
        assert_eq!(step_line(&view()), "▶ 4/5 sat1 is cut\n");
        let text = line(&large_view()) + &step_line(&large_view());
        assert!(text.lines().count() > 2, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn bars_stay_in_their_bounds() {
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(7.0, 4), "████");
        assert_eq!(bar(f64::NAN, 4), "");
        assert_eq!(bar(1.0 / 32.0, 4), "▏");
    }
}
