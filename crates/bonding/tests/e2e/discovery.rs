//! Links that are found by themselves, and that come and go while the bond runs. No file lists
//! them. Beside the lab's links there is a modem, which is plugged in and out, and a LAN.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bonding_lab::tools::{Iperf3, Iperf3Server, IperfDirection, Ping};
use bonding_lab::{Host, Lab};
use bonding_testkit::bond::{Bond, Options, SERVER_V4};
use bonding_testkit::wait::eventually;
use rustix::process::Signal;
use serde_json::Value;

use crate::PROGRAMS;
use crate::fence::on;

/// The modem's interface; the LAN's, whose name is that of a line.
const MODEM: &str = "wwan0";
const LAN: &str = "eth9";

/// What a link has carried when it is in use. Chosen: heartbeats need ten seconds for it.
const USED_BYTES: u64 = 20_000;

/// A bond without a `[[link]]`; `more` is the rest of `[discovery]`.
fn start<'lab>(lab: &'lab Lab, more: &str) -> anyhow::Result<Bond<'lab>> {
    let mut bond = Bond::configure(lab, PROGRAMS, Options::default())?;
    let file = bond.configuration(Host::Client);
    let text = std::fs::read_to_string(&file)?;
    let (head, _) = text.split_once("[[link]]").context("no [[link]] in the file")?;
    let names = lab.scenario().links.iter().map(|link| link.name.as_str()).chain(["wwan*", "eth*"]);
    let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    std::fs::write(&file, format!("{head}[discovery]\ninclude = [{}]\n{more}", names.join(", ")))?;
    bond.start_server()?;
    bond.start_client()?;
    Ok(bond)
}

/// A network behind the client, without a way to the server.
fn add_lan(lab: &Lab) -> anyhow::Result<()> {
    for words in [
        &format!("ip link add {LAN} type veth peer name port netns internet"),
        &format!("ip address add 192.168.9.1/24 dev {LAN}"),
        &format!("ip link set {LAN} up"),
    ] {
        on(lab, Host::Client, words)?;
    }
    on(lab, Host::Internet, "ip link set port up").map(drop)
}

/// Plugs the modem in: an interface with another index each time. `route` leads to the server.
fn plug(lab: &Lab, address: &str, route: &str) -> anyhow::Result<()> {
    on(lab, Host::Client, &format!("ip link add {MODEM} type veth peer name modem netns server"))?;
    for words in ["ip address add 192.168.8.1/24 dev modem", "ip link set modem up"] {
        on(lab, Host::Server, words)?;
    }
    on(lab, Host::Client, &format!("ip address add {address}/24 dev {MODEM}"))?;
    on(lab, Host::Client, &format!("ip link set {MODEM} up"))?;
    on(lab, Host::Client, route).map(drop)
}

fn unplug(lab: &Lab) -> anyhow::Result<()> {
    on(lab, Host::Client, &format!("ip link del {MODEM}")).map(drop)
}

const ROUTE: &str = "ip route add default via 192.168.8.1 dev wwan0 metric 700";

/// The link of that name in the status of the client.
fn link(bond: &Bond<'_>, name: &str) -> anyhow::Result<Option<Value>> {
    let status = bond.status(Host::Client)?;
    let links = status.pointer("/links").and_then(Value::as_array).context("no links")?;
    Ok(links.iter().find(|link| link.get("name") == Some(&Value::from(name))).cloned())
}

/// Waits until the link carries data on both sides.
fn is_used(bond: &Bond<'_>, name: &str) -> anyhow::Result<Value> {
    eventually(&format!("{name} is used"), || {
        let link = link(bond, name)?.context("no such link")?;
        let carried = link.get("rx_bytes").and_then(Value::as_u64).unwrap_or(0);
        ensure!(carried >= USED_BYTES && link.get("state") != Some(&Value::from("DOWN")), "{link}");
        Ok(link)
    })
}

fn is_gone(bond: &Bond<'_>, name: &str) -> anyhow::Result<()> {
    eventually(&format!("{name} is gone"), || {
        ensure!(link(bond, name)?.is_none(), "it is a link");
        // The server forgets it, too: its links have the client's numbers.
        let links = bond.status(Host::Server)?;
        let down = links.pointer("/links").and_then(Value::as_array).context("no links")?.clone();
        ensure!(down.iter().all(|link| link.get("state") != Some(&Value::from("DOWN"))), "{links}");
        Ok(())
    })
}

