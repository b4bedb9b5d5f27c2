//! Forward error correction: lost packets are computed from received packets and *repair symbols*.
//!
//! # The code
//! A systematic code over a sliding window, one for each flow slot. Packets are sent unchanged. A
//! repair symbol covers the last few packets: `Σ c(r, i) · packet i` over GF(256), with shorter
//! packets padded with zeros. The r-th symbol of a slot has this coefficient for the packet of
//! counter i:
//!
//! ```text
//! c(r, i) = 1 / ((128 + r mod 128) xor (i mod 128))
//! ```
//! Each symbol is an equation. The decoder keeps the equations that still have unknown packets, in
//! reduced form (Gauss-Jordan elimination). The coefficients form a Cauchy matrix, whose square
//! submatrices are all invertible. Therefore **any k lost packets are restored by any k symbols
//! that cover all of them**, as long as the packets lie within 128 counters and the symbols within
//! 128 of each other. No seed is sent.
//!
//! A symbol does not carry the packets' lengths: each packet's IP header contains its length. A
//! symbol is as long as the longest packet that it covers. A restored packet must be one whole IP
//! packet followed by zeros only, otherwise it is refused: a symbol that contradicts the packets
//! produces nothing.
//!
//! # Bounds
//! A symbol covers 2 to [`COVER_MAX`] packets. A decoder remembers the packets of the last [`SPAN`]
//! counters and at most [`ROWS_MAX`] equations. A symbol therefore costs at most
//! `COVER_MAX + ROWS_MAX` passes over its bytes, whatever a hostile peer sends.
//!
//! Contract: no time, no links, no memory beyond one slot's. The module does not know when a symbol
//! is worth sending. Why not blocks: docs/decisions/0071-sliding-window-code.md.
//!
//! Sources: RFC 8681 (sliding windows, symbols of packets), RFC 5510 and Blömer et al. 1995 (Cauchy
//! codes).

mod cover;
mod decoder;
mod encoder;
mod gf;

pub use cover::{COVER_MAX, Cover, PLACE_BYTES, ROWS_MAX, SPAN};
pub use decoder::{Decoder, Refused};
pub use encoder::Encoder;

#[cfg(test)]
mod tests;
