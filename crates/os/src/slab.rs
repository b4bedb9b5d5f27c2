//! Receive memory: large slabs from which packets are cut without copying. A slab is used again
//! once all its packets are gone.
//!
//! The holders of packets and [`SlabPool::IDLE_BYTES_MAX`] of idle slabs bound the memory: each
//! held packet keeps at most one slab alive. The bound on idle slabs is above the packets in flight
//! of a download over long links; a smaller pool would allocate and zero new slabs over and over.
//! Of several free slabs the one used last is taken: it may still be in the processor's cache, and
//! the others of a burst stay cold.

use std::collections::VecDeque;

use bytes::BytesMut;

/// Hands out writable windows and cuts what was written off their front.
#[derive(Debug)]
pub struct SlabPool {
    slab_bytes: usize,
    /// The slab in use; its length is what is left of it.
    current: BytesMut,
    /// Handles of used-up slabs, oldest first: reusable when no other handle shares the slab.
    spent: VecDeque<BytesMut>,
    /// Slabs made, for tests and status.
    allocated: u64,
}

impl SlabPool {
    /// The most bytes of used-up slabs kept for reuse. Chosen: 400 Mbit/s over a round trip of 300
    /// ms.
    pub const IDLE_BYTES_MAX: usize = 16 * 1024 * 1024;
    /// The most used-up slabs kept. Chosen: the search visits each of them when all are held.
    const SPENT_MAX: usize = 64;

    /// A pool of slabs of `slab_bytes`; nothing is allocated before the first use.
    pub fn new(slab_bytes: usize) -> Self {
        Self { slab_bytes, current: BytesMut::new(), spent: VecDeque::new(), allocated: 0 }
    }

    fn spent_max(&self) -> usize {
        (Self::IDLE_BYTES_MAX / self.slab_bytes.max(1)).clamp(1, Self::SPENT_MAX)
    }

    /// At least `need` writable bytes (at most the size of a slab), all of them initialised.
    pub fn window(&mut self, need: usize) -> &mut [u8] {
        debug_assert!(need <= self.slab_bytes, "a window larger than a slab");
        if self.current.len() < need {
            self.refill();
        }
        &mut self.current
    }

    /// Cuts off the first `length` bytes of the last [`Self::window`]. They stay valid while they
    /// are held.
    pub fn take(&mut self, length: usize) -> BytesMut {
        self.current.split_to(length.min(self.current.len()))
    }

    /// Slabs allocated so far.
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    #[expect(unsafe_code, reason = "reuses memory that is initialised without writing zeroes over it again")]
    fn refill(&mut self) {
        let used = std::mem::take(&mut self.current);
        if used.capacity() > 0 {
            self.spent.push_back(used);
        }
        for at in (0..self.spent.len()).rev() {
            let Some(slab) = self.spent.get_mut(at) else { break };
            slab.clear();
            if slab.try_reclaim(self.slab_bytes) {
                // SAFETY: the whole allocation was zero-initialised by
                // `BytesMut::zeroed(slab_bytes)` and nothing makes initialised bytes uninitialised
                // again; `try_reclaim` returned true, so the capacity is at least `slab_bytes`, and
                // as only an allocation of exactly that size can offer it after `clear`, the handle
                // starts at the allocation's first byte.
                unsafe { slab.set_len(self.slab_bytes) };
                self.current = self.spent.remove(at).unwrap_or_default();
                return;
            }
        }
        if self.spent.len() > self.spent_max() {
            self.spent.pop_front();
        }
        self.allocated += 1;
        self.current = BytesMut::zeroed(self.slab_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_return_when_their_packets_are_gone() {
        let mut pool = SlabPool::new(4096);
        for round in 0..1000_u32 {
            let window = pool.window(1000);
            assert!(window.len() >= 1000);
            window[..4].copy_from_slice(&round.to_be_bytes());
            let packet = pool.take(4);
            assert_eq!(*packet, round.to_be_bytes());
        }
        assert!(pool.allocated() <= 2, "{} slabs for packets that were dropped at once", pool.allocated());
    }

    /// What a burst took stays cold once its packets are gone.
    #[test]
    fn the_slab_used_last_is_used_next() {
        let mut pool = SlabPool::new(4096);
        let mut packet = || {
            let at = pool.window(4000).as_ptr().addr();
            (at, pool.take(4000))
        };
        let burst: Vec<_> = (0..10).map(|_| packet()).collect();
        let (last, _) = burst[9];
        drop(burst);
        for _ in 0..10 {
            assert_eq!(packet().0, last);
        }
    }

    /// Also those that nothing wrote to, in a slab that is used again.
    #[test]
    fn every_byte_of_a_window_is_initialised() {
        let mut pool = SlabPool::new(4096);
        for _ in 0..3 {
            assert!(pool.window(4096).iter().all(|byte| *byte == 0));
            drop(pool.take(4000));
        }
        assert_eq!(pool.allocated(), 1);
    }

    #[test]
    fn a_held_packet_keeps_its_bytes() {
        let mut pool = SlabPool::new(4096);
        let mut held = Vec::new();
        for round in 0..500_u32 {
            pool.window(2000).fill(round.to_le_bytes()[0]);
            let packet = pool.take(2000);
            if round % 10 == 0 {
                held.push((round, packet));
            }
        }
        for (round, packet) in held {
            assert!(packet.iter().all(|byte| *byte == round.to_le_bytes()[0]));
        }
        assert!(pool.spent.len() <= SlabPool::SPENT_MAX);
    }

    /// As long as they are under way, packets are held in the order in which they came.
    #[test]
    fn what_a_round_trip_holds_makes_no_new_slabs() {
        let mut pool = SlabPool::new(262_144);
        let mut held = VecDeque::new();
        for round in 0..2_000 {
            pool.window(131_072);
            held.push_back(pool.take(65_536));
            if held.len() > 160 {
                held.pop_front();
            }
            if round == 200 {
                pool.allocated = 0;
            }
        }
        assert_eq!(pool.allocated(), 0);
    }
}
