//! Data caps: a link that has carried its month's amount, both ways, is a backup until the next
//! month.
//!
//! Contract: no code here runs for a packet. The core's byte counts are read once a second. They
//! are written down when a link has used a thousandth of its cap since the last time, or after ten
//! minutes, but never twice within ten seconds, and at the end. So a crash forgets a thousandth of
//! a cap, or the bytes of ten seconds. Writing blocks for as long as the disk takes.
//!
//! It does not count handshakes, since the core does not: at most some 400 bytes a link every two
//! minutes.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bonding_proto::client::Client;
use bonding_proto::{Instant, LinkId};

use crate::engine::plan::LinkPlan;
use crate::events::{Happening, Kind};
use crate::state::usage::Usage;
use crate::status::Cap;

/// Between two readings of the byte counts. Chosen: a role changes within the second.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);
/// Bounds of the time between two writings. Chosen: a fast link does not wear the disk out, and a
/// slow one loses at most ten minutes.
const SAVE_INTERVAL_MIN: Duration = Duration::from_secs(10);
const SAVE_INTERVAL_MAX: Duration = Duration::from_secs(600);
/// The part of a cap after which the count is written down. Chosen: 100 MB of 100 GB.
const SAVE_SHARE: u64 = 1_000;
/// All but one of so many parts of a cap are most of it: 75 %.
const WARN_PARTS: u64 = 4;

/// One link with a cap.
#[derive(Debug)]
struct Capped {
    link: LinkId,
    name: String,
    cap_bytes: u64,
    /// The core's count when it was read last.
    seen_bytes: u64,
    unsaved_bytes: u64,
    used_up: bool,
    /// It was told that most of it is used.
    warned: bool,
}

impl Capped {
    /// Whether most of the cap is used, by the bytes of the month.
    const fn is_nearly_used(&self, used_bytes: u64) -> bool {
        used_bytes >= self.cap_bytes / WARN_PARTS * (WARN_PARTS - 1)
    }
}

/// The caps of a client's links.
#[derive(Debug)]
pub(super) struct Caps {
    links: Vec<Capped>,
    usage: Usage,
    file: PathBuf,
    review_at: Instant,
    saved_at: Instant,
    complained: bool,
    /// What happened, to be told.
    happened: Vec<Happening>,
}

impl Caps {
    /// Reads the bytes that were used before; without a cap there is no file to read.
    pub(super) fn load(links: &[LinkPlan], file: PathBuf, time: SystemTime, now: Instant) -> Self {
        let capped = |(number, link): (u8, &LinkPlan)| {
            link.cap.map(|cap_bytes| Capped {
                link: LinkId(number),
                name: link.name.clone(),
                cap_bytes,
                seen_bytes: 0,
                unsaved_bytes: 0,
                used_up: false,
                warned: false,
            })
        };
        let links: Vec<Capped> = (0..u8::MAX).zip(links).filter_map(capped).collect();
        let usage = if links.is_empty() { Usage::default() } else { known_usage(&file) };
        let mut caps = Self {
            links,
            usage,
            file,
            review_at: now,
            saved_at: now,
            complained: false,
            happened: Vec::new(),
        };
        caps.usage.turn(time);
        for link in &mut caps.links {
            let used_bytes = caps.usage.of(&link.name);
            link.used_up = used_bytes >= link.cap_bytes;
            // That was told before this start.
            link.warned = link.is_nearly_used(used_bytes);
            if link.used_up {
                note_used_up(link);
            }
        }
        caps
    }

    /// Whether a link has a cap that is used up.
    pub(super) fn is_used_up(&self, link: LinkId) -> bool {
        self.links.iter().any(|capped| capped.link == link && capped.used_up)
    }

    /// A link has another cap from now on, or none. What it has used of the month counts on, as far
    /// as it was counted.
    pub(super) fn set(&mut self, (link, name): (LinkId, &str), cap: Option<u64>, carried_bytes: u64) {
        let Some(cap_bytes) = cap else { return self.links.retain(|capped| capped.link != link) };
        if self.links.is_empty() {
            self.usage = known_usage(&self.file);
            self.usage.turn(SystemTime::now());
        }
        let used_up = self.usage.of(name) >= cap_bytes;
        match self.links.iter_mut().find(|capped| capped.link == link) {
            Some(capped) => (capped.cap_bytes, capped.used_up) = (cap_bytes, used_up),
            None => self.links.push(Capped {
                link,
                name: name.to_owned(),
                cap_bytes,
                seen_bytes: carried_bytes,
                unsaved_bytes: 0,
                used_up,
                warned: used_up,
            }),
        }
    }

