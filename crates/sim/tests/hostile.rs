//! A client with keys that sends the worst datagrams that it can build, against a server's core:
//! what that costs, for each byte that it sends. One test, since the allocator counts for the whole
//! process.
//!
//! Places touched and bytes allocated are asserted. The time is printed only (`--nocapture`): it
//! depends on the machine.

use std::alloc::System;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use bonding_proto::crypto::keys::PrivateKey;
use bonding_proto::endpoint::SessionId;
use bonding_proto::streams::StreamEvent;
use bonding_proto::wire::stream::{StreamForm, StreamRefusal};
use bonding_proto::{
    Datagram, Endpoint, Instant, PacketBuf, Path, SocketId, StateMachine as _, StreamHost as _,
};
use bonding_testkit::fixture;
use bonding_testkit::hostile::{Attack, Hit, Hostile};
use bytes::{Bytes, BytesMut};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const INNER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 66);
const SEGMENTS: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// What the attacker sends, 10 Mbit/s, and what comes for it from behind the server, 45 Mbit/s.
const BYTES_PER_MS: usize = 1_250;
const PACKETS_PER_MS: u16 = 4;
/// IP and UDP headers of a datagram.
const HEADERS: usize = 28;

/// The bounds, for each byte received: places, and bytes allocated. Chosen: twice what was counted.
/// See docs/decisions/0057.
const TOUCHED_PER_BYTE: u64 = 8;
const ALLOCATED_PER_BYTE: usize = 24;

/// A server and its attacker, without a network between them.
struct Bench {
    server: Endpoint,
    hostile: Hostile,
    now: Instant,
    /// In the server's core, and in it what was allocated.
    spent: Duration,
    allocated: usize,
    /// What came to the server, with headers, and what it sent.
    bytes: usize,
    datagrams: u64,
    sent: u64,
}

impl Bench {
    fn new(links: u8) -> Self {
        let identity = PrivateKey::from_bytes([66; 32]);
        let client = fixture::enrolled("hostile".to_owned(), identity.public(), INNER, Vec::new());
        let now = Instant::from_nanos(1_000_000_000);
        let mut server = Endpoint::new(&fixture::server_config(vec![client], 1), now);
        server.set_streams(true, now);
        Self {
            server,
            hostile: Hostile::new(identity, fixture::server_key().public(), INNER, links),
            now,
            spent: Duration::ZERO,
            allocated: 0,
            bytes: 0,
            datagrams: 0,
            sent: 0,
        }
    }

    /// Lets the server's core work, and carries what it sends to the attacker.
    fn work(&mut self, input: impl FnOnce(&mut Endpoint, Instant)) {
        let mut buf = Vec::with_capacity(70_000);
        let mut told = Vec::with_capacity(1_000);
        let (before, began) = (ALLOCATOR.stats().bytes_allocated, std::time::Instant::now());
        input(&mut self.server, self.now);
        serve(&mut self.server, self.now);
        while let Some(transmit) = self.server.poll_transmit(&mut buf, SEGMENTS, self.now) {
            let _ = transmit.path;
            told.push((buf.len(), transmit.segment_size));
        }
        while self.server.poll_packet().is_some() {}
        while self.server.poll_event().is_some() {}
        self.spent += began.elapsed();
        self.allocated += ALLOCATOR.stats().bytes_allocated - before;
        let mut from = 0;
        for (to, segment) in told {
            for datagram in buf.get(from..to).unwrap_or_default().chunks(segment) {
                self.sent += 1;
                self.hostile.handle(datagram, self.now);
            }
            from = to;
        }
    }

    fn give(&mut self, hit: &Hit) {
        let remote = SocketAddr::from(([192, 0, 2, 66], 40_000 + u16::from(hit.port)));
        let path = Path { socket: SocketId(0), remote, local: None };
        let datagram = Datagram::new(path, BytesMut::from(hit.data.as_slice()));
        self.bytes += hit.data.len() + HEADERS;
        self.datagrams += 1;
        // What is refused is counted.
        self.work(|server, now| {
            let _ = server.handle_datagram(datagram, now);
        });
    }

