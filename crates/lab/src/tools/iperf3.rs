//! `iperf3`: bulk transfers over the kernel's TCP and UDP.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use crate::error::LabError;
use crate::host::HostRef;
use crate::lab::Lab;
use crate::process::Process;

/// iperf3's own default.
const PORT: u16 = 5_201;

/// A waiting `iperf3` server; ends when dropped.
#[derive(Debug)]
pub struct Iperf3Server {
    _process: Process,
}

impl Iperf3Server {
    /// Starts one on `host` and returns when it listens.
    ///
    /// # Errors
    /// When it cannot be started or the port is taken.
    pub fn start(lab: &Lab, host: HostRef, port: u16) -> Result<Self, LabError> {
        Self::start_command(lab, host.command("iperf3"), port)
    }

    /// As [`Iperf3Server::start`], for connections over Multipath TCP too (`mptcpize`).
    ///
    /// # Errors
    /// As [`Iperf3Server::start`].
    pub fn start_mptcp(lab: &Lab, host: HostRef, port: u16) -> Result<Self, LabError> {
        let mut command = host.command("mptcpize");
        command.args(["run", "iperf3"]);
        Self::start_command(lab, command, port)
    }

    fn start_command(lab: &Lab, mut command: Command, port: u16) -> Result<Self, LabError> {
        command.args(["--server", "--forceflush", "--port", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = lab.spawn(&mut command)?;
        let mut said = String::new();
        if let Some(stdout) = process.stdout.take() {
            let mut lines = BufReader::new(stdout);
            while !said.contains("listening") {
                if !matches!(lines.read_line(&mut said), Ok(1..)) {
                    return Err(LabError::Failed {
                        command: format!("iperf3 --server --port {port}"),
                        status: "ended".to_owned(),
                        message: said.trim().to_owned(),
                    });
                }
            }
            // Its further output must not fill the pipe.
            std::thread::spawn(move || std::io::copy(&mut lines.into_inner().by_ref(), &mut std::io::sink()));
        }
        Ok(Self { _process: process })
    }
}

/// Which way the data goes, seen from the host that runs the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IperfDirection {
    /// From the client to the server.
    Upload,
    /// From the server to the client.
    Download,
}

/// A transfer.
#[derive(Debug, Clone)]
pub struct Iperf3 {
    /// The server's address.
    pub server: IpAddr,
    /// The server's port.
    pub port: u16,
    /// Which way.
    pub direction: IperfDirection,
    /// Parallel connections.
    pub flows: u16,
    /// How long is measured.
    pub duration: Duration,
    /// How long it runs before that (whole seconds; slow start is not measured).
    pub omit: Duration,
    /// TCP's congestion control; else the kernel's default.
    pub congestion: Option<String>,
    /// TCP held to this rate in bits per second, all flows together.
    pub tcp_bps: Option<u64>,
    /// UDP at this rate in bits per second, all flows together, instead of TCP.
    pub udp_bps: Option<u64>,
    /// The payload of a UDP datagram.
    pub udp_payload_bytes: u16,
    /// The device to send from; else the one of the route.
    pub device: Option<String>,
    /// Over Multipath TCP, by `mptcpize`; the server must take it.
    pub mptcp: bool,
}

impl Iperf3 {
    /// One TCP flow for ten seconds after two that are not counted.
    pub const fn new(server: IpAddr, direction: IperfDirection) -> Self {
        Self {
            server,
            port: PORT,
            direction,
            flows: 1,
            duration: Duration::from_secs(10),
            omit: Duration::from_secs(2),
            congestion: None,
            tcp_bps: None,
            udp_bps: None,
            udp_payload_bytes: 1_400,
            device: None,
            mptcp: false,
        }
    }

    /// Runs the transfer from `host`. It ends by itself; a transfer whose connection dies is ended
    /// 15 s after its time.
    ///
    /// # Errors
    /// When the program is missing, cannot connect, or the connection dies; the message is
    /// iperf3's.
    pub fn run(&self, lab: &Lab, host: HostRef) -> Result<Iperf3Report, LabError> {
        let running = self.start(lab, host)?;
        running.finish()
    }

