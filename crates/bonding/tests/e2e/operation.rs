//! The operator's view: configuration errors, exit codes, status, logs. The stranger's view:
//! silence.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bonding_lab::{Host, Lab, addr};
use bonding_testkit::bond::{Bond, FOLDER, Options, run};
use bonding_testkit::wait::{PATIENCE, eventually};
use serde_json::Value;

use crate::PROGRAMS;

/// A wrong configuration ends the program with exit code 2 and a message that names file, line, the
/// wrong part and the nearest key.
pub(crate) fn a_wrong_configuration_is_exit_code_2(_: &Lab) -> anyhow::Result<()> {
    let cases = [
        (
            PROGRAMS.client,
            "[server]\nhost = \"192.0.2.1\"\n\n[[link]]\ninterface = \"wg0\"\npriorty = 1\n",
            ":6:",
            "priority",
        ),
        (PROGRAMS.client, "[[link]]\ninterface = \"wg0\"\nsecurity = \"plain\"\n", ":", "host"),
        (PROGRAMS.client, "[server]\nhost = 7\n", ":2:", "host"),
        (PROGRAMS.client, "[server\n", ":1:", "]"),
        (PROGRAMS.server, "[listen]\nports = \"9005-9001\"\n", ":2:", "9005"),
        (PROGRAMS.server, "[listn]\nports = \"9001\"\n", ":1:", "listen"),
    ];
    for (index, (program, text, place, word)) in cases.iter().enumerate() {
        let folder = Path::new(FOLDER).join(format!("wrong-{index}"));
        std::fs::create_dir_all(&folder)?;
        let file = folder.join(if *program == PROGRAMS.client { "client.toml" } else { "server.toml" });
        std::fs::write(&file, text)?;
        let expected = format!("{}{place}", file.display());
        let mut by_bondctl = Command::new(PROGRAMS.bondctl);
        by_bondctl.arg("check").arg(&file);
        let mut by_check = Command::new(program);
        by_check.arg("--check").arg("--config").arg(&file);
        let mut by_run = Command::new(program);
        by_run.arg("--config").arg(&file);
        for command in [&mut by_bondctl, &mut by_check, &mut by_run] {
            let output = command.stdin(Stdio::null()).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(2), "{command:?} of\n{text}\n{}: {said}", output.status);
            ensure!(said.contains(&expected) && said.contains(word), "no {expected} with {word} in:\n{said}");
        }
    }
    let output = Command::new(PROGRAMS.client).args(["--config", "/nonexistent/client.toml"]).output()?;
    ensure!(output.status.code() == Some(2), "a missing file: {}", output.status);
    Ok(())
}

pub(crate) fn a_right_configuration_passes_the_check(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::configure(lab, PROGRAMS, Options::default())?;
    for (program, host) in [(PROGRAMS.client, Host::Client), (PROGRAMS.server, Host::Server)] {
        let file = bond.configuration(host);
        run(Command::new(program).arg("--check").arg("--config").arg(&file))?;
        run(Command::new(PROGRAMS.bondctl).arg("check").arg(&file))?;
    }
    Ok(())
}

/// `bondctl status --json` has the keys that scripts use, on both sides, with true values.
pub(crate) fn status_has_its_documented_shape(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    for host in [Host::Client, Host::Server] {
        let status = bond.status(host)?;
        has_keys(&status, "", "role session tunnel links flows reorder recovery discards")?;
        has_keys(&status, "/session", "state since peer cipher hybrid rekeys")?;
        has_keys(&status, "/tunnel", "interface address mtu")?;
        has_keys(&status, "/flows", "active realtime")?;
        has_keys(&status, "/reorder", "held released_late duplicates")?;
        has_keys(&status, "/recovery", "resent recovered fec_recovered lost")?;
        has_keys(&status, "/streams", "open opened refused tx_bytes rx_bytes credit_blocked_ms as_packets")?;
        has_keys(&status, "/streams/as_packets", "rule port peer server full")?;
        ensure!(status.pointer("/role") == Some(&Value::from(host.name())), "{status}");
        let links = status.pointer("/links").and_then(Value::as_array).context("links is no array")?;
        ensure!(links.len() == lab.scenario().links.len(), "{status}");
        for (index, (link, spec)) in links.iter().zip(&lab.scenario().links).enumerate() {
            let keys = "id name interface local remote state role priority score rtt_ms rtt_min_ms mtu loss_permille \
                        tx_mbps rx_mbps capacity_mbps utilisation tx_bytes rx_bytes queue_ms";
            has_keys(link, "", keys)?;
            ensure!(link.pointer("/id") == Some(&Value::from(index)), "{link}");
            // The client does not tell the server the names of its links.
            let name = if host == Host::Client { spec.name.clone() } else { format!("link{index}") };
            ensure!(link.pointer("/name") == Some(&Value::from(name)), "{link}");
            // The emulator never delivers early.
            let rtt_ms = link.pointer("/rtt_min_ms").and_then(Value::as_f64).context("no rtt_min_ms")?;
            ensure!(rtt_ms >= spec.rtt().as_secs_f64() * 1e3 - 0.5, "{link}");
        }
    }
    bond.stop()
}

