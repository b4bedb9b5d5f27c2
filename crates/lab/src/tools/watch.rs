//! A record of the emulator's links and of the bytes that arrive at the receiving host while a load
//! runs; and figures from it: pauses, queues, and how soon a change of rate shows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bonding_netem::Direction;

use super::percentile;
use crate::driver::Snapshot;
use crate::error::LabError;
use crate::host::HostRef;
use crate::lab::Lab;

/// How often the receiving devices are read: short against the pauses of interest, long against the
/// cost of a reading.
const PERIOD: Duration = Duration::from_millis(10);
/// The emulator is read every second time. Chosen: its answer costs more.
const EVERY: u32 = 2;

/// One reading.
#[derive(Debug, Clone)]
pub struct Moment {
    /// As [`Lab::elapsed`] counts.
    pub at: Duration,
    /// Arrived so far on the devices watched.
    pub received_bytes: u64,
    /// The emulator, at every second reading.
    pub links: Option<Snapshot>,
}

/// All readings, in order.
#[derive(Debug, Clone, Default)]
pub struct Record(pub Vec<Moment>);

impl Record {
    /// Reads `lab` and the `devices` of `host` until `stop`, on a thread of that host.
    ///
    /// # Errors
    /// When the host is gone, or its devices cannot be read.
    pub fn watch(lab: &Lab, host: HostRef, devices: &[String], stop: &AtomicBool) -> Result<Self, LabError> {
        host.run(|| {
            let (start, mut record) = (Instant::now(), Self::default());
            for number in 0_u32.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let links = number.is_multiple_of(EVERY).then(|| lab.snapshot());
                record.0.push(Moment { at: lab.elapsed(), received_bytes: received(devices)?, links });
                std::thread::sleep((PERIOD * (number + 1)).saturating_sub(start.elapsed()));
            }
            Ok(record)
        })?
    }
}

/// Received by all of `devices` so far. Of this thread's network namespace, not of the process's.
fn received(devices: &[String]) -> Result<u64, LabError> {
    const TABLE: &str = "/proc/thread-self/net/dev";
    let table = std::fs::read_to_string(TABLE).map_err(LabError::io(format!("read {TABLE}")))?;
    Ok(devices.iter().filter_map(|device| received_by(&table, device)).sum())
}

/// proc_net(5): below the heads a line per device, `name: bytes packets …`, received first.
fn received_by(table: &str, device: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.trim_start().split_once(':'));
    let (_, figures) = lines.find(|(name, _)| *name == device)?;
    figures.split_whitespace().next()?.parse().ok()
}

impl Record {
    /// The longest time in `from..to` in which less than `least` bytes arrived between one reading
    /// and the next.
    pub fn longest_pause(&self, from: Duration, to: Duration, least: u64) -> Duration {
        let (mut longest, mut since, mut known) = (Duration::ZERO, from, None);
        for moment in self.0.iter().filter(|moment| (from..to).contains(&moment.at)) {
            if known.is_none_or(|known| moment.received_bytes.saturating_sub(known) >= least) {
                since = moment.at;
            }
            known = Some(moment.received_bytes);
            longest = longest.max(moment.at.saturating_sub(since));
        }
        longest
    }

    /// The window of [`Record::first_reached`].
    pub const REACHED_SPAN: Duration = Duration::from_millis(500);

    /// The rate of arrival between the two readings nearest to `from` and `to`, bits per second;
    /// `None` without two readings.
    pub fn received_bps(&self, from: Duration, to: Duration) -> Option<f64> {
        let mut within = self.0.iter().filter(|moment| (from..to).contains(&moment.at));
        let first = within.next()?;
        let last = within.next_back()?;
        let bytes = last.received_bytes.saturating_sub(first.received_bytes);
        Some(bytes as f64 * 8.0 / last.at.saturating_sub(first.at).as_secs_f64().max(1e-3))
    }

    /// When, counted from `start`, the bytes of the half second before first came to `wanted(from,
    /// to)`.
    pub fn first_reached(
        &self,
        start: Duration,
        wanted: impl Fn(Duration, Duration) -> f64,
    ) -> Option<Duration> {
        const SPAN: Duration = Record::REACHED_SPAN;
        let mut before = self.0.iter();
        let mut first = before.next()?;
        for moment in self.0.iter().filter(|moment| moment.at >= start + SPAN) {
            while first.at + SPAN < moment.at {
                first = before.next()?;
            }
            let bytes = moment.received_bytes.saturating_sub(first.received_bytes);
            if bytes as f64 >= wanted(first.at, moment.at) {
                return Some(moment.at - start);
            }
        }
        None
    }

    fn snapshots(&self, from: Duration, to: Duration) -> impl Iterator<Item = &Snapshot> {
        let within = move |links: &&Snapshot| (from..to).contains(&links.at);
        self.0.iter().filter_map(|moment| moment.links.as_ref()).filter(within)
    }

