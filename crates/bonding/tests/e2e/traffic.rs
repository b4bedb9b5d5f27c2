//! What the bond carries: pings, TCP both ways, whole files, IPv6, packets of every size.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bonding_lab::tools::{Iperf3, Iperf3Report, Iperf3Server, IperfDirection, Ping};
use bonding_lab::{Change, Direction, Host, Lab, addr};
use bonding_testkit::bond::{Bond, CLIENT_V4, CLIENT_V6, FOLDER, Options, SERVER_V4, SERVER_V6, TUNNEL, run};
use bonding_testkit::wait::{PATIENCE, eventually};
use bonding_testkit::web::{Web, noise};

use crate::PROGRAMS;

/// Size of the checked files: enough for every link to be needed.
pub(crate) const FILE_BYTES: usize = 12 << 20;

/// Pings `count` times from `host`, and expects every answer, once.
pub(crate) fn all_answered(lab: &Lab, host: Host, ping: &Ping) -> anyhow::Result<()> {
    let report = ping.run(lab.host(host))?;
    ensure!(report.received == ping.count && report.duplicates == 0, "{}: {report:?}", host.name());
    Ok(())
}

pub(crate) fn ping_both_ways(lab: &Lab) -> anyhow::Result<()> {
    for options in [Options::default(), Options::plain()] {
        let bond = Bond::start(lab, PROGRAMS, options)?;
        all_answered(lab, Host::Client, &Ping::new(SERVER_V4))?;
        all_answered(lab, Host::Server, &Ping::new(CLIENT_V4))?;
        bond.stop()?;
    }
    Ok(())
}

pub(crate) fn ipv6_inside_the_tunnel(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    all_answered(lab, Host::Client, &Ping::new(SERVER_V6))?;
    all_answered(lab, Host::Server, &Ping::new(CLIENT_V6))?;
    let _server = Iperf3Server::start(lab, lab.host(Host::Server), 5_201)?;
    for direction in [IperfDirection::Upload, IperfDirection::Download] {
        transfer(lab, &Iperf3 { duration: Duration::from_secs(2), ..Iperf3::new(SERVER_V6, direction) })?;
    }
    bond.stop()
}

pub(crate) fn tcp_both_ways_with_one_and_four_flows(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let _server = Iperf3Server::start(lab, lab.host(Host::Server), 5_201)?;
    for direction in [IperfDirection::Upload, IperfDirection::Download] {
        for flows in [1, 4] {
            let duration = Duration::from_secs(2);
            transfer(lab, &Iperf3 { flows, duration, ..Iperf3::new(SERVER_V4, direction) })?;
        }
    }
    bond.stop()
}

/// Runs a transfer from the client, and expects that it moved something worth the name.
fn transfer(lab: &Lab, iperf3: &Iperf3) -> anyhow::Result<Iperf3Report> {
    let iperf3 = Iperf3 { omit: Duration::ZERO, congestion: Some("cubic".into()), ..iperf3.clone() };
    let report = iperf3.run(lab, lab.host(Host::Client))?;
    ensure!(report.received_bytes > 1 << 20, "{iperf3:?}: {report:?}");
    ensure!(report.congestion.as_deref() == Some("cubic"), "{report:?}");
    Ok(report)
}

/// curl on the client, through the tunnel.
pub(crate) fn curl(lab: &Lab) -> Command {
    let mut curl = lab.host(Host::Client).command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "60", "--interface", TUNNEL]);
    curl
}

pub(crate) fn sha256(file: &Path) -> anyhow::Result<String> {
    let printed = run(Command::new("sha256sum").arg(file))?;
    Ok(printed.split(' ').next().context("sha256sum printed nothing")?.to_owned())
}

/// A download and an upload through the tunnel, the NAT and back: every byte arrives, and the
/// internet, which has no route to the tunnel, sees the server's address only.
pub(crate) fn files_arrive_whole_through_the_nat(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    files_arrive_whole(lab)?;
    bond.stop()
}

pub(crate) fn files_arrive_whole(lab: &Lab) -> anyhow::Result<()> {
    let address = SocketAddr::from((addr::INTERNET_V4, 80));
    let peers = files_cross(lab, Host::Internet, address)?;
    ensure!(peers == [addr::SERVER_EGRESS_V4, addr::SERVER_EGRESS_V4], "seen by the web server: {peers:?}");
    all_answered(lab, Host::Client, &Ping::new(addr::INTERNET_V4.into()))
}

