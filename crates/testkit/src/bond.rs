//! The real `server` and `client`, configured for the links of a lab and running on its hosts.

use std::fmt::Write as _;
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bonding_lab::tools::Ping;
use bonding_lab::{Direction, Host, Lab, Process, Scenario, addr};
use bonding_proto::config::Security;
use bonding_proto::crypto::keys::{PrivateKey, PublicKey};
use rustix::process::Signal;
use serde_json::Value;

use crate::programs::Programs;
use crate::wait::{PATIENCE, eventually};

/// Where the files of a test go: in the sandbox this folder is in memory, empty, and not shared
/// with other programs.
pub const FOLDER: &str = "/run/bonding-test";

/// The client's default IPv4 address in the tunnel.
pub const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 50, 1));
/// The client's default IPv6 address in the tunnel.
pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2));
/// The server's default IPv4 address in the tunnel.
pub const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));
/// The server's default IPv6 address in the tunnel.
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1));
/// The default name of the device, on both hosts.
pub const TUNNEL: &str = "tun-bond";

/// How a bond is configured beyond its links.
#[derive(Debug, Clone)]
pub struct Options {
    /// The security of every link.
    pub security: Security,
    /// Further clients that the server accepts, by their keys.
    pub enrolled: Vec<PublicKey>,
    /// `[scheduler] policy`, on both sides.
    pub policy: &'static str,
    /// `[status] interval`.
    pub report_interval: &'static str,
    /// Whether the links' rates and the first link's priority are configured; if not, only their
    /// names.
    pub rates: bool,
    /// Whether losses are repaired (the default).
    pub recovery: bool,
    /// The server's `[routing] allow`.
    pub allow: &'static str,
    /// `[tcp] split`, of the client and of the server.
    pub split: [&'static str; 2],
    /// The client's `[[qos.rule]]` sections, as the file has them.
    pub rules: &'static str,
    /// `[compression] mode`, of the client and of the server.
    pub compression: [&'static str; 2],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            security: Security::Sealed,
            enrolled: Vec::new(),
            policy: "adaptive",
            report_interval: "1s",
            rates: true,
            recovery: true,
            // Tests measure to services on the server's host.
            allow: "[\"internet\", \"server\"]",
            split: ["auto", "auto"],
            rules: "",
            compression: ["auto", "auto"],
        }
    }
}

impl Options {
    /// The defaults, over plain links.
    pub fn plain() -> Self {
        Self { security: Security::Plain, ..Self::default() }
    }
}

/// Two links of 2 Mbit/s, over which compression is worth its while.
pub fn slow_pair() -> anyhow::Result<Scenario> {
    let link = |name: &str| format!("[[link]]\nname = \"{name}\"\nrate = \"2mbit\"\nrtt = \"40ms\"\n");
    let text = format!("name = \"slow-pair\"\ndescription = \"2 x 2 Mbit/s\"\n{}{}", link("a"), link("b"));
    Ok(Scenario::parse(&text, "slow-pair", None)?)
}

/// The private key of the process on `host`.
pub fn key(host: Host) -> PrivateKey {
    PrivateKey::from_bytes([if host == Host::Server { 7 } else { 8 }; 32])
}

/// The public key of the process on `host`, as configuration files have it.
pub fn public_key(host: Host) -> String {
    base64(&key(host).public().0)
}

/// Makes a key file.
pub fn write_key(path: &Path, key: &PrivateKey) -> anyhow::Result<()> {
    std::fs::write(path, base64(key.bytes()))?;
    Ok(std::fs::set_permissions(path, Permissions::from_mode(0o600))?)
}

/// A key in the encoding of the key files.
fn base64(bytes: &[u8; 32]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// A client and a server, running.
#[derive(Debug)]
pub struct Bond<'lab> {
    lab: &'lab Lab,
    programs: Programs,
    client: Option<Process>,
    server: Option<Process>,
    /// Both write a trace.
    is_traced: bool,
}

