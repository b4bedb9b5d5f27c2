//! Links that something on the way holds down, and that the client brings up again by itself.

use anyhow::{Context as _, ensure};
use bonding_lab::{Host, Lab, addr};
use bonding_testkit::bond::{Bond, Options, run};
use bonding_testkit::wait::eventually;
use serde_json::Value;

use crate::PROGRAMS;

/// The link that meets the obstacles: the second one.
const LINK: usize = 1;

fn nft(lab: &Lab, host: Host, rules: &str) -> anyhow::Result<()> {
    run(lab.host(host).command("nft").arg(rules)).map(drop)
}

/// Sets the reverse-path filter of an interface of the client's host.
fn filter(lab: &Lab, interface: &str, value: u8) -> anyhow::Result<()> {
    let write = format!("echo {value} > /proc/sys/net/ipv4/conf/{interface}/rp_filter");
    run(lab.host(Host::Client).command("sh").args(["-c", &write])).map(drop)
}

/// What the client says about a link that is down.
fn trouble(bond: &Bond<'_>, index: usize) -> anyhow::Result<Option<String>> {
    let status = bond.status(Host::Client)?;
    let trouble = status.pointer(&format!("/links/{index}/trouble")).and_then(Value::as_str);
    Ok(trouble.map(str::to_owned))
}

/// A table that drops what the server's host receives and `what` matches.
fn dropped(what: &str) -> String {
    format!(
        "table inet line {{\nchain line {{\ntype filter hook prerouting priority raw;\n{what} drop;\n}}\n}}\n"
    )
}

/// The client's source port on a link, as the server sees it.
fn source_port(bond: &Bond<'_>, index: usize) -> anyhow::Result<u16> {
    let status = bond.status(Host::Server)?;
    let remote = status.pointer(&format!("/links/{index}/remote")).and_then(Value::as_str);
    let (_, port) = remote.and_then(|remote| remote.rsplit_once(':')).context("no address")?;
    Ok(port.parse()?)
}

/// Everything from the client's port of one link leads nowhere from now on, as behind a NAT that
/// keeps a dead mapping alive for as long as something comes from there: only another port helps.
/// The other links stay up on theirs.
pub(crate) fn a_new_source_port_gets_around_a_dead_mapping(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let links = lab.scenario().links.len();
    let ports = || (0..links).map(|index| source_port(&bond, index)).collect::<anyhow::Result<Vec<u16>>>();
    let before = ports()?;
    let dead = before.get(LINK).context("no such link")?;
    nft(lab, Host::Server, &dropped(&format!("udp sport {dead} udp dport 9001-9005")))?;
    eventually("the link is down", || {
        ensure!(bond.link_state(Host::Client, LINK)? == "DOWN");
        Ok(())
    })?;
    bond.wait_until_up()?;
    let name = &lab.scenario().links.get(LINK).context("no such link")?.name;
    let log = bond.log(Host::Client);
    ensure!(log.contains(&format!("{name} is up again: a new source port helped")), "{log}");
    for (index, (before, after)) in before.iter().zip(ports()?).enumerate() {
        ensure!((*before != after) == (index == LINK), "link {index}: {before}, now {after}");
    }
    bond.stop()
}

/// A firewall on the way lets only one of the server's ports through: every link finds it, though
/// the links begin with different ones.
pub(crate) fn one_open_port_of_the_server_is_enough(lab: &Lab) -> anyhow::Result<()> {
    nft(lab, Host::Server, &dropped("udp dport { 9001, 9002, 9004, 9005 }"))?;
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let status = bond.status(Host::Client)?;
    let log = bond.log(Host::Client);
    for (index, link) in lab.scenario().links.iter().enumerate() {
        let remote = status.pointer(&format!("/links/{index}/remote")).and_then(Value::as_str);
        ensure!(remote.is_some_and(|remote| remote.ends_with(":9003")), "{status}");
        let said = log.contains(&format!("{} is up: port 9003 of the server helped", link.name));
        // The third link begins with that port.
        ensure!(said == (index != 2), "{}: {log}", link.name);
    }
    bond.stop()
}

