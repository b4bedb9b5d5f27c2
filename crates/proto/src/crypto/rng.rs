//! Randomness for keys, from a seed that the driver draws, and what it mixes in later.
//!
//! Fast key erasure: every draw replaces the state by a one-way hash of itself. A later read of the
//! memory therefore reveals no key drawn before. The generator is BLAKE2s keyed with the state. The
//! same seed gives the same draws. Two copies of one memory draw the same, until other entropy is
//! mixed into each.

use std::fmt;

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
use zeroize::{Zeroize as _, Zeroizing};

/// The block that entropy is mixed into; no draw is so long that it has it.
const MIX: u64 = u64::MAX;

/// The generator.
pub struct SecretRng(Zeroizing<[u8; 32]>);

impl SecretRng {
    /// `seed` must come from the system's random numbers (a simulation may choose it).
    pub fn new(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// Draws depend on `entropy` as well from now on. What is known or chosen by others does no
    /// harm.
    pub fn mix(&mut self, entropy: &[u8; 32]) {
        self.0 = self.block(MIX, entropy);
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for (number, chunk) in (1_u64..).zip(bytes.chunks_mut(32)) {
            let mut block = self.block(number, &[]);
            chunk.iter_mut().zip(block.iter()).for_each(|(to, from)| *to = *from);
            block.zeroize();
        }
        self.0 = self.block(0, &[]);
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// The next number.
    pub fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        u32::from_be_bytes(bytes)
    }

    fn block(&self, number: u64, entropy: &[u8]) -> Zeroizing<[u8; 32]> {
        // Fails for keys over 32 bytes only.
        let mut mac = Blake2sMac256::new_from_slice(self.0.as_slice()).expect("a key of 32 bytes");
        mac.update(&number.to_be_bytes());
        mac.update(entropy);
        let mut block = Zeroizing::new([0; 32]);
        mac.finalize_into(block.as_mut_slice().into());
        block
    }
}

impl fmt::Debug for SecretRng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretRng(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_repeat_from_a_seed_and_never_within_one() {
        let (mut a, mut b) = (SecretRng::new([7; 32]), SecretRng::new([7; 32]));
        let mut drawn = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let (mut x, mut y) = ([0; 40], [0; 40]);
            a.fill(&mut x);
            b.fill(&mut y);
            assert_eq!(x, y);
            assert!(drawn.insert(x));
            assert_ne!(x[..8], x[32..]);
        }
        // As in a machine that was restored twice from one image.
        let mut c = SecretRng::new([7; 32]);
        b = SecretRng::new([7; 32]);
        b.mix(&[1; 32]);
        c.mix(&[2; 32]);
        let mut again = SecretRng::new([7; 32]);
        again.mix(&[2; 32]);
        let (b, c, again) = (b.next_u64(), c.next_u64(), again.next_u64());
        assert!(b != c && c == again && c != SecretRng::new([7; 32]).next_u64());
        assert_ne!(SecretRng::new([8; 32]).next_u64(), SecretRng::new([7; 32]).next_u64());
    }
}
