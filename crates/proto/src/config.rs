//! The configuration of a session and of an endpoint: plain values, made by the program that reads
//! the files.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroize as _;

use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey, Token};
pub use crate::limits::LINKS_MAX;
use crate::packet::{LinkId, Path};
pub use crate::prefix::Prefix;
use crate::qos::rule::Rule;
use crate::units::BitRate;
use crate::view::LinkRole;

/// Which side of the session this is. The client opens the session and owns the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Knows its links and the server's address.
    Client,
    /// Learns each link's remote address from the datagrams that arrive.
    Server,
}

/// The rule that picks the link for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Earliest arrival among the links with credit, lowest score first.
    #[default]
    Adaptive,
    /// Lowest score first, with no estimate of the arrival.
    Score,
    /// Every packet over all links that have credit.
    Redundant,
    /// The links in turn: the baseline for comparisons.
    RoundRobin,
}

/// How a link's datagrams are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// Authenticated and encrypted.
    #[default]
    Sealed,
    /// Neither: for links that are private already.
    Plain,
}

/// Over how many UDP flows, that is source ports, a sealed link goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UdpFlows {
    /// One, and more where the carrier is found to police each: up to eight.
    #[default]
    Auto,
    /// So many, from 1 to 8, in both directions.
    Fixed(u8),
}

/// How many repair symbols are sent, from which the receiver restores lost packets by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fec {
    /// For the realtime class, as many as the measured losses call for.
    #[default]
    Auto,
    /// No repair symbols.
    Off,
    /// Repair symbols for all traffic, as this share of it in permille.
    Fixed(u16),
}

/// The response to lost packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryConfig {
    /// Whether lost packets are sent again.
    pub resend: bool,
    /// Forward error correction on sealed links.
    pub fec: Fec,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self { resend: true, fec: Fec::default() }
    }
}

/// How a side sends. All of it may change while sessions run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// The rule that picks the link for a packet.
    pub policy: Policy,
    /// The response to losses.
    pub recovery: RecoveryConfig,
    /// Rules for the class of packets: the first rule that matches decides.
    pub rules: Arc<[Rule]>,
}

/// One link of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkConfig {
    /// Sealed or plain.
    pub security: Security,
    /// Lower is preferred. A server takes the client's value from the heartbeats.
    pub priority: u8,
    /// The link's role. A server takes the client's value from the heartbeats.
    pub role: LinkRole,
    /// Ceiling for the rate sent on the link; `None`: no configured ceiling.
    pub tx_rate: Option<BitRate>,
    /// Ceiling for the rate received on the link: the peer learns it from heartbeats.
    pub rx_rate: Option<BitRate>,
    /// The largest IP packet that the link's interface carries, in bytes. A sealed link searches
    /// for the path's own limit below that.
    pub mtu: u16,
    /// Client: the path used from the start. Server: `None`, learnt from the datagrams that arrive.
    pub path: Option<Path>,
    /// Client: over how many UDP flows a sealed link goes.
    pub flows: UdpFlows,
    /// Client: other addresses of the server on this link, for example of the other address family.
    /// The first address that answers is used.
    pub alternatives: Vec<Path>,
}

/// The client's part of the sealing. The seed is overwritten when this value is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientSealing {
    /// The client's static key.
    pub identity: PrivateKey,
    /// The server's static key.
    pub server: PublicKey,
    /// The key shared with the server beforehand, if one is configured.
    pub preshared: Option<PresharedKey>,
    /// AES-256-GCM is the faster cipher on this machine.
    pub aes_fast: bool,
    /// Greater in each run of this client's key: a server refuses first messages of an earlier run.
    pub run: u64,
    /// Seed of every key that the client draws; from the system's random numbers.
    pub entropy: [u8; 32],
    /// The token of an invitation, for a server that does not know the client's key yet. It gives
    /// the pre-shared key in the place of `preshared`.
    pub token: Option<Token>,
    /// A key that is to take the place of `identity`, once the server knows it.
    pub next: Option<PrivateKey>,
}

