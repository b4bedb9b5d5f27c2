//! Lets the datagrams of busy links gather in their sockets.
//!
//! Links of some ten Mbit/s deliver datagrams one by one, and each is a wake-up: 20,000 a second at
//! 290 Mbit/s over five links. The wake-up is most of a datagram's cost. So the loop does not wait
//! for sockets that are busy in this way. It reads all of them together every 1/32 of the shortest
//! round trip among them, which is bounded to 1 to 2 ms. (A server's socket has clients near and
//! far: 1 ms.)
//!
//! A datagram of a quiet link is still taken at once, so light traffic beside a download over other
//! links is not delayed. Datagrams of busy links are taken up to that much later. The kernel stamps
//! them when they arrive, so no measurement of a link changes.
//!
//! The sockets that gather are chosen every [`JUDGED_EVERY`]: those with [`BUSY_PER_S`] datagrams a
//! second or more, if they have [`WORTH_PER_S`] together, four for each reading. The loop waits for
//! a socket that gives many datagrams to a receive anyway: gathering would save nothing, and a link
//! of Gbit/s would stand still.
//!
//! It does not know sockets: it counts, and says when to read.
//!
//! Measured: docs/decisions/0090-datagrams-of-busy-links-gather.md.

use std::time::Duration;

use bonding_proto::Instant;

/// The shortest time of gathering: the quantum in which bulk is sent.
const EVERY_MIN: Duration = Duration::from_millis(1);
/// The longest. Chosen: three milliseconds saved no more processor time.
const EVERY_MAX: Duration = Duration::from_millis(2);
/// Sockets gather up to such a part of their shortest round trip. Chosen: a delay that TCP does not
/// notice.
const ROUND_TRIP_PART: u32 = 32;
/// The sockets that gather are chosen anew after this.
const JUDGED_EVERY: Duration = Duration::from_millis(10);
/// A socket with so many datagrams a second is busy: some 12 Mbit/s of full packets.
const BUSY_PER_S: u64 = 1_000;
/// Sockets that gather have so many datagrams a second together: four for each reading.
const WORTH_PER_S: u64 = 4_000;
/// A socket that gives so many datagrams with one receive gains nothing from gathering.
const MANY: u64 = 4;
/// One call on a socket that gathers is so many receives.
const RECEIVES: u64 = bonding_os::udp::RECEIVES_MAX as u64;

/// The datagrams of one socket since the sockets were chosen last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    datagrams: u64,
    receives: u64,
    /// The loop reads it now and then, and does not wait for it.
    gathers: bool,
}

impl Tally {
    /// One receive gave so many datagrams.
    pub(super) fn on_receive(&mut self, datagrams: usize) {
        self.datagrams += datagrams as u64;
        self.receives += 1;
    }

    /// Whether the loop reads it now and then, and does not wait for it.
    pub(super) const fn gathers(&self) -> bool {
        self.gathers
    }

    /// Datagrams a second that come one by one; `None` for a socket that is not busy.
    fn busy_per_s(&self, span: Duration) -> Option<u64> {
        let per_s = self.datagrams.saturating_mul(1_000_000) / micros(span);
        let many = if self.gathers { MANY * RECEIVES } else { MANY };
        let singly = self.datagrams < self.receives * many;
        Some(per_s).filter(|per_s| singly && *per_s >= BUSY_PER_S)
    }
}

/// When to read the sockets that gather.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    judged_at: Instant,
    every: Duration,
    /// The next reading, while any socket gathers.
    look_at: Option<Instant>,
}

impl Gathering {
    /// When the sockets that gather are to be read.
    pub(super) const fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Whether they are to be read now. The next reading is a while later.
    pub(super) fn looks(&mut self, now: Instant) -> bool {
        let due = self.look_at.is_some_and(|at| at <= now);
        if due {
            self.look_at = Some(now + self.every);
        }
        due
    }

    /// Whether it is time to choose the sockets that gather, and over which span.
    pub(super) fn judges(&mut self, now: Instant) -> Option<Duration> {
        let span = now.saturating_since(self.judged_at);
        if span < JUDGED_EVERY {
            return None;
        }
        self.judged_at = now;
        Some(span)
    }

