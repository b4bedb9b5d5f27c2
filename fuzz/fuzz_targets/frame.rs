//! Any bytes as a frame, a plain datagram and a heartbeat.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bonding_fuzz::frame(data));
