//! The packets that a repair symbol covers, their coefficients, and the bounds of both sides.

use super::gf;

/// The most packets that one symbol covers: the period of the coefficients.
pub const COVER_MAX: usize = 128;

/// Counters behind the newest whose packets a decoder remembers. Chosen: a full window of packets,
/// and half a window for symbols that arrive late.
pub const SPAN: u64 = 192;

/// The most equations that a decoder keeps. Chosen: it bounds the cost of a symbol; a slot with 32
/// unresolved symbols has lost more than they can restore.
pub const ROWS_MAX: usize = 32;

/// What looking at one packet's place, or at one equation, counts for: bytes of arithmetic that
/// take as long. Chosen: a place's size.
pub const PLACE_BYTES: usize = 16;

/// The packets that a repair symbol covers, and the symbol's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cover {
    /// The lowest counter covered.
    pub first: u64,
    /// The number of packets covered.
    pub count: u8,
    /// The number of the slot's symbol, modulo 256.
    pub number: u8,
}

impl Cover {
    /// The counters, in order.
    pub fn counters(self) -> impl Iterator<Item = u64> {
        self.first..self.first.saturating_add(u64::from(self.count))
    }
}

/// c(r, i) as in the head of [`crate::fec`]; never 0.
pub(super) fn coefficient(number: u8, counter: u64) -> u8 {
    let place = u8::try_from(counter % 128).unwrap_or(0);
    gf::inverse((0x80 | number) ^ place)
}