impl fmt::Debug for ClientSealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity: _, server, preshared, aes_fast, run, entropy: _, token, next } = self;
        f.debug_struct("ClientSealing")
            .field("server", server)
            .field("preshared", preshared)
            .field("aes_fast", aes_fast)
            .field("run", run)
            .field("token", token)
            .field("next", next)
            .finish_non_exhaustive()
    }
}

impl Drop for ClientSealing {
    fn drop(&mut self) {
        self.entropy.zeroize();
    }
}

/// The server's part of the sealing. The seed is overwritten when this value is dropped. Drop it
/// soon: the seed gives again every key that was ever drawn from it.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerSealing {
    /// The server's static key.
    pub identity: PrivateKey,
    /// AES-256-GCM is the faster cipher on this machine.
    pub aes_fast: bool,
    /// Seed of every key that the server draws; from the system's random numbers.
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
    /// The rule that picks the link for a packet.
    pub policy: Policy,
    /// Interval between two heartbeats on one link.
    pub heartbeat_interval: Duration,
    /// The largest inner packet accepted, in bytes; at most the TUN device's MTU.
    pub mtu: u16,
    /// Whether TCP connections are told to send no larger segments than the links carry.
    pub mss_clamp: bool,
    /// The response to losses of the packets that this side sends.
    pub recovery: RecoveryConfig,
    /// Rules for the class of the packets that this side sends: the first rule that matches
    /// decides.
    pub rules: Arc<[Rule]>,
    /// Seed of the flow hash; from the driver's random numbers.
    pub seed: u64,
    /// Differs from run to run, so that the peer notices a restart; from the driver's random
    /// numbers.
    pub epoch: u64,
    /// For a client with sealed links; `None`: a server, or a client whose links are all plain.
    pub sealing: Option<ClientSealing>,
}

/// The one remote address that is accepted on a plain link of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainPeer {
    /// The link.
    pub link: LinkId,
    /// The only address accepted; its port is learnt.
    pub remote: IpAddr,
    /// Ceiling for the rate that the server sends on the link.
    pub tx_rate: Option<BitRate>,
}

/// One client, as its server knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientConfig {
    /// The name shown in logs and status.
    pub name: String,
    /// The inner prefixes of the client: its own addresses and the networks behind it.
    pub prefixes: Vec<Prefix>,
    /// Its plain links.
    pub plain: Vec<PlainPeer>,
    /// The client's static key on sealed links; `None`: the client has no sealed link.
    pub public_key: Option<PublicKey>,
    /// The key shared with the client beforehand, if one is configured.
    pub preshared: Option<PresharedKey>,
    /// The client's inner addresses, each with the prefix length of the tunnel's network. The
    /// handshake tells them to the client. At most 4.
    pub addresses: Vec<Prefix>,
    /// Ceilings for the rate that the server sends on the client's sealed links, by link number.
    pub tx_rates: Vec<Option<BitRate>>,
}

impl ClientConfig {
    /// The networks behind the client: its prefixes but for its own addresses.
    pub fn routes_behind(&self) -> impl Iterator<Item = &Prefix> {
        let is_own = |prefix: &Prefix| self.addresses.iter().any(|own| own.address == prefix.address);
        self.prefixes.iter().filter(move |prefix| !is_own(prefix))
    }
}

/// A server's endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointConfig {
    /// The clients, in the order of their session numbers.
    pub clients: Vec<ClientConfig>,
    /// The rule that picks the link for a packet that the server sends.
    pub policy: Policy,
    /// Interval between two heartbeats on one link.
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
    /// For clients with sealed links; `None`: the server has no key.
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
            next: Some(identity.clone()),
        };
        let server = ServerSealing { identity, aes_fast: true, entropy: [0x41; 32] };
        let shown = format!("{client:?} {server:?}");
        assert!(shown.contains("run: 1") && !shown.contains("65") && !shown.contains("41"), "{shown}");
    }
}
