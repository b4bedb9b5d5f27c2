use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_millis(150);
const RTT: Duration = Duration::from_millis(80);

/// A search over a link that carries `limit` bytes, in virtual time. Small datagrams arrive.
struct Bench {
    mtu: PathMtu,
    now: Instant,
    limit: u16,
    /// Sizes asked for.
    asked: Vec<u16>,
    /// The `n`-th probe from now is lost by chance.
    unlucky: Option<usize>,
}

impl Bench {
    fn new(max: u16, limit: u16) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        Self { mtu: PathMtu::new(max), now, limit, asked: Vec::new(), unlucky: None }
    }

    /// Lets the probes that are due go out and be answered, or be overdue. `false`: none was due.
    fn step(&mut self) -> bool {
        let mut answers = Vec::new();
        let (start, mut count, mut lost) = (self.now, 0, false);
        while let Some(probe) = self.mtu.poll_probe(TIMEOUT, self.now) {
            count += 1;
            assert!(count <= UNDERWAY_MAX);
            self.asked.push(probe.bytes);
            let unlucky = self.unlucky == Some(0);
            self.unlucky = self.unlucky.and_then(|left| left.checked_sub(1));
            if probe.bytes <= self.limit && !unlucky {
                answers.push(probe);
            } else {
                lost = true;
            }
        }
        for probe in answers {
            self.now = start + RTT;
            self.mtu.on_answer(probe.id, probe.bytes, self.now);
        }
        if lost {
            self.now = self.mtu.poll_timeout().unwrap();
            assert_eq!(self.now, start + TIMEOUT);
            self.mtu.on_time(Some(start + Duration::from_millis(10)), true, self.now);
        }
        count > 0
    }

    fn search(&mut self) -> Duration {
        let start = self.now;
        while self.mtu.phase != Phase::Complete {
            assert!(self.step(), "{:?}", self.mtu);
        }
        assert!(self.mtu.is_settled());
        assert_eq!(self.mtu.poll_timeout(), None);
        self.now - start
    }

    /// Full packets for `span`, and whatever probes that brings.
    fn carry(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.mtu.on_sent(u64::from(self.mtu.bytes()));
            if !self.step() {
                self.now = self.now + Duration::from_millis(1);
            }
        }
    }
}

#[test]
fn a_link_that_carries_the_maximum_costs_one_probe() {
    let mut bench = Bench::new(1_500, 1_500);
    assert_eq!((bench.mtu.bytes(), bench.mtu.is_opening()), (1_200, true));
    assert_eq!(bench.search(), RTT);
    assert_eq!((bench.mtu.bytes(), bench.asked.as_slice()), (1_500, [1_500].as_slice()));
}

#[test]
fn a_narrow_link_is_found_in_few_probes_and_used_meanwhile() {
    let mut bench = Bench::new(1_500, 1_300);
    bench.step();
    assert!(!bench.mtu.is_opening() && !bench.mtu.is_settled());
    bench.search();
    assert_eq!(bench.mtu.bytes(), 1_300);
    assert_eq!(bench.asked, [1_500, 1_380, 1_320, 1_280, 1_300, 1_320, 1_320]);
    // Three rounds with losses and one without.
    assert_eq!(bench.now - Instant::from_nanos(1_000_000_000), TIMEOUT * 3 + RTT);
}

#[test]
fn every_limit_is_found_to_the_next_common_size_below() {
    for max in [1_500, 1_480, 9_000] {
        for limit in (576..=max).step_by(7) {
            let mut bench = Bench::new(max, limit);
            bench.search();
            let best = COMMON_BYTES.into_iter().chain([max, FLOOR_BYTES]);
            let best = best.filter(|bytes| *bytes <= limit.min(max)).max().unwrap();
            assert_eq!(bench.mtu.bytes(), best, "{limit} of {max}");
            let most = if max > 1_500 { 14 } else { 11 } + if limit < 1_280 { 17 } else { 0 };
            assert!(bench.asked.len() <= most, "{limit} of {max}: {:?}", bench.asked);
        }
    }
}

/// Where the base passes no more, less does, and what passes again later is found again.
#[test]
fn a_link_below_the_base_is_found_and_left_again() {
    let mut bench = Bench::new(1_500, 1_100);
    let took = bench.search();
    assert_eq!(bench.mtu.bytes(), 1_080);
    assert!(took <= TIMEOUT * 12, "{took:?}");
    bench.limit = 1_500;
    bench.carry(RAISE_MIN * 2);
    assert_eq!(bench.mtu.bytes(), 1_500);
    bench.limit = 800;
    bench.carry(Duration::from_secs(30));
    assert_eq!(bench.mtu.bytes(), 800);
    // This machine itself sends no more.
    let mut bench = Bench::new(1_100, 1_100);
    assert_eq!((bench.mtu.bytes(), bench.mtu.is_opening()), (1_100, false));
    bench.search();
    assert_eq!((bench.mtu.bytes(), bench.asked.as_slice()), (1_100, [1_100].as_slice()));
    assert!(bench.mtu.on_refused(700, bench.now));
    bench.limit = 699;
    bench.search();
    assert_eq!(bench.mtu.bytes(), 680);
}

