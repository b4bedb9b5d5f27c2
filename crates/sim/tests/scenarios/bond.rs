//! Client and server over emulated links: the links that traffic uses, and links and peers that
//! come and go.

use std::num::NonZeroUsize;
use std::time::Duration;

use bonding_netem::{Change, Direction, Loss};
use bonding_proto::config::Policy;
use bonding_proto::stats::SessionStats;
use bonding_proto::{Datagram, Discard, Instant, PacketBuf, Session, StateMachine, Timer, Transmit};
use bonding_sim::bond::{BondWorld, Setup};
use bonding_sim::host::echo::{EchoClient, EchoServer};
use bonding_sim::host::quic::QuicControl;
use bonding_sim::host::tcp::CongestionControl;
use bonding_sim::mangle::{Mangler, Mangling};
use bonding_sim::run::{RunSpec, System, Transport, Workload, run};
use bonding_sim::world::{Observed, Stalls, World};

use crate::load::{Side, assert_restarts, assert_sound, at, built_in, load, rates};

const POLICIES: [Policy; 3] = [Policy::Adaptive, Policy::Score, Policy::RoundRobin];

/// The share of each link in the packets that were put on a link in a direction.
fn shares(world: &mut BondWorld, direction: Direction) -> Vec<f64> {
    let log = match direction {
        Direction::Up => world.ledger_up.take_log(),
        Direction::Down => world.ledger_down.take_log(),
    };
    let mut counts = vec![0.0; world.link_count()];
    let mut total = 0.0_f64;
    for (link, _) in log.iter().filter_map(|passage| passage.sent) {
        if let Some(count) = counts.get_mut(link) {
            *count += 1.0;
        }
        total += 1.0;
    }
    counts.iter().map(|count| count / total.max(1.0)).collect()
}

fn keep_logs(world: &mut BondWorld) {
    let now = world.now();
    world.ledger_up.keep_log(now);
    world.ledger_down.keep_log(now);
}

#[test]
fn light_traffic_uses_the_first_link_alone_and_sees_its_round_trip_time() {
    for policy in [Policy::Adaptive, Policy::Score] {
        let mut world = Setup::new(built_in("reference"), policy, 1).world();
        keep_logs(&mut world);
        let load = load(&mut world, 1_000, 1_000, 10.0);
        let echo = EchoClient::new(Duration::from_millis(20), at(1.0), at(10.0), 1);
        let echo = world.client.host.add(Box::new(echo));
        world.server.host.add(Box::new(EchoServer::new()));
        world.run_until(at(11.0));
        assert_sound(&world, &load);
        for direction in Direction::BOTH {
            let shares = shares(&mut world, direction);
            assert!(shares[0] >= 0.99, "{policy:?} {direction:?}: {shares:?}");
        }
        let mut delays: Vec<_> = world.client.host.report(echo).delays.iter().map(|it| it.1).collect();
        delays.sort_unstable();
        assert_eq!(delays.len(), 450, "{policy:?}");
        // A packet of the other flow takes 1 ms on the link.
        assert!(delays[225] <= Duration::from_millis(22), "{policy:?}: {:?}", delays[225]);
    }
}

#[test]
fn a_growing_load_fills_the_first_link_and_then_adds_the_others() {
    let shares_at = |mbit: u32| {
        let mut world = Setup::new(built_in("reference"), Policy::Adaptive, 1).world();
        let load = load(&mut world, 1_000, u64::from(mbit) * 1_000, 6.0);
        // By then the links have found their rates.
        world.run_until(at(2.0));
        keep_logs(&mut world);
        let (_, down) = rates(&mut world, &load, 2.0, 6.0);
        assert_sound(&world, &load);
        assert!(down > f64::from(mbit) * 0.99, "{down} of {mbit} Mbit/s");
        shares(&mut world, Direction::Down)
    };
    // 9 Mbit/s of 1,000-byte packets are 9.35 on the link.
    let fitting = shares_at(9);
    assert!(fitting[0] > 0.97, "{fitting:?}");
    // 10 Mbit/s carry 9.62 Mbit/s of them.
    let spilling = shares_at(40);
    assert!(spilling[0] > 0.22 && spilling[1] > 0.5 && spilling[3] < 0.01, "{spilling:?}");
    let full = shares_at(250);
    // The last link in order has the rest: 250 less 9.6 and three times 64.
    assert!(full[0] > 0.035 && full[1..].iter().all(|share| *share > 0.18), "{full:?}");
}

