//! `bondctl`: keys, configuration checks, status, a server's clients, cleaning up.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use bonding_os::undo;
use clap::{Subcommand, ValueEnum};

use super::clients::{self, ClientsArguments, ExpireArguments, InviteArguments, RevokeArguments, Said};
use super::events::EventsArguments;
use super::flows::FlowsArguments;
use super::style::Style;
use super::{Usage, check, events, flows, keys, rekey, reload, view};
use crate::config::{self, Kind};
use crate::control::{Ask, AskError, Request};
use crate::engine::command::{LinkOrder, Reloaded};
use crate::status::{Role, Status};
use crate::trace::print::{self, TraceArguments};

const KEY_EXAMPLES: &str = "\
Examples:
  (umask 077; bondctl genkey > client.key)                a key that only its owner can read
  bondctl pubkey < client.key                             the public key that belongs to it";

const CHECK_EXAMPLES: &str = "\
Examples:
  bondctl check /etc/bonding/client.toml                  what the file means, or every mistake in it
  bondctl check test.toml --as server                     where neither name nor sections tell the side";

const STATUS_EXAMPLES: &str = "\
Examples:
  bondctl status                                          of the client or server on this machine
  bondctl status --watch                                  again every second
  bondctl status --json | jq '.links[] | .name, .state'
  bondctl status --role server                            where a client runs beside it";

const FLOWS_EXAMPLES: &str = "\
Examples:
  bondctl flows                                           the 50 that carry most
  bondctl flows --sort delay --limit 5                    those that wait longest here
  bondctl flows --json | jq '.flows[] | select(.split | not) | .destination, .packets_by'
  bondctl flows --role server                             of all clients, where a client runs beside the server";

const CLEANUP_EXAMPLES: &str = "\
Examples:
  bondctl cleanup                                         of the client and of the server
  bondctl cleanup --socket /run/bonding/second.sock       of an instance with another [status] socket";

const INVITE_EXAMPLES: &str = "\
Examples:
  bondctl invite home                                     for a server with a public address
  bondctl invite home --host vps.example.net              for clients that find it by this name
  bondctl invite home --host 203.0.113.7 --host 2001:db8::7
  bondctl invite home --host 203.0.113.7 --ports 4001-4005   where a router forwards other ports";

const CLIENTS_EXAMPLES: &str = "\
Examples:
  bondctl clients
  bondctl clients --json | jq '.clients[].name'";

const EXPIRE_EXAMPLES: &str = "\
Examples:
  bondctl expire van 90d                                  rented for three months
  bondctl expire van never                                its key is valid until it is revoked (as when it enrols)
  bondctl expire van 0s                                   at once; its address stays its own";

const REKEY_EXAMPLES: &str = "\
Examples:
  bondctl rekey                                           of the client on this machine
  bondctl rekey --socket /run/bonding/second.sock         of an instance with another [status] socket";

const RELOAD_EXAMPLES: &str = "\
Examples:
  bondctl reload                                          what runs here reads its file again
  bondctl reload --role client                            where a server runs beside it
  systemctl reload bonding-client                         the same by SIGHUP; the log says what changed";

const LINK_EXAMPLES: &str = "\
Examples:
  bondctl link lte demote                                 a backup from now on: the tariff is used up
  bondctl link lte enable                                 what the file says again; serves if that is a backup or never
  bondctl link adsl priority 9                            after the links with lower numbers
  bondctl reload                                          all links as the file says";

const REVOKE_EXAMPLES: &str = "\
Examples:
  bondctl revoke home                                     its router was stolen
  bondctl revoke home && bondctl invite home              let it join anew";

