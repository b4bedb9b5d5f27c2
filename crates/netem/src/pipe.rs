//! One direction of one link: queue, rate, loss and delay, one after the other.
//!
//! Contract: time never runs backwards (an earlier `now` counts as the latest one seen). After
//! every call, drain [`Pipe::poll_deliver`] and return at [`Pipe::poll_timeout`]. A driver that
//! returns late gets the same packets in the same order, only later: events inside are computed for
//! their own time, not for the time of the call. After `poll_deliver(now)` returned `None`,
//! `poll_timeout` is later than `now`.
//!
//! Memory: [`Limit`] bounds the queue. Rate × delay bounds the travelling packets; without a rate,
//! the driver's offer within the delay does.

use std::collections::VecDeque;
use std::time::Duration;

use crate::counters::Counters;
use crate::flow::Flow;
use crate::gather::{Gather, next_grant};
use crate::jitter::{Jitter, JitterProcess};
use crate::loss::{Loss, LossProcess};
use crate::police::{Police, Policer};
use crate::random::{Random, Stream};
use crate::rate::Rate;
use crate::shaper::Shaper;
use crate::time::Time;

/// The properties of one direction of a link.
#[derive(Debug, Clone)]
pub struct PipeConfig {
    /// The rate.
    pub rate: Rate,
    /// One-way propagation delay.
    pub delay: Duration,
    /// The variation of the delay.
    pub jitter: Jitter,
    /// The loss of packets that have used capacity.
    pub loss: Loss,
    /// The limit of the queue.
    pub limit: Limit,
    /// The largest packet in bytes; larger ones are dropped silently.
    pub mtu: Option<u32>,
    /// The policer ahead of the queue.
    pub police: Option<Police>,
    /// Packets leave the rate stage at multiples of this time only, counted from the driver's
    /// epoch: the grants of a mobile network's uplink, or a satellite's frames. Zero: at any time.
    pub grid: Duration,
    /// Packets that arrive are kept for this time from the first on and delivered together. Zero:
    /// each at its time.
    pub gather: Duration,
    /// Share of packets that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// ECN-capable packets that find more than this waiting are marked (RFC 3168); `None`: no
    /// packet is marked.
    pub mark: Option<Duration>,
}

impl Default for PipeConfig {
    /// An ideal link: unlimited rate, no delay, no loss. The queue limit is 100 ms in case a rate
    /// is set later.
    fn default() -> Self {
        Self {
            rate: Rate::Unlimited,
            delay: Duration::ZERO,
            jitter: Jitter::default(),
            loss: Loss::None,
            limit: Limit::Time(Duration::from_millis(100)),
            mtu: None,
            police: None,
            grid: Duration::ZERO,
            gather: Duration::ZERO,
            duplicate: 0.0,
            mark: None,
        }
    }
}

impl PipeConfig {
    /// The bytes that pass in `from..to` by rate and policer, outages and loss not considered;
    /// `None` if neither limits them. A policer of flows limits no link.
    pub fn bytes_between(&self, from: Time, to: Time) -> Option<u64> {
        let policed =
            self.police.filter(|police| !police.per_flow).map(|police| police.bytes_between(from, to));
        match (self.rate.bytes_between(from, to), policed) {
            (Some(bytes), Some(policed)) => Some(bytes.min(policed)),
            (bytes, policed) => bytes.or(policed),
        }
    }
}

/// The drop-tail limit, the packet in service included. One packet always fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes.
    Bytes(u64),
    /// The bytes that the link sends in this time at its mean rate (of a trace: over its period). A
    /// stalled link keeps its limit.
    Time(Duration),
}

