//! `quicperf`: QUIC transfers between two hosts, by hand.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bonding_quicperf::{Amount, Buffers, Congestion, Direction, Outcome, Server, Settings, Transfer};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// QUIC transfers between two hosts: quinn's transport, without encryption. For measurements only.
#[derive(Debug, Parser)]
#[command(name = "quicperf")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve transfers until it is ended
    Server {
        /// The address to listen at
        #[arg(long, default_value = "0.0.0.0:4433")]
        listen: SocketAddr,
        #[command(flatten)]
        common: Common,
    },
    /// Make one transfer and print JSON
    Client(Client),
}

#[derive(Debug, Args)]
struct Common {
    /// The congestion control of what this end sends
    #[arg(long, value_enum, default_value_t = Control::Cubic)]
    congestion: Control,
    /// The UDP payload of a datagram: at most the path's MTU less 28 (IPv6: 48)
    #[arg(long, default_value_t = Settings::DATAGRAM_BYTES_MIN)]
    datagram_bytes: u16,
    /// Leave the socket's buffers as the system makes them, as most programs do; without it they
    /// are 2 MiB each, as far as the kernel's limits allow
    #[arg(long)]
    default_buffers: bool,
}

#[derive(Debug, Args)]
struct Client {
    /// The server: ADDRESS:PORT
    server: SocketAddr,
    /// Which way: down is from the server
    #[arg(long, value_enum, default_value_t = Way::Down)]
    way: Way,
    /// Transfer so many bytes over each connection, and say how long it took
    #[arg(long, conflicts_with = "seconds", required_unless_present = "seconds")]
    bytes: Option<u64>,
    /// Transfer for so long
    #[arg(long)]
    seconds: Option<f64>,
    /// Before `--seconds`: not measured
    #[arg(long, default_value_t = 0.0)]
    omit: f64,
    /// Connections at once
    #[arg(long, default_value_t = 1)]
    flows: u16,
    /// Send from this device
    #[arg(long)]
    device: Option<String>,
    /// Give up a transfer of bytes after so many seconds
    #[arg(long, default_value_t = 60.0)]
    limit: f64,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Control {
    Cubic,
    Bbr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    Down,
    Up,
}

impl Common {
    fn settings(&self) -> anyhow::Result<Settings> {
        let congestion = match self.congestion {
            Control::Cubic => Congestion::Cubic,
            Control::Bbr => Congestion::Bbr,
        };
        let buffers = if self.default_buffers { Buffers::System } else { Buffers::Large };
        Ok(Settings::new(congestion, self.datagram_bytes)?.with_buffers(buffers))
    }
}

fn seconds(name: &str, value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("--{name} {value}: give a time in seconds"))
}

impl Client {
    fn run(&self) -> anyhow::Result<Outcome> {
        let amount = match (self.bytes, self.seconds) {
            (Some(bytes), _) => Amount::Bytes(bytes),
            (None, Some(time)) => {
                Amount::Time { omit: seconds("omit", self.omit)?, measured: seconds("seconds", time)? }
            }
            (None, None) => anyhow::bail!("give --bytes or --seconds"),
        };
        ensure!(self.flows > 0, "--flows 0: there is nothing to transfer");
        let transfer = Transfer {
            server: self.server,
            device: self.device.clone(),
            direction: if self.way == Way::Down { Direction::Down } else { Direction::Up },
            amount,
            flows: self.flows,
            settings: self.common.settings()?,
            limit: seconds("limit", self.limit)?,
        };
        Ok(transfer.run()?)
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    match &arguments.command {
        Command::Server { listen, common } => {
            let server = Server::start(*listen, common.settings()?)
                .with_context(|| format!("cannot listen at {listen}"))?;
            eprintln!("listening at {}", server.address());
            server.wait()?;
            Ok(true)
        }
        Command::Client(client) => {
            let outcome = client.run()?;
            let report = serde_json::json!({
                "mbps": outcome.bps() / 1e6,
                "bytes": outcome.bytes,
                "seconds": outcome.time.as_secs_f64(),
                "flow_bytes": outcome.flow_bytes,
                "finished": outcome.unfinished.is_none(),
                "unfinished": outcome.unfinished,
            });
            println!("{report:#}");
            Ok(outcome.unfinished.is_none())
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
