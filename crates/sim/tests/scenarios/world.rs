//! The simulator itself, on one link without a bond: transports work, figures are right, runs
//! repeat, oracles find faults.

use std::time::Duration;

use bonding_netem::Direction;
use bonding_proto::units::BitRate;
use bonding_proto::{Instant, LinkId, Timer};
use bonding_sim::bare::Bare;
use bonding_sim::host::bulk::{BulkConfig, End};
use bonding_sim::host::echo::{EchoClient, EchoServer};
use bonding_sim::host::quic::{QuicApp, QuicControl};
use bonding_sim::host::raw::{RawConfig, RawSink, RawSource};
use bonding_sim::host::tcp::{CongestionControl, TcpApp};
use bonding_sim::inet;
use bonding_sim::outer::{client_path, server_path};
use bonding_sim::world::World;

use crate::load::made;

const MTU: u16 = 1461;

fn world(links: &str, seed: u64) -> World<Bare, Bare> {
    let scenario = made("60s", links);
    let client = Bare::new(LinkId(0), client_path(0));
    let server = Bare::new(LinkId(0), server_path(0));
    World::new(client, server, &scenario, seed)
}

fn seconds(count: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(count)
}

fn bulk(end: End, sends: bool, flows: u16) -> BulkConfig {
    BulkConfig { end, sends, flows, mtu: MTU, seed: 7 }
}

fn tcp(world: &mut World<Bare, Bare>, down: bool, flows: u16) {
    let start = Instant::ZERO;
    let control = CongestionControl::Cubic;
    world.client.host.add(Box::new(TcpApp::new(bulk(End::Connector, !down, flows), control, start)));
    world.server.host.add(Box::new(TcpApp::new(bulk(End::Listener, down, flows), control, start)));
}

fn quic(world: &mut World<Bare, Bare>, down: bool, flows: u16, control: QuicControl) {
    let start = Instant::ZERO;
    world.client.host.add(Box::new(QuicApp::new(bulk(End::Connector, !down, flows), control, start)));
    world.server.host.add(Box::new(QuicApp::new(bulk(End::Listener, down, flows), control, start)));
}

fn mbps(bytes: u64, seconds: u64) -> f64 {
    bytes as f64 * 8.0 / 1e6 / seconds as f64
}

const STEADY: &str = "[[link]]\nname = \"a\"\nrate = \"20mbit\"\nrtt = \"20ms\"\nqueue = \"100ms\"\n";

#[test]
fn tcp_fills_a_link_both_ways() {
    for (down, flows) in [(true, 1), (false, 1), (true, 4)] {
        let mut world = world(STEADY, 1);
        tcp(&mut world, down, flows);
        world.run_until(seconds(10));
        let receiver = if down { world.client.host.report(0) } else { world.server.host.report(0) };
        assert_eq!(receiver.connected, usize::from(flows));
        assert_eq!(receiver.corrupt, 0);
        let rate = mbps(receiver.received_bytes, 10);
        // 20 Mbit/s × 1421 / 1500 = 18.9; smoltcp loses much by the losses that end its slow start.
        assert!((11.0..18.95).contains(&rate), "down {down}, {flows} flows: {rate} Mbit/s");
        assert_eq!(world.ledger_down.counts().corrupt + world.ledger_up.counts().corrupt, 0);
        assert_eq!(world.ledger_down.counts().reordered + world.ledger_up.counts().reordered, 0);
        assert_eq!(world.misrouted(), 0);
    }
}

#[test]
fn quic_fills_a_link_both_ways() {
    for control in [QuicControl::Cubic, QuicControl::Bbr] {
        for (down, flows) in [(true, 1), (false, 4)] {
            let mut world = world(STEADY, 1);
            quic(&mut world, down, flows, control);
            world.run_until(seconds(10));
            let receiver = if down { world.client.host.report(0) } else { world.server.host.report(0) };
            assert_eq!(receiver.connected, usize::from(flows));
            assert_eq!(receiver.corrupt, 0);
            let rate = mbps(receiver.received_bytes, 10);
            assert!((14.0..18.95).contains(&rate), "{control:?}, down {down}: {rate} Mbit/s");
        }
    }
}

#[test]
fn an_echo_takes_the_round_trip_time_and_losses_are_counted() {
    let lossy = "[[link]]\nname = \"a\"\nrate = \"10mbit\"\nrtt = \"30ms\"\ndown = { loss = \"10%\" }\n";
    let mut world = world(lossy, 3);
    let echo = EchoClient::new(Duration::from_millis(20), Instant::ZERO, seconds(20), 1);
    world.client.host.add(Box::new(echo));
    world.server.host.add(Box::new(EchoServer::new()));
    world.run_until(seconds(21));
    let report = world.client.host.report(0);
    assert_eq!(report.sent, 1_000);
    assert!((860..940).contains(&report.received), "{} of 1000", report.received);
    assert_eq!((report.corrupt, report.duplicates, report.reordered), (0, 0, 0));
    // 139 bytes take 0.11 ms each way.
    let expected = Duration::from_micros(30_222)..Duration::from_micros(30_224);
    assert!(report.delays.iter().all(|(_, delay)| expected.contains(delay)), "{:?}", report.delays.first());
}

