//! The flows that a queue knows, each on exactly one of its lists.
//!
//! A flow with waiting packets is on the list of its tier. A flow in the sparse tier is on the list
//! of fresh flows instead, from its first packet until that packet leaves. A flow without packets
//! is on the idle list, in the order of falling idle. After [`FORGET_AFTER`] on the idle list the
//! flow is forgotten and only an empty table entry remains; when no flow is left, the table is
//! freed too. The lists are linked through the flows: moving a flow is O(1), and the order never
//! depends on hashing.

use std::collections::VecDeque;
use std::time::Duration;

use super::codel::CoDel;
use super::credit::Credit;
use super::flow::{FlowId, QUEUES};
use super::tier::Tier;
use crate::{Instant, PacketBuf};

/// How long a flow without packets is remembered and counts as active. TCP restarts with an initial
/// window after about as long a pause (RFC 5681 §4.1).
const FORGET_AFTER: Duration = Duration::from_secs(1);

/// Packets for which an idle flow keeps room. Chosen: the segments of one super-packet, so that a
/// flow that runs empty between bursts does not allocate for each.
const IDLE_CAPACITY_PKTS: usize = 64;

/// A packet that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) packet: PacketBuf,
    pub(super) arrived: Instant,
}

/// One flow's queue and state.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) packets: VecDeque<Waiting>,
    /// Payload of `packets`.
    pub(super) bytes: usize,
    pub(super) tier: Tier,
    /// DRR: what the flow may still send in this round; below zero it owes.
    pub(super) deficit_bytes: i64,
    pub(super) codel: CoDel,
    pub(super) credit: Credit,
    /// See [`super::tier::Demand`].
    pub(super) bulk_bytes: u64,
    pub(super) has_returned: bool,
    place: Place,
    prev: Option<FlowId>,
    next: Option<FlowId>,
    idle_since: Instant,
}

impl Flow {
    /// Whether its first packet is the first since it last had none, in the sparse tier.
    pub(super) fn is_fresh(&self) -> bool {
        self.place == Place::Fresh
    }

    /// Whether no other flow is on its list.
    pub(super) fn is_alone(&self) -> bool {
        self.prev.is_none() && self.next.is_none()
    }
}

/// The list that a flow is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Fresh,
    Tier(Tier),
    Idle,
}

#[derive(Debug, Clone, Copy, Default)]
struct List {
    first: Option<FlowId>,
    last: Option<FlowId>,
    count: usize,
}

/// All flows that have packets or had some lately.
#[derive(Debug, Default)]
pub(super) struct FlowTable {
    /// By flow id; empty while no flow is known.
    slots: Vec<Option<Box<Flow>>>,
    count: usize,
    /// Of them in the realtime class.
    realtime: usize,
    /// And in the far tier, on its list or idle.
    far_count: usize,
    urgent: List,
    fresh: List,
    sparse: List,
    bulk: List,
    far: List,
    idle: List,
    /// Before this time no flow has been idle long enough to be forgotten.
    forget_at: Instant,
}

impl FlowTable {
    /// How many flows are known.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many of them are in the realtime class.
    pub(super) fn realtime_count(&self) -> usize {
        self.realtime
    }

    /// How many flows of a tier have packets; fresh ones left out.
    pub(super) fn waiting_count(&self, tier: Tier) -> usize {
        self.list(Place::Tier(tier)).count
    }

    /// How many of the known flows are in the far tier.
    pub(super) fn far_count(&self) -> usize {
        self.far_count
    }

    pub(super) fn flow(&self, id: FlowId) -> Option<&Flow> {
        self.slots.get(id.index())?.as_deref()
    }

