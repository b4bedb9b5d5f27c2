//! Acknowledgements of a young download, at a distance from each other.
//!
//! The first link of a bond is near and fills first. A sender in slow start sees its round trips
//! grow there, takes that for the end of what its path carries, and leaves slow start long before
//! the other links have anything to do (HyStart: `hystart_update` in Linux's `tcp_cubic.c`, RFC
//! 9406). It looks at the least round trip of each round, once the round has brought more than
//! eight acknowledgements. So while a download is young it gets fewer in the longest
//! round trip of the links: a newer acknowledgement takes the place of an older one that waits
//! here, as it does in the queue ([`super::ack`]).
//!
//! # The rule
//! - The distance is a fifth of the longest round trip of the links ([`SHARE`]), at most
//!   [`DISTANCE_MAX`], and at most a sixth of the download's age ([`AGE_SHARE`]). It is none where
//!   the links' round trips are alike.
//! - A connection's first [`FREE`] acknowledgements pass at once, and then one in a distance.
//! - Only one that acknowledges more than the last that passed waits, without selective
//!   acknowledgements. Any other packet of the flow passes at once, behind the one that waits.
//! - It ends [`ROUNDS`] of the longest round trips after the connection's first acknowledgement: by
//!   then slow start is over. It ends sooner where two of them in a row did not bring half more
//!   than the one before: slow start is over, or the sender counts acknowledgements and not bytes
//!   (RFC 5681) and needs all. After a pause of [`PAUSE`] a connection begins anew.
//!
//! Contract: a packet given in comes out at once, at [`AckSpacing::due`], or never if another has
//! taken its place. It knows no links and no queue.
//!
//! Measured: docs/decisions/0038-acknowledgements-of-a-start.md.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ack::{ACK_BYTES_MAX, advances, is_pure, number};
use super::flow::FlowId;
use crate::Instant;
use crate::packet::PacketBuf;

/// Acknowledgements in the longest round trip. Chosen: HyStart needs more than eight
/// (`HYSTART_MIN_SAMPLES` in Linux's `tcp_cubic.c`, `N_RTT_SAMPLE` in RFC 9406 §4.3), and a round
/// with a queue and a wait here takes longer.
const SHARE: u32 = 5;

/// The longest distance. Chosen: a ninth of a round over a geostationary link is longer, and a
/// sender's least retransmission timeout is twice as long (RFC 6298 and Linux: 200 ms).
const DISTANCE_MAX: Duration = Duration::from_millis(100);

/// The distance is at most the download's age divided by this. Chosen: its round trips are shorter
/// than its age, and a page is over before an acknowledgement waits for long.
const AGE_SHARE: u32 = 6;

/// Round trips that differ by no more than this are alike. Source: the least growth that HyStart
/// takes for a queue (`HYSTART_DELAY_MIN`).
const ALIKE: Duration = Duration::from_millis(4);

/// Acknowledgements that pass at once. Chosen: those of an initial window (RFC 6928).
const FREE: u32 = 8;

/// Longest round trips of a download's youth. Chosen: slow start doubles a window of 10 packets to
/// one of 600,000 in them.
const ROUNDS: u32 = 16;

/// A connection begins anew after a pause of this. Chosen: as the queue forgets a flow (RFC 5681
/// §4.1).
const PAUSE: Duration = Duration::from_secs(1);

/// The most flows that are known. Chosen: of more starts at once a single one changes little.
const FLOWS_MAX: usize = 64;

/// In slow start a round brings at least this share of the one before, percent. Chosen: halfway to
/// doubling.
const GROWTH_PERCENT: u64 = 150;

/// So many rounds in a row without that growth end it. Chosen: one may be a link's own start.
const SLOW_ROUNDS: u32 = 2;

/// How a download grows, by what its acknowledgements acknowledge in each of the longest rounds.
#[derive(Debug, Clone, Copy)]
struct Growth {
    since: Instant,
    from: u32,
    before_bytes: u64,
    /// Rounds in a row that grew too little.
    slow: u32,
}

impl Growth {
    const fn new(from: u32, now: Instant) -> Self {
        Self { since: now, from, before_bytes: 0, slow: 0 }
    }

    /// `number` is acknowledged. Whether the download still grows as in slow start.
    fn on_ack(&mut self, number: u32, round: Duration, now: Instant) -> bool {
        if now.saturating_since(self.since) >= round {
            let bytes = u64::from(number.wrapping_sub(self.from));
            let has_grown = bytes * 100 >= self.before_bytes * GROWTH_PERCENT;
            self.slow = if has_grown { 0 } else { self.slow + 1 };
            (self.since, self.from, self.before_bytes) = (now, number, bytes);
        }
        self.slow < SLOW_ROUNDS
    }
}

