//! Sealed links and their clients: an invitation, its use, its misuse, and its end.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use bonding_lab::tools::Ping;
use bonding_lab::{Host, Lab, addr};
use bonding_testkit::bond::{Bond, FOLDER, SERVER_V4, SERVER_V6, run};
use bonding_testkit::wait::eventually;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, socket};
use serde_json::Value;

use crate::PROGRAMS;
use crate::traffic::{all_answered, files_arrive_whole, packets_pass_up_to};

/// The inner addresses that the first client gets.
pub(crate) const LEASED_V4: &str = "10.99.0.2";
const LEASED_V6: &str = "fd99::2";

/// Default routes over every link, the first preferred, as on a router with several lines.
pub(crate) fn route_over_all_links(lab: &Lab) -> anyhow::Result<()> {
    for (index, link) in lab.scenario().links.iter().enumerate() {
        let metric = (100 + index).to_string();
        let mut command = lab.host(Host::Client).command("ip");
        run(command.args(["route", "add", "default", "dev", &link.name, "metric", &metric]))?;
    }
    Ok(())
}

/// An invitation for a client called `name`.
pub(crate) fn invite(bond: &Bond<'_>, name: &str) -> anyhow::Result<String> {
    let printed = bond.bondctl(&["invite", name, "--host", &addr::SERVER_V4.to_string()])?;
    ensure!(printed.lines().count() == 1 && printed.starts_with("bond://"), "{printed}");
    Ok(printed.trim().to_owned())
}

/// A running server and a client that joined it.
pub(crate) fn joined(lab: &Lab) -> anyhow::Result<(Bond<'_>, String)> {
    route_over_all_links(lab)?;
    let mut bond = Bond::start_defaults(lab, PROGRAMS)?;
    let line = invite(&bond, "home")?;
    let output = bond.join_by_input(&line, "client.key")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bond.start_joined()?;
    bond.wait_until_up()?;
    Ok((bond, line))
}

fn traffic_flows(lab: &Lab) -> anyhow::Result<()> {
    for address in [SERVER_V4, SERVER_V6] {
        all_answered(lab, Host::Client, &Ping { count: 5, ..Ping::new(address) })?;
    }
    for address in [LEASED_V4, LEASED_V6] {
        all_answered(lab, Host::Server, &Ping { count: 5, ..Ping::new(address.parse()?) })?;
    }
    Ok(())
}

/// Four commands (server, invite, join, client) bring every link up; sealed traffic flows both
/// ways.
pub(crate) fn an_invitation_is_all_it_takes(lab: &Lab) -> anyhow::Result<()> {
    let (bond, line) = joined(lab)?;
    traffic_flows(lab)?;
    for host in [Host::Client, Host::Server] {
        let status = bond.status(host)?;
        let cipher = status.pointer("/session/cipher").and_then(Value::as_str).unwrap_or_default();
        ensure!(["aes-256-gcm", "chacha20-poly1305"].contains(&cipher), "{status}");
        ensure!(status.pointer("/session/hybrid") == Some(&Value::from(true)), "{status}");
        // 1500 less 91: the server listens on IPv6, too.
        ensure!(status.pointer("/tunnel/mtu") == Some(&Value::from(1_409)), "{status}");
        let log = bond.log(host);
        let secret = line.rsplit_once('/').map(|(_, secret)| secret).context("no secret")?;
        ensure!(!log.contains(secret) && !log.contains("plain links are not protected"), "{log}");
    }
    let addresses = bond.status(Host::Client)?.pointer("/tunnel/address").cloned();
    let expected = Value::from(vec![format!("{LEASED_V4}/24"), format!("{LEASED_V6}/64")]);
    ensure!(addresses == Some(expected), "{addresses:?}");

    packets_pass_up_to(lab, 1_409)?;
    files_arrive_whole(lab)?;

    let clients: Value = serde_json::from_str(&bond.bondctl(&["clients", "--json"])?)?;
    let client = clients.pointer("/clients/0").context("no client")?;
    for (key, value) in [("name", "home"), ("state", "up"), ("origin", "invited")] {
        ensure!(client.get(key) == Some(&Value::from(value)), "{clients}");
    }
    ensure!(bond.bondctl(&["clients"])?.contains("home"));
    bond.stop()
}

