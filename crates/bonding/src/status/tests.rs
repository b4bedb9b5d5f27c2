use std::time::{Duration, SystemTime};

use bonding_proto::config::Prefix;
use bonding_proto::crypto::aead::Cipher;
use bonding_proto::discard::DiscardCounts;
use bonding_proto::link::{Cause, PhaseKind};
use bonding_proto::stats::{ControlStats, LinkStats, PeerStats, SessionStats, StreamStats};
use bonding_proto::units::BitRate;

use super::*;
use crate::report::tests::link as figures;

fn control() -> ControlStats {
    ControlStats {
        phase: PhaseKind::Steady,
        cause: Some(Cause::OwnQueue),
        caused_ago: Some(Duration::from_millis(1_500)),
        queue: Duration::from_micros(3_250),
        base_delay_us: Some(-1_500),
        noise: Duration::from_millis(2),
        volatility_permille: 12,
        capacity: None,
    }
}

fn peer() -> PeerStats {
    PeerStats {
        told_ago: Duration::from_millis(700),
        phase: Some(PhaseKind::Steady),
        loss_permille: 12,
        tx_rate: BitRate::from_bps(4_100_000),
        capacity: Some(BitRate::from_bps(70_000_000)),
        queue: Duration::from_micros(3_200),
    }
}

const fn streams() -> StreamStats {
    StreamStats {
        open: 2,
        opened: 3,
        refused: 1,
        reset: 0,
        bytes_out: 5,
        bytes_in: 6,
        waiting_bytes: 7,
        under_way_bytes: 8,
        unread_bytes: 9,
        credit_blocked: 4,
        credit_blocked_for: Duration::from_millis(1_234),
    }
}

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
            by_hand: false,
            trouble: None,
        }],
        cipher: None,
        hybrid: false,
        rekeys: 0,
        refused: None,
        stats: SessionStats {
            connected,
            links: vec![LinkStats {
                control: control(),
                peer: Some(peer()),
                ..figures(0, 22.5, 8.2, 10.0, 1_225)
            }],
            flows_active: 3,
            flows_realtime: 2,
            queue_bytes: 0,
            queue_delay: Duration::ZERO,
            reorder_held: 4,
            reorder_held_bytes: 0,
            reorder_held_max: 0,
            reorder_timeouts: 0,
            touched: 0,
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
            streams: streams(),
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
        policy: bonding_proto::config::Policy::Adaptive,
        key: None,
        routing: None,
        discovery: None,
        interface: "tun-bond".to_owned(),
        addresses: vec![address],
        mtu: 1_461,
        sessions,
        discards,
        as_packets: AsPackets { rule: 1, port: 3, peer: 0, server: 2, full: 0 },
        compression: Compression { tx_plain_bytes: 30, tx_bytes: 10, rx_plain_bytes: 40, rx_bytes: 20 },
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
            "role": "client", "policy": "adaptive",
            "session": {
                "state": "up", "since": "2025-11-21T23:06:40Z", "peer": "10.200.0.1", "cipher": "none",
                "hybrid": false, "rekeys": 0
            },
            "summary": "carrying 8 of 10 Mbit/s up over adsl alone; adsl full",
            "tunnel": {"interface": "tun-bond", "address": ["192.168.50.1/24"], "mtu": 1461},
            "links": [{
                "id": 0, "name": "adsl", "interface": "wg0", "local": "10.200.0.1",
                "remote": "10.200.0.1:54321", "state": "SATURATED", "role": "primary", "priority": 1,
                "score": 1225, "rtt_ms": 22.5, "rtt_min_ms": 11.25, "mtu": 1492, "flows": 1, "loss_permille": 0, "tx_mbps": 8.2,
                "rx_mbps": 4.1, "capacity_mbps": 10.0, "utilisation": 0.82, "tx_bytes": 2, "tx_marked": 0,
                "rx_bytes": 18432156, "queue_ms": 11.25, "by_hand": false,
                "control": {
                    "phase": "steady", "cause": "own_queue", "caused_ago_ms": 1500.0, "capacity_mbps": null,
                    "queue_ms": 3.25, "base_delay_ms": -1.5, "noise_ms": 2.0, "volatility_permille": 12
                },
                "peer": {
                    "told_ago_ms": 700.0, "phase": "steady", "loss_permille": 12, "tx_mbps": 4.1,
                    "capacity_mbps": 70.0, "queue_ms": 3.2
                }
            }],
            "flows": {"active": 3, "realtime": 2},
            "reorder": {"held": 4, "released_late": 5, "duplicates": 6},
            "recovery": {
                "resent": 7, "reinjected": 2, "recovered": 6, "spurious": 1, "given_up": 1, "copies": 10, "fec_sent": 7,
                "fec_recovered": 8, "fec_refused": 9, "lost": 3
            },
            "streams": {
                "open": 2, "opened": 3, "refused": 1, "reset": 0, "tx_bytes": 5, "rx_bytes": 6, "waiting_bytes": 7,
                "unacknowledged_bytes": 8, "unread_bytes": 9, "credit_blocked": 4,
                "credit_blocked_ms": 1_234,
                "as_packets": {"rule": 1, "port": 3, "peer": 0, "server": 2, "full": 0}
            },
            "compression": {"tx_plain_bytes": 30, "tx_bytes": 10, "rx_plain_bytes": 40, "rx_bytes": 20},
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
    let sealed =
        SessionSnapshot { cipher: Some(Cipher::Aes256Gcm), hybrid: true, rekeys: 3, ..session("vps", true) };
    let status = snapshot(Role::Client, vec![sealed]).status();
    assert_eq!((status.session.cipher.as_str(), status.session.rekeys), ("aes-256-gcm", 3));
    assert!(status.session.hybrid);
    let refused = SessionSnapshot { refused: Some("this client's key has expired"), ..session("vps", false) };
    let status = snapshot(Role::Client, vec![refused.clone()]).status();
    assert_eq!(status.session.state, "refused");
    assert_eq!(status.session.refused.as_deref(), Some("this client's key has expired"));
    let again = SessionSnapshot { refused: Some("this client's key has expired"), ..session("vps", true) };
    let status = snapshot(Role::Client, vec![again]).status();
    assert_eq!((status.session.state.as_str(), status.session.refused), ("up", None));
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
