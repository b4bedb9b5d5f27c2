//! Configurations of a server and its clients with sealed links, and packets that go through them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bonding_proto::config::{
    ClientConfig, ClientSealing, EndpointConfig, LinkConfig, Policy, Prefix, RecoveryConfig, Role, Security,
    ServerSealing, SessionConfig, UdpFlows,
};
use bonding_proto::crypto::keys::{PrivateKey, PublicKey};
use bonding_proto::units::BitRate;
use bonding_proto::view::LinkRole;
use bonding_proto::{Path, SocketId};
use bytes::Bytes;

/// The largest inner packet: what a sealed datagram over IPv4 holds in an outer packet of 1,500
/// bytes.
pub const MTU: u16 = 1_429;
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);

/// The server's key.
pub fn server_key() -> PrivateKey {
    PrivateKey::from_bytes([7; 32])
}

/// The server's address for a link.
pub fn server_address(link: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 1], 9_001 + u16::from(link)))
}

/// The path of a link as its client sees it.
pub fn client_path(link: u8) -> Path {
    Path { socket: SocketId(link), remote: server_address(link), local: None }
}

/// A sealed link of a client, with the same ceiling both ways; `None`: without one.
pub fn client_link(link: u8, priority: u8, ceiling: Option<BitRate>) -> LinkConfig {
    LinkConfig {
        security: Security::Sealed,
        priority,
        role: LinkRole::Primary,
        tx_rate: ceiling,
        rx_rate: ceiling,
        mtu: 1_500,
        path: Some(client_path(link)),
        flows: UdpFlows::Auto,
        alternatives: Vec::new(),
    }
}

/// A client of the server with [`server_key`]; its random numbers come from `entropy` and `seed`.
pub fn client_config(
    links: Vec<LinkConfig>,
    identity: PrivateKey,
    entropy: [u8; 32],
    seed: u64,
) -> SessionConfig {
    SessionConfig {
        role: Role::Client,
        links,
        policy: Policy::Adaptive,
        heartbeat_interval: HEARTBEAT_INTERVAL,
        mtu: MTU,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed,
        epoch: seed,
        sealing: Some(ClientSealing {
            identity,
            server: server_key().public(),
            preshared: None,
            aes_fast: true,
            run: 1,
            entropy,
            token: None,
            next: None,
        }),
    }
}

/// A client as its server knows it: by key, with one inner address.
pub fn enrolled(
    name: String,
    key: PublicKey,
    inner: Ipv4Addr,
    tx_rates: Vec<Option<BitRate>>,
) -> ClientConfig {
    let prefix = |length| vec![Prefix { address: IpAddr::V4(inner), length }];
    ClientConfig {
        name,
        prefixes: prefix(32),
        plain: Vec::new(),
        public_key: Some(key),
        preshared: None,
        addresses: prefix(16),
        tx_rates,
    }
}

/// The server with [`server_key`]; `epoch` tells one start of it from another.
pub fn server_config(clients: Vec<ClientConfig>, epoch: u8) -> EndpointConfig {
    EndpointConfig {
        clients,
        policy: Policy::Adaptive,
        heartbeat_interval: HEARTBEAT_INTERVAL,
        mtu: MTU,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: 1,
        epoch: u64::from(epoch),
        sealing: Some(ServerSealing { identity: server_key(), aes_fast: true, entropy: [epoch; 32] }),
    }
}

/// An IPv4 packet of `bytes` bytes with this protocol and these ports; its checksums and the rest
/// are zeros.
fn ipv4(protocol: u8, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), bytes: u16) -> Vec<u8> {
    let mut packet = vec![0; usize::from(bytes)];
    let mut put = |at: usize, part: &[u8]| packet[at..at + part.len()].copy_from_slice(part);
    put(0, &[0x45]);
    put(2, &bytes.to_be_bytes());
    put(8, &[64, protocol]);
    put(12, &from.0.octets());
    put(16, &to.0.octets());
    put(20, &from.1.to_be_bytes());
    put(22, &to.1.to_be_bytes());
    packet
}

/// A UDP packet of `bytes` bytes in all.
pub fn udp_packet(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), bytes: u16) -> Bytes {
    let mut packet = ipv4(17, from, to, bytes);
    packet[24..26].copy_from_slice(&(bytes - 20).to_be_bytes());
    Bytes::from(packet)
}

/// A TCP segment of `bytes` bytes in all, with ACK set and "do not fragment".
pub fn tcp_segment(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), bytes: u16) -> Bytes {
    let mut packet = ipv4(6, from, to, bytes);
    packet[6] = 0x40;
    packet[32..35].copy_from_slice(&[0x50, 0x10, 4]);
    Bytes::from(packet)
}
