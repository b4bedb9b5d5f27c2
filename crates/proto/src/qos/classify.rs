//! The class of a packet, and the flow id that follows from it.
//!
//! # Classes
//! - *realtime*: calls and games. Sent first, over the link that delivers first, and delivered at
//!   once by the receiver.
//! - *interactive*: a user waits for the answer: DNS, ICMP, TCP's SYNs and pure acknowledgements.
//!   (The first packets of any flow are treated alike: the queue gives each new flow a credit.)
//! - *bulk*: only by rule. Any other packet has no class: its flow's traffic decides its tier.
//!
//! # Realtime flows
//! The first configured rule that matches decides. Without one, or its class, any of these is
//! evidence:
//! 1. the DSCP: EF, VA (RFC 5865), CS5, AF41 to AF43, NQB (draft-ietf-tsvwg-nqb);
//! 2. the traffic: UDP, and in the last second, in four quarters, 10 to 130 packets, less than 1
//!    Mbit/s, a mean packet below 600 bytes, and in each quarter between half and twice the
//!    quarters' mean, plus or minus one packet;
//! 3. the peer sends the flow's other direction as realtime.
//!
//! A flow stays realtime for 2 s after the last evidence. More than 2 Mbit/s in a quarter of a
//! second cancels evidence 2 and 3 at once and for 4 s.
//!
//! ```text
//!                evidence                       2 s without, or over 2 Mbit/s
//!  no class ─────────────────────► realtime ─────────────────────────────────────► no class
//!               flow id + 1024                      flow id as before
//! ```
//! Realtime flows have flow ids of their own ([`super::flow::FLOW_IDS`]), so they leave no gaps in
//! the sequence of ordered packets. Of two flows that share an id, only one is watched at a time.
//!
//! # Contract
//! Constant time and memory for each packet: at most one record for each flow id, and no record
//! after 5 s without a packet. A sender that marks all packets EF gets the class; the queue bounds
//! its value. The classifier knows neither links nor the peer's abilities.

use std::sync::Arc;
use std::time::Duration;

pub use super::class::Class;
use super::flow::{FLOW_IDS, FLOWS, FlowHasher, FlowId, InnerHeader};
use super::rule::Rule;
use crate::Instant;
use crate::inner::Layout;

/// The realtime DSCPs: RFC 3246, RFC 5865, RFC 2474, RFC 2597 (three), draft-ietf-tsvwg-nqb.
const REALTIME_DSCPS: [u8; 7] = [46, 44, 40, 34, 36, 38, 45];

/// The traffic of a realtime flow within a second, in packets and bytes. Chosen from voice and
/// games: 20 to 60 ms between packets, up to 128 packets a second, and a call with a small picture
/// below 1 Mbit/s. A video stream has large packets and a download has many.
const STEADY_PKTS_MIN: u32 = 10;
const STEADY_PKTS_MAX: u32 = 130;
const STEADY_BYTES_MAX: u32 = 1_000_000 / 8;
const STEADY_MEAN_BYTES: u32 = 600;

/// The most bytes of a realtime flow in a quarter of a second: 2 Mbit/s. Chosen: twice the rate of
/// evidence 2.
const BURSTING_BYTES: u32 = 2_000_000 / 8 / 4;

/// The traffic of a flow is counted in quarters of a second. Chosen: a quarter contains at least
/// two packets of the slowest flow.
const QUARTER: Duration = Duration::from_millis(250);
const QUARTERS: usize = 4;

/// How long evidence lasts. Chosen: a pause in speech.
const HOLD: Duration = Duration::from_secs(2);
/// How long a flow that sent too much is not classified by its traffic. Chosen: longer than
/// [`HOLD`], so that the two directions cannot keep each other realtime.
const BAR: Duration = Duration::from_secs(4);
/// How long a record without packets is kept. Chosen: above [`BAR`].
const FORGET_AFTER: Duration = Duration::from_secs(5);

/// IANA protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;
/// IANA port number of DNS, over UDP and TCP.
const DNS_PORT: u16 = 53;

/// The classifier's answer for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classified {
    /// The flow; a realtime flow's id shows its class.
    pub flow: FlowId,
    /// The class; `None`: the flow's traffic decides its tier.
    pub class: Option<Class>,
}

