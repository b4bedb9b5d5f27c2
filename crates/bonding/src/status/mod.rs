//! The status of a running client or server: the value behind `bondctl status --json`.
//!
//! The event loop fills a [`Snapshot`] from its own knowledge (names, interfaces) and the core's
//! figures. [`Snapshot::status`] turns the snapshot into [`Status`], whose JSON is part of the
//! user's contract. Client and server answer with the same keys. A server's `links` are those of
//! all its clients, each with the name of its `client`. A server's sums are over all its clients,
//! whose sessions are listed in `clients`.

mod snapshot;
mod summary;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use self::snapshot::usable_remote;
pub use self::snapshot::{Cap, LinkLabel, SessionSnapshot, Snapshot};

/// Which side answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A client.
    Client,
    /// A server.
    Server,
}

/// The answer to a status request. Rates are in Mbit/s, times in ms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Which side.
    pub role: Role,
    /// `[scheduler] policy` of what this side sends.
    #[serde(default)]
    pub policy: String,
    /// A server's is up when one of its clients' is.
    pub session: Session,
    /// A client's, in one sentence: whether it bonds, and why a link does not take part. A server
    /// has it for each client.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// A client's key, where any link is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// The TUN device.
    pub tunnel: Tunnel,
    /// What a client sends into the bond by itself, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
    /// The interfaces that a client looks at, where links are found by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,
    /// All links.
    pub links: Vec<Link>,
    /// Flows with packets queued.
    pub flows: Flows,
    /// The resequencer.
    pub reorder: Reorder,
    /// Packets sent again or restored.
    pub recovery: Recovery,
    /// TCP connections that end at the bond.
    #[serde(default)]
    pub streams: Streams,
    /// Their bytes that were compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Discarded packets, by reason.
    pub discards: BTreeMap<String, u64>,
    /// Packets and system calls, which tell the packets per call.
    #[serde(default)]
    pub io: Io,
    /// A server's sessions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<Client>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// `up`; while no link is usable, `connecting`, or `refused` if the server refused the client.
    pub state: String,
    /// Since when it is up, RFC 3339 in UTC.
    pub since: Option<String>,
    /// The other side's address on the first usable link.
    pub peer: Option<String>,
    /// `aes-256-gcm` or `chacha20-poly1305`; `none` on plain links, and before the first handshake.
    pub cipher: String,
    /// Whether the present keys come from X25519 and ML-KEM-768, not from X25519 alone: what is
    /// sent under them stays closed to quantum computers.
    pub hybrid: bool,
    /// Keys changed so far.
    pub rekeys: u64,
    /// Why the server refused the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A client's key, which is its name to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The public key, in base64.
    pub public_key: String,
    /// The one that takes its place once the server knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Why the server refused the last one that was to take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_refused: Option<String>,
}

/// The interfaces of this machine, as far as they are no `[[link]]`'s.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// They are links.
    pub used: Vec<String>,
    /// They are not.
    pub unused: Vec<Unused>,
}

/// An interface that is no link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unused {
    /// Its name.
    pub interface: String,
    /// Why it is none.
    pub why: String,
    /// By its name it could be one.
    pub is_candidate: bool,
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

/// What a client captures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// `lan` or `all`.
    pub capture: String,
    /// The same, for a person.
    pub what: String,
    /// Whether it goes into the bond now.
    pub active: bool,
    /// Whether it goes directly while the bond is down.
    pub fallback: bool,
    /// The priorities of the first and the last rule (`ip rule`).
    pub rules: [u32; 2],
    /// The routing table.
    pub table: u32,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Its number in its session.
    pub id: u8,
    /// On a server: the client's name.
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
    /// The largest IP packet that is known to pass, in bytes; none on plain links, which are not
    /// probed.
    pub mtu: Option<u16>,
    /// UDP flows that the link goes over, as far as they deliver; 0: the daemon does not say.
    #[serde(default)]
    pub flows: u8,
    /// The share of lost datagrams of those sent over the last seconds.
    pub loss_permille: u16,
    /// Sent lately.
    pub tx_mbps: f64,
    /// Received lately.
    pub rx_mbps: f64,
    /// The rate that may be sent, if known.
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
    /// The queueing delay along the link: smoothed less smallest RTT.
    pub queue_ms: Option<f64>,
    /// The bytes it may carry in a month, both ways, if it has a cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap_bytes: Option<u64>,
    /// The bytes of that it has carried in this month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap_used_bytes: Option<u64>,
    /// On a client: an operator has set its role or its priority, until a reload or the next start.
    #[serde(default)]
    pub by_hand: bool,
    /// On a client: why it is down, as far as that is known, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The congestion control of what this side sends on it; missing from versions before it.
    #[serde(default)]
    pub control: Control,
    /// What the peer tells of its own sending on it: on a client, the way down. None on plain links
    /// and with peers of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerSending>,
}

