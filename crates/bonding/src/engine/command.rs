//! What a running client or server can be told to do, and what it answers. As JSON, the answers are part of the user's
//! contract.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::{Host, Ports};

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Invite a client.
    Invite {
        /// What it will be called.
        name: String,
        /// Where it is to look for the server; none: where the server thinks it is.
        hosts: Vec<Host>,
        /// The ports as seen from outside; `None`: as configured.
        ports: Option<Ports>,
    },
    /// List all clients.
    Clients,
    /// Remove a client, or an invitation that nobody used yet.
    Revoke {
        /// Whose.
        name: String,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// To [`Command::Invite`].
    Invited(Invited),
    /// To [`Command::Clients`].
    Clients(Clients),
    /// To [`Command::Revoke`].
    Revoked(Revoked),
}

/// An invitation was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// The line to be given to the client. Whoever has it can use it.
    pub invitation: String,
    /// Until when, RFC 3339 in UTC.
    pub expires: String,
    /// Addresses in it that cannot be reached from the internet.
    pub private: Vec<IpAddr>,
}

/// All that a server knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clients {
    /// Configured ones first, then in the order of their enrolment.
    pub clients: Vec<KnownClient>,
    /// Those that wait for their use.
    pub invitations: Vec<OpenInvitation>,
}

/// One client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownClient {
    /// Unique.
    pub name: String,
    /// `up`, or `down` while no link is usable.
    pub state: String,
    /// `configured` in server.toml, or `invited`.
    pub origin: String,
    /// When it enrolled, RFC 3339 in UTC.
    pub enrolled: Option<String>,
    /// In base64; a client with plain links only has none.
    pub public_key: Option<String>,
    /// In the tunnel.
    pub addresses: Vec<IpAddr>,
    /// Where it is, on its first usable link.
    pub peer: Option<String>,
}

/// One invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenInvitation {
    /// What its client will be called.
    pub name: String,
    /// RFC 3339 in UTC.
    pub expires: String,
}

/// A client, or an invitation, is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Its name.
    pub name: String,
    /// It was a client, not an invitation that nobody had used.
    pub enrolled: bool,
}
