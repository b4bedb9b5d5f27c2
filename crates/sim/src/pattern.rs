//! Payload that can be verified at any offset without storing the sent bytes.

use crate::rng::Rng;

/// Bytes of a period. A prime, so that a shift by any packet or buffer size is detected.
const PERIOD: usize = 65_521;

/// An endless byte stream, different for every flow.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// One period, twice, so that any window up to a period long is one slice.
    block: Vec<u8>,
}

impl Pattern {
    /// The stream of flow `flow` in a run with `seed`.
    pub fn new(seed: u64, flow: u64) -> Self {
        let mut rng = Rng::new(seed ^ flow.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut block: Vec<u8> = Vec::with_capacity(2 * PERIOD);
        while block.len() < PERIOD {
            block.extend_from_slice(&rng.next_u64().to_le_bytes());
        }
        block.truncate(PERIOD);
        block.extend_from_within(..);
        Self { block }
    }

    /// The stream from `offset`, at least 65,521 bytes of it.
    pub fn at(&self, offset: u64) -> &[u8] {
        let start = usize::try_from(offset % PERIOD as u64).unwrap_or(0);
        self.block.get(start..).unwrap_or(&[])
    }

    /// Copies the stream from `offset` into all of `out`.
    pub fn fill(&self, mut offset: u64, out: &mut [u8]) {
        for chunk in out.chunks_mut(PERIOD) {
            if let Some(source) = self.at(offset).get(..chunk.len()) {
                chunk.copy_from_slice(source);
            }
            offset += chunk.len() as u64;
        }
    }

    /// Whether `data` is the stream at `offset`.
    pub fn matches(&self, mut offset: u64, data: &[u8]) -> bool {
        data.chunks(PERIOD).all(|chunk| {
            let same = self.at(offset).get(..chunk.len()) == Some(chunk);
            offset += chunk.len() as u64;
            same
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_matches_there_and_nowhere_near() {
        let pattern = Pattern::new(1, 2);
        let mut data = vec![0; 100_000];
        pattern.fill(123_456, &mut data);
        assert!(pattern.matches(123_456, &data));
        assert!(!pattern.matches(123_457, &data));
        assert!(!Pattern::new(1, 3).matches(123_456, &data));
        data[77_777] ^= 1;
        assert!(!pattern.matches(123_456, &data));
    }
}
