//! Memory and processor time of a process, and the load of the machine.

use std::time::Duration;

use anyhow::Context as _;

/// Peak resident memory of a process so far, in bytes.
pub fn peak_rss_bytes(process_id: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmHWM is no number")?;
    Ok(kib * 1_024)
}

/// Processor time that a process has used so far.
pub fn cpu_time(process_id: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat"))?;
    // proc_pid_stat(5): utime and stime are fields 14 and 15; the name in field 2 may hold spaces.
    let behind_name = stat.rsplit_once(") ").context("no fields")?.1;
    let fields = behind_name.split(' ').skip(11).take(2);
    let ticks: u64 =
        fields.map(|field| field.parse::<u64>().context("a time is no number")).sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second()))
}

/// Load of all processors together, in percent, over a third of a second. Before a benchmark starts
/// its programs, this is the load of other programs.
pub fn busy_percent() -> anyhow::Result<f64> {
    let before = processor_ticks()?;
    std::thread::sleep(Duration::from_millis(333));
    let after = processor_ticks()?;
    let (busy, all) = (after.0 - before.0, after.1 - before.1);
    Ok(busy as f64 * 1e2 / (all as f64).max(1.0))
}

/// Busy and all ticks of all processors.
///
/// proc_stat(5): the columns are user, nice, system, idle, iowait, irq, softirq, steal.
fn processor_ticks() -> anyhow::Result<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no cpu line")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>()?;
    let all: u64 = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}
