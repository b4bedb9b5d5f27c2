//! Where the server is: names that have no address yet, have another one, or a nameserver that is
//! silent, and families that come later.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use bonding_lab::{Host, Lab, addr};
use bonding_testkit::bond::{Bond, FOLDER, Options, run};
use bonding_testkit::wait::eventually;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;
use serde_json::Value;

use crate::PROGRAMS;

/// The server's name.
const NAME: &str = "vps.test";

/// A file of the system that this test has its own of, until it ends.
struct Replaced(&'static str, String);

impl Replaced {
    fn new(file: &'static str, text: &str) -> anyhow::Result<Self> {
        let own = format!("{FOLDER}/{}", file.rsplit('/').next().context("no name")?);
        std::fs::write(&own, text)?;
        mount(own.as_str(), file, "", MountFlags::BIND, None).with_context(|| file.to_owned())?;
        Ok(Self(file, own))
    }

    fn write(&self, text: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(&self.1, text)?)
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

/// A bond that does not run yet, whose client knows the server by these hosts.
fn configured<'lab>(lab: &'lab Lab, hosts: &str) -> anyhow::Result<Bond<'lab>> {
    let bond = Bond::configure(lab, PROGRAMS, Options::default())?;
    let file = bond.configuration(Host::Client);
    let text = std::fs::read_to_string(&file)?;
    let own = format!("host = \"{}\"", addr::SERVER_V4);
    ensure!(text.contains(&own), "{text}");
    std::fs::write(&file, text.replace(&own, &format!("host = {hosts}")))?;
    Ok(bond)
}

/// The server drops what comes for this address of its.
fn close(lab: &Lab, address: IpAddr) -> anyhow::Result<()> {
    let family = if address.is_ipv4() { "ip" } else { "ip6" };
    let rules = format!(
        "table inet {family}line {{\nchain line {{\ntype filter hook prerouting priority raw;\n{family} daddr \
         {address} udp dport 9001-9005 drop;\n}}\n}}\n"
    );
    run(lab.host(Host::Server).command("nft").arg(rules)).map(drop)
}

/// The addresses that the links send to.
fn remotes(bond: &Bond<'_>) -> anyhow::Result<Vec<String>> {
    let status = bond.status(Host::Client)?;
    let links = status.pointer("/links").and_then(Value::as_array).context("no links")?;
    let remote = |link: &Value| link.get("remote").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(links.iter().map(remote).collect())
}

/// A name that has no address at the start is asked again, beside a spare that serves. It turns out
/// to be the same server, and nothing changes. Then the server moves to an address that only the
/// name knows.
pub(crate) fn names_are_asked_again(lab: &Lab) -> anyhow::Result<()> {
    let mut bond = configured(lab, &format!("[\"{NAME}\", \"{}\"]", addr::SERVER_V4))?;
    let _resolver = Replaced::new("/etc/resolv.conf", "options attempts:1 timeout:1\n")?;
    let hosts = Replaced::new("/etc/hosts", "")?;
    bond.start_server()?;
    bond.start_client()?;
    bond.wait_until_up()?;
    ensure!(bond.log(Host::Client).contains(&format!("looking up `{NAME}`")), "{}", bond.log(Host::Client));
    hosts.write(&format!("{} {NAME}\n", addr::SERVER_V4))?;
    eventually("the name has an address", || {
        ensure!(bond.log(Host::Client).contains(&format!("`{NAME}` has an address again")));
        Ok(())
    })?;
    hosts.write(&format!("{} {NAME}\n", addr::SERVER_V6))?;
    close(lab, addr::SERVER_V4.into())?;
    eventually("every link is at the other address", || {
        let at = format!("[{}]:", addr::SERVER_V6);
        let remotes = remotes(&bond)?;
        ensure!(remotes.iter().all(|remote| remote.starts_with(&at)), "{remotes:?}");
        Ok(())
    })?;
    bond.wait_until_up()?;
    bond.stop()
}

/// A nameserver that does not answer, for far longer than any test waits, holds up neither the end
/// of a client that waits for it nor a spare.
pub(crate) fn a_silent_nameserver_holds_up_nothing(lab: &Lab) -> anyhow::Result<()> {
    let text = format!("nameserver {}\noptions timeout:30 attempts:5\n", addr::server_v4(0));
    let mut bond = configured(lab, &format!("\"{NAME}\""))?;
    let resolver = Replaced::new("/etc/resolv.conf", &text)?;
    let silence = "table inet dns {\nchain dns {\ntype filter hook prerouting priority raw;\nudp dport 53 drop;\n}\n}\n";
    run(lab.host(Host::Server).command("nft").arg(silence))?;
    bond.start_client_alone()?;
    eventually("the client asks", || {
        let rules = run(lab.host(Host::Client).command("ss").args(["-Hun", "dport", "=", "53"]))?;
        ensure!(!rules.trim().is_empty());
        Ok(())
    })?;
    bond.stop()?;
    drop(resolver);

    let mut bond = configured(lab, &format!("[\"{NAME}\", \"{}\"]", addr::SERVER_V4))?;
    let _resolver = Replaced::new("/etc/resolv.conf", &text)?;
    bond.start_server()?;
    bond.start_client()?;
    bond.wait_until_up()?;
    bond.stop_with(Signal::INT)
}

/// At the start the lines have IPv6 only, which does not lead to the server. IPv4 comes later, as
/// by DHCP.
pub(crate) fn a_family_that_comes_later_is_used(lab: &Lab) -> anyhow::Result<()> {
    let ip = |arguments: &str| run(lab.host(Host::Client).command("ip").args(arguments.split(' ')));
    let names: Vec<&str> = lab.scenario().links.iter().map(|link| link.name.as_str()).collect();
    for name in &names {
        ip(&format!("-4 address flush dev {name}"))?;
    }
    close(lab, addr::SERVER_V6.into())?;
    let mut bond = configured(lab, &format!("[\"{}\", \"{}\"]", addr::SERVER_V6, addr::SERVER_V4))?;
    bond.start_server()?;
    bond.start_client()?;
    eventually("the client runs", || bond.status(Host::Client).map(drop))?;
    ensure!(remotes(&bond)?.iter().all(|remote| remote.starts_with('[')), "{:?}", remotes(&bond)?);
    for (index, name) in (0..).zip(&names) {
        let own = addr::client_v4(index);
        ip(&format!("address add {own}/24 dev {name}"))?;
        ip(&format!("route replace {}/32 dev {name} src {own} metric {}", addr::SERVER_V4, 10 + index))?;
    }
    bond.wait_until_up()?;
    let at = format!("{}:", addr::SERVER_V4);
    ensure!(remotes(&bond)?.iter().all(|remote| remote.starts_with(&at)), "{:?}", remotes(&bond)?);
    bond.stop()
}
