//! From an inner packet's header to its flow.
//!
//! What makes a flow:
//! - addresses, protocol and, for TCP, UDP, UDP-Lite, DCCP and SCTP, both ports;
//! - a fragment is hashed without ports, the first one too: only the first fragment carries them,
//!   and all fragments of a datagram must stay in one flow or the bond itself would reorder them;
//! - a packet with more than [`EXTENSION_HEADERS_MAX`] extension headers has no ports, which is
//!   coarser but still a flow.
//!
//! The hash is keyed (SipHash-1-3): a sender who does not know the key cannot choose addresses and
//! ports so that its flows collide with another user's. Two flows that do share a [`FlowId`] share
//! a queue and a sequence; that costs fairness between the two, never order (RFC 8290 §5.3 gives
//! the odds: with 100 flows and 1024 queues, 91 % have a queue of their own).
//!
//! Deliberately unknown here: the IPv6 flow label (hosts may change it in the middle of a
//! connection, and a flow must not move), what the packet is for.
//!
//! Source: SipHash (Aumasson and Bernstein, 2012).

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::position::StreamId;

pub(crate) use crate::inner::header::length;
pub use crate::inner::header::{EXTENSION_HEADERS_MAX, InnerHeader, parse};

/// The number of flow ids of flows that are kept in order, including the reserved id 0. Chosen:
/// with 100 flows, 91 % have a queue of their own (RFC 8290 §5.3).
pub const FLOWS: u16 = 1024;

/// The number of flow ids. Those from [`FLOWS`] on belong to realtime flows, [`FLOWS`] above the id
/// that the flow would have otherwise. Packets that are delivered at once therefore share neither
/// queue nor sequence with packets that are kept in order.
pub const FLOW_IDS: u16 = 2 * FLOWS;

/// The number of queues: those of packets, and as many for streams as for flows that are kept in
/// order, above the slots of acknowledgements.
pub(crate) const QUEUES: u16 = 4 * FLOWS;

/// Names a flow's queue and its slot in the frame: `1..FLOWS`, plus [`FLOWS`] for a realtime flow.
/// 0 is reserved for the one sequence of a peer without flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u16);

impl FlowId {
    /// The flow's place in tables.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The same flow in the realtime class.
    pub const fn realtime(self) -> Self {
        Self(self.0 % FLOWS + FLOWS)
    }

    /// The same flow outside the realtime class.
    pub(crate) const fn ordinary(self) -> Self {
        Self(self.0 % FLOWS)
    }

    /// Whether the flow is in the realtime class.
    pub const fn is_realtime(self) -> bool {
        self.0 >= FLOWS && self.0 < FLOW_IDS
    }

    /// The queue of a stream. Its pieces have numbers of their own, and no slot.
    pub(crate) const fn of_stream(stream: StreamId) -> Self {
        Self(QUEUES - FLOWS + stream.number() / 2 % (FLOWS - 1))
    }

    /// The queue of messages about streams: none waits for a stream's bytes.
    pub(crate) const MESSAGES: Self = Self(QUEUES - 1);

    /// Whether it is a stream's queue.
    pub const fn is_stream(self) -> bool {
        self.0 >= QUEUES - FLOWS
    }

    /// The slot of the flow's pure acknowledgements. It is no flow's own slot: all of them are
    /// above [`FLOW_IDS`].
    pub const fn acks(self) -> Self {
        Self(self.0 % FLOWS + FLOW_IDS)
    }
}

/// Maps headers to flow ids with a keyed hash.
#[derive(Clone, Copy)]
pub struct FlowHasher {
    keys: (u64, u64),
}

impl FlowHasher {
    /// A hasher whose mapping depends on `seed` alone. The seed must be random for each session and
    /// stay private.
    pub const fn new(seed: u64) -> Self {
        // Two different halves from one seed; the constant is the fraction of the golden ratio.
        Self { keys: (seed, seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15) }
    }

    /// The flow of packets with this header, in the range without a class.
    pub fn flow(&self, header: &InnerHeader) -> FlowId {
        Self::flow_of(self.hash(header))
    }

    /// The flow id of a hash.
    pub(super) fn flow_of(hash: u64) -> FlowId {
        let spread = hash % u64::from(FLOWS - 1);
        FlowId(1 + u16::try_from(spread).unwrap_or(0))
    }

    /// The hash that distinguishes this flow from others with its id.
    pub(super) fn hash(&self, header: &InnerHeader) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.keys.0, self.keys.1);
        for address in [header.source, header.destination] {
            match address {
                IpAddr::V4(address) => hasher.write(&address.octets()),
                IpAddr::V6(address) => hasher.write(&address.octets()),
            }
        }
        // The input differs in length between the families, and between headers with and without
        // ports. SipHash covers the length, so different kinds of header have different inputs.
        hasher.write(&[header.protocol]);
        if let Some((source, destination)) = header.ports {
            hasher.write(&source.to_be_bytes());
            hasher.write(&destination.to_be_bytes());
        }
        hasher.finish()
    }
}

impl fmt::Debug for FlowHasher {
    /// Hides the key: a reader of a log must not be able to make flows collide.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowHasher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
