//! Start, interruption and end of the bond: restarts of either side, and hosts that are left
//! unchanged.

use anyhow::{Context as _, ensure};
use bonding_lab::tools::Ping;
use bonding_lab::{Host, Lab};
use bonding_testkit::bond::{Bond, CLIENT_V4, Options, SERVER_V4, TUNNEL, run};
use bonding_testkit::wait::eventually;
use rustix::process::Signal;

use crate::PROGRAMS;
use crate::traffic::all_answered;

/// Traffic flows again after the client is killed and started again; the server runs on.
pub(crate) fn a_killed_client_comes_back(lab: &Lab) -> anyhow::Result<()> {
    let mut bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let untouched = bond.process(Host::Server)?.id();
    for round in 0..2 {
        bond.kill(Host::Client)?;
        bond.start_client()?;
        bond.wait_until_up().with_context(|| format!("restart {round}"))?;
        traffic_flows(lab)?;
    }
    ensure!(bond.process(Host::Server)?.id() == untouched);
    bond.stop()
}

/// The same for the server.
pub(crate) fn a_killed_server_comes_back(lab: &Lab) -> anyhow::Result<()> {
    let mut bond = Bond::start(lab, PROGRAMS, Options::default())?;
    for round in 0..2 {
        bond.kill(Host::Server)?;
        bond.start_server()?;
        bond.wait_until_up().with_context(|| format!("restart {round}"))?;
        traffic_flows(lab)?;
    }
    bond.stop()
}

/// The client may start before the server.
pub(crate) fn a_client_waits_for_its_server(lab: &Lab) -> anyhow::Result<()> {
    let mut bond = Bond::configure(lab, PROGRAMS, Options::default())?;
    bond.start_client()?;
    bond.start_server()?;
    bond.wait_until_up()?;
    traffic_flows(lab)?;
    bond.stop()
}

fn traffic_flows(lab: &Lab) -> anyhow::Result<()> {
    all_answered(lab, Host::Client, &Ping { count: 10, ..Ping::new(SERVER_V4) })?;
    all_answered(lab, Host::Server, &Ping { count: 10, ..Ping::new(CLIENT_V4) })
}

/// Everything that a bond could leave on a host: devices, addresses, routes, rules, firewall
/// tables, switches.
pub(crate) fn traces(lab: &Lab, host: Host) -> anyhow::Result<String> {
    let mut text = String::new();
    for words in [
        "ip -oneline link show",
        "ip -oneline address show",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip -4 rule show",
        "ip -6 rule show",
        "nft list ruleset",
        "cat /proc/sys/net/ipv4/ip_forward",
        "grep -r . /proc/sys/net/ipv4/conf/ --include=forwarding",
        "grep -r . /proc/sys/net/ipv6/conf/ --include=forwarding --include=force_forwarding",
    ] {
        let mut words = words.split(' ');
        let mut command = lab.host(host).command(words.next().context("no program")?);
        let printed = run(command.args(words))?;
        text.extend(["$ ", &format!("{command:?}"), "\n", &printed]);
    }
    Ok(text)
}

/// Both programs end with exit code 0 on SIGTERM and on SIGINT, and leave nothing on their hosts.
pub(crate) fn everything_is_undone_at_exit(lab: &Lab) -> anyhow::Result<()> {
    let before = [traces(lab, Host::Client)?, traces(lab, Host::Server)?];
    for signal in [Signal::TERM, Signal::INT] {
        let bond = Bond::start(lab, PROGRAMS, Options::default())?;
        traffic_flows(lab)?;
        let [client, server] = [traces(lab, Host::Client)?, traces(lab, Host::Server)?];
        ensure!(client.contains(TUNNEL) && server.contains(TUNNEL), "no device: {client}{server}");
        ensure!(server.contains("masquerade"), "no NAT: {server}");
        bond.stop_with(signal)?;
        as_before(lab, &before)?;
    }
    Ok(())
}

/// What a killed run left is removed by `bondctl cleanup`, which the unit runs, and by the next
/// run.
pub(crate) fn what_a_crash_left_is_undone_later(lab: &Lab) -> anyhow::Result<()> {
    let before = [traces(lab, Host::Client)?, traces(lab, Host::Server)?];
    let mut bond = Bond::start(lab, PROGRAMS, Options::default())?;
    bond.kill(Host::Client)?;
    bond.kill(Host::Server)?;
    ensure!(traces(lab, Host::Server)?.contains("masquerade"), "a kill leaves no time to undo the NAT");
    bond.bondctl(&["cleanup"])?;
    as_before(lab, &before)?;
    bond.start_server()?;
    eventually("the server answers", || bond.status(Host::Server).map(drop))?;
    bond.kill(Host::Server)?;
    bond.start_server()?;
    bond.start_client()?;
    bond.wait_until_up()?;
    traffic_flows(lab)?;
    bond.stop()?;
    as_before(lab, &before)
}

fn as_before(lab: &Lab, before: &[String; 2]) -> anyhow::Result<()> {
    for (host, before) in [Host::Client, Host::Server].into_iter().zip(before) {
        let after = traces(lab, host)?;
        ensure!(*before == after, "the {} is not as it was\nbefore:\n{before}\nafter:\n{after}", host.name());
    }
    Ok(())
}
