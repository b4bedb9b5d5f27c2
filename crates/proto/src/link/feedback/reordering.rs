//! By how much a link reorders, learned from what arrived over it.
//!
//! A datagram is *late* if one that was sent after it arrived before it. How late is two figures:
//! how many datagrams, and how much time, the newest of those was sent after it. [`Reordering`]
//! keeps the distribution of both over the last five to ten seconds, and answers with the
//! [`Patience`] that all but one of [`RARE`] datagrams keep to. A link on which later ones are
//! rarer than that keeps the order: there is no patience beyond the caller's own.
//!
//! Both ends of a link use it: the sender with what feedback tells, to know a loss; the receiver
//! with counters and stamps, to know for how long a gap may still be filled.
//!
//! Start: until [`KNOWN`] datagrams arrived nothing is known, and the caller's guess counts, which
//! it takes from the delays of heartbeats. So the first packets over a link that jitters are not
//! all taken for lost.
//!
//! Contract: [`Reordering::on_arrived`] is told of each datagram, [`Reordering::on_late`] of the
//! late ones too. Both figures are bounded. Where nothing is late it has no memory on the heap.
//! It knows no clock and no round trip.
//!
//! Source: RFC 8985 §3.3.2 and §6.2 (a window in time that adapts, and that is forgotten).

use std::time::Duration;

use crate::time::Instant;

/// One datagram in so many may be later than the patience. Chosen: of a link that loses 1 %, a
/// hundredth of what is sent again is then sent again in vain.
const RARE: u32 = 10_000;
/// So many datagrams tell whether a link reorders. Chosen: a tenth of a second at 60 Mbit/s.
const KNOWN: u32 = 512;
/// Half of the time that is remembered. Chosen: as for the least delay, ten seconds in all.
const PERIOD: Duration = Duration::from_secs(5);

/// The unit of time, of a datagram's stamp (PROTOCOL.md).
const UNIT: Duration = Duration::from_micros(100);
/// The longest patience in time. Chosen: a jitter of 20 ms deviation reorders by 100 ms, and a
/// packet that is sent again after twice that comes too late to be waited for.
const TIME_MAX: Duration = Duration::from_millis(200);
/// The longest in datagrams. Chosen: as many as the replay window holds; later ones are refused.
const PACKETS_MAX: u64 = crate::crypto::replay::WINDOW;

/// Classes of one figure: four in each doubling, up to the bounds above.
const CLASSES: usize = 52;

/// How much later than a delivered datagram another one of the link may still arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::link) struct Patience {
    /// Datagrams sent after it.
    pub(in crate::link) packets: u64,
    /// The time in which they were sent.
    pub(in crate::link) time: Duration,
}

/// How many datagrams were late by how much in one period.
type Counts = [u16; CLASSES];

/// The distributions of the present period and the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Late {
    packets: [Counts; 2],
    time: [Counts; 2],
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(in crate::link) struct Reordering {
    /// `None`: no datagram was late.
    late: Option<Box<Late>>,
    /// Datagrams that arrived in the present period, and in the one before.
    arrived: [u32; 2],
    /// When the present period began.
    since: Instant,
}

impl Reordering {
    /// `count` datagrams arrived.
    #[inline]
    pub(in crate::link) fn on_arrived(&mut self, count: u32, now: Instant) {
        if now.saturating_since(self.since) >= PERIOD {
            self.begin_period(now);
        }
        let [present, _] = &mut self.arrived;
        *present = present.saturating_add(count);
    }

    /// A datagram arrived after one that was sent `packets` and `time` later.
    pub(in crate::link) fn on_late(&mut self, packets: u64, time: Duration) {
        let late = self
            .late
            .get_or_insert_with(|| Box::new(Late { packets: [[0; CLASSES]; 2], time: [[0; CLASSES]; 2] }));
        let units = u64::try_from(time.as_micros() / UNIT.as_micros()).unwrap_or(u64::MAX);
        for ([counts, _], figure) in [(&mut late.packets, packets), (&mut late.time, units)] {
            if let Some(count) = counts.get_mut(class_of(figure)) {
                *count = count.saturating_add(1);
            }
        }
    }

