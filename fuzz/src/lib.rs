//! The fuzz targets as plain functions: `cargo xtask fuzz` drives them with new inputs,
//! `tests/corpus.rs` with the committed ones (`cargo xtask test fuzz`).
//!
//! A run is valid if no function panics: each asserts its invariants for any input, and `sealed`,
//! `session` and `endpoint` that work and memory follow the bytes that came in. No function draws
//! random numbers or reads a clock, so an input replays exactly.
//!
//! The targets are `frame`, `handshake`, `session`, `endpoint`, `sealed`, `pair` and `sealed_pair`.
//! CI runs each for a minute. An input that failed is committed to `corpus` once the fault is
//! repaired.
//!
//! cargo-fuzz works too (its switches need `RUSTC_BOOTSTRAP=1` with the stable compiler):
//! `cargo fuzz cmin TARGET` shrinks a corpus before it is committed.

mod handshake;
mod input;
mod machine;
mod pair;
mod sealed;
mod streams;
mod work;

pub use handshake::handshake;
pub use machine::{endpoint, session};
pub use pair::{pair, sealed_pair};
pub use sealed::sealed;

use bonding_proto::wire::control::Control;
use bonding_proto::wire::exchange::ExchangeFrame;
use bonding_proto::wire::heartbeat::Heartbeat;
use bonding_proto::wire::sealed::{DatagramKind, SEALED_HEADER_BYTES, SealedHeader};
use bonding_proto::wire::{parse_frame, parse_plain, put_frame_header};

/// Reads `data` as frames, one after another, as a plain datagram, as a heartbeat, as a sealed
/// header, as control and as a frame of an exchange.
///
/// # Panics
/// If a value that was read and written again differs.
pub fn frame(data: &[u8]) {
    let mut rest = data;
    while let Ok((frame, behind)) = parse_frame(rest) {
        let mut again = Vec::new();
        let length = u16::try_from(frame.payload.len()).expect("len is a 16-bit field");
        put_frame_header(&mut again, frame.seq_num, frame.kind, frame.modifiers, length);
        again.extend_from_slice(frame.payload);
        again.extend_from_slice(behind);
        assert_eq!(again, rest, "a frame read and written again differs");
        assert!(behind.len() < rest.len(), "a frame took no bytes");
        rest = behind;
    }
    if let Ok(frame) = parse_plain(data) {
        assert_eq!(parse_frame(data).expect("a plain datagram is a frame").0, frame);
        if let Ok(heartbeat) = Heartbeat::parse(frame.payload) {
            check_heartbeat(&heartbeat);
        }
    }
    if let Ok(heartbeat) = Heartbeat::parse(data) {
        check_heartbeat(&heartbeat);
    }
    if let Ok(header) = SealedHeader::parse(data) {
        assert_eq!(DatagramKind::of(data), Some(DatagramKind::Sealed));
        assert_eq!(Some(header.to_bytes().as_slice()), data.get(..SEALED_HEADER_BYTES));
    }
    if let Ok(control) = Control::parse(data) {
        let mut again = Vec::new();
        control.put(&mut again);
        assert_eq!(again.len(), usize::from(control.payload_bytes()));
        assert_eq!(Control::parse(&again), Ok(control), "a control frame read and written again differs");
    }
    if let Ok(Some(frame)) = ExchangeFrame::parse(data) {
        let mut again = Vec::new();
        frame.put(&mut again);
        assert_eq!(Some(again.as_slice()), data.get(..usize::from(frame.payload_bytes())));
    }
}

fn check_heartbeat(heartbeat: &Heartbeat) {
    let mut again = Vec::new();
    heartbeat.put(&mut again);
    assert_eq!(
        Heartbeat::parse(&again).as_ref(),
        Ok(heartbeat),
        "a heartbeat read and written again differs"
    );
}
