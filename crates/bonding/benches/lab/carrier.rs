//! A running carrier: the bond, the kernel over one link, or the kernel's Multipath TCP over all.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, ensure};
use bonding_lab::tools::{Iperf3, Iperf3Server, IperfDirection};
use bonding_lab::{Host, Lab, LabError, addr};
use bonding_proto::config::Security;
use bonding_testkit::bond::{Bond, Options, SERVER_V4, TUNNEL, run};

use crate::PROGRAMS;
use crate::rows::{Carrier, Protocol, Timing, Transfer};

/// The port of the transfer's server.
pub(crate) const IPERF_PORT: u16 = 5_201;
/// The port of the competitor's server.
pub(crate) const COMPETITOR_PORT: u16 = 5_202;
/// The kernel's limit of additional subflows.
const SUBFLOWS_MAX: &str = "8";

/// A full packet on a link, beside a full packet of the bond: headers of IPv4 and TCP with
/// timestamps, and what the bond adds (IPv4, UDP, sealing, frame; over plain links without
/// sealing).
const TCP_HEADERS_BYTES: f64 = 52.0;
/// The same of QUIC (RFC 9000): IPv4 and UDP 28, short header with an identifier of 8 and a number
/// of 2 bytes 11, tag 16, stream frame 8.
const QUIC_HEADERS_BYTES: f64 = 63.0;
/// A full packet on a link of the lab.
const LINK_MTU: f64 = 1_500.0;
pub(crate) const SEALED_BYTES: f64 = 71.0;
const PLAIN_BYTES: f64 = 39.0;
/// The MTU of the bond's tunnel over sealed links of 1500 bytes.
const TUNNEL_MTU: f64 = 1_429.0;

/// The share of payload in the bytes of full packets. Every carrier is judged by what the bond
/// could attain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shares {
    /// The share on a link.
    pub(crate) link: f64,
    /// The share on the device that the receiving host takes packets from.
    pub(crate) device: f64,
}

/// A running carrier in a lab.
pub(crate) struct Running<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) carrier: Carrier,
    pub(crate) bond: Option<Bond<'lab>>,
    /// The server's address, as the client reaches it.
    pub(crate) server: IpAddr,
    /// The link, if the carrier uses only one.
    device: Option<String>,
}

impl<'lab> Running<'lab> {
    /// Starts the carrier and waits until packets pass.
    pub(crate) fn start(
        lab: &'lab Lab,
        carrier: Carrier,
        ceilings: bool,
        best: usize,
    ) -> anyhow::Result<Self> {
        let policy = if carrier == Carrier::RoundRobin { "round_robin" } else { "adaptive" };
        let security = if carrier == Carrier::Plain { Security::Plain } else { Security::Sealed };
        let recovery = carrier != Carrier::NoRecovery;
        let split = if carrier == Carrier::Packets { ["off"; 2] } else { Options::default().split };
        // The loads are not what users have: iperf3's shrink to nothing.
        let compression = ["off"; 2];
        let usual = Options { policy, security, rates: ceilings, recovery, ..Options::default() };
        let options = Options { split, compression, ..usual };
        let mut running = Self { lab, carrier, bond: None, server: addr::SERVER_V4.into(), device: None };
        match carrier {
            Carrier::Bond
            | Carrier::Reversed
            | Carrier::Plain
            | Carrier::NoRecovery
            | Carrier::Packets
            | Carrier::RoundRobin => {
                let bond = Bond::start(lab, PROGRAMS, options)?;
                running.bond = Some(bond);
                running.server = SERVER_V4;
            }
            Carrier::Single => {
                let link = lab.scenario().links.get(best).context("no such link")?;
                running.device = Some(link.name.clone());
            }
            Carrier::Mptcp => configure_mptcp(lab)?,
        }
        Ok(running)
    }

    /// The shares of payload now: the bond sets the tunnel's MTU to what the links were found to
    /// carry.
    pub(crate) fn shares(&self, protocol: Protocol) -> anyhow::Result<Shares> {
        let headers = match protocol {
            Protocol::Tcp(_) => TCP_HEADERS_BYTES,
            Protocol::Quic(_) => QUIC_HEADERS_BYTES,
        };
        if self.bond.is_none() {
            let link = (TUNNEL_MTU - headers) / (TUNNEL_MTU + SEALED_BYTES);
            return Ok(Shares { link, device: (LINK_MTU - headers) / LINK_MTU });
        }
        let mtu = self.tunnel_mtu()?;
        let outer = if self.carrier == Carrier::Plain { PLAIN_BYTES } else { SEALED_BYTES };
        let payload = mtu - headers;
        Ok(Shares { link: payload / (mtu + outer), device: payload / mtu })
    }

