//! `client` and `server`: from the command line to the running engine, and the work beside it on
//! its thread.
//!
//! [`Daemon`] is the engine's [`Service`]: it answers the control socket, logs the reports, checks
//! a changed file, and tells the service manager that it lives.
#![expect(clippy::print_stdout, reason = "the answers to --check and join belong on standard output")]

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use bonding_os::notify::Notifier;
use bonding_os::privileges::Rights;
use bonding_proto::Discard;
use clap::{Parser, Subcommand};

use super::answers::{Answering, Listing};
use super::check;
use super::join::JoinArguments;
use super::reload::{Configuration, Read};
use crate::config::{self, Loaded, Problems, Security};
use crate::control::Control;
use crate::engine::reload::NewPlan;
use crate::engine::{Running, Service};
use crate::events::{Happening, Ring};
use crate::status::{Role, SessionSnapshot, Snapshot};
use crate::trace::options::TraceOptions;
use crate::{client, logs, server};

/// The bond's near end: sends the packets that are routed to its tunnel over all links at once.
///
/// Runs in the foreground until SIGINT or SIGTERM and then leaves nothing behind. Needs root, or
/// CAP_NET_ADMIN and CAP_NET_RAW.
#[derive(Debug, Parser)]
#[command(name = "bonding-client", version, after_help = CLIENT_EXAMPLES, args_conflicts_with_subcommands = true)]
struct ClientOptions {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = config::CLIENT_FILE)]
    config: PathBuf,
    /// Only check the configuration: exit 0 if it is valid, 2 if not
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    trace: TraceOptions,
    #[command(subcommand)]
    command: Option<ClientCommand>,
}

#[derive(Debug, Subcommand)]
enum ClientCommand {
    /// Enrol this machine with an invitation, and write its configuration
    ///
    /// Makes a private key (or uses the present one), shows the invitation to the server, and
    /// writes a configuration with which links are found by themselves. A configuration is
    /// overwritten only with --force, a key never.
    #[command(after_help = super::join::EXAMPLES)]
    Join(JoinArguments),
}

const CLIENT_EXAMPLES: &str = "\
Examples:
  bonding-client join 'bond://…'          once: enrol this machine, write /etc/bonding/client.toml
  bonding-client                          run on /etc/bonding/client.toml
  bonding-client -c test.toml --check     say what is wrong with a file, line by line
  RUST_LOG=debug bonding-client           with more logs
  bonding-client --trace /tmp/bond.trace  record its decisions; `bondctl trace` prints them
  bondctl status                          (elsewhere) see what the links do";

/// The bond's far end: receives over all links, forwards to the internet.
///
/// Runs in the foreground until SIGINT or SIGTERM and then leaves nothing behind. Needs root, or
/// CAP_NET_ADMIN.
#[derive(Debug, Parser)]
#[command(name = "bonding-server", version, after_help = SERVER_EXAMPLES)]
struct ServerOptions {
    /// Configuration file [default: /etc/bonding/server.toml if it exists, else built-in defaults]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only check the configuration: exit 0 if it is valid, 2 if not
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    trace: TraceOptions,
}

const SERVER_EXAMPLES: &str = "\
Examples:
  bonding-server                          run on /etc/bonding/server.toml, or on defaults without it
  bondctl invite home                     (elsewhere) invite a client
  bonding-server -c test.toml --check     say what is wrong with a file, line by line
  RUST_LOG=debug bonding-server           with more logs
  bonding-server --trace /tmp/bond.trace  record its decisions; `bondctl trace` prints them
  bondctl status                          (elsewhere) see what the links do";

/// The warning about plain links, at every start.
const PLAIN_NOTICE: &str = "plain links are not protected: anyone on the path can read, change and inject their packets; \
                            use them only inside networks that are private already";

/// The program `client`.
pub fn client() -> ExitCode {
    let options = ClientOptions::parse();
    super::exit_code(run_client(&options))
}

/// The program `server`.
pub fn server() -> ExitCode {
    let options = ServerOptions::parse();
    super::exit_code(run_server(&options))
}