fn has_keys(value: &Value, pointer: &str, keys: &str) -> anyhow::Result<()> {
    let object = value.pointer(pointer).and_then(Value::as_object);
    let object = object.with_context(|| format!("{pointer} is no object in {value}"))?;
    for key in keys.split_whitespace() {
        ensure!(object.contains_key(key), "no {pointer}/{key} in {value}");
    }
    Ok(())
}

/// The periodic reports have the two shapes for people and scripts; plain links cause a warning.
pub(crate) fn logs_have_their_documented_shape(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::plain())?;
    let links = lab.scenario().links.len();
    let report = |host: Host, title: &str| {
        let log = bond.log(host);
        let (_, report) = log.rsplit_once(title).with_context(|| format!("no {title} so far"))?;
        let lines: Vec<String> = report.lines().skip(1).take(links).map(str::to_owned).collect();
        ensure!(lines.len() == links, "{report}");
        anyhow::Ok(lines)
    };
    eventually("the client's report", || {
        for (index, line) in report(Host::Client, "=== Link Metrics ===")?.iter().enumerate() {
            let head = format!("  Link{index} (10.200.{index}.1) - RTT: ");
            let rest = line.strip_prefix(&head).with_context(|| format!("{head} in: {line}"))?;
            let parts = ["ms, BW: ", " Mbps (", "%), Score: "];
            ensure!(parts.iter().all(|part| rest.contains(part)), "{line}");
            ensure!(rest.contains(", Link: "), "{line}");
        }
        Ok(())
    })?;
    eventually("the server's report", || {
        for (index, line) in report(Host::Server, "=== Link Statistics ===")?.iter().enumerate() {
            let head = format!("  10.200.{index}.1:");
            let parts = [" - Packets: ", ", Bytes: ", ", Last seq: ", ", RTT: "];
            ensure!(line.starts_with(&head) && parts.iter().all(|part| line.contains(part)), "{line}");
            ensure!(line.contains("ms, Client: ") && line.contains(", Link: "), "{line}");
        }
        Ok(())
    })?;
    for host in [Host::Client, Host::Server] {
        let log = bond.log(host);
        ensure!(log.contains("WARN") && log.contains("plain"), "no warning of plain links:\n{log}");
    }
    bond.stop()
}

/// A running bond has the capabilities that it needs, in every thread, and cannot gain others; no
/// core file is written of it.
pub(crate) fn rights_are_reduced(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    for host in [Host::Client, Host::Server] {
        for thread in std::fs::read_dir(format!("/proc/{}/task", bond.process(host)?.id()))? {
            let status = std::fs::read_to_string(thread?.path().join("status"))?;
            // CAP_NET_ADMIN is bit 12, CAP_NET_RAW bit 13 (linux/capability.h).
            let set = if host == Host::Client { "0000000000003000" } else { "0000000000001000" };
            for line in [&format!("CapPrm:\t{set}"), &format!("CapEff:\t{set}"), "NoNewPrivs:\t1"] {
                ensure!(status.lines().any(|one| one == line), "{}: no {line:?} in:\n{status}", host.name());
            }
        }
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", bond.process(host)?.id()))?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size"));
        let core: Vec<&str> = core.context("no limit of core files")?.split_whitespace().collect();
        ensure!(core.ends_with(&["0", "0", "bytes"]), "{}: {limits}", host.name());
    }
    bond.stop()
}

/// A service manager learns that the server works, and goes on working. The server finds nft(8)
/// wherever the search path leads.
pub(crate) fn the_service_manager_is_told(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::configure(lab, PROGRAMS, Options::default())?;
    let socket = Path::new(FOLDER).join("notify");
    let manager = UnixDatagram::bind(&socket)?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let mut command = lab.host(Host::Server).command("env");
    command.args(["PATH=/nonexistent", PROGRAMS.server, "--config"]);
    command.arg(bond.configuration(Host::Server)).stdin(Stdio::null());
    command.stderr(std::fs::File::create(Path::new(FOLDER).join("server.log"))?);
    let _server = lab.spawn(command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "200000"))?;
    let mut told = [0; 64];
    for expected in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
        let length = manager.recv(&mut told).with_context(|| format!("no {expected}"))?;
        let said = String::from_utf8_lossy(told.get(..length).unwrap_or_default()).into_owned();
        ensure!(said == expected, "{said} in place of {expected}");
    }
    Ok(())
}