    /// The link is gone: what it carried counts for when it is back.
    pub(super) fn remove(&mut self, (link, name): (LinkId, &str)) {
        if self.links.iter().any(|capped| capped.link == link) {
            self.save();
            tracing::debug!(link = name, "what a link with a data cap carried is written down");
            self.links.retain(|capped| capped.link != link);
        }
    }

    /// A link's cap, and how much of it is used.
    pub(super) fn of(&self, link: LinkId) -> Option<Cap> {
        let capped = self.links.iter().find(|capped| capped.link == link)?;
        Some(Cap { used_bytes: self.usage.of(&capped.name), cap_bytes: capped.cap_bytes })
    }

    /// What happened since the last call.
    pub(super) fn take_happened(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happened)
    }

    /// Once a second, counts the bytes since the last time. `true`: a cap is used up, or free
    /// again.
    pub(super) fn review(&mut self, client: &Client, now: Instant) -> bool {
        if self.links.is_empty() || now < self.review_at {
            return false;
        }
        self.review_at = now + REVIEW_INTERVAL;
        let changes = self.count(|link| client.link_bytes(link), SystemTime::now());
        let since = now.saturating_since(self.saved_at);
        let much = self.links.iter().any(|link| link.unsaved_bytes >= (link.cap_bytes / SAVE_SHARE).max(1));
        if changes || since >= SAVE_INTERVAL_MAX || (since >= SAVE_INTERVAL_MIN && much) {
            self.saved_at = now;
            self.save();
        }
        changes
    }

    /// Whether caps are used up or free again, by the bytes that the links have carried in all.
    fn count(&mut self, carried: impl Fn(LinkId) -> u64, time: SystemTime) -> bool {
        let new_month = self.usage.turn(time);
        let mut changes = false;
        for link in &mut self.links {
            let bytes = carried(link.link);
            let more = bytes.saturating_sub(link.seen_bytes);
            link.seen_bytes = bytes;
            link.unsaved_bytes += more;
            self.usage.add(&link.name, more);
            let before = link.used_up;
            let used_bytes = self.usage.of(&link.name);
            link.used_up = used_bytes >= link.cap_bytes;
            changes |= link.used_up != before;
            let is_nearly_used = link.is_nearly_used(used_bytes);
            let warned = std::mem::replace(&mut link.warned, is_nearly_used);
            if link.used_up && !before {
                note_used_up(link);
                self.happened.push(told(
                    Kind::CapUsedUp,
                    link,
                    "cap is used up: a backup until the next month",
                ));
            } else if new_month && before {
                tracing::info!(link = link.name, "a new month: the link's data cap is free again");
                self.happened.push(told(Kind::CapFree, link, "cap is free again: a new month"));
            } else if is_nearly_used && !warned && !link.used_up {
                tracing::warn!(link = link.name, "three quarters of the month's data cap are used");
                self.happened.push(told(Kind::CapWarning, link, "cap is used to three quarters"));
            }
        }
        changes
    }

    /// Writes the count down.
    pub(super) fn save(&mut self) {
        if self.links.iter().all(|link| link.unsaved_bytes == 0) {
            return;
        }
        match self.usage.save(&self.file) {
            Ok(()) => {
                self.complained = false;
                for link in &mut self.links {
                    link.unsaved_bytes = 0;
                }
            }
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(%error, "cannot write down how much of their data caps the links have used");
            }
            Err(_) => {}
        }
    }
}

/// What was used before. A file that cannot be read, as a power cut may leave it, is no reason to
/// carry nothing: the count begins anew, and the log says so.
fn known_usage(file: &Path) -> Usage {
    Usage::load(file).unwrap_or_else(|error| {
        tracing::warn!(%error, "how much of their data caps the links have used is lost: counted from now on");
        Usage::default()
    })
}

fn told(kind: Kind, link: &Capped, what: &str) -> Happening {
    Happening::new(kind, format!("{}'s data {what}", link.name)).of_link(&link.name)
}

fn note_used_up(link: &Capped) {
    let gigabytes = link.cap_bytes / 1_000_000_000;
    tracing::warn!(
        link = link.name,
        cap_bytes = link.cap_bytes,
        "the month's data cap{} is used up: the link is a backup until the next month",
        if gigabytes > 0 { format!(" of {gigabytes} GB") } else { String::new() }
    );
}

