//! The figures of each link while a load ran, every 100 ms, for a plot: columns that `cargo xtask
//! bench plot` reads, with the simulator's names. A figure that is not known is empty.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bonding_lab::{Direction, Host, Snapshot};
use serde_json::Value;

use crate::carrier::Running;

/// The time between two samples.
const PERIOD: Duration = Duration::from_millis(100);

/// The samples of a run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    csv: String,
}

impl Trace {
    /// Samples the emulator and the sending side of the bond until `stop`.
    pub(crate) fn record(
        running: &Running<'_>,
        direction: Direction,
        stop: &AtomicBool,
    ) -> anyhow::Result<Self> {
        let lab = running.lab;
        let sender = if direction == Direction::Down { Host::Server } else { Host::Client };
        let mut trace = Self {
            csv: "time_s,link,link_mbps,link_capacity_mbps,link_queue_ms,link_drops,rtt_ms,loss_permille,capacity_mbps\n".to_owned(),
        };
        let (start, mut last) = (lab.elapsed(), lab.snapshot());
        for number in 1_u32.. {
            std::thread::sleep((start + PERIOD * number).saturating_sub(lab.elapsed()));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let status = running.bond.as_ref().map(|bond| bond.status(sender)).transpose()?;
            let now = lab.snapshot();
            trace.add(running, direction, start, (&last, &now), status.as_ref());
            last = now;
        }
        Ok(trace)
    }

    fn add(
        &mut self,
        running: &Running<'_>,
        direction: Direction,
        start: Duration,
        (before, now): (&Snapshot, &Snapshot),
        status: Option<&Value>,
    ) {
        let span = now.at.saturating_sub(before.at).as_secs_f64().max(1e-3);
        for (index, link) in running.lab.scenario().links.iter().enumerate() {
            let pipe = |snapshot: &Snapshot| snapshot.pipe(index, direction).copied();
            let (Some(first), Some(pipe)) = (pipe(before), pipe(now)) else { continue };
            let bytes = pipe.counters.delivered_bytes - first.counters.delivered_bytes;
            let capacity = running.lab.link_capacity_bps(index, direction, before.at, now.at);
            let drops = pipe.counters.drops.total_pkts() - first.counters.drops.total_pkts();
            let queue = pipe.queue_delay.map_or(String::new(), |delay| number(delay.as_secs_f64() * 1e3));
            let said = |key: &str| {
                let status = status?.pointer(&format!("/links/{index}/{key}"))?;
                Some(number(status.as_f64()?))
            };
            // Writing to a string does not fail.
            let _ = writeln!(
                self.csv,
                "{:.2},{},{},{},{queue},{drops},{},{},{}",
                now.at.saturating_sub(start).as_secs_f64(),
                link.name,
                number(bytes as f64 * 8e-6 / span),
                number(capacity.unwrap_or(0) as f64 / 1e6),
                said("rtt_ms").unwrap_or_default(),
                said("loss_permille").unwrap_or_default(),
                said("capacity_mbps").unwrap_or_default(),
            );
        }
    }

    /// A line per link and sample, below a head.
    pub(crate) fn to_csv(&self) -> &str {
        &self.csv
    }
}

fn number(value: f64) -> String {
    format!("{value:.2}")
}
