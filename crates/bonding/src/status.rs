//! What a running client or server says about itself: the value behind `bondctl status --json`.
//!
//! The event loop fills a [`Snapshot`] from its own knowledge (names, interfaces) and the core's figures;
//! [`Snapshot::status`] turns it into [`Status`], whose JSON is part of the user's contract. Client and server answer
//! with the same keys. A server's `links` are those of all its clients, each with the name of its `client`; its
//! sums are over all clients, whose sessions are listed in `clients`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use bonding_proto::config::Prefix;
use bonding_proto::crypto::aead::Cipher;
use bonding_proto::discard::DiscardCounts;
use bonding_proto::stats::{LinkStats, SessionStats};
use serde::{Deserialize, Serialize};

use crate::config::role_word;
use crate::report::{link_metrics, link_statistics, state_word};

/// Which side answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A client.
    Client,
    /// A server.
    Server,
}

/// Everything known at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Which side.
    pub role: Role,
    /// The TUN device.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<Prefix>,
    /// Its MTU, in bytes.
    pub mtu: u16,
    /// A client has one, a server one for each client.
    pub sessions: Vec<SessionSnapshot>,
    /// What was thrown away before it belonged to a session.
    pub discards: DiscardCounts,
    /// Filled in by the event loop, which alone knows it.
    pub io: Io,
}

/// One session at that moment.
#[derive(Debug, Clone)]
pub struct SessionSnapshot {
    /// On a server the client's name; on a client the server as configured.
    pub name: String,
    /// When it became usable; `None` while it is not.
    pub since: Option<SystemTime>,
    /// The links' names and interfaces, by link.
    pub links: Vec<LinkLabel>,
    /// What sealed links are sealed with; `None`: nothing yet, or all are plain.
    pub cipher: Option<Cipher>,
    /// How often the keys were changed.
    pub rekeys: u64,
    /// A client whose server does not take it.
    pub refused: bool,
    /// The core's figures.
    pub stats: SessionStats,
}

/// What the core does not know of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkLabel {
    /// As configured.
    pub name: String,
    /// The device it is bound to.
    pub interface: Option<String>,
    /// Our address on it.
    pub local: Option<IpAddr>,
    /// What of its data cap is used, where it has one.
    pub cap: Option<Cap>,
}

/// A link's data cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// Carried in this month.
    pub used_bytes: u64,
    /// What it may carry in a month.
    pub cap_bytes: u64,
}

impl LinkLabel {
    /// What stands for the link in a client's report: its local address, else its name.
    pub fn in_report(&self) -> String {
        self.local.map_or_else(|| self.name.clone(), |local| local.to_string())
    }
}

/// The answer to a status request. Rates are in Mbit/s, times in ms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Which side.
    pub role: Role,
    /// A server's is up when one of its clients' is.
    pub session: Session,
    /// The TUN device.
    pub tunnel: Tunnel,
    /// All links.
    pub links: Vec<Link>,
    /// Flows with packets queued.
    pub flows: Flows,
    /// The resequencer.
    pub reorder: Reorder,
    /// Packets sent again or restored.
    pub recovery: Recovery,
    /// What was thrown away, by reason.
    pub discards: BTreeMap<String, u64>,
    /// Packets per system call, for who looks at what they cost.
    #[serde(default)]
    pub io: Io,
    /// A server's sessions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<Client>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// `up`; while no link is usable `connecting`, or `refused` where the server does not take the client.
    pub state: String,
    /// Since when it is up, RFC 3339 in UTC.
    pub since: Option<String>,
    /// The other side's address on the first usable link.
    pub peer: Option<String>,
    /// `aes-256-gcm` or `chacha20-poly1305`; `none` on plain links, and before the first handshake.
    pub cipher: String,
    /// Keys changed so far.
    pub rekeys: u64,
}

