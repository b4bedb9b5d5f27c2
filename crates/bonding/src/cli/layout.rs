//! Text that fits the width of a terminal.
//!
//! Widths count characters. Colours (SGR sequences) have no width.

/// The width that every text for people fits in: the smallest that terminals open with.
pub const COLUMNS: usize = 80;

/// How many columns `text` takes.
pub fn width(text: &str) -> usize {
    let mut columns = 0;
    let mut in_sequence = false;
    for character in text.chars() {
        match (in_sequence, character) {
            (true, 'm') => in_sequence = false,
            (true, _) => {}
            (false, '\x1b') => in_sequence = true,
            (false, _) => columns += 1,
        }
    }
    columns
}

/// `text` in at most `columns` columns: its middle gives way to an ellipsis, since names differ at
/// either end.
pub fn narrow(text: &str, columns: usize) -> String {
    let count = text.chars().count();
    if count <= columns {
        return text.to_owned();
    }
    let kept = columns.saturating_sub(1);
    let tail = kept / 2;
    let head: String = text.chars().take(kept - tail).collect();
    let tail: String = text.chars().skip(count - tail).collect();
    format!("{head}…{tail}")
}

/// `parts` joined by `separator`, in lines that begin with `indent` spaces and end with a newline.
///
/// A line breaks between two parts, and inside a part only where that is wider than a line.
pub fn wrap(parts: &[String], separator: &str, indent: usize) -> String {
    let mut lines = Lines { text: String::new(), line: String::new(), indent };
    for part in parts {
        if lines.push(separator, part) {
            continue;
        }
        for (index, word) in part.split(' ').enumerate() {
            let between = if index == 0 { separator } else { " " };
            if !lines.push(between, word) {
                lines.end_line();
                lines.line.push_str(word);
            }
        }
    }
    lines.end_line();
    lines.text
}

/// Lines that grow part by part.
struct Lines {
    text: String,
    line: String,
    indent: usize,
}

impl Lines {
    /// Adds a part to the line, or begins the next line with it. False: the part is wider than a
    /// line.
    fn push(&mut self, between: &str, part: &str) -> bool {
        let between = if self.line.is_empty() { "" } else { between };
        let room = COLUMNS.saturating_sub(self.indent);
        if width(&self.line) + width(between) + width(part) <= room {
            self.line.push_str(between);
        } else if width(part) <= room {
            self.end_line();
        } else {
            return false;
        }
        self.line.push_str(part);
        true
    }

    fn end_line(&mut self) {
        if !self.line.is_empty() {
            self.text.push_str(&" ".repeat(self.indent));
            self.text.push_str(self.line.trim_end());
            self.text.push('\n');
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::style::{Colour, Style};
    use super::*;

    #[test]
    fn colours_have_no_width() {
        assert_eq!(width(&Style::COLOURED.paint(Colour::Green, "düsseldorf")), 10);
    }

    #[test]
    fn a_narrow_name_keeps_both_ends() {
        assert_eq!(narrow("adsl", 8), "adsl");
        assert_eq!(narrow("starlink-roof-1", 9), "star…of-1");
        assert_eq!(narrow("starlink-roof-2", 8), "star…f-2");
        assert_eq!(narrow("starlink", 1), "…");
    }

    #[test]
    fn lines_break_between_parts() {
        let parts: Vec<String> = (0..12).map(|index| format!("number {index}")).collect();
        let text = wrap(&parts, " · ", 2);
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|longest| (70..=COLUMNS).contains(&longest)), "{text}");
        assert!(text.lines().all(|line| line.starts_with("  number ")), "{text}");
        assert_eq!(text.split_whitespace().filter(|word| *word == "number").count(), 12);
    }

    #[test]
    fn a_part_wider_than_a_line_breaks_at_its_spaces() {
        let parts = ["short".to_owned(), "word ".repeat(30).trim_end().to_owned(), "end".to_owned()];
        let text = wrap(&parts, " · ", 2);
        assert!(text.starts_with("  short · word word "), "{text}");
        assert!(text.ends_with(" word · end\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
    }
}
