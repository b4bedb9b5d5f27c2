//! Loads, and the figures under each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bonding_lab::tools::{Iperf3, Iperf3Server, IperfDirection, Ping};
use bonding_lab::{Host, Lab, LabOptions};
use bonding_netem::{LinkSpec, Rate, Scenario, scenario};
use bonding_testkit::probe::cpu_time;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use crate::ENDS;
use crate::carrier::{Carrier, Running};
use crate::small;

const PORT: u16 = 5_201;
/// The rate of `paced`.
const PACED_BPS: u64 = 300_000_000;

/// Figures by name.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// The traffic of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// One TCP flow, download
    Bulk,
    /// One TCP flow limited to 300 Mbit/s
    Paced,
    /// One TCP flow over emulated links of 290 Mbit/s together
    Reference,
    /// Packets of 100 bytes, one flow
    Small,
    /// Packets of 100 bytes, 1,000 flows
    #[value(name = "small-1000")]
    #[serde(rename = "small-1000")]
    Small1000,
    /// Packets of 100 bytes, one flow, 64 to a send
    SmallBatch,
    /// Only pings
    Latency,
    /// No traffic
    Idle,
}

impl Load {
    pub(crate) const ALL: [Self; 8] = [
        Self::Bulk,
        Self::Paced,
        Self::Reference,
        Self::Small,
        Self::Small1000,
        Self::SmallBatch,
        Self::Latency,
        Self::Idle,
    ];

    /// Whether the load suits this carrier: the links of `reference` are five.
    pub(crate) const fn is_for(self, carrier: Carrier) -> bool {
        !matches!((self, carrier), (Self::Reference, Carrier::Bond4 | Carrier::Bond16))
    }

    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// How one carrier is measured under one load.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seconds: u64,
    /// A folder of programs that are not in the PATH.
    pub(crate) peers: Option<PathBuf>,
}

/// What the tunnel has used so far.
struct Used {
    at: Instant,
    cpu: Vec<Duration>,
    wakeups: u64,
    /// Packets and system calls at the two sockets and devices.
    calls: Option<(f64, f64)>,
}

impl Plan {
    /// New hosts, a new tunnel, one load.
    pub(crate) fn run(&self, carrier: Carrier, load: Load) -> anyhow::Result<Figures> {
        let lab = if load == Load::Reference {
            Lab::start(&emulated(carrier)?, LabOptions::default())?
        } else {
            Lab::start_wired(carrier.links())?
        };
        let running = Running::start(&lab, carrier, self.peers.as_deref())?;
        let figures = match load {
            Load::Bulk | Load::Reference => self.transfer(&running, None),
            Load::Paced => self.transfer(&running, Some(PACED_BPS)),
            Load::Small => self.small(&running, 1, false),
            Load::Small1000 => self.small(&running, 1_000, false),
            Load::SmallBatch => self.small(&running, 1, true),
            Load::Latency => latency(&running),
            Load::Idle => self.idle(&running),
        }?;
        running.stop()?;
        Ok(figures)
    }

    fn transfer(&self, running: &Running<'_>, pace_bps: Option<u64>) -> anyhow::Result<Figures> {
        let lab = running.lab;
        let _server = Iperf3Server::start(lab, lab.host(Host::Server), PORT)?;
        let seconds = Duration::from_secs(self.seconds);
        let iperf3 = |duration| Iperf3 {
            duration,
            omit: Duration::ZERO,
            congestion: Some("cubic".to_owned()),
            tcp_bps: pace_bps,
            ..Iperf3::new(running.server, IperfDirection::Download)
        };
        // The tunnel finds its rates first: the processor time of the whole transfer counts.
        iperf3(Duration::from_secs(2)).run(lab, lab.host(Host::Client))?;
        let before = used(running)?;
        let report = iperf3(seconds).run(lab, lab.host(Host::Client))?;
        let after = used(running)?;
        let gigabytes = report.received_bytes as f64 / 1e9;
        let mut figures = Figures::new();
        figures.insert("gbit_s", report.goodput_bps / 1e9);
        figures.insert("retransmits", report.retransmits as f64);
        cpu_figures(&before, &after, gigabytes, "cpu_s_per_gb", &mut figures);
        Ok(figures)
    }