/// The TUN device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Its name.
    pub interface: String,
    /// Its addresses with prefix lengths.
    pub address: Vec<String>,
    /// In bytes.
    pub mtu: u16,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Its number in its session.
    pub id: u8,
    /// On a server: whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// As configured.
    pub name: String,
    /// The device it is bound to.
    pub interface: Option<String>,
    /// Our address.
    pub local: Option<String>,
    /// The peer's address and port.
    pub remote: Option<String>,
    /// As in the logs.
    pub state: String,
    /// `primary`, `secondary`, `backup` or `never`.
    pub role: String,
    /// Lower is preferred.
    pub priority: u8,
    /// Lower is preferred; without its saturation term.
    pub score: u32,
    /// Smoothed.
    pub rtt_ms: Option<f64>,
    /// Smallest of the last 10 s.
    pub rtt_min_ms: Option<f64>,
    /// The largest IP packet that is known to pass, in bytes; none on plain links, where nobody asks.
    pub mtu: Option<u16>,
    /// Of what we sent.
    pub loss_permille: u16,
    /// Sent lately.
    pub tx_mbps: f64,
    /// Received lately.
    pub rx_mbps: f64,
    /// What we may send.
    pub capacity_mbps: Option<f64>,
    /// `tx_mbps` / `capacity_mbps`.
    pub utilisation: f64,
    /// Sent in all, IP and UDP headers included.
    pub tx_bytes: u64,
    /// Received in all, IP and UDP headers included.
    pub rx_bytes: u64,
    /// Datagrams sent that a router marked on their way instead of dropping them (ECN).
    #[serde(default)]
    pub tx_marked: u64,
    /// What stands in queues along the link: smoothed less smallest RTT.
    pub queue_ms: Option<f64>,
    /// What it may carry in a month, both ways, where it has a cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap_bytes: Option<u64>,
    /// What of that it has carried in this month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap_used_bytes: Option<u64>,
}

/// Flow counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// With packets queued.
    pub active: u64,
    /// In the realtime class.
    pub realtime: u64,
}

/// The resequencer's state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reorder {
    /// Packets held now.
    pub held: u64,
    /// Packets that came after their gap had been given up.
    pub released_late: u64,
    /// Copies of packets that had come over another link.
    #[serde(default)]
    pub duplicates: u64,
}

/// Recovery counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Sent again by this side.
    pub resent: u64,
    /// Of these, because the link that still carried them was given up.
    #[serde(default)]
    pub reinjected: u64,
    /// Arrived by being sent again.
    pub recovered: u64,
    /// Sent again although the first one arrived.
    #[serde(default)]
    pub spurious: u64,
    /// Not sent again, or in vain.
    #[serde(default)]
    pub given_up: u64,
    /// Packets that were sent over a further link too.
    #[serde(default)]
    pub copies: u64,
    /// Repair symbols sent.
    #[serde(default)]
    pub fec_sent: u64,
    /// Restored from repair symbols.
    pub fec_recovered: u64,
    /// Repair symbols that could not be.
    #[serde(default)]
    pub fec_refused: u64,
    /// Of the other side's packets, those that never came or came out of order.
    pub lost: u64,
}

/// What went through the device and the sockets since the start, and in how many system calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// Packets read from the TUN device.
    pub tun_packets_in: u64,
    /// Reads that took.
    pub tun_reads: u64,
    /// Packets written to the TUN device.
    pub tun_packets_out: u64,
    /// Writes that took.
    pub tun_writes: u64,
    /// Datagrams received.
    pub udp_received: u64,
    /// Calls that took.
    pub udp_receive_calls: u64,
    /// Datagrams sent.
    pub udp_sent: u64,
    /// Calls that took.
    pub udp_send_calls: u64,
}

/// One client of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// As configured.
    pub name: String,
    /// Its session.
    pub session: Session,
}

