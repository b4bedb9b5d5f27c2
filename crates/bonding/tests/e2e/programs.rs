//! Programs that people use, unchanged, through connections that end at the bond.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bonding_lab::{Host, HostRef, Lab, addr};
use bonding_testkit::bond::{Bond, Options, run};
use bonding_testkit::wait::{PATIENCE, eventually};
use bonding_testkit::web::{noise, text};

use crate::PROGRAMS;
use crate::streams::{figure, none_is_open, opened};
use crate::traffic::{folder, sha256};

const HTTPS_PORT: u16 = 443;
const RSYNC_PORT: u16 = 873;
/// No port that goes as packets.
const SSH_PORT: u16 = 2_022;
const IDLE_PORT: u16 = 7_000;
/// Bytes of the files. Chosen: some round trips of all links.
const FILE_BYTES: usize = 3 << 20;
/// The idle connection says nothing for this long at least. Chosen: above what a codec is kept for.
const IDLE: Duration = Duration::from_secs(12);

/// A server on the internet host; ends when dropped.
struct Daemon(Child);

impl Daemon {
    /// Starts it, and waits until its port answers.
    fn start(lab: &Lab, mut command: Command, port: u16) -> anyhow::Result<Self> {
        let host = lab.host(Host::Internet);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let daemon = Self(child.with_context(|| format!("cannot start {command:?}"))?);
        eventually("the server listens", || Ok(host.run(|| TcpStream::connect(at(port)))?.map(drop)?))?;
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((addr::INTERNET_V4, port))
}

/// A command of words, some of them paths.
fn words(host: HostRef, words: &str) -> Command {
    let mut words = words.split(' ');
    let mut command = host.command(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// What the servers have, and where the clients put it.
struct Files {
    served: PathBuf,
    got: PathBuf,
}

impl Files {
    fn make() -> anyhow::Result<Self> {
        let (served, got) = (folder("served"), folder("got-by-programs"));
        std::fs::create_dir_all(served.join("work"))?;
        std::fs::create_dir_all(&got)?;
        std::fs::write(served.join("noise"), noise(FILE_BYTES))?;
        for part in 0..20 {
            let page = text(100_000 + part * 1_000)?;
            std::fs::write(served.join("work").join(format!("page-{part}")), page)?;
        }
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.current_dir(served.join("work")).env("HOME", &served).args(["-c", "user.name=A"]);
            run(git.args(["-c", "user.email=a@example.net", "-c", "init.defaultBranch=main"]).args(arguments))
        };
        git(&["init", "-q"])?;
        git(&["add", "."])?;
        git(&["commit", "-q", "-m", "Pages"])?;
        Ok(Self { served, got })
    }

    fn served(&self, name: &str) -> String {
        self.served.join(name).display().to_string()
    }

    fn got(&self, name: &str) -> String {
        self.got.join(name).display().to_string()
    }

    /// A file came whole.
    fn is_whole(&self, name: &str) -> anyhow::Result<()> {
        ensure!(sha256(&self.served.join("noise"))? == sha256(&self.got.join(name))?, "{name} differs");
        Ok(())
    }
}

/// Two files by `curl` at a time, over HTTPS and HTTP/2.
fn curl(lab: &Lab, files: &Files) -> anyhow::Result<()> {
    let (key, certificate) = (files.served("key"), files.served("certificate"));
    let request = format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=internet -keyout \
         {key} -out {certificate}"
    );
    run(Command::new("openssl").args(request.split(' ')))?;
    let (host, served) = (lab.host(Host::Internet), files.served.display());
    let server = words(host, &format!("nghttpd -d {served} {HTTPS_PORT} {key} {certificate}"));
    let _server = Daemon::start(lab, server, HTTPS_PORT)?;
    let options = "-sS --fail --insecure --http2 --parallel --max-time 60";
    let mut curl = words(lab.host(Host::Client), &format!("curl {options}"));
    curl.args(["--write-out", "%{http_version} "]);
    for name in ["by-http2", "by-http2-too"] {
        let url = format!("https://{}/noise", addr::INTERNET_V4);
        curl.args(["--output", &files.got(name), &url]);
    }
    let versions = run(&mut curl)?;
    ensure!(versions == "2 2 ", "HTTP/{versions}");
    files.is_whole("by-http2")?;
    files.is_whole("by-http2-too")
}

/// `rsync` from a server of its own.
fn rsync(lab: &Lab, files: &Files) -> anyhow::Result<()> {
    let configuration = files.served.join("rsyncd.conf");
    let served = files.served.display();
    std::fs::write(
        &configuration,
        format!("use chroot = no\n[served]\npath = {served}\nuid = 0\ngid = 0\n"),
    )?;
    let configuration = configuration.display();
    let server = format!(
        "rsync --daemon --no-detach --config={configuration} --port={RSYNC_PORT} --log-file=/dev/null"
    );
    let _server = Daemon::start(lab, words(lab.host(Host::Internet), &server), RSYNC_PORT)?;
    let source = format!("rsync://{}:{RSYNC_PORT}/served", at(RSYNC_PORT).ip());
    let target = files.got("mirror");
    run(&mut words(lab.host(Host::Client), &format!("rsync -a {source}/work {source}/noise {target}/")))?;
    files.is_whole("mirror/noise")?;
    run(Command::new("diff").args(["-r", &files.served("work"), &files.got("mirror/work")]))?;
    Ok(())
}

/// `ssh`, `scp` and `git clone`: a server that speaks first, small messages both ways, and files
/// both ways.
fn ssh(lab: &Lab, files: &Files) -> anyhow::Result<()> {
    let keys = [files.served("host-key"), files.got("user-key")];
    run(Command::new("dropbearkey").args(["-t", "ecdsa", "-f", &keys[0]]))?;
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &keys[1]]))?;
    // The server takes keys from root's home, so it gets another one, which no other test sees.
    let script = "mount -t tmpfs none \"$HOME\" && mkdir -m 700 \"$HOME/.ssh\" && chmod 700 \"$HOME\" && \
                  printf '%s' \"$3\" > \"$HOME/.ssh/authorized_keys\" && exec dropbear -F -E -s -r \"$1\" -p \"$2\"";
    let mut server = lab.host(Host::Internet).command("unshare");
    let public = std::fs::read_to_string(format!("{}.pub", keys[1]))?;
    let port = SSH_PORT.to_string();
    server.args(["--mount", "sh", "-c", script, "dropbear", &keys[0], &port, &public]);
    server.env("HOME", "/root").stderr(Stdio::null());
    let _server = Daemon::start(lab, server, SSH_PORT)?;

    let options = format!(
        "-q -F none -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes",
        keys[1]
    );
    let (host, client) = (format!("root@{}", addr::INTERNET_V4), lab.host(Host::Client));
    let mut said = words(client, &format!("ssh {options} -p {SSH_PORT} {host}"));
    ensure!(run(said.arg("for word in one two three; do echo $word; done"))? == "one\ntwo\nthree\n", "ssh");
    let noise = files.served("noise");
    let scp = format!("scp -O {options} -P {SSH_PORT}");
    run(&mut words(client, &format!("{scp} {host}:{noise} {}", files.got("by-scp"))))?;
    files.is_whole("by-scp")?;
    run(&mut words(client, &format!("{scp} {} {host}:{}", files.got("by-scp"), files.got("back-by-scp"))))?;
    files.is_whole("back-by-scp")?;

    let (clone, work) = (files.got("clone"), files.served("work"));
    // The server's shell may look for git elsewhere.
    let programs = run(Command::new("git").arg("--exec-path"))?;
    let mut git = words(client, "git clone -q --upload-pack");
    git.arg(format!("{}/git-upload-pack", programs.trim()));
    git.args([format!("ssh://{host}:{SSH_PORT}{work}"), clone.clone()]);
    run(git.env("HOME", &files.got).env("GIT_SSH_COMMAND", format!("ssh {options}")))?;
    run(Command::new("git").args(["-C", &clone, "fsck", "--full", "--strict"]))?;
    let head = |folder: &str| run(Command::new("git").args(["-C", folder, "rev-parse", "HEAD"]));
    ensure!(head(&clone)? == head(&work)?, "another commit was cloned");
    Ok(())
}