    /// A millisecond: what keeps the attacker in, the attack, and what comes for it.
    fn step(&mut self, attack: Option<Attack>) {
        self.now = self.now + Duration::from_millis(1);
        self.work(|server, now| server.handle_timeout(now));
        while let Some(hit) = self.hostile.upkeep(self.now) {
            self.give(&hit);
        }
        for port in 0..PACKETS_PER_MS {
            let packet = fixture::udp_packet((Ipv4Addr::new(198, 51, 100, 2), port), (INNER, 9), 1_400);
            self.work(|server, now| {
                let _ = server.handle_packet(PacketBuf::from(packet), now);
            });
        }
        let until = self.bytes + BYTES_PER_MS;
        while let Some(hit) =
            attack.filter(|_| self.bytes < until).and_then(|attack| self.hostile.attack(attack, self.now))
        {
            self.give(&hit);
        }
    }

    fn touched(&self) -> u64 {
        self.server.session(SessionId(0)).map_or(0, |session| session.stats(self.now).touched)
    }
}

/// Every second connection stands, and its destination reads; the others are refused.
fn serve(server: &mut Endpoint, now: Instant) {
    while let Some((session, event)) = server.poll_stream_event() {
        let Some(streams) = server.streams_mut(session, now) else { continue };
        match event {
            StreamEvent::Asked(id, _) if id.number() % 4 == 0 => streams.accept(id, StreamForm::Blocks),
            StreamEvent::Asked(id, _) => streams.refuse(id, StreamRefusal::Refused),
            StreamEvent::Readable(id) => {
                let bytes = streams.ready(id).map(Bytes::len).sum();
                streams.consume(id, bytes, now);
            }
            StreamEvent::Opened(_)
            | StreamEvent::Refused(..)
            | StreamEvent::Writable(_)
            | StreamEvent::Finished(_)
            | StreamEvent::Reset(_) => {}
        }
    }
}

#[test]
fn a_hostile_client_costs_what_its_bytes_pay_for() {
    for links in [1, 4, 32] {
        for attack in Attack::ALL {
            let mut bench = Bench::new(links);
            for _ in 0..500 {
                bench.step(None);
            }
            assert!(bench.hostile.is_in());
            let touched = bench.touched();
            (bench.spent, bench.allocated, bench.bytes, bench.datagrams, bench.sent) = Default::default();
            for _ in 0..2_000 {
                bench.step(Some(attack));
            }
            let touched = bench.touched() - touched;
            let per_byte = |count: u64| count as f64 / bench.bytes as f64;
            println!(
                "{links:2} links, {:28} {:6.2} µs a datagram, {:5.2} ns a byte, {:4.1} % of a processor; \
                 {:5.2} places and {:5.1} B allocated a byte; {:.2} datagrams sent for each",
                attack.name(),
                bench.spent.as_secs_f64() * 1e6 / bench.datagrams as f64,
                bench.spent.as_secs_f64() * 1e9 / bench.bytes as f64,
                bench.spent.as_secs_f64() / 2.0 * 100.0,
                per_byte(touched),
                bench.allocated as f64 / bench.bytes as f64,
                bench.sent as f64 / bench.datagrams as f64,
            );
            assert!(bench.bytes >= 2_000 * BYTES_PER_MS, "the attack goes on");
            let streams = bench.server.session(SessionId(0)).unwrap().stats(bench.now).streams;
            assert!(attack != Attack::Streams || streams.opened > 1_000, "{streams:?}");
            let paid = bench.bytes as u64 * TOUCHED_PER_BYTE + bench.sent * 4;
            assert!(touched <= paid, "{}: {touched} places touched", attack.name());
            let paid = bench.bytes * ALLOCATED_PER_BYTE;
            assert!(bench.allocated <= paid, "{}: {} bytes allocated", attack.name(), bench.allocated);
        }
    }
}