    /// How late datagrams may be. `None`: the link keeps the order. `guess`: how late they are
    /// taken to be while too few arrived, and at least on a link that reorders.
    pub(in crate::link) fn patience(&self, guess: Duration) -> Option<Patience> {
        let arrived = self.arrived[0].saturating_add(self.arrived[1]);
        let learned = self.late.as_ref().and_then(|late| {
            let rare = arrived / RARE;
            let packets = quantile(&late.packets, rare)?;
            let units = quantile(&late.time, rare)?;
            let time = UNIT * u32::try_from(units).unwrap_or(u32::MAX);
            Some(Patience { packets: packets.min(PACKETS_MAX), time: time.min(TIME_MAX) })
        });
        let is_known = arrived >= KNOWN;
        if learned.is_none() && (is_known || guess.is_zero()) {
            return None;
        }
        let Patience { packets, time } =
            learned.unwrap_or(Patience { packets: PACKETS_MAX, time: Duration::ZERO });
        let packets = if is_known || guess.is_zero() { packets } else { PACKETS_MAX };
        Some(Patience { packets, time: time.max(guess).min(TIME_MAX) })
    }

    /// Whether datagrams that arrived lately were late.
    pub(in crate::link) const fn is_any_late(&self) -> bool {
        self.late.is_some()
    }

    /// Forgets what is older than the period that ends now.
    #[cold]
    fn begin_period(&mut self, now: Instant) {
        let is_gap = now.saturating_since(self.since) >= PERIOD * 2;
        self.since = now;
        let [present, before] = &mut self.arrived;
        (*before, *present) = (if is_gap { 0 } else { *present }, 0);
        if let Some(late) = &mut self.late {
            for [present, before] in [&mut late.packets, &mut late.time] {
                *before = if is_gap { [0; CLASSES] } else { *present };
                *present = [0; CLASSES];
            }
        }
        let is_none = |late: &Late| late.packets[1].iter().all(|count| *count == 0);
        if self.late.as_ref().is_some_and(|late| is_none(late)) {
            self.late = None;
        }
    }
}

/// The figure that no more than `rare` exceed, rounded up to its class; `None`: there are no more.
fn quantile(counts: &[Counts; 2], rare: u32) -> Option<u64> {
    let [present, before] = counts;
    let mut above = 0;
    for class in (0..CLASSES).rev() {
        let of = |counts: &Counts| counts.get(class).copied().map_or(0, u32::from);
        above += of(present) + of(before);
        if above > rare {
            return Some(end_of(class));
        }
    }
    None
}

/// The class of a figure: its two bits below the highest one divide each doubling into four.
fn class_of(figure: u64) -> usize {
    let figure = figure.max(1);
    let doubling = figure.ilog2();
    let quarter = if doubling >= 2 { figure >> (doubling - 2) } else { figure << (2 - doubling) } & 3;
    (doubling as usize * 4 + quarter as usize).min(CLASSES - 1)
}