/// A change of a running pipe.
#[derive(Debug, Clone)]
pub enum Change {
    /// Sets the rate, also for the packet in service.
    Rate(Rate),
    /// Sets the one-way delay of packets that do not travel yet. Without reordering, no packet
    /// overtakes an earlier one.
    Delay(Duration),
    /// Sets the jitter.
    Jitter(Jitter),
    /// Sets the loss.
    Loss(Loss),
    /// Sets the queue limit; packets already waiting stay.
    Limit(Limit),
    /// Sets the MTU.
    Mtu(Option<u32>),
    /// Sets the policer. Buckets keep their tokens, as far as they have room.
    Police(Option<Police>),
    /// Sets the grid on which packets leave.
    Grid(Duration),
    /// Sets the time for which bursts gather, of those that begin from now on.
    Gather(Duration),
    /// Sets the share of duplicates.
    Duplicate(f64),
    /// Sets the waiting time above which packets are marked.
    Mark(Duration),
    /// True: the link fails. Its packets are lost, and so is every packet offered until the link
    /// returns (false).
    Outage(bool),
}

/// The result of offering a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The packet is queued (and may still be lost).
    Queued,
    /// The packet was dropped at once.
    Dropped(DropReason),
}

impl Outcome {
    /// Whether the packet is queued.
    pub const fn is_queued(self) -> bool {
        matches!(self, Self::Queued)
    }
}

/// The reason for dropping a packet at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The queue was full.
    QueueFull,
    /// The link had failed.
    Outage,
    /// The packet was larger than the MTU.
    Mtu,
    /// The policer had too few tokens.
    Policed,
}

#[derive(Debug)]
struct Waiting<T> {
    payload: T,
    bytes: u64,
}

#[derive(Debug)]
struct Flying<T> {
    payload: T,
    bytes: u64,
    due: Time,
}

/// One direction of one link, carrying payloads of type `T`.
#[derive(Debug)]
pub struct Pipe<T> {
    config: PipeConfig,
    limit_bytes: u64,
    outage: bool,
    now: Time,
    policer: Policer,
    queue: VecDeque<Waiting<T>>,
    shaper: Shaper,
    loss: LossProcess,
    jitter: JitterProcess,
    duplicate: Random,
    /// In the order of `due`.
    flying: VecDeque<Flying<T>>,
    /// Due time of the last packet that must not be overtaken.
    due_last: Time,
    gather: Gather,
    /// In the order of time.
    schedule: VecDeque<(Time, Change)>,
    counters: Counters,
}

impl<T: Clone> Pipe<T> {
    /// An empty pipe at the epoch. The same configuration, seed and calls give the same results.
    pub fn new(config: PipeConfig, seed: u64) -> Self {
        let mut pipe = Self {
            limit_bytes: u64::MAX,
            outage: false,
            now: Time::ZERO,
            policer: Policer::new(config.police),
            queue: VecDeque::new(),
            shaper: Shaper::new(config.rate.clone()),
            loss: LossProcess::new(config.loss, seed),
            jitter: JitterProcess::new(seed),
            duplicate: Random::new(seed, Stream::Duplicate),
            flying: VecDeque::new(),
            due_last: Time::ZERO,
            gather: Gather::new(config.gather),
            schedule: VecDeque::new(),
            counters: Counters::default(),
            config,
        };
        pipe.limit_bytes = pipe.limit_in_bytes();
        pipe
    }

    /// Offers a packet of `bytes`, the size of the whole IP packet, of the default flow.
    pub fn enqueue(&mut self, payload: T, bytes: u32, now: Time) -> Outcome {
        self.enqueue_flow(payload, bytes, Flow::default(), now)
    }

    /// As [`Pipe::enqueue`], for drivers whose flows a policer can tell apart.
    pub fn enqueue_flow(&mut self, payload: T, bytes: u32, flow: Flow, now: Time) -> Outcome {
        self.advance(now);
        let size = u64::from(bytes);
        self.counters.offered_pkts += 1;
        self.counters.offered_bytes += size;
        if self.config.mtu.is_some_and(|mtu| bytes > mtu) {
            self.counters.drops.mtu_pkts += 1;
            return Outcome::Dropped(DropReason::Mtu);
        }
        if self.outage {
            self.counters.drops.outage_pkts += 1;
            return Outcome::Dropped(DropReason::Outage);
        }
        if !self.policer.passes(flow, size, self.now) {
            self.counters.drops.police_pkts += 1;
            return Outcome::Dropped(DropReason::Policed);
        }
        if !self.queue.is_empty() && self.counters.queue_bytes + size > self.limit_bytes {
            self.counters.drops.queue_full_pkts += 1;
            return Outcome::Dropped(DropReason::QueueFull);
        }
        self.queue.push_back(Waiting { payload, bytes: size });
        self.counters.queue_pkts += 1;
        self.counters.queue_bytes += size;
        self.counters.queue_bytes_max = self.counters.queue_bytes_max.max(self.counters.queue_bytes);
        if self.shaper.is_idle() {
            self.shaper.start(size, self.now);
            self.advance(self.now);
        }
        Outcome::Queued
    }

