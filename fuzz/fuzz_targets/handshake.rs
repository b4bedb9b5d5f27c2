//! Any bytes as a handshake's messages and payloads, and as what an attacker does to a true one.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bonding_fuzz::handshake(data));