fn raw(world: &mut World<Bare, Bare>) {
    let config = RawConfig {
        from: inet::SERVER,
        to: inet::CLIENT,
        flows: 3,
        rate: BitRate::from_bps(8_000_000),
        packet_bytes: 1_000,
        start: Instant::ZERO,
        stop: seconds(5),
        seed: 5,
    };
    world.server.host.add(Box::new(RawSource::new(config)));
    world.client.host.add(Box::new(RawSink::new(config)));
}

#[test]
fn raw_load_arrives_at_its_rate_and_the_oracles_notice_what_a_link_does() {
    let mut clean = world(STEADY, 1);
    raw(&mut clean);
    clean.run_until(seconds(6));
    let sink = clean.client.host.report(0);
    assert_eq!((sink.received, sink.corrupt, sink.duplicates, sink.reordered), (5_000, 0, 0, 0));

    let bad = "[[link]]\nname = \"a\"\nrate = \"20mbit\"\nrtt = \"20ms\"\nduplicate = \"5%\"\njitter = \"20ms\"\nreorder = true\n";
    let mut bad = world(bad, 1);
    raw(&mut bad);
    bad.run_until(seconds(6));
    let sink = bad.client.host.report(0);
    assert!(sink.duplicates > 100 && sink.reordered > 100, "{} {}", sink.duplicates, sink.reordered);
    let counts = bad.ledger_down.counts();
    assert_eq!((counts.duplicates, counts.corrupt), (sink.duplicates, 0));
    assert_eq!(counts.left, sink.received);
    assert!(counts.reordered > 100);
}

#[test]
fn a_carrier_that_polices_flows_tells_a_links_ports_apart() {
    // The rate brings back one datagram in minutes: what passes of each flow is its burst.
    let policed = "[[link]]\nname = \"a\"\nrate = \"20mbit\"\nrtt = \"20ms\"\n\
                   up = { police = { rate = \"50bit\", burst = \"5500B\", per = \"flow\" } }\n";
    let mut world = world(policed, 1);
    let config = RawConfig {
        from: inet::CLIENT,
        to: inet::SERVER,
        flows: 3,
        rate: BitRate::from_bps(80_000),
        packet_bytes: 1_000,
        start: Instant::ZERO,
        stop: seconds(4),
        seed: 5,
    };
    world.client.host.add(Box::new(RawSource::new(config)));
    world.server.host.add(Box::new(RawSink::new(config)));
    // The inner flows are one outer flow: five datagrams of 1,039 bytes are its burst.
    world.run_until(seconds(2));
    assert_eq!(world.server.host.report(0).received, 5);
    world.rebind(0);
    world.run_until(seconds(5));
    assert_eq!(world.server.host.report(0).received, 10);
    assert_eq!(world.link_counters(0, Direction::Up).drops.police_pkts, 40 - 10);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_does_not() {
    let lossy =
        "[[link]]\nname = \"a\"\nrate = \"20mbit\"\nrtt = \"20ms\"\nloss = \"1%\"\njitter = \"2ms\"\n";
    let run = |seed| {
        let mut world = world(lossy, seed);
        tcp(&mut world, true, 2);
        world.run_until(seconds(5));
        (world.trace_hash(), world.client.host.report(0).received_bytes)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// A machine with a deadline that is always due.
#[derive(Debug)]
struct Stuck(Bare);

impl bonding_proto::StateMachine for Stuck {
    fn close(&mut self, _: Instant) {}

    fn handle_packet(
        &mut self,
        packet: bonding_proto::PacketBuf,
        now: Instant,
    ) -> Result<(), bonding_proto::Discard> {
        self.0.handle_packet(packet, now)
    }

    fn handle_datagram(
        &mut self,
        datagram: bonding_proto::Datagram,
        now: Instant,
    ) -> Result<(), bonding_proto::Discard> {
        self.0.handle_datagram(datagram, now)
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(
        &mut self,
        buf: &mut Vec<u8>,
        max_segments: std::num::NonZeroUsize,
        now: Instant,
    ) -> Option<bonding_proto::Transmit> {
        self.0.poll_transmit(buf, max_segments, now)
    }

    fn poll_packet(&mut self) -> Option<bonding_proto::PacketBuf> {
        self.0.poll_packet()
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        Some((Instant::ZERO, Timer::Pacing))
    }
}

impl bonding_proto::StreamHost for Stuck {}

impl bonding_sim::world::Observed for Stuck {
    fn session_stats(&self, _now: Instant) -> Option<bonding_proto::stats::SessionStats> {
        None
    }
}

#[test]
#[should_panic(expected = "pacing")]
fn a_busy_loop_is_named() {
    let scenario = made("60s", STEADY);
    let client = Stuck(Bare::new(LinkId(0), client_path(0)));
    let mut world = World::new(client, Bare::new(LinkId(0), server_path(0)), &scenario, 1);
    world.run_until(seconds(1));
}