impl Snapshot {
    /// The answer to a status request.
    pub fn status(&self) -> Status {
        let server = self.role == Role::Server;
        let mut discards = self.discards.clone();
        let mut flows = Flows::default();
        let mut reorder = Reorder::default();
        let mut recovery = Recovery::default();
        let mut links = Vec::new();
        for session in &self.sessions {
            let stats = &session.stats;
            discards.merge(&stats.discards);
            flows.active += count(stats.flows_active);
            flows.realtime += count(stats.flows_realtime);
            reorder.held += count(stats.reorder_held);
            reorder.released_late += stats.released_late;
            reorder.duplicates += stats.duplicates;
            recovery.resent += stats.recovery.resent;
            recovery.reinjected += stats.recovery.reinjected;
            recovery.recovered += stats.recovery.recovered;
            recovery.spurious += stats.recovery.spurious;
            recovery.given_up += stats.recovery.given_up;
            recovery.lost += stats.recovery.lost;
            recovery.copies += stats.copies;
            recovery.fec_sent += stats.fec_sent;
            recovery.fec_recovered += stats.fec_recovered;
            recovery.fec_refused += stats.fec_refused;
            for (index, figures) in stats.links.iter().enumerate() {
                let label = session.links.get(index).cloned().unwrap_or_default();
                links.push(link(label, figures, server.then(|| session.name.clone())));
            }
        }
        let sessions: Vec<Client> = self
            .sessions
            .iter()
            .map(|one| Client { name: one.name.clone(), session: one.session() })
            .collect();
        Status {
            role: self.role,
            session: overall(&sessions, server),
            tunnel: Tunnel {
                interface: self.interface.clone(),
                address: self.addresses.iter().map(|p| format!("{}/{}", p.address, p.length)).collect(),
                mtu: self.mtu,
            },
            links,
            flows,
            reorder,
            recovery,
            discards: discards.iter().map(|(reason, count)| (reason.key().to_owned(), count)).collect(),
            io: self.io,
            clients: if server { sessions } else { Vec::new() },
        }
    }
}

impl Snapshot {
    /// The reports to be logged: one of a client's links, one for each client of a server.
    pub fn reports(&self) -> Vec<String> {
        let of = |session: &SessionSnapshot| {
            let stats = &session.stats.links;
            let labels = |index: usize| session.links.get(index).cloned().unwrap_or_default();
            match self.role {
                Role::Client => {
                    let labels: Vec<String> =
                        (0..stats.len()).map(|index| labels(index).in_report()).collect();
                    link_metrics(labels.iter().map(String::as_str).zip(stats))
                }
                Role::Server => {
                    let names: Vec<String> = (0..stats.len()).map(|index| labels(index).name).collect();
                    link_statistics(names.iter().map(String::as_str).zip(stats))
                }
            }
        };
        self.sessions.iter().map(of).collect()
    }
}

impl SessionSnapshot {
    fn session(&self) -> Session {
        let state = match (self.stats.connected, self.refused) {
            (true, _) => "up",
            (false, true) => "refused",
            (false, false) => "connecting",
        };
        Session {
            state: state.to_owned(),
            since: self
                .since
                .filter(|_| self.stats.connected)
                .map(|at| humantime::format_rfc3339_seconds(at).to_string()),
            peer: usable_remote(&self.stats).map(|remote| remote.ip().to_canonical().to_string()),
            cipher: cipher_word(self.cipher).to_owned(),
            rekeys: self.rekeys,
        }
    }
}

/// The peer's address on the first link that it answered on.
pub(crate) fn usable_remote(stats: &SessionStats) -> Option<SocketAddr> {
    let usable = stats.links.iter().find(|link| link.rtt.is_some() && link.path.is_some());
    usable.and_then(|link| link.path).map(|path| path.remote)
}

fn cipher_word(cipher: Option<Cipher>) -> &'static str {
    match cipher {
        None => "none",
        Some(Cipher::Aes256Gcm) => "aes-256-gcm",
        Some(Cipher::ChaCha20Poly1305) => "chacha20-poly1305",
    }
}

/// A client's only session; a server's is up since the first of those that are.
fn overall(sessions: &[Client], server: bool) -> Session {
    let up = sessions.iter().filter(|one| one.session.state == "up");
    let first = up.min_by(|a, b| a.session.since.cmp(&b.session.since)).or(sessions.first());
    let connecting = || "connecting".to_owned();
    let mut session = first.map_or_else(
        || Session { state: connecting(), since: None, peer: None, cipher: "none".to_owned(), rekeys: 0 },
        |one| one.session.clone(),
    );
    if server && sessions.len() > 1 {
        // Which one would be arbitrary.
        session.peer = None;
    }
    session
}