    /// Whether a packet offered at `now` is to be marked, if it is ECN-capable.
    pub fn marks(&mut self, now: Time) -> bool {
        let Some(mark) = self.config.mark else { return false };
        self.advance(now);
        self.queue_delay().is_none_or(|queued| queued > mark)
    }

    /// The next packet that has arrived by `now`.
    pub fn poll_deliver(&mut self, now: Time) -> Option<T> {
        self.advance(now);
        let due = self.flying.front()?.due;
        if due > self.now || self.gather.arrive(due) > self.now {
            return None;
        }
        let packet = self.flying.pop_front()?;
        self.counters.in_flight_pkts -= 1;
        self.counters.delivered_pkts += 1;
        self.counters.delivered_bytes += packet.bytes;
        Some(packet.payload)
    }

    /// When to call [`Pipe::poll_deliver`] again: no packet can arrive earlier. `None`: not before
    /// the next `enqueue` or `apply`.
    pub fn poll_timeout(&self) -> Option<Time> {
        let arrival = self.flying.front().map(|packet| self.gather.release_of(packet.due));
        let Jitter { reorder, .. } = self.config.jitter;
        let delay_min = self.config.jitter.delay_min(self.config.delay);
        let through = self.shaper.finish().map(|finish| {
            let due_min = next_grant(finish, self.config.grid) + delay_min;
            if reorder { due_min } else { due_min.max(self.due_last) }
        });
        let change = self.schedule.front().map(|(at, _)| *at);
        [arrival, through, change].into_iter().flatten().min()
    }

    /// Changes the pipe at `now`.
    pub fn apply(&mut self, change: Change, now: Time) {
        self.advance(now);
        self.change(change, self.now);
        self.advance(self.now);
    }

    /// Changes the pipe at `at`; at once if that time is past. Changes at the same time happen in
    /// the order of the calls.
    pub fn schedule(&mut self, at: Time, change: Change) {
        let index = self.schedule.partition_point(|(other, _)| *other <= at);
        self.schedule.insert(index, (at, change));
    }

    /// Processes the events inside the pipe up to `now`. Every other call does so itself; a call is
    /// needed only before [`Pipe::counters`].
    pub fn advance(&mut self, now: Time) {
        let now = now.max(self.now);
        loop {
            let finish = self.shaper.finish().filter(|finish| *finish <= now);
            let change = self.schedule.front().map(|(at, _)| *at).filter(|at| *at <= now);
            match (finish, change) {
                (Some(finish), change) if change.is_none_or(|change| finish <= change) => {
                    self.complete(finish)
                }
                (_, Some(at)) => {
                    if let Some((_, change)) = self.schedule.pop_front() {
                        // A change scheduled for the past happens now.
                        self.now = self.now.max(at);
                        self.change(change, self.now);
                    }
                }
                (_, None) => break,
            }
        }
        self.now = now;
    }

    /// The counters as of the latest call. See [`Pipe::advance`].
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// How long the queued packets still take at the current rate, as of the latest call: the
    /// waiting time of a packet offered then. Zero when the queue is empty; `None` on a stalled
    /// link.
    pub fn queue_delay(&self) -> Option<Duration> {
        let Some(first) = self.queue.front() else { return Some(Duration::ZERO) };
        let behind = self.counters.queue_bytes - first.bytes;
        self.shaper.finish_behind(behind).map(|finish| finish - self.now)
    }

