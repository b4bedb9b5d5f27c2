//! One sentence: whether it bonds, how much the links carry of what they can, and why a link does
//! not take part.
//!
//! It is about the busier direction. What comes in is judged by what the peer tells of its sending.

use super::{Link, Role, Session};

/// Under this, together, nothing is being carried, Mbit/s. Chosen: above what heartbeats take.
const IDLE_MBPS: f64 = 0.3;
/// A link takes part with at least this share of the whole. Chosen: more than its heartbeats.
const PART: f64 = 0.02;
/// A link is full from this share of its capacity on. Source: the score's limit.
const FULL: f64 = 0.8;
/// A link counts as lossy from here on, permille. Source: the state word LOSSY.
const LOSSY_PERMILLE: u16 = bonding_proto::limits::LOSSY_PERMILLE;

/// One direction of a link.
struct Way<'a> {
    link: &'a Link,
    mbps: f64,
    capacity: Option<f64>,
    loss_permille: u16,
}

impl<'a> Way<'a> {
    /// What this side sends.
    fn sent(link: &'a Link) -> Self {
        let (capacity, loss_permille) = (link.capacity_mbps, link.loss_permille);
        Self { link, mbps: link.tx_mbps, capacity, loss_permille }
    }

    /// What the peer sends.
    fn received(link: &'a Link) -> Self {
        let capacity = link.peer.as_ref().and_then(|peer| peer.capacity_mbps);
        let loss_permille = link.peer.as_ref().map_or(0, |peer| peer.loss_permille);
        Self { link, mbps: link.rx_mbps, capacity, loss_permille }
    }

    /// Whether the link may carry data now, by its state and role.
    fn serves(&self, backups: bool) -> bool {
        let is_up = !matches!(self.link.state.as_str(), "DOWN" | "SUSPECT");
        is_up && self.link.role != "never" && (backups || self.link.role != "backup")
    }

    /// What is to be said of the link, if anything; `carried`: by all links together.
    fn note(&self, backups: bool, carried: f64) -> Option<String> {
        let percent = format!("loses {:.0} %", (f64::from(self.loss_permille) / 10.0).max(1.0));
        let is_lossy = self.loss_permille >= LOSSY_PERMILLE;
        let takes_part = self.mbps >= carried * PART;
        let what = match (self.link.state.as_str(), self.link.role.as_str()) {
            ("DOWN", _) => "is down".to_owned(),
            (_, "never") => "only measures".to_owned(),
            ("SUSPECT", _) => "does not answer".to_owned(),
            (_, "backup") if !backups => "stands by".to_owned(),
            _ if carried < IDLE_MBPS => return is_lossy.then(|| format!("{} {percent}", self.link.name)),
            _ if is_lossy && !takes_part => format!("left out: {percent}"),
            _ if is_lossy => percent,
            (_, "secondary") if !takes_part => "waits until the primary links are full".to_owned(),
            _ if !takes_part => "not needed".to_owned(),
            _ if self.capacity.is_some_and(|capacity| self.mbps > capacity * FULL) => "full".to_owned(),
            _ => return None,
        };
        Some(format!("{} {what}", self.link.name))
    }
}

/// The sentence about one session's links.
pub(super) fn summary(role: Role, session: &Session, links: &[Link]) -> String {
    if session.state != "up" {
        let why = session.refused.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        return format!("not connected{why}");
    }
    let sum = |of: fn(&Link) -> f64| links.iter().map(of).sum::<f64>();
    let is_sending = sum(|link| link.tx_mbps) >= sum(|link| link.rx_mbps);
    let way = |link| if is_sending { Way::sent(link) } else { Way::received(link) };
    let ways: Vec<Way<'_>> = links.iter().map(way).collect();
    // Backups serve where nothing else is up.
    let backups = !ways.iter().any(|way| way.serves(false));
    let serving = || ways.iter().filter(|way| way.serves(backups));
    let carried: f64 = serving().map(|way| way.mbps).fold(0.0, |sum, rate| sum + rate);
    let capacity: Option<f64> = serving().map(|way| way.capacity).sum();
    let of = capacity.filter(|sum| *sum > 0.0).map(|sum| format!(" of {sum:.0}")).unwrap_or_default();
    let is_up = is_sending == (role == Role::Client);
    let direction = if is_up { "up" } else { "down" };
    let part: Vec<&Way<'_>> = serving().filter(|way| way.mbps >= carried * PART).collect();
    let mut parts = vec![match part.as_slice() {
        _ if serving().next().is_none() => "no link answers".to_owned(),
        _ if carried < IDLE_MBPS => idle(serving().count(), capacity, direction),
        [alone] => format!("carrying {carried:.0}{of} Mbit/s {direction} over {} alone", alone.link.name),
        several => format!("carrying {carried:.0}{of} Mbit/s {direction} over {} links", several.len()),
    }];
    parts.extend(ways.iter().filter_map(|way| way.note(backups, carried)));
    parts.join("; ")
}

