//! The one queue ahead of all links: FQ-CoDel with three tiers.
//!
//! # Rules
//! **Flows.** Each flow has its own FIFO. Within a tier, deficit round robin gives every flow with packets
//! the same number of bytes (RFC 8290 §4.1 and §4.2; a quantum per round).
//!
//! **Tiers.** A flow is *sparse* while its packets are covered by its credit (a burst of 15 kB when new, then
//! min(1 Mbit/s, half of its fair share); the `credit` module has the rule in full) and while no more than
//! one such burst of it waits. The packet that breaks one of the two makes the flow *bulk*, with everything
//! that it has waiting. It is sparse again when its queue has run empty and half a burst has been earned, or
//! when it was idle for a second. A flow is in one tier at a time, so changing tier never reorders it.
//!
//! RFC 8290's own lists of new and old flows are not used: a flow that answers at 50 packets/s is on the old
//! list most of the time, behind every bulk flow. That costs little on one link. Here it decides which
//! packets deserve to wait for the fastest link, and which may go over a slow one, so it must not hang on a
//! packet's luck.
//!
//! **Fresh flows.** Within the sparse tier, the first packet of a flow that had none waiting goes before all flows that have a
//! backlog, and nothing but such packets counts as ahead of it when the scheduler asks what waits. Sparse flows together may want more than the link
//! that they all prefer carries: then those who want least of it do not wait for the others' round. (Lab, `reference`: the acknowledgements of
//! four downloads are four sparse flows with 7.6 of the first link's 10 Mbit/s. A round of theirs took 10 to 14 ms, and one echo
//! in five waited for it.) Others are not starved by that: what their flows hold is bounded by the burst, beyond which they are bulk.
//!
//! A flow of the *realtime* class has a tier of its own, above both, while its credit lasts: an equal share of half of the drain
//! rate, saved up for 100 ms. What exceeds that makes it bulk, by the same rules, so marking everything realtime gains nothing.
//! A packet of the *interactive* class earns its flow credit up to half of the fair share, without the limit of 1 Mbit/s: the stream
//! of acknowledgements for a fast download stays sparse. A flow that a rule makes *bulk* is never sparse.
//!
//! The caller serves the tiers in that order. That cannot starve bulk flows: credit keeps all realtime flows together at or below half
//! of the drain rate, and all sparse ones, beyond the new flows' pool, at or below three quarters of what these leave.
//!
//! **Delay.** CoDel (RFC 8289) watches each flow, in both tiers. `target` is never below one and a half times
//! what an MTU takes at the drain rate, and `interval` never below two targets (as in Linux's CAKE): on a
//! slow link a queue of two packets is not congestion. Nor is `interval` below two round trips of the slowest link in use (with the one for which
//! resends stop a flow on lossy links) and one target: that is how long it takes until the queue shows what a signal did (to the receiver and back, and once around with a queue that is now short of
//! target), and what a second signal before that cuts, it cuts for nothing. (Lab, `bursts`, one upload: 92.4, 88.6 and 92.9 % of the attainable with 100 ms, 93.2,
//! 92.8 and 92.5 % with it. Simulated, smoltcp: reference 91.8 and 96.1 %, starlink 86.3 and 91.6 %, lossy-3 57.0 and 56.2 %; QUIC: varying 82.3 and 86.7 %, lossy-3 84.0
//! and 82.9 %; others as before. Without the round of resending most flows over `lossy-3` were signalled twice for one queue, and what was left of their window filled the
//! links to four fifths: simulated, QUIC 82.9 and 83.3 %, 85.0 and 85.6 % with it.) Sparse flows need it too: they build no queue of their
//! own doing, but when the links stall or shrink under them they have one, and their senders must be told. No
//! other time limit applies to them: what a stalled sparse flow can hold is bounded by the burst, and CoDel
//! never takes its last packet, so a thin flow (voice, DNS) loses nothing to it.
//!
//! Links of different delay add their spread (the slowest's delay less the fastest's, or the round trip for which resends stop a flow on lossy links,
//! if that is more; at most 60 ms) to `target`. Up
//! to there a packet loses nothing by waiting: over the fastest link it still arrives before one that leaves
//! now over the slowest. A scheduler that fills links in the order of their delay needs that backlog before it adds
//! the slow ones, and flows in the sparse tier do not wait behind it. (Simulated without: the slow link of 50 Mbit/s at
//! 20 ms + 20 Mbit/s at 100 ms was used to 40 %, as CoDel emptied the queue that would have filled it.)
//!
//! Links that vary add to it in the same way, instead of the spread where that is less: half a second times how far, on average, what they carry is
//! from its mean of a second. A flow that was told to slow down in a dip takes seconds to come back, and the links grow faster than
//! that. What it keeps waiting is what fills them meanwhile. Sparse flows do not wait behind it. (Simulated, `varying`, four QUIC
//! flows, share of what the links offer: 83.6 % without, 90.9 % with; of smoltcp 68.2 and 76.2 %. The sparse flow's median 54 and 56 ms.)
//!
//! Links that failed within half a minute and were in use add to it likewise: the time that the others take for what would fill them, so that a
//! flow has it ready when they are back. A flow that was cut to what one of two links carries needs seconds to grow again. (Lab, `failover`, one flow
//! of cubic: both links were used to 95 % after 5.5 s and more, after 1.6 s with it, both ways.)
//!
//! While a link's rate is still being found out, the drain rate doubles with each round trip: the queue that a flow in slow
//! start builds meanwhile goes by itself, and a signal would end its slow start at a fraction of what the links carry. `target` and
//! `interval` are then at least `STARTING_TARGET`. (Simulated, one QUIC flow over the reference links: 63 % of the attainable
//! with CoDel as usual.)
//!
//! **Acknowledgements.** A pure acknowledgement of TCP takes the place of the last packet of its flow where that is an acknowledgement that it makes
//! needless (`ack` has the rule) and not the flow's first; that is counted as `ack_superseded`. So two of each flow wait at
//! most, however little the preferred link carries, and downloads are clocked by what it carries. (Lab, `reference`, four downloads: their acknowledgements
//! want 11.8 Mbit/s of the first link's 10. They waited up to 52 ms, on and off, so that data came in bursts and links idled between: 96.3 to 97.6 % of
//! the attainable, 98.8 and 98.9 % with it. `asymmetric`, where that link carries 1 Mbit/s up, one download: 73.0 and 97.8 %.)
//!
//! **Signals.** Where the packet is ECT, the signal is a CE mark instead of a drop (RFC 8290 §4.2, RFC 3168);
//! a mark is counted, not a discard.
//!
//! **Memory.** Each packet counts its length and [`PACKET_OVERHEAD_BYTES`]. Beyond `bytes_max`, packets are
//! dropped from the head of the flow that holds the most, up to 64 at a time and at most half of what it
//! holds (RFC 8290 §4.1 and Linux's `fq_codel_drop`): the search for that flow is the only walk over all
//! flows on the packet path. A queue without packets keeps a second's memory of its flows, then nothing.
//! Packets cut from one larger buffer keep all of it alive until the last is gone; that is not counted. They
//! are of one flow and leave in order, so it is at most one such buffer per flow.
//!
//! # Contract
//! [`Queue::head`] shows a packet and [`Queue::pop`] removes the one that was shown. CoDel judges a packet
//! once, when it becomes the head, as Linux does when a shaper peeks into `fq_codel`. From then on the head
//! of a tier changes only through `pop`, through a push that overflows the queue, through a push that
//! makes the head's flow bulk, or through one that makes a flow fresh.
//!
//! Time must not run backwards; if it does, nothing worse happens than that spans count as zero.
//!
//! Deliberately unknown: links, which link a packet will take, what a flow is (it is given an id).

