//! The engine's figures of one moment, and the status that follows from them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use bonding_proto::config::{Policy, Prefix};
use bonding_proto::crypto::aead::Cipher;
use bonding_proto::discard::DiscardCounts;
use bonding_proto::link::Cause;
use bonding_proto::stats::{ControlStats, LinkStats, PeerStats, PhaseKind, SessionStats, StreamStats};

use super::summary::summary;
use super::{
    AsPackets, Client, Compression, Control, Discovery, Flows, Io, Key, Link, PeerSending, Recovery, Reorder,
    Role, Routing, Session, Status, Streams, Tunnel,
};
use crate::config::{policy_word, role_word};
use crate::report::{link_metrics, link_statistics, state_word};

/// The figures of one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Which side.
    pub role: Role,
    /// The rule that picks links.
    pub policy: Policy,
    /// A client's key.
    pub key: Option<Key>,
    /// What a client captures.
    pub routing: Option<Routing>,
    /// The interfaces that a client looks at.
    pub discovery: Option<Discovery>,
    /// The TUN device.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<Prefix>,
    /// Its MTU, in bytes.
    pub mtu: u16,
    /// A client has one, a server one for each client.
    pub sessions: Vec<SessionSnapshot>,
    /// Packets discarded before they belonged to a session.
    pub discards: DiscardCounts,
    /// TCP connections that crossed the bond as packets.
    pub as_packets: AsPackets,
    /// The bytes of streams that were compressed.
    pub compression: Compression,
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
    /// The cipher of sealed links; `None`: no handshake yet, or all links are plain.
    pub cipher: Option<Cipher>,
    /// Whether the keys come from ML-KEM-768 as well.
    pub hybrid: bool,
    /// How often the keys were changed.
    pub rekeys: u64,
    /// Why the server refused this client, if it has.
    pub refused: Option<&'static str>,
    /// The core's figures.
    pub stats: SessionStats,
}

/// The figures of a link that the core does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkLabel {
    /// As configured.
    pub name: String,
    /// The device it is bound to.
    pub interface: Option<String>,
    /// Our address on it.
    pub local: Option<IpAddr>,
    /// Its data cap, if it has one.
    pub cap: Option<Cap>,
    /// It is for something else than the file says.
    pub by_hand: bool,
    /// Why it is down, as far as that is known.
    pub trouble: Option<String>,
}

/// A link's data cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// Carried in this month.
    pub used_bytes: u64,
    /// The bytes it may carry in a month.
    pub cap_bytes: u64,
}

impl LinkLabel {
    /// The link's label in a client's report: its local address, else its name.
    pub fn in_report(&self) -> String {
        self.local.map_or_else(|| self.name.clone(), |local| local.to_string())
    }
}

impl Snapshot {
    /// The answer to a status request.
    pub fn status(&self) -> Status {
        let server = self.role == Role::Server;
        let mut discards = self.discards.clone();
        let mut flows = Flows::default();
        let mut reorder = Reorder::default();
        let mut recovery = Recovery::default();
        let mut streams = Streams { as_packets: self.as_packets, ..Streams::default() };
        let mut links: Vec<Link> = Vec::new();
        let mut sessions = Vec::new();
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
            add(&mut streams, &stats.streams);
            let first = links.len();
            for (index, figures) in present(stats) {
                let label = session.links.get(index).cloned().unwrap_or_default();
                links.push(link(label, figures, server.then(|| session.name.clone())));
            }
            sessions.push(session.client(self.role, links.get(first..).unwrap_or_default()));
        }
        let summary = if server { None } else { sessions.first().map(|one| one.summary.clone()) };
        Status {
            role: self.role,
            policy: policy_word(self.policy).to_owned(),
            session: overall(&sessions, server),
            summary: summary.unwrap_or_default(),
            key: self.key.clone(),
            tunnel: Tunnel {
                interface: self.interface.clone(),
                address: self.addresses.iter().map(|p| format!("{}/{}", p.address, p.length)).collect(),
                mtu: self.mtu,
            },
            routing: self.routing.clone(),
            discovery: self.discovery.clone(),
            links,
            flows,
            reorder,
            recovery,
            streams,
            compression: self.compression,
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
            let label = |index: usize| session.links.get(index).cloned().unwrap_or_default();
            let (labels, stats): (Vec<LinkLabel>, Vec<&LinkStats>) =
                present(&session.stats).map(|(index, figures)| (label(index), figures)).unzip();
            match self.role {
                Role::Client => link_metrics(labels.iter().zip(stats)),
                Role::Server => link_statistics(&session.name, labels.iter().zip(stats)),
            }
        };
        self.sessions.iter().map(of).collect()
    }
}

