//! The smallest driver of the core: a client and a server in one program, no sockets, no clock, no
//! TUN device.
//!
//! `cargo run -p bonding-proto --example two_machines` prints the handshake and one packet each
//! way.
//!
//! A real driver (`crates/bonding/src/engine`) does the same with sockets, a TUN device and the
//! system's clock:
//! 1. give an input: a packet from TUN, a datagram from a socket, or the time;
//! 2. drain every output: `poll_transmit`, `poll_packet`, `poll_event`;
//! 3. wait for the next input, or until `poll_timeout`.
#![expect(clippy::print_stdout, reason = "an example: standard output is its interface")]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use bonding_proto::config::{
    ClientConfig, ClientSealing, EndpointConfig, LinkConfig, Policy, Prefix, RecoveryConfig, Role, Security,
    ServerSealing, SessionConfig, UdpFlows,
};
use bonding_proto::crypto::keys::PrivateKey;
use bonding_proto::view::LinkRole;
use bonding_proto::{Datagram, Endpoint, Instant, PacketBuf, Path, Session, SocketId, StateMachine};
use bytes::{Bytes, BytesMut};

/// The client's address inside the tunnel, and a host behind the server.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// One way on each of the two links.
const DELAYS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(40)];
const MTU: u16 = 1_400;
/// How often each link is measured.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// Datagrams under way. The links are a queue: nothing is lost and nothing is limited.
#[derive(Debug, Default)]
struct Links(VecDeque<Flight>);

#[derive(Debug)]
struct Flight {
    arrives: Instant,
    to_server: bool,
    link: u8,
    data: BytesMut,
}

fn main() {
    let start = Instant::ZERO;
    let mut client = client(start);
    let mut server = server(start);
    let mut links = Links::default();
    let mut now = start;
    let mut sent = false;

    while now < start + Duration::from_secs(1) {
        // Outputs first: whatever the last input caused.
        drain(&mut client, "client", true, &mut links, now);
        drain(&mut server, "server", false, &mut links, now);
        while let Some(event) = client.poll_event() {
            println!("{} client: {event:?}", at(now));
        }
        while let Some((session, event)) = server.poll_event() {
            println!("{} server: session {}: {event:?}", at(now), session.0);
        }

        // After half a second the handshake is over and both links are measured: one packet each
        // way.
        if !sent && now >= start + Duration::from_millis(500) {
            sent = true;
            println!("{} client: takes a packet for {HOST} from its TUN device", at(now));
            report(client.handle_packet(packet(CLIENT, HOST), now));
            println!("{} server: takes a packet for {CLIENT} from its TUN device", at(now));
            report(server.handle_packet(packet(HOST, CLIENT), now));
            continue;
        }

        // Then wait for what comes first: a datagram, or either machine's deadline.
        let deadlines = [client.poll_timeout(), server.poll_timeout()];
        let deadline = deadlines.into_iter().flatten().map(|(at, _reason)| at).min();
        let arrival = links.0.iter().map(|flight| flight.arrives).min();
        let Some(next) = [deadline, arrival].into_iter().flatten().min() else { break };
        now = now.max(next);
        client.handle_timeout(now);
        server.handle_timeout(now);
        while let Some(place) = links.0.iter().position(|flight| flight.arrives <= now) {
            let Some(flight) = links.0.remove(place) else { break };
            // A client has one socket for each link; a server knows its clients by what they send.
            let (socket, remote) = (SocketId(flight.link), address(flight.link, !flight.to_server));
            let path = Path { socket, remote, local: None };
            let datagram = Datagram::new(path, flight.data);
            let machine: &mut dyn StateMachine = if flight.to_server { &mut server } else { &mut client };
            report(machine.handle_datagram(datagram, now));
        }
    }
}

