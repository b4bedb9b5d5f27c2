//! Percentiles of round-trip times.

use std::time::Duration;

/// The value that `permille` / 1000 of all values do not exceed (nearest rank); `None` without
/// values. The order does not matter.
pub fn percentile(values: &[Duration], permille: usize) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * permille.min(1_000)).div_ceil(1_000).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_nearest_rank() {
        let values: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 0), Some(Duration::from_millis(1)));
        assert_eq!(percentile(&values, 500), Some(Duration::from_millis(100)));
        assert_eq!(percentile(&values, 990), Some(Duration::from_millis(198)));
        assert_eq!(percentile(&values, 1_000), Some(Duration::from_millis(200)));
        assert_eq!(percentile(&[], 500), None);
    }
}