/// Four links, each held down by something else. Each says what that is, in the status and in the
/// log, and says nothing once it is up again.
pub(crate) fn a_link_that_is_down_says_why(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let name =
        |index: usize| lab.scenario().links.get(index).map(|link| link.name.clone()).context("no link");
    let [rejected, forbidden, filtered, cut] = [name(1)?, name(2)?, name(3)?, name(4)?];
    let table = |hook: &str, what: &str| {
        format!(
            "table inet line {{\nchain line {{\ntype filter hook {hook} priority filter;\n{what};\n}}\n}}\n"
        )
    };
    nft(lab, Host::Server, &table("input", &format!("iifname {rejected} udp dport 9001-9005 reject")))?;
    nft(lab, Host::Client, &table("output", &format!("oifname {forbidden} udp dport 9001-9005 drop")))?;
    filter(lab, &filtered, 1)?;
    let causes = [
        (1, format!("{} answers that no server is at that port", addr::SERVER_V4)),
        (2, "a firewall of this machine forbids the datagrams".to_owned()),
        (3, format!("net.ipv4.conf.{filtered}.rp_filter = 2 ends that")),
    ];
    let says = |index: usize, cause: &str| {
        eventually(cause, || {
            let said = trouble(&bond, index)?;
            ensure!(said.as_ref().is_some_and(|said| said.contains(cause)), "{said:?}");
            ensure!(said.is_some_and(|said| said.contains("no answer for")), "it was up");
            let line = format!("{} is down: ", name(index)?);
            let log = bond.log(Host::Client);
            ensure!(log.lines().any(|said| said.contains(&line) && said.contains(cause)), "{log}");
            Ok(())
        })
    };
    for (index, cause) in &causes {
        says(*index, cause)?;
    }
    ensure!(trouble(&bond, 0)?.is_none() && trouble(&bond, 4)?.is_none(), "links that are up say something");

    for host in [Host::Client, Host::Server] {
        nft(lab, host, "delete table inet line")?;
    }
    filter(lab, &filtered, 0)?;
    bond.wait_until_up()?;
    for index in 0..lab.scenario().links.len() {
        ensure!(trouble(&bond, index)?.is_none(), "link {index} is up");
    }
    run(lab.host(Host::Client).command("ip").args(["link", "set", &cut, "down"]))?;
    says(4, &format!("{cut} is down or has no carrier"))?;
    bond.stop()
}

/// Distributions filter strictly by default, which drops every answer over a line that is not the
/// default route. The client makes the filter loose for its links' interfaces and puts it back, at
/// its end or at the next start after a crash.
pub(crate) fn strict_filtering_of_a_line_is_made_loose(lab: &Lab) -> anyhow::Result<()> {
    let name = lab.scenario().links.get(LINK).map(|link| link.name.clone()).context("no such link")?;
    let file = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
    let setting = || anyhow::Ok(run(lab.host(Host::Client).command("cat").arg(&file))?.trim().to_owned());
    filter(lab, &name, 1)?;
    let mut bond = Bond::start(lab, PROGRAMS, Options::default())?;
    ensure!(setting()? == "2" && bond.log(Host::Client).contains("strict reverse-path filtering"));
    bond.kill(Host::Client)?;
    ensure!(setting()? == "2", "a crash undoes nothing");
    bond.start_client()?;
    bond.wait_until_up()?;
    bond.stop()?;
    ensure!(setting()? == "1", "the filter is not put back");
    Ok(())
}

/// Links without an interface follow the main table. A route of another program leads the server's
/// address into the tunnel: each link that is caught says so.
pub(crate) fn a_route_into_the_tunnel_is_named(lab: &Lab) -> anyhow::Result<()> {
    let mut bond = Bond::configure(lab, PROGRAMS, Options::default())?;
    let file = bond.configuration(Host::Client);
    let text = std::fs::read_to_string(&file)?;
    let unbound: Vec<&str> = text.lines().filter(|line| !line.starts_with("interface = ")).collect();
    let tunnel = "[tunnel]\ninterface = \"tun-bond\"";
    std::fs::write(&file, unbound.join("\n").replace("[tunnel]", tunnel))?;
    bond.start_server()?;
    bond.start_client()?;
    bond.wait_until_up()?;
    let route = format!("{}/32", addr::SERVER_V4);
    let ip = |what: &str| {
        run(lab
            .host(Host::Client)
            .command("ip")
            .args(["route", what, &route, "dev", "tun-bond", "metric", "1"]))
    };
    ip("add")?;
    let cause = "a route of this machine leads the server's address into tun-bond, which is a loop";
    eventually(cause, || {
        let said = trouble(&bond, LINK)?;
        ensure!(said.as_ref().is_some_and(|said| said.contains(cause)), "{said:?}");
        ensure!(bond.log(Host::Client).contains(cause));
        Ok(())
    })?;
    ip("delete")?;
    bond.wait_until_up()?;
    bond.stop()
}
