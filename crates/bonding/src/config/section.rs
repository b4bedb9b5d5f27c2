//! Reads the tables of a TOML document key by key, and reports the keys that were not read.
//!
//! The reader asks a [`Section`] for every key it may have. [`Section::finish`] then reports the
//! other keys as unknown, each with the nearest known key. An [`Item`] turns one value into a type,
//! or reports why it cannot. Neither stops at a mistake: both answer `None` and reading goes on, so
//! that one pass finds all mistakes.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Findings, suggestion};

/// A value and the byte offset where it stands, for checks across sections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// A table that is being read.
pub(super) struct Section<'a, 'i> {
    findings: &'a Findings<'i>,
    /// As the user writes it: `[server]`, `[[link]]`; empty for the document itself.
    title: &'static str,
    table: Option<&'a DeTable<'i>>,
    at: usize,
    asked: Vec<&'static str>,
}

impl<'a, 'i> Section<'a, 'i> {
    /// The document itself.
    pub(super) fn document(findings: &'a Findings<'i>, table: &'a DeTable<'i>) -> Self {
        Self { findings, title: "", table: Some(table), at: 0, asked: Vec::new() }
    }

    /// Where the section starts.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Whether the file has it.
    pub(super) fn is_written(&self) -> bool {
        self.table.is_some()
    }

    /// Whether a key is written, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether a key is missing, or an empty array.
    pub(super) fn is_absent(&self, key: &str) -> bool {
        let value = self.table.and_then(|table| table.get(key));
        value.is_none_or(|value| value.get_ref().as_array().is_some_and(|array| array.is_empty()))
    }

    /// The value of a key, if it is written.
    pub(super) fn item(&mut self, key: &'static str) -> Option<Item<'a, 'i>> {
        self.asked.push(key);
        let (written, value) = self.table?.get_key_value(key)?;
        let at = written.span().start;
        Some(Item { findings: self.findings, title: self.title, key, at, value })
    }

    /// The sub-table `[key]`; one without any keys if it is not written.
    pub(super) fn section(&mut self, key: &'static str, title: &'static str) -> Section<'a, 'i> {
        let empty = Section { findings: self.findings, title, table: None, at: self.at, asked: Vec::new() };
        let Some(item) = self.item(key) else { return empty };
        match item.value.get_ref() {
            DeValue::Table(table) => Section { table: Some(table), at: item.at, ..empty },
            DeValue::Array(_) => {
                item.fail(format!("{title} exists once: write it with single brackets"));
                empty
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {
                let found = with_article(item.value.get_ref().type_str());
                item.fail(format!("{title} is a section, not {found}"));
                empty
            }
        }
    }

    /// The array of tables `[[key]]`, in the order of the file.
    pub(super) fn sections(&mut self, key: &'static str, title: &'static str) -> Vec<Section<'a, 'i>> {
        let Some(item) = self.item(key) else { return Vec::new() };
        let wrong = || item.fail(format!("{title} may exist several times: write it with double brackets"));
        let DeValue::Array(array) = item.value.get_ref() else {
            wrong();
            return Vec::new();
        };
        let mut sections = Vec::new();
        for element in array {
            let DeValue::Table(table) = element.get_ref() else {
                wrong();
                continue;
            };
            let at = element.span().start;
            let findings = self.findings;
            sections.push(Section { findings, title, table: Some(table), at, asked: Vec::new() });
        }
        sections
    }

    /// A mistake of the section as a whole, such as a missing key.
    pub(super) fn fail(&self, message: impl Into<String>) {
        self.findings.error(self.at, message);
    }

    /// A mistake at a place inside the section.
    pub(super) fn fail_at(&self, at: usize, message: impl Into<String>) {
        self.findings.error(at, message);
    }

    /// A warning about a place inside the section.
    pub(super) fn warn_at(&self, at: usize, message: impl Into<String>) {
        self.findings.warn(at, message);
    }

    /// Reports the keys that were not read. `elsewhere` names keys of another kind of file, and
    /// which.
    pub(super) fn finish(self, elsewhere: &[(&str, &str)]) {
        let Some(table) = self.table else { return };
        for key in table.keys() {
            let word: &str = key.get_ref();
            if self.asked.contains(&word) {
                continue;
            }
            let at = key.span().start;
            if let Some((_, file)) = elsewhere.iter().find(|(name, _)| *name == word) {
                self.findings.error(at, format!("section `{word}` belongs in {file}, not in this file"));
                continue;
            }
            let hint = suggestion(word, self.asked.iter().copied(), "known here");
            let message = if self.title.is_empty() {
                format!("unknown section or key `{}`{hint}", shown(word))
            } else {
                format!("unknown key `{}` in {}{hint}", shown(word), self.title)
            };
            self.findings.error(at, message);
        }
    }
}

/// One value with its key.
#[derive(Clone, Copy)]
pub(super) struct Item<'a, 'i> {
    findings: &'a Findings<'i>,
    title: &'static str,
    key: &'static str,
    at: usize,
    value: &'a Spanned<DeValue<'i>>,
}

impl<'a, 'i> Item<'a, 'i> {
    /// Where the key stands.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Reports a mistake of this value.
    pub(super) fn fail(&self, message: impl Into<String>) {
        self.findings.error(self.value.span().start, message);
    }

