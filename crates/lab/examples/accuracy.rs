//! The emulator's accuracy and cost on this machine:
//! `cargo run --release -p bonding-lab --example accuracy`.
//!
//! For each link of `reference`: ping against the configured RTT; UDP above, and TCP at, the
//! configured rate. Then all links together, and CPU time of the emulator's thread.

#![expect(clippy::print_stdout, reason = "a report for a person")]

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use bonding_lab::tools::{Iperf3, Iperf3Server, IperfDirection, Ping};
use bonding_lab::{Direction, Host, Lab, LabOptions, addr, sandbox};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let result = sandbox::enter().map_err(Failure::from).and_then(|()| run());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("accuracy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let scenario =
        bonding_netem::scenario::find(&std::env::args().nth(1).unwrap_or_else(|| "reference".to_owned()))?;
    let lab = Lab::start(&scenario, LabOptions::default())?;
    let servers: Result<Vec<_>, _> = (0..scenario.links.len())
        .map(|i| Iperf3Server::start(&lab, lab.host(Host::Server), port(i)))
        .collect();
    let servers = servers?;
    let stats = lab.driver_stats();
    println!(
        "real-time priority: {}",
        if stats.realtime { "yes" } else { "no: other programs change the results" }
    );
    round_trips(&lab)?;
    println!(
        "{:<8} {:>9} {:>9} {:>9} {:>9}  (Mbit/s of IP packets; TCP: goodput x 1500/1448)",
        "alone", "rate", "udp down", "udp up", "tcp down"
    );
    for index in [0, 1].into_iter().filter(|index| *index < scenario.links.len()) {
        let down = transfer(&lab, index, IperfDirection::Download, true)?.finish()?;
        let up = transfer(&lab, index, IperfDirection::Upload, true)?.finish()?;
        let tcp = transfer(&lab, index, IperfDirection::Download, false)?.finish()?;
        println!(
            "{:<8} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
            scenario.links.get(index).map_or("", |link| link.name.as_str()),
            rate_mbps(&lab, index),
            down.goodput_bps / 1e6 * 1_428.0 / 1_400.0,
            up.goodput_bps / 1e6 * 1_428.0 / 1_400.0,
            tcp.goodput_bps / 1e6 * 1_500.0 / 1_448.0,
        );
    }
    for (name, direction, udp) in [
        ("udp down", IperfDirection::Download, true),
        ("udp up", IperfDirection::Upload, true),
        ("tcp down", IperfDirection::Download, false),
        ("tcp up", IperfDirection::Upload, false),
    ] {
        all_links(&lab, name, direction, udp)?;
    }
    let stats = lab.driver_stats();
    println!(
        "latest delivery {:.3} ms late; {} of {} wake-ups more than 1 ms late; {} packets, {} refused",
        stats.late_max.as_secs_f64() * 1e3,
        stats.late_wakeups,
        stats.wakeups,
        stats.delivered_pkts,
        stats.refused_pkts
    );
    drop(servers);
    Ok(())
}

/// Each link's round-trip times, beside the configured one.
fn round_trips(lab: &Lab) -> Result<(), Failure> {
    println!("{:<8} {:>9} {:>9} {:>9} {:>9}", "ping", "rtt ms", "p0 ms", "p50 ms", "p99 ms");
    for link in &lab.scenario().links {
        let ping = Ping {
            device: Some(link.name.clone()),
            count: 100,
            interval: Duration::from_millis(10),
            ..Ping::new(server())
        };
        let report = ping.run(lab.host(Host::Client))?;
        let ms = |permille| report.percentile(permille).map_or(f64::NAN, |rtt| rtt.as_secs_f64() * 1e3);
        let rtt = link.rtt().as_secs_f64() * 1e3;
        println!("{:<8} {rtt:>9.3} {:>9.3} {:>9.3} {:>9.3}", link.name, ms(0), ms(500), ms(990));
    }
    Ok(())
}

fn server() -> IpAddr {
    addr::SERVER_V4.into()
}

fn port(index: usize) -> u16 {
    5_201 + u16::try_from(index).unwrap_or(0)
}

fn rate_mbps(lab: &Lab, index: usize) -> f64 {
    let link = lab.scenario().links.get(index);
    link.and_then(|link| link.down.rate.mean_bps()).map_or(f64::NAN, |bps| bps as f64 / 1e6)
}

fn transfer(
    lab: &Lab,
    index: usize,
    direction: IperfDirection,
    udp: bool,
) -> Result<bonding_lab::tools::Iperf3Run, Failure> {
    let link = lab.scenario().links.get(index).ok_or("no such link")?;
    let rate = link.down.rate.mean_bps().ok_or("a link without a rate has nothing to measure")?;
    let transfer = Iperf3 {
        port: port(index),
        duration: Duration::from_secs(5),
        device: Some(link.name.clone()),
        // A little more than fits.
        udp_bps: udp.then_some(rate * 105 / 100),
        ..Iperf3::new(server(), direction)
    };
    Ok(transfer.start(lab, lab.host(Host::Client))?)
}

fn all_links(lab: &Lab, name: &str, direction: IperfDirection, udp: bool) -> Result<(), Failure> {
    let before = lab.driver_stats();
    let began = lab.elapsed();
    let running: Result<Vec<_>, _> =
        (0..lab.scenario().links.len()).map(|index| transfer(lab, index, direction, udp)).collect();
    let mut goodput = 0.0;
    for run in running? {
        goodput += run.finish()?.goodput_bps / 1e6;
    }
    let after = lab.driver_stats();
    let seconds = (lab.elapsed() - began).as_secs_f64();
    let configured: f64 = (0..lab.scenario().links.len()).map(|index| rate_mbps(lab, index)).sum();
    let packets = goodput * if udp { 1_428.0 / 1_400.0 } else { 1_500.0 / 1_448.0 };
    let dropped: u64 = (0..lab.scenario().links.len())
        .map(|index| {
            Direction::BOTH.map(|way| lab.counters(index, way).drops.queue_full_pkts).iter().sum::<u64>()
        })
        .sum();
    println!(
        "all, {name}: {packets:.1} of {configured:.1} Mbit/s ({:+.1} %); emulator {:.1} % of a core, {:.0} wake-ups/s, {:.0} packets/s; {dropped} dropped so far",
        (packets / configured - 1.0) * 100.0,
        (after.cpu - before.cpu).as_secs_f64() / seconds * 100.0,
        (after.wakeups - before.wakeups) as f64 / seconds,
        (after.delivered_pkts - before.delivered_pkts) as f64 / seconds,
    );
    Ok(())
}
