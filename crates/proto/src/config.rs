//! What a session and an endpoint are told at birth. Plain values; whoever reads files makes them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroize as _;

use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey, Token};
pub use crate::limits::LINKS_MAX;
use crate::packet::{LinkId, Path};
use crate::qos::rule::Rule;
use crate::units::BitRate;
use crate::view::LinkRole;

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
    /// Every packet over all links that have credit.
    Redundant,
    /// In turn: the baseline.
    RoundRobin,
}

/// How a link's datagrams are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// Authenticated and encrypted.
    #[default]
    Sealed,
    /// Not at all: for links that are private already.
    Plain,
}

/// How much is sent on top, so that losses can be made good without the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fec {
    /// For the realtime class, as much as measured losses ask for.
    #[default]
    Auto,
    /// Nothing.
    Off,
    /// This share of everything, permille.
    Fixed(u16),
}

/// What is done about losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryConfig {
    /// Whether what is lost is sent again.
    pub resend: bool,
    /// Forward error correction on sealed links.
    pub fec: Fec,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self { resend: true, fec: Fec::default() }
    }
}

/// One link of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkConfig {
    /// Sealed or plain.
    pub security: Security,
    /// Lower is preferred. A server takes the client's value from its heartbeats.
    pub priority: u8,
    /// What it is used for. A server takes the client's value from its heartbeats.
    pub role: LinkRole,
    /// Ceiling for what we send on it; `None`: not limited by us.
    pub tx_rate: Option<BitRate>,
    /// Ceiling for what the peer should send us on it: told to the peer in heartbeats.
    pub rx_rate: Option<BitRate>,
    /// The largest IP packet that the link's interface takes, in bytes. What the path carries is found out, on sealed links.
    pub mtu: u16,
    /// Client: where to send from the first moment. Server: `None`, learnt from what arrives.
    pub path: Option<Path>,
    /// Client: other addresses of the server on this link, say of the other family; whichever answers first is used.
    pub alternatives: Vec<Path>,
}

/// What a client needs to seal its session. The seed is overwritten when this is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientSealing {
    /// Who the client is.
    pub identity: PrivateKey,
    /// Who the server must be.
    pub server: PublicKey,
    /// Shared with the server beforehand, where wanted.
    pub preshared: Option<PresharedKey>,
    /// AES-256-GCM is the faster cipher on this machine.
    pub aes_fast: bool,
    /// Grows from run to run of this client's key: a server takes no first message of an earlier run.
    pub run: u64,
    /// Seed of every key; from the system's random numbers.
    pub entropy: [u8; 32],
    /// Shown to a server that does not know the client's key yet.
    pub token: Option<Token>,
}

impl fmt::Debug for ClientSealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity: _, server, preshared, aes_fast, run, entropy: _, token } = self;
        f.debug_struct("ClientSealing")
            .field("server", server)
            .field("preshared", preshared)
            .field("aes_fast", aes_fast)
            .field("run", run)
            .field("token", token)
            .finish_non_exhaustive()
    }
}

impl Drop for ClientSealing {
    fn drop(&mut self) {
        self.entropy.zeroize();
    }
}

/// What a server needs to seal its sessions. The seed is overwritten when this is dropped, which is to be soon: every key that
/// was ever drawn can be drawn from it again.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerSealing {
    /// Who the server is.
    pub identity: PrivateKey,
    /// AES-256-GCM is the faster cipher on this machine.
    pub aes_fast: bool,
    /// Seed of every key; from the system's random numbers.
    pub entropy: [u8; 32],
}

impl fmt::Debug for ServerSealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity: _, aes_fast, entropy: _ } = self;
        f.debug_struct("ServerSealing").field("aes_fast", aes_fast).finish_non_exhaustive()
    }
}

impl Drop for ServerSealing {
    fn drop(&mut self) {
        self.entropy.zeroize();
    }
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
    /// Largest inner packet accepted; the TUN device's MTU at most.
    pub mtu: u16,
    /// Whether TCP connections are told to send no larger segments than the links carry.
    pub mss_clamp: bool,
    /// What is done about losses of what we send.
    pub recovery: RecoveryConfig,
    /// Which class what we send belongs to: the first that matches decides.
    pub rules: Arc<[Rule]>,
    /// Seed of the flow hash; from the driver's random numbers.
    pub seed: u64,
    /// Differs from run to run, so that a peer notices a restart; from the driver's random numbers.
    pub epoch: u64,
    /// A client with sealed links.
    pub sealing: Option<ClientSealing>,
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

impl Prefix {
    /// Whether `address` lies in it. IPv4 addresses lie in no prefix of IPv6.
    pub const fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= self.length as u32
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= self.length as u32
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
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
    /// Who it is on sealed links; `None`: it has none.
    pub public_key: Option<PublicKey>,
    /// Shared with it beforehand, where wanted.
    pub preshared: Option<PresharedKey>,
    /// Its inner addresses, each with the prefix length of the tunnel's network: told in the handshake. At most 4.
    pub addresses: Vec<Prefix>,
    /// Ceilings for what the server sends on its sealed links, by number.
    pub tx_rates: Vec<Option<BitRate>>,
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
    pub mss_clamp: bool,
    /// As in [`SessionConfig`].
    pub recovery: RecoveryConfig,
    /// As in [`SessionConfig`].
    pub rules: Arc<[Rule]>,
    /// As in [`SessionConfig`].
    pub seed: u64,
    /// As in [`SessionConfig`].
    pub epoch: u64,
    /// For clients with sealed links.
    pub sealing: Option<ServerSealing>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_keys_are_not_shown() {
        let identity = PrivateKey::from_bytes([0x41; 32]);
        let client = ClientSealing {
            identity: identity.clone(),
            server: identity.public(),
            preshared: Some(PresharedKey::from_bytes([0x41; 32])),
            aes_fast: true,
            run: 1,
            entropy: [0x41; 32],
            token: Some(Token::from_bytes([0x41; 16])),
        };
        let server = ServerSealing { identity, aes_fast: true, entropy: [0x41; 32] };
        let shown = format!("{client:?} {server:?}");
        assert!(shown.contains("run: 1") && !shown.contains("65") && !shown.contains("41"), "{shown}");
    }
}
