//! Tables for people: columns as wide as their widest cell, numbers to the right.
//!
//! A row that is wider than a terminal goes on in a further line, and so does the heading: the
//! columns that do not fit stand there as columns of their own.

use super::layout::{COLUMNS, narrow, width};
use super::style::{Colour, Style};

/// Spaces before a row.
const INDENT: usize = 2;
/// Spaces before the line in which a row goes on.
const FURTHER_INDENT: usize = 6;
/// Spaces between two columns.
const GAP: usize = 2;

/// A cell: its text and its colour.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    /// With a colour.
    pub fn coloured(text: impl Into<String>, colour: Colour) -> Self {
        Self { text: text.into(), colour: Some(colour) }
    }

    /// The cell in a column of `columns` columns.
    fn render(&self, align: Align, columns: usize, style: Style) -> String {
        let text = narrow(&self.text, columns);
        let padding = " ".repeat(columns - width(&text));
        let text = self.colour.map_or_else(|| text.clone(), |colour| style.paint(colour, &text));
        match align {
            Align::Left => text + &padding,
            Align::Right => padding + &text,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), colour: None }
    }
}

/// To which side a column's cells lean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// To the left: words.
    Left,
    /// To the right: numbers.
    Right,
}

/// Rows under a heading.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
    first_max: usize,
}

impl Table {
    /// No rows yet; the columns have these headings.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), first_max: COLUMNS }
    }

    /// The first column is at most so wide: longer cells lose their middle.
    #[must_use]
    pub fn narrow_first(mut self, columns: usize) -> Self {
        self.first_max = columns;
        self
    }

    /// Adds a row; cells beyond the columns are not shown, missing ones are empty.
    pub fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// The lines, each indented by two spaces, without spaces at their ends.
    pub fn render(&self, style: Style) -> String {
        let headings: Vec<Cell> =
            self.columns.iter().map(|(heading, _)| Cell::coloured(*heading, Colour::Dim)).collect();
        let rows = || std::iter::once(&headings).chain(&self.rows);
        let widest = |column: usize| {
            let natural = rows().filter_map(|row| row.get(column)).map(|cell| width(&cell.text)).max();
            natural.unwrap_or(0).min(if column == 0 { self.first_max } else { COLUMNS })
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(widest).collect();
        let groups = groups(&widths);
        let mut text = String::new();
        for row in rows() {
            for (number, group) in groups.iter().enumerate() {
                let indent = if number == 0 { INDENT } else { FURTHER_INDENT };
                let columns = self.columns.iter().zip(&widths).zip(row);
                let cells: Vec<String> = columns
                    .skip(group.start)
                    .take(group.len())
                    .map(|(((_, align), columns), cell)| cell.render(*align, *columns, style))
                    .collect();
                let line = format!("{}{}", " ".repeat(indent), cells.join(&" ".repeat(GAP)));
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }
}

/// Which columns stand side by side, so that each group fits a terminal.
fn groups(widths: &[usize]) -> Vec<std::ops::Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    let mut used = INDENT;
    for (column, columns) in widths.iter().enumerate() {
        let gap = if column == start { 0 } else { GAP };
        if column > start && used + gap + columns > COLUMNS {
            groups.push(start..column);
            (start, used) = (column, FURTHER_INDENT + columns);
        } else {
            used += gap + columns;
        }
    }
    groups.push(start..widths.len());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_whatever_their_colours() {
        let mut table = Table::new(&[("LINK", Align::Left), ("STATE", Align::Left), ("RTT", Align::Right)]);
        table.push(vec!["adsl".into(), Cell::coloured("OK", Colour::Green), "20.1 ms".into()]);
        table.push(vec!["düsseldorf".into(), Cell::coloured("DOWN", Colour::Red), "–".into()]);
        assert_eq!(
            table.render(Style::PLAIN),
            "  LINK        STATE      RTT\n  adsl        OK     20.1 ms\n  düsseldorf  DOWN         –\n"
        );
        let coloured = table.render(Style::COLOURED);
        assert!(coloured.contains("\x1b[32mOK\x1b[0m     20.1 ms\n"), "{coloured:?}");
    }

    #[test]
    fn a_long_first_cell_loses_its_middle() {
        let mut table = Table::new(&[("LINK", Align::Left), ("STATE", Align::Left)]).narrow_first(9);
        table.push(vec!["starlink-roof-1".into(), "OK".into()]);
        assert_eq!(table.render(Style::PLAIN), "  LINK       STATE\n  star…of-1  OK\n");
    }

    #[test]
    fn what_does_not_fit_goes_on_below() {
        let mut table = Table::new(&[("LINK", Align::Left), ("SENT", Align::Right), ("PEER", Align::Left)]);
        table.push(vec!["a".repeat(40).into(), "1 B".into(), "b".repeat(40).into()]);
        table.push(vec!["short".into(), "2 B".into(), "c".into()]);
        let (a, b, gap) = ("a".repeat(40), "b".repeat(40), " ".repeat(36));
        assert_eq!(
            table.render(Style::PLAIN),
            format!(
                "  LINK{gap}  SENT\n      PEER\n  {a}   1 B\n      {b}\n  short{}   2 B\n      c\n",
                " ".repeat(35)
            )
        );
    }
}