/// A flow of acknowledgements.
#[derive(Debug)]
struct Start {
    since: Instant,
    /// The last that passed, and when.
    passed: PacketBuf,
    passed_at: Instant,
    waiting: Option<PacketBuf>,
    /// What may pass at once besides.
    free: u32,
    growth: Growth,
}

impl Start {
    /// When the next may pass.
    fn due(&self, distance: Duration) -> Instant {
        let age = self.passed_at.saturating_since(self.since);
        self.passed_at + distance.min(age / AGE_SHARE)
    }
}

/// What comes out, in order.
pub(crate) type Released = [Option<PacketBuf>; 2];

/// The rule, for all flows.
#[derive(Debug, Default)]
pub(crate) struct AckSpacing {
    starts: BTreeMap<FlowId, Start>,
    /// Of those, how many have a packet waiting.
    waiting: usize,
    distance: Duration,
    youth: Duration,
    /// Acknowledgements whose place was taken since this was asked last.
    superseded: u64,
}

impl AckSpacing {
    /// The least and the longest round trip of the links in use.
    pub(crate) fn set_rounds(&mut self, least: Duration, longest: Duration) {
        let differ = longest.saturating_sub(least) > ALIKE;
        self.distance = if differ { (longest / SHARE).min(DISTANCE_MAX) } else { Duration::ZERO };
        self.youth = longest * ROUNDS;
    }

    /// A packet of `flow` on its way to the queue: what goes there now.
    pub(crate) fn pass(&mut self, flow: FlowId, packet: PacketBuf, now: Instant) -> Released {
        // Most packets are data, and nothing waits.
        let is_ack = !self.distance.is_zero() && packet.len() <= ACK_BYTES_MAX && is_pure(&packet);
        if !is_ack {
            let waiting = if self.waiting == 0 { None } else { self.take(flow, now) };
            return [waiting, Some(packet)];
        }
        let Some(start) = self.starts.get_mut(&flow) else { return self.begin(flow, packet, now) };
        if now.saturating_since(start.passed_at) > PAUSE {
            (start.since, start.free) = (now, FREE);
            start.growth = Growth::new(number(&packet).unwrap_or(0), now);
        }
        let newest = start.waiting.as_ref().unwrap_or(&start.passed);
        let is_young = now.saturating_since(start.since) < self.youth
            && start.growth.on_ack(number(&packet).unwrap_or(0), self.youth / ROUNDS, now);
        let may_wait = is_young && advances(&packet, newest);
        let is_near = now < start.due(self.distance);
        if may_wait && is_near && start.free == 0 {
            let before = start.waiting.replace(packet);
            self.waiting += usize::from(before.is_none());
            self.superseded += u64::from(before.is_some());
            return [None, None];
        }
        if is_near {
            start.free = start.free.saturating_sub(1);
        }
        (start.passed, start.passed_at) = (packet.clone(), now);
        let waiting = start.waiting.take();
        self.waiting -= usize::from(waiting.is_some());
        if may_wait {
            self.superseded += u64::from(waiting.is_some());
            return [None, Some(packet)];
        }
        [waiting, Some(packet)]
    }

    fn begin(&mut self, flow: FlowId, packet: PacketBuf, now: Instant) -> Released {
        if self.starts.len() >= FLOWS_MAX {
            let is_kept =
                |start: &Start| start.waiting.is_some() || now.saturating_since(start.passed_at) <= PAUSE;
            self.starts.retain(|_, start| is_kept(start));
        }
        if self.starts.len() < FLOWS_MAX {
            let passed = packet.clone();
            let growth = Growth::new(number(&packet).unwrap_or(0), now);
            let start = Start { since: now, passed, passed_at: now, waiting: None, free: FREE, growth };
            self.starts.insert(flow, start);
        }
        [None, Some(packet)]
    }