    /// Chooses the sockets that gather by their datagrams in `span`, and begins to count anew. Each
    /// comes with the shortest round trip over its socket, if that is known.
    pub(super) fn judge<'a>(
        &mut self,
        sockets: impl Iterator<Item = (&'a mut Tally, Option<Duration>)>,
        span: Duration,
        now: Instant,
    ) {
        let mut sockets: Vec<_> = sockets.collect();
        let all: u64 = sockets.iter().filter_map(|(tally, _)| tally.busy_per_s(span)).sum();
        for (tally, _) in &mut sockets {
            let gathers = all >= WORTH_PER_S && tally.busy_per_s(span).is_some();
            **tally = Tally { gathers, ..Tally::default() };
        }
        let gathering = sockets.iter().filter(|(tally, _)| tally.gathers);
        let every = |round_trip: Option<Duration>| round_trip.unwrap_or_default() / ROUND_TRIP_PART;
        let every = gathering.map(|(_, round_trip)| every(*round_trip).clamp(EVERY_MIN, EVERY_MAX)).min();
        self.every = every.unwrap_or(EVERY_MIN);
        self.look_at = every.map(|every| self.look_at.unwrap_or(now + every));
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_millis(10);

    fn tally(datagrams: u64, receives: u64, gathers: bool) -> Tally {
        Tally { datagrams, receives, gathers }
    }

    const START: Instant = Instant::from_nanos(1_000_000_000);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The sockets that gather after a span of 10 ms.
    fn judged(mut tallies: Vec<Tally>) -> Vec<bool> {
        let mut gathering = Gathering::default();
        gathering.judge(tallies.iter_mut().map(|tally| (tally, None)), SPAN, START);
        let gathers: Vec<bool> = tallies.iter().map(|tally| tally.gathers()).collect();
        assert_eq!(gathering.look_at(), gathers.contains(&true).then(|| START + EVERY_MIN));
        gathers
    }

    #[test]
    fn busy_links_gather_and_quiet_ones_do_not() {
        // 5,800 a second each, and a line with 800.
        let tallies = vec![tally(8, 8, false), tally(58, 40, false), tally(58, 58, true)];
        assert_eq!(judged(tallies), [false, true, true]);
        // Each busy, too little together.
        assert_eq!(judged(vec![tally(19, 19, false), tally(20, 20, true)]), [false, false]);
        assert_eq!(judged(vec![tally(20, 20, false), tally(20, 20, true)]), [true, true]);
        // Many with a receive already.
        assert_eq!(judged(vec![tally(4_000, 1_000, false), tally(3_999, 1_000, false)]), [false, true]);
        // And once it became so fast.
        assert_eq!(judged(vec![tally(32_000, 1_000, true), tally(8_000, 1_000, true)]), [false, true]);
        assert_eq!(judged(vec![tally(0, 0, true)]), [false]);
    }

    #[test]
    fn looks_are_spaced_and_judgements_too() {
        let (mut gathering, now) = (Gathering::default(), START);
        assert!(!gathering.looks(now), "no socket gathers");
        assert!(gathering.judges(now).is_some());
        assert_eq!(gathering.judges(now + SPAN / 2), None);
        gathering.judge([(&mut tally(100, 100, false), None)].into_iter(), SPAN, now);
        assert!(!gathering.looks(now));
        assert!(gathering.looks(now + ms(3)));
        assert_eq!(gathering.look_at(), Some(now + ms(4)));
        assert_eq!(gathering.judges(now + SPAN), Some(SPAN));
    }

    #[test]
    fn far_links_gather_for_longer_and_the_nearest_that_gathers_decides() {
        let every = |round_trips: &[(u64, u64)]| {
            let mut gathering = Gathering::default();
            let mut sockets: Vec<_> = round_trips
                .iter()
                .map(|(per_span, rtt)| (tally(*per_span, *per_span, false), Some(ms(*rtt))))
                .collect();
            gathering.judge(sockets.iter_mut().map(|(tally, rtt)| (tally, *rtt)), SPAN, START);
            gathering.look_at().map(|at| at - START)
        };
        assert_eq!(every(&[(58, 80), (58, 600)]), Some(ms(2)));
        assert_eq!(every(&[(58, 80), (58, 48)]), Some(Duration::from_micros(1_500)));
        assert_eq!(every(&[(58, 80), (58, 5)]), Some(ms(1)));
        assert_eq!(every(&[(58, 80), (8, 5)]), Some(ms(2)), "a line that does not gather");
        assert_eq!(every(&[(8, 80)]), None);
    }
}
