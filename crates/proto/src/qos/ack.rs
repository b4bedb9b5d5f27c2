//! Superseded acknowledgements of TCP.
//!
//! An acknowledgement is cumulative: a newer one of the same connection contains all that an older
//! one said. In the queue a newer one therefore takes the place of an older one ([`super::queue`]
//! says when). At the receiver no acknowledgement waits for another: they go in slots of their own
//! and are delivered at once. Measured: docs/decisions/0074-acknowledgements.md.
//!
//! # The rule
//! It uses only what a router can know for certain, as Linux's CAKE does (`cake_ack_filter`).
//! `newer` takes the place of `older` if
//! - both are whole TCP segments without payload, over IP without options or extension headers,
//!   with the same addresses, ports, traffic class and sequence number (a keep-alive probe has one
//!   less);
//! - both have the flag ACK, and AE, CWR and ECE are the same in both: a change of these is a
//!   message of its own (RFC 3168 §6.1, RFC 9768). No other flag and no reserved bit is set;
//! - the only options are selective acknowledgements and timestamps, and the timestamps are in
//!   order;
//! - `newer` acknowledges more, or as much and more selectively. Equal acknowledgements all stay,
//!   because TCP without selective acknowledgements counts them as duplicates; so do changes of the
//!   window alone;
//! - `newer` acknowledges, in either way, all that `older` acknowledges selectively. An `older` one
//!   that reports a duplicate stays (RFC 2883: its first block begins below its acknowledgement).
//!
//! Contract: total on any bytes, constant time, no memory. It does not know checksums, flows or
//! time. A wrong checksum harms its own sender only: the receiver drops that segment, and the
//! acknowledgement that it replaced is gone.
//!
//! Sources: RFC 9293 §3.1; RFC 2018 §3; RFC 2883 §4; RFC 7323 §3.2; `net/sched/sch_cake.c`.

use crate::inner::Layout;

/// IANA protocol number.
const TCP: u8 = 6;

/// RFC 9293 §3.1: the flag ACK.
const ACK: u8 = 0x10;
/// RFC 9293 §3.1 with RFC 3168: the flags CWR and ECE.
const ECN: u8 = 0xc0;
/// RFC 9768 §2: the reserved bits beside the data offset, without AE.
const RESERVED: u8 = 0x0e;

/// Option kinds: RFC 9293 §3.1, RFC 2018 §2 and §3, RFC 7323 §3.2.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// The most bytes of such a packet: IPv6's header and the largest TCP header.
pub(super) const ACK_BYTES_MAX: usize = 40 + 60;

/// Whether `older` may be dropped in favour of `newer`, which was sent after it.
pub(super) fn supersedes(newer: &[u8], older: &[u8]) -> bool {
    let (Some(newer), Some(older)) = (PureAck::of(newer), PureAck::of(older)) else { return false };
    newer.supersedes(&older)
}

/// Whether `newer` is an acknowledgement that says all that `older` says, and acknowledges more,
/// without selective acknowledgements.
pub(super) fn advances(newer: &[u8], older: &[u8]) -> bool {
    let (Some(newer), Some(older)) = (PureAck::of(newer), PureAck::of(older)) else { return false };
    newer.blocks.is_empty() && newer.ack != older.ack && newer.supersedes(&older)
}

/// What a pure acknowledgement acknowledges; `None`: it is none.
pub(super) fn number(packet: &[u8]) -> Option<u32> {
    PureAck::of(packet).map(|ack| ack.ack)
}

/// Whether a packet is a pure acknowledgement, which a newer one can supersede. It does no harm if
/// it overtakes other packets, including data of its own connection (RFC 9293 §3.10.7.4).
pub(crate) fn is_pure(packet: &[u8]) -> bool {
    // Most packets are not acknowledgements, and these two checks reject them soonest.
    let protocol_at = if packet.first().is_some_and(|first| first >> 4 == 4) { 9 } else { 6 };
    packet.len() <= ACK_BYTES_MAX && packet.get(protocol_at) == Some(&TCP) && PureAck::of(packet).is_some()
}

