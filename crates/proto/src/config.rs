//! What a session and an endpoint are told at birth. Plain values; whoever reads files makes them.

use std::net::IpAddr;
use std::time::Duration;

use crate::packet::{LinkId, Path};
use crate::units::BitRate;

/// Who opens the session and owns the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Knows its links and the server's address.
    Client,
    /// Learns each link's remote port from what arrives.
    Server,
}

/// The rule that picks the link for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Earliest arrival among the links with credit, lowest score first.
    #[default]
    Adaptive,
    /// The score formula alone.
    Score,
    /// In turn: the baseline.
    RoundRobin,
}

/// One link of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkConfig {
    /// Lower is preferred. A server takes the client's value from its heartbeats.
    pub priority: u8,
    /// Ceiling for what we send on it; `None`: not limited by us.
    pub tx_rate: Option<BitRate>,
    /// Ceiling for what the peer should send us on it: told to the peer in heartbeats.
    pub rx_rate: Option<BitRate>,
    /// Client: where to send from the first moment. Server: `None`, learnt from what arrives.
    pub path: Option<Path>,
    /// Bytes of IP and UDP header around each datagram (28 for IPv4, 48 for IPv6): pacing counts them.
    pub header_bytes: u16,
}

/// One session: a client and its server, over some links.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionConfig {
    /// Which side this is.
    pub role: Role,
    /// The links, by [`LinkId`].
    pub links: Vec<LinkConfig>,
    /// Link selection.
    pub policy: Policy,
    /// How often each link is measured.
    pub heartbeat_interval: Duration,
    /// Largest inner packet accepted; the TUN device's MTU.
    pub mtu: u16,
    /// Seed of the flow hash; from the driver's random numbers.
    pub seed: u64,
    /// Differs from run to run, so that a peer notices a restart; from the driver's random numbers.
    pub epoch: u64,
}

/// Which remote may speak on a plain link of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainPeer {
    /// The link.
    pub link: LinkId,
    /// The only address accepted; its port is learnt.
    pub remote: IpAddr,
    /// Ceiling for what the server sends on it.
    pub tx_rate: Option<BitRate>,
}

/// An IP prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// Any address inside it.
    pub address: IpAddr,
    /// Bits that count.
    pub length: u8,
}

/// One client as its server knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientConfig {
    /// Shown in logs and status.
    pub name: String,
    /// Inner prefixes that are the client's: its addresses and what lies behind it.
    pub prefixes: Vec<Prefix>,
    /// Its plain links.
    pub plain: Vec<PlainPeer>,
}

/// A server's endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointConfig {
    /// The clients, in the order of their session numbers.
    pub clients: Vec<ClientConfig>,
    /// Link selection for what the server sends.
    pub policy: Policy,
    /// How often each link is measured.
    pub heartbeat_interval: Duration,
    /// The TUN device's MTU.
    pub mtu: u16,
    /// As in [`SessionConfig`].
    pub seed: u64,
    /// As in [`SessionConfig`].
    pub epoch: u64,
}