impl<'lab> Bond<'lab> {
    /// Starts both and waits until every link is proven.
    pub fn start(lab: &'lab Lab, programs: Programs, options: Options) -> anyhow::Result<Self> {
        let mut bond = Self::configure(lab, programs, options)?;
        bond.start_server()?;
        bond.start_client()?;
        bond.wait_until_up()?;
        Ok(bond)
    }

    /// The same; both write a trace, see [`Self::trace`].
    pub fn start_traced(lab: &'lab Lab, programs: Programs, options: Options) -> anyhow::Result<Self> {
        let mut bond = Self::configure(lab, programs, options)?;
        bond.is_traced = true;
        bond.start_server()?;
        bond.start_client()?;
        bond.wait_until_up()?;
        Ok(bond)
    }

    /// The trace of the process on `host`.
    pub fn trace(host: Host) -> PathBuf {
        file(host, "trace")
    }

    /// Starts a server with the defaults, except for the places of its files. No client runs yet.
    pub fn start_defaults(lab: &'lab Lab, programs: Programs) -> anyhow::Result<Self> {
        let mut bond = Self::empty(lab, programs)?;
        let mut text = String::new();
        identity_toml(&mut text, Host::Server)?;
        common_toml(&mut text, &Options::default(), Host::Server)?;
        std::fs::write(bond.configuration(Host::Server), text)?;
        bond.start_server()?;
        eventually("the server answers", || bond.status(Host::Server).map(drop))?;
        Ok(bond)
    }

    /// The same with a register of clients that enrolled before, and a tunnel in whose networks
    /// they have their addresses: the value of `[tunnel] address`.
    pub fn start_registered(
        lab: &'lab Lab,
        programs: Programs,
        register: &str,
        tunnel: &str,
    ) -> anyhow::Result<Self> {
        let mut bond = Self::empty(lab, programs)?;
        let mut text = String::new();
        identity_toml(&mut text, Host::Server)?;
        common_toml(&mut text, &Options::default(), Host::Server)?;
        writeln!(text, "[tunnel]\naddress = {tunnel}")?;
        std::fs::write(bond.configuration(Host::Server), text)?;
        std::fs::write(file(Host::Server, "clients"), register)?;
        bond.start_server()?;
        eventually("the server answers", || bond.status(Host::Server).map(drop))?;
        Ok(bond)
    }

    /// Starts both; the server knows the client's key and a secret that they share. The first link
    /// is plain.
    pub fn start_mixed(lab: &'lab Lab, programs: Programs) -> anyhow::Result<Self> {
        let mut bond = Self::empty(lab, programs)?;
        let keys = [Host::Client, Host::Server].map(|host| make_key(programs, &file(host, "key")));
        let [client_key, server_key] = keys;
        make_key(programs, &shared_secret())?;
        let secret = format!("preshared_key_file = \"{}\"\n", shared_secret().display());

        let mut text = String::new();
        writeln!(
            text,
            "[server]\nhost = \"{}\"\npublic_key = \"{}\"\n{secret}",
            addr::SERVER_V4,
            server_key?
        )?;
        identity_toml(&mut text, Host::Client)?;
        common_toml(&mut text, &Options::default(), Host::Client)?;
        for (index, link) in lab.scenario().links.iter().enumerate() {
            writeln!(text, "[[link]]\ninterface = \"{}\"", link.name)?;
            writeln!(text, "{}", if index == 0 { "security = \"plain\"" } else { "" })?;
        }
        std::fs::write(bond.configuration(Host::Client), text)?;

        let mut text = String::new();
        identity_toml(&mut text, Host::Server)?;
        common_toml(&mut text, &Options::default(), Host::Server)?;
        writeln!(text, "[[client]]\nname = \"home\"\npublic_key = \"{}\"\n{secret}", client_key?)?;
        writeln!(text, "address = [\"10.99.0.2\", \"{CLIENT_V6}\"]\n[[client.link]]\nsecurity = \"plain\"")?;
        writeln!(text, "remote = \"{}\"", addr::client_v4(0))?;
        std::fs::write(bond.configuration(Host::Server), text)?;
        bond.start_server()?;
        bond.start_client()?;
        Ok(bond)
    }

