//! Any bytes as a client's life: datagrams, packets, link events, time.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bonding_fuzz::session(data));
