//! Any bytes as a network between a client and a server: loss, copies, disorder, damage.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bonding_fuzz::pair(data));