/// The commands of `bondctl` for a client or a server that runs here, and for their files.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a new private key
    #[command(after_help = KEY_EXAMPLES)]
    Genkey,
    /// Read a private key on standard input and print its public key
    #[command(after_help = KEY_EXAMPLES)]
    Pubkey,
    /// Check a configuration file and say what it means
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// client.toml or server.toml
        file: PathBuf,
        /// The side that the file is for [default: told by its sections]
        #[arg(long = "as", value_name = "ROLE")]
        role: Option<Which>,
    },
    /// Show the session and the links of the client or server that runs here
    ///
    /// Exits 0 only if a client's session is up and none of its links is down; 0 for a server that
    /// answers.
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        /// One line of JSON
        #[arg(long)]
        json: bool,
        /// Show it again every second, until interrupted
        #[arg(long)]
        watch: bool,
        /// The client or server to ask.
        #[command(flatten)]
        target: Target,
    },
    /// Show the flows that cross the bond: their rates, class, links, and how they go
    ///
    /// Shows flows that had packets in the last 10 s, of the client or of all clients of the server
    /// that runs here. UP is from the client to the server. WAITS is how long the first packet of
    /// the flow has waited here. CLASS names the class and why it is that (rule N, dscp, traffic,
    /// peer, service), or else the tier. GOES AS says whether a TCP connection ends at the bond
    /// (split) or why it goes as packets. LINKS has each link's share of the last second or two.
    #[command(after_help = FLOWS_EXAMPLES)]
    Flows {
        /// Which flows, and how.
        #[command(flatten)]
        arguments: FlowsArguments,
        /// The client or server to ask.
        #[command(flatten)]
        target: Target,
    },
    /// Show what happened lately, with its cause: links that failed, sessions, caps, clients
    ///
    /// The client or server keeps the newest 1,024 events while it runs. Times are in UTC.
    #[command(after_help = events::EXAMPLES)]
    Events {
        /// Which events, and how.
        #[command(flatten)]
        arguments: EventsArguments,
        /// The client or server to ask.
        #[command(flatten)]
        target: Target,
    },
    /// Invite a client: print the line that enrols it, valid once, for 24 hours
    ///
    /// Asks the bonding-server that runs here. Give the line to `bonding-client join` on the
    /// client's machine. It is a secret: the first machine that uses it is enrolled. An earlier
    /// line for the same name is void.
    #[command(after_help = INVITE_EXAMPLES)]
    Invite(InviteArguments),
    /// List the clients of the bonding-server that runs here, and open invitations
    #[command(after_help = CLIENTS_EXAMPLES)]
    Clients(ClientsArguments),
    /// Set when the key of a client that was invited expires
    ///
    /// Asks the bonding-server that runs here. A client whose key has expired is refused, and told
    /// so, until its key is made valid again.
    #[command(after_help = EXPIRE_EXAMPLES)]
    Expire(ExpireArguments),
    /// Make a new key for the client that runs here, and have its server take it for the old one
    ///
    /// The session goes on meanwhile. The old key stays in use until the server has accepted the
    /// new one, and is worthless afterwards. Exits 0 when that is so.
    #[command(after_help = REKEY_EXAMPLES)]
    Rekey {
        /// Control socket of the client
        #[arg(long, value_name = "PATH", default_value = config::CLIENT_SOCKET)]
        socket: PathBuf,
    },
    /// Read the configuration file again, and say what changed
    ///
    /// What can change while the client or server runs does, without losing a packet of what
    /// stays; keys that cannot are named, and take effect at the next start. A file with a mistake
    /// changes nothing: every mistake is shown, and the exit code is 1. SIGHUP does the same.
    #[command(after_help = RELOAD_EXAMPLES)]
    Reload {
        /// The client or server to ask.
        #[command(flatten)]
        target: Target,
    },
    /// Use a link of the client that runs here for something else
    ///
    /// It holds until a reload or the next start, which both put back what the file says.
    #[command(after_help = LINK_EXAMPLES)]
    Link {
        /// The link's name
        name: String,
        /// What it is for from now on.
        #[command(subcommand)]
        order: LinkCommand,
        /// Control socket of the client
        #[arg(long, global = true, value_name = "PATH", default_value = config::CLIENT_SOCKET)]
        socket: PathBuf,
    },
    /// Forget a client's key and end its session at once, or void an invitation
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke(RevokeArguments),
    /// Print the decisions that a client or server recorded with --trace, one JSON object a line
    ///
    /// Time is in ms since the start of the recording side, group_id is its peer; events have
    /// qlog's names where these fit. Exits 1 if the file is damaged, after printing the records
    /// ahead of the damage.
    #[command(after_help = print::EXAMPLES)]
    Trace(TraceArguments),
    /// Undo the changes that a crashed client or server left on this machine
    ///
    /// Both do the same at their start; this command is for machines where they will not start
    /// again. Where a service manager says that the service failed (SERVICE_RESULT), what
    /// `[routing] capture` holds stays held until the next start.
    #[command(after_help = CLEANUP_EXAMPLES)]
    Cleanup {
        /// The client or server to ask.
        #[command(flatten)]
        target: Target,
    },
}

