//! Any bytes as a network between a client and a server on sealed links: loss, copies,
//! disorder, damage, forgeries.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bonding_fuzz::sealed_pair(data));
