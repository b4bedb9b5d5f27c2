//! Plans: the settings of a client or server as plain values. They are made from a configuration,
//! which the engine does not know.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bonding_os::capture::Scope;
use bonding_os::nat::Reach;
use bonding_proto::config::{ClientConfig, Prefix, Sending, UdpFlows};
use bonding_proto::crypto::keys::PublicKey;
use bonding_proto::units::BitRate;
use bonding_proto::view::LinkRole;

use crate::config::{Host, Ports, Security};
use crate::trace::TracePlan;

/// The TUN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelPlan {
    /// Its name.
    pub interface: String,
    /// Its addresses, host bits included; none: a client gets them from its server.
    pub addresses: Vec<Prefix>,
    /// Largest inner packet, in bytes. `None`: as the links carry; at first as far as their
    /// interfaces tell.
    pub mtu: Option<u16>,
}

/// How the session sends, and how often it reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPlan {
    /// Link selection, the repair of losses, and which class packets belong to.
    pub sending: Sending,
    /// How often each link is measured.
    pub heartbeat_interval: Duration,
    /// Whether the bytes of connections that end here are compressed.
    pub compression: Compression,
    /// Whether TCP connections are told to send segments that the links carry.
    pub mss_clamp: bool,
    /// How often [`super::Service::handle_interval`] is called.
    pub status_interval: Duration,
    /// The file in which changes to the machine are written down until they are undone. One process
    /// at a time holds it.
    pub state_file: PathBuf,
    /// The trace to write; the command line asks for it.
    pub trace: Option<TracePlan>,
}

/// Whether the bytes of connections that end at the bond are compressed where they shrink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Over links that together are slow.
    #[default]
    Auto,
    /// Over any links, as far as the processor has time.
    On,
    /// Never, in neither direction.
    Off,
}

/// Which TCP connections end at the bond, so that their bytes cross it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Split {
    /// All but those of services whose connections live long and carry little.
    #[default]
    Auto,
    /// All.
    All,
    /// None: they cross the bond as packets.
    Off,
}

/// A client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientPlan {
    /// The TUN device.
    pub tunnel: TunnelPlan,
    /// The server, in order of preference.
    pub hosts: Vec<Host>,
    /// The ports that it listens on.
    pub ports: Ports,
    /// Where any link is sealed.
    pub sealing: Option<SealingPlan>,
    /// The links that are configured one by one.
    pub links: Vec<LinkPlan>,
    /// Which interfaces besides theirs are links; `None`: none is.
    pub discovery: Option<DiscoveryPlan>,
    /// Which TCP connections end at the bond.
    pub split: Split,
    /// What is sent into the bond; `None`: what the host's own routes lead there.
    pub capture: Option<CapturePlan>,
    /// The file with the bytes that links with a cap have carried.
    pub usage_file: PathBuf,
    /// The rest.
    pub run: RunPlan,
}

/// Which interfaces are links by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryPlan {
    /// Patterns of the names of those that may be; `None`: the usual ones.
    pub include: Option<Vec<String>>,
    /// Patterns of the names of those that never are; `None`: the usual ones.
    pub exclude: Option<Vec<String>>,
    /// The links' priority.
    pub priority: u8,
}

/// What a client sends into the bond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturePlan {
    /// From where.
    pub scope: Scope,
    /// With [`Scope::Lan`] only from these prefixes, of the families that they name.
    pub lan: Vec<Prefix>,
    /// It goes directly while the bond is down.
    pub fallback: bool,
    /// It gets the tunnel's address.
    pub masquerade: bool,
    /// The first priority of the rules, and the number of the table.
    pub priority: u32,
}

/// Keys of a client's sealed links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealingPlan {
    /// The public key that the server must have.
    pub server: PublicKey,
    /// Where the client's own key is, and its state beside it.
    pub private_key_file: PathBuf,
    /// The file with the pre-shared key, if it has one.
    pub preshared_key_file: Option<PathBuf>,
}

/// One link of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPlan {
    /// Shown in logs and status.
    pub name: String,
    /// The interface its socket is bound to.
    pub interface: Option<String>,
    /// The address its socket is bound to.
    pub source: Option<IpAddr>,
    /// How it is protected.
    pub security: Security,
    /// The server's port.
    pub port: u16,
    /// Lower is preferred.
    pub priority: u8,
    /// Its use.
    pub role: LinkRole,
    /// Ceiling of the rate that is sent on it.
    pub tx_rate: Option<BitRate>,
    /// Ceiling of the rate that is received on it.
    pub rx_rate: Option<BitRate>,
    /// The bytes it may carry in a month, both ways.
    pub cap: Option<u64>,
    /// Over how many UDP flows it goes.
    pub flows: UdpFlows,
}

/// A server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerPlan {
    /// The TUN device.
    pub tunnel: TunnelPlan,
    /// The address of its listeners; `::` for all of both families.
    pub listen: IpAddr,
    /// Their ports, in the order of the links that use them.
    pub ports: Ports,
    /// Where its own key is, made at the first start, and its state beside it.
    pub private_key_file: PathBuf,
    /// The clients that may connect.
    pub clients: Vec<PeerPlan>,
    /// What counts for clients that were or will be invited, by their names.
    pub invited: Vec<InvitedPlan>,
    /// Forward and masquerade; `None`: neither.
    pub nat: Option<NatPlan>,
    /// Whether clients' TCP connections may end at the bond.
    pub takes_streams: bool,
    /// What clients may reach.
    pub reach: Reach,
    /// The rest.
    pub run: RunPlan,
}

/// A client that is enrolled by an invitation, as far as the configuration has a say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitedPlan {
    /// Its name.
    pub name: String,
    /// The networks behind it.
    pub routes: Vec<Prefix>,
    /// What it may reach, if that is not what clients usually may.
    pub reach: Option<Reach>,
}

/// One client of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerPlan {
    /// Its configuration for the core, without the contents of files and without the parts that
    /// depend on the tunnel's networks.
    pub config: ClientConfig,
    /// Its addresses in the tunnel.
    pub addresses: Vec<IpAddr>,
    /// The file with the pre-shared key, if it has one.
    pub preshared_key_file: Option<PathBuf>,
    /// The names of its links, by number.
    pub links: Vec<String>,
    /// The peers of its plain links.
    pub homes: Vec<Home>,
    /// What it may reach, if that is not what clients usually may.
    pub reach: Option<Reach>,
}

/// The peer of a plain link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Its address.
    pub remote: IpAddr,
    /// The interface that it is behind; `None`: that which has its address on its network.
    pub interface: Option<String>,
}

/// NAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatPlan {
    /// The interface to the internet; `None`: any but the tunnel's.
    pub egress: Option<String>,
}