use std::time::Duration;

use super::ack::{ACK_BYTES_MAX, supersedes};
use super::classify::Class;
use super::codel::{Params, Verdict};
use super::credit::Pool;
use super::ecn;
use super::flow::FlowId;
use super::table::{Flow, FlowTable, Waiting};
use super::wait::WaitLog;
use crate::discard::DiscardCounts;
use crate::units::BitRate;
use crate::{Discard, Instant, PacketBuf};

/// What a waiting packet costs beside its bytes: 48 for its place in the flow's queue, twice that because a
/// growing queue doubles, and 48 for the reference count and the allocator's headers.
pub const PACKET_OVERHEAD_BYTES: usize = 144;

const _: () = assert!(2 * size_of::<Waiting>() + 48 <= PACKET_OVERHEAD_BYTES);

/// Ours: a link that is slower by more is not filled at the price of everybody's queue.
const DELAY_SPREAD_MAX: Duration = Duration::from_millis(60);

/// Ours: a path that takes longer is controlled as if it took so long.
const ROUND_MAX: Duration = Duration::from_millis(300);

/// Ours: what is acceptable while rates double.
const STARTING_TARGET: Duration = Duration::from_millis(250);

/// RFC 8290 §4.1: packets dropped at a time when the queue is full, so that a flood does not search for
/// the fattest flow once per packet.
const DROP_BATCH_PKTS: usize = 64;