/// What a link is to be.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum LinkCommand {
    /// A backup: it carries data while no better link is up
    Demote,
    /// What the file says; primary if that is a backup or never
    Enable,
    /// Preferred before links with higher numbers
    Priority {
        /// From 0 to 255; lower is preferred
        number: u8,
    },
}

/// The client or server to ask.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// Control socket [default: /run/bonding/client.sock or server.sock, whichever is there]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Ask only this side
    #[arg(long, value_name = "ROLE", conflicts_with = "socket")]
    role: Option<Which>,
}

/// A side of the bond, as an option names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// The client.
    Client,
    /// The server.
    Server,
}

impl Target {
    /// The sockets to ask.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let (client, server) = (config::CLIENT_SOCKET.into(), config::SERVER_SOCKET.into());
        match (&self.socket, self.role) {
            (Some(socket), _) => vec![socket.clone()],
            (None, Some(Which::Client)) => vec![client],
            (None, Some(Which::Server)) => vec![server],
            (None, None) => vec![client, server],
        }
    }
}

/// Carries a command out.
///
/// # Errors
/// The failure, for [`exit_code`](super::exit_code).
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Genkey => println!("{}", keys::generate()?),
        Command::Pubkey => println!("{}", keys::public(std::io::stdin().lock())?),
        Command::Check { file, role } => {
            let kind = role.map(|role| match role {
                Which::Client => Kind::Client,
                Which::Server => Kind::Server,
            });
            let (description, warnings) = check::check(&file, kind)?;
            for warning in warnings {
                eprintln!("{warning}");
            }
            print!("{description}");
        }
        Command::Status { json, watch, target } => return status(json, watch, &target.sockets()),
        Command::Flows { arguments, target } => flows(arguments, &target.sockets())?,
        Command::Events { arguments, target } => events(&arguments, &target.sockets())?,
        Command::Invite(arguments) => say(clients::invite(arguments)?),
        Command::Clients(arguments) => {
            clients::clients(&arguments, Style::of_stdout(), &mut std::io::stdout().lock())?;
        }
        Command::Expire(arguments) => say(clients::expire(arguments)?),
        Command::Rekey { socket } => println!("{}", rekey::rekey(&socket)?),
        Command::Reload { target } => reload(&target.sockets())?,
        Command::Link { name, order, socket } => print!("{}", link(name, order, &socket)?),
        Command::Revoke(arguments) => say(clients::revoke(arguments)?),
        Command::Trace(arguments) => print::run(&arguments, std::io::stdout().lock())?,
        Command::Cleanup { target } => cleanup(&target.sockets())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn say(said: Said) {
    for note in said.notes {
        eprintln!("{note}");
    }
    print!("{}", said.result);
}

