//! Held packets by counter. Counters between them take no memory and no work, however many they
//! are.
//!
//! Packets are in *pages* of [`PER_PAGE`] places, sorted; a page without packets is not there. In
//! ordinary traffic pages follow each other without a gap, so the page of a counter is found at
//! once. Otherwise it is searched for, and a page that comes between others moves those on its
//! shorter side: numbers and addresses only, of at most as many pages as there are packets.

use std::collections::VecDeque;

use crate::packet::LinkId;
use crate::time::Instant;

/// Counters of a page. Chosen: a page's header and allocation are little for each packet of a run,
/// and a page that holds one packet takes less than a kilobyte.
const PER_PAGE: u64 = 16;

/// One packet that waits, in memory of its own size: never a view into a receive buffer.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) data: Box<[u8]>,
    pub(super) is_partial: bool,
    /// `None`: no link carried it.
    pub(super) link: Option<LinkId>,
    pub(super) at: Instant,
}

type Slots = [Option<Held>; u16::BITS as usize];

/// The packets whose counters, divided by [`PER_PAGE`], are `number`.
#[derive(Debug)]
struct Page {
    number: u64,
    /// A bit for each packet that is there; at least one.
    there: u16,
    slots: Box<Slots>,
}

const _: () = assert!(PER_PAGE == u16::BITS as u64, "a place and a bit for each counter");

impl Page {
    /// The lowest counter that is there.
    fn first(&self) -> u64 {
        self.number * PER_PAGE + u64::from(self.there.trailing_zeros())
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Places {
    pages: VecDeque<Page>,
    packets: usize,
    /// The lowest and the highest counter held, if there are any.
    first: u64,
    last: u64,
    /// An empty page, kept to save allocations.
    spare: Option<Box<Slots>>,
}

impl Places {
    pub(super) const fn len(&self) -> usize {
        self.packets
    }

    /// The lowest counter held.
    pub(super) const fn first(&self) -> Option<u64> {
        if self.packets > 0 { Some(self.first) } else { None }
    }

    /// The counter above the highest one held.
    pub(super) const fn end(&self) -> Option<u64> {
        if self.packets > 0 { Some(self.last + 1) } else { None }
    }

    /// The packet with the lowest counter.
    pub(super) fn first_held(&self) -> Option<&Held> {
        let (_, place) = split(self.first);
        self.pages.front()?.slots.get(place)?.as_ref()
    }

    /// Adds the packet that `make` makes, and gives how many pages were moved; `None`: the counter
    /// is held already.
    pub(super) fn insert(&mut self, counter: u64, make: impl FnOnce() -> Held) -> Option<usize> {
        let (number, place) = split(counter);
        let (at, moved) = match self.find(number) {
            Ok(at) => (at, 0),
            Err(at) => {
                let slots = self.spare.take().unwrap_or_default();
                self.pages.insert(at, Page { number, there: 0, slots });
                (at, at.min(self.pages.len() - 1 - at))
            }
        };
        let page = self.pages.get_mut(at)?;
        let slot = page.slots.get_mut(place)?;
        if slot.is_some() {
            return None;
        }
        *slot = Some(make());
        page.there |= 1 << place;
        if self.packets == 0 {
            (self.first, self.last) = (counter, counter);
        } else {
            (self.first, self.last) = (self.first.min(counter), self.last.max(counter));
        }
        self.packets += 1;
        Some(moved)
    }

    /// Takes the packet with the lowest counter.
    pub(super) fn pop_first(&mut self) -> Option<Held> {
        let (_, place) = split(self.first);
        let page = self.pages.front_mut()?;
        let held = page.slots.get_mut(place)?.take()?;
        page.there &= !(1 << place);
        self.packets -= 1;
        if page.there == 0 {
            self.spare = self.pages.pop_front().map(|page| page.slots);
        }
        if let Some(page) = self.pages.front() {
            self.first = page.first();
        }
        Some(held)
    }

    /// Removes all packets; keeps little memory.
    pub(super) fn clear(&mut self) {
        /// Chosen: a burst of a thousand packets needs no new memory for the list of pages.
        const PAGES_KEPT: usize = 64;
        self.pages.clear();
        self.pages.shrink_to(PAGES_KEPT);
        self.packets = 0;
    }

    /// What pages take.
    pub(super) fn memory_bytes(&self) -> usize {
        let boxes = self.pages.len() + usize::from(self.spare.is_some());
        boxes * size_of::<Slots>() + self.pages.len() * size_of::<Page>()
    }

    /// Where the page is, or where it belongs.
    fn find(&self, number: u64) -> Result<usize, usize> {
        let Some(front) = self.pages.front() else { return Err(0) };
        let Some(ahead) = number.checked_sub(front.number) else { return Err(0) };
        let pages = self.pages.len();
        let dense = usize::try_from(ahead).unwrap_or(usize::MAX);
        if let Some(page) = self.pages.get(dense)
            && page.number == number
        {
            return Ok(dense);
        }
        // What is new comes last as a rule.
        if self.pages.back().is_some_and(|page| page.number < number) {
            return Err(pages);
        }
        self.pages.binary_search_by_key(&number, |page| page.number)
    }
}

/// Page and place of a counter.
#[inline]
const fn split(counter: u64) -> (u64, usize) {
    (counter / PER_PAGE, (counter % PER_PAGE) as usize)
}
