use super::*;

const STEP: Duration = Duration::from_millis(10);

/// A link of 60 Mbit/s on which each of some UDP flows gets through at `flow_mbps` at most.
struct Carrier {
    flow_mbps: f64,
    link_mbps: f64,
    /// What is offered, and what is lost of it whatever it is.
    offered_mbps: f64,
    loss: f64,
    has_queue: bool,
    is_busy: bool,
    /// The congestion control finds a policer this often; zero: never.
    found_every: Duration,
}

const POLICED: Carrier = Carrier {
    flow_mbps: 8.0,
    link_mbps: 60.0,
    offered_mbps: 100.0,
    loss: 0.0,
    has_queue: false,
    is_busy: true,
    found_every: Duration::from_secs(3),
};

struct World {
    trial: Trial,
    now: Instant,
    delivered: u64,
    lost: u64,
    policed_at: Option<Instant>,
    /// Flows that can be had.
    had: u8,
    /// The number of flows each time it changed, and the time since the start.
    course: Vec<(u64, u8)>,
    searches: u32,
}

impl World {
    fn new(configured: UdpFlows) -> Self {
        Self {
            trial: Trial::new(configured),
            now: Instant::from_nanos(1_000_000_000),
            delivered: 0,
            lost: 0,
            policed_at: None,
            had: UDP_FLOWS_MAX,
            course: Vec::new(),
            searches: 0,
        }
    }

    fn seconds(&self) -> u64 {
        self.now.saturating_since(Instant::from_nanos(1_000_000_000)).as_secs()
    }

    fn run(&mut self, seconds: u64, carrier: &Carrier) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.step(carrier);
        }
    }

    /// Until more flows are tried.
    fn run_to_trial(&mut self, carrier: &Carrier) {
        while self.trial.used() == 1 {
            self.step(carrier);
        }
    }

    fn step(&mut self, carrier: &Carrier) {
        self.now = self.now + STEP;
        let live = self.trial.used().min(self.had);
        let most = (carrier.flow_mbps * f64::from(live)).min(carrier.link_mbps);
        let bytes = |mbps: f64| {
            let micros = Duration::from_secs_f64(mbps / 8.0 * STEP.as_secs_f64()).as_micros();
            u64::try_from(micros).unwrap()
        };
        let arrives = most.min(carrier.offered_mbps) * (1.0 - carrier.loss);
        self.delivered += bytes(arrives);
        self.lost += bytes((carrier.offered_mbps.min(most * 1.2) - arrives).max(0.0));
        if !carrier.found_every.is_zero()
            && self.policed_at.is_none_or(|at| self.now.saturating_since(at) >= carrier.found_every)
        {
            self.policed_at = Some(self.now);
        }
        let seen = Seen {
            delivered: self.delivered,
            lost: self.lost,
            has_queue: carrier.has_queue,
            is_busy: carrier.is_busy,
            policed_at: self.policed_at,
        };
        let before = self.trial.used();
        self.searches += u32::from(self.trial.on_observation(&seen, live, self.now));
        if before != self.trial.used() {
            self.course.push((self.seconds(), self.trial.used()));
        }
    }

    fn counts(&self) -> Vec<u8> {
        self.course.iter().map(|(_, count)| *count).collect()
    }

    /// The times at which more flows were tried.
    fn trials(&self) -> Vec<u64> {
        self.course.iter().filter(|(_, count)| *count > 1).map(|(at, _)| *at).collect()
    }
}

#[test]
fn flows_double_while_as_much_more_arrives_and_stay() {
    let mut world = World::new(UdpFlows::Auto);
    world.run(30, &POLICED);
    assert_eq!(world.counts(), [2, 4, 8]);
    assert_eq!(world.searches, 3);
    assert!(world.course.last().is_some_and(|(at, _)| *at <= 8), "{:?}", world.course);
    world.run(3_600, &POLICED);
    assert_eq!(world.counts(), [2, 4, 8], "no more, and no fewer");
    // Only the sender that tries tells the peer.
    assert_eq!(world.trial.told(), Some(WantedFlows { count: 8, is_fixed: false }));
}

#[test]
fn the_last_flows_are_kept_only_where_clearly_more_arrives() {
    let narrow = Carrier { link_mbps: 17.0, ..POLICED };
    let mut world = World::new(UdpFlows::Auto);
    world.run(20, &narrow);
    // Four bring 17 where two brought 16.
    assert_eq!(world.counts(), [2, 4, 2]);
    let wider = Carrier { link_mbps: 21.0, ..POLICED };
    let mut world = World::new(UdpFlows::Auto);
    world.run(20, &wider);
    assert_eq!(world.counts()[..2], [2, 4]);
    assert_eq!(world.trial.count, 4, "21 is a quarter more than 16");
}

