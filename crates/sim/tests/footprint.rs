//! The memory of a session that sends only heartbeats. One test, since the allocator counts for the
//! whole process.

use std::alloc::System;

use bonding_testkit::crowd::Crowd;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CLIENTS: u16 = 40;
const LINKS: u8 = 5;
/// The limit for a session at either end, with its share of the endpoint. A server's has the
/// ciphertext of the last exchange.
const IDLE_BYTES_MAX: usize = 73 << 10;

/// Bytes allocated and not freed.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Bytes of each session at the clients and at the server: what dropping them frees.
fn footprint(crowd: Crowd) -> [usize; 2] {
    let Crowd { server, clients, .. } = crowd;
    let (before, count) = (allocated(), clients.len());
    drop(clients);
    let between = allocated();
    drop(server);
    [(before - between) / count, (between - allocated()) / count]
}

/// After traffic, a minute without it, and rekeys: windows are full; keys and replay windows exist
/// twice.
#[test]
fn an_idle_session_takes_less_than_73_kib() {
    let mut crowd = Crowd::new(CLIENTS, LINKS);
    crowd.run(1_000, false);
    crowd.assert_served();
    crowd.run(130_000, false);
    assert_eq!(crowd.connected(), usize::from(CLIENTS));
    assert!(crowd.clients.iter().all(|client| client.rekeys() == 2));
    let [client, server] = footprint(crowd);
    println!(
        "an idle session of {LINKS} links takes {client} bytes at its client and {server} at its server"
    );
    assert!(client < IDLE_BYTES_MAX && server < IDLE_BYTES_MAX, "{client} {server}");
}
