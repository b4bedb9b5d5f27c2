//! CoDel: signals a flow whose queue stands too long.
//!
//! The rule: a packet's sojourn is the time from its arrival until it becomes the next to be sent.
//! While every sojourn has been at least `target` for a whole `interval`, the queue is standing
//! instead of absorbing a burst. The sender is then signalled by one lost or CE-marked packet, and
//! again after interval, interval/√2, interval/√3, … until one sojourn falls below `target`. A
//! queue with no more than one MTU behind the packet in question is never signalled. When a queue
//! stands again within 16 intervals of the last signal, the signals resume near the rate that
//! controlled it before.
//!
//! Contract: [`CoDel::judge`] is called once for each packet that becomes the head, in order. It
//! only answers; the caller drops or marks. It does not know packets, ECN or other flows.
//!
//! One difference to RFC 8289 §5.5: its first dequeue after entering the dropping state delivers
//! the second packet regardless of its sojourn; here that packet may end the dropping state at
//! once.
//!
//! Sources: RFC 8289 §5 (annotated pseudocode), with the resumption rule that it took from Linux;
//! RFC 8290 §5.2 for the parameters.

use std::time::Duration;

use crate::Instant;

/// The parameters of all flows at the moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Params {
    /// The acceptable standing sojourn.
    pub(super) target: Duration,
    /// How long the target must be exceeded: about the RTT of the controlled flows.
    pub(super) interval: Duration,
    /// Backlog, in bytes, up to which a flow is never signalled.
    pub(super) mtu_bytes: usize,
}

/// The decision about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send it as it is.
    Pass,
    /// Mark it CE if it can be marked, else drop it.
    Signal,
}

/// One flow's control loop. The names are RFC 8289's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CoDel {
    /// When the sojourn will have been above target for an interval; `None` while it is below.
    first_above: Option<Instant>,
    dropping: bool,
    drop_next: Instant,
    count: u32,
    count_last: u32,
}

impl CoDel {
    /// Judges the packet at the head: it has waited `sojourn`, and `behind_bytes` wait behind it in
    /// its flow.
    #[inline]
    pub(super) fn judge(
        &mut self,
        now: Instant,
        sojourn: Duration,
        behind_bytes: usize,
        params: &Params,
    ) -> Verdict {
        let standing = self.is_standing(now, sojourn, behind_bytes, params);
        if self.dropping {
            if !standing {
                self.dropping = false;
                return Verdict::Pass;
            }
            if now < self.drop_next {
                return Verdict::Pass;
            }
            self.count = self.count.saturating_add(1);
            self.drop_next = self.drop_next + spacing(params.interval, self.count);
            return Verdict::Signal;
        }
        if !standing {
            return Verdict::Pass;
        }
        self.dropping = true;
        let delta = self.count.saturating_sub(self.count_last);
        // If the last dropping state is recent, start with the drop rate that controlled the queue
        // then.
        let recent = now.saturating_since(self.drop_next) < params.interval * 16;
        self.count = if delta > 1 && recent { delta } else { 1 };
        self.count_last = self.count;
        self.drop_next = now + spacing(params.interval, self.count);
        Verdict::Signal
    }

    /// Handles the flow's queue running empty.
    pub(super) fn on_empty(&mut self) {
        self.first_above = None;
        self.dropping = false;
    }

    /// RFC 8289's `ok_to_drop`.
    fn is_standing(&mut self, now: Instant, sojourn: Duration, behind_bytes: usize, params: &Params) -> bool {
        if sojourn < params.target || behind_bytes <= params.mtu_bytes {
            self.first_above = None;
            return false;
        }
        match self.first_above {
            Some(due) => now >= due,
            None => {
                self.first_above = Some(now + params.interval);
                false
            }
        }
    }
}

/// interval/√count in whole nanoseconds: integers give the same result on every machine.
fn spacing(interval: Duration, count: u32) -> Duration {
    let nanos = interval.as_nanos();
    let squared = nanos.saturating_mul(nanos) / u128::from(count.max(1));
    Duration::from_nanos(u64::try_from(squared.isqrt()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: Params =
        Params { target: Duration::from_millis(5), interval: Duration::from_millis(100), mtu_bytes: 1514 };

    /// Judges a packet every millisecond of `from..until`; returns the milliseconds of the signals.
    fn signals(codel: &mut CoDel, from: u64, until: u64, sojourn_ms: u64, behind_bytes: usize) -> Vec<u64> {
        (from..until)
            .filter(|ms| {
                let now = Instant::ZERO + Duration::from_millis(*ms);
                codel.judge(now, Duration::from_millis(sojourn_ms), behind_bytes, &PARAMS) == Verdict::Signal
            })
            .collect()
    }

    #[test]
    fn first_signal_after_an_interval_then_by_the_control_law() {
        let mut codel = CoDel::default();
        // 100; + 100/√1; + 100/√2 = 70.7; + 100/√3 = 57.7; + 50; + 44.7; + 40.8
        assert_eq!(signals(&mut codel, 0, 500, 6, 100_000), [100, 200, 271, 329, 379, 424, 464]);
    }

    #[test]
    fn below_target_nothing_and_one_short_sojourn_restarts_the_interval() {
        let mut codel = CoDel::default();
        assert_eq!(signals(&mut codel, 0, 1000, 4, 100_000), []);
        assert_eq!(signals(&mut codel, 1000, 1099, 6, 100_000), []);
        assert_eq!(signals(&mut codel, 1099, 1100, 4, 100_000), []);
        assert_eq!(signals(&mut codel, 1100, 1250, 6, 100_000), [1200]);
    }

    #[test]
    fn an_emptied_queue_starts_from_nothing() {
        let mut codel = CoDel::default();
        assert_eq!(signals(&mut codel, 0, 101, 6, 100_000), [100]);
        codel.on_empty();
        assert_eq!(signals(&mut codel, 150, 260, 6, 100_000), [250]);
    }

    #[test]
    fn one_mtu_behind_is_not_a_queue() {
        let mut codel = CoDel::default();
        assert_eq!(signals(&mut codel, 0, 1000, 500, 1514), []);
        assert_eq!(signals(&mut codel, 1000, 1101, 500, 1515), [1100]);
    }

    #[test]
    fn resumes_near_its_last_rate_but_not_after_a_long_calm() {
        let mut codel = CoDel::default();
        let count = signals(&mut codel, 0, 1000, 6, 100_000).len();
        assert!(count > 10);
        signals(&mut codel, 1000, 1001, 1, 100_000);
        let again = signals(&mut codel, 1001, 1300, 6, 100_000);
        assert!(again.len() > 4, "resumed with few signals: {again:?}");

        let mut codel = CoDel::default();
        signals(&mut codel, 0, 1000, 6, 100_000);
        signals(&mut codel, 1000, 3000, 1, 100_000);
        assert_eq!(signals(&mut codel, 3000, 3300, 6, 100_000), [3100, 3200, 3271]);
    }

    #[test]
    fn spacing_is_the_inverse_root() {
        let interval = Duration::from_millis(100);
        assert_eq!(spacing(interval, 0), interval);
        assert_eq!(spacing(interval, 1), interval);
        assert_eq!(spacing(interval, 4), Duration::from_millis(50));
        assert_eq!(spacing(interval, 10_000), Duration::from_millis(1));
        // Squaring saturates instead of overflowing.
        assert_eq!(spacing(Duration::MAX, 1), Duration::from_nanos(u64::MAX));
    }
}