/// How urgent a flow's packets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The realtime class: ahead of everything, and worth the link that delivers first.
    Realtime,
    /// Little traffic: to be sent first, and worth waiting for the fastest link.
    Sparse,
    /// Everything else.
    Bulk,
}

impl Tier {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Realtime, Self::Sparse, Self::Bulk];

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
    /// The tier it waits in.
    pub tier: Tier,
    /// Bytes waiting in this tier and the more urgent ones, this packet included; of a fresh flow's packet, those of such
    /// packets alone.
    pub backlog_bytes: usize,
    /// Time since the packet arrived, deliberate waiting included.
    pub waited: Duration,
}

/// The queue's constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Bound on the memory held by waiting packets, overhead included.
    pub bytes_max: usize,
    /// CoDel: the delay that is acceptable for good.
    pub target: Duration,
    /// CoDel: for how long it must be exceeded before a flow is told; about the RTT of the inner flows.
    pub interval: Duration,
    /// DRR: bytes per flow and round; also what counts as one MTU. At least 1.
    pub quantum: usize,
}

impl Default for QueueConfig {
    /// RFC 8290 §5.2's interval and quantum; 8 MiB: 200 ms at 300 Mbit/s. The target is three times the RFC's: what waits here
    /// delays its own flow only, and a single cubic flow needs 0.43 of its RTT to lose nothing at a drop. Lab, one flow over
    /// 50 Mbit/s at 30 ms, three alternating runs: 96.7 % of the attainable at 5 ms, 98.8 % at 15 ms, a sparse flow's
    /// RTT the same.
    fn default() -> Self {
        Self {
            bytes_max: 8 * 1024 * 1024,
            target: Duration::from_millis(15),
            interval: Duration::from_millis(100),
            quantum: 1514,
        }
    }
}

#[derive(Debug, Default)]
struct TierState {
    /// Payload waiting in this tier.
    bytes: usize,
    /// CoDel has passed the first packet of the first flow: it is the head.
    is_settled: bool,
    waits: WaitLog,
}

/// The queue. See the module's head for its rules.
#[derive(Debug)]
pub struct Queue {
    config: QueueConfig,
    params: Params,
    drain_rate: Option<BitRate>,
    delay_spread: Duration,
    round: Duration,
    is_starting: bool,
    pool: Pool,
    table: FlowTable,
    realtime: TierState,
    sparse: TierState,
    /// Of those in the sparse tier, the first packets of fresh flows.
    fresh_bytes: usize,
    bulk: TierState,
    count_pkts: usize,
    marked_pkts: u64,
    discards: DiscardCounts,
}

impl Queue {
    /// An empty queue that does not know its drain rate yet.
    pub fn new(config: QueueConfig) -> Self {
        let config = QueueConfig { quantum: config.quantum.max(1), ..config };
        Self {
            config,
            params: params(&config, None, Duration::ZERO, Duration::ZERO, false),
            drain_rate: None,
            delay_spread: Duration::ZERO,
            round: Duration::ZERO,
            is_starting: false,
            pool: Pool::new(None),
            table: FlowTable::default(),
            realtime: TierState::default(),
            sparse: TierState::default(),
            fresh_bytes: 0,
            bulk: TierState::default(),
            count_pkts: 0,
            marked_pkts: 0,
            discards: DiscardCounts::default(),
        }
    }