    /// When the next waiting acknowledgement goes to the queue.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.waiting == 0 {
            return None;
        }
        let waiting = self.starts.values().filter(|start| start.waiting.is_some());
        waiting.map(|start| start.due(self.distance)).min()
    }

    /// The next acknowledgement that is due.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<(FlowId, PacketBuf)> {
        if self.waiting == 0 {
            return None;
        }
        let is_due = |start: &Start| start.waiting.is_some() && start.due(self.distance) <= now;
        let flow = self.starts.iter().find(|(_, start)| is_due(start)).map(|(flow, _)| *flow)?;
        self.take(flow, now).map(|packet| (flow, packet))
    }

    fn take(&mut self, flow: FlowId, now: Instant) -> Option<PacketBuf> {
        let start = self.starts.get_mut(&flow)?;
        let packet = start.waiting.take()?;
        self.waiting -= 1;
        (start.passed, start.passed_at) = (packet.clone(), now);
        Some(packet)
    }

    /// Acknowledgements whose place another has taken since the last call.
    pub(crate) fn take_superseded(&mut self) -> u64 {
        std::mem::take(&mut self.superseded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qos::ack::tests::ack_packet as ack;

    const FLOW: FlowId = FlowId(1);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    /// What is acknowledged after `ms` of a download that grows by 55 % in 80 ms.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 2^32")]
    fn acked(ms: u64) -> u32 {
        (1_000.0 * 1.55_f64.powf(ms as f64 / 80.0)) as u32
    }

    /// Links of 20 and 80 ms: 16 ms apart.
    fn spacing() -> AckSpacing {
        let mut spacing = AckSpacing::default();
        spacing.set_rounds(Duration::from_millis(20), Duration::from_millis(80));
        spacing
    }

    /// How many of `count` acknowledgements, one each millisecond from `from` on, reach the queue,
    /// and the last that did.
    fn passed(spacing: &mut AckSpacing, from: u64, count: u64) -> (usize, Option<PacketBuf>) {
        let (mut passed, mut last) = (0, None);
        let mut take = |packet: PacketBuf| {
            passed += 1;
            last = Some(packet);
        };
        for step in from..from + count {
            while let Some((flow, packet)) = spacing.poll(at(step)) {
                assert_eq!(flow, FLOW);
                take(packet);
            }
            let number = acked(step);
            spacing.pass(FLOW, ack(number), at(step)).into_iter().flatten().for_each(&mut take);
        }
        (passed, last)
    }

    #[test]
    fn after_the_first_ones_one_passes_in_a_distance_and_the_newest_is_never_lost() {
        let mut spacing = spacing();
        let (count, _) = passed(&mut spacing, 0, 100);
        assert!((20..=30).contains(&count), "{count} of 100 in 100 ms");
        let due = spacing.due().expect("one waits");
        assert!(due <= at(99 + 16));
        assert_eq!(spacing.poll(due).map(|(_, packet)| packet.to_vec()), Some(ack(acked(99)).to_vec()));
        assert_eq!((spacing.due(), spacing.poll(at(1_000))), (None, None));
        assert_eq!(usize::try_from(spacing.take_superseded()), Ok(100 - count - 1));
    }

    #[test]
    fn a_grown_download_and_links_that_are_alike_have_all_of_them() {
        let mut spacing = spacing();
        passed(&mut spacing, 0, 1_280);
        assert_eq!(passed(&mut spacing, 1_280, 100).0, 101, "with the one that waited");
        passed(&mut spacing, 2_600, 20);
        assert!(passed(&mut spacing, 2_620, 100).0 < 12, "after a pause it is young again");
        let mut alike = AckSpacing::default();
        alike.set_rounds(Duration::from_millis(40), Duration::from_millis(44));
        assert_eq!(passed(&mut alike, 0, 100).0, 100);
    }

    #[test]
    fn a_sender_that_does_not_grow_has_all_of_them() {
        let mut spacing = spacing();
        let mut reach = |from: u64| {
            let acks = (from..from + 100).map(|step| (step, u32::try_from(step).unwrap() * 1_000));
            acks.map(|(step, number)| spacing.pass(FLOW, ack(number), at(step)).iter().flatten().count())
                .sum::<usize>()
        };
        assert!(reach(0) < 40 && reach(100) < 40);
        reach(200);
        assert!(reach(300) >= 99, "three rounds brought as much");
    }

    #[test]
    fn duplicates_and_other_packets_wait_for_nothing() {
        let mut spacing = spacing();
        let (_, last) = passed(&mut spacing, 0, 120);
        assert_ne!(last.map(|packet| packet.to_vec()), Some(ack(acked(119)).to_vec()));
        assert!(spacing.due().is_some_and(|due| due > at(120)), "one waits");
        let out = spacing.pass(FLOW, ack(acked(119)), at(120));
        assert_eq!(out.iter().flatten().count(), 2, "a duplicate, behind the one that waited");
        assert!(spacing.due().is_none());
        assert_eq!(spacing.pass(FLOW, ack(acked(121)), at(121)).iter().flatten().count(), 0);
        let data = PacketBuf::from(bytes::Bytes::from(vec![0x45; 500]));
        let [first, second] = spacing.pass(FLOW, data, at(122));
        assert_eq!(first.map(|packet| packet.to_vec()), Some(ack(acked(121)).to_vec()));
        assert_eq!(second.map(|packet| packet.len()), Some(500));
        let other = spacing.pass(FlowId(2), ack(1_000), at(123));
        assert_eq!(other.iter().flatten().count(), 1);
    }
}
