//! Commands to a running client or server, and their answers. As JSON, the answers are part of the
//! user's contract.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use bonding_proto::endpoint::SessionId;

use crate::config::{Host, Ports};
use crate::engine::reload::NewPlan;
use crate::flows::{Top, Wanted};

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Invite a client.
    Invite {
        /// The client's name.
        name: String,
        /// Hosts at which the client finds the server; empty: the server's own addresses.
        hosts: Vec<Host>,
        /// The ports as seen from outside; `None`: as configured.
        ports: Option<Ports>,
    },
    /// List the next clients.
    Clients {
        /// The place behind which the list goes on; `None`: its start.
        after: Option<ListPlace>,
    },
    /// Look at the flows of the next sessions.
    Flows {
        /// The session behind which it goes on; `None`: the first.
        after: Option<SessionId>,
        /// Those that are wanted.
        wanted: Wanted,
    },
    /// Set when the key of a client that was invited expires.
    Expire {
        /// The name of the client.
        name: String,
        /// How long from now; `None`: never.
        after: Option<Duration>,
    },
    /// Make a new key for this client.
    Rekey,
    /// Use a client's link for something else.
    Link {
        /// The link's name.
        name: String,
        /// What for.
        order: LinkOrder,
    },
    /// Run on the plan of a file that was read again.
    Reload(NewPlan),
    /// Remove a client, or an invitation that is not used yet.
    Revoke {
        /// The name of the client or of the invitation.
        name: String,
    },
}

/// What a client's link is to be from now on, until the next reload or the end of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkOrder {
    /// A backup.
    Demote,
    /// What it is by the file; primary if it is not to serve by it.
    Enable,
    /// Preferred like this: lower before higher.
    Priority(u8),
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// To [`Command::Invite`].
    Invited(Invited),
    /// To [`Command::Clients`].
    Clients(ClientsPage),
    /// To [`Command::Flows`].
    #[serde(skip)]
    Flows(FlowsPage),
    /// To [`Command::Revoke`].
    Revoked(Revoked),
    /// To [`Command::Expire`].
    Expiring(Expiring),
    /// To [`Command::Rekey`].
    Rekeying(Rekeying),
    /// To [`Command::Link`].
    Ordered(Ordered),
    /// To [`Command::Reload`].
    Reloaded(Reloaded),
}

/// A place in the list of clients: when the client enrolled, in seconds since 1970, and its
/// session. It stays a place when clients come and go.
pub type ListPlace = (Option<u64>, SessionId);

/// A part of the list of clients, small enough to be made between two packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientsPage {
    /// The next clients.
    pub clients: Vec<KnownClient>,
    /// How the list goes on.
    #[serde(skip)]
    pub next: NextPage,
}

/// How the list of clients goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextPage {
    /// With the clients behind this place.
    After(ListPlace),
    /// Not at all; these are the invitations that are not used yet.
    End(Vec<OpenInvitation>),
}

/// The wanted flows of some sessions, few enough to be looked at between two packets.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowsPage {
    /// The first of their flows.
    pub top: Top,
    /// The session behind which it goes on; `None`: these were the last.
    pub next: Option<SessionId>,
}

/// An invitation was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// The line for the client. It is a secret: every machine that has it can use it.
    pub invitation: String,
    /// Until when, RFC 3339 in UTC.
    pub expires: String,
    /// Addresses in it that cannot be reached from the internet.
    pub private: Vec<IpAddr>,
}

/// All clients and invitations that a server knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clients {
    /// Configured ones first, then in the order of their enrolment.
    pub clients: Vec<KnownClient>,
    /// Invitations that are not used yet.
    pub invitations: Vec<OpenInvitation>,
}

/// One client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownClient {
    /// Unique.
    pub name: String,
    /// `up`, or `down` while no link is usable; `expired` once its key has.
    pub state: String,
    /// `configured` in server.toml, or `invited`.
    pub origin: String,
    /// When it enrolled, RFC 3339 in UTC.
    pub enrolled: Option<String>,
    /// When its key expires, RFC 3339 in UTC.
    #[serde(default)]
    pub expires: Option<String>,
    /// In base64; a client with plain links only has none.
    pub public_key: Option<String>,
    /// In the tunnel.
    pub addresses: Vec<IpAddr>,
    /// What it may reach, in the words of `[routing] allow`.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Where it is, on its first usable link.
    pub peer: Option<String>,
}

/// One invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenInvitation {
    /// The name of its client.
    pub name: String,
    /// RFC 3339 in UTC.
    pub expires: String,
}

/// A client, or an invitation, is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Its name.
    pub name: String,
    /// It was a client, not an open invitation.
    pub enrolled: bool,
}

/// A client's key expires, or does not any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiring {
    /// The client's name.
    pub name: String,
    /// When, RFC 3339 in UTC; `None`: never.
    pub expires: Option<String>,
}

/// A client has a new key, which it shows to its server from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rekeying {
    /// The new public key, in base64.
    pub public_key: String,
}

/// A file was read again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// A line for each change that took effect.
    pub changed: Vec<String>,
    /// The keys whose change takes effect at the next start.
    pub at_next_start: Vec<String>,
    /// What the file says without effect, each with its place.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A link is for something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// Its name.
    pub name: String,
    /// What it is for now.
    pub role: String,
    /// Lower is preferred.
    pub priority: u8,
    /// It is for something else than the file says.
    pub by_hand: bool,
}