    fn small(&self, running: &Running<'_>, flows: u16, batches: bool) -> anyhow::Result<Figures> {
        let warm_up = Duration::from_secs(1);
        small::blast(running, flows, batches, warm_up)?;
        let before = used(running)?;
        let (received, span) = small::blast(running, flows, batches, Duration::from_secs(self.seconds))?;
        let after = used(running)?;
        let mut figures = Figures::new();
        figures.insert("kpps", received as f64 / span.as_secs_f64() / 1e3);
        // Seconds per million packets are microseconds per packet.
        cpu_figures(&before, &after, received as f64 / 1e6, "cpu_us_per_packet", &mut figures);
        Ok(figures)
    }

    fn idle(&self, running: &Running<'_>) -> anyhow::Result<Figures> {
        std::thread::sleep(Duration::from_secs(2));
        let before = used(running)?;
        std::thread::sleep(Duration::from_secs(2 * self.seconds));
        let after = used(running)?;
        let seconds = (after.at - before.at).as_secs_f64();
        let cpu = |used: &Used| used.cpu.first().copied().unwrap_or_default().as_secs_f64();
        let mut figures = Figures::new();
        figures.insert("client_cpu_percent", (cpu(&after) - cpu(&before)) / seconds * 1e2);
        figures.insert("client_wakeups_s", (after.wakeups - before.wakeups) as f64 / seconds);
        Ok(figures)
    }
}

/// The links of `reference`; a carrier over one link gets one that carries as much.
fn emulated(carrier: Carrier) -> anyhow::Result<Scenario> {
    let mut scenario = scenario::builtin("reference")?;
    if !matches!(carrier, Carrier::Plain | Carrier::Bond | Carrier::Packets) {
        let bps = |link: &LinkSpec| link.down.rate.mean_bps();
        let sum: u64 = scenario.links.iter().filter_map(bps).sum();
        scenario.links = scenario.links.split_off(scenario.links.len() - 1);
        for link in &mut scenario.links {
            (link.up.rate, link.down.rate) = (Rate::from_bps(sum), Rate::from_bps(sum));
        }
    }
    Ok(scenario)
}

fn cpu_figures(before: &Used, after: &Used, amount: f64, name: &'static str, figures: &mut Figures) {
    let spent: Vec<f64> =
        before.cpu.iter().zip(&after.cpu).map(|(before, after)| (*after - *before).as_secs_f64()).collect();
    if let [client, server] = spent.as_slice() {
        figures.insert(name, (client + server) / amount);
        figures.insert("client_cpu_s", *client);
        figures.insert("server_cpu_s", *server);
    }
    if let (Some((packets, calls)), Some((packets_before, calls_before))) = (after.calls, before.calls) {
        figures.insert("packets_per_call", (packets - packets_before) / (calls - calls_before).max(1.0));
    }
}

fn used(running: &Running<'_>) -> anyhow::Result<Used> {
    let ids = running.process_ids()?;
    let cpu = ids.iter().map(|id| cpu_time(*id)).collect::<Result<_, _>>()?;
    let wakeups = ids.first().map_or(Ok(0), |id| wakeups(*id))?;
    let calls = match running.bond() {
        Some(bond) => {
            let both = ENDS.map(|host| bond.status(host).map(|status| calls(&status)));
            let mut sum = (0.0, 0.0);
            for one in both {
                let (packets, calls) = one?;
                sum = (sum.0 + packets, sum.1 + calls);
            }
            Some(sum)
        }
        None => None,
    };
    Ok(Used { at: Instant::now(), cpu, wakeups, calls })
}

/// Packets through the device and the sockets, and the system calls for them.
fn calls(status: &Value) -> (f64, f64) {
    let of = |name: &str| status.pointer(&format!("/io/{name}")).and_then(Value::as_f64).unwrap_or(0.0);
    let packets = ["tun_packets_in", "tun_packets_out", "udp_received", "udp_sent"].map(of).iter().sum();
    let calls = ["tun_reads", "tun_writes", "udp_receive_calls", "udp_send_calls"].map(of).iter().sum();
    (packets, calls)
}

/// How often a process slept, waiting for input.
fn wakeups(process_id: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(line.unwrap_or("0").trim().parse()?)
}

fn latency(running: &Running<'_>) -> anyhow::Result<Figures> {
    // Below 10 ms ping waits by spinning, on a processor that the tunnel needs.
    let ping = Ping { count: 400, interval: Duration::from_millis(11), ..Ping::new(running.server) };
    let report = ping.run(running.lab.host(Host::Client))?;
    let mut figures = Figures::new();
    for (name, permille) in [("p50_us", 500), ("p99_us", 990)] {
        if let Some(rtt) = report.percentile(permille) {
            figures.insert(name, rtt.as_secs_f64() * 1e6);
        }
    }
    Ok(figures)
}
