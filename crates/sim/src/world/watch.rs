//! What is observed of a run as a whole: a hash of its datagrams, and whether time moves on.

use std::collections::BTreeMap;

use bonding_netem::Direction;
use bonding_proto::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::outer::byte;

/// Rounds without a change of time after which a run counts as stuck. A burst is a few thousand.
const ROUNDS_MAX: u32 = 100_000;

/// What happened to a datagram; the value is part of the hash.
#[derive(Debug, Clone, Copy)]
pub(super) enum Happened {
    Sent = 1,
    Delivered = 2,
}

/// A hash over every datagram sent and delivered, each with time, link and direction.
#[derive(Debug, Default)]
pub(super) struct TraceHash(u64);

impl TraceHash {
    pub(super) const fn value(&self) -> u64 {
        self.0
    }

    pub(super) fn note(
        &mut self,
        happened: Happened,
        link: usize,
        direction: Direction,
        data: &[u8],
        now: Instant,
    ) {
        let mut head = [0; 12];
        let (time, rest) = head.split_at_mut(8);
        time.copy_from_slice(&now.as_nanos().to_be_bytes());
        let up = u8::from(direction == Direction::Up);
        for (place, value) in rest.iter_mut().zip([happened as u8, byte(link), up]) {
            *place = value;
        }
        self.0 = xxh3_64_with_seed(data, xxh3_64_with_seed(&head, self.0));
    }
}

/// Counts the rounds at the present time.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    count: u32,
    reasons: BTreeMap<&'static str, u32>,
}

impl Rounds {
    /// Time has moved on.
    pub(super) fn reset(&mut self) {
        self.count = 0;
        self.reasons.clear();
    }

    /// Another round at `now`.
    ///
    /// # Panics
    /// If there were too many; the message names their reasons.
    pub(super) fn count(&mut self, reason: &'static str, now: Instant) {
        self.count += 1;
        *self.reasons.entry(reason).or_default() += 1;
        assert!(
            self.count < ROUNDS_MAX,
            "busy loop at {now:?}: {ROUNDS_MAX} rounds without time moving on, for {:?}",
            self.reasons
        );
    }
}
