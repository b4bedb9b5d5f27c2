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

    /// Standard normal, at most some 6.3 deviations from the mean. One draw.
    pub(crate) fn normal(&mut self) -> f64 {
        // The middle of the step that `unit` gives: never 0 or 1.
        normal_quantile(self.unit() + 0.5 / 4_294_967_296.0)
    }
}

/// The quantile of the standard normal distribution for `p` in `2^-33..=1 - 2^-33`, to seven
/// digits: algorithm AS 241, PPND7 (Wichura, Applied Statistics 37, 1988). Only basic arithmetic
/// and roots, so the same value on every machine.
fn normal_quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        let above = ((59.109_374_720 * r + 159.291_132_02) * r + 50.434_271_938) * r + 3.387_132_717_9;
        let below = ((67.187_563_600 * r + 78.757_757_664) * r + 17.895_169_469) * r + 1.0;
        return q * above / below;
    }
    // For such `p` the root is below 5, where the algorithm's third range begins.
    let r = (-ln(p.min(1.0 - p))).sqrt() - 1.6;
    let above = ((0.170_238_211_03 * r + 1.306_728_481_6) * r + 2.756_815_390_0) * r + 1.423_437_277_7;
    let below = (0.120_211_329_75 * r + 0.737_001_642_50) * r + 1.0;
    (above / below).copysign(q)
}

/// The natural logarithm of a normal number above 0, to ten digits, by basic arithmetic only: the
/// machine's own may differ from another's in the last digit.
fn ln(value: f64) -> f64 {
    const FRACTION_BITS: u32 = 52;
    const EXPONENT_OF_ONE: u64 = 1_023;
    let bits = value.to_bits();
    let exponent = (bits >> FRACTION_BITS) as f64 - EXPONENT_OF_ONE as f64;
    // In 1..2.
    let fraction = f64::from_bits(bits & ((1 << FRACTION_BITS) - 1) | EXPONENT_OF_ONE << FRACTION_BITS);
    // ln f = 2 artanh((f - 1) / (f + 1)), a series whose terms fall by 9 at least.
    let (ratio, mut sum) = ((fraction - 1.0) / (fraction + 1.0), 0.0);
    for odd in [19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        sum = sum * ratio * ratio + 1.0 / odd;
    }
    exponent * std::f64::consts::LN_2 + 2.0 * ratio * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_right_to_ten_digits() {
        for value in [1e-300, 2.0_f64.powi(-33), 1e-5, 0.074, 0.999_999, 1.0, 1.5, 1e9] {
            let error = (ln(value) - f64::ln(value)).abs();
            assert!(error <= 1e-10 * f64::ln(value).abs().max(1.0), "{value}: {error}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        // From published tables.
        for (p, z) in [
            (0.5, 0.0),
            (0.75, 0.674_489_75),
            (0.9, 1.281_551_57),
            (0.975, 1.959_963_98),
            (0.999, 3.090_232_31),
            (0.999_999, 4.753_424_31),
            (1.0 - 1e-9, 5.997_807_0),
        ] {
            assert!((normal_quantile(p) - z).abs() < 2e-6, "{p}: {}", normal_quantile(p));
            assert!((normal_quantile(1.0 - p) + z).abs() < 2e-6, "{p}: {}", normal_quantile(1.0 - p));
        }
    }

    #[test]
    fn draws_are_standard_normal() {
        let mut random = Random::new(1, Stream::Jitter);
        let count = 400_000;
        let draws: Vec<f64> = (0..count).map(|_| random.normal()).collect();
        let mean = draws.iter().sum::<f64>() / f64::from(count);
        let square = draws.iter().map(|draw| draw * draw).sum::<f64>() / f64::from(count);
        // Five deviations of the mean (1/√n) and of the mean square (√(2/n)).
        assert!(mean.abs() < 0.008 && (square - 1.0).abs() < 0.012, "{mean} {square}");
        let beyond_3 = draws.iter().filter(|draw| draw.abs() > 3.0).count() as f64 / f64::from(count);
        assert!((beyond_3 - 0.002_7).abs() < 0.000_5, "{beyond_3}");
    }
}
