//! The counters seen on one link under one key: a sliding bitmap (RFC 6479).
//!
//! Each link has its own window. One window for all links would reject valid packets of a slow
//! link: 1 Gbit/s × 300 ms of skew are 27,000 packets.

use crate::discard::Discard;

/// Width of the window, in counters behind the newest. Chosen: 1 Gbit/s of 1,400-byte packets that
/// are reordered on one link by 90 ms.
pub const WINDOW: u64 = 8_192;

const WORD_BITS: u64 = 64;
/// Words of the bitmap: the window and one more, because the newest word is partly ahead of it.
const WORDS: usize = 8_192 / 64 + 1;

/// The window. It takes 1 KiB on the heap from the first counter on.
#[derive(Debug, Clone, Default)]
pub struct ReplayWindow {
    /// One more than the newest counter; 0: no counter yet.
    next: u64,
    bits: Option<Box<[u64; WORDS]>>,
}

impl ReplayWindow {
    /// Whether `counter` is new. To be called before the datagram is opened.
    pub fn check(&self, counter: u64) -> Result<(), Discard> {
        if counter >= self.next {
            // `next` cannot express that the largest counter was seen.
            return if counter == u64::MAX { Err(Discard::Replayed) } else { Ok(()) };
        }
        if self.next - counter > WINDOW {
            return Err(Discard::Replayed);
        }
        let (word, bit) = place(counter);
        let seen = self.bits.as_ref().and_then(|bits| bits.get(word)).is_some_and(|word| word & bit != 0);
        if seen { Err(Discard::Replayed) } else { Ok(()) }
    }

    /// The newest counter; `None`: no counter yet.
    pub const fn newest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// How many consecutive counters from `counter` downwards are seen (or not seen), within the
    /// window.
    pub fn run(&self, counter: u64, seen: bool) -> u64 {
        let Some(bits) = &self.bits else { return 0 };
        let lowest = self.next.saturating_sub(WINDOW);
        let mut at = counter;
        loop {
            let (word, bit) = place(at);
            let bits = bits.get(word).copied().unwrap_or(0);
            // The bits up to this one; a set bit is a counter whose state differs from `seen`.
            let others = if seen { !bits } else { bits } & (bit | (bit - 1));
            let word_start = at / WORD_BITS * WORD_BITS;
            if others != 0 {
                let last = word_start + u64::from(u64::BITS - 1 - others.leading_zeros());
                return (counter + 1).saturating_sub((last + 1).max(lowest));
            }
            if word_start <= lowest {
                return (counter + 1).saturating_sub(lowest);
            }
            at = word_start - 1;
        }
    }

    /// Marks `counter` as seen. The caller has checked and authenticated it. Returns whether it is
    /// the newest.
    pub fn accept(&mut self, counter: u64) -> bool {
        let bits = self.bits.get_or_insert_with(|| Box::new([0; WORDS]));
        let newest = counter >= self.next;
        if newest {
            // Words between the old newest and the new one held counters that are now behind the
            // window.
            let old = self.next.checked_sub(1).map_or(0, |old| old / WORD_BITS);
            let steps = (counter / WORD_BITS - old).min(WORDS as u64);
            for step in 1..=steps {
                let (word, _) = place((counter / WORD_BITS - steps + step) * WORD_BITS);
                if let Some(word) = bits.get_mut(word) {
                    *word = 0;
                }
            }
            self.next = counter.saturating_add(1);
        }
        let (word, bit) = place(counter);
        if let Some(word) = bits.get_mut(word) {
            *word |= bit;
        }
        newest
    }
}

/// The word and the bit of a counter.
const fn place(counter: u64) -> (usize, u64) {
    let word = (counter / WORD_BITS % WORDS as u64) as usize;
    (word, 1 << (counter % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn offer(window: &mut ReplayWindow, counter: u64) -> bool {
        let fresh = window.check(counter).is_ok();
        if fresh {
            window.accept(counter);
        }
        fresh
    }

    #[test]
    fn the_window_is_as_wide_as_it_says() {
        let mut window = ReplayWindow::default();
        for counter in 0..20_000 {
            assert!(offer(&mut window, counter));
            assert!(!offer(&mut window, counter));
        }
        let mut window = ReplayWindow::default();
        assert!(offer(&mut window, 10_000));
        assert!(!offer(&mut window, 10_000 - WINDOW));
        assert!(offer(&mut window, 10_001 - WINDOW));
        assert!(offer(&mut window, 9_999));
        assert!(!offer(&mut window, 9_999));
        assert!(offer(&mut window, u64::MAX - 1));
        assert!(!offer(&mut window, u64::MAX));
        assert!(!offer(&mut window, 10_001));
    }

    proptest! {
        /// Compares the window with a set of every counter seen.
        #[test]
        fn as_the_model(steps in proptest::collection::vec((any::<bool>(), 0u64..20_000, 0u64..300), 1..400)) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            let mut base = 0_u64;
            for (forward, far, near) in steps {
                let counter = if forward { base + far } else { base.saturating_sub(far % (WINDOW + 200)) + near };
                let newest = seen.last().copied();
                let behind = newest.is_some_and(|newest: u64| newest >= WINDOW && counter <= newest - WINDOW);
                let fresh = !behind && !seen.contains(&counter);
                prop_assert_eq!(offer(&mut window, counter), fresh, "{}", counter);
                if fresh {
                    seen.insert(counter);
                }
                base = base.max(counter);
                if let Some(newest) = window.newest() {
                    let lowest = (newest + 1).saturating_sub(WINDOW);
                    let from = newest - far % (newest - lowest + 1);
                    let model = |is: bool| {
                        (lowest..=from).rev().take_while(|at| seen.contains(at) == is).count() as u64
                    };
                    prop_assert_eq!(window.run(from, true), model(true), "seen from {}", from);
                    prop_assert_eq!(window.run(from, false), model(false), "not seen from {}", from);
                }
            }
        }
    }
}
