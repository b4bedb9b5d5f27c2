//! The figures of the demonstration: rates from counted bytes, latencies from an echo, and its
//! outcome.

use std::collections::VecDeque;
use std::time::Duration;

use bonding_lab::tools::EchoReport;

/// Megabits per second of `bytes` in `span`.
pub(crate) fn mbps(bytes: u64, span: Duration) -> f64 {
    if span.is_zero() { 0.0 } else { bytes as f64 * 8.0 / span.as_secs_f64() / 1e6 }
}

/// A counter's readings over time, from which rates follow.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readings(VecDeque<(Duration, u64)>);

impl Readings {
    /// The counter's value at a time since the start; times do not go back.
    pub(crate) fn push(&mut self, at: Duration, bytes: u64) {
        self.0.push_back((at, bytes));
    }

    /// The rate over the last `span` of readings.
    pub(crate) fn mbps_over_last(&self, span: Duration) -> f64 {
        let Some((end, _)) = self.0.back() else { return 0.0 };
        self.mbps_between(end.saturating_sub(span), *end)
    }

    /// The rate between the readings nearest to two times.
    pub(crate) fn mbps_between(&self, from: Duration, to: Duration) -> f64 {
        let at = |time: Duration| self.0.iter().min_by_key(|(at, _)| at.abs_diff(time));
        match (at(from), at(to)) {
            (Some((t0, b0)), Some((t1, b1))) => mbps(b1.saturating_sub(*b0), t1.saturating_sub(*t0)),
            (None, _) | (_, None) => 0.0,
        }
    }

    /// The lowest rate of any `window` between two times: whether something stopped in between.
    pub(crate) fn slowest_mbps(&self, from: Duration, to: Duration, window: Duration) -> f64 {
        let starts = self.0.iter().map(|(at, _)| *at).filter(|at| *at >= from && *at + window <= to);
        starts.map(|start| self.mbps_between(start, start + window)).reduce(f64::min).unwrap_or(0.0)
    }
}

/// The echo in a part of the demonstration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Latency {
    pub(crate) median_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) lost_percent: f64,
    pub(crate) longest_gap: Duration,
}

impl Latency {
    /// `None` when no request was answered.
    pub(crate) fn of(report: &EchoReport) -> Option<Self> {
        let millis = |permille| report.percentile(permille).map(|rtt| rtt.as_secs_f64() * 1e3);
        Some(Self {
            median_ms: millis(500)?,
            p99_ms: millis(990)?,
            lost_percent: report.loss_ratio() * 100.0,
            longest_gap: report.longest_gap(),
        })
    }
}

/// The download and the game in one step of the demonstration.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Measured {
    /// The download's rate in the first seconds: see [`FIRST`].
    pub(crate) first_mbps: f64,
    /// Its rate after them.
    pub(crate) then_mbps: f64,
    /// The game; nothing when it got no answer.
    pub(crate) game: Option<Latency>,
}

/// The seconds in which TCP looks for its rate. Chosen: slow start on the slowest link is over.
/// They are shown apart, for a single link as for the bond.
pub(crate) const FIRST: Duration = Duration::from_secs(4);
/// The table's heading for them.
pub(crate) const FIRST_HEADING: &str = "FIRST 4 s";

/// Everything that the table shows.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The fastest link.
    pub(crate) best_link: String,
    /// The time of a file of 10 MB over a new connection: over that link alone, and over the bond.
    /// `None`: it did not arrive in time.
    pub(crate) files: [Option<Duration>; 2],
    /// That link alone, with a download of its own.
    pub(crate) alone: Measured,
    /// The game over the bond, nothing else on it.
    pub(crate) idle_game: Option<Latency>,
    /// The bond with all links, with a download of its own.
    pub(crate) bond: Measured,
    /// The link that carried the game, and was cut.
    pub(crate) cut_link: String,
    /// The same download while the link is cut.
    pub(crate) cut: Measured,
    /// The slowest [`STOP_WINDOW`] of that step.
    pub(crate) cut_slowest_mbps: f64,
    /// The same download after the link is back.
    pub(crate) restored: Measured,
    /// The most that a download over the bond can have after its first seconds: the sum of the link
    /// rates less the headers. `None` where a rate is unlimited.
    pub(crate) attainable_mbps: Option<f64>,
    /// Resident memory of client and server.
    pub(crate) memory_bytes: [Option<u64>; 2],
}

/// The share of payload in the bytes that a link carries when every packet is full: `overhead`
/// bytes around `mtu` bytes. TCP ends at the bond, so its headers do not cross the links.
pub(crate) fn payload_share(mtu: u16, overhead: u16) -> f64 {
    f64::from(mtu) / (f64::from(mtu) + f64::from(overhead))
}

/// Chosen: half a second without a byte is a stop that a user sees.
pub(crate) const STOP_WINDOW: Duration = Duration::from_millis(500);