/// Each wrong invitation gives one sentence on standard error and exit code 1; the same key may use
/// an invitation again.
pub(crate) fn lines_that_do_not_enrol_say_why(lab: &Lab) -> anyhow::Result<()> {
    route_over_all_links(lab)?;
    let bond = Bond::start_defaults(lab, PROGRAMS)?;
    let line = invite(&bond, "home")?;
    let refused = |line: &str, key: &str, part: &str| {
        let output = bond.join(line, key)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{part}: {}: {said}", output.status);
        let (progress, error) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
        ensure!(error.starts_with("error: ") && error.contains(part), "{said}");
        let is_step = |line: &str| {
            ["asking ", "no answer after ", &addr::SERVER_V4.to_string()]
                .iter()
                .any(|begin| line.starts_with(begin))
        };
        ensure!(progress.lines().all(is_step), "{said}");
        ensure!(output.stdout.is_empty(), "{part}: {}", String::from_utf8_lossy(&output.stdout));
        anyhow::Ok(())
    };
    refused(line.get(..line.len() - 3).context("short")?, "client.key", "damaged: copy the whole line")?;
    refused("http://example.net", "client.key", "this is no invitation")?;
    // An earlier invitation for the same name is void.
    let newer = invite(&bond, "home")?;
    refused(&line, "client.key", "has expired")?;
    for _ in 0..2 {
        let output = bond.join(&newer, "client.key")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(said.contains(LEASED_V4) && said.contains(LEASED_V6), "{said}");
    }
    // Another machine with the same invitation: its file would name the same server, but it has
    // another key.
    refused(&newer, "other.key", "is there already and says something else")?;
    std::fs::remove_file(bond.configuration(Host::Client))?;
    refused(&newer, "other.key", "was used already")?;
    ensure!(!bond.configuration(Host::Client).exists(), "a client that is not enrolled has a configuration");
    bond.stop()
}

/// The line that the routing table prefers is dead: the invitation is used over another one, and
/// each step says so.
pub(crate) fn one_line_that_works_is_enough_to_join(lab: &Lab) -> anyhow::Result<()> {
    route_over_all_links(lab)?;
    let mut names = lab.scenario().links.iter().map(|link| link.name.as_str());
    let works = names.next_back().context("no links")?;
    let dead: Vec<&str> = names.collect();
    let rules = format!(
        "table inet line {{\nchain line {{\ntype filter hook prerouting priority raw;\niifname {{ {} }} udp dport \
         9001-9005 drop;\n}}\n}}\n",
        dead.join(", ")
    );
    run(lab.host(Host::Server).command("nft").arg(rules))?;
    let bond = Bond::start_defaults(lab, PROGRAMS)?;
    let line = invite(&bond, "home")?;
    let output = bond.join(&line, "client.key")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    ensure!(said.starts_with(&format!("asking {} on UDP 9001-9005 over ", addr::SERVER_V4)), "{said}");
    ensure!(said.trim_end().ends_with(&format!(" answers over {works}")), "{said}");
    bond.stop()
}

/// A revoked client loses its session at once and cannot come back; the server runs on.
pub(crate) fn a_revoked_client_is_out_at_once(lab: &Lab) -> anyhow::Result<()> {
    let (mut bond, line) = joined(lab)?;
    ensure!(bond.bondctl(&["revoke", "home"])?.starts_with("home: its key is forgotten"));
    eventually("the client notices", || {
        let status = bond.status(Host::Client)?;
        ensure!(status.pointer("/session/state") != Some(&Value::from("up")), "{status}");
        Ok(())
    })?;
    ensure!(bond.log(Host::Client).contains("revoked this client's key"), "{}", bond.log(Host::Client));
    let clients: Value = serde_json::from_str(&bond.bondctl(&["clients", "--json"])?)?;
    ensure!(clients.pointer("/clients").and_then(Value::as_array).is_some_and(Vec::is_empty), "{clients}");
    bond.kill(Host::Client)?;
    let output = bond.join(&line, "client.key")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && said.contains("was used already"), "{said}");
    ensure!(bond.bondctl(&["revoke", "home"]).is_err(), "a client was revoked twice");

    // With a new invitation the same machine enrols again and gets its addresses again, also while
    // its client runs, which waits for that.
    let join = |bond: &Bond<'_>| {
        let output = bond.join(&invite(bond, "home")?, "client.key")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        anyhow::Ok(())
    };
    join(&bond)?;
    bond.start_joined()?;
    bond.wait_until_up()?;
    bond.bondctl(&["revoke", "home"])?;
    eventually("the client says that it is refused", || {
        let status = bond.status(Host::Client)?;
        ensure!(status.pointer("/session/state") == Some(&Value::from("refused")), "{status}");
        ensure!(status.to_string().contains("was revoked there"), "{status}");
        Ok(())
    })?;
    join(&bond)?;
    bond.wait_until_up()?;
    ensure!(bond.log(Host::Client).contains("this client has joined the server anew"));
    traffic_flows(lab)?;
    bond.stop()
}

