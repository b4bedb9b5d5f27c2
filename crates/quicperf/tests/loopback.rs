//! Transfers between two ends of this process, over loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bonding_quicperf::{Amount, Congestion, Direction, Server, Settings, Transfer};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn settings(congestion: Congestion) -> Settings {
    Settings::new(congestion, 1_400).expect("a size between the bounds")
}

/// A transfer of `bytes` to or from a server at `server`.
fn transfer(server: SocketAddr, direction: Direction, bytes: u64) -> Transfer {
    Transfer {
        server,
        device: None,
        direction,
        amount: Amount::Bytes(bytes),
        flows: 1,
        settings: settings(Congestion::Cubic),
        limit: Duration::from_secs(60),
    }
}

#[test]
fn every_byte_arrives_either_way() {
    let server = Server::start(ANY_PORT, settings(Congestion::Cubic)).unwrap();
    for direction in [Direction::Down, Direction::Up] {
        for bytes in [0, 1, 3 << 20] {
            let outcome = transfer(server.address(), direction, bytes).run().unwrap();
            assert_eq!((outcome.unfinished, outcome.bytes), (None, bytes), "{direction:?}");
        }
    }
}

#[test]
fn one_server_has_several_connections_at_once() {
    let server = Server::start(ANY_PORT, settings(Congestion::Bbr)).unwrap();
    let transfer = Transfer {
        flows: 5,
        settings: settings(Congestion::Bbr),
        ..transfer(server.address(), Direction::Down, 200_000)
    };
    let outcome = transfer.run().unwrap();
    assert_eq!((outcome.unfinished, outcome.flow_bytes), (None, vec![200_000; 5]));
}

#[test]
fn a_transfer_by_time_counts_what_arrives_meanwhile() {
    let server = Server::start(ANY_PORT, settings(Congestion::Cubic)).unwrap();
    for direction in [Direction::Down, Direction::Up] {
        let transfer = Transfer {
            flows: 2,
            amount: Amount::Time { omit: Duration::from_millis(100), measured: Duration::from_millis(300) },
            ..transfer(server.address(), direction, 0)
        };
        let outcome = transfer.run().unwrap();
        assert_eq!(outcome.flow_bytes.len(), 2);
        assert!(outcome.flow_bytes.iter().all(|bytes| *bytes > 0), "{outcome:?}");
        assert!(outcome.time >= Duration::from_millis(300));
    }
}

#[test]
fn a_transfer_without_a_server_ends_at_its_limit() {
    let silent = std::net::UdpSocket::bind(ANY_PORT).unwrap();
    let limit = Duration::from_millis(200);
    let transfer = Transfer { limit, ..transfer(silent.local_addr().unwrap(), Direction::Down, 1_000) };
    let outcome = transfer.run().unwrap();
    assert_eq!(outcome.bytes, 0);
    assert!(outcome.unfinished.is_some());
    let timed = Transfer { amount: Amount::Time { omit: Duration::ZERO, measured: limit }, ..transfer };
    assert!(timed.run().is_err());
}

#[test]
fn sizes_that_quic_cannot_use_are_refused() {
    assert!(Settings::new(Congestion::Cubic, 1_199).is_err());
    assert!(Settings::new(Congestion::Cubic, 1_473).is_err());
}