    /// Removes the shared secret of [`Self::start_mixed`] from the client's configuration.
    pub fn forget_shared_secret(&self) -> anyhow::Result<()> {
        let file = self.configuration(Host::Client);
        let text = std::fs::read_to_string(&file)?;
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("preshared_key_file")).collect();
        std::fs::write(&file, kept.join("\n"))?;
        Ok(())
    }

    /// Runs a `bondctl` command about clients on the server's host; gives its standard output.
    pub fn bondctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.bondctl_of(Host::Server, arguments)
    }

    /// Runs a `bondctl` command that asks the side on `host`; gives its standard output.
    pub fn bondctl_of(&self, host: Host, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.lab.host(host).command(self.programs.bondctl);
        run(command.args(arguments).arg("--socket").arg(file(host, "sock")))
    }

    /// Runs `bondctl cleanup` on the client's host as the service manager does after the client
    /// ended with this result.
    pub fn clean_up_client(&self, service_result: &str) -> anyhow::Result<()> {
        let mut command = self.lab.host(Host::Client).command(self.programs.bondctl);
        command.arg("cleanup").arg("--socket").arg(file(Host::Client, "sock"));
        run(command.env("SERVICE_RESULT", service_result)).map(drop)
    }

    /// Runs `bondctl rekey` on the client's host.
    pub fn rekey(&self) -> anyhow::Result<Output> {
        self.bondctl_on(Host::Client, &["rekey"])
    }

    /// Runs a `bondctl` command about the process on `host`, there.
    pub fn bondctl_on(&self, host: Host, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.lab.host(host).command(self.programs.bondctl);
        command.args(arguments).arg("--socket").arg(file(host, "sock")).stdin(Stdio::null());
        command.output().context("cannot start bondctl")
    }

    /// Runs `client join` on the client's host, with a key file of that name.
    pub fn join(&self, line: &str, key: &str) -> anyhow::Result<Output> {
        let mut command = self.lab.host(Host::Client).command(self.programs.client);
        command.args(["join", line, "--config"]).arg(self.configuration(Host::Client));
        command.arg("--key").arg(Path::new(FOLDER).join(key)).stdin(Stdio::null());
        command.output().context("cannot start the client")
    }

    /// The same; the line comes over standard input.
    pub fn join_by_input(&self, line: &str, key: &str) -> anyhow::Result<Output> {
        let file = Path::new(FOLDER).join("line");
        std::fs::write(&file, format!("{line}\n"))?;
        let mut command = self.lab.host(Host::Client).command(self.programs.client);
        command.args(["join", "-", "--config"]).arg(self.configuration(Host::Client));
        command.arg("--key").arg(Path::new(FOLDER).join(key)).stdin(File::open(file)?);
        command.output().context("cannot start the client")
    }

    /// Starts the client that joined, with its control socket in [`FOLDER`].
    pub fn start_joined(&mut self) -> anyhow::Result<()> {
        let file = self.configuration(Host::Client);
        let mut text = std::fs::read_to_string(&file)?;
        if !text.contains("[status]") {
            common_toml(&mut text, &Options::default(), Host::Client)?;
            std::fs::write(&file, text)?;
        }
        self.start_client()
    }

    /// Writes the configuration and starts nothing.
    pub fn configure(lab: &'lab Lab, programs: Programs, options: Options) -> anyhow::Result<Self> {
        let bond = Self::empty(lab, programs)?;
        for host in [Host::Client, Host::Server] {
            write_key(&file(host, "key"), &key(host))?;
        }
        std::fs::write(bond.configuration(Host::Client), client_toml(lab, &options)?)?;
        std::fs::write(bond.configuration(Host::Server), server_toml(lab, &options)?)?;
        Ok(bond)
    }

    /// Makes an empty [`FOLDER`]; files of an earlier bond are gone.
    fn empty(lab: &'lab Lab, programs: Programs) -> anyhow::Result<Self> {
        if Path::new(FOLDER).exists() {
            std::fs::remove_dir_all(FOLDER)?;
        }
        std::fs::create_dir_all(FOLDER).with_context(|| format!("cannot make {FOLDER}"))?;
        Ok(Self { lab, programs, client: None, server: None, is_traced: false })
    }

    /// The configuration file of the process on `host`.
    pub fn configuration(&self, host: Host) -> PathBuf {
        file(host, "toml")
    }

    /// Starts the server; does not wait for it.
    pub fn start_server(&mut self) -> anyhow::Result<()> {
        self.server = Some(self.spawn(self.programs.server, Host::Server)?);
        Ok(())
    }

    /// Starts the client; the routes of its host stay as they are.
    pub fn start_client_alone(&mut self) -> anyhow::Result<()> {
        self.client = Some(self.spawn(self.programs.client, Host::Client)?);
        Ok(())
    }

    /// Starts the client and sends all of its host's traffic into the tunnel.
    pub fn start_client(&mut self) -> anyhow::Result<()> {
        self.start_client_alone()?;
        // The user chooses the routes into the tunnel: here the default route.
        eventually("the client's tunnel", || {
            self.alive()?;
            let mut command = self.lab.host(Host::Client).command("ip");
            run(command.args(["route", "replace", "default", "dev", TUNNEL]))?;
            Ok(())
        })
    }

    fn spawn(&self, program: &str, host: Host) -> anyhow::Result<Process> {
        let log = File::options().create(true).append(true).open(file(host, "log"))?;
        let mut command = self.lab.host(host).command(program);
        command.arg("--config").arg(self.configuration(host));
        if self.is_traced {
            command.arg("--trace").arg(Self::trace(host));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(self.lab.spawn(&mut command)?)
    }

    /// Waits until both sides have proven every link and a ping is answered.
    pub fn wait_until_up(&self) -> anyhow::Result<()> {
        eventually("the bond comes up", || {
            self.alive()?;
            for host in [Host::Client, Host::Server] {
                let status = self.status(host)?;
                ensure!(status.pointer("/session/state") == Some(&Value::from("up")), "{}", host.name());
                let links = status.pointer("/links").and_then(Value::as_array).context("no links")?;
                let unproven = ["DOWN", "SUSPECT"].map(Value::from);
                let proven = |link: &&Value| link.get("state").is_some_and(|state| !unproven.contains(state));
                ensure!(links.iter().filter(proven).count() == self.lab.scenario().links.len(), "{status}");
            }
            Ok(())
        })
        .with_context(|| self.tails())?;
        eventually("a first answer through the tunnel", || {
            let report = Ping { count: 1, wait: Duration::from_secs(1), ..Ping::new(SERVER_V4) }
                .run(self.lab.host(Host::Client))?;
            ensure!(report.received == 1);
            Ok(())
        })
        .with_context(|| self.tails())
    }

    /// Fails, with the end of the log, if a process has ended.
    pub fn alive(&self) -> anyhow::Result<()> {
        for (host, process) in [(Host::Client, &self.client), (Host::Server, &self.server)] {
            if let Some(status) = process.as_ref().map(Process::try_wait).transpose()?.flatten() {
                bail!("the {} ended ({status}):\n{}", host.name(), tail(&self.log(host)));
            }
        }
        Ok(())
    }

    /// The process on `host`.
    pub fn process(&self, host: Host) -> anyhow::Result<&Process> {
        let process = if host == Host::Client { &self.client } else { &self.server };
        process.as_ref().with_context(|| format!("the {} is not running", host.name()))
    }

    /// Kills the process on `host` as a crash would.
    pub fn kill(&mut self, host: Host) -> anyhow::Result<()> {
        let process = if host == Host::Client { &mut self.client } else { &mut self.server };
        process.take().with_context(|| format!("the {} is not running", host.name()))?.kill()?;
        Ok(())
    }

    /// Ends both with SIGTERM; each must end with exit code 0 and have logged no panic.
    pub fn stop(self) -> anyhow::Result<()> {
        self.stop_with(Signal::TERM)
    }

    /// As [`Self::stop`], with another signal.
    pub fn stop_with(mut self, signal: Signal) -> anyhow::Result<()> {
        self.alive()?;
        for (host, process) in [(Host::Client, self.client.take()), (Host::Server, self.server.take())] {
            let Some(process) = process else { continue };
            process.signal(signal)?;
            let status = process.wait(PATIENCE)?;
            let status = status.with_context(|| format!("the {} does not end on {signal:?}", host.name()))?;
            ensure!(status.success(), "the {} ended ({status}):\n{}", host.name(), tail(&self.log(host)));
            ensure!(!self.log(host).contains("panicked"), "{}", self.log(host));
        }
        Ok(())
    }

    /// The answer of `bondctl status --json` for the process on `host`.
    pub fn status(&self, host: Host) -> anyhow::Result<Value> {
        let mut command = Command::new(self.programs.bondctl);
        command.args(["status", "--json", "--socket"]).arg(file(host, "sock")).stdin(Stdio::null());
        let output = command.output().context("cannot start bondctl")?;
        // Exit code 1 says that a link is down; the answer is complete nevertheless.
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!("no JSON ({}): {}", output.status, String::from_utf8_lossy(&output.stderr))
        })
    }

    /// The figure `key` of each link in the status of `host`, in the order of the links.
    pub fn link_figures(&self, host: Host, key: &str) -> anyhow::Result<Vec<u64>> {
        let status = self.status(host)?;
        let links = status.pointer("/links").and_then(Value::as_array).context("no links")?;
        links
            .iter()
            .map(|link| link.get(key).and_then(Value::as_u64).with_context(|| format!("no {key}: {link}")))
            .collect()
    }

    /// The state of one link as `host` sees it.
    pub fn link_state(&self, host: Host, index: usize) -> anyhow::Result<String> {
        let status = self.status(host)?;
        let state = status.pointer(&format!("/links/{index}/state")).and_then(Value::as_str);
        Ok(state.with_context(|| format!("no state of link {index}: {status}"))?.to_owned())
    }

    /// The whole log of the process on `host`.
    pub fn log(&self, host: Host) -> String {
        let bytes = std::fs::read(file(host, "log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn tails(&self) -> String {
        let (client, server) = (self.log(Host::Client), self.log(Host::Server));
        format!("the client's log:\n{}\nthe server's log:\n{}", tail(&client), tail(&server))
    }
}

/// A file of the process on `host`.
fn file(host: Host, kind: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{}.{kind}", host.name()))
}

/// The last lines of a log, for a message.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
}

