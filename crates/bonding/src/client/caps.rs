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

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bonding_proto::client::Client;
use bonding_proto::view::LinkRole;
use bonding_proto::{Instant, LinkId};

use crate::engine::plan::LinkPlan;
use crate::state::StateError;
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

/// One link with a cap.
#[derive(Debug)]
struct Capped {
    link: LinkId,
    name: String,
    cap_bytes: u64,
    /// As configured.
    role: LinkRole,
    /// The core's count when it was read last.
    seen_bytes: u64,
    unsaved_bytes: u64,
    used_up: bool,
}

impl Capped {
    fn role_now(&self) -> LinkRole {
        if self.used_up { self.role.max(LinkRole::Backup) } else { self.role }
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
}

impl Caps {
    /// Reads the bytes that were used before; without a cap there is no file to read.
    pub(super) fn load(
        links: &[LinkPlan],
        file: PathBuf,
        time: SystemTime,
        now: Instant,
    ) -> Result<Self, StateError> {
        let capped = |(number, link): (u8, &LinkPlan)| {
            link.cap.map(|cap_bytes| Capped {
                link: LinkId(number),
                name: link.name.clone(),
                cap_bytes,
                role: link.role,
                seen_bytes: 0,
                unsaved_bytes: 0,
                used_up: false,
            })
        };
        let links: Vec<Capped> = (0..u8::MAX).zip(links).filter_map(capped).collect();
        let usage = if links.is_empty() { Usage::default() } else { Usage::load(&file)? };
        let mut caps = Self { links, usage, file, review_at: now, saved_at: now, complained: false };
        caps.usage.turn(time);
        for link in &mut caps.links {
            link.used_up = caps.usage.of(&link.name) >= link.cap_bytes;
            if link.used_up {
                note_used_up(link);
            }
        }
        Ok(caps)
    }

    /// The role of a link; `None`: as configured.
    pub(super) fn role(&self, link: LinkId) -> Option<LinkRole> {
        self.links.iter().find(|capped| capped.link == link).map(Capped::role_now)
    }

    /// A link's cap, and how much of it is used.
    pub(super) fn of(&self, link: LinkId) -> Option<Cap> {
        let capped = self.links.iter().find(|capped| capped.link == link)?;
        Some(Cap { used_bytes: self.usage.of(&capped.name), cap_bytes: capped.cap_bytes })
    }

    /// Once a second, counts the bytes since the last time. `true`: a link's role changed.
    pub(super) fn review(&mut self, client: &mut Client, now: Instant) -> bool {
        if self.links.is_empty() || now < self.review_at {
            return false;
        }
        self.review_at = now + REVIEW_INTERVAL;
        let changes = self.count(|link| client.link_bytes(link), SystemTime::now());
        for (link, role) in &changes {
            client.set_link_role(*link, *role, now);
        }
        let since = now.saturating_since(self.saved_at);
        let much = self.links.iter().any(|link| link.unsaved_bytes >= (link.cap_bytes / SAVE_SHARE).max(1));
        if !changes.is_empty() || since >= SAVE_INTERVAL_MAX || (since >= SAVE_INTERVAL_MIN && much) {
            self.saved_at = now;
            self.save();
        }
        !changes.is_empty()
    }

    /// The roles that change, by the bytes that the links have carried in all.
    fn count(&mut self, carried: impl Fn(LinkId) -> u64, time: SystemTime) -> Vec<(LinkId, LinkRole)> {
        let new_month = self.usage.turn(time);
        let mut changes = Vec::new();
        for link in &mut self.links {
            let bytes = carried(link.link);
            let more = bytes.saturating_sub(link.seen_bytes);
            link.seen_bytes = bytes;
            link.unsaved_bytes += more;
            self.usage.add(&link.name, more);
            let before = (link.used_up, link.role_now());
            link.used_up = self.usage.of(&link.name) >= link.cap_bytes;
            if link.used_up && !before.0 {
                note_used_up(link);
            } else if new_month && before.0 {
                tracing::info!(link = link.name, "a new month: the link's data cap is free again");
            }
            if link.role_now() != before.1 {
                changes.push((link.link, link.role_now()));
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
mod tests {
    use bonding_proto::config::{Security, UdpFlows};

    use super::*;

    fn plan(name: &str, role: LinkRole, cap: Option<u64>) -> LinkPlan {
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
        let load = |time| Caps::load(&links, file.clone(), at(time), Instant::ZERO).unwrap();
        let mut caps = load(NOVEMBER);
        assert_eq!(caps.count(|_| 999, at(NOVEMBER)), []);
        assert_eq!((caps.of(LinkId(0)), caps.role(LinkId(0))), (None, None));
        assert_eq!(caps.of(LinkId(1)), Some(Cap { used_bytes: 999, cap_bytes: 1_000 }));
        assert_eq!(caps.role(LinkId(2)), Some(LinkRole::Never), "that is less than a backup");
        caps.save();

        // Another run, whose core counts from nothing.
        let mut caps = load(NOVEMBER);
        assert_eq!(caps.count(|_| 0, at(NOVEMBER)), []);
        assert_eq!(caps.count(|_| 1, at(NOVEMBER)), [(LinkId(1), LinkRole::Backup)]);
        assert_eq!(caps.count(|_| 5, at(NOVEMBER)), [], "once");
        assert_eq!(caps.of(LinkId(1)).unwrap().used_bytes, 1_004);
        caps.save();

        let mut caps = load(NOVEMBER);
        assert_eq!(caps.role(LinkId(1)), Some(LinkRole::Backup), "from the start");
        assert_eq!(caps.count(|_| 7, at(DECEMBER)), [(LinkId(1), LinkRole::Secondary)]);
        assert_eq!(caps.of(LinkId(1)).unwrap().used_bytes, 7);
        assert_eq!(load(DECEMBER).role(LinkId(1)), Some(LinkRole::Secondary));
    }

    #[test]
    fn without_caps_no_file_is_touched() {
        let file = PathBuf::from("/nonexistent/client.usage");
        let mut caps =
            Caps::load(&[plan("adsl", LinkRole::Primary, None)], file, at(NOVEMBER), Instant::ZERO).unwrap();
        assert_eq!(caps.count(|_| 1, at(NOVEMBER)), []);
        caps.save();
        assert!(!caps.complained);
    }
}
