//! What the demonstration measures: rates from counted bytes, latencies from an echo, and the table at its end.

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

/// How the echo fared in a part of the demonstration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Latency {
    pub(crate) median_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) lost_percent: f64,
    pub(crate) longest_gap: Duration,
}

impl Latency {
    /// Nothing when no request was answered.
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

/// Everything that the table shows.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The fastest link alone.
    pub(crate) best_link: String,
    pub(crate) best_mbps: f64,
    pub(crate) best_game: Option<Latency>,
    /// The bond, nothing else on it.
    pub(crate) idle_game: Option<Latency>,
    /// The bond with all links, while it downloads.
    pub(crate) bond_mbps: f64,
    pub(crate) bond_game: Option<Latency>,
    /// With one link cut.
    pub(crate) cut_link: String,
    pub(crate) cut_mbps: f64,
    pub(crate) cut_slowest_mbps: f64,
    pub(crate) cut_game: Option<Latency>,
    /// After it came back.
    pub(crate) restored_mbps: f64,
    /// What all links carry together, in megabits per second of IP packets.
    pub(crate) sum_mbps: Option<f64>,
    pub(crate) memory_bytes: [Option<u64>; 2],
}

/// Half a second without a byte would be a stop that a user sees.
pub(crate) const STOP_WINDOW: Duration = Duration::from_millis(500);

impl Outcome {
    /// What did not hold; nothing when the bond did its work.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.bond_mbps <= self.best_mbps {
            failures.push(format!(
                "the bond ({:.1} Mbit/s) was not faster than {} alone ({:.1} Mbit/s)",
                self.bond_mbps, self.best_link, self.best_mbps
            ));
        }
        if self.cut_slowest_mbps <= 0.0 {
            failures.push(format!("the download stopped when {} was cut", self.cut_link));
        }
        if self.bond_game.is_none() || self.cut_game.is_none() {
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

    pub(crate) fn outcome() -> Outcome {
        let latency =
            |median_ms, p99_ms| Some(Latency { median_ms, p99_ms, lost_percent: 0.0, longest_gap: at(120) });
        Outcome {
            best_link: "sat1".to_owned(),
            best_mbps: 66.0,
            best_game: latency(175.0, 182.0),
            idle_game: latency(20.2, 20.9),
            bond_mbps: 264.0,
            bond_game: latency(22.5, 31.0),
            cut_link: "sat1".to_owned(),
            cut_mbps: 201.0,
            cut_slowest_mbps: 150.0,
            cut_game: latency(22.9, 60.0),
            restored_mbps: 261.0,
            sum_mbps: Some(290.0),
            memory_bytes: [Some(14 << 20), Some(13 << 20)],
        }
    }

    #[test]
    fn a_bond_that_fails_says_how() {
        assert_eq!(outcome().failures(), [""; 0]);
        let slow = Outcome { bond_mbps: 60.0, ..outcome() };
        assert_eq!(slow.failures(), ["the bond (60.0 Mbit/s) was not faster than sat1 alone (66.0 Mbit/s)"]);
        let stopped = Outcome { cut_slowest_mbps: 0.0, ..outcome() };
        assert_eq!(stopped.failures(), ["the download stopped when sat1 was cut"]);
        let silent = Outcome { bond_game: None, ..outcome() };
        assert_eq!(silent.failures(), ["the game got no answers"]);
    }
}