fn link(label: LinkLabel, figures: &LinkStats, client: Option<String>) -> Link {
    let queue = figures.rtt.zip(figures.rtt_min).map(|(rtt, min)| rtt.saturating_sub(min));
    let local = label.local.or_else(|| figures.path.and_then(|path| path.local));
    Link {
        id: figures.id.0,
        client,
        name: label.name,
        interface: label.interface,
        local: local.map(|address| address.to_canonical().to_string()),
        remote: figures.path.map(|path| path.remote.to_string()),
        state: state_word(figures).to_owned(),
        role: role_word(figures.role).to_owned(),
        priority: figures.priority,
        score: figures.score,
        rtt_ms: figures.rtt.map(millis),
        rtt_min_ms: figures.rtt_min.map(millis),
        mtu: figures.mtu,
        loss_permille: figures.loss_permille,
        tx_mbps: rounded(figures.tx_rate.as_mbps()),
        rx_mbps: rounded(figures.rx_rate.as_mbps()),
        capacity_mbps: figures.capacity.map(|capacity| rounded(capacity.as_mbps())),
        utilisation: f64::from(figures.utilisation_permille) / 1e3,
        tx_bytes: figures.tx_bytes,
        rx_bytes: figures.rx_bytes,
        tx_marked: figures.tx_marked,
        queue_ms: queue.map(millis),
        cap_bytes: label.cap.map(|cap| cap.cap_bytes),
        cap_used_bytes: label.cap.map(|cap| cap.used_bytes),
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn millis(span: Duration) -> f64 {
    rounded(span.as_secs_f64() * 1e3)
}

/// Three decimals: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::tests::link as figures;

    pub(crate) fn session(name: &str, connected: bool) -> SessionSnapshot {
        let mut discards = DiscardCounts::default();
        discards.add(bonding_proto::Discard::Stale, 2);
        SessionSnapshot {
            name: name.to_owned(),
            since: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_766_400)),
            links: vec![LinkLabel {
                name: "adsl".to_owned(),
                interface: Some("wg0".to_owned()),
                local: Some("10.200.0.1".parse().unwrap()),
                cap: None,
            }],
            cipher: None,
            rekeys: 0,
            refused: false,
            stats: SessionStats {
                connected,
                links: vec![figures(0, 22.5, 8.2, 10.0, 1_225)],
                flows_active: 3,
                flows_realtime: 2,
                queue_bytes: 0,
                queue_delay: Duration::ZERO,
                reorder_held: 4,
                reorder_held_bytes: 0,
                reorder_held_max: 0,
                reorder_timeouts: 0,
                released_late: 5,
                duplicates: 6,
                copies: 10,
                recovery: bonding_proto::stats::RecoveryStats {
                    resent: 7,
                    reinjected: 2,
                    recovered: 6,
                    spurious: 1,
                    given_up: 1,
                    lost: 3,
                },
                fec_sent: 7,
                fec_recovered: 8,
                fec_refused: 9,
                packets_in: 0,
                packets_out: 0,
                bytes_out: 0,
                discards,
            },
        }
    }

    pub(crate) fn snapshot(role: Role, sessions: Vec<SessionSnapshot>) -> Snapshot {
        let mut discards = DiscardCounts::default();
        discards.count(bonding_proto::Discard::UnknownPeer);
        let address = Prefix { address: "192.168.50.1".parse().unwrap(), length: 24 };
        Snapshot {
            role,
            interface: "tun-bond".to_owned(),
            addresses: vec![address],
            mtu: 1_461,
            sessions,
            discards,
            io: Io { tun_packets_in: 1, udp_send_calls: 8, ..Io::default() },
        }
    }

    #[test]
    fn a_client_answers_in_the_documented_shape() {
        let status = snapshot(Role::Client, vec![session("vps", true)]).status();
        let json = serde_json::to_value(&status).unwrap();
        let mut discards = serde_json::Map::new();
        for reason in bonding_proto::Discard::ALL {
            discards.insert(reason.key().to_owned(), 0.into());
        }
        discards["stale"] = 2.into();
        discards["unknown_peer"] = 1.into();
        assert_eq!(
            json,
            serde_json::json!({
                "role": "client",
                "session": {
                    "state": "up", "since": "2025-11-21T23:06:40Z", "peer": "10.200.0.1", "cipher": "none",
                    "rekeys": 0
                },
                "tunnel": {"interface": "tun-bond", "address": ["192.168.50.1/24"], "mtu": 1461},
                "links": [{
                    "id": 0, "name": "adsl", "interface": "wg0", "local": "10.200.0.1",
                    "remote": "10.200.0.1:54321", "state": "SATURATED", "role": "primary", "priority": 1,
                    "score": 1225, "rtt_ms": 22.5, "rtt_min_ms": 11.25, "mtu": 1492, "loss_permille": 0, "tx_mbps": 8.2,
                    "rx_mbps": 4.1, "capacity_mbps": 10.0, "utilisation": 0.82, "tx_bytes": 2, "tx_marked": 0,
                    "rx_bytes": 18432156, "queue_ms": 11.25
                }],
                "flows": {"active": 3, "realtime": 2},
                "reorder": {"held": 4, "released_late": 5, "duplicates": 6},
                "recovery": {
                    "resent": 7, "reinjected": 2, "recovered": 6, "spurious": 1, "given_up": 1, "copies": 10, "fec_sent": 7,
                    "fec_recovered": 8, "fec_refused": 9, "lost": 3
                },
                "discards": discards,
                "io": {
                    "tun_packets_in": 1, "tun_reads": 0, "tun_packets_out": 0, "tun_writes": 0, "udp_received": 0,
                    "udp_receive_calls": 0, "udp_sent": 0, "udp_send_calls": 8
                }
            })
        );
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }

    #[test]
    fn a_sealed_session_says_how_and_a_refused_one_that_it_is() {
        let sealed = SessionSnapshot { cipher: Some(Cipher::Aes256Gcm), rekeys: 3, ..session("vps", true) };
        let status = snapshot(Role::Client, vec![sealed]).status();
        assert_eq!((status.session.cipher.as_str(), status.session.rekeys), ("aes-256-gcm", 3));
        let refused = SessionSnapshot { refused: true, ..session("vps", false) };
        assert_eq!(snapshot(Role::Client, vec![refused.clone()]).status().session.state, "refused");
        let again = SessionSnapshot { refused: true, ..session("vps", true) };
        assert_eq!(snapshot(Role::Client, vec![again]).status().session.state, "up");
    }

    #[test]
    fn a_server_sums_over_its_clients_and_names_them() {
        let status = snapshot(Role::Server, vec![session("home", false), session("van", true)]).status();
        assert_eq!(status.session.state, "up");
        assert_eq!(status.session.peer, None);
        assert_eq!(status.flows.active, 6);
        assert_eq!(status.discards["stale"], 4);
        assert_eq!(status.discards["unknown_peer"], 1);
        let owners: Vec<Option<&str>> = status.links.iter().map(|link| link.client.as_deref()).collect();
        assert_eq!(owners, [Some("home"), Some("van")]);
        let states: Vec<(&str, &str)> =
            status.clients.iter().map(|c| (c.name.as_str(), c.session.state.as_str())).collect();
        assert_eq!(states, [("home", "connecting"), ("van", "up")]);
        assert_eq!(status.clients[0].session.since, None);
    }

    #[test]
    fn reports_are_one_for_each_session() {
        let client = snapshot(Role::Client, vec![session("vps", true)]).reports();
        assert_eq!(client.len(), 1);
        assert!(client[0].contains("\n  Link0 (10.200.0.1) - RTT: 22.5ms, "), "{client:?}");
        let server = snapshot(Role::Server, vec![session("home", true), session("van", true)]).reports();
        assert_eq!(server.len(), 2);
        assert!(server[1].contains("\n  10.200.0.1:54321 - Packets: 15234, "), "{server:?}");
    }

    #[test]
    fn a_server_without_clients_answers_too() {
        let status = snapshot(Role::Server, Vec::new()).status();
        assert_eq!(status.session.state, "connecting");
        assert!(status.links.is_empty());
    }
}
