//! Mistakes of a configuration file, and where they are.
//!
//! All mistakes that one pass over a file finds are reported together, in the order of the lines:
//! one check shows every mistake.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

/// One finding: a place in the file, and the mistake there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// The mistake, and what to do.
    pub message: String,
}

/// Why a configuration cannot be used: every mistake found in one file.
///
/// Displayed one mistake per line, as `FILE:LINE:COLUMN: MESSAGE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The file as the user named it.
    pub file: String,
    /// At least one.
    pub list: Vec<Problem>,
}

impl Problems {
    /// A single finding about a file as a whole.
    pub fn whole_file(file: &str, message: String) -> Self {
        Self { file: file.to_owned(), list: vec![Problem { line: 1, column: 1, message }] }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}:{}:{}: {}", self.file, problem.line, problem.column, problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// At most this many mistakes are kept, so that a file of garbage fills neither screen nor memory.
const PROBLEMS_MAX: usize = 50;

/// Collects findings while a file is read.
#[derive(Debug)]
pub(super) struct Findings<'i> {
    text: &'i str,
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl<'i> Findings<'i> {
    /// Nothing found yet in `text`.
    pub(super) fn new(text: &'i str) -> Self {
        Self { text, errors: RefCell::default(), warnings: RefCell::default() }
    }

    /// A mistake at a byte offset of the text.
    pub(super) fn error(&self, at: usize, message: impl Into<String>) {
        self.keep(&self.errors, at, message.into());
    }

    /// A warning, which does not stop the program.
    pub(super) fn warn(&self, at: usize, message: impl Into<String>) {
        self.keep(&self.warnings, at, message.into());
    }

    fn keep(&self, list: &RefCell<Vec<Problem>>, at: usize, message: String) {
        let mut list = list.borrow_mut();
        if list.len() < PROBLEMS_MAX {
            let (line, column) = place(self.text, at);
            list.push(Problem { line, column, message });
        }
    }

    /// The text a span covers, for messages that quote it.
    pub(super) fn quote(&self, span: Range<usize>) -> &'i str {
        self.text.get(span).unwrap_or("")
    }

    /// Errors and warnings, each in the order of the file.
    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        let mut errors = self.errors.into_inner();
        let mut warnings = self.warnings.into_inner();
        errors.sort();
        errors.dedup();
        warnings.sort();
        (errors, warnings)
    }
}

/// Line and column, from 1, of a byte offset; an offset beyond the end or inside a character is
/// moved back.
fn place(text: &str, at: usize) -> (usize, usize) {
    let mut end = at.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = text.get(..end).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(line_start..).map_or(0, |start| start.chars().count()) + 1;
    (line, column)
}

/// The candidate that the user probably meant, if any is near.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Two slips in a word of six letters, one in a short one: more would suggest unrelated words.
    let slips_max = (word.chars().count() / 3).clamp(1, 3);
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, candidate), candidate))
        .filter(|(slips, candidate)| *slips <= slips_max || is_prefix(&lower, candidate))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// One is the start of the other, with at least three letters in common.
fn is_prefix(word: &str, candidate: &str) -> bool {
    word.len().min(candidate.len()) >= 3 && (word.starts_with(candidate) || candidate.starts_with(word))
}

/// "; did you mean `x`?" or, without a near one, "; known here: `x`, `y`".
pub(super) fn suggestion<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str> + Clone,
    known: &str,
) -> String {
    match nearest(word, candidates.clone()) {
        Some(candidate) => format!("; did you mean `{candidate}`?"),
        None => {
            let list: Vec<String> = candidates.into_iter().map(|one| format!("`{one}`")).collect();
            format!("; {known}: {}", list.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = "a = 1\nü = 2\n";
        assert_eq!(place(text, 0), (1, 1));
        assert_eq!(place(text, 6), (2, 1));
        assert_eq!(place(text, 7), (2, 1), "inside a character");
        assert_eq!(place(text, 9), (2, 3));
        assert_eq!(place(text, 1_000), (3, 1), "beyond the end");
    }

    #[test]
    fn nearest_finds_slips_and_refuses_strangers() {
        let keys = ["priority", "role", "up", "down", "cap"];
        assert_eq!(nearest("priorty", keys), Some("priority"));
        assert_eq!(nearest("prio", keys), Some("priority"));
        assert_eq!(nearest("Role", keys), Some("role"));
        assert_eq!(nearest("dwon", keys), Some("down"));
        assert_eq!(nearest("bandwidth", keys), None);
        assert_eq!(nearest("", keys), None);
    }
}
