//! A running carrier between client and server: the bond, another project's tunnel, or none.

use std::net::IpAddr;
use std::path::Path;

use bonding_lab::{Lab, Process, addr};
use bonding_proto::config::Security;
use bonding_testkit::bond::{Bond, Options, SERVER_V4};
use clap::ValueEnum;
use serde::Serialize;

use crate::PROGRAMS;
use crate::{bare, peers};

/// What carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Carrier {
    /// The wire alone
    Wire,
    /// A tunnel with only the same offloads and AEAD
    Bare,
    /// The bond over one plain link
    Plain,
    /// The bond over one sealed link
    Bond,
    /// The same with TCP as packets (`[tcp] split = "off"`)
    Packets,
    /// The bond over four sealed links
    #[value(name = "bond-4")]
    #[serde(rename = "bond-4")]
    Bond4,
    /// The bond over sixteen sealed links
    #[value(name = "bond-16")]
    #[serde(rename = "bond-16")]
    Bond16,
    /// wireguard-go, as Debian has it
    WireguardGo,
    /// boringtun-cli, from crates.io
    Boringtun,
    /// OpenVPN with AES-256-GCM
    Openvpn,
}

impl Carrier {
    pub(crate) const ALL: [Self; 10] = [
        Self::Wire,
        Self::Bare,
        Self::Plain,
        Self::Bond,
        Self::Packets,
        Self::Bond4,
        Self::Bond16,
        Self::WireguardGo,
        Self::Boringtun,
        Self::Openvpn,
    ];

    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(crate) const fn links(self) -> u8 {
        match self {
            Self::Bond4 => 4,
            Self::Bond16 => 16,
            Self::Wire
            | Self::Bare
            | Self::Plain
            | Self::Bond
            | Self::Packets
            | Self::WireguardGo
            | Self::Boringtun
            | Self::Openvpn => 1,
        }
    }

    /// The first program that the carrier needs and the machine lacks.
    pub(crate) fn missing(self, folder: Option<&Path>) -> Option<&'static str> {
        let needed: &[&str] = match self {
            Self::Wire
            | Self::Bare
            | Self::Plain
            | Self::Bond
            | Self::Packets
            | Self::Bond4
            | Self::Bond16 => &[],
            Self::WireguardGo => &["wireguard-go", "wg"],
            Self::Boringtun => &["boringtun-cli", "wg"],
            Self::Openvpn => &["openvpn", "openssl"],
        };
        needed.iter().find(|program| peers::find(program, folder).is_none()).copied()
    }
}

/// A running carrier.
pub(crate) struct Running<'lab> {
    pub(crate) lab: &'lab Lab,
    /// The server's address, as the client reaches it.
    pub(crate) server: IpAddr,
    bond: Option<Bond<'lab>>,
    processes: Vec<Process>,
}

impl<'lab> Running<'lab> {
    /// Starts the carrier and waits until packets pass. `folder` holds programs that are not in the
    /// PATH.
    pub(crate) fn start(lab: &'lab Lab, carrier: Carrier, folder: Option<&Path>) -> anyhow::Result<Self> {
        let mut running = Self { lab, server: SERVER_V4, bond: None, processes: Vec::new() };
        match carrier {
            Carrier::Wire => running.server = addr::SERVER_V4.into(),
            Carrier::Bare => running.processes = bare::start(lab)?,
            Carrier::Plain | Carrier::Bond | Carrier::Packets | Carrier::Bond4 | Carrier::Bond16 => {
                let security = if carrier == Carrier::Plain { Security::Plain } else { Security::Sealed };
                let split = if carrier == Carrier::Packets { ["off"; 2] } else { Options::default().split };
                let options = Options { security, rates: false, split, ..Options::default() };
                running.bond = Some(Bond::start(lab, PROGRAMS, options)?);
            }
            Carrier::WireguardGo => running.processes = peers::wireguard(lab, "wireguard-go", folder)?,
            Carrier::Boringtun => running.processes = peers::wireguard(lab, "boringtun-cli", folder)?,
            Carrier::Openvpn => running.processes = peers::openvpn(lab)?,
        }
        peers::wait_for(lab, running.server)?;
        Ok(running)
    }

    /// The processes of the tunnel: client, server.
    pub(crate) fn process_ids(&self) -> anyhow::Result<Vec<u32>> {
        match &self.bond {
            Some(bond) => crate::ENDS.iter().map(|host| Ok(bond.process(*host)?.id())).collect(),
            None => Ok(self.processes.iter().map(Process::id).collect()),
        }
    }

    pub(crate) fn bond(&self) -> Option<&Bond<'lab>> {
        self.bond.as_ref()
    }

    /// Ends the carrier; fails if a process ended badly.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.bond.map_or(Ok(()), Bond::stop)
    }
}