fn run_client(options: &ClientOptions) -> anyhow::Result<ExitCode> {
    if let Some(ClientCommand::Join(arguments)) = &options.command {
        bonding_os::privileges::hide_memory().context("cannot hide this process's memory")?;
        print!("{}", super::join::run(arguments)?);
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = config::load_client(&options.config)?;
    if options.check {
        return Ok(checked(&loaded));
    }
    let config = &loaded.config;
    let plain = config.links.iter().filter(|link| link.security == Security::Plain);
    let names = plain.map(|link| link.name.as_str());
    let mut daemon =
        Daemon::start(&loaded, &config.status.socket, client::RIGHTS, names.collect(), read_client)?;
    let mut plan = config.plan();
    plan.run.trace = options.trace.plan();
    client::run(&plan, &mut daemon)?;
    Ok(ExitCode::SUCCESS)
}

fn run_server(options: &ServerOptions) -> anyhow::Result<ExitCode> {
    let default = Path::new(config::SERVER_FILE);
    let file = options.config.as_deref().or_else(|| default.exists().then_some(default));
    let loaded = match file {
        Some(file) => config::load_server(file)?,
        None => Loaded { config: config::server_defaults(), file: String::new(), warnings: Vec::new() },
    };
    if options.check {
        if let Some(line) = check::beside_register(&loaded)? {
            eprintln!("{line}");
        }
        return Ok(checked(&loaded));
    }
    let config = &loaded.config;
    let plain = config.clients.iter().flat_map(|client| &client.links).filter(|link| link.remote.is_some());
    let names = plain.map(|link| link.name.as_str());
    let mut daemon =
        Daemon::start(&loaded, &config.status.socket, server::RIGHTS, names.collect(), read_server)?;
    let mut plan = config.plan();
    plan.run.trace = options.trace.plan();
    server::run(&plan, &mut daemon)?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a client's file again.
fn read_client(file: &Path) -> Result<Read, Problems> {
    let loaded = config::load_client(file)?;
    Ok((NewPlan::Client(Box::new(loaded.config.plan())), loaded.warning_lines().collect()))
}

/// Reads a server's file again.
fn read_server(file: &Path) -> Result<Read, Problems> {
    let loaded = config::load_server(file)?;
    Ok((NewPlan::Server(Box::new(loaded.config.plan())), loaded.warning_lines().collect()))
}

/// The answer to `--check` for a file that is valid.
fn checked<T>(loaded: &Loaded<T>) -> ExitCode {
    for line in loaded.warning_lines() {
        eprintln!("{line}");
    }
    let file = if loaded.file.is_empty() { "built-in defaults" } else { &loaded.file };
    println!("{file}: valid");
    ExitCode::SUCCESS
}

/// The work beside the engine.
struct Daemon {
    control: Control<Listing>,
    configuration: Configuration,
    /// What happened lately.
    ring: Ring,
    /// Reports in a row without a session.
    silent_reports: u32,
    /// Where a service manager waits.
    notifier: Option<Notifier>,
}

/// Reports of a client without a session after which it logs a hint. Chosen: 15 s at the default
/// interval.
const SILENT_REPORTS: u32 = 3;

impl Daemon {
    /// Sets up logs and the control socket, and logs the warnings.
    fn start<T>(
        loaded: &Loaded<T>,
        socket: &Path,
        rights: Rights,
        plain_links: Vec<&str>,
        read: fn(&Path) -> Result<Read, Problems>,
    ) -> anyhow::Result<Self> {
        logs::init()?;
        bonding_os::privileges::check(rights)?;
        // Before any warning: a second instance says only that another one runs.
        let control = Control::bind(socket)?;
        for warning in &loaded.warnings {
            tracing::warn!("{}:{}: {}", loaded.file, warning.line, warning.message);
        }
        if !plain_links.is_empty() {
            tracing::warn!(links = plain_links.join(", "), "{PLAIN_NOTICE}");
        }
        let configuration = Configuration::new(loaded, read);
        let notifier = Notifier::from_environment().context("NOTIFY_SOCKET")?;
        Ok(Self { control, configuration, ring: Ring::default(), silent_reports: 0, notifier })
    }
}

impl Service for Daemon {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.control.as_fd())
    }

    fn handle_start(&mut self) {
        if let Some(notifier) = &self.notifier {
            notifier.ready();
        }
    }

    fn due_in(&self) -> Option<Duration> {
        let notifier = self.notifier.as_ref().and_then(Notifier::due_in);
        notifier.into_iter().chain(self.control.due_in()).min()
    }

    fn handle_due(&mut self) {
        if let Some(notifier) = &mut self.notifier {
            notifier.alive();
        }
        self.control.handle_due();
    }

    fn handle_ready(&mut self, running: &mut dyn Running) {
        let Self { control, configuration, ring, .. } = self;
        control.handle_ready(&mut Answering { running, configuration, ring });
    }

    fn handle_happening(&mut self, happening: Happening) {
        self.ring.push(happening, SystemTime::now());
    }

    fn is_push_due(&self) -> bool {
        self.control.is_push_due(self.ring.newest())
    }

    fn push(&mut self, running: &mut dyn Running) {
        let Self { control, configuration, ring, .. } = self;
        control.push(&mut Answering { running, configuration, ring });
    }

    fn handle_interval(&mut self, snapshot: &Snapshot) {
        for report in snapshot.reports() {
            logs::report(&report);
        }
        let silent =
            snapshot.role == Role::Client && !snapshot.sessions.iter().any(|one| one.stats.connected);
        self.silent_reports = if silent { self.silent_reports.saturating_add(1) } else { 0 };
        if self.silent_reports == SILENT_REPORTS {
            let unread = |one: &SessionSnapshot| one.stats.discards.of(Discard::Unauthenticated) > 0;
            if snapshot.sessions.iter().any(unread) {
                tracing::warn!(
                    "answers come that this client's keys do not open: the server shares another pre-shared key with it, or \
                     none. If the client's state was lost or is an old copy, `bondctl revoke` it on the server and invite it again"
                );
            } else {
                tracing::warn!(
                    "still no answer from the server: is it running and reachable over UDP, and does `bondctl clients` there \
                     know this client? The server does not answer unknown clients"
                );
            }
        }
    }

    fn handle_reload(&mut self, running: &mut dyn Running) {
        // It is in the log.
        let _ = self.configuration.reload(running);
    }
}