    pub(super) fn flow_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.slots.get_mut(id.index())?.as_deref_mut()
    }

    /// A flow that is on a list, so there must be one.
    pub(super) fn listed_mut(&mut self, id: FlowId) -> &mut Flow {
        self.flow_mut(id).expect("a listed flow is in the table")
    }

    /// The first of the fresh flows.
    pub(super) fn first_fresh(&self) -> Option<FlowId> {
        self.fresh.first
    }

    /// The first flow of a tier's list: of the sparse ones that are not fresh.
    pub(super) fn first(&self, tier: Tier) -> Option<FlowId> {
        self.list(Place::Tier(tier)).first
    }

    /// The flows of a tier, the fresh ones first, in the lists' order.
    pub(super) fn iter(&self, tier: Tier) -> impl Iterator<Item = (FlowId, &Flow)> + '_ {
        let fresh = self.fresh.first.filter(|_| tier == Tier::Sparse);
        self.walk(fresh).chain(self.walk(self.first(tier)))
    }

    fn walk(&self, mut next: Option<FlowId>) -> impl Iterator<Item = (FlowId, &Flow)> + '_ {
        std::iter::from_fn(move || {
            let id = next?;
            let flow = self.flow(id)?;
            next = flow.next;
            Some((id, flow))
        })
    }

    /// The flow `id`; a new one is in the best tier of its class, idle, and has a new flow's
    /// credit.
    ///
    /// # Panics
    /// When `id` is not below [`QUEUES`].
    pub(super) fn flow_or_new(&mut self, id: FlowId, now: Instant) -> &mut Flow {
        assert!(id.0 < QUEUES, "a queue's number is below QUEUES");
        if self.flow(id).is_none() {
            let flow = Flow {
                packets: VecDeque::new(),
                bytes: 0,
                tier: Tier::best(id),
                deficit_bytes: 0,
                codel: CoDel::default(),
                credit: Credit::new(now),
                bulk_bytes: 0,
                has_returned: false,
                place: Place::Idle,
                prev: None,
                next: None,
                idle_since: now,
            };
            if self.slots.is_empty() {
                self.slots.resize_with(usize::from(QUEUES), || None);
            }
            if let Some(slot) = self.slots.get_mut(id.index()) {
                *slot = Some(Box::new(flow));
            }
            self.count += 1;
            self.realtime += usize::from(id.is_realtime());
            self.append(id, Place::Idle);
        }
        self.listed_mut(id)
    }

    /// Puts a flow that gets its first packet in the sparse tier at the end of the fresh ones.
    pub(super) fn move_to_fresh(&mut self, id: FlowId) {
        self.unlink(id);
        self.set_tier(id, Tier::Sparse);
        self.append(id, Place::Fresh);
    }

    /// Puts a flow that has packets at the end of its tier's list.
    pub(super) fn move_to_tier(&mut self, id: FlowId, tier: Tier) {
        self.unlink(id);
        self.set_tier(id, tier);
        self.append(id, Place::Tier(tier));
    }

    fn set_tier(&mut self, id: FlowId, tier: Tier) {
        let flow = self.listed_mut(id);
        let before = std::mem::replace(&mut flow.tier, tier);
        self.far_count -= usize::from(before == Tier::Far);
        self.far_count += usize::from(tier == Tier::Far);
    }

    /// Puts a flow that has run empty at the end of the idle list.
    pub(super) fn move_to_idle(&mut self, id: FlowId, now: Instant) {
        self.unlink(id);
        let flow = self.listed_mut(id);
        flow.idle_since = now;
        flow.codel.on_empty();
        flow.packets.shrink_to(IDLE_CAPACITY_PKTS);
        self.append(id, Place::Idle);
    }

    /// Forgets the flows that have been idle for long.
    #[inline]
    pub(super) fn forget_idle(&mut self, now: Instant) {
        // Asked several times for each packet.
        if now >= self.forget_at {
            self.forget_idle_anew(now);
        }
    }

    #[inline(never)]
    fn forget_idle_anew(&mut self, now: Instant) {
        // What has become idle since is so from now on.
        self.forget_at = now + FORGET_AFTER;
        while let Some(id) = self.idle.first {
            let until = self.listed_mut(id).idle_since + FORGET_AFTER;
            if now < until {
                self.forget_at = until;
                return;
            }
            self.unlink(id);
            if let Some(flow) = self.slots.get_mut(id.index()).and_then(Option::take) {
                self.far_count -= usize::from(flow.tier == Tier::Far);
            }
            self.count -= 1;
            self.realtime -= usize::from(id.is_realtime());
            if self.count == 0 {
                self.slots = Vec::new();
            }
        }
    }

    /// Table entries held in memory.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    fn list(&self, place: Place) -> &List {
        match place {
            Place::Fresh => &self.fresh,
            Place::Tier(Tier::Realtime) => &self.urgent,
            Place::Tier(Tier::Sparse) => &self.sparse,
            Place::Tier(Tier::Bulk) => &self.bulk,
            Place::Tier(Tier::Far) => &self.far,
            Place::Idle => &self.idle,
        }
    }

    fn list_mut(&mut self, place: Place) -> &mut List {
        match place {
            Place::Fresh => &mut self.fresh,
            Place::Tier(Tier::Realtime) => &mut self.urgent,
            Place::Tier(Tier::Sparse) => &mut self.sparse,
            Place::Tier(Tier::Bulk) => &mut self.bulk,
            Place::Tier(Tier::Far) => &mut self.far,
            Place::Idle => &mut self.idle,
        }
    }

    fn append(&mut self, id: FlowId, place: Place) {
        let list = self.list_mut(place);
        list.count += 1;
        let last = list.last.replace(id);
        match last {
            Some(last) => self.listed_mut(last).next = Some(id),
            None => self.list_mut(place).first = Some(id),
        }
        let flow = self.listed_mut(id);
        flow.place = place;
        flow.prev = last;
        flow.next = None;
    }

    fn unlink(&mut self, id: FlowId) {
        let flow = self.listed_mut(id);
        let (place, prev, next) = (flow.place, flow.prev, flow.next);
        self.list_mut(place).count -= 1;
        match prev {
            Some(prev) => self.listed_mut(prev).next = next,
            None => self.list_mut(place).first = next,
        }
        match next {
            Some(next) => self.listed_mut(next).prev = prev,
            None => self.list_mut(place).last = prev,
        }
    }
}
