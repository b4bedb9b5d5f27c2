//! Round-trip time and one-way delays of one link, from heartbeats and feedback.
//!
//! Smoothing is RFC 6298's (gains 1/8 and 1/4), the minimum is that of the last 10 s. One-way
//! delays carry the unknown offset between the two clocks; it is the same on all links of a
//! session, so differences between links are exact and nothing else is ever used.

use std::time::Duration;

use crate::link::window::WindowedMin;
use crate::time::Instant;

/// Window of the least round trip, ms. Source: draft-ietf-ccwg-bbr,
/// `MinRTTFilterLen`.
const RTT_WINDOW_MS: u64 = 10_000;
/// Window of the largest delay, ms. Chosen: twenty heartbeats.
const DELAY_WINDOW_MS: u64 = 2_000;

/// Delays are brought up to date by feedback this often. Chosen: four samples for one of
/// heartbeats.
const FEEDBACK_STEP: Duration = Duration::from_millis(25);

/// A datagram may be later than one sent after it by so many times the deviation of delays. Source:
/// RFC 6298 §2.3 (K = 4).
const JITTERS: u32 = 4;

/// RFC 6298's estimator with a windowed minimum.
#[derive(Debug, Clone)]
pub(in crate::link) struct RttEstimator {
    smoothed: Option<(Duration, Duration)>,
    min: WindowedMin<i64, RTT_WINDOW_MS>,
}

impl RttEstimator {
    /// Without a sample.
    pub(in crate::link) fn new() -> Self {
        Self { smoothed: None, min: WindowedMin::new() }
    }

    /// Takes a sample.
    pub(in crate::link) fn on_sample(&mut self, rtt: Duration, now: Instant) {
        self.min.push(i64::try_from(rtt.as_nanos()).unwrap_or(i64::MAX), now);
        self.smoothed = Some(match self.smoothed {
            None => (rtt, rtt / 2),
            // RFC 6298 §2.3: RTTVAR before SRTT.
            Some((srtt, rttvar)) => ((srtt * 7 + rtt) / 8, (rttvar * 3 + srtt.abs_diff(rtt)) / 4),
        });
    }

    /// Smoothed RTT; `None` before the first sample.
    pub(in crate::link) fn srtt(&self) -> Option<Duration> {
        self.smoothed.map(|(srtt, _)| srtt)
    }

    /// Mean deviation; zero before the first sample.
    pub(in crate::link) fn rttvar(&self) -> Duration {
        self.smoothed.map_or(Duration::ZERO, |(_, rttvar)| rttvar)
    }

    /// Smallest RTT of the last 10 s.
    pub(in crate::link) fn min(&self, now: Instant) -> Option<Duration> {
        self.min.min(now).and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos)
    }
}

/// One-way delay with an offset common to all links: smoothed value, and how far above it samples
/// lie.
#[derive(Debug, Clone)]
pub(in crate::link) struct DelayEstimator {
    /// Smoothed delay and its mean deviation, µs.
    smoothed: Option<(i64, i64)>,
    /// The largest of the last two seconds, negated.
    max: WindowedMin<i64, DELAY_WINDOW_MS>,
}

impl DelayEstimator {
    /// Without a sample.
    pub(in crate::link) fn new() -> Self {
        Self { smoothed: None, max: WindowedMin::new() }
    }

    /// Takes a sample of arrival − stamp, µs.
    pub(in crate::link) fn on_sample(&mut self, delay_us: i64, now: Instant) {
        self.max.push(delay_us.saturating_neg(), now);
        self.smoothed = Some(match self.smoothed {
            None => (delay_us, 0),
            // A gain of 1/4: heartbeats are 100 ms apart and a queue is to be seen within half a
            // second.
            Some((mean, deviation)) => {
                let error = delay_us.saturating_sub(mean);
                (mean + error / 4, deviation + (error.saturating_abs() - deviation) / 4)
            }
        });
    }

    /// Smoothed delay, µs with the common offset; `None` before the first sample.
    pub(in crate::link) fn delay_us(&self) -> Option<i64> {
        self.smoothed.map(|(mean, _)| mean)
    }

    /// Mean deviation, µs; at least a quarter of the distance from the smoothed delay up to the
    /// largest of the last two seconds, so that four of it reach there: a link whose queue comes
    /// and goes was that late lately and may be again before the next heartbeat tells.
    pub(in crate::link) fn jitter_us(&self, now: Instant) -> u32 {
        let Some((mean, deviation)) = self.smoothed else { return 0 };
        let above = self.max.min(now).map_or(0, |max| max.saturating_neg().saturating_sub(mean) / 4);
        u32::try_from(deviation.max(above)).unwrap_or(u32::MAX)
    }

