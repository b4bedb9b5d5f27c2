//! Short downloads and uploads by turns: what each carries beside the first of its direction.

use std::time::Duration;

use bonding_lab::Host;
use bonding_lab::tools::{Iperf3, IperfDirection};

use crate::carrier::Running;
use crate::measure::Figures;

/// The length of a turn.
const TURN: Duration = Duration::from_secs(5);

/// Runs `each` downloads and uploads.
pub(crate) fn measure(running: &Running<'_>, each: u32) -> anyhow::Result<Figures> {
    let _server = running.iperf3_server()?;
    let mut figures = Figures::new();
    let ways = [(IperfDirection::Download, "down"), (IperfDirection::Upload, "up")];
    let mut rates = [Vec::new(), Vec::new()];
    for turn in 1..=each {
        for ((direction, name), rates) in ways.into_iter().zip(&mut rates) {
            let mut iperf3 = Iperf3::new(running.server, direction);
            (iperf3.duration, iperf3.omit) = (TURN, Duration::ZERO);
            iperf3.congestion = Some("cubic".to_owned());
            let mbps = match iperf3.run(running.lab, running.lab.host(Host::Client)) {
                Ok(report) => report.goodput_bps / 1e6,
                // A tunnel through which iperf3 cannot finish carries nothing.
                Err(error) => {
                    eprintln!("  turn {turn} {name}: {error}");
                    0.0
                }
            };
            figures.insert(format!("turn_{turn:02}_{name}_mbps"), mbps);
            rates.push(mbps);
        }
    }
    for ((_, name), rates) in ways.into_iter().zip(rates) {
        let first = rates.first().copied().unwrap_or(0.0);
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        figures.insert(format!("first_{name}_mbps"), first);
        figures.insert(format!("turns_{name}_percent"), least * 1e2 / first.max(1e-3));
    }
    Ok(figures)
}