/// Runs `command` to its end and gives its standard output; a failure has its standard error, too.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?} ({}):\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(stdout)
}

/// A link's ceiling in one direction in the configuration's form: the peak of a rate that varies.
fn rate(lab: &Lab, index: usize, direction: Direction) -> anyhow::Result<String> {
    let link = lab.scenario().links.get(index).context("no such link")?;
    let bps = link.pipe(direction).rate.peak_bps().context("an unlimited link needs no bond")?;
    Ok(format!("{}kbit", bps / 1_000))
}

fn client_toml(lab: &Lab, options: &Options) -> anyhow::Result<String> {
    let mut text = String::new();
    writeln!(text, "[server]\nhost = \"{}\"\nports = \"9001-9005\"", addr::SERVER_V4)?;
    let security = match options.security {
        Security::Plain => "plain",
        Security::Sealed => {
            writeln!(text, "public_key = \"{}\"", public_key(Host::Server))?;
            "sealed"
        }
    };
    writeln!(text)?;
    identity_toml(&mut text, Host::Client)?;
    writeln!(text, "[tunnel]\naddress = [\"{CLIENT_V4}/24\", \"{CLIENT_V6}/64\"]\n")?;
    common_toml(&mut text, options, Host::Client)?;
    for (index, link) in lab.scenario().links.iter().enumerate() {
        writeln!(
            text,
            "[[link]]\nname = \"{0}\"\ninterface = \"{0}\"\nsecurity = \"{security}\"",
            link.name
        )?;
        if !options.rates {
            writeln!(text)?;
            continue;
        }
        // The first link is the preferred one, as in a user's configuration.
        writeln!(text, "priority = {}", if index == 0 { 1 } else { 2 })?;
        let (up, down) = (rate(lab, index, Direction::Up)?, rate(lab, index, Direction::Down)?);
        writeln!(text, "up = \"{up}\"\ndown = \"{down}\"\n")?;
    }
    Ok(text)
}

