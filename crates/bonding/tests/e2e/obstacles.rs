//! Links that something on the way holds down, and that the client brings up again by itself.

use anyhow::{Context as _, ensure};
use bonding_lab::{Host, Lab};
use bonding_testkit::bond::{Bond, Options, run};
use bonding_testkit::wait::eventually;
use serde_json::Value;

use crate::PROGRAMS;

/// The link that meets the obstacles: the second one.
const LINK: usize = 1;

fn nft(lab: &Lab, rules: &str) -> anyhow::Result<()> {
    run(lab.host(Host::Server).command("nft").arg(rules)).map(drop)
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
    nft(lab, &dropped(&format!("udp sport {dead} udp dport 9001-9005")))?;
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
    nft(lab, &dropped("udp dport { 9001, 9002, 9004, 9005 }"))?;
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
