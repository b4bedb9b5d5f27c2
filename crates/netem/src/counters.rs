//! Counters of a pipe. Every packet offered is delivered, dropped for a reason, or still inside.

/// Counters of one pipe since its start. At any time
/// `offered_pkts + duplicated_pkts ==
/// delivered_pkts + drops.total_pkts() + queue_pkts + in_flight_pkts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets given to `enqueue`.
    pub offered_pkts: u64,
    /// The bytes of those packets.
    pub offered_bytes: u64,
    /// Packets taken by `poll_deliver`.
    pub delivered_pkts: u64,
    /// The bytes of those packets.
    pub delivered_bytes: u64,
    /// Packets that have used the link's rate: delivered since, in flight, or lost on the way.
    pub carried_pkts: u64,
    /// The bytes of those packets.
    pub carried_bytes: u64,
    /// Copies made by duplication.
    pub duplicated_pkts: u64,
    /// Packets dropped, by reason.
    pub drops: Drops,
    /// Packets that wait or are being serialised.
    pub queue_pkts: u64,
    /// The bytes of those packets.
    pub queue_bytes: u64,
    /// The most bytes that were ever in the queue.
    pub queue_bytes_max: u64,
    /// Packets that travel: serialised and not yet delivered.
    pub in_flight_pkts: u64,
}

/// Dropped packets by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drops {
    /// The queue was full.
    pub queue_full_pkts: u64,
    /// Lost at random after using the link's capacity.
    pub loss_pkts: u64,
    /// Offered to a failed link, or inside it when it failed.
    pub outage_pkts: u64,
    /// Larger than the link's MTU.
    pub mtu_pkts: u64,
    /// Above the policer's rate and burst.
    pub police_pkts: u64,
}

impl Drops {
    /// All drops.
    pub const fn total_pkts(&self) -> u64 {
        self.queue_full_pkts + self.loss_pkts + self.outage_pkts + self.mtu_pkts + self.police_pkts
    }
}
