//! The oracle at both ends of the bond: a packet that enters leaves at most once, unchanged, and in
//! order.
//!
//! A packet is identified by a hash of its bytes without the fields that may change on the way:
//! ECN, and so the IPv4 header's checksum; a SYN's options, and so the TCP checksum. Hosts give
//! every packet its own identification, so equal packets do not occur within any relevant time. The
//! ledger does not know links, sequence numbers or frames.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bonding_proto::Instant;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::inet::{self, FlowKey};

/// TCP's protocol number, and the offsets of its flags and checksum in a segment (RFC 9293 §3.1).
const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const SYN: u8 = 0x02;

/// A flow with larger packets, in bytes, is not taken for a call or a game.
const REALTIME_MEAN_BYTES: u64 = 600;

/// A packet inside the bond.
#[derive(Debug, Clone, Copy)]
struct Inside {
    flow: FlowKey,
    number: u64,
    since: Instant,
    sent: Option<(usize, Instant)>,
    arrived: Option<Instant>,
}

/// One packet's path through the bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// The packet's flow.
    pub flow: FlowKey,
    /// The packet's number in the flow, from 1.
    pub number: u64,
    /// When the packet entered.
    pub entered: Instant,
    /// The link that carried it last, and when it was sent; `None`: dropped by the bond.
    pub sent: Option<(usize, Instant)>,
    /// When the link delivered it; `None`: lost on the link.
    pub arrived: Option<Instant>,
    /// When the packet left; `None`: never.
    pub left: Option<Instant>,
    /// The packet left behind a later one of its flow.
    pub late: bool,
}

/// The order within one flow.
#[derive(Debug, Default)]
struct FlowOrder {
    entered: u64,
    bytes: u64,
    newest_out: Option<u64>,
}

impl FlowOrder {
    /// Whether the bond may take the flow for a call or a game, whose packets it delivers at once
    /// and in any order.
    fn may_be_realtime(&self, flow: &FlowKey) -> bool {
        flow.protocol == UDP && self.bytes < self.entered * REALTIME_MEAN_BYTES
    }
}

/// The counters of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedgerCounts {
    /// Packets that entered.
    pub entered: u64,
    /// Packets that left, each for the first time.
    pub left: u64,
    /// Packets that left and never entered, or whose checksums are wrong.
    pub corrupt: u64,
    /// Packets that left more than once.
    pub duplicates: u64,
    /// Packets that left behind a later one of their flow, except of flows that may be calls or
    /// games.
    pub reordered: u64,
    /// The longest time inside the bond.
    pub delay_max: Duration,
}

/// One direction's ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    inside: HashMap<u64, Inside>,
    gone: HashSet<u64>,
    flows: BTreeMap<FlowKey, FlowOrder>,
    counts: LedgerCounts,
    log: Option<Vec<Passage>>,
    log_from: Instant,
}

/// Whether it is an ICMP error "fragmentation needed" or "packet too big" (RFC 792, RFC 4443).
fn is_too_big(packet: &[u8]) -> bool {
    match packet {
        [0x45, ..] => packet.get(9) == Some(&1) && packet.get(20..22) == Some(&[3, 4]),
        [first, ..] => first >> 4 == 6 && packet.get(6) == Some(&58) && packet.get(40) == Some(&2),
        [] => false,
    }
}

fn name_of(packet: &[u8]) -> u64 {
    let Some((header, rest)) = packet.split_first_chunk::<20>() else {
        return xxh3_64(packet);
    };
    let mut header = *header;
    // The second byte's low bits are ECN; bytes 10 and 11 the header's checksum.
    header[1] &= !3;
    header[10] = 0;
    header[11] = 0;
    let seed = xxh3_64(&header);
    match rest.get(TCP_FLAGS) {
        Some(flags) if header[9] == TCP && flags & SYN != 0 => {
            xxh3_64_with_seed(rest.get(..TCP_CHECKSUM).unwrap_or(rest), seed)
        }
        _ => xxh3_64_with_seed(rest, seed),
    }
}

impl Inside {
    fn passage(&self, left: Option<Instant>, late: bool) -> Passage {
        let Self { flow, number, since: entered, sent, arrived } = *self;
        Passage { flow, number, entered, sent, arrived, left, late }
    }
}

