//! What of a row of numbered datagrams is under way, undelivered, and to be answered: found a word
//! at a time, so that a frame that names thousands of known datagrams costs a few words.
//!
//! The log of what was sent keeps each datagram's fate; this is an index of it. It knows no time.

use std::collections::VecDeque;
use std::ops::Range;

/// Words of an idle link, whose last datagrams lie in one or two. Chosen: memory of idle sessions.
const IDLE_WORDS: usize = 2;

/// A bit for each of 64 numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Word {
    undelivered: u64,
    underway: u64,
    asks: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Marks {
    words: VecDeque<Word>,
    /// Which word is the front: its first number divided by 64.
    front: u64,
}

impl Marks {
    /// The datagram of this number, above all before it, is under way.
    #[inline]
    pub(super) fn push(&mut self, number: u64, asks: bool) {
        let (word, bit) = place(number);
        if self.words.is_empty() {
            self.front = word;
        }
        while self.front + self.words.len() as u64 <= word {
            if self.words.len() < IDLE_WORDS {
                self.words.reserve_exact(1);
            }
            self.words.push_back(Word::default());
        }
        if let Some(word) = self.word_mut(word) {
            word.undelivered |= bit;
            word.underway |= bit;
            word.asks |= if asks { bit } else { 0 };
        }
    }

    pub(super) fn on_delivered(&mut self, number: u64) {
        let (word, bit) = place(number);
        if let Some(word) = self.word_mut(word) {
            word.undelivered &= !bit;
            word.underway &= !bit;
        }
    }

    pub(super) fn on_lost(&mut self, number: u64) {
        let (word, bit) = place(number);
        if let Some(word) = self.word_mut(word) {
            word.underway &= !bit;
        }
    }

    /// The numbers below this are forgotten.
    pub(super) fn forget_below(&mut self, number: u64) {
        let (first, bit) = place(number);
        while self.front < first && self.words.pop_front().is_some() {
            self.front += 1;
        }
        if let Some(word) = self.word_mut(first) {
            let kept = !(bit - 1);
            *word = Word {
                undelivered: word.undelivered & kept,
                underway: word.underway & kept,
                asks: word.asks & kept,
            };
        }
    }

    /// Gives back memory that an idle link does not need.
    pub(super) fn shrink(&mut self) {
        self.words.shrink_to(IDLE_WORDS);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The lowest of these numbers that is not delivered; the words looked at are added to
    /// `touched`.
    pub(super) fn undelivered(&self, among: Range<u64>, touched: &mut u64) -> Option<u64> {
        self.first(among, touched, |word| word.undelivered)
    }

    /// The same for those whose fate is open.
    pub(super) fn underway(&self, among: Range<u64>, touched: &mut u64) -> Option<u64> {
        self.first(among, touched, |word| word.underway)
    }

    /// The lowest number from `from` on that asks for an answer.
    pub(super) fn asking(&self, from: u64) -> Option<u64> {
        self.first(from..u64::MAX, &mut 0, |word| word.asks)
    }

    /// The same of those whose fate is open.
    pub(super) fn waiting(&self, from: u64) -> Option<u64> {
        self.first(from..u64::MAX, &mut 0, |word| word.asks & word.underway)
    }

    #[inline]
    fn first(&self, among: Range<u64>, touched: &mut u64, of: impl Fn(&Word) -> u64) -> Option<u64> {
        let (first, bit) = place(among.start);
        let skipped = usize::try_from(first.saturating_sub(self.front)).ok()?;
        // Numbers below the front are forgotten: nothing is to be cut off then.
        let mut cut = if first < self.front { 0 } else { bit - 1 };
        let start = first.max(self.front);
        for (number, word) in (start..).zip(self.words.iter().skip(skipped)) {
            if number.saturating_mul(64) >= among.end {
                return None;
            }
            *touched += 1;
            let bits = of(word) & !std::mem::take(&mut cut);
            if bits != 0 {
                let found = number * 64 + u64::from(bits.trailing_zeros());
                return Some(found).filter(|found| *found < among.end);
            }
        }
        None
    }

    fn word_mut(&mut self, word: u64) -> Option<&mut Word> {
        let at = usize::try_from(word.checked_sub(self.front)?).ok()?;
        self.words.get_mut(at)
    }
}

/// The word and the bit of a number.
const fn place(number: u64) -> (u64, u64) {
    (number / 64, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compares with a map of the numbers and their marks: undelivered, under way, asks.
        #[test]
        fn as_the_model(steps in proptest::collection::vec((0_u8..5, 0_u64..300, 0_u64..200), 1..300)) {
            let (mut marks, mut model) = (Marks::default(), BTreeMap::new());
            let (mut first, mut end) = (1_000_u64, 1_000_u64);
            for (kind, one, other) in steps {
                let number = first + one % (end - first).max(1);
                match kind {
                    0 | 1 => {
                        marks.push(end, other % 3 == 0);
                        model.insert(end, (true, true, other % 3 == 0));
                        end += 1;
                    }
                    2 => {
                        marks.on_delivered(number);
                        model.entry(number).and_modify(|it| (it.0, it.1) = (false, false));
                    }
                    3 => {
                        marks.on_lost(number);
                        model.entry(number).and_modify(|it| it.1 = false);
                    }
                    _ => {
                        first = number.min(end);
                        marks.forget_below(first);
                        model.retain(|number, _| *number >= first);
                    }
                }
                let among = number.saturating_sub(other)..number + other;
                let mut touched = 0;
                let model_of = |is: fn(&(bool, bool, bool)) -> bool| {
                    model.range(among.clone()).find(|(_, it)| is(it)).map(|(number, _)| *number)
                };
                prop_assert_eq!(marks.undelivered(among.clone(), &mut touched), model_of(|it| it.0));
                prop_assert_eq!(marks.underway(among.clone(), &mut touched), model_of(|it| it.1));
                let from = |is: fn(&(bool, bool, bool)) -> bool| {
                    model.range(among.start..).find(|(_, it)| is(it)).map(|(number, _)| *number)
                };
                prop_assert_eq!(marks.asking(among.start), from(|it| it.2));
                prop_assert_eq!(marks.waiting(among.start), from(|it| it.1 && it.2));
                prop_assert!(touched <= 2 * (2 * other / 64 + 2), "{} words", touched);
            }
        }
    }
}
