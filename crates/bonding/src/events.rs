//! What happened to a running client or server, with its cause: a bounded list for people.
//!
//! The engine's shells make a [`Happening`] of each event that a person may ask about later. The
//! daemon numbers them and keeps the newest in a [`Ring`]; `bondctl events` and subscribers read
//! from it by number. A reader that comes too late learns how many it missed. The ring knows
//! neither the core's events nor the control socket.

use std::collections::VecDeque;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// Records that are kept. Chosen: a bad night of five links, and at most 600 KB.
pub const RECORDS_MAX: usize = 1_024;
/// The most characters of a record's text; the rest is left out. Chosen: three lines.
const TEXT_MAX: usize = 240;

/// What kind of thing happened. As JSON in snake case; a reader takes an unknown one as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The session's first link became usable.
    SessionUp,
    /// No link is usable any more.
    SessionDown,
    /// A link delivers.
    LinkUp,
    /// A link does not answer.
    LinkSuspect,
    /// A link is given up.
    LinkDown,
    /// A link carries half of what it did, or less.
    CapacityHalved,
    /// A link carries again what it did.
    CapacityRestored,
    /// A link's UDP flows, or its peer's address, changed.
    LinkChanged,
    /// A link's data cap is used to three quarters.
    CapWarning,
    /// A link's data cap is used up.
    CapUsedUp,
    /// A new month: the cap is free again.
    CapFree,
    /// The peer stopped, or was restarted.
    PeerRestarted,
    /// The server refused this client, or its new key.
    Refused,
    /// This client's key was replaced.
    KeyReplaced,
    /// The client uses another server.
    ServerChanged,
    /// A client enrolled.
    ClientJoined,
    /// A client's key, or an invitation, was refused.
    ClientRefused,
    /// A client's key has expired.
    ClientExpired,
    /// A client was removed.
    ClientRevoked,
    /// The configuration was read again.
    Reloaded,
    /// A link was set otherwise by hand.
    LinkByHand,
    /// One of a later version.
    #[serde(other)]
    Unknown,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// What.
    pub kind: Kind,
    /// On a server: the client that it is about.
    pub client: Option<String>,
    /// The link that it is about.
    pub link: Option<String>,
    /// The same for a person, with the cause.
    pub text: String,
}

impl Happening {
    /// About no link and no client.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, client: None, link: None, text: text.into() }
    }

    /// It is about this link.
    #[must_use]
    pub fn of_link(mut self, link: impl Into<String>) -> Self {
        self.link = Some(link.into());
        self
    }

    /// It is about this client.
    #[must_use]
    pub fn of_client(mut self, client: impl Into<String>) -> Self {
        self.client = Some(client.into());
        self
    }
}

/// A numbered record of something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counts on by one, from 1 at the start of the process.
    pub number: u64,
    /// RFC 3339 in UTC, with milliseconds.
    pub time: String,
    /// What kind of thing.
    pub kind: Kind,
    /// On a server: the client that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The link that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The same for a person, with the cause.
    pub text: String,
}

/// The newest records.
#[derive(Debug, Default)]
pub struct Ring {
    records: VecDeque<Record>,
    /// The number of the newest record so far.
    newest: u64,
}

impl Ring {
    /// Adds a record.
    pub fn push(&mut self, happening: Happening, at: SystemTime) {
        let Happening { kind, client, link, text } = happening;
        let text = match text.char_indices().nth(TEXT_MAX) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text,
        };
        self.newest += 1;
        let time = humantime::format_rfc3339_millis(at).to_string();
        if self.records.len() == RECORDS_MAX {
            self.records.pop_front();
        }
        self.records.push_back(Record { number: self.newest, time, kind, client, link, text });
    }

    /// The number of the newest record; 0: there was none.
    pub const fn newest(&self) -> u64 {
        self.newest
    }

    /// At most `limit` records behind the one with this number, and how many before them are gone.
    pub fn after(&self, number: u64, limit: usize) -> (impl Iterator<Item = &Record>, u64) {
        let first = self.records.front().map_or(self.newest + 1, |record| record.number);
        let lost = first.saturating_sub(number.saturating_add(1));
        let skip = usize::try_from(number.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        (self.records.iter().skip(skip).take(limit), lost)
    }
}

/// The answer to a request for records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<Record>,
    /// Records after the number that was asked for which are not kept any more.
    pub lost: u64,
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) fn happening(number: u64) -> Happening {
        let text = format!("adsl SUSPECT: {number} packets unanswered for 140 ms");
        Happening::new(Kind::LinkSuspect, text).of_link("adsl")
    }

    fn numbers(ring: &Ring, after: u64, limit: usize) -> (Vec<u64>, u64) {
        let (records, lost) = ring.after(after, limit);
        (records.map(|record| record.number).collect(), lost)
    }

    #[test]
    fn the_newest_are_kept_and_a_late_reader_learns_what_it_missed() {
        let mut ring = Ring::default();
        assert_eq!(numbers(&ring, 0, 10), (vec![], 0));
        let count = RECORDS_MAX as u64 + 10;
        for number in 1..=count {
            ring.push(happening(number), SystemTime::UNIX_EPOCH + Duration::from_millis(number));
        }
        assert_eq!(numbers(&ring, 0, 2), (vec![11, 12], 10));
        assert_eq!(numbers(&ring, 10, 2), (vec![11, 12], 0));
        assert_eq!(numbers(&ring, count - 1, 9), (vec![count], 0));
        assert_eq!(numbers(&ring, count, 9), (vec![], 0));
        assert_eq!(numbers(&ring, u64::MAX, 9), (vec![], 0));
        assert_eq!(ring.after(0, usize::MAX).0.count(), RECORDS_MAX);
    }

    #[test]
    fn a_record_is_json_and_bounded() {
        let mut ring = Ring::default();
        ring.push(happening(23).of_client("home"), SystemTime::UNIX_EPOCH);
        let json = serde_json::to_string(ring.after(0, 1).0.next().unwrap()).unwrap();
        assert_eq!(
            json,
            r#"{"number":1,"time":"1970-01-01T00:00:00.000Z","kind":"link_suspect","client":"home","link":"adsl","text":"adsl SUSPECT: 23 packets unanswered for 140 ms"}"#
        );
        let later: Record = serde_json::from_str(&json.replace("link_suspect", "eclipse")).unwrap();
        assert_eq!(later.kind, Kind::Unknown);
        ring.push(Happening::new(Kind::Reloaded, "ä".repeat(10_000)), SystemTime::UNIX_EPOCH);
        assert!(ring.after(1, 1).0.all(|record| record.text.chars().count() == TEXT_MAX + 1));
    }
}