impl Ledger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a packet that enters.
    pub fn enter(&mut self, packet: &[u8], now: Instant) {
        self.counts.entered += 1;
        let Some(flow) = FlowKey::of(packet) else { return };
        let order = self.flows.entry(flow).or_default();
        order.entered += 1;
        order.bytes += packet.len() as u64;
        let name = name_of(packet);
        self.gone.remove(&name);
        self.inside
            .insert(name, Inside { flow, number: order.entered, since: now, sent: None, arrived: None });
    }

    /// Logs every packet that enters at `from` or later; see [`Self::take_log`].
    pub fn keep_log(&mut self, from: Instant) {
        self.log = Some(Vec::new());
        self.log_from = from;
    }

    /// The log: all packets that left, are inside, or were lost, in the order of entering.
    pub fn take_log(&mut self) -> Vec<Passage> {
        let mut log = self.log.take().unwrap_or_default();
        log.extend(self.inside.values().map(|inside| inside.passage(None, false)));
        log.retain(|passage| passage.entered >= self.log_from);
        log.sort_unstable_by_key(|passage| (passage.entered, passage.flow, passage.number));
        log
    }

    /// Notes that `link` carries the inner packet. Does nothing without a log.
    pub fn sent(&mut self, packet: &[u8], link: usize, now: Instant) {
        if self.log.is_some()
            && let Some(inside) = self.inside.get_mut(&name_of(packet))
        {
            inside.sent = Some((link, now));
        }
    }

    /// Notes that the inner packet's link delivered it. Does nothing without a log.
    pub fn arrived(&mut self, packet: &[u8], now: Instant) {
        if self.log.is_some()
            && let Some(inside) = self.inside.get_mut(&name_of(packet))
        {
            inside.arrived = Some(now);
        }
    }

    /// Notes a packet that leaves.
    pub fn leave(&mut self, packet: &[u8], now: Instant) {
        let name = name_of(packet);
        let Some(inside) = self.inside.remove(&name) else {
            if self.gone.contains(&name) {
                self.counts.duplicates += 1;
            } else if is_too_big(packet) {
                // The bond's own answer to a packet that it does not carry.
            } else {
                self.counts.corrupt += 1;
            }
            return;
        };
        self.gone.insert(name);
        if !inet::checksums_hold(packet) {
            self.counts.corrupt += 1;
            return;
        }
        self.counts.left += 1;
        self.counts.delay_max = self.counts.delay_max.max(now - inside.since);
        let order = self.flows.entry(inside.flow).or_default();
        let late = order.newest_out.is_some_and(|newest| inside.number < newest);
        self.counts.reordered += u64::from(late && !order.may_be_realtime(&inside.flow));
        order.newest_out = order.newest_out.max(Some(inside.number));
        if let Some(log) = &mut self.log {
            log.push(inside.passage(Some(now), late));
        }
    }

    /// The counters.
    pub fn counts(&self) -> LedgerCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inet::{CLIENT, SERVER, UdpEnd, stamp_ident, udp_packet};

    fn packet(ident: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = udp_packet(UdpEnd::new(CLIENT, 1), UdpEnd::new(SERVER, 2), 2, payload);
        stamp_ident(&mut packet, ident);
        packet
    }

    #[test]
    fn it_tells_duplicates_corruption_and_disorder_apart() {
        let mut ledger = Ledger::new();
        let now = Instant::ZERO;
        let same = [7; 1_000];
        let (a, b, c) = (packet(1, &same), packet(2, &same), packet(3, &same));
        for each in [&a, &b, &c] {
            ledger.enter(each, now);
        }
        ledger.leave(&b, now);
        ledger.leave(&a, now);
        ledger.leave(&b, now);
        let mut bad = c.clone();
        *bad.last_mut().unwrap() ^= 1;
        ledger.leave(&bad, now);
        let counts = ledger.counts();
        assert_eq!((counts.entered, counts.left), (3, 2));
        assert_eq!((counts.reordered, counts.duplicates, counts.corrupt), (1, 1, 1));
    }

    /// A game prefers the newest packet to the order.
    #[test]
    fn the_order_of_small_datagrams_is_not_checked() {
        let mut ledger = Ledger::new();
        let (a, b) = (packet(1, b"first"), packet(2, b"second"));
        ledger.enter(&a, Instant::ZERO);
        ledger.enter(&b, Instant::ZERO);
        ledger.leave(&b, Instant::ZERO);
        ledger.leave(&a, Instant::ZERO);
        assert_eq!((ledger.counts().left, ledger.counts().reordered), (2, 0));
    }

    #[test]
    fn a_congestion_mark_is_no_corruption() {
        let mut ledger = Ledger::new();
        let plain = packet(1, b"x");
        ledger.enter(&plain, Instant::ZERO);
        let mut marked = udp_packet(UdpEnd::new(CLIENT, 1), UdpEnd::new(SERVER, 2), 3, b"x");
        stamp_ident(&mut marked, 1);
        ledger.leave(&marked, Instant::ZERO);
        assert_eq!((ledger.counts().left, ledger.counts().corrupt), (1, 0));
    }
}