#[test]
fn a_probe_lost_by_chance_changes_nothing_in_the_end() {
    for limit in [1_500, 1_400, 1_200] {
        for unlucky in 0..9 {
            let mut bench = Bench::new(1_500, limit);
            bench.unlucky = Some(unlucky);
            bench.search();
            assert_eq!(bench.mtu.bytes(), limit, "unlucky {unlucky}");
        }
    }
}

#[test]
fn an_outage_says_nothing_about_sizes() {
    let mut bench = Bench::new(1_500, 1_500);
    bench.mtu.poll_probe(TIMEOUT, bench.now).unwrap();
    let sent_at = bench.now;
    for _ in 0..10 {
        bench.now = bench.mtu.poll_timeout().unwrap();
        assert!(!bench.mtu.on_time(Some(sent_at), true, bench.now));
        assert!(bench.mtu.is_opening());
    }
    // Down: it is forgotten, and asked again when the link is back.
    bench.now = bench.mtu.poll_timeout().unwrap();
    assert!(!bench.mtu.on_time(Some(sent_at), false, bench.now));
    assert_eq!(bench.mtu.poll_timeout(), None);
    bench.search();
    assert_eq!(bench.mtu.bytes(), 1_500);
}

#[test]
fn a_late_answer_counts() {
    let mut bench = Bench::new(1_500, 1_200);
    let probe = bench.mtu.poll_probe(TIMEOUT, bench.now).unwrap();
    bench.now = bench.now + TIMEOUT;
    bench.mtu.on_time(Some(bench.now), true, bench.now);
    assert!(!bench.mtu.on_answer(probe.id, 1_499, bench.now), "not what was sent");
    assert!(!bench.mtu.on_answer(probe.id + 1, 1_500, bench.now), "not asked for");
    assert!(bench.mtu.on_answer(probe.id, 1_500, bench.now));
    assert_eq!((bench.mtu.bytes(), bench.mtu.is_settled()), (1_500, true));
}

#[test]
fn a_black_hole_is_found_within_seconds_and_the_link_used_again() {
    for limit in [1_200, 1_300, 1_492] {
        let mut bench = Bench::new(1_500, 1_500);
        bench.search();
        bench.carry(Duration::from_secs(3));
        bench.limit = limit;
        bench.asked.clear();
        let start = bench.now;
        while bench.mtu.bytes() == 1_500 {
            bench.carry(Duration::from_millis(1));
        }
        assert_eq!(bench.asked, [1_500; 3]);
        assert!(bench.now - start < Duration::from_millis(1_500), "{:?}", bench.now - start);
        bench.search();
        assert_eq!(bench.mtu.bytes(), limit);
        assert!(bench.now - start < Duration::from_millis(2_200), "{:?}", bench.now - start);
    }
}

#[test]
fn heavy_loss_has_the_size_asked_for_at_once() {
    let mut bench = Bench::new(1_500, 1_500);
    bench.search();
    bench.mtu.on_heavy_loss();
    assert!(!bench.step(), "nothing large was sent");
    bench.mtu.on_sent(1_400);
    assert!(bench.step());
    assert!(!bench.step(), "answered");
}

#[test]
fn data_that_arrives_is_no_black_hole() {
    for (delivered, falls) in [(1_500, false), (1_499, true)] {
        let mut bench = Bench::new(1_500, 1_500);
        bench.search();
        bench.limit = 1_499;
        for _ in 0..10 {
            bench.now = bench.now + CONFIRM_MIN;
            bench.mtu.on_heavy_loss();
            bench.mtu.on_sent(1_500);
            bench.step();
            bench.mtu.on_delivered(delivered, bench.now);
        }
        assert_eq!(bench.mtu.shown().0 < 1_500, falls, "{:?}", bench.mtu.shown());
    }
}

#[test]
fn confirmation_costs_a_hundredth_and_nothing_when_idle() {
    let mut bench = Bench::new(1_500, 1_500);
    bench.search();
    bench.now = bench.now + Duration::from_secs(3_600);
    assert!(!bench.step());
    // Little that is large: every 5 s.
    bench.asked.clear();
    for _ in 0..60 {
        bench.now = bench.now + Duration::from_secs(1);
        bench.mtu.on_sent(1_300);
        bench.step();
    }
    assert_eq!(bench.asked.len(), 12);
    // Small packets only: never, but for what is still to be confirmed.
    bench.now = bench.now + CONFIRM_MAX;
    bench.step();
    for _ in 0..100 {
        bench.now = bench.now + Duration::from_secs(1);
        bench.mtu.on_sent(1_200);
        assert!(!bench.step());
    }
    // 0.5 Mbit/s of full packets: 62.5 kB/s allow one probe in 2.4 s.
    bench.asked.clear();
    for _ in 0..60 * 42 {
        bench.now = bench.now + Duration::from_millis(24);
        bench.mtu.on_sent(1_500);
        bench.step();
    }
    assert!((25..=26).contains(&bench.asked.len()), "{}", bench.asked.len());
}

