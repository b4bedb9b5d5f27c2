//! Records by flow slot, of which the one longest without use is found at once, however many there
//! are.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct Slots<T> {
    records: BTreeMap<u16, (Instant, T)>,
    /// The listed time may be older than that of the record's last use, never newer.
    ages: BTreeSet<(Instant, u16)>,
}

impl<T: Default> Slots<T> {
    pub(super) const fn new() -> Self {
        Self { records: BTreeMap::new(), ages: BTreeSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn contains(&self, slot: u16) -> bool {
        self.records.contains_key(&slot)
    }

    /// The slot's record, without counting as a use.
    pub(super) fn get_mut(&mut self, slot: u16) -> Option<&mut T> {
        self.records.get_mut(&slot).map(|(_, record)| record)
    }

    /// The slot's record, made if it is not there; it is used now.
    pub(super) fn used(&mut self, slot: u16, now: Instant) -> &mut T {
        let ages = &mut self.ages;
        let (used, record) = self.records.entry(slot).or_insert_with(|| {
            ages.insert((now, slot));
            (now, T::default())
        });
        *used = now;
        record
    }

    /// Takes the record that was longest without use.
    pub(super) fn pop_oldest(&mut self) -> Option<T> {
        while let Some((listed, slot)) = self.ages.pop_first() {
            match self.records.get(&slot) {
                Some((used, _)) if *used > listed => self.ages.insert((*used, slot)),
                Some(_) | None => return self.records.remove(&slot).map(|(_, record)| record),
            };
        }
        None
    }

    /// Takes a record that was last used at `until` or before.
    pub(super) fn pop_unused(&mut self, until: Instant) -> Option<T> {
        while let Some(&(listed, slot)) = self.ages.first()
            && listed <= until
        {
            self.ages.pop_first();
            match self.records.get(&slot) {
                Some((used, _)) if *used > until => self.ages.insert((*used, slot)),
                Some(_) | None => return self.records.remove(&slot).map(|(_, record)| record),
            };
        }
        None
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.records.values().map(|(_, record)| record)
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.ages.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(1_000_000 * ms)
    }

    #[test]
    fn the_one_longest_without_use_goes_first() {
        let mut slots = Slots::<u32>::new();
        for slot in 0..4 {
            *slots.used(slot, at(u64::from(slot))) = u32::from(slot);
        }
        slots.used(0, at(10));
        assert_eq!(slots.pop_unused(at(0)), None, "0 was used since");
        assert_eq!(slots.pop_oldest(), Some(1));
        assert_eq!(slots.pop_unused(at(9)), Some(2));
        assert_eq!(slots.pop_unused(at(9)), Some(3));
        assert_eq!(slots.pop_unused(at(9)), None);
        assert_eq!((slots.len(), slots.pop_oldest(), slots.pop_oldest()), (1, Some(0), None));
        assert!(slots.is_empty());
    }
}
