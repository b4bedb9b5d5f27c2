//! One side alone, fed by the input: a client's session or a server's endpoint.
//!
//! Asserted: no panic; work and memory follow the bytes that came in ([`crate::work`]); every drain
//! ends; datagrams to send fit their declared sizes; after `handle_timeout` and a full drain the
//! next deadline is later than now.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use bonding_proto::config::{
    ClientConfig, ClientSealing, EndpointConfig, LinkConfig, PlainPeer, Policy, Prefix, RecoveryConfig, Role,
    Security, ServerSealing, SessionConfig, UdpFlows,
};
use bonding_proto::crypto::keys::PrivateKey;
use bonding_proto::event::SocketEvent;
use bonding_proto::units::BitRate;
use bonding_proto::view::LinkRole;
use bonding_proto::wire::{Kind, Modifiers, data_seq_num, put_frame_header};
use bonding_proto::{Datagram, Endpoint, Instant, LinkId, PacketBuf, Path, Session, SocketId, StateMachine};
use bytes::{Bytes, BytesMut};

use crate::input::Input;
use crate::work::{Meter, Weighed};

/// Links of the client.
pub(crate) const LINKS: u8 = 3;
/// The tunnel's MTU.
pub(crate) const MTU: u16 = 1_461;
/// Outputs of one drain that no legal queue exceeds; more means that the drain never ends.
const DRAIN_MAX: usize = 200_000;

/// The client's outer address on a link.
pub(crate) fn client_address(link: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 200, link, 1)), 9_001 + u16::from(link))
}

/// The server's outer address for a link.
pub(crate) fn server_address(link: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 9_001 + u16::from(link))
}

/// The path of the client's datagrams on a link.
pub(crate) fn client_path(link: u8) -> Path {
    Path { socket: SocketId(link), remote: server_address(link), local: None }
}

/// The path of the server's datagrams on a link.
pub(crate) fn server_path(link: u8) -> Path {
    Path { socket: SocketId(link), remote: client_address(link), local: None }
}

fn policy(choice: u8) -> Policy {
    match choice % 4 {
        0 => Policy::Adaptive,
        1 => Policy::Score,
        2 => Policy::RoundRobin,
        _ => Policy::Redundant,
    }
}

/// A link's rate by choice: none, or from 1 to 128 Mbit/s.
fn rate(choice: u8) -> Option<BitRate> {
    (!choice.is_multiple_of(8)).then(|| BitRate::from_bps(1_000_000 << (choice % 8)))
}

/// A key by its number.
pub(crate) fn key(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number; 32])
}

/// The key of the client of [`new_session`].
pub(crate) const CLIENT_KEY: u8 = 1;
/// The key of the server of [`new_endpoint`].
pub(crate) const SERVER_KEY: u8 = 99;

/// A client with three links; `choice` picks its policy and rates.
pub(crate) fn new_session(choice: u8, security: Security, now: Instant) -> Session {
    Session::new(session_config(choice, security), now)
}

/// The configuration of [`new_session`].
pub(crate) fn session_config(choice: u8, security: Security) -> SessionConfig {
    let link = |index: u8| LinkConfig {
        security,
        priority: index + 1,
        role: LinkRole::Primary,
        tx_rate: rate(choice.wrapping_add(index)),
        rx_rate: rate(choice.wrapping_mul(3).wrapping_add(index)),
        mtu: 1_500,
        path: Some(client_path(index)),
        flows: UdpFlows::Auto,
        alternatives: Vec::new(),
    };
    SessionConfig {
        role: Role::Client,
        links: (0..LINKS).map(link).collect(),
        policy: policy(choice / 8),
        heartbeat_interval: Duration::from_millis(100),
        mtu: MTU,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: 7,
        epoch: 11,
        sealing: (security == Security::Sealed).then(|| ClientSealing {
            identity: key(CLIENT_KEY),
            server: key(SERVER_KEY).public(),
            preshared: None,
            aes_fast: choice & 2 == 0,
            run: 1,
            entropy: [choice; 32],
            token: None,
            next: None,
        }),
    }
}

/// The inner prefix of a client of the server.
pub(crate) fn prefix(last: u8, length: u8) -> Prefix {
    Prefix { address: IpAddr::V4(Ipv4Addr::new(10, 99, 0, last)), length }
}