/// A sender that is not configured gets no answer, whatever it sends, and is counted.
pub(crate) fn strangers_get_no_answer(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start(lab, PROGRAMS, Options::plain())?;
    let before = strangers_counted(&bond)?;
    let answers = lab.host(Host::Internet).run(knock_everywhere)??;
    ensure!(answers == 0, "{answers} answers to a stranger");
    eventually("strangers are counted", || {
        let counted = strangers_counted(&bond)?.saturating_sub(before);
        ensure!(counted >= 5 * 3, "{counted} datagrams of strangers");
        Ok(())
    })?;
    // No datagram of those reached the session.
    bond.alive()?;
    bond.stop()
}

fn strangers_counted(bond: &Bond<'_>) -> anyhow::Result<u64> {
    let status = bond.status(Host::Server)?;
    Ok(status.pointer("/discards/unknown_peer").and_then(Value::as_u64).unwrap_or(0))
}

/// Sends a client's kinds of datagrams and noise to every listener; gives the number of answers.
fn knock_everywhere() -> anyhow::Result<usize> {
    // A data frame, a heartbeat without a payload, a heartbeat of the right length, noise.
    let mut heartbeat = vec![0, 0, 0, 0, 0, 0, 0, 1, 0x01, 0, 60, 1];
    heartbeat.resize(11 + 60, 0);
    let knocks: [&[u8]; 4] = [
        &[0, 0, 0, 0, 0, 0, 0, 1, 0x02, 0, 4, 0x45, 0, 0, 4],
        &[0, 0, 0, 0, 0, 0, 0, 1, 0x01, 0, 0],
        &heartbeat,
        b"\xde\xad\xbe\xef and more",
    ];
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    for port in 9_001..=9_005 {
        for knock in knocks {
            socket.send_to(knock, (addr::SERVER_EGRESS_V4, port))?;
        }
    }
    // The wire has no delay: an answer would come within a second.
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut answers = 0;
    while socket.recv(&mut [0; 2_048]).is_ok() {
        answers += 1;
    }
    Ok(answers)
}

/// Each side shows what the other sends. A link that is cut is told with its cause, on both sides,
/// by `bondctl events`.
pub(crate) fn both_sides_see_both_directions_and_what_happened(lab: &Lab) -> anyhow::Result<()> {
    const CUT: usize = 1;
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    for host in [Host::Client, Host::Server] {
        eventually("what the other side sends", || {
            let status = bond.status(host)?;
            let links = status.pointer("/links").and_then(Value::as_array).context("links is no array")?;
            for link in links {
                has_keys(link, "/peer", "told_ago_ms phase loss_permille tx_mbps capacity_mbps queue_ms")?;
            }
            Ok(())
        })?;
    }
    lab.cut(CUT);
    let name = &lab.scenario().links.get(CUT).context("the scenario has too few links")?.name;
    for (host, name) in [(Host::Client, name.clone()), (Host::Server, format!("link{CUT}"))] {
        eventually("the cut, with its cause", || {
            let events = bond.bondctl_of(host, &["events", "--json"])?;
            let events: Vec<Value> = events.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
            let of_link =
                events.iter().filter(|event| event.pointer("/link") == Some(&Value::from(name.as_str())));
            let kinds: Vec<(&str, &str)> = of_link
                .filter_map(|event| Some((event.get("kind")?.as_str()?, event.get("text")?.as_str()?)))
                .collect();
            ensure!(kinds.first().is_some_and(|(kind, _)| *kind == "link_up"), "{events:?}");
            let down = kinds.iter().find(|(kind, _)| *kind == "link_down").context("not down yet")?.1;
            ensure!(down.starts_with(&format!("{name} DOWN: ")) && down.len() > name.len() + 10, "{down}");
            Ok(())
        })?;
    }
    let status = bond.status(Host::Client)?;
    let summary = status.pointer("/summary").and_then(Value::as_str).context("no summary")?;
    ensure!(summary.contains(&format!("{name} is down")), "{summary}");
    let trouble = bond.status(Host::Server)?.pointer(&format!("/links/{CUT}/trouble")).cloned();
    ensure!(trouble.as_ref().and_then(Value::as_str).is_some(), "{trouble:?}");
    let text = bond.bondctl_of(Host::Server, &["events"])?;
    ensure!(text.contains(&format!("home: link{CUT} DOWN: ")), "{text}");
    bond.stop()
}
