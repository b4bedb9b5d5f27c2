//! Any bytes as what a peer with true keys says to a server or to a client.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bonding_fuzz::sealed(data));
