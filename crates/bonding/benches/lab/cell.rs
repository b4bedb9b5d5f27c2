//! One cell of the table: who carries the transfer, which way, over how many flows; and what one run of it gives.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bonding_lab::tools::{Echo, EchoServer, Iperf3, Iperf3Server, IperfDirection, Ping};
use bonding_lab::{Direction, Host, Lab, LabOptions, Scenario, addr};
use bonding_proto::config::Security;

use crate::harness::bond::{SERVER_V4, TUNNEL};
use crate::harness::{Bond, Options};
use crate::probe::{Arrivals, cpu_time, peak_rss_bytes};

/// A transfer's slow start, which is not measured.
const OMIT: Duration = Duration::from_secs(2);
/// A game's or a call's packets.
const ECHOES_PER_SECOND: u32 = 50;
const ECHO_PORT: u16 = 7_000;
const IPERF_PORT: u16 = 5_201;
/// Payload of a full packet through the bond: see the crate's head.
const fn payload_share(security: Security) -> f64 {
    match security {
        Security::Sealed => 1_377.0 / 1_500.0,
        Security::Plain => 1_409.0 / 1_500.0,
    }
}

/// Who carries the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// The kernel, over this link alone.
    Single(usize),
    /// The bond, with this policy, over links of this kind.
    Bond(&'static str, Security),
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) carrier: Carrier,
    pub(crate) direction: IperfDirection,
    pub(crate) flows: u16,
    pub(crate) duration: Duration,
}

/// Figures of a bond beyond its goodput.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BondFigures {
    /// Round-trip time of a ping before the transfer.
    pub(crate) idle_ms: f64,
    /// Round-trip times and losses of the echo during the transfer.
    pub(crate) echo_p50_ms: f64,
    pub(crate) echo_p99_ms: f64,
    pub(crate) echo_lost_permille: f64,
    /// The longest time in which nothing arrived for the transfer.
    pub(crate) pause_ms: f64,
    /// Peak resident memory of the larger of the two processes.
    pub(crate) rss_mib: f64,
    /// Processor time per time.
    pub(crate) client_cpu: f64,
    pub(crate) server_cpu: f64,
}

/// What one run gives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) goodput_mbps: f64,
    /// What the bond of all links could carry in that time.
    pub(crate) attainable_mbps: f64,
    pub(crate) retransmits: u64,
    pub(crate) bond: Option<BondFigures>,
    /// Wake-ups of the emulator that were over a millisecond late: many of them spoil the figures.
    pub(crate) emulator_late: u64,
    pub(crate) emulator_cpu: f64,
}

impl Cell {
    pub(crate) fn title(&self) -> String {
        let way = way(self.direction);
        match self.carrier {
            Carrier::Single(index) => format!("link {index} alone, {way}, {} flow(s)", self.flows),
            Carrier::Bond(policy, security) => {
                format!("bond {policy} {security:?}, {way}, {} flow(s)", self.flows)
            }
        }
    }

    /// Measures once, on hosts of its own; `seed` picks the packets that are lost.
    pub(crate) fn run(&self, scenario: &Scenario, seed: u64) -> anyhow::Result<Sample> {
        let lab = Lab::start(scenario, LabOptions { seed, ..LabOptions::default() })?;
        match self.carrier {
            Carrier::Single(index) => self.run_single(&lab, index),
            Carrier::Bond(policy, security) => self.run_bond(&lab, policy, security),
        }
    }

    fn run_single(&self, lab: &Lab, index: usize) -> anyhow::Result<Sample> {
        let device = lab.scenario().links.get(index).context("no such link")?.name.clone();
        let _server = Iperf3Server::start(lab, lab.host(Host::Server), IPERF_PORT)?;
        self.transfer(lab, &Iperf3 { device: Some(device), ..self.iperf3(addr::SERVER_V4.into()) })
    }