/// A server with two clients: the one of [`new_session`], and one that never sends.
pub(crate) fn new_endpoint(choice: u8, security: Security, now: Instant) -> Endpoint {
    let sealed = security == Security::Sealed;
    let peer = |index: u8| PlainPeer {
        link: LinkId(index),
        remote: client_address(index).ip(),
        tx_rate: rate(choice.wrapping_add(index)),
    };
    let silent =
        PlainPeer { link: LinkId(0), remote: IpAddr::V4(Ipv4Addr::new(10, 250, 0, 1)), tx_rate: None };
    let config = EndpointConfig {
        clients: vec![
            ClientConfig {
                name: "home".into(),
                prefixes: vec![prefix(2, 32)],
                plain: if sealed { Vec::new() } else { (0..LINKS).map(peer).collect() },
                public_key: sealed.then(|| key(CLIENT_KEY).public()),
                preshared: None,
                addresses: vec![prefix(2, 24)],
                tx_rates: (0..LINKS).map(|index| rate(choice.wrapping_add(index))).collect(),
            },
            ClientConfig {
                name: "silent".into(),
                prefixes: vec![prefix(8, 29)],
                plain: vec![silent],
                public_key: None,
                preshared: None,
                addresses: Vec::new(),
                tx_rates: Vec::new(),
            },
        ],
        policy: policy(choice / 8),
        heartbeat_interval: Duration::from_millis(100),
        mtu: MTU,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: 13,
        epoch: 17,
        sealing: sealed.then(|| ServerSealing {
            identity: key(SERVER_KEY),
            aes_fast: choice & 4 == 0,
            entropy: [choice; 32],
        }),
    };
    let mut endpoint = Endpoint::new(&config, now);
    endpoint.set_enrolling(true);
    endpoint
}

/// Takes all outputs of a machine, datagrams and packets, in its order.
///
/// # Panics
/// If the drain does not end, or a batch contradicts its own sizes.
pub(crate) fn drain(
    machine: &mut impl StateMachine,
    now: Instant,
    mut on_datagram: impl FnMut(Path, LinkId, &[u8]),
    mut on_packet: impl FnMut(PacketBuf),
) {
    let batch = NonZeroUsize::new(16).expect("16 is not zero");
    let mut buffer = Vec::new();
    for _ in 0..DRAIN_MAX {
        if let Some(packet) = machine.poll_packet() {
            assert!(!packet.is_empty(), "an empty packet for TUN");
            on_packet(packet);
            continue;
        }
        buffer.clear();
        let Some(transmit) = machine.poll_transmit(&mut buffer, batch, now) else {
            assert!(buffer.is_empty(), "bytes without a transmit");
            let Some(packet) = machine.poll_packet() else { return };
            on_packet(packet);
            continue;
        };
        assert_eq!(transmit.size, buffer.len(), "size differs from what was appended");
        assert!(transmit.segment_size > 0 && transmit.segment_size <= transmit.size);
        assert!(transmit.size.div_ceil(transmit.segment_size) <= batch.get(), "more segments than allowed");
        for datagram in buffer.chunks(transmit.segment_size) {
            on_datagram(transmit.path, transmit.link, datagram);
        }
    }
    panic!("the drain does not end");
}

/// Drains a machine after an input, gives it the time, and drains it again, as every driver must.
///
/// # Panics
/// If its next deadline is not later than now.
pub(crate) fn tick(
    machine: &mut impl StateMachine,
    now: Instant,
    mut on_datagram: impl FnMut(Path, LinkId, &[u8]),
    mut on_packet: impl FnMut(PacketBuf),
) {
    drain(machine, now, &mut on_datagram, &mut on_packet);
    machine.handle_timeout(now);
    drain(machine, now, on_datagram, on_packet);
    if let Some((due, why)) = machine.poll_timeout() {
        assert!(due > now, "busy loop: `{why}` is due at once");
    }
}

/// A UDP packet inside the tunnel, from or to the client.
pub(crate) fn inner_packet(from_client: bool, port: u8, payload: &[u8]) -> Vec<u8> {
    let (client, world) = ([10, 99, 0, 2], [198, 51, 100, port % 4]);
    let (source, destination) = if from_client { (client, world) } else { (world, client) };
    let length = |extra: usize| u16::try_from(payload.len() + extra).expect("a chunk is short").to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&length(28));
    packet.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend_from_slice(&source);
    packet.extend_from_slice(&destination);
    packet.extend_from_slice(&[0x27, port, 0x1b, 0x39]);
    packet.extend_from_slice(&length(8));
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(payload);
    packet
}

/// A data frame whose numbers lie close together, so that windows and holds are reached.
pub(crate) fn data_frame(input: &mut Input<'_>) -> Option<Vec<u8>> {
    let (slot, counter) = (input.byte()? % 4, input.number()?);
    let payload = inner_packet(slot % 2 == 0, slot, input.chunk()?);
    let mut frame = Vec::new();
    let length = u16::try_from(payload.len()).expect("a chunk is short");
    let seq_num = data_seq_num(u16::from(slot), u64::from(counter));
    let modifiers = if counter % 8 == 7 { Modifiers::AT_ONCE } else { Modifiers::NONE };
    put_frame_header(&mut frame, seq_num, Kind::Data, modifiers, length);
    frame.extend_from_slice(&payload);
    Some(frame)
}