    /// By how much a link may reorder of which no more is known than how its delay varies.
    pub(in crate::link) fn reorders_by(&self, now: Instant) -> Duration {
        Duration::from_micros(u64::from(self.jitter_us(now))) * JITTERS
    }
}

/// The delays of one link.
#[derive(Debug)]
pub(in crate::link) struct Delays {
    rtt: RttEstimator,
    /// One-way delays: of what is sent, of what is received; and when feedback brought them up to
    /// date.
    tx: DelayEstimator,
    rx: DelayEstimator,
    tx_at: Instant,
    rx_at: Instant,
}

impl Delays {
    pub(in crate::link) fn new() -> Self {
        Self {
            rtt: RttEstimator::new(),
            tx: DelayEstimator::new(),
            rx: DelayEstimator::new(),
            tx_at: Instant::ZERO,
            rx_at: Instant::ZERO,
        }
    }

    /// The peer was restarted: its clock is another.
    pub(in crate::link) fn on_peer_restart(&mut self) {
        *self = Self { tx_at: self.tx_at, rx_at: self.rx_at, ..Self::new() };
    }

    pub(in crate::link) const fn rtt(&self) -> &RttEstimator {
        &self.rtt
    }

    /// The smoothed round trip; zero before it is known.
    pub(in crate::link) fn srtt(&self) -> Duration {
        self.rtt.srtt().unwrap_or_default()
    }

    /// Delay of what is sent.
    pub(in crate::link) const fn tx(&self) -> &DelayEstimator {
        &self.tx
    }

    /// Delay of what is received.
    pub(in crate::link) const fn rx(&self) -> &DelayEstimator {
        &self.rx
    }

    /// An echo came back after `rtt`; the heartbeat that it echoes took `delay_us`.
    pub(in crate::link) fn on_echo(&mut self, rtt: Duration, delay_us: i64, now: Instant) {
        self.rtt.on_sample(rtt, now);
        self.tx.on_sample(delay_us, now);
    }

    /// A heartbeat of the peer took `delay_us`.
    pub(in crate::link) fn on_heartbeat(&mut self, delay_us: i64, now: Instant) {
        self.rx.on_sample(delay_us, now);
    }

    /// A datagram that feedback names took `delay_us`.
    pub(in crate::link) fn on_feedback(&mut self, delay_us: i64, now: Instant) {
        if now.saturating_since(self.tx_at) >= FEEDBACK_STEP {
            self.tx.on_sample(delay_us, now);
            self.tx_at = now;
        }
    }

    /// A datagram that is told of took the delay that `delay_us` gives, if one is wanted.
    pub(in crate::link) fn on_report(&mut self, delay_us: impl FnOnce() -> Option<i64>, now: Instant) {
        if now.saturating_since(self.rx_at) >= FEEDBACK_STEP
            && let Some(delay_us) = delay_us()
        {
            self.rx.on_sample(delay_us, now);
            self.rx_at = now;
        }
    }
}

/// `later` − `earlier` of two different clocks, µs, saturating.
pub(in crate::link) fn micros_between(later: u64, earlier: u64) -> i64 {
    i64::try_from(i128::from(later) - i128::from(earlier)).unwrap_or(if later > earlier {
        i64::MAX / 4
    } else {
        i64::MIN / 4
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_follows_rfc_6298() {
        let ms = Duration::from_millis;
        let mut rtt = RttEstimator::new();
        assert_eq!(rtt.srtt(), None);
        rtt.on_sample(ms(80), Instant::ZERO);
        assert_eq!((rtt.srtt(), rtt.rttvar()), (Some(ms(80)), ms(40)));
        rtt.on_sample(ms(160), Instant::ZERO + ms(100));
        assert_eq!((rtt.srtt(), rtt.rttvar()), (Some(ms(90)), ms(50)));
        assert_eq!(rtt.min(Instant::ZERO + ms(100)), Some(ms(80)));
    }

    #[test]
    fn differences_of_one_way_delay_do_not_depend_on_the_offset() {
        for offset in [-1_000_000_000, 0, 1_000_000_000] {
            let (mut near, mut far) = (DelayEstimator::new(), DelayEstimator::new());
            for round in 0..50 {
                near.on_sample(offset + 10_000 + round % 3, Instant::ZERO);
                far.on_sample(offset + 40_000, Instant::ZERO);
            }
            let skew = far.delay_us().unwrap() - near.delay_us().unwrap();
            assert!((29_990..=30_010).contains(&skew), "{skew}");
            assert_eq!(far.jitter_us(Instant::ZERO), 0);
            far.on_sample(offset + 140_000, Instant::ZERO);
            assert_eq!(far.jitter_us(Instant::ZERO), 25_000);
        }
    }
}