/// The compared fields of an acknowledgement.
#[derive(Debug, PartialEq, Eq)]
struct PureAck<'a> {
    /// IP version and traffic class, and the addresses.
    class: [u8; 2],
    addresses: &'a [u8],
    /// Ports and sequence number.
    fixed: [u8; 8],
    ack: u32,
    /// Offset with AE, and the flags.
    flags: [u8; 2],
    sent_at: Option<u32>,
    blocks: &'a [[u8; 8]],
}

impl<'a> PureAck<'a> {
    fn of(packet: &'a [u8]) -> Option<Self> {
        let layout = Layout::of(packet)?;
        let (class, addresses) = match layout {
            // Neither IP options nor fragments.
            Layout { version: 4, header_bytes: 20, .. }
                if packet.get(6)? & 0x3f == 0 && *packet.get(7)? == 0 =>
            {
                ([*packet.first()?, *packet.get(1)?], packet.get(12..20)?)
            }
            Layout { version: 6, header_bytes: 40, .. } => {
                ([*packet.first()?, packet.get(1)? & 0xf0], packet.get(8..40)?)
            }
            _ => return None,
        };
        let segment = packet.get(layout.header_bytes..).filter(|_| layout.protocol == TCP)?;
        let (header, options) = segment.split_first_chunk::<20>()?;
        let [
            ports_0,
            ports_1,
            ports_2,
            ports_3,
            seq_0,
            seq_1,
            seq_2,
            seq_3,
            ack @ ..,
            offset,
            flags,
            _,
            _,
            _,
            _,
            _,
            _,
        ] = *header;
        let is_pure = segment.len() == usize::from(offset >> 4) * 4;
        if !is_pure || offset & RESERVED != 0 || flags & !ECN != ACK {
            return None;
        }
        let (sent_at, blocks) = read_options(options)?;
        Some(Self {
            class,
            addresses,
            fixed: [ports_0, ports_1, ports_2, ports_3, seq_0, seq_1, seq_2, seq_3],
            ack: u32::from_be_bytes(ack),
            // The length of the options may differ.
            flags: [offset & 0x0f, flags],
            sent_at,
            blocks,
        })
    }

    fn supersedes(&self, older: &Self) -> bool {
        let is_same = (self.class, self.addresses, self.fixed, self.flags)
            == (older.class, older.addresses, older.fixed, older.flags);
        let is_in_order = match (self.sent_at, older.sent_at) {
            (Some(newer), Some(older)) => is_at_least(newer, older),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        is_same
            && is_in_order
            && is_at_least(self.ack, older.ack)
            && !older.reports_a_duplicate()
            && older.blocks.iter().all(|block| self.covers(block))
            && (self.ack != older.ack || !self.blocks.iter().all(|block| older.covers(block)))
    }

    fn covers(&self, block: &[u8; 8]) -> bool {
        let (start, end) = ends(block);
        let is_within = |other: &[u8; 8]| {
            let (from, until) = ends(other);
            is_at_least(start, from) && is_at_least(until, end)
        };
        is_at_least(self.ack, end) || self.blocks.iter().any(is_within)
    }

    fn reports_a_duplicate(&self) -> bool {
        self.blocks.iter().any(|block| !is_at_least(ends(block).0, self.ack))
    }
}

/// The timestamp and the blocks; `None` if there is another option, or a malformed one.
fn read_options(mut options: &[u8]) -> Option<(Option<u32>, &[[u8; 8]])> {
    let (mut sent_at, mut blocks): (_, &[[u8; 8]]) = (None, &[]);
    while let Some((&kind, rest)) = options.split_first() {
        if kind == END {
            break;
        }
        if kind == NO_OPERATION {
            options = rest;
            continue;
        }
        let bytes = usize::from(*rest.first()?);
        let value = options.get(2..bytes)?;
        match kind {
            TIMESTAMPS => {
                sent_at = Some(u32::from_be_bytes(*value.first_chunk::<4>().filter(|_| value.len() == 8)?))
            }
            SACK => blocks = Some(value.as_chunks::<8>()).filter(|(_, more)| more.is_empty())?.0,
            _ => return None,
        }
        options = options.get(bytes..)?;
    }
    Some((sent_at, blocks))
}

fn ends(block: &[u8; 8]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = *block;
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// Compared in the arithmetic of sequence numbers (RFC 9293 §3.4).
fn is_at_least(number: u32, other: u32) -> bool {
    number.wrapping_sub(other) < 1 << 31
}

#[cfg(test)]
pub(super) mod tests;