fn idle(count: usize, capacity: Option<f64>, direction: &str) -> String {
    let links = if count == 1 { "1 link".to_owned() } else { format!("{count} links") };
    let carry = capacity.filter(|sum| *sum > 0.0);
    let carry = carry.map(|sum| format!(" for {sum:.0} Mbit/s {direction}")).unwrap_or_default();
    format!("idle: {links} ready{carry}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::PeerSending;
    use crate::status::tests::{session, snapshot};

    /// A link that receives so much of so much.
    fn link(name: &str, rx_mbps: f64, capacity_mbps: f64) -> Link {
        let status = snapshot(Role::Client, vec![session("vps", true)]).status();
        let peer =
            PeerSending { tx_mbps: rx_mbps, capacity_mbps: Some(capacity_mbps), ..PeerSending::default() };
        Link {
            name: name.to_owned(),
            state: "OK".to_owned(),
            rx_mbps,
            tx_mbps: 0.1,
            peer: Some(peer),
            ..status.links[0].clone()
        }
    }

    fn said(links: &[Link]) -> String {
        let session = snapshot(Role::Client, vec![session("vps", true)]).status().session;
        summary(Role::Client, &session, links)
    }

    #[test]
    fn a_bond_says_what_it_carries_and_why_a_link_does_not() {
        let mut lossy = link("starlink2", 0.2, 70.0);
        lossy.peer.as_mut().unwrap().loss_permille = 180;
        let links = [link("adsl", 9.8, 10.0), link("starlink1", 50.0, 70.0), lossy];
        assert_eq!(
            said(&links),
            "carrying 60 of 150 Mbit/s down over 2 links; adsl full; starlink2 left out: loses 18 %"
        );
    }

    #[test]
    fn one_link_alone_is_no_bond() {
        let mut backup = link("lte", 0.0, 30.0);
        backup.role = "backup".to_owned();
        let mut dead = link("sat", 0.0, 70.0);
        dead.state = "DOWN".to_owned();
        let links = [link("adsl", 5.0, 10.0), backup.clone(), dead.clone()];
        assert_eq!(said(&links), "carrying 5 of 10 Mbit/s down over adsl alone; lte stands by; sat is down");
        // Then the backup serves.
        let links = [dead, Link { rx_mbps: 20.0, ..backup }];
        assert_eq!(said(&links), "carrying 20 of 30 Mbit/s down over lte alone; sat is down");
    }

    #[test]
    fn a_link_beside_those_that_suffice_is_not_needed() {
        let mut secondary = link("lte", 0.0, 30.0);
        secondary.role = "secondary".to_owned();
        let links = [link("fibre", 90.0, 400.0), link("adsl", 0.0, 10.0), secondary];
        assert_eq!(
            said(&links),
            "carrying 90 of 440 Mbit/s down over fibre alone; adsl not needed; lte waits until the primary \
             links are full"
        );
    }

    #[test]
    fn an_idle_bond_says_what_is_ready() {
        let links = [link("adsl", 0.0, 10.0), link("starlink", 0.0, 70.0)];
        assert!(said(&links).starts_with("idle: 2 links ready for "), "{}", said(&links));
        let mut unknown = link("adsl", 0.0, 10.0);
        (unknown.peer, unknown.capacity_mbps) = (None, None);
        assert_eq!(said(&[unknown]), "idle: 1 link ready");
    }

    #[test]
    fn a_server_sends_down() {
        let status = snapshot(Role::Server, vec![session("home", true)]).status();
        let said = &status.clients[0].summary;
        assert_eq!(said, "carrying 8 of 10 Mbit/s down over adsl alone; adsl full");
    }

    #[test]
    fn a_session_that_is_not_up_says_why() {
        let down = snapshot(Role::Client, vec![session("vps", false)]).status();
        assert_eq!(down.summary, "not connected");
    }
}
