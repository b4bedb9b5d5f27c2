//! What is looked at while a load runs: the emulator's links, and what arrives at the receiving host.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bonding_lab::tools::percentile;
use bonding_lab::{Direction, HostRef, Lab, Snapshot};

/// How often the receiving devices are read: short against the pauses of interest, long against the cost of a look.
const PERIOD: Duration = Duration::from_millis(10);
/// The emulator is asked every second time.
const EVERY: u32 = 2;

/// One look.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    /// As [`Lab::elapsed`] counts.
    pub(crate) at: Duration,
    /// Arrived so far on the devices watched.
    pub(crate) received_bytes: u64,
    /// The emulator, at every second look.
    pub(crate) links: Option<Snapshot>,
}

/// All looks, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record(pub(crate) Vec<Moment>);

/// Looks until `stop`, from a thread of `host`.
pub(crate) fn watch(
    lab: &Lab,
    host: HostRef,
    devices: &[String],
    stop: &AtomicBool,
) -> anyhow::Result<Record> {
    host.run(|| {
        let (start, mut record) = (Instant::now(), Record::default());
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

/// Of this thread's network namespace, not of the process's.
fn received(devices: &[String]) -> anyhow::Result<u64> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let mut sum = 0;
    for line in table.lines() {
        let Some((name, figures)) = line.trim_start().split_once(':') else { continue };
        if devices.iter().any(|device| device == name) {
            let bytes = figures.split_whitespace().next().context("no counter")?;
            sum += bytes.parse::<u64>()?;
        }
    }
    Ok(sum)
}

impl Record {
    /// The longest time in `from..to` in which nothing arrived.
    pub(crate) fn longest_pause(&self, from: Duration, to: Duration) -> Duration {
        let (mut longest, mut since, mut known) = (Duration::ZERO, from, None);
        for moment in self.0.iter().filter(|moment| (from..to).contains(&moment.at)) {
            if known != Some(moment.received_bytes) {
                known = Some(moment.received_bytes);
                since = moment.at;
            }
            longest = longest.max(moment.at.saturating_sub(since));
        }
        longest
    }

    /// When, counted from `start`, what arrived in the half second before first came to `wanted(from, to)` bytes.
    pub(crate) fn first_reached(
        &self,
        start: Duration,
        wanted: impl Fn(Duration, Duration) -> f64,
    ) -> Option<Duration> {
        const SPAN: Duration = Duration::from_millis(500);
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

    /// A percentile over a link's queue at all looks in `from..to`.
    pub(crate) fn queue_percentile(
        &self,
        index: usize,
        direction: Direction,
        from: Duration,
        to: Duration,
        permille: usize,
    ) -> Option<Duration> {
        let pipes = self.snapshots(from, to).filter_map(|links| links.links.get(index));
        let delays: Vec<Duration> =
            pipes.filter_map(|pipes| pipes.get(direction as usize)?.queue_delay).collect();
        percentile(&delays, permille)
    }

    /// The bytes that link `index` delivered and was offered in one direction from `from` to `to`, and the time between the
    /// two looks that are nearest.
    pub(crate) fn link_bytes(
        &self,
        index: usize,
        direction: Direction,
        from: Duration,
        to: Duration,
    ) -> Option<LinkBytes> {
        let mut looks = self.snapshots(from, to);
        let first = looks.next()?;
        let last = looks.last()?;
        let counters = |links: &Snapshot| Some(links.links.get(index)?.get(direction as usize)?.counters);
        let (before, after) = (counters(first)?, counters(last)?);
        Some(LinkBytes {
            delivered: after.delivered_bytes - before.delivered_bytes,
            offered: after.offered_bytes - before.offered_bytes,
            span: last.at - first.at,
        })
    }

    /// How long after `change` link `index` needs until it is offered and delivers `bps` within a tenth, both on the mean of the half
    /// second that begins then. `end`: where the rate changes again.
    pub(crate) fn settled(
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

/// What went through one direction of a link between two looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkBytes {
    pub(crate) delivered: u64,
    pub(crate) offered: u64,
    pub(crate) span: Duration,
}

impl LinkBytes {
    /// Bits per second delivered.
    pub(crate) fn delivered_bps(self) -> f64 {
        self.delivered as f64 * 8.0 / self.span.as_secs_f64().max(1e-3)
    }
}
