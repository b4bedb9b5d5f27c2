//! Files and links that change while the bond runs: what changes is seen, and nothing else notices.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bonding_lab::tools::{Iperf3, Iperf3Server, IperfDirection, Ping};
use bonding_lab::{Host, Lab};
use bonding_testkit::bond::{Bond, Options, SERVER_V4, public_key, run};
use bonding_testkit::wait::eventually;
use bonding_testkit::web::Web;
use rustix::process::Signal;
use serde_json::Value;

use crate::PROGRAMS;
use crate::sealed::{LEASED_V4, joined};
use crate::traffic::curl;

/// Writes a file anew, with one text in the place of another.
fn edit(file: &PathBuf, from: &str, to: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file)?;
    ensure!(text.contains(from), "no {from} in:\n{text}");
    Ok(std::fs::write(file, text.replacen(from, to, 1))?)
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A value of the status of `host` is this, now or soon.
fn shows(bond: &Bond<'_>, host: Host, pointer: &str, value: impl Into<Value>) -> anyhow::Result<()> {
    let value = value.into();
    eventually("the change shows", || {
        let status = bond.status(host)?;
        ensure!(status.pointer(pointer) == Some(&value), "{}{pointer}: {status}", host.name());
        Ok(())
    })
}

/// Priorities, a rule and the policy change on both sides during a download and 50 pings a second:
/// by SIGHUP and by `bondctl`, and no ping is lost. A wrong file changes nothing.
pub(crate) fn no_ping_is_lost_by_a_reload(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let _server = Iperf3Server::start(lab, lab.host(Host::Server), 5_201)?;
    let duration = Duration::from_secs(12);
    let download = Iperf3 { duration, ..Iperf3::new(SERVER_V4, IperfDirection::Download) };
    let download = download.start(lab, lab.host(Host::Client))?;
    let ping = Ping { count: 500, interval: Duration::from_millis(20), ..Ping::new(SERVER_V4) };
    let host = lab.host(Host::Client);
    let pinging = std::thread::spawn(move || ping.run(host));
    std::thread::sleep(Duration::from_secs(1));

    let changed = change_both(&bond).and_then(|()| wrong_file(&bond)).and_then(|()| change_back(&bond));
    let report = pinging.join().map_err(|_| anyhow::anyhow!("the pinging thread panicked"))??;
    changed?;
    ensure!(report.received == 500 && report.duplicates == 0, "{report:?}");
    let report = download.finish()?;
    ensure!(report.received_bytes > 1 << 20, "{report:?}");
    bond.stop()
}

/// The client by SIGHUP, the server by `bondctl`.
fn change_both(bond: &Bond<'_>) -> anyhow::Result<()> {
    let file = bond.configuration(Host::Client);
    edit(&file, "priority = 1", "priority = 7")?;
    edit(&file, "policy = \"adaptive\"", "policy = \"score\"")?;
    edit(&file, "[tcp]", "[[qos.rule]]\nprotocol = \"icmp\"\nclass = \"realtime\"\n[tcp]")?;
    bond.process(Host::Client)?.signal(Signal::HUP)?;
    shows(bond, Host::Client, "/links/0/priority", 7)?;
    shows(bond, Host::Client, "/policy", "score")?;
    shows(bond, Host::Server, "/links/0/priority", 7)?;
    for line in ["priority: 1 → 7", "[scheduler] policy: adaptive → score", "[[qos.rule]]: 0 → 1 rules"]
    {
        ensure!(bond.log(Host::Client).contains(line), "no {line} in:\n{}", bond.log(Host::Client));
    }
    let file = bond.configuration(Host::Server);
    edit(&file, "policy = \"adaptive\"", "policy = \"redundant\"")?;
    edit(&file, "interval = \"1s\"", "interval = \"2s\"\n[heartbeat]\ninterval = \"200ms\"")?;
    let done = said(&bond.bondctl_on(Host::Server, &["reload"])?);
    let expected = "[scheduler] policy: adaptive → redundant\n[status] interval: 1s → 2s\n\
                    [heartbeat] interval: takes effect at the next start\n";
    ensure!(done == (Some(0), expected.to_owned(), String::new()), "{done:?}");
    shows(bond, Host::Server, "/policy", "redundant")
}

/// A file with a mistake changes nothing, and both say why.
fn wrong_file(bond: &Bond<'_>) -> anyhow::Result<()> {
    let file = bond.configuration(Host::Client);
    let right = std::fs::read_to_string(&file)?;
    edit(&file, "priority = 7", "priorty = 3")?;
    edit(&file, "policy = \"score\"", "policy = \"redundant\"")?;
    let (code, out, why) = said(&bond.bondctl_on(Host::Client, &["reload"])?);
    ensure!(code == Some(1) && out.is_empty(), "exit code {code:?}: {out}");
    ensure!(why.contains("priority") && why.contains("nothing was changed"), "{why}");
    bond.process(Host::Client)?.signal(Signal::HUP)?;
    eventually("both reloads are in the log", || {
        ensure!(bond.log(Host::Client).matches("nothing was changed").count() == 2);
        Ok(())
    })?;
    shows(bond, Host::Client, "/policy", "score")?;
    shows(bond, Host::Client, "/links/0/priority", 7)?;
    Ok(std::fs::write(&file, right)?)
}