/// The files of the client's state, without the shared folder's other files.
fn client_state(name: &str) -> std::path::PathBuf {
    std::path::Path::new(FOLDER).join(name)
}

/// What the client and the server share since the join is needed in every handshake: nothing falls
/// back to a handshake without it. The same invitation brings it back.
pub(crate) fn a_client_without_what_it_shares_gets_no_session(lab: &Lab) -> anyhow::Result<()> {
    let (mut bond, line) = joined(lab)?;
    traffic_flows(lab)?;
    bond.kill(Host::Client)?;
    // The join wrote nothing down, as when it was killed after the server's answer.
    std::fs::remove_file(client_state("client.psk"))?;
    bond.start_joined()?;
    eventually("the client says that its keys open no answer", || {
        ensure!(bond.log(Host::Client).contains("answers come that this client's keys do not open"));
        let status = bond.status(Host::Client)?;
        ensure!(status.pointer("/session/state") == Some(&Value::from("connecting")), "{status}");
        let refused = status.pointer("/discards/unauthenticated").and_then(Value::as_u64);
        ensure!(refused > Some(0), "{status}");
        Ok(())
    })?;
    bond.kill(Host::Client)?;
    let output = bond.join(&line, "client.key")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bond.start_joined()?;
    bond.wait_until_up()?;
    traffic_flows(lab)?;
    bond.stop()
}

/// A client that joined before there was anything to share goes on without it.
pub(crate) fn a_client_that_joined_before_goes_on(lab: &Lab) -> anyhow::Result<()> {
    let (mut bond, _) = joined(lab)?;
    for host in [Host::Client, Host::Server] {
        bond.kill(host)?;
    }
    std::fs::remove_file(client_state("client.psk"))?;
    let register = client_state("server.clients");
    let mut text: Value = serde_json::from_str(&std::fs::read_to_string(&register)?)?;
    let client = text.pointer_mut("/clients/0").and_then(Value::as_object_mut).context("no client")?;
    ensure!(client.remove("preshared_key").is_some(), "no pre-shared key");
    *text.pointer_mut("/version").context("no version")? = 1.into();
    std::fs::write(&register, text.to_string())?;
    bond.start_server()?;
    bond.start_joined()?;
    bond.wait_until_up()?;
    traffic_flows(lab)?;
    bond.stop()
}

fn known(bond: &Bond<'_>, key: &str) -> anyhow::Result<String> {
    let clients: Value = serde_json::from_str(&bond.bondctl(&["clients", "--json"])?)?;
    let value = clients.pointer(&format!("/clients/0/{key}")).and_then(Value::as_str);
    Ok(value.with_context(|| format!("no {key}: {clients}"))?.to_owned())
}

/// A client gets a new key while its session goes on; both sides know the new one after a restart,
/// and the old one is worthless.
pub(crate) fn a_client_gets_a_new_key(lab: &Lab) -> anyhow::Result<()> {
    let (mut bond, _) = joined(lab)?;
    let old = known(&bond, "public_key")?;
    let old_file = std::fs::read(client_state("client.key"))?;
    let output = bond.rekey()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let new = known(&bond, "public_key")?;
    ensure!(new != old && said.contains(&new), "{said}");
    ensure!(std::fs::read(client_state("client.key"))? != old_file);
    ensure!(!client_state("client.next").exists(), "the new key is the key");
    let status = bond.status(Host::Client)?;
    ensure!(status.pointer("/key/public_key") == Some(&Value::from(new)), "{status}");
    ensure!(!bond.log(Host::Client).contains("disconnected"), "{}", bond.log(Host::Client));
    traffic_flows(lab)?;
    for host in [Host::Client, Host::Server] {
        bond.kill(host)?;
    }
    bond.start_server()?;
    bond.start_joined()?;
    bond.wait_until_up()?;
    traffic_flows(lab)?;
    bond.kill(Host::Client)?;
    // An image of the client from before.
    std::fs::write(client_state("client.key"), old_file)?;
    bond.start_joined()?;
    eventually("the server does not know the old key", || {
        let status = bond.status(Host::Server)?;
        let unknown = status.pointer("/discards/unknown_client").and_then(Value::as_u64);
        ensure!(unknown > Some(0), "{status}");
        Ok(())
    })?;
    let status = bond.status(Host::Client)?;
    ensure!(status.pointer("/session/state") != Some(&Value::from("up")), "{status}");
    bond.stop()
}