fn server_toml(lab: &Lab, options: &Options) -> anyhow::Result<String> {
    let mut text = String::new();
    identity_toml(&mut text, Host::Server)?;
    common_toml(&mut text, options, Host::Server)?;
    writeln!(text, "[routing]\nallow = {}\n", options.allow)?;
    writeln!(text, "[[client]]\nname = \"home\"\naddress = [\"{CLIENT_V4}\", \"{CLIENT_V6}\"]")?;
    if options.security == Security::Sealed {
        writeln!(text, "public_key = \"{}\"\n", public_key(Host::Client))?;
        for (number, key) in (0_u8..).zip(&options.enrolled) {
            writeln!(text, "[[client]]\nname = \"more{number}\"\naddress = \"10.99.1.{number}\"")?;
            writeln!(text, "public_key = \"{}\"\n", base64(&key.0))?;
        }
        return Ok(text);
    }
    for (index, link) in (0..).zip(&lab.scenario().links) {
        writeln!(text, "[[client.link]]\nname = \"{}\"\nsecurity = \"plain\"", link.name)?;
        writeln!(text, "remote = \"{}\"", addr::client_v4(index))?;
        if options.rates {
            writeln!(text, "down = \"{}\"", rate(lab, usize::from(index), Direction::Down)?)?;
        }
        writeln!(text)?;
    }
    Ok(text)
}

