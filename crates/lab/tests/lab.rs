//! The lab against real kernels. These tests need what a lab needs (root or user namespaces, `ip`,
//! `ping`, `iperf3`) and fail without it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bonding_lab::tools::{Echo, EchoServer, Iperf3, Iperf3Server, IperfDirection, Ping};
use bonding_lab::{Change, Direction, Host, Lab, LabError, LabOptions, Scenario, addr, sandbox};
use libtest_mimic::{Arguments, Failed, Trial};

/// How long something that must happen may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

type Outcome = Result<(), Failed>;
type Test = (&'static str, fn() -> Outcome);

/// One of the ways in which the tests run this program as another.
const MODE: &str = "LAB_TEST_MODE";

fn main() -> ExitCode {
    if let Ok(mode) = std::env::var(MODE) {
        return other_program(&mode);
    }
    if let Err(error) = sandbox::enter() {
        eprintln!("the lab's tests need a sandbox: {error}");
        return ExitCode::FAILURE;
    }
    let mut arguments = Arguments::from_args();
    // A sandbox holds one lab at a time.
    arguments.test_threads = Some(1);
    let tests: [Test; 16] = [
        (
            "every_link_reaches_the_server_over_both_families",
            every_link_reaches_the_server_over_both_families,
        ),
        ("wires_carry_full_packets_over_both_families", wires_carry_full_packets_over_both_families),
        (
            "a_switch_passes_full_packets_and_no_more_than_its_limit",
            a_switch_passes_full_packets_and_no_more_than_its_limit,
        ),
        ("the_internet_is_reached_from_the_server_only", the_internet_is_reached_from_the_server_only),
        ("packets_are_as_large_as_the_mtu_and_no_larger", packets_are_as_large_as_the_mtu_and_no_larger),
        ("a_cut_link_swallows_packets_until_restored", a_cut_link_swallows_packets_until_restored),
        ("a_policer_of_flows_tells_real_ones_apart", a_policer_of_flows_tells_real_ones_apart),
        ("events_wait_for_the_clock", events_wait_for_the_clock),
        ("an_interface_goes_down_and_comes_back", an_interface_goes_down_and_comes_back),
        ("tcp_and_udp_flow_and_are_counted", tcp_and_udp_flow_and_are_counted),
        ("an_echo_sees_loss", an_echo_sees_loss),
        ("processes_end_with_their_guard_or_the_lab", processes_end_with_their_guard_or_the_lab),
        ("a_second_lab_is_refused_and_a_later_one_works", a_second_lab_is_refused_and_a_later_one_works),
        ("outside_a_sandbox_nothing_is_touched", outside_a_sandbox_nothing_is_touched),
        ("exit_codes_and_signals_pass_through_the_sandbox", exit_codes_and_signals_pass_through_the_sandbox),
        ("a_killed_sandbox_leaves_no_process", a_killed_sandbox_leaves_no_process),
    ];
    let trials = tests.into_iter().map(|(name, test)| Trial::test(name, test)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn scenario(text: &str) -> Result<Scenario, Failed> {
    Ok(Scenario::parse(&format!("name = 'test'\ndescription = 'test'\n{text}"), "test", None)?)
}

const TWO_LINKS: &str = "[[link]]\nname = 'one'\nrate = '50mbit'\nrtt = '4ms'\n\
                         [[link]]\nname = 'two'\nrate = '20mbit'\nrtt = '10ms'\n";

fn two_links() -> Result<Lab, Failed> {
    Ok(Lab::start(&scenario(TWO_LINKS)?, LabOptions::default())?)
}

fn check(condition: bool, message: impl Into<String>) -> Outcome {
    if condition { Ok(()) } else { Err(message.into().into()) }
}

fn ping(target: impl Into<IpAddr>, device: Option<&str>) -> Ping {
    Ping {
        count: 5,
        interval: Duration::from_millis(20),
        device: device.map(str::to_owned),
        ..Ping::new(target.into())
    }
}

fn every_link_reaches_the_server_over_both_families() -> Outcome {
    let lab = two_links()?;
    for (index, link) in lab.scenario().links.iter().enumerate() {
        for target in [IpAddr::from(addr::SERVER_V4), IpAddr::from(addr::SERVER_V6)] {
            let before = lab.counters(index, Direction::Up).delivered_pkts;
            let report = ping(target, Some(&link.name)).run(lab.host(Host::Client))?;
            check(report.received == 5, format!("{target} over {}: {report:?}", link.name))?;
            // No answer is faster than the link: a busy machine can only make the emulator late.
            let fastest = report.percentile(0).ok_or("no times")?;
            check(fastest >= link.rtt(), format!("{fastest:?} over {}", link.name))?;
            let passed = lab.counters(index, Direction::Up).delivered_pkts - before;
            check(passed >= 5, format!("{passed} packets went over {}", link.name))?;
        }
    }
    Ok(())
}

fn wires_carry_full_packets_over_both_families() -> Outcome {
    let lab = Lab::start_wired(2)?;
    for link in &lab.scenario().links {
        for target in [IpAddr::from(addr::SERVER_V4), IpAddr::from(addr::SERVER_V6)] {
            let report = Ping { payload_bytes: 1_400, ..ping(target, Some(&link.name)) };
            let report = report.run(lab.host(Host::Client))?;
            check(report.received == 5, format!("{target} over {}: {report:?}", link.name))?;
        }
    }
    Ok(())
}

fn a_switch_passes_full_packets_and_no_more_than_its_limit() -> Outcome {
    let lab = Lab::start_switched(1)?;
    for target in [IpAddr::from(addr::SERVER_V4), IpAddr::from(addr::SERVER_V6)] {
        let report = Ping { payload_bytes: 1_400, ..ping(target, Some("wire0")) };
        let report = report.run(lab.host(Host::Client))?;
        check(report.received == 5, format!("{target}: {report:?}"))?;
    }
    lab.limit(0, 8_000_000, Duration::from_millis(100))?;
    lab.limit(7, 8_000_000, Duration::from_millis(100))?;
    let _server = Iperf3Server::start(&lab, lab.host(Host::Server), 5_201)?;
    for direction in [IperfDirection::Download, IperfDirection::Upload] {
        let mut iperf3 = Iperf3::new(addr::SERVER_V4.into(), direction);
        (iperf3.omit, iperf3.duration) = (Duration::from_secs(1), Duration::from_secs(1));
        let report = iperf3.run(&lab, lab.host(Host::Client))?;
        // What waited in the switch comes besides, in a second.
        check(report.goodput_bps < 10e6, format!("{direction:?}: {report:?}"))?;
    }
    Ok(())
}

fn the_internet_is_reached_from_the_server_only() -> Outcome {
    let lab = two_links()?;
    for target in [IpAddr::from(addr::INTERNET_V4), IpAddr::from(addr::INTERNET_V6)] {
        let report = ping(target, None).run(lab.host(Host::Server))?;
        check(report.received == 5, format!("{target} from the server: {report:?}"))?;
        let refused = ping(target, None).run(lab.host(Host::Client));
        check(refused.is_err(), format!("the client has a route to {target}: {refused:?}"))?;
    }
    let back = ping(addr::client_v4(0), None).run(lab.host(Host::Internet));
    check(back.is_err(), format!("the internet knows the client's network: {back:?}"))
}

fn packets_are_as_large_as_the_mtu_and_no_larger() -> Outcome {
    let lab = two_links()?;
    let sized = |payload_bytes| Ping { payload_bytes, ..ping(addr::SERVER_V4, Some("one")) };
    let before = lab.counters(0, Direction::Up);
    let report = sized(1_472).run(lab.host(Host::Client))?;
    let after = lab.counters(0, Direction::Up);
    check(report.received == 5, format!("{report:?}"))?;
    let (packets, bytes) =
        (after.offered_pkts - before.offered_pkts, after.offered_bytes - before.offered_bytes);
    check(packets == 5 && bytes == 7_500, format!("{packets} packets of {bytes} bytes together"))?;
    // One more byte and the kernel sends two fragments.
    sized(1_473).run(lab.host(Host::Client))?;
    let packets = lab.counters(0, Direction::Up).offered_pkts - after.offered_pkts;
    check(packets == 10, format!("{packets} packets"))
}

fn a_cut_link_swallows_packets_until_restored() -> Outcome {
    let lab = two_links()?;
    let quick = |device| Ping { wait: Duration::from_millis(500), ..ping(addr::SERVER_V4, Some(device)) };
    lab.cut(0);
    let report = quick("one").run(lab.host(Host::Client))?;
    check((report.sent, report.received) == (5, 0), format!("over the cut link: {report:?}"))?;
    let report = quick("two").run(lab.host(Host::Client))?;
    check(report.received == 5, format!("over the other: {report:?}"))?;
    check(lab.counters(0, Direction::Up).drops.outage_pkts >= 5, "the drops are not counted")?;
    lab.restore(0);
    let report = quick("one").run(lab.host(Host::Client))?;
    check(report.received == 5, format!("over the restored link: {report:?}"))?;
    lab.apply(0, Direction::Down, Change::Delay(Duration::from_millis(52)));
    let fastest = quick("one").run(lab.host(Host::Client))?.percentile(0).ok_or("no times")?;
    check(fastest >= Duration::from_millis(54), format!("a longer delay changed nothing: {fastest:?}"))
}

fn a_policer_of_flows_tells_real_ones_apart() -> Outcome {
    // The rate brings back a packet of this size only after minutes: the burst is what passes.
    let lab = Lab::start(
        &scenario(
            "[[link]]\nname = 'one'\nrate = '50mbit'\nrtt = '4ms'\n\
             up = { police = { rate = '50bit', burst = '3500B', per = 'flow' } }\n",
        )?,
        LabOptions::default(),
    )?;
    let sent = lab.host(Host::Client).run(|| -> std::io::Result<()> {
        let flows = [UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("0.0.0.0:0")?];
        for _ in 0..10 {
            for flow in &flows {
                flow.send_to(&[0; 972], (addr::SERVER_V4, 9))?;
            }
        }
        Ok(())
    })?;
    sent?;
    let began = Instant::now();
    let counted = || lab.counters(0, Direction::Up);
    while counted().offered_bytes < 20_000 {
        check(began.elapsed() < PATIENCE, format!("gave up: {:?}", counted()))?;
        std::thread::sleep(Duration::from_millis(10));
    }
    // Three packets of 1,000 bytes of each flow pass.
    check(counted().drops.police_pkts == 14, format!("{:?}", counted()))
}

/// Whether the client's interface of the first link is up, as the kernel says.
fn is_up(lab: &Lab) -> Result<bool, Failed> {
    let output = lab.host(Host::Client).command("ip").args(["-o", "link", "show", "dev", "one"]).output()?;
    Ok(String::from_utf8(output.stdout)?.contains(",UP"))
}

fn an_interface_goes_down_and_comes_back() -> Outcome {
    let event = |at, carrier| format!("[[event]]\nat = '{at}ms'\nlink = 'one'\ncarrier = '{carrier}'\n");
    let text = format!("{TWO_LINKS}{}{}", event(100, "lost"), event(1_000, "found"));
    let lab = Lab::start(&scenario(&text)?, LabOptions::default())?;
    check(is_up(&lab)?, "it begins switched on")?;
    lab.start_clock();
    let start = Instant::now();
    let wait_until =
        |millis| std::thread::sleep(Duration::from_millis(millis).saturating_sub(start.elapsed()));
    wait_until(400);
    check(!is_up(&lab)?, "it was not switched off")?;
    check(ping(addr::SERVER_V4, Some("two")).run(lab.host(Host::Client))?.received == 5, "the other link")?;
    wait_until(1_300);
    check(is_up(&lab)?, "it was not switched on")?;
    for target in [IpAddr::from(addr::SERVER_V4), IpAddr::from(addr::SERVER_V6)] {
        let report = ping(target, Some("one")).run(lab.host(Host::Client))?;
        check(report.received == 5, format!("{target}: {report:?}"))?;
    }
    lab.set_client_interface(0, false)?;
    check(!is_up(&lab)?, "it can be switched off at will")
}

fn events_wait_for_the_clock() -> Outcome {
    let text = format!("{TWO_LINKS}[[event]]\nat = '100ms'\nlink = 'one'\noutage = 'begin'\n");
    let lab = Lab::start(&scenario(&text)?, LabOptions::default())?;
    let one = ping(addr::SERVER_V4, Some("one"));
    std::thread::sleep(Duration::from_millis(150));
    let before = one.run(lab.host(Host::Client))?;
    check(before.received == 5 && lab.clock().is_none(), format!("before the clock: {before:?}"))?;
    lab.start_clock();
    std::thread::sleep(Duration::from_millis(150));
    let after = Ping { wait: Duration::from_millis(300), ..one }.run(lab.host(Host::Client))?;
    check(after.received == 0 && lab.clock().is_some(), format!("after the event: {after:?}"))?;
    let now = lab.elapsed();
    let capacity = lab.capacity_bps(Direction::Up, now, now + Duration::from_secs(1));
    check(
        capacity == Some(20_000_000),
        format!("only the second link is left, but {capacity:?} bit/s are said to be"),
    )?;
    let alone =
        [0, 1].map(|index| lab.link_capacity_bps(index, Direction::Up, now, now + Duration::from_secs(1)));
    check(alone == [Some(0), Some(20_000_000)], format!("one by one: {alone:?}"))?;
    let looked = lab.snapshot();
    let after = lab.elapsed();
    check((now..=after).contains(&looked.at), format!("looked at {:?}", looked.at))?;
    for (index, link) in looked.links.iter().enumerate() {
        for (direction, pipe) in Direction::BOTH.into_iter().zip(link) {
            check(pipe.counters == lab.counters(index, direction), format!("link {index}: {pipe:?}"))?;
            check(pipe.queue_delay == Some(Duration::ZERO), format!("link {index}: {pipe:?}"))?;
        }
    }
    check(looked.links.len() == 2, "a link is missing")
}

fn tcp_and_udp_flow_and_are_counted() -> Outcome {
    let lab = two_links()?;
    let _server = Iperf3Server::start(&lab, lab.host(Host::Server), 5_201)?;
    for (index, direction, way) in
        [(0, IperfDirection::Upload, Direction::Up), (1, IperfDirection::Download, Direction::Down)]
    {
        let link = lab.scenario().links.get(index).ok_or("no such link")?;
        let transfer = Iperf3 {
            flows: 2,
            duration: Duration::from_secs(1),
            omit: Duration::ZERO,
            congestion: Some("cubic".to_owned()),
            device: Some(link.name.clone()),
            ..Iperf3::new(addr::SERVER_V4.into(), direction)
        };
        for udp_bps in [None, Some(2_000_000)] {
            let transfer = Iperf3 { udp_bps, ..transfer.clone() };
            let before = lab.counters(index, way).delivered_bytes;
            let report = transfer.run(&lab, lab.host(Host::Client))?;
            let carried = lab.counters(index, way).delivered_bytes - before;
            check(
                report.received_bytes > 0 && report.goodput_bps > 0.0,
                format!("{direction:?}: {report:?}"),
            )?;
            check(carried >= report.received_bytes, format!("{carried} bytes carried {report:?}"))?;
            let limit = link.down.rate.mean_bps().unwrap_or(0);
            check(
                report.goodput_bps <= limit as f64 * 1.1,
                format!("more than the link's rate: {report:?}"),
            )?;
        }
    }
    let dead = Iperf3 { port: 5_999, ..Iperf3::new(addr::SERVER_V4.into(), IperfDirection::Upload) };
    let error =
        dead.run(&lab, lab.host(Host::Client)).err().ok_or("iperf3 ran without a server")?.to_string();
    check(error.contains("refused"), error)
}

fn an_echo_sees_loss() -> Outcome {
    let lab = two_links()?;
    let server = EchoServer::start(lab.host(Host::Server), (addr::SERVER_V4, 0).into())?;
    let echo = Echo::start(lab.host(Host::Client), server.address(), 100, Some("two"))?;
    let wait_for = |done: &dyn Fn() -> bool| -> Outcome {
        let began = Instant::now();
        while !done() {
            check(began.elapsed() < PATIENCE, format!("gave up: {:?}", echo.report()))?;
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    };
    lab.count_size(Echo::PACKET_BYTES);
    wait_for(&|| echo.report().samples.len() >= 20)?;
    let counted =
        |index: usize| lab.snapshot().links.get(index).map(|pipes| pipes.map(|pipe| pipe.sized_pkts));
    check(counted(0) == Some([0; 2]), format!("the other link: {:?}", counted(0)))?;
    let both_ways = counted(1).is_some_and(|counts| counts.iter().all(|count| *count >= 10));
    check(both_ways, format!("the echo's packets on its link: {:?}", counted(1)))?;
    let fastest = echo.report().percentile(0).ok_or("no times")?;
    check(fastest >= Duration::from_millis(10), format!("{fastest:?}"))?;
    lab.cut(1);
    let cut_at = echo.elapsed();
    let lost = || {
        echo.report()
            .between(cut_at, Duration::MAX)
            .samples
            .iter()
            .filter(|sample| sample.rtt.is_none())
            .count()
    };
    wait_for(&|| lost() >= 20)?;
    lab.restore(1);
    let restored_at = echo.elapsed();
    wait_for(&|| echo.report().between(restored_at, Duration::MAX).percentile(500).is_some())?;
    check(
        echo.report().longest_gap() >= Duration::from_millis(190),
        format!("{:?}", echo.report().longest_gap()),
    )
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn processes_end_with_their_guard_or_the_lab() -> Outcome {
    let lab = two_links()?;
    let sleeper = || lab.spawn(lab.host(Host::Client).command("sleep").arg("1000"));
    let (dropped, terminated, killed, kept) = (sleeper()?, sleeper()?, sleeper()?, sleeper()?);
    let (dropped_pid, kept_pid) = (dropped.id(), kept.id());
    check(is_alive(dropped_pid) && is_alive(kept_pid), "they do not run")?;
    drop(dropped);
    check(!is_alive(dropped_pid), "the dropped one runs on")?;
    let status = terminated.terminate()?;
    check(status.signal() == Some(15), format!("terminated: {status}"))?;
    let status = killed.kill()?;
    check(status.signal() == Some(9), format!("killed: {status}"))?;
    let own = lab.spawn(lab.host(Host::Server).command("sh").args(["-c", "exit 3"]))?;
    let status = own.wait(PATIENCE)?.ok_or("it did not end")?;
    check(status.code() == Some(3), format!("ended by itself: {status}"))?;
    drop(lab);
    check(!is_alive(kept_pid), "one outlived the lab")?;
    check(matches!(kept.try_wait(), Ok(Some(_))), "its guard does not know")
}

fn a_second_lab_is_refused_and_a_later_one_works() -> Outcome {
    let first = two_links()?;
    let error =
        Lab::start(first.scenario(), LabOptions::default()).err().ok_or("two labs at once")?.to_string();
    check(error.contains("one lab at a time"), error)?;
    let report = ping(addr::SERVER_V4, None).run(first.host(Host::Client))?;
    check(report.received == 5, "the refused lab broke the first")?;
    drop(first);
    let names = std::fs::read_dir("/run/netns")?.count();
    check(names == 0, format!("{names} namespaces are left"))?;
    let second = two_links()?;
    let report = ping(addr::SERVER_V4, None).run(second.host(Host::Client))?;
    check(report.received == 5, "the second lab does not work")
}

/// This program as another, outside of the tests' sandbox as far as it knows.
fn this_program(mode: &str) -> Result<Command, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env_remove("BONDING_LAB_SANDBOX").env(MODE, mode);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn other_program(mode: &str) -> ExitCode {
    if mode == "no-sandbox" {
        let result = scenario(TWO_LINKS).map(|scenario| Lab::start(&scenario, LabOptions::default()));
        return if matches!(result, Ok(Err(LabError::NotInSandbox))) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    if let Err(error) = sandbox::enter() {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    match mode {
        "exit-7" => ExitCode::from(7),
        "hold" => {
            // Everything a lab makes, a process in another session included.
            let lab = scenario(TWO_LINKS).map(|scenario| Lab::start(&scenario, LabOptions::default()));
            let Ok(Ok(lab)) = lab else {
                return ExitCode::FAILURE;
            };
            let sleeper = lab.spawn(lab.host(Host::Client).command("setsid").args(["sleep", HOLD_SECONDS]));
            eprintln!("holding");
            std::thread::sleep(Duration::from_secs(600));
            drop(sleeper);
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}

/// An argument by which a process of the test is known.
const HOLD_SECONDS: &str = "98765";

fn outside_a_sandbox_nothing_is_touched() -> Outcome {
    let status = this_program("no-sandbox")?.status()?;
    check(status.success(), format!("a lab began outside of a sandbox: {status}"))
}

/// Starts this program in a sandbox of its own, holding a lab.
fn holding() -> Result<Child, Failed> {
    let mut child = this_program("hold")?.spawn()?;
    let stderr = child.stderr.take().ok_or("no standard error")?;
    let mut reader = BufReader::new(stderr);
    let mut line = String::new();
    while line.trim() != "holding" {
        line.clear();
        check(reader.read_line(&mut line)? > 0, "it ended early")?;
    }
    // Dropping the pipe would end it at its next message.
    std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
    Ok(child)
}

fn exit_codes_and_signals_pass_through_the_sandbox() -> Outcome {
    let status = this_program("exit-7")?.status()?;
    check(status.code() == Some(7), format!("exit code: {status}"))?;
    for (name, number) in [("TERM", 15), ("INT", 2)] {
        let mut child = holding()?;
        check(
            Command::new("kill").args(["-s", name, &child.id().to_string()]).status()?.success(),
            "kill failed",
        )?;
        let status: ExitStatus = child.wait()?;
        check(status.code() == Some(128 + number), format!("SIG{name}: {status}"))?;
        check(wait_until_gone(), format!("SIG{name} left a process"))?;
    }
    Ok(())
}

fn a_killed_sandbox_leaves_no_process() -> Outcome {
    let mut child = holding()?;
    check(holders() > 0, "the process to look for does not run")?;
    child.kill()?;
    child.wait()?;
    check(wait_until_gone(), "SIGKILL left a process")
}

/// How many processes of a held lab there are, as seen from this sandbox.
fn holders() -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let held = |path: &Path| {
        std::fs::read_to_string(path.join("cmdline"))
            .is_ok_and(|line| line.split('\0').any(|word| word == HOLD_SECONDS))
    };
    processes.flatten().filter(|entry| held(&entry.path())).count()
}

fn wait_until_gone() -> bool {
    let began = Instant::now();
    while holders() > 0 && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    holders() == 0
}