#[cfg(test)]
pub(super) mod tests {
    use bonding_proto::config::{Security, UdpFlows};
    use bonding_proto::view::LinkRole;

    use super::*;

    pub(crate) fn plan(name: &str, role: LinkRole, cap: Option<u64>) -> LinkPlan {
        LinkPlan {
            name: name.to_owned(),
            interface: None,
            source: None,
            security: Security::Sealed,
            port: 9_001,
            priority: 1,
            role,
            tx_rate: None,
            rx_rate: None,
            cap,
            flows: UdpFlows::Auto,
        }
    }

    fn at(time: &str) -> SystemTime {
        humantime::parse_rfc3339(time).unwrap()
    }

    const NOVEMBER: &str = "2026-11-22T06:00:00Z";
    const DECEMBER: &str = "2026-12-01T00:00:00Z";

    #[test]
    fn a_link_that_has_used_its_cap_is_a_backup_until_the_next_month() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.usage");
        let links = [
            plan("adsl", LinkRole::Primary, None),
            plan("lte", LinkRole::Secondary, Some(1_000)),
            plan("spare", LinkRole::Never, Some(10)),
        ];
        let load = |time| Caps::load(&links, file.clone(), at(time), Instant::ZERO);
        let mut caps = load(NOVEMBER);
        assert!(caps.count(|_| 999, at(NOVEMBER)), "the spare one's is used up");
        assert_eq!((caps.of(LinkId(0)), caps.is_used_up(LinkId(0))), (None, false));
        assert_eq!(caps.of(LinkId(1)), Some(Cap { used_bytes: 999, cap_bytes: 1_000 }));
        assert!(caps.is_used_up(LinkId(2)));
        caps.save();

        // Another run, whose core counts from nothing.
        let mut caps = load(NOVEMBER);
        assert!(!caps.count(|_| 0, at(NOVEMBER)) && !caps.is_used_up(LinkId(1)));
        assert!(caps.count(|_| 1, at(NOVEMBER)) && caps.is_used_up(LinkId(1)));
        assert!(!caps.count(|_| 5, at(NOVEMBER)), "once");
        assert_eq!(caps.of(LinkId(1)).unwrap().used_bytes, 1_004);
        caps.save();

        let mut caps = load(NOVEMBER);
        assert!(caps.is_used_up(LinkId(1)), "from the start");
        assert!(caps.count(|_| 7, at(DECEMBER)) && !caps.is_used_up(LinkId(1)));
        assert_eq!(caps.of(LinkId(1)).unwrap().used_bytes, 7);
        assert!(!load(DECEMBER).is_used_up(LinkId(1)));
    }

    #[test]
    fn a_cap_that_is_set_later_counts_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.usage");
        let mut caps =
            Caps::load(&[plan("lte", LinkRole::Primary, None)], file, SystemTime::now(), Instant::ZERO);
        let link = (LinkId(0), "lte");
        caps.set(link, Some(1_000), 70_000);
        assert!(!caps.count(|_| 70_500, SystemTime::now()));
        assert_eq!(caps.of(LinkId(0)), Some(Cap { used_bytes: 500, cap_bytes: 1_000 }));
        caps.set(link, Some(400), 70_500);
        assert!(caps.is_used_up(LinkId(0)), "at once");
        caps.set(link, None, 70_500);
        assert_eq!((caps.of(LinkId(0)), caps.is_used_up(LinkId(0))), (None, false));
    }

    #[test]
    fn a_damaged_count_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.usage");
        std::fs::write(&file, "").unwrap();
        let links = [plan("lte", LinkRole::Primary, Some(1_000))];
        let mut caps = Caps::load(&links, file.clone(), at(NOVEMBER), Instant::ZERO);
        assert!(!caps.count(|_| 700, at(NOVEMBER)));
        caps.save();
        let caps = Caps::load(&links, file, at(NOVEMBER), Instant::ZERO);
        assert_eq!(caps.of(LinkId(0)).unwrap().used_bytes, 700);
    }

    #[test]
    fn without_caps_no_file_is_touched() {
        let file = PathBuf::from("/nonexistent/client.usage");
        let mut caps =
            Caps::load(&[plan("adsl", LinkRole::Primary, None)], file, at(NOVEMBER), Instant::ZERO);
        assert!(!caps.count(|_| 1, at(NOVEMBER)));
        caps.save();
        assert!(!caps.complained);
    }
}