/// A modem appears during a download, is unplugged, and comes back with another index and address,
/// and then gets another address from its network: each time it carries a part of the download, and
/// no ping is lost. The LAN is never a link, and the client says why.
pub(crate) fn a_modem_comes_and_goes_during_a_download(lab: &Lab) -> anyhow::Result<()> {
    add_lan(lab)?;
    let bond = start(lab, "")?;
    bond.wait_until_up()?;
    let _server = Iperf3Server::start(lab, lab.host(Host::Server), 5_201)?;
    let duration = Duration::from_secs(20);
    let download = Iperf3 { duration, ..Iperf3::new(SERVER_V4, IperfDirection::Download) };
    let download = download.start(lab, lab.host(Host::Client))?;
    let ping = Ping { count: 400, interval: Duration::from_millis(20), ..Ping::new(SERVER_V4) };
    let host = lab.host(Host::Client);
    let pinging = std::thread::spawn(move || ping.run(host));

    let changes = || {
        plug(lab, "192.168.8.100", ROUTE)?;
        let plugged = Instant::now();
        let first = is_used(&bond, MODEM)?;
        eprintln!("the modem carries data {} ms after it has its route", plugged.elapsed().as_millis());
        unplug(lab)?;
        is_gone(&bond, MODEM)?;
        plug(lab, "192.168.8.7", ROUTE)?;
        let second = is_used(&bond, MODEM)?;
        ensure!(first.get("id") == second.get("id"), "the same line has its number: {first}, {second}");
        ensure!(second.get("local") == Some(&Value::from("192.168.8.7")), "{second}");
        // As a DHCP client does it.
        on(lab, Host::Client, &format!("ip address del 192.168.8.7/24 dev {MODEM}"))?;
        on(lab, Host::Client, &format!("ip address add 192.168.8.9/24 dev {MODEM}"))?;
        on(lab, Host::Client, "ip route replace default via 192.168.8.1 dev wwan0 metric 700")?;
        eventually("the server hears the new address", || {
            let status = bond.status(Host::Server)?;
            ensure!(status.to_string().contains("192.168.8.9"), "{status}");
            Ok(())
        })?;
        is_used(&bond, MODEM)
    };
    let result: anyhow::Result<Value> = changes();
    let report = pinging.join().map_err(|_| anyhow::anyhow!("the pinging thread panicked"))??;
    result?;
    ensure!(report.received == 400 && report.duplicates == 0, "{report:?}");
    ensure!(download.finish()?.received_bytes > 1 << 20);

    let status = bond.status(Host::Client)?;
    let unused = status.pointer("/discovery/unused").and_then(Value::as_array).context("no discovery")?;
    let lan = unused.iter().find(|one| one.get("interface") == Some(&Value::from(LAN)));
    let why = lan.and_then(|lan| lan.get("why")).and_then(Value::as_str);
    ensure!(why == Some("no route to the server"), "{status}");
    let log = bond.log(Host::Client);
    ensure!(log.contains("eth9 is not used: no route to the server"), "{log}");
    ensure!(!log.contains("eth9 is used") && !log.contains("disconnected"), "{log}");
    let shown = bond.bondctl_on(Host::Client, &["status"])?;
    let text = String::from_utf8_lossy(&shown.stdout);
    ensure!(shown.status.success() && text.contains("eth9 is not used: no route to the server"), "{text}");
    bond.stop()
}

/// The first link is dead at the start: the bond is up without it, and it is a link once it is
/// there. One whose carrier goes is none any more, and status does not call that a failure.
pub(crate) fn a_link_that_is_dead_at_the_start_comes_later(lab: &Lab) -> anyhow::Result<()> {
    let first = lab.scenario().links.first().context("no links")?.name.clone();
    lab.set_client_interface(0, false)?;
    let bond = start(lab, "")?;
    let others = lab.scenario().links.len() - 1;
    let up = |wanted: usize| {
        eventually("the links are up", || {
            let status = bond.status(Host::Client)?;
            let links = status.pointer("/links").and_then(Value::as_array).context("no links")?;
            let is_up = |link: &&Value| link.get("state") != Some(&Value::from("DOWN"));
            ensure!(links.len() == wanted && links.iter().filter(is_up).count() == wanted, "{status}");
            ensure!(bond.bondctl_on(Host::Client, &["status"])?.status.success(), "{status}");
            Ok(())
        })
    };
    up(others)?;
    lab.set_client_interface(0, true)?;
    let switched = Instant::now();
    up(others + 1)?;
    eprintln!("{first} is up {} ms after it has its route", switched.elapsed().as_millis());
    bond.wait_until_up()?;
    lab.set_client_interface(0, false)?;
    up(others)?;
    let log = bond.log(Host::Client);
    let said = format!("{first} is not used: it is down, or has no carrier");
    ensure!(log.matches(&said).count() == 2, "{log}");
    bond.stop()
}

