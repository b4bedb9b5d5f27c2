//! The times at which a side stands still.
//!
//! They are drawn for each span and side from their numbers alone, so that the same run stalls at
//! the same times whatever happens in it. The module knows no machines: the world keeps the
//! datagrams that arrive meanwhile.

use std::time::Duration;

use bonding_proto::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Side;

/// A side's process stands still once in each span of time, as on a busy machine. Datagrams that
/// arrive meanwhile wait.
#[derive(Debug, Clone, Copy)]
pub struct Stalls {
    /// The span.
    pub every: Duration,
    /// The duration of a stall; less than the span.
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

    /// The end of the stall of `side` at `now`.
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
