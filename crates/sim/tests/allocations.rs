//! In steady state the core allocates nothing per packet: its buffers have their size after the
//! first packets. One test, since the allocator counts for the whole process.

use std::alloc::System;
use std::sync::atomic::{AtomicUsize, Ordering};

use bonding_testkit::pump::Pump;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

static BEFORE: AtomicUsize = AtomicUsize::new(0);
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// Counts allocations and reallocations inside the core.
fn watch(after: bool) {
    let stats = ALLOCATOR.stats();
    let count = stats.allocations + stats.reallocations;
    if after {
        INSIDE.fetch_add(count - BEFORE.load(Ordering::Relaxed), Ordering::Relaxed);
    } else {
        BEFORE.store(count, Ordering::Relaxed);
    }
}

/// Packets and allocations, while some 100,000 packets pass from the clients to the server.
fn allocations(links: u8, flows: u16, packet_bytes: u16, packets_per_step: usize) -> (u64, usize) {
    let mut pump = Pump::new(links, flows, packet_bytes, watch);
    // The core finds the rates and fills its windows.
    for _ in 0..6_000 {
        pump.step(packets_per_step);
    }
    INSIDE.store(0, Ordering::Relaxed);
    let before = pump.delivered;
    while pump.delivered - before < 100_000 {
        pump.step(packets_per_step);
    }
    (pump.delivered - before, INSIDE.load(Ordering::Relaxed))
}

/// The same for super-packets from the server.
fn allocations_of_runs(links: u8, segments: usize) -> (u64, usize) {
    let mut pump = Pump::new(links, 1, 1_400, watch);
    for _ in 0..6_000 {
        pump.step_both(0, segments);
    }
    INSIDE.store(0, Ordering::Relaxed);
    let before = pump.returned;
    while pump.returned - before < 100_000 {
        pump.step_both(0, segments);
    }
    (pump.returned - before, INSIDE.load(Ordering::Relaxed))
}

#[test]
fn packets_take_no_allocations() {
    // Bulk at 440 Mbit/s, small packets, and many flows, over one link and over four.
    for (links, flows, bytes, per_step) in
        [(1, 1, 1_400, 20), (4, 1, 1_400, 20), (1, 1, 100, 40), (1, 200, 100, 40), (4, 200, 1_400, 20)]
    {
        let (packets, count) = allocations(links, flows, bytes, per_step);
        println!("{links} links, {flows} flows, {bytes} bytes: {count} allocations for {packets} packets");
        // Heartbeats and feedback allocate a little; a packet does not.
        assert!(count as u64 * 1_000 <= packets, "{count} allocations for {packets} packets");
    }
    for links in [1, 4] {
        let (packets, count) = allocations_of_runs(links, 20);
        println!("{links} links, super-packets: {count} allocations for {packets} packets");
        assert!(count as u64 * 1_000 <= packets, "{count} allocations for {packets} packets");
    }
}