/// All as it was, by `bondctl`.
fn change_back(bond: &Bond<'_>) -> anyhow::Result<()> {
    let file = bond.configuration(Host::Client);
    edit(&file, "priority = 7", "priority = 1")?;
    edit(&file, "policy = \"score\"", "policy = \"adaptive\"")?;
    edit(&bond.configuration(Host::Server), "policy = \"redundant\"", "policy = \"adaptive\"")?;
    for host in [Host::Client, Host::Server] {
        let (code, out, _) = said(&bond.bondctl_on(host, &["reload"])?);
        ensure!(code == Some(0) && out.contains("→ adaptive"), "{out}");
        shows(bond, host, "/policy", "adaptive")?;
    }
    let (code, out, _) = said(&bond.bondctl_on(Host::Client, &["reload"])?);
    ensure!(code == Some(0) && out == "nothing has changed\n", "{out}");
    Ok(())
}

/// An operator's word about a link is seen on both sides, and holds until a reload.
pub(crate) fn a_link_is_used_otherwise_by_hand(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let name = &lab.scenario().links.first().context("no links")?.name;
    let orders: [(&[&str], &str, u64); 3] =
        [(&["demote"], "backup", 1), (&["priority", "9"], "backup", 9), (&["enable"], "primary", 9)];
    for (order, role, priority) in orders {
        let mut arguments = vec!["link", name.as_str()];
        arguments.extend(order);
        let (code, out, why) = said(&bond.bondctl_on(Host::Client, &arguments)?);
        let expected = format!("{name}: {role}, priority {priority}, until a reload or the next start\n");
        ensure!(code == Some(0) && out == expected, "{out}{why}");
        shows(&bond, Host::Client, "/links/0/by_hand", true)?;
        for host in [Host::Client, Host::Server] {
            shows(&bond, host, "/links/0/role", role)?;
            shows(&bond, host, "/links/0/priority", priority)?;
        }
    }
    let (code, out, _) = said(&bond.bondctl_on(Host::Client, &["reload"])?);
    ensure!(code == Some(0) && out.contains("as the file says"), "{out}");
    shows(&bond, Host::Client, "/links/0/by_hand", false)?;
    shows(&bond, Host::Server, "/links/0/priority", 1)?;
    let (code, _, why) = said(&bond.bondctl_on(Host::Client, &["link", "none", "demote"])?);
    ensure!(code == Some(1) && why.contains("there is no link \"none\""), "{why}");
    let (code, _, why) = said(&bond.bondctl_on(Host::Server, &["link", name, "demote"])?);
    ensure!(code == Some(1) && why.contains("links are the client's"), "{why}");
    bond.stop()
}

/// A server's clients and what they may reach change without a new start.
pub(crate) fn clients_of_the_file_come_and_go(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options { allow: "[\"internet\"]", ..Options::default() })?;
    let service = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
    let _web = Web::start(lab.host(Host::Server), service, b"server".to_vec())?;
    let fetch = || {
        let mut curl = curl(lab);
        curl.args(["--connect-timeout", "5"]).arg(format!("http://{SERVER_V4}/"));
        anyhow::Ok(curl.output()?.status.success())
    };
    let file = bond.configuration(Host::Server);
    let reload = |line: &str| {
        let (code, out, why) = said(&bond.bondctl_on(Host::Server, &["reload"])?);
        ensure!(code == Some(0) && out.contains(line), "no {line} in:\n{out}{why}");
        Ok(())
    };
    ensure!(!fetch()?, "a service of the server is reached");
    edit(&file, "allow = [\"internet\"]", "allow = [\"internet\", \"server\"]")?;
    reload("[routing] allow: internet → internet, server")?;
    ensure!(fetch()?, "no service of the server is reached");

    edit(&file, "name = \"home\"", "name = \"home\"\nroutes = [\"192.168.77.0/24\"]")?;
    reload("[[client]] \"home\": changed, its session begins anew")?;
    eventually("the client is told to come back", || {
        ensure!(bond.log(Host::Client).contains("the peer has stopped"), "{}", bond.log(Host::Client));
        Ok(())
    })?;
    shows(&bond, Host::Client, "/session/state", "up")?;
    eventually("the client reaches the server again", || {
        ensure!(fetch()?);
        Ok(())
    })?;

    edit(&file, "name = \"home\"", "name = \"home\"\npreshared_key_file = \"/nonexistent\"")?;
    let (code, _, why) = said(&bond.bondctl_on(Host::Server, &["reload"])?);
    ensure!(code == Some(1) && why.contains("/nonexistent") && why.contains("nothing was changed"), "{why}");
    ensure!(fetch()?, "the session has ended");
    edit(&file, "preshared_key_file = \"/nonexistent\"", "")?;

    let route = || run(lab.host(Host::Server).command("ip").args(["route", "show", "192.168.77.0/24"]));
    ensure!(route()?.contains("tun-bond"), "what is behind the client has no route");
    let text = std::fs::read_to_string(&file)?;
    let (without, client) = text.split_once("[[client]]").context("no client")?;
    std::fs::write(&file, without)?;
    reload("[[client]] \"home\": removed, its session ends")?;
    shows(&bond, Host::Client, "/session/state", "refused")?;
    ensure!(bond.bondctl(&["clients", "--json"])?.contains("\"clients\":[]"), "it is listed");
    ensure!(route()?.is_empty(), "its route stays: {}", route()?);
    std::fs::write(&file, format!("{without}[[client]]{client}"))?;
    reload("[[client]] \"home\": added")?;
    ensure!(bond.bondctl(&["clients", "--json"])?.contains("\"name\":\"home\""), "it is not listed");
    bond.stop()
}

