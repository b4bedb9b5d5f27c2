//! The bulk flows of a load: iperf3 over the kernel's TCP, or QUIC.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bonding_lab::Host;
use bonding_lab::tools::{Iperf3Server, IperfDirection};
use bonding_quicperf::{Amount, Congestion, Direction, Outcome, Server, Settings};
use bonding_testkit::wait::eventually;

use crate::carrier::Running;
use crate::rows::{Protocol, Timing, Transfer};

/// The port of QUIC's server.
const QUIC_PORT: u16 = 4_433;
/// Headers of IPv4 and UDP.
const UDP_HEADERS_BYTES: u16 = 28;
/// The MTU of a link of the lab, in bytes.
const LINK_MTU: u16 = 1_500;

/// The server of bulk flows; ends when dropped.
#[derive(Debug)]
pub(crate) enum Flows {
    Tcp { _server: Iperf3Server, congestion: &'static str },
    Quic(Quic),
}

impl Flows {
    /// Starts the server on its host.
    pub(crate) fn start(running: &Running<'_>, protocol: Protocol) -> anyhow::Result<Self> {
        Ok(match protocol {
            Protocol::Tcp(congestion) => Self::Tcp { _server: running.iperf3_server()?, congestion },
            Protocol::Quic(congestion) => Self::Quic(Quic::start(running, congestion)?),
        })
    }

    /// Runs a transfer from the client; gives its goodput in bits per second.
    pub(crate) fn run(
        &self,
        running: &Running<'_>,
        transfer: Transfer,
        timing: Timing,
    ) -> anyhow::Result<f64> {
        match self {
            Self::Tcp { congestion, .. } => {
                let iperf3 = running.iperf3(transfer, congestion, timing);
                Ok(iperf3.run(running.lab, running.lab.host(Host::Client))?.goodput_bps)
            }
            Self::Quic(quic) => {
                let amount = Amount::Time { omit: timing.omit, measured: timing.measured };
                Ok(quic.run(running, transfer.direction, transfer.flows, amount, Duration::MAX)?.bps())
            }
        }
    }
}

/// A server of QUIC, and what both ends are set to.
#[derive(Debug)]
pub(crate) struct Quic {
    server: Server,
    settings: Settings,
}

impl Quic {
    pub(crate) fn start(running: &Running<'_>, congestion: Congestion) -> anyhow::Result<Self> {
        let settings = Settings::new(congestion, datagram_bytes(running)?)?;
        let address = SocketAddr::new(running.server, QUIC_PORT);
        let server = running.lab.host(Host::Server).run(|| Server::start(address, settings))?;
        Ok(Self { server: server.context("cannot start QUIC's server")?, settings })
    }

    /// Makes a transfer over new connections.
    pub(crate) fn run(
        &self,
        running: &Running<'_>,
        direction: IperfDirection,
        flows: u16,
        amount: Amount,
        limit: Duration,
    ) -> anyhow::Result<Outcome> {
        let transfer = bonding_quicperf::Transfer {
            server: self.server.address(),
            device: running.device().map(str::to_owned),
            direction: match direction {
                IperfDirection::Download => Direction::Down,
                IperfDirection::Upload => Direction::Up,
            },
            amount,
            flows,
            settings: self.settings,
            limit,
        };
        Ok(running.lab.host(Host::Client).run(|| transfer.run())??)
    }
}

/// The largest datagrams that the carrier takes whole: those of the tunnel's MTU, once the bond has
/// found what its links carry.
fn datagram_bytes(running: &Running<'_>) -> anyhow::Result<u16> {
    if running.bond.is_none() {
        return Ok(LINK_MTU - UDP_HEADERS_BYTES);
    }
    eventually("the tunnel's MTU is enough for QUIC", || {
        let mtu = running.tunnel_mtu()?;
        ensure!(mtu >= f64::from(Settings::DATAGRAM_BYTES_MIN + UDP_HEADERS_BYTES), "it is {mtu}");
        // A device's MTU is a whole number below 65,536.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        let bytes = mtu as u16 - UDP_HEADERS_BYTES;
        Ok(bytes.min(Settings::DATAGRAM_BYTES_MAX))
    })
}