/// Takes everything that a machine has to give.
fn drain(machine: &mut dyn StateMachine, name: &str, is_client: bool, links: &mut Links, now: Instant) {
    let mut buf = Vec::new();
    // One datagram at a time; a driver with UDP GSO asks for up to 64.
    while let Some(transmit) = machine.poll_transmit(&mut buf, NonZeroUsize::MIN, now) {
        let link = transmit.path.socket.0;
        let delay = DELAYS.get(usize::from(link)).copied().unwrap_or_default();
        // The first byte tells the kind: PROTOCOL.md, "Datagrams". Sealed datagrams are too many to
        // print.
        match buf.first() {
            Some(0x81) => println!("{} {name}: sends an initiation over link {link}", at(now)),
            Some(0x82) => println!("{} {name}: answers it over link {link}", at(now)),
            _ => {}
        }
        let data = BytesMut::from(buf.as_slice());
        links.0.push_back(Flight { arrives: now + delay, to_server: is_client, link, data });
        buf.clear();
    }
    while let Some(packet) = machine.poll_packet() {
        println!("{} {name}: hands a packet of {} bytes to its TUN device", at(now), packet.len());
    }
}

/// An error is counted by the machine already; here it is shown as well. This run has one: the
/// server answers over both links, and the client needs one answer.
fn report(outcome: Result<(), bonding_proto::Discard>) {
    if let Err(discard) = outcome {
        println!("           discarded: {discard:?}");
    }
}

fn at(now: Instant) -> String {
    format!("{:>7.1} ms", now.as_nanos() as f64 / 1e6)
}

/// The address of one end of a link, as the other end sees it.
fn address(link: u8, of_server: bool) -> SocketAddr {
    let host = if of_server { [203, 0, 113, 7] } else { [192, 0, 2 + link, 1] };
    (host, if of_server { 9_001 + u16::from(link) } else { 40_000 }).into()
}

/// An IPv4 packet with a UDP payload of zeros.
fn packet(source: Ipv4Addr, destination: Ipv4Addr) -> PacketBuf {
    let mut bytes = vec![0x45, 0, 0, 100, 0, 0, 0, 0, 64, 17, 0, 0];
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.resize(100, 0);
    PacketBuf::from(Bytes::from(bytes))
}

// Keys and seeds come from the system's random numbers in a real driver; fixed ones make each run
// alike.
fn client_key() -> PrivateKey {
    PrivateKey::from_bytes([1; 32])
}

fn server_key() -> PrivateKey {
    PrivateKey::from_bytes([2; 32])
}

/// A client with two sealed links to the server.
fn client(now: Instant) -> Session {
    let link = |link: u8| LinkConfig {
        security: Security::Sealed,
        priority: 1,
        role: LinkRole::Primary,
        tx_rate: None,
        rx_rate: None,
        mtu: 1_500,
        path: Some(Path { socket: SocketId(link), remote: address(link, true), local: None }),
        flows: UdpFlows::Auto,
        alternatives: Vec::new(),
    };
    let config = SessionConfig {
        role: Role::Client,
        links: vec![link(0), link(1)],
        policy: Policy::Adaptive,
        heartbeat_interval: HEARTBEAT,
        mtu: MTU,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: 1,
        epoch: 1,
        sealing: Some(ClientSealing {
            identity: client_key(),
            server: server_key().public(),
            preshared: None,
            aes_fast: true,
            run: 1,
            entropy: [3; 32],
            token: None,
            next: None,
        }),
    };
    Session::new(config, now)
}

/// A server that knows this one client by its public key.
fn server(now: Instant) -> Endpoint {
    let address = IpAddr::V4(CLIENT);
    let config = EndpointConfig {
        clients: vec![ClientConfig {
            name: "home".to_owned(),
            prefixes: vec![Prefix { address, length: 32 }],
            plain: Vec::new(),
            public_key: Some(client_key().public()),
            preshared: None,
            addresses: vec![Prefix { address, length: 24 }],
            tx_rates: Vec::new(),
        }],
        policy: Policy::Adaptive,
        heartbeat_interval: HEARTBEAT,
        mtu: MTU,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: 2,
        epoch: 2,
        sealing: Some(ServerSealing { identity: server_key(), aes_fast: true, entropy: [4; 32] }),
    };
    Endpoint::new(&config, now)
}