    /// A percentile of a link's queue at all readings in `from..to`.
    pub fn queue_percentile(
        &self,
        index: usize,
        direction: Direction,
        from: Duration,
        to: Duration,
        permille: usize,
    ) -> Option<Duration> {
        let pipes = self.snapshots(from, to).filter_map(|links| links.pipe(index, direction));
        let delays: Vec<Duration> = pipes.filter_map(|pipe| pipe.queue_delay).collect();
        percentile(&delays, permille)
    }

    /// What link `index` delivered, was offered and dropped in one direction from `from` to `to`,
    /// and the time between the two nearest readings.
    pub fn link_bytes(
        &self,
        index: usize,
        direction: Direction,
        from: Duration,
        to: Duration,
    ) -> Option<LinkBytes> {
        let mut looks = self.snapshots(from, to);
        let first = looks.next()?;
        let last = looks.last()?;
        let counters = |links: &Snapshot| Some(links.pipe(index, direction)?.counters);
        let (before, after) = (counters(first)?, counters(last)?);
        Some(LinkBytes {
            delivered: after.delivered_bytes - before.delivered_bytes,
            offered: after.offered_bytes - before.offered_bytes,
            offered_pkts: after.offered_pkts - before.offered_pkts,
            dropped_pkts: after.drops.total_pkts() - before.drops.total_pkts(),
            span: last.at - first.at,
        })
    }

    /// How long after `change` link `index` needs until it is offered and delivers `bps` within a
    /// tenth, both on the mean of the half second that begins then. `end`: where the rate changes
    /// again.
    pub fn settled(
        &self,
        index: usize,
        direction: Direction,
        change: Duration,
        end: Duration,
        bps: f64,
    ) -> Option<Duration> {
        const SPAN: Duration = Duration::from_millis(500);
        const STEP: Duration = Duration::from_millis(20);
        let near = |bytes: u64, span: Duration| {
            let measured = bytes as f64 * 8.0 / span.as_secs_f64().max(1e-3);
            (0.9..=1.1).contains(&(measured / bps))
        };
        let mut from = change;
        while from + SPAN <= end {
            let bytes = self.link_bytes(index, direction, from, from + SPAN)?;
            if near(bytes.offered, bytes.span) && near(bytes.delivered, bytes.span) {
                return Some(from - change);
            }
            from += STEP;
        }
        None
    }
}

/// What went through one direction of a link between two readings.
#[derive(Debug, Clone, Copy)]
pub struct LinkBytes {
    /// Bytes that came out.
    pub delivered: u64,
    /// Bytes that were offered to it, dropped ones included.
    pub offered: u64,
    /// Packets that were offered to it.
    pub offered_pkts: u64,
    /// Packets that it dropped, for whatever reason.
    pub dropped_pkts: u64,
    /// The time between the two readings.
    pub span: Duration,
}

impl LinkBytes {
    /// Bits per second delivered.
    pub fn delivered_bps(self) -> f64 {
        self.delivered as f64 * 8.0 / self.span.as_secs_f64().max(1e-3)
    }
}

#[cfg(test)]
mod tests {
    use bonding_netem::Counters;

    use super::*;
    use crate::driver::PipeSnapshot;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A reading every 10 ms for `length`, with one link; `state` gives what had been delivered,
    /// offered and received by then, and the queue.
    fn record(length: Duration, state: impl Fn(Duration) -> (u64, u64, u64, Duration)) -> Record {
        let mut record = Record::default();
        let mut at = Duration::ZERO;
        while at < length {
            let (delivered_bytes, offered_bytes, received_bytes, queue) = state(at);
            let counters = Counters { delivered_bytes, offered_bytes, ..Counters::default() };
            let pipe = PipeSnapshot { counters, queue_delay: Some(queue), sized_pkts: 0 };
            let links = Snapshot { at, links: vec![[PipeSnapshot::default(), pipe]] };
            record.0.push(Moment { at, received_bytes, links: Some(links) });
            at += PERIOD;
        }
        record
    }

    fn millis(span: Duration) -> u64 {
        u64::try_from(span.as_millis()).unwrap()
    }

    /// Bytes by `at` at a rate in Mbit/s that changes at `change`.
    fn bytes(at: Duration, change: Duration, before_mbps: u64, after_mbps: u64) -> u64 {
        let after = millis(at.saturating_sub(change));
        (millis(at.min(change)) * before_mbps + after * after_mbps) * 125
    }