/// Connects to everything that answers on `sockets`.
fn connect(sockets: &[PathBuf]) -> anyhow::Result<Vec<Ask>> {
    let mut found = Vec::new();
    let mut missing = None;
    for socket in sockets {
        match Ask::connect(socket) {
            Ok(ask) => found.push(ask),
            Err(error @ AskError::NotRunning(_)) => {
                missing.get_or_insert(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match missing {
        Some(_) if found.is_empty() && sockets.len() > 1 => {
            bail!("no client and no server runs here (no process answers in /run/bonding)")
        }
        Some(error) if found.is_empty() => Err(error.into()),
        Some(_) | None => Ok(found),
    }
}

/// The same; for what is of one side (`alone`), such as JSON, only one may answer.
fn connect_for(alone: bool, sockets: &[PathBuf]) -> anyhow::Result<Vec<Ask>> {
    let asks = connect(sockets)?;
    if alone && asks.len() > 1 {
        return Err(Usage(
            "a client and a server run here: choose with --role client or --role server".into(),
        )
        .into());
    }
    Ok(asks)
}

fn flows(arguments: FlowsArguments, sockets: &[PathBuf]) -> anyhow::Result<()> {
    arguments.request().command().map_err(Usage)?;
    for ask in &mut connect_for(arguments.is_json(), sockets)? {
        flows::flows(ask, arguments, Style::of_stdout(), &mut std::io::stdout().lock())?;
    }
    Ok(())
}

fn events(arguments: &EventsArguments, sockets: &[PathBuf]) -> anyhow::Result<()> {
    let since = arguments.since(SystemTime::now())?;
    for ask in &mut connect_for(arguments.is_of_one(), sockets)? {
        events::events(ask, arguments, since, &mut std::io::stdout().lock())?;
    }
    Ok(())
}

fn status(json: bool, watch: bool, sockets: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut asks = connect_for(json, sockets)?;
    let style = Style::of_stdout();
    let redraw = watch && std::io::stdout().is_terminal();
    loop {
        let mut well = true;
        let mut text = String::new();
        for ask in &mut asks {
            let answer = ask.ask(&Request::Status)?;
            let status: Status = serde_json::from_str(&answer)
                .context("the running program is of another version than this bondctl")?;
            well &= is_well(&status);
            if json {
                text.push_str(&answer);
            } else {
                text.push_str(&view::render(&status, SystemTime::now(), style));
            }
        }
        if redraw {
            // ECMA-48: home; erase below, after the text, so that nothing flickers.
            let lines = text.replace('\n', "\x1b[K\n");
            print!("\x1b[H{lines}\x1b[J");
        } else {
            print!("{text}");
        }
        std::io::Write::flush(&mut std::io::stdout()).context("standard output")?;
        if !watch {
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The running program's answer cannot be read.
const OTHER_VERSION: &str = "the running program is of another version than this bondctl";

fn reload(sockets: &[PathBuf]) -> anyhow::Result<()> {
    for ask in &mut connect(sockets)? {
        let done: Reloaded = serde_json::from_str(&ask.ask(&Request::Reload)?).context(OTHER_VERSION)?;
        for warning in &done.warnings {
            eprintln!("{warning}");
        }
        print!("{}", reload::render(&done));
    }
    Ok(())
}

fn link(name: String, order: LinkCommand, socket: &Path) -> anyhow::Result<String> {
    let order = match order {
        LinkCommand::Demote => LinkOrder::Demote,
        LinkCommand::Enable => LinkOrder::Enable,
        LinkCommand::Priority { number } => LinkOrder::Priority(number),
    };
    let answer = Ask::connect(socket)?.ask(&Request::Link { name, order })?;
    Ok(reload::render_order(&serde_json::from_str(&answer).context(OTHER_VERSION)?))
}

fn is_well(status: &Status) -> bool {
    match status.role {
        Role::Client => status.session.state == "up" && status.links.iter().all(|link| link.state != "DOWN"),
        Role::Server => true,
    }
}

fn cleanup(sockets: &[PathBuf]) -> anyhow::Result<()> {
    let mut any = false;
    for socket in sockets {
        let file = config::state_file(socket);
        // systemd.exec(5): after a failure the service manager starts the client anew, and what is
        // captured must not leave meanwhile.
        let has_failed = std::env::var("SERVICE_RESULT").is_ok_and(|result| result != "success");
        let cleanup = if has_failed { undo::cleanup_holding } else { undo::cleanup };
        any |= cleanup(&file)?;
        any |= remove_socket(socket)?;
    }
    println!("{}", if any { "cleaned up what was left behind" } else { "nothing was left behind" });
    Ok(())
}

/// Removes a control socket that no process serves.
fn remove_socket(socket: &Path) -> anyhow::Result<bool> {
    if !socket.exists() || !matches!(Ask::connect(socket), Err(AskError::NotRunning(_))) {
        return Ok(false);
    }
    std::fs::remove_file(socket).with_context(|| format!("{} cannot be removed", socket.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::{session, snapshot};

    #[test]
    fn all_is_well_only_with_a_session_and_every_link() {
        let mut status = snapshot(Role::Client, vec![session("vps", true)]).status();
        assert!(is_well(&status));
        status.links[0].state = "DOWN".to_owned();
        assert!(!is_well(&status));
        assert!(!is_well(&snapshot(Role::Client, vec![session("vps", false)]).status()));
        assert!(is_well(&snapshot(Role::Server, vec![session("home", false)]).status()));
    }
}
