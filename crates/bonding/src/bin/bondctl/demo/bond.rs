//! The bond between the two hosts of a lab: its configuration files and its two processes.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bonding_lab::addr::{INTERNET_V4, SERVER_V4};
use bonding_lab::{Direction, Host, Lab, Process, Scenario};
use bonding_proto::crypto::keys::PublicKey;

use bonding::control::{Ask, Request};
use bonding::state::keys;
use bonding::status::Status;

/// The client's address in the tunnel: the server leases it.
const CLIENT_ADDRESS: &str = "10.99.0.2";
/// From a process's start to the first usable link. Chosen: a heartbeat on the slowest link, on a
/// slow machine.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two checks whether a link is usable. Chosen: not noticed by a person.
const POLL: Duration = Duration::from_millis(50);

/// The folder of a lab's bond. It goes with the sandbox, which has a `/run` of its own.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    folder: PathBuf,
}

impl Files {
    /// Writes client.toml and server.toml for the links of `scenario`, and a key for each.
    pub(crate) fn write(folder: &Path, scenario: &Scenario) -> anyhow::Result<Self> {
        let files = Self { folder: folder.to_owned() };
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let client = keys::load_or_make(&files.key("client"))?.0.public();
        let server = keys::load_or_make(&files.key("server"))?.0.public();
        for (path, text) in [
            (files.client(), files.client_text(scenario, &server)),
            (files.server(), files.server_text(&client)),
        ] {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(files)
    }

    pub(crate) fn client(&self) -> PathBuf {
        self.folder.join("client.toml")
    }

    pub(crate) fn server(&self) -> PathBuf {
        self.folder.join("server.toml")
    }

    /// The client's control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("client.sock")
    }

    fn key(&self, name: &str) -> PathBuf {
        self.folder.join(name).with_extension("key")
    }

    fn client_text(&self, scenario: &Scenario, server: &PublicKey) -> String {
        let mut text = format!(
            "# The links of the scenario \"{}\".\n[server]\nhost = \"{SERVER_V4}\"\npublic_key = \"{}\"\n\n\
             [identity]\nprivate_key_file = \"{}\"\n\n[status]\nsocket = \"{}\"\n",
            scenario.name,
            keys::show(server),
            self.key("client").display(),
            self.socket().display()
        );
        let rtt_min = scenario.links.iter().map(|link| link.rtt()).min();
        for link in &scenario.links {
            // As a user of these links would choose: the quickest first, even if it is slow.
            let priority = if Some(link.rtt()) == rtt_min { 1 } else { 2 };
            append(
                &mut text,
                format_args!(
                    "\n[[link]]\nname = \"{0}\"\ninterface = \"{0}\"\npriority = {priority}\n",
                    link.name
                ),
            );
            for (key, direction) in [("up", Direction::Up), ("down", Direction::Down)] {
                if let Some(bps) = link.pipe(direction).rate.peak_bps() {
                    append(&mut text, format_args!("{key} = \"{bps}bit\"\n"));
                }
            }
        }
        text
    }

    fn server_text(&self, client: &PublicKey) -> String {
        format!(
            "[identity]\nprivate_key_file = \"{}\"\n\n[status]\nsocket = \"{}\"\n\n\
             [[client]]\nname = \"home\"\naddress = \"{CLIENT_ADDRESS}\"\npublic_key = \"{}\"\n",
            self.key("server").display(),
            self.folder.join("server.sock").display(),
            keys::show(client),
        )
    }
}

fn append(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(line);
}

/// SIGINT or SIGTERM ended the demonstration.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// The running client and server. Both end when it is dropped.
#[derive(Debug)]
pub(crate) struct Bond {
    client: Process,
    server: Process,
    files: Files,
    ask: Ask,
}

