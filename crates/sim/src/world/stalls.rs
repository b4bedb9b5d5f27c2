//! When a side stands still.
//!
//! Drawn for each span and side from their numbers alone, so that the same run stalls at the same times whatever happens in it. It
//! knows no machines: what comes meanwhile and what is due is the world's.

use std::time::Duration;

use bonding_proto::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Side;

/// A side's process stands still, once in each span of time: its machine is busy, or has no processor. What comes meanwhile waits.
#[derive(Debug, Clone, Copy)]
pub struct Stalls {
    /// The span.
    pub every: Duration,
    /// How long it stands still; less than the span.
    pub length: Duration,
}

impl Stalls {
    /// Of `10/100`: 10 ms in every 100.
    pub fn parse(text: &str) -> Option<Self> {
        let (length, every) = text.split_once('/')?;
        let ms = |text: &str| Some(Duration::from_millis(text.parse().ok()?));
        let stalls = Self { every: ms(every)?, length: ms(length)? };
        (stalls.length < stalls.every).then_some(stalls)
    }

    /// Until when `side` stands still at `now`.
    pub(super) fn until(&self, side: Side, now: Instant) -> Option<Instant> {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let (every, length) = (nanos(self.every).max(1), nanos(self.length));
        let since = nanos(now.saturating_since(Instant::ZERO));
        let number = since / every;
        // Anywhere in its span.
        let offset =
            xxh3_64_with_seed(&number.to_be_bytes(), side as u64) % every.saturating_sub(length).max(1);
        let begin = number * every + offset;
        (begin..begin + length).contains(&since).then(|| Instant::from_nanos(begin + length))
    }
}