    /// Takes a packet of a class in; `None`: what it sends decides. A flow of the realtime class says so by its id. When the queue is full, the fattest flow loses its oldest packets, which may
    /// include this one; that is counted and still `Ok`.
    ///
    /// # Errors
    /// [`Discard::QueueFull`], already counted here: the packet alone is larger than the queue.
    ///
    /// # Panics
    /// When `flow` is not below [`super::flow::FLOW_IDS`].
    pub fn push(
        &mut self,
        flow: FlowId,
        class: Option<Class>,
        packet: PacketBuf,
        now: Instant,
    ) -> Result<(), Discard> {
        let bytes = packet.len();
        if bytes.saturating_add(PACKET_OVERHEAD_BYTES) > self.config.bytes_max {
            self.discards.count(Discard::QueueFull);
            return Err(Discard::QueueFull);
        }
        if let Some(packet) = self.follow(flow, class, packet, now) {
            self.table.forget_idle(now);
            if let Some(packet) = self.take_place(flow, packet, now) {
                let tier = self.admit(flow, class, bytes, now);
                let queue = self.table.listed_mut(flow);
                queue.packets.push_back(Waiting { packet, arrived: now });
                queue.bytes += bytes;
                self.tier_mut(tier).bytes += bytes;
                self.count_pkts += 1;
            }
        }
        while self.memory_bytes() > self.config.bytes_max {
            self.drop_from_fattest(now);
        }
        Ok(())
    }

    /// Puts a packet behind one of its flow, which is bulk and whose credit was looked at in this very moment: what was cut from one
    /// super-packet comes so, and all that [`Self::admit`] would do for another of it is to take what credit is left. Else the packet
    /// comes back.
    fn follow(
        &mut self,
        id: FlowId,
        class: Option<Class>,
        packet: PacketBuf,
        now: Instant,
    ) -> Option<PacketBuf> {
        // What a realtime flow may save up changes.
        let is_apart = id.is_realtime() || packet.len() <= ACK_BYTES_MAX;
        let follows = |flow: &&mut Flow| {
            flow.tier == Tier::Bulk && !flow.packets.is_empty() && flow.credit.has_earned(now)
        };
        let Some(flow) = self.table.flow_mut(id).filter(|_| !is_apart).filter(follows) else {
            return Some(packet);
        };
        let bytes = packet.len();
        if class != Some(Class::Bulk) {
            // It is bulk already.
            let _ = flow.credit.try_spend(bytes, &mut self.pool, now);
        }
        flow.packets.push_back(Waiting { packet, arrived: now });
        flow.bytes += bytes;
        self.bulk.bytes += bytes;
        self.count_pkts += 1;
        None
    }

    /// Puts an acknowledgement in the place of the one before it that it makes needless, where that is not its flow's first
    /// packet. Else the packet comes back.
    fn take_place(&mut self, id: FlowId, packet: PacketBuf, now: Instant) -> Option<PacketBuf> {
        let flow =
            self.table.flow_mut(id).filter(|flow| flow.packets.len() > 1 && packet.len() <= ACK_BYTES_MAX);
        let Some(flow) = flow else { return Some(packet) };
        let last = flow.packets.back_mut().filter(|last| supersedes(&packet, &last.packet));
        let Some(last) = last else { return Some(packet) };
        let (bytes, less_bytes, tier) = (packet.len(), last.packet.len(), flow.tier);
        *last = Waiting { packet, arrived: now };
        flow.bytes = flow.bytes - less_bytes + bytes;
        let state = self.tier_mut(tier);
        state.bytes = state.bytes - less_bytes + bytes;
        self.discards.count(Discard::AckSuperseded);
        None
    }