/// Beside its register a server has a section for a client that was invited: what it may reach, and
/// the network behind it. A reload that does not go with the register changes nothing.
pub(crate) fn an_invited_client_has_a_section(lab: &Lab) -> anyhow::Result<()> {
    const BEHIND: Ipv4Addr = Ipv4Addr::new(192, 168, 66, 1);
    let (bond, _) = joined(lab)?;
    let service = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
    let _web = Web::start(lab.host(Host::Server), service, b"server".to_vec())?;
    let fetch = || {
        let mut curl = curl(lab);
        curl.args(["--connect-timeout", "3"]).arg(format!("http://{SERVER_V4}/"));
        anyhow::Ok(curl.output()?.status.success())
    };
    let reload = || anyhow::Ok(said(&bond.bondctl_on(Host::Server, &["reload"])?));
    let file = bond.configuration(Host::Server);
    let before = std::fs::read_to_string(&file)?;
    let write = |sections: &str| {
        std::fs::write(&file, format!("{before}\n{sections}"))?;
        reload()
    };
    let home = |rest: &str| format!("[[client]]\nname = \"home\"\n{rest}\n");
    ensure!(!fetch()?, "a service of the server is reached");

    let may = home("allow = [\"internet\", \"server\"]");
    let (code, out, why) = write(&may)?;
    let line = "[[client]] \"home\" allow: as all → internet, server\n";
    ensure!(code == Some(0) && out == line, "{out}{why}");
    ensure!(fetch()?, "the client does not reach what it may");
    let listed: Value = serde_json::from_str(&bond.bondctl(&["clients", "--json"])?)?;
    let words = Value::from(vec!["internet", "server"]);
    ensure!(listed.pointer("/clients/0/allow") == Some(&words), "{listed}");

    // The register does not go with the first section, so the second does not count either.
    let taken = format!(
        "[[client]]\nname = \"other\"\npublic_key = \"{}\"\naddress = \"{LEASED_V4}\"\n",
        public_key(Host::Internet)
    );
    let (code, _, why) = write(&format!("{taken}{}", home("allow = []")))?;
    ensure!(code == Some(1) && why.contains("takes an address of \"home\""), "{why}");
    ensure!(why.contains("nothing was changed") && fetch()?, "a refused file took something away: {why}");
    let named = taken.replace("other", "home").replace(LEASED_V4, "10.99.0.77");
    let (code, _, why) = write(&named)?;
    ensure!(code == Some(1) && why.contains("has the name of a client that was invited"), "{why}");
    let (code, _, why) = said(&Command::new(PROGRAMS.bondctl).arg("check").arg(&file).output()?);
    ensure!(code == Some(2) && why.contains("has the name of a client that was invited"), "{why}");

    run(lab.host(Host::Client).command("ip").args(["address", "add", &format!("{BEHIND}/32"), "dev", "lo"]))?;
    let (code, out, why) = write(&format!("{may}routes = [\"{BEHIND}/24\"]\n").replace(".1/24", ".0/24"))?;
    ensure!(code == Some(0) && out.contains("\"home\" routes: changed"), "{out}{why}");
    eventually("the network behind the client is reached", || {
        let ping = Ping { count: 2, ..Ping::new(BEHIND.into()) }.run(lab.host(Host::Server))?;
        ensure!(ping.received > 0 && fetch()?, "{ping:?}");
        Ok(())
    })?;

    // The next client gets the address, and not what the first one may.
    let rules = || run(lab.host(Host::Server).command("nft").args(["list", "ruleset"]));
    ensure!(rules()?.contains(LEASED_V4), "{}", rules()?);
    bond.bondctl(&["revoke", "home"])?;
    ensure!(!rules()?.contains(LEASED_V4), "{}", rules()?);
    bond.stop()
}