/// What the other side of a link knows of what it sends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerSending {
    /// How long ago it told this.
    pub told_ago_ms: f64,
    /// The phase of its congestion control; `unknown` if this version does not know it.
    pub phase: String,
    /// The share of the datagrams that it sent lately which were lost.
    pub loss_permille: u16,
    /// Sent lately.
    pub tx_mbps: f64,
    /// The rate that it may send, if known.
    pub capacity_mbps: Option<f64>,
    /// The queue that its newest acknowledged datagram met.
    pub queue_ms: f64,
}

/// What the congestion control of a link knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// `startup`: it looks for the capacity; `steady`: the queue is kept all but empty;
    /// `competing`: another flow fills the queue.
    pub phase: String,
    /// Why the capacity was changed or kept last, such as `own_queue` or `random_loss`.
    pub cause: Option<String>,
    /// How long ago that was.
    pub caused_ago_ms: Option<f64>,
    /// The capacity it estimates, IP headers included.
    pub capacity_mbps: Option<f64>,
    /// The queue that the newest acknowledged datagram met.
    pub queue_ms: f64,
    /// The least one-way delay of the last 10 s. Its offset is unknown, so only changes mean
    /// anything.
    pub base_delay_ms: Option<f64>,
    /// The part of a delay that is jitter, and not a queue.
    pub noise_ms: f64,
    /// How far the capacity is lately from its mean of a second.
    pub volatility_permille: u16,
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
    /// Of these, the packets whose link was given up while it still carried them.
    #[serde(default)]
    pub reinjected: u64,
    /// Arrived by being sent again.
    pub recovered: u64,
    /// Sent again although the first copy arrived.
    #[serde(default)]
    pub spurious: u64,
    /// Given up: not sent again, or sent again in vain.
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
    /// Repair symbols that could not be used.
    #[serde(default)]
    pub fec_refused: u64,
    /// Packets of the other side that never came, or came out of order.
    pub lost: u64,
}

/// TCP connections that end at the bond, so that their bytes cross it; the sums over sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Open now.
    pub open: usize,
    /// Opened so far.
    pub opened: u64,
    /// Refused so far, by the destination or by the server.
    pub refused: u64,
    /// Reset so far, by either side.
    pub reset: u64,
    /// Bytes sent so far.
    pub tx_bytes: u64,
    /// Bytes received so far, which the application took.
    pub rx_bytes: u64,
    /// Bytes that wait ahead of the links.
    pub waiting_bytes: usize,
    /// Bytes that were sent and not acknowledged, those that wait included.
    pub unacknowledged_bytes: usize,
    /// Bytes that came and wait for the application, or for others that are missing.
    pub unread_bytes: usize,
    /// How often the peer's reader was what this side waited for.
    pub credit_blocked: u64,
    /// For how long, in ms, summed up over streams.
    #[serde(default)]
    pub credit_blocked_ms: u64,
    /// TCP connections that crossed the bond as packets.
    #[serde(default)]
    pub as_packets: AsPackets,
}

/// TCP connections that crossed the bond as packets while `[tcp] split` is on, by reason. A client
/// counts their first packets, and so each copy of one; a server those that it was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsPackets {
    /// A rule says so.
    pub rule: u64,
    /// A service whose connections live long has the port.
    pub port: u64,
    /// The peer takes no streams, or none is connected.
    pub peer: u64,
    /// They go to another client, or whatever else the server wants as packets.
    pub server: u64,
    /// There are too many connections.
    pub full: u64,
}

impl AsPackets {
    /// All of them.
    pub const fn sum(&self) -> u64 {
        self.rule + self.port + self.peer + self.server + self.full
    }
}

/// The bytes of connections that were compressed, or were expanded, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    /// Bytes that connections here gave and that were sent compressed.
    pub tx_plain_bytes: u64,
    /// Bytes that these became.
    pub tx_bytes: u64,
    /// Bytes that came compressed, as connections here get them.
    pub rx_plain_bytes: u64,
    /// Bytes that these were.
    pub rx_bytes: u64,
}

/// Packets through the device and the sockets since the start, and their system calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// Packets read from the TUN device.
    pub tun_packets_in: u64,
    /// The system calls that read them.
    pub tun_reads: u64,
    /// Packets written to the TUN device.
    pub tun_packets_out: u64,
    /// The system calls that wrote them.
    pub tun_writes: u64,
    /// Datagrams received.
    pub udp_received: u64,
    /// The system calls that received them.
    pub udp_receive_calls: u64,
    /// Datagrams sent.
    pub udp_sent: u64,
    /// The system calls that sent them.
    pub udp_send_calls: u64,
}

/// One client of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// As configured.
    pub name: String,
    /// Its session.
    pub session: Session,
    /// Whether it bonds, in one sentence.
    #[serde(default)]
    pub summary: String,
}
