//! What is observed while a transfer runs: pauses in what arrives, memory and processor time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bonding_lab::HostRef;

/// How often a device's counter is read: short against the pauses of interest, long against the cost of a look.
const PERIOD: Duration = Duration::from_millis(5);

/// Watches how much arrives at a device.
#[derive(Debug)]
pub(crate) struct Arrivals {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Vec<(Duration, u64)>>>,
}

impl Arrivals {
    /// Begins to watch `device` of `host`; times count from now.
    pub(crate) fn watch(host: HostRef, device: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, device) = (Arc::clone(&stop), device.to_owned());
        let thread = std::thread::spawn(move || host.run(|| sample(&device, &stopped))?);
        Self { stop, thread }
    }

    /// The longest time between `from` and `to` in which nothing arrived.
    pub(crate) fn longest_pause(self, from: Duration, to: Duration) -> anyhow::Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let samples = self.thread.join().map_err(|_| anyhow::anyhow!("the watching thread panicked"))??;
        let (mut longest, mut since, mut known) = (Duration::ZERO, from, None);
        for (at, bytes) in samples.into_iter().filter(|(at, _)| (from..to).contains(at)) {
            if known != Some(bytes) {
                known = Some(bytes);
                since = at;
            }
            longest = longest.max(at.saturating_sub(since));
        }
        Ok(longest)
    }
}

fn sample(device: &str, stop: &AtomicBool) -> anyhow::Result<Vec<(Duration, u64)>> {
    let start = Instant::now();
    let mut samples = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        // Of this thread's network namespace, not of the process's.
        let table = std::fs::read_to_string("/proc/thread-self/net/dev")?;
        let mut lines = table.lines().filter_map(|line| line.trim_start().split_once(':'));
        let (_, figures) = lines.find(|(name, _)| *name == device).context("the device is gone")?;
        let bytes = figures.split_whitespace().next().context("no counter")?.parse()?;
        samples.push((start.elapsed(), bytes));
        std::thread::sleep(PERIOD);
    }
    Ok(samples)
}

/// Peak resident memory of a process so far, in bytes.
pub(crate) fn peak_rss_bytes(process_id: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmHWM is no number")?;
    Ok(kib * 1_024)
}

/// Processor time that a process has used so far.
pub(crate) fn cpu_time(process_id: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat"))?;
    // proc_pid_stat(5): utime and stime are fields 14 and 15; the name in field 2 may hold spaces.
    let behind_name = stat.rsplit_once(") ").context("no fields")?.1;
    let fields = behind_name.split(' ').skip(11).take(2);
    let ticks: u64 =
        fields.map(|field| field.parse::<u64>().context("a time is no number")).sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second()))
}
