use super::*;
use crate::packet::SocketId;
use crate::wire::control::CHALLENGE_BYTES;

const INTERVAL: Duration = Duration::from_millis(100);

fn ms(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(1_000 + ms)
}

/// When the next heartbeat is due after `datagrams` of 1,400 bytes in 20 ms on a proven link of
/// `mbit`.
fn due_after(datagrams: u64, mbit: u64, receive: bool) -> Instant {
    let config = LinkConfig {
        security: Security::Plain,
        priority: 1,
        role: LinkRole::Primary,
        tx_rate: Some(BitRate::from_bps(mbit * 1_000_000)),
        rx_rate: None,
        mtu: 1_500,
        path: Some(Path { socket: SocketId(0), local: None, remote: "192.0.2.1:9000".parse().unwrap() }),
        flows: UdpFlows::Auto,
        alternatives: Vec::new(),
    };
    let mut link = Link::new(LinkId(0), Role::Client, &config, INTERVAL, ms(0));
    link.next_heartbeat(1, UdpFlow::FIRST, ms(0));
    link.liveness.health.on_proof(ms(0), None, ms(0));
    for datagram in 0..datagrams {
        let at = ms(20 * datagram / datagrams);
        if receive {
            link.on_datagram(1_400, at);
        } else {
            link.on_sent(1_400, Outgoing { sealed: None, asks: true, frame: None, flow: None }, at);
        }
    }
    link.heartbeats().due_at().unwrap()
}

#[test]
fn a_link_that_carries_much_has_heartbeats_more_often() {
    for receive in [false, true] {
        assert_eq!(due_after(6, 50, receive), ms(100));
        assert_eq!(due_after(60, 50, receive), ms(25));
        // 96 bytes and a little are 1 % of 1 Mbit/s in some 80 ms.
        let due = due_after(60, 1, receive);
        assert!((ms(70)..ms(90)).contains(&due), "{due:?}");
    }
}

/// The heartbeat that announces a new run takes the path with it: what came before says nothing
/// about it.
#[test]
fn a_sealed_link_without_a_path_waits_for_one() {
    let config = LinkConfig {
        security: Security::Sealed,
        priority: 1,
        role: LinkRole::Primary,
        tx_rate: None,
        rx_rate: None,
        mtu: 1_500,
        path: None,
        flows: UdpFlows::Auto,
        alternatives: Vec::new(),
    };
    let mut link = Link::new(LinkId(0), Role::Server, &config, INTERVAL, ms(0));
    let path = Path { socket: SocketId(0), local: None, remote: "192.0.2.1:9000".parse().unwrap() };
    let heartbeat = Heartbeat {
        epoch: 2,
        stamp_us: 1,
        sent: 1,
        echo: None,
        proven: false,
        at_once: true,
        priority: 1,
        role: LinkRole::Primary,
        rx_ceiling: None,
        resends: false,
        partial: true,
        indirect_feedback: true,
        streams: false,
        figures: false,
        failed: 0,
        flows: None,
        retired: 0,
    };
    link.follow((UdpFlow::FIRST, path), true, 100, || [1; CHALLENGE_BYTES], ms(0));
    link.on_peer_restart(ms(0));
    assert_eq!(link.on_heartbeat(1, &heartbeat, path, 1, ms(0)), Ok(None));
    assert_eq!(link.heartbeats().due_at(), None);
    link.follow((UdpFlow::FIRST, path), true, 100, || [1; CHALLENGE_BYTES], ms(1));
    assert_eq!(link.heartbeats().due_at(), Some(ms(1)));
}
