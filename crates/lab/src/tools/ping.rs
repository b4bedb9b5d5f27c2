//! `ping`: round-trip times as the kernel measures them.

use std::net::IpAddr;
use std::time::Duration;

use super::percentile;
use crate::error::LabError;
use crate::host::HostRef;

/// A series of ICMP echo requests.
#[derive(Debug, Clone)]
pub struct Ping {
    /// The host to ask.
    pub target: IpAddr,
    /// How many requests.
    pub count: u32,
    /// The time between two requests; at least 2 ms.
    pub interval: Duration,
    /// The device to send from; else the one of the route.
    pub device: Option<String>,
    /// The payload in bytes; the packet has 28 more (IPv6: 48).
    pub payload_bytes: u16,
    /// How long to wait for the last answer.
    pub wait: Duration,
}

impl Ping {
    /// Twenty requests at 50 ms, 56 bytes each.
    pub const fn new(target: IpAddr) -> Self {
        Self {
            target,
            count: 20,
            interval: Duration::from_millis(50),
            device: None,
            payload_bytes: 56,
            wait: Duration::from_secs(2),
        }
    }

    /// Asks from `host`. Unanswered requests are no error: the report counts them.
    ///
    /// # Errors
    /// When `ping` is missing, or gives no statistics (no route, bad device).
    pub fn run(&self, host: HostRef) -> Result<PingReport, LabError> {
        let mut command = host.command("ping");
        command.args(["-n", "-c", &self.count.to_string()]);
        command.args(["-i", &format!("{:.3}", self.interval.as_secs_f64())]);
        command.args(["-s", &self.payload_bytes.to_string()]);
        command.args(["-W", &format!("{:.3}", self.wait.as_secs_f64())]);
        if let Some(device) = &self.device {
            command.args(["-I", device]);
        }
        command.arg(self.target.to_string());
        let output = command
            .output()
            .map_err(|source| LabError::Run { program: format!("ping {}", self.target), source })?;
        // Exit code 1 says that answers are missing; the statistics are there all the same.
        let text = String::from_utf8_lossy(&output.stdout);
        parse(&text).ok_or_else(|| LabError::Failed {
            command: format!("ping {}", self.target),
            status: output.status.to_string(),
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

/// The answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// Requests answered.
    pub received: u32,
    /// The round-trip time of each answer, in order of arrival, duplicates left out, with its
    /// request's number (from 1).
    pub rtts: Vec<(u32, Duration)>,
    /// Answers that came more than once.
    pub duplicates: u32,
}

impl PingReport {
    /// The percentile of the round-trip times; see [`percentile`].
    pub fn percentile(&self, permille: usize) -> Option<Duration> {
        let rtts: Vec<_> = self.rtts.iter().map(|(_, rtt)| *rtt).collect();
        percentile(&rtts, permille)
    }

    /// The median.
    pub fn median(&self) -> Option<Duration> {
        self.percentile(500)
    }

    /// The share of requests without an answer, 0 to 1.
    pub fn loss_ratio(&self) -> f64 {
        if self.sent == 0 {
            0.0
        } else {
            f64::from(self.sent.saturating_sub(self.received)) / f64::from(self.sent)
        }
    }
}

fn parse(text: &str) -> Option<PingReport> {
    let mut report = PingReport::default();
    let mut complete = false;
    for line in text.lines() {
        if let Some((sent, rest)) = line.split_once(" packets transmitted, ") {
            report.sent = sent.trim().parse().ok()?;
            report.received = rest.split_once(' ')?.0.parse().ok()?;
            complete = true;
        } else if let Some((_, rest)) = line.split_once("icmp_seq=") {
            let Some((_, time)) = rest.split_once("time=") else {
                continue;
            };
            if line.contains("DUP!") {
                report.duplicates += 1;
                continue;
            }
            let number = rest.split(' ').next()?.parse().ok()?;
            let millis: f64 = time.split(' ').next()?.parse().ok()?;
            report.rtts.push((number, Duration::try_from_secs_f64(millis / 1_000.0).ok()?));
        }
    }
    complete.then_some(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ping_prints() {
        let text = "PING 203.0.113.7 (203.0.113.7) 56(84) bytes of data.\n\
            64 bytes from 203.0.113.7: icmp_seq=1 ttl=64 time=20.1 ms\n\
            64 bytes from 203.0.113.7: icmp_seq=1 ttl=64 time=21.1 ms (DUP!)\n\
            From 10.0.0.1 icmp_seq=2 Destination Host Unreachable\n\
            64 bytes from 203.0.113.7: icmp_seq=3 ttl=64 time=0.050 ms\n\n\
            --- 203.0.113.7 ping statistics ---\n\
            3 packets transmitted, 2 received, +1 duplicates, 33.3333% packet loss, time 100ms\n\
            rtt min/avg/max/mdev = 20.100/20.200/20.300/0.100 ms\n";
        let report = parse(text).unwrap();
        assert_eq!((report.sent, report.received, report.duplicates), (3, 2, 1));
        assert_eq!(report.rtts, [(1, Duration::from_micros(20_100)), (3, Duration::from_micros(50))]);
        assert!((report.loss_ratio() - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(parse("ping: connect: Network is unreachable"), None);
    }
}