    /// A warning about this value.
    pub(super) fn warn(&self, message: impl Into<String>) {
        self.findings.warn(self.at, message);
    }

    /// Whether the value is an empty array.
    pub(super) fn is_empty_array(&self) -> bool {
        self.value.get_ref().as_array().is_some_and(|array| array.is_empty())
    }

    /// Warns that this setting has no effect.
    pub(super) fn no_effect(&self, why: &str) {
        let value = self.findings.quote(self.value.span());
        let value = value.lines().next().unwrap_or("");
        let message = format!("{} {} = {} has no effect in this version{why}", self.title, self.key, value);
        self.findings.warn(self.at, message);
    }

    fn wrong_type(&self, value: &Spanned<DeValue<'i>>, expected: &str) {
        let found = with_article(value.get_ref().type_str());
        let message = format!("`{}` in {} is {found}; expected {expected}", self.key, self.title);
        self.findings.error(value.span().start, message);
    }

    fn text_of(&self, value: &'a Spanned<DeValue<'i>>, expected: &str) -> Option<&'a str> {
        if let DeValue::String(text) = value.get_ref() {
            return Some(text);
        }
        self.wrong_type(value, expected);
        None
    }

    fn parsed_of<T>(
        &self,
        value: &'a Spanned<DeValue<'i>>,
        expected: &str,
        parse: &impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text_of(value, expected)?;
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(why) => {
                let message = format!("`{}` in {}: {why}", self.key, self.title);
                self.findings.error(value.span().start, message);
                None
            }
        }
    }

    /// A string that `parse` understands; `expected` says in a few words what that is, with an
    /// example.
    pub(super) fn parsed<T>(self, expected: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.parsed_of(self.value, expected, &parse)
    }

    /// An array of strings, or a single string for an array of one.
    pub(super) fn list<T>(
        self,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<Located<T>> {
        let one = |value: &'a Spanned<DeValue<'i>>| {
            let at = value.span().start;
            self.parsed_of(value, expected, &parse).map(|value| Located { value, at })
        };
        match self.value.get_ref() {
            DeValue::Array(array) => array.iter().filter_map(one).collect(),
            DeValue::String(_) => one(self.value).into_iter().collect(),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => {
                self.wrong_type(self.value, expected);
                Vec::new()
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(self, choices: &[(&str, T)]) -> Option<T> {
        let words = || choices.iter().map(|(word, _)| *word);
        let expected =
            format!("one of {}", words().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(", "));
        self.parsed(&expected, |text| {
            let found = choices.iter().find(|(word, _)| *word == text);
            found.map(|(_, choice)| *choice).ok_or_else(|| {
                let all: Vec<&str> = words().collect();
                format!("unknown value \"{}\"{}", shown(text), suggestion(text, all, "known values"))
            })
        })
    }

    /// `true` or `false`.
    pub(super) fn boolean(self) -> Option<bool> {
        let answer = self.value.get_ref().as_bool();
        if answer.is_none() {
            self.wrong_type(self.value, "true or false");
        }
        answer
    }

    /// Whether the value is an integer, for keys that also take words.
    pub(super) fn is_integer(&self) -> bool {
        self.value.get_ref().is_integer()
    }

    /// An integer within bounds.
    pub(super) fn integer(self, bounds: RangeInclusive<i64>, unit: &str) -> Option<i64> {
        let expected = format!("an integer from {} to {}{unit}", bounds.start(), bounds.end());
        let DeValue::Integer(written) = self.value.get_ref() else {
            self.wrong_type(self.value, &expected);
            return None;
        };
        let number = i64::from_str_radix(written.as_str(), written.radix()).ok();
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            let quoted = self.findings.quote(self.value.span());
            self.fail(format!("`{}` in {} is {quoted}; expected {expected}", self.key, self.title));
        }
        number
    }
}

fn with_article(type_name: &str) -> String {
    let article = if type_name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {type_name}")
}

/// A word from the file as a message repeats it: without control characters, and shortened.
pub(super) fn shown(word: &str) -> String {
    /// Chosen: a message stays readable.
    const SHOWN_MAX_CHARS: usize = 60;
    let mut safe: String = word.chars().take(SHOWN_MAX_CHARS).flat_map(char::escape_debug).collect();
    if word.chars().nth(SHOWN_MAX_CHARS).is_some() {
        safe.push('…');
    }
    safe
}