    /// The tunnel's MTU, which decides what a full packet is.
    pub(crate) fn tunnel_mtu(&self) -> anyhow::Result<f64> {
        let mut command = self.lab.host(Host::Client).command("ip");
        let text = run(command.args(["-json", "link", "show", "dev", TUNNEL]))?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        json.pointer("/0/mtu").and_then(serde_json::Value::as_f64).context("the tunnel has no MTU")
    }

    /// Starts the server of transfers, which ends when dropped.
    pub(crate) fn iperf3_server(&self) -> Result<Iperf3Server, LabError> {
        let host = self.lab.host(Host::Server);
        match self.carrier {
            Carrier::Mptcp => Iperf3Server::start_mptcp(self.lab, host, IPERF_PORT),
            Carrier::Bond
            | Carrier::Reversed
            | Carrier::Plain
            | Carrier::NoRecovery
            | Carrier::Packets
            | Carrier::RoundRobin
            | Carrier::Single => Iperf3Server::start(self.lab, host, IPERF_PORT),
        }
    }

    /// The transfer, to be run on the client.
    pub(crate) fn iperf3(&self, transfer: Transfer, congestion: &str, timing: Timing) -> Iperf3 {
        let mut iperf3 = Iperf3::new(self.server, transfer.direction);
        iperf3.flows = transfer.flows;
        iperf3.duration = timing.measured;
        iperf3.omit = timing.omit;
        iperf3.congestion = Some(congestion.to_owned());
        iperf3.device.clone_from(&self.device);
        iperf3.mptcp = self.carrier == Carrier::Mptcp;
        iperf3
    }

    /// The device that a socket of the load is bound to: the link, if the carrier uses only one.
    pub(crate) fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// The devices over which `transfer` arrives, with the host.
    pub(crate) fn receiving(&self, direction: IperfDirection) -> (Host, Vec<String>) {
        let host = match direction {
            IperfDirection::Download => Host::Client,
            IperfDirection::Upload => Host::Server,
        };
        let links = || self.lab.scenario().links.iter().map(|link| link.name.clone()).collect();
        let devices = if self.bond.is_some() {
            // Bytes of connections that end at the server do not come out of its tunnel.
            let own = (host == Host::Server).then_some("lo");
            own.into_iter().chain([TUNNEL]).map(str::to_owned).collect()
        } else {
            self.device.clone().map_or_else(links, |device| vec![device])
        };
        (host, devices)
    }

    /// The address of the echo; Multipath TCP carries none.
    pub(crate) fn echo_address(&self) -> Option<SocketAddr> {
        const ECHO_PORT: u16 = 7_000;
        (self.carrier != Carrier::Mptcp).then(|| SocketAddr::new(self.server, ECHO_PORT))
    }

    /// Ends the carrier; fails if a process ended badly.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        match self.bond {
            Some(bond) => bond.stop(),
            None => Ok(()),
        }
    }
}

/// One subflow for each link: the first begins the connection, the others join it.
fn configure_mptcp(lab: &Lab) -> anyhow::Result<()> {
    ensure!(
        std::path::Path::new("/proc/sys/net/mptcp/enabled").exists(),
        "this kernel has no Multipath TCP: name the carriers to measure with --only"
    );
    for host in [Host::Client, Host::Server] {
        let mut command = lab.host(host).command("ip");
        run(command.args([
            "mptcp",
            "limits",
            "set",
            "subflow",
            SUBFLOWS_MAX,
            "add_addr_accepted",
            SUBFLOWS_MAX,
        ]))?;
    }
    for (index, link) in (0..).zip(&lab.scenario().links).skip(1) {
        let address = addr::client_v4(index).to_string();
        let mut command = lab.host(Host::Client).command("ip");
        run(command.args(["mptcp", "endpoint", "add", &address, "dev", &link.name, "subflow"]))?;
    }
    Ok(())
}
