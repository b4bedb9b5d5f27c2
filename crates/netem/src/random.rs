//! Seeded randomness: one generator per purpose, so that one impairment does not shift the draws of
//! another.

use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// The purpose of a generator.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Loss = 1,
    Jitter = 2,
    Duplicate = 3,
    Walk = 4,
}

/// A portable generator: the same seed draws the same numbers on every machine and in every
/// version.
#[derive(Debug, Clone)]
pub(crate) struct Random(Pcg32);

impl Random {
    pub(crate) fn new(seed: u64, stream: Stream) -> Self {
        let stream = (stream as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self(Pcg32::seed_from_u64(seed ^ stream))
    }

    /// Uniform in `0.0..1.0`, in steps of 2^-32.
    pub(crate) fn unit(&mut self) -> f64 {
        f64::from(self.0.next_u32()) / 4_294_967_296.0
    }

    /// True with probability `ratio`: never for 0 or NaN, always for 1. Draws no number for 0, so
    /// an impairment that is off costs nothing.
    pub(crate) fn chance(&mut self, ratio: f64) -> bool {
        ratio > 0.0 && self.unit() < ratio
    }
}
