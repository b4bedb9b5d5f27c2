//! Arithmetic in GF(256) with the polynomial x⁸ + x⁴ + x³ + x² + 1, as in RFC 8681 §3.6 and RFC
//! 5510 §8.1.
//!
//! Addition is exclusive or. Products come from one table of 64 KiB: one row of it multiplies a
//! whole symbol with one access for each byte.

/// x⁸ + x⁴ + x³ + x² + 1 without its x⁸.
const POLYNOMIAL: u8 = 0x1d;

static PRODUCTS: [[u8; 256]; 256] = products();

#[expect(clippy::cast_possible_truncation, reason = "indices below 256, at compile time")]
#[expect(clippy::indexing_slicing, reason = "indices below 256, at compile time")]
const fn products() -> [[u8; 256]; 256] {
    let mut table = [[0; 256]; 256];
    let mut a = 0;
    while a < 256 {
        let mut b = 0;
        while b < 256 {
            table[a][b] = multiply(a as u8, b as u8);
            b += 1;
        }
        a += 1;
    }
    table
}

/// The textbook method: shift and reduce.
const fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = (a << 1) ^ if a & 0x80 != 0 { POLYNOMIAL } else { 0 };
        b >>= 1;
    }
    product
}

/// All multiples of `factor`.
fn row(factor: u8) -> &'static [u8; 256] {
    // The index is a u8, so `get` never fails.
    PRODUCTS.get(usize::from(factor)).unwrap_or(&PRODUCTS[0])
}

/// The product of `a` and `b`.
pub(super) fn mul(a: u8, b: u8) -> u8 {
    row(a).get(usize::from(b)).copied().unwrap_or(0)
}

/// The multiplicative inverse of `a`; 0 for 0.
pub(super) fn inverse(a: u8) -> u8 {
    // a²⁵⁵ = 1, so a²⁵⁴ is the inverse: 254 = 2 + 4 + … + 128.
    let mut power = a;
    let mut inverse = 1;
    for _ in 0..7 {
        power = mul(power, power);
        inverse = mul(inverse, power);
    }
    inverse
}

/// Adds `factor` times `source` to the front of `sum`. A shorter `sum` is extended with zeros.
pub(super) fn add_multiple(sum: &mut Vec<u8>, source: &[u8], factor: u8) {
    if sum.len() < source.len() {
        sum.resize(source.len(), 0);
    }
    let multiples = row(factor);
    for (sum, byte) in sum.iter_mut().zip(source) {
        *sum ^= multiples.get(usize::from(*byte)).copied().unwrap_or(0);
    }
}

/// Multiplies all bytes by `factor`.
pub(super) fn scale(bytes: &mut [u8], factor: u8) {
    let multiples = row(factor);
    for byte in bytes {
        *byte = multiples.get(usize::from(*byte)).copied().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The logarithm of every element but 0 to the base x: its powers pass through all 255, which
    /// shows that the polynomial is primitive.
    fn logarithms() -> [Option<u8>; 256] {
        let mut logarithms = [None; 256];
        let mut power = 1u16;
        for exponent in 0..255 {
            assert_eq!(logarithms[usize::from(power)].replace(exponent), None, "x has a smaller order");
            power <<= 1;
            if power > 255 {
                power ^= 0b1_0001_1101;
            }
        }
        assert_eq!(power, 1);
        logarithms
    }

    #[test]
    fn products_add_the_logarithms_and_inverses_negate_them() {
        let logarithms = logarithms();
        let log = |a: u8| logarithms[usize::from(a)].map(u16::from);
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let sum = log(a).zip(log(b)).map(|(a, b)| (a + b) % 255);
                assert_eq!(log(mul(a, b)), sum, "{a} times {b}");
            }
            assert_eq!(log(inverse(a)), log(a).map(|a| (255 - a) % 255), "the inverse of {a}");
        }
    }

    /// The generator polynomial of the code with two symbols in the QR code's standard, ISO/IEC
    /// 18004, which has this field: (x − α⁰)(x − α¹) = x² + α²⁵ x + α, so 1 + α = α²⁵.
    #[test]
    fn the_field_is_that_of_a_published_code() {
        assert_eq!(logarithms()[3], Some(25));
    }

    #[test]
    fn sums_grow() {
        let mut sum = vec![1];
        add_multiple(&mut sum, &[2, 3], 2);
        assert_eq!(sum, [5, 6]);
        add_multiple(&mut sum, &[4], 1);
        assert_eq!(sum, [1, 6]);
        scale(&mut sum, 0x80);
        // x⁷ · (x² + x) = x⁹ + x⁸, and x⁸ = x⁴ + x³ + x² + 1.
        assert_eq!(sum, [0x80, 0b0010_0111]);
    }
}