/// A connection that says nothing for long.
struct Idle {
    near: TcpStream,
    far: TcpStream,
    since: Instant,
}

impl Idle {
    fn start(lab: &Lab) -> anyhow::Result<Self> {
        let listener = lab.host(Host::Internet).run(|| TcpListener::bind(at(IDLE_PORT)))??;
        let near = lab.host(Host::Client).run(|| TcpStream::connect_timeout(&at(IDLE_PORT), PATIENCE))??;
        let (far, _) = listener.accept()?;
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(PATIENCE))?;
            // Its kernel asks every second whether the other one is there.
            let keep_alive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(1));
            let keep_alive = keep_alive.with_interval(Duration::from_secs(1)).with_retries(2);
            socket2::SockRef::from(socket).set_tcp_keepalive(&keep_alive)?;
        }
        let mut idle = Self { near, far, since: Instant::now() };
        idle.says("hello")?;
        Ok(idle)
    }

    /// Both ends hear of the other.
    fn says(&mut self, what: &str) -> anyhow::Result<()> {
        for (from, to) in [(&self.near, &self.far), (&self.far, &self.near)] {
            let (mut from, mut to, mut got) = (from, to, vec![0; what.len()]);
            from.write_all(what.as_bytes())?;
            to.read_exact(&mut got)?;
            ensure!(got == what.as_bytes());
        }
        Ok(())
    }

    fn goes_on(mut self) -> anyhow::Result<()> {
        std::thread::sleep(IDLE.saturating_sub(self.since.elapsed()));
        self.says("still here")
    }
}

/// The programs, and the Debian packages that bring them (`xtask/prerequisites-test.txt`).
const PACKAGES: [(&str, &str); 6] = [
    ("git", "git"),
    ("ssh", "openssh-client"),
    ("dropbear", "dropbear-bin"),
    ("nghttpd", "nghttp2-server"),
    ("openssl", "openssl"),
    ("rsync", "rsync"),
];

/// Each of them over streams, and nothing differs from what the servers have.
pub(crate) fn real_programs_work_unchanged(lab: &Lab) -> anyhow::Result<()> {
    for (program, package) in PACKAGES {
        ensure!(bonding_lab::find(program).is_some(), "{program} is missing: apt-get install {package}");
    }
    let bond = Bond::start(lab, PROGRAMS, Options::default())?;
    let files = Files::make()?;
    let idle = Idle::start(lab)?;
    opened(&bond, 1)?;
    type Step = fn(&Lab, &Files) -> anyhow::Result<()>;
    let steps: [(&str, Step, u64); 3] = [("curl", curl, 1), ("rsync", rsync, 1), ("ssh", ssh, 4)];
    let mut least = 1;
    for (name, step, connections) in steps {
        step(lab, &files).context(name)?;
        least += connections;
        let opened = figure(&bond, Host::Client, "opened")?;
        ensure!(opened >= least, "{name} went as packets: {opened} streams so far");
    }
    idle.goes_on().context("the idle connection")?;
    let refused = figure(&bond, Host::Client, "refused")?;
    ensure!(refused == 0, "{refused} connections were refused");
    none_is_open(&bond)?;
    bond.stop()
}
