//! Receiver indices: the server's numbers for keys, in clear in every sealed datagram.
//!
//! The lower bits of an index are its place in a table; the upper bits are random. A lookup is one
//! access, and a freed index does not match its successor in the same place.

use super::session_id::SessionId;

/// Bits of the place: 2^20 keys. A session has at most five keys.
const PLACE_BITS: u32 = 20;

/// The table.
#[derive(Debug, Default)]
pub(super) struct IndexTable {
    entries: Vec<Option<(u32, SessionId)>>,
    free: Vec<u32>,
}

impl IndexTable {
    /// A new index for a session; `random` makes it differ from earlier indices of its place.
    /// `None`: the table is full.
    pub(super) fn insert(&mut self, id: SessionId, random: u32) -> Option<u32> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let place =
                    u32::try_from(self.entries.len()).ok().filter(|place| *place >> PLACE_BITS == 0)?;
                self.entries.push(None);
                place
            }
        };
        let index = (random << PLACE_BITS) | place;
        *self.entries.get_mut(usize::try_from(place).ok()?)? = Some((index, id));
        Some(index)
    }

    /// The session of the key with this index.
    pub(super) fn lookup(&self, index: u32) -> Option<SessionId> {
        let (known, id) = self.entries.get(place(index))?.as_ref()?;
        (*known == index).then_some(*id)
    }

    /// Frees an index.
    pub(super) fn remove(&mut self, index: u32) {
        if self.lookup(index).is_some()
            && let Some(entry) = self.entries.get_mut(place(index))
        {
            *entry = None;
            self.free.push(index & ((1 << PLACE_BITS) - 1));
        }
    }

    /// Frees all indices of a session.
    pub(super) fn remove_session(&mut self, id: SessionId) {
        let its = self.entries.iter().flatten().filter(|(_, owner)| *owner == id).map(|(index, _)| *index);
        for index in its.collect::<Vec<_>>() {
            self.remove(index);
        }
    }
}

const fn place(index: u32) -> usize {
    (index & ((1 << PLACE_BITS) - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_its_session_until_it_is_given_back() {
        let mut table = IndexTable::default();
        let a = table.insert(SessionId(1), 7).unwrap();
        let b = table.insert(SessionId(2), 7).unwrap();
        assert_ne!(a, b);
        assert_eq!((table.lookup(a), table.lookup(b)), (Some(SessionId(1)), Some(SessionId(2))));
        assert_eq!(table.lookup(a ^ (1 << 31)), None);
        table.remove(a);
        table.remove(a);
        assert_eq!(table.lookup(a), None);
        let c = table.insert(SessionId(3), 8).unwrap();
        assert_eq!((table.lookup(a), table.lookup(c)), (None, Some(SessionId(3))));
        table.remove_session(SessionId(2));
        assert_eq!(table.lookup(b), None);
    }
}
