//! The Internet checksum: from scratch (RFC 1071) and mended (RFC 1624).

/// One's complement addition.
pub(crate) fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // Cannot overflow again: after a carry the sum is at most 0xfffe.
    sum + u16::from(carry)
}

/// The one's complement sum of `bytes`, a last odd byte padded with zero, on top of `start`.
pub(crate) fn sum(start: u16, bytes: &[u8]) -> u16 {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let sum = pairs.iter().fold(start, |sum, pair| add(sum, u16::from_be_bytes(*pair)));
    odd.first().map_or(sum, |last| add(sum, u16::from_be_bytes([*last, 0])))
}

/// The checksum `old` after one word that it covers changed: RFC 1624 eqn. 3. A wrong one stays wrong.
pub(crate) fn update(old: u16, before: u16, after: u16) -> u16 {
    !add(add(!old, !before), after)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;

    proptest! {
        #[test]
        fn sums_agree_with_another_way_to_add(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
            // Both zeros are one number; ours never turns a sum that is not zero into zero.
            prop_assert_eq!(sum(0, &bytes), samples::sum(&[&bytes]));
        }

        #[test]
        fn an_update_is_as_good_as_a_new_sum(mut words in proptest::collection::vec(any::<u8>(), 4..60), at: usize, new: [u8; 2]) {
            words.truncate(words.len() / 2 * 2);
            words[0] |= 1;
            let at = (at % (words.len() / 2 - 1) + 1) * 2;
            let before = u16::from_be_bytes([words[at], words[at + 1]]);
            let old = !sum(0, &words);
            words[at..at + 2].copy_from_slice(&new);
            prop_assert_eq!(update(old, before, u16::from_be_bytes(new)), !sum(0, &words));
        }
    }
}
