//! Other projects' tunnels, between the same hosts.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bonding_lab::tools::Ping;
use bonding_lab::{Host, Lab, Process, addr};
use bonding_testkit::bond::{CLIENT_V4, FOLDER, SERVER_V4, key, run};
use bonding_testkit::wait::eventually;

use crate::ENDS;

const WIREGUARD_PORT: &str = "51820";
const OPENVPN_PORT: &str = "1194";
/// WireGuard's own default over links of 1,500 bytes.
const MTU: &str = "1420";

/// The full path of a program; `folder` comes before the PATH.
pub(crate) fn find(program: &str, folder: Option<&Path>) -> Option<PathBuf> {
    let there = folder.map(|folder| folder.join(program)).filter(|file| file.is_file());
    there.or_else(|| bonding_lab::find(program))
}

/// Waits until `server` answers.
pub(crate) fn wait_for(lab: &Lab, server: IpAddr) -> anyhow::Result<()> {
    eventually("the tunnel answers", || {
        let ping = Ping { count: 1, wait: Duration::from_secs(1), ..Ping::new(server) };
        let report = ping.run(lab.host(Host::Client))?;
        ensure!(report.received == 1);
        Ok(())
    })
}

const fn device(host: Host) -> &'static str {
    match host {
        Host::Client => "peer-c",
        Host::Server | Host::Internet => "peer-s",
    }
}

const fn address(host: Host) -> IpAddr {
    match host {
        Host::Client => CLIENT_V4,
        Host::Server | Host::Internet => SERVER_V4,
    }
}

/// Sends a program's output to a file of its own.
fn spawn(lab: &Lab, host: Host, program: &Path, arguments: &[&str]) -> anyhow::Result<Process> {
    let log = std::fs::File::create(Path::new(FOLDER).join(format!("{}.peer.log", host.name())))?;
    let mut command = lab.host(host).command(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(lab.spawn(&mut command)?)
}

/// Gives a device its address and routes all traffic into it.
fn route(lab: &Lab, host: Host) -> anyhow::Result<()> {
    let (device, other) = (device(host), if host == Host::Client { Host::Server } else { Host::Client });
    let steps = [
        vec!["address".to_owned(), "add".into(), address(host).to_string(), "dev".into(), device.into()],
        ["link", "set", "dev", device, "mtu", MTU, "up"].map(str::to_owned).to_vec(),
        vec!["route".to_owned(), "add".into(), address(other).to_string(), "dev".into(), device.into()],
    ];
    for step in &steps {
        run(lab.host(host).command("ip").args(step))?;
    }
    Ok(())
}

fn folder() -> anyhow::Result<()> {
    std::fs::create_dir_all(FOLDER).with_context(|| format!("cannot make {FOLDER}"))
}

/// Starts both ends of a WireGuard in user space.
pub(crate) fn wireguard(lab: &Lab, program: &str, at: Option<&Path>) -> anyhow::Result<Vec<Process>> {
    folder()?;
    let file = find(program, at).with_context(|| format!("no {program}"))?;
    let mut processes = Vec::new();
    for host in ENDS {
        let device = device(host);
        let arguments: &[&str] = if program == "wireguard-go" {
            &["--foreground", device]
        } else {
            &["--foreground", "--disable-drop-privileges", device]
        };
        processes.push(spawn(lab, host, &file, arguments)?);
        let other = if host == Host::Client { Host::Server } else { Host::Client };
        let secret = Path::new(FOLDER).join(format!("{}.wg", host.name()));
        std::fs::write(&secret, BASE64_STANDARD.encode(key(host).bytes()))?;
        let public = BASE64_STANDARD.encode(key(other).public().0);
        let endpoint = format!("{}:{WIREGUARD_PORT}", addr::SERVER_V4);
        let allowed = format!("{}/32", address(other));
        eventually("the device can be configured", || {
            let mut command = lab.host(host).command("wg");
            command.args(["set", device, "listen-port", WIREGUARD_PORT, "private-key"]).arg(&secret);
            command.args(["peer", &public, "allowed-ips", &allowed]);
            if host == Host::Client {
                command.args(["endpoint", &endpoint]);
            }
            run(&mut command).map(drop)
        })?;
        route(lab, host)?;
    }
    Ok(processes)
}

/// Starts OpenVPN, point to point; each end knows the other's certificate.
pub(crate) fn openvpn(lab: &Lab) -> anyhow::Result<Vec<Process>> {
    folder()?;
    let file = find("openvpn", None).context("no openvpn")?;
    let path = |host: Host, kind: &str| format!("{FOLDER}/{}.{kind}", host.name());
    let mut prints = Vec::new();
    for host in ENDS {
        let mut command = std::process::Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-subj", "/CN=bench", "-days", "2", "-keyout", &path(host, "pem")]);
        run(command.args(["-out", &path(host, "crt")]))?;
        let mut command = std::process::Command::new("openssl");
        command.args(["x509", "-fingerprint", "-sha256", "-noout", "-in", &path(host, "crt")]);
        let print = run(&mut command)?;
        prints.push(print.trim().rsplit_once('=').context("no fingerprint")?.1.to_owned());
    }
    let mut processes = Vec::new();
    for (host, print) in ENDS.into_iter().zip(prints.iter().rev()) {
        let server = addr::SERVER_V4.to_string();
        let (crt, pem) = (path(host, "crt"), path(host, "pem"));
        let (own, other) = if host == Host::Client { (CLIENT_V4, SERVER_V4) } else { (SERVER_V4, CLIENT_V4) };
        let (own, other) = (own.to_string(), other.to_string());
        let mut arguments =
            vec!["--dev", device(host), "--dev-type", "tun", "--proto", "udp", "--ifconfig", &own, &other];
        arguments.extend(["--cert", &crt, "--key", &pem, "--peer-fingerprint", print, "--disable-dco"]);
        arguments.extend(["--data-ciphers", "AES-256-GCM", "--tun-mtu", MTU]);
        if host == Host::Client {
            arguments.extend(["--tls-client", "--remote", &server, OPENVPN_PORT, "--nobind"]);
        } else {
            arguments.extend(["--tls-server", "--dh", "none", "--port", OPENVPN_PORT]);
        }
        processes.push(spawn(lab, host, &file, &arguments)?);
    }
    Ok(processes)
}
