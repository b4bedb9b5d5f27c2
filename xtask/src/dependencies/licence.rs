//! Licence expressions of SPDX: `MIT OR (Apache-2.0 AND ISC)`, and cargo's older `MIT/Apache-2.0`.

use std::collections::BTreeSet;

/// The allowed licences by which `expression` is permitted; `None` if it is not, or cannot be read.
pub(super) fn permitted(expression: &str, allowed: &BTreeSet<String>) -> Option<BTreeSet<String>> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader { words: &words, allowed };
    let result = reader.any()?;
    if reader.words.is_empty() { result } else { None }
}

/// What an expression needs: `Some(None)` is one that is read and not permitted.
type Needed = Option<Option<BTreeSet<String>>>;

struct Reader<'a> {
    words: &'a [&'a str],
    allowed: &'a BTreeSet<String>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn next_is(&mut self, word: &str) -> bool {
        let is_next = self.words.first() == Some(&word);
        if is_next {
            self.next();
        }
        is_next
    }

    /// Terms between `OR`: all that are permitted count as needed.
    fn any(&mut self) -> Needed {
        let mut needed = self.all()?;
        while self.next_is("OR") {
            let other = self.all()?;
            needed = match (needed, other) {
                (Some(one), Some(other)) => Some(one.into_iter().chain(other).collect()),
                (one, other) => one.or(other),
            };
        }
        Some(needed)
    }

    /// Terms between `AND`.
    fn all(&mut self) -> Needed {
        let mut needed = self.one()?;
        while self.next_is("AND") {
            let other = self.one()?;
            needed = needed.zip(other).map(|(one, other)| one.into_iter().chain(other).collect());
        }
        Some(needed)
    }

    fn one(&mut self) -> Needed {
        let word = self.next()?;
        if word == "(" {
            let inner = self.any()?;
            return (self.next()? == ")").then_some(inner);
        }
        let licence =
            if self.next_is("WITH") { format!("{word} WITH {}", self.next()?) } else { word.to_owned() };
        Some(self.allowed.contains(&licence).then(|| BTreeSet::from([licence])))
    }
}