/// The least figure above the class.
fn end_of(class: usize) -> u64 {
    let (doubling, quarter) = (class / 4, class as u64 % 4);
    ((5 + quarter) << doubling).div_ceil(4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO_GUESS: Duration = Duration::ZERO;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(100) + ms(millis)
    }

    #[test]
    fn classes_cover_every_figure_and_ascend() {
        for figure in 1..20_000_u64 {
            let class = class_of(figure);
            assert!(class == CLASSES - 1 || figure < end_of(class), "{figure}");
            assert!(class == 0 || figure >= end_of(class - 1), "{figure}");
        }
        assert!(end_of(CLASSES - 1) >= PACKETS_MAX);
        assert!(UNIT * u32::try_from(end_of(CLASSES - 1)).unwrap() >= TIME_MAX);
    }

    #[test]
    fn a_link_that_keeps_the_order_has_no_patience_once_it_is_known() {
        let mut link = Reordering::default();
        link.on_arrived(KNOWN - 1, at(0));
        assert_eq!(link.patience(NO_GUESS), None);
        assert_eq!(link.patience(ms(40)).unwrap().time, ms(40), "a guess counts for the first ones");
        link.on_arrived(1, at(1));
        assert_eq!(link.patience(ms(40)), None);
    }

    #[test]
    fn what_one_in_ten_thousand_exceeds_counts_only_while_few_arrived() {
        let mut link = Reordering::default();
        link.on_arrived(1_000, at(0));
        link.on_late(5, ms(3));
        link.on_late(300, ms(90));
        let patience = link.patience(NO_GUESS).unwrap();
        assert!((ms(90)..ms(120)).contains(&patience.time), "{patience:?}");
        assert!((300..400).contains(&patience.packets), "{patience:?}");
        assert!(link.patience(ms(150)).unwrap().time == ms(150), "little was sent perhaps");
        link.on_arrived(9_000, at(100));
        let patience = link.patience(NO_GUESS).unwrap();
        assert!(patience.time < ms(4) && patience.packets <= 7, "{patience:?}");
        link.on_arrived(10_000, at(200));
        assert_eq!(link.patience(NO_GUESS), None, "two in twenty thousand");
    }

    #[test]
    fn it_is_forgotten_after_ten_seconds_and_its_memory_is_free() {
        let mut link = Reordering::default();
        link.on_arrived(1_000, at(0));
        link.on_late(50, ms(20));
        link.on_arrived(1_000, at(6_000));
        assert!(link.patience(NO_GUESS).is_some());
        link.on_arrived(1_000, at(12_000));
        assert_eq!((link.patience(NO_GUESS), link.is_any_late()), (None, false));
    }

    proptest! {
        /// Whatever arrives: the patience is bounded, all but a rare one of what was late keeps to
        /// it, and it decays once nothing is late any more.
        #[test]
        fn patience_is_bounded_and_decays(
            late in proptest::collection::vec((0_u64..1 << 40, 0_u64..1 << 40, 0_u32..3_000), 1..300),
            step_ms in 0_u64..200,
        ) {
            let mut link = Reordering::default();
            let mut now = 0;
            let mut recent = Vec::new();
            for (packets, micros, others) in late {
                now += step_ms;
                link.on_arrived(others + 1, at(now));
                link.on_late(packets, Duration::from_micros(micros));
                recent.push((now, packets, Duration::from_micros(micros), others + 1));
            }
            if let Some(patience) = link.patience(NO_GUESS) {
                prop_assert!(patience.packets <= PACKETS_MAX && patience.time <= TIME_MAX);
            }
            // What is certainly remembered: of the last five seconds.
            recent.retain(|(then, ..)| now - then < 5_000);
            let patience = link.patience(NO_GUESS).unwrap_or(Patience { packets: 0, time: Duration::ZERO });
            let beyond = recent.iter().filter(|(_, packets, ..)| {
                *packets > patience.packets && patience.packets < PACKETS_MAX
            });
            let rare = usize::try_from((link.arrived[0] + link.arrived[1]) / RARE).unwrap();
            prop_assert!(beyond.count() <= rare);
            let beyond = recent.iter().filter(|(_, _, time, _)| {
                *time > patience.time && patience.time < TIME_MAX
            });
            prop_assert!(beyond.count() <= rare);
            link.on_arrived(KNOWN, at(now + 5_001));
            link.on_arrived(KNOWN, at(now + 10_002));
            prop_assert_eq!(link.patience(NO_GUESS), None);
            prop_assert!(!link.is_any_late());
        }
    }
}