/// A client whose key has expired loses its session, is told why, and comes back when its key is
/// made valid again.
pub(crate) fn an_expired_client_is_refused_and_says_so(lab: &Lab) -> anyhow::Result<()> {
    let (mut bond, _) = joined(lab)?;
    ensure!(bond.bondctl(&["expire", "home", "1h"])?.starts_with("home: its key expires at 20"));
    ensure!(known(&bond, "expires")?.ends_with('Z') && known(&bond, "state")? == "up");
    traffic_flows(lab)?;
    bond.bondctl(&["expire", "home", "2s"])?;
    let expired = |bond: &Bond<'_>| {
        let status = bond.status(Host::Client)?;
        ensure!(status.pointer("/session/state") == Some(&Value::from("refused")), "{status}");
        let why = status.pointer("/session/refused").and_then(Value::as_str).unwrap_or_default();
        ensure!(why.starts_with("this client's key has expired"), "{status}");
        ensure!(known(bond, "state")? == "expired");
        Ok(())
    };
    eventually("the client is refused", || expired(&bond))?;
    ensure!(bond.bondctl(&["clients"])?.contains("expired"));
    // Neither side's restart changes that.
    for host in [Host::Server, Host::Client] {
        bond.kill(host)?;
        if host == Host::Client {
            bond.start_joined()?
        } else {
            bond.start_server()?
        }
        eventually("the client is refused again", || expired(&bond))?;
    }
    ensure!(bond.bondctl(&["expire", "home", "never"])?.contains("does not expire"));
    bond.kill(Host::Client)?;
    bond.start_joined()?;
    bond.wait_until_up()?;
    traffic_flows(lab)?;
    bond.stop()
}