#[test]
fn traffic_goes_on_when_the_first_link_goes_silent_and_returns_to_it() {
    for policy in POLICIES {
        let mut world = Setup::new(built_in("failover"), policy, 1).world();
        let load = load(&mut world, 20_000, 20_000, 19.0);
        let before = rates(&mut world, &load, 2.0, 8.0);
        let dead = rates(&mut world, &load, 9.0, 14.0);
        world.run_until(at(16.0));
        keep_logs(&mut world);
        let after = rates(&mut world, &load, 16.0, 18.0);
        for (name, (up, down)) in [("before", before), ("dead", dead), ("after", after)] {
            assert!(up > 19.6 && down > 19.6, "{policy:?} {name}: {up} up, {down} down");
        }
        for direction in Direction::BOTH {
            let shares = shares(&mut world, direction);
            let expected = if policy == Policy::RoundRobin { 0.45 } else { 0.9 };
            assert!(shares[0] > expected, "{policy:?} {direction:?}: {shares:?}");
        }
        // At most a second of silence: only the packets on the dead link are lost.
        let (up, down) = (load.up(&world), load.down(&world));
        let sent = (world.client.host.report(0).sent, world.server.host.report(0).sent);
        assert!(
            sent.0 - up.received < 2_000 && sent.1 - down.received < 2_000,
            "{policy:?}: {sent:?} {up:?} {down:?}"
        );
        assert_sound(&world, &load);
    }
}

#[test]
fn a_restarted_client_or_server_carries_traffic_within_two_seconds() {
    for side in [Side::Client, Side::Server] {
        assert_restarts(&Setup::new(built_in("dual"), Policy::Adaptive, 1), side);
    }
}

#[test]
fn when_all_links_were_down_traffic_flows_again_within_two_seconds() {
    let mut world = Setup::new(built_in("dual"), Policy::Adaptive, 1).world();
    let load = load(&mut world, 10_000, 10_000, 10.0);
    world.run_until(at(3.0));
    for outage in [true, false] {
        for link in 0..world.link_count() {
            for direction in Direction::BOTH {
                world.change_link(link, direction, Change::Outage(outage));
            }
        }
        if outage {
            let silent = rates(&mut world, &load, 3.5, 6.0);
            assert!(silent.0 < 0.1 && silent.1 < 0.1, "{silent:?}");
        }
    }
    let (up, down) = rates(&mut world, &load, 8.0, 10.0);
    assert!(up > 9.8 && down > 9.8, "{up} up, {down} down");
    assert_sound(&world, &load);
}

#[test]
fn one_direction_down_is_a_link_down() {
    let mut world = Setup::new(built_in("dual"), Policy::Adaptive, 1).world();
    let load = load(&mut world, 10_000, 10_000, 8.0);
    world.run_until(at(3.0));
    world.change_link(0, Direction::Up, Change::Outage(true));
    let (up, down) = rates(&mut world, &load, 4.0, 8.0);
    assert!(up > 9.8 && down > 9.8, "{up} up, {down} down");
    assert_sound(&world, &load);
}

#[test]
fn heavy_loss_from_the_start_does_not_keep_it_from_connecting() {
    for seed in 0..5 {
        let mut scenario = built_in("dual");
        for link in &mut scenario.links {
            for pipe in [&mut link.up, &mut link.down] {
                pipe.loss = Loss::Random { ratio: 0.3 };
            }
        }
        let mut world = Setup::new(scenario, Policy::Adaptive, seed).world();
        let load = load(&mut world, 2_000, 2_000, 8.0);
        let (up, down) = rates(&mut world, &load, 4.0, 8.0);
        assert!(up > 1.2 && down > 1.2, "seed {seed}: {up} up, {down} down");
        assert_sound(&world, &load);
    }
}

#[test]
fn a_hostile_network_corrupts_nothing_and_stops_nothing() {
    for seed in 0..4 {
        let mut world = Setup::new(built_in("hetero"), Policy::Adaptive, seed).world();
        let mangling =
            Mangling { double: 30, hold: 30, replay: 30, cut: 30, rubbish: 30, ..Mangling::default() };
        world.set_mangler(Some(Mangler::new(mangling, seed)));
        let load = load(&mut world, 20_000, 20_000, 6.0);
        let (up, down) = rates(&mut world, &load, 2.0, 6.0);
        assert!(up > 19.5 && down > 19.5, "seed {seed}: {up} up, {down} down");
        for report in [load.up(&world), load.down(&world)] {
            assert_eq!((report.corrupt, report.duplicates), (0, 0), "seed {seed}");
        }
        for counts in [world.ledger_up.counts(), world.ledger_down.counts()] {
            assert_eq!((counts.corrupt, counts.duplicates), (0, 0), "seed {seed}");
        }
        assert!(world.client.refused_datagrams > 0 && world.server.refused_datagrams > 0);
    }
}

#[test]
fn a_client_behind_a_rebinding_nat_keeps_its_links() {
    let mut world = Setup::new(built_in("dual"), Policy::Adaptive, 1).world();
    let load = load(&mut world, 10_000, 10_000, 8.0);
    world.run_until(at(3.0));
    world.rebind(0);
    world.rebind(1);
    let (up, down) = rates(&mut world, &load, 4.0, 8.0);
    assert!(up > 9.8 && down > 9.8, "{up} up, {down} down");
}

/// A peer with one global sequence: every data frame is in slot 0.
#[derive(Debug)]
struct GlobalSequence {
    session: Session,
    counter: u64,
}

impl StateMachine for GlobalSequence {
    fn close(&mut self, _: Instant) {}

