//! The tiers of the queue, and the state that each tier has as a whole.

use std::time::Duration;

use super::flow::FlowId;
use super::wait::WaitLog;

/// The urgency of a flow's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The realtime class: sent first, over the link that delivers first.
    Realtime,
    /// Flows with little traffic: sent next, and worth waiting for the fastest link.
    Sparse,
    /// All other flows.
    Bulk,
    /// Bulk flows that the scheduler has moved to links far away, or apart. They wait in a tier of
    /// their own, as near links are free at other times than far ones.
    Far,
}

impl Tier {
    /// All tiers, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Realtime, Self::Sparse, Self::Bulk, Self::Far];

    /// Whether its flows are bulk, near or far.
    pub const fn is_bulk(self) -> bool {
        matches!(self, Self::Bulk | Self::Far)
    }

    /// The tier of a flow whose credit lasts.
    pub(super) const fn best(flow: FlowId) -> Self {
        if flow.is_realtime() { Self::Realtime } else { Self::Sparse }
    }
}

/// The packet at the head of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// The packet's flow.
    pub flow: FlowId,
    /// The packet's length.
    pub bytes: usize,
    /// The tier that it waits in.
    pub tier: Tier,
    /// Bytes waiting in this tier and the more urgent ones, this packet included. For a packet of a
    /// fresh flow, the sparse tier counts with its fresh packets only. Beside the far tier no other
    /// counts: the others' packets take near links.
    pub backlog_bytes: usize,
    /// Time since the packet arrived, deliberate waiting included.
    pub waited: Duration,
    /// How much its flow wants, and beside whom.
    pub demand: Demand,
}

/// What says whether a bulk flow is worth moving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// Bytes that came for the flow since it became bulk, interactive packets left out.
    pub bulk_bytes: u64,
    /// The flow was moved to far links and has come back: it stays.
    pub has_returned: bool,
    /// Flows with packets waiting in [`Tier::Bulk`].
    pub near_flows: usize,
    /// Flows in [`Tier::Far`], with packets waiting or not.
    pub far_flows: usize,
}

/// One tier.
#[derive(Debug, Default)]
pub(super) struct TierState {
    /// Bytes of the packets waiting in the tier.
    pub(super) bytes: usize,
    /// CoDel has passed the first packet of the first flow: that packet is the head.
    pub(super) has_head: bool,
    pub(super) waits: WaitLog,
}

/// All tiers.
#[derive(Debug, Default)]
pub(super) struct Tiers {
    realtime: TierState,
    sparse: TierState,
    bulk: TierState,
    far: TierState,
}

impl Tiers {
    pub(super) fn of(&self, tier: Tier) -> &TierState {
        match tier {
            Tier::Realtime => &self.realtime,
            Tier::Sparse => &self.sparse,
            Tier::Bulk => &self.bulk,
            Tier::Far => &self.far,
        }
    }

    pub(super) fn of_mut(&mut self, tier: Tier) -> &mut TierState {
        match tier {
            Tier::Realtime => &mut self.realtime,
            Tier::Sparse => &mut self.sparse,
            Tier::Bulk => &mut self.bulk,
            Tier::Far => &mut self.far,
        }
    }

    /// Bytes of all waiting packets.
    pub(super) fn bytes(&self) -> usize {
        self.realtime.bytes + self.sparse.bytes + self.bulk.bytes + self.far.bytes
    }
}