/// Why a flow's packets have their class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassReason {
    /// The configured rule with this place in the list says so.
    Rule(usize),
    /// Their DSCP.
    Mark,
    /// The flow's traffic is that of a call or a game.
    Traffic,
    /// The peer sends the other direction as realtime.
    Peer,
    /// DNS and ICMP: a user waits for the answer.
    Service,
}

/// Packets and bytes of a quarter of a second.
#[derive(Debug, Clone, Copy, Default)]
struct Quarter {
    pkts: u32,
    bytes: u32,
}

/// The record of a flow.
#[derive(Debug)]
struct Watch {
    /// Distinguishes the flow from others with its id.
    hash: u64,
    seen: Instant,
    /// The flow is realtime until then.
    until: Instant,
    /// The last evidence was the peer's direction.
    is_inherited: bool,
    /// A rule or DSCP made it realtime until then.
    told_until: Instant,
    barred_until: Instant,
    /// The last whole quarters, oldest first, and how many of them followed the flow's last
    /// silence.
    past: [Quarter; QUARTERS],
    whole: usize,
    current: Quarter,
    current_since: Instant,
}

impl Watch {
    fn new(hash: u64, now: Instant) -> Self {
        Self {
            hash,
            seen: now,
            until: Instant::ZERO,
            is_inherited: false,
            told_until: Instant::ZERO,
            barred_until: Instant::ZERO,
            past: [Quarter::default(); QUARTERS],
            whole: 0,
            current: Quarter::default(),
            current_since: now,
        }
    }

    const fn is_realtime(&self, now: Instant) -> bool {
        now.as_nanos() < self.until.as_nanos()
    }

    /// Counts a packet, and evaluates the quarters that have ended.
    fn count(&mut self, bytes: usize, now: Instant) {
        while now.saturating_since(self.current_since) >= QUARTER {
            if now.saturating_since(self.current_since) >= QUARTER * 5 {
                // The flow was silent: its earlier traffic counts no more.
                self.whole = 0;
                self.current = Quarter::default();
                self.current_since = now;
                break;
            }
            self.past.rotate_left(1);
            if let Some(last) = self.past.last_mut() {
                *last = std::mem::take(&mut self.current);
            }
            self.current_since = self.current_since + QUARTER;
            self.whole = (self.whole + 1).min(QUARTERS);
            if now >= self.barred_until && self.is_steady() {
                self.until = self.until.max(now + HOLD);
                self.is_inherited = false;
            }
        }
        self.seen = now;
        self.current.pkts = self.current.pkts.saturating_add(1);
        self.current.bytes = self.current.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.current.bytes > BURSTING_BYTES {
            self.barred_until = now + BAR;
            self.until = self.told_until;
        }
    }

    fn is_steady(&self) -> bool {
        let sum = |of: fn(&Quarter) -> u32| self.past.iter().map(of).fold(0, u32::saturating_add);
        let (pkts, bytes) = (sum(|quarter| quarter.pkts), sum(|quarter| quarter.bytes));
        let evenly = |quarter: &Quarter| {
            // Multiplied by four, so that the mean is a whole number.
            let four = quarter.pkts.saturating_mul(4);
            four.saturating_add(4) >= pkts / 2 && four <= pkts.saturating_mul(2).saturating_add(4)
        };
        self.whole == QUARTERS
            && (STEADY_PKTS_MIN..=STEADY_PKTS_MAX).contains(&pkts)
            && bytes < STEADY_BYTES_MAX
            && bytes < pkts.saturating_mul(STEADY_MEAN_BYTES)
            && self.past.iter().all(evenly)
    }
}

/// The classifier of one session's direction.
#[derive(Debug)]
pub struct Classifier {
    hasher: FlowHasher,
    /// The last header and its hash: packets come in runs.
    latest: Option<(InnerHeader, u64)>,
    rules: Arc<[Rule]>,
    /// By flow id without a class; empty while no flow is watched.
    watches: Vec<Option<Box<Watch>>>,
    watched: usize,
    swept: Instant,
    /// Flows that a rule duplicates, one bit for each id; empty while there is no such flow.
    twice: Vec<u64>,
}

impl Classifier {
    /// A classifier without records. `seed` as for [`FlowHasher::new`].
    pub const fn new(seed: u64, rules: Arc<[Rule]>) -> Self {
        Self {
            hasher: FlowHasher::new(seed),
            latest: None,
            rules,
            watches: Vec::new(),
            watched: 0,
            swept: Instant::ZERO,
            twice: Vec::new(),
        }
    }