    /// Starts the transfer and returns at once.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(&self, lab: &Lab, host: HostRef) -> Result<Iperf3Run, LabError> {
        let arguments = self.arguments();
        let mut command = host.command(if self.mptcp { "mptcpize" } else { "iperf3" });
        if self.mptcp {
            command.args(["run", "iperf3"]);
        }
        command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = lab.spawn(&mut command)?;
        let stdout = process.stdout.take();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            if let Some(mut stdout) = stdout {
                // A report that cannot be read to its end is an error later.
                let _ = stdout.read_to_string(&mut text);
            }
            text
        });
        let limit = self.duration + self.omit + Duration::from_secs(15);
        Ok(Iperf3Run { command: format!("iperf3 {}", arguments.join(" ")), process, reader, limit })
    }

    fn arguments(&self) -> Vec<String> {
        let seconds = |span: Duration| span.as_secs_f64().ceil().to_string();
        let mut arguments = vec!["--json".to_owned()];
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        option("--client", self.server.to_string());
        option("--port", self.port.to_string());
        option("--parallel", self.flows.max(1).to_string());
        option("--time", seconds(self.duration));
        option("--omit", seconds(self.omit));
        option("--connect-timeout", "5000".to_owned());
        if let Some(congestion) = &self.congestion {
            option("--congestion", congestion.clone());
        }
        if let Some(device) = &self.device {
            option("--bind-dev", device.clone());
        }
        if let Some(bps) = self.udp_bps.or(self.tcp_bps) {
            option("--bitrate", (bps / u64::from(self.flows.max(1))).to_string());
        }
        if self.udp_bps.is_some() {
            option("--length", self.udp_payload_bytes.to_string());
            arguments.push("--udp".to_owned());
        }
        if self.direction == IperfDirection::Download {
            arguments.push("--reverse".to_owned());
        }
        arguments
    }
}

/// A transfer under way.
#[derive(Debug)]
pub struct Iperf3Run {
    command: String,
    process: Process,
    reader: std::thread::JoinHandle<String>,
    limit: Duration,
}

impl Iperf3Run {
    /// Waits for its end and reads its report.
    ///
    /// # Errors
    /// As [`Iperf3::run`].
    pub fn finish(self) -> Result<Iperf3Report, LabError> {
        let Self { command, process, reader, limit } = self;
        let ended = process.wait(limit).map_err(LabError::io(format!("wait for {command}")))?;
        if ended.is_none() {
            // SIGTERM makes it report what it has; a partial report is no measurement.
            drop(process);
            let message = format!("it did not end within {limit:?}: the connection is dead");
            return Err(LabError::Failed { command, status: "terminated".to_owned(), message });
        }
        let text = reader.join().unwrap_or_default();
        parse(&text, &command)
    }
}

/// The result of a transfer.
#[derive(Debug, Clone, PartialEq)]
pub struct Iperf3Report {
    /// Payload received per second over the measured time, all flows together, in bits.
    pub goodput_bps: f64,
    /// Payload received.
    pub received_bytes: u64,
    /// TCP segments sent again (UDP: none).
    pub retransmits: u64,
    /// UDP datagrams lost, 0 to 1 (TCP: 0).
    pub udp_loss_ratio: f64,
    /// Per second of the measured time, in bits per second: as the side that runs the client sent
    /// or received.
    pub intervals_bps: Vec<f64>,
    /// The TCP congestion control in use at the sender.
    pub congestion: Option<String>,
}

#[derive(Deserialize)]
struct Json {
    error: Option<String>,
    #[serde(default)]
    intervals: Vec<JsonInterval>,
    end: Option<JsonEnd>,
}

#[derive(Deserialize)]
struct JsonInterval {
    sum: JsonSum,
}

#[derive(Deserialize, Default)]
struct JsonEnd {
    sum: Option<JsonSum>,
    sum_sent: Option<JsonSum>,
    sum_received: Option<JsonSum>,
    sender_tcp_congestion: Option<String>,
}

#[derive(Deserialize, Default)]
struct JsonSum {
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    bits_per_second: f64,
    #[serde(default)]
    retransmits: u64,
    lost_percent: Option<f64>,
    #[serde(default)]
    omitted: bool,
}

fn parse(text: &str, command: &str) -> Result<Iperf3Report, LabError> {
    let bad = |message: String| LabError::Report { command: command.to_owned(), message };
    let json: Json = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
    if let Some(message) = json.error {
        return Err(LabError::Failed { command: command.to_owned(), status: "error".to_owned(), message });
    }
    let end = json.end.ok_or_else(|| bad("there is no 'end'".to_owned()))?;
    let udp = end.sum.as_ref().and_then(|sum| sum.lost_percent);
    let received = match (&end.sum_received, &end.sum) {
        (Some(received), _) if received.bytes > 0 => received,
        (_, Some(sum)) => sum,
        (Some(received), None) => received,
        (None, None) => return Err(bad("there is no sum".to_owned())),
    };
    // UDP: sent less lost datagrams, where iperf3 counts only those.
    let share = if end.sum_received.as_ref().is_some_and(|sum| sum.bytes > 0) {
        1.0
    } else {
        1.0 - udp.unwrap_or(0.0) / 100.0
    };
    Ok(Iperf3Report {
        goodput_bps: received.bits_per_second * share,
        received_bytes: received.bytes,
        retransmits: end.sum_sent.map_or(0, |sum| sum.retransmits),
        udp_loss_ratio: udp.unwrap_or(0.0) / 100.0,
        intervals_bps: json
            .intervals
            .iter()
            .filter(|interval| !interval.sum.omitted)
            .map(|interval| interval.sum.bits_per_second)
            .collect(),
        congestion: end.sender_tcp_congestion,
    })
}
