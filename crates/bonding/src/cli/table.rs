//! Tables for people: columns as wide as their widest cell, numbers to the right.

use super::style::{Colour, Style};

/// A cell: what it says and in which colour.
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

    fn width(&self) -> usize {
        self.text.chars().count()
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
}

impl Table {
    /// No rows yet; the columns have these headings.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the columns are not shown, missing ones are empty.
    pub fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// The lines, each indented by two spaces, without spaces at their ends.
    pub fn render(&self, style: Style) -> String {
        let headings: Vec<Cell> =
            self.columns.iter().map(|(heading, _)| Cell::coloured(*heading, Colour::Dim)).collect();
        let rows: Vec<&[Cell]> =
            std::iter::once(headings.as_slice()).chain(self.rows.iter().map(Vec::as_slice)).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in rows {
            let mut line = String::new();
            let mut spaces = 2;
            for (((_, align), width), cell) in self.columns.iter().zip(&widths).zip(row) {
                let padding = width - cell.width().min(*width);
                let (before, after) = if *align == Align::Right { (padding, 0) } else { (0, padding) };
                // Spaces are held back until something follows them.
                line.push_str(&" ".repeat(spaces + before));
                line.push_str(&cell.colour.map_or_else(|| cell.text.clone(), |c| style.paint(c, &cell.text)));
                spaces = after + 2;
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
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
}
