//! The bytes that links with a data cap have carried in the present month: `NAME.usage` beside
//! `NAME.key`.
//!
//! The month is that of the machine's clock in UTC. A clock that has no time yet (that of a router
//! without a battery after its start) counts towards the month that the file names. A clock that
//! was wrong, in either direction, loses nothing: the counts of a few other months are kept, and
//! are those of the present one again when the clock says so.
//!
//! JSON: `{"month":"2026-11","bytes":{"lte":123}}`, with `"others":{"2026-10":{"lte":456}}` where
//! there are others; links are known by their names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{StateError, atomic, prepare_folder};

/// A clock before this has no time yet. Chosen: no build of this program is older.
const FIRST_MONTH: &str = "2025-01";
/// Other months that are kept. Chosen: the last one, and two that a wrong clock named.
const OTHERS_MAX: usize = 3;
/// Far more than 32 links need.
const BYTES_MAX: u64 = 65_536;

/// One month's count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    month: String,
    bytes: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    others: BTreeMap<String, BTreeMap<String, u64>>,
}

/// The file beside a key.
pub fn file(private_key_file: &Path) -> PathBuf {
    private_key_file.with_extension("usage")
}

impl Usage {
    /// Reads the file; without a file no bytes were used.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn load(path: &Path) -> Result<Self, StateError> {
        let content = atomic::read(path, BYTES_MAX).map_err(StateError::io("read", path))?;
        let Some(content) = content else { return Ok(Self::default()) };
        let damaged = |why: String| StateError::Damaged {
            path: path.to_owned(),
            why,
            remedy: "remove it, and this month's count begins anew",
        };
        let usage: Self = serde_json::from_slice(&content).map_err(|error| damaged(error.to_string()))?;
        let is_month = |text: &str| {
            let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
            text.split_once('-').is_some_and(|(year, month)| {
                (year.len(), month.len()) == (4, 2) && digits(year) && digits(month)
            })
        };
        if usage.month.is_empty() || is_month(&usage.month) {
            return Ok(usage);
        }
        Err(damaged(format!("\"{}\" is not a month", usage.month.escape_debug())))
    }

    /// Writes the file, and makes its folder.
    ///
    /// # Errors
    /// When it cannot be written; the old content stays.
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        prepare_folder(path)?;
        let content = serde_json::to_vec(self).map_err(std::io::Error::from);
        content.and_then(|content| atomic::replace(path, &content)).map_err(StateError::io("write", path))
    }

    /// Goes to the month of `now`, unless the clock has no time yet. `true`: another month than
    /// before, with the bytes that were used in it.
    pub fn turn(&mut self, now: SystemTime) -> bool {
        // 1970-01-01T… to 9999-12-31T….
        let time = humantime::format_rfc3339_seconds(now.max(SystemTime::UNIX_EPOCH)).to_string();
        let month = time.get(..7).unwrap_or_default();
        let is_first = self.month.is_empty();
        if month == self.month || (month < FIRST_MONTH && !is_first) {
            return false;
        }
        let bytes = self.others.remove(month).unwrap_or_default();
        let before = std::mem::replace(&mut self.month, month.to_owned());
        let counted = std::mem::replace(&mut self.bytes, bytes);
        if !is_first && !counted.is_empty() {
            self.others.insert(before, counted);
        }
        while self.others.len() > OTHERS_MAX {
            self.others.pop_first();
        }
        !is_first
    }

    /// Counts `bytes` more of a link.
    pub fn add(&mut self, link: &str, bytes: u64) {
        match self.bytes.get_mut(link) {
            Some(used) => *used = used.saturating_add(bytes),
            None => {
                self.bytes.insert(link.to_owned(), bytes);
            }
        }
    }

    /// The bytes that a link has used in this month.
    pub fn of(&self, link: &str) -> u64 {
        self.bytes.get(link).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(time: &str) -> SystemTime {
        humantime::parse_rfc3339(time).unwrap()
    }

    #[test]
    fn months_only_move_on_and_begin_with_nothing() {
        let mut usage = Usage::default();
        assert!(!usage.turn(at("2026-11-22T06:00:00Z")), "the first is no new one");
        usage.add("lte", 5);
        usage.add("lte", 7);
        assert!(!usage.turn(at("2026-11-30T23:59:59Z")));
        assert_eq!((usage.of("lte"), usage.of("adsl")), (12, 0));
        // Clocks that do not have the time yet.
        for behind in [at("1970-01-01T00:00:00Z"), SystemTime::UNIX_EPOCH - Duration::from_secs(1)] {
            assert!(!usage.turn(behind));
            assert_eq!(usage.of("lte"), 12);
        }
        assert!(usage.turn(at("2026-12-01T00:00:00Z")));
        assert_eq!(usage.of("lte"), 0);
        // A clock that was wrong at the start, before it was set.
        for wrong in ["2099-01-01T00:00:00Z", "2026-06-30T00:00:00Z"] {
            usage.add("lte", 50);
            let used = usage.of("lte");
            assert!(usage.turn(at(wrong)) && usage.of("lte") == 0);
            usage.add("lte", 1);
            assert!(usage.turn(at("2026-12-02T00:00:00Z")));
            assert_eq!(usage.of("lte"), used, "{wrong}");
        }
        for month in 1..=9 {
            usage.turn(at(&format!("2026-0{month}-01T00:00:00Z")));
            usage.add("lte", 1);
        }
        assert!(usage.others.len() <= OTHERS_MAX);
        usage.turn(at("2026-12-01T00:00:00Z"));
        assert!(usage.turn(at("2027-01-01T00:00:00Z")), "over the turn of the year");
        usage.add("lte", u64::MAX);
        usage.add("lte", 1);
        assert_eq!(usage.of("lte"), u64::MAX);
    }

    #[test]
    fn what_was_used_outlives_the_process_and_damage_is_no_empty_month() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder.path().join("state/client.key"));
        assert!(path.ends_with("state/client.usage"));
        assert_eq!(Usage::load(&path).unwrap(), Usage::default());
        let mut usage = Usage::default();
        usage.turn(at("2026-11-22T06:00:00Z"));
        usage.add("lte", 123);
        usage.save(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), r#"{"month":"2026-11","bytes":{"lte":123}}"#);
        assert_eq!(Usage::load(&path).unwrap(), usage);
        for damage in
            ["", "{}", r#"{"month":"soon","bytes":{}}"#, r#"{"month":"2026-11","bytes":{"lte":-1}}"#]
        {
            std::fs::write(&path, damage).unwrap();
            let error = Usage::load(&path).unwrap_err().to_string();
            assert!(error.contains("is damaged") && error.contains("remove it"), "{error}");
        }
    }
}