    /// The packet that is next in `tier`. Does not remove it; the same packet is shown again until then (the
    /// module's head names the exceptions). May drop or mark packets ahead of it.
    pub fn head(&mut self, tier: Tier, now: Instant) -> Option<Queued> {
        self.table.forget_idle(now);
        let id = self.settle(tier, now)?;
        let flow = self.table.flow(id)?;
        let waiting = flow.packets.front()?;
        let backlog_bytes = match tier {
            Tier::Realtime => self.realtime.bytes,
            Tier::Sparse if flow.is_fresh() => self.realtime.bytes + self.fresh_bytes,
            Tier::Sparse => self.realtime.bytes + self.sparse.bytes,
            Tier::Bulk => self.bytes(),
        };
        Some(Queued {
            flow: id,
            bytes: waiting.packet.len(),
            tier,
            backlog_bytes,
            waited: now.saturating_since(waiting.arrived),
        })
    }

    /// Removes the packet that [`Self::head`] shows.
    pub fn pop(&mut self, tier: Tier, now: Instant) -> Option<(FlowId, PacketBuf)> {
        let id = self.settle(tier, now)?;
        let packet = self.remove_first(id, now)?;
        self.tier_mut(tier).waits.end(now);
        // A flow that ran empty starts its next round with a fresh quantum anyway.
        let flow = self.table.listed_mut(id);
        flow.deficit_bytes = flow.deficit_bytes.saturating_sub(signed(packet.len()));
        Some((id, packet))
    }

    /// `tier` waits on purpose for a faster link from `from` until `until`: CoDel does not count that time.
    /// May be reported ahead, in pieces, repeatedly and with overlaps, but in the order of time; a `pop` ends
    /// a wait that was reported ahead.
    pub fn on_deliberate_wait(&mut self, tier: Tier, from: Instant, until: Instant) {
        self.tier_mut(tier).waits.add(from, until);
    }

    /// The sum of the links' rates; `None` or zero while it is not known. `is_starting`: one of them is in use and still grows.
    pub fn set_drain_rate(&mut self, rate: Option<BitRate>, is_starting: bool) {
        self.drain_rate = rate.filter(|rate| rate.as_bps() > 0);
        self.is_starting = is_starting;
        self.update_params();
        self.pool.set_drain_rate(self.drain_rate);
    }

    fn update_params(&mut self) {
        self.params = params(&self.config, self.drain_rate, self.delay_spread, self.round, self.is_starting);
    }

    /// How much longer the slowest link in use takes than the fastest, and its round-trip time (the module's head says what for).
    pub fn set_delays(&mut self, spread: Duration, round: Duration) {
        self.delay_spread = spread.min(DELAY_SPREAD_MAX);
        self.round = round.min(ROUND_MAX);
        self.update_params();
    }

    /// Forgets the flows that have been idle for a second. [`Self::push`] and [`Self::head`] do it too; call it
    /// now and then while the queue is empty, so that the last flows go as well.
    pub fn forget_idle(&mut self, now: Instant) {
        self.table.forget_idle(now);
    }

    /// Whether no packet waits.
    pub fn is_empty(&self) -> bool {
        self.count_pkts == 0
    }

    /// Bytes of waiting packets, without overhead.
    pub fn bytes(&self) -> usize {
        self.realtime.bytes + self.sparse.bytes + self.bulk.bytes
    }

    /// Flows that have packets waiting or had some within the second before [`Self::forget_idle`] was last done.
    pub fn flows_active(&self) -> usize {
        self.table.count()
    }

    /// How long the oldest packet has waited. Walks over the flows that have packets: for statistics, not for
    /// every packet.
    pub fn oldest_wait(&self, now: Instant) -> Duration {
        Tier::ALL
            .into_iter()
            .flat_map(|tier| self.table.iter(tier))
            .filter_map(|(_, flow)| flow.packets.front())
            .map(|waiting| now.saturating_since(waiting.arrived))
            .max()
            .unwrap_or_default()
    }

    /// Packets marked CE so far.
    pub fn marked_pkts(&self) -> u64 {
        self.marked_pkts
    }

    /// What was dropped since the last call: [`Discard::QueueFull`], [`Discard::QueueDelay`] and [`Discard::AckSuperseded`].
    pub fn take_discards(&mut self) -> DiscardCounts {
        std::mem::take(&mut self.discards)
    }

