//! Any bytes as a server's life: datagrams of peers and strangers, packets, time.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bonding_fuzz::endpoint(data));