fn shared_secret() -> PathBuf {
    Path::new(FOLDER).join("shared.key")
}

/// Makes a private key with `bondctl`; gives its public key.
fn make_key(programs: Programs, path: &Path) -> anyhow::Result<String> {
    let private = run(Command::new(programs.bondctl).arg("genkey"))?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(private.as_bytes())?;
    let mut pubkey = Command::new(programs.bondctl);
    let output = pubkey.arg("pubkey").stdin(File::open(path)?).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The key file's place: in the sandbox, like all state.
fn identity_toml(text: &mut String, host: Host) -> anyhow::Result<()> {
    writeln!(text, "[identity]\nprivate_key_file = \"{}\"\n", file(host, "key").display())?;
    Ok(())
}

fn common_toml(text: &mut String, options: &Options, host: Host) -> anyhow::Result<()> {
    writeln!(text, "[scheduler]\npolicy = \"{}\"\n", options.policy)?;
    let [client, server] = options.split;
    let split = if host == Host::Client { client } else { server };
    writeln!(text, "[tcp]\nsplit = \"{split}\"\n")?;
    if host == Host::Client {
        writeln!(text, "{}\n", options.rules)?;
    }
    let [client, server] = options.compression;
    let mode = if host == Host::Client { client } else { server };
    writeln!(text, "[compression]\nmode = \"{mode}\"\n")?;
    if !options.recovery {
        writeln!(text, "[recovery]\nresend = false\nfec = \"off\"\n")?;
    }
    let socket = file(host, "sock");
    writeln!(
        text,
        "[status]\nsocket = \"{}\"\ninterval = \"{}\"\n",
        socket.display(),
        options.report_interval
    )?;
    Ok(())
}