    /// The memory that counts towards the bound.
    fn memory_bytes(&self) -> usize {
        self.bytes() + self.count_pkts * PACKET_OVERHEAD_BYTES
    }

    /// Charges a packet that is about to join `id` and puts the flow on its list. The tier that it belongs
    /// to.
    fn admit(&mut self, id: FlowId, class: Option<Class>, bytes: usize, now: Instant) -> Tier {
        self.table.flow_or_new(id, now);
        let (flows, realtime) = (self.table.count(), self.table.realtime_count());
        let flow = self.table.listed_mut(id);
        let was_idle = flow.packets.is_empty();
        let earning = if id.is_realtime() {
            self.pool.realtime(realtime)
        } else if class == Some(Class::Interactive) {
            self.pool.interactive(flows, now)
        } else {
            self.pool.sparse(flows, now)
        };
        flow.credit.earn(now, &earning);
        let tier_before = flow.tier;
        let mut tier = tier_before;
        if was_idle && flow.credit.has_recovered(&earning) {
            tier = Tier::best(id);
        }
        let is_covered = class != Some(Class::Bulk) && flow.credit.try_spend(bytes, &mut self.pool, now);
        if !is_covered || flow.bytes + bytes > earning.burst_bytes() {
            tier = Tier::Bulk;
        }
        if tier == Tier::Realtime {
            self.pool.on_realtime(bytes, now);
        }
        if was_idle {
            flow.deficit_bytes = signed(self.config.quantum);
            match tier {
                Tier::Sparse => {
                    self.fresh_bytes += bytes;
                    self.table.move_to_fresh(id);
                }
                Tier::Realtime | Tier::Bulk => self.table.move_to_tier(id, tier),
            }
        } else if tier != tier_before {
            let moved_bytes = flow.bytes;
            if flow.is_fresh() {
                self.fresh_bytes -= flow.packets.front().map_or(0, |first| first.packet.len());
            }
            if self.table.first(tier_before) == Some(id) {
                self.tier_mut(tier_before).is_settled = false;
            }
            self.table.move_to_tier(id, tier);
            self.tier_mut(tier_before).bytes -= moved_bytes;
            self.tier_mut(tier).bytes += moved_bytes;
        }
        tier
    }

    /// Makes the first packet of the tier's first flow the one that is next: DRR, then CoDel. A fresh flow's is next as it
    /// is: nothing that could be a queue of its own waits before it.
    #[inline]
    fn settle(&mut self, tier: Tier, now: Instant) -> Option<FlowId> {
        if tier == Tier::Sparse
            && let Some(fresh) = self.table.first_fresh()
        {
            return Some(fresh);
        }
        let first = self.table.first(tier)?;
        if self.tier(tier).is_settled { Some(first) } else { self.settle_anew(tier, now) }
    }

    /// The same of a tier that is not settled.
    #[inline(never)]
    fn settle_anew(&mut self, tier: Tier, now: Instant) -> Option<FlowId> {
        let quantum = signed(self.config.quantum);
        let id = loop {
            let id = self.table.first(tier)?;
            let flow = self.table.listed_mut(id);
            if flow.deficit_bytes > 0 {
                break id;
            }
            flow.deficit_bytes = flow.deficit_bytes.saturating_add(quantum);
            if flow.is_alone() {
                continue;
            }
            self.table.move_to_tier(id, tier);
        };
        while !self.has_passed_codel(id, tier, now) {}
        self.tier_mut(tier).is_settled = true;
        Some(id)
    }