#[test]
fn a_trial_that_fails_is_repeated_ever_more_rarely() {
    let joint = Carrier { link_mbps: 8.0, ..POLICED };
    let mut world = World::new(UdpFlows::Auto);
    world.run(4 * 3_600, &joint);
    let trials = world.trials();
    let pauses: Vec<u64> = trials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let expected = [30, 60, 120, 240, 480, 960, 960];
    assert!(pauses.len() >= expected.len());
    for (pause, least) in pauses.iter().zip(expected) {
        assert!((least..least + 12).contains(pause), "{pauses:?}");
    }
    assert_eq!(world.trial.used(), 1);
    assert_eq!(world.trial.told(), None);
}

#[test]
fn there_is_no_trial_without_a_reason() {
    let quiet = Carrier { found_every: Duration::ZERO, ..POLICED };
    for carrier in [
        // Nothing is lost.
        Carrier { offered_mbps: 7.9, ..quiet },
        // The queue overflows.
        Carrier { has_queue: true, ..quiet },
        // One in thirty is lost by chance.
        Carrier { flow_mbps: 60.0, offered_mbps: 8.0, loss: 0.03, ..quiet },
    ] {
        let mut world = World::new(UdpFlows::Auto);
        world.run(120, &carrier);
        assert_eq!(world.counts(), [0; 0]);
    }
    // A policer that the control found once, a minute apart, while little is carried.
    let light =
        Carrier { offered_mbps: 1.0, is_busy: false, found_every: Duration::from_secs(60), ..POLICED };
    let mut world = World::new(UdpFlows::Auto);
    world.run(300, &light);
    assert_eq!(world.counts(), [0; 0]);
}

#[test]
fn loss_without_a_queue_is_a_reason_before_the_control_is_sure() {
    let mut world = World::new(UdpFlows::Auto);
    world.run(15, &Carrier { found_every: Duration::ZERO, ..POLICED });
    assert_eq!(world.counts(), [2, 4, 8]);
}

#[test]
fn where_chance_loses_more_flows_bring_nothing() {
    let mut world = World::new(UdpFlows::Auto);
    let chance =
        Carrier { flow_mbps: 20.0, link_mbps: 20.0, loss: 0.1, found_every: Duration::ZERO, ..POLICED };
    world.run(20, &chance);
    assert_eq!(world.counts(), [2, 1]);
}

#[test]
fn a_load_that_ends_makes_a_trial_void() {
    let mut world = World::new(UdpFlows::Auto);
    world.run_to_trial(&POLICED);
    let idle = Carrier { offered_mbps: 0.1, is_busy: false, ..POLICED };
    world.run(60, &idle);
    assert_eq!(world.counts(), [2, 1]);
    // The next one waits for no pause of a failure.
    world.run(12, &POLICED);
    assert_eq!(world.trial.count, 8, "{:?}", world.course);
}

#[test]
fn flows_that_are_not_to_be_had_are_not_tried_for_long() {
    let mut world = World::new(UdpFlows::Auto);
    world.had = 1;
    world.run(20, &POLICED);
    assert_eq!((world.counts(), world.searches), (vec![2, 1], 0));
    // Without an answer, too.
    let mut world = World::new(UdpFlows::Auto);
    world.had = 1;
    world.run_to_trial(&POLICED);
    world.trial.on_time(world.now + Duration::from_secs(3));
    assert_eq!(world.trial.used(), 1);
}

#[test]
fn a_fixed_number_is_not_tried_and_binds_the_peer() {
    let mut world = World::new(UdpFlows::Fixed(3));
    assert_eq!((world.trial.used(), world.trial.asked()), (3, 3));
    let told = world.trial.told();
    world.run(20, &POLICED);
    assert_eq!(world.counts(), [0; 0]);

    let mut peer = World::new(UdpFlows::Auto);
    peer.trial.on_peer(told);
    assert_eq!((peer.trial.used(), peer.trial.told()), (3, None));
    peer.run(20, &POLICED);
    assert_eq!(peer.counts(), [0; 0]);

    // Where one side has a limit, the other asks in vain.
    world.trial.on_peer(Some(WantedFlows { count: 8, is_fixed: false }));
    assert_eq!((world.trial.used(), world.trial.asked()), (3, 3));
    let mut auto = Trial::new(UdpFlows::Auto);
    auto.on_peer(Some(WantedFlows { count: 15, is_fixed: true }));
    assert_eq!((auto.used(), auto.asked()), (8, 8));
    auto.on_peer(Some(WantedFlows { count: 4, is_fixed: false }));
    assert_eq!((auto.used(), auto.asked()), (1, 4), "kept alive for the peer");
}

#[test]
fn what_paid_is_kept_over_a_failure_of_the_link() {
    let mut world = World::new(UdpFlows::Auto);
    world.run(15, &POLICED);
    world.trial.on_restart();
    assert_eq!(world.trial.used(), 8);
}
