//! `client` and `server`: from the command line to the running engine, and what runs beside it on its thread.
//!
//! [`Daemon`] is the engine's [`Service`]: it answers the control socket, logs the reports, and says what becomes of a
//! changed file.
#![expect(clippy::print_stdout, reason = "the answer to --check belongs on standard output")]

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::config::{self, Loaded, Problems};
use crate::control::{Control, Request};
use crate::engine::Service;
use crate::status::Snapshot;
use crate::{client, logs, server};

/// The bond's near end: sends what is routed to its tunnel over all links at once.
///
/// Runs in the foreground until SIGINT or SIGTERM and then leaves nothing behind. Needs root (CAP_NET_ADMIN, CAP_NET_RAW).
#[derive(Debug, Parser)]
#[command(name = "bonding-client", version, after_help = CLIENT_EXAMPLES)]
struct ClientOptions {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = config::CLIENT_FILE)]
    config: PathBuf,
    /// Only check the configuration: exit 0 if it is valid, 2 if not
    #[arg(long)]
    check: bool,
}

const CLIENT_EXAMPLES: &str = "\
Examples:
  bonding-client                          run on /etc/bonding/client.toml
  bonding-client -c test.toml --check     say what is wrong with a file, line by line
  RUST_LOG=debug bonding-client           with more logs
  bondctl status                          (elsewhere) see what the links do";

/// The bond's far end: receives over all links, forwards to the internet.
///
/// Runs in the foreground until SIGINT or SIGTERM and then leaves nothing behind. Needs root (CAP_NET_ADMIN, CAP_NET_RAW).
#[derive(Debug, Parser)]
#[command(name = "bonding-server", version, after_help = SERVER_EXAMPLES)]
struct ServerOptions {
    /// Configuration file [default: /etc/bonding/server.toml if it exists, else built-in defaults]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only check the configuration: exit 0 if it is valid, 2 if not
    #[arg(long)]
    check: bool,
}

const SERVER_EXAMPLES: &str = "\
Examples:
  bonding-server                          run on /etc/bonding/server.toml
  bonding-server -c test.toml --check     say what is wrong with a file, line by line
  RUST_LOG=debug bonding-server           with more logs
  bondctl status                          (elsewhere) see what the links do";

/// What plain links are not, said at every start.
const PLAIN_NOTICE: &str = "plain links are not protected: whoever is on the path can read, change and inject what they \
                            carry; use them only inside networks that are private already";

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
    let loaded = config::load_client(&options.config)?;
    if options.check {
        return Ok(checked(&loaded));
    }
    let config = &loaded.config;
    let names = config.links.iter().map(|link| link.name.as_str());
    let recheck = |path: &Path| config::load_client(path).map(drop);
    let mut daemon = Daemon::start(&loaded, &config.status.socket, names.collect(), recheck)?;
    client::run(&config.plan(), &mut daemon)?;
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
        return Ok(checked(&loaded));
    }
    let config = &loaded.config;
    let names = config.clients.iter().flat_map(|client| &client.links).map(|link| link.name.as_str());
    let recheck = |path: &Path| config::load_server(path).map(drop);
    let mut daemon = Daemon::start(&loaded, &config.status.socket, names.collect(), recheck)?;
    if config.clients.is_empty() {
        tracing::warn!("no [[client]] is configured: nobody can connect");
    }
    server::run(&config.plan(), &mut daemon)?;
    Ok(ExitCode::SUCCESS)
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

/// What runs beside the engine.
struct Daemon {
    control: Control,
    /// The file and how to check it again; `None` on defaults.
    file: Option<PathBuf>,
    recheck: fn(&Path) -> Result<(), Problems>,
}

impl Daemon {
    /// Sets up logs and the control socket, and says what the user should know.
    fn start<T>(
        loaded: &Loaded<T>,
        socket: &Path,
        plain_links: Vec<&str>,
        recheck: fn(&Path) -> Result<(), Problems>,
    ) -> anyhow::Result<Self> {
        logs::init()?;
        bonding_os::privileges::check()?;
        // Before any warning: a second instance should say only that it is one.
        let control = Control::bind(socket)?;
        for warning in &loaded.warnings {
            tracing::warn!("{}:{}: {}", loaded.file, warning.line, warning.message);
        }
        if !plain_links.is_empty() {
            tracing::warn!(links = plain_links.join(", "), "{PLAIN_NOTICE}");
        }
        let file = (!loaded.file.is_empty()).then(|| PathBuf::from(&loaded.file));
        Ok(Self { control, file, recheck })
    }
}

impl Service for Daemon {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.control.as_fd())
    }

    fn handle_ready(&mut self, snapshot: &dyn Fn() -> Snapshot) {
        self.control.handle_ready(|request| match request {
            Request::Status => {
                let status = snapshot().status();
                serde_json::to_string(&status)
                    .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
            }
        });
    }

    fn handle_interval(&mut self, snapshot: &Snapshot) {
        for report in snapshot.reports() {
            logs::report(&report);
        }
    }

    fn handle_reload(&mut self) {
        let Some(file) = &self.file else {
            tracing::warn!("there is no configuration file to read again");
            return;
        };
        match (self.recheck)(file) {
            Ok(()) => tracing::warn!(
                "{}: valid, but this version applies a changed file only at its next start; nothing was changed",
                file.display()
            ),
            Err(problems) => {
                for problem in &problems.list {
                    tracing::error!("{}:{}: {}", problems.file, problem.line, problem.message);
                }
                tracing::error!("{}: not valid; nothing was changed", file.display());
            }
        }
    }
}
