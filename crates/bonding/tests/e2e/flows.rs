//! `bondctl flows` on both sides, beside real traffic.
#![expect(clippy::indexing_slicing, reason = "JSON without the key is null")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bonding_lab::tools::{Iperf3, Iperf3Server, IperfDirection, Ping};
use bonding_lab::{Host, Lab};
use bonding_testkit::bond::{Bond, CLIENT_V4, Options, SERVER_V4};
use bonding_testkit::wait::eventually;
use serde_json::Value;

use crate::PROGRAMS;

const STREAM_PORT: u16 = 5_201;
const PACKETS_PORT: u16 = 5_202;

/// The flow of this protocol to this destination, as `host` sees it.
fn flow(bond: &Bond<'_>, host: Host, protocol: &str, to: &str) -> anyhow::Result<Value> {
    let answer: Value = serde_json::from_str(&bond.bondctl_of(host, &["flows", "--json"])?)?;
    let flows = answer.pointer("/flows").and_then(Value::as_array).context("no flows")?;
    let is_it = |flow: &&Value| flow["protocol"] == protocol && flow["destination"] == to;
    // The first is the one with the highest rate: iperf3 has a connection for its orders beside it.
    flows.iter().find(is_it).cloned().with_context(|| format!("no {protocol} to {to}: {answer}"))
}

/// A figure of a flow.
fn figure(flow: &Value, key: &str) -> anyhow::Result<f64> {
    flow[key].as_f64().with_context(|| format!("no {key}: {flow}"))
}

/// The shares of the links, in a direction.
fn shares(flow: &Value, direction: &str) -> anyhow::Result<Vec<f64>> {
    let links = flow["links"].as_array().context("no links")?;
    let shares = links.iter().map(|link| link[direction].as_f64().context("no share"));
    shares.collect()
}

/// Two downloads, one as a stream and one as packets by a rule, a call by its mark and a ping: each
/// side has them with their class, the way that they go and why, and the links that carry them.
pub(crate) fn flows_are_shown_with_class_and_reason(lab: &Lab) -> anyhow::Result<()> {
    let rules = "[[qos.rule]]\nprotocol = \"udp\"\nports = [\"1\"]\nclass = \"bulk\"\n\
                 [[qos.rule]]\nprotocol = \"tcp\"\nports = [\"5202\"]\nclass = \"bulk\"\nsplit = false\n";
    let bond = Bond::start(lab, PROGRAMS, Options { rules, ..Options::default() })?;
    let quiet = bond.bondctl_of(Host::Client, &["flows"])?;
    ensure!(quiet.contains("no flow had packets") || quiet.contains("CLASS"), "{quiet}");
    let _servers = [
        Iperf3Server::start(lab, lab.host(Host::Server), STREAM_PORT)?,
        Iperf3Server::start(lab, lab.host(Host::Server), PACKETS_PORT)?,
    ];
    let download = |port| {
        let duration = Duration::from_secs(12);
        Iperf3 { port, duration, ..Iperf3::new(SERVER_V4, IperfDirection::Download) }
    };
    let ping = Ping { count: 120, interval: Duration::from_millis(100), ..Ping::new(SERVER_V4) };
    std::thread::scope(|scope| {
        let loads = [STREAM_PORT, PACKETS_PORT]
            .map(|port| scope.spawn(move || download(port).run(lab, lab.host(Host::Client)).map(drop)));
        let pinging = scope.spawn(|| ping.run(lab.host(Host::Client)));
        for host in [Host::Client, Host::Server] {
            eventually("each flow is shown as it goes", || shown(&bond, host))?;
        }
        for load in loads {
            load.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        }
        pinging.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        anyhow::Ok(())
    })?;
    bond.stop()
}

/// All of it on one side.
fn shown(bond: &Bond<'_>, host: Host) -> anyhow::Result<()> {
    let is_client = host == Host::Client;
    let to = |port| SocketAddr::new(SERVER_V4, port).to_string();
    let stream = flow(bond, host, "tcp", &to(STREAM_PORT))?;
    let packets = flow(bond, host, "tcp", &to(PACKETS_PORT))?;
    let ping = flow(bond, host, "icmp", &SERVER_V4.to_string())?;

    ensure!(stream["split"] == true && stream["packets_by"].is_null(), "{stream}");
    ensure!(stream["credit_blocked_ms"].is_number(), "{stream}");
    let by = if is_client { "rule 2" } else { "the client's choice" };
    ensure!(packets["split"] == false && packets["packets_by"] == by, "{packets}");
    ensure!(ping["split"] == false && ping["packets_by"] == "ICMP", "{ping}");
    // The client's rules are the client's: the server sends by its own.
    let class = if is_client { ("bulk", "rule 2") } else { ("", "") };
    let said = |flow: &Value, key: &str| flow[key].as_str().unwrap_or_default().to_owned();
    ensure!((&*said(&packets, "class"), &*said(&packets, "class_by")) == class, "{packets}");
    ensure!((&*said(&ping, "class"), &*said(&ping, "class_by")) == ("interactive", "service"), "{ping}");
    ensure!(stream["class"].is_null(), "{stream}");

    let source = |flow: &Value| said(flow, "source").parse::<SocketAddr>();
    ensure!(source(&packets)?.ip() == CLIENT_V4, "{packets}");
    ensure!(said(&ping, "source") == CLIENT_V4.to_string(), "{ping}");
    if is_client {
        ensure!(source(&stream)?.ip() == CLIENT_V4, "{stream}");
    }
    for flow in [&stream, &packets, &ping] {
        ensure!(flow.get("client").and_then(Value::as_str) == (!is_client).then_some("home"), "{flow}");
    }
    for download in [&stream, &packets] {
        ensure!(figure(download, "down_mbps")? > 10.0, "{download}");
        ensure!(figure(download, "down_bytes")? > 1e6, "{download}");
        let links = shares(download, "down")?;
        ensure!(links.len() > 2 && (0.98..1.02).contains(&links.iter().sum()), "{download}");
        if !is_client {
            ensure!(download["tier"] == "bulk", "{download}");
        }
    }
    let wait = figure(&ping, "queue_ms")?;
    ensure!(wait < 500.0 && figure(&ping, "up_bytes")? > 0.0, "{ping}");
    Ok(())
}