    fn handle_packet(&mut self, packet: PacketBuf, now: Instant) -> Result<(), Discard> {
        self.session.handle_packet(packet, now)
    }

    fn handle_datagram(&mut self, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        self.session.handle_datagram(datagram, now)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
    }

    fn poll_transmit(
        &mut self,
        buf: &mut Vec<u8>,
        max_segments: NonZeroUsize,
        now: Instant,
    ) -> Option<Transmit> {
        let start = buf.len();
        let transmit = self.session.poll_transmit(buf, max_segments, now)?;
        let (_, batch) = buf.split_at_mut(start);
        for frame in batch.chunks_mut(transmit.segment_size) {
            let Some((seq_num, rest)) = frame.split_first_chunk_mut::<8>() else { continue };
            // A data frame.
            if rest.first() == Some(&0x02) {
                *seq_num = self.counter.to_be_bytes();
                self.counter += 1;
            }
        }
        Some(transmit)
    }

    fn poll_packet(&mut self) -> Option<PacketBuf> {
        self.session.poll_packet()
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        self.session.poll_timeout()
    }
}

impl bonding_proto::StreamHost for GlobalSequence {}

impl Observed for GlobalSequence {
    fn session_stats(&self, now: Instant) -> Option<SessionStats> {
        Some(self.session.stats(now))
    }
}

#[test]
fn a_peer_with_one_global_sequence_is_understood() {
    let setup = Setup::new(built_in("hetero"), Policy::RoundRobin, 1);
    let client = GlobalSequence { session: setup.client(1, Instant::ZERO), counter: 0 };
    let server = setup.server(2, Instant::ZERO);
    let mut world = World::new(client, server, &setup.scenario, 1);
    let load = load(&mut world, 40_000, 40_000, 5.0);
    let (up, down) = rates(&mut world, &load, 2.0, 5.0);
    assert!(up > 39.5 && down > 39.5, "{up} up, {down} down");
    world.run_until(at(6.0));
    assert_eq!(load.up(&world).received, world.client.host.report(0).sent);
    assert_eq!(load.up(&world).reordered, 0);
    assert_sound(&world, &load);
}

fn bulk(transport: Transport, flows: u16) -> Workload {
    Workload { transport, direction: Direction::Down, flows }
}

#[test]
fn links_whose_rate_walks_carry_more_together_than_the_best_of_them_alone() {
    for direction in Direction::BOTH {
        let workload = Workload { direction, ..bulk(Transport::Quic(QuicControl::Cubic), 1) };
        let goodput = |system, seed| {
            let row = run(&RunSpec::new(built_in("varying"), system, workload, seed), None);
            assert_eq!(row.problems, Vec::<String>::new());
            row.goodput_mbps
        };
        let alone = goodput(System::Single, 1);
        let mut bond: Vec<f64> = (1..=3).map(|seed| goodput(System::Bond(Policy::Adaptive), seed)).collect();
        bond.sort_by(f64::total_cmp);
        assert!(bond[1] > alone * 1.1, "{direction:?}: {bond:?} beside {alone}");
    }
}

#[test]
fn the_order_of_the_links_in_the_configuration_does_not_matter() {
    let quic = bulk(Transport::Quic(QuicControl::Cubic), 1);
    for name in ["hetero", "dual"] {
        let mut spec = RunSpec::new(built_in(name), System::Bond(Policy::Adaptive), quic, 1);
        spec.duration = Duration::from_secs(10);
        let forward = run(&spec, None);
        spec.setup = spec.setup.reversed();
        let backward = run(&spec, None);
        assert!(forward.problems.is_empty() && backward.problems.is_empty());
        let change = backward.goodput_mbps / forward.goodput_mbps;
        let both = (forward.goodput_mbps, backward.goodput_mbps);
        assert!((0.97..1.03).contains(&change), "{name}: {both:?} Mbit/s");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let tcp = bulk(Transport::Tcp(CongestionControl::Cubic), 4);
    let hash = |seed| {
        let mut spec = RunSpec::new(built_in("lossy"), System::Bond(Policy::Adaptive), tcp, seed);
        spec.duration = Duration::from_secs(4);
        let row = run(&spec, None);
        assert!(row.problems.is_empty(), "{:?}", row.problems);
        row.trace_hash
    };
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}

#[test]
fn sides_that_stand_still_for_a_fifth_of_the_time_fill_the_links() {
    let quic = Workload::parse("quic-cubic-down-1").unwrap();
    let share = |seed| {
        let mut spec = RunSpec::new(built_in("reference"), System::Bond(Policy::Adaptive), quic, seed);
        spec.stalls = Some(Stalls { length: Duration::from_millis(20), every: Duration::from_millis(100) });
        spec.duration = Duration::from_secs(10);
        let row = run(&spec, None);
        assert!(row.problems.is_empty(), "{:?}", row.problems);
        row.share
    };
    // Single runs have 79 to 90 %.
    let shares: Vec<f64> = (1..=4).map(share).collect();
    assert!(shares.iter().sum::<f64>() / 4.0 > 0.82, "{shares:.3?}");
}
