//! Lets the datagrams of busy links gather in their sockets.
//!
//! Links of some ten Mbit/s deliver datagrams one by one, each a wake-up: of 290 Mbit/s over five links 20,000 a second, and most of what a
//! datagram costs is the waking. So sockets that are busy that way are not waited for: all of them are looked at together every 1/32 of the
//! shortest round trip among them, 1 to 2 ms. (A server's socket has clients near and far: 1 ms.) A datagram of a quiet link is still taken at
//! once, so light traffic beside a download over other links does not meet this; what busy links deliver is taken up to that much later. The kernel
//! says when it came, so no measurement of a link notices.
//!
//! Who gathers is decided every [`JUDGED_EVERY`]: sockets with [`BUSY_PER_S`] datagrams a second or more, if together they have
//! [`WORTH_PER_S`], four for each look. A socket that gives many datagrams to a receive anyway is waited for: there is nothing to save, and a
//! link of Gbit/s would stand still for nothing.
//!
//! It knows no sockets: it counts, and says when to look.
//!
//! (Lab, `reference`, both ends and the emulator on two cores, one download at 263 Mbit/s, system calls a second, client and server: to wait
//! 19,400 and 7,300 without, 5,300 and 4,300 with it; to receive 25,500 and 7,900, 9,600 and 2,800; processor time, with bulk that waits for
//! its quantum whatever wakes the loop, 0.28 and 0.24, 0.16 and 0.17. An echo beside it has 21.5 and 21.8 ms in the median. With 250 µs, and without that other change,
//! 0.20 and 0.20. All that was with half a millisecond and four receives a call; with a millisecond and eight, in alternating runs, two of one download
//! and five of four: 0.16 and 0.15 -> 0.13 and 0.14 of a processor, 0.20 and 0.21 -> 0.16 and 0.20, calls to receive 10,000 -> 4,850 and 2,670 -> 1,820, to wait
//! 4,900 -> 3,200 and 3,800 -> 3,200. The echo goes over a link that is not busy: 22.2 ms with either. On `dual`, where it is, one run each, 21.5 -> 21.7 ms.
//! With two milliseconds over links of 80 ms, five alternating runs: the client's processor time 0.10 -> 0.08 or 0.09 for one download, 0.13 -> 0.10 or
//! 0.11 for four, the server's 0.17 -> 0.16 for four; with three, two runs, no less. The echo beside it 21.5 to 21.7 ms with either.)

use std::time::Duration;

use bonding_proto::Instant;

/// How long they gather at least. The quantum that bulk is sent in.
const EVERY_MIN: Duration = Duration::from_millis(1);
/// And at most: with three milliseconds a download took as much.
const EVERY_MAX: Duration = Duration::from_millis(2);
/// Up to such a part of the shortest round trip of those that gather.
const ROUND_TRIP_PART: u32 = 32;
/// Who gathers is decided anew after this.
const JUDGED_EVERY: Duration = Duration::from_millis(10);
/// A socket with so many datagrams a second is busy.
const BUSY_PER_S: u64 = 1_000;
/// All that gather have to have so many together.
const WORTH_PER_S: u64 = 4_000;
/// A socket that gives so many datagrams with a receive needs no gathering.
const MANY: u64 = 4;
/// Receives of a socket that gathers are so many in one.
const RECEIVES: u64 = bonding_os::udp::RECEIVES_MAX as u64;

/// What one socket had since the last judgement.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    datagrams: u64,
    receives: u64,
    /// It is looked at, not waited for.
    gathers: bool,
}

impl Tally {
    /// One receive gave so many datagrams.
    pub(super) fn on_receive(&mut self, datagrams: usize) {
        self.datagrams += datagrams as u64;
        self.receives += 1;
    }

    /// Whether it is looked at, not waited for.
    pub(super) const fn gathers(&self) -> bool {
        self.gathers
    }

    /// Datagrams a second that come one by one; none on a socket that is not busy.
    fn busy_per_s(&self, span: Duration) -> Option<u64> {
        let per_s = self.datagrams.saturating_mul(1_000_000) / micros(span);
        let many = if self.gathers { MANY * RECEIVES } else { MANY };
        let singly = self.datagrams < self.receives * many;
        Some(per_s).filter(|per_s| singly && *per_s >= BUSY_PER_S)
    }
}

/// When to look, and at whom.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    judged_at: Instant,
    every: Duration,
    /// The next look, while somebody gathers.
    look_at: Option<Instant>,
}

impl Gathering {
    /// When those that gather are to be looked at.
    pub(super) const fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Whether they are to be looked at now; the next look is a while later.
    pub(super) fn looks(&mut self, now: Instant) -> bool {
        let due = self.look_at.is_some_and(|at| at <= now);
        if due {
            self.look_at = Some(now + self.every);
        }
        due
    }

    /// Whether it is time to decide who gathers, and over which span.
    pub(super) fn judges(&mut self, now: Instant) -> Option<Duration> {
        let span = now.saturating_since(self.judged_at);
        if span < JUDGED_EVERY {
            return None;
        }
        self.judged_at = now;
        Some(span)
    }

    /// Decides who gathers, from what came in `span`, and begins to count anew. Each comes with the shortest round trip over its socket, if that is
    /// known.
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

    /// Who gathers after a span of 10 ms.
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
        assert!(!gathering.looks(now), "nobody gathers");
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
