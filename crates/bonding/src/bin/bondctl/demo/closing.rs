//! The table at the end of the demonstration, and sentences about it.

use bonding::cli::layout::wrap;
use bonding::cli::style::{Colour, Style};
use bonding::cli::table::{Align, Cell, Table};

use super::figures::{FIRST_HEADING, Latency, Measured, Outcome};

/// The first column, so that the table fits 80 columns.
const NAME_COLUMNS: usize = 20;

/// The table and the sentences below it, in lines of at most 80 columns.
pub(crate) fn table(outcome: &Outcome, style: Style) -> String {
    let title = "One download in Mbit/s, beside it a game: 50 small packets a second and back";
    let mut text = wrap(&[title.to_owned()], "", 2) + "\n";
    text.push_str(&rows(outcome).render(style));
    text.push('\n');
    for sentence in sentences(outcome) {
        text.push_str(&wrap(&[sentence], "", 2));
    }
    for failure in outcome.failures() {
        let failed = wrap(&[format!("FAILED: {failure}")], "", 2);
        text.push_str(&failed.lines().map(|line| style.paint(Colour::Red, line) + "\n").collect::<String>());
    }
    text
}

/// A row for each step.
fn rows(outcome: &Outcome) -> Table {
    let mut table = Table::new(&[
        ("", Align::Left),
        (FIRST_HEADING, Align::Right),
        ("THEN", Align::Right),
        ("GAME p50", Align::Right),
        ("p99", Align::Right),
        ("LOST", Align::Right),
        ("PAUSE", Align::Right),
    ])
    .narrow_first(NAME_COLUMNS);
    let Outcome { best_link, alone, idle_game, bond, cut_link, cut, restored, .. } = outcome;
    table.push(row(format!("{best_link} alone"), Some(alone), alone.game, None));
    table.push(row("the bond, idle".to_owned(), None, *idle_game, None));
    table.push(row("the bond".to_owned(), Some(bond), bond.game, Some(Colour::Bold)));
    table.push(row(format!("while {cut_link} is cut"), Some(cut), cut.game, None));
    table.push(row(format!("{cut_link} is back"), Some(restored), restored.game, None));
    table
}

fn row(
    name: String,
    download: Option<&Measured>,
    game: Option<Latency>,
    colour: Option<Colour>,
) -> Vec<Cell> {
    let rate = |of: fn(&Measured) -> f64| {
        download.map_or_else(|| "–".to_owned(), |measured| format!("{:.1}", of(measured)))
    };
    let latency = |show: &dyn Fn(Latency) -> String| game.map_or_else(|| "–".to_owned(), show);
    let cells = [
        name,
        rate(|measured| measured.first_mbps),
        rate(|measured| measured.then_mbps),
        latency(&|game| format!("{:.1} ms", game.median_ms)),
        latency(&|game| format!("{:.1} ms", game.p99_ms)),
        latency(&|game| format!("{:.1} %", game.lost_percent)),
        latency(&|game| format!("{} ms", game.longest_gap.as_millis())),
    ];
    let cell = |text: String| {
        colour.map_or_else(|| text.clone().into(), |colour| Cell::coloured(text.clone(), colour))
    };
    cells.map(cell).into()
}

fn sentences(outcome: &Outcome) -> Vec<String> {
    let mut sentences = Vec::new();
    let (bond_mbps, alone_mbps, best) = (outcome.bond.then_mbps, outcome.alone.then_mbps, &outcome.best_link);
    if alone_mbps > 0.0 {
        let times = bond_mbps / alone_mbps;
        sentences.push(format!("One download ran {times:.1} times as fast as over {best} alone."));
    }
    if let Some(attainable) = outcome.attainable_mbps.filter(|attainable| *attainable > 0.0) {
        sentences.push(format!(
            "That is {:.0} % of the attainable {attainable:.1} Mbit/s, the sum of the link rates less \
             the headers.",
            bond_mbps / attainable * 100.0
        ));
    }
    if let [Some(alone), Some(bond)] = outcome.files {
        let [alone, bond] = [alone, bond].map(|time| time.as_secs_f64());
        sentences.push(format!(
            "A file of 10 MB over a new connection took {bond:.2} s over the bond, {alone:.2} s over {best} alone."
        ));
    }
    if outcome.cut_slowest_mbps > 0.0 {
        sentences.push(format!(
            "When {}, which carried the game, was cut, the download went on: its slowest half \
             second had {:.1} Mbit/s.",
            outcome.cut_link, outcome.cut_slowest_mbps
        ));
    }
    if let [Some(client), Some(server)] = outcome.memory_bytes {
        let mib = |bytes: u64| bytes >> 20;
        sentences.push(format!("Memory: client {} MiB, server {} MiB.", mib(client), mib(server)));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::outcome;
    use super::*;

    #[test]
    fn the_table_says_what_was_achieved() {
        let text = table(&outcome(), Style::PLAIN);
        let has = |part: &str| assert!(text.contains(part), "{part} is missing in\n{text}");
        has("                     FIRST 4 s   THEN  GAME p50       p99   LOST   PAUSE\n");
        has("  sat1 alone              42.0   66.0  175.0 ms  182.0 ms  0.0 %  120 ms\n");
        has("  the bond               120.0  252.0   22.5 ms   31.0 ms  0.0 %  120 ms\n");
        has("  while adsl is cut      190.0  201.0   82.9 ms  160.0 ms  0.0 %  120 ms\n");
        has("  One download ran 3.8 times as fast as over sat1 alone.\n");
        has("  Memory: client 14 MiB, server 13 MiB.\n");
        assert!(!text.contains("FAILED"));
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let says = |part: &str| assert!(words.contains(part), "{part} is missing in\n{text}");
        says("That is 95 % of the attainable 266.2 Mbit/s, the sum of the link rates less the headers.");
        says("A file of 10 MB over a new connection took 0.40 s over the bond, 1.72 s over sat1 alone.");
        says("its slowest half second had 150.0 Mbit/s.");
        let bond = Measured { then_mbps: 10.0, ..outcome().bond };
        let slow = Outcome { bond, ..outcome() };
        assert!(table(&slow, Style::PLAIN).contains("FAILED: the bond (10.0 Mbit/s) was not faster"));
    }

    #[test]
    fn the_table_fits_80_columns() {
        let game = Some(Latency {
            median_ms: 1_234.5,
            p99_ms: 12_345.6,
            lost_percent: 100.0,
            longest_gap: std::time::Duration::from_secs(10),
        });
        let measured = Measured { first_mbps: 9_999.9, then_mbps: 9_999.9, game };
        let name = "interface-of-15".to_owned();
        let outcome = Outcome {
            best_link: name.clone(),
            alone: measured,
            bond: measured,
            cut_link: name,
            cut: measured,
            restored: measured,
            ..outcome()
        };
        let text = table(&outcome, Style::PLAIN);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}\n{text}");
        }
    }
}