    /// These rules decide from now on. Flows keep their ids; a flow that was realtime by a rule
    /// stays so for two seconds.
    pub fn set_rules(&mut self, rules: Arc<[Rule]>) {
        self.rules = rules;
        // The next packet of each flow says whether a rule duplicates it.
        self.twice = Vec::new();
    }

    /// The flow and class of a packet that is about to be queued.
    pub fn classify(&mut self, header: &InnerHeader, packet: &[u8], now: Instant) -> Classified {
        self.forget_idle(now);
        let hash = self.hash(header);
        let flow = FlowHasher::flow_of(hash);
        let rule = self.rules.iter().find(|rule| rule.matches(header));
        let class = match rule.and_then(|rule| rule.class) {
            Some(class) => Some(class),
            None if REALTIME_DSCPS.contains(&header.dscp) => Some(Class::Realtime),
            None => None,
        };
        let duplicate = rule.is_some_and(|rule| rule.duplicate);
        let is_realtime = match class {
            Some(Class::Realtime) => {
                if let Some(watch) = self.watch(flow, hash, now) {
                    watch.seen = now;
                    watch.told_until = now + HOLD;
                    watch.until = watch.until.max(watch.told_until);
                }
                true
            }
            Some(Class::Interactive | Class::Bulk) => false,
            None => {
                let known = header.protocol == UDP || self.known(flow, hash).is_some();
                let watch = if known { self.watch(flow, hash, now) } else { None };
                watch.is_some_and(|watch| {
                    watch.count(packet.len(), now);
                    watch.is_realtime(now)
                })
            }
        };
        let flow = if is_realtime { flow.realtime() } else { flow };
        self.note_twice(flow, duplicate);
        if is_realtime {
            return Classified { flow, class: Some(Class::Realtime) };
        }
        let class = class.or_else(|| is_interactive(header, packet).then_some(Class::Interactive));
        Classified { flow, class }
    }

    fn hash(&mut self, header: &InnerHeader) -> u64 {
        if let Some((_, hash)) = self.latest.filter(|(known, _)| known.is_of_the_flow_of(header)) {
            return hash;
        }
        let hash = self.hasher.hash(header);
        self.latest = Some((*header, hash));
        hash
    }

    /// Notes that the peer sends a packet with this header as realtime: the opposite direction is
    /// realtime too.
    pub fn on_realtime_received(&mut self, header: &InnerHeader, now: Instant) {
        let header = header.reversed();
        let rule = self.rules.iter().find(|rule| rule.matches(&header));
        if rule.is_some_and(|rule| rule.class.is_some()) {
            return;
        }
        let hash = self.hasher.hash(&header);
        let watch = self.watch(FlowHasher::flow_of(hash), hash, now);
        if let Some(watch) = watch.filter(|watch| now >= watch.barred_until) {
            watch.is_inherited |= !watch.is_realtime(now);
            watch.seen = now;
            watch.until = watch.until.max(now + HOLD);
        }
    }

    /// The hash of the header that was classified last: it tells flows with one id apart.
    pub(crate) fn latest_hash(&self) -> u64 {
        self.latest.map_or(0, |(_, hash)| hash)
    }

    /// The flow of packets with this header, outside the realtime class; their class, and why they
    /// have it. Without a class the flow's traffic decides its tier. For figures.
    pub(crate) fn explain(
        &self,
        header: &InnerHeader,
        now: Instant,
    ) -> (FlowId, Option<(Class, ClassReason)>) {
        let hash = self.hasher.hash(header);
        let flow = FlowHasher::flow_of(hash);
        let rule = self.rules.iter().position(|rule| rule.matches(header));
        let said = rule.and_then(|at| Some((self.rules.get(at)?.class?, ClassReason::Rule(at))));
        let watch = self.known(flow, hash).filter(|watch| watch.is_realtime(now));
        let learnt = watch.map(|watch| match watch {
            Watch { told_until, .. } if now < *told_until => ClassReason::Mark,
            Watch { is_inherited: true, .. } => ClassReason::Peer,
            Watch { .. } => ClassReason::Traffic,
        });
        let is_marked = REALTIME_DSCPS.contains(&header.dscp);
        let realtime = is_marked.then_some(ClassReason::Mark).or(learnt);
        let asks = || is_asking(header).then_some((Class::Interactive, ClassReason::Service));
        (flow, said.or_else(|| realtime.map(|why| (Class::Realtime, why))).or_else(asks))
    }

