use super::*;
use crate::{Jitter, Loss, Outcome, Police, Spread};

#[test]
fn every_builtin_scenario_is_valid_and_named_as_its_file() {
    for name in builtin_names() {
        let scenario = builtin(name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(scenario.name, name);
        assert!(!scenario.description.is_empty());
    }
}

#[test]
fn the_reference_is_ten_and_four_times_seventy() {
    let scenario = builtin("reference").unwrap();
    assert_eq!(scenario.links.len(), 5);
    let seconds = |s| Duration::from_secs(s);
    assert_eq!(scenario.capacity_bps(Direction::Down, seconds(0), seconds(10)), Some(290_000_000));
    let rtts: Vec<_> = scenario.links.iter().map(|link| link.rtt().as_millis()).collect();
    assert_eq!(rtts, [20, 80, 80, 80, 80]);
}

#[test]
fn capacity_considers_outages() {
    let scenario = builtin("failover").unwrap();
    let capacity =
        |from, to| scenario.capacity_bps(Direction::Up, Duration::from_secs(from), Duration::from_secs(to));
    assert_eq!(capacity(0, 8), Some(100_000_000));
    assert_eq!(capacity(8, 14), Some(50_000_000));
    assert_eq!(capacity(9, 10), Some(50_000_000));
    assert_eq!(capacity(14, 20), Some(100_000_000));
    assert_eq!(capacity(4, 12), Some(75_000_000));
}

#[test]
fn a_varying_link_stays_within_its_bounds_and_uses_them() {
    let scenario = builtin("varying").unwrap();
    for link in &scenario.links {
        let rates: Vec<_> = (0..60)
            .map(|second| {
                let (from, to) = (Duration::from_secs(second), Duration::from_secs(second + 1));
                scenario.capacity_bytes(link, Direction::Down, from, to).unwrap() * 8
            })
            .collect();
        assert!(rates.iter().all(|bps| (980_000..=60_020_000).contains(bps)), "{}: {rates:?}", link.name);
        assert!(
            rates.iter().min() < rates.iter().max().map(|max| max / 4).as_ref(),
            "{}: {rates:?}",
            link.name
        );
    }
}

#[test]
fn one_direction_can_differ() {
    let text = r#"
        name = "x"
        description = "x"
        [[link]]
        name = "l"
        rate = "10mbit"
        delay = "5ms"
        loss = { ratio = "1%", burst = 4 }
        up = { rate = "1mbit", loss = "0%", queue = "64kB", mtu = 1400 }
    "#;
    let scenario = Scenario::parse(text, "x.toml", None).unwrap();
    let link = &scenario.links[0];
    assert_eq!(link.up.rate.mean_bps(), Some(1_000_000));
    assert_eq!(link.down.rate.mean_bps(), Some(10_000_000));
    assert_eq!((link.up.loss, link.up.mtu), (Loss::None, Some(1_400)));
    assert!((link.down.loss.mean_ratio() - 0.01).abs() < 1e-9);
    assert_eq!(link.rtt(), Duration::from_millis(10));
}

#[test]
fn jitter_is_uniform_or_normal_and_events_change_it() {
    let text = r#"
        name = "x"
        description = "x"
        [[link]]
        name = "l"
        rate = "10mbit"
        delay = "5ms"
        jitter = { deviation = "5ms", correlation = 0.9 }
        reorder = true
        up = { jitter = "3ms", reorder = false }
        down = { reorder = false }
        [[event]]
        at = "1s"
        link = "l"
        jitter = { deviation = "7ms" }
        [[event]]
        at = "2s"
        link = "l"
        direction = "down"
        reorder = true
    "#;
    let ms = Duration::from_millis;
    let scenario = Scenario::parse(text, "x.toml", None).unwrap();
    let link = &scenario.links[0];
    assert_eq!(link.up.jitter, Jitter::uniform(ms(3), false));
    assert_eq!(link.down.jitter, Jitter::normal(ms(5), 0.9, false));
    let changed: Vec<_> = scenario
        .events_of("l", Direction::Down)
        .filter_map(|event| if let Change::Jitter(jitter) = event.change { Some(jitter) } else { None })
        .collect();
    assert_eq!(changed, [Jitter::normal(ms(7), 0.0, false), Jitter::normal(ms(5), 0.9, true)]);
}

#[test]
fn the_sixteen_pairs_are_what_their_descriptions_say() {
    let pairs: Vec<_> = (1..=16).map(|pair| builtin(&format!("sweep-{pair:02}")).unwrap()).collect();
    let total = |scenario: &Scenario| {
        scenario.capacity_bps(Direction::Down, Duration::ZERO, Duration::from_secs(1)).unwrap() / 1_000_000
    };
    let rates: Vec<_> = pairs.iter().map(total).collect();
    assert_eq!(rates, [100, 62, 110, 100, 100, 100, 100, 100, 100, 100, 100, 65, 140, 330, 60, 35]);
    for scenario in &pairs {
        assert_eq!(scenario.links.len(), 2);
        for link in &scenario.links {
            let delay_ms = link.down.delay.as_millis();
            assert!(scenario.description.contains(&format!("/ {delay_ms}")), "{}", scenario.description);
            assert_eq!((link.up.delay, link.up.jitter), (link.down.delay, link.down.jitter));
            assert_eq!(link.down.jitter.reorder, link.down.jitter.spread != Spread::None);
        }
    }
}

#[test]
fn events_reach_the_pipe() {
    let scenario = builtin("failover").unwrap();
    let start = Time::from_millis(500);
    let mut pipe = scenario.pipe_with_events::<()>(&scenario.links[0], Direction::Up, 1, start);
    assert_eq!(pipe.enqueue((), 100, Time::from_millis(8_400)), Outcome::Queued);
    assert!(!pipe.enqueue((), 100, Time::from_millis(8_500)).is_queued());
    assert!(!pipe.enqueue((), 100, Time::from_millis(14_499)).is_queued());
    assert!(pipe.enqueue((), 100, Time::from_millis(14_500)).is_queued());
}

#[test]
fn what_happens_again_and_again_ends_in_time() {
    let text = "name='x'\ndescription='x'\nduration='10s'\n[[link]]\nname='l'\nrate='10mbit'\n\
                [[event]]\nat='1s'\nevery='3s'\nlink='l'\ndirection='up'\nloss='50%'\n\
                [[event]]\nat='2s'\nevery='3s'\nuntil='8s'\nlink='l'\ndirection='up'\nloss='0%'\n";
    let scenario = Scenario::parse(text, "x", None).unwrap();
    let lossy: Vec<_> = scenario
        .events_of("l", Direction::Up)
        .map(|event| (event.at.as_secs(), matches!(event.change, Change::Loss(Loss::Random { .. }))))
        .collect();
    assert_eq!(lossy, [(1, true), (2, false), (4, true), (5, false), (7, true)]);
    assert_eq!(scenario.events_of("l", Direction::Down).count(), 0);
}

#[test]
fn a_lost_carrier_is_an_outage_and_told() {
    let scenario = builtin("turns-carrier").unwrap();
    let told: Vec<_> = scenario
        .carriers
        .iter()
        .map(|event| (event.at.as_secs(), event.link.as_str(), event.present))
        .collect();
    assert_eq!(told, [(6, "a", false), (9, "a", true), (14, "b", false), (17, "b", true)]);
    for direction in Direction::BOTH {
        let outages: Vec<_> = scenario
            .events_of("b", direction)
            .map(|event| (event.at.as_secs(), matches!(event.change, Change::Outage(true))))
            .collect();
        assert_eq!(outages, [(14, true), (17, false)]);
    }
    assert_eq!(builtin("turns").unwrap().carriers, []);
}

#[test]
fn the_order_of_links_changes_no_draw() {
    let text = |first: &str, second: &str| {
        format!(
            "name='x'\ndescription='x'\n[[link]]\nname='{first}'\nrate='10mbit'\nloss='50%'\n\
             [[link]]\nname='{second}'\nrate='10mbit'\nloss='50%'"
        )
    };
    let fates = |scenario: &Scenario, name: &str| {
        let link = &scenario.links[scenario.link_index(name).unwrap()];
        let mut pipe = scenario.pipe::<u64>(link, Direction::Up, 7);
        for i in 0..64 {
            pipe.enqueue(i, 100, Time::from_millis(i));
        }
        std::iter::from_fn(move || pipe.poll_deliver(Time::from_millis(1_000))).collect::<Vec<_>>()
    };
    let one = Scenario::parse(&text("a", "b"), "x", None).unwrap();
    let other = Scenario::parse(&text("b", "a"), "x", None).unwrap();
    assert_eq!(fates(&one, "a"), fates(&other, "a"));
    assert_ne!(fates(&one, "a"), fates(&one, "b"));
}

#[track_caller]
fn refused(text: &str, wanted: &str) {
    let message = Scenario::parse(text, "x.toml", None).unwrap_err().to_string();
    assert!(message.contains("x.toml") && message.contains(wanted), "{message}");
}

#[test]
fn mistakes_are_named_with_their_place() {
    let link = "[[link]]\nname = 'l'\nrate = '10mbit'\n";
    let head = "name = 'x'\ndescription = 'x'\n";
    refused(&format!("{head}colour = 'red'\n{link}"), "colour");
    refused(&format!("{head}{link}dealy = '5ms'"), "line 6");
    refused(&format!("{head}{link}loss = '120%'"), "'120%' is not a ratio");
    refused(&format!("{head}{link}loss = {{ enter = '1%' }}"), "enter with leave");
    refused(&format!("{head}{link}jitter = {{ deviation = '5ms', correlation = 1.0 }}"), "less than 1");
    refused(&format!("{head}{link}jitter = {{ correlation = 0.5 }}"), "deviation");
    refused(&format!("{head}{link}police = {{ rate = '5mbit', burst = '1kB' }}"), "at least 1500 B");
    refused(&format!("{head}{link}police = {{ rate = '5mbit' }}"), "burst");
    refused(&format!("{head}{link}police = {{ rate = '5mbit', burst = '9kB', per = 'user' }}"), "user");
    refused(&format!("{head}{link}rtt = '5ms'\ndelay = '5ms'"), "rtt or delay");
    refused(&format!("{head}{link}{link}"), "two links are called 'l'");
    refused(&format!("{head}[[link]]\nname = 'l'"), "rate is missing");
    refused(&format!("{head}[[link]]\nname = 'Way Too Long A Name'\nrate = '1mbit'"), "link name");
    refused(
        &format!("{head}{link}[[event]]\nat = '1s'\nlink = 'm'\noutage = 'begin'"),
        "no link 'm'; there are l",
    );
    refused(&format!("{head}{link}[[event]]\nat = '1s'\nlink = 'l'"), "changes nothing");
    let event = format!("{head}{link}[[event]]\nat = '1s'\nlink = 'l'\n");
    refused(&format!("{event}outage = 'begin'\nuntil = '3s'"), "until needs every");
    refused(&format!("{event}outage = 'begin'\nevery = '1us'"), "every 10ms at most");
    refused(&format!("{event}outage = 'begin'\nevery = '1s'\nuntil = '9h'"), "until 3600s");
    refused(&format!("{event}carrier = 'lost'\ndirection = 'up'"), "in both directions");
    refused(&format!("{event}carrier = 'lost'\noutage = 'begin'"), "that is the outage");
    refused(
        &format!("{head}{link}up = {{ rate = {{ trace = 'f' }} }}"),
        "in the folder that BONDING_TRACES names",
    );
    refused(&format!("{head}link = []"), "1 to 32 links");
}

#[test]
fn trace_files_are_found_beside_the_scenario() {
    let folder = std::env::temp_dir().join(format!("netem-scenario-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("t.trace"), "1\n2\n2\n4\n").unwrap();
    let file = folder.join("s.toml");
    std::fs::write(&file, "name='s'\ndescription='s'\n[[link]]\nname='l'\nrate={trace='t.trace'}\n").unwrap();
    let scenario = Scenario::load(&file);
    let missing = Scenario::load(&folder.join("none.toml"));
    let text = std::fs::read_to_string(&file).unwrap().replace("t.trace", "u.trace");
    std::fs::write(&file, text).unwrap();
    let traceless = Scenario::load_with(&file, Some(Path::new("/nowhere"))).unwrap_err().to_string();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(scenario.unwrap().links[0].up.rate.mean_bps(), Some(12_000_000));
    assert!(missing.unwrap_err().to_string().contains("none.toml"));
    assert!(traceless.contains("no trace 'u.trace' in") && traceless.ends_with("/nowhere"), "{traceless}");
}

#[test]
fn recorded_links_need_the_folder_of_traces() {
    let folder = std::env::temp_dir().join(format!("netem-traces-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (file, text) in [
        ("Verizon-LTE-short.up", "1\n2\n"),
        ("Verizon-LTE-short.down", "1\n1\n2\n"),
        ("ATT-LTE-driving-2016.up", "3\n"),
        ("ATT-LTE-driving-2016.down", "1\n2\n3\n"),
    ] {
        std::fs::write(folder.join(file), text).unwrap();
    }
    let found: Vec<_> = recorded_names().map(|name| builtin_with(name, Some(&folder)).unwrap()).collect();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(found.iter().map(|scenario| scenario.links.len()).collect::<Vec<_>>(), [1, 1, 2]);
    let pair = &found[2];
    let rates: Vec<_> =
        pair.links.iter().map(|link| (link.up.rate.mean_bps(), link.down.rate.mean_bps())).collect();
    let mbit = |mbps: u64| Some(mbps * 1_000_000);
    assert_eq!(rates, [(mbit(12), mbit(18)), (mbit(4), mbit(12))]);
    for name in recorded_names() {
        let message = builtin_with(name, None).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(TRACES_VARIABLE), "{message}");
    }
}

#[test]
fn a_recorded_link_is_what_the_recordings_notes_say() {
    let Some(folder) = traces_folder() else {
        eprintln!("skipped: {TRACES_VARIABLE} names no folder of recorded traces");
        return;
    };
    let pair = builtin_with("lte-pair", Some(&folder)).unwrap();
    let rates: Vec<_> = pair
        .links
        .iter()
        .flat_map(|link| [&link.down, &link.up])
        .map(|pipe| pipe.rate.mean_bps().map(|bps| (bps + 50_000) / 100_000))
        .collect();
    assert_eq!(rates, [Some(50), Some(59), Some(46), Some(19)]);
}

#[test]
fn a_policer_bounds_what_a_link_can_carry() {
    let text = r#"
        name = "x"
        description = "x"
        [[link]]
        name = "l"
        rate = "100mbit"
        police = { rate = "20mbit", burst = "64kB" }
        grid = "5ms"
        up = { police = { rate = "8mbit", burst = "64kB", per = "flow" }, grid = "0ms", gather = "4ms" }
        [[event]]
        at = "2s"
        link = "l"
        police = "none"
        gather = "2ms"
    "#;
    let scenario = Scenario::parse(text, "x.toml", None).unwrap();
    let link = &scenario.links[0];
    let police = Police { rate_bps: 20_000_000, burst_bytes: 64_000, per_flow: false };
    assert_eq!(link.down.police, Some(police));
    assert_eq!(link.up.police, Some(Police { rate_bps: 8_000_000, per_flow: true, ..police }));
    let ms = Duration::from_millis;
    assert_eq!(
        (link.down.grid, link.down.gather, link.up.grid, link.up.gather),
        (ms(5), ms(0), ms(0), ms(4))
    );
    let seconds = Duration::from_secs;
    assert_eq!(scenario.capacity_bps(Direction::Down, seconds(0), seconds(2)), Some(20_000_000));
    assert_eq!(scenario.capacity_bps(Direction::Down, seconds(0), seconds(4)), Some(60_000_000));
    // Several flows use the whole link.
    assert_eq!(scenario.capacity_bps(Direction::Up, seconds(0), seconds(2)), Some(100_000_000));
    let changes: Vec<_> = scenario.events_of("l", Direction::Down).map(|event| &event.change).collect();
    assert!(
        matches!(changes[..], [Change::Police(None), Change::Gather(span)] if *span == ms(2)),
        "{changes:?}"
    );
}

#[test]
fn an_unknown_name_lists_the_known() {
    let message = find("nowhere").unwrap_err().to_string();
    assert!(message.contains("'nowhere'") && message.contains("failover"), "{message}");
}