impl Outcome {
    /// The promises that did not hold; empty when the bond did its work.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let (bond_mbps, alone_mbps) = (self.bond.then_mbps, self.alone.then_mbps);
        if bond_mbps <= alone_mbps {
            failures.push(format!(
                "the bond ({bond_mbps:.1} Mbit/s) was not faster than {} alone ({alone_mbps:.1} Mbit/s)",
                self.best_link
            ));
        }
        match self.files {
            [_, None] => failures.push("the file did not arrive over the bond".to_owned()),
            [Some(alone), Some(bond)] if bond > alone => failures.push(format!(
                "the file took {:.2} s over the bond, and {:.2} s over {} alone",
                bond.as_secs_f64(),
                alone.as_secs_f64(),
                self.best_link
            )),
            [_, Some(_)] => {}
        }
        if self.cut_slowest_mbps <= 0.0 {
            failures.push(format!("the download stopped when {} was cut", self.cut_link));
        }
        if self.bond.game.is_none() || self.cut.game.is_none() {
            failures.push("the game got no answers".to_owned());
        }
        failures
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bonding_lab::tools::EchoSample;

    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// 8 Mbit/s for two seconds, nothing for one, 8 Mbit/s for two.
    fn readings() -> Readings {
        let mut readings = Readings::default();
        for tick in 0..=20_u64 {
            let flowing = tick.min(8) + tick.saturating_sub(12);
            readings.push(at(tick * 250), flowing * 250_000);
        }
        readings
    }

    #[test]
    fn rates_are_bytes_over_time() {
        let readings = readings();
        assert!((readings.mbps_between(at(0), at(2_000)) - 8.0).abs() < 1e-9);
        assert!((readings.mbps_between(at(1_000), at(3_000)) - 4.0).abs() < 1e-9);
        assert!((readings.mbps_over_last(at(1_000)) - 8.0).abs() < 1e-9);
        assert_eq!(Readings::default().mbps_over_last(at(1_000)).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn a_stop_is_found_wherever_it_is() {
        let readings = readings();
        assert!(readings.slowest_mbps(at(0), at(5_000), at(500)) < 1e-9);
        assert!((readings.slowest_mbps(at(0), at(2_000), at(500)) - 8.0).abs() < 1e-9);
        assert!((readings.slowest_mbps(at(0), at(5_000), at(2_000)) - 4.0).abs() < 1e-9);
    }

    #[test]
    fn latency_of_nothing_is_nothing() {
        assert_eq!(Latency::of(&EchoReport::default()), None);
        let sample = |ms, rtt: Option<u64>| EchoSample { sent_at: at(ms), rtt: rtt.map(at) };
        let samples = vec![sample(0, Some(20)), sample(20, None), sample(40, Some(30)), sample(60, Some(20))];
        let latency = Latency::of(&EchoReport { samples }).unwrap();
        assert!((latency.median_ms - 20.0).abs() < 1e-9 && (latency.lost_percent - 25.0).abs() < 1e-9);
    }

    /// The tunnel's MTU over links of 1500 bytes, sealed: the documentation's figure.
    #[test]
    fn a_full_packet_carries_1429_of_1500_bytes() {
        assert!((payload_share(1_429, 71) - 1_429.0 / 1_500.0).abs() < 1e-9);
    }

    pub(crate) fn outcome() -> Outcome {
        let latency =
            |median_ms, p99_ms| Some(Latency { median_ms, p99_ms, lost_percent: 0.0, longest_gap: at(120) });
        Outcome {
            best_link: "sat1".to_owned(),
            files: [Some(at(1_720)), Some(at(400))],
            alone: Measured { first_mbps: 42.0, then_mbps: 66.0, game: latency(175.0, 182.0) },
            idle_game: latency(20.2, 20.9),
            bond: Measured { first_mbps: 120.0, then_mbps: 252.0, game: latency(22.5, 31.0) },
            cut_link: "adsl".to_owned(),
            cut: Measured { first_mbps: 190.0, then_mbps: 201.0, game: latency(82.9, 160.0) },
            cut_slowest_mbps: 150.0,
            restored: Measured { first_mbps: 240.0, then_mbps: 261.0, game: latency(22.6, 33.0) },
            attainable_mbps: Some(266.2),
            memory_bytes: [Some(14 << 20), Some(13 << 20)],
        }
    }

    #[test]
    fn a_bond_that_fails_says_how() {
        assert_eq!(outcome().failures(), [""; 0]);
        let bond = Measured { then_mbps: 60.0, ..outcome().bond };
        let slow = Outcome { bond, ..outcome() };
        assert_eq!(slow.failures(), ["the bond (60.0 Mbit/s) was not faster than sat1 alone (66.0 Mbit/s)"]);
        let files = [Some(at(1_000)), Some(at(1_100))];
        let late = Outcome { files, ..outcome() };
        assert_eq!(late.failures(), ["the file took 1.10 s over the bond, and 1.00 s over sat1 alone"]);
        let stopped = Outcome { cut_slowest_mbps: 0.0, ..outcome() };
        assert_eq!(stopped.failures(), ["the download stopped when adsl was cut"]);
        let bond = Measured { game: None, ..outcome().bond };
        let silent = Outcome { bond, ..outcome() };
        assert_eq!(silent.failures(), ["the game got no answers"]);
    }
}