impl Bond {
    /// Starts both programs on their hosts, routes the internet host over the tunnel, and returns
    /// when a link is usable. `interrupted` ends the wait.
    pub(crate) fn start(lab: &Lab, files: &Files, interrupted: &dyn Fn() -> bool) -> anyhow::Result<Self> {
        let server = spawn(lab, Host::Server, "server", &files.server())?;
        let client = spawn(lab, Host::Client, "client", &files.client())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            for (name, process) in [("server", &server), ("client", &client)] {
                if let Some(status) = process.try_wait()? {
                    bail!("{name} ended ({status}): {}", last_words(&files.folder, name));
                }
            }
            if let Ok(mut ask) = Ask::connect(&files.socket())
                && status(&mut ask)?.session.state == "up"
            {
                route_internet(lab)?;
                return Ok(Self { client, server, files: files.clone(), ask });
            }
            if interrupted() {
                return Err(Interrupted.into());
            }
            if Instant::now() > deadline {
                bail!("no link is up after {PATIENCE:?}: {}", last_words(&files.folder, "client"));
            }
            std::thread::sleep(POLL);
        }
    }

    /// The client's status.
    pub(crate) fn status(&mut self) -> anyhow::Result<Status> {
        status(&mut self.ask)
    }

    /// Fails when one of the programs has ended.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for (name, process) in [("client", &self.client), ("server", &self.server)] {
            if let Some(status) = process.try_wait()? {
                bail!("{name} ended ({status}): {}", last_words(&self.files.folder, name));
            }
        }
        Ok(())
    }

    /// Resident memory of client and server now, in bytes; `None` where the kernel does not tell.
    pub(crate) fn memory_bytes(&self) -> [Option<u64>; 2] {
        [&self.client, &self.server].map(|process| {
            let status = fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1_024)
        })
    }
}

fn status(ask: &mut Ask) -> anyhow::Result<Status> {
    serde_json::from_str(&ask.ask(&Request::Status)?).context("client and bondctl are of different versions")
}

/// A program that stands beside this one.
pub(crate) fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    // Packages install it under its long name.
    let found = [name.to_owned(), format!("bonding-{name}")]
        .into_iter()
        .map(|name| own.with_file_name(name))
        .find(|path| path.is_file());
    found.with_context(|| {
        let folder = own.parent().unwrap_or(Path::new("/")).display().to_string();
        format!("there is no {name} beside bondctl in {folder}; build all with: cargo build --release -p bonding --bins")
    })
}

fn spawn(lab: &Lab, host: Host, name: &str, config: &Path) -> anyhow::Result<Process> {
    let log = config.with_file_name(format!("{name}.log"));
    let log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = lab.host(host).command(sibling(name)?);
    command.arg("--config").arg(config).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Ok(lab.spawn(&mut command)?)
}

/// The end of a program's log, for the message about its failure.
fn last_words(folder: &Path, name: &str) -> String {
    let log = fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines.get(lines.len().saturating_sub(4)..).unwrap_or(&[]).join("; ")
}

fn route_internet(lab: &Lab) -> anyhow::Result<()> {
    let mut command = lab.host(Host::Client).command("ip");
    command.args([
        "route",
        "replace",
        &format!("{INTERNET_V4}/32"),
        "dev",
        "tun-bond",
        "src",
        CLIENT_ADDRESS,
    ]);
    let output = command.output().context("cannot run ip")?;
    if !output.status.success() {
        bail!("ip route failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bonding::config;

    #[test]
    fn the_files_of_every_scenario_are_valid() {
        for name in bonding_netem::scenario::builtin_names() {
            let scenario = bonding_netem::scenario::builtin(name).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let files = Files::write(folder.path(), &scenario).unwrap();
            let client = config::load_client(&files.client()).unwrap();
            assert_eq!(client.config.links.len(), scenario.links.len());
            assert_eq!(client.config.status.socket, files.socket());
            assert_eq!(client.warnings, [], "{name}");
            let server = config::load_server(&files.server()).unwrap();
            assert_eq!(server.config.clients.len(), 1);
            assert_eq!(server.warnings, [], "{name}");
        }
    }
}