    /// Whether a rule duplicates any flow over a second link.
    pub fn duplicates_any(&self) -> bool {
        !self.twice.is_empty()
    }

    /// Whether a rule duplicates the flow over a second link.
    pub fn goes_twice(&self, flow: FlowId) -> bool {
        let word = self.twice.get(flow.index() / 64);
        word.is_some_and(|word| word & (1 << (flow.index() % 64)) != 0)
    }

    /// The number of realtime flows. Walks over all flows: for statistics.
    pub fn realtime_flows(&self, now: Instant) -> usize {
        self.watches.iter().flatten().filter(|watch| watch.is_realtime(now)).count()
    }

    /// Forgets flows that are idle. [`Self::classify`] does it too.
    #[inline]
    pub fn forget_idle(&mut self, now: Instant) {
        if self.watched == 0 || now.saturating_since(self.swept) < FORGET_AFTER {
            return;
        }
        self.swept = now;
        for place in &mut self.watches {
            if place.as_ref().is_some_and(|watch| now.saturating_since(watch.seen) >= FORGET_AFTER) {
                *place = None;
                self.watched -= 1;
            }
        }
        if self.watched == 0 {
            self.watches = Vec::new();
        }
    }

    fn known(&self, flow: FlowId, hash: u64) -> Option<&Watch> {
        self.watches.get(flow.index())?.as_deref().filter(|watch| watch.hash == hash)
    }

    /// The record of a flow, created if it does not exist; `None`: another flow with its id is
    /// watched.
    fn watch(&mut self, flow: FlowId, hash: u64, now: Instant) -> Option<&mut Watch> {
        if self.watches.is_empty() {
            self.watches.resize_with(usize::from(FLOWS), || None);
            self.swept = now;
        }
        let place = self.watches.get_mut(flow.index())?;
        match place {
            Some(watch) if watch.hash != hash => {
                if now.saturating_since(watch.seen) < HOLD {
                    return None;
                }
                **watch = Watch::new(hash, now);
            }
            Some(_) => {}
            None => {
                *place = Some(Box::new(Watch::new(hash, now)));
                self.watched += 1;
            }
        }
        place.as_deref_mut()
    }

    fn note_twice(&mut self, flow: FlowId, twice: bool) {
        if self.twice.is_empty() {
            if !twice {
                return;
            }
            self.twice.resize(usize::from(FLOW_IDS) / 64, 0);
        }
        let Some(word) = self.twice.get_mut(flow.index() / 64) else { return };
        let bit = 1 << (flow.index() % 64);
        *word = if twice { *word | bit } else { *word & !bit };
    }
}

/// Whether the packet itself shows that a user waits for the answer.
fn is_interactive(header: &InnerHeader, packet: &[u8]) -> bool {
    is_asking(header) || (header.protocol == TCP && is_bare(packet) == Some(true))
}

/// The same, shown by the header alone.
fn is_asking(header: &InnerHeader) -> bool {
    match header.protocol {
        1 | 58 => true,
        UDP => {
            header.ports.is_some_and(|(source, destination)| source == DNS_PORT || destination == DNS_PORT)
        }
        _ => false,
    }
}

/// Whether a TCP segment begins a connection or is a pure acknowledgement.
fn is_bare(packet: &[u8]) -> Option<bool> {
    // RFC 9293 §3.1: flags.
    const FIN_SYN_RST: u8 = 0x07;
    const SYN: u8 = 0x02;
    let layout = Layout::of(packet).filter(|layout| !layout.is_rest)?;
    let offset = usize::from(*packet.get(layout.header_bytes + 12)? >> 4) * 4;
    let flags = *packet.get(layout.header_bytes + 13)?;
    Some(flags & SYN != 0 || (flags & FIN_SYN_RST == 0 && layout.header_bytes + offset == packet.len()))
}

/// Whether the packet's receiver needs it in order: TCP takes an overtaken packet for lost.
pub fn needs_order(packet: &[u8]) -> bool {
    Layout::of(packet).is_none_or(|layout| layout.protocol == TCP)
}

#[cfg(test)]
mod tests;