/// A download from a web server at `address` on `host`, and an upload to it: every byte arrives.
/// The peers that the web server saw.
pub(crate) fn files_cross(lab: &Lab, host: Host, address: SocketAddr) -> anyhow::Result<Vec<IpAddr>> {
    let bytes = noise(FILE_BYTES);
    let (file, got, stored) = (folder("noise"), folder("got"), folder("stored"));
    std::fs::write(&file, &bytes)?;
    let web = Web::start(lab.host(host), address, bytes)?;
    let url = format!("http://{address}/noise");

    run(curl(lab).arg("--output").arg(&got).arg(&url))?;
    ensure!(sha256(&got)? == sha256(&file)?, "the download differs from the file");
    run(curl(lab).arg("--upload-file").arg(&file).arg(&url))?;
    let seen = web.seen();
    let upload = seen.uploads.first().context("nothing was uploaded")?;
    std::fs::write(&stored, upload)?;
    ensure!(sha256(&stored)? == sha256(&file)?, "the upload differs from the file");
    Ok(seen.peers)
}

/// The largest packet that the tunnel's MTU allows passes whole, and one byte more is refused on
/// the spot.
pub(crate) fn the_mtu_is_what_the_links_carry(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::plain())?;
    for host in [Host::Client, Host::Server] {
        let status = bond.status(host)?;
        let mtu = status.pointer("/tunnel/mtu").and_then(serde_json::Value::as_u64);
        ensure!(mtu == Some(1_461), "1500 less 20 + 8 + 11 bytes of headers, not {mtu:?}");
    }
    packets_pass_up_to(lab, 1_461)?;
    bond.stop()
}

/// All links silently drop packets above 1,400 bytes, and later one link those above 1,300. Both
/// sides find the sizes, the client's device follows the first and not the second, the server tells
/// the senders of larger packets, and files arrive whole.
pub(crate) fn narrow_links_are_found_out(lab: &Lab) -> anyhow::Result<()> {
    let narrow = |index: usize, bytes: u32| {
        for direction in [Direction::Up, Direction::Down] {
            lab.apply(index, direction, Change::Mtu(Some(bytes)));
        }
    };
    let links = lab.scenario().links.len();
    (0..links).for_each(|index| narrow(index, 1_400));
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    eventually("every link's MTU is known", || {
        for host in [Host::Client, Host::Server] {
            let found = bond.link_figures(host, "mtu")?;
            ensure!(found == vec![1_400; links], "{}: {found:?}", host.name());
        }
        Ok(())
    })?;
    let tunnel = |expected: u64| {
        let status = bond.status(Host::Client)?;
        ensure!(status.pointer("/tunnel/mtu") == Some(&expected.into()), "{status}");
        Ok(())
    };
    // 1,400 less 71.
    eventually("the tunnel follows", || tunnel(1_329))?;
    packets_pass_up_to(lab, 1_329)?;
    let mut ping = lab.host(Host::Server).command("ping");
    let output =
        ping.args(["-M", "do", "-c", "1", "-W", "2", "-s", "1302"]).arg(CLIENT_V4.to_string()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("Frag needed and DF set (mtu = 1329)"), "{said}");

    narrow(0, 1_300);
    eventually("the first link is found to be narrower", || {
        // Light traffic takes this link.
        let mut ping = lab.host(Host::Client).command("ping");
        ping.args(["-c", "10", "-i", "0.02", "-W", "1", "-s", "1300"]).arg(SERVER_V4.to_string()).output()?;
        for host in [Host::Client, Host::Server] {
            let found = bond.link_figures(host, "mtu")?;
            ensure!(found.first() == Some(&1_300), "{}: {found:?}", host.name());
        }
        Ok(())
    })?;
    tunnel(1_329)?;
    packets_pass_up_to(lab, 1_329)?;
    files_arrive_whole(lab)?;
    bond.stop()
}

/// Paths that silently drop what is larger than 1,100 bytes, less than any search began with: files
/// arrive whole. One that carries still less, beside others, bounds them in nothing.
pub(crate) fn links_below_the_base_are_found_out(lab: &Lab) -> anyhow::Result<()> {
    let narrow = |index: usize, bytes: Option<u32>| {
        for direction in [Direction::Up, Direction::Down] {
            lab.apply(index, direction, Change::Mtu(bytes));
        }
    };
    let links = lab.scenario().links.len();
    (0..links).for_each(|index| narrow(index, Some(1_100)));
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let found = |expected: &[u64]| {
        eventually("every link's MTU is known", || {
            for host in [Host::Client, Host::Server] {
                let found = bond.link_figures(host, "mtu")?;
                ensure!(found == expected, "{}: {found:?}", host.name());
            }
            Ok(())
        })
    };
    found(&vec![1_080; links])?;
    files_arrive_whole(lab)?;
    bond.stop()?;

    (0..links).for_each(|index| narrow(index, (index == 0).then_some(700)));
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    eventually("the first link's size is known", || {
        for host in [Host::Client, Host::Server] {
            let found = bond.link_figures(host, "mtu")?;
            ensure!(found.first() == Some(&680), "{}: {found:?}", host.name());
            ensure!(found.iter().skip(1).all(|bytes| *bytes > 1_400), "{found:?}");
        }
        Ok(())
    })?;
    files_arrive_whole(lab)?;
    bond.stop()
}