impl SessionSnapshot {
    fn client(&self, role: Role, links: &[Link]) -> Client {
        let session = self.session();
        Client { name: self.name.clone(), summary: summary(role, &session, links), session }
    }

    fn session(&self) -> Session {
        let state = match (self.stats.connected, self.refused.is_some()) {
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
            hybrid: self.hybrid,
            rekeys: self.rekeys,
            refused: self.refused.filter(|_| !self.stats.connected).map(str::to_owned),
        }
    }
}

/// The links that have a line, with their places.
fn present(stats: &SessionStats) -> impl Iterator<Item = (usize, &LinkStats)> {
    stats.links.iter().enumerate().filter(|(_, link)| !link.is_retired)
}

/// The peer's address on the first link that it answered on.
pub(crate) fn usable_remote(stats: &SessionStats) -> Option<SocketAddr> {
    let usable = stats.links.iter().find(|link| link.rtt.is_some() && link.path.is_some());
    usable.and_then(|link| link.path).map(|path| path.remote)
}

/// Adds a session's streams to the sums.
fn add(sums: &mut Streams, stats: &StreamStats) {
    sums.open += stats.open;
    sums.opened += stats.opened;
    sums.refused += stats.refused;
    sums.reset += stats.reset;
    sums.tx_bytes += stats.bytes_out;
    sums.rx_bytes += stats.bytes_in;
    sums.waiting_bytes += stats.waiting_bytes;
    sums.unacknowledged_bytes += stats.under_way_bytes;
    sums.unread_bytes += stats.unread_bytes;
    sums.credit_blocked += stats.credit_blocked;
    sums.credit_blocked_ms += whole_millis(stats.credit_blocked_for);
}

fn cipher_word(cipher: Option<Cipher>) -> &'static str {
    match cipher {
        None => "none",
        Some(Cipher::Aes256Gcm) => "aes-256-gcm",
        Some(Cipher::ChaCha20Poly1305) => "chacha20-poly1305",
    }
}

/// A client's only session. A server's is up since the first of its sessions that is up.
fn overall(sessions: &[Client], server: bool) -> Session {
    let up = sessions.iter().filter(|one| one.session.state == "up");
    let first = up.min_by(|a, b| a.session.since.cmp(&b.session.since)).or(sessions.first());
    let connecting = || "connecting".to_owned();
    let mut session = first.map_or_else(
        || Session {
            state: connecting(),
            since: None,
            peer: None,
            cipher: "none".to_owned(),
            hybrid: false,
            rekeys: 0,
            refused: None,
        },
        |one| one.session.clone(),
    );
    if server && sessions.len() > 1 {
        // Any single peer would be arbitrary.
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
        flows: figures.flows,
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
        by_hand: label.by_hand,
        trouble: label.trouble,
        control: control(&figures.control),
        peer: figures.peer.as_ref().map(peer),
    }
}

fn peer(figures: &PeerStats) -> PeerSending {
    PeerSending {
        told_ago_ms: millis(figures.told_ago),
        phase: figures.phase.map_or("unknown", PhaseKind::name).to_owned(),
        loss_permille: figures.loss_permille,
        tx_mbps: rounded(figures.tx_rate.as_mbps()),
        capacity_mbps: figures.capacity.map(|capacity| rounded(capacity.as_mbps())),
        queue_ms: millis(figures.queue),
    }
}

fn control(figures: &ControlStats) -> Control {
    Control {
        phase: figures.phase.name().to_owned(),
        cause: figures.cause.map(|cause| Cause::name(cause).to_owned()),
        caused_ago_ms: figures.caused_ago.map(millis),
        capacity_mbps: figures.capacity.map(|capacity| rounded(capacity.as_mbps())),
        queue_ms: millis(figures.queue),
        base_delay_ms: figures.base_delay_us.map(|micros| rounded(micros as f64 / 1e3)),
        noise_ms: millis(figures.noise),
        volatility_permille: figures.volatility_permille,
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn millis(span: Duration) -> f64 {
    rounded(span.as_secs_f64() * 1e3)
}

/// Three decimals: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
