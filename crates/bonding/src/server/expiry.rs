//! When the keys of clients expire, so that their sessions end in time.
//!
//! Times are those of the machine's clock, which may be set: it is looked at again at least once a
//! minute. A time that has passed counts once.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bonding_proto::Instant;
use bonding_proto::endpoint::SessionId;

/// The longest time without a look at the clock. Chosen: a key lives a minute too long at most when
/// the clock is set forward.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The keys that have not expired yet.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    /// When, in seconds since 1970, and whose.
    ahead: BTreeSet<(u64, SessionId)>,
    look_at: Option<Instant>,
}

impl Expiries {
    /// A client's key expires at another time than before.
    pub(super) fn replace(&mut self, id: SessionId, before: Option<u64>, after: Option<u64>) {
        if let Some(at) = before {
            self.ahead.remove(&(at, id));
        }
        if let Some(at) = after {
            self.ahead.insert((at, id));
            self.look_at = Some(Instant::ZERO);
        }
    }

    /// When to ask [`Self::take_expired`].
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// The clients whose keys have expired since they were asked for last.
    pub(super) fn take_expired(&mut self, clock: SystemTime, now: Instant) -> Vec<SessionId> {
        let since_1970 = clock.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut expired = Vec::new();
        while let Some((at, id)) = self.ahead.first().copied().filter(|(at, _)| *at <= since_1970.as_secs()) {
            self.ahead.remove(&(at, id));
            expired.push(id);
        }
        let next = self.ahead.first().map(|(at, _)| Duration::from_secs(*at).saturating_sub(since_1970));
        self.look_at = next.map(|wait| now + wait.min(LOOK_INTERVAL));
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [SessionId; 3] = [SessionId(1), SessionId(2), SessionId(3)];

    #[test]
    fn each_key_expires_once_and_in_time() {
        let clock = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let now = Instant::ZERO + Duration::from_secs(7);
        let mut expiries = Expiries::default();
        assert_eq!(expiries.look_at(), None);
        expiries.replace(IDS[0], None, Some(1_000));
        expiries.replace(IDS[1], None, Some(1_030));
        expiries.replace(IDS[2], None, Some(1_030));
        assert_eq!(expiries.look_at(), Some(Instant::ZERO), "at once: it may be over");
        assert_eq!(expiries.take_expired(clock(900_000), now), []);
        assert_eq!(expiries.look_at(), Some(now + LOOK_INTERVAL), "the clock may be set");
        assert_eq!(expiries.take_expired(clock(1_000_500), now), [IDS[0]]);
        assert_eq!(expiries.look_at(), Some(now + Duration::from_millis(29_500)));
        expiries.replace(IDS[1], Some(1_030), None);
        assert_eq!(expiries.take_expired(clock(5_000_000), now), [IDS[2]]);
        assert_eq!(expiries.look_at(), None);
    }
}