    /// The current configuration.
    pub const fn config(&self) -> &PipeConfig {
        &self.config
    }

    /// Whether the link has failed at present.
    pub const fn is_out(&self) -> bool {
        self.outage
    }

    /// The packet in service leaves the queue at `at` and travels.
    fn complete(&mut self, at: Time) {
        let Some(packet) = self.queue.pop_front() else {
            self.shaper.clear();
            return;
        };
        self.counters.queue_pkts -= 1;
        self.counters.queue_bytes -= packet.bytes;
        self.counters.carried_pkts += 1;
        self.counters.carried_bytes += packet.bytes;
        self.shaper.complete(at, self.queue.front().map(|next| next.bytes));
        if self.loss.draw() {
            self.counters.drops.loss_pkts += 1;
            return;
        }
        let leaves = next_grant(at, self.config.grid);
        let mut due = leaves + self.jitter.draw(self.config.delay, self.config.jitter, leaves);
        if !self.config.jitter.reorder {
            due = due.max(self.due_last);
            self.due_last = due;
        }
        if self.duplicate.chance(self.config.duplicate) {
            self.counters.duplicated_pkts += 1;
            self.launch(Flying { payload: packet.payload.clone(), bytes: packet.bytes, due });
        }
        self.launch(Flying { payload: packet.payload, bytes: packet.bytes, due });
    }

    fn launch(&mut self, packet: Flying<T>) {
        self.counters.in_flight_pkts += 1;
        let mut index = self.flying.len();
        while index > 0 && self.flying.get(index - 1).is_some_and(|other| other.due > packet.due) {
            index -= 1;
        }
        self.flying.insert(index, packet);
    }

    fn change(&mut self, change: Change, at: Time) {
        match change {
            Change::Rate(rate) => {
                self.shaper.set_rate(rate.clone(), at);
                self.config.rate = rate;
                self.limit_bytes = self.limit_in_bytes();
            }
            Change::Delay(delay) => self.config.delay = delay,
            Change::Jitter(jitter) => self.config.jitter = jitter,
            Change::Loss(loss) => {
                self.config.loss = loss;
                self.loss.set(loss);
            }
            Change::Limit(limit) => {
                self.config.limit = limit;
                self.limit_bytes = self.limit_in_bytes();
            }
            Change::Mtu(mtu) => self.config.mtu = mtu,
            Change::Police(police) => {
                self.config.police = police;
                self.policer.set(police, at);
            }
            Change::Grid(grid) => self.config.grid = grid,
            Change::Gather(span) => {
                self.config.gather = span;
                self.gather.set(span);
            }
            Change::Duplicate(ratio) => self.config.duplicate = ratio,
            Change::Mark(queue) => self.config.mark = Some(queue),
            Change::Outage(outage) => {
                self.outage = outage;
                if outage {
                    self.lose_everything(at);
                }
            }
        }
    }

    /// Drops all packets inside at `at`. Packets that had arrived by then, but were not fetched
    /// yet, stay.
    fn lose_everything(&mut self, at: Time) {
        let arrived = self.flying.partition_point(|packet| packet.due <= at);
        let lost = self.flying.len() - arrived + self.queue.len();
        self.counters.drops.outage_pkts += lost as u64;
        self.flying.truncate(arrived);
        self.queue.clear();
        self.shaper.clear();
        self.due_last = at;
        self.counters.in_flight_pkts = arrived as u64;
        self.counters.queue_pkts = 0;
        self.counters.queue_bytes = 0;
    }

    fn limit_in_bytes(&self) -> u64 {
        match (self.config.limit, self.shaper.rate().mean_bps()) {
            (Limit::Bytes(bytes), _) => bytes,
            (Limit::Time(_), None) => u64::MAX,
            (Limit::Time(_), Some(0)) => self.limit_bytes,
            (Limit::Time(span), Some(bps)) => {
                let bytes = u128::from(bps) * span.as_nanos() / 8_000_000_000;
                u64::try_from(bytes).unwrap_or(u64::MAX)
            }
        }
    }
}
