//! A wire of this machine at full speed, then limited to a slow link's rate while downloads run.
//!
//! The emulator does not reach a gigabit, the kernel does: veth pairs, and a switch between them
//! that limits what it passes on. So the ends notice only what comes late or not at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bonding_lab::tools::{IperfDirection, Record};

use crate::carrier::{Running, SEALED_BYTES};
use crate::flows::Flows;
use crate::measure::Figures;
use crate::rows::{CUBIC, Timing, Transfer};

/// The name in the table; there is no scenario file.
pub(crate) const SCENARIO: &str = "wire";
/// The rate afterwards.
const SLOW_BPS: u64 = 30_000_000;
/// What waits longer in the switch is dropped: as in the scenarios.
const QUEUE: Duration = Duration::from_millis(100);
/// Full speed for so long.
const FAST: Duration = Duration::from_secs(4);
/// A link must have its new rate after this.
const SETTLING: Duration = Duration::from_secs(3);
/// What is measured after that.
const MEASURED: Duration = Duration::from_secs(8);
/// The window in which a rate counts.
const SPAN: Duration = Duration::from_millis(500);
/// A wire's frames have a header of Ethernet, which the switch counts.
const ETHERNET_BYTES: f64 = 14.0;

/// Downloads over the wire before and after its limit.
pub(crate) fn measure(running: &Running<'_>) -> anyhow::Result<Figures> {
    let lab = running.lab;
    let transfer = Transfer { direction: IperfDirection::Download, flows: 4, protocol: CUBIC };
    let timing = Timing { start: Duration::ZERO, omit: Duration::ZERO, measured: FAST + SETTLING + MEASURED };
    let flows = Flows::start(running, transfer.protocol)?;
    let (host, devices) = running.receiving(transfer.direction);
    let (start, stop) = (lab.elapsed(), AtomicBool::new(false));
    let (record, limited) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| Record::watch(lab, lab.host(host), &devices, &stop));
        let limiting = scope.spawn(|| {
            std::thread::sleep((start + FAST).saturating_sub(lab.elapsed()));
            lab.limit(0, SLOW_BPS, QUEUE).map(|()| lab.elapsed())
        });
        let ran = flows.run(running, transfer, timing);
        stop.store(true, Ordering::Relaxed);
        let (record, limited) = (watching.join(), limiting.join());
        ran.map(|_| (record, limited))
    })?;
    let panicked = |_| anyhow::anyhow!("a watching thread panicked");
    let (record, limited) = (record.map_err(panicked)??, limited.map_err(panicked)??);
    let mtu = running.tunnel_mtu()?;
    // Of the packets on the tunnel's device.
    let slow_bps = SLOW_BPS as f64 * mtu / (mtu + SEALED_BYTES + ETHERNET_BYTES);
    let (settled, end) = (limited + SETTLING, start + timing.measured);
    let rate = |from, to| record.received_bps(from, to).context("nothing was recorded");
    let mut figures = Figures::new();
    let mut put = |name: &str, value: f64| figures.insert(name.to_owned(), value);
    put("fast_mbps", rate(start + FAST / 2, limited)? / 1e6);
    put("kept_percent", rate(settled, end)? * 1e2 / slow_bps);
    // From when on no half second had less.
    let (mut from, mut lasting) = (limited, limited);
    while from + SPAN <= end {
        if rate(from, from + SPAN)? < 0.9 * slow_bps {
            lasting = from + SPAN;
        }
        from += SPAN / 10;
    }
    put("lasting_s", lasting.saturating_sub(limited).as_secs_f64());
    Ok(figures)
}