/// A packet of `mtu` bytes passes to the server, one byte more is refused.
pub(crate) fn packets_pass_up_to(lab: &Lab, mtu: u16) -> anyhow::Result<()> {
    // An echo request has 20 + 8 bytes of headers.
    let largest = mtu - 28;
    for (payload, fits) in [(largest, true), (largest + 1, false)] {
        let mut ping = lab.host(Host::Client).command("ping");
        ping.args(["-M", "do", "-c", "3", "-i", "0.05", "-W", "2", "-s", &payload.to_string()]);
        let output = ping.arg(SERVER_V4.to_string()).output()?;
        ensure!(
            output.status.success() == fits,
            "{payload} bytes: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(())
}

/// Light traffic takes the preferred link alone; a download fills it and then the others.
pub(crate) fn light_traffic_takes_one_link_and_a_download_all(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let before = bond.link_figures(Host::Server, "rx_bytes")?;
    all_answered(lab, Host::Client, &Ping { payload_bytes: 1_000, count: 50, ..Ping::new(SERVER_V4) })?;
    let light = increase(&before, &bond.link_figures(Host::Server, "rx_bytes")?);
    let (first, others) = light.split_first().context("no links")?;
    ensure!(*first > 50_000, "light traffic is not on the first link: {light:?}");
    // Heartbeats alone: some 100 bytes each, ten a second.
    ensure!(others.iter().all(|bytes| *bytes < 10_000), "light traffic is not on one link alone: {light:?}");

    let _server = Iperf3Server::start(lab, lab.host(Host::Server), 5_201)?;
    let before = bond.link_figures(Host::Client, "rx_bytes")?;
    // The time depends on the machine: the transfer runs until the shares are right.
    let download = Iperf3 { duration: 2 * PATIENCE, ..Iperf3::new(SERVER_V4, IperfDirection::Download) }
        .start(lab, lab.host(Host::Client))?;
    eventually("the download uses every link", || {
        let bulk = increase(&before, &bond.link_figures(Host::Client, "rx_bytes")?);
        ensure!(bulk.iter().all(|bytes| *bytes > 200_000), "received by link: {bulk:?}");
        Ok(())
    })?;
    drop(download);
    bond.stop()
}

fn increase(before: &[u64], after: &[u64]) -> Vec<u64> {
    before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before)).collect()
}

/// A link goes silent during a download: no byte is lost, the status shows the link's state, and
/// the link comes back.
pub(crate) fn a_silent_link_costs_no_byte(lab: &Lab) -> anyhow::Result<()> {
    const CUT: usize = 1;
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let address = SocketAddr::from((addr::INTERNET_V4, 80));
    let bytes = noise(4 * FILE_BYTES);
    let (file, got) = (folder("noise"), folder("got"));
    std::fs::write(&file, &bytes)?;
    let _web = Web::start(lab.host(Host::Internet), address, bytes)?;
    let mut curl = curl(lab);
    curl.arg("--output").arg(&got).arg(format!("http://{address}/noise"));
    let download = std::thread::spawn(move || run(&mut curl));
    let outcome = eventually("the download begins", || {
        let bytes = std::fs::metadata(folder("got"))?.len();
        ensure!(bytes > 1 << 20, "{bytes} bytes so far");
        lab.cut(CUT);
        Ok(())
    })
    .and_then(|()| {
        eventually("the silent link is found out", || {
            for host in [Host::Client, Host::Server] {
                let state = bond.link_state(host, CUT)?;
                ensure!(["DOWN", "SUSPECT"].contains(&state.as_str()), "the {} says {state}", host.name());
            }
            Ok(())
        })
    });
    let downloaded = download.join().map_err(|_| anyhow::anyhow!("curl's thread panicked"))?;
    outcome?;
    downloaded?;
    ensure!(sha256(&got)? == sha256(&file)?, "the download differs from the file");
    lab.restore(CUT);
    eventually("the link comes back", || {
        for host in [Host::Client, Host::Server] {
            let state = bond.link_state(host, CUT)?;
            ensure!(!["DOWN", "SUSPECT"].contains(&state.as_str()), "the {} says {state}", host.name());
        }
        Ok(())
    })?;
    bond.stop()
}

pub(crate) fn folder(name: &str) -> std::path::PathBuf {
    Path::new(FOLDER).join(name)
}