#[test]
fn a_link_that_is_used_is_asked_for_more_after_ten_seconds_and_ever_more_rarely() {
    let mut bench = Bench::new(1_500, 1_300);
    bench.search();
    for pause in [10, 20, 40, 80, 160, 320, 600, 600] {
        bench.asked.clear();
        bench.now = bench.now + Duration::from_secs(pause - 1);
        bench.mtu.on_sent(1_100);
        assert!(!bench.step(), "{pause}");
        bench.now = bench.now + Duration::from_secs(1);
        assert!(bench.step(), "{pause}");
        bench.search();
        assert_eq!((bench.asked.first(), bench.mtu.bytes()), (Some(&1_500), 1_300), "{pause}");
    }
    bench.limit = 1_500;
    bench.now = bench.now + Duration::from_secs(600);
    bench.mtu.on_sent(1_100);
    assert!(bench.step());
    assert_eq!(bench.mtu.bytes(), 1_500);
    // And an idle one is not.
    let mut bench = Bench::new(1_500, 1_300);
    bench.search();
    bench.now = bench.now + Duration::from_secs(6_000);
    bench.mtu.on_sent(100);
    assert!(!bench.step());
}

#[test]
fn what_the_machine_itself_refuses_is_not_asked_for_again() {
    let mut bench = Bench::new(1_500, 1_420);
    let probe = bench.mtu.poll_probe(TIMEOUT, bench.now).unwrap();
    assert!(bench.mtu.on_refused(probe.bytes, bench.now));
    bench.search();
    assert_eq!(bench.mtu.bytes(), 1_420);
    assert!(!bench.asked.contains(&1_500));
    // The interface shrinks: the size in use is refused.
    assert!(bench.mtu.on_refused(1_420, bench.now));
    assert_eq!((bench.mtu.bytes(), bench.mtu.is_settled()), (1_200, false));
    bench.limit = 1_380;
    bench.search();
    assert_eq!(bench.mtu.bytes(), 1_380);
    assert!(bench.mtu.on_refused(1_200, bench.now));
    bench.search();
    assert_eq!(bench.mtu.bytes(), 1_160);
    assert!(!bench.mtu.on_refused(FLOOR_BYTES, bench.now), "the floor is what it is");
}

#[test]
fn a_maximum_at_or_below_the_base_needs_no_search() {
    for max in [0, 576] {
        let mut bench = Bench::new(max, 1_500);
        assert_eq!((bench.mtu.bytes(), bench.mtu.is_settled()), (FLOOR_BYTES, true));
        assert!(!bench.step());
    }
    let mut bench = Bench::new(1_200, 1_500);
    bench.search();
    assert_eq!((bench.mtu.bytes(), bench.asked.as_slice()), (1_200, [1_200].as_slice()));
    assert!(!bench.step());
}

proptest! {
    /// Whatever happens, it asks only for what may be, ends, and what is in use was answered.
    #[test]
    fn any_history_keeps_the_bounds(
        max in 1_000u16.., steps in proptest::collection::vec((0u8..6, any::<u16>(), 0u64..400), 0..200),
    ) {
        let mut mtu = PathMtu::new(max);
        let mut now = Instant::from_nanos(1);
        let mut asked: Vec<Probe> = Vec::new();
        let mut answered = vec![max.min(BASE_BYTES), BASE_BYTES, FLOOR_BYTES];
        for (what, size, ms) in steps {
            now = now + Duration::from_millis(ms * ms / 10);
            match what {
                0 | 1 => {
                    if let Some(probe) = mtu.poll_probe(TIMEOUT, now) {
                        prop_assert!(probe.bytes > FLOOR_BYTES && probe.bytes <= max);
                        asked.push(probe);
                    }
                }
                2 => {
                    if let Some(probe) = asked.get(usize::from(size) % (asked.len() + 1)) {
                        answered.push(probe.bytes);
                        mtu.on_answer(probe.id, probe.bytes, now);
                    }
                }
                3 => {
                    let up = size % 8 > 0;
                    mtu.on_time(Some(now).filter(|_| size % 3 > 0), up, now);
                    prop_assert!(mtu.poll_timeout().is_none_or(|at| at > now));
                }
                4 => { mtu.on_refused(size, now); }
                _ => mtu.on_sent(u64::from(size)),
            }
            prop_assert!(answered.contains(&mtu.bytes()));
            prop_assert!(mtu.losses.len() <= COMMON_BYTES.len() + 1 && mtu.recent.len() <= RECENT_MAX);
            prop_assert!(mtu.underway.len() <= UNDERWAY_MAX);
        }
    }
}