    fn run_bond(&self, lab: &Lab, policy: &'static str, security: Security) -> anyhow::Result<Sample> {
        let bond = Bond::start(lab, Options { policy, security, ..Options::default() })?;
        let ping = Ping { count: 40, ..Ping::new(SERVER_V4) }.run(lab.host(Host::Client))?;
        let _iperf3 = Iperf3Server::start(lab, lab.host(Host::Server), IPERF_PORT)?;
        let target = SocketAddr::new(SERVER_V4, ECHO_PORT);
        let _echo_server = EchoServer::start(lab.host(Host::Server), target)?;
        let receiver = match self.direction {
            IperfDirection::Download => Host::Client,
            IperfDirection::Upload => Host::Server,
        };
        let (client, server) = (bond.process(Host::Client)?.id(), bond.process(Host::Server)?.id());
        let cpu_before = (cpu_time(client)?, cpu_time(server)?);
        let start = Instant::now();
        let arrivals = Arrivals::watch(lab.host(receiver), TUNNEL);
        let echo = Echo::start(lab.host(Host::Client), target, ECHOES_PER_SECOND, None)?;
        let measured = self.transfer(lab, &self.iperf3(SERVER_V4));
        let wall = start.elapsed().as_secs_f64();
        let cpu = (cpu_time(client)?, cpu_time(server)?);
        let window = (OMIT, OMIT + self.duration);
        let pause = arrivals.longest_pause(window.0, window.1)?;
        bond.alive()?;
        let mut sample = measured?;
        let echoes = echo.report().between(window.0, window.1);
        let rss_bytes = peak_rss_bytes(client)?.max(peak_rss_bytes(server)?);
        sample.bond = Some(BondFigures {
            idle_ms: millis(ping.median()),
            echo_p50_ms: millis(echoes.percentile(500)),
            echo_p99_ms: millis(echoes.percentile(990)),
            echo_lost_permille: echoes.loss_ratio() * 1e3,
            pause_ms: millis(Some(pause)),
            rss_mib: rss_bytes as f64 / f64::from(1 << 20),
            client_cpu: cpu.0.saturating_sub(cpu_before.0).as_secs_f64() / wall,
            server_cpu: cpu.1.saturating_sub(cpu_before.1).as_secs_f64() / wall,
        });
        bond.stop()?;
        Ok(sample)
    }

    /// A link alone is compared with what the sealed bond could carry.
    const fn security(&self) -> Security {
        match self.carrier {
            Carrier::Single(_) => Security::Sealed,
            Carrier::Bond(_, security) => security,
        }
    }

    fn iperf3(&self, server: std::net::IpAddr) -> Iperf3 {
        let mut iperf3 = Iperf3::new(server, self.direction);
        iperf3.flows = self.flows;
        iperf3.duration = self.duration;
        iperf3.omit = OMIT;
        iperf3.congestion = Some("cubic".to_owned());
        iperf3
    }

    fn transfer(&self, lab: &Lab, iperf3: &Iperf3) -> anyhow::Result<Sample> {
        let before = lab.driver_stats();
        let start = Instant::now();
        lab.start_clock();
        let from = lab.elapsed() + OMIT;
        let report = iperf3.run(lab, lab.host(Host::Client))?;
        let direction = match self.direction {
            IperfDirection::Download => Direction::Down,
            IperfDirection::Upload => Direction::Up,
        };
        let capacity =
            lab.capacity_bps(direction, from, from + self.duration).context("an unlimited link")?;
        let after = lab.driver_stats();
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64() / start.elapsed().as_secs_f64();
        Ok(Sample {
            goodput_mbps: report.goodput_bps / 1e6,
            attainable_mbps: capacity as f64 / 1e6 * payload_share(self.security()),
            retransmits: report.retransmits,
            bond: None,
            emulator_late: after.late_wakeups.saturating_sub(before.late_wakeups),
            emulator_cpu: cpu,
        })
    }
}

pub(crate) const fn way(direction: IperfDirection) -> &'static str {
    match direction {
        IperfDirection::Download => "down",
        IperfDirection::Upload => "up",
    }
}

fn millis(span: Option<Duration>) -> f64 {
    span.map_or(f64::NAN, |span| span.as_secs_f64() * 1e3)
}
