//! The rate stage: when the packet in service is finished. Exact: no rounding between packets.
//!
//! Work is counted in bits × 10^9: at `r` bit/s each nanosecond does work `r`. A packet ends at a
//! whole nanosecond. The work that its last nanosecond could do beyond it is credited to the next
//! packet if that packet already waits, and lost if the link becomes idle.

use crate::rate::Rate;
use crate::time::{Time, nanos};
use crate::trace::OPPORTUNITY_BYTES;
use std::time::Duration;

/// Work per byte.
const WORK_PER_BYTE: u128 = 8 * 1_000_000_000;
/// Work of one delivery opportunity.
const WORK_PER_OPPORTUNITY: u128 = OPPORTUNITY_BYTES as u128 * WORK_PER_BYTE;

#[derive(Debug)]
pub(crate) struct Shaper {
    rate: Rate,
    /// Work that the packet in service still needs, as of `since`; `None` when idle.
    work: Option<u128>,
    since: Time,
    /// Work done ahead, by the opportunity or nanosecond that ended the previous packet.
    credit: u128,
    /// The first unused opportunity (traces only).
    opportunity: u64,
}

impl Shaper {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, work: None, since: Time::ZERO, credit: 0, opportunity: 0 }
    }

    pub(crate) fn rate(&self) -> &Rate {
        &self.rate
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.work.is_none()
    }

    /// An idle link starts to serve a packet of `bytes`.
    pub(crate) fn start(&mut self, bytes: u64, now: Time) {
        self.credit = 0;
        self.since = now;
        self.seek(now);
        self.work = Some(u128::from(bytes) * WORK_PER_BYTE);
    }

    /// When the packet in service is finished; `None` when idle or stalled.
    pub(crate) fn finish(&self) -> Option<Time> {
        self.finish_behind(0)
    }

    /// When the packet in service and `bytes` behind it are finished; `None` when idle or stalled.
    pub(crate) fn finish_behind(&self, bytes: u64) -> Option<Time> {
        let left = (self.work? + u128::from(bytes) * WORK_PER_BYTE).saturating_sub(self.credit);
        match &self.rate {
            Rate::Constant { bps: 0 } if left > 0 => None,
            _ if left == 0 => Some(self.since),
            Rate::Unlimited => Some(self.since),
            Rate::Constant { bps } => {
                let span = u64::try_from(left.div_ceil(u128::from(*bps))).unwrap_or(u64::MAX);
                Some(self.since + Duration::from_nanos(span))
            }
            Rate::Trace(trace) => {
                let needed = u64::try_from(left.div_ceil(WORK_PER_OPPORTUNITY)).unwrap_or(u64::MAX);
                Some(trace.time_of(self.opportunity.saturating_add(needed - 1)))
            }
        }
    }

    /// The packet in service finished at `at`, as [`Self::finish`] returned; `next` is the size of
    /// the packet behind it.
    pub(crate) fn complete(&mut self, at: Time, next: Option<u64>) {
        let work = self.work.take().unwrap_or(0);
        let done = self.work_until(at, work);
        self.credit = done.saturating_sub(work);
        self.since = at;
        match next {
            Some(bytes) => self.work = Some(u128::from(bytes) * WORK_PER_BYTE),
            None => self.credit = 0,
        }
    }

    /// Sets the rate from `now` on; the work done for the packet in service stays done.
    pub(crate) fn set_rate(&mut self, rate: Rate, now: Time) {
        if let Some(work) = self.work {
            let needed = match &self.rate {
                Rate::Trace(trace) => trace.first_at_or_after(now).saturating_sub(self.opportunity),
                Rate::Unlimited | Rate::Constant { .. } => 0,
            };
            let done = match &self.rate {
                Rate::Unlimited => work,
                Rate::Constant { bps } => {
                    self.credit + u128::from(*bps) * u128::from(nanos(now - self.since))
                }
                Rate::Trace(_) => self.credit + u128::from(needed) * WORK_PER_OPPORTUNITY,
            };
            self.work = Some(work.saturating_sub(done));
        }
        self.credit = 0;
        self.since = now;
        self.rate = rate;
        self.opportunity = 0;
        self.seek(now);
    }

    /// Drops the packet in service.
    pub(crate) fn clear(&mut self) {
        self.work = None;
        self.credit = 0;
    }

    /// The work done by `at`, where the packet in service, which needed `work`, ends. Uses up its
    /// opportunities.
    fn work_until(&mut self, at: Time, work: u128) -> u128 {
        match &self.rate {
            Rate::Unlimited => work,
            Rate::Constant { bps } => self.credit + u128::from(*bps) * u128::from(nanos(at - self.since)),
            Rate::Trace(_) => {
                let left = work.saturating_sub(self.credit);
                let needed = u64::try_from(left.div_ceil(WORK_PER_OPPORTUNITY)).unwrap_or(u64::MAX);
                self.opportunity = self.opportunity.saturating_add(needed);
                self.credit + u128::from(needed) * WORK_PER_OPPORTUNITY
            }
        }
    }

    /// Skips the opportunities that passed before `now`.
    fn seek(&mut self, now: Time) {
        if let Rate::Trace(trace) = &self.rate {
            self.opportunity = self.opportunity.max(trace.first_at_or_after(now));
        }
    }
}