    #[test]
    fn a_sender_has_settled_when_it_keeps_to_the_new_rate() {
        // The link goes from 50 to 10 Mbit/s at 1 s; the sender follows 700 ms later.
        let late = record(ms(4_000), |at| {
            let delivered = bytes(at, ms(1_000), 50, 10);
            (delivered, bytes(at, ms(1_700), 50, 10), 0, Duration::ZERO)
        });
        let settled = late.settled(0, Direction::Down, ms(1_000), ms(4_000), 10e6).unwrap();
        // Of half a second 10 ms at the old rate are 8 % too much: it counts a reading or two
        // early.
        assert!((ms(660)..=ms(720)).contains(&settled), "{settled:?}");
        // A sender that stops altogether passes the new rate on its way down, and has not settled.
        let stopped = record(ms(4_000), |at| {
            (bytes(at, ms(1_000), 50, 0), bytes(at, ms(1_000), 50, 0), 0, Duration::ZERO)
        });
        assert_eq!(stopped.settled(0, Direction::Down, ms(1_100), ms(4_000), 10e6), None);
        // A sender that goes on as before is too fast for ever, though the link delivers its rate.
        let deaf = record(ms(4_000), |at| {
            (bytes(at, ms(1_000), 50, 10), bytes(at, ms(4_000), 50, 0), 0, Duration::ZERO)
        });
        assert_eq!(deaf.settled(0, Direction::Down, ms(1_000), ms(4_000), 10e6), None);
    }

    #[test]
    fn the_first_half_second_that_is_fast_enough_counts() {
        let seen = record(ms(4_000), |at| (0, 0, bytes(at, ms(2_000), 8, 80), Duration::ZERO));
        let wanted = |from: Duration, to: Duration| (to - from).as_secs_f64() * 7e6;
        // 3.5 MB in half a second: a third of a second at 10 MB/s and the rest at 1.
        let after = seen.first_reached(Duration::ZERO, wanted).unwrap();
        assert!((ms(2_320)..=ms(2_350)).contains(&after), "{after:?}");
        assert_eq!(seen.first_reached(Duration::ZERO, |_, _| 1e9), None);
        // From the start on only.
        assert_eq!(seen.first_reached(ms(3_000), wanted), Some(ms(500)));
    }

    #[test]
    fn pauses_and_queues_count_within_the_window() {
        let seen = record(ms(2_000), |at| {
            let received = if (ms(500)..ms(800)).contains(&at) { 502 } else { millis(at) + 2 };
            (0, 0, received, if at < ms(1_000) { ms(30) } else { ms(5) })
        });
        assert_eq!(seen.longest_pause(ms(0), ms(2_000), 1), ms(290));
        assert_eq!(seen.longest_pause(ms(900), ms(2_000), 1), Duration::ZERO);
        // A byte a millisecond all the time, and more only until then.
        let echo =
            record(ms(2_000), |at| (0, 0, millis(at) + millis(at.min(ms(1_500))) * 100, Duration::ZERO));
        assert_eq!(echo.longest_pause(ms(0), ms(2_000), 1), Duration::ZERO);
        assert_eq!(echo.longest_pause(ms(0), ms(2_000), 1_000), ms(490));
        // A packet a millisecond in the 190 ms between the readings at 800 and 990 ms; no packet in
        // the pause.
        assert_eq!(seen.received_bps(ms(800), ms(1_000)), Some(8_000.0));
        assert_eq!(seen.received_bps(ms(500), ms(800)), Some(0.0));
        assert_eq!(seen.received_bps(ms(500), ms(505)), None);
        assert_eq!(seen.queue_percentile(0, Direction::Down, ms(0), ms(2_000), 950), Some(ms(30)));
        assert_eq!(seen.queue_percentile(0, Direction::Down, ms(1_000), ms(2_000), 950), Some(ms(5)));
        assert_eq!(seen.queue_percentile(1, Direction::Down, ms(0), ms(2_000), 950), None);
    }

    #[test]
    fn packets_that_were_dropped_are_counted_between_the_nearest_readings() {
        let mut seen = record(ms(1_000), |_| (0, 0, 0, Duration::ZERO));
        for (number, moment) in (0..).zip(&mut seen.0) {
            let pipe = moment.links.as_mut().and_then(|links| links.links.get_mut(0)?.get_mut(1)).unwrap();
            pipe.counters.offered_pkts = 10 * number;
            pipe.counters.drops.loss_pkts = number;
        }
        let part = seen.link_bytes(0, Direction::Down, ms(300), ms(400)).unwrap();
        assert_eq!((part.offered_pkts, part.dropped_pkts), (90, 9));
    }

    #[test]
    fn a_device_is_found_by_its_whole_name() {
        let table =
            "Inter-|   Receive\n face |bytes    packets\n    lo: 7 1\ntun-bond0: 9 1\n tun-bond: 1500 3 0\n";
        assert_eq!(received_by(table, "tun-bond"), Some(1_500));
        assert_eq!(received_by(table, "bond"), None);
    }
}