/// A server's list of clients is told whole, however long it is.
pub(crate) fn twenty_thousand_clients_are_listed(lab: &Lab) -> anyhow::Result<()> {
    const CLIENTS: u32 = 20_000;
    let name = |number: u32| format!("branch-office-router-{number:05}");
    let client = |number: u32| {
        let [a, b, c, d] = (0x0a40_0002 + number).to_be_bytes();
        // A key of its own for each client, in base64.
        format!(
            r#"{{"name":"{}","public_key":"{number:0>8}{}=","addresses":["{a}.{b}.{c}.{d}","fd99::{:x}"],"enrolled":{}}}"#,
            name(number),
            "A".repeat(35),
            2 + number,
            1_700_000_000 + number
        )
    };
    let clients: Vec<String> = (0..CLIENTS).map(client).collect();
    let register = format!(r#"{{"version":1,"clients":[{}],"invitations":[]}}"#, clients.join(","));
    let bond = Bond::start_registered(lab, PROGRAMS, &register, r#"["10.64.0.1/10", "fd99::1/64"]"#)?;
    invite(&bond, "home")?;
    let json = bond.bondctl(&["clients", "--json"])?;
    // More than a connection of the control socket ever keeps.
    ensure!(json.len() > 4 << 20, "{}", json.len());
    let listed: Value = serde_json::from_str(&json)?;
    let names = listed.pointer("/clients").and_then(Value::as_array).context("no clients")?;
    let names = names.iter().filter_map(|client| client.get("name").and_then(Value::as_str));
    ensure!(names.eq((0..CLIENTS).map(name)), "not in the order of enrolment");
    ensure!(listed.pointer("/invitations/0/name") == Some(&Value::from("home")), "no invitation");
    let table = bond.bondctl(&["clients"])?;
    ensure!(
        table.matches("branch-office-router-").count() == CLIENTS as usize
            && table.contains("home is invited")
    );
    bond.stop()
}

/// A client goes on to the next host if the first is silent, when it joins and when it runs.
pub(crate) fn a_silent_server_is_passed_over(lab: &Lab) -> anyhow::Result<()> {
    let bond = joined_past_a_silent_host(lab, addr::SERVER_V4.into())?;
    traffic_flows(lab)?;
    bond.stop()
}

/// A running server and a client that joined it, invited first to a silent host and then to `host`.
fn joined_past_a_silent_host(lab: &Lab, host: IpAddr) -> anyhow::Result<Bond<'_>> {
    // An address without a host (RFC 5737).
    const SILENT: &str = "192.0.2.99";
    route_over_all_links(lab)?;
    let mut bond = Bond::start_defaults(lab, PROGRAMS)?;
    let line = bond.bondctl(&["invite", "home", "--host", SILENT, "--host", &host.to_string()])?;
    let output = bond.join(line.trim(), "client.key")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bond.start_joined()?;
    bond.wait_until_up()?;
    Ok(bond)
}

/// An IPv4 and an IPv6 address side by side are one server: on each link the family that answers is
/// used.
pub(crate) fn a_dead_family_is_passed_over(lab: &Lab) -> anyhow::Result<()> {
    let server = addr::SERVER_V6;
    let bond = joined_past_a_silent_host(lab, server.into())?;
    let status = bond.status(Host::Client)?;
    for link in status.pointer("/links").and_then(Value::as_array).context("no links")? {
        let remote = link.get("remote").and_then(Value::as_str).unwrap_or_default();
        ensure!(remote.starts_with(&format!("[{server}]:")), "{link}");
    }
    traffic_flows(lab)?;
    bond.stop()
}

/// The server's configuration has the client's key and a secret that both share; some links are
/// sealed and one is plain.
pub(crate) fn configured_keys_and_mixed_links(lab: &Lab) -> anyhow::Result<()> {
    let mut bond = Bond::start_mixed(lab, PROGRAMS)?;
    bond.wait_until_up()?;
    for (host, address) in [(Host::Client, SERVER_V4), (Host::Server, LEASED_V4.parse()?)] {
        all_answered(lab, host, &Ping { count: 20, ..Ping::new(address) })?;
    }
    let links = lab.scenario().links.len();
    let bytes = bond.link_figures(Host::Server, "rx_bytes")?;
    ensure!(bytes.len() == links && bytes.iter().all(|bytes| *bytes > 0), "{bytes:?}");
    // Without the shared secret the key is not enough.
    bond.kill(Host::Client)?;
    bond.forget_shared_secret()?;
    bond.start_client()?;
    eventually("sealed links are refused", || {
        let states: Vec<String> =
            (1..links).map(|index| bond.link_state(Host::Client, index)).collect::<Result<_, _>>()?;
        ensure!(states.iter().all(|state| state == "DOWN"), "{states:?}");
        ensure!(bond.link_state(Host::Client, 0)? == "OK", "the plain link needs no secret");
        Ok(())
    })?;
    bond.stop()
}

/// What both know of each other outlives either.
pub(crate) fn sealed_sides_come_back_after_a_kill(lab: &Lab) -> anyhow::Result<()> {
    let (mut bond, _) = joined(lab)?;
    for host in [Host::Client, Host::Server] {
        bond.kill(host)?;
        if host == Host::Client {
            bond.start_joined()?
        } else {
            bond.start_server()?
        }
        bond.wait_until_up().with_context(|| format!("after the {} was killed", host.name()))?;
        traffic_flows(lab)?;
    }
    bond.stop()
}

/// The hypervisor gives the machine another generation, and the kernel tells so: either side drops
/// its keys, and the session goes on under others. The kernel's notification is sent by hand.
pub(crate) fn a_copied_machine_makes_new_keys(lab: &Lab) -> anyhow::Result<()> {
    const NOTIFICATION: &[u8] = b"change@/devices/platform/VMGENCTR:00\0ACTION=change\0NEW_VMGENID=1\0";
    let (bond, _) = joined(lab)?;
    for host in [Host::Client, Host::Server] {
        let said = "this machine is a copy of an earlier state: new keys";
        ensure!(!bond.log(host).contains(said));
        lab.host(host).run(|| {
            let socket = socket(AddressFamily::NETLINK, SocketType::DGRAM, Some(KOBJECT_UEVENT))?;
            sendto(&socket, NOTIFICATION, SendFlags::empty(), &SocketAddrNetlink::new(0, 1))
        })??;
        eventually("the keys go", || {
            ensure!(bond.log(host).contains(said), "{}", bond.log(host));
            Ok(())
        })?;
        bond.wait_until_up()?;
        traffic_flows(lab)?;
    }
    bond.stop()
}