/// One datagram made from the input, as a machine with the peers `peers` would receive it.
fn datagram(input: &mut Input<'_>, kind: u8, peers: fn(u8) -> Path, sent: &[Vec<u8>]) -> Option<Datagram> {
    let choice = input.byte()?;
    let mut path = peers(choice % LINKS);
    if choice >= 0xf0 {
        path.remote.set_port(u16::from(choice));
    } else if choice >= 0xe0 {
        path.remote = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, choice)), 9_001);
    } else if choice >= 0xd0 {
        path.socket = SocketId(choice);
    }
    let data = match kind {
        0 => input.chunk()?.to_vec(),
        1 => data_frame(input)?,
        // A datagram of the machine itself, sent back and perhaps damaged: heartbeats of the right
        // shape.
        _ => {
            let mut echo =
                sent.get(usize::from(input.byte()?) % sent.len().max(1)).cloned().unwrap_or_default();
            let (place, value) = (usize::from(input.byte()?), input.byte()?);
            if let Some(byte) = echo.get_mut(place) {
                *byte ^= value;
            }
            echo
        }
    };
    Some(Datagram::new(path, BytesMut::from(data.as_slice())))
}

/// Plays an input to one machine; `None` when the input ends.
fn play<M: StateMachine + Weighed>(
    machine: &mut M,
    input: &mut Input<'_>,
    peers: fn(u8) -> Path,
    from_client: bool,
    mut other: impl FnMut(&mut M, u8, Instant),
) -> Option<()> {
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut meter = Meter::new(now);
    // The last datagrams that the machine sent.
    let mut sent: Vec<Vec<u8>> = Vec::new();
    loop {
        match input.byte()? % 8 {
            kind @ 0..=2 => {
                let datagram = datagram(input, kind, peers, &sent)?;
                // A refusal is counted by the machine.
                let bytes = datagram.data.len();
                let _ = meter.take(bytes, || machine.handle_datagram(datagram, now));
            }
            3 => {
                let packet = Bytes::copy_from_slice(input.chunk()?);
                let _ = machine.handle_packet(PacketBuf::from(packet), now);
            }
            4 => {
                let (port, copies) = (input.byte()?, input.byte()?);
                let packet = Bytes::from(inner_packet(from_client, port, &[port; 1_200]));
                for _ in 0..copies {
                    meter.on_sent();
                    let _ = machine.handle_packet(PacketBuf::from(packet.clone()), now);
                }
            }
            5 => now = now + Duration::from_micros(u64::from(input.number()?) * 20),
            6 => now = machine.poll_timeout().map_or(now, |(due, _)| due.max(now)),
            _ => other(machine, input.byte()?, now),
        }
        meter.on_tick(machine.held(now));
        let keep = |_: Path, _: LinkId, datagram: &[u8]| {
            meter.on_sent();
            if sent.len() == 64 {
                sent.remove(0);
            }
            sent.push(datagram.to_vec());
        };
        tick(machine, now, keep, |_| {});
        meter.check(machine.touched(now), now);
    }
}

/// A client's life.
///
/// # Panics
/// If an assertion fails.
pub fn session(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(choice) = input.byte() else { return };
    let mut machine = new_session(choice, Security::Plain, Instant::from_nanos(1_000_000_000));
    play(&mut machine, &mut input, client_path, true, |machine, choice, now| {
        let event = if choice & 0x80 == 0 { SocketEvent::CarrierLost } else { SocketEvent::CarrierFound };
        machine.handle_socket_event(SocketId(choice % (LINKS + 1)), event, now);
        while machine.poll_event().is_some() {}
        let stats = machine.stats(now);
        assert_eq!(stats.links.len(), usize::from(LINKS));
    });
    assert_eq!(machine.stats(Instant::from_nanos(u64::MAX / 2)).links.len(), usize::from(LINKS));
}

/// A server's life.
///
/// # Panics
/// If an assertion fails.
pub fn endpoint(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(choice) = input.byte() else { return };
    let mut machine = new_endpoint(choice, Security::Plain, Instant::from_nanos(1_000_000_000));
    play(&mut machine, &mut input, server_path, false, |machine, _, now| {
        while machine.poll_event().is_some() {}
        assert!(machine.stats(now).len() <= 2, "more sessions than clients");
    });
}