/// The main table has no route over the modem: its own table has, which a rule chooses by the
/// source address. The link is bound to that address.
pub(crate) fn a_table_of_its_own_is_a_way_too(lab: &Lab) -> anyhow::Result<()> {
    let bond = start(lab, "priority = 7\n")?;
    bond.wait_until_up()?;
    on(lab, Host::Client, "ip rule add from 192.168.8.100 lookup 77 priority 900")?;
    plug(lab, "192.168.8.100", "ip route add default via 192.168.8.1 dev wwan0 table 77")?;
    eventually("the modem is up", || {
        let link = link(&bond, MODEM)?.context("no such link")?;
        ensure!(link.get("state") == Some(&Value::from("OK")), "{link}");
        ensure!(link.get("priority") == Some(&Value::from(7)), "{link}");
        Ok(())
    })?;
    let log = bond.log(Host::Client);
    ensure!(log.contains("wwan0 is used: it has a route to the server from 192.168.8.100"), "{log}");
    // Without the rule there is no way.
    on(lab, Host::Client, "ip rule del priority 900")?;
    is_gone(&bond, MODEM)?;
    bond.stop()
}

/// `[[link]]` sections are added and removed by reloads, and no ping is lost. One of them has an
/// interface that was found before.
pub(crate) fn sections_come_and_go_by_reload(lab: &Lab) -> anyhow::Result<()> {
    let bond = start(lab, "enabled = true\n")?;
    bond.wait_until_up()?;
    let ping = Ping { count: 200, interval: Duration::from_millis(20), ..Ping::new(SERVER_V4) };
    let host = lab.host(Host::Client);
    let pinging = std::thread::spawn(move || ping.run(host));
    let changes = || {
        let name = lab.scenario().links.get(1).context("no second link")?.name.clone();
        let file = bond.configuration(Host::Client);
        let text = std::fs::read_to_string(&file)?;
        let section = format!("\n[[link]]\nname = \"mine\"\ninterface = \"{name}\"\npriority = 4\n");
        std::fs::write(&file, format!("{text}{section}"))?;
        let said = bond.bondctl_on(Host::Client, &["reload"])?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        ensure!(said.contains("[[link]] \"mine\": added"), "{said}");
        eventually("the section's link is up", || {
            let link = link(&bond, "mine")?.context("no such link")?;
            ensure!(link.get("state") == Some(&Value::from("OK")), "{link}");
            Ok(())
        })?;
        ensure!(link(&bond, &name)?.is_none(), "the interface is the section's");
        bond.wait_until_up()?;
        std::fs::write(&file, text)?;
        bond.process(Host::Client)?.signal(Signal::HUP)?;
        eventually("the interface is found again", || {
            ensure!(link(&bond, "mine")?.is_none());
            let link = link(&bond, &name)?.context("no such link")?;
            ensure!(link.get("state") == Some(&Value::from("OK")), "{link}");
            Ok(())
        })
    };
    let result: anyhow::Result<()> = changes();
    let report = pinging.join().map_err(|_| anyhow::anyhow!("the pinging thread panicked"))??;
    result?;
    ensure!(report.received == 200 && report.duplicates == 0, "{report:?}");
    bond.stop()
}

/// A tunnel on top of the bond's own is no link, though a route leads over it to the server.
pub(crate) fn a_tunnel_over_the_bond_is_no_link(lab: &Lab) -> anyhow::Result<()> {
    let bond = start(lab, "")?;
    bond.wait_until_up()?;
    for words in [
        "ip link add eth8 type vxlan id 5 remote 10.99.0.1 dstport 4789 dev tun-bond",
        "ip address add 172.31.0.1/30 dev eth8",
        "ip link set eth8 up",
        "ip route add default dev eth8 metric 900",
    ] {
        on(lab, Host::Client, words)?;
    }
    eventually("the client says why", || {
        let log = bond.log(Host::Client);
        ensure!(log.contains("eth8 is not used: it runs over tun-bond"), "{log}");
        Ok(())
    })?;
    ensure!(link(&bond, "eth8")?.is_none());
    bond.stop()
}