    /// Judges the first packet of `id`. `false`: it was dropped, and another one is first. CoDel never takes
    /// a flow's last packet, so there is another one.
    fn has_passed_codel(&mut self, id: FlowId, tier: Tier, now: Instant) -> bool {
        let waits = match tier {
            Tier::Realtime => &self.realtime.waits,
            Tier::Sparse => &self.sparse.waits,
            Tier::Bulk => &self.bulk.waits,
        };
        let flow = self.table.listed_mut(id);
        let Some(waiting) = flow.packets.front() else { return true };
        let waited = now.saturating_since(waiting.arrived);
        // Below the target it does not matter how much of it was on purpose.
        let on_purpose =
            if waited < self.params.target { Duration::ZERO } else { waits.between(waiting.arrived, now) };
        let sojourn = waited.saturating_sub(on_purpose);
        let behind_bytes = flow.bytes - waiting.packet.len();
        if flow.codel.judge(now, sojourn, behind_bytes, &self.params) == Verdict::Pass {
            return true;
        }
        let Some(Waiting { packet, arrived }) = flow.packets.pop_front() else { return true };
        match ecn::mark_ce(packet) {
            Ok(packet) => {
                flow.packets.push_front(Waiting { packet, arrived });
                self.marked_pkts += 1;
                true
            }
            Err(packet) => {
                flow.packets.push_front(Waiting { packet, arrived });
                self.remove_first(id, now);
                self.discards.count(Discard::QueueDelay);
                false
            }
        }
    }

    /// Takes out the first packet of a flow that has some, and keeps counters and lists right.
    fn remove_first(&mut self, id: FlowId, now: Instant) -> Option<PacketBuf> {
        let flow = self.table.listed_mut(id);
        let packet = flow.packets.pop_front()?.packet;
        flow.bytes -= packet.len();
        let (tier, was_fresh, is_last) = (flow.tier, flow.is_fresh(), flow.packets.is_empty());
        let is_first = self.table.first(tier) == Some(id);
        let state = self.tier_mut(tier);
        state.bytes -= packet.len();
        state.is_settled &= !is_first;
        self.count_pkts -= 1;
        if was_fresh {
            self.fresh_bytes -= packet.len();
        }
        if is_last {
            self.table.move_to_idle(id, now);
        } else if was_fresh {
            self.table.move_to_tier(id, Tier::Sparse);
        }
        Some(packet)
    }

    /// Drops a batch from the head of the flow that holds the most memory; of equals, the first in line.
    fn drop_from_fattest(&mut self, now: Instant) {
        let mut fattest = None;
        let mut most_bytes = 0;
        for (id, flow) in Tier::ALL.into_iter().rev().flat_map(|tier| self.table.iter(tier)) {
            let held_bytes = flow.bytes + flow.packets.len() * PACKET_OVERHEAD_BYTES;
            if held_bytes > most_bytes {
                (fattest, most_bytes) = (Some(id), held_bytes);
            }
        }
        let id = fattest.expect("a full queue has a flow with packets");
        let mut freed_bytes = 0;
        let mut dropped_pkts = 0;
        while dropped_pkts < DROP_BATCH_PKTS && freed_bytes < most_bytes / 2 {
            let Some(packet) = self.remove_first(id, now) else { break };
            freed_bytes += packet.len() + PACKET_OVERHEAD_BYTES;
            dropped_pkts += 1;
            self.discards.count(Discard::QueueFull);
        }
    }

    fn tier(&self, tier: Tier) -> &TierState {
        match tier {
            Tier::Realtime => &self.realtime,
            Tier::Sparse => &self.sparse,
            Tier::Bulk => &self.bulk,
        }
    }

    fn tier_mut(&mut self, tier: Tier) -> &mut TierState {
        match tier {
            Tier::Realtime => &mut self.realtime,
            Tier::Sparse => &mut self.sparse,
            Tier::Bulk => &mut self.bulk,
        }
    }
}

/// CoDel's parameters at a drain rate.
fn params(
    config: &QueueConfig,
    rate: Option<BitRate>,
    spread: Duration,
    round: Duration,
    is_starting: bool,
) -> Params {
    let mtu_time = rate
        .map_or(Duration::ZERO, |rate| rate.time_to_send(u64::try_from(config.quantum).unwrap_or(u64::MAX)));
    let mut target = config.target.max(mtu_time.saturating_mul(3) / 2) + spread;
    if is_starting {
        target = target.max(STARTING_TARGET);
    }
    let interval = config.interval.max(target.saturating_mul(2)).max(round * 2 + target);
    Params { target, interval, mtu_bytes: config.quantum }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
